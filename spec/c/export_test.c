/* Programs as C: compiled, and run against the program itself. Without a C
   compiler ($CC, or cc) only what is written is looked at. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "export.h"

#include "random_program.h"

#include <unistd.h>

typedef struct Text {
  char *s;
  size_t n, cap;
  long left; /* bytes until writing fails, or -1 */
} Text;

static int collect(void *ud, const char *s, size_t n) {
  Text *t = ud;
  if (t->left >= 0 && (t->left -= (long)n) < 0) return 0;
  if (t->n + n + 1 > t->cap) {
    t->cap = (t->n + n) * 2 + 100;
    t->s = realloc(t->s, t->cap);
  }
  memcpy(t->s + t->n, s, n);
  t->n += n;
  t->s[t->n] = '\0';
  return 1;
}

#define PROGRAMS 40
#define POINTS 60

static int smoothly(int k) { return k % 2; }

static Function f;

static void number(FILE *out, double x) {
  if (x != x)
    fprintf(out, "NAN");
  else if (fabs(x) == HUGE_VAL)
    fprintf(out, x > 0 ? "HUGE_VAL" : "-HUGE_VAL");
  else
    fprintf(out, "%a", x);
}

/* the program at a point: what the exported function has to return */
static int alone(const Code *c, void *self, Frame *fr, const double *x,
                 double *y) {
  uint32_t at;
  memcpy(fr->v + c->nconst, x, c->nin * sizeof *x);
  at = ad_interpreter.run(self, fr);
  if (c->block[at].end != P_RETURN) return 1;
  if (c->block[at].set != 0) return 3;
  for (uint32_t j = 0; j < c->block[at].b; j++)
    y[j] = fr->v[c->list[c->block[at].a + j]];
  return 0;
}

static void export_one(FILE *out, const Code *c, const char *name,
                       uint32_t nout) {
  Text t = {NULL, 0, 0, -1};
  const Returned form = returned(nout);
  Export e;
  memset(&e, 0, sizeof e);
  e.name = name;
  e.nout = nout;
  e.form = &form;
  e.nform = 1;
  e.about = "f(a, b) */ with /* what \?\?/ \\ is not allowed\nsecond line";
  e.write = collect;
  e.ud = &t;
  CHECK(ad_export(c, &e));
  CHECK(strstr(t.s, "nobody has been") != NULL);
  fputs(t.s, out);
  t.n = 0;
  t.left = (long)below(2000); /* a write that fails */
  CHECK(!ad_export(c, &e) || t.left >= 0);
  free(t.s);
}

/* every operation of the table, with operands of all kinds */
static void operations(Prog *p) {
  uint32_t r[OP_count * 2], n = 0;
  CHECK(ad_proginit(p, allocate, NULL, NVAR));
  ad_recstart(p);
  for (int op = 0; op < OP_count; op++) {
    const uint32_t k = ad_progconst(p, op == OP_polygamma ? 2 : 1.37);
    const uint32_t list[4] = {0, 1, 2, ad_progconst(p, -0.7)};
    if (ad_islist(op)) {
      r[n++] = ad_reclist(p, op, 4, list);
      continue;
    }
    r[n++] = ad_recop(p, op, op == OP_polygamma ? k : 0,
                      ad_insarity(op) > 1 ? 1 : 0, ad_insarity(op) > 2 ? 2 : 0);
    if (ad_insarity(op) > 1)
      r[n++] = ad_recop(p, op, k, 3, ad_insarity(op) > 2 ? k : 0);
  }
  r[n++] = ad_recop(p, P_ROOT, 0, 0, 0);
  r[n++] = ad_progconst(p, HUGE_VAL);
  r[n++] = ad_progconst(p, -HUGE_VAL);
  r[n++] = ad_progconst(p, NAN);
  r[n++] = ad_progconst(p, -0.0);
  r[n++] = ad_progconst(p, 5e-324);
  r[n++] = ad_progconst(p, -0.1);
  r[n++] = ad_progconst(p, 1e300);
  r[n++] = ad_progconst(p, 123456);
  CHECK(ad_recreturn(p, 0, n, r) == 0);
}

/* sides that nobody has been on, exact values, and two forms */
static void sides(Prog *p) {
  uint32_t k, zero = 0;
  CHECK(ad_proginit(p, allocate, NULL, NVAR));
  k = ad_progconst(p, 0);
  for (int n = 0; n < 3; n++) {
    ad_recstart(p);
    CHECK(ad_recif(p, P_LT, 0, k, 1, 0) == 0);
    CHECK(ad_recsame(p, 1, n - 1, 0) == 0);
    CHECK(ad_recreturn(p, n == 2, 1, &zero) == 0);
  }
}

