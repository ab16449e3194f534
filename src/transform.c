/*
** transform.c
** The transforms that run a function at a level of their own: grad,
** value_and_grad, vjp, linearize, jvp, taylor, and the two that the
** Jacobians in Lua are made of.
**
** None catches an error of the function: its level sits in a slot that Lua
** closes when the stack unwinds, so that a handler further out sees the
** function's own traceback. The function may yield: what comes after it is
** a continuation, and finds all it needs on the stack.
*/
#include "array.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>

#define MAXDEPTH 180

int ad_iscallable(lua_State *L, int idx) {
  if (lua_type(L, idx) == LUA_TFUNCTION) return 1;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL) return 0;
  lua_pop(L, 1);
  return 1;
}

void ad_checkcallable(lua_State *L, int arg) {
  if (!ad_iscallable(L, arg)) luaL_typeerror(L, arg, "function");
}

/* iscallable(v), also of objects whose metatable Lua does not show */
static int l_iscallable(lua_State *L) {
  lua_pushboolean(L, ad_iscallable(L, 1));
  return 1;
}

/* is the function of this level one of the library's own in Lua? */
static int isours(const lua_Debug *ar) {
  static const char *const file[] = {
      "sparse.lua",       "leaves.lua",       "parts.lua",
      "optim/first.lua",  "optim/lbfgs.lua",  "optim/least.lua",
      "optim/newton.lua", "optim/run.lua",    "optim/search.lua",
      "optim/space.lua",  "optim/vector.lua", "arrayargs.lua",
      "array.lua",        "broadcast.lua",    "check.lua",
      "custom.lua",       "dense.lua",        "explain.lua",
      "graph.lua",        "implicit.lua",     "jacobian.lua",
      "joint.lua",        "linalg.lua",       "math.lua",
      "npy.lua",          "optim/nlopt.lua",  "optim.lua",
      "prim.lua",         "product.lua",      "reduce.lua",
      "shapes.lua",       "trace.lua",        "vmap.lua",
      "calls.lua",        "rows.lua"};
  for (size_t i = 0; i < sizeof file / sizeof file[0]; i++) {
    const char *at = strstr(ar->source, "autodiff/");
    for (; at != NULL; at = strstr(at + 1, "autodiff/"))
      if (strcmp(at + strlen("autodiff/"), file[i]) == 0) return 1;
  }
  return 0;
}

/* the innermost function of the user's own in Lua */
int ad_userplace(lua_State *L, lua_Debug *ar) {
  for (int level = 0; lua_getstack(L, level, ar); level++)
    if (lua_getinfo(L, "Sl", ar) && *ar->what != 'C' && !isours(ar)) return 1;
  return 0;
}

/*
** The level of the function that has called into the library: what runs now
** may have been called by the library's own files, and these by a function of
** the core that is theirs in part.
*/
static int caller(lua_State *L) {
  const void *S = lua_touserdata(L, lua_upvalueindex(1));
  lua_Debug ar;
  int level = 1;
  while (lua_getstack(L, level, &ar) && lua_getinfo(L, "Sf", &ar)) {
    int ours = isours(&ar);
    if (lua_iscfunction(L, -1) && lua_getupvalue(L, -1, 1)) {
      ours = S != NULL && lua_touserdata(L, -1) == S;
      lua_pop(L, 1);
    }
    lua_pop(L, 1); /* function */
    if (!ours) break;
    level++;
  }
  return level;
}

