/*
** arrayop.h
** The table of operations, element by element over strided operands. Knows
** nothing of Lua.
*/
#ifndef ad_arrayop_h
#define ad_arrayop_h

#include <stddef.h>

#include "kernel.h"

/* elements that are worked on at a time where operands have to be packed */
#define AD_BLOCK 512

/* an operand, its strides (in elements) those of the result's dimensions */
typedef struct ad_Strided {
  const double *data;
  const ptrdiff_t *stride;
} ad_Strided;

/* y = op(x...), y contiguous */
void ad_elementwise(int op, int ndim, const ptrdiff_t *shape, double *y, int n,
                    const ad_Strided *x);

/*
** out = g times the partial derivative of operation 'op' by operand i, where y
** is op(x...). An exact 0 of g gives 0; if 'add' is set it is added to what is
** there. out may be g itself.
*/
void ad_elementpull(int op, int i, int ndim, const ptrdiff_t *shape,
                    double *out, int n, const ad_Strided *x, ad_Strided y,
                    ad_Strided g, int add);

#endif
