/*
** sweep.c
** Propagation over a tape: cotangents downwards, tangents upwards.
**
** As long as everything is a number the loops of tape.c do it. The values
** move to a Lua table, and the loops here take over, where a partial
** derivative or a seed is a value of a lower level. Either way the sweep
** stops at every call: an operation whose rule is a Lua function.
**
** A call's node is followed by the nodes of its outputs. Its handler, a
** table in 'callers', has either
**   pull(list of output cotangents) -> list of input cotangents
**   push(list of input tangents) -> list of output tangents
** or, for a checkpoint, rerun = {f, arguments...} (see scope.c).
*/
#include "array.h"

#include <string.h>

static size_t bytes(const Sweep *w, uint32_t nodes) {
  return (size_t)nodes * w->stride * sizeof *w->x;
}

static void scratch(lua_State *L, Sweep *w, uint32_t nodes) {
  Level *lv = w->lv;
  const size_t n = (size_t)nodes * w->stride;
  if (n > lv->capadj) {
    lv->adj = ad_realloc(L, lv->adj, lv->capadj * sizeof *lv->adj,
                         n * sizeof *lv->adj);
    lv->capadj = n;
  }
  w->x = lv->adj;
}

/* 'owner': stack index of the level */
void ad_sweepbegin(lua_State *L, Sweep *w, Level *lv, int owner) {
  ad_sweeprange(L, w, lv, owner, 0, lv->tape.nnode);
}

void ad_sweeprange(lua_State *L, Sweep *w, Level *lv, int owner, uint32_t lo,
                   uint32_t hi) {
  ad_checkstack(L, 20, NULL);
  w->lv = lv;
  w->owner = owner;
  w->size = lv->tape.nnode;
  w->stride = 1 + (uint32_t)lv->tape.dirs;
  w->general = w->scratch = w->keep = 0;
  w->lo = lo;
  if (lv->tape.ngeneral) {
    const uint32_t n = hi - lo;
    lua_createtable(L, lo == 0 && n < 1u << 24 ? (int)n : 0, 0);
    w->general = 1;
    w->x = NULL;
  } else if (lv->busy) { /* a sweep within a sweep */
    w->x = lua_newuserdatauv(L, bytes(w, w->size) + 1, 0);
  } else {
    scratch(L, w, w->size);
    w->scratch = lv->busy = 1;
    lua_pushnil(L);
  }
  w->slot = lua_gettop(L);
  if (!w->general && hi > lo)
    memset(w->x + (size_t)lo * w->stride, 0, bytes(w, hi - lo));
}

void ad_sweepend(Sweep *w) {
  if (w->scratch) w->lv->busy = 0;
}

/* pushes a dual of numbers; a plain number if it has no tangent */
static void pushdual(lua_State *L, const Level *lv, double value,
                     const double *tangent) {
  State *S = lv->S;
  const int dirs = lv->tape.dirs;
  int some = 0;
  for (int d = 0; d < dirs; d++) some |= tangent[d] != 0;
  if (some) {
    Cell *c = ad_newcell(L, S, AD_MTDUAL,
                         AD_CELLHEAD + (size_t)dirs * sizeof(double), 0);
    c->value = value;
    for (int d = 0; d < dirs; d++) c->u.part[d] = tangent[d];
    c->stamp = lv->tape.dual;
  } else
    lua_pushnumber(L, value);
}

