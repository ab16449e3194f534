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
  release(c->alloc, c->ud, c->akon, (c->nakon + 1) * sizeof *c->akon);
  release(c->alloc, c->ud, c->asize, c->capsize * sizeof *c->asize);
  c->akon = NULL;
  c->asize = NULL;
  c->narray = c->nakon = c->capsize = c->ncall = 0;
  c->constant = NULL;
  c->ins = NULL;
  c->block = NULL;
  c->list = NULL;
  c->nconst = c->nins = c->nblock = c->nlist = c->capins = c->caplist = 0;
}

size_t ad_codebytes(const Code *c) {
  return c->nconst * sizeof *c->constant + c->capins * sizeof *c->ins +
         c->nblock * sizeof *c->block + c->caplist * sizeof *c->list +
         c->nakon * sizeof *c->akon + c->capsize * sizeof *c->asize;
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
  release(f->alloc, f->ud, f->spill, f->capspill * sizeof *f->spill);
  f->mem = NULL;
  f->spill = NULL;
  f->capspill = 0;
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

int ad_framespill(Frame *f, size_t n) {
  double *s;
  if (n <= f->capspill) return 1;
  s = f->alloc(f->ud, f->spill, f->capspill * sizeof *s, n * sizeof *s);
  if (s == NULL) return 0;
  f->spill = s;
  f->capspill = n;
  return 1;
}

/*
** The interpreter
**
** Its instructions are words. Sums, differences and products become runs of
** one operation, v[a] * v[b] + v[c], that go without a branch:
**
**      | I_RUN   | n | d a b c | d a b c | ...
**      | I_OP1   | op | d a |      I_OP2 | op | d a b |      I_OP3 ...
**      | I_LIST  | op | d n | a ...
**      | I_PUSH  | a |    I_POP | d |    I_CALL | instruction |
**      | I_IF    | cmp | a b | yes no | block |
**      | I_GOTO  | where |
**      | I_END   | block |
**
** d, a, b, c are offsets in bytes into the frame; yes, no and 'where' words of
** the program, 0 where nobody has been (word 0 is not in use). The product is
** rounded before the sum, so that v[a] * 1 + v[c], v[a] * -1 + v[c] and
** v[a] * v[b] + -0.0 are exactly the sum, the difference, and the product; and
** a product that is only added to something goes with it.
*/

enum {
  I_RUN = 1,
  I_LIST,
  I_PUSH,
  I_POP,
  I_IF,
  I_GOTO,
  I_END,
  I_CALL,
  I_OPS /* + operation */
};

typedef struct Interpreter {
  ad_Alloc alloc;
  void *ud;
  uint32_t *word;
  size_t n, cap;
  const Code *code;
} Interpreter;

#define AT(slot) ((uint32_t)((slot) * sizeof(double)))
#define MAXSLOTS (UINT32_MAX / sizeof(double))

static size_t words(const Code *c) {
  size_t n = (size_t)c->nins * 6 + (size_t)c->nblock * 10 + c->nlist + 8;
  return n;
}

void ad_codeusers(const Code *c, uint32_t *user, uint32_t *lastuse) {
  /* from behind: lastuse[slot] = 1 + instruction that reads it next, or
     UINT32_MAX if several do; user[i] = 1 + that of the value of i */
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    for (uint32_t i = b->last; i-- > b->first;) {
      const Ins *x = &c->ins[i];
      const int n = ad_insarity(x->op);
      uint32_t in[3];
      if (x->op == P_CALL) { /* not to be moved past it */
        const uint32_t *d = c->list + x->a + x->b;
        for (uint32_t j = 1; j <= d[0]; j++)
          if (!(d[j] & P_A)) lastuse[d[j]] = 0;
      } else if (x->op != P_PUSH) {
        user[i] = x->flags & P_KEEP ? 0 : lastuse[x->d];
        lastuse[x->d] = 0;
      }
      in[0] = x->a, in[1] = x->b, in[2] = x->c;
      for (int j = 0; j < n; j++)
        lastuse[in[j]] = lastuse[in[j]] ? UINT32_MAX : i + 1;
      if (ad_islist(x->op) || x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++)
          if (!(c->list[x->a + j] & P_A))
            lastuse[c->list[x->a + j]] = UINT32_MAX;
    }
    for (uint32_t i = b->first; i < b->last; i++) { /* all 0 again */
      const Ins *x = &c->ins[i];
      const int n = ad_insarity(x->op);
      if (x->op != P_PUSH && x->op != P_CALL) lastuse[x->d] = 0;
      if (n > 0) lastuse[x->a] = 0;
      if (n > 1) lastuse[x->b] = 0;
      if (n > 2) lastuse[x->c] = 0;
      if (ad_islist(x->op) || x->op == P_CALL)
        for (uint32_t j = 0; j < x->b; j++)
          if (!(c->list[x->a + j] & P_A)) lastuse[c->list[x->a + j]] = 0;
    }
    if (b->end == P_IF) { /* reads too */
      for (uint32_t i = b->last; i-- > b->first;) {
        if (c->ins[i].op == P_PUSH || c->ins[i].op == P_CALL) continue;
        if (c->ins[i].d == b->a || c->ins[i].d == b->b) user[i] = 0;
      }
    }
  }
}

