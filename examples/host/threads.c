/*
** threads.c
** One Lua state per thread, on all cores: no lock is needed, because states
** share nothing.
**
**   threads [number of threads]
**
** The work is 96 pendulums, each to be released so that it is at a given angle
** 0.3 seconds later. The angle at the end comes from 400 steps of an
** integrator written in Lua; Newton's method gets its derivative from
** ad_gradient. Each thread takes the next pendulum that nobody has. Then a
** single thread does it all again, and must get the same results to the bit.
*/
#define _XOPEN_SOURCE 600

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

#include "autodiff.h"

#define PENDULUMS 96
#define MAXTHREADS 256

static const char script[] =
    "local ad, length = ...\n"
    "return function(x)\n"
    "  local angle, speed, dt = x[1], 0.0, 0.3 / 400\n"
    "  for _ = 1, 400 do\n"
    "    speed = speed - 9.81 / length * ad.sin(angle) * dt\n"
    "    angle = angle + speed * dt\n"
    "  end\n"
    "  return angle\n"
    "end\n";

typedef struct Work {
  pthread_mutex_t lock;
  int next;   /* pendulum that nobody has */
  int failed; /* the work, not a pendulum */
  double angle[PENDULUMS];
} Work;

static double lengthof(int i) { return 1 + 0.02 * i; }
static double target(int i) { return 0.3 + 0.001 * i; }

static int take(Work *w) {
  int i;
  pthread_mutex_lock(&w->lock);
  i = w->next < PENDULUMS ? w->next++ : -1;
  pthread_mutex_unlock(&w->lock);
  return i;
}

/* in protected mode: pendulums until there are no more */
static int work(lua_State *L) {
  Work *w = lua_touserdata(L, 1);
  int i;
  luaL_openlibs(L);
  luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
  while ((i = take(w)) >= 0) {
    double x = target(i), value, slope;
    lua_settop(L, 2);
    if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
    lua_pushvalue(L, 2);
    lua_pushnumber(L, lengthof(i));
    lua_call(L, 2, 1);
    for (int k = 0; k < 20; k++) {
      lua_pushvalue(L, -1);
      ad_gradient(L, 1, &x, &value, &slope);
      if (fabs(value - target(i)) < 1e-13) break;
      x -= (value - target(i)) / slope;
    }
    w->angle[i] = x;
  }
  return 0;
}

static void *worker(void *ud) {
  Work *w = ud;
  lua_State *L = luaL_newstate();
  int ok = 0;
  if (L != NULL) {
    lua_pushcfunction(L, work);
    lua_pushlightuserdata(L, w);
    ok = lua_pcall(L, 1, 0, 0) == LUA_OK;
    if (!ok) fprintf(stderr, "threads: %s\n", lua_tostring(L, -1));
    lua_close(L);
  }
  if (!ok) {
    pthread_mutex_lock(&w->lock);
    w->failed = 1;
    pthread_mutex_unlock(&w->lock);
  }
  return NULL;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* the time that n threads take */
static double run(Work *w, int n) {
  pthread_t thread[MAXTHREADS];
  const double begin = seconds();
  int started = 0;
  memset(w, 0, sizeof *w);
  pthread_mutex_init(&w->lock, NULL);
  while (started < n && pthread_create(&thread[started], NULL, worker, w) == 0)
    started++;
  if (started == 0) w->failed = 1;
  for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
  pthread_mutex_destroy(&w->lock);
  return seconds() - begin;
}

int main(int argc, char **argv) {
  static const int shown[] = {0, 32, 64, PENDULUMS - 1};
  int n = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
  Work all, one;
  double many, single;
  if (n < 1) n = 1;
  if (n > MAXTHREADS) n = MAXTHREADS;
  many = run(&all, n);
  single = run(&one, 1);
  printf("length  angle at the end  released at\n");
  for (size_t k = 0; k < sizeof shown / sizeof shown[0]; k++) {
    const int i = shown[k];
    printf("%6.2f  %16.4f  %11.8f\n", lengthof(i), target(i), all.angle[i]);
  }
  printf("%d threads: %.3f s, one: %.3f s\n", n, many, single);
  if (all.failed || one.failed ||
      memcmp(all.angle, one.angle, sizeof all.angle) != 0) {
    printf("the results differ\n");
    return EXIT_FAILURE;
  }
  printf("the same results to the bit\n");
  return EXIT_SUCCESS;
}
