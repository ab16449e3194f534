/*
** interrupt.c
** Ctrl-C for the REPL. This is the only file with static data that changes:
** a signal belongs to the process, its handler gets no argument, and so must
** find the session somewhere. The data are atomic and in use only between
** on_interrupt(true) and on_interrupt(false); whoever does not run the REPL
** never touches them. One session of the process has Ctrl-C at a time.
*/
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "state.h"

/* unanswered signals after which the default action (to end) takes over: a
   C function that never comes back can be stopped in no other way */
#define PATIENCE 5

/* A script that catches the error gets another one this many instructions
   later, so that '__close' methods have time to clean up; and from then on
   one at each instruction, until it is out of all its loops. */
#define AGAIN 10000

/* a thread that runs; those that have resumed it follow */
typedef struct Running {
  lua_State *L;
  struct Running *below;
} Running;

static _Atomic(lua_State *) session; /* the REPL's thread, or NULL */
static _Atomic(const void *) state;  /* the registry of its state, or NULL */
static _Atomic(Running *) running;   /* innermost of its coroutines, or NULL */
static atomic_int stops;             /* errors since the REPL was in charge */
static atomic_int unanswered;        /* signals since the last error */
static atomic_int prompting;         /* an editor that can be left is reading */
static pthread_t owner;              /* the system's thread of the session */
static struct sigaction before;      /* what was there for SIGINT */

static void stop(lua_State *L, lua_Debug *ar);

static void arm(lua_State *L, int mask, int count) {
  Running *r;
  lua_sethook(L, stop, mask, count);
  for (r = atomic_load(&running); r != NULL; r = r->below)
    lua_sethook(r->L, stop, mask, count);
}

static void stop(lua_State *L, lua_Debug *ar) {
  lua_State *main = atomic_load(&session);
  (void)ar;
  if (main == NULL) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  arm(main, LUA_MASKCOUNT, atomic_fetch_add(&stops, 1) == 0 ? AGAIN : 1);
  atomic_store(&unanswered, 0);
  luaL_error(L, "interrupted!");
}

static void action(int sig, siginfo_t *info, void *context) {
  lua_State *L = atomic_load(&session);
  (void)context;
  if (L == NULL) return;
  if (!pthread_equal(pthread_self(), owner)) { /* a host has several */
    pthread_kill(owner, sig);
    return;
  }
  /* readline has a handler of its own; when it is safe to leave, it puts back
     the terminal and sends the signal once more. Then this is no interruption
     of anything but a call of 'raise', and an error like any other. */
  if (atomic_load(&prompting) && info->si_pid == getpid()) {
    atomic_store(&prompting, 0);
    luaL_error(L, "interrupted!");
  }
  if (atomic_fetch_add(&unanswered, 1) >= PATIENCE) {
    signal(sig, SIG_DFL);
    raise(sig);
  }
  /* lua_sethook may be called from a handler; nothing else is done here */
  arm(L, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* on_interrupt(true): from now on SIGINT stops what this thread runs by the
   error "interrupted!". on_interrupt(false): as it was before. The result
   tells whether this thread had or now has the signal. */
static int l_on_interrupt(lua_State *L) {
  lua_State *none = NULL;
  if (lua_toboolean(L, 1)) {
    struct sigaction now;
    if (!atomic_compare_exchange_strong(&session, &none, L)) {
      lua_pushboolean(L, 0);
      return 1;
    }
    owner = pthread_self();
    atomic_store(&state, lua_topointer(L, LUA_REGISTRYINDEX));
    atomic_store(&running, NULL);
    atomic_store(&unanswered, 0);
    atomic_store(&stops, 0);
    atomic_store(&prompting, 0);
    now.sa_sigaction = action;
    now.sa_flags = SA_SIGINFO | SA_NODEFER; /* it may be left by an error */
    sigemptyset(&now.sa_mask);
    sigaction(SIGINT, &now, &before);
    lua_pushboolean(L, 1);
  } else if (atomic_load(&session) == L) {
    sigaction(SIGINT, &before, NULL);
    atomic_store(&state, NULL);
    atomic_store(&session, NULL);
    lua_sethook(L, NULL, 0, 0);
    lua_pushboolean(L, 1);
  } else
    lua_pushboolean(L, 0);
  return 1;
}

static void calm(lua_State *L) {
  if (atomic_load(&session) == L) {
    atomic_store(&prompting, 0);
    atomic_store(&running, NULL);
    atomic_store(&unanswered, 0);
    atomic_store(&stops, 0);
    if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
  }
}

/* run(f, ...): calls f, which catches errors, and forgets what is left of an
   interruption before any more Lua runs */
static int l_run(lua_State *L) {
  calm(L);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  calm(L);
  return lua_gettop(L);
}

/* prompt(f, ...): calls an editor's f, which may be left by SIGINT */
static int l_prompt(lua_State *L) {
  atomic_store(&prompting, atomic_load(&session) == L);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  if (atomic_load(&session) == L) atomic_store(&prompting, 0);
  return lua_gettop(L);
}

/* lua_resume, with the coroutine where the handler finds it */
static int resume(lua_State *L, lua_State *co, int narg, int *nres) {
  int status;
  int ours = atomic_load(&state) == lua_topointer(L, LUA_REGISTRYINDEX);
  Running r;
  r.L = co;
  r.below = ours ? atomic_load(&running) : NULL;
  if (ours) atomic_store(&running, &r);
  status = lua_resume(co, L, narg, nres);
  if (ours) {
    atomic_store(&running, r.below);
    if (lua_gethook(co) == stop) lua_sethook(co, NULL, 0, 0);
  }
  return status;
}

/* resumes 'co' with the 'narg' values at the top; the number of values that
   it leaves there, or -1 and an error value */
static int transfer(lua_State *L, lua_State *co, int narg) {
  int status, nres;
  if (!lua_checkstack(co, narg)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, co, narg);
  status = resume(L, co, narg, &nres);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1); /* the error value */
    return -1;
  }
  if (!lua_checkstack(L, nres + 1)) {
    lua_pop(co, nres);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, nres);
  return nres;
}

/* coroutine.resume, with the coroutine in the handler's reach */
static int l_resume(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  int n;
  luaL_argexpected(L, co, 1, "coroutine");
  n = transfer(L, co, lua_gettop(L) - 1);
  lua_pushboolean(L, n >= 0);
  if (n < 0) n = 1;
  lua_insert(L, -(n + 1));
  return n + 1;
}

static int auxwrap(lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(1));
  int n = transfer(L, co, lua_gettop(L));
  if (n < 0) {
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* it has died of it */
      status = lua_resetthread(co);
      if (lua_gettop(co) > 0) /* perhaps another error, of a '__close' ... */
        lua_xmove(co, L, 1);  /* ... which Lua has since 5.4.3 */
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
      luaL_where(L, 1);
      lua_insert(L, -2);
      lua_concat(L, 2);
    }
    return lua_error(L);
  }
  return n;
}

/* coroutine.wrap, likewise */
static int l_wrap(lua_State *L) {
  lua_State *co;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, auxwrap, 1);
  return 1;
}

void ad_openinterrupt(lua_State *L) {
  static const luaL_Reg fn[] = {{"on_interrupt", l_on_interrupt},
                                {"run", l_run},
                                {"prompt", l_prompt},
                                {"resume", l_resume},
                                {"wrap", l_wrap},
                                {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, fn, 0);
  lua_setfield(L, -2, "interrupt");
}
