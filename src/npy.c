/*
** npy.c
** What autodiff/npy.lua needs to read and write NumPy's files: bytes from a
** file, inflated if need be, turned into arrays, and back. The headers are
** read there, and all that is claimed in them is checked there; here nothing
** is believed that the bytes themselves do not show.
**
** The formats: https://numpy.org/doc/stable/reference/generated/
** numpy.lib.format.html; CRC-32 as in ISO 3309; DEFLATE (RFC 1951) is zlib's
** business, which is looked for when a file needs it.
*/
#define _POSIX_C_SOURCE 200809L

#include "array.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536 /* bytes, a multiple of all sizes of elements */
#define SOURCE "autodiff.source"
#define ZLIB "autodiff.zlib"

/*
** CRC-32, eight bytes at a time: table[k][b] is the remainder of byte b that
** k zero bytes follow (Sarwate's table, and Intel's slicing by 8)
*/

typedef uint32_t Crc[8][256];

static const char crckey = 0;

/* the table stays in the registry once somebody has needed it */
static Crc *crctable(lua_State *L) {
  Crc *t;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &crckey) == LUA_TNIL) {
    lua_pop(L, 1);
    t = lua_newuserdatauv(L, sizeof *t, 0);
    for (uint32_t b = 0; b < 256; b++) {
      uint32_t c = b;
      for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0xedb88320u : c >> 1;
      (*t)[0][b] = c;
    }
    for (int k = 1; k < 8; k++)
      for (int b = 0; b < 256; b++)
        (*t)[k][b] = ((*t)[k - 1][b] >> 8) ^ (*t)[0][(*t)[k - 1][b] & 0xff];
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &crckey);
  }
  t = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return t;
}

static uint32_t crc32(Crc *t, uint32_t crc, const void *data, size_t n) {
  const unsigned char *p = data;
  uint32_t c = ~crc;
  for (; n >= 8; n -= 8, p += 8) {
    c ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
    c = (*t)[7][c & 0xff] ^ (*t)[6][c >> 8 & 0xff] ^ (*t)[5][c >> 16 & 0xff] ^
        (*t)[4][c >> 24] ^ (*t)[3][p[4]] ^ (*t)[2][p[5]] ^ (*t)[1][p[6]] ^
        (*t)[0][p[7]];
  }
  for (; n > 0; n--, p++) c = (c >> 8) ^ (*t)[0][(c ^ *p) & 0xff];
  return ~c;
}

/*
** zlib, as far as reading goes. Its header need not be there: this is the
** interface that all of its versions have kept.
*/

typedef struct Stream {
  const unsigned char *next_in;
  unsigned avail_in;
  unsigned long total_in;
  unsigned char *next_out;
  unsigned avail_out;
  unsigned long total_out;
  const char *msg;
  void *state;
  void *(*zalloc)(void *ud, unsigned items, unsigned size);
  void (*zfree)(void *ud, void *p);
  void *opaque;
  int data_type;
  unsigned long adler, reserved;
} Stream;

#define Z_OK 0
#define Z_STREAM_END 1
#define Z_BUF_ERROR (-5) /* nothing to do without more input */

typedef struct Zlib {
  void *handle;
  const char *(*version)(void);
  int (*init)(Stream *z, int bits, const char *version, int size);
  int (*inflate)(Stream *z, int flush);
} Zlib;

static int zlib_gc(lua_State *L) {
  Zlib *z = lua_touserdata(L, 1);
  if (z->handle) dlclose(z->handle);
  z->handle = NULL;
  return 0;
}

/* ISO C has no way from an object pointer to a function pointer but this */
static int symbol(void *handle, const char *name, void *f) {
  void *p = dlsym(handle, name);
  memcpy(f, &p, sizeof p);
  return p != NULL;
}

/* pushes zlib, or nothing: NULL */
static Zlib *openzlib(lua_State *L) {
  static const char *const name[] = {"libz.so.1", "libz.1.dylib"};
  Zlib *z;
  if (lua_getfield(L, LUA_REGISTRYINDEX, ZLIB) != LUA_TNIL)
    return lua_touserdata(L, -1);
  lua_pop(L, 1);
  z = lua_newuserdatauv(L, sizeof *z, 0);
  memset(z, 0, sizeof *z);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, zlib_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  for (size_t i = 0; z->handle == NULL && i < sizeof name / sizeof *name; i++)
    z->handle = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
  if (z->handle == NULL || !symbol(z->handle, "zlibVersion", &z->version) ||
      !symbol(z->handle, "inflateInit2_", &z->init) ||
      !symbol(z->handle, "inflate", &z->inflate)) {
    lua_pop(L, 1);
    return NULL;
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, ZLIB);
  return z;
}

