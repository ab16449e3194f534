/*
** jacobian.c
** What the Jacobians in autodiff/jacobian.lua are made of: many directions at
** once through a function, or many sweeps over one record of it.
*/
#include "array.h"

#include <string.h>

typedef struct Forward {
  Level *lv;
  const char *fname;
  lua_Integer first, count; /* directions, and those of the leaves seen */
  lua_Integer leaves;
  int k, cols; /* directions; stack index of the first column */
  int shapes;  /* stack index: shapes of the leaves that are arrays, or nil */
} Forward;

/* notes the shape of leaf 'n', at idx, in the table at 'shapes' */
static const Array *noteshape(lua_State *L, State *S, int idx, int shapes,
                              lua_Integer n) {
  const int top = lua_gettop(L);
  const Array *a;
  if (!lua_isuserdata(L, idx) || !ad_hasarray(L, S, ad_at(idx))) return NULL;
  ad_pushplain(L, S, idx);
  a = ad_arrayhere(L, S, -1);
  if (a != NULL) {
    if (lua_isnil(L, shapes)) {
      lua_newtable(L);
      lua_replace(L, shapes);
    }
    ad_pushshape(L, a);
    lua_rawseti(L, shapes, n);
  }
  lua_settop(L, top);
  return a;
}

/* pushes an array of zeros but for a 1 at element i */
static void pushunit(lua_State *L, State *S, const Array *like, lua_Integer i) {
  Array *e = ad_newarray(L, S, like->ndim, like->shape);
  memset(e->data, 0, e->size * sizeof *e->data);
  e->data[i] = 1;
}

/* an array has a direction for each of its elements */
static void chunk_array(lua_State *L, State *S, Forward *f, const Array *a) {
  const int top = lua_gettop(L);
  const lua_Integer before = f->count;
  Arg arg;
  val part[64];
  int some = 0;
  f->count += (lua_Integer)a->size;
  ad_checkstack(L, f->k + 20, NULL);
  ad_resolve(L, S, top, &arg);
  for (int k = 0; k < f->k; k++) {
    const lua_Integer i = f->first + k - before - 1;
    part[k] = ad_num(0);
    if (i < 0 || i >= (lua_Integer)a->size) continue;
    pushunit(L, S, a, i);
    part[k] = ad_at(lua_gettop(L));
    some = 1;
  }
  if (some) {
    ad_deeper(L, f->lv, &arg);
    ad_pushparts(L, S, f->lv->key, AD_DUALN, arg.v, f->k, part);
  } else
    ad_pushval(L, arg.v);
  lua_pushinteger(L, f->leaves);
}

static void chunk_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Forward *f = ud;
  const int top = lua_gettop(L);
  Arg a;
  val part[64];
  if (!numeric) {
    lua_pushvalue(L, top);
    lua_pushnil(L);
    return;
  }
  f->leaves++;
  if (lua_isuserdata(L, top)) {
    const Array *plain = noteshape(L, S, top, f->shapes, f->leaves);
    if (plain != NULL) {
      chunk_array(L, S, f, plain);
      return;
    }
  }
  f->count++;
  ad_resolve(L, S, top, &a);
  if (f->count < f->first || f->count >= f->first + f->k)
    ad_pushval(L, a.v);
  else {
    ad_deeper(L, f->lv, &a);
    for (int k = 0; k < f->k; k++) part[k] = ad_num(k == f->count - f->first);
    ad_pushparts(L, S, f->lv->key, AD_DUALN, a.v, f->k, part);
  }
  lua_pushinteger(L, f->leaves);
}

/* a leaf of the result: its tangents go to the columns, its number stays */
static void columns_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Forward *f = ud;
  const int top = lua_gettop(L);
  const Cell *c;
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  f->count++;
  c = lua_touserdata(L, top);
  noteshape(L, S, top, f->shapes, f->count);
  if (c != NULL && c->stamp == ad_stamp(S, f->lv->key, AD_DUALN)) {
    for (int k = 0; k < f->k; k++) {
      lua_pushnumber(L, c->u.part[k]);
      lua_rawseti(L, f->cols + k, f->count);
    }
  } else {
    for (int k = 0; k < f->k; k++) {
      lua_pushvalue(L, top);
      ad_partof(L, S, f->lv->key, k + 1);
      lua_rawseti(L, f->cols + k, f->count);
    }
  }
  lua_pushinteger(L, f->count);
}

