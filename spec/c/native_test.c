/* Machine code against the interpreter, bit for bit. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "testing.h"
#include "x64.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/*
** Random numbers (Marsaglia's xorshift)
*/

static uint64_t seed;

static uint32_t pick(uint32_t n) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)((seed >> 32) % n);
}

static const double special[] = {
    0.0,    -0.0,    1.0,   -1.0,   0.5,  2.0,      -2.0,      3.0,
    1e-310, -4e-320, 1e308, -1e308, NAN,  HUGE_VAL, -HUGE_VAL, 4.9e-324,
    1e-160, 1e160,   0.1,   -0.7,   7.25, -123.456, 1e15,      0.3333};
#define NSPECIAL (sizeof special / sizeof *special)

static int whole; /* small whole numbers only */

static double number(void) {
  if (whole) return (double)pick(17) - 8;
  if (pick(3) == 0) return special[pick(NSPECIAL)];
  return ((double)pick(2000001) - 1000000) / 250000.0;
}

/*
** Programs. A trace is the same as long as it goes the same way, because what
** comes next follows from the way so far.
*/

#define NIN 6
#define MOST 4000

static uint32_t ref[MOST + 2], nref;
static int arithmetic; /* only what needs no call */

static uint32_t operand(const Prog *p) {
  (void)p;
  if (pick(4) == 0) return ref[pick(NIN + 4)];
  if (pick(3) == 0) return ref[pick(nref)];
  return ref[nref - 1 - pick(nref < 12 ? nref : 12)];
}

static int plain(int op) {
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
  case P_ROOT:
  case OP_below:
  case OP_equal:
  case OP_first:
  case OP_second:
  case OP_inside:
  case OP_beyond:
  case OP_list_sum:
  case OP_list_mean:
  case OP_list_prod:
  case OP_list_dot:
  case OP_list_lmax:
  case OP_list_lmin:
    return 1;
  default:
    return 0;
  }
}

static void one(Prog *p) {
  static const int usual[] = {OP_add, OP_sub,  OP_mul,  OP_add, OP_mul,
                              OP_div, OP_cadd, OP_cmul, OP_unm, OP_sin};
  int op;
  uint32_t r;
  do {
    op = pick(3) > 0 ? usual[pick(10)] : (int)pick(OP_count + 1);
    if (op == OP_count) op = P_ROOT;
  } while (arithmetic && !plain(op));
  if (ad_islist(op)) {
    uint32_t x[24], n = pick(12);
    if (op == OP_list_dot) n *= 2;
    if (op >= OP_list_lmax && n == 0) n = 1;
    for (uint32_t k = 0; k < n; k++) x[k] = operand(p);
    r = ad_reclist(p, op, n, x);
  } else {
    const int n = ad_insarity(op);
    const uint32_t a = operand(p), b = operand(p), c = operand(p);
    r = ad_recop(p, op, a, n > 1 ? b : 0, n > 2 ? c : 0);
    if ((op == OP_sin || op == OP_cos) && pick(2)) { /* the other one, too */
      CHECK(r < P_DIFFERS);
      ref[nref++] = r;
      r = ad_recop(p, op == OP_sin ? OP_cos : OP_sin, a, 0, 0);
    }
  }
  CHECK(r < P_DIFFERS);
  ref[nref++] = r;
}

static void some(Prog *p, uint32_t n) {
  while (n-- > 0 && nref < MOST) one(p);
}

static void begin(Prog *p, uint64_t from) {
  seed = from * UINT64_C(0x9e3779b97f4a7c15) + 1;
  ad_recstart(p);
  nref = 0;
  for (uint32_t k = 0; k < NIN; k++) ref[nref++] = k;
  for (uint32_t k = 0; k < 4; k++) ref[nref++] = ad_progconst(p, number());
}

static void results(Prog *p) {
  uint32_t x[20];
  for (uint32_t k = 0; k < 20; k++)
    x[k] = k < 10 ? ref[nref - 1 - k] : operand(p);
  CHECK(ad_recreturn(p, 0, 20, x) == 0);
}

