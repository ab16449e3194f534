/*
** apply.c
** An operation on values of any levels. The highest live level among the
** operands handles it: its primal is the same operation on the primals, one
** level further down, and its partial derivatives are the table's, computed
** on values of lower levels. Numbers are where that ends.
*/
#include "array.h"
#include "program.h"

/* ops.h on values of lower levels */
#define K(c) ad_num(c)
#define ADD(x, y) ad_op2(L, S, OP_add, x, y)
#define SUB(x, y) ad_op2(L, S, OP_sub, x, y)
#define MUL(x, y) ad_op2(L, S, OP_mul, x, y)
#define DIV(x, y) ad_op2(L, S, OP_div, x, y)
#define NEG(x) ad_op1(L, S, OP_unm, x)
#define F1(name, x) ad_op1(L, S, OP_##name, x)
#define F2(name, x, y) ad_op2(L, S, OP_##name, x, y)
#define LT(x, y) condition2(L, S, arrays, P_LT, x, y)
#define EQ(x, y) condition2(L, S, arrays, P_EQ, x, y)
#define ZERO(x) ad_num(ad_isnum(x, 0))
#define OR(c, d)                                                               \
  (arrays ? ad_op2(L, S, OP_max, c, d) : ad_num((c).n != 0 || (d).n != 0))
#define AND(c, d)                                                              \
  (arrays ? ad_op2(L, S, OP_min, c, d) : ad_num((c).n != 0 && (d).n != 0))
#define IF(c, x, y) (arrays ? chosen(L, S, c, x, y) : (c).n != 0 ? (x) : (y))
#define P2(name, x, y) step(L, S, OP_##name, x, y, ad_num(0))
#define P3(name, x, y, z) step(L, S, OP_##name, x, y, z)

/* deepest nesting of operations in one rule, and what it leaves behind */
#define RULESLOTS 48

/*
** The comparison 'op' of what x is without derivatives: 0 or 1, or an array of
** them, or of each element of a batch.
*/
val ad_condition(lua_State *L, State *S, int op, const val *x) {
  val v[2];
  for (int i = 0; i < 2; i++) v[i] = ad_base(L, S, x[i]);
  if (v[0].i == 0 && v[1].i == 0) {
    double d[2] = {v[0].n, v[1].n};
    return ad_num(ad_opvalue(op, d));
  }
  return ad_apply(L, S, op, 2, v);
}

/* of numbers, one that holds while they stay as they are */
static val condition2(lua_State *L, State *S, int arrays, int cmp, val x,
                      val y) {
  val v[2];
  v[0] = x, v[1] = y;
  if (arrays) return ad_condition(L, S, cmp == P_LT ? OP_below : OP_equal, v);
  return ad_num(ad_holds(L, S, cmp, x, y));
}

/* element by element */
static val chosen(lua_State *L, State *S, val c, val x, val y) {
  val v[3];
  v[0] = c, v[1] = x, v[2] = y;
  return ad_apply(L, S, OP_where, 3, v);
}

static int anyarray(lua_State *L, State *S, int n, const val *x) {
  for (int i = 0; i < n; i++)
    if (x[i].i && ad_byelement(L, S, x[i].i)) return 1;
  return 0;
}

/* a step function of primals: a number, unless a program is recorded */
static val step(lua_State *L, State *S, int op, val x, val y, val z) {
  const val b[3] = {ad_base(L, S, x), ad_base(L, S, y), ad_base(L, S, z)};
  if (b[0].i || b[1].i || b[2].i)
    return ad_apply(L, S, op, ad_opinfo[op].arity, b);
  const double d[3] = {b[0].n, b[1].n, b[2].n};
  return ad_num(ad_opvalue(op, d));
}

static val rule(lua_State *L, State *S, int op, int i, const val *x, val Y,
                int arrays) {
  const val A = x[0], B = x[1], C = x[2];
  (void)A, (void)B, (void)C, (void)arrays;
  switch (op) {
#include "rules.h"
  default:
    return ad_num(NAN);
  }
}

