/*
** store.h
** Programs as strings of bytes, the same on every machine:
**
**      8   magic            "\211ADP\r\n\032\n"
**      4   version          1
**      4   0x04030201: as all numbers here, low byte first
**      8   length of what follows the next field
**      8   checksum of that (FNV-1a, 64 bits)
**          counts: constants, inputs, slots, instructions, blocks, list
**          names of operations: their number; length (1 byte) and letters
**          constants
**          instructions: number of the name, flags, d, a, b, c
**          blocks: first, last, end, cmp, place, a, b, yes, no, set, parent
**          list
**          length of the caller's bytes, and these
**
** Operations have names in it, because their numbers change whenever one is
** added. The caller's bytes say what the inputs and results are.
*/
#ifndef ad_store_h
#define ad_store_h

#include "program.h"

/* 0 if 'write' fails (it returns 0), or for lack of memory */
int ad_store(const Code *c, const void *extra, size_t nextra,
             int (*write)(void *ud, const char *s, size_t n), void *ud);

/*
** Reads one. Whatever the bytes are: if it returns 1, the code is one that can
** be run, in a frame of its own, without harm, though a program with loops need
** not end. If it returns 0, *why is what is wrong (a constant string), or NULL
** for lack of memory. *extra points into 'data'.
*/
int ad_load(Code *c, ad_Alloc alloc, void *ud, const void *data, size_t n,
            const void **extra, size_t *nextra, const char **why);

#define AD_STOREHEAD 32 /* bytes before those that the checksum is of */
uint64_t ad_checksum(const void *data, size_t n);

#endif
