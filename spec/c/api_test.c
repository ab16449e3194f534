/*
** api_test.c
** autodiff.h as a host sees it: each function, what it leaves on the stack,
** its errors, and that nothing leaks, also when requests for memory fail. No
** file is read.
**
**   api_test [stride]: each stride-th request is made to fail
*/

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

#include "autodiff.h"


static int passed, failed;

static void check(int ok, const char *what, int line) {
  if (ok)
    passed++;
  else {
    failed++;
    printf("api_test.c:%d: %s\n", line, what);
  }
}

#define CHECK(e) check(e, #e, __LINE__)

static int near(double a, double b) {
  return fabs(a - b) <= 1e-12 * (1 + fabs(b));
}

/* pushes what an expression gives */
static void eval(lua_State *L, const char *expression) {
  lua_pushfstring(L, "return %s", expression);
  if (luaL_loadstring(L, lua_tostring(L, -1)) != LUA_OK) lua_error(L);
  lua_remove(L, -2);
  lua_call(L, 0, 1);
}

/* does a call fail with this message (somewhere in the error)? */
static int fails(lua_State *L, lua_CFunction f, const char *message) {
  const int top = lua_gettop(L);
  int ok;
  lua_pushcfunction(L, f);
  ok = lua_pcall(L, 0, 0, 0) != LUA_OK;
  if (ok && strstr(luaL_tolstring(L, -1, NULL), message) == NULL) {
    printf("got: %s\n", lua_tostring(L, -1));
    ok = 0;
  }
  lua_settop(L, top);
  return ok;
}

/*
** Values
*/

static void values(lua_State *L) {
  const double t[2] = {3, 4};
  double out[3] = {0, 0, 0};
  const int top = lua_gettop(L);
  CHECK(ad_type(L, top + 5) == AD_TNONE && ad_value(L, top + 5) == 0);
  lua_pushnumber(L, 2.5);
  CHECK(ad_type(L, -1) == AD_TNUMBER && ad_value(L, -1) == 2.5);
  CHECK(ad_tangents(L, -1, 3, out) == 0);
  lua_pushstring(L, "2");
  CHECK(ad_type(L, -1) == AD_TNONE && ad_value(L, -1) == 0);
  lua_newuserdatauv(L, 64, 0);
  CHECK(!ad_isvalue(L, -1));
  ad_pushdual(L, 2, 2, t);
  CHECK(ad_type(L, -1) == AD_TDUAL && ad_isvalue(L, -1));
  lua_pushvalue(L, -1);
  lua_arith(L, LUA_OPMUL);
  CHECK(ad_value(L, -1) == 4);
  CHECK(ad_tangents(L, -1, 1, out) == 2 && out[0] == 12 && out[1] == 0);
  CHECK(ad_tangents(L, -1, 3, out) == 2 && out[1] == 16);
  eval(L, "ad.dual(ad.dual(2, 1), ad.dual(5, 1))");
  CHECK(ad_value(L, -1) == 2 && ad_tangents(L, -1, 1, out) == 1);
  CHECK(out[0] == 5);
  eval(L, "ad.var(7)");
  CHECK(ad_type(L, -1) == AD_TVAR && ad_value(L, -1) == 7);
  CHECK(strcmp(ad_typename(ad_type(L, -1)), "var") == 0);
  CHECK(strcmp(ad_typename(99), "none") == 0);
  CHECK(lua_gettop(L) == top + 6);
  lua_settop(L, top);
}

/*
** Arrays
*/

/* a sum over a matrix, element by element */
static void definetotal(lua_State *L) {
  eval(L, "function(x) local s = 0 for i = 1, #x do for j = 1, #x[i] do"
          " s = s + x[{i, j}] end end return s end");
  lua_setglobal(L, "total");
}

