/*
** batch.c
** See batch.h.
*/
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* signal masks, threads */
#endif

#include "batch.h"
#include "x64.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static void release(ad_Alloc alloc, void *ud, void *ptr, size_t size) {
  if (ptr != NULL) alloc(ud, ptr, size, 0);
}

/* n + 1 of them, so that none is 0 bytes */
static void *get(const Batch *b, size_t n, size_t size) {
  void *at = b->alloc(b->ud, NULL, 0, (n + 1) * size);
  if (at != NULL) memset(at, 0, (n + 1) * size);
  return at;
}

static void put(const Batch *b, void *at, size_t n, size_t size) {
  release(b->alloc, b->ud, at, (n + 1) * size);
}

/*
** {======================================================
** Making a batch
** =======================================================
*/

/*
** Bytes that the numbers of a block may need, roughly: a vector kernel costs the
** same for few points as for many, so that only frames that are larger than the
** caches are worse; machine code goes through the whole frame for four or eight
** points, and is best where these are close together.
*/
#define CACHE (1u << 22)
#define NATIVECACHE (1u << 19)

static uint32_t blocksize(const Batch *b, uint32_t cache) {
  const Code *c = b->c;
  uint64_t varying = 0;
  uint32_t points = V_POINTS;
  for (uint32_t s = c->nconst; s < c->nslot; s++)
    varying += !(b->at[s] & V_UNIFORM);
  while (points > V_LEAST && varying * points * sizeof(double) > cache)
    points /= 2;
  return points;
}

/* places of the slots that vary; 0: the frame is too large */
static int places(Batch *b, uint32_t points) {
  const Code *c = b->c;
  uint64_t next = 0;
  for (uint32_t s = 0; s < c->nslot; s++) next += b->at[s] >> 31;
  next = (next + 7) / 8 * 8;
  for (uint32_t s = 0; s < c->nslot; s++) {
    if (b->at[s] & V_UNIFORM) continue;
    b->at[s] = (uint32_t)next;
    next += points;
    if (next >= V_UNIFORM) return 0;
  }
  b->points = points;
  b->size = (uint32_t)next;
  return 1;
}

/* ... and of those that do not */
static void uniforms(Batch *b, const uint8_t *shared) {
  const Code *c = b->c;
  uint32_t n = 0;
  for (uint32_t s = 0; s < c->nconst + c->nin; s++)
    if (s < c->nconst || shared[s - c->nconst]) b->at[s] = V_UNIFORM | n++;
}

static void translate(Batch *b) {
  const Code *c = b->c;
  for (uint32_t i = 0; i < c->nins; i++) {
    const Ins *x = &c->ins[i];
    Ins *o = &b->ins[i];
    const int n = ad_insarity(x->op);
    *o = *x;
    o->flags = 0;
    o->d = x->op == P_PUSH ? 0 : b->at[x->d];
    if (n > 0) o->a = b->at[x->a] & ~V_UNIFORM;
    if (n > 1) o->b = b->at[x->b] & ~V_UNIFORM;
    if (n > 2) o->c = b->at[x->c] & ~V_UNIFORM;
    if (n > 0 && b->at[x->a] & V_UNIFORM) o->flags |= 1;
    if (n > 1 && b->at[x->b] & V_UNIFORM) o->flags |= 2;
    if (n > 2 && b->at[x->c] & V_UNIFORM) o->flags |= 4;
  }
  for (uint32_t k = 0; k < c->nlist; k++) b->list[k] = b->at[c->list[k]];
}

/*
** What is needed from a block on: backwards through the blocks, until nothing
** changes, which without loops takes one pass.
*/

typedef struct Live {
  const Code *c;
  uint64_t *set; /* by block, 'words' each */
  uint64_t *now;
  size_t words;
} Live;

static void need(const Live *l, uint32_t slot) {
  l->now[slot / 64] |= UINT64_C(1) << slot % 64;
}

static void join(const Live *l, uint32_t block) {
  if (block == P_NONE) return;
  for (size_t w = 0; w < l->words; w++)
    l->now[w] |= l->set[block * l->words + w];
}

static void backwards(const Live *l, uint32_t k) {
  const Code *c = l->c;
  const Block *b = &c->block[k];
  memset(l->now, 0, l->words * sizeof *l->now);
  if (b->end == P_RETURN)
    for (uint32_t j = 0; j < b->b; j++) need(l, c->list[b->a + j]);
  else
    join(l, b->yes);
  if (b->end == P_IF) {
    join(l, b->no);
    need(l, b->a);
    need(l, b->b);
  }
  for (uint32_t i = b->last; i-- > b->first;) {
    const Ins *x = &c->ins[i];
    const int n = ad_insarity(x->op);
    if (x->op != P_PUSH) l->now[x->d / 64] &= ~(UINT64_C(1) << x->d % 64);
    if (n > 0) need(l, x->a);
    if (n > 1) need(l, x->b);
    if (n > 2) need(l, x->c);
    if (ad_islist(x->op))
      for (uint32_t j = 0; j < x->b; j++) need(l, c->list[x->a + j]);
  }
}

static int liveness(const Live *l) {
  for (int again = 1; again;) {
    again = 0;
    for (uint32_t k = l->c->nblock; k-- > 0;) {
      uint64_t *set = l->set + k * l->words;
      backwards(l, k);
      if (memcmp(set, l->now, l->words * sizeof *set) == 0) continue;
      memcpy(set, l->now, l->words * sizeof *set);
      again = l->c->loops;
    }
  }
  return 1;
}

static int isset(const Live *l, uint32_t block, uint32_t slot) {
  return l->set[block * l->words + slot / 64] >> slot % 64 & 1;
}

