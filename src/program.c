/*
** program.c
** Programs as the recorder writes them, and what all back ends share: see
** program.h.
*/
#include "program.h"

#include <string.h>

/*
** Operations
*/

int ad_insarity(int op) {
  if (op < OP_count) return ad_opinfo[op].arity;
  return op == P_MOV || op == P_ROOT || op == P_PUSH;
}

const char *ad_insname(int op) {
  static const char *const name[] = {"input", "phi",  "mov",
                                     "root",  "push", "pop"};
  if (op >= P_CALL) return "call";
  if (op >= OP_list_sum && op < OP_count && ad_opinfo[op].name[0] == 'l' &&
      (op == OP_list_lmax || op == OP_list_lmin))
    return ad_opinfo[op].name + 1;
  return op < OP_count ? ad_opinfo[op].name : name[op - OP_count];
}

double ad_insvalue(int op, const double *x) {
  switch (op) {
  case P_MOV:
    return x[0];
  case P_ROOT:
    return x[0] == -HUGE_VAL ? HUGE_VAL : sqrt(x[0] + 0.0);
  default:
    return ad_opvalue(op, x);
  }
}

static uint64_t bitsof(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return x != x ? UINT64_C(0x7ff8000000000000) : u; /* one NaN for all */
}

int ad_compare(int cmp, double a, double b) {
  switch (cmp) {
  case P_LT:
    return a < b;
  case P_LE:
    return a <= b;
  case P_EQ:
    return a == b;
  default:
    return bitsof(a) == bitsof(b);
  }
}

/*
** Arrays that grow
*/

/* room for n more of 'size' bytes; 0: there is none */
static int grow(Prog *p, void **at, uint32_t used, uint32_t *cap, uint32_t n,
                size_t size) {
  void *np;
  uint64_t want = (uint64_t)used + n, ncap;
  if (want <= *cap) return 1;
  ncap = (uint64_t)*cap * 2 + 16;
  if (ncap < want) ncap = want;
  if (ncap > P_MAXINS) ncap = P_MAXINS;
  if (ncap < want) return 0;
  np = p->alloc(p->ud, *at, *cap * size, (size_t)ncap * size);
  if (np == NULL) return 0;
  *at = np;
  *cap = (uint32_t)ncap;
  return 1;
}

static int roomins(Prog *p, uint32_t n) {
  void *at = p->ins;
  const int ok = grow(p, &at, p->nins, &p->capins, n, sizeof *p->ins);
  p->ins = at;
  return ok;
}

static int roomblock(Prog *p, uint32_t n) {
  void *at = p->block;
  const int ok = grow(p, &at, p->nblock, &p->capblock, n, sizeof *p->block);
  p->block = at;
  return ok;
}

static int roomlist(Prog *p, uint32_t n) {
  void *at = p->list;
  const int ok = grow(p, &at, p->nlist, &p->caplist, n, sizeof *p->list);
  p->list = at;
  return ok;
}

int ad_progroom(Prog *p, uint32_t nins, uint32_t nblock, uint32_t nlist) {
  return roomins(p, nins) && roomblock(p, nblock) && roomlist(p, nlist);
}

/*
** Prog
*/

static uint32_t newblock(Prog *p, uint32_t parent) {
  Block *b = &p->block[p->nblock];
  memset(b, 0, sizeof *b);
  b->first = b->last = p->nins;
  b->end = P_OPEN;
  b->yes = b->no = P_NONE;
  b->loop = P_NONE;
  b->parent = parent;
  return p->nblock++;
}

int ad_proginit(Prog *p, ad_Alloc alloc, void *ud, uint32_t nin) {
  memset(p, 0, sizeof *p);
  p->alloc = alloc;
  p->ud = ud;
  p->nin = nin;
  if (!roomins(p, nin) || !roomblock(p, 1)) {
    ad_progfree(p);
    return 0;
  }
  for (uint32_t i = 0; i < nin; i++) {
    memset(&p->ins[i], 0, sizeof p->ins[i]);
    p->ins[i].op = P_INPUT;
    p->ins[i].a = i;
  }
  newblock(p, P_NONE);
  p->nins = p->block[0].last = nin;
  return 1;
}

