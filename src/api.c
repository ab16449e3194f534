/*
** api.c
** What autodiff.h promises to host programs. Not part of the Lua module:
** only libautodiff.a has this file, and the modules of lua/ with it.
**
** Whatever runs a level is a C function of Lua's own, called with a pointer
** to the host's request: levels sit in slots of its frame, which Lua closes
** also when the host's function is left by an error.
*/
#include "array.h"

#include <limits.h>
#include <string.h>

#include "autodiff.h"
#include "embed.h"

LUAMOD_API int luaopen_autodiff_core(lua_State *L);

/* keys in the registry */
#define ENV "autodiff.env"       /* globals of the modules in lua/ */
#define CUSTOM "autodiff.custom" /* what makes functions with rules */
#define PRIMITIVES "autodiff.primitives"

/*
** The module without files
*/

/* 'require' of our modules: ours first, then that of the host, if any */
static int l_require(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const ad_Embedded *e = ad_embedded;
  lua_settop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, 2, name) != LUA_TNIL) return 1;
  lua_settop(L, 2);
  while (e->name != NULL && strcmp(e->name, name) != 0) e++;
  if (e->name != NULL) {
    /* a buffer of bytes, whatever their sign */
    const void *text = e->text;
    if (luaL_loadbufferx(L, text, e->size, e->chunk, "t") != LUA_OK)
      return lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, ENV);
    lua_setupvalue(L, 3, 1);
  } else if (strcmp(name, "autodiff.core") == 0)
    lua_pushcfunction(L, luaopen_autodiff_core);
  else if (lua_getglobal(L, "require") == LUA_TFUNCTION) {
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
  } else
    return luaL_error(L, "module '%s' not found", name);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushboolean(L, 1);
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, 2, name);
  return 1;
}

static void copytable(lua_State *L, const char *name) {
  if (lua_getglobal(L, name) == LUA_TTABLE) {
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, -3)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
    lua_setfield(L, -3, name);
  }
  lua_pop(L, 1);
}

/*
** The globals of our modules: copies of Lua's own, so that what a host takes
** away from its scripts, or a script changes, does not matter to them.
*/
static void makeenv(lua_State *L) {
  static const char *const lib[] = {"coroutine", "debug",  "io",    "math",
                                    "os",        "string", "table", "utf8"};
  if (lua_getfield(L, LUA_REGISTRYINDEX, ENV) == LUA_TNIL) {
    lua_newtable(L);
    lua_pushglobaltable(L);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
      if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TFUNCTION) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -5);
      } else
        lua_pop(L, 1);
    }
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    for (size_t i = 0; i < sizeof lib / sizeof lib[0]; i++)
      copytable(L, lib[i]);
    lua_pushcfunction(L, l_require);
    lua_setfield(L, -2, "require");
    lua_setfield(L, LUA_REGISTRYINDEX, ENV);
  }
  lua_pop(L, 1);
}

static void require(lua_State *L, const char *name) {
  lua_pushcfunction(L, l_require);
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

int luaopen_autodiff(lua_State *L) {
  static const char *const needed[] = {"setmetatable", "math", "string",
                                       "table"};
  luaL_checkversion(L);
  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
    if (lua_getglobal(L, needed[i]) == LUA_TNIL)
      return luaL_error(L, "autodiff needs Lua's basic functions, math, string "
                           "and table: open these libraries first");
    lua_pop(L, 1);
  }
  makeenv(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const ad_Embedded *e = ad_embedded; e->name != NULL; e++) {
    lua_pushcfunction(L, l_require);
    lua_setfield(L, -2, e->name);
  }
  lua_pop(L, 1);
  require(L, "autodiff.custom");
  lua_setfield(L, LUA_REGISTRYINDEX, CUSTOM);
  require(L, "autodiff"); /* last: luaL_requiref then takes it for opened */
  return 1;
}

/* pushes the state */
static State *opened(lua_State *L) {
  ad_checkstack(L, LUA_MINSTACK, NULL);
  if (lua_getfield(L, LUA_REGISTRYINDEX, CUSTOM) != LUA_TFUNCTION)
    luaL_error(L, "autodiff is not open in this state (luaL_requiref with "
                  "luaopen_autodiff is needed)");
  lua_pop(L, 1);
  return ad_openstate(L);
}

/*
** Values
*/

