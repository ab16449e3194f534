/*
** random.c
** ad.random(seed): numbers that are the same on every machine.
**
** The generator is xoshiro256** 1.0 (D. Blackman, S. Vigna, "Scrambled linear
** pseudorandom number generators", ACM Trans. Math. Softw. 47, 2021), seeded
** by splitmix64 as its authors advise: https://prng.di.unimi.it. Its period is
** 2^256 - 1.
**
** What is made of its bits uses integers and + - * / sqrt of double precision,
** whose results IEEE 754 leaves no choice about: no function of libm, whose
** last digits differ between systems.
*/
#include "array.h"

#include <stdio.h>
#include <string.h>

#define RANDOM "autodiff.random"

typedef struct Random {
  uint64_t s[4];
  double spare; /* normal numbers come in pairs */
  int isspare;
} Random;

static inline uint64_t rotl(uint64_t x, int k) {
  return (x << k) | (x >> (64 - k));
}

static inline uint64_t next(Random *r) {
  uint64_t *s = r->s;
  const uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotl(s[3], 45);
  return result;
}

static void seed(Random *r, uint64_t x) {
  for (int i = 0; i < 4; i++) { /* splitmix64 */
    uint64_t z = x += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    r->s[i] = z ^ (z >> 31);
  }
}

/* in [0, 1): a multiple of 2^-53 */
static inline double unit(Random *r) {
  return (double)(next(r) >> 11) * 0x1p-53;
}

/*
** The logarithm of an x from 2^-1022 to 1, to about an ulp. x = m 2^e with m
** between sqrt(1/2) and sqrt(2); log m = 2 artanh s with s = (m-1)/(m+1), whose
** series has |s| < 0.1716, so that the first term left out, s^22/23, is below
** 2^-59.
*/
static double logarithm(double x) {
  const double ln2hi = 0x1.62e42fee00000p-1, ln2lo = 0x1.a39ef35793c76p-33;
  uint64_t u;
  double m, s, q, sum = 0;
  int e;
  memcpy(&u, &x, sizeof u);
  e = (int)(u >> 52) - 1023;
  u = (u & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3ff0000000000000);
  memcpy(&m, &u, sizeof m);
  if (m > 1.4142135623730951) {
    m /= 2;
    e++;
  }
  s = (m - 1) / (m + 1);
  q = s * s;
  for (int k = 21; k > 1; k -= 2) sum = q * (sum + 1.0 / k);
  return e * ln2hi + (2 * s + (2 * s * sum + e * ln2lo));
}

/*
** G. Marsaglia, T. A. Bray, "A convenient method for generating normal
** variables", SIAM Rev. 6, 1964: a point in the unit disk gives two.
*/
static double normal(Random *r) {
  double u, v, q, f;
  if (r->isspare) {
    r->isspare = 0;
    return r->spare;
  }
  do {
    u = 2 * unit(r) - 1;
    v = 2 * unit(r) - 1;
    q = u * u + v * v;
  } while (q >= 1 || q == 0);
  f = sqrt(-2 * logarithm(q) / q);
  r->spare = v * f;
  r->isspare = 1;
  return u * f;
}

/* from 0 to 'most', each as likely: what is above is drawn again */
static uint64_t below(Random *r, uint64_t most) {
  int shift = 64;
  uint64_t x;
  while (shift > 0 && most >> (64 - shift)) shift--;
  if (shift == 64) return 0;
  do x = next(r) >> shift;
  while (x > most);
  return x;
}

static Random *checkrandom(lua_State *L) {
  ad_recorddoubt(ad_state(L)); /* a state that changes */
  return luaL_checkudata(L, 1, RANDOM);
}

/*
** The result: an array of the shape at 'arg' (a list; or integers, to the last
** argument), or NULL, for a number, when there is none.
*/
static Array *result(lua_State *L, State *S, int arg) {
  ptrdiff_t shape[AD_MAXDIM];
  int ndim;
  if (lua_isnoneornil(L, arg) ||
      (lua_type(L, arg) == LUA_TTABLE && lua_rawlen(L, arg) == 0))
    return NULL;
  ndim = ad_checkshape(L, arg, shape);
  return ad_newarray(L, S, ndim, shape);
}

/* r:uniform([shape[, lo, hi]]): lo <= x < hi */
static int random_uniform(lua_State *L) {
  State *S = ad_state(L);
  Random *r = checkrandom(L);
  double lo = 0, hi = 1, range = 1;
  Array *a;
  size_t n;
  if (lua_type(L, 2) == LUA_TTABLE || lua_isnoneornil(L, 2)) {
    lo = luaL_optnumber(L, 3, 0);
    hi = luaL_optnumber(L, 4, 1);
    luaL_argcheck(L, lo <= hi, 4, "interval is empty");
    range = hi - lo;
    luaL_argcheck(L, isfinite(lo) && isfinite(range), 4, "interval too large");
    lua_settop(L, 2);
  }
  a = result(L, S, 2);
  n = a ? a->size : 1;
  for (size_t i = 0; i < n; i++) {
    double x;
    do x = lo + unit(r) * range;
    while (x >= hi && lo < hi); /* the sum may have been rounded */
    if (a == NULL)
      lua_pushnumber(L, x);
    else
      a->data[i] = x;
  }
  return 1;
}

