/*
** calls.c
** Arrays in compiled functions: operations on them are calls, which no back
** end knows. While f is recorded an array is a value that has the plain array
** with it; an operation on such is done on what is plain, and becomes a call
** of the program. To run one is to call the same again, from C where that can
** be, with the result in memory that the program keeps.
**
** An array that f had before the recording is a constant of the program by
** itself: what is in it when the program runs is what counts. Where f reads it
** without a recorded value, nothing is left of that in the program: it may then
** not be written to, or the recording is of no use any more. Arrays that f
** makes are constants by what is in them. Where f looks at what is in a recorded
** array, that is compared with what it was.
*/
#include <stdio.h>
#include <string.h>

#include "arrayop.h"
#include "compile.h"

#define MAXLOOKS 32 /* guards on what is in arrays */
#define UNIFORM 64  /* elements of a constant: more, if the same, are one */

/*
** What calls do
*/

void ad_callfree(lua_State *L, Compiled *c) {
  for (uint32_t k = 0; k < c->ncalled; k++)
    ad_realloc(L, c->called[k].shape,
               c->called[k].nresult * sizeof *c->called->shape, 0);
  ad_realloc(L, c->called, c->capcalled * sizeof *c->called, 0);
  if (c->described) luaL_unref(L, LUA_REGISTRYINDEX, c->described);
  c->called = NULL;
  c->ncalled = c->capcalled = 0;
  c->described = 0;
}

size_t ad_callsize(const void *ud, uint32_t call) {
  return ((const Compiled *)ud)->called[call].size;
}

/*
** The number of what is like 'd', whose results have these shapes: known by
** the string at the top, which is popped, and by the shapes. Of a function f
** and at are stack indices.
*/
static uint32_t describe(lua_State *L, Compiled *c, const Called *d,
                         const Shape *shape, int f, int at) {
  const int top = lua_gettop(L);
  luaL_Buffer b;
  Called *to;
  uint32_t k;
  if (!c->described) {
    lua_newtable(L);
    c->described = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->described);
  luaL_buffinit(L, &b);
  lua_pushvalue(L, top);
  luaL_addvalue(&b);
  for (uint32_t i = 0; i < d->nresult; i++) {
    luaL_addlstring(&b, (const char *)&shape[i].ndim, sizeof shape[i].ndim);
    luaL_addlstring(&b, (const char *)shape[i].len,
                    sizeof *shape[i].len * (size_t)shape[i].ndim);
  }
  luaL_pushresult(&b);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, top + 1) == LUA_TNUMBER) {
    k = (uint32_t)lua_tointeger(L, -1);
    lua_settop(L, top - 1);
    return k;
  }
  lua_pop(L, 1);
  if (c->ncalled == c->capcalled) {
    const uint32_t ncap = c->capcalled * 2 + 8;
    c->called =
        ad_realloc(L, c->called, c->capcalled * sizeof *to, ncap * sizeof *to);
    c->capcalled = ncap;
  }
  k = c->ncalled;
  if (d->kind == C_FUNCTION) {
    lua_pushvalue(L, f);
    lua_rawseti(L, top + 1, (lua_Integer)k * 2 + 1);
    lua_pushvalue(L, at);
    lua_rawseti(L, top + 1, (lua_Integer)k * 2 + 2);
  }
  to = &c->called[k];
  *to = *d;
  to->shape = ad_realloc(L, NULL, 0, d->nresult * sizeof *shape);
  memcpy(to->shape, shape, d->nresult * sizeof *shape);
  to->size = 0;
  if (d->kind == C_ELEMENT) {
    to->size = 1;
    for (int i = 0; i < shape->ndim; i++) to->size *= (size_t)shape->len[i];
    if (to->size == 0) to->size = 1;
  }
  c->ncalled++;
  lua_pushinteger(L, k);
  lua_rawset(L, top + 1);
  lua_settop(L, top - 1);
  return k;
}

/* "sum (32, 10)" */
void ad_addcalled(luaL_Buffer *b, const Called *d) {
  char text[40];
  luaL_addstring(b, d->kind == C_ELEMENT ? ad_opinfo[d->op].name
                    : d->kind == C_SAME  ? "same"
                                         : d->name);
  for (uint32_t i = 0; i < d->nresult; i++) {
    const Shape *s = &d->shape[i];
    luaL_addstring(b, " (");
    for (int k = 0; k < s->ndim; k++) {
      snprintf(text, sizeof text, k ? ", %lld" : "%lld", (long long)s->len[k]);
      luaL_addstring(b, text);
    }
    luaL_addchar(b, ')');
  }
}

/*
** What belongs to a root
*/

void ad_arraysdrop(Root *r) {
  if (r->array)
    r->prog.alloc(r->prog.ud, r->array, r->narray * 2 * sizeof *r->array, 0);
  r->array = r->memory = NULL;
  r->narray = 0;
}

