/*
** program.h
** A program: what a function of numbers does, as a tree of traces with
** loops. Plain C over an allocator; knows nothing of Lua.
**
** There are two forms. A 'Prog' is what the recorder writes, one instruction
** for each operation asked for, in static single assignment; it only grows.
** A 'Code' is made from it by ad_lower (optimised, on slots that are used
** again and again), never changes, and is what back ends, batches, and the
** export to C read. Both consist of blocks of the same instructions:
**
**          op     flags    d        a        b        c
**      |  16   |   16   |  32   |   32   |   32   |   32   |     20 bytes
**
**      op < OP_count     d = op(a, b, c), a row of ops.h
**      OP_list_...       d = op over b operands: list[a] .. list[a + b - 1]
**                        (of 'dot' the first half with the second)
**      P_...             see below
**
** Values are numbers, or arrays, which nothing here looks into: those have
** P_ARRAY set where they are made. What is done with them is calls:
**
**      P_CALL      number c of what can be called, with list[a] .. list[a+b-1];
**                  its value is the first result
**      P_RESULT    (Prog only) result b of the call a, which precedes it
**      P_KARRAY    (Prog only) array constant number a
**
** In a Prog operands are 'references': the index of the instruction that
** makes the value, or P_K + index of a constant; d is not used, but in P_PHI.
** In a Code d and operands are slots.
**
** A block is a straight run of instructions, first .. last-1, and an end:
**
**      P_GOTO      to block 'yes'
**      P_IF        a 'cmp' b holds: block 'yes', else 'no'
**      P_RETURN    results: list[a] .. list[a + b - 1], in number 'set'
**      P_OPEN      (Prog only) nothing has been recorded yet
**
** yes or no is P_NONE where nobody has been yet: there the run ends ("miss")
** and the recorder takes over. A comparison with NaN is false; P_SAME
** compares bits. Every block has one predecessor, which has a lower index,
** except the head of a loop, which in addition has P_GOTOs from blocks behind
** it: so blocks in the order of their indices are in topological order but
** for these jumps back.
**
**      block 0         block 1 = head          block 2
**     +-----------+   +--------------------+  +-----------------+
**     | x = input |   | p = phi            |  | q = mul p x     |
**     | goto 1 (x)|-->| if p < 100 : 2 : 3 |->| goto 1 (q)      |--> 1
**     +-----------+   +--------------------+  +-----------------+
**                               |               loop = 1
**                               +------------>+-----------------+
**                                             | return p        |
**                                             +-----------------+
**
** In a Prog a loop's head begins with its P_PHIs, and each P_GOTO to it has
** their new values, list[a] .. list[a + b - 1], all assigned at once. A use of
** a value that is made in a loop means the one made last: a register of a
** machine, written again in each round. In a Code there are no phis but P_MOVs
** at the end of the blocks that go there.
**
** A run of a Code works in a frame of 'nslot' doubles:
**
**      | constants | inputs | values            |
**      0           nconst   nconst + nin        nslot
**
** The first three constants are always 1.0, -1.0, -0.0, with which v*1 + w and
** v*w + -0.0 make sums and products out of one operation.
**
** Constants and inputs are never written to, and so are set only when they
** change (ad_frameconstants once). After a run the results are in the slots
** that the list of its P_RETURN names. Slots of values are used again within a
** block as soon as nobody reads them any more; a value that another block
** reads, or that is a result, has P_KEEP set where it is made: a back end that
** keeps values in registers must have it in its slot when the block ends, and
** need not for others.
**
** Arrays have slots of their own, which in lists are marked by P_A:
**
**      | inputs | constants | values               |
**      0        nain        nain + nakon           narray
**
** A slot of a value is either for results that are written into the memory
** that the slot has, asize[slot] elements of it, or (0) for those that come as
** they are. These may share the memory of an operand of their call, which
** therefore is as long alive as they are. In the list of a P_CALL the slots of
** the operands are followed by the number of results and their slots, P_NONE
** where nobody wants one. A call of number P_NONE is an assignment.
*/
#ifndef ad_program_h
#define ad_program_h

#include <stddef.h>
#include <stdint.h>

#include "kernel.h"
#include "tape.h" /* ad_Alloc */

#define P_K 0x80000000u    /* a reference to a constant */
#define P_NONE 0xffffffffu /* no reference, no block */
#define P_MAXINS 0x7ffffff0u

/* operations beside those of kernel.h */
enum {
  P_INPUT = OP_count, /* Prog: input number a */
  P_PHI,              /* Prog: number a of its loop */
  P_MOV,              /* d = a */
  P_ROOT,             /* d = a^0.5: sqrt(a + 0.0), but inf for -inf */
  P_PUSH,             /* a onto the frame's stack (d is not used) */
  P_POP,              /* d = top of the stack, which is removed */
  P_COUNT,
  P_CALL = P_COUNT + 32, /* of arrays: see above */
  P_RESULT,
  P_KARRAY
};

