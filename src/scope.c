/*
** scope.c
** Spans of a computation that a level treats in its own way: stop, no_grad,
** and checkpoint.
*/
#include "array.h"

#include <stdlib.h>
#include <string.h>

/* continuation that has nothing left to do */
int ad_results(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/*
** stop(x)
*/

/* the top as a constant, above it */
static void pushbase(lua_State *L, State *S) {
  const int top = lua_gettop(L);
  ad_pushval(L, ad_constant(L, S, ad_at(top)));
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

static void stop_leaf(lua_State *L, State *S, void *ud, int numeric) {
  (void)ud;
  if (numeric && lua_type(L, -1) != LUA_TNUMBER)
    pushbase(L, S);
  else
    lua_pushvalue(L, -1);
}

static int l_stop(lua_State *L) {
  State *S = ad_state(L);
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (S->recorder) ad_recordopaque(S);
  ad_tree(L, S, 1, 1 | AD_OBJECTS, stop_leaf, NULL, "stop");
  return 1;
}

/*
** no_grad(f, ...), and the method 'stop' of a tape
*/

static int pause_close(lua_State *L) {
  Pause *p = lua_touserdata(L, 1), **q = &p->S->pauses;
  if (!p->live) return 0;
  p->live = 0;
  while (*q != NULL && *q != p) q = &(*q)->next;
  if (*q == p) *q = p->next;
  for (size_t i = 0; i < p->n; i++) {
    Level *lv = ad_findlevel(p->S, p->key[i]);
    if (lv != NULL) lv->paused--;
  }
  return 0;
}

/* the function's results, without the levels that were paused */
static int pause_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  const Pause *p = lua_touserdata(L, (int)ctx);
  const int top = lua_gettop(L);
  (void)status;
  for (int i = (int)ctx + 1; i <= top; i++)
    for (size_t k = 0; k < p->n; k++) {
      lua_pushvalue(L, i);
      ad_strip(L, S, p->key[k]);
      lua_replace(L, i);
    }
  return top - (int)ctx;
}

/*
** Calls the function at index 'f' with what is above it while the levels
** lv[0..n-1] are paused.
*/
static int paused(lua_State *L, State *S, int f, int n, Level *const *lv) {
  const int nargs = lua_gettop(L) - f;
  Pause *p = lua_newuserdatauv(L, sizeof *p + (size_t)n * sizeof p->key[0], 1);
  memset(p, 0, sizeof *p);
  p->S = S;
  p->n = (size_t)n;
  p->thread = L;
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTPAUSE]);
  lua_setmetatable(L, -2);
  lua_insert(L, f);
  lua_toclose(L, f);
  for (int i = 0; i < n; i++) {
    p->key[i] = lv[i]->key;
    lv[i]->paused++;
  }
  p->next = S->pauses;
  S->pauses = p;
  p->live = 1;
  /* whatever it is set to, the fast path does not ask about pauses */
  S->varlevel = NULL;
  S->varstamp = S->dualstamp = AD_NOSTAMP(S);
  lua_callk(L, nargs, LUA_MULTRET, f, pause_finish);
  return pause_finish(L, LUA_OK, f);
}

/*
** What is innermost here: what was made by hand (ad.var, ad.tape) since the
** innermost transform began, else that transform.
*/
#define MAXPAUSED 64

static int l_no_grad(lua_State *L) {
  State *S = ad_state(L);
  Level *in = ad_innermost(L, S, 0), *lv[MAXPAUSED];
  const uint64_t context = in ? in->key : 0;
  int n = 0;
  ad_checkcallable(L, 1);
  ad_checkstack(L, 20, NULL);
  if (S->recorder) ad_recordopaque(S);
  for (int i = S->nlive; i-- > 0 && n < MAXPAUSED;) {
    Level *l = S->live[i];
    if ((l->kind == AD_GRAPH || l->kind == AD_TAPE) && l->context == context)
      lv[n++] = l;
  }
  if (n == 0 && in != NULL) lv[n++] = in;
  return paused(L, S, 1, n, lv);
}

int ad_pausetape(lua_State *L, Level *lv) {
  Level *one = lv;
  return paused(L, lv->S, 2, lv->live ? 1 : 0, &one);
}

/*
** checkpoint(f)
**
** f runs at a level of its own that records on the tape of the level around
** it. What it recorded is then cut off, and a call with f's results takes
** its place; when a sweep comes to the call, f records once more above the
** tape's end. Values of that level that f let escape are constants, as are
** those of any transform that has ended.
*/