void ad_arraysidle(lua_State *L, Root *r) {
  if (r->array == NULL) return;
  ad_arraysdrop(r);
  luaL_unref(L, LUA_REGISTRYINDEX, r->slots);
  r->slots = 0;
}

void ad_arraysfree(lua_State *L, Root *r) {
  ad_arraysdrop(r);
  if (r->slots) luaL_unref(L, LUA_REGISTRYINDEX, r->slots);
  if (r->konstants) luaL_unref(L, LUA_REGISTRYINDEX, r->konstants);
  if (r->read) luaL_unref(L, LUA_REGISTRYINDEX, r->read);
  r->slots = r->konstants = r->read = 0;
}

/* pushes a table of the registry, a new one if there is none yet */
static void pushtable(lua_State *L, int *ref, int weak) {
  if (*ref) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, *ref);
    return;
  }
  lua_newtable(L);
  if (weak) {
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
  }
  lua_pushvalue(L, -1);
  *ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

void ad_pushslots(lua_State *L, Root *r) { pushtable(L, &r->slots, 0); }

int ad_rootarrays(const Root *r) {
  return r->in.narray || (r->hascode && ad_hasarrays(&r->code));
}

void ad_refusearrays(lua_State *L, const Root *r, const char *what) {
  if (ad_rootarrays(r))
    luaL_error(L,
               "%s: f works on arrays, and its program calls their functions: "
               "this is for programs of numbers alone",
               what);
}

/*
** The recorder
*/

/* is the owner of a plain array one that the recording has made? */
static int isnew(const State *S, const Array *owner) {
  return owner->born >= AD_TRANSFORM(S->recorder->key);
}

int ad_madehere(lua_State *L, const State *S, int idx, int view) {
  return isnew(S, view ? lua_touserdata(L, idx) : ad_owner(L, idx));
}

/* f reads a plain array: the program has what came of it */
void ad_recordread(lua_State *L, State *S, int idx) {
  Recorder *rec = S->recorder;
  const Array *a = lua_touserdata(L, idx);
  rec->read = NULL;
  if (rec->failed || rec->inside || isnew(S, ad_owner(L, idx))) return;
  ad_checkstack(L, 6, NULL);
  if (a->view)
    lua_getiuservalue(L, idx, 1);
  else
    lua_pushvalue(L, idx);
  pushtable(L, &rec->root->read, 1);
  lua_pushvalue(L, -2);
  if (lua_rawget(L, -2) == LUA_TNIL) {
    lua_pushvalue(L, -3);
    lua_pushboolean(L, 1);
    lua_rawset(L, -4);
    rec->read = lua_touserdata(L, -3);
  }
  lua_pop(L, 3);
  rec->arrays = 1;
}

/*
** A view is made of an array: who has asked for that to do so has not looked at
** what is in it, and whoever uses the view will see that.
*/
void ad_recordview(lua_State *L, State *S, int idx) {
  Recorder *rec = S->recorder;
  const int top = lua_gettop(L);
  const Array *owner = ad_owner(L, idx);
  if (rec->read == owner && rec->read != NULL && !rec->inside) {
    ad_checkstack(L, 6, NULL);
    idx = lua_absindex(L, idx);
    pushtable(L, &rec->root->read, 1);
    if (owner->view || owner != lua_touserdata(L, idx))
      lua_getiuservalue(L, idx, 1);
    else
      lua_pushvalue(L, idx);
    lua_pushnil(L);
    lua_rawset(L, top + 1);
    lua_settop(L, top);
  }
  rec->read = NULL;
}

int ad_unwritten(lua_State *L, State *S, Root *r) {
  const int top = lua_gettop(L);
  int same = 1;
  if (r->writes == S->writes) return 1;
  ad_checkstack(L, 6, NULL);
  pushtable(L, &r->read, 1);
  lua_pushnil(L);
  while (same && lua_next(L, top + 1)) {
    const Array *a = lua_touserdata(L, -2);
    same = a->written <= r->writes;
    lua_pop(L, 1);
  }
  lua_settop(L, top);
  if (same) r->writes = S->writes;
  return same;
}

#define WRITTEN "f writes into an array that it also reads"

void ad_recordarrays(lua_State *L, State *S) {
  Recorder *rec = S->recorder;
  Root *r = rec->root;
  const int top = lua_gettop(L);
  if (rec->failed) return;
  if (rec->writes == S->writes) {
    if (r->read == 0 || r->prog.ntrace == 0) r->writes = S->writes;
    return;
  }
  /* to what was made meanwhile it may have */
  pushtable(L, &r->read, 1);
  pushtable(L, &r->konstants, 0);
  for (int t = top + 1; t <= top + 2; t++) {
    lua_pushnil(L);
    while (lua_next(L, t)) {
      if (lua_type(L, -2) == LUA_TUSERDATA &&
          ad_owner(L, -2)->written > rec->writes)
        ad_recordfail(S, WRITTEN);
      lua_pop(L, 1);
    }
  }
  lua_settop(L, top);
  if (r->prog.ntrace == 0) r->writes = S->writes;
}

