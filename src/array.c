/*
** array.c
** Arrays as Lua sees them: making them, taking views, reading and writing
** elements. What computes is in arrayop.c and behind autodiff/array.lua.
*/
#include "array.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "arrayop.h"

#define HEAD ((sizeof(Array) + AD_ALIGN - 1) / AD_ALIGN * AD_ALIGN)

/*
** Making
*/

Array *ad_toarray(lua_State *L, const State *S, int idx) {
  const void *mt;
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
    return NULL;
  mt = lua_topointer(L, -1);
  lua_pop(L, 1); /* metatable */
  return mt == S->mtp[AD_MTARRAY] ? lua_touserdata(L, idx) : NULL;
}

Array *ad_checkarray(lua_State *L, State *S, int arg) {
  Array *a = ad_toarray(L, S, arg);
  if (a == NULL) luaL_typeerror(L, arg, "array");
  return a;
}

static size_t sizeof_shape(lua_State *L, int ndim, const ptrdiff_t *shape) {
  size_t size = 1;
  int empty = 0;
  for (int d = 0; d < ndim; d++) empty |= shape[d] == 0;
  if (empty) return 0;
  for (int d = 0; d < ndim; d++) {
    if ((size_t)shape[d] > (PTRDIFF_MAX / sizeof(double) - HEAD) / size)
      ad_error(L, "array is too large");
    size *= (size_t)shape[d];
  }
  return size;
}

void ad_resize(lua_State *L, Array *a) {
  a->size = sizeof_shape(L, a->ndim, a->shape);
}

static Array *newheader(lua_State *L, State *S, size_t bytes, int nuv) {
  Array *a = lua_newuserdatauv(L, bytes, nuv);
  memset(a, 0, sizeof *a);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTARRAY]);
  lua_setmetatable(L, -2);
  return a;
}

Array *ad_newarray(lua_State *L, State *S, int ndim, const ptrdiff_t *shape) {
  const size_t size = sizeof_shape(L, ndim, shape);
  Array *a = newheader(L, S, HEAD + size * sizeof(double) + AD_ALIGN, 0);
  ptrdiff_t stride = 1;
  S->arrays = 1;
  a->size = size;
  a->ndim = ndim;
  for (int d = ndim; d-- > 0;) {
    a->shape[d] = shape[d];
    a->stride[d] = stride;
    stride *= shape[d];
  }
  a->data = (double *)(void *)(((uintptr_t)a + HEAD + AD_ALIGN - 1) &
                               ~(uintptr_t)(AD_ALIGN - 1));
  return a;
}

Array *ad_newview(lua_State *L, State *S, int idx) {
  const Array *a = lua_touserdata(L, idx);
  Array *v;
  idx = lua_absindex(L, idx);
  v = newheader(L, S, sizeof(Array), 1);
  *v = *a;
  v->view = 1;
  v->saved = v->own = 0;
  if (a->view)
    lua_getiuservalue(L, idx, 1);
  else
    lua_pushvalue(L, idx);
  lua_setiuservalue(L, -2, 1);
  return v;
}

/*
** Shapes
*/

