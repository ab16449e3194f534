/* Machine code against the interpreter, bit for bit. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "x64.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long inuse, countdown = -1;

static void *allocate(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize == 0) {
    inuse -= (long)osize;
    free(ptr);
    return NULL;
  }
  if (nsize > osize && countdown >= 0 && countdown-- == 0) {
    countdown = -1;
    return NULL;
  }
  ptr = realloc(ptr, nsize);
  inuse += (long)nsize - (long)osize;
  return ptr;
}

static int failures;

#define CHECK(c)                                                               \
  ((c) ? (void)0                                                               \
       : (void)(failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #c)))

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

static double number(void) {
  if (pick(3) == 0) return special[pick(NSPECIAL)];
  return ((double)pick(2000001) - 1000000) / 250000.0;
}

/*
** Programs. A trace is the same as long as it goes the same way, because what
** comes next follows from the way so far.
*/

#define NIN 6
#define MOST 4000

static uint32_t ref[MOST], nref;
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
                              OP_div, OP_cadd, OP_cmul, OP_unm};
  int op;
  uint32_t r;
  do {
    op = pick(3) > 0 ? usual[pick(9)] : (int)pick(OP_count + 1);
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

static uint64_t bits(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return x != x ? UINT64_C(0x7ff8000000000000) : u;
}

static long returns, misses;

static void compare(const Code *c, void *self, Frame *f, Frame *g) {
  uint32_t a, b;
  for (uint32_t k = 0; k < c->nin; k++)
    f->v[c->nconst + k] = g->v[c->nconst + k] = number();
  a = ad_interpreter.run((void *)(uintptr_t)c, f);
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

static int levels[3], nlevel;

static void both(const Prog *p, int times) {
  for (int options = 0; options <= P_PLAIN; options += P_PLAIN) {
    Code c;
    Frame f, g;
    CHECK(ad_lower(p, &c, options));
    CHECK(ad_frameinit(&f, &c, allocate, NULL, 100000) == 0);
    CHECK(ad_frameinit(&g, &c, allocate, NULL, 100000) == 0);
    for (int l = 0; l < nlevel; l++) {
      const char *why;
      void *self = ad_nativemake(&c, levels[l], &why);
      CHECK(self != NULL);
      if (self == NULL) continue;
      for (int k = 0; k < times; k++) compare(&c, self, &f, &g);
      ad_native.free(self);
    }
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

int main(int argc, char **argv) {
  const int all = ad_nativefeatures();
  const int n = argc > 1 ? atoi(argv[1]) : 600;
  levels[nlevel++] = 0;
  if (all & X_SSE41) levels[nlevel++] = X_SSE41;
  if (all & X_AVX) levels[nlevel++] = X_SSE41 | X_AVX;
  programs(argc > 2 ? (uint64_t)atol(argv[2]) : 1, n);
  printf("%ld returns, %ld misses\n", returns, misses);
  CHECK(inuse == 0);
  printf("%s\n", failures ? "failed" : "machine code is right");
  return failures != 0;
}
