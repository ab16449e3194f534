/*
** primitive.c
** Functions of C that Lua code can differentiate: the Bessel functions J0
** and J1 of the C library (POSIX). Their derivatives,
**
**   J0'(x) = -J1(x)      J1'(x) = J0(x) - J1(x) / x,
**
** refer to each other, and so there are derivatives of every order. A script
** checks them against the differential equations that the functions solve.
*/
#define _XOPEN_SOURCE 600

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

#include "autodiff.h"

/* what 'ud' points to: any function of the C library will do */
typedef struct Unary {
  double (*f)(double);
} Unary;

static double unary(lua_State *L, void *ud, int n, const double *x) {
  (void)L, (void)n;
  return ((const Unary *)ud)->f(x[0]);
}

/* the derivative of J0, computed on Lua's stack; upvalue: J1 */
static int slope0(lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  lua_arith(L, LUA_OPUNM);
  return 1;
}

static const char slope1[] =
    "local J0, J1 = ...\n"
    "return function(x) return J0(x) - J1(x) / x end\n";

static const char script[] =
    "local ad, J0, J1 = ...\n"
    "print('  x    J0(x)       by ad.grad   J0\\'\\'(x)    x J0\\'\\' + J0\\' "
    "+ x J0')\n"
    "for x = 1, 5 do\n"
    "  local d1 = ad.grad(J0)(x)\n"
    "  local d2 = ad.grad(ad.grad(J0))(x)\n"
    "  print(('%3d  %10.7f  %10.7f  %10.7f  %8.0e'):format(x, J0(x), d1, d2,\n"
    "    x * d2 + d1 + x * J0(x)))\n"
    "  assert(math.abs(x * d2 + d1 + x * J0(x)) < 1e-14)\n"
    "end\n"
    "-- a drum: J0(r) in the plane solves laplace(u) = -u\n"
    "local function drum(p) return J0(ad.hypot(p[1], p[2])) end\n"
    "local H = ad.hessian(drum)({1.2, 0.7})\n"
    "print(('laplace(u) = %.12f, -u = %.12f'):format(H[1][1] + H[2][2],\n"
    "  -drum{1.2, 0.7}))\n"
    "assert(math.abs(H[1][1] + H[2][2] + drum{1.2, 0.7}) < 1e-14)\n"
    "print(('J1 at 2, fourth derivative: %.12f'):format(\n"
    "  ad.derivative(J1, 4)(2)))\n";

static int run(lua_State *L) {
  Unary *bessel = lua_touserdata(L, 1);
  lua_settop(L, 0);
  luaL_openlibs(L);
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  ad_newprimitive(L, "J0", 1, unary, &bessel[0]); /* index 2 */
  ad_newprimitive(L, "J1", 1, unary, &bessel[1]); /* index 3 */
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, slope0, 1);
  ad_setpartial(L, 2, 1);
  if (luaL_loadstring(L, slope1) != LUA_OK) return lua_error(L);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_call(L, 2, 1);
  ad_setpartial(L, 3, 1);
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  lua_insert(L, 1);
  lua_call(L, 3, 0);
  return 0;
}

int main(void) {
  lua_State *L = luaL_newstate();
  Unary bessel[] = {{j0}, {j1}};
  int ok;
  if (L == NULL) return EXIT_FAILURE;
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, bessel);
  ok = lua_pcall(L, 1, 0, 0) == LUA_OK;
  if (!ok) fprintf(stderr, "primitive: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