/* lists of the sets: varying values first, then varying inputs */
static int lists(Batch *b, const Live *l, const uint8_t *waits) {
  const Code *c = b->c;
  const uint32_t values = c->nconst + c->nin;
  uint64_t total = 0;
  for (uint32_t k = 0; k < c->nblock; k++)
    if (waits[k])
      for (size_t w = 0; w < l->words; w++)
        for (uint64_t u = l->set[k * l->words + w]; u; u &= u - 1) total++;
  if (total >= UINT32_MAX) return 0;
  b->nlive = (uint32_t)total;
  b->live = get(b, b->nlive, sizeof *b->live);
  if (b->live == NULL) return 0;
  total = 0;
  for (uint32_t k = 0; k < c->nblock; k++) {
    b->first[k] = b->inputs[k] = (uint32_t)total;
    if (!waits[k]) continue;
    for (uint32_t s = values; s < c->nslot; s++)
      if (isset(l, k, s)) b->live[total++] = s;
    b->inputs[k] = (uint32_t)total;
    if (total - b->first[k] > b->mostlive)
      b->mostlive = (uint32_t)total - b->first[k];
    for (uint32_t s = c->nconst; s < values; s++)
      if (isset(l, k, s) && !(b->at[s] & V_UNIFORM)) b->live[total++] = s;
  }
  b->first[c->nblock] = (uint32_t)total;
  return 1;
}

/*
** The order: inner loops first, so that rows that are still in a loop catch
** up with those that have left; in a loop its head last, where rows meet
** again; apart from that as they are.
*/
static int ordering(Batch *b) {
  const Code *c = b->c;
  uint32_t *depth = get(b, c->nblock, sizeof *depth), most = 0, n = 0;
  if (depth == NULL) return 0;
  for (uint32_t k = 0; k < c->nblock; k++) {
    const uint32_t head = c->block[k].loop;
    if (head != P_NONE) {
      const uint32_t up = c->block[head].parent;
      depth[k] = 1 + (up == P_NONE ? 0 : depth[up]);
      b->ishead[head] = 1;
    }
    if (depth[k] > most) most = depth[k];
  }
  for (uint32_t d = most + 1; d-- > 0;) {
    if (d == 0) { /* what is in no loop */
      for (uint32_t k = 0; k < c->nblock; k++)
        if (depth[k] == 0) b->order[n++] = k;
      break;
    }
    for (uint32_t h = 0; h < c->nblock; h++) {
      if (!b->ishead[h] || depth[h] != d) continue;
      for (uint32_t k = h + 1; k < c->nblock; k++)
        if (c->block[k].loop == h) b->order[n++] = k;
      b->order[n++] = h;
    }
  }
  for (uint32_t k = 0; k < n; k++) b->rank[b->order[k]] = k;
  put(b, depth, c->nblock, sizeof *depth);
  return 1;
}

#define LEAST 128         /* rows of a task in which rows may part, */
#define MOST 1024         /* and the most there are */
#define BYTES (1u << 22)  /* that waiting rows may need, roughly */
#define AMOUNT (1u << 16) /* rows times instructions for one task */

static void taskrows(Batch *b) {
  const Code *c = b->c;
  uint32_t most = MOST;
  if (b->branching) {
    while (most > LEAST && (uint64_t)most * b->mostlive * 8 > BYTES) most /= 2;
    if (c->stack && most > 256) most = 256;
  } else
    while (most > V_POINTS && (uint64_t)most * c->nins > AMOUNT) most /= 2;
  b->rows = most;
}

static int make(Batch *b, const uint8_t *shared, uint32_t points) {
  const Code *c = b->c;
  Live l = {c, NULL, NULL, ((size_t)c->nslot + 63) / 64};
  uint8_t *waits;
  int ok;
  b->ins = get(b, c->nins, sizeof *b->ins);
  b->list = get(b, c->nlist, sizeof *b->list);
  b->at = get(b, c->nslot, sizeof *b->at);
  b->first = get(b, c->nblock, sizeof *b->first);
  b->inputs = get(b, c->nblock, sizeof *b->inputs);
  b->order = get(b, c->nblock, sizeof *b->order);
  b->rank = get(b, c->nblock, sizeof *b->rank);
  b->ishead = get(b, c->nblock, sizeof *b->ishead);
  if (b->ins == NULL || b->list == NULL || b->at == NULL || b->first == NULL ||
      b->inputs == NULL || b->order == NULL || b->rank == NULL ||
      b->ishead == NULL)
    return 0;
  for (uint32_t k = 0; k < c->nblock; k++)
    b->branching |= c->block[k].end == P_IF;
  uniforms(b, shared);
  b->fixed = points != 0 || b->branching;
  if (points == 0) points = blocksize(b, CACHE);
  if (!places(b, points)) return 0;
  translate(b);
  if (!ordering(b)) return 0;
  if (b->branching) {
    waits = get(b, c->nblock, 1);
    l.set = get(b, c->nblock * l.words, sizeof *l.set);
    l.now = get(b, l.words, sizeof *l.now);
    ok = waits != NULL && l.set != NULL && l.now != NULL && liveness(&l);
    for (uint32_t k = 0; ok && k < c->nblock; k++) {
      const Block *x = &c->block[k];
      waits[k] |= b->ishead[k];
      if (x->end != P_IF) continue;
      if (x->yes != P_NONE) waits[x->yes] = 1;
      if (x->no != P_NONE) waits[x->no] = 1;
    }
    ok = ok && lists(b, &l, waits);
    put(b, waits, c->nblock, 1);
    put(b, l.set, c->nblock * l.words, sizeof *l.set);
    put(b, l.now, l.words, sizeof *l.now);
    if (!ok) return 0;
  }
  taskrows(b);
  return 1;
}

int ad_batchinit(Batch *b, const Code *c, const uint8_t *shared,
                 uint32_t points, ad_Alloc alloc, void *ud) {
  memset(b, 0, sizeof *b);
  b->alloc = alloc;
  b->ud = ud;
  b->c = c;
  if (make(b, shared, points)) return 1;
  ad_batchfree(b);
  return 0;
}

