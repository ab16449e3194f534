/*
** graph.c
** ad.var and backward: a graph that nobody opened and nobody closes.
**
** A graph is a tape like any other. What is new is that it must forget by
** itself. It knows the vars of its nodes through a weak table, and when it
** would grow it first drops every node that no living var depends on
** (ad_compact): a loop that keeps no var of an earlier pass runs in bounded
** memory, whether it calls backward or not.
**
** A node that backward has freed has entries that all point at itself.
*/
#include "array.h"

#include <stdlib.h>
#include <string.h>

/* a graph smaller than this just grows, unless it has saved this much */
#define SMALL 1024
#define LIGHT ((size_t)1 << 16)

/* so many bytes of saved arrays are worth a cycle of the collector */
#define HEAVY ((size_t)1 << 25)

/* how many times its nodes a graph may be swept between two compactions */
#define SWEEPS 8

static int isfreed(const Tape *t, uint32_t node) {
  const uint32_t first = ad_tapefirst(t, node);
  return first < t->end[node] && (t->idx[first] & ~AD_GENERAL) == node;
}

/* marks what the marked nodes below 'from' depend on */
static void markdown(const Level *lv, uint32_t from, unsigned char *mark) {
  const Tape *t = &lv->tape;
  for (uint32_t k = from; k-- > 0;)
    if (mark[k])
      for (uint32_t j = ad_tapefirst(t, k); j < t->end[k]; j++)
        mark[t->idx[j] & ~AD_GENERAL] = 1;
  for (uint32_t c = 0; c < lv->ncall; c++) /* its nodes stay together */
    if (lv->calls[c].node < from && mark[lv->calls[c].node])
      memset(mark + lv->calls[c].node, 1, lv->calls[c].nout + 1);
}

typedef struct Move {
  unsigned char *mark;
  uint32_t *to; /* new number of each node that stays */
  int handles, newhandles, objects, newobjects, callers, newcallers;
} Move;

/* nothing here allocates: the new tables have their size */
static void movenodes(lua_State *L, Level *lv, Move *m) {
  Tape *t = &lv->tape;
  const uint32_t n = t->nnode, noted = lv->nnote;
  uint32_t node = 0, entry = 0, first = 0, ncall = 0;
  t->ninput = t->ngeneral = 0;
  for (uint32_t k = 0; k < n; k++) {
    const uint32_t last = t->end[k];
    if (m->mark[k]) {
      m->to[k] = node;
      if (k < lv->nnote) lv->note[node] = lv->note[k];
      if (first == last) t->ninput++;
      for (uint32_t j = first; j < last; j++, entry++) {
        const uint32_t flag = t->idx[j] & AD_GENERAL;
        t->mult[entry] = t->mult[j];
        if (t->dirs)
          memmove(ad_tapetangents(t, entry), ad_tapetangents(t, j),
                  (size_t)t->dirs * sizeof(double));
        t->idx[entry] = m->to[t->idx[j] & ~AD_GENERAL] | flag;
        if (flag) {
          t->ngeneral++;
          lua_rawgeti(L, m->objects, (lua_Integer)j + 1);
          lua_rawseti(L, m->newobjects, (lua_Integer)entry + 1);
        }
      }
      if (lua_rawgeti(L, m->handles, (lua_Integer)k + 1) == LUA_TUSERDATA) {
        ((Cell *)lua_touserdata(L, -1))->u.var.node = node;
        lua_rawseti(L, m->newhandles, (lua_Integer)node + 1);
      } else
        lua_pop(L, 1);
      t->end[node++] = entry;
    }
    first = last;
  }
  t->nnode = node;
  t->nentry = entry;
  if (noted < n) lv->nnote = 0; /* not all: which, nobody needs to know */
  if (lv->nnote > node) lv->nnote = node;
  for (uint32_t c = 0; c < lv->ncall; c++) {
    if (!m->mark[lv->calls[c].node]) continue;
    lv->calls[ncall].node = m->to[lv->calls[c].node];
    lv->calls[ncall].nout = lv->calls[c].nout;
    lua_rawgeti(L, m->callers, (lua_Integer)c + 1);
    lua_rawseti(L, m->newcallers, (lua_Integer)++ncall);
  }
  lv->ncall = ncall;
}

