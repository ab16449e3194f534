/*
** look.c
** Looking inside: what each operation of a tape was, and where in the user's
** code; the check for NaN and inf; and the record of a run that explain.lua
** and graph.lua are made from.
**
** A level that is looked at has a note beside each node of its tape. The fast
** path knows nothing of notes, so it is never set to such a level.
*/
#include "array.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/*
** Notes
*/

/* how a row is written: "a + b", or as the call of a function */
static const char *infix(int op) {
  switch (op) {
  case OP_add:
    return "+";
  case OP_sub:
    return "-";
  case OP_mul:
  case OP_cmul:
  case OP_bmul:
    return "*";
  case OP_div:
    return "/";
  case OP_mod:
    return "%";
  case OP_idiv:
    return "//";
  case OP_pow:
    return "^";
  case OP_unm:
    return "-";
  case OP_cadd:
    return "+*"; /* a + b * c */
  default:
    return NULL;
  }
}

/* as users call it */
static const char *opname(int op) {
  switch (op) {
  case OP_logb:
    return "log";
  case OP_list_lmax:
    return "max";
  case OP_list_lmin:
    return "min";
  default:
    return ad_opinfo[op].name;
  }
}

static int islist(int op) { return ad_opinfo[op].arity == 0; }

/* number of a chunk's name among those of a level's notes; 0 is none */
static uint32_t sourceof(lua_State *L, Level *t, const char *name) {
  uint32_t n;
  if (t->sources == LUA_NOREF) {
    lua_newtable(L);
    t->sources = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->sources);
  if (lua_getfield(L, -1, name) != LUA_TNUMBER) {
    lua_pop(L, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1) + 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, name);
    lua_pushstring(L, name);
    lua_rawseti(L, -3, lua_tointeger(L, -2));
  }
  n = (uint32_t)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return n;
}

/* a note about an operation that is about to happen: it has only a place */
void ad_notehere(lua_State *L, Level *t, Note *note) {
  lua_Debug ar;
  memset(note, 0, sizeof *note);
  ad_checkstack(L, 10, NULL);
  if (t->S->sweptline) {
    note->source = sourceof(L, t, t->S->sweptsource);
    note->line = t->S->sweptline;
  } else if (ad_userplace(L, &ar)) {
    note->source = sourceof(L, t, ar.short_src);
    note->line = ar.currentline > 0 ? (uint32_t)ar.currentline : 0;
  }
}

static int sourceslist(lua_State *L, Level *t) {
  if (t->sources == LUA_NOREF) {
    lua_newtable(L);
    t->sources = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->sources);
  return lua_gettop(L);
}

/* the text at the top, popped, as a number in the table at idx */
static uint32_t textof(lua_State *L, int idx) {
  uint32_t n;
  lua_pushvalue(L, -1);
  if (lua_rawget(L, idx) != LUA_TNUMBER) {
    lua_pop(L, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, idx) + 1);
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, idx);
    lua_pushvalue(L, -2);
    lua_rawseti(L, idx, lua_tointeger(L, -2));
  }
  n = (uint32_t)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return n;
}

static void addnumber(luaL_Buffer *b, double x);

/* pushes "array (2, 3)" */
static const char *pushkind(lua_State *L, const Array *a) {
  return lua_pushfstring(L, "array %s", ad_shapetext(L, a->ndim, a->shape));
}

#define FEW 4

/* pushes what a reader wants to know of an array: its elements if they are
   few, else its shape and norm */
static const char *pushbrief(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  const Array *a = ad_packed(L, S, idx);
  luaL_Buffer b;
  double scale = 0, s = 0;
  char text[40];
  if (a->ndim == 1 && a->size <= FEW) {
    luaL_buffinit(L, &b);
    luaL_addchar(&b, '[');
    for (size_t i = 0; i < a->size; i++) {
      if (i > 0) luaL_addstring(&b, ", ");
      snprintf(text, sizeof text, "%.6g", a->data[i]);
      luaL_addstring(&b, isnan(a->data[i]) ? "nan" : text);
    }
    luaL_addchar(&b, ']');
    luaL_pushresult(&b);
  } else {
    for (size_t i = 0; i < a->size; i++)
      if (!(fabs(a->data[i]) <= scale)) scale = fabs(a->data[i]);
    for (size_t i = 0; i < a->size && scale > 0; i++)
      s += (a->data[i] / scale) * (a->data[i] / scale);
    s = isinf(scale) ? scale : scale * sqrt(s);
    snprintf(text, sizeof text, "%.6g", s);
    pushkind(L, a);
    lua_pushfstring(L, "%s, norm %s", lua_tostring(L, -1),
                    isnan(s) ? "nan" : text);
  }
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
  return lua_tostring(L, -1);
}

