/*
** blas.h
** BLAS and LAPACK, found when they are first needed. There is nothing of them
** at build time: the functions are looked up by their Fortran names, and
** everything works without them except what says so (ad_lapack).
*/
#ifndef ad_blas_h
#define ad_blas_h

#include <stddef.h>

#include "state.h"

#define IN_ const int *
#define DI_ const double *
#define D_ double *
#define C_ const char *

/*
** X(name, parameters): Fortran takes addresses of everything; lengths of
** strings follow at the end.
*/
#define AD_BLASLIST(X)                                                         \
  X(dgemm, (C_, C_, IN_, IN_, IN_, DI_, DI_, IN_, DI_, IN_, DI_, D_, IN_,      \
            size_t, size_t))                                                   \
  X(dgemv, (C_, IN_, IN_, DI_, DI_, IN_, DI_, IN_, DI_, D_, IN_, size_t))      \
  X(dtrsm, (C_, C_, C_, C_, IN_, IN_, DI_, DI_, IN_, D_, IN_, size_t, size_t,  \
            size_t, size_t))

#define AD_LAPACKLIST(X)                                                       \
  X(dgetrf, (IN_, IN_, D_, IN_, int *, int *))                                 \
  X(dgetrs, (C_, IN_, IN_, DI_, IN_, IN_, D_, IN_, int *, size_t))             \
  X(dgetri, (IN_, D_, IN_, IN_, D_, IN_, int *))                               \
  X(dgecon, (C_, IN_, DI_, IN_, DI_, D_, D_, int *, int *, size_t))            \
  X(dpotrf, (C_, IN_, D_, IN_, int *, size_t))                                 \
  X(dgeqrf, (IN_, IN_, D_, IN_, D_, D_, IN_, int *))                           \
  X(dorgqr, (IN_, IN_, IN_, D_, IN_, DI_, D_, IN_, int *))                     \
  X(dgesdd, (C_, IN_, IN_, D_, IN_, D_, D_, IN_, D_, IN_, D_, IN_, int *,      \
             int *, size_t))                                                   \
  X(dsyevd,                                                                    \
    (C_, C_, IN_, D_, IN_, D_, D_, IN_, int *, IN_, int *, size_t, size_t))    \
  X(dgelsd,                                                                    \
    (IN_, IN_, IN_, D_, IN_, D_, IN_, D_, DI_, int *, D_, IN_, int *, int *))

typedef struct Blas {
  const char *name;   /* of the library; NULL: there is none */
  const char *lapack; /* the same, of LAPACK's functions */
  double (*ddot)(IN_, DI_, IN_, DI_, IN_);
#define X(name, params) void(*name) params;
  AD_BLASLIST(X) AD_LAPACKLIST(X)
#undef X
} Blas;

#undef IN_
#undef DI_
#undef D_
#undef C_

/* what there is; members are NULL where nothing was found */
const Blas *ad_blas(lua_State *L, State *S);
/* the same, complete; else an error that says what to install */
const Blas *ad_lapack(lua_State *L, State *S, const char *who);

#endif