static void arrays(lua_State *L) {
  const size_t shape[2] = {2, 3}, none[2] = {0, 3};
  const double x[6] = {1, 2, 3, 4, 5, 6};
  double out[6] = {0, 0, 0, 0, 0, 0}, *p;
  size_t got[AD_MAXDIMS];
  const int top = lua_gettop(L);
  p = ad_pusharray(L, 2, shape, x);
  CHECK(lua_gettop(L) == top + 1 && ad_arraydata(L, -1) == p && p[5] == 6);
  CHECK(ad_type(L, -1) == AD_TARRAY && ad_isvalue(L, -1));
  CHECK(strcmp(ad_typename(AD_TARRAY), "array") == 0);
  CHECK(ad_value(L, -1) == 0 && ad_tangents(L, -1, 6, out) == 0);
  CHECK(ad_arrayshape(L, -1, NULL) == 2);
  CHECK(ad_arrayshape(L, -1, got) == 2 && got[0] == 2 && got[1] == 3);
  CHECK(ad_getarray(L, -1, 0, NULL) == 6);
  CHECK(ad_getarray(L, -1, 6, out) == 6 && out[5] == 6);
  lua_setglobal(L, "a");
  p = ad_pusharray(L, 2, shape, NULL);
  CHECK(p[0] == 0 && p[5] == 0);
  p[4] = 7;
  lua_setglobal(L, "b");
  eval(L, "a + b");
  CHECK(ad_getarray(L, -1, 6, out) == 6 && out[4] == 12 && out[5] == 6);
  eval(L, "a[{{}, {1, 3, 2}}]"); /* 1 3 4 6: they lie apart */
  CHECK(ad_arraydata(L, -1) == NULL && ad_type(L, -1) == AD_TARRAY);
  CHECK(ad_getarray(L, -1, 4, out) == 4 && out[1] == 3 && out[2] == 4);
  CHECK(ad_getarray(L, -1, 2, out + 2) == 4 && out[3] == 3 && out[4] == 12);
  ad_pusharray(L, 2, none, NULL);
  CHECK(ad_arrayshape(L, -1, got) == 2 && got[0] == 0 && got[1] == 3);
  CHECK(ad_getarray(L, -1, 6, out) == 0);
  eval(L, "ad.var(a)");
  CHECK(ad_type(L, -1) == AD_TVAR && ad_value(L, -1) == 0);
  CHECK(ad_arraydata(L, -1) == NULL && ad_arrayshape(L, -1, got) == 2);
  CHECK(ad_getarray(L, -1, 6, out) == 6 && out[3] == 4);
  eval(L, "(function() local d ad.jvp(function(x) d = x return x end,"
          " {a}, {b}) return d end)()");
  CHECK(ad_tangents(L, -1, 6, out) == 0 && ad_getarray(L, -1, 6, out) == 6);
  lua_pushnumber(L, 3);
  CHECK(ad_arrayshape(L, -1, got) == 0 && ad_getarray(L, -1, 6, out) == 0);
  CHECK(ad_arraydata(L, -1) == NULL);
  lua_newuserdatauv(L, 8, 0);
  CHECK(ad_arrayshape(L, -1, got) == 0 && ad_arraydata(L, -1) == NULL);
  CHECK(ad_arrayshape(L, top + 50, got) == 0);
  CHECK(lua_gettop(L) == top + 7);
  lua_settop(L, top);
}