/*
** Sources: a part of a file, from where it stands, as it reads when it is
** inflated. What zlib asks for lies in the source itself (it wants some 40 KB),
** so that nothing is left to free.
*/

#define ARENA (128 * 1024)

typedef struct Source {
  uint64_t in, left; /* bytes to come: in the file, and of the contents */
  Crc *table;
  uint32_t crc;
  const Zlib *z; /* NULL: stored as it is */
  Stream stream;
  size_t used; /* of the arena */
  unsigned char chunk[CHUNK];
  unsigned char arena[1]; /* of ARENA bytes, if z */
} Source;

static void *arena_alloc(void *ud, unsigned items, unsigned size) {
  Source *s = ud;
  const size_t n = ((size_t)items * size + 63) / 64 * 64;
  unsigned char *p = s->arena + s->used;
  const size_t skip = (64 - ((uintptr_t)p & 63)) & 63;
  if (size != 0 && items > ARENA / size) return NULL;
  if (n + skip > ARENA - s->used) return NULL;
  s->used += n + skip;
  return p + skip;
}

static void arena_free(void *ud, void *p) { (void)ud, (void)p; }

static FILE *filebehind(lua_State *L, int idx) {
  const luaL_Stream *p = luaL_checkudata(L, idx, LUA_FILEHANDLE);
  if (p->closef == NULL) luaL_argerror(L, idx, "closed file");
  return p->f;
}

/* source(file, deflated, bytes in the file, bytes of the contents) */
static int l_source(lua_State *L) {
  const int deflated = lua_toboolean(L, 2);
  const lua_Integer in = luaL_checkinteger(L, 3);
  const lua_Integer left = luaL_checkinteger(L, 4);
  const Zlib *z = NULL;
  Crc *table = crctable(L);
  Source *s;
  filebehind(L, 1);
  luaL_argcheck(L, in >= 0 && left >= 0, 3, "bad size");
  if (deflated && (z = openzlib(L)) == NULL) {
    luaL_pushfail(L);
    lua_pushliteral(L, "compressed: reading it takes zlib, which is not "
                       "installed (Debian's package is zlib1g)");
    return 2;
  }
  s = lua_newuserdatauv(L, sizeof *s + (deflated ? ARENA : 0), 2);
  memset(s, 0, offsetof(Source, chunk));
  s->in = (uint64_t)in;
  s->left = (uint64_t)left;
  s->table = table;
  s->z = z;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  if (z != NULL) {
    lua_pushvalue(L, -2); /* zlib */
    lua_setiuservalue(L, -2, 2);
    s->stream.zalloc = arena_alloc;
    s->stream.zfree = arena_free;
    s->stream.opaque = s;
    /* -15: the bare format, with the largest window */
    if (z->init(&s->stream, -15, z->version(), (int)sizeof s->stream) != Z_OK) {
      luaL_pushfail(L);
      lua_pushliteral(L, "zlib does not start");
      return 2;
    }
  }
  luaL_setmetatable(L, SOURCE);
  return 1;
}

static const char *readerror(FILE *f) {
  return ferror(f) ? strerror(errno) : "the file is too short";
}

/* more of the file for zlib */
static const char *refill(Source *s, FILE *f) {
  const size_t n = s->in < CHUNK ? (size_t)s->in : CHUNK;
  if (n == 0) return "the compressed data break off";
  if (fread(s->chunk, 1, n, f) != n) return readerror(f);
  s->in -= n;
  s->stream.next_in = s->chunk;
  s->stream.avail_in = (unsigned)n;
  return NULL;
}

/* n bytes of the contents; what is wrong, or NULL */
static const char *take(Source *s, FILE *f, void *to, size_t n) {
  unsigned char *p = to;
  if (n > s->left || (s->z == NULL && n > s->in))
    return "the contents are too short";
  if (s->z == NULL) {
    if (fread(to, 1, n, f) != n) return readerror(f);
    s->in -= n;
  } else
    for (size_t done = 0; done < n;) {
      const size_t want = n - done < 1u << 30 ? n - done : 1u << 30;
      const char *error;
      int status;
      s->stream.next_out = p + done;
      s->stream.avail_out = (unsigned)want;
      status = s->z->inflate(&s->stream, 0);
      done += want - s->stream.avail_out;
      if (status == Z_STREAM_END && done < n)
        return "the contents are too short";
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return "the compressed data are damaged";
      if (s->stream.avail_in == 0 && s->stream.avail_out > 0 &&
          status != Z_STREAM_END && (error = refill(s, f)) != NULL)
        return error;
    }
  s->crc = crc32(s->table, s->crc, to, n);
  s->left -= n;
  return NULL;
}

