/*
** loops.c
** Finding loops while a function is recorded.
**
** A loop whose length depends on the data shows as a guard that f comes to
** again and again. When f is there, all that it can still do is a function of
** what it can reach: the variables of the functions that are running, and what
** hangs on them. If at two arrivals the plain part of that is the same and
** only recorded values differ, then the two futures are the same function of
** those values: the program can go back to where it was, with new values.
**
** So at an arrival all of that is walked through, twice: once for a hash of
** what is plain and the list of the recorded values; then, if a loop begins
** here or comes round, each recorded value is replaced, in the variable or
** table field that holds it, by the loop's own (a phi). From then on no two
** variables share a value, and the body cannot mistake one for the other.
**
** What cannot be walked through (coroutines, userdata, C functions on the way
** that have state of their own, transforms that run) makes no loops: the trace
** is then as long as the run. A recorded value from an earlier round that f
** has hidden somewhere and brings forth again fails the recording.
*/
#include "compile.h"

#include <string.h>

#define MAXWALK 4000  /* values in a state */
#define MAXNESTED 60  /* tables within tables */
#define MAXFRAMES 40  /* functions that are running */
#define MAXMISSES 100 /* arrivals at a place that came to nothing */

typedef struct Walk {
  lua_State *L;
  State *S;
  Recorder *r;
  Compiled *c;
  uint64_t hash;
  uint32_t n;      /* recorded values */
  uint32_t visits; /* all values */
  uint32_t first;  /* replacing: the reference of the first phi */
  int replace;
  int seen; /* stack index: numbers of the tables and functions seen */
  lua_Integer nseen;
  int reg; /* what is visited may be garbage in a register */
  int bad;
} Walk;

static void mix(Walk *w, uint64_t x) {
  w->hash = (w->hash ^ x) * UINT64_C(0x9e3779b97f4a7c15);
  w->hash ^= w->hash >> 29;
}

/* the recorded value at the top: its reference goes to the list */
static void listed(Walk *w, const Cell *c) {
  Compiled *k = w->c;
  if (w->n == k->capentry) {
    const uint32_t ncap = k->capentry * 2 + 32;
    k->entry = ad_realloc(w->L, k->entry, k->capentry * sizeof *k->entry,
                          ncap * sizeof *k->entry);
    k->capentry = ncap;
  }
  /* a value of an earlier round is garbage in some register */
  k->entry[w->n] = c->u.var.node;
  if (ad_isstale(w->S, c))
    while ((k->entry[w->n] = ad_progconst(&w->r->root->prog, 0)) == P_NOMEM)
      ad_recnomem(w->L, w->S);
}

static int visit(Walk *w, int depth);

/* has the table or function at the top been here? Else it gets a number */
static int seen(Walk *w) {
  lua_State *L = w->L;
  int known;
  lua_pushvalue(L, -1);
  known = lua_rawget(L, w->seen) != LUA_TNIL;
  if (known && lua_type(L, -1) == LUA_TBOOLEAN)
    mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -2));
  else if (known)
    mix(w, (uint64_t)lua_tointeger(L, -1) + 77);
  lua_pop(L, 1);
  if (known) return 1;
  lua_pushvalue(L, -1);
  lua_pushinteger(L, ++w->nseen);
  lua_rawset(L, w->seen);
  return 0;
}

