/*
** shape.c
** Arrays in other shapes: plain kernels for autodiff/array.lua.
*/
#include <limits.h>
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
  v = ad_ownview(L, S, 1);
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
  v = ad_ownview(L, S, idx);
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
  v = ad_ownview(L, S, 1);
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

/* flip(a, axes) */
static int l_flip(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const lua_Unsigned n = (luaL_checktype(L, 2, LUA_TTABLE), lua_rawlen(L, 2));
  Array *v = ad_ownview(L, S, 1);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_Integer d;
    lua_rawgeti(L, 2, (lua_Integer)i);
    d = lua_tointeger(L, -1) - 1;
    lua_pop(L, 1);
    luaL_argcheck(L, d >= 0 && d < a->ndim, 2, "no such axis");
    if (a->size > 0) v->data += (a->shape[d] - 1) * a->stride[d];
    v->stride[d] = -a->stride[d];
  }
  return 1;
}

/* in an array's place: the part of y from 'from' along dimension d */
static Array window(const Array *y, int d, ptrdiff_t from, ptrdiff_t n) {
  Array w = *y;
  w.data += from * w.stride[d];
  w.shape[d] = n;
  w.size = 1;
  for (int k = 0; k < w.ndim; k++) w.size *= (size_t)w.shape[k];
  return w;
}

static int fits(const Array *a, const Array *b, int axis) {
  if (a->ndim != b->ndim) return 0;
  for (int d = 0; d < a->ndim; d++)
    if (d != axis && a->shape[d] != b->shape[d]) return 0;
  return 1;
}

/* concat({a, b, ...}, axis) */
static int l_concat(lua_State *L) {
  State *S = ad_state(L);
  const int axis = (int)lua_tointeger(L, 2) - 1;
  ptrdiff_t shape[AD_MAXDIM], at = 0;
  const Array *first, *y;
  lua_Integer n;
  lua_settop(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  n = (lua_Integer)lua_rawlen(L, 1);
  lua_rawgeti(L, 1, 1);
  first = ad_checkarray(L, S, 3);
  luaL_argcheck(L, axis >= 0 && axis < first->ndim, 2, "no such axis");
  memcpy(shape, first->shape, sizeof shape);
  for (lua_Integer i = 2; i <= n; i++) {
    const Array *a;
    lua_rawgeti(L, 1, i);
    a = ad_checkarray(L, S, 4);
    if (!fits(first, a, axis)) {
      const char *s1 = ad_shapetext(L, first->ndim, first->shape),
                 *s2 = ad_shapetext(L, a->ndim, a->shape);
      return ad_error(L, "concat: shapes %s and %s do not align", s1, s2);
    }
    shape[axis] += a->shape[axis];
    lua_settop(L, 3);
  }
  y = ad_newarray(L, S, first->ndim, shape);
  for (lua_Integer i = 1; i <= n; i++) {
    const Array *a;
    Array w;
    lua_rawgeti(L, 1, i);
    a = lua_touserdata(L, -1);
    w = window(y, axis, at, a->shape[axis]);
    ad_copyelements(&w, a);
    at += a->shape[axis];
    lua_pop(L, 1);
  }
  return 1;
}

/* split(a, axis, {last, ...}): views, in a list; each ends with a position */
static int l_split(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const int axis = (int)lua_tointeger(L, 2) - 1;
  ptrdiff_t from = 0;
  lua_Integer n;
  luaL_argcheck(L, axis >= 0 && axis < a->ndim, 2, "no such axis");
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  n = (lua_Integer)lua_rawlen(L, 3);
  lua_newtable(L);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_Integer to;
    Array *v, w;
    lua_rawgeti(L, 3, i);
    to = lua_tointeger(L, -1);
    lua_pop(L, 1);
    luaL_argcheck(L, to >= from && to <= a->shape[axis], 3, "bad position");
    v = ad_ownview(L, S, 1);
    w = window(a, axis, from, (ptrdiff_t)to - from);
    v->data = w.data;
    v->size = w.size;
    v->shape[axis] = w.shape[axis];
    lua_rawseti(L, 4, i);
    from = (ptrdiff_t)to;
  }
  return 1;
}

