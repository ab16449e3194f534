/*
** adjoint.c
** The gradient of a program as a program.
**
** The blocks are copied; where a path returns, the adjoints of all its
** operations follow, backwards. A loop counts its rounds, and keeps the values
** that go round on the frame's stack, one set for each round; on the way back
** another loop takes them from there, computes the round once more, and goes
** through it backwards. What flows to values from before the loop is carried
** round by that loop too.
**
** A loop within the loop keeps nothing until its round is computed once more:
** then it does what it would do outside of loops. So for each loop the stack
** has what one run of it needs.
**
** With a bound on the stack ('room' doubles) the way there keeps nothing. The
** loop back starts with a set for round 0, and does this until all rounds are
** done:
**
**      take the top set, of round i
**      while i < the last round that is not done yet
**        if a set is due, keep that of i; compute round i, without more
**      compute the round once more, and go through it backwards
**
** The program counts what it keeps, and so knows when the next set is due: with
** room for all rounds at each of them, or else see 'distance'.
*/
#include "program.h"

#include <string.h>

typedef struct Todo {
  uint32_t block;  /* of p */
  uint32_t parent; /* of q: the block that has the branch to it ... */
  int side;        /* ... and on which side */
} Todo;

typedef struct Adj {
  const Prog *p;
  Prog *q;
  const uint32_t *want;
  uint32_t nwant;
  uint32_t *to;   /* by instruction of p: its value in q */
  uint32_t *adj;  /* by instruction: its adjoint in q ... */
  uint32_t *when; /* ... if this is 'now', else it is 0 */
  uint32_t now, lastnow;
  uint8_t *active; /* by instruction: depends on what is wanted */
  uint8_t *live;   /* is needed */
  uint8_t *round;  /* is a phi with a value of its own in each round */
  uint8_t *seen;   /* see outside */
  uint32_t *loop;  /* by block: head of its innermost loop, or P_NONE */
  uint32_t *head;  /* by block: of a head, its block in q ... */
  uint32_t *count; /* ... and the number of rounds, in q */
  uint32_t within; /* head of the loop whose round is gone through, or P_NONE */
  uint32_t room;   /* in q: doubles on the stack that are free; or P_NONE */
  int depth;
  Todo *todo;
  uint32_t ntodo, captodo;
  int failed; /* 1: memory; 2: it is not for us */
} Adj;

static void *get(Adj *w, size_t n, size_t size) {
  void *at = w->p->alloc(w->p->ud, NULL, 0, (n + 1) * size);
  if (at == NULL)
    w->failed = 1;
  else
    memset(at, 0, (n + 1) * size);
  return at;
}

static void put(const Adj *w, void *at, size_t n, size_t size) {
  if (at != NULL) w->p->alloc(w->p->ud, at, (n + 1) * size, 0);
}

/*
** Building q
*/

static uint32_t emit(Adj *w, int op, uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t r = w->failed ? 0 : ad_recop(w->q, op, a, b, c);
  if (r == P_NOMEM) w->failed = 1;
  return w->failed ? 0 : r;
}

static uint32_t konst(Adj *w, double x) {
  const uint32_t r = w->failed ? 0 : ad_progconst(w->q, x);
  if (r == P_NOMEM) w->failed = 1;
  return w->failed ? P_K : r;
}

static int isnum(const Adj *w, uint32_t r, double x) {
  return (r & P_K) && ad_progvalue(w->q, r) == x;
}

static uint32_t block(Adj *w, uint32_t parent) {
  Block *b;
  if (w->failed || !ad_progroom(w->q, 0, 1, 0)) {
    w->failed = w->failed ? w->failed : 1;
    return 0;
  }
  b = &w->q->block[w->q->nblock];
  memset(b, 0, sizeof *b);
  b->first = b->last = w->q->nins;
  b->yes = b->no = b->loop = P_NONE;
  b->parent = parent;
  w->q->here = w->q->nblock;
  return w->q->nblock++;
}

/* a block for the side of the P_IF at the end of 'from' */
static uint32_t sideof(Adj *w, uint32_t from, int side) {
  const uint32_t b = block(w, from);
  if (w->failed) return 0;
  if (side)
    w->q->block[from].yes = b;
  else
    w->q->block[from].no = b;
  return b;
}

static void branch(Adj *w, int cmp, uint32_t a, uint32_t b, uint32_t place) {
  Block *x = &w->q->block[w->q->here];
  if (w->failed) return;
  x->end = P_IF;
  x->cmp = (uint8_t)cmp;
  x->place = (uint16_t)place;
  x->a = a;
  x->b = b;
}