static int registered(lua_State *L, int ref) {
  if (ref == LUA_NOREF)
    lua_pushnil(L);
  else
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  return lua_gettop(L);
}

static int newtable(lua_State *L, int ref, uint32_t size) {
  if (ref == LUA_NOREF)
    lua_pushnil(L);
  else
    lua_createtable(L, size < 1u << 30 ? (int)size : 0, 0);
  return lua_gettop(L);
}

static void replaceref(lua_State *L, State *S, int ref, int idx) {
  if (ref == LUA_NOREF) return;
  ad_rehold(L, S, ref, idx);
  lua_pushvalue(L, idx);
  lua_rawseti(L, LUA_REGISTRYINDEX, ref);
}

/*
** Drops what no var needs any more, even if that is not much when 'all' says
** so; not while somebody holds numbers of the nodes (a sweep, a checkpoint).
*/
void ad_trimgraph(lua_State *L, Level *lv, int collect, int all) {
  const int top = lua_gettop(L);
  const Tape *t = &lv->tape;
  const uint32_t n = t->nnode;
  uint32_t kept = 0, entries = 0;
  Move m;
  if (lv->busy || lv->spans) return;
  lv->swept = 0;
  ad_checkstack(L, 20, NULL);
  if (collect) {
    lua_gc(L, LUA_GCCOLLECT);
    if (t->nnode != n || lv->busy) return;
  }
  m.mark = lua_newuserdatauv(L, n, 0);
  m.to = lua_newuserdatauv(L, n * sizeof *m.to, 0);
  m.handles = registered(L, lv->handles);
  memset(m.mark, 0, n);
  if (t->nnode != n) { /* the collector ran something that recorded */
    lua_settop(L, top);
    return;
  }
  for (uint32_t k = 0; k < n; k++) {
    m.mark[k] = lua_rawgeti(L, m.handles, (lua_Integer)k + 1) == LUA_TUSERDATA;
    lua_pop(L, 1);
  }
  markdown(lv, n, m.mark);
  for (uint32_t k = 0; k < n; k++)
    if (m.mark[k]) {
      kept++;
      entries += t->end[k] - ad_tapefirst(t, k);
    }
  lv->limit = kept > SMALL / 2 ? kept * 2 : SMALL;
  if (kept <= n / 2 || lv->heavy >= LIGHT || all) {
    const size_t inuse = (size_t)lua_gc(L, LUA_GCCOUNT) << 10;
    lv->heavy = 0;
    lv->heaviest = inuse / 2 > HEAVY ? inuse / 2 : HEAVY;
    m.objects = registered(L, lv->objects);
    m.callers = registered(L, lv->callers);
    m.newobjects = newtable(L, lv->objects, t->ngeneral ? entries : 0);
    m.newcallers = newtable(L, lv->callers, lv->ncall);
    m.newhandles = newtable(L, lv->handles, kept);
    lua_rawgetp(L, LUA_REGISTRYINDEX, lv->S); /* what makes it weak */
    lua_setmetatable(L, m.newhandles);
    if (t->nnode == n) {
      movenodes(L, lv, &m);
      replaceref(L, lv->S, lv->objects, m.newobjects);
      replaceref(L, lv->S, lv->callers, m.newcallers);
      replaceref(L, lv->S, lv->handles, m.newhandles);
      ad_tapetrim(&lv->tape);
    }
  }
  lua_settop(L, top);
}

/*
** Does so when the collector has been through a cycle or the graph has doubled
** since the last time, or when sweeps have gone over it often: both cost more
** than this does. Where arrays are large few nodes hold much: then, if the
** collector does not come round, it is called.
*/
void ad_compact(lua_State *L, Level *lv) {
  const uint32_t n = lv->tape.nnode;
  const int heavy = lv->heavy > lv->heaviest;
  if (n < SMALL && lv->heavy < LIGHT) return;
  if (n < lv->limit && lv->swept < (uint64_t)n * SWEEPS && !heavy) return;
  ad_trimgraph(L, lv, heavy, 0);
}

