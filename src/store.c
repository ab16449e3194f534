/*
** store.c
** See store.h.
*/
#include "store.h"

#include <string.h>

static const unsigned char magic[8] = {0x89, 'A',  'D', 'P',
                                       '\r', '\n', 26,  '\n'};

#define VERSION 2
#define ORDER 0x04030201u

uint64_t ad_checksum(const void *data, size_t n) {
  const unsigned char *p = data;
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t k = 0; k < n; k++) h = (h ^ p[k]) * UINT64_C(0x100000001b3);
  return h;
}

/*
** Writing, into a block of the size that a first pass has counted
*/

typedef struct Out {
  unsigned char *at; /* NULL: only count */
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

static void put32(Out *o, uint32_t x) { number(o, x, 4); }

/* operations by their names; lists are told from others by their first letter */
static uint8_t namelength(int op) {
  return (uint8_t)(strlen(ad_insname(op)) + (ad_islist(op) ? 1 : 0));
}

static void name(Out *o, int op) {
  const char *s = ad_insname(op);
  number(o, namelength(op), 1);
  if (ad_islist(op)) bytes(o, "#", 1);
  bytes(o, s, strlen(s));
}

static void program(Out *o, const Code *c) {
  uint32_t index[P_COUNT] = {0}, n = 0;
  put32(o, c->nconst);
  put32(o, c->nin);
  put32(o, c->nslot);
  put32(o, c->nins);
  put32(o, c->nblock);
  put32(o, c->nlist);
  for (uint32_t i = 0; i < c->nins; i++)
    if (index[c->ins[i].op] == 0) index[c->ins[i].op] = ++n;
  put32(o, n);
  for (uint32_t k = 1; k <= n; k++)
    for (int op = 0; op < P_COUNT; op++)
      if (index[op] == k) name(o, op);
  for (uint32_t k = 0; k < c->nconst; k++) {
    uint64_t u;
    memcpy(&u, &c->constant[k], sizeof u);
    number(o, u, 8);
  }
  for (uint32_t i = 0; i < c->nins; i++) {
    const Ins *x = &c->ins[i];
    number(o, index[x->op] - 1, 2);
    number(o, x->flags, 2);
    put32(o, x->d);
    put32(o, x->a);
    put32(o, x->b);
    put32(o, x->c);
  }
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    put32(o, b->first);
    put32(o, b->last);
    number(o, b->end, 1);
    number(o, b->cmp, 1);
    number(o, b->place, 2);
    put32(o, b->a);
    put32(o, b->b);
    put32(o, b->yes);
    put32(o, b->no);
    put32(o, b->set);
    put32(o, b->parent);
  }
  for (uint32_t k = 0; k < c->nlist; k++) put32(o, c->list[k]);
}

static void body(Out *o, const Code *c, uint32_t n, const void *extra,
                 size_t nextra) {
  number(o, nextra, 8);
  bytes(o, extra, nextra);
  put32(o, n);
  for (uint32_t k = 0; k < n; k++) program(o, &c[k]);
}

static void head(Out *o, size_t n, uint64_t sum) {
  bytes(o, magic, sizeof magic);
  put32(o, VERSION);
  put32(o, ORDER);
  number(o, n, 8);
  number(o, sum, 8);
}

int ad_store(const Code *c, uint32_t n, const void *extra, size_t nextra,
             int (*write)(void *ud, const char *s, size_t n), void *ud) {
  Out o = {NULL, 0};
  size_t size;
  int ok;
  body(&o, c, n, extra, nextra);
  size = o.n;
  o.at = c->alloc(c->ud, NULL, 0, AD_STOREHEAD + size);
  if (o.at == NULL) return 0;
  o.n = AD_STOREHEAD;
  body(&o, c, n, extra, nextra);
  o.n = 0;
  head(&o, size, ad_checksum(o.at + AD_STOREHEAD, size));
  ok = write(ud, (const char *)o.at, AD_STOREHEAD + size) != 0;
  c->alloc(c->ud, o.at, AD_STOREHEAD + size, 0);
  return ok;
}

/*
** Reading
*/

typedef struct In {
  const unsigned char *at;
  size_t left;
  const char *why;
} In;

static uint64_t take(In *in, int n) {
  uint64_t x = 0;
  if (in->left < (size_t)n) {
    in->why = "file is truncated";
    in->left = 0;
    return 0;
  }
  for (int k = 0; k < n; k++) x |= (uint64_t)in->at[k] << 8 * k;
  in->at += n;
  in->left -= (size_t)n;
  return x;
}

static uint32_t take32(In *in) { return (uint32_t)take(in, 4); }

/* n items of so many bytes must be there */
static int there(In *in, uint32_t n, size_t size) {
  if (in->why == NULL && n > in->left / size) in->why = "file is truncated";
  return in->why == NULL;
}

static int operation(In *in) {
  const size_t n = (size_t)take(in, 1);
  const unsigned char *s = in->at;
  if (in->why != NULL || !there(in, (uint32_t)n, 1)) return -1;
  in->at += n;
  in->left -= n;
  for (int op = 0; op < P_COUNT; op++) {
    const size_t list = ad_islist(op);
    if (op == P_INPUT || op == P_PHI || namelength(op) != n) continue;
    if (list && s[0] != '#') continue;
    if (memcmp(s + list, ad_insname(op), n - list) == 0) return op;
  }
  in->why = "it has an operation that this version does not know";
  return -1;
}

