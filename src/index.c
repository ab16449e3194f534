/*
** index.c
** Arrays: constructors, a[i] and a[{...}] for reading and writing, the
** properties, and tolist.
*/
#include <limits.h>
#include <string.h>

#include "array.h"

/*
** Indices: an integer takes a dimension away, {} keeps it, {i, j} or
** {i, j, step} keeps a range of it, both ends included. Each counts from 1,
** or from the end when it is negative. Dimensions not named are kept.
*/

static int badindex(lua_State *L, const char *fmt, lua_Integer i,
                    ptrdiff_t len) {
  return ad_error(L, fmt, i, (lua_Integer)len);
}

/* a position in a dimension of the given length, from 0 */
static ptrdiff_t position(lua_State *L, lua_Integer i, ptrdiff_t len) {
  if (i > 0 && i <= len) return (ptrdiff_t)(i - 1);
  if (i < 0 && i >= -(lua_Integer)len) return (ptrdiff_t)(len + i);
  badindex(L, "index %I is out of range (length %I)", i, len);
  return 0;
}

/* the integer at the top, also from a float or an AD value */
static lua_Integer integer(lua_State *L, State *S, const char *what) {
  int isint;
  lua_Integer i;
  if (ad_isbatch(L, S, -1))
    ad_error(L, "vmap: %s: positions that differ along the batch are for take",
             what);
  if (ad_tocell(L, S, -1)) {
    if (ad_arrayvalued(L, S, lua_gettop(L)))
      ad_pushplain(L, S, -1);
    else /* this looks at the value, which a recording takes notice of */
      lua_pushnumber(L, ad_plain(L, S, lua_gettop(L)));
    lua_replace(L, -2);
  }
  i = lua_tointegerx(L, -1, &isint);
  if (!isint && lua_type(L, -1) == LUA_TNUMBER)
    ad_error(L, "%s: number has no integer representation", what);
  if (!isint)
    ad_error(L, "%s: integer expected, got %s", what, luaL_typename(L, -1));
  lua_pop(L, 1);
  return i;
}

/* the range in the table at the top, which is popped */
static void range(lua_State *L, State *S, ptrdiff_t len, ptrdiff_t *first,
                  ptrdiff_t *count, ptrdiff_t *step) {
  const lua_Unsigned n = lua_rawlen(L, -1);
  lua_Integer i = 1, j = len, by = 1;
  if (n == 1 || n > 3)
    ad_error(L, "index: a range is {}, {first, last} or {first, last, step}");
  if (n > 0) {
    lua_rawgeti(L, -1, 1);
    i = integer(L, S, "index");
    lua_rawgeti(L, -1, 2);
    j = integer(L, S, "index");
    if (n == 3) {
      lua_rawgeti(L, -1, 3);
      by = integer(L, S, "index");
      if (by == 0) ad_error(L, "index: step is zero");
    }
    if (i < 0) i += len + 1;
    if (j < 0) j += len + 1;
  }
  lua_pop(L, 1);
  *step = (ptrdiff_t)by;
  if (by > 0 ? i > j : i < j) { /* nothing, wherever that is */
    *first = *count = 0;
    return;
  }
  if (i < 1 || i > len)
    badindex(L, "index %I is out of range (length %I)", i, len);
  if (j < 1 || j > len)
    badindex(L, "index %I is out of range (length %I)", j, len);
  *first = (ptrdiff_t)(i - 1);
  *count = (ptrdiff_t)((j - i) / by + 1);
}

static void badcount(lua_State *L, const Array *a, lua_Unsigned n) {
  ad_error(L, "%I indices for an array of shape %s", (lua_Integer)n,
           ad_shapetext(L, a->ndim, a->shape));
}

