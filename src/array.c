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

Array *ad_arrayhere(lua_State *L, const State *S, int idx) {
  const void *mt;
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
    return NULL;
  mt = lua_topointer(L, -1);
  lua_pop(L, 1); /* metatable */
  return mt == S->mtp[AD_MTARRAY] ? lua_touserdata(L, idx) : NULL;
}

Array *ad_toarray(lua_State *L, State *S, int idx) {
  Array *a = ad_arrayhere(L, S, idx);
  if (S->recorder != NULL && a != NULL) ad_recordread(L, S, idx);
  return a;
}

Array *ad_checkarray(lua_State *L, State *S, int arg) {
  Array *a = ad_toarray(L, S, arg);
  if (a == NULL && S->recorder != NULL) {
    const Cell *c = ad_tocell(L, S, arg);
    if (c != NULL && ad_kindof(S, c) == AD_RECA && ad_recordelements(L, S, arg))
      a = ad_arrayhere(L, S, arg);
  }
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

/*
** glibc gives memory that is freed at the end of its heap back to the system,
** and has it cleared page by page when it asks again, as soon as that is more
** than twice the largest block that it has seen mapped and freed (up to 32 MB).
** A loop that makes an array and drops one would spend most of its time so; to
** have seen one such block is enough. Elsewhere this does nothing.
*/
#define MAPPED ((size_t)32 << 20)
#define LARGE ((size_t)1 << 18)

static void keepfreed(lua_State *L, State *S) {
  void *ud, *p;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  const size_t size = MAPPED - 8192; /* with malloc's own head and a page */
  S->keeps = 1;
  p = alloc(ud, NULL, LUA_TUSERDATA, size);
  if (p != NULL) alloc(ud, p, size, 0);
}

Array *ad_newarray(lua_State *L, State *S, int ndim, const ptrdiff_t *shape) {
  const size_t size = sizeof_shape(L, ndim, shape);
  Array *a;
  if (size >= LARGE / sizeof(double) && !S->keeps) keepfreed(L, S);
  a = newheader(L, S, HEAD + size * sizeof(double) + AD_ALIGN, 0);
  ptrdiff_t stride = 1;
  S->arrays = 1;
  a->born = S->counter;
  a->size = size;
  a->ndim = ndim;
  for (int d = ndim; d-- > 0;) {
    a->shape[d] = shape[d];
    a->stride[d] = stride;
    /* of no elements the others' product may be anything */
    stride = (ptrdiff_t)((size_t)stride * (size_t)shape[d]);
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
  v->born = S->counter;
  if (a->view)
    lua_getiuservalue(L, idx, 1);
  else
    lua_pushvalue(L, idx);
  lua_setiuservalue(L, -2, 1);
  return v;
}

Array *ad_ownview(lua_State *L, State *S, int idx) {
  if (S->recorder != NULL) ad_recordview(L, S, idx);
  return ad_newview(L, S, idx);
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
  if (n < 0)
    luaL_argerror(L, arg, lua_pushfstring(L, "shape: bad length %I", n));
  if ((lua_Unsigned)n > PTRDIFF_MAX) ad_error(L, "array is too large");
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
  for (; batches > 0 && ad_arrayhere(L, S, -1); batches--) firstpart(L, S);
}

/* through the values of general kinds, down to what has no such part */
int ad_deeparray(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  int is = 0;
  lua_pushvalue(L, idx);
  for (;;) {
    const Cell *c = lua_touserdata(L, -1);
    if (c == NULL || (is = ad_isarray(c)) != 0) break;
    if (ad_kindof(S, c) == AD_BATCH) { /* whose elements it is about */
      is = ad_arrayvalued(L, S, -1);
      break;
    }
    if (!AD_GENERALKIND(ad_kindof(S, c))) break;
    lua_getiuservalue(L, -1, 1);
    lua_replace(L, top + 1);
  }
  lua_settop(L, top);
  return is;
}

int ad_arrayvalued(lua_State *L, State *S, int idx) {
  int is;
  if (!S->arrays || lua_type(L, idx) != LUA_TUSERDATA) return 0;
  if (ad_arrayhere(L, S, idx)) return 1;
  ad_pushplain(L, S, idx);
  is = ad_arrayhere(L, S, -1) != NULL;
  lua_pop(L, 1);
  return is;
}

int ad_deepelement(lua_State *L, State *S, int idx) {
  return ad_arrayvalued(L, S, idx) || ad_isbatch(L, S, idx);
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

/* the elements of a plain value are looked at */
static void readval(lua_State *L, State *S, val v) {
  if (S->recorder != NULL && v.i && ad_arrayhere(L, S, v.i))
    ad_recordread(L, S, v.i);
}

val ad_arrayapply(lua_State *L, State *S, int op, int n, const val *given) {
  for (int i = 0; i < n; i++) readval(L, S, given[i]);
  return ad_arraycompute(L, S, op, n, given);
}

val ad_arraycompute(lua_State *L, State *S, int op, int n, const val *given) {
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

int ad_sameshape(const Array *a, const Shape *shape) {
  return sameshape(a, shape->ndim, shape->len);
}

void ad_shapeof(lua_State *L, State *S, val v, Shape *shape) {
  const Array *a;
  shape->ndim = 0;
  if (!ad_hasarray(L, S, v)) return;
  ad_pushplain(L, S, v.i);
  a = ad_arrayhere(L, S, -1);
  if (a != NULL) {
    shape->ndim = a->ndim;
    memcpy(shape->len, a->shape, sizeof a->shape);
  }
  lua_pop(L, 1);
}

const char *ad_shapename(lua_State *L, const Shape *shape) {
  if (shape->ndim == 0) return lua_pushliteral(L, "a number");
  return lua_pushfstring(L, "an array of shape %s",
                         ad_shapetext(L, shape->ndim, shape->len));
}

val ad_toshape(lua_State *L, State *S, val v, const Shape *shape) {
  Shape have;
  ad_shapeof(L, S, v, &have);
  if (have.ndim == shape->ndim &&
      memcmp(have.len, shape->len, sizeof have.len[0] * (size_t)have.ndim) == 0)
    return v;
  ad_pushval(L, v);
  if (shape->ndim == 0)
    lua_pushnil(L);
  else
    lua_createtable(L, shape->ndim, 0);
  for (int d = 0; d < shape->ndim; d++) {
    lua_pushinteger(L, (lua_Integer)shape->len[d]);
    lua_rawseti(L, -2, d + 1);
  }
  ad_arraycalln(L, S, "toshape", 2);
  return ad_takeval(L);
}

val ad_like(lua_State *L, State *S, val v, val like) {
  Shape shape;
  ad_shapeof(L, S, like, &shape);
  return ad_toshape(L, S, v, &shape);
}

/*
** For each partial derivative of the table, what its expression looks at: the
** expression itself, with sets for values.
*/
enum { A = 1, B = 2, C = 4, Y = 8 };
#define K(c) 0
#define ADD(x, y) ((x) | (y))
#define SUB(x, y) ((x) | (y))
#define MUL(x, y) ((x) | (y))
#define DIV(x, y) ((x) | (y))
#define NEG(x) (x)
#define F1(name, x) (x)
#define F2(name, x, y) ((x) | (y))
#define P2(name, x, y) ((x) | (y))
#define P3(name, x, y, z) ((x) | (y) | (z))
#define LT(x, y) ((x) | (y))
#define EQ(x, y) ((x) | (y))
#define OR(c, d) ((c) | (d))
#define AND(c, d) ((c) | (d))
#define IF(c, x, y) ((c) | (x) | (y))
#define ZERO(x) (x)
static const uint8_t looksat[][AD_MAXARITY] = {
#define OP1(name, v, d0, l0, h0, kind) {d0, 0, 0},
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind) {d0, d1, 0},
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind) {d0, d1, d2},
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
};
#include "unnote.h"

/* is the partial derivative 1, whatever the operands are? */
static int isone(int op, int i) {
  const double x[AD_MAXARITY] = {0, 0, 0};
  return looksat[op][i] == 0 && ad_partial(op, i, x, 0) == 1;
}

/*
** acc + g * (partial derivative of 'op' by operand i), all of them plain, in
** the given shape: that of the operand, or forwards of y. The sum goes where
** acc is if nobody else has that. What of x and y the partial derivative does
** not look at may be anything.
*/
val ad_arraypull(lua_State *L, State *S, int op, int i, int n, const val *given,
                 val y, val g, val acc, const Shape *like, int last) {
  val x[AD_MAXARITY + 2];
  ptrdiff_t shape[AD_MAXDIM], stride[AD_MAXARITY + 2][AD_MAXDIM];
  ad_Strided in[AD_MAXARITY + 2];
  double number[AD_MAXARITY + 2];
  Array *into = acc.i ? lua_touserdata(L, acc.i) : NULL, *out;
  val r;
  int ndim;
  if (ad_isnum(g, 0)) return acc;
  numbers(L, n, given, x);
  x[n] = y;
  x[n + 1] = g;
  for (int k = 0; k < n + 2; k++) readval(L, S, x[k]);
  readval(L, S, acc);
  align(L, S, ad_opinfo[op].name, n + 2, x, &ndim, shape, stride, in, number);
  if (ndim == 0) { /* numbers, which stand for all elements */
    ndim = 1;
    shape[0] = 1;
    for (int k = 0; k < n + 2; k++) stride[k][0] = 0;
  }
  if (into != NULL && into->own && !into->view &&
      sameshape(into, ndim, shape) && ad_sameshape(into, like)) {
    ad_elementpull(op, i, ndim, shape, into->data, n, in, in[n], in[n + 1], 1);
    return acc;
  }
  if (last && g.i && ad_isnum(acc, 0)) { /* g's memory will do */
    out = lua_touserdata(L, g.i);
    if (out->own && !out->view && sameshape(out, ndim, shape) &&
        ad_sameshape(out, like)) {
      if (!isone(op, i))
        ad_elementpull(op, i, ndim, shape, out->data, n, in, in[n], in[n + 1],
                       0);
      return g;
    }
  }
  out = ad_newarray(L, S, ndim, shape);
  ad_elementpull(op, i, ndim, shape, out->data, n, in, in[n], in[n + 1], 0);
  r = ad_toshape(L, S, ad_at(lua_gettop(L)), like);
  if (!ad_isnum(acc, 0)) r = ad_op2(L, S, OP_add, acc, r);
  if (r.i) ((Array *)lua_touserdata(L, r.i))->own = 1;
  return r;
}

/*
** What tapes hold
*/

val ad_save(lua_State *L, State *S, int op, int n, const val *x, val y,
            int active) {
  int looks = 0, kept = 0, nuv = 0, dims = 0, top;
  Shape shape[AD_MAXARITY + 1];
  Saved *s;
  for (int i = 0; i < n; i++)
    if (active >> i & 1) looks |= looksat[op][i];
  for (int i = 0; i <= n; i++) {
    if (looks & (i < n ? A << i : Y)) {
      kept |= 1 << i;
      nuv++;
    }
    ad_shapeof(L, S, i < n ? x[i] : y, &shape[i]);
    dims += shape[i].ndim;
  }
  s = lua_newuserdatauv(
      L, offsetof(Saved, len) + (size_t)(dims + 1) * sizeof s->len[0], nuv);
  top = lua_gettop(L);
  memset(s, 0, sizeof *s);
  s->op = (uint8_t)op;
  s->n = (uint8_t)n;
  s->active = (uint8_t)active;
  s->kept = (uint8_t)kept;
  dims = nuv = 0;
  for (int i = 0; i <= n; i++) {
    s->ndim[i] = (uint8_t)shape[i].ndim;
    for (int d = 0; d < shape[i].ndim; d++) s->len[dims++] = shape[i].len[d];
    if (kept >> i & 1) {
      ad_pushval(L, i < n ? x[i] : y);
      lua_setiuservalue(L, top, ++nuv);
    }
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTSAVED]);
  lua_setmetatable(L, -2);
  return ad_at(top);
}

void ad_unsave(lua_State *L, const Saved *s, int idx, val *x) {
  int uv = 0;
  for (int i = 0; i <= s->n; i++) {
    x[i] = ad_num(0);
    if (!(s->kept >> i & 1)) continue;
    lua_getiuservalue(L, idx, ++uv);
    x[i] = ad_takeval(L);
  }
}

void ad_savedshape(const Saved *s, int i, Shape *shape) {
  const ptrdiff_t *len = s->len;
  for (int k = 0; k < i; k++) len += s->ndim[k];
  shape->ndim = s->ndim[i];
  memcpy(shape->len, len, sizeof *len * (size_t)shape->ndim);
}

int ad_savedcount(const Saved *s) {
  int n = 0;
  for (int i = 0; i <= s->n; i++) n += s->kept >> i & 1;
  return n;
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
  if (ad_arrayhere(L, S, -1)) a = ad_owner(L, -1);
  lua_pop(L, 1);
  return a;
}

size_t ad_marksaved(lua_State *L, State *S, int idx, int holder) {
  Array *owner = ownerbehind(L, S, idx);
  if (owner == NULL) return 0;
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
  return owner->size * sizeof(double);
}

/* the list may be weak, and then has a field n */
static lua_Integer listsize(lua_State *L, int idx) {
  lua_Integer n;
  if (lua_getfield(L, idx, "n") == LUA_TNUMBER)
    n = lua_tointeger(L, -1);
  else
    n = (lua_Integer)lua_rawlen(L, idx);
  lua_pop(L, 1);
  return n;
}

size_t ad_marklist(lua_State *L, State *S, int holder) {
  const int list = lua_gettop(L);
  size_t bytes = 0;
  holder = lua_absindex(L, holder);
  if (lua_type(L, list) == LUA_TTABLE)
    for (lua_Integer i = listsize(L, list); i >= 1; i--) {
      if (lua_rawgeti(L, list, i) == LUA_TUSERDATA)
        bytes += ad_marksaved(L, S, -1, holder);
      lua_pop(L, 1);
    }
  lua_settop(L, list - 1);
  return bytes;
}

void ad_addowner(lua_State *L, State *S, int idx, int list) {
  const int top = lua_gettop(L);
  const Array *a;
  lua_Integer n;
  ad_pushplain(L, S, idx);
  a = ad_arrayhere(L, S, -1);
  if (a != NULL) {
    lua_getfield(L, list, "n");
    n = lua_tointeger(L, -1) + 1;
    lua_pushinteger(L, n);
    lua_setfield(L, list, "n");
    if (a->view)
      lua_getiuservalue(L, top + 1, 1);
    else
      lua_pushvalue(L, top + 1);
    lua_rawseti(L, list, n);
  }
  lua_settop(L, top);
}

void ad_addsaved(lua_State *L, State *S, int idx, int list) {
  const Saved *s = ad_tosaved(L, S, idx);
  for (int i = s ? ad_savedcount(s) : 0; i >= 1; i--) {
    lua_getiuservalue(L, idx, i);
    if (lua_isuserdata(L, -1)) ad_addowner(L, S, lua_gettop(L), list);
    lua_pop(L, 1);
  }
}

void ad_addlist(lua_State *L, State *S, int idx, int list) {
  if (lua_type(L, idx) != LUA_TTABLE) return;
  for (lua_Integer i = listsize(L, idx); i >= 1; i--) {
    if (lua_rawgeti(L, idx, i) == LUA_TUSERDATA)
      ad_addowner(L, S, lua_gettop(L), list);
    lua_pop(L, 1);
  }
}

size_t ad_savedbytes(lua_State *L, State *S, int idx) {
  const Saved *s = ad_tosaved(L, S, idx);
  size_t bytes = 0;
  for (int i = s ? ad_savedcount(s) : 0; i >= 1; i--) {
    const Array *owner;
    lua_getiuservalue(L, idx, i);
    owner = ownerbehind(L, S, -1);
    if (owner != NULL) bytes += owner->size * sizeof(double);
    lua_pop(L, 1);
  }
  return bytes;
}

void ad_rehold(lua_State *L, State *S, int ref, int idx) {
  if (S->savers == LUA_NOREF) return;
  idx = lua_absindex(L, idx);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->savers);
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  if (lua_rawget(L, -2) != LUA_TNIL) {
    lua_pushvalue(L, idx);
    lua_insert(L, -2);
    lua_rawset(L, -3);
  } else
    lua_pop(L, 1);
  lua_pop(L, 1);
  ad_unhold(L, S, ref);
}

