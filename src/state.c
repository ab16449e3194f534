/*
** state.c
** The state of a lua_State, and the levels in it: what runs, in which
** coroutine, in which order, and what no longer does.
*/
#include "array.h"

#include <string.h>

/* key of the state in the registry */
#define STATE "autodiff.state"

/*
** An idle level keeps its tape for the next transform: always if it is small,
** up to LARGE if the last transform has made use of it. What is large goes
** back when a cycle of the collector has passed without any use.
*/
#define SMALL ((size_t)1 << 18)
#define LARGE ((size_t)1 << 27)
#define MAXPOOL 8

/*
** Memory
*/

/*
** Raises Lua's own memory error. Lua has no function for it, but a request
** that Lua makes itself ends in one, after an emergency collection that may
** also have made room.
*/
void ad_nomem(lua_State *L, size_t size) {
  if (size == SIZE_MAX)
    luaL_error(L, "tape is full (%f operations)", (double)AD_MAXNODES);
  if (size > SIZE_MAX - 4096) /* no more than that is known of it */
    luaL_error(L, "not enough memory");
  lua_newuserdatauv(L, size, 0);
  lua_pop(L, 1);
}

void *ad_realloc(lua_State *L, void *p, size_t osize, size_t nsize) {
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  void *np = alloc(ud, p, osize, nsize);
  while (np == NULL && nsize > 0) {
    ad_nomem(L, nsize);
    np = alloc(ud, p, osize, nsize);
  }
  return np;
}

#ifdef AD_NOCLOSESLOT
static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

/* what is left in the slot is closed once more, and so does not mind */
void ad_closeslot(lua_State *L, int slot) {
  ad_checkstack(L, 6, NULL);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, nothing);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, -2);
  luaL_getmetafield(L, slot, "__close");
  lua_pushvalue(L, slot);
  lua_pushnil(L);
  lua_call(L, 2, 0);
  lua_replace(L, slot);
}
#endif

/*
** luaL_checkstack says "stack overflow" also when there is no memory for the
** stack; here that is a memory error like any other.
*/
void ad_checkstack(lua_State *L, int n, const char *message) {
  if (!lua_checkstack(L, n)) {
    ad_nomem(L, (size_t)n * 16);
    luaL_checkstack(L, n, message);
  }
}

static void release(lua_State *L, void *p, size_t size) {
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  if (p != NULL) alloc(ud, p, size, 0);
}

static void unref(lua_State *L, int *ref) {
  if (*ref != LUA_NOREF) {
    int r = *ref;
    *ref = LUA_NOREF;
    luaL_unref(L, LUA_REGISTRYINDEX, r);
  }
}

/*
** Room on the tape of a level. The collector learns of it later, by
** ad_tellgc, when nothing is half done.
*/
void ad_room(lua_State *L, Level *lv, uint32_t nodes, uint32_t entries) {
  size_t refused, before = lv->tape.capnode;
  while ((refused = ad_tapereserve(&lv->tape, nodes, entries)) != 0)
    ad_nomem(L, refused);
  lv->S->told += (lv->tape.capnode - before) * 28;
}

void ad_tellgc(lua_State *L, State *S) {
  if (S->told >= (size_t)1 << 16 && lua_gc(L, LUA_GCISRUNNING)) {
    int kb = (int)(S->told >> 10);
    S->told = 0;
    lua_gc(L, LUA_GCSTEP, kb);
  }
}

/*
** Levels
*/

/* position of the first live level whose key is not below 'key' */
static int position(const State *S, uint64_t key) {
  int i = S->nlive;
  /* what is asked for is nearly always one of the youngest */
  for (int steps = 0; i > 0 && S->live[i - 1]->key >= key; i--) {
    if (++steps == 8) {
      int lo = 0;
      while (lo < i) {
        int mid = (lo + i) / 2;
        if (S->live[mid]->key < key)
          lo = mid + 1;
        else
          i = mid;
      }
      return lo;
    }
  }
  return i;
}

Level *ad_findlevel(const State *S, uint64_t key) {
  int i = S->nlive;
  if (i > 0 && S->live[i - 1]->key == key) return S->live[i - 1];
  i = position(S, key);
  if (i < S->nlive && S->live[i]->key == key) return S->live[i];
  return NULL;
}

