/*
** tree.c
** Structures: tables of numbers and AD values, nested to any depth.
**
** ad_tree walks the first of 'nin' structures and builds 'nout' others of
** the same form. The others of the input go along: where the first has a
** table they must have one too. The walk keeps its place on the Lua stack,
**
**      in[1] .. in[nin]  out[1] .. out[nout]  key
**
** for each table that it is inside of, and recurses nowhere.
*/
#include "array.h"

#include <limits.h>

/* is the value a number or an AD value? */
int ad_isleaf(lua_State *L, const State *S, int idx) {
  return lua_type(L, idx) == LUA_TNUMBER || ad_tocell(L, S, idx) != NULL ||
         ad_arrayhere(L, S, idx) != NULL;
}

/*
** A table is part of the structure unless its metatable has a finalizer:
** such a table stands for some resource, which a copy would close again.
*/
static int isstructure(lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE) return 0;
  if (luaL_getmetafield(L, idx, "__gc") == LUA_TNIL) return 1;
  lua_pop(L, 1);
  return 0;
}

/* are the tables at in[2..nin] there? */
static void checkforms(lua_State *L, int first, int nin, const char *fname) {
  for (int i = 1; i < nin; i++)
    if (lua_type(L, first + i) != LUA_TTABLE)
      ad_error(L, "%s: structures differ (table expected, got %s)", fname,
               luaL_typename(L, first + i));
}

/* marks or unmarks the table at 'idx' as one that the walk is inside of */
static void mark(lua_State *L, int path, int idx, int inside) {
  lua_pushvalue(L, idx);
  if (inside)
    lua_pushboolean(L, 1);
  else
    lua_pushnil(L);
  lua_rawset(L, path);
}

/* table[key] = the top, which is popped; nil stands for "absent" */
static void put(lua_State *L, int table, int key) {
  int isint;
  const lua_Integer i = lua_tointegerx(L, key, &isint);
  if (lua_type(L, -1) == LUA_TNIL)
    lua_pop(L, 1);
  else if (isint && lua_type(L, key) == LUA_TNUMBER)
    lua_rawseti(L, table, i);
  else {
    lua_pushvalue(L, key);
    lua_insert(L, -2);
    lua_rawset(L, table);
  }
}

static void walk(lua_State *L, State *S, int nin, int nout, int objects,
                 ad_Leaf leaf, void *ud, const char *fname) {
  const int first = lua_gettop(L) - nin + 1, path = first + nin;
  const int width = nin + nout + 1;
  int depth = 0, base = first, entered;
  ad_checkstack(L, 2 * width + 10, "structure is nested too deep");
  if (!isstructure(L, first)) {
    leaf(L, S, ud, ad_isleaf(L, S, first));
    for (int i = 0; i < nout; i++) lua_copy(L, i - nout, first + i);
    lua_settop(L, first + nout - 1);
    return;
  }
  checkforms(L, first, nin, fname);
  lua_pushnil(L); /* set of the tables inside, made when there are two */
  for (int i = 0; i < nin; i++) lua_pushvalue(L, first + i);
  base = path + 1;
  for (;;) { /* enter the tables at base */
    const lua_Unsigned n = lua_rawlen(L, base);
    ad_checkstack(L, 2 * width + 10, "structure is nested too deep");
    depth++;
    if (depth == 2) {
      lua_newtable(L);
      lua_replace(L, path);
      mark(L, path, base - width, 1);
    }
    if (depth >= 2) {
      lua_pushvalue(L, base);
      if (lua_rawget(L, path) != LUA_TNIL)
        ad_error(L, "%s: a structure contains itself", fname);
      lua_pop(L, 1);
      mark(L, path, base, 1);
    }
    for (int i = 0; i < nout; i++)
      lua_createtable(L, n < INT_MAX ? (int)n : 0, 0);
    if (objects && lua_getmetatable(L, base)) lua_setmetatable(L, base + nin);
    lua_pushnil(L); /* first key */
  resume:
    entered = 0;
    while (lua_next(L, base)) {
      const int key = base + width - 1, value = key + 1;
      const int type = lua_type(L, value);
      for (int i = 1; i < nin; i++) { /* what goes along with the value */
        lua_pushvalue(L, key);
        lua_rawget(L, base + i);
      }
      if (type == LUA_TTABLE && isstructure(L, value)) {
        checkforms(L, value, nin, fname);
        base = value;
        entered = 1;
        break;
      }
      leaf(L, S, ud,
           type == LUA_TNUMBER ||
               (type == LUA_TUSERDATA && ad_isleaf(L, S, value)));
      for (int i = nout; i-- > 0;) put(L, base + nin + i, key);
      lua_settop(L, key);
    }
    if (entered) continue;
    /* the table is done (lua_next has popped the key) */
    if (depth == 1) break;
    mark(L, path, base, 0);
    for (int i = 0; i < nout; i++) {
      lua_pushvalue(L, base - 1); /* its key in the table around it */
      lua_pushvalue(L, base + nin + i);
      lua_rawset(L, base - width + nin + i);
    }
    lua_settop(L, base - 1);
    base -= width;
    depth--;
    goto resume;
  }
  /* the stack: inputs, path, inputs again, outputs */
  for (int i = 0; i < nout; i++) {
    lua_pushvalue(L, base + nin + i);
    lua_replace(L, first + i);
  }
  lua_settop(L, first + nout - 1);
}

