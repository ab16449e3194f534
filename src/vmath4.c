/* vmath4.c: see vmath.h. Four doubles: AVX2. */
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))),                  \
                             apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define LANES 4
#define LEVEL ad_vlevel4
#define NAME "AVX2"
#include "vlevel.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
extern const int ad_vlevel4_none; /* no file may be empty */
#endif
