/*
** array.h
** n-dimensional arrays of float64, as Lua sees them.
**
** An array is one userdata that opens with the header below. One that owns
** its elements has them in the same block, aligned to 64 bytes, in row-major
** order, so that the collector knows its true size. A view has its own shape
** and strides over the elements of another, which user value 1 keeps alive
** (always the owner: views of views refer to it directly).
**
** Arrays are plain values, as numbers are: they belong to no level. In the
** place of a Cell's stamp they have 0, which no live level's stamp is.
** There are no arrays without dimensions; numbers take that place.
*/
#ifndef ad_array_h
#define ad_array_h

#include "state.h"

#define AD_MAXDIM 8
#define AD_ALIGN 64

typedef struct Array {
  uint64_t stamp; /* 0: not a Cell */
  double *data;   /* the first element */
  size_t size;    /* number of elements */
  int ndim;
  uint8_t view;  /* user value 1 is the owner of the elements */
  uint8_t saved; /* a tape may have it: look before writing (owners) */
  uint8_t own;   /* made in a sweep, which alone has it: may be overwritten */
  uint8_t given; /* a sweep has handed it out */
  /* for recordings (calls.c), of owners: the number of the youngest transform
     when it was made, and of the write to any array that came last to it */
  uint64_t born, written;
  ptrdiff_t shape[AD_MAXDIM];
  ptrdiff_t stride[AD_MAXDIM]; /* in elements; any sign; 0: repeated */
} Array;

/* is the userdata behind a value (known to be ours) an array? */
static inline int ad_isarray(const void *p) {
  return ((const Array *)p)->stamp == 0;
}

/* array.c */

/* the plain array at an index, or NULL; who gets it may look at its elements,
   which a recording takes notice of */
Array *ad_toarray(lua_State *L, State *S, int idx);
/* the same for who looks at its shape at most */
Array *ad_arrayhere(lua_State *L, const State *S, int idx);
Array *ad_checkarray(lua_State *L, State *S, int arg);
/* pushes an array that owns its elements, which are not set */
Array *ad_newarray(lua_State *L, State *S, int ndim, const ptrdiff_t *shape);
/* pushes a view of the array at idx; data, shape and strides as that one's */
Array *ad_newview(lua_State *L, State *S, int idx);
/* the same, for a function that does nothing else with the array */
Array *ad_ownview(lua_State *L, State *S, int idx);
/* recomputes size from shape */
void ad_resize(lua_State *L, Array *a);
/* are the elements in row-major order, without gaps? */
int ad_contiguous(const Array *a);
/* the array at idx if it is contiguous; else pushes a copy */
Array *ad_packed(lua_State *L, State *S, int idx);
/* copies elements in row-major order */
void ad_gather(const Array *a, double *to);
void ad_scatter(const Array *a, const double *from); /* the other way */
/* the arrays' own error forms: "(2, 3)" is pushed */
const char *ad_shapetext(lua_State *L, int ndim, const ptrdiff_t *shape);
void ad_pushshape(lua_State *L, const Array *a); /* as a list */
/* reads a shape from a list, an integer, or from integers on the stack */
int ad_checkshape(lua_State *L, int arg, ptrdiff_t *shape);
/* index from 1, or from the end, to one from 0; error if out of range */
ptrdiff_t ad_checkaxis(lua_State *L, int arg, int ndim);
/* NumPy's rule for two shapes; 0: they do not fit */
int ad_broadcast(int *ndim, ptrdiff_t *shape, int n2, const ptrdiff_t *shape2);
/* strides of 'a' as an operand of the given shape (which it broadcasts to) */
void ad_strides(const Array *a, int ndim, const ptrdiff_t *shape,
                ptrdiff_t *stride);
/* is the plain value behind the value at idx an array? pushes nothing */
int ad_arrayvalued(lua_State *L, State *S, int idx);
/* an array, or the value of a batch: what works by element works on it */
int ad_deepelement(lua_State *L, State *S, int idx);
static inline int ad_byelement(lua_State *L, State *S, int idx) {
  return S->arrays && ad_deepelement(L, S, idx);
}
/* pushes the plain value, of a batch that of its first element; number or array, behind any value */
void ad_pushplain(lua_State *L, State *S, int idx);
/* error unless the elements may be written to */
void ad_checkwrite(lua_State *L, State *S, int arg);
/* calls a function of autodiff.array: with all that is on the stack, for all
   its results; with the n values on the top, for one */
int ad_arraycall(lua_State *L, State *S, const char *name);
void ad_arraycalln(lua_State *L, State *S, const char *name, int n);
/* an operation of the table on plain numbers and arrays: pushes an array */
val ad_arrayapply(lua_State *L, State *S, int op, int n, const val *x);
/* the same, of which a recording takes no notice */
val ad_arraycompute(lua_State *L, State *S, int op, int n, const val *x);

typedef struct Shape {
  int ndim; /* 0: a number */
  ptrdiff_t len[AD_MAXDIM];
} Shape;
/* of the plain value behind a value */
void ad_shapeof(lua_State *L, State *S, val v, Shape *shape);
int ad_sameshape(const Array *a, const Shape *shape);
/* "a number", "an array of shape (2, 3)": pushed */
const char *ad_shapename(lua_State *L, const Shape *shape);

/* acc + t * (partial derivative by operand i), all of them plain; 'last': t is
   not needed again, its memory may be used */
val ad_arraypull(lua_State *L, State *S, int op, int i, int n, const val *x,
                 val y, val t, val acc, const Shape *shape, int last);
/* v in another shape: summed over what that was broadcast along to become v's,
   or broadcast to it */
val ad_toshape(lua_State *L, State *S, val v, const Shape *shape);
/* the same, in the shape of another value */
val ad_like(lua_State *L, State *S, val v, val like);

