/*
** lower.c
** From a recorded program to Code: value numbering along the tree of blocks,
** with constants folded and identities used that are exact in floating point;
** then what nobody needs is left out, and the rest gets slots.
**
** The tree of predecessors is the dominator tree, so that an operation may be
** taken from any block above its own.
*/
#include "lower.h"

#include <string.h>

void *ad_lowerget(Lower *w, size_t n, size_t size) {
  void *at = w->p->alloc(w->p->ud, NULL, 0, (n + 1) * size);
  if (at == NULL)
    w->failed = 1;
  else
    memset(at, 0, (n + 1) * size);
  return at;
}

void ad_lowerput(const Lower *w, void *at, size_t n, size_t size) {
  if (at != NULL) w->p->alloc(w->p->ud, at, (n + 1) * size, 0);
}

/*
** Value numbering
*/

static uint32_t emit(Lower *w, int op, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r = ad_recop(&w->q, op, a, b, c);
  if (r == P_NOMEM) {
    w->failed = 1;
    return 0 | P_K;
  }
  return r;
}

static uint32_t konst(Lower *w, double x) {
  const uint32_t r = ad_progconst(&w->q, x);
  if (r == P_NOMEM) {
    w->failed = 1;
    return 0 | P_K;
  }
  return r;
}

static int isconst(const Lower *w, uint32_t r, double *x) {
  if (!(r & P_K) || w->failed) return 0;
  *x = ad_progvalue(&w->q, r);
  return 1;
}

static int isop(const Lower *w, uint32_t r, int op) {
  return !(r & P_K) && w->q.ins[r].op == op;
}

static int above(const Lower *w, uint32_t a, uint32_t b) {
  return w->pre[a] <= w->pre[b] && w->pre[b] < w->pre[a] + w->size[a];
}

/*
** The block for an operation on the n values x: that in which it is asked for,
** or, if the values are there already, the one from which the loop is entered.
** That another run of the loop may not come there makes no difference but for
** the time: operations have no effects. Calls stay where they are.
*/
static uint32_t outward(const Lower *w, const Ins *i) {
  const uint32_t in[3] = {i->a, i->b, i->c};
  const uint32_t *x = ad_islist(i->op) ? w->q.list + i->a : in;
  const uint32_t n = ad_islist(i->op) ? i->b : (uint32_t)ad_insarity(i->op);
  uint32_t at = w->block;
  if (i->op == P_PHI || i->op == P_PUSH || i->op == P_POP || i->op == P_CALL ||
      i->op == P_RESULT || i->op == P_KARRAY || w->options & P_PLAIN)
    return at;
  while (w->loop[at] != P_NONE) {
    const uint32_t up = w->p->block[w->loop[at]].parent;
    for (uint32_t k = 0; k < n; k++)
      if (!(x[k] & P_K) && !above(w, w->home[x[k]], up)) return at;
    at = up;
  }
  return at;
}

/* instruction r is the value of that hash in its block */
static uint32_t added(Lower *w, uint32_t h, uint32_t r) {
  if (w->failed) return r;
  if (r >= w->caphome) {
    const uint32_t ncap = w->caphome * 2;
    uint32_t *home = ad_lowerget(w, ncap, sizeof *home);
    uint32_t *next = ad_lowerget(w, ncap, sizeof *next);
    if (w->failed) {
      ad_lowerput(w, home, ncap, sizeof *home);
      ad_lowerput(w, next, ncap, sizeof *next);
      return r;
    }
    memcpy(home, w->home, w->caphome * sizeof *home);
    memcpy(next, w->next, w->caphome * sizeof *next);
    ad_lowerput(w, w->home, w->caphome, sizeof *home);
    ad_lowerput(w, w->next, w->caphome, sizeof *next);
    w->home = home;
    w->next = next;
    w->caphome = ncap;
  }
  w->home[r] = outward(w, &w->q.ins[r]);
  w->hoisted |= w->home[r] != w->block;
  w->next[r] = w->head[h];
  w->head[h] = r + 1;
  return r;
}

static uint32_t number(Lower *w, int op, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t h = (uint32_t)op * 0x9e3779b1u, r;
  h = (h ^ a) * 0x85ebca6bu;
  h = (h ^ (h >> 15) ^ b) * 0xc2b2ae35u;
  h = (h ^ (h >> 13) ^ c) * 0x9e3779b1u;
  h = (h ^ (h >> 16)) & (w->nhead - 1);
  for (r = w->head[h]; r != 0; r = w->next[r - 1]) {
    const Ins *i = &w->q.ins[r - 1];
    if (i->op == op && i->a == a && i->b == b && i->c == c &&
        above(w, w->home[r - 1], w->block))
      return r - 1;
  }
  return added(w, h, emit(w, op, a, b, c));
}

/* the same for a call, whose operands have just been put into the list */
static uint32_t numbercall(Lower *w, uint32_t first, uint32_t n,
                           uint32_t call) {
  const uint32_t *x = w->q.list + first;
  uint32_t h = (call + P_CALL) * 0x9e3779b1u, r;
  for (uint32_t k = 0; k < n; k++) h = (h ^ (h >> 15) ^ x[k]) * 0x85ebca6bu;
  h = (h ^ (h >> 16)) & (w->nhead - 1);
  for (r = w->head[h]; r != 0; r = w->next[r - 1]) {
    const Ins *i = &w->q.ins[r - 1];
    if (i->op == P_CALL && i->c == call && i->b == n &&
        (n == 0 || memcmp(w->q.list + i->a, x, n * sizeof *x) == 0) &&
        above(w, w->home[r - 1], w->block)) {
      w->q.nlist = first;
      return r - 1;
    }
  }
  return added(w, h, emit(w, P_CALL, first, n, call));
}

/* is 1/x exact, so that to divide is to multiply? */
static int ispower(double x) {
  int e;
  if (x == 0 || !isfinite(x)) return 0;
  return fabs(frexp(x, &e)) == 0.5 && e > -1020 && e < 1020;
}

/* is a value 0 (and not -0), 1, or between them, whatever the operands are? */
static int isstep(const Lower *w, uint32_t r) {
  double x;
  if (isconst(w, r, &x)) return x == 1 || (x == 0 && !signbit(x));
  switch (w->q.ins[r].op) {
  case OP_below:
  case OP_atmost:
  case OP_equal:
  case OP_first:
  case OP_second:
  case OP_inside:
  case OP_beyond:
    return 1;
  default:
    return 0;
  }
}

/* is it a whole number, infinite, or NaN? */
static int iswhole(const Lower *w, uint32_t r) {
  return isop(w, r, OP_floor) || isop(w, r, OP_ceil) || isop(w, r, OP_trunc) ||
         isop(w, r, OP_idiv);
}

