/*
** sparselib.c
** c:jacobian and c:hessian of compiled functions: the pattern and the colours
** here, the rest in autodiff/sparse.lua.
*/
#include "compile.h"
#include "sparse.h"

#include <string.h>

typedef struct Patterns { /* freed when Lua collects it */
  Pattern a, t, s;
} Patterns;

static int patterns_gc(lua_State *L) {
  Patterns *p = lua_touserdata(L, 1);
  if (p->a.alloc != NULL) ad_patternfree(&p->a);
  if (p->t.alloc != NULL) ad_patternfree(&p->t);
  if (p->s.alloc != NULL) ad_patternfree(&p->s);
  return 0;
}

static Patterns *newpatterns(lua_State *L) {
  Patterns *p = lua_newuserdatauv(L, sizeof *p, 0);
  memset(p, 0, sizeof *p);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, patterns_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return p;
}

static void pushlist(lua_State *L, const uint32_t *x, uint32_t n) {
  lua_createtable(L, (int)n, 0);
  for (uint32_t k = 0; k < n; k++) {
    lua_pushinteger(L, (lua_Integer)x[k] + 1);
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
}

static void pushrows(lua_State *L, const Pattern *p) {
  lua_createtable(L, (int)p->n, 0);
  for (uint32_t i = 0; i < p->nrow; i++)
    for (uint32_t k = p->start[i]; k < p->start[i + 1]; k++) {
      lua_pushinteger(L, (lua_Integer)i + 1);
      lua_rawseti(L, -2, (lua_Integer)k + 1);
    }
}

/* where entry k of the pattern is, 1 + number of the row and of the colour, of
   the products: of the column's colour, or, if symmetric, the row's */
static int showsin(const Pattern *s, const uint32_t *colour, uint32_t i,
                   uint32_t j) {
  for (uint32_t k = s->start[i]; k < s->start[i + 1]; k++)
    if (s->index[k] != j && colour[s->index[k]] == colour[j]) return 0;
  return 1;
}

/*
** sparsity(c, symmetric): of the program that ran last, the rows and columns
** of its entries; colours, by column; in which row of the products of which
** colour each entry shows; the numbers of rows, columns and colours.
*/
static int l_sparsity(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  const int symmetric = lua_toboolean(L, 2);
  Root *r = c->nroot > 0 ? c->root[0] : NULL;
  uint32_t set = P_NONE, nout = 0, n = 0, *colour, *order, *from;
  const Form *f;
  Patterns *p;
  Pattern *a;
  if (c->eager || r == NULL || r->prog.ntrace == 0) return 0;
  ad_rootcode(L, c, r);
  if (ad_hasarrays(&r->code)) return 0;
  for (uint32_t k = 0; k < r->code.nblock; k++) {
    const Block *b = &r->code.block[k];
    if (b->end != P_RETURN) continue;
    if (set != P_NONE && set != b->set) return 0; /* no one pattern */
    set = b->set;
    nout = b->b;
  }
  if (set == P_NONE) return 0;
  lua_settop(L, 2);
  order = lua_newuserdatauv(L, ((size_t)nout + 1) * sizeof *order, 0);
  f = ad_rootresults(L, c, 1, r, set, order);
  if (f == NULL || f->nleaf > nout) return 0;
  p = newpatterns(L);
  while (!ad_sparsity(&r->code, set, nout, &p->t))
    ad_nomem(L, (size_t)r->code.nslot * 64);
  /* rows in the order of the results */
  a = &p->a;
  while (!ad_transpose(&p->t, a)) ad_nomem(L, p->t.n * sizeof *order);
  ad_patternfree(&p->t);
  while (!ad_transpose(a, &p->t)) ad_nomem(L, a->n * sizeof *order);
  ad_patternfree(a);
  from = lua_newuserdatauv(L, ((size_t)p->t.n + 1) * sizeof *from, 0);
  {
    uint32_t *start =
        lua_newuserdatauv(L, ((size_t)f->nleaf + 1) * sizeof *start, 0);
    const uint32_t *old = p->t.start;
    uint32_t m = 0;
    for (uint32_t i = 0; i < f->nleaf; i++) {
      start[i] = m;
      for (uint32_t k = old[order[i]]; k < old[order[i] + 1]; k++)
        from[m++] = p->t.index[k];
    }
    start[f->nleaf] = m;
    memset(a, 0, sizeof *a);
    {
      Pattern view = p->t; /* the same, with these rows: only read */
      view.nrow = f->nleaf;
      view.n = m;
      view.start = start;
      view.index = from;
      if (symmetric && view.nrow == view.ncol) {
        while (!ad_symmetric(&view, &p->s)) ad_nomem(L, m * sizeof *from);
        view = p->s;
      }
      colour =
          lua_newuserdatauv(L, ((size_t)view.ncol + 1) * sizeof *colour, 0);
      if (symmetric && view.nrow == view.ncol)
        while (!ad_starcolour(&view, colour, &n))
          ad_nomem(L, view.ncol * sizeof *colour);
      else {
        while (!ad_transpose(&view, a)) ad_nomem(L, m * sizeof *from);
        while (!ad_colour(&view, a, colour, &n))
          ad_nomem(L, view.ncol * sizeof *colour);
      }
      ad_checkstack(L, 12, NULL);
      pushrows(L, &view);
      pushlist(L, view.index, view.n);
      pushlist(L, colour, view.ncol);
      lua_createtable(L, (int)view.n, 0); /* row of the products */
      lua_createtable(L, (int)view.n, 0); /* colour */
      for (uint32_t i = 0; i < view.nrow; i++)
        for (uint32_t k = view.start[i]; k < view.start[i + 1]; k++) {
          const uint32_t j = view.index[k];
          const int own = !symmetric || showsin(&view, colour, i, j);
          lua_pushinteger(L, (lua_Integer)(own ? i : j) + 1);
          lua_rawseti(L, -3, (lua_Integer)k + 1);
          lua_pushinteger(L, (lua_Integer)colour[own ? j : i] + 1);
          lua_rawseti(L, -2, (lua_Integer)k + 1);
        }
      lua_pushinteger(L, view.nrow);
      lua_pushinteger(L, view.ncol);
      lua_pushinteger(L, n);
    }
  }
  return 8;
}

/* the function behind a compiled one */
static int l_inner(lua_State *L) {
  ad_tocompiled(L, 1);
  lua_getiuservalue(L, 1, AD_CF);
  return 1;
}

static int insparse(lua_State *L, const char *name) {
  ad_tocompiled(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "autodiff.sparse");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, name);
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static int l_jacobian(lua_State *L) { return insparse(L, "jacobian"); }
static int l_hessian(lua_State *L) { return insparse(L, "hessian"); }

/* the table at the top is that of the methods; the one below, the module's */
void ad_opensparselib(lua_State *L, State *S) {
  static const luaL_Reg method[] = {{"jacobian", l_jacobian},
                                    {"hessian", l_hessian},
                                    {"_sparsity", l_sparsity},
                                    {"_inner", l_inner},
                                    {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, method, LUA_NOREF);
}
