/*
** elem.c
** Operators and elementary functions as Lua calls them. What nearly every
** call is, an operation on numbers and on numeric values of one level, is
** done here without leaving the function; all else goes to ad_apply.
*/
#include "array.h"
#include "program.h"

#include <limits.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect((x) != 0, 1)
#else
#define INLINE static inline
#define likely(x) (x)
#endif

typedef double Value1(double);
typedef double Value2(double, double);
typedef double Partial1(double, double);
typedef double Partial2(double, double, double);

/*
** A userdata that may be a value: large enough to be asked for its stamp.
** (A light userdata has length 0.)
*/
INLINE Cell *maybecell(lua_State *L, int i) {
  Cell *c = lua_touserdata(L, i);
  return (c != NULL && lua_rawlen(L, i) >= sizeof(Cell)) ? c : NULL;
}

static int slow(lua_State *L, int op, int n, int isoperator) {
  State *S = ad_state(L);
  val x[AD_MAXARITY], y;
  int integers = 0;
  S->rule = 0; /* an error may have left them */
  S->sweptline = 0;
  if (S->recorder) integers = ad_recordtypes(L, S, op, n, isoperator);
  for (int i = 0; i < n; i++)
    x[i] = isoperator ? ad_operand(L, S, i + 1) : ad_checkoperand(L, S, i + 1);
  y = ad_apply(L, S, op, n, x);
  if (S->debug) ad_nancheck(L, S, op, n, x, y);
  if (y.i == 0) lua_pushnumber(L, y.n);
  if (integers) ad_recordinteger(L, S, op, integers);
  return 1;
}

/*
** The var that the fast path makes: its userdata first, because that can run
** the collector and through it anything; then, if the level still is what it
** was, the record. 0: it is not; nothing is left on the stack.
*/
INLINE Level *newvar(lua_State *L, State *S, double y, uint32_t entries,
                     Cell **out) {
  const uint64_t stamp = S->varstamp;
  Cell *c = lua_newuserdatauv(L, sizeof(Cell), 0);
  Level *lv;
  c->stamp = 0;
  lua_pushvalue(L, lua_upvalueindex(2)); /* metatable of vars */
  lua_setmetatable(L, -2);
  lv = S->varlevel;
  if (!likely(S->varstamp == stamp) || !ad_taperoom(&lv->tape, entries)) {
    lua_pop(L, 1);
    return NULL;
  }
  if (lv->handles != LUA_NOREF) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->handles);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)lv->tape.nnode + 1);
    lua_pop(L, 1);
  }
  c->stamp = stamp;
  c->value = y;
  c->u.var.leaf = 0;
  *out = c;
  return lv;
}

INLINE Cell *newdual(lua_State *L, uint64_t stamp, size_t size) {
  Cell *c = lua_newuserdatauv(L, size, 0);
  c->stamp = stamp;
  lua_pushvalue(L, lua_upvalueindex(3)); /* metatable of duals */
  lua_setmetatable(L, -2);
  return c;
}

INLINE int unary(lua_State *L, int op, Value1 f, Partial1 d, int isoperator) {
  const Cell *a = maybecell(L, 1);
  if (a != NULL) {
    State *S = ad_state(L);
    if (a->stamp == S->varstamp) {
      const double y = f(a->value);
      Cell *c;
      Level *lv = newvar(L, S, y, 1, &c);
      if (likely(lv != NULL)) {
        ad_tapeentry(&lv->tape, a->u.var.node, d(a->value, y));
        c->u.var.node = ad_tapenode(&lv->tape);
        return 1;
      }
    } else if (a->stamp == S->dualstamp) {
      const size_t size = lua_rawlen(L, 1);
      const size_t n = (size - AD_CELLHEAD) / sizeof(double);
      const double y = f(a->value), p = d(a->value, y);
      Cell *c = newdual(L, a->stamp, size);
      c->value = y;
      for (size_t k = 0; k < n; k++) {
        const double t = a->u.part[k];
        c->u.part[k] = t == 0 ? 0 : p * t;
      }
      return 1;
    }
  } else {
    int isnum;
    const double x = lua_tonumberx(L, 1, &isnum);
    if (likely(isnum)) {
      lua_pushnumber(L, f(x));
      return 1;
    }
  }
  return slow(L, op, 1, isoperator);
}