/* the checkpoint at work here on the tape of a level, or NULL */
Level *ad_spanhere(const State *S, const Level *lv) {
  if (lv->spans == 0) return NULL;
  for (int i = S->nlive; i-- > 0;) {
    Level *s = S->live[i];
    if (s->kind == AD_SPAN && s->alias == lv && lua_status(s->thread) == LUA_OK)
      return s;
  }
  return NULL;
}

/* finds the highest level among the leaves of an argument */
static void highest_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Arg *best = ud, a;
  const int top = lua_gettop(L);
  if (!numeric) return;
  ad_resolve(L, S, -1, &a);
  if (a.key > best->key) *best = a;
  lua_settop(L, top);
}

/* where a checkpoint called with the values at first.. records, or NULL */
static Level *target(lua_State *L, State *S, int first, int last) {
  Level *in = ad_innermost(L, S, 0);
  Arg best;
  best.key = 0;
  best.lv = NULL;
  best.kind = AD_VARN;
  for (int i = first; i <= last; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, highest_leaf, &best, "checkpoint");
  }
  if (in == NULL || best.key > in->key) {
    if (best.lv == NULL || !AD_ISVAR(best.kind)) return NULL;
    return best.lv->alias ? best.lv->alias : best.lv;
  }
  return in->kind == AD_REVERSE ? in : NULL;
}

/* a var of the tape becomes one of the span; all else stays */
static void enter_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Level *span = ud;
  const int top = lua_gettop(L);
  Arg a;
  if (!numeric) {
    lua_pushvalue(L, -1);
    return;
  }
  ad_resolve(L, S, top, &a);
  if (a.lv != NULL && AD_ISVAR(a.kind) &&
      (a.lv == span->alias || a.lv->alias == span->alias)) {
    const val p = ad_primalof(L, &a);
    ad_pushvar(L, S, span, p, a.c->u.var.node, 0);
  } else
    ad_pushval(L, a.v);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

/* pushes a live span on the tape of 't'; the caller marks the slot */
static Level *enterspan(lua_State *L, State *S, Level *t) {
  Level *span = ad_newlevel(L, S, AD_SPAN, 1);
  span->alias = t;
  span->thread = L;
  span->held = 1;
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 1);
  ad_insert(L, span, ++S->counter << AD_KEYBITS);
  t->spans++;
  if (ad_looked(t)) return span;
  S->varstamp = ad_stamp(S, span->key, AD_VARN);
  S->varlevel = t;
  return span;
}

typedef struct Outputs {
  Level *t, *span;
  uint32_t call; /* node of the call */
  uint32_t n;
  int list; /* stack index: nodes */
  int cut;
} Outputs;

static int onspan(lua_State *L, State *S, const Outputs *o, uint32_t *node) {
  Arg a;
  const int top = lua_gettop(L);
  int is;
  ad_resolve(L, S, -1, &a);
  is = a.lv != NULL && AD_ISVAR(a.kind) &&
       (a.lv == o->span || a.lv == o->t || a.lv->alias == o->t);
  if (is) *node = a.c->u.var.node;
  lua_settop(L, top);
  return is;
}

/* appends the node of a result leaf, or false, to the list */
static void list_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Outputs *o = ud;
  uint32_t node;
  if (!numeric) return;
  if (onspan(L, S, o, &node))
    lua_pushinteger(L, node);
  else
    lua_pushboolean(L, 0);
  lua_rawseti(L, o->list, (lua_Integer)++o->n);
}

/* a result leaf as a var of the tape around */
static void leave_leaf(lua_State *L, State *S, void *ud, int numeric) {
  Outputs *o = ud;
  const int top = lua_gettop(L);
  uint32_t node, n = o->n;
  Arg a;
  if (!numeric) {
    lua_pushvalue(L, -1);
    return;
  }
  o->n++;
  if (!onspan(L, S, o, &node)) {
    lua_pushvalue(L, -1);
    ad_stripvalue(L, S, o->span->key);
    return;
  }
  ad_resolve(L, S, top, &a);
  if (o->cut) node = o->call + 1 + n;
  ad_pushvar(L, S, o->t, ad_primalof(L, &a), node, 0);
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
  if (o->cut && ad_looked(o->t)) {
    lua_pushvalue(L, -1);
    ad_notevalue(L, o->t, node, ad_takeval(L));
    lua_settop(L, top + 1);
  }
  if (o->t->handles != LUA_NOREF) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, o->t->handles);
    lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)node + 1);
    lua_pop(L, 1);
  }
  lua_copy(L, -1, top + 1);
  lua_settop(L, top + 1);
}

