/*
** linalg.c
** Linear algebra by LAPACK, matrix by matrix over the dimensions before the
** last two. Plain kernels for autodiff/linalg.lua.
**
** LAPACK's matrices are column-major. What is row-major is the transpose of
** that, which most of what follows makes use of instead of transposing.
** Matrices with NaN or inf in them are not shown to LAPACK's iterations, which
** may never end on them: what comes out is NaN.
*/
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "array.h"
#include "blas.h"

/*
** Arguments
*/

typedef struct Mats {
  const double *p;        /* the first matrix, row-major */
  ptrdiff_t m, n;         /* rows, columns */
  ptrdiff_t size;         /* m * n */
  ptrdiff_t count;        /* matrices */
  int nbatch;             /* dimensions before the last two ... */
  const ptrdiff_t *shape; /* ... and they */
} Mats;

static int fits(ptrdiff_t n) {
  return n <= INT_MAX / 8; /* LAPACK's sizes of workspace are multiples */
}

/* the product of lengths; they may be large where there are no elements */
static ptrdiff_t many(lua_State *L, int ndim, const ptrdiff_t *shape) {
  ptrdiff_t n = 1;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] != 0 && n > PTRDIFF_MAX / shape[d])
      ad_error(L, "array is too large");
    n *= shape[d];
  }
  return n;
}

/* the matrices in argument 'arg', contiguous; pushes one slot */
static Mats matrices(lua_State *L, State *S, int arg, const char *who) {
  Array *a = ad_checkarray(L, S, arg);
  Mats w;
  if (a->ndim < 2)
    ad_error(L, "%s: a matrix expected, got an array of shape %s", who,
             ad_shapetext(L, a->ndim, a->shape));
  w.m = a->shape[a->ndim - 2];
  w.n = a->shape[a->ndim - 1];
  if (!fits(w.m) || !fits(w.n))
    ad_error(L, "%s: array of shape %s is too large for LAPACK", who,
             ad_shapetext(L, a->ndim, a->shape));
  lua_pushvalue(L, arg);
  if (!ad_contiguous(a)) {
    a = ad_packed(L, S, -1);
    lua_replace(L, -2);
  }
  w.p = a->data;
  w.size = w.m * w.n;
  w.nbatch = a->ndim - 2;
  w.shape = a->shape;
  w.count = many(L, w.nbatch, a->shape);
  return w;
}

static Mats square(lua_State *L, State *S, int arg, const char *who) {
  const Mats w = matrices(L, S, arg, who);
  if (w.m != w.n)
    ad_error(L, "%s: a square matrix expected, got an array of shape %s", who,
             ad_shapetext(L, w.nbatch + 2, w.shape));
  return w;
}

/* pushes an array of matrices, as many as in w */
static double *result(lua_State *L, State *S, const Mats *w, ptrdiff_t m,
                      ptrdiff_t n) {
  ptrdiff_t shape[AD_MAXDIM];
  memcpy(shape, w->shape, sizeof shape[0] * (size_t)w->nbatch);
  shape[w->nbatch] = m;
  shape[w->nbatch + 1] = n;
  return ad_newarray(L, S, w->nbatch + 2, shape)->data;
}

/* pushes an array of vectors, one for each matrix */
static double *vectors(lua_State *L, State *S, const Mats *w, ptrdiff_t n) {
  ptrdiff_t shape[AD_MAXDIM];
  memcpy(shape, w->shape, sizeof shape[0] * (size_t)w->nbatch);
  shape[w->nbatch] = n;
  return ad_newarray(L, S, w->nbatch + 1, shape)->data;
}

/*
** pushes an array of numbers, one for each matrix; where there is but one,
** something in its place that 'number' makes a number of
*/
static double *numbers(lua_State *L, State *S, const Mats *w) {
  if (w->nbatch == 0) return lua_newuserdatauv(L, sizeof(double), 0);
  return ad_newarray(L, S, w->nbatch, w->shape)->data;
}

static void number(lua_State *L, const Mats *w, int idx, const double *x) {
  if (w->nbatch > 0)
    lua_pushvalue(L, idx);
  else
    lua_pushnumber(L, *x);
}

/* pushes room for n things */
static void *room(lua_State *L, ptrdiff_t n, size_t size) {
  if ((size_t)n > (PTRDIFF_MAX - 64) / size) ad_error(L, "array is too large");
  return lua_newuserdatauv(L, (size_t)n * size + 64, 0);
}

