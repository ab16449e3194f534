/*
** ops.h
** The table of operations: the only place that knows what 'tanh' is.
**
** This file has no include guard: it is expanded again and again, each
** time with other meanings of the macros below.
**
**   OP1(name, value, dA, lo, hi, kind)
**   OP2(name, value, dA, dB, loA, hiA, loB, hiB, kind)
**   OP3(name, value, dA, dB, dC, loA, hiA, loB, hiB, loC, hiC, kind)
**
** 'value' is a C expression over doubles A, B, C. The partial derivatives
** dA, dB, dC are written over A, B, C and the value Y in the notation
**
**   K(c)                      the constant c
**   ADD SUB MUL DIV NEG       arithmetic
**   F1(name, x) F2(name,x,y)  another row of this table
**   LT(x, y) EQ(x, y)         comparisons of primals
**   OR(c, d) AND(c, d)        of conditions
**   IF(c, x, y)               x where c holds, else y, which then takes no part
**   P2(name, x, y)            a row of this table that is a step function, of
**   P3(name, x, y, z)         primals: instead of a comparison, where programs
**                             (compile.c) shall not branch
**   ZERO(x)                   is x the constant 0 (not a value that is 0 here)?
**
** and so can be computed on doubles, on values that are being
** differentiated themselves, or turned into a graph of operations for
** Taylor propagation. [lo, hi] is a part of the domain in which the
** operation is smooth, from which the property tests take arguments.
** 'kind' is F (a public function), O (reached through a Lua operator) or
** I (internal: occurs in derivatives only).
**
** A tangent that is exactly 0 contributes exactly 0 whatever its partial
** derivative is: products of the chain rule are 'cmul' and 'cadd', not
** 'mul'. Of an array some elements may be exact zeros and others not; then
** this has to stay true of the derivatives of these products as well: where
** their operand is such a 0, so is what they contribute (AD_BOTHWIN).
*/

/* clang-format off */

/* ---- arithmetic (Lua's numeric semantics) ---- */
OP1(unm,  -A,       K(-1),                           -3, 3, O)
OP2(add,  A + B,    K(1), K(1),                      -3, 3, -3, 3, O)
OP2(sub,  A - B,    K(1), K(-1),                     -3, 3, -3, 3, O)
OP2(mul,  A * B,    B, A,                            -3, 3, -3, 3, O)
OP2(div,  A / B,    DIV(K(1), B), NEG(DIV(Y, B)),    -3, 3, 0.3, 3, O)
OP2(mod,  ad_floormod(A, B), K(1), NEG(F2(idiv, A, B)),
                                                     1.1, 1.9, 2, 3, O)
OP2(idiv, ad_floordiv(A, B), K(0), K(0),             1.1, 1.9, 2, 3, O)
OP2(pow,  ad_powd(A, B),
    IF(OR(ZERO(B), AND(EQ(B, K(0)), EQ(A, K(0)))), K(0),
       MUL(B, F2(pow, A, SUB(B, K(1))))),
    IF(LT(K(0), A), MUL(Y, F1(log, A)),
       IF(EQ(A, K(0)), IF(LT(B, K(0)), K(-HUGE_VAL), K(0)), K(NAN))),
                                                     0.3, 3, -2, 2, O)

/* ---- exponentials and logarithms ---- */
OP1(exp,   exp(A),    Y,                             -2, 2, F)
OP1(exp2,  exp2(A),   MUL(K(AD_LN2), Y),             -2, 2, F)
OP1(expm1, expm1(A),  ADD(Y, K(1)),                  -2, 2, F)
OP1(log,   log(A),    DIV(K(1), A),                  0.3, 4, F)
OP1(log1p, log1p(A),  DIV(K(1), ADD(K(1), A)),       -0.6, 3, F)
OP1(log2,  log2(A),   DIV(K(1 / AD_LN2), A),         0.3, 4, F)
OP1(log10, log10(A),  DIV(K(1 / AD_LN10), A),        0.3, 4, F)
OP2(logb,  ad_logb(A, B),
    DIV(K(1), MUL(A, F1(log, B))),
    NEG(DIV(Y, MUL(B, F1(log, B)))),                 0.3, 4, 1.5, 4, I)
OP1(sqrt,  sqrt(A),   DIV(K(0.5), Y),                0.3, 4, F)
OP1(cbrt,  cbrt(A),   DIV(K(1), MUL(K(3), MUL(Y, Y))),
                                                     0.3, 4, F)

/* ---- trigonometry ---- */
OP1(sin,   sin(A),    F1(cos, A),                    -3, 3, F)
OP1(cos,   cos(A),    NEG(F1(sin, A)),               -3, 3, F)
OP1(tan,   tan(A),    ADD(K(1), MUL(Y, Y)),          -1, 1, F)
OP1(asin,  asin(A),
    DIV(K(1), F1(sqrt, MUL(SUB(K(1), A), ADD(K(1), A)))),
                                                     -0.8, 0.8, F)
OP1(acos,  acos(A),
    DIV(K(-1), F1(sqrt, MUL(SUB(K(1), A), ADD(K(1), A)))),
                                                     -0.8, 0.8, F)
OP1(atan,  atan(A),   DIV(K(1), ADD(K(1), MUL(A, A))),
                                                     -3, 3, F)
OP2(atan2, atan2(A, B),
    IF(EQ(F2(hypot, A, B), K(0)), K(0),
       DIV(DIV(B, F2(hypot, A, B)), F2(hypot, A, B))),
    IF(EQ(F2(hypot, A, B), K(0)), K(0),
       NEG(DIV(DIV(A, F2(hypot, A, B)), F2(hypot, A, B)))),
                                                     -2, 2, 0.3, 3, F)
