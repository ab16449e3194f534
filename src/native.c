/*
** native.c
** The back end that runs machine code: what the CPU has, memory that can be
** executed, and the functions that the code calls.
**
** No mapping is ever writable and executable. Where one may not become the
** other (PR_SET_MDWE, and rules of the kind of SELinux's execmem) a file in
** memory is mapped twice, one after the other; where that is forbidden, too,
** there is no native code, and 'make' says so.
*/
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* memfd_create */
#endif

#include "x64.h"

#include <string.h>

/* System V's calling convention, and pointers of 64 bits. AD_NO_NATIVE: as if
   the machine were another one. */
#if defined(__x86_64__) && defined(__LP64__) && defined(__GNUC__) &&           \
    (defined(__unix__) || defined(__APPLE__)) && !defined(__CYGWIN__) &&       \
    !defined(AD_NO_NATIVE)
#define HERE 1
#else
#define HERE 0
#endif

#if HERE

#include <cpuid.h>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(MAP_ANONYMOUS) && defined(MAP_ANON)
#define MAP_ANONYMOUS MAP_ANON
#endif

typedef uint32_t Function(double *v, double *spill, Frame *f,
                          const Helper *table);

typedef struct Native {
  ad_Alloc alloc;
  void *ud;
  uint8_t *code; /* a mapping */
  size_t size, entry;
  size_t nspill;
  Function *f;
  int features;
} Native;

/*
** The CPU
*/

/* does the system save the upper halves of the registers, too? */
static int savesymm(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & 6) == 6;
}

int ad_nativefeatures(void) {
  unsigned a, b, c, d;
  int x = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  if (c & bit_SSE4_1) x |= X_SSE41;
  if ((x & X_SSE41) && (c & bit_AVX) && (c & bit_OSXSAVE) && savesymm())
    x |= X_AVX;
  if ((x & X_AVX) && (c & bit_FMA)) x |= X_FMA;
  return x;
}

/*
** Functions that the code calls
*/

#define OP1(name, v, d0, l0, h0, kind)                                         \
  static double h_##name(double a) { return ad_v_##name(a); }
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  static double h_##name(double a, double b) { return ad_v_##name(a, b); }
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  static double h_##name(double a, double b, double c) {                       \
    return ad_v_##name(a, b, c);                                               \
  }
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3

/* C libraries compute both from the same reduction and the same polynomials
   as one of them: the results are the same bits */
typedef struct Two {
  double sine, cosine; /* in two registers when returned */
} Two;

static Two both(double a) {
  Two t;
#if defined(__GLIBC__)
  sincos(a, &t.sine, &t.cosine);
#else
  t.sine = sin(a);
  t.cosine = cos(a);
#endif
  return t;
}

/* the operands are in f's scratch */
static double list(const Frame *f, uint32_t op, uint32_t n) {
  return ad_nvalue((int)op, n, f->scratch);
}

/* makes room on the frame's stack; the new top, or NULL */
static double *room(Frame *f, const double *top) {
  f->nstack = f->stack == NULL ? 0 : (size_t)(top - f->stack);
  if (!ad_framepush(f, 0)) return NULL;
  return f->stack + --f->nstack;
}

