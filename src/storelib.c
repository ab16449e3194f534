/*
** storelib.c
** c:save(path) and load_program(path). With the programs (store.h) go the forms
** of their arguments and results, and the constants in them:
**
**      4   number of constants; each: 'n' (not in use), 't', 'f', 'i' and 8
**          bytes, 'd' and 8 bytes, 's' and a length (4) and the bytes
**          by program:
**          form of the arguments
**          by leaf of them: 1 byte (Root.sub)
**      4   number of forms of results, which are these
**
** The program used last is the last one.
**
** A form: number of values, of leaves, of words (4 each); the words (4 each).
*/
#include "compile.h"
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAXDEPTH 150 /* of structures, as ad.compile takes them */

/* a block that Lua collects */
static void *room(lua_State *L, size_t n, size_t size) {
  void *at;
  if (n > SIZE_MAX / size - 1) luaL_error(L, "not enough memory");
  at = lua_newuserdatauv(L, (n + 1) * size, 0);
  memset(at, 0, (n + 1) * size);
  return at;
}

/* the error of the system, as ad.save and ad.load have it */
static int nofile(lua_State *L, const char *fname, const char *path) {
  return luaL_error(L, "%s: %s: %s", fname, path, strerror(errno));
}

/*
** {======================================================
** Writing
** =======================================================
*/

/* bytes that are counted first, and then written */
typedef struct Out {
  unsigned char *at; /* or NULL */
  size_t n;
} Out;

static void bytes(Out *o, const void *s, size_t n) {
  if (o->at != NULL && n > 0) memcpy(o->at + o->n, s, n);
  o->n += n;
}

static void number(Out *o, uint64_t x, int n) {
  unsigned char b[8];
  for (int k = 0; k < n; k++) b[k] = (unsigned char)(x >> 8 * k);
  bytes(o, b, (size_t)n);
}

static void form(Out *o, const Form *f) {
  number(o, f->nval, 4);
  number(o, f->nleaf, 4);
  number(o, f->n, 4);
  for (uint32_t k = 0; k < f->n; k++) number(o, f->word[k], 4);
}

/* marks the constants that a form uses; 0: it has a metatable */
static int uses(const Form *f, uint32_t *at, uint8_t *used) {
  const uint32_t *w = f->word + *at;
  uint32_t seq, all, item;
  if (F_ISLEAF(w[0])) {
    *at += 1;
    return 1;
  }
  if (w[0] == F_CONST) {
    used[w[1]] = 1;
    *at += 2;
    return 1;
  }
  if (w[1] != 0) return 0;
  seq = w[2], all = w[3], item = w[4];
  *at += 5;
  for (uint32_t i = 0; !all && i < seq; i++)
    if (!uses(f, at, used)) return 0;
  for (uint32_t i = 0; i < item; i++) {
    used[f->word[(*at)++]] = 1;
    if (!uses(f, at, used)) return 0;
  }
  return 1;
}

static void alluses(lua_State *L, const Form *f, uint8_t *used) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < f->nval; i++)
    if (!uses(f, &at, used))
      luaL_error(L, "save: a structure with a metatable cannot be stored");
}

static void constants(lua_State *L, Out *o, int consts, uint32_t n,
                      const uint8_t *used) {
  number(o, n, 4);
  for (uint32_t k = 1; k <= n; k++) {
    if (!used[k]) {
      bytes(o, "n", 1);
      continue;
    }
    switch (lua_rawgeti(L, consts, k)) {
    case LUA_TBOOLEAN:
      bytes(o, lua_toboolean(L, -1) ? "t" : "f", 1);
      break;
    case LUA_TNUMBER: {
      const lua_Number d = lua_tonumber(L, -1);
      uint64_t u;
      memcpy(&u, &d, sizeof u);
      bytes(o, lua_isinteger(L, -1) ? "i" : "d", 1);
      if (lua_isinteger(L, -1)) u = (uint64_t)lua_tointeger(L, -1);
      number(o, u, 8);
      break;
    }
    case LUA_TSTRING: {
      size_t len;
      const char *s = lua_tolstring(L, -1, &len);
      if (len > UINT32_MAX) luaL_error(L, "save: string is too long");
      bytes(o, "s", 1);
      number(o, len, 4);
      bytes(o, s, len);
      break;
    }
    default:
      luaL_error(L, "save: a %s in arguments or results cannot be stored",
                 luaL_typename(L, -1));
    }
    lua_pop(L, 1);
  }
}

typedef struct File {
  FILE *f;
  int error;
} File;