/*
** Making
*/

/* the graph for a key, made if there is none */
static Level *graphof(lua_State *L, State *S, uint64_t key) {
  Level *lv = ad_findlevel(S, key), *in;
  if (lv != NULL) return lv;
  in = ad_innermost(L, S, 0);
  lv = ad_newlevel(L, S, AD_GRAPH, 0);
  lv->heaviest = HEAVY;
  lv->context = in ? in->key : 0;
  lua_newtable(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, S);
  lua_setmetatable(L, -2);
  lv->handles = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, -1);
  lv->self = luaL_ref(L, LUA_REGISTRYINDEX);
  ad_insert(L, lv, key);
  lua_pop(L, 1);
  return lv;
}

static void var_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const int top = lua_gettop(L);
  Arg a;
  Level *lv;
  (void)ud;
  if (!numeric) {
    lua_pushvalue(L, -1);
    return;
  }
  ad_watch(L, S); /* see watch_gc */
  lv = graphof(L, S, ad_handkey(L, S, top, 1));
  ad_resolve(L, S, top, &a);
  ad_deeper(L, lv, &a);
  ad_leafvar(L, S, lv, a.v, 1);
}

/* ad.var(...): each argument, structures too */
static int l_var(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  luaL_checkany(L, 1);
  ad_checkstack(L, n + 20, "too many arguments");
  for (int i = 1; i <= n; i++)
    if (!ad_isleaf(L, S, i) && lua_type(L, i) != LUA_TTABLE)
      return luaL_typeerror(L, i, "number");
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, var_leaf, NULL, "var");
  }
  return n;
}

/*
** Backward
*/

/* what some targets depend on: 'n' nodes in 'list', all in lo .. top-1 */
typedef struct Reach {
  uint32_t *list;
  uint32_t n, lo, top;
  int sparse; /* few among many: swept one by one, sorted */
} Reach;

typedef struct Back {
  Level *lv;
  Sweep *w;
  const Reach *r;
} Back;

static int reached(const Reach *r, uint32_t node);

/* adds the value at the top to x.grad, x at 'idx'; pops it */
static void accumulate(lua_State *L, State *S, Level *lv, int idx) {
  const Cell *c = lua_touserdata(L, idx);
  const int uv = AD_GENERALKIND(ad_kindof(S, c)) ? 2 : 1;
  const int g = lua_gettop(L);
  val sum;
  if (c->u.var.leaf)
    lua_getiuservalue(L, idx, uv);
  else {
    if (lv->grads == LUA_NOREF) {
      lua_newtable(L);
      lua_createtable(L, 0, 1);
      lua_pushliteral(L, "k");
      lua_setfield(L, -2, "__mode");
      lua_setmetatable(L, -2);
      lv->grads = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->grads);
    lua_pushvalue(L, idx);
    lua_rawget(L, -2);
  }
  if (lua_isnil(L, -1))
    sum = ad_valat(L, g);
  else {
    val old = ad_valat(L, -1);
    sum = ad_op2(L, S, OP_add, old, ad_valat(L, g));
  }
  if (c->u.var.leaf) {
    ad_pushval(L, sum);
    lua_setiuservalue(L, idx, uv);
  } else {
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->grads);
    lua_pushvalue(L, idx);
    ad_pushval(L, sum);
    lua_rawset(L, -3);
  }
  lua_settop(L, g - 1);
}

/* an input of ad.backward */
static void input_leaf(lua_State *L, State *S, void *ud, int numeric) {
  const Back *b = ud;
  const int top = lua_gettop(L);
  const Cell *c = numeric ? ad_tocell(L, S, top) : NULL;
  Level *lv = c ? ad_findlevel(S, ad_keyof(S, c)) : NULL;
  if (lv == NULL || lv->kind != AD_GRAPH)
    luaL_argerror(L, 2, "inputs must be vars made by ad.var, or made of them");
  if (lv == b->lv && b->w != NULL && reached(b->r, c->u.var.node))
    ad_sweepget(L, b->w, c->u.var.node);
  else
    lua_pushnumber(L, 0);
  ad_shapelike(L, S, top);
  accumulate(L, S, lv, top);
}

