/*
** autodiff.h
** Automatic differentiation for programs that embed Lua 5.4. Link with
** libautodiff.a:  cc host.c $(pkg-config --cflags --libs autodiff)
**
**   lua_State *L = luaL_newstate();
**   luaL_openlibs(L);
**   luaL_requiref(L, "autodiff", luaopen_autodiff, 0);
**
** The whole module is inside the library: nothing is looked for on disk.
**
** Behind each function stands what it does to the stack, as in Lua's
** manual: [-o, +p, x] pops o values and pushes p; x is '-' if it raises no
** error, 'm' if only memory errors, 'v' if the errors described, 'e' if it
** runs Lua code and so can raise anything. Errors are Lua errors (a longjmp):
** call what can raise one from within lua_pcall, and let no C++ object with
** a destructor live in a frame that is jumped over.
**
** All memory comes from the state's lua_Alloc. A refused request is an
** ordinary memory error; the state can be used after it and nothing leaks.
** States share nothing: one state per thread needs no lock.
*/
#ifndef autodiff_h
#define autodiff_h

#include <stddef.h>

#include "lua.h"

#define AUTODIFF_VERSION_MAJOR 0
#define AUTODIFF_VERSION_MINOR 1
#define AUTODIFF_VERSION_NUM                                                   \
  (AUTODIFF_VERSION_MAJOR * 100 + AUTODIFF_VERSION_MINOR)
#define AUTODIFF_VERSION "autodiff 0.1" /* what the module's _VERSION says */

