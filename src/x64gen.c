/*
** x64gen.c
** From a Code to machine code, block by block: the instructions of a block
** become nodes over values, each of which is made once; the nodes are put in
** an order; and then written one after the other with the values in registers
** as far as there are any, the one needed last giving way (Belady).
**
** A value is in a register, in memory, or both. What came into the block (the
** constants, the inputs, and what other blocks kept) is in the frame; what
** this block keeps gets there as soon as it is made; what has to give way
** otherwise goes to 'spill'. All other values never are in memory: the slots
** that the Code has for them are not used.
**
** A block with one predecessor begins with the registers as that one left
** them. The head of a loop has several: it begins with values that go round in
** certain registers, where each jump to it brings them.
*/
#include "x64.h"

#include <stddef.h>
#include <string.h>

#define NONE 0xffffffffu
#define DONE 0xffffffffu
#define NEVER 0xffffffffu /* no use follows */
#define FAR 0xfffffffeu   /* ... in this block */

#define NREG 16
#define WINDOW 32   /* how far instructions change places */
#define PRESSURE 13 /* with so many values alive first those that end some */

#define NCARRY 8 /* so many values that go round a loop stay in registers */

#define BIAS 128 /* the bases point there, so that more slots are near */

/* nodes that are no instructions of a Code */
enum {
  M_STORE = P_COUNT, /* an operand of a list operation, to the scratch */
  M_LIST,            /* the call of it */
  M_SINCOS,          /* sin, and in 'aux' the value of cos */
  M_FMA,             /* x[0] * x[1] + x[2]; in 'aux' the signs: X_FMADD, ... */
  M_IF
};

enum { B_NONE, B_FRAME, B_SPILL, B_POOL, B_UNIFORM };

typedef struct Value {
  uint32_t at; /* in memory: in doubles, or of the pool in pairs */
  uint8_t base;
  int8_t reg;    /* or -1 */
  uint32_t next; /* position of the next use */
  uint32_t use;  /* list of uses: 3 * node + operand, linked by 'link' */
  uint32_t left; /* uses that are not yet in the order */
  uint32_t def;  /* node, or NONE */
} Value;

typedef struct Node {
  uint16_t op;
  uint8_t n;
  uint8_t copy;  /* see 'copies' */
  uint32_t x[3]; /* values */
  uint32_t d;    /* value, or NONE */
  uint32_t slot; /* where it is kept, or NONE */
  uint32_t old;  /* value that the slot has in memory before, or NONE */
  uint32_t aux;  /* M_STORE: place; M_LIST: length; M_SINCOS: second value */
} Node;

/* 'to' has to come after another node, for other reasons than its value */
typedef struct Edge {
  uint32_t to, next;
} Edge;

typedef struct Jump {
  size_t at;
  uint32_t to; /* block, or what to do */
} Jump;
#define TO_EXIT 0xfffffffdu
#define TO_ROOM 0xfffffffcu
#define TO_MISS 0x80000000u /* + block that ends there */

/* pairs of doubles in the pool */
enum {
  K_ZERO,
  K_SIGN,
  K_ABS,
  K_ONE,
  K_MINUS,
  K_INF,
  K_MINF,
  K_DEG,
  K_RAD,
  K_HALF,
  K_LENGTH /* of lists of which the mean is taken */
};

/* of a product that becomes part of a sum: its factors, by copy */
typedef struct Factors {
  uint32_t x[2][2];
} Factors;

typedef struct Gen {
  Asm s;
  const Code *c;
  const char **why;
  const uint32_t *place; /* of slots, where vectors are made for 64 points */
  uint8_t *kept;         /* then: by instruction, whether it is kept */
  /* with X_FMA: by product the sum that it is to go into, 1 + instruction;
     by sum the product that did */
  uint32_t *user, *fused;
  Factors *factors;
  /* and so many vectors are worked on side by side: 2 where one would leave
     the machine waiting for results. 'copy': which is it now? */
  uint32_t copies, copy;
  Node *node;
  Value *val;
  uint32_t *link, *nextuse; /* by node and operand */
  uint32_t *ndep, *height, *order, *edgeof;
  int8_t *change;
  uint64_t *ready; /* nodes that could be next: height, and number inverted */
  uint32_t nready;
  uint32_t *cur, *stamp;     /* by slot, then pool: value in this block */
  uint32_t *spare;           /* free places in spill */
  uint32_t (*left)[NREG];    /* by block: slots in registers at its end */
  uint8_t *head;             /* by block: is it the head of a loop? */
  uint32_t (*carry)[NCARRY]; /* by head: slots that are in registers there */
  size_t *start;             /* by block: where its code begins */
  uint32_t maxnode, maxval, npool;
  uint32_t nnode, nval, now;
  Edge *edge;
  uint32_t nedge, capedge;
  Jump *jump;
  uint32_t njump, capjump;
  uint32_t lastmean, mean; /* length, and its place in the pool */
  uint32_t chain[2];       /* last node that used the stack; the scratch */
  uint32_t nspare, top, nspill;
  uint32_t freed[3], nfreed; /* places that are free after the instruction */
  uint32_t reg[NREG];
  uint32_t taken;  /* set of registers that hold a value */
  uint32_t pinned; /* set of registers that are in use right now */
  uint32_t at;     /* position of the node that is written */
  int inherit;     /* somebody may go on with the registers */
  int calls;       /* the code calls functions */
  int vbase, sbase;
  int failed;
} Gen;

/*
** Memory
*/

static void *get(Gen *g, size_t n, size_t size) {
  void *p = g->failed ? NULL : g->c->alloc(g->c->ud, NULL, 0, (n + 1) * size);
  if (p == NULL) g->failed = 1;
  return p;
}

static void put(const Gen *g, void *p, size_t n, size_t size) {
  if (p != NULL) g->c->alloc(g->c->ud, p, (n + 1) * size, 0);
}

/* room for one more; 0: there is none */
static int more(Gen *g, void **at, uint32_t used, uint32_t *cap, size_t size) {
  void *p;
  const size_t ncap = (size_t)*cap * 2 + 32;
  if (used < *cap) return 1;
  p = g->c->alloc(g->c->ud, *at, *cap * size, ncap * size);
  if (p == NULL) {
    g->failed = 1;
    return 0;
  }
  *at = p;
  *cap = (uint32_t)ncap;
  return 1;
}

/*
** The nodes of a block
*/

static uint32_t newvalue(Gen *g, uint32_t def, int base, uint32_t at) {
  Value *v = &g->val[g->nval];
  v->at = at;
  v->base = (uint8_t)base;
  v->reg = -1;
  v->next = NEVER;
  v->use = NONE;
  v->left = 0;
  v->def = def;
  return g->nval++;
}

static uint32_t entry(Gen *g, uint32_t key, int base, uint32_t at) {
  if (g->stamp[key] != g->now) {
    g->stamp[key] = g->now;
    g->cur[key] = newvalue(g, NONE, base, at);
  }
  return g->cur[key];
}

/* of a slot in 'cur' and 'stamp' */
static uint32_t keyof(const Gen *g, uint32_t slot) {
  return g->copy == 0 ? slot : slot + g->c->nslot + g->npool;
}

static uint32_t slotvalue(Gen *g, uint32_t slot) {
  if (g->place == NULL) return entry(g, slot, B_FRAME, slot);
  if (g->place[slot] & X_UNIFORM)
    return entry(g, slot, B_UNIFORM, g->place[slot] & ~X_UNIFORM);
  return entry(g, keyof(g, slot), B_FRAME, g->place[slot] + 4 * g->copy);
}

static uint32_t poolvalue(Gen *g, uint32_t k) {
  return entry(g, g->c->nslot + k, B_POOL, k);
}

static void edge(Gen *g, uint32_t from, uint32_t to) {
  void *at = g->edge;
  if (!more(g, &at, g->nedge, &g->capedge, sizeof *g->edge)) return;
  g->edge = at;
  g->edge[g->nedge].to = to;
  g->edge[g->nedge].next = g->edgeof[from];
  g->edgeof[from] = g->nedge++;
  g->ndep[to]++;
}

static Node *newnode(Gen *g, int op, int n, uint32_t a, uint32_t b,
                     uint32_t c) {
  const uint32_t i = g->nnode++;
  Node *x = &g->node[i];
  x->op = (uint16_t)op;
  x->n = (uint8_t)n;
  x->copy = (uint8_t)g->copy;
  x->x[0] = a;
  x->x[1] = b;
  x->x[2] = c;
  x->d = x->slot = x->old = NONE;
  x->aux = 0;
  g->ndep[i] = 0;
  g->edgeof[i] = NONE;
  for (int k = 0; k < n; k++) {
    Value *v = &g->val[x->x[k]];
    g->link[3 * i + (uint32_t)k] = v->use;
    v->use = 3 * i + (uint32_t)k;
    v->left++;
    if (v->def != NONE) g->ndep[i]++;
  }
  return x;
}

