/*
** shape.c
** Arrays in other shapes: plain kernels for autodiff/array.lua.
*/
#include <string.h>

#include "array.h"

/* copy(a): contiguous, its own elements */
static int l_copy(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  Array *c = ad_newarray(L, S, a->ndim, a->shape);
  ad_gather(a, c->data);
  return 1;
}

/* broadcast(x, shape): a view with repeated elements; of a number an array */
static int l_broadcast(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[AD_MAXDIM], fits[AD_MAXDIM], stride[AD_MAXDIM];
  int ndim, n;
  const Array *a;
  Array *v;
  lua_settop(L, 2);
  ndim = n = ad_checkshape(L, 2, shape);
  if (lua_type(L, 1) == LUA_TNUMBER) {
    const double x = lua_tonumber(L, 1);
    v = ad_newarray(L, S, ndim, shape);
    for (size_t i = 0; i < v->size; i++) v->data[i] = x;
    return 1;
  }
  a = ad_checkarray(L, S, 1);
  memcpy(fits, shape, sizeof fits);
  if (!ad_broadcast(&n, fits, a->ndim, a->shape) || n != ndim ||
      memcmp(fits, shape, sizeof shape[0] * (size_t)ndim) != 0)
    return ad_error(L, "broadcast_to: shape %s does not broadcast to %s",
                    ad_shapetext(L, a->ndim, a->shape),
                    ad_shapetext(L, ndim, shape));
  ad_strides(a, ndim, shape, stride);
  v = ad_newview(L, S, 1);
  v->ndim = ndim;
  memcpy(v->shape, shape, sizeof shape);
  memcpy(v->stride, stride, sizeof stride);
  ad_resize(L, v);
  return 1;
}

void ad_openshape(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {
      {"copy", l_copy}, {"broadcast", l_broadcast}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