static void ofarrays(lua_State *L) {
  const size_t shape[2] = {2, 2}, none[1] = {0};
  const double x[4] = {1, 2, 3, 4}, v[4] = {1, 0, 0, -1};
  double y[8], g[4], h[4], J[32];
  const int top = lua_gettop(L);
  definetotal(L);
  eval(L, "function(x) return total(x * x * x) + x[{1, 2}] end");
  lua_pushvalue(L, -1);
  ad_arraygradient(L, 2, shape, x, y, g);
  CHECK(lua_gettop(L) == top + 1 && y[0] == 102);
  CHECK(g[0] == 3 && g[1] == 13 && g[2] == 27 && g[3] == 48);
  lua_pushvalue(L, -1);
  ad_arraygradient(L, 2, shape, x, y + 1, NULL);
  CHECK(y[1] == 102);
  lua_pushvalue(L, -1);
  ad_arrayhvp(L, 2, shape, x, v, y, g, h);
  CHECK(y[0] == 102 && g[1] == 13);
  CHECK(h[0] == 6 && h[1] == 0 && h[2] == 0 && h[3] == -24);
  lua_pushvalue(L, -1);
  ad_arrayhvp(L, 2, shape, x, v, NULL, NULL, h);
  CHECK(h[3] == -24);
  ad_arrayjacobian(L, 1, 2, shape, x, y, J);
  CHECK(y[0] == 102 && J[1] == 13 && J[3] == 48 && lua_gettop(L) == top);
  /* an array of fewer, as many and more numbers; lists */
  eval(L, "function(x) return x[1] * x[{2, 1}] end");
  ad_arrayjacobian(L, 2, 2, shape, x, y, J);
  CHECK(y[0] == 3 && y[1] == 6 && J[0] == 3 && J[1] == 0 && J[2] == 1);
  CHECK(J[3] == 0 && J[4] == 0 && J[5] == 3 && J[6] == 2 && J[7] == 0);
  eval(L, "function(x) return x * x end");
  ad_arrayjacobian(L, 4, 2, shape, x, NULL, J);
  CHECK(J[0] == 2 && J[5] == 4 && J[10] == 6 && J[15] == 8 && J[1] == 0);
  CHECK(J[4] == 0 && J[14] == 0);
  eval(L, "function(x) return ad.array{x, 2 * x} end");
  ad_arrayjacobian(L, 8, 2, shape, x, y, J);
  CHECK(y[7] == 8 && J[0] == 1 && J[16] == 2 && J[31] == 2 && J[30] == 0);
  eval(L, "function(x) return {x[{1, 1}] * x[{1, 2}], 5, total(x), 0, 0} end");
  ad_arrayjacobian(L, 5, 2, shape, x, y, J);
  CHECK(y[0] == 2 && y[1] == 5 && y[2] == 10);
  CHECK(J[0] == 2 && J[1] == 1 && J[2] == 0 && J[4] == 0 && J[11] == 1);
  eval(L, "function(x) return ad.array{x[1] * x[2], x[2], 7} end");
  ad_jacobian(L, 3, 2, x, y, J);
  CHECK(y[0] == 2 && y[2] == 7 && J[0] == 2 && J[1] == 1 && J[3] == 1);
  CHECK(J[4] == 0 && J[5] == 0);
  /* what does not depend on x; nothing to depend on */
  eval(L, "function(x) return ad.ones(2) end");
  lua_pushvalue(L, -1);
  ad_arrayjacobian(L, 2, 2, shape, x, y, J);
  CHECK(y[1] == 1 && J[0] == 0 && J[7] == 0);
  ad_jacobian(L, 2, 1, x, y, J);
  CHECK(y[1] == 1 && J[0] == 0 && J[1] == 0);
  eval(L, "function(x) return #x end");
  ad_arraygradient(L, 1, none, x, y, g);
  CHECK(y[0] == 0);
  eval(L, "function() return 3 end");
  ad_arraygradient(L, 2, shape, x, y, g);
  CHECK(y[0] == 3 && g[0] == 0 && g[3] == 0 && lua_gettop(L) == top);
}

/*
** Derivatives
*/

