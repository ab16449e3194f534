/*
** sparse.c
** See sparse.h.
*/
#include "sparse.h"

#include <string.h>

static void *get(ad_Alloc alloc, void *ud, size_t n, size_t size) {
  void *at = alloc(ud, NULL, 0, (n + 1) * size);
  if (at != NULL) memset(at, 0, (n + 1) * size);
  return at;
}

static void put(ad_Alloc alloc, void *ud, void *at, size_t n, size_t size) {
  if (at != NULL) alloc(ud, at, (n + 1) * size, 0);
}

/*
** Patterns
*/

void ad_patternfree(Pattern *p) {
  put(p->alloc, p->ud, p->start, p->nrow, sizeof *p->start);
  put(p->alloc, p->ud, p->index, p->capindex, sizeof *p->index);
  p->start = p->index = NULL;
  p->nrow = p->n = p->capindex = 0;
}

static int init(Pattern *p, ad_Alloc alloc, void *ud, uint32_t nrow,
                uint32_t ncol, uint32_t n) {
  memset(p, 0, sizeof *p);
  p->alloc = alloc;
  p->ud = ud;
  p->nrow = nrow;
  p->ncol = ncol;
  p->n = n;
  p->start = get(alloc, ud, nrow, sizeof *p->start);
  if (p->start == NULL) return 0;
  p->index = get(alloc, ud, n, sizeof *p->index);
  if (p->index != NULL) {
    p->capindex = n;
    return 1;
  }
  ad_patternfree(p);
  return 0;
}

int ad_transpose(const Pattern *a, Pattern *t) {
  if (!init(t, a->alloc, a->ud, a->ncol, a->nrow, a->n)) return 0;
  for (uint32_t k = 0; k < a->n; k++) t->start[a->index[k] + 1]++;
  for (uint32_t i = 0; i < t->nrow; i++) t->start[i + 1] += t->start[i];
  for (uint32_t i = 0; i < a->nrow; i++) /* moves each start by one row, */
    for (uint32_t k = a->start[i]; k < a->start[i + 1]; k++)
      t->index[t->start[a->index[k]]++] = i;
  for (uint32_t i = t->nrow; i > 0; i--) t->start[i] = t->start[i - 1];
  t->start[0] = 0; /* and back */
  return 1;
}

int ad_symmetric(const Pattern *a, Pattern *s) {
  Pattern t;
  uint64_t most = 2 * (uint64_t)a->n + a->nrow;
  if (most > UINT32_MAX || !ad_transpose(a, &t)) return 0;
  if (!init(s, a->alloc, a->ud, a->nrow, a->ncol, (uint32_t)most)) {
    ad_patternfree(&t);
    return 0;
  }
  s->n = 0;
  for (uint32_t i = 0; i < a->nrow; i++) { /* three ascending lists */
    uint32_t k = a->start[i], l = t.start[i];
    int diagonal = 0;
    for (;;) {
      uint32_t j = UINT32_MAX;
      if (k < a->start[i + 1]) j = a->index[k];
      if (l < t.start[i + 1] && t.index[l] < j) j = t.index[l];
      if (!diagonal && i < j) j = i;
      if (j == UINT32_MAX) break;
      s->index[s->n++] = j;
      if (k < a->start[i + 1] && a->index[k] == j) k++;
      if (l < t.start[i + 1] && t.index[l] == j) l++;
      if (j == i) diagonal = 1;
    }
    s->start[i + 1] = s->n;
  }
  ad_patternfree(&t);
  return 1;
}

/*
** {======================================================
** Propagation
** The sets of inputs that slots depend on, WORDS times 64 inputs at a time.
** A state is the sets of all slots, and one for what is on the stack. Blocks
** are passed down the tree; the second of two sides waits with a copy of the
** state. Heads of loops keep what has come to them, and all is done again
** until no more does.
** =======================================================
*/

#define WORDS 4

typedef struct Flow {
  const Code *c;
  uint32_t set, nout;
  size_t size;              /* of a state, in words */
  uint64_t *now;            /* state */
  uint64_t *out;            /* sets of the results */
  uint64_t **wait, **entry; /* by block: states, or NULL */
  uint32_t base;            /* first input of this pass */
  int again;
} Flow;