static Source *checksource(lua_State *L, FILE **f) {
  Source *s = luaL_checkudata(L, 1, SOURCE);
  lua_getiuservalue(L, 1, 1);
  *f = filebehind(L, -1);
  lua_pop(L, 1);
  return s;
}

static int fails(lua_State *L, const char *error) {
  luaL_pushfail(L);
  lua_pushstring(L, error);
  return 2;
}

/* source:read(n): a string of n bytes, or nil and what is wrong */
static int source_read(lua_State *L) {
  FILE *f;
  Source *s = checksource(L, &f);
  const lua_Integer n = luaL_checkinteger(L, 2);
  const char *error;
  luaL_Buffer b;
  char *to;
  if (n < 0 || (uint64_t)n > s->left)
    return fails(L, "the contents are too short");
  to = luaL_buffinitsize(L, &b, (size_t)n);
  error = take(s, f, to, (size_t)n);
  luaL_pushresultsize(&b, (size_t)n);
  return error ? fails(L, error) : 1;
}

/* source:left(): how many bytes of the contents are to come */
static int source_left(lua_State *L) {
  FILE *f;
  const Source *s = checksource(L, &f);
  lua_pushinteger(L, (lua_Integer)s->left);
  return 1;
}

/* does the file's part end where the contents do? */
static const char *finish(Source *s, FILE *f) {
  unsigned char extra;
  if (s->left > 0) return "there is more behind the array";
  while (s->z != NULL) {
    const char *error;
    int status;
    s->stream.next_out = &extra;
    s->stream.avail_out = 1;
    status = s->z->inflate(&s->stream, 0);
    if (s->stream.avail_out == 0) return "the contents are too long";
    if (status == Z_STREAM_END) break;
    if (status != Z_OK && status != Z_BUF_ERROR)
      return "the compressed data are damaged";
    if (s->stream.avail_in == 0 && (error = refill(s, f)) != NULL) return error;
  }
  if (s->in > 0 || s->stream.avail_in > 0)
    return "there is more behind the compressed data";
  return NULL;
}

/* source:finish(): the CRC-32 of the contents, all of which have been read;
   nil and a message if there is more */
static int source_finish(lua_State *L) {
  FILE *f;
  Source *s = checksource(L, &f);
  const char *error = finish(s, f);
  if (error != NULL) return fails(L, error);
  lua_pushinteger(L, (lua_Integer)s->crc);
  return 1;
}

/*
** Elements
*/

/* the k bytes at p, the least significant first, or last */
static inline uint64_t bytes(const unsigned char *p, int k, int big) {
  uint64_t u = 0;
  for (int i = 0; i < k; i++) u |= (uint64_t)p[big ? k - 1 - i : i] << (8 * i);
  return u;
}

static inline double fromhalf(uint64_t u) {
  const int e = (int)(u >> 10 & 31), m = (int)(u & 1023);
  double x;
  if (e == 31)
    x = m ? NAN : INFINITY;
  else
    x = e ? ldexp(m + 1024, e - 25) : ldexp(m, -24);
  return u >> 15 ? -x : x;
}

static inline double fromsingle(uint64_t u) {
  const uint32_t v = (uint32_t)u;
  float x;
  memcpy(&x, &v, sizeof x);
  return x;
}