/*
** Is a value with this key of a level that is live and at work here? Gives
** the level; a dual made by hand has none, and lives as long as the
** transform that it was made in.
*/
int ad_islive(const State *S, const Cell *c, uint64_t key, Level **lv) {
  Level *l = ad_findlevel(S, key);
  *lv = l;
  if (l != NULL) {
    const Level *t = l->alias ? l->alias : l;
    return !(t->paused && ad_pausedhere(S, t));
  }
  if (!AD_ISDUAL(ad_kindof(S, c)) || AD_SUB(key) == 0) return 0;
  if (AD_TRANSFORM(key) == 0) return 1;
  return ad_findlevel(S, AD_TRANSFORM(key) << AD_KEYBITS) != NULL;
}

/*
** A pause is at work for code that runs inside its dynamic extent: in the
** coroutine that started it or in one that this has resumed. Then, and only
** then, that coroutine is not suspended.
*/
int ad_pausedhere(const State *S, const Level *lv) {
  for (const Pause *p = S->pauses; p != NULL; p = p->next) {
    if (lua_status(p->thread) != LUA_OK) continue;
    for (size_t i = 0; i < p->n; i++)
      if (p->key[i] == lv->key) return 1;
  }
  return 0;
}

/* a level that is not live yet; pushes it */
Level *ad_newlevel(lua_State *L, State *S, int kind, int nuv) {
  void *ud;
  lua_Alloc alloc;
  Level *lv = lua_newuserdatauv(L, sizeof *lv, nuv);
  memset(lv, 0, sizeof *lv);
  alloc = lua_getallocf(L, &ud);
  ad_tapeinit(&lv->tape, alloc, ud);
  lv->S = S;
  lv->kind = (uint8_t)kind;
  lv->objects = lv->callers = lv->handles = lv->self = lv->grads = lv->sources =
      LUA_NOREF;
  lv->inited = 1;
  lua_rawgeti(L, LUA_REGISTRYINDEX,
              S->mt[kind == AD_TAPE ? AD_MTTAPE : AD_MTLEVEL]);
  lua_setmetatable(L, -2);
  return lv;
}

/* makes a level live under a key */
void ad_insert(lua_State *L, Level *lv, uint64_t key) {
  State *S = lv->S;
  int i;
  if (S->nlive == S->caplive) {
    int ncap = S->caplive * 2 + 8;
    S->live = ad_realloc(L, S->live, (size_t)S->caplive * sizeof *S->live,
                         (size_t)ncap * sizeof *S->live);
    S->caplive = ncap;
  }
  i = S->nlive;
  if (i > 0 && S->live[i - 1]->key > key) { /* not the youngest */
    i = position(S, key);
    memmove(S->live + i + 1, S->live + i,
            (size_t)(S->nlive - i) * sizeof *S->live);
  }
  S->live[i] = lv;
  S->nlive++;
  lv->key = key;
  lv->entered = ++S->entered;
  lv->live = 1;
}

/*
** The innermost transform (or, if 'spans', checkpoint) that runs in this
** coroutine, or around it.
*/
Level *ad_innermost(lua_State *L, State *S, int spans) {
  Level *here = NULL, *around = NULL;
  for (int i = S->nlive; i-- > 0;) {
    Level *lv = S->live[i];
    if (lv->kind > AD_SERIES &&
        !(spans && (lv->kind == AD_SPAN || lv->kind == AD_RECORD)))
      continue;
    if (lv->thread == L) {
      if (here == NULL || lv->entered > here->entered) here = lv;
    } else if ((around == NULL || lv->entered > around->entered) &&
               lua_status(lv->thread) == LUA_OK)
      around = lv; /* not suspended: it waits for one that it has resumed */
  }
  return here ? here : around;
}

/* pushes a level that nobody uses */
static Level *idlelevel(lua_State *L, State *S, int kind) {
  Level *lv;
  if (L == S->mainthread && !S->sparebusy) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->spare);
    lv = lua_touserdata(L, -1);
    S->sparebusy = 1;
  } else if (S->npool > 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->pool);
    lua_rawgeti(L, -1, S->npool);
    lua_pushnil(L);
    lua_rawseti(L, -3, S->npool--);
    lua_remove(L, -2); /* the pool */
    lv = lua_touserdata(L, -1);
  } else
    return ad_newlevel(L, S, kind, 1);
  lv->kind = (uint8_t)kind;
  return lv;
}

