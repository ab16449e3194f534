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

/* the same elements in another shape: a view where that can be */
static void reshaped(lua_State *L, State *S, int idx, int ndim,
                     const ptrdiff_t *shape) {
  ptrdiff_t run = 1;
  Array *v;
  if (!ad_contiguous(lua_touserdata(L, idx))) {
    const Array *a = lua_touserdata(L, idx);
    v = ad_newarray(L, S, ndim, shape);
    ad_gather(a, v->data);
    return;
  }
  v = ad_newview(L, S, idx);
  v->ndim = ndim;
  for (int d = ndim; d-- > 0;) {
    v->shape[d] = shape[d];
    v->stride[d] = run;
    run *= shape[d];
  }
}

/* reshape(x, shape): {} is the shape of a number */
static int l_reshape(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[AD_MAXDIM];
  const Array *a;
  size_t size = 1;
  int ndim;
  lua_settop(L, 2);
  luaL_checktype(L, 2, LUA_TTABLE);
  if (lua_rawlen(L, 2) == 0) { /* to a number */
    if (lua_type(L, 1) != LUA_TNUMBER) {
      a = ad_checkarray(L, S, 1);
      luaL_argcheck(L, a->size == 1, 1, "not one element");
      lua_pushnumber(L, *a->data);
    } else
      lua_settop(L, 1);
    return 1;
  }
  ndim = ad_checkshape(L, 2, shape);
  if (lua_type(L, 1) == LUA_TNUMBER) {
    const double x = lua_tonumber(L, 1);
    Array *y = ad_newarray(L, S, ndim, shape);
    luaL_argcheck(L, y->size == 1, 2, "not one element");
    *y->data = x;
    return 1;
  }
  a = ad_checkarray(L, S, 1);
  for (int d = 0; d < ndim; d++)
    if (shape[d] != 0 && size > a->size / (size_t)shape[d] && a->size != 0)
      size = SIZE_MAX / 2; /* too many: this is no overflow */
    else
      size *= (size_t)shape[d];
  if (size != a->size)
    return ad_error(L, "reshape: %I elements of shape %s do not fit shape %s",
                    (lua_Integer)a->size, ad_shapetext(L, a->ndim, a->shape),
                    ad_shapetext(L, ndim, shape));
  reshaped(L, S, 1, ndim, shape);
  return 1;
}

/* transpose(a, axes): dimension d is that of number axes[d] */
static int l_transpose(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  Array *v;
  luaL_checktype(L, 2, LUA_TTABLE);
  v = ad_newview(L, S, 1);
  for (int d = 0; d < a->ndim; d++) {
    lua_Integer k;
    lua_rawgeti(L, 2, d + 1);
    k = lua_tointeger(L, -1) - 1;
    lua_pop(L, 1);
    luaL_argcheck(L, k >= 0 && k < a->ndim, 2, "no such axis");
    v->shape[d] = a->shape[k];
    v->stride[d] = a->stride[k];
  }
  return 1;
}

void ad_openshape(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"copy", l_copy},
                                {"broadcast", l_broadcast},
                                {"reshape", l_reshape},
                                {"transpose", l_transpose},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
