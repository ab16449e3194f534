/*
** series.c
** Taylor mode: operations on truncated power series, sum of c_k t^k.
**
** An operation z = g(u) satisfies z' = g_u(u, z) u', which in coefficients
** reads
**      k z_k = sum over j = 1..k of  j u_j p_{k-j},    p = g_u(u, z),
** and needs the coefficients of p below k only. So the partial derivative
** of the table is expanded to a graph of operations (with common ones
** shared: the graph of sin holds cos, whose own partial derivative is again
** -sin), and all the nodes of the graph gain their coefficient k together,
** in order of k (Griewank and Walther, Evaluating Derivatives, 2nd ed.,
** section 13.2). One operation costs n^2 for order n. Where derivatives go
** on for ever the graph is as deep as the order, and the cost n^3: lgamma,
** digamma, x^y with both varying. A constant power away from 0 has its own
** recurrence, from  x z' = p z x'.
**
** Coefficients are numbers, or values of lower levels.
*/
#include "array.h"
#include "program.h"

#include <string.h>

/* nodes after these are not looked through for common ones */
#define SHARED 64

typedef struct Node {
  int op; /* -1: coefficients are given */
  int narg;
  int arg;   /* first argument in 'args', and of its partials in 'part' */
  int need;  /* highest coefficient that is asked for */
  int isnum; /* constant: coefficients above 0 are 0 */
} Node;

typedef struct Dag {
  lua_State *L;
  State *S;
  int n;      /* order */
  int arrays; /* or values of a batch: conditions hold by element */
  int need;   /* of the nodes that are being made */
  int nnode, capnode;
  Node *node;
  val *coef; /* (n + 1) for each node */
  int narg, caparg;
  int *args;
  int *part; /* node of the partial derivative by that argument, or -1 */
} Dag;

static void *grow(Dag *d, void *old, size_t used, size_t size) {
  void *p = lua_newuserdatauv(d->L, size, 0);
  ad_checkstack(d->L, 16, "series is too long");
  if (used) memcpy(p, old, used);
  return p;
}

static int newnode(Dag *d, int op, int narg, const int *arg) {
  Node *x;
  const size_t width = (size_t)d->n + 1;
  if (d->nnode == d->capnode) {
    size_t used = (size_t)d->capnode, cap = used * 2 + 16;
    d->node = grow(d, d->node, used * sizeof *x, cap * sizeof *x);
    d->coef =
        grow(d, d->coef, used * width * sizeof(val), cap * width * sizeof(val));
    d->capnode = (int)cap;
  }
  if (d->narg + narg > d->caparg) {
    size_t used = (size_t)d->narg, cap = (used + (size_t)narg) * 2 + 16;
    d->args = grow(d, d->args, used * sizeof(int), cap * sizeof(int));
    d->part = grow(d, d->part, used * sizeof(int), cap * sizeof(int));
    d->caparg = (int)cap;
  }
  x = &d->node[d->nnode];
  x->op = op;
  x->narg = narg;
  x->arg = d->narg;
  x->need = d->need;
  x->isnum = 1;
  for (int i = 0; i < narg; i++) {
    d->args[d->narg] = arg[i];
    d->part[d->narg++] = -1;
    x->isnum &= d->node[arg[i]].isnum;
  }
  for (size_t k = 0; k < width; k++)
    d->coef[(size_t)d->nnode * width + k] = ad_num(0);
  return d->nnode++;
}

static val *coefs(Dag *d, int id) {
  return d->coef + (size_t)id * ((size_t)d->n + 1);
}

static int constant(Dag *d, val c) {
  int id;
  if (c.i == 0)
    for (id = 0; id < d->nnode && id < SHARED; id++) {
      val o = coefs(d, id)[0];
      if (d->node[id].isnum && o.i == 0 && o.n == c.n &&
          signbit(o.n) == signbit(c.n))
        return id;
    }
  id = newnode(d, -1, 0, NULL);
  coefs(d, id)[0] = c;
  return id;
}