/*
** luaL_error with the position of the user's code: what was called is not
** always what the user has called.
*/
int ad_error(lua_State *L, const char *fmt, ...) {
  va_list args;
  luaL_where(L, caller(L));
  va_start(args, fmt);
  lua_pushvfstring(L, fmt, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

/*
** badarg(n, name, message): luaL_argerror for functions in Lua, about the
** call by which the user has come into the library
*/
static int l_badarg(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  const char *name = luaL_checkstring(L, 2), *message = luaL_checkstring(L, 3);
  const int level = caller(L);
  lua_Debug ar;
  if (lua_getstack(L, level - 1, &ar) && lua_getinfo(L, "n", &ar) &&
      strcmp(ar.namewhat, "method") == 0 && --n == 0)
    return ad_error(L, "calling '%s' on bad self (%s)", name, message);
  return ad_error(L, "bad argument #%I to '%s' (%s)", n, name, message);
}

/* fail(message): the error of a function in Lua, the same way */
static int l_fail(lua_State *L) {
  return ad_error(L, "%s", luaL_checkstring(L, 1));
}

/* "a table", "nil", for the errors about results */
const char *ad_described(lua_State *L, int idx) {
  const int type = lua_type(L, idx);
  if (type == LUA_TNONE) return "no value";
  if (type == LUA_TNIL) return "nil";
  return lua_pushfstring(L, "a %s", luaL_typename(L, idx));
}

/*
** Arguments become values of the level
*/

/* levels inside levels are taken apart by recursion, which has an end */
void ad_deeper(lua_State *L, Level *lv, const Arg *a) {
  int depth = 1;
  if (a->key) depth += a->lv ? a->lv->depth : AD_SUB(a->key) / 2;
  if (depth > MAXDEPTH)
    ad_error(L, "values are nested too deep (limit %d)", MAXDEPTH);
  if (depth > lv->depth) lv->depth = depth;
}

/* the leaf at the top becomes a var; its node is what the skeleton holds */
static void var_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Level *lv = ud;
  const int top = lua_gettop(L);
  Arg a;
  val v;
  if (!numeric) {
    lua_pushvalue(L, top);
    lua_pushnil(L);
    return;
  }
  if (lua_type(L, top) == LUA_TNUMBER) {
    v = ad_leafvar(L, S, lv, ad_num(lua_tonumber(L, top)), 0);
    lua_pushinteger(L, ((Cell *)lua_touserdata(L, v.i))->u.var.node);
    return;
  }
  ad_resolve(L, S, top, &a);
  ad_deeper(L, lv, &a);
  v = ad_leafvar(L, S, lv, a.v, 0);
  ad_pushskeleton(L, S, top, 1, ((Cell *)lua_touserdata(L, v.i))->u.var.node);
}

/*
** Replaces the argument at 'idx' by vars, and pushes its skeleton: the same
** structure with the node of each in its place; nil if there is none.
*/
void ad_wrapvar(lua_State *L, State *S, Level *lv, int idx, const char *fname) {
  if (lua_type(L, idx) == LUA_TNUMBER) {
    const val v = ad_leafvar(L, S, lv, ad_num(lua_tonumber(L, idx)), 0);
    lua_copy(L, v.i, idx);
    lua_pop(L, 1);
    lua_pushinteger(L, ((Cell *)lua_touserdata(L, idx))->u.var.node);
    return;
  }
  lua_pushvalue(L, idx);
  ad_tree(L, S, 1, 2 | AD_OBJECTS, var_leaf, lv, fname);
  lua_pushvalue(L, -2);
  lua_replace(L, idx);
  lua_remove(L, -2);
}

/*
** The node of the value at the top, a result: 0 when it is a constant for
** the level. Levels above (another coroutine's) are for it to look through.
*/
int ad_nodeof(lua_State *L, State *S, uint64_t key, uint32_t *node) {
  const int top = lua_gettop(L);
  const Cell *c;
  lua_pushvalue(L, -1);
  while ((c = ad_tocell(L, S, -1)) != NULL) {
    if (ad_keyof(S, c) == key) {
      *node = c->u.var.node;
      lua_settop(L, top);
      return 1;
    }
    if (!AD_GENERALKIND(ad_kindof(S, c))) break;
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
  }
  lua_settop(L, top);
  return 0;
}

/*
** Cotangents in the structure of an argument
*/

static void cotangent_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Sweep *w = ud;
  (void)S;
  if (lua_type(L, -1) == LUA_TNUMBER)
    ad_sweepget(L, w, (uint32_t)lua_tointeger(L, -1));
  else if (numeric)
    ad_sweepresult(L, w, lua_gettop(L));
  else
    lua_pushnil(L);
}