const char *ad_shapetext(lua_State *L, int ndim, const ptrdiff_t *shape) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addchar(&b, '(');
  for (int d = 0; d < ndim; d++) {
    char s[32];
    snprintf(s, sizeof s, d ? ", %lld" : "%lld", (long long)shape[d]);
    luaL_addstring(&b, s);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

static ptrdiff_t checkdim(lua_State *L, int idx, int arg) {
  int isint;
  const lua_Integer n = lua_tointegerx(L, idx, &isint);
  if (!isint)
    luaL_argerror(L, arg,
                  lua_pushfstring(L, "shape: integer expected, got %s",
                                  luaL_typename(L, idx)));
  if (n < 0 || (lua_Unsigned)n > PTRDIFF_MAX)
    luaL_argerror(L, arg, lua_pushfstring(L, "shape: bad length %I", n));
  return (ptrdiff_t)n;
}

/* a list of integers, or integers from 'arg' to the last argument */
int ad_checkshape(lua_State *L, int arg, ptrdiff_t *shape) {
  int ndim;
  if (lua_type(L, arg) == LUA_TTABLE) {
    const lua_Unsigned n = lua_rawlen(L, arg);
    luaL_argcheck(L, n <= AD_MAXDIM, arg, "at most 8 dimensions");
    ndim = (int)n;
    for (int d = 0; d < ndim; d++) {
      lua_rawgeti(L, arg, d + 1);
      shape[d] = checkdim(L, -1, arg);
      lua_pop(L, 1);
    }
  } else {
    ndim = lua_gettop(L) - arg + 1;
    if (ndim <= 0) luaL_typeerror(L, arg, "shape");
    luaL_argcheck(L, ndim <= AD_MAXDIM, arg + AD_MAXDIM,
                  "at most 8 dimensions");
    for (int d = 0; d < ndim; d++) shape[d] = checkdim(L, arg + d, arg + d);
  }
  luaL_argcheck(L, ndim > 0, arg, "an array has at least one dimension");
  return ndim;
}

ptrdiff_t ad_checkaxis(lua_State *L, int arg, int ndim) {
  const lua_Integer i = luaL_checkinteger(L, arg);
  if (i == 0 || i > ndim || i < -ndim)
    luaL_argerror(
        L, arg,
        lua_pushfstring(L, "no axis %I in an array of %d dimensions", i, ndim));
  return (ptrdiff_t)(i > 0 ? i - 1 : ndim + i);
}

int ad_contiguous(const Array *a) {
  ptrdiff_t run = 1;
  for (int d = a->ndim; d-- > 0;) {
    if (a->shape[d] != 1 && a->stride[d] != run) return a->size == 0;
    run *= a->shape[d];
  }
  return 1;
}

int ad_broadcast(int *ndim, ptrdiff_t *shape, int n2, const ptrdiff_t *shape2) {
  const int n1 = *ndim, n = n1 > n2 ? n1 : n2;
  ptrdiff_t out[AD_MAXDIM];
  for (int d = 0; d < n; d++) {
    const ptrdiff_t s1 = d < n - n1 ? 1 : shape[d - (n - n1)],
                    s2 = d < n - n2 ? 1 : shape2[d - (n - n2)];
    if (s1 != s2 && s1 != 1 && s2 != 1) return 0;
    out[d] = s1 == 1 ? s2 : s1;
  }
  *ndim = n;
  memcpy(shape, out, sizeof out[0] * (size_t)n);
  return 1;
}

void ad_strides(const Array *a, int ndim, const ptrdiff_t *shape,
                ptrdiff_t *stride) {
  for (int d = 0; d < ndim; d++) {
    const int k = d - (ndim - a->ndim);
    stride[d] = k < 0 || (a->shape[k] == 1 && shape[d] != 1) ? 0 : a->stride[k];
  }
}

/*
** Elements in row-major order
*/

/* calls for each row of the last dimension */
#define ROWS(a, n, row, body)                                                  \
  do {                                                                         \
    const int last_ = (a)->ndim - 1;                                           \
    const ptrdiff_t n = (a)->shape[last_];                                     \
    ptrdiff_t index_[AD_MAXDIM] = {0};                                         \
    double *row = (a)->data;                                                   \
    if ((a)->size == 0) break;                                                 \
    for (;;) {                                                                 \
      int d_;                                                                  \
      body;                                                                    \
      for (d_ = last_ - 1; d_ >= 0; d_--) {                                    \
        row += (a)->stride[d_];                                                \
        if (++index_[d_] < (a)->shape[d_]) break;                              \
        index_[d_] = 0;                                                        \
        row -= (a)->stride[d_] * (a)->shape[d_];                               \
      }                                                                        \
      if (d_ < 0) break;                                                       \
    }                                                                          \
  } while (0)

void ad_gather(const Array *a, double *to) {
  const ptrdiff_t s = a->stride[a->ndim - 1];
  if (ad_contiguous(a)) {
    if (a->size) memcpy(to, a->data, a->size * sizeof *to);
    return;
  }
  ROWS(a, n, row, {
    for (ptrdiff_t i = 0; i < n; i++) *to++ = row[i * s];
  });
}

void ad_scatter(const Array *a, const double *from) {
  const ptrdiff_t s = a->stride[a->ndim - 1];
  ROWS(a, n, row, {
    for (ptrdiff_t i = 0; i < n; i++) row[i * s] = *from++;
  });
}

Array *ad_packed(lua_State *L, State *S, int idx) {
  Array *a = lua_touserdata(L, idx), *p;
  if (ad_contiguous(a)) return a;
  p = ad_newarray(L, S, a->ndim, a->shape);
  ad_gather(a, p->data);
  return p;
}

/*
** Plain values behind others
*/

/* the first of the parts of an array along its first dimension, in its place */
static void firstpart(lua_State *L, State *S) {
  const Array *a = lua_touserdata(L, -1);
  Array *v;
  if (a->ndim == 1)
    lua_pushnumber(L, a->size ? *a->data : 0);
  else if (a->shape[0] == 0) /* nothing is there, but its shape is known */
    v = ad_newarray(L, S, a->ndim - 1, a->shape + 1), (void)v;
  else {
    v = ad_newview(L, S, -1);
    v->ndim = a->ndim - 1;
    memmove(v->shape, v->shape + 1, sizeof v->shape - sizeof v->shape[0]);
    memmove(v->stride, v->stride + 1, sizeof v->stride - sizeof v->stride[0]);
    ad_resize(L, v);
  }
  lua_remove(L, -2);
}

void ad_pushplain(lua_State *L, State *S, int idx) {
  int batches = 0;
  lua_pushvalue(L, idx);
  for (;;) {
    const Cell *c = ad_tocell(L, S, -1);
    if (c == NULL) break;
    batches += ad_kindof(S, c) == AD_BATCH;
    if (AD_GENERALKIND(ad_kindof(S, c)))
      lua_getiuservalue(L, -1, 1);
    else
      lua_pushnumber(L, c->value);
    lua_remove(L, -2);
  }
  for (; batches > 0 && ad_toarray(L, S, -1); batches--) firstpart(L, S);
}

int ad_arrayvalued(lua_State *L, State *S, int idx) {
  int is;
  if (!S->arrays || lua_type(L, idx) != LUA_TUSERDATA) return 0;
  if (ad_toarray(L, S, idx)) return 1;
  ad_pushplain(L, S, idx);
  is = ad_toarray(L, S, -1) != NULL;
  lua_pop(L, 1);
  return is;
}

int ad_byelement(lua_State *L, State *S, int idx) {
  return S->arrays && (ad_arrayvalued(L, S, idx) || ad_isbatch(L, S, idx));
}

/*
** Operations of the table
*/

/* the operands' common shape and strides; error if there is none */
static void align(lua_State *L, State *S, const char *name, int n, const val *x,
                  int *ndim, ptrdiff_t *shape, ptrdiff_t (*stride)[AD_MAXDIM],
                  ad_Strided *in, double *number) {
  const Array *first = NULL;
  (void)S;
  *ndim = 0;
  for (int i = 0; i < n; i++) {
    const Array *a = x[i].i ? lua_touserdata(L, x[i].i) : NULL;
    if (a == NULL) continue;
    if (!ad_broadcast(ndim, shape, a->ndim, a->shape)) {
      const char *s1 = ad_shapetext(L, first->ndim, first->shape),
                 *s2 = ad_shapetext(L, a->ndim, a->shape);
      ad_error(L, "%s: shapes %s and %s do not broadcast", name, s1, s2);
    }
    if (first == NULL) first = a;
  }
  for (int i = 0; i < n; i++) {
    const Array *a = x[i].i ? lua_touserdata(L, x[i].i) : NULL;
    if (a == NULL) {
      number[i] = x[i].n;
      in[i].data = &number[i];
      for (int d = 0; d < *ndim; d++) stride[i][d] = 0;
    } else {
      in[i].data = a->data;
      ad_strides(a, *ndim, shape, stride[i]);
    }
    in[i].stride = stride[i];
  }
}

/* a number on the stack is as good as one in hand */
static void numbers(lua_State *L, int n, const val *x, val *out) {
  for (int i = 0; i < n; i++) {
    out[i] = x[i];
    if (x[i].i && lua_type(L, x[i].i) == LUA_TNUMBER)
      out[i] = ad_num(lua_tonumber(L, x[i].i));
  }
}

val ad_arrayapply(lua_State *L, State *S, int op, int n, const val *given) {
  val x[AD_MAXARITY];
  ptrdiff_t shape[AD_MAXDIM], stride[AD_MAXARITY][AD_MAXDIM];
  ad_Strided in[AD_MAXARITY];
  double number[AD_MAXARITY];
  int ndim;
  Array *y;
  numbers(L, n, given, x);
  align(L, S, ad_opinfo[op].name, n, x, &ndim, shape, stride, in, number);
  y = ad_newarray(L, S, ndim, shape);
  ad_elementwise(op, ndim, shape, y->data, n, in);
  return ad_at(lua_gettop(L));
}

static int sameshape(const Array *a, int ndim, const ptrdiff_t *shape) {
  return a->ndim == ndim &&
         memcmp(a->shape, shape, sizeof shape[0] * (size_t)ndim) == 0;
}

val ad_like(lua_State *L, State *S, val v, val like) {
  const Array *a = NULL, *from;
  const int base = lua_gettop(L);
  if (like.i) {
    ad_pushplain(L, S, like.i);
    a = ad_toarray(L, S, -1);
  }
  if (v.i) {
    ad_pushplain(L, S, v.i);
    from = ad_toarray(L, S, -1);
  } else
    from = NULL;
  lua_settop(L, base);
  if (a == NULL ? from == NULL
                : from != NULL && sameshape(from, a->ndim, a->shape))
    return v;
  ad_pushval(L, v);
  ad_pushval(L, like);
  ad_arraycalln(L, S, "like", 2);
  return ad_takeval(L);
}

/*
** acc + g * (partial derivative of 'op' by operand i), all of them plain, in
** the shape of that operand (or of y, forwards); the sum goes where acc is if
** nobody else has that.
*/
val ad_arraypull(lua_State *L, State *S, int op, int i, int n, const val *given,
                 val y, val g, val acc, int forwards) {
  val x[AD_MAXARITY + 2];
  ptrdiff_t shape[AD_MAXDIM], stride[AD_MAXARITY + 2][AD_MAXDIM];
  ad_Strided in[AD_MAXARITY + 2];
  double number[AD_MAXARITY + 2];
  const val like = forwards ? y : given[i];
  Array *into = acc.i ? lua_touserdata(L, acc.i) : NULL, *out;
  val r;
  int ndim;
  if (g.i == 0 && g.n == 0) return acc;
  numbers(L, n, given, x);
  x[n] = y;
  x[n + 1] = g;
  align(L, S, ad_opinfo[op].name, n + 2, x, &ndim, shape, stride, in, number);
  if (into != NULL && into->own && !into->view &&
      sameshape(into, ndim, shape)) {
    ad_elementpull(op, i, ndim, shape, into->data, n, in, in[n], in[n + 1], 1);
    return acc;
  }
  out = ad_newarray(L, S, ndim, shape);
  ad_elementpull(op, i, ndim, shape, out->data, n, in, in[n], in[n + 1], 0);
  r = ad_like(L, S, ad_at(lua_gettop(L)), like);
  if (!ad_isnum(acc, 0)) r = ad_op2(L, S, OP_add, acc, r);
  if (r.i) ((Array *)lua_touserdata(L, r.i))->own = 1;
  return r;
}

/*
** What tapes hold
*/

val ad_save(lua_State *L, State *S, int op, int n, const val *x, val y) {
  Saved *s = lua_newuserdatauv(L, sizeof *s, n + 1);
  memset(s, 0, sizeof *s);
  s->op = (uint8_t)op;
  s->n = (uint8_t)n;
  for (int i = 0; i < n; i++) {
    ad_pushval(L, x[i]);
    lua_setiuservalue(L, -2, i + 1);
  }
  ad_pushval(L, y);
  lua_setiuservalue(L, -2, n + 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTSAVED]);
  lua_setmetatable(L, -2);
  return ad_at(lua_gettop(L));
}