/* S->rule: for the notes of what a rule's own operations record */
static val partial(lua_State *L, State *S, int op, int i, const val *x, val y,
                   int arrays) {
  const int before = S->rule;
  val p;
  if (S->arrays && !arrays) /* or values of a batch */
    arrays = anyarray(L, S, ad_opinfo[op].arity, x);
  if (!S->debug) return rule(L, S, op, i, x, y, arrays);
  if (before == 0) S->rule = op + 1;
  p = rule(L, S, op, i, x, y, arrays);
  S->rule = before;
  return p;
}

/* leaves only 'v' above 'base' */
static val settle(lua_State *L, int base, val v) {
  if (v.i > base) {
    if (v.i != base + 1) {
      lua_pushvalue(L, v.i);
      lua_replace(L, base + 1);
    }
    v.i = base + 1;
    lua_settop(L, base + 1);
  } else
    lua_settop(L, base);
  return v;
}

/* acc + t * p of the chain rule, in which an exact 0 of t wins */
val ad_chain(lua_State *L, State *S, val acc, val t, val p) {
  val x[3];
  if (ad_isnum(t, 0)) return acc;
  if (ad_isnum(p, 1))
    return ad_isnum(acc, 0) ? t : ad_op2(L, S, OP_add, acc, t);
  if (ad_isnum(acc, 0)) return ad_op2(L, S, OP_cmul, t, p);
  x[0] = acc, x[1] = t, x[2] = p;
  if (acc.i == 0 && t.i == 0 && p.i == 0) {
    double d[3] = {acc.n, t.n, p.n};
    return ad_num(ad_opvalue(OP_cadd, d));
  }
  return ad_apply(L, S, OP_cadd, 3, x);
}

/* from here on others have what was computed */
static void release(lua_State *L, val t) {
  if (t.i && ad_isplain(L, t)) ((Array *)lua_touserdata(L, t.i))->own = 0;
}

/*
** acc + t * (partial derivative by operand i) of an operation on arrays, in
** the shape of that operand, or forwards in that of the result. What of x and y
** the partial derivative does not look at may be anything.
*/
val ad_elementchain(lua_State *L, State *S, int op, int i, int n, const val *x,
                    val y, val t, val acc, const Shape *shape, int last) {
  const int base = lua_gettop(L);
  int plain = 1;
  val s;
  if (ad_isnum(t, 0)) return acc;
  ad_checkstack(L, RULESLOTS, NULL);
  for (int k = 0; k < n; k++) plain &= ad_isplain(L, x[k]);
  plain &= ad_isplain(L, y) && ad_isplain(L, t) && ad_isplain(L, acc);
  if (plain) return ad_arraypull(L, S, op, i, n, x, y, t, acc, shape, last);
  release(L, t); /* outer tapes may save it */
  release(L, acc);
  s = partial(L, S, op, i, x, y, 1);
  if (op == OP_where) /* what is not chosen takes no part */
    s = chosen(L, S, s, t, ad_num(0));
  else if (AD_BOTHWIN(op, i))
    s = ad_op2(L, S, OP_bmul, t, s);
  else
    s = ad_chain(L, S, ad_num(0), t, s);
  s = ad_toshape(L, S, s, shape);
  if (!ad_isnum(acc, 0)) s = ad_op2(L, S, OP_add, acc, s);
  return settle(L, base, s);
}

/*
** Forward mode
*/

static val dual_numbers(lua_State *L, State *S, int op, int n, const Arg *a,
                        uint64_t key, int dirs) {
  double x[AD_MAXARITY] = {0, 0, 0}, p[AD_MAXARITY] = {0, 0, 0}, y;
  Cell *c = ad_newcell(L, S, AD_MTDUAL,
                       AD_CELLHEAD + (size_t)dirs * sizeof(double), 0);
  int known[AD_MAXARITY] = {0, 0, 0};
  for (int i = 0; i < n; i++) x[i] = a[i].key ? a[i].c->value : a[i].v.n;
  c->value = y = ad_opvalue(op, x);
  for (int d = 0; d < dirs; d++) {
    double s = 0;
    for (int i = 0; i < n; i++) {
      double t;
      if (a[i].key == 0 || d >= ad_nparts(L, &a[i])) continue;
      t = a[i].c->u.part[d];
      if (t == 0) continue;
      if (!known[i]) {
        p[i] = ad_partial(op, i, x, y);
        known[i] = 1;
      }
      s += t * p[i];
    }
    c->u.part[d] = s;
  }
  if (S->pauses == NULL && !S->debug) /* the fast path may take over */
    S->dualstamp = ad_stamp(S, key, AD_DUALN);
  c->stamp = ad_stamp(S, key, AD_DUALN);
  return ad_at(lua_gettop(L));
}

