/*
** loops.c
** What arrays are measured against: the same loops in C, and the same network
** in C with the BLAS by hand. A module for Lua, built by bench/arrays.lua with
** -O3 -march=native. Each function makes a function that does the work once.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>

#include "lauxlib.h"

typedef void Gemm(int order, int ta, int tb, int m, int n, int k, double alpha,
                  const double *a, int lda, const double *b, int ldb,
                  double beta, double *c, int ldc);

enum { ROW = 101, NO = 111, YES = 112 };

/* what a job needs: its sizes, and its numbers in the same block */
typedef struct Job {
  int n[4];
  Gemm *gemm;
  double *x[12];
  volatile double sink;
} Job;

/* a job with arrays of the given sizes; 'run' is to be the function */
static Job *newjob(lua_State *L, int arrays, const size_t *size) {
  size_t total = 0;
  Job *job;
  double *at;
  for (int i = 0; i < arrays; i++) total += size[i] + 8;
  job = lua_newuserdatauv(L, sizeof *job + 64 + total * sizeof *at, 0);
  at = (double *)(((size_t)(job + 1) + 63) & ~(size_t)63);
  for (int i = 0; i < arrays; i++) {
    job->x[i] = at;
    for (size_t k = 0; k < size[i]; k++)
      at[k] = -0.05 + 1e-4 * (double)(k % 997);
    at += (size[i] + 7) & ~(size_t)7;
  }
  return job;
}

static Job *thejob(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static int made(lua_State *L, lua_CFunction run) {
  lua_pushcclosure(L, run, 1);
  return 1;
}

static size_t checksize(lua_State *L, int arg) {
  return (size_t)luaL_checkinteger(L, arg);
}

static Gemm *blas(lua_State *L) {
  void *lib = dlopen("libopenblas.so.0", RTLD_NOW);
  void *f = lib ? dlsym(lib, "cblas_dgemm") : NULL;
  if (f == NULL) luaL_error(L, "no OpenBLAS");
  return *(Gemm **)(void *)&f;
}

__attribute__((noinline)) static void add(size_t n, double *restrict y,
                                          const double *a, const double *b) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

__attribute__((noinline)) static void exps(size_t n, double *restrict y,
                                           const double *a) {
  for (size_t i = 0; i < n; i++) y[i] = exp(a[i]);
}

__attribute__((noinline)) static void addrow(size_t n, size_t m,
                                             double *restrict y,
                                             const double *a, const double *b) {
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < m; j++) y[i * m + j] = a[i * m + j] + b[j];
}

__attribute__((noinline)) static double logsumexp(size_t n, const double *x) {
  double m = x[0], s = 0;
  for (size_t i = 1; i < n; i++) m = x[i] > m ? x[i] : m;
  for (size_t i = 0; i < n; i++) s += exp(x[i] - m);
  return m + log(s);
}

static int run_add(lua_State *L) {
  const Job *j = thejob(L);
  add((size_t)j->n[0], j->x[0], j->x[1], j->x[2]);
  return 0;
}

static int l_add(lua_State *L) { /* add(n) */
  const size_t n = checksize(L, 1), size[3] = {n, n, n};
  newjob(L, 3, size)->n[0] = (int)n;
  return made(L, run_add);
}

static int run_exp(lua_State *L) {
  const Job *j = thejob(L);
  exps((size_t)j->n[0], j->x[0], j->x[1]);
  return 0;
}

static int l_exp(lua_State *L) { /* exp(n) */
  const size_t n = checksize(L, 1), size[2] = {n, n};
  newjob(L, 2, size)->n[0] = (int)n;
  return made(L, run_exp);
}

static int run_addrow(lua_State *L) {
  const Job *j = thejob(L);
  addrow((size_t)j->n[0], (size_t)j->n[1], j->x[0], j->x[1], j->x[2]);
  return 0;
}

static int l_addrow(lua_State *L) { /* addrow(n, m) */
  const size_t n = checksize(L, 1), m = checksize(L, 2),
               size[3] = {n * m, n * m, m};
  Job *j = newjob(L, 3, size);
  j->n[0] = (int)n, j->n[1] = (int)m;
  return made(L, run_addrow);
}

static int run_logsumexp(lua_State *L) {
  Job *j = thejob(L);
  j->sink = logsumexp((size_t)j->n[0], j->x[0]);
  return 0;
}

