/*
** special.c
** Special functions and Lua's float arithmetic, as plain C.
**
** Formulas are cited as DLMF x.y.z: NIST Digital Library of Mathematical
** Functions, https://dlmf.nist.gov (its chapters 5 and 25 supersede
** Abramowitz & Stegun, chapters 6 and 23). The scheme of 'ad_digamma',
** recurrence below 10 and asymptotic series above, is that of J. M.
** Bernardo, "Algorithm AS 103: Psi (Digamma) Function", Applied Statistics
** 25 (1976), with a fit around the zero in place of its small-x branch.
**
** The code relies on IEEE arithmetic in the written order: it must not be
** compiled with -ffast-math.
*/

#include <math.h>

#include "special.h"


#define PI 3.14159265358979323846
#define LOGPI 1.14472988584940017414

/* e, and what its double lacks */
#define EHI 2.71828182845904509080
#define ELO 1.4456468917292502e-16

#define SQRT2PI 2.50662827463100050242

/* where the asymptotic series of 'lgamma' and 'digamma' take over */
#define ASYMPTOTIC 10.0

#define count(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* polynomial with 'n' coefficients, lowest first */
static double poly(const double *c, int n, double x) {
  double y = c[--n];
  while (n > 0) y = y * x + c[--n];
  return y;
}


/*
** pi / tan(pi * d) for |d| <= 1/2. The tangent is taken of the complement
** when that is the smaller angle, so that the result is exactly 0 at 1/2.
*/
static double picot(double d) {
  if (fabs(d) <= 0.25)
    return PI / tan(PI * d);
  else
    return copysign(PI * tan(PI * (0.5 - fabs(d))), d);
}


/*
** {======================================================
** log gamma
** =======================================================
*/

/*
** lgamma(1 + t) for 0 <= t <= 1. The two zeros are explicit factors, so
** that the value keeps its relative accuracy next to them; what remains,
** -lgamma(1 + t) / (t (1 - t)), is a rational interpolant at the Chebyshev
** points of the interval, computed with 80 digits; as stored, its relative
** error is below 3e-17. No coefficient is negative: nothing cancels.
*/
static double lgamma12(double t) {
  static const double p[] = {0.5772156649015329,   1.5596717057522156,
                             1.573396949493047,    0.7325115068578646,
                             0.15704300250969247,  0.01335232028577317,
                             0.0002863302305915675};
  static const double q[] = {1.0,
                             3.1269474895188387,
                             3.7851551293303727,
                             2.2347587149262016,
                             0.6662951719597183,
                             0.09380064459488484,
                             0.005110524940277966,
                             6.197815272364046e-05};
  double y = poly(p, count(p), t) / poly(q, count(q), t);
  return 0.0 - t * (1.0 - t) * y; /* a zero is to be positive */
}


/*
** Stirling's series without its main term: sum of
** B(2k) / (2k (2k-1) x^(2k-1))  (DLMF 5.11.1)
*/
static double stirling(double x) {
  static const double c[] = {1.0 / 12,    -1.0 / 360, 1.0 / 1260,
                             -1.0 / 1680, 1.0 / 1188, -691.0 / 360360,
                             1.0 / 156};
  double r = 1.0 / x;
  return r * poly(c, count(c), r * r);
}


/*
** Below zero: reflection (DLMF 5.5.3), with 'd' the exact distance to the
** nearest pole. Next to zero that distance may be subnormal, where pi * d
** is no longer accurate but lgamma(x) = -log|x|.
*/
static double lgammaneg(double x) {
  double d = x - round(x);
  if (d == 0.0)
    return HUGE_VAL;
  else if (x > -1e-17)
    return -log(-x);
  else
    return LOGPI - log(fabs(sin(PI * d))) - ad_lgamma(1.0 - x);
}


/*
** From 1 to 2 by the fit; from 10 by Stirling's formula (DLMF 5.11.1),
** grouped so that it overflows only with its value; in between by the
** recurrence (DLMF 5.5.1) down to the fit: up to the formula, most of both
** terms would cancel.
*/
double ad_lgamma(double x) {
  if (isnan(x))
    return x;
  else if (isinf(x) || x == 0.0)
    return HUGE_VAL;
  else if (x < 0.0)
    return lgammaneg(x);
  else if (x < 1.0)
    return lgamma12(x) - log(x);
  else if (x <= 2.0)
    return lgamma12(x - 1.0);
  else if (x < ASYMPTOTIC) {
    double p = 1.0;
    do {
      x -= 1.0;
      p *= x;
    } while (x > 2.0);
    return lgamma12(x - 1.0) + log(p);
  } else /* 0.4189... is log(2 pi)/2 - 1/2 */
    return (x - 0.5) * (log(x) - 1.0) + (0.41893853320467274 + stirling(x));
}

/* }====================================================== */


/*
** {======================================================
** digamma and polygamma
** =======================================================
*/

