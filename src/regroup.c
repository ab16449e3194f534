/*
** regroup.c
** What P_FAST allows: sums and products in another order. The program has
** been optimised before; while it is numbered once more, each tree of sums (or
** of products) of which only the root is used elsewhere becomes a list of
** terms, which is summed up anew:
**
**   - equal terms become one, with a coefficient; equal factors a power
**   - terms in the order in which they are made, so that sums that begin alike
**     are computed once, and what does not change in a loop comes first and
**     leaves it
**   - with up to eight partial sums side by side, if one alone would be waited
**     for: a machine begins two sums in each cycle, but waits four for each
**   - quotients with the same divisor are products with its reciprocal
**
** The error of a sum of n terms is at most n - 1 roundings of the sum of their
** magnitudes before and after. What overflows on the way may be another.
*/
#include "lower.h"

#include <stdlib.h>
#include <string.h>

#define MOST 8   /* partial sums */
#define GATHER 7 /* terms that may wait for each other */

typedef struct Term {
  uint64_t key;  /* place in the program: block, instruction */
  uint32_t ref;  /* in w->q */
  uint32_t many; /* of a product: how often */
  double coef;   /* of a sum; of a product: 1 */
} Term;

/* a tree with more terms than are gathered first: what there is of it */
typedef struct Long {
  double constant;
  uint32_t n;     /* terms so far */
  uint32_t width; /* partial sums */
  Term part[MOST];
} Long;

#define P_LONG 0x80000000u

struct Regroup {
  const Lower *before;
  uint32_t *user;  /* of an inner one */
  uint32_t *terms; /* by root: how many there are, or P_LONG + its number; 0:
                      it stays as it is */
  uint32_t *first; /* by root: the first instruction of the tree */
  uint8_t *minus;  /* of an inner one: is it subtracted? */
  Long *large;
  uint32_t nlarge;
  uint32_t *uses;  /* by instruction: how often it is used */
  uint32_t *quots; /* ... how often as a divisor */
  uint8_t *inner;  /* ... is it part of the tree of its only user? */
  Term *term;
  uint32_t *stack, n;
  uint32_t *when; /* by instruction of w->q: cycles in its block until then */
  uint32_t nwhen, capwhen;
};

static int issum(int op) {
  return op == OP_add || op == OP_sub || op == OP_unm;
}

/* may the value of operation 'op' be part of the tree of its user? */
static int isinner(int op, int user) {
  if (user == OP_mul) return op == OP_mul || op == OP_unm;
  return issum(op) && issum(user);
}

static void counts(Lower *w) {
  const Prog *p = w->p;
  struct Regroup *g = w->regroup;
  const uint8_t *live = g->before->live;
  const uint32_t *home = g->before->home;
#define USED(r)                                                                \
  if (!((r)&P_K)) g->uses[r]++
  for (uint32_t k = 0; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &p->ins[i];
      const int n = ad_insarity(x->op);
      if (!live[i]) continue;
      if (n > 0) USED(x->a);
      if (n > 1) USED(x->b);
      if (n > 2) USED(x->c);
      if (x->op == OP_div && !(x->b & P_K)) g->quots[x->b]++;
      if (ad_islist(x->op) || x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++) USED(p->list[x->a + j]);
    }
    if (b->end == P_IF) {
      USED(b->a);
      USED(b->b);
    } else {
      const uint32_t phi = b->end == P_GOTO ? p->block[b->yes].first : 0;
      for (uint32_t j = 0; j < b->b; j++)
        if (b->end != P_GOTO || live[phi + j]) USED(p->list[b->a + j]);
    }
  }
#undef USED
  for (uint32_t i = p->nins; i-- > 0;) { /* users first */
    const Ins *x = &p->ins[i];
    const uint32_t in[2] = {x->a, x->b};
    int op = x->op;
    if (!live[i] || !(issum(op) || op == OP_mul)) continue;
    if (g->inner[i] && p->ins[g->user[i]].op == OP_mul) op = OP_mul;
    for (int k = 0; k < ad_insarity(x->op); k++)
      if (!(in[k] & P_K) && g->uses[in[k]] == 1 && home[in[k]] == home[i] &&
          isinner(p->ins[in[k]].op, op)) {
        g->inner[in[k]] = 1;
        g->user[in[k]] = i;
      }
  }
}