static int l_logsumexp(lua_State *L) { /* logsumexp(n) */
  const size_t n = checksize(L, 1), size[1] = {n};
  newjob(L, 1, size)->n[0] = (int)n;
  return made(L, run_logsumexp);
}

static int run_gemm(lua_State *L) {
  const Job *j = thejob(L);
  const int n = j->n[0];
  j->gemm(ROW, NO, NO, n, n, n, 1, j->x[1], n, j->x[2], n, 0, j->x[0], n);
  return 0;
}

static int l_gemm(lua_State *L) { /* gemm(n) */
  const size_t n = checksize(L, 1), size[3] = {n * n, n * n, n * n};
  Gemm *gemm = blas(L);
  Job *j = newjob(L, 3, size);
  j->n[0] = (int)n;
  j->gemm = gemm;
  return made(L, run_gemm);
}

/*
** net(batch, inputs, hidden, classes): value and gradients of the mean
** cross-entropy of  softmax(tanh(x W1 + b1) W2 + b2)
*/
static int run_net(lua_State *L) {
  Job *j = thejob(L);
  const int B = j->n[0], I = j->n[1], H = j->n[2], C = j->n[3];
  const size_t b = (size_t)B, h = (size_t)H, c = (size_t)C;
  double *x = j->x[0], *w1 = j->x[1], *b1 = j->x[2], *w2 = j->x[3],
         *b2 = j->x[4], *z = j->x[5], *o = j->x[6], *gw1 = j->x[7],
         *gb1 = j->x[8], *gw2 = j->x[9], *gb2 = j->x[10], *gz = j->x[11];
  double loss = 0;
  j->gemm(ROW, NO, NO, B, H, I, 1, x, I, w1, H, 0, z, H);
  for (size_t i = 0; i < b; i++)
    for (size_t k = 0; k < h; k++) z[i * h + k] = tanh(z[i * h + k] + b1[k]);
  j->gemm(ROW, NO, NO, B, C, H, 1, z, H, w2, C, 0, o, C);
  for (size_t i = 0; i < b; i++) {
    double *row = o + i * c, m = -HUGE_VAL, s = 0;
    for (size_t k = 0; k < c; k++) {
      row[k] += b2[k];
      if (row[k] > m) m = row[k];
    }
    for (size_t k = 0; k < c; k++) s += exp(row[k] - m);
    loss += m + log(s) - row[i % c];
    for (size_t k = 0; k < c; k++)
      row[k] = (exp(row[k] - m) / s - (k == i % c)) / (double)b;
  }
  j->gemm(ROW, YES, NO, H, C, B, 1, z, H, o, C, 0, gw2, C);
  j->gemm(ROW, NO, YES, B, H, C, 1, o, C, w2, C, 0, gz, H);
  for (size_t k = 0; k < c; k++) gb2[k] = 0;
  for (size_t i = 0; i < b; i++)
    for (size_t k = 0; k < c; k++) gb2[k] += o[i * c + k];
  for (size_t k = 0; k < h; k++) gb1[k] = 0;
  for (size_t i = 0; i < b; i++)
    for (size_t k = 0; k < h; k++) {
      gz[i * h + k] *= 1 - z[i * h + k] * z[i * h + k];
      gb1[k] += gz[i * h + k];
    }
  j->gemm(ROW, YES, NO, I, H, B, 1, x, I, gz, H, 0, gw1, H);
  j->sink = loss;
  return 0;
}

static int l_net(lua_State *L) {
  const size_t b = checksize(L, 1), in = checksize(L, 2), h = checksize(L, 3),
               c = checksize(L, 4);
  const size_t size[12] = {b * in, in * h, h, h * c, c, b * h,
                           b * c,  in * h, h, h * c, c, b * h};
  Gemm *gemm = blas(L);
  Job *j = newjob(L, 12, size);
  j->gemm = gemm;
  j->n[0] = (int)b, j->n[1] = (int)in, j->n[2] = (int)h, j->n[3] = (int)c;
  return made(L, run_net);
}

int luaopen_loops(lua_State *L);

int luaopen_loops(lua_State *L) {
  static const luaL_Reg fn[] = {
      {"add", l_add},   {"exp", l_exp}, {"addrow", l_addrow},
      {"gemm", l_gemm}, {"net", l_net}, {"logsumexp", l_logsumexp},
      {NULL, NULL}};
  luaL_newlib(L, fn);
  return 1;
}
