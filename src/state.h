/*
** state.h
** What the Lua-facing files share: the state of a lua_State, the levels of
** running transforms, and the values that Lua sees.
**
** A value (userdata 'Cell') opens with a stamp, 64 bits:
**
**      | level's key: transform's number  | sub | kind |  xor  secret
**        52 bits                            8     4
**
** so that one comparison tells "a value of the level that the fast path is
** set to, in numeric form". Numbers of transforms only grow, and so the
** highest key among the operands of an operation is the innermost transform.
** A stamp stays readable when its level is gone: it is then found in no list
** of live levels, and the value is a constant. 'sub' orders what is made by
** hand (ad.var: odd, ad.dual: even) above the transform it is made in and
** below the transforms that start later.
*/
#ifndef ad_state_h
#define ad_state_h

#include <stdint.h>

#include "lauxlib.h"
#include "lua.h"

#include "kernel.h"
#include "tape.h"

/* kinds of value: bit 0 is set when parts are values of lower levels */
enum {
  AD_VARN,    /* a node of a tape, its primal a number */
  AD_VARG,    /* ... its primal in user value 1 */
  AD_DUALN,   /* primal and tangents numbers */
  AD_DUALG,   /* user value 1 the primal, 2.. the tangents */
  AD_SERN,    /* Taylor coefficients, all numbers */
  AD_SERG,    /* user value k+1 is coefficient k */
  AD_RECN,    /* an operation of a program: primal, and reference (compile.c) */
  AD_BATCH,   /* user value 1 has one more dimension, the first: vmap */
  AD_RECA = 9 /* as AD_RECN, of an array: user value 1 */
};

#define AD_ISVAR(kind) ((kind) <= AD_VARG)
#define AD_ISDUAL(kind) ((kind) == AD_DUALN || (kind) == AD_DUALG)
#define AD_ISSER(kind) ((kind) == AD_SERN || (kind) == AD_SERG)
#define AD_ISREC(kind) ((kind) == AD_RECN || (kind) == AD_RECA)
#define AD_GENERALKIND(kind) ((kind)&1)

typedef struct Cell {
  uint64_t stamp;
  double value; /* AD_VARN, AD_DUALN, AD_SERN: the primal */
  union {
    struct {
      uint32_t node;
      uint32_t leaf; /* made by ad.var: has a user value for 'grad' */
    } var;
    double part[1]; /* tangents, or coefficients 1.. */
  } u;
} Cell;

#define AD_CELLHEAD offsetof(Cell, u)

/* metatables, kept in the registry */
enum {
  AD_MTVAR,
  AD_MTDUAL,
  AD_MTSER,
  AD_MTREC,
  AD_MTBATCH,
  AD_MTLEVEL,
  AD_MTTAPE,
  AD_MTPAUSE,
  AD_MTWATCH,
  AD_MTGUARD,
  AD_MTARRAY,
  AD_MTSAVED,
  AD_MTCOMPILED,
  AD_NMT
};

/* kinds of level */
enum {
  AD_REVERSE, /* a transform that records */
  AD_FORWARD, /* a transform with duals */
  AD_SERIES,  /* Taylor propagation */
  AD_TAPE,    /* ad.tape */
  AD_GRAPH,   /* ad.var */
  AD_SPAN,    /* inside a checkpoint: records on the tape of its 'alias' */
  AD_VMAP,    /* a function runs for a batch */
  AD_RECORD   /* a function is being compiled */
};

struct State;

/* what is known of a node of a tape that is looked at (see look.c) */
enum {
  AD_NOTENONE, /* recorded while nobody looked */
  AD_NOTEINPUT,
  AD_NOTEOP,
  AD_NOTECALL, /* the node of a call: no row of its own ... */
  AD_NOTEOUT   /* ... as its outputs are */
};

typedef struct Note {
  double y, x[AD_MAXARITY]; /* result, operands (of a list the first) */
  uint32_t source, line;    /* number among the level's sources, or 0 */
  uint32_t n;               /* of operands */
  uint8_t kind, op;
  uint8_t active; /* bit i: operand i is on the tape */
  uint8_t rule;   /* 1 + the operation whose derivative it is a part of */
  /* numbers of texts among the level's sources, or 0: in the place of a value
     that is an array; its shape; those of operands. Of a call the operation */
  uint32_t text, shape, operand[AD_MAXARITY];
} Note;

