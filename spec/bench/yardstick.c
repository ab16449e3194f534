/*
** yardstick.c
** What the benchmarks of arrays compare with: the same work in plain C. A
** module for Lua that is built when it is needed (see the Makefile).
*/
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "lauxlib.h"
#include "lua.h"

#define ALIGN 64

typedef void Gemm(int order, int ta, int tb, int m, int n, int k, double alpha,
                  const double *a, int lda, const double *b, int ldb,
                  double beta, double *c, int ldc);

typedef struct Job {
  Gemm *gemm;
  int n;
  double *a, *b, *c;
} Job;

static int run(lua_State *L) {
  Job *j = lua_touserdata(L, lua_upvalueindex(1));
  j->gemm(101 /* row-major */, 111, 111 /* as they are */, j->n, j->n, j->n, 1,
          j->a, j->n, j->b, j->n, 0, j->c, j->n);
  return 0;
}

/* gemm(library, n): a function that does one cblas_dgemm of that size */
static int gemm(lua_State *L) {
  void *lib = dlopen(luaL_checkstring(L, 1), RTLD_NOW | RTLD_LOCAL), *f;
  const int n = (int)luaL_checkinteger(L, 2);
  const size_t bytes = (size_t)n * (size_t)n * sizeof(double) + ALIGN;
  Job *j = lua_newuserdatauv(L, sizeof *j, 3);
  double **m[3];
  if (lib == NULL || (f = dlsym(lib, "cblas_dgemm")) == NULL)
    return luaL_error(L, "no cblas_dgemm in %s", lua_tostring(L, 1));
  memcpy(&j->gemm, &f, sizeof f);
  j->n = n;
  m[0] = &j->a, m[1] = &j->b, m[2] = &j->c;
  for (int i = 0; i < 3; i++) {
    char *p = lua_newuserdatauv(L, bytes, 0);
    lua_setiuservalue(L, -2, i + 1);
    p += ALIGN - (size_t)p % ALIGN;
    *m[i] = (double *)(void *)p;
    for (int e = 0; e < n * n; e++) (*m[i])[e] = rand() / (double)RAND_MAX;
  }
  lua_pushcclosure(L, run, 1);
  return 1;
}

int luaopen_yardstick(lua_State *L);

int luaopen_yardstick(lua_State *L) {
  static const luaL_Reg fn[] = {{"gemm", gemm}, {NULL, NULL}};
  luaL_newlib(L, fn);
  return 1;
}