static double *reals(lua_State *L, ptrdiff_t n) {
  return room(L, n, sizeof(double));
}

static int *ints(lua_State *L, ptrdiff_t n) { return room(L, n, sizeof(int)); }

/* what LAPACK says that its workspace should be; pushes it */
static double *work(lua_State *L, double asked, int *lwork) {
  *lwork = asked < INT_MAX / 2 ? (int)asked + 1 : INT_MAX / 2;
  return reals(L, *lwork);
}

static int allfinite(const double *p, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++)
    if (!isfinite(p[i])) return 0;
  return 1;
}

static void fill(double *p, ptrdiff_t n, double x) {
  for (ptrdiff_t i = 0; i < n; i++) p[i] = x;
}

static void copy(double *to, const double *from, ptrdiff_t n) {
  if (n > 0) memcpy(to, from, (size_t)n * sizeof *to);
}

static ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* to[j * m + i] = from[i * n + j]: m rows of n */
static void transpose(double *to, const double *from, ptrdiff_t m,
                      ptrdiff_t n) {
  enum { B = 16 }; /* squares, for the cache */
  for (ptrdiff_t i0 = 0; i0 < m; i0 += B)
    for (ptrdiff_t j0 = 0; j0 < n; j0 += B)
      for (ptrdiff_t i = i0; i < m && i < i0 + B; i++)
        for (ptrdiff_t j = j0; j < n && j < j0 + B; j++)
          to[j * m + i] = from[i * n + j];
}

/* (a + a^T) / 2 */
static void symmetric(double *to, const double *a, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++)
    for (ptrdiff_t j = 0; j <= i; j++)
      to[i * n + j] = to[j * n + i] = a[i * n + j] / 2 + a[j * n + i] / 2;
}

static int failed(lua_State *L, const char *who) {
  return ad_error(L, "%s: LAPACK's iteration did not converge", who);
}

/*
** Two arrays of matrices, broadcast against each other
*/

typedef struct Pair {
  int nbatch;
  ptrdiff_t shape[AD_MAXDIM], index[AD_MAXDIM];
  ptrdiff_t sa[AD_MAXDIM], sb[AD_MAXDIM];
  ptrdiff_t count;
} Pair;

static void leading(const Mats *w, const Pair *p, ptrdiff_t *stride) {
  Array a;
  ptrdiff_t step = w->size;
  a.ndim = w->nbatch;
  for (int d = w->nbatch - 1; d >= 0; d--) {
    a.shape[d] = w->shape[d];
    a.stride[d] = step;
    step *= w->shape[d];
  }
  ad_strides(&a, p->nbatch, p->shape, stride);
}

static void pair(lua_State *L, const Mats *a, const Mats *b, Pair *p,
                 const char *who) {
  p->nbatch = a->nbatch;
  memcpy(p->shape, a->shape, sizeof p->shape[0] * (size_t)a->nbatch);
  if (!ad_broadcast(&p->nbatch, p->shape, b->nbatch, b->shape))
    ad_error(L, "%s: shapes %s and %s do not broadcast", who,
             ad_shapetext(L, a->nbatch + 2, a->shape),
             ad_shapetext(L, b->nbatch + 2, b->shape));
  leading(a, p, p->sa);
  leading(b, p, p->sb);
  memset(p->index, 0, sizeof p->index);
  p->count = many(L, p->nbatch, p->shape);
}

static void advance(Pair *p, const double **a, const double **b) {
  for (int d = p->nbatch - 1; d >= 0; d--) {
    *a += p->sa[d];
    *b += p->sb[d];
    if (++p->index[d] < p->shape[d]) return;
    p->index[d] = 0;
    *a -= p->sa[d] * p->shape[d];
    *b -= p->sb[d] * p->shape[d];
  }
}

/*
** LU: of the transpose, with the pivots in a row of their own below
*/

/* factorises the n x n in place; 0: there is a zero among the pivots */
static int factor(const Blas *bl, int n, double *a, int *pivot) {
  int info = 0;
  if (n > 0) bl->dgetrf(&n, &n, a, &n, pivot, &info);
  return info <= 0;
}