/* a way through a program with branches: 'way' says which */
static void way(Prog *p, uint64_t from, uint32_t branches, uint32_t length,
                uint32_t which) {
  begin(p, from);
  for (uint32_t k = 0; k < branches; k++) {
    int cmp, holds = which >> k & 1;
    uint32_t a, b;
    some(p, pick(length) + 1);
    cmp = (int)pick(4);
    a = operand(p);
    b = cmp == P_SAME && pick(2) ? ref[NIN + pick(4)] : operand(p);
    CHECK(ad_recif(p, cmp, a, b, holds, 0) == 0);
    seed = seed * 3 + (uint64_t)holds + 1;
  }
  some(p, pick(length) + 1);
  results(p);
}

/*
** Twice a loop, of 'trips' rounds: values that go round are permuted, too.
** The first loop pushes what the second one pops.
*/
static void loops(Prog *p, uint64_t from, double trips, uint32_t length) {
  const uint32_t one1 = ad_progconst(p, 1);
  uint32_t before;
  begin(p, from);
  some(p, pick(length) + 1);
  for (int second = 0; second < 2; second++) {
    uint32_t init[5], next[5], head, first, limit = ad_progconst(p, trips);
    uint64_t at;
    before = nref;
    init[0] = ad_progconst(p, 0);
    for (int k = 1; k < 5; k++) init[k] = operand(p);
    CHECK(ad_recenter(p, 5, init) == 0);
    head = p->here;
    first = p->block[head].first;
    for (uint32_t k = 0; k < 5; k++) ref[nref++] = first + k;
    at = seed;
    some(p, pick(length) + 1);
    CHECK(ad_recif(p, P_LT, first, limit, 1, 0) == 0);
    if (second) {
      const uint32_t r = ad_recop(p, P_POP, 0, 0, 0);
      CHECK(r < P_DIFFERS);
      ref[nref++] = r;
    }
    some(p, pick(length) + 1);
    if (!second) CHECK(ad_recop(p, P_PUSH, operand(p), 0, 0) < P_DIFFERS);
    next[0] = ad_recop(p, OP_add, first, one1, 0);
    for (uint32_t k = 1; k < 5; k++)
      next[k] = pick(2) ? first + 1 + pick(4) : operand(p);
    CHECK(ad_recagain(p, head, 5, next) == 0);
    seed = at; /* the head again, and out */
    nref = before + 5;
    some(p, pick(length) + 1);
    CHECK(ad_recif(p, P_LT, first, limit, 0, 0) == 0);
    some(p, pick(length) + 1);
  }
  results(p);
}

/*
** Comparison
*/

/* valgrind 3.19 has -0.0 for c - a * b where that is exactly 0 and fused */
static int nozeros;

static uint64_t bits(double x) {
  uint64_t u;
  if (nozeros && x == 0) return 0;
  memcpy(&u, &x, sizeof u);
  return x != x ? UINT64_C(0x7ff8000000000000) : u;
}

static long returns, misses;

static void compare(const Code *c, void *slow, void *self, Frame *f, Frame *g) {
  uint32_t a, b;
  for (uint32_t k = 0; k < c->nin; k++)
    f->v[c->nconst + k] = g->v[c->nconst + k] = number();
  a = ad_interpreter.run(slow, f);
  b = ad_native.run(self, g);
  CHECK(a == b);
  if (a != b || a == P_FULL) return;
  if (c->block[a].end != P_RETURN) {
    misses++;
    return;
  }
  returns++;
  for (uint32_t k = 0; k < c->block[a].b; k++) {
    const uint32_t slot = c->list[c->block[a].a + k];
    if (bits(f->v[slot]) != bits(g->v[slot])) {
      printf("result %u: %.17g, native %.17g\n", (unsigned)k, f->v[slot],
             g->v[slot]);
      failures++;
      return;
    }
  }
}

static int levels[4], nlevel;