/* the operations whose derivative by every operand is K(0) in ops.h */
enum { A = 0, B = 0, C = 0, Y = 0 };
#define K(c) ((c) == 0)
#define ADD(x, y) 0
#define SUB(x, y) 0
#define MUL(x, y) 0
#define DIV(x, y) 0
#define NEG(x) 0
#define F1(name, x) 0
#define F2(name, x, y) 0
#define LT(x, y) 0
#define EQ(x, y) 0
#define ZERO(x) 0
#define OR(c, d) 0
#define AND(c, d) 0
#define IF(c, x, y) 0
#define P2(name, x, y) 0
#define P3(name, x, y, z) 0
static const uint8_t flat[] = {
#define OP1(name, v, d0, l0, h0, kind) (d0) == 1,
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind) (d0) == 1 && (d1) == 1,
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  (d0) == 1 && (d1) == 1 && (d2) == 1,
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
};
#include "unnote.h"

static uint64_t *setof(const Flow *w, uint32_t slot) {
  return w->now + (size_t)slot * WORDS;
}

static void join(uint64_t *to, const uint64_t *from) {
  for (int k = 0; k < WORDS; k++) to[k] |= from[k];
}

static void instruction(const Flow *w, const Ins *x) {
  const int n = ad_insarity(x->op);
  uint64_t s[WORDS] = {0}, *stack = setof(w, w->c->nslot);
  if (x->op == P_PUSH) {
    join(stack, setof(w, x->a));
    return;
  }
  if (x->op == P_POP)
    join(s, stack);
  else if (ad_islist(x->op))
    for (uint32_t j = 0; j < x->b; j++) join(s, setof(w, w->c->list[x->a + j]));
  else if (x->op >= sizeof flat || !flat[x->op]) {
    if (n > 0 && x->op != OP_where) join(s, setof(w, x->a));
    if (n > 1) join(s, setof(w, x->b));
    if (n > 2) join(s, setof(w, x->c));
  }
  memcpy(setof(w, x->d), s, sizeof s);
}

static int copy(Flow *w, uint64_t **to) {
  *to = w->c->alloc(w->c->ud, NULL, 0, w->size * sizeof **to);
  if (*to == NULL) return 0;
  memcpy(*to, w->now, w->size * sizeof **to);
  return 1;
}

static void drop(Flow *w, uint64_t **at) {
  if (*at != NULL) w->c->alloc(w->c->ud, *at, w->size * sizeof **at, 0);
  *at = NULL;
}

/* the state comes to a head: what has come there before comes with it */
static int arrive(Flow *w, uint32_t head, int *changed) {
  uint64_t *e = w->entry[head];
  *changed = 0;
  if (e == NULL) {
    *changed = 1;
    return copy(w, &w->entry[head]);
  }
  for (size_t k = 0; k < w->size; k++) {
    if ((e[k] | w->now[k]) != e[k]) *changed = 1;
    e[k] |= w->now[k];
  }
  memcpy(w->now, e, w->size * sizeof *e);
  return 1;
}

/* from a block down to where the run ends or jumps back */
static int down(Flow *w, uint32_t k, const uint8_t *ishead) {
  const Code *c = w->c;
  for (;;) {
    const Block *b = &c->block[k];
    int changed;
    if (ishead[k] && !arrive(w, k, &changed)) return 0;
    for (uint32_t i = b->first; i < b->last; i++) instruction(w, &c->ins[i]);
    if (b->end == P_RETURN) {
      if (b->set == w->set)
        for (uint32_t j = 0; j < b->b && j < w->nout; j++)
          join(w->out + (size_t)j * WORDS, setof(w, c->list[b->a + j]));
      return 1;
    }
    if (b->end == P_GOTO) {
      if (b->yes <= k) {
        if (!arrive(w, b->yes, &changed)) return 0;
        w->again |= changed;
        return 1;
      }
      k = b->yes;
    } else {
      if (b->yes == P_NONE && b->no == P_NONE) return 1;
      if (b->yes != P_NONE && b->no != P_NONE && !copy(w, &w->wait[b->no]))
        return 0;
      k = b->yes != P_NONE ? b->yes : b->no;
    }
  }
}

static int pass(Flow *w, const uint8_t *ishead) {
  const Code *c = w->c;
  uint32_t n = c->nin - w->base;
  if (n > WORDS * 64) n = WORDS * 64;
  memset(w->out, 0, (size_t)w->nout * WORDS * sizeof *w->out);
  do {
    w->again = 0;
    memset(w->now, 0, w->size * sizeof *w->now);
    for (uint32_t k = 0; k < n; k++)
      setof(w, c->nconst + w->base + k)[k / 64] |= UINT64_C(1) << k % 64;
    if (!down(w, 0, ishead)) return 0;
    for (uint32_t k = 1; k < c->nblock; k++) { /* waiting ones come later */
      if (w->wait[k] == NULL) continue;
      memcpy(w->now, w->wait[k], w->size * sizeof *w->now);
      drop(w, &w->wait[k]);
      if (!down(w, k, ishead)) return 0;
    }
  } while (w->again);
  for (uint32_t k = 0; k < c->nblock; k++) drop(w, &w->entry[k]);
  return 1;
}

