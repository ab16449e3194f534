/*
** tapelib.c
** ad.tape: a tape that the user opens, asks and closes.
*/
#include "array.h"

#include <string.h>

static Level *checktape(lua_State *L) {
  Level *lv = luaL_checkudata(L, 1, "autodiff.tape");
  if (lv->closed) luaL_error(L, "attempt to use a closed tape");
  return lv;
}

/* ad.tape([{persistent = true}]) */
static int l_tape(lua_State *L) {
  State *S = ad_state(L);
  int persistent = 0;
  Level *lv;
  lua_settop(L, 1);
  if (!lua_isnil(L, 1)) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "persistent");
    persistent = lua_toboolean(L, -1);
  }
  lv = ad_newlevel(L, S, AD_TAPE, 0);
  lv->persistent = (uint8_t)persistent;
  return 1;
}

static void var_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Level *lv = ud;
  const int top = lua_gettop(L);
  Arg a;
  if (!numeric) {
    lua_pushvalue(L, -1);
    return;
  }
  ad_resolve(L, S, top, &a);
  if (a.key >= lv->key)
    luaL_error(L, "var: the value belongs to %s",
               a.key == lv->key
                   ? "this tape"
                   : "a transform or tape that is younger than this one");
  ad_deeper(L, lv, &a);
  ad_leafvar(L, S, lv, a.v, 0);
}

/* tape:var(...): each argument, structures too */
static int t_var(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = checktape(L);
  const int n = lua_gettop(L);
  luaL_checkany(L, 2);
  ad_checkstack(L, n + 20, "too many arguments");
  for (int i = 2; i <= n; i++)
    if (!ad_isleaf(L, S, i) && lua_type(L, i) != LUA_TTABLE)
      return luaL_typeerror(L, i, "number");
  if (lv->asked && !lv->persistent)
    return luaL_error(L, "var: the tape has answered; reset it first, or make "
                         "it with persistent = true");
  if (!lv->live) { /* its level is that of its first var */
    const Level *in = ad_innermost(L, S, 0);
    lv->context = in ? in->key : 0;
    lv->depth = 0;
    ad_insert(L, lv, ++S->counter << AD_KEYBITS);
  }
  if (ad_spanhere(S, lv) != NULL)
    return luaL_error(L, "var: not inside a checkpoint on the same tape");
  for (int i = 2; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, var_leaf, lv, "var");
  }
  return n - 1;
}

typedef struct Ask {
  Sweep *w; /* NULL: nothing is connected */
  uint64_t key;
} Ask;

static void source_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Ask *q = ud;
  uint32_t node;
  if (!numeric)
    lua_pushnil(L);
  else if (q->w != NULL && ad_nodeof(L, S, q->key, &node))
    ad_sweepget(L, q->w, node);
  else
    lua_pushnumber(L, 0);
  if (numeric) ad_shapelike(L, S, -2);
}

static lua_Integer count(const Level *lv) {
  return (lua_Integer)lv->tape.nnode - lv->tape.ninput - lv->ncall;
}

/*
** Adds seed number i of the list at index 'seeds' (0: there is none) to the
** node of the target at the top. A seed that is not given is 1, and for an
** array an array of 1.
*/
static void addtarget(lua_State *L, State *S, Sweep *w, int seeds,
                      lua_Integer i, uint32_t *top) {
  const int target = lua_gettop(L);
  const Array *shape;
  uint32_t node;
  Arg a;
  ad_pushplain(L, S, target);
  shape = ad_arrayhere(L, S, -1);
  if (seeds == 0 || lua_geti(L, seeds, i) == LUA_TNIL) {
    lua_pushnumber(L, 1);
    if (shape != NULL) ad_shapelike(L, S, target);
  } else {
    const char *what = lua_pushfstring(L, "gradient: seeds: index %d", (int)i);
    lua_insert(L, -2);
    ad_checkfits(L, S, shape, -1, what);
  }
  ad_resolve(L, S, -1, &a);
  lua_pushvalue(L, target);
  if (ad_nodeof(L, S, w->lv->key, &node)) {
    ad_sweepseed(L, w, node, a.v);
    if (node >= *top) *top = node + 1;
  }
  lua_settop(L, target);
}