/* lu(a, who) */
static int l_lu(lua_State *L) {
  State *S = ad_state(L);
  const char *who = luaL_checkstring(L, 2);
  const Blas *bl = ad_lapack(L, S, who);
  const Mats a = square(L, S, 1, who);
  const int n = (int)a.n;
  int *pivot = ints(L, n);
  double *y = result(L, S, &a, a.n + 1, a.n);
  for (ptrdiff_t k = 0; k < a.count; k++, y += a.size + a.n) {
    copy(y, a.p + k * a.size, a.size);
    if (!factor(bl, n, y, pivot))
      return ad_error(L, "%s: matrix is singular", who);
    for (int i = 0; i < n; i++) y[a.size + i] = pivot[i];
  }
  return 1;
}

/* lusolve(lu, b, transposed): with a's factors a x = b, or a^T x = b */
static int l_lusolve(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "solve");
  const int transposed = lua_toboolean(L, 3);
  Mats f = matrices(L, S, 1, "solve");
  const Mats b = matrices(L, S, 2, "solve");
  const int n = (int)f.n, p = (int)b.n;
  const double *from, *lu;
  double *y, *x;
  int *pivot;
  ptrdiff_t shape[AD_MAXDIM];
  Pair w;
  Mats shaped = b;
  /* in messages, the matrix that the factors are of */
  memcpy(shape, f.shape, sizeof shape[0] * (size_t)(f.nbatch + 2));
  shape[f.nbatch] = f.n;
  f.shape = shape;
  if (b.m != f.n)
    return ad_error(L, "solve: shapes %s and %s do not align",
                    ad_shapetext(L, f.nbatch + 2, f.shape),
                    ad_shapetext(L, b.nbatch + 2, b.shape));
  pair(L, &f, &b, &w, "solve");
  pivot = ints(L, n);
  x = reals(L, b.size);
  shaped.nbatch = w.nbatch;
  shaped.shape = w.shape;
  y = result(L, S, &shaped, n, p);
  lu = f.p, from = b.p;
  for (ptrdiff_t k = 0; k < w.count; k++, y += b.size) {
    int info = 0;
    for (int i = 0; i < n; i++) pivot[i] = (int)lu[(ptrdiff_t)n * n + i];
    transpose(x, from, n, p);
    if (n > 0 && p > 0)
      bl->dgetrs(transposed ? "N" : "T", &n, &p, lu, &n, pivot, x, &n, &info,
                 1);
    transpose(y, x, p, n);
    advance(&w, &lu, &from);
  }
  return 1;
}

/* inv(a) */
static int l_inv(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "inv");
  const Mats a = square(L, S, 1, "inv");
  const int n = (int)a.n, query = -1;
  int lwork = 1, info = 0;
  int *pivot = ints(L, n);
  double asked = 1, *w, *y;
  if (n > 0) bl->dgetri(&n, &asked, &n, pivot, &asked, &query, &info);
  w = work(L, asked, &lwork);
  y = result(L, S, &a, n, n);
  for (ptrdiff_t k = 0; k < a.count && n > 0; k++, y += a.size) {
    copy(y, a.p + k * a.size, a.size);
    if (!factor(bl, n, y, pivot)) return ad_error(L, "inv: matrix is singular");
    bl->dgetri(&n, y, &n, pivot, w, &lwork, &info);
  }
  return 1;
}

/* sign and logarithm of the product of the pivots */
static double logdet(int n, const double *lu, const int *pivot, double *sign) {
  double s = 0;
  *sign = 1;
  for (int i = 0; i < n; i++) {
    const double u = lu[(ptrdiff_t)i * n + i];
    if (pivot[i] != i + 1) *sign = -*sign;
    if (u < 0)
      *sign = -*sign;
    else if (u == 0)
      *sign = 0;
    else if (isnan(u))
      *sign = u;
    s += log(fabs(u));
  }
  return *sign == 0 ? -INFINITY : s;
}

/* the product itself; exponents apart, so that only it may overflow */
static double product(int n, const double *lu, const int *pivot) {
  double m = 1;
  int64_t exponent = 0;
  for (int i = 0; i < n; i++) {
    int e = 0;
    m *= frexp(lu[(ptrdiff_t)i * n + i], &e);
    if (isfinite(m)) {
      exponent += e;
      m = frexp(m, &e);
      exponent += e;
    }
    if (pivot[i] != i + 1) m = -m;
  }
  if (exponent > 5000) exponent = 5000;
  if (exponent < -5000) exponent = -5000;
  return ldexp(m, (int)exponent);
}

