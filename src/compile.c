/*
** compile.c
** compile(f): what f does is recorded into a program, and later calls run the
** program.
**
** While f records, its arguments are values of a level of their own, lower
** than that of every transform inside f: the operations that are left when
** those transforms have done their work are the program's. Each knows its
** plain value too, so that f runs as it always would. Where f looks at a
** value, what it saw becomes a guard.
*/
#include "compile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAXDEPTH 150  /* of structures; each level takes a few slots */
#define MAXPOISONED 8 /* recordings that came to nothing */
#define MAXANEW 8     /* without some counter each */

#define BUSYROOTS 8 /* that keep memory for their arrays, those used last */
#define MAXLOOPFAILURES 4 /* then there are none */
#define OPAQUE "f is not what its derivative is computed from"

/*
** The recorder: values
*/

static void fail(const State *S, const char *why) {
  if (S->recorder->failed == NULL) S->recorder->failed = why;
}

/* f does what no program can: it runs as it is from now on */
void ad_recordfail(State *S, const char *why) {
  if (S->recorder) fail(S, why);
}

/* f does what need not be the same the next time */
void ad_recorddoubt(const State *S) {
  if (S->recorder) S->recorder->doubt = 1;
}

static Prog *progof(const State *S) { return &S->recorder->root->prog; }

static int isours(const State *S, const Cell *c) {
  return c->stamp == ad_stamp(S, S->recorder->key, AD_RECN);
}

/* memory was lacking: an error, unless there is some by now */
void ad_recnomem(lua_State *L, State *S) {
  const Prog *p = progof(S);
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
  AD_UNTIL(r, ad_progconst(progof(S), v.n));
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

static void stopcollector(lua_State *L, Recorder *r) {
  r->stopped = lua_gc(L, LUA_GCISRUNNING);
  r->kilobytes = lua_gc(L, LUA_GCCOUNT);
  r->made = 0;
  if (r->stopped) lua_gc(L, LUA_GCSTOP);
}

static void startcollector(lua_State *L, Recorder *r) {
  if (r->stopped) lua_gc(L, LUA_GCRESTART);
  r->stopped = 0;
}

/* what came of a step of the recording; 0: nothing to go on with */
int ad_recwent(lua_State *L, State *S, uint32_t r) {
  if (r == P_DIFFERS) {
    startcollector(L, S->recorder);
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
  startcollector(L, S->recorder);
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
  if (progof(S)->nins >= ad_compiling(S)->maxoperations)
    fail(S, "max_operations reached");
  if (S->recorder->failed) return plain(L, S, op, n, a);
  AD_UNTIL(r, ad_recop(progof(S), op, ref[0], ref[1], ref[2]));
  if (!ad_recwent(L, S, r)) return plain(L, S, op, n, a);
  y = ad_pushrecorded(L, S, ad_opvalue(op, x), r);
  ad_flag(L, counter);
  return y;
}

/* one operation of the expansion of a list's */
static uint32_t step(lua_State *L, State *S, int op, uint32_t a, uint32_t b) {
  Prog *p = progof(S);
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
  Prog *p = progof(S);
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
** The recorder: guards
*/

/* 1 + the number of the place in the user's source where the guard is */
static uint32_t place(lua_State *L, State *S) {
  Compiled *c =
      (Compiled *)(void *)((char *)S->recorder - offsetof(Compiled, rec));
  lua_Debug ar;
  if (progof(S)->state != P_APPEND || !ad_userplace(L, &ar)) return 0;
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
    AD_UNTIL(r, ad_recif(progof(S), cmp, ra, rb, holds, where));
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
  AD_UNTIL(went, ad_recsame(progof(S), c->u.var.node, c->value, where));
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
    fail(S, OPAQUE);
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
    fail(S, OPAQUE);
}

int ad_recordgrad(const State *S) {
  return S->recorder && ad_compiling(S)->isgrad;
}

/* the level of the recording is closed, in peace or by an error */
void ad_recordclose(lua_State *L, State *S) {
  if (S->recorder == NULL) return;
  ad_recabort(progof(S));
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, S->recorder);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &S->recorder->frame);
  S->recorder = NULL;
}

/*
** Forms
*/

static void freeform(lua_State *L, Form *f) {
  ad_realloc(L, f->word, f->cap * sizeof *f->word, 0);
  memset(f, 0, sizeof *f);
}

static void word(lua_State *L, Form *f, uint32_t w) {
  if (f->n == f->cap) {
    const uint32_t ncap = f->cap * 2 + 8;
    f->word = ad_realloc(L, f->word, f->cap * sizeof *f->word,
                         ncap * sizeof *f->word);
    f->cap = ncap;
  }
  f->word[f->n++] = w;
}

/*
** The index among the constants of the value at the top, which is popped.
** Numbers have keys that tell integers from floats.
*/
static uint32_t konst(lua_State *L, Compiled *c, int self) {
  uint32_t k;
  if (lua_type(L, -1) == LUA_TNIL) {
    lua_pop(L, 1);
    return 0; /* no constant has it: rawgeti gives nil */
  }
  lua_getiuservalue(L, self, AD_CINDEX);
  if (lua_type(L, -2) == LUA_TNUMBER) {
    if (lua_isinteger(L, -2))
      lua_pushfstring(L, "\1i%I", (LUAI_UACINT)lua_tointeger(L, -2));
    else {
      const lua_Number n = lua_tonumber(L, -2);
      lua_pushlstring(L, (const char *)&n, sizeof n);
      lua_pushfstring(L, "\1f");
      lua_insert(L, -2);
      lua_concat(L, 2);
    }
  } else
    lua_pushvalue(L, -2);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TNUMBER) {
    k = (uint32_t)lua_tointeger(L, -1);
    lua_pop(L, 4);
    return k;
  }
  lua_pop(L, 1); /* value, index, key */
  k = c->nconst + 1;
  lua_getiuservalue(L, self, AD_CCONST);
  lua_pushvalue(L, -4);
  lua_rawseti(L, -2, k);
  lua_pop(L, 1);
  lua_pushinteger(L, k);
  lua_rawset(L, -3);
  lua_pop(L, 2);
  c->nconst = k;
  return k;
}

typedef struct Taker {
  Compiled *c;
  int self;
  Form *form;
  int fixedints; /* of arguments: integers are constants */
  int results;   /* else arguments */
  uint32_t *ref; /* of results: references, 'cap' of them on the stack */
  uint32_t cap;
  int slot;     /* stack index of what holds 'ref' */
  int foreign;  /* has an AD value that is not the recorder's */
  int integers; /* has integers that are no constants */
} Taker;

