/*
** sparse.h
** Which derivatives of a Code are always 0, and how to compute the others
** with few products. Plain C; knows nothing of Lua.
*/
#ifndef ad_sparse_h
#define ad_sparse_h

#include "program.h"

/* entries of a matrix: those of row i are in the columns
   index[start[i]] .. index[start[i + 1] - 1], which ascend */
typedef struct Pattern {
  ad_Alloc alloc;
  void *ud;
  uint32_t nrow, ncol, n;
  uint32_t *start, *index;
  uint32_t capindex;
} Pattern;

void ad_patternfree(Pattern *p);

/*
** The derivatives of the 'nout' results of a form by the inputs. What any path
** through the program makes depend on an input depends on it here; operations
** whose derivative is 0 everywhere (floor, sign, comparisons) pass nothing on.
** All functions here: 0 for lack of memory.
*/
int ad_sparsity(const Code *c, uint32_t set, uint32_t nout, Pattern *p);

int ad_transpose(const Pattern *a, Pattern *t);
/* the entries of a square pattern and of its transpose, and the diagonal */
int ad_symmetric(const Pattern *a, Pattern *s);

/*
** Colours 0 .. *n-1 of columns, so that no two of a colour have an entry in
** the same row: the matrix times the sum of the unit vectors of a colour then
** shows all their entries. (A. Curtis, M. Powell, J. Reid, IMA J. Appl. Math.
** 13 (1974); greedily, columns with many entries first.) 't' is the transpose.
*/
int ad_colour(const Pattern *a, const Pattern *t, uint32_t *colour,
              uint32_t *n);

/*
** The same for a symmetric matrix (of ad_symmetric), of which each entry need
** only show once: a star colouring (A. Gebremedhin, F. Manne, A. Pothen, SIAM
** Review 47 (2005), algorithm 4.1).
*/
int ad_starcolour(const Pattern *s, uint32_t *colour, uint32_t *n);

/* the entries from the products, b[i * n + k] being element i of the product
   with colour k; 'value' in the order of the pattern */
void ad_recover(const Pattern *a, const uint32_t *colour, uint32_t n,
                const double *b, double *value);
void ad_recoversymmetric(const Pattern *s, const uint32_t *colour, uint32_t n,
                         const double *b, double *value);

#endif