static void *room(Code *c, size_t n, size_t size) {
  return c->alloc(c->ud, NULL, 0, n * size);
}

static int read(In *in, Code *c) {
  uint16_t op[P_COUNT];
  uint32_t nop;
  const uint32_t nconst = take32(in), nin = take32(in), nslot = take32(in),
                 nins = take32(in), nblock = take32(in), nlist = take32(in);
  nop = take32(in);
  if (in->why != NULL) return 0;
  if (nop > P_COUNT) {
    in->why = "it has too many operations";
    return 0;
  }
  for (uint32_t k = 0; k < nop; k++) {
    const int x = operation(in);
    if (x < 0) return 0;
    op[k] = (uint16_t)x;
  }
  if (nins > P_MAXINS || nconst < 3 || nblock == 0 ||
      nslot < (uint64_t)nconst + nin ||
      nslot > (uint64_t)nconst + nin + nins + 1) {
    in->why = "its counts are wrong";
    return 0;
  }
  c->nin = nin;
  c->nslot = nslot;
  if (!there(in, nconst, 8)) return 0;
  c->constant = room(c, nconst, sizeof *c->constant);
  if (c->constant == NULL) return 0;
  c->nconst = nconst;
  for (uint32_t k = 0; k < nconst; k++) {
    const uint64_t u = take(in, 8);
    memcpy(&c->constant[k], &u, sizeof u);
  }
  if (!there(in, nins, 20)) return 0;
  c->ins = room(c, (size_t)nins + 1, sizeof *c->ins);
  if (c->ins == NULL) return 0;
  c->nins = nins;
  c->capins = nins + 1;
  for (uint32_t i = 0; i < nins; i++) {
    Ins *x = &c->ins[i];
    const uint32_t k = (uint32_t)take(in, 2);
    if (k >= nop) {
      in->why = "it has a wrong operation";
      return 0;
    }
    x->op = op[k];
    x->flags = (uint16_t)take(in, 2);
    x->d = take32(in);
    x->a = take32(in);
    x->b = take32(in);
    x->c = take32(in);
  }
  if (!there(in, nblock, 36)) return 0;
  c->block = room(c, nblock, sizeof *c->block);
  if (c->block == NULL) return 0;
  c->nblock = nblock;
  for (uint32_t k = 0; k < nblock; k++) {
    Block *b = &c->block[k];
    memset(b, 0, sizeof *b);
    b->first = take32(in);
    b->last = take32(in);
    b->end = (uint8_t)take(in, 1);
    b->cmp = (uint8_t)take(in, 1);
    b->place = (uint16_t)take(in, 2);
    b->a = take32(in);
    b->b = take32(in);
    b->yes = take32(in);
    b->no = take32(in);
    b->set = take32(in);
    b->parent = take32(in);
    b->loop = P_NONE;
  }
  if (!there(in, nlist, 4)) return 0;
  c->list = room(c, (size_t)nlist + 1, sizeof *c->list);
  if (c->list == NULL) return 0;
  c->nlist = nlist;
  c->caplist = nlist + 1;
  for (uint32_t k = 0; k < nlist; k++) c->list[k] = take32(in);
  return in->why == NULL;
}

/*
** Is it a program? What the members of Code say in addition (maxlist, loops,
** stack, and the loops of blocks) is not stored but found out.
*/

static int list(const Code *c, uint32_t first, uint32_t n) {
  if (first > c->nlist || n > c->nlist - first) return 0;
  for (uint32_t k = 0; k < n; k++)
    if (c->list[first + k] >= c->nslot) return 0;
  return 1;
}

static const char *instructions(Code *c) {
  for (uint32_t i = 0; i < c->nins; i++) {
    const Ins *x = &c->ins[i];
    const int n = ad_insarity(x->op);
    if (x->op == P_PUSH)
      c->stack = 1;
    else if (x->d < c->nconst + c->nin || x->d >= c->nslot)
      return "it has a wrong slot";
    if ((n > 0 && x->a >= c->nslot) || (n > 1 && x->b >= c->nslot) ||
        (n > 2 && x->c >= c->nslot))
      return "it has a wrong slot";
    if (x->op == P_POP) c->stack = 1;
    if (!ad_islist(x->op)) continue;
    if (x->b == 0 || !list(c, x->a, x->b)) return "it has a wrong list";
    if (x->b > c->maxlist) c->maxlist = x->b;
  }
  return NULL;
}

/* one side of the end of block k */
static int side(const Code *c, uint32_t k, uint32_t to) {
  return to < c->nblock && to > k && c->block[to].parent == k;
}