/*
** Pushes the dual whose user values are put together one by one: with many
** directions they would not fit on the C stack, nor in few slots of Lua's.
*/
static val dual_general(lua_State *L, State *S, int op, int n, const Arg *a,
                        const val *x, uint64_t key, int dirs) {
  val p[AD_MAXARITY], y = ad_apply(L, S, op, n, x);
  int isarray, known[AD_MAXARITY] = {0, 0, 0}, top;
  Cell *c;
  Shape shape;
  isarray = ad_hasarray(L, S, y);
  if (isarray) ad_shapeof(L, S, y, &shape);
  if (dirs == 1) { /* the usual case: perhaps it is all numbers after all */
    val t = ad_num(0);
    for (int i = 0; i < n; i++) {
      val ti = ad_part(L, &a[i], 1);
      if (isarray)
        t = ad_elementchain(L, S, op, i, n, x, y, ti, t, &shape, 0);
      else if (!ad_isnum(ti, 0))
        t = ad_chain(L, S, t, ti, partial(L, S, op, i, x, y, 0));
    }
    if (isarray) release(L, t);
    return ad_pushparts(L, S, key, AD_DUALN, y, 1, &t);
  }
  for (int i = 0; i < n; i++) { /* before the dual: they stay on the stack */
    p[i] = ad_num(0);
    for (int d = 1; d <= dirs && !known[i]; d++) {
      val ti;
      top = lua_gettop(L);
      ti = ad_part(L, &a[i], d);
      lua_settop(L, top);
      if (ad_isnum(ti, 0)) continue;
      if (!isarray) p[i] = partial(L, S, op, i, x, y, 0);
      known[i] = 1;
    }
  }
  c = ad_newcell(L, S, AD_MTDUAL, sizeof(Cell), dirs + 1);
  c->u.var.node = (uint32_t)dirs;
  top = lua_gettop(L);
  ad_pushval(L, y);
  lua_setiuservalue(L, top, 1);
  for (int d = 1; d <= dirs; d++) {
    val t = ad_num(0);
    for (int i = 0; i < n; i++)
      if (known[i] && isarray)
        t = ad_elementchain(L, S, op, i, n, x, y, ad_part(L, &a[i], d), t,
                            &shape, 0);
      else if (known[i])
        t = ad_chain(L, S, t, ad_part(L, &a[i], d), p[i]);
    if (isarray) release(L, t);
    ad_pushval(L, t);
    lua_setiuservalue(L, top, d + 1);
    lua_settop(L, top);
  }
  c->stamp = ad_stamp(S, key, AD_DUALG);
  return ad_at(top);
}

/*
** Reverse mode
*/

/* the level whose tape a level's values are on */
static Level *tapeof(Level *lv) { return lv->alias ? lv->alias : lv; }

/* most directions that a tape keeps as numbers */
#define MAXDIRS 16

/*
** Can the tape keep this partial derivative as numbers? The first dual that
** comes decides which level's duals the tape is for. Makes room for them.
*/
static int isflat(lua_State *L, State *S, Level *t, val p, uint32_t entries) {
  const Cell *c;
  size_t dirs, refused;
  if (p.i == 0) return 1;
  c = lua_touserdata(L, p.i);
  if (c->stamp == 0 || ad_kindof(S, c) != AD_DUALN) return 0;
  dirs = (lua_rawlen(L, p.i) - AD_CELLHEAD) / sizeof(double);
  if (t->tape.dual == c->stamp) return dirs == (size_t)t->tape.dirs;
  if (t->tape.dual != 0 || dirs > MAXDIRS || t->busy) return 0;
  while ((refused = ad_tapedual(&t->tape, c->stamp, (int)dirs, entries)) != 0)
    ad_nomem(L, refused);
  return 1;
}

