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
** If only plain numbers in variables of running functions differ, those may
** become counters, see counters.c: then they are recorded values at the next
** look, and the loop begins here. That takes some evidence, that is, two
** arrivals before this one.
**
** What cannot be walked through (coroutines, userdata, C functions on the way
** that have state of their own, transforms that run) makes no loops: the trace
** is then as long as the run. A recorded value from an earlier round that f
** has hidden somewhere and brings forth again fails the recording.
*/
#include "compile.h"

#include <math.h>
#include <string.h>

#define MAXWALK 4000      /* values in a state */
#define MAXNESTED 60      /* tables within tables */
#define MAXFRAMES 40      /* functions that are running */
#define MAXMISSES 100     /* arrivals at a place that came to nothing */
#define MAXELEMENTS 10000 /* of an array that f has made */
#define FEWROUNDS 4       /* of a 'for', which are no loop */
#define MOSTINT 0x1p51

/* numbers that are in a table, and part of the state as they are; others */
enum { N_PART, N_CAPTURED, N_VARIABLE, N_INDEX, N_ROUNDS };

/* what is done on a walk */
enum { W_LOOK, W_COUNTERS, W_REPLACE };

typedef struct Walk {
  lua_State *L;
  State *S;
  Recorder *r;
  Compiled *c;
  uint64_t hash;
  uint64_t loose;    /* of all but what numbers in variables are */
  uint64_t blind;    /* ... and whether they are counters */
  uint32_t n;        /* recorded values */
  uint32_t visits;   /* all values */
  uint32_t first;    /* W_REPLACE: the reference of the first phi */
  uint32_t from, at; /* the numbers; W_COUNTERS: the next of them */
  uint64_t variable; /* what is visited is in this one */
  uint8_t kind;      /* ... if it is a number, this kind */
  uint8_t what;
  int seen;    /* stack index: numbers of the tables and functions seen */
  int outside; /* stack index: those that are from outside f */
  lua_Integer nseen;
  int reg; /* what is visited may be garbage in a register */
  int bad;
} Walk;

static uint64_t mixed(uint64_t hash, uint64_t x) {
  hash = (hash ^ x) * UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 29;
}

static void mixfull(Walk *w, uint64_t x) {
  w->hash = mixed(w->hash, x);
  w->loose = mixed(w->loose, x);
}

static void mix(Walk *w, uint64_t x) {
  mixfull(w, x);
  w->blind = mixed(w->blind, x);
}

/* a reference goes to the list */
static void listed(Walk *w, uint32_t ref) {
  Compiled *k = w->c;
  if (w->n == k->capentry) {
    const uint32_t ncap = k->capentry * 2 + 32;
    k->entry = ad_realloc(w->L, k->entry, k->capentry * sizeof *k->entry,
                          ncap * sizeof *k->entry);
    k->capentry = ncap;
  }
  while (ref == P_NONE && (ref = ad_progconst(&w->r->root->prog, 0)) == P_NOMEM)
    ad_recnomem(w->L, w->S);
  k->entry[w->n++] = ref;
}

/* a plain number, or a counter */
static void number(Walk *w, const Number *n, int kind, int counter) {
  w->blind = mixed(w->blind, n->isint);
  mixfull(w, counter ? REC_COUNTER + n->isint : n->isint);
  if (kind == N_PART)
    mix(w, n->u.bits);
  else {
    Number *to = ad_addnumber(w->L, w->c);
    *to = *n;
    to->variable = w->variable;
    to->kind = (uint8_t)kind;
    to->differs = 0;
    to->counter = (uint8_t)counter;
    if (!counter) w->hash = mixed(w->hash, n->u.bits);
  }
}

/* the number at the top, which may become a counter: then 1 */
static int visitnumber(Walk *w) {
  lua_State *L = w->L;
  Number n;
  uint32_t ref;
  n.isint = (uint8_t)lua_isinteger(L, -1);
  if (n.isint)
    n.u.i = lua_tointeger(L, -1);
  else
    n.u.x = lua_tonumber(L, -1);
  if (w->what == W_LOOK) number(w, &n, w->kind, 0);
  if (w->what != W_COUNTERS || w->kind == N_PART ||
      !w->c->number[w->at++].differs || w->kind != N_VARIABLE)
    return 0;
  while ((ref = ad_progconst(&w->r->root->prog, lua_tonumber(L, -1))) ==
         P_NOMEM)
    ad_recnomem(L, w->S);
  ad_pushrecorded(L, w->S, lua_tonumber(L, -1), ref);
  ad_flag(L, REC_COUNTER | REC_FRESH | (n.isint ? REC_INT : 0));
  lua_replace(L, -2);
  return 1;
}

