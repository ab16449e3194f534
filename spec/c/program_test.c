/* Programs without Lua: recording, following, branches, loops, lowering. */
#include "program.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* runs the program once; the block where it ended, and the first result */
static uint32_t eval(const Prog *p, int options, const double *x, double *y) {
  Code c;
  Frame f;
  const char *why;
  uint32_t at;
  void *self;
  if (!ad_lower(p, &c, options)) return P_FULL;
  if (ad_frameinit(&f, &c, allocate, NULL, 1000) != 0) {
    ad_codefree(&c);
    return P_FULL;
  }
  self = ad_interpreter.make(&c, &why);
  if (self == NULL) {
    ad_framefree(&f);
    ad_codefree(&c);
    return P_FULL;
  }
  memcpy(f.v + c.nconst, x, c.nin * sizeof *x);
  at = ad_interpreter.run(self, &f);
  if (at != P_FULL && c.block[at].end == P_RETURN)
    *y = f.v[c.list[c.block[at].a]];
  ad_interpreter.free(self);
  ad_framefree(&f);
  ad_codefree(&c);
  return at;
}

/* records if x < y then x * y + sin(x) else (x - y)^2 */
static uint32_t trace(Prog *p, double x, double y) {
  uint32_t r, s;
  ad_recstart(p);
  r = ad_recop(p, OP_mul, 0, 1, 0);
  if (r >= P_DIFFERS) return r;
  s = ad_recif(p, P_LT, 0, 1, x < y, 0);
  if (s != 0) return s;
  if (x < y) {
    s = ad_recop(p, OP_sin, 0, 0, 0);
    if (s >= P_DIFFERS) return s;
    r = ad_recop(p, OP_add, r, s, 0);
  } else {
    r = ad_recop(p, OP_sub, 0, 1, 0);
    if (r >= P_DIFFERS) return r;
    s = ad_progconst(p, 2);
    if (s == P_NOMEM) return s;
    r = ad_recop(p, OP_pow, r, s, 0);
  }
  if (r >= P_DIFFERS) return r;
  return ad_recreturn(p, 0, 1, &r);
}

static void branches(void) {
  const double low[2] = {2, 3}, high[2] = {3, 2};
  for (int options = 0; options <= P_PLAIN; options++) {
    Prog p;
    double y = 0;
    uint32_t at, n;
    CHECK(ad_proginit(&p, allocate, NULL, 2));
    CHECK(trace(&p, 2, 3) == 0);
    at = eval(&p, options, low, &y);
    CHECK(p.block[at].end == P_RETURN && y == 2.0 * 3 + sin(2.0));
    at = eval(&p, options, high, &y);
    CHECK(p.block[at].end == P_IF && p.block[at].no == P_NONE);
    n = p.nins;
    CHECK(trace(&p, 3, 2) == 0);
    CHECK(p.nins == n + 2 && p.ntrace == 2); /* the rest is shared */
    at = eval(&p, options, high, &y);
    CHECK(p.block[at].end == P_RETURN && y == 1);
    at = eval(&p, options, low, &y);
    CHECK(p.block[at].end == P_RETURN && y == 2.0 * 3 + sin(2.0));
    CHECK(trace(&p, 3, 2) == 0 && p.ntrace == 2);
    ad_progfree(&p);
  }
}

/* while p < 100 do p, q = p * x, p end return p + q, as program.h shows it */
static void loop(void) {
  const double x[1] = {3};
  for (int options = 0; options <= P_PLAIN; options++) {
    Prog p;
    double y = 0;
    uint32_t k, v, at, in[2];
    CHECK(ad_proginit(&p, allocate, NULL, 1));
    k = ad_progconst(&p, 100);
    ad_recstart(&p);
    in[0] = in[1] = 0;
    CHECK(ad_recenter(&p, 2, in) == 0);
    CHECK(ad_recif(&p, P_LT, 1, k, 1, 0) == 0);
    v = ad_recop(&p, OP_mul, 1, 0, 0);
    in[0] = v, in[1] = 1;
    CHECK(ad_recagain(&p, 1, 2, in) == 0);
    CHECK(ad_recif(&p, P_LT, 1, k, 0, 0) == 0);
    v = ad_recop(&p, OP_add, 1, 2, 0);
    CHECK(ad_recreturn(&p, 0, 1, &v) == 0);
    at = eval(&p, options, x, &y);
    CHECK(p.block[at].end == P_RETURN && y == 243 + 81);
    ad_progfree(&p);
  }
}