static int minus(const Ins *x, int k) {
  return x->op == OP_unm || (x->op == OP_sub && k == 1);
}

/*
** Is anything gained by another order of the few terms of a sum? Two of them
** are the same, or constant, or some do not change in the loop. Else they stay
** as they are, each close to where it is used.
*/
static int isworth(const Lower *w, uint32_t root) {
  const Prog *p = w->p;
  const struct Regroup *g = w->regroup;
  const uint32_t *home = g->before->home, head = g->before->loop[home[root]];
  uint32_t stack[GATHER], seen[GATHER], n = 0, top = 0, constants = 0;
  stack[top++] = root;
  while (top > 0) {
    const Ins *x = &p->ins[stack[--top]];
    const uint32_t in[2] = {x->a, x->b};
    for (int k = 0; k < ad_insarity(x->op); k++) {
      uint32_t r = in[k];
      if (!(r & P_K) && g->inner[r]) {
        stack[top++] = r;
        continue;
      }
      if (!(r & P_K) && p->ins[r].op == OP_unm) r = p->ins[r].a;
      if (!(r & P_K) && p->ins[r].op == OP_mul && g->uses[r] == 1 &&
          p->ins[r].b & P_K)
        r = p->ins[r].a;
      if (r & P_K)
        constants++;
      else if (head != P_NONE && home[r] < head)
        return 1;
      for (uint32_t j = 0; j < n; j++)
        if (seen[j] == r) return 1;
      seen[n++] = r;
    }
  }
  return constants > 1;
}

/* leaves a tree as it is */
static void leave(const Lower *w, uint32_t root) {
  const struct Regroup *g = w->regroup;
  uint32_t stack[GATHER], top = 0;
  stack[top++] = root;
  while (top > 0) {
    const Ins *x = &w->p->ins[stack[--top]];
    const uint32_t in[2] = {x->a, x->b};
    for (int k = 0; k < ad_insarity(x->op); k++)
      if (!(in[k] & P_K) && g->inner[in[k]]) {
        g->inner[in[k]] = 0;
        stack[top++] = in[k];
      }
  }
  g->terms[root] = 0;
}

/* trees of sums that are so long that terms cannot wait for the last one */
static void longsums(Lower *w) {
  const Prog *p = w->p;
  struct Regroup *g = w->regroup;
  uint32_t *root = g->user, n = 0;
  for (uint32_t i = p->nins; i-- > 0;) {
    const Ins *x = &p->ins[i];
    const uint32_t in[2] = {x->a, x->b};
    if (!g->before->live[i] || !issum(x->op) ||
        (g->inner[i] && p->ins[root[i]].op == OP_mul))
      continue;
    root[i] = g->inner[i] ? root[root[i]] : i;
    g->first[root[i]] = i;
    for (int k = 0; k < ad_insarity(x->op); k++)
      if (!(in[k] & P_K) && g->inner[in[k]])
        g->minus[in[k]] = g->minus[i] ^ (uint8_t)minus(x, k);
      else if (++g->terms[root[i]] == GATHER + 1)
        n++;
  }
  g->large = ad_lowerget(w, n, sizeof *g->large);
  g->nlarge = n;
  n = 0;
  for (uint32_t i = 0; !w->failed && i < p->nins; i++) {
    const uint32_t many = g->terms[i];
    if (many == 0) continue;
    if (many <= GATHER && !isworth(w, i)) {
      leave(w, i);
      continue;
    }
    if (many <= GATHER || g->before->loop[g->before->home[i]] != P_NONE)
      continue;
    /* where much else is done between two terms, nobody waits */
    if ((i - g->first[i]) / many > 16)
      g->large[n].width = 1;
    else
      g->large[n].width = many < 16 ? 2 : many < 32 ? 4 : MOST;
    g->terms[i] = P_LONG | n++;
  }
}

/*
** Time
*/

static uint32_t latency(int op) {
  switch (op) {
  case OP_unm:
  case OP_abs:
  case P_MOV:
    return 1;
  case OP_add:
  case OP_sub:
  case OP_mul:
  case OP_max:
  case OP_min:
    return 4;
  case OP_div:
  case OP_sqrt:
  case P_ROOT:
    return 16;
  case P_INPUT:
  case P_PHI:
  case P_POP:
    return 0;
  default:
    return 40;
  }
}

