/*
** lower.h
** What the files that optimise programs share: see lower.c.
*/
#ifndef ad_lower_h
#define ad_lower_h

#include "program.h"

typedef struct Lower {
  const Prog *p;
  Prog q; /* the optimised program, block by block as p */
  Code *c;
  int options;
  uint32_t *to;          /* by instruction of p: reference in q */
  uint32_t *pre, *size;  /* of blocks: place in the tree, blocks below */
  uint32_t *loop;        /* of blocks: head of the innermost loop, or P_NONE */
  uint32_t *head, nhead; /* value numbering: 1 + instruction, by hash */
  uint32_t *next, capnext; /* by instruction of q: another of that hash */
  uint32_t *home;          /* by instruction of q: its block */
  uint32_t caphome;
  uint8_t *live;   /* by instruction of q */
  uint32_t *slot;  /* by instruction of q */
  uint32_t *last;  /* ... and its last use in its own block */
  uint32_t *kslot; /* by constant of q */
  uint32_t block;
  struct Regroup *regroup; /* P_FAST, the second time */
  uint8_t hoisted;         /* something has left its loop */
  uint8_t failed;
} Lower;

/* n + 1 of them, all 0; sets 'failed' where there is no memory */
void *ad_lowerget(Lower *w, size_t n, size_t size);
void ad_lowerput(const Lower *w, void *at, size_t n, size_t size);

/* references in w->q to the value of an operation, and to a constant */
uint32_t ad_lowerop(Lower *w, int op, uint32_t a, uint32_t b, uint32_t c);
uint32_t ad_lowerconst(Lower *w, double x);

/*
** regroup.c, for P_FAST: w is the second pass over what 'before' has made.
** ad_regroup: 1 if *r is the value of instruction i of w->p, 0 if it is to be
** taken as it is.
*/
int ad_regroupinit(Lower *w, const Lower *before);
void ad_regroupfree(Lower *w);
int ad_regroup(Lower *w, uint32_t i, uint32_t *r);

#endif
