/*
** compile.c
** compile(f): a call finds the root for its arguments and runs its code; where
** that ends at a side where nobody has been, f is recorded (record.c), and its
** results may be verified.
*/
#include "compile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAXPOISONED 8 /* recordings that came to nothing */
#define MAXANEW 8     /* without some counter each */
#define BUSYROOTS 8   /* that keep memory for their arrays, those used last */
#define MAXLOOPFAILURES 4 /* then there are none */

/*
** Gradients
*/

/* the form of the gradient by the value at 'at': constants are absent */
static uint32_t gradform(lua_State *L, Compiled *c, int self, const Form *f,
                         uint32_t at, Form *g) {
  const uint32_t *w = f->word + at;
  uint32_t seq, all, item, here, items = 0, kept = 0;
  int dense = 1;
  if (F_ISLEAF(w[0])) {
    ad_formword(L, g, F_NUM);
    g->nleaf++;
    return at + 1;
  }
  seq = w[2], all = w[3], item = w[4];
  at += 5;
  ad_formword(L, g, F_TABLE);
  ad_formword(L, g, 0);
  here = g->n;
  for (int i = 0; i < 3; i++) ad_formword(L, g, 0);
  if (all) {
    kept = seq;
    g->nleaf += seq;
  } else
    for (uint32_t i = 1; i <= seq; i++) {
      if (f->word[at] == F_CONST) { /* what follows has keys of its own */
        dense = 0;
        at += 2;
        continue;
      }
      if (dense)
        kept++;
      else {
        lua_pushinteger(L, i);
        ad_formword(L, g, ad_formconst(L, c, self));
        items++;
      }
      at = gradform(L, c, self, f, at, g);
    }
  for (uint32_t i = 0; i < item; i++) {
    if (f->word[at + 1] == F_CONST) {
      at += 3;
      continue;
    }
    ad_formword(L, g, f->word[at]);
    items++;
    at = gradform(L, c, self, f, at + 1, g);
  }
  g->word[here] = kept;
  g->word[here + 1] = all;
  g->word[here + 2] = items;
  return at;
}

/* which inputs the gradient is by; 0: it cannot be had from the program */
static int wanted(lua_State *L, Compiled *c, Root *r) {
  if (r->want != NULL) return 1;
  if (r->fixedints) return 0;
  for (int pass = 0; pass < 2; pass++) {
    uint32_t n = 0;
    for (int i = 0; i < c->gradn; i++) {
      uint32_t at = 0, leaf = 0, first;
      if (c->gradarg[i] > r->in.nval) return 0;
      for (int k = 1; k < c->gradarg[i]; k++)
        at = ad_formskip(&r->in, at, &leaf);
      if (r->in.word[at] == F_CONST) return 0;
      first = leaf;
      ad_formskip(&r->in, at, &leaf);
      for (uint32_t k = first; k < leaf; k++, n++)
        if (pass) r->want[n] = k;
    }
    if (!pass) {
      r->want = ad_realloc(L, NULL, 0, (n + 1) * sizeof *r->want);
      r->capwant = n + 1;
      r->nwant = n;
    }
  }
  return 1;
}

/*
** The form of the results of a gradient, and where their numbers are among
** those of the program, which returns f's results and then the derivatives.
*/
static Form *gradset(lua_State *L, Compiled *c, int self, Root *r,
                     uint32_t set) {
  const Form *f;
  Form *g;
  uint32_t at = 0, leaf = 0;
  if (set >= r->capgrad) {
    const uint32_t ncap = set + 4;
    r->grad = ad_realloc(L, r->grad, r->capgrad * sizeof *g, ncap * sizeof *g);
    memset(r->grad + r->capgrad, 0, (ncap - r->capgrad) * sizeof *g);
    r->ngrad = r->capgrad = ncap;
  }
  f = &c->set[set];
  g = &r->grad[set];
  if (g->nval > 0) return g;
  g->n = g->nleaf = 0;
  if (f->nval == 0 || f->word[0] == F_TABLE) return NULL;
  if (f->word[0] == F_CONST) { /* a number? */
    int type;
    lua_getiuservalue(L, self, AD_CCONST);
    type = lua_rawgeti(L, -1, f->word[1]);
    lua_pop(L, 2);
    if (type != LUA_TNUMBER) return NULL;
  }
  if (c->gradvalue) {
    ad_formword(L, g, f->word[0]);
    if (f->word[0] == F_CONST)
      ad_formword(L, g, f->word[1]);
    else
      g->nleaf++;
  }
  for (int i = 0; i < c->gradn; i++) {
    uint32_t from = 0, none = 0;
    for (int k = 1; k < c->gradarg[i]; k++)
      from = ad_formskip(&r->in, from, &none);
    gradform(L, c, self, &r->in, from, g);
  }
  at = ad_formskip(f, 0, &leaf);
  for (; at < f->n; at++) ad_formword(L, g, f->word[at]);
  g->nleaf += f->nleaf - leaf;
  g->nval = f->nval - 1 + (uint32_t)c->gradvalue + (uint32_t)c->gradn;
  g->numbers = ad_allnumbers(g);
  return g;
}

/*
** Recording
*/

/* the number of the form of the results at first.., which are new or known */
static uint32_t resultset(lua_State *L, Compiled *c, Taker *t, int first,
                          int last) {
  Form *f;
  if (c->nset == c->capset) {
    const uint32_t ncap = c->capset * 2 + 2;
    c->set = ad_realloc(L, c->set, c->capset * sizeof *c->set,
                        ncap * sizeof *c->set);
    c->capset = ncap;
  }
  f = &c->set[c->nset];
  memset(f, 0, sizeof *f);
  c->nset++;
  t->form = f;
  for (int i = first; i <= last; i++) {
    lua_pushvalue(L, i);
    ad_formtake(L, t, 0);
  }
  f->nval = (uint32_t)(last - first + 1);
  f->numbers = ad_allnumbers(f);
  for (uint32_t k = 0; k + 1 < c->nset; k++) {
    const Form *o = &c->set[k];
    if (o->n == f->n && o->nval == f->nval &&
        (f->n == 0 || memcmp(o->word, f->word, f->n * sizeof *f->word) == 0)) {
      ad_formfree(L, f);
      c->nset--;
      return k;
    }
  }
  return c->nset - 1;
}

