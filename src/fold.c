/*
** fold.c
** Two ways through the memory. Where the dimension that runs fastest is
** reduced, each result is folded by itself, in runs. Where it stays, a row of
** results is folded at a time, row onto row, so that both read in order.
**
** Either way partial results of about equal size are folded together: those
** of 2^l blocks wait at level l, as the bits of a binary counter. The error
** of a sum grows with the logarithm of its length.
*/
/*
** One version of each loop here: gcc would make another for strides that
** happen to be 1, and be no faster.
*/
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 10
#pragma GCC optimize("no-version-loops-for-strides")
#endif

#include "fold.h"
#include "vmath.h"

#include <math.h>
#include <string.h>

#define LANES 32   /* results side by side, for the compiler to vectorise */
#define RUN 512    /* elements folded in one go */
#define BLOCK 128  /* least number of elements of a block */
#define WIDTH 256  /* results of a row that are folded together */
#define ROWS 64    /* rows of a block */
#define LEVELS 48  /* for single results */
#define RLEVELS 20 /* for rows: the last level takes all that is beyond */

typedef struct Folder {
  double start;
  /* of n elements with stride s */
  double (*run)(size_t n, const double *x, ptrdiff_t s, double c);
  /* of rows with stride rs, of w elements with stride s */
  void (*rows)(size_t w, double *restrict acc, const double *x, ptrdiff_t s,
               size_t n, ptrdiff_t rs, const double *restrict c);
  double (*join)(double a, double b);
  void (*merge)(size_t w, double *restrict acc, const double *restrict b);
} Folder;

#define FOLD(name, START, MAP, JOIN)                                           \
  static double join_##name(double a, double b) { return JOIN(a, b); }         \
                                                                               \
  static void merge_##name(size_t w, double *restrict acc,                     \
                           const double *restrict b) {                         \
    for (size_t j = 0; j < w; j++) acc[j] = JOIN(b[j], acc[j]);                \
  }                                                                            \
                                                                               \
  static void rows_##name(size_t w, double *restrict acc, const double *x,     \
                          ptrdiff_t s, size_t n, ptrdiff_t rs,                 \
                          const double *restrict c) {                          \
    size_t r = 0;                                                              \
    (void)c;                                                                   \
    if (s == 1)                                                                \
      for (; r + 4 <= n; r += 4, x += 4 * rs) {                                \
        const double *x1 = x + rs, *x2 = x1 + rs, *x3 = x2 + rs;               \
        for (size_t j = 0; j < w; j++)                                         \
          acc[j] =                                                             \
              JOIN(acc[j], JOIN(JOIN(MAP(x[j], c[j]), MAP(x1[j], c[j])),       \
                                JOIN(MAP(x2[j], c[j]), MAP(x3[j], c[j]))));    \
      }                                                                        \
    for (; r < n; r++, x += rs)                                                \
      for (size_t j = 0; j < w; j++)                                           \
        acc[j] = JOIN(acc[j], MAP(x[(ptrdiff_t)j * s], c[j]));                 \
  }                                                                            \
                                                                               \
  static double run_##name(size_t n, const double *x, ptrdiff_t s, double c) { \
    double t[LANES], cs[LANES];                                                \
    size_t i = 0;                                                              \
    if (n < LANES) {                                                           \
      double r = START;                                                        \
      for (; i < n; i++, x += s) r = JOIN(r, MAP(*x, c));                      \
      return r;                                                                \
    }                                                                          \
    for (int l = 0; l < LANES; l++) t[l] = START, cs[l] = c;                   \
    i = n / LANES;                                                             \
    rows_##name(LANES, t, x, s, i, LANES *s, cs);                              \
    x += (ptrdiff_t)i * LANES * s;                                             \
    for (int l = 0; l < (int)(n % LANES); l++, x += s)                         \
      t[l] = JOIN(t[l], MAP(*x, c));                                           \
    for (int h = LANES / 2; h > 0; h /= 2)                                     \
      for (int l = 0; l < h; l++) t[l] = JOIN(t[l], t[l + h]);                 \
    return t[0];                                                               \
  }

#define ELEMENT(x, c) (x)
static inline double plus(double a, double b) { return a + b; }
static inline double times(double a, double b) { return a * b; }
/* a NaN stays */
static inline double larger(double a, double b) {
  return a > b || a != a ? a : b;
}
static inline double smaller(double a, double b) {
  return a < b || a != a ? a : b;
}
static inline double square(double x, double c) { return (x - c) * (x - c); }
static inline double scaled(double x, double c) { return x / c * (x / c); }
static inline double equal(double x, double c) {
  return x == c || (x != x && c != c);
}

FOLD(sum, 0.0, ELEMENT, plus)
FOLD(prod, 1.0, ELEMENT, times)
FOLD(max, -HUGE_VAL, ELEMENT, larger)
FOLD(min, HUGE_VAL, ELEMENT, smaller)
FOLD(square, 0.0, square, plus)
FOLD(scaled, 0.0, scaled, plus)
FOLD(equal, 0.0, equal, plus)