static uint32_t result(Gen *g, Node *x) {
  return x->d = newvalue(g, (uint32_t)(x - g->node), B_NONE, 0);
}

static uint32_t twoof(Gen *g, int op, uint32_t a, uint32_t b) {
  return result(g, newnode(g, op, 2, a, b, 0));
}

/* one after the other: 0 what uses the stack, 1 the scratch */
static void chained(Gen *g, int which, const Node *x) {
  const uint32_t i = (uint32_t)(x - g->node);
  if (g->chain[which] != NONE) edge(g, g->chain[which], i);
  g->chain[which] = i;
}

/* sums and their like in the order in which ad_nvalue goes */
static int islinear(int op) {
  return op == OP_list_sum || op == OP_list_mean || op == OP_list_prod ||
         op == OP_list_dot || op == OP_list_lmax || op == OP_list_lmin;
}

#define PARTIAL 4

/* the list operation; its value is that of the last node */
static Node *listnodes(Gen *g, const Ins *i) {
  const uint32_t *l = g->c->list + i->a;
  const uint32_t before = g->nnode;
  uint32_t n = i->b, v;
  int op = OP_add;
  Node *x;
  if (!islinear(i->op) || (n == 0 && i->op >= OP_list_lmax)) {
    for (uint32_t k = 0; k < n; k++) {
      x = newnode(g, M_STORE, 1, slotvalue(g, l[k]), 0, 0);
      x->aux = k;
      chained(g, 1, x);
    }
    x = newnode(g, M_LIST, 0, 0, 0, 0);
    x->aux = n;
    x->x[0] = i->op; /* no value */
    chained(g, 1, x);
    return x;
  }
  if (i->op == OP_list_dot) n /= 2;
  if (i->op == OP_list_prod) op = OP_mul;
  if (i->op == OP_list_lmax) op = OP_max;
  if (i->op == OP_list_lmin) op = OP_min;
  if (op == OP_add) {
    /* partial sums, if that may be: then a machine has not to wait */
    const uint32_t m = g->c->fused && n >= 2 * PARTIAL ? PARTIAL : 1;
    uint32_t part[PARTIAL];
    part[0] = poolvalue(g, K_ZERO);
    for (uint32_t k = 0; k < n; k++) {
      uint32_t e = slotvalue(g, l[k]);
      if (i->op == OP_list_dot) e = twoof(g, OP_mul, e, slotvalue(g, l[n + k]));
      part[k % m] = k < m && m > 1 ? e : twoof(g, OP_add, part[k % m], e);
    }
    for (uint32_t k = 1; k < m; k++)
      part[0] = twoof(g, OP_add, part[0], part[k]);
    v = part[0];
    if (i->op == OP_list_mean) {
      if (n != g->lastmean) {
        g->lastmean = n;
        g->mean++;
      }
      v = twoof(g, OP_div, v, poolvalue(g, g->mean));
    }
  } else {
    v = n == 0 ? poolvalue(g, K_ONE) : slotvalue(g, l[0]);
    for (uint32_t k = 1; k < n; k++) v = twoof(g, op, v, slotvalue(g, l[k]));
  }
  if (g->nnode == before) /* no operation was needed */
    result(g, newnode(g, P_MOV, 1, v, 0, 0));
  return &g->node[g->nnode - 1];
}

/*
** Sine and cosine of one value are one call, after which the second of the
** two is a copy. (x[1] of the node: the value of the sine, x[2]: the other.)
*/
#define LOOKBACK 8

static Node *both(Gen *g, int op, uint32_t id) {
  const int other = op == OP_sin ? OP_cos : OP_sin;
  uint32_t u = g->val[id].use;
  for (int n = 0; u != NONE && n < LOOKBACK; u = g->link[u], n++) {
    Node *x = &g->node[u / 3];
    if (x->op != other) continue;
    x->op = M_SINCOS;
    x->aux = newvalue(g, u / 3, B_NONE, 0);
    x->x[1] = op == OP_sin ? x->aux : x->d;
    x->x[2] = op == OP_sin ? x->d : x->aux;
    return newnode(g, P_MOV, 1, x->aux, 0, 0);
  }
  return NULL;
}

/* the value that the slot's memory has, as far as this block knows, or NONE:
   what is not kept never gets there */
static uint32_t inslot(const Gen *g, uint32_t slot) {
  const Node *x;
  uint32_t id;
  if (g->stamp[keyof(g, slot)] != g->now) return NONE;
  id = g->cur[keyof(g, slot)];
  if (g->val[id].def == NONE) return id;
  x = &g->node[g->val[id].def];
  return x->slot != NONE ? id : x->old;
}

/* is the product of instruction k left to the sum that uses it? */
#define LOOKAHEAD 16

static int isfactor(Gen *g, uint32_t k) {
  const Ins *ins = g->c->ins, *x = &ins[k];
  uint32_t u;
  if (g->user == NULL || x->op != OP_mul || (g->kept != NULL && g->kept[k]))
    return 0;
  u = g->user[k] - 1; /* none is far away */
  if (u <= k || u - k > LOOKAHEAD || ins[u].a == ins[u].b ||
      (ins[u].op != OP_add && ins[u].op != OP_sub) ||
      (g->fused[u] != 0 && g->fused[u] != k + 1))
    return 0;
  for (uint32_t i = k + 1; i < u; i++)
    if (ins[i].op == P_CALL ||
        (ins[i].op != P_PUSH && (ins[i].d == x->a || ins[i].d == x->b)))
      return 0;
  g->fused[u] = k + 1;
  g->factors[k].x[g->copy][0] = slotvalue(g, x->a);
  g->factors[k].x[g->copy][1] = slotvalue(g, x->b);
  return 1;
}

/* the sum of instruction k, with the product that was left to it */
static Node *fusednode(Gen *g, uint32_t k) {
  const Ins *i = &g->c->ins[k], *m = &g->c->ins[g->fused[k] - 1];
  const uint32_t *f = g->factors[g->fused[k] - 1].x[g->copy];
  const int first = i->a == m->d;
  const uint32_t c = slotvalue(g, first ? i->b : i->a);
  Node *x = newnode(g, M_FMA, 3, f[0], f[1], c);
  x->aux = i->op == OP_add ? X_FMADD : first ? X_FMSUB : X_FNMADD;
  return x;
}

static void buildone(Gen *g, uint32_t k) {
  const Ins *i = &g->c->ins[k];
  Node *x = NULL;
  if (isfactor(g, k)) return;
  if (g->user != NULL && g->fused[k] != 0) {
    x = fusednode(g, k);
  } else if (ad_islist(i->op)) {
    x = listnodes(g, i);
  } else {
    const int n = ad_insarity(i->op);
    const uint32_t p = n > 0 ? slotvalue(g, i->a) : 0,
                   q = n > 1 ? slotvalue(g, i->b) : 0,
                   r = n > 2 ? slotvalue(g, i->c) : 0;
    if (i->op == OP_sin || i->op == OP_cos) x = both(g, i->op, p);
    if (x == NULL) x = newnode(g, i->op, n, p, q, r);
  }
  if (i->op == P_PUSH || i->op == P_POP) chained(g, 0, x);
  if (i->op == P_PUSH) return;
  if (x->d == NONE) result(g, x);
  x->old = inslot(g, i->d);
  if (g->kept != NULL ? g->kept[k] : i->flags & P_KEEP) {
    x->slot = i->d;
    if (x->old != NONE) { /* what reads it comes before what overwrites it */
      const uint32_t to = (uint32_t)(x - g->node);
      const Value *v = &g->val[x->old];
      if (v->def != NONE) edge(g, v->def, to);
      for (uint32_t u = v->use; u != NONE; u = g->link[u])
        if (u / 3 != to) edge(g, u / 3, to);
    }
  }
  g->stamp[keyof(g, i->d)] = g->now;
  g->cur[keyof(g, i->d)] = x->d;
}

static void build(Gen *g, const Block *b) {
  for (uint32_t k = b->first; k < b->last && !g->failed; k++) {
    buildone(g, k);
    if (g->copies == 2) {
      g->copy = 1;
      buildone(g, k);
      g->copy = 0;
    }
  }
  if (b->end == P_IF && !g->failed) {
    const uint32_t p = slotvalue(g, b->a), q = slotvalue(g, b->b);
    newnode(g, M_IF, 2, p, q, 0);
  }
}

/*
** The order: of the nodes in a window that could be next, the one from which
** the longest way leads to the end of the block; but when many values are
** alive, one that makes them fewer.
*/

