/*
** arrayop.c
** Each row of the table becomes a loop over contiguous elements, which the
** compiler vectorises where it can; the functions of vmath.h are those loops
** for exp and the like. Operands that are not contiguous are
** packed block by block: a block stays in the first level of the cache, so
** that broadcasting and striding cost little more than the loop.
*/
#define AD_KEEP_NOTATION
#include "arrayop.h"
#include "vmath.h"

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

/* out = op(x...) */
static void values(const Vlevel *level, int op, size_t n, double *out,
                   const double *const *x) {
  const int arity = ad_opinfo[op].arity;
  ad_Points *f = level->function(op);
  if (f != NULL)
    ad_points(f, arity, n, out, x);
  else
    kernel[op][0](n, out, x[0], arity > 1 ? x[1] : NULL,
                  arity > 2 ? x[2] : NULL, NULL);
}

/*
** Partial derivatives in which there is one of these functions: the table's
** notation once more, where each operation is the loop of its row and each
** value so many numbers.
*/
#define PART 128
#define ROOM 16 /* values in one of these, constants included: pow's have 14 */

typedef struct Part {
  const Vlevel *level;
  size_t n;
  int used;
  double room[ROOM][PART];
} Part;

static const double *constant(Part *p, double x) {
  double *y = p->room[p->used++];
  for (size_t k = 0; k < p->n; k++) y[k] = x;
  return y;
}

static const double *row(Part *p, int op, const double *a, const double *b,
                         const double *c) {
  const double *const x[AD_MAXARITY] = {a, b, c};
  double *y = p->room[p->used++];
  values(p->level, op, p->n, y, x);
  return y;
}

#include "unnote.h"
#define K(c) constant(p, c)
#define ADD(x, y) row(p, OP_add, x, y, NULL)
#define SUB(x, y) row(p, OP_sub, x, y, NULL)
#define MUL(x, y) row(p, OP_mul, x, y, NULL)
#define DIV(x, y) row(p, OP_div, x, y, NULL)
#define NEG(x) row(p, OP_unm, x, NULL, NULL)
#define F1(name, x) row(p, OP_##name, x, NULL, NULL)
#define F2(name, x, y) row(p, OP_##name, x, y, NULL)
#define LT(x, y) row(p, OP_below, x, y, NULL)
#define EQ(x, y) row(p, OP_equal, x, y, NULL)
#define ZERO(x) row(p, OP_equal, x, constant(p, 0), NULL)
#define OR(c, d) row(p, OP_max, c, d, NULL)
#define AND(c, d) row(p, OP_min, c, d, NULL)
#define IF(c, x, y) row(p, OP_where, c, x, y)
#define P2(name, x, y) row(p, OP_##name, x, y, NULL)
#define P3(name, x, y, z) row(p, OP_##name, x, y, z)
#define PARTS(name, i, d)                                                      \
  static inline const double *part##i##_##name(                                \
      Part *p, const double *A, const double *B, const double *Y) {            \
    (void)p, (void)A, (void)B, (void)Y;                                        \
    return d;                                                                  \
  }
#define OP1(name, v, d0, l0, h0, kind) PARTS(name, 0, d0)
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  PARTS(name, 0, d0) PARTS(name, 1, d1)
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

typedef const double *Parts(Part *p, const double *a, const double *b,
                            const double *y);

/* those of which that is so */
static Parts *parts(int op, int i) {
  switch (op) {
  case OP_sin:
    return part0_sin;
  case OP_cos:
    return part0_cos;
  case OP_sinh:
    return part0_sinh;
  case OP_cosh:
    return part0_cosh;
  case OP_softplus:
    return part0_softplus;
  case OP_erf:
    return part0_erf;
  case OP_erfc:
    return part0_erfc;
  case OP_pow:
    return i == 0 ? part0_pow : part1_pow;
  default:
    return NULL;
  }
}

static void partials(const Vlevel *level, int op, int i, size_t n, double *out,
                     const double *const *x, const double *y) {
  const int arity = ad_opinfo[op].arity;
  Parts *f = parts(op, i);
  if (f == NULL)
    kernel[op][1 + i](n, out, x[0], arity > 1 ? x[1] : NULL,
                      arity > 2 ? x[2] : NULL, y);
  else
    for (size_t k = 0; k < n; k += PART) {
      Part p;
      p.level = level;
      p.n = n - k < PART ? n - k : PART;
      p.used = 0;
      memcpy(out + k, f(&p, x[0] + k, arity > 1 ? x[1] + k : NULL, y + k),
             p.n * sizeof *out);
    }
}

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
  const Vlevel *level;
  double *out;
  int op, i, arity;
  int add, select, both;
} Job;

static void value(void *ud, size_t at, size_t n, const double *const *x) {
  const Job *j = ud;
  values(j->level, j->op, n, j->out + at, x);
}

void ad_elementwise(int op, int ndim, const ptrdiff_t *shape, double *y, int n,
                    const ad_Strided *x) {
  Walk w;
  Job j = {ad_vlevel(0), y, op, 0, n, 0, 0, 0};
  collapse(&w, ndim, shape, n, x);
  walk(&w, value, &j);
}

static void pull(void *ud, size_t at, size_t total, const double *const *x) {
  const Job *j = ud;
  double p[AD_BLOCK];
  for (size_t i = 0; i < total; i += AD_BLOCK) {
    const size_t n = total - i < AD_BLOCK ? total - i : AD_BLOCK;
    const double *g = x[j->arity + 1] + i;
    double *out = j->out + at + i;
    const double *in[AD_MAXARITY];
    for (int k = 0; k < j->arity; k++) in[k] = x[k] + i;
    partials(j->level, j->op, j->i, n, p, in, x[j->arity] + i);
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
  Job j = {ad_vlevel(0), out, op, i, n, add, op == OP_where, AD_BOTHWIN(op, i)};
  for (int k = 0; k < n; k++) in[k] = x[k];
  in[n] = y;
  in[n + 1] = g;
  collapse(&w, ndim, shape, n + 2, in);
  walk(&w, pull, &j);
}
