/* Programs run for many points: the same as for each of them alone, on every
   level of vectors, with any number of threads; and the functions' errors. */
#include "batch.h"

#include "x64.h"

#include "random_program.h"

#include <float.h>

/* a program for single points */
typedef struct Alone {
  const Code *c;
  Frame f;
  void *self;
} Alone;

static void start(Alone *a, const Code *c, size_t maxstack) {
  const char *why;
  a->c = c;
  CHECK(ad_frameinit(&a->f, c, allocate, NULL, maxstack) == 0);
  a->self = ad_interpreter.make(c, &why);
  CHECK(a->self != NULL);
}

static void stop(Alone *a) {
  ad_interpreter.free(a->self);
  ad_framefree(&a->f);
}

/* what becomes of a point */
static int alone(Alone *a, const double *x, double *y) {
  const Code *c = a->c;
  uint32_t at;
  memcpy(a->f.v + c->nconst, x, c->nin * sizeof *x);
  at = ad_interpreter.run(a->self, &a->f);
  if (at == P_FULL) return B_FULL;
  if (c->block[at].end != P_RETURN) return B_MISSED;
  for (uint32_t j = 0; j < c->block[at].b; j++)
    y[j] = a->f.v[c->list[c->block[at].a + j]];
  return B_DONE;
}

#define N 700
/* points to a block, and what the CPU has: -1 is no machine code */
static uint32_t points = 0;
static int features = -1;

static double in[N][NVAR], out[N][NVAR], wanted[N][NVAR];
static uint8_t state[N], wstate[N];

/* the first level that there is */
static int lowest;

static int batch(const Code *c, const uint8_t *shared, int level, int threads,
                 size_t n, size_t maxstack, double *sum) {
  Batch b;
  BatchRun r;
  Column ci[NVAR], co[NVAR];
  const Returned form = returned(NVAR);
  const char *why = NULL;
  int ok;
  memset(&r, 0, sizeof r);
  for (int k = 0; k < NVAR; k++) {
    ci[k].at = &in[0][k];
    ci[k].stride = NVAR;
    co[k].at = sum != NULL ? &sum[k] : &out[0][k];
    co[k].stride = NVAR;
  }
  r.n = n;
  r.in = ci;
  r.out = co;
  r.nout = NVAR;
  r.form = &form;
  r.nform = 1;
  r.sum = sum != NULL;
  r.threads = threads;
  r.level = ad_vlevel(level);
  r.maxstack = maxstack;
  r.state = state;
  if (r.level == NULL) return 0;
  if (!ad_batchinit(&b, c, shared, points, allocate, NULL)) return -1;
  CHECK(points == 0 || b.points == points);
  ok = 1;
  if (features >= 0 && !ad_batchnative(&b, features, &why))
    ok = why != NULL; /* a reason, but not that memory was lacking */
  ok = ok && ad_batchrun(&b, &r);
  ad_batchfree(&b);
  if (ok) {
    size_t done = 0;
    for (size_t k = 0; k < n; k++) done += state[k] == B_DONE;
    CHECK(done == r.ndone);
  }
  return ok ? 1 : -1;
}

/* sums in extended precision are not to be had everywhere: bounds instead */
static void sums(const Code *c, const uint8_t *shared, size_t n) {
  double first[NVAR], again[NVAR];
  for (int level = 0; level <= V_LEVELS; level++)
    for (int threads = 1; threads <= 6; threads++) { /* with machine code > 3 */
      int got;
      features = threads > 3 ? ad_nativefeatures() : -1;
      got = batch(c, shared, level, (threads - 1) % 3 + 1, n, 64, again);
      features = -1;
      CHECK(got != -1);
      if (got != 1) continue;
      if (level == 0 && threads == 1) memcpy(first, again, sizeof first);
      for (int j = 0; j < NVAR; j++) {
        double s = 0, size = 0;
        CHECK(same(first[j], again[j]));
        for (size_t k = 0; k < n; k++)
          if (wstate[k] == B_DONE) {
            s += wanted[k][j];
            size += fabs(wanted[k][j]);
          }
        if (size < HUGE_VAL)
          CHECK(fabs(s - again[j]) <= size * (double)n * 0x1p-52);
      }
    }
}