/* when is a value there, seen from this block? */
static uint32_t when(Lower *w, uint32_t r) {
  struct Regroup *g = w->regroup;
  const Prog *q = &w->q;
  if (r & P_K || w->failed || w->home[r] != w->block) return 0;
  if (r >= g->capwhen) {
    const uint32_t ncap = q->capins;
    uint32_t *p = ad_lowerget(w, ncap, sizeof *p);
    if (p == NULL) return 0;
    memcpy(p, g->when, g->nwhen * sizeof *p);
    ad_lowerput(w, g->when, g->capwhen, sizeof *p);
    g->when = p;
    g->capwhen = ncap;
  }
  for (; g->nwhen <= r; g->nwhen++) {
    const Ins *x = &q->ins[g->nwhen];
    const uint32_t in[3] = {x->a, x->b, x->c};
    const int n = ad_insarity(x->op);
    uint32_t t = 0;
    for (int k = 0; k < n; k++)
      if (!(in[k] & P_K) && w->home[in[k]] == w->home[g->nwhen] &&
          g->when[in[k]] > t)
        t = g->when[in[k]];
    g->when[g->nwhen] = t + latency(x->op);
  }
  return g->when[r];
}

/* when is a term there? */
static uint32_t termtime(Lower *w, const Term *t) {
  return when(w, t->ref) + (fabs(t->coef) == 1 ? 0 : 4);
}

/* when are n terms summed up by m sums? */
static uint32_t finish(Lower *w, const Term *t, uint32_t n, uint32_t m) {
  uint32_t end[MOST];
  for (uint32_t k = 0; k < n; k++) {
    const uint32_t at = termtime(w, &t[k]);
    uint32_t *e = &end[k % m];
    *e = k < m ? at : (*e > at ? *e : at) + 4;
  }
  for (uint32_t step = 1; step < m; step *= 2)
    for (uint32_t j = 0; j + step < m; j += 2 * step)
      end[j] = (end[j] > end[j + step] ? end[j] : end[j + step]) + 4;
  return end[0];
}

/* how many partial sums are worth it? */
static uint32_t width(Lower *w, const Term *t, uint32_t n) {
  uint32_t best = 1, least = finish(w, t, n, 1);
  for (uint32_t m = 2; m <= MOST && m * 2 <= n; m *= 2) {
    const uint32_t end = finish(w, t, n, m);
    if (end + least / 8 >= least) continue;
    least = end;
    best = m;
  }
  return best;
}

/*
** Lists of terms
*/

static int order(const void *x, const void *y) {
  const uint64_t a = ((const Term *)x)->key, b = ((const Term *)y)->key;
  return a < b ? -1 : a > b;
}

static void sort(Term *t, uint32_t n) {
  if (n > 16) {
    qsort(t, n, sizeof *t, order);
    return;
  }
  for (uint32_t i = 1; i < n; i++) {
    const Term x = t[i];
    uint32_t j = i;
    for (; j > 0 && t[j - 1].key > x.key; j--) t[j] = t[j - 1];
    t[j] = x;
  }
}

static void setterm(const Lower *w, Term *t, uint32_t ref, double coef) {
  t->ref = ref;
  t->coef = coef;
  t->many = 1;
  t->key = ref & P_K ? ref & ~P_K : (uint64_t)w->home[ref] << 32 | ref;
}

static int isconst(const Lower *w, uint32_t ref, double *x) {
  if (!(ref & P_K) || w->failed) return 0;
  *x = ad_progvalue(&w->q, ref);
  return 1;
}

/* a term with its coefficient's magnitude; the sign remains */
static uint32_t scaled(Lower *w, const Term *t) {
  if (fabs(t->coef) == 1) return t->ref;
  return ad_lowerop(w, OP_mul, t->ref, ad_lowerconst(w, fabs(t->coef)), 0);
}

/* *t = *t + x, or *t * x, with signs but no coefficients */
static void join(Lower *w, int op, Term *t, const Term *x) {
  uint32_t r;
  if (op == OP_mul || t->coef == x->coef)
    r = ad_lowerop(w, op, t->ref, x->ref, 0);
  else if (t->coef > 0)
    r = ad_lowerop(w, OP_sub, t->ref, x->ref, 0);
  else {
    r = ad_lowerop(w, OP_sub, x->ref, t->ref, 0);
    t->coef = 1;
  }
  t->ref = r;
}

