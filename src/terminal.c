/*
** terminal.c
** What the REPL asks about the terminal, and Lua cannot tell.
*/
#define _DEFAULT_SOURCE /* ioctl and its constants */

#include <sys/ioctl.h>
#include <unistd.h>

#include "state.h"

/* isatty(fd) */
static int l_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* size(): columns and lines, or nothing */
static int l_size(lua_State *L) {
  struct winsize w;
  if (ioctl(1, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) return 0;
  lua_pushinteger(L, w.ws_col);
  lua_pushinteger(L, w.ws_row);
  return 2;
}

void ad_openterminal(lua_State *L) {
  static const luaL_Reg fn[] = {
      {"isatty", l_isatty}, {"size", l_size}, {NULL, NULL}};
  lua_newtable(L);
  luaL_setfuncs(L, fn, 0);
  lua_setfield(L, -2, "terminal");
}
