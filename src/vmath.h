/*
** vmath.h
** Operations on blocks of points, with the vectors that the CPU has. A block
** is of 8, 16, 32 or 64 points: who calls says which.
**
** There is one body of code, vlevel.h, which is compiled once for each width
** of vectors ("level"). All levels compute the same bits: no operation is
** fused, and the functions are made of the same additions and products on
** each of them. Which level a program runs on cannot be seen in its results.
**
** exp, expm1, exp2, log, log1p, log2, log10, pow, sin, cos, tan, sinh, cosh,
** tanh, sigmoid, softplus and the root have code of their own, whose error is
** below 2 units in the last place; points that it does not cover (infinities,
** NaN, very large or subnormal arguments, ...) are given to the C library one
** by one. All other functions are the C library's, one by one. The four
** operations and all that is made of them are as exact as they are for one
** point: the same bits.
**
** The operands of an instruction are places in a frame, counted in doubles
** from its begin. Those whose bit is set in 'flags' (or, in a list, that have
** V_UNIFORM added) are one number for all points; the others, and all
** results, are a number for each point.
*/
#ifndef ad_vmath_h
#define ad_vmath_h

#include "program.h"

#define V_POINTS 64 /* at most */
#define V_LEAST 8
#define V_UNIFORM 0x80000000u

/* a row of the table for points at d and x[0], x[1], ...; d may be one of x */
typedef void ad_Points(double *d, const double *const *x, int points);

/* every row, one point after the other */
extern ad_Points *const ad_onebyone[];

typedef struct Vlevel {
  const char *name;
  /* runs instructions; returns the first that it leaves to the caller (P_PUSH
     and P_POP), or 'end'. 'scratch' has room for the longest list. */
  const Ins *(*run)(const Ins *i, const Ins *end, double *v,
                    const uint32_t *list, double *scratch, int points);
  /* bit k: the comparison holds at point k */
  uint64_t (*compare)(int cmp, const double *a, const double *b, int points);
  /* adds the first m points of the n values at v + at[j] to 8 sums for each,
     point k to number k % 8; those whose place is P_NONE are left out */
  void (*gather)(double *sum, const double *v, const uint32_t *at, uint32_t n,
                 int m);
  /* a row that has code of its own, for a multiple of V_LEAST points anywhere;
     NULL: it has none */
  ad_Points *(*function)(int op);
} Vlevel;

/* level n, or NULL if there is no such level or the CPU does not have it; 0
   is the best there is, 1 one without vectors */
const Vlevel *ad_vlevel(int n);
#define V_LEVELS 4

/* a 'function' of any number of points; d is none of x, or it is one of them.
   What comes of a point does not depend on where it is: those at the end are
   as many as the function needs, too. */
void ad_points(ad_Points *f, int arity, size_t n, double *d,
               const double *const *x);

extern const Vlevel ad_vlevel1;
extern const Vlevel ad_vlevel2;
extern const Vlevel ad_vlevel4;
extern const Vlevel ad_vlevel8;

#endif