static uint32_t latency(int op) {
  switch (op) {
  case OP_add:
  case OP_sub:
  case OP_mul:
  case OP_min:
  case OP_max:
  case OP_deg:
  case OP_rad:
  case M_FMA:
    return 4;
  case OP_unm:
  case OP_abs:
  case P_MOV:
  case M_STORE:
  case P_PUSH:
    return 1;
  case P_POP:
    return 5;
  case OP_relu:
    return 5;
  case OP_cmul:
  case OP_cadd:
  case OP_clamp:
  case OP_sign:
  case OP_below:
  case OP_equal:
  case OP_first:
  case OP_second:
  case OP_inside:
  case OP_beyond:
    return 9;
  case OP_div:
    return 14;
  case OP_sqrt:
  case P_ROOT:
    return 18;
  case M_IF:
    return 0;
  default:
    return 40;
  }
}

static void heights(Gen *g) {
  for (uint32_t i = 0; i < g->nnode; i++) g->height[i] = 0;
  for (uint32_t i = g->nnode; i-- > 0;) {
    const Node *x = &g->node[i];
    uint32_t h = g->height[i];
    for (uint32_t e = g->edgeof[i]; e != NONE; e = g->edge[e].next)
      if (g->height[g->edge[e].to] > h) h = g->height[g->edge[e].to];
    h += latency(x->op);
    g->height[i] = h;
    for (int k = 0; k < x->n; k++) {
      const uint32_t def = g->val[x->x[k]].def;
      if (def != NONE && g->height[def] < h) g->height[def] = h;
    }
  }
}

/* is 'v', as far as the order goes, used by this node only? */
static int isonly(const Gen *g, const Node *x, const Value *v) {
  uint32_t n = 0;
  for (int k = 0; k < x->n; k++) n += &g->val[x->x[k]] == v;
  return v->left == n;
}

/* by how much each node changes the number of values that are alive */
static void changes(Gen *g) {
  for (uint32_t i = 0; i < g->nnode; i++) {
    const Node *x = &g->node[i];
    int n = x->d != NONE && g->val[x->d].left > 0;
    n += x->op == M_SINCOS;
    for (int k = 0; k < x->n; k++) {
      const Value *v = &g->val[x->x[k]];
      n -= v->def != NONE && (v->left == 1 || isonly(g, x, v));
    }
    g->change[i] = (int8_t)n;
  }
}

/* a use of the value is in the order now; if a single one is left, that node
   will be its end */
static void used(Gen *g, uint32_t id) {
  Value *v = &g->val[id];
  if (--v->left != 1 || v->def == NONE) return;
  for (uint32_t u = v->use; u != NONE; u = g->link[u])
    if (g->ndep[u / 3] != DONE) {
      g->change[u / 3]--;
      return;
    }
}

static void ready(Gen *g, uint32_t i) {
  g->ready[g->nready++] = (uint64_t)g->height[i] << 32 | (uint32_t)~i;
}

/*
** Which of those that are ready comes next: the one with the largest key. No
** branch depends on what is compared, because no machine could predict it.
*/
static uint32_t next(Gen *g, int alive) {
  const uint64_t *key = g->ready;
  const uint32_t n = g->nready;
  uint64_t most = 0, is;
  uint32_t best = 0;
  if (alive < PRESSURE) {
    for (uint32_t k = 0; k < n; k++) {
      best = key[k] > most ? k : best;
      most = key[k] > most ? key[k] : most;
    }
  } else {
    for (uint32_t k = 0; k < n; k++) {
      const uint32_t i = ~(uint32_t)key[k];
      is = (uint64_t)(8 - g->change[i]) << 32 | (uint32_t)~i;
      best = is > most ? k : best;
      most = is > most ? is : most;
    }
  }
  is = g->ready[best];
  g->ready[best] = g->ready[--g->nready];
  return ~(uint32_t)is;
}

/* a value has been made: which nodes of those before 'hi' does that let go? */
static void released(Gen *g, uint32_t id, uint32_t hi) {
  for (uint32_t u = g->val[id].use; u != NONE; u = g->link[u])
    if (--g->ndep[u / 3] == 0 && u / 3 < hi) ready(g, u / 3);
}

static void schedule(Gen *g) {
  const uint32_t last =
      g->nnode - (g->nnode > 0 && g->node[g->nnode - 1].op == M_IF);
  uint32_t low = 0, hi = 0;
  int alive = 0;
  heights(g);
  changes(g);
  g->nready = 0;
  for (uint32_t at = 0; at < last; at++) {
    uint32_t i;
    const Node *x;
    for (; hi < last && hi < low + WINDOW; hi++)
      if (g->ndep[hi] == 0) ready(g, hi);
    i = next(g, alive);
    x = &g->node[i];
    alive += g->change[i];
    g->order[at] = i;
    g->ndep[i] = DONE;
    while (low < last && g->ndep[low] == DONE) low++;
    for (int k = 0; k < x->n; k++) used(g, x->x[k]);
    if (x->d != NONE) released(g, x->d, hi);
    if (x->op == M_SINCOS) released(g, x->aux, hi);
    for (uint32_t e = g->edgeof[i]; e != NONE; e = g->edge[e].next)
      if (--g->ndep[g->edge[e].to] == 0 && g->edge[e].to < hi)
        ready(g, g->edge[e].to);
  }
  if (last < g->nnode) g->order[last] = last;
}

/* by position and operand the position of the use after it */
static void nextuses(Gen *g) {
  for (uint32_t at = g->nnode; at-- > 0;) {
    const uint32_t i = g->order[at];
    const Node *x = &g->node[i];
    for (uint32_t k = 0; k < x->n; k++)
      g->nextuse[3 * at + k] = g->val[x->x[k]].next;
    for (uint32_t k = 0; k < x->n; k++) g->val[x->x[k]].next = at;
  }
}

/*
** Registers and memory
*/

static Arg inreg(int r) {
  const Arg a = {A_REG, (uint8_t)r, 0};
  return a;
}

static Arg inmem(int base, int32_t at) {
  const Arg a = {A_MEM, (uint8_t)base, at};
  return a;
}

static Arg inpool(uint32_t k) {
  const Arg a = {A_HERE, 0, (int32_t)k};
  return a;
}

static Arg infield(size_t offset) { return inmem(R12, (int32_t)offset); }

static Arg home(const Gen *g, const Value *v) {
  if (v->base == B_POOL) return inpool(v->at);
  if (v->base == B_UNIFORM) return inmem(RDX, (int32_t)(v->at * 8));
  if (g->s.wide)
    return v->base == B_FRAME ? inmem(RDI, (int32_t)(v->at * 8))
                              : inmem(RSI, (int32_t)(v->at * 32));
  return inmem(v->base == B_FRAME ? g->vbase : g->sbase,
               (int32_t)(v->at * 8) - BIAS);
}

static Arg where(const Gen *g, uint32_t id) {
  const Value *v = &g->val[id];
  return v->reg >= 0 ? inreg(v->reg) : home(g, v);
}

static void drop(Gen *g, Value *v) {
  if (v->reg < 0) return;
  g->taken &= ~(1u << v->reg);
  g->reg[v->reg] = NONE;
  v->reg = -1;
}

static void hold(Gen *g, uint32_t id, int r) {
  g->taken |= 1u << r;
  g->reg[r] = id;
  g->val[id].reg = (int8_t)r;
}

/* a register with nothing in it, or NREG */
static int vacant(const Gen *g, uint32_t not ) {
  const uint32_t set = ~(g->taken | not );
#if defined(__GNUC__)
  return __builtin_ctz(set | 1u << NREG);
#else
  int r = 0;
  while (r < NREG && !(set >> r & 1)) r++;
  return r;
#endif
}

/* the value will be needed again and is in a register only */
static void spill(Gen *g, Value *v) {
  if (v->base != B_NONE) return;
  v->base = B_SPILL;
  v->at = g->nspare ? g->spare[--g->nspare] : g->top++;
  if (g->top > g->nspill) g->nspill = g->top;
  ad_asmstore(&g->s, home(g, v), v->reg);
}

/* how far away is the next use of what is in the register? */
static uint64_t distance(const Gen *g, int r) {
  const Value *v = &g->val[g->reg[r]];
  const uint64_t n = v->next - g->at;
  return v->base == B_NONE ? n : n * 4; /* does not have to be stored */
}

/* a register for something new; pinned */
static int fresh(Gen *g) {
  int best = vacant(g, g->pinned);
  if (best == NREG) {
    uint64_t most = 0;
    for (int r = 0; r < NREG; r++) {
      uint64_t n;
      if (g->pinned >> r & 1) continue;
      n = distance(g, r);
      if (n > most || best == NREG) {
        most = n;
        best = r;
      }
    }
    spill(g, &g->val[g->reg[best]]);
    drop(g, &g->val[g->reg[best]]);
  }
  g->pinned |= 1u << best;
  return best;
}