/*
** An operator called with one number has found us by the other operand, which
** needs no further look.
*/
INLINE int binary(lua_State *L, int op, Value2 f, Partial2 d0, Partial2 d1,
                  int isoperator) {
  const Cell *a = lua_touserdata(L, 1), *b = lua_touserdata(L, 2);
  State *S = ad_state(L);
  double x = 0, z = 0, y;
  int isnum;
  if (a == NULL) {
    x = lua_tonumberx(L, 1, &isnum);
    if (!isnum) return slow(L, op, 2, isoperator);
  } else if ((!isoperator || b != NULL) && lua_rawlen(L, 1) < sizeof(Cell))
    return slow(L, op, 2, isoperator);
  else
    x = a->value;
  if (b == NULL) {
    z = lua_tonumberx(L, 2, &isnum);
    if (!isnum) return slow(L, op, 2, isoperator);
  } else if ((!isoperator || a != NULL) && lua_rawlen(L, 2) < sizeof(Cell))
    return slow(L, op, 2, isoperator);
  else
    z = b->value;
  if ((a == NULL || a->stamp == S->varstamp) &&
      (b == NULL || b->stamp == S->varstamp)) {
    Cell *c;
    Level *lv;
    y = f(x, z);
    if (a == NULL && b == NULL) {
      lua_pushnumber(L, y);
      return 1;
    }
    lv = newvar(L, S, y, 2, &c);
    if (likely(lv != NULL)) {
      if (a != NULL) ad_tapeentry(&lv->tape, a->u.var.node, d0(x, z, y));
      if (b != NULL) ad_tapeentry(&lv->tape, b->u.var.node, d1(x, z, y));
      c->u.var.node = ad_tapenode(&lv->tape);
      return 1;
    }
  } else if ((a == NULL || a->stamp == S->dualstamp) &&
             (b == NULL || b->stamp == S->dualstamp)) {
    const size_t size = lua_rawlen(L, a ? 1 : 2);
    if (a == NULL || b == NULL || lua_rawlen(L, 2) == size) {
      const size_t n = (size - AD_CELLHEAD) / sizeof(double);
      Cell *c = newdual(L, a ? a->stamp : b->stamp, size);
      c->value = y = f(x, z);
      if (a != NULL) {
        const double p = d0(x, z, y);
        for (size_t k = 0; k < n; k++) {
          const double t = a->u.part[k];
          c->u.part[k] = t == 0 ? 0 : p * t;
        }
      }
      if (b != NULL) {
        const double p = d1(x, z, y);
        for (size_t k = 0; k < n; k++) {
          const double t = b->u.part[k], s = t == 0 ? 0 : p * t;
          c->u.part[k] = a ? c->u.part[k] + s : s;
        }
      }
      return 1;
    }
  }
  return slow(L, op, 2, isoperator);
}

/* every row of the table as a C function for Lua */
#define ISOP(kind) ((#kind)[0] == 'O')
#define OP1(name, v, d0, l0, h0, kind)                                         \
  static int f_##name(lua_State *L) {                                          \
    return unary(L, OP_##name, ad_v_##name, ad_d0_##name, ISOP(kind));         \
  }
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  static int f_##name(lua_State *L) {                                          \
    return binary(L, OP_##name, ad_v_##name, ad_d0_##name, ad_d1_##name,       \
                  ISOP(kind));                                                 \
  }
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  static int f_##name(lua_State *L) {                                          \
    return slow(L, OP_##name, 3, ISOP(kind));                                  \
  }
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

/*
** Functions that do more than their row, where Lua's own do
*/

static int l_abs(lua_State *L) {
  if (lua_isinteger(L, 1)) {
    lua_Integer n = lua_tointeger(L, 1);
    lua_pushinteger(L, n < 0 ? (lua_Integer)(0u - (lua_Unsigned)n) : n);
    return 1;
  }
  return f_abs(L);
}

/* the operator's row, with the errors of a function */
static int l_pow(lua_State *L) {
  return binary(L, OP_pow, ad_v_pow, ad_d0_pow, ad_d1_pow, 0);
}

static int l_log(lua_State *L) {
  return lua_isnoneornil(L, 2) ? f_log(L) : f_logb(L);
}