static void pushcotangent(lua_State *L, State *S, Sweep *w, int skeleton) {
  if (lua_type(L, skeleton) == LUA_TNUMBER) {
    ad_sweepget(L, w, (uint32_t)lua_tointeger(L, skeleton));
    return;
  }
  lua_pushvalue(L, skeleton);
  ad_tree(L, S, 1, 1, cotangent_leaf, w, "gradient");
}

/*
** grad and value_and_grad
*/

/*
** What a gradient is asked for. In an upvalue it is an integer, as long as it
** fits: a byte for each argument number, the first lowest, above them the
** flag and the count; else a string of bytes. Both cost nothing to make.
*/
typedef struct Spec {
  int value; /* value_and_grad */
  int n;
  unsigned char arg[250];
} Spec;

#define PACKED 6

static void pushspec(lua_State *L, const Spec *spec) {
  if (spec->n <= PACKED) {
    lua_Unsigned u = ((lua_Unsigned)spec->n << 1) | (unsigned)spec->value;
    for (int i = PACKED; i-- > 0;)
      u = (u << 8) | (i < spec->n ? spec->arg[i] : 0u);
    lua_pushinteger(L, (lua_Integer)u);
  } else {
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addchar(&b, (char)spec->value);
    luaL_addlstring(&b, (const char *)spec->arg, (size_t)spec->n);
    luaL_pushresult(&b);
  }
}

static void getspec(lua_State *L, int idx, Spec *spec) {
  if (lua_type(L, idx) == LUA_TNUMBER) {
    lua_Unsigned u = (lua_Unsigned)lua_tointeger(L, idx);
    for (int i = 0; i < PACKED; i++, u >>= 8)
      spec->arg[i] = (unsigned char)(u & 0xff);
    spec->value = (int)(u & 1);
    spec->n = (int)(u >> 1);
  } else {
    size_t len;
    const char *s = lua_tolstring(L, idx, &len);
    spec->value = s[0];
    spec->n = (int)len - 1;
    memcpy(spec->arg, s + 1, len - 1);
  }
}

static int badresult(lua_State *L, State *S, int idx, const char *fname) {
  const Array *a;
  ad_pushplain(L, S, idx);
  a = lua_touserdata(L, -1);
  return ad_error(L,
                  "%s: function must return a number, got an array of shape "
                  "%s; for several outputs use ad.jacobian",
                  fname, ad_shapetext(L, a->ndim, a->shape));
}

static int grad_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  Spec store, *const spec = &store;
  getspec(L, lua_upvalueindex(3), spec);
  const char *fname = spec->value ? "value_and_grad" : "grad";
  const int slot = (int)ctx, base = slot + spec->n, top = lua_gettop(L);
  Level *lv = lua_touserdata(L, slot);
  const Cell *c;
  uint32_t node;
  Sweep w;
  int out, found;
  (void)status;
  c = top == base ? NULL : ad_tocell(L, S, base + 1);
  if (c == NULL && top > base && ad_arrayhere(L, S, base + 1))
    return badresult(L, S, base + 1, fname);
  if (c == NULL && (top == base || lua_type(L, base + 1) != LUA_TNUMBER))
    return ad_error(L,
                    "%s: function must return a number, got %s; for several "
                    "outputs use ad.jacobian",
                    fname, ad_described(L, base + 1));
  if (c != NULL && c->stamp != ad_stamp(S, lv->key, AD_VARN) &&
      ad_arrayvalued(L, S, base + 1))
    return badresult(L, S, base + 1, fname);
  ad_checkstack(L, top - base + spec->n + 20, "too many results");
  ad_sweepbegin(L, &w, lv, slot);
  if (c != NULL && c->stamp == ad_stamp(S, lv->key, AD_VARN)) {
    node = c->u.var.node;
    found = 1;
  } else {
    lua_pushvalue(L, base + 1);
    found = ad_nodeof(L, S, lv->key, &node);
    lua_pop(L, 1);
  }
  if (found) {
    ad_sweepadd(L, &w, node, ad_num(1));
    ad_sweepreverse(L, &w, node + 1, 0);
  }
  out = lua_gettop(L);
  if (spec->value) {
    lua_pushvalue(L, base + 1);
    ad_stripvalue(L, S, lv->key);
  }
  for (int i = 0; i < spec->n; i++) pushcotangent(L, S, &w, slot + 1 + i);
  for (int i = base + 2; i <= top; i++) {
    lua_pushvalue(L, i);
    ad_strip(L, S, lv->key);
  }
  ad_sweepend(&w);
  return lua_gettop(L) - out;
}