Saved *ad_tosaved(lua_State *L, const State *S, int idx) {
  const void *mt;
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
    return NULL;
  mt = lua_topointer(L, -1);
  lua_pop(L, 1); /* metatable */
  return mt == S->mtp[AD_MTSAVED] ? lua_touserdata(L, idx) : NULL;
}

Array *ad_owner(lua_State *L, int idx) {
  Array *a = lua_touserdata(L, idx);
  if (a->view) {
    lua_getiuservalue(L, idx, 1);
    a = lua_touserdata(L, -1);
    lua_pop(L, 1); /* the view has it */
  }
  return a;
}

static Array *ownerbehind(lua_State *L, State *S, int idx) {
  Array *a = NULL;
  ad_pushplain(L, S, idx);
  if (ad_toarray(L, S, -1)) a = ad_owner(L, -1);
  lua_pop(L, 1);
  return a;
}

void ad_marksaved(lua_State *L, State *S, int idx, int holder) {
  Array *owner = ownerbehind(L, S, idx);
  if (owner == NULL) return;
  holder = lua_absindex(L, holder);
  if (S->savers == LUA_NOREF) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    S->savers = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->savers);
  lua_pushvalue(L, holder);
  lua_pushboolean(L, 1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  owner->saved = 1;
}

/* does the object at the top, of some tape, hold the array's elements? */
static int holds(lua_State *L, State *S, const Array *owner) {
  const int top = lua_gettop(L);
  const Saved *s = ad_tosaved(L, S, -1);
  int found = 0;
  if (s != NULL)
    for (int i = 1; i <= s->n + 1 && !found; i++) {
      lua_getiuservalue(L, top, i);
      found = ownerbehind(L, S, -1) == owner;
    }
  else if (lua_type(L, -1) == LUA_TTABLE && /* handler of a call */
           lua_getfield(L, -1, "saved") == LUA_TTABLE)
    for (lua_Integer i = 1; !found && lua_rawgeti(L, top + 1, i) != LUA_TNIL;
         i++) {
      found = ownerbehind(L, S, -1) == owner;
      lua_settop(L, top + 1);
    }
  lua_settop(L, top);
  return found;
}

