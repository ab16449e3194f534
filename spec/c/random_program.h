/*
** random_program.h
** Random functions with branches, loops and stacks, for the tests of what
** runs, stores, or prints programs. A function is run on numbers; when a Prog
** is given, what it does is recorded at the same time, as compile does it.
*/
#ifndef random_program_h
#define random_program_h

#include "program.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NVAR 5
#define MAXNODE 400

static uint64_t seed_ = 1;

static uint32_t below(uint32_t n) {
  seed_ = seed_ * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(seed_ >> 33) % n;
}

static double uniform(double lo, double hi) {
  return lo + (hi - lo) * (below(1u << 30) * 0x1p-30);
}

/* results as they are returned */
static const uint32_t each[] = {
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,
    15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  26,  27,  28,  29,
    30,  31,  32,  33,  34,  35,  36,  37,  38,  39,  40,  41,  42,  43,  44,
    45,  46,  47,  48,  49,  50,  51,  52,  53,  54,  55,  56,  57,  58,  59,
    60,  61,  62,  63,  64,  65,  66,  67,  68,  69,  70,  71,  72,  73,  74,
    75,  76,  77,  78,  79,  80,  81,  82,  83,  84,  85,  86,  87,  88,  89,
    90,  91,  92,  93,  94,  95,  96,  97,  98,  99,  100, 101, 102, 103, 104,
    105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119,
    120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134,
    135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149,
    150, 151, 152, 153, 154, 155, 156, 157, 158, 159};
static inline Returned returned(uint32_t n) {
  const Returned r = {n, each, NULL};
  return r;
}

enum { N_OP, N_CONST, N_LIST, N_IF, N_WHILE, N_STACK };

typedef struct Node {
  int kind, op, to, a, b, c;
  double k;
  int first[2], n[2]; /* bodies: nodes in 'order' */
} Node;

typedef struct Function {
  Node node[MAXNODE];
  int nnode;
  int body[MAXNODE]; /* numbers of nodes, body after body */
  int nbody;
  int first, n;
} Function;

static const int exact[] = {
    OP_add, OP_sub,  OP_mul,   OP_div,  OP_max,  OP_min,  OP_unm,
    OP_abs, OP_sqrt, OP_atan,  OP_relu, OP_cmul, OP_cadd, OP_clamp,
    OP_mod, OP_idiv, OP_hypot, OP_sign, OP_add,  OP_mul,  P_ROOT};
static const int smooth[] = {
    OP_exp,   OP_sin, OP_cos,   OP_tanh, OP_log, OP_sigmoid, OP_softplus,
    OP_expm1, OP_pow, OP_log1p, OP_sinh, OP_erf, OP_cosh,    OP_tan};
static const int listops[] = {OP_list_sum,  OP_list_dot,  OP_list_lmax,
                              OP_list_norm, OP_list_mean, OP_list_logsumexp};

static void make_body(Function *f, int depth, int smoothly, int *first,
                      int *n) {
  int mine[10], count = 2 + (int)below(depth == 0 ? 8 : 4);
  for (int i = 0; i < count && f->nnode < MAXNODE; i++) {
    const int at = f->nnode++;
    Node *x = &f->node[at];
    uint32_t kind = below(12);
    memset(x, 0, sizeof *x);
    mine[i] = at;
    x->to = (int)below(NVAR);
    x->a = (int)below(NVAR);
    x->b = (int)below(NVAR);
    x->c = (int)below(NVAR);
    x->k = below(3) ? uniform(-2, 2) : (double)below(3);
    if (depth > 2 && kind > 6) kind = 0;
    if (kind == 5)
      x->kind = N_CONST;
    else if (kind == 6) {
      x->kind = N_LIST;
      x->op = listops[below(smoothly ? 6 : 5)];
    } else if (kind >= 7 && kind <= 9) {
      x->kind = N_IF;
      x->op = (int)below(3);
      make_body(f, depth + 1, smoothly, &x->first[0], &x->n[0]);
      make_body(f, depth + 1, smoothly, &f->node[at].first[1],
                &f->node[at].n[1]);
    } else if (kind >= 10) {
      x->kind = below(3) ? N_WHILE : N_STACK;
      make_body(f, depth + 1, smoothly, &x->first[0], &x->n[0]);
    } else {
      x->kind = N_OP;
      x->op = smoothly && below(2) ? smooth[below(14)] : exact[below(21)];
    }
    count = f->nnode >= MAXNODE ? i + 1 : count;
  }
  if (f->nbody + count > MAXNODE) count = MAXNODE - f->nbody;
  *first = f->nbody;
  *n = count;
  for (int i = 0; i < count; i++) f->body[f->nbody++] = mine[i];
}

static void make_function(Function *f, int smoothly) {
  f->nnode = f->nbody = 0;
  make_body(f, 0, smoothly, &f->first, &f->n);
}

typedef struct Run {
  const Function *f;
  Prog *p;
  double x[NVAR];
  uint32_t r[NVAR];
  double stack[256];
  int nstack, failed;
} Run;

static void got(Run *s, uint32_t r) {
  if (r == P_NOMEM || r == P_DIFFERS) s->failed = 1;
}

static uint32_t operation(Run *s, int op, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  if (s->p == NULL || s->failed) return 0;
  r = ad_recop(s->p, op, a, ad_insarity(op) > 1 ? b : 0,
               ad_insarity(op) > 2 ? c : 0);
  got(s, r);
  return r;
}

static uint32_t constant(Run *s, double x) {
  uint32_t r;
  if (s->p == NULL || s->failed) return 0;
  r = ad_progconst(s->p, x);
  got(s, r);
  return r;
}

