/*
** unnote.h
** Takes back the notation of ops.h, for whoever reads it next.
*/
#undef K
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef NEG
#undef F1
#undef F2
#undef LT
#undef EQ
#undef ZERO
#undef OR
#undef AND
#undef IF
#undef P2
#undef P3