/* the sum, or the product, of n terms: its sign is left in 'coef' */
static Term total(Lower *w, int op, const Term *t, uint32_t n) {
  const uint32_t m = width(w, t, n);
  Term part[MOST];
  for (uint32_t k = 0; k < n; k++) {
    Term x = t[k];
    x.ref = scaled(w, &t[k]);
    x.coef = x.coef < 0 ? -1 : 1;
    if (k < m)
      part[k] = x;
    else
      join(w, op, &part[k % m], &x);
  }
  for (uint32_t step = 1; step < m; step *= 2)
    for (uint32_t j = 0; j + step < m; j += 2 * step)
      join(w, op, &part[j], &part[j + step]);
  return part[0];
}

/* is a term made before the loop? */
static int isoutside(const Lower *w, const Term *t) {
  const uint32_t head = w->loop[w->block];
  return head != P_NONE && t->key >> 32 < head;
}

/* ... of which those that do not change in the loop come first */
static Term grouped(Lower *w, int op, Term *t, uint32_t n) {
  uint32_t k = 0;
  while (k < n && isoutside(w, &t[k])) k++;
  if (k > 1 && k < n) {
    t[k - 1] = total(w, op, t, k);
    t += k - 1;
    n -= k - 1;
  }
  return total(w, op, t, n);
}

/*
** Sums
*/

/* the terms of the tree at an instruction of w->p */
static void terms(Lower *w, uint32_t root) {
  struct Regroup *g = w->regroup;
  const Prog *p = w->p;
  double constant = 0, x;
  uint32_t n = 0, top = 0;
  g->stack[top++] = root << 1;
  while (top > 0) {
    const uint32_t at = g->stack[--top], negative = at & 1;
    const Ins *i = &p->ins[at >> 1];
    const uint32_t in[2] = {i->a, i->b};
    for (int k = ad_insarity(i->op); k-- > 0;) {
      const uint32_t sign = negative ^ (uint32_t)minus(i, k);
      uint32_t ref;
      double coef = sign ? -1 : 1;
      if (!(in[k] & P_K) && g->inner[in[k]]) {
        g->stack[top++] = in[k] << 1 | sign;
        continue;
      }
      ref = in[k] & P_K ? in[k] : w->to[in[k]];
      if (!(ref & P_K) && w->q.ins[ref].op == OP_unm) {
        coef = -coef;
        ref = w->q.ins[ref].a;
      }
      if (!(ref & P_K) && g->uses[in[k]] == 1 && w->q.ins[ref].op == OP_mul &&
          isconst(w, w->q.ins[ref].b, &x) && x != 0 && isfinite(x)) {
        coef *= x;
        ref = w->q.ins[ref].a;
      }
      if (isconst(w, ref, &x))
        constant += coef * x;
      else
        setterm(w, &g->term[n++], ref, coef);
    }
  }
  if (constant != 0) {
    setterm(w, &g->term[n], ad_lowerconst(w, constant), 1);
    g->term[n++].key = 0;
  }
  g->n = n;
}

static uint32_t sum(Lower *w, uint32_t root) {
  struct Regroup *g = w->regroup;
  Term *t = g->term, s;
  uint32_t n = 0;
  terms(w, root);
  if (w->failed || g->n == 0) return ad_lowerconst(w, 0);
  sort(t, g->n);
  for (uint32_t k = 0; k < g->n; k++) {
    const double coef = n > 0 ? t[n - 1].coef + t[k].coef : 0;
    if (n > 0 && t[n - 1].ref == t[k].ref && coef != 0 && isfinite(coef))
      t[n - 1].coef = coef; /* (x - x is NaN where x is infinite) */
    else
      t[n++] = t[k];
  }
  s = grouped(w, OP_add, t, n);
  if (n == 1) s.ref = scaled(w, t);
  return s.coef < 0 ? ad_lowerop(w, OP_unm, s.ref, 0, 0) : s.ref;
}