/* a jump, whose list of n words is to be filled in */
static uint32_t *jump(Adj *w, uint32_t to, uint32_t n) {
  Block *x = &w->q->block[w->q->here];
  uint32_t *list;
  if (w->failed || !ad_progroom(w->q, 0, 0, n)) {
    w->failed = w->failed ? w->failed : 1;
    return NULL;
  }
  x->end = P_GOTO;
  x->yes = to;
  x->a = w->q->nlist;
  x->b = n;
  list = w->q->list + w->q->nlist;
  w->q->nlist += n;
  return list;
}

static void todo(Adj *w, uint32_t k, uint32_t parent, int side) {
  if (w->failed) return;
  if (w->ntodo == w->captodo) {
    const uint32_t ncap = w->captodo * 2 + 16;
    Todo *t = w->p->alloc(w->p->ud, w->todo, w->captodo * sizeof *t,
                          ncap * sizeof *t);
    if (t == NULL) {
      w->failed = 1;
      return;
    }
    w->todo = t;
    w->captodo = ncap;
  }
  w->todo[w->ntodo].block = k;
  w->todo[w->ntodo].parent = parent;
  w->todo[w->ntodo++].side = side;
}

/* starts the block of q for the next of what is to do; gives that of p */
static uint32_t next(Adj *w) {
  const Todo t = w->todo[--w->ntodo];
  sideof(w, t.parent, t.side);
  return t.block;
}

/*
** p
*/

static uint32_t phisof(const Adj *w, uint32_t head) {
  const Block *b = &w->p->block[head];
  uint32_t n = 0;
  while (b->first + n < b->last && w->p->ins[b->first + n].op == P_PHI) n++;
  return n;
}

/* the list of the jump into a loop */
static const uint32_t *inits(const Adj *w, uint32_t head) {
  return w->p->list + w->p->block[w->p->block[head].parent].a;
}

static uint32_t value(const Adj *w, uint32_t r) {
  return r & P_K ? r : w->to[r]; /* constants have the same numbers in q */
}

/* the loop around that of a head, or P_NONE */
static uint32_t around(const Adj *w, uint32_t head) {
  return w->loop[w->p->block[head].parent];
}

/* is block k in the loop, or in one within that? */
static int inloop(const Adj *w, uint32_t k, uint32_t head) {
  uint32_t at = k == P_NONE ? P_NONE : w->loop[k];
  while (at != P_NONE && at > head) at = around(w, at);
  return at == head && at != P_NONE;
}

#define ACTIVE(r) (!((r)&P_K) && w->active[r])

static void findactive(Adj *w) {
  const Prog *p = w->p;
  int again = 1;
  for (uint32_t k = 0; k < w->nwant; k++) w->active[w->want[k]] = 1;
  while (again) {
    again = 0;
    for (uint32_t i = p->nin; i < p->nins; i++) {
      const Ins *x = &p->ins[i];
      const int n = ad_insarity(x->op);
      if (n > 0 && ACTIVE(x->a)) w->active[i] = 1;
      if (n > 1 && ACTIVE(x->b)) w->active[i] = 1;
      if (n > 2 && ACTIVE(x->c)) w->active[i] = 1;
      if (ad_islist(x->op))
        for (uint32_t j = 0; j < x->b; j++)
          if (ACTIVE(p->list[x->a + j])) w->active[i] = 1;
    }
    for (uint32_t k = 0; k < p->nblock; k++) {
      const Block *b = &p->block[k];
      if (b->end != P_GOTO) continue;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t phi = p->block[b->yes].first + j;
        if (!w->active[phi] && ACTIVE(p->list[b->a + j]))
          w->active[phi] = 1, again = 1;
      }
    }
  }
}

#define NEED(r) ((r)&P_K ? (void)0 : (void)(w->live[r] = 1))

static void findlive(Adj *w) {
  const Prog *p = w->p;
  int again = 1;
  for (uint32_t k = 0; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (b->end == P_IF) {
      NEED(b->a);
      NEED(b->b);
    } else if (b->end == P_RETURN)
      for (uint32_t j = 0; j < b->b; j++) NEED(p->list[b->a + j]);
  }
  while (again) {
    again = 0;
    for (uint32_t i = p->nins; i-- > 0;) {
      const Ins *x = &p->ins[i];
      const int n = ad_insarity(x->op);
      if (!w->live[i]) continue;
      if (n > 0) NEED(x->a);
      if (n > 1) NEED(x->b);
      if (n > 2) NEED(x->c);
      if (ad_islist(x->op))
        for (uint32_t j = 0; j < x->b; j++) NEED(p->list[x->a + j]);
    }
    for (uint32_t k = 0; k < p->nblock; k++) {
      const Block *b = &p->block[k];
      if (b->end != P_GOTO) continue;
      for (uint32_t j = 0; j < b->b; j++) {
        const uint32_t r = p->list[b->a + j];
        if (w->live[p->block[b->yes].first + j] && !(r & P_K) && !w->live[r])
          w->live[r] = 1, again = 1;
      }
    }
  }
}