/*
** Calls f with the arguments at 2 .. n+1 recorded. Leaves its results above
** the level (at 'slot'), without the recorder's values; 0: an error message
** is there instead.
*/
/*
** f gets copies of its tables. Can it tell the copy at b from the table at a,
** by its length, or since that is in two places? Or does only the order of
** its keys differ? 'seen': the tables so far, also the copies, for the watch
*/
static void copied(lua_State *L, Recorder *r, int a, int b, int seen,
                   int depth) {
  if (r->doubt || lua_type(L, a) != LUA_TTABLE || lua_rawequal(L, a, b)) return;
  ad_checkstack(L, 10, NULL);
  lua_pushvalue(L, a);
  r->doubt = lua_rawget(L, seen) != LUA_TNIL || depth > AD_MAXFORM ||
             lua_rawlen(L, a) != lua_rawlen(L, b);
  for (int i = 0; i < 2; i++) {
    lua_pushvalue(L, i ? a : b);
    lua_pushboolean(L, 1);
    lua_rawset(L, seen);
  }
  lua_pushnil(L); /* the key in b */
  lua_pushnil(L);
  while (lua_next(L, a)) { /* key in b, key, value */
    if (!r->order) {
      lua_pushvalue(L, -3);
      if (lua_next(L, b)) {
        lua_pop(L, 1);
        r->order = !lua_rawequal(L, -1, -3);
        lua_replace(L, -4);
      } else
        r->order = 1;
    }
    if (lua_type(L, -1) == LUA_TTABLE) {
      lua_pushvalue(L, -2);
      lua_rawget(L, b);
      copied(L, r, lua_gettop(L) - 1, lua_gettop(L), seen, depth + 1);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 2);
}

static int record(lua_State *L, Compiled *c, Root *r, int n, int *status) {
  State *S = c->S;
  const int slot = lua_gettop(L) + 1;
  Taker t;
  uint32_t set, ok;
  lua_Debug ar;
  Level *lv;
  ad_checkstack(L, AD_SCRUBBED + 20, NULL);
  lv = ad_enter(L, S, AD_RECORD);
  lua_toclose(L, slot);
  ad_recstart(&r->prog);
  c->rec.root = r;
  c->rec.lv = lv;
  c->rec.key = lv->key;
  c->rec.failed = NULL;
  c->rec.thread = L;
  c->rec.epoch = 0;
  c->rec.looped = 0; /* neither before, nor now */
  for (uint32_t k = 0; k < r->prog.nblock && !c->rec.looped; k++)
    c->rec.looped = r->prog.block[k].end == P_GOTO;
  c->rec.counters = c->rec.blamed = 0;
  ad_countersreset(c);
  c->rec.arrays = r->in.narray > 0;
  c->rec.inside = 0;
  c->rec.read = NULL;
  c->rec.writes = S->writes;
  c->rec.doubt = 0;
  c->rec.given = memchr(r->isint, 1, r->in.nleaf) != NULL;
  if (c->isgrad && r->nwant == r->in.nleaf) c->rec.given = 0; /* vars */
  lua_getstack(L, 0, &ar);
  c->rec.frame = ar.i_ci;
  c->nloop = c->nloopplace = c->nsaved = 0;
  S->recorder = &c->rec;
  lua_settop(L, slot + AD_SCRUBBED); /* nothing of ours in f's registers */
  lua_settop(L, slot);
  lua_getiuservalue(L, 1, c->isgrad ? AD_CINNER : AD_CF);
  if (lua_type(L, -1) == LUA_TFUNCTION) { /* for loops.c */
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &c->rec);
  }
  if (!ad_watchable(L, S)) c->rec.doubt = 1;
  /* without, there is only what sees no numbers (the function of a gradient by
     all of its arguments), and of which only matters what it calls */
  c->rec.watched = (uint8_t)ad_canwatch(L, S);
  if (!c->rec.watched) c->rec.doubt = 1;
  ad_watchready(L, &c->rec);
  ad_pushvalues(L, 1, r, &r->in, r->given, NULL, S);
  c->rec.order = 0;
  if (!r->in.numbers) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &c->rec.frame); /* see ad_watchready */
    for (int i = 1; i <= n; i++)
      copied(L, &c->rec, i + 1, slot + 1 + i, slot + n + 2, 0);
    lua_settop(L, slot + n + 1);
  }
  c->rec.stopped = 0;
  if (c->loopfailures > 0) ad_stopcollector(L, &c->rec);
  if (c->rec.watched) ad_watchbegin(L, S);
  *status = lua_pcall(L, n, LUA_MULTRET, 0);
  ad_startcollector(L, &c->rec);
  if (c->rec.watched) ad_watchend(L, S);
  if (*status == LUA_OK) {
    const int first = slot + 1, last = lua_gettop(L);
    ad_checkstack(L, last - first + 20, "too many results");
    if (!c->rec.failed) {
      memset(&t, 0, sizeof t);
      t.c = c;
      t.self = 1;
      t.results = 1;
      lua_pushnil(L);
      t.slot = last + 1;
      set = resultset(L, c, &t, first, last);
      ad_recordarrays(L, S);
      if (c->rec.failed)
        ;
      else if (t.foreign)
        ad_recordfail(S,
                      "f returns a value of a transform that runs around it");
      else {
        const uint32_t before = r->prog.block0;
        AD_UNTIL(ok, ad_recreturn(&r->prog, set, c->set[set].nleaf, t.ref));
        if (ad_recwent(L, S, ok) &&
            (r->prog.nblock > before || c->traces == 0 || !r->hascode)) {
          c->traces++;
          r->news++;
        }
        if (!c->rec.failed) ad_countersend(c);
      }
      lua_settop(L, last);
    }
    for (int i = first; i <= last; i++) {
      lua_pushvalue(L, i);
      ad_strip(L, S, lv->key);
      lua_replace(L, i);
    }
  }
  ad_exit(L, slot); /* which the next line may be too deep to call */
  ad_closeslot(L, slot);
  return *status == LUA_OK;
}

/* f itself */
static int itself(lua_State *L, Compiled *c, int n) {
  c->eagercalls++;
  lua_getiuservalue(L, 1, AD_CF);
  lua_replace(L, 1);
  lua_settop(L, n + 1);
  lua_callk(L, n, LUA_MULTRET, 0, ad_results);
  return ad_results(L, LUA_OK, 0);
}

/* the same where nothing of the program is in use any more */
static int eager(lua_State *L, Compiled *c, int n) {
  c->busy = 0;
  return itself(L, c, n);
}

/*
** Verification
**
** Lua asks nobody for x == 1, type(x) or t[x], which are something else for a
** recorded value than for a number. The watch sees to that as far as Lua's own
** instructions and libraries go. Where f has called something else, what the
** recording has come to is compared with what f gives for the plain arguments.
*/

