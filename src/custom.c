/*
** custom.c
** What the Lua side needs to give a function a rule of its own (see
** autodiff/custom.lua): to take arguments apart by level and to put results
** together. Keys of levels go through Lua as integers.
*/
#include "array.h"

#include <string.h>

static void highest_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Arg *best = ud, a;
  if (!numeric) return;
  ad_resolve(L, S, -1, &a);
  /* what is recorded of a program needs no rule: the function itself is */
  if (a.key && AD_ISREC(a.kind)) {
    if (best->key == 0) best->kind = a.kind;
  } else if (a.key > best->key)
    *best = a;
}

/* highest(...): key and kind of the highest level in the arguments, or nil;
   "record" behind that if there is something recorded */
static int c_highest(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  Arg best;
  best.key = 0;
  best.kind = 0;
  best.lv = NULL;
  ad_checkstack(L, 20, NULL);
  if (S->recorder) ad_recordopaque(S);
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, highest_leaf, &best, "custom");
    lua_settop(L, n);
  }
  if (best.key == 0) {
    lua_pushnil(L);
    if (!AD_ISREC(best.kind)) return 1;
    lua_pushliteral(L, "record");
    return 2;
  }
  lua_pushinteger(L, (lua_Integer)best.key);
  lua_pushstring(L, AD_ISVAR(best.kind)     ? "var"
                    : AD_ISDUAL(best.kind)  ? "dual"
                    : best.kind == AD_BATCH ? "batch"
                                            : "series");
  return 2;
}

typedef struct Split {
  uint64_t key;
  int part, most, kind, spread;
  int list, last; /* stack indices */
  lua_Integer n;
  const char *name;
} Split;

/* is a (resolved) operand of level 'key', or on its tape? */
static int belongs(const State *S, const Arg *a, uint64_t key) {
  const Level *lv;
  if (a->key == 0) return 0;
  if (a->key == key) return 1;
  lv = ad_findlevel(S, key);
  if (lv == NULL || a->lv == NULL) return 0;
  return (lv->alias ? lv->alias : lv) == (a->lv->alias ? a->lv->alias : a->lv);
}

/* leaves exactly one value above 'top' */
static void one(lua_State *L, int top, val v) {
  ad_pushval(L, v);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

static void part_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Split *s = ud;
  const int top = lua_gettop(L);
  Arg a;
  if (numeric && s->part == 0 && lua_type(L, top) == LUA_TNUMBER) {
    lua_pushvalue(L, top); /* an integer stays one */
    return;
  }
  if (!numeric) {
    if (s->part == 0)
      lua_pushvalue(L, top);
    else
      lua_pushnil(L);
    return;
  }
  ad_resolve(L, S, top, &a);
  if (belongs(S, &a, s->key)) {
    if (s->part == 0)
      one(L, top, ad_primalof(L, &a));
    else
      one(L, top, ad_part(L, &a, s->part));
  } else
    one(L, top, s->part == 0 ? a.v : ad_num(0));
  if (s->part > 0 && s->spread && lua_isuserdata(L, top) &&
      lua_type(L, -1) == LUA_TNUMBER)
    ad_shapelike(L, S, top);
}

static int parts(lua_State *L, int spread) {
  State *S = ad_state(L);
  Split s;
  s.spread = spread;
  const int n = lua_gettop(L);
  s.key = (uint64_t)lua_tointeger(L, 1);
  s.part = (int)lua_tointeger(L, 2);
  ad_checkstack(L, n + 20, NULL);
  for (int i = 3; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, part_leaf, &s, "custom");
  }
  return n - 2;
}

/* parts(key, k, ...): the arguments' primals (k = 0) or k-th tangents or
   coefficients at a level; 0 may stand for an array of zeros */
static int c_parts(lua_State *L) { return parts(L, 0); }

/* the same, all in their shapes */
static int c_tangents(lua_State *L) { return parts(L, 1); }

static void count_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Split *s = ud;
  Arg a;
  if (!numeric) return;
  ad_resolve(L, S, -1, &a);
  if (a.key == s->key && !AD_ISVAR(a.kind)) {
    int n = ad_nparts(L, &a);
    if (n > s->most) s->most = n;
  }
}