/* what a note says of a value: the number, or for an array texts of the table
   at 'names' */
static double noted(lua_State *L, State *S, val v, int names, int brief,
                    uint32_t *text, uint32_t *shape) {
  const int top = lua_gettop(L);
  const Array *a;
  double x = NAN;
  *text = 0;
  if (shape) *shape = 0;
  if (v.i == 0) return v.n;
  ad_checkstack(L, 20, NULL);
  ad_pushplain(L, S, v.i);
  a = ad_toarray(L, S, -1);
  if (a == NULL)
    x = lua_tonumber(L, -1);
  else if (names) {
    if (shape) {
      ad_shapetext(L, a->ndim, a->shape);
      *shape = textof(L, names);
    }
    if (brief && (shape || (a->ndim == 1 && a->size <= FEW)))
      pushbrief(L, S, top + 1);
    else
      pushkind(L, a);
    *text = textof(L, names);
  }
  lua_settop(L, top);
  return x;
}

/* the value of a note that is to be of a tape */
void ad_noteresult(lua_State *L, Level *t, Note *note, val y) {
  int names = 0;
  if (y.i) names = sourceslist(L, t);
  note->y = noted(L, t->S, y, names, t->traced, &note->text, &note->shape);
  if (names) lua_pop(L, 1);
}

static void noteoperands(lua_State *L, State *S, Note *note, int op, int n,
                         const Arg *a, const val *x, int names, int brief) {
  note->kind = AD_NOTEOP;
  note->op = (uint8_t)op;
  note->rule = S->sweptline ? S->sweptop : (uint8_t)S->rule;
  note->n = (uint32_t)n;
  for (int i = 0; i < n && i < AD_MAXARITY; i++) {
    note->x[i] = noted(L, S, x[i], names, brief, &note->operand[i], NULL);
    if (a != NULL && a[i].key) note->active |= (uint8_t)(1 << i);
  }
}

void ad_noteoperands(lua_State *L, Level *t, Note *note, int op, int n,
                     const Arg *a, const val *x, val y) {
  const int top = lua_gettop(L);
  int names = 0;
  for (int i = 0; i < n && i < AD_MAXARITY && !names; i++)
    if (x[i].i) names = sourceslist(L, t);
  noteoperands(L, t->S, note, op, n, a, x, names, t->traced);
  ad_noteresult(L, t, note, y);
  lua_settop(L, top);
}

/* the note of the node that the tape gets next */
void ad_note(lua_State *L, Level *t, const Note *note) {
  const uint32_t node = t->tape.nnode;
  if (node >= t->capnote) {
    const uint32_t ncap = node + node / 2 + 64;
    t->note = ad_realloc(L, t->note, (size_t)t->capnote * sizeof *t->note,
                         (size_t)ncap * sizeof *t->note);
    t->S->told += (size_t)(ncap - t->capnote) * sizeof *t->note;
    t->capnote = ncap;
  }
  if (node > t->nnote) /* recorded while nobody looked */
    memset(t->note + t->nnote, 0, (node - t->nnote) * sizeof *t->note);
  if (node < t->capnote) {
    t->note[node] = *note;
    t->nnote = node + 1;
  }
}

/* the value of a node that is there already */
void ad_notevalue(lua_State *L, Level *t, uint32_t node, val y) {
  if (node < t->nnote) ad_noteresult(L, t, &t->note[node], y);
}

/* the operation of a call that is there already */
void ad_notecall(lua_State *L, Level *t, uint32_t node, const char *text) {
  uint32_t n;
  sourceslist(L, t);
  lua_pushstring(L, text);
  n = textof(L, lua_gettop(L) - 1);
  if (node < t->nnote) t->note[node].text = n;
  lua_pop(L, 1);
}