static int grad_call(lua_State *L) {
  State *S = ad_state(L);
  Spec store, *const spec = &store;
  getspec(L, lua_upvalueindex(3), spec);
  const char *fname = spec->value ? "value_and_grad" : "grad";
  const int n = lua_gettop(L), slot = n + 1;
  Level *lv;
  ad_checkstack(L, n + spec->n + 20, "too many arguments");
  for (int i = 0; i < spec->n; i++)
    if (spec->arg[i] > n)
      return ad_error(L,
                      "bad argument #2 to '%s' (no argument %d: called "
                      "with %d)",
                      fname, spec->arg[i], n);
  lv = ad_enter(L, S, AD_REVERSE);
  lua_toclose(L, slot);
  for (int i = 0; i < spec->n; i++) {
    const int arg = spec->arg[i];
    int k = 0;
    while (spec->arg[k] != arg) k++;
    if (k < i) { /* asked for more than once */
      lua_pushvalue(L, slot + 1 + k);
      continue;
    }
    if (!ad_isleaf(L, S, arg) && lua_type(L, arg) != LUA_TTABLE)
      return ad_error(L,
                      "%s: cannot differentiate by argument %d (number, "
                      "array or table expected, got %s)",
                      fname, arg, luaL_typename(L, arg));
    ad_wrapvar(L, S, lv, arg, fname);
  }
  lua_pushvalue(L, lua_upvalueindex(2));
  for (int i = 1; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n, LUA_MULTRET, slot, grad_finish);
  return grad_finish(L, LUA_OK, slot);
}

/* an argument number from the top of the stack */
static int argnumber(lua_State *L) {
  int isint;
  lua_Integer n = lua_tointegerx(L, -1, &isint);
  if (!isint || lua_type(L, -1) != LUA_TNUMBER)
    return luaL_argerror(L, 2,
                         lua_type(L, -1) == LUA_TNUMBER
                             ? "number has no integer representation"
                             : lua_pushfstring(L, "integer expected, got %s",
                                               luaL_typename(L, -1)));
  luaL_argcheck(L, n >= 1 && n <= 250, 2, "argument number out of range");
  lua_pop(L, 1);
  return (int)n;
}

static int makegrad(lua_State *L, int value) {
  Spec spec;
  int list;
  ad_checkcallable(L, 1);
  lua_settop(L, 2);
  spec.value = value;
  spec.n = 1;
  spec.arg[0] = 1;
  list = lua_istable(L, 2);
  if (list) {
    const lua_Unsigned len = lua_rawlen(L, 2);
    luaL_argcheck(L, len >= 1, 2, "empty list of argument numbers");
    luaL_argcheck(L, len <= sizeof spec.arg, 2, "too many argument numbers");
    spec.n = (int)len;
  }
  for (int i = 0; i < spec.n && !lua_isnil(L, 2); i++) {
    if (list)
      lua_rawgeti(L, 2, i + 1);
    else
      lua_pushvalue(L, 2);
    spec.arg[i] = (unsigned char)argnumber(L);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  pushspec(L, &spec);
  lua_pushcclosure(L, grad_call, 3);
  return 1;
}

/*
** Is the value at 'idx' what grad or value_and_grad gave? Then pushes the
** function that it differentiates.
*/
int ad_isgrad(lua_State *L, int idx, int *value, int *n, unsigned char *arg) {
  Spec spec;
  if (lua_tocfunction(L, idx) != grad_call) return 0;
  idx = lua_absindex(L, idx);
  lua_getupvalue(L, idx, 3);
  getspec(L, -1, &spec);
  lua_pop(L, 1);
  *value = spec.value;
  *n = spec.n;
  memcpy(arg, spec.arg, (size_t)spec.n);
  lua_getupvalue(L, idx, 2);
  return 1;
}

/* replaces the function at the top by value_and_grad(f, {arg[0] ..}) */
void ad_pushgrad(lua_State *L, int n, const unsigned char *arg) {
  Spec spec;
  spec.value = 1;
  spec.n = n;
  memcpy(spec.arg, arg, (size_t)n);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, -2);
  pushspec(L, &spec);
  lua_pushcclosure(L, grad_call, 3);
}

