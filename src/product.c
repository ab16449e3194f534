/*
** product.c
** Products of matrices: by BLAS where there is one, by loops of our own where
** there is none or where the matrices are too small for it to matter. Plain
** kernels for autodiff/product.lua.
*/
#include <limits.h>
#include <string.h>

#include "array.h"
#include "blas.h"

/* a matrix, its strides in elements */
typedef struct Mat {
  const double *p;
  ptrdiff_t rs, cs;
} Mat;

/*
** Loops
*/

/* multiplications below which a call of BLAS costs more than it saves */
#define TINY 256

static void tiny(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, Mat a, Mat b,
                 double *c) {
  for (ptrdiff_t i = 0; i < m; i++)
    for (ptrdiff_t j = 0; j < n; j++) {
      const double *x = a.p + i * a.rs, *y = b.p + j * b.cs;
      double s = 0;
      for (ptrdiff_t l = 0; l < k; l++) s += x[l * a.cs] * y[l * b.rs];
      *c++ = s;
    }
}

/*
** Blocks of b that stay in the second level of the cache and four rows of
** the result at a time: b.cs is 1, c is contiguous.
*/
#define KBLOCK 128
#define NBLOCK 256

static void loops(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, Mat a, Mat b,
                  double *c) {
  for (ptrdiff_t i = 0; i < m * n; i++) c[i] = 0;
  for (ptrdiff_t l0 = 0; l0 < k; l0 += KBLOCK)
    for (ptrdiff_t j0 = 0; j0 < n; j0 += NBLOCK) {
      const ptrdiff_t l1 = k - l0 < KBLOCK ? k : l0 + KBLOCK,
                      w = n - j0 < NBLOCK ? n - j0 : NBLOCK;
      ptrdiff_t i = 0;
      for (; i + 4 <= m; i += 4) {
        double *restrict c0 = c + i * n + j0, *restrict c1 = c0 + n,
                         *restrict c2 = c1 + n, *restrict c3 = c2 + n;
        for (ptrdiff_t l = l0; l < l1; l++) {
          const double *x = a.p + i * a.rs + l * a.cs, *y = b.p + l * b.rs + j0;
          const double x0 = x[0], x1 = x[a.rs], x2 = x[2 * a.rs],
                       x3 = x[3 * a.rs];
          for (ptrdiff_t j = 0; j < w; j++) {
            c0[j] += x0 * y[j];
            c1[j] += x1 * y[j];
            c2[j] += x2 * y[j];
            c3[j] += x3 * y[j];
          }
        }
      }
      for (; i < m; i++) {
        double *restrict c0 = c + i * n + j0;
        for (ptrdiff_t l = l0; l < l1; l++) {
          const double x0 = a.p[i * a.rs + l * a.cs], *y = b.p + l * b.rs + j0;
          for (ptrdiff_t j = 0; j < w; j++) c0[j] += x0 * y[j];
        }
      }
    }
}

/*
** Operands for BLAS. A row-major matrix is the transpose of a column-major
** one: 'N' says that rows are contiguous, 'T' that columns are.
*/

static int layout(ptrdiff_t rows, ptrdiff_t cols, Mat a, char *trans, int *ld) {
  ptrdiff_t lead;
  if ((a.cs == 1 || cols == 1) && (rows == 1 || a.rs >= cols)) {
    *trans = 'N';
    lead = rows == 1 ? cols : a.rs;
  } else if ((a.rs == 1 || rows == 1) && (cols == 1 || a.cs >= rows)) {
    *trans = 'T';
    lead = cols == 1 ? rows : a.cs;
  } else
    return 0;
  *ld = (int)lead;
  return lead <= INT_MAX;
}

/* copied, if it cannot be handed over as it is */
typedef struct Pack {
  double *to;         /* NULL: not needed */
  const double *from; /* what is there now */
} Pack;

static Mat packed(ptrdiff_t rows, ptrdiff_t cols, Mat a, Pack *w) {
  Mat r;
  if (w->to == NULL) return a;
  if (w->from != a.p) { /* a repeated one is copied once */
    double *to = w->to;
    for (ptrdiff_t i = 0; i < rows; i++)
      for (ptrdiff_t j = 0; j < cols; j++) *to++ = a.p[i * a.rs + j * a.cs];
    w->from = a.p;
  }
  r.p = w->to;
  r.rs = cols;
  r.cs = 1;
  return r;
}

/* strides that BLAS takes for a vector of n elements */
static int vector(ptrdiff_t n, ptrdiff_t stride) {
  return n == 1 || (stride > 0 && stride <= INT_MAX);
}

static int increment(ptrdiff_t n, ptrdiff_t stride) {
  return n == 1 ? 1 : (int)stride;
}

/* does BLAS have to be given a copy? */
static int mustpack(ptrdiff_t rows, ptrdiff_t cols, Mat a) {
  char trans;
  int ld;
  if (rows == 1 && vector(cols, a.cs)) return 0;
  if (cols == 1 && vector(rows, a.rs)) return 0;
  return !layout(rows, cols, a, &trans, &ld);
}

