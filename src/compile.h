/*
** compile.h
** The userdata that ad.compile gives, for the files that add methods to it.
*/
#ifndef ad_compile_h
#define ad_compile_h

#include "array.h"
#include "batch.h"
#include "program.h"

/*
** The form of arguments or results, as a string of words:
**
**      F_NUM                 a number: the next leaf
**      F_INT                 (results) the same, and it is an integer
**      F_CONST k             what is at index k of the constants
**      F_TABLE meta seq all item    values 1 .. seq, and then 'item' times
**                            a key (index of a constant) and its value; 'meta'
**                            is the index of the metatable or 0. If 'all', the
**                            values 1 .. seq are numbers, and no words follow.
**      F_ARRAY ndim len ..   an array: the next leaf; of each length the low and
**                            the high word; of results ndim is 0
*/
enum { F_NUM, F_CONST, F_TABLE, F_ARRAY, F_INT };

#define F_ISLEAF(word) ((word) == F_NUM || (word) == F_INT)

typedef struct Form {
  uint32_t *word;
  uint32_t n, cap;
  uint32_t nval;   /* values: arguments, or results */
  uint32_t nleaf;  /* numbers, and arrays, in them */
  uint32_t narray; /* arrays */
  uint8_t numbers; /* each value is a number */
} Form;

/*
** What a P_CALL does. The table that 'described' refers to has for number k of
** these at 2k + 1 a function of Lua, and at 2k + 2 its first argument; and the
** number by what it is, as a string.
*/
enum {
  C_ELEMENT,  /* operation 'op' of ops.h, into memory of the program's */
  C_FUNCTION, /* the function of Lua */
  C_SAME      /* 1 if two arrays are the same to the bit, else 0 */
};

typedef struct Called {
  uint8_t kind, op;
  uint8_t listed;   /* the operands come as a list ... */
  uint8_t together; /* ... and so do the results */
  uint32_t nresult;
  Shape *shape; /* of each result; ndim 0: a number */
  char name[24];
  size_t size; /* C_ELEMENT: of the result, and at least 1 */
} Called;

enum { C_AUTO, C_INTERPRETER, C_NATIVE }; /* option "backend" */

/* what map has run: nothing yet, f itself, vector kernels, machine code */
enum { C_UNMAPPED, C_BYROW, C_KERNELS, C_VECTORS };

/* what was recorded for arguments of one form */
typedef struct Root {
  Form in;
  Prog prog, adjoint; /* the latter while code is made */
  Code code, exact;   /* the latter where the former may not be trusted */
  Frame frame, exactframe;
  const Backend *backend;
  void *made, *exactmade;
  uint8_t hascode, hasexact;
  uint8_t *sub;      /* by leaf: the subtype of the number matters (1 float, 2
                      integer) */
  double *given;     /* by leaf: what it was in the recording */
  uint8_t *isint;    /* ... and whether that was an integer */
  uint8_t subs;      /* the subtype of some number matters */
  uint32_t news;     /* traces that the code does not have */
  uint32_t misses;   /* since it was made */
  uint32_t runs;     /* ... and runs */
  uint32_t pays;     /* after how many runs machine code pays; 0: never */
  uint8_t fixedints; /* integers are constants */
  uint8_t recompute; /* of a gradient: rounds of loops, see ad_progadjoint */
  /* of map: the code for many points, which of its inputs are shared, and how
     many points it was run for */
  Batch batch;
  uint8_t *shared;
  uint64_t points;
  uint8_t hasbatch, novectors; /* no machine code can be had for it */
  uint8_t kernels;             /* they were measured, and are faster than it */
  uint32_t measured;           /* when there were so many instructions */
  /* of a gradient: which inputs, and the forms of results by 'set' */
  uint32_t *want, nwant, capwant;
  Form *grad;
  uint32_t ngrad, capgrad;
  /* arrays (calls.c): references to the registry: tables of what is in the
     slots, from 1; of the constants, with their numbers by themselves; and,
     weak, of arrays that f has read as they are; 0: none */
  int slots, konstants, read;
  uint32_t nkonst, nlook; /* constants; guards on what is in arrays */
  uint64_t writes; /* S->writes when none of the latter had been written to */
  Array **array;   /* by slot: what is there ... */
  Array **memory;  /* ... and what belongs to the program */
  uint32_t narray;
} Root;