static int l_grad(lua_State *L) { return makegrad(L, 0); }
static int l_value_and_grad(lua_State *L) { return makegrad(L, 1); }

/*
** vjp and linearize: the tape is kept
*/

/* a result leaf: without the level, and its node or false */
static void result_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Level *lv = ud;
  uint32_t node;
  int found;
  if (!numeric) {
    lua_pushvalue(L, -1);
    lua_pushnil(L);
    return;
  }
  found = ad_nodeof(L, S, lv->key, &node);
  lua_pushvalue(L, -1);
  ad_stripvalue(L, S, lv->key);
  ad_pushskeleton(L, S, -1, found, found ? node : 0);
}

/*
** Several results become a list; replaces them all by it, or by the one
** result, at base + 1.
*/
static void oneresult(lua_State *L, State *S, int base, const char *fname) {
  const int n = lua_gettop(L) - base;
  if (n == 0 || (n == 1 && !ad_isleaf(L, S, base + 1) &&
                 lua_type(L, base + 1) != LUA_TTABLE))
    ad_error(L, "%s: function must return numbers, got %s", fname,
             ad_described(L, base + 1));
  if (n > 1) {
    lua_createtable(L, n, 0);
    lua_insert(L, base + 1);
    for (int i = n; i >= 1; i--) lua_rawseti(L, base + 1, i);
  }
}

typedef struct Seed {
  Sweep *w;
  uint32_t top; /* 1 + highest seeded node */
  const char *what;
} Seed;

/* top of the stack: node (or false, nil), seed */
static void seed_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Seed *s = ud;
  uint32_t node;
  const Array *shape;
  int found;
  Arg a;
  if (!numeric) return; /* a constant, or no number at all */
  if (lua_isnil(L, -1)) return;
  found = ad_skeletonnode(L, S, -2, &node, &shape);
  ad_checkfits(L, S, shape, -1, s->what);
  if (!found) return;
  ad_resolve(L, S, -1, &a);
  ad_sweepseed(L, s->w, node, a.v);
  if (node >= s->top) s->top = node + 1;
}

/* is argument 'arg', also at the top, one for the leaf below it? */
static void checkseed(lua_State *L, State *S, int arg) {
  if (ad_isleaf(L, S, arg)) return;
  if (lua_type(L, -2) == LUA_TNUMBER) luaL_typeerror(L, arg, "number");
  if (ad_arrayhere(L, S, -2)) luaL_typeerror(L, arg, "array");
}

/* pull(ybar): upvalues state, level, skeleton of y, list of skeletons, n */
static int pull_call(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, lua_upvalueindex(2));
  const int nargs = (int)lua_tointeger(L, lua_upvalueindex(5));
  Sweep w;
  Seed seed;
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  ad_checkstack(L, nargs + 20, "too many arguments");
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, lua_upvalueindex(4));
  ad_sweepguard(L, lv);
  ad_sweepbegin(L, &w, lv, 2);
  seed.w = &w;
  seed.top = 0;
  seed.what = "pull";
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_pushvalue(L, 1);
  checkseed(L, S, 1);
  ad_tree(L, S, 2, 0, seed_leaf, &seed, "pull");
  ad_sweepreverse(L, &w, seed.top, 0);
  for (int i = 1; i <= nargs; i++) {
    lua_rawgeti(L, 3, i);
    pushcotangent(L, S, &w, lua_gettop(L));
    lua_remove(L, -2);
  }
  ad_sweepend(&w);
  return nargs;
}