static const char *blocks(const Code *c) {
  uint32_t at = 0;
  for (uint32_t k = 0; k < c->nblock; k++) {
    const Block *b = &c->block[k];
    if (b->first != at || b->last < at || b->last > c->nins)
      return "its blocks are not in order";
    at = b->last;
    if (k == 0 ? b->parent != P_NONE : b->parent >= k)
      return "its blocks are not a tree";
    switch (b->end) {
    case P_GOTO:
      if (b->yes > k ? !side(c, k, b->yes) : b->yes >= c->nblock)
        return "it jumps nowhere";
      break;
    case P_IF:
      if (b->cmp > P_SAME || b->a >= c->nslot || b->b >= c->nslot)
        return "it has a wrong comparison";
      if ((b->yes != P_NONE && !side(c, k, b->yes)) ||
          (b->no != P_NONE && !side(c, k, b->no)))
        return "it jumps nowhere";
      break;
    case P_RETURN:
      if (!list(c, b->a, b->b)) return "it has a wrong list";
      break;
    default:
      return "it has a wrong block";
    }
  }
  return at == c->nins ? NULL : "its blocks are not in order";
}

/*
** Loops: a jump back goes to a block that the jumping one is below, and the
** blocks on the way are in that loop, unless they are in one further in, whose
** head has a higher number. 'up' leads past blocks whose loop is known, so
** that each is passed once.
*/
static uint32_t find(uint32_t *up, uint32_t k) {
  uint32_t root = k;
  while (up[root] != root) root = up[root];
  while (up[k] != root) {
    const uint32_t next = up[k];
    up[k] = root;
    k = next;
  }
  return root;
}

static const char *loops(Code *c) {
  const uint32_t n = c->nblock;
  const char *why = NULL;
  uint32_t *up = room(c, (size_t)n * 3, sizeof *up);
  uint32_t *jump, *next; /* to a block, plus 1 */
  if (up == NULL) return "";
  jump = up + n;
  next = jump + n;
  for (uint32_t k = 0; k < n; k++) {
    up[k] = k;
    jump[k] = 0;
  }
  for (uint32_t k = 0; k < n; k++) {
    const Block *b = &c->block[k];
    if (b->end != P_GOTO || b->yes > k) continue;
    next[k] = jump[b->yes];
    jump[b->yes] = k + 1;
    c->loops = 1;
  }
  for (uint32_t head = n; head-- > 0 && why == NULL;) {
    for (uint32_t j = jump[head]; j != 0 && why == NULL; j = next[j - 1]) {
      uint32_t at = find(up, j - 1);
      while (at > head) {
        c->block[at].loop = head;
        up[at] = c->block[at].parent;
        at = find(up, at);
      }
      if (at != head) why = "it jumps out of its loops";
    }
    if (jump[head] == 0 || why != NULL) continue;
    c->block[head].loop = head;
    if (head > 0) up[head] = c->block[head].parent;
  }
  c->alloc(c->ud, up, (size_t)n * 3 * sizeof *up, 0);
  return why;
}

static const char *check(Code *c) {
  const double first[3] = {1, -1, -0.0};
  const char *why;
  if (memcmp(c->constant, first, sizeof first) != 0)
    return "its constants are wrong";
  why = instructions(c);
  if (why == NULL) why = blocks(c);
  if (why == NULL) why = loops(c);
  return why;
}

const char *ad_loadbegin(Stored *s, const void *data, size_t n) {
  In in;
  uint64_t length, sum;
  in.at = data;
  in.left = n;
  in.why = NULL;
  if (n < AD_STOREHEAD || memcmp(data, magic, sizeof magic) != 0)
    return "not a stored program";
  in.at += sizeof magic;
  in.left -= sizeof magic;
  if (take32(&in) != VERSION) return "it was stored by another version";
  if (take32(&in) != ORDER) return "its bytes are in another order";
  length = take(&in, 8);
  sum = take(&in, 8);
  if (length != in.left)
    return length > in.left ? "file is truncated" : "file is too long";
  if (ad_checksum(in.at, in.left) != sum) return "file is damaged";
  length = take(&in, 8);
  if (in.why == NULL && length > in.left) in.why = "file is truncated";
  if (in.why != NULL) return in.why;
  s->extra = in.at;
  s->nextra = (size_t)length;
  in.at += length;
  in.left -= (size_t)length;
  s->n = take32(&in);
  if (in.why == NULL && s->n == 0) in.why = "it has no program";
  s->at = in.at;
  s->left = in.left;
  return in.why;
}

int ad_load(Stored *s, Code *c, ad_Alloc alloc, void *ud, const char **why) {
  In in;
  in.at = s->at;
  in.left = s->left;
  in.why = NULL;
  memset(c, 0, sizeof *c);
  c->alloc = alloc;
  c->ud = ud;
  if (read(&in, c)) {
    in.why = check(c);
    if (in.why == NULL && s->n == 1 && in.left != 0)
      in.why = "its length is wrong";
    if (in.why == NULL) {
      s->at = in.at;
      s->left = in.left;
      s->n--;
      return 1;
    }
    if (in.why[0] == '\0') in.why = NULL; /* no memory */
  }
  *why = in.why;
  /* as if all had been read, for those that have */
  c->capins = c->ins != NULL ? c->capins : 0;
  c->caplist = c->list != NULL ? c->caplist : 0;
  ad_codefree(c);
  return 0;
}