void ad_unhold(lua_State *L, State *S, int ref) {
  if (ref == LUA_NOREF || S->savers == LUA_NOREF) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->savers);
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, ref) == LUA_TTABLE) {
    lua_pushnil(L);
    lua_rawset(L, -3);
  } else
    lua_pop(L, 1);
  lua_pop(L, 1);
}

/* does the object at the top, of some tape, hold the array's elements? */
static int holds(lua_State *L, State *S, const Array *owner) {
  const int top = lua_gettop(L);
  const Saved *s = ad_tosaved(L, S, -1);
  int found = 0;
  if (s != NULL)
    for (int i = ad_savedcount(s); i >= 1 && !found; i--) {
      lua_getiuservalue(L, top, i);
      found = ownerbehind(L, S, -1) == owner;
      lua_settop(L, top);
    }
  else if (lua_type(L, -1) == LUA_TTABLE && /* handler of a call */
           lua_getfield(L, -1, "saved") == LUA_TTABLE)
    for (lua_Integer i = listsize(L, top + 1); i >= 1 && !found; i--) {
      if (lua_rawgeti(L, top + 1, i) == LUA_TUSERDATA)
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
  if (!owner->saved) {
    owner->written = ++S->writes;
    return;
  }
  ad_checkstack(L, 20, NULL);
  if (issaved(L, S, owner)) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    for (int i = 0; i < S->nlive; i++)
      if (S->live[i]->kind == AD_GRAPH) ad_trimgraph(L, S->live[i], 0, 1);
    if (issaved(L, S, owner))
      ad_error(L, "cannot write into an array that a tape has saved for its "
                  "backward pass: write into a copy (a:copy())");
  }
  owner->saved = 0;
  owner->written = ++S->writes;
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
    a = ad_arrayhere(L, S, -1);
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
  *shape = ad_arrayhere(L, S, idx);
  if (*shape == NULL) return 0;
  *node = (uint32_t)(*shape)->stride[0];
  return (*shape)->view;
}

