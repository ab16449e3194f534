/*
** tape.c
** See tape.h.
*/
#include "tape.h"

#include <math.h>
#include <string.h>

void ad_tapeinit(Tape *t, ad_Alloc alloc, void *ud) {
  memset(t, 0, sizeof *t);
  t->alloc = alloc;
  t->ud = ud;
}

/* bytes of the tangents of so many entries */
static size_t tangents(const Tape *t, uint32_t entries) {
  return (size_t)entries * (size_t)t->dirs * sizeof *t->dmult;
}

static void release(Tape *t) {
  t->alloc(t->ud, t->end, t->capnode * sizeof *t->end, 0);
  t->alloc(t->ud, t->mult, t->capmult * sizeof *t->mult, 0);
  t->alloc(t->ud, t->idx, t->capidx * sizeof *t->idx, 0);
  t->alloc(t->ud, t->dmult, tangents(t, t->capd), 0);
}

void ad_tapefree(Tape *t) {
  release(t);
  ad_tapeinit(t, t->alloc, t->ud);
}

/*
** Doubling while the tape is small, then by a half: a tape of gigabytes
** should not ask for twice its size.
*/
static uint32_t grown(uint32_t cap, uint32_t need, uint32_t limit) {
  uint32_t more = cap < (1u << 20) ? cap : cap / 2;
  uint32_t ncap = (cap > limit - more) ? limit : cap + more;
  if (ncap < 64) ncap = 64;
  return ncap < need ? need : ncap;
}

/* room for 'need' items in a block; 0, or the bytes that were refused */
static size_t resize(Tape *t, void **block, uint32_t *cap, uint32_t need,
                     uint32_t limit, size_t size) {
  uint32_t ncap;
  void *p;
  if (need <= *cap) return 0;
  ncap = grown(*cap, need, limit);
  if (ncap > SIZE_MAX / size) return SIZE_MAX - 1;
  p = t->alloc(t->ud, *block, *cap * size, ncap * size);
  if (p == NULL) return ncap * size;
  *block = p;
  *cap = ncap;
  return 0;
}

size_t ad_tapereserve(Tape *t, uint32_t nodes, uint32_t entries) {
  void *end = t->end, *mult = t->mult, *idx = t->idx;
  size_t fail;
  if (nodes > AD_MAXNODES - t->nnode || entries > AD_MAXENTRIES - t->nentry)
    return SIZE_MAX;
  fail = resize(t, &end, &t->capnode, t->nnode + nodes, AD_MAXNODES,
                sizeof *t->end);
  t->end = end;
  if (fail) return fail;
  fail = resize(t, &mult, &t->capmult, t->nentry + entries, AD_MAXENTRIES,
                sizeof *t->mult);
  t->mult = mult;
  if (fail) return fail;
  fail = resize(t, &idx, &t->capidx, t->nentry + entries, AD_MAXENTRIES,
                sizeof *t->idx);
  t->idx = idx;
  if (fail == 0 && t->dirs) {
    void *dmult = t->dmult;
    fail = resize(t, &dmult, &t->capd, t->nentry + entries, AD_MAXENTRIES,
                  (size_t)t->dirs * sizeof *t->dmult);
    t->dmult = dmult;
  }
  return fail;
}

size_t ad_tapedual(Tape *t, uint64_t dual, int dirs, uint32_t entries) {
  const uint32_t cap = t->nentry + entries;
  const size_t size = (size_t)cap * (size_t)dirs * sizeof *t->dmult;
  double *dmult;
  if (cap > SIZE_MAX / sizeof *t->dmult / (size_t)dirs) return SIZE_MAX - 1;
  dmult = t->alloc(t->ud, NULL, 0, size);
  if (dmult == NULL) return size;
  memset(dmult, 0, size);
  t->alloc(t->ud, t->dmult, tangents(t, t->capd), 0);
  t->dmult = dmult;
  t->capd = cap;
  t->dirs = dirs;
  t->dual = dual;
  return 0;
}

void ad_tapecut(Tape *t, uint32_t node) {
  uint32_t first;
  if (node >= t->nnode) return;
  first = ad_tapefirst(t, node);
  if (t->ngeneral) {
    for (uint32_t j = first; j < t->nentry; j++)
      if (t->idx[j] & AD_GENERAL) t->ngeneral--;
  }
  t->nnode = node;
  t->nentry = first;
}