/* is a value never NaN nor infinite, whatever the operands are? */
static int isbounded(Lower *w, uint32_t r) {
  double x;
  if (isconst(w, r, &x)) return isfinite(x);
  if (isstep(w, r)) return 1;
  if (w->options & P_RELAX) w->c->relaxed = 1;
  return w->options & P_RELAX;
}

/* is its result NaN when an operand is? */
static int passesnan(int op) {
  switch (op) {
  case OP_pow:
  case OP_hypot:
  case OP_max:
  case OP_min:
  case OP_clamp:
  case OP_cmul:
  case OP_below:
  case OP_equal:
  case OP_first:
  case OP_second:
  case OP_inside:
  case OP_beyond:
    return 0;
  default:
    return !ad_islist(op) && op != P_PUSH && op != P_POP && op != P_PHI;
  }
}

/*
** With P_RELAX, 0 times inf in the chain rule is NaN instead of 0. That may
** be if it shows: all that it flows into passes it on to the results. Then
** whoever runs the code sees a NaN and turns to the exact form.
*/
static int canrelax(Lower *w) {
  const Prog *p = w->p;
  uint8_t *tainted = ad_lowerget(w, p->nins, 1);
  int ok = !w->failed;
#define TAINTED(r) (!((r)&P_K) && tainted[r])
  for (uint32_t i = 0; ok && i < p->nins; i++) {
    const Ins *x = &p->ins[i];
    const int n = ad_insarity(x->op);
    const int in = (n > 0 && TAINTED(x->a)) || (n > 1 && TAINTED(x->b)) ||
                   (n > 2 && TAINTED(x->c));
    tainted[i] = (uint8_t)(in || x->op == OP_cmul || x->op == OP_cadd);
    if (in && !passesnan(x->op) && x->op != OP_cmul) ok = 0;
    if (ad_islist(x->op) || x->op == P_CALL)
      for (uint32_t k = 0; k < x->b; k++)
        if (TAINTED(p->list[x->a + k])) ok = 0;
  }
  for (uint32_t k = 0; ok && k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (b->end == P_IF && (TAINTED(b->a) || TAINTED(b->b))) ok = 0;
    if (b->end == P_GOTO)
      for (uint32_t j = 0; j < b->b; j++)
        if (TAINTED(p->list[b->a + j])) ok = 0;
  }
#undef TAINTED
  ad_lowerput(w, tainted, p->nins, 1);
  return ok;
}

/* is a value never below 0, nor -0? Looks at operands so deep. */
static int ispositive(const Lower *w, uint32_t r, int depth) {
  const Ins *i;
  double x;
  if (isconst(w, r, &x)) return x >= 0 && !signbit(x);
  if (isstep(w, r)) return 1;
  i = &w->q.ins[r];
  switch (i->op) {
  case OP_exp:
  case OP_abs:
  case OP_relu:
    return 1;
  case OP_mul:
    if (i->a == i->b) return 1;
    /* FALLTHROUGH */
  case OP_add:
    return depth > 0 && ispositive(w, i->a, depth - 1) &&
           ispositive(w, i->b, depth - 1);
  default:
    return 0;
  }
}

/*
** The value of an operation. The identities hold for all operands, zeros with
** their signs, infinities, and NaN included; 'cmul' and 'cadd', whose zeros
** are those of derivatives, keep the value of a zero but not its sign.
*/
static uint32_t simplify(Lower *w, int op, uint32_t a, uint32_t b, uint32_t c) {
  double x = 0, y = 0, z = 0;
  const int n = ad_insarity(op);
  const int ka = n > 0 && isconst(w, a, &x), kb = n > 1 && isconst(w, b, &y),
            kc = n > 2 && isconst(w, c, &z);
  if (w->failed) return 0 | P_K;
  if (w->options & P_PLAIN) return number(w, op, a, b, c);
  if (ka + kb + kc == n) {
    const double in[3] = {x, y, z};
    return konst(w, ad_insvalue(op, in));
  }
  if (ka && (op == OP_add || op == OP_mul)) /* constants come second */
    return simplify(w, op, b, a, 0);
  switch (op) {
  case OP_unm:
    if (isop(w, a, OP_unm)) return w->q.ins[a].a;
    if (isop(w, a, OP_mul) && isconst(w, w->q.ins[a].b, &y))
      return simplify(w, OP_mul, w->q.ins[a].a, konst(w, -y), 0);
    break;
  case OP_add:
    if (kb && y == 0 && (signbit(y) || ispositive(w, a, 4))) return a;
    if (a == b) /* with another sum that is one operation */
      return simplify(w, OP_mul, a, konst(w, 2), 0);
    if (isop(w, b, OP_unm)) return simplify(w, OP_sub, a, w->q.ins[b].a, 0);
    if (isop(w, a, OP_unm)) return simplify(w, OP_sub, b, w->q.ins[a].a, 0);
    break;
  case OP_sub:
    if (kb && y == 0 && !signbit(y)) return a;
    if (ka && x == 0 && signbit(x)) return simplify(w, OP_unm, b, 0, 0);
    if (isop(w, b, OP_unm)) return simplify(w, OP_add, a, w->q.ins[b].a, 0);
    if (isop(w, b, OP_mul) && isconst(w, w->q.ins[b].b, &z)) {
      /* a product and a sum are one operation of the interpreter */
      const uint32_t m = simplify(w, OP_mul, w->q.ins[b].a, konst(w, -z), 0);
      return simplify(w, OP_add, a, m, 0);
    }
    break;
  case OP_mul:
    if (kb && y == 1) return a;
    if (kb && y == -1) return simplify(w, OP_unm, a, 0, 0);
    if (kb && isop(w, a, OP_mul) && isconst(w, w->q.ins[a].b, &z) &&
        ispower(z) && fabs(z) >= 1 && fabs(y) >= 1 && isfinite(y * z))
      return simplify(w, OP_mul, w->q.ins[a].a, konst(w, y * z), 0);
    if (isop(w, a, OP_unm) && isop(w, b, OP_unm))
      return simplify(w, OP_mul, w->q.ins[a].a, w->q.ins[b].a, 0);
    if (a == b && isop(w, a, OP_abs))
      return simplify(w, OP_mul, w->q.ins[a].a, w->q.ins[a].a, 0);
    if (kb && isop(w, a, OP_unm))
      return simplify(w, OP_mul, w->q.ins[a].a, konst(w, -y), 0);
    break;
  case OP_div:
    if (kb && y == 1) return a;
    if (kb && y == -1) return simplify(w, OP_unm, a, 0, 0);
    if (kb && (ispower(y) || (w->options & P_FAST && isfinite(1 / y))))
      return simplify(w, OP_mul, a, konst(w, 1 / y), 0);
    if (isop(w, a, OP_unm) && isop(w, b, OP_unm))
      return simplify(w, OP_div, w->q.ins[a].a, w->q.ins[b].a, 0);
    if (kb && isop(w, a, OP_unm))
      return simplify(w, OP_div, w->q.ins[a].a, konst(w, -y), 0);
    if (ka && isop(w, b, OP_unm))
      return simplify(w, OP_div, konst(w, -x), w->q.ins[b].a, 0);
    break;
  case OP_pow:
    if (kb && y == 0) return konst(w, 1);
    if (kb && y == 1) return a;
    if (kb && y == -1) return simplify(w, OP_div, konst(w, 1), a, 0);
    if (kb && y == 0.5) return simplify(w, P_ROOT, a, 0, 0);
    if (kb && y == 2) return simplify(w, OP_mul, a, a, 0);
    if (kb && (y == 3 || y == 4 || y == 5 || y == 6 || y == 8)) {
      const uint32_t s = simplify(w, OP_mul, a, a, 0);
      const uint32_t t = y == 3 ? a : simplify(w, OP_mul, s, s, 0);
      if (y == 4) return t;
      return simplify(w, OP_mul, t, y == 5 ? a : y == 8 ? t : s, 0);
    }
    break;
  case OP_cmul:
    if (ka && x == 0) return konst(w, 0);
    if (ka || isbounded(w, b)) return simplify(w, OP_mul, a, b, 0);
    break;
  case OP_cadd:
    if (kb && y == 0) return a;
    if (kb || isbounded(w, c))
      return simplify(w, OP_add, a, simplify(w, OP_mul, b, c, 0), 0);
    if (ka && x == 0) return simplify(w, OP_cmul, b, c, 0);
    break;
  case OP_max:
  case OP_min:
    if (a == b) return a;
    if (kb && y == (op == OP_max ? -HUGE_VAL : HUGE_VAL)) return a;
    if (isstep(w, a) && isstep(w, b)) { /* "or" and "and" */
      const double wins = op == OP_max ? 1 : 0;
      if (ka) return x == wins ? a : b;
      if (kb) return y == wins ? b : a;
    }
    break;
  case OP_where:
    if (ka) return x != 0 ? b : c;
    if (b == c) return b;
    break;
  case OP_below:
    if (a == b) return konst(w, 0);
    break;
  case OP_relu:
  case OP_sign:
    if (isop(w, a, op)) return a;
    break;
  case OP_floor:
  case OP_ceil:
  case OP_trunc:
    if (iswhole(w, a)) return a;
    break;
  case OP_abs:
    if (ispositive(w, a, 4)) return a;
    if (isop(w, a, OP_unm)) return simplify(w, OP_abs, w->q.ins[a].a, 0, 0);
    break;
  default:
    break;
  }
  if ((op == OP_add || op == OP_mul) && a > b) { /* constants come last */
    const uint32_t t = a;
    a = b;
    b = t;
  }
  return number(w, op, a, b, c);
}