static int load(Gen *g, uint32_t id) {
  Value *v = &g->val[id];
  if (v->reg < 0) {
    const int r = fresh(g);
    if (v->base == B_UNIFORM)
      ad_asmspread(&g->s, r, home(g, v));
    else
      ad_asmload(&g->s, r, home(g, v));
    hold(g, id, r);
  }
  g->pinned |= 1u << v->reg;
  return v->reg;
}

/* is it worth a register that what is in memory now comes into one? */
static int isworth(const Gen *g, uint32_t id) {
  const Value *v = &g->val[id];
  if (v->next >= FAR) return 0;
  if (vacant(g, g->pinned) < NREG) return 1;
  for (int r = 0; r < NREG; r++)
    if (!(g->pinned >> r & 1) && g->val[g->reg[r]].base != B_NONE &&
        g->val[g->reg[r]].next > v->next)
      return 1;
  return 0;
}

/* an operand that may be in memory */
static Arg operand(Gen *g, uint32_t id) {
  if (g->val[id].reg >= 0 || g->val[id].base == B_UNIFORM || isworth(g, id))
    load(g, id);
  return where(g, id);
}

/* gives back what a value that nobody needs any more has */
static void done(Gen *g, uint32_t id) {
  Value *v = &g->val[id];
  if (v->next != NEVER) return;
  if (v->base == B_SPILL) {
    g->freed[g->nfreed++] = v->at;
    v->base = B_NONE;
  }
  if (v->reg >= 0 && g->inherit && v->base == B_FRAME)
    v->next = FAR;
  else
    drop(g, v);
}

static void doneall(Gen *g, const Node *x) {
  for (int k = 0; k < x->n; k++) done(g, x->x[k]);
}

/* what was in this slot is no longer there */
static void overwrite(Gen *g, const Node *x) {
  if (x->old != NONE) drop(g, &g->val[x->old]);
}

static void keep(Gen *g, const Node *x, int r) {
  Value *v = &g->val[x->d];
  if (x->slot == NONE) return;
  overwrite(g, x);
  v->base = B_FRAME;
  v->at = g->place == NULL ? x->slot : g->place[x->slot] + 4u * x->copy;
  ad_asmstore(&g->s, home(g, v), r);
}

/* the node has its value in a register */
static void define(Gen *g, const Node *x, int r) {
  g->pinned = 0;
  hold(g, x->d, r);
  keep(g, x, r);
  done(g, x->d);
}

/*
** Operations
*/

/* where an operation's result goes whose operands are known: where one of
   them is that is not needed any more, if there is no other need */
static int target(Gen *g, const Node *x, int ra, Arg b, int commutes) {
  int r;
  if (g->s.features & X_AVX) {
    doneall(g, x);
    g->pinned = 0;
    r = vacant(g, 0);
    if (r < NREG) return r;
    if (b.kind == A_REG) g->pinned |= 1u << b.reg;
    g->pinned |= 1u << ra;
    return fresh(g);
  }
  doneall(g, x);
  if (g->reg[ra] == NONE) return ra;
  if (commutes && b.kind == A_REG && g->reg[b.reg] == NONE) return b.reg;
  return fresh(g); /* the operands are still pinned */
}

static void simple(Gen *g, const Node *x, int op, uint32_t a, uint32_t b,
                   int commutes) {
  Arg rb;
  int ra, d;
  if (commutes && g->val[a].reg < 0 &&
      (g->val[b].reg >= 0 || g->val[b].next < g->val[a].next)) {
    const uint32_t t = a;
    a = b;
    b = t;
  }
  ra = load(g, a);
  rb = operand(g, b);
  d = target(g, x, ra, rb, commutes);
  ad_asmop(&g->s, op, d, ra, rb);
  define(g, x, d);
}

/* with a place in the pool */
static void constant(Gen *g, const Node *x, int op, uint32_t k) {
  const int ra = load(g, x->x[0]), d = target(g, x, ra, inpool(k), 0);
  ad_asmop(&g->s, op, d, ra, inpool(k));
  define(g, x, d);
}

static void root(Gen *g, const Node *x) {
  const int ra = load(g, x->x[0]);
  const int d = target(g, x, ra, inpool(0), 0);
  ad_asmsqrt(&g->s, d, ra);
  define(g, x, d);
}

/* the result takes the place of an operand, of the sum's if that can be */
static void fma3(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int kind = (int)x->aux, c = load(g, x->x[2]), a = load(g, x->x[0]);
  const Arg b = operand(g, x->x[1]);
  int d = c;
  doneall(g, x);
  if (g->reg[c] == NONE)
    ad_asmfma(s, kind, c, a, b);
  else if (g->reg[a] == NONE)
    ad_asmfmafactor(s, kind, d = a, c, b);
  else if (b.kind == A_REG && g->reg[b.reg] == NONE)
    ad_asmfmafactor(s, kind, d = b.reg, c, inreg(a));
  else {
    d = fresh(g); /* the operands are still pinned */
    ad_asmmove(s, d, c);
    ad_asmfma(s, kind, d, a, b);
  }
  define(g, x, d);
}

/* those that need several instructions leave their operands alone until all
   is done */
static void finish(Gen *g, const Node *x, int d) {
  doneall(g, x);
  define(g, x, d);
}

/* d = m ? a : b with m a mask; m is lost, and b */
static int choose(Gen *g, int m, int a, int b) {
  Asm *s = &g->s;
  const int t = fresh(g);
  ad_asmop(s, X_ANDN, t, m, inreg(b));
  ad_asmop(s, X_AND, m, m, inreg(a));
  ad_asmop(s, X_OR, m, m, inreg(t));
  return m;
}

static void relu(Gen *g, const Node *x) {
  const int a = load(g, x->x[0]), m = fresh(g);
  ad_asmcmp(&g->s, X_LE, m, a, inpool(K_ZERO));
  ad_asmop(&g->s, X_ANDN, m, m, inreg(a));
  finish(g, x, m);
}

static void cmul(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]);
  const Arg b = operand(g, x->x[1]);
  const int m = fresh(g), t = fresh(g);
  ad_asmcmp(s, X_NEQ, m, a, inpool(K_ZERO));
  ad_asmop(s, X_MUL, t, a, b);
  ad_asmop(s, X_AND, t, t, inreg(m));
  finish(g, x, t);
}

/* A + B * C, and with B = 0 A + -0.0, which is A whatever A is */
static void cadd(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int b = load(g, x->x[1]);
  const Arg c = operand(g, x->x[2]);
  const int m = fresh(g), t = fresh(g);
  Arg a;
  ad_asmcmp(s, X_NEQ, m, b, inpool(K_ZERO));
  ad_asmop(s, X_MUL, t, b, c);
  ad_asmop(s, X_AND, t, t, inreg(m));
  ad_asmop(s, X_ANDN, m, m, inpool(K_SIGN));
  ad_asmop(s, X_OR, t, t, inreg(m));
  a = operand(g, x->x[0]);
  ad_asmop(s, X_ADD, t, t, a);
  finish(g, x, t);
}

static void clamp(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]), b = load(g, x->x[1]), c = load(g, x->x[2]);
  const int m = fresh(g), t = fresh(g);
  ad_asmop(s, X_MIN, t, c, inreg(a));
  ad_asmcmp(s, X_LT, m, a, inreg(b));
  finish(g, x, choose(g, m, b, t));
}

static void sign(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]);
  const int p = fresh(g), n = fresh(g), u = fresh(g);
  ad_asmload(s, p, inpool(K_ZERO));
  ad_asmcmp(s, X_LT, p, p, inreg(a));
  ad_asmcmp(s, X_LT, n, a, inpool(K_ZERO));
  ad_asmcmp(s, X_UNORD, u, a, inreg(a));
  ad_asmop(s, X_AND, p, p, inpool(K_ONE));
  ad_asmop(s, X_AND, n, n, inpool(K_MINUS));
  ad_asmop(s, X_AND, u, u, inreg(a));
  ad_asmop(s, X_OR, p, p, inreg(n));
  ad_asmop(s, X_OR, p, p, inreg(u));
  finish(g, x, p);
}

/* see P_ROOT */
static void proot(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]), t = fresh(g), m = fresh(g), i = fresh(g);
  ad_asmop(s, X_ADD, t, a, inpool(K_ZERO));
  ad_asmsqrt(s, t, t);
  ad_asmcmp(s, X_EQ, m, a, inpool(K_MINF));
  ad_asmload(s, i, inpool(K_INF));
  finish(g, x, choose(g, m, i, t));
}