static int l_atan(lua_State *L) {
  return lua_isnoneornil(L, 2) ? f_atan(L) : f_atan2(L);
}

static int l_fmod(lua_State *L) {
  if (lua_isinteger(L, 1) && lua_isinteger(L, 2)) {
    lua_Integer m = lua_tointeger(L, 1), d = lua_tointeger(L, 2);
    luaL_argcheck(L, d != 0, 2, "zero");
    lua_pushinteger(L, d == -1 ? 0 : m % d); /* minint % -1 traps */
    return 1;
  }
  return f_fmod(L);
}

/* a float as the integer that it is, if it is one */
static int pushinteger(lua_State *L, double n) {
  if (n >= (double)LUA_MININTEGER && n < -(double)LUA_MININTEGER)
    lua_pushinteger(L, (lua_Integer)n);
  else
    lua_pushnumber(L, n);
  return 1;
}

/* of an array: element by element, with derivative 0 */
static int byelement(lua_State *L, int op) {
  State *S = ad_state(L);
  val x;
  if (!ad_byelement(L, S, 1)) return 0;
  x = ad_checkoperand(L, S, 1);
  ad_apply(L, S, op, 1, &x);
  return 1;
}

/*
** Floor or ceiling. A program that is recorded is for this result, not for
** this argument.
*/
static double rounded(lua_State *L, State *S, val x, int up) {
  const val b = ad_base(L, S, x);
  if (b.i == 0) return up ? ceil(b.n) : floor(b.n);
  if (up) {
    const val down = ad_op2(L, S, OP_idiv, ad_op1(L, S, OP_unm, b), ad_num(1));
    return -ad_plainval(L, S, down);
  }
  return ad_plainval(L, S, ad_op2(L, S, OP_idiv, b, ad_num(1)));
}

static int l_rounddown(lua_State *L) {
  State *S = ad_state(L);
  if (byelement(L, OP_floor)) return 1;
  if (lua_isinteger(L, 1)) {
    lua_settop(L, 1);
    return 1;
  }
  return pushinteger(L, rounded(L, S, ad_checkarg(L, S, 1), 0));
}

static int l_roundup(lua_State *L) {
  State *S = ad_state(L);
  if (byelement(L, OP_ceil)) return 1;
  if (lua_isinteger(L, 1)) {
    lua_settop(L, 1);
    return 1;
  }
  return pushinteger(L, rounded(L, S, ad_checkarg(L, S, 1), 1));
}

static int l_modf(lua_State *L) {
  State *S = ad_state(L);
  val x;
  double whole;
  if (ad_byelement(L, S, 1)) { /* the whole parts first, as constants */
    val y[2];
    x = ad_checkoperand(L, S, 1);
    y[1] = ad_op1(L, S, OP_trunc, ad_base(L, S, x));
    y[0] = x;
    ad_apply(L, S, OP_sub, 2, y);
    return 2;
  }
  x = ad_checkarg(L, S, 1);
  if (lua_isinteger(L, 1)) {
    lua_settop(L, 1);
    lua_pushnumber(L, 0);
    return 2;
  }
  whole = rounded(L, S, x, ad_holds(L, S, P_LT, x, ad_num(0)));
  pushinteger(L, whole);
  x = isinf(whole) ? ad_num(0) : ad_op2(L, S, OP_sub, x, ad_num(whole));
  if (x.i == 0) lua_pushnumber(L, x.n);
  return 2;
}

/* where(c, a, b): the other branch takes no part in anything */
static int l_where(lua_State *L) {
  State *S = ad_state(L);
  int c;
  if (S->arrays) {
    int arrays = 0;
    for (int i = 1; i <= 3; i++) arrays |= ad_byelement(L, S, i);
    if (arrays) {
      val x[3];
      if (lua_isboolean(L, 1)) {
        lua_pushnumber(L, lua_toboolean(L, 1));
        lua_replace(L, 1);
      }
      for (int i = 0; i < 3; i++) x[i] = ad_checkoperand(L, S, i + 1);
      x[0] = ad_base(L, S, x[0]); /* conditions are constants */
      ad_apply(L, S, OP_where, 3, x);
      return 1;
    }
  }
  if (lua_isboolean(L, 1))
    c = lua_toboolean(L, 1);
  else if (lua_type(L, 1) == LUA_TNUMBER || ad_tocell(L, S, 1))
    c = !ad_holds(L, S, P_EQ, ad_valat(L, 1), ad_num(0));
  else
    return luaL_typeerror(L, 1, "boolean or number");
  ad_checkarg(L, S, 2);
  ad_checkarg(L, S, 3);
  lua_pushvalue(L, c ? 2 : 3);
  return 1;
}