static uint32_t mapped(const Lower *w, uint32_t r) {
  /* constants of p have the same numbers in q */
  return r & P_K ? r : w->to[r];
}

static void listed(Lower *w, uint32_t n, const uint32_t *x, uint32_t *first) {
  uint32_t *out;
  *first = w->q.nlist;
  if (!ad_progroom(&w->q, 0, 0, n)) {
    w->failed = 1;
    return;
  }
  out = w->q.list + w->q.nlist;
  for (uint32_t k = 0; k < n; k++) out[k] = mapped(w, x[k]);
  w->q.nlist += n;
}

/*
** Does what 'u' compares, and that it was so or not, decide what 'b' does? Of
** numbers that are not in order one may be NaN: not more follows from that.
*/
static int follows(const Block *u, int was, const Block *b, int *holds) {
  const int same = u->a == b->a && u->b == b->b,
            turned = u->a == b->b && u->b == b->a;
  if ((same && u->cmp == b->cmp) ||
      (turned && u->cmp == P_EQ && b->cmp == P_EQ)) {
    *holds = was;
    return 1;
  }
  if (!(same || turned) || u->cmp == P_SAME || b->cmp == P_SAME) return 0;
  if (!was) { /* nor is it less */
    *holds = 0;
    return (u->cmp == P_LE && same && b->cmp != P_LE) ||
           (u->cmp == P_LE && b->cmp == P_EQ);
  }
  if (u->cmp == P_LE) { /* the other way round it cannot be less */
    *holds = 0;
    return turned && b->cmp == P_LT;
  }
  *holds = b->cmp == P_LE && (same || u->cmp == P_EQ);
  return 1;
}

/*
** Has the comparison been decided further up? Looks at so many blocks.
*/
#define LOOKUP 32

static int decided(const Lower *w, const Block *b, int *holds) {
  uint32_t at = w->block;
  double x, y;
  if (isconst(w, b->a, &x) && isconst(w, b->b, &y)) {
    *holds = ad_compare(b->cmp, x, y);
    return 1;
  }
  if (b->a == b->b && (b->cmp == P_LT || b->cmp == P_SAME)) {
    *holds = b->cmp == P_SAME;
    return 1;
  }
  for (int n = 0; n < LOOKUP; n++) {
    const uint32_t below = at;
    const Block *u;
    if (w->q.block[at].parent == P_NONE) return 0;
    at = w->q.block[at].parent;
    u = &w->q.block[at];
    if (u->end == P_IF && u->yes != u->no &&
        follows(u, u->yes == below, b, holds))
      return 1;
  }
  return 0;
}

/*
** A phi that only ever gets one value, beside itself, is that value. 'phi' is
** the head's number j; its values are in the jumps to it.
*/
static uint32_t onlyvalue(const Lower *w, uint32_t head, uint32_t j) {
  const Prog *p = w->p;
  const uint32_t self = p->block[head].first + j;
  uint32_t only = P_NONE;
  for (uint32_t k = p->block[head].parent; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    uint32_t r;
    if (b->end != P_GOTO || b->yes != head) continue;
    r = p->list[b->a + j];
    if (r == self || r == only) continue;
    if (only != P_NONE) return P_NONE;
    only = r;
  }
  return only;
}

/*
** Two phis that get the same values are one: the recorder gives each variable
** its own. Number k < j of the head that is the same as number j, or j. Looks
** at so many.
*/
#define ALIKE 32

static uint32_t samephi(const Lower *w, uint32_t head, uint32_t j) {
  const Prog *p = w->p;
  const uint32_t from = j > ALIKE ? j - ALIKE : 0;
  for (uint32_t i = from; i < j; i++) {
    int same = 1;
    for (uint32_t k = p->block[head].parent; same && k < p->nblock; k++) {
      const Block *b = &p->block[k];
      if (b->end == P_GOTO && b->yes == head)
        same = p->list[b->a + i] == p->list[b->a + j];
    }
    if (same) return i;
  }
  return j;
}