void ad_checkfits(lua_State *L, State *S, const Array *shape, int idx,
                  const char *what) {
  const int top = lua_gettop(L);
  const Array *a = NULL;
  if (ad_isleaf(L, S, idx)) {
    ad_pushplain(L, S, idx);
    a = ad_arrayhere(L, S, -1);
  } else if (shape == NULL)
    ad_error(L, "%s: number expected, got %s", what, luaL_typename(L, idx));
  if (shape == NULL && a != NULL)
    ad_error(L, "%s: number expected, got an array of shape %s", what,
             ad_shapetext(L, a->ndim, a->shape));
  if (shape != NULL && (a == NULL || !sameshape(a, shape->ndim, shape->shape)))
    ad_error(L, "%s: array of shape %s expected, got %s", what,
             ad_shapetext(L, shape->ndim, shape->shape),
             a                        ? ad_shapetext(L, a->ndim, a->shape)
             : lua_isuserdata(L, idx) ? "number"
                                      : luaL_typename(L, idx));
  lua_settop(L, top);
}

void ad_handout(lua_State *L, State *S) {
  Array *a = ad_arrayhere(L, S, -1);
  if (a == NULL) return;
  if (a->view || a->given) {
    const Array *from = a;
    readval(L, S, ad_at(lua_gettop(L)));
    a = ad_newarray(L, S, from->ndim, from->shape);
    ad_gather(from, a->data);
    lua_remove(L, -2);
  }
  a->own = 0;
  a->given = 1;
}