/*
** What a tape keeps of an operation on arrays: the shapes of operands and
** result, and of their values what the partial derivatives look at.
*/
typedef struct Saved {
  uint64_t stamp; /* 0: not a Cell */
  uint8_t op, n;
  uint8_t active; /* bit i: operand i is on the tape */
  uint8_t kept;   /* bit i: operand i (n: the result) is the next user value */
  uint8_t ndim[AD_MAXARITY + 1];
  ptrdiff_t len[1]; /* those of all of them, one after another */
} Saved;
/* pushes one; 'active' as there */
val ad_save(lua_State *L, State *S, int op, int n, const val *x, val y,
            int active);
/* pushes what it has: x[n] is the result; 0 stands for what is not kept */
void ad_unsave(lua_State *L, const Saved *s, int idx, val *x);
/* the shape of operand i (n: of the result) */
void ad_savedshape(const Saved *s, int i, Shape *shape);
/* is the value at the index one of these? */
Saved *ad_tosaved(lua_State *L, const State *S, int idx);
/* number of its user values */
int ad_savedcount(const Saved *s);
/* the array behind the value at idx, if any, is saved by a tape; 'holder' is
   the table through which the tape holds it; its size in bytes */
size_t ad_marksaved(lua_State *L, State *S, int idx, int holder);
/* the same for all that is in the list at the top, which is popped */
size_t ad_marklist(lua_State *L, State *S, int holder);
/* appends to the list, which counts them in its field n, the owners of the
   elements of: the value at idx, if it is an array; what the Saved at idx
   holds; what is in the list at idx */
void ad_addowner(lua_State *L, State *S, int idx, int list);
void ad_addsaved(lua_State *L, State *S, int idx, int list);
void ad_addlist(lua_State *L, State *S, int idx, int list);
/* bytes of the arrays in the one of these at idx; 0 for anything else */
size_t ad_savedbytes(lua_State *L, State *S, int idx);
/* the table of that reference holds nothing any more ... */
void ad_unhold(lua_State *L, State *S, int ref);
/* ... as the table at idx holds what it has held */
void ad_rehold(lua_State *L, State *S, int ref, int idx);
/* the array that owns the elements of the one at idx */
Array *ad_owner(lua_State *L, int idx);
/* copies elements, broadcasting */
void ad_copyelements(const Array *to, const Array *from);
/* what x[key] is, for the array at the top and a string; 0: nothing */
int ad_arrayfield(lua_State *L, State *S, const char *key);
/* is it ipairs that asks for self[key], behind the last element? */
int ad_isend(lua_State *L);
/* pushes autodiff.array */
void ad_arraylib(lua_State *L, State *S);
int ad_addpart(lua_State *L, State *S, val acc, int key, int shape);
void ad_openindex(lua_State *L, State *S);
void ad_openshape(lua_State *L, State *S);
void ad_openreduce(lua_State *L, State *S);
void ad_openproduct(lua_State *L, State *S);
void ad_openlinalg(lua_State *L, State *S);
void ad_opennpy(lua_State *L, State *S);
void ad_opencalls(lua_State *L, State *S);
void ad_openrandom(lua_State *L, State *S);

/*
** Skeletons hold the numbers of nodes in the places of leaves; in that of an
** array an array without elements that has its shape.
*/
void ad_pushskeleton(lua_State *L, State *S, int leaf, int isnode,
                     uint32_t node);
/* the same, read: 0 for a constant; 'shape' is NULL for a number */
int ad_skeletonnode(lua_State *L, const State *S, int idx, uint32_t *node,
                    const Array **shape);
/* error unless the value at idx has the shape that a skeleton says */
void ad_checkfits(lua_State *L, State *S, const Array *shape, int idx,
                  const char *what);
/* a sweep's value for the leaf of a skeleton at idx: pushes it */
void ad_sweepresult(lua_State *L, Sweep *w, int idx);

/* what a sweep has found leaves it: the value at the top becomes one that
   nobody else has, so that it may be written to */
void ad_handout(lua_State *L, State *S);
/* the value at the top, of a sweep, in the shape of the leaf at idx */
void ad_shapelike(lua_State *L, State *S, int idx);
/* acc + v, in place if acc is a sweep's own; 0: that cannot be */
int ad_addinplace(lua_State *L, State *S, val acc, val v);

/* vmap.c */
val ad_vmapapply(lua_State *L, State *S, int op, int n, const Arg *a,
                 uint64_t key);
val ad_vmapnary(lua_State *L, State *S, int op, int n, const val *x);
val ad_constant(lua_State *L, State *S, val v);
void ad_openvmap(lua_State *L, State *S);

/* apply.c */
val ad_condition(lua_State *L, State *S, int op, const val *x);
val ad_elementchain(lua_State *L, State *S, int op, int i, int n, const val *x,
                    val y, val t, val acc, const Shape *shape, int last);

/* a number or a plain array? */
static inline int ad_isplain(lua_State *L, val v) {
  const void *p = v.i ? lua_touserdata(L, v.i) : NULL;
  return p == NULL || ad_isarray(p);
}

/* ad_arrayvalued for a value that is known to be ours */
int ad_deeparray(lua_State *L, State *S, int idx);
static inline int ad_hasarray(lua_State *L, State *S, val v) {
  const Cell *c;
  if (!S->arrays || v.i == 0 || (c = lua_touserdata(L, v.i)) == NULL) return 0;
  if (ad_isarray(c)) return 1;
  return AD_GENERALKIND(ad_kindof(S, c)) && ad_deeparray(L, S, v.i);
}
void ad_openarray(lua_State *L, State *S);

#endif
