/* vmath8.c: see vmath.h. Eight doubles: AVX-512. */
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))),      \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq")
#endif
#define LANES 8
#define LEVEL ad_vlevel8
#define NAME "AVX-512"
#include "vlevel.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
extern const int ad_vlevel8_none; /* no file may be empty */
#endif