/* the graph of a target at the top; NULL when it is a constant */
static Level *targetlevel(lua_State *L, State *S, const char *fname) {
  Arg a;
  const int top = lua_gettop(L);
  ad_resolve(L, S, top, &a);
  lua_settop(L, top);
  if (a.key == 0) return NULL;
  if (a.lv != NULL && a.lv->alias) a.lv = a.lv->alias;
  if (a.lv == NULL || a.lv->kind != AD_GRAPH) {
    luaL_error(L, "%s: the value belongs to %s, not to a graph of ad.var",
               fname,
               a.lv && a.lv->kind == AD_TAPE ? "a tape (use tape:gradient)"
               : a.lv                        ? "a transform that is running"
                                             : "duals made by hand");
  }
  return a.lv;
}

static int descending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x > y ? -1 : x < y;
}

/* does the sweep have a value for the node? */
static int reached(const Reach *r, uint32_t node) {
  if (!r->sparse) return node >= r->lo && node < r->top;
  return bsearch(&node, r->list, r->n, sizeof node, descending) != NULL;
}

static void reachmarks(lua_State *L, Level *lv) {
  const uint32_t n = lv->tape.nnode, cap = n + n / 2;
  if (n > lv->capmark) {
    lv->mark = ad_realloc(L, lv->mark, lv->capmark * sizeof *lv->mark,
                          cap * sizeof *lv->mark);
    memset(lv->mark + lv->capmark, 0, (cap - lv->capmark) * sizeof *lv->mark);
    lv->capmark = cap;
  }
  if (n > lv->caplist) {
    lv->list = ad_realloc(L, lv->list, lv->caplist * sizeof *lv->list,
                          cap * sizeof *lv->list);
    lv->caplist = cap;
  }
  if (++lv->epoch == 0) { /* after four thousand million times */
    memset(lv->mark, 0, lv->capmark * sizeof *lv->mark);
    lv->epoch = 1;
  }
}

static void reachnode(Level *lv, Reach *r, uint32_t node) {
  if (lv->mark[node] == lv->epoch) return;
  lv->mark[node] = lv->epoch;
  lv->list[r->n++] = node;
  if (node < r->lo) r->lo = node;
  if (node >= r->top) r->top = node + 1;
}

/* follows the operands; 0 when it comes to a freed node */
static int reachall(Level *lv, Reach *r) {
  const Tape *t = &lv->tape;
  for (uint32_t i = 0; i < r->n; i++) {
    const uint32_t k = lv->list[i];
    if (isfreed(t, k)) return 0;
    for (uint32_t j = ad_tapefirst(t, k); j < t->end[k]; j++)
      reachnode(lv, r, t->idx[j] & ~AD_GENERAL);
  }
  return 1;
}

/*
** Finds what the n targets at index 1 depend on; pushes the list of the nodes,
** a copy, because a finalizer may call backward too. NULL: one of them is
** freed.
*/
static uint32_t *reach(lua_State *L, State *S, Level *lv, int n, Reach *r) {
  uint32_t *copy, epoch, node;
  do {
    lua_settop(L, 4);
    r->n = r->top = 0;
    r->lo = UINT32_MAX;
    reachmarks(L, lv);
    epoch = lv->epoch;
    for (int i = 1; i <= n; i++) {
      lua_rawgeti(L, 1, i);
      if (ad_nodeof(L, S, lv->key, &node)) reachnode(lv, r, node);
      lua_pop(L, 1);
    }
    if (!reachall(lv, r)) return NULL;
    copy = lua_newuserdatauv(L, (size_t)r->n * sizeof *copy + 1, 0);
  } while (epoch != lv->epoch);
  if (r->n) memcpy(copy, lv->list, r->n * sizeof *copy);
  return copy;
}