/*
** Operations over a list
*/

/* length of the list at 'arg', which must be a table */
static int listlen(lua_State *L, int arg) {
  lua_Integer n;
  luaL_checktype(L, arg, LUA_TTABLE);
  n = luaL_len(L, arg);
  luaL_argcheck(L, n >= 0 && n < INT_MAX / 64, arg, "list is too long");
  return (int)n;
}

static void badelement(lua_State *L, int arg, int i) {
  luaL_argerror(L, arg,
                lua_pushfstring(L, "number expected at index %d, got %s", i,
                                luaL_typename(L, -1)));
}

/*
** The list is numbers and numeric vars of the fast level: no value of it
** needs to stay on the stack. 0 when it is not so.
*/
static int fastlist(lua_State *L, State *S, int op, int lists, int n) {
  const size_t total = (size_t)n * (size_t)lists;
  double *x = lua_newuserdatauv(
      L, total * (2 * sizeof(double) + sizeof(uint32_t)) + 1, 0);
  double *p = x + total, y;
  uint32_t *node = (uint32_t *)(p + total), active = 0;
  const uint64_t stamp = S->varstamp;
  size_t k = 0;
  Cell *c;
  Level *lv = S->varlevel;
  if (lv != NULL && lv->handles != LUA_NOREF) return 0;
  for (int arg = 1; arg <= lists; arg++)
    for (int i = 1; i <= n; i++, k++) {
      if (lua_geti(L, arg, i) == LUA_TNUMBER) {
        x[k] = lua_tonumber(L, -1);
        node[k] = UINT32_MAX;
      } else {
        const Cell *e = maybecell(L, -1);
        if (e == NULL || e->stamp != stamp) return 0;
        x[k] = e->value;
        node[k] = e->u.var.node;
        active++;
      }
      lua_pop(L, 1);
    }
  y = ad_nvalue(op, total, x);
  if (active == 0) {
    lua_pushnumber(L, y);
    return 1;
  }
  ad_npartials(op, total, x, y, p);
  c = lua_newuserdatauv(L, sizeof(Cell), 0);
  c->stamp = 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTVAR]);
  lua_setmetatable(L, -2);
  if (S->varstamp != stamp) return 0;
  ad_room(L, lv, 1, active);
  for (k = 0; k < total; k++)
    if (node[k] != UINT32_MAX) ad_tapeentry(&lv->tape, node[k], p[k]);
  c->value = y;
  c->u.var.leaf = 0;
  c->u.var.node = ad_tapenode(&lv->tape);
  c->stamp = stamp;
  if (S->told) ad_tellgc(L, S);
  return 1;
}

/* any list: its elements on the stack */
static val slowlist(lua_State *L, State *S, int op, int lists, int n) {
  val *x, y;
  int k = 0;
  S->rule = 0;
  S->sweptline = 0;
  ad_checkstack(L, lists * n + 16, "list is too long");
  x = lua_newuserdatauv(L, (size_t)n * (size_t)lists * sizeof *x + 1, 0);
  for (int arg = 1; arg <= lists; arg++)
    for (int i = 1; i <= n; i++) {
      lua_geti(L, arg, i);
      if (lua_type(L, -1) != LUA_TNUMBER &&
          (ad_tocell(L, S, -1) == NULL || ad_arrayvalued(L, S, -1)))
        badelement(L, arg, i);
      x[k++] = ad_takeval(L);
    }
  y = ad_nary(L, S, op, k, x);
  if (S->debug) ad_nancheck(L, S, op, k, x, y);
  return y;
}

static int overlist(lua_State *L, int op, int lists) {
  State *S = ad_state(L);
  const int n = listlen(L, 1);
  val y;
  lua_settop(L, lists);
  if (lists == 2 && listlen(L, 2) != n)
    return luaL_argerror(
        L, 2,
        lua_pushfstring(L, "list of length %d expected, got length %d", n,
                        listlen(L, 2)));
  if (fastlist(L, S, op, lists, n)) return 1;
  lua_settop(L, lists);
  y = slowlist(L, S, op, lists, n);
  ad_pushval(L, y);
  return 1;
}