#define DIFFERENT                                                              \
  "f gives other results where it is recorded: it runs as it is (what "        \
  "depends "                                                                   \
  "on the arguments alone, and writes ad.eq for ==, can be compiled)"

typedef struct Difference {
  double largest, by; /* numbers: of f's own; of the differences */
  int other;          /* something else differs */
  State *S;
} Difference;

static void comparenumbers(Difference *d, double x, double y) {
  if (isfinite(y) && fabs(y) > d->largest) d->largest = fabs(y);
  if (x == y || (x != x && y != y)) return;
  if (isfinite(x) && isfinite(y))
    d->by = fmax(d->by, fabs(x - y));
  else
    d->other = 1;
}

/* 0: they are no arrays */
static int comparearrays(lua_State *L, Difference *d, int a, int b) {
  const int top = lua_gettop(L);
  const Array *x = ad_arrayhere(L, d->S, a), *y = ad_arrayhere(L, d->S, b);
  if (x == NULL || y == NULL) return 0;
  ad_checkstack(L, 4, NULL);
  if (x->ndim != y->ndim ||
      memcmp(x->shape, y->shape, sizeof *x->shape * (size_t)x->ndim) != 0)
    d->other = 1;
  else {
    x = ad_packed(L, d->S, a);
    y = ad_packed(L, d->S, b);
    for (size_t i = 0; i < x->size; i++)
      comparenumbers(d, x->data[i], y->data[i]);
  }
  lua_settop(L, top);
  return 1;
}

/* adds the value at 'a', recorded, and that at 'b', f's own */
static void compare(lua_State *L, Difference *d, int a, int b, int depth) {
  const int type = lua_type(L, b);
  lua_Unsigned na = 0, nb = 0;
  if (lua_type(L, a) != type || depth > AD_MAXFORM) {
    d->other = 1;
    return;
  }
  if (type == LUA_TNUMBER) {
    /* those that the program takes for integers are counters (counters.c) */
    if (lua_isinteger(L, a) && !lua_isinteger(L, b)) d->other = 1;
    comparenumbers(d, lua_tonumber(L, a), lua_tonumber(L, b));
    return;
  }
  if (lua_rawequal(L, a, b)) return;
  if (type == LUA_TUSERDATA && comparearrays(L, d, a, b)) return;
  if (type != LUA_TTABLE || ad_isresource(L, b)) {
    d->other = 1;
    return;
  }
  ad_checkstack(L, 8, "structure is nested too deep");
  if (!lua_getmetatable(L, a)) lua_pushnil(L);
  if (!lua_getmetatable(L, b)) lua_pushnil(L);
  if (!lua_rawequal(L, -1, -2)) d->other = 1;
  lua_pop(L, 2);
  lua_pushnil(L);
  while (lua_next(L, a)) {
    na++;
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  while (lua_next(L, b)) {
    nb++;
    lua_pushvalue(L, -2);
    lua_rawget(L, a);
    compare(L, d, lua_gettop(L), lua_gettop(L) - 1, depth + 1);
    lua_pop(L, 2);
    if (d->other) {
      lua_pop(L, 1);
      return;
    }
  }
  if (na != nb) d->other = 1;
}

static void dropall(lua_State *L, Compiled *c) {
  while (c->nroot > 0) ad_droproot(L, c, c->root[0]);
  c->traces = 0;
}

/* f has ended, or failed: then what was recorded is not what it does */
static int compiled_close(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  if (!c->verifying) return 0;
  c->verifying = 0;
  if (lua_isnoneornil(L, 2)) return 0;
  dropall(L, c);
  if (++c->poisoned >= MAXPOISONED) c->eager = DIFFERENT;
  return 0;
}

/* f has run: see verify */
static int verified(lua_State *L, int status, lua_KContext ctx) {
  Compiled *c = lua_touserdata(L, 1);
  const int first = (int)ctx, slot = c->verifying, last = lua_gettop(L);
  Difference d = {0, 0, 0, c->S};
  (void)status;
  ad_closeslot(L, slot);
  ad_checkstack(L, 10, NULL);
  d.other = last - slot != slot - first;
  for (int k = 0; k < slot - first && !d.other; k++)
    compare(L, &d, first + k, slot + 1 + k, 0);
  if (!d.other && d.by <= 1e-10 * d.largest + c->noise) {
    lua_settop(L, slot - 1);
    return slot - first;
  }
  c->eagercalls++;
  dropall(L, c);
  if (c->isgrad) /* then as a function like any other */
    c->isgrad = 0;
  else
    c->eager = DIFFERENT;
  return last - slot;
}

/*
** The results first .. of what was recorded are returned, if nothing speaks
** against them, or f itself agrees, else those of f. Meanwhile, and until an f that yields has come back, calls
** of this are calls of f.
*/
static int verify(lua_State *L, Compiled *c, int n, int first) {
  const int slot = lua_gettop(L) + 1;
  if (!c->rec.doubt && !c->rec.arrays) return slot - first;
  ad_checkstack(L, n + 20, "too many arguments");
  lua_pushvalue(L, 1);
  lua_toclose(L, slot);
  c->verifying = slot;
  lua_getiuservalue(L, 1, AD_CF);
  for (int i = 2; i <= n + 1; i++) lua_pushvalue(L, i);
  c->busy = 0;
  lua_callk(L, n, LUA_MULTRET, first, verified);
  return verified(L, LUA_OK, first);
}

/* numbers that come of rounding alone, where what is left is as small */
static void noise(Compiled *c, const Root *r, double y) {
  double x = 0;
  for (uint32_t k = 0; k < r->in.nleaf; k++)
    if (fabs(r->given[k]) > x && isfinite(r->given[k])) x = fabs(r->given[k]);
  c->noise = 1e-14 * x;
  if (isfinite(y)) c->noise += 1e-10 * fabs(y);
}

static int has(lua_State *L, int idx, const char *text) {
  const char *s = lua_type(L, idx) == LUA_TSTRING ? lua_tostring(L, idx) : NULL;
  return s != NULL && strstr(s, text) != NULL;
}

/* f ran without the recorder: then with it, it should have */
static int notrecorded(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  if (ctx) { /* of what is done with arrays not all can be recorded */
    Compiled *c = lua_touserdata(L, 1);
    c->eagercalls++;
    if (++c->poisoned >= MAXPOISONED)
      c->eager = "what f does with arrays could not be recorded";
    return lua_gettop(L) - 2;
  }
  lua_settop(L, 2); /* f is gone; the message */
  if (lua_type(L, 2) != LUA_TSTRING) {
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 2));
    lua_replace(L, 2);
  }
  lua_pushfstring(
      L,
      "%s\n(compile: this works with a plain number only; ad.value(x) gives "
      "one, ad.eq(a, b) compares with one, ad.math has the functions)",
      lua_tostring(L, 2));
  return lua_error(L);
}

