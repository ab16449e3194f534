/*
** compilelib.c
** Methods of compiled functions that run, or write, their programs as a whole:
** c:map and c:c_source.
**
** Results of different forms (sets) are brought into one: constants that are
** numbers become leaves like those that are computed. What is left, the
** layout, must be the same for all rows.
*/
#include "array.h"
#include "batch.h"
#include "compile.h"
#include "export.h"

#include <string.h>

/*
** {======================================================
** Layouts
** =======================================================
*/

typedef struct Layout {
  Form form;      /* its words are in a userdata */
  uint32_t *from; /* by leaf: as in Returned */
  double *value;
} Layout;

/* a block that Lua collects */
static void *room(lua_State *L, size_t n, size_t size) {
  void *at;
  if (n > SIZE_MAX / size - 1) luaL_error(L, "not enough memory");
  at = lua_newuserdatauv(L, (n + 1) * size, 0);
  memset(at, 0, (n + 1) * size);
  return at;
}

typedef struct Walk {
  lua_State *L;
  int consts; /* index of the constants */
  const Form *f;
  uint32_t at, leaf; /* of f */
  Layout *o;
  const uint32_t *order;
} Walk;

static void leaf(Walk *w) {
  w->o->from[w->o->form.nleaf++] =
      w->order != NULL ? w->order[w->leaf] : w->leaf;
  w->leaf++;
}

/* a value of f goes into the layout. Its depth is that of the structures that
   ad.compile takes, which is bounded. */
static void walk(Walk *w) {
  Form *g = &w->o->form;
  const uint32_t *x = w->f->word + w->at;
  uint32_t seq, item, head, numbers = 0;
  if (F_ISLEAF(x[0])) {
    g->word[g->n++] = F_NUM;
    leaf(w);
    w->at++;
    return;
  }
  if (x[0] == F_CONST) {
    w->at += 2;
    if (lua_rawgeti(w->L, w->consts, x[1]) == LUA_TNUMBER) {
      w->o->value[g->nleaf] = lua_tonumber(w->L, -1);
      w->o->from[g->nleaf++] = P_NONE;
      g->word[g->n++] = F_NUM;
    } else {
      g->word[g->n++] = F_CONST;
      g->word[g->n++] = x[1];
    }
    lua_pop(w->L, 1);
    return;
  }
  seq = x[2], item = x[4];
  head = g->n;
  memcpy(g->word + head, x, 5 * sizeof *x);
  g->n += 5;
  w->at += 5;
  for (uint32_t i = 0; i < seq; i++) {
    const uint32_t before = g->n;
    if (x[3])
      leaf(w);
    else
      walk(w);
    numbers += x[3] || (g->n == before + 1 && g->word[before] == F_NUM);
  }
  g->word[head + 3] = numbers == seq;
  if (numbers == seq) g->n = head + 5; /* no words for them */
  for (uint32_t i = 0; i < item; i++) {
    g->word[g->n++] = w->f->word[w->at++];
    walk(w);
  }
}

/* makes the layout of a form, in blocks that are left on the stack */
static void layout(lua_State *L, int self, const Form *f, const uint32_t *order,
                   Layout *o) {
  Walk w = {L, 0, f, 0, 0, o, order};
  memset(o, 0, sizeof *o);
  ad_checkstack(L, 10, NULL);
  o->form.word = room(L, f->n, sizeof *o->form.word);
  o->from = room(L, (size_t)f->nleaf + f->n, sizeof *o->from);
  o->value = room(L, (size_t)f->nleaf + f->n, sizeof *o->value);
  lua_getiuservalue(L, self, AD_CCONST);
  w.consts = lua_gettop(L);
  for (uint32_t i = 0; i < f->nval; i++) walk(&w);
  lua_pop(L, 1);
  o->form.nval = f->nval;
  o->form.numbers = f->nval == o->form.n && f->nval == o->form.nleaf;
}

static int alike(const Form *a, const Form *b) {
  return a->n == b->n && a->nval == b->nval && a->nleaf == b->nleaf &&
         memcmp(a->word, b->word, a->n * sizeof *a->word) == 0;
}