static void leafref(lua_State *L, Taker *t, uint32_t ref) {
  if (t->form->nleaf > t->cap) {
    const uint32_t ncap = t->cap * 2 + 16;
    uint32_t *np = lua_newuserdatauv(L, ncap * sizeof *np, 0);
    if (t->cap) memcpy(np, t->ref, t->cap * sizeof *np);
    lua_replace(L, t->slot);
    t->ref = np;
    t->cap = ncap;
  }
  t->ref[t->form->nleaf - 1] = ref;
}

/* does a table stand for some resource, which is no structure? */
static int isresource(lua_State *L, int idx) {
  if (luaL_getmetafield(L, idx, "__gc") == LUA_TNIL) return 0;
  lua_pop(L, 1);
  return 1;
}

/* 0: no integer; 1: an integer; HUGEINT: one that may not be any float */
#define HUGEINT 2

static uint8_t intkind(lua_State *L, int idx) {
  const lua_Integer most = (lua_Integer)1 << 53;
  lua_Integer i;
  if (!lua_isinteger(L, idx)) return 0;
  i = lua_tointeger(L, idx);
  return -most <= i && i <= most ? 1 : HUGEINT;
}

/*
** May f have made the value at the top for this call, with what is in it? Then
** the results of other calls have another.
*/
static int ismade(lua_State *L, const State *S, int type) {
  if (type == LUA_TFUNCTION) {
    int made = 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    for (int k = 1; !made && lua_getupvalue(L, -2, k) != NULL; k++) {
      const void *p = lua_topointer(L, -1);
      made = p != NULL && lua_type(L, -1) != LUA_TSTRING &&
             p != lua_topointer(L, -2) && p != S && p != S->mtp[AD_MTVAR] &&
             p != S->mtp[AD_MTDUAL];
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return made;
  }
  return type == LUA_TUSERDATA || type == LUA_TTHREAD || type == LUA_TTABLE;
}

static void take(lua_State *L, Taker *t, int depth);

/* the table at the top: see compile.h */
static void taketable(lua_State *L, Taker *t, int depth) {
  const int table = lua_gettop(L);
  const lua_Unsigned len = lua_rawlen(L, table);
  uint32_t seq = 0, item = 0, at;
  int all = 1;
  if (depth > MAXDEPTH)
    ad_error(L, "compile: a structure contains itself, or is nested too deep");
  ad_checkstack(L, 12, "structure is nested too deep");
  word(L, t->form, F_TABLE);
  if (!lua_getmetatable(L, table)) lua_pushnil(L);
  word(L, t->form, konst(L, t->c, t->self));
  at = t->form->n;
  for (int i = 0; i < 3; i++) word(L, t->form, 0);
  for (lua_Unsigned i = 1; i <= len && i < P_MAXINS; i++) {
    const int type = lua_rawgeti(L, table, (lua_Integer)i);
    if (type == LUA_TNIL) {
      lua_pop(L, 1);
      break;
    }
    seq++;
    if (all) {
      const uint32_t before = t->form->n;
      take(L, t, depth + 1);
      /* F_NUM: no word for it */
      if (t->form->n == before + 1 && t->form->word[before] == F_NUM)
        t->form->n = before;
      else { /* the words that were left out */
        const uint32_t more = t->form->n - before;
        all = 0;
        for (uint32_t k = 1; k < seq; k++) word(L, t->form, F_NUM);
        memmove(t->form->word + before + seq - 1, t->form->word + before,
                more * sizeof *t->form->word);
        for (uint32_t k = 1; k < seq; k++)
          t->form->word[before + k - 1] = F_NUM;
      }
    } else
      take(L, t, depth + 1);
  }
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (lua_isinteger(L, -2)) {
      const lua_Integer i = lua_tointeger(L, -2);
      if (i >= 1 && i <= (lua_Integer)seq) {
        lua_pop(L, 1);
        continue;
      }
    }
    item++;
    lua_pushvalue(L, -2);
    word(L, t->form, konst(L, t->c, t->self));
    take(L, t, depth + 1);
  }
  t->form->word[at] = seq;
  t->form->word[at + 1] = (uint32_t)all;
  t->form->word[at + 2] = item;
  lua_pop(L, 1);
}

/* appends the value at the top, which is popped, to a form */
static void take(lua_State *L, Taker *t, int depth) {
  State *S = t->c->S;
  const int type = lua_type(L, -1);
  const Cell *c;
  if (type == LUA_TTABLE && !isresource(L, -1)) {
    taketable(L, t, depth);
    return;
  }
  if (type == LUA_TNUMBER && !t->results &&
      !(t->fixedints && lua_isinteger(L, -1))) {
    if (lua_isinteger(L, -1)) t->integers = 1;
    if (intkind(L, -1) == HUGEINT) t->foreign = 1;
    t->form->nleaf++;
    word(L, t->form, F_NUM);
    lua_pop(L, 1);
    return;
  }
  if (type == LUA_TUSERDATA && !t->results && ad_arrayhere(L, S, -1)) {
    const Array *array = lua_touserdata(L, -1);
    t->form->nleaf++;
    t->form->narray++;
    word(L, t->form, F_ARRAY);
    word(L, t->form, (uint32_t)array->ndim);
    for (int d = 0; d < array->ndim; d++) {
      word(L, t->form, (uint32_t)array->shape[d]);
      word(L, t->form, (uint32_t)((uint64_t)array->shape[d] >> 32));
    }
    lua_pop(L, 1);
    return;
  }
  /* what is differentiated is the first number in the program's results */
  if (type == LUA_TNUMBER && t->results && t->c->isgrad && t->form->n == 0) {
    const uint8_t kind = intkind(L, -1);
    uint32_t ref;
    if (kind == HUGEINT) fail(S, OPAQUE);
    AD_UNTIL(ref, ad_progconst(progof(S), lua_tonumber(L, -1)));
    t->form->nleaf++;
    leafref(L, t, ref);
    word(L, t->form, kind ? F_INT : F_NUM);
    lua_pop(L, 1);
    return;
  }
  c = type == LUA_TUSERDATA ? ad_tocell(L, S, -1) : NULL;
  if (c == NULL && t->results && type == LUA_TUSERDATA &&
      ad_arrayhere(L, S, -1) && ad_madehere(L, S, -1, 1)) {
    const uint32_t ref = ad_recordcopy(L, S, -1);
    t->form->nleaf++;
    t->form->narray++;
    leafref(L, t, ref);
    word(L, t->form, F_ARRAY);
    word(L, t->form, 0);
    lua_pop(L, 1);
    return;
  }
  if (c != NULL) {
    Arg a;
    const int top = lua_gettop(L);
    ad_resolve(L, S, top, &a);
    if (a.key && a.v.i != top) { /* out of levels that are gone */
      lua_copy(L, a.v.i, top);
      c = a.c;
    }
    lua_settop(L, top);
    if (a.key == 0 && a.v.i) { /* ... or an array */
      if (!t->results)
        t->foreign = 1;
      else
        fail(S, "f returns an array of a transform that has ended");
    } else if (a.key == 0) { /* what has come to be a number */
      if (!t->results) t->foreign = 1;
      lua_pushnumber(L, a.v.n);
      lua_replace(L, top);
    } else if (t->results && AD_ISREC(a.kind)) {
      if (t->c->rec.looped && ad_isstale(S, c))
        fail(S, "f returns values of several rounds of a loop");
      t->form->nleaf++;
      leafref(L, t, c->u.var.node);
      if (a.kind == AD_RECA) {
        t->form->narray++;
        word(L, t->form, F_ARRAY);
        word(L, t->form, 0);
      } else
        word(L, t->form, ad_recordedint(S, c) ? F_INT : F_NUM);
      lua_pop(L, 1);
      return;
    } else {
      t->foreign = 1;
      lua_pushnil(L);
      lua_replace(L, top);
    }
  }
  if (t->results && ismade(L, S, lua_type(L, -1)) &&
      !ad_arrayhere(L, S, -1)) /* which was there before */
    fail(S, "f returns a function or an object that it may have made");
  word(L, t->form, F_CONST);
  word(L, t->form, konst(L, t->c, t->self));
}