/*
** digamma(1 + t) for 0 <= t <= 1. The zero x0 = 1.46163... is an explicit
** factor, with x0 - 1 in two parts of which the first subtracts exactly
** near it; what remains, digamma(1 + t) / (1 + t - x0), is a rational
** interpolant made like that of 'lgamma12', with the same error.
*/
static double digamma12(double t) {
  static const double p[] = {1.2503801375034054,   1.7811904023777358,
                             0.8563282382526716,   0.1674321822097703,
                             0.012282771527360986, 0.00022205476047991614};
  static const double q[] = {1.0,
                             2.108065926448982,
                             1.5240244625242985,
                             0.4784894928792091,
                             0.06589990402253255,
                             0.0034081071889811372,
                             3.918857595782627e-05};
  const double x0hi = 1.4616321449683622 - 1.0;
  const double x0lo = 9.549995429965697e-17;
  return ((t - x0hi) - x0lo) * (poly(p, count(p), t) / poly(q, count(q), t));
}


/*
** log(x) - 1/(2x) - sum of B(2k) / (2k x^2k)  (DLMF 5.11.2)
*/
static double digammabig(double x) {
  static const double c[] = {1.0 / 12,   -1.0 / 120,    1.0 / 252,
                             -1.0 / 240, 1.0 / 132,     -691.0 / 32760,
                             1.0 / 12,   -3617.0 / 8160};
  double r = 1.0 / x;
  double w = r * r;
  return log(x) - (0.5 * r + w * poly(c, count(c), w));
}


/*
** Recurrence: DLMF 5.5.2; reflection: DLMF 5.5.4, where 1 - x need not be
** rounded if it is between 1 and 2 (next to the zero it would show).
*/
double ad_digamma(double x) {
  if (x >= ASYMPTOTIC)
    return digammabig(x);
  else if (x >= 1.0) {
    double s = 0.0;
    while (x > 2.0) {
      x -= 1.0;
      s += 1.0 / x;
    }
    return s + digamma12(x - 1.0);
  } else if (x > 0.0)
    return digamma12(x) - 1.0 / x;
  else if (x == 0.0)
    return -1.0 / x;
  else if (isnan(x) || isinf(x))
    return NAN;
  else {
    double d = x - round(x);
    if (d == 0.0) return NAN;
    return (x > -1.0 ? digamma12(-x) : ad_digamma(1.0 - x)) - picot(d);
  }
}


/*
** (x / (x + k))^s, for an integral s. A quotient's rounding error would
** grow s times in its power; that of the logarithm only matters where the
** result no longer does.
*/
static double powratio(double x, double k, double s) {
  if (s > 8.0)
    return exp(-s * log1p(k / x));
  else {
    double r = x / (x + k);
    double y = r;
    int i;
    for (i = (int)s; i > 1; i--) y *= r;
    return y;
  }
}


/*
** x^s zeta(s, x) with s = n + 1, that is, the sum of (x / (x + k))^s over
** k = 0, 1, ... All terms are positive. The first ones are added up, at
** most until z = x + k is large enough for Euler and Maclaurin's formula
** (DLMF 25.11.5) to give all others:
**   (x/z)^s (z/n + 1/2 + sum of B(2j)/(2j)! s (s+1)...(s+2j-2) / z^(2j-1))
** When n is much larger than x the terms are gone long before; so there
** are never more than some 40 of them, whatever n and x.
*/
static double hurwitz(double n, double x) {
  static const double c[] = {/* B(2j)/(2j)! */
                             1.0 / 12,
                             -1.0 / 720,
                             1.0 / 30240,
                             -1.0 / 1209600,
                             2.08767569878681e-08,
                             -5.284190138687493e-10,
                             1.3382536530684679e-11,
                             -3.3896802963225827e-13,
                             8.586062056277845e-15,
                             -2.174868698558062e-16,
                             5.5090028283602295e-18,
                             -1.3954464685812522e-19,
                             3.534707039629467e-21,
                             -8.953517427037546e-23,
                             2.267952452337683e-24,
                             -5.744790668872202e-26};
  double s = n + 1.0;
  double zmin = ASYMPTOTIC + 0.6 * n;
  double z = x;
  double k = 0.0;
  double f = 1.0; /* (x / z)^s */
  double sum = 0.0;
  double r, rr, q, t;
  int j;
  while (z < zmin) {
    sum += f;
    k += 1.0;
    z = x + k;
    f = powratio(x, k, s);
    if (f < 1e-18 * sum) return sum;
  }
  r = 1.0 / z;
  rr = r * r;
  q = s * r;
  t = 0.0;
  for (j = 0; j < count(c); j++) {
    double a = c[j] * q;
    t += a;
    if (fabs(a) < 1e-18) break;
    q *= (s + (2 * j + 1)) * (s + (2 * j + 2)) * rr;
  }
  return sum + f * (z / n + 0.5 + t);
}