int ad_type(lua_State *L, int idx) {
  const State *S;
  const Cell *c;
  switch (lua_type(L, idx)) {
  case LUA_TNUMBER:
    return AD_TNUMBER;
  case LUA_TUSERDATA:
    break;
  default:
    return AD_TNONE;
  }
  idx = lua_absindex(L, idx);
  ad_checkstack(L, 2, NULL);
  S = ad_getstate(L);
  if (S != NULL && ad_arrayhere(L, S, idx)) return AD_TARRAY;
  c = S == NULL ? NULL : ad_tocell(L, S, idx);
  if (c == NULL) return AD_TNONE;
  if (ad_kindof(S, c) == AD_RECA) return AD_TARRAY; /* as it is otherwise */
  return AD_ISVAR(ad_kindof(S, c)) ? AD_TVAR : AD_TDUAL;
}

int ad_isvalue(lua_State *L, int idx) { return ad_type(L, idx) != AD_TNONE; }

const char *ad_typename(int type) {
  static const char *const name[] = {"none", "number", "dual", "var", "array"};
  return name[type > 0 && type <= AD_TARRAY ? type : 0];
}

double ad_value(lua_State *L, int idx) {
  switch (ad_type(L, idx)) {
  case AD_TNUMBER:
    return lua_tonumber(L, idx);
  case AD_TDUAL:
  case AD_TVAR:
    ad_checkstack(L, 4, NULL);
    if (!ad_arrayvalued(L, ad_getstate(L), idx))
      return ad_plain(L, ad_getstate(L), idx);
  }
  return 0;
}

/*
** Arrays
*/

/* pushes the array behind the value at the index; NULL: nothing is pushed */
static const Array *arraybehind(lua_State *L, int idx) {
  State *S;
  if (lua_type(L, idx) != LUA_TUSERDATA) return NULL;
  idx = lua_absindex(L, idx);
  ad_checkstack(L, LUA_MINSTACK, NULL);
  S = ad_getstate(L);
  if (S == NULL || !ad_arrayvalued(L, S, idx)) return NULL;
  ad_pushplain(L, S, idx);
  return lua_touserdata(L, -1);
}

int ad_arrayshape(lua_State *L, int idx, size_t *shape) {
  const Array *a = arraybehind(L, idx);
  int ndim;
  if (a == NULL) return 0;
  ndim = a->ndim;
  if (shape != NULL)
    for (int d = 0; d < ndim; d++) shape[d] = (size_t)a->shape[d];
  lua_pop(L, 1);
  return ndim;
}

size_t ad_getarray(lua_State *L, int idx, size_t n, double *x) {
  const int top = lua_gettop(L);
  const Array *a = arraybehind(L, idx);
  size_t size;
  if (a == NULL) return 0;
  if (ad_getstate(L)->recorder != NULL) { /* which takes notice */
    lua_pushvalue(L, idx < 0 && idx > LUA_REGISTRYINDEX ? idx - 1 : idx);
    if (!ad_recordelements(L, ad_getstate(L), top + 2))
      ad_recordread(L, ad_getstate(L), top + 1);
    lua_settop(L, top + 1);
  }
  size = a->size;
  if (n >= size)
    ad_gather(a, x);
  else if (n > 0) {
    a = ad_packed(L, ad_getstate(L), lua_gettop(L));
    memcpy(x, a->data, n * sizeof *x);
  }
  lua_settop(L, top);
  return size;
}

const double *ad_arraydata(lua_State *L, int idx) {
  const Array *a;
  State *S;
  if (ad_type(L, idx) != AD_TARRAY) return NULL;
  S = ad_getstate(L);
  if ((a = ad_toarray(L, S, idx)) == NULL) return NULL; /* recorded */
  return ad_contiguous(a) ? a->data : NULL;
}

double *ad_pusharray(lua_State *L, int ndim, const size_t *shape,
                     const double *x) {
  State *S = opened(L);
  ptrdiff_t length[AD_MAXDIM];
  Array *a;
  if (ndim < 1 || ndim > AD_MAXDIM)
    luaL_error(L, "ad_pusharray: 1 to %d dimensions expected", AD_MAXDIM);
  for (int d = 0; d < ndim; d++) {
    if (shape[d] > PTRDIFF_MAX) luaL_error(L, "array is too large");
    length[d] = (ptrdiff_t)shape[d];
  }
  a = ad_newarray(L, S, ndim, length);
  if (x == NULL)
    for (size_t i = 0; i < a->size; i++) a->data[i] = 0;
  else if (a->size > 0)
    memcpy(a->data, x, a->size * sizeof *x);
  lua_remove(L, -2); /* the state */
  return a->data;
}

