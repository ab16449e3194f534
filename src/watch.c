/*
** watch.c
** What a function does with recorded values without asking anybody.
**
** While f is recorded its numbers are userdata, and Lua has an answer of its
** own to x == 1, type(x) and t[x] where one is used as a key. So each
** instruction of f is looked at before it runs (by a count hook of 1). One
** that compares a recorded value with a number becomes a guard; if the two are
** equal, the register gets the plain number, and the comparison comes out
** right. A recorded value that is used as a key is replaced likewise, by the
** number that it is from then on in this trace.
**
** The instruction is found where Lua itself finds it: the 'private' part of
** lua_Debug is the CallInfo, whose fifth word, in every Lua 5.4, points behind
** the instruction that is to run. Whether that is so, and whether instructions
** look like this, is tried once, with a small chunk, before it is relied upon:
**
** Once there are counters (counters.c), instructions in which they would not do
** as the numbers do that they stand for get those numbers too.
**
**      31      24 23      16 15 14       7 6       0
**      [    C    |     B    |k |    A     |   op   ]
*/
#include <string.h>

#include "compile.h"

#ifndef WORD   /* watch_test.c has others */
#define WORD 4 /* of CallInfo */
#endif
#define MAXDEEP 10  /* tables within tables */
#define MAXWIDE 500 /* values in them */
#define MAXTRIED 80 /* instructions of the chunk: there are some 50 */

typedef uint32_t Instruction;

#define MAXJUMP 0xffffff /* of OP_JMP: less is a jump back */

enum {
  I_MOVE = 0,     /* A B      R[A] := R[B] */
  I_LOADNIL = 8,  /* A B      R[A] .. R[A+B] := nil */
  I_GETUPVAL = 9, /* A ... */
  I_SETUPVAL = 10,
  I_GETTABUP = 11,
  I_SETTABUP = 15, /* B C      UpValue[A][K[B]] := RK(C) */
  I_GETTABLE = 12, /* A B C    R[A] := R[B][R[C]] */
  I_SETTABLE = 16, /* A B C    R[A][R[B]] := RK(C) */
  I_NEWTABLE = 19,
  I_SELF = 20,   /* A B C    R[A+1] := R[B]; R[A] := R[B][RK(C)] */
  I_ADD = 34,    /* A B C    R[A] := R[B] + R[C] ... */
  I_MMBIN = 46,  /* A B ... */
  I_UNM = 49,    /* A B      R[A] := -R[B] ... */
  I_CONCAT = 53, /* A B      R[A] := R[A] .. ... R[A+B-1] */
  I_JMP = 56,
  I_RETURN = 70,
  I_TFORLOOP = 77,
  I_SETLIST = 78, /* A B      R[A][..] := R[A+1] .. R[A+B] */
  I_CLOSURE = 79,
  I_VARARG = 80, /* A C      R[A] .. R[A+C-2] := ... */
  I_BANDK = 29,  /* A B C    R[A] := R[B] & K[C] ... */
  I_BORK,
  I_BXORK,
  I_SHRI,
  I_SHLI,
  I_BAND = 41, /* A B C    R[A] := R[B] & R[C] ... */
  I_BOR,
  I_BXOR,
  I_SHL,
  I_SHR,
  I_BNOT = 50, /* A B      R[A] := ~R[B] */
  I_EQ = 57,   /* A B k    if ((R[A] == R[B]) ~= k) then pc++ */
  I_EQK = 60,  /* A B k    if ((R[A] == K[B]) ~= k) then pc++ */
  I_EQI = 61,  /* A sB k   if ((R[A] == sB) ~= k) then pc++ */
  I_CALL = 68, /* A B C    R[A], ... := R[A](R[A+1], ... R[A+B-1]) */
  I_TAILCALL = 69,
  I_FORLOOP = 73, /* A Bx     R[A] .. R[A+2]: state; R[A+3]: the variable */
  I_FORPREP = 74,
  I_TFORPREP = 75, /* the first time for TFORCALL too, which is seen later */
  I_TFORCALL = 76  /* A C      R[A+4], ... := R[A](R[A+1], R[A+2]) */
};

#define OPOF(i) ((int)((i)&0x7f))
#define AOF(i) ((int)((i) >> 7 & 0xff))
#define BOF(i) ((int)((i) >> 16 & 0xff))
#define COF(i) ((int)((i) >> 24 & 0xff))
#define SBOF(i) (BOF(i) - 127)

static const Instruction *next(const lua_Debug *ar) {
  const Instruction *p;
  memcpy(&p, (const char *)ar->i_ci + WORD * sizeof(void *), sizeof p);
  return p;
}

/*
** Registers above the variables
**
** What is left in them of expressions that are done is of no account. A
** register that an expression still needs is not written to before the
** instruction that reads it, in the order in which the instructions are; and
** no expression goes over the end of a loop or a return.
*/

