/*
** field.c
** A host that computes with a script's function of an array. The script
** measures a field on a grid, with noise, and says how well another one
** fits it: the sum of the squared differences to what was measured, and of
** those between neighbours. The host finds the best by Newton's method, whose
** system of equations, one for each point of the grid, it solves by conjugate
** gradients: that takes products with the Hessian, and no Hessian.
*/
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

#include "autodiff.h"

static const char script[] =
    "local ad = ...\n"
    "local n, m = 24, 40\n"
    "local y, x = ad.arange(1, n):reshape({n, 1}), ad.arange(1, m)\n"
    "local truth = ad.sin(x / 6) * ad.cos(y / 5)\n"
    "local measured = truth + 0.5 * ad.random(1):normal(n, m)\n"
    "local function energy(u)\n"
    "  local d = u - measured\n"
    "  local dy = u[{{2, n}}] - u[{{1, n - 1}}]\n"
    "  local dx = u[{{}, {2, m}}] - u[{{}, {1, m - 1}}]\n"
    "  return ad.sum(d * d) + 3 * (ad.sum(dx * dx) + ad.sum(dy * dy))\n"
    "end\n"
    "local function deviation(u) return ad.std(u - truth) end\n"
    "return energy, measured, deviation\n";

/* indices on the stack of what the script returns */
enum { ENERGY = 2, MEASURED, DEVIATION };

static double dot(size_t n, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* how far the script finds the field from what it was before the noise */
static double deviation(lua_State *L, const size_t *shape, const double *u) {
  double result;
  lua_pushvalue(L, DEVIATION);
  ad_pusharray(L, 2, shape, u);
  lua_call(L, 1, 1);
  result = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return result;
}

/* one step: u becomes u - H^-1 g; 'work' has room for four fields */
static int newton(lua_State *L, const size_t *shape, size_t n, double *u,
                  double *work, double *value) {
  double *r = work, *p = r + n, *hp = p + n, *step = hp + n;
  double rr, first;
  int count = 0;
  lua_pushvalue(L, ENERGY);
  ad_arraygradient(L, 2, shape, u, value, r);
  for (size_t i = 0; i < n; i++) {
    p[i] = r[i] = -r[i];
    step[i] = 0;
  }
  first = rr = dot(n, r, r);
  while (rr > 1e-20 * first && count < 1000) {
    double alpha, beta = rr;
    lua_pushvalue(L, ENERGY);
    ad_arrayhvp(L, 2, shape, u, p, NULL, NULL, hp);
    alpha = rr / dot(n, p, hp);
    for (size_t i = 0; i < n; i++) {
      step[i] += alpha * p[i];
      r[i] -= alpha * hp[i];
    }
    rr = dot(n, r, r);
    beta = rr / beta;
    for (size_t i = 0; i < n; i++) p[i] = r[i] + beta * p[i];
    count++;
  }
  for (size_t i = 0; i < n; i++) u[i] += step[i];
  return count;
}

static int run(lua_State *L) {
  size_t shape[AD_MAXDIMS], n;
  double *u, value, after;
  int products;
  luaL_openlibs(L);
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 3);
  ad_arrayshape(L, MEASURED, shape);
  n = shape[0] * shape[1];
  u = lua_newuserdatauv(L, 5 * n * sizeof *u, 0); /* and room to work */
  ad_getarray(L, MEASURED, n, u);
  printf("%d by %d points, as measured: off by %.3f\n", (int)shape[0],
         (int)shape[1], deviation(L, shape, u));
  products = newton(L, shape, n, u, u + n, &value);
  lua_pushvalue(L, ENERGY);
  ad_arraygradient(L, 2, shape, u, &after, u + n);
  printf("energy %.3f, after %d products with the Hessian %.3f\n", value,
         products, after);
  printf("gradient now %s 1e-6, field off by %.3f\n",
         sqrt(dot(n, u + n, u + n)) < 1e-6 ? "below" : "above",
         deviation(L, shape, u));
  return 0;
}

int main(void) {
  lua_State *L = luaL_newstate();
  int status;
  if (L == NULL) return EXIT_FAILURE;
  lua_pushcfunction(L, run);
  status = lua_pcall(L, 0, 0, 0);
  if (status != LUA_OK) fprintf(stderr, "field: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return status == LUA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