int ad_batchnative(Batch *b, int features, const char **why) {
  const uint32_t points = b->points;
  *why = NULL;
  if (b->vectors != NULL) return 1;
  if (!b->fixed) places(b, blocksize(b, NATIVECACHE)); /* never more */
  b->vectors = ad_nativevectors(b->c, b->at, features, why);
  if (b->vectors == NULL) places(b, points);
  translate(b);
  return b->vectors != NULL;
}

void ad_batchkernels(Batch *b) {
  if (b->vectors == NULL) return;
  ad_nativevectorsfree(b->vectors);
  b->vectors = NULL;
  if (!b->fixed) places(b, blocksize(b, CACHE)); /* where it was */
  translate(b);
}

void ad_batchfree(Batch *b) {
  const Code *c = b->c;
  if (c == NULL) return;
  if (b->vectors != NULL) ad_nativevectorsfree(b->vectors);
  put(b, b->ins, c->nins, sizeof *b->ins);
  put(b, b->list, c->nlist, sizeof *b->list);
  put(b, b->at, c->nslot, sizeof *b->at);
  put(b, b->first, c->nblock, sizeof *b->first);
  put(b, b->inputs, c->nblock, sizeof *b->inputs);
  put(b, b->order, c->nblock, sizeof *b->order);
  put(b, b->rank, c->nblock, sizeof *b->rank);
  put(b, b->ishead, c->nblock, sizeof *b->ishead);
  put(b, b->live, b->nlive, sizeof *b->live);
  memset(b, 0, sizeof *b);
}

size_t ad_batchbytes(const Batch *b) {
  const Code *c = b->c;
  return c->nins * sizeof *b->ins + (size_t)c->nlist * 4 +
         (size_t)c->nslot * 4 + (size_t)c->nblock * 17 + (size_t)b->nlive * 4 +
         (b->vectors != NULL ? ad_nativevectorsbytes(b->vectors) : 0);
}

/* }====================================================== */

/*
** {======================================================
** Sums
** The rows of a few tasks are added one after the other to eight sums, row k
** of a group to number k % 8, so that it makes no difference of how many
** points a group is. What comes of that are the leaves of a binary tree that is
** built from the left: part[k], if bit k of 'count' is set, is the sum of 2^k
** of them.
** =======================================================
*/

typedef struct Cascade {
  double *part; /* 'levels' times n */
  uint64_t count;
} Cascade;

/* adds a leaf, which it overwrites */
static void leaf(Cascade *s, uint32_t n, double *x) {
  uint32_t k = 0;
  for (; s->count >> k & 1; k++) {
    const double *p = s->part + (size_t)k * n;
    for (uint32_t j = 0; j < n; j++) x[j] = p[j] + x[j];
  }
  memcpy(s->part + (size_t)k * n, x, n * sizeof *x);
  s->count++;
}

/* the sum of all; nothing is left */
static void total(Cascade *s, uint32_t n, double *x) {
  int any = 0;
  for (uint32_t k = 0; s->count >> k != 0; k++) {
    const double *p = s->part + (size_t)k * n;
    if (!(s->count >> k & 1)) continue;
    for (uint32_t j = 0; j < n; j++) x[j] = any ? p[j] + x[j] : p[j];
    any = 1;
  }
  if (!any) memset(x, 0, n * sizeof *x);
  s->count = 0;
}

static uint32_t levels(size_t n) {
  uint32_t k = 1;
  while (n >> k != 0) k++;
  return k + 1;
}

/* }====================================================== */

/*
** {======================================================
** Running
** =======================================================
*/

/*
** What the threads share. A thread that needs memory asks for it: 'asking'
** is how much, until the thread that called ad_batchrun has answered.
*/
typedef struct Team {
  const Batch *b;
  BatchRun *r;
  const Vlevel *level;
  uint32_t points;                /* of a block: those of the batch */
  ad_Points *single;              /* see 'alone' */
  uint32_t rows;                  /* of a task */
  size_t ntask, nsegment, length; /* segments: tasks that are summed together */
  double *sums;                   /* by segment */
  atomic_size_t next, done;       /* segments; rows */
  atomic_int failed;
  int threaded;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int running; /* threads that have not ended */
  int asking;  /* 1: 'block' is to be resized; 2: that has been done */
  void *block;
  size_t osize, nsize;
} Team;

#define NOROW UINT32_MAX

typedef struct Worker {
  Team *team;
  pthread_t thread;
  void *mem;
  size_t size;
  double *v, *scratch, *spill;
  uint32_t row[V_POINTS]; /* by lane: row of the task */
  uint32_t m;             /* lanes that are in use */
  size_t base;            /* the task's first row */
  uint32_t nrow, started; /* its rows, and how many have begun */
  size_t done;            /* rows, of all its tasks */
  /* rows that wait */
  double *save;          /* [live value][row] */
  uint32_t *next;        /* by row: the next at the same block */
  uint32_t *head, *tail; /* by block */
  uint32_t *count;       /* by block */
  uint64_t *waiting;     /* bits by rank */
  uint32_t nfull;        /* blocks where 64 or more wait */
  uint32_t npending;     /* rows that wait */
  /* stacks */
  double *stack;   /* [depth][row] */
  size_t capstack; /* depths */
  uint32_t *depth; /* by row */
  /* results: the place of each, or P_NONE where it is a constant, for what
     'block' returns */
  uint32_t *place;
  uint32_t block;
  int constants;
  /* sums */
  Cascade cascade;
  double *sum;   /* eight for each result */
  double *leaf;  /* one for each */
  uint32_t rows; /* that are in them */
} Worker;

