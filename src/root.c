/*
** root.c
** Roots: what was recorded for arguments of one form, and the code made of it,
** for one point or for many; when machine code pays.
*/
#include "compile.h"

#include <string.h>
#include <time.h>

Compiled *ad_tocompiled(lua_State *L, int arg) {
  return luaL_checkudata(L, arg, "autodiff.compiled");
}

static void dropbatch(Root *r) {
  if (r->hasbatch) ad_batchfree(&r->batch);
  if (r->shared != NULL)
    r->code.alloc(r->code.ud, r->shared, (size_t)r->code.nin + 1, 0);
  r->shared = NULL;
  r->hasbatch = r->novectors = 0;
  r->points = 0;
}

/* or what an error has left of it */
static void dropexact(Root *r) {
  if (r->hasexact) ad_interpreter.free(r->exactmade);
  if (r->exactframe.alloc != NULL) ad_framefree(&r->exactframe);
  if (r->exact.alloc != NULL) ad_codefree(&r->exact);
  r->hasexact = 0;
}

void ad_dropcode(Root *r) {
  dropbatch(r);
  if (r->hascode) r->backend->free(r->made);
  ad_arraysdrop(r);
  if (r->frame.alloc != NULL) ad_framefree(&r->frame);
  if (r->code.alloc != NULL) ad_codefree(&r->code);
  dropexact(r);
  r->hascode = 0;
}

static void freeroot(lua_State *L, Root *r) {
  const size_t n = r->in.nleaf + 1;
  ad_dropcode(r);
  ad_arraysfree(L, r);
  ad_progfree(&r->prog);
  ad_progfree(&r->adjoint);
  ad_realloc(L, r->sub, r->sub ? n : 0, 0);
  ad_realloc(L, r->isint, r->isint ? n : 0, 0);
  ad_realloc(L, r->given, r->given ? n * sizeof(double) : 0, 0);
  ad_formfree(L, &r->in);
  ad_realloc(L, r->want, r->capwant * sizeof *r->want, 0);
  while (r->ngrad > 0) ad_formfree(L, &r->grad[--r->ngrad]);
  ad_realloc(L, r->grad, r->grad ? r->capgrad * sizeof *r->grad : 0, 0);
  ad_realloc(L, r, sizeof *r, 0);
}

void ad_droproot(lua_State *L, Compiled *c, Root *r) {
  uint32_t k = 0;
  while (c->root[k] != r) k++;
  c->nroot--;
  memmove(c->root + k, c->root + k + 1, (c->nroot - k) * sizeof *c->root);
  freeroot(L, r);
}

int ad_compiledgc(lua_State *L) {
  Compiled *c = lua_touserdata(L, 1);
  while (c->nroot > 0) freeroot(L, c->root[--c->nroot]);
  ad_realloc(L, c->root, c->caproot * sizeof *c->root, 0);
  while (c->nset > 0) ad_formfree(L, &c->set[--c->nset]);
  ad_realloc(L, c->set, c->capset * sizeof *c->set, 0);
  ad_realloc(L, c->place, c->capplace * sizeof *c->place, 0);
  ad_callfree(L, c);
  c->root = NULL;
  c->set = NULL;
  c->place = NULL;
  c->capplace = c->nplace = 0;
  ad_realloc(L, c->loopplace, c->caploopplace * sizeof *c->loopplace, 0);
  ad_realloc(L, c->saved, c->capsaved * sizeof *c->saved, 0);
  ad_realloc(L, c->loop, c->caploop * sizeof *c->loop, 0);
  ad_realloc(L, c->entry, c->capentry * sizeof *c->entry, 0);
  ad_countersfree(L, c);
  c->loopplace = c->saved = NULL;
  c->loop = NULL;
  c->entry = NULL;
  c->caploopplace = c->capsaved = c->caploop = c->capentry = 0;
  c->caproot = c->capset = 0;
  return 0;
}

/* the numbers of the arguments, when they have the form of the root */
int ad_rootmatches(lua_State *L, const State *S, Root *r, int self, int first,
                   int last, double *in) {
  uint32_t at = 0, leaf = 0;
  int consts, ok = 1;
  if ((uint32_t)(last - first + 1) != r->in.nval) return 0;
  if (r->in.numbers) {
    for (int i = first; i <= last; i++) {
      if (lua_type(L, i) != LUA_TNUMBER) return 0;
      in[i - first] = lua_tonumber(L, i);
    }
    return 1;
  }
  lua_getiuservalue(L, self, AD_CCONST);
  consts = lua_gettop(L);
  for (int i = first; i <= last && ok; i++)
    ok = ad_formmatch(L, S, consts, &r->in, &at, &leaf, in, i);
  lua_settop(L, consts - 1);
  return ok;
}