/*
** Calls a checkpoint's function once more. Stack at 'slot', which is the top:
** a table of the function and its arguments; becomes the level, which the
** caller closes, and above it the list of the nodes of the results.
*/
void ad_rerun(lua_State *L, Level *t, int slot) {
  State *S = t->S;
  const int def = slot + 1, list = slot + 2;
  int n, top;
  Outputs o;
  lua_getfield(L, slot, "n");
  n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  ad_checkstack(L, n + 20, "too many arguments");
  o.t = t;
  o.span = enterspan(L, S, t);
  o.n = 0;
  lua_insert(L, slot); /* below the definition */
  lua_toclose(L, slot);
  lua_newtable(L);
  o.list = list;
  lua_getfield(L, def, "f");
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, def, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, enter_leaf, o.span, "checkpoint");
  }
  lua_call(L, n, LUA_MULTRET);
  top = lua_gettop(L);
  for (int i = list + 1; i <= top; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 0, list_leaf, &o, "checkpoint");
  }
  lua_settop(L, list);
  lua_remove(L, def);
}

static int compare(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/*
** The inputs of what was recorded from node 'start' on: all nodes below it
** that occur as operands, or as results (the list of nodes at 'list'). Not
** only arguments: the function may have closed over others. Pushes the array.
*/
static uint32_t *inputs(lua_State *L, const Outputs *o, uint32_t start,
                        uint32_t *count) {
  const Tape *t = &o->t->tape;
  const uint32_t first = ad_tapefirst(t, start);
  uint32_t n = 0, unique = 0,
           *input = lua_newuserdatauv(
               L, ((size_t)(t->nentry - first) + o->n + 1) * sizeof *input, 0);
  for (uint32_t j = first; j < t->nentry; j++) {
    const uint32_t node = t->idx[j] & ~AD_GENERAL;
    if (node < start) input[n++] = node;
  }
  for (uint32_t i = 1; i <= o->n; i++) {
    if (lua_rawgeti(L, o->list, (lua_Integer)i) == LUA_TNUMBER) {
      const uint32_t node = (uint32_t)lua_tointeger(L, -1);
      if (node < start) input[n++] = node;
    }
    lua_pop(L, 1);
  }
  if (n) qsort(input, n, sizeof *input, compare);
  for (uint32_t i = 0; i < n; i++)
    if (unique == 0 || input[unique - 1] != input[i])
      input[unique++] = input[i];
  *count = unique;
  return input;
}

/*
** What the tape holds beside its entries from 'entry' on, and the calls from
** 'call' on, goes. A checkpoint runs again with the values that it has seen:
** so the arrays that were saved are noted in the table at 'list', weakly (what
** nobody else has, nobody can write to), unless that is 0.
*/
void ad_forget(lua_State *L, Level *t, uint32_t entry, uint32_t call,
               int list) {
  const int top = lua_gettop(L);
  if (t->objects != LUA_NOREF && t->tape.ngeneral) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->objects);
    for (uint32_t j = entry; j < t->tape.nentry; j++) {
      if (!(t->tape.idx[j] & AD_GENERAL)) continue;
      if (list) {
        lua_rawgeti(L, top + 1, (lua_Integer)j + 1);
        ad_addsaved(L, t->S, lua_gettop(L), list);
        lua_settop(L, top + 1);
      }
      lua_pushnil(L);
      lua_rawseti(L, top + 1, (lua_Integer)j + 1);
    }
    lua_settop(L, top);
  }
  if (t->callers != LUA_NOREF && call < t->ncall) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, t->callers);
    for (uint32_t c = call; c < t->ncall; c++) {
      if (list && lua_rawgeti(L, top + 1, (lua_Integer)c + 1) == LUA_TTABLE) {
        lua_getfield(L, -1, "saved");
        ad_addlist(L, t->S, lua_gettop(L), list);
      }
      lua_settop(L, top + 1);
      lua_pushnil(L);
      lua_rawseti(L, top + 1, (lua_Integer)c + 1);
    }
    lua_settop(L, top);
  }
}

/* an argument of a checkpoint, for the list at *ud */
static void hold_leaf(lua_State *L, State *S, void *ud, int numeric) {
  if (numeric && lua_isuserdata(L, -1))
    ad_addowner(L, S, lua_gettop(L), *(int *)ud);
}

/* pushes the list of arrays that a checkpoint needs as they are, or nil */
static void pushneeded(lua_State *L, Level *t, uint32_t entry, uint32_t call,
                       int args) {
  int list;
  lua_newtable(L);
  list = lua_gettop(L);
  ad_forget(L, t, entry, call, list);
  lua_pushvalue(L, args);
  ad_tree(L, t->S, 1, 0, hold_leaf, &list, "checkpoint");
  lua_settop(L, list);
  if (lua_getfield(L, list, "n") == LUA_TNIL) {
    lua_replace(L, list);
    return;
  }
  lua_pop(L, 1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, t->S); /* what makes it weak */
  lua_setmetatable(L, list);
}

