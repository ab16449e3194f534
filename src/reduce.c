/*
** reduce.c
** Sums and other reductions over dimensions of an array: plain kernels for
** autodiff/array.lua.
*/
#include <string.h>

#include "array.h"

/* sumto(a, shape): summed over what 'shape' was broadcast along ({}: all) */
static int l_sumto(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  ptrdiff_t shape[AD_MAXDIM];
  Array *y, view;
  const double *from;
  ptrdiff_t stride[AD_MAXDIM], index[AD_MAXDIM] = {0};
  double *row;
  int ndim;
  lua_settop(L, 2);
  luaL_checktype(L, 2, LUA_TTABLE);
  if (lua_rawlen(L, 2) == 0) {
    const Array *p = ad_packed(L, S, 1);
    double s = 0;
    for (size_t i = 0; i < p->size; i++) s += p->data[i];
    lua_pushnumber(L, s);
    return 1;
  }
  ndim = ad_checkshape(L, 2, shape);
  y = ad_newarray(L, S, ndim, shape);
  for (size_t i = 0; i < y->size; i++) y->data[i] = 0;
  if (a->size == 0) return 1;
  view = *y;
  ad_strides(&view, a->ndim, a->shape, stride);
  from = a->data;
  row = y->data;
  for (;;) {
    const int last = a->ndim - 1;
    int d;
    for (ptrdiff_t i = 0; i < a->shape[last]; i++)
      row[i * stride[last]] += from[i * a->stride[last]];
    for (d = last - 1; d >= 0; d--) {
      from += a->stride[d];
      row += stride[d];
      if (++index[d] < a->shape[d]) break;
      index[d] = 0;
      from -= a->stride[d] * a->shape[d];
      row -= stride[d] * a->shape[d];
    }
    if (d < 0) return 1;
  }
}

void ad_openreduce(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"sumto", l_sumto}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
