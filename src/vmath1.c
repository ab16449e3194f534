/*
** vmath1.c: see vmath.h. No vectors, for compilers that know none; to the
** others those of two lanes are no less portable.
*/
#ifndef __GNUC__
#define LANES 1
#define LEVEL ad_vlevel1
#define NAME "portable"
#include "vlevel.h"
#else
extern const int ad_vlevel1_none; /* no file may be empty */
#endif