/*
** Stack: list of the arguments, their number, nodes of the tape at the
** start, inputs of it, span, results.
*/
static int checkpoint_finish(lua_State *L, int status, lua_KContext ctx) {
  State *S = ad_state(L);
  Level *span = lua_touserdata(L, 5);
  const uint32_t start = (uint32_t)lua_tointeger(L, 3);
  const uint32_t ncall = (uint32_t)lua_tointeger(L, 6);
  const int base = 6, top = lua_gettop(L);
  Outputs o;
  uint32_t *input;
  (void)ctx;
  ad_checkstack(L, 30, NULL);
  o.t = span->alias;
  o.span = span;
  o.n = 0;
  o.call = 0;
  /* a function that has yielded could not do so in a sweep: what it recorded
     stays; so does what is not this checkpoint's alone */
  o.cut = status == LUA_OK && !span->mixed;
  lua_newtable(L);
  o.list = top + 1;
  if (o.cut) {
    uint32_t nout, ninput;
    for (int i = base + 1; i <= top; i++) {
      lua_pushvalue(L, i);
      ad_tree(L, S, 1, 0, list_leaf, &o, "checkpoint");
    }
    nout = o.n;
    input = inputs(L, &o, start, &ninput);
    lua_createtable(L, 0, 1); /* the handler */
    lua_pushvalue(L, 1);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_setfield(L, -2, "f");
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "n");
    lua_setfield(L, -2, "rerun");
    pushneeded(L, o.t, ad_tapefirst(&o.t->tape, start), ncall, 1);
    lua_setfield(L, -2, "saved");
    if (o.t->handles != LUA_NOREF) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, o.t->handles);
      for (uint32_t k = start; k < o.t->tape.nnode; k++) {
        lua_pushnil(L);
        lua_rawseti(L, -2, (lua_Integer)k + 1);
      }
      lua_pop(L, 1);
    }
    ad_tapecut(&o.t->tape, start);
    if (o.t->nnote > start) o.t->nnote = start;
    o.t->tape.ninput = (uint32_t)lua_tointeger(L, 4);
    o.t->ncall = ncall;
    o.call = ad_addcall(L, o.t, (int)ninput, input, nout, -1);
    o.n = 0;
  }
  for (int i = base + 1; i <= top; i++) {
    lua_pushvalue(L, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, leave_leaf, &o, "checkpoint");
    lua_replace(L, i);
  }
  lua_settop(L, top);
  return top - base;
}

/* the function that checkpoint(f) gives: upvalues state, f */
static int checkpoint_call(lua_State *L) {
  State *S = ad_state(L);
  const int n = lua_gettop(L);
  Level *t, *span;
  ad_checkstack(L, n + 20, "too many arguments");
  t = target(L, S, 1, n);
  if (t == NULL) { /* nothing records here: a plain call */
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_insert(L, 1);
    lua_callk(L, n, LUA_MULTRET, 0, ad_results);
    return ad_results(L, LUA_OK, 0);
  }
  lua_createtable(L, n, 0);
  lua_insert(L, 1);
  for (int i = n; i >= 1; i--) lua_rawseti(L, 1, i);
  lua_pushinteger(L, n);
  lua_pushinteger(L, t->tape.nnode);
  lua_pushinteger(L, t->tape.ninput);
  span = enterspan(L, S, t);
  lua_toclose(L, 5);
  lua_pushinteger(L, t->ncall);
  lua_pushvalue(L, lua_upvalueindex(2));
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    ad_tree(L, S, 1, 1 | AD_OBJECTS, enter_leaf, span, "checkpoint");
  }
  lua_callk(L, n, LUA_MULTRET, 0, checkpoint_finish);
  return checkpoint_finish(L, LUA_OK, 0);
}

static int l_checkpoint(lua_State *L) {
  ad_checkcallable(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, checkpoint_call, 2);
  return 1;
}

void ad_openscope(lua_State *L, State *S) {
  static const luaL_Reg mm[] = {
      {"__gc", pause_close}, {"__close", pause_close}, {NULL, NULL}};
  static const luaL_Reg fn[] = {{"stop", l_stop},
                                {"no_grad", l_no_grad},
                                {"checkpoint", l_checkpoint},
                                {NULL, NULL}};
  ad_setfuncs(L, mm, S->mt[AD_MTPAUSE]);
  ad_setfuncs(L, fn, LUA_NOREF);
}