/* pushes "name(array (2, 3), 2)" for the values at first .. last */
const char *ad_callname(lua_State *L, State *S, const char *name, int first,
                        int last) {
  luaL_Buffer b;
  const int top = lua_gettop(L);
  lua_newtable(L);
  for (int i = first; i <= last; i++) {
    ad_pushplain(L, S, i);
    if (ad_toarray(L, S, -1))
      pushkind(L, lua_touserdata(L, -1));
    else
      lua_pushfstring(L, "%f", lua_tonumber(L, -1));
    lua_rawseti(L, top + 1, i - first + 1);
    lua_settop(L, top + 1);
  }
  luaL_buffinit(L, &b);
  luaL_addstring(&b, name);
  luaL_addchar(&b, '(');
  for (int i = first; i <= last; i++) {
    if (i > first) luaL_addstring(&b, ", ");
    if (i - first == FEW) {
      luaL_addstring(&b, "...");
      break;
    }
    lua_rawgeti(L, top + 1, i - first + 1);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  lua_replace(L, top + 1);
  return lua_tostring(L, top + 1);
}

/*
** The texts of debug_nans
*/

static void addnumber(luaL_Buffer *b, double x) {
  char s[40];
  if (isnan(x))
    luaL_addstring(b, "nan"); /* C may say "-nan" */
  else {
    snprintf(s, sizeof s, "%.14g", x);
    luaL_addstring(b, s);
  }
}

/* pushes "log(0)", "0 / array (2, 3)", "sum{1, 2, 3, ...}"; the texts are in
   the table at index 'names' */
static void pushoperation(lua_State *L, const Note *o, int names) {
  const uint32_t shown = o->n < AD_MAXARITY ? o->n : AD_MAXARITY;
  const char *sign = infix(o->op);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (o->op == OP_unm)
    luaL_addchar(&b, '-');
  else if (sign == NULL) {
    luaL_addstring(&b, opname(o->op));
    luaL_addchar(&b, islist(o->op) ? '{' : '(');
  }
  for (uint32_t i = 0; i < shown; i++) {
    if (i > 0) {
      if (sign == NULL)
        luaL_addstring(&b, ", ");
      else {
        luaL_addchar(&b, ' ');
        luaL_addlstring(&b, o->op == OP_cadd ? sign + i - 1 : sign,
                        o->op == OP_cadd ? 1 : strlen(sign));
        luaL_addchar(&b, ' ');
      }
    }
    if (o->operand[i]) {
      lua_rawgeti(L, names, o->operand[i]);
      luaL_addvalue(&b);
    } else
      addnumber(&b, o->x[i]);
  }
  if (shown < o->n) luaL_addstring(&b, ", ...");
  if (sign == NULL) luaL_addchar(&b, islist(o->op) ? '}' : ')');
  if (o->rule) {
    sign = infix(o->rule - 1);
    luaL_addstring(&b, " in the derivative of ");
    luaL_addstring(&b, sign ? sign : opname(o->rule - 1));
  }
  luaL_pushresult(&b);
}

/* a NaN or inf that was found, perhaps in an array */
typedef struct Bad {
  double x;
  int ndim;
  ptrdiff_t index[AD_MAXDIM];
} Bad;

static int nan_error(lua_State *L, const char *where, const char *what,
                     const Bad *bad) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, where);
  luaL_addstring(&b, "debug_nans: ");
  luaL_addstring(&b, what);
  luaL_addchar(&b, ' ');
  addnumber(&b, bad->x);
  for (int d = 0; d < bad->ndim; d++) {
    char s[40];
    snprintf(s, sizeof s, d ? ", %lld" : " at index {%lld",
             (long long)bad->index[d] + 1);
    luaL_addstring(&b, s);
  }
  if (bad->ndim) luaL_addchar(&b, '}');
  luaL_pushresult(&b);
  return lua_error(L);
}

/* pushes "file:line: " for the user's code that runs */
static const char *here(lua_State *L) {
  lua_Debug ar;
  if (!ad_userplace(L, &ar) || ar.currentline <= 0)
    return lua_pushstring(L, "");
  return lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
}

/* is there a NaN or inf among the elements? */
static int badelement(const Array *a, Bad *bad) {
  ptrdiff_t index[AD_MAXDIM] = {0};
  const double *p = a->data;
  int d;
  if (a->size == 0) return 0;
  do {
    if (!isfinite(*p)) {
      bad->x = *p;
      bad->ndim = a->ndim;
      memcpy(bad->index, index, sizeof index);
      return 1;
    }
    for (d = a->ndim - 1; d >= 0; d--) {
      p += a->stride[d];
      if (++index[d] < a->shape[d]) break;
      index[d] = 0;
      p -= a->stride[d] * a->shape[d];
    }
  } while (d >= 0);
  return 0;
}