static int issaved(lua_State *L, State *S, const Array *owner) {
  const int top = lua_gettop(L);
  int found = 0;
  if (S->savers == LUA_NOREF) return 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->savers);
  lua_pushnil(L);
  while (!found && lua_next(L, top + 1)) {
    lua_pop(L, 1); /* the value: true */
    lua_pushnil(L);
    while (!found && lua_next(L, top + 2)) {
      found = holds(L, S, owner);
      lua_settop(L, top + 3);
    }
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
  return found;
}

/*
** What tapes hold is found by looking through them, when it comes to writing.
** Those that nobody can reach any more do not count.
*/
void ad_checkwrite(lua_State *L, State *S, int arg) {
  const Array *a = lua_touserdata(L, arg);
  Array *owner = ad_owner(L, arg);
  for (int d = 0; d < a->ndim; d++)
    if (a->stride[d] == 0 && a->shape[d] > 1)
      ad_error(L, "cannot write into an array that repeats its elements "
                  "(broadcast_to): write into a copy (a:copy())");
  if (!owner->saved) return;
  ad_checkstack(L, 20, NULL);
  if (issaved(L, S, owner)) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    if (issaved(L, S, owner))
      ad_error(L, "cannot write into an array that a tape has saved for its "
                  "backward pass: write into a copy (a:copy())");
  }
  owner->saved = 0;
}