/* how many keys a table has; more than n: n + 1 */
static uint32_t countkeys(lua_State *L, int idx, uint32_t n) {
  uint32_t k = 0;
  lua_pushnil(L);
  while (lua_next(L, idx)) {
    lua_settop(L, -2);
    if (k++ == n) {
      lua_settop(L, -2);
      break;
    }
  }
  return k;
}

/* is the table a list of n numbers, and nothing else? They go to x. */
static int list(lua_State *L, int idx, uint32_t n, double *x) {
  enum { ATONCE = 32 }; /* values that are popped together */
  const int top = lua_gettop(L);
  ad_checkstack(L, ATONCE + 2, NULL);
  for (uint32_t i = 0; i < n; i++) {
    if (lua_rawgeti(L, idx, (lua_Integer)i + 1) != LUA_TNUMBER) {
      lua_settop(L, top);
      return 0;
    }
    x[i] = lua_tonumber(L, -1);
    if (i % ATONCE == ATONCE - 1) lua_settop(L, top);
  }
  lua_settop(L, top);
  return countkeys(L, idx, n) == n;
}

/* is the value at idx an array of the shape that the words tell? */
static int isshape(lua_State *L, const State *S, const uint32_t *w, int idx) {
  const Array *a = ad_arrayhere(L, S, idx);
  if (a == NULL || (uint32_t)a->ndim != w[0]) return 0;
  for (int d = 0; d < a->ndim; d++)
    if ((uint64_t)a->shape[d] != (w[1 + 2 * d] | (uint64_t)w[2 + 2 * d] << 32))
      return 0;
  return 1;
}

/* does the value at 'idx' have the form from word *at on? Fills the leaves */
static int match(lua_State *L, const State *S, int consts, const Form *f,
                 uint32_t *at, uint32_t *leaf, double *in, int idx) {
  const uint32_t *w = f->word + *at;
  uint32_t seq, item;
  if (F_ISLEAF(w[0])) {
    if (lua_type(L, idx) != LUA_TNUMBER) return 0;
    in[(*leaf)++] = lua_tonumber(L, idx);
    *at += 1;
    return 1;
  }
  if (w[0] == F_CONST) {
    int same;
    lua_rawgeti(L, consts, w[1]);
    same = lua_rawequal(L, -1, idx) &&
           (lua_type(L, idx) != LUA_TNUMBER ||
            lua_isinteger(L, -1) == lua_isinteger(L, idx));
    lua_pop(L, 1);
    *at += 2;
    return same;
  }
  if (w[0] == F_ARRAY) {
    if (lua_type(L, idx) != LUA_TUSERDATA || !isshape(L, S, w + 1, idx))
      return 0;
    in[(*leaf)++] = 0;
    *at += 2 + 2 * w[1];
    return 1;
  }
  if (lua_type(L, idx) != LUA_TTABLE) return 0;
  ad_checkstack(L, 8, "structure is nested too deep");
  if (lua_getmetatable(L, idx)) {
    lua_rawgeti(L, consts, w[1]);
    if (w[1] == 0 || !lua_rawequal(L, -1, -2)) {
      lua_pop(L, 2);
      return 0;
    }
    lua_pop(L, 2);
  } else if (w[1] != 0)
    return 0;
  seq = w[2];
  item = w[4];
  *at += 5;
  if (w[3] && item == 0) { /* numbers 1 .. seq, and nothing else */
    if (lua_rawlen(L, idx) != seq) return 0;
    if (!list(L, idx, seq, in + *leaf)) return 0;
    *leaf += seq;
    return 1;
  }
  if (countkeys(L, idx, seq + item) != seq + item) return 0;
  for (uint32_t i = 1; i <= seq; i++) {
    const int type = lua_rawgeti(L, idx, i);
    int same;
    if (w[3]) {
      same = type == LUA_TNUMBER;
      if (same) in[(*leaf)++] = lua_tonumber(L, -1);
    } else
      same = match(L, S, consts, f, at, leaf, in, lua_gettop(L));
    lua_pop(L, 1);
    if (!same) return 0;
  }
  for (uint32_t i = 0; i < item; i++) {
    int same;
    lua_rawgeti(L, consts, f->word[(*at)++]);
    lua_rawget(L, idx);
    same = match(L, S, consts, f, at, leaf, in, lua_gettop(L));
    lua_pop(L, 1);
    if (!same) return 0;
  }
  return 1;
}

typedef struct Build {
  lua_State *L;
  State *S; /* leaves are recorded values; NULL: numbers and arrays */
  Root *r;  /* whose arrays they are */
  int consts, slots;
  const Form *f;
  uint32_t at, leaf, array; /* words, leaves, arrays so far */
  const double *x;
  const uint32_t *out; /* leaf k is x[out[k]], or x[k] for lack of it */
} Build;

