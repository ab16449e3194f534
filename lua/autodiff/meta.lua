---@meta autodiff
---@diagnostic disable: unused-local, missing-return

-- Types of the public names, for editors with the Lua language server (LuaCATS
-- annotations, https://luals.github.io/wiki/annotations). Never run; what the
-- names mean is in autodiff/docs.lua, and spec/meta_spec.lua compares the two.

---A number, or one that is being differentiated.
---@alias autodiff.Number number|autodiff.Var|autodiff.Dual

---A number, an array, or a table of structures; what is no number in it stays as it is.
---@alias autodiff.Structure autodiff.Number|autodiff.Array|table

---A function or an object with a `__call`.
---@alias autodiff.Callable fun(...: any): ...

---An array, or one that is being differentiated.
---@alias autodiff.Operand autodiff.Array|autodiff.Var|autodiff.Dual

---Reverse mode: a value on a tape.
---@class autodiff.Var: autodiff.ArrayMethods
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

---An array, or an AD value of one; numbers broadcast.
---@alias autodiff.ArrayLike autodiff.Array|autodiff.Number

---@alias autodiff.Axes integer|integer[]

---@alias autodiff.Indices integer|table|autodiff.Array

---The functions whose first argument is an array, as its methods.
---@class autodiff.ArrayMethods
---@field [integer] autodiff.ArrayLike # a view, counted from 1 or from the end
---@field [table] autodiff.ArrayLike # {i, {from, to}, {from, to, step}, {}}
---@field sum fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field mean fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field prod fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field max fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field min fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field norm fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field logsumexp fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
---@field softmax fun(self: self, axis?: integer): autodiff.ArrayLike
---@field maximum fun(self: self, b: autodiff.ArrayLike): autodiff.ArrayLike
---@field minimum fun(self: self, b: autodiff.ArrayLike): autodiff.ArrayLike
---@field argmax fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): integer|autodiff.Array
---@field argmin fun(self: self, axis?: autodiff.Axes, keepdims?: boolean): integer|autodiff.Array
---@field std fun(self: self, axis?: autodiff.Axes, keepdims?: boolean, ddof?: number): any
---@field log_softmax fun(self: self, axis?: integer): autodiff.ArrayLike
---@field cumsum fun(self: self, axis?: integer): autodiff.ArrayLike
---@field sort fun(self: self, axis?: integer): autodiff.ArrayLike
---@field argsort fun(self: self, axis?: integer): autodiff.Array
---@field reshape fun(self: self, shape: autodiff.Axes, ...: integer): autodiff.ArrayLike
---@field transpose fun(self: self, axes?: integer[]): autodiff.ArrayLike
---@field squeeze fun(self: self, axis?: autodiff.Axes): autodiff.ArrayLike
---@field expand_dims fun(self: self, axis: autodiff.Axes): autodiff.ArrayLike
---@field broadcast_to fun(self: self, shape: autodiff.Axes, ...: integer): autodiff.ArrayLike
---@field split fun(self: self, parts: autodiff.Axes, axis?: integer): autodiff.ArrayLike[]
---@field take fun(self: self, indices: autodiff.Indices, axis?: integer): autodiff.ArrayLike
---@field scatter_add fun(self: self, indices: autodiff.Indices, b: any, axis?: integer): any
---@field flip fun(self: self, axis?: autodiff.Axes): autodiff.ArrayLike
---@field pad fun(self: self, widths: integer|table, value?: autodiff.Number): autodiff.ArrayLike
---@field tile fun(self: self, reps: autodiff.Axes): autodiff.ArrayLike
---@field abs fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field acos fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field acosh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field asin fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field asinh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field atan fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field atan2 fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field atanh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field cbrt fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field ceil fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field clamp fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field cos fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field cosh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field deg fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field digamma fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field eq fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field erf fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field erfc fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field exp fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field exp2 fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field expm1 fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field floor fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field fmod fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field hypot fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field le fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field lgamma fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field log fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field log10 fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field log1p fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field log2 fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field lt fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field modf fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field pow fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field rad fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field relu fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field sigmoid fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field sign fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field sin fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field sinh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field softplus fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field sqrt fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field tan fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field tanh fun(self: self, ...: autodiff.ArrayLike): autodiff.Array
---@field where fun(self: self, ...: autodiff.ArrayLike): autodiff.Array