static int tofile(void *ud, const char *s, size_t n) {
  File *f = ud;
  if (fwrite(s, 1, n, f->f) == n) return 1;
  f->error = errno;
  return 0;
}

/* what is stored of a root */
typedef struct Written {
  const Root *r;
  const Form **set; /* of its results */
  uint32_t nset;
} Written;

/* the same as 'room', in a list */
static void *kept(lua_State *L, int list, size_t n, size_t size) {
  void *at = room(L, n, size);
  lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
  return at;
}

/*
** The code with its results in the order of their forms, which are counted by
** root. 'number' has a zero for each form that there is. Places in the source
** are left out.
*/
static void ordered(lua_State *L, Compiled *c, Root *r, Code *code, Written *s,
                    uint32_t *number, int blocks) {
  const Block *const old = code->block;
  uint32_t most = 0, *order;
  uint32_t *list = kept(L, blocks, code->nlist, sizeof *list);
  Block *block = kept(L, blocks, code->nblock, sizeof *block);
  memcpy(list, code->list, code->nlist * sizeof *list);
  memcpy(block, old, code->nblock * sizeof *block);
  for (uint32_t k = 0; k < code->nblock; k++)
    if (block[k].end == P_RETURN && block[k].b > most) most = block[k].b;
  order = room(L, most, sizeof *order);
  s->r = r;
  s->set = kept(L, blocks, code->nblock, sizeof *s->set);
  /* forms of gradients are made on demand, and move: all of them first */
  for (int ready = 0; ready < 2; ready++)
    for (uint32_t k = 0; k < code->nblock; k++) {
      Block *b = &block[k];
      const Form *f;
      b->place = 0;
      if (b->end != P_RETURN) continue;
      f = ad_rootresults(L, c, 1, r, old[k].set, order);
      if (f == NULL || f->nleaf > old[k].b)
        luaL_error(L, "save: f has results of a form that is not stored");
      if (!ready) continue;
      b->b = f->nleaf;
      for (uint32_t j = 0; j < b->b; j++)
        list[b->a + j] = code->list[b->a + order[j]];
      if (number[old[k].set] == 0) {
        s->set[s->nset] = f;
        number[old[k].set] = ++s->nset;
      }
      b->set = number[old[k].set] - 1;
    }
  for (uint32_t k = 0; k < code->nblock; k++)
    if (old[k].end == P_RETURN) number[old[k].set] = 0;
  lua_pop(L, 1);
  code->list = list;
  code->block = block;
}

static void forms(Out *o, const Written *s) {
  form(o, &s->r->in);
  bytes(o, s->r->sub, s->r->in.nleaf);
  number(o, s->nset, 4);
  for (uint32_t k = 0; k < s->nset; k++) form(o, s->set[k]);
}

static int l_save(lua_State *L) {
  Compiled *c = ad_tocompiled(L, 1);
  const char *path = luaL_checkstring(L, 2);
  uint32_t n = 0, *set;
  Code *code;
  Written *s;
  uint8_t *used;
  Out o = {NULL, 0};
  File f = {NULL, 0};
  int blocks, ok;
  lua_settop(L, 2);
  code = room(L, c->nroot, sizeof *code);
  s = room(L, c->nroot, sizeof *s);
  set = room(L, c->nset, sizeof *set);
  used = room(L, (size_t)c->nconst + 1, 1);
  lua_newtable(L);
  blocks = lua_gettop(L);
  for (uint32_t k = c->nroot; k-- > 0;) {
    Root *r = c->root[k];
    if (r->prog.ntrace == 0) continue;
    if (!ad_rootcode(L, c, r))
      return luaL_error(L, "save: a gradient that is yet to be recorded anew");
    ad_refusearrays(L, r, "save");
    if (r->code.relaxed) ad_rootexact(L, c, r);
    code[n] = r->code.relaxed ? r->exact : r->code;
    ordered(L, c, r, &code[n], &s[n], set, blocks);
    alluses(L, &r->in, used);
    for (uint32_t j = 0; j < s[n].nset; j++) alluses(L, s[n].set[j], used);
    n++;
  }
  if (n == 0)
    return luaL_error(L, "save: %s",
                      c->eager ? c->eager
                               : "nothing recorded yet: call the function "
                                 "first");
  lua_getiuservalue(L, 1, AD_CCONST);
  for (int pass = 0; pass < 2; pass++) {
    const int consts = blocks + 1;
    if (pass == 1) o.at = room(L, o.n, 1);
    o.n = 0;
    constants(L, &o, consts, c->nconst, used);
    for (uint32_t k = 0; k < n; k++) forms(&o, &s[k]);
  }
  errno = 0;
  f.f = fopen(path, "wb");
  if (f.f == NULL) return nofile(L, "save", path);
  ok = ad_store(code, n, o.at, o.n, tofile, &f);
  if (fclose(f.f) != 0 && f.error == 0) f.error = errno;
  if (!ok && f.error == 0) {
    remove(path);
    return luaL_error(L, "not enough memory");
  }
  errno = f.error;
  if (f.error != 0) return nofile(L, "save", path);
  return 0;
}