/* count(key, ...): directions of the duals, or order of the series */
static int c_count(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  Split s;
  s.key = (uint64_t)lua_tointeger(L, 1);
  s.most = 0;
  for (int i = 2; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, count_leaf, &s, "custom");
    lua_settop(L, n);
  }
  lua_pushinteger(L, s.most);
  return 1;
}

/* debug_nans: the value at top + 1, made of that at top, has a NaN or inf */
static void nanpart(lua_State *L, State *S, const Split *s, int top) {
  const char *name = s->name;
  int derivative = 0;
  if (s->last > 5) { /* an operation, with its operands */
    Arg a;
    ad_resolve(L, S, top, &a);
    derivative = !ad_isbad(L, S, a.v);
    name = ad_callname(L, S, name, 6, s->last);
  }
  ad_nanrule(L, S, name, ad_at(top + 1), derivative);
}

/* top: y leaf, list of part leaves */
static void join_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Split *s = ud;
  const int top = lua_gettop(L);
  val *part;
  Arg a;
  if (!numeric) {
    lua_pushvalue(L, top);
    return;
  }
  ad_checkstack(L, 2 * s->most + 20, "too many parts");
  part = lua_newuserdatauv(L, (size_t)s->most * sizeof *part + 1, 0);
  for (int k = 0; k < s->most; k++) {
    if (lua_rawgeti(L, s->list, k + 1) == LUA_TTABLE)
      lua_rawgeti(L, -1, s->n + 1);
    if (!ad_isleaf(L, S, -1))
      ad_error(L, "custom: a rule gave a %s in place of a number",
               luaL_typename(L, -1));
    ad_resolve(L, S, -1, &a);
    part[k] = a.v;
  }
  ad_resolve(L, S, top, &a);
  one(L, top, ad_pushparts(L, S, s->key, s->kind, a.v, s->most, part));
  if (S->debug && s->name != NULL && ad_isbad(L, S, ad_at(top + 1)))
    nanpart(L, S, s, top);
  ((Split *)ud)->n++;
}

/*
** join(key, kind, y, {leaves of part 1, leaves of part 2, ...}[, name, ...]):
** y's leaves with their tangents or coefficients; 'name' is for debug_nans, and
** so are the operands behind it
*/
static int c_join(lua_State *L) {
  State *S = ad_state(L);
  Split s;
  if (lua_gettop(L) < 5) lua_settop(L, 5);
  s.last = lua_gettop(L);
  ad_checkstack(L, 20, NULL);
  s.name = lua_tostring(L, 5);
  s.key = (uint64_t)lua_tointeger(L, 1);
  s.kind = lua_tostring(L, 2)[0] == 'd' ? AD_DUALN : AD_SERN;
  s.list = 4;
  s.most = (int)lua_rawlen(L, 4);
  s.n = 0;
  lua_pushvalue(L, 3);
  ad_tree(L, S, 1, 1 | AD_OBJECTS, join_leaf, &s, "custom");
  return 1;
}

/* is what stands for the leaf below the top of its shape? 0 stands for all */
static void checkleaf(lua_State *L, State *S) {
  const int top = lua_gettop(L);
  Shape want, have;
  if (lua_type(L, top) == LUA_TNUMBER && lua_tonumber(L, top) == 0) return;
  ad_shapeof(L, S, ad_at(top - 1), &want);
  ad_shapeof(L, S, ad_at(top), &have);
  if (want.ndim == have.ndim &&
      memcmp(want.len, have.len, sizeof *want.len * (size_t)want.ndim) == 0)
    return;
  ad_error(L, "custom: a rule gave %s in place of %s", ad_shapename(L, &have),
           ad_shapename(L, &want));
}

