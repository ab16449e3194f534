/*
** export.c
** Programs as C. Slots become local variables, blocks become labels, and what
** an operation is comes from ops.h itself, as a text.
*/
#include "export.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const optext[] = {
#define OP1(name, v, d0, l0, h0, kind) #v,
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind) #v,
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind) #v,
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
#define NOP(name, v, rule) #v,
#include "nary.h"
#undef NOP
};

typedef struct Writer {
  const Code *c;
  const Export *e;
  uint8_t *reached; /* by block */
  uint8_t *label;   /* by block: is it jumped to? */
  uint8_t *slot;    /* by slot: 1 written, 2 read */
  uint8_t *helper;  /* by helper: 1 needed, 2 and so are those it needs */
  uint8_t *op;      /* by operation of the table: needed as a function? */
  size_t nhelper;
  int failed, same;
} Writer;

static void putn(Writer *w, const char *s, size_t n) {
  if (!w->failed && n > 0 && !w->e->write(w->e->ud, s, n)) w->failed = 1;
}

static void put(Writer *w, const char *s) { putn(w, s, strlen(s)); }

static void putu(Writer *w, uint32_t n) {
  char s[16];
  put(w, (sprintf(s, "%" PRIu32, n), s));
}

/* exactly, and whatever the locale is */
static void putd(Writer *w, double x) {
  char s[64];
  uint64_t u;
  if (x != x)
    put(w, "NAN");
  else if (x == HUGE_VAL || x == -HUGE_VAL)
    put(w, x > 0 ? "HUGE_VAL" : "(-HUGE_VAL)");
  else if (x == floor(x) && fabs(x) < 1e9)
    put(w, (sprintf(s, signbit(x) ? "(-%" PRIu32 ".0)" : "%" PRIu32 ".0",
                    (uint32_t)fabs(x)),
            s));
  else {
    memcpy(&u, &x, sizeof u);
    sprintf(s, "%s0x%d.%013" PRIx64 "p%+d%s", u >> 63 ? "(-" : "",
            (u >> 52 & 0x7ff) != 0, u & UINT64_C(0xfffffffffffff),
            (u >> 52 & 0x7ff) != 0 ? (int)(u >> 52 & 0x7ff) - 1023 : -1022,
            u >> 63 ? ")" : "");
    put(w, s);
  }
}

static void putslot(Writer *w, uint32_t s) {
  const Code *c = w->c;
  if (s < c->nconst)
    putd(w, c->constant[s]);
  else if (s < c->nconst + c->nin) {
    put(w, "x[");
    putu(w, s - c->nconst);
    put(w, "]");
  } else {
    put(w, "v");
    putu(w, s - c->nconst - c->nin);
  }
}

static int isword(char ch) {
  return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' ||
         (ch >= '0' && ch <= '9');
}

static size_t wordlength(const char *s) {
  size_t n = 0;
  while (isword(s[n])) n++;
  return n;
}

/* the text of an operation, with operands for A, B and C */
static void putoperation(Writer *w, const Ins *i) {
  const char *s = optext[i->op];
  while (*s != '\0') {
    const size_t n = wordlength(s);
    if (n == 1 && *s == 'A')
      putslot(w, i->a);
    else if (n == 1 && *s == 'B')
      putslot(w, i->b);
    else if (n == 1 && *s == 'C')
      putslot(w, i->c);
    else
      putn(w, s, n > 0 ? n : 1);
    s += n > 0 ? n : 1;
  }
}

/*
** What is needed
*/

static void reads(Writer *w, uint32_t s) { w->slot[s] |= 2; }

static int numbered(const char *s, size_t n) {
  for (int op = 0; op < OP_list_sum; op++)
    if (strlen(ad_opinfo[op].name) == n &&
        memcmp(ad_opinfo[op].name, s, n) == 0)
      return op;
  return -1;
}