static inline double fromdouble(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* two's complement of k bytes */
static inline double fromsigned(uint64_t u, int k) {
  const uint64_t sign = (uint64_t)1 << (8 * k - 1);
  if (u & sign) return -(double)((sign << 1) - 1 - u + 1);
  return (double)u;
}

/* n elements of k bytes; 'expression' makes a number of the integer u */
#define EACH(k, expression)                                                    \
  do {                                                                         \
    if (big)                                                                   \
      for (size_t i = 0; i < n; i++) {                                         \
        const uint64_t u = bytes(p + i * (k), k, 1);                           \
        to[i] = expression;                                                    \
      }                                                                        \
    else                                                                       \
      for (size_t i = 0; i < n; i++) {                                         \
        const uint64_t u = bytes(p + i * (k), k, 0);                           \
        to[i] = expression;                                                    \
      }                                                                        \
  } while (0)

/* letter and size of NumPy's names of types: f8, u2 */
#define TYPE(letter, size) ((letter) << 8 | (size))

static void convert(double *to, const unsigned char *p, size_t n, int type,
                    int big) {
  switch (type) {
  case TYPE('f', 2):
    EACH(2, fromhalf(u));
    break;
  case TYPE('f', 4):
    EACH(4, fromsingle(u));
    break;
  case TYPE('f', 8):
    EACH(8, fromdouble(u));
    break;
  case TYPE('i', 1):
    EACH(1, fromsigned(u, 1));
    break;
  case TYPE('i', 2):
    EACH(2, fromsigned(u, 2));
    break;
  case TYPE('i', 4):
    EACH(4, fromsigned(u, 4));
    break;
  case TYPE('i', 8):
    EACH(8, fromsigned(u, 8));
    break;
  case TYPE('u', 1):
    EACH(1, (double)u);
    break;
  case TYPE('u', 2):
    EACH(2, (double)u);
    break;
  case TYPE('u', 4):
    EACH(4, (double)u);
    break;
  case TYPE('u', 8):
    EACH(8, (double)u);
    break;
  default: /* b1 */
    EACH(1, (double)(u != 0));
  }
}

/* are 'count' elements as many as the shape says? */
static int enough(uint64_t count, int ndim, const ptrdiff_t *shape) {
  int empty = 0;
  for (int d = 0; d < ndim; d++) empty |= shape[d] == 0;
  for (int d = 0; d < ndim && !empty; d++) count /= (uint64_t)shape[d];
  return empty || count > 0;
}

/*
** source:array(letter, size, big, fortran, shape): the elements that come
** next; nil and a message if there are fewer. Nothing is allocated for
** elements that the source has no bytes for.
*/
static int source_array(lua_State *L) {
  State *S = ad_state(L);
  FILE *f;
  Source *s = checksource(L, &f);
  const char *letter = luaL_checkstring(L, 2);
  const int size = (int)luaL_checkinteger(L, 3);
  const int big = lua_toboolean(L, 4), fortran = lua_toboolean(L, 5);
  const size_t run = size > 0 ? CHUNK / (size_t)size : 0;
  ptrdiff_t shape[AD_MAXDIM];
  unsigned char *chunk;
  Array *a;
  int ndim;
  luaL_argcheck(L, size == 1 || size == 2 || size == 4 || size == 8, 3,
                "bad size");
  lua_settop(L, 6);
  ndim = ad_checkshape(L, 6, shape);
  if (!enough(s->left / (uint64_t)size, ndim, shape))
    return fails(L, "the contents are too short");
  if (fortran)
    for (int d = 0; d < ndim / 2; d++) {
      const ptrdiff_t t = shape[d];
      shape[d] = shape[ndim - 1 - d];
      shape[ndim - 1 - d] = t;
    }
  chunk = lua_newuserdatauv(L, CHUNK, 0);
  a = ad_newarray(L, S, ndim, shape);
  for (size_t i = 0; i < a->size; i += run) {
    const size_t n = a->size - i < run ? a->size - i : run;
    const char *error = take(s, f, chunk, n * (size_t)size);
    if (error != NULL) return fails(L, error);
    convert(a->data + i, chunk, n, TYPE(*letter, size), big);
  }
  if (fortran && ndim > 1) { /* a view with the dimensions in their order */
    Array *v = ad_newview(L, S, -1);
    for (int d = 0; d < ndim; d++) {
      v->shape[d] = a->shape[ndim - 1 - d];
      v->stride[d] = a->stride[ndim - 1 - d];
    }
  }
  return 1;
}

/*
** Writing: float64, the least significant byte first
*/

typedef struct Writer {
  FILE *f; /* NULL: only the CRC */
  Crc *table;
  uint32_t crc;
} Writer;

static int put(Writer *w, const void *data, size_t n) {
  if (w->f != NULL) return fwrite(data, 1, n, w->f) == n;
  w->crc = crc32(w->table, w->crc, data, n);
  return 1;
}

/* the string, number or array at 'arg'; 0: not all was written */
static int putvalue(lua_State *L, State *S, Writer *w, int arg) {
  const double *from;
  double number;
  unsigned char *chunk;
  size_t size;
  if (lua_type(L, arg) == LUA_TSTRING) {
    const char *text = lua_tolstring(L, arg, &size);
    return put(w, text, size);
  }
  if (lua_type(L, arg) == LUA_TNUMBER) {
    number = lua_tonumber(L, arg);
    from = &number;
    size = 1;
  } else {
    const Array *a = ad_checkarray(L, S, arg);
    a = ad_packed(L, S, arg);
    from = a->data;
    size = a->size;
  }
  chunk = lua_newuserdatauv(L, CHUNK, 0);
  while (size > 0) {
    const size_t n = size < CHUNK / 8 ? size : CHUNK / 8;
    for (size_t i = 0; i < n; i++) {
      uint64_t u;
      memcpy(&u, &from[i], sizeof u);
      for (int k = 0; k < 8; k++)
        chunk[8 * i + (size_t)k] = (unsigned char)(u >> (8 * k));
    }
    if (!put(w, chunk, 8 * n)) return 0;
    from += n;
    size -= n;
  }
  return 1;
}

/* write(file, x): true, or nil and a message */
static int l_write(lua_State *L) {
  State *S = ad_state(L);
  Writer w = {NULL, NULL, 0};
  w.f = filebehind(L, 1);
  errno = 0;
  return luaL_fileresult(L, putvalue(L, S, &w, 2), NULL);
}

/* crc(c, x): the CRC-32 of what has c and of what write(x) writes after it */
static int l_crc(lua_State *L) {
  State *S = ad_state(L);
  Writer w = {NULL, NULL, 0};
  w.crc = (uint32_t)luaL_checkinteger(L, 1);
  w.table = crctable(L);
  putvalue(L, S, &w, 2);
  lua_pushinteger(L, (lua_Integer)w.crc);
  return 1;
}

static int closefile(lua_State *L) {
  luaL_Stream *p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  const int status = fclose(p->f);
  return luaL_fileresult(L, status == 0, NULL);
}

/*
** create(path): a file to write to, and the name under which it lies beside
** the path until it is done; no name if what the path names is no regular file
** (a device, a link) and so has to be written to itself. Or nil and a message.
*/
static int l_create(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  const char *base = strrchr(path, '/');
  const int length = base ? (int)(base - path) + 1 : 0;
  struct stat st;
  const int known = lstat(path, &st) == 0;
  luaL_Stream *p = lua_newuserdatauv(L, sizeof *p, 0);
  uint64_t mark = (uint64_t)(uintptr_t)p ^ (uint64_t)time(NULL) << 20 ^
                  (uint64_t)getpid() << 40;
  p->closef = NULL;
  p->f = NULL;
  luaL_setmetatable(L, LUA_FILEHANDLE);
  if (known && !S_ISREG(st.st_mode)) {
    p->f = fopen(path, "wb");
    if (p->f == NULL) return luaL_fileresult(L, 0, path);
    p->closef = closefile;
    return 1;
  }
  if (known && access(path, W_OK) != 0) return luaL_fileresult(L, 0, path);
  for (int attempt = 0;; attempt++) {
    const char *name;
    int fd;
    mark = mark * UINT64_C(6364136223846793005) + 1442695040888963407u;
    lua_settop(L, 2);
    lua_pushlstring(L, path, (size_t)length);
    lua_pushfstring(L, "%s.autodiff-%d.tmp", lua_tostring(L, -1),
                    (int)(mark >> 34));
    name = lua_tostring(L, -1);
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST && attempt < 100) continue;
    if (fd < 0) return luaL_fileresult(L, 0, path);
    if (known) fchmod(fd, st.st_mode & 07777);
    p->f = fdopen(fd, "wb");
    if (p->f == NULL) {
      const int en = errno;
      close(fd);
      unlink(name);
      errno = en;
      return luaL_fileresult(L, 0, path);
    }
    p->closef = closefile;
    lua_remove(L, 3); /* the directory */
    return 2;
  }
}

void ad_opennpy(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"source", l_source},
                                {"write", l_write},
                                {"crc", l_crc},
                                {"create", l_create},
                                {NULL, NULL}};
  static const luaL_Reg method[] = {{"read", source_read},
                                    {"left", source_left},
                                    {"finish", source_finish},
                                    {"array", source_array},
                                    {NULL, NULL}};
  (void)S;
  luaL_newmetatable(L, SOURCE);
  lua_newtable(L);
  ad_setfuncs(L, method, LUA_NOREF);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_newtable(L);
  ad_setfuncs(L, fn, LUA_NOREF);
  lua_setfield(L, -2, "npy");
}