static int operation(Dag *d, int op, int narg, const int *arg) {
  val x[AD_MAXARITY], y;
  int id, isnum = 1;
  for (id = 0; id < d->nnode && id < SHARED; id++) {
    const Node *o = &d->node[id];
    if (o->op == op && o->narg == narg &&
        memcmp(d->args + o->arg, arg, (size_t)narg * sizeof *arg) == 0)
      return id;
  }
  for (int i = 0; i < narg; i++) {
    x[i] = coefs(d, arg[i])[0];
    isnum &= d->node[arg[i]].isnum;
  }
  ad_checkstack(d->L, 16, "series is too long");
  if (narg == 1)
    y = ad_op1(d->L, d->S, op, x[0]);
  else if (narg == 2)
    y = ad_op2(d->L, d->S, op, x[0], x[1]);
  else
    y = ad_apply(d->L, d->S, op, narg, x);
  if (isnum) return constant(d, y);
  id = newnode(d, op, narg, arg);
  coefs(d, id)[0] = y;
  return id;
}

static int op1(Dag *d, int op, int x) { return operation(d, op, 1, &x); }

static int op2(Dag *d, int op, int x, int y) {
  int a[2];
  a[0] = x, a[1] = y;
  return operation(d, op, 2, a);
}

/* primal of a node: a number, unless a program is recorded */
static val primal(Dag *d, int id) {
  ad_checkstack(d->L, 16, "series is too long");
  return ad_base(d->L, d->S, coefs(d, id)[0]);
}

/* a step function of primals */
static int step(Dag *d, int op, int x, int y, int z) {
  const val b[3] = {primal(d, x), primal(d, y), primal(d, z)};
  if (b[0].i || b[1].i || b[2].i)
    return constant(d, ad_apply(d->L, d->S, op, ad_opinfo[op].arity, b));
  const double n[3] = {b[0].n, b[1].n, b[2].n};
  return constant(d, ad_num(ad_opvalue(op, n)));
}

/* ops.h and nary.h, with nodes for values */
#define K(c) constant(d, ad_num(c))
#define ADD(x, y) op2(d, OP_add, x, y)
#define SUB(x, y) op2(d, OP_sub, x, y)
#define MUL(x, y) op2(d, OP_mul, x, y)
#define DIV(x, y) op2(d, OP_div, x, y)
#define NEG(x) op1(d, OP_unm, x)
#define F1(name, x) op1(d, OP_##name, x)
#define F2(name, x, y) op2(d, OP_##name, x, y)
#define LT(x, y) condition(d, P_LT, x, y)
#define EQ(x, y) condition(d, P_EQ, x, y)
#define P2(name, x, y) step(d, OP_##name, x, y, y)
#define P3(name, x, y, z) step(d, OP_##name, x, y, z)
#define ZERO(x) K(d->node[x].isnum &&ad_isnum(coefs(d, x)[0], 0))
#define OR(x, y) op2(d, OP_max, x, y)
#define AND(x, y) op2(d, OP_min, x, y)
#define IF(c, x, y)                                                            \
  (d->arrays ? chosen(d, c, x, y) : coefs(d, c)[0].n != 0 ? (x) : (y))

/* a constant: 0 or 1, or an array of them */
static int condition(Dag *d, int cmp, int x, int y) {
  val v[2];
  v[0] = coefs(d, x)[0], v[1] = coefs(d, y)[0];
  if (!d->arrays) return K(ad_holds(d->L, d->S, cmp, v[0], v[1]));
  return constant(
      d, ad_condition(d->L, d->S, cmp == P_LT ? OP_below : OP_equal, v));
}

static int chosen(Dag *d, int c, int x, int y) {
  int a[3];
  a[0] = c, a[1] = x, a[2] = y;
  return operation(d, OP_where, 3, a);
}

static int rule(Dag *d, int op, int i, int A, int B, int C, int Y) {
  (void)B, (void)C;
  switch (op) {
#include "rules.h"
  default:
    return K(NAN);
  }
}

typedef struct List {
  int id, n;
  int ties;
  int *before, *after; /* products of the elements before and after one; or
                          their softmax */
} List;

#define X(k) d->args[d->node[w->id].arg + (k)]
#define Y w->id
#define N w->n
#define OTHERS(k) MUL(w->before[k], w->after[k])
#define SOFTMAX(k) w->before[k]
#define SHARE(k) share(d, w, k)