/* r:normal([shape]): mean 0, variance 1 */
static int random_normal(lua_State *L) {
  State *S = ad_state(L);
  Random *r = checkrandom(L);
  Array *a = result(L, S, 2);
  if (a == NULL)
    lua_pushnumber(L, normal(r));
  else
    for (size_t i = 0; i < a->size; i++) a->data[i] = normal(r);
  return 1;
}

#define EXACT ((lua_Integer)1 << 53) /* doubles have all integers up to it */

/* r:randint(lo, hi[, shape]): lo <= x <= hi */
static int random_randint(lua_State *L) {
  State *S = ad_state(L);
  Random *r = checkrandom(L);
  const lua_Integer lo = luaL_checkinteger(L, 2), hi = luaL_checkinteger(L, 3);
  const uint64_t most = (uint64_t)hi - (uint64_t)lo;
  Array *a;
  luaL_argcheck(L, lo <= hi, 3, "interval is empty");
  a = result(L, S, 4);
  if (a == NULL) {
    lua_pushinteger(L, (lua_Integer)((uint64_t)lo + below(r, most)));
    return 1;
  }
  luaL_argcheck(L, lo >= -EXACT, 2, "arrays have integers to 2^53 only");
  luaL_argcheck(L, hi <= EXACT, 3, "arrays have integers to 2^53 only");
  for (size_t i = 0; i < a->size; i++)
    a->data[i] = (double)(lo + (lua_Integer)below(r, most));
  return 1;
}

/* r:permutation(n): 1 .. n in any order (R. Durstenfeld, "Algorithm 235:
   Random permutation", Comm. ACM 7, 1964) */
static int random_permutation(lua_State *L) {
  State *S = ad_state(L);
  Random *r = checkrandom(L);
  const lua_Integer count = luaL_checkinteger(L, 2);
  ptrdiff_t n;
  Array *a;
  luaL_argcheck(L, count >= 0 && (lua_Unsigned)count <= PTRDIFF_MAX, 2,
                "bad length");
  n = (ptrdiff_t)count;
  a = ad_newarray(L, S, 1, &n);
  for (ptrdiff_t i = 0; i < n; i++) a->data[i] = (double)(i + 1);
  for (ptrdiff_t i = n - 1; i > 0; i--) {
    const ptrdiff_t k = (ptrdiff_t)below(r, (uint64_t)i);
    const double t = a->data[i];
    a->data[i] = a->data[k];
    a->data[k] = t;
  }
  return 1;
}

/*
** States as text: the four words, and the spare number's bits if there is one,
** each of 16 hexadecimal digits.
*/
#define DIGITS 16

static int random_state(lua_State *L) {
  const Random *r = checkrandom(L);
  char text[5 * (DIGITS + 1) + 1];
  uint64_t word[5];
  const int n = r->isspare ? 5 : 4;
  int at = 0;
  memcpy(word, r->s, sizeof r->s);
  memcpy(&word[4], &r->spare, sizeof word[4]);
  for (int i = 0; i < n; i++)
    at += snprintf(text + at, sizeof text - (size_t)at,
                   i ? " %016llx" : "%016llx", (unsigned long long)word[i]);
  lua_pushlstring(L, text, (size_t)at);
  return 1;
}

/* 0: the text is no state */
static int restore(Random *r, const char *text, size_t length) {
  static const char digits[] = "0123456789abcdef";
  uint64_t word[5] = {0, 0, 0, 0, 0};
  const size_t n = (length + 1) / (DIGITS + 1);
  if ((n != 4 && n != 5) || length != n * (DIGITS + 1) - 1) return 0;
  for (size_t i = 0; i < length; i++) {
    const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
    const size_t w = i / (DIGITS + 1);
    if (i % (DIGITS + 1) == DIGITS) {
      if (text[i] != ' ') return 0;
    } else if (digit == NULL)
      return 0;
    else
      word[w] = word[w] << 4 | (uint64_t)(digit - digits);
  }
  if ((word[0] | word[1] | word[2] | word[3]) == 0) return 0; /* stays so */
  memcpy(r->s, word, sizeof r->s);
  memcpy(&r->spare, &word[4], sizeof r->spare);
  r->isspare = n == 5;
  return n == 4 || isfinite(r->spare);
}

/* random(seed), of an integer, or of what state() gave */
static int l_random(lua_State *L) {
  Random made;
  memset(&made, 0, sizeof made);
  if (lua_type(L, 1) == LUA_TSTRING) {
    size_t length;
    const char *text = lua_tolstring(L, 1, &length);
    luaL_argcheck(L, restore(&made, text, length), 1, "invalid state");
  } else
    seed(&made, (uint64_t)luaL_checkinteger(L, 1));
  *(Random *)lua_newuserdatauv(L, sizeof made, 0) = made;
  luaL_setmetatable(L, RANDOM);
  return 1;
}

void ad_openrandom(lua_State *L, State *S) {
  static const luaL_Reg fn[] = {{"random", l_random}, {NULL, NULL}};
  static const luaL_Reg method[] = {
      {"uniform", random_uniform}, {"normal", random_normal},
      {"randint", random_randint}, {"permutation", random_permutation},
      {"state", random_state},     {NULL, NULL}};
  (void)S;
  luaL_newmetatable(L, RANDOM);
  lua_newtable(L);
  ad_setfuncs(L, method, LUA_NOREF);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  ad_setfuncs(L, fn, LUA_NOREF);
}