/*
** Skeletons
*/

void ad_pushskeleton(lua_State *L, State *S, int leaf, int isnode,
                     uint32_t node) {
  const Array *a = NULL;
  Array *husk;
  leaf = lua_absindex(L, leaf);
  if (lua_type(L, leaf) == LUA_TUSERDATA) {
    ad_pushplain(L, S, leaf);
    a = ad_toarray(L, S, -1);
  } else
    lua_pushnil(L);
  if (a == NULL) {
    if (isnode)
      lua_pushinteger(L, node);
    else
      lua_pushboolean(L, 0);
  } else {
    husk = newheader(L, S, sizeof(Array), 0);
    husk->ndim = a->ndim;
    memcpy(husk->shape, a->shape, sizeof a->shape);
    husk->view = (uint8_t)isnode; /* these two mean something else here */
    husk->stride[0] = (ptrdiff_t)node;
  }
  lua_remove(L, -2);
}

int ad_skeletonnode(lua_State *L, const State *S, int idx, uint32_t *node,
                    const Array **shape) {
  *shape = NULL;
  if (lua_type(L, idx) == LUA_TNUMBER) {
    *node = (uint32_t)lua_tointeger(L, idx);
    return 1;
  }
  *shape = ad_toarray(L, S, idx);
  if (*shape == NULL) return 0;
  *node = (uint32_t)(*shape)->stride[0];
  return (*shape)->view;
}

