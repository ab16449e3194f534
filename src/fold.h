/*
** fold.h
** Reductions of strided blocks of numbers over some of their dimensions.
** Knows nothing of Lua.
*/
#ifndef ad_fold_h
#define ad_fold_h

#include <stddef.h>

#define AD_FOLDDIM 8

typedef enum ad_Fold {
  AD_FOLDSUM,  /* x */
  AD_FOLDPROD, /* x, multiplied */
  AD_FOLDMAX,  /* NaN if there is one */
  AD_FOLDMIN,
  AD_FOLDSQUARE, /* (x - c)^2 */
  AD_FOLDSCALED, /* (x / c)^2 */
  AD_FOLDEXP,    /* exp(x - c); where c is infinite, 1 for the x that are c */
  AD_FOLDEQUAL   /* 1 for the x that are c (NaN is NaN) */
} ad_Fold;

/*
** out[...] = the reduction of x over the dimensions in 'mask' (bit d). 'out'
** is contiguous in the others, in their order, and so is c, which may be NULL
** for the first four. Sums and products go by halves.
*/
void ad_fold(ad_Fold what, int ndim, const ptrdiff_t *shape,
             const ptrdiff_t *stride, const double *x, unsigned mask,
             const double *c, double *out);

#endif