/* an operation of a tape whose rule is Lua's business (custom, checkpoint) */
typedef struct Call {
  uint32_t node; /* its entries are its inputs; its outputs follow it */
  uint32_t nout;
} Call;

typedef struct Level {
  struct State *S;
  uint64_t key;
  uint64_t entered;    /* when it became live: dynamic nesting */
  uint64_t seen;       /* 'entered' in the last cycle of the collector */
  uint64_t context;    /* key of the transform that it was made in */
  struct Level *alias; /* AD_SPAN: whose tape this is */
  lua_State *thread;   /* coroutine that it runs in (user value 1 holds it) */
  Tape tape;
  Call *calls;
  uint32_t ncall, capcall;
  int objects; /* registry reference: general partials by entry + 1 */
  int callers; /* registry reference: handlers of calls */
  int handles; /* registry reference: AD_GRAPH: weak, vars by node + 1 */
  int grads;   /* registry reference: AD_GRAPH: .grad of vars that are no
                  leaves, by var */
  int self;    /* registry reference: AD_GRAPH: what keeps it alive */
  Note *note;  /* by node, of a level that is looked at */
  uint32_t nnote, capnote;
  int sources; /* registry reference: names of chunks, for the notes */
  double *adj; /* scratch of the sweeps */
  size_t capadj;
  uint32_t *mark, *list; /* AD_GRAPH: scratch of backward */
  uint32_t capmark, caplist, epoch;
  uint64_t swept;  /* AD_GRAPH: nodes swept since the last compaction ... */
  uint32_t limit;  /* ... and the size at which the next one is due */
  size_t heavy;    /* bytes of arrays that were saved since then ... */
  size_t heaviest; /* ... and how many make the next one due */
  int order;       /* AD_FORWARD: directions; AD_SERIES: highest order */
  int depth;       /* of values of levels inside values */
  int paused;      /* how many no_grad or stop are at work on it somewhere */
  int spans;       /* checkpoints that are running on this tape */
  uint8_t kind;
  uint8_t live;
  uint8_t kept; /* a pullback has the tape: closing only ends the level */
  uint8_t isspare;
  uint8_t held;  /* user value 1 is the coroutine */
  uint8_t mixed; /* AD_SPAN: others have recorded on the tape meanwhile */
  uint8_t inited;
  uint8_t persistent, asked, closed; /* AD_TAPE */
  uint8_t busy;                      /* a sweep is at work on it */
  uint8_t traced;                    /* has notes */
} Level;

/* a running no_grad: its levels act as constants while 'thread' is active */
typedef struct Pause {
  struct State *S;
  struct Pause *next;
  lua_State *thread;
  size_t n;
  uint8_t live;
  uint64_t key[1];
} Pause;

typedef struct State {
  uint64_t secret;
  uint64_t counter;   /* number of the youngest transform */
  uint64_t entered;   /* how often a level became live */
  uint64_t varstamp;  /* the fast path: stamp of AD_VARN ... */
  Level *varlevel;    /* ... and its level; NULL when there is none */
  uint64_t dualstamp; /* stamp of AD_DUALN of a live level */
  Level **live;       /* by key, ascending */
  int nlive, caplive;
  int mt[AD_NMT];          /* registry references of the metatables */
  const void *mtp[AD_NMT]; /* and their addresses */
  int pool;                /* registry reference: idle levels */
  int npool;
  lua_State *mainthread; /* whose transforms cannot be abandoned, so that */
  int spare;             /* its level stays in the registry (reference) */
  int sparebusy;
  Pause *pauses;
  uint8_t debug; /* debug_nans(true): there is no fast path then */
  int rule;      /* 1 + operation whose rule is being computed, or 0 */
  /* debug_nans: the operation that a sweep is at; line 0: none */
  uint32_t sweptline;
  uint8_t sweptop;
  char sweptsource[LUA_IDSIZE];
  int savers;      /* registry reference: weak, the tables that hold arrays for
                   tapes; LUA_NOREF: none */
  uint64_t writes; /* to elements of arrays, so far */
  uint8_t arrays;  /* there has been an array */
  uint8_t keeps;   /* the allocator keeps what large arrays leave (array.c) */
  int arraylib;    /* registry reference: autodiff.array, once it is needed */
  int features;    /* of the CPU, once they have been asked for */
  uint8_t hasfeatures;
  struct Recorder *recorder; /* of the function that is being compiled */
  lua_Hook hook;             /* the user's, while there is another ... */
  int hookmask, hookcount, hookleft; /* ... (watch.c) */
  uint8_t triedwatch, canwatch;
  int watching; /* the object of watch_gc is there */
  size_t told;  /* bytes of tapes that the collector has yet to be told of */
  struct Blas *blas; /* BLAS and LAPACK, once they have been looked for */
} State;

