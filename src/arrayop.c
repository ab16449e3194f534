/*
** arrayop.c
** Each row of the table becomes a loop over contiguous elements, which the
** compiler vectorises where it can. Operands that are not contiguous are
** packed block by block: a block stays in the first level of the cache, so
** that broadcasting and striding cost little more than the loop.
*/
#include "arrayop.h"

#include <string.h>

/*
** Kernels: contiguous, all of the same length
*/

typedef void Kernel(size_t n, double *restrict out, const double *a,
                    const double *b, const double *c, const double *y);

#define LOOP(name, expr)                                                       \
  static void name(size_t n, double *restrict out, const double *pa,           \
                   const double *pb, const double *pc, const double *py) {     \
    (void)pa, (void)pb, (void)pc, (void)py;                                    \
    for (size_t i = 0; i < n; i++) out[i] = (expr);                            \
  }

#define OP1(name, v, d0, l0, h0, kind)                                         \
  LOOP(v_##name, ad_v_##name(pa[i]))                                           \
  LOOP(d0_##name, ad_d0_##name(pa[i], py[i]))
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  LOOP(v_##name, ad_v_##name(pa[i], pb[i]))                                    \
  LOOP(d0_##name, ad_d0_##name(pa[i], pb[i], py[i]))                           \
  LOOP(d1_##name, ad_d1_##name(pa[i], pb[i], py[i]))
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  LOOP(v_##name, ad_v_##name(pa[i], pb[i], pc[i]))                             \
  LOOP(d0_##name, ad_d0_##name(pa[i], pb[i], pc[i], py[i]))                    \
  LOOP(d1_##name, ad_d1_##name(pa[i], pb[i], pc[i], py[i]))                    \
  LOOP(d2_##name, ad_d2_##name(pa[i], pb[i], pc[i], py[i]))
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

static Kernel *const kernel[][1 + AD_MAXARITY] = {
#define OP1(name, v, d0, l0, h0, kind) {v_##name, d0_##name, NULL, NULL},
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  {v_##name, d0_##name, d1_##name, NULL},
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  {v_##name, d0_##name, d1_##name, d2_##name},
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
};

/*
** Walking: dimensions that run on in all operands become one
*/

#define MAXDIM 8
#define MAXIN 5 /* operands, y, g */

typedef struct Walk {
  int ndim, n;
  ptrdiff_t shape[MAXDIM];
  ptrdiff_t stride[MAXIN][MAXDIM];
  const double *data[MAXIN];
} Walk;

static void collapse(Walk *w, int ndim, const ptrdiff_t *shape, int n,
                     const ad_Strided *x) {
  w->ndim = 0;
  w->n = n;
  for (int k = 0; k < n; k++) w->data[k] = x[k].data;
  for (int d = 0; d < ndim; d++) {
    int joins = w->ndim > 0;
    if (shape[d] == 1) continue;
    for (int k = 0; k < n && joins; k++)
      joins = w->stride[k][w->ndim - 1] == x[k].stride[d] * shape[d];
    if (joins)
      w->shape[w->ndim - 1] *= shape[d];
    else
      w->shape[w->ndim++] = shape[d];
    for (int k = 0; k < n; k++) w->stride[k][w->ndim - 1] = x[k].stride[d];
  }
  if (w->ndim == 0) {
    w->shape[0] = 1;
    for (int k = 0; k < n; k++) w->stride[k][0] = 0;
    w->ndim = 1;
  }
}

static void pack(size_t n, double *to, const double *from, ptrdiff_t stride) {
  if (stride == 0)
    for (size_t i = 0; i < n; i++) to[i] = *from;
  else
    for (size_t i = 0; i < n; i++) to[i] = from[(ptrdiff_t)i * stride];
}

/* what is done with each block: contiguous operands, in order of the output */
typedef void Visit(void *ud, size_t at, size_t n, const double *const *x);

/*
** Short rows of many are gathered into blocks as well, so that the kernels
** always see long runs; 'flat' says that no operand needs packing.
*/
static void walk(Walk *w, Visit *visit, void *ud) {
  double buffer[MAXIN][AD_BLOCK];
  const double *x[MAXIN];
  const int last = w->ndim - 1;
  const ptrdiff_t len = w->shape[last];
  ptrdiff_t index[MAXDIM] = {0};
  size_t total = 1, at = 0;
  int packed[MAXIN], constant[MAXIN], any = 0;
  for (int d = 0; d < w->ndim; d++) total *= (size_t)w->shape[d];
  if (total == 0) return;
  for (int k = 0; k < w->n; k++) {
    ptrdiff_t run = 1;
    packed[k] = 0;
    constant[k] = 1;
    for (int d = last; d >= 0; d--) {
      packed[k] |= w->stride[k][d] != run;
      constant[k] &= w->stride[k][d] == 0;
      run *= w->shape[d];
    }
    if (constant[k]) { /* the same block again and again */
      pack(total < AD_BLOCK ? total : AD_BLOCK, buffer[k], w->data[k], 0);
      x[k] = buffer[k];
    }
    any |= packed[k];
  }
  if (!any) {
    visit(ud, 0, total, w->data);
    return;
  }
  if (len >= AD_BLOCK / 4 || w->ndim == 1) { /* long rows: block by block */
    for (;;) {
      for (ptrdiff_t i = 0; i < len; i += AD_BLOCK) {
        const size_t n = (size_t)(len - i < AD_BLOCK ? len - i : AD_BLOCK);
        for (int k = 0; k < w->n; k++) {
          const ptrdiff_t s = w->stride[k][last];
          if (constant[k]) continue;
          if (s == 1)
            x[k] = w->data[k] + i;
          else {
            pack(n, buffer[k], w->data[k] + i * s, s);
            x[k] = buffer[k];
          }
        }
        visit(ud, at, n, x);
        at += n;
      }
      if (at == total) return;
      for (int d = last - 1; d >= 0; d--) {
        for (int k = 0; k < w->n; k++) w->data[k] += w->stride[k][d];
        if (++index[d] < w->shape[d]) break;
        index[d] = 0;
        for (int k = 0; k < w->n; k++)
          w->data[k] -= w->stride[k][d] * w->shape[d];
      }
    }
  }
  while (at < total) { /* short rows: as many as fill a block */
    size_t n = 0;
    while (n + (size_t)len <= AD_BLOCK && at + n < total) {
      for (int k = 0; k < w->n; k++)
        if (!constant[k])
          pack((size_t)len, buffer[k] + n, w->data[k], w->stride[k][last]);
      n += (size_t)len;
      for (int d = last - 1; d >= 0; d--) {
        for (int k = 0; k < w->n; k++) w->data[k] += w->stride[k][d];
        if (++index[d] < w->shape[d]) break;
        index[d] = 0;
        for (int k = 0; k < w->n; k++)
          w->data[k] -= w->stride[k][d] * w->shape[d];
      }
    }
    for (int k = 0; k < w->n; k++) x[k] = buffer[k];
    visit(ud, at, n, x);
    at += n;
  }
}

typedef struct Job {
  Kernel *f;
  double *out;
  int arity;
  int add, select, both;
} Job;

static void value(void *ud, size_t at, size_t n, const double *const *x) {
  const Job *j = ud;
  j->f(n, j->out + at, x[0], j->arity > 1 ? x[1] : NULL,
       j->arity > 2 ? x[2] : NULL, NULL);
}

void ad_elementwise(int op, int ndim, const ptrdiff_t *shape, double *y, int n,
                    const ad_Strided *x) {
  Walk w;
  Job j = {kernel[op][0], y, n, 0, 0, 0};
  collapse(&w, ndim, shape, n, x);
  walk(&w, value, &j);
}

static void partial(void *ud, size_t at, size_t n, const double *const *x) {
  const Job *j = ud;
  j->f(n, j->out + at, x[0], j->arity > 1 ? x[1] : NULL,
       j->arity > 2 ? x[2] : NULL, x[j->arity]);
}

void ad_elementpartial(int op, int i, int ndim, const ptrdiff_t *shape,
                       double *out, int n, const ad_Strided *x, ad_Strided y) {
  ad_Strided in[MAXIN];
  Walk w;
  Job j = {kernel[op][1 + i], out, n, 0, 0, 0};
  for (int k = 0; k < n; k++) in[k] = x[k];
  in[n] = y;
  collapse(&w, ndim, shape, n + 1, in);
  walk(&w, partial, &j);
}

static void pull(void *ud, size_t at, size_t total, const double *const *x) {
  const Job *j = ud;
  double p[AD_BLOCK];
  for (size_t i = 0; i < total; i += AD_BLOCK) {
    const size_t n = total - i < AD_BLOCK ? total - i : AD_BLOCK;
    const double *g = x[j->arity + 1] + i;
    double *out = j->out + at + i;
    j->f(n, p, x[0] + i, j->arity > 1 ? x[1] + i : NULL,
         j->arity > 2 ? x[2] + i : NULL, x[j->arity] + i);
    if (j->select) { /* what is not chosen takes no part, whatever it is */
      for (size_t k = 0; k < n; k++) {
        const double s = p[k] == 0 ? 0 : g[k];
        out[k] = j->add ? out[k] + s : s;
      }
    } else if (j->both) {
      for (size_t k = 0; k < n; k++) {
        const double s = g[k] == 0 || p[k] == 0 ? 0 : g[k] * p[k];
        out[k] = j->add ? out[k] + s : s;
      }
    } else if (j->add)
      for (size_t k = 0; k < n; k++) out[k] += g[k] == 0 ? 0 : g[k] * p[k];
    else
      for (size_t k = 0; k < n; k++) out[k] = g[k] == 0 ? 0 : g[k] * p[k];
  }
}

void ad_elementpull(int op, int i, int ndim, const ptrdiff_t *shape,
                    double *out, int n, const ad_Strided *x, ad_Strided y,
                    ad_Strided g, int add) {
  ad_Strided in[MAXIN];
  Walk w;
  Job j = {kernel[op][1 + i], out, n, add, op == OP_where, AD_BOTHWIN(op, i)};
  for (int k = 0; k < n; k++) in[k] = x[k];
  in[n] = y;
  in[n + 1] = g;
  collapse(&w, ndim, shape, n + 2, in);
  walk(&w, pull, &j);
}
