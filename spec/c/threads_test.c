/*
** threads_test.c
** Four threads with a state each, running a mixed workload at the same time.
** What each computes is compared, bit by bit, with what a single thread
** computes: states share nothing. Most telling under ThreadSanitizer. To be
** run in the project's root. Needs the module's objects, Lua, libm and
** threads:
**
**   cc -std=c11 -O2 -pthread -Isrc -I/usr/include/lua5.4 -o threads_test \
**     spec/c/threads_test.c <the module's .c files> -llua5.4 -lm
**   threads_test [rounds]
*/

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

int luaopen_autodiff_core(lua_State *L);


#define NTHREADS 4

/* states that each thread opens, uses and closes, one after the other */
#define ROUNDS 4


/*
** The workload: a function of the thread's number that returns a string
** with every bit of its results. In pieces, as C limits its literals.
*/
static const char values[] =
    "local ad, k = require 'autodiff', ...\n"
    "local out = {}\n"
    "local function put(...)\n"
    "  for i = 1, select('#', ...) do\n"
    "    out[#out + 1] = ('%a'):format(ad.value((select(i, ...))))\n"
    "  end\n"
    "end\n"
    "local function f(x, y)\n"
    "  local s = x * k\n"
    "  for i = 1, 20 do\n"
    "    s = ad.sin(s) + ad.exp(-s * s) * y / i\n"
    "    if s > 0.5 then s = s - ad.tanh(y) else s = s + ad.log1p(y * y) end\n"
    "  end\n"
    "  return s + ad.lgamma(2 + x * x) + ad.digamma(1 + y * y) + ad.erf(x)\n"
    "    + ad.norm{x, y} + ad.logsumexp{x, y, 1} + ad.softmax({x, y})[1]\n"
    "    + ad.prod{x, y, s} + ad.max(x, y) + ad.atan2(y, 2 + x * x) + x % 0.7\n"
    "end\n"
    "local names = {'acos', 'asin', 'atan', 'cos', 'exp', 'tan', 'sinh',\n"
    "  'cosh', 'tanh', 'asinh', 'atanh', 'exp2', 'expm1', 'log1p', 'log2',\n"
    "  'log10', 'cbrt', 'erf', 'erfc', 'lgamma', 'digamma', 'sigmoid',\n"
    "  'softplus', 'relu', 'sign', 'sqrt', 'abs'}\n"
    "for _, name in ipairs(names) do\n"
    "  local g = ad[name]\n"
    "  put(g(0.1 * k), ad.grad(g)(0.1 * k), ad.derivative(g, 2)(0.1 * k))\n"
    "end\n"
    "for i = 1, 40 do\n"
    "  local x, y = 0.3 + i / 50, 1.7 - i / 40\n"
    "  put(ad.grad(f, {1, 2})(x, y))\n"
    "  put(ad.jvp(f, {x, y}, {1.0, -1.0}))\n"
    "  local function g(t) return f(t, y) end\n"
    "  if i % 4 == 0 then\n"
    "    put(ad.grad(ad.grad(g))(x), ad.derivative(g, 3)(x))\n"
    "    put(table.unpack(ad.taylor(g, x, 5)))\n"
    "    local function l(v) return f(v[1], v[2]) end\n"
    "    local H = ad.hessian(l)({x, y})\n"
    "    put(H[1][1], H[1][2], H[2][1], H[2][2])\n"
    "    put(table.unpack(ad.hvp(l, {x, y}, {1.0, 2.0})))\n"
    "    put(ad.grad(ad.checkpoint(f), {1, 2})(x, y))\n"
    "  end\n"
    "end\n";