static void gradients(lua_State *L) {
  const double x[3] = {2, 3, 5}, v[3] = {1, 0, -1};
  double y[4], g[3], h[9], J[12];
  const int top = lua_gettop(L);
  eval(L, "function(x) return x[1]^2 * x[2] + ad.sin(x[3]) end");
  lua_pushvalue(L, -1);
  ad_gradient(L, 3, x, y, g);
  CHECK(lua_gettop(L) == top + 1);
  CHECK(near(y[0], 12 + sin(5.0)));
  CHECK(g[0] == 12 && g[1] == 4 && near(g[2], cos(5.0)));
  lua_pushvalue(L, -1);
  ad_gradient(L, 3, x, y + 1, NULL);
  CHECK(y[0] == y[1]);
  lua_pushvalue(L, -1);
  ad_gradient(L, 3, x, NULL, g);
  lua_pushvalue(L, -1);
  ad_hvp(L, 3, x, v, y, g, h);
  CHECK(near(y[0], 12 + sin(5.0)) && g[0] == 12 && near(g[2], cos(5.0)));
  CHECK(h[0] == 6 && h[1] == 4 && near(h[2], sin(5.0)));
  lua_pushvalue(L, -1);
  ad_hvp(L, 3, x, v, NULL, NULL, h);
  CHECK(h[0] == 6);
  ad_hessian(L, 3, x, y, g, h);
  CHECK(lua_gettop(L) == top && near(y[0], 12 + sin(5.0)) && g[1] == 4);
  CHECK(h[0] == 6 && h[1] == 4 && h[2] == 0 && h[3] == 4 && h[4] == 0);
  CHECK(h[5] == 0 && h[6] == 0 && h[7] == 0 && near(h[8], -sin(5.0)));
  /* more outputs than inputs, and fewer */
  eval(L, "function(x) return {x[1] * x[2], 7, x[3], x[1]^2} end");
  ad_jacobian(L, 4, 3, x, y, J);
  CHECK(y[0] == 6 && y[1] == 7 && y[2] == 5 && y[3] == 4);
  CHECK(J[0] == 3 && J[1] == 2 && J[2] == 0 && J[3] == 0 && J[8] == 1);
  CHECK(J[9] == 4 && J[10] == 0 && J[11] == 0);
  eval(L, "function(x) return {x[1] * x[2], x[3]^2} end");
  ad_jacobian(L, 2, 3, x, NULL, J);
  CHECK(J[0] == 3 && J[1] == 2 && J[2] == 0 && J[5] == 10);
  eval(L, "function(x) return x[1] * x[2] end");
  ad_jacobian(L, 1, 3, x, y, J);
  CHECK(y[0] == 6 && J[0] == 3 && J[1] == 2 && J[2] == 0);
  /* a rule in Lua on the tape, and values of other levels in partials */
  eval(L, "(function() local sq = ad.custom{name='sq',"
          "  f=function(x) return x*x end,"
          "  vjp=function(b, _, x) return 2*x*b end}"
          "  return function(x) return {sq(x[1]), sq(x[1]) * x[2],"
          "    ad.grad(function(t) return t^3 * x[2] end)(x[1])} end end)()");
  ad_jacobian(L, 3, 2, x, y, J);
  CHECK(y[0] == 4 && y[1] == 12 && y[2] == 36);
  CHECK(J[0] == 4 && J[1] == 0 && J[2] == 12 && J[3] == 4 && J[4] == 36);
  CHECK(J[5] == 12 && lua_gettop(L) == top);
  eval(L, "function(x) return 3 end");
  ad_gradient(L, 0, x, y, g);
  eval(L, "function(x) return #x end");
  ad_hessian(L, 0, x, y + 1, g, h);
  CHECK(y[0] == 3 && y[1] == 0 && lua_gettop(L) == top);
}

/* a function of n variables, for the chunks of directions */
static void large(lua_State *L) {
  enum { N = 19 };
  double x[N], g[N], v[N], hv[N], y;
  double *H = malloc(N * N * sizeof *H);
  int ok = H != NULL;
  for (int i = 0; i < N; i++) x[i] = 0.1 * i - 0.7, v[i] = i % 3 - 1.0;
  eval(L, "function(x) local s = 0 for i = 1, #x do"
          " s = s + ad.exp(x[i]) * x[(i % #x) + 1]^2 end return s end");
  lua_pushvalue(L, -1);
  ad_hvp(L, N, x, v, NULL, NULL, hv);
  lua_pushvalue(L, -1);
  if (ok) ad_hessian(L, N, x, &y, g, H);
  for (int i = 0; ok && i < N; i++) {
    double s = 0;
    for (int j = 0; j < N; j++) {
      s += H[i * N + j] * v[j];
      ok = ok && near(H[i * N + j], H[j * N + i]);
    }
    ok = ok && near(s, hv[i]);
  }
  CHECK(ok);
  lua_pop(L, 1);
  free(H);
}

/* called by a script in the middle of a transform of its own */
static int l_slope(lua_State *L) {
  double x = ad_value(L, 1), g;
  lua_settop(L, 2);
  ad_gradient(L, 1, &x, NULL, &g);
  lua_pushnumber(L, g);
  return 1;
}

static void inside(lua_State *L) {
  lua_pushcfunction(L, l_slope);
  lua_setglobal(L, "slope");
  eval(L, "ad.grad(function(x)"
          " return x * slope(x, function(v) return v[1]^2 * x end) end)(3)");
  CHECK(lua_tonumber(L, -1) == 18);
  lua_pop(L, 1);
}

#define FAILING(name, expression, call)                                        \
  static int name(lua_State *L) {                                              \
    const double x[2] = {1, 2};                                                \
    double out[8];                                                             \
    eval(L, expression);                                                       \
    call;                                                                      \
    (void)x, (void)out;                                                        \
    return 0;                                                                  \
  }

FAILING(f_table, "function(x) return x end", ad_gradient(L, 2, x, NULL, out))
FAILING(f_nil, "function(x) end", ad_hvp(L, 2, x, x, NULL, NULL, out))
FAILING(f_throws, "function(x) error('thrown') end",
        ad_hessian(L, 2, x, NULL, NULL, out))