static void checkresult(lua_State *L, State *S, int base, const char *fname) {
  if (lua_gettop(L) == base ||
      (!ad_isleaf(L, S, base + 1) && lua_type(L, base + 1) != LUA_TTABLE))
    ad_error(L,
             "%s: function must return a number, an array or a table of "
             "them, got %s",
             fname, ad_described(L, base + 1));
  lua_settop(L, base + 1);
}

/* stack: ..., level, numbers of the leaves, directions, shapes, results */
static int forward_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  const int slot = (int)ctx;
  Forward f;
  (void)status;
  f.lv = lua_touserdata(L, slot);
  f.k = f.lv->order;
  f.count = 0;
  checkresult(L, S, slot + 3, lua_tostring(L, 1));
  ad_checkstack(L, f.k + 20, NULL);
  lua_pushnil(L);
  f.shapes = slot + 5;
  f.cols = slot + 6;
  for (int k = 0; k < f.k; k++) lua_newtable(L);
  lua_pushvalue(L, slot + 4);
  ad_tree(L, S, 1, 1, columns_leaf, &f, lua_tostring(L, 1));
  lua_createtable(L, f.k, 0);
  for (int k = 0; k < f.k; k++) {
    lua_pushvalue(L, f.cols + k);
    lua_rawseti(L, -2, k + 1);
  }
  lua_pushvalue(L, slot + 1);
  lua_pushvalue(L, slot + 2);
  lua_pushvalue(L, f.shapes);
  lua_pushvalue(L, slot + 3);
  return 6;
}

/*
** core.forward(fname, f, argnum, first, k, ...): f with directions first ..
** first+k-1 of the leaves of an argument. Returns the structure of the
** result with the numbers of its leaves, the columns, the structure of the
** argument with the numbers of its leaves, how many directions these have, and
** of either the shapes of the leaves that are arrays, nil if none is.
*/
static int l_forward(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L), slot = n + 1;
  const int arg = (int)lua_tointeger(L, 3) + 5;
  Forward f;
  ad_checkstack(L, n + 20, "too many arguments");
  f.lv = ad_enter(L, S, AD_FORWARD);
  lua_toclose(L, slot);
  f.fname = lua_tostring(L, 1);
  f.first = lua_tointeger(L, 4);
  f.lv->order = f.k = (int)lua_tointeger(L, 5);
  f.count = f.leaves = 0;
  lua_pushnil(L);
  f.shapes = slot + 1;
  lua_pushvalue(L, arg);
  ad_tree(L, S, 1, 2 | AD_OBJECTS, chunk_leaf, &f, f.fname);
  lua_insert(L, slot + 1); /* numbers of its leaves */
  lua_replace(L, arg);
  lua_pushinteger(L, f.count);
  lua_insert(L, slot + 2);
  lua_pushvalue(L, 2);
  for (int i = 6; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n - 5, LUA_MULTRET, slot, forward_finish);
  return forward_finish(L, LUA_OK, slot);
}

typedef struct Nodes {
  Level *lv;
  lua_Integer n;
  int list, shapes; /* stack indices */
} Nodes;

/* appends the node of a result leaf to a list; its number in that stays */
static void nodes_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Nodes *s = ud;
  uint32_t node;
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  if (ad_nodeof(L, S, s->lv->key, &node))
    lua_pushinteger(L, node);
  else
    lua_pushboolean(L, 0);
  lua_rawseti(L, s->list, ++s->n);
  if (s->shapes) noteshape(L, S, -1, s->shapes, s->n);
  lua_pushinteger(L, s->n);
}

/* the same for an argument: a leaf of its skeleton */
static void skeleton_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Nodes *s = ud;
  uint32_t node;
  const Array *shape;
  if (!numeric || !ad_skeletonnode(L, S, -1, &node, &shape)) {
    lua_pushnil(L);
    return;
  }
  noteshape(L, S, -1, s->shapes, (lua_Integer)node + 1);
  lua_pushinteger(L, node);
}