/* det(a) */
static int l_det(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "det");
  const Mats a = square(L, S, 1, "det");
  const int n = (int)a.n;
  int *pivot = ints(L, n);
  double *lu = reals(L, a.size), *y = numbers(L, S, &a);
  const int at = lua_gettop(L);
  for (ptrdiff_t k = 0; k < a.count; k++) {
    copy(lu, a.p + k * a.size, a.size);
    factor(bl, n, lu, pivot);
    y[k] = product(n, lu, pivot);
  }
  number(L, &a, at, y);
  return 1;
}

/* slogdet(a): sign, log of the absolute value */
static int l_slogdet(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "slogdet");
  const Mats a = square(L, S, 1, "slogdet");
  const int n = (int)a.n;
  int *pivot = ints(L, n);
  double *lu = reals(L, a.size), *sign = numbers(L, S, &a),
         *y = numbers(L, S, &a);
  const int at = lua_gettop(L);
  for (ptrdiff_t k = 0; k < a.count; k++) {
    copy(lu, a.p + k * a.size, a.size);
    factor(bl, n, lu, pivot);
    y[k] = logdet(n, lu, pivot, &sign[k]);
  }
  number(L, &a, at - 1, sign);
  number(L, &a, at, y);
  return 2;
}

/* reciprocal condition of the factorised a, by an estimate in norm 1 */
static double rcond(const Blas *bl, int n, const double *lu, double norm,
                    double *w, int *iw) {
  double r = 0;
  int info = 0;
  bl->dgecon("1", &n, lu, &n, &norm, &r, w, iw, &info, 1);
  return r;
}

static double norm1(int n, const double *a) {
  double most_ = 0;
  for (int j = 0; j < n; j++) {
    double s = 0;
    for (int i = 0; i < n; i++) s += fabs(a[(ptrdiff_t)j * n + i]);
    if (s > most_) most_ = s;
  }
  return most_;
}

/* rcond(a): the least of all; 0 if one is singular */
static int l_rcond(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "det");
  const Mats a = square(L, S, 1, "det");
  const int n = (int)a.n;
  int *pivot = ints(L, n), *iw = ints(L, n);
  double *lu = reals(L, a.size), *w = reals(L, 4 * a.n), all = 1;
  for (ptrdiff_t k = 0; k < a.count && n > 0; k++) {
    const double *from = a.p + k * a.size;
    double r;
    if (!allfinite(from, a.size)) continue; /* NaN either way */
    copy(lu, from, a.size);
    r = factor(bl, n, lu, pivot) ? rcond(bl, n, lu, norm1(n, from), w, iw) : 0;
    if (r < all) all = r;
  }
  lua_pushnumber(L, all);
  return 1;
}

/* determinant of a matrix whose columns are orthonormal */
static double orthogonal(const Blas *bl, int n, double *a, int *pivot) {
  double sign;
  factor(bl, n, a, pivot);
  logdet(n, a, pivot, &sign);
  return sign;
}