FAILING(f_array, "function(x) return ad.ones(2) end",
        ad_gradient(L, 2, x, NULL, out))
FAILING(f_arrays, "function(x) return {ad.ones(2), 1} end",
        ad_jacobian(L, 2, 2, x, NULL, out))
FAILING(f_size, "function(x) return ad.ones(2, 2) end",
        ad_jacobian(L, 2, 2, x, NULL, out))
FAILING(f_dims, "1", ad_pusharray(L, 9, (const size_t[9]){1}, x))
FAILING(f_huge, "1",
        ad_pusharray(L, 2, (const size_t[2]){SIZE_MAX / 2, 9}, NULL))
FAILING(f_hugest, "1", ad_pusharray(L, 1, (const size_t[1]){SIZE_MAX}, NULL))
FAILING(f_nodims, "print", ad_arraygradient(L, 0, NULL, x, NULL, out))
FAILING(f_many, "print",
        ad_arraygradient(L, 2, (const size_t[2]){SIZE_MAX, 2}, x, NULL, out))
FAILING(f_save, "ad.save",
        (lua_pushliteral(L, "x"), lua_pushnumber(L, 1), lua_call(L, 2, 0)))
FAILING(f_load, "ad.load", (lua_pushliteral(L, "x"), lua_call(L, 1, 0)))
FAILING(f_nofunction, "42", ad_gradient(L, 2, x, NULL, out))
FAILING(f_length, "function(x) return {1} end",
        ad_jacobian(L, 2, 2, x, NULL, out))
FAILING(f_element, "function(x) return {1, {}} end",
        ad_jacobian(L, 2, 2, x, NULL, out))
FAILING(f_nolist, "function(x) return x[1] end",
        ad_jacobian(L, 2, 2, x, NULL, out))
FAILING(f_dual, "1", ad_pushdual(L, 1, 0, x))
FAILING(f_partial, "print", (lua_pushnil(L), ad_setpartial(L, -2, 1)))
FAILING(f_repl, "1", ad_repl(L))

static void errors(lua_State *L) {
  CHECK(fails(L, f_table,
              "ad_gradient: function must return a number, got a "
              "table"));
  CHECK(fails(L, f_nil, "ad_hvp: function must return a number, got nil"));
  CHECK(fails(L, f_throws, "thrown"));
  CHECK(fails(L, f_array,
              "ad_gradient: function must return a number, got an array"));
  CHECK(fails(L, f_arrays, "must return numbers, got an array at index 1"));
  CHECK(fails(L, f_size, "must return 2 numbers, got an array of 4"));
  CHECK(fails(L, f_dims, "ad_pusharray: 1 to 8 dimensions expected"));
  CHECK(fails(L, f_huge, "array is too large"));
  CHECK(fails(L, f_hugest, "array is too large"));
  CHECK(fails(L, f_nodims, "ad_arraygradient: 1 to 8 dimensions expected"));
  CHECK(fails(L, f_many, "ad_arraygradient: too many variables"));
  CHECK(fails(L, f_save, "save: the host has not opened Lua's libraries io"));
  CHECK(fails(L, f_load, "load: the host has not opened Lua's libraries io"));
  CHECK(fails(L, f_nofunction, "ad_gradient: function expected, got number"));
  CHECK(fails(L, f_length, "a list of 2 numbers, got one of 1"));
  CHECK(fails(L, f_element, "must return numbers, got a table at index 2"));
  CHECK(fails(L, f_nolist, "a list of 2 numbers, got a userdata"));
  CHECK(fails(L, f_dual, "tangents expected"));
  CHECK(fails(L, f_partial, "no primitive at the index"));
  eval(L, "ad.repl == nil");
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_getfield(L, -1, "autodiff.repl");
  if (lua_isnil(L, -1))
    CHECK(fails(L, f_repl, "module 'autodiff.repl' not found"));
  lua_pop(L, 3);
}

/*
** Primitives
*/

static double product(lua_State *L, void *ud, int n, const double *x) {
  (void)n;
  if (x[0] > 1e6) luaL_error(L, "too large");
  ++*(int *)ud;
  return x[0] * x[0] * x[1];
}

static double sine(lua_State *L, void *ud, int n, const double *x) {
  (void)L, (void)ud, (void)n;
  return sin(x[0]);
}

