/*
** value.c
** The values that Lua sees: taking them apart, making them, and the
** metamethods that compute nothing.
*/
#include "array.h"
#include "program.h"

#include <stdio.h>
#include <string.h>

/*
** Taking apart
*/

/* the value at an index when it is one of ours, else NULL */
Cell *ad_tocell(lua_State *L, const State *S, int idx) {
  const void *mt;
  if (lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
    return NULL;
  mt = lua_topointer(L, -1);
  lua_pop(L, 1); /* metatable */
  if (mt == S->mtp[AD_MTVAR] || mt == S->mtp[AD_MTDUAL] ||
      mt == S->mtp[AD_MTSER] || mt == S->mtp[AD_MTREC] ||
      mt == S->mtp[AD_MTBATCH])
    return lua_touserdata(L, idx);
  return NULL;
}

void ad_pushval(lua_State *L, val v) {
  if (v.i == 0)
    lua_pushnumber(L, v.n);
  else
    lua_pushvalue(L, v.i);
}

val ad_valat(lua_State *L, int idx) {
  if (lua_type(L, idx) == LUA_TNUMBER) return ad_num(lua_tonumber(L, idx));
  return ad_at(lua_absindex(L, idx));
}

/* the top of the stack: a number is popped, anything else stays */
val ad_takeval(lua_State *L) {
  if (lua_type(L, -1) == LUA_TNUMBER) {
    val v = ad_num(lua_tonumber(L, -1));
    lua_pop(L, 1);
    return v;
  }
  return ad_at(lua_gettop(L));
}

/*
** What an operand is to an operation: values whose level is gone or paused
** are replaced by their primals. The value is known to be a number or one of
** ours. May push.
*/
void ad_resolve(lua_State *L, State *S, int idx, Arg *a) {
  const int given = idx = lua_absindex(L, idx);
  for (;;) {
    Cell *c = lua_touserdata(L, idx);
    a->key = 0;
    a->lv = NULL;
    if (c == NULL) {
      a->v = ad_num(lua_tonumber(L, idx));
      return;
    }
    a->c = c;
    a->v = ad_at(idx);
    if (ad_isarray(c)) return; /* plain */
    a->kind = ad_kindof(S, c);
    a->key = ad_keyof(S, c);
    if (ad_islive(S, c, a->key, &a->lv)) return;
    if (!AD_GENERALKIND(a->kind)) {
      a->v = ad_num(c->value);
      a->key = 0;
      return;
    }
    lua_getiuservalue(L, idx, 1);
    if (idx != given)
      lua_replace(L, idx); /* one slot, however many levels are gone */
    else
      idx = lua_gettop(L);
  }
}

void ad_resolveval(lua_State *L, State *S, val v, Arg *a) {
  if (v.i == 0) {
    a->v = v;
    a->key = 0;
    a->lv = NULL;
  } else
    ad_resolve(L, S, v.i, a);
}

/* the primal of an operand; may push it */
val ad_primalof(lua_State *L, const Arg *a) {
  if (a->key == 0) return a->v;
  if (!AD_GENERALKIND(a->kind)) return ad_num(a->c->value);
  lua_getiuservalue(L, a->v.i, 1);
  return ad_takeval(L);
}

/* number of directions of a dual, highest order of a series */
int ad_nparts(lua_State *L, const Arg *a) {
  if (AD_GENERALKIND(a->kind)) return (int)a->c->u.var.node;
  return (int)((lua_rawlen(L, a->v.i) - AD_CELLHEAD) / sizeof(double));
}

/* tangent or coefficient k (from 1; 0 beyond the last); may push it */
val ad_part(lua_State *L, const Arg *a, int k) {
  if (a->key == 0 || k > ad_nparts(L, a)) return ad_num(0);
  if (!AD_GENERALKIND(a->kind)) return ad_num(a->c->u.part[k - 1]);
  lua_getiuservalue(L, a->v.i, k + 1);
  return ad_takeval(L);
}

static void ad_differs(lua_State *L) {
  ad_error(L, "vmap: one value is needed here, and this one differs along the "
              "batch: choose element by element, with where, lt, maximum ...");
}

/* is it the value of a batch, however it is differentiated? */
int ad_isbatch(lua_State *L, const State *S, int idx) {
  int is = 0;
  if (!S->arrays || lua_type(L, idx) != LUA_TUSERDATA) return 0;
  lua_pushvalue(L, idx);
  for (;;) {
    const Cell *c = ad_tocell(L, S, -1);
    if (c == NULL || !AD_GENERALKIND(ad_kindof(S, c))) break;
    is = ad_kindof(S, c) == AD_BATCH;
    if (is) break;
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return is;
}

/*
** The plain primal of a number or AD value. Whoever asks for it may do
** anything with it: a program that is recorded is then for this value only.
*/
double ad_plain(lua_State *L, State *S, int idx) {
  const Cell *top = lua_touserdata(L, idx);
  double n;
  if (top == NULL) return lua_tonumber(L, idx);
  if (!ad_isarray(top) && !AD_GENERALKIND(ad_kindof(S, top))) {
    if (S->recorder) ad_recordlook(L, S, top);
    return top->value;
  }
  lua_pushvalue(L, idx);
  while (lua_type(L, -1) != LUA_TNUMBER) {
    const Cell *c = lua_touserdata(L, -1);
    if (ad_isarray(c)) ad_error(L, "number expected, got an array");
    if (ad_kindof(S, c) == AD_BATCH) ad_differs(L);
    if (!AD_GENERALKIND(ad_kindof(S, c))) {
      if (S->recorder) ad_recordlook(L, S, c);
      n = c->value;
      lua_pop(L, 1);
      return n;
    }
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
  }
  n = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return n;
}

double ad_plainval(lua_State *L, State *S, val v) {
  return v.i == 0 ? v.n : ad_plain(L, S, v.i);
}

/*
** What a value is without what differentiates it, as far as that can be had
** without looking: a plain value, that of a program that is being recorded,
** or that of a batch. May push.
*/
val ad_base(lua_State *L, State *S, val v) {
  Arg a;
  if (v.i == 0) return v;
  if (S->recorder == NULL && !S->arrays) return ad_num(ad_plain(L, S, v.i));
  for (;;) {
    ad_resolveval(L, S, v, &a);
    if (a.key == 0 || AD_ISREC(a.kind) || a.kind == AD_BATCH) return a.v;
    v = ad_primalof(L, &a);
  }
}

/* does a comparison of primals hold? */
int ad_holds(lua_State *L, State *S, int cmp, val x, val y) {
  if (S->recorder) {
    const int top = lua_gettop(L);
    int holds;
    ad_checkstack(L, 20, NULL);
    holds = ad_recordif(L, S, cmp, ad_base(L, S, x), ad_base(L, S, y));
    lua_settop(L, top);
    return holds;
  }
  return ad_compare(cmp, ad_plainval(L, S, x), ad_plainval(L, S, y));
}

/*
** Removes from the value at the top the level 'key' with all that was made
** by hand inside it, and levels that are gone. Other running levels stay.
*/
void ad_stripvalue(lua_State *L, State *S, uint64_t key) {
  for (;;) {
    const Cell *c = ad_tocell(L, S, -1);
    Level *lv;
    uint64_t k;
    if (c == NULL) return;
    k = ad_keyof(S, c);
    if (k != key &&
        (AD_SUB(key) != 0 || AD_TRANSFORM(k) != AD_TRANSFORM(key)) &&
        (ad_islive(S, c, k, &lv) || lv != NULL))
      return;
    if (AD_GENERALKIND(ad_kindof(S, c)))
      lua_getiuservalue(L, -1, 1);
    else if (S->recorder && ad_recordedint(S, c))
      lua_pushinteger(L, (lua_Integer)c->value);
    else
      lua_pushnumber(L, c->value);
    lua_remove(L, -2);
  }
}

/* an argument of a function: a number (or a string like one) or AD value */
val ad_checkarg(lua_State *L, State *S, int arg) {
  int isnum;
  double n = lua_tonumberx(L, arg, &isnum);
  if (isnum) return ad_num(n);
  if (ad_tocell(L, S, arg) == NULL) luaL_typeerror(L, arg, "number");
  return ad_at(arg);
}

/* the same, or an array */
val ad_checkoperand(lua_State *L, State *S, int arg) {
  return ad_arrayhere(L, S, arg) ? ad_at(arg) : ad_checkarg(L, S, arg);
}

/* an operand of an operator, with the error that Lua's own would raise */
val ad_operand(lua_State *L, State *S, int arg) {
  int isnum;
  double n = lua_tonumberx(L, arg, &isnum);
  if (isnum) return ad_num(n);
  if (ad_tocell(L, S, arg) == NULL && ad_arrayhere(L, S, arg) == NULL) {
    const char *name = luaL_typename(L, arg);
    if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING)
      name = lua_tostring(L, -1);
    luaL_error(L, "attempt to perform arithmetic on a %s value", name);
  }
  return ad_at(arg);
}

/*
** Making
*/

Cell *ad_newcell(lua_State *L, State *S, int mt, size_t size, int nuv) {
  Cell *c = lua_newuserdatauv(L, size, nuv);
  c->stamp = 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[mt]);
  lua_setmetatable(L, -2);
  return c;
}