static void visittable(Walk *w, int depth) {
  lua_State *L = w->L;
  if (seen(w)) return;
  mix(w, 5);
  if (lua_getmetatable(L, -1)) {
    mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  while (!w->bad && lua_next(L, -2)) {
    lua_pushvalue(L, -2);
    if (lua_type(L, -1) == LUA_TUSERDATA && ad_tocell(L, w->S, -1)) w->bad = 1;
    if (lua_type(L, -1) == LUA_TTABLE || lua_type(L, -1) == LUA_TFUNCTION)
      mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    else
      visit(w, depth + 1);
    lua_pop(L, 1);
    if (visit(w, depth + 1)) { /* key, new value */
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    } else
      lua_pop(L, 1);
  }
  if (w->bad) lua_settop(L, lua_gettop(L));
  mix(w, 6);
}

static void visitfunction(Walk *w, int depth) {
  lua_State *L = w->L;
  mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
  if (seen(w)) return;
  for (int i = 1; !w->bad && lua_getupvalue(L, -1, i) != NULL; i++) {
    if (visit(w, depth + 1))
      lua_setupvalue(L, -2, i);
    else
      lua_pop(L, 1);
  }
}

/*
** The value at the top; 1: it has been replaced there by another, which is to
** be put where it came from.
*/
static int visit(Walk *w, int depth) {
  lua_State *L = w->L;
  const int top = lua_gettop(L);
  if (++w->visits > MAXWALK || depth > MAXNESTED) w->bad = 1;
  if (w->bad) return 0;
  ad_checkstack(L, 12, NULL);
  mix(w, (uint64_t)lua_type(L, -1));
  switch (lua_type(L, -1)) {
  case LUA_TNIL:
    return 0;
  case LUA_TBOOLEAN:
    mix(w, (uint64_t)lua_toboolean(L, -1));
    return 0;
  case LUA_TNUMBER: {
    const lua_Number x = lua_tonumber(L, -1);
    uint64_t u;
    if (lua_isinteger(L, -1))
      u = (uint64_t)lua_tointeger(L, -1) * 2 + 1;
    else
      memcpy(&u, &x, sizeof u);
    mix(w, u);
    return 0;
  }
  case LUA_TTABLE:
    visittable(w, depth);
    if (w->bad) lua_settop(L, top);
    return 0;
  case LUA_TFUNCTION:
    visitfunction(w, depth);
    if (w->bad) lua_settop(L, top);
    return 0;
  case LUA_TUSERDATA: {
    const Cell *c = ad_tocell(L, w->S, -1);
    if (c == NULL && w->reg) return 0;
    if (c == NULL) {
      mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
      lua_rawgeti(L, LUA_REGISTRYINDEX, w->S->mt[AD_MTCOMPILED]);
      if (!lua_getmetatable(L, -2)) lua_pushnil(L);
      if (!lua_rawequal(L, -1, -2)) w->bad = 1;
      lua_pop(L, 2);
      return 0;
    }
    if (c->stamp == ad_stamp(w->S, w->r->key, AD_RECN)) {
      if (w->replace) {
        ad_pushrecorded(L, w->S, c->value, w->first + w->n++);
        lua_replace(L, -2);
        return 1;
      }
      listed(w, c);
      w->n++;
      return 0;
    }
    if (AD_GENERALKIND(ad_kindof(w->S, c)))
      w->bad = !w->reg;
    else { /* a constant */
      uint64_t u;
      memcpy(&u, &c->value, sizeof u);
      mix(w, u);
    }
    return 0;
  }
  case LUA_TSTRING:
    mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    return 0;
  default: /* threads, light userdata */
    w->bad = lua_type(L, -1) == LUA_TTHREAD;
    mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    return 0;
  }
}

/*
** The table or function at the top, which is popped, is from outside f. f does
** not change it, as it has no effects: no need to look inside.
*/
static void outer(const Walk *w) {
  lua_State *L = w->L;
  if (lua_type(L, -1) == LUA_TTABLE || lua_type(L, -1) == LUA_TFUNCTION) {
    lua_pushboolean(L, 1);
    lua_rawset(L, w->seen);
  } else
    lua_pop(L, 1);
}

/* all the variables of the functions from the guard down to f */
static void walk(Walk *w) {
  lua_State *L = w->L;
  lua_Debug ar;
  const int top = lua_gettop(L);
  w->hash = 1;
  w->n = w->visits = 0;
  w->nseen = 0;
  lua_newtable(L);
  w->seen = top + 1;
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE) {
    lua_pushnil(L);
    while (lua_next(L, -2)) outer(w);
  }
  lua_pop(L, 1);
  lua_pushglobaltable(L);
  lua_pushnil(L);
  while (lua_next(L, -2)) outer(w);
  lua_pop(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, w->r);
  for (int i = 1; lua_isfunction(L, -1) && lua_getupvalue(L, -1, i) != NULL;
       i++)
    outer(w);
  lua_pop(L, 1);
  for (int level = 0; !w->bad; level++) {
    if (level > MAXFRAMES || !lua_getstack(L, level, &ar)) {
      w->bad = 1;
      break;
    }
    if (ar.i_ci == w->r->frame) break; /* who called f */
    lua_getinfo(L, "Slf", &ar);
    if (level > 0 && *ar.what == 'C') w->bad = 1;
    mix(w, (uint64_t)ar.currentline);
    if (level > 0)
      visit(w, 0); /* the function and its upvalues */
    else
      mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    lua_pop(L, 1);
    w->reg = 0;
    /* of the guard's own frame only what it was called with */
    for (int i = 1; !w->bad && (level > 0 || i <= top); i++) {
      const char *name = lua_getlocal(L, &ar, i);
      if (name == NULL) break;
      w->reg = strcmp(name, "(temporary)") == 0;
      if (visit(w, 0))
        lua_setlocal(L, &ar, i);
      else
        lua_pop(L, 1);
    }
  }
  lua_settop(L, top);
}

static LoopPlace *placeof(lua_State *L, Compiled *c, uint64_t key) {
  LoopPlace *p;
  for (uint32_t k = c->nloopplace; k-- > 0;)
    if (c->loopplace[k].key == key) return &c->loopplace[k];
  if (c->nloopplace == c->caploopplace) {
    const uint32_t ncap = c->caploopplace * 2 + 8;
    c->loopplace =
        ad_realloc(L, c->loopplace, c->caploopplace * sizeof *c->loopplace,
                   ncap * sizeof *c->loopplace);
    c->caploopplace = ncap;
  }
  p = &c->loopplace[c->nloopplace++];
  memset(p, 0, sizeof *p);
  p->key = key;
  return p;
}