static void release(ad_Alloc alloc, void *ud, void *ptr, size_t size) {
  if (ptr != NULL) alloc(ud, ptr, size, 0);
}

void ad_progfree(Prog *p) {
  release(p->alloc, p->ud, p->ins, p->capins * sizeof *p->ins);
  release(p->alloc, p->ud, p->block, p->capblock * sizeof *p->block);
  release(p->alloc, p->ud, p->list, p->caplist * sizeof *p->list);
  release(p->alloc, p->ud, p->constant, p->capconst * sizeof *p->constant);
  release(p->alloc, p->ud, p->map, p->capmap * sizeof *p->map);
  p->ins = NULL;
  p->block = NULL;
  p->list = NULL;
  p->constant = NULL;
  p->map = NULL;
  p->nins = p->capins = p->nblock = p->capblock = p->nlist = p->caplist = 0;
  p->nconst = p->capconst = p->capmap = 0;
}

size_t ad_progbytes(const Prog *p) {
  return p->capins * sizeof *p->ins + p->capblock * sizeof *p->block +
         p->caplist * sizeof *p->list + p->capconst * sizeof *p->constant +
         p->capmap * sizeof *p->map;
}

/*
** Constants: 'map' holds 1 + the number of a constant, or 0
*/

static uint32_t hashbits(uint64_t u) {
  u ^= u >> 32;
  u *= UINT64_C(0x9e3779b97f4a7c15);
  return (uint32_t)(u >> 32);
}

/* the place in the map of the constant with these bits, or where to put it */
static uint32_t *mapplace(const Prog *p, uint64_t u) {
  const uint32_t mask = p->capmap - 1;
  uint32_t h = hashbits(u) & mask;
  while (p->map[h] != 0 && bitsof(p->constant[p->map[h] - 1]) != u)
    h = (h + 1) & mask;
  return &p->map[h];
}

static int growmap(Prog *p) {
  const uint32_t ncap = p->capmap ? p->capmap * 2 : 32;
  uint32_t *map = p->alloc(p->ud, NULL, 0, ncap * sizeof *map);
  if (map == NULL) return 0;
  memset(map, 0, ncap * sizeof *map);
  release(p->alloc, p->ud, p->map, p->capmap * sizeof *p->map);
  p->map = map;
  p->capmap = ncap;
  for (uint32_t i = 0; i < p->nconst; i++)
    *mapplace(p, bitsof(p->constant[i])) = i + 1;
  return 1;
}

uint32_t ad_progconst(Prog *p, double x) {
  uint32_t *place;
  void *at = p->constant;
  int ok;
  if (p->capmap != 0) {
    place = mapplace(p, bitsof(x));
    if (*place != 0) return (*place - 1) | P_K;
  }
  if (p->nconst >= p->capmap / 2 && !growmap(p)) return P_NOMEM;
  ok = grow(p, &at, p->nconst, &p->capconst, 1, sizeof *p->constant);
  p->constant = at;
  if (!ok) return P_NOMEM;
  p->constant[p->nconst++] = x;
  *mapplace(p, bitsof(x)) = p->nconst;
  return (p->nconst - 1) | P_K;
}

/*
** Recording
*/

void ad_recstart(Prog *p) {
  p->here = 0;
  p->at = p->nin;
  p->ins0 = p->nins;
  p->block0 = p->nblock;
  p->list0 = p->nlist;
  p->state = p->block[0].end == P_OPEN ? P_APPEND : P_FOLLOW;
}

void ad_recabort(Prog *p) {
  if (p->state == P_IDLE) return;
  p->nins = p->ins0;
  p->nblock = p->block0;
  p->nlist = p->list0;
  for (uint32_t k = 0; k < p->nblock; k++) { /* sides that it has closed */
    Block *b = &p->block[k];
    if (b->end == P_IF && b->yes != P_NONE && b->yes >= p->nblock)
      b->yes = P_NONE;
    if (b->end == P_IF && b->no != P_NONE && b->no >= p->nblock) b->no = P_NONE;
  }
  if (p->ntrace == 0) {
    p->block[0].last = p->nin;
    p->block[0].end = P_OPEN;
  }
  p->state = P_IDLE;
}