/* stores partial derivative 'p' for entry number 'j' of the tape to be */
static void keep(lua_State *L, Level *lv, uint32_t j, val p) {
  Saved *saved;
  if (lv->objects == LUA_NOREF) {
    lua_newtable(L);
    lv->objects = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->objects);
  saved = ad_tosaved(L, lv->S, p.i);
  for (int i = saved ? ad_savedcount(saved) : 0; i >= 1; i--) {
    lua_getiuservalue(L, p.i, i);
    lv->heavy += ad_marksaved(L, lv->S, -1, -2);
    lua_pop(L, 1);
  }
  lua_pushvalue(L, p.i);
  lua_rawseti(L, -2, (lua_Integer)j + 1);
  lua_pop(L, 1);
}

/* an entry for a partial derivative that is kept already if it is not flat */
static void entry(lua_State *L, Tape *tape, uint32_t node, val p, int flat) {
  if (p.i == 0)
    ad_tapeentry(tape, node, p.n);
  else if (flat) {
    const Cell *c = lua_touserdata(L, p.i);
    double *t = ad_tapetangents(tape, tape->nentry);
    ad_tapeentry(tape, node, c->value);
    for (int d = 0; d < tape->dirs; d++) t[d] = c->u.part[d];
  } else {
    ad_tapeentry(tape, node | AD_GENERAL, 0);
    tape->ngeneral++;
  }
}

/* graphs of ad.var know the vars of their nodes, weakly */
static void sethandle(lua_State *L, Level *t, val v) {
  if (t->handles == LUA_NOREF) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->handles);
  lua_pushvalue(L, v.i);
  lua_rawseti(L, -2, (lua_Integer)t->tape.nnode + 1);
  lua_pop(L, 1);
}

/*
** The level in whose name a new var of level 'lv' is made: inside a
** checkpoint on its tape, that. Outside, any suspended checkpoint learns
** that the tape is no longer its alone.
*/
static Level *stampedby(const State *S, Level *lv) {
  if (lv->spans) {
    Level *span = ad_spanhere(S, lv);
    if (span != NULL) return span;
    for (int i = 0; i < S->nlive; i++)
      if (S->live[i]->alias == lv) S->live[i]->mixed = 1;
  }
  return lv;
}

/*
** Records y with the partial derivatives p by the operands that are on the
** tape of level 'lv', and pushes the var. Everything that can fail or run a
** finalizer (which can do anything) comes before the tape is touched.
*/
static val record(lua_State *L, State *S, Level *lv, int op, int n,
                  const Arg *a, const val *x, val y, const val *p) {
  const uint64_t key = lv->key;
  val v;
  Cell *c;
  Level *t;
  Tape *tape;
  uint32_t active = 0;
  int flat[AD_MAXARITY];
  Note note;
  const int looked = ad_looked(tapeof(lv));
  if (lv->kind == AD_GRAPH) ad_compact(L, lv);
  if (looked) {
    ad_notehere(L, tapeof(lv), &note);
    ad_noteoperands(L, tapeof(lv), &note, op, n, a, x, y);
  }
  v = ad_pushvar(L, S, stampedby(S, lv), y, 0, 0);
  c = lua_touserdata(L, v.i);
  lv = ad_findlevel(S, key);
  if (lv == NULL) return y; /* a finalizer closed it: y is a constant */
  t = tapeof(lv);
  tape = &t->tape;
  for (int i = 0; i < n; i++) {
    flat[i] = 1;
    if (a[i].key == 0) continue;
    flat[i] = isflat(L, S, t, p[i], AD_MAXARITY);
    if (!flat[i]) keep(L, t, tape->nentry + active, p[i]);
    active++;
  }
  if (!ad_taperoom(tape, active)) ad_room(L, t, 1, active);
  if (looked) ad_note(L, t, &note);
  sethandle(L, t, v);
  for (int i = 0; i < n; i++)
    if (a[i].key) entry(L, tape, a[i].c->u.var.node, p[i], flat[i]);
  c->u.var.node = ad_tapenode(tape);
  return v;
}