int main(void) {
  char dir[] = "/tmp/autodiff-export-XXXXXX", path[100], command[400];
  const char *cc = getenv("CC");
  FILE *main_c;
  const int all = PROGRAMS + 2;
  if (cc == NULL) cc = "cc";
  if (mkdtemp(dir) == NULL) return 1;
  sprintf(path, "%s/main.c", dir);
  main_c = fopen(path, "w");
  if (main_c == NULL) return 1;
  fprintf(main_c,
          "#include <math.h>\n#include <stdio.h>\n#include <string.h>\n"
          "static int bad;\n"
          "static int same(double a, double b) {\n"
          "  return (a != a && b != b) || memcmp(&a, &b, 8) == 0;\n}\n");
  for (int k = 0; k < all; k++) {
    Prog p;
    Code c;
    Frame fr;
    void *self;
    const char *why;
    char name[20];
    double x[POINTS][NVAR];
    static double y[POINTS][OP_count * 2 + 20], z[NVAR];
    uint32_t nout = 0;
    FILE *out;
    for (int i = 0; i < POINTS; i++)
      for (int j = 0; j < NVAR; j++)
        x[i][j] = below(10) ? uniform(-3, 3) : (double)below(3) - 1;
    if (k < PROGRAMS) {
      make_function(&f, smoothly(k));
      CHECK(ad_proginit(&p, allocate, NULL, NVAR));
      for (int i = 0; i < POINTS; i++)
        if (i == 0 || below(3)) run_function(&f, &p, x[i], z);
    } else if (k == PROGRAMS)
      operations(&p);
    else
      sides(&p);
    CHECK(ad_lower(&p, &c, k % 4 < 2 ? 0 : P_PLAIN));
    CHECK(ad_frameinit(&fr, &c, allocate, NULL, 10000) == 0);
    self = ad_interpreter.make(&c, &why);
    sprintf(name, "program%d", k);
    sprintf(path, "%s/%s.c", dir, name);
    for (uint32_t b = 0; b < c.nblock; b++)
      if (c.block[b].end == P_RETURN && c.block[b].b > nout)
        nout = c.block[b].b;
    out = fopen(path, "w");
    export_one(out, &c, name, nout);
    fclose(out);
    fprintf(main_c, "int %s(const double *x, double *y);\n", name);
    fprintf(main_c,
            "static void test%d(void) {\n  static const double x[][%d] "
            "= {",
            k, NVAR);
    for (int i = 0; i < POINTS; i++) {
      fprintf(main_c, "\n    {");
      for (int j = 0; j < NVAR; j++) {
        if (j > 0) fprintf(main_c, ", ");
        number(main_c, x[i][j]);
      }
      fprintf(main_c, "},");
    }
    fprintf(main_c, "};\n  static const double wanted[][%u] = {", nout);
    for (int i = 0; i < POINTS; i++) {
      const int status = alone(&c, self, &fr, x[i], y[i]);
      fprintf(main_c, "\n    {");
      for (uint32_t j = 0; j < nout; j++) {
        if (j > 0) fprintf(main_c, ", ");
        if (status)
          fprintf(main_c, "%d", status);
        else
          number(main_c, y[i][j]);
      }
      fprintf(main_c, "},");
      y[i][nout] = status;
    }
    fprintf(main_c, "};\n  static const int status[] = {");
    for (int i = 0; i < POINTS; i++) fprintf(main_c, "%g,", y[i][nout]);
    fprintf(
        main_c,
        "};\n  for (int i = 0; i < %d; i++) {\n    double y[%u] = {0};\n"
        "    if (%s(x[i], y) != status[i]) bad++, printf(\"%s status\\n\");\n"
        "    for (int j = 0; j < %u && !status[i]; j++)\n"
        "      if (!same(y[j], wanted[i][j])) bad++, "
        "printf(\"%s: result %%d is %%a, not %%a\\n\", j, y[j], "
        "wanted[i][j]);\n  }\n}\n",
        POINTS, nout, name, name, nout, name);
    ad_interpreter.free(self);
    ad_framefree(&fr);
    { /* lack of memory */
      Text t = {NULL, 0, 0, -1};
      Export e;
      memset(&e, 0, sizeof e);
      e.name = name;
      e.write = collect;
      e.ud = &t;
      countdown = 0;
      CHECK(!ad_export(&c, &e));
      countdown = -1;
      free(t.s);
    }
    ad_codefree(&c);
    ad_progfree(&p);
  }
  fprintf(main_c, "int main(void) {\n");
  for (int k = 0; k < all; k++) fprintf(main_c, "  test%d();\n", k);
  fprintf(main_c, "  return bad > 100 ? 100 : bad;\n}\n");
  fclose(main_c);
  CHECK(inuse == 0);
  CHECK(ad_exportname("f") && ad_exportname("value_and_grad2"));
  CHECK(!ad_exportname("") && !ad_exportname("2f") && !ad_exportname("a b") &&
        !ad_exportname("while") && !ad_exportname("exp") &&
        !ad_exportname("ad_x") && !ad_exportname("hurwitz") &&
        !ad_exportname("f-1"));
  sprintf(command, "command -v %s >/dev/null 2>&1", cc);
  if (system(command) == 0) {
    sprintf(command,
            "cd %s && %s -O1 -std=c99 -Wall -Wextra -Werror -pedantic -o test "
            "program*.c main.c -lm && ./test",
            dir, cc);
    CHECK(system(command) == 0);
  } else
    printf("no C compiler: not compiled\n");
  if (failures == 0) {
    sprintf(command, "rm -r %s", dir);
    CHECK(system(command) == 0);
  } else
    printf("see %s\n", dir);
  printf("%s\n", failures ? "failed" : "exported programs are right");
  return failures != 0;
}