/* number of row k of the task */
static size_t rownumber(const Worker *w, uint32_t k) {
  const BatchRun *r = w->team->r;
  return r->rows != NULL ? r->rows[w->base + k] : w->base + k;
}

/* state of a row that has ended */
static void ended(Worker *w, uint32_t lane, int state) {
  uint8_t *s = w->team->r->state;
  if (s != NULL) s[w->base + w->row[lane]] = (uint8_t)state;
}

/* copies n numbers, each so many doubles behind the one before */
static void copy(double *to, ptrdiff_t tostep, const double *x, ptrdiff_t step,
                 uint32_t n) {
  if (tostep == 1 && step == 1)
    memcpy(to, x, n * sizeof *x);
  else
    for (uint32_t k = 0; k < n; k++, to += tostep, x += step) *to = *x;
}

/* is lane k's row that of lane 0 and k, in memory? */
static int inorder(const Worker *w) {
  return !w->team->b->branching && w->team->r->rows == NULL;
}

/* input k for the lanes from .. to - 1 */
static void input(Worker *w, uint32_t slot, uint32_t from, uint32_t to) {
  const Batch *b = w->team->b;
  const Column *in = &w->team->r->in[slot - b->c->nconst];
  double *v = w->v + b->at[slot];
  if (inorder(w))
    copy(v + from, 1, in->at + (ptrdiff_t)(w->base + w->row[from]) * in->stride,
         in->stride, to - from);
  else if (w->team->r->rows == NULL) {
    const double *x = in->at + (ptrdiff_t)w->base * in->stride;
    for (uint32_t k = from; k < to; k++)
      v[k] = x[(ptrdiff_t)w->row[k] * in->stride];
  } else
    for (uint32_t k = from; k < to; k++)
      v[k] = in->at[(ptrdiff_t)rownumber(w, w->row[k]) * in->stride];
}

/* lanes that are not in use repeat one that is */
static void pad(const Worker *w, double *v) {
  for (uint32_t k = w->m; k < w->team->points; k++) v[k] = v[0];
}

/* the next rows of the task begin */
static void begin(Worker *w) {
  const Batch *b = w->team->b;
  const Code *c = b->c;
  uint32_t m = w->nrow - w->started;
  if (m > b->points) m = b->points;
  for (uint32_t k = 0; k < V_POINTS; k++) w->row[k] = w->started + k;
  w->m = m;
  w->started += m;
  for (uint32_t k = 0; k < c->nin; k++) {
    const uint32_t slot = c->nconst + k;
    if (b->at[slot] & V_UNIFORM) continue;
    input(w, slot, 0, m);
    pad(w, w->v + b->at[slot]);
  }
}

/* lane goes to wait at a block */
static void wait(Worker *w, uint32_t block, uint32_t lane) {
  const Batch *b = w->team->b;
  const uint32_t r = w->row[lane];
  double *save = w->save + r;
  for (uint32_t j = b->first[block]; j < b->inputs[block]; j++) {
    *save = w->v[b->at[b->live[j]] + lane];
    save += w->team->rows;
  }
  w->next[r] = NOROW;
  if (w->count[block]++ == 0) {
    w->head[block] = r;
    w->waiting[b->rank[block] / 64] |= UINT64_C(1) << b->rank[block] % 64;
  } else
    w->next[w->tail[block]] = r;
  w->tail[block] = r;
  w->npending++;
  if (w->count[block] == b->points) w->nfull++;
}

/* rows that wait at a block fill the lanes that are not in use */
static void fill(Worker *w, uint32_t block) {
  const Batch *b = w->team->b;
  const uint32_t from = w->m;
  const double *save = w->save;
  while (w->m < b->points && w->count[block] > 0) {
    const uint32_t r = w->head[block];
    w->row[w->m++] = r;
    w->head[block] = w->next[r];
    if (w->count[block]-- == b->points) w->nfull--;
    w->npending--;
  }
  if (w->count[block] == 0)
    w->waiting[b->rank[block] / 64] &= ~(UINT64_C(1) << b->rank[block] % 64);
  for (uint32_t j = b->first[block]; j < b->inputs[block]; j++) {
    double *v = w->v + b->at[b->live[j]];
    for (uint32_t k = from; k < w->m; k++) v[k] = save[w->row[k]];
    if (from == 0) pad(w, v);
    save += w->team->rows;
  }
  for (uint32_t j = b->inputs[block]; j < b->first[block + 1]; j++) {
    input(w, b->live[j], from, w->m);
    if (from == 0) pad(w, w->v + b->at[b->live[j]]);
  }
}

/* the first block, in their order, where at least n rows wait */
static uint32_t pending(const Worker *w, uint32_t n) {
  const Batch *b = w->team->b;
  for (size_t k = 0;; k++)
    for (uint64_t u = w->waiting[k]; u != 0; u &= u - 1) {
      uint32_t bit = 0;
      while (!(u >> bit & 1)) bit++;
      bit = b->order[k * 64 + bit];
      if (w->count[bit] >= n) return bit;
    }
}

/* do rows wait that would be run before those at the block? */
static int before(const Worker *w, uint32_t block) {
  const uint32_t rank = w->team->b->rank[block];
  for (size_t k = 0; k < rank / 64; k++)
    if (w->waiting[k] != 0) return 1;
  return (w->waiting[rank / 64] & ((UINT64_C(1) << rank % 64) - 1)) != 0;
}

/* all lanes go to wait */
static uint32_t suspend(Worker *w, uint32_t block) {
  for (uint32_t k = 0; k < w->m; k++) wait(w, block, k);
  w->m = 0;
  return P_NONE;
}

/* is there something better to do than to run less than half of the lanes? */
static int thin(const Worker *w) {
  return w->m <= w->team->points / 2 && (w->nfull > 0 || w->started < w->nrow);
}