/* helpers that a text names */
static void mentions(Writer *w, const char *s) {
  while (*s != '\0') {
    const size_t n = wordlength(s);
    if (s[0] == '/' && s[1] == '*') {
      const char *end = strstr(s, "*/");
      if (end == NULL) return;
      s = end + 2;
      continue;
    }
    if (n > 5 && memcmp(s, "ad_v_", 5) == 0 && numbered(s + 5, n - 5) >= 0)
      w->op[numbered(s + 5, n - 5)] = 1;
    for (size_t k = 0; n > 0 && k < w->nhelper; k++)
      if (strlen(ad_helpers[k].name) == n &&
          memcmp(ad_helpers[k].name, s, n) == 0 && w->helper[k] == 0)
        w->helper[k] = 1;
    s += n > 0 ? n : 1;
  }
}

static int inlined(int op) {
  return op == OP_list_sum || op == OP_list_mean || op == OP_list_prod ||
         op == OP_list_dot;
}

static void survey(Writer *w) {
  const Code *c = w->c;
  int again = 1;
  uint8_t seen[OP_count] = {0};
  w->reached[0] = 1;
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    if (!w->reached[k]) continue;
    if (b->end != P_RETURN && b->yes != P_NONE) {
      w->reached[b->yes] = 1;
      if (b->yes != k + 1) w->label[b->yes] = 1;
    }
    if (b->end == P_IF && b->no != P_NONE) {
      w->reached[b->no] = 1;
      if (b->no != k + 1) w->label[b->no] = 1;
    }
    for (uint32_t i = b->first; i < b->last; i++) {
      const Ins *x = &c->ins[i];
      const int n = ad_insarity(x->op);
      if (x->op < OP_count && !seen[x->op]) {
        seen[x->op] = 1;
        if (!inlined(x->op)) mentions(w, optext[x->op]);
      }
      if (x->op != P_PUSH) w->slot[x->d] |= 1;
      if (n > 0) reads(w, x->a);
      if (n > 1) reads(w, x->b);
      if (n > 2) reads(w, x->c);
      if (ad_islist(x->op))
        for (uint32_t j = 0; j < x->b; j++) reads(w, c->list[x->a + j]);
    }
    if (b->end == P_IF) {
      reads(w, b->a);
      reads(w, b->b);
      if (b->cmp == P_SAME) w->same = 1;
    } else if (b->end == P_RETURN)
      for (uint32_t j = 0; j < b->b; j++) reads(w, c->list[b->a + j]);
  }
  while (again) {
    again = 0;
    for (size_t k = 0; k < w->nhelper; k++) {
      if (w->helper[k] != 1) continue;
      w->helper[k] = 2;
      again = 1;
      for (const char *const *s = ad_helpers[k].line; *s != NULL; s++)
        mentions(w, *s);
    }
    for (int op = 0; op < OP_list_sum; op++) {
      if (w->op[op] != 1) continue;
      w->op[op] = 2;
      again = 1;
      mentions(w, optext[op]);
    }
  }
}

/*
** The file
*/

/* lines of a comment; no end of a comment in it */
static void remark(Writer *w, const char *s) {
  while (*s != '\0') {
    const size_t n = strcspn(s, "\n");
    put(w, "**   ");
    for (size_t k = 0; k < n; k++) {
      const unsigned char ch = (unsigned char)s[k];
      if (k > 0 && s[k] == '/' && (s[k - 1] == '*')) put(w, " ");
      if (k > 0 && s[k] == '*' && (s[k - 1] == '/')) put(w, " ");
      /* no trigraphs, no lines that go on */
      if (ch < 32 || s[k] == '\\' || (k > 0 && s[k] == '?' && s[k - 1] == '?'))
        put(w, " ");
      else
        putn(w, s + k, 1);
    }
    put(w, "\n");
    s += n + (s[n] != '\0');
  }
}

static void counted(Writer *w, const char *what, uint32_t n) {
  put(w, "**   ");
  if (n == 0)
    put(w, "none");
  else {
    put(w, what);
    put(w, "[0]");
    if (n > 1) {
      put(w, " .. ");
      put(w, what);
      put(w, "[");
      putu(w, n - 1);
      put(w, "]");
    }
  }
  put(w, "\n");
}