/* the gradient of the loop by x, which is x's power: 4 x^3 + 5 x^4 for 3 */
static void gradient(void) {
  const uint32_t want = 0;
  for (int options = 0; options <= P_PLAIN; options++) {
    Prog p, q;
    double y = 0;
    const double x[1] = {3};
    uint32_t k, v, at, in[2];
    CHECK(ad_proginit(&p, allocate, NULL, 1));
    k = ad_progconst(&p, 100);
    ad_recstart(&p);
    in[0] = in[1] = 0;
    CHECK(ad_recenter(&p, 2, in) == 0);
    CHECK(ad_recif(&p, P_LT, 1, k, 1, 0) == 0);
    v = ad_recop(&p, OP_mul, 1, 0, 0);
    in[0] = v, in[1] = 1;
    CHECK(ad_recagain(&p, 1, 2, in) == 0);
    CHECK(ad_recif(&p, P_LT, 1, k, 0, 0) == 0);
    v = ad_recop(&p, OP_add, 1, 2, 0);
    CHECK(ad_recreturn(&p, 0, 1, &v) == 0);
    CHECK(ad_progadjoint(&p, &q, 1, &want, 0) == P_GDONE);
    /* the first of the results is looked at: make it the derivative */
    for (k = 0; k < q.nblock; k++)
      if (q.block[k].end == P_RETURN) q.block[k].a++, q.block[k].b--;
    at = eval(&q, options, x, &y);
    CHECK(q.block[at].end == P_RETURN && y == 5 * 81 + 4 * 27);
    ad_progfree(&p);
    ad_progfree(&q);
  }
}

/*
** s = x; for i = 0, n - 1 do for j = 0, i - 1 do s = sin(s) * x end end: the
** loop within the loop is first seen when it has no rounds.
*/
static int nested(Prog *p, double n) {
  uint32_t in[2], outer, inner, s1, i1, s2, j2;
  const uint32_t zero = ad_progconst(p, 0), one = ad_progconst(p, 1);
  if (zero == P_NOMEM || one == P_NOMEM) return 0;
  ad_recstart(p);
  in[0] = 0, in[1] = zero;
  if (ad_recenter(p, 2, in) != 0) return 0;
  outer = p->here;
  s1 = p->block[outer].first, i1 = s1 + 1;
  for (double i = 0;; i++) {
    if (ad_recif(p, P_LT, i1, 1, i < n, 0) != 0) return 0;
    if (i >= n) break;
    in[0] = s1, in[1] = zero;
    if (ad_recenter(p, 2, in) != 0) return 0;
    inner = p->here;
    s2 = p->block[inner].first, j2 = s2 + 1;
    for (double j = 0;; j++) {
      if (ad_recif(p, P_LT, j2, i1, j < i, 0) != 0) return 0;
      if (j >= i) break;
      in[0] = ad_recop(p, OP_sin, s2, 0, 0);
      in[0] = ad_recop(p, OP_mul, in[0], 0, 0);
      in[1] = ad_recop(p, OP_add, j2, one, 0);
      if (in[0] == P_NOMEM || in[1] == P_NOMEM) return 0;
      if (ad_recagain(p, inner, 2, in) != 0) return 0;
    }
    in[0] = s2;
    in[1] = ad_recop(p, OP_add, i1, one, 0);
    if (in[1] == P_NOMEM || ad_recagain(p, outer, 2, in) != 0) return 0;
  }
  return ad_recreturn(p, 0, 1, &s1) == 0;
}

/* runs the gradient of that with so much stack: 0 if that is too little */
static int backwards(const Prog *q, const Backend *b, size_t room, double n,
                     double *y) {
  const double x[2] = {0.9, n};
  const char *why;
  Code c;
  Frame f;
  void *self;
  uint32_t at;
  CHECK(ad_lower(q, &c, 0));
  CHECK(ad_frameinit(&f, &c, allocate, NULL, room) == 0);
  self = b->make(&c, &why);
  if (self == NULL) self = (b = &ad_interpreter)->make(&c, &why);
  memcpy(f.v + c.nconst, x, sizeof x);
  at = b->run(self, &f);
  CHECK(f.capstack <= room);
  if (at != P_FULL) {
    CHECK(c.block[at].end == P_RETURN && c.block[at].b == 2);
    CHECK(b == &ad_native || f.nstack == 0);
    for (uint32_t k = 0; k < 2; k++) y[k] = f.v[c.list[c.block[at].a + k]];
  }
  b->free(self);
  ad_framefree(&f);
  ad_codefree(&c);
  return at != P_FULL;
}

/* in as little room as there may be, with the same bits */
static void rooms(void) {
  const Backend *const backend[] = {&ad_interpreter, &ad_native};
  const uint32_t want = 0;
  Prog p, q;
  CHECK(ad_proginit(&p, allocate, NULL, 2));
  CHECK(nested(&p, 4));
  for (double n = 0; n < 40; n += n < 5 ? 1 : 17) {
    double s = 0.9, ds = 1, y[2] = {0, 0}, z[2] = {0, 0};
    for (double i = 0; i < n; i++)
      for (double j = 0; j < i; j++) {
        ds = cos(s) * ds * 0.9 + sin(s);
        s = sin(s) * 0.9;
      }
    CHECK(ad_progadjoint(&p, &q, 1, &want, 0) == P_GDONE);
    CHECK(backwards(&q, &ad_interpreter, 100000, n, y));
    CHECK(y[0] == s && fabs(y[1] - ds) <= 1e-14 * fabs(ds));
    ad_progfree(&q);
    /* a set of each loop has three numbers: two that go round, the round */
    for (size_t room = 5; room < 300; room += 1 + room / 8) {
      CHECK(ad_progadjoint(&p, &q, 1, &want, room) == P_GDONE);
      for (int k = 0; k < 2; k++) {
        const int ok = backwards(&q, backend[k], room, n, z);
        CHECK(ok == (room >= 6 || n < 2));
        CHECK(!ok || memcmp(y, z, sizeof y) == 0);
      }
      ad_progfree(&q);
    }
  }
  ad_progfree(&p);
}

