---@meta autodiff
---@diagnostic disable: unused-local, missing-return

-- Types of the public names, for editors with the Lua language server (LuaCATS
-- annotations, https://luals.github.io/wiki/annotations). Never run; what the
-- names mean is in autodiff/docs.lua, and spec/meta_spec.lua compares the two.

---A number, or one that is being differentiated.
---@alias autodiff.Number number|autodiff.Var|autodiff.Dual

---A number, or a table of structures; what is no number in it stays as it is.
---@alias autodiff.Structure autodiff.Number|table

---A function or an object with a `__call`.
---@alias autodiff.Callable fun(...: any): ...

---Reverse mode: a value on a tape.
---@class autodiff.Var
---@field value autodiff.Number # one level taken off
---@field grad autodiff.Number? # what `backward` has added up
---@operator add(autodiff.Number): autodiff.Var
---@operator sub(autodiff.Number): autodiff.Var
---@operator mul(autodiff.Number): autodiff.Var
---@operator div(autodiff.Number): autodiff.Var
---@operator mod(autodiff.Number): autodiff.Var
---@operator pow(autodiff.Number): autodiff.Var
---@operator idiv(autodiff.Number): autodiff.Var
---@operator unm: autodiff.Var
---@operator concat(any): string
local Var = {}

---Adds to the field `grad` of every var from which the number v was computed the derivative of v
---by it, and frees the graph. `{retain = true}` keeps the graph for another question; asking a
---freed one is an error that says so.
---@param options? {retain?: boolean}
function Var:backward(options) end

---Makes the field `grad` of v nil again, as it was before the first `backward`.
---@return nil
function Var:zero_grad() end

---The value of v as a constant: one level of differentiation is taken off, so the result is a
---plain number unless an outer transform is running.
---@return autodiff.Number
function Var:detach() end

---Forward mode: a value and its tangent.
---@class autodiff.Dual
---@field value autodiff.Number # one level taken off
---@field tangent autodiff.Number|autodiff.Number[] # a list for several directions
---@operator add(autodiff.Number): autodiff.Dual
---@operator sub(autodiff.Number): autodiff.Dual
---@operator mul(autodiff.Number): autodiff.Dual
---@operator div(autodiff.Number): autodiff.Dual
---@operator mod(autodiff.Number): autodiff.Dual
---@operator pow(autodiff.Number): autodiff.Dual
---@operator idiv(autodiff.Number): autodiff.Dual
---@operator unm: autodiff.Dual
---@operator concat(any): string
local Dual = {}

---A function that has become a program.
---@class autodiff.Compiled
---@overload fun(...: any): any
local Compiled = {}

---What a compiled function has come to: a table with the numbers of traces, operations, guards,
---loops, calls, retraces (calls that took a new path) and eager_calls (that ran f itself), the
---backend that runs the program, seconds_compiling, and, if the function is not run as a program,
---a note that says why.
---@return table
function Compiled:stats() end

---A record of operations.
---@class autodiff.Tape
---@operator len: integer
local Tape = {}

---Vars that this tape watches: one for each argument, which may be a structure.
---@generic T
---@param x T
---@param ... any
---@return T
---@return any ...
function Tape:var(x, ...) end

---The gradient of the target, a number, by each source, a var of this tape or a structure of
---them, in the form of the source; 0 where they are not connected.
---@param target autodiff.Number|autodiff.Question
---@param ... autodiff.Structure
---@return any ...
---@overload fun(self: autodiff.Tape, question: autodiff.Question): any
function Tape:gradient(target, ...) end

---Calls f and records nothing of what it computes; returns what f returns, as constants for this
---tape.
---@param f fun(): ...
---@return any ...
function Tape:stop(f) end

---Forgets everything that was recorded.
---@return nil
function Tape:reset() end

---Frees the tape's memory; so does leaving the block of a local variable marked `<close>`.
---@return nil
function Tape:close() end

---How many bytes the tape's records take: 4 for a value and 12 for each of its operands that is
---on the tape.
---@return integer
function Tape:bytes() end

---The long form of `tape:gradient`.
---@class autodiff.Question
---@field target autodiff.Number|autodiff.Number[]
---@field sources autodiff.Structure
---@field seeds? autodiff.Number[]

---@class autodiff.Rule
---@field name? string
---@field f autodiff.Callable
---@field jvp? fun(primals: any[], tangents: any[], y: any): any
---@field vjp? fun(ybar: any, y: any, ...: any): ...

---@class autodiff.Equation
---@field f fun(x: any, ...: any): any
---@field solve fun(...: any): number|number[]

---What `graph` returns.
---@class autodiff.Graph
local Graph = {}

---An SVG picture of the graph, as text, laid out without any other program: values on the nodes,
---partial derivatives on the edges, the line of the source as the tooltip.
---@return string
function Graph:svg() end

---@class autodiff
---@field _VERSION string
---@field math mathlib
local ad = {}

---The kind of x, as math.type gives it: "number", "dual" (forward mode), "var" (reverse mode),
---or nil for anything else, numeric strings included.
---@param x any
---@return "number"|"dual"|"var"|nil
function ad.type(x) end

---The plain number in x, with every level of differentiation taken off.
---@param x autodiff.Number
---@return number
function ad.value(x) end

---Vars that record in the background what is computed from them, for `backward` to ask: one for
---each argument, which may also be a structure (a table of numbers, nested to any depth; what is
---no number in it stays).
---@generic T
---@param x T
---@param ... any
---@return T
---@return any ...
---@overload fun(x: number): autodiff.Var
function ad.var(x, ...) end

---`v:backward()` for several results at once, and for these inputs only: `inputs` is a list of
---vars, and the `grad` of each gains the gradient of the sum of all results, each times its seed
---(1 without a list of seeds).
---@param results autodiff.Number[]
---@param inputs autodiff.Var[]
---@param seeds? autodiff.Number[]
function ad.backward(results, inputs, seeds) end

---A value for forward mode, made by hand: everything computed from it carries a derivative
---along.
---@param value autodiff.Number
---@param tangent autodiff.Number|autodiff.Number[]
---@return autodiff.Dual
function ad.dual(value, tangent) end

---x as a constant for every transform that is running, its value unchanged. x may be a
---structure.
---@generic T
---@param x T
---@return T
function ad.stop(x) end

---Calls f with the arguments behind it; its results are constants for the innermost transform
---(or tape, or graph of `ad.var`) that is running in this coroutine.
---@param f autodiff.Callable
---@param ... any
---@return any ...
function ad.no_grad(f, ...) end

---Are the two values equal?
---@param a autodiff.Number
---@param b autodiff.Number
---@return boolean
function ad.eq(a, b) end

---Is the value of a less than that of b?
---@param a autodiff.Number
---@param b autodiff.Number
---@return boolean
function ad.lt(a, b) end

---Is the value of a at most that of b?
---@param a autodiff.Number
---@param b autodiff.Number
---@return boolean
function ad.le(a, b) end

---A function of f's arguments that returns the gradient of f's first result, which must be one
---number, by argument number `argnums` (default 1), then f's further results.
---@param f autodiff.Callable
---@param argnums? integer|integer[]
---@return fun(...: any): ...
function ad.grad(f, argnums) end

---As `grad`, but the function returns f's value first, then the gradient or gradients, then f's
---further results.
---@param f autodiff.Callable
---@param argnums? integer|integer[]
---@return fun(...: any): ...
function ad.value_and_grad(f, argnums) end

---Jacobian times vector, in forward mode: f's value at the list of arguments `primals`, and how
---fast it changes when they move along the list `tangents`.
---@param f autodiff.Callable
---@param primals any[]
---@param tangents any[]
---@return any y
---@return any dy
function ad.jvp(f, primals, tangents) end

---f's value at the given arguments, and a function that takes one tangent per argument and
---returns the tangent of the value. f runs once; the function can be called any number of times.
---@param f autodiff.Callable
---@param ... any
---@return any y
---@return fun(...: any): any # the tangent
function ad.linearize(f, ...) end

---Vector times Jacobian, in reverse mode: f's value at the given arguments, and a function that
---takes a weight in the form of the value and returns the gradient of the weighted value by each
---argument. f runs once; the function can be called any number of times.
---@param f autodiff.Callable
---@param ... any
---@return any y
---@return fun(ybar: any): ... # the cotangents
function ad.vjp(f, ...) end

---A function of f's arguments that returns J with J[i][j] = df[i]/dx[j], for an f from a list x
---(argument number `argnum`, default 1) to a list.
---@param f autodiff.Callable
---@param argnum? integer
---@return fun(...: any): any
function ad.jacobian(f, argnum) end

---`jacobian` in forward mode, whatever the shape.
---@param f autodiff.Callable
---@param argnum? integer
---@return fun(...: any): any
function ad.jacfwd(f, argnum) end

---`jacobian` in reverse mode, whatever the shape.
---@param f autodiff.Callable
---@param argnum? integer
---@return fun(...: any): any
function ad.jacrev(f, argnum) end

---A function of f's arguments that returns the second derivatives of f, which must return one
---number: H[i][j] for a list, a number for a number, and in general in each place of the form of
---the argument something of its form again.
---@param f autodiff.Callable
---@param argnum? integer
---@return fun(...: any): any
function ad.hessian(f, argnum) end

---The Hessian of f at x times v, in the form of x, at the cost of a few calls of f: the Hessian
---is not formed.
---@generic T
---@param f autodiff.Callable
---@param x T
---@param v T
---@return T
function ad.hvp(f, x, v) end

---The n-th derivative (default: the first; up to 170) of f, a function of one number.
---@param f fun(x: any): any
---@param n? integer
---@return fun(x: autodiff.Number): any
function ad.derivative(f, n) end

---The Taylor coefficients of f, a function of one number, at x: the list of f(x), f′(x),
---f″(x)/2!, up to the n-th derivative over n!, so n + 1 numbers.
---@param f fun(x: any): any
---@param x autodiff.Number
---@param n integer
---@return autodiff.Number[]
function ad.taylor(f, x, n) end

---A tape that records what is computed from its vars until it is asked for gradients.
---@param options? {persistent?: boolean}
---@return autodiff.Tape
function ad.tape(options) end

---A function that does what f does, but of which a tape keeps only the arguments: in the
---backward pass f is run again.
---@generic F
---@param f F
---@return F
function ad.checkpoint(f) end

---A callable that does what f does, for any f of numbers and structures, most usefully for
---`ad.value_and_grad(f)`. The first call records the operations of f into a program; later calls
---run the program, not f.
---@param f function
---@param options? table max_traces, max_operations, memory, fast
---@return autodiff.Compiled
function ad.compile(f, options) end

---A function with a derivative of your own. f gets plain numbers. jvp(primals, tangents, y)
---returns the tangent of y, with both in lists; vjp(ybar, y, ...) returns one cotangent per
---argument, nil for 0.
---@param rule autodiff.Rule
---@return fun(...: any): any
function ad.custom(rule) end

---A function of some parameters whose value is x = solve(...), called with plain numbers, for
---which f(x, ...) = 0. x is a number or a list; then f returns a list as long.
---@param equation autodiff.Equation
---@return fun(...: any): any
function ad.implicit(equation) end

---Compares forward and reverse derivatives of f at the list of arguments with central
---differences extrapolated to step 0 (Ridders, Advances in Engineering Software 4(2), 1982, p.
---75).
---@param f autodiff.Callable
---@param args any[]
---@param options? {order?: 1|2, tol?: number}
---@return boolean
---@return string? # the report
function ad.check(f, args, options) end

---Puts `ad.math` in place of `env.math` (default: the global one) and returns a function that
---undoes it. env must be a table.
---@param env? table
---@return fun() # undoes it
function ad.install(env) end

---e to the power x.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.exp(x) end

---2 to the power x.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.exp2(x) end

---exp(x) - 1, without loss of digits for x near 0.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.expm1(x) end

---log(1 + x), without loss of digits for x near 0.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.log1p(x) end

---The logarithm to base 2.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.log2(x) end

---The logarithm to base 10.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.log10(x) end

---The square root.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.sqrt(x) end

---The cube root, also of negative numbers.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.cbrt(x) end

---The sine of x, in radians.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.sin(x) end

---The cosine of x, in radians.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.cos(x) end

---The tangent of x, in radians.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.tan(x) end

---The arc sine, in radians, from -pi/2 to pi/2.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.asin(x) end

---The arc cosine, in radians, from 0 to pi.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.acos(x) end

---x, in radians, in degrees.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.deg(x) end

---x, in degrees, in radians.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.rad(x) end

---The hyperbolic sine.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.sinh(x) end

---The hyperbolic cosine.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.cosh(x) end

---The hyperbolic tangent.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.tanh(x) end

---The inverse of sinh.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.asinh(x) end

---The inverse of cosh, for x >= 1.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.acosh(x) end

---The inverse of tanh, for x between -1 and 1.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.atanh(x) end

---The error function (DLMF 7.2.1).
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.erf(x) end

---1 - erf(x) (DLMF 7.2.2), with all digits where it is small.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.erfc(x) end

---The logarithm of the absolute value of the gamma function (DLMF 5.2); inf at 0, -1, -2, and so
---on.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.lgamma(x) end

---The derivative of lgamma (DLMF 5.2.2).
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.digamma(x) end

---1/(1 + exp(-x)), the logistic function, without overflow.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.sigmoid(x) end

---log(1 + exp(x)), a smooth relu, without overflow.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.softplus(x) end

---The absolute value.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.abs(x) end

----1, 0 or 1, as x is below, at or above 0.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.sign(x) end

---x where it is above 0, else 0.
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(x: number): number
function ad.relu(x) end

---The natural logarithm of x, or that to a base, which may be differentiated too.
---@param x autodiff.Number
---@param base? autodiff.Number
---@return autodiff.Number
---@overload fun(x: number, base?: number): number
function ad.log(x, base) end

---The arc tangent of y, or of y/x in the right quadrant, in radians; as in Lua's math.
---@param y autodiff.Number
---@param x? autodiff.Number
---@return autodiff.Number
---@overload fun(y: number, x?: number): number
function ad.atan(y, x) end

---The angle of the point (x, y), from -pi to pi.
---@param y autodiff.Number
---@param x autodiff.Number
---@return autodiff.Number
---@overload fun(y: number, x: number): number
function ad.atan2(y, x) end

---x to the power y, as x ^ y.
---@param x autodiff.Number
---@param y autodiff.Number
---@return autodiff.Number
---@overload fun(x: number, y: number): number
function ad.pow(x, y) end

---sqrt(x² + y²) without overflow.
---@param x autodiff.Number
---@param y autodiff.Number
---@return autodiff.Number
---@overload fun(x: number, y: number): number
function ad.hypot(x, y) end

---The remainder of x/y rounded towards 0; it has the sign of x.
---@param x autodiff.Number
---@param y autodiff.Number
---@return autodiff.Number
---@overload fun(x: number, y: number): number
function ad.fmod(x, y) end

---The largest integer that is not above x, as a plain integer (so it can index a table or bound
---a loop) where x fits one. `x // 1` rounds in the same way and stays an AD value, with
---derivative 0.
---@param x autodiff.Number
---@return integer
function ad.floor(x) end

---The smallest integer that is not below x, as a plain integer where x fits one.
---@param x autodiff.Number
---@return integer
function ad.ceil(x) end

---The whole part of x, as a plain number, and the fraction, which has derivative 1.
---@param x autodiff.Number
---@return number # the whole part
---@return autodiff.Number # the fraction
function ad.modf(x) end

---The largest of its arguments, or of a list.
---@param x autodiff.Number
---@param ... autodiff.Number
---@return autodiff.Number
---@overload fun(list: autodiff.Number[]): autodiff.Number
function ad.max(x, ...) end

---The smallest of its arguments, or of a list.
---@param x autodiff.Number
---@param ... autodiff.Number
---@return autodiff.Number
---@overload fun(list: autodiff.Number[]): autodiff.Number
function ad.min(x, ...) end

---x, but not below lo and not above hi.
---@param x autodiff.Number
---@param lo autodiff.Number
---@param hi autodiff.Number
---@return autodiff.Number
---@overload fun(x: number, lo: number, hi: number): number
function ad.clamp(x, lo, hi) end

---a if c is true, or a number other than 0, else b.
---@param c boolean|autodiff.Number
---@param a autodiff.Number
---@param b autodiff.Number
---@return autodiff.Number
function ad.where(c, a, b) end

---The sum of a list of numbers; 0 for an empty one.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
function ad.sum(list) end

---The product of a list of numbers; 1 for an empty one.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
function ad.prod(list) end

---The mean of a list of numbers.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
function ad.mean(list) end

---The Euclidean norm of a list of numbers: the square root of the sum of squares.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
function ad.norm(list) end

---The logarithm of the sum of exp of a list of numbers, without overflow; -inf for an empty one.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
function ad.logsumexp(list) end

---The sum of the products of two lists of numbers, which must be of the same length.
---@param a autodiff.Number[]
---@param b autodiff.Number[]
---@return autodiff.Number
---@overload fun(a: number[], b: number[]): number
function ad.dot(a, b) end

---A list of exp of each number over the sum of them all, without overflow.
---@param list autodiff.Number[]
---@return autodiff.Number[]
function ad.softmax(list) end

---The evaluation trace of f at the given arguments, as text in the form of the textbooks: every
---operation with its value and the line of the source that it comes from, the tangents by each
---input, and the adjoints.
---@param f autodiff.Callable
---@param ... any
---@return string
function ad.explain(f, ...) end

---The computational graph of f at the given arguments.
---@param f autodiff.Callable
---@param ... any
---@return autodiff.Graph
function ad.graph(f, ...) end

---While it is on, the first operation on AD values whose value, tangent or cotangent is NaN or
---infinite raises an error with the operation, its operands, and the line of the source, also in
---the backward pass.
---@param on boolean
---@return boolean # the setting from before
function ad.debug_nans(on) end

return ad