/* x[key] = value, at 1 .. 3, if x is recorded: that is not to be replayed */
int ad_recordwrite(lua_State *L, State *S, int idx) {
  const Cell *c = ad_tocell(L, S, idx);
  const Array *a;
  if (c == NULL || ad_kindof(S, c) != AD_RECA) return 0;
  ad_recordfail(S, "f writes into an array");
  lua_settop(L, 3);
  lua_getiuservalue(L, idx, 1); /* others may have it, so in a copy */
  a = lua_touserdata(L, 4);
  ad_gather(a, ad_newarray(L, S, a->ndim, a->shape)->data);
  lua_pushvalue(L, 5);
  lua_setiuservalue(L, idx, 1);
  lua_pushvalue(L, 2);
  ad_pushplain(L, S, 3);
  lua_settable(L, 5);
  return 1;
}

/* do all elements of an array without gaps have the bits of x? */
static int isuniform(const Array *a, const double *x) {
  for (size_t i = 0; i < a->size; i++)
    if (memcmp(a->data + i, x, sizeof *x) != 0) return 0;
  return 1;
}

/* of arrays in row-major order, without gaps; but b may be of pushuniform */
static int sameelements(const Array *a, const Array *b) {
  if (a->ndim != b->ndim ||
      memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->ndim) != 0)
    return 0;
  if (!ad_contiguous(b)) return isuniform(a, b->data);
  return a->size == 0 ||
         memcmp(a->data, b->data, a->size * sizeof *a->data) == 0;
}

/* an array like a, all of whose elements are the same: they are one */
static void pushuniform(lua_State *L, State *S, const Array *a) {
  const ptrdiff_t one = 1;
  Array *v;
  ad_newarray(L, S, 1, &one)->data[0] = a->data[0];
  v = ad_newview(L, S, lua_gettop(L));
  v->ndim = a->ndim;
  for (int d = 0; d < a->ndim; d++) {
    v->shape[d] = a->shape[d];
    v->stride[d] = 0;
  }
  ad_resize(L, v);
  lua_remove(L, -2);
}

static int sameview(const Array *a, const Array *b) {
  const size_t size = sizeof *a->shape * (size_t)a->ndim;
  return a->data == b->data && a->ndim == b->ndim &&
         memcmp(a->shape, b->shape, size) == 0 &&
         memcmp(a->stride, b->stride, size) == 0;
}

/*
** The number of the constant that the plain array at idx is; 'itself': an array
** that was there before, whatever comes to be in it.
*/
static uint32_t konstnumber(lua_State *L, State *S, int idx, int itself) {
  Root *r = S->recorder->root;
  const int top = lua_gettop(L);
  const Array *owner = ad_owner(L, idx);
  uint32_t k;
  ad_checkstack(L, 10, NULL);
  idx = lua_absindex(L, idx);
  pushtable(L, &r->konstants, 0);
  if (itself && !isnew(S, owner)) {
    if (owner->written > S->recorder->writes) ad_recordfail(S, WRITTEN);
    lua_pushvalue(L, idx);
    if (lua_rawget(L, top + 1) == LUA_TNUMBER) {
      k = (uint32_t)lua_tointeger(L, -1);
      lua_settop(L, top);
      return k;
    }
    lua_settop(L, top + 1);
    for (k = 0; isnew(S, lua_touserdata(L, idx)) && k < r->nkonst; k++) {
      lua_rawgeti(L, top + 1, (lua_Integer)k + 1); /* the same view? */
      if (sameview(lua_touserdata(L, idx), lua_touserdata(L, -1))) {
        lua_settop(L, top);
        return k;
      }
      lua_pop(L, 1);
    }
    lua_pushvalue(L, idx);
    lua_pushinteger(L, r->nkonst);
    lua_rawset(L, top + 1);
    lua_pushvalue(L, idx);
  } else {
    const Array *a = ad_packed(L, S, idx);
    if (lua_gettop(L) == top + 1) lua_pushvalue(L, idx);
    for (k = 0; k < r->nkonst; k++) {
      lua_rawgeti(L, top + 1, (lua_Integer)k + 1);
      lua_pushvalue(L, -1);
      if (lua_rawget(L, top + 1) == LUA_TNIL && /* of the program's own */
          sameelements(a, lua_touserdata(L, -2))) {
        lua_settop(L, top);
        return k;
      }
      lua_pop(L, 2);
    }
    /* zeros and ones, as derivatives have them, take no room */
    if (a->size > UNIFORM && isuniform(a, a->data))
      pushuniform(L, S, a);
    else
      ad_gather(a, ad_newarray(L, S, a->ndim, a->shape)->data);
  }
  lua_rawseti(L, top + 1, (lua_Integer)r->nkonst + 1);
  lua_settop(L, top);
  return r->nkonst++;
}