/* steps: masks that become 1 (or one half) and 0 */
static void step(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]), b = load(g, x->x[1]);
  const int c = x->n > 2 ? load(g, x->x[2]) : 0;
  const int m = fresh(g);
  int t;
  switch (x->op) {
  case OP_below:
    ad_asmcmp(s, X_LT, m, a, inreg(b));
    break;
  case OP_equal:
    ad_asmcmp(s, X_EQ, m, a, inreg(b));
    break;
  case OP_first:
    ad_asmcmp(s, X_NLE, m, b, inreg(a));
    break;
  case OP_second:
    ad_asmcmp(s, X_LT, m, a, inreg(b));
    break;
  default: /* inside, beyond */
    t = fresh(g);
    ad_asmcmp(s, X_NLT, m, a, inreg(b));
    ad_asmcmp(s, x->op == OP_inside ? X_NLT : X_LT, t, c, inreg(a));
    ad_asmop(s, X_AND, m, m, inreg(t));
  }
  ad_asmop(s, X_AND, m, m, inpool(K_ONE));
  if (x->op == OP_first || x->op == OP_second) {
    t = fresh(g);
    ad_asmcmp(s, X_EQ, t, a, inreg(b));
    ad_asmop(s, X_AND, t, t, inpool(K_HALF));
    ad_asmop(s, X_OR, m, m, inreg(t));
  }
  finish(g, x, m);
}

static void floored(Gen *g, const Node *x) {
  const int a = load(g, x->x[0]);
  const Arg b = operand(g, x->x[1]);
  const int t = fresh(g);
  ad_asmop(&g->s, X_DIV, t, a, b);
  ad_asmround(&g->s, 9, t, t);
  finish(g, x, t);
}

static void truncated(Gen *g, const Node *x) {
  const int a = load(g, x->x[0]), d = target(g, x, a, inpool(0), 0);
  ad_asmround(&g->s, 11, d, a);
  define(g, x, d);
}

static void move(Gen *g, const Node *x) {
  const int a = load(g, x->x[0]);
  int d = a;
  Value *v = &g->val[x->d];
  doneall(g, x);
  if (g->reg[a] != NONE) { /* stays where it is */
    if (v->next == NEVER) {
      keep(g, x, a);
      g->pinned = 0;
      return;
    }
    d = fresh(g);
    ad_asmmove(&g->s, d, a);
  }
  define(g, x, d);
}

/* a call leaves no register as it was */
static void saveall(Gen *g) {
  for (int r = 0; r < NREG; r++)
    if (g->reg[r] != NONE && g->val[g->reg[r]].next != NEVER)
      spill(g, &g->val[g->reg[r]]);
}

static void dropall(Gen *g) {
  for (int r = 0; r < NREG; r++)
    if (g->reg[r] != NONE) drop(g, &g->val[g->reg[r]]);
}

static void called(Gen *g, const Node *x, int helper) {
  ad_asmcall(&g->s, inmem(R13, helper * 8));
  dropall(g);
  doneall(g, x);
  define(g, x, 0);
}

/* sine in xmm0, cosine in xmm1 */
static void sincosine(Gen *g, const Node *x) {
  const int second = x->aux == x->x[2];
  ad_asmcall(&g->s, inmem(R13, H_SINCOS * 8));
  dropall(g);
  doneall(g, x);
  define(g, x, !second);
  if (g->val[x->aux].next != NEVER) hold(g, x->aux, second);
}

/* with the operands in xmm0 .. xmm2 */
static void call(Gen *g, const Node *x) {
  int from[3];
  saveall(g);
  for (int k = 0; k < x->n; k++) from[k] = g->val[x->x[k]].reg;
  for (int k = 0; k < x->n; k++) {
    int r = x->n;
    if (from[k] < 0 || from[k] >= x->n || from[k] == k) continue;
    for (int j = 0; j < x->n;) { /* one that has no operand */
      if (from[j] == r)
        r++, j = 0;
      else
        j++;
    }
    ad_asmmove(&g->s, r, from[k]);
    from[k] = r;
  }
  for (int k = 0; k < x->n; k++) {
    if (from[k] < 0)
      ad_asmload(&g->s, k, home(g, &g->val[x->x[k]]));
    else if (from[k] != k)
      ad_asmmove(&g->s, k, from[k]);
  }
  if (x->op == M_SINCOS)
    sincosine(g, x);
  else
    called(g, x, x->op);
}

static void callist(Gen *g, const Node *x) {
  Asm *s = &g->s;
  saveall(g);
  ad_asmgp(s, X_GMOV, RDI, inreg(R12));
  ad_asmseti(s, RSI, x->x[0]);
  ad_asmseti(s, RDX, x->aux);
  called(g, x, H_LIST);
}

static void toscratch(Gen *g, const Node *x) {
  const int a = load(g, x->x[0]);
  ad_asmgp(&g->s, X_GMOV, RAX, infield(offsetof(Frame, scratch)));
  ad_asmstore(&g->s, inmem(RAX, (int32_t)(x->aux * 8)), a);
  doneall(g, x);
  g->pinned = 0;
}

static void jumpto(Gen *g, int cond, uint32_t to) {
  void *at = g->jump;
  const size_t j = ad_asmjump(&g->s, cond);
  if (!more(g, &at, g->njump, &g->capjump, sizeof *g->jump)) return;
  g->jump = at;
  g->jump[g->njump].at = j;
  g->jump[g->njump++].to = to;
}

/* r14 is the top of the frame's stack, r15 its end */
static void push(Gen *g, const Node *x) {
  Asm *s = &g->s;
  const int a = load(g, x->x[0]);
  size_t over;
  ad_asmgp(s, X_GCMP, R14, inreg(R15));
  over = ad_asmjump(s, X_JB);
  jumpto(g, X_CALL, TO_ROOM); /* keeps all registers */
  ad_asmland(s, over, s->n);
  ad_asmstore(s, inmem(R14, 0), a);
  ad_asmaddi(s, R14, 8);
  doneall(g, x);
  g->pinned = 0;
}

static void pop(Gen *g, const Node *x) {
  const int d = fresh(g);
  ad_asmaddi(&g->s, R14, -8);
  ad_asmload(&g->s, d, inmem(R14, 0));
  define(g, x, d);
}

/* which operations are calls? The same answer as write() below gives */
static int iscall(const Gen *g, int op) {
  switch (op) {
  case OP_unm:
  case OP_add:
  case OP_sub:
  case OP_mul:
  case OP_div:
  case OP_sqrt:
  case OP_deg:
  case OP_rad:
  case OP_abs:
  case OP_sign:
  case OP_relu:
  case OP_max:
  case OP_min:
  case OP_clamp:
  case OP_cmul:
  case OP_cadd:
  case OP_below:
  case OP_equal:
  case OP_first:
  case OP_second:
  case OP_inside:
  case OP_beyond:
  case P_MOV:
  case P_ROOT:
  case M_FMA:
    return 0;
  case OP_trunc:
  case OP_idiv:
    return !(g->s.features & X_SSE41);
  default:
    return !islinear(op);
  }
}

static void write(Gen *g, const Node *x) {
  const uint32_t a = x->x[0], b = x->x[1];
  for (int k = 0; k < x->n; k++)
    if (g->val[x->x[k]].reg >= 0) g->pinned |= 1u << g->val[x->x[k]].reg;
  if (x->op == M_LIST)
    callist(g, x);
  else if (x->op == M_STORE)
    toscratch(g, x);
  else if (x->op == P_PUSH)
    push(g, x);
  else if (x->op == P_POP)
    pop(g, x);
  else if (iscall(g, x->op))
    call(g, x);
  else
    switch (x->op) {
    case OP_unm:
      constant(g, x, X_XOR, K_SIGN);
      break;
    case OP_abs:
      constant(g, x, X_AND, K_ABS);
      break;
    case OP_deg:
      constant(g, x, X_MUL, K_DEG);
      break;
    case OP_rad:
      constant(g, x, X_MUL, K_RAD);
      break;
    case OP_add:
      simple(g, x, X_ADD, a, b, 1);
      break;
    case OP_sub:
      simple(g, x, X_SUB, a, b, 0);
      break;
    case OP_mul:
      simple(g, x, X_MUL, a, b, 1);
      break;
    case OP_div:
      simple(g, x, X_DIV, a, b, 0);
      break;
    case OP_max: /* the machine's gives its second for NaN and equal zeros */
      simple(g, x, X_MAX, b, a, 0);
      break;
    case OP_min:
      simple(g, x, X_MIN, b, a, 0);
      break;
    case OP_sqrt:
      root(g, x);
      break;
    case OP_sign:
      sign(g, x);
      break;
    case OP_relu:
      relu(g, x);
      break;
    case OP_clamp:
      clamp(g, x);
      break;
    case OP_cmul:
      cmul(g, x);
      break;
    case OP_cadd:
      cadd(g, x);
      break;
    case OP_below:
    case OP_equal:
    case OP_first:
    case OP_second:
    case OP_inside:
    case OP_beyond:
      step(g, x);
      break;
    case OP_trunc:
      truncated(g, x);
      break;
    case OP_idiv:
      floored(g, x);
      break;
    case P_ROOT:
      proot(g, x);
      break;
    case M_FMA:
      fma3(g, x);
      break;
    default:
      move(g, x);
    }
}