---An n-dimensional block of float64.
---@class autodiff.Array: autodiff.ArrayMethods
---@field shape integer[] # the lengths of the dimensions
---@field ndim integer # how many there are
---@field size integer # number of elements
---@operator add(autodiff.ArrayLike): autodiff.Array
---@operator sub(autodiff.ArrayLike): autodiff.Array
---@operator mul(autodiff.ArrayLike): autodiff.Array
---@operator div(autodiff.ArrayLike): autodiff.Array
---@operator mod(autodiff.ArrayLike): autodiff.Array
---@operator pow(autodiff.ArrayLike): autodiff.Array
---@operator idiv(autodiff.ArrayLike): autodiff.Array
---@operator unm: autodiff.Array
---@operator len: integer
local Array = {}

---The elements as nested lists of numbers.
---@return table
function Array:tolist() end

---The same elements in an array of its own, which may be written to.
---@return autodiff.ArrayLike
function Array:copy() end

---The variance over the axes: the mean of squared differences from the mean.
---@param axis? autodiff.Axes
---@param keepdims? boolean
---@param ddof? number
---@return autodiff.ArrayLike
function Array:var(axis, keepdims, ddof) end

---Forward mode: a value and its tangent.
---@class autodiff.Dual: autodiff.ArrayMethods
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

---What a compiled function has come to: a table with the numbers of traces, operations, array_calls
---(those on arrays among them), guards, loops, calls, retraces (calls that took a new path) and
---eager_calls (that ran f itself), the backend that runs the program, seconds_compiling, what `map`
---has run (`map`: kernels or machine code, and for which CPU), rounds (of the gradient of a loop:
---"stored", or "recomputed" where memory is too small for all of them), and, if the function is not
---run as a program, a note that says why.
---@return table
function Compiled:stats() end

---The program for a batch, without a call for each row.
---@param a any
---@param ... any
---@return any ...
function Compiled:map(a, ...) end

---The program for the arguments of the last call as one C99 file that needs only libm: a function
---`int name(const double *x, double *y)` of all the numbers in the arguments and in the results,
---which its header comment lists in order.
---@param name string
---@return string
function Compiled:c_source(name) end

---Writes what was recorded, for arguments of every form, to a file, which `ad.load_program` makes a
---compiled function of again.
---@param path string
---@return nil
function Compiled:save(path) end

---The sparse Jacobian of a compiled function from a list of numbers to a list of numbers, at x:
---which entries can be other than 0 is read off the program, and columns that share no row are
---found together (Curtis, Powell and Reid 1974).
---@param x number[]
---@param options? table dense, threads
---@return table|autodiff.Array
function Compiled:jacobian(x, options) end

---The sparse Hessian of a compiled function from a list of numbers to a number, at x, as
---`c:jacobian` gives Jacobians; columns are found together by a star colouring (Coleman and Moré
---1984).
---@param x number[]
---@param options? table dense, threads
---@return table|autodiff.Array
function Compiled:hessian(x, options) end

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

---A generator of random numbers.
---@class autodiff.Random
local Random = {}

---Numbers from lo (0) up to but not including hi (1).
---@param shape? integer|integer[]
---@param lo? number
---@param hi? number
---@return autodiff.Array|number
function Random:uniform(shape, lo, hi) end

---Numbers of the normal distribution with mean 0 and variance 1, by the polar method of
---G. Marsaglia and T. A. Bray (1964), in arithmetic that leaves a machine no choice.
---@param shape? integer|integer[]
---@return autodiff.Array|number
function Random:normal(shape) end

---Integers from lo to hi, both included and all equally likely, as math.random gives them.
---@param lo integer
---@param hi integer
---@param shape? integer|integer[]
---@return autodiff.Array|integer
function Random:randint(lo, hi, shape) end

---An array of the integers 1 to n in an order that is any of all with the same probability.
---@param n integer
---@return autodiff.Array
function Random:permutation(n) end

---All that decides what the generator gives next, as a string for `random`.
---@return string
function Random:state() end

---An n-dimensional block of numbers.
---@class autodiff.Array

---@class autodiff
---@field _VERSION string
---@field math mathlib
---@field linalg autodiff.Linalg # functions of matrices
local ad = {}