static void number(Build *w) {
  const uint32_t k = w->leaf++;
  const double y = w->x[w->out ? w->out[k] : k];
  if (w->S)
    ad_pushrecorded(w->L, w->S, y, k);
  else
    lua_pushnumber(w->L, y);
}

static void array(Build *w) {
  const uint32_t k = w->leaf++;
  if (w->S) {
    lua_rawgeti(w->L, w->slots, (lua_Integer)++w->array);
    ad_pushrecordedarray(w->L, w->S, lua_gettop(w->L), k);
    lua_remove(w->L, -2);
  } else
    ad_takearray(w->L, w->r, w->slots, w->out[k] & ~P_A);
}

/* an integer: guards have seen to it, where the program is ours */
static void integer(Build *w) {
  const uint32_t k = w->leaf++;
  const double y = w->x[w->out ? w->out[k] : k];
  if (fabs(y) < 0x1p53)
    lua_pushinteger(w->L, (lua_Integer)y);
  else
    lua_pushnumber(w->L, y);
}

/* is each value of the form a number, which may be pushed as one? */
static uint8_t allnumbers(const Form *f) {
  if (f->nval != f->n || f->nval != f->nleaf) return 0;
  for (uint32_t k = 0; k < f->n; k++)
    if (f->word[k] != F_NUM) return 0;
  return 1;
}

/* pushes the value of the words from w->at on */
static void build(Build *w) {
  lua_State *L = w->L;
  const uint32_t *x = w->f->word + w->at;
  uint32_t seq, item;
  int table;
  if (x[0] == F_NUM) {
    number(w);
    w->at += 1;
    return;
  }
  if (x[0] == F_ARRAY) {
    array(w);
    w->at += 2 + 2 * x[1];
    return;
  }
  if (x[0] == F_INT) {
    integer(w);
    w->at += 1;
    return;
  }
  if (x[0] == F_CONST) {
    lua_rawgeti(L, w->consts, x[1]);
    w->at += 2;
    return;
  }
  ad_checkstack(L, 8, "structure is nested too deep");
  seq = x[2];
  item = x[4];
  w->at += 5;
  lua_createtable(L, (int)seq, (int)item);
  table = lua_gettop(L);
  if (x[3] && w->S == NULL && w->out != NULL) { /* the frequent case */
    const uint32_t *from = w->out + w->leaf;
    for (uint32_t i = 0; i < seq; i++) {
      lua_pushnumber(L, w->x[from[i]]);
      lua_rawseti(L, table, (lua_Integer)i + 1);
    }
    w->leaf += seq;
  } else
    for (uint32_t i = 1; i <= seq; i++) {
      if (x[3])
        number(w);
      else
        build(w);
      lua_rawseti(L, table, i);
    }
  for (uint32_t i = 0; i < item; i++) {
    lua_rawgeti(L, w->consts, w->f->word[w->at++]);
    build(w);
    lua_rawset(L, table);
  }
  if (x[1] != 0) {
    lua_rawgeti(L, w->consts, x[1]);
    lua_setmetatable(L, table);
  }
}

static void pushvalues(lua_State *L, int self, Root *r, const Form *f,
                       const double *x, const uint32_t *out, State *S) {
  Build w;
  memset(&w, 0, sizeof w);
  w.L = L;
  w.S = S;
  w.r = r;
  w.f = f;
  w.x = x;
  w.out = out;
  ad_checkstack(L, (int)f->nval + 10, "too many values");
  lua_getiuservalue(L, self, AD_CCONST);
  w.consts = lua_gettop(L);
  if (f->narray) {
    ad_pushslots(L, r);
    w.slots = lua_gettop(L);
  }
  for (uint32_t i = 0; i < f->nval; i++) build(&w);
  if (f->narray) lua_remove(L, w.slots);
  lua_remove(L, w.consts);
}

void ad_pushform(lua_State *L, int self, const Form *f, const double *x,
                 const uint32_t *out) {
  pushvalues(L, self, NULL, f, x, out, NULL);
}

/*
** Roots
*/

Compiled *ad_tocompiled(lua_State *L, int arg) {
  return luaL_checkudata(L, arg, "autodiff.compiled");
}

static void dropbatch(Root *r) {
  if (r->hasbatch) ad_batchfree(&r->batch);
  if (r->shared != NULL)
    r->code.alloc(r->code.ud, r->shared, (size_t)r->code.nin + 1, 0);
  r->shared = NULL;
  r->hasbatch = r->novectors = 0;
  r->points = 0;
}

static void dropcode(Root *r) {
  dropbatch(r);
  if (r->hascode) r->backend->free(r->made);
  ad_arraysdrop(r);
  if (r->frame.alloc != NULL) ad_framefree(&r->frame);
  if (r->code.alloc != NULL) ad_codefree(&r->code);
  if (r->hasexact) {
    ad_interpreter.free(r->exactmade);
    ad_framefree(&r->exactframe);
    ad_codefree(&r->exact);
  }
  r->hascode = r->hasexact = 0;
}

static void freeroot(lua_State *L, Root *r) {
  const size_t n = r->in.nleaf + 1;
  dropcode(r);
  ad_arraysfree(L, r);
  ad_progfree(&r->prog);
  ad_progfree(&r->adjoint);
  ad_realloc(L, r->sub, r->sub ? n : 0, 0);
  ad_realloc(L, r->isint, r->isint ? n : 0, 0);
  ad_realloc(L, r->given, r->given ? n * sizeof(double) : 0, 0);
  freeform(L, &r->in);
  ad_realloc(L, r->want, r->capwant * sizeof *r->want, 0);
  while (r->ngrad > 0) freeform(L, &r->grad[--r->ngrad]);
  ad_realloc(L, r->grad, r->grad ? r->capgrad * sizeof *r->grad : 0, 0);
  ad_realloc(L, r, sizeof *r, 0);
}

static void droproot(lua_State *L, Compiled *c, Root *r) {
  uint32_t k = 0;
  while (c->root[k] != r) k++;
  c->nroot--;
  memmove(c->root + k, c->root + k + 1, (c->nroot - k) * sizeof *c->root);
  freeroot(L, r);
}