void ad_tapeclear(Tape *t, size_t keep) {
  if (t->capnode * sizeof *t->end + t->capmult * sizeof *t->mult +
          t->capidx * sizeof *t->idx >
      keep)
    ad_tapefree(t);
  if (t->dirs) {
    t->alloc(t->ud, t->dmult, tangents(t, t->capd), 0);
    t->dmult = NULL;
    t->capd = 0;
    t->dirs = 0;
    t->dual = 0;
  }
  t->nnode = t->nentry = t->ninput = t->ngeneral = 0;
}

/* a block shrinks to twice what is used; one that will not, stays */
static void trim(Tape *t, void **block, uint32_t *cap, uint32_t used,
                 size_t size) {
  const uint32_t ncap = used < 512 ? 1024 : used * 2;
  if (*cap / 2 > ncap) {
    void *p = t->alloc(t->ud, *block, *cap * size, ncap * size);
    if (p == NULL) return;
    *block = p;
    *cap = ncap;
  }
}

void ad_tapetrim(Tape *t) {
  void *end = t->end, *mult = t->mult, *idx = t->idx;
  trim(t, &end, &t->capnode, t->nnode, sizeof *t->end);
  trim(t, &mult, &t->capmult, t->nentry, sizeof *t->mult);
  trim(t, &idx, &t->capidx, t->nentry, sizeof *t->idx);
  t->end = end;
  t->mult = mult;
  t->idx = idx;
}

size_t ad_tapebytes(const Tape *t) {
  return t->nnode * sizeof *t->end +
         t->nentry * (sizeof *t->mult + sizeof *t->idx) +
         tangents(t, t->nentry);
}

void ad_tapereverse(const Tape *t, uint32_t from, uint32_t to, double *adj) {
  const double *mult = t->mult;
  const uint32_t *idx = t->idx, *end = t->end;
  uint32_t j = ad_tapefirst(t, from);
  for (uint32_t k = from; k-- > to;) {
    const uint32_t first = k == 0 ? 0 : end[k - 1];
    const double a = adj[k];
    if (a != 0) { /* a cotangent of 0 contributes 0 */
      while (j > first) {
        j--;
        adj[idx[j]] += mult[j] * a;
      }
    }
    j = first;
  }
}

void ad_tapereversedual(const Tape *t, uint32_t from, uint32_t to,
                        double *adj) {
  const size_t k = (size_t)t->dirs, stride = k + 1;
  uint32_t j = ad_tapefirst(t, from);
  for (uint32_t node = from; node-- > to;) {
    const uint32_t first = ad_tapefirst(t, node);
    const double *in = adj + node * stride;
    int some = in[0] != 0;
    for (size_t d = 1; d <= k; d++) some |= in[d] != 0;
    if (some)
      for (uint32_t e = j; e-- > first;) {
        const double m = t->mult[e], *dm = t->dmult + e * k;
        double *out = adj + t->idx[e] * stride;
        if (in[0] != 0) {
          out[0] += m * in[0];
          for (size_t d = 0; d < k; d++) out[d + 1] += dm[d] * in[0];
        }
        for (size_t d = 1; d <= k; d++)
          if (in[d] != 0) out[d] += m * in[d];
      }
    j = first;
  }
}

static void forward1(const Tape *t, uint32_t from, uint32_t to, double *dot) {
  uint32_t j = ad_tapefirst(t, from);
  for (uint32_t k = from; k < to; k++) {
    const uint32_t last = t->end[k];
    double s = 0;
    if (j == last) continue; /* an input */
    for (; j < last; j++) {
      const double d = dot[t->idx[j]];
      if (d != 0) s += t->mult[j] * d;
    }
    dot[k] = s;
  }
}

void ad_tapeforward(const Tape *t, uint32_t from, uint32_t to, double *dot,
                    int k) {
  uint32_t j = ad_tapefirst(t, from);
  if (k == 1) {
    forward1(t, from, to, dot);
    return;
  }
  for (uint32_t i = from; i < to; i++) {
    const uint32_t last = t->end[i];
    double *out = dot + (size_t)i * (size_t)k;
    if (j == last) continue;
    memset(out, 0, (size_t)k * sizeof *out);
    for (; j < last; j++) {
      const double m = t->mult[j];
      const double *in = dot + (size_t)t->idx[j] * (size_t)k;
      if (isfinite(m))
        for (int d = 0; d < k; d++) out[d] += m * in[d];
      else
        for (int d = 0; d < k; d++)
          if (in[d] != 0) out[d] += m * in[d];
    }
  }
}