/*
** Starts a transform in this coroutine: takes an idle level or makes one,
** and pushes it. The caller marks the slot to be closed.
*/
Level *ad_enter(lua_State *L, State *S, int kind) {
  Level *lv;
  ad_checkstack(L, 8, NULL);
  ad_watch(L, S);
  lv = idlelevel(L, S, kind);
  lv->thread = L;
  if (L != S->mainthread) { /* keeps the coroutine as long as the level */
    lua_pushthread(L);
    lua_setiuservalue(L, -2, 1);
    lv->held = 1;
  }
  ad_insert(L, lv, ++S->counter << AD_KEYBITS);
  if (S->debug) return lv;
  if (kind == AD_REVERSE) {
    S->varstamp = ad_stamp(S, lv->key, AD_VARN);
    S->varlevel = lv;
  } else if (kind == AD_FORWARD)
    S->dualstamp = ad_stamp(S, lv->key, AD_DUALN);
  return lv;
}

/* a level whose values were constants lives again (under its own key) */
void ad_revive(lua_State *L, Level *lv) {
  ad_insert(L, lv, lv->key);
  lv->thread = L;
}

static void forgetfast(State *S, const Level *lv) {
  if (S->varlevel == lv || S->varstamp == ad_stamp(S, lv->key, AD_VARN)) {
    S->varlevel = NULL;
    S->varstamp = AD_NOSTAMP(S);
  }
  /* those made by hand in it included */
  if (AD_TRANSFORM((S->dualstamp ^ S->secret) >> 4) == AD_TRANSFORM(lv->key))
    S->dualstamp = AD_NOSTAMP(S);
}

static void unlist(State *S, Level *lv) {
  int i = S->nlive - 1;
  if (i >= 0 && S->live[i] == lv)
    S->nlive--;
  else if ((i = position(S, lv->key)) < S->nlive && S->live[i] == lv) {
    S->nlive--;
    memmove(S->live + i, S->live + i + 1,
            (size_t)(S->nlive - i) * sizeof *S->live);
  }
  lv->live = 0;
  forgetfast(S, lv);
}

/* what was made by hand inside a transform ends with it */
static void leavegraphs(lua_State *L, State *S, uint64_t key) {
  int i = S->nlive;
  if (i == 0 || S->live[i - 1]->key < key) return;
  i = position(S, key + 1);
  while (i < S->nlive && AD_TRANSFORM(S->live[i]->key) == AD_TRANSFORM(key)) {
    Level *g = S->live[i];
    unlist(S, g);
    unref(L, &g->self);
  }
}

void ad_leave(lua_State *L, Level *lv) {
  if (!lv->live) return;
  unlist(lv->S, lv);
  if (lv->kind <= AD_SERIES || lv->kind >= AD_SPAN)
    leavegraphs(L, lv->S, lv->key);
}

void ad_drop(lua_State *L, Level *lv) {
  ad_leave(L, lv);
  ad_unhold(L, lv->S, lv->objects);
  ad_unhold(L, lv->S, lv->callers);
  lv->heavy = 0;
  unref(L, &lv->objects);
  unref(L, &lv->callers);
  unref(L, &lv->handles);
  unref(L, &lv->grads);
  if (lv->note != NULL) {
    release(L, lv->note, lv->capnote * sizeof *lv->note);
    lv->note = NULL;
    lv->nnote = lv->capnote = 0;
  }
  unref(L, &lv->sources);
  lv->traced = 0;
  release(L, lv->calls, lv->capcall * sizeof *lv->calls);
  lv->calls = NULL;
  lv->ncall = lv->capcall = 0;
}

static void freelevel(lua_State *L, Level *lv) {
  ad_drop(L, lv);
  ad_tapefree(&lv->tape);
  release(L, lv->adj, lv->capadj * sizeof *lv->adj);
  lv->adj = NULL;
  lv->capadj = 0;
  release(L, lv->mark, lv->capmark * sizeof *lv->mark);
  release(L, lv->list, lv->caplist * sizeof *lv->list);
  lv->mark = lv->list = NULL;
  lv->capmark = lv->caplist = 0;
}

static int level_gc(lua_State *L) {
  Level *lv = lua_touserdata(L, 1);
  if (lv->inited) freelevel(L, lv);
  return 0;
}

/* forgets the records, and gives back memory above 'keep' bytes */
static void shrink(lua_State *L, Level *lv, size_t keep) {
  ad_tapeclear(&lv->tape, keep);
  if (lv->capadj * sizeof *lv->adj > keep) {
    release(L, lv->adj, lv->capadj * sizeof *lv->adj);
    lv->adj = NULL;
    lv->capadj = 0;
  }
}

