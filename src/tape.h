/*
** tape.h
** A tape: what reverse mode remembers of a computation. Plain C over an
** allocator; knows nothing of Lua.
**
** A node is one value of the computation. Its entries say from which
** earlier nodes it was computed and with which partial derivatives:
**
**      end     | e0 | e1 | e2 | ...           one per node
**               |    |
**      mult    | m0 | m1 | m2 | m3 | ...      one per entry: d node/d operand
**      idx     | i0 | i1 | i2 | i3 | ...      one per entry: operand's node
**
** Node k owns the entries end[k-1] .. end[k]-1 (node 0 starts at 0), and an
** input has none. An operand's node is always smaller than the node itself,
** so one loop downwards propagates cotangents and one loop upwards tangents
** (the layout is Adept's: Hogan, ACM TOMS 40(4):26, 2014). A node costs 4
** bytes and an entry 12: 16 bytes for an operation of one active operand,
** 28 for one of two.
**
** Under forward mode partial derivatives are duals. Those of one level, which
** is nearly always all, are numbers here too:
**
**      dmult   | tangents of m0 | tangents of m1 | ...      'dirs' per entry
**
** and a cotangent is then a dual, 1 + dirs numbers per node.
**
** Any other partial derivative that is no plain number lives with the owner of
** the tape; its entry has AD_GENERAL set in idx, and the loops here are not
** used on such a tape.
*/
#ifndef ad_tape_h
#define ad_tape_h

#include <stddef.h>
#include <stdint.h>

/* as lua_Alloc: nsize 0 frees, NULL is failure */
typedef void *(*ad_Alloc)(void *ud, void *ptr, size_t osize, size_t nsize);

#define AD_GENERAL 0x80000000u
#define AD_MAXNODES 0x7ffffff0u
#define AD_MAXENTRIES 0xfffffff0u

typedef struct Tape {
  ad_Alloc alloc;
  void *ud;
  uint32_t *end;
  double *mult;
  uint32_t *idx;
  uint32_t nnode, capnode;
  uint32_t nentry, capmult, capidx;
  double *dmult;
  uint32_t capd;     /* in entries */
  int dirs;          /* tangents per entry; 0: no dmult */
  uint64_t dual;     /* which level's duals these are: the owner's business */
  uint32_t ninput;   /* nodes that no operation made */
  uint32_t ngeneral; /* entries with AD_GENERAL */
} Tape;

void ad_tapeinit(Tape *t, ad_Alloc alloc, void *ud);
void ad_tapefree(Tape *t);

/*
** Room for so many more nodes and entries. 0: there is; otherwise the bytes
** that could not be had (SIZE_MAX: the tape is at its limit;
** one less: more than there are addresses for).
*/
size_t ad_tapereserve(Tape *t, uint32_t nodes, uint32_t entries);

/*
** From now on entries have 'dirs' tangents. As ad_tapereserve.
*/
size_t ad_tapedual(Tape *t, uint64_t dual, int dirs, uint32_t entries);

/* forgets the nodes from 'node' on; 'ninput' is the caller's to mend */
void ad_tapecut(Tape *t, uint32_t node);

/* forgets all; keeps at most 'keep' bytes of memory */
void ad_tapeclear(Tape *t, size_t keep);

/* gives back memory that is far more than the records need */
void ad_tapetrim(Tape *t);

size_t ad_tapebytes(const Tape *t); /* memory in use by records */

/*
** Cotangents: adj[k] of the nodes from-1 down to 'to' flow to their
** operands. adj has a place for every node below 'from'.
*/
void ad_tapereverse(const Tape *t, uint32_t from, uint32_t to, double *adj);

/* the same with duals: adj[k * (1 + dirs)] and its tangents behind it */
void ad_tapereversedual(const Tape *t, uint32_t from, uint32_t to, double *adj);

/*
** Tangents in k directions: dot[node * k + d]. Computed for the nodes
** from .. to-1; those of inputs are given and stay.
*/
void ad_tapeforward(const Tape *t, uint32_t from, uint32_t to, double *dot,
                    int k);

static inline uint32_t ad_tapefirst(const Tape *t, uint32_t node) {
  return node == 0 ? 0 : t->end[node - 1];
}

static inline int ad_taperoom(const Tape *t, uint32_t entries) {
  return t->nnode < t->capnode && t->capmult - t->nentry >= entries &&
         t->capidx - t->nentry >= entries &&
         (t->dirs == 0 || t->capd - t->nentry >= entries);
}

/* the following need room */

static inline double *ad_tapetangents(const Tape *t, uint32_t entry) {
  return t->dmult + (size_t)entry * (size_t)t->dirs;
}

static inline void ad_tapeentry(Tape *t, uint32_t operand, double partial) {
  for (int d = 0; d < t->dirs; d++) ad_tapetangents(t, t->nentry)[d] = 0;
  t->mult[t->nentry] = partial;
  t->idx[t->nentry++] = operand;
}

static inline uint32_t ad_tapenode(Tape *t) {
  t->end[t->nnode] = t->nentry;
  return t->nnode++;
}

static inline uint32_t ad_tapeinput(Tape *t) {
  t->ninput++;
  return ad_tapenode(t);
}

#endif