/*
** cofactor(a): the derivative of the determinant. From the inverse, which
** loses as many digits as the condition has; so where that is bad by
** U diag(products of the other singular values) V^T det U det V.
*/
static int l_cofactor(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "det");
  const Mats a = square(L, S, 1, "det");
  const int n = (int)a.n, query = -1;
  const double one = 1, zero = 0;
  int lwork = 1, lsvd = 1, info = 0;
  int *pivot = ints(L, n), *iw = ints(L, 8 * a.n);
  double asked = 1, asked2 = 1, sign, *w, *wsvd;
  double *lu = reals(L, a.size), *c = reals(L, a.size), *u = reals(L, a.size),
         *vt = reals(L, a.size), *s = reals(L, a.n), *p = reals(L, a.n), *y;
  if (n > 0) {
    bl->dgetri(&n, lu, &n, pivot, &asked, &query, &info);
    bl->dgesdd("A", &n, &n, c, &n, s, u, &n, vt, &n, &asked2, &query, iw, &info,
               1);
  }
  if (asked < 4 * n) asked = 4 * n; /* for dgecon */
  w = work(L, asked, &lwork);
  wsvd = work(L, asked2, &lsvd);
  y = result(L, S, &a, n, n);
  for (ptrdiff_t k = 0; k < a.count && n > 0; k++, y += a.size) {
    const double *from = a.p + k * a.size;
    if (!allfinite(from, a.size)) {
      fill(y, a.size, NAN);
      continue;
    }
    copy(lu, from, a.size);
    if (factor(bl, n, lu, pivot) &&
        rcond(bl, n, lu, norm1(n, from), w, iw) > 1e-3) {
      const double d = product(n, lu, pivot);
      if (isfinite(d) && fabs(d) >= DBL_MIN) {
        bl->dgetri(&n, lu, &n, pivot, w, &lwork, &info);
        transpose(y, lu, n, n);
        for (ptrdiff_t i = 0; i < a.size; i++) y[i] *= d;
        continue;
      }
    }
    copy(c, from, a.size);
    bl->dgesdd("A", &n, &n, c, &n, s, u, &n, vt, &n, wsvd, &lsvd, iw, &info, 1);
    if (info > 0) return failed(L, "det");
    p[n - 1] = 1;
    for (int i = n - 1; i > 0; i--) p[i - 1] = p[i] * s[i];
    sign = 1;
    for (int i = 0; i < n; i++) {
      p[i] *= sign;
      sign *= s[i];
    }
    /* of a^T, so that the columns of u are those of V */
    copy(c, u, a.size);
    copy(lu, vt, a.size);
    sign = orthogonal(bl, n, c, pivot) * orthogonal(bl, n, lu, pivot);
    for (int j = 0; j < n; j++)
      for (int i = 0; i < n; i++) u[(ptrdiff_t)j * n + i] *= p[j] * sign;
    bl->dgemm("N", "N", &n, &n, &n, &one, u, &n, vt, &n, &zero, y, &n, 1, 1);
  }
  return 1;
}

/* cholesky(a): lower; of (a + a^T) / 2 */
static int l_cholesky(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "cholesky");
  const Mats a = square(L, S, 1, "cholesky");
  const int n = (int)a.n;
  double *y = result(L, S, &a, n, n);
  for (ptrdiff_t k = 0; k < a.count && n > 0; k++, y += a.size) {
    const double *from = a.p + k * a.size;
    int info = 0;
    if (!allfinite(from, a.size)) {
      fill(y, a.size, NAN);
    } else {
      symmetric(y, from, n);
      bl->dpotrf("U", &n, y, &n, &info, 1);
      if (info > 0)
        return ad_error(L, "cholesky: matrix is not positive definite");
    }
    for (int i = 0; i < n; i++)
      fill(y + (ptrdiff_t)i * n + i + 1, n - 1 - i, 0);
  }
  return 1;
}

/* trisolve(l, b, transposed): l x = b or l^T x = b with lower triangles l */
static int l_trisolve(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "cholesky");
  const int transposed = lua_toboolean(L, 3);
  const Mats l = square(L, S, 1, "cholesky"), b = matrices(L, S, 2, "cholesky");
  const int n = (int)l.n, p = (int)b.n;
  const double one = 1, *t, *from;
  double *y;
  Pair w;
  Mats shaped = b;
  if (b.m != l.n)
    return ad_error(L, "solve: shapes %s and %s do not align",
                    ad_shapetext(L, l.nbatch + 2, l.shape),
                    ad_shapetext(L, b.nbatch + 2, b.shape));
  pair(L, &l, &b, &w, "solve");
  shaped.nbatch = w.nbatch;
  shaped.shape = w.shape;
  y = result(L, S, &shaped, n, p);
  t = l.p, from = b.p;
  for (ptrdiff_t k = 0; k < w.count; k++, y += b.size) {
    copy(y, from, b.size);
    if (n > 0 && p > 0)
      bl->dtrsm("R", "U", transposed ? "T" : "N", "N", &p, &n, &one, t, &n, y,
                &p, 1, 1, 1, 1);
    advance(&w, &t, &from);
  }
  return 1;
}

/* triangle(a, k[, diagonal]): what lies on or below diagonal k, whose
   elements are multiplied by 'diagonal'; the rest 0 */