static int nonempty(lua_State *L, int op) {
  if (listlen(L, 1) == 0) luaL_argerror(L, 1, "list is empty");
  return overlist(L, op, 1);
}

/* functions that are others when their first argument is an array */
#define OVERARRAY(L, name)                                                     \
  if (lua_isuserdata(L, 1) && ad_arrayvalued(L, ad_state(L), 1))               \
  return ad_arraycall(L, ad_state(L), name)

static int l_sum(lua_State *L) {
  OVERARRAY(L, "sum");
  return overlist(L, OP_list_sum, 1);
}

static int l_prod(lua_State *L) {
  OVERARRAY(L, "prod");
  return overlist(L, OP_list_prod, 1);
}

static int l_norm(lua_State *L) {
  OVERARRAY(L, "norm");
  return overlist(L, OP_list_norm, 1);
}

static int l_mean(lua_State *L) {
  OVERARRAY(L, "mean");
  return nonempty(L, OP_list_mean);
}

static int l_logsumexp(lua_State *L) {
  OVERARRAY(L, "logsumexp");
  return overlist(L, OP_list_logsumexp, 1);
}

static int l_dot(lua_State *L) {
  OVERARRAY(L, "dot");
  listlen(L, 1);
  listlen(L, 2);
  return overlist(L, OP_list_dot, 2);
}

static int l_softmax(lua_State *L) {
  State *S = ad_state(L);
  int n;
  val *x, *p;
  OVERARRAY(L, "softmax");
  n = listlen(L, 1);
  lua_settop(L, 1);
  lua_createtable(L, n, 0);
  ad_checkstack(L, 10 * n + 40, "list is too long");
  x = lua_newuserdatauv(L, (size_t)n * 2 * sizeof *x + 1, 0);
  p = x + n;
  for (int i = 0; i < n; i++) {
    lua_geti(L, 1, i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER && ad_tocell(L, S, -1) == NULL)
      badelement(L, 1, i + 1);
    x[i] = ad_takeval(L);
  }
  ad_softmax(L, S, n, x, p);
  for (int i = 0; i < n; i++) {
    if (S->debug) ad_nancheck(L, S, OP_list_logsumexp, n, x, p[i]);
    ad_pushval(L, p[i]);
    lua_rawseti(L, 2, i + 1);
  }
  lua_settop(L, 2);
  return 1;
}

/* max and min: of a list, or of any number of arguments, as in Lua */
static int extremum(lua_State *L, int op, int listop, lua_CFunction two) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  int plain = 1, best = 1, integers = 0;
  val *x, y;
  if (lua_istable(L, 1)) return nonempty(L, listop);
  OVERARRAY(L, op == OP_max ? "max" : "min");
  if (n == 2 && (lua_isuserdata(L, 1) || lua_isuserdata(L, 2))) return two(L);
  for (int i = 1; i <= n || i == 1; i++) {
    val v = ad_checkarg(L, S, i);
    plain &= (v.i == 0);
    if (v.i && ad_arrayvalued(L, S, i)) /* one behind an AD value */
      return luaL_argerror(L, i, "number expected, got array");
  }
  if (plain) { /* the argument itself: integers stay integers */
    for (int i = 2; i <= n; i++)
      if (op == OP_max ? lua_compare(L, best, i, LUA_OPLT)
                       : lua_compare(L, i, best, LUA_OPLT))
        best = i;
    lua_pushvalue(L, best);
    return 1;
  }
  if (n == 1) return 1;
  if (S->recorder) integers = ad_recordtypes(L, S, op, n, 0);
  x = lua_newuserdatauv(L, (size_t)n * sizeof *x, 0);
  for (int i = 1; i <= n; i++) x[i - 1] = ad_checkarg(L, S, i);
  y = ad_nary(L, S, listop, n, x);
  if (S->debug) ad_nancheck(L, S, op, n, x, y);
  ad_pushval(L, y);
  if (integers) ad_recordinteger(L, S, op, integers);
  return 1;
}