/* is there a NaN or inf in any part of a value? */
static int badpart(lua_State *L, State *S, val v, Bad *bad) {
  const int top = lua_gettop(L);
  const Cell *c;
  const Array *array;
  int kind, n;
  Arg a;
  bad->ndim = 0;
  bad->x = v.n;
  if (v.i == 0) return !isfinite(v.n);
  if ((array = ad_toarray(L, S, v.i)) != NULL) return badelement(array, bad);
  c = ad_tocell(L, S, v.i);
  if (c == NULL) {
    bad->x = lua_tonumber(L, v.i);
    return !isfinite(bad->x);
  }
  kind = ad_kindof(S, c);
  if (!AD_GENERALKIND(kind)) {
    bad->x = c->value;
    if (!isfinite(bad->x)) return 1;
    if (AD_ISVAR(kind)) return 0;
    n = (int)((lua_rawlen(L, v.i) - AD_CELLHEAD) / sizeof(double));
    for (int k = 0; k < n; k++) {
      bad->x = c->u.part[k];
      if (!isfinite(bad->x)) return 1;
    }
    return 0;
  }
  ad_checkstack(L, 4, "value is nested too deep");
  a.c = lua_touserdata(L, v.i);
  a.kind = kind;
  a.v = v;
  n = AD_ISVAR(kind) ? 0 : ad_nparts(L, &a);
  for (int k = 0; k <= n; k++) {
    int found;
    lua_getiuservalue(L, v.i, k + 1);
    found = badpart(L, S, ad_at(top + 1), bad);
    lua_settop(L, top);
    if (found) return 1;
  }
  return 0;
}

int ad_isbad(lua_State *L, State *S, val v) {
  Bad bad;
  return badpart(L, S, v, &bad);
}

/* an operation has given y: raises an error if that is not finite */
void ad_nancheck(lua_State *L, State *S, int op, int n, const val *x, val y) {
  Bad bad, plain;
  Note o;
  const char *where;
  int isvalue, names;
  if (y.i == 0 || ad_isplain(L, y) || !badpart(L, S, y, &bad)) return;
  ad_checkstack(L, 20, NULL);
  memset(&o, 0, sizeof o);
  lua_newtable(L);
  names = lua_gettop(L);
  noteoperands(L, S, &o, op, n, NULL, x, names, 0);
  ad_pushplain(L, S, y.i);
  isvalue = badpart(L, S, ad_at(lua_gettop(L)), &plain);
  where = here(L);
  pushoperation(L, &o, names);
  if (isvalue) {
    lua_pushfstring(L, "%s gives", lua_tostring(L, -1));
    nan_error(L, where, lua_tostring(L, -1), &plain);
  }
  lua_pushfstring(L, "the derivative of %s becomes", lua_tostring(L, -1));
  nan_error(L, where, lua_tostring(L, -1), &bad);
}

/* the same for what a function with its own rule, or the rule, has given */
void ad_nanrule(lua_State *L, State *S, const char *name, val v,
                int derivative) {
  Bad bad;
  const char *where;
  if (!badpart(L, S, v, &bad)) return;
  ad_checkstack(L, 20, NULL);
  where = here(L);
  name = lua_pushfstring(
      L, derivative ? "the derivative of %s becomes" : "%s gives", name);
  nan_error(L, where, name, &bad);
}

/*
** A sweep over the tape of 't' has computed v at 'node': raises an error that
** names the operation there if v is not finite.
*/
void ad_nansweep(lua_State *L, Level *t, uint32_t node, const char *name,
                 int backward, val v) {
  Bad bad;
  const char *where, *what;
  int names = 0;
  const Note *o = node < t->nnote ? &t->note[node] : NULL;
  if (!badpart(L, t->S, v, &bad)) return;
  ad_checkstack(L, 20, NULL);
  where = "";
  if (o != NULL) names = sourceslist(L, t);
  if (o != NULL && o->source && o->line) {
    lua_rawgeti(L, names, o->source);
    where = lua_pushfstring(L, "%s:%d: ", lua_tostring(L, -1), (int)o->line);
  }
  if (o != NULL && o->kind == AD_NOTEOP)
    pushoperation(L, o, names);
  else if (o != NULL && o->kind == AD_NOTECALL && o->text)
    lua_rawgeti(L, names, o->text);
  else if (name != NULL)
    lua_pushstring(L, name);
  else
    lua_pushstring(L, "an operation recorded before debug_nans(true)");
  what = lua_tostring(L, -1);
  if (backward)
    lua_pushfstring(L, "backward through %s: the derivative becomes", what);
  else
    lua_pushfstring(L, "the derivative of %s becomes", what);
  nan_error(L, where, lua_tostring(L, -1), &bad);
}