size_t ad_tangents(lua_State *L, int idx, size_t n, double *tangent) {
  State *S = opened(L);
  const int top = lua_gettop(L);
  size_t count = 0;
  lua_pushvalue(L, idx < 0 && idx > LUA_REGISTRYINDEX ? idx - 1 : idx);
  if (ad_type(L, -1) == AD_TDUAL && !ad_arrayvalued(L, S, top + 1)) {
    Arg a;
    a.c = lua_touserdata(L, -1);
    a.kind = ad_kindof(S, a.c);
    a.key = ad_keyof(S, a.c);
    a.lv = NULL;
    a.v = ad_at(top + 1);
    count = (size_t)(AD_ISSER(a.kind) ? 1 : ad_nparts(L, &a));
    for (size_t k = 0; k < n && k < count; k++) {
      tangent[k] = ad_plainval(L, S, ad_part(L, &a, (int)k + 1));
      lua_settop(L, top + 1);
    }
  }
  lua_settop(L, top - 1);
  return count;
}

void ad_pushdual(lua_State *L, double value, size_t n, const double *tangent) {
  State *S = opened(L);
  uint64_t key;
  Cell *c;
  if (n < 1 || n > 60000)
    luaL_error(L, "ad_pushdual: 1 to 60000 tangents expected");
  key = ad_handkey(L, S, lua_gettop(L) + 1, 0);
  c = ad_newcell(L, S, AD_MTDUAL, AD_CELLHEAD + n * sizeof *tangent, 0);
  c->value = value;
  memcpy(c->u.part, tangent, n * sizeof *tangent);
  c->stamp = ad_stamp(S, key, AD_DUALN);
  lua_remove(L, -2); /* the state */
}

/*
** Derivatives
*/

typedef struct Request {
  const char *fname;
  size_t m, n;
  const double *x;
  const double *v; /* direction; NULL: directions first ... of the axes */
  size_t first;
  int k; /* directions */
  double *value, *grad;
  double *out;
  int ndim; /* 0: the function takes a list; else an array, of this shape */
  const size_t *shape;
} Request;

/* the n variables as the functions of arrays have them */
static void setshape(lua_State *L, Request *r, int ndim, const size_t *shape) {
  size_t n = 1;
  int empty = 0;
  if (ndim < 1 || ndim > AD_MAXDIM)
    luaL_error(L, "%s: 1 to %d dimensions expected", r->fname, AD_MAXDIM);
  for (int d = 0; d < ndim; d++) empty |= shape[d] == 0;
  for (int d = 0; d < ndim && !empty; d++) {
    if (shape[d] > INT_MAX / n)
      luaL_error(L, "%s: too many variables", r->fname);
    n *= shape[d];
  }
  r->n = empty ? 0 : n;
  r->ndim = ndim;
  r->shape = shape;
}

/* calls 'f' with the Lua function at the top, which it pops */
static void run(lua_State *L, lua_CFunction f, Request *r) {
  opened(L);
  if (!ad_iscallable(L, -2))
    luaL_error(L, "%s: function expected, got %s", r->fname,
               luaL_typename(L, -2));
  if (r->n > INT_MAX / 2 || r->m > INT_MAX / 2)
    luaL_error(L, "%s: too many variables", r->fname);
  lua_pushcclosure(L, f, 1);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, r);
  lua_call(L, 2, 0);
}

/* "a table", "nil" */
static const char *described(lua_State *L, int idx) {
  if (lua_isnil(L, idx)) return "nil";
  if (ad_arrayvalued(L, ad_getstate(L), idx)) return "an array";
  return lua_pushfstring(L, "a %s", luaL_typename(L, idx));
}

/* a number, or what is differentiated as one? */
static int isnumber(lua_State *L, State *S, int idx) {
  return ad_isleaf(L, S, idx) && !ad_arrayvalued(L, S, idx);
}

static void checknumber(lua_State *L, State *S, const Request *r) {
  if (!isnumber(L, S, -1))
    luaL_error(L, "%s: function must return a number, got %s", r->fname,
               described(L, -1));
}