/* sets node to the unit number 'at' (from 1; of an array at idx), or to 1 */
static void seedunit(lua_State *L, Sweep *w, uint32_t node, int shapes,
                     lua_Integer leaf, lua_Integer at) {
  State *S = w->lv->S;
  if (lua_istable(L, shapes) && lua_rawgeti(L, shapes, leaf) == LUA_TTABLE) {
    Array like;
    like.ndim = ad_checkshape(L, lua_gettop(L), like.shape);
    pushunit(L, S, &like, at - 1);
    ad_sweepadd(L, w, node, ad_at(lua_gettop(L)));
  } else
    ad_sweepadd(L, w, node, ad_num(1));
}

/* row(i, e): cotangents of the inputs for output i, or for element e of it;
   upvalues state, level, list of output nodes, number of inputs, shapes of
   outputs and of inputs */
static int row_call(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer n = lua_tointeger(L, lua_upvalueindex(4));
  Sweep w;
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(2));
  ad_sweepguard(L, lv);
  ad_sweepbegin(L, &w, lv, 3);
  lua_rawgeti(L, lua_upvalueindex(3), lua_tointeger(L, 1));
  if (lua_type(L, -1) == LUA_TNUMBER) {
    const uint32_t node = (uint32_t)lua_tointeger(L, -1);
    seedunit(L, &w, node, lua_upvalueindex(5), lua_tointeger(L, 1),
             lua_tointeger(L, 2));
    ad_sweepreverse(L, &w, node + 1, 0);
  }
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 0; i < n; i++) {
    ad_sweepget(L, &w, (uint32_t)i);
    ad_handout(L, S);
    lua_rawseti(L, -2, i + 1);
  }
  ad_sweepend(&w);
  return 1;
}

/* column(j, e): tangents of the outputs for input j, or for element e of it;
   upvalues as row */
static int column_call(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer m = (lua_Integer)lua_rawlen(L, lua_upvalueindex(3)),
                    j = lua_tointeger(L, 1);
  Sweep w;
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(2));
  ad_sweepguard(L, lv);
  ad_sweepbegin(L, &w, lv, 3);
  seedunit(L, &w, (uint32_t)j - 1, lua_upvalueindex(6), j, lua_tointeger(L, 2));
  ad_sweepforward(L, &w, 0, lv->tape.nnode);
  lua_createtable(L, (int)m, 0);
  for (lua_Integer i = 1; i <= m; i++) {
    if (lua_rawgeti(L, lua_upvalueindex(3), i) == LUA_TNUMBER)
      ad_sweepget(L, &w, (uint32_t)lua_tointeger(L, -1));
    else
      lua_pushnumber(L, 0);
    lua_remove(L, -2);
    ad_handout(L, S);
    lua_rawseti(L, -2, i);
  }
  ad_sweepend(&w);
  return 1;
}