/* sums of exponentials: these first, for as many as are added in one go */

static double shifted(double x, double c) {
  return isinf(c) ? (x == c ? 0 : -HUGE_VAL) : x - c;
}

static void exponentials(size_t n, double *x) {
  const double *const at[] = {x};
  ad_points(ad_vlevel(0)->function(OP_exp), 1, n, x, at);
}

static double run_exp(size_t n, const double *x, ptrdiff_t s, double c) {
  double y[RUN];
  for (size_t i = 0; i < n; i++) y[i] = shifted(x[(ptrdiff_t)i * s], c);
  exponentials(n, y);
  return run_sum(n, y, 1, 0);
}

static void rows_exp(size_t w, double *restrict acc, const double *x,
                     ptrdiff_t s, size_t n, ptrdiff_t rs,
                     const double *restrict c) {
  double y[4 * WIDTH]; /* so many rows are added at a time */
  for (size_t r = 0; r < n; r += 4) {
    const size_t m = n - r < 4 ? n - r : 4;
    for (size_t i = 0; i < m; i++, x += rs)
      for (size_t j = 0; j < w; j++)
        y[i * w + j] = shifted(x[(ptrdiff_t)j * s], c[j]);
    exponentials(m * w, y);
    rows_sum(w, acc, y, 1, m, (ptrdiff_t)w, c);
  }
}

#define join_exp join_sum
#define merge_exp merge_sum