/* c = a b by BLAS; everything fits into its integers and its layouts */
static void byblas(const Blas *bl, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, Mat a,
                   Mat b, double *c) {
  const double one = 1, zero = 0;
  const int im = (int)m, in = (int)n, ik = (int)k, unit = 1;
  char ta = 'N', tb = 'N';
  int lda = 1, ldb = 1;
  if (m == 1 && n == 1) {
    const int ia = increment(k, a.cs), ib = increment(k, b.rs);
    *c = bl->ddot(&ik, a.p, &ia, b.p, &ib);
  } else if (n == 1) {
    const int ib = increment(k, b.rs);
    layout(m, k, a, &ta, &lda);
    for (ptrdiff_t i = 0; i < m; i++) c[i] = 0;
    if (ta == 'N')
      bl->dgemv("T", &ik, &im, &one, a.p, &lda, b.p, &ib, &zero, c, &unit, 1);
    else
      bl->dgemv("N", &im, &ik, &one, a.p, &lda, b.p, &ib, &zero, c, &unit, 1);
  } else if (m == 1) {
    const int ia = increment(k, a.cs);
    layout(k, n, b, &tb, &ldb);
    for (ptrdiff_t i = 0; i < n; i++) c[i] = 0;
    if (tb == 'N')
      bl->dgemv("N", &in, &ik, &one, b.p, &ldb, a.p, &ia, &zero, c, &unit, 1);
    else
      bl->dgemv("T", &ik, &in, &one, b.p, &ldb, a.p, &ia, &zero, c, &unit, 1);
  } else {
    layout(m, k, a, &ta, &lda);
    layout(k, n, b, &tb, &ldb);
    bl->dgemm(&tb, &ta, &in, &im, &ik, &one, b.p, &ldb, a.p, &lda, &zero, c,
              &in, 1, 1);
  }
}

/* room for a copy; pushes one slot */
static void room(lua_State *L, Pack *w, int needed, ptrdiff_t rows,
                 ptrdiff_t cols) {
  w->to = NULL;
  w->from = NULL;
  if (needed) {
    /* an array of that size exists, unless it repeats its elements */
    if (cols != 0 && (size_t)rows > SIZE_MAX / sizeof(double) / (size_t)cols)
      ad_error(L, "array is too large");
    w->to =
        lua_newuserdatauv(L, (size_t)rows * (size_t)cols * sizeof(double), 0);
  } else
    lua_pushnil(L);
}

static int disagree(lua_State *L, const Array *a, const Array *b) {
  return ad_error(L, "matmul: shapes %s and %s do not align",
                  ad_shapetext(L, a->ndim, a->shape),
                  ad_shapetext(L, b->ndim, b->shape));
}

/* m x n from its first row, or its first column, which stands in c */
static void repeatrow(ptrdiff_t m, ptrdiff_t n, double *c) {
  for (ptrdiff_t i = 1; i < m; i++) memcpy(c + i * n, c, (size_t)n * sizeof *c);
}

static void repeatcolumn(ptrdiff_t m, ptrdiff_t n, double *c) {
  for (ptrdiff_t i = m - 1; i >= 0; i--) {
    const double x = c[i];
    for (ptrdiff_t j = 0; j < n; j++) c[i * n + j] = x;
  }
}