#define ISK(i) ((i) >> 15 & 1)

static int within(int r, int first, int n) {
  return first <= r && r < first + n;
}

/* does the instruction read the register? In doubt it does */
static int readsit(Instruction i, int r) {
  const int op = OPOF(i), a = AOF(i), b = BOF(i), c = COF(i);
  switch (op) {
  case I_SETTABUP:
    return c == r && !ISK(i);
  case I_SETTABLE:
    return a == r || b == r || (c == r && !ISK(i));
  case I_SETTABLE + 1:
  case I_SETTABLE + 2:
    return a == r || (c == r && !ISK(i));
  case I_CONCAT:
    return within(r, a, b);
  case I_CALL:
  case I_TAILCALL:
    return b == 0 ? r >= a : within(r, a, b);
  case I_SETLIST:
    return b == 0 ? r >= a : within(r, a, b + 1);
  case I_FORPREP:
  case I_FORLOOP:
  case I_TFORPREP:
  case I_TFORCALL:
    return within(r, a, 4);
  case I_RETURN:
    return b == 0 ? r >= a : within(r, a, b - 1);
  case I_SETUPVAL:
    return a == r;
  case I_GETUPVAL:
  case I_GETTABUP:
  case I_CLOSURE:
  case I_VARARG:
  case I_NEWTABLE:
  case I_JMP:
    return 0;
  default:
    if (op > I_MOVE && op < I_GETUPVAL) return 0; /* loads */
    if (op <= I_SELF) return b == r || (op != I_MOVE && c == r);
    if (op < I_ADD || within(op, I_UNM, 4)) return b == r;
    if (op < I_MMBIN) return b == r || c == r;
    return a == r || b == r;
  }
}

/* is what was in the register gone afterwards? In doubt it is not */
static int writesit(Instruction i, int r) {
  const int op = OPOF(i), a = AOF(i), b = BOF(i), c = COF(i);
  switch (op) {
  case I_LOADNIL:
    return within(r, a, b + 1);
  case I_SELF:
    return within(r, a, 2);
  case I_CALL:
    return r >= a;
  case I_VARARG:
    return c == 0 ? r >= a : within(r, a, c - 1);
  case I_CLOSURE:
  case I_NEWTABLE:
  case I_CONCAT:
    return r == a;
  default:
    return r == a && (op <= I_GETUPVAL || within(op, I_GETTABUP, 4) ||
                      within(op, I_SELF + 1, I_MMBIN - I_SELF - 1) ||
                      within(op, I_UNM, 4));
  }
}

/* is there nothing in a register, which is no variable, of a Lua function? */
int ad_watchgarbage(const State *S, const lua_Debug *ar, int reg) {
  const Instruction *p;
  if (!S->canwatch) return 0;
  p = next(ar);
  /* those that call something before they are done */
  if ((OPOF(p[-1]) == I_CONCAT || OPOF(p[-1]) == I_RETURN) &&
      readsit(p[-1], reg))
    return 0;
  for (;; p++) {
    if (readsit(*p, reg)) return 0;
    if (writesit(*p, reg)) return 1;
    if (within(OPOF(*p), I_RETURN, I_FORPREP - I_RETURN) ||
        OPOF(*p) == I_TFORLOOP || (OPOF(*p) == I_JMP && *p >> 7 < MAXJUMP))
      return 1;
  }
}

/*
** The trial
*/

#define TRIED                                                                  \
  "local a, b, t, f, g = ...\n"                                                \
  "local x = a == b\n"                                                         \
  "x = a == 7\n"                                                               \
  "x = a == 0.5\n"                                                             \
  "x = t[b]\n"                                                                 \
  "t[b] = a\n"                                                                 \
  "x = f(a)\n"                                                                 \
  "x = a & 7\n"                                                                \
  "x = 1 << a\n"                                                               \
  "x = a & b\n"                                                                \
  "x = a >> b\n"                                                               \
  "x = ~a\n"                                                                   \
  "for i = a, a do end\n"                                                      \
  "for i in g, a, 1 do end\n"                                                  \
  "return f(a)\n"
#ifndef CHUNK /* watch_test.c has others */
#define CHUNK TRIED
#endif

