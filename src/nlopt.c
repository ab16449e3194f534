/*
** nlopt.c
** NLopt (S. G. Johnson, https://github.com/stevengj/nlopt), when it is
** installed: found at run time, so that neither its headers nor the library
** are needed to build. lua/autodiff/optim/nlopt.lua says what to ask of it.
**
** An error in a function of the user's must not jump over NLopt's frames:
** each is called in protected mode, and the first error value waits in the
** frame of 'optimize' until NLopt has returned. What NLopt allocates itself it
** takes from malloc.
*/
#define _POSIX_C_SOURCE 200809L

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "state.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#define HASDL 1
#else
#define HASDL 0
#endif

#define LIBRARY "autodiff.nlopt.library"
#define OPT "autodiff.nlopt.opt"

/* What is used of nlopt.h, version 2.7; its enumerations are ints here. */
typedef struct nlopt_opt_s *nlopt_opt;
typedef double (*nlopt_func)(unsigned n, const double *x, double *grad,
                             void *data);
typedef void (*nlopt_mfunc)(unsigned m, double *result, unsigned n,
                            const double *x, double *grad, void *data);

enum { FAILURE = -1, INVALID_ARGS = -2, OUT_OF_MEMORY = -3 };

typedef struct Library {
  void *handle;
  void (*version)(int *, int *, int *);
  const char *(*algorithm_to_string)(int);
  int (*algorithm_from_string)(const char *);
  const char *(*algorithm_name)(int);
  void (*srand)(unsigned long);
  nlopt_opt (*create)(int, unsigned);
  void (*destroy)(nlopt_opt);
  int (*optimize)(nlopt_opt, double *, double *);
  int (*set_min_objective)(nlopt_opt, nlopt_func, void *);
  int (*set_lower_bounds)(nlopt_opt, const double *);
  int (*set_upper_bounds)(nlopt_opt, const double *);
  int (*add_inequality_constraint)(nlopt_opt, nlopt_func, void *, double);
  int (*add_equality_constraint)(nlopt_opt, nlopt_func, void *, double);
  int (*add_inequality_mconstraint)(nlopt_opt, unsigned, nlopt_mfunc, void *,
                                    const double *);
  int (*add_equality_mconstraint)(nlopt_opt, unsigned, nlopt_mfunc, void *,
                                  const double *);
  int (*set_stopval)(nlopt_opt, double);
  int (*set_ftol_rel)(nlopt_opt, double);
  int (*set_ftol_abs)(nlopt_opt, double);
  int (*set_xtol_rel)(nlopt_opt, double);
  int (*set_xtol_abs)(nlopt_opt, const double *);
  int (*set_maxeval)(nlopt_opt, int);
  int (*set_maxtime)(nlopt_opt, double);
  int (*set_population)(nlopt_opt, unsigned);
  int (*set_vector_storage)(nlopt_opt, unsigned);
  int (*set_initial_step)(nlopt_opt, const double *);
  int (*set_local_optimizer)(nlopt_opt, nlopt_opt);
  int (*force_stop)(nlopt_opt);
  const char *(*get_errmsg)(nlopt_opt);
} Library;

/*
** The library
*/

/* gives it to the userdata at the top; complete even if an earlier call has
   broken off half way */