#ifdef __cplusplus
extern "C" {
#endif

#ifndef AD_API
#define AD_API extern
#endif

/*
** [-0, +1, e]  Opens the module, for luaL_requiref; pushes its table. Needs
** Lua's basic functions and the libraries math, string and table; 'package'
** need not be open, but if it is, require "autodiff" finds this module. The
** module keeps its own copies of what it uses of Lua's libraries, so a host
** may take functions away from its scripts afterwards; from scripts that must
** not touch files, the module's save and load as well as io and require. All
** other functions here raise an error in a state in which this has not been
** called, except for those that only look at a value.
*/
AD_API int luaopen_autodiff(lua_State *L);

/*
** Values
*/

/* what ad_type says */
#define AD_TNONE 0 /* no number and none of ours; or no value at all */
#define AD_TNUMBER 1
#define AD_TDUAL 2
#define AD_TVAR 3
#define AD_TARRAY 4

/*
** [-0, +0, m]  The type of the value at the index, as ad.type: a string is
** no number.
*/
AD_API int ad_type(lua_State *L, int idx);

/* [-0, +0, m]  1 for a number, dual, var or array, else 0. */
AD_API int ad_isvalue(lua_State *L, int idx);

/* [-0, +0, -]  "none", "number", "dual", "var" or "array". */
AD_API const char *ad_typename(int type);

/*
** [-0, +0, m]  The plain primal of the number, dual or var at the index; 0
** for anything else (see ad_isvalue), and for what has an array in the place
** of a number. The fields .value and .grad are for lua_getfield.
*/
AD_API double ad_value(lua_State *L, int idx);

/*
** [-0, +0, v]  The tangents of the dual at the index: stores the first 'n'
** of them, as plain numbers, and returns how many there are. 0 if it is no
** dual of a number.
*/
AD_API size_t ad_tangents(lua_State *L, int idx, size_t n, double *tangent);

/*
** [-0, +1, v]  Pushes the dual of a value with n tangents, 1 <= n <= 60000.
** Operators work on it, in Lua and by lua_arith and lua_compare.
*/
AD_API void ad_pushdual(lua_State *L, double value, size_t n,
                        const double *tangent);

/*
** Arrays: blocks of numbers with 1 to AD_MAXDIMS dimensions. Elements are in
** row-major order, as a C array double[2][3] has them.
*/

#define AD_MAXDIMS 8

/*
** [-0, +1, v]  Pushes a new array. Its elements are copied from x, or zeros if
** x is NULL. Returns where they are, for the host to fill in: until the array
** has been used in Lua, since a tape may then rely on them, and no longer than
** it is sure not to be collected.
*/
AD_API double *ad_pusharray(lua_State *L, int ndim, const size_t *shape,
                            const double *x);

/*
** [-0, +0, m]  The number of dimensions of the array at the index, or of the
** one whose var or dual is there; 0 if it is none. The lengths are stored in
** 'shape' (optional), which has room for AD_MAXDIMS.
*/
AD_API int ad_arrayshape(lua_State *L, int idx, size_t *shape);

/*
** [-0, +0, m]  Stores the first n elements of such an array in x (optional if
** n is 0), and returns how many it has.
*/
AD_API size_t ad_getarray(lua_State *L, int idx, size_t n, double *x);

/*
** [-0, +0, m]  Where the elements of the array at the index are, one behind
** the other, to be read and not written; NULL if it is no array, or one whose
** elements lie apart (a part of another). Valid until the array is collected.
*/
AD_API const double *ad_arraydata(lua_State *L, int idx);

/*
** Derivatives
**
** The following expect a Lua function (or anything callable) at the top of
** the stack, pop it, and call it with one argument: the list {x[0], ...,
** x[n-1]}. Results go to the host's own arrays; where a pointer is said to be
** optional it may be NULL. On an error the contents of these are unspecified.
** The function cannot yield. Results are plain numbers also when a
** transform is running in the same state: for that they are constants.
** Except for ad_jacobian, the function must return a number first: anything
** else is the error "ad_gradient: function must return a number, got a
** table". n may be 0.
*/

/*
** [-1, +0, e]  The function's value (optional) and its gradient, n numbers
** (optional: without it the function is called with plain numbers, which is
** cheaper).
*/
AD_API void ad_gradient(lua_State *L, size_t n, const double *x, double *value,
                        double *grad);

/*
** [-1, +0, e]  The function returns a list of exactly m numbers, or an array
** of them (for m = 1 also a number): stored in y (optional), its m by n
** Jacobian in J, row by row: J[i * n + j] is the derivative of y[i] by x[j]. Runs the function
** once.
*/
AD_API void ad_jacobian(lua_State *L, size_t m, size_t n, const double *x,
                        double *y, double *J);

/*
** [-1, +0, e]  The Hessian at x times the vector v: n numbers in hv. Value
** and gradient (both optional) come out of the same run.
*/
AD_API void ad_hvp(lua_State *L, size_t n, const double *x, const double *v,
                   double *value, double *grad, double *hv);

/*
** [-1, +0, e]  The Hessian, H[i * n + j], and value and gradient (both
** optional). Runs the function once for every eight variables.
*/
AD_API void ad_hessian(lua_State *L, size_t n, const double *x, double *value,
                       double *grad, double *H);

/*
** [-1, +0, e]  The same for a function of one array: it is called with an
** array of the given shape, whose n elements are those of x. The derivatives
** are in the order of the elements.
*/
AD_API void ad_arraygradient(lua_State *L, int ndim, const size_t *shape,
                             const double *x, double *value, double *grad);
AD_API void ad_arrayjacobian(lua_State *L, size_t m, int ndim,
                             const size_t *shape, const double *x, double *y,
                             double *J);
AD_API void ad_arrayhvp(lua_State *L, int ndim, const size_t *shape,
                        const double *x, const double *v, double *value,
                        double *grad, double *hv);

/*
** Primitives: functions in C that Lua code can differentiate
*/

/* most arguments that a primitive can have */
#define AD_MAXARGS 32

/*
** The value of a primitive: x has the n numbers, 'ud' is what the host has
** given. May raise Lua errors; must leave L's stack as it was.
*/
typedef double (*ad_Function)(lua_State *L, void *ud, int n, const double *x);

/*
** [-0, +1, v]  Pushes a Lua function that computes f of its first nargs
** arguments (1 <= nargs <= AD_MAXARGS), numbers, duals or vars. It can be
** differentiated once it has its partial derivatives. 'ud' has to live as
** long as the function; the name is for error messages, and copied.
*/
AD_API void ad_newprimitive(lua_State *L, const char *name, int nargs,
                            ad_Function f, void *ud);

/*
** [-1, +0, v]  Pops a partial derivative of the primitive at the index, by
** argument 'arg' (from 1): a function of the same arguments. Derivatives of
** higher order differentiate that function; so it is another primitive, the
** primitive itself, a Lua function, or a C function that computes with
** lua_arith and other primitives. A number is a constant derivative, nil is 0.
** To differentiate a primitive without one is the error "primitive 'NAME':
** no derivative by argument N".
*/
AD_API void ad_setpartial(lua_State *L, int idx, int arg);

/*
** [-0, +0, e]  Drops the user into the interactive interpreter until he ends
** it, by require("autodiff.repl").run{}. Raises "module 'autodiff.repl' not
** found" where that is missing.
*/
AD_API void ad_repl(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
