/*
** store.h
** Programs as strings of bytes, the same on every machine:
**
**      8   magic            "\211ADP\r\n\032\n"
**      4   version          2
**      4   0x04030201: as all numbers here, low byte first
**      8   length of what follows the next field
**      8   checksum of that (FNV-1a, 64 bits)
**      8   length of the caller's bytes, and these
**      4   number of programs; each:
**          counts: constants, inputs, slots, instructions, blocks, list
**          names of operations: their number; length (1 byte) and letters
**          constants
**          instructions: number of the name, flags, d, a, b, c
**          blocks: first, last, end, cmp, place, a, b, yes, no, set, parent
**          list
**
** Operations have names in it, because their numbers change whenever one is
** added. The caller's bytes say what the inputs and results are.
*/
#ifndef ad_store_h
#define ad_store_h

#include "program.h"

/* n programs, at least one; 0 if 'write' fails (it returns 0), or for lack of
   memory */
int ad_store(const Code *c, uint32_t n, const void *extra, size_t nextra,
             int (*write)(void *ud, const char *s, size_t n), void *ud);

/* bytes that are being read, and stay where they are meanwhile */
typedef struct Stored {
  const void *extra; /* the caller's */
  size_t nextra;
  const unsigned char *at; /* the programs that have not been read */
  size_t left;
  uint32_t n;
} Stored;

/* what is wrong with the whole (a constant string), or NULL */
const char *ad_loadbegin(Stored *s, const void *data, size_t n);

/*
** Reads the next program, of which there is one. Whatever the bytes are: if it
** returns 1, the code is one that can be run, in a frame of its own, without
** harm, though a program with loops need not end. If it returns 0, *why is what
** is wrong (a constant string), or NULL for lack of memory: it can be tried
** again then.
*/
int ad_load(Stored *s, Code *c, ad_Alloc alloc, void *ud, const char **why);

#define AD_STOREHEAD 32 /* bytes before those that the checksum is of */
uint64_t ad_checksum(const void *data, size_t n);

#endif