/* phis that get something else than themselves, or their first value, again */
static void findround(Adj *w) {
  const Prog *p = w->p;
  for (uint32_t k = 0; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    const uint32_t first = b->end == P_GOTO ? p->block[b->yes].first : 0;
    if (b->end != P_GOTO || b->yes > k) continue;
    for (uint32_t j = 0; j < b->b; j++) {
      const uint32_t r = p->list[b->a + j];
      if (w->live[first + j] && r != first + j && r != inits(w, b->yes)[j])
        w->round[first + j] = 1;
    }
  }
}

#define GOING(r) (w->round[r] && w->active[r])

/*
** Derivatives: ops.h with operations of q for values. Conditions are values
** like others, and what they decide is chosen, not branched on.
*/

#define K(c) konst(w, c)
#define ADD(x, y) emit(w, OP_add, x, y, 0)
#define SUB(x, y) emit(w, OP_sub, x, y, 0)
#define MUL(x, y) emit(w, OP_mul, x, y, 0)
#define DIV(x, y) emit(w, OP_div, x, y, 0)
#define NEG(x) emit(w, OP_unm, x, 0, 0)
#define F1(name, x) emit(w, OP_##name, x, 0, 0)
#define F2(name, x, y) emit(w, OP_##name, x, y, 0)
#define P2(name, x, y) emit(w, OP_##name, x, y, 0)
#define P3(name, x, y, z) emit(w, OP_##name, x, y, z)
#define LT(x, y) P2(below, x, y)
#define EQ(x, y) P2(equal, x, y)
#define ZERO(x) K(isnum(w, x, 0))
#define OR(c, d) F2(max, c, d)
#define AND(c, d) F2(min, c, d)
#define IF(c, x, y)                                                            \
  (isnum(w, c, 0) ? (y) : isnum(w, c, 1) ? (x) : emit(w, OP_where, c, x, y))

#define NOT(x) SUB(K(1), x)
#define CMUL(x, y) emit(w, OP_cmul, x, y, 0)

static uint32_t rule(Adj *w, int op, int i, uint32_t A, uint32_t B, uint32_t C,
                     uint32_t Y) {
  (void)B, (void)C;
  switch (op) {
#include "rules.h"
  default:
    return K(NAN);
  }
}

/* adds t * p to the adjoint of a value */
static void chain(Adj *w, uint32_t r, uint32_t t, uint32_t p) {
  uint32_t acc;
  if (r & P_K || !w->active[r] || w->failed) return;
  acc = w->when[r] == w->now ? w->adj[r] : K(0);
  if (isnum(w, t, 0)) return;
  if (isnum(w, p, 1))
    acc = isnum(w, acc, 0) ? t : ADD(acc, t);
  else if (isnum(w, acc, 0))
    acc = CMUL(t, p);
  else
    acc = emit(w, OP_cadd, acc, t, p);
  w->adj[r] = acc;
  w->when[r] = w->now;
}

/* operations over lists; those that are left (see compile.c) */
static void reverselist(Adj *w, const Ins *x, uint32_t y, uint32_t t) {
  const uint32_t *in = w->p->list + x->a;
  uint32_t ties = K(0), s = K(0), infinite = 0, m = y;
  switch (x->op) {
  case OP_list_lmax:
  case OP_list_lmin:
    for (uint32_t j = 0; j < x->b; j++)
      ties = ADD(ties, P2(equal, value(w, in[j]), y));
    for (uint32_t j = 0; j < x->b; j++)
      chain(w, in[j], t, DIV(P2(equal, value(w, in[j]), y), ties));
    return;
  case OP_list_norm:
    for (uint32_t j = 0; j < x->b; j++)
      chain(w, in[j], t,
            CMUL(NOT(P2(equal, y, K(0))), DIV(value(w, in[j]), y)));
    return;
  case OP_list_logsumexp: {
    uint32_t *e = get(w, x->b, sizeof *e);
    if (w->failed) return;
    m = K(-HUGE_VAL);
    for (uint32_t j = 0; j < x->b; j++) m = F2(max, m, value(w, in[j]));
    infinite = P2(equal, F1(abs, m), K(HUGE_VAL));
    for (uint32_t j = 0; j < x->b; j++) {
      const uint32_t v = value(w, in[j]);
      e[j] = emit(w, OP_cadd, CMUL(infinite, P2(equal, v, m)), NOT(infinite),
                  F1(exp, SUB(v, m)));
      s = ADD(s, e[j]);
    }
    for (uint32_t j = 0; j < x->b; j++) chain(w, in[j], t, DIV(e[j], s));
    put(w, e, x->b, sizeof *e);
    return;
  }
  default:
    w->failed = 2;
  }
}