/* }====================================================== */

/*
** {======================================================
** Reading
** =======================================================
*/

typedef struct In {
  const unsigned char *at;
  size_t left;
  int bad;
} In;

static uint64_t take(In *in, int n) {
  uint64_t x = 0;
  if (in->left < (size_t)n) {
    in->bad = 1;
    return 0;
  }
  for (int k = 0; k < n; k++) x |= (uint64_t)in->at[k] << 8 * k;
  in->at += n;
  in->left -= (size_t)n;
  return x;
}

/* words of one value: are they a form? counts leaves; 'n' constants exist */
static int isform(const Form *f, uint64_t *at, uint64_t *leaf,
                  const uint8_t *type, uint32_t n, int depth) {
  const uint32_t *w = f->word + *at;
  const uint64_t left = f->n > *at ? f->n - *at : 0;
  if (left < 1 || depth > MAXDEPTH) return 0;
  if (F_ISLEAF(w[0])) {
    *leaf += 1;
    *at += 1;
    return 1;
  }
  if (w[0] == F_CONST) {
    *at += 2;
    return left >= 2 && w[1] <= n;
  }
  if (w[0] != F_TABLE || left < 5 || w[1] != 0 || w[3] > 1) return 0;
  *at += 5;
  if (w[3])
    *leaf += w[2];
  else
    for (uint32_t i = 0; i < w[2]; i++)
      if (!isform(f, at, leaf, type, n, depth + 1)) return 0;
  for (uint32_t i = 0; i < w[4]; i++) {
    if (*at >= f->n || f->word[*at] < 1 || f->word[*at] > n ||
        type[f->word[*at]] == 'n')
      return 0;
    *at += 1;
    if (!isform(f, at, leaf, type, n, depth + 1)) return 0;
  }
  return 1;
}

static void readform(lua_State *L, In *in, Form *f, const uint8_t *type,
                     uint32_t nconst) {
  uint64_t at = 0, leaf = 0;
  memset(f, 0, sizeof *f);
  f->nval = (uint32_t)take(in, 4);
  f->nleaf = (uint32_t)take(in, 4);
  f->n = (uint32_t)take(in, 4);
  if (in->bad || f->n > in->left / 4 || f->nval > f->n) {
    in->bad = 1;
    f->n = f->nval = f->nleaf = 0;
    return;
  }
  f->word = room(L, f->n, sizeof *f->word);
  for (uint32_t k = 0; k < f->n; k++) f->word[k] = (uint32_t)take(in, 4);
  for (uint32_t i = 0; i < f->nval && !in->bad; i++)
    if (!isform(f, &at, &leaf, type, nconst, 0)) in->bad = 1;
  if (at != f->n || leaf != f->nleaf) in->bad = 1;
}

/* the constants into the table at the top; their types */
static uint8_t *readconstants(lua_State *L, In *in, int consts, uint32_t *n) {
  uint8_t *type;
  *n = (uint32_t)take(in, 4);
  if (in->bad || *n > in->left) {
    in->bad = 1;
    *n = 0;
  }
  type = room(L, (size_t)*n + 1, 1);
  for (uint32_t k = 1; k <= *n && !in->bad; k++) {
    uint64_t u;
    double d;
    type[k] = (uint8_t)take(in, 1);
    switch (type[k]) {
    case 'n':
      continue;
    case 't':
    case 'f':
      lua_pushboolean(L, type[k] == 't');
      break;
    case 'i':
      u = take(in, 8);
      lua_pushinteger(L, (lua_Integer)u);
      break;
    case 'd':
      u = take(in, 8);
      memcpy(&d, &u, sizeof d);
      if (d != d) type[k] = 'n'; /* no key */
      lua_pushnumber(L, d);
      break;
    case 's':
      u = take(in, 4);
      if (in->bad || u > in->left) {
        in->bad = 1;
        continue;
      }
      lua_pushlstring(L, (const char *)in->at, (size_t)u);
      in->at += u;
      in->left -= (size_t)u;
      break;
    default:
      in->bad = 1;
      continue;
    }
    lua_rawseti(L, consts, k);
  }
  return type;
}

