/*
** x64.c
** The assembler: see x64.h, and for the encodings chapter 2 of the second
** volume of Intel's manual.
*/
#include "x64.h"

#include <string.h>

/*
** The buffer. After a failure there is still room for one instruction, which
** is written again and again.
*/

#define LONGEST 32 /* at least what one function here writes */

int ad_asminit(Asm *s, ad_Alloc alloc, void *ud, int features) {
  memset(s, 0, sizeof *s);
  s->alloc = alloc;
  s->ud = ud;
  s->features = features;
  s->code = alloc(ud, NULL, 0, 1024);
  if (s->code == NULL) return 0;
  s->cap = 1024;
  return 1;
}

void ad_asmfree(Asm *s) {
  if (s->code != NULL) s->alloc(s->ud, s->code, s->cap, 0);
  if (s->start != NULL)
    s->alloc(s->ud, s->start, s->capstart * sizeof *s->start, 0);
  s->code = NULL;
  s->start = NULL;
  s->n = s->cap = s->nstart = s->capstart = 0;
}

static void grow(Asm *s) {
  uint8_t *code = s->alloc(s->ud, s->code, s->cap, s->cap * 2);
  if (code == NULL) {
    s->failed = 1;
    s->n = 0;
  } else {
    s->code = code;
    s->cap *= 2;
  }
}

static void note(Asm *s) {
  if (s->nstart == s->capstart) {
    const size_t ncap = s->capstart * 2 + 64;
    size_t *start = s->alloc(s->ud, s->start, s->capstart * sizeof *start,
                             ncap * sizeof *start);
    if (start == NULL) {
      s->failed = 1;
      return;
    }
    s->start = start;
    s->capstart = ncap;
  }
  s->start[s->nstart++] = s->n;
}

/* an instruction begins */
static uint8_t *begin(Asm *s) {
  if (s->cap - s->n < LONGEST) grow(s);
  if (s->record) note(s);
  return s->code + s->n;
}

static void end(Asm *s, const uint8_t *p) { s->n = (size_t)(p - s->code); }

static uint8_t *put32(uint8_t *p, uint32_t x) {
  for (int i = 0; i < 4; i++) *p++ = (uint8_t)(x >> 8 * i);
  return p;
}

/*
** Operands: ModRM, SIB, and displacement. 'tail' is how many bytes follow
** until the instruction ends, from where offsets in the code are counted.
*/
static uint8_t *operand(const Asm *s, uint8_t *p, int r, Arg b, int tail) {
  const int reg = (r & 7) << 3, base = b.reg & 7;
  if (b.kind == A_REG) {
    *p++ = (uint8_t)(0xc0 | reg | base);
  } else if (b.kind == A_HERE) {
    *p++ = (uint8_t)(0x05 | reg);
    p = put32(p, (uint32_t)b.at * (s->wide ? 32 : 16) -
                     (uint32_t)(p + 4 + tail - s->code));
  } else {
    const int near = b.at >= -128 && b.at < 128;
    const int none = b.at == 0 && base != RBP;
    *p++ = (uint8_t)((none ? 0 : near ? 0x40 : 0x80) | reg | base);
    if (base == RSP) *p++ = 0x24;
    if (near && !none) *p++ = (uint8_t)b.at;
    if (!near) p = put32(p, (uint32_t)b.at);
  }
  return p;
}

static int high(Arg b) { return b.kind != A_HERE && b.reg >= 8; }

static Arg xmm(int r) {
  const Arg b = {A_REG, (uint8_t)r, 0};
  return b;
}

enum { NONE, P66, PF3, PF2 };
enum { M_0F = 1, M_0F38, M_0F3A };

/* with AVX: prefix, opcode and operands; a < 0 where there are only two. For
   vectors the prefix says "doubles" instead of "the first double". */
static uint8_t *vex(const Asm *s, uint8_t *p, int prefix, int map, int w,
                    int opcode, int d, int a, Arg b, int tail) {
  const int vvvv = (a < 0 ? 15 : ~a & 15) << 3 | (s->wide ? 4 : 0);
  if (s->wide && prefix == PF2) prefix = P66;
  if (!high(b) && map == M_0F && !w) {
    *p++ = 0xc5;
    *p++ = (uint8_t)((d < 8 ? 0x80 : 0) | vvvv | prefix);
  } else {
    *p++ = 0xc4;
    *p++ = (uint8_t)((d < 8 ? 0x80 : 0) | 0x40 | (high(b) ? 0 : 0x20) | map);
    *p++ = (uint8_t)((w ? 0x80 : 0) | vvvv | prefix);
  }
  *p++ = (uint8_t)opcode;
  return operand(s, p, d, b, tail);
}

