/*
** watch_test.c
** Compiled functions in a Lua that is not what watch.c thinks it is: another
** CallInfo, other instructions. Such a Lua must be recognised, without harm,
** and functions run as they are: what f compares is nothing that the recorder
** could see. Needs the module's objects, Lua and libm.
*/

/* what is tried; the first is right */
static const char *chunk;
static int word;

#define CHUNK chunk
#define WORD word

#include "watch.c"

#include <stdio.h>
#include <stdlib.h>

#include "lualib.h"

int luaopen_autodiff_core(lua_State *L);

static int passed, failed;

/* called with whether functions can be compiled */
static const char script[] =
    "local ad, can = require 'autodiff', ...\n"
    "local function check(c, note)\n"
    "  local s = c:stats()\n"
    "  assert(s.note == note, s.note)\n"
    "  assert((s.traces > 0) == (note == nil), s.traces)\n"
    "end\n"
    "local note = not can and 'what this Lua does cannot be watched' or nil\n"
    "local runs = 0\n"
    "local c = ad.compile(function(x)\n"
    "  runs = runs + 1\n"
    "  local n = 0\n"
    "  while x ~= 0 do x, n = x - 1, n + 1 end\n"
    "  return n\n"
    "end)\n"
    "for n = 1, 20 do assert(c(n) == n) end\n"
    "check(c, note)\n"
    "if not can then assert(runs == 20) end\n"
    "local t = {10, 20, 30}\n"
    "c = ad.compile(function(k, x) return t[k] * x, type(x) end)\n"
    "for k = 1, 3 do\n"
    "  local y, type = c(k, 0.5)\n"
    "  assert(y == k * 5 and type == 'number')\n"
    "end\n"
    "check(c, note)\n"
    /* by all of its arguments: nothing has to be watched */
    "c = ad.compile(ad.value_and_grad(function(x)\n"
    "  if x > 0 then return x * x end\n"
    "  return x\n"
    "end))\n"
    "for _, x in ipairs {2, -2, 3} do\n"
    "  local y, d = c(x)\n"
    "  assert(y == (x > 0 and x * x or x) and d == (x > 0 and 2 * x or 1))\n"
    "end\n"
    "check(c)\n"
    /* by one of them: the other is a number, which can be looked at */
    "c = ad.compile(ad.grad(function(x, k)\n"
    "  while k ~= 0 do x, k = x * x, k - 1 end\n"
    "  return x\n"
    "end, 1))\n"
    "assert(c(3, 1) == 6 and c(3, 2) == 108 and c(2, 0) == 1)\n"
    "check(c, note)\n"
    "local ok, message = pcall(c.save, c, '/dev/null')\n"
    "assert(ok == can and (ok or message:find(note, 1, true)), message)\n"
    "ok, message = pcall(c.c_source, c, 'f')\n"
    "assert(ok == can and (ok or message:find(note, 1, true)), message)\n";

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

static void run(const char *what, int can) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_autodiff_core);
  lua_setfield(L, -2, "autodiff.core");
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  if (luaL_loadbufferx(L, script, sizeof script - 1, "=script", "t") ==
      LUA_OK) {
    lua_pushboolean(L, can);
    if (lua_pcall(L, 1, 0, 1) == LUA_OK) {
      passed++;
      lua_close(L);
      return;
    }
  }
  failed++;
  printf("%s: %s\n", what, lua_tostring(L, -1));
  lua_close(L);
}

int main(void) {
  static const struct {
    const char *what, *chunk;
  } other[] = {
      {"other registers", "local b, a, t, f = ...\n" TRIED},
      {"other lines", "\n" TRIED},
      {"an instruction is missing", "local a, b, t, f = ...\n"
                                    "local x = a == b\n"
                                    "x = a == 7\n"
                                    "x = a == 0.5\n"
                                    "x = t.b\n"
                                    "t[b] = a\n"
                                    "x = f(a), f(a), f(a)\n"
                                    "return f(a)\n"},
      {"few instructions", "return\n"},
      {"many instructions", "local x = 0\n"
                            "for k = 1, 1000 do x = x + k end\n" TRIED},
      {"an error", TRIED "error 'x'"},
      {"another error", "local a = nil; a()"},
  };
  chunk = TRIED;
  word = 4;
  run("as it is", 1);
  for (word = 0; word < 4; word++) { /* all pointers, but to something else */
    char what[40];
    snprintf(what, sizeof what, "word %d of CallInfo", word);
    run(what, 0);
  }
  word = 4;
  for (size_t k = 0; k < sizeof other / sizeof *other; k++) {
    chunk = other[k].chunk;
    run(other[k].what, 0);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