static uint32_t append(Prog *p, int op, uint32_t a, uint32_t b, uint32_t c) {
  Ins *i;
  if (!roomins(p, 1)) return P_NOMEM;
  i = &p->ins[p->nins];
  i->op = (uint16_t)op;
  i->flags = 0;
  i->d = 0;
  i->a = a;
  i->b = b;
  i->c = c;
  p->block[p->here].last = p->at = p->nins + 1;
  return p->nins++;
}

uint32_t ad_recop(Prog *p, int op, uint32_t a, uint32_t b, uint32_t c) {
  const Ins *i;
  if (p->state == P_APPEND) return append(p, op, a, b, c);
  if (p->at == p->block[p->here].last) return P_DIFFERS;
  i = &p->ins[p->at];
  if (i->op != op || i->a != a || i->b != b || i->c != c) return P_DIFFERS;
  return p->at++;
}

static uint32_t listop(Prog *p, int op, uint32_t n, const uint32_t *x,
                       uint32_t c) {
  const Ins *i;
  uint32_t r;
  if (p->state == P_APPEND) {
    if (!roomlist(p, n)) return P_NOMEM;
    r = append(p, op, p->nlist, n, c);
    if (r == P_NOMEM) return P_NOMEM;
    for (uint32_t k = 0; k < n; k++) p->list[p->nlist++] = x[k];
    return r;
  }
  if (p->at == p->block[p->here].last) return P_DIFFERS;
  i = &p->ins[p->at];
  if (i->op != op || i->b != n || i->c != c) return P_DIFFERS;
  for (uint32_t k = 0; k < n; k++)
    if (p->list[i->a + k] != x[k]) return P_DIFFERS;
  return p->at++;
}

uint32_t ad_reclist(Prog *p, int op, uint32_t n, const uint32_t *x) {
  return listop(p, op, n, x, 0);
}

static uint32_t flagged(Prog *p, uint32_t r, int array) {
  if (r != P_NOMEM && r != P_DIFFERS) p->ins[r].flags = (uint16_t)array;
  return r;
}

uint32_t ad_reccall(Prog *p, uint32_t call, uint32_t n, const uint32_t *x,
                    int array) {
  return flagged(p, listop(p, P_CALL, n, x, call), array);
}

uint32_t ad_recresult(Prog *p, uint32_t made, uint32_t k, int array) {
  return flagged(p, ad_recop(p, P_RESULT, made, k, 0), array);
}

uint32_t ad_reckarray(Prog *p, uint32_t k) {
  return flagged(p, ad_recop(p, P_KARRAY, k, 0, 0), P_ARRAY);
}

/* on to the side of the P_IF at the end of 'here' that is taken */
static uint32_t take(Prog *p, int holds) {
  Block *b = &p->block[p->here];
  const uint32_t next = holds ? b->yes : b->no;
  if (next != P_NONE) {
    p->here = next;
    p->at = p->block[next].first;
    return 0;
  }
  if (!roomblock(p, 1)) return P_NOMEM;
  b = &p->block[p->here];
  p->state = P_APPEND;
  if (holds)
    b->yes = p->nblock;
  else
    b->no = p->nblock;
  p->here = newblock(p, p->here);
  p->at = p->block[p->here].first;
  return 0;
}

static uint32_t branch(Prog *p, int cmp, uint32_t a, uint32_t b, int holds,
                       uint32_t place) {
  Block *k;
  if (p->state == P_APPEND) {
    if (!roomblock(p, 1)) return P_NOMEM;
    k = &p->block[p->here];
    k->end = P_IF;
    k->cmp = (uint8_t)cmp;
    k->place = (uint16_t)(place > UINT16_MAX ? 0 : place);
    k->a = a;
    k->b = b;
    return take(p, holds);
  }
  k = &p->block[p->here];
  if (p->at != k->last || k->end != P_IF || k->cmp != cmp || k->a != a ||
      k->b != b)
    return P_DIFFERS;
  return take(p, holds);
}

uint32_t ad_recif(Prog *p, int cmp, uint32_t a, uint32_t b, int holds,
                  uint32_t place) {
  return branch(p, cmp, a, b, holds, place);
}