static const struct {
  uint8_t op, a, b, c;
  uint8_t fields; /* which of them are known: 1 a, 2 b, 4 c */
  uint8_t line;
} expected[] = {{I_EQ, 0, 1, 0, 3, 2},        {I_EQI, 0, 7 + 127, 0, 3, 3},
                {I_EQK, 0, 0, 0, 1, 4},       {I_GETTABLE, 5, 2, 1, 7, 5},
                {I_SETTABLE, 2, 1, 0, 7, 6},  {I_CALL, 6, 2, 2, 7, 7},
                {I_BANDK, 5, 0, 0, 3, 8},     {I_SHLI, 5, 0, 1 + 127, 7, 9},
                {I_BAND, 5, 0, 1, 7, 10},     {I_SHR, 5, 0, 1, 7, 11},
                {I_BNOT, 5, 0, 0, 3, 12},     {I_FORPREP, 6, 0, 0, 1, 13},
                {I_FORLOOP, 6, 0, 0, 1, 13},  {I_TFORPREP, 6, 0, 0, 1, 14},
                {I_TFORCALL, 6, 0, 1, 5, 14}, {I_TAILCALL, 6, 2, 0, 3, 15}};

typedef struct Trial {
  const Instruction *at[MAXTRIED];
  int line[MAXTRIED];
  int n;
} Trial;

static const char trialkey = 0; /* its address is a key in the registry */

static void tried(lua_State *L, lua_Debug *ar) {
  Trial *t;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &trialkey);
  t = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (t == NULL || t->n == MAXTRIED) return;
  lua_getinfo(L, "l", ar);
  t->line[t->n] = ar->currentline;
  t->at[t->n++] = next(ar);
}

static int once(lua_State *L) { /* an iterator */
  if (lua_tointeger(L, 2) == 0) return 0;
  lua_pushinteger(L, 0);
  return 1;
}

static int identity(lua_State *L) {
  lua_settop(L, 1);
  return 1;
}

/* does what was seen look as it should? What is pointed at is looked at only
   if the pointers behave as those to instructions do */
static int asexpected(const Trial *t) {
  const int nexpected = (int)(sizeof expected / sizeof *expected);
  if (t->n < 2 * nexpected || t->n == MAXTRIED) return 0;
  for (int i = 1; i < t->n; i++) {
    const uintptr_t p = (uintptr_t)t->at[i], q = (uintptr_t)t->at[i - 1];
    if (p <= q || p - q > 4 * sizeof(Instruction) ||
        (p - q) % sizeof(Instruction) != 0)
      return 0;
  }
  for (int k = 0; k < nexpected; k++) {
    int found = 0;
    for (int i = 0; i < t->n; i++) {
      const Instruction x = t->at[i][-1];
      if (OPOF(x) != expected[k].op) continue;
      if (t->line[i] != expected[k].line) return 0;
      if (expected[k].fields & 1 && AOF(x) != expected[k].a) return 0;
      if (expected[k].fields & 2 && BOF(x) != expected[k].b) return 0;
      if (expected[k].fields & 4 && COF(x) != expected[k].c) return 0;
      found = 1;
    }
    if (!found) return 0;
  }
  return 1;
}

static int trial(lua_State *L) {
  const int top = lua_gettop(L);
  lua_State *co;
  Trial *t;
  int nres, ok, status;
  ad_checkstack(L, 10, NULL);
  co = lua_newthread(L); /* whose hook is nobody's */
  t = lua_newuserdatauv(L, sizeof *t, 0);
  memset(t, 0, sizeof *t);
  status = luaL_loadbufferx(L, CHUNK, strlen(CHUNK), "=trial", "t");
  if (status == LUA_ERRMEM) lua_error(L);
  if (status != LUA_OK) {
    lua_settop(L, top);
    return 0;
  }
  lua_pushvalue(L, -1);
  lua_pushinteger(L, 1);
  lua_pushinteger(L, 2);
  lua_newtable(L);
  lua_pushcfunction(L, identity);
  lua_pushcfunction(L, once);
  lua_xmove(L, co, 6);
  lua_pushvalue(L, top + 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &trialkey);
  lua_sethook(co, tried, LUA_MASKCOUNT, 1);
  status = lua_resume(co, L, 5, &nres);
  if (status == LUA_ERRMEM) {
    lua_xmove(co, L, 1);
    lua_error(L);
  }
  ok = status == LUA_OK && asexpected(t);
  lua_sethook(co, NULL, 0, 0);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &trialkey);
  lua_settop(L, top);
  return ok;
}

/*
** Constants of functions: they are in what string.dump gives
*/

typedef struct Reader {
  const unsigned char *p, *end; /* p == NULL: it is not what it should be */
} Reader;

typedef struct Konst {
  double x;
  int number;
} Konst;

typedef struct Konsts {
  size_t n;
  Konst k[1];
} Konsts;

static const unsigned char *bytes(Reader *r, size_t n) {
  const unsigned char *p = r->p;
  if (p == NULL || (size_t)(r->end - p) < n) {
    r->p = NULL;
    return NULL;
  }
  r->p += n;
  return p;
}

static int byte(Reader *r) {
  const unsigned char *p = bytes(r, 1);
  return p ? *p : 0;
}