OP2(hypot, hypot(A, B),
    IF(EQ(Y, K(0)), K(0), DIV(A, Y)),
    IF(EQ(Y, K(0)), K(0), DIV(B, Y)),                -3, 3, 0.3, 3, F)
OP1(deg,   A * (180.0 / AD_PI), K(180.0 / AD_PI),    -2, 2, F)
OP1(rad,   A * (AD_PI / 180.0), K(AD_PI / 180.0),    -90, 90, F)

/* ---- hyperbolic functions ---- */
OP1(sinh,  sinh(A),   F1(cosh, A),                   -2, 2, F)
OP1(cosh,  cosh(A),   F1(sinh, A),                   -2, 2, F)
OP1(tanh,  tanh(A),   MUL(SUB(K(1), Y), ADD(K(1), Y)),
                                                     -2, 2, F)
OP1(asinh, asinh(A),  DIV(K(1), F2(hypot, K(1), A)), -3, 3, F)
OP1(acosh, acosh(A),
    DIV(K(1), F1(sqrt, MUL(SUB(A, K(1)), ADD(A, K(1))))),
                                                     1.3, 4, F)
OP1(atanh, atanh(A),  DIV(K(1), MUL(SUB(K(1), A), ADD(K(1), A))),
                                                     -0.8, 0.8, F)

/* ---- special functions ---- */
OP1(erf,   erf(A),    MUL(K(AD_2_SQRTPI), F1(exp, NEG(MUL(A, A)))),
                                                     -2, 2, F)
OP1(erfc,  erfc(A),   MUL(K(-AD_2_SQRTPI), F1(exp, NEG(MUL(A, A)))),
                                                     -2, 2, F)
OP1(lgamma, ad_lgamma(A), F1(digamma, A),            0.4, 5, F)
OP1(digamma, ad_digamma(A), F2(polygamma, K(1), A),  0.4, 5, F)
OP2(polygamma, ad_polygamma(A, B), K(NAN), F2(polygamma, ADD(A, K(1)), B),
                                                     1, 1, 0.4, 5, I)
OP1(sigmoid, ad_sigmoid(A), MUL(Y, SUB(K(1), Y)),    -4, 4, F)
OP1(softplus, ad_softplus(A), F1(sigmoid, A),        -4, 4, F)

/* ---- piecewise functions ---- */
OP1(abs,   fabs(A),   F1(sign, A),                   0.2, 3, F)
OP1(sign,  ad_sign(A), K(0),                         0.2, 3, F)
OP1(trunc, trunc(A),  K(0),                          1.1, 1.9, I)
OP1(relu,  A <= 0 ? 0 : A, P2(below, K(0), A),       0.2, 3, F)
OP2(fmod,  fmod(A, B), K(1), NEG(F1(trunc, DIV(A, B))),
                                                     3.1, 3.9, 1.1, 1.5, F)
OP2(max,   A < B ? B : A,
    P2(first, B, A), P2(second, A, B),               -3, 0, 0.1, 3, F)
OP2(min,   B < A ? B : A,
    P2(first, A, B), P2(second, B, A),               -3, 0, 0.1, 3, F)
OP3(clamp, A < B ? B : C < A ? C : A,
    P3(inside, A, B, C), P2(below, A, B), P3(beyond, A, B, C),
                                                     -2, 2, -3, -2.1, 2.1, 3, F)

/* ---- steps: which side's derivative counts ---- */
OP2(below,  A < B,  K(0), K(0),                      -3, 0, 0.1, 3, I)
OP2(atmost, A <= B, K(0), K(0),                      -3, 0, 0.1, 3, I)
OP2(equal,  A == B, K(0), K(0),                      -3, 0, 0.1, 3, I)
OP2(first,  B < A ? 0 : A == B ? 0.5 : 1, K(0), K(0),
                                                     -3, 0, 0.1, 3, I)
OP2(second, A < B ? 1 : A == B ? 0.5 : 0, K(0), K(0),
                                                     -3, 0, 0.1, 3, I)
OP3(inside, A < B ? 0 : C < A ? 0 : 1, K(0), K(0), K(0),
                                                     -2, 2, -3, -2.1, 2.1, 3, I)
OP3(beyond, A < B ? 0 : C < A ? 1 : 0, K(0), K(0), K(0),
                                                     -2, 2, -3, -2.1, 2.1, 3, I)

/* ---- element by element only: numbers have conditions of their own ---- */
OP1(floor, floor(A),  K(0),                          1.1, 1.9, I)
OP1(ceil,  ceil(A),   K(0),                          1.1, 1.9, I)
OP3(where, A != 0 ? B : C, K(0),
    IF(EQ(A, K(0)), K(0), K(1)), IF(EQ(A, K(0)), K(1), K(0)),
                                                     1, 1, -3, 3, -3, 3, I)

/* ---- products of the chain rule: an exact 0 in A wins (cadd: B), in bmul
   in either ---- */
OP2(cmul,  A == 0 ? 0 : A * B, B, A,                 -3, 3, -3, 3, I)
OP3(cadd,  B == 0 ? A : A + B * C, K(1), C, B,       -3, 3, -3, 3, -3, 3, I)
OP2(bmul,  A == 0 || B == 0 ? 0 : A * B, B, A,       -3, 3, -3, 3, I)

/* clang-format on */
