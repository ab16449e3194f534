/*
** counters.c
** Counters: plain numbers of f that are other numbers in each round of a loop.
**
** To a recorder a plain number is a constant, and so a loop that counts would
** never be where it was before. When the loop finder (loops.c) sees f come to
** a place again and again with other numbers in the same variables, it puts
** recorded values in those variables, which stand for the constants: from then
** on what f does with them is recorded, as all else. This is speculation: f,
** which knows nothing of it, may do with a number what cannot be recorded.
** Then the function is recorded anew, without.
**
** Wherever f could tell a counter from the plain number that it would have, it
** gets the number (watch.c), and the program is for that number only: where a
** function of C has it as an argument, where it is a key, the bound of a
** 'for', or an operand of bits. A counter that is looked at again and again is
** of no use, and the variable that it comes from will not be one any more.
**
** A counter that is an integer stays one through + - * // %, as the integers
** in plain f would: what leaves +-2^51 (small steps aside, which would take
** years) ends the speculation.
**
** Of a 'for' the numbers are in registers where Lua looks for them. There they
** stay, and their references are kept here: before FORLOOP runs, the
** comparison and the additions that it is are recorded; after it, the variable
** of the loop gets its counter.
*/
#include "compile.h"

#include <math.h>
#include <string.h>

#define MOSTINT 0x1p51
#define SMALLSTEP 1024
#define LOOKS 3     /* in one recording: of no use */
#define USELESS 3   /* recordings with looks: of no use */
#define MAXCHAIN 64 /* operations that are looked through for a cause */

static void *grown(lua_State *L, void *p, uint32_t n, uint32_t *cap,
                   size_t size) {
  uint32_t ncap;
  if (n < *cap) return p;
  ncap = *cap * 2 + 8;
  p = ad_realloc(L, p, *cap * size, ncap * size);
  *cap = ncap;
  return p;
}

/* the recording, which had counters, is worth nothing */
void ad_giveup(lua_State *L, State *S, const char *why) {
  ad_recordfail(S, why);
  luaL_error(L, "compile: %s", why);
}

/* the first counter of a recording: from now on f is watched. 0: it cannot */
int ad_countersbegin(lua_State *L, State *S) {
  Recorder *r = S->recorder;
  if (!r->watched) {
    if (!ad_canwatch(L, S)) return 0;
    ad_watchready(L, r);
    ad_watchbegin(L, S);
    r->watched = 1;
  }
  r->counters = 1;
  r->doubt = 1; /* of what f does with them not all is watched */
  return 1;
}

void ad_countersreset(Compiled *c) {
  c->nnumber = c->nforloop = c->ncounter = 0;
  for (uint32_t k = 0; k < c->nblame; k++) c->blame[k].now = 0;
}

void ad_countersfree(lua_State *L, Compiled *c) {
  ad_realloc(L, c->number, c->capnumber * sizeof *c->number, 0);
  ad_realloc(L, c->forloop, c->capforloop * sizeof *c->forloop, 0);
  ad_realloc(L, c->counter, c->capcounter * sizeof *c->counter, 0);
  ad_realloc(L, c->blame, c->capblame * sizeof *c->blame, 0);
  c->number = NULL;
  c->forloop = NULL;
  c->counter = NULL;
  c->blame = NULL;
  c->capnumber = c->capforloop = c->capcounter = c->capblame = 0;
  c->nnumber = c->nforloop = c->ncounter = c->nblame = 0;
}

/* a recording has come to its end */
void ad_countersend(Compiled *c) {
  for (uint32_t k = 0; k < c->nblame; k++)
    if (c->blame[k].now > 0 && ++c->blame[k].total == USELESS) c->anew = 1;
}

int ad_isblamed(const Compiled *c, uint64_t variable) {
  for (uint32_t k = 0; k < c->nblame; k++)
    if (c->blame[k].variable == variable) return c->blame[k].total >= USELESS;
  return 0;
}

Number *ad_addnumber(lua_State *L, Compiled *c) {
  c->number = grown(L, c->number, c->nnumber, &c->capnumber, sizeof *c->number);
  return &c->number[c->nnumber++];
}

void ad_addcounter(lua_State *L, Compiled *c, uint64_t variable, uint32_t ref) {
  c->counter =
      grown(L, c->counter, c->ncounter, &c->capcounter, sizeof *c->counter);
  c->counter[c->ncounter].variable = variable;
  c->counter[c->ncounter++].ref = ref;
}

/* what a phi of a loop was before the loop; P_NONE if that is not known */
static uint32_t before(const Compiled *c, uint32_t ref) {
  const Prog *p = &c->rec.root->prog;
  for (uint32_t k = c->nloop; k-- > 0;)
    if (c->loop[k].first == ref - p->ins[ref].a)
      return p
          ->list[p->block[p->block[c->loop[k].head].parent].a + p->ins[ref].a];
  return P_NONE;
}