static void programs(int number, int smoothly) {
  static Function f;
  long rows = 0, missed = 0, full = 0, traces = 0;
  for (int k = 0; k < number; k++) {
    Prog p;
    Code c;
    Alone one;
    const size_t n = k % 7 == 0 ? below(3) : 1 + below(N);
    uint8_t shared[NVAR] = {0};
    double y[NVAR];
    make_function(&f, smoothly);
    if (k % 3 == 1) shared[below(NVAR)] = 1;
    for (size_t i = 0; i < N; i++)
      for (int j = 0; j < NVAR; j++)
        in[i][j] = shared[j] && i > 0 ? in[0][j]
                   : below(20) == 0   ? (double)below(3) - 1
                                      : uniform(-3, 3);
    CHECK(ad_proginit(&p, allocate, NULL, NVAR));
    for (size_t i = 0; i < n + 1 && i < N; i++)
      if (below(4) != 0) CHECK(run_function(&f, &p, in[i], y));
    if (p.ntrace == 0) run_function(&f, &p, in[0], y);
    traces += p.ntrace;
    CHECK(ad_lower(&p, &c, k % 2 ? P_PLAIN : 0));
    start(&one, &c, 12);
    for (size_t i = 0; i < n; i++) {
      wstate[i] = (uint8_t)alone(&one, in[i], wanted[i]);
      if (wstate[i] == B_DONE && !smoothly) { /* and what the function does */
        run_function(&f, NULL, in[i], y);
        for (int j = 0; j < NVAR; j++) CHECK(same(y[j], wanted[i][j]));
      }
    }
    stop(&one);
    for (int way = 0; way <= 2 * V_LEVELS + 1; way++) {
      const int level = way / 2;
      int got;
      points = V_POINTS >> below(4);
      features = way % 2 ? ad_nativefeatures() : -1;
      got = batch(&c, shared, level, 1 + (int)below(3), n, 12, NULL);
      CHECK(got != -1);
      if (got != 1) continue;
      if (smoothly && way == 0) { /* other ways like the first */
        for (size_t i = 0; i < n; i++) {
          wstate[i] = state[i];
          memcpy(wanted[i], out[i], sizeof out[i]);
        }
      }
      for (size_t i = 0; i < n; i++) {
        CHECK(state[i] == wstate[i]);
        rows++;
        missed += state[i] == B_MISSED;
        full += state[i] == B_FULL;
        if (state[i] != B_DONE || wstate[i] != B_DONE) continue;
        for (int j = 0; j < NVAR; j++) CHECK(same(out[i][j], wanted[i][j]));
      }
    }
    features = -1;
    if (!smoothly) {
      points = k % 4 == 0 ? 0 : V_POINTS >> below(4);
      start(&one, &c, 64);
      for (size_t i = 0; i < n; i++)
        wstate[i] = (uint8_t)alone(&one, in[i], wanted[i]);
      stop(&one);
      sums(&c, shared, n);
    }
    points = 0;
    ad_codefree(&c);
    ad_progfree(&p);
    if (failures) {
      printf("program %d\n", k);
      break;
    }
  }
  printf("%d programs, %ld traces, %ld rows, %ld missed, %ld full\n", number,
         traces, rows, missed, full);
  CHECK(number < 50 || (missed > 0 && traces > number && full > 0));
}

/* smooth programs agree with the points alone to some units */
static void close(int number) {
  static Function f;
  long far = 0, all = 0;
  for (int k = 0; k < number; k++) {
    Prog p;
    Code c;
    Alone one;
    uint8_t shared[NVAR] = {0};
    double y[NVAR];
    make_function(&f, 1);
    for (size_t i = 0; i < 64; i++)
      for (int j = 0; j < NVAR; j++) in[i][j] = uniform(-3, 3);
    CHECK(ad_proginit(&p, allocate, NULL, NVAR));
    for (size_t i = 0; i < 64; i++) run_function(&f, &p, in[i], y);
    CHECK(ad_lower(&p, &c, 0));
    start(&one, &c, 64);
    CHECK(batch(&c, shared, 0, 1, 64, 64, NULL) == 1);
    for (size_t i = 0; i < 64; i++) {
      if (alone(&one, in[i], y) != B_DONE || state[i] != B_DONE) continue;
      for (int j = 0; j < NVAR; j++) {
        all++; /* conditions may be bad: few are far */
        far += !(ulps(y[j], out[i][j]) < 1e4);
      }
    }
    stop(&one);
    ad_codefree(&c);
    ad_progfree(&p);
  }
  CHECK(far * 20 < all);
}

