/* Programs stored and loaded: the same program; damaged ones: clean errors. */
#include "store.h"

#include "batch.h"
#include "export.h"
#include "random_program.h"

typedef struct Text {
  unsigned char *s;
  size_t n;
  int fails;
} Text;

static int keep(void *ud, const char *s, size_t n) {
  Text *t = ud;
  if (t->fails) return 0;
  t->s = realloc(t->s, t->n + n);
  memcpy(t->s + t->n, s, n);
  t->n += n;
  return 1;
}

static int nothing(void *ud, const char *s, size_t n) {
  (void)ud, (void)s, (void)n;
  return 1;
}

static int identical(const Code *a, const Code *b) {
  return a->nconst == b->nconst && a->nin == b->nin && a->nslot == b->nslot &&
         a->nins == b->nins && a->nblock == b->nblock && a->nlist == b->nlist &&
         a->maxlist == b->maxlist && a->loops == b->loops &&
         a->stack == b->stack &&
         memcmp(a->constant, b->constant, a->nconst * sizeof *a->constant) ==
             0 &&
         memcmp(a->ins, b->ins, a->nins * sizeof *a->ins) == 0 &&
         memcmp(a->list, b->list, a->nlist * sizeof *a->list) == 0;
}

static int sameblocks(const Code *a, const Code *b) {
  for (uint32_t k = 0; k < a->nblock; k++) {
    const Block *x = &a->block[k], *y = &b->block[k];
    if (x->first != y->first || x->last != y->last || x->end != y->end ||
        x->cmp != y->cmp || x->place != y->place || x->a != y->a ||
        x->b != y->b || x->yes != y->yes || x->no != y->no ||
        x->set != y->set || x->loop != y->loop || x->parent != y->parent)
      return 0;
  }
  return 1;
}

static Function f;

static void program(Prog *p, Code *c, int options) {
  double x[NVAR], y[NVAR];
  CHECK(ad_proginit(p, allocate, NULL, NVAR));
  make_function(&f, (int)below(2));
  for (int i = 0; i < 30; i++) {
    for (int j = 0; j < NVAR; j++) x[j] = uniform(-3, 3);
    CHECK(run_function(&f, p, x, y));
  }
  CHECK(ad_lower(p, c, options));
}

static void set(unsigned char *at, uint64_t x, int n) {
  for (int k = 0; k < n; k++) at[k] = (unsigned char)(x >> 8 * k);
}

/* what has been accepted can be used, whatever it is */
static void use(const Code *c) {
  Frame fr;
  void *self;
  const char *why;
  Batch b;
  uint8_t shared[NVAR] = {0};
  const Export e = {"f", NULL, NULL, NULL, 0, NULL, 0, nothing, NULL};
  CHECK(ad_export(c, &e));
  if (c->nin != NVAR || c->nslot > 100000) return;
  CHECK(ad_batchinit(&b, c, shared, 0, allocate, NULL));
  if (!c->loops) { /* others need not end */
    double in[64][NVAR];
    uint8_t state[64];
    Column ci[NVAR];
    BatchRun r;
    CHECK(ad_frameinit(&fr, c, allocate, NULL, 100) == 0);
    self = ad_interpreter.make(c, &why);
    CHECK(self != NULL);
    ad_interpreter.run(self, &fr);
    ad_interpreter.free(self);
    ad_framefree(&fr);
    for (int i = 0; i < 64; i++)
      for (int j = 0; j < NVAR; j++) in[i][j] = uniform(-3, 3);
    memset(&r, 0, sizeof r);
    for (int j = 0; j < NVAR; j++) {
      ci[j].at = &in[0][j];
      ci[j].stride = NVAR;
    }
    r.n = 64;
    r.in = ci;
    r.maxstack = 100;
    r.state = state;
    CHECK(ad_batchrun(&b, &r));
  }
  ad_batchfree(&b);
}

/* all programs of a text, or none; the number, or -1 and what is wrong */
static int readall(const void *s, size_t n, Code *c, Stored *in,
                   const char **why) {
  int k = 0;
  *why = ad_loadbegin(in, s, n);
  if (*why != NULL) return -1;
  CHECK(in->n > 0);
  while (in->n > 0) {
    /* nobody says that there are no more than we have stored */
    if (k < 3 && ad_load(in, &c[k], allocate, NULL, why)) {
      k++;
      continue;
    }
    if (k == 3) *why = "too many";
    while (k > 0) ad_codefree(&c[--k]);
    return -1;
  }
  return k;
}