/*
** f has looked at what a counter is, 'ref'. The blame is on the variable that
** it comes from, by way of the first operands.
*/
void ad_blamecounter(lua_State *L, State *S, uint32_t ref) {
  Compiled *c = ad_compiling(S);
  const Prog *p = &c->rec.root->prog;
  uint64_t variable = 0;
  uint32_t k;
  for (int i = 0; i < MAXCHAIN && !(ref & P_K) && variable == 0; i++) {
    const Ins *s = &p->ins[ref];
    for (k = 0; k < c->ncounter && c->counter[k].ref != ref;) k++;
    if (k < c->ncounter) variable = c->counter[k].variable;
    if (s->op == P_PHI)
      ref = before(c, ref);
    else if (ad_insarity(s->op) == 0)
      break;
    else
      ref = s->a & P_K && ad_insarity(s->op) > 1 ? s->b : s->a;
  }
  for (k = 0; k < c->nblame && c->blame[k].variable != variable;) k++;
  if (k == c->nblame) {
    c->blame = grown(L, c->blame, k, &c->capblame, sizeof *c->blame);
    memset(&c->blame[k], 0, sizeof *c->blame);
    c->blame[k].variable = variable;
    c->nblame++;
  }
  if (++c->blame[k].now < LOOKS) return;
  c->blame[k].total = USELESS;
  if (variable != 0) c->rec.blamed = 1;
  ad_giveup(L, S, "f looks at what it counts");
}

/*
** Integers
*/

int ad_recordedint(const State *S, const Cell *c) {
  return ad_iscounter(S, c) && c->u.var.leaf & REC_INT;
}

/*
** Operation 'op' on arguments 1 .. n, where recording goes on: 0: its result
** is a float, or has nothing to do with counters; else that is an integer, see
** ad_recordinteger. Integers that do not stay integers become floats.
*/
int ad_recordtypes(lua_State *L, State *S, int op, int n, int isoperator) {
  int counters = 0, integers = 1, large = 0, small = 0, strings = 0, other = 0;
  int keeps;
  if (!S->recorder->counters || S->recorder->failed) return 0;
  for (int i = 1; i <= n; i++) {
    const Cell *c = ad_tocell(L, S, i);
    if (lua_isinteger(L, i)) {
      const double x = fabs((double)lua_tointeger(L, i));
      large |= x > MOSTINT;
      small |= x <= SMALLSTEP;
    } else if (c != NULL && ad_iscounter(S, c)) {
      counters = 1;
      integers &= ad_recordedint(S, c);
    } else {
      integers = 0;
      strings |= lua_type(L, i) == LUA_TSTRING;
      other |= lua_type(L, i) != LUA_TNUMBER;
    }
  }
  if (!counters) return 0;
  if (strings) ad_giveup(L, S, "f computes with a string");
  keeps = isoperator
              ? op != OP_div && op != OP_pow
              : op == OP_abs || op == OP_max || op == OP_min || op == OP_fmod;
  if (integers && keeps) {
    if (large) ad_giveup(L, S, "f computes with large integers");
    if ((op == OP_idiv || op == OP_mod || op == OP_fmod) &&
        ad_holds(L, S, P_EQ, ad_valat(L, 2), ad_num(0)))
      ad_giveup(L, S, "f divides an integer by 0");
    return small ? 1 : 2;
  }
  /* which of them it is decides what it is */
  if (!other && (op == OP_max || op == OP_min))
    ad_giveup(L, S, "f has the larger of an integer and a float");
  for (int i = 1; i <= n; i++) {
    const Cell *c = ad_tocell(L, S, i);
    if (c != NULL && ad_recordedint(S, c)) {
      ad_pushrecorded(L, S, c->value, c->u.var.node);
      ad_flag(L, REC_COUNTER);
      lua_replace(L, i);
    }
  }
  return 0;
}

/* the result of that, at the top, is an integer */
void ad_recordinteger(lua_State *L, State *S, int op, int how) {
  if (S->recorder->failed) return;
  if (op != OP_add && op != OP_sub && op != OP_abs && op != OP_max &&
      op != OP_min) /* integers have one 0 only */
    ad_op2(L, S, OP_add, ad_at(lua_gettop(L)), ad_num(0));
  if (op == OP_mul || (how == 2 && (op == OP_add || op == OP_sub))) {
    const int y = lua_gettop(L);
    ad_op1(L, S, OP_abs, ad_at(y));
    if (!ad_holds(L, S, P_LE, ad_at(y + 1), ad_num(MOSTINT)))
      ad_giveup(L, S, "f computes with large integers");
    lua_settop(L, y);
  }
  ad_flag(L, REC_COUNTER | REC_INT);
}