/*
** The sweep over nodes that lie scattered among many others, which it does
** not touch.
*/
static void scattered(Sweep *w, const Reach *r) {
  const Tape *t = &w->lv->tape;
  for (uint32_t i = 0; i < r->n; i++) {
    const uint32_t k = r->list[i];
    const double a = w->x[k];
    if (a == 0) continue;
    for (uint32_t j = ad_tapefirst(t, k); j < t->end[k]; j++)
      w->x[t->idx[j]] += t->mult[j] * a;
  }
}

static void lighten(Level *lv, size_t bytes) {
  lv->heavy -= bytes < lv->heavy ? bytes : lv->heavy;
}

/* the nodes that were swept are not needed again */
static void freenodes(lua_State *L, Level *lv, const Reach *r) {
  Tape *t = &lv->tape;
  for (uint32_t i = 0; i < r->n; i++) {
    const uint32_t k = r->list[i];
    for (uint32_t j = ad_tapefirst(t, k); j < t->end[k]; j++) {
      if (t->idx[j] & AD_GENERAL) {
        t->ngeneral--;
        lua_rawgeti(L, LUA_REGISTRYINDEX, lv->objects);
        lua_rawgeti(L, -1, (lua_Integer)j + 1);
        lighten(lv, ad_savedbytes(L, lv->S, lua_gettop(L)));
        lua_pop(L, 1);
        lua_pushnil(L);
        lua_rawseti(L, -2, (lua_Integer)j + 1);
        lua_pop(L, 1);
      }
      t->idx[j] = k;
      t->mult[j] = 0;
      for (int d = 0; d < t->dirs; d++) ad_tapetangents(t, j)[d] = 0;
    }
  }
  for (uint32_t c = 0; c < lv->ncall; c++)
    if (isfreed(t, lv->calls[c].node)) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, lv->callers);
      if (lua_rawgeti(L, -1, (lua_Integer)c + 1) == LUA_TTABLE) {
        lua_getfield(L, -1, "saved");
        lighten(lv, ad_marklist(L, lv->S, -3));
      }
      lua_pop(L, 1);
      lua_pushboolean(L, 0); /* its handler is no longer needed */
      lua_rawseti(L, -2, (lua_Integer)c + 1);
      lua_pop(L, 1);
    }
}

/* puts what a sweep has found on the leaves */
static void leafgrads(lua_State *L, State *S, Level *lv, Sweep *w,
                      const Reach *r) {
  const int here = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->handles);
  for (uint32_t i = 0; i < r->n; i++) {
    const uint32_t k = r->list[i];
    if (ad_tapefirst(&lv->tape, k) != lv->tape.end[k]) continue;
    if (lua_rawgeti(L, here + 1, (lua_Integer)k + 1) == LUA_TUSERDATA) {
      ad_sweepget(L, w, k);
      ad_shapelike(L, S, here + 2);
      accumulate(L, S, lv, here + 2);
    }
    lua_settop(L, here + 1);
  }
  lua_settop(L, here);
}

/* number i of a list of seeds at index 3; 1 if there is none */
static val seedat(lua_State *L, State *S, int i, const char *fname) {
  Arg a;
  const Array *shape = NULL;
  lua_rawgeti(L, 1, i);
  if (ad_hasarray(L, S, ad_at(lua_gettop(L)))) {
    ad_pushplain(L, S, -1);
    shape = ad_arrayhere(L, S, -1);
  }
  if (lua_isnil(L, 3) && shape == NULL) return ad_num(1);
  if (lua_isnil(L, 3))
    ad_error(L,
             "%s: an array of shape %s needs a seed: ad.backward({y}, nil, "
             "{seed}), or take its sum",
             fname, ad_shapetext(L, shape->ndim, shape->shape));
  lua_rawgeti(L, 3, i);
  if (ad_isleaf(L, S, -1) ? shape != NULL || ad_arrayvalued(L, S, -1)
                          : shape != NULL) {
    const char *what = lua_pushfstring(L, "%s: seeds: index %d", fname, i);
    lua_insert(L, -2);
    ad_checkfits(L, S, shape, -1, what);
  }
  if (!ad_isleaf(L, S, -1))
    luaL_argerror(L, 3,
                  lua_pushfstring(L, "number expected at index %d, got %s", i,
                                  luaL_typename(L, -1)));
  ad_resolve(L, S, -1, &a);
  return a.v;
}