/* the sets of the results, as entries: by columns here, sorted later */
static int collect(const Flow *w, Pattern *t) {
  const uint32_t last = w->base + WORDS * 64;
  for (uint32_t j = w->base; j < last && j < w->c->nin; j++) {
    const uint32_t k = j - w->base;
    for (uint32_t i = 0; i < w->nout; i++) {
      if (!(w->out[(size_t)i * WORDS + k / 64] >> k % 64 & 1)) continue;
      if (t->n == t->capindex) {
        const uint32_t ncap = t->capindex < UINT32_MAX / 2 - 16
                                  ? t->capindex * 2 + 16
                                  : UINT32_MAX - 1;
        uint32_t *p;
        if (ncap <= t->n) return 0;
        p = t->alloc(t->ud, t->index, ((size_t)t->capindex + 1) * sizeof *p,
                     ((size_t)ncap + 1) * sizeof *p);
        if (p == NULL) return 0;
        t->index = p;
        t->capindex = ncap;
      }
      t->index[t->n++] = i;
    }
    t->start[j + 1] = t->n;
  }
  return 1;
}

int ad_sparsity(const Code *c, uint32_t set, uint32_t nout, Pattern *p) {
  Flow w;
  Pattern t; /* the transpose */
  uint8_t *ishead;
  int ok;
  memset(&w, 0, sizeof w);
  w.c = c;
  w.set = set;
  w.nout = nout;
  w.size = ((size_t)c->nslot + 1) * WORDS;
  if (!init(&t, c->alloc, c->ud, c->nin, nout, 0)) return 0;
  w.now = get(c->alloc, c->ud, w.size, sizeof *w.now);
  w.out = get(c->alloc, c->ud, (size_t)nout * WORDS, sizeof *w.out);
  w.wait = get(c->alloc, c->ud, c->nblock, sizeof *w.wait);
  w.entry = get(c->alloc, c->ud, c->nblock, sizeof *w.entry);
  ishead = get(c->alloc, c->ud, c->nblock, 1);
  ok = w.now != NULL && w.out != NULL && w.wait != NULL && w.entry != NULL &&
       ishead != NULL;
  for (uint32_t k = 0; ok && k < c->nblock; k++)
    if (c->block[k].end == P_GOTO && c->block[k].yes <= k)
      ishead[c->block[k].yes] = 1;
  for (; ok && w.base < c->nin; w.base += WORDS * 64)
    ok = pass(&w, ishead) && collect(&w, &t);
  for (uint32_t k = 0; k < c->nblock; k++) {
    if (w.wait != NULL) drop(&w, &w.wait[k]);
    if (w.entry != NULL) drop(&w, &w.entry[k]);
  }
  put(c->alloc, c->ud, w.now, w.size, sizeof *w.now);
  put(c->alloc, c->ud, w.out, (size_t)nout * WORDS, sizeof *w.out);
  put(c->alloc, c->ud, w.wait, c->nblock, sizeof *w.wait);
  put(c->alloc, c->ud, w.entry, c->nblock, sizeof *w.entry);
  put(c->alloc, c->ud, ishead, c->nblock, 1);
  ok = ok && ad_transpose(&t, p);
  ad_patternfree(&t);
  return ok;
}

/* }====================================================== */

/*
** {======================================================
** Colours
** =======================================================
*/

#define NOCOLOUR UINT32_MAX

/* rows by their number of entries, most first; rows of equal number as they
   are */
static uint32_t *bysize(const Pattern *t) {
  uint32_t *order = get(t->alloc, t->ud, t->nrow, sizeof *order);
  uint32_t *place = get(t->alloc, t->ud, t->ncol + 1, sizeof *place);
#define SIZE(i) (t->start[(i) + 1] - t->start[i])
  if (order != NULL && place != NULL) {
    for (uint32_t i = 0; i < t->nrow; i++) place[t->ncol - SIZE(i) + 1]++;
    for (uint32_t k = 0; k < t->ncol; k++) place[k + 1] += place[k];
    for (uint32_t i = 0; i < t->nrow; i++)
      order[place[t->ncol - SIZE(i)]++] = i;
  } else {
    put(t->alloc, t->ud, order, t->nrow, sizeof *order);
    order = NULL;
  }
#undef SIZE
  put(t->alloc, t->ud, place, t->ncol + 1, sizeof *place);
  return order;
}