/* a var without a node yet, which the caller gives it */
val ad_pushvar(lua_State *L, State *S, Level *lv, val primal, uint32_t node,
               int leaf) {
  int general = primal.i != 0;
  Cell *c = ad_newcell(L, S, AD_MTVAR, sizeof(Cell), general + leaf);
  c->value = primal.n;
  c->u.var.node = node;
  c->u.var.leaf = (uint32_t)leaf;
  if (general) {
    lua_pushvalue(L, primal.i);
    lua_setiuservalue(L, -2, 1);
  }
  c->stamp = ad_stamp(S, lv->key, general ? AD_VARG : AD_VARN);
  return ad_at(lua_gettop(L));
}

/* a dual or a series ('kind' is the numeric one) from its parts */
val ad_pushparts(lua_State *L, State *S, uint64_t key, int kind, val primal,
                 int n, const val *part) {
  int mt = AD_ISDUAL(kind) ? AD_MTDUAL : AD_MTSER, general = primal.i;
  Cell *c;
  for (int k = 0; k < n; k++) general |= part[k].i;
  if (!general) {
    c = ad_newcell(L, S, mt, AD_CELLHEAD + (size_t)n * sizeof(double), 0);
    c->value = primal.n;
    for (int k = 0; k < n; k++) c->u.part[k] = part[k].n;
    c->stamp = ad_stamp(S, key, kind);
  } else {
    c = ad_newcell(L, S, mt, sizeof(Cell), n + 1);
    c->u.var.node = (uint32_t)n;
    ad_pushval(L, primal);
    lua_setiuservalue(L, -2, 1);
    for (int k = 0; k < n; k++) {
      ad_pushval(L, part[k]);
      lua_setiuservalue(L, -2, k + 2);
    }
    c->stamp = ad_stamp(S, key, kind + 1);
  }
  return ad_at(lua_gettop(L));
}