/* pushes the value of a node */
void ad_sweepget(lua_State *L, const Sweep *w, uint32_t node) {
  if (!w->general) {
    const double *x = w->x + (size_t)node * w->stride;
    if (w->stride == 1)
      lua_pushnumber(L, *x);
    else
      pushdual(L, w->lv, x[0], x + 1);
  } else if (lua_rawgeti(L, w->slot, (lua_Integer)node + 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushnumber(L, 0);
  }
}

static val get(lua_State *L, const Sweep *w, uint32_t node) {
  if (!w->general && w->stride == 1) return ad_num(w->x[node]);
  ad_sweepget(L, w, node);
  return ad_takeval(L);
}

/* from here on, values are in a table */
static void generalize(lua_State *L, Sweep *w) {
  if (w->general) return;
  lua_createtable(L, (int)(w->size < 1u << 24 ? w->size : 1u << 24), 0);
  for (uint32_t k = w->lo; k < w->size; k++) {
    ad_sweepget(L, w, k);
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
  lua_replace(L, w->slot);
  w->general = 1;
}

/* room for the nodes that the tape has gained; those are 0 */
static void extend(lua_State *L, Sweep *w) {
  const uint32_t n = w->lv->tape.nnode;
  if (n > w->size && !w->general) {
    if (w->scratch)
      scratch(L, w, n);
    else {
      double *x = lua_newuserdatauv(L, bytes(w, n), 0);
      memcpy(x, w->x, bytes(w, w->size));
      w->x = x;
      lua_replace(L, w->slot);
    }
    memset(w->x + (size_t)w->size * w->stride, 0, bytes(w, n - w->size));
  } else if (w->general) {
    for (uint32_t k = w->size; k < n; k++) {
      lua_pushnil(L);
      lua_rawseti(L, w->slot, (lua_Integer)k + 1);
    }
  }
  w->size = n;
}

/* is it a dual like those of the tape? */
static const Cell *flatdual(lua_State *L, const Sweep *w, val v) {
  const Cell *c = lua_touserdata(L, v.i);
  return (c->stamp == w->lv->tape.dual &&
          lua_rawlen(L, v.i) == AD_CELLHEAD + (w->stride - 1) * sizeof(double))
             ? c
             : NULL;
}

static void put(lua_State *L, Sweep *w, uint32_t node, val v) {
  if (!w->general) {
    double *x = w->x + (size_t)node * w->stride;
    const Cell *c;
    if (v.i == 0) {
      x[0] = v.n;
      for (uint32_t d = 1; d < w->stride; d++) x[d] = 0;
      return;
    }
    if (w->stride > 1 && (c = flatdual(L, w, v)) != NULL) {
      x[0] = c->value;
      for (uint32_t d = 1; d < w->stride; d++) x[d] = c->u.part[d - 1];
      return;
    }
    generalize(L, w);
  }
  ad_pushval(L, v);
  lua_rawseti(L, w->slot, (lua_Integer)node + 1);
}

/* adds to the value of a node */
void ad_sweepadd(lua_State *L, Sweep *w, uint32_t node, val v) {
  const int top = lua_gettop(L);
  val acc;
  if (ad_isnum(v, 0)) return;
  acc = get(L, w, node);
  if (!ad_addinplace(L, w->lv->S, acc, v)) {
    const int first = ad_isnum(acc, 0);
    acc = ad_chain(L, w->lv->S, acc, v, ad_num(1));
    if (acc.i && ad_isplain(L, acc)) /* a sum is nobody else's */
      ((Array *)lua_touserdata(L, acc.i))->own = (uint8_t)!first;
    put(L, w, node, acc);
  }
  lua_settop(L, top);
}

void ad_sweepseed(lua_State *L, Sweep *w, uint32_t node, val v) {
  if (v.i && ad_isarray(lua_touserdata(L, v.i))) {
    ad_newview(L, w->lv->S, v.i); /* what comes out is never what went in */
    v = ad_at(lua_gettop(L));
  }
  ad_sweepadd(L, w, node, v);
}

void ad_sweepclear(lua_State *L, Sweep *w, uint32_t node) {
  put(L, w, node, ad_num(0));
}

static val partialat(lua_State *L, const Level *lv, uint32_t j) {
  if (!(lv->tape.idx[j] & AD_GENERAL)) {
    if (lv->tape.dirs == 0) return ad_num(lv->tape.mult[j]);
    pushdual(L, lv, lv->tape.mult[j], ad_tapetangents(&lv->tape, j));
    return ad_takeval(L);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->objects);
  lua_rawgeti(L, -1, (lua_Integer)j + 1);
  lua_remove(L, -2);
  return ad_takeval(L);
}

/* number of the operand that the entry number j of a node stands for */
static int operandof(const Saved *s, uint32_t j) {
  int i = 0;
  for (;; i++)
    if (s->active >> i & 1 && j-- == 0) return i;
}

/* acc + t * what a tape has saved of an operation on arrays, at the top */
static val savedchain(lua_State *L, State *S, uint32_t j, val t, val acc,
                      int forwards, int last) {
  const int idx = lua_gettop(L);
  const Saved *s = lua_touserdata(L, idx);
  const int i = operandof(s, j);
  val x[AD_MAXARITY + 1];
  Shape shape;
  ad_unsave(L, s, idx, x);
  ad_savedshape(s, forwards ? s->n : i, &shape);
  return ad_elementchain(L, S, s->op, i, s->n, x, x[s->n], t, acc, &shape,
                         last);
}

val ad_sweeppartial(lua_State *L, State *S, uint32_t j) {
  return savedchain(L, S, j, ad_num(1), ad_num(0), 1, 0);
}

static int issaved(lua_State *L, val p) {
  return p.i && ad_isarray(lua_touserdata(L, p.i)); /* no array is a partial */
}

static void reverse(lua_State *L, Sweep *w, uint32_t from, uint32_t to) {
  const Tape *t = &w->lv->tape;
  const int top = lua_gettop(L);
  /* what a checkpoint has recorded can change what the tape is like */
  if (t->ngeneral || w->stride != 1 + (uint32_t)t->dirs || w->lv->S->debug)
    generalize(L, w);
  if (!w->general) {
    if (w->stride == 1)
      ad_tapereverse(t, from, to, w->x);
    else
      ad_tapereversedual(t, from, to, w->x);
    return;
  }
  for (uint32_t k = from; k-- > to;) {
    const uint32_t first = ad_tapefirst(t, k);
    const val a = get(L, w, k);
    if (!ad_isnum(a, 0) && first < t->end[k]) {
      if (w->lv->S->debug) ad_nanplace(L, w->lv, k);
      for (uint32_t j = t->end[k]; j-- > first;) {
        const uint32_t node = t->idx[j] & ~AD_GENERAL;
        const val acc = get(L, w, node), p = partialat(L, w->lv, j);
        const val s = issaved(L, p) ? savedchain(L, w->lv->S, j - first, a, acc,
                                                 0, j == first && !w->keep)
                                    : ad_chain(L, w->lv->S, acc, a, p);
        if (w->lv->S->debug) ad_nansweep(L, w->lv, k, NULL, 1, s);
        put(L, w, node, s);
        lua_settop(L, a.i ? a.i : top);
      }
      if (!w->keep && a.i) put(L, w, k, ad_num(0)); /* nobody asks for it */
    }
    lua_settop(L, top);
  }
  w->lv->S->sweptline = 0;
}

static void forward(lua_State *L, Sweep *w, uint32_t from, uint32_t to) {
  const Tape *t = &w->lv->tape;
  const int top = lua_gettop(L);
  if (t->ngeneral || t->dirs || w->stride > 1 || w->lv->S->debug)
    generalize(L, w);
  if (!w->general) {
    ad_tapeforward(t, from, to, w->x, 1);
    return;
  }
  for (uint32_t k = from; k < to; k++) {
    const uint32_t first = ad_tapefirst(t, k), last = t->end[k];
    val s = ad_num(0);
    if (first == last) continue; /* an input */
    if (w->lv->S->debug) ad_nanplace(L, w->lv, k);
    for (uint32_t j = first; j < last; j++) {
      const val d = get(L, w, t->idx[j] & ~AD_GENERAL);
      if (!ad_isnum(d, 0)) {
        const val p = partialat(L, w->lv, j);
        s = issaved(L, p) ? savedchain(L, w->lv->S, j - first, d, s, 1, 0)
                          : ad_chain(L, w->lv->S, s, d, p);
      }
      if (w->lv->S->debug) ad_nansweep(L, w->lv, k, NULL, 0, s);
      if (s.i) { /* keep the sum alone */
        lua_pushvalue(L, s.i);
        lua_replace(L, top + 1);
        s.i = top + 1;
        lua_settop(L, top + 1);
      } else
        lua_settop(L, top);
    }
    put(L, w, k, s);
    lua_settop(L, top);
  }
  w->lv->S->sweptline = 0;
}

/*
** Calls
*/

/* pushes a field of the handler of call 'c'; its type */
static int handler(lua_State *L, const Level *lv, uint32_t c,
                   const char *field) {
  int type;
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->callers);
  lua_rawgeti(L, -1, (lua_Integer)c + 1);
  type = lua_getfield(L, -1, field);
  lua_replace(L, -3);
  lua_pop(L, 1);
  return type;
}

/*
** Runs a checkpoint's function again, which records above the tape's end, and
** sweeps over what it recorded. The checkpoint's level lives until then:
** there may be checkpoints within it that run again in their turn.
*/
static void rerun(lua_State *L, Sweep *w, uint32_t c, int backward) {
  Level *lv = w->lv;
  const Call call = lv->calls[c];
  const uint32_t end = lv->tape.nnode, ncall = lv->ncall,
                 ninput = lv->tape.ninput;
  const int base = lua_gettop(L), wasdead = !lv->live;
  if (wasdead) { /* a pullback that outlived its transform */
    lua_pushvalue(L, w->owner);
    ad_revive(L, lv);
    lua_toclose(L, base + 1);
  } else
    lua_pushnil(L);
  handler(L, lv, c, "rerun");
  ad_rerun(L, lv, base + 2); /* list of nodes, false for constants */
  extend(L, w);
  for (uint32_t i = 0; backward && i < call.nout; i++) {
    if (lua_rawgeti(L, base + 3, (lua_Integer)i + 1) == LUA_TNUMBER) {
      const uint32_t node = (uint32_t)lua_tointeger(L, -1);
      ad_sweepadd(L, w, node, get(L, w, call.node + 1 + i));
    }
    lua_settop(L, base + 3);
  }
  if (backward)
    ad_sweepreverse(L, w, lv->tape.nnode, end);
  else {
    ad_sweepforward(L, w, end, lv->tape.nnode);
    for (uint32_t i = 0; i < call.nout; i++) {
      val v = ad_num(0);
      if (lua_rawgeti(L, base + 3, (lua_Integer)i + 1) == LUA_TNUMBER)
        v = get(L, w, (uint32_t)lua_tointeger(L, -1));
      put(L, w, call.node + 1 + i, v);
      lua_settop(L, base + 3);
    }
  }
  ad_forget(L, lv, ad_tapefirst(&lv->tape, end), ncall, 0);
  ad_tapecut(&lv->tape, end);
  if (lv->nnote > end) lv->nnote = end;
  lv->tape.ninput = ninput;
  lv->ncall = ncall;
  w->size = end;
  ad_closeslot(L, base + 2);
  if (wasdead) ad_closeslot(L, base + 1);
  lua_settop(L, base);
}

/* pushes the list of the values of nodes; 0 if all are exactly 0 */
static int gather(lua_State *L, const Sweep *w, uint32_t n, uint32_t first,
                  const uint32_t *idx) {
  int some = 0;
  lua_createtable(L, (int)n, 0);
  for (uint32_t i = 0; i < n; i++) {
    ad_sweepget(L, w, idx ? idx[i] : first + i);
    if (lua_type(L, -1) == LUA_TUSERDATA && ad_isarray(lua_touserdata(L, -1)))
      ((Array *)lua_touserdata(L, -1))->own = 0; /* a rule may hold on to it */
    some |= !(lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) == 0);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return some;
}

static val listed(lua_State *L, const State *S, int list, uint32_t i) {
  const int type = lua_rawgeti(L, list, (lua_Integer)i + 1);
  if (type == LUA_TNIL) {
    lua_pop(L, 1);
    return ad_num(0);
  }
  if (!ad_isleaf(L, S, -1))
    ad_error(L, "a rule gave a %s in place of a number", luaL_typename(L, -1));
  return ad_takeval(L);
}

/* the rule of call 'c' has given v */
static void nanrule(lua_State *L, Level *lv, uint32_t c, int backward, val v) {
  const int top = lua_gettop(L);
  handler(L, lv, c, "name");
  ad_nansweep(L, lv, lv->calls[c].node, lua_tostring(L, -1), backward, v);
  lua_settop(L, top);
}

/*
** Call 'c' has taken a part of an array: its cotangent, in the list at the
** top, is added in place. 0: the rule has to do it.
*/
static int partreverse(lua_State *L, Sweep *w, uint32_t c) {
  const Tape *t = &w->lv->tape;
  const int top = lua_gettop(L);
  uint32_t node;
  val acc;
  int done;
  if (w->lv->S->debug || handler(L, w->lv, c, "key") == LUA_TNIL) {
    lua_settop(L, top);
    return 0;
  }
  node = t->idx[ad_tapefirst(t, w->lv->calls[c].node)];
  handler(L, w->lv, c, "shape");
  acc = get(L, w, node);
  lua_rawgeti(L, top, 1);
  done = ad_addpart(L, w->lv->S, acc, top + 1, top + 2);
  if (done && !(acc.i && lua_rawequal(L, -1, acc.i)))
    put(L, w, node, ad_at(lua_gettop(L)));
  lua_settop(L, top);
  return done;
}

/* the rule, with the list of cotangents at the top */
static void pull(lua_State *L, Sweep *w, uint32_t c) {
  const Tape *t = &w->lv->tape;
  const uint32_t node = w->lv->calls[c].node;
  const int top = lua_gettop(L);
  handler(L, w->lv, c, "pull");
  lua_pushvalue(L, top);
  lua_call(L, 1, 1);
  for (uint32_t first = ad_tapefirst(t, node), j = first; j < t->end[node];
       j++) {
    const val v = listed(L, w->lv->S, top + 1, j - first);
    if (w->lv->S->debug) nanrule(L, w->lv, c, 1, v);
    ad_sweepadd(L, w, t->idx[j], v);
    lua_settop(L, top + 1);
  }
}

static void callreverse(lua_State *L, Sweep *w, uint32_t c) {
  const Call call = w->lv->calls[c];
  const int top = lua_gettop(L);
  ad_checkstack(L, 20, NULL);
  if (gather(L, w, call.nout, call.node + 1, NULL)) {
    if (handler(L, w->lv, c, "rerun") != LUA_TNIL)
      rerun(L, w, c, 1);
    else {
      lua_settop(L, top + 1);
      if (!partreverse(L, w, c)) pull(L, w, c);
      for (uint32_t i = 0; !w->keep && w->general && i < call.nout; i++)
        put(L, w, call.node + 1 + i, ad_num(0)); /* nobody asks for it */
    }
  }
  lua_settop(L, top);
}

static void callforward(lua_State *L, Sweep *w, uint32_t c) {
  const Call call = w->lv->calls[c];
  const Tape *t = &w->lv->tape;
  const int top = lua_gettop(L);
  uint32_t first = ad_tapefirst(t, call.node);
  ad_checkstack(L, 20, NULL);
  if (handler(L, w->lv, c, "rerun") != LUA_TNIL)
    rerun(L, w, c, 0);
  else {
    handler(L, w->lv, c, "push");
    gather(L, w, t->end[call.node] - first, 0, t->idx + first);
    lua_call(L, 1, 1);
    for (uint32_t i = 0; i < call.nout; i++) {
      const int here = lua_gettop(L);
      const val v = listed(L, w->lv->S, here, i);
      if (w->lv->S->debug) nanrule(L, w->lv, c, 0, v);
      put(L, w, call.node + 1 + i, v);
      lua_settop(L, here);
    }
  }
  lua_settop(L, top);
}

/* number of calls at nodes below 'node' */
static uint32_t callsbelow(const Level *lv, uint32_t node) {
  uint32_t c = lv->ncall;
  while (c > 0 && lv->calls[c - 1].node >= node) c--;
  return c;
}

/* cotangents flow from the nodes from-1 .. to to what they were made of */
void ad_sweepreverse(lua_State *L, Sweep *w, uint32_t from, uint32_t to) {
  uint32_t c = callsbelow(w->lv, from);
  while (c > 0 && w->lv->calls[c - 1].node >= to) {
    const Call call = w->lv->calls[--c];
    const uint32_t after = call.node + 1 + call.nout;
    if (from > after) reverse(L, w, from, after);
    callreverse(L, w, c);
    from = call.node;
  }
  reverse(L, w, from, to);
}

void ad_sweepforward(lua_State *L, Sweep *w, uint32_t from, uint32_t to) {
  for (uint32_t c = callsbelow(w->lv, from);
       c < w->lv->ncall && w->lv->calls[c].node < to; c++) {
    const Call call = w->lv->calls[c];
    forward(L, w, from, call.node);
    callforward(L, w, c);
    from = call.node + 1 + call.nout;
  }
  if (from < to) forward(L, w, from, to);
}

/*
** Adds a call with the handler at stack index 'handler': the nodes 'input'
** are its operands, and 'nout' nodes follow it. Returns its node.
*/
uint32_t ad_addcall(lua_State *L, Level *lv, int ninput, const uint32_t *input,
                    uint32_t nout, int idx) {
  uint32_t node;
  Note note;
  const int looked = ad_looked(lv), top = lua_gettop(L);
  idx = lua_absindex(L, idx);
  if (lv->callers == LUA_NOREF) {
    lua_newtable(L);
    lv->callers = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  if (lv->ncall == lv->capcall) {
    uint32_t ncap = lv->capcall * 2 + 8;
    lv->calls = ad_realloc(L, lv->calls, lv->capcall * sizeof *lv->calls,
                           ncap * sizeof *lv->calls);
    lv->capcall = ncap;
  }
  ad_room(L, lv, nout + 1, (uint32_t)ninput + nout);
  if (looked) ad_notehere(L, lv, &note);
  lua_rawgeti(L, LUA_REGISTRYINDEX, lv->callers);
  lua_getfield(L, idx, "saved");
  lv->heavy += ad_marklist(L, lv->S, -2);
  lua_pushvalue(L, idx);
  lua_rawseti(L, -2, (lua_Integer)lv->ncall + 1);
  if (lua_getfield(L, idx, "saved") == LUA_TTABLE)
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
      ad_marksaved(L, lv->S, -1, -3);
      lua_pop(L, 1);
    }
  lua_settop(L, top);
  for (int i = 0; i < ninput; i++) ad_tapeentry(&lv->tape, input[i], 0);
  if (looked) {
    note.kind = AD_NOTECALL;
    ad_note(L, lv, &note);
    note.kind = AD_NOTEOUT;
  }
  node = ad_tapenode(&lv->tape);
  for (uint32_t i = 0; i < nout; i++) {
    if (looked) ad_note(L, lv, &note);
    ad_tapeentry(&lv->tape, node, 0);
    ad_tapenode(&lv->tape);
  }
  lv->calls[lv->ncall].node = node;
  lv->calls[lv->ncall++].nout = nout;
  return node;
}
