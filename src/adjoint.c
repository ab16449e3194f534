/*
** adjoint.c
** The gradient of a program as a program.
**
** The blocks are copied; where a path returns, the adjoints of all its
** operations follow, backwards. A loop keeps the values that go round on the
** frame's stack, one set for each round, and counts the rounds; on the way
** back another loop takes them from there, computes the round once more, and
** goes through it backwards. What flows to values from before the loop is
** carried round by that loop too.
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
  uint32_t *to;     /* by instruction of p: its value in q */
  uint32_t *re;     /* the same in the round that is computed again ... */
  uint32_t *rewhen; /* ... if this is the number of it */
  uint32_t round, lastround;
  uint32_t *adj;  /* by instruction: its adjoint in q ... */
  uint32_t *when; /* ... if this is 'now', else it is 0 */
  uint32_t now, lastnow;
  uint8_t *active; /* by instruction: depends on what is wanted */
  uint8_t *live;   /* is needed */
  uint32_t *loop;  /* by block: head of its loop, or P_NONE */
  uint32_t *count; /* by block: a head's number of rounds, in q */
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

/* starts the block of q for the next of what is to do; gives it */
static Todo next(Adj *w) {
  const Todo t = w->todo[--w->ntodo];
  const uint32_t b = block(w, t.parent);
  if (w->failed) return t;
  if (t.side)
    w->q->block[t.parent].yes = b;
  else
    w->q->block[t.parent].no = b;
  return t;
}

/*
** p
*/

static void phisof(const Adj *w, uint32_t head, uint32_t *n) {
  const Block *b = &w->p->block[head];
  *n = 0;
  while (b->first + *n < b->last && w->p->ins[b->first + *n].op == P_PHI)
    (*n)++;
}

/* the list of the jump into a loop */
static const uint32_t *inits(const Adj *w, uint32_t head) {
  return w->p->list + w->p->block[w->p->block[head].parent].a;
}

static uint32_t value(const Adj *w, uint32_t r) {
  if (r & P_K) return r; /* constants have the same numbers in q */
  return w->round && w->rewhen[r] == w->round ? w->re[r] : w->to[r];
}

static void setvalue(Adj *w, uint32_t r, uint32_t x) {
  if (w->round) {
    w->re[r] = x;
    w->rewhen[r] = w->round;
  } else
    w->to[r] = x;
}

static int comesback(const Adj *w, uint32_t head) {
  for (uint32_t k = head; k < w->p->nblock; k++)
    if (w->p->block[k].end == P_GOTO && w->p->block[k].yes == head) return 1;
  return 0;
}

/* which blocks are in which loop; loops within loops are not for us */
static void findloops(Adj *w) {
  const Prog *p = w->p;
  for (uint32_t k = 0; k < p->nblock; k++) w->loop[k] = P_NONE;
  for (uint32_t k = 0; k < p->nblock; k++) {
    const uint32_t head = p->block[k].yes;
    if (p->block[k].end != P_GOTO || head > k) continue;
    for (uint32_t at = k;; at = p->block[at].parent) {
      if (w->loop[at] != P_NONE && w->loop[at] != head) w->failed = 2;
      w->loop[at] = head;
      if (at == head) break;
    }
  }
  for (uint32_t k = 0; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (b->end == P_GOTO && b->yes > k && w->loop[k] != P_NONE &&
        comesback(w, b->yes))
      w->failed = 2;
  }
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

/* a phi that only gets itself, or its first value, again */
static int isfixed(const Adj *w, uint32_t head, uint32_t j) {
  const Prog *p = w->p;
  const uint32_t self = p->block[head].first + j, init = inits(w, head)[j];
  for (uint32_t k = head; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (b->end == P_GOTO && b->yes == head && p->list[b->a + j] != self &&
        p->list[b->a + j] != init)
      return 0;
  }
  return 1;
}

/* does phi j of a head go round, with a value of its own? */
static int goesround(const Adj *w, uint32_t head, uint32_t j) {
  return w->live[w->p->block[head].first + j] && !isfixed(w, head, j);
}

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
    setvalue(w, i, r);
  }
}