/* a var that is an input of its level's tape */
val ad_leafvar(lua_State *L, State *S, Level *lv, val primal, int leaf) {
  val v;
  Cell *c;
  if (lv->kind == AD_GRAPH) ad_compact(L, lv);
  v = ad_pushvar(L, S, lv, primal, 0, leaf);
  c = lua_touserdata(L, v.i);
  if (!ad_taperoom(&lv->tape, 0)) ad_room(L, lv, 1, 0);
  if (ad_looked(lv)) {
    Note note;
    memset(&note, 0, sizeof note);
    note.kind = AD_NOTEINPUT;
    ad_noteresult(L, lv, &note, primal);
    ad_note(L, lv, &note);
  }
  if (lv->handles != LUA_NOREF) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->handles);
    lua_pushvalue(L, v.i);
    lua_rawseti(L, -2, (lua_Integer)lv->tape.nnode + 1);
    lua_pop(L, 1);
  }
  c->u.var.node = ad_tapeinput(&lv->tape);
  return v;
}

/*
** Metamethods
*/

/* ad.type(x) */
static int l_type(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c;
  luaL_checkany(L, 1);
  if (lua_type(L, 1) == LUA_TNUMBER)
    lua_pushliteral(L, "number");
  else if (ad_arrayhere(L, S, 1))
    lua_pushliteral(L, "array");
  else if ((c = ad_tocell(L, S, 1)) == NULL)
    luaL_pushfail(L);
  else if (ad_kindof(S, c) == AD_RECA)
    lua_pushliteral(L, "array");
  else if (AD_ISREC(ad_kindof(S, c)))
    lua_pushstring(L, ad_recordgrad(S) ? "var" : "number"); /* as it is when
                                                               nobody records */
  else if (AD_ISVAR(ad_kindof(S, c)))
    lua_pushliteral(L, "var");
  else if (ad_kindof(S, c) != AD_BATCH)
    lua_pushliteral(L, "dual");
  else if (ad_arrayvalued(L, S, 1))
    lua_pushliteral(L, "array");
  else
    lua_pushliteral(L, "number");
  return 1;
}