static void header(Writer *w, uint32_t nout) {
  const Export *e = w->e;
  put(w, "/*\n** ");
  put(w, e->name);
  put(w, ": written by autodiff. C99, needs nothing but the C library "
         "(-lm).\n**\n");
  if (e->about != NULL && *e->about != '\0') {
    remark(w, e->about);
    put(w, "**\n");
  }
  put(w, "**     int ");
  put(w, e->name);
  put(w, "(const double *x, double *y);\n**\n");
  put(w, "** Arguments, x (");
  putu(w, w->c->nin);
  put(w, " numbers):\n");
  if (e->inputs != NULL)
    remark(w, e->inputs);
  else
    counted(w, "x", w->c->nin);
  put(w, "** Results, y (");
  putu(w, nout);
  put(w, " numbers, not in the same place as x):\n");
  if (e->results != NULL)
    remark(w, e->results);
  else
    counted(w, "y", nout);
  put(w, "**\n** Returns 0 if y has been set; 1 if the arguments lead where "
         "nobody has been when\n** the program was recorded");
  if (w->c->stack) put(w, "; 2 for lack of memory");
  put(w, "; 3 if the results there\n** have another form. Keeps nothing "
         "between calls.\n**\n"
         "** Example:\n**     double x[");
  putu(w, w->c->nin > 0 ? w->c->nin : 1);
  put(w, "], y[");
  putu(w, nout > 0 ? nout : 1);
  put(w, "];\n**     ... set x ...\n**     if (");
  put(w, e->name);
  put(w, "(x, y) == 0) ... use y ...\n**\n"
         "** For the same digits as the program's, the compiler must not fuse "
         "products and\n** sums: -std=c99, or -ffp-contract=off.\n*/\n");
  put(w, "#include <math.h>\n");
  if (w->c->stack)
    put(w, "#include <stdlib.h>\n");
  else
    put(w, "#include <stddef.h>\n");
  if (w->same) put(w, "#include <string.h>\n");
  put(w, "\n");
}

static int isfunction(const ad_Helper *h) { return h->line[0][0] != '#'; }

static void helpers(Writer *w) {
  int any = 0;
  for (size_t k = 0; k < w->nhelper; k++) {
    const char *s = ad_helpers[k].line[0];
    if (!w->helper[k]) continue;
    any = 1;
    if (isfunction(&ad_helpers[k])) { /* its prototype */
      putn(w, s, strcspn(s, "{") - 1);
      put(w, ";\n");
    } else
      put(w, s);
  }
  if (any) put(w, "\n");
  for (int op = 0; op < OP_list_sum; op++) {
    if (!w->op[op]) continue;
    put(w, "static double ad_v_");
    put(w, ad_opinfo[op].name);
    put(w, ad_opinfo[op].arity == 1   ? "(double A) { return "
           : ad_opinfo[op].arity == 2 ? "(double A, double B) { return "
                                      : "(double A, double B, double C) { "
                                        "return ");
    put(w, optext[op]);
    put(w, "; }\n\n");
  }
  for (size_t k = 0; k < w->nhelper; k++) {
    if (!w->helper[k] || !isfunction(&ad_helpers[k])) continue;
    for (const char *const *s = ad_helpers[k].line; *s != NULL; s++) put(w, *s);
    put(w, "\n");
  }
  if (w->same)
    put(w, "/* the same bits, or both NaN? */\n"
           "static int same(double a, double b) {\n"
           "  return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0;\n"
           "}\n\n");
  if (w->c->stack)
    put(w, "typedef struct Stack {\n"
           "  double *x;\n"
           "  size_t n, cap;\n"
           "} Stack;\n\n"
           "static int push(Stack *s, double x) {\n"
           "  if (s->n == s->cap) {\n"
           "    const size_t cap = s->cap * 2 + 64;\n"
           "    double *p = realloc(s->x, cap * sizeof *p);\n"
           "    if (p == NULL) return 0;\n"
           "    s->x = p;\n"
           "    s->cap = cap;\n"
           "  }\n"
           "  s->x[s->n++] = x;\n"
           "  return 1;\n"
           "}\n\n");
}

