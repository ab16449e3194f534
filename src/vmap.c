/*
** vmap.c
** A function written for one example runs for a batch of them. Its arguments
** are values of a level of their own that stand for any one element of the
** batch; inside each is an array (or an AD value of one) that has all of them
** along its first dimension. An operation on such values is the operation on
** what is inside, with dimensions aligned.
*/
#include "array.h"

#include <string.h>

static int isof(const State *S, const Cell *c, uint64_t key) {
  return c != NULL && ad_keyof(S, c) == key && ad_kindof(S, c) == AD_BATCH;
}

/* wraps the value at the top */
static void wrap(lua_State *L, State *S, uint64_t key) {
  Cell *c = ad_newcell(L, S, AD_MTBATCH, sizeof(Cell), 1);
  c->value = 0;
  c->u.var.node = c->u.var.leaf = 0;
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, 1);
  c->stamp = ad_stamp(S, key, AD_BATCH);
}

/* number of dimensions of a value */
static int dimensions(lua_State *L, State *S, val v) {
  const Array *a;
  int n;
  if (v.i == 0) return 0;
  ad_pushplain(L, S, v.i);
  a = ad_arrayhere(L, S, -1);
  n = a == NULL ? 0 : a->ndim;
  lua_pop(L, 1);
  return n;
}

val ad_vmapapply(lua_State *L, State *S, int op, int n, const Arg *a,
                 uint64_t key) {
  val x[AD_MAXARITY], y;
  int dims = 0;
  for (int i = 0; i < n; i++) {
    const int d = dimensions(L, S, a[i].v);
    if (d > dims) dims = d;
  }
  for (int i = 0; i < n; i++) {
    x[i] = a[i].v;
    if (a[i].key != key) continue;
    lua_getiuservalue(L, a[i].v.i, 1);
    x[i] = ad_at(lua_gettop(L));
    if (dimensions(L, S, x[i]) < dims + 1) {
      lua_pushinteger(L, dims + 1);
      ad_arraycalln(L, S, "alignbatch", 2);
      x[i] = ad_at(lua_gettop(L));
    }
  }
  y = ad_apply(L, S, op, n, x);
  ad_pushval(L, y);
  wrap(L, S, key);
  return ad_at(lua_gettop(L));
}

/* an operation over a list: on the array of its elements */
val ad_vmapnary(lua_State *L, State *S, int op, int n, const val *x) {
  lua_pushstring(L, ad_opinfo[op].name);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    ad_pushval(L, x[i]);
    lua_rawseti(L, -2, i + 1);
  }
  ad_arraycalln(L, S, "overlist", 2);
  return ad_takeval(L);
}

/* batched(key, x): the value of a batch that has x inside */
static int l_batched(lua_State *L) {
  lua_settop(L, 2);
  wrap(L, ad_state(L), (uint64_t)lua_tointeger(L, 1));
  return 1;
}

/* inside(key, x): what is inside x, and true; x itself if it is not of the
   batch (levels further in, of what is left of them, are looked through) */
static int l_inside(lua_State *L) {
  State *S = ad_state(L);
  const uint64_t key = (uint64_t)lua_tointeger(L, 1);
  lua_settop(L, 2);
  ad_stripvalue(L, S, key + 1);
  if (isof(S, ad_tocell(L, S, 2), key)) {
    lua_getiuservalue(L, 2, 1);
    lua_pushboolean(L, 1);
    return 2;
  }
  return 1;
}

/* in: a leaf; the function is at index 1 */
static void map_leaf(lua_State *L, State *S, void *ud, int numeric) {
  (void)S, (void)ud;
  lua_pushvalue(L, -1);
  if (!numeric) return;
  lua_pushvalue(L, 1);
  lua_insert(L, -2);
  lua_call(L, 1, 1);
}

/* map(f, x): the structure of x with f of each numeric leaf */
static int l_map(lua_State *L) {
  lua_settop(L, 2);
  ad_tree(L, ad_state(L), 1, 1 | AD_OBJECTS, map_leaf, NULL, "vmap");
  return 1;
}

static int results(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  return lua_gettop(L) - (int)ctx;
}

/* withbatch(f, ...): f(key, ...), while the level 'key' is alive */
static int l_withbatch(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  const Level *lv;
  ad_checkstack(L, n + 20, "too many arguments");
  lv = ad_enter(L, S, AD_VMAP);
  lua_toclose(L, n + 1);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, (lua_Integer)lv->key);
  for (int i = 2; i <= n; i++) lua_pushvalue(L, i);
  lua_callk(L, n, LUA_MULTRET, n + 1, results);
  return results(L, LUA_OK, n + 1);
}

/* x as a constant: a batch of constants, if it is a batch */
val ad_constant(lua_State *L, State *S, val v) {
  const int base = lua_gettop(L);
  val b = ad_base(L, S, v);
  const Cell *c = b.i ? ad_tocell(L, S, b.i) : NULL;
  if (c != NULL && ad_kindof(S, c) == AD_BATCH) {
    const uint64_t key = ad_keyof(S, lua_touserdata(L, b.i));
    ad_checkstack(L, 10, "batches are nested too deep");
    lua_getiuservalue(L, b.i, 1);
    b = ad_constant(L, S, ad_valat(L, lua_gettop(L))); /* one batch further */
    ad_pushval(L, b);
    wrap(L, S, key);
    lua_replace(L, base + 1);
    lua_settop(L, base + 1);
    b = ad_at(base + 1);
  }
  return b;
}

void ad_openvmap(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"batched", l_batched},
                                {"inside", l_inside},
                                {"withbatch", l_withbatch},
                                {"map", l_map},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