/* the operations of a block, backwards */
static void reverse(Adj *w, uint32_t k) {
  const Prog *p = w->p;
  const Block *b = &p->block[k];
  for (uint32_t i = b->last; i-- > b->first && !w->failed;) {
    const Ins *x = &p->ins[i];
    const int n = ad_insarity(x->op);
    const uint32_t in[3] = {x->a, x->b, x->c};
    uint32_t t, v[3] = {0, 0, 0};
    if (x->op == P_INPUT || x->op == P_PHI || !w->active[i] ||
        w->when[i] != w->now)
      continue;
    t = w->adj[i];
    if (isnum(w, t, 0)) continue;
    if (ad_islist(x->op)) {
      reverselist(w, x, value(w, i), t);
      continue;
    }
    for (int j = 0; j < n; j++) v[j] = value(w, in[j]);
    for (int j = 0; j < n; j++)
      if (ACTIVE(in[j]))
        chain(w, in[j], t, rule(w, x->op, j, v[0], v[1], v[2], value(w, i)));
  }
}

/*
** Copying
*/

static void copy(Adj *w, uint32_t k) {
  const Prog *p = w->p;
  const Block *b = &p->block[k];
  for (uint32_t i = b->first; i < b->last && !w->failed; i++) {
    const Ins *x = &p->ins[i];
    const int n = ad_insarity(x->op);
    uint32_t r;
    if (x->op == P_INPUT || x->op == P_PHI) continue;
    if (ad_islist(x->op)) {
      uint32_t *in = get(w, x->b, sizeof *in);
      if (w->failed) return;
      for (uint32_t j = 0; j < x->b; j++) in[j] = value(w, p->list[x->a + j]);
      r = ad_reclist(w->q, x->op, x->b, in);
      if (r == P_NOMEM) w->failed = 1;
      put(w, in, x->b, sizeof *in);
    } else
      r = emit(w, x->op, n > 0 ? value(w, x->a) : 0, n > 1 ? value(w, x->b) : 0,
               n > 2 ? value(w, x->c) : 0);
    w->to[i] = r;
  }
}

/* into a loop: its phis that go round, and the number of rounds */
static void enter(Adj *w, uint32_t head) {
  const uint32_t *init = inits(w, head), first = w->p->block[head].first;
  const uint32_t from = w->q->here, n = phisof(w, head);
  uint32_t m = 1, at = 0, *list;
  for (uint32_t j = 0; j < n; j++) m += w->round[first + j];
  list = jump(w, w->q->nblock, m);
  if (w->failed) return;
  for (uint32_t j = 0; j < n; j++)
    if (w->round[first + j]) list[at++] = value(w, init[j]);
  list[at] = konst(w, 0);
  w->head[head] = block(w, from);
  at = 0;
  for (uint32_t j = 0; j < n; j++)
    w->to[first + j] =
        w->round[first + j] ? emit(w, P_PHI, at++, 0, 0) : value(w, init[j]);
  w->count[head] = emit(w, P_PHI, at, 0, 0);
}

/* into a loop that nobody has been round: its values are the first ones */
static void through(Adj *w, uint32_t head) {
  const uint32_t *init = inits(w, head), first = w->p->block[head].first;
  const uint32_t n = phisof(w, head);
  for (uint32_t j = 0; j < n; j++) w->to[first + j] = value(w, init[j]);
}

/* back to the head of q with the values of p's jump, and n more to be set */
static uint32_t *goback(Adj *w, const Block *b, uint32_t to, uint32_t n) {
  const uint32_t first = w->p->block[b->yes].first;
  uint32_t m = 0, *list;
  for (uint32_t j = 0; j < b->b; j++) m += w->round[first + j];
  list = jump(w, to, m + n);
  if (w->failed) return NULL;
  for (uint32_t j = 0; j < b->b; j++)
    if (w->round[first + j]) *list++ = value(w, w->p->list[b->a + j]);
  return list;
}

/* the values that go round, onto the stack */
static void keep(Adj *w, uint32_t head) {
  const uint32_t first = w->p->block[head].first, n = phisof(w, head);
  for (uint32_t j = 0; j < n; j++)
    if (w->round[first + j]) emit(w, P_PUSH, w->to[first + j], 0, 0);
}

/* round again: the values of this round are kept, if it is gone through now */
static void again(Adj *w, uint32_t k) {
  const Block *b = &w->p->block[k];
  uint32_t one, *list;
  if (w->room == P_NONE && around(w, b->yes) == w->within) keep(w, b->yes);
  one = emit(w, OP_add, w->count[b->yes], konst(w, 1), 0);
  list = goback(w, b, w->head[b->yes], 1);
  if (list != NULL) *list = one;
}