/* functions of Lua's own that watch.c knows */
enum { AD_NLIBRARY = 20 };

typedef struct Recorder {
  Root *root;
  Level *lv;
  uint64_t key;
  const char *failed; /* why there is nothing to keep of it */
  lua_State *thread;
  const void *frame; /* of who has called f */
  uint32_t epoch;    /* rounds of loops so far */
  int looped;
  int arrays;       /* there are some in what is recorded */
  int inside;       /* in an operation that is recorded */
  const void *read; /* the array that was last added to those read */
  uint64_t writes;  /* S->writes when it began */
  int doubt;        /* f did what nobody watches: see verify */
  int order;        /* the keys of its arguments come in another order */
  int given;        /* are there integers among its arguments? */
  int stopped;      /* the collector: see ad_recscrub */
  int kilobytes;    /* in use when it has last run */
  uint32_t made;    /* values since then */
  uint8_t watched;  /* see watch.c */
  uint8_t counters; /* there are some: see counters.c */
  uint8_t blamed;   /* it has failed, as one of them is of no use */
  int forloop;      /* the FORLOOP that is running: its register */
  lua_CFunction library[AD_NLIBRARY];
} Recorder;

#define AD_SCRUBBED 250 /* registers that a function of Lua may have */

/*
** loops.c: a guard that f comes to, and what it was like the last times.
** 'loose' is a hash that leaves out the plain numbers in variables, which are
** number[from[k]] .. of the Compiled.
*/
typedef struct LoopPlace {
  uint64_t key;
  uint64_t hash[4], loose[4]; /* several guards can be in one line */
  uint32_t from[4], numbers[4];
  uint32_t n[4], count, misses;
} LoopPlace;

/* a plain number in a variable, at a guard, or a counter there */
typedef struct Number {
  uint64_t variable; /* which it is in, as far as that can be told */
  union {
    int64_t i;
    double x;
    uint64_t bits;
  } u;
  uint8_t isint, kind, differs, counter;
} Number;

/* a loop that the recording is in, or has been in */
typedef struct Loop {
  uint64_t key, hash;
  uint32_t n, head, first; /* its phis are the references first .. */
  uint32_t epoch;          /* when its last round began */
  uint32_t saved, nsaved;  /* the places as they were when it began */
  uint64_t blind;          /* a hash to which counters are numbers */
  uint32_t from, numbers;  /* those that it began with */
  uint32_t nnumber;        /* of all */
} Loop;

/*
** counters.c: a numeric 'for' whose index is a counter. Lua has the plain
** numbers in its registers; what they are in the program is here.
*/
typedef struct ForLoop {
  const void *frame;
  int reg; /* of the first of the three '(for state)' */
  uint8_t isint, fresh;
  uint32_t index, left; /* references: the index, rounds left (of integers) */
  Number from, rounds;  /* what they are in this recording */
} ForLoop;

/* the phi that a counter came from, and what is known of such variables */
typedef struct Counter {
  uint64_t variable;
  uint32_t ref;
} Counter;

typedef struct Blame {
  uint64_t variable;
  uint32_t now, total; /* looks: in this recording, recordings with some */
} Blame;