/* what a part of a long sum adds to it; at its root, the sum */
static uint32_t longsum(Lower *w, uint32_t i) {
  const struct Regroup *g = w->regroup;
  const Ins *x = &w->p->ins[i];
  const uint32_t in[2] = {x->a, x->b};
  Long *s = &g->large[g->terms[g->user[i]] & ~P_LONG];
  double c;
  for (int k = 0; k < ad_insarity(x->op); k++) {
    const int sign = g->minus[i] ^ minus(x, k);
    Term t;
    if (!(in[k] & P_K) && g->inner[in[k]]) continue;
    setterm(w, &t, in[k] & P_K ? in[k] : w->to[in[k]], sign ? -1 : 1);
    if (isconst(w, t.ref, &c)) {
      s->constant += t.coef * c;
      continue;
    }
    if (s->n < s->width)
      s->part[s->n] = t;
    else
      join(w, OP_add, &s->part[s->n % s->width], &t);
    s->n++;
  }
  if (i != g->user[i]) return 0 | P_K;
  if (s->n < s->width) s->width = s->n;
  if (s->n == 0) return ad_lowerconst(w, s->constant);
  for (uint32_t step = 1; step < s->width; step *= 2)
    for (uint32_t j = 0; j + step < s->width; j += 2 * step)
      join(w, OP_add, &s->part[j], &s->part[j + step]);
  if (s->constant != 0) {
    Term t;
    setterm(w, &t, ad_lowerconst(w, s->constant), 1);
    join(w, OP_add, &s->part[0], &t);
  }
  if (s->part[0].coef > 0) return s->part[0].ref;
  return ad_lowerop(w, OP_unm, s->part[0].ref, 0, 0);
}

/*
** Products
*/

static void factors(Lower *w, uint32_t root, double *constant) {
  struct Regroup *g = w->regroup;
  const Prog *p = w->p;
  uint32_t n = 0, top = 0;
  double x;
  *constant = 1;
  g->stack[top++] = root;
  while (top > 0) {
    const Ins *i = &p->ins[g->stack[--top]];
    const uint32_t in[2] = {i->a, i->b};
    if (i->op == OP_unm) *constant = -*constant;
    for (int k = ad_insarity(i->op); k-- > 0;) {
      uint32_t ref;
      if (!(in[k] & P_K) && g->inner[in[k]]) {
        g->stack[top++] = in[k];
        continue;
      }
      ref = in[k] & P_K ? in[k] : w->to[in[k]];
      if (!(ref & P_K) && g->uses[in[k]] == 1 && w->q.ins[ref].op == OP_mul &&
          isconst(w, w->q.ins[ref].b, &x) && isnormal(*constant * x)) {
        *constant *= x;
        ref = w->q.ins[ref].a;
      }
      if (isconst(w, ref, &x) && isnormal(*constant * x))
        *constant *= x;
      else
        setterm(w, &g->term[n++], ref, 1);
    }
  }
  g->n = n;
}

/* a product of powers: all squarings at once */
static uint32_t powers(Lower *w, const Term *t, uint32_t n) {
  uint32_t most = 1, r = P_NONE;
  for (uint32_t k = 0; k < n; k++)
    if (t[k].many > most) most = t[k].many;
  for (uint32_t bit = 31; bit-- > 0;) {
    if (r != P_NONE) r = ad_lowerop(w, OP_mul, r, r, 0);
    if (most >> bit == 0) continue;
    for (uint32_t k = 0; k < n; k++)
      if (t[k].many >> bit & 1)
        r = r == P_NONE ? t[k].ref : ad_lowerop(w, OP_mul, r, t[k].ref, 0);
  }
  return r;
}

static uint32_t product(Lower *w, uint32_t root) {
  struct Regroup *g = w->regroup;
  Term *t = g->term;
  uint32_t n = 0, r;
  double constant;
  factors(w, root, &constant);
  if (w->failed || g->n == 0) return ad_lowerconst(w, constant);
  sort(t, g->n);
  for (uint32_t k = 0; k < g->n; k++)
    if (n > 0 && t[n - 1].ref == t[k].ref)
      t[n - 1].many++;
    else
      t[n++] = t[k];
  if (n == g->n && isoutside(w, &t[0])) { /* so is the constant */
    setterm(w, &t[n], ad_lowerconst(w, constant), 1);
    t[n++].key = t[0].key;
    sort(t, n);
    constant = 1;
  }
  r = n < g->n ? powers(w, t, n) : grouped(w, OP_mul, t, n).ref;
  return ad_lowerop(w, OP_mul, r, ad_lowerconst(w, constant), 0);
}