/* seven bits each, the highest first; the last byte has the eighth bit */
static size_t size(Reader *r) {
  size_t x = 0;
  while (r->p != NULL) {
    const int b = byte(r);
    if (x > SIZE_MAX >> 7) r->p = NULL;
    x = x << 7 | (size_t)(b & 0x7f);
    if (b & 0x80) break;
  }
  return x;
}

static int tally(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L, (void)p;
  *(size_t *)ud += n;
  return 0;
}

static int store(lua_State *L, const void *p, size_t n, void *ud) {
  unsigned char **to = ud;
  (void)L;
  if (n > 0) memcpy(*to, p, n);
  *to += n;
  return 0;
}

/* up to the constants; their number */
static size_t header(Reader *r) {
  static const unsigned char start[] = {0x1b, 'L',  'u',  'a',  0x54,
                                        0,    0x19, 0x93, '\r', '\n',
                                        0x1a, '\n', 4,    8,    8};
  const unsigned char *p = bytes(r, sizeof start);
  size_t n;
  if (p == NULL || memcmp(p, start, sizeof start) != 0 ||
      sizeof(lua_Integer) != 8 || sizeof(lua_Number) != 8) {
    r->p = NULL;
    return 0;
  }
  bytes(r, 8 + 8 + 1); /* LUAC_INT, LUAC_NUM, number of upvalues */
  n = size(r);         /* of the source, and 1 */
  if (n > 0) bytes(r, n - 1);
  size(r), size(r); /* lines */
  bytes(r, 3);      /* parameters, vararg, registers */
  n = size(r);
  if (n > SIZE_MAX / sizeof(Instruction)) r->p = NULL;
  bytes(r, n * sizeof(Instruction));
  n = size(r);
  if (r->p != NULL && n > (size_t)(r->end - r->p)) r->p = NULL;
  return r->p == NULL ? 0 : n;
}

static int konstof(Reader *r, Konst *k) {
  lua_Integer i;
  const unsigned char *p;
  size_t n;
  k->number = 0;
  switch (byte(r)) {
  case 0:  /* nil */
  case 1:  /* false */
  case 17: /* true */
    break;
  case 3: /* integer */
    if ((p = bytes(r, sizeof i)) == NULL) break;
    memcpy(&i, p, sizeof i);
    k->x = (double)i;
    k->number = 1;
    break;
  case 19: /* float */
    if ((p = bytes(r, sizeof k->x)) == NULL) break;
    memcpy(&k->x, p, sizeof k->x);
    k->number = 1;
    break;
  case 4: /* strings */
  case 20:
    n = size(r);
    if (n > 0) bytes(r, n - 1);
    break;
  default:
    r->p = NULL;
  }
  return r->p != NULL;
}

/* pushes those of the function at the top, as far as they can be read */
static Konsts *konsts(lua_State *L) {
  const int f = lua_gettop(L);
  size_t length = 0, n;
  unsigned char *p, *to;
  Konsts *k;
  Reader r;
  lua_dump(L, tally, &length, 1);
  p = to = lua_newuserdatauv(L, length + 1, 0);
  lua_pushvalue(L, f);
  lua_dump(L, store, &to, 1);
  lua_pop(L, 1);
  r.p = p;
  r.end = p + length;
  n = header(&r);
  k = lua_newuserdatauv(L, sizeof *k + n * sizeof(Konst), 0);
  k->n = 0;
  while (k->n < n && konstof(&r, &k->k[k->n])) k->n++;
  lua_replace(L, f + 1);
  return k;
}

/*
** Constant number i of the running function; 0: it is no number. One that is
** unknown is NaN: then the value itself is guarded.
*/
static int constant(lua_State *L, lua_Debug *ar, const Recorder *r, int i,
                    double *x) {
  const Konsts *k;
  const int top = lua_gettop(L);
  ad_checkstack(L, 10, NULL);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &r->frame);
  lua_getinfo(L, "f", ar);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, top + 1) == LUA_TUSERDATA)
    k = lua_touserdata(L, -1);
  else {
    lua_pop(L, 1);
    k = konsts(L);
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, top + 1);
  }
  *x = 0;
  *x = (size_t)i < k->n ? k->k[i].x : 0.0 / *x;
  i = (size_t)i >= k->n || k->k[i].number;
  lua_settop(L, top);
  return i;
}

/*
** The watch
*/

/* pushes a register; the type of what is in it */
static int pushregister(lua_State *L, lua_Debug *ar, int reg) {
  if (lua_getlocal(L, ar, reg + 1) == NULL) lua_pushnil(L);
  return lua_type(L, -1);
}

/* the recorded value at idx, if it stands for a number. Where that cannot be
   told (in a gradient), f ends here: it could go on for ever */