/* unstack(a): the list of all a[i] */
static int l_unstack(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  lua_settop(L, 1);
  lua_createtable(L, a->shape[0] < INT_MAX ? (int)a->shape[0] : 0, 0);
  for (ptrdiff_t i = 0; i < a->shape[0]; i++) {
    if (a->ndim == 1)
      lua_pushnumber(L, a->data[i * a->stride[0]]);
    else {
      Array *v = ad_ownview(L, S, 1);
      v->data += i * a->stride[0];
      v->ndim--;
      memmove(v->shape, v->shape + 1, sizeof v->shape - sizeof v->shape[0]);
      memmove(v->stride, v->stride + 1, sizeof v->stride - sizeof v->stride[0]);
      ad_resize(L, v);
    }
    lua_rawseti(L, 2, (lua_Integer)i + 1);
  }
  return 1;
}

/* positions(indices, length, name): from 1, in a new array */
static int l_positions(lua_State *L) {
  const lua_Integer len = luaL_checkinteger(L, 2);
  const char *name = luaL_checkstring(L, 3);
  Array *p;
  lua_settop(L, 3);
  l_copy(L);
  p = lua_touserdata(L, -1);
  for (size_t i = 0; i < p->size; i++) {
    const double x = p->data[i];
    if (x != floor(x) || isinf(x))
      return ad_error(L, "%s: index has no integer representation", name);
    if (x == 0 || x > (double)len || x < -(double)len) {
      lua_pushnumber(L, x);
      if (fabs(x) < 1e15) lua_pushinteger(L, (lua_Integer)x);
      return ad_error(L, "%s: index %s is out of range (length %I)", name,
                      lua_tostring(L, -1), len);
    }
    if (x < 0) p->data[i] = (double)len + x + 1;
  }
  return 1;
}

/*
** What take and scatter have in common: the array in question is outer x len
** x inner elements, of which the positions choose n in the place of len
*/
typedef struct Choice {
  size_t outer, inner, n;
  ptrdiff_t len;
  const double *position;
  int ndim;
  ptrdiff_t shape[AD_MAXDIM]; /* of what is chosen */
} Choice;

/* the array of positions is at idx; a number of them drops the dimension */
static void choice(lua_State *L, State *S, Choice *w, int ndim,
                   const ptrdiff_t *shape, int axis, int idx, int drop) {
  const Array *p = ad_checkarray(L, S, idx);
  luaL_argcheck(L, axis >= 0 && axis < ndim, 2, "no such axis");
  if (ndim - 1 + (drop ? 0 : p->ndim) > AD_MAXDIM)
    ad_error(L, "take: at most %d dimensions", AD_MAXDIM);
  w->outer = w->inner = 1;
  w->n = p->size;
  w->len = shape[axis];
  w->ndim = 0;
  for (int d = 0; d < axis; d++) {
    w->outer *= (size_t)shape[d];
    w->shape[w->ndim++] = shape[d];
  }
  for (int d = 0; !drop && d < p->ndim; d++) w->shape[w->ndim++] = p->shape[d];
  for (int d = axis + 1; d < ndim; d++) {
    w->inner *= (size_t)shape[d];
    w->shape[w->ndim++] = shape[d];
  }
  if (w->ndim == 0) w->shape[w->ndim++] = 1;
  w->position = ad_packed(L, S, idx)->data;
  for (size_t i = 0; i < w->n; i++)
    luaL_argcheck(L, w->position[i] >= 1 && w->position[i] <= (double)w->len,
                  idx, "bad position");
}

/* take(a, axis, positions, drop) */
static int l_take(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const int axis = (int)lua_tointeger(L, 2) - 1, drop = lua_toboolean(L, 4);
  Choice w;
  const double *x;
  double *y;
  lua_settop(L, 4);
  choice(L, S, &w, a->ndim, a->shape, axis, 3, drop);
  x = ad_packed(L, S, 1)->data;
  y = ad_newarray(L, S, w.ndim, w.shape)->data;
  for (size_t o = 0; o < w.outer; o++, x += (size_t)w.len * w.inner)
    for (size_t i = 0; i < w.n; i++, y += w.inner) {
      const double *from = x + ((size_t)w.position[i] - 1) * w.inner;
      if (w.inner == 1)
        *y = *from;
      else if (w.inner > 1)
        memcpy(y, from, w.inner * sizeof *y);
    }
  if (drop && a->ndim == 1)
    lua_pushnumber(L, *((Array *)lua_touserdata(L, -1))->data);
  return 1;
}