/*
** Copies from block k on, where 'head' is the loop that is gone round, or
** P_NONE, to the end of a path: a block that jumps back to the head, or
** returns. Other paths are left to be done, above 'base'. P_NONE: there was no
** more to do. A round that is gone through once more was completed: it did not
** take the sides that lead out of the loop.
*/
static uint32_t path(Adj *w, uint32_t k, uint32_t head, uint32_t base) {
  for (;;) {
    const Block *b = &w->p->block[k];
    copy(w, k);
    if (w->failed) return P_NONE;
    if (b->end == P_IF) {
      const int yes =
                    head == P_NONE ? b->yes != P_NONE : inloop(w, b->yes, head),
                no = head == P_NONE ? b->no != P_NONE : inloop(w, b->no, head);
      if (head != P_NONE && yes != no) {
        k = yes ? b->yes : b->no;
        continue;
      }
      branch(w, b->cmp, value(w, b->a), value(w, b->b), b->place);
      if (no) todo(w, b->no, w->q->here, 0);
      if (yes) todo(w, b->yes, w->q->here, 1);
    } else if (b->end == P_GOTO && b->yes > k) {
      k = b->yes;
      if (w->loop[k] == k)
        enter(w, k);
      else
        through(w, k);
      continue;
    } else if (b->end == P_GOTO && b->yes != head)
      again(w, k);
    else
      return k;
    if (w->failed || w->ntodo == base) return P_NONE;
    k = next(w);
    if (w->failed) return P_NONE;
  }
}

/* the next path, when that to its end is done */
static uint32_t another(Adj *w, uint32_t head, uint32_t base) {
  uint32_t k;
  if (w->failed || w->ntodo == base) return P_NONE;
  k = next(w);
  return w->failed ? P_NONE : path(w, k, head, base);
}

/*
** The way back through a loop. 'carried' are the values from outside that the
** loop's operations use.
*/

static uint32_t outside(Adj *w, uint32_t head, uint32_t *carried) {
  const Prog *p = w->p;
  const uint32_t first = p->block[head].first, phis = phisof(w, head);
  uint32_t n = 0;
#define OUTSIDE(r)                                                             \
  if (ACTIVE(r) && (r) < first && !w->seen[r]) {                               \
    w->seen[r] = 1;                                                            \
    carried[n++] = (r);                                                        \
  }
  for (uint32_t k = head; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (!inloop(w, k, head)) continue;
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &p->ins[i];
      const int m = ad_insarity(x->op);
      if (m > 0) OUTSIDE(x->a)
      if (m > 1) OUTSIDE(x->b)
      if (m > 2) OUTSIDE(x->c)
      if (ad_islist(x->op))
        for (uint32_t j = 0; j < x->b; j++) OUTSIDE(p->list[x->a + j])
    }
    if (b->end == P_GOTO)
      for (uint32_t j = 0; j < b->b; j++) OUTSIDE(p->list[b->a + j])
  }
  for (uint32_t j = 0; j < phis; j++)
    if (!w->round[first + j]) OUTSIDE(inits(w, head)[j])
  for (uint32_t j = 0; j < n; j++) w->seen[carried[j]] = 0;
  return n;
}

static uint32_t adjoint(Adj *w, uint32_t r) {
  if (r & P_K || w->when[r] != w->now) return K(0);
  return w->adj[r];
}

static void setadjoint(Adj *w, uint32_t r, uint32_t x) {
  w->adj[r] = x;
  w->when[r] = w->now;
}

/* phis that stand for their first value hand on what flows to them */
static void handon(Adj *w, uint32_t head) {
  const uint32_t first = w->p->block[head].first, n = phisof(w, head);
  for (uint32_t j = 0; j < n; j++)
    if (w->live[first + j] && !w->round[first + j])
      chain(w, inits(w, head)[j], adjoint(w, first + j), K(1));
}

/* how many doubles a set has: the values that go round, and the round */
static uint32_t setsize(const Adj *w, uint32_t head) {
  const uint32_t first = w->p->block[head].first, n = phisof(w, head);
  uint32_t m = 1;
  for (uint32_t j = 0; j < n; j++) m += w->round[first + j];
  return m;
}

/* the room that is for the loops within a loop: half of it, if they can do with
   that, or else all they need */
static uint32_t inner(Adj *w, uint32_t head) {
  uint32_t most = 0;
  for (uint32_t k = head + 1; k < w->p->nblock; k++) {
    uint32_t sum = 0;
    if (w->loop[k] != k || !inloop(w, k, head)) continue;
    for (uint32_t at = k; at != head; at = around(w, at)) sum += setsize(w, at);
    if (sum > most) most = sum;
  }
  if (most == 0) return K(0);
  return F2(max, K(most), F1(floor, MUL(w->room, K(0.5))));
}

