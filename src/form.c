/*
** form.c
** Forms: what is known of the arguments and results of a compiled function
** beside their numbers; and structures taken apart and put together by them.
*/
#include "compile.h"

#include <math.h>
#include <string.h>

void ad_formfree(lua_State *L, Form *f) {
  ad_realloc(L, f->word, f->cap * sizeof *f->word, 0);
  memset(f, 0, sizeof *f);
}

void ad_formword(lua_State *L, Form *f, uint32_t w) {
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
uint32_t ad_formconst(lua_State *L, Compiled *c, int self) {
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
int ad_isresource(lua_State *L, int idx) {
  if (luaL_getmetafield(L, idx, "__gc") == LUA_TNIL) return 0;
  lua_pop(L, 1);
  return 1;
}

/* 0: no integer; 1: an integer; AD_HUGEINT: one that may not be any float */

uint8_t ad_intkind(lua_State *L, int idx) {
  const lua_Integer most = (lua_Integer)1 << 53;
  lua_Integer i;
  if (!lua_isinteger(L, idx)) return 0;
  i = lua_tointeger(L, idx);
  return -most <= i && i <= most ? 1 : AD_HUGEINT;
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


/* the table at the top: see compile.h */
static void taketable(lua_State *L, Taker *t, int depth) {
  const int table = lua_gettop(L);
  const lua_Unsigned len = lua_rawlen(L, table);
  uint32_t seq = 0, item = 0, at;
  int all = 1;
  if (depth > AD_MAXFORM)
    ad_error(L, "compile: a structure contains itself, or is nested too deep");
  ad_checkstack(L, 12, "structure is nested too deep");
  ad_formword(L, t->form, F_TABLE);
  if (!lua_getmetatable(L, table)) lua_pushnil(L);
  ad_formword(L, t->form, ad_formconst(L, t->c, t->self));
  at = t->form->n;
  for (int i = 0; i < 3; i++) ad_formword(L, t->form, 0);
  for (lua_Unsigned i = 1; i <= len && i < P_MAXINS; i++) {
    const int type = lua_rawgeti(L, table, (lua_Integer)i);
    if (type == LUA_TNIL) {
      lua_pop(L, 1);
      break;
    }
    seq++;
    if (all) {
      const uint32_t before = t->form->n;
      ad_formtake(L, t, depth + 1);
      /* F_NUM: no word for it */
      if (t->form->n == before + 1 && t->form->word[before] == F_NUM)
        t->form->n = before;
      else { /* the words that were left out */
        const uint32_t more = t->form->n - before;
        all = 0;
        for (uint32_t k = 1; k < seq; k++) ad_formword(L, t->form, F_NUM);
        memmove(t->form->word + before + seq - 1, t->form->word + before,
                more * sizeof *t->form->word);
        for (uint32_t k = 1; k < seq; k++)
          t->form->word[before + k - 1] = F_NUM;
      }
    } else
      ad_formtake(L, t, depth + 1);
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
    ad_formword(L, t->form, ad_formconst(L, t->c, t->self));
    ad_formtake(L, t, depth + 1);
  }
  t->form->word[at] = seq;
  t->form->word[at + 1] = (uint32_t)all;
  t->form->word[at + 2] = item;
  lua_pop(L, 1);
}

/* appends the value at the top, which is popped, to a form */
void ad_formtake(lua_State *L, Taker *t, int depth) {
  State *S = t->c->S;
  const int type = lua_type(L, -1);
  const Cell *c;
  if (type == LUA_TTABLE && !ad_isresource(L, -1)) {
    taketable(L, t, depth);
    return;
  }
  if (type == LUA_TNUMBER && !t->results &&
      !(t->fixedints && lua_isinteger(L, -1))) {
    if (lua_isinteger(L, -1)) t->integers = 1;
    if (ad_intkind(L, -1) == AD_HUGEINT) t->foreign = 1;
    t->form->nleaf++;
    ad_formword(L, t->form, F_NUM);
    lua_pop(L, 1);
    return;
  }
  if (type == LUA_TUSERDATA && !t->results && ad_arrayhere(L, S, -1)) {
    const Array *array = lua_touserdata(L, -1);
    t->form->nleaf++;
    t->form->narray++;
    ad_formword(L, t->form, F_ARRAY);
    ad_formword(L, t->form, (uint32_t)array->ndim);
    for (int d = 0; d < array->ndim; d++) {
      ad_formword(L, t->form, (uint32_t)array->shape[d]);
      ad_formword(L, t->form, (uint32_t)((uint64_t)array->shape[d] >> 32));
    }
    lua_pop(L, 1);
    return;
  }
  /* what is differentiated is the first number in the program's results */
  if (type == LUA_TNUMBER && t->results && t->c->isgrad && t->form->n == 0) {
    const uint8_t kind = ad_intkind(L, -1);
    uint32_t ref;
    if (kind == AD_HUGEINT) ad_recordfail(S, AD_OPAQUE);
    AD_UNTIL(ref, ad_progconst(ad_recprog(S), lua_tonumber(L, -1)));
    t->form->nleaf++;
    leafref(L, t, ref);
    ad_formword(L, t->form, kind ? F_INT : F_NUM);
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
    ad_formword(L, t->form, F_ARRAY);
    ad_formword(L, t->form, 0);
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
        ad_recordfail(S, "f returns an array of a transform that has ended");
    } else if (a.key == 0) { /* what has come to be a number */
      if (!t->results) t->foreign = 1;
      lua_pushnumber(L, a.v.n);
      lua_replace(L, top);
    } else if (t->results && AD_ISREC(a.kind)) {
      if (t->c->rec.looped && ad_isstale(S, c))
        ad_recordfail(S, "f returns values of several rounds of a loop");
      t->form->nleaf++;
      leafref(L, t, c->u.var.node);
      if (a.kind == AD_RECA) {
        t->form->narray++;
        ad_formword(L, t->form, F_ARRAY);
        ad_formword(L, t->form, 0);
      } else
        ad_formword(L, t->form, ad_recordedint(S, c) ? F_INT : F_NUM);
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
    ad_recordfail(S, "f returns a function or an object that it may have made");
  ad_formword(L, t->form, F_CONST);
  ad_formword(L, t->form, ad_formconst(L, t->c, t->self));
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
int ad_formmatch(lua_State *L, const State *S, int consts, const Form *f,
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
      same = ad_formmatch(L, S, consts, f, at, leaf, in, lua_gettop(L));
    lua_pop(L, 1);
    if (!same) return 0;
  }
  for (uint32_t i = 0; i < item; i++) {
    int same;
    lua_rawgeti(L, consts, f->word[(*at)++]);
    lua_rawget(L, idx);
    same = ad_formmatch(L, S, consts, f, at, leaf, in, lua_gettop(L));
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
uint8_t ad_allnumbers(const Form *f) {
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

void ad_pushvalues(lua_State *L, int self, Root *r, const Form *f,
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
  ad_pushvalues(L, self, NULL, f, x, out, NULL);
}

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