/*
** Applies the key at index 'key' to array 'a' and leaves the part in 'v'
** (whose dimensions are 0 for a single element).
*/
static void part(lua_State *L, State *S, const Array *a, int key, Array *v) {
  int d = 0, out = 0;
  v->data = a->data;
  if (lua_type(L, key) == LUA_TTABLE) {
    const lua_Unsigned n = lua_rawlen(L, key);
    if (n > (lua_Unsigned)a->ndim) badcount(L, a, n);
    for (; d < (int)n; d++) {
      ptrdiff_t first, count, step;
      lua_rawgeti(L, key, d + 1);
      if (lua_type(L, -1) == LUA_TTABLE) {
        range(L, S, a->shape[d], &first, &count, &step);
        v->shape[out] = count;
        v->stride[out++] = a->stride[d] * step;
      } else
        first = position(L, integer(L, S, "index"), a->shape[d]);
      v->data += first * a->stride[d];
    }
  } else {
    lua_pushvalue(L, key);
    v->data += position(L, integer(L, S, "index"), a->shape[0]) * a->stride[0];
    d = 1;
  }
  for (; d < a->ndim; d++) {
    v->shape[out] = a->shape[d];
    v->stride[out++] = a->stride[d];
  }
  v->ndim = out;
  v->size = 1;
  for (d = 0; d < out; d++) v->size *= (size_t)v->shape[d];
}

/* pushes the part of the array at 'idx' that the key names */
static int getpart(lua_State *L, State *S, int idx, int key) {
  const Array *a = lua_touserdata(L, idx);
  Array v, *view;
  part(L, S, a, key, &v);
  if (v.ndim == 0) {
    lua_pushnumber(L, *v.data);
    return 1;
  }
  view = ad_ownview(L, S, idx);
  view->data = v.data;
  view->size = v.size;
  view->ndim = v.ndim;
  memcpy(view->shape, v.shape, sizeof v.shape);
  memcpy(view->stride, v.stride, sizeof v.stride);
  return 1;
}

/*
** Properties and methods
*/