static void both(const Prog *p, int times) {
  for (int options = 0; options <= P_PLAIN; options += P_PLAIN) {
    Code c;
    Frame f, g;
    const char *reason;
    void *slow;
    CHECK(ad_lower(p, &c, options));
    CHECK(ad_frameinit(&f, &c, allocate, NULL, 100000) == 0);
    CHECK(ad_frameinit(&g, &c, allocate, NULL, 100000) == 0);
    slow = ad_interpreter.make(&c, &reason);
    CHECK(slow != NULL);
    for (int l = 0; l < nlevel; l++) {
      const char *why;
      void *self = ad_nativemake(&c, levels[l], &why);
      CHECK(self != NULL);
      if (self == NULL) continue;
      for (int k = 0; k < times; k++) compare(&c, slow, self, &f, &g);
      ad_native.free(self);
    }
    ad_interpreter.free(slow);
    ad_framefree(&f);
    ad_framefree(&g);
    ad_codefree(&c);
  }
}

static void programs(uint64_t from, int n) {
  for (int k = 0; k < n && failures < 10; k++) {
    const uint32_t branches = (uint32_t)k % 5, length = k % 3 ? 30 : 300;
    Prog p;
    const int before = failures;
    arithmetic = k % 2;
    CHECK(ad_proginit(&p, allocate, NULL, NIN));
    if (k % 4 == 3)
      loops(&p, from + (uint64_t)k, k % 7, length);
    else
      for (uint32_t w = 0; w < (k % 3 + 1u) && w < 1u << branches; w++)
        way(&p, from + (uint64_t)k, branches, length, w * 5 % 32);
    both(&p, 12);
    ad_progfree(&p);
    if (failures > before) printf("program %d\n", k);
  }
}

/*
** Many points at a time: what is no machine code is done one by one here
*/
#define MANY 64

static double at(const double *v, uint32_t place, uint32_t point) {
  return place & X_UNIFORM ? v[place & ~X_UNIFORM] : v[place + point];
}

static void onebyone(const Code *c, const Step *step, const uint32_t *place,
                     uint32_t points, double *v) {
  for (uint32_t i = step->first; i < step->last; i++)
    for (uint32_t k = 0; k < points; k++) {
      const Ins *x = &c->ins[i];
      double in[64], y;
      if (ad_islist(x->op)) {
        for (uint32_t j = 0; j < x->b; j++)
          in[j] = at(v, place[c->list[x->a + j]], k);
        y = ad_nvalue(x->op, x->b, in);
      } else {
        const int n = ad_insarity(x->op);
        if (n > 0) in[0] = at(v, place[x->a], k);
        if (n > 1) in[1] = at(v, place[x->b], k);
        if (n > 2) in[2] = at(v, place[x->c], k);
        y = ad_insvalue(x->op, in);
      }
      v[place[x->d] + k] = y;
    }
}

/* n points, of as many as there is room for, against the interpreter */
static void batch(const Code *c, uint32_t n, uint32_t points,
                  uint32_t uniform) {
  const char *why;
  uint32_t place[MOST * 2], size = 0;
  double *v, *spill;
  Vectors *x;
  Frame f;
  void *slow = ad_interpreter.make(c, &why);
  CHECK(c->nslot <= MOST * 2 && c->nblock == 1);
  for (uint32_t k = 0; k < c->nslot; k++)
    if (k < c->nconst + uniform) place[k] = X_UNIFORM | size++;
  size = (size + 7) / 8 * 8;
  for (uint32_t k = c->nconst + uniform; k < c->nslot; k++) {
    place[k] = size;
    size += points;
  }
  x = ad_nativevectors(c, place, ad_nativefeatures(), &why);
  CHECK(x != NULL);
  CHECK(ad_frameinit(&f, c, allocate, NULL, 10) == 0);
  v = calloc(size, sizeof *v);
  spill = calloc(x->w.x.nspill * 4 + 1, sizeof *spill);
  memcpy(v, c->constant, c->nconst * sizeof *v);
  for (uint32_t j = 0; j < c->nin; j++)
    for (uint32_t k = 0; k < points; k++)
      v[(place[c->nconst + j] & ~X_UNIFORM) + (j < uniform ? 0 : k)] = number();
  for (uint32_t j = x->w.of[0]; j < x->w.of[1]; j++) {
    const Step *step = &x->w.step[j];
    if (step->entry != 0)
      ad_nativevectorsrun(x, step, v, spill, n);
    else
      onebyone(c, step, place, points, v);
  }
  for (uint32_t k = 0; k < n; k++) {
    for (uint32_t j = 0; j < c->nin; j++)
      f.v[c->nconst + j] = at(v, place[c->nconst + j], k);
    CHECK(ad_interpreter.run(slow, &f) == 0);
    for (uint32_t j = 0; j < c->block[0].b; j++) {
      const uint32_t slot = c->list[c->block[0].a + j];
      CHECK(bits(f.v[slot]) == bits(at(v, place[slot], k)));
    }
  }
  CHECK(ad_nativevectorsbytes(x) > 1000);
  free(v);
  free(spill);
  ad_nativevectorsfree(x);
  ad_framefree(&f);
  ad_interpreter.free(slow);
}