static void tangent_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Sweep *w = ud;
  (void)S;
  if (numeric)
    ad_sweepresult(L, w, lua_gettop(L));
  else if (lua_isboolean(L, -1))
    lua_pushnumber(L, 0);
  else
    lua_pushnil(L);
}

/* lin(tangents...): upvalues as those of pull */
static int lin_call(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, lua_upvalueindex(2));
  const int nargs = (int)lua_tointeger(L, lua_upvalueindex(5));
  Sweep w;
  Seed seed;
  lua_settop(L, nargs);
  ad_checkstack(L, 20, NULL);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, lua_upvalueindex(4));
  ad_sweepguard(L, lv);
  ad_sweepbegin(L, &w, lv, nargs + 1);
  seed.w = &w;
  seed.top = 0;
  seed.what = "linearize";
  for (int i = 1; i <= nargs; i++) {
    lua_rawgeti(L, nargs + 2, i);
    lua_pushvalue(L, i);
    checkseed(L, S, i);
    if (lua_isnil(L, -2))
      lua_pop(L, 2);
    else
      ad_tree(L, S, 2, 0, seed_leaf, &seed, "linearize");
  }
  ad_sweepforward(L, &w, 0, lv->tape.nnode);
  lua_pushvalue(L, lua_upvalueindex(3));
  ad_tree(L, S, 1, 1, tangent_leaf, &w, "linearize");
  ad_sweepend(&w);
  return 1;
}

/* the level at 'slot' ends, and its tape stays */
void ad_keeptape(lua_State *L, Level *lv, int slot) {
  ad_unspare(L, lv);
  lv->kept = 1;
  ad_freethread(L, lv, slot);
  ad_leave(L, lv);
}

/* stack: f, args, level, skeletons, then the results */
static int record_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  const int slot = (int)(ctx >> 1), linear = (int)(ctx & 1);
  const char *fname = linear ? "linearize" : "vjp";
  Level *lv = lua_touserdata(L, slot);
  (void)status;
  oneresult(L, S, slot + 1, fname);
  ad_tree(L, S, 1, 2 | AD_OBJECTS, result_leaf, lv, fname);
  ad_keeptape(L, lv, slot);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, -2); /* y, state, skeleton */
  lua_pushvalue(L, slot);
  lua_insert(L, -2);
  lua_pushvalue(L, slot + 1);
  lua_pushinteger(L, slot - 2);
  lua_pushcclosure(L, linear ? lin_call : pull_call, 5);
  return 2;
}

static int record(lua_State *L, int linear) {
  State *S = ad_state(L);
  const int n = lua_gettop(L), slot = n + 1;
  const lua_KContext ctx = ((lua_KContext)slot << 1) | linear;
  Level *lv;
  ad_checkcallable(L, 1);
  ad_checkstack(L, n + 20, "too many arguments");
  lv = ad_enter(L, S, AD_REVERSE);
  lua_toclose(L, slot);
  lua_createtable(L, n - 1, 0);
  for (int i = 2; i <= n; i++) {
    ad_wrapvar(L, S, lv, i, linear ? "linearize" : "vjp");
    lua_rawseti(L, slot + 1, i - 1);
  }
  for (int i = 1; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n - 1, LUA_MULTRET, ctx, record_finish);
  return record_finish(L, LUA_OK, ctx);
}

static int l_vjp(lua_State *L) { return record(L, 0); }
static int l_linearize(lua_State *L) { return record(L, 1); }

/*
** jvp
*/

typedef struct Forward {
  Level *lv;
  const char *fname;
  int arg; /* for the error */
} Forward;