/*
** The functions on all levels against long double, which must be more.
*/
static long double sigmoidl(long double x) { return 1 / (1 + expl(-x)); }

static long double softplusl(long double x) {
  return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x));
}

static const struct {
  int op;
  long double (*f)(long double);
  double lo, hi;
} functions[] = {{OP_exp, expl, -708, 708},
                 {OP_exp, expl, -2, 2},
                 {OP_exp, expl, -760, 720},
                 {OP_exp2, exp2l, -3, 3},
                 {OP_exp2, exp2l, -1080, 1030},
                 {OP_expm1, expm1l, -2, 2},
                 {OP_expm1, expm1l, -50, 715},
                 {OP_log, logl, 0.3, 3},
                 {OP_log, logl, 0, 1e300},
                 {OP_log, logl, 0, 1e-300},
                 {OP_log1p, log1pl, -0.999, 3},
                 {OP_log1p, log1pl, -0.01, 0.01},
                 {OP_log1p, log1pl, 0, 1e17},
                 {OP_log2, log2l, 0.3, 3},
                 {OP_log2, log2l, 0, 1e30},
                 {OP_log10, log10l, 0.3, 3},
                 {OP_log10, log10l, 0, 1e30},
                 {OP_sin, sinl, -4, 4},
                 {OP_sin, sinl, -1e6, 1e6},
                 {OP_sin, sinl, -1e9, 1e9},
                 {OP_cos, cosl, -4, 4},
                 {OP_cos, cosl, -1e6, 1e6},
                 {OP_cos, cosl, -1e9, 1e9},
                 {OP_tan, tanl, -4, 4},
                 {OP_tan, tanl, -1e6, 1e6},
                 {OP_sinh, sinhl, -1, 1},
                 {OP_sinh, sinhl, -715, 715},
                 {OP_cosh, coshl, -1, 1},
                 {OP_cosh, coshl, -715, 715},
                 {OP_tanh, tanhl, -1, 1},
                 {OP_tanh, tanhl, -30, 30},
                 {OP_sigmoid, sigmoidl, -3, 3},
                 {OP_sigmoid, sigmoidl, -708, 708},
                 {OP_softplus, softplusl, -3, 3},
                 {OP_softplus, softplusl, -708, 708}};

static double off(double y, long double right) {
  int e;
  if ((double)right == y || (y != y && right != right)) return 0;
  if (!isfinite((double)right)) return HUGE_VAL;
  frexp((double)right, &e);
  return (double)(fabsl((long double)y - right) /
                  ldexpl(1, e < -1021 ? -1074 : e - 53));
}

static const double special[] = {0.0,
                                 -0.0,
                                 HUGE_VAL,
                                 -HUGE_VAL,
                                 NAN,
                                 DBL_MIN,
                                 -DBL_MIN,
                                 5e-324,
                                 -5e-324,
                                 DBL_MAX,
                                 -DBL_MAX,
                                 1,
                                 -1,
                                 1e22,
                                 -1e22,
                                 709.78,
                                 -745.2,
                                 -746,
                                 710.5,
                                 1e-17,
                                 -1e-17,
                                 3.14159265358979323846,
                                 1.5707963267948966,
                                 6.283185307179586,
                                 0.5625,
                                 0.34657359027997264,
                                 2,
                                 -2,
                                 3,
                                 -3,
                                 0.5,
                                 1e-300,
                                 -0.9999999999999999,
                                 1000,
                                 8,
                                 1024,
                                 707.9999,
                                 22,
                                 -22,
                                 1048576,
                                 1048577,
                                 4503599627370497.0};

#define NSPECIAL (sizeof special / sizeof *special)

/* is there a reference? valgrind computes with doubles instead */
static int longer(void) {
  const volatile long double one = 1;
  return LDBL_MANT_DIG >= 64 && one + 0x1p-60L != one;
}