/*
** leaf(L, S, ud, numeric): its 'nin' inputs are the top of the stack; it
** pushes 'nout' values, nil for "absent". 'numeric' tells whether the first
** input is a number or AD value. Pops the inputs and pushes the outputs. With
** AD_OBJECTS in 'nout' the first output's tables have the metatables of the
** first input's, so that what the user's function gets has its methods.
*/
void ad_tree(lua_State *L, State *S, int nin, int nout, ad_Leaf leaf, void *ud,
             const char *fname) {
  const int objects = nout & AD_OBJECTS;
  nout &= ~AD_OBJECTS;
  walk(L, S, nin, nout, objects, leaf, ud, fname);
}

/*
** Removing a level from results
*/

typedef struct Strip {
  uint64_t key;
  int found;
} Strip;

static void has_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Strip *s = ud;
  const Cell *c = numeric ? ad_tocell(L, S, -1) : NULL;
  if (c != NULL && AD_TRANSFORM(ad_keyof(S, c)) == AD_TRANSFORM(s->key))
    s->found = 1;
}

static void strip_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Strip *s = ud;
  lua_pushvalue(L, -1);
  if (numeric) ad_stripvalue(L, S, s->key);
}

/* does the table at the top, or one inside it, hold a value of the level? */
static int holds(lua_State *L, State *S, Strip *s) {
  /* a list of work and a set of what was seen: tables may contain themselves
     here, since these are any results of the user's */
  int n = 1;
  lua_newtable(L); /* work */
  lua_newtable(L); /* seen */
  lua_pushvalue(L, -3);
  lua_rawseti(L, -3, 1);
  while (n > 0 && !s->found) {
    lua_rawgeti(L, -2, n--);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) != LUA_TNIL) {
      lua_pop(L, 2);
      continue;
    }
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -4);
    lua_pushnil(L);
    while (lua_next(L, -2)) { /* work seen table key value */
      if (lua_type(L, -1) == LUA_TTABLE) {
        lua_rawseti(L, -5, ++n);
      } else {
        has_leaf(L, S, s, ad_isleaf(L, S, -1));
        lua_pop(L, 1);
      }
    }
    lua_pop(L, 1); /* table */
  }
  lua_pop(L, 2);
  return s->found;
}

/*
** The value at the top without the level 'key': a copy when it is a
** structure that has values of that level, else itself.
*/
void ad_strip(lua_State *L, State *S, uint64_t key) {
  Strip s;
  s.key = key;
  s.found = 0;
  ad_checkstack(L, 12, NULL);
  if (lua_type(L, -1) == LUA_TUSERDATA) {
    if (ad_tocell(L, S, -1)) ad_stripvalue(L, S, key);
  } else if (isstructure(L, -1) && holds(L, S, &s))
    ad_tree(L, S, 1, 1 | AD_OBJECTS, strip_leaf, &s, "result");
}