/* top: leaf of x, what stands there in 'other' */
static void flatten_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Split *s = ud;
  if (!numeric) return;
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushnumber(L, 0);
  } else if (!ad_isleaf(L, S, -1))
    ad_error(L, "custom: a rule gave a %s in place of %s", luaL_typename(L, -1),
             ad_arrayvalued(L, S, -2) ? "an array" : "a number");
  else if (!lua_rawequal(L, -1, -2) &&
           (lua_isuserdata(L, -1) || lua_isuserdata(L, -2)))
    checkleaf(L, S);
  lua_rawseti(L, s->list, ++s->n);
}

/*
** flatten(x[, other[, fname]]): the numeric leaves of x in order, or what
** stands in their places in another structure; and their number
*/
static int c_flatten(lua_State *L) {
  State *S = ad_state(L);
  const char *fname = luaL_optstring(L, 3, "custom");
  Split s;
  lua_settop(L, 3);
  if (lua_isnil(L, 2)) {
    lua_pushvalue(L, 1);
    lua_replace(L, 2);
  }
  lua_newtable(L);
  s.list = 4;
  s.n = 0;
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  ad_tree(L, S, 2, 0, flatten_leaf, &s, fname);
  lua_settop(L, 4);
  lua_pushinteger(L, s.n);
  return 2;
}

static void unflatten_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Split *s = ud;
  const int top = lua_gettop(L);
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  lua_rawgeti(L, s->list, ++s->n);
  if (lua_isuserdata(L, top) && lua_type(L, -1) == LUA_TNUMBER)
    ad_shapelike(L, S, top); /* 0 for an array is one of zeros */
}

/* unflatten(x, list): the structure of x with the leaves of a list */
static int c_unflatten(lua_State *L) {
  State *S = ad_state(L);
  Split s;
  lua_settop(L, 2);
  s.list = 2;
  s.n = 0;
  lua_pushvalue(L, 1);
  ad_tree(L, S, 1, 1, unflatten_leaf, &s, "custom");
  return 1;
}

static void member_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Split *s = ud;
  const int top = lua_gettop(L);
  Arg a;
  if (!numeric) return;
  ad_resolve(L, S, top, &a);
  lua_pushboolean(L, belongs(S, &a, s->key));
  lua_rawseti(L, s->list, ++s->n);
  lua_settop(L, top);
}

/* members(key, x): for each numeric leaf of x, is it of the level? */
static int c_members(lua_State *L) {
  State *S = ad_state(L);
  Split s;
  lua_settop(L, 2);
  lua_newtable(L);
  s.key = (uint64_t)lua_tointeger(L, 1);
  s.list = 3;
  s.n = 0;
  lua_pushvalue(L, 2);
  ad_tree(L, S, 1, 0, member_leaf, &s, "custom");
  lua_settop(L, 3);
  return 1;
}

typedef struct Inputs {
  uint64_t key;
  int list;
  lua_Integer n;
  uint32_t node; /* next output */
  Level *lv;
} Inputs;

static void input_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Inputs *in = ud;
  const int top = lua_gettop(L);
  Arg a;
  if (!numeric) return;
  ad_resolve(L, S, top, &a);
  if (belongs(S, &a, in->key)) {
    lua_pushinteger(L, a.c->u.var.node);
    lua_rawseti(L, in->list, ++in->n);
  }
  lua_settop(L, top);
}

/*
** Pushes the name of the handler at idx: of an operation with its operands,
** which are at first .. last.
*/
static const char *handlername(lua_State *L, State *S, int idx, int first,
                               int last) {
  const char *name;
  lua_getfield(L, idx, "name");
  name = lua_tostring(L, -1);
  if (lua_getfield(L, idx, "operation") != LUA_TNIL)
    name = ad_callname(L, S, name, first, last);
  return name;
}

static void output_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Inputs *in = ud;
  const int top = lua_gettop(L);
  Arg a;
  Level *t = in->lv->alias ? in->lv->alias : in->lv;
  if (!numeric) {
    lua_pushvalue(L, top);
    return;
  }
  ad_resolve(L, S, top, &a);
  ad_pushvar(L, S, in->lv, a.v, in->node, 0);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
  if (ad_looked(t)) {
    const val v = ad_at(top + 1);
    ad_notevalue(L, t, in->node, v);
    if (S->debug && ad_isbad(L, S, v))
      ad_nanrule(L, S, handlername(L, S, 2, 5, in->list - 1), v, 0);
    lua_settop(L, top + 1);
  }
  if (t->handles != LUA_NOREF) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->handles);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)in->node + 1);
    lua_pop(L, 1);
  }
  in->node++;
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