/*
** What a sweep records on other tapes is noted as part of the derivative of
** the operation that it is at.
*/
void ad_nanplace(lua_State *L, Level *t, uint32_t node) {
  State *S = t->S;
  const Note *o = node < t->nnote ? &t->note[node] : NULL;
  S->sweptline = 0;
  if (o == NULL || o->kind != AD_NOTEOP || !o->source || !o->line) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->sources);
  lua_rawgeti(L, -1, o->source);
  snprintf(S->sweptsource, sizeof S->sweptsource, "%s", lua_tostring(L, -1));
  lua_pop(L, 2);
  S->sweptop = o->rule ? o->rule : (uint8_t)(o->op + 1);
  S->sweptline = o->line;
}

/* debug_nans(on): the previous setting */
static int l_debug_nans(lua_State *L) {
  State *S = ad_state(L);
  luaL_checktype(L, 1, LUA_TBOOLEAN);
  lua_pushboolean(L, S->debug);
  S->debug = (uint8_t)lua_toboolean(L, 1);
  S->varlevel = NULL; /* it comes back with the next operation */
  S->varstamp = S->dualstamp = AD_NOSTAMP(S);
  return 1;
}

/*
** The record of a run. It is a level too, never live: its tape has numbers
** only, and the outputs of calls are like any other operation. Where there are
** arrays its partial derivatives are texts, by entry, and the level of the run
** stays for the sweeps.
*/

typedef struct Record {
  Level *lv, *out;
  Sweep *w;
  int names, texts; /* stack indices; texts: 0 where there are no arrays */
} Record;

/* is the value of a node an array? */
static int isarraynode(const Level *lv, uint32_t node) {
  return node < lv->nnote && lv->note[node].shape != 0;
}

/* what text number n of a level's is */
static const char *pushtext(lua_State *L, const Level *lv, uint32_t n) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->sources);
  lua_rawgeti(L, -1, n);
  lua_remove(L, -2);
  return lua_tostring(L, -1);
}

/* the text at the top, popped, for the entry that the record gets next */
static void settext(lua_State *L, const Record *r) {
  lua_rawseti(L, r->texts, (lua_Integer)r->out->tape.nentry + 1);
}

/* the Jacobian of one node by another, of which one is an array */
static void jacobiantext(lua_State *L, const Record *r, uint32_t y,
                         uint32_t x) {
  const Level *lv = r->lv;
  const char *s1 = "", *s2 = "";
  const int top = lua_gettop(L);
  if (isarraynode(lv, y)) s1 = pushtext(L, lv, lv->note[y].shape);
  if (isarraynode(lv, x)) s2 = pushtext(L, lv, lv->note[x].shape);
  lua_pushfstring(L, "J %s%s%s", s1, *s1 && *s2 ? "\xc3\x97" : "", s2);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
  settext(L, r);
}

/*
** The partial derivative, element by element, that a tape has saved: a number
** if it is the same for all, which is returned; else a text is set.
*/
static double elementtext(lua_State *L, const Record *r, uint32_t node,
                          uint32_t j) {
  const int top = lua_gettop(L);
  State *S = r->lv->S;
  const Array *p;
  const Saved *s;
  Shape shape;
  double lo = HUGE_VAL, hi = -HUGE_VAL, first;
  char text[80];
  val v;
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->lv->objects);
  lua_rawgeti(L, -1, (lua_Integer)j + 1);
  s = ad_tosaved(L, S, top + 2);
  ad_savedshape(s, s->n, &shape);
  v = ad_sweeppartial(L, S, j - ad_tapefirst(&r->lv->tape, node));
  ad_pushval(L, ad_toshape(L, S, v, &shape));
  ad_pushplain(L, S, -1);
  p = ad_packed(L, S, lua_gettop(L));
  first = p->size ? p->data[0] : 0;
  for (size_t i = 0; i < p->size; i++) {
    if (!(p->data[i] >= lo)) lo = p->data[i];
    if (!(p->data[i] <= hi)) hi = p->data[i];
  }
  lua_settop(L, top);
  if (p->size == 0 || lo == hi) return first;
  snprintf(text, sizeof text, "%.4g \xe2\x80\xa6 %.4g", lo, hi);
  lua_pushstring(L, text);
  settext(L, r);
  return NAN;
}

/* pushes the name of call 'c' */
static void callname(lua_State *L, const Level *lv, uint32_t c) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->callers);
  lua_rawgeti(L, -1, (lua_Integer)c + 1);
  if (lua_getfield(L, -1, "name") != LUA_TSTRING) {
    lua_pop(L, 1);
    lua_pushliteral(L, "checkpoint");
  }
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static double plainpartial(lua_State *L, const Record *r, uint32_t node,
                           uint32_t j) {
  Level *lv = r->lv;
  double p;
  if (!(lv->tape.idx[j] & AD_GENERAL)) return lv->tape.mult[j];
  if (isarraynode(lv, node)) return elementtext(L, r, node, j);
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->objects);
  lua_rawgeti(L, -1, (lua_Integer)j + 1);
  p = ad_plain(L, lv->S, lua_gettop(L));
  lua_pop(L, 2);
  return p;
}