static val var_apply(lua_State *L, State *S, int op, int n, const Arg *a,
                     const val *x, Level *lv) {
  val p[AD_MAXARITY], y;
  int numbers = 1;
  for (int i = 0; i < n; i++) numbers &= (x[i].i == 0);
  if (numbers) {
    double d[AD_MAXARITY] = {0, 0, 0};
    for (int i = 0; i < n; i++) d[i] = x[i].n;
    y = ad_num(ad_opvalue(op, d));
    for (int i = 0; i < n; i++)
      if (a[i].key) p[i] = ad_num(ad_partial(op, i, d, y.n));
    if (!tapeof(lv)->paused && !lv->spans &&
        !ad_looked(tapeof(lv))) { /* the fast path may take over */
      S->varstamp = ad_stamp(S, lv->key, AD_VARN);
      S->varlevel = tapeof(lv);
    }
  } else {
    y = ad_apply(L, S, op, n, x);
    if (ad_hasarray(L, S, y)) {
      int active = 0;
      for (int i = 0; i < n; i++) active |= (a[i].key != 0) << i;
      p[0] = ad_save(L, S, op, n, x, y, active);
      for (int i = 1; i < n; i++) p[i] = p[0];
    } else
      for (int i = 0; i < n; i++)
        if (a[i].key) p[i] = partial(L, S, op, i, x, y, 0);
  }
  return record(L, S, lv, op, n, a, x, y, p);
}

/*
** Numeric duals of the level that the fast path is set to, and numbers: what
** the level below most often has to do for the one above. 0: something else.
*/
static int fastdual(lua_State *L, State *S, int op, int n, const val *in,
                    val *out) {
  const Cell *a[AD_MAXARITY] = {NULL, NULL, NULL};
  double x[AD_MAXARITY] = {0, 0, 0}, y;
  size_t size = 0;
  Cell *c;
  for (int i = 0; i < n; i++) {
    x[i] = in[i].n;
    if (in[i].i == 0) continue;
    a[i] = lua_touserdata(L, in[i].i);
    if (a[i] == NULL) {
      x[i] = lua_tonumber(L, in[i].i);
      continue;
    }
    if (a[i]->stamp != S->dualstamp) return 0;
    if (size == 0)
      size = lua_rawlen(L, in[i].i);
    else if (lua_rawlen(L, in[i].i) != size)
      return 0;
    x[i] = a[i]->value;
  }
  if (size == 0) return 0;
  y = ad_opvalue(op, x);
  c = ad_newcell(L, S, AD_MTDUAL, size, 0);
  c->value = y;
  size = (size - AD_CELLHEAD) / sizeof(double);
  for (size_t d = 0; d < size; d++) c->u.part[d] = 0;
  for (int i = 0; i < n; i++)
    if (a[i] != NULL) {
      const double p = ad_partial(op, i, x, y);
      for (size_t d = 0; d < size; d++) {
        const double t = a[i]->u.part[d];
        if (t != 0) c->u.part[d] += t * p;
      }
    }
  for (int i = 0; i < n; i++)
    if (a[i] != NULL) c->stamp = a[i]->stamp;
  *out = ad_at(lua_gettop(L));
  return 1;
}

