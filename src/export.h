/*
** export.h
** A Code as one C99 file that needs nothing but the C library.
*/
#ifndef ad_export_h
#define ad_export_h

#include "program.h"

/* a function or constant that exported programs may need; lines end in NULL */
typedef struct ad_Helper {
  const char *name;
  const char *const *line;
} ad_Helper;

extern const ad_Helper ad_helpers[]; /* made by helpers.sh; ends in NULL */

typedef struct Export {
  const char *name; /* of the function */
  /* for the comment at the head; NULL: the numbers of inputs and results. May
     have several lines, each of which is to begin without a space. */
  const char *about, *inputs, *results;
  uint32_t nout;        /* number of results */
  const Returned *form; /* by form that is returned; from == NULL: not here */
  uint32_t nform;
  int (*write)(void *ud, const char *s, size_t n); /* 0: it failed */
  void *ud;
} Export;

/* 1 if all has been written, 0 for lack of memory or if 'write' fails */
int ad_export(const Code *c, const Export *e);

/* is it a name for a function that hides nothing? */
int ad_exportname(const char *name);

#endif