/* the number at the top becomes an array, if that is what 'shape' says */
static void spread(lua_State *L, State *S, const Array *shape) {
  const double x = lua_tonumber(L, -1);
  Array *a;
  if (shape == NULL || lua_type(L, -1) != LUA_TNUMBER) return;
  a = ad_newarray(L, S, shape->ndim, shape->shape);
  for (size_t i = 0; i < a->size; i++) a->data[i] = x;
  lua_remove(L, -2);
}

void ad_sweepresult(lua_State *L, Sweep *w, int idx) {
  State *S = w->lv->S;
  const Array *shape;
  uint32_t node = 0;
  if (ad_skeletonnode(L, S, idx, &node, &shape))
    ad_sweepget(L, w, node);
  else
    lua_pushnumber(L, 0);
  spread(L, S, shape);
  ad_handout(L, S);
}

void ad_shapelike(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  if (S->arrays && lua_isuserdata(L, idx)) {
    val v;
    ad_pushplain(L, S, idx);
    if (ad_arrayhere(L, S, -1)) {
      lua_pushvalue(L, top);
      spread(L, S, lua_touserdata(L, top + 1));
      v = ad_like(L, S, ad_valat(L, -1), ad_at(top + 1));
      ad_pushval(L, v);
      lua_replace(L, top);
    }
    lua_settop(L, top);
  }
  ad_handout(L, S);
}