static void accuracy(int blocks) {
  static _Alignas(64) double v[3 * V_POINTS];
  const int exactly = longer();
  double most = 0;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    const uint64_t start = seed_;
    double worst = 0;
    static double first[64][V_POINTS];
    for (int level = 1; level <= V_LEVELS; level++) {
      const Vlevel *l = ad_vlevel(level);
      const Ins ins = {(uint16_t)functions[i].op, 0, V_POINTS, 0, 0, 0};
      if (l == NULL) continue;
      seed_ = start;
      for (int b = 0; b < blocks; b++) {
        for (int k = 0; k < V_POINTS; k++)
          v[k] = uniform(functions[i].lo, functions[i].hi);
        CHECK(l->run(&ins, &ins + 1, v, NULL, NULL, V_POINTS) == &ins + 1);
        if (level == lowest && b < 64)
          memcpy(first[b], v + V_POINTS, sizeof *first);
        if (b < 64)
          for (int k = 0; k < V_POINTS; k++)
            CHECK(same(v[V_POINTS + k], first[b][k]));
        if (level != lowest) continue;
        for (int k = 0; k < V_POINTS; k++) {
          const double d = off(v[V_POINTS + k], functions[i].f(v[k]));
          if (d > worst) worst = d;
        }
      }
    }
    if (exactly && !(worst < 2)) {
      printf("%s: %g units\n", ad_insname(functions[i].op), worst);
      failures++;
    }
    if (worst > most) most = worst;
  }
  printf("functions: at most %.2f units off\n", most);
}

static void powers(int blocks) {
  static _Alignas(64) double v[3 * V_POINTS];
  double worst = 0;
  for (int b = 0; b < blocks; b++) {
    for (int level = 1; level <= V_LEVELS; level++) {
      static double first[V_POINTS];
      const Vlevel *l = ad_vlevel(level);
      const Ins ins = {OP_pow, 0, 2 * V_POINTS, 0, V_POINTS, 0};
      if (l == NULL) continue;
      if (level == lowest)
        for (int k = 0; k < V_POINTS; k++) {
          v[k] = b % 3 == 0 ? uniform(0, 3) : exp(uniform(-20, 20));
          v[V_POINTS + k] = uniform(-700, 700) / fmax(fabs(log(v[k])), 0.5);
          if (b % 3 == 2) {
            v[k] = -v[k];
            v[V_POINTS + k] = rint(v[V_POINTS + k]);
          }
        }
      l->run(&ins, &ins + 1, v, NULL, NULL, V_POINTS);
      if (level == lowest) memcpy(first, v + 2 * V_POINTS, sizeof first);
      for (int k = 0; k < V_POINTS; k++) {
        const double d = off(v[2 * V_POINTS + k], powl(v[k], v[V_POINTS + k]));
        CHECK(same(first[k], v[2 * V_POINTS + k]));
        if (d > worst) worst = d;
      }
    }
  }
  if (longer()) CHECK(worst < 2);
  printf("powers: at most %.2f units off\n", worst);
}

/* special points like the C library: infinities, NaN, and the sign of zero */
static void specials(void) {
  static _Alignas(64) double v[4 * V_POINTS];
  for (int level = 1; level <= V_LEVELS; level++) {
    const Vlevel *l = ad_vlevel(level);
    if (l == NULL) continue;
    for (int op = 0; op < OP_list_sum; op++) {
      const int n = ad_insarity(op);
      for (size_t i = 0; i < (n == 1 ? 1 : NSPECIAL); i++)
        for (int flags = 0; flags < 1 << n; flags++) {
          Ins ins = {(uint16_t)op, (uint16_t)flags, 3 * V_POINTS, 0,
                     V_POINTS,     2 * V_POINTS};
          for (int k = 0; k < V_POINTS; k++) {
            v[k] = special[(size_t)k % NSPECIAL];
            v[V_POINTS + k] = special[i];
            v[2 * V_POINTS + k] = special[(i * 7 + (size_t)k / 5) % NSPECIAL];
          }
          if (flags & 1) v[0] = special[(i + 3) % NSPECIAL];
          if (flags & 4) v[2 * V_POINTS] = special[(i + 5) % NSPECIAL];
          l->run(&ins, &ins + 1, v, NULL, NULL, V_POINTS);
          for (int k = 0; k < V_POINTS; k++) {
            const double x[3] = {v[flags & 1 ? 0 : k],
                                 v[V_POINTS + (flags & 2 ? 0 : k)],
                                 v[2 * V_POINTS + (flags & 4 ? 0 : k)]};
            const double y = ad_opvalue(op, x), got = v[3 * V_POINTS + k];
            if (!(ulps(y, got) <= 3) ||
                (y == 0 && signbit(y) != signbit(got)) ||
                (isnan(y) && !isnan(got))) {
              printf("%s: %s(%g, %g, %g) is %.17g, not %.17g\n", l->name,
                     ad_insname(op), x[0], x[1], x[2], got, y);
              failures++;
            }
          }
        }
    }
  }
}