typedef struct Compiled {
  State *S;
  Root **root; /* the one used last first */
  uint32_t nroot, caproot;
  Form *set; /* forms of results */
  uint32_t nset, capset;
  uint32_t nconst;     /* in user value 2 */
  struct Place *place; /* of guards */
  uint32_t nplace, capplace;
  uint32_t traces, maxtraces;
  uint64_t maxoperations;
  size_t maxstack;
  int options;     /* for ad_lower */
  uint8_t backend; /* which to use: C_AUTO, ... */
  uint8_t mapped;  /* by the last map: C_UNMAPPED, ... */
  int fixedints;
  uint32_t poisoned;
  const char *nonative; /* why there is no machine code */
  const char *eager;    /* why f itself is called from now on, or NULL */
  uint64_t calls, retraces, eagercalls;
  double seconds; /* spent in lowering and making code */
  Recorder rec;
  LoopPlace *loopplace, *saved;
  uint32_t nloopplace, caploopplace, nsaved, capsaved;
  Loop *loop;
  uint32_t nloop, caploop;
  uint32_t *entry; /* scratch: recorded values of a state */
  uint32_t capentry;
  Number *number; /* of the places */
  uint32_t nnumber, capnumber;
  ForLoop *forloop;
  uint32_t nforloop, capforloop;
  Counter *counter;
  uint32_t ncounter, capcounter;
  Blame *blame;
  uint32_t nblame, capblame;
  uint8_t noloops, nocounters;
  uint8_t anew;     /* what is there was recorded with counters of no use */
  int stored;       /* it was loaded: there is no f */
  int loopfailures; /* of recordings with loops */
  int full;         /* the stack was too small for a gradient that recomputes */
  int verifying; /* f runs, to be compared: the slot that tells when it ends */
  double noise;  /* differences that are no more than this do not count */
  /* f is a gradient: its function is recorded, the derivative is the
     program's; as long as that can be done */
  int isgrad, gradvalue, gradn;
  Called *called; /* what calls do */
  uint32_t ncalled, capcalled;
  int described;  /* reference to the registry, see above; 0: none */
  int running;    /* a program with calls: it cannot be entered again */
  uint8_t busy;   /* a call is where a finalizer must not enter */
  uint32_t stale; /* how often an array was written to that f had read */
  int notscalar;  /* f's result is not one number: see taped */
  unsigned char gradarg[250];
} Compiled;

static inline Compiled *ad_compiling(const State *S) {
  return (Compiled *)(void *)((char *)S->recorder - offsetof(Compiled, rec));
}

static inline Prog *ad_recprog(const State *S) {
  return &S->recorder->root->prog;
}

/* a step of the recording, as often as memory is lacking */
#define AD_UNTIL(r, call)                                                      \
  while (((r) = (call)) == P_NOMEM) ad_recnomem(L, S)

/*
** A recorded value has its epoch, and what is known of it, in 'leaf':
** REC_COUNTER: plain f has a plain number there; REC_INT: an integer;
** REC_FRESH: it has just become one (loops.c).
*/
#define REC_COUNTER 0x80000000u
#define REC_INT 0x40000000u
#define REC_FRESH 0x20000000u
#define REC_EPOCH 0x1fffffffu

static inline int ad_iscounter(const State *S, const Cell *c) {
  return c->stamp == ad_stamp(S, S->recorder->key, AD_RECN) &&
         c->u.var.leaf & REC_COUNTER;
}

/* of the recorded value at the top */
static inline void ad_flag(lua_State *L, uint32_t flags) {
  ((Cell *)lua_touserdata(L, -1))->u.var.leaf |= flags;
}

/*
** record.c
*/
#define AD_OPAQUE "f is not what its derivative is computed from"
void ad_stopcollector(lua_State *L, Recorder *r);
void ad_startcollector(lua_State *L, Recorder *r);
void ad_recnomem(lua_State *L, State *S);
uint32_t ad_recref(lua_State *L, State *S, val v, double *x);
int ad_recwent(lua_State *L, State *S, uint32_t r);
val ad_pushrecorded(lua_State *L, State *S, double x, uint32_t ref);
void ad_recscrub(lua_State *L, State *S);
void ad_recordsubtypes(State *S);
int ad_recplain(const State *S, const Cell *c);

/*
** form.c
*/
#define AD_MAXFORM 150 /* depth of structures; each level takes a few slots */

/* takes values apart, and writes their form */
typedef struct Taker {
  Compiled *c;
  int self;
  Form *form;
  int fixedints; /* of arguments: integers are constants */
  int results;   /* else arguments */
  uint32_t *ref; /* of results: references, 'cap' of them on the stack */
  uint32_t cap;
  int slot;     /* stack index of what holds 'ref' */
  int foreign;  /* has an AD value that is not the recorder's */
  int integers; /* has integers that are no constants */
} Taker;