/* into a loop: its phis that go round, and the number of rounds */
static void enter(Adj *w, uint32_t head) {
  const uint32_t *init = inits(w, head), first = w->p->block[head].first;
  uint32_t n, m = 1, j, at = 0, *list;
  const uint32_t from = w->q->here;
  phisof(w, head, &n);
  for (j = 0; j < n; j++) m += goesround(w, head, j);
  list = jump(w, w->q->nblock, m);
  if (w->failed) return;
  for (j = 0; j < n; j++)
    if (goesround(w, head, j)) list[at++] = value(w, init[j]);
  list[at] = konst(w, 0);
  block(w, from);
  at = 0;
  for (j = 0; j < n; j++) {
    if (goesround(w, head, j))
      setvalue(w, first + j, emit(w, P_PHI, at++, 0, 0));
    else
      setvalue(w, first + j, value(w, init[j]));
  }
  w->count[head] = emit(w, P_PHI, at, 0, 0);
}

/* into a loop that nobody has been round: its values are the first ones */
static void through(Adj *w, uint32_t head) {
  const uint32_t *init = inits(w, head), first = w->p->block[head].first;
  uint32_t n;
  phisof(w, head, &n);
  for (uint32_t j = 0; j < n; j++) setvalue(w, first + j, value(w, init[j]));
}

/* round again: the values of this round are kept */
static void again(Adj *w, uint32_t k) {
  const Block *b = &w->p->block[k];
  const uint32_t head = b->yes, first = w->p->block[head].first;
  uint32_t m = 1, at = 0, one, *list;
  for (uint32_t j = 0; j < b->b; j++)
    if (goesround(w, head, j)) {
      emit(w, P_PUSH, w->to[first + j], 0, 0);
      m++;
    }
  one = emit(w, OP_add, w->count[head], konst(w, 1), 0);
  /* the head in q is where the count is made */
  for (at = w->q->here;; at = w->q->block[at].parent)
    if (w->q->block[at].first <= w->count[head] &&
        w->count[head] < w->q->block[at].last)
      break;
  list = jump(w, at, m);
  if (w->failed) return;
  at = 0;
  for (uint32_t j = 0; j < b->b; j++)
    if (goesround(w, head, j)) list[at++] = value(w, w->p->list[b->a + j]);
  list[at] = one;
}

/*
** The way back through a loop. 'carried' are the values from outside that the
** loop's operations use.
*/