void ad_checkfits(lua_State *L, State *S, const Array *shape, int idx,
                  const char *what) {
  const Array *a;
  ad_pushplain(L, S, idx);
  a = ad_toarray(L, S, -1);
  if (shape == NULL && a != NULL)
    ad_error(L, "%s: number expected, got an array of shape %s", what,
             ad_shapetext(L, a->ndim, a->shape));
  if (shape != NULL && (a == NULL || !sameshape(a, shape->ndim, shape->shape)))
    ad_error(L, "%s: array of shape %s expected, got %s", what,
             ad_shapetext(L, shape->ndim, shape->shape),
             a ? ad_shapetext(L, a->ndim, a->shape) : luaL_typename(L, idx));
  lua_pop(L, 1);
}

void ad_sweepresult(lua_State *L, Sweep *w, int idx) {
  State *S = w->lv->S;
  const Array *shape;
  Array *a;
  uint32_t node = 0;
  if (ad_skeletonnode(L, S, idx, &node, &shape))
    ad_sweepget(L, w, node);
  else
    lua_pushnumber(L, 0);
  if (shape != NULL && lua_type(L, -1) == LUA_TNUMBER) {
    const double x = lua_tonumber(L, -1);
    lua_pop(L, 1);
    a = ad_newarray(L, S, shape->ndim, shape->shape);
    for (size_t i = 0; i < a->size; i++) a->data[i] = x;
  } else if ((a = ad_toarray(L, S, -1)) != NULL) {
    if (a->view) { /* its elements may be somebody else's, or repeated */
      const Array *view = a;
      a = ad_newarray(L, S, view->ndim, view->shape);
      ad_gather(view, a->data);
      lua_remove(L, -2);
    }
    a->own = 0; /* from here on others have it */
  }
}