/*
** The outputs of a call: their partial derivatives come from a sweep over the
** call alone for each.
*/
static void flattencall(lua_State *L, const Record *r, uint32_t c) {
  Level *lv = r->lv, *out = r->out;
  Sweep *w = r->w;
  const Call call = lv->calls[c];
  const Tape *t = &lv->tape;
  const uint32_t first = ad_tapefirst(t, call.node),
                 nin = t->end[call.node] - first;
  ad_room(L, out, 1, 0);
  ad_tapenode(&out->tape);
  for (uint32_t i = 1; i <= call.nout; i++) {
    ad_sweepclear(L, w, call.node);
    for (uint32_t k = 1; k <= call.nout; k++)
      ad_sweepclear(L, w, call.node + k);
    for (uint32_t j = 0; j < nin; j++) ad_sweepclear(L, w, t->idx[first + j]);
    if (!isarraynode(lv, call.node + i)) {
      ad_sweepadd(L, w, call.node + i, ad_num(1));
      ad_sweepreverse(L, w, call.node + 1 + call.nout, call.node);
    }
    ad_room(L, out, 1, nin);
    for (uint32_t j = 0; j < nin; j++) {
      const uint32_t x = t->idx[first + j];
      double p = NAN;
      if (isarraynode(lv, call.node + i) || isarraynode(lv, x))
        jacobiantext(L, r, call.node + i, x);
      else {
        ad_sweepget(L, w, x);
        p = ad_plain(L, lv->S, lua_gettop(L));
        lua_pop(L, 1);
      }
      ad_tapeentry(&out->tape, x, p);
    }
    ad_tapenode(&out->tape);
    callname(L, lv, c);
    if (call.nout > 1) {
      lua_pushfstring(L, "%s[%d]", lua_tostring(L, -1), (int)i);
      lua_replace(L, -2);
    }
    lua_rawseti(L, r->names, (lua_Integer)(call.node + i));
  }
}

/* pushes the partial derivative of an entry of the record: a number or text;
   upvalues as row */
static void pushpartial(lua_State *L, const Level *t, uint32_t j) {
  if (lua_istable(L, lua_upvalueindex(4)) &&
      lua_rawgeti(L, lua_upvalueindex(4), (lua_Integer)j + 1) == LUA_TSTRING)
    return;
  if (lua_istable(L, lua_upvalueindex(4))) lua_pop(L, 1);
  lua_pushnumber(L, t->tape.mult[j]);
}

/* row(node): the row of a node as a table; nil for what is no row */
static int row_call(lua_State *L) {
  const Level *t = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer at = luaL_checkinteger(L, 1);
  const uint32_t node = (uint32_t)at;
  const Note *o;
  uint32_t j, n, last;
  const char *name = NULL;
  if (at < 0 || node >= t->tape.nnode || node >= t->nnote ||
      t->note[node].kind == AD_NOTECALL)
    return 0;
  o = &t->note[node];
  lua_createtable(L, 0, 8);
  if (o->text)
    pushtext(L, t, o->text);
  else
    lua_pushnumber(L, o->y);
  lua_setfield(L, -2, "value");
  if (o->kind == AD_NOTEINPUT) {
    lua_pushliteral(L, "input");
    lua_setfield(L, -2, "op");
    return 1;
  }
  if (o->kind == AD_NOTEOP) {
    lua_pushstring(L, name = opname(o->op));
    lua_setfield(L, -2, "op");
    lua_pushstring(L, infix(o->op));
    lua_setfield(L, -2, "infix");
    lua_pushboolean(L, islist(o->op));
    lua_setfield(L, -2, "list");
  } else {
    lua_rawgeti(L, lua_upvalueindex(3), (lua_Integer)node);
    lua_setfield(L, -2, "op");
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "call");
  }
  if (o->source) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->sources);
    lua_rawgeti(L, -1, o->source);
    lua_setfield(L, -3, "source");
    lua_pop(L, 1);
    lua_pushinteger(L, o->line);
    lua_setfield(L, -2, "line");
  }
  lua_newtable(L);
  j = ad_tapefirst(&t->tape, node);
  last = t->tape.end[node];
  n = name != NULL && !islist(o->op) ? o->n : last - j;
  for (uint32_t i = 0; i < n; i++) {
    lua_createtable(L, 0, 2);
    if (name != NULL && !islist(o->op) && !(o->active >> i & 1)) {
      if (o->operand[i])
        pushtext(L, t, o->operand[i]);
      else
        lua_pushnumber(L, o->x[i]);
      lua_setfield(L, -2, "value");
    } else if (j < last) {
      lua_pushinteger(L, t->tape.idx[j]);
      lua_setfield(L, -2, "node");
      pushpartial(L, t, j++);
      lua_setfield(L, -2, "partial");
    }
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  if (name != NULL && islist(o->op) && o->n > n) { /* the constants in it */
    lua_pushinteger(L, o->n - n);
    lua_setfield(L, -3, "constants");
  }
  lua_setfield(L, -2, "operands");
  return 1;
}