/* the same for a value of the form from word *at on: which are integers */
static void integers(lua_State *L, int consts, const Form *f, uint32_t *at,
                     uint32_t *leaf, uint8_t *isint, int idx) {
  const uint32_t *w = f->word + *at;
  if (F_ISLEAF(w[0])) {
    isint[(*leaf)++] = ad_intkind(L, idx);
    *at += 1;
    return;
  }
  if (w[0] == F_CONST) {
    *at += 2;
    return;
  }
  if (w[0] == F_ARRAY) {
    isint[(*leaf)++] = 0;
    *at += 2 + 2 * w[1];
    return;
  }
  ad_checkstack(L, 4, "structure is nested too deep");
  *at += 5;
  for (uint32_t i = 1; i <= w[2]; i++) {
    lua_rawgeti(L, idx, i);
    if (w[3])
      isint[(*leaf)++] = ad_intkind(L, -1);
    else
      integers(L, consts, f, at, leaf, isint, lua_gettop(L));
    lua_pop(L, 1);
  }
  for (uint32_t i = 0; i < w[4]; i++) {
    lua_rawgeti(L, consts, f->word[(*at)++]);
    lua_rawget(L, idx);
    integers(L, consts, f, at, leaf, isint, lua_gettop(L));
    lua_pop(L, 1);
  }
}

/* which of the arguments are integers, into r->isint; is none AD_HUGEINT? */
int ad_rootintegers(lua_State *L, Root *r, int self, int first) {
  uint32_t at = 0, leaf = 0;
  lua_getiuservalue(L, self, AD_CCONST);
  for (uint32_t k = 0; k < r->in.nval; k++)
    integers(L, lua_gettop(L), &r->in, &at, &leaf, r->isint, first + (int)k);
  lua_pop(L, 1);
  return memchr(r->isint, AD_HUGEINT, r->in.nleaf) == NULL;
}

/* the arrays of a value of the form from word *at on go to the slots */
static void putarrays(lua_State *L, Root *r, int consts, int slots,
                      uint32_t *at, uint32_t *k, int idx) {
  const uint32_t *w = r->in.word + *at;
  if (w[0] == F_ARRAY) {
    ad_putarray(L, r, slots, (*k)++, idx);
    *at += 2 + 2 * w[1];
    return;
  }
  if (w[0] != F_TABLE) {
    *at += w[0] == F_NUM ? 1 : 2;
    return;
  }
  ad_checkstack(L, 4, "structure is nested too deep");
  *at += 5;
  for (uint32_t i = 1; !w[3] && i <= w[2]; i++) {
    lua_rawgeti(L, idx, i);
    putarrays(L, r, consts, slots, at, k, lua_gettop(L));
    lua_pop(L, 1);
  }
  for (uint32_t i = 0; i < w[4]; i++) {
    lua_rawgeti(L, consts, r->in.word[(*at)++]);
    lua_rawget(L, idx);
    putarrays(L, r, consts, slots, at, k, lua_gettop(L));
    lua_pop(L, 1);
  }
}

void ad_callarguments(lua_State *L, Root *r) {
  uint32_t at = 0, k = 0;
  const int top = lua_gettop(L);
  if (r->in.narray == 0) return;
  ad_checkstack(L, 10, NULL);
  lua_getiuservalue(L, 1, AD_CCONST);
  ad_pushslots(L, r);
  for (uint32_t i = 0; i < r->in.nval; i++)
    putarrays(L, r, top + 1, top + 2, &at, &k, 2 + (int)i);
  lua_settop(L, top);
}

/* subtypes of numbers, where f has asked for them */
static int subtypes(lua_State *L, Root *r, int self, int first) {
  if (!r->subs) return 1;
  ad_rootintegers(L, r, self, first);
  for (uint32_t k = 0; k < r->in.nleaf; k++)
    if (r->sub[k] && r->isint[k] != r->sub[k] - 1) return 0;
  return 1;
}

double *ad_rootinputs(Root *r) {
  return r->hascode ? r->frame.v + r->code.nconst : r->given;
}

Root *ad_rootof(lua_State *L, Compiled *c, int self, int first, int last) {
  for (uint32_t i = 0; i < c->nroot; i++) {
    Root *r = c->root[i];
    if (!ad_rootmatches(L, c->S, r, self, first, last, ad_rootinputs(r)) ||
        !subtypes(L, r, self, first))
      continue;
    if (i > 0) { /* the next call is likely to be the same */
      memmove(c->root + 1, c->root, i * sizeof *c->root);
      c->root[0] = r;
    }
    return r;
  }
  return NULL;
}