static const Helper table[H_COUNT] = {
#define OP1(name, v, d0, l0, h0, kind) [OP_##name] = (Helper)h_##name,
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  [OP_##name] = (Helper)h_##name,
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  [OP_##name] = (Helper)h_##name,
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
    [H_LIST] = (Helper)list,
    [H_ROOM] = (Helper)room,
    [H_SINCOS] = (Helper)both,
};

/*
** Memory that can be executed
*/

#define SLACK 64 /* behind the code: who reads it looks ahead, as valgrind */

static uint8_t *turned(const uint8_t *code, size_t n, size_t size) {
  uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  memcpy(p, code, n);
  if (mprotect(p, size, PROT_READ | PROT_EXEC) == 0) return p;
  munmap(p, size);
  return NULL;
}

static uint8_t *twice(const uint8_t *code, size_t n, size_t size) {
#ifdef MFD_CLOEXEC
  const int fd = memfd_create("autodiff", MFD_CLOEXEC);
  uint8_t *p = MAP_FAILED;
  if (fd < 0) return NULL;
  if (ftruncate(fd, (off_t)size) == 0)
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p != MAP_FAILED) {
    memcpy(p, code, n);
    munmap(p, size);
    p = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  }
  close(fd);
  return p == MAP_FAILED ? NULL : p;
#else
  (void)code, (void)n, (void)size;
  return NULL;
#endif
}

/* NULL: the system has none */
static uint8_t *executable(const Asm *s, size_t *size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uint8_t *p;
  *size = (s->n + SLACK + page - 1) / page * page;
  p = turned(s->code, s->n, *size);
  return p != NULL ? p : twice(s->code, s->n, *size);
}

static const char refused[] = "the system gives no memory for machine code";

/*
** The back end
*/

void *ad_nativemake(const Code *c, int features, const char **why) {
  X64 x;
  Native *self = c->alloc(c->ud, NULL, 0, sizeof *self);
  *why = NULL;
  if (self == NULL) return NULL;
  if (!ad_x64(&x, c, features, 0, why)) {
    c->alloc(c->ud, self, sizeof *self, 0);
    return NULL;
  }
  self->alloc = c->alloc;
  self->ud = c->ud;
  self->entry = x.entry;
  self->nspill = x.nspill;
  self->features = features;
  self->code = executable(&x.s, &self->size);
  ad_asmfree(&x.s);
  if (self->code == NULL) {
    *why = refused;
    c->alloc(c->ud, self, sizeof *self, 0);
    return NULL;
  }
  /* an object's address as a function's, which C does not convert */
  memcpy(&self->f, &(uint8_t *){self->code + self->entry}, sizeof self->f);
  return self;
}

static void *make(const Code *c, const char **why) {
  return ad_nativemake(c, ad_nativefeatures(), why);
}

static uint32_t run(void *self, Frame *f) {
  const Native *n = self;
  f->nstack = 0;
  if (n->nspill > f->capspill && !ad_framespill(f, n->nspill)) return P_FULL;
  return n->f(f->v, f->spill, f, table);
}

static void unmake(void *self) {
  Native *n = self;
  munmap(n->code, n->size);
  n->alloc(n->ud, n, sizeof *n, 0);
}

static size_t bytes(const void *self) {
  const Native *n = self;
  return n->size + sizeof *n;
}

const char *ad_nativename(const void *self) {
  const Native *n = self;
  return n->features & X_AVX     ? "native (x86-64, AVX)"
         : n->features & X_SSE41 ? "native (x86-64, SSE4.1)"
                                 : "native (x86-64, SSE2)";
}

/*
** Vectors
*/

Vectors *ad_nativevectors(const Code *c, const uint32_t *place, int features,
                          const char **why) {
  Vectors *x;
  *why = NULL;
  if (!(features & X_AVX)) {
    *why = "the machine has no AVX";
    return NULL;
  }
  x = c->alloc(c->ud, NULL, 0, sizeof *x);
  if (x == NULL) return NULL;
  if (!ad_x64wide(&x->w, c, place, features, 0, why)) {
    c->alloc(c->ud, x, sizeof *x, 0);
    return NULL;
  }
  x->code = executable(&x->w.x.s, &x->size);
  ad_asmfree(&x->w.x.s);
  if (x->code == NULL) {
    *why = refused;
    ad_x64widefree(&x->w);
    c->alloc(c->ud, x, sizeof *x, 0);
    return NULL;
  }
  return x;
}

void ad_nativevectorsfree(Vectors *x) {
  const Asm s = x->w.x.s;
  munmap(x->code, x->size);
  ad_x64widefree(&x->w);
  s.alloc(s.ud, x, sizeof *x, 0);
}

size_t ad_nativevectorsbytes(const Vectors *x) {
  return x->size + sizeof *x + x->w.capstep * sizeof *x->w.step +
         (x->w.nblock + 1) * sizeof *x->w.of;
}

void ad_nativevectorsrun(const Vectors *x, const Step *step, double *v,
                         double *spill, size_t n) {
  void (*f)(double *, double *, const double *, size_t);
  memcpy(&f, &(uint8_t *){x->code + step->entry}, sizeof f);
  if (n > 0) f(v, spill, v, (n + step->points - 1) / step->points);
}

#else

Vectors *ad_nativevectors(const Code *c, const uint32_t *place, int features,
                          const char **why) {
  (void)c, (void)place, (void)features;
  *why = "not on this machine";
  return NULL;
}

void ad_nativevectorsfree(Vectors *x) { (void)x; }

size_t ad_nativevectorsbytes(const Vectors *x) {
  (void)x;
  return 0;
}

void ad_nativevectorsrun(const Vectors *x, const Step *step, double *v,
                         double *spill, size_t n) {
  (void)x, (void)step, (void)v, (void)spill, (void)n;
}

int ad_nativefeatures(void) { return 0; }

void *ad_nativemake(const Code *c, int features, const char **why) {
  (void)c, (void)features;
  *why = "not on this machine";
  return NULL;
}

static void *make(const Code *c, const char **why) {
  return ad_nativemake(c, 0, why);
}

static uint32_t run(void *self, Frame *f) {
  (void)self, (void)f;
  return P_FULL;
}

static void unmake(void *self) { (void)self; }

static size_t bytes(const void *self) {
  (void)self;
  return 0;
}

const char *ad_nativename(const void *self) {
  (void)self;
  return "native";
}

#endif

const Backend ad_native = {"native", make, run, unmake, bytes};