/* once more from the start, or, after several times, without loops */
static void loopfailed(lua_State *L, Compiled *c) {
  if (++c->loopfailures > MAXLOOPFAILURES) c->noloops = 1;
  dropall(L, c);
}

/* records a call, or runs it eagerly if that fails; 0: an error in f */
static int asgradient(lua_State *L, Compiled *c, Root *r, int n);

static int once(lua_State *L, Compiled *c, Root *r, int n, int *status) {
  int ok;
  ad_rootmatches(L, c->S, r, 1, 2, n + 1, r->given);
  ad_rootintegers(L, r, 1, 2);
  ad_callarguments(L, r);
  ok = record(L, c, r, n, status);
  ad_forgetarguments(L, r);
  if (!ok) return 0;
  if (c->rec.failed && c->rec.counters)
    ; /* see attempt */
  else if (c->rec.failed && c->rec.looped)
    loopfailed(L, c);
  else if (c->rec.failed) {
    if (++c->poisoned >= MAXPOISONED) c->eager = c->rec.failed;
  } else
    noise(c, r, 0);
  return 1;
}

/* what a call returns that was recorded: the results are at first .. */
static int recorded(lua_State *L, Compiled *c, int n, int first) {
  return c->rec.failed ? eager(L, c, n) : verify(L, c, n, first);
}

#define MISSED (-2)
#define NORESULT (-1)
#define AGAIN (-3)

/* f has run as it is, without an error: see doubtful */
static int unlike(lua_State *L, int status, lua_KContext ctx) {
  Compiled *c = lua_touserdata(L, 1);
  const int first = (int)ctx < 0 ? -(int)ctx : (int)ctx;
  (void)status;
  c->eagercalls++;
  dropall(L, c);
  if (ctx < 0)
    c->isgrad = 0;
  else
    c->nocounters = 1;
  return lua_gettop(L) - first + 1;
}

/*
** A recording has ended with an error. If it is f's own, it comes again, and
** what was recorded stays; else that was done in a way that f does not bear:
** with counters, or as a gradient.
*/
static int doubtful(lua_State *L, Compiled *c, int n) {
  const lua_KContext ctx = c->rec.counters ? n + 2 : -n - 2;
  ad_checkstack(L, n + 20, "too many arguments");
  lua_settop(L, n + 1);
  lua_getiuservalue(L, 1, AD_CF);
  for (int i = 2; i <= n + 1; i++) lua_pushvalue(L, i);
  c->busy = 0;
  lua_callk(L, n, LUA_MULTRET, ctx, unlike);
  return unlike(L, LUA_OK, ctx);
}

/* a recording with counters has failed: once more, without them */
static int again(Compiled *c) {
  if (!c->rec.blamed) c->nocounters = 1;
  return AGAIN;
}

static int attempt(lua_State *L, Compiled *c, Root *r, int n) {
  int status, ok;
  const int top = n + 1;
  ad_checkstack(L, n + 30, "too many arguments");
  if (c->traces >= c->maxtraces) return eager(L, c, n);
  if (r == NULL) r = ad_newroot(L, c, 1, 2, n + 1, c->fixedints);
  if (r == NULL || !ad_rootintegers(L, r, 1, 2)) return eager(L, c, n);
  if (r->prog.nins >= c->maxoperations) return eager(L, c, n);
  if (c->isgrad) {
    const int k = r->in.narray ? -1 : asgradient(L, c, r, n);
    if (k >= 0 || k == AGAIN) return k;
    /* not so: then as what it is, a function like any other */
    c->isgrad = 0;
    while (c->nroot > 0) ad_droproot(L, c, c->root[0]);
    c->traces = 0;
    lua_settop(L, top);
    r = ad_newroot(L, c, 1, 2, n + 1, c->fixedints);
    if (r == NULL) return eager(L, c, n);
  }
  if (!ad_canwatch(L, c->S)) {
    c->eager = "what this Lua does cannot be watched";
    return eager(L, c, n);
  }
  ok = once(L, c, r, n, &status);
  if (!ok && status == LUA_ERRMEM) return lua_error(L);
  if (c->rec.counters && c->rec.failed) return again(c);
  if (ok) return recorded(L, c, n, top + 2);
  if (!r->fixedints) { /* once more, with integers as what they are */
    Root *fixed = ad_newroot(L, c, 1, 2, n + 1, 1);
    if (fixed != NULL && fixed->in.nleaf < r->in.nleaf) {
      if (once(L, c, fixed, n, &status)) {
        if (c->rec.counters && c->rec.failed) return again(c);
        c->fixedints = 1;
        for (uint32_t k = c->nroot; k-- > 0;)
          if (c->root[k] != fixed) ad_droproot(L, c, c->root[k]);
        return recorded(L, c, n, top + 4); /* the first error and its slot */
      }
      if (status == LUA_ERRMEM) return lua_error(L);
      lua_settop(L, top + 2);
    }
    if (fixed != NULL) ad_droproot(L, c, fixed);
  }
  if (r->prog.ntrace == 0) ad_droproot(L, c, r);
  if (c->rec.counters) return doubtful(L, c, n);
  /* the error of f's own comes with f's own traceback */
  if (has(L, -1, "attempt to yield")) {
    c->eager = "f yields";
    lua_settop(L, top);
    return eager(L, c, n);
  }
  /* the message below: not by way of the slots that were closed, which Lua
     5.4.2 would miss (see ad_closeslot) */
  lua_rawsetp(L, LUA_REGISTRYINDEX, &c->rec);
  lua_settop(L, top);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &c->rec);
  lua_insert(L, 2);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &c->rec);
  lua_getiuservalue(L, 1, AD_CF);
  lua_insert(L, 3);
  c->busy = 0;
  lua_callk(L, n, LUA_MULTRET, c->rec.arrays, notrecorded);
  return notrecorded(L, LUA_OK, c->rec.arrays);
}

/*
** The call cannot be answered by what is there. Stack: self, n arguments;
** their numbers are in r->given when there is a root.
*/
static int callslow(lua_State *L, Compiled *c, Root *r, int n) {
  int k = c->anew ? AGAIN : attempt(L, c, r, n);
  for (int i = 0; k == AGAIN; i++) {
    dropall(L, c);
    c->anew = 0;
    if (i == MAXANEW) c->nocounters = 1;
    lua_settop(L, n + 1);
    k = attempt(L, c, NULL, n);
  }
  return k;
}

