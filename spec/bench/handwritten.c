/*
** handwritten.c
** Values and gradients written by hand, as C functions for Lua: what programs
** are measured against. Compiled by compiled.lua.
*/
#include <math.h>
#include <stdlib.h>

#include "lauxlib.h"
#include "lua.h"

/* exp(x1) - x1 x2 + cos(x2): value and both derivatives */
static int l_notebook(lua_State *L) {
  const double x1 = luaL_checknumber(L, 1), x2 = luaL_checknumber(L, 2);
  const double e = exp(x1);
  lua_pushnumber(L, e - x1 * x2 + cos(x2));
  lua_pushnumber(L, e - x2);
  lua_pushnumber(L, -x1 - sin(x2));
  return 3;
}

/* ... at a hundred points, without anything of Lua */
static int l_notebooks(lua_State *L) {
  const double x1 = luaL_checknumber(L, 1), x2 = luaL_checknumber(L, 2);
  double y = 0, d1 = 0, d2 = 0;
  for (int i = 1; i <= 100; i++) {
    const double a = x1 + i * 0.01, e = exp(a);
    y += e - a * x2 + cos(x2 + a);
    d1 += e - x2 - sin(x2 + a);
    d2 += -a - sin(x2 + a);
  }
  lua_pushnumber(L, y);
  lua_pushnumber(L, d1);
  lua_pushnumber(L, d2);
  return 3;
}

static double *numbers(lua_State *L, size_t *n) {
  double *x;
  *n = lua_rawlen(L, 1);
  x = lua_newuserdatauv(L, *n * 2 * sizeof *x + 1, 0);
  for (size_t i = 0; i < *n; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    x[i] = luaL_checknumber(L, -1);
    x[*n + i] = 0;
    lua_pop(L, 1);
  }
  return x;
}