static void damage(const Text *t, int number, long *accepted) {
  unsigned char *s = malloc(t->n + 20);
  for (int k = 0; k < number; k++) {
    Code c[3];
    Stored in;
    int m;
    size_t n = t->n;
    const char *why;
    const int kind = (int)below(4);
    int changed = 1 + (int)below(4);
    memcpy(s, t->s, t->n);
    if (kind == 0) /* cut off, or with something behind it */
      n = below(2) ? below((uint32_t)t->n) : t->n + 1 + below(8);
    else
      while (changed-- > 0) {
        const size_t first = kind == 1 ? 0 : AD_STOREHEAD;
        const size_t at = first + below((uint32_t)(t->n - first));
        if (below(3) == 0 && at + 4 <= t->n)
          set(s + at, below(2) ? below(64) : 0xffffffff - below(3), 4);
        else
          s[at] =
              (unsigned char)(below(2) ? s[at] ^ 1u << below(8) : below(256));
      }
    if (n > t->n) memset(s + t->n, 0, n - t->n);
    if (kind >= 2) { /* someone who knows the checksum */
      set(s + 16, n - AD_STOREHEAD, 8);
      set(s + 24, ad_checksum(s + AD_STOREHEAD, n - AD_STOREHEAD), 8);
    }
    m = readall(s, n, c, &in, &why);
    if (m > 0) {
      CHECK(kind >= 2 || memcmp(s, t->s, t->n) == 0);
      if (kind >= 2) (*accepted)++;
      while (m > 0) {
        use(&c[--m]);
        ad_codefree(&c[m]);
      }
    } else
      CHECK(why != NULL && why[0] != '\0');
  }
  free(s);
}

int main(int argc, char **argv) {
  const int number = argc > 1 ? atoi(argv[1]) : 10000;
  long accepted = 0;
  for (int k = 0; k < 50; k++) {
    const int m = 1 + k % 3;
    Prog p[3];
    Code c[3], d[3];
    Text t = {NULL, 0, 0};
    Stored in;
    const char *why;
    long before;
    for (int i = 0; i < m; i++) program(&p[i], &c[i], k % 2 ? P_PLAIN : 0);
    CHECK(ad_store(c, (uint32_t)m, "form", 4, keep, &t));
    CHECK(readall(t.s, t.n, d, &in, &why) == m);
    CHECK(in.nextra == 4 && memcmp(in.extra, "form", 4) == 0);
    for (int i = 0; i < m; i++) {
      CHECK(identical(&c[i], &d[i]) && sameblocks(&c[i], &d[i]));
      ad_codefree(&d[i]);
    }
    damage(&t, number / 50, &accepted);
    before = inuse;
    for (long n = 0;; n++) { /* every allocation fails */
      int ok;
      countdown = n;
      ok = readall(t.s, t.n, d, &in, &why);
      CHECK((ok > 0) == (countdown >= 0) && (ok > 0 || why == NULL));
      for (int i = 0; i < ok; i++) ad_codefree(&d[i]);
      CHECK(inuse == before);
      if (ok > 0) break;
    }
    countdown = 0;
    CHECK(!ad_store(c, 1, "", 0, keep, &t));
    countdown = -1;
    t.fails = 1;
    CHECK(!ad_store(c, 1, "", 0, keep, &t));
    t.s[8] = 1; /* the version before this one */
    why = ad_loadbegin(&in, t.s, t.n);
    CHECK(why != NULL && strcmp(why, "it was stored by another version") == 0);
    free(t.s);
    for (int i = 0; i < m; i++) {
      ad_codefree(&c[i]);
      ad_progfree(&p[i]);
    }
  }
  CHECK(accepted > 0);
  CHECK(inuse == 0);
  printf("%d damaged programs, %ld of them programs\n", number, accepted);
  printf("%s\n", failures ? "failed" : "stored programs are right");
  return failures != 0;
}