const Form *ad_rootresults(lua_State *L, Compiled *c, int self, Root *r,
                           uint32_t set, uint32_t *order) {
  const Form *f = c->isgrad ? gradset(L, c, self, r, set) : &c->set[set];
  for (uint32_t k = 0; f != NULL && k < f->nleaf; k++) order[k] = k;
  return f;
}

/* pushes the results of a run that ended well; their number, or NORESULT */
static int results(lua_State *L, Compiled *c, Root *r, const Code *code,
                   const Block *b, const double *v) {
  const Form *f = &c->set[b->set];
  const uint32_t *out = code->list + b->a;
  if (c->isgrad && (f = gradset(L, c, 1, r, b->set)) == NULL) return NORESULT;
  if (f->numbers) {
    if (f->nval > LUA_MINSTACK / 2)
      ad_checkstack(L, (int)f->nval, "too many results");
    for (uint32_t i = 0; i < f->nval; i++) lua_pushnumber(L, v[out[i]]);
  } else
    ad_pushvalues(L, 1, r, f, v, out, NULL);
  return (int)f->nval;
}

int ad_callresults(lua_State *L, Compiled *c, Root *r, const Block *b) {
  return results(L, c, r, &r->code, b, r->frame.v);
}

/*
** The stack was too small for what a gradient keeps of its loops: once more,
** with code that needs less of it, and which is kept.
*/
static uint32_t recomputing(lua_State *L, Compiled *c, Root *r) {
  const int native = r->backend == &ad_native;
  if (!c->isgrad || r->recompute) return P_FULL;
  memmove(r->given, ad_rootinputs(r), r->in.nleaf * sizeof(double));
  r->recompute = 1;
  ad_dropcode(r);
  if (!ad_rootcode(L, c, r)) return P_FULL;
  if (native) ad_tonative(c, r);
  memcpy(ad_rootinputs(r), r->given, r->in.nleaf * sizeof(double));
  return r->backend->run(r->made, &r->frame);
}

/*
** What comes of a run that ended in block 'at': the number of results pushed,
** MISSED, or NORESULT when f itself has to say.
*/
static int answer(lua_State *L, Compiled *c, Root *r, uint32_t at) {
  const Code *code = &r->code;
  const double *v;
  const Block *b;
  const uint32_t *out;
  double bad = 0;
  if (at == P_FULL) at = recomputing(L, c, r);
  if (at == P_FULL) {
    c->full = r->recompute;
    return NORESULT;
  }
  v = r->frame.v;
  b = &code->block[at];
  if (b->end != P_RETURN) return MISSED;
  out = code->list + b->a;
  if (code->relaxed) {
    for (uint32_t i = 0; i < b->b; i++) bad += v[out[i]] * 0;
    if (bad != 0) { /* NaN: an infinity may be to blame */
      ad_rootexact(L, c, r);
      code = &r->exact;
      memcpy(r->exactframe.v + code->nconst, ad_rootinputs(r),
             r->in.nleaf * sizeof *v);
      v = r->exactframe.v;
      at = ad_interpreter.run(r->exactmade, &r->exactframe);
      if (at == P_FULL) return NORESULT;
      b = &code->block[at];
      if (b->end != P_RETURN) return MISSED;
    }
  }
  return results(L, c, r, code, b, v);
}

/*
** Records f, of which a gradient is asked for, and runs the program of that.
** -1: it cannot be done so.
*/
static int asgradient(lua_State *L, Compiled *c, Root *r, int n) {
  const int top = lua_gettop(L);
  int status, k;
  if (!wanted(L, c, r)) return -1;
  if (r->nwant < r->in.nleaf && !ad_canwatch(L, c->S)) return -1;
  ad_rootmatches(L, c->S, r, 1, 2, n + 1, r->given);
  ad_rootintegers(L, r, 1, 2);
  k = record(L, c, r, n, &status);
  if (status == LUA_ERRMEM) lua_error(L);
  if (c->rec.counters && c->rec.failed) return again(c);
  if (!k) return doubtful(L, c, n);
  noise(c, r, lua_tonumber(L, top + 2));
  lua_settop(L, top);
  if (c->rec.failed && c->rec.looped && !c->noloops) {
    loopfailed(L, c);
    return c->noloops ? -1 : eager(L, c, n);
  }
  if (c->rec.failed) return -1;
  if (r->hascode && r->misses * 16 < r->prog.ntrace) return eager(L, c, n);
  if (!ad_rootcode(L, c, r)) return -1; /* not this way */
  memcpy(ad_rootinputs(r), r->given, r->in.nleaf * sizeof(double));
  k = answer(L, c, r, r->backend->run(r->made, &r->frame));
  if (k == MISSED || (k == NORESULT && r->recompute)) return eager(L, c, n);
  return k >= 0 ? verify(L, c, n, top + 1) : k;
}

/* pushes one that has neither function nor programs */
Compiled *ad_newcompiled(lua_State *L, State *S) {
  Compiled *c = lua_newuserdatauv(L, sizeof *c, AD_CUSERVALUES);
  memset(c, 0, sizeof *c);
  c->S = S;
  lua_newtable(L);
  lua_setiuservalue(L, -2, AD_CCONST);
  lua_newtable(L);
  lua_setiuservalue(L, -2, AD_CINDEX);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTCOMPILED]);
  lua_setmetatable(L, -2);
  return c;
}

/*
** Pushes what compile makes of the function at 'f', with the options of
** another.
*/
static Compiled *newcompiled(lua_State *L, State *S, int f,
                             const Compiled *like) {
  Compiled *c = ad_newcompiled(L, S);
  if (like != NULL) {
    c->maxtraces = like->maxtraces;
    c->maxoperations = like->maxoperations;
    c->maxstack = like->maxstack;
    c->backend = like->backend;
    c->options = like->options;
  }
  lua_pushvalue(L, f);
  lua_setiuservalue(L, -2, AD_CF);
  if (ad_isgrad(L, f, &c->gradvalue, &c->gradn, c->gradarg)) {
    c->isgrad = lua_type(L, -1) == LUA_TFUNCTION;
    lua_setiuservalue(L, -2, AD_CINNER);
  }
  return c;
}

/*
** A call with vars of one tape
**
** For a tape the whole call is one node, whose partial derivatives are the
** gradient of the program: compile(value_and_grad(f, i)), made when it is first
** needed, where i are the arguments that have vars: the others f is to see as
** the plain numbers that they are. Anything but numbers and numeric vars of one level, or a result that
** is not one number, is f's own business.
*/