/* are the operands of product m untouched up to the sum at 'to'? */
#define LOOKAHEAD 8

static int untouched(const Code *c, uint32_t m, uint32_t to) {
  const uint32_t a = c->ins[m].a, b = c->ins[m].b;
  if (to - m > LOOKAHEAD) return 0;
  for (uint32_t i = m + 1; i < to; i++)
    if (c->ins[i].op == P_CALL ||
        (c->ins[i].op != P_PUSH && (c->ins[i].d == a || c->ins[i].d == b)))
      return 0;
  return 1;
}

static uint32_t *run_add(uint32_t *at, uint32_t **run, uint32_t d, uint32_t a,
                         uint32_t b, uint32_t c) {
  if (*run == NULL) {
    *run = at;
    at[0] = I_RUN;
    at[1] = 0;
    at += 2;
  }
  (*run)[1]++;
  at[0] = AT(d);
  at[1] = AT(a);
  at[2] = AT(b);
  at[3] = AT(c);
  return at + 4;
}

static void encode(const Code *c, Interpreter *p, uint32_t *where,
                   const uint32_t *user, uint32_t *fused) {
  uint32_t *at = p->word + 1;
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    uint32_t *run = NULL;
    where[k] = (uint32_t)(at - p->word);
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &c->ins[i];
      const int n = ad_insarity(x->op);
      switch (x->op) {
      case OP_mul: {
        const uint32_t u = user[i];
        if (u != 0 && u != UINT32_MAX && c->ins[u - 1].op == OP_add &&
            fused[u - 1] == 0 && c->ins[u - 1].a != c->ins[u - 1].b &&
            untouched(c, i, u - 1)) {
          fused[u - 1] = i + 1; /* done with the sum */
          continue;
        }
        at = run_add(at, &run, x->d, x->a, x->b, 2);
        continue;
      }
      case OP_add:
        if (fused[i] != 0) {
          const Ins *m = &c->ins[fused[i] - 1];
          at = run_add(at, &run, x->d, m->a, m->b, x->a == m->d ? x->b : x->a);
        } else
          at = run_add(at, &run, x->d, x->a, 0, x->b);
        continue;
      case OP_sub:
        at = run_add(at, &run, x->d, x->b, 1, x->a);
        continue;
      case OP_unm:
        at = run_add(at, &run, x->d, x->a, 1, 2);
        continue;
      case P_MOV:
        at = run_add(at, &run, x->d, x->a, 0, 2);
        continue;
      default:
        break;
      }
      run = NULL;
      if (x->op == P_PUSH || x->op == P_POP) {
        *at++ = x->op == P_PUSH ? I_PUSH : I_POP;
        *at++ = AT(x->op == P_PUSH ? x->a : x->d);
      } else if (x->op == P_CALL) {
        *at++ = I_CALL;
        *at++ = i;
      } else if (ad_islist(x->op)) {
        *at++ = I_LIST;
        *at++ = x->op;
        *at++ = AT(x->d);
        *at++ = x->b;
        for (uint32_t j = 0; j < x->b; j++) *at++ = AT(c->list[x->a + j]);
      } else {
        *at++ = I_OPS + x->op;
        *at++ = AT(x->d);
        *at++ = AT(x->a);
        if (n > 1) *at++ = AT(x->b);
        if (n > 2) *at++ = AT(x->c);
      }
    }
    if (b->end == P_IF) {
      *at++ = I_IF;
      *at++ = b->cmp;
      *at++ = AT(b->a);
      *at++ = AT(b->b);
      *at++ = b->yes; /* blocks, until all are known */
      *at++ = b->no;
      *at++ = k;
    } else if (b->end == P_GOTO) {
      *at++ = I_GOTO;
      *at++ = b->yes;
    } else {
      *at++ = I_END;
      *at++ = k;
    }
    where[c->nblock + k] = (uint32_t)(at - p->word); /* behind the end */
  }
  p->n = (size_t)(at - p->word);
  for (uint32_t k = 0; k < c->nblock; k++) {
    uint32_t *end = p->word + where[c->nblock + k];
    const Block *b = &c->block[k];
    if (b->end == P_IF) {
      end[-3] = b->yes == P_NONE ? 0 : where[b->yes];
      end[-2] = b->no == P_NONE ? 0 : where[b->no];
    } else if (b->end == P_GOTO)
      end[-1] = where[b->yes];
  }
}