static double cosine(lua_State *L, void *ud, int n, const double *x) {
  (void)L, (void)ud, (void)n;
  return cos(x[0]);
}

/* -sin, with the Lua stack as the calculator */
static int l_minussine(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_arith(L, LUA_OPUNM);
  return 1;
}

static void number(lua_State *L, const char *expression, double expected,
                   int line) {
  eval(L, expression);
  check(near(lua_tonumber(L, -1), expected), expression, line);
  lua_pop(L, 1);
}

#define NUMBER(e, x) number(L, e, x, __LINE__)

FAILING(f_nopartial, "ad.grad(bare)", (lua_pushnumber(L, 1), lua_call(L, 1, 0)))
FAILING(f_badarg, "bare", (lua_pushliteral(L, "x"), lua_call(L, 1, 0)))
FAILING(f_raises, "p",
        (lua_pushnumber(L, 1e7), lua_pushnumber(L, 1), lua_call(L, 2, 0)))
FAILING(f_nonsense, "ad.grad(wrong)", (lua_pushnumber(L, 1), lua_call(L, 1, 0)))

static void primitives(lua_State *L) {
  const double x[2] = {2, 3};
  double H[4], g[2];
  int calls = 0;
  const int top = lua_gettop(L);
  ad_newprimitive(L, "product", 2, product, &calls);
  CHECK(lua_gettop(L) == top + 1 && lua_isfunction(L, -1));
  eval(L, "function(x, y) return 2 * x * y end");
  ad_setpartial(L, -2, 1);
  eval(L, "function(x) return x^2 end");
  ad_setpartial(L, top + 1, 2);
  CHECK(lua_gettop(L) == top + 1);
  lua_setglobal(L, "p");
  NUMBER("p(2, 3)", 12);
  CHECK(calls == 1);
  NUMBER("ad.grad(p)(2, 3)", 12);
  NUMBER("ad.grad(p, 2)(2, 3)", 4);
  NUMBER("select(2, ad.jvp(p, {2, 3}, {1, 1}))", 16);
  NUMBER("ad.taylor(function(t) return p(t, t) end, 2, 3)[3]", 6);
  NUMBER("ad.derivative(function(t) return p(t, t) end, 3)(2)", 6);
  NUMBER("ad.grad(ad.grad(function(t) return p(t, t) end))(2)", 12);
  eval(L, "function(v) return p(v[1], v[2]) end");
  ad_hessian(L, 2, x, NULL, g, H);
  CHECK(g[0] == 12 && g[1] == 4);
  CHECK(H[0] == 6 && H[1] == 4 && H[2] == 4 && H[3] == 0);
  CHECK(fails(L, f_raises, "too large"));

  /* two that are each other's derivatives */
  ad_newprimitive(L, "sine", 1, sine, NULL);
  ad_newprimitive(L, "cosine", 1, cosine, NULL);
  lua_pushvalue(L, -1);
  ad_setpartial(L, -3, 1);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, l_minussine, 1);
  ad_setpartial(L, -2, 1);
  lua_setglobal(L, "cosine");
  lua_setglobal(L, "sine");
  NUMBER("ad.grad(ad.grad(sine))(0.3)", -sin(0.3));
  NUMBER("ad.derivative(sine, 5)(0.3)", cos(0.3));
  NUMBER("ad.hessian(function(x) return sine(x) * cosine(x) end)(0.3)",
         -2 * sin(0.6));

  ad_newprimitive(L, "bare", 1, sine, NULL);
  lua_setglobal(L, "bare");
  CHECK(fails(L, f_nopartial, "primitive 'bare': no derivative by argument 1"));
  CHECK(fails(L, f_badarg,
              "bad argument #1 to 'bare' (number expected, got "
              "string)"));
  ad_newprimitive(L, "wrong", 1, sine, NULL);
  eval(L, "function() return {} end");
  ad_setpartial(L, -2, 1);
  lua_setglobal(L, "wrong");
  CHECK(fails(L, f_nonsense,
              "primitive 'wrong': its derivative by argument 1 "
              "must be a number, got a table"));
  ad_newprimitive(L, "constants", 2, product, &calls);
  lua_pushnumber(L, 5);
  ad_setpartial(L, -2, 1);
  lua_pushnil(L);
  ad_setpartial(L, -2, 2);
  lua_setglobal(L, "constants");
  NUMBER("ad.grad(constants)(1, 1)", 5);
  NUMBER("ad.grad(constants, 2)(1, 1)", 0);
  CHECK(lua_gettop(L) == top);
}