void ad_pushshape(lua_State *L, const Array *a) {
  lua_createtable(L, a->ndim, 0);
  for (int d = 0; d < a->ndim; d++) {
    lua_pushinteger(L, (lua_Integer)a->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
}

/*
** What x[key] is for a value whose plain value is the array at the top: a
** property or a method, if the key is a string. 0: none of these.
*/
int ad_arrayfield(lua_State *L, State *S, const char *key) {
  const Array *a = lua_touserdata(L, -1);
  (void)S;
  if (strcmp(key, "shape") == 0)
    ad_pushshape(L, a);
  else if (strcmp(key, "ndim") == 0)
    lua_pushinteger(L, a->ndim);
  else if (strcmp(key, "size") == 0)
    lua_pushinteger(L, (lua_Integer)a->size);
  else {
    ad_arraylib(L, S);
    lua_getfield(L, -1, "methods");
    lua_getfield(L, -1, key);
    if (lua_isnil(L, -1)) return 0;
  }
  return 1;
}

/*
** Does ipairs ask for what is behind the last element? Then there is nothing,
** as in a table; from whoever else it is an error. (Stack: self, key)
*/
int ad_isend(lua_State *L) {
  lua_Debug ar;
  return lua_isinteger(L, 2) && lua_getstack(L, 1, &ar) &&
         lua_getinfo(L, "Sn", &ar) && *ar.what == 'C' &&
         strcmp(ar.namewhat, "for iterator") == 0 &&
         lua_tointeger(L, 2) == luaL_len(L, 1) + 1;
}

static int mm_index(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_arrayhere(L, S, 1);
  if (a == NULL) return luaL_typeerror(L, 1, "array");
  if (lua_type(L, 2) == LUA_TSTRING) {
    const char *key = lua_tostring(L, 2);
    if (strncmp(key, "__", 2) == 0) return 0;
    lua_settop(L, 1);
    return ad_arrayfield(L, S, key);
  }
  if (lua_tointeger(L, 2) > a->shape[0] && ad_isend(L)) return 0;
  if (S->recorder != NULL) ad_recordread(L, S, 1);
  return getpart(L, S, 1, 2);
}

/* fill the part 'v' from the value at the top, a number or an array */
static void assign(lua_State *L, State *S, const Array *v, const Array *owner) {
  const Array *from;
  Array to = *v;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    const double x = lua_tonumber(L, -1);
    if (v->ndim == 0)
      *v->data = x;
    else {
      double *const zero = lua_newuserdatauv(L, sizeof *zero, 0);
      Array scalar;
      *zero = x;
      memset(&scalar, 0, sizeof scalar);
      scalar.data = zero;
      scalar.ndim = 1;
      scalar.shape[0] = 1;
      scalar.size = 1;
      ad_copyelements(&to, &scalar);
      lua_pop(L, 1);
    }
    return;
  }
  from = lua_touserdata(L, -1);
  if (v->ndim == 0 || from->ndim > v->ndim) {
    if (v->ndim == 0 && from->size == 1) {
      *v->data = *from->data;
      return;
    }
  } else {
    ptrdiff_t shape[AD_MAXDIM];
    int ndim = v->ndim;
    memcpy(shape, v->shape, sizeof shape);
    if (ad_broadcast(&ndim, shape, from->ndim, from->shape) &&
        ndim == v->ndim &&
        memcmp(shape, v->shape, sizeof shape[0] * (size_t)ndim) == 0) {
      const int overlaps = ad_owner(L, -1) == owner;
      if (overlaps) { /* what is read must not change meanwhile */
        Array *copy = ad_newarray(L, S, from->ndim, from->shape);
        ad_gather(from, copy->data);
        from = copy;
      }
      ad_copyelements(&to, from);
      if (overlaps) lua_pop(L, 1);
      return;
    }
  }
  ad_error(L, "cannot assign an array of shape %s to a part of shape %s",
           ad_shapetext(L, from->ndim, from->shape),
           ad_shapetext(L, v->ndim, v->shape));
}

static int mm_newindex(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1), *owner;
  Array v;
  if (lua_type(L, 2) == LUA_TSTRING && !lua_isnumber(L, 2))
    return ad_error(L, "an array has no field '%s' to set", lua_tostring(L, 2));
  lua_settop(L, 3);
  if (S->recorder != NULL && ad_tocell(L, S, 3) &&
      AD_ISREC(ad_kindof(S, lua_touserdata(L, 3)))) {
    ad_recordfail(S, "f writes into an array");
    ad_pushplain(L, S, 3);
    lua_replace(L, 3);
  }
  if (lua_type(L, 3) != LUA_TNUMBER && !ad_toarray(L, S, 3)) {
    if (ad_tocell(L, S, 3))
      return ad_error(L,
                      "an array holds plain numbers, not a %s: build one "
                      "of them with array or stack, or store ad.value",
                      AD_ISVAR(ad_kindof(S, lua_touserdata(L, 3))) ? "var"
                                                                   : "dual");
    if (lua_type(L, 3) != LUA_TTABLE)
      return ad_error(L, "cannot assign a %s to elements of an array",
                      luaL_typename(L, 3));
    ad_arraycalln(L, S, "array", 1);
    if (!ad_toarray(L, S, 3))
      return ad_error(L, "an array holds plain numbers, not AD values");
  }
  part(L, S, a, 2, &v);
  owner = ad_owner(L, 1);
  ad_checkwrite(L, S, 1);
  assign(L, S, &v, owner);
  return 0;
}

static int mm_len(lua_State *L) {
  State *S = ad_state(L);
  lua_pushinteger(L, (lua_Integer)ad_checkarray(L, S, 1)->shape[0]);
  return 1;
}