typedef struct Taped {
  Level *lv; /* of the vars */
  uint64_t key;
  uint32_t n, cap;
  uint32_t *node;
  double *partial;
  int other;         /* there is something else */
  int vars, numbers; /* in one argument */
} Taped;

static void vars_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Taped *t = ud;
  const Cell *c = numeric ? ad_tocell(L, S, -1) : NULL;
  Level *lv;
  if (c == NULL) {
    t->numbers |= numeric;
    return;
  }
  t->vars = 1;
  if (ad_kindof(S, c) != AD_VARN || !ad_islive(S, c, ad_keyof(S, c), &lv) ||
      lv == NULL || lv->alias || lv->spans || lv->paused || ad_looked(lv) ||
      lv->handles != LUA_NOREF || (t->lv != NULL && lv != t->lv))
    t->other = 1;
  else
    t->lv = lv;
  t->n++;
}

/* top: argument, its part of the gradient */
static void partial_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Taped *t = ud;
  const Cell *c = numeric ? ad_tocell(L, S, -2) : NULL;
  if (c == NULL || t->n == t->cap) return;
  t->node[t->n] = c->u.var.node;
  t->partial[t->n++] = lua_tonumber(L, -1);
}

/* pushes compile(value_and_grad(f, {arg[0] ..}), options) */
static void pushgradof(lua_State *L, const Compiled *c, int n,
                       const unsigned char *arg) {
  if (lua_getiuservalue(L, 1, AD_CGRAD) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, AD_CGRAD);
  }
  lua_pushlstring(L, (const char *)arg, (size_t)n);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getiuservalue(L, 1, AD_CF);
    ad_pushgrad(L, n, arg);
    newcompiled(L, c->S, lua_gettop(L), c);
    lua_replace(L, -2);
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5);
  }
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* the number of results (1), or -1: f itself has to be called */
static int taped(lua_State *L, Compiled *c, int n) {
  State *S = c->S;
  const int top = lua_gettop(L);
  Taped t;
  uint64_t key;
  Cell *cell;
  val v;
  double y;
  unsigned char arg[200];
  int narg = 0;
  if (c->notscalar || c->isgrad || n > 200) return -1;
  memset(&t, 0, sizeof t);
  for (int i = 2; i <= n + 1; i++) {
    if (!ad_isleaf(L, S, i) && lua_type(L, i) != LUA_TTABLE) return -1;
    t.vars = t.numbers = 0;
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, vars_leaf, &t, "compile");
    if (t.vars && t.numbers) return -1;
    if (t.vars) arg[narg++] = (unsigned char)(i - 1);
  }
  if (t.lv == NULL || t.other) return -1;
  key = t.lv->key;
  t.cap = t.n;
  t.partial =
      lua_newuserdatauv(L, t.n * (sizeof *t.partial + sizeof *t.node) + 1, 0);
  t.node = (uint32_t *)(t.partial + t.n);
  pushgradof(L, c, narg, arg);
  for (int i = 2; i <= n + 1; i++) {
    lua_pushvalue(L, i);
    ad_strip(L, S, key);
  }
  if (lua_pcall(L, n, LUA_MULTRET, 0) != LUA_OK ||
      lua_gettop(L) != top + narg + 2 || lua_type(L, top + 2) != LUA_TNUMBER) {
    c->notscalar = 1;
    lua_settop(L, top);
    return -1;
  }
  y = lua_tonumber(L, top + 2);
  t.n = 0;
  for (int i = 0; i < narg; i++) {
    lua_pushvalue(L, arg[i] + 1);
    lua_pushvalue(L, top + 3 + i);
    ad_tree(L, S, 2, 0, partial_leaf, &t, "compile");
  }
  v = ad_pushvar(L, S, t.lv, ad_num(y), 0, 0);
  cell = lua_touserdata(L, v.i);
  if (ad_findlevel(S, key) != t.lv) {
    lua_pushnumber(L, y);
    return 1;
  }
  ad_room(L, t.lv, 1, t.n);
  for (uint32_t k = 0; k < t.n; k++)
    ad_tapeentry(&t.lv->tape, t.node[k], t.partial[k]);
  cell->u.var.node = ad_tapenode(&t.lv->tape);
  return 1;
}

/* the program of a root that has arrays, for n arguments */
static int callarrays(lua_State *L, Compiled *c, Root *r, int n) {
  const int top = lua_gettop(L);
  const uint32_t at = ad_runcalls(L, c, r, n);
  if (c->nroot > BUSYROOTS) ad_arraysidle(L, c->root[BUSYROOTS]);
  if (at == P_FULL) return NORESULT;
  return r->code.block[at].end == P_RETURN ? lua_gettop(L) - top : MISSED;
}

/*
** A finalizer runs wherever something is allocated: also where roots, frames
** and forms are in use. Such a call is a call of f. While finalizers run, the
** collector does not; if it does, the call that was busy has ended with an
** error.
*/
static int isentered(lua_State *L, const Compiled *c) {
  return c->busy && lua_gc(L, LUA_GCISRUNNING) != 1;
}

static int call(lua_State *L, Compiled *c, int n) {
  Root *r;
  int k;
  r = ad_rootof(L, c, 1, 2, n + 1);
  if (r != NULL && r->read && !ad_unwritten(L, c->S, r)) {
    c->traces -= c->traces < r->prog.ntrace ? c->traces : r->prog.ntrace;
    ad_droproot(L, c, r);
    r = NULL;
    if (++c->stale >= MAXPOISONED) {
      c->eager = "f reads an array that is written to between calls";
      return eager(L, c, n);
    }
  }
  if (r == NULL) {
    k = taped(L, c, n);
    return k >= 0 ? k : callslow(L, c, NULL, n);
  }
  if (r->news != 0 && (!r->hascode || r->misses * 16 >= r->prog.ntrace)) {
    memmove(r->given, ad_rootinputs(r), r->in.nleaf * sizeof(double));
    if (!ad_rootcode(L, c, r)) return callslow(L, c, r, n);
    memcpy(ad_rootinputs(r), r->given, r->in.nleaf * sizeof(double));
  }
  if (!r->hascode) { /* all that was recorded has failed */
    c->retraces++;
    return callslow(L, c, r, n);
  }
  if (++r->runs == r->pays) ad_tonative(c, r);
  if (ad_hasarrays(&r->code))
    k = callarrays(L, c, r, n);
  else
    k = answer(L, c, r, r->backend->run(r->made, &r->frame));
  if (k >= 0) return k;
  if (k != MISSED) return eager(L, c, n);
  r->misses++;
  c->retraces++;
  return callslow(L, c, r, n);
}

