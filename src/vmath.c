/*
** vmath.c
** Which of the levels of vmath.h this CPU has.
*/
#include "vmath.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define X86
#endif

static const Vlevel *have(int n) {
  switch (n) {
#ifndef __GNUC__
  case 1:
    return &ad_vlevel1;
#else
  case 2:
    return &ad_vlevel2;
#endif
#ifdef X86
  case 3:
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &ad_vlevel4 : NULL;
  case 4:
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512dq")
               ? &ad_vlevel8
               : NULL;
#endif
  default:
    return NULL;
  }
}

const Vlevel *ad_vlevel(int n) {
  if (n != 0) return have(n);
  for (n = V_LEVELS;; n--) {
    const Vlevel *l = have(n);
    if (l != NULL) return l;
  }
}