/* the recorded value at the top; 1: it has been replaced */
static int visitrecorded(Walk *w, const Cell *c) {
  const uint32_t leaf = c->u.var.leaf;
  const int counter = leaf & REC_COUNTER && w->kind != N_PART;
  if (w->what == W_LOOK) {
    if (counter) {
      Number n;
      n.u.bits = 0;
      n.isint = (leaf & REC_INT) != 0;
      number(w, &n, w->kind, 1);
    } else
      mix(w, 3 + (leaf & (REC_COUNTER | REC_INT)));
    /* a value of an earlier round is garbage in some register */
    listed(w, ad_isstale(w->S, c) ? P_NONE : c->u.var.node);
  } else if (w->what == W_COUNTERS)
    w->at += (uint32_t)counter;
  else {
    if (leaf & REC_FRESH)
      ad_addcounter(w->L, w->c, w->variable, w->first + w->n);
    ad_pushrecorded(w->L, w->S, c->value, w->first + w->n++);
    ad_flag(w->L, leaf & (REC_COUNTER | REC_INT));
    lua_replace(w->L, -2);
    return 1;
  }
  return 0;
}

static int visit(Walk *w, int depth);

/* has the table or function at the top been here? Else it gets a number */
static int seen(Walk *w) {
  lua_State *L = w->L;
  int known;
  lua_pushvalue(L, -1);
  known = lua_rawget(L, w->outside) != LUA_TNIL;
  lua_pop(L, 1);
  if (known) {
    mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    return 1;
  }
  lua_pushvalue(L, -1);
  known = lua_rawget(L, w->seen) != LUA_TNIL;
  if (known) mix(w, (uint64_t)lua_tointeger(L, -1) + 77);
  lua_pop(L, 1);
  if (known) return 1;
  lua_pushvalue(L, -1);
  lua_pushinteger(L, ++w->nseen);
  lua_rawset(L, w->seen);
  return 0;
}

static void visittable(Walk *w, int depth) {
  lua_State *L = w->L;
  const uint8_t kind = w->kind;
  if (seen(w)) return;
  w->kind = N_PART;
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
  w->kind = kind;
  mix(w, 6);
}

static void visitfunction(Walk *w, int depth) {
  lua_State *L = w->L;
  const uint8_t kind = w->kind;
  mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
  if (seen(w)) return;
  if (kind != N_PART) w->kind = N_CAPTURED;
  for (int i = 1; !w->bad && lua_getupvalue(L, -1, i) != NULL; i++) {
    if (visit(w, depth + 1))
      lua_setupvalue(L, -2, i);
    else
      lua_pop(L, 1);
  }
  w->kind = kind;
}

static void mixshape(Walk *w, const Array *a) {
  mix(w, (uint64_t)a->ndim);
  for (int d = 0; d < a->ndim; d++) mix(w, (uint64_t)a->shape[d]);
}

/* the recorded array at the top; 1: it has been replaced */
static int visitshape(Walk *w, const Cell *c) {
  lua_State *L = w->L;
  lua_getiuservalue(L, -1, 1);
  mixshape(w, lua_touserdata(L, -1));
  if (w->what == W_REPLACE) {
    ad_pushrecordedarray(L, w->S, lua_gettop(L), w->first + w->n++);
    lua_replace(L, -3);
  }
  lua_pop(L, 1);
  if (w->what == W_LOOK) {
    if (ad_isstale(w->S, c)) w->bad = 1;
    listed(w, c->u.var.node);
  }
  return w->what == W_REPLACE;
}