/* sines with cosines make three values of two instructions */
static void sines(void) {
  Prog p;
  uint32_t r = 0, x[20];
  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  seed = 7;
  ad_recstart(&p);
  for (int k = 0; k < 300; k++) {
    const uint32_t u = ad_recop(&p, OP_add, r, 1 + pick(NIN - 1), 0);
    r = ad_recop(&p, OP_mul, ad_recop(&p, OP_sin, u, 0, 0),
                 ad_recop(&p, OP_cos, u, 0, 0), 0);
  }
  for (int k = 0; k < 20; k++) x[k] = r;
  CHECK(ad_recreturn(&p, 0, 20, x) == 0);
  both(&p, 12);
  ad_progfree(&p);
}

/* operations that wait for each other: two vectors are worked on at a time */
static void waiting(void) {
  Prog p;
  Code c;
  uint32_t r = 0, place[64], x[20];
  const char *why;
  Vectors *v;
  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  seed = 99;
  ad_recstart(&p);
  for (int k = 0; k < 300; k++) {
    uint32_t both[2];
    both[0] = r;
    both[1] = 1 + pick(NIN - 1);
    r = k % 7 == 0
            ? ad_reclist(&p, OP_list_mean, 2, both)
            : ad_recop(&p, k % 2 ? OP_add : OP_cadd, r, both[1], k % 2 ? 0 : 2);
  }
  for (int k = 0; k < 20; k++) x[k] = r;
  CHECK(ad_recreturn(&p, 0, 20, x) == 0);
  CHECK(ad_lower(&p, &c, 0) && c.nslot <= 64);
  for (uint32_t k = 0; k < c.nslot; k++) place[k] = k * MANY;
  v = ad_nativevectors(&c, place, ad_nativefeatures(), &why);
  CHECK(v != NULL && v->w.nstep == 1 && v->w.step[0].points == 8);
  if (v != NULL) ad_nativevectorsfree(v);
  for (uint32_t n = 0; n <= MANY; n += 13) batch(&c, n, MANY, n % NIN);
  ad_codefree(&c);
  ad_progfree(&p);
}

static void batches(int n) {
  if (!(ad_nativefeatures() & X_AVX)) {
    const char *why;
    CHECK(ad_nativevectors(NULL, NULL, 0, &why) == NULL && why != NULL);
    return;
  }
  waiting();
  for (int k = 0; k < n && failures < 10; k++)
    for (int options = 0; options <= P_PLAIN; options += P_PLAIN) {
      Prog p;
      Code c;
      arithmetic = k % 3 == 0;
      CHECK(ad_proginit(&p, allocate, NULL, NIN));
      way(&p, 5000 + (uint64_t)k, 0, k % 5 ? 60 : 600, 0);
      CHECK(ad_lower(&p, &c, options));
      for (uint32_t points = 8; points <= MANY; points *= 2)
        batch(&c, k % 2 ? points : (uint32_t)k % points, points,
              (uint32_t)k % (NIN + 1));
      ad_codefree(&c);
      ad_progfree(&p);
    }
}