/* nested lists; the depth is that of the dimensions */
static void tolist(lua_State *L, const Array *a, int d, const double *data) {
  lua_createtable(L, a->shape[d] < INT_MAX ? (int)a->shape[d] : 0, 0);
  for (ptrdiff_t i = 0; i < a->shape[d]; i++, data += a->stride[d]) {
    if (d + 1 < a->ndim)
      tolist(L, a, d + 1, data);
    else
      lua_pushnumber(L, *data);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static int l_tolist(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  luaL_checkstack(L, AD_MAXDIM + 8, NULL);
  tolist(L, a, 0, a->data);
  return 1;
}

/*
** Constructors
*/

static int filled(lua_State *L, double x) {
  State *S = ad_state(L);
  ptrdiff_t shape[AD_MAXDIM];
  const int ndim = ad_checkshape(L, 1, shape);
  Array *a = ad_newarray(L, S, ndim, shape);
  for (size_t i = 0; i < a->size; i++) a->data[i] = x;
  return 1;
}

static int l_zeros(lua_State *L) { return filled(L, 0); }
static int l_ones(lua_State *L) { return filled(L, 1); }

static int l_full(lua_State *L) {
  const double x = luaL_checknumber(L, 2);
  if (lua_type(L, 1) != LUA_TTABLE) luaL_checkinteger(L, 1);
  lua_settop(L, 1);
  return filled(L, x);
}

static int l_eye(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[2];
  Array *a;
  const lua_Integer n = luaL_checkinteger(L, 1), m = luaL_optinteger(L, 2, n);
  luaL_argcheck(L, n >= 0 && (lua_Unsigned)n <= PTRDIFF_MAX, 1, "bad length");
  luaL_argcheck(L, m >= 0 && (lua_Unsigned)m <= PTRDIFF_MAX, 2, "bad length");
  shape[0] = (ptrdiff_t)n, shape[1] = (ptrdiff_t)m;
  a = ad_newarray(L, S, 2, shape);
  for (size_t i = 0; i < a->size; i++) a->data[i] = 0;
  for (ptrdiff_t i = 0; i < n && i < m; i++) a->data[i * m + i] = 1;
  return 1;
}

/* as many steps as Lua's for would make */
static int l_arange(lua_State *L) {
  State *S = ad_state(L);
  const double from = luaL_checknumber(L, 1), to = luaL_checknumber(L, 2),
               step = luaL_optnumber(L, 3, 1);
  ptrdiff_t n = 0;
  double count;
  Array *a;
  luaL_argcheck(L, step != 0 && !isnan(step), 3, "step is zero");
  luaL_argcheck(L, isfinite(from), 1, "not a finite number");
  luaL_argcheck(L, isfinite(to), 2, "not a finite number");
  if (step > 0 ? from <= to : from >= to) {
    count = floor((to - from) / step);
    luaL_argcheck(L, count < (double)(PTRDIFF_MAX / 16), 2, "too many steps");
    n = (ptrdiff_t)count + 1;
    /* the quotient may have been rounded past a whole number, either way */
    while (n > 1 && (step > 0 ? from + (double)(n - 1) * step > to
                              : from + (double)(n - 1) * step < to))
      n--;
    while (step > 0 ? from + (double)n * step <= to
                    : from + (double)n * step >= to)
      n++;
  }
  a = ad_newarray(L, S, 1, &n);
  for (ptrdiff_t i = 0; i < n; i++) a->data[i] = from + (double)i * step;
  return 1;
}

static int l_linspace(lua_State *L) {
  State *S = ad_state(L);
  const double from = luaL_checknumber(L, 1), to = luaL_checknumber(L, 2);
  const lua_Integer count = luaL_checkinteger(L, 3);
  ptrdiff_t n;
  Array *a;
  luaL_argcheck(L, count >= 0 && (lua_Unsigned)count <= PTRDIFF_MAX, 3,
                "bad length");
  n = (ptrdiff_t)count;
  a = ad_newarray(L, S, 1, &n);
  for (ptrdiff_t i = 0; i < n; i++)
    a->data[i] =
        n == 1 ? from : from + (to - from) * ((double)i / (double)(n - 1));
  if (n > 1) a->data[n - 1] = to;
  return 1;
}

/*
** Nested lists: the first element of each decides the shape; all must agree.
** Arrays may stand in the place of lists.
*/

typedef struct Nest {
  int ndim;
  ptrdiff_t shape[AD_MAXDIM];
  double *to;
  int other; /* there is an AD value: an operation has to do this */
} Nest;

static void ragged(lua_State *L) {
  ad_error(L, "array: the lists have different lengths");
}

/* the shape, by the first elements of the list at 'idx' */
static void measure(lua_State *L, State *S, int idx, Nest *w) {
  const int top = lua_gettop(L);
  w->ndim = 0;
  lua_pushvalue(L, idx);
  for (;;) {
    const Array *a;
    ad_pushplain(L, S, -1);
    a = ad_arrayhere(L, S, -1);
    if (a != NULL) {
      if (w->ndim + a->ndim > AD_MAXDIM)
        ad_error(L, "array: at most %d dimensions", AD_MAXDIM);
      for (int d = 0; d < a->ndim; d++) w->shape[w->ndim++] = a->shape[d];
      break;
    }
    if (lua_type(L, -1) != LUA_TTABLE) break;
    if (w->ndim == AD_MAXDIM)
      ad_error(L, "array: at most %d dimensions", AD_MAXDIM);
    w->shape[w->ndim++] = (ptrdiff_t)lua_rawlen(L, -1);
    if (w->shape[w->ndim - 1] == 0) break;
    lua_rawgeti(L, -1, 1);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
  }
  lua_settop(L, top);
}

/* takes the value at the top, which is in dimension d; recursion: 8 deep */
static void fill(lua_State *L, State *S, Nest *w, int d) {
  const Array *a = ad_toarray(L, S, -1);
  if (a != NULL) {
    if (a->ndim != w->ndim - d ||
        memcmp(a->shape, w->shape + d, sizeof a->shape[0] * (size_t)a->ndim) !=
            0)
      ragged(L);
    if (w->to) {
      ad_gather(a, w->to);
      w->to += a->size;
    }
  } else if (ad_tocell(L, S, -1)) {
    w->other = 1;
  } else if (lua_type(L, -1) == LUA_TTABLE) {
    if (d == w->ndim || (ptrdiff_t)lua_rawlen(L, -1) != w->shape[d]) ragged(L);
    for (ptrdiff_t i = 0; i < w->shape[d]; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i + 1);
      fill(L, S, w, d + 1);
      lua_pop(L, 1);
    }
  } else if (lua_type(L, -1) == LUA_TNUMBER) {
    if (d != w->ndim) ragged(L);
    if (w->to) *w->to++ = lua_tonumber(L, -1);
  } else
    ad_error(L, "array: number expected, got %s", luaL_typename(L, -1));
}

/* plain(nested): an array; nil when there are AD values in it, and the shape */
static int l_plain(lua_State *L) {
  State *S = ad_state(L);
  Nest w;
  Array *a;
  lua_settop(L, 1);
  luaL_checkstack(L, 3 * AD_MAXDIM + 20, NULL);
  if (!ad_toarray(L, S, 1)) luaL_checktype(L, 1, LUA_TTABLE);
  measure(L, S, 1, &w);
  w.to = NULL;
  w.other = 0;
  fill(L, S, &w, 0);
  lua_settop(L, 1);
  if (w.other) {
    lua_pushnil(L);
    return 1;
  }
  a = ad_newarray(L, S, w.ndim, w.shape);
  w.to = a->data;
  lua_pushvalue(L, 1);
  fill(L, S, &w, 0);
  lua_settop(L, 2);
  return 1;
}

/* getpart(a, key): a[key] of a plain array */
static int l_getpart(lua_State *L) {
  State *S = ad_state(L);
  ad_checkarray(L, S, 1);
  return getpart(L, S, 1, 2);
}

/* setpart(shape, key, b): zeros of a shape with b added at a key */
static int l_putpart(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[AD_MAXDIM];
  int ndim;
  Array *a, v;
  lua_settop(L, 3);
  ndim = ad_checkshape(L, 1, shape);
  a = ad_newarray(L, S, ndim, shape);
  for (size_t i = 0; i < a->size; i++) a->data[i] = 0;
  part(L, S, a, 2, &v);
  lua_pushvalue(L, 3);
  assign(L, S, &v, a);
  lua_settop(L, 4);
  return 1;
}

/* to += from, in a part of an array */
static void addelements(const Array *to, const Array *from) {
  ptrdiff_t index[AD_MAXDIM] = {0};
  const int last = to->ndim - 1;
  double *row = to->data;
  const double *src = from->data;
  if (to->size == 0) return;
  for (;;) {
    int d;
    for (ptrdiff_t i = 0; i < to->shape[last]; i++)
      row[i * to->stride[last]] += src[i * from->stride[last]];
    for (d = last - 1; d >= 0; d--) {
      row += to->stride[d];
      src += from->stride[d];
      if (++index[d] < to->shape[d]) break;
      index[d] = 0;
      row -= to->stride[d] * to->shape[d];
      src -= from->stride[d] * to->shape[d];
    }
    if (d < 0) return;
  }
}

/*
** The cotangent g (on the top) of x[key] goes to that of x without an array of
** zeros around it. acc is what x has so far: a sweep's own array that may be
** written to, or anything that is replaced by one. Pushes the sum; 0: it
** cannot be done that way.
*/
int ad_addpart(lua_State *L, State *S, val acc, int key, int shape) {
  const int g = lua_gettop(L);
  const Array *from = ad_toarray(L, S, g);
  Array *to = acc.i ? ad_toarray(L, S, acc.i) : NULL, v;
  if (from == NULL && lua_type(L, g) != LUA_TNUMBER) return 0;
  if (to == NULL && !ad_isnum(acc, 0)) return 0;
  if (to == NULL || !to->own || to->view) {
    ptrdiff_t dims[AD_MAXDIM];
    const Array *old = to;
    const int ndim = ad_checkshape(L, shape, dims);
    to = ad_newarray(L, S, ndim, dims);
    if (old != NULL)
      ad_gather(old, to->data);
    else
      for (size_t i = 0; i < to->size; i++) to->data[i] = 0;
    to->own = 1;
  } else
    lua_pushvalue(L, acc.i);
  part(L, S, to, key, &v);
  if (from == NULL)
    *v.data += lua_tonumber(L, g);
  else
    addelements(&v, from);
  return 1;
}

/* shapeof(x): of the plain value of x; nil if that is a number */
static int l_shapeof(lua_State *L) {
  State *S = ad_state(L);
  const Array *a;
  lua_settop(L, 1);
  ad_pushplain(L, S, 1);
  a = ad_arrayhere(L, S, -1);
  if (a == NULL) return 0;
  ad_pushshape(L, a);
  return 1;
}

/* isarray(x): is the plain value of x an array? */
static int l_isarray(lua_State *L) {
  State *S = ad_state(L);
  lua_pushboolean(L, ad_arrayvalued(L, S, 1));
  return 1;
}

/* isplain(x): is it a plain array? */
static int l_isplain(lua_State *L) {
  lua_pushboolean(L, ad_arrayhere(L, ad_state(L), 1) != NULL);
  return 1;
}

/* isbatch(x): is it the value of a batch, however it is differentiated? */
static int l_isbatch(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, ad_isbatch(L, ad_state(L), 1));
  return 1;
}