static int compiled_call(lua_State *L) {
  Compiled *c = lua_touserdata(L, 1);
  const int n = lua_gettop(L) - 1;
  int k;
  c->calls++;
  if (c->eager || c->verifying || c->running || c->S->recorder || c->S->debug ||
      isentered(L, c))
    return itself(L, c, n);
  c->busy = 1;
  k = call(L, c, n);
  c->busy = 0;
  return k;
}

/*
** Looking at it
*/

/* of a program that was stored there is only the code */
static void count(const Block *b, uint32_t n, uint64_t *guards,
                  uint64_t *loops) {
  for (uint32_t k = 0; k < n; k++) {
    *guards += b[k].end == P_IF;
    *loops += b[k].end == P_GOTO && b[k].yes <= k;
  }
}

/* what gradients keep of the rounds of their loops: 1 all, 2 less, 0 nothing */
static int kept(const Compiled *c) {
  int how = 0;
  for (uint32_t k = 0; k < c->nroot; k++)
    if (c->root[k]->hascode && c->root[k]->code.stack)
      how |= 1 + c->root[k]->recompute;
  return how;
}

static const char *rounds(lua_State *L, const Compiled *c) {
  const int top = lua_gettop(L);
  int how = kept(c);
  if (lua_getiuservalue(L, 1, AD_CGRAD) == LUA_TTABLE)
    for (lua_pushnil(L); lua_next(L, top + 1); lua_pop(L, 1))
      how |= kept(ad_tocompiled(L, -1));
  lua_settop(L, top);
  return how == 0 ? NULL : how == 1 ? "stored" : "recomputed";
}

static int l_stats(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  uint64_t operations = 0, nguard = 0, loops = 0, arraycalls = 0;
  const char *backend = "none";
  for (uint32_t k = 0; k < c->nroot; k++) {
    Root *r = c->root[k];
    if (r->prog.ntrace == 0 || !ad_rootcode(L, c, r)) continue;
    operations += r->code.nins;
    arraycalls += r->code.ncall;
    if (c->stored)
      count(r->code.block, r->code.nblock, &nguard, &loops);
    else
      count(r->prog.block, r->prog.nblock, &nguard, &loops);
    if (r->backend == &ad_native)
      backend = ad_nativename(r->made);
    else if (strcmp(backend, "none") == 0)
      backend = r->backend->name;
  }
  lua_createtable(L, 0, 14);
#define FIELD(name, x)                                                         \
  (lua_pushinteger(L, (lua_Integer)(x)), lua_setfield(L, -2, name))
  FIELD("traces", c->traces);
  FIELD("operations", operations);
  FIELD("guards", nguard);
  FIELD("loops", loops);
  FIELD("calls", c->calls);
  FIELD("retraces", c->retraces);
  FIELD("eager_calls", c->eagercalls);
  FIELD("array_calls", arraycalls);
#undef FIELD
  lua_pushnumber(L, c->seconds);
  lua_setfield(L, -2, "seconds_compiling");
  if (c->nonative != NULL)
    lua_pushfstring(L, "%s (no machine code: %s)", backend, c->nonative);
  else
    lua_pushstring(L, backend);
  lua_setfield(L, -2, "backend");
  if (c->mapped != C_UNMAPPED) {
    if (c->mapped == C_KERNELS)
      lua_pushfstring(L, "kernels (%s)", ad_vlevel(0)->name);
    else
      lua_pushstring(L,
                     c->mapped == C_VECTORS ? B_NATIVE : "calls, row by row");
    lua_setfield(L, -2, "map");
  }
  lua_pushstring(L, rounds(L, c));
  lua_setfield(L, -2, "rounds");
  if (c->eager) {
    lua_pushstring(L, c->eager);
    lua_setfield(L, -2, "note");
  } else if (c->stored) {
    lua_pushliteral(L, "a stored program: other paths are errors");
    lua_setfield(L, -2, "note");
  } else if (c->traces >= c->maxtraces) {
    lua_pushliteral(L, "max_traces reached: other paths run eagerly");
    lua_setfield(L, -2, "note");
  } else if (c->full) {
    lua_pushliteral(L, "memory is too small for the gradient of a loop");
    lua_setfield(L, -2, "note");
  } else if (c->rec.failed && c->eagercalls) {
    lua_pushstring(L, c->rec.failed);
    lua_setfield(L, -2, "note");
  }
  return 1;
}

static void addslot(luaL_Buffer *b, const Code *c, uint32_t s) {
  char text[48];
  if (s == P_NONE)
    snprintf(text, sizeof text, "_");
  else if (s & P_A && (s & ~P_A) < c->nain)
    snprintf(text, sizeof text, "X%u", (unsigned)(s & ~P_A) + 1);
  else if (s & P_A && (s & ~P_A) < c->nain + c->nakon)
    snprintf(text, sizeof text, "K%u", (unsigned)(s & ~P_A) - c->nain + 1);
  else if (s & P_A)
    snprintf(text, sizeof text, "A%u",
             (unsigned)(s & ~P_A) - c->nain - c->nakon + 1);
  else if (s < c->nconst)
    snprintf(text, sizeof text, "%.17g", c->constant[s]);
  else if (s < c->nconst + c->nin)
    snprintf(text, sizeof text, "x%u", (unsigned)(s - c->nconst + 1));
  else
    snprintf(text, sizeof text, "v%u", (unsigned)(s - c->nconst - c->nin + 1));
  luaL_addstring(b, text);
}

static void addlist(luaL_Buffer *b, const Code *c, uint32_t first, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) {
    luaL_addstring(b, k ? ", " : "");
    addslot(b, c, c->list[first + k]);
  }
}

static void addformat(luaL_Buffer *b, const char *fmt, unsigned n) {
  char text[64];
  snprintf(text, sizeof text, fmt, n);
  luaL_addstring(b, text);
}

static void addside(luaL_Buffer *b, uint32_t block, const char *other) {
  if (block == P_NONE)
    luaL_addstring(b, other);
  else
    addformat(b, "goto block %u", (unsigned)block);
}