/* pushes numbers as the function takes them */
static void pushnumbers(lua_State *L, const Request *r, const double *x) {
  if (r->ndim) {
    ad_pusharray(L, r->ndim, r->shape, x);
    return;
  }
  lua_createtable(L, (int)r->n, 0);
  for (size_t i = 0; i < r->n; i++) {
    lua_pushnumber(L, x[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

/* pushes the list of variables, vars of the level: nodes 0, 1, ...; or the
   array, node 0 */
static void pushvars(lua_State *L, State *S, Level *lv, const Request *r) {
  if (r->ndim) {
    pushnumbers(L, r, r->x);
    ad_leafvar(L, S, lv, ad_at(lua_gettop(L)), 0);
    lua_remove(L, -2);
    return;
  }
  lua_createtable(L, (int)r->n, 0);
  for (size_t i = 0; i < r->n; i++) {
    ad_leafvar(L, S, lv, ad_num(r->x[i]), 0);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static int plain_call(lua_State *L) {
  State *S = ad_state(L);
  const Request *r = lua_touserdata(L, 2);
  lua_pushvalue(L, 1);
  pushnumbers(L, r, r->x);
  lua_call(L, 1, 1);
  checknumber(L, S, r);
  if (r->value) *r->value = ad_plain(L, S, -1);
  return 0;
}

/* a sweep from the result at 'result' for the cotangents of all variables */
static void sweep(lua_State *L, State *S, Sweep *w, Level *lv, int owner,
                  int result) {
  uint32_t node;
  ad_sweepbegin(L, w, lv, owner);
  lua_pushvalue(L, result);
  if (ad_nodeof(L, S, lv->key, &node)) {
    ad_sweepadd(L, w, node, ad_num(1));
    ad_sweepreverse(L, w, node + 1, 0);
  }
}

/* pops the value at the top, the array of n numbers or a number for all */
static void store(lua_State *L, State *S, double *to, size_t n, size_t step) {
  const int top = lua_gettop(L);
  ad_pushplain(L, S, top);
  if (lua_type(L, -1) == LUA_TNUMBER)
    for (size_t i = 0; i < n; i++) to[i * step] = lua_tonumber(L, -1);
  else {
    const Array *a = ad_packed(L, S, top + 1);
    for (size_t i = 0; i < n; i++) to[i * step] = a->data[i];
  }
  lua_settop(L, top - 1);
}

/* what a sweep has found for the variables */
static void storeinputs(lua_State *L, State *S, const Sweep *w,
                        const Request *r, double *to) {
  const int top = lua_gettop(L);
  for (size_t i = 0; i < (r->ndim ? 1 : r->n); i++) {
    ad_sweepget(L, w, (uint32_t)i);
    store(L, S, to + i, r->ndim ? r->n : 1, 1);
    lua_settop(L, top);
  }
}

static int gradient_call(lua_State *L) {
  State *S = ad_state(L);
  const Request *r = lua_touserdata(L, 2);
  Level *lv = ad_enter(L, S, AD_REVERSE);
  Sweep w;
  lua_toclose(L, 3);
  lua_pushvalue(L, 1);
  pushvars(L, S, lv, r);
  lua_call(L, 1, 1);
  checknumber(L, S, r);
  if (r->value) *r->value = ad_plain(L, S, 4);
  sweep(L, S, &w, lv, 3, 4);
  storeinputs(L, S, &w, r, r->grad);
  ad_sweepend(&w);
  return 0;
}

void ad_gradient(lua_State *L, size_t n, const double *x, double *value,
                 double *grad) {
  Request r = {"ad_gradient", 1, n, x, NULL, 0, 0, value, grad, NULL, 0, NULL};
  run(L, grad == NULL ? plain_call : gradient_call, &r);
}

void ad_arraygradient(lua_State *L, int ndim, const size_t *shape,
                      const double *x, double *value, double *grad) {
  Request r = {
      "ad_arraygradient", 1, 0, x, NULL, 0, 0, value, grad, NULL, 0, NULL};
  setshape(L, &r, ndim, shape);
  run(L, grad == NULL ? plain_call : gradient_call, &r);
}

/* number i of the result at index 4, which stays on the stack */
static void pushoutput(lua_State *L, State *S, const Request *r, size_t i) {
  if (ad_isleaf(L, S, 4))
    lua_pushvalue(L, 4);
  else
    lua_geti(L, 4, (lua_Integer)i + 1);
  if (!isnumber(L, S, -1))
    luaL_error(L, "%s: function must return numbers, got %s at index %d",
               r->fname, described(L, -1), (int)i + 1);
}

#define CONSTANT UINT32_MAX /* an output that does not depend on x */

/* the outputs: nodes of numbers, or one of an array */
typedef struct Outputs {
  uint32_t *node;
  size_t n; /* of nodes */
  int ndim; /* 0: numbers */
  size_t shape[AD_MAXDIM];
} Outputs;

/* columns first .. first+k-1 while all is numbers */
static void fastcolumns(lua_State *L, const Level *lv, const Request *r,
                        const uint32_t *node, size_t first, size_t k) {
  const size_t size = lv->tape.nnode * k * sizeof(double);
  double *dot = lua_newuserdatauv(L, size + 1, 0);
  memset(dot, 0, size);
  for (size_t d = 0; d < k; d++) dot[(first + d) * k + d] = 1;
  ad_tapeforward(&lv->tape, 0, lv->tape.nnode, dot, (int)k);
  for (size_t i = 0; i < r->m; i++)
    for (size_t d = 0; d < k; d++)
      r->out[i * r->n + first + d] =
          node[i] == CONSTANT ? 0 : dot[(size_t)node[i] * k + d];
  lua_pop(L, 1);
}

/* 1 for number i, of those that are nodes from 'node' on or one array */
static void seed(lua_State *L, Sweep *w, uint32_t node, size_t i, int ndim,
                 const size_t *shape) {
  if (ndim == 0)
    ad_sweepadd(L, w, node, ad_num(1));
  else {
    ad_pusharray(L, ndim, shape, NULL)[i] = 1;
    ad_sweepadd(L, w, node, ad_at(lua_gettop(L)));
  }
}

static void column(lua_State *L, State *S, Level *lv, const Request *r,
                   const Outputs *y, size_t j) {
  const int top = lua_gettop(L);
  Sweep w;
  ad_sweepbegin(L, &w, lv, 3);
  seed(L, &w, r->ndim ? 0 : (uint32_t)j, j, r->ndim, r->shape);
  ad_sweepforward(L, &w, 0, lv->tape.nnode);
  for (size_t i = 0; i < y->n; i++) {
    if (y->node[i] == CONSTANT)
      lua_pushnumber(L, 0);
    else
      ad_sweepget(L, &w, y->node[i]);
    store(L, S, &r->out[i * r->n + j], y->ndim ? r->m : 1, r->n);
  }
  ad_sweepend(&w);
  lua_settop(L, top);
}

static void row(lua_State *L, State *S, Level *lv, const Request *r,
                const Outputs *y, size_t i) {
  const uint32_t node = y->node[y->ndim ? 0 : i];
  const int top = lua_gettop(L);
  Sweep w;
  ad_sweepbegin(L, &w, lv, 3);
  if (node != CONSTANT) {
    seed(L, &w, node, i, y->ndim, y->shape);
    ad_sweepreverse(L, &w, node + 1, 0);
  }
  storeinputs(L, S, &w, r, &r->out[i * r->n]);
  ad_sweepend(&w);
  lua_settop(L, top);
}

/* looks at the result at index 4, which is to have m numbers */
static void findoutputs(lua_State *L, State *S, const Level *lv,
                        const Request *r, Outputs *y) {
  size_t size = 1;
  y->ndim = ad_arrayshape(L, 4, y->shape);
  for (int d = 0; d < y->ndim; d++) size *= y->shape[d];
  if (y->ndim ? size != r->m : !(r->m == 1 && ad_isleaf(L, S, 4))) {
    lua_Integer len;
    if (y->ndim)
      luaL_error(L, "%s: function must return %d numbers, got an array of %d",
                 r->fname, (int)r->m, (int)size);
    if (!lua_istable(L, 4))
      luaL_error(L,
                 "%s: function must return a list of %d numbers, "
                 "got %s",
                 r->fname, (int)r->m, described(L, 4));
    len = luaL_len(L, 4);
    if (len != (lua_Integer)r->m)
      luaL_error(L,
                 "%s: function must return a list of %d numbers, "
                 "got one of %I",
                 r->fname, (int)r->m, (LUAI_UACINT)len);
  }
  y->n = y->ndim ? 1 : r->m;
  y->node = lua_newuserdatauv(L, y->n * sizeof *y->node + 1, 0);
  for (size_t i = 0; i < y->n; i++) {
    if (y->ndim)
      lua_pushvalue(L, 4);
    else
      pushoutput(L, S, r, i);
    if (!ad_nodeof(L, S, lv->key, &y->node[i])) y->node[i] = CONSTANT;
    if (r->value)
      store(L, S, &r->value[i], y->ndim ? r->m : 1, 1);
    else
      lua_pop(L, 1);
  }
}

#define CHUNK 8

static int jacobian_call(lua_State *L) {
  State *S = ad_state(L);
  const Request *r = lua_touserdata(L, 2);
  Level *lv = ad_enter(L, S, AD_REVERSE);
  const Tape *t = &lv->tape;
  Outputs y;
  lua_toclose(L, 3);
  lua_pushvalue(L, 1);
  pushvars(L, S, lv, r);
  lua_call(L, 1, 1);
  findoutputs(L, S, lv, r, &y);
  if (r->m < r->n)
    for (size_t i = 0; i < r->m; i++) row(L, S, lv, r, &y, i);
  else if (!r->ndim && !y.ndim && t->ngeneral == 0 && t->dirs == 0 &&
           lv->ncall == 0)
    for (size_t j = 0; j < r->n; j += CHUNK)
      fastcolumns(L, lv, r, y.node, j, r->n - j < CHUNK ? r->n - j : CHUNK);
  else
    for (size_t j = 0; j < r->n; j++) column(L, S, lv, r, &y, j);
  return 0;
}

void ad_jacobian(lua_State *L, size_t m, size_t n, const double *x, double *y,
                 double *J) {
  Request r = {"ad_jacobian", m, n, x, NULL, 0, 0, y, NULL, J, 0, NULL};
  run(L, jacobian_call, &r);
}

void ad_arrayjacobian(lua_State *L, size_t m, int ndim, const size_t *shape,
                      const double *x, double *y, double *J) {
  Request r = {"ad_arrayjacobian", m, 0, x, NULL, 0, 0, y, NULL, J, 0, NULL};
  setshape(L, &r, ndim, shape);
  run(L, jacobian_call, &r);
}

static double direction(const Request *r, size_t i, int d) {
  return r->v ? r->v[i] : i == r->first + (size_t)d;
}

/* stores tangent d, at a level, of the value at the top */
static void tangent(lua_State *L, State *S, const Level *lv, int d, double *to,
                    size_t n) {
  const int top = lua_gettop(L);
  val t = ad_num(0);
  Arg a;
  ad_resolve(L, S, top, &a);
  if (a.key == lv->key) t = ad_part(L, &a, d);
  ad_pushval(L, t);
  store(L, S, to, n, 1);
  lua_settop(L, top);
}

/* the list of vars of duals */
static void pushpairs(lua_State *L, State *S, Level *below, Level *above,
                      const Request *r) {
  const int list = lua_gettop(L) + 1;
  lua_createtable(L, (int)r->n, 0);
  for (size_t i = 0; i < r->n; i++) {
    val part[CHUNK], x = ad_num(r->x[i]);
    int some = 0;
    for (int d = 0; d < r->k; d++) {
      part[d] = ad_num(direction(r, i, d));
      some |= part[d].n != 0;
    }
    if (some) x = ad_pushparts(L, S, below->key, AD_DUALN, x, r->k, part);
    ad_leafvar(L, S, above, x, 0);
    lua_rawseti(L, list, (lua_Integer)i + 1);
    lua_settop(L, list);
  }
}

/* the same, of arrays: one direction */
static void pusharraypair(lua_State *L, State *S, Level *below, Level *above,
                          const Request *r) {
  const int first = lua_gettop(L) + 1;
  val t;
  pushnumbers(L, r, r->x);
  pushnumbers(L, r, r->v);
  t = ad_at(first + 1);
  ad_leafvar(L, S, above,
             ad_pushparts(L, S, below->key, AD_DUALN, ad_at(first), 1, &t), 0);
  lua_replace(L, first);
  lua_settop(L, first);
}

/* duals below, a tape above: the gradient, and how it changes */
static int second_call(lua_State *L) {
  State *S = ad_state(L);
  const Request *r = lua_touserdata(L, 2);
  Level *below = ad_enter(L, S, AD_FORWARD), *above;
  Sweep w;
  below->order = r->k;
  below->depth = 1;
  lua_toclose(L, 3);
  above = ad_enter(L, S, AD_REVERSE);
  above->depth = 2;
  lua_toclose(L, 4);
  lua_pushvalue(L, 1);
  if (r->ndim)
    pusharraypair(L, S, below, above, r);
  else
    pushpairs(L, S, below, above, r);
  lua_call(L, 1, 1);
  checknumber(L, S, r);
  if (r->value) *r->value = ad_plain(L, S, 5);
  sweep(L, S, &w, above, 4, 5);
  for (size_t i = 0; i < (r->ndim ? 1 : r->n); i++) {
    const size_t n = r->ndim ? r->n : 1;
    ad_sweepget(L, &w, (uint32_t)i);
    for (int d = 0; d < r->k; d++)
      tangent(L, S, below, d + 1,
              r->v ? &r->out[i] : &r->out[i * r->n + r->first + (size_t)d], n);
    if (r->grad)
      store(L, S, &r->grad[i], n, 1);
    else
      lua_pop(L, 1);
  }
  ad_sweepend(&w);
  return 0;
}

void ad_hvp(lua_State *L, size_t n, const double *x, const double *v,
            double *value, double *grad, double *hv) {
  Request r = {"ad_hvp", 1, n, x, v, 0, 1, value, grad, hv, 0, NULL};
  run(L, second_call, &r);
}

void ad_arrayhvp(lua_State *L, int ndim, const size_t *shape, const double *x,
                 const double *v, double *value, double *grad, double *hv) {
  Request r = {"ad_arrayhvp", 1, 0, x, v, 0, 1, value, grad, hv, 0, NULL};
  setshape(L, &r, ndim, shape);
  run(L, second_call, &r);
}

void ad_hessian(lua_State *L, size_t n, const double *x, double *value,
                double *grad, double *H) {
  Request r = {"ad_hessian", 1, n, x, NULL, 0, 0, value, grad, H, 0, NULL};
  do { /* once for n = 0, too */
    r.k = n - r.first < CHUNK ? (int)(n - r.first) : CHUNK;
    ad_checkstack(L, 1, NULL);
    lua_pushvalue(L, -1);
    run(L, r.k ? second_call : plain_call, &r);
    r.first += CHUNK;
    r.value = r.grad = NULL;
  } while (r.first < n);
  lua_pop(L, 1);
}

/*
** Primitives: functions made by autodiff.custom, with rules that sum up the
** partial derivatives. These are user values 1, 2, ... of the record, then
** comes the name. 'PRIMITIVES' leads from a function to its record.
*/

typedef struct Primitive {
  ad_Function f;
  void *ud;
  int n;
} Primitive;

#define RECORD lua_upvalueindex(2) /* upvalue 1: the state */

static const char *nameof(lua_State *L, const Primitive *p) {
  lua_getiuservalue(L, RECORD, p->n + 1);
  return lua_tostring(L, -1);
}

/* the function itself, of numbers */
static int primitive_call(lua_State *L) {
  const Primitive *p = lua_touserdata(L, RECORD);
  double x[AD_MAXARGS];
  for (int i = 0; i < p->n; i++) {
    int isnum;
    x[i] = lua_tonumberx(L, i + 1, &isnum);
    if (!isnum)
      return ad_error(L, "bad argument #%d to '%s' (number expected, got %s)",
                      i + 1, nameof(L, p), luaL_typename(L, i + 1));
  }
  lua_pushnumber(L, p->f(L, p->ud, p->n, x));
  return 1;
}

/* partial derivative i at the arguments from index 'first' */
static val partialof(lua_State *L, State *S, const Primitive *p, int i,
                     int first) {
  switch (lua_getiuservalue(L, RECORD, i)) {
  case LUA_TNIL:
    ad_error(L, "primitive '%s': no derivative by argument %d", nameof(L, p),
             i);
    break;
  case LUA_TNUMBER:
    return ad_takeval(L);
  default:
    for (int k = 0; k < p->n; k++) lua_pushvalue(L, first + k);
    lua_call(L, p->n, 1);
    if (!isnumber(L, S, -1)) {
      const char *got = described(L, -1);
      ad_error(L,
               "primitive '%s': its derivative by argument %d must be a "
               "number, got %s",
               nameof(L, p), i, got);
    }
  }
  return ad_takeval(L);
}

/* jvp(primals, tangents, y) */
static int primitive_jvp(lua_State *L) {
  State *S = ad_state(L);
  const Primitive *p = lua_touserdata(L, RECORD);
  val dy = ad_num(0);
  lua_settop(L, 2);
  ad_checkstack(L, 2 * p->n + LUA_MINSTACK, NULL);
  lua_pushnil(L); /* dy */
  for (int i = 1; i <= p->n; i++) lua_rawgeti(L, 1, i);
  for (int i = 1; i <= p->n; i++) {
    const int top = lua_gettop(L);
    val t;
    lua_rawgeti(L, 2, i);
    t = ad_takeval(L);
    if (!ad_isnum(t, 0)) {
      dy = ad_chain(L, S, dy, t, partialof(L, S, p, i, 4));
      if (dy.i) {
        lua_copy(L, dy.i, 3);
        dy.i = 3;
      }
    }
    lua_settop(L, top);
  }
  ad_pushval(L, dy);
  return 1;
}

/* vjp(ybar, y, ...) */
static int primitive_vjp(lua_State *L) {
  State *S = ad_state(L);
  const Primitive *p = lua_touserdata(L, RECORD);
  val ybar;
  lua_settop(L, 2 + p->n);
  ad_checkstack(L, 2 * p->n + LUA_MINSTACK, NULL);
  ybar = ad_valat(L, 1);
  for (int i = 1; i <= p->n; i++) {
    const int top = lua_gettop(L);
    ad_pushval(L, ad_chain(L, S, ad_num(0), ybar, partialof(L, S, p, i, 3)));
    lua_copy(L, -1, top + 1);
    lua_settop(L, top + 1);
  }
  return p->n;
}

void ad_newprimitive(lua_State *L, const char *name, int nargs, ad_Function f,
                     void *ud) {
  static const luaL_Reg field[] = {{"f", primitive_call},
                                   {"jvp", primitive_jvp},
                                   {"vjp", primitive_vjp},
                                   {NULL, NULL}};
  int top;
  Primitive *p;
  opened(L);
  top = lua_gettop(L); /* the state */
  if (nargs < 1 || nargs > AD_MAXARGS)
    luaL_error(L, "ad_newprimitive: 1 to %d arguments expected", AD_MAXARGS);
  p = lua_newuserdatauv(L, sizeof *p, nargs + 1);
  p->f = f;
  p->ud = ud;
  p->n = nargs;
  lua_pushstring(L, name);
  lua_setiuservalue(L, -2, nargs + 1);
  lua_getfield(L, LUA_REGISTRYINDEX, CUSTOM);
  lua_createtable(L, 0, 5);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "notbyvalue");
  for (const luaL_Reg *l = field; l->name != NULL; l++) {
    lua_pushvalue(L, top);
    lua_pushvalue(L, top + 1);
    lua_pushcclosure(L, l->func, 2);
    lua_setfield(L, -2, l->name);
  }
  lua_call(L, 1, 1);
  if (!luaL_getsubtable(L, LUA_REGISTRYINDEX, PRIMITIVES)) {
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
  }
  lua_pushvalue(L, -2);
  lua_pushvalue(L, top + 1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  lua_replace(L, top);
  lua_settop(L, top);
}

void ad_setpartial(lua_State *L, int idx, int arg) {
  const Primitive *p;
  idx = lua_absindex(L, idx);
  opened(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, PRIMITIVES);
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  p = lua_touserdata(L, -1);
  if (p == NULL) luaL_error(L, "ad_setpartial: no primitive at the index");
  if (arg < 1 || arg > p->n)
    luaL_error(L, "ad_setpartial: no argument %d of %d", arg, p->n);
  lua_pushvalue(L, -4); /* below it: the state, the table, the record */
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushnumber(L, 0);
  } else if (lua_type(L, -1) != LUA_TNUMBER && !ad_iscallable(L, -1))
    luaL_error(L, "ad_setpartial: function expected, got %s",
               luaL_typename(L, -1));
  lua_setiuservalue(L, -2, arg);
  lua_pop(L, 4);
}

void ad_repl(lua_State *L) {
  opened(L);
  require(L, "autodiff.repl");
  lua_getfield(L, -1, "run");
  lua_newtable(L);
  lua_call(L, 1, 0);
  lua_pop(L, 2);
}
