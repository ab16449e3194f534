/*
** core.c
** The module autodiff.core: all that is written in C. What users require is
** lua/autodiff.lua, which adds what is better said in Lua.
*/
#include "array.h"

LUAMOD_API int luaopen_autodiff_core(lua_State *L);

LUAMOD_API int luaopen_autodiff_core(lua_State *L) {
  State *S;
  luaL_checkversion(L);
  S = ad_openstate(L);
  lua_newtable(L);
  ad_openlevel(L, S);
  ad_openvalue(L, S);
  ad_openelem(L, S);
  ad_opentransform(L, S);
  ad_openjacobian(L, S);
  ad_openscope(L, S);
  ad_opengraph(L, S);
  ad_opentape(L, S);
  ad_opencustom(L, S);
  ad_openinterrupt(L);
  ad_opennlopt(L);
  ad_openterminal(L);
  ad_openlook(L, S);
  ad_opennpy(L, S);
  ad_openrandom(L, S);
  lua_newtable(L); /* core.array */
  ad_openarray(L, S);
  lua_setfield(L, -2, "array");
  ad_opencompile(L, S);
  return 1;
}