/*
** scatter(a, axis, positions, drop, b): a, or zeros of the shape that is in
** its place, with the elements of b added where take finds them
*/
static int l_scatter(lua_State *L) {
  State *S = ad_state(L);
  const int axis = (int)lua_tointeger(L, 2) - 1, drop = lua_toboolean(L, 4);
  ptrdiff_t shape[AD_MAXDIM];
  const Array *a = ad_toarray(L, S, 1), *b;
  const double number = lua_tonumber(L, 5), *from = &number;
  Choice w;
  Array *result;
  double *y;
  int ndim;
  lua_settop(L, 5);
  if (a != NULL)
    memcpy(shape, a->shape, sizeof shape), ndim = a->ndim;
  else {
    luaL_checktype(L, 1, LUA_TTABLE);
    ndim = ad_checkshape(L, 1, shape);
  }
  choice(L, S, &w, ndim, shape, axis, 3, drop);
  if (lua_type(L, 5) != LUA_TNUMBER) {
    b = ad_checkarray(L, S, 5);
    if (b->size != w.outer * w.n * w.inner)
      return ad_error(L, "scatter_add: shapes %s and %s do not align",
                      ad_shapetext(L, w.ndim, w.shape),
                      ad_shapetext(L, b->ndim, b->shape));
    from = ad_packed(L, S, 5)->data;
  } else if (w.outer * w.n * w.inner != 1)
    return luaL_typeerror(L, 5, "array");
  result = ad_newarray(L, S, ndim, shape);
  y = result->data;
  if (a != NULL)
    ad_gather(a, y);
  else
    for (size_t i = 0; i < result->size; i++) y[i] = 0;
  for (size_t o = 0; o < w.outer; o++, y += (size_t)w.len * w.inner)
    for (size_t i = 0; i < w.n; i++, from += w.inner) {
      double *to = y + ((size_t)w.position[i] - 1) * w.inner;
      for (size_t k = 0; k < w.inner; k++) to[k] += from[k];
    }
  return 1;
}

/* pad(a, {before, after, before, after, ...}): with zeros */
static int l_pad(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  ptrdiff_t shape[AD_MAXDIM], before[AD_MAXDIM];
  Array *y, w;
  luaL_checktype(L, 2, LUA_TTABLE);
  for (int d = 0; d < a->ndim; d++) {
    lua_Integer n[2];
    for (int k = 0; k < 2; k++) {
      lua_rawgeti(L, 2, 2 * d + k + 1);
      n[k] = lua_tointeger(L, -1);
      lua_pop(L, 1);
      if (n[k] < 0 || n[k] > PTRDIFF_MAX / 4)
        return ad_error(L, "pad: array is too large");
    }
    before[d] = (ptrdiff_t)n[0];
    shape[d] = a->shape[d] + (ptrdiff_t)(n[0] + n[1]);
  }
  y = ad_newarray(L, S, a->ndim, shape);
  for (size_t i = 0; i < y->size; i++) y->data[i] = 0;
  if (a->size == 0) return 1;
  w = *y;
  for (int d = 0; d < a->ndim; d++) w = window(&w, d, before[d], a->shape[d]);
  ad_copyelements(&w, a);
  return 1;
}

void ad_openshape(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"copy", l_copy},
                                {"broadcast", l_broadcast},
                                {"reshape", l_reshape},
                                {"transpose", l_transpose},
                                {"flip", l_flip},
                                {"concat", l_concat},
                                {"split", l_split},
                                {"unstack", l_unstack},
                                {"positions", l_positions},
                                {"take", l_take},
                                {"scatter", l_scatter},
                                {"pad", l_pad},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