static void destroy(void *self) {
  Interpreter *p = self;
  release(p->alloc, p->ud, p->word, p->cap * sizeof *p->word);
  p->alloc(p->ud, p, sizeof *p, 0);
}

static void *make(const Code *c, const char **why) {
  const size_t n = (size_t)c->nslot + 3 * (size_t)c->nins + c->nblock * 2 + 1;
  Interpreter *p;
  uint32_t *work;
  *why = NULL;
  if (words(c) > UINT32_MAX || c->nslot > MAXSLOTS) {
    *why = "program is too large";
    return NULL;
  }
  p = c->alloc(c->ud, NULL, 0, sizeof *p);
  if (p == NULL) return NULL;
  p->alloc = c->alloc;
  p->ud = c->ud;
  p->n = p->cap = 0;
  p->code = c;
  p->word = c->alloc(c->ud, NULL, 0, words(c) * sizeof *p->word);
  if (p->word != NULL) p->cap = words(c);
  work = c->alloc(c->ud, NULL, 0, n * sizeof *work);
  if (p->word == NULL || work == NULL) {
    release(c->alloc, c->ud, work, n * sizeof *work);
    destroy(p);
    return NULL;
  }
  memset(work, 0, n * sizeof *work);
  {
    uint32_t *lastuse = work, *user = lastuse + c->nslot,
             *fused = user + c->nins, *where = fused + c->nins;
    ad_codeusers(c, user, lastuse);
    encode(c, p, where, user, fused);
  }
  release(c->alloc, c->ud, work, n * sizeof *work);
  work = c->alloc(c->ud, p->word, p->cap * sizeof *work, p->n * sizeof *work);
  if (work != NULL) {
    p->word = work;
    p->cap = p->n;
  }
  return p;
}

static size_t bytes(const void *self) {
  const Interpreter *p = self;
  return sizeof *p + p->cap * sizeof *p->word;
}

#define V(offset) (*(double *)(void *)(base + (offset)))

static uint32_t run(void *self, Frame *f) {
  const Interpreter *p = self;
  char *const base = (char *)f->v;
  const uint32_t *at = p->word + 1;
  f->nstack = 0;
  for (;;) {
    switch (*at) {
    case I_RUN: {
      uint32_t n = at[1];
      at += 2;
      do {
        V(at[0]) = V(at[1]) * V(at[2]) + V(at[3]);
        at += 4;
      } while (--n);
      break;
    }
#define OP1(name, val, d0, l0, h0, kind)                                       \
  case I_OPS + OP_##name:                                                      \
    V(at[1]) = ad_v_##name(V(at[2]));                                          \
    at += 3;                                                                   \
    break;
#define OP2(name, val, d0, d1, l0, h0, l1, h1, kind)                           \
  case I_OPS + OP_##name:                                                      \
    V(at[1]) = ad_v_##name(V(at[2]), V(at[3]));                                \
    at += 4;                                                                   \
    break;
#define OP3(name, val, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)               \
  case I_OPS + OP_##name:                                                      \
    V(at[1]) = ad_v_##name(V(at[2]), V(at[3]), V(at[4]));                      \
    at += 5;                                                                   \
    break;
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
    case I_OPS + P_ROOT:
      V(at[1]) = ad_insvalue(P_ROOT, &V(at[2]));
      at += 3;
      break;
    case I_LIST: {
      const uint32_t n = at[3];
      for (uint32_t k = 0; k < n; k++) f->scratch[k] = V(at[4 + k]);
      V(at[2]) = ad_nvalue((int)at[1], n, f->scratch);
      at += 4 + n;
      break;
    }
    case I_CALL:
      f->call(f->callud, &p->code->ins[at[1]]);
      at += 2;
      break;
    case I_PUSH:
      if (!ad_framepush(f, V(at[1]))) return P_FULL;
      at += 2;
      break;
    case I_POP:
      if (f->nstack == 0) return P_FULL; /* of a damaged file */
      V(at[1]) = f->stack[--f->nstack];
      at += 2;
      break;
    case I_IF: {
      const double a = V(at[2]), b = V(at[3]);
      int holds;
      switch (at[1]) {
      case P_LT:
        holds = a < b;
        break;
      case P_LE:
        holds = a <= b;
        break;
      default:
        holds = ad_compare((int)at[1], a, b);
      }
      if (at[holds ? 4 : 5] == 0) return at[6];
      at = p->word + at[holds ? 4 : 5];
      break;
    }
    case I_GOTO:
      at = p->word + at[1];
      break;
    default:
      return at[1];
    }
  }
}

const Backend ad_interpreter = {"interpreter", make, run, destroy, bytes};