/*
** How each form that the code returns becomes the results of the layout of
** 'set', which is put into *first. Leaves blocks on the stack.
*/
static Returned *forms(lua_State *L, Compiled *c, int self, Root *r,
                       const Code *code, uint32_t set, Layout *first) {
  Returned *out = room(L, c->nset, sizeof *out);
  uint32_t most = 0, *order;
  for (uint32_t k = 0; k < code->nblock; k++)
    if (code->block[k].end == P_RETURN && code->block[k].b > most)
      most = code->block[k].b;
  for (uint32_t k = 0; k <= c->nset; k++) { /* 'set' is the first */
    const uint32_t s = k == 0 ? set : k - 1;
    uint32_t n = P_NONE;
    const Form *f;
    Layout o;
    const int top = lua_gettop(L);
    if (k > 0 && s == set) continue;
    for (uint32_t b = 0; b < code->nblock && n == P_NONE; b++)
      if (code->block[b].end == P_RETURN && code->block[b].set == s)
        n = code->block[b].b;
    if (n == P_NONE) continue;
    order = room(L, most, sizeof *order);
    f = ad_rootresults(L, c, self, r, s, order);
    if (f == NULL || f->nleaf > n) {
      lua_settop(L, top);
      if (k == 0) return NULL;
      continue;
    }
    layout(L, self, f, order, &o);
    if (k == 0)
      *first = o;
    else if (!alike(&o.form, &first->form)) {
      lua_settop(L, top);
      continue;
    }
    out[s].n = n;
    out[s].from = o.from;
    out[s].value = o.value;
  }
  return out;
}

/* }====================================================== */

/*
** {======================================================
** c:map
** =======================================================
*/

typedef struct Map {
  Compiled *c;
  Root *r;
  int first, narg; /* arguments on the stack; self is at 1 */
  size_t n;        /* rows */
  int threads, sum;
  Column *in, *out;
  uint8_t *shared, *state;
  Layout o;
  double *total; /* of a reduction */
  Form form;     /* of the arguments: a copy */
} Map;

/* has the root been given up, in a call of f? */
static int gone(const Map *m) {
  const Form *f;
  for (uint32_t k = 0; k < m->c->nroot; k++)
    if (m->c->root[k] == m->r) {
      f = &m->r->in; /* perhaps another one in the same place */
      return m->c->eager || m->r->prog.ntrace == 0 || f->n != m->form.n ||
             f->nval != m->form.nval || f->nleaf != m->form.nleaf ||
             memcmp(f->word, m->form.word, f->n * sizeof *f->word) != 0;
    }
  return 1;
}

/* pushes element [row][...] of an array as a number or nested lists; zeros, if
   the array has no rows */