/*
** matmul(a, b): the last two dimensions are matrices, those before them are
** broadcast; a vector is a row on the left and a column on the right.
*/
static int l_matmul(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1), *b = ad_checkarray(L, S, 2);
  const int na = a->ndim, nb = b->ndim;
  ptrdiff_t shape[AD_MAXDIM + 1] = {0}, sa[AD_MAXDIM] = {0},
                              sb[AD_MAXDIM] = {0}, index[AD_MAXDIM] = {0};
  ptrdiff_t m, n, k, mc, nc; /* mc, nc: what is computed */
  Mat x, y;
  Array batch;
  int nbatch, ndim;
  Pack px, py;
  const Blas *bl;
  int tinyone, plain;
  double vectors, *c = &vectors;
  lua_settop(L, 2);
  m = na == 1 ? 1 : a->shape[na - 2];
  k = a->shape[na - 1];
  n = nb == 1 ? 1 : b->shape[nb - 1];
  x.p = a->data;
  x.rs = na == 1 ? 0 : a->stride[na - 2];
  x.cs = a->stride[na - 1];
  y.p = b->data;
  y.rs = b->stride[nb == 1 ? 0 : nb - 2];
  y.cs = nb == 1 ? 0 : b->stride[nb - 1];
  if (b->shape[nb == 1 ? 0 : nb - 2] != k) return disagree(L, a, b);
  nbatch = na > 2 ? na - 2 : 0;
  memcpy(shape, a->shape, sizeof shape[0] * (size_t)nbatch);
  if (nb > 2 && !ad_broadcast(&nbatch, shape, nb - 2, b->shape))
    return disagree(L, a, b);
  if (na > 2) {
    batch = *a;
    batch.ndim = na - 2;
    ad_strides(&batch, nbatch, shape, sa);
  }
  if (nb > 2) {
    batch = *b;
    batch.ndim = nb - 2;
    ad_strides(&batch, nbatch, shape, sb);
  }
  ndim = nbatch;
  if (na > 1) shape[ndim++] = m;
  if (nb > 1) shape[ndim++] = n;
  if (ndim > 0) {
    const Array *out = ad_newarray(L, S, ndim, shape);
    if (out->size == 0) return 1;
    c = out->data;
  }
  /* rows of a batch that share b are rows of one matrix */
  while (nbatch > 0 && na > 1 &&
         (sb[nbatch - 1] == 0 || shape[nbatch - 1] == 1) &&
         (m == 1 || shape[nbatch - 1] == 1 || sa[nbatch - 1] == x.rs * m)) {
    if (shape[nbatch - 1] != 1) {
      if (m == 1) x.rs = sa[nbatch - 1];
      m *= shape[nbatch - 1];
    }
    nbatch--;
  }
  /* equal rows of a, or columns of b, as in the gradient of a sum */
  mc = x.rs == 0 ? 1 : m;
  nc = y.cs == 0 && mc == m ? 1 : n;
  bl = ad_blas(L, S);
  tinyone = k == 0 || (double)mc * (double)nc * (double)k <= TINY;
  plain = bl->name == NULL || mc > INT_MAX || nc > INT_MAX || k > INT_MAX;
  room(L, &px, !tinyone && !plain && mustpack(mc, k, x), mc, k);
  room(L, &py, !tinyone && (plain ? y.cs != 1 : mustpack(k, nc, y)), k, nc);
  for (;;) {
    int d;
    if (tinyone)
      tiny(mc, nc, k, x, y, c);
    else {
      const Mat u = packed(mc, k, x, &px), v = packed(k, nc, y, &py);
      if (plain)
        loops(mc, nc, k, u, v, c);
      else
        byblas(bl, mc, nc, k, u, v, c);
    }
    if (mc < m)
      repeatrow(m, n, c);
    else if (nc < n)
      repeatcolumn(m, n, c);
    c += m * n;
    for (d = nbatch - 1; d >= 0; d--) {
      x.p += sa[d];
      y.p += sb[d];
      if (++index[d] < shape[d]) break;
      index[d] = 0;
      x.p -= sa[d] * shape[d];
      y.p -= sb[d] * shape[d];
    }
    if (d < 0) break;
  }
  if (ndim == 0)
    lua_pushnumber(L, vectors);
  else
    lua_pushvalue(L, 3);
  return 1;
}

/*
** diagonal(a, i, j): a view without dimension j, which runs along with i
** (both counted from 1)
*/
static int l_diagonal(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const int i = (int)ad_checkaxis(L, 2, a->ndim),
            j = (int)ad_checkaxis(L, 3, a->ndim);
  Array *v = ad_ownview(L, S, 1);
  v->stride[i] += v->stride[j];
  v->ndim--;
  for (int d = j; d < v->ndim; d++) {
    v->shape[d] = v->shape[d + 1];
    v->stride[d] = v->stride[d + 1];
  }
  ad_resize(L, v);
  return 1;
}

/* undiagonal(shape, i, j, g): zeros with g where diagonal looks */
static int l_undiagonal(lua_State *L) {
  State *S = ad_state(L);
  ptrdiff_t shape[AD_MAXDIM];
  const Array *g = ad_checkarray(L, S, 4);
  Array *a, v;
  int ndim, i, j;
  luaL_checktype(L, 1, LUA_TTABLE);
  ndim = ad_checkshape(L, 1, shape);
  i = (int)ad_checkaxis(L, 2, ndim);
  j = (int)ad_checkaxis(L, 3, ndim);
  a = ad_newarray(L, S, ndim, shape);
  for (size_t at = 0; at < a->size; at++) a->data[at] = 0;
  v = *a;
  v.stride[i] += v.stride[j];
  v.ndim--;
  for (int d = j; d < v.ndim; d++) {
    v.shape[d] = v.shape[d + 1];
    v.stride[d] = v.stride[d + 1];
  }
  ad_resize(L, &v);
  ad_copyelements(&v, g);
  return 1;
}

/* blas(): names of the libraries in use, nil where there is none */
static int l_blas(lua_State *L) {
  const Blas *b = ad_blas(L, ad_state(L));
  lua_pushstring(L, b->name);
  lua_pushstring(L, b->lapack);
  return 2;
}

void ad_openproduct(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"matmul", l_matmul},
                                {"diagonal", l_diagonal},
                                {"undiagonal", l_undiagonal},
                                {"blas", l_blas},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
