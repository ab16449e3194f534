/*
** poison_test.c
** Compiled functions where a system forbids what machine code needs, and on
** CPUs that have less. Each case runs in a child, under a filter on system
** calls or a rule of the kernel's that cannot be taken back, in four threads
** with a state each: the results must be right, and stats() must say what has
** run, and why it was not machine code. To be run in the project's root. Needs
** the module's objects, Lua, libm and threads.
*/
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__) && defined(__x86_64__)

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "program.h"
#include "state.h"

#include "lauxlib.h"
#include "lualib.h"

int luaopen_autodiff_core(lua_State *L);

#define NTHREADS 4

/* features; x64.h, which has them, has an Arg of its own */
enum { SSE41 = 1, AVX = 2 };

/* a script, called with a pattern for stats().backend */
static const char script[] =
    "local ad, pattern = require 'autodiff', ...\n"
    "local function f(x, p)\n"
    "  local a = 1 + ad.abs(x)\n"
    "  local w = a\n"
    "  while ad.abs(w * w - a) > 1e-9 do w = 0.5 * (w + a / w) end\n"
    "  if x < p.low then return w * ad.exp(-x) * p[1] end\n"
    "  return ad.sin(w) + x * p[1] * p[2] + ad.norm{x, w}\n"
    "end\n"
    "local p = {1.5, -0.25, low = 0.5}\n"
    "local g = ad.value_and_grad(f, {1, 2})\n"
    "local function near(a, b)\n"
    "  assert(math.abs(a - b) <= 1e-12 * math.max(1, math.abs(a)),\n"
    "    a .. ' is not ' .. b)\n"
    "end\n"
    "for _, backend in ipairs{'interpreter', 'native', 'auto'} do\n"
    "  local c = ad.compile(g, {backend = backend})\n"
    "  for round = 1, backend == 'auto' and 200 or 3 do\n"
    "    for i = -20, 20 do\n"
    "      local y, dx, dp = g(i / 9, p)\n"
    "      local cy, cdx, cdp = c(i / 9, p)\n"
    "      near(y, cy) near(dx, cdx)\n"
    "      near(dp[1], cdp[1]) near(dp[2], cdp[2]) near(dp.low, cdp.low)\n"
    "    end\n"
    "  end\n"
    "  local is = c:stats().backend\n"
    "  if backend == 'interpreter' then assert(is == 'interpreter', is)\n"
    "  else assert(is:find(pattern), backend .. ': ' .. is) end\n"
    "  local x = ad.linspace(-3, 3, 1500)\n"
    "  for threads = 1, 2 do\n"
    "    local y, dx, dp = c:map(x, p, {threads = threads})\n"
    "    for i = 1, 1500, 50 do\n"
    "      local a, b, d = g(x[i], p)\n"
    "      near(a, y[i]) near(b, dx[i]) near(d[1], dp[1][i])\n"
    "    end\n"
    "  end\n"
    "  local sum = c:map(x, p, {reduce = 'sum', threads = 2})\n"
    "  near(sum, ad.sum((c:map(x, p))))\n"
    "  local h = ad.compile(function(q)\n"
    "    return q[1] * q[2] ^ 2 + ad.exp(q[3])\n"
    "  end, {backend = backend})\n"
    "  assert(#h:hessian{1, 2, 3}.rows == 5)\n"
    "  assert(#h:jacobian{1, 2, 3}.rows == 3)\n"
    "  assert(#c:c_source('f') > 100)\n"
    "end\n";

typedef struct Run {
  const char *pattern;
  int features; /* -1: what the CPU has */
  char error[400];
} Run;

static int run(lua_State *L) {
  Run *r = lua_touserdata(L, 1);
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushliteral(L, "lua/?.lua;lua/?/init.lua");
  lua_setfield(L, -2, "path");
  luaL_getsubtable(L, -1, "preload");
  lua_pushcfunction(L, luaopen_autodiff_core);
  lua_setfield(L, -2, "autodiff.core");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "autodiff.core");
  lua_call(L, 1, 1);
  if (r->features >= 0) {
    State *S;
    lua_getfield(L, -1, "sin");
    lua_getupvalue(L, -1, 1); /* see ad_state */
    S = lua_touserdata(L, -1);
    S->features = r->features & ad_nativefeatures();
    S->hasfeatures = 1;
  }
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  lua_pushstring(L, r->pattern);
  lua_call(L, 1, 0);
  return 0;
}

