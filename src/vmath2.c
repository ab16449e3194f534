/* vmath2.c: see vmath.h. Two doubles, as every x86-64 and ARM64 has them. */
#ifdef __GNUC__
#define LANES 2
#define LEVEL ad_vlevel2
#define NAME "128 bits"
#include "vlevel.h"
#else
extern const int ad_vlevel2_none; /* no file may be empty */
#endif