/* fail(message): an error at the place in the user's code */
static int l_fail(lua_State *L) {
  return ad_error(L, "%s", luaL_checkstring(L, 1));
}

/*
** operands(...): numbers and plain arrays, when there is no live level among
** them. Programs of numbers (compile.c) end here.
*/
static int l_operands(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  ad_checkstack(L, n + 10, "too many operands");
  for (int i = 1; i <= n; i++) {
    Arg a;
    if (ad_tocell(L, S, i) == NULL) continue;
    ad_resolve(L, S, i, &a);
    if (a.key && AD_ISREC(a.kind)) {
      ad_recordfail(S, "f uses an array");
      a.v = ad_num(a.c->value);
    }
    ad_pushval(L, a.v);
    lua_replace(L, i);
    lua_settop(L, n);
  }
  return n;
}

void ad_openindex(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {{"__index", mm_index},
                                {"__newindex", mm_newindex},
                                {"__len", mm_len},
                                {NULL, NULL}};
  static const luaL_Reg fn[] = {{"tolist", l_tolist},
                                {"zeros", l_zeros},
                                {"ones", l_ones},
                                {"full", l_full},
                                {"eye", l_eye},
                                {"arange", l_arange},
                                {"linspace", l_linspace},
                                {"plain", l_plain},
                                {"getpart", l_getpart},
                                {"putpart", l_putpart},
                                {"shapeof", l_shapeof},
                                {"isarray", l_isarray},
                                {"fail", l_fail},
                                {"isbatch", l_isbatch},
                                {"isplain", l_isplain},
                                {"operands", l_operands},
                                {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTARRAY]);
  ad_setfuncs(L, fn, LUA_NOREF);
}