/* value of direction d at the node in list entry i */
static void pushdot(lua_State *L, lua_Integer i, const double *dot, int k,
                    int d) {
  if (lua_rawgeti(L, lua_upvalueindex(3), i) == LUA_TNUMBER) {
    const size_t node = (size_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_pushnumber(L, dot[node * (size_t)k + (size_t)d]);
  } else {
    lua_pop(L, 1);
    lua_pushnumber(L, 0);
  }
}

/* columns(first, k): k lists of tangents of the outputs; upvalues as row */
static int columns_call(lua_State *L) {
  Level *lv = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer m = (lua_Integer)lua_rawlen(L, lua_upvalueindex(3));
  const uint32_t first = (uint32_t)lua_tointeger(L, 1) - 1;
  const int k = (int)lua_tointeger(L, 2);
  const uint32_t nnode = lv->tape.nnode;
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_createtable(L, k, 0);
  if (lv->tape.ngeneral == 0 && lv->tape.dirs == 0 && lv->ncall == 0 &&
      !lv->S->debug) {
    const size_t size = (size_t)nnode * (size_t)k * sizeof(double);
    double *dot = lua_newuserdatauv(L, size + 1, 0);
    memset(dot, 0, size);
    for (int d = 0; d < k; d++)
      dot[((size_t)first + (size_t)d) * (size_t)k + (size_t)d] = 1;
    ad_tapeforward(&lv->tape, 0, nnode, dot, k);
    for (int d = 0; d < k; d++) {
      lua_createtable(L, (int)m, 0);
      for (lua_Integer i = 1; i <= m; i++) {
        pushdot(L, i, dot, k, d);
        lua_rawseti(L, -2, i);
      }
      lua_rawseti(L, 4, d + 1);
    }
  } else {
    for (int d = 0; d < k; d++) {
      Sweep w;
      lua_settop(L, 4);
      ad_sweepbegin(L, &w, lv, 3);
      ad_sweepadd(L, &w, first + (uint32_t)d, ad_num(1));
      ad_sweepforward(L, &w, 0, lv->tape.nnode);
      lua_createtable(L, (int)m, 0);
      for (lua_Integer i = 1; i <= m; i++) {
        if (lua_rawgeti(L, lua_upvalueindex(3), i) == LUA_TNUMBER)
          ad_sweepget(L, &w, (uint32_t)lua_tointeger(L, -1));
        else
          lua_pushnumber(L, 0);
        lua_rawseti(L, -3, i);
        lua_pop(L, 1);
      }
      lua_rawseti(L, 4, d + 1);
      ad_sweepend(&w);
    }
  }
  lua_settop(L, 4);
  return 1;
}

/* stack: ..., level, numbers of the leaves, their shapes, their count,
   results */
static int linear_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  const int slot = (int)ctx;
  Level *lv = lua_touserdata(L, slot);
  const lua_Integer n = lua_tointeger(L, slot + 3);
  Nodes s;
  (void)status;
  checkresult(L, S, slot + 3, lua_tostring(L, 1));
  lua_newtable(L);
  lua_pushnil(L);
  s.lv = lv;
  s.n = 0;
  s.list = slot + 5;
  s.shapes = slot + 6;
  lua_pushvalue(L, slot + 4);
  ad_tree(L, S, 1, 1, nodes_leaf, &s, lua_tostring(L, 1));
  ad_keeptape(L, lv, slot);
  lua_pushinteger(L, s.n);
  lua_pushvalue(L, slot + 1);
  lua_pushinteger(L, n);
  for (int i = 0; i < 3; i++) {
    static const lua_CFunction f[] = {row_call, columns_call, column_call};
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, slot);
    lua_pushvalue(L, s.list);
    lua_pushinteger(L, n);
    lua_pushvalue(L, s.shapes);
    lua_pushvalue(L, slot + 2);
    lua_pushcclosure(L, f[i], 6);
  }
  lua_pushvalue(L, s.shapes);
  lua_pushvalue(L, slot + 2);
  return 9;
}

/*
** core.linear(fname, f, argnum, ...): records f as a function of one
** argument. Returns the structure of the result with the numbers of its
** leaves, how many these are, the same for the argument, the functions row,
** columns (where there are no arrays) and column, and the shapes of the leaves
** that are arrays, of result and argument (nil if none is).
*/
static int l_linear(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L), slot = n + 1;
  const int arg = (int)lua_tointeger(L, 3) + 3;
  const char *fname = lua_tostring(L, 1);
  Level *lv;
  Nodes s;
  ad_checkstack(L, n + 20, "too many arguments");
  lv = ad_enter(L, S, AD_REVERSE);
  lua_toclose(L, slot);
  lua_pushnil(L);
  ad_wrapvar(L, S, lv, arg, fname); /* the inputs are nodes 0, 1, ... */
  s.lv = lv;
  s.n = 0;
  s.shapes = slot + 1;
  ad_tree(L, S, 1, 1, skeleton_leaf, &s, fname);
  lua_insert(L, slot + 1);
  lua_pushinteger(L, lv->tape.nnode);
  lua_pushvalue(L, 2);
  for (int i = 4; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n - 3, LUA_MULTRET, slot, linear_finish);
  return linear_finish(L, LUA_OK, slot);
}

/* entry (row, column) of a Jacobian, from a list of its rows or columns */
typedef struct Entries {
  int data, byrow, x;
  lua_Integer row, base; /* number of the first leaf of x */
} Entries;

static void col_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Entries *e = ud;
  lua_Integer col;
  (void)S;
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  col = lua_tointeger(L, -1) - e->base + 1;
  lua_rawgeti(L, e->data, e->byrow ? e->row : col);
  lua_rawgeti(L, -1, e->byrow ? col : e->row);
  lua_remove(L, -2);
}