/*
** Quotients
*/

/* is a reciprocal of the divisor worth it? */
static int isdivisor(const Lower *w, const Ins *x) {
  const uint32_t head = w->loop[w->block];
  uint32_t b;
  if (x->b & P_K) return 0;
  if (w->regroup->quots[x->b] > 1) return 1;
  b = w->to[x->b];
  return head != P_NONE && !(b & P_K) && w->home[b] < head;
}

static uint32_t quotient(Lower *w, const Ins *x) {
  const uint32_t a = x->a & P_K ? x->a : w->to[x->a];
  const uint32_t r = ad_lowerop(w, OP_div, ad_lowerconst(w, 1), w->to[x->b], 0);
  return ad_lowerop(w, OP_mul, a, r, 0);
}

int ad_regroup(Lower *w, uint32_t i, uint32_t *r) {
  const struct Regroup *g = w->regroup;
  const Ins *x = &w->p->ins[i];
  *r = 0 | P_K;
  if (x->op == P_INPUT || x->op == P_PHI || x->op == P_PUSH || x->op == P_POP ||
      x->op == P_KARRAY)
    return 0;
  /* the results of a call stay together */
  if (x->op == P_CALL || x->op == P_RESULT)
    return !g->before->live[x->op == P_CALL ? i : x->a];
  if (!g->before->live[i]) return 1;
  if (issum(x->op) && g->terms[g->user[i]] & P_LONG) *r = longsum(w, i);
  if (g->inner[i]) return 1; /* nobody will ask */
  if (issum(x->op)) {
    if (g->terms[i] == 0) return 0;
    if (!(g->terms[i] & P_LONG)) *r = sum(w, i);
  } else if (x->op == OP_mul)
    *r = product(w, i);
  else if (x->op == OP_div && isdivisor(w, x))
    *r = quotient(w, x);
  else
    return 0;
  return 1;
}

int ad_regroupinit(Lower *w, const Lower *before) {
  const uint32_t n = w->p->nins;
  struct Regroup *g = ad_lowerget(w, 1, sizeof *g);
  w->regroup = g;
  if (g == NULL) return 0;
  g->before = before;
  g->uses = ad_lowerget(w, n, sizeof *g->uses);
  g->quots = ad_lowerget(w, n, sizeof *g->quots);
  g->inner = ad_lowerget(w, n, 1);
  g->term = ad_lowerget(w, n, 2 * sizeof *g->term);
  g->stack = ad_lowerget(w, n, sizeof *g->stack);
  g->when = ad_lowerget(w, 0, sizeof *g->when);
  g->user = ad_lowerget(w, n, sizeof *g->user);
  g->terms = ad_lowerget(w, n, sizeof *g->terms);
  g->first = ad_lowerget(w, n, sizeof *g->first);
  g->minus = ad_lowerget(w, n, 1);
  if (!w->failed) counts(w);
  if (!w->failed) longsums(w);
  return !w->failed;
}

void ad_regroupfree(Lower *w) {
  const uint32_t n = w->p->nins;
  struct Regroup *g = w->regroup;
  if (g == NULL) return;
  ad_lowerput(w, g->uses, n, sizeof *g->uses);
  ad_lowerput(w, g->quots, n, sizeof *g->quots);
  ad_lowerput(w, g->inner, n, 1);
  ad_lowerput(w, g->term, n, 2 * sizeof *g->term);
  ad_lowerput(w, g->stack, n, sizeof *g->stack);
  ad_lowerput(w, g->user, n, sizeof *g->user);
  ad_lowerput(w, g->terms, n, sizeof *g->terms);
  ad_lowerput(w, g->first, n, sizeof *g->first);
  ad_lowerput(w, g->minus, n, 1);
  ad_lowerput(w, g->large, g->nlarge, sizeof *g->large);
  ad_lowerput(w, g->when, g->capwhen, sizeof *g->when);
  ad_lowerput(w, g, 1, sizeof *g);
  w->regroup = NULL;
}