/*
** Ends of blocks
*/

static uint32_t side(uint32_t to, uint32_t k) {
  return to == P_NONE ? TO_MISS | k : to;
}

/* to 'yes' if cond, else to 'no'; block k + 1 follows */
static void split(Gen *g, uint32_t k, int cond, uint32_t yes, uint32_t no) {
  if (yes == k + 1) {
    jumpto(g, cond ^ 1, no);
  } else {
    jumpto(g, cond, yes);
    if (no != k + 1) jumpto(g, X_JMP, no);
  }
}

static int isplain(const Gen *g, uint32_t id) {
  const Value *v = &g->val[id];
  return v->base == B_FRAME && v->at < g->c->nconst &&
         g->c->constant[v->at] == g->c->constant[v->at];
}

/* same bits, and one NaN for all */
static void same(Gen *g, const Node *x, uint32_t yes, uint32_t no) {
  Asm *s = &g->s;
  uint32_t a = x->x[0], b = x->x[1];
  const int plain = isplain(g, a) || isplain(g, b);
  if (isplain(g, a)) {
    const uint32_t t = a;
    a = b;
    b = t;
  }
  if (!plain) load(g, a), load(g, b);
  if (g->val[a].reg >= 0)
    ad_asmbits(s, RAX, g->val[a].reg);
  else
    ad_asmgp(s, X_GMOV, RAX, home(g, &g->val[a]));
  if (g->val[b].base != B_NONE)
    ad_asmgp(s, X_GCMP, RAX, home(g, &g->val[b]));
  else {
    ad_asmbits(s, RCX, g->val[b].reg);
    ad_asmgp(s, X_GCMP, RAX, inreg(RCX));
  }
  if (!plain) {
    jumpto(g, X_JE, yes);
    ad_asmcompare(s, 1, g->val[a].reg, inreg(g->val[a].reg));
    jumpto(g, X_JNP, no);
    ad_asmcompare(s, 1, g->val[b].reg, inreg(g->val[b].reg));
  }
}

static void branch(Gen *g, const Node *x, uint32_t k) {
  const Block *b = &g->c->block[k];
  const uint32_t yes = side(b->yes, k), no = side(b->no, k);
  int cond;
  if (b->cmp == P_SAME) {
    same(g, x, yes, no);
    cond = isplain(g, x->x[0]) || isplain(g, x->x[1]) ? X_JE : X_JP;
  } else {
    /* "a < b" as "b above a", which is false for NaN */
    const int first = load(g, x->x[b->cmp != P_EQ]);
    const Arg second = operand(g, x->x[b->cmp == P_EQ]);
    ad_asmcompare(&g->s, b->cmp == P_EQ, first, second);
    cond = b->cmp == P_LT ? X_JA : b->cmp == P_LE ? X_JAE : X_JE;
    if (b->cmp == P_EQ) jumpto(g, X_JP, no);
  }
  split(g, k, cond, yes, no);
  doneall(g, x);
  g->pinned = 0;
}

/*
** Blocks
*/

static void clear(Gen *g) {
  g->nnode = g->nval = g->nedge = 0;
  g->nspare = g->nfreed = g->top = 0;
  g->pinned = g->taken = 0;
  g->chain[0] = g->chain[1] = NONE;
  g->now++;
  for (int r = 0; r < NREG; r++) g->reg[r] = NONE;
}

/* the registers as the only predecessor left them */
static void enter(Gen *g, uint32_t k) {
  const uint32_t up = g->c->block[k].parent;
  clear(g);
  for (int r = 0; r < NREG; r++) {
    if (up != P_NONE && !g->head[k] && g->left[up][r] != NONE)
      hold(g, slotvalue(g, g->left[up][r]), r);
    if (g->head[k] && r < NCARRY && g->carry[k][r] != NONE)
      hold(g, slotvalue(g, g->carry[k][r]), r);
  }
  if (g->head[k]) ad_asmalign(&g->s, 16);
  g->start[k] = g->s.n;
}

static void leave(Gen *g, uint32_t k) {
  for (int r = 0; r < NREG; r++) {
    const Value *v = g->reg[r] == NONE ? NULL : &g->val[g->reg[r]];
    g->left[k][r] = v != NULL && v->base == B_FRAME ? v->at : NONE;
  }
}

/* the slots that the block moves something to before it jumps back */
static void carried(Gen *g, const Block *b) {
  uint32_t *carry = g->carry[b->yes], n = 0;
  for (uint32_t i = b->last; i-- > b->first && n < NCARRY;) {
    const Ins *x = &g->c->ins[i];
    if (x->op != P_MOV) break;
    if (x->flags & P_KEEP) carry[n++] = x->d;
  }
  while (n < NCARRY) carry[n++] = NONE;
}

/* in which register is what the slot has at the end of the block, or -1? */
static int register_of(const Gen *g, uint32_t slot) {
  const Value *v;
  if (g->stamp[slot] != g->now) return -1;
  v = &g->val[g->cur[slot]];
  if (v->reg < 0 && v->def != NONE && g->node[v->def].op == P_MOV)
    v = &g->val[g->node[v->def].x[0]]; /* it is what was moved */
  return v->reg;
}

/*
** The values into the registers where the head of a loop wants them. All of
** them are in memory as well: that is where one comes from whose register has
** been written over, when the moves go round in a ring.
*/
static void carry(Gen *g, uint32_t head) {
  const uint32_t *slot = g->carry[head];
  int from[NCARRY], left = 0;
  for (int r = 0; r < NCARRY; r++) {
    from[r] = slot[r] == NONE ? r : register_of(g, slot[r]);
    left += from[r] != r;
  }
  while (left > 0) {
    int some = 0;
    for (int r = 0; r < NCARRY; r++) {
      int read = 0;
      if (from[r] == r) continue;
      for (int q = 0; q < NCARRY; q++) read |= q != r && from[q] == r;
      if (read) continue;
      if (from[r] < 0)
        ad_asmload(&g->s, r, inmem(g->vbase, (int32_t)(slot[r] * 8) - BIAS));
      else
        ad_asmmove(&g->s, r, from[r]);
      from[r] = r;
      left--;
      some = 1;
    }
    for (int r = 0; !some && r < NCARRY; r++)
      if (from[r] != r) from[r] = -1, some = 1;
  }
}

static void writenode(Gen *g, const Node *x) {
  while (g->nfreed > 0) g->spare[g->nspare++] = g->freed[--g->nfreed];
  for (uint32_t j = 0; j < x->n; j++)
    g->val[x->x[j]].next = g->nextuse[3 * g->at + j];
  if (x->op != M_IF) write(g, x);
}

static void translate(Gen *g, uint32_t k) {
  const Block *b = &g->c->block[k];
  enter(g, k);
  g->inherit = b->end != P_RETURN;
  build(g, b);
  if (g->failed) return;
  schedule(g);
  nextuses(g);
  for (int r = 0; r < NREG; r++) /* came in, but nobody here reads it */
    if (g->reg[r] != NONE) done(g, g->reg[r]);
  for (g->at = 0; g->at < g->nnode; g->at++) {
    const Node *x = &g->node[g->order[g->at]];
    writenode(g, x);
    if (x->op == M_IF) branch(g, x, k);
  }
  leave(g, k);
  if (b->end == P_GOTO && g->head[b->yes]) carry(g, b->yes);
  if (b->end == P_GOTO && b->yes != k + 1) jumpto(g, X_JMP, b->yes);
  if (b->end == P_RETURN) {
    ad_asmseti(&g->s, RAX, k);
    if (g->calls)
      jumpto(g, X_JMP, TO_EXIT);
    else
      ad_asmret(&g->s);
  }
}

/*
** The whole
*/

/* what is saved: an even number, the last two only for the frame's stack */
static const int saved[] = {RBX, RBP, R12, R13, R14, R15};
#define NSAVED(g) ((g)->c->stack ? 6 : 4)

/* r15 = end of the frame's stack */
static void limit(Gen *g) {
  ad_asmgp(&g->s, X_GMOV, R15, infield(offsetof(Frame, capstack)));
  ad_asmshl(&g->s, R15, 3);
  ad_asmgp(&g->s, X_GADD, R15, infield(offsetof(Frame, stack)));
}

