/*
** oom_test.c
** Every allocation made to fail in turn. A host with an allocator that
** counts what it hands out runs each script of spec/c/oom again and again,
** in a fresh state each time, and makes the n-th request fail, for every n
** until a run needs fewer. A run must succeed or end in a memory error; the
** state must then still compute right, and closing it must return every
** byte.
**
**   oom_test [stride [script.lua ...]]
**
** stride 1 tries every point; 0 (the default) lets the stride grow with the
** number of points of a script, and shifts it from mode to mode; so does -n,
** which tries about n points per script and mode. To be run
** in the project's root. Needs the module's objects, Lua and libm:
**
**   cc -std=c11 -O2 -Isrc -I/usr/include/lua5.4 -o oom_test \
**     spec/c/oom_test.c <the module's .c files> -llua5.4 -lm
*/

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"

int luaopen_autodiff_core(lua_State *L);


/* how the n-th request fails */
enum mode {
  COUNT,   /* not at all */
  ONCE,    /* only that one: Lua collects and asks again */
  TWICE,   /* that and the next: the error, with memory to clean up in */
  FROMTHEN /* that and all later ones, until the call has returned */
};


static const char *const modenames[] = {"count", "once", "twice", "from then"};


/* points tried per script and mode when no stride is asked for */
#define POINTS 250

#define NMSG 400


/*
** The allocator's books. Each block begins with its size, so that a wrong
** 'osize' is found as well.
*/
typedef struct Books {
  size_t bytes;  /* handed out now */
  long blocks;   /* likewise */
  long requests; /* new or growing blocks since 'arm' */
  long n;        /* the request to fail */
  enum mode mode;
  int armed;
  int failed;    /* requests refused since 'arm' */
  int wrongsize; /* calls with an 'osize' that is not the block's */
} Books;


/* as long as the strictest alignment, to keep the block behind it aligned */
typedef union Header {
  size_t size;
  long double ld;
  void *p;
} Header;


static int mustfail(Books *b) {
  long k;
  if (!b->armed) return 0;
  k = ++b->requests;
  switch (b->mode) {
  case ONCE:
    return k == b->n;
  case TWICE:
    return k == b->n || k == b->n + 1;
  case FROMTHEN:
    return k >= b->n;
  default:
    return 0;
  }
}


static void *allocate(void *ud, void *ptr, size_t osize, size_t nsize) {
  Books *b = (Books *)ud;
  Header *h = ptr ? (Header *)ptr - 1 : NULL;
  Header *fresh;
  size_t size = h ? h->size : 0; /* without a block, 'osize' is a type tag */
  if (h && osize != size) b->wrongsize++;
  if (nsize == 0) {
    if (h) {
      b->bytes -= size;
      b->blocks--;
      memset(ptr, 0x5a, size); /* what is used after this shows */
      free(h);
    }
    return NULL;
  }
  if (nsize > size && mustfail(b)) {
    b->failed++;
    return NULL;
  }
  /* always a new block, so that a pointer kept from before is wrong */
  fresh = (Header *)malloc(sizeof(Header) + nsize);
  if (fresh == NULL) {
    fprintf(stderr, "oom_test: out of memory\n");
    exit(EXIT_FAILURE);
  }
  fresh->size = nsize;
  memset(fresh + 1, 0xa5, nsize);
  if (h) {
    memcpy(fresh + 1, ptr, size < nsize ? size : nsize);
    memset(ptr, 0x5a, size);
    free(h);
  } else
    b->blocks++;
  b->bytes += nsize - size;
  return fresh + 1;
}


static void arm(Books *b, enum mode mode, long n) {
  b->mode = mode;
  b->n = n;
  b->requests = 0;
  b->failed = 0;
  b->armed = 1;
}


static int panic(lua_State *L) {
  const char *msg = lua_tostring(L, -1);
  fprintf(stderr, "oom_test: unprotected error: %s\n", msg ? msg : "?");
  return 0; /* Lua aborts */
}


/*
** Opens the libraries and makes the module known, without loading it.
*/
static int prepare(lua_State *L) {
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushliteral(L, "lua/?.lua;lua/?/init.lua");
  lua_setfield(L, -2, "path");
  lua_pushliteral(L, "");
  lua_setfield(L, -2, "cpath");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_autodiff_core);
  lua_setfield(L, -2, "autodiff.core");
  return 0;
}


