/*
** reduce.c
** Reductions over dimensions of an array, and what is done along one: plain
** kernels for autodiff/reduce.lua. Their arguments come from there and have
** been looked at: an array, a list of axes, and whether those stay as
** dimensions of length 1. A result without dimensions is a number.
*/
#include <string.h>

#include "array.h"
#include "fold.h"
#include "vmath.h"

/* a function that is given another by name compiles to its loop */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* the axes in the list at the index: bit d stands for dimension d */
static unsigned axesmask(lua_State *L, int idx, int ndim) {
  unsigned mask = 0;
  const lua_Unsigned n = lua_rawlen(L, idx);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_Integer d;
    lua_rawgeti(L, idx, (lua_Integer)i);
    d = lua_tointeger(L, -1) - 1;
    if (d >= 0 && d < ndim) mask |= 1u << d;
    lua_pop(L, 1);
  }
  return mask;
}

/* pushes the array for the results; that of a number has one dimension */
static Array *newresult(lua_State *L, State *S, const Array *a, unsigned mask,
                        int keep) {
  ptrdiff_t shape[AD_MAXDIM];
  int ndim = 0;
  for (int d = 0; d < a->ndim; d++)
    if (!(mask >> d & 1))
      shape[ndim++] = a->shape[d];
    else if (keep)
      shape[ndim++] = 1;
  if (ndim == 0) shape[ndim++] = 1;
  return ad_newarray(L, S, ndim, shape);
}

/* the results at the top, which are a number if nothing was kept */
static int finish(lua_State *L, const Array *a, unsigned mask, int keep) {
  if (!keep && mask == (1u << a->ndim) - 1)
    lua_pushnumber(L, *((Array *)lua_touserdata(L, -1))->data);
  return 1;
}

static void fold(ad_Fold what, const Array *a, unsigned mask, const double *c,
                 double *y) {
  ad_fold(what, a->ndim, a->shape, a->stride, a->data, mask, c, y);
}

static int simple(lua_State *L, ad_Fold what) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  Array *y = newresult(L, S, a, mask, keep);
  fold(what, a, mask, NULL, y->data);
  return finish(L, a, mask, keep);
}

static int l_sum(lua_State *L) { return simple(L, AD_FOLDSUM); }
static int l_prod(lua_State *L) { return simple(L, AD_FOLDPROD); }

static int extremum(lua_State *L, ad_Fold what, const char *name) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  Array *y = newresult(L, S, a, mask, keep);
  if (a->size == 0 && y->size != 0)
    return ad_error(L,
                    "%s: an array of shape %s has no elements to choose from",
                    name, ad_shapetext(L, a->ndim, a->shape));
  fold(what, a, mask, NULL, y->data);
  return finish(L, a, mask, keep);
}

static int l_max(lua_State *L) { return extremum(L, AD_FOLDMAX, "max"); }
static int l_min(lua_State *L) { return extremum(L, AD_FOLDMIN, "min"); }

/* var(a, axes, keep, ddof): the mean first, for differences that are small */
static int l_variance(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  const double ddof = lua_tonumber(L, 4);
  Array *mean = newresult(L, S, a, mask, keep),
        *y = newresult(L, S, a, mask, keep);
  double n = 1;
  for (int d = 0; d < a->ndim; d++)
    if (mask >> d & 1) n *= (double)a->shape[d];
  fold(AD_FOLDSUM, a, mask, NULL, mean->data);
  for (size_t i = 0; i < mean->size; i++) mean->data[i] /= n;
  fold(AD_FOLDSQUARE, a, mask, mean->data, y->data);
  for (size_t i = 0; i < y->size; i++) y->data[i] /= n > ddof ? n - ddof : 0;
  return finish(L, a, mask, keep);
}