static const Cell *ours(lua_State *L, const State *S, int idx) {
  const Cell *c = ad_tocell(L, S, idx);
  if (c != NULL && ad_recplain(S, c)) return c;
  if (S->recorder->failed != NULL && ad_compiling(S)->isgrad)
    luaL_error(L, "%s", S->recorder->failed);
  return NULL;
}

/* the recorder; no hook where there is none any more (a coroutine of f's) */
static State *recording(lua_State *L) {
  State *S = ad_getstate(L);
  if (S != NULL && S->recorder != NULL) return S;
  if (S != NULL)
    lua_sethook(L, S->hook, S->hookmask, S->hookcount);
  else
    lua_sethook(L, NULL, 0, 0);
  return NULL;
}

/* the register gets the number that the recorded value is */
static void unrecord(lua_State *L, State *S, lua_Debug *ar, int reg,
                     const Cell *c) {
  if (ad_recordsint(S, c))
    lua_pushinteger(L, (lua_Integer)c->value);
  else
    lua_pushnumber(L, c->value);
  if (lua_setlocal(L, ar, reg + 1) == NULL) lua_pop(L, 1);
}

/* what is compared, or a key: is it a copy that f got as an argument? Then
   it is not the table that it stands for */
static void isargument(lua_State *L, int idx) {
  State *S;
  if (lua_type(L, idx) != LUA_TTABLE || (S = recording(L)) == NULL ||
      S->recorder->root->in.numbers)
    return;
  lua_pushvalue(L, idx);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &S->recorder->frame);
  lua_insert(L, -2);
  if (lua_rawget(L, -2) != LUA_TNIL) S->recorder->doubt = 1;
  lua_pop(L, 2);
}

/* a register that may hold a counter gets its number */
static void plain(lua_State *L, lua_Debug *ar, int reg) {
  State *S;
  const Cell *c;
  if (pushregister(L, ar, reg) == LUA_TUSERDATA && (S = recording(L)) != NULL &&
      S->recorder->counters && (c = ad_tocell(L, S, -1)) != NULL &&
      ad_iscounter(S, c) && !ad_isstale(S, c)) {
    ad_recordlook(L, S, c);
    unrecord(L, S, ar, reg, c);
  }
  lua_pop(L, 1);
}

/* a register that is a key, if what is in the other is a table */
static void key(lua_State *L, lua_Debug *ar, int table, int reg) {
  const int type = pushregister(L, ar, reg);
  State *S;
  const Cell *c;
  isargument(L, -1);
  if (type == LUA_TUSERDATA && pushregister(L, ar, table) == LUA_TTABLE &&
      (S = recording(L)) != NULL && (c = ours(L, S, -2)) != NULL) {
    ad_recordlook(L, S, c);
    unrecord(L, S, ar, reg, c);
  } else
    plain(L, ar, reg);
}

/* register 'reg', whose recorded value is at 'idx', is compared with y */
static void equality(lua_State *L, State *S, lua_Debug *ar, int reg, int idx,
                     double y) {
  const Cell *c = ours(L, S, idx);
  if (c == NULL) return;
  ad_checkstack(L, 20, NULL);
  if (!ad_recordif(L, S, P_EQ, ad_at(idx), ad_num(y))) return;
  if (y == 0) ad_recordlook(L, S, c); /* there are two of it */
  unrecord(L, S, ar, reg, c);
}

static void registers(lua_State *L, lua_Debug *ar, int a, int b) {
  const int ta = pushregister(L, ar, a), tb = pushregister(L, ar, b);
  const int top = lua_gettop(L);
  State *S;
  if (ta == LUA_TTABLE && tb == LUA_TTABLE) {
    isargument(L, top - 1);
    isargument(L, top);
  }
  if ((ta != LUA_TUSERDATA && tb != LUA_TUSERDATA) ||
      (S = recording(L)) == NULL)
    return;
  if (ta == LUA_TUSERDATA && tb == LUA_TNUMBER)
    equality(L, S, ar, a, top - 1, lua_tonumber(L, top));
  else if (tb == LUA_TUSERDATA && ta == LUA_TNUMBER)
    equality(L, S, ar, b, top, lua_tonumber(L, top - 1));
  else if (lua_rawequal(L, top, top - 1) && ours(L, S, top)) {
    const Cell *c = ours(L, S, top); /* is it NaN? */
    ad_checkstack(L, 20, NULL);
    if (!ad_recordif(L, S, P_EQ, ad_at(top), ad_at(top)))
      unrecord(L, S, ar, a, c);
  }
}

static void withconstant(lua_State *L, lua_Debug *ar, Instruction i) {
  State *S;
  const Cell *c;
  double y = SBOF(i);
  if (pushregister(L, ar, AOF(i)) != LUA_TUSERDATA ||
      (S = recording(L)) == NULL)
    return;
  if (OPOF(i) == I_EQK && !constant(L, ar, S->recorder, BOF(i), &y)) return;
  if ((c = ours(L, S, -1)) == NULL) return;
  if (OPOF(i) == I_EQK) {
    if (y != y) {
      ad_recordlook(L, S, c);
      unrecord(L, S, ar, AOF(i), c);
      return;
    }
  }
  equality(L, S, ar, AOF(i), lua_gettop(L), y);
}

