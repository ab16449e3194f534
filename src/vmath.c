/*
** vmath.c
** Which of the levels of vmath.h this CPU has, and what they have in common.
*/
#include "vmath.h"

#include <string.h>

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

#define MOST ((size_t)1 << 20) /* they count in int */

void ad_points(ad_Points *f, int arity, size_t n, double *d,
               const double *const *x) {
  const double *at[AD_MAXARITY];
  size_t k = 0;
  while (n - k >= V_LEAST) {
    const size_t m = n - k < MOST ? (n - k) / V_LEAST * V_LEAST : MOST;
    for (int j = 0; j < arity; j++) at[j] = x[j] + k;
    f(d + k, at, (int)m);
    k += m;
  }
  if (k < n) {
    double room[AD_MAXARITY][V_LEAST], y[V_LEAST];
    for (int j = 0; j < arity; j++) {
      for (size_t i = 0; i < V_LEAST; i++)
        room[j][i] = x[j][k + i < n ? k + i : k];
      at[j] = room[j];
    }
    f(y, at, V_LEAST);
    memcpy(d + k, y, (n - k) * sizeof *y);
  }
}

#define OP1(name, val, d0, l0, h0, kind)                                       \
  static void one_##name(double *d, const double *const *x, int points) {      \
    for (int k = 0; k < points; k++) d[k] = ad_v_##name(x[0][k]);              \
  }
#define OP2(name, val, d0, d1, l0, h0, l1, h1, kind)                           \
  static void one_##name(double *d, const double *const *x, int points) {      \
    for (int k = 0; k < points; k++) d[k] = ad_v_##name(x[0][k], x[1][k]);     \
  }
#define OP3(name, val, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)               \
  static void one_##name(double *d, const double *const *x, int points) {      \
    for (int k = 0; k < points; k++)                                           \
      d[k] = ad_v_##name(x[0][k], x[1][k], x[2][k]);                           \
  }
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

ad_Points *const ad_onebyone[] = {
#define OP1(name, val, d0, l0, h0, kind) one_##name,
#define OP2(name, val, d0, d1, l0, h0, l1, h1, kind) one_##name,
#define OP3(name, val, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind) one_##name,
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
};