/*
** sum * n! / a^(n+1), for n >= 1. Neither n! nor the power need be
** representable for the result to be: so the power is taken in two halves,
** with the other factors in between.
*/
static double scaled(double n, double a, double sum) {
  double half, rest;
  if (n == 1.0)
    return sum / a / a;
  else if (n <= 22.0) { /* n! is exact */
    int i;
    rest = 1.0;
    for (i = (int)n; i > 1; i--) rest *= i;
    half = pow(a, -0.5 * (n + 1.0));
  } else {
    /*
    ** n! = sqrt(2 pi n) (n/e)^n exp(stirling(n))  (DLMF 5.11.3). The error
    ** of u = n/(e a) would be n times as large in its power: 'd' measures
    ** it, u (1 + d/n) being the quotient.
    */
    double hi = EHI * a;
    double u = n / hi;
    double d = fma(-u, hi, n) - u * (fma(EHI, a, -hi) + ELO * a);
    if (!(fabs(d) < 1.0)) /* out of range, as the result will be? */
      d = 0.0;
    rest = SQRT2PI * sqrt(n) / a * exp(d + stirling(n));
    half = pow(u, 0.5 * n);
  }
  return (half * sum) * (half * rest);
}


/*
** Sum of (a / (x + k))^(n+1) over k = 0, 1, ... for negative x, where 'a' is
** the distance from x to the nearest pole and 'above' tells whether x is
** above that pole. The x + k > 0 and the x + k < 0 each make a zeta function
** (of the latter, only the terms down to x itself):
**   zeta(s, f) + (-1)^s (zeta(s, g) - zeta(s, 1 - x))
** with f the fractional part of x and g = 1 - f; one of the two is 'a'. That
** is the reflection formula (DLMF 5.15.6) with the derivative of the
** cotangent written as a sum, and loses nothing next to a pole.
*/
static double reflected(double n, double x, double a, int above) {
  double s = n + 1.0;
  double sign = (fmod(n, 2.0) == 0.0) ? -1.0 : 1.0;
  double near = hurwitz(n, a);
  double far = powratio(a, 1.0 - 2.0 * a, s) * hurwitz(n, 1.0 - a);
  double over = powratio(a, (1.0 - x) - a, s) * hurwitz(n, 1.0 - x);
  if (above)
    return near + sign * (far - over);
  else
    return far + sign * (near - over);
}


/*
** (-1)^(n+1) n! zeta(n + 1, x)  (DLMF 25.11.12)
*/
double ad_polygamma(double n, double x) {
  double sign;
  int odd;
  if (n == 0.0)
    return ad_digamma(x);
  else if (!(n > 0.0) || isinf(n) || n != floor(n) || isnan(x))
    return NAN;
  odd = (fmod(n, 2.0) != 0.0);
  sign = odd ? 1.0 : -1.0;
  if (x > 0.0)
    return sign * (isinf(x) ? 0.0 : scaled(n, x, hurwitz(n, x)));
  else if (isinf(x))
    return NAN;
  else if (x == 0.0)
    return odd ? HUGE_VAL : -1.0 / x;
  else {
    double d = x - round(x);
    double a = fabs(d);
    if (a == 0.0)
      return odd ? HUGE_VAL : NAN;
    else if (a == 0.5 && !odd) /* the cotangent's part is 0 */
      return ad_polygamma(n, 1.0 - x);
    else
      return sign * scaled(n, a, reflected(n, x, a, d > 0.0));
  }
}

/* }====================================================== */


/*
** {======================================================
** Elementary functions
** =======================================================
*/

/*
** The exponential is only taken of what is not positive: no overflow, and
** full relative accuracy in both tails.
*/
double ad_sigmoid(double x) {
  if (x >= 0.0)
    return 1.0 / (1.0 + exp(-x));
  else {
    double e = exp(x);
    return e / (1.0 + e);
  }
}


double ad_softplus(double x) {
  if (x > 0.0)
    return x + log1p(exp(-x));
  else
    return log1p(exp(x));
}


/*
** 'fmod' truncates the quotient; where floor differs (operands of different
** signs, inexact quotient), the remainder moves by one 'b' (Lua 5.4 manual,
** 3.4.1; compare 'luai_nummod'). An infinite 'b' of the other sign so gives
** 'b' itself, and a zero remainder keeps the sign of 'a'.
*/
double ad_floormod(double a, double b) {
  double m = fmod(a, b);
  if ((m > 0.0) ? b < 0.0 : (m < 0.0 && b > 0.0)) m += b;
  return m;
}


double ad_floordiv(double a, double b) { return floor(a / b); }


double ad_powd(double a, double b) {
  if (b == 2.0)
    return a * a;
  else if (b == 1.0)
    return a;
  else
    return pow(a, b);
}

/* }====================================================== */
