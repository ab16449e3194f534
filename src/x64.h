/*
** x64.h
** An assembler for the part of x86-64 that programs of doubles need, and the
** translation of a Code with it. Both only write bytes, so that every machine
** can build them; to run them is the business of native.c.
**
** The translation makes one function of a Code,
**
**      uint32_t f(double *v, double *spill, Frame *f, const Helper *table)
**
** that does what the run of a back end does: v is the frame's v, spill has
** room for as many doubles as the translation says, and table is what
** ad_helpers gives. In memory, from a multiple of 16 bytes:
**
**      | pool: pairs of equal doubles | code                          |
**      0                              entry                           n
*/
#ifndef ad_x64_h
#define ad_x64_h

#include "program.h"

/* what a CPU has; each includes those before it, but SSE2 is always there */
#define X_SSE41 1
#define X_AVX 2
#define X_FMA 4

typedef struct Asm {
  ad_Alloc alloc;
  void *ud;
  uint8_t *code;
  size_t n, cap;
  int features;
  int wide;   /* AVX's vectors of four doubles instead of one */
  int failed; /* no memory: what was written since is lost */
  /* where instructions begin, if 'record' (for tests) */
  int record;
  size_t *start;
  size_t nstart, capstart;
} Asm;

int ad_asminit(Asm *s, ad_Alloc alloc, void *ud, int features);
void ad_asmfree(Asm *s);

/* an operand: a register, memory, or a place in the code itself */
enum { A_REG, A_MEM, A_HERE };

typedef struct Arg {
  uint8_t kind, reg; /* of A_MEM the base */
  int32_t at;        /* A_MEM: displacement; A_HERE: number in the pool */
} Arg;

/* general registers, by their numbers */
enum {
  RAX,
  RCX,
  RDX,
  RBX,
  RSP,
  RBP,
  RSI,
  RDI,
  R8,
  R9,
  R10,
  R11,
  R12,
  R13,
  R14,
  R15
};

/*
** Operations on doubles, d = a op arg. With SSE, which writes over its first
** operand, a move goes first where d is not a; d may not be arg's register
** then (unless the operation commutes: that is seen to here).
*/
enum {
  X_ADD = 0x58,
  X_MUL = 0x59,
  X_SUB = 0x5c,
  X_MIN = 0x5d,
  X_DIV = 0x5e,
  X_MAX = 0x5f,
  X_CMP = 0xc2,
  X_AND = 0x54,
  X_ANDN = 0x55,
  X_OR = 0x56,
  X_XOR = 0x57
};
/* comparisons of X_CMP; those that begin with N hold for NaN */
enum { X_EQ, X_LT, X_LE, X_UNORD, X_NEQ, X_NLT, X_NLE };
/* conditions of jumps */
enum {
  X_JB = 0x82,
  X_JAE,
  X_JE,
  X_JNE,
  X_JBE,
  X_JA,
  X_JP = 0x8a,
  X_JNP,
  X_JMP = 0xe9,
  X_CALL = 0xe8
};

void ad_asmop(Asm *s, int op, int d, int a, Arg b);
void ad_asmcmp(Asm *s, int cmp, int d, int a, Arg b);
/* d = a * b + d, or other signs: X_FMADD ...; or with d and b as the factors */
enum { X_FMADD = 0, X_FMSUB = 2, X_FNMADD = 4 };
void ad_asmfma(Asm *s, int kind, int d, int a, Arg b);       /* needs X_FMA */
void ad_asmfmafactor(Asm *s, int kind, int d, int c, Arg b); /* d * b + c */
void ad_asmsqrt(Asm *s, int d, int a);
void ad_asmround(Asm *s, int mode, int d, int a); /* needs X_SSE41 */
void ad_asmmove(Asm *s, int d, int a);
void ad_asmload(Asm *s, int d, Arg b);
void ad_asmspread(Asm *s, int d, Arg b); /* one double to all places */
void ad_asmstore(Asm *s, Arg b, int a);
void ad_asmzeroupper(Asm *s);
void ad_asmcompare(Asm *s, int quiet, int a, Arg b); /* comisd, ucomisd */
void ad_asmbits(Asm *s, int gp, int a);              /* gp = bits of a */

/* general registers, 64 bits */
void ad_asmgp(Asm *s, int opcode, int r, Arg b);
enum {
  X_GADD = 0x03,
  X_GSUB = 0x2b,
  X_GCMP = 0x3b,
  X_GMOV = 0x8b,
  X_GSTORE = 0x89,
  X_GTEST = 0x85
};
void ad_asmaddi(Asm *s, int r, int32_t x);
void ad_asmshl(Asm *s, int r, int bits);
void ad_asmseti(Asm *s, int r, uint32_t x);
void ad_asmpush(Asm *s, int r);
void ad_asmpop(Asm *s, int r);
void ad_asmcall(Asm *s, Arg b); /* the function whose address is there */
void ad_asmret(Asm *s);
void ad_asmmark(Asm *s); /* endbr64: what may be jumped to from outside */
void ad_asmalign(Asm *s, unsigned to);
/* no instruction, but the next of the pool: x, twice, or four times if wide */
void ad_asmpool(Asm *s, double x);
/* writes a jump; its displacement is the four bytes before what is returned */
size_t ad_asmjump(Asm *s, int cond);
void ad_asmland(Asm *s, size_t jump, size_t to);

/*
** The translation. 0 and a reason (or NULL: no memory) if it cannot be done.
*/
typedef struct X64 {
  Asm s;
  size_t entry;
  uint32_t nspill;
} X64;

int ad_x64(X64 *x, const Code *c, int features, int record, const char **why);

/*
** The same for many points at a time, for CPUs with X_AVX. Each block of the
** Code becomes steps; a step is a run of instructions, first .. last - 1, as
** machine code at 'entry'
**
**      void f(double *v, double *spill, double *v0, size_t n)
**
** that takes v = v0 and goes n rounds, of 'points' points each; or, if entry
** is 0, it is the caller's to execute. A slot's numbers, one for each point,
** begin at place[slot] in v, in doubles; or, where that has X_UNIFORM added,
** there is one number there for all of the points. How many points there are
** is the caller's choice, but for room for a multiple of 8: a frame that fits
** the second cache is several times as fast as one that does not.
*/
#define X_UNIFORM 0x80000000u

typedef struct Step {
  uint32_t first, last;
  uint32_t points; /* in each round */
  size_t entry;
} Step;

typedef struct Wide {
  X64 x;
  Step *step;
  uint32_t nstep, capstep;
  uint32_t *of; /* by block: its first step; one more at the end */
  uint32_t nblock;
} Wide;

int ad_x64wide(Wide *w, const Code *c, const uint32_t *place, int features,
               int record, const char **why);
void ad_x64widefree(Wide *w);

/*
** The same, ready to run (native.c): NULL and a reason (or NULL: no memory)
** where that cannot be. 'spill' has to have room for 4 * nspill doubles.
*/
typedef struct Vectors {
  Wide w; /* without the code itself */
  uint8_t *code;
  size_t size;
} Vectors;

Vectors *ad_nativevectors(const Code *c, const uint32_t *place, int features,
                          const char **why);
void ad_nativevectorsfree(Vectors *x);
size_t ad_nativevectorsbytes(const Vectors *x);
/* a step with machine code; computes at least the
   first n points */
void ad_nativevectorsrun(const Vectors *x, const Step *step, double *v,
                         double *spill, size_t n);

typedef void (*Helper)(void);

/* places in the table: of an operation its number, and then */
enum { H_LIST = P_COUNT, H_ROOM, H_SINCOS, H_COUNT };

#endif