/* by squares as they are, if neither they nor their sum leave the range */
static int l_norm(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  Array *scale, *y;
  int within = 1;
  lua_settop(L, 3);
  scale = newresult(L, S, a, mask, keep);
  y = newresult(L, S, a, mask, keep);
  for (size_t i = 0; i < scale->size; i++) scale->data[i] = 0;
  fold(AD_FOLDSQUARE, a, mask, scale->data, y->data);
  for (size_t i = 0; i < y->size; i++)
    within &= y->data[i] > 1e-280 && y->data[i] < 1e290;
  if (!within && a->size > 0) {
    Array *low = newresult(L, S, a, mask, keep);
    fold(AD_FOLDMAX, a, mask, NULL, scale->data);
    fold(AD_FOLDMIN, a, mask, NULL, low->data);
    for (size_t i = 0; i < y->size; i++) {
      double *const s = &scale->data[i];
      if (-low->data[i] > *s) *s = -low->data[i];
      low->data[i] = *s; /* what the norm is where it is 0, inf or NaN */
      if (*s == 0 || !isfinite(*s)) *s = 1;
    }
    fold(AD_FOLDSCALED, a, mask, scale->data, y->data);
    for (size_t i = 0; i < y->size; i++)
      y->data[i] = low->data[i] == 0 || !isfinite(low->data[i])
                       ? low->data[i]
                       : scale->data[i] * sqrt(y->data[i]);
    lua_pop(L, 1); /* low */
  } else
    for (size_t i = 0; i < y->size; i++) y->data[i] = sqrt(y->data[i]);
  return finish(L, a, mask, keep);
}

/* the largest elements, and the sums of the exponentials relative to them */
static void exponentials(const Array *a, unsigned mask, double *m, double *s) {
  fold(AD_FOLDMAX, a, mask, NULL, m);
  fold(AD_FOLDEXP, a, mask, m, s);
}

static int l_logsumexp(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  Array *s = newresult(L, S, a, mask, keep),
        *y = newresult(L, S, a, mask, keep);
  exponentials(a, mask, y->data, s->data);
  for (size_t i = 0; i < y->size; i++)
    if (!isinf(y->data[i])) y->data[i] += log(s->data[i]);
  return finish(L, a, mask, keep);
}

/*
** Elements together with what belongs to their result
*/

typedef double With(double x, double c);

/* out = f(x, c), where out is contiguous (and may be x) */
INLINE void each(With *f, const Array *x, unsigned mask, const double *c,
                 double *out) {
  const int last = x->ndim - 1;
  const ptrdiff_t s = x->stride[last], n = x->shape[last];
  const double *p = x->data;
  ptrdiff_t stride[AD_MAXDIM], index[AD_MAXDIM] = {0}, run = 1;
  if (x->size == 0) return;
  for (int d = last; d >= 0; d--) {
    stride[d] = mask >> d & 1 ? 0 : run;
    if (!(mask >> d & 1)) run *= x->shape[d];
  }
  for (;;) {
    int d;
    if (s == 1 && stride[last] == 0) {
      const double c0 = *c;
      for (ptrdiff_t i = 0; i < n; i++) out[i] = f(p[i], c0);
    } else
      for (ptrdiff_t i = 0; i < n; i++)
        out[i] = f(p[i * s], c[i * stride[last]]);
    out += n;
    for (d = last - 1; d >= 0; d--) {
      p += x->stride[d];
      c += stride[d];
      if (++index[d] < x->shape[d]) break;
      index[d] = 0;
      p -= x->stride[d] * x->shape[d];
      c -= stride[d] * x->shape[d];
    }
    if (d < 0) return;
  }
}

static double difference(double x, double c) {
  return isinf(c) ? (x == c ? 0 : -HUGE_VAL) : x - c;
}

static double minus(double x, double c) { return x - c; }
static double times(double x, double c) { return x * c; }
static double scale(double x, double c) { return c == 0 ? 0 : x * c; }

static double same(double x, double c) { return x == c || (x != x && c != c); }

