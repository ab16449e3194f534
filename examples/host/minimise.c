/*
** minimise.c
** A program that minimises functions which its users write in Lua, and does
** not trust them:
**
**   minimise script.lua ...
**
** A script returns a function of a list of numbers, and where to start. Each
** gets a Lua state with a cap on memory and on instructions, and no function
** that could get around these. Whatever it does, the program says what
** happened, gets all memory back, and goes on to the next.
**
** What a hook cannot do is to interrupt a function of C. So scripts get none
** that can run for long by itself (patterns; table.move and others that believe
** __len), and no finalizers, during which Lua calls no hooks. Taylor series of
** huge order remain: a program that needs hard limits runs its scripts in a
** process of their own.
*/

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

#include "autodiff.h"

#define MEGABYTE 1048576.0
#define MAXMEMORY ((size_t)16 << 20)
#define MAXINSTRUCTIONS 20000000
#define MAXSECONDS 30
#define STEP 1000 /* instructions between two calls of the hook */
#define MAXVARIABLES 200
#define MAXITERATIONS 500
#define MAXLINES 5 /* that a script may print */

typedef struct Job {
  size_t memory, peak;
  long instructions;
  clock_t begin;
  int busy;  /* minimising: not to be started again by the objective */
  int lines; /* printed */
  /* the problem: n variables, and the host's own buffers */
  int n;
  double *x, *g, *buffer;
  double value;
  int iterations, evaluations;
} Job;

/*
** The two caps
*/

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
  Job *job = ud;
  if (p == NULL) osize = 0; /* it tells what kind of object it is for */
  if (nsize == 0) {
    free(p);
    job->memory -= osize;
    return NULL;
  }
  if (nsize > osize && nsize - osize > MAXMEMORY - job->memory) return NULL;
  p = realloc(p, nsize);
  if (p != NULL) {
    job->memory += nsize - osize;
    if (job->memory > job->peak) job->peak = job->memory;
  }
  return p;
}

static Job *jobof(lua_State *L) { return *(Job **)lua_getextraspace(L); }

/*
** Once the limit is reached each further instruction is an error: a script
** that catches one with pcall gets the next.
*/
static void count(lua_State *L, lua_Debug *ar) {
  Job *job = jobof(L);
  (void)ar;
  if (job->instructions < MAXINSTRUCTIONS) job->instructions += STEP;
  if (job->instructions >= MAXINSTRUCTIONS) {
    lua_sethook(L, count, LUA_MASKCOUNT, 1);
    luaL_error(L, "limit of %d million instructions reached",
               MAXINSTRUCTIONS / 1000000);
  }
  if (clock() - job->begin > (clock_t)MAXSECONDS * CLOCKS_PER_SEC) {
    lua_sethook(L, count, LUA_MASKCOUNT, 1);
    luaL_error(L, "limit of %d seconds reached", MAXSECONDS);
  }
}

/*
** Minimisation: BFGS with a line search that halves the step. Runs in
** protected mode; the function is at index 1.
*/