/*
** From a set of round i on, with room for c sets in all, l rounds are to be
** gone through: how far from it is the next set to be kept? With beta(c, r) =
** (c + r)! / c! / r! rounds none needs to be computed more than r times if it
** is beta(c, r - 1) rounds away (Griewank and Walther, Algorithm 799: revolve).
** So r goes up as long as beta(c, r) < l; where that is not reached in full,
** what follows the next set is to be no less than beta(c - 1, r - 1) rounds.
*/
static uint32_t distance(Adj *w, uint32_t c, uint32_t l) {
  const uint32_t from = w->q->here;
  uint32_t a, r, b, r1, b1, *list = jump(w, w->q->nblock, 2);
  if (w->failed) return 0;
  list[0] = K(0);
  list[1] = K(1);
  a = block(w, from);
  r = emit(w, P_PHI, 0, 0, 0);
  b = emit(w, P_PHI, 1, 0, 0); /* beta(c, r) */
  r1 = ADD(r, K(1));
  b1 = DIV(MUL(b, ADD(c, r1)), r1);
  branch(w, P_LT, b1, l, 0);
  sideof(w, a, 1);
  list = jump(w, a, 2);
  if (w->failed) return 0;
  list[0] = r1;
  list[1] = b1;
  sideof(w, a, 0);
  l = SUB(l, DIV(MUL(b, c), ADD(c, r)));
  return F2(max, F1(floor, F2(min, b, l)), K(1));
}

/*
** From a set of round 'at', which is in the phis' values, to those of round
** 'to'. The sets that are kept on the way begin with the same. 'others' is the
** room that is not for them.
*/
static void advance(Adj *w, uint32_t head, uint32_t at, uint32_t to,
                    uint32_t others) {
  const Prog *p = w->p;
  const uint32_t first = p->block[head].first, n = phisof(w, head);
  const uint32_t size = setsize(w, head), m = size - 1, base = w->ntodo;
  const uint32_t from = w->q->here;
  uint32_t a, due, step, room, k, x = 0, *list;
  list = jump(w, w->q->nblock, m + 4);
  if (w->failed) return;
  for (uint32_t j = 0; j < n; j++)
    if (w->round[first + j]) *list++ = w->to[first + j];
  list[0] = list[1] = at;
  list[2] = K(0);
  list[3] = w->room;
  a = block(w, from);
  for (uint32_t j = 0; j < n; j++)
    if (w->round[first + j]) w->to[first + j] = emit(w, P_PHI, x++, 0, 0);
  at = emit(w, P_PHI, m, 0, 0);
  due = emit(w, P_PHI, m + 1, 0, 0);
  step = emit(w, P_PHI, m + 2, 0, 0);
  room = emit(w, P_PHI, m + 3, 0, 0);
  branch(w, P_LT, at, to, 0);
  k = sideof(w, a, 1);
  branch(w, P_EQ, at, due, 0);
  x = sideof(w, k, 1);
  branch(w, P_EQ, K(1), step, 0); /* then there is room for all */
  for (int known = 1; known >= 0; known--) {
    uint32_t by = step, then, left;
    sideof(w, x, known);
    if (!known) {
      const uint32_t c = F1(floor, DIV(SUB(room, others), K(size)));
      by = distance(w, F2(max, c, K(1)), ADD(SUB(to, at), K(1)));
    }
    keep(w, head);
    emit(w, P_PUSH, at, 0, 0);
    then = ADD(due, by);
    left = SUB(room, K(size));
    list = jump(w, a, m + 4);
    if (w->failed) return;
    for (uint32_t j = 0; j < m; j++) *list++ = w->q->block[a].first + j;
    list[0] = at;
    list[1] = then;
    list[2] = by;
    list[3] = left;
  }
  sideof(w, k, 0);
  for (k = path(w, head, head, base); k != P_NONE; k = another(w, head, base)) {
    const uint32_t one = ADD(at, K(1));
    list = goback(w, &p->block[k], a, 4);
    if (list == NULL) return;
    list[0] = one;
    list[1] = due;
    list[2] = step;
    list[3] = room;
  }
  sideof(w, a, 0);
  w->room = room;
}

/* the set of round 0, if there was one: in a loop, as a path is one for both */
static void firstset(Adj *w, uint32_t head) {
  const uint32_t *init = inits(w, head), first = w->p->block[head].first;
  const uint32_t n = phisof(w, head), from = w->q->here;
  uint32_t a, *list = jump(w, w->q->nblock, 1);
  if (w->failed) return;
  *list = w->count[head];
  a = block(w, from);
  branch(w, P_LT, K(0), emit(w, P_PHI, 0, 0, 0), 0);
  sideof(w, a, 1);
  for (uint32_t j = 0; j < n; j++)
    if (w->round[first + j]) emit(w, P_PUSH, value(w, init[j]), 0, 0);
  emit(w, P_PUSH, K(0), 0, 0);
  list = jump(w, a, 1);
  if (w->failed) return;
  *list = K(0);
  sideof(w, a, 0);
}