/*
** softmax(a, axes[, g]): times g, a number or an array of as many as there are
** results; an exact 0 of g wins
*/
static int l_softmax(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const double *g = NULL;
  const double *x[1];
  double number = 1;
  Array *c, *y;
  lua_settop(L, 3);
  c = newresult(L, S, a, mask, 1);
  if (lua_type(L, 3) == LUA_TNUMBER)
    number = lua_tonumber(L, 3);
  else if (ad_toarray(L, S, 3)) {
    g = ad_packed(L, S, 3)->data;
    luaL_argcheck(L, ad_checkarray(L, S, 3)->size == c->size, 3,
                  "array of another size");
  }
  y = ad_newarray(L, S, a->ndim, a->shape);
  fold(AD_FOLDMAX, a, mask, NULL, c->data);
  each(difference, a, mask, c->data, y->data);
  x[0] = y->data;
  ad_points(ad_vlevel(0)->function(OP_exp), 1, y->size, y->data, x);
  fold(AD_FOLDSUM, y, mask, NULL, c->data);
  for (size_t i = 0; i < c->size; i++)
    c->data[i] = (g ? g[i] : number) / c->data[i];
  each(scale, y, mask, c->data, y->data);
  return 1;
}

static int l_logsoftmax(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  Array *m = newresult(L, S, a, mask, 1), *s = newresult(L, S, a, mask, 1),
        *y = ad_newarray(L, S, a->ndim, a->shape);
  exponentials(a, mask, m->data, s->data);
  for (size_t i = 0; i < s->size; i++) s->data[i] = log(s->data[i]);
  each(difference, a, mask, m->data, y->data);
  each(minus, y, mask, s->data, y->data);
  return 1;
}

/*
** ties(a, y, axes): 1/k for the k elements that are the result y, which is an
** array of numbers in the order of the results, or the only one
*/
static int l_ties(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 3, a->ndim);
  const double one = lua_tonumber(L, 2), *c = &one;
  Array *k = newresult(L, S, a, mask, 1), *y;
  if (lua_type(L, 2) != LUA_TNUMBER) {
    luaL_argcheck(L, ad_checkarray(L, S, 2)->size == k->size, 2,
                  "array of another size");
    c = ad_packed(L, S, 2)->data;
  }
  y = ad_newarray(L, S, a->ndim, a->shape);
  fold(AD_FOLDEQUAL, a, mask, c, k->data);
  for (size_t i = 0; i < k->size; i++)
    if (k->data[i] > 0) k->data[i] = 1 / k->data[i];
  each(same, a, mask, c, y->data);
  each(times, y, mask, k->data, y->data);
  return 1;
}

/*
** Along lines: with the dimensions in question behind the others, the
** elements of a line one after the other
*/

static Array *permuted(lua_State *L, State *S, int idx, const int *perm) {
  const Array *a = lua_touserdata(L, idx);
  Array *v = ad_newview(L, S, idx);
  for (int d = 0; d < a->ndim; d++) {
    v->shape[d] = a->shape[perm[d]];
    v->stride[d] = a->stride[perm[d]];
  }
  return v;
}

typedef struct Lines {
  const double *x;
  double *y;
  size_t n, len;
  int perm[AD_MAXDIM], back[AD_MAXDIM], moved;
} Lines;

/* of the array at idx; pushes what keeps x alive and, if it is wanted, an
   array for y at the top */
static void lines(lua_State *L, State *S, int idx, Lines *w, unsigned mask,
                  int wanted) {
  const Array *a = ad_checkarray(L, S, idx);
  Array *p;
  int n = 0;
  for (int d = 0; d < a->ndim; d++)
    if (!(mask >> d & 1)) w->perm[n++] = d;
  for (int d = 0; d < a->ndim; d++)
    if (mask >> d & 1) w->perm[n++] = d;
  w->moved = 0;
  w->len = 1;
  for (int d = 0; d < a->ndim; d++) {
    w->back[w->perm[d]] = d;
    w->moved |= w->perm[d] != d;
    if (mask >> d & 1) w->len *= (size_t)a->shape[d];
  }
  w->n = w->len ? a->size / w->len : 0;
  permuted(L, S, idx, w->perm);
  p = ad_packed(L, S, lua_gettop(L));
  w->x = p->data;
  if (wanted) w->y = ad_newarray(L, S, p->ndim, p->shape)->data;
}

/* the array at the top with its dimensions in their places */
static int linesend(lua_State *L, State *S, const Lines *w) {
  if (w->moved) permuted(L, S, lua_gettop(L), w->back);
  return 1;
}