/*
** What a script finds: 'memory(e)' passes a memory error on and returns
** anything else, so that a 'pcall' of the script swallows none.
*/
static const char prelude[] =
    "function memory(e)\n"
    "  if type(e) == 'string' and e:find('not enough memory', 1, true) then\n"
    "    error('not enough memory', 0)\n"
    "  end\n"
    "  return e\n"
    "end\n"
    "function fails(f, ...)\n"
    "  local ok, e = pcall(f, ...)\n"
    "  if ok then error('no error', 2) end\n"
    "  return memory(e)\n"
    "end\n"
    "function near(a, b)\n"
    "  if not (math.abs(a - b) <= 1e-6 * (1 + math.abs(b))) then\n"
    "    error(('%s is not near %s'):format(a, b), 2)\n"
    "  end\n"
    "end\n";


static const char sanity[] =
    "local ad = require 'autodiff'\n"
    "collectgarbage()\n"
    "local function f(x, y) return ad.sin(x) * y + x ^ 3 end\n"
    "local gx, gy = ad.grad(f, {1, 2})(0.5, 2.0)\n"
    "near(gx, 2 * math.cos(0.5) + 0.75)\n"
    "near(gy, math.sin(0.5))\n"
    "local _, d = ad.jvp(f, {0.5, 2.0}, {1.0, 1.0})\n"
    "near(d, gx + gy)\n"
    "near(ad.derivative(function(x) return x ^ 4 end, 3)(2.0), 48)\n"
    "near(ad.grad(ad.grad(function(x) return ad.exp(2 * x) end))(0.0), 4)\n"
    "local tape <close> = ad.tape()\n"
    "local x = tape:var(3.0)\n"
    "near(tape:gradient(x * x, x), 6)\n"
    "local v = ad.var(2.0)\n"
    "local w = v * v * v\n"
    "w:backward()\n"
    "near(v.grad, 12)\n"
    "assert(ad.type(1.0) == 'number' and ad.value(v) == 2)\n"
    "collectgarbage()\n";


static int load(lua_State *L, const char *text, const char *name) {
  if (luaL_loadbuffer(L, text, strlen(text), name) != LUA_OK)
    return lua_error(L);
  return 1;
}


static int dosanity(lua_State *L) {
  load(L, sanity, "=sanity");
  lua_call(L, 0, 0);
  return 0;
}


/*
** Everything before the failures begin: with the module already there,
** unless the script is about loading it.
*/
static int dosetup(lua_State *L) {
  int withmodule = lua_toboolean(L, 1);
  prepare(L);
  load(L, prelude, "=prelude");
  lua_call(L, 0, 0);
  if (withmodule) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, "autodiff");
    lua_call(L, 1, 0);
  }
  return 0;
}


static int doscript(lua_State *L) {
  const char *name = lua_tostring(L, 1);
  /* a stack deep enough from the start would hide its own growth */
  if (luaL_loadfile(L, name) != LUA_OK) return lua_error(L);
  lua_call(L, 0, 0);
  return 0;
}


static int messages(lua_State *L) {
  const char *msg = lua_tostring(L, 1);
  if (msg == NULL || strstr(msg, "not enough memory")) return 1;
  luaL_traceback(L, L, msg, 1);
  return 1;
}


static int ismemory(lua_State *L, int status) {
  const char *msg = lua_tostring(L, -1);
  return status == LUA_ERRMEM ||
         (msg != NULL && strstr(msg, "not enough memory") != NULL);
}


static void say(char *out, const char *what, const char *msg) {
  snprintf(out, NMSG, "%s%s", what, msg ? msg : "(no message)");
}


/*
** One run of a script. Returns 0 if all was well; 'out' says what was not.
** '*used' is the number of requests that the script made, '*refused' those
** that failed.
*/
static int run(const char *script, enum mode mode, long n, long *used,
               int *refused, char *out) {
  Books b;
  lua_State *L;
  int status, bad = 0;
  int aboutrequire = strstr(script, "require") != NULL;
  memset(&b, 0, sizeof b);
  out[0] = '\0';
  L = lua_newstate(allocate, &b);
  if (L == NULL) {
    say(out, "no state", "");
    return 1;
  }
  lua_atpanic(L, panic);
  lua_pushcfunction(L, dosetup);
  lua_pushboolean(L, !aboutrequire);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    say(out, "setup: ", lua_tostring(L, -1));
    lua_close(L);
    return 1;
  }
  lua_pushcfunction(L, messages);
  lua_pushcfunction(L, doscript);
  lua_pushstring(L, script);
  arm(&b, mode, n);
  status = lua_pcall(L, 1, 0, 1);
  b.armed = 0;
  *used = b.requests;
  *refused = b.failed;
  if (status != LUA_OK && !(b.failed && ismemory(L, status))) {
    say(out, "script: ", lua_tostring(L, -1));
    bad = 1;
  }
  lua_settop(L, 1);
  lua_pushcfunction(L, dosanity);
  if (lua_pcall(L, 0, 0, 1) != LUA_OK) {
    say(out, "afterwards: ", lua_tostring(L, -1));
    bad = 1;
  }
  lua_close(L);
  if (b.bytes != 0 || b.blocks != 0) {
    snprintf(out, NMSG, "leak: %lu bytes in %ld blocks", (unsigned long)b.bytes,
             b.blocks);
    bad = 2;
  }
  if (b.wrongsize) {
    snprintf(out, NMSG, "%d calls of the allocator with a wrong old size",
             b.wrongsize);
    bad = 1;
  }
  return bad;
}