static void optimise(Lower *w) {
  const Prog *p = w->p;
  Prog *q = &w->q;
  for (w->block = 0; w->block < p->nblock && !w->failed; w->block++) {
    const Block *b = &p->block[w->block];
    Block *o;
    int holds;
    o = &q->block[w->block];
    *o = *b;
    o->first = o->last = q->nins;
    if (w->block == 0) o->first = 0;
    q->here = w->block;
    q->state = P_APPEND;
    for (uint32_t i = b->first; i < b->last && !w->failed; i++) {
      const Ins *x = &p->ins[i];
      uint32_t r;
      if (w->regroup != NULL && ad_regroup(w, i, &r)) {
        w->to[i] = r;
        continue;
      }
      if (x->op == P_INPUT)
        r = i;
      else if (x->op == P_CALL) {
        uint32_t first;
        listed(w, x->b, p->list + x->a, &first);
        if (w->failed) return;
        r = numbercall(w, first, x->b, x->c);
      } else if (x->op == P_RESULT)
        r = number(w, P_RESULT, mapped(w, x->a), x->b, 0);
      else if (x->op == P_KARRAY)
        r = number(w, P_KARRAY, x->a, 0, 0);
      else if (ad_islist(x->op)) {
        uint32_t first;
        listed(w, x->b, p->list + x->a, &first);
        if (w->failed) return;
        r = number(w, x->op, first, x->b, 0);
      } else if (x->op == P_PHI &&
                 (r = onlyvalue(w, w->block, i - b->first)) != P_NONE)
        r = mapped(w, r);
      else if (x->op == P_PHI && !(w->options & P_PLAIN) &&
               (r = samephi(w, w->block, i - b->first)) != i - b->first)
        r = w->to[b->first + r];
      else if (x->op == P_PHI || x->op == P_POP)
        r = number(w, x->op, x->a, q->nins, 0); /* no two are the same */
      else {
        const int n = ad_insarity(x->op);
        const uint32_t a = n > 0 ? mapped(w, x->a) : 0,
                       c = n > 1 ? mapped(w, x->b) : 0,
                       d = n > 2 ? mapped(w, x->c) : 0;
        r = x->op == P_PUSH ? number(w, x->op, a, q->nins, 0)
                            : simplify(w, x->op, a, c, d);
      }
      w->to[i] = r;
      if (x->flags & P_ARRAY && !w->failed) q->ins[r].flags |= P_ARRAY;
    }
    if (w->failed) return;
    o = &q->block[w->block];
    if (b->end == P_IF) {
      o->a = mapped(w, b->a);
      o->b = mapped(w, b->b);
      if (!(w->options & P_PLAIN) && decided(w, o, &holds)) {
        const uint32_t to = holds ? o->yes : o->no;
        if (to != P_NONE) { /* else there is nowhere to go */
          o->end = P_GOTO;
          o->yes = to;
          o->no = P_NONE;
          o->b = 0;
        }
      }
    }
  }
  /* lists of jumps and results: what is jumped with may come later */
  for (uint32_t k = 0; k < p->nblock && !w->failed; k++) {
    const Block *b = &p->block[k];
    if (b->end == P_RETURN || b->end == P_GOTO)
      listed(w, b->b, p->list + b->a, &q->block[k].a);
    if (b->end == P_GOTO && b->b > 0 && !w->failed) { /* phis that are left */
      const uint32_t phi = p->block[b->yes].first;
      uint32_t *x = q->list + q->block[k].a, n = 0, last = 0;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t r = w->to[phi + j];
        if (isop(w, r, P_PHI) && w->home[r] == b->yes && r >= last) {
          x[n++] = x[j];
          last = r + 1;
        }
      }
      q->block[k].b = n;
    }
  }
}

/*
** What is needed. Marks go from a value to its operands, which come before
** it; only the values that a loop goes round with make more than one pass.
*/

static void need(const Lower *w, uint32_t r) {
  if (!(r & P_K)) w->live[r] = 1;
}

static void mark(Lower *w) {
  const Prog *q = &w->q;
  int again = 1;
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    if (b->end == P_IF) {
      need(w, b->a);
      need(w, b->b);
    } else if (b->end == P_RETURN)
      for (uint32_t j = 0; j < b->b; j++) need(w, q->list[b->a + j]);
  }
  while (again) {
    again = 0;
    for (uint32_t i = q->nins; i-- > 0;) {
      const Ins *x = &q->ins[i];
      const int n = ad_insarity(x->op);
      if (x->op == P_PUSH || x->op == P_POP) w->live[i] = 1;
      if (!w->live[i]) continue;
      if (n > 0) need(w, x->a);
      if (n > 1) need(w, x->b);
      if (n > 2) need(w, x->c);
      if (x->op == P_RESULT) need(w, x->a);
      if (ad_islist(x->op) || x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++) need(w, q->list[x->a + j]);
    }
    for (uint32_t k = 0; k < q->nblock; k++) {
      const Block *b = &q->block[k];
      const Ins *phi;
      if (b->end != P_GOTO) continue;
      phi = q->ins + q->block[b->yes].first;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t r = q->list[b->a + j];
        if (w->live[phi + j - q->ins] && !(r & P_K) && !w->live[r])
          w->live[r] = 1, again = 1;
      }
    }
  }
}

/*
** Slots
*/

static uint32_t slotof(const Lower *w, uint32_t r) {
  if (r & P_K) return w->kslot[r & ~P_K];
  return w->q.ins[r].flags & P_ARRAY ? w->slot[r] | P_A : w->slot[r];
}

static int isarray(const Lower *w, uint32_t r) {
  return !(r & P_K) && w->q.ins[r].flags & P_ARRAY;
}

/* notes that block k, at instruction 'at', uses a value */
static void use(Lower *w, uint32_t r, uint32_t k, uint32_t at) {
  if (r & P_K) return;
  if (w->home[r] != k)
    w->q.ins[r].flags |= P_KEEP;
  else if (w->last[r] < at + 1)
    w->last[r] = at + 1;
}

static void uses(Lower *w) {
  const Prog *q = &w->q;
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &q->ins[i];
      const int n = ad_insarity(x->op);
      if (!w->live[i]) continue;
      if (x->op == P_PHI) q->ins[i].flags |= P_KEEP;
      if (n > 0) use(w, x->a, k, i);
      if (n > 1) use(w, x->b, k, i);
      if (n > 2) use(w, x->c, k, i);
      if (ad_islist(x->op) || x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++) use(w, q->list[x->a + j], k, i);
    }
    if (b->end == P_IF) {
      use(w, b->a, k, b->last);
      use(w, b->b, k, b->last);
    } else if (b->end == P_GOTO) {
      const uint32_t phi = q->block[b->yes].first;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t r = q->list[b->a + j];
        if (!w->live[phi + j]) continue;
        if (isarray(w, r))
          q->ins[r].flags |= P_KEEP;
        else
          use(w, r, k, b->last);
      }
    } else
      for (uint32_t j = 0; j < b->b; j++)
        if (!(q->list[b->a + j] & P_K))
          q->ins[q->list[b->a + j]].flags |= P_KEEP;
  }
}

