/*
** record.c
** The recorder: what f does becomes a program.
**
** While f records, its arguments are values of a level of their own, lower
** than that of every transform inside f: the operations that are left when
** those transforms have done their work are the program's. Each knows its
** plain value too, so that f runs as it always would. Where f looks at a
** value, what it saw becomes a guard.
*/
#include "compile.h"

#include <string.h>

/*
** Values
*/

static void fail(const State *S, const char *why) {
  if (S->recorder->failed == NULL) S->recorder->failed = why;
}

/* f does what no program can: it runs as it is from now on */
void ad_recordfail(const State *S, const char *why) {
  if (S->recorder) fail(S, why);
}

/* f does what need not be the same the next time */
void ad_recorddoubt(const State *S) {
  if (S->recorder) S->recorder->doubt = 1;
}

static int isours(const State *S, const Cell *c) {
  return c->stamp == ad_stamp(S, S->recorder->key, AD_RECN);
}

/* memory was lacking: an error, unless there is some by now */
void ad_recnomem(lua_State *L, State *S) {
  const Prog *p = ad_recprog(S);
  if (p->nins > P_MAXINS / 2) luaL_error(L, "compile: program is too large");
  ad_nomem(L, ((size_t)p->capins + 16) * sizeof(Ins));
}

/* the program's reference for an operand; P_NONE when it cannot have one */
uint32_t ad_recref(lua_State *L, State *S, val v, double *x) {
  uint32_t r;
  if (v.i != 0) {
    const Cell *c = lua_touserdata(L, v.i);
    if (c != NULL && ad_isarray(c)) return ad_konstarray(L, S, v.i);
    if (c != NULL && ad_keyof(S, c) == S->recorder->key &&
        AD_ISREC(ad_kindof(S, c))) {
      *x = c->value;
      if (S->recorder->looped && ad_isstale(S, c)) {
        fail(S, "f has kept a value of an earlier round of a loop");
        return P_NONE;
      }
      return c->u.var.node;
    }
    if (c != NULL) {
      fail(S, "f uses a value of a transform that runs around it");
      return P_NONE;
    }
    v = ad_num(lua_tonumber(L, v.i));
  }
  *x = v.n;
  AD_UNTIL(r, ad_progconst(ad_recprog(S), v.n));
  return r;
}

/*
** The collector clears registers that are not in use, at times of its own. What
** is left in them is part of the states that loops.c compares, and so it can
** find a loop in one recording and not in the next, which fails then. After
** such a failure the collector runs only where all registers above have been
** cleared anyway: at guards, and whenever so many values have been made.
*/
#define MADE 4096
#define KILOBYTES 256 /* more in use: then it runs */

void ad_recscrub(lua_State *L, State *S) {
  Recorder *r = S->recorder;
  const int top = lua_gettop(L);
  if (!lua_checkstack(L, AD_SCRUBBED)) return;
  lua_settop(L, top + AD_SCRUBBED);
  lua_settop(L, top);
  r->made = 0;
  if (r->stopped) {
    const int more =
        lua_gc(L, LUA_GCCOUNT) - r->kilobytes + (int)(S->told >> 10);
    if (more < KILOBYTES) return;
    S->told = 0;
    lua_gc(L, LUA_GCSTEP, more);
    r->kilobytes = lua_gc(L, LUA_GCCOUNT);
  }
}

void ad_stopcollector(lua_State *L, Recorder *r) {
  r->stopped = lua_gc(L, LUA_GCISRUNNING);
  r->kilobytes = lua_gc(L, LUA_GCCOUNT);
  r->made = 0;
  if (r->stopped) lua_gc(L, LUA_GCSTOP);
}

void ad_startcollector(lua_State *L, Recorder *r) {
  if (r->stopped) lua_gc(L, LUA_GCRESTART);
  r->stopped = 0;
}

/* what came of a step of the recording; 0: nothing to go on with */
int ad_recwent(lua_State *L, State *S, uint32_t r) {
  if (r == P_DIFFERS) {
    ad_startcollector(L, S->recorder);
    fail(S, "f did something else for the same reasons");
    return 0;
  }
  return 1;
}

val ad_pushrecorded(lua_State *L, State *S, double x, uint32_t ref) {
  Cell *c;
  if (++S->recorder->made == MADE) ad_recscrub(L, S);
  c = ad_newcell(L, S, AD_MTREC, sizeof(Cell), 0);
  c->value = x;
  c->u.var.node = ref;
  c->u.var.leaf = S->recorder->epoch;
  c->stamp = ad_stamp(S, S->recorder->key, AD_RECN);
  return ad_at(lua_gettop(L));
}

/* f is not to go on where counters have been integers */
static void stop(lua_State *L, State *S) {
  if (S->recorder->failed && S->recorder->counters)
    ad_giveup(L, S, S->recorder->failed);
}