/* flags of an instruction */
#define P_KEEP 1  /* Code: in its slot at the end of the block */
#define P_ARRAY 2 /* the value is an array */

#define P_A 0x80000000u /* Code: the slot of an array */

/* ends of blocks, and comparisons */
enum { P_OPEN, P_GOTO, P_IF, P_RETURN };
enum { P_LT, P_LE, P_EQ, P_SAME };

typedef struct Ins {
  uint16_t op, flags;
  uint32_t d, a, b, c;
} Ins;

typedef struct Block {
  uint32_t first, last; /* instructions */
  uint8_t end, cmp;
  uint16_t place; /* 1 + number of the place in the source, or 0 */
  uint32_t a, b;
  uint32_t yes, no;
  uint32_t set;    /* P_RETURN: number of the form of the results */
  uint32_t loop;   /* Code: head of the innermost loop it is in, or P_NONE */
  uint32_t parent; /* the predecessor that is no jump back; of 0: P_NONE */
} Block;

/* number of operands that are references; OP_list_...: 0, see 'list' */
int ad_insarity(int op);
const char *ad_insname(int op);

static inline int ad_islist(int op) {
  return op < OP_count && ad_opinfo[op].arity == 0;
}

/*
** Code
*/

typedef struct Code {
  ad_Alloc alloc;
  void *ud;
  uint32_t nconst, nin, nslot;
  uint32_t nins, nblock, nlist;
  uint32_t capins, caplist;
  uint32_t maxlist; /* longest list of operands of an instruction */
  uint8_t loops;    /* has jumps back */
  uint8_t stack;    /* has P_PUSH */
  uint8_t relaxed;  /* P_RELAX made a difference */
  uint8_t fused;    /* products need not be rounded before a sum */
  double *constant;
  Ins *ins;
  Block *block;
  uint32_t *list;
  /* arrays: slots, inputs, constants; the number of the array constant in each
     of the latter's slots */
  uint32_t narray, nain, nakon, capsize;
  uint32_t *akon;
  size_t *asize; /* capsize of them */
  uint32_t ncall;
} Code;

/* has it to do with arrays? Most of what there is to do with programs cannot
   be done with such */
static inline int ad_hasarrays(const Code *c) {
  return c->narray > 0 || c->ncall > 0;
}

void ad_codefree(Code *c);
size_t ad_codebytes(const Code *c);
/* user[i] = 1 + the instruction of its block that alone reads what i makes, 0
   or UINT32_MAX if there is none; 'work' has nslot of them, all 0 */
void ad_codeusers(const Code *c, uint32_t *user, uint32_t *work);

/*
** Frames. The inputs are to be put at frame->v + code->nconst.
*/
typedef struct Frame {
  ad_Alloc alloc;
  void *ud;
  double *v;       /* nslot of them, aligned to 64 bytes */
  double *scratch; /* maxlist of them: operands of a list operation */
  double *stack;   /* of P_PUSH */
  size_t nstack, capstack;
  size_t maxstack; /* bound on capstack */
  double *spill;   /* of back ends that need more than v, see ad_framespill */
  size_t capspill;
  void *mem; /* what v and scratch are in */
  size_t size;
  void (*call)(void *ud, const Ins *x); /* does a P_CALL; may not return */
  void *callud;
} Frame;

/* 0, or the bytes that could not be had. Constants are in place then. */
size_t ad_frameinit(Frame *f, const Code *c, ad_Alloc alloc, void *ud,
                    size_t maxstack);
void ad_framefree(Frame *f);
int ad_framepush(Frame *f, double x);  /* 0: no room */
int ad_framespill(Frame *f, size_t n); /* makes it that large; 0: no room */

/*
** Back ends. A back end turns a Code into something that runs it. To run is
** to set the inputs in the frame, call 'run', and look at what comes back:
** the number of the block whose end ended the run. If that is a P_RETURN, its
** results are in the frame; if it is a P_IF, the run missed: nobody has been
** on the side where its comparison leads. P_FULL: the frame's stack had no
** more room; nothing is known then.
*/
#define P_FULL 0xfffffffeu

typedef struct Backend {
  const char *name; /* for c:stats() */
  /* NULL if it cannot, and then *why a reason (a constant string) or, when
     only memory was lacking, NULL. The Code outlives what is made of it. */
  void *(*make)(const Code *c, const char **why);
  uint32_t (*run)(void *self, Frame *f);
  void (*free)(void *self);
  size_t (*bytes)(const void *self);
} Backend;

extern const Backend ad_interpreter; /* interpret.c */

/*
** Machine code, on x86-64: native.c. On other machines 'make' gives NULL with
** the reason. It looks anew each time what the CPU has, which under a
** hypervisor can take longer than to compile a small program; who compiles
** often asks once, and passes that (or less, for tests) to ad_nativemake.
*/
extern const Backend ad_native;
int ad_nativefeatures(void);
void *ad_nativemake(const Code *c, int features, const char **why);
/* "native (x86-64, AVX)", for c:stats() */
const char *ad_nativename(const void *self);