/*
** targets: list at index 1; inputs: index 2 or nil; seeds: index 3 or nil;
** options: index 4 or nil.
*/
static int backward(lua_State *L, State *S, const char *fname) {
  Level *lv = NULL;
  const int n = (int)lua_rawlen(L, 1);
  int retain = 0;
  uint32_t node;
  Reach r = {NULL, 0, UINT32_MAX, 0, 0};
  Sweep w;
  Back b;
  if (!lua_isnil(L, 4)) {
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_getfield(L, 4, "retain");
    retain = lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  for (int i = 1; i <= n; i++) {
    Level *l;
    lua_rawgeti(L, 1, i);
    if (!ad_isleaf(L, S, -1))
      return luaL_argerror(L, 1,
                           lua_pushfstring(L,
                                           "number expected at index %d, "
                                           "got %s",
                                           i, luaL_typename(L, -1)));
    l = targetlevel(L, S, fname);
    if (l != NULL && (lv == NULL || l->key > lv->key)) lv = l;
    lua_pop(L, 1);
  }
  b.lv = lv;
  b.w = NULL;
  if (lv != NULL) {
    ad_compact(L, lv);
    r.list = reach(L, S, lv, n, &r);
    if (r.list == NULL)
      return luaL_error(L,
                        "%s: the graph has been freed by an earlier "
                        "backward; that one needs {retain = true}",
                        fname);
    if (r.n == 0) r.lo = r.top = 0;
    r.sparse = (r.top - r.lo) / 4 > r.n && lv->ncall == 0 &&
               lv->tape.ngeneral == 0 && lv->tape.dirs == 0 && !S->debug;
    for (int i = 1; i <= n && r.sparse; i++) {
      r.sparse = seedat(L, S, i, fname).i == 0;
      lua_settop(L, 5);
    }
    lv->swept += r.sparse ? r.n : r.top - r.lo;
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->self);
    ad_sweepguard(L, lv);
    if (r.sparse) {
      ad_sweeprange(L, &w, lv, 6, r.top, r.top);
      for (uint32_t i = 0; i < r.n; i++) w.x[r.list[i]] = 0;
    } else
      ad_sweeprange(L, &w, lv, 6, r.lo, r.top);
    w.keep = !lua_isnil(L, 2);
    b.w = &w;
    for (int i = 1; i <= n; i++) {
      const int here = lua_gettop(L);
      lua_rawgeti(L, 1, i);
      if (ad_nodeof(L, S, lv->key, &node))
        ad_sweepseed(L, &w, node, seedat(L, S, i, fname));
      lua_settop(L, here);
    }
    if (r.sparse) {
      qsort(r.list, r.n, sizeof *r.list, descending);
      scattered(&w, &r);
    } else
      ad_sweepreverse(L, &w, r.top, r.lo);
  }
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    b.r = &r;
    ad_tree(L, S, 1, 0, input_leaf, &b, fname);
  } else if (lv != NULL)
    leafgrads(L, S, lv, &w, &r);
  if (lv != NULL) {
    if (!retain) freenodes(L, lv, &r);
    ad_sweepend(&w);
  }
  return 0;
}

/* ad.backward(targets[, inputs[, seeds[, options]]]) */
static int l_backward(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 4);
  if (!lua_isnil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  if (!lua_isnil(L, 3)) luaL_checktype(L, 3, LUA_TTABLE);
  return backward(L, ad_state(L), "backward");
}

/* z:backward([options]) */
static int m_backward(lua_State *L) {
  State *S = ad_state(L);
  luaL_checkudata(L, 1, "autodiff.var");
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) luaL_checktype(L, 2, LUA_TTABLE);
  if (targetlevel((lua_pushvalue(L, 1), L), S, "backward") == NULL)
    return luaL_error(L, "backward: the value is a constant: what made it has "
                         "ended");
  lua_settop(L, 2);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_replace(L, 1); /* the list of targets */
  lua_pushnil(L);
  lua_pushnil(L);
  lua_rotate(L, 2, 2); /* options go to index 4 */
  return backward(L, S, "backward");
}