/* of the elements that are largest (or smallest) */
static int share(Dag *d, const List *w, int k) {
  const int p = step(d, OP_equal, X(k), Y, Y);
  if (d->node[p].isnum && ad_isnum(coefs(d, p)[0], 0)) return p;
  return DIV(p, w->ties);
}

static int listrule(Dag *d, const List *w, int op, int i) {
  switch (op) {
#define NOP(name, v, rule)                                                     \
  case OP_list_##name:                                                         \
    return rule;
#include "nary.h"
#undef NOP
  default:
    return K(NAN);
  }
}

static void expandlist(Dag *d, int id) {
  List list = {id, d->node[id].narg, 0, NULL, NULL};
  const List *w = &list;
  const int op = d->node[id].op;
  if (op == OP_list_lmax || op == OP_list_lmin) {
    list.ties = K(0);
    for (int i = 0; i < w->n; i++)
      list.ties = ADD(list.ties, step(d, OP_equal, X(i), id, id));
  }
  if (op == OP_list_prod) {
    size_t bytes = (size_t)w->n * sizeof(int) + 1;
    int acc = K(1);
    list.before = lua_newuserdatauv(d->L, bytes, 0);
    list.after = lua_newuserdatauv(d->L, bytes, 0);
    for (int i = 0; i < w->n; i++) {
      list.before[i] = acc;
      acc = MUL(acc, X(i));
    }
    acc = K(1);
    for (int i = w->n; i-- > 0;) {
      list.after[i] = acc;
      acc = MUL(acc, X(i));
    }
  }
  if (op == OP_list_logsumexp) {
    int s = K(0), m = K(-HUGE_VAL), infinite;
    list.before = lua_newuserdatauv(d->L, (size_t)w->n * sizeof(int) + 1, 0);
    for (int i = 0; i < w->n; i++) {
      const val x = primal(d, X(i)), most = coefs(d, m)[0];
      if (x.i || most.i)
        m = constant(d, ad_op2(d->L, d->S, OP_max, most, x));
      else if (x.n > most.n)
        m = constant(d, x);
    }
    infinite = EQ(F1(abs, m), K(HUGE_VAL));
    for (int i = 0; i < w->n; i++) {
      if (d->arrays)
        list.before[i] =
            chosen(d, infinite, P2(equal, X(i), m), F1(exp, SUB(X(i), m)));
      else if (coefs(d, infinite)[0].n != 0)
        list.before[i] = P2(equal, X(i), m);
      else
        list.before[i] = F1(exp, SUB(X(i), m));
      s = ADD(s, list.before[i]);
    }
    for (int i = 0; i < w->n; i++) list.before[i] = DIV(list.before[i], s);
  }
  for (int i = 0; i < w->n; i++)
    if (!d->node[X(i)].isnum) {
      int p = listrule(d, w, op, i);
      d->part[d->node[id].arg + i] = p;
    }
}

#undef X
#undef Y

/* operations that need no partial derivatives */
static int isbasic(int op) {
  return op == -1 || op == OP_add || op == OP_sub || op == OP_unm ||
         op == OP_mul || op == OP_div || op == OP_where;
}

/* products whose exact zeros are those of single elements */
static int ischain(const Dag *d, int op) {
  return d->arrays && (op == OP_cmul || op == OP_cadd || op == OP_bmul);
}

static int isconstantpower(Dag *d, const Node *x) {
  return x->op == OP_pow && !d->arrays && d->node[d->args[x->arg + 1]].isnum &&
         !ad_holds(d->L, d->S, P_EQ, coefs(d, d->args[x->arg])[0], ad_num(0));
}

static void expand(Dag *d, int id) {
  const Node x = d->node[id];
  int a[AD_MAXARITY] = {0, 0, 0};
  if (isbasic(x.op) || ischain(d, x.op) || x.isnum || x.need < 1 ||
      isconstantpower(d, &x))
    return;
  d->need = x.need - 1;
  if (x.op >= OP_list_sum) {
    expandlist(d, id);
    return;
  }
  for (int i = 0; i < x.narg; i++) a[i] = d->args[x.arg + i];
  for (int i = 0; i < x.narg; i++)
    if (!d->node[a[i]].isnum) {
      int p = rule(d, x.op, i, a[0], a[1], a[2], id);
      d->part[x.arg + i] = p;
    }
}