static void pushrow(lua_State *L, const Array *a, int dim, const double *at) {
  if (dim == a->ndim) {
    lua_pushnumber(L, a->shape[0] > 0 ? *at : 0);
    return;
  }
  ad_checkstack(L, 4, NULL);
  lua_createtable(L, (int)a->shape[dim], 0);
  for (ptrdiff_t i = 0; i < a->shape[dim]; i++) {
    pushrow(L, a, dim + 1, at + i * a->stride[dim]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

/* pushes self and the arguments of a row */
static void pushcall(lua_State *L, const Map *m, size_t row) {
  ad_checkstack(L, m->narg + 10, "too many arguments");
  lua_pushvalue(L, 1);
  for (int i = m->first; i < m->first + m->narg; i++) {
    const Array *a = ad_toarray(L, m->c->S, i);
    if (a == NULL)
      lua_pushvalue(L, i);
    else
      pushrow(L, a, 1, a->data + (ptrdiff_t)row * a->stride[0]);
  }
}

/* the columns of an array's elements */
static void columns(const Map *m, const Array *a, uint32_t *leaf, int dim,
                    double *at) {
  if (dim < a->ndim) {
    for (ptrdiff_t i = 0; i < a->shape[dim]; i++)
      columns(m, a, leaf, dim + 1, at + i * a->stride[dim]);
    return;
  }
  m->shared[*leaf] = 0;
  m->in[*leaf].at = at;
  m->in[(*leaf)++].stride = a->stride[0];
}

/* where the inputs are; the root was found for one of the rows */
static void inputs(lua_State *L, Map *m) {
  const Form *f = &m->r->in;
  double *x = room(L, f->nleaf, sizeof *x);
  uint32_t at = 0, leaf = 0;
  m->form = *f;
  m->form.word = room(L, f->n, sizeof *f->word);
  memcpy(m->form.word, f->word, f->n * sizeof *f->word);
  memcpy(x, ad_rootinputs(m->r), f->nleaf * sizeof *x);
  m->in = room(L, f->nleaf, sizeof *m->in);
  m->shared = room(L, f->nleaf, 1);
  for (uint32_t k = 0; k < f->nleaf; k++) {
    m->in[k].at = x + k;
    m->in[k].stride = 0;
    m->shared[k] = 1;
  }
  for (int i = m->first; i < m->first + m->narg; i++) {
    const Array *a = ad_toarray(L, m->c->S, i);
    uint32_t from = leaf;
    at = ad_formskip(f, at, &leaf);
    if (a != NULL) columns(m, a, &from, 1, a->data);
  }
}

/*
** The results without a reduction: what f returns, with an array in the place
** of each number, and of each list of numbers. Pushes the value whose words
** are at *at; its columns begin at *leaf.
*/
static void results(lua_State *L, const Map *m, int consts, uint32_t *at,
                    uint32_t *leaf) {
  const uint32_t *w = m->o.form.word + *at;
  ptrdiff_t shape[2];
  Array *a;
  int table;
  ad_checkstack(L, 8, NULL);
  shape[0] = (ptrdiff_t)m->n;
  if (w[0] == F_NUM) {
    a = ad_newarray(L, m->c->S, 1, shape);
    m->out[*leaf].at = a->data;
    m->out[(*leaf)++].stride = 1;
    *at += 1;
    return;
  }
  if (w[0] == F_CONST) {
    lua_rawgeti(L, consts, w[1]);
    *at += 2;
    return;
  }
  *at += 5;
  if (w[3] && w[2] > 0 && w[4] == 0) {
    shape[1] = w[2];
    a = ad_newarray(L, m->c->S, 2, shape);
    for (uint32_t k = 0; k < w[2]; k++) {
      m->out[*leaf].at = a->data + k;
      m->out[(*leaf)++].stride = w[2];
    }
    return;
  }
  lua_createtable(L, (int)w[2], (int)w[4]);
  table = lua_gettop(L);
  for (uint32_t i = 1; i <= w[2]; i++) {
    if (w[3]) {
      a = ad_newarray(L, m->c->S, 1, shape);
      m->out[*leaf].at = a->data;
      m->out[(*leaf)++].stride = 1;
    } else
      results(L, m, consts, at, leaf);
    lua_rawseti(L, table, i);
  }
  for (uint32_t i = 0; i < w[4]; i++) {
    lua_rawgeti(L, consts, m->o.form.word[(*at)++]);
    results(L, m, consts, at, leaf);
    lua_rawset(L, table);
  }
  if (w[1] != 0) {
    lua_rawgeti(L, consts, w[1]);
    lua_setmetatable(L, table);
  }
}

/*
** The numbers in a value that f itself has returned, for the leaves of the
** layout; 0: it has another form.
*/
static int numbers(lua_State *L, const Map *m, int consts, uint32_t *at,
                   uint32_t *leaf, double *x, int idx) {
  const uint32_t *w = m->o.form.word + *at;
  lua_Unsigned count = 0;
  int ok;
  ad_checkstack(L, 8, NULL);
  if (w[0] == F_NUM) {
    *at += 1;
    if (lua_type(L, idx) != LUA_TNUMBER) return 0;
    x[(*leaf)++] = lua_tonumber(L, idx);
    return 1;
  }
  if (w[0] == F_CONST) {
    *at += 2;
    lua_rawgeti(L, consts, w[1]);
    ok = lua_rawequal(L, -1, idx);
    lua_pop(L, 1);
    return ok;
  }
  *at += 5;
  if (lua_type(L, idx) != LUA_TTABLE) return 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) count++;
  ok = count == (lua_Unsigned)w[2] + w[4];
  for (uint32_t i = 1; ok && i <= w[2]; i++) {
    lua_rawgeti(L, idx, i);
    if (w[3]) {
      ok = lua_type(L, -1) == LUA_TNUMBER;
      x[(*leaf)++] = lua_tonumber(L, -1);
    } else
      ok = numbers(L, m, consts, at, leaf, x, lua_gettop(L));
    lua_pop(L, 1);
  }
  for (uint32_t i = 0; ok && i < w[4]; i++) {
    lua_rawgeti(L, consts, m->o.form.word[(*at)++]);
    lua_rawget(L, idx);
    ok = numbers(L, m, consts, at, leaf, x, lua_gettop(L));
    lua_pop(L, 1);
  }
  return ok;
}

static int otherform(lua_State *L, size_t row) {
  return luaL_error(L, "map: the results of row %I have another form",
                    (LUAI_UACINT)row + 1);
}

/* f at a row, as it would be called; its numbers go to x */
static void single(lua_State *L, const Map *m, size_t row, double *x) {
  const int top = lua_gettop(L);
  uint32_t at = 0, leaf = 0;
  int consts;
  pushcall(L, m, row);
  lua_call(L, m->narg, (int)m->o.form.nval);
  lua_getiuservalue(L, 1, AD_CCONST);
  consts = lua_gettop(L);
  for (uint32_t i = 0; i < m->o.form.nval; i++)
    if (!numbers(L, m, consts, &at, &leaf, x, top + 1 + (int)i))
      otherform(L, row);
  lua_settop(L, top);
}

/*
** Has it to be done again, in the exact form? Some rows at a time, for columns
** that are parts of one array.
*/
static int hasnan(const Map *m, uint32_t nout) {
  const size_t n = m->sum ? 1 : m->n;
  for (size_t from = 0; from < n; from += 8)
    for (uint32_t j = 0; j < nout; j++)
      for (size_t k = from; k < n && k < from + 8; k++) {
        const double y = m->out[j].at[(ptrdiff_t)k * m->out[j].stride];
        if (y != y) return 1;
      }
  return 0;
}

/* all rows, or some, with the code that there is; the number that are done */
static size_t batch(lua_State *L, Map *m, const Code *code, uint32_t set,
                    const uint32_t *rows, size_t n, uint8_t *state) {
  const int top = lua_gettop(L);
  Layout o;
  BatchRun r;
  Batch b;
  lua_Alloc alloc;
  void *ud;
  size_t missing;
  int ok;
  alloc = lua_getallocf(L, &ud);
  memset(&r, 0, sizeof r);
  r.form = forms(L, m->c, 1, m->r, code, set, &o);
  r.nform = r.form != NULL ? m->c->nset : 0;
  if (r.form != NULL && !alike(&o.form, &m->o.form)) r.nform = 0;
  r.n = n;
  r.rows = rows;
  r.in = m->in;
  r.out = m->out;
  r.nout = m->o.form.nleaf;
  r.sum = m->sum;
  r.threads = m->threads;
  r.maxstack = m->c->maxstack;
  r.state = state;
  for (;;) { /* nothing here raises an error while the batch is there */
    missing = (size_t)code->nslot * V_POINTS * sizeof(double);
    if (code == &m->r->code) {
      const Batch *kept = ad_rootbatch(m->c, m->r, m->shared, &r);
      ok = kept != NULL && ad_batchrun(kept, &r);
    } else {
      ok = ad_batchinit(&b, code, m->shared, 0, alloc, ud);
      if (ok) {
        ok = ad_batchrun(&b, &r);
        ad_batchfree(&b);
      }
    }
    if (ok) break;
    ad_nomem(L, missing);
  }
  lua_settop(L, top);
  return r.ndone;
}

/* f's own numbers for a row */
static void givenrow(const Map *m, size_t row, const double *x) {
  for (uint32_t j = 0; j < m->o.form.nleaf; j++)
    if (m->sum)
      m->total[j] += x[j];
    else
      m->out[j].at[(ptrdiff_t)row * m->out[j].stride] = x[j];
  m->state[row] = B_DONE;
}

/*
** Runs until all rows are done. Rows that were missed are recorded, one after
** the other, each time for as many others as take the same way. Where these
** turn out to be few, time after time, the rest are called one by one. What a
** row's numbers are does not depend on whether it was the one that has been
** recorded: it runs with the others. A row that needs more stack than there is
** makes the root's code recompute.
*/
#define FEW 16
#define PATIENCE 8

static void rounds(lua_State *L, Map *m, uint32_t set) {
  double *x = room(L, m->o.form.nleaf, sizeof *x);
  uint8_t *again = NULL;
  uint32_t *rows = NULL;
  size_t left = m->n - batch(L, m, &m->r->code, set, NULL, m->n, m->state);
  if (left > 0 && m->state == NULL) {
    m->state = room(L, m->n, 1);
    memset(m->state, B_FORM, m->n);
  }
  for (int few = 0; left > 0 && few < PATIENCE;) {
    const uint32_t traces = m->c->traces;
    const uint8_t recompute = m->r->recompute;
    const size_t was = left;
    size_t k = 0, n = 0;
    if (!m->sum && again == NULL) {
      again = room(L, m->n, 1);
      rows = room(L, m->n, sizeof *rows);
    }
    while (k < m->n && m->state[k] != B_MISSED) k++;
    if (k == m->n && !recompute)
      for (k = 0; k < m->n && m->state[k] != B_FULL;) k++;
    if (k < m->n) {
      single(L, m, k, x);
      if (!gone(m)) ad_rootcode(L, m->c, m->r);
    }
    if (gone(m) || ad_rootarrays(m->r) ||
        (traces == m->c->traces && recompute == m->r->recompute))
      break; /* no way to get further: one by one */
    if (m->sum)
      left = m->n - batch(L, m, &m->r->code, set, NULL, m->n, m->state);
    else {
      for (k = 0; k < m->n; k++)
        if (m->state[k] != B_DONE) rows[n++] = (uint32_t)k;
      left = n - batch(L, m, &m->r->code, set, rows, n, again);
      for (k = 0; k < n; k++) m->state[rows[k]] = again[k];
    }
    few = was - left < FEW ? few + 1 : 0;
  }
  for (size_t k = 0; left > 0 && k < m->n; k++) {
    if (m->state[k] == B_DONE) continue;
    single(L, m, k, x);
    givenrow(m, k, x);
    left--;
  }
}

/* f itself for all rows, where there is no program for them */
static void eagerly(lua_State *L, Map *m) {
  double *x = room(L, m->o.form.nleaf, sizeof *x);
  memset(m->total, 0, m->o.form.nleaf * sizeof *m->total);
  for (size_t k = 0; k < m->n; k++) {
    single(L, m, k, x);
    for (uint32_t j = 0; j < m->o.form.nleaf; j++)
      if (m->sum)
        m->total[j] += x[j];
      else
        m->out[j].at[(ptrdiff_t)k * m->out[j].stride] = x[j];
  }
}

/* the options, a table without integer keys that is the last argument */
static int options(lua_State *L, Map *m) {
  static const char *const known[] = {"threads", "reduce", NULL};
  const int top = lua_gettop(L);
  m->threads = 1;
  m->sum = 0;
  if (top < 3 || lua_type(L, top) != LUA_TTABLE) return top;
  for (int i = 0; known[i] != NULL; i++)
    if (lua_getfield(L, top, known[i]) != LUA_TNIL) goto found;
  lua_settop(L, top);
  return top; /* a shared structure */
found:
  lua_settop(L, top);
  for (lua_pushnil(L); lua_next(L, top); lua_pop(L, 1)) {
    const char *key =
        lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    if (key == NULL || (strcmp(key, known[0]) && strcmp(key, known[1])))
      luaL_argerror(
          L, top,
          lua_pushfstring(L, "unknown option '%s'",
                          key != NULL ? key : luaL_tolstring(L, -2, NULL)));
  }
  if (lua_getfield(L, top, "threads") != LUA_TNIL) {
    int isint;
    const lua_Integer n = lua_tointegerx(L, -1, &isint);
    if (!isint || n < 1 || n > 1024)
      luaL_argerror(L, top, "threads: integer from 1 to 1024 expected");
    m->threads = (int)n;
  }
  if (lua_getfield(L, top, "reduce") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TSTRING ||
        strcmp(lua_tostring(L, -1), "sum") != 0)
      luaL_argerror(L, top, "reduce: 'sum' expected");
    m->sum = 1;
  }
  lua_settop(L, top);
  return top - 1;
}

static int norows(lua_State *L) {
  return luaL_argerror(L, 2,
                       "array has no rows, and what f returns for one is not "
                       "known yet: call it first");
}

/*
** f itself, or its program, for one row after the other, in Lua: there is none
** for them, or one that works on arrays. At 'results', or nowhere if that is 0,
** is a table with those of the first; or, where that has failed, the error.
*/
static int byrow(lua_State *L, const Map *m, int results, int failed) {
  const int top = lua_gettop(L);
  if (m->n == 0) return norows(L);
  m->c->mapped = C_BYROW;
  ad_checkstack(L, m->narg + 20, "too many arguments");
  ad_arraylib(L, m->c->S);
  lua_getfield(L, -1, "maprows");
  lua_pushvalue(L, 1);
  lua_pushinteger(L, (lua_Integer)m->n);
  lua_pushboolean(L, m->sum);
  if (results != 0)
    lua_pushvalue(L, results);
  else
    lua_pushnil(L);
  lua_pushboolean(L, failed);
  for (int i = m->first; i < m->first + m->narg; i++) lua_pushvalue(L, i);
  lua_call(L, 5 + m->narg, LUA_MULTRET);
  return lua_gettop(L) - top - 1;
}

/* the values above 'top' become a table, at top + 1 */
static void packed(lua_State *L, int top) {
  const int n = lua_gettop(L) - top;
  ad_checkstack(L, 4, NULL);
  lua_createtable(L, n, 1);
  lua_insert(L, top + 1);
  for (int i = n; i > 0; i--) lua_rawseti(L, top + 1, i);
  lua_pushinteger(L, n);
  lua_setfield(L, top + 1, "n");
}

/* c:map(a, b, ... [, options]) */
static int l_map(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  Map m;
  int top, arrays = 0, deep = 0, consts, whole, called = 0;
  uint32_t at = 0, leaf = 0, set = P_NONE;
  memset(&m, 0, sizeof m);
  m.c = c;
  m.first = 2;
  m.narg = options(L, &m) - 1;
  for (int i = 2; i < 2 + m.narg; i++) {
    const Array *a = ad_toarray(L, c->S, i);
    if (a == NULL) continue;
    if (arrays++ > 0 && (size_t)a->shape[0] != m.n)
      return luaL_argerror(
          L, i,
          lua_pushfstring(L, "array of %I rows expected, got %I",
                          (LUAI_UACINT)m.n, (LUAI_UACINT)a->shape[0]));
    m.n = (size_t)a->shape[0];
    deep |= a->ndim > 1;
  }
  if (arrays == 0) return luaL_argerror(L, 2, "array expected");
  if (m.n > UINT32_MAX) return luaL_argerror(L, 2, "array has too many rows");
  top = lua_gettop(L);
  /* the program for the first row */
  pushcall(L, &m, 0);
  m.r = c->eager ? NULL : ad_rootof(L, c, 1, top + 2, lua_gettop(L));
  if (m.r == NULL || m.r->prog.ntrace == 0) {
    if (m.n == 0) return norows(L);
    if (!deep)
      lua_call(L, m.narg, LUA_MULTRET);
    else {
      const int status = lua_pcall(L, m.narg, LUA_MULTRET, 0);
      if (status == LUA_ERRMEM) return lua_error(L);
      if (status != LUA_OK) return byrow(L, &m, top + 1, 1);
    }
    packed(L, top);
    called = ++top;
    pushcall(L, &m, 0);
    m.r = c->eager ? NULL : ad_rootof(L, c, 1, top + 2, lua_gettop(L));
  }
  lua_settop(L, top);
  if (m.r == NULL || m.r->prog.ntrace == 0) return byrow(L, &m, called, 0);
  if (!ad_rootcode(L, c, m.r) || ad_rootarrays(m.r))
    return byrow(L, &m, called, 0);
  pushcall(L, &m, 0); /* new code has no inputs yet */
  ad_rootof(L, c, 1, top + 2, lua_gettop(L));
  lua_settop(L, top);
  for (uint32_t k = 0; k < m.r->code.nblock && set == P_NONE; k++)
    if (m.r->code.block[k].end == P_RETURN) set = m.r->code.block[k].set;
  inputs(L, &m);
  if (set == P_NONE || forms(L, c, 1, m.r, &m.r->code, set, &m.o) == NULL)
    return byrow(L, &m, called, 0);
  m.out = room(L, m.o.form.nleaf, sizeof *m.out);
  if (m.r->code.nblock > 1) m.state = lua_newuserdatauv(L, m.n, 0);
  m.total = room(L, m.o.form.nleaf, sizeof *m.total);
  lua_getiuservalue(L, 1, AD_CCONST);
  consts = lua_gettop(L);
  whole = consts + 1;
  ad_checkstack(L, (int)m.o.form.nval + 20, "too many results");
  if (m.sum)
    for (uint32_t j = 0; j < m.o.form.nleaf; j++) m.out[j].at = &m.total[j];
  else
    for (uint32_t i = 0; i < m.o.form.nval; i++)
      results(L, &m, consts, &at, &leaf);
  if (m.n > 0) rounds(L, &m, set);
  lua_settop(L, whole - 1 + (m.sum ? 0 : (int)m.o.form.nval));
  if (!gone(&m) && m.r->code.relaxed) {
    if (hasnan(&m, m.o.form.nleaf)) {
      const int numbers = !ad_rootarrays(m.r);
      if (numbers) ad_rootexact(L, c, m.r);
      if (!numbers ||
          batch(L, &m, &m.r->exact, set, NULL, m.n, room(L, m.n, 1)) < m.n)
        eagerly(L, &m);
    }
  }
  if (!m.sum) return (int)m.o.form.nval;
  ad_pushform(L, 1, &m.o.form, m.total, NULL);
  return (int)m.o.form.nval;
}

/* }====================================================== */

/*
** {======================================================
** c:c_source
** =======================================================
*/

/* a text that is measured, and then written to where there is room for it */
typedef struct Text {
  char *at; /* or NULL */
  size_t n;
} Text;

static int append(void *ud, const char *s, size_t n) {
  Text *t = ud;
  if (t->at != NULL) memcpy(t->at + t->n, s, n);
  t->n += n;
  return 1;
}

/* adds a line, at the top, to the table behind the constants */
static void addline(lua_State *L, int consts) {
  lua_rawseti(L, consts + 1, (lua_Integer)lua_rawlen(L, consts + 1) + 1);
}

/*
** One line for each number or list of numbers in a form: where it is, and what.
** The value whose words are at *at is called what the string at 'path' says.
*/
static void describe(lua_State *L, int consts, const Form *f, uint32_t *at,
                     uint32_t *leaf, const char *what, int path) {
  const uint32_t *w = f->word + *at;
  const char *name = lua_tostring(L, path);
  const int top = lua_gettop(L);
  ad_checkstack(L, 12, NULL);
  if (w[0] == F_CONST) {
    *at += 2;
    return;
  }
  if (F_ISLEAF(w[0])) {
    lua_pushfstring(L, "%s[%d]  %s\n", what, (int)*leaf, name);
    addline(L, consts);
    *leaf += 1;
    *at += 1;
    return;
  }
  *at += 5;
  if (w[3] && w[2] > 0) {
    lua_pushfstring(L, "%s[%d] .. %s[%d]  %s[1 .. %d]\n", what, (int)*leaf,
                    what, (int)(*leaf + w[2] - 1), name, (int)w[2]);
    addline(L, consts);
    *leaf += w[2];
  } else
    for (uint32_t i = 1; i <= w[2]; i++) {
      lua_pushfstring(L, "%s[%d]", name, (int)i);
      describe(L, consts, f, at, leaf, what, top + 1);
      lua_settop(L, top);
    }
  for (uint32_t i = 0; i < w[4]; i++) {
    if (lua_rawgeti(L, consts, f->word[(*at)++]) == LUA_TSTRING)
      lua_pushfstring(L, "%s.%s", name, lua_tostring(L, -1));
    else
      lua_pushfstring(L, "%s[%s]", name, luaL_tolstring(L, -1, NULL));
    describe(L, consts, f, at, leaf, what, lua_gettop(L));
    lua_settop(L, top);
  }
}

/* pushes what the numbers of a form are */
static const char *described(lua_State *L, int self, const Form *f,
                             const char *what, const char *value) {
  uint32_t at = 0, leaf = 0;
  int consts;
  luaL_Buffer b;
  ad_checkstack(L, 12, NULL);
  lua_getiuservalue(L, self, AD_CCONST);
  consts = lua_gettop(L);
  lua_newtable(L);
  for (uint32_t i = 0; i < f->nval; i++) {
    lua_pushfstring(L, "%s %d", value, (int)i + 1);
    describe(L, consts, f, &at, &leaf, what, consts + 2);
    lua_settop(L, consts + 1);
  }
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, consts + 1); i++) {
    lua_rawgeti(L, consts + 1, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  lua_replace(L, consts);
  lua_settop(L, consts);
  return lua_tostring(L, consts);
}

static int l_csource(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  const char *name = luaL_checkstring(L, 2);
  const Code *code;
  uint32_t set = P_NONE;
  Root *r = NULL;
  Layout o;
  Export e;
  Text t;
  luaL_argcheck(L, ad_exportname(name) && strlen(name) == lua_rawlen(L, 2), 2,
                "name for a C function expected");
  for (uint32_t k = 0; k < c->nroot && r == NULL; k++)
    if (c->root[k]->prog.ntrace > 0) r = c->root[k];
  if (r == NULL)
    return luaL_error(L, "c_source: %s",
                      c->eager ? c->eager
                               : "nothing recorded yet: call the function "
                                 "first");
  ad_rootcode(L, c, r);
  ad_refusearrays(L, r, "c_source");
  code = &r->code;
  if (code->relaxed) {
    ad_rootexact(L, c, r);
    code = &r->exact;
  }
  for (uint32_t k = 0; k < code->nblock && set == P_NONE; k++)
    if (code->block[k].end == P_RETURN) set = code->block[k].set;
  memset(&e, 0, sizeof e);
  lua_settop(L, 2);
  if (set == P_NONE || (e.form = forms(L, c, 1, r, code, set, &o)) == NULL)
    return luaL_error(L, "c_source: f has no results that are numbers");
  e.name = name;
  e.nform = c->nset;
  e.nout = o.form.nleaf;
  e.inputs = described(L, 1, &r->in, "x", "argument");
  e.results = described(L, 1, &o.form, "y", "result");
  e.write = append;
  e.ud = &t;
  memset(&t, 0, sizeof t);
  while (!ad_export(code, &e)) ad_nomem(L, code->nslot + code->nblock);
  t.at = room(L, t.n, 1);
  t.n = 0;
  while (!ad_export(code, &e)) ad_nomem(L, code->nslot + code->nblock);
  lua_pushlstring(L, t.at, t.n);
  return 1;
}

/* }====================================================== */

void ad_opencompilelib(lua_State *L, State *S) {
  static const luaL_Reg method[] = {
      {"map", l_map}, {"c_source", l_csource}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, method, LUA_NOREF);
}