/* pushes a list of the values at the nodes in the list at index 2 */
static int picked(lua_State *L, const Level *t, const double *x) {
  const lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_Integer node;
    lua_rawgeti(L, 2, i);
    node = lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_pushnumber(L, node >= 0 && node < t->tape.nnode ? x[node] : 0);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static double *zeros(lua_State *L, const Level *t) {
  const size_t n = t->tape.nnode;
  double *x = lua_newuserdatauv(L, n * sizeof *x + 1, 0);
  for (size_t i = 0; i < n; i++) x[i] = 0;
  return x;
}

/*
** The same where there are arrays: by a sweep over the tape of the run. The
** seed is at index 3. Arrays become texts.
*/
static int swept(lua_State *L, int backward) {
  State *S = ad_state(L);
  Level *lv = lua_touserdata(L, lua_upvalueindex(5));
  const uint32_t node = (uint32_t)lua_tointeger(L, 1), count = lv->tape.nnode;
  const lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
  Sweep w;
  lua_settop(L, 3);
  lua_pushvalue(L, lua_upvalueindex(5));
  ad_sweepguard(L, lv);
  ad_sweepbegin(L, &w, lv, 4);
  w.keep = 1;
  lua_pushvalue(L, 3);
  ad_sweepseed(L, &w, node, ad_valat(L, lua_gettop(L)));
  if (backward)
    ad_sweepreverse(L, &w, node + 1, 0);
  else
    ad_sweepforward(L, &w, 0, count);
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    const int top = lua_gettop(L);
    lua_rawgeti(L, 2, i);
    ad_sweepget(L, &w, (uint32_t)lua_tointeger(L, -1));
    ad_pushplain(L, S, -1);
    if (ad_toarray(L, S, -1)) pushbrief(L, S, lua_gettop(L));
    lua_rawseti(L, top, i);
    lua_settop(L, top);
  }
  ad_sweepend(&w);
  return 1;
}

/* tangents(input, nodes, seed): of nodes, for that tangent (where there are no
   arrays, 1) of an input; upvalues as row */
static int tangents_call(lua_State *L) {
  const Level *t = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer input = luaL_checkinteger(L, 1);
  double *x;
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_argcheck(L, input >= 0 && input < t->tape.nnode, 1, "no such node");
  if (lua_isuserdata(L, lua_upvalueindex(5))) return swept(L, 0);
  x = zeros(L, t);
  x[input] = 1;
  ad_tapeforward(&t->tape, 0, t->tape.nnode, x, 1);
  return picked(L, t, x);
}

/* adjoints(output, nodes, seed): derivatives of an output by nodes */
static int adjoints_call(lua_State *L) {
  const Level *t = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer output = luaL_checkinteger(L, 1);
  double *x;
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_argcheck(L, output >= 0 && output < t->tape.nnode, 1, "no such node");
  if (lua_isuserdata(L, lua_upvalueindex(5))) return swept(L, 1);
  x = zeros(L, t);
  x[output] = 1;
  ad_tapereverse(&t->tape, (uint32_t)output + 1, 0, x);
  return picked(L, t, x);
}