/*
** Arrays. Those that come out of a call as they are may share the memory of its
** operands.
*/

/* the memory that the value of a call is to be written into; 0: none */
static size_t sizeofcall(const Lower *w, uint32_t r) {
  const Ins *x = &w->q.ins[r];
  if (x->op != P_CALL || w->p->callsize == NULL) return 0;
  return w->p->callsize(w->p->callud, x->c);
}

static int isvalue(const Lower *w, uint32_t r) {
  const int op = w->q.ins[r].op;
  return w->q.ins[r].flags & P_ARRAY && (op == P_CALL || op == P_RESULT);
}

/* operands live as long as results that may share their memory */
static void share(Lower *w) {
  const Prog *q = &w->q;
  for (uint32_t r = q->nins; r-- > 0;) {
    const Ins *x;
    if (!w->live[r] || !isvalue(w, r) || sizeofcall(w, r) != 0) continue;
    if (!(q->ins[r].flags & P_KEEP) && w->last[r] == 0) continue;
    x = &q->ins[q->ins[r].op == P_RESULT ? q->ins[r].a : r];
    for (uint32_t j = 0; j < x->b; j++) {
      const uint32_t o = q->list[x->a + j];
      if (o & P_K || !(q->ins[o].flags & P_ARRAY)) continue;
      if (q->ins[r].flags & P_KEEP || w->home[o] != w->home[r])
        q->ins[o].flags |= P_KEEP;
      else if (w->last[o] < w->last[r])
        w->last[o] = w->last[r];
    }
  }
}

/* a slot for a value of block k; 'busy' is k + 1 for those that are taken */
static uint32_t arrayslot(const Lower *w, uint32_t *busy, uint32_t k,
                          size_t size) {
  Code *c = w->c;
  uint32_t s = c->nain + c->nakon;
  while (s < c->narray && (busy[s] == k + 1 || c->asize[s] != size)) s++;
  if (s == c->narray) c->asize[c->narray++] = size;
  busy[s] = k + 1;
  return s;
}

/* is an array operand of x, last used there, in memory that may be reused? */
static int dies(const Lower *w, uint32_t r, uint32_t k, uint32_t i) {
  return !(r & P_K) && isvalue(w, r) && w->home[r] == k &&
         w->last[r] == i + 1 && !(w->q.ins[r].flags & P_KEEP);
}

/*
** The arrays that are kept make a list up the tree: 'kept' by block, 'next' by
** value. Of the others 'next' makes lists by the instruction where they end:
** 'end', 1 + value.
*/
static void arrayslots(Lower *w, uint32_t *busy, uint32_t *kept, uint32_t *next,
                       uint32_t *end) {
  const Prog *q = &w->q;
  for (uint32_t r = 0; r < q->nins; r++)
    if (w->live[r] && isvalue(w, r) && !(q->ins[r].flags & P_KEEP) &&
        w->last[r] != 0) {
      next[r] = end[w->last[r] - 1];
      end[w->last[r] - 1] = r + 1;
    }
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    kept[k] = b->parent == P_NONE ? P_NONE : kept[b->parent];
    for (uint32_t r = kept[k]; r != P_NONE; r = next[r])
      busy[w->slot[r]] = k + 1;
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &q->ins[i];
      const size_t size = x->op == P_CALL ? sizeofcall(w, i) : 0;
      int views = 0;
      if (!w->live[i]) continue;
      if (x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++) {
          const uint32_t r = q->list[x->a + j];
          if (!(r & P_K) && isvalue(w, r)) views |= sizeofcall(w, r) == 0;
        }
      if (isvalue(w, i) || (x->op == P_PHI && x->flags & P_ARRAY)) {
        uint32_t in = P_NONE;
        for (uint32_t j = 0; size > 0 && !views && j < x->b; j++) {
          const uint32_t r = q->list[x->a + j];
          if (dies(w, r, k, i) && w->c->asize[w->slot[r]] == size) in = r;
        }
        if (!(x->flags & P_KEEP) && w->last[i] == 0)
          w->slot[i] = P_NONE;   /* nobody wants it */
        else if (in != P_NONE) { /* where that was */
          w->slot[i] = w->slot[in];
          w->last[in] = 0;
        } else
          w->slot[i] = arrayslot(w, busy, k, size);
        if (x->flags & P_KEEP) {
          next[i] = kept[k];
          kept[k] = i;
        }
      }
      for (uint32_t r = end[i]; r != 0; r = next[r - 1])
        if (w->last[r - 1] != 0) busy[w->slot[r - 1]] = 0;
    }
  }
}

/* slots of inputs and constants, then of values; 0: no memory */
static int arrays(Lower *w) {
  const Prog *q = &w->q;
  Code *c = w->c;
  uint32_t n = 0, nk = 0, *map, *busy, *kept, *next, *end;
  for (uint32_t i = 0; i < q->nins; i++) {
    if (!(q->ins[i].flags & P_ARRAY)) continue;
    if (q->ins[i].op == P_INPUT)
      w->slot[i] = c->nain++;
    else if (w->live[i])
      n++;
    if (q->ins[i].op == P_KARRAY && q->ins[i].a >= nk) nk = q->ins[i].a + 1;
  }
  c->narray = c->nain;
  if (n + c->nain == 0) return 1;
  n++; /* for rings of assignments */
  map = ad_lowerget(w, nk, sizeof *map);
  for (uint32_t i = 0; i < q->nins && !w->failed; i++)
    if (q->ins[i].op == P_KARRAY && w->live[i]) {
      uint32_t *s = &map[q->ins[i].a];
      if (*s == 0) *s = c->nain + ++c->nakon;
      w->slot[i] = *s - 1;
    }
  c->narray += c->nakon;
  n += c->nain;
  c->akon = c->alloc(c->ud, NULL, 0, (c->nakon + 1) * sizeof *c->akon);
  c->asize = c->alloc(c->ud, NULL, 0, n * sizeof *c->asize);
  c->capsize = c->asize ? n : 0;
  if (c->akon == NULL || c->asize == NULL) w->failed = 1;
  busy = ad_lowerget(w, n, sizeof *busy);
  kept = ad_lowerget(w, q->nblock, sizeof *kept);
  next = ad_lowerget(w, q->nins, sizeof *next);
  end = ad_lowerget(w, q->nins, sizeof *end);
  if (!w->failed) {
    memset(c->asize, 0, n * sizeof *c->asize);
    for (uint32_t k = 0; k < nk; k++)
      if (map[k] != 0) c->akon[map[k] - 1 - c->nain] = k;
    share(w);
    arrayslots(w, busy, kept, next, end);
    c->narray++;
  }
  ad_lowerput(w, map, nk, sizeof *map);
  ad_lowerput(w, busy, n, sizeof *busy);
  ad_lowerput(w, kept, q->nblock, sizeof *kept);
  ad_lowerput(w, next, q->nins, sizeof *next);
  ad_lowerput(w, end, q->nins, sizeof *end);
  return !w->failed;
}

