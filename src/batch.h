/*
** batch.h
** A Code run for many points: in blocks of 64 (or, if it needs many slots,
** fewer), with vectors (vmath.h) and, where there is any, machine code, on
** several threads. Plain C; knows nothing of Lua.
**
** A Batch is a Code with its slots replaced by places in a frame:
**
**      | uniform         | varying                            |
**      | one number each | 'points' numbers each, aligned     |
**
** Uniform are the constants, and inputs that are the same for all points.
**
** Points that take different branches are sorted. A task is a range of rows
** (at most 'rows' of them); a group of up to 'points' of its rows runs until they
** part. The larger side goes on, with its lanes moved together. The others
** wait, with the values that are still needed, at the block where they go;
** they join other rows that come there, or start again as a group of their
** own. So the lanes stay filled whatever the rows do, and what is stored is
** bounded by the rows of a task. Rows whose way has not been recorded are
** reported.
**
** What is computed for a row does not depend on the others, and the sums of
** a reduction are made in an order that depends only on the program, the
** number of rows, and their ways: results are the same for any number of
** threads and on every CPU, with machine code and without; but of a code that
** is 'fused' machine code does products and sums in one where the CPU can.
*/
#ifndef ad_batch_h
#define ad_batch_h

#include "program.h"
#include "vmath.h"

typedef struct Batch {
  ad_Alloc alloc;
  void *ud;
  const Code *c;
  Ins *ins;        /* as those of the code: places for slots */
  uint32_t *list;  /* as that of the code: places, or V_UNIFORM + place */
  uint32_t *at;    /* by slot: the same */
  uint32_t size;   /* of a frame, in doubles */
  uint32_t points; /* of a block: 8, 16, 32 or 64 */
  uint32_t rows;   /* of a task */
  /* by block: slots that are needed from there on, but for uniform ones;
     live[first[k]] .. live[first[k + 1] - 1], inputs at the end from inputs[k].
     Only for blocks at which rows may wait. */
  uint32_t *live, *first, *inputs;
  uint32_t nlive, mostlive;
  uint32_t *order;   /* blocks in the order in which they are to be run */
  uint32_t *rank;    /* by block: its place there */
  uint8_t *ishead;   /* by block: of a loop? */
  uint8_t branching; /* may rows part? */
  uint8_t fixed;     /* may "points" not change? For then sums would, too */
  struct Vectors *vectors; /* machine code, or NULL */
} Batch;

/* shared[i]: input i is the same for all points. 'points' to a block; 0: as
   fits the size of the frame. 0: no memory. The code must outlive the batch. */
int ad_batchinit(Batch *b, const Code *c, const uint8_t *shared,
                 uint32_t points, ad_Alloc alloc, void *ud);
/*
** Machine code for the steps between calls of functions, on a CPU with these
** features (ad_nativefeatures). 0 and a reason (or NULL: no memory) where there
** is none; the batch runs as before then.
*/
int ad_batchnative(Batch *b, int features, const char **why);
#define B_NATIVE "native (x86-64, AVX)" /* what that is */
/* ... and without it again */
void ad_batchkernels(Batch *b);
void ad_batchfree(Batch *b);
size_t ad_batchbytes(const Batch *b);

/* the number of row r is at[r * stride] */
typedef struct Column {
  double *at;
  ptrdiff_t stride;
} Column;

/* what became of a row */
enum {
  B_DONE,
  B_MISSED, /* nobody has recorded where it goes */
  B_FULL,   /* its stack grew over the limit */
  B_FORM    /* it returns a form of results that is not asked for */
};

typedef struct BatchRun {
  size_t n;               /* number of rows */
  const uint32_t *rows;   /* which they are; NULL for 0 .. n-1 */
  const Column *in, *out; /* by input (read only), by result */
  uint32_t nout;          /* number of results */
  const Returned *form;   /* by form that a row may return; from == NULL: it */
  uint32_t nform;         /* ... may not, and is B_FORM */
  int sum;                /* out[j].at[0] is the sum over all rows */
  int threads;            /* at most; 1 or less: none is made */
  const Vlevel *level;    /* NULL: the best */
  size_t maxstack;        /* doubles of stack per row, at most */
  uint8_t *state;         /* n of them: set to what became of each row; may be
                             NULL for a program without branches, which is the
                             same for all */
  size_t ndone;           /* set to the number of those that are B_DONE */
} BatchRun;

/* 0 for lack of memory; results and states mean nothing then. The allocator
   is only called by the thread that calls this. */
int ad_batchrun(const Batch *b, BatchRun *r);

#endif