/*
** How the n numbers that a P_RETURN lists become results: result j is number
** from[j] of them, or, where that is P_NONE, the constant value[j].
*/
typedef struct Returned {
  uint32_t n;
  const uint32_t *from;
  const double *value;
} Returned;

/* one operation on doubles: what every back end must agree with */
double ad_insvalue(int op, const double *x);
int ad_compare(int cmp, double a, double b);

/*
** Prog
*/

typedef struct Prog {
  ad_Alloc alloc;
  void *ud;
  uint32_t nin;
  uint32_t nins, capins;
  uint32_t nblock, capblock;
  uint32_t nlist, caplist;
  uint32_t nconst, capconst;
  uint32_t capmap; /* constants by their bits: open addressing */
  Ins *ins;
  Block *block;
  uint32_t *list;
  double *constant;
  uint32_t *map;
  /* the elements that the memory for the first result of a call has to have;
     0: it comes as it is */
  size_t (*callsize)(const void *ud, uint32_t call);
  const void *callud;
  uint32_t ntrace; /* P_RETURNs */
  /* the recording that is going on */
  uint32_t here, at;     /* block, and the next instruction in it */
  uint32_t ins0, block0; /* what there was when it began */
  uint32_t list0;
  uint8_t state; /* P_IDLE, ... */
} Prog;

enum { P_IDLE, P_FOLLOW, P_APPEND };

/* results of the functions below that are no references */
#define P_NOMEM 0xffffffffu   /* out of memory: nothing has happened */
#define P_DIFFERS 0xfffffffdu /* it did something else than it did before */

/* 0 for lack of memory. A program with 'nin' inputs, references 0 .. nin-1 */
int ad_proginit(Prog *p, ad_Alloc alloc, void *ud, uint32_t nin);
void ad_progfree(Prog *p);
size_t ad_progbytes(const Prog *p);

/* room for more; 0: there is none */
int ad_progroom(Prog *p, uint32_t nins, uint32_t nblock, uint32_t nlist);

/* reference to a constant, or P_NOMEM */
uint32_t ad_progconst(Prog *p, double x);

static inline double ad_progvalue(const Prog *p, uint32_t ref) {
  return p->constant[ref & ~P_K];
}

/*
** A recording: the function runs from its start. As long as it does what it
** did before the program is followed; where it takes a side that is open, it
** is written on. What is appended becomes part of the program only by
** ad_recreturn; ad_recabort forgets it.
*/
void ad_recstart(Prog *p);
uint32_t ad_recop(Prog *p, int op, uint32_t a, uint32_t b, uint32_t c);
uint32_t ad_reclist(Prog *p, int op, uint32_t n, const uint32_t *x);
/* 'array': P_ARRAY, or 0 where the first result is a number */
uint32_t ad_reccall(Prog *p, uint32_t call, uint32_t n, const uint32_t *x,
                    int array);
uint32_t ad_recresult(Prog *p, uint32_t made, uint32_t k, int array);
uint32_t ad_reckarray(Prog *p, uint32_t k);
/* the comparison was seen to be 'holds': 0, P_NOMEM or P_DIFFERS */
uint32_t ad_recif(Prog *p, int cmp, uint32_t a, uint32_t b, int holds,
                  uint32_t place);
/* a value was seen to be exactly x */
uint32_t ad_recsame(Prog *p, uint32_t a, double x, uint32_t place);
/* a loop begins, whose values start from init: 'here' is then its head, and the
   first n instructions of that are the values */
uint32_t ad_recenter(Prog *p, uint32_t n, const uint32_t *init);
/* back to a head, with these values; on from there */
uint32_t ad_recagain(Prog *p, uint32_t head, uint32_t n, const uint32_t *x);
uint32_t ad_recreturn(Prog *p, uint32_t set, uint32_t n, const uint32_t *x);
void ad_recabort(Prog *p);

/* loop[k]: the head of the innermost loop that block k is in, or P_NONE; a head
   that nobody comes back to has none */
void ad_progloops(const Prog *p, uint32_t *loop);

/*
** The gradient: q has the blocks of p and returns its results (of which the
** first is differentiated) and then the derivatives by the inputs want[0] ..
** want[nwant - 1]. With room = 0 it keeps on the stack what it needs of each
** round of a loop; else it makes do with so many doubles of stack, and computes
** rounds once more.
*/
enum { P_GDONE, P_GNOMEM, P_GCANNOT };

int ad_progadjoint(const Prog *p, Prog *q, uint32_t nwant, const uint32_t *want,
                   size_t room);

/*
** Optimises and lowers. 0 for lack of memory. 'options' is a set of
*/
#define P_FAST 1  /* may round otherwise: see regroup.c */
#define P_PLAIN 2 /* do not optimise at all (for tests) */
#define P_RELAX                                                                \
  4 /* cmul and cadd may be NaN where an exact 0 meets inf or NaN */

int ad_lower(const Prog *p, Code *c, int options);

#endif
