/* Patterns of derivatives against differences, colours against their
   definition, and what is recovered against the matrix. */
#include "sparse.h"

#include "random_program.h"

static int entry(const Pattern *p, uint32_t i, uint32_t j) {
  for (uint32_t k = p->start[i]; k < p->start[i + 1]; k++)
    if (p->index[k] == j) return 1;
  return 0;
}

static void wellformed(const Pattern *p) {
  CHECK(p->start[0] == 0 && p->start[p->nrow] == p->n);
  for (uint32_t i = 0; i < p->nrow; i++)
    for (uint32_t k = p->start[i]; k < p->start[i + 1]; k++) {
      CHECK(p->index[k] < p->ncol);
      CHECK(k == p->start[i] || p->index[k - 1] < p->index[k]);
    }
}

/* a result that changes with an input while the path and all that is flat stay
   is in the pattern; here: programs of smooth operations */
static Function f;

static void patterns(int number) {
  long entries = 0, zeros = 0;
  for (int k = 0; k < number; k++) {
    Prog p;
    Code c;
    Pattern a;
    double x[NVAR], y[NVAR], z[NVAR], zz[NVAR];
    make_function(&f, 1);
    CHECK(ad_proginit(&p, allocate, NULL, NVAR));
    for (int i = 0; i < 30; i++) {
      for (int j = 0; j < NVAR; j++) x[j] = uniform(-3, 3);
      CHECK(run_function(&f, &p, x, y));
    }
    CHECK(ad_lower(&p, &c, k % 2 ? P_PLAIN : 0));
    CHECK(ad_sparsity(&c, 0, NVAR, &a));
    wellformed(&a);
    entries += a.n;
    zeros += NVAR * NVAR - a.n;
    for (int i = 0; i < 20; i++) {
      const uint32_t blocks = p.nblock;
      for (int j = 0; j < NVAR; j++) x[j] = uniform(-3, 3);
      CHECK(run_function(&f, &p, x, y));
      if (p.nblock != blocks) break; /* a path that the code does not have */
      for (uint32_t j = 0; j < NVAR; j++) {
        const double old = x[j];
        x[j] += 1e-7;
        run_function(&f, &p, x, z);
        x[j] = old + 2e-7;
        run_function(&f, &p, x, zz);
        x[j] = old;
        if (p.nblock != blocks) break;
        for (uint32_t m = 0; m < NVAR; m++) {
          const double d = fabs(z[m] - y[m]), dd = fabs(zz[m] - y[m]);
          /* jumps are not derivatives: those double with the step */
          if (d > 1e-11 && fabs(dd - 2 * d) < 0.1 * d && !entry(&a, m, j)) {
            failures++;
            printf("program %d: result %u depends on %u\n", k, m, j);
          }
        }
      }
    }
    ad_patternfree(&a);
    ad_codefree(&c);
    ad_progfree(&p);
  }
  printf("%ld entries, %ld zeros\n", entries, zeros);
  CHECK(zeros > 0);
}

/* the gradient of a sum of terms of neighbours, many inputs: exact pattern */
static void chain(uint32_t n) {
  Prog p;
  Code c;
  Pattern a, t, s;
  uint32_t *r = calloc(n, sizeof *r), *colour = calloc(n, sizeof *colour), k;
  CHECK(ad_proginit(&p, allocate, NULL, n));
  ad_recstart(&p);
  for (uint32_t i = 0; i < n; i++) {
    r[i] = ad_recop(&p, OP_sin, i, 0, 0);
    if (i > 0) r[i] = ad_recop(&p, OP_mul, r[i], i - 1, 0);
    if (i + 1 < n) r[i] = ad_recop(&p, OP_add, r[i], i + 1, 0);
    k = ad_recop(&p, OP_sign, (i * 7 + 3) % n, 0, 0); /* flat */
    r[i] = ad_recop(&p, OP_add, r[i], k, 0);
  }
  CHECK(ad_recreturn(&p, 0, n, r) == 0);
  CHECK(ad_lower(&p, &c, 0));
  CHECK(ad_sparsity(&c, 0, n, &a));
  wellformed(&a);
  CHECK(a.n == 3 * n - 2);
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t j = i > 0 ? i - 1 : 0; j < n && j <= i + 1; j++)
      CHECK(entry(&a, i, j));
  CHECK(ad_transpose(&a, &t));
  CHECK(ad_colour(&a, &t, colour, &k) && k == (n < 3 ? n : 3));
  CHECK(ad_symmetric(&a, &s) && s.n == a.n);
  CHECK(ad_starcolour(&s, colour, &k) && k <= 3);
  ad_patternfree(&s);
  ad_patternfree(&t);
  ad_patternfree(&a);
  ad_codefree(&c);
  ad_progfree(&p);
  free(r);
  free(colour);
}

static Pattern made;