/*
** The values of a loop, and those that belong to its head: what is gone
** through within it has others.
*/
typedef struct Kept {
  uint32_t n, *at;
} Kept;

static void exchange(Adj *w, uint32_t head, Kept *s, int back) {
  const Prog *p = w->p;
  uint32_t x = 0;
  for (uint32_t k = head; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    const uint32_t n = b->last - b->first;
    if (!inloop(w, k, head)) continue;
    if (s->at != NULL && back) {
      memcpy(w->to + b->first, s->at + x, n * sizeof *s->at);
      w->head[k] = s->at[x + n];
      w->count[k] = s->at[x + n + 1];
    } else if (s->at != NULL) {
      memcpy(s->at + x, w->to + b->first, n * sizeof *s->at);
      s->at[x + n] = w->head[k];
      s->at[x + n + 1] = w->count[k];
    }
    x += n + 2;
  }
  s->n = x;
}

static void backwards(Adj *w, uint32_t k, uint32_t top);

#define MAXDEPTH 40 /* of loops within loops */
#define MUCH 1e15   /* room, if there is no bound on it */

static void backloop(Adj *w, uint32_t head) {
  const Prog *p = w->p;
  const uint32_t *init = inits(w, head), first = p->block[head].first;
  const uint32_t n = phisof(w, head), before = w->now, base = w->ntodo;
  const uint32_t within = w->within, hadroom = w->room;
  /* out of a loop within one, both are left at once: the inner has kept nothing
   */
  const int counting = hadroom != P_NONE || around(w, head) != within;
  const uint32_t head1 = counting ? 2 : 1; /* phis before adjoints */
  Kept kept = {0, NULL};
  uint32_t m = head1, nc, i, k, *list, b, left, less, *carried;
  uint32_t round = 0, others = 0;
  if (++w->depth > MAXDEPTH) w->failed = 2;
  if (counting && hadroom == P_NONE) w->room = K(MUCH);
  handon(w, head);
  carried = get(w, first, sizeof *carried);
  exchange(w, head, &kept, 0);
  if (!w->failed) kept.at = get(w, kept.n, sizeof *kept.at);
  if (w->failed) goto end;
  exchange(w, head, &kept, 0);
  nc = outside(w, head, carried);
  for (uint32_t j = 0; j < n; j++) m += GOING(first + j);
  if (counting) {
    firstset(w, head);
    others = inner(w, head);
    round = SUB(w->room, K(setsize(w, head)));
  }
  /* the head */
  k = w->q->here;
  list = jump(w, w->q->nblock, m + nc);
  if (w->failed) goto end;
  i = (uint32_t)(list - w->q->list);
  w->q->list[i++] = w->count[head];
  if (counting) w->q->list[i++] = round;
  for (uint32_t j = 0; j < n; j++)
    if (GOING(first + j)) w->q->list[i++] = adjoint(w, first + j);
  for (uint32_t j = 0; j < nc; j++) w->q->list[i++] = adjoint(w, carried[j]);
  b = block(w, k);
  left = emit(w, P_PHI, 0, 0, 0);
  if (counting) w->room = emit(w, P_PHI, 1, 0, 0);
  for (uint32_t j = head1; j < m + nc; j++) emit(w, P_PHI, j, 0, 0);
  branch(w, P_LT, K(0), left, 0);
  /* a round */
  sideof(w, b, 1);
  w->within = head;
  if (counting) {
    round = emit(w, P_POP, 0, 0, 0);
    w->room = ADD(w->room, K(setsize(w, head)));
  }
  for (uint32_t j = n; j-- > 0;)
    w->to[first + j] =
        w->round[first + j] ? emit(w, P_POP, 0, 0, 0) : value(w, init[j]);
  less = SUB(left, K(1));
  if (counting) advance(w, head, round, less, others);
  for (k = w->failed ? P_NONE : path(w, head, head, base); k != P_NONE;
       k = another(w, head, base)) {
    const uint32_t *went = p->list + p->block[k].a;
    const uint32_t room = w->room;
    /* the adjoints are those that came round */
    w->now = ++w->lastnow;
    i = w->q->block[b].first + m;
    for (uint32_t j = 0; j < nc; j++) setadjoint(w, carried[j], i++);
    i = w->q->block[b].first + head1;
    for (uint32_t j = 0; j < n; j++)
      if (GOING(first + j)) chain(w, went[j], i++, K(1));
    backwards(w, k, head);
    handon(w, head);
    list = jump(w, b, m + nc);
    if (w->failed) goto end;
    i = (uint32_t)(list - w->q->list);
    w->q->list[i++] = less;
    if (counting) w->q->list[i++] = room;
    for (uint32_t j = 0; j < n; j++)
      if (GOING(first + j)) w->q->list[i++] = adjoint(w, first + j);
    for (uint32_t j = 0; j < nc; j++) w->q->list[i++] = adjoint(w, carried[j]);
  }
  if (w->failed) goto end;
  /* all rounds are done */
  sideof(w, b, 0);
  w->now = before;
  i = w->q->block[b].first + m;
  for (uint32_t j = 0; j < nc; j++) setadjoint(w, carried[j], i++);
  i = w->q->block[b].first + head1;
  for (uint32_t j = 0; j < n; j++)
    if (GOING(first + j)) chain(w, init[j], i++, K(1));
  exchange(w, head, &kept, 1);
end:
  w->within = within;
  w->room = hadroom;
  w->depth--;
  put(w, carried, first, sizeof *carried);
  put(w, kept.at, kept.n, sizeof *kept.at);
}