uint32_t ad_konstarray(lua_State *L, State *S, int idx) {
  const uint32_t k = konstnumber(L, S, idx, 1);
  uint32_t ref;
  if (S->recorder->failed) return P_NONE;
  S->recorder->arrays = 1;
  AD_UNTIL(ref, ad_reckarray(&S->recorder->root->prog, k));
  return ad_recwent(L, S, ref) ? ref : P_NONE;
}

val ad_pushrecordedarray(lua_State *L, State *S, int idx, uint32_t ref) {
  Cell *c = ad_newcell(L, S, AD_MTREC, sizeof(Cell), 1);
  c->value = 0;
  c->u.var.node = ref;
  c->u.var.leaf = S->recorder->epoch;
  lua_pushvalue(L, idx);
  lua_setiuservalue(L, -2, 1);
  c->stamp = ad_stamp(S, S->recorder->key, AD_RECA);
  return ad_at(lua_gettop(L));
}

/* may a call be recorded? */
static int canrecord(State *S) {
  Compiled *c = ad_compiling(S);
  if (c->isgrad) ad_recordopaque(S);
  if (c->isgrad) ad_recordfail(S, "f works on arrays");
  if (S->recorder->root->prog.nins >= c->maxoperations)
    ad_recordfail(S, "max_operations reached");
  S->recorder->arrays = 1;
  return !S->recorder->failed;
}

/* the call of number 'id' with n operands; P_NONE: the recording has failed */
static uint32_t recordcall(lua_State *L, State *S, uint32_t id, uint32_t n,
                           const uint32_t *x) {
  const Called *d = &ad_compiling(S)->called[id];
  Prog *p = &S->recorder->root->prog;
  uint32_t ref;
  AD_UNTIL(ref, ad_reccall(p, id, n, x, d->shape[0].ndim > 0 ? P_ARRAY : 0));
  return ad_recwent(L, S, ref) ? ref : P_NONE;
}

static uint32_t recordop(lua_State *L, State *S, int op, int n,
                         const uint32_t *ref, const Array *y) {
  Compiled *c = ad_compiling(S);
  Called d;
  Shape shape;
  uint32_t id;
  memset(&d, 0, sizeof d);
  memset(&shape, 0, sizeof shape);
  d.kind = C_ELEMENT;
  d.op = (uint8_t)op;
  d.nresult = 1;
  shape.ndim = y->ndim;
  memcpy(shape.len, y->shape, sizeof y->shape);
  lua_pushfstring(L, "%d:", op);
  id = describe(L, c, &d, &shape, 0, 0);
  return recordcall(L, S, id, (uint32_t)n, ref);
}

/*
** The next that is recorded is a comparison of array 'ref' with a constant: its
** number; P_NONE: it is not, or nothing is known of what comes.
*/
static uint32_t comparedwith(const Prog *p, uint32_t id, uint32_t ref) {
  const Ins *x = p->ins + p->at;
  if (p->state != P_FOLLOW || p->at + 2 > p->block[p->here].last) return P_NONE;
  if (x[0].op != P_KARRAY || x[1].op != P_CALL || x[1].c != id ||
      p->list[x[1].a] != ref)
    return P_NONE;
  return x[0].a;
}

/*
** A guard: the array 'ref' is what is at the top. Other things that it was
** before come first.
*/
static void guard(lua_State *L, State *S, uint32_t ref) {
  Recorder *rec = S->recorder;
  Root *r = rec->root;
  const int top = lua_gettop(L);
  const Array *a = ad_packed(L, S, top);
  int holds = 0;
  Called d;
  Shape shape;
  uint32_t id, one, went;
  memset(&d, 0, sizeof d);
  memset(&shape, 0, sizeof shape);
  d.kind = C_SAME;
  d.nresult = 1;
  lua_pushliteral(L, "same");
  id = describe(L, ad_compiling(S), &d, &shape, 0, 0);
  AD_UNTIL(one, ad_progconst(&r->prog, 1));
  while (!holds && !rec->failed) {
    uint32_t k = comparedwith(&r->prog, id, ref), x[2] = {0, 0};
    x[0] = ref;
    holds = k == P_NONE;
    if (holds) {
      k = konstnumber(L, S, top, 0);
      if (r->prog.state == P_APPEND && r->nlook++ >= MAXLOOKS)
        ad_recordfail(S, "f looks at the elements of an array, which differ");
    } else {
      pushtable(L, &r->konstants, 0);
      lua_rawgeti(L, -1, (lua_Integer)k + 1);
      holds = sameelements(a, lua_touserdata(L, -1));
      lua_pop(L, 2);
    }
    AD_UNTIL(x[1], ad_reckarray(&r->prog, k));
    if (!ad_recwent(L, S, x[1])) break;
    x[1] = recordcall(L, S, id, 2, x);
    if (x[1] == P_NONE) break;
    AD_UNTIL(went, ad_recif(&r->prog, P_EQ, x[1], one, holds, 0));
    if (!ad_recwent(L, S, went)) break;
  }
  lua_settop(L, top);
}