/*
** Values that are kept have a slot for as long as the tree below their block
** lasts; siblings share. Others share within the block, the one that was
** given back last first. 'base' by block: where free slots begin.
*/
static uint32_t allocate(Lower *w, uint32_t *base, uint32_t *spare,
                         uint32_t firstslot) {
  const Prog *q = &w->q;
  uint32_t most = firstslot;
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    uint32_t top = b->parent == P_NONE ? firstslot : base[b->parent];
    uint32_t nspare = 0;
    for (uint32_t i = b->first; i < b->last; i++)
      if (w->live[i] && q->ins[i].op != P_INPUT &&
          (q->ins[i].flags & (P_KEEP | P_ARRAY)) == P_KEEP)
        w->slot[i] = top++;
    base[k] = top;
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &q->ins[i];
      uint32_t in[3], n = (uint32_t)ad_insarity(x->op);
      const uint32_t *operand = in;
      if (!w->live[i] || x->op == P_INPUT) continue;
      in[0] = x->a, in[1] = x->b, in[2] = x->c;
      if (ad_islist(x->op) || x->op == P_CALL) {
        operand = q->list + x->a;
        n = x->b;
      }
      for (uint32_t j = 0; j < n; j++) {
        const uint32_t r = operand[j];
        if (!(r & P_K) && w->home[r] == k && w->last[r] == i + 1 &&
            q->ins[r].op != P_INPUT &&
            !(q->ins[r].flags & (P_KEEP | P_ARRAY))) {
          spare[nspare++] = w->slot[r];
          w->last[r] = 0; /* once */
        }
      }
      if (x->flags & (P_KEEP | P_ARRAY) || x->op == P_PUSH) continue;
      w->slot[i] = nspare ? spare[--nspare] : top++;
    }
    if (top > most) most = top;
  }
  return most;
}

/*
** The Code
*/

static void put_ins(Code *c, int op, int flags, uint32_t d, uint32_t a,
                    uint32_t b, uint32_t e) {
  Ins *i = &c->ins[c->nins++];
  i->op = (uint16_t)op;
  i->flags = (uint16_t)flags;
  i->d = d;
  i->a = a;
  i->b = b;
  i->c = e;
}

static void put_move(Code *c, int flags, uint32_t to, uint32_t from) {
  if (!(flags & P_ARRAY)) {
    put_ins(c, P_MOV, flags, to, from, 0, 0);
    return;
  }
  put_ins(c, P_CALL, 0, 0, c->nlist, 1, P_NONE);
  c->list[c->nlist++] = from | P_A;
  c->list[c->nlist++] = 1;
  c->list[c->nlist++] = to | P_A;
}

/*
** The assignments of a jump, all at once. A move whose target is still to be
** read waits; what then waits for itself in a ring goes round through 'temp'.
** 'reads' counts by slot and is all 0 before and after.
*/
static void moves(Code *c, int array, uint32_t n, uint32_t *to, uint32_t *from,
                  uint32_t *reads, uint32_t temp) {
  uint32_t left = 0;
  for (uint32_t j = 0; j < n; j++)
    if (to[j] != from[j]) {
      to[left] = to[j];
      from[left++] = from[j];
    }
  n = left;
  for (uint32_t j = 0; j < n; j++) reads[from[j]]++;
  while (n > 0) {
    left = 0;
    for (uint32_t j = 0; j < n; j++) {
      if (reads[to[j]] == 0) {
        put_move(c, array | P_KEEP, to[j], from[j]);
        reads[from[j]]--;
      } else {
        to[left] = to[j];
        from[left++] = from[j];
      }
    }
    if (left == n) { /* rings only: open one */
      const uint32_t s = to[0];
      put_move(c, array, temp, s);
      for (uint32_t j = 0; j < n; j++)
        if (from[j] == s) {
          reads[s]--;
          from[j] = temp;
          reads[temp]++;
        }
      put_move(c, array | P_KEEP, s, from[0]);
      reads[from[0]]--;
      for (uint32_t j = 1; j < n; j++) {
        to[j - 1] = to[j];
        from[j - 1] = from[j];
      }
      left = n - 1;
      /* temp may be needed by a later ring: finish this one first */
    }
    n = left;
  }
}

/* which constants are used, and what there is to be of each kind */
static void count(const Lower *w, Code *c, uint32_t *nmoves, uint32_t *most) {
  const Prog *q = &w->q;
#define USED(r) ((r)&P_K ? (void)(w->kslot[(r) & ~P_K] = 1) : (void)0)
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &q->ins[i];
      const int n = ad_insarity(x->op);
      if (x->op == P_RESULT) c->caplist++; /* its call may be live */
      if (!w->live[i]) continue;
      c->capins++;
      if (n > 0) USED(x->a);
      if (n > 1) USED(x->b);
      if (n > 2) USED(x->c);
      if (ad_islist(x->op) || x->op == P_CALL) {
        c->caplist += x->b + 2;
        if (x->op != P_CALL && x->b > c->maxlist) c->maxlist = x->b;
        for (uint32_t j = 0; j < x->b; j++) USED(q->list[x->a + j]);
      }
      if (x->op == P_PUSH) c->stack = 1;
    }
    if (b->end == P_IF) {
      USED(b->a);
      USED(b->b);
      continue;
    }
    if (b->end == P_GOTO) {
      *nmoves += b->b * 2;
      c->caplist += b->b * 6;
      if (b->b > *most) *most = b->b;
      if (b->yes <= k) c->loops = 1;
    } else
      c->caplist += b->b;
    for (uint32_t j = 0; j < b->b; j++) USED(q->list[b->a + j]);
  }
#undef USED
}

/* constants that are used, after the three that are always there */
static int constants(const Lower *w, Code *c) {
  const Prog *q = &w->q;
  c->nconst = 3;
  for (uint32_t k = 0; k < q->nconst; k++) {
    const double x = q->constant[k];
    if (x == 1)
      w->kslot[k] = 0;
    else if (x == -1)
      w->kslot[k] = 1;
    else if (x == 0 && signbit(x))
      w->kslot[k] = 2;
    else if (w->kslot[k])
      w->kslot[k] = c->nconst++;
  }
  c->constant = c->alloc(c->ud, NULL, 0, c->nconst * sizeof *c->constant);
  if (c->constant == NULL) return 0;
  c->constant[0] = 1;
  c->constant[1] = -1;
  c->constant[2] = -0.0;
  for (uint32_t k = 0; k < q->nconst; k++)
    if (w->kslot[k] > 2) c->constant[w->kslot[k]] = q->constant[k];
  return 1;
}