/* ad.value(x): every level stripped */
static int l_value(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c;
  double n;
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_settop(L, 1); /* integers stay integers */
    return 1;
  }
  if ((c = ad_tocell(L, S, 1)) == NULL && ad_arrayhere(L, S, 1) == NULL)
    return luaL_typeerror(L, 1, "number");
  if (S->arrays && ad_byelement(L, S, 1)) {
    if (ad_isbatch(L, S, 1)) ad_differs(L);
    if (S->recorder) ad_recordelements(L, S, 1);
    ad_pushplain(L, S, 1);
    return 1;
  }
  n = ad_plain(L, S, 1);
  if (S->recorder && ad_recordsint(S, c))
    lua_pushinteger(L, (lua_Integer)n);
  else
    lua_pushnumber(L, n);
  return 1;
}

static void pushpart(lua_State *L, State *S, int idx, int k) {
  Cell *c = lua_touserdata(L, idx);
  if (AD_GENERALKIND(ad_kindof(S, c)))
    lua_getiuservalue(L, idx, k + 1);
  else
    lua_pushnumber(L, k == 0 ? c->value : c->u.part[k - 1]);
}

static int nparts(lua_State *L, State *S, int idx) {
  Arg a;
  a.c = lua_touserdata(L, idx);
  a.kind = ad_kindof(S, a.c);
  a.v = ad_at(idx);
  return AD_ISVAR(a.kind) || a.kind == AD_BATCH ? 0 : ad_nparts(L, &a);
}

/* x.value, x.grad, x.tangent, and the methods */
static int mm_index(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c = ad_tocell(L, S, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
  int kind;
  if (c == NULL) return luaL_typeerror(L, 1, "autodiff value");
  kind = ad_kindof(S, c);
  if (kind == AD_RECN) { /* which is a number to whoever has it */
    if (S->recorder) ad_recordopaque(S);
    return luaL_error(L, "attempt to index a number value");
  }
  if (key == NULL && ad_arrayvalued(L, S, 1)) /* as arrays themselves do */
    return ad_isend(L) ? 0 : ad_arraycall(L, S, "index");
  if (key == NULL || strncmp(key, "__", 2) == 0) return 0;
  if (kind == AD_RECA) {
    ad_pushplain(L, S, 1);
    return ad_arrayfield(L, S, key);
  }
  if (strcmp(key, "value") == 0)
    pushpart(L, S, 1, 0);
  else if (strcmp(key, "grad") == 0 && AD_ISVAR(kind)) {
    if (c->u.var.leaf)
      lua_getiuservalue(L, 1, AD_GENERALKIND(kind) ? 2 : 1);
    else { /* of a var that is no leaf, if backward was asked for it */
      const Level *lv = ad_findlevel(S, ad_keyof(S, c));
      if (lv == NULL || lv->grads == LUA_NOREF) return 0;
      lua_rawgeti(L, LUA_REGISTRYINDEX, lv->grads);
      lua_pushvalue(L, 1);
      lua_rawget(L, -2);
    }
  } else if (strcmp(key, "tangent") == 0 && !AD_ISVAR(kind)) {
    int n = nparts(L, S, 1);
    if (n <= 1 || AD_ISSER(kind))
      pushpart(L, S, 1, 1);
    else {
      lua_createtable(L, n, 0);
      for (int k = 1; k <= n; k++) {
        pushpart(L, S, 1, k);
        lua_rawseti(L, -2, k);
      }
    }
  } else { /* a method */
    lua_getmetatable(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) == LUA_TNIL && ad_arrayvalued(L, S, 1)) {
      ad_pushplain(L, S, 1);
      return ad_arrayfield(L, S, key);
    }
  }
  return 1;
}

