/*
** testing.h
** For tests of what does not know Lua: an allocator that counts, and that
** refuses the request when 'countdown' (if not negative) others have been
** granted; and checks that are counted when they fail.
*/
#ifndef testing_h
#define testing_h

#include <stdio.h>
#include <stdlib.h>

static long inuse, countdown = -1;

static void *allocate(void *ud, void *ptr, size_t osize, size_t nsize) {
  (void)ud;
  if (nsize == 0) {
    inuse -= (long)osize;
    free(ptr);
    return NULL;
  }
  if (nsize > osize && countdown >= 0 && countdown-- == 0) {
    countdown = -1;
    return NULL;
  }
  ptr = realloc(ptr, nsize);
  inuse += (long)nsize - (long)osize;
  return ptr;
}

static int failures;

#define CHECK(c)                                                               \
  ((c) ? (void)0                                                               \
       : (void)(failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #c)))

#endif