int ad_addinplace(lua_State *L, State *S, val acc, val v) {
  Array *a = acc.i ? lua_touserdata(L, acc.i) : NULL;
  const Array *b = v.i ? lua_touserdata(L, v.i) : NULL;
  if (a == NULL || b == NULL || !ad_isarray(a) || !ad_isarray(b)) return 0;
  if (!a->own || a->view || !sameshape(a, b->ndim, b->shape)) return 0;
  if (!ad_contiguous(b)) return 0;
  readval(L, S, v);
  for (size_t i = 0; i < a->size; i++) a->data[i] += b->data[i];
  return 1;
}

/*
** The functions in Lua
*/

/*
** Until it is loaded, what is in the registry is the function that loads it:
** not every host has a global 'require'.
*/
void ad_arraylib(lua_State *L, State *S) {
  if (S->arraylib == LUA_NOREF)
    luaL_error(L, "the module autodiff.array cannot be loaded");
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->arraylib);
  if (lua_type(L, -1) == LUA_TFUNCTION) {
    lua_call(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, S->arraylib);
  }
}

/* loader(f): f gives the functions in Lua */
static int l_loader(lua_State *L) {
  State *S = ad_state(L);
  lua_settop(L, 1);
  if (S->arraylib == LUA_NOREF) S->arraylib = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
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
  if (S->recorder != NULL) /* or be recorded */
    for (int i = 1; i <= 2; i++) ad_recordelements(L, S, i);
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

/* what is to be read is in Lua, and loads when somebody wants to see it */
static int mm_tostring(lua_State *L) {
  State *S = ad_state(L);
  ad_checkarray(L, S, 1);
  lua_settop(L, 1);
  ad_arraycalln(L, S, "tostring", 1);
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
                                {"__tostring", mm_tostring},
                                {NULL, NULL}};
  static const luaL_Reg fn[] = {{"loader", l_loader}, {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTARRAY]);
  ad_setfuncs(L, fn, LUA_NOREF);
  ad_openindex(L, S);
  ad_openshape(L, S);
  ad_openreduce(L, S);
  ad_openvmap(L, S);
  ad_opencalls(L, S);
  ad_openproduct(L, S);
  ad_openlinalg(L, S);
}