static int l_max(lua_State *L) {
  return extremum(L, OP_max, OP_list_lmax, f_max);
}

static int l_min(lua_State *L) {
  return extremum(L, OP_min, OP_list_lmin, f_min);
}

/* of two, element by element where there are arrays */
static int l_maximum(lua_State *L) { return f_max(L); }
static int l_minimum(lua_State *L) { return f_min(L); }

/* core.ops(): the table, for the tests that run through it */
static int l_ops(lua_State *L) {
  lua_newtable(L);
  for (int op = 0; op < OP_count; op++) {
    const ad_OpInfo *o = &ad_opinfo[op];
    lua_createtable(L, 0, 6);
    /* max and min of a list go by the same name as those of two numbers */
    lua_pushstring(L, o->name + (op == OP_list_lmax || op == OP_list_lmin));
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, o->kind == 'L');
    lua_setfield(L, -2, "list");
    lua_pushinteger(L, o->arity);
    lua_setfield(L, -2, "arity");
    lua_pushboolean(L, o->kind == 'I');
    lua_setfield(L, -2, "internal");
    lua_pushboolean(L, o->kind == 'O');
    lua_setfield(L, -2, "operator");
    lua_createtable(L, o->arity, 0);
    lua_createtable(L, o->arity, 0);
    for (int i = 0; i < (o->arity ? o->arity : 1); i++) {
      lua_pushnumber(L, o->lo[i]);
      lua_rawseti(L, -3, i + 1);
      lua_pushnumber(L, o->hi[i]);
      lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -3, "hi");
    lua_setfield(L, -2, "lo");
    lua_rawseti(L, -2, op + 1);
  }
  return 1;
}

/* the rows under their names ... */
static const struct {
  luaL_Reg reg;
  char kind;
} row[] = {
#define OP1(name, v, d0, l0, h0, kind) {{#name, f_##name}, (#kind)[0]},
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  {{#name, f_##name}, (#kind)[0]},
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  {{#name, f_##name}, (#kind)[0]},
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
};

/* ... and those that do more */
static const luaL_Reg fn[] = {{"abs", l_abs},
                              {"log", l_log},
                              {"atan", l_atan},
                              {"fmod", l_fmod},
                              {"floor", l_rounddown},
                              {"ceil", l_roundup},
                              {"modf", l_modf},
                              {"where", l_where},
                              {"sum", l_sum},
                              {"prod", l_prod},
                              {"mean", l_mean},
                              {"norm", l_norm},
                              {"dot", l_dot},
                              {"max", l_max},
                              {"min", l_min},
                              {"maximum", l_maximum},
                              {"minimum", l_minimum},
                              {"pow", l_pow},
                              {"logsumexp", l_logsumexp},
                              {"softmax", l_softmax},
                              {"ops", l_ops},
                              {NULL, NULL}};

/*
** Is it one of these? They treat recorded values as numbers, and lists of them
** as lists of numbers.
*/
int ad_iselementary(lua_CFunction f) {
  for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
    if (row[i].reg.func == f) return 1;
  for (const luaL_Reg *r = fn; r->func != NULL; r++)
    if (r->func == f) return 1;
  return 0;
}

void ad_openelem(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {
      {"__unm", f_unm}, {"__add", f_add},   {"__sub", f_sub},
      {"__mul", f_mul}, {"__div", f_div},   {"__mod", f_mod},
      {"__pow", f_pow}, {"__idiv", f_idiv}, {NULL, NULL}};
  int rows;
  for (int i = AD_MTVAR; i <= AD_MTBATCH; i++) ad_setfuncs(L, mm, S->mt[i]);
  ad_setfuncs(L, mm, S->mt[AD_MTARRAY]);
  /* core.rows: all of them, for the tests that run through the table */
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "rows");
  rows = luaL_ref(L, LUA_REGISTRYINDEX);
  for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
    luaL_Reg one[2] = {{NULL, NULL}, {NULL, NULL}};
    one[0] = row[i].reg;
    ad_setfuncs(L, one, rows);
    if (row[i].kind == 'F') ad_setfuncs(L, one, LUA_NOREF);
  }
  luaL_unref(L, LUA_REGISTRYINDEX, rows);
  ad_setfuncs(L, fn, LUA_NOREF);
}