/*
** Functions of Lua's libraries that look at values in the same way, and where
** the one in question is among their arguments.
*/
enum {
  W_EQUAL,   /* compares it with the next one */
  W_VALUE,   /* what it is matters */
  W_KIND,    /* only that it is a number matters */
  W_SUBTYPE, /* ... and of which subtype */
  W_CALL,    /* it is a function that is called with the next ones */
  W_CATCH,   /* as W_CALL, but ends with their errors */
  W_MOVE     /* does nothing with what is in a table */
};

static const struct {
  const char *lib, *name;
  int what, arg;
} known[AD_NLIBRARY] = {
    {"_G", "rawequal", W_EQUAL, 1},      {"_G", "pcall", W_CALL, 1},
    {"_G", "rawget", W_VALUE, 2},        {"_G", "rawset", W_VALUE, 2},
    {"_G", "tonumber", W_VALUE, 1},      {"_G", "getmetatable", W_KIND, 1},
    {"_G", "type", W_KIND, 1},           {"math", "tointeger", W_VALUE, 1},
    {"math", "type", W_SUBTYPE, 1},      {"_G", "xpcall", W_CATCH, 1},
    {"coroutine", "resume", W_CATCH, 1}, {"_G", "next", W_MOVE, 1},
    {"_G", "pairs", W_MOVE, 1},          {"_G", "ipairs", W_MOVE, 1},
    {"_G", "setmetatable", W_MOVE, 1},   {"table", "insert", W_MOVE, 1},
    {"_G", "error", W_MOVE, 1},          {"_G", "assert", W_MOVE, 1},
    {"table", "remove", W_MOVE, 1},      {"table", "unpack", W_MOVE, 1}};

/*
** Functions that do the same with a recorded value as with a number, or raise
** an error, beside the library's own: 1, or 2 where the order of keys matters.
*/
static const char harmlesskey = 0; /* its address is a key in the registry */

static void harmless(lua_State *L) {
  static const char *const lib[] = {"math", "string", "table", "utf8"};
  static const char *const base[] = {
      "next",  "pairs",  "assert", "error",        "ipairs",
      "print", "rawlen", "select", "setmetatable", "tostring"};
  const int set = lua_gettop(L) + 2;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_newtable(L);
  for (int k = 0; k < (int)(sizeof lib / sizeof *lib); k++) {
    lua_pushstring(L, lib[k]);
    if (lua_rawget(L, set - 1) == LUA_TTABLE) {
      lua_pushnil(L);
      while (lua_next(L, -2))
        if (lua_iscfunction(L, -1) && lua_type(L, -2) == LUA_TSTRING) {
          lua_pushinteger(L, strncmp(lua_tostring(L, -2), "random", 6) != 0);
          lua_rawset(L, set);
        } else
          lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pushliteral(L, "_G");
  if (lua_rawget(L, set - 1) == LUA_TTABLE)
    for (int k = 0; k < (int)(sizeof base / sizeof *base); k++) {
      lua_pushstring(L, base[k]);
      if (lua_rawget(L, -2) == LUA_TFUNCTION) {
        lua_pushinteger(L, !lua_iscfunction(L, -1) ? 0 : k < 2 ? 2 : 1);
        lua_rawset(L, set);
      } else
        lua_pop(L, 1);
    }
  lua_settop(L, set);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &harmlesskey);
  lua_pop(L, 1);
}

/* what is at the top: is it a function of Lua, or one of our own? */
int ad_watchable(lua_State *L, const State *S) {
  int is = lua_type(L, -1) == LUA_TFUNCTION;
  if (is && lua_iscfunction(L, -1)) {
    is = lua_getupvalue(L, -1, 1) != NULL;
    if (is) {
      is = lua_touserdata(L, -1) == S;
      lua_pop(L, 1);
    }
  }
  return is;
}

/* the function at the top is called; is it one of those, or of our own? */
static int isharmless(lua_State *L, const State *S) {
  const int f = lua_gettop(L);
  int is;
  ad_checkstack(L, 5, NULL);
  is = ad_watchable(L, S);
  if (!is) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &harmlesskey);
    lua_pushvalue(L, f);
    lua_rawget(L, -2);
    is = (int)lua_tointeger(L, -1);
    if (is == 2) is = !S->recorder->order;
  }
  lua_settop(L, f);
  return is;
}