/* the first colour that is not forbidden to j: 'not' holds 1 + to whom last */
static uint32_t choose(const uint32_t * not, uint32_t j, uint32_t *n) {
  uint32_t k = 0;
  while (not [k] == j + 1) k++;
  if (k >= *n) *n = k + 1;
  return k;
}

int ad_colour(const Pattern *a, const Pattern *t, uint32_t *colour,
              uint32_t *n) {
  uint32_t *order = bysize(t);
  uint32_t *not = get(a->alloc, a->ud, a->ncol, sizeof *not );
  const int ok = order != NULL && not != NULL;
  *n = 0;
  for (uint32_t j = 0; j < a->ncol; j++) colour[j] = NOCOLOUR;
  for (uint32_t m = 0; ok && m < a->ncol; m++) {
    const uint32_t j = order[m];
    for (uint32_t k = t->start[j]; k < t->start[j + 1]; k++) {
      const uint32_t i = t->index[k];
      for (uint32_t l = a->start[i]; l < a->start[i + 1]; l++)
        if (colour[a->index[l]] != NOCOLOUR) not [colour[a->index[l]]] = j + 1;
    }
    colour[j] = choose(not, j, n);
  }
  put(a->alloc, a->ud, order, t->nrow, sizeof *order);
  put(a->alloc, a->ud, not, a->ncol, sizeof *not );
  return ok;
}

/*
** No two neighbours have the same colour, and no path of four vertices has
** only two. A colour is forbidden to v if a neighbour has it; if a vertex at
** distance 2 has it, the one in between having none yet; or if it would be
** the end of such a path.
*/
static int closes(const Pattern *s, const uint32_t *colour, uint32_t w,
                  uint32_t x) {
  for (uint32_t k = s->start[x]; k < s->start[x + 1]; k++) {
    const uint32_t y = s->index[k];
    if (y != x && y != w && colour[y] == colour[w]) return 1;
  }
  return 0;
}

int ad_starcolour(const Pattern *s, uint32_t *colour, uint32_t *n) {
  uint32_t *order = bysize(s);
  uint32_t *not = get(s->alloc, s->ud, s->ncol, sizeof *not );
  const int ok = order != NULL && not != NULL;
  *n = 0;
  for (uint32_t j = 0; j < s->ncol; j++) colour[j] = NOCOLOUR;
  for (uint32_t m = 0; ok && m < s->ncol; m++) {
    const uint32_t v = order[m];
    for (uint32_t k = s->start[v]; k < s->start[v + 1]; k++) {
      const uint32_t w = s->index[k];
      if (w == v) continue;
      if (colour[w] != NOCOLOUR) not [colour[w]] = v + 1;
      for (uint32_t l = s->start[w]; l < s->start[w + 1]; l++) {
        const uint32_t x = s->index[l];
        if (x == v || x == w || colour[x] == NOCOLOUR ||
            not [colour[x]] == v + 1)
          continue;
        if (colour[w] == NOCOLOUR || closes(s, colour, w, x))
          not [colour[x]] = v + 1;
      }
    }
    colour[v] = choose(not, v, n);
  }
  put(s->alloc, s->ud, order, s->nrow, sizeof *order);
  put(s->alloc, s->ud, not, s->ncol, sizeof *not );
  return ok;
}

void ad_recover(const Pattern *a, const uint32_t *colour, uint32_t n,
                const double *b, double *value) {
  for (uint32_t i = 0; i < a->nrow; i++)
    for (uint32_t k = a->start[i]; k < a->start[i + 1]; k++)
      value[k] = b[(size_t)i * n + colour[a->index[k]]];
}

/* is j alone with its colour in row i? */
static int alone(const Pattern *s, const uint32_t *colour, uint32_t i,
                 uint32_t j) {
  for (uint32_t k = s->start[i]; k < s->start[i + 1]; k++)
    if (s->index[k] != j && colour[s->index[k]] == colour[j]) return 0;
  return 1;
}

void ad_recoversymmetric(const Pattern *s, const uint32_t *colour, uint32_t n,
                         const double *b, double *value) {
  for (uint32_t i = 0; i < s->nrow; i++)
    for (uint32_t k = s->start[i]; k < s->start[i + 1]; k++) {
      const uint32_t j = s->index[k];
      value[k] = alone(s, colour, i, j) ? b[(size_t)i * n + colour[j]]
                                        : b[(size_t)j * n + colour[i]];
    }
}

/* }====================================================== */