static void metatable(lua_State *L, const char *name, lua_CFunction gc) {
  luaL_newmetatable(L, name);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

#if HASDL

#define SYMBOL(name)                                                           \
  { "nlopt_" #name, offsetof(Library, name) }

static const struct {
  const char *name;
  size_t offset;
} symbols[] = {SYMBOL(version),
               SYMBOL(algorithm_to_string),
               SYMBOL(algorithm_from_string),
               SYMBOL(algorithm_name),
               SYMBOL(srand),
               SYMBOL(create),
               SYMBOL(destroy),
               SYMBOL(optimize),
               SYMBOL(set_min_objective),
               SYMBOL(set_lower_bounds),
               SYMBOL(set_upper_bounds),
               SYMBOL(add_inequality_constraint),
               SYMBOL(add_equality_constraint),
               SYMBOL(add_inequality_mconstraint),
               SYMBOL(add_equality_mconstraint),
               SYMBOL(set_stopval),
               SYMBOL(set_ftol_rel),
               SYMBOL(set_ftol_abs),
               SYMBOL(set_xtol_rel),
               SYMBOL(set_xtol_abs),
               SYMBOL(set_maxeval),
               SYMBOL(set_maxtime),
               SYMBOL(set_population),
               SYMBOL(set_vector_storage),
               SYMBOL(set_initial_step),
               SYMBOL(set_local_optimizer),
               SYMBOL(force_stop),
               SYMBOL(get_errmsg)};

static int library_gc(lua_State *L) {
  Library *lib = lua_touserdata(L, 1);
  if (lib->handle) dlclose(lib->handle);
  lib->handle = NULL;
  return 0;
}

/* load(name): the library; or nil and why not */
static int l_load(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  Library *lib = lua_newuserdatauv(L, sizeof *lib, 0);
  memset(lib, 0, sizeof *lib);
  metatable(L, LIBRARY, library_gc);
  lib->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (lib->handle == NULL) {
    const char *message = dlerror();
    lua_pushnil(L);
    lua_pushstring(L, message ? message : name);
    return 2;
  }
  for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
    void *p = dlsym(lib->handle, symbols[i].name);
    if (p == NULL) {
      lua_pushnil(L);
      lua_pushfstring(L, "%s has no %s: version 2.7 or newer is needed", name,
                      symbols[i].name);
      return 2;
    }
    memcpy((char *)lib + symbols[i].offset, &p, sizeof p);
  }
  return 1;
}

#else

static int l_load(lua_State *L) {
  lua_pushnil(L);
  lua_pushliteral(L, "this build cannot load libraries");
  return 2;
}

#endif

static const Library *checklibrary(lua_State *L) {
  return luaL_checkudata(L, 1, LIBRARY);
}

/* version(lib): "2.7.1" */
static int l_version(lua_State *L) {
  int major, minor, bugfix;
  checklibrary(L)->version(&major, &minor, &bugfix);
  lua_pushfstring(L, "%d.%d.%d", major, minor, bugfix);
  return 1;
}

/* algorithms(lib): each name that NLopt knows, with its description */
static int l_algorithms(lua_State *L) {
  const Library *lib = checklibrary(L);
  const char *name;
  lua_newtable(L);
  for (int i = 0; (name = lib->algorithm_to_string(i)) != NULL; i++) {
    lua_pushstring(L, lib->algorithm_name(i));
    lua_setfield(L, -2, name);
  }
  return 1;
}

/*
** optimize(lib, problem). The frame while NLopt runs:
*/
enum {
  ILIB = 1,
  IPROBLEM,
  IFUNCTIONS, /* list: the objective, then the constraints */
  IERROR,     /* the first error value */
  IOPT,
  IFUNDATA, /* array of Fun */
  IX,       /* array of n numbers */
  ISCRATCH  /* array of as many as the longest list has */
};

#define STOPPED 2

typedef struct Opt {
  const Library *lib;
  nlopt_opt opt, local;
  lua_State *L;
  int failed; /* by an error, or STOPPED */
} Opt;

typedef struct Fun {
  Opt *o;
  int index; /* in the list of functions */
} Fun;

/* what a call of the user's is about */
typedef struct Query {
  const Fun *fun;
  unsigned n, m;
  const double *x;
  double *result, *grad; /* m numbers; m rows of n, or NULL */
} Query;

static void release(Opt *o) {
  if (o->opt) o->lib->destroy(o->opt);
  if (o->local) o->lib->destroy(o->local);
  o->opt = o->local = NULL;
}

static int opt_gc(lua_State *L) {
  release(lua_touserdata(L, 1));
  return 0;
}

/* the numbers of the list at the top, which is popped */
static void numbers(lua_State *L, double *to, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i + 1);
    to[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* f(x, want): the list of m results and, where they are wanted, of m
   gradients; nil to stop. Protected, with the functions and the query as
   arguments */
static int evaluate(lua_State *L) {
  const Query *c = lua_touserdata(L, 2);
  lua_rawgeti(L, 1, c->fun->index);
  lua_createtable(L, (int)c->n, 0);
  for (unsigned i = 0; i < c->n; i++) {
    lua_pushnumber(L, c->x[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushboolean(L, c->grad != NULL);
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2)) {
    c->fun->o->failed = STOPPED;
    return 0;
  }
  luaL_checktype(L, -2, LUA_TTABLE);
  if (c->grad) {
    luaL_checktype(L, -1, LUA_TTABLE);
    for (unsigned i = 0; i < c->m; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i + 1);
      luaL_checktype(L, -1, LUA_TTABLE);
      numbers(L, c->grad + (size_t)i * c->n, c->n);
    }
  }
  lua_pop(L, 1);
  numbers(L, c->result, c->m);
  return 0;
}

static void call(const Query *c) {
  Opt *o = c->fun->o;
  lua_State *L = o->L;
  if (!o->failed) {
    /* room for these was made by 'optimize'; none of them allocates */
    lua_pushcfunction(L, evaluate);
    lua_pushvalue(L, IFUNCTIONS);
    lua_pushlightuserdata(L, (void *)(uintptr_t)c);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
      lua_replace(L, IERROR);
      o->failed = 1;
    }
    if (!o->failed) return;
  }
  o->lib->force_stop(o->opt);
  for (unsigned i = 0; i < c->m; i++) c->result[i] = HUGE_VAL;
  if (c->grad)
    for (size_t i = 0; i < (size_t)c->m * c->n; i++) c->grad[i] = 0;
}

static double scalar(unsigned n, const double *x, double *grad, void *data) {
  double y = HUGE_VAL;
  Query c;
  c.fun = data;
  c.n = n;
  c.m = 1;
  c.x = x;
  c.result = &y;
  c.grad = grad;
  call(&c);
  return y;
}

static void several(unsigned m, double *result, unsigned n, const double *x,
                    double *grad, void *data) {
  Query c;
  c.fun = data;
  c.n = n;
  c.m = m;
  c.x = x;
  c.result = result;
  c.grad = grad;
  call(&c);
}

static void check(lua_State *L, Opt *o, nlopt_opt opt, int result) {
  const char *message;
  if (result >= 0) return;
  if (result == OUT_OF_MEMORY) {
    release(o);
    luaL_error(L, "not enough memory");
  }
  message = opt ? o->lib->get_errmsg(opt) : NULL;
  lua_pushstring(L, message ? message
                    : result == INVALID_ARGS
                        ? "not possible with this algorithm"
                        : "it has failed");
  release(o);
  ad_error(L, "nlopt: %s", lua_tostring(L, -1));
}

/* the number in a field of the table at 'idx'; 0 if there is none */
static int field(lua_State *L, int idx, const char *name, double *v) {
  int there;
  lua_getfield(L, idx, name);
  there = lua_type(L, -1) == LUA_TNUMBER;
  *v = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return there;
}

static int list(lua_State *L, int idx, const char *name, double *to,
                unsigned n) {
  if (lua_getfield(L, idx, name) != LUA_TTABLE) {
    lua_pop(L, 1);
    return 0;
  }
  numbers(L, to, n);
  return 1;
}

static int toint(double v) { return v < INT_MAX ? (int)v : INT_MAX; }

/* the settings in the table at 'idx' */
static void settings(lua_State *L, Opt *o, nlopt_opt opt, int idx, unsigned n,
                     double *scratch) {
  const Library *lib = o->lib;
  double v;
  if (field(L, idx, "stopval", &v)) check(L, o, opt, lib->set_stopval(opt, v));
  if (field(L, idx, "ftol_rel", &v))
    check(L, o, opt, lib->set_ftol_rel(opt, v));
  if (field(L, idx, "ftol_abs", &v))
    check(L, o, opt, lib->set_ftol_abs(opt, v));
  if (field(L, idx, "xtol_rel", &v))
    check(L, o, opt, lib->set_xtol_rel(opt, v));
  if (field(L, idx, "maxeval", &v))
    check(L, o, opt, lib->set_maxeval(opt, toint(v)));
  if (field(L, idx, "maxtime", &v)) check(L, o, opt, lib->set_maxtime(opt, v));
  if (field(L, idx, "population", &v))
    check(L, o, opt, lib->set_population(opt, (unsigned)toint(v)));
  if (field(L, idx, "vector_storage", &v))
    check(L, o, opt, lib->set_vector_storage(opt, (unsigned)toint(v)));
  if (list(L, idx, "xtol_abs", scratch, n))
    check(L, o, opt, lib->set_xtol_abs(opt, scratch));
  if (list(L, idx, "initial_step", scratch, n))
    check(L, o, opt, lib->set_initial_step(opt, scratch));
}

static nlopt_opt create(lua_State *L, Opt *o, int idx, unsigned n) {
  int algorithm;
  nlopt_opt opt;
  lua_getfield(L, idx, "algorithm");
  algorithm = o->lib->algorithm_from_string(luaL_checkstring(L, -1));
  if (algorithm < 0) ad_error(L, "nlopt: no such algorithm");
  opt = o->lib->create(algorithm, n);
  if (opt == NULL) {
    release(o);
    luaL_error(L, "not enough memory");
  }
  lua_pop(L, 1);
  return opt;
}

/* the number of results of the constraint at the top */
static unsigned results(lua_State *L) {
  double m = 0;
  if (lua_type(L, -1) == LUA_TTABLE) field(L, lua_gettop(L), "m", &m);
  if (!(m >= 1 && m <= INT_MAX)) luaL_error(L, "nlopt: no constraint");
  return (unsigned)m;
}

/* the constraint is the table at the top, which is popped */
static void constraint(lua_State *L, Opt *o, Fun *fun, double *tol) {
  const Library *lib = o->lib;
  const int top = lua_gettop(L);
  int equality, one, result;
  unsigned m;
  lua_getfield(L, top, "equality");
  equality = lua_toboolean(L, -1);
  lua_getfield(L, top, "scalar");
  one = lua_toboolean(L, -1);
  lua_settop(L, top);
  m = results(L);
  list(L, top, "tol", tol, m);
  if (one)
    result = (equality ? lib->add_equality_constraint
                       : lib->add_inequality_constraint)(o->opt, scalar, fun,
                                                         tol[0]);
  else
    result = (equality ? lib->add_equality_mconstraint
                       : lib->add_inequality_mconstraint)(o->opt, m, several,
                                                          fun, tol);
  check(L, o, o->opt, result);
  lua_getfield(L, top, "f");
  lua_rawseti(L, IFUNCTIONS, fun->index);
  lua_settop(L, top - 1);
}

/* a list's length, as the unsigned of NLopt */
static unsigned length(lua_State *L, int idx) {
  const lua_Unsigned n = lua_rawlen(L, idx);
  if (n > INT_MAX) luaL_error(L, "nlopt: too many numbers");
  return (unsigned)n;
}

/*
** optimize(lib, {algorithm=, x=, f=, constraints=, lower=, upper=, settings=,
** inner=, seed=}): the code, x, the value, NLopt's message. All lists are of
** plain numbers.
*/
static int l_optimize(lua_State *L) {
  const Library *lib = checklibrary(L);
  unsigned n, nconstraint, nscratch = 0;
  double *x, *scratch, v, value = 0;
  Opt *o;
  Fun *fun;
  int result;
  luaL_checktype(L, IPROBLEM, LUA_TTABLE);
  lua_settop(L, IPROBLEM);
  lua_newtable(L); /* IFUNCTIONS */
  lua_getfield(L, IPROBLEM, "f");
  lua_rawseti(L, IFUNCTIONS, 1);
  lua_pushnil(L); /* IERROR */
  o = lua_newuserdatauv(L, sizeof *o, 1);
  memset(o, 0, sizeof *o);
  o->lib = lib;
  o->L = L;
  lua_pushvalue(L, ILIB); /* stays as long as its problems */
  lua_setiuservalue(L, IOPT, 1);
  metatable(L, OPT, opt_gc);
  lua_getfield(L, IPROBLEM, "constraints");
  luaL_checktype(L, -1, LUA_TTABLE);
  nconstraint = length(L, -1);
  for (unsigned i = 1; i <= nconstraint; i++) {
    unsigned m;
    lua_rawgeti(L, -1, (lua_Integer)i);
    m = results(L);
    if (m > nscratch) nscratch = m;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  lua_getfield(L, IPROBLEM, "x");
  luaL_checktype(L, -1, LUA_TTABLE);
  n = length(L, -1);
  lua_pop(L, 1);
  if (n > nscratch) nscratch = n;
  fun = lua_newuserdatauv(L, (nconstraint + 1) * sizeof *fun, 0);
  x = lua_newuserdatauv(L, (n + 1) * sizeof *x, 0);
  scratch = lua_newuserdatauv(L, ((size_t)nscratch + 1) * sizeof *scratch, 0);
  luaL_checkstack(L, 20, NULL);

  list(L, IPROBLEM, "x", x, n);
  o->opt = create(L, o, IPROBLEM, n);
  fun[0].o = o;
  fun[0].index = 1;
  check(L, o, o->opt, lib->set_min_objective(o->opt, scalar, fun));
  if (list(L, IPROBLEM, "lower", scratch, n))
    check(L, o, o->opt, lib->set_lower_bounds(o->opt, scratch));
  if (list(L, IPROBLEM, "upper", scratch, n))
    check(L, o, o->opt, lib->set_upper_bounds(o->opt, scratch));
  lua_getfield(L, IPROBLEM, "settings");
  settings(L, o, o->opt, lua_gettop(L), n, scratch);
  lua_pop(L, 1);
  if (lua_getfield(L, IPROBLEM, "inner") == LUA_TTABLE) {
    o->local = create(L, o, lua_gettop(L), n);
    settings(L, o, o->local, lua_gettop(L), n, scratch);
    check(L, o, o->opt, lib->set_local_optimizer(o->opt, o->local));
  }
  lua_pop(L, 1);
  lua_getfield(L, IPROBLEM, "constraints");
  for (unsigned i = 1; i <= nconstraint; i++) {
    fun[i].o = o;
    fun[i].index = (int)i + 1;
    lua_rawgeti(L, -1, (lua_Integer)i);
    constraint(L, o, fun + i, scratch);
  }
  lua_pop(L, 1);
  if (field(L, IPROBLEM, "seed", &v)) lib->srand((unsigned long)v);

  result = lib->optimize(o->opt, x, &value);
  if (o->failed && o->failed != STOPPED) {
    release(o);
    lua_settop(L, IERROR);
    return lua_error(L);
  }
  if (result == INVALID_ARGS || result == OUT_OF_MEMORY)
    check(L, o, o->opt, result);
  lua_pushinteger(L, result);
  lua_createtable(L, (int)n, 0);
  for (unsigned i = 0; i < n; i++) {
    lua_pushnumber(L, x[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushnumber(L, value);
  lua_pushstring(L, lib->get_errmsg(o->opt)); /* nil for NULL */
  release(o);
  return 4;
}

void ad_opennlopt(lua_State *L) {
  static const luaL_Reg fn[] = {{"load", l_load},
                                {"version", l_version},
                                {"algorithms", l_algorithms},
                                {"optimize", l_optimize},
                                {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, fn, 0);
  lua_setfield(L, -2, "nlopt");
}