/*
** call(key, handler, nout, y, ...): records a call with the leaves of y as
** outputs and those of the arguments as inputs; y with vars for leaves.
*/
static int c_call(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  const uint32_t nout = (uint32_t)lua_tointeger(L, 3);
  Inputs in;
  Level *span, *t;
  uint32_t *input;
  in.key = (uint64_t)lua_tointeger(L, 1);
  in.n = 0;
  lua_newtable(L);
  in.list = n + 1;
  in.lv = ad_findlevel(S, in.key);
  if (in.lv == NULL) { /* closed meanwhile: a constant */
    lua_pushvalue(L, 4);
    return 1;
  }
  t = in.lv->alias ? in.lv->alias : in.lv;
  if (t->kind == AD_GRAPH) ad_compact(L, t);
  for (int i = 5; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, input_leaf, &in, "custom");
    lua_settop(L, n + 1);
  }
  input = lua_newuserdatauv(L, (size_t)in.n * sizeof *input + 1, 0);
  for (lua_Integer i = 0; i < in.n; i++) {
    lua_rawgeti(L, in.list, i + 1);
    input[i] = (uint32_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  if (in.lv == t && (span = ad_spanhere(S, t)) != NULL) in.lv = span;
  in.node = ad_addcall(L, t, (int)in.n, input, nout, 2) + 1;
  if (S->debug && ad_looked(t)) {
    ad_notecall(L, t, in.node - 1, handlername(L, S, 2, 5, n));
    lua_settop(L, n + 2);
  }
  lua_pushvalue(L, 4);
  ad_tree(L, S, 1, 1 | AD_OBJECTS, output_leaf, &in, "custom");
  return 1;
}

/* chain(acc, t, p): acc + t p, where an exact 0 of t wins */
static int c_chain(lua_State *L) {
  State *S = ad_state(L);
  val acc = ad_checkoperand(L, S, 1), t = ad_checkoperand(L, S, 2),
      p = ad_checkoperand(L, S, 3);
  ad_pushval(L, ad_chain(L, S, acc, t, p));
  return 1;
}

static void array_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const int list = *(int *)ud;
  if (!numeric || !ad_hasarray(L, S, ad_at(lua_gettop(L)))) return;
  if (lua_isnil(L, list)) {
    lua_newtable(L);
    lua_copy(L, -1, list);
    lua_pop(L, 1);
  }
  lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
}

/* arraysin(x, y): the leaves of both that are arrays, in a list; nil if none
   is */
static int c_arraysin(lua_State *L) {
  State *S = ad_state(L);
  int list = 3;
  lua_settop(L, 2);
  lua_pushnil(L);
  for (int i = 1; i <= 2; i++) {
    if (lua_isnil(L, i)) continue;
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, array_leaf, &list, "custom");
    lua_settop(L, 3);
  }
  return 1;
}

/* order(): total order of the levels that are live */
static int c_order(lua_State *L) {
  const State *S = ad_state(L);
  lua_Integer n = 1; /* duals made by hand have no level in the list */
  for (int i = 0; i < S->nlive; i++)
    if (S->live[i]->kind != AD_SPAN)
      n += S->live[i]->kind == AD_SERIES ? S->live[i]->order : 1;
  lua_pushinteger(L, n);
  return 1;
}

void ad_opencustom(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"highest", c_highest},
                                {"parts", c_parts},
                                {"tangents", c_tangents},
                                {"count", c_count},
                                {"join", c_join},
                                {"flatten", c_flatten},
                                {"unflatten", c_unflatten},
                                {"members", c_members},
                                {"call", c_call},
                                {"chain", c_chain},
                                {"arraysin", c_arraysin},
                                {"order", c_order},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