/* the lanes come to the head of a loop: the block to go on with, or P_NONE */
static uint32_t arrive(Worker *w, uint32_t block) {
  const uint32_t points = w->team->points;
  if (w->m == points) return block;
  if (w->count[block] > 0) fill(w, block);
  if (w->m < points && ((w->npending > 0 && before(w, block)) || thin(w)))
    return suspend(w, block);
  return block;
}

/*
** The lanes of 'yes' (bits) go to one block, the others to another. Those of
** the larger side are moved together, from the end into the holes.
*/
static uint32_t part(Worker *w, const Block *o, uint64_t yes) {
  const Batch *b = w->team->b;
  uint8_t from[V_POINTS], to[V_POINTS];
  uint32_t nyes = 0, moves = 0, stay, m = 0, next, other;
  for (uint32_t k = 0; k < w->m; k++) nyes += yes >> k & 1;
  stay = nyes == w->m || (o->no == P_NONE && nyes > 0) ||
         (o->yes != P_NONE && nyes >= w->m - nyes);
  next = stay ? o->yes : o->no;
  other = stay ? o->no : o->yes;
  if (nyes != 0 && nyes != w->m)
    for (uint32_t k = 0; k < w->m; k++) {
      if ((yes >> k & 1) == stay) continue;
      if (other == P_NONE)
        ended(w, k, B_MISSED);
      else
        wait(w, other, k);
    }
  if (next == P_NONE) {
    for (uint32_t k = 0; k < w->m; k++)
      if ((yes >> k & 1) == stay) ended(w, k, B_MISSED);
    w->m = 0;
    return P_NONE;
  }
  if (nyes == 0 || nyes == w->m)
    return b->ishead[next] ? arrive(w, next) : next;
  m = stay ? nyes : w->m - nyes;
  for (uint32_t k = 0, last = w->m; k < m; k++) {
    if ((yes >> k & 1) == stay) continue;
    do last--;
    while ((yes >> last & 1) != stay);
    from[moves] = (uint8_t)last;
    to[moves++] = (uint8_t)k;
  }
  for (uint32_t k = 0; k < moves; k++) w->row[to[k]] = w->row[from[k]];
  for (uint32_t j = b->first[next]; j < b->first[next + 1]; j++) {
    double *v = w->v + b->at[b->live[j]];
    for (uint32_t k = 0; k < moves; k++) v[to[k]] = v[from[k]];
  }
  w->m = m;
  if (w->count[next] > 0) fill(w, next);
  return thin(w) ? suspend(w, next) : next;
}

/*
** Memory for a worker: from the allocator, or through the thread that may
** call it.
*/
static void *resize(Team *t, void *at, size_t osize, size_t nsize) {
  if (!t->threaded) return t->b->alloc(t->b->ud, at, osize, nsize);
  pthread_mutex_lock(&t->mutex);
  while (t->asking != 0) pthread_cond_wait(&t->changed, &t->mutex);
  t->asking = 1;
  t->block = at;
  t->osize = osize;
  t->nsize = nsize;
  pthread_cond_broadcast(&t->changed);
  while (t->asking != 2) pthread_cond_wait(&t->changed, &t->mutex);
  at = t->block;
  t->asking = 0;
  pthread_cond_broadcast(&t->changed);
  pthread_mutex_unlock(&t->mutex);
  return at;
}

/* the lanes' numbers onto their rows' stacks; rows without room end. 0: no
   memory */
static int push(Worker *w, const double *x, uint32_t step) {
  const size_t max = w->team->r->maxstack;
  for (uint32_t k = 0; k < w->m; k++) {
    const uint32_t r = w->row[k], d = w->depth[r];
    if (d >= max || d == UINT32_MAX) continue; /* see 'full' */
    if (d == w->capstack) {
      size_t ncap = w->capstack * 2 + 16;
      const size_t level = w->team->rows * sizeof(double);
      double *s;
      if (ncap > max) ncap = max;
      s = resize(w->team, w->stack, w->capstack * level, ncap * level);
      if (s == NULL) return 0;
      w->stack = s;
      w->capstack = ncap;
    }
    w->stack[(size_t)d * w->team->rows + r] = x[k * step];
    w->depth[r] = d + 1;
  }
  return 1;
}

static void pop(Worker *w, double *x) {
  for (uint32_t k = 0; k < w->m; k++) {
    const uint32_t r = w->row[k];
    x[k] = w->stack[(size_t)--w->depth[r] * w->team->rows + r];
  }
  pad(w, x);
}

/* rows whose stack has no room, or nothing to pop, end before they do it */
static void full(Worker *w, int pops) {
  const Code *c = w->team->b->c;
  const size_t max = w->team->r->maxstack;
  uint64_t gone = 0;
  uint32_t m = 0;
  for (uint32_t k = 0; k < w->m; k++)
    if (pops ? w->depth[w->row[k]] == 0 : w->depth[w->row[k]] >= max)
      gone |= UINT64_C(1) << k;
  if (gone == 0) return;
  for (uint32_t k = 0; k < w->m; k++)
    if (gone >> k & 1) ended(w, k, B_FULL);
  /* the others move, with all slots: it happens once to a row */
  for (uint32_t k = 0; k < w->m; k++) {
    if (gone >> k & 1) continue;
    w->row[m] = w->row[k];
    for (uint32_t s = c->nconst; s < c->nslot; s++) {
      const uint32_t at = w->team->b->at[s];
      if (!(at & V_UNIFORM)) w->v[at + m] = w->v[at + k];
    }
    m++;
  }
  w->m = m;
}

static const double *operand(Worker *w, uint32_t slot, double *room) {
  const uint32_t at = w->team->b->at[slot];
  if (!(at & V_UNIFORM)) return w->v + at;
  for (uint32_t k = 0; k < V_POINTS; k++) room[k] = w->v[at & ~V_UNIFORM];
  return room;
}