static int mm_len(lua_State *L) {
  State *S = ad_state(L);
  luaL_checkany(L, 1);
  ad_pushplain(L, S, 1);
  if (!ad_arrayhere(L, S, -1))
    return luaL_error(L, "attempt to get length of a number value");
  lua_pushinteger(L, (lua_Integer)((Array *)lua_touserdata(L, -1))->shape[0]);
  return 1;
}

static int mm_newindex(lua_State *L) {
  State *S = ad_state(L);
  if (S->recorder && ad_recordwrite(L, S, 1)) return 0;
  if (ad_tocell(L, S, 1) && ad_arrayvalued(L, S, 1))
    return ad_error(L, "cannot write into an array that is being "
                       "differentiated: make a new one (where, concat, stack, "
                       "scatter_add)");
  return ad_error(L, "attempt to set a field of a value of autodiff");
}

/* replaces the part at the top by its text */
static void totext(lua_State *L) {
  if (lua_type(L, -1) == LUA_TNUMBER) {
    char s[40];
    snprintf(s, sizeof s, "%.14g", (double)lua_tonumber(L, -1));
    lua_pushstring(L, s);
  } else
    luaL_tolstring(L, -1, NULL);
  lua_remove(L, -2);
}

/* dual(2, 1), var(2); of matrices, each line of a part below its first */
static int mm_tostring(lua_State *L) {
  State *S = ad_state(L);
  const Cell *c = ad_tocell(L, S, 1);
  const char *head, *indent;
  luaL_Buffer b;
  int n, lines = 0;
  if (c == NULL) return luaL_typeerror(L, 1, "autodiff value");
  if (ad_kindof(S, c) == AD_RECA) {
    if (S->recorder) ad_recordelements(L, S, 1);
    ad_pushplain(L, S, 1);
    luaL_tolstring(L, -1, NULL);
    return 1;
  }
  if (AD_ISREC(ad_kindof(S, c))) {
    if (S->recorder) ad_recordopaque(S);
    lua_pushnumber(L, ad_plain(L, S, 1));
    if (S->recorder && ad_recordsint(S, c))
      lua_pushinteger(L, (lua_Integer)c->value);
    luaL_tolstring(L, -1, NULL);
    return 1;
  }
  ad_checkstack(L, 8, "value is nested too deep");
  head = AD_ISVAR(ad_kindof(S, c))     ? "var("
         : ad_kindof(S, c) == AD_BATCH ? "batch("
                                       : "dual(";
  lua_pushfstring(L, "\n%s", &"      "[sizeof "batch(" - 1 - strlen(head)]);
  indent = lua_tostring(L, -1);
  n = nparts(L, S, 1);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, head);
  for (int k = 0; k <= n; k++) {
    pushpart(L, S, 1, k);
    totext(L);
    if (strchr(lua_tostring(L, -1), '\n') != NULL) {
      lines = 1;
      luaL_gsub(L, lua_tostring(L, -1), "\n", indent);
      lua_remove(L, -2);
    }
    if (k > 0) { /* the text is above the buffer's own slot */
      lua_pushfstring(L, ",%s%s", lines ? indent : " ", lua_tostring(L, -1));
      lua_remove(L, -2);
    }
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  return 1;
}

/* a comparison by an operator */
/* a number, or the primal of a numeric value of the levels that are fast */
static int primal(lua_State *L, const State *S, int i, double *x) {
  const Cell *c = lua_touserdata(L, i);
  if (c == NULL) {
    *x = lua_tonumber(L, i);
    return lua_type(L, i) == LUA_TNUMBER;
  }
  if (lua_rawlen(L, i) < sizeof(Cell) ||
      (c->stamp != S->varstamp && c->stamp != S->dualstamp))
    return 0;
  *x = c->value;
  return 1;
}

static int compared(lua_State *L, int cmp) {
  State *S = ad_state(L);
  val x[2];
  double a, b;
  if (S->recorder == NULL && primal(L, S, 1, &a) && primal(L, S, 2, &b)) {
    lua_pushboolean(L, ad_compare(cmp, a, b));
    return 1;
  }
  if (S->recorder) ad_loophere(L, S);
  for (int i = 0; i < 2; i++) {
    const Cell *c = ad_tocell(L, S, i + 1);
    if (S->arrays && ad_arrayvalued(L, S, i + 1))
      ad_error(L, "attempt to compare arrays: lt, le and eq compare element by "
                  "element");
    if (lua_type(L, i + 1) != LUA_TNUMBER && c == NULL) {
      const char *name[2];
      for (int k = 0; k < 2; k++) {
        name[k] = luaL_typename(L, k + 1);
        if (luaL_getmetafield(L, k + 1, "__name") == LUA_TSTRING)
          name[k] = lua_tostring(L, -1);
      }
      luaL_error(L, "attempt to compare %s with %s", name[0], name[1]);
    }
    x[i] = ad_valat(L, i + 1);
  }
  lua_pushboolean(L, ad_holds(L, S, cmp, x[0], x[1]));
  return 1;
}

