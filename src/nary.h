/*
** nary.h
** The operations over a list, in the notation of ops.h. Like that file it
** is expanded several times and has no guard.
**
**   NOP(name, value, rule)
**
** 'value' is a C function of (number of elements, elements). 'rule' is the
** body of a loop over i = 0 .. n-1 that gives the partial derivative by
** element i: X(i) is an element, Y the value, N the number of elements,
** OTHERS(i) the product of all the elements but i, SOFTMAX(i) what its name
** says (shifted by the largest element, so that large ones lose no digits),
** SHARE(i) 1 / number of elements equal to Y for those, 0 for others.
*/

/* clang-format off */
NOP(sum,       ad_nsum,       K(1))
NOP(mean,      ad_nmean,      K(1.0 / (double)N))
NOP(prod,      ad_nprod,      OTHERS(i))
NOP(dot,       ad_ndot,       X((i + N / 2) % N))   /* both lists in one */
NOP(norm,      ad_nnorm,      IF(EQ(Y, K(0)), K(0), DIV(X(i), Y)))
NOP(logsumexp, ad_nlogsumexp, SOFTMAX(i))
NOP(lmax,      ad_nmax,       SHARE(i))
NOP(lmin,      ad_nmin,       SHARE(i))
/* clang-format on */