static void leave(Writer *w, int status) {
  put(w, w->c->stack ? "{ status = " : "return ");
  putu(w, (uint32_t)status);
  put(w, w->c->stack ? "; goto done; }\n" : ";\n");
}

static void to(Writer *w, uint32_t block) {
  if (block == P_NONE)
    leave(w, 1);
  else {
    put(w, "goto b");
    putu(w, block);
    put(w, ";\n");
  }
}

/* the elements of a list, with something between */
static void list(Writer *w, const Ins *i, const char *between) {
  for (uint32_t j = 0; j < i->b; j++) {
    if (j > 0) put(w, j % 8 == 0 ? "\n     " : " ");
    if (j > 0 || *between != ',') put(w, between);
    if (j > 0 || *between != ',') put(w, " ");
    putslot(w, w->c->list[i->a + j]);
  }
}

static void listed(Writer *w, const Ins *i) {
  const uint32_t half = i->b / 2;
  switch (i->op) {
  case OP_list_sum:
    put(w, "0.0 ");
    list(w, i, "+");
    break;
  case OP_list_mean:
    put(w, "(0.0 ");
    list(w, i, "+");
    put(w, ") / ");
    putd(w, i->b);
    break;
  case OP_list_prod:
    put(w, "1.0 ");
    list(w, i, "*");
    break;
  default: /* dot */
    put(w, "0.0");
    for (uint32_t j = 0; j < half; j++) {
      put(w, j % 4 == 3 ? "\n     + " : " + ");
      putslot(w, w->c->list[i->a + j]);
      put(w, " * ");
      putslot(w, w->c->list[i->a + half + j]);
    }
  }
}

static void instruction(Writer *w, const Ins *i) {
  put(w, "  ");
  switch (i->op) {
  case P_PUSH:
    put(w, "if (!push(&stack, ");
    putslot(w, i->a);
    put(w, ")) ");
    leave(w, 2);
    return;
  case P_POP:
    putslot(w, i->d);
    put(w, " = stack.x[--stack.n];\n");
    return;
  default:
    break;
  }
  if (ad_islist(i->op) && !inlined(i->op)) { /* "ad_nmax" */
    put(w, "{\n    const double l[] = {");
    list(w, i, ",");
    put(w, "};\n    ");
    putslot(w, i->d);
    put(w, " = ");
    put(w, optext[i->op]);
    put(w, "(");
    putu(w, i->b);
    put(w, ", l);\n  }\n");
    return;
  }
  putslot(w, i->d);
  put(w, " = ");
  if (ad_islist(i->op))
    listed(w, i);
  else if (i->op == P_MOV)
    putslot(w, i->a);
  else if (i->op == P_ROOT) {
    putslot(w, i->a);
    put(w, " == -HUGE_VAL ? HUGE_VAL : sqrt(");
    putslot(w, i->a);
    put(w, " + 0.0)");
  } else
    putoperation(w, i);
  put(w, ";\n");
}

static void end(Writer *w, uint32_t k) {
  const Code *c = w->c;
  const Block *b = &c->block[k];
  static const char *const sign[] = {" < ", " <= ", " == ", ", "};
  if (b->end == P_RETURN) {
    const Returned *f = b->set < w->e->nform ? &w->e->form[b->set] : NULL;
    if (f == NULL || f->from == NULL || f->n != b->b) {
      put(w, "  ");
      leave(w, 3);
      return;
    }
    for (uint32_t j = 0; j < w->e->nout; j++) {
      put(w, "  y[");
      putu(w, j);
      put(w, "] = ");
      if (f->from[j] == P_NONE)
        putd(w, f->value[j]);
      else
        putslot(w, c->list[b->a + f->from[j]]);
      put(w, ";\n");
    }
    put(w, "  ");
    leave(w, 0);
  } else if (b->end == P_GOTO) {
    if (b->yes == k + 1) return;
    put(w, "  ");
    to(w, b->yes);
  } else {
    const int turned = b->yes == k + 1;
    put(w, turned ? "  if (!" : "  if (");
    put(w, b->cmp == P_SAME ? "same(" : turned ? "(" : "");
    putslot(w, b->a);
    put(w, sign[b->cmp]);
    putslot(w, b->b);
    put(w, b->cmp == P_SAME ? ")) " : turned ? ")) " : ") ");
    to(w, turned ? b->no : b->yes);
    if (turned || b->no == k + 1) return;
    put(w, "  ");
    to(w, b->no);
  }
}