/* what a script does to the globals is not the module's business */
static void tampering(lua_State *L) {
  eval(L, "(function() table.unpack, table.move, ipairs, setmetatable ="
          " nil; select, error = nil; math.floor = nil return 1 end)()");
  lua_pop(L, 1);
  NUMBER("ad.hessian(function(x) return x^3 end)(2)", 12);
  NUMBER("ad.grad(p)(2, 3)", 12);
}

static int run(lua_State *L) {
  static const luaL_Reg libs[] = {{LUA_GNAME, luaopen_base},
                                  {LUA_TABLIBNAME, luaopen_table},
                                  {LUA_STRLIBNAME, luaopen_string},
                                  {LUA_MATHLIBNAME, luaopen_math}};
  CHECK(fails(L, luaopen_autodiff, "autodiff needs Lua's basic functions"));
  for (size_t i = 0; i < sizeof libs / sizeof libs[0]; i++) {
    luaL_requiref(L, libs[i].name, libs[i].func, 1);
    lua_pop(L, 1);
  }
  CHECK(fails(L, f_table, "autodiff is not open in this state"));
  lua_pushnil(L);
  CHECK(ad_type(L, -1) == AD_TNONE);
  lua_pop(L, 1);
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  CHECK(lua_gettop(L) == 1);
  lua_getfield(L, -1, "_VERSION");
  CHECK(strcmp(lua_tostring(L, -1), AUTODIFF_VERSION) == 0);
  lua_pop(L, 1);
  lua_getglobal(L, "autodiff");
  CHECK(lua_isnil(L, -1));
  lua_pop(L, 1);
  lua_setglobal(L, "ad");
  values(L);
  arrays(L);
  ofarrays(L);
  gradients(L);
  large(L);
  inside(L);
  errors(L);
  primitives(L);
  tampering(L);
  CHECK(lua_gettop(L) == 0);
  return 0;
}

/* with all libraries, 'require' finds the module and its parts */
static int withpackage(lua_State *L) {
  luaL_openlibs(L);
  eval(L, "(function() package.path, package.cpath = '', '' end)()");
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  lua_setglobal(L, "ad");
  eval(L, "require 'autodiff' == ad"
          " and require 'autodiff.custom' == ad.custom"
          " and type(require 'autodiff.core') == 'table'");
  CHECK(lua_toboolean(L, -1));
  /* errors name the user's line, not the module's */
  eval(L, "select(2, pcall(load('\\nad.jacobian(function() end)(1)',"
          " '=user')))");
  CHECK(strncmp(lua_tostring(L, -1), "user:2: jacobian", 16) == 0);
  if (failed) printf("%s\n", lua_tostring(L, -1));
  /* the module goes on writing files when scripts have no io any more */
  eval(L, "(function() local path, remove = os.tmpname(), os.remove"
          " io, os = nil ad.save(path, {ad.ones(2), x = 3})"
          " local t = ad.load(path) remove(path)"
          " return t.x == 3 and t[1][2] == 1 end)()");
  CHECK(lua_toboolean(L, -1));
  eval(L, "(function() local undo = ad.install() local ok = math == ad.math"
          " undo() return ok and math ~= ad.math end)()");
  CHECK(lua_toboolean(L, -1));
  return 0;
}

/*
** Memory, with books, and a request that fails
*/

typedef struct Memory {
  size_t bytes;
  long requests; /* new or growing blocks */
  long fail;     /* the first request to be refused, of two; 0: none */
  int refused;
} Memory;

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
  Memory *m = ud;
  if (p == NULL) osize = 0;
  if (nsize == 0) {
    m->bytes -= osize;
    free(p);
    return NULL;
  }
  if (nsize > osize) {
    m->requests++;
    /* Lua asks twice, with a collection in between */
    if (m->fail && (m->requests == m->fail || m->requests == m->fail + 1)) {
      m->refused = 1;
      return NULL;
    }
  }
  p = realloc(p, nsize);
  if (p) m->bytes += nsize - osize;
  return p;
}