/* the source of a dropped assignment is where it should be: it must stay */
static void keep(const Lower *w, Code *c, uint32_t r) {
  int op;
  if (r & P_K) return;
  op = w->q.ins[r].op; /* what calls give is there anyway */
  if (op != P_INPUT && op != P_PHI && op != P_CALL && op != P_RESULT)
    c->ins[w->last[r]].flags |= P_KEEP;
}

/* a call with the slots of its results */
static void putcall(const Lower *w, Code *c, uint32_t i) {
  const Prog *q = &w->q;
  const Ins *x = &q->ins[i];
  uint32_t *n;
  put_ins(c, P_CALL, x->flags, 0, c->nlist, x->b, x->c);
  for (uint32_t j = 0; j < x->b; j++)
    c->list[c->nlist++] = slotof(w, q->list[x->a + j]);
  n = &c->list[c->nlist++];
  *n = 0;
  for (uint32_t r = i; r < q->nins && (r == i || q->ins[r].op == P_RESULT);
       r++) {
    (*n)++;
    c->list[c->nlist++] = w->live[r] ? slotof(w, r) : P_NONE;
  }
  c->ncall++;
}

static void write(const Lower *w, Code *c, uint32_t *to, uint32_t *from,
                  uint32_t *reads, uint32_t temp) {
  const Prog *q = &w->q;
  for (uint32_t k = 0; k < q->nblock; k++) {
    const Block *b = &q->block[k];
    Block *o = &c->block[k];
    *o = *b;
    o->first = c->nins;
    if (b->end == P_GOTO) { /* what is in a phi's slot anyway has to be there */
      const uint32_t phi = q->block[b->yes].first;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t r = q->list[b->a + j];
        if (w->live[phi + j] && !(r & P_K) && !isarray(w, r) &&
            w->slot[r] == w->slot[phi + j])
          q->ins[r].flags |= P_KEEP;
      }
    }
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &q->ins[i];
      const int n = ad_insarity(x->op);
      if (!w->live[i] || x->op == P_INPUT || x->op == P_PHI ||
          x->op == P_RESULT || x->op == P_KARRAY)
        continue;
      if (x->op == P_CALL) {
        putcall(w, c, i);
        continue;
      }
      w->last[i] = c->nins; /* from now on: where it is */
      if (ad_islist(x->op)) {
        put_ins(c, x->op, x->flags, w->slot[i], c->nlist, x->b, 0);
        for (uint32_t j = 0; j < x->b; j++)
          c->list[c->nlist++] = slotof(w, q->list[x->a + j]);
      } else
        put_ins(c, x->op, x->flags, w->slot[i], n > 0 ? slotof(w, x->a) : 0,
                n > 1 ? slotof(w, x->b) : 0, n > 2 ? slotof(w, x->c) : 0);
    }
    if (b->end == P_IF) {
      o->a = slotof(w, b->a);
      o->b = slotof(w, b->b);
    } else if (b->end == P_GOTO) {
      const uint32_t phi = q->block[b->yes].first;
      for (int array = 0; array <= P_ARRAY; array += P_ARRAY) {
        uint32_t n = 0;
        for (uint32_t j = 0; j < b->b; j++) {
          const uint32_t r = q->list[b->a + j];
          if (!w->live[phi + j] || (q->ins[phi + j].flags & P_ARRAY) != array)
            continue;
          to[n] = w->slot[phi + j];
          from[n] = slotof(w, r) & ~(array ? P_A : 0);
          if (!array && from[n] == to[n]) keep(w, c, r);
          n++;
        }
        moves(c, array, n, to, from, reads, array ? c->narray - 1 : temp);
      }
      o->a = o->b = 0;
    } else {
      o->a = c->nlist;
      for (uint32_t j = 0; j < b->b; j++)
        c->list[c->nlist++] = slotof(w, q->list[b->a + j]);
    }
    o->last = c->nins;
    o->loop = w->loop[k];
  }
}

static int build(Lower *w) {
  const Prog *q = &w->q;
  Code *c = w->c;
  uint32_t nmoves = 0, most = 0, nreads = 0, temp;
  uint32_t *base, *reads, *to, *from, *spare;
  c->alloc = w->p->alloc;
  c->ud = w->p->ud;
  c->nin = q->nin;
  w->kslot = ad_lowerget(w, q->nconst, sizeof *w->kslot);
  w->slot = ad_lowerget(w, q->nins, sizeof *w->slot);
  w->last = ad_lowerget(w, q->nins, sizeof *w->last);
  if (w->failed) return 0;
  count(w, c, &nmoves, &most);
  c->capins += nmoves + 1;
  c->caplist++;
  if (!constants(w, c)) {
    c->nconst = c->capins = c->caplist = 0;
    return 0;
  }
  c->ins = c->alloc(c->ud, NULL, 0, c->capins * sizeof *c->ins);
  if (c->ins == NULL) c->capins = 0;
  c->list = c->alloc(c->ud, NULL, 0, c->caplist * sizeof *c->list);
  if (c->list == NULL) c->caplist = 0;
  c->block = c->alloc(c->ud, NULL, 0, q->nblock * sizeof *c->block);
  if (c->block != NULL) c->nblock = q->nblock;
  if (c->ins == NULL || c->list == NULL || c->block == NULL) return 0;
  base = ad_lowerget(w, q->nblock, sizeof *base);
  spare = ad_lowerget(w, q->nins, sizeof *spare);
  to = ad_lowerget(w, most, sizeof *to);
  from = ad_lowerget(w, most, sizeof *from);
  reads = NULL;
  if (!w->failed) {
    uses(w);
    for (uint32_t k = 0; k < q->nin; k++) w->slot[k] = c->nconst + k;
  }
  if (!w->failed && arrays(w)) {
    temp = allocate(w, base, spare, c->nconst + q->nin);
    c->nslot = temp + (most > 0);
    nreads = c->nslot > c->narray ? c->nslot : c->narray;
    reads = ad_lowerget(w, nreads, sizeof *reads);
    if (!w->failed) write(w, c, to, from, reads, temp);
  }
  ad_lowerput(w, base, q->nblock, sizeof *base);
  ad_lowerput(w, spare, q->nins, sizeof *spare);
  ad_lowerput(w, to, most, sizeof *to);
  ad_lowerput(w, from, most, sizeof *from);
  ad_lowerput(w, reads, nreads, sizeof *reads);
  return !w->failed;
}

/* the tree of the blocks, from their parents */
static void tree(Lower *w) {
  const Prog *p = w->p;
  uint32_t *place =
      ad_lowerget(w, p->nblock, sizeof *place); /* of the next child */
  if (w->failed) return;
  for (uint32_t k = p->nblock; k-- > 0;) {
    w->size[k]++;
    if (p->block[k].parent != P_NONE) w->size[p->block[k].parent] += w->size[k];
  }
  for (uint32_t k = 0; k < p->nblock; k++) {
    const uint32_t up = p->block[k].parent;
    w->pre[k] = up == P_NONE ? 0 : place[up];
    if (up != P_NONE) place[up] += w->size[k];
    place[k] = w->pre[k] + 1;
  }
  ad_lowerput(w, place, p->nblock, sizeof *place);
}