static int compiled_gc(lua_State *L) {
  Compiled *c = lua_touserdata(L, 1);
  while (c->nroot > 0) freeroot(L, c->root[--c->nroot]);
  ad_realloc(L, c->root, c->caproot * sizeof *c->root, 0);
  while (c->nset > 0) freeform(L, &c->set[--c->nset]);
  ad_realloc(L, c->set, c->capset * sizeof *c->set, 0);
  ad_realloc(L, c->place, c->capplace * sizeof *c->place, 0);
  ad_callfree(L, c);
  c->root = NULL;
  c->set = NULL;
  c->place = NULL;
  c->capplace = c->nplace = 0;
  ad_realloc(L, c->loopplace, c->caploopplace * sizeof *c->loopplace, 0);
  ad_realloc(L, c->saved, c->capsaved * sizeof *c->saved, 0);
  ad_realloc(L, c->loop, c->caploop * sizeof *c->loop, 0);
  ad_realloc(L, c->entry, c->capentry * sizeof *c->entry, 0);
  ad_countersfree(L, c);
  c->loopplace = c->saved = NULL;
  c->loop = NULL;
  c->entry = NULL;
  c->caploopplace = c->capsaved = c->caploop = c->capentry = 0;
  c->caproot = c->capset = 0;
  return 0;
}

/* the numbers of the arguments, when they have the form of the root */
static int matches(lua_State *L, const State *S, Root *r, int self, int first,
                   int last, double *in) {
  uint32_t at = 0, leaf = 0;
  int consts, ok = 1;
  if ((uint32_t)(last - first + 1) != r->in.nval) return 0;
  if (r->in.numbers) {
    for (int i = first; i <= last; i++) {
      if (lua_type(L, i) != LUA_TNUMBER) return 0;
      in[i - first] = lua_tonumber(L, i);
    }
    return 1;
  }
  lua_getiuservalue(L, self, AD_CCONST);
  consts = lua_gettop(L);
  for (int i = first; i <= last && ok; i++)
    ok = match(L, S, consts, &r->in, &at, &leaf, in, i);
  lua_settop(L, consts - 1);
  return ok;
}

/* the same for a value of the form from word *at on: which are integers */
static void integers(lua_State *L, int consts, const Form *f, uint32_t *at,
                     uint32_t *leaf, uint8_t *isint, int idx) {
  const uint32_t *w = f->word + *at;
  if (F_ISLEAF(w[0])) {
    isint[(*leaf)++] = intkind(L, idx);
    *at += 1;
    return;
  }
  if (w[0] == F_CONST) {
    *at += 2;
    return;
  }
  if (w[0] == F_ARRAY) {
    isint[(*leaf)++] = 0;
    *at += 2 + 2 * w[1];
    return;
  }
  ad_checkstack(L, 4, "structure is nested too deep");
  *at += 5;
  for (uint32_t i = 1; i <= w[2]; i++) {
    lua_rawgeti(L, idx, i);
    if (w[3])
      isint[(*leaf)++] = intkind(L, -1);
    else
      integers(L, consts, f, at, leaf, isint, lua_gettop(L));
    lua_pop(L, 1);
  }
  for (uint32_t i = 0; i < w[4]; i++) {
    lua_rawgeti(L, consts, f->word[(*at)++]);
    lua_rawget(L, idx);
    integers(L, consts, f, at, leaf, isint, lua_gettop(L));
    lua_pop(L, 1);
  }
}

/* which of the arguments are integers, into r->isint; is none HUGEINT? */
static int findintegers(lua_State *L, Root *r, int self, int first) {
  uint32_t at = 0, leaf = 0;
  lua_getiuservalue(L, self, AD_CCONST);
  for (uint32_t k = 0; k < r->in.nval; k++)
    integers(L, lua_gettop(L), &r->in, &at, &leaf, r->isint, first + (int)k);
  lua_pop(L, 1);
  return memchr(r->isint, HUGEINT, r->in.nleaf) == NULL;
}

/* the arrays of a value of the form from word *at on go to the slots */
static void putarrays(lua_State *L, Root *r, int consts, int slots,
                      uint32_t *at, uint32_t *k, int idx) {
  const uint32_t *w = r->in.word + *at;
  if (w[0] == F_ARRAY) {
    ad_putarray(L, r, slots, (*k)++, idx);
    *at += 2 + 2 * w[1];
    return;
  }
  if (w[0] != F_TABLE) {
    *at += w[0] == F_NUM ? 1 : 2;
    return;
  }
  ad_checkstack(L, 4, "structure is nested too deep");
  *at += 5;
  for (uint32_t i = 1; !w[3] && i <= w[2]; i++) {
    lua_rawgeti(L, idx, i);
    putarrays(L, r, consts, slots, at, k, lua_gettop(L));
    lua_pop(L, 1);
  }
  for (uint32_t i = 0; i < w[4]; i++) {
    lua_rawgeti(L, consts, r->in.word[(*at)++]);
    lua_rawget(L, idx);
    putarrays(L, r, consts, slots, at, k, lua_gettop(L));
    lua_pop(L, 1);
  }
}

void ad_callarguments(lua_State *L, Root *r) {
  uint32_t at = 0, k = 0;
  const int top = lua_gettop(L);
  if (r->in.narray == 0) return;
  ad_checkstack(L, 10, NULL);
  lua_getiuservalue(L, 1, AD_CCONST);
  ad_pushslots(L, r);
  for (uint32_t i = 0; i < r->in.nval; i++)
    putarrays(L, r, top + 1, top + 2, &at, &k, 2 + (int)i);
  lua_settop(L, top);
}

/* subtypes of numbers, where f has asked for them */
static int subtypes(lua_State *L, Root *r, int self, int first) {
  if (!r->subs) return 1;
  findintegers(L, r, self, first);
  for (uint32_t k = 0; k < r->in.nleaf; k++)
    if (r->sub[k] && r->isint[k] != r->sub[k] - 1) return 0;
  return 1;
}

double *ad_rootinputs(Root *r) {
  return r->hascode ? r->frame.v + r->code.nconst : r->given;
}

Root *ad_rootof(lua_State *L, Compiled *c, int self, int first, int last) {
  for (uint32_t i = 0; i < c->nroot; i++) {
    Root *r = c->root[i];
    if (!matches(L, c->S, r, self, first, last, ad_rootinputs(r)) ||
        !subtypes(L, r, self, first))
      continue;
    if (i > 0) { /* the next call is likely to be the same */
      memmove(c->root + 1, c->root, i * sizeof *c->root);
      c->root[0] = r;
    }
    return r;
  }
  return NULL;
}