static int l_triangle(lua_State *L) {
  State *S = ad_state(L);
  const ptrdiff_t d = (ptrdiff_t)luaL_checkinteger(L, 2);
  const double by = luaL_optnumber(L, 3, 1);
  const Mats a = matrices(L, S, 1, "triangle");
  double *y = result(L, S, &a, a.m, a.n);
  for (ptrdiff_t k = 0; k < a.count; k++)
    for (ptrdiff_t i = 0; i < a.m; i++) {
      const double *from = a.p + k * a.size + i * a.n;
      for (ptrdiff_t j = 0; j < a.n; j++)
        *y++ = j < i + d ? from[j] : j == i + d ? by * from[j] : 0;
    }
  return 1;
}

/* scale(a): of each matrix the greatest absolute value; 1 instead of 0 */
static int l_scale(lua_State *L) {
  State *S = ad_state(L);
  const Mats a = matrices(L, S, 1, "scale");
  double *y = result(L, S, &a, 1, 1);
  for (ptrdiff_t k = 0; k < a.count; k++) {
    double top = 0;
    for (ptrdiff_t i = 0; i < a.size; i++)
      if (fabs(a.p[k * a.size + i]) > top) top = fabs(a.p[k * a.size + i]);
    y[k] = top > 0 ? top : 1;
  }
  return 1;
}

/* qr(a): q, r reduced */
static int l_qr(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "qr");
  const Mats a = matrices(L, S, 1, "qr");
  const ptrdiff_t k = least(a.m, a.n);
  const int m = (int)a.m, n = (int)a.n, r = (int)k, query = -1;
  int lwork = 1, info = 0;
  double asked = 1, asked2 = 1, *w, *q, *y;
  double *c = reals(L, a.size), *tau = reals(L, k);
  int at;
  if (k > 0) {
    bl->dgeqrf(&m, &n, c, &m, tau, &asked, &query, &info);
    bl->dorgqr(&m, &r, &r, c, &m, tau, &asked2, &query, &info);
  }
  w = work(L, asked > asked2 ? asked : asked2, &lwork);
  q = result(L, S, &a, a.m, k);
  y = result(L, S, &a, k, a.n);
  at = lua_gettop(L);
  for (ptrdiff_t b = 0; b < a.count && k > 0; b++, q += a.m * k) {
    transpose(c, a.p + b * a.size, a.m, a.n);
    bl->dgeqrf(&m, &n, c, &m, tau, w, &lwork, &info);
    for (ptrdiff_t i = 0; i < k; i++)
      for (ptrdiff_t j = 0; j < a.n; j++) *y++ = j < i ? 0 : c[j * a.m + i];
    bl->dorgqr(&m, &r, &r, c, &m, tau, w, &lwork, &info);
    transpose(q, c, k, a.m);
  }
  lua_pushvalue(L, at - 1);
  lua_pushvalue(L, at);
  return 2;
}

/* svd(a): u, s, vt, thin */
static int l_svd(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "svd");
  const Mats a = matrices(L, S, 1, "svd");
  const ptrdiff_t k = least(a.m, a.n);
  const int m = (int)a.m, n = (int)a.n, r = (int)k, query = -1;
  int lwork = 1, info = 0;
  int *iw = ints(L, 8 * k);
  double asked = 1, *w, *u, *s, *vt, *c = reals(L, a.size);
  int at;
  /* of the transpose: what are its left vectors are rows of vt here */
  if (k > 0)
    bl->dgesdd("S", &n, &m, c, &n, c, c, &n, c, &r, &asked, &query, iw, &info,
               1);
  w = work(L, asked, &lwork);
  u = result(L, S, &a, a.m, k);
  s = vectors(L, S, &a, k);
  vt = result(L, S, &a, k, a.n);
  at = lua_gettop(L);
  for (ptrdiff_t b = 0; b < a.count && k > 0; b++) {
    const double *from = a.p + b * a.size;
    if (allfinite(from, a.size)) {
      copy(c, from, a.size);
      bl->dgesdd("S", &n, &m, c, &n, s, vt, &n, u, &r, w, &lwork, iw, &info, 1);
      if (info > 0) return failed(L, "svd");
    } else {
      fill(u, a.m * k, NAN);
      fill(s, k, NAN);
      fill(vt, k * a.n, NAN);
    }
    u += a.m * k, s += k, vt += k * a.n;
  }
  for (int i = at - 2; i <= at; i++) lua_pushvalue(L, i);
  return 3;
}