static int answer(lua_State *L, double y, size_t n, const double *g) {
  lua_pushnumber(L, y);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, g[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 2;
}

static int l_rosenbrock(lua_State *L) {
  size_t n;
  double *x = numbers(L, &n), *g = x + n, s = 0;
  for (size_t i = 0; i + 1 < n; i++) {
    const double a = x[i + 1] - x[i] * x[i], b = 1 - x[i];
    s += 100 * a * a + b * b;
    g[i] += -400 * a * x[i] - 2 * b;
    g[i + 1] += 200 * a;
  }
  return answer(L, s, n, g);
}

/* a network 32-64-64-1 with tanh at x, and its derivatives, or their sum */
static inline double network(const double *w, const double *x, double *g,
                             int add) {
  static const int size[4] = {32, 64, 64, 1};
  double a[4][64], d[4][64];
  const double *u = w;
  for (int i = 0; i < 32; i++) a[0][i] = x[i];
  for (int l = 0; l < 3; l++)
    for (int j = 0; j < size[l + 1]; j++) {
      double s = *u++;
      for (int i = 0; i < size[l]; i++) s += u[i] * a[l][i];
      u += size[l];
      a[l + 1][j] = l < 2 ? tanh(s) : s;
    }
  d[3][0] = 1;
  for (int l = 2; l >= 0; l--) {
    u -= (size_t)size[l + 1] * (size_t)(size[l] + 1);
    for (int i = 0; i < size[l]; i++) d[l][i] = 0;
    for (int j = 0; j < size[l + 1]; j++) {
      const double *v = u + (size_t)j * (size_t)(size[l] + 1);
      double *h = g + (v - w);
      const double e =
          l < 2 ? d[l + 1][j] * (1 - a[l + 1][j] * a[l + 1][j]) : d[l + 1][j];
      h[0] = add ? h[0] + e : e;
      for (int i = 0; i < size[l]; i++) {
        h[1 + i] = add ? h[1 + i] + e * a[l][i] : e * a[l][i];
        d[l][i] += e * v[1 + i];
      }
    }
  }
  return a[3][0];
}

/* ... where input i is sin(i/10) */
static int l_network(lua_State *L) {
  size_t n;
  double *w = numbers(L, &n), *g = w + n, x[32];
  for (int i = 0; i < 32; i++) x[i] = sin((i + 1) * 0.1);
  return answer(L, network(w, x, g, 0), n, g);
}

/* the sum over many inputs, which are what l_block has made of a list */
static int l_networks(lua_State *L) {
  size_t n;
  const double *x = lua_touserdata(L, 2);
  const size_t rows = lua_rawlen(L, 2) / (32 * sizeof *x);
  double *w = numbers(L, &n), *g = w + n, y = 0;
  for (size_t r = 0; r < rows; r++) y += network(w, x + r * 32, g, 1);
  return answer(L, y, n, g);
}

static int l_block(lua_State *L) {
  const size_t n = lua_rawlen(L, 1);
  double *x = lua_newuserdatauv(L, n * sizeof *x, 0);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    x[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  return 1;
}

/* RK4 of the Lorenz system, and the adjoint of the last x */
typedef struct Lorenz {
  double x[3];
} Lorenz;

static void slope(const double *u, const double *p, double *k) {
  k[0] = p[0] * (u[1] - u[0]);
  k[1] = u[0] * (p[1] - u[2]) - u[1];
  k[2] = u[0] * u[1] - p[2] * u[2];
}

static void back(const double *u, const double *p, const double *k, double *du,
                 double *dp) {
  du[0] += -p[0] * k[0] + (p[1] - u[2]) * k[1] + u[1] * k[2];
  du[1] += p[0] * k[0] - k[1] + u[0] * k[2];
  du[2] += -u[0] * k[1] - p[2] * k[2];
  dp[0] += (u[1] - u[0]) * k[0];
  dp[1] += u[0] * k[1];
  dp[2] += -u[2] * k[2];
}

static int l_lorenz(lua_State *L) {
  enum { STEPS = 1000 };
  const double h = 0.01, c[4] = {0, h / 2, h / 2, h},
               w[4] = {h / 6, h / 3, h / 3, h / 6};
  Lorenz *u = malloc((STEPS * 4 + 1) * sizeof *u);
  double p[3], dp[3] = {0, 0, 0}, du[3] = {1, 0, 0}, x[3], y;
  for (int i = 0; i < 3; i++) {
    x[i] = luaL_checknumber(L, i + 1);
    p[i] = luaL_checknumber(L, i + 4);
  }
  for (int s = 0; s < STEPS; s++) {
    double k[3] = {0, 0, 0}, n[3] = {x[0], x[1], x[2]};
    for (int j = 0; j < 4; j++) {
      Lorenz *v = &u[s * 4 + j];
      for (int i = 0; i < 3; i++) v->x[i] = x[i] + c[j] * k[i];
      slope(v->x, p, k);
      for (int i = 0; i < 3; i++) n[i] += w[j] * k[i];
    }
    for (int i = 0; i < 3; i++) x[i] = n[i];
  }
  y = x[0];
  for (int s = STEPS; s-- > 0;) {
    double sum[3] = {du[0], du[1], du[2]}, dv[3] = {0, 0, 0};
    for (int j = 4; j-- > 0;) {
      double k[3];
      for (int i = 0; i < 3; i++) {
        k[i] = w[j] * du[i] + (j < 3 ? c[j + 1] * dv[i] : 0);
      }
      for (int i = 0; i < 3; i++) dv[i] = 0;
      back(u[s * 4 + j].x, p, k, dv, dp);
      for (int i = 0; i < 3; i++) sum[i] += dv[i];
    }
    for (int i = 0; i < 3; i++) du[i] = sum[i];
  }
  free(u);
  lua_pushnumber(L, y);
  for (int i = 0; i < 3; i++) lua_pushnumber(L, du[i]);
  for (int i = 0; i < 3; i++) lua_pushnumber(L, dp[i]);
  return 7;
}

int luaopen_handwritten(lua_State *L);

int luaopen_handwritten(lua_State *L) {
  static const luaL_Reg fn[] = {
      {"notebook", l_notebook},     {"notebooks", l_notebooks},
      {"rosenbrock", l_rosenbrock}, {"network", l_network},
      {"lorenz", l_lorenz},         {"networks", l_networks},
      {"block", l_block},           {NULL, NULL}};
  luaL_newlib(L, fn);
  return 1;
}