/* 0: no integer; 1: an integer; AD_HUGEINT: one that may not be any float */
#define AD_HUGEINT 2
uint8_t ad_intkind(lua_State *L, int idx);
void ad_formfree(lua_State *L, Form *f);
void ad_formword(lua_State *L, Form *f, uint32_t w);
/* the index among the constants of the value at the top, which is popped */
uint32_t ad_formconst(lua_State *L, Compiled *c, int self);
int ad_isresource(lua_State *L, int idx);
void ad_formtake(lua_State *L, Taker *t, int depth);
int ad_formmatch(lua_State *L, const State *S, int consts, const Form *f,
                 uint32_t *at, uint32_t *leaf, double *in, int idx);
uint8_t ad_allnumbers(const Form *f);
void ad_pushvalues(lua_State *L, int self, Root *r, const Form *f,
                   const double *x, const uint32_t *out, State *S);

/* pushes the values of a form; leaf k is x[out[k]], or x[k] for lack of 'out' */
void ad_pushform(lua_State *L, int self, const Form *f, const double *x,
                 const uint32_t *out);

/* behind the words of one value at 'at'; adds the leaves in it to *leaf */
uint32_t ad_formskip(const Form *f, uint32_t at, uint32_t *leaf);

/*
** root.c
*/
Root *ad_newroot(lua_State *L, Compiled *c, int self, int first, int last,
                 int fixedints);
void ad_dropcode(Root *r);
void ad_droproot(lua_State *L, Compiled *c, Root *r);
int ad_compiledgc(lua_State *L);
int ad_rootmatches(lua_State *L, const State *S, Root *r, int self, int first,
                   int last, double *in);
int ad_rootintegers(lua_State *L, Root *r, int self, int first);
void ad_tonative(Compiled *c, Root *r);
double ad_seconds(void);

/*
** The root for the arguments at first .. last, its inputs in 'in' (nleaf of
** them; NULL: in its frame); NULL if there is none yet.
*/
Root *ad_rootof(lua_State *L, Compiled *c, int self, int first, int last);

/* the root's arguments, as the last ad_rootof found them */
double *ad_rootinputs(Root *r);

/* brings the code of a root up to date; raises an error for lack of memory.
   0: the derivative cannot be had from the program (see callslow) */
int ad_rootcode(lua_State *L, Compiled *c, Root *r);

/*
** The code for the points that are to be run, with machine code if that pays
** for them and those before, for which it may run some of them. NULL: no memory.
*/
const Batch *ad_rootbatch(Compiled *c, Root *r, const uint8_t *shared,
                          const BatchRun *run);

/* makes the exact form of the code, for where it has come to a NaN */
void ad_rootexact(lua_State *L, Compiled *c, Root *r);

/* loops.c */
int ad_isstale(const State *S, const Cell *cell);

/* calls.c */
val ad_recordelement(lua_State *L, State *S, int op, int n, const Arg *a);
val ad_pushrecordedarray(lua_State *L, State *S, int idx, uint32_t ref);
uint32_t ad_konstarray(lua_State *L, State *S, int idx);
void ad_callfree(lua_State *L, Compiled *c);
void ad_arraysfree(lua_State *L, Root *r);
void ad_arraysdrop(Root *r);               /* what belongs to its code */
void ad_arraysidle(lua_State *L, Root *r); /* ... until it runs again */
/* was the array made by the recording, or the view of it? a reference to it, or
   to a copy */
int ad_madehere(lua_State *L, const State *S, int idx, int view);
uint32_t ad_recordcopy(lua_State *L, State *S, int idx);
void ad_addcalled(luaL_Buffer *b, const Called *d);
size_t ad_callsize(const void *ud, uint32_t call);
/* has f, whose recording ends, done with arrays what it must not? */
void ad_recordarrays(lua_State *L, State *S);
int ad_unwritten(lua_State *L, State *S, Root *r);
/* pushes the table of the slots */
void ad_pushslots(lua_State *L, Root *r);
uint32_t ad_runcalls(lua_State *L, Compiled *c, Root *r, int n);
/* compile.c: the arrays among the arguments, at 2 .., go to the slots; pushes
   the results of the block where a run has ended */
