/*
** kernel.h
** The table of operations on plain doubles.
**
** Every row of ops.h becomes inline functions, so that a caller that names
** its operation pays no dispatch:
**   ad_v_tanh(a)           value
**   ad_d0_tanh(a, y)       partial derivative by the first argument
**   ad_d1_atan2(a, b, y)   ... by the second
** and a number OP_tanh with which ad_opvalue and ad_partial find them.
*/
#ifndef ad_kernel_h
#define ad_kernel_h

#include <math.h>
#include <stddef.h>

#include "special.h"

#define AD_PI 3.14159265358979323846
#define AD_LN2 0.69314718055994530942
#define AD_LN10 2.30258509299404568402
#define AD_2_SQRTPI 1.12837916709551257390

/* numbers of the operations; the list operations follow the others */
typedef enum ad_Op {
#define OP1(name, v, d0, l0, h0, kind) OP_##name,
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind) OP_##name,
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind) OP_##name,
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
#define NOP(name, v, rule) OP_list_##name,
#include "nary.h"
#undef NOP
  OP_count
} ad_Op;

#define AD_MAXARITY 3

typedef struct ad_OpInfo {
  const char *name;
  int arity; /* 0 for an operation over a list */
  char kind; /* 'F', 'O', 'I' as in ops.h; 'L' for lists */
  double lo[AD_MAXARITY], hi[AD_MAXARITY];
} ad_OpInfo;

extern const ad_OpInfo ad_opinfo[OP_count];

double ad_opvalue(int op, const double *x);
double ad_partial(int op, int i, const double *x, double y);

/* value and all the partial derivatives ('p' may be NULL) over a list */
double ad_nvalue(int op, size_t n, const double *x);
void ad_npartials(int op, size_t n, const double *x, double y, double *p);

static inline double ad_logb(double a, double b) {
  /* as Lua's math.log, which is exact for powers of these two bases */
  return b == 2 ? log2(a) : b == 10 ? log10(a) : log(a) / log(b);
}

static inline double ad_sign(double a) {
  return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a;
}

/* ops.h on doubles */
#define K(c) (c)
#define ADD(x, y) ((x) + (y))
#define SUB(x, y) ((x) - (y))
#define MUL(x, y) ((x) * (y))
#define DIV(x, y) ((x) / (y))
#define NEG(x) (-(x))
#define F1(name, x) ad_v_##name(x)
#define F2(name, x, y) ad_v_##name(x, y)
#define LT(x, y) ((x) < (y))
#define EQ(x, y) ((x) == (y))
#define ZERO(x) ((x) == 0)
#define OR(c, d) ((c) || (d))
#define AND(c, d) ((c) && (d))
#define IF(c, x, y) ((c) ? (x) : (y))
#define P2(name, x, y) ad_v_##name(x, y)
#define P3(name, x, y, z) ad_v_##name(x, y, z)

#define OP1(name, v, d0, l0, h0, kind)                                         \
  static inline double ad_v_##name(double A) { return v; }
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  static inline double ad_v_##name(double A, double B) { return v; }
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  static inline double ad_v_##name(double A, double B, double C) { return v; }
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

#define OP1(name, v, d0, l0, h0, kind)                                         \
  static inline double ad_d0_##name(double A, double Y) {                      \
    (void)A, (void)Y;                                                          \
    return d0;                                                                 \
  }
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  static inline double ad_d0_##name(double A, double B, double Y) {            \
    (void)A, (void)B, (void)Y;                                                 \
    return d0;                                                                 \
  }                                                                            \
  static inline double ad_d1_##name(double A, double B, double Y) {            \
    (void)A, (void)B, (void)Y;                                                 \
    return d1;                                                                 \
  }
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  static inline double ad_d0_##name(double A, double B, double C, double Y) {  \
    (void)A, (void)B, (void)C, (void)Y;                                        \
    return d0;                                                                 \
  }                                                                            \
  static inline double ad_d1_##name(double A, double B, double C, double Y) {  \
    (void)A, (void)B, (void)C, (void)Y;                                        \
    return d1;                                                                 \
  }                                                                            \
  static inline double ad_d2_##name(double A, double B, double C, double Y) {  \
    (void)A, (void)B, (void)C, (void)Y;                                        \
    return d2;                                                                 \
  }
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

#ifndef AD_KEEP_NOTATION
#include "unnote.h"
#endif

/* in the derivative of this operation by operand i, does a partial derivative
   that is exactly 0 win as well? */
#define AD_BOTHWIN(op, i)                                                      \
  ((op) == OP_bmul || ((op) == OP_cmul && (i) == 1) ||                         \
   ((op) == OP_cadd && (i) == 2))

#endif