#define FOLDER(name, START)                                                    \
  { START, run_##name, rows_##name, join_##name, merge_##name }
/* in the order of ad_Fold */
static const Folder folder[] = {FOLDER(sum, 0.0),       FOLDER(prod, 1.0),
                                FOLDER(max, -HUGE_VAL), FOLDER(min, HUGE_VAL),
                                FOLDER(square, 0.0),    FOLDER(scaled, 0.0),
                                FOLDER(exp, 0.0),       FOLDER(equal, 0.0)};

/*
** Dimensions, those that run slowest first
*/

typedef struct Dims {
  int n;
  ptrdiff_t shape[AD_FOLDDIM], in[AD_FOLDDIM], out[AD_FOLDDIM];
} Dims;

static ptrdiff_t magnitude(ptrdiff_t s) { return s < 0 ? -s : s; }

static void adddim(Dims *d, ptrdiff_t shape, ptrdiff_t in, ptrdiff_t out) {
  int at = d->n;
  if (shape == 1) return;
  for (; at > 0 && magnitude(d->in[at - 1]) < magnitude(in); at--) {
    d->shape[at] = d->shape[at - 1];
    d->in[at] = d->in[at - 1];
    d->out[at] = d->out[at - 1];
  }
  d->shape[at] = shape;
  d->in[at] = in;
  d->out[at] = out;
  d->n++;
}

/* neighbours that run on become one; there is at least one */
static void join(Dims *d) {
  int n = 0;
  for (int k = 0; k < d->n; k++) {
    if (n > 0 && d->in[n - 1] == d->in[k] * d->shape[k] &&
        d->out[n - 1] == d->out[k] * d->shape[k])
      d->shape[n - 1] *= d->shape[k];
    else
      d->shape[n++] = d->shape[k];
    d->in[n - 1] = d->in[k];
    d->out[n - 1] = d->out[k];
  }
  if (n == 0) {
    d->shape[0] = 1;
    d->in[0] = d->out[0] = 0;
    n = 1;
  }
  d->n = n;
}

/* to the next place in all dimensions but the last; 0: that was all */
static int step(const Dims *d, ptrdiff_t *index, ptrdiff_t *in,
                ptrdiff_t *out) {
  for (int k = d->n - 2; k >= 0; k--) {
    *in += d->in[k];
    *out += d->out[k];
    if (++index[k] < d->shape[k]) return 1;
    index[k] = 0;
    *in -= d->in[k] * d->shape[k];
    *out -= d->out[k] * d->shape[k];
  }
  return 0;
}

/*
** One result
*/

typedef struct Counter {
  size_t blocks;
  double level[LEVELS];
} Counter;

static void count(const Folder *f, Counter *w, double v) {
  int l = 0;
  for (; w->blocks >> l & 1; l++) v = f->join(w->level[l], v);
  w->level[l] = v;
  w->blocks++;
}

static double single(const Folder *f, const Dims *red, const double *x,
                     double c) {
  const size_t len = (size_t)red->shape[red->n - 1];
  const ptrdiff_t s = red->in[red->n - 1];
  ptrdiff_t index[AD_FOLDDIM] = {0}, in = 0, out = 0;
  Counter w;
  double v = f->start;
  size_t have = 0;
  if (red->n == 1 && len <= RUN) return f->run(len, x, s, c);
  w.blocks = 0;
  do {
    for (size_t i = 0; i < len; i += RUN) {
      const size_t n = len - i < RUN ? len - i : RUN;
      v = f->join(v, f->run(n, x + in + (ptrdiff_t)i * s, s, c));
      have += n;
      if (have >= BLOCK) {
        count(f, &w, v);
        v = f->start;
        have = 0;
      }
    }
  } while (step(red, index, &in, &out));
  for (int l = 0; w.blocks >> l; l++)
    if (w.blocks >> l & 1) v = f->join(w.level[l], v);
  return v;
}

/*
** A row of at most WIDTH results
*/

typedef struct RowCounter {
  size_t blocks;
  double level[RLEVELS][WIDTH];
} RowCounter;

static void countrow(const Folder *f, RowCounter *w, size_t n, double *row) {
  int l = 0;
  for (; l < RLEVELS - 1 && w->blocks >> l & 1; l++)
    f->merge(n, row, w->level[l]);
  if (l == RLEVELS - 1 && w->blocks >> l) f->merge(n, row, w->level[l]);
  memcpy(w->level[l], row, n * sizeof *row);
  w->blocks++;
}

static void together(const Folder *f, const Dims *red, size_t n,
                     const double *x, ptrdiff_t s, const double *c,
                     RowCounter *w, double *row) {
  const size_t len = (size_t)red->shape[red->n - 1];
  const ptrdiff_t rs = red->in[red->n - 1];
  ptrdiff_t index[AD_FOLDDIM] = {0}, in = 0, out = 0;
  size_t have = 0;
  w->blocks = 0;
  for (size_t j = 0; j < n; j++) row[j] = f->start;
  do {
    for (size_t i = 0; i < len; i += ROWS) {
      const size_t rows = len - i < ROWS ? len - i : ROWS;
      if (have >= ROWS) {
        countrow(f, w, n, row);
        for (size_t j = 0; j < n; j++) row[j] = f->start;
        have = 0;
      }
      f->rows(n, row, x + in + (ptrdiff_t)i * rs, s, rows, rs, c);
      have += rows;
    }
  } while (step(red, index, &in, &out));
  for (int l = 0; l < RLEVELS && w->blocks >> l; l++)
    if (w->blocks >> l & 1 || l == RLEVELS - 1) f->merge(n, row, w->level[l]);
}

static void rowwise(const Folder *f, const Dims *kept, const Dims *red,
                    const double *x, const double *c, double *y) {
  const ptrdiff_t len = kept->shape[kept->n - 1], s = kept->in[kept->n - 1],
                  so = kept->out[kept->n - 1];
  ptrdiff_t index[AD_FOLDDIM] = {0}, in = 0, out = 0;
  RowCounter w;
  double row[WIDTH], cs[WIDTH];
  do {
    for (ptrdiff_t j = 0; j < len; j += WIDTH) {
      const ptrdiff_t n = len - j < WIDTH ? len - j : WIDTH;
      for (ptrdiff_t k = 0; c != NULL && k < n; k++)
        cs[k] = c[out + (j + k) * so];
      together(f, red, (size_t)n, x + in + j * s, s, cs, &w, row);
      for (ptrdiff_t k = 0; k < n; k++) y[out + (j + k) * so] = row[k];
    }
  } while (step(kept, index, &in, &out));
}

static void onebyone(const Folder *f, const Dims *kept, const Dims *red,
                     const double *x, const double *c, double *y) {
  const int last = kept->n - 1;
  ptrdiff_t index[AD_FOLDDIM] = {0}, in = 0, out = 0;
  do {
    for (ptrdiff_t j = 0; j < kept->shape[last]; j++) {
      const ptrdiff_t at = out + j * kept->out[last];
      y[at] = single(f, red, x + in + j * kept->in[last], c ? c[at] : 0);
    }
  } while (step(kept, index, &in, &out));
}

void ad_fold(ad_Fold what, int ndim, const ptrdiff_t *shape,
             const ptrdiff_t *stride, const double *x, unsigned mask,
             const double *c, double *y) {
  const Folder *f = &folder[what];
  Dims kept, red;
  size_t results = 1, each = 1;
  ptrdiff_t run = 1;
  kept.n = red.n = 0;
  for (int d = ndim; d-- > 0;)
    if (mask >> d & 1)
      each *= (size_t)shape[d];
    else
      results *= (size_t)shape[d];
  if (results == 0) return;
  if (each == 0) {
    for (size_t i = 0; i < results; i++) y[i] = f->start;
    return;
  }
  /* from the last, so that equal strides keep their order reversed */
  for (int d = ndim; d-- > 0;)
    if (!(mask >> d & 1)) {
      adddim(&kept, shape[d], stride[d], run);
      run *= shape[d];
    } else
      adddim(&red, shape[d], stride[d], 0);
  join(&kept);
  join(&red);
  if (results > 1 &&
      (magnitude(kept.in[kept.n - 1]) < magnitude(red.in[red.n - 1]) ||
       (each <= 16 && kept.shape[kept.n - 1] >= 32)))
    rowwise(f, &kept, &red, x, c, y);
  else
    onebyone(f, &kept, &red, x, c, y);
}