/*
** If the elements of the array at idx are recorded, somebody is about to look
** at them, and gets a plain array in its place, which is nobody else's.
*/
int ad_recordelements(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  const Cell *c;
  const Array *a;
  uint32_t ref;
  val b;
  idx = lua_absindex(L, idx);
  if ((c = ad_tocell(L, S, idx)) == NULL) return 0;
  ad_checkstack(L, 20, NULL);
  b = ad_base(L, S, ad_at(idx));
  c = b.i ? ad_tocell(L, S, b.i) : NULL;
  if (c == NULL || ad_kindof(S, c) != AD_RECA) {
    lua_settop(L, top);
    return 0;
  }
  ref = c->u.var.node;
  lua_getiuservalue(L, b.i, 1);
  if (ad_keyof(S, c) == S->recorder->key && canrecord(S)) {
    if (S->recorder->looped && ad_isstale(S, c))
      ad_recordfail(S, "f has kept a value of an earlier round of a loop");
    else
      guard(L, S, ref);
  }
  a = lua_touserdata(L, -1);
  ad_gather(a, ad_newarray(L, S, a->ndim, a->shape)->data);
  lua_replace(L, idx);
  lua_settop(L, top);
  return 1;
}

/* an operation of ops.h, of which some operand is an array */
val ad_recordelement(lua_State *L, State *S, int op, int n, const Arg *a) {
  val x[AD_MAXARITY], y;
  uint32_t ref[AD_MAXARITY] = {0, 0, 0};
  int going = canrecord(S);
  double none;
  for (int i = 0; i < n; i++) {
    if (going) ref[i] = ad_recref(L, S, a[i].v, &none);
    going = !S->recorder->failed;
    x[i] = a[i].v;
    if (a[i].key && AD_ISREC(a[i].kind)) x[i] = ad_primalof(L, &a[i]);
  }
  if (!going) return ad_apply(L, S, op, n, x);
  y = ad_arraycompute(L, S, op, n, x);
  ref[0] = recordop(L, S, op, n, ref, lua_touserdata(L, y.i));
  if (ref[0] == P_NONE) return y;
  return ad_pushrecordedarray(L, S, y.i, ref[0]);
}

uint32_t ad_recordcopy(lua_State *L, State *S, int idx) {
  uint32_t ref[2] = {P_NONE, P_NONE};
  double none;
  idx = lua_absindex(L, idx);
  if (!canrecord(S)) return P_NONE;
  ref[0] = ad_konstarray(L, S, idx);
  if (!isnew(S, ad_owner(L, idx))) return ref[0]; /* a view of another */
  ref[1] = ad_recref(L, S, ad_num(-0.0), &none);  /* x + -0.0 is x */
  if (ref[0] == P_NONE) return P_NONE;
  return recordop(L, S, OP_add, 2, ref, lua_touserdata(L, idx));
}

/* replaces what is at idx by what is left of it without levels that are gone */
static void alive(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  Arg a;
  if (!ad_isleaf(L, S, idx) || lua_type(L, idx) == LUA_TNUMBER) return;
  ad_resolve(L, S, idx, &a);
  if (a.v.i != idx) {
    ad_pushval(L, a.v);
    lua_replace(L, idx);
  }
  lua_settop(L, top);
}

/* replaces what is at idx by what it is without the recorder */
static void strip(lua_State *L, State *S, int idx) {
  const int top = lua_gettop(L);
  Arg a;
  if (!ad_isleaf(L, S, idx) || lua_type(L, idx) == LUA_TNUMBER) return;
  ad_resolve(L, S, idx, &a);
  ad_pushval(L, a.key && AD_ISREC(a.kind) ? ad_primalof(L, &a) : a.v);
  lua_replace(L, idx);
  lua_settop(L, top);
}