/*
** Coefficients
*/

static val chain(Dag *d, val acc, val t, val p) {
  ad_checkstack(d->L, 16, "series is too long");
  return ad_chain(d->L, d->S, acc, t, p);
}

static val scaled(Dag *d, val v, double c) {
  return v.i == 0 ? ad_num(v.n * c) : ad_op2(d->L, d->S, OP_mul, v, ad_num(c));
}

/* acc + a * b, where an index above 0 makes an exact 0 win */
static val product(Dag *d, val acc, val a, int ja, val b, int jb) {
  if ((ja > 0 && ad_isnum(a, 0)) || (jb > 0 && ad_isnum(b, 0))) return acc;
  return ja > 0 ? chain(d, acc, a, b) : chain(d, acc, b, a);
}

static val basic(Dag *d, const Node *x, int id, int k) {
  const int *arg = d->args + x->arg;
  const val *a = coefs(d, arg[0]);
  const val *b = x->narg > 1 ? coefs(d, arg[1]) : NULL;
  const val *z = coefs(d, id);
  val s = ad_num(0);
  switch (x->op) {
  case OP_unm:
    return ad_op1(d->L, d->S, OP_unm, a[k]);
  case OP_add:
    return ad_op2(d->L, d->S, OP_add, a[k], b[k]);
  case OP_sub:
    return ad_op2(d->L, d->S, OP_sub, a[k], b[k]);
  case OP_mul:
    for (int j = 0; j <= k; j++) s = product(d, s, a[j], j, b[k - j], k - j);
    return s;
  case OP_where: { /* what is not chosen takes no part, whatever it is */
    val v[3];
    v[0] = a[0], v[1] = b[k], v[2] = coefs(d, arg[2])[k];
    return ad_apply(d->L, d->S, OP_where, 3, v);
  }
  default: /* z b = a */
    for (int j = 1; j <= k; j++) s = product(d, s, b[j], j, z[k - j], k - j);
    if (!ad_isnum(s, 0))
      s = ad_op2(d->L, d->S, OP_sub, a[k], s);
    else
      s = a[k];
    if (ad_isnum(s, 0)) return s; /* whatever it is divided by */
    return ad_op2(d->L, d->S, OP_div, s, b[0]);
  }
}

/* coefficient of a * b, or a + b * c, as the chain rule has them */
static val product3(Dag *d, const Node *x, int k) {
  const int *arg = d->args + x->arg, sum = x->op == OP_cadd;
  const val *a = coefs(d, arg[sum]), *b = coefs(d, arg[1 + sum]);
  val s = sum ? coefs(d, arg[0])[k] : ad_num(0);
  for (int j = 0; j <= k; j++) {
    val p;
    if (ad_isnum(a[j], 0) || ad_isnum(b[k - j], 0)) continue;
    ad_checkstack(d->L, 16, "series is too long");
    p = ad_op2(d->L, d->S,
               j < k              ? OP_bmul
               : x->op == OP_bmul ? OP_bmul
                                  : OP_cmul,
               a[j], b[k - j]);
    s = ad_isnum(s, 0) ? p : ad_op2(d->L, d->S, OP_add, s, p);
  }
  return s;
}

/* k x_0 z_k = sum over j of (p j - (k - j)) x_j z_{k-j} */
static val constantpower(Dag *d, const Node *x, int id, int k) {
  const val *a = coefs(d, d->args[x->arg]), *z = coefs(d, id);
  const val p = coefs(d, d->args[x->arg + 1])[0];
  val s = ad_num(0);
  for (int j = 1; j <= k; j++) {
    val c;
    if (ad_isnum(a[j], 0)) continue;
    c = ad_op2(d->L, d->S, OP_sub, scaled(d, p, j), ad_num(k - j));
    c = ad_op2(d->L, d->S, OP_mul, c, z[k - j]);
    s = chain(d, s, a[j], c);
  }
  if (ad_isnum(s, 0)) return s;
  return ad_op2(d->L, d->S, OP_div, s, scaled(d, a[0], k));
}