/* where the results of a block are; 0: that is not the form asked for */
static int findresults(Worker *w, uint32_t block) {
  const BatchRun *r = w->team->r;
  const Batch *b = w->team->b;
  const Block *o = &b->c->block[block];
  const Returned *f = o->set < r->nform ? &r->form[o->set] : NULL;
  if (block == w->block) return 1;
  if (f == NULL || f->from == NULL || f->n != o->b) return 0;
  w->constants = 0;
  for (uint32_t j = 0; j < r->nout; j++)
    if (f->from[j] == P_NONE) {
      w->place[j] = P_NONE;
      w->constants = 1;
    } else
      w->place[j] = b->at[b->c->list[o->a + f->from[j]]];
  w->block = block;
  return 1;
}

/* a few columns at a time: results that are neighbours in memory */
#define COLUMNS 8

static void scatter(Worker *w, const Returned *f) {
  const BatchRun *r = w->team->r;
  for (uint32_t from = 0; from < r->nout; from += COLUMNS) {
    const uint32_t n = r->nout - from < COLUMNS ? r->nout - from : COLUMNS;
    const Column *out = r->out + from;
    const double *x[COLUMNS];
    uint32_t step[COLUMNS];
    for (uint32_t j = 0; j < n; j++) {
      const uint32_t at = w->place[from + j];
      x[j] = at == P_NONE ? &f->value[from + j] : w->v + (at & ~V_UNIFORM);
      step[j] = at & V_UNIFORM ? 0 : 1;
    }
    if (n < COLUMNS && inorder(w)) {
      const ptrdiff_t row = (ptrdiff_t)(w->base + w->row[0]);
      for (uint32_t j = 0; j < n; j++)
        copy(out[j].at + row * out[j].stride, out[j].stride, x[j],
             (ptrdiff_t)step[j], w->m);
      continue;
    }
    for (uint32_t k = 0; k < w->m; k++) {
      const ptrdiff_t row = (ptrdiff_t)rownumber(w, w->row[k]);
      for (uint32_t j = 0; j < n; j++)
        out[j].at[row * out[j].stride] = x[j][k * step[j]];
    }
  }
}

static void results(Worker *w, uint32_t block) {
  const BatchRun *r = w->team->r;
  const Block *o = &w->team->b->c->block[block];
  if (!findresults(w, block)) {
    for (uint32_t k = 0; k < w->m; k++) ended(w, k, B_FORM);
    return;
  }
  if (r->sum) {
    const double *value = r->form[o->set].value;
    w->team->level->gather(w->sum, w->v, w->place, r->nout, (int)w->m);
    for (uint32_t j = 0; w->constants && j < r->nout; j++)
      for (uint32_t k = 0; w->place[j] == P_NONE && k < w->m; k++)
        w->sum[j * V_LEAST + k % V_LEAST] += value[j];
    w->rows += w->m;
  } else
    scatter(w, &r->form[o->set]);
  if (inorder(w)) {
    if (r->state != NULL) memset(r->state + w->base + w->row[0], B_DONE, w->m);
  } else
    for (uint32_t k = 0; k < w->m; k++) ended(w, k, B_DONE);
  w->done += w->m;
}

static void clear(Worker *w) {
  const size_t n = (size_t)w->team->r->nout * V_LEAST;
  for (size_t k = 0; k < n; k++) w->sum[k] = -0.0; /* -0.0 + x is x */
  w->rows = 0;
}

