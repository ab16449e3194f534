/*
** rules.h
** The partial derivatives of ops.h as the cases of 'switch (op)' in a function
** that returns the one for operand number i. Like ops.h it has no include
** guard, and its notation is to be defined by whoever includes it.
*/
#define OP1(name, v, d0, l0, h0, kind)                                         \
  case OP_##name:                                                              \
    return d0;
#define OP2(name, v, d0, d1, l0, h0, l1, h1, kind)                             \
  case OP_##name:                                                              \
    if (i == 0) return d0;                                                     \
    return d1;
#define OP3(name, v, d0, d1, d2, l0, h0, l1, h1, l2, h2, kind)                 \
  case OP_##name:                                                              \
    if (i == 0) return d0;                                                     \
    if (i == 1) return d1;                                                     \
    return d2;
#include "ops.h"
#undef OP1
#undef OP2
#undef OP3