/* eigh(a): w ascending, v with the vectors in columns; of (a + a^T) / 2 */
static int l_eigh(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "eigh");
  const Mats a = square(L, S, 1, "eigh");
  const int n = (int)a.n, query = -1;
  int lwork = 1, liwork = 1, info = 0, *iw;
  double asked = 1, *w, *values, *v, *c = reals(L, a.size);
  int at;
  if (n > 0)
    bl->dsyevd("V", "L", &n, c, &n, c, &asked, &query, &liwork, &query, &info,
               1, 1);
  w = work(L, asked, &lwork);
  iw = ints(L, liwork);
  values = vectors(L, S, &a, n);
  v = result(L, S, &a, n, n);
  at = lua_gettop(L);
  for (ptrdiff_t k = 0; k < a.count && n > 0; k++, values += n, v += a.size) {
    const double *from = a.p + k * a.size;
    if (allfinite(from, a.size)) {
      symmetric(c, from, n);
      bl->dsyevd("V", "L", &n, c, &n, values, w, &lwork, iw, &liwork, &info, 1,
                 1);
      if (info > 0) return failed(L, "eigh");
      transpose(v, c, n, n);
    } else {
      fill(values, n, NAN);
      fill(v, a.size, NAN);
    }
  }
  lua_pushvalue(L, at - 1);
  lua_pushvalue(L, at);
  return 2;
}

/* lstsq(a, b): of least norm; single matrices, as NumPy has it */
static int l_lstsq(lua_State *L) {
  State *S = ad_state(L);
  const Blas *bl = ad_lapack(L, S, "lstsq");
  const Mats a = matrices(L, S, 1, "lstsq"), b = matrices(L, S, 2, "lstsq");
  const ptrdiff_t longer = most(a.m, a.n), k = least(a.m, a.n);
  const int m = (int)a.m, n = (int)a.n, p = (int)b.n, ld = (int)longer,
            query = -1;
  const double tolerance = DBL_EPSILON * (double)longer;
  int lwork = 1, liwork = 1, info = 0, rank = 0, *iw;
  double asked = 1, *w, *c, *x, *s, *y;
  ptrdiff_t shape[2];
  if (a.nbatch > 0 || b.nbatch > 0 || a.m != b.m)
    return ad_error(L, "lstsq: shapes %s and %s do not align",
                    ad_shapetext(L, a.nbatch + 2, a.shape),
                    ad_shapetext(L, b.nbatch + 2, b.shape));
  shape[0] = n, shape[1] = p;
  if (k == 0 || p == 0) {
    y = ad_newarray(L, S, 2, shape)->data;
    fill(y, (ptrdiff_t)n * p, 0);
    return 1;
  }
  c = reals(L, a.size);
  x = room(L, longer, sizeof(double) * (size_t)p);
  s = reals(L, k);
  bl->dgelsd(&m, &n, &p, c, &m, x, &ld, s, &tolerance, &rank, &asked, &query,
             &liwork, &info);
  w = work(L, asked, &lwork);
  iw = ints(L, liwork);
  y = ad_newarray(L, S, 2, shape)->data;
  if (!allfinite(a.p, a.size) || !allfinite(b.p, b.size)) {
    fill(y, (ptrdiff_t)n * p, NAN);
    return 1;
  }
  transpose(c, a.p, a.m, a.n);
  for (int j = 0; j < p; j++)
    for (int i = 0; i < m; i++)
      x[(ptrdiff_t)j * ld + i] = b.p[(ptrdiff_t)i * p + j];
  bl->dgelsd(&m, &n, &p, c, &m, x, &ld, s, &tolerance, &rank, w, &lwork, iw,
             &info);
  if (info > 0) return failed(L, "lstsq");
  for (int i = 0; i < n; i++)
    for (int j = 0; j < p; j++) *y++ = x[(ptrdiff_t)j * ld + i];
  return 1;
}

void ad_openlinalg(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"lu", l_lu},
                                {"lusolve", l_lusolve},
                                {"inv", l_inv},
                                {"det", l_det},
                                {"slogdet", l_slogdet},
                                {"rcond", l_rcond},
                                {"cofactor", l_cofactor},
                                {"cholesky", l_cholesky},
                                {"trisolve", l_trisolve},
                                {"triangle", l_triangle},
                                {"scale", l_scale},
                                {"qr", l_qr},
                                {"svd", l_svd},
                                {"eigh", l_eigh},
                                {"lstsq", l_lstsq},
                                {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
