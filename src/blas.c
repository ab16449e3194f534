/*
** blas.c
** Finding BLAS and LAPACK. The libraries stay loaded for the life of the
** process: OpenBLAS has threads of its own, which do not survive dlclose.
*/
#include "blas.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

#if !defined(AD_NOBLAS) && !defined(_WIN32)
#define AD_DLOPEN 1
#include <dlfcn.h>
#else
#define AD_DLOPEN 0
#endif

#if AD_DLOPEN

/* in the order of preference: the library with BLAS, the one with LAPACK */
static const char *const libraries[][2] = {
#ifdef __APPLE__
    {"libopenblas.dylib", "libopenblas.dylib"},
    {"/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
     "/opt/homebrew/opt/openblas/lib/libopenblas.dylib"},
    {"/System/Library/Frameworks/Accelerate.framework/Accelerate",
     "/System/Library/Frameworks/Accelerate.framework/Accelerate"},
#else
    {"libopenblas.so.0", "libopenblas.so.0"},
    {"libblas.so.3", "liblapack.so.3"},
#endif
};

/* the function 'name' of a library, into a pointer to a function */
static int find(void *lib, const char *name, void *to, size_t size) {
  void *const p = dlsym(lib, name);
  if (p == NULL) return 0;
  memcpy(to, &p, size); /* what ISO C has no cast for */
  return 1;
}

static void load(Blas *b, const char *name, const char *lapack) {
  int all = 1;
  void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (lib == NULL) return;
#define X(f, params) all &= find(lib, #f "_", &b->f, sizeof b->f);
  X(ddot, ())
  AD_BLASLIST(X)
  if (!all) return;
  b->name = name;
  lib = dlopen(lapack, RTLD_NOW | RTLD_LOCAL);
  if (lib == NULL) return;
  AD_LAPACKLIST(X)
#undef X
  if (all) b->lapack = lapack;
}

static void search(lua_State *L, Blas *b) {
  const char *const given = getenv("AUTODIFF_BLAS");
  if (given != NULL && strcmp(given, "none") == 0) return;
  if (given != NULL && *given != '\0') {
    char *own = lua_newuserdatauv(L, strlen(given) + 1, 0);
    strcpy(own, given); /* the environment may change */
    lua_setiuservalue(L, -2, 1);
    load(b, own, own);
    return;
  }
  for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
    load(b, libraries[i][0], libraries[i][1]);
    if (b->lapack) return;
  }
}

#else

static void search(lua_State *L, Blas *b) { (void)L, (void)b; }

#endif

const Blas *ad_blas(lua_State *L, State *S) {
  if (S->blas == NULL) {
    Blas *b = lua_newuserdatauv(L, sizeof *b, 1);
    memset(b, 0, sizeof *b);
    search(L, b);
    if (b->name == NULL) memset(b, 0, sizeof *b);
    luaL_ref(L, LUA_REGISTRYINDEX); /* for as long as the state lives */
    S->blas = b;
  }
  return S->blas;
}

const Blas *ad_lapack(lua_State *L, State *S, const char *who) {
  const Blas *b = ad_blas(L, S);
  if (b->lapack == NULL) {
#if AD_DLOPEN
    const char *given = getenv("AUTODIFF_BLAS");
    if (given != NULL && *given != '\0')
      ad_error(L, "%s needs LAPACK, and the environment has AUTODIFF_BLAS=%s",
               who, given);
    ad_error(L,
             "%s needs LAPACK, which is not there: please install OpenBLAS "
             "(on Debian the package libopenblas0)",
             who);
#else
    ad_error(L,
             "%s needs LAPACK, and this build of autodiff has none "
             "(it was made with BLAS=none)",
             who);
#endif
  }
  return b;
}