/* a root that is nobody's yet */
static Root *addroot(lua_State *L, Compiled *c) {
  Root *r;
  if (c->nroot == c->caproot) {
    const uint32_t ncap = c->caproot * 2 + 1;
    c->root = ad_realloc(L, c->root, c->caproot * sizeof *c->root,
                         ncap * sizeof *c->root);
    c->caproot = ncap;
  }
  r = ad_realloc(L, NULL, 0, sizeof *r);
  memset(r, 0, sizeof *r);
  r->backend = &ad_interpreter;
  r->in.nval = UINT32_MAX; /* nobody's, until it is complete */
  memmove(c->root + 1, c->root, c->nroot * sizeof *c->root);
  c->root[0] = r;
  c->nroot++;
  return r;
}

/* what goes with the leaves of its arguments */
static void leaves(lua_State *L, Root *r) {
  const size_t n = (size_t)r->in.nleaf + 1;
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  r->sub = ad_realloc(L, NULL, 0, n);
  memset(r->sub, 0, n);
  r->isint = ad_realloc(L, NULL, 0, n);
  memset(r->isint, 0, n);
  r->given = ad_realloc(L, NULL, 0, n * sizeof(double));
  memset(r->given, 0, n * sizeof(double));
  while (!ad_proginit(&r->prog, alloc, ud, r->in.nleaf))
    ad_nomem(L, n * sizeof(Ins));
  r->prog.callsize = ad_callsize;
}

/* marks the inputs that are arrays, of n values from word *at on */
static void arrayleaves(const Form *f, uint32_t *at, uint32_t *leaf, Prog *p,
                        uint32_t n) {
  while (n-- > 0) {
    const uint32_t *w = f->word + *at;
    switch (w[0]) {
    case F_NUM:
      ++*leaf;
      *at += 1;
      break;
    case F_CONST:
      *at += 2;
      break;
    case F_ARRAY:
      p->ins[(*leaf)++].flags = P_ARRAY;
      *at += 2 + 2 * w[1];
      break;
    default:
      *at += 5;
      if (w[3])
        *leaf += w[2];
      else
        arrayleaves(f, at, leaf, p, w[2]);
      for (uint32_t i = 0; i < w[4]; i++) {
        ++*at;
        arrayleaves(f, at, leaf, p, 1);
      }
    }
  }
}

/* a new root; NULL if there cannot be one for these arguments */
static Root *newroot(lua_State *L, Compiled *c, int self, int first, int last,
                     int fixedints) {
  Root *r;
  Taker t;
  uint32_t n;
  r = addroot(L, c);
  memset(&t, 0, sizeof t);
  t.c = c;
  t.self = self;
  t.form = &r->in;
  t.fixedints = fixedints;
  for (int i = first; i <= last; i++) {
    lua_pushvalue(L, i);
    take(L, &t, 0);
  }
  n = (uint32_t)(last - first + 1);
  r->in.numbers = n == r->in.n && n == r->in.nleaf;
  r->fixedints = (uint8_t)fixedints;
  leaves(L, r);
  r->in.nval = (uint32_t)(last - first + 1);
  r->prog.callud = c;
  if (t.foreign) {
    droproot(L, c, r);
    return NULL;
  }
  if (r->in.narray) {
    uint32_t at = 0, leaf = 0;
    arrayleaves(&r->in, &at, &leaf, &r->prog, r->in.nval);
  }
  return r;
}