/* others(a, axes): the products of all others, without a division */
static int l_others(lua_State *L) {
  State *S = ad_state(L);
  Lines w;
  lines(L, S, 1, &w, axesmask(L, 2, ad_checkarray(L, S, 1)->ndim), 1);
  for (size_t k = 0; k < w.n; k++) {
    const double *x = w.x + k * w.len;
    double *y = w.y + k * w.len, p = 1;
    for (size_t i = 0; i < w.len; i++) {
      y[i] = p;
      p *= x[i];
    }
    p = 1;
    for (size_t i = w.len; i-- > 0;) {
      y[i] *= p;
      p *= x[i];
    }
  }
  return linesend(L, S, &w);
}

/* position of the first that is largest (or smallest, or NaN), from 1 */
static int best(lua_State *L, int sign, const char *name) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  const unsigned mask = axesmask(L, 2, a->ndim);
  const int keep = lua_toboolean(L, 3);
  Array *y = newresult(L, S, a, mask, keep);
  Lines w;
  if (a->size == 0 && y->size != 0)
    return ad_error(L,
                    "%s: an array of shape %s has no elements to choose from",
                    name, ad_shapetext(L, a->ndim, a->shape));
  if (y->size == 0) return 1;
  lines(L, S, 1, &w, mask, 0);
  for (size_t k = 0; k < w.n; k++) {
    const double *x = w.x + k * w.len;
    size_t at = 0;
    for (size_t i = 1; i < w.len && !isnan(x[at]); i++)
      if (isnan(x[i]) || (sign > 0 ? x[i] > x[at] : x[i] < x[at])) at = i;
    y->data[k] = (double)(at + 1);
  }
  if (!keep && mask == (1u << a->ndim) - 1)
    lua_pushinteger(L, (lua_Integer)*y->data);
  else
    lua_settop(L, 4); /* y is the fourth value */
  return 1;
}

static int l_argmax(lua_State *L) {
  lua_settop(L, 3);
  return best(L, 1, "argmax");
}

static int l_argmin(lua_State *L) {
  lua_settop(L, 3);
  return best(L, -1, "argmin");
}

/* cumsum(a, axis, reverse) */
static int l_cumsum(lua_State *L) {
  State *S = ad_state(L);
  const int reverse = lua_toboolean(L, 3);
  const unsigned mask = 1u << (lua_tointeger(L, 2) - 1);
  Lines w;
  lines(L, S, 1, &w, mask, 1);
  for (size_t k = 0; k < w.n; k++) {
    const double *x = w.x + k * w.len;
    double *y = w.y + k * w.len, s = 0;
    if (reverse)
      for (size_t i = w.len; i-- > 0;) y[i] = s += x[i];
    else
      for (size_t i = 0; i < w.len; i++) y[i] = s += x[i];
  }
  return linesend(L, S, &w);
}

/*
** Sorting: merging runs of double length each time; stable; NaN last
*/

typedef struct Item {
  double x;
  size_t i;
} Item;

static int before(double a, double b) { return a < b || (b != b && a == a); }

/* short runs by insertion, then from one half of the memory to the other */
#define SHORT 8

static const Item *sorted(Item *from, Item *to, size_t n) {
  for (size_t lo = 0; lo < n; lo += SHORT)
    for (size_t i = lo + 1; i < n && i < lo + SHORT; i++) {
      const Item v = from[i];
      size_t j = i;
      for (; j > lo && before(v.x, from[j - 1].x); j--) from[j] = from[j - 1];
      from[j] = v;
    }
  for (size_t run = SHORT; run < n; run *= 2) {
    Item *const swap = from;
    for (size_t lo = 0; lo < n; lo += 2 * run) {
      const size_t mid = lo + run < n ? lo + run : n,
                   hi = mid + run < n ? mid + run : n;
      size_t i = lo, j = mid, k = lo;
      while (i < mid && j < hi)
        to[k++] = before(from[j].x, from[i].x) ? from[j++] : from[i++];
      while (i < mid) to[k++] = from[i++];
      while (j < hi) to[k++] = from[j++];
    }
    from = to;
    to = swap;
  }
  return from;
}