/* the path that ends in block k, backwards: up to 'top', or all of it */
static void backwards(Adj *w, uint32_t k, uint32_t top) {
  for (; k != P_NONE && !w->failed; k = w->p->block[k].parent) {
    reverse(w, k);
    if (w->failed || k == top) return;
    if (w->loop[k] == k)
      backloop(w, k);
    else
      handon(w, k);
  }
}

/* the results of a path, and its adjoints */
static void finish(Adj *w, uint32_t leaf) {
  const Prog *p = w->p;
  const Block *b = &p->block[leaf];
  uint32_t *out = get(w, b->b + w->nwant, sizeof *out);
  if (w->failed) return;
  for (uint32_t j = 0; j < b->b; j++) out[j] = value(w, p->list[b->a + j]);
  w->now = ++w->lastnow;
  if (b->b > 0 && ACTIVE(p->list[b->a]))
    setadjoint(w, p->list[b->a], konst(w, 1));
  backwards(w, leaf, P_NONE);
  for (uint32_t j = 0; j < w->nwant; j++)
    out[b->b + j] = adjoint(w, w->want[j]);
  if (!w->failed) {
    w->q->state = P_APPEND;
    if (ad_recreturn(w->q, b->set, b->b + w->nwant, out) != 0) w->failed = 1;
    w->q->state = P_APPEND;
  }
  put(w, out, b->b + w->nwant, sizeof *out);
}

static void all(Adj *w) {
  w->q->here = 0;
  w->q->state = P_APPEND;
  for (uint32_t i = 0; i < w->p->nin; i++) w->to[i] = i;
  for (uint32_t k = path(w, 0, P_NONE, 0); k != P_NONE;
       k = another(w, P_NONE, 0))
    finish(w, k);
}

int ad_progadjoint(const Prog *p, Prog *q, uint32_t nwant, const uint32_t *want,
                   size_t room) {
  Adj w;
  const size_t n = p->nins, m = p->nblock;
  memset(&w, 0, sizeof w);
  if (!ad_proginit(q, p->alloc, p->ud, p->nin)) return P_GNOMEM;
  w.p = p;
  w.q = q;
  w.want = want;
  w.nwant = nwant;
  w.to = get(&w, n, sizeof *w.to);
  w.adj = get(&w, n, sizeof *w.adj);
  w.when = get(&w, n, sizeof *w.when);
  w.active = get(&w, n, 1);
  w.live = get(&w, n, 1);
  w.round = get(&w, n, 1);
  w.seen = get(&w, n, 1);
  w.loop = get(&w, m, sizeof *w.loop);
  w.head = get(&w, m, sizeof *w.head);
  w.count = get(&w, m, sizeof *w.count);
  for (uint32_t k = 0; k < p->nconst && !w.failed; k++)
    konst(&w, p->constant[k]);
  if (!w.failed) {
    w.within = P_NONE;
    w.room = room == 0 ? P_NONE : konst(&w, (double)room);
    ad_progloops(p, w.loop);
    findactive(&w);
    findlive(&w);
    findround(&w);
    all(&w);
  }
  q->state = P_IDLE;
  put(&w, w.to, n, sizeof *w.to);
  put(&w, w.adj, n, sizeof *w.adj);
  put(&w, w.when, n, sizeof *w.when);
  put(&w, w.active, n, 1);
  put(&w, w.live, n, 1);
  put(&w, w.round, n, 1);
  put(&w, w.seen, n, 1);
  put(&w, w.loop, m, sizeof *w.loop);
  put(&w, w.head, m, sizeof *w.head);
  put(&w, w.count, m, sizeof *w.count);
  if (w.todo) p->alloc(p->ud, w.todo, w.captodo * sizeof *w.todo, 0);
  if (w.failed) ad_progfree(q);
  return w.failed == 0 ? P_GDONE : w.failed == 1 ? P_GNOMEM : P_GCANNOT;
}
