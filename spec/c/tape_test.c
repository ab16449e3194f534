/*
** tape_test.c
** The tape by itself: no Lua, an allocator that counts and can refuse.
*/
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tape.h"

typedef struct Counter {
  size_t bytes;
  long left; /* requests until one is refused; negative: never */
} Counter;

static void *counted(void *ud, void *p, size_t osize, size_t nsize) {
  Counter *c = ud;
  if (nsize == 0) {
    if (p != NULL) c->bytes -= osize;
    free(p);
    return NULL;
  }
  if (nsize > osize && c->left >= 0 && c->left-- == 0) return NULL;
  p = realloc(p, nsize);
  c->bytes += nsize - (p != NULL ? osize : 0);
  return p;
}

static int passed = 0, failed = 0;

static void check(int ok, const char *what) {
  if (ok)
    passed++;
  else {
    failed++;
    printf("failed: %s\n", what);
  }
}

static uint32_t state = 12345;

static uint32_t random32(void) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

static double uniform(void) {
  return (double)random32() / (double)(1u << 24) * 2 - 1;
}

/* inputs first, then operations of 0 to 3 operands (0: another input) */
static void fill(Tape *t, int inputs, int ops, int dirs) {
  for (int i = 0; i < inputs; i++) {
    ad_tapereserve(t, 1, 0);
    ad_tapeinput(t);
  }
  for (int i = 0; i < ops; i++) {
    const uint32_t n = 1 + random32() % 3;
    ad_tapereserve(t, 1, n);
    for (uint32_t k = 0; k < n; k++) {
      const uint32_t entry = t->nentry;
      ad_tapeentry(t, random32() % t->nnode, uniform());
      for (int d = 0; d < dirs; d++) ad_tapetangents(t, entry)[d] = uniform();
    }
    ad_tapenode(t);
  }
}

/* y'(J v) = (J'y)'v on random graphs */
static void test_transpose(void) {
  for (int round = 0; round < 200; round++) {
    Counter c = {0, -1};
    Tape t;
    const uint32_t inputs = 1 + random32() % 6, ops = random32() % 60;
    double *adj, *dot, *v, left = 0, right = 0, y;
    uint32_t n, target;
    ad_tapeinit(&t, counted, &c);
    fill(&t, (int)inputs, (int)ops, 0);
    n = t.nnode;
    check(t.ninput == inputs && n == inputs + ops, "counts of nodes");
    target = random32() % n;
    adj = calloc(n, sizeof *adj);
    dot = calloc(n * 3, sizeof *dot);
    v = calloc(inputs * 3, sizeof *v);
    for (uint32_t i = 0; i < inputs * 3; i++) dot[i] = v[i] = uniform();
    y = adj[target] = uniform();
    ad_tapereverse(&t, target + 1, 0, adj);
    ad_tapeforward(&t, 0, n, dot, 3);
    for (int d = 0; d < 3; d++) {
      left = y * dot[target * 3 + (uint32_t)d];
      right = 0;
      for (uint32_t i = 0; i < inputs; i++)
        right += adj[i] * v[i * 3 + (uint32_t)d];
      check(fabs(left - right) <= 1e-12 * (fabs(left) + 1), "transpose");
    }
    /* one direction alone is the same */
    memset(dot, 0, n * sizeof *dot);
    for (uint32_t i = 0; i < inputs; i++) dot[i] = v[i * 3];
    ad_tapeforward(&t, 0, n, dot, 1);
    right = 0;
    for (uint32_t i = 0; i < inputs; i++) right += adj[i] * v[i * 3];
    check(fabs(y * dot[target] - right) <= 1e-12, "one direction");
    free(adj);
    free(dot);
    free(v);
    ad_tapefree(&t);
    check(c.bytes == 0, "all memory given back");
  }
}

/* the dual sweep against differences of the sweep on numbers, which is
   linear in each multiplier */