static void make(Pattern *p, uint32_t nrow, uint32_t ncol, double density) {
  memset(p, 0, sizeof *p);
  p->alloc = allocate;
  p->nrow = nrow;
  p->ncol = ncol;
  p->start = allocate(NULL, NULL, 0, (nrow + 1) * sizeof *p->start);
  p->capindex = nrow * ncol;
  p->index =
      allocate(NULL, NULL, 0, ((size_t)p->capindex + 1) * sizeof *p->index);
  p->start[0] = 0;
  for (uint32_t i = 0; i < nrow; i++) {
    for (uint32_t j = 0; j < ncol; j++)
      if (uniform(0, 1) < density) p->index[p->n++] = j;
    p->start[i + 1] = p->n;
  }
}

/* products of a matrix with the sums of the unit vectors of colours */
static double *products(const Pattern *a, const double *value,
                        const uint32_t *colour, uint32_t n) {
  double *b = calloc((size_t)a->nrow * n + 1, sizeof *b);
  for (uint32_t i = 0; i < a->nrow; i++)
    for (uint32_t k = a->start[i]; k < a->start[i + 1]; k++)
      b[(size_t)i * n + colour[a->index[k]]] += value[k];
  return b;
}

static void colours(int number) {
  long all = 0, star = 0, columns = 0;
  for (int m = 0; m < number; m++) {
    const uint32_t nrow = 1 + below(30), ncol = 1 + below(30);
    const int square = m % 2;
    Pattern t, s;
    uint32_t colour[31], n;
    double value[31 * 31], got[31 * 31], *b;
    make(&made, nrow, square ? nrow : ncol, uniform(0, 0.3));
    CHECK(ad_transpose(&made, &t));
    wellformed(&t);
    for (uint32_t i = 0; i < made.nrow; i++)
      for (uint32_t j = 0; j < made.ncol; j++)
        CHECK(entry(&made, i, j) == entry(&t, j, i));
    CHECK(ad_colour(&made, &t, colour, &n));
    for (uint32_t k = 0; k < made.n; k++) value[k] = uniform(1, 2);
    b = products(&made, value, colour, n);
    ad_recover(&made, colour, n, b, got);
    CHECK(memcmp(got, value, made.n * sizeof *got) == 0);
    free(b);
    if (square) {
      CHECK(ad_symmetric(&made, &s));
      wellformed(&s);
      for (uint32_t i = 0; i < s.nrow; i++)
        for (uint32_t j = 0; j < s.nrow; j++)
          CHECK(entry(&s, i, j) ==
                (i == j || entry(&made, i, j) || entry(&made, j, i)));
      CHECK(ad_starcolour(&s, colour, &n));
      for (uint32_t i = 0; i < s.nrow; i++)
        for (uint32_t k = s.start[i]; k < s.start[i + 1]; k++)
          value[k] = 1.0 + (i < s.index[k] ? i + 31.0 * s.index[k]
                                           : s.index[k] + 31.0 * i);
      b = products(&s, value, colour, n);
      ad_recoversymmetric(&s, colour, n, b, got);
      CHECK(memcmp(got, value, s.n * sizeof *got) == 0);
      free(b);
      star += n;
      CHECK(ad_colour(&s, &s, colour, &n));
      all += n;
      columns += s.nrow;
      ad_patternfree(&s);
    }
    ad_patternfree(&t);
    ad_patternfree(&made);
  }
  printf("%ld columns, %ld colours, %ld as stars\n", columns, all, star);
  CHECK(star < all && all < columns);
}

static void memory(void) {
  Prog p;
  Code c;
  double x[NVAR], y[NVAR];
  long before;
  CHECK(ad_proginit(&p, allocate, NULL, NVAR));
  do {
    ad_progfree(&p);
    CHECK(ad_proginit(&p, allocate, NULL, NVAR));
    make_function(&f, 0);
    for (int i = 0; i < 100; i++) {
      for (int j = 0; j < NVAR; j++) x[j] = uniform(-3, 3);
      CHECK(run_function(&f, &p, x, y));
    }
    CHECK(ad_lower(&p, &c, 0));
    if (c.loops && p.ntrace > 3) break;
    ad_codefree(&c);
  } while (1);
  before = inuse;
  for (long n = 0;; n++) {
    Pattern a, t, s;
    uint32_t colour[NVAR], k;
    long left;
    countdown = n;
    if (ad_sparsity(&c, 0, NVAR, &a)) {
      if (ad_transpose(&a, &t)) {
        ad_colour(&a, &t, colour, &k);
        ad_patternfree(&t);
      }
      if (ad_symmetric(&a, &s)) {
        ad_starcolour(&s, colour, &k);
        ad_patternfree(&s);
      }
      ad_patternfree(&a);
    }
    left = countdown;
    countdown = -1;
    CHECK(inuse == before);
    if (left >= 0) break;
  }
  ad_codefree(&c);
  ad_progfree(&p);
}

int main(void) {
  patterns(300);
  chain(1);
  chain(2);
  chain(10);
  chain(1000);
  colours(500);
  memory();
  CHECK(inuse == 0);
  printf("%s\n", failures ? "failed" : "patterns are right");
  return failures != 0;
}