/* a number, or what is at a stack index */
typedef struct val {
  double n;
  int i; /* 0: the number n */
} val;

/* an operand, stripped of levels that are gone */
typedef struct Arg {
  val v;
  uint64_t key; /* 0 for a number */
  int kind;
  Cell *c;
  Level *lv; /* NULL for duals made by hand */
} Arg;

static inline val ad_num(double n) {
  val v = {n, 0};
  return v;
}

static inline val ad_at(int i) {
  val v = {0, i};
  return v;
}

#define AD_NOSTAMP(S) ((S)->secret ^ 15) /* no value has it */

static inline int ad_isnum(val v, double n) { return v.i == 0 && v.n == n; }

/* every C function of the library has the state as its first upvalue */
static inline State *ad_state(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static inline uint64_t ad_stamp(const State *S, uint64_t key, int kind) {
  return ((key << 4) | (unsigned)kind) ^ S->secret;
}

static inline uint64_t ad_keyof(const State *S, const Cell *c) {
  return (c->stamp ^ S->secret) >> 4;
}

static inline int ad_kindof(const State *S, const Cell *c) {
  return (int)((c->stamp ^ S->secret) & 15);
}

/* does the tape of this level get notes? */
static inline int ad_looked(const Level *t) { return t->traced || t->S->debug; }

#define AD_KEYBITS 8
#define AD_TRANSFORM(key) ((key) >> AD_KEYBITS)
#define AD_SUB(key) ((int)((key)&0xff))

/* state.c */
State *ad_openstate(lua_State *L); /* pushes it */
State *ad_getstate(lua_State *L);  /* from the registry */
void *ad_realloc(lua_State *L, void *p, size_t osize, size_t nsize);
void ad_nomem(lua_State *L, size_t size);
void ad_checkstack(lua_State *L, int n, const char *message);

/* lua_closeslot, which Lua has since 5.4.3 */
#if LUA_VERSION_RELEASE_NUM < 50403
#define AD_NOCLOSESLOT
void ad_closeslot(lua_State *L, int slot);
#else
#define ad_closeslot lua_closeslot
#endif
Level *ad_findlevel(const State *S, uint64_t key);
Level *ad_enter(lua_State *L, State *S, int kind); /* pushes the level */
Level *ad_newlevel(lua_State *L, State *S, int kind, int nuv);
void ad_exit(lua_State *L, int idx);
void ad_insert(lua_State *L, Level *lv, uint64_t key);
void ad_leave(lua_State *L, Level *lv); /* its values become constants */
void ad_drop(lua_State *L, Level *lv);  /* ... and its tape is freed */
void ad_watch(lua_State *L, State *S);
void ad_unspare(lua_State *L, Level *lv);
void ad_freethread(lua_State *L, Level *lv, int idx);
void ad_revive(lua_State *L, Level *lv);
Level *ad_innermost(lua_State *L, State *S, int spans); /* or NULL */
uint64_t ad_handkey(lua_State *L, State *S, int first, int odd);
int ad_pausedhere(const State *S, const Level *lv);
int ad_islive(const State *S, const Cell *c, uint64_t key, Level **lv);
void ad_room(lua_State *L, Level *lv, uint32_t nodes, uint32_t entries);
void ad_tellgc(lua_State *L, State *S);
void ad_setfuncs(lua_State *L, const luaL_Reg *l, int mtref);
void ad_openlevel(lua_State *L, State *S);

/* value.c */
Cell *ad_tocell(lua_State *L, const State *S, int idx); /* or NULL */
void ad_resolve(lua_State *L, State *S, int idx, Arg *a);
void ad_resolveval(lua_State *L, State *S, val v, Arg *a);
val ad_primalof(lua_State *L, const Arg *a);
int ad_nparts(lua_State *L, const Arg *a); /* tangents, or order */
val ad_part(lua_State *L, const Arg *a, int k);
void ad_pushval(lua_State *L, val v);
val ad_valat(lua_State *L, int idx);
double ad_plain(lua_State *L, State *S, int idx);
double ad_plainval(lua_State *L, State *S, val v);
val ad_base(lua_State *L, State *S, val v); /* may push */
int ad_holds(lua_State *L, State *S, int cmp, val x, val y);
Cell *ad_newcell(lua_State *L, State *S, int mt, size_t size, int nuv);
val ad_pushvar(lua_State *L, State *S, Level *lv, val primal, uint32_t node,
               int leaf);
val ad_pushparts(lua_State *L, State *S, uint64_t key, int kind, val primal,
                 int n, const val *part);
val ad_leafvar(lua_State *L, State *S, Level *lv, val primal, int leaf);
val ad_takeval(lua_State *L);
int ad_isbatch(lua_State *L, const State *S, int idx);
void ad_stripvalue(lua_State *L, State *S, uint64_t key); /* the top */
val ad_checkarg(lua_State *L, State *S, int arg);     /* number or AD value */
val ad_checkoperand(lua_State *L, State *S, int arg); /* or an array */
val ad_operand(lua_State *L, State *S, int arg);      /* of an operator */
void ad_openvalue(lua_State *L, State *S);

/* apply.c */
val ad_apply(lua_State *L, State *S, int op, int n, const val *x);
val ad_nary(lua_State *L, State *S, int op, int n, const val *x);
void ad_softmax(lua_State *L, State *S, int n, const val *x, val *p);
val ad_chain(lua_State *L, State *S, val acc, val t, val p);

static inline val ad_op1(lua_State *L, State *S, int op, val x) {
  if (x.i == 0) return ad_num(ad_opvalue(op, &x.n));
  return ad_apply(L, S, op, 1, &x);
}

static inline val ad_op2(lua_State *L, State *S, int op, val x, val y) {
  val v[2] = {x, y};
  if (x.i == 0 && y.i == 0) {
    double d[2] = {x.n, y.n};
    return ad_num(ad_opvalue(op, d));
  }
  return ad_apply(L, S, op, 2, v);
}

/* look.c */
void ad_notehere(lua_State *L, Level *t, Note *note);
void ad_noteoperands(lua_State *L, Level *t, Note *note, int op, int n,
                     const Arg *a, const val *x, val y);
void ad_noteresult(lua_State *L, Level *t, Note *note, val y);
void ad_note(lua_State *L, Level *t, const Note *note);
void ad_notevalue(lua_State *L, Level *t, uint32_t node, val y);
void ad_notecall(lua_State *L, Level *t, uint32_t node, const char *text);
const char *ad_callname(lua_State *L, State *S, const char *name, int first,
                        int last);
void ad_nancheck(lua_State *L, State *S, int op, int n, const val *x, val y);
int ad_isbad(lua_State *L, State *S, val v);
void ad_nanrule(lua_State *L, State *S, const char *name, val v,
                int derivative);
void ad_nansweep(lua_State *L, Level *t, uint32_t node, const char *name,
                 int backward, val v);
void ad_nanplace(lua_State *L, Level *t, uint32_t node);
void ad_takerecord(lua_State *L, Level *lv, int slot);
void ad_openlook(lua_State *L, State *S);

/* compile.c; what is called while S->recorder is there */
val ad_record(lua_State *L, State *S, int op, int n, const Arg *a);
val ad_recordlist(lua_State *L, State *S, int op, int n, const Arg *a);
int ad_recordif(lua_State *L, State *S, int cmp, val x, val y);
void ad_recordlook(lua_State *L, State *S, const Cell *c);
int ad_recordsint(const State *S, const Cell *c);
int ad_recordedint(const State *S, const Cell *c);
int ad_recordtypes(lua_State *L, State *S, int op, int n, int isoperator);
void ad_recordinteger(lua_State *L, State *S, int op, int how);
int ad_iselementary(lua_CFunction f);
int ad_iscomparison(lua_CFunction f);
void ad_recordfail(const State *S, const char *why);
void ad_recorddoubt(const State *S);
void ad_recordclose(lua_State *L, State *S);
void ad_loophere(lua_State *L, State *S);
void ad_recordopaque(const State *S);
int ad_recordgrad(const State *S);
/* calls.c, likewise */
void ad_recordread(lua_State *L, State *S, int idx);
int ad_recordelements(lua_State *L, State *S, int idx);
void ad_recordview(lua_State *L, State *S, int idx);
int ad_recordwrite(lua_State *L, State *S, int idx);
void ad_opencompile(lua_State *L, State *S);

/* series.c */
val ad_series(lua_State *L, State *S, int op, int n, const Arg *a,
              uint64_t key);

/* elem.c */
void ad_openelem(lua_State *L, State *S); /* into the table on the top */

/* tree.c */
typedef void (*ad_Leaf)(lua_State *L, State *S, void *ud, int numeric);
#define AD_OBJECTS 0x100
void ad_tree(lua_State *L, State *S, int nin, int nout, ad_Leaf leaf, void *ud,
             const char *fname);
int ad_isleaf(lua_State *L, const State *S, int idx);
void ad_strip(lua_State *L, State *S, uint64_t key); /* the top, in place */

/* sweep.c */
typedef struct Sweep {
  Level *lv;
  double *x;       /* cotangent or tangent of each node while all are numbers */
  uint32_t stride; /* numbers per node: with duals, 1 + directions */
  uint32_t lo, size; /* nodes from and below these have a place */
  int owner;         /* stack index of the level */
  int slot;          /* stack index: what holds x, or the table of the values */
  int general;       /* they are in the table */
  int scratch;       /* x is the level's own */
  int keep;          /* what is found for results of operations stays too */
} Sweep;
/* pushes one slot */
void ad_sweepbegin(lua_State *L, Sweep *w, Level *lv, int owner);
/* the same; only the nodes lo .. hi-1 are 0, and only they may occur */
void ad_sweeprange(lua_State *L, Sweep *w, Level *lv, int owner, uint32_t lo,
                   uint32_t hi);
void ad_sweepadd(lua_State *L, Sweep *w, uint32_t node, val v);
/* the same for a value of the user's */
void ad_sweepseed(lua_State *L, Sweep *w, uint32_t node, val v);
void ad_sweepreverse(lua_State *L, Sweep *w, uint32_t from, uint32_t to);
void ad_sweepforward(lua_State *L, Sweep *w, uint32_t from, uint32_t to);
void ad_sweepget(lua_State *L, const Sweep *w, uint32_t node); /* pushes */
/* pushes the partial derivative by the operand of entry number j of a node:
   of what the tape has saved, at the top */
val ad_sweeppartial(lua_State *L, State *S, uint32_t j);
void ad_sweepclear(lua_State *L, Sweep *w, uint32_t node);
void ad_sweepend(Sweep *w);
void ad_sweepguard(lua_State *L, Level *lv); /* pushes one slot */
uint32_t ad_addcall(lua_State *L, Level *lv, int ninput, const uint32_t *input,
                    uint32_t nout, int handler);

/* scope.c */
Level *ad_spanhere(const State *S, const Level *lv);
void ad_rerun(lua_State *L, Level *lv, int slot);
void ad_forget(lua_State *L, Level *t, uint32_t entry, uint32_t call, int list);
int ad_results(lua_State *L, int status, lua_KContext ctx);
int ad_pausetape(lua_State *L, Level *lv);
void ad_openscope(lua_State *L, State *S);

/* transform.c, graph.c, tapelib.c, custom.c */
void ad_opentransform(lua_State *L, State *S);
void ad_pushgrad(lua_State *L, int n, const unsigned char *arg);
int ad_isgrad(lua_State *L, int idx, int *value, int *n, unsigned char *arg);
void ad_openjacobian(lua_State *L, State *S);
void ad_wrapvar(lua_State *L, State *S, Level *lv, int idx, const char *fname);
void ad_partof(lua_State *L, State *S, uint64_t key, int k); /* the top */
void ad_keeptape(lua_State *L, Level *lv, int slot);
const char *ad_described(lua_State *L, int idx);
void ad_opengraph(lua_State *L, State *S);
void ad_opentape(lua_State *L, State *S);
void ad_compact(lua_State *L, Level *lv);
void ad_trimgraph(lua_State *L, Level *lv, int collect, int all);
void ad_deeper(lua_State *L, Level *lv, const Arg *a);
int ad_nodeof(lua_State *L, State *S, uint64_t key, uint32_t *node);
void ad_opencustom(lua_State *L, State *S);
void ad_openinterrupt(lua_State *L);
void ad_opennlopt(lua_State *L);
void ad_openterminal(lua_State *L);

int ad_error(lua_State *L, const char *fmt, ...);
int ad_userplace(lua_State *L, lua_Debug *ar);
int ad_iscallable(lua_State *L, int idx);
void ad_checkcallable(lua_State *L, int arg);

#endif
