/*
** special.h
** Special functions and Lua's float arithmetic, as plain C.
** Nothing here knows Lua, allocates, or keeps state between calls: every
** function is reentrant and (unlike C's 'lgamma') writes no global.
*/

#ifndef ad_special_h
#define ad_special_h

/*
** At a pole these three follow the convention of C's 'lgamma' and 'tgamma'
** (C11 7.12.8, F.9.5): a pole with one limit from both sides is that
** infinity; a pole at a signed zero is the infinity of that side; a pole
** with two different limits is NaN.
**
**                   +0     -0     -1, -2, ...    +inf    -inf
** lgamma            inf    inf    inf            inf     inf
** digamma          -inf    inf    NaN            inf     NaN
** polygamma, odd    inf    inf    inf            0       NaN
** polygamma, even  -inf    inf    NaN           -0       NaN
**
** Relative error is below 1e-14 (typically 1e-15 or less) for every x > 0,
** the zeros included, and for 'polygamma' of odd order for every x. Where
** the others change sign on x < 0, the error is relative to the larger of
** the two terms that cancel there.
*/

/* log of |gamma(x)| */
double ad_lgamma(double x);

/* derivative of log(gamma(x)) */
double ad_digamma(double x);

/*
** derivative number 'n' of 'digamma'; 'n' = 0 is digamma itself. NaN if 'n'
** is not a non-negative integer.
*/
double ad_polygamma(double n, double x);

/* 1 / (1 + exp(-x)) */
double ad_sigmoid(double x);

/* log(1 + exp(x)) */
double ad_softplus(double x);

/* Lua's 'a % b' and 'a // b' for floats */
double ad_floormod(double a, double b);
double ad_floordiv(double a, double b);

/* C's 'pow', quick for the exponents 1 and 2 */
double ad_powd(double a, double b);

#endif