/* a root that is nobody's yet */
static Root *addroot(lua_State *L, Compiled *c) {
  Root *r;
  if (c->nroot == c->caproot) {
    const uint32_t ncap = c->caproot * 2 + 1;
    c->root = ad_realloc(L, c->root, c->caproot * sizeof *c->root,
                         ncap * sizeof *c->root);
    c->caproot = ncap;
  }
  r = ad_realloc(L, NULL, 0, sizeof *r);
  memset(r, 0, sizeof *r);
  r->backend = &ad_interpreter;
  r->in.nval = UINT32_MAX; /* nobody's, until it is complete */
  memmove(c->root + 1, c->root, c->nroot * sizeof *c->root);
  c->root[0] = r;
  c->nroot++;
  return r;
}

/* what goes with the leaves of its arguments */
static void leaves(lua_State *L, Root *r) {
  const size_t n = (size_t)r->in.nleaf + 1;
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  r->sub = ad_realloc(L, NULL, 0, n);
  memset(r->sub, 0, n);
  r->isint = ad_realloc(L, NULL, 0, n);
  memset(r->isint, 0, n);
  r->given = ad_realloc(L, NULL, 0, n * sizeof(double));
  memset(r->given, 0, n * sizeof(double));
  while (!ad_proginit(&r->prog, alloc, ud, r->in.nleaf))
    ad_nomem(L, n * sizeof(Ins));
  r->prog.callsize = ad_callsize;
}

/* marks the inputs that are arrays, of n values from word *at on */
static void arrayleaves(const Form *f, uint32_t *at, uint32_t *leaf, Prog *p,
                        uint32_t n) {
  while (n-- > 0) {
    const uint32_t *w = f->word + *at;
    switch (w[0]) {
    case F_NUM:
      ++*leaf;
      *at += 1;
      break;
    case F_CONST:
      *at += 2;
      break;
    case F_ARRAY:
      p->ins[(*leaf)++].flags = P_ARRAY;
      *at += 2 + 2 * w[1];
      break;
    default:
      *at += 5;
      if (w[3])
        *leaf += w[2];
      else
        arrayleaves(f, at, leaf, p, w[2]);
      for (uint32_t i = 0; i < w[4]; i++) {
        ++*at;
        arrayleaves(f, at, leaf, p, 1);
      }
    }
  }
}

/* a new root; NULL if there cannot be one for these arguments */
Root *ad_newroot(lua_State *L, Compiled *c, int self, int first, int last,
                 int fixedints) {
  Root *r;
  Taker t;
  uint32_t n;
  r = addroot(L, c);
  memset(&t, 0, sizeof t);
  t.c = c;
  t.self = self;
  t.form = &r->in;
  t.fixedints = fixedints;
  for (int i = first; i <= last; i++) {
    lua_pushvalue(L, i);
    ad_formtake(L, &t, 0);
  }
  n = (uint32_t)(last - first + 1);
  r->in.numbers = n == r->in.n && n == r->in.nleaf;
  r->fixedints = (uint8_t)fixedints;
  leaves(L, r);
  r->in.nval = (uint32_t)(last - first + 1);
  r->prog.callud = c;
  if (t.foreign) {
    ad_droproot(L, c, r);
    return NULL;
  }
  if (r->in.narray) {
    uint32_t at = 0, leaf = 0;
    arrayleaves(&r->in, &at, &leaf, &r->prog, r->in.nval);
  }
  return r;
}

double ad_seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nomemory(lua_State *L, const Root *r) {
  ad_nomem(L, ((size_t)r->prog.nins + 1) * 2 * sizeof(Ins));
}

/*
** The results of a gradient's program are f's, and then the derivatives; they
** become f's value (if asked for), the derivatives, and f's further results.
*/
static void reorder(lua_State *L, const Compiled *c, const Root *r, Prog *q) {
  uint32_t *old = lua_newuserdatauv(L, (q->nlist + 1) * sizeof *old, 0);
  for (uint32_t k = 0; k < q->nblock; k++) {
    Block *b = &q->block[k];
    const Form *f = &c->set[b->end == P_RETURN ? b->set : 0];
    const uint32_t n = b->b - r->nwant;
    uint32_t y, at = 0, *x = q->list + b->a;
    if (b->end != P_RETURN || f->nval == 0) continue;
    y = f->word[0] != F_CONST;
    memcpy(old, x, b->b * sizeof *x);
    if (y && c->gradvalue) x[at++] = old[0];
    for (uint32_t i = 0; i < r->nwant; i++) x[at++] = old[n + i];
    for (uint32_t i = y; i < n; i++) x[at++] = old[i];
    b->b = at;
  }
  lua_pop(L, 1);
}