/* the result in the place of an operand, and lists */
static void aliases(void) {
  static _Alignas(64) double v[5 * V_POINTS];
  double scratch[4];
  for (int level = 1; level <= V_LEVELS; level++) {
    const Vlevel *l = ad_vlevel(level);
    if (l == NULL) continue;
    for (int op = 0; op < OP_count; op++)
      for (uint32_t d = 0; d < 4; d++) {
        uint32_t list[4] = {0, V_POINTS, 2 * V_POINTS,
                            4 * V_POINTS | V_UNIFORM};
        Ins ins = {(uint16_t)op, 0, d * V_POINTS, 0, V_POINTS, 2 * V_POINTS};
        double copy[5 * V_POINTS];
        if (ad_islist(op)) ins.b = 4;
        for (int k = 0; k < 5 * V_POINTS; k++) v[k] = uniform(0.5, 2);
        if (op == OP_polygamma)
          for (int k = 0; k < V_POINTS; k++) v[k] = 1;
        memcpy(copy, v, sizeof copy);
        l->run(&ins, &ins + 1, v, list, scratch, V_POINTS);
        for (int k = 0; k < V_POINTS; k++) {
          const double x[4] = {copy[k], copy[V_POINTS + k],
                               copy[2 * V_POINTS + k], copy[4 * V_POINTS]};
          const double y =
              ad_islist(op) ? ad_nvalue(op, 4, x) : ad_opvalue(op, x);
          CHECK(ulps(y, v[d * V_POINTS + (uint32_t)k]) <= 3);
        }
      }
  }
}

/* every allocation fails once; with threads too */
static void memory(void) {
  static Function f;
  Prog p;
  Code c;
  const uint8_t shared[NVAR] = {0};
  double y[NVAR];
  long before;
  int stack = 0;
  CHECK(ad_proginit(&p, allocate, NULL, NVAR));
  while (!stack) {
    ad_progfree(&p);
    CHECK(ad_proginit(&p, allocate, NULL, NVAR));
    make_function(&f, 0);
    for (size_t i = 0; i < N; i++) {
      for (int j = 0; j < NVAR; j++) in[i][j] = uniform(-3, 3);
      run_function(&f, &p, in[i], y);
    }
    for (uint32_t k = 0; k < p.nins; k++) stack |= p.ins[k].op == P_PUSH;
    stack &= p.ntrace > 3;
  }
  CHECK(ad_lower(&p, &c, 0));
  before = inuse;
  for (int way = 0; way < 8; way++)
    for (long n = 0;; n++) {
      long left;
      double total[NVAR];
      int got;
      features = way & 4 ? ad_nativefeatures() : -1;
      countdown = n;
      got = batch(&c, shared, 0, way & 2 ? 3 : 1, N, 1000,
                  way & 1 ? total : NULL);
      left = countdown;
      countdown = features = -1;
      CHECK(inuse == before);
      CHECK(got == (left >= 0 ? 1 : -1));
      if (left >= 0) break;
    }
  ad_codefree(&c);
  ad_progfree(&p);
}

/* another form of the results, or rows in another order */
static void forms(void) {
  Prog p;
  Code c;
  Batch b;
  BatchRun r;
  Column ci = {&in[0][0], NVAR}, co = {&out[0][0], NVAR};
  const uint32_t zero = 0, none = P_NONE;
  const double seven = 7;
  Returned form[2];
  uint32_t rows[100];
  const uint8_t shared[1] = {0};
  uint32_t k;
  for (size_t i = 0; i < 200; i++) in[i][0] = (double)i - 100;
  CHECK(ad_proginit(&p, allocate, NULL, 1));
  k = ad_progconst(&p, 0);
  for (int side = 0; side < 2; side++) {
    ad_recstart(&p);
    CHECK(ad_recif(&p, P_LT, 0, k, side, 0) == 0);
    CHECK(ad_recreturn(&p, (uint32_t)side, 1, &zero) == 0);
  }
  CHECK(ad_lower(&p, &c, 0));
  CHECK(ad_batchinit(&b, &c, shared, 0, allocate, NULL));
  memset(&r, 0, sizeof r);
  r.n = 100;
  r.rows = rows;
  r.in = &ci;
  r.out = &co;
  r.nout = 1;
  r.form = form;
  r.nform = 2;
  r.state = state;
  for (uint32_t i = 0; i < 100; i++) {
    rows[i] = 199 - 2 * i;
    out[199 - 2 * i][0] = -1;
  }
  memset(form, 0, sizeof form);
  form[1] = returned(1);
  CHECK(ad_batchrun(&b, &r) && r.ndone == 50);
  for (uint32_t i = 0; i < 100; i++) {
    CHECK(state[i] == (in[rows[i]][0] < 0 ? B_DONE : B_FORM));
    CHECK(out[rows[i]][0] == (state[i] == B_DONE ? in[rows[i]][0] : -1));
  }
  form[0].n = 1; /* a constant on the other side */
  form[0].from = &none;
  form[0].value = &seven;
  CHECK(ad_batchrun(&b, &r) && r.ndone == 100);
  for (uint32_t i = 0; i < 100; i++)
    CHECK(out[rows[i]][0] == (in[rows[i]][0] < 0 ? in[rows[i]][0] : 7));
  ad_batchfree(&b);
  ad_codefree(&c);
  ad_progfree(&p);
}