/*
** Any mode. Pushes the result, if it is no number, as the one slot above
** what was there.
*/
val ad_apply(lua_State *L, State *S, int op, int n, const val *in) {
  Arg a[AD_MAXARITY];
  val x[AD_MAXARITY] = {{0, 0}, {0, 0}, {0, 0}}, y;
  const int base = lua_gettop(L);
  int top = -1, kind, numbers = 1;
  ad_checkstack(L, RULESLOTS, NULL);
  if (fastdual(L, S, op, n, in, &y)) return y;
  for (int i = 0; i < n; i++) {
    ad_resolveval(L, S, in[i], &a[i]);
    if (a[i].key && (top < 0 || a[i].key > a[top].key)) top = i;
  }
  if (top < 0) { /* constants all */
    double d[AD_MAXARITY] = {0, 0, 0};
    int isarray = 0;
    for (int i = 0; i < n; i++) {
      d[i] = a[i].v.n;
      isarray |= a[i].v.i;
    }
    if (isarray) {
      for (int i = 0; i < n; i++) x[i] = a[i].v;
      return settle(L, base, ad_arrayapply(L, S, op, n, x));
    }
    lua_settop(L, base);
    return ad_num(ad_opvalue(op, d));
  }
  kind = a[top].kind;
  if (kind == AD_BATCH)
    return settle(L, base, ad_vmapapply(L, S, op, n, a, a[top].key));
  if (AD_ISREC(kind)) return settle(L, base, ad_record(L, S, op, n, a));
  for (int i = 0; i < n; i++) {
    int same = a[i].key == a[top].key;
    if (!same && a[i].lv && a[top].lv && tapeof(a[i].lv) == tapeof(a[top].lv))
      same = 1; /* around a checkpoint */
    if (!same) {
      a[i].key = 0; /* a constant for this level */
      x[i] = a[i].v;
    } else
      x[i] = ad_primalof(L, &a[i]);
    numbers &= (x[i].i == 0) && !(same && AD_GENERALKIND(a[i].kind));
  }
  if (AD_ISVAR(kind))
    y = var_apply(L, S, op, n, a, x, a[top].lv);
  else if (AD_ISDUAL(kind)) {
    int dirs = 0;
    for (int i = 0; i < n; i++) {
      int k = a[i].key ? ad_nparts(L, &a[i]) : 0;
      if (k > dirs) dirs = k;
    }
    if (numbers)
      y = dual_numbers(L, S, op, n, a, a[top].key, dirs);
    else
      y = dual_general(L, S, op, n, a, x, a[top].key, dirs);
  } else
    y = ad_series(L, S, op, n, a, a[top].key);
  if (S->told) ad_tellgc(L, S);
  return settle(L, base, y);
}

/*
** Operations over a list
*/

/* p[i] = product of all x but x[i] */
static void others(lua_State *L, State *S, int n, const val *x, val *p) {
  val acc = ad_num(1);
  for (int i = 0; i < n; i++) {
    p[i] = acc;
    acc = MUL(acc, x[i]);
  }
  acc = ad_num(1);
  for (int i = n; i-- > 0;) {
    p[i] = MUL(p[i], acc);
    acc = MUL(acc, x[i]);
  }
}

/*
** p[i] = exp(x[i]) / sum of exp(x), shifted by the largest element, so that
** nothing overflows and large elements lose no digits. Infinite ones share
** evenly. Needs 4 n slots, and while a program is recorded 6 n.
*/
static val larger(lua_State *L, State *S, val m, val x) {
  const val b = ad_base(L, S, x);
  if (m.i || b.i) return F2(max, m, b);
  return ad_num(b.n > m.n ? b.n : m.n);
}

void ad_softmax(lua_State *L, State *S, int n, const val *x, val *p) {
  val s = ad_num(0), m = ad_num(-HUGE_VAL);
  val infinite;
  int each; /* element of a batch may be infinite or not */
  for (int i = 0; i < n; i++) m = larger(L, S, m, x[i]);
  each = anyarray(L, S, 1, &m);
  infinite = condition2(L, S, each, P_EQ, F1(abs, m), ad_num(HUGE_VAL));
  for (int i = 0; i < n; i++) {
    if (each)
      p[i] = chosen(L, S, infinite, P2(equal, x[i], m), F1(exp, SUB(x[i], m)));
    else
      p[i] = infinite.n != 0 ? P2(equal, x[i], m) : F1(exp, SUB(x[i], m));
    s = ADD(s, p[i]);
  }
  for (int i = 0; i < n; i++) p[i] = DIV(p[i], s);
}

typedef struct Nary {
  int op, n;
  val *x;      /* primals, or elements */
  val *others; /* of OP_list_prod and OP_list_logsumexp */
  val y;
  val ties;
} Nary;

#define X(i) w->x[i]
#define Y w->y
#define N w->n
#define OTHERS(i) w->others[i]
#define SOFTMAX(i) w->others[i]
#define SHARE(i) share(L, S, w, i)

/* of the elements that are largest (or smallest) */
static val share(lua_State *L, State *S, const Nary *w, int i) {
  const val p = P2(equal, w->x[i], w->y);
  if (ad_isnum(p, 0)) return p;
  return DIV(p, w->ties);
}