---The kind of x, as math.type gives it: "number", "dual" (forward mode), "var" (reverse mode),
---"array", or nil for anything else, numeric strings included.
---@param x any
---@return "number"|"dual"|"var"|"array"|nil
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

---A callable that does what f does, for any f of numbers, arrays and structures, most usefully for
---`ad.value_and_grad(f)`. The first call records the operations of f into a program; later calls
---run the program, not f.
---@param f function
---@param options? table max_traces, max_operations, memory, fast, backend
---@return autodiff.Compiled
function ad.compile(f, options) end

---A function with a derivative of your own. f gets plain numbers and arrays. jvp(primals, tangents,
---y) returns the tangent of y, with both in lists; vjp(ybar, y, ...) returns one cotangent per
---argument, nil for 0.
---@param rule autodiff.Rule
---@return fun(...: any): any
function ad.custom(rule) end

---A function of some parameters whose value is x = solve(...), called with plain numbers, for
---which f(x, ...) = 0. x is a number, a list (then f returns a list as long) or an array.
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
---@overload fun(a: autodiff.Array, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
function ad.sum(list) end

---The product of a list of numbers; 1 for an empty one.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
---@overload fun(a: autodiff.Array, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
function ad.prod(list) end

---The mean of a list of numbers.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
---@overload fun(a: autodiff.Array, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
function ad.mean(list) end

---The Euclidean norm of a list of numbers: the square root of the sum of squares.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
---@overload fun(a: autodiff.Array, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
function ad.norm(list) end

---The logarithm of the sum of exp of a list of numbers, without overflow; -inf for an empty one.
---@param list autodiff.Number[]
---@return autodiff.Number
---@overload fun(list: number[]): number
---@overload fun(a: autodiff.Array, axis?: autodiff.Axes, keepdims?: boolean): autodiff.ArrayLike
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
---@overload fun(a: autodiff.Array, axis?: integer): autodiff.Array
function ad.softmax(list) end

---An array of the numbers in nested lists, which may contain arrays and AD values; all lists of a
---depth must have the same length.
---@param list table|autodiff.Array
---@return autodiff.ArrayLike
function ad.array(list) end

---An array of zeros.
---@param shape autodiff.Axes
---@param ... integer
---@return autodiff.Array
function ad.zeros(shape, ...) end

---An array of ones.
---@param shape autodiff.Axes
---@param ... integer
---@return autodiff.Array
function ad.ones(shape, ...) end

---An array with the number v everywhere.
---@param shape autodiff.Axes
---@param v number
---@return autodiff.Array
function ad.full(shape, v) end

---The n by n (or n by m) matrix with 1 on the diagonal and 0 elsewhere.
---@param n integer
---@param m? integer
---@return autodiff.Array
function ad.eye(n, m) end

---The numbers that Lua's for would go through, both ends included.
---@param from number
---@param to number
---@param step? number
---@return autodiff.Array
function ad.arange(from, to, step) end

---n numbers at equal distances, the first and the last being the given ones.
---@param from number
---@param to number
---@param n integer
---@return autodiff.Array
function ad.linspace(from, to, n) end

---The larger of two numbers, or of two arrays element by element, with broadcasting.
---@param a autodiff.ArrayLike
---@param b autodiff.ArrayLike
---@return autodiff.ArrayLike
function ad.maximum(a, b) end

---The smaller of two numbers, or of two arrays element by element, with broadcasting.
---@param a autodiff.ArrayLike
---@param b autodiff.ArrayLike
---@return autodiff.ArrayLike
function ad.minimum(a, b) end

---A function that does for a batch what f does for one example.
---@param f autodiff.Callable
---@param in_axes? integer|false|(integer|false)[]
---@return fun(...: autodiff.Structure): autodiff.Structure, ...
function ad.vmap(f, in_axes) end

---The position, from 1, of the largest element along an axis, or of the whole array in row-major
---order.
---@param a autodiff.ArrayLike
---@param axis? autodiff.Axes
---@param keepdims? boolean
---@return integer|autodiff.Array
function ad.argmax(a, axis, keepdims) end

---The position, from 1, of the smallest element along an axis, or of the whole array in row-major
---order.
---@param a autodiff.ArrayLike
---@param axis? autodiff.Axes
---@param keepdims? boolean
---@return integer|autodiff.Array
function ad.argmin(a, axis, keepdims) end

---The standard deviation over the axes: the square root of the mean of squared differences from
---the mean.
---@param a autodiff.ArrayLike
---@param axis? autodiff.Axes
---@param keepdims? boolean
---@param ddof? number
---@return autodiff.ArrayLike
function ad.std(a, axis, keepdims, ddof) end

---The logarithm of softmax along an axis (the last unless it is given), without overflow.
---@param a autodiff.ArrayLike
---@param axis? integer
---@return autodiff.ArrayLike
function ad.log_softmax(a, axis) end

---The sums of the elements up to each along an axis, the last unless it is given.
---@param a autodiff.ArrayLike
---@param axis? integer
---@return autodiff.ArrayLike
function ad.cumsum(a, axis) end

---The elements in ascending order along an axis, the last unless it is given.
---@param a autodiff.ArrayLike
---@param axis? integer
---@return autodiff.ArrayLike
function ad.sort(a, axis) end

---The positions, from 1, from which `sort` takes its elements.
---@param a autodiff.ArrayLike
---@param axis? integer
---@return autodiff.Array
function ad.argsort(a, axis) end

---The same elements, in row-major order, in another shape.
---@param a autodiff.ArrayLike
---@param shape autodiff.Axes
---@param ... integer
---@return autodiff.ArrayLike
function ad.reshape(a, shape, ...) end

---A view with the dimensions in another order: the reverse, or that of a list of axes.
---@param a autodiff.ArrayLike
---@param axes? integer[]
---@return autodiff.ArrayLike
function ad.transpose(a, axes) end

---A view without the dimensions of length 1, or without those that are given.
---@param a autodiff.ArrayLike
---@param axis? autodiff.Axes
---@return autodiff.ArrayLike
function ad.squeeze(a, axis) end

---A view with one more dimension, of length 1, which is number `axis` of the result.
---@param a autodiff.ArrayLike
---@param axis autodiff.Axes
---@return autodiff.ArrayLike
function ad.expand_dims(a, axis) end

---a, or a number, repeated to a shape by the rules of broadcasting.
---@param a autodiff.ArrayLike
---@param shape autodiff.Axes
---@param ... integer
---@return autodiff.ArrayLike
function ad.broadcast_to(a, shape, ...) end

---Arrays one after the other along an axis, the first unless it is given.
---@param list autodiff.ArrayLike[]
---@param axis? integer
---@return autodiff.ArrayLike
function ad.concat(list, axis) end

---Arrays of one shape, or numbers, along a new axis, the first unless it is given.
---@param list autodiff.ArrayLike[]
---@param axis? integer
---@return autodiff.ArrayLike
function ad.stack(list, axis) end

---The parts of a along an axis (the first unless it is given), as a list of views.
---@param a autodiff.ArrayLike
---@param parts autodiff.Axes
---@param axis? integer
---@return autodiff.ArrayLike[]
function ad.split(a, parts, axis) end

---The elements, or parts along an axis, at the indices, which count from 1 or from the end.
---@param a autodiff.ArrayLike
---@param indices autodiff.Indices
---@param axis? integer
---@return autodiff.ArrayLike
function ad.take(a, indices, axis) end

---A copy of a with b added where `take` with the same indices finds its result.
---@param a autodiff.ArrayLike
---@param indices autodiff.Indices
---@param b autodiff.ArrayLike
---@param axis? integer
---@return autodiff.ArrayLike
function ad.scatter_add(a, indices, b, axis) end

---A view with the elements along an axis, or a list of axes, in reverse order; along all unless
---they are given.
---@param a autodiff.ArrayLike
---@param axis? autodiff.Axes
---@return autodiff.ArrayLike
function ad.flip(a, axis) end

---a with a border of zeros, or of the number `value`.
---@param a autodiff.ArrayLike
---@param widths integer|table
---@param value? autodiff.Number
---@return autodiff.ArrayLike
function ad.pad(a, widths, value) end

---a repeated `reps` times along the last axis, or along each of the last ones by a list of
---numbers.
---@param a autodiff.ArrayLike
---@param reps autodiff.Axes
---@return autodiff.ArrayLike
function ad.tile(a, reps) end

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

---A compiled function from a file that its method save has written. It runs without the function
---that it was made from and records nothing: arguments of another form, or that lead where nobody
---has been, are an error, as is a file that is damaged or cannot be read. The file is the same for
---every machine.
---@param path string
---@return fun(...: any): ...
function ad.load_program(path) end

---Writes an array or a number to a file of NumPy's format .npy, byte for byte as numpy.save
---writes float64, or a table of them to an .npz: names are the keys, and what is in a list is
---called arr_0, arr_1 and so on, as numpy.savez does it.
---@param path string
---@param a autodiff.Array|autodiff.Number|table
---@return nil
function ad.save(path, a) end

---What a .npy or .npz file contains: an array, a number if it has no dimensions, or a table of
---these by name, where arr_0, arr_1 and so on are the positions 1, 2 and so on of a list.
---@param path string
---@return autodiff.Array|number|table
function ad.load(path) end

---A generator of random numbers, the same for the same integer on every machine: xoshiro256** by
---D. Blackman and S. Vigna (2021) with a period of 2^256 - 1, seeded by splitmix64.
---@param seed integer|string
---@return autodiff.Random
function ad.random(seed) end

---The product of two matrices.
---@param a autodiff.Operand
---@param b autodiff.Operand
---@return autodiff.Operand|autodiff.Number # a number for two vectors
function ad.matmul(a, b) end

---The matrix of the products of every element of a with every element of b.
---@param a autodiff.Operand
---@param b autodiff.Operand
---@return autodiff.Operand
function ad.outer(a, b) end

---Sums of products, by labels: in `spec` each operand has a letter for each of its dimensions, and
---behind `->` stand those of the result; over all others is summed.
---@param spec string
---@param ... autodiff.Operand|autodiff.Number
---@return autodiff.Operand|autodiff.Number
function ad.einsum(spec, ...) end

---Functions of matrices, or of batches of them.
---@class autodiff.Linalg
local linalg = {}

---The x with a x = b, for a square matrix a and a vector or a matrix b; of both there may be
---batches, which are broadcast.
---@param a autodiff.Operand
---@param b autodiff.Operand
---@return autodiff.Operand
function linalg.solve(a, b) end

---The inverse of a square matrix.
---@param a autodiff.Operand
---@return autodiff.Operand
function linalg.inv(a) end

---The determinant of a square matrix, a number.
---@param a autodiff.Operand
---@return autodiff.Number|autodiff.Operand # an array for a batch
function linalg.det(a) end

---The sign of the determinant, and the logarithm of its absolute value, which overflows later than
---the determinant.
---@param a autodiff.Operand
---@return autodiff.Number|autodiff.Operand sign
---@return autodiff.Number|autodiff.Operand logdet
function linalg.slogdet(a) end

---The lower triangle l with l l^T = a, for a symmetric matrix a; of another one its symmetric part
---(a + a^T)/2 is taken, so that a gradient is symmetric.
---@param a autodiff.Operand
---@return autodiff.Operand
function linalg.cholesky(a) end

---Two matrices q and r with q r = a, where the columns of q are orthonormal and r is an upper
---triangle; reduced: with the lesser of a's two lengths between them.
---@param a autodiff.Operand
---@return autodiff.Operand q
---@return autodiff.Operand r
function linalg.qr(a) end

---Three arrays u, s, vt with (u * s) vt = a, where the columns of u and the rows of vt are
---orthonormal and the vector s descends; thin: s is as long as the lesser of a's two lengths.
---@param a autodiff.Operand
---@return autodiff.Operand u
---@return autodiff.Operand s
---@return autodiff.Operand vt
function linalg.svd(a) end

---The eigenvalues of a symmetric matrix, ascending, and a matrix with the eigenvectors as columns;
---of another matrix its symmetric part (a + a^T)/2 is taken.
---@param a autodiff.Operand
---@return autodiff.Operand w
---@return autodiff.Operand v
function linalg.eigh(a) end

---The x for which the sum of squares of a x - b is least, for one matrix a and a vector or matrix
---b; of several such x the one with the least norm.
---@param a autodiff.Operand
---@param b autodiff.Operand
---@return autodiff.Operand
function linalg.lstsq(a, b) end

return ad
