/* vmath1.c: see vmath.h. No vectors: for every compiler and machine. */
#define LANES 1
#define LEVEL ad_vlevel1
#define NAME "portable"
#include "vlevel.h"