/*
** 'for'
*/

ForLoop *ad_findfor(Compiled *c, const void *frame, int reg) {
  for (uint32_t k = c->nforloop; k-- > 0;)
    if (c->forloop[k].frame == frame && c->forloop[k].reg == reg)
      return &c->forloop[k];
  return NULL;
}

ForLoop *ad_addfor(lua_State *L, Compiled *c) {
  c->forloop =
      grown(L, c->forloop, c->nforloop, &c->capforloop, sizeof *c->forloop);
  return &c->forloop[c->nforloop++];
}

void ad_dropfor(Compiled *c, const void *frame, int reg) {
  ForLoop *f = ad_findfor(c, frame, reg);
  if (f != NULL) *f = c->forloop[--c->nforloop];
}

/* the numbers in the registers of a 'for'; 0: there are others */
int ad_fornumbers(lua_State *L, const lua_Debug *ar, int reg, Number n[3]) {
  for (int k = 0; k < 3; k++) {
    n[k].u.bits = 0;
    if (lua_getlocal(L, ar, reg + 1 + k) == NULL) return 0;
    n[k].isint = (uint8_t)lua_isinteger(L, -1);
    if (n[k].isint)
      n[k].u.i = lua_tointeger(L, -1);
    else
      n[k].u.x = lua_tonumber(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER) n[k].isint = 2;
    lua_pop(L, 1);
  }
  return n[0].isint == n[1].isint && n[1].isint == n[2].isint && n[0].isint < 2;
}

/* do a 'for' and its registers agree? */
int ad_foragrees(const ForLoop *f, const Number n[3]) {
  return f->isint == n[0].isint && f->from.u.bits == n[0].u.bits &&
         (!f->isint || f->rounds.u.bits == n[1].u.bits);
}

static void pushcounter(lua_State *L, State *S, double x, uint32_t ref,
                        int isint) {
  ad_pushrecorded(L, S, x, ref);
  ad_flag(L, REC_COUNTER | (isint ? REC_INT : 0));
}

static uint32_t refat(lua_State *L, int idx) {
  return ((const Cell *)lua_touserdata(L, idx))->u.var.node;
}

/* FORLOOP is to run; 1: round again, and then the variable gets its counter */
int ad_forloop(lua_State *L, State *S, lua_Debug *ar, int reg) {
  Compiled *c = ad_compiling(S);
  const void *frame = ar->i_ci;
  ForLoop *f = ad_findfor(c, frame, reg);
  Number n[3];
  const int top = lua_gettop(L);
  int holds;
  if (f == NULL || S->recorder->failed) return 0;
  ad_checkstack(L, 20, NULL);
  if (!ad_fornumbers(L, ar, reg, n) || !ad_foragrees(f, n)) {
    ad_dropfor(c, frame, reg);
    return 0;
  }
  if (f->isint) {
    pushcounter(L, S, (double)n[1].u.i, f->left, 1);
    holds = ad_recordif(L, S, P_LT, ad_num(0), ad_at(top + 1));
    pushcounter(L, S, (double)n[0].u.i, f->index, 1);
    if (holds) {
      ad_op2(L, S, OP_sub, ad_at(top + 1), ad_num(1));
      ad_op2(L, S, OP_add, ad_at(top + 2), ad_num((double)n[2].u.i));
      f->left = refat(L, top + 3);
      f->index = refat(L, top + 4);
      f->rounds.u.i--;
      f->from.u.i += n[2].u.i;
    }
  } else {
    pushcounter(L, S, n[0].u.x, f->index, 0);
    ad_op2(L, S, OP_add, ad_at(top + 1), ad_num(n[2].u.x));
    if (n[2].u.x > 0)
      holds = ad_recordif(L, S, P_LE, ad_at(top + 2), ad_num(n[1].u.x));
    else
      holds = ad_recordif(L, S, P_LE, ad_num(n[1].u.x), ad_at(top + 2));
    if (holds) {
      f->index = refat(L, top + 2);
      f->from.u.x += n[2].u.x;
    }
  }
  lua_settop(L, top);
  if (!holds) ad_dropfor(c, frame, reg);
  return holds;
}

/* it has run: pushes the counter for the variable; 0: there is none */
int ad_pushindex(lua_State *L, State *S, const void *frame, int reg) {
  const ForLoop *f = ad_findfor(ad_compiling(S), frame, reg);
  if (f == NULL) return 0;
  pushcounter(L, S, f->isint ? (double)f->from.u.i : f->from.u.x, f->index,
              f->isint);
  return 1;
}