/*
** record(f, at, key, name, listed, ...): f(at, ...) of an operation; 'key' is
** a string for f and at, or nil if 'at' is something that can change. The
** operands are ..., or, if 'listed', what is in the list ... that is given to
** f; and so are the results.
*/
static int l_record(lua_State *L) {
  State *S = ad_state(L);
  const int first = 6, listed = lua_toboolean(L, 5);
  int aslist = listed && lua_type(L, first) == LUA_TTABLE, status, results;
  uint32_t n, *ref, id, m;
  Shape *shape;
  Compiled *c;
  Called d;
  double none;
  if (aslist) { /* the operands instead of their list */
    const lua_Unsigned len = lua_rawlen(L, first);
    luaL_argcheck(L, len < INT32_MAX / 4, first, "list is too long");
    ad_checkstack(L, (int)len + 40, "list is too long");
    lua_settop(L, first);
    for (lua_Unsigned i = 1; i <= len; i++)
      lua_rawgeti(L, first, (lua_Integer)i);
    lua_remove(L, first);
  }
  n = (uint32_t)(lua_gettop(L) - first + 1);
  ad_checkstack(L, 2 * (int)n + 40, "too many operands");
  ref = lua_newuserdatauv(L, (n + 1) * sizeof *ref, 0);
  lua_insert(L, first); /* out of the way, below the operands */
  if (S->recorder == NULL) return luaL_error(L, "nothing is recorded");
  canrecord(S);
  if (lua_isnil(L, 3))
    ad_recordfail(S, "f uses an operation with a value that can change");
  for (uint32_t i = 0; i < n; i++) {
    const int at = first + 1 + (int)i;
    alive(L, S, at);
    if (!S->recorder->failed) ref[i] = ad_recref(L, S, ad_valat(L, at), &none);
    strip(L, S, at);
  }
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  if (aslist) {
    lua_createtable(L, (int)n, 0);
    for (uint32_t i = 0; i < n; i++) {
      lua_pushvalue(L, first + 1 + (int)i);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
  } else
    for (uint32_t i = 0; i < n; i++) lua_pushvalue(L, first + 1 + (int)i);
  results = first + 1 + (int)n;
  S->recorder->inside++;
  status = lua_pcall(L, aslist ? 2 : (int)n + 1, LUA_MULTRET, 0);
  S->recorder->inside--;
  if (status != LUA_OK) return lua_error(L);
  m = (uint32_t)(lua_gettop(L) - results + 1);
  if (S->recorder->failed) return (int)m;
  memset(&d, 0, sizeof d);
  if (listed && lua_type(L, results) == LUA_TTABLE) {
    d.together = 1;
    m = (uint32_t)lua_rawlen(L, results);
    ad_checkstack(L, (int)m + 40, "list is too long");
    for (uint32_t i = 1; i <= m; i++) lua_rawgeti(L, results, (lua_Integer)i);
    results++;
  }
  d.kind = C_FUNCTION;
  d.listed = (uint8_t)aslist;
  d.nresult = m;
  snprintf(d.name, sizeof d.name, "%s", lua_tostring(L, 4));
  shape = lua_newuserdatauv(L, (m + 1) * sizeof *shape, 0);
  memset(shape, 0, (m + 1) * sizeof *shape);
  for (uint32_t i = 0; i < m; i++) {
    const Array *y = ad_arrayhere(L, S, results + (int)i);
    if (y == NULL && lua_type(L, results + (int)i) != LUA_TNUMBER)
      ad_recordfail(S, "an operation has results that are no arrays");
    if (y == NULL) continue;
    shape[i].ndim = y->ndim;
    memcpy(shape[i].len, y->shape, sizeof y->shape);
  }
  if (m == 0) ad_recordfail(S, "an operation has no results");
  c = ad_compiling(S);
  if (!S->recorder->failed) {
    lua_pushfstring(L, "%s:%d%d%d:", lua_tostring(L, 3), (int)m, aslist,
                    (int)d.together);
    id = describe(L, c, &d, shape, 1, 2);
    ref[0] = recordcall(L, S, id, n, ref);
  }
  for (uint32_t i = 0; i < m && !S->recorder->failed; i++) {
    const int at = results + (int)i;
    uint32_t r = ref[0];
    if (i > 0)
      AD_UNTIL(r, ad_recresult(&S->recorder->root->prog, ref[0], i,
                               shape[i].ndim > 0 ? P_ARRAY : 0));
    if (!ad_recwent(L, S, r)) break;
    if (shape[i].ndim > 0)
      ad_pushrecordedarray(L, S, at, r);
    else
      ad_pushrecorded(L, S, lua_tonumber(L, at), r);
    lua_replace(L, at);
  }
  lua_settop(L, results + (int)m - 1);
  if (!d.together) return (int)m;
  lua_createtable(L, (int)m, 0);
  lua_insert(L, results);
  for (uint32_t i = m; i > 0; i--) lua_rawseti(L, results, (lua_Integer)i);
  return 1;
}

/* konstant(x): the constant of the program that the plain array x is; nil:
   nothing is recorded */
static int l_konstant(lua_State *L) {
  State *S = ad_state(L);
  uint32_t k;
  if (ad_arrayhere(L, S, 1) == NULL) return luaL_typeerror(L, 1, "array");
  if (S->recorder == NULL || S->recorder->failed) return 0;
  k = konstnumber(L, S, 1, 1);
  pushtable(L, &S->recorder->root->konstants, 0);
  lua_rawgeti(L, -1, (lua_Integer)k + 1);
  return 1;
}

/*
** Running
*/

typedef struct Run {
  lua_State *L;
  Compiled *c;
  Root *r;
  int slots, described; /* stack indices */
  uint32_t at;
} Run;

/* what new code needs; the last that can fail is what tells that it is there */
static void slots(lua_State *L, Root *r) {
  const Code *o = &r->code;
  Array **at;
  if (r->array != NULL || o->narray == 0) return;
  lua_createtable(L, (int)o->narray, 0);
  pushtable(L, &r->konstants, 0);
  for (uint32_t k = 0; k < o->nakon; k++) {
    lua_rawgeti(L, -1, (lua_Integer)o->akon[k] + 1);
    lua_rawseti(L, -3, (lua_Integer)(o->nain + k) + 1);
  }
  lua_pop(L, 1);
  lua_pushvalue(L, -1);
  if (r->slots == 0)
    r->slots = luaL_ref(L, LUA_REGISTRYINDEX);
  else
    lua_rawseti(L, LUA_REGISTRYINDEX, r->slots);
  at = ad_realloc(L, NULL, 0, o->narray * 2 * sizeof *at);
  memset(at, 0, o->narray * 2 * sizeof *at);
  for (uint32_t k = o->nain; k < o->nain + o->nakon; k++) {
    lua_rawgeti(L, -1, (lua_Integer)k + 1);
    at[k] = lua_touserdata(L, -1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  r->array = at;
  r->memory = at + o->narray;
  r->narray = o->narray;
}

void ad_putarray(lua_State *L, Root *r, int slots, uint32_t k, int idx) {
  lua_pushvalue(L, idx);
  lua_rawseti(L, slots, (lua_Integer)k + 1);
  if (k < r->narray) r->array[k] = lua_touserdata(L, idx);
}

void ad_forgetarguments(lua_State *L, Root *r) {
  if (r->slots == 0) return;
  ad_pushslots(L, r);
  for (uint32_t k = 0; k < r->in.narray; k++) {
    lua_pushnil(L);
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
  lua_pop(L, 1);
}

/* memory of the program's that somebody else gets is the program's no more */
void ad_takearray(lua_State *L, Root *r, int slots, uint32_t slot) {
  const Array *owner;
  lua_rawgeti(L, slots, (lua_Integer)slot + 1);
  owner = ad_owner(L, -1);
  for (uint32_t k = r->code.nain + r->code.nakon; k < r->narray; k++)
    if (r->memory[k] == owner) r->memory[k] = NULL;
}

static void cleararrays(lua_State *L, Root *r) {
  const uint32_t from = r->code.nain, to = from + r->code.nakon;
  ad_pushslots(L, r);
  for (uint32_t k = 0; k < r->narray; k++)
    if (r->memory[k] == NULL && (k < from || k >= to) && r->array[k] != NULL) {
      r->array[k] = NULL;
      lua_pushnil(L);
      lua_rawseti(L, -2, (lua_Integer)k + 1);
    }
  lua_pop(L, 1);
}

/* the array in a slot of memory, in the shape of a result */
static Array *memory(Run *w, uint32_t slot, const Shape *shape) {
  Root *r = w->r;
  Array *y = r->memory[slot];
  ptrdiff_t stride = 1;
  if (y == NULL) {
    y = ad_newarray(w->L, w->c->S, shape->ndim, shape->len);
    lua_rawseti(w->L, w->slots, (lua_Integer)slot + 1);
    return r->memory[slot] = r->array[slot] = y;
  }
  y->ndim = shape->ndim;
  y->size = 1;
  for (int d = shape->ndim; d-- > 0;) {
    y->shape[d] = shape->len[d];
    y->stride[d] = stride;
    stride *= shape->len[d];
    y->size *= (size_t)shape->len[d];
  }
  return y;
}

static void element(Run *w, const Called *d, const uint32_t *x, uint32_t n,
                    uint32_t to) {
  ptrdiff_t stride[AD_MAXARITY][AD_MAXDIM];
  ad_Strided in[AD_MAXARITY];
  const Shape *shape = d->shape;
  const double *v = w->r->frame.v;
  double number[AD_MAXARITY];
  Array *y;
  for (uint32_t i = 0; i < n; i++) {
    in[i].stride = stride[i];
    if (x[i] & P_A) {
      const Array *a = w->r->array[x[i] & ~P_A];
      in[i].data = a->data;
      ad_strides(a, shape->ndim, shape->len, stride[i]);
    } else {
      number[i] = v[x[i]];
      in[i].data = &number[i];
      memset(stride[i], 0, sizeof *stride[i] * (size_t)shape->ndim);
    }
  }
  y = memory(w, to & ~P_A, shape);
  ad_elementwise(d->op, shape->ndim, shape->len, y->data, (int)n, in);
}

/* the result at the top, which is popped */
static void result(Run *w, const Shape *shape, uint32_t to) {
  lua_State *L = w->L;
  Array *a = ad_arrayhere(L, w->c->S, -1);
  if (to == P_NONE)
    lua_pop(L, 1);
  else if (shape->ndim == 0 && lua_type(L, -1) == LUA_TNUMBER) {
    w->r->frame.v[to] = lua_tonumber(L, -1);
    lua_pop(L, 1);
  } else if (a != NULL && ad_sameshape(a, shape) && shape->ndim > 0) {
    w->r->array[to & ~P_A] = a;
    lua_rawseti(L, w->slots, (lua_Integer)(to & ~P_A) + 1);
  } else
    luaL_error(L, "a result of another shape");
}

static void call(void *ud, const Ins *x) {
  Run *w = ud;
  lua_State *L = w->L;
  const Called *d = x->c == P_NONE ? NULL : &w->c->called[x->c];
  const uint32_t *in = w->r->code.list + x->a, n = x->b, *to = in + n + 1;
  const int top = lua_gettop(L);
  if (x->c == P_NONE) { /* an assignment */
    ad_takearray(L, w->r, w->slots, in[0] & ~P_A);
    w->r->array[*to & ~P_A] = lua_touserdata(L, -1);
    lua_rawseti(L, w->slots, (lua_Integer)(*to & ~P_A) + 1);
    return;
  }
  if (d->kind == C_ELEMENT) {
    element(w, d, in, n, *to);
    return;
  }
  if (d->kind == C_SAME) {
    const Array *a;
    lua_rawgeti(L, w->slots, (lua_Integer)(in[0] & ~P_A) + 1);
    a = ad_packed(L, w->c->S, top + 1);
    w->r->frame.v[*to] = sameelements(a, w->r->array[in[1] & ~P_A]);
    lua_settop(L, top);
    return;
  }
  luaL_checkstack(L, (int)(n + d->nresult) + 20, NULL);
  lua_rawgeti(L, w->described, (lua_Integer)x->c * 2 + 1);
  lua_rawgeti(L, w->described, (lua_Integer)x->c * 2 + 2);
  if (d->listed) lua_createtable(L, (int)n, 0);
  for (uint32_t i = 0; i < n; i++) {
    if (in[i] & P_A)
      lua_rawgeti(L, w->slots, (lua_Integer)(in[i] & ~P_A) + 1);
    else
      lua_pushnumber(L, w->r->frame.v[in[i]]);
    if (d->listed) lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_call(L, d->listed ? 2 : (int)n + 1, d->together ? 1 : (int)d->nresult);
  if (d->together) {
    luaL_checktype(L, -1, LUA_TTABLE);
    for (uint32_t i = 0; i < d->nresult; i++) {
      lua_rawgeti(L, top + 1, (lua_Integer)i + 1);
      result(w, &d->shape[i], to[i]);
    }
  } else
    for (uint32_t i = d->nresult; i-- > 0;) result(w, &d->shape[i], to[i]);
  lua_settop(L, top);
}

/* self, the arguments at 2 .., and the run: the results */
static int protected(lua_State *L) {
  const int top = lua_gettop(L);
  Run *w = lua_touserdata(L, top);
  Root *r = w->r;
  Frame *f = &r->frame;
  const Block *b;
  int n = 0;
  w->L = L;
  slots(L, r);
  ad_callarguments(L, r);
  ad_pushslots(L, r);
  w->slots = top + 1;
  pushtable(L, &w->c->described, 0);
  w->described = top + 2;
  f->call = call;
  f->callud = w;
  w->at = r->backend->run(r->made, f);
  b = w->at == P_FULL ? NULL : &r->code.block[w->at];
  if (b != NULL && b->end == P_RETURN) n = ad_callresults(L, w->c, r, b);
  cleararrays(L, r);
  return n;
}

/*
** Pushes the results for the call at hand (self, n arguments), and gives the
** block in which the run has ended; P_FULL: an error, of which f itself says
** where it is, and whether it is one. Finalizers, which may come at any time,
** and call the same, find it running.
*/
uint32_t ad_runcalls(lua_State *L, Compiled *c, Root *r, int n) {
  Run w;
  int status;
  memset(&w, 0, sizeof w);
  w.c = c;
  w.r = r;
  c->running = 1;
  if (!lua_checkstack(L, n + 10)) {
    c->running = 0;
    luaL_error(L, "stack overflow (too many arguments)");
  }
  lua_pushcfunction(L, protected);
  for (int i = 1; i <= n + 1; i++) lua_pushvalue(L, i);
  lua_pushlightuserdata(L, &w);
  status = lua_pcall(L, n + 2, LUA_MULTRET, 0);
  c->running = 0;
  if (status == LUA_OK) return w.at;
  if (status == LUA_ERRMEM ||
      (lua_type(L, -1) == LUA_TSTRING &&
       strstr(lua_tostring(L, -1), "interrupted!") != NULL))
    lua_error(L);
  lua_pop(L, 1);
  return P_FULL;
}

void ad_opencalls(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {
      {"record", l_record}, {"konstant", l_konstant}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, fn, LUA_NOREF);
}