/*
** Products that go into sums unrounded: of whole numbers that are exact, and
** so the same, whether it is one operation or two.
*/
static void fused(int n) {
  const char *why;
  whole = 1;
  for (int k = 0; k < n && failures < 10; k++) {
    Prog p;
    Code c;
    Frame f, g;
    uint32_t x[40];
    CHECK(ad_proginit(&p, allocate, NULL, NIN));
    ad_recstart(&p);
    for (uint32_t j = 0; j < 40; j++) x[j] = j % NIN;
    for (uint32_t j = 0; j < 300; j++) {
      const uint32_t a = x[pick(40)], b = pick(4) ? pick(NIN) : pick(2) + 1;
      const uint32_t m = ad_recop(&p, OP_mul, pick(NIN), b, 0);
      const int op = pick(2) ? OP_add : OP_sub;
      const int turned = (int)pick(2);
      x[pick(40)] = ad_recop(&p, op, turned ? a : m, turned ? m : a, 0);
      if (pick(8) == 0) x[pick(40)] = m;
      if (pick(20) == 0) { /* a list of them, longer than its partial sums */
        const int list = pick(2) ? OP_list_sum : OP_list_dot;
        x[pick(40)] = ad_reclist(&p, list, 2 * pick(20), x);
      }
      if (pick(30) == 0) /* keeps the numbers small */
        for (uint32_t i = 0; i < 40; i++)
          x[i] =
              ad_recop(&p, OP_max, ad_progconst(&p, -9),
                       ad_recop(&p, OP_min, x[i], ad_progconst(&p, 9), 0), 0);
    }
    CHECK(ad_recreturn(&p, 0, 40, x) == 0);
    CHECK(ad_lower(&p, &c, 0) && !c.fused);
    c.fused = 1;
    CHECK(ad_frameinit(&f, &c, allocate, NULL, 10) == 0);
    CHECK(ad_frameinit(&g, &c, allocate, NULL, 10) == 0);
    for (int l = 0; l < nlevel; l++) {
      void *slow = ad_interpreter.make(&c, &why);
      void *self = ad_nativemake(&c, levels[l], &why);
      CHECK(self != NULL);
      for (int j = 0; j < 5; j++) compare(&c, slow, self, &f, &g);
      ad_native.free(self);
      ad_interpreter.free(slow);
    }
    if (ad_nativefeatures() & X_AVX) {
      batch(&c, MANY, MANY, (uint32_t)k % NIN);
      batch(&c, 8, 8, 0);
    }
    ad_framefree(&f);
    ad_framefree(&g);
    ad_codefree(&c);
    ad_progfree(&p);
  }
  whole = 0;
}

/*
** The same with every allocation failing once
*/
static void memory(void) {
  Prog p;
  Code c;
  uint32_t place[MOST * 2];
  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  arithmetic = 0;
  loops(&p, 77, 3, 100);
  CHECK(ad_lower(&p, &c, 0));
  c.fused = 1;
  for (uint32_t k = 0; k < c.nslot; k++)
    place[k] = k < c.nconst ? X_UNIFORM | k : k * MANY;
  for (int wide = 0; wide < 2; wide++)
    for (long n = 0;; n++) {
      const long before = inuse;
      const char *why = "";
      void *self;
      long left;
      countdown = n;
      if (wide)
        self = ad_nativevectors(&c, place, X_SSE41 | X_AVX | X_FMA, &why);
      else
        self = ad_nativemake(&c, levels[nlevel - 1], &why);
      left = countdown;
      countdown = -1;
      CHECK((self == NULL) == (left < 0));
      CHECK(why == NULL);
      if (self != NULL && wide) ad_nativevectorsfree(self);
      if (self != NULL && !wide) ad_native.free(self);
      CHECK(inuse == before);
      if (left >= 0) break;
    }
  ad_codefree(&c);
  ad_progfree(&p);
}