/*
** A plain array: what f has made is what is in it; others stay as they are, or
** the recording fails.
*/
static void visitarray(Walk *w) {
  lua_State *L = w->L;
  const Array *a = lua_touserdata(L, -1);
  const int top = lua_gettop(L);
  if (!ad_madehere(L, w->S, -1, 0)) {
    mix(w, (uint64_t)(uintptr_t)a);
    if (ad_owner(L, -1)->written > w->r->writes) w->bad = 1;
    return;
  }
  if (a->size > MAXELEMENTS) {
    w->bad = 1;
    return;
  }
  mixshape(w, a);
  a = ad_packed(L, w->S, top);
  for (size_t i = 0; i < a->size; i++) {
    uint64_t u;
    memcpy(&u, &a->data[i], sizeof u);
    mix(w, u);
  }
  lua_settop(L, top);
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
  if (lua_type(L, -1) == LUA_TNUMBER) return visitnumber(w);
  if (lua_type(L, -1) != LUA_TUSERDATA) mix(w, (uint64_t)lua_type(L, -1));
  switch (lua_type(L, -1)) {
  case LUA_TNIL:
    return 0;
  case LUA_TBOOLEAN:
    mix(w, (uint64_t)lua_toboolean(L, -1));
    return 0;
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
    if (c != NULL && c->stamp == ad_stamp(w->S, w->r->key, AD_RECN))
      return visitrecorded(w, c);
    mix(w, LUA_TUSERDATA);
    if (c == NULL && w->reg) return 0;
    if (lua_touserdata(L, -1) == w->S) return 0; /* of ours: not f's */
    if (c == NULL && ad_arrayhere(L, w->S, -1)) {
      visitarray(w);
      return 0;
    }
    if (c == NULL) {
      mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
      lua_rawgeti(L, LUA_REGISTRYINDEX, w->S->mt[AD_MTCOMPILED]);
      if (!lua_getmetatable(L, -2)) lua_pushnil(L);
      if (!lua_rawequal(L, -1, -2)) w->bad = 1;
      lua_pop(L, 2);
      return 0;
    }
    if (c->stamp == ad_stamp(w->S, w->r->key, AD_RECA)) return visitshape(w, c);
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

/* the value at the top, which is popped, is from outside f */
static void outer(const Walk *w) {
  lua_State *L = w->L;
  if (lua_type(L, -1) == LUA_TTABLE || lua_type(L, -1) == LUA_TFUNCTION) {
    lua_pushboolean(L, 1);
    lua_rawset(L, w->outside);
  } else
    lua_pop(L, 1);
}

/*
** Pushes the set of the tables and functions that are from outside f, as far as
** modules, globals, and what f closes over tell. f does not change them, as it
** has no effects: no need to look inside. One set does for a recording.
*/
static void pushoutside(Walk *w) {
  lua_State *L = w->L;
  w->outside = lua_gettop(L) + 1;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &w->r->epoch) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
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
  lua_pushvalue(L, w->outside);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &w->r->epoch);
}

/* how many variables from number i on have this name? */
static int samename(lua_State *L, const lua_Debug *ar, int i,
                    const char *name) {
  int n = 0;
  for (;; n++) {
    const char *s = lua_getlocal(L, ar, i + n);
    if (s == NULL) return n;
    lua_pop(L, 1);
    if (strcmp(s, name) != 0) return n;
  }
}

/* variable number i on are the registers of a 'for' over numbers */
static void visitfor(Walk *w, const lua_Debug *ar, int i) {
  ForLoop *f = ad_findfor(w->c, ar->i_ci, i - 1);
  Number n[3];
  if (!ad_fornumbers(w->L, ar, i - 1, n)) {
    w->bad = 1;
    return;
  }
  if (f != NULL && w->what == W_LOOK && !ad_foragrees(f, n)) {
    ad_dropfor(w->c, ar->i_ci, i - 1);
    f = NULL;
  }
  if (w->what == W_LOOK) {
    int far = 0;
    if (n[0].isint) /* what the index comes to */
      far = n[1].u.i < 0 ||
            fabs((double)n[0].u.i) + (double)n[1].u.i * fabs((double)n[2].u.i) >
                MOSTINT;
    else
      number(w, &n[1], N_PART, 0);
    number(w, &n[2], N_PART, 0);
    number(w, &n[0], far ? N_CAPTURED : N_INDEX, f != NULL);
    if (n[0].isint) number(w, &n[1], far ? N_CAPTURED : N_ROUNDS, f != NULL);
    if (f != NULL) listed(w, f->index);
    if (f != NULL && f->isint) listed(w, f->left);
  } else if (w->what == W_REPLACE && f != NULL) {
    if (f->fresh) ad_addcounter(w->L, w->c, w->variable, w->first + w->n);
    f->fresh = 0;
    f->index = w->first + w->n++;
    if (f->isint) f->left = w->first + w->n++;
  } else if (w->what == W_COUNTERS) {
    const Number *x = &w->c->number[w->at];
    w->at += n[0].isint ? 2 : 1;
    if (f != NULL || x->kind != N_INDEX || !x->differs) return;
    f = ad_addfor(w->L, w->c);
    memset(f, 0, sizeof *f);
    f->frame = ar->i_ci;
    f->reg = i - 1;
    f->isint = n[0].isint;
    f->fresh = 1;
    f->from = n[0];
    f->rounds = n[1];
    while ((f->index = ad_progconst(&w->r->root->prog,
                                    f->isint ? (double)n[0].u.i : n[0].u.x)) ==
           P_NOMEM)
      ad_recnomem(w->L, w->S);
    while (f->isint && (f->left = ad_progconst(&w->r->root->prog,
                                               (double)n[1].u.i)) == P_NOMEM)
      ad_recnomem(w->L, w->S);
  }
}