static const char graphs[] =
    "local tape <close> = ad.tape{persistent = true}\n"
    "local a, b = tape:var(0.1 * k, 0.7)\n"
    "local z = f(a, b)\n"
    "for _ = 1, 3 do put(tape:gradient(z, a, b)) end\n"
    "local w = ad.var(0.2 * k)\n"
    "for _ = 1, 50 do\n"
    "  w:zero_grad()\n"
    "  local loss = (f(w, 0.5) - 1) ^ 2\n"
    "  loss:backward()\n"
    "  put(loss, w.grad)\n"
    "  w = ad.var(w.value - 1e-3 * w.grad)\n"
    "end\n"
    "local cube = ad.custom{name = 'cube',\n"
    "  f = function(x) return x * x * x end,\n"
    "  jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end}\n"
    "put(ad.grad(cube)(0.3 * k), ad.grad(ad.grad(cube))(0.3 * k))\n"
    "local root = ad.implicit{f = function(x, t) return x * x - t end,\n"
    "  solve = function(t) return t ^ 0.5 end}\n"
    "put(ad.grad(root)(0.3 * k))\n"
    "local step = coroutine.wrap(ad.grad(function(x)\n"
    "  local y = x\n"
    "  for _ = 1, 5 do\n"
    "    y = y * ad.sin(y + k)\n"
    "    coroutine.yield(y.value)\n"
    "  end\n"
    "  return y\n"
    "end))\n"
    "put(step(1.2))\n"
    "for _ = 1, 5 do put((step())) end\n"
    "for i = 1, 20 do\n"
    "  local ok = pcall(ad.grad(function(x) error(x * i) end), 1.0)\n"
    "  put(ok and 1 or 0)\n"
    "end\n"
    "local big = {}\n"
    "for i = 1, 500 do big[i] = i / 500 + k end\n"
    "put(table.unpack(ad.grad(function(v)\n"
    "  local s = 0\n"
    "  for i = 1, #v do s = s + ad.sin(v[i]) * v[i] end\n"
    "  return s\n"
    "end)(big), 1, 100))\n";

static const char arrays[] =
    "local function list(a)\n"
    "  put(table.unpack(ad.reshape(a, {a.size}):tolist()))\n"
    "end\n"
    "local rng = ad.random(k)\n"
    "local W, V = rng:normal{12, 8}, rng:uniform{8, 3}\n"
    "local X, Y = rng:normal{40, 12}, rng:normal{40, 3}\n"
    "local function loss(W, V)\n"
    "  local D = ad.tanh(X:matmul(W)):matmul(V) - Y\n"
    "  return (D * D):sum(2):mean() + ad.logsumexp(W[{{2, 9}, 1}])\n"
    "end\n"
    "for _ = 1, 5 do\n"
    "  local y, dW, dV = ad.value_and_grad(loss, {1, 2})(W, V)\n"
    "  put(y)\n"
    "  W, V = W - 0.01 * dW, V - 0.01 * dV\n"
    "end\n"
    "list(W)\n"
    "list(ad.vmap(ad.grad(function(w) return ad.sin(w):dot(w) end))(W))\n"
    "list(ad.hvp(function(v) return ad.prod(ad.exp(v * 0.1)) end, V[{{}, 1}],\n"
    "  V[{{}, 2}]))\n"
    "list(ad.cumsum(ad.sort(ad.erf(X[1]))) * ad.where(ad.lt(X[2], 0), 1, 2))\n"
    "list(ad.einsum('ij,jk->k', X, W))\n"
    "local A = ad.matmul(V:transpose(), V) + ad.eye(3)\n"
    "local ok, s = pcall(ad.grad(function(A)\n"
    "  return ad.linalg.solve(A, ad.ones{3}):sum()\n"
    "end), A)\n"
    "if ok then list(s) end\n";

/* machine code and the interpreter, loops, programs whose guards fail, and
   batches on threads of their own */
