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
**      31      24 23      16 15 14       7 6       0
**      [    C    |     B    |k |    A     |   op   ]
*/
#include <string.h>

#include "compile.h"

#ifndef WORD   /* watch_test.c has others */
#define WORD 4 /* of CallInfo */
#endif
#define MAXTRIED 48 /* instructions of the chunk: there are some 20 */

typedef uint32_t Instruction;

enum {
  I_GETTABLE = 12, /* A B C    R[A] := R[B][R[C]] */
  I_SETTABLE = 16, /* A B C    R[A][R[B]] := RK(C) */
  I_EQ = 57,       /* A B k    if ((R[A] == R[B]) ~= k) then pc++ */
  I_EQK = 60,      /* A B k    if ((R[A] == K[B]) ~= k) then pc++ */
  I_EQI = 61,      /* A sB k   if ((R[A] == sB) ~= k) then pc++ */
  I_CALL = 68,     /* A B C    R[A], ... := R[A](R[A+1], ...) */
  I_TAILCALL = 69
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
** The trial
*/

#ifndef CHUNK
#define CHUNK                                                                  \
  "local a, b, t, f = ...\n"                                                   \
  "local x = a == b\n"                                                         \
  "x = a == 7\n"                                                               \
  "x = a == 0.5\n"                                                             \
  "x = t[b]\n"                                                                 \
  "t[b] = a\n"                                                                 \
  "x = f(a)\n"                                                                 \
  "return f(a)\n"
#endif

static const struct {
  uint8_t op, a, b, c;
  uint8_t fields; /* which of them are known: 1 a, 2 b, 4 c */
} expected[] = {{I_EQ, 0, 1, 0, 3},       {I_EQI, 0, 7 + 127, 0, 3},
                {I_EQK, 0, 0, 0, 1},      {I_GETTABLE, 4, 2, 1, 7},
                {I_SETTABLE, 2, 1, 0, 7}, {I_CALL, 5, 2, 2, 7},
                {I_TAILCALL, 5, 2, 0, 3}};

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
    if (p <= q || p - q > 3 * sizeof(Instruction) ||
        (p - q) % sizeof(Instruction) != 0)
      return 0;
  }
  for (int k = 0; k < nexpected; k++) {
    int found = 0;
    for (int i = 0; i < t->n; i++) {
      const Instruction x = t->at[i][-1];
      if (OPOF(x) != expected[k].op) continue;
      if (t->line[i] != k + 2) return 0;
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
  lua_xmove(L, co, 5);
  lua_pushvalue(L, top + 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &trialkey);
  lua_sethook(co, tried, LUA_MASKCOUNT, 1);
  status = lua_resume(co, L, 4, &nres);
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
  }
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
  W_CALL     /* it is a function that is called with the next ones */
};

static const struct {
  const char *lib, *name;
  int what, arg;
} known[AD_NLIBRARY] = {
    {"_G", "rawequal", W_EQUAL, 1}, {"_G", "pcall", W_CALL, 1},
    {"_G", "rawget", W_VALUE, 2},   {"_G", "rawset", W_VALUE, 2},
    {"_G", "tonumber", W_VALUE, 1}, {"_G", "getmetatable", W_KIND, 1},
    {"_G", "type", W_KIND, 1},      {"math", "tointeger", W_VALUE, 1},
    {"math", "type", W_SUBTYPE, 1}};

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

static void call(lua_State *L, lua_Debug *ar, int a) {
  State *S;
  const Cell *c;
  lua_CFunction f;
  int k;
  do {
    if (pushregister(L, ar, a) != LUA_TFUNCTION ||
        (f = lua_tocfunction(L, -1)) == NULL || (S = recording(L)) == NULL)
      return;
    for (k = 0; k < AD_NLIBRARY && f != S->recorder->library[k];) k++;
    if (k == AD_NLIBRARY) {
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
  if (known[k].what == W_SUBTYPE) ad_recordsubtypes(S);
  if (known[k].what != W_KIND)
    unrecord(L, S, ar, a, c);
  else {
    lua_pushnumber(L, c->value);
    if (lua_setlocal(L, ar, a + 1) == NULL) lua_pop(L, 1);
  }
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
    call(L, ar, AOF(i));
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
  if (h == look || h == both)
    lua_sethook(L, S->hook, S->hookmask, S->hookcount);
}