void ad_callarguments(lua_State *L, Root *r);
int ad_callresults(lua_State *L, Compiled *c, Root *r, const Block *b);
/* array number 'leaf' of the arguments */
void ad_putarray(lua_State *L, Root *r, int slots, uint32_t k, int idx);
void ad_forgetarguments(lua_State *L, Root *r);
/* pushes the array of a slot, for who gets the results */
void ad_takearray(lua_State *L, Root *r, int slots, uint32_t slot);
/* does it take, make or return arrays? Then only a run knows how. */
int ad_rootarrays(const Root *r);
/* raises the error that 'what' cannot be done with arrays, if there are any */
void ad_refusearrays(lua_State *L, const Root *r, const char *what);

/* counters.c */
int ad_countersbegin(lua_State *L, State *S);
void ad_countersreset(Compiled *c);
void ad_countersend(Compiled *c);
void ad_countersfree(lua_State *L, Compiled *c);
int ad_isblamed(const Compiled *c, uint64_t variable);
Number *ad_addnumber(lua_State *L, Compiled *c);
void ad_addcounter(lua_State *L, Compiled *c, uint64_t variable, uint32_t ref);
void ad_blamecounter(lua_State *L, State *S, uint32_t ref);
void ad_giveup(lua_State *L, State *S, const char *why);
ForLoop *ad_findfor(Compiled *c, const void *frame, int reg);
ForLoop *ad_addfor(lua_State *L, Compiled *c);
void ad_dropfor(Compiled *c, const void *frame, int reg);
int ad_fornumbers(lua_State *L, const lua_Debug *ar, int reg, Number n[3]);
int ad_foragrees(const ForLoop *f, const Number n[3]);
int ad_forloop(lua_State *L, State *S, lua_Debug *ar, int reg);
int ad_pushindex(lua_State *L, State *S, const void *frame, int reg);

/* watch.c */
int ad_watchable(lua_State *L, const State *S);
int ad_canwatch(lua_State *L, State *S);
const void *ad_watchplace(const State *S, const lua_Debug *ar);
int ad_watchgarbage(const State *S, const lua_Debug *ar, int reg);
void ad_watchready(lua_State *L, Recorder *r);
void ad_watchbegin(lua_State *L, State *S);
void ad_watchend(lua_State *L, State *S);

typedef struct Place {
  int line;
  char source[LUA_IDSIZE];
} Place;

/* user values of the userdata */
enum {
  AD_CF = 1, /* what was compiled */
  AD_CCONST, /* constants of forms, by index ... */
  AD_CINDEX, /* ... and their indices */
  AD_CINNER, /* of a gradient: the function */
  AD_CGRAD,  /* gradients, compiled, by the arguments: see taped */
  AD_CUSERVALUES = AD_CGRAD
};

/*
** For programs that were stored: pushes a compiled function that has recorded
** nothing; gives it forms of results, and a root, into whose 'code' a program
** is to be loaded; then completes the root.
*/
Compiled *ad_newcompiled(lua_State *L, State *S);
void ad_storedset(lua_State *L, Compiled *c, const Form *set);
Root *ad_storedroot(lua_State *L, Compiled *c, const Form *in);
void ad_storedcode(lua_State *L, Compiled *c, Root *r);

/* storelib.c: the same for save; load_program goes to the module's table */
void ad_openstorelib(lua_State *L, State *S);
int ad_loadprogram(lua_State *L);

/* sparselib.c: jacobian and hessian */
void ad_opensparselib(lua_State *L, State *S);

Compiled *ad_tocompiled(lua_State *L, int arg);

/*
** The form of the results of a set; result k is number order[k] of what the
** code returns. NULL if f itself has to be called. 'order' has room for as
** many as that is.
*/
const Form *ad_rootresults(lua_State *L, Compiled *c, int self, Root *r,
                           uint32_t set, uint32_t *order);

/* compilelib.c: adds methods to the table at the top */
void ad_opencompilelib(lua_State *L, State *S);

#endif