static double now(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nomemory(lua_State *L, const Root *r) {
  ad_nomem(L, ((size_t)r->prog.nins + 1) * 2 * sizeof(Ins));
}

/*
** The results of a gradient's program are f's, and then the derivatives; they
** become f's value (if asked for), the derivatives, and f's further results.
*/
static void reorder(lua_State *L, const Compiled *c, const Root *r, Prog *q) {
  uint32_t *old = lua_newuserdatauv(L, (q->nlist + 1) * sizeof *old, 0);
  for (uint32_t k = 0; k < q->nblock; k++) {
    Block *b = &q->block[k];
    const Form *f = &c->set[b->end == P_RETURN ? b->set : 0];
    const uint32_t n = b->b - r->nwant;
    uint32_t y, at = 0, *x = q->list + b->a;
    if (b->end != P_RETURN || f->nval == 0) continue;
    y = f->word[0] != F_CONST;
    memcpy(old, x, b->b * sizeof *x);
    if (y && c->gradvalue) x[at++] = old[0];
    for (uint32_t i = 0; i < r->nwant; i++) x[at++] = old[n + i];
    for (uint32_t i = y; i < n; i++) x[at++] = old[i];
    b->b = at;
  }
  lua_pop(L, 1);
}

/* the program as Code; of a gradient, that of f with its derivatives */
static int lowered(lua_State *L, Compiled *c, Root *r, Code *code,
                   int options) {
  Prog q;
  int went;
  if (!c->isgrad) {
    while (!ad_lower(&r->prog, code, options)) nomemory(L, r);
    return 1;
  }
  while ((went = ad_progadjoint(&r->prog, &q, r->nwant, r->want,
                                r->recompute ? c->maxstack : 0)) == P_GNOMEM)
    nomemory(L, r);
  if (went == P_GCANNOT) return 0;
  ad_progfree(&r->adjoint); /* which the root owns, as memory may be lacking */
  r->adjoint = q;
  reorder(L, c, r, &r->adjoint);
  while (!ad_lower(&r->adjoint, code, options)) nomemory(L, r);
  ad_progfree(&r->adjoint);
  return 1;
}

/* the exact form of the code, where the fast one has come to a NaN */
void ad_rootexact(lua_State *L, Compiled *c, Root *r) {
  const char *why;
  if (r->hasexact) return;
  lowered(L, c, r, &r->exact, c->options);
  while (ad_frameinit(&r->exactframe, &r->exact, r->prog.alloc, r->prog.ud,
                      c->maxstack) != 0)
    nomemory(L, r);
  while ((r->exactmade = ad_interpreter.make(&r->exact, &why)) == NULL)
    nomemory(L, r);
  r->hasexact = 1;
}

/*
** Machine code pays when what it has saved would make up for making it: a run
** takes about 0.7 ns less for each instruction, and to compile one takes about
** 100 ns, and the mappings 50 us.
*/
static uint32_t paysafter(const Compiled *c, const Root *r) {
  if (c->backend == C_INTERPRETER || c->nonative != NULL) return 0;
  if (ad_hasarrays(&r->code)) return 0; /* it knows nothing of calls */
  if (c->backend == C_NATIVE) return 1;
  return 150 + (uint32_t)(70000 / (r->code.nins + 1));
}

static int features(State *S) {
  if (!S->hasfeatures) { /* under a hypervisor that takes a while */
    S->features = ad_nativefeatures();
    S->hasfeatures = 1;
  }
  return S->features;
}

static void tonative(Compiled *c, Root *r) {
  const double start = now();
  const char *why = NULL;
  void *made = ad_nativemake(&r->code, features(c->S), &why);
  if (made != NULL) {
    r->backend->free(r->made);
    r->backend = &ad_native;
    r->made = made;
  } else
    c->nonative = why ? why : "there was no memory for it";
  r->pays = 0;
  c->seconds += now() - start;
}

/*
** Seconds for some of the points, the least of a few times; the results are
** put where those of all will be. Below 0: no memory.
*/
#define TRIES 5
#define SOME (1u << 20) /* instructions times points, roughly */

static double sample(const Root *r, const BatchRun *run) {
  const size_t most = 2 * V_POINTS + SOME / (r->code.nins + SOME / 8192);
  double best = HUGE_VAL;
  BatchRun part = *run;
  part.threads = 1;
  if (part.n > most) part.n = most;
  for (int k = 0; k < TRIES; k++) {
    double t = now();
    if (!ad_batchrun(&r->batch, &part)) return -1;
    t = now() - t;
    if (t < best) best = t;
  }
  return best;
}

/*
** Machine code for many points saves 0.03 ns for an instruction of each, or,
** where the frame is large, 0.2 ns; to compile one takes about 200 ns, and all
** else 100 us. But that is not so of every program: what has few operations
** between its functions, or values that no registers can hold, may be faster
** without. So both are run; results are the same bits. That is done again only
** where the program has become another.
*/
static void tovectors(Compiled *c, Root *r, const BatchRun *run) {
  const double start = now();
  const char *why = NULL;
  const uint32_t few = r->batch.points < V_POINTS ? 1000 : 6000;
  const int measured = r->measured != 0 && r->code.nins / 2 <= r->measured;
  double kernels = -1;
  if (c->backend == C_INTERPRETER || c->nonative != NULL || r->novectors)
    return;
  if (c->backend != C_NATIVE) {
    if (r->points < few + few * UINT64_C(500) / ((uint64_t)r->code.nins + 1) ||
        (measured && r->kernels))
      return;
    if (!measured && (kernels = sample(r, run)) < 0) return;
  }
  if (!ad_batchnative(&r->batch, features(c->S), &why))
    r->novectors = 1;
  else if (kernels >= 0) {
    const double native = sample(r, run);
    r->measured = native < 0 ? 0 : r->code.nins + 1;
    r->kernels = native < 0 || kernels <= native;
    if (r->kernels) ad_batchkernels(&r->batch);
  }
  c->seconds += now() - start;
}

const Batch *ad_rootbatch(Compiled *c, Root *r, const uint8_t *shared,
                          const BatchRun *run) {
  const Code *code = &r->code;
  if (r->hasbatch && memcmp(r->shared, shared, code->nin) != 0) dropbatch(r);
  if (!r->hasbatch) {
    if (r->shared == NULL)
      r->shared = code->alloc(code->ud, NULL, 0, (size_t)code->nin + 1);
    if (r->shared == NULL) return NULL;
    memcpy(r->shared, shared, code->nin);
    if (!ad_batchinit(&r->batch, code, shared, 0, code->alloc, code->ud))
      return NULL;
    r->hasbatch = 1;
  }
  r->points += run->n;
  if (r->batch.vectors == NULL) {
    const size_t before = r->points == run->n ? 0 : ad_batchbytes(&r->batch);
    tovectors(c, r, run);
    c->S->told +=
        ad_batchbytes(&r->batch) - before; /* for the next ad_tellgc */
  }
  c->mapped = r->batch.vectors != NULL ? C_VECTORS : C_KERNELS;
  return &r->batch;
}

int ad_rootcode(lua_State *L, Compiled *c, Root *r) {
  const double start = now();
  const char *why;
  Code code;
  Frame frame;
  void *made;
  const int options = c->options | (r->in.narray || c->ncalled ? 0 : P_RELAX);
  if (r->hascode && (r->news == 0 || c->running)) return 1;
  if (!lowered(L, c, r, &code, options)) return 0;
  while (ad_frameinit(&frame, &code, r->prog.alloc, r->prog.ud, c->maxstack) !=
         0) {
    ad_codefree(&code);
    nomemory(L, r);
    lowered(L, c, r, &code, options);
  }
  dropcode(r);
  r->code = code;
  r->frame = frame;
  r->backend = &ad_interpreter;
  made = r->backend->make(&r->code, &why);
  if (made == NULL) {
    ad_framefree(&r->frame);
    ad_codefree(&r->code);
    nomemory(L, r);
    luaL_error(L, "not enough memory");
  }
  r->made = made;
  r->hascode = 1;
  c->S->told += ad_codebytes(&r->code) + r->frame.size +
                r->backend->bytes(r->made) + ad_progbytes(&r->prog);
  ad_tellgc(L, c->S);
  r->news = r->misses = r->runs = 0;
  r->pays = paysafter(c, r);
  c->seconds += now() - start;
  return 1;
}

Root *ad_storedroot(lua_State *L, Compiled *c, const Form *in) {
  Root *r = addroot(L, c);
  for (uint32_t k = 0; k < in->n; k++) word(L, &r->in, in->word[k]);
  r->in.nleaf = in->nleaf;
  leaves(L, r);
  r->in.numbers = in->nval == in->n && in->nval == in->nleaf;
  r->in.nval = in->nval;
  return r;
}

void ad_storedset(lua_State *L, Compiled *c, const Form *set) {
  Form *f;
  if (c->nset == c->capset) {
    const uint32_t ncap = c->capset * 2 + 4;
    c->set = ad_realloc(L, c->set, c->capset * sizeof *f, ncap * sizeof *f);
    c->capset = ncap;
  }
  f = &c->set[c->nset++];
  memset(f, 0, sizeof *f);
  for (uint32_t k = 0; k < set->n; k++) word(L, f, set->word[k]);
  f->nleaf = set->nleaf;
  f->nval = set->nval;
  f->numbers = allnumbers(f);
}

/* the root's code has been loaded */
void ad_storedcode(lua_State *L, Compiled *c, Root *r) {
  const char *why;
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  while (ad_frameinit(&r->frame, &r->code, alloc, ud, c->maxstack) != 0)
    ad_nomem(L, (size_t)r->code.nslot * sizeof(double));
  while ((r->made = r->backend->make(&r->code, &why)) == NULL)
    ad_nomem(L, (size_t)r->code.nins * sizeof(Ins));
  r->hascode = 1;
  r->pays = paysafter(c, r);
  for (uint32_t k = 0; k < r->code.nblock; k++)
    r->prog.ntrace += r->code.block[k].end == P_RETURN;
  c->traces += r->prog.ntrace;
}

/*
** Gradients
*/

uint32_t ad_formskip(const Form *f, uint32_t at, uint32_t *leaf) {
  const uint32_t *w = f->word + at;
  if (F_ISLEAF(w[0])) {
    (*leaf)++;
    return at + 1;
  }
  if (w[0] == F_CONST) return at + 2;
  at += 5;
  if (w[3])
    *leaf += w[2];
  else
    for (uint32_t i = 0; i < w[2]; i++) at = ad_formskip(f, at, leaf);
  for (uint32_t i = 0; i < w[4]; i++) at = ad_formskip(f, at + 1, leaf);
  return at;
}

/* the form of the gradient by the value at 'at': constants are absent */
static uint32_t gradform(lua_State *L, Compiled *c, int self, const Form *f,
                         uint32_t at, Form *g) {
  const uint32_t *w = f->word + at;
  uint32_t seq, all, item, here, items = 0, kept = 0;
  int dense = 1;
  if (F_ISLEAF(w[0])) {
    word(L, g, F_NUM);
    g->nleaf++;
    return at + 1;
  }
  seq = w[2], all = w[3], item = w[4];
  at += 5;
  word(L, g, F_TABLE);
  word(L, g, 0);
  here = g->n;
  for (int i = 0; i < 3; i++) word(L, g, 0);
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
        word(L, g, konst(L, c, self));
        items++;
      }
      at = gradform(L, c, self, f, at, g);
    }
  for (uint32_t i = 0; i < item; i++) {
    if (f->word[at + 1] == F_CONST) {
      at += 3;
      continue;
    }
    word(L, g, f->word[at]);
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
    word(L, g, f->word[0]);
    if (f->word[0] == F_CONST)
      word(L, g, f->word[1]);
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
  for (; at < f->n; at++) word(L, g, f->word[at]);
  g->nleaf += f->nleaf - leaf;
  g->nval = f->nval - 1 + (uint32_t)c->gradvalue + (uint32_t)c->gradn;
  g->numbers = allnumbers(g);
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
    take(L, t, 0);
  }
  f->nval = (uint32_t)(last - first + 1);
  f->numbers = allnumbers(f);
  for (uint32_t k = 0; k + 1 < c->nset; k++) {
    const Form *o = &c->set[k];
    if (o->n == f->n && o->nval == f->nval &&
        (f->n == 0 || memcmp(o->word, f->word, f->n * sizeof *f->word) == 0)) {
      freeform(L, f);
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
  r->doubt = lua_rawget(L, seen) != LUA_TNIL || depth > MAXDEPTH ||
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
  pushvalues(L, 1, r, &r->in, r->given, NULL, S);
  c->rec.order = 0;
  if (!r->in.numbers) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &c->rec.frame); /* see ad_watchready */
    for (int i = 1; i <= n; i++)
      copied(L, &c->rec, i + 1, slot + 1 + i, slot + n + 2, 0);
    lua_settop(L, slot + n + 1);
  }
  c->rec.stopped = 0;
  if (c->loopfailures > 0) stopcollector(L, &c->rec);
  if (c->rec.watched) ad_watchbegin(L, S);
  *status = lua_pcall(L, n, LUA_MULTRET, 0);
  startcollector(L, &c->rec);
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
        fail(S, "f returns a value of a transform that runs around it");
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
static int eager(lua_State *L, Compiled *c, int n) {
  c->eagercalls++;
  lua_getiuservalue(L, 1, AD_CF);
  lua_replace(L, 1);
  lua_settop(L, n + 1);
  lua_callk(L, n, LUA_MULTRET, 0, ad_results);
  return ad_results(L, LUA_OK, 0);
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
  if (lua_type(L, a) != type || depth > MAXDEPTH) {
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
  if (type != LUA_TTABLE || isresource(L, b)) {
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
  while (c->nroot > 0) droproot(L, c, c->root[0]);
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
  matches(L, c->S, r, 1, 2, n + 1, r->given);
  findintegers(L, r, 1, 2);
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
  if (r == NULL) r = newroot(L, c, 1, 2, n + 1, c->fixedints);
  if (r == NULL || !findintegers(L, r, 1, 2)) return eager(L, c, n);
  if (r->prog.nins >= c->maxoperations) return eager(L, c, n);
  if (c->isgrad) {
    const int k = r->in.narray ? -1 : asgradient(L, c, r, n);
    if (k >= 0 || k == AGAIN) return k;
    /* not so: then as what it is, a function like any other */
    c->isgrad = 0;
    while (c->nroot > 0) droproot(L, c, c->root[0]);
    c->traces = 0;
    lua_settop(L, top);
    r = newroot(L, c, 1, 2, n + 1, c->fixedints);
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
    Root *fixed = newroot(L, c, 1, 2, n + 1, 1);
    if (fixed != NULL && fixed->in.nleaf < r->in.nleaf) {
      if (once(L, c, fixed, n, &status)) {
        if (c->rec.counters && c->rec.failed) return again(c);
        c->fixedints = 1;
        for (uint32_t k = c->nroot; k-- > 0;)
          if (c->root[k] != fixed) droproot(L, c, c->root[k]);
        return recorded(L, c, n, top + 4); /* the first error and its slot */
      }
      if (status == LUA_ERRMEM) return lua_error(L);
      lua_settop(L, top + 2);
    }
    if (fixed != NULL) droproot(L, c, fixed);
  }
  if (r->prog.ntrace == 0) droproot(L, c, r);
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
    pushvalues(L, 1, r, f, v, out, NULL);
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
  dropcode(r);
  if (!ad_rootcode(L, c, r)) return P_FULL;
  if (native) tonative(c, r);
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
  matches(L, c->S, r, 1, 2, n + 1, r->given);
  findintegers(L, r, 1, 2);
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

static int compiled_call(lua_State *L) {
  Compiled *c = lua_touserdata(L, 1);
  const int n = lua_gettop(L) - 1;
  Root *r;
  int k;
  c->calls++;
  if (c->eager || c->verifying || c->running || c->S->recorder || c->S->debug)
    return eager(L, c, n);
  r = ad_rootof(L, c, 1, 2, n + 1);
  if (r != NULL && r->read && !ad_unwritten(L, c->S, r)) {
    c->traces -= c->traces < r->prog.ntrace ? c->traces : r->prog.ntrace;
    droproot(L, c, r);
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
  if (++r->runs == r->pays) tonative(c, r);
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
                                {"__gc", compiled_gc},
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