/*
** Puts the instructions of w->q in another order: number i becomes to[i]. The
** blocks' first and last are the caller's to set.
*/
static void arrange(Lower *w, const uint32_t *to) {
  Prog *q = &w->q;
  const uint32_t n = q->nins;
  Ins *ins = q->alloc(q->ud, NULL, 0, (n + 1) * sizeof *ins);
  uint32_t *home = ad_lowerget(w, w->caphome, sizeof *home);
  if (ins == NULL || w->failed) {
    if (ins != NULL) q->alloc(q->ud, ins, (n + 1) * sizeof *ins, 0);
    ad_lowerput(w, home, w->caphome, sizeof *home);
    w->failed = 1;
    return;
  }
#define MOVED(r) ((r)&P_K ? (r) : to[r])
  for (uint32_t i = 0; i < n; i++) {
    Ins *x = &ins[to[i]];
    const int arity = ad_insarity(q->ins[i].op);
    *x = q->ins[i];
    home[to[i]] = w->home[i];
    if (arity > 0 || x->op == P_RESULT) x->a = MOVED(x->a);
    if (arity > 1) x->b = MOVED(x->b);
    if (arity > 2) x->c = MOVED(x->c);
  }
  for (uint32_t k = 0; k < q->nlist; k++) q->list[k] = MOVED(q->list[k]);
  for (uint32_t k = 0; k < q->nblock; k++) {
    Block *b = &q->block[k];
    if (b->end != P_IF) continue;
    b->a = MOVED(b->a);
    b->b = MOVED(b->b);
  }
#undef MOVED
  memcpy(q->ins, ins, n * sizeof *ins);
  q->alloc(q->ud, ins, (n + 1) * sizeof *ins, 0);
  ad_lowerput(w, w->home, w->caphome, sizeof *home);
  w->home = home;
}

/* what has left its loop goes to its block */
static void bringhome(Lower *w) {
  Prog *q = &w->q;
  uint32_t *to = ad_lowerget(w, q->nins, sizeof *to);
  uint32_t *n = ad_lowerget(w, q->nblock, sizeof *n), at = 0;
  if (!w->failed) {
    for (uint32_t i = 0; i < q->nins; i++) n[w->home[i]]++;
    for (uint32_t k = 0; k < q->nblock; k++) {
      q->block[k].first = at;
      at += n[k];
      n[k] = q->block[k].first;
      q->block[k].last = at;
    }
    for (uint32_t i = 0; i < q->nins; i++) to[i] = n[w->home[i]]++;
    arrange(w, to);
  }
  ad_lowerput(w, to, q->nins, sizeof *to);
  ad_lowerput(w, n, q->nblock, sizeof *n);
}

/* from w->p to w->q, and what of that is needed */
static int lower(Lower *w) {
  const Prog *p = w->p;
  w->to = ad_lowerget(w, p->nins, sizeof *w->to);
  w->pre = ad_lowerget(w, p->nblock, sizeof *w->pre);
  w->size = ad_lowerget(w, p->nblock, sizeof *w->size);
  w->loop = ad_lowerget(w, p->nblock, sizeof *w->loop);
  w->head = ad_lowerget(w, w->nhead, sizeof *w->head);
  w->next = ad_lowerget(w, w->caphome, sizeof *w->next);
  w->home = ad_lowerget(w, w->caphome, sizeof *w->home);
  if (w->failed || !ad_progroom(&w->q, 0, p->nblock, 0)) return 0;
  for (uint32_t k = 0; k < p->nconst; k++)
    if (ad_progconst(&w->q, p->constant[k]) == P_NOMEM) return 0;
  w->q.nblock = p->nblock;
  tree(w);
  ad_progloops(p, w->loop);
  if (w->options & P_RELAX && w->regroup == NULL && !canrelax(w))
    w->options &= ~P_RELAX;
  if (!w->failed) optimise(w);
  if (!w->failed && w->hoisted) bringhome(w);
  if (w->failed) return 0;
  w->live = ad_lowerget(w, w->q.nins, 1);
  if (!w->failed) mark(w);
  return !w->failed;
}

static int begin(Lower *w, const Prog *p, Code *c, int options) {
  memset(w, 0, sizeof *w);
  w->p = p;
  w->c = c;
  w->options = options;
  w->nhead = 64;
  while (w->nhead < p->nins) w->nhead *= 2;
  w->caphome = p->nins + 16;
  if (!ad_proginit(&w->q, p->alloc, p->ud, p->nin)) return 0;
  for (uint32_t k = 0; k < p->nin; k++) w->q.ins[k].flags = p->ins[k].flags;
  w->q.callsize = p->callsize;
  w->q.callud = p->callud;
  return 1;
}

static void finish(Lower *w) {
  const Prog *p = w->p;
  ad_regroupfree(w);
  ad_lowerput(w, w->live, w->q.nins, 1);
  ad_lowerput(w, w->slot, w->q.nins, sizeof *w->slot);
  ad_lowerput(w, w->last, w->q.nins, sizeof *w->last);
  ad_lowerput(w, w->kslot, w->q.nconst, sizeof *w->kslot);
  ad_lowerput(w, w->to, p->nins, sizeof *w->to);
  ad_lowerput(w, w->pre, p->nblock, sizeof *w->pre);
  ad_lowerput(w, w->size, p->nblock, sizeof *w->size);
  ad_lowerput(w, w->loop, p->nblock, sizeof *w->loop);
  ad_lowerput(w, w->head, w->nhead, sizeof *w->head);
  ad_lowerput(w, w->next, w->caphome, sizeof *w->next);
  ad_lowerput(w, w->home, w->caphome, sizeof *w->home);
  ad_progfree(&w->q);
}

int ad_lower(const Prog *p, Code *c, int options) {
  Lower w, v;
  int ok;
  memset(c, 0, sizeof *c);
  if (!begin(&w, p, c, options)) return 0;
  ok = lower(&w);
  if (ok && (options & (P_FAST | P_PLAIN)) == P_FAST) {
    ok = begin(&v, &w.q, c, w.options);
    if (ok) {
      ok = ad_regroupinit(&v, &w) && lower(&v) && build(&v);
      finish(&v);
    }
  } else
    ok = ok && build(&w);
  c->fused = (options & (P_FAST | P_PLAIN)) == P_FAST;
  finish(&w);
  if (!ok) ad_codefree(c);
  return ok;
}

uint32_t ad_lowerop(Lower *w, int op, uint32_t a, uint32_t b, uint32_t c) {
  return simplify(w, op, a, b, c);
}

uint32_t ad_lowerconst(Lower *w, double x) { return konst(w, x); }
