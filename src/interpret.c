/*
** interpret.c
** Frames, and the back end that every build has: an interpreter.
*/
#include "program.h"

#include <string.h>

/*
** Code and frames
*/

static void release(ad_Alloc alloc, void *ud, void *ptr, size_t size) {
  if (ptr != NULL) alloc(ud, ptr, size, 0);
}

void ad_codefree(Code *c) {
  release(c->alloc, c->ud, c->constant, c->nconst * sizeof *c->constant);
  release(c->alloc, c->ud, c->ins, c->capins * sizeof *c->ins);
  release(c->alloc, c->ud, c->block, c->nblock * sizeof *c->block);
  release(c->alloc, c->ud, c->list, c->caplist * sizeof *c->list);
  c->constant = NULL;
  c->ins = NULL;
  c->block = NULL;
  c->list = NULL;
  c->nconst = c->nins = c->nblock = c->nlist = c->capins = c->caplist = 0;
}

size_t ad_codebytes(const Code *c) {
  return c->nconst * sizeof *c->constant + c->capins * sizeof *c->ins +
         c->nblock * sizeof *c->block + c->caplist * sizeof *c->list;
}

#define ALIGN 64

size_t ad_frameinit(Frame *f, const Code *c, ad_Alloc alloc, void *ud,
                    size_t maxstack) {
  const size_t n = ((size_t)c->nslot + 7) / 8 * 8;
  memset(f, 0, sizeof *f);
  f->alloc = alloc;
  f->ud = ud;
  f->maxstack = maxstack;
  f->size = (n + c->maxlist) * sizeof(double) + ALIGN;
  f->mem = alloc(ud, NULL, 0, f->size);
  if (f->mem == NULL) return f->size;
  f->v = (double *)(void *)((char *)f->mem +
                            (ALIGN - (uintptr_t)f->mem % ALIGN) % ALIGN);
  f->scratch = f->v + n;
  memset(f->v, 0, n * sizeof(double));
  memcpy(f->v, c->constant, c->nconst * sizeof(double));
  return 0;
}

void ad_framefree(Frame *f) {
  release(f->alloc, f->ud, f->mem, f->size);
  release(f->alloc, f->ud, f->stack, f->capstack * sizeof *f->stack);
  f->mem = NULL;
  f->v = f->scratch = f->stack = NULL;
  f->nstack = f->capstack = 0;
}

int ad_framepush(Frame *f, double x) {
  if (f->nstack == f->capstack) {
    size_t ncap = f->capstack * 2 + 64;
    double *s;
    if (ncap > f->maxstack) ncap = f->maxstack;
    if (ncap <= f->nstack) return 0;
    s = f->alloc(f->ud, f->stack, f->capstack * sizeof *s, ncap * sizeof *s);
    if (s == NULL) return 0;
    f->stack = s;
    f->capstack = ncap;
  }
  f->stack[f->nstack++] = x;
  return 1;
}

/*
** The interpreter
*/

static void *make(const Code *c, const char **why) {
  *why = NULL;
  return (void *)(uintptr_t)c;
}

static void nothing(void *self) { (void)self; }

static size_t nobytes(const void *self) {
  (void)self;
  return 0;
}

static uint32_t run(void *self, Frame *f) {
  const Code *c = self;
  double *const v = f->v;
  uint32_t at = 0;
  f->nstack = 0;
  for (;;) {
    const Block *b = &c->block[at];
    for (const Ins *i = c->ins + b->first; i < c->ins + b->last; i++) {
      switch (i->op) {
#define OP1(name, val, d0, l0, h0, kind)                                       \
  case OP_##name:                                                              \
    v[i->d] = ad_v_##name(v[i->a]);                                            \
    break;
#define OP2(name, val, d0, d1, l0, h0, l1, h1, kind)                           \
  case OP_##name:                                                              \
    v[i->d] = ad_v_##name(v[i->a], v[i->b]);                                   \
    break;
#define OP3(name, val, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)               \
  case OP_##name:                                                              \
    v[i->d] = ad_v_##name(v[i->a], v[i->b], v[i->c]);                          \
    break;
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
      case P_MOV:
        v[i->d] = v[i->a];
        break;
      case P_ROOT:
        v[i->d] = ad_insvalue(P_ROOT, &v[i->a]);
        break;
      case P_PUSH:
        if (!ad_framepush(f, v[i->a])) return P_FULL;
        break;
      case P_POP:
        v[i->d] = f->stack[--f->nstack];
        break;
      default:
        for (uint32_t k = 0; k < i->b; k++)
          f->scratch[k] = v[c->list[i->a + k]];
        v[i->d] = ad_nvalue(i->op, i->b, f->scratch);
      }
    }
    if (b->end == P_IF)
      at = ad_compare(b->cmp, v[b->a], v[b->b]) ? b->yes : b->no;
    else if (b->end == P_GOTO)
      at = b->yes;
    else
      return (uint32_t)(b - c->block);
    if (at == P_NONE) return (uint32_t)(b - c->block);
  }
}

const Backend ad_interpreter = {"interpreter", make, run, nothing, nobytes};