/* the sums so far become a leaf */
static void flush(Worker *w) {
  const uint32_t n = w->team->r->nout;
  if (w->rows == 0) return;
  for (uint32_t j = 0; j < n; j++) {
    const double *s = w->sum + (size_t)j * V_LEAST;
    w->leaf[j] =
        ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
  leaf(&w->cascade, n, w->leaf);
  clear(w);
}

/* instructions first .. last - 1, with vectors. 0: no memory */
static int kernels(Worker *w, uint32_t first, uint32_t last) {
  const Batch *b = w->team->b;
  const Ins *i = b->ins + first, *end = b->ins + last;
  for (;;) {
    i = w->team->level->run(i, end, w->v, b->list, w->scratch, (int)b->points);
    if (i == end || w->m == 0) return 1;
    full(w, i->op == P_POP);
    if (i->op == P_POP)
      pop(w, w->v + i->d);
    else {
      if (!push(w, w->v + i->a, !(i->flags & 1))) return 0;
    }
    i++;
  }
}

/* the instructions of block k. 0: no memory */
static int straight(Worker *w, uint32_t k) {
  const Batch *b = w->team->b;
  const Vectors *x = b->vectors;
  const Block *o = &b->c->block[k];
  if (x == NULL) return kernels(w, o->first, o->last);
  for (uint32_t n = x->w.of[k]; n < x->w.of[k + 1] && w->m > 0; n++) {
    const Step *step = &x->w.step[n];
    if (step->entry != 0)
      ad_nativevectorsrun(x, step, w->v, w->spill, b->points);
    else if (!kernels(w, step->first, step->last))
      return 0;
  }
  return 1;
}

/* a group, from a block to where its rows end or wait. 0: no memory */
static int group(Worker *w, uint32_t at) {
  const Code *c = w->team->b->c;
  _Alignas(64) double ra[V_POINTS], rb[V_POINTS];
  while (at != P_NONE && w->m > 0) {
    const Block *o = &c->block[at];
    if (!straight(w, at)) return 0;
    if (w->m == 0) break;
    if (o->end == P_RETURN) {
      results(w, at);
      break;
    }
    if (o->end == P_GOTO)
      at = w->team->b->ishead[o->yes] ? arrive(w, o->yes) : o->yes;
    else {
      const double *x = operand(w, o->a, ra), *y = operand(w, o->b, rb);
      const uint64_t used =
          w->m == V_POINTS ? UINT64_MAX : (UINT64_C(1) << w->m) - 1;
      at = part(w, o,
                w->team->level->compare(o->cmp, x, y, (int)w->team->points) &
                    used);
    }
  }
  return 1;
}

/*
** A program that is one function of inputs and constants, from and into
** numbers that are neighbours, needs no frame: the function; else NULL.
*/
static ad_Points *alone(const Team *t) {
  const BatchRun *r = t->r;
  const Code *c = t->b->c;
  const Block *o = &c->block[0];
  const Ins *i = &c->ins[o->first];
  const Returned *f = o->set < r->nform ? &r->form[o->set] : NULL;
  uint32_t at[AD_MAXARITY];
  if (o->end != P_RETURN || o->last - o->first != 1 || i->op >= OP_list_sum ||
      r->rows != NULL || r->sum || r->nout != 1 || r->out[0].stride != 1 ||
      f == NULL || f->from == NULL || f->n != o->b || f->from[0] == P_NONE ||
      c->list[o->a + f->from[0]] != i->d)
    return NULL;
  at[0] = i->a;
  at[1] = i->b;
  at[2] = i->c;
  for (int j = 0; j < ad_opinfo[i->op].arity; j++)
    if (!(t->b->at[at[j]] & V_UNIFORM) && r->in[at[j] - c->nconst].stride != 1)
      return NULL;
  return t->level->function(i->op);
}

static void runalone(Worker *w) {
  const Team *t = w->team;
  const Code *c = t->b->c;
  const Ins *i = &c->ins[c->block[0].first];
  const uint32_t at[AD_MAXARITY] = {i->a, i->b, i->c};
  const int arity = ad_opinfo[i->op].arity;
  double room[AD_MAXARITY][V_POINTS];
  const double *x[AD_MAXARITY];
  uint32_t most = w->nrow, n;
  for (int j = 0; j < arity; j++)
    if (t->b->at[at[j]] & V_UNIFORM) most = V_POINTS;
  for (uint32_t k = 0; k < w->nrow; k += n) {
    n = w->nrow - k < most ? w->nrow - k : most;
    for (int j = 0; j < arity; j++)
      if (!(t->b->at[at[j]] & V_UNIFORM))
        x[j] = t->r->in[at[j] - c->nconst].at + w->base + k;
      else if (k == 0)
        x[j] = operand(w, at[j], room[j]);
    ad_points(t->single, arity, n, t->r->out[0].at + w->base + k, x);
  }
  if (t->r->state != NULL) memset(t->r->state + w->base, B_DONE, w->nrow);
  w->done += w->nrow;
}

static int task(Worker *w, size_t k) {
  const Team *t = w->team;
  const size_t left = t->r->n - k * t->rows;
  w->base = k * t->rows;
  w->nrow = left < t->rows ? (uint32_t)left : t->rows;
  w->started = 0;
  if (t->single != NULL) {
    runalone(w);
    return 1;
  }
  if (w->depth != NULL) memset(w->depth, 0, t->rows * sizeof *w->depth);
  for (;;) {
    uint32_t at;
    w->m = 0;
    if (w->nfull > 0) {
      at = pending(w, w->team->points);
      fill(w, at);
    } else if (w->started < w->nrow) {
      begin(w);
      at = 0;
    } else if (w->npending > 0) {
      at = pending(w, 1);
      fill(w, at);
    } else
      return 1;
    if (!group(w, at)) return 0;
  }
}

#define FLUSH 512 /* rows that are added one after the other, roughly */

static void work(Worker *w) {
  Team *t = w->team;
  const Batch *b = t->b;
  const BatchRun *r = t->r;
  memcpy(w->v, b->c->constant, b->c->nconst * sizeof(double));
  for (uint32_t k = 0; k < b->c->nin; k++) {
    const uint32_t at = b->at[b->c->nconst + k];
    if (at & V_UNIFORM) w->v[at & ~V_UNIFORM] = r->in[k].at[0];
  }
  w->block = P_NONE;
  if (r->sum) clear(w);
  for (;;) {
    const size_t s = atomic_fetch_add(&t->next, 1);
    if (s >= t->nsegment || atomic_load(&t->failed)) break;
    for (size_t k = s * t->length; k < (s + 1) * t->length && k < t->ntask; k++)
      if (!task(w, k)) {
        atomic_store(&t->failed, 1);
        return;
      } else if (r->sum && w->rows >= FLUSH)
        flush(w);
    if (!r->sum) continue;
    flush(w);
    total(&w->cascade, r->nout, t->sums + s * r->nout);
  }
  atomic_fetch_add(&t->done, w->done);
}

static void *thread(void *arg) {
  Worker *w = arg;
  Team *t = w->team;
  work(w);
  pthread_mutex_lock(&t->mutex);
  t->running--;
  pthread_cond_broadcast(&t->changed);
  pthread_mutex_unlock(&t->mutex);
  return NULL;
}

/* the next aligned part of a block, if there is one */
static void *piece(char *mem, size_t *at, size_t bytes) {
  void *p = mem != NULL ? mem + *at : NULL;
  *at += (bytes + 63) / 64 * 64;
  return p;
}

/* sets the pointers of a worker into 'mem'; the bytes that they need */
static size_t layout(Worker *w, char *mem) {
  const Team *t = w->team;
  const Batch *b = t->b;
  const size_t n = b->branching ? b->c->nblock : 0;
  size_t at = 0;
#define PIECE(count, field)                                                    \
  (w->field = piece(mem, &at, (count) * sizeof *w->field))
  PIECE((size_t)b->size, v);
  PIECE((size_t)b->c->maxlist, scratch);
  PIECE(b->vectors != NULL ? (size_t)b->vectors->w.x.nspill * 4 : 0, spill);
  PIECE((size_t)b->mostlive * t->rows, save);
  PIECE(b->branching ? (size_t)t->rows : 0, next);
  PIECE(n, head);
  PIECE(n, tail);
  PIECE(n, count);
  PIECE(n / 64 + 1, waiting);
  if (b->c->stack) PIECE((size_t)t->rows, depth);
  PIECE((size_t)t->r->nout, place);
  if (t->r->sum) {
    PIECE((size_t)t->r->nout * V_LEAST, sum);
    PIECE((size_t)t->r->nout, leaf);
    PIECE((size_t)t->r->nout * levels(t->length * t->rows), cascade.part);
  }
#undef PIECE
  return at;
}

static int hire(Worker *w, Team *t) {
  const Batch *b = t->b;
  char *mem;
  memset(w, 0, sizeof *w);
  w->team = t;
  w->size = layout(w, NULL) + 64;
  w->mem = b->alloc(b->ud, NULL, 0, w->size);
  if (w->mem == NULL) return 0;
  memset(w->mem, 0, w->size);
  mem = (char *)w->mem + (64 - (uintptr_t)w->mem % 64) % 64;
  layout(w, mem);
  return 1;
}

static void dismiss(Worker *w) {
  const Batch *b = w->team->b;
  release(b->alloc, b->ud, w->mem, w->size);
  release(b->alloc, b->ud, w->stack,
          w->capstack * w->team->rows * sizeof *w->stack);
}

/* gives the threads the memory that they ask for, until they have ended */
static void serve(Team *t) {
  pthread_mutex_lock(&t->mutex);
  for (;;) {
    if (t->asking == 1) {
      t->block = t->b->alloc(t->b->ud, t->block, t->osize, t->nsize);
      t->asking = 2;
      pthread_cond_broadcast(&t->changed);
    } else if (t->running == 0)
      break;
    else
      pthread_cond_wait(&t->changed, &t->mutex);
  }
  pthread_mutex_unlock(&t->mutex);
}

/*
** Threads are made with all signals blocked: the host's handlers are not run
** in them. If none can be made, the caller does the work.
*/
static void run(Team *t, Worker *w, size_t n) {
  sigset_t all, old;
  size_t made = 0;
  if (n > 1 && pthread_mutex_init(&t->mutex, NULL) == 0) {
    if (pthread_cond_init(&t->changed, NULL) == 0) {
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &old);
      t->threaded = 1;
      pthread_mutex_lock(&t->mutex); /* none ends before all are counted */
      while (made < n &&
             pthread_create(&w[made].thread, NULL, thread, &w[made]) == 0)
        made++;
      t->running = (int)made;
      pthread_mutex_unlock(&t->mutex);
      pthread_sigmask(SIG_SETMASK, &old, NULL);
      serve(t);
      for (size_t k = 0; k < made; k++) pthread_join(w[k].thread, NULL);
      t->threaded = 0;
      pthread_cond_destroy(&t->changed);
    }
    pthread_mutex_destroy(&t->mutex);
  }
  if (made == 0) work(w);
}