static void prologue(Gen *g) {
  Asm *s = &g->s;
  ad_asmmark(s);
  if (g->calls) {
    for (int i = 0; i < NSAVED(g); i++) ad_asmpush(s, saved[i]);
    ad_asmaddi(s, RSP, -8);
    ad_asmgp(s, X_GMOV, RBX, inreg(RDI));
    ad_asmgp(s, X_GMOV, RBP, inreg(RSI));
    ad_asmgp(s, X_GMOV, R12, inreg(RDX));
    ad_asmgp(s, X_GMOV, R13, inreg(RCX));
    if (g->c->stack) {
      ad_asmgp(s, X_GMOV, R14, infield(offsetof(Frame, stack)));
      limit(g);
    }
  }
  ad_asmaddi(s, g->vbase, BIAS);
  ad_asmaddi(s, g->sbase, BIAS);
}

/* the stack is full: more room for it, with all registers as they are */
static void room(Gen *g) {
  Asm *s = &g->s;
  const int size = NREG * 8 + 8;
  size_t fail;
  ad_asmaddi(s, RSP, -size);
  for (int r = 0; r < NREG; r++) ad_asmstore(s, inmem(RSP, r * 8), r);
  ad_asmgp(s, X_GMOV, RDI, inreg(R12));
  ad_asmgp(s, X_GMOV, RSI, inreg(R14));
  ad_asmcall(s, inmem(R13, H_ROOM * 8));
  ad_asmgp(s, X_GTEST, RAX, inreg(RAX));
  fail = ad_asmjump(s, X_JE);
  ad_asmgp(s, X_GMOV, R14, inreg(RAX));
  limit(g);
  for (int r = 0; r < NREG; r++) ad_asmload(s, r, inmem(RSP, r * 8));
  ad_asmaddi(s, RSP, size);
  ad_asmret(s);
  ad_asmland(s, fail, s->n);
  ad_asmaddi(s, RSP, size + 8);
  ad_asmseti(s, RAX, P_FULL);
  jumpto(g, X_JMP, TO_EXIT);
}

static void epilogue(Gen *g) {
  Asm *s = &g->s;
  size_t exit, grow = s->n;
  const uint32_t n = g->njump; /* those of the misses follow */
  for (uint32_t j = 0; j < n && !g->failed; j++) {
    if (!(g->jump[j].to & TO_MISS) || g->jump[j].to >= TO_ROOM) continue;
    ad_asmland(s, g->jump[j].at, s->n);
    ad_asmseti(s, RAX, g->jump[j].to & ~TO_MISS);
    if (g->calls)
      jumpto(g, X_JMP, TO_EXIT);
    else
      ad_asmret(s);
  }
  if (g->c->stack) {
    grow = s->n;
    room(g);
  }
  exit = s->n;
  if (g->calls) {
    ad_asmaddi(s, RSP, 8);
    for (int i = NSAVED(g); i-- > 0;) ad_asmpop(s, saved[i]);
    ad_asmret(s);
  }
  for (uint32_t j = 0; j < g->njump && !g->failed; j++) {
    const Jump *at = &g->jump[j];
    if (at->to == TO_EXIT || at->to == TO_ROOM)
      ad_asmland(s, at->at, at->to == TO_EXIT ? exit : grow);
    else if (!(at->to & TO_MISS))
      ad_asmland(s, at->at, g->start[at->to]);
  }
}

/* how much there is at most in a block, and in all */
static int measure(Gen *g) {
  const Code *c = g->c;
  uint64_t sum = 0;
  g->npool = K_LENGTH;
  g->lastmean = NONE;
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    uint64_t n = 1;
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &c->ins[i];
      n += ad_islist(x->op) ? (uint64_t)x->b + 2 : 1;
      if (iscall(g, x->op) || (ad_islist(x->op) && x->b == 0)) g->calls = 1;
      if (x->op == OP_list_mean && x->b != g->lastmean) {
        g->lastmean = x->b;
        g->npool++;
      }
    }
    if (b->end == P_GOTO && b->yes <= k) {
      g->head[b->yes] = 1;
      carried(g, b);
    }
    sum += n;
    if (n > g->maxnode) g->maxnode = (uint32_t)n;
    if (sum > 1u << 24 || c->nslot > 1u << 27) return 0;
  }
  return 1;
}

/* the table of constants; only with it do lengths have their places */
static void pool(Gen *g) {
  static const uint64_t bits[K_LENGTH] = {0, UINT64_C(1) << 63,
                                          ~(UINT64_C(1) << 63)};
  double x[K_LENGTH] = {
      0, 0, 0, 1, -1, HUGE_VAL, -HUGE_VAL, 180.0 / AD_PI, AD_PI / 180.0, 0.5};
  Asm *s = &g->s;
  uint32_t last = NONE;
  memcpy(x, bits, 3 * sizeof *x);
  for (uint32_t k = 0; k < K_LENGTH; k++) ad_asmpool(s, x[k]);
  for (uint32_t i = 0; i < g->c->nins; i++) {
    const Ins *m = &g->c->ins[i];
    if (m->op != OP_list_mean || m->b == last) continue;
    last = m->b;
    ad_asmpool(s, (double)last);
  }
}

static uint32_t keys(const Gen *g) {
  return (g->c->nslot + g->npool) * (g->s.wide ? 2 : 1);
}

static void release(Gen *g) {
  const uint32_t nkey = keys(g), nblock = g->c->nblock;
  put(g, g->node, g->maxnode, sizeof *g->node);
  put(g, g->val, g->maxval, sizeof *g->val);
  put(g, g->link, g->maxnode, 3 * sizeof *g->link);
  put(g, g->nextuse, g->maxnode, 3 * sizeof *g->nextuse);
  put(g, g->ndep, g->maxnode, sizeof *g->ndep);
  put(g, g->height, g->maxnode, sizeof *g->height);
  put(g, g->change, g->maxnode, sizeof *g->change);
  put(g, g->order, g->maxnode, sizeof *g->order);
  put(g, g->edgeof, g->maxnode, sizeof *g->edgeof);
  put(g, g->ready, WINDOW, sizeof *g->ready);
  put(g, g->cur, nkey, sizeof *g->cur);
  put(g, g->stamp, nkey, sizeof *g->stamp);
  put(g, g->spare, g->maxval, sizeof *g->spare);
  put(g, g->user, g->c->nins, sizeof *g->user);
  put(g, g->fused, g->c->nins, sizeof *g->fused);
  put(g, g->factors, g->c->nins, sizeof *g->factors);
  put(g, g->left, nblock, sizeof *g->left);
  put(g, g->head, nblock, sizeof *g->head);
  put(g, g->carry, g->c->loops ? nblock : 0, sizeof *g->carry);
  put(g, g->start, nblock, sizeof *g->start);
  if (g->edge != NULL)
    g->c->alloc(g->c->ud, g->edge, g->capedge * sizeof *g->edge, 0);
  if (g->jump != NULL)
    g->c->alloc(g->c->ud, g->jump, g->capjump * sizeof *g->jump, 0);
}

/* products that may go into sums */
static void fusing(Gen *g) {
  const Code *c = g->c;
  uint32_t *work;
  if (!c->fused || !(g->s.features & X_FMA)) return;
  work = get(g, c->nslot, sizeof *work);
  g->user = get(g, c->nins, sizeof *g->user);
  g->fused = get(g, c->nins, sizeof *g->fused);
  g->factors = get(g, c->nins, sizeof *g->factors);
  if (!g->failed) {
    memset(work, 0, c->nslot * sizeof *work);
    memset(g->user, 0, c->nins * sizeof *g->user);
    memset(g->fused, 0, c->nins * sizeof *g->fused);
    ad_codeusers(c, g->user, work);
  }
  put(g, work, c->nslot, sizeof *work);
}

static int reserve(Gen *g) {
  const Code *c = g->c;
  const uint32_t nkey = keys(g);
  const uint64_t nval = (uint64_t)g->maxnode * 4;
  /* made (a sine and a cosine are three, see 'both'), came in */
  g->maxval = g->maxnode + g->maxnode / 2 + NREG +
              (nval < nkey ? (uint32_t)nval : nkey);
  g->node = get(g, g->maxnode, sizeof *g->node);
  g->val = get(g, g->maxval, sizeof *g->val);
  g->link = get(g, g->maxnode, 3 * sizeof *g->link);
  g->nextuse = get(g, g->maxnode, 3 * sizeof *g->nextuse);
  g->ndep = get(g, g->maxnode, sizeof *g->ndep);
  g->height = get(g, g->maxnode, sizeof *g->height);
  g->change = get(g, g->maxnode, sizeof *g->change);
  g->order = get(g, g->maxnode, sizeof *g->order);
  g->edgeof = get(g, g->maxnode, sizeof *g->edgeof);
  g->ready = get(g, WINDOW, sizeof *g->ready);
  g->cur = get(g, nkey, sizeof *g->cur);
  g->stamp = get(g, nkey, sizeof *g->stamp);
  g->spare = get(g, g->maxval, sizeof *g->spare);
  g->left = get(g, c->nblock, sizeof *g->left);
  g->start = get(g, c->nblock, sizeof *g->start);
  if (!g->failed) memset(g->stamp, 0, nkey * sizeof *g->stamp);
  fusing(g);
  return !g->failed;
}