/* no room for what has to leave the registers, and for the frame's stack */
static void full(void) {
  Prog p;
  Code c;
  Frame f;
  void *self, *slow;
  const char *why;
  uint32_t a;
  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  arithmetic = 0;
  way(&p, 5, 0, 3000, 0);
  CHECK(ad_lower(&p, &c, 0));
  CHECK(ad_frameinit(&f, &c, allocate, NULL, 10) == 0);
  self = ad_native.make(&c, &why);
  CHECK(self != NULL);
  countdown = 0;
  CHECK(ad_native.run(self, &f) == P_FULL);
  countdown = -1;
  a = ad_native.run(self, &f);
  CHECK(a != P_FULL && c.block[a].end == P_RETURN);
  CHECK(ad_native.bytes(self) > 1000);
  CHECK(strncmp(ad_nativename(self), "native (x86-64, ", 16) == 0);
  ad_native.free(self);
  ad_framefree(&f);
  ad_codefree(&c);
  ad_progfree(&p);

  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  loops(&p, 78, 1000, 10);
  CHECK(ad_lower(&p, &c, 0));
  slow = ad_interpreter.make(&c, &why);
  for (size_t most = 990; most < 1010; most += 10) {
    CHECK(ad_frameinit(&f, &c, allocate, NULL, most) == 0);
    for (int l = 0; l < nlevel; l++) {
      self = ad_nativemake(&c, levels[l], &why);
      for (uint32_t k = 0; k < NIN; k++) f.v[c.nconst + k] = 1;
      a = ad_native.run(self, &f);
      CHECK((a == P_FULL) == (most < 1000));
      CHECK(a == ad_interpreter.run(slow, &f));
      ad_native.free(self);
    }
    ad_framefree(&f);
  }
  ad_interpreter.free(slow);
  ad_codefree(&c);
  ad_progfree(&p);
}

/* one long block, and many short ones */
static void huge(uint32_t n) {
  const double limit = 1e300;
  for (int blocks = 0; blocks < 2; blocks++) {
    Prog p;
    Code c;
    Frame f, g;
    const char *why;
    void *self, *slow;
    uint32_t x[64];
    CHECK(ad_proginit(&p, allocate, NULL, NIN));
    seed = 4711;
    ad_recstart(&p);
    for (uint32_t k = 0; k < 64; k++) x[k] = k % NIN;
    for (uint32_t k = 0; k < n; k++) {
      static const int op[] = {OP_add, OP_sub, OP_mul, OP_max};
      const uint32_t a = x[pick(64)], b = x[pick(64)];
      if (blocks && k % 10 == 9)
        CHECK(ad_recif(&p, P_LT, a, ad_progconst(&p, limit), 1, 0) == 0);
      x[k % 64] =
          ad_recop(&p, k % 97 ? op[pick(4)] : OP_tanh, a, k % 97 ? b : 0, 0);
    }
    CHECK(ad_recreturn(&p, 0, 64, x) == 0);
    CHECK(ad_lower(&p, &c, P_PLAIN));
    CHECK(ad_frameinit(&f, &c, allocate, NULL, 10) == 0);
    CHECK(ad_frameinit(&g, &c, allocate, NULL, 10) == 0);
    slow = ad_interpreter.make(&c, &why);
    self = ad_native.make(&c, &why);
    CHECK(self != NULL);
    if (self != NULL) {
      CHECK(ad_native.bytes(self) < (size_t)n * 32 + 10000);
      for (int k = 0; k < 3; k++) compare(&c, slow, self, &f, &g);
      ad_native.free(self);
    }
    ad_interpreter.free(slow);
    ad_framefree(&f);
    ad_framefree(&g);
    ad_codefree(&c);
    ad_progfree(&p);
  }
}

/*
** An independent disassembler sees the instructions that the assembler
** thinks it has written
*/
static long nfused[3];

static void disassembled(const Asm *s, size_t entry) {
  char name[] = "/tmp/native_test_XXXXXX", line[300];
  FILE *out, *in;
  size_t k = 0, bad = 0;
  const int fd = mkstemp(name);
  CHECK(fd >= 0);
  out = fdopen(fd, "wb");
  CHECK(fwrite(s->code + entry, 1, s->n - entry, out) == s->n - entry);
  fclose(out);
  snprintf(line, sizeof line,
           "objdump -D -w -b binary -mi386:x86-64 --no-show-raw-insn %s", name);
  in = popen(line, "r");
  while (fgets(line, sizeof line, in) != NULL) {
    char *end, *p = line;
    unsigned long at;
    while (*p == ' ') p++;
    at = strtoul(p, &end, 16);
    if (end == p || *end != ':') continue;
    if (k >= s->nstart || s->start[k] - entry != at) bad++;
    for (int i = 0; i < 3; i++) {
      static const char *const name3[] = {"\tvfmadd", "\tvfmsub", "\tvfnmadd"};
      if (strstr(line, name3[i]) != NULL) nfused[i]++;
    }
    if (strstr(line, "(bad)") != NULL) bad++;
    k++;
  }
  CHECK(bad == 0);
  CHECK(k == s->nstart);
  pclose(in);
  remove(name);
}