/* the sum of all segments: a tree once more */
static int finish(Team *t) {
  const Batch *b = t->b;
  const BatchRun *r = t->r;
  Cascade s = {NULL, 0};
  const size_t n = (size_t)r->nout * levels(t->nsegment);
  double *x = get(b, r->nout, sizeof *x);
  s.part = get(b, n, sizeof *s.part);
  if (x != NULL && s.part != NULL) {
    for (size_t k = 0; k < t->nsegment; k++)
      leaf(&s, r->nout, t->sums + k * r->nout);
    total(&s, r->nout, x);
    for (uint32_t j = 0; j < r->nout; j++) r->out[j].at[0] = x[j];
  }
  put(b, s.part, n, sizeof *s.part);
  put(b, x, r->nout, sizeof *x);
  return x != NULL && s.part != NULL;
}

#define SEGMENTS 64 /* that are summed each for itself */
#define PARTS 16    /* tasks that there are to be at least, if rows allow */

int ad_batchrun(const Batch *b, BatchRun *r) {
  Team t;
  Worker *w;
  size_t n = r->threads > 1 ? (size_t)r->threads : 1, hired = 0;
  int ok;
  memset(&t, 0, sizeof t);
  t.b = b;
  t.r = r;
  t.level = r->level != NULL ? r->level : ad_vlevel(0);
  t.points = b->points;
  t.single = alone(&t);
  t.rows = b->rows;
  while (t.rows > (b->branching ? LEAST : V_POINTS) && r->n / t.rows < PARTS)
    t.rows /= 2;
  t.ntask = (r->n + t.rows - 1) / t.rows;
  t.length = r->sum ? (t.ntask + SEGMENTS - 1) / SEGMENTS : 1;
  if (t.length == 0) t.length = 1;
  t.nsegment = (t.ntask + t.length - 1) / t.length;
  atomic_init(&t.next, 0);
  atomic_init(&t.done, 0);
  atomic_init(&t.failed, 0);
  if (n > t.nsegment) n = t.nsegment > 0 ? t.nsegment : 1;
  w = get(b, n, sizeof *w);
  t.sums = r->sum ? get(b, t.nsegment * r->nout, sizeof *t.sums) : NULL;
  ok = w != NULL && (t.sums != NULL || !r->sum);
  while (ok && hired < n) {
    ok = hire(&w[hired], &t);
    if (ok) hired++;
  }
  if (ok) {
    run(&t, w, n);
    ok = !atomic_load(&t.failed);
  }
  while (hired > 0) dismiss(&w[--hired]);
  if (ok && r->sum) ok = finish(&t);
  r->ndone = atomic_load(&t.done);
  put(b, t.sums, t.nsegment * r->nout, sizeof *t.sums);
  put(b, w, n, sizeof *w);
  return ok;
}

/* }====================================================== */