static uint8_t *sse(const Asm *s, uint8_t *p, int prefix, int map, int w,
                    int opcode, int d, Arg b, int tail) {
  static const uint8_t byte[] = {0, 0x66, 0xf3, 0xf2};
  const int rex = (w ? 8 : 0) | (d >= 8 ? 4 : 0) | (high(b) ? 1 : 0);
  if (prefix != NONE) *p++ = byte[prefix];
  if (rex) *p++ = (uint8_t)(0x40 | rex);
  *p++ = 0x0f;
  if (map == M_0F3A) *p++ = 0x3a;
  *p++ = (uint8_t)opcode;
  return operand(s, p, d, b, tail);
}

static void two(Asm *s, int prefix, int opcode, int d, Arg b) {
  uint8_t *p = begin(s);
  if (s->features & X_AVX)
    p = vex(s, p, prefix, M_0F, 0, opcode, d, -1, b, 0);
  else
    p = sse(s, p, prefix, M_0F, 0, opcode, d, b, 0);
  end(s, p);
}

void ad_asmop(Asm *s, int op, int d, int a, Arg b) {
  const int prefix = op >= X_AND && op <= X_XOR ? NONE : PF2;
  uint8_t *p;
  if (s->features & X_AVX) {
    p = begin(s);
    end(s, vex(s, p, prefix, M_0F, 0, op, d, a, b, 0));
    return;
  }
  if (d != a) {
    if (b.kind == A_REG && b.reg == d) /* commutes */
      b = xmm(a);
    else
      ad_asmmove(s, d, a);
  }
  p = begin(s);
  end(s, sse(s, p, prefix, M_0F, 0, op, d, b, 0));
}

void ad_asmcmp(Asm *s, int cmp, int d, int a, Arg b) {
  uint8_t *p;
  if (s->features & X_AVX) {
    p = begin(s);
    p = vex(s, p, PF2, M_0F, 0, X_CMP, d, a, b, 1);
  } else {
    if (d != a) ad_asmmove(s, d, a);
    p = begin(s);
    p = sse(s, p, PF2, M_0F, 0, X_CMP, d, b, 1);
  }
  *p++ = (uint8_t)cmp;
  end(s, p);
}

static void fma3(Asm *s, int opcode, int d, int a, Arg b) {
  uint8_t *p = begin(s);
  end(s, vex(s, p, P66, M_0F38, 1, opcode + !s->wide, d, a, b, 0));
}

void ad_asmfma(Asm *s, int kind, int d, int a, Arg b) {
  fma3(s, 0xb8 + kind, d, a, b);
}

void ad_asmfmafactor(Asm *s, int kind, int d, int c, Arg b) {
  fma3(s, 0x98 + kind, d, c, b);
}

/* the operand is d in the end, so that nothing waits for what d was */
void ad_asmsqrt(Asm *s, int d, int a) {
  uint8_t *p;
  if (s->features & X_AVX) {
    p = begin(s);
    end(s, vex(s, p, PF2, M_0F, 0, 0x51, d, s->wide ? -1 : a, xmm(a), 0));
    return;
  }
  if (d != a) ad_asmmove(s, d, a);
  p = begin(s);
  end(s, sse(s, p, PF2, M_0F, 0, 0x51, d, xmm(d), 0));
}

void ad_asmround(Asm *s, int mode, int d, int a) {
  uint8_t *p;
  if (s->features & X_AVX) {
    p = begin(s);
    p = vex(s, p, P66, M_0F3A, 0, s->wide ? 0x09 : 0x0b, d, s->wide ? -1 : a,
            xmm(a), 1);
  } else {
    if (d != a) ad_asmmove(s, d, a);
    p = begin(s);
    p = sse(s, p, P66, M_0F3A, 0, 0x0b, d, xmm(d), 1);
  }
  *p++ = (uint8_t)mode;
  end(s, p);
}

void ad_asmmove(Asm *s, int d, int a) { two(s, NONE, 0x28, d, xmm(a)); }

void ad_asmload(Asm *s, int d, Arg b) { two(s, PF2, 0x10, d, b); }

void ad_asmspread(Asm *s, int d, Arg b) {
  uint8_t *p = begin(s);
  end(s, vex(s, p, P66, M_0F38, 0, 0x19, d, -1, b, 0));
}

void ad_asmzeroupper(Asm *s) {
  uint8_t *p = begin(s);
  *p++ = 0xc5;
  *p++ = 0xf8;
  *p++ = 0x77;
  end(s, p);
}

void ad_asmstore(Asm *s, Arg b, int a) { two(s, PF2, 0x11, a, b); }

void ad_asmcompare(Asm *s, int quiet, int a, Arg b) {
  two(s, P66, quiet ? 0x2e : 0x2f, a, b);
}