static void disassembler(void) {
  if (system("command -v objdump >/dev/null 2>&1") != 0) {
    printf("objdump is not there: machine code is not disassembled\n");
    return;
  }
  for (int k = 0; k < 8; k++) {
    Prog p;
    Code c;
    arithmetic = k == 0;
    CHECK(ad_proginit(&p, allocate, NULL, NIN));
    if (k % 2)
      loops(&p, 1000 + (uint64_t)k, 3, 400);
    else
      way(&p, 1000 + (uint64_t)k, 3, 500, (uint32_t)k);
    CHECK(ad_lower(&p, &c, P_PLAIN));
    c.fused = 1;
    for (int l = 0; l < 4; l++) { /* whatever this machine has */
      const char *why;
      X64 x;
      CHECK(ad_x64(&x, &c,
                   l == 0   ? 0
                   : l == 1 ? X_SSE41
                   : l == 2 ? X_SSE41 | X_AVX
                            : X_SSE41 | X_AVX | X_FMA,
                   1, &why));
      disassembled(&x.s, x.entry);
      ad_asmfree(&x.s);
    }
    if (k % 2 == 0) {
      uint32_t place[MOST * 2];
      const char *why;
      Wide w;
      for (uint32_t j = 0; j < c.nslot; j++)
        place[j] = j < c.nconst ? X_UNIFORM | j : j * MANY;
      CHECK(ad_x64wide(&w, &c, place, X_FMA, 1, &why));
      disassembled(&w.x.s, w.x.entry);
      ad_x64widefree(&w);
    }
    ad_codefree(&c);
    ad_progfree(&p);
  }
  CHECK(nfused[0] > 0 && nfused[1] > 0 && nfused[2] > 0);
}

/*
** One program in several threads, with a frame each
*/
static void *uncounted(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud, (void)osize;
  if (nsize != 0) return realloc(ptr, nsize);
  free(ptr);
  return NULL;
}

static const Code *shared;

static void *thread(void *self) {
  Frame f;
  void *ok = NULL;
  double first = 0;
  if (ad_frameinit(&f, shared, uncounted, NULL, 100000) != 0) return NULL;
  for (int k = 0; k < 200; k++) {
    uint32_t at;
    for (uint32_t j = 0; j < NIN; j++) f.v[shared->nconst + j] = 0.25 * (j + 1);
    at = ad_native.run(self, &f);
    if (at == P_FULL || shared->block[at].end != P_RETURN) break;
    if (k == 0) first = f.v[shared->list[shared->block[at].a]];
    if (bits(first) != bits(f.v[shared->list[shared->block[at].a]])) break;
    if (k == 199) ok = self;
  }
  ad_framefree(&f);
  return ok;
}

static void threads(void) {
  Prog p;
  Code c;
  pthread_t t[4];
  const char *why;
  void *self;
  CHECK(ad_proginit(&p, uncounted, NULL, NIN));
  arithmetic = 0;
  loops(&p, 80, 5, 100);
  CHECK(ad_lower(&p, &c, 0));
  self = ad_native.make(&c, &why);
  shared = &c;
  for (int k = 0; k < 4; k++)
    CHECK(pthread_create(&t[k], NULL, thread, self) == 0);
  for (int k = 0; k < 4; k++) {
    void *ok;
    CHECK(pthread_join(t[k], &ok) == 0 && ok != NULL);
  }
  ad_native.free(self);
  ad_codefree(&c);
  ad_progfree(&p);
}

/*
** Where memory may not become executable
*/
#if defined(__linux__) && defined(__x86_64__)