static int m_zero_grad(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c = luaL_checkudata(L, 1, "autodiff.var");
  if (c->u.var.leaf) {
    lua_pushnil(L);
    lua_setiuservalue(L, 1, AD_GENERALKIND(ad_kindof(S, c)) ? 2 : 1);
  } else {
    const Level *lv = ad_findlevel(S, ad_keyof(S, c));
    if (lv != NULL && lv->grads != LUA_NOREF) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, lv->grads);
      lua_pushvalue(L, 1);
      lua_pushnil(L);
      lua_rawset(L, -3);
    }
  }
  return 0;
}

static int m_detach(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c = luaL_checkudata(L, 1, "autodiff.var");
  if (AD_GENERALKIND(ad_kindof(S, c)))
    lua_getiuservalue(L, 1, 1);
  else
    lua_pushnumber(L, c->value);
  return 1;
}

/*
** ad.dual(value, tangent or list of tangents)
*/
static int l_dual(lua_State *L) {
  State *S = ad_state(L);
  const int list = lua_istable(L, 2);
  int n = 1;
  uint64_t key;
  val primal, *part;
  Arg a;
  lua_settop(L, 2);
  ad_checkoperand(L, S, 1);
  if (list) {
    const lua_Integer len = luaL_len(L, 2);
    luaL_argcheck(L, len >= 1 && len <= 60000, 2,
                  "list of 1 to 60000 tangents expected");
    n = (int)len;
  } else
    ad_checkoperand(L, S, 2);
  ad_checkstack(L, 2 * n + 20, "too many tangents");
  part = lua_newuserdatauv(L, (size_t)n * sizeof *part, 0);
  for (int k = 0; k <= n; k++) { /* value and tangents, from index 4 */
    if (k == 0 || !list)
      lua_pushvalue(L, k + 1);
    else if (lua_geti(L, 2, k), !ad_isleaf(L, S, -1))
      return luaL_argerror(L, 2,
                           lua_pushfstring(L,
                                           "number expected at index %d, "
                                           "got %s",
                                           k, luaL_typename(L, -1)));
    if (lua_type(L, -1) == LUA_TSTRING) { /* a string like a number */
      lua_pushnumber(L, lua_tonumber(L, -1));
      lua_remove(L, -2);
    }
    if (k > 0 && (lua_isuserdata(L, 4) || lua_isuserdata(L, -1))) {
      ad_pushplain(L, S, 4);
      lua_insert(L, -2);
      ad_checkfits(L, S, ad_arrayhere(L, S, -2), -1, "dual: tangent");
      lua_remove(L, -2);
    }
  }
  key = ad_handkey(L, S, 4, 0);
  ad_resolve(L, S, 4, &a);
  primal = a.v;
  for (int k = 0; k < n; k++) {
    ad_resolve(L, S, 5 + k, &a);
    part[k] = a.v;
  }
  ad_pushparts(L, S, key, AD_DUALN, primal, n, part);
  if (S->pauses == NULL && !S->debug) S->dualstamp = ad_stamp(S, key, AD_DUALN);
  return 1;
}

void ad_opengraph(lua_State *L, State *S) {
  static const luaL_Reg methods[] = {{"backward", m_backward},
                                     {"zero_grad", m_zero_grad},
                                     {"detach", m_detach},
                                     {NULL, NULL}};
  static const luaL_Reg fn[] = {
      {"var", l_var}, {"backward", l_backward}, {"dual", l_dual}, {NULL, NULL}};
  lua_createtable(L, 0, 1); /* shared metatable of weak tables */
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_rawsetp(L, LUA_REGISTRYINDEX, S);
  ad_setfuncs(L, methods, S->mt[AD_MTVAR]);
  ad_setfuncs(L, fn, LUA_NOREF);
}