/* a value that this recording, which has failed, knows no more than */
static val plain(lua_State *L, State *S, int op, int n, const Arg *a) {
  val x[AD_MAXARITY];
  ad_startcollector(L, S->recorder);
  stop(L, S);
  for (int i = 0; i < n; i++) {
    x[i] = a[i].v;
    if (a[i].key && AD_ISREC(a[i].kind)) x[i] = ad_primalof(L, &a[i]);
  }
  return ad_apply(L, S, op, n, x);
}

/* is it a counter, or just a number? */
static uint32_t counts(const State *S, const Arg *a) {
  return a->v.i == 0 || ad_iscounter(S, a->c) ? REC_COUNTER : 0;
}

val ad_record(lua_State *L, State *S, int op, int n, const Arg *a) {
  double x[AD_MAXARITY] = {0, 0, 0};
  uint32_t counter = REC_COUNTER;
  val y;
  uint32_t ref[AD_MAXARITY] = {0, 0, 0}, r;
  for (int i = 0; S->arrays && i < n; i++)
    if (a[i].v.i && ad_hasarray(L, S, a[i].v))
      return ad_recordelement(L, S, op, n, a);
  for (int i = 0; i < n && !S->recorder->failed; i++) {
    ref[i] = ad_recref(L, S, a[i].v, &x[i]);
    if (!S->recorder->failed) counter &= counts(S, &a[i]);
  }
  if (ad_recprog(S)->nins >= ad_compiling(S)->maxoperations)
    fail(S, "max_operations reached");
  if (S->recorder->failed) return plain(L, S, op, n, a);
  AD_UNTIL(r, ad_recop(ad_recprog(S), op, ref[0], ref[1], ref[2]));
  if (!ad_recwent(L, S, r)) return plain(L, S, op, n, a);
  y = ad_pushrecorded(L, S, ad_opvalue(op, x), r);
  ad_flag(L, counter);
  return y;
}

/* one operation of the expansion of a list's */
static uint32_t step(lua_State *L, State *S, int op, uint32_t a, uint32_t b) {
  Prog *p = ad_recprog(S);
  uint32_t r;
  if (a & P_K && b & P_K) {
    const double x[2] = {ad_progvalue(p, a), ad_progvalue(p, b)};
    AD_UNTIL(r, ad_progconst(p, ad_opvalue(op, x)));
  } else
    AD_UNTIL(r, ad_recop(p, op, a, b, 0));
  return ad_recwent(L, S, r) ? r : P_NONE;
}

val ad_recordlist(lua_State *L, State *S, int op, int n, const Arg *a) {
  double *x = lua_newuserdatauv(
      L, (size_t)n * (sizeof(double) + sizeof(uint32_t)) + 1, 0);
  uint32_t *ref = (uint32_t *)(x + n), r = P_NONE, counter = REC_COUNTER;
  Prog *p = ad_recprog(S);
  double y;
  for (int i = 0; S->arrays && i < n; i++)
    if (a[i].v.i && ad_hasarray(L, S, a[i].v))
      fail(S, "f uses an array in a list of numbers");
  for (int i = 0; i < n && !S->recorder->failed; i++) {
    ref[i] = ad_recref(L, S, a[i].v, &x[i]);
    if (!S->recorder->failed) counter &= counts(S, &a[i]);
  }
  if (!S->recorder->failed) {
    y = ad_nvalue(op, (size_t)n, x);
    if (op == OP_list_sum || op == OP_list_mean || op == OP_list_prod) {
      const int each = op == OP_list_prod ? OP_mul : OP_add;
      AD_UNTIL(r, ad_progconst(p, op == OP_list_prod));
      for (int i = 0; i < n && r != P_NONE; i++)
        r = step(L, S, each, r, ref[i]);
      if (op == OP_list_mean && r != P_NONE) {
        uint32_t k;
        AD_UNTIL(k, ad_progconst(p, n));
        r = step(L, S, OP_div, r, k);
      }
    } else if (op == OP_list_dot) {
      AD_UNTIL(r, ad_progconst(p, 0));
      for (int i = 0; i < n / 2 && r != P_NONE; i++) {
        const uint32_t m = step(L, S, OP_mul, ref[i], ref[n / 2 + i]);
        r = m == P_NONE ? m : step(L, S, OP_add, r, m);
      }
    } else
      AD_UNTIL(r, ad_reclist(p, op, (uint32_t)n, ref));
    if (!S->recorder->failed && ad_recwent(L, S, r)) {
      const val v = ad_pushrecorded(L, S, y, r);
      ad_flag(L, counter);
      return v;
    }
  }
  stop(L, S);
  { /* without the recorder's values */
    val *v = lua_newuserdatauv(L, (size_t)n * sizeof *v + 1, 0);
    for (int i = 0; i < n; i++) {
      v[i] = a[i].v;
      if (a[i].key && AD_ISREC(a[i].kind)) v[i] = ad_primalof(L, &a[i]);
    }
    return ad_nary(L, S, op, n, v);
  }
}

/*
** Guards
*/