/* these calls fail with EPERM, if their third argument has PROT_EXEC */
static int forbid(int mprotect1, int mmap1, int memfd) {
#define DENY BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1)
#define LOAD(field)                                                            \
  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
  struct sock_filter code[] = {
      LOAD(nr),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
               memfd ? (uint32_t)SYS_memfd_create : 0xffffffffu, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
               mprotect1 ? (uint32_t)SYS_mprotect : 0xffffffffu, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
               mmap1 ? (uint32_t)SYS_mmap : 0xffffffffu, 0, 3),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      DENY,
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog prog = {sizeof code / sizeof *code, code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

/* what to forbid; is there native code then? */
enum { MDWE = 1, MPROTECT = 2, MMAP = 4, MEMFD = 8, SPACE = 16 };

static void child(int what, int works, const Code *c) {
  const char *why = "";
  void *self, *slow = ad_interpreter.make(c, &why);
  Frame f, g;
  CHECK(ad_frameinit(&f, c, allocate, NULL, 100000) == 0);
  CHECK(ad_frameinit(&g, c, allocate, NULL, 100000) == 0);
  if (what & MDWE && prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) _exit(2);
  if (what & (MPROTECT | MMAP | MEMFD) &&
      !forbid(what & MPROTECT, what & MMAP, what & MEMFD))
    _exit(2);
  if (what & SPACE) {
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_AS, &none) != 0) _exit(2);
  }
  self = ad_native.make(c, &why);
  if (works) {
    CHECK(self != NULL && why == NULL);
    if (self != NULL) {
      for (int k = 0; k < 5; k++) compare(c, slow, self, &f, &g);
      ad_native.free(self);
    }
  } else {
    CHECK(self == NULL);
    /* without space the program may not even be translated */
    CHECK(what & SPACE || (why != NULL && strstr(why, "system") != NULL));
  }
  _exit(failures != 0);
}

static void forbidden(void) {
  static const struct {
    int what, works;
  } row[] = {{MDWE, 1},
             {MPROTECT, 1},
             {MPROTECT | MMAP, 0},
             {MPROTECT | MEMFD, 0},
             {MDWE | MEMFD, 0},
             {SPACE, 0}};
  const char *preload = getenv("LD_PRELOAD");
  Prog p;
  Code c;
  if (preload != NULL && *preload != 0) {
    printf("forbidding system calls would hit who watches, too: left out\n");
    return;
  }
  CHECK(ad_proginit(&p, allocate, NULL, NIN));
  arithmetic = 0;
  loops(&p, 81, 5, 20);
  CHECK(ad_lower(&p, &c, 0));
  fflush(stdout);
  for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) child(row[k].what, row[k].works, &c);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
      printf("this system cannot forbid %d\n", row[k].what);
    else
      CHECK(WEXITSTATUS(status) == 0);
  }
  ad_codefree(&c);
  ad_progfree(&p);
}
#else
static void forbidden(void) {}
#endif

/* where there is none: the reason */
static void elsewhere(const char *why) {
  CHECK(why != NULL);
  printf("no machine code: %s\n", why);
}

int main(int argc, char **argv) {
  const int all = ad_nativefeatures();
  const int n = argc > 1 ? atoi(argv[1]) : 600;
  const char *why, *preload = getenv("LD_PRELOAD");
  Code empty;
  memset(&empty, 0, sizeof empty);
  empty.alloc = allocate;
  levels[nlevel++] = 0;
  if (all & X_SSE41) levels[nlevel++] = X_SSE41;
  if (all & X_AVX) levels[nlevel++] = X_SSE41 | X_AVX;
  if (all & X_FMA) levels[nlevel++] = all;
  disassembler();
  {
    void *self = ad_native.make(&empty, &why);
    if (self == NULL) {
      elsewhere(why);
      return failures != 0;
    }
    ad_native.free(self);
  }
  programs(argc > 2 ? (uint64_t)atol(argv[2]) : 1, n);
  printf("%ld returns, %ld misses\n", returns, misses);
  sines();
  batches(n / 2);
  nozeros = preload != NULL && strstr(preload, "vgpreload") != NULL;
  fused(n / 3);
  nozeros = 0;
  memory();
  full();
  huge((uint32_t)n * 50);
  if (n >= 600) huge(1000000);
  threads();
  forbidden();
  CHECK(inuse == 0);
  printf("%s\n", failures ? "failed" : "machine code is right");
  return failures != 0;
}