static void row_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Entries *e = ud;
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  e->row = lua_tointeger(L, -1);
  lua_pushvalue(L, e->x);
  ad_tree(L, S, 1, 1, col_leaf, e, "jacobian");
}

/*
** core.assemble(y, x, data, byrow, base): the structure of x in each leaf of
** y, both given by the numbers of their leaves
*/
static int l_assemble(lua_State *L) {
  State *S = ad_state(L);
  Entries e;
  lua_settop(L, 5);
  e.x = 2;
  e.data = 3;
  e.byrow = lua_toboolean(L, 4);
  e.base = lua_tointeger(L, 5);
  e.row = 0;
  lua_pushvalue(L, 1);
  ad_tree(L, S, 1, 1, row_leaf, &e, "jacobian");
  return 1;
}

/* core.node(x): the node, and for an array the shape, of a leaf of the inputs
   that trace gives */
static int l_node(lua_State *L) {
  State *S = ad_state(L);
  uint32_t node;
  const Array *shape;
  if (!ad_skeletonnode(L, S, 1, &node, &shape)) return 0;
  lua_pushinteger(L, node);
  if (shape == NULL) return 1;
  ad_pushshape(L, shape);
  return 2;
}

/*
** core.merge(outer, inner, first, list): an array from one (or a number) for
** each element of another: their shapes are 'inner' and 'outer', and the
** result's the one behind the other, 'outer' first or last
*/
static int l_merge(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[2 * AD_MAXDIM], outer[AD_MAXDIM], inner[AD_MAXDIM];
  const int first = lua_toboolean(L, 3);
  int nout, nin;
  size_t sout = 1, sin = 1;
  Array *a;
  lua_settop(L, 4);
  nout = lua_rawlen(L, 1) ? ad_checkshape(L, 1, outer) : 0;
  nin = lua_rawlen(L, 2) ? ad_checkshape(L, 2, inner) : 0;
  if (nout + nin > AD_MAXDIM)
    return ad_error(L, "the derivative has %d dimensions (limit %d)",
                    nout + nin, AD_MAXDIM);
  for (int d = 0; d < nout; d++) {
    shape[first ? d : nin + d] = outer[d];
    sout *= (size_t)outer[d];
  }
  for (int d = 0; d < nin; d++) {
    shape[first ? nout + d : d] = inner[d];
    sin *= (size_t)inner[d];
  }
  a = ad_newarray(L, S, nout + nin, shape);
  if (a->size == 0) return 1;
  for (size_t i = 0; i < sout; i++) {
    double *to = a->data + (first ? i * sin : i);
    const size_t step = first ? 1 : sout;
    const Array *p;
    lua_rawgeti(L, 4, (lua_Integer)i + 1);
    p = ad_toarray(L, S, -1);
    if (p != NULL) {
      p = ad_packed(L, S, lua_gettop(L));
      for (size_t k = 0; k < sin; k++) to[k * step] = p->data[k];
    } else {
      const double x = lua_tonumber(L, -1);
      for (size_t k = 0; k < sin; k++) to[k * step] = x;
    }
    lua_settop(L, 5);
  }
  return 1;
}

/* copies the elements of the number or array at the top; their number */
static size_t put(lua_State *L, State *S, double *to) {
  const Array *a = ad_toarray(L, S, -1);
  if (a == NULL) {
    if (to) *to = lua_tonumber(L, -1);
    return 1;
  }
  if (to) ad_gather(a, to);
  return a->size;
}

/* core.flat(list): the elements of numbers and arrays, one after another */
static int l_flat(lua_State *L) {
  State *S = ad_state(L);
  const lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  ptrdiff_t size = 0;
  double *to;
  lua_settop(L, 1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    size += (ptrdiff_t)put(L, S, NULL);
    lua_pop(L, 1);
  }
  to = ad_newarray(L, S, 1, &size)->data;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    to += put(L, S, to);
    lua_pop(L, 1);
  }
  return 1;
}

/* core.piece(a, first, shape): what flat has put at element 'first' (from 0);
   a number if there is no shape */