static val byrule(Dag *d, const Node *x, int k) {
  val s = ad_num(0), rest = ad_num(0);
  for (int i = 0; i < x->narg; i++) {
    const int arg = d->args[x->arg + i], part = d->part[x->arg + i];
    const val *u, *p;
    if (part < 0) continue;
    u = coefs(d, arg);
    p = coefs(d, part);
    s = chain(d, s, u[k], p[0]);
    if (d->node[part].isnum) continue;
    for (int j = 1; j < k; j++) {
      if (ad_isnum(u[j], 0) || ad_isnum(p[k - j], 0)) continue;
      rest = chain(d, rest, scaled(d, u[j], j), p[k - j]);
    }
  }
  if (ad_isnum(rest, 0)) return s;
  return ad_op2(d->L, d->S, OP_add, s, scaled(d, rest, 1.0 / k));
}

/* the one new value above 'base' moves down to it */
static val settle(lua_State *L, int base, val v) {
  if (v.i > base) {
    lua_pushvalue(L, v.i);
    lua_replace(L, base + 1);
    lua_settop(L, base + 1);
    v.i = base + 1;
  } else
    lua_settop(L, base);
  return v;
}

val ad_series(lua_State *L, State *S, int op, int n, const Arg *a,
              uint64_t key) {
  Dag dag, *d = &dag;
  int root, *arg;
  memset(d, 0, sizeof *d);
  d->L = L;
  d->S = S;
  for (int i = 0; i < n; i++) {
    int order = a[i].key ? ad_nparts(L, &a[i]) : 0;
    if (order > d->n) d->n = order;
  }
  d->need = d->n;
  arg = lua_newuserdatauv(L, (size_t)n * sizeof *arg + 1, 0);
  for (int i = 0; i < n; i++) {
    val v = ad_primalof(L, &a[i]);
    d->arrays |= v.i && ad_byelement(L, S, v.i);
    if (a[i].key == 0) {
      arg[i] = constant(d, v);
      continue;
    }
    arg[i] = newnode(d, -1, 0, NULL);
    ad_checkstack(L, d->n + 16, "series is too long");
    coefs(d, arg[i])[0] = v;
    for (int k = 1; k <= d->n; k++) {
      val c = ad_part(L, &a[i], k);
      coefs(d, arg[i])[k] = c;
      if (!ad_isnum(c, 0)) d->node[arg[i]].isnum = 0;
    }
    d->node[arg[i]].isnum = 0; /* not to be shared as a constant */
  }
  if (op >= OP_list_sum) {
    val *x = lua_newuserdatauv(L, (size_t)n * sizeof *x + 1, 0), y;
    for (int i = 0; i < n; i++) x[i] = coefs(d, arg[i])[0];
    y = ad_nary(L, S, op, n, x);
    root = newnode(d, op, n, arg);
    coefs(d, root)[0] = y;
  } else
    root = operation(d, op, n, arg);
  for (int id = 0; id < d->nnode; id++) expand(d, id);
  for (int k = 1; k <= d->n; k++)
    for (int id = 0; id < d->nnode; id++) {
      const Node x = d->node[id];
      const int base = lua_gettop(L);
      if (x.op < 0 || x.isnum || x.need < k) continue;
      coefs(d, id)[k] =
          settle(L, base,
                 isbasic(x.op)            ? basic(d, &x, id, k)
                 : ischain(d, x.op)       ? product3(d, &x, k)
                 : isconstantpower(d, &x) ? constantpower(d, &x, id, k)
                                          : byrule(d, &x, k));
      ad_checkstack(L, 16, "series is too long");
    }
  if (d->arrays) { /* an operand that is broadcast leaves them as they are */
    Shape shape;
    ad_shapeof(L, S, coefs(d, root)[0], &shape);
    for (int k = 1; k <= d->n; k++) {
      val *c = &coefs(d, root)[k];
      const int base = lua_gettop(L);
      if (!ad_isnum(*c, 0)) *c = settle(L, base, ad_toshape(L, S, *c, &shape));
      ad_checkstack(L, 16, "series is too long");
    }
  }
  return ad_pushparts(L, S, key, AD_SERN, coefs(d, root)[0], d->n,
                      coefs(d, root) + 1);
}