void ad_shapelike(lua_State *L, State *S, int idx) {
  idx = lua_absindex(L, idx);
  const int top = lua_gettop(L);
  Array *a = ad_toarray(L, S, top);
  if (a != NULL) a->own = 0;
  if (!ad_arrayvalued(L, S, idx)) return;
  ad_pushval(L, ad_like(L, S, ad_valat(L, top), ad_at(lua_absindex(L, idx))));
  lua_replace(L, top);
  lua_settop(L, top);
}

int ad_addinplace(lua_State *L, val acc, val v) {
  Array *a = acc.i ? lua_touserdata(L, acc.i) : NULL;
  const Array *b = v.i ? lua_touserdata(L, v.i) : NULL;
  if (a == NULL || b == NULL || !ad_isarray(a) || !ad_isarray(b)) return 0;
  if (!a->own || a->view || !sameshape(a, b->ndim, b->shape)) return 0;
  if (ad_contiguous(b))
    for (size_t i = 0; i < a->size; i++) a->data[i] += b->data[i];
  else
    return 0;
  return 1;
}

/*
** The functions in Lua
*/

void ad_arraylib(lua_State *L, State *S) {
  if (S->arraylib == LUA_NOREF) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "autodiff.array");
    lua_call(L, 1, 1);
    S->arraylib = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->arraylib);
}

/* calls function 'name' with the n values on the top; one result */
void ad_arraycalln(lua_State *L, State *S, const char *name, int n) {
  const int first = lua_gettop(L) - n + 1;
  ad_checkstack(L, 20, NULL);
  ad_arraylib(L, S);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
  lua_insert(L, first);
  lua_call(L, n, 1);
}

/* a whole C function that is the one in Lua */
int ad_arraycall(lua_State *L, State *S, const char *name) {
  ad_arraylib(L, S);
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/*
** Copying
*/

void ad_copyelements(const Array *to, const Array *from) {
  ptrdiff_t stride[AD_MAXDIM], index[AD_MAXDIM] = {0};
  const int last = to->ndim - 1;
  double *row = to->data;
  const double *src = from->data;
  ad_strides(from, to->ndim, to->shape, stride);
  if (to->size == 0) return;
  for (;;) {
    int d;
    for (ptrdiff_t i = 0; i < to->shape[last]; i++)
      row[i * to->stride[last]] = src[i * stride[last]];
    for (d = last - 1; d >= 0; d--) {
      row += to->stride[d];
      src += stride[d];
      if (++index[d] < to->shape[d]) break;
      index[d] = 0;
      row -= to->stride[d] * to->shape[d];
      src -= stride[d] * to->shape[d];
    }
    if (d < 0) return;
  }
}

/*
** Metamethods that compute nothing
*/

static int mm_eq(lua_State *L) {
  State *S = ad_state(L);
  const Array *a, *b;
  int same;
  lua_settop(L, 2);
  for (int i = 1; i <= 2; i++) { /* one of them may be a var of an array */
    ad_pushplain(L, S, i);
    lua_replace(L, i);
  }
  a = ad_toarray(L, S, 1), b = ad_toarray(L, S, 2);
  same = a && b && sameshape(a, b->ndim, b->shape);
  if (same) {
    a = ad_packed(L, S, 1);
    b = ad_packed(L, S, 2);
    for (size_t i = 0; i < a->size && same; i++)
      same = a->data[i] == b->data[i];
  }
  lua_pushboolean(L, same);
  return 1;
}

static int mm_compare(lua_State *L) {
  return ad_error(L, "attempt to compare arrays: lt, le and eq compare element "
                     "by element");
}

void ad_openarray(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {{"__eq", mm_eq},
                                {"__lt", mm_compare},
                                {"__le", mm_compare},
                                {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTARRAY]);
  ad_openindex(L, S);
  ad_openshape(L, S);
  ad_openreduce(L, S);
  ad_openvmap(L, S);
  ad_openproduct(L, S);
  ad_openlinalg(L, S);
}