/* is there a counter in the table at the top, or more than can be looked at? */
static int hascounter(lua_State *L, const State *S, int depth, int *left) {
  int has = 0;
  if (depth == MAXDEEP) return 1;
  ad_checkstack(L, 6, NULL);
  lua_pushnil(L);
  while (!has && lua_next(L, -2)) {
    const Cell *c = ad_tocell(L, S, -1);
    has = --*left < 0 || (c != NULL && ad_iscounter(S, c)) ||
          (lua_type(L, -1) == LUA_TTABLE && hascounter(L, S, depth + 1, left));
    lua_pop(L, 1);
  }
  if (has) lua_pop(L, 1);
  return has;
}

/* is there a function of Lua in the register? It is watched itself */
static int islua(lua_State *L, lua_Debug *ar, int reg) {
  const int is =
      pushregister(L, ar, reg) == LUA_TFUNCTION && !lua_iscfunction(L, -1);
  lua_pop(L, 1);
  return is;
}

/*
** How many arguments go to the call of register 'a' whose instruction does not
** say so? As many as '...' has; or, of the results of another call, at most
** what there is room for.
*/
static int arguments(lua_State *L, lua_Debug *ar, int a, int top) {
  const Instruction i = next(ar)[-2];
  int n = 0;
  if (OPOF(i) != I_VARARG) return top - a - 1;
  while (lua_getlocal(L, ar, -1 - n) != NULL) {
    lua_pop(L, 1);
    n++;
  }
  return AOF(i) + n - a - 1;
}

/*
** While there are counters: the function in register 'a' is called, with n
** arguments (-1: see above). Of a function of C they get numbers,
** but where it takes recorded values for numbers. An error that it raises as
** there are counters is not to be caught.
*/
static void callcounters(lua_State *L, State *S, lua_Debug *ar, int a, int n) {
  const int top = lua_gettop(L);
  lua_CFunction f;
  int k = 0, what = -1;
  pushregister(L, ar, a);
  f = lua_tocfunction(L, -1);
  while (k < AD_NLIBRARY && f != S->recorder->library[k]) k++;
  if (f != NULL && k < AD_NLIBRARY) what = known[k].what;
  if (what == W_CATCH || what == W_CALL)
    ad_giveup(L, S, "f catches errors while it counts");
  if (what == W_KIND || what == W_SUBTYPE ||
      (f != NULL && (ad_iselementary(f) || ad_iscomparison(f)))) {
    lua_settop(L, top);
    return;
  }
  if (n < 0) n = arguments(L, ar, a, top);
  for (int i = 1; i <= n; i++) {
    int left = MAXWIDE;
    plain(L, ar, a + i);
    if (what != W_MOVE && what != W_VALUE &&
        pushregister(L, ar, a + i) == LUA_TTABLE && hascounter(L, S, 0, &left))
      ad_giveup(L, S, "f gives what it counts to a function of C");
    lua_settop(L, top);
  }
}

static void call(lua_State *L, lua_Debug *ar, int a, int n) {
  State *S;
  const Cell *c;
  lua_CFunction f;
  int k;
  if (islua(L, ar, a) || (S = recording(L)) == NULL) return;
  if (S->recorder->counters) callcounters(L, S, ar, a, n);
  do {
    if (pushregister(L, ar, a) != LUA_TFUNCTION ||
        (f = lua_tocfunction(L, -1)) == NULL)
      return;
    for (k = 0; k < AD_NLIBRARY && f != S->recorder->library[k];) k++;
    if (k == AD_NLIBRARY || known[k].what == W_CATCH ||
        known[k].what == W_MOVE) {
      if (!isharmless(L, S)) S->recorder->doubt = 1;
      return;
    }
    lua_pop(L, 1);
    if (known[k].what == W_CALL) S->recorder->doubt = 1; /* hides errors */
    a += known[k].arg;
  } while (known[k].what == W_CALL);
  if (known[k].what == W_EQUAL) {
    registers(L, ar, a, a + 1);
    return;
  }
  if (pushregister(L, ar, a) != LUA_TUSERDATA || (c = ours(L, S, -1)) == NULL)
    return;
  if (known[k].what == W_VALUE) ad_recordlook(L, S, c);
  if (known[k].what == W_SUBTYPE && !ad_iscounter(S, c)) ad_recordsubtypes(S);
  if (known[k].what != W_KIND)
    unrecord(L, S, ar, a, c);
  else {
    lua_pushnumber(L, c->value);
    if (lua_setlocal(L, ar, a + 1) == NULL) lua_pop(L, 1);
  }
}

/* FORLOOP has run, see counters.c */
static void afterloop(lua_State *L, lua_Debug *ar);

/* the state is in registers a .. */
static void forloop(lua_State *L, lua_Debug *ar, int a) {
  State *S = recording(L);
  if (S != NULL && S->recorder->counters && ad_forloop(L, S, ar, a)) {
    S->recorder->forloop = a;
    lua_sethook(L, afterloop, S->hookmask | LUA_MASKCOUNT, 1);
  }
}