static int l_piece(lua_State *L) {
  State *S = ad_state(L);
  const size_t first = (size_t)lua_tointeger(L, 2);
  const Array *a;
  ptrdiff_t shape[AD_MAXDIM];
  Array *p;
  int ndim;
  lua_settop(L, 3);
  ad_checkarray(L, S, 1);
  a = ad_packed(L, S, 1);
  if (lua_isnil(L, 3)) {
    lua_pushnumber(L, a->data[first]);
    return 1;
  }
  ndim = ad_checkshape(L, 3, shape);
  p = ad_newarray(L, S, ndim, shape);
  memcpy(p->data, a->data + first, p->size * sizeof *p->data);
  return 1;
}

/* core.place(n, first, v): zeros but for that piece */
static int l_place(lua_State *L) {
  State *S = ad_state(L);
  const ptrdiff_t n = (ptrdiff_t)lua_tointeger(L, 1);
  const size_t first = (size_t)lua_tointeger(L, 2);
  Array *a;
  lua_settop(L, 3);
  a = ad_newarray(L, S, 1, &n);
  memset(a->data, 0, a->size * sizeof *a->data);
  lua_pushvalue(L, 3);
  put(L, S, a->data + first);
  lua_settop(L, 4);
  return 1;
}

/*
** core.trace(fname, f, ...): runs f with a note for each operation. Returns a
** table: 'inputs', the arguments with nodes for leaves; 'results', the list
** of results with numbers for leaves, and under those numbers in 'nodes' and
** 'values' the leaf's node (false: a constant) and its value; 'count' of
** nodes; 'hidden', a list of those that are no rows; and the functions row,
** tangents, adjoints and users of look.c.
*/
static void trace_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Nodes *s = ud;
  const int top = lua_gettop(L);
  nodes_leaf(L, S, ud, numeric);
  if (!numeric) return;
  ad_pushplain(L, S, top);
  lua_rawseti(L, s->list + 1, s->n);
}

static int trace_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  const int slot = (int)ctx, base = slot + 1, top = lua_gettop(L);
  const char *fname = lua_tostring(L, 1);
  Nodes s;
  (void)status;
  ad_checkstack(L, 30, "too many results");
  s.lv = lua_touserdata(L, slot);
  s.n = 0;
  s.shapes = 0;
  s.list = top + 1;
  lua_newtable(L); /* nodes */
  lua_newtable(L); /* values */
  lua_createtable(L, top - base, 0);
  for (int i = base + 1; i <= top; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1, trace_leaf, &s, fname);
    lua_rawseti(L, s.list + 2, i - base);
  }
  if (s.n == 0)
    return ad_error(L, "%s: function must return numbers, got %s", fname,
                    top == base ? "no value" : ad_described(L, base + 1));
  lua_createtable(L, 0, 9);
  for (int i = 2; i >= 0; i--) {
    static const char *const name[] = {"nodes", "values", "results"};
    lua_pushvalue(L, s.list + i);
    lua_setfield(L, -2, name[i]);
  }
  lua_pushvalue(L, base);
  lua_setfield(L, -2, "inputs");
  ad_takerecord(L, s.lv, slot);
  return 1;
}

static int l_trace(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L), slot = n + 1;
  const char *fname = lua_tostring(L, 1);
  Level *lv;
  ad_checkstack(L, n + 20, "too many arguments");
  lv = ad_enter(L, S, AD_REVERSE);
  lua_toclose(L, slot);
  lv->traced = 1;
  S->varlevel = NULL;
  S->varstamp = AD_NOSTAMP(S);
  lua_createtable(L, n - 2, 0);
  for (int i = 3; i <= n; i++) {
    lua_pushvalue(L, i); /* the caller's stays what it is */
    ad_wrapvar(L, S, lv, lua_gettop(L), fname);
    lua_rawseti(L, slot + 1, i - 2);
    lua_replace(L, i);
  }
  for (int i = 2; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n - 2, LUA_MULTRET, slot, trace_finish);
  return trace_finish(L, LUA_OK, slot);
}

void ad_openjacobian(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"forward", l_forward},   {"linear", l_linear},
                                {"assemble", l_assemble}, {"node", l_node},
                                {"merge", l_merge},       {"flat", l_flat},
                                {"piece", l_piece},       {"place", l_place},
                                {"trace", l_trace},       {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