/* a tangent has the shape of its primal, which is below it */
static void checktangent(lua_State *L, State *S, const Forward *f, int idx) {
  const Array *shape;
  ad_pushplain(L, S, idx - 1);
  shape = ad_arrayhere(L, S, -1);
  if (shape != NULL || !ad_isleaf(L, S, idx) || ad_arrayvalued(L, S, idx))
    ad_checkfits(
        L, S, shape, idx,
        lua_pushfstring(L, "%s: tangent of argument %d", f->fname, f->arg));
  lua_settop(L, idx);
}

/* top: primal, tangent */
static void dual_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Forward *f = ud;
  const int top = lua_gettop(L);
  Arg a, t;
  if (!numeric) {
    lua_pushvalue(L, top - 1);
    return;
  }
  checktangent(L, S, f, top);
  ad_resolve(L, S, top - 1, &a);
  ad_resolve(L, S, top, &t);
  ad_deeper(L, f->lv, &a);
  ad_deeper(L, f->lv, &t);
  ad_pushparts(L, S, f->lv->key, AD_DUALN, a.v, 1, &t.v);
  lua_insert(L, top + 1);
  lua_settop(L, top + 1);
}

/*
** Looks for part k (0: primal) of the value at the top at a level: replaces
** it by that part. Constants have parts 0.
*/
void ad_partof(lua_State *L, State *S, uint64_t key, int k) {
  for (;;) {
    const Cell *c = ad_tocell(L, S, -1);
    Arg a;
    if (c == NULL) {
      if (k > 0) {
        lua_pop(L, 1);
        lua_pushnumber(L, 0);
      }
      return;
    }
    a.kind = ad_kindof(S, c);
    a.key = ad_keyof(S, c);
    a.c = lua_touserdata(L, -1);
    a.v = ad_at(lua_gettop(L));
    if (a.key == key) {
      ad_pushval(L, k == 0 ? ad_primalof(L, &a) : ad_part(L, &a, k));
      lua_replace(L, a.v.i);
      lua_settop(L, a.v.i);
      if (k == 0) ad_stripvalue(L, S, key);
      return;
    }
    if (k == 0) {
      ad_stripvalue(L, S, key);
      return;
    }
    if (AD_GENERALKIND(a.kind))
      lua_getiuservalue(L, -1, 1);
    else
      lua_pushnumber(L, c->value);
    lua_remove(L, -2);
  }
}

static void parts_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Level *lv = ud;
  lua_pushvalue(L, -1);
  if (!numeric) {
    lua_pushnil(L);
    return;
  }
  ad_partof(L, S, lv->key, 0);
  lua_pushvalue(L, -2);
  ad_partof(L, S, lv->key, 1);
  if (lua_type(L, -2) != LUA_TNUMBER) { /* 0 for an array is one of zeros */
    ad_shapelike(L, S, -2);
  }
}

static int jvp_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, (int)ctx);
  const Cell *c = lua_gettop(L) == (int)ctx + 1 ? ad_tocell(L, S, -1) : NULL;
  (void)status;
  if (c != NULL && c->stamp == ad_stamp(S, lv->key, AD_DUALN)) {
    lua_pushnumber(L, c->value);
    lua_pushnumber(L, c->u.part[0]);
    return 2;
  }
  oneresult(L, S, (int)ctx, "jvp");
  ad_tree(L, S, 1, 2 | AD_OBJECTS, parts_leaf, lv, "jvp");
  return 2;
}