uint32_t ad_recsame(Prog *p, uint32_t a, double x, uint32_t place) {
  const uint32_t k = ad_progconst(p, x);
  if (k == P_NOMEM) return P_NOMEM;
  for (;;) { /* past the values that it was before */
    const Block *b;
    uint32_t r;
    if (p->state == P_APPEND) return branch(p, P_SAME, a, k, 1, place);
    b = &p->block[p->here];
    if (b->end != P_IF || b->b == k) return branch(p, P_SAME, a, k, 1, place);
    r = branch(p, P_SAME, a, b->b, 0, place);
    if (r != 0) return r;
  }
}

/* does 'here' end in a jump with these values? */
static int jumps(const Prog *p, uint32_t n, const uint32_t *x) {
  const Block *b = &p->block[p->here];
  if (p->at != b->last || b->end != P_GOTO || b->b != n) return 0;
  return n == 0 || memcmp(p->list + b->a, x, n * sizeof *x) == 0;
}

static void jump(Prog *p, uint32_t to, uint32_t n, const uint32_t *x) {
  Block *b = &p->block[p->here];
  b->end = P_GOTO;
  b->yes = to;
  b->a = p->nlist;
  b->b = n;
  for (uint32_t k = 0; k < n; k++) p->list[p->nlist++] = x[k];
}

uint32_t ad_recenter(Prog *p, uint32_t n, const uint32_t *init) {
  uint32_t head;
  if (p->state == P_FOLLOW) {
    if (!jumps(p, n, init) || p->block[p->here].yes <= p->here)
      return P_DIFFERS;
    p->here = p->block[p->here].yes;
    p->at = p->block[p->here].first + n;
    return 0;
  }
  if (!ad_progroom(p, n, 1, n)) return P_NOMEM;
  head = newblock(p, p->here);
  jump(p, head, n, init);
  p->here = head;
  for (uint32_t k = 0; k < n; k++) {
    const uint32_t phi = append(p, P_PHI, k, 0, 0);
    if (!(init[k] & P_K)) p->ins[phi].flags = p->ins[init[k]].flags & P_ARRAY;
  }
  p->at = p->block[head].last;
  return 0;
}

uint32_t ad_recagain(Prog *p, uint32_t head, uint32_t n, const uint32_t *x) {
  if (p->state == P_FOLLOW) {
    if (!jumps(p, n, x) || p->block[p->here].yes != head) return P_DIFFERS;
  } else {
    if (!ad_progroom(p, 0, 0, n)) return P_NOMEM;
    jump(p, head, n, x);
    p->state = P_FOLLOW;
  }
  p->here = head;
  p->at = p->block[head].first + n;
  return 0;
}

uint32_t ad_recreturn(Prog *p, uint32_t set, uint32_t n, const uint32_t *x) {
  Block *b;
  if (p->state == P_FOLLOW) {
    b = &p->block[p->here];
    if (p->at != b->last || b->end != P_RETURN || b->set != set || b->b != n)
      return P_DIFFERS;
    for (uint32_t k = 0; k < n; k++)
      if (p->list[b->a + k] != x[k]) return P_DIFFERS;
    p->state = P_IDLE;
    return 0;
  }
  if (!roomlist(p, n)) return P_NOMEM;
  b = &p->block[p->here];
  b->end = P_RETURN;
  b->set = set;
  b->a = p->nlist;
  b->b = n;
  for (uint32_t k = 0; k < n; k++) p->list[p->nlist++] = x[k];
  p->ntrace++;
  p->state = P_IDLE;
  return 0;
}

void ad_progloops(const Prog *p, uint32_t *loop) {
  for (uint32_t k = 0; k < p->nblock; k++) loop[k] = P_NONE;
  for (uint32_t k = 0; k < p->nblock; k++) {
    const uint32_t head = p->block[k].yes;
    if (p->block[k].end != P_GOTO || head > k) continue;
    for (uint32_t at = k;; at = p->block[at].parent) { /* inner heads win */
      if (loop[at] == P_NONE || loop[at] < head) loop[at] = head;
      if (at == head) break;
    }
  }
}
