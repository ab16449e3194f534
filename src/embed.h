/*
** embed.h
** The modules of lua/ as data: build/embedded.c, which src/embed.sh writes.
** In libautodiff.a only; the Lua module core.so has them as files.
*/
#ifndef ad_embed_h
#define ad_embed_h

#include <stddef.h>

typedef struct ad_Embedded {
  const char *name;  /* for require */
  const char *chunk; /* name of the chunk: "=autodiff/custom.lua" */
  const unsigned char *text;
  size_t size;
} ad_Embedded;

extern const ad_Embedded ad_embedded[]; /* ends with a name of NULL */

#endif