/* has f been at the place in this state? */
static int washere(const LoopPlace *p, const Walk *w) {
  for (int k = 0; k < 4; k++)
    if (p->n[k] != 0 && p->n[k] == w->n && p->hash[k] == w->hash) return 1;
  return 0;
}

/*
** A loop begins. What is known of other places is forgotten, for each round to
** find loops within the round; so all rounds start alike.
*/
static void pushloop(lua_State *L, Compiled *c, const LoopPlace *p, uint32_t n,
                     uint64_t hash) {
  const Prog *prog = &c->rec.root->prog;
  Loop *o;
  const uint32_t need = c->nsaved + c->nloopplace;
  if (c->nloop == c->caploop) {
    const uint32_t ncap = c->caploop * 2 + 4;
    c->loop = ad_realloc(L, c->loop, c->caploop * sizeof *c->loop,
                         ncap * sizeof *c->loop);
    c->caploop = ncap;
  }
  if (need > c->capsaved) {
    const uint32_t ncap = need * 2;
    c->saved = ad_realloc(L, c->saved, c->capsaved * sizeof *c->saved,
                          ncap * sizeof *c->saved);
    c->capsaved = ncap;
  }
  o = &c->loop[c->nloop++];
  o->key = p->key;
  o->hash = hash;
  o->n = n;
  o->head = prog->here;
  o->first = prog->block[prog->here].first;
  o->saved = c->nsaved;
  o->nsaved = c->nloopplace;
  for (uint32_t k = 0; k < c->nloopplace; k++)
    if (c->loopplace[k].key != p->key) {
      memset(c->loopplace[k].n, 0, sizeof c->loopplace[k].n);
      c->loopplace[k].count = 0;
    }
  memcpy(c->saved + c->nsaved, c->loopplace, c->nloopplace * sizeof *c->saved);
  c->nsaved = need;
}

/* is it a recorded value from an earlier round of a loop? */
int ad_isstale(const State *S, const Cell *cell) {
  const Compiled *c = ad_compiling(S);
  for (uint32_t k = 0; k < c->nloop; k++)
    if (cell->u.var.node >= c->loop[k].first && !(cell->u.var.node & P_K) &&
        cell->u.var.leaf < c->loop[k].epoch)
      return 1;
  return 0;
}

/* f is at a guard, called as a function of C with its operands: see above */
void ad_loophere(lua_State *L, State *S) {
  Recorder *r = S->recorder;
  Compiled *c = ad_compiling(S);
  Prog *prog = &r->root->prog;
  lua_Debug ar;
  LoopPlace *p;
  Walk w;
  uint64_t key;
  uint32_t at, place, went;
  Loop *o = NULL;
  if (r->failed || c->noloops || L != r->thread ||
      S->live[S->nlive - 1]->key != r->key || !lua_getstack(L, 1, &ar))
    return;
  ad_checkstack(L, AD_SCRUBBED + 20, NULL);
  lua_getinfo(L, "Slf", &ar);
  key =
      (uint64_t)(uintptr_t)lua_topointer(L, -1) * 31 + (uint64_t)ar.currentline;
  lua_pop(L, 1);
  if (*ar.what == 'C') return;
  p = placeof(L, c, key);
  place = (uint32_t)(p - c->loopplace);
  if (p->misses > MAXMISSES) return;
  memset(&w, 0, sizeof w);
  w.L = L;
  w.S = S;
  w.r = r;
  w.c = c;
  walk(&w);
  p = &c->loopplace[place];
  if (w.bad) {
    p->misses += 10;
    return;
  }
  for (at = c->nloop; at-- > 0;)
    if (c->loop[at].key == key && c->loop[at].hash == w.hash &&
        c->loop[at].n == w.n) {
      o = &c->loop[at];
      break;
    }
  if (o != NULL) { /* round again */
    AD_UNTIL(went, ad_recagain(prog, o->head, w.n, c->entry));
    c->nloop = at + 1;
    c->nloopplace = o->nsaved;
    c->nsaved = o->saved + o->nsaved;
    memcpy(c->loopplace, c->saved + o->saved, o->nsaved * sizeof *c->loopplace);
  } else if (washere(p, &w)) {
    AD_UNTIL(went, ad_recenter(prog, w.n, c->entry));
    if (went == 0) {
      pushloop(L, c, p, w.n, w.hash);
      o = &c->loop[c->nloop - 1];
    }
  } else {
    p->hash[p->count % 4] = w.hash;
    p->n[p->count++ % 4] = w.n;
    p->misses++;
    return;
  }
  if (!ad_recwent(L, S, went)) return;
  r->looped = 1;
  o->epoch = ++r->epoch;
  w.replace = 1;
  w.first = o->first;
  w.bad = 0;
  walk(&w);
  if (w.bad || w.n != o->n) r->failed = "the state of a loop has changed";
  /* what f's functions will find in registers that they have not used yet has
     to be the same in all rounds, too */
  ad_recscrub(L, S);
}