/* a listing: constants are written out, inputs are x1 .., slots v1 .. */
static void listing(luaL_Buffer *b, const Compiled *c, const Root *r) {
  static const char *const sign[] = {"<", "<=", "==", "is"};
  const Code *o = &r->code;
  for (uint32_t k = 0; k < o->nblock; k++) {
    const Block *x = &o->block[k];
    addformat(b, "block %u", (unsigned)k);
    luaL_addstring(b, x->loop == k ? " (loop):\n" : ":\n");
    for (uint32_t i = x->first; i < x->last; i++) {
      const Ins *s = &o->ins[i];
      const int n = ad_insarity(s->op);
      luaL_addstring(b, "  ");
      if (s->op == P_CALL) {
        const uint32_t *made = o->list + s->a + s->b;
        addlist(b, o, s->a + s->b + 1, made[0]);
        luaL_addstring(b, " = ");
        if (s->c == P_NONE)
          luaL_addstring(b, "mov");
        else
          ad_addcalled(b, &c->called[s->c]);
        luaL_addchar(b, '(');
        addlist(b, o, s->a, s->b);
        luaL_addstring(b, ")\n");
        continue;
      }
      if (s->op != P_PUSH) {
        addslot(b, o, s->d);
        luaL_addstring(b, " = ");
      }
      luaL_addstring(b, ad_insname(s->op));
      luaL_addchar(b, '(');
      if (ad_islist(s->op)) addlist(b, o, s->a, s->b);
      if (n > 0) addslot(b, o, s->a);
      if (n > 1) luaL_addstring(b, ", "), addslot(b, o, s->b);
      if (n > 2) luaL_addstring(b, ", "), addslot(b, o, s->c);
      luaL_addstring(b, ")\n");
    }
    luaL_addstring(b, "  ");
    if (x->end == P_IF) {
      luaL_addstring(b, "if ");
      addslot(b, o, x->a);
      luaL_addchar(b, ' ');
      luaL_addstring(b, sign[x->cmp]);
      luaL_addchar(b, ' ');
      addslot(b, o, x->b);
      luaL_addstring(b, " then ");
      addside(b, x->yes, "record");
      luaL_addstring(b, " else ");
      addside(b, x->no, "record");
      if (x->place) {
        luaL_addstring(b, "  -- ");
        luaL_addstring(b, c->place[x->place - 1].source);
        addformat(b, ":%u", (unsigned)c->place[x->place - 1].line);
      }
    } else if (x->end == P_GOTO)
      addside(b, x->yes, "record");
    else {
      luaL_addstring(b, "return ");
      addlist(b, o, x->a, x->b);
    }
    luaL_addchar(b, '\n');
  }
}

static int compiled_tostring(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  luaL_Buffer b;
  int none = 1;
  for (uint32_t k = 0; k < c->nroot; k++)
    if (c->root[k]->prog.ntrace > 0 && !ad_rootcode(L, c, c->root[k]))
      luaL_error(L, "compile: a gradient that is yet to be recorded anew");
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "compiled function");
  if (c->eager) {
    luaL_addstring(&b, ", not recorded: ");
    luaL_addstring(&b, c->eager);
  }
  luaL_addchar(&b, '\n');
  for (uint32_t i = 0; i < c->nroot; i++) {
    const Root *r = c->root[i];
    if (r->prog.ntrace == 0) continue;
    none = 0;
    addformat(&b, "program of %u input", (unsigned)r->code.nin);
    addformat(&b, r->code.nin == 1 ? ", %u trace" : "s, %u trace",
              (unsigned)r->prog.ntrace);
    luaL_addstring(&b, r->prog.ntrace == 1 ? ":\n" : "s:\n");
    listing(&b, c, r);
  }
  if (none) luaL_addstring(&b, "nothing recorded yet\n");
  luaL_pushresult(&b);
  return 1;
}

/*
** compile(f [, options])
*/

static lua_Integer bound(lua_State *L, const char *name, lua_Integer usual,
                         lua_Integer least) {
  int isint;
  lua_Integer n = usual;
  if (lua_getfield(L, 2, name) != LUA_TNIL) {
    n = lua_tointegerx(L, -1, &isint);
    if (!isint || n < least)
      luaL_argerror(L, 2,
                    lua_pushfstring(L, "%s: integer of at least %d expected",
                                    name, (int)least));
  }
  lua_pop(L, 1);
  return n;
}

static int l_compile(lua_State *L) {
  static const char *const option[] = {"max_traces", "max_operations", "memory",
                                       "fast",       "backend",        NULL};
  State *S = ad_state(L);
  Compiled *c;
  ad_checkcallable(L, 1);
  if (lua_isnoneornil(L, 2)) {
    lua_settop(L, 1);
    lua_newtable(L);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_pushnil(L);
  while (lua_next(L, 2)) {
    int k = 0;
    lua_pop(L, 1);
    if (lua_type(L, -1) == LUA_TSTRING)
      while (option[k] && strcmp(option[k], lua_tostring(L, -1)) != 0) k++;
    if (lua_type(L, -1) != LUA_TSTRING || option[k] == NULL)
      luaL_argerror(L, 2,
                    lua_pushfstring(L, "unknown option '%s'",
                                    luaL_tolstring(L, -1, NULL)));
  }
  c = newcompiled(L, S, 1, NULL);
  c->maxtraces = (uint32_t)bound(L, "max_traces", 4096, 0);
  c->maxoperations = (uint64_t)bound(L, "max_operations", 1 << 24, 1);
  c->maxstack = (size_t)bound(L, "memory", 1 << 28, 0) / sizeof(double);
  lua_getfield(L, 2, "backend");
  if (!lua_isnil(L, -1)) {
    static const char *const name[] = {"auto", "interpreter", "native"};
    size_t k = 0;
    while (k < 3 && (lua_type(L, -1) != LUA_TSTRING ||
                     strcmp(name[k], lua_tostring(L, -1)) != 0))
      k++;
    luaL_argcheck(
        L, k < 3, 2,
        "field 'backend': 'auto', 'interpreter' or 'native' expected");
    c->backend = (uint8_t)k;
  }
  lua_pop(L, 1);
  lua_getfield(L, 2, "fast");
  if (lua_toboolean(L, -1)) c->options |= P_FAST;
  lua_pop(L, 1);
  return 1;
}

void ad_opencompile(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {{"__call", compiled_call},
                                {"__gc", ad_compiledgc},
                                {"__close", compiled_close},
                                {"__tostring", compiled_tostring},
                                {NULL, NULL}};
  static const luaL_Reg method[] = {{"stats", l_stats}, {NULL, NULL}};
  static const luaL_Reg fn[] = {
      {"compile", l_compile}, {"load_program", ad_loadprogram}, {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTCOMPILED]);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTCOMPILED]);
  lua_newtable(L);
  ad_setfuncs(L, method, LUA_NOREF);
  ad_opencompilelib(L, S);
  ad_openstorelib(L, S);
  ad_opensparselib(L, S);
  lua_setfield(L, -2, "__index");
  lua_newtable(L); /* what scripts see, who ask whether it can be called */
  lua_getfield(L, -2, "__call");
  lua_setfield(L, -2, "__call");
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  ad_setfuncs(L, fn, LUA_NOREF);
}