/* the program as Code; of a gradient, that of f with its derivatives */
static int lowered(lua_State *L, Compiled *c, Root *r, Code *code,
                   int options) {
  Prog q;
  int went;
  if (!c->isgrad) {
    while (!ad_lower(&r->prog, code, options)) nomemory(L, r);
    return 1;
  }
  while ((went = ad_progadjoint(&r->prog, &q, r->nwant, r->want,
                                r->recompute ? c->maxstack : 0)) == P_GNOMEM)
    nomemory(L, r);
  if (went == P_GCANNOT) return 0;
  ad_progfree(&r->adjoint); /* which the root owns, as memory may be lacking */
  r->adjoint = q;
  reorder(L, c, r, &r->adjoint);
  while (!ad_lower(&r->adjoint, code, options)) nomemory(L, r);
  ad_progfree(&r->adjoint);
  return 1;
}

/* the exact form of the code, where the fast one has come to a NaN */
void ad_rootexact(lua_State *L, Compiled *c, Root *r) {
  const char *why;
  if (r->hasexact) return;
  dropexact(r);
  lowered(L, c, r, &r->exact, c->options);
  while (ad_frameinit(&r->exactframe, &r->exact, r->prog.alloc, r->prog.ud,
                      c->maxstack) != 0)
    nomemory(L, r);
  while ((r->exactmade = ad_interpreter.make(&r->exact, &why)) == NULL)
    nomemory(L, r);
  r->hasexact = 1;
}

/*
** Machine code pays when what it has saved would make up for making it: a run
** takes about 0.7 ns less for each instruction, and to compile one takes about
** 100 ns, and the mappings 50 us.
*/
static uint32_t paysafter(const Compiled *c, const Root *r) {
  if (c->backend == C_INTERPRETER || c->nonative != NULL) return 0;
  if (ad_hasarrays(&r->code)) return 0; /* it knows nothing of calls */
  if (c->backend == C_NATIVE) return 1;
  return 150 + (uint32_t)(70000 / (r->code.nins + 1));
}

static int features(State *S) {
  if (!S->hasfeatures) { /* under a hypervisor that takes a while */
    S->features = ad_nativefeatures();
    S->hasfeatures = 1;
  }
  return S->features;
}

void ad_tonative(Compiled *c, Root *r) {
  const double start = ad_seconds();
  const char *why = NULL;
  void *made = ad_nativemake(&r->code, features(c->S), &why);
  if (made != NULL) {
    r->backend->free(r->made);
    r->backend = &ad_native;
    r->made = made;
  } else
    c->nonative = why ? why : "there was no memory for it";
  r->pays = 0;
  c->seconds += ad_seconds() - start;
}

/*
** Seconds for some of the points, the least of a few times; the results are
** put where those of all will be. Below 0: no memory.
*/
#define TRIES 5
#define SOME (1u << 20) /* instructions times points, roughly */

static double sample(const Root *r, const BatchRun *run) {
  const size_t most = 2 * V_POINTS + SOME / (r->code.nins + SOME / 8192);
  double best = HUGE_VAL;
  BatchRun part = *run;
  part.threads = 1;
  if (part.n > most) part.n = most;
  for (int k = 0; k < TRIES; k++) {
    double t = ad_seconds();
    if (!ad_batchrun(&r->batch, &part)) return -1;
    t = ad_seconds() - t;
    if (t < best) best = t;
  }
  return best;
}

/*
** Machine code for many points saves 0.03 ns for an instruction of each, or,
** where the frame is large, 0.2 ns; to compile one takes about 200 ns, and all
** else 100 us. But that is not so of every program: what has few operations
** between its functions, or values that no registers can hold, may be faster
** without. So both are run; results are the same bits. That is done again only
** where the program has become another.
*/
static void tovectors(Compiled *c, Root *r, const BatchRun *run) {
  const double start = ad_seconds();
  const char *why = NULL;
  const uint32_t few = r->batch.points < V_POINTS ? 1000 : 6000;
  const int measured = r->measured != 0 && r->code.nins / 2 <= r->measured;
  double kernels = -1;
  if (c->backend == C_INTERPRETER || c->nonative != NULL || r->novectors)
    return;
  if (c->backend != C_NATIVE) {
    if (r->points < few + few * UINT64_C(500) / ((uint64_t)r->code.nins + 1) ||
        (measured && r->kernels))
      return;
    if (!measured && (kernels = sample(r, run)) < 0) return;
  }
  if (!ad_batchnative(&r->batch, features(c->S), &why))
    r->novectors = 1;
  else if (kernels >= 0) {
    const double native = sample(r, run);
    r->measured = native < 0 ? 0 : r->code.nins + 1;
    r->kernels = native < 0 || kernels <= native;
    if (r->kernels) ad_batchkernels(&r->batch);
  }
  c->seconds += ad_seconds() - start;
}