/* 1 + the number of the place in the user's source where the guard is */
static uint32_t place(lua_State *L, State *S) {
  Compiled *c =
      (Compiled *)(void *)((char *)S->recorder - offsetof(Compiled, rec));
  lua_Debug ar;
  if (ad_recprog(S)->state != P_APPEND || !ad_userplace(L, &ar)) return 0;
  for (uint32_t k = c->nplace; k-- > 0;)
    if (c->place[k].line == ar.currentline &&
        strcmp(c->place[k].source, ar.short_src) == 0)
      return k + 1;
  if (c->nplace == c->capplace) {
    const uint32_t ncap = c->capplace * 2 + 4;
    c->place = ad_realloc(L, c->place, c->capplace * sizeof *c->place,
                          ncap * sizeof *c->place);
    c->capplace = ncap;
  }
  c->place[c->nplace].line = ar.currentline;
  strcpy(c->place[c->nplace].source, ar.short_src);
  return ++c->nplace;
}

int ad_recordif(lua_State *L, State *S, int cmp, val x, val y) {
  double a, b;
  uint32_t ra, rb;
  int holds;
  if (x.i == 0 && y.i == 0) return ad_compare(cmp, x.n, y.n);
  stop(L, S);
  ra = ad_recref(L, S, x, &a);
  rb = ad_recref(L, S, y, &b);
  holds = ad_compare(cmp, a, b);
  if (!S->recorder->failed && (!(ra & P_K) || !(rb & P_K))) {
    const uint32_t where = place(L, S);
    uint32_t r;
    AD_UNTIL(r, ad_recif(ad_recprog(S), cmp, ra, rb, holds, where));
    ad_recwent(L, S, r);
  }
  return holds;
}

/* somebody wants the value as it is */
void ad_recordlook(lua_State *L, State *S, const Cell *c) {
  Recorder *r = S->recorder;
  uint32_t where, went;
  if (r->failed || !isours(S, c)) return;
  if (r->looped && ad_isstale(S, c)) {
    fail(S, "f has kept a value of an earlier round of a loop");
    return;
  }
  if (r->given) r->doubt = 1; /* as text an integer is another */
  ad_checkstack(L, 10, NULL);
  if (ad_iscounter(S, c)) ad_blamecounter(L, S, c->u.var.node);
  if (c->u.var.node & P_K) return;
  where = place(L, S);
  AD_UNTIL(went, ad_recsame(ad_recprog(S), c->u.var.node, c->value, where));
  ad_recwent(L, S, went);
}

/*
** Was this argument an integer? Whoever asks makes a difference of it.
*/
int ad_recordsint(const State *S, const Cell *c) {
  const Recorder *r = S->recorder;
  uint32_t k;
  if (r->failed || !isours(S, c)) return 0;
  if (c->u.var.leaf & REC_COUNTER) return ad_recordedint(S, c);
  k = c->u.var.node;
  if (k >= r->root->in.nleaf) return 0;
  r->root->sub[k] = r->root->isint[k] ? 2 : 1;
  r->root->subs = 1;
  return r->root->isint[k];
}

/*
** Is this a number where nothing is recorded? In a gradient whatever depends
** on what it is by is a var there: of arguments that is known, and in a result
** of operations it would have to be looked for.
*/
int ad_recplain(const State *S, const Cell *c) {
  const Root *r = S->recorder->root;
  const uint32_t k = c->u.var.node;
  if (!isours(S, c)) return 0;
  if (!ad_compiling(S)->isgrad || ad_iscounter(S, c)) return 1;
  if (r->nwant == r->in.nleaf) return 0;
  if (k >= r->in.nleaf) {
    fail(S, AD_OPAQUE);
    return 0;
  }
  if (r->nwant == 0) return 1;
  if (k >= r->want[0] && k - r->want[0] < r->nwant &&
      r->want[k - r->want[0]] == k)
    return 0;
  for (uint32_t i = 0; i < r->nwant; i++)
    if (r->want[i] == k) return 0;
  return 1;
}

/*
** f makes a difference of subtypes: those of all arguments matter. Of numbers
** in structures they are not known.
*/
void ad_recordsubtypes(State *S) {
  Root *r = S->recorder->root;
  S->recorder->doubt = 1; /* what is computed has a subtype, too */
  if (S->recorder->failed) return;
  if (!r->in.numbers)
    fail(S, "f asks for the subtype of a number");
  else
    for (uint32_t k = 0; k < r->in.nleaf; k++)
      r->sub[k] = r->isint[k] ? 2 : 1, r->subs = 1;
}

/*
** f asks for something that a derivative takes notice of, in a program whose
** derivative is computed afterwards: so it is not.
*/
void ad_recordopaque(const State *S) {
  const Recorder *r = S->recorder;
  if (ad_compiling(S)->isgrad && S->live[S->nlive - 1]->key == r->key)
    fail(S, AD_OPAQUE);
}

int ad_recordgrad(const State *S) {
  return S->recorder && ad_compiling(S)->isgrad;
}

/* the level of the recording is closed, in peace or by an error */
void ad_recordclose(lua_State *L, State *S) {
  if (S->recorder == NULL) return;
  ad_recabort(ad_recprog(S));
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, S->recorder);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &S->recorder->frame);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &S->recorder->epoch);
  S->recorder = NULL;
}