static void generate(Gen *g) {
  pool(g);
  g->lastmean = NONE;
  g->mean = K_LENGTH - 1;
  prologue(g);
  for (uint32_t k = 0; k < g->c->nblock && !g->failed && !g->s.failed; k++)
    translate(g, k);
  if (!g->failed && !g->s.failed) epilogue(g);
}

int ad_x64(X64 *x, const Code *c, int features, int record, const char **why) {
  Gen g;
  memset(&g, 0, sizeof g);
  memset(x, 0, sizeof *x);
  *why = NULL;
  g.c = c;
  g.head = get(&g, c->nblock, sizeof *g.head);
  g.carry = get(&g, c->loops ? c->nblock : 0, sizeof *g.carry);
  if (!g.failed) {
    memset(g.head, 0, c->nblock);
    if (!ad_asminit(&g.s, c->alloc, c->ud, features)) g.failed = 1;
    g.s.record = record;
  }
  if (!g.failed && !measure(&g)) {
    g.failed = 1;
    *why = "the program is too large";
  }
  g.vbase = g.calls ? RBX : RDI;
  g.sbase = g.calls ? RBP : RSI;
  if (!g.failed && reserve(&g)) generate(&g);
  if (g.s.failed) g.failed = 1;
  release(&g);
  if (g.failed) {
    ad_asmfree(&g.s);
    return 0;
  }
  x->s = g.s;
  x->entry = g.npool * 16;
  x->nspill = g.nspill;
  return 1;
}

/*
** Vectors
*/

/* may an instruction be in a step of machine code? */
static int isvector(const Gen *g, const Ins *i) {
  if (ad_islist(i->op))
    return islinear(i->op) && (i->b > 0 || i->op < OP_list_lmax);
  return !iscall(g, i->op);
}

/*
** Which values have to be in the frame when their step ends: those that a
** later step of the block reads. 'reader' by slot is the last step that reads
** what the slot has, as far as is known from behind; it is all 0 before and
** after.
*/
static void markkept(Gen *g, const Block *b, const Step *step, uint32_t nstep,
                     uint32_t *reader) {
  const Code *c = g->c;
  for (uint32_t n = nstep; n-- > 0;)
    for (uint32_t i = step[n].last; i-- > step[n].first;) {
      const Ins *x = &c->ins[i];
      const uint32_t in[3] = {x->a, x->b, x->c}, *l = in;
      uint32_t count = (uint32_t)ad_insarity(x->op);
      if (ad_islist(x->op)) {
        l = c->list + x->a;
        count = x->b;
      }
      if (x->op != P_PUSH) {
        g->kept[i] = x->flags & P_KEEP || reader[x->d] > n + 1;
        reader[x->d] = 0;
      }
      for (uint32_t k = 0; k < count; k++)
        if (reader[l[k]] < n + 1) reader[l[k]] = n + 1;
    }
  for (uint32_t i = b->first; i < b->last; i++) {
    const Ins *x = &c->ins[i];
    const int n = ad_insarity(x->op);
    if (n > 0) reader[x->a] = 0;
    if (n > 1) reader[x->b] = 0;
    if (n > 2) reader[x->c] = 0;
    if (ad_islist(x->op))
      for (uint32_t k = 0; k < x->b; k++) reader[c->list[x->a + k]] = 0;
  }
}

/* would the machine wait for results? Longer than it looks ahead, the way
   through the step is longer than what two operations a cycle take. */
static int iswaiting(Gen *g) {
  uint32_t most = 0;
  heights(g);
  for (uint32_t i = 0; i < g->nnode; i++)
    if (g->height[i] > most) most = g->height[i];
  return g->nnode > 128 && most > g->nnode / 2 + g->nnode / 8;
}

/* a loop over the points, four or eight at a time */
static void vectors(Gen *g, Step *step) {
  Asm *s = &g->s;
  const uint32_t lastmean = g->lastmean, mean = g->mean;
  Block b;
  size_t top;
  memset(&b, 0, sizeof b);
  b.first = step->first;
  b.last = step->last;
  b.end = P_RETURN;
  clear(g);
  g->copies = 1;
  build(g, &b);
  if (g->failed) return;
  if (iswaiting(g)) {
    clear(g);
    g->lastmean = lastmean;
    g->mean = mean;
    g->copies = 2;
    build(g, &b);
    if (g->failed) return;
  }
  step->points = 4 * g->copies;
  schedule(g);
  nextuses(g);
  step->entry = s->n;
  ad_asmmark(s);
  ad_asmalign(s, 16);
  top = s->n;
  for (g->at = 0; g->at < g->nnode; g->at++)
    writenode(g, &g->node[g->order[g->at]]);
  ad_asmaddi(s, RDI, (int32_t)g->copies * 32);
  ad_asmaddi(s, RCX, -1);
  ad_asmland(s, ad_asmjump(s, X_JNE), top);
  ad_asmzeroupper(s);
  ad_asmret(s);
}

static void widesteps(Gen *g, Wide *w, uint32_t *reader) {
  const Code *c = g->c;
  for (uint32_t k = 0; k < c->nblock && !g->failed && !g->s.failed; k++) {
    const Block *b = &c->block[k];
    const uint32_t from = w->nstep;
    w->of[k] = from;
    for (uint32_t i = b->first; i < b->last; i++) {
      const int vector = isvector(g, &c->ins[i]);
      Step *step = &w->step[w->nstep - (w->nstep > from)];
      if (w->nstep == from || (step->entry != 0) != vector) {
        void *at = w->step;
        if (!more(g, &at, w->nstep, &w->capstep, sizeof *w->step)) return;
        w->step = at;
        step = &w->step[w->nstep++];
        step->first = i;
        step->entry = (size_t)vector; /* until it is known */
      }
      step->last = i + 1;
    }
    markkept(g, b, w->step + from, w->nstep - from, reader);
    /* what the end reads is kept, too */
    for (uint32_t i = b->last; b->end == P_IF && i-- > b->first;)
      if (c->ins[i].d == b->a || c->ins[i].d == b->b) g->kept[i] = 1;
    for (uint32_t n = from; n < w->nstep && !g->failed; n++)
      if (w->step[n].entry != 0) vectors(g, &w->step[n]);
  }
  w->of[c->nblock] = w->nstep;
}

int ad_x64wide(Wide *w, const Code *c, const uint32_t *place, int features,
               int record, const char **why) {
  Gen g;
  uint32_t *reader;
  memset(&g, 0, sizeof g);
  memset(w, 0, sizeof *w);
  *why = NULL;
  g.c = c;
  g.place = place;
  g.head = get(&g, c->nblock, sizeof *g.head);
  g.carry = get(&g, c->loops ? c->nblock : 0, sizeof *g.carry);
  g.kept = get(&g, c->nins, 1);
  w->of = get(&g, c->nblock, sizeof *w->of);
  w->nblock = c->nblock;
  reader = get(&g, c->nslot, sizeof *reader);
  if (!g.failed) {
    memset(g.head, 0, c->nblock);
    memset(g.kept, 0, c->nins);
    memset(reader, 0, c->nslot * sizeof *reader);
    if (!ad_asminit(&g.s, c->alloc, c->ud,
                    (features & X_FMA) | X_SSE41 | X_AVX))
      g.failed = 1;
    g.s.record = record;
    g.s.wide = 1;
  }
  if (!g.failed && !measure(&g)) {
    g.failed = 1;
    *why = "the program is too large";
  }
  for (uint32_t k = 0; !g.failed && k < c->nslot; k++)
    if ((place[k] & ~X_UNIFORM) > 1u << 27) {
      g.failed = 1;
      *why = "the program is too large";
    }
  g.maxnode *= 2;
  if (!g.failed && reserve(&g)) {
    pool(&g);
    g.lastmean = NONE;
    g.mean = K_LENGTH - 1;
    widesteps(&g, w, reader);
  }
  if (g.s.failed) g.failed = 1;
  put(&g, reader, c->nslot, sizeof *reader);
  put(&g, g.kept, c->nins, 1);
  release(&g);
  g.s.alloc = c->alloc;
  g.s.ud = c->ud;
  w->x.s = g.s;
  w->x.entry = g.npool * 32;
  w->x.nspill = g.nspill;
  if (g.failed) ad_x64widefree(w);
  return !g.failed;
}

void ad_x64widefree(Wide *w) {
  const Asm *s = &w->x.s;
  if (w->of != NULL) s->alloc(s->ud, w->of, (w->nblock + 1) * sizeof *w->of, 0);
  if (w->step != NULL)
    s->alloc(s->ud, w->step, w->capstep * sizeof *w->step, 0);
  w->of = NULL;
  w->step = NULL;
  ad_asmfree(&w->x.s);
}