/* everything once, from opening the module on */
static int usage(lua_State *L) {
  enum { N = 9 };
  const size_t shape[2] = {3, 3};
  static int calls; /* that nobody looks at */
  double x[N], y[N], g[N], v[N], J[N * N];
  for (int i = 0; i < N; i++) x[i] = v[i] = i + 1;
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  lua_setglobal(L, "ad");
  eval(L, "function(x) local s = 0 for i = 1, #x do s = s + ad.sin(x[i])^2 end"
          " return s end");
  lua_pushvalue(L, -1);
  ad_gradient(L, N, x, y, g);
  lua_pushvalue(L, -1);
  ad_gradient(L, N, x, y, NULL);
  lua_pushvalue(L, -1);
  ad_hvp(L, N, x, v, y, g, v);
  ad_hessian(L, N, x, y, g, J);
  if (!near(J[N + 1], 2 * cos(4.0))) luaL_error(L, "wrong");
  eval(L, "function(x) local y = {} for i = 1, #x do y[i] = x[i]^2 * x[1] end"
          " return y end");
  lua_pushvalue(L, -1);
  ad_jacobian(L, N, N, x, y, J);
  if (J[N + 1] != 4) luaL_error(L, "wrong");
  ad_newprimitive(L, "product", 2, product, &calls);
  eval(L, "function(x, y) return 2 * x * y end");
  ad_setpartial(L, -2, 1);
  eval(L, "function(x) return x^2 end");
  ad_setpartial(L, -2, 2);
  lua_setglobal(L, "p");
  eval(L, "ad.grad(ad.grad(function(t) return p(t, t) end))(2)");
  if (lua_tonumber(L, -1) != 12) luaL_error(L, "wrong");
  definetotal(L);
  eval(L, "function(x) return total(x * x) * x[{1, 1}] end");
  lua_pushvalue(L, -1);
  ad_arraygradient(L, 2, shape, x, y, g);
  lua_pushvalue(L, -1);
  ad_arrayhvp(L, 2, shape, x, x, y, g, v);
  ad_arrayjacobian(L, 1, 2, shape, x, y, J);
  if (g[1] != 4 || J[1] != 4 || v[1] != 8) luaL_error(L, "wrong");
  eval(L, "function(x) return (x * x)[{{}, {1, 3, 2}}] end");
  ad_arrayjacobian(L, 6, 2, shape, x, y, J);
  if (J[0] != 2 || J[N + 2] != 6) luaL_error(L, "wrong");
  ad_pusharray(L, 2, shape, x);
  if (ad_getarray(L, -1, 3, y) != N) luaL_error(L, "wrong");
  ad_pushdual(L, 1, N, x);
  if (ad_tangents(L, -1, N, y) != N || y[1] != 2) luaL_error(L, "wrong");
  return 0;
}

static int openlibs(lua_State *L) {
  luaL_openlibs(L);
  return 0;
}

/* 1 if a request was refused */
static int starve(long fail) {
  Memory m = {0, 0, 0, 0};
  lua_State *L = lua_newstate(allocate, &m);
  int status;
  if (L == NULL) exit(EXIT_FAILURE);
  lua_pushcfunction(L, openlibs);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) exit(EXIT_FAILURE);
  lua_pushcfunction(L, usage);
  m.requests = 0;
  m.fail = fail;
  status = lua_pcall(L, 0, 0, 0);
  m.fail = 0;
  if (status != LUA_OK && (!m.refused || status != LUA_ERRMEM)) {
    failed++;
    printf("request %ld: %s\n", fail, lua_tostring(L, -1));
  } else
    passed++;
  lua_settop(L, 0);
  lua_pushcfunction(L, usage); /* all is well again */
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    failed++;
    printf("after request %ld: %s\n", fail, lua_tostring(L, -1));
  } else
    passed++;
  lua_close(L);
  if (m.bytes != 0) {
    failed++;
    printf("request %ld: leak of %lu bytes\n", fail, (unsigned long)m.bytes);
  }
  return m.refused;
}

static void session(lua_CFunction f) {
  Memory m = {0, 0, 0, 0};
  lua_State *L = lua_newstate(allocate, &m);
  if (L == NULL) exit(EXIT_FAILURE);
  lua_pushcfunction(L, f);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    printf("api_test: %s\n", luaL_tolstring(L, -1, NULL));
    failed++;
  }
  lua_close(L);
  CHECK(m.bytes == 0);
}

int main(int argc, char **argv) {
  const long stride = argc > 1 ? atol(argv[1]) : 7;
  session(run);
  session(withpackage);
  for (long n = 1; starve(n); n += stride) continue;
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