static int jvp(lua_State *L, const char *fname) {
  State *S = ad_state(L);
  Forward f;
  lua_Unsigned len;
  int n;
  ad_checkcallable(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  len = lua_rawlen(L, 2);
  luaL_argcheck(L, len < 250, 2, "too many arguments");
  luaL_argcheck(L, lua_rawlen(L, 3) <= len, 3, "more tangents than primals");
  n = (int)len;
  ad_checkstack(L, n + 20, "too many arguments");
  f.lv = ad_enter(L, S, AD_FORWARD);
  f.lv->order = 1;
  lua_toclose(L, 4);
  f.fname = fname;
  lua_pushvalue(L, 1);
  for (int i = 1; i <= n; i++) {
    f.arg = i;
    lua_rawgeti(L, 2, i);
    lua_rawgeti(L, 3, i);
    if (lua_type(L, -1) == LUA_TNUMBER && lua_type(L, -2) == LUA_TNUMBER) {
      const double x = lua_tonumber(L, -2), t = lua_tonumber(L, -1);
      Cell *c;
      lua_pop(L, 2);
      c = ad_newcell(L, S, AD_MTDUAL, sizeof(Cell), 0);
      c->value = x;
      c->u.part[0] = t;
      c->stamp = ad_stamp(S, f.lv->key, AD_DUALN);
    } else
      ad_tree(L, S, 2, 1 | AD_OBJECTS, dual_leaf, &f, fname);
  }
  lua_callk(L, n, LUA_MULTRET, 4, jvp_finish);
  return jvp_finish(L, LUA_OK, 4);
}

static int l_jvp(lua_State *L) { return jvp(L, "jvp"); }

/* core.jvp_for(fname, f, primals, tangents): with another name in errors */
static int l_jvp_for(lua_State *L) {
  const char *fname = lua_tostring(L, 1); /* a constant of the caller */
  lua_remove(L, 1);
  return jvp(L, fname);
}

/*
** taylor
*/

static int taylor_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, (int)ctx);
  (void)status;
  if (lua_gettop(L) == (int)ctx || !ad_isleaf(L, S, (int)ctx + 1))
    return ad_error(L, "taylor: function must return a number, got %s",
                    ad_described(L, (int)ctx + 1));
  lua_createtable(L, lv->order + 1, 0);
  for (int k = 0; k <= lv->order; k++) {
    lua_pushvalue(L, (int)ctx + 1);
    ad_partof(L, S, lv->key, k);
    if (lua_isinteger(L, -1)) { /* a constant result */
      lua_pushnumber(L, lua_tonumber(L, -1));
      lua_remove(L, -2);
    }
    if (k > 0 && lua_isuserdata(L, (int)ctx + 1))
      ad_shapelike(L, S, (int)ctx + 1);
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

#define MAXORDER 60000 /* user values of a userdata */

static int l_taylor(lua_State *L) {
  State *S = ad_state(L);
  lua_Integer n;
  Level *lv;
  Arg a;
  val *part;
  ad_checkcallable(L, 1);
  n = luaL_checkinteger(L, 3);
  luaL_argcheck(L, n >= 0 && n <= MAXORDER, 3, "order out of range");
  if (!ad_isleaf(L, S, 2) || ad_arrayvalued(L, S, 2))
    return luaL_typeerror(L, 2, "number");
  lua_settop(L, 3);
  lv = ad_enter(L, S, AD_SERIES);
  lv->order = (int)n;
  lua_toclose(L, 4);
  lua_pushvalue(L, 1);
  ad_resolve(L, S, 2, &a);
  ad_deeper(L, lv, &a);
  part = lua_newuserdatauv(L, (size_t)n * sizeof *part + 1, 0);
  for (int k = 0; k < n; k++) part[k] = ad_num(k == 0);
  ad_pushparts(L, S, lv->key, AD_SERN, a.v, (int)n, part);
  lua_insert(L, 6);
  lua_settop(L, 6);
  lua_callk(L, 1, LUA_MULTRET, 4, taylor_finish);
  return taylor_finish(L, LUA_OK, 4);
}

void ad_opentransform(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"grad", l_grad},
                                {"value_and_grad", l_value_and_grad},
                                {"iscallable", l_iscallable},
                                {"vjp", l_vjp},
                                {"linearize", l_linearize},
                                {"jvp", l_jvp},
                                {"jvp_for", l_jvp_for},
                                {"taylor", l_taylor},
                                {"badarg", l_badarg},
                                {"fail", l_fail},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