static double dot(int n, const double *a, const double *b) {
  double s = 0;
  for (int i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}

static double evaluate(lua_State *L, Job *job, const double *x, double *g) {
  double value;
  job->evaluations++;
  lua_pushvalue(L, 1);
  ad_gradient(L, (size_t)job->n, x, &value, g);
  return value;
}

/* H: the inverse Hessian; s, y: steps of x and g; Hy: room */
static void update(int n, double *H, const double *s, const double *y,
                   double *Hy) {
  const double sy = dot(n, s, y);
  double yHy;
  if (!(sy > 1e-12 * sqrt(dot(n, s, s) * dot(n, y, y)))) return;
  for (int i = 0; i < n; i++) Hy[i] = dot(n, H + i * n, y);
  yHy = dot(n, y, Hy);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      H[i * n + j] += (1 + yHy / sy) * s[i] * s[j] / sy -
                      (Hy[i] * s[j] + s[i] * Hy[j]) / sy;
}

static int minimise(lua_State *L) {
  Job *job = jobof(L);
  const int n = job->n;
  double *x = job->x, *g = job->g;
  double *xn = job->buffer, *gn = xn + n, *d = gn + n, *s = d + n, *y = s + n;
  double *Hy = y + n, *H = Hy + n;
  double f = evaluate(L, job, x, g);
  if (!isfinite(f) || !isfinite(dot(n, g, g)))
    return luaL_error(L, "value or gradient at the start is not finite");
  for (int i = 0; i < n * n; i++) H[i] = i % (n + 1) == 0;
  while (job->iterations < MAXITERATIONS && dot(n, g, g) > 1e-20) {
    double slope, step = 1, fn;
    for (int i = 0; i < n; i++) d[i] = -dot(n, H + i * n, g);
    slope = dot(n, g, d);
    if (!(slope < 0)) break;
    for (;; step /= 2) {
      for (int i = 0; i < n; i++) xn[i] = x[i] + step * d[i];
      fn = evaluate(L, job, xn, gn);
      if (fn <= f + 1e-4 * step * slope && isfinite(dot(n, gn, gn))) break;
      if (step < 1e-14) break;
    }
    if (step < 1e-14) break; /* no better point in sight */
    for (int i = 0; i < n; i++) {
      s[i] = xn[i] - x[i];
      y[i] = gn[i] - g[i];
    }
    update(n, H, s, y, Hy);
    memcpy(x, xn, (size_t)n * sizeof *x);
    memcpy(g, gn, (size_t)n * sizeof *g);
    f = fn;
    job->iterations++;
  }
  job->value = f;
  return 0;
}

/*
** What scripts find
*/

/* print: a few short lines */
static int l_print(lua_State *L) {
  Job *job = jobof(L);
  const char *text = luaL_checkstring(L, 1);
  if (job->lines++ >= MAXLINES)
    return luaL_error(L, "more than %d lines printed", MAXLINES);
  printf("    says: %.60s\n", text);
  return 0;
}

/* minimise(): starts the host's minimiser, unless it is at work already */
static int l_minimise(lua_State *L) {
  if (jobof(L)->busy)
    return luaL_error(L, "minimise: called from within the objective");
  return luaL_error(L, "minimise: return the objective first");
}

/* setmetatable without finalizers: no hook is called while they run */
static int l_setmetatable(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, 2) != LUA_TNIL)
    return luaL_error(L, "setmetatable: finalizers are not allowed");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return luaL_error(L, "setmetatable: the metatable is protected");
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}

static void takeaway(lua_State *L, int table, const char *const *name) {
  for (; *name != NULL; name++) {
    lua_pushnil(L);
    lua_setfield(L, table, *name);
  }
}

static void sandbox(lua_State *L) {
  static const luaL_Reg libs[] = {{LUA_GNAME, luaopen_base},
                                  {LUA_TABLIBNAME, luaopen_table},
                                  {LUA_STRLIBNAME, luaopen_string},
                                  {LUA_MATHLIBNAME, luaopen_math}};
  static const luaL_Reg own[] = {{"print", l_print},
                                 {"minimise", l_minimise},
                                 {"setmetatable", l_setmetatable},
                                 {NULL, NULL}};
  static const char *const no_base[] = {"collectgarbage", "dofile", "load",
                                        "loadfile", NULL};
  static const char *const no_string[] = {"dump", "find",  "gmatch",
                                          "gsub", "match", NULL};
  static const char *const no_table[] = {"concat", "insert", "move", "remove",
                                         NULL};
  for (size_t i = 0; i < sizeof libs / sizeof libs[0]; i++) {
    luaL_requiref(L, libs[i].name, libs[i].func, 1);
    lua_pop(L, 1);
  }
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  lua_getfield(L, -1, "math"); /* the differentiable one */
  lua_setglobal(L, "math");
  lua_setglobal(L, "ad");
  lua_pushglobaltable(L);
  takeaway(L, lua_gettop(L), no_base);
  luaL_setfuncs(L, own, 0);
  lua_getfield(L, -1, LUA_STRLIBNAME);
  takeaway(L, lua_gettop(L), no_string);
  lua_getfield(L, -2, LUA_TABLIBNAME);
  takeaway(L, lua_gettop(L), no_table);
  lua_pop(L, 3);
}