/* many operations, in order, that are used far apart */
static void size(void) {
  enum { N = 1000000 };
  Prog p;
  Code c;
  uint32_t r = 0, k;
  CHECK(ad_proginit(&p, allocate, NULL, 2));
  ad_recstart(&p);
  k = ad_progconst(&p, 0.5);
  for (int i = 0; i < N; i++) {
    r = ad_recop(&p, i % 2 ? OP_mul : OP_add, r, i % 2 ? k : 1, 0);
    if (i % 1000 == 999) r = ad_recop(&p, OP_sub, r, (uint32_t)i / 2 + 2, 0);
  }
  CHECK(ad_recreturn(&p, 0, 1, &r) == 0);
  CHECK(ad_lower(&p, &c, 0));
  CHECK(c.nslot < 10000 + N / 1000 * 2);
  ad_codefree(&c);
  ad_progfree(&p);
}

/* a sum of many terms, two quotients, and a loop with what does not change in
   it: while p < 100 do p = p * y * x + y end */
static uint32_t busy(Prog *p) {
  const uint32_t k = ad_progconst(p, 100);
  uint32_t r, s, in[1];
  if (k == P_NOMEM) return k;
  ad_recstart(p);
  s = ad_recop(p, OP_mul, 0, 0, 0);
  if (s >= P_DIFFERS) return s;
  for (uint32_t i = 0; i < 40; i++) {
    r = ad_recop(p, OP_sin, s, 0, 0);
    if (r >= P_DIFFERS) return r;
    s = ad_recop(p, i % 3 ? OP_add : OP_sub, s, r, 0);
    if (s >= P_DIFFERS) return s;
  }
  for (uint32_t i = 0; i < 2; i++) {
    r = ad_recop(p, OP_div, i, s, 0);
    if (r >= P_DIFFERS) return r;
    s = ad_recop(p, OP_mul, s, r, 0);
    if (s >= P_DIFFERS) return s;
  }
  in[0] = 0;
  if ((r = ad_recenter(p, 1, in)) != 0) return r;
  in[0] = p->block[p->nblock - 1].first; /* the phi */
  if ((r = ad_recif(p, P_LT, in[0], k, 1, 0)) != 0) return r;
  r = ad_recop(p, OP_mul, in[0], 1, 0);
  if (r < P_DIFFERS) r = ad_recop(p, OP_mul, r, 0, 0);
  if (r < P_DIFFERS) r = ad_recop(p, OP_add, r, 1, 0);
  if (r >= P_DIFFERS) return r;
  if ((r = ad_recagain(p, 1, 1, &r)) != 0) return r;
  if ((r = ad_recif(p, P_LT, in[0], k, 0, 0)) != 0) return r;
  in[0] = ad_recop(p, OP_add, in[0], s, 0);
  if (in[0] >= P_DIFFERS) return in[0];
  return ad_recreturn(p, 0, 1, in);
}

/* every allocation fails once */
static void memory(void) {
  for (int options = 0; options <= P_PLAIN; options++)
    for (int which = 0; which < 2; which++)
      for (long n = 0;; n++) {
        Prog p;
        double y = 0;
        const double x[2] = {2, 3};
        long left;
        countdown = n;
        if (ad_proginit(&p, allocate, NULL, 2)) {
          if ((which ? busy(&p) : trace(&p, 2, 3)) != 0)
            ad_recabort(&p);
          else
            eval(&p, options, x, &y);
          ad_progfree(&p);
        }
        left = countdown;
        countdown = -1;
        CHECK(inuse == 0);
        if (left < 0) continue;
        CHECK(y != 0);
        break;
      }
  for (size_t room = 0; room < 10; room += 9)
    for (long n = 0;; n++) {
      const uint32_t want = 0;
      Prog p, q;
      long left;
      int went;
      CHECK(ad_proginit(&p, allocate, NULL, 2));
      CHECK(nested(&p, 3));
      countdown = n;
      went = ad_progadjoint(&p, &q, 1, &want, room);
      left = countdown;
      countdown = -1;
      CHECK(went == (left < 0 ? P_GNOMEM : P_GDONE));
      if (left >= 0) ad_progfree(&q);
      ad_progfree(&p);
      CHECK(inuse == 0);
      if (left >= 0) break;
    }
}

int main(void) {
  branches();
  loop();
  gradient();
  rooms();
  size();
  memory();
  CHECK(inuse == 0);
  printf("%s\n", failures ? "failed" : "programs are right");
  return failures != 0;
}