#define FORMS "its forms are wrong"

static int wrong(lua_State *L, const char *path, const char *why) {
  return luaL_error(L, "load_program: '%s': %s", path, why);
}

/* what a stored program calls where it cannot go on by itself */
static int nopath(lua_State *L) {
  return luaL_error(
      L, "stored program: these arguments have another form, or lead where "
         "nobody has been when it was recorded");
}

/* the file at 'path' into a block that is left on the stack; NULL: cannot */
static void *contents(lua_State *L, const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  long size = -1;
  int k;
  unsigned char *s;
  if (f == NULL) return NULL;
  getc(f); /* of a directory only this says that it is none */
  if (!ferror(f) && fseek(f, 0, SEEK_END) == 0) size = ftell(f);
  k = errno; /* which fclose may change */
  fclose(f);
  errno = k;
  if (size < 0) return NULL;
  s = room(L, (size_t)size, 1);
  f = fopen(path, "rb");
  if (f == NULL) return NULL;
  *n = fread(s, 1, (size_t)size, f);
  if (ferror(f)) s = NULL;
  fclose(f);
  return s;
}

/* the next program; what is wrong, or NULL */
static const char *program(lua_State *L, Compiled *c, Stored *s, In *x,
                           const uint8_t *type) {
  const int top = lua_gettop(L);
  const uint32_t first = c->nset;
  const char *why;
  uint32_t nset;
  void *ud;
  lua_Alloc alloc = lua_getallocf(L, &ud);
  Form f;
  Root *r;
  readform(L, x, &f, type, c->nconst);
  if (x->bad || f.nleaf > x->left) return FORMS;
  r = ad_storedroot(L, c, &f);
  for (uint32_t k = 0; k < f.nleaf; k++) {
    r->sub[k] = (uint8_t)take(x, 1);
    if (r->sub[k] > 2) x->bad = 1;
    if (r->sub[k] != 0) r->subs = 1;
  }
  nset = (uint32_t)take(x, 4);
  lua_settop(L, top);
  for (uint32_t k = 0; k < nset && !x->bad; k++) {
    readform(L, x, &f, type, c->nconst);
    if (!x->bad) ad_storedset(L, c, &f);
    lua_settop(L, top);
  }
  if (x->bad) return FORMS;
  while (!ad_load(s, &r->code, alloc, ud, &why)) {
    if (why != NULL) return why;
    ad_nomem(L, s->left);
  }
  if (r->code.nin != r->in.nleaf) return FORMS;
  for (uint32_t k = 0; k < r->code.nblock; k++) {
    Block *b = &r->code.block[k];
    b->place = 0;
    if (b->end != P_RETURN) continue;
    if (b->set >= nset || c->set[first + b->set].nleaf != b->b) return FORMS;
    b->set += first;
  }
  ad_storedcode(L, c, r);
  return NULL;
}

int ad_loadprogram(lua_State *L) {
  State *S = ad_state(L);
  const char *path = luaL_checkstring(L, 1);
  const char *why;
  const uint8_t *type;
  void *data;
  Compiled *c;
  Stored s;
  In x;
  size_t n = 0;
  int self;
  lua_settop(L, 1);
  errno = 0;
  data = contents(L, path, &n);
  if (data == NULL) return nofile(L, "load_program", path);
  c = ad_newcompiled(L, S);
  self = lua_gettop(L);
  c->stored = 1;
  c->maxstack = ((size_t)1 << 28) / sizeof(double);
  lua_pushcfunction(L, nopath);
  lua_setiuservalue(L, self, AD_CF);
  why = ad_loadbegin(&s, data, n);
  if (why != NULL) return wrong(L, path, why);
  x.at = s.extra;
  x.left = s.nextra;
  x.bad = 0;
  lua_getiuservalue(L, self, AD_CCONST);
  type = readconstants(L, &x, lua_gettop(L), &c->nconst);
  while (s.n > 0 && why == NULL) why = program(L, c, &s, &x, type);
  if (why == NULL && x.left != 0) why = FORMS;
  if (why != NULL) return wrong(L, path, why);
  lua_settop(L, self);
  return 1;
}

/* }====================================================== */

void ad_openstorelib(lua_State *L, State *S) {
  static const luaL_Reg method[] = {{"save", l_save}, {NULL, NULL}};
  (void)S;
  ad_setfuncs(L, method, LUA_NOREF);
}