static uint32_t outside(Adj *w, uint32_t head, uint32_t *carried) {
  const Prog *p = w->p;
  const uint32_t first = p->block[head].first;
  uint32_t n = 0;
#define OUTSIDE(r)                                                             \
  if (ACTIVE(r) && (r) < first && w->rewhen[r] != P_NONE) {                    \
    w->rewhen[r] = P_NONE;                                                     \
    carried[n++] = (r);                                                        \
  }
  for (uint32_t k = head; k < p->nblock; k++) {
    const Block *b = &p->block[k];
    if (w->loop[k] != head) continue;
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
  for (uint32_t j = 0; j < p->block[p->block[head].parent].b; j++)
    if (!goesround(w, head, j)) OUTSIDE(inits(w, head)[j])
  for (uint32_t j = 0; j < n; j++) w->rewhen[carried[j]] = 0;
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
static void handon(Adj *w, uint32_t head, uint32_t n) {
  const uint32_t first = w->p->block[head].first;
  for (uint32_t j = 0; j < n; j++)
    if (w->live[first + j] && !goesround(w, head, j))
      chain(w, inits(w, head)[j], adjoint(w, first + j), K(1));
}

static void backloop(Adj *w, uint32_t head) {
  const Prog *p = w->p;
  const uint32_t *init = inits(w, head), first = p->block[head].first;
  const uint32_t before = w->now, base = w->ntodo;
  uint32_t n, m = 0, nc, j, at, *list, b, left, less, *carried;
  phisof(w, head, &n);
  handon(w, head, n);
  carried = get(w, p->nins, sizeof *carried);
  if (w->failed) return;
  nc = outside(w, head, carried);
  for (j = 0; j < n; j++) m += goesround(w, head, j) && ACTIVE(first + j);
  /* the head */
  at = w->q->here;
  list = jump(w, w->q->nblock, 1 + m + nc);
  if (w->failed) goto end;
  {
    const uint32_t start = (uint32_t)(list - w->q->list);
    uint32_t i = start;
    w->q->list[i++] = w->count[head];
    for (j = 0; j < n; j++)
      if (goesround(w, head, j) && ACTIVE(first + j))
        w->q->list[i++] = adjoint(w, first + j);
    for (j = 0; j < nc; j++) w->q->list[i++] = adjoint(w, carried[j]);
  }
  b = block(w, at);
  left = emit(w, P_PHI, 0, 0, 0);
  at = 1;
  /* from here on adjoints are those of the loop back */
  for (j = 0; j < n; j++)
    if (goesround(w, head, j) && ACTIVE(first + j))
      setadjoint(w, first + j, emit(w, P_PHI, at++, 0, 0));
  for (j = 0; j < nc; j++)
    setadjoint(w, carried[j], emit(w, P_PHI, at++, 0, 0));
  branch(w, P_LT, konst(w, 0), left, 0);
  /* a round */
  at = block(w, b);
  if (w->failed) goto end;
  w->q->block[b].yes = at;
  w->round = ++w->lastround;
  for (j = n; j-- > 0;)
    if (goesround(w, head, j))
      setvalue(w, first + j, emit(w, P_POP, 0, 0, 0));
    else
      setvalue(w, first + j, w->to[first + j]);
  less = emit(w, OP_sub, left, konst(w, 1), 0);
  {
    uint32_t k = head;
    for (;;) {
      const Block *x = &p->block[k];
      copy(w, k);
      if (w->failed) goto end;
      if (x->end == P_IF) {
        const int yes = x->yes != P_NONE && w->loop[x->yes] == head,
                  no = x->no != P_NONE && w->loop[x->no] == head;
        if (yes != no) { /* the round was completed: it went this way */
          k = yes ? x->yes : x->no;
          continue;
        }
        branch(w, x->cmp, value(w, x->a), value(w, x->b), x->place);
        todo(w, x->no, w->q->here, 0);
        todo(w, x->yes, w->q->here, 1);
      } else if (x->yes > k) {
        k = x->yes;
        through(w, k);
        continue;
      } else { /* back at the head: now backwards */
        const uint32_t *went = p->list + x->a;
        uint32_t i;
        w->now = ++w->lastnow;
        {
          /* the adjoints of what goes round, before they are set anew */
          uint32_t *t = get(w, n, sizeof *t);
          if (w->failed) goto end;
          i = 1;
          for (j = 0; j < n; j++)
            if (goesround(w, head, j) && ACTIVE(first + j))
              t[j] = w->q->block[b].first + i++;
          for (j = 0; j < nc; j++)
            setadjoint(w, carried[j], w->q->block[b].first + i++);
          for (j = 0; j < n; j++)
            if (goesround(w, head, j) && ACTIVE(first + j))
              chain(w, went[j], t[j], K(1));
          put(w, t, n, sizeof *t);
        }
        for (;; k = p->block[k].parent) {
          uint32_t here;
          reverse(w, k);
          if (k == head || w->failed) break;
          phisof(w, k, &here);
          if (here > 0) handon(w, k, here);
        }
        handon(w, head, n);
        list = jump(w, b, 1 + m + nc);
        if (w->failed) goto end;
        i = (uint32_t)(list - w->q->list);
        w->q->list[i++] = less;
        for (j = 0; j < n; j++)
          if (goesround(w, head, j) && ACTIVE(first + j))
            w->q->list[i++] = adjoint(w, first + j);
        for (j = 0; j < nc; j++) w->q->list[i++] = adjoint(w, carried[j]);
        if (w->ntodo == base) break;
        k = next(w).block;
        if (w->failed) goto end;
        continue;
      }
      k = next(w).block;
      if (w->failed) goto end;
    }
  }
  /* all rounds are done */
  w->round = 0;
  w->now = before;
  at = block(w, b);
  if (w->failed) goto end;
  w->q->block[b].no = at;
  {
    uint32_t i = w->q->block[b].first + 1, *t = get(w, n, sizeof *t);
    if (w->failed) goto end;
    for (j = 0; j < n; j++)
      if (goesround(w, head, j) && ACTIVE(first + j)) t[j] = i++;
    for (j = 0; j < nc; j++) setadjoint(w, carried[j], i++);
    for (j = 0; j < n; j++)
      if (goesround(w, head, j) && ACTIVE(first + j))
        chain(w, init[j], t[j], K(1));
    put(w, t, n, sizeof *t);
  }
end:
  put(w, carried, p->nins, sizeof *carried);
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
  for (uint32_t k = leaf; k != P_NONE && !w->failed; k = p->block[k].parent) {
    reverse(w, k);
    if (w->failed) break;
    if (w->loop[k] == k)
      backloop(w, k);
    else {
      uint32_t n;
      phisof(w, k, &n);
      if (n > 0) handon(w, k, n);
    }
  }
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
  const Prog *p = w->p;
  uint32_t k = 0;
  w->q->here = 0;
  w->q->state = P_APPEND;
  for (uint32_t i = 0; i < p->nin; i++) w->to[i] = i;
  for (;;) {
    const Block *b = &p->block[k];
    w->round = 0;
    copy(w, k);
    if (w->failed) return;
    if (b->end == P_GOTO && b->yes > k) {
      k = b->yes;
      if (comesback(w, k))
        enter(w, k);
      else
        through(w, k);
      continue;
    }
    if (b->end == P_GOTO)
      again(w, k);
    else if (b->end == P_IF) {
      branch(w, b->cmp, value(w, b->a), value(w, b->b), b->place);
      if (b->no != P_NONE) todo(w, b->no, w->q->here, 0);
      if (b->yes != P_NONE) todo(w, b->yes, w->q->here, 1);
    } else
      finish(w, k);
    if (w->failed || w->ntodo == 0) return;
    k = next(w).block;
    if (w->failed) return;
  }
}

int ad_progadjoint(const Prog *p, Prog *q, uint32_t nwant,
                   const uint32_t *want) {
  Adj w;
  const size_t n = p->nins, m = p->nblock;
  memset(&w, 0, sizeof w);
  if (!ad_proginit(q, p->alloc, p->ud, p->nin)) return P_GNOMEM;
  w.p = p;
  w.q = q;
  w.want = want;
  w.nwant = nwant;
  w.to = get(&w, n, sizeof *w.to);
  w.re = get(&w, n, sizeof *w.re);
  w.rewhen = get(&w, n, sizeof *w.rewhen);
  w.adj = get(&w, n, sizeof *w.adj);
  w.when = get(&w, n, sizeof *w.when);
  w.active = get(&w, n, 1);
  w.live = get(&w, n, 1);
  w.loop = get(&w, m, sizeof *w.loop);
  w.count = get(&w, m, sizeof *w.count);
  if (!w.failed)
    for (uint32_t k = 0; k < p->nconst && !w.failed; k++)
      konst(&w, p->constant[k]);
  if (!w.failed) findloops(&w);
  if (!w.failed) {
    findactive(&w);
    findlive(&w);
    all(&w);
  }
  q->state = P_IDLE;
  put(&w, w.to, n, sizeof *w.to);
  put(&w, w.re, n, sizeof *w.re);
  put(&w, w.rewhen, n, sizeof *w.rewhen);
  put(&w, w.adj, n, sizeof *w.adj);
  put(&w, w.when, n, sizeof *w.when);
  put(&w, w.active, n, 1);
  put(&w, w.live, n, 1);
  put(&w, w.loop, m, sizeof *w.loop);
  put(&w, w.count, m, sizeof *w.count);
  if (w.todo) p->alloc(p->ud, w.todo, w.captodo * sizeof *w.todo, 0);
  if (w.failed) ad_progfree(q);
  return w.failed == 0 ? P_GDONE : w.failed == 1 ? P_GNOMEM : P_GCANNOT;
}