typedef struct Totals {
  long points, passed, failed, leaks;
} Totals;


static void tryscript(const char *script, long stride, Totals *t) {
  char msg[NMSG];
  long used = 0, unused, n;
  int refused, mode;
  long shown = 0;
  int bad = run(script, COUNT, 0, &used, &refused, msg);
  if (bad) {
    printf("%s, nothing failing: %s\n", script, msg);
    t->failed++;
    t->leaks += (bad == 2);
    return;
  }
  t->passed++;
  printf("%-34s %6ld requests\n", script, used);
  fflush(stdout);
  for (mode = ONCE; mode <= FROMTHEN; mode++) {
    long step = stride > 0 ? stride : 1 + used / (stride ? -stride : POINTS);
    for (n = 1 + (mode - ONCE) * step / 3;; n += step) {
      bad = run(script, (enum mode)mode, n, &unused, &refused, msg);
      t->points++;
      if (bad) {
        t->failed++;
        t->leaks += (bad == 2);
        if (shown++ < 5)
          printf("%s, request %ld, %s: %s\n", script, n, modenames[mode], msg);
      } else
        t->passed++;
      if (!refused) break; /* completed before the n-th request */
    }
  }
}


/*
** Which names of the module no script has used.
*/
static const char coverage[] =
    "local real, seen = require 'autodiff', {}\n"
    "package.loaded.autodiff = setmetatable({}, {__index = function(_, k)\n"
    "  seen[k] = true\n"
    "  return real[k]\n"
    "end, __pairs = function() return pairs(real) end})\n"
    "for _, script in ipairs(scripts) do dofile(script) end\n"
    "local missing = {}\n"
    "for k, v in pairs(real) do\n"
    "  if type(v) == 'function' and not seen[k] then\n"
    "    missing[#missing + 1] = k\n"
    "  end\n"
    "end\n"
    "table.sort(missing)\n"
    "if #missing > 0 then\n"
    "  error('not called by any script: ' .. table.concat(missing, ' '), 0)\n"
    "end\n";


static int docoverage(lua_State *L) {
  load(L, coverage, "=coverage");
  lua_call(L, 0, 0);
  return 0;
}


static void trycoverage(Totals *t, char **script, int n) {
  int k;
  lua_State *L = luaL_newstate();
  if (L == NULL) return;
  lua_pushcfunction(L, messages);
  lua_pushcfunction(L, dosetup);
  lua_pushboolean(L, 1);
  if (lua_pcall(L, 1, 0, 1) == LUA_OK) {
    lua_createtable(L, n, 0);
    for (k = 0; k < n; k++) {
      lua_pushstring(L, script[k]);
      lua_rawseti(L, -2, k + 1);
    }
    lua_setglobal(L, "scripts");
    lua_pushcfunction(L, docoverage);
    if (lua_pcall(L, 0, 0, 1) == LUA_OK) {
      t->passed++;
      lua_close(L);
      return;
    }
  }
  printf("%s\n", lua_tostring(L, -1));
  t->failed++;
  lua_close(L);
}


int main(int argc, char **argv) {
  Totals t = {0, 0, 0, 0};
  long stride = argc > 1 ? atol(argv[1]) : 0;
  char **script = argv + 2;
  int n = argc - 2, k;
  glob_t all;
  memset(&all, 0, sizeof all);
  if (argc <= 2) {
    if (glob("spec/c/oom/*.lua", 0, NULL, &all) != 0) {
      fprintf(stderr, "oom_test: no scripts here\n");
      return EXIT_FAILURE;
    }
    script = all.gl_pathv;
    n = (int)all.gl_pathc;
    trycoverage(&t, script, n);
  }
  for (k = 0; k < n; k++) tryscript(script[k], stride, &t);
  globfree(&all);
  printf("%ld allocation points tried, %ld leaks\n", t.points, t.leaks);
  printf("%ld passed, %ld failed\n", t.passed, t.failed);
  return t.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