static void forprep(lua_State *L, lua_Debug *ar, int a) {
  State *S = recording(L);
  if (S == NULL || !S->recorder->counters) return;
  for (int i = 0; i < 3; i++) plain(L, ar, a + i);
  ad_dropfor(ad_compiling(S), ar->i_ci, a);
}

static void look(lua_State *L, lua_Debug *ar) {
  const int top = lua_gettop(L);
  const Instruction i = next(ar)[-1];
  switch (OPOF(i)) {
  case I_EQ:
    registers(L, ar, AOF(i), BOF(i));
    break;
  case I_EQK:
  case I_EQI:
    withconstant(L, ar, i);
    break;
  case I_GETTABLE:
    key(L, ar, BOF(i), COF(i));
    break;
  case I_SETTABLE:
    key(L, ar, AOF(i), BOF(i));
    break;
  case I_CALL:
  case I_TAILCALL:
    call(L, ar, AOF(i), BOF(i) - 1);
    break;
  case I_BAND:
  case I_BOR:
  case I_BXOR:
  case I_SHL:
  case I_SHR:
    plain(L, ar, COF(i));
    /* FALLTHROUGH */
  case I_BANDK:
  case I_BORK:
  case I_BXORK:
  case I_SHRI:
  case I_SHLI:
  case I_BNOT:
    plain(L, ar, BOF(i));
    break;
  case I_FORPREP:
    forprep(L, ar, AOF(i));
    break;
  case I_FORLOOP:
    forloop(L, ar, AOF(i));
    break;
  case I_TFORPREP:
  case I_TFORCALL:
    if (!islua(L, ar, AOF(i)))
      for (int k = 1; k <= 2; k++) plain(L, ar, AOF(i) + k);
    break;
  default:
    return;
  }
  lua_settop(L, top);
}

/* the same where there is a hook already, which goes on */
static void both(lua_State *L, lua_Debug *ar) {
  State *S = ad_getstate(L);
  const int event = ar->event == LUA_HOOKTAILCALL ? LUA_HOOKCALL : ar->event;
  if (event == LUA_HOOKCOUNT) {
    look(L, ar);
    if (!(S->hookmask & LUA_MASKCOUNT) || --S->hookleft > 0) return;
    S->hookleft = S->hookcount;
  } else if (!(S->hookmask & 1 << event))
    return;
  if (S->hook != NULL) S->hook(L, ar);
}

static void afterloop(lua_State *L, lua_Debug *ar) {
  State *S = recording(L);
  const lua_Hook h = S != NULL && S->hook ? both : look;
  if (S == NULL) return;
  if (ar->event == LUA_HOOKCOUNT) {
    const int a = S->recorder->forloop;
    lua_sethook(L, h, S->hookmask | LUA_MASKCOUNT, 1);
    if (ad_pushindex(L, S, ar->i_ci, a) && lua_setlocal(L, ar, a + 4) == NULL)
      lua_pop(L, 1);
  }
  h(L, ar);
}

static void library(lua_State *L, Recorder *r) {
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (int k = 0; k < AD_NLIBRARY; k++) {
    r->library[k] = NULL;
    lua_pushstring(L, known[k].lib);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
      lua_pushstring(L, known[k].name);
      lua_rawget(L, -2);
      r->library[k] = lua_tocfunction(L, -1);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* is this Lua as it should be? If not, f cannot be recorded: its own
   comparisons might go on for ever */
int ad_canwatch(lua_State *L, State *S) {
  if (!S->triedwatch) {
    S->canwatch = (uint8_t)trial(L);
    harmless(L);
    S->triedwatch = 1;
  }
  return S->canwatch;
}

/* where a function of Lua is, to the instruction; NULL: nobody can tell */
const void *ad_watchplace(const State *S, const lua_Debug *ar) {
  return S->canwatch ? next(ar) : NULL;
}

/* what may fail is here: nothing can from ad_watchbegin to ad_watchend */
void ad_watchready(lua_State *L, Recorder *r) {
  library(L, r);
  lua_newtable(L); /* constants by function */
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &r->frame);
}

void ad_watchbegin(lua_State *L, State *S) {
  S->hook = lua_gethook(L);
  S->hookmask = lua_gethookmask(L);
  S->hookcount = S->hookleft = lua_gethookcount(L);
  lua_sethook(L, S->hook ? both : look, S->hookmask | LUA_MASKCOUNT, 1);
}

/* f may have set a hook of its own */
void ad_watchend(lua_State *L, State *S) {
  const lua_Hook h = lua_gethook(L);
  if (h == look || h == both || h == afterloop)
    lua_sethook(L, S->hook, S->hookmask, S->hookcount);
}