static int mm_lt(lua_State *L) { return compared(L, P_LT); }
static int mm_le(lua_State *L) { return compared(L, P_LE); }

/* Lua asks for any two userdata of which one is ours */
static int mm_eq(lua_State *L) {
  State *S = ad_state(L);
  int same;
  if (ad_arrayvalued(L, S, 1) || ad_arrayvalued(L, S, 2)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTARRAY]);
    lua_getfield(L, -1, "__eq");
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_call(L, 2, 1);
    return 1;
  }
  same = ad_tocell(L, S, 1) != NULL && ad_tocell(L, S, 2) != NULL &&
         ad_holds(L, S, P_EQ, ad_at(1), ad_at(2));
  lua_pushboolean(L, same);
  return 1;
}

/* on arrays: an array of 0 and 1, which is a constant */
static int byelement(lua_State *L, int op) {
  State *S = ad_state(L);
  val x[2];
  if (!ad_byelement(L, S, 1) && !ad_byelement(L, S, 2)) return 0;
  for (int i = 0; i < 2; i++) x[i] = ad_checkoperand(L, S, i + 1);
  ad_pushval(L, ad_condition(L, S, op, x));
  return 1;
}

/* the functions ad.lt, ad.le, ad.eq: the same for numbers in any mix */
static int checked2(lua_State *L, int cmp) {
  State *S = ad_state(L);
  val x, y;
  if (S->recorder) ad_loophere(L, S);
  x = ad_checkarg(L, S, 1);
  y = ad_checkarg(L, S, 2);
  lua_pushboolean(L, ad_holds(L, S, cmp, x, y));
  return 1;
}

static int l_lt(lua_State *L) {
  return byelement(L, OP_below) ? 1 : checked2(L, P_LT);
}

static int l_le(lua_State *L) {
  return byelement(L, OP_atmost) ? 1 : checked2(L, P_LE);
}

static int l_eq(lua_State *L) {
  return byelement(L, OP_equal) ? 1 : checked2(L, P_EQ);
}

static int mm_concat(lua_State *L) {
  State *S = ad_state(L);
  for (int i = 1; i <= 2; i++) {
    if (ad_tocell(L, S, i) != NULL) {
      const Cell *c = lua_touserdata(L, i);
      const double n = ad_plain(L, S, i);
      if (S->recorder && ad_recordsint(S, c))
        lua_pushinteger(L, (lua_Integer)n);
      else
        lua_pushnumber(L, n);
      lua_replace(L, i);
    } else if (!lua_isstring(L, i)) {
      const char *name = luaL_typename(L, i);
      if (luaL_getmetafield(L, i, "__name") == LUA_TSTRING)
        name = lua_tostring(L, -1);
      return luaL_error(L, "attempt to concatenate a %s value", name);
    }
  }
  lua_concat(L, 2);
  return 1;
}

int ad_iscomparison(lua_CFunction f) {
  return f == l_lt || f == l_le || f == l_eq;
}

void ad_openvalue(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {
      {"__index", mm_index}, {"__tostring", mm_tostring},
      {"__lt", mm_lt},       {"__le", mm_le},
      {"__eq", mm_eq},       {"__concat", mm_concat},
      {"__len", mm_len},     {"__newindex", mm_newindex},
      {NULL, NULL}};
  static const luaL_Reg fn[] = {{"type", l_type}, {"value", l_value},
                                {"lt", l_lt},     {"le", l_le},
                                {"eq", l_eq},     {NULL, NULL}};
  for (int i = AD_MTVAR; i <= AD_MTBATCH; i++) ad_setfuncs(L, mm, S->mt[i]);
  ad_setfuncs(L, fn, LUA_NOREF);
}