/*
** tape:gradient(target, sources...) or
** tape:gradient{target = , sources = , seeds = }
*/
static int t_gradient(lua_State *L) {
  State *S = ad_state(L);
  Level *lv = checktape(L);
  const int longform = lua_istable(L, 2) && lua_gettop(L) == 2;
  int n, first, target = 2, seeds = 0;
  uint32_t top = 0;
  Sweep w;
  Ask q;
  if (longform) {
    lua_getfield(L, 2, "target");
    target = 3;
    lua_getfield(L, 2, "seeds");
    if (!lua_isnil(L, 4)) {
      seeds = 4;
      if (lua_type(L, 4) != LUA_TTABLE)
        return luaL_error(L, "gradient: seeds must be a list, got %s",
                          luaL_typename(L, 4));
    }
    if (lua_getfield(L, 2, "sources") == LUA_TNIL)
      return luaL_argerror(L, 2, "field 'sources' is missing");
    first = 5;
  } else {
    if (!ad_isleaf(L, S, 2)) return luaL_typeerror(L, 2, "number");
    luaL_checkany(L, 3);
    first = 3;
  }
  n = lua_gettop(L);
  for (int i = first; i <= n; i++)
    if (!ad_isleaf(L, S, i) && lua_type(L, i) != LUA_TTABLE)
      return longform ? luaL_argerror(L, 2,
                                      "field 'sources' must be a number or "
                                      "a table of numbers")
                      : luaL_typeerror(L, i, "number");
  if (longform && !ad_isleaf(L, S, target) && lua_type(L, 3) != LUA_TTABLE)
    return luaL_argerror(L, 2,
                         "field 'target' must be a number or a list of "
                         "numbers");
  if (lv->asked && !lv->persistent)
    return luaL_error(L, "gradient: this tape has answered already; a tape "
                         "that is to be asked more than once is "
                         "ad.tape{persistent = true}");
  ad_checkstack(L, n + 20, "too many sources");
  q.w = NULL;
  q.key = lv->key;
  lua_pushvalue(L, 1);
  if (lv->live) {
    ad_sweepguard(L, lv);
    ad_sweepbegin(L, &w, lv, n + 1);
    w.keep = 1;
    q.w = &w;
    if (lua_type(L, target) == LUA_TTABLE) {
      const lua_Integer len = luaL_len(L, target);
      for (lua_Integer i = 1; i <= len; i++) {
        const int here = lua_gettop(L);
        lua_geti(L, target, i);
        if (!ad_isleaf(L, S, -1))
          return luaL_error(L,
                            "gradient: target: number expected at index "
                            "%d, got %s",
                            (int)i, luaL_typename(L, -1));
        addtarget(L, S, &w, seeds, i, &top);
        lua_settop(L, here);
      }
    } else {
      lua_pushvalue(L, target);
      addtarget(L, S, &w, seeds, 1, &top);
    }
    ad_sweepreverse(L, &w, top, 0);
  }
  for (int i = first; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1, source_leaf, &q, "gradient");
  }
  if (lv->live) {
    ad_sweepend(&w);
    lv->asked = 1;
    if (!lv->persistent) { /* not needed again; its vars are constants */
      lv->order = (int)(count(lv) < INT32_MAX ? count(lv) : INT32_MAX);
      ad_drop(L, lv);
      ad_tapefree(&lv->tape);
    }
  } else
    lv->asked = 1;
  return n - first + 1;
}

static int t_stop(lua_State *L) {
  Level *lv = checktape(L);
  ad_checkcallable(L, 2);
  return ad_pausetape(L, lv);
}

static int t_reset(lua_State *L) {
  Level *lv = checktape(L);
  ad_drop(L, lv);
  ad_tapeclear(&lv->tape, (size_t)1 << 20);
  lv->nnote = 0;
  lv->asked = 0;
  lv->order = 0;
  return 0;
}

static int t_close(lua_State *L) {
  Level *lv = luaL_checkudata(L, 1, "autodiff.tape");
  if (!lv->closed) {
    lv->closed = 1;
    ad_drop(L, lv);
    ad_tapefree(&lv->tape);
  }
  return 0;
}

/* number of recorded operations, of the last recording when it is freed */
static int t_len(lua_State *L) {
  const Level *lv = checktape(L);
  lua_pushinteger(L, lv->live ? count(lv) : lv->order);
  return 1;
}

static int t_tostring(lua_State *L) {
  const Level *lv = luaL_checkudata(L, 1, "autodiff.tape");
  if (lv->closed)
    lua_pushliteral(L, "tape (closed)");
  else
    lua_pushfstring(L, "tape (%I operations)",
                    (LUAI_UACINT)(lv->live ? count(lv) : lv->order));
  return 1;
}

/* bytes of the records: what the benchmarks ask for */
static int t_bytes(lua_State *L) {
  const Level *lv = checktape(L);
  lua_pushinteger(L, (lua_Integer)ad_tapebytes(&lv->tape));
  return 1;
}

void ad_opentape(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {{"__len", t_len},
                                {"__close", t_close},
                                {"__tostring", t_tostring},
                                {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"var", t_var},     {"gradient", t_gradient}, {"stop", t_stop},
      {"reset", t_reset}, {"close", t_close},       {"bytes", t_bytes},
      {NULL, NULL}};
  static const luaL_Reg fn[] = {{"tape", l_tape}, {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTTAPE]);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTTAPE]);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTLEVEL]);
  lua_getfield(L, -1, "__gc"); /* a tape is a level */
  lua_setfield(L, -3, "__gc");
  lua_pop(L, 1);
  lua_createtable(L, 0, 8);
  ad_setfuncs(L, methods, LUA_NOREF);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  ad_setfuncs(L, fn, LUA_NOREF);
}