static void variables(Writer *w) {
  const Code *c = w->c;
  const uint32_t first = c->nconst + c->nin;
  uint32_t n = 0;
  for (uint32_t s = first; s < c->nslot; s++) {
    if (w->slot[s] == 0) continue;
    put(w, n == 0 ? "  double " : n % 8 == 0 ? ",\n    " : ", ");
    putslot(w, s);
    put(w, " = 0");
    n++;
  }
  if (n > 0) put(w, ";\n");
  if (c->stack) put(w, "  Stack stack = {NULL, 0, 0};\n  int status;\n");
  put(w, "  (void)x, (void)y;\n");
  for (uint32_t s = first; s < c->nslot; s++) {
    if (w->slot[s] != 1) continue;
    put(w, "  (void)");
    putslot(w, s);
    put(w, ";\n");
  }
}

static void file(Writer *w) {
  const Code *c = w->c;
  survey(w);
  header(w, w->e->nout);
  helpers(w);
  put(w, "int ");
  put(w, w->e->name);
  put(w, "(const double *x, double *y);\n\nint ");
  put(w, w->e->name);
  put(w, "(const double *x, double *y) {\n");
  variables(w);
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    if (!w->reached[k]) continue;
    if (w->label[k]) {
      put(w, "b");
      putu(w, k);
      put(w, ":\n");
    }
    for (uint32_t i = b->first; i < b->last; i++) instruction(w, &c->ins[i]);
    end(w, k);
  }
  if (c->stack) put(w, "done:\n  free(stack.x);\n  return status;\n");
  put(w, "}\n");
}

int ad_export(const Code *c, const Export *e) {
  Writer w;
  size_t n;
  uint8_t *mem;
  memset(&w, 0, sizeof w);
  w.c = c;
  w.e = e;
  while (ad_helpers[w.nhelper].name != NULL) w.nhelper++;
  n = 2 * (size_t)c->nblock + c->nslot + w.nhelper + OP_count;
  mem = c->alloc(c->ud, NULL, 0, n);
  if (mem == NULL) return 0;
  memset(mem, 0, n);
  w.reached = mem;
  w.label = w.reached + c->nblock;
  w.slot = w.label + c->nblock;
  w.helper = w.slot + c->nslot;
  w.op = w.helper + w.nhelper;
  file(&w);
  c->alloc(c->ud, mem, n, 0);
  return !w.failed;
}

/*
** Names
*/

static int reserved(const char *name) {
  static const char *const word[] = {
      "auto",     "break",   "case",    "char",     "const",    "continue",
      "default",  "do",      "double",  "else",     "enum",     "extern",
      "float",    "for",     "goto",    "if",       "inline",   "int",
      "long",     "main",    "push",    "register", "restrict", "return",
      "same",     "short",   "signed",  "sizeof",   "static",   "struct",
      "switch",   "typedef", "union",   "unsigned", "void",     "volatile",
      "while",    "Stack",   "x",       "y",        "fma",      "fmod",
      "floor",    "round",   "fabs",    "isnan",    "isinf",    "signbit",
      "copysign", "free",    "realloc", "memcmp",   "gamma",    "malloc"};
  for (size_t k = 0; k < sizeof word / sizeof *word; k++)
    if (strcmp(word[k], name) == 0) return 1;
  for (const ad_Helper *h = ad_helpers; h->name != NULL; h++)
    if (strcmp(h->name, name) == 0) return 1;
  return numbered(name, strlen(name)) >= 0;
}

int ad_exportname(const char *name) {
  const size_t n = wordlength(name);
  if (n == 0 || name[n] != '\0' || (*name >= '0' && *name <= '9')) return 0;
  return !(name[0] == '_' || strncmp(name, "ad_", 3) == 0 || reserved(name));
}
