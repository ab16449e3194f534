/*
** vlevel.h
** The body of a level of vmath.h. Included once by each of the files
** vmath*.c, which set LANES (doubles in a vector), LEVEL (the name of the
** table) and NAME; that is why it has no guard and why all is static.
**
** Nothing here may depend on LANES in its results: the operations are those
** of IEEE on each lane, in the order in which they are written, and none is
** fused (Makefile: -ffp-contract=off).
**
** Coefficients of polynomials are interpolants at Chebyshev points, computed
** with 90 digits; each says what its error is relative to the function. The
** schemes are those of P. Tang (ACM TOMS 1989 to 1992) and of Cody and Waite,
** Software Manual for the Elementary Functions (1980); the sums and products
** in two parts are those of T. Dekker, Numerische Mathematik 18 (1971).
*/
#include "vmath.h"

#include <float.h>
#include <string.h>

#if LANES > 1 && defined(__x86_64__)
#include <immintrin.h>
#endif

/*
** {======================================================
** Vectors
** =======================================================
*/

#if LANES == 1
typedef double vd;
typedef double vdu;
typedef uint64_t vu;

static inline vu BITS(vd x) {
  vu u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline vd REAL(vu u) {
  vd x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* all ones where it is true */
#define MASK(c) ((vu)0 - (vu)(c))
#define SPLAT(c) ((vd)(c))
#define USPLAT(c) ((vu)(c))
#define LANE(v, k) (v)
#define SETLANE(v, k, x) ((void)(k), (v) = (x))

#else
typedef double vd __attribute__((vector_size(LANES * 8), may_alias));
typedef double vdu
    __attribute__((vector_size(LANES * 8), may_alias, aligned(8)));
typedef uint64_t vu __attribute__((vector_size(LANES * 8), may_alias));

#define BITS(x) ((vu)(x))
#define REAL(u) ((vd)(u))
#define MASK(c) ((vu)(c))
#define SPLAT(c) ((double)(c) - (vd){0}) /* so that -0 stays -0 */
#define USPLAT(c) ((vu){0} + (uint64_t)(c))
#define LANE(v, k) ((v)[k])
#define SETLANE(v, k, x) ((v)[k] = (x))
#endif

#define LD(p) (*(const vd *)(const void *)(p))
#define ST(p, x) (*(vd *)(void *)(p) = (x))
/* ... of arrays of others, which are aligned as doubles are */
#define LDU(p) ((vd)(*(const vdu *)(const void *)(p)))
#define STU(p, x) (*(vdu *)(void *)(p) = (vdu)(x))

/* a loop over the points */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__) && LANES > 4
#define UNROLL _Pragma("GCC unroll 8")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 4")
#else
#define UNROLL
#endif
#define EACH for (int k = 0; k < points; k += LANES)

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

/* conditions, one for each lane, and a choice by them */
#if LANES == 8
typedef __mmask8 vm;
#define WIDE(x) ((__m512d)((x) - (vd){0})) /* of a number, too */
#define COMPARE(x, y, how) ((vm)_mm512_cmp_pd_mask(WIDE(x), WIDE(y), how))
#define LT(x, y) COMPARE(x, y, _CMP_LT_OS)
#define LE(x, y) COMPARE(x, y, _CMP_LE_OS)
#define EQ(x, y) COMPARE(x, y, _CMP_EQ_OQ)
#define ODD(n) ((vm)_mm512_test_epi64_mask((__m512i)(n), (__m512i)USPLAT(1)))
#define SEL(m, x, y)                                                           \
  ((vd)_mm512_mask_blend_pd((vm)(m), (__m512d)(y), (__m512d)(x)))
#define HOLDS(m, k) ((m) >> (k)&1)
#define NEVER 0
#else
typedef vu vm;
#define LT(x, y) MASK((x) < (y))
#define LE(x, y) MASK((x) <= (y))
#define EQ(x, y) MASK((x) == (y))
#define ODD(n) MASK(((n)&1) != 0)
#define SEL(m, x, y) REAL(((m)&BITS(x)) | (~(m)&BITS(y)))
#define HOLDS(m, k) LANE(m, k)
#define NEVER USPLAT(0)
#endif

#define SIGN USPLAT(UINT64_C(1) << 63)
#define ABS(x) REAL(BITS(x) & ~SIGN)

/* does it hold for all lanes? */
static inline int all(vm m) {
#if LANES == 1
  return m != 0;
#elif LANES == 2 && defined(__x86_64__)
  return _mm_movemask_pd((__m128d)m) == 3;
#elif LANES == 4
  return _mm256_movemask_pd((__m256d)m) == 15;
#elif LANES == 8
  return m == 255;
#else
  uint64_t u = m[0];
  for (int k = 1; k < LANES; k++) u &= m[k];
  return u != 0;
#endif
}

/* one bit for each lane */
static inline uint64_t bitsof(vm m) {
#if LANES == 1
  return m & 1;
#elif LANES == 8
  return m;
#elif LANES == 2 && defined(__x86_64__)
  return (uint64_t)_mm_movemask_pd((__m128d)m);
#elif LANES == 4
  return (uint64_t)_mm256_movemask_pd((__m256d)m);
#else
  uint64_t u = 0;
  for (int k = 0; k < LANES; k++) u |= (m[k] & 1) << k;
  return u;
#endif
}

static inline vd root(vd x) {
#if LANES == 1
  return sqrt(x);
#elif LANES == 2 && defined(__x86_64__)
  return (vd)_mm_sqrt_pd((__m128d)x);
#elif LANES == 4
  return (vd)_mm256_sqrt_pd((__m256d)x);
#elif LANES == 8
  return (vd)_mm512_sqrt_pd((__m512d)x);
#else
  for (int k = 0; k < LANES; k++) x[k] = sqrt(x[k]);
  return x;
#endif
}

/* lanes that the code before does not cover: the C library's, one by one */
static vd fix(vd y, vm m, vd x, double (*f)(double)) {
  for (int k = 0; k < LANES; k++)
    if (!HOLDS(m, k)) SETLANE(y, k, f(LANE(x, k)));
  return y;
}

/* m: those that it does */
#define COVERED(m, y, x, f)                                                    \
  do {                                                                         \
    const vm covered_ = (m);                                                   \
    if (!all(covered_)) y = fix(y, covered_, x, f);                            \
  } while (0)

/* }====================================================== */

/*
** {======================================================
** Exponentials
** =======================================================
*/

/* x + MAGIC has the nearest integer of x in its lowest bits */
#define MAGIC 0x1.8p52
#define LOG2E 0x1.71547652b82fep+0
/* log 2, first part with 32 bits, so that small multiples are exact */
#define LN2H 0x1.62e42fee00000p-1
#define LN2L 0x1.a39ef35793c76p-33

/*
** (exp(r) - 1 - r) / r^2 for |r| <= log(2)/2, z = r^2; of exp(r): 2^-57. By
** pairs, which depend on each other half as deep.
*/
static inline vd expq(vd r, vd z) {
  vd p = r * 2.5107824336252382e-08 + 2.7629761566987207e-07;
  p = p * z + (r * 2.755724793878739e-06 + 2.4801494611191087e-05);
  p = p * z + (r * 0.00019841269882154587 + 0.0013888888942051598);
  p = p * z + (r * 0.008333333333323312 + 0.041666666666536345);
  return p * z + (r * 0.16666666666666674 + 0.500000000000001);
}

/* x + EMAGIC has the nearest integer of x, and 1023, in its lowest bits */
#define EMAGIC (MAGIC + 1023)

/* 2^n, from n + EMAGIC */
static inline vd power2(vd t) { return REAL(BITS(t) << 52); }

/* |x| < 708 */
static inline vd expin(vd x) {
  const vd t = x * LOG2E + EMAGIC;
  const vd n = t - EMAGIC;
  const vd r = (x - n * LN2H) - n * LN2L, z = r * r;
  return ((r + z * expq(r, z)) + 1.0) * power2(t);
}

/* the same in two parts */
static inline void exptwo(vd x, vd *h, vd *l) {
  const vd t = x * LOG2E + EMAGIC;
  const vd n = t - EMAGIC, p = power2(t);
  const vd hi = x - n * LN2H, lo = n * LN2L, r = hi - lo;
  const vd rest = (hi - r) - lo;
  const vd z = r * r;
  const vd q = r + (z * expq(r, z) + (rest + rest * r)), s = q + 1.0;
  *h = s * p;
  *l = ((1.0 - s) + q) * p;
}

#define BIG 708.0

static inline vd vexp(vd x) {
  vd y = expin(x);
  COVERED(LT(ABS(x), BIG), y, x, exp);
  return y;
}

static inline vd vexp2(vd x) {
  const vd t = x + EMAGIC;
  const vd r = (x - (t - EMAGIC)) * 0.69314718055994530942, z = r * r;
  vd y = ((r + z * expq(r, z)) + 1.0) * power2(t);
  COVERED(LT(ABS(x), 1021.0), y, x, exp2);
  return y;
}

/*
** 2^n (1 + r + r^2 q) - 1, largest terms first, what their sums lack last.
*/
static inline vd expm1in(vd x) {
  const vd t = x * LOG2E + EMAGIC;
  const vd n = t - EMAGIC, s = power2(t);
  const vd hi = x - n * LN2H, lo = n * LN2L;
  const vd r = hi - lo, rest = (hi - r) - lo, z = r * r;
  const vd a = s - 1.0, a1 = a - s, lacks = (s - (a - a1)) - (a1 + 1.0);
  const vd b = s * r, h = a + b, e = (a - h) + b;
  const vd y = h + (s * (z * expq(r, z) + rest) + (e + lacks));
  return SEL(LT(ABS(x), 0x1p-54), x, y);
}

static inline vd vexpm1(vd x) {
  vd y = expm1in(x);
  COVERED(LT(ABS(x), BIG), y, x, expm1);
  return y;
}

static inline vd vsinh(vd x) {
  const vd t = expm1in(ABS(x));
  const vd u = t / (t + 1.0);
  const vd s = SEL(LT(t, 1.0), t * 2.0 - t * u, t + u) * 0.5;
  vd y = REAL(BITS(s) | (BITS(x) & SIGN));
  COVERED(LT(ABS(x), BIG), y, x, sinh);
  return y;
}

static inline vd vcosh(vd x) {
  const vd e = expin(ABS(x)) * 0.5;
  vd y = e + 0.25 / e;
  COVERED(LT(ABS(x), BIG), y, x, cosh);
  return y;
}

/* e / (1 + e) or 1 / (1 + e), and what the quotient lacks */
static inline vd vsigmoid(vd x) {
  const vm below = LT(x, 0.0);
  vd e, l, d, dl, y;
  exptwo(REAL(BITS(x) | SIGN), &e, &l);
  d = e + 1.0;
  dl = (1.0 - d) + e + l;
  y = SEL(below, e, SPLAT(1)) / d; /* 1 / d is 1 - y or y */
  y = y + (SEL(below, l, SPLAT(0)) - y * dl) * SEL(below, 1.0 - y, y);
  COVERED(LT(ABS(x), BIG), y, x, ad_sigmoid);
  return y;
}

/* (tanh(x) / x - 1) / x^2 of z = x^2 <= 0.5625^2; of tanh(x): 2^-57 */
static inline vd tanhq(vd z) {
  const vd zz = z * z;
  vd p = SPLAT(-2.0026740085317684e-05);
  p = p * zz + (z * 8.426522203958066e-05 + -0.00023410556936672797);
  p = p * zz + (z * 0.0005887537111834804 + -0.0014556239774192678);
  p = p * zz + (z * 0.003592105532132769 + -0.008863234021529514);
  p = p * zz + (z * 0.021869488476962563 + -0.0539682539670594);
  return p * zz + (z * 0.13333333333332392 + -0.3333333333333333);
}

/* beyond 22 it is 1 to all digits */
static inline vd vtanh(vd x) {
  const vd a = ABS(x), z = a * a;
  const vd e = expin(SEL(LT(a, 22.0), a, SPLAT(22)) * 2.0);
  const vd y = SEL(LT(a, 0.5625), a + a * z * tanhq(z), 1.0 - 2.0 / (e + 1.0));
  return SEL(EQ(x, x), REAL(BITS(y) | (BITS(x) & SIGN)), x);
}

/* }====================================================== */

/*
** {======================================================
** Logarithms
** =======================================================
*/

/* x = 2^k m, m from sqrt(1/2) to sqrt(2); x is normal and above 0 */
#define SPLIT(x, k, m)                                                         \
  const vu split_ =                                                            \
      BITS(x) + (UINT64_C(0x4000000000000000) - UINT64_C(0x3fe6a09e667f3bcd)); \
  const vd k =                                                                 \
      REAL((split_ >> 52) | UINT64_C(0x4330000000000000)) - (0x1p52 + 1024.0); \
  const vd m = REAL(BITS(x) - ((split_ & UINT64_C(0xfff0000000000000)) -       \
                               UINT64_C(0x4000000000000000)))

#define NORMAL(x) (LE(SPLAT(DBL_MIN), x) & LE(x, SPLAT(DBL_MAX)))

/* (log((1 + s) / (1 - s)) / s - 2) / z of z = s^2; of the log: 2^-57.7 */
static inline vd logq(vd z) {
  const vd zz = z * z;
  vd p = SPLAT(0.14616585424888623);
  p = p * zz + (z * 0.15331710618210773 + 0.18182889455674947);
  p = p * zz + (z * 0.22222211130259878 + 0.2857142862600327);
  return p * zz + (z * 0.39999999999899444 + 0.666666666666667);
}

/* k log 2 + log(1 + f) + c, where c is small */
static inline vd logsum(vd k, vd f, vd c) {
  const vd s = f / (f + 2.0), z = s * s, h = f * f * 0.5;
  return k * LN2H - ((h - (s * (h + z * logq(z)) + (k * LN2L + c))) - f);
}

static inline vd login(vd x) {
  SPLIT(x, k, m);
  return logsum(k, m - 1.0, SPLAT(0));
}

static inline vd vlog(vd x) {
  vd y = login(x);
  COVERED(NORMAL(x), y, x, log);
  return y;
}

/* log(u) + c/u, where 1 + x = u + c exactly */
static inline vd log1pin(vd x) {
  const vd u = x + 1.0, b = u - 1.0, c = (1.0 - (u - b)) + (x - b);
  SPLIT(u, k, m);
  return SEL(LT(ABS(x), 0x1p-54), x, logsum(k, m - 1.0, c / u));
}

static inline vd vlog1p(vd x) {
  vd y = log1pin(x);
  COVERED(LE(SPLAT(-1 + 0x1p-53), x) & LE(x, SPLAT(DBL_MAX)), y, x, log1p);
  return y;
}

static inline vd vsoftplus(vd x) {
  const vd l = log1pin(expin(REAL(BITS(x) | SIGN)));
  vd y = SEL(LT(x, 0.0), SPLAT(0), x) + l;
  COVERED(LT(ABS(x), BIG), y, x, ad_softplus);
  return y;
}

/* a b = *p + *e exactly */
static inline void product(vd a, vd b, vd *p, vd *e) {
  const vd ca = a * 134217729.0, cb = b * 134217729.0;
  const vd ah = ca - (ca - a), bh = cb - (cb - b), al = a - ah, bl = b - bh;
  *p = a * b;
  *e = ((ah * bh - *p) + ah * bl + al * bh) + al * bl;
}

/* a + b = *s + *e exactly, if |a| >= |b| or a is 0 */
static inline void sum(vd a, vd b, vd *s, vd *e) {
  *s = a + b;
  *e = (a - *s) + b;
}

/*
** log(m) in two parts, for m from sqrt(1/2) to sqrt(2): 2 s + s z (2/3 + z q)
** with s = (m - 1) / (m + 1), z = s^2. The error is below 2^-63 of it.
*/
static inline void loginto(vd m, vd *h, vd *l) {
  const vd f = m - 1.0, g = m + 1.0, gl = m - (g - 1.0);
  const vd s = f / g;
  vd sl, p, e, z, zl, q, c, cl, w, wl, t;
  product(s, g, &p, &e);
  sl = (((f - p) - e) - s * gl) / g;
  product(s, s, &z, &zl);
  zl = zl + s * sl * 2.0;
  /* of the log: 2^-66 */
  q = SPLAT(0.107624244195648);
  q = q * z + 0.10456327269484514;
  q = q * z + 0.11766813121034213;
  q = q * z + 0.13333296534432942;
  q = q * z + 0.15384615761170173;
  q = q * z + 0.18181818179656925;
  q = q * z + 0.2222222222222843;
  q = q * z + 0.28571428571428564;
  q = q * z + 0.4;
  t = q * z;
  sum(SPLAT(0x1.5555555555555p-1), t, &c, &cl); /* 2/3 */
  cl = cl + 0x1.5555555555555p-55;
  product(z, c, &w, &wl);
  wl = wl + (z * cl + zl * c);
  product(s, w, &p, &e);
  e = e + (s * wl + sl * w);
  sum(s * 2.0, p, &t, &c);
  *h = t;
  *l = c + (sl * 2.0 + e);
}

static inline vd vlog2(vd x) {
  SPLIT(x, k, m);
  vd h, l, p, e, s, t, y;
  loginto(m, &h, &l);
  product(h, SPLAT(0x1.71547652b82fep+0), &p, &e); /* 1 / log 2 */
  e = e + (h * 0x1.777d0ffda0d24p-56 + l * 0x1.71547652b82fep+0);
  sum(k, p, &s, &t);
  y = s + (t + e);
  COVERED(NORMAL(x), y, x, log2);
  return y;
}

/* log 2, first part with 42 bits */
#define LN2HH 0x1.62e42fefa3800p-1
#define LN2LL 0x1.ef35793c76730p-45

/* log(x) in two parts */
static inline void logtwo(vd x, vd *h, vd *l) {
  SPLIT(x, k, m);
  vd a, b, s, t;
  loginto(m, &a, &b);
  sum(k * LN2HH, a, &s, &t);
  t = t + (b + k * LN2LL);
  sum(s, t, h, l);
}

static inline vd vlog10(vd x) {
  vd h, l, p, e, y;
  logtwo(x, &h, &l);
  product(h, SPLAT(0x1.bcb7b1526e50ep-2), &p, &e); /* 1 / log 10 */
  e = e + (h * 0x1.95355baaafad3p-57 + l * 0x1.bcb7b1526e50ep-2);
  y = p + e;
  COVERED(NORMAL(x), y, x, log10);
  return y;
}

static vd fixpow(vd y, vm m, vd a, vd b) {
  for (int k = 0; k < LANES; k++)
    if (!HOLDS(m, k)) SETLANE(y, k, ad_powd(LANE(a, k), LANE(b, k)));
  return y;
}

/* exp(b log|a|), the exponent in two parts, with the sign of a if b is odd */
static inline vd vpow(vd a, vd b) {
  const vd x = ABS(a), whole = b + MAGIC;
  vd h, l, p, e, t, n, hi, lo, r, rest, q, y;
  vm covered;
  logtwo(x, &h, &l);
  product(b, h, &p, &e);
  e = e + b * l;
  t = p * LOG2E + EMAGIC;
  n = t - EMAGIC;
  hi = p - n * LN2H;
  lo = n * LN2L;
  r = hi - lo;
  rest = ((hi - r) - lo) + e;
  q = r * r;
  q = q * expq(r, q);
  y = ((r + (q + (rest + rest * (r + q)))) + 1.0) * power2(t);
  y = REAL(BITS(y) | (BITS(a) & SIGN & (BITS(whole) << 63)));
  covered = NORMAL(x) & LT(ABS(p), BIG) & LT(ABS(b), 0x1p64);
  covered &= LE(SPLAT(0), a) | (EQ(whole - MAGIC, b) & LT(ABS(b), 0x1p51));
  if (!all(covered)) y = fixpow(y, covered, a, b);
  y = SEL(EQ(b, 2.0), a * a, y); /* as special.c has it */
  return SEL(EQ(b, 1.0), a, y);
}

/* }====================================================== */

/*
** {======================================================
** Circular functions
** =======================================================
*/

/* pi/2 in three parts, the first two with 33 bits */
#define PIO2A 0x1.921fb54400000p+0
#define PIO2B 0x1.0b4611a600000p-34
#define PIO2C 0x1.3198a2e037073p-69
#define TWOBYPI 0x1.45f306dc9c883p-1

/*
** x = n pi/2 + *r + *rest for |x| < 2^20. Next to multiples of pi/2 few
** digits of the rest are right: not *covered.
*/
static inline vu reduce(vd x, vd *r, vd *rest, vm *covered) {
  const vd t = x * TWOBYPI + MAGIC, n = t - MAGIC;
  const vd a = x - n * PIO2A, w = n * PIO2B;
  const vd b = a - w, d = b - a, e = (a - (b - d)) - (w + d);
  const vd c = n * PIO2C - e;
  *r = b - c;
  *rest = (b - *r) - c;
  *covered =
      LT(ABS(x), 0x1p20) & (vm) ~(LT(ABS(*r), 0x1p-20) & LT(1.0, ABS(x)));
  return BITS(t);
}

/* sin(r + rest) - r: with 2^-57 of the sine */
static inline vd sinin(vd r, vd rest) {
  const vd z = r * r;
  vd p = SPLAT(-7.586685070091267e-13);
  p = p * z + 1.605853141458901e-10;
  p = p * z + -2.5052106231157904e-08;
  p = p * z + 2.7557319219335453e-06;
  p = p * z + -0.0001984126984126506;
  p = p * z + 0.008333333333333331;
  p = p * z + -0.16666666666666666;
  return z * r * p + (rest - rest * z * 0.5);
}

/* cos(r + rest) - *w, the largest part: with 2^-60 of it */
static inline vd cosin(vd r, vd rest, vd *w) {
  const vd z = r * r, h = z * 0.5;
  vd p = SPLAT(-1.1382614868556325e-11);
  p = p * z + 2.0876146024689747e-09;
  p = p * z + -2.7557317270560326e-07;
  p = p * z + 2.4801587298763433e-05;
  p = p * z + -0.0013888888888887395;
  p = p * z + 0.041666666666666664;
  *w = 1.0 - h;
  return ((1.0 - *w) - h) + (z * z * p - r * rest);
}

/* the sine and cosine of r + rest, either by bit 0 of n */
static inline vd sinorcos(vu n, vd r, vd rest) {
  const vm odd = ODD(n);
  vd w;
  const vd c = cosin(r, rest, &w), s = sinin(r, rest);
  return SEL(odd, w, r) + SEL(odd, c, s);
}

static inline vd vsin(vd x) {
  vm covered;
  vd r, rest, y;
  const vu n = reduce(x, &r, &rest, &covered);
  y = REAL(BITS(sinorcos(n, r, rest)) ^ ((n & 2) << 62));
  y = SEL(EQ(x, 0.0), x, y);
  COVERED(covered, y, x, sin);
  return y;
}

static inline vd vcos(vd x) {
  vm covered;
  vd r, rest, y;
  const vu n = reduce(x, &r, &rest, &covered) + 1;
  y = REAL(BITS(sinorcos(n, r, rest)) ^ ((n & 2) << 62));
  COVERED(covered, y, x, cos);
  return y;
}

static inline vd vtan(vd x) {
  vm covered;
  vd r, rest, s, c, w, a, b, al, bl, y;
  const vu n = reduce(x, &r, &rest, &covered);
  const vm odd = ODD(n);
  s = sinin(r, rest);
  c = cosin(r, rest, &w);
  sum(SEL(odd, w, r), SEL(odd, c, s), &a, &al);
  sum(SEL(odd, r, w), SEL(odd, s, c), &b, &bl);
  y = a / b; /* and what that lacks, but for the quotient's own rounding */
  y = y + (al - y * bl) / b;
  y = REAL(BITS(y) ^ (n << 63));
  y = SEL(EQ(x, 0.0), x, y);
  COVERED(covered, y, x, tan);
  return y;
}

/* }====================================================== */

/*
** {======================================================
** Operations on blocks of points
** =======================================================
*/

/* those that have code of their own */
#define OWN1(name)                                                             \
  static void own_##name(double *d, const double *const *x, int points) {      \
    const double *const pa = x[0];                                             \
    EACH STU(d + k, v##name(LDU(pa + k)));                                     \
  }
OWN1(exp)
OWN1(exp2)
OWN1(expm1)
OWN1(log)
OWN1(log1p)
OWN1(log2)
OWN1(log10)
OWN1(sin)
OWN1(cos)
OWN1(tan)
OWN1(sinh)
OWN1(cosh)
OWN1(tanh)
OWN1(sigmoid)
OWN1(softplus)

/* 1 and 2 are the exponents that there are most of */
static void own_pow(double *d, const double *const *x, int points) {
  EACH {
    const vd a = LDU(x[0] + k), b = LDU(x[1] + k);
    vd y;
    if (all(EQ(b, 2.0)))
      y = a * a;
    else if (all(EQ(b, 1.0)))
      y = a;
    else
      y = vpow(a, b);
    STU(d + k, y);
  }
}

static void own_clamp(double *d, const double *const *x, int points) {
  EACH {
    const vd a = LDU(x[0] + k), b = LDU(x[1] + k), c = LDU(x[2] + k);
    STU(d + k, SEL(LT(a, b), b, SEL(LT(c, a), c, a)));
  }
}

static void own_where(double *d, const double *const *x, int points) {
  EACH {
    const vd a = LDU(x[0] + k), b = LDU(x[1] + k), c = LDU(x[2] + k);
    STU(d + k, SEL(EQ(a, 0.0), c, b));
  }
}

static void own_inside(double *d, const double *const *x, int points) {
  EACH {
    const vd a = LDU(x[0] + k), b = LDU(x[1] + k), c = LDU(x[2] + k);
    STU(d + k, SEL(LT(a, b) | LT(c, a), SPLAT(0), SPLAT(1)));
  }
}

static void own_beyond(double *d, const double *const *x, int points) {
  EACH {
    const vd a = LDU(x[0] + k), b = LDU(x[1] + k), c = LDU(x[2] + k);
    STU(d + k, SEL(~LT(a, b) & LT(c, a), SPLAT(1), SPLAT(0)));
  }
}

static ad_Points *function(int op) {
  switch (op) {
#define OWN(name)                                                              \
  case OP_##name:                                                              \
    return own_##name
    OWN(exp);
    OWN(exp2);
    OWN(expm1);
    OWN(log);
    OWN(log1p);
    OWN(log2);
    OWN(log10);
    OWN(sin);
    OWN(cos);
    OWN(tan);
    OWN(sinh);
    OWN(cosh);
    OWN(tanh);
    OWN(sigmoid);
    OWN(softplus);
    OWN(pow);
    OWN(clamp);
    OWN(where);
    OWN(inside);
    OWN(beyond);
#undef OWN
  default:
    return NULL;
  }
}

static void spread(double *to, double x, int points) {
  const vd s = SPLAT(x);
  EACH ST(to + k, s);
}

/* an operation whose operands may be uniform, by its number */
static void general(const Ins *i, double *v, int points) {
  _Alignas(64) double room[AD_MAXARITY][V_POINTS];
  const uint32_t at[AD_MAXARITY] = {i->a, i->b, i->c};
  const double *x[AD_MAXARITY];
  ad_Points *f;
  for (int j = 0; j < ad_opinfo[i->op].arity; j++) {
    x[j] = v + at[j];
    if (i->flags >> j & 1) {
      spread(room[j], v[at[j]], points);
      x[j] = room[j];
    }
  }
  f = function(i->op);
  (f != NULL ? f : ad_onebyone[i->op])(v + i->d, x, points);
}

/* element j of a list */
static inline vd element(const double *v, const uint32_t *list, uint32_t j,
                         int k) {
  const uint32_t at = list[j];
  if (at & V_UNIFORM) return SPLAT(v[at & ~V_UNIFORM]);
  return LD(v + at + k);
}

/* one point after the other; those of 'which' (bits) */
static void listbyone(const Ins *i, double *v, const uint32_t *list,
                      double *scratch, uint64_t which) {
  for (uint32_t k = 0; which != 0; k++, which >>= 1) {
    if (!(which & 1)) continue;
    for (uint32_t j = 0; j < i->b; j++) {
      const uint32_t at = list[j];
      scratch[j] = at & V_UNIFORM ? v[at & ~V_UNIFORM] : v[at + k];
    }
    v[i->d + k] = ad_nvalue(i->op, i->b, scratch);
  }
}

/*
** Shifted by the largest, like ad_nvalue, which is asked where something is not
** finite: only there, as no point may depend on the others.
*/
static void logsumexp(const Ins *i, double *v, const uint32_t *list,
                      double *scratch, int points) {
  uint64_t bad = 0;
  _Alignas(64) double y[V_POINTS];
  EACH {
    vd m = SPLAT(-HUGE_VAL), s = SPLAT(0);
    vm no = NEVER;
    for (uint32_t j = 0; j < i->b; j++) {
      const vd x = element(v, list, j, k);
      m = SEL(LT(m, x), x, m);
      no |= ~EQ(x, x);
    }
    no |= ~LT(ABS(m), SPLAT(HUGE_VAL));
    for (uint32_t j = 0; j < i->b; j++) {
      const vd x = element(v, list, j, k) - m;
      s = s + expin(SEL(LT(x, -BIG), SPLAT(-BIG), x));
    }
    ST(y + k, m + login(s));
    bad |= bitsof(no) << k;
  }
  /* the result may take the place of an operand: those first */
  listbyone(i, v, list, scratch, bad);
  for (int k = 0; k < points; k++)
    if (!(bad >> k & 1)) v[i->d + (uint32_t)k] = y[k];
}

#define LIST(first, each, last)                                                \
  EACH {                                                                       \
    vd s = first;                                                              \
    for (uint32_t j = 0; j < n; j++) {                                         \
      const vd x = element(v, list, j, k);                                     \
      s = each;                                                                \
    }                                                                          \
    ST(v + i->d + k, last);                                                    \
  }                                                                            \
  return

/* the result may take the place of an operand: but only of the same lanes */
static void listed(const Ins *i, double *v, const uint32_t *list,
                   double *scratch, int points) {
  const uint32_t n = i->b;
  switch (i->op) {
  case OP_list_sum:
    LIST(SPLAT(0), s + x, s);
  case OP_list_mean:
    LIST(SPLAT(0), s + x, s / (double)n);
  case OP_list_prod:
    LIST(SPLAT(1), s * x, s);
  case OP_list_lmax:
    LIST(element(v, list, 0, k), SEL(LT(s, x), x, s), s);
  case OP_list_lmin:
    LIST(element(v, list, 0, k), SEL(LT(x, s), x, s), s);
  case OP_list_dot:
    EACH {
      vd s = SPLAT(0);
      for (uint32_t j = 0; j < n / 2; j++)
        s = s + element(v, list, j, k) * element(v, list, n / 2 + j, k);
      ST(v + i->d + k, s);
    }
    return;
  case OP_list_logsumexp:
    logsumexp(i, v, list, scratch, points);
    return;
  default:
    break;
  }
  listbyone(i, v, list, scratch, UINT64_MAX >> (V_POINTS - (unsigned)points));
}

/*
** The most frequent operations have a copy for each combination of operands
** that are uniform.
*/
#define CODE(op, uniform) ((unsigned)(op) << 3 | (uniform))
#define FROM(p) LD(p + k)
#define SAME(p) p
#define CASE1(op, value)                                                       \
  case CODE(op, 0): {                                                          \
    const double *const pa = v + i->a;                                         \
    double *const d = v + i->d;                                                \
    UNROLL                                                                     \
    EACH {                                                                     \
      const vd x = LD(pa + k);                                                 \
      ST(d + k, value);                                                        \
    }                                                                          \
    break;                                                                     \
  }
#define CASE2(op, value)                                                       \
  case CODE(op, 0): {                                                          \
    const double *const pa = v + i->a, *const pb = v + i->b;                   \
    double *const d = v + i->d;                                                \
    UNROLL                                                                     \
    EACH {                                                                     \
      const vd x = LD(pa + k), y = LD(pb + k);                                 \
      ST(d + k, value);                                                        \
    }                                                                          \
    break;                                                                     \
  }                                                                            \
  case CODE(op, 1): {                                                          \
    const vd x = SPLAT(v[i->a]);                                               \
    const double *const pb = v + i->b;                                         \
    double *const d = v + i->d;                                                \
    UNROLL                                                                     \
    EACH {                                                                     \
      const vd y = LD(pb + k);                                                 \
      ST(d + k, value);                                                        \
    }                                                                          \
    break;                                                                     \
  }                                                                            \
  case CODE(op, 2): {                                                          \
    const double *const pa = v + i->a;                                         \
    const vd y = SPLAT(v[i->b]);                                               \
    double *const d = v + i->d;                                                \
    UNROLL                                                                     \
    EACH {                                                                     \
      const vd x = LD(pa + k);                                                 \
      ST(d + k, value);                                                        \
    }                                                                          \
    break;                                                                     \
  }
#define CASE3(op, u, lx, ly, lz, value)                                        \
  case CODE(op, u): {                                                          \
    const double *const pa = v + i->a, *const pb = v + i->b,                   \
                        *const pc = v + i->c;                                  \
    double *const d = v + i->d;                                                \
    UNROLL                                                                     \
    EACH {                                                                     \
      const vd x = lx, y = ly, z = lz;                                         \
      ST(d + k, value);                                                        \
    }                                                                          \
    break;                                                                     \
  }
#define CADD SEL(EQ(y, 0.0), x, x + y * z)

/* with a number of points that the compiler knows, in 'run' */
static INLINE const Ins *execute(const Ins *i, const Ins *end, double *v,
                                 const uint32_t *list, double *scratch,
                                 const int points) {
  for (; i < end; i++) {
    switch (CODE(i->op, i->flags & 7)) {
      CASE2(OP_add, x + y)
      CASE2(OP_sub, x - y)
      CASE2(OP_mul, x * y)
      CASE2(OP_div, x / y)
      CASE2(OP_cmul, SEL(EQ(x, 0.0), SPLAT(0), x * y))
      CASE2(OP_max, SEL(LT(x, y), y, x))
      CASE2(OP_min, SEL(LT(y, x), y, x))
      CASE2(OP_below, SEL(LT(x, y), SPLAT(1), SPLAT(0)))
      CASE2(OP_atmost, SEL(LE(x, y), SPLAT(1), SPLAT(0)))
      CASE2(OP_equal, SEL(EQ(x, y), SPLAT(1), SPLAT(0)))
      CASE2(OP_first,
            SEL(LT(y, x), SPLAT(0), SEL(EQ(x, y), SPLAT(0.5), SPLAT(1))))
      CASE2(OP_second,
            SEL(LT(x, y), SPLAT(1), SEL(EQ(x, y), SPLAT(0.5), SPLAT(0))))
      CASE1(OP_unm, REAL(BITS(x) ^ SIGN))
      CASE1(OP_abs, ABS(x))
      CASE1(OP_relu, SEL(LE(x, 0.0), SPLAT(0), x))
      CASE1(OP_sqrt, root(x))
      CASE1(P_ROOT,
            SEL(EQ(x, SPLAT(-HUGE_VAL)), SPLAT(HUGE_VAL), root(x + 0.0)))
      CASE1(P_MOV, x)
      CASE3(OP_cadd, 0, LD(pa + k), LD(pb + k), LD(pc + k), CADD)
      CASE3(OP_cadd, 1, SPLAT(*pa), LD(pb + k), LD(pc + k), CADD)
      CASE3(OP_cadd, 4, LD(pa + k), LD(pb + k), SPLAT(*pc), CADD)
      CASE3(OP_cadd, 5, SPLAT(*pa), LD(pb + k), SPLAT(*pc), CADD)
    case CODE(P_MOV, 1):
      spread(v + i->d, v[i->a], points);
      break;
    case CODE(P_ROOT, 1):
      spread(v + i->d, ad_insvalue(P_ROOT, v + i->a), points);
      break;
    case CODE(P_PUSH, 0):
    case CODE(P_PUSH, 1):
    case CODE(P_POP, 0):
      return i;
    default:
      if (ad_islist(i->op))
        listed(i, v, list + i->a, scratch, points);
      else
        general(i, v, points);
    }
  }
  return end;
}

static const Ins *run(const Ins *i, const Ins *end, double *v,
                      const uint32_t *list, double *scratch, int points) {
  if (points == V_POINTS) return execute(i, end, v, list, scratch, V_POINTS);
  return execute(i, end, v, list, scratch, points);
}

static uint64_t compare(int cmp, const double *a, const double *b, int points) {
  uint64_t m = 0;
  switch (cmp) {
  case P_LT:
    EACH m |= bitsof(LT(LD(a + k), LD(b + k))) << k;
    return m;
  case P_LE:
    EACH m |= bitsof(LE(LD(a + k), LD(b + k))) << k;
    return m;
  case P_EQ:
    EACH m |= bitsof(EQ(LD(a + k), LD(b + k))) << k;
    return m;
  default:
    for (int k = 0; k < points; k++)
      m |= (uint64_t)ad_compare(cmp, a[k], b[k]) << k;
    return m;
  }
}

static void gather(double *sum, const double *v, const uint32_t *at, uint32_t n,
                   int m) {
  for (uint32_t j = 0; j < n; j++, sum += V_LEAST) {
    const double *x = v + (at[j] & ~V_UNIFORM);
    const int step = at[j] & V_UNIFORM ? 0 : 1;
    vd s[V_LEAST / LANES];
    int k = 0;
    if (at[j] == P_NONE) continue;
    for (int i = 0; i < V_LEAST / LANES; i++) s[i] = LD(sum + i * LANES);
    if (step == 0) {
      const vd y = SPLAT(*x);
      for (; k + V_LEAST <= m; k += V_LEAST)
        for (int i = 0; i < V_LEAST / LANES; i++) s[i] = s[i] + y;
    } else
      for (; k + V_LEAST <= m; k += V_LEAST)
        for (int i = 0; i < V_LEAST / LANES; i++)
          s[i] = s[i] + LD(x + k + i * LANES);
    for (int i = 0; i < V_LEAST / LANES; i++) ST(sum + i * LANES, s[i]);
    for (int i = 0; k < m; i++, k++) sum[i] = sum[i] + x[k * step];
  }
}

/* }====================================================== */

const Vlevel LEVEL = {NAME, run, compare, gather, function};