/*
** Each of the following steps runs in protected mode. They take and leave
** the objective at index 1.
*/

/* the script's name -> objective, start */
static int load(lua_State *L) {
  const char *name = *(const char **)lua_touserdata(L, 1);
  sandbox(L);
  lua_settop(L, 0);
  if (luaL_loadfilex(L, name, "t") != LUA_OK) return lua_error(L);
  lua_sethook(L, count, LUA_MASKCOUNT, STEP);
  lua_call(L, 0, 2);
  if (!lua_isfunction(L, 1) || !lua_istable(L, 2))
    return luaL_error(L,
                      "must return a function and a list of numbers, not %s "
                      "and %s",
                      luaL_typename(L, 1), luaL_typename(L, 2));
  if (lua_rawlen(L, 2) < 1 || lua_rawlen(L, 2) > MAXVARIABLES)
    return luaL_error(L, "the start must have 1 to %d numbers", MAXVARIABLES);
  return 2;
}

/* objective, start: fills the host's buffer */
static int start(lua_State *L) {
  Job *job = jobof(L);
  for (int i = 0; i < job->n; i++) {
    if (lua_rawgeti(L, 2, i + 1) != LUA_TNUMBER)
      return luaL_error(L, "start: number expected at index %d, got %s", i + 1,
                        luaL_typename(L, -1));
    job->x[i] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  job->busy = 1;
  return minimise(L);
}

/* what an error says; asks no metamethod of the script's, needs no memory */
static const char *message(lua_State *L) {
  return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                        : "error object is no string";
}

static int buffers(Job *job) {
  const size_t n = (size_t)job->n;
  job->x = malloc(n * sizeof(double));
  job->g = malloc(n * sizeof(double));
  job->buffer = malloc((6 * n + n * n) * sizeof(double));
  return job->x && job->g && job->buffer;
}

/* 1 if the script has been minimised; '*leaked' is what it has left */
static int run(const char *name, size_t *leaked) {
  const char *slash = strrchr(name, '/');
  Job job;
  lua_State *L;
  int ok = 0;
  memset(&job, 0, sizeof job);
  job.begin = clock();
  printf("%s\n", slash ? slash + 1 : name);
  L = lua_newstate(allocate, &job);
  if (L == NULL) {
    printf("    stopped: no memory for a state\n");
    return 0;
  }
  *(Job **)lua_getextraspace(L) = &job;
  lua_pushcfunction(L, load);
  /* a pointer: to push a string can fail, and nothing is protected here */
  lua_pushlightuserdata(L, &name);
  if (lua_pcall(L, 1, 2, 0) == LUA_OK) {
    job.n = (int)lua_rawlen(L, 2);
    lua_pushcfunction(L, start);
    lua_insert(L, 1);
    if (!buffers(&job))
      printf("    stopped: no memory for %d variables\n", job.n);
    else if (lua_pcall(L, 2, 0, 0) == LUA_OK)
      ok = 1;
  }
  if (ok) {
    printf("    minimum %.6g at (", job.value);
    for (int i = 0; i < job.n && i < 6; i++)
      printf("%s%.6g", i ? ", " : "", job.x[i]);
    printf("%s)\n    %d iterations, %d evaluations\n", job.n > 6 ? ", ..." : "",
           job.iterations, job.evaluations);
  } else
    printf("    stopped: %.200s\n", message(L));
  printf("    %.2f million instructions, at most %.2f MB\n",
         (double)job.instructions / 1e6, (double)job.peak / MEGABYTE);
  lua_close(L);
  free(job.x);
  free(job.g);
  free(job.buffer);
  *leaked += job.memory;
  return ok;
}

int main(int argc, char **argv) {
  size_t leaked = 0;
  int done = 0;
  if (argc < 2) {
    fprintf(stderr, "usage: %s script.lua ...\n", argv[0]);
    return EXIT_FAILURE;
  }
  for (int i = 1; i < argc; i++) done += run(argv[i], &leaked);
  printf("%d of %d minimised, %lu bytes leaked\n", done, argc - 1,
         (unsigned long)leaked);
  return leaked ? EXIT_FAILURE : EXIT_SUCCESS;
}