/*
** The finalizer of an object that nobody refers to: runs once in a cycle of
** the collector. Large tapes of idle levels that were not in use since the
** last time go back, and graphs look again at what nobody needs any more.
*/
static int watch_gc(lua_State *L) {
  State *S = *(State **)lua_touserdata(L, 1);
  S->watching = 0;
  for (int i = 0; i < S->nlive; i++) S->live[i]->limit = 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->pool);
  for (int i = 0; i <= S->npool; i++) {
    Level *lv;
    if (i == 0)
      lua_rawgeti(L, LUA_REGISTRYINDEX, S->spare);
    else
      lua_rawgeti(L, -1, i);
    lv = lua_touserdata(L, -1);
    if (lv != NULL && !lv->live) {
      if (lv->entered == lv->seen) shrink(L, lv, SMALL);
      lv->seen = lv->entered;
    }
    lua_pop(L, 1);
  }
  return 0;
}

void ad_watch(lua_State *L, State *S) {
  State **w;
  if (S->watching) return;
  w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = S;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTWATCH]);
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
  S->watching = 1;
}

/* the end of a transform, in peace or by an error: the level goes idle */
static void leave(lua_State *L, int idx) {
  Level *lv = lua_touserdata(L, idx);
  State *S = lv->S;
  size_t used;
  if (!lv->live) return; /* somebody keeps its tape, or closed already */
  if (lv->kind == AD_RECORD) ad_recordclose(L, S);
  if (lv->kept) {
    ad_leave(L, lv);
    lv->thread = NULL;
    return;
  }
  if (lv->kind == AD_SPAN) {
    ad_drop(L, lv);
    lv->alias->spans--;
    return;
  }
  if (lv->kind == AD_REVERSE) {
    ad_drop(L, lv);
    used = ad_tapebytes(&lv->tape);
    used = used * 4 > LARGE ? LARGE : used * 4;
    shrink(L, lv, used < SMALL ? SMALL : used);
  } else
    ad_leave(L, lv); /* has no tape */
  lv->busy = 0;
  lv->paused = lv->order = lv->depth = lv->spans = 0;
  ad_freethread(L, lv, idx);
  if (lv->isspare)
    S->sparebusy = 0;
  else if (S->npool < MAXPOOL) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->pool);
    lua_pushvalue(L, idx);
    lua_rawseti(L, -2, ++S->npool);
  }
}

/* the same as closing its slot, which calls a function */
void ad_exit(lua_State *L, int idx) {
  const int top = lua_gettop(L);
  leave(L, idx);
  lua_settop(L, top);
}

static int level_close(lua_State *L) {
  leave(L, 1);
  return 0;
}

/* a level that somebody keeps is no longer the spare one */
void ad_unspare(lua_State *L, Level *lv) {
  State *S = lv->S;
  if (lv->isspare) {
    Level *other = ad_newlevel(L, S, AD_REVERSE, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, S->spare);
    other->isspare = 1;
    lv->isspare = 0;
    S->sparebusy = 0;
  }
}

/* the level at 'idx' no longer needs the coroutine that it ran in */
void ad_freethread(lua_State *L, Level *lv, int idx) {
  if (lv->held) {
    lua_pushnil(L);
    lua_setiuservalue(L, idx, 1);
    lv->held = 0;
  }
  lv->thread = NULL;
}

/*
** The key for something made by hand from the values at 'first' and above it
** on the stack: above the innermost transform, above every level in its parts; odd for
** ad.var, even for ad.dual. Raises an error when the nesting is too deep.
*/
uint64_t ad_handkey(lua_State *L, State *S, int first, int odd) {
  const Level *in = ad_innermost(L, S, 1);
  const int last = lua_gettop(L);
  uint64_t top = in ? in->key : 0;
  for (int i = first; i <= last; i++) {
    Arg a;
    ad_resolve(L, S, i, &a);
    if (a.key > top) top = a.key;
    lua_settop(L, last);
  }
  do {
    if (AD_SUB(top) >= 0xfe)
      luaL_error(L, "values made by hand are nested too deep (limit 127)");
    top++;
  } while ((int)(top & 1) != odd);
  return top;
}

/*
** The state itself
*/

static int state_gc(lua_State *L) {
  State *S = lua_touserdata(L, 1);
  release(L, S->live, (size_t)S->caplive * sizeof *S->live);
  S->live = NULL;
  S->nlive = S->caplive = 0;
  S->varlevel = NULL;
  S->varstamp = S->dualstamp = AD_NOSTAMP(S);
  return 0;
}