static void *thread(void *arg) {
  Run *r = arg;
  lua_State *L = luaL_newstate();
  *r->error = '\0';
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, r);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    snprintf(r->error, sizeof r->error, "%s", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  return NULL;
}

/*
** What is forbidden
*/
enum {
  MPROTECT = 1, /* to make pages executable */
  MAP = 2,      /* to map executable pages */
  MEMFD = 4,    /* files in memory */
  MDWE = 8      /* the kernel's own rule: pages do not become executable */
};

#define DATA(field) (unsigned)offsetof(struct seccomp_data, field)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(field))
#define IF(value, yes, no)                                                     \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(value), yes, no)
#define RETURN(x) BPF_STMT(BPF_RET | BPF_K, x)
#define REFUSE RETURN(SECCOMP_RET_ERRNO | EPERM)

/* 0: the system does not know how */
static int forbid(int what) {
  struct sock_filter code[] = {
      LOAD(nr), /* system calls that are not forbidden have no number here */
      IF(what & MPROTECT ? SYS_mprotect : -1, 3, 0),
      IF(what & MAP ? SYS_mmap : -1, 2, 0),
      IF(what & MEMFD ? SYS_memfd_create : -1, 3, 0),
      RETURN(SECCOMP_RET_ALLOW),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      REFUSE,
      RETURN(SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {sizeof code / sizeof *code, code};
  if (what & MDWE) return prctl(65, 1, 0, 0, 0) == 0; /* since Linux 6.3 */
  if (what == 0) return 1;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

/* in the child; its exit status */
static int child(const char *name, int what, int features,
                 const char *pattern) {
  pthread_t threads[NTHREADS];
  static Run work[NTHREADS];
  int failed = 0;
  if (!forbid(what)) return 2;
  for (int k = 0; k < NTHREADS; k++) {
    work[k].pattern = pattern;
    work[k].features = features;
    if (pthread_create(&threads[k], NULL, thread, &work[k]) != 0) return 1;
  }
  for (int k = 0; k < NTHREADS; k++) {
    pthread_join(threads[k], NULL);
    if (*work[k].error == '\0') continue;
    printf("%s, thread %d: %s\n", name, k, work[k].error);
    failed = 1;
  }
  fflush(stdout);
  return failed;
}

static const struct {
  const char *name, *pattern;
  int what, features;
} cases[] = {
    {"nothing forbidden", "^native", 0, -1},
    {"pages that become executable", "^native", MPROTECT, -1},
    {"files in memory", "^native", MEMFD, -1},
    {"PR_SET_MDWE", "^native", MDWE, -1},
    {"executable pages", "^interpreter %(no machine code: the system gives",
     MPROTECT | MAP, -1},
    {"executable pages and files in memory",
     "^interpreter %(no machine code: the system gives", MPROTECT | MEMFD, -1},
    {"a CPU with SSE2", "SSE2", 0, 0},
    {"a CPU with SSE4.1", "SSE", 0, SSE41},
    {"a CPU with AVX", "^native", 0, SSE41 | AVX},
};

int main(void) {
  int passed = 0, failed = 0;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0)
      _exit(child(cases[k].name, cases[k].what, cases[k].features,
                  cases[k].pattern));
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
      perror("poison_test");
      return EXIT_FAILURE;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
      printf("%s: not known here\n", cases[k].name);
      continue;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
      passed++;
    else {
      if (WIFSIGNALED(status))
        printf("%s: signal %d\n", cases[k].name, WTERMSIG(status));
      failed++;
    }
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#else

int main(void) {
  puts("not on this system\n1 passed, 0 failed");
  return 0;
}

#endif