static val nrule(lua_State *L, State *S, const Nary *w, int i) {
  /* lists have numbers for elements, but perhaps one of each of a batch */
  const int arrays = S->arrays && w->y.i && ad_byelement(L, S, w->y.i);
  switch (w->op) {
#define NOP(name, v, rule)                                                     \
  case OP_list_##name:                                                         \
    return rule;
#include "nary.h"
#undef NOP
  default:
    return ad_num(NAN);
  }
}

static val npartial(lua_State *L, State *S, const Nary *w, int i) {
  const int before = S->rule;
  val p;
  if (!S->debug) return nrule(L, S, w, i);
  if (before == 0) S->rule = w->op + 1;
  p = nrule(L, S, w, i);
  S->rule = before;
  return p;
}

/* what the rules need beside elements and value */
static void prepare(lua_State *L, State *S, Nary *w) {
  const int n = w->n;
  if (w->op == OP_list_lmax || w->op == OP_list_lmin) {
    w->ties = ad_num(0);
    if (S->recorder) ad_checkstack(L, 4 * n + RULESLOTS, "list is too long");
    for (int i = 0; i < n; i++)
      w->ties = ADD(w->ties, P2(equal, w->x[i], w->y));
  } else if (w->op == OP_list_prod || w->op == OP_list_logsumexp) {
    ad_checkstack(L, 10 * n + RULESLOTS, "list is too long");
    w->others = lua_newuserdatauv(L, (size_t)n * sizeof(val) + 1, 0);
    if (w->op == OP_list_prod)
      others(L, S, n, w->x, w->others);
    else
      ad_softmax(L, S, n, w->x, w->others);
  }
}

/* a list of numbers becomes an array of C on the stack */
static double *numbersof(lua_State *L, int n, const val *x) {
  double *d = lua_newuserdatauv(L, (size_t)n * sizeof *d + 1, 0);
  for (int i = 0; i < n; i++) d[i] = x[i].n;
  return d;
}

static val nary_dual(lua_State *L, State *S, Nary *w, const Arg *a,
                     uint64_t key) {
  int dirs = 0, top;
  val *t;
  for (int i = 0; i < w->n; i++) {
    int k = a[i].key ? ad_nparts(L, &a[i]) : 0;
    if (k > dirs) dirs = k;
  }
  ad_checkstack(L, dirs + RULESLOTS, "too many directions");
  t = lua_newuserdatauv(L, (size_t)dirs * sizeof *t + 1, 0);
  for (int d = 0; d < dirs; d++) {
    t[d] = ad_num(0);
    lua_pushnil(L); /* its slot */
  }
  top = lua_gettop(L);
  for (int i = 0; i < w->n; i++) {
    val p = ad_num(0);
    int known = 0;
    if (a[i].key == 0) continue;
    for (int d = 0; d < dirs; d++) {
      val ti = ad_part(L, &a[i], d + 1);
      if (ad_isnum(ti, 0)) continue;
      if (!known) p = npartial(L, S, w, i);
      known = 1;
      t[d] = ad_chain(L, S, t[d], ti, p);
      if (t[d].i) { /* into its slot, so that the stack does not grow */
        lua_pushvalue(L, t[d].i);
        lua_replace(L, top - dirs + 1 + d);
        t[d].i = top - dirs + 1 + d;
      }
    }
    lua_settop(L, top);
  }
  return ad_pushparts(L, S, key, AD_DUALN, w->y, dirs, t);
}

