/*
** kernel.c
** Operations found by number, and the operations over a list.
*/
#define AD_KEEP_NOTATION
#include "kernel.h"

#include <float.h>

#if FLT_EVAL_METHOD == 2
#error "doubles have to be doubles: -msse2 -mfpmath=sse"
#endif

const ad_OpInfo ad_opinfo[OP_count] = {
#define ROW(name, arity, kind, l0, h0, l1, h1, l2, h2)                         \
  {#name, arity, (#kind)[0], {l0, l1, l2}, {h0, h1, h2}},
#define OP1(name, v, d0, l0, h0, kind) ROW(name, 1, kind, l0, h0, 0, 0, 0, 0)
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  ROW(name, 2, kind, l0, h0, l1, h1, 0, 0)
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  ROW(name, 3, kind, l0, h0, l1, h1, l2, h2)
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
#define NOP(name, v, rule) ROW(name, 0, L, -2, 2, 0, 0, 0, 0)
#include "nary.h"
#undef NOP
#undef ROW
};

double ad_opvalue(int op, const double *x) {
  switch (op) {
#define OP1(name, v, d0, l0, h0, kind)                                         \
  case OP_##name:                                                              \
    return ad_v_##name(x[0]);
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  case OP_##name:                                                              \
    return ad_v_##name(x[0], x[1]);
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  case OP_##name:                                                              \
    return ad_v_##name(x[0], x[1], x[2]);
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
  default:
    return NAN;
  }
}

double ad_partial(int op, int i, const double *x, double y) {
  switch (op) {
#define OP1(name, v, d0, l0, h0, kind)                                         \
  case OP_##name:                                                              \
    return ad_d0_##name(x[0], y);
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  case OP_##name:                                                              \
    return i == 0 ? ad_d0_##name(x[0], x[1], y) : ad_d1_##name(x[0], x[1], y);
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  case OP_##name:                                                              \
    return i == 0   ? ad_d0_##name(x[0], x[1], x[2], y)                        \
           : i == 1 ? ad_d1_##name(x[0], x[1], x[2], y)                        \
                    : ad_d2_##name(x[0], x[1], x[2], y);
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
  default:
    return NAN;
  }
}

/*
** Operations over a list: values
*/

static double ad_nsum(size_t n, const double *x) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += x[i];
  return s;
}

static double ad_nmean(size_t n, const double *x) {
  return ad_nsum(n, x) / (double)n;
}

static double ad_nprod(size_t n, const double *x) {
  double s = 1;
  for (size_t i = 0; i < n; i++) s *= x[i];
  return s;
}

static double ad_ndot(size_t n, const double *x) {
  size_t half = n / 2;
  double s = 0;
  for (size_t i = 0; i < half; i++) s += x[i] * x[half + i];
  return s;
}

/* scaled by the largest element, so that squares neither over- nor underflow */
static double ad_nnorm(size_t n, const double *x) {
  double m = 0, s = 0;
  for (size_t i = 0; i < n; i++) {
    if (isnan(x[i])) return x[i];
    if (fabs(x[i]) > m) m = fabs(x[i]);
  }
  if (m == 0 || isinf(m)) return m;
  for (size_t i = 0; i < n; i++) s += (x[i] / m) * (x[i] / m);
  return m * sqrt(s);
}

static double ad_nmax(size_t n, const double *x) {
  double m = x[0];
  for (size_t i = 1; i < n; i++) m = ad_v_max(m, x[i]);
  return m;
}

static double ad_nmin(size_t n, const double *x) {
  double m = x[0];
  for (size_t i = 1; i < n; i++) m = ad_v_min(m, x[i]);
  return m;
}

/* shifted by the largest element, so that no exponential overflows */
static double ad_nlogsumexp(size_t n, const double *x) {
  double m = -HUGE_VAL, s = 0;
  for (size_t i = 0; i < n; i++) {
    if (isnan(x[i])) return x[i];
    if (x[i] > m) m = x[i];
  }
  if (isinf(m)) return m;
  for (size_t i = 0; i < n; i++) s += exp(x[i] - m);
  return m + log(s);
}

double ad_nvalue(int op, size_t n, const double *x) {
  switch (op) {
#define NOP(name, v, rule)                                                     \
  case OP_list_##name:                                                         \
    return v(n, x);
#include "nary.h"
#undef NOP
  default:
    return NAN;
  }
}

/*
** Operations over a list: partial derivatives
*/

static double ties(size_t n, const double *x, double y) {
  size_t k = 0;
  for (size_t i = 0; i < n; i++) k += (x[i] == y);
  return (double)k;
}

/* p[i] = product of all x but x[i], without a division */
static void others(size_t n, const double *x, double *p) {
  double acc = 1;
  for (size_t i = 0; i < n; i++) {
    p[i] = acc;
    acc *= x[i];
  }
  acc = 1;
  for (size_t i = n; i-- > 0;) {
    p[i] *= acc;
    acc *= x[i];
  }
}

/* p[i] = exp(x[i]) / sum of exp(x); infinite ones share evenly */
static void softmax(size_t n, const double *x, double *p) {
  double m = -HUGE_VAL, s = 0;
  for (size_t i = 0; i < n; i++)
    if (x[i] > m) m = x[i];
  for (size_t i = 0; i < n; i++) {
    p[i] = isinf(m) ? x[i] == m : exp(x[i] - m);
    s += p[i];
  }
  for (size_t i = 0; i < n; i++) p[i] /= s;
}

#define X(i) x[i]
#define Y y
#define N n
#define OTHERS(i) p[i]
#define SOFTMAX(i) p[i]
#define SHARE(i) (x[i] == y ? 1 / k : 0)

void ad_npartials(int op, size_t n, const double *x, double y, double *p) {
  const double k = ties(n, x, y);
  if (op == OP_list_prod) others(n, x, p);
  if (op == OP_list_logsumexp) softmax(n, x, p);
  switch (op) {
#define NOP(name, v, rule)                                                     \
  case OP_list_##name:                                                         \
    for (size_t i = 0; i < n; i++) p[i] = rule;                                \
    break;
#include "nary.h"
#undef NOP
  default:
    break;
  }
}