static int condition(Run *s, int cmp, double x, double y, uint32_t a,
                     uint32_t b) {
  const int holds = ad_compare(cmp, x, y);
  if (s->p != NULL && !s->failed) got(s, ad_recif(s->p, cmp, a, b, holds, 0));
  return holds;
}

static void run_body(Run *s, int first, int n);

/* k = 0; while k < bound do body; push; k = k + 1 end, and back if 'back' */
static void run_loop(Run *s, const Node *x) {
  double k = 0, bound = fmod(fabs(s->x[x->a]) * 4, 9);
  uint32_t in[NVAR + 1], rk, rb, head = 0;
  if (!(bound >= 0)) bound = 0;
  rb = operation(s, OP_abs, s->r[x->a], 0, 0);
  rb = operation(s, OP_mul, rb, constant(s, 4), 0);
  rb = operation(s, OP_fmod, rb, constant(s, 9), 0);
  rb = operation(s, OP_max, constant(s, 0), rb, 0);
  for (int phase = 0; phase < 1 + (x->kind == N_STACK); phase++) {
    rk = phase == 0 ? constant(s, 0) : in[NVAR];
    memcpy(in, s->r, sizeof s->r);
    in[NVAR] = rk;
    if (s->p != NULL && !s->failed) {
      got(s, ad_recenter(s->p, NVAR + 1, in));
      if (!s->failed) {
        head = s->p->here;
        for (uint32_t j = 0; j <= NVAR; j++)
          in[j] = s->p->block[head].first + j;
      }
    }
    memcpy(s->r, in, sizeof s->r);
    rk = in[NVAR];
    while (phase == 0 ? condition(s, P_LT, k, bound, rk, rb)
                      : condition(s, P_LT, 0, k, constant(s, 0), rk)) {
      if (phase == 0) {
        run_body(s, x->first[0], x->n[0]);
        if (x->kind == N_STACK) {
          s->stack[s->nstack++] = s->x[x->b];
          operation(s, P_PUSH, s->r[x->b], 0, 0);
        }
        k = k + 1;
        rk = operation(s, OP_add, rk, constant(s, 1), 0);
      } else {
        const double top = s->stack[--s->nstack];
        const uint32_t rt = operation(s, P_POP, 0, 0, 0);
        s->x[x->to] = s->x[x->to] - top;
        s->r[x->to] = operation(s, OP_sub, s->r[x->to], rt, 0);
        k = k - 1;
        rk = operation(s, OP_sub, rk, constant(s, 1), 0);
      }
      if (s->p != NULL && !s->failed) {
        uint32_t out[NVAR + 1];
        memcpy(out, s->r, sizeof s->r);
        out[NVAR] = rk;
        got(s, ad_recagain(s->p, head, NVAR + 1, out));
      }
      memcpy(s->r, in, sizeof s->r);
      rk = in[NVAR];
    }
    in[NVAR] = rk;
  }
}

static void run_body(Run *s, int first, int n) {
  for (int i = 0; i < n && !s->failed; i++) {
    const Node *x = &s->f->node[s->f->body[first + i]];
    double in[3];
    uint32_t at[NVAR];
    in[0] = s->x[x->a], in[1] = s->x[x->b], in[2] = s->x[x->c];
    switch (x->kind) {
    case N_OP:
      s->r[x->to] = operation(s, x->op, s->r[x->a], s->r[x->b], s->r[x->c]);
      s->x[x->to] = ad_insvalue(x->op, in);
      break;
    case N_CONST:
      s->r[x->to] = operation(s, OP_add, s->r[x->a], constant(s, x->k), 0);
      s->x[x->to] = s->x[x->a] + x->k;
      break;
    case N_LIST:
      at[0] = s->r[x->a], at[1] = s->r[x->b], at[2] = s->r[x->c];
      at[3] = constant(s, x->k);
      if (s->p != NULL && !s->failed)
        got(s, at[0] = ad_reclist(s->p, x->op, 4, at));
      {
        const double y[4] = {in[0], in[1], in[2], x->k};
        s->x[x->to] = ad_nvalue(x->op, 4, y);
      }
      s->r[x->to] = at[0];
      break;
    case N_IF: {
      const int side =
          !condition(s, x->op, in[0], x->k, s->r[x->a], constant(s, x->k));
      run_body(s, x->first[side], x->n[side]);
      break;
    }
    default:
      run_loop(s, x);
    }
  }
}

/* the function at a point; records if p is not NULL. 0: that failed */
static int run_function(const Function *f, Prog *p, const double *x,
                        double *y) {
  Run s;
  memset(&s, 0, sizeof s);
  s.f = f;
  s.p = p;
  for (uint32_t k = 0; k < NVAR; k++) {
    s.x[k] = x[k];
    s.r[k] = k;
  }
  if (p != NULL) ad_recstart(p);
  run_body(&s, f->first, f->n);
  if (p != NULL && !s.failed) got(&s, ad_recreturn(p, 0, NVAR, s.r));
  if (p != NULL && s.failed) ad_recabort(p);
  memcpy(y, s.x, sizeof s.x);
  return !s.failed;
}

static inline int same(double a, double b) { return ad_compare(P_SAME, a, b); }

/* the difference in units of the last place of the larger */
static inline double ulps(double a, double b) {
  int e;
  double m = fmax(fabs(a), fabs(b));
  if (same(a, b) || a == b) return 0;
  if (!(m < HUGE_VAL)) return HUGE_VAL;
  if (m < 0x1p-1022) m = 0x1p-1022;
  frexp(m, &e);
  return fabs(a - b) / ldexp(1, e - 53);
}

#endif