static val nary_var(lua_State *L, State *S, Nary *w, const Arg *a, Level *lv,
                    int numbers) {
  const uint64_t key = lv->key;
  uint32_t active = 0, j;
  double *p = NULL;
  val v;
  Cell *c;
  Level *t;
  Note note;
  const int looked = ad_looked(tapeof(lv));
  if (looked) {
    ad_notehere(L, tapeof(lv), &note);
    ad_noteoperands(L, tapeof(lv), &note, w->op, w->n, a, w->x, w->y);
  }
  if (numbers) {
    const double *d = numbersof(L, w->n, w->x);
    p = lua_newuserdatauv(L, (size_t)w->n * sizeof *p + 1, 0);
    ad_npartials(w->op, (size_t)w->n, d, w->y.n, p);
  }
  if (lv->kind == AD_GRAPH) ad_compact(L, lv);
  v = ad_pushvar(L, S, stampedby(S, lv), w->y, 0, 0);
  c = lua_touserdata(L, v.i);
  for (int i = 0; i < w->n; i++) active += (a[i].key != 0);
  if ((lv = ad_findlevel(S, key)) == NULL) return w->y;
  t = tapeof(lv);
  ad_room(L, t, 1, active);
  if (!numbers) { /* the rules first: they can fail, or record below */
    lua_createtable(L, (int)active, 0);
    j = 0;
    for (int i = 0; i < w->n; i++) {
      if (a[i].key == 0) continue;
      ad_pushval(L, npartial(L, S, w, i));
      lua_rawseti(L, v.i + 1, ++j);
      lua_settop(L, v.i + 1);
    }
    if ((lv = ad_findlevel(S, key)) == NULL) return w->y;
    t = tapeof(lv);
    ad_room(L, t, 1, active);
    for (j = 0; j < active; j++) {
      if (lua_rawgeti(L, v.i + 1, (lua_Integer)j + 1) == LUA_TUSERDATA) {
        const val pj = ad_at(lua_gettop(L));
        if (!isflat(L, S, t, pj, active)) keep(L, t, t->tape.nentry + j, pj);
      }
      lua_settop(L, v.i + 1);
    }
    ad_room(L, t, 1, active);
  }
  if (looked) ad_note(L, t, &note);
  sethandle(L, t, v);
  j = 0;
  for (int i = 0; i < w->n; i++) {
    val pi = ad_num(0);
    if (a[i].key == 0) continue;
    if (numbers)
      pi.n = p[i];
    else {
      lua_rawgeti(L, v.i + 1, (lua_Integer)++j);
      pi = ad_takeval(L);
    }
    entry(L, &t->tape, a[i].c->u.var.node, pi,
          isflat(L, S, t, pi, 0)); /* decided above */
    if (!numbers) lua_settop(L, v.i + 1);
  }
  c->u.var.node = ad_tapenode(&t->tape);
  return v;
}

val ad_nary(lua_State *L, State *S, int op, int n, const val *in) {
  const int base = lua_gettop(L);
  int top = -1, numbers = 1;
  Arg *a;
  Nary w;
  val y;
  ad_checkstack(L, 2 * n + RULESLOTS, "list is too long");
  a = lua_newuserdatauv(L, (size_t)n * sizeof *a + 1, 0);
  for (int i = 0; i < n; i++) {
    ad_resolveval(L, S, in[i], &a[i]);
    if (a[i].key && (top < 0 || a[i].key > a[top].key)) top = i;
  }
  w.op = op;
  w.n = n;
  w.others = NULL;
  w.ties = ad_num(1);
  w.x = lua_newuserdatauv(L, (size_t)n * sizeof(val) + 1, 0);
  for (int i = 0; i < n; i++) {
    const Arg *t = top < 0 ? NULL : &a[top];
    int same =
        a[i].key && (a[i].key == t->key ||
                     (a[i].lv && t->lv && tapeof(a[i].lv) == tapeof(t->lv)));
    if (!same) {
      a[i].key = 0;
      w.x[i] = a[i].v;
    } else
      w.x[i] = ad_primalof(L, &a[i]);
    numbers &= (w.x[i].i == 0);
  }
  if (top >= 0 && AD_ISREC(a[top].kind))
    y = ad_recordlist(L, S, op, n, a);
  else if (top >= 0 && AD_ISSER(a[top].kind))
    y = ad_series(L, S, op, n, a, a[top].key);
  else {
    if (numbers)
      w.y = ad_num(ad_nvalue(op, (size_t)n, numbersof(L, n, w.x)));
    else if (top < 0 || a[top].kind != AD_BATCH)
      w.y = ad_nary(L, S, op, n, w.x);
    if (top < 0)
      y = w.y;
    else if (a[top].kind == AD_BATCH)
      y = ad_vmapnary(L, S, op, n, in);
    else if (AD_ISDUAL(a[top].kind)) {
      prepare(L, S, &w);
      y = nary_dual(L, S, &w, a, a[top].key);
    } else {
      if (!numbers) prepare(L, S, &w);
      y = nary_var(L, S, &w, a, a[top].lv, numbers);
    }
  }
  if (S->told) ad_tellgc(L, S);
  return settle(L, base, y);
}