static void test_dual(void) {
  const double h = 1e-6;
  for (int round = 0; round < 50; round++) {
    Counter c = {0, -1};
    Tape t;
    double *adj, *dual;
    uint32_t n;
    ad_tapeinit(&t, counted, &c);
    fill(&t, 3, 2, 0); /* entries from before tangents have tangent 0 */
    check(ad_tapedual(&t, 7, 2, 1) == 0, "tangents");
    fill(&t, 0, 20, 2);
    n = t.nnode;
    dual = calloc(n * 3, sizeof *dual);
    dual[(n - 1) * 3] = 1;
    ad_tapereversedual(&t, n, 0, dual);
    for (uint32_t d = 0; d < 2; d++) {
      double *up = calloc(n, sizeof *up);
      adj = calloc(n, sizeof *adj);
      for (int sign = -1; sign <= 1; sign += 2) {
        double *a = sign < 0 ? adj : up;
        for (uint32_t e = 0; e < t.nentry; e++)
          t.mult[e] += sign * h * ad_tapetangents(&t, e)[d];
        a[n - 1] = 1;
        ad_tapereverse(&t, n, 0, a);
        for (uint32_t e = 0; e < t.nentry; e++)
          t.mult[e] -= sign * h * ad_tapetangents(&t, e)[d];
      }
      for (uint32_t i = 0; i < 3; i++)
        check(fabs((up[i] - adj[i]) / (2 * h) - dual[i * 3 + 1 + d]) <
                  1e-6 * (1 + fabs(dual[i * 3 + 1 + d])),
              "dual sweep");
      free(up);
      free(adj);
    }
    free(dual);
    ad_tapeclear(&t, 0);
    check(c.bytes == 0 && t.nnode == 0 && t.dirs == 0, "cleared");
  }
}

static void test_zero(void) {
  Counter c = {0, -1};
  Tape t;
  double adj[3] = {0, 0, 0}, dot[3] = {0, 0, 0};
  ad_tapeinit(&t, counted, &c);
  fill(&t, 1, 0, 0);
  ad_tapereserve(&t, 2, 2);
  ad_tapeentry(&t, 0, HUGE_VAL);
  ad_tapenode(&t);
  ad_tapeentry(&t, 1, 1);
  ad_tapenode(&t);
  ad_tapereverse(&t, 3, 0, adj);
  check(adj[0] == 0, "a cotangent of 0 contributes 0");
  ad_tapeforward(&t, 0, 3, dot, 1);
  check(dot[2] == 0, "a tangent of 0 contributes 0");
  ad_tapefree(&t);
}

static void test_cut(void) {
  Counter c = {0, -1};
  Tape t;
  uint32_t entries;
  size_t before;
  ad_tapeinit(&t, counted, &c);
  fill(&t, 2, 10, 0);
  entries = t.nentry;
  fill(&t, 0, 50000, 0);
  t.idx[t.nentry - 1] |= AD_GENERAL;
  t.ngeneral = 1;
  ad_tapecut(&t, 12);
  check(t.nnode == 12 && t.nentry == entries && t.ngeneral == 0, "cut");
  before = c.bytes;
  ad_tapetrim(&t);
  check(c.bytes < before / 8, "trimmed");
  fill(&t, 0, 5000, 0);
  check(t.nnode == 5012, "grows again");
  check(ad_tapebytes(&t) == t.nnode * 4 + t.nentry * 12u, "bytes");
  ad_tapefree(&t);
  check(c.bytes == 0, "all memory given back after a cut");
}

/* a refused request changes nothing */
static void test_refused(void) {
  for (long n = 0; n < 40; n++) {
    Counter c = {0, -1};
    Tape t;
    uint32_t nodes = 0;
    size_t refused = 0;
    ad_tapeinit(&t, counted, &c);
    c.left = n;
    while (nodes < 100000 && refused == 0) {
      refused = ad_tapereserve(&t, 1, 2);
      if (refused == 0) {
        ad_tapeentry(&t, 0, 1);
        ad_tapeentry(&t, 0, 1);
        ad_tapenode(&t);
        nodes++;
      }
    }
    check(t.nnode == nodes && t.nentry == 2 * nodes, "refused");
    c.left = -1;
    check(ad_tapereserve(&t, 1, 2) == 0, "and then granted");
    ad_tapefree(&t);
    check(c.bytes == 0, "nothing leaks when refused");
  }
  {
    Counter c = {0, -1};
    Tape t;
    ad_tapeinit(&t, counted, &c);
    check(ad_tapereserve(&t, AD_MAXNODES + 1u, 0) == SIZE_MAX, "limit");
    ad_tapefree(&t);
  }
}

int main(void) {
  test_transpose();
  test_dual();
  test_zero();
  test_cut();
  test_refused();
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