/* sort(a, axis, which): the elements, or their positions from 1 */
static int l_sort(lua_State *L) {
  State *S = ad_state(L);
  const int positions = lua_toboolean(L, 3);
  const unsigned mask = 1u << (lua_tointeger(L, 2) - 1);
  Lines w;
  Item *items;
  lua_settop(L, 3);
  lines(L, S, 1, &w, mask, 1);
  if (w.len > PTRDIFF_MAX / sizeof(Item) / 2)
    return ad_error(L, "array is too large");
  items = lua_newuserdatauv(L, 2 * w.len * sizeof *items + 1, 0);
  for (size_t k = 0; k < w.n; k++) {
    const Item *s;
    for (size_t i = 0; i < w.len; i++) {
      items[i].x = w.x[k * w.len + i];
      items[i].i = i;
    }
    s = sorted(items, items + w.len, w.len);
    for (size_t i = 0; i < w.len; i++)
      w.y[k * w.len + i] = positions ? (double)(s[i].i + 1) : s[i].x;
  }
  lua_pop(L, 1); /* the items */
  return linesend(L, S, &w);
}

/*
** permute(a, axis, positions, back): along the axis, the elements at the
** positions (an array like a); or those to the positions, which is the inverse
*/
static int l_permute(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1), *q = ad_checkarray(L, S, 3);
  const int back = lua_toboolean(L, 4);
  const unsigned mask = 1u << (lua_tointeger(L, 2) - 1);
  Lines w, p;
  luaL_argcheck(
      L,
      q->ndim == a->ndim &&
          memcmp(q->shape, a->shape, sizeof a->shape[0] * (size_t)a->ndim) == 0,
      3, "array of another shape");
  lines(L, S, 3, &p, mask, 0);
  lines(L, S, 1, &w, mask, 1);
  for (size_t k = 0; k < w.n; k++) {
    const double *x = w.x + k * w.len, *to = p.x + k * w.len;
    double *y = w.y + k * w.len;
    for (size_t i = 0; i < w.len; i++) {
      const double j = to[i] - 1;
      if (!(j >= 0 && j < (double)w.len))
        return luaL_argerror(L, 3, "bad position");
      if (back)
        y[(size_t)j] = x[i];
      else
        y[i] = x[(size_t)j];
    }
  }
  return linesend(L, S, &w);
}

/* sumto(a, shape): summed over what 'shape' was broadcast along ({}: all) */
static int l_sumto(lua_State *L) {
  State *S = ad_state(L);
  const Array *a = ad_checkarray(L, S, 1);
  ptrdiff_t shape[AD_MAXDIM];
  unsigned mask = 0;
  Array *y;
  int ndim, more;
  lua_settop(L, 2);
  luaL_checktype(L, 2, LUA_TTABLE);
  if (lua_rawlen(L, 2) == 0) {
    double s;
    fold(AD_FOLDSUM, a, (1u << a->ndim) - 1, NULL, &s);
    lua_pushnumber(L, s);
    return 1;
  }
  ndim = ad_checkshape(L, 2, shape);
  more = a->ndim - ndim;
  luaL_argcheck(L, more >= 0, 2, "more dimensions than the array");
  for (int d = 0; d < a->ndim; d++)
    if (d < more || shape[d - more] != a->shape[d]) {
      luaL_argcheck(L, d < more || shape[d - more] == 1, 2,
                    "the array was not broadcast from it");
      mask |= 1u << d;
    }
  y = ad_newarray(L, S, ndim, shape);
  fold(AD_FOLDSUM, a, mask, NULL, y->data);
  return 1;
}

void ad_openreduce(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {
      {"sumto", l_sumto},     {"sum", l_sum},
      {"prod", l_prod},       {"max", l_max},
      {"min", l_min},         {"var", l_variance},
      {"norm", l_norm},       {"logsumexp", l_logsumexp},
      {"softmax", l_softmax}, {"log_softmax", l_logsoftmax},
      {"ties", l_ties},       {"others", l_others},
      {"argmax", l_argmax},   {"argmin", l_argmin},
      {"cumsum", l_cumsum},   {"sort", l_sort},
      {"permute", l_permute}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