static const char compiled[] =
    "local function newton(a)\n"
    "  local x, n = a, 0\n"
    "  while ad.abs(x * x - a) > 1e-9 do x = 0.5 * (x + a / x) end\n"
    "  if x > 2 then return ad.sin(x) * x else return ad.exp(-x) end\n"
    "end\n"
    "local rows = {}\n"
    "for i = 1, 700 do rows[i] = 0.5 + i % (90 + k) / 7 end\n"
    "rows = ad.array(rows)\n"
    "for _, backend in ipairs{'interpreter', 'native', 'auto'} do\n"
    "  local c = ad.compile(ad.value_and_grad(newton), {backend = backend})\n"
    "  for i = 1, 60 do put(c(0.3 * k + i / 6)) end\n"
    "  local g = ad.grad(ad.compile(newton, {backend = backend}))\n"
    "  for i = 1, 10 do put(g(k + i)) end\n"
    "  for _, n in ipairs{1, 4} do\n"
    "    local y, d = c:map(rows, {threads = n})\n"
    "    list(y)\n"
    "    list(d)\n"
    "    put(c:map(rows, {threads = n, reduce = 'sum'}))\n"
    "  end\n"
    "  put(#tostring(c), #c:c_source('f'), c:stats().traces)\n"
    "end\n";

static const char last[] = "return table.concat(out, ' ')\n";

static const char *const pieces[] = {values, graphs, arrays, compiled, last};


typedef struct Work {
  int number; /* 1 .. NTHREADS */
  int rounds;
  char *result; /* to be freed */
  char *error;  /* to be freed; NULL if none */
  int changed;  /* rounds that differed from the first */
} Work;


static char *copy(const char *s) {
  size_t n = strlen(s) + 1;
  char *c = (char *)malloc(n);
  if (c == NULL) abort();
  memcpy(c, s, n);
  return c;
}


static int work(lua_State *L) {
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushliteral(L, "lua/?.lua;lua/?/init.lua");
  lua_setfield(L, -2, "path");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_autodiff_core);
  lua_setfield(L, -2, "autodiff.core");
  for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
    lua_pushstring(L, pieces[i]);
  lua_concat(L, sizeof pieces / sizeof *pieces);
  if (luaL_loadbuffer(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=work") !=
      LUA_OK)
    return lua_error(L);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}


static int traced(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}


static void *worker(void *ud) {
  Work *w = (Work *)ud;
  int k;
  for (k = 0; k < w->rounds && w->error == NULL; k++) {
    lua_State *L = luaL_newstate();
    if (L == NULL) {
      w->error = copy("no state");
      break;
    }
    lua_pushcfunction(L, traced);
    lua_pushcfunction(L, work);
    lua_pushinteger(L, w->number);
    if (lua_pcall(L, 1, 1, 1) != LUA_OK)
      w->error = copy(lua_tostring(L, -1));
    else if (w->result == NULL)
      w->result = copy(lua_tostring(L, -1));
    else if (strcmp(w->result, lua_tostring(L, -1)) != 0)
      w->changed++;
    lua_close(L);
  }
  return NULL;
}


int main(int argc, char **argv) {
  Work alone[NTHREADS], together[NTHREADS];
  pthread_t threads[NTHREADS];
  int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
  int passed = 0, failed = 0, k;
  memset(alone, 0, sizeof alone);
  memset(together, 0, sizeof together);
  for (k = 0; k < NTHREADS; k++) {
    together[k].number = k + 1;
    together[k].rounds = rounds;
    if (pthread_create(&threads[k], NULL, worker, &together[k]) != 0) {
      fprintf(stderr, "threads_test: no thread\n");
      return EXIT_FAILURE;
    }
  }
  for (k = 0; k < NTHREADS; k++) pthread_join(threads[k], NULL);
  for (k = 0; k < NTHREADS; k++) {
    const char *what = NULL;
    alone[k].number = k + 1;
    alone[k].rounds = 1;
    worker(&alone[k]);
    if (alone[k].error)
      what = alone[k].error;
    else if (together[k].error)
      what = together[k].error;
    else if (together[k].changed)
      what = "rounds of one thread differ";
    else if (strcmp(alone[k].result, together[k].result) != 0)
      what = "result differs from that of a single thread";
    else if (strlen(alone[k].result) < 1000)
      what = "too few results";
    if (what) {
      printf("thread %d: %s\n", k + 1, what);
      failed++;
    } else
      passed++;
    free(alone[k].result);
    free(alone[k].error);
    free(together[k].result);
    free(together[k].error);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