/*
** Registers functions in a metatable or, when 'mtref' is LUA_NOREF, in the
** table on the top. Their upvalues: the state and, for the fast paths, the
** metatables of vars and duals.
*/
void ad_setfuncs(lua_State *L, const luaL_Reg *l, int mtref) {
  const State *S;
  if (mtref != LUA_NOREF) lua_rawgeti(L, LUA_REGISTRYINDEX, mtref);
  lua_getfield(L, LUA_REGISTRYINDEX, STATE);
  S = lua_touserdata(L, -1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTVAR]);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[AD_MTDUAL]);
  luaL_setfuncs(L, l, 3);
  if (mtref != LUA_NOREF) lua_pop(L, 1); /* the metatable */
}

static void newmetatable(lua_State *L, State *S, int which, const char *name) {
  luaL_newmetatable(L, name);
  S->mtp[which] = lua_topointer(L, -1);
  S->mt[which] = luaL_ref(L, LUA_REGISTRYINDEX);
}

State *ad_getstate(lua_State *L) {
  State *S;
  lua_getfield(L, LUA_REGISTRYINDEX, STATE);
  S = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return S;
}

State *ad_openstate(lua_State *L) {
  State *S;
  if (lua_getfield(L, LUA_REGISTRYINDEX, STATE) == LUA_TUSERDATA)
    return lua_touserdata(L, -1);
  lua_pop(L, 1); /* nil */
  S = lua_newuserdatauv(L, sizeof *S, 0);
  memset(S, 0, sizeof *S);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  /* any odd multiplier spreads the address over the upper bits */
  S->secret = (uint64_t)(uintptr_t)S * UINT64_C(0x9e3779b97f4a7c15);
  S->varstamp = S->dualstamp = AD_NOSTAMP(S);
  newmetatable(L, S, AD_MTVAR, "autodiff.var");
  newmetatable(L, S, AD_MTDUAL, "autodiff.dual");
  newmetatable(L, S, AD_MTSER, "autodiff.series");
  newmetatable(L, S, AD_MTREC, "autodiff.recorded");
  newmetatable(L, S, AD_MTLEVEL, "autodiff.level");
  newmetatable(L, S, AD_MTTAPE, "autodiff.tape");
  newmetatable(L, S, AD_MTPAUSE, "autodiff.pause");
  newmetatable(L, S, AD_MTWATCH, "autodiff.watch");
  newmetatable(L, S, AD_MTGUARD, "autodiff.guard");
  newmetatable(L, S, AD_MTARRAY, "autodiff.array");
  newmetatable(L, S, AD_MTSAVED, "autodiff.saved");
  newmetatable(L, S, AD_MTBATCH, "autodiff.batch");
  S->savers = S->arraylib = LUA_NOREF;
  newmetatable(L, S, AD_MTCOMPILED, "autodiff.compiled");
  lua_createtable(L, MAXPOOL, 0);
  S->pool = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, STATE);
  return S;
}

/*
** A sweep over the tape of a level that lives on may end by an error; then
** too the level must be free for the next one.
*/
static int guard_close(lua_State *L) {
  Level **lv = lua_touserdata(L, 1);
  (*lv)->busy = 0;
  return 0;
}

void ad_sweepguard(lua_State *L, Level *lv) {
  if (lv->busy)
    lua_pushnil(L); /* a sweep further out has one */
  else {
    Level **guard = lua_newuserdatauv(L, sizeof *guard, 0);
    *guard = lv;
    lua_rawgeti(L, LUA_REGISTRYINDEX, lv->S->mt[AD_MTGUARD]);
    lua_setmetatable(L, -2);
    lua_toclose(L, -1);
  }
}

void ad_openlevel(lua_State *L, State *S) {
  static const luaL_Reg level_mt[] = {
      {"__gc", level_gc}, {"__close", level_close}, {NULL, NULL}};
  static const luaL_Reg guard_mt[] = {{"__close", guard_close}, {NULL, NULL}};
  static const luaL_Reg watch_mt[] = {{"__gc", watch_gc}, {NULL, NULL}};
  ad_setfuncs(L, level_mt, S->mt[AD_MTLEVEL]);
  ad_setfuncs(L, watch_mt, S->mt[AD_MTWATCH]);
  ad_setfuncs(L, guard_mt, S->mt[AD_MTGUARD]);
  if (S->spare == 0) { /* the level that the main thread takes first */
    Level *lv = ad_newlevel(L, S, AD_REVERSE, 1);
    lv->isspare = 1;
    S->spare = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    S->mainthread = lua_tothread(L, -1);
    lua_pop(L, 1);
  }
  for (int i = 0; i < AD_NMT; i++) { /* not for scripts to meddle with */
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->mt[i]);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
  }
}