/*
** users(nodes, most): for each of the nodes a list {node, partial, node,
** partial, ...} of where it is used, at most so many, and their number n
*/
static int users_call(lua_State *L) {
  const Level *t = lua_touserdata(L, lua_upvalueindex(2));
  const lua_Integer most = luaL_checkinteger(L, 2);
  lua_Integer n;
  uint32_t *at, j = 0;
  luaL_checktype(L, 1, LUA_TTABLE);
  n = (lua_Integer)lua_rawlen(L, 1);
  at = lua_newuserdatauv(L, (size_t)t->tape.nnode * sizeof *at + 1, 0);
  memset(at, 0, (size_t)t->tape.nnode * sizeof *at);
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_Integer node;
    lua_rawgeti(L, 1, i);
    node = lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (node >= 0 && node < t->tape.nnode) at[node] = (uint32_t)i;
    lua_newtable(L);
    lua_pushinteger(L, 0);
    lua_setfield(L, -2, "n");
    lua_rawseti(L, -2, i);
  }
  for (uint32_t k = 0; k < t->tape.nnode; k++)
    for (; j < t->tape.end[k]; j++) {
      lua_Integer count;
      if (at[t->tape.idx[j]] == 0) continue;
      lua_rawgeti(L, -1, at[t->tape.idx[j]]);
      lua_getfield(L, -1, "n");
      count = lua_tointeger(L, -1);
      lua_pop(L, 1);
      if (count < most) {
        lua_pushinteger(L, k);
        lua_rawseti(L, -2, 2 * count + 1);
        pushpartial(L, t, j);
        lua_rawseti(L, -2, 2 * count + 2);
      }
      lua_pushinteger(L, count + 1);
      lua_setfield(L, -2, "n");
      lua_pop(L, 1);
    }
  return 1;
}

/*
** Takes the record of the level at stack index 'slot' and puts the functions
** that read it into the table on the top.
*/
void ad_takerecord(lua_State *L, Level *lv, int slot) {
  State *S = lv->S;
  const Tape *t = &lv->tape;
  static const luaL_Reg fn[] = {{"row", row_call},
                                {"tangents", tangents_call},
                                {"adjoints", adjoints_call},
                                {"users", users_call},
                                {NULL, NULL}};
  const int into = lua_gettop(L), names = into + 2, texts = into + 3;
  const uint32_t nnode = t->nnode;
  uint32_t c = 0, j = 0;
  int arrays = 0;
  Level *out;
  Sweep w;
  Record r;
  ad_checkstack(L, 20, NULL);
  for (uint32_t k = 0; k < lv->nnote; k++) arrays |= isarraynode(lv, k);
  out = ad_newlevel(L, S, AD_REVERSE, 1);
  lua_newtable(L);
  if (arrays)
    lua_newtable(L);
  else
    lua_pushnil(L);
  r.lv = lv;
  r.out = out;
  r.w = &w;
  r.names = names;
  r.texts = texts;
  ad_sweepbegin(L, &w, lv, slot);
  for (uint32_t k = 0; k < nnode; k++) {
    if (c < lv->ncall && lv->calls[c].node == k) {
      flattencall(L, &r, c);
      k += lv->calls[c++].nout;
      j = t->end[k];
      continue;
    }
    ad_room(L, out, 1, t->end[k] - j);
    for (; j < t->end[k]; j++) {
      const double p = plainpartial(L, &r, k, j);
      ad_tapeentry(&out->tape, t->idx[j] & ~AD_GENERAL, p);
    }
    ad_tapenode(&out->tape);
  }
  ad_sweepend(&w);
  lua_settop(L, texts);
  if (arrays) ad_keeptape(L, lv, slot);
  out->note = lv->note;
  out->nnote = lv->nnote;
  out->capnote = lv->capnote;
  out->sources = lv->sources;
  lv->note = NULL;
  lv->nnote = lv->capnote = 0;
  lv->sources = LUA_NOREF;
  lua_createtable(L, (int)lv->ncall, 0); /* ascending */
  for (c = 0; c < lv->ncall; c++) {
    lua_pushinteger(L, lv->calls[c].node);
    lua_rawseti(L, -2, (lua_Integer)c + 1);
  }
  lua_setfield(L, into, "hidden");
  lua_pushinteger(L, nnode);
  lua_setfield(L, into, "count");
  for (const luaL_Reg *f = fn; f->name != NULL; f++) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, into + 1);
    lua_pushvalue(L, names);
    lua_pushvalue(L, texts);
    if (arrays)
      lua_pushvalue(L, slot);
    else
      lua_pushnil(L);
    lua_pushcclosure(L, f->func, 5);
    lua_setfield(L, into, f->name);
  }
  lua_settop(L, into);
}

/* brief(a): an array in few words */
static int l_brief(lua_State *L) {
  State *S = ad_state(L);
  ad_checkarray(L, S, 1);
  lua_settop(L, 1);
  pushbrief(L, S, 1);
  return 1;
}

void ad_openlook(lua_State *L, State *S) {
  static const luaL_Reg f[] = {
      {"debug_nans", l_debug_nans}, {"brief", l_brief}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, f, LUA_NOREF);
}