void ad_asmbits(Asm *s, int gp, int a) {
  uint8_t *p = begin(s);
  if (s->features & X_AVX)
    p = vex(s, p, P66, M_0F, 1, 0x7e, a, -1, xmm(gp), 0);
  else
    p = sse(s, p, P66, M_0F, 1, 0x7e, a, xmm(gp), 0);
  end(s, p);
}

/*
** General registers
*/

static uint8_t *rex(uint8_t *p, int w, int r, int b) {
  const int x = (w ? 8 : 0) | (r >= 8 ? 4 : 0) | (b >= 8 ? 1 : 0);
  if (x) *p++ = (uint8_t)(0x40 | x);
  return p;
}

void ad_asmgp(Asm *s, int opcode, int r, Arg b) {
  uint8_t *p = rex(begin(s), 1, r, b.kind == A_HERE ? 0 : b.reg);
  *p++ = (uint8_t)opcode;
  end(s, operand(s, p, r, b, 0));
}

void ad_asmaddi(Asm *s, int r, int32_t x) {
  uint8_t *p = rex(begin(s), 1, 0, r);
  const int near = x >= -128 && x < 128;
  *p++ = near ? 0x83 : 0x81;
  *p++ = (uint8_t)(0xc0 | (r & 7));
  if (near)
    *p++ = (uint8_t)x;
  else
    p = put32(p, (uint32_t)x);
  end(s, p);
}

void ad_asmshl(Asm *s, int r, int bits) {
  uint8_t *p = rex(begin(s), 1, 0, r);
  *p++ = 0xc1;
  *p++ = (uint8_t)(0xe0 | (r & 7));
  *p++ = (uint8_t)bits;
  end(s, p);
}

void ad_asmseti(Asm *s, int r, uint32_t x) {
  uint8_t *p = rex(begin(s), 0, 0, r);
  *p++ = (uint8_t)(0xb8 | (r & 7));
  end(s, put32(p, x));
}

void ad_asmpush(Asm *s, int r) {
  uint8_t *p = rex(begin(s), 0, 0, r);
  *p++ = (uint8_t)(0x50 | (r & 7));
  end(s, p);
}

void ad_asmpop(Asm *s, int r) {
  uint8_t *p = rex(begin(s), 0, 0, r);
  *p++ = (uint8_t)(0x58 | (r & 7));
  end(s, p);
}

void ad_asmcall(Asm *s, Arg b) {
  uint8_t *p = rex(begin(s), 0, 0, b.reg);
  *p++ = 0xff;
  end(s, operand(s, p, 2, b, 0));
}

void ad_asmret(Asm *s) {
  uint8_t *p = begin(s);
  *p++ = 0xc3;
  end(s, p);
}

void ad_asmmark(Asm *s) {
  static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  uint8_t *p = begin(s);
  memcpy(p, endbr64, sizeof endbr64);
  end(s, p + sizeof endbr64);
}

/* nop with operands that make it n = 1 .. 9 bytes long */
static uint8_t *nop(uint8_t *p, size_t n) {
  static const uint8_t form[9][9] = {
      {0x90},
      {0x66, 0x90},
      {0x0f, 0x1f, 0x00},
      {0x0f, 0x1f, 0x40, 0},
      {0x0f, 0x1f, 0x44, 0, 0},
      {0x66, 0x0f, 0x1f, 0x44, 0, 0},
      {0x0f, 0x1f, 0x80, 0, 0, 0, 0},
      {0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0},
      {0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0},
  };
  memcpy(p, form[n - 1], n);
  return p + n;
}

void ad_asmalign(Asm *s, unsigned to) {
  while (s->n % to != 0) {
    const size_t n = to - s->n % to;
    uint8_t *p;
    if (s->cap - s->n < LONGEST) grow(s);
    if (s->failed) return;
    p = begin(s);
    end(s, nop(p, n < 9 ? n : 9));
  }
}

void ad_asmpool(Asm *s, double x) {
  if (s->cap - s->n < LONGEST) grow(s);
  for (int k = 0; k < (s->wide ? 4 : 2); k++) {
    memcpy(s->code + s->n, &x, sizeof x);
    s->n += sizeof x;
  }
}

size_t ad_asmjump(Asm *s, int cond) {
  uint8_t *p = begin(s);
  if (cond != X_JMP && cond != X_CALL) *p++ = 0x0f;
  *p++ = (uint8_t)cond;
  end(s, put32(p, 0));
  return s->n;
}

void ad_asmland(Asm *s, size_t jump, size_t to) {
  if (!s->failed) put32(s->code + jump - 4, (uint32_t)to - (uint32_t)jump);
}