/* all the variables of the functions from the guard down to f */
static void walk(Walk *w) {
  lua_State *L = w->L;
  lua_Debug ar;
  const int top = lua_gettop(L);
  w->hash = w->loose = w->blind = 1;
  w->n = w->visits = 0;
  w->bad = 0;
  if (w->what == W_LOOK) w->from = w->c->nnumber;
  w->at = w->from;
  w->nseen = 0;
  lua_newtable(L);
  w->seen = top + 1;
  pushoutside(w);
  for (int level = 0; !w->bad; level++) {
    if (level > MAXFRAMES || !lua_getstack(L, level, &ar)) {
      w->bad = 1;
      break;
    }
    if (ar.i_ci == w->r->frame) break; /* who called f */
    lua_getinfo(L, "Slf", &ar);
    if (level > 0 && *ar.what == 'C') w->bad = 1;
    mix(w, (uint64_t)ar.currentline);
    if (*ar.what != 'C') /* two guards may be in one line */
      mix(w, (uint64_t)(uintptr_t)ad_watchplace(w->S, &ar));
    w->reg = 0;
    w->kind = N_CAPTURED;
    if (level > 0)
      visit(w, 0); /* the function and its upvalues */
    else
      mix(w, (uint64_t)(uintptr_t)lua_topointer(L, -1));
    lua_pop(L, 1);
    w->kind = N_VARIABLE;
    /* of the guard's own frame only what it was called with */
    for (int i = 1; !w->bad && (level > 0 || i <= top); i++) {
      const char *name = lua_getlocal(L, &ar, i);
      if (name == NULL) break;
      w->reg = strcmp(name, "(temporary)") == 0;
      if (w->reg && ad_watchgarbage(w->S, &ar, i - 1)) {
        lua_pop(L, 1);
        continue;
      }
      w->variable = mixed((uint64_t)(uintptr_t)ar.source,
                          (uint64_t)ar.linedefined * 256 + (uint64_t)i);
      if (strcmp(name, "(for state)") == 0) {
        const int is = samename(L, &ar, i, name);
        w->kind = is == 3 ? N_VARIABLE : N_PART;
        if (is == 3) {
          lua_pop(L, 1);
          visitfor(w, &ar, i);
          i += 2;
          continue;
        }
      } else
        w->kind = N_VARIABLE;
      if (visit(w, 0))
        lua_setlocal(L, &ar, i);
      else
        lua_pop(L, 1);
    }
    for (int i = -1; !w->bad && level > 0; i--) { /* what '...' has */
      if (lua_getlocal(L, &ar, i) == NULL) break;
      w->kind = N_VARIABLE;
      w->variable = 0;
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

/*
** Are there numbers that should become counters? Those in which this arrival
** at the place differs from two before, if there is nothing else.
*/
static int candidates(const Compiled *c, const LoopPlace *p, const Walk *w) {
  Number *x = c->number + w->from;
  const uint32_t n = c->nnumber - w->from;
  const Number *before[4];
  int nbefore = 0, distinct = 0;
  if (c->nocounters || !w->S->canwatch) return 0;
  for (int k = 0; k < 4; k++)
    if (p->n[k] == w->n && p->loose[k] == w->loose && p->numbers[k] == n &&
        p->n[k] != 0)
      before[nbefore++] = c->number + p->from[k];
  if (nbefore < 2) return 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t a = before[0][i].u.bits, b = before[1][i].u.bits;
    for (int k = 0; k < nbefore; k++)
      if (before[k][i].u.bits != x[i].u.bits) x[i].differs = 1;
    if (!x[i].differs || x[i].kind == N_CAPTURED) continue;
    distinct |= x[i].u.bits != a && x[i].u.bits != b && a != b;
    if (x[i].isint && fabs((double)x[i].u.i) > MOSTINT) return 0;
    if (x[i].kind == N_ROUNDS && x[i].u.i < FEWROUNDS) return 0;
    if (ad_isblamed(c, x[i].variable)) return 0;
  }
  return distinct;
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
static void pushloop(lua_State *L, Compiled *c, const LoopPlace *p,
                     const Walk *w) {
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
  o->hash = w->hash;
  o->blind = w->blind;
  o->n = w->n;
  o->from = w->from;
  o->numbers = c->nnumber - w->from;
  o->nnumber = c->nnumber;
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
        (cell->u.var.leaf & REC_EPOCH) < c->loop[k].epoch)
      return 1;
  return 0;
}

/* the loop that f is in that was in this state */
static Loop *find(const Compiled *c, uint64_t key, const Walk *w) {
  for (uint32_t k = c->nloop; k-- > 0;) {
    Loop *o = &c->loop[k];
    if (o->key == key && o->hash == w->hash && o->n == w->n) return o;
  }
  return NULL;
}

/*
** Or would it have been in this state, if plain numbers were counters, as they
** are in that loop? Then they differ from those: a loop within a loop begins
** anew.
*/
static int general(const Compiled *c, uint64_t key, const Walk *w) {
  Number *x = c->number + w->from;
  if (c->nocounters) return 0;
  for (uint32_t k = c->nloop; k-- > 0;) {
    const Loop *o = &c->loop[k];
    const Number *y = c->number + o->from;
    uint32_t i = 0;
    if (o->key != key || o->blind != w->blind ||
        o->numbers != c->nnumber - w->from)
      continue;
    for (; i < o->numbers; i++) {
      x[i].differs = !x[i].counter && y[i].counter;
      if (x[i].counter > y[i].counter ||
          (!y[i].counter && x[i].u.bits != y[i].u.bits) ||
          (x[i].differs && x[i].isint && fabs((double)x[i].u.i) > MOSTINT))
        break;
    }
    if (i == o->numbers) return 1;
    for (uint32_t j = 0; j <= i; j++) x[j].differs = 0;
  }
  return 0;
}

/* the candidates become counters; 0: they cannot, or have led nowhere */
static int counters(Walk *w) {
  if (!ad_countersbegin(w->L, w->S)) return 0;
  w->what = W_COUNTERS;
  walk(w);
  w->what = W_LOOK;
  walk(w);
  if (w->bad) ad_giveup(w->L, w->S, "the state of a loop cannot be found out");
  return 1;
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
  uint32_t place, went;
  Loop *o;
  int here = 0, more;
  if (r->failed || c->noloops || L != r->thread ||
      S->live[S->nlive - 1]->key != r->key || !lua_getstack(L, 1, &ar))
    return;
  ad_checkstack(L, AD_SCRUBBED + 20, NULL);
  lua_getinfo(L, "Slf", &ar);
  key =
      (uint64_t)(uintptr_t)lua_topointer(L, -1) * 31 + (uint64_t)ar.currentline;
  lua_pop(L, 1);
  if (*ar.what == 'C') return;
  if (ad_canwatch(L, S)) key = (uint64_t)(uintptr_t)ad_watchplace(S, &ar);
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
  o = find(c, key, &w);
  if (o == NULL && !general(c, key, &w)) {
    here = washere(p, &w);
    more = !here && candidates(c, p, &w);
  } else
    more = o == NULL;
  if (more && counters(&w)) {
    o = find(c, key, &w);
    here = 1;
  }
  if (o != NULL) { /* round again */
    AD_UNTIL(went, ad_recagain(prog, o->head, w.n, c->entry));
    c->nloop = (uint32_t)(o - c->loop) + 1;
    c->nloopplace = o->nsaved;
    c->nnumber = o->nnumber;
    c->nsaved = o->saved + o->nsaved;
    memcpy(c->loopplace, c->saved + o->saved, o->nsaved * sizeof *c->loopplace);
  } else if (here) {
    AD_UNTIL(went, ad_recenter(prog, w.n, c->entry));
    if (went == 0) {
      pushloop(L, c, p, &w);
      o = &c->loop[c->nloop - 1];
    }
  } else {
    const uint32_t k = p->count++ % 4;
    p->hash[k] = w.hash;
    p->loose[k] = w.loose;
    p->from[k] = w.from;
    p->numbers[k] = c->nnumber - w.from;
    p->n[k] = w.n;
    p->misses++;
    return;
  }
  if (!ad_recwent(L, S, went)) return;
  r->looped = 1;
  o->epoch = ++r->epoch;
  w.what = W_REPLACE;
  w.first = o->first;
  walk(&w);
  if (w.bad || w.n != o->n) r->failed = "the state of a loop has changed";
  /* what f's functions will find in registers that they have not used yet has
     to be the same in all rounds, too */
  ad_recscrub(L, S);
}