/* a frame so large that machine code is for fewer points: the same sums and
   numbers nevertheless, also where memory is lacking for it */
#define MANY 3000
#define ROWS 1100

static void large(void) {
  static double x[ROWS][2], sum[2][MANY], y[2][ROWS][MANY];
  static Column co[MANY];
  static uint32_t result[MANY], from[MANY];
  static uint8_t ends[ROWS];
  const Column ci[2] = {{&x[0][0], 2}, {&x[0][1], 2}};
  const Returned form = {MANY, from, NULL};
  const uint8_t shared[2] = {0};
  const int have = ad_nativefeatures();
  const char *why;
  Prog p;
  Code c;
  Batch b;
  BatchRun r;
  for (size_t i = 0; i < ROWS; i++)
    for (int j = 0; j < 2; j++) x[i][j] = uniform(-3, 3);
  CHECK(ad_proginit(&p, allocate, NULL, 2));
  ad_recstart(&p);
  for (uint32_t j = 0; j < MANY; j++) {
    const uint32_t k = ad_progconst(&p, uniform(-1, 1));
    const uint32_t m = ad_recop(&p, OP_mul, 0, k, 0);
    result[j] = ad_recop(&p, j % 100 ? OP_add : OP_pow, m, 1, 0);
    from[j] = j;
  }
  CHECK(ad_recreturn(&p, 0, MANY, result) == 0);
  CHECK(ad_lower(&p, &c, 0));
  memset(&r, 0, sizeof r);
  r.n = ROWS;
  r.in = ci;
  r.out = co;
  r.nout = MANY;
  r.form = &form;
  r.nform = 1;
  r.state = ends;
  for (int native = 0; native < 2; native++) {
    CHECK(ad_batchinit(&b, &c, shared, 0, allocate, NULL));
    CHECK(b.points == V_POINTS);
    if (native) {
      countdown = 1;
      CHECK(!ad_batchnative(&b, have, &why));
      CHECK(b.points == V_POINTS && (why != NULL || countdown < 0));
      countdown = -1;
      CHECK(ad_batchnative(&b, have, &why) || why != NULL);
      CHECK(b.vectors == NULL || b.points < V_POINTS);
    }
    for (r.sum = 0; r.sum < 2; r.sum++) {
      for (uint32_t j = 0; j < MANY; j++) {
        co[j].at = r.sum ? &sum[native][j] : &y[native][0][j];
        co[j].stride = MANY;
      }
      CHECK(ad_batchrun(&b, &r) && r.ndone == ROWS);
    }
    ad_batchfree(&b);
  }
  for (uint32_t j = 0; j < MANY; j++) {
    CHECK(same(sum[0][j], sum[1][j]));
    for (size_t i = 0; i < ROWS; i++) CHECK(same(y[0][i][j], y[1][i][j]));
  }
  ad_codefree(&c);
  ad_progfree(&p);
}

int main(int argc, char **argv) {
  for (lowest = 1; ad_vlevel(lowest) == NULL;) lowest++;
  const int n = argc > 1 ? atoi(argv[1]) : 300;
  specials();
  aliases();
  accuracy(n);
  powers(n);
  programs(n, 0);
  programs(n / 3, 1);
  close(n / 3);
  forms();
  large();
  if (n >= 100) memory();
  CHECK(inuse == 0);
  printf("%s\n", failures ? "failed" : "batches are right");
  return failures != 0;
}