const Batch *ad_rootbatch(Compiled *c, Root *r, const uint8_t *shared,
                          const BatchRun *run) {
  const Code *code = &r->code;
  if (r->hasbatch && memcmp(r->shared, shared, code->nin) != 0) dropbatch(r);
  if (!r->hasbatch) {
    if (r->shared == NULL)
      r->shared = code->alloc(code->ud, NULL, 0, (size_t)code->nin + 1);
    if (r->shared == NULL) return NULL;
    memcpy(r->shared, shared, code->nin);
    if (!ad_batchinit(&r->batch, code, shared, 0, code->alloc, code->ud))
      return NULL;
    r->hasbatch = 1;
  }
  r->points += run->n;
  if (r->batch.vectors == NULL) {
    const size_t before = r->points == run->n ? 0 : ad_batchbytes(&r->batch);
    tovectors(c, r, run);
    c->S->told +=
        ad_batchbytes(&r->batch) - before; /* for the next ad_tellgc */
  }
  c->mapped = r->batch.vectors != NULL ? C_VECTORS : C_KERNELS;
  return &r->batch;
}

int ad_rootcode(lua_State *L, Compiled *c, Root *r) {
  const double start = ad_seconds();
  const char *why;
  Code code;
  Frame frame;
  void *made;
  const int options = c->options | (r->in.narray || c->ncalled ? 0 : P_RELAX);
  if (r->hascode && (r->news == 0 || c->running)) return 1;
  if (!lowered(L, c, r, &code, options)) return 0;
  while (ad_frameinit(&frame, &code, r->prog.alloc, r->prog.ud, c->maxstack) !=
         0) {
    ad_codefree(&code);
    nomemory(L, r);
    lowered(L, c, r, &code, options);
  }
  ad_dropcode(r);
  r->code = code;
  r->frame = frame;
  r->backend = &ad_interpreter;
  made = r->backend->make(&r->code, &why);
  if (made == NULL) {
    ad_framefree(&r->frame);
    ad_codefree(&r->code);
    nomemory(L, r);
    luaL_error(L, "not enough memory");
  }
  r->made = made;
  r->hascode = 1;
  c->S->told += ad_codebytes(&r->code) + r->frame.size +
                r->backend->bytes(r->made) + ad_progbytes(&r->prog);
  ad_tellgc(L, c->S);
  r->news = r->misses = r->runs = 0;
  r->pays = paysafter(c, r);
  c->seconds += ad_seconds() - start;
  return 1;
}

Root *ad_storedroot(lua_State *L, Compiled *c, const Form *in) {
  Root *r = addroot(L, c);
  for (uint32_t k = 0; k < in->n; k++) ad_formword(L, &r->in, in->word[k]);
  r->in.nleaf = in->nleaf;
  leaves(L, r);
  r->in.numbers = in->nval == in->n && in->nval == in->nleaf;
  r->in.nval = in->nval;
  return r;
}

void ad_storedset(lua_State *L, Compiled *c, const Form *set) {
  Form *f;
  if (c->nset == c->capset) {
    const uint32_t ncap = c->capset * 2 + 4;
    c->set = ad_realloc(L, c->set, c->capset * sizeof *f, ncap * sizeof *f);
    c->capset = ncap;
  }
  f = &c->set[c->nset++];
  memset(f, 0, sizeof *f);
  for (uint32_t k = 0; k < set->n; k++) ad_formword(L, f, set->word[k]);
  f->nleaf = set->nleaf;
  f->nval = set->nval;
  f->numbers = ad_allnumbers(f);
}

/* the root's code has been loaded */
void ad_storedcode(lua_State *L, Compiled *c, Root *r) {
  const char *why;
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  while (ad_frameinit(&r->frame, &r->code, alloc, ud, c->maxstack) != 0)
    ad_nomem(L, (size_t)r->code.nslot * sizeof(double));
  while ((r->made = r->backend->make(&r->code, &why)) == NULL)
    ad_nomem(L, (size_t)r->code.nins * sizeof(Ins));
  r->hascode = 1;
  r->pays = paysafter(c, r);
  for (uint32_t k = 0; k < r->code.nblock; k++)
    r->prog.ntrace += r->code.block[k].end == P_RETURN;
  c->traces += r->prog.ntrace;
}
