--- What every public name is, with an example.
--
-- The one source of docstrings: `?name` in the REPL, the pages of `make doc`
-- and the specs all read this table. It is loaded by none of the others, so
-- that `require "autodiff"` does not pay for it.
--
-- `docs[name]` has the fields
--   sig      how to call it
--   text     one paragraph: shapes, errors, the source of a formula
--   example  a program; a line of its output stands behind each `-->`
--   section  under which heading the name belongs
--   order    its place in this file
-- Methods and fields are named after what they belong to: "tape:gradient",
-- "var.grad"; what is in a module of its own, "optim.lbfgs". DLMF is the NIST
-- Digital Library of Mathematical Functions, https://dlmf.nist.gov.

local docs = {}
local heading, count = nil, 0

local function section(name) heading = name end

-- Every example starts with what this adds; text is one paragraph, however
-- it is broken into lines here.
local function def(name, sig, text, example)
  count = count + 1
  docs[name] = {
    sig = sig,
    text = (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")),
    example = 'local ad = require "autodiff"\n' .. example:gsub("%s+$", ""),
    section = heading,
    order = count,
  }
end

---------------------------------------------------------------------------------------------------
section "Values"
---------------------------------------------------------------------------------------------------

def("type", "type(x)", [[
The kind of x, as math.type gives it: "number", "dual" (forward mode), "var" (reverse mode),
"array", or nil for anything else, numeric strings included. Without an argument it is an
error.]], [[
print(ad.type(1), ad.type(ad.var(1)), ad.type(ad.dual(1, 0)), ad.type "1")
--> number	var	dual	nil]])

def("value", "value(x)", [[
The plain number in x, with every level of differentiation taken off. A number comes back as
it is, so this is what to use for printing, logging, table keys and string.format. Anything
that is neither is an error.]], [[
print(ad.value(ad.dual(3, 1)), ad.value(7))  --> 3.0	7
print(("%.2f"):format(ad.value(ad.var(2))))  --> 2.00]])

def("var", "var(x, ...)", [[
Vars that record in the background what is computed from them, for `backward` to ask: one for
each argument, which may also be a structure (a table of numbers, nested to any depth; what
is no number in it stays). Each argument gives one result of its own form.]], [[
local x, y = ad.var(2, 4)
local z = x * y
z:backward()
print(x.grad, y.grad)      --> 4.0	2.0
local p = ad.var{a = 1, b = {2, "text"}}
print(p.a, p.b[1], p.b[2]) --> var(1)	var(2)	text]])

def("var:backward", "v:backward([options])", [[
Adds to the field `grad` of every var from which the number v was computed the derivative of
v by it, and frees the graph. `{retain = true}` keeps the graph for another question; asking
a freed one is an error that says so. Reverse accumulation: Griewank and Walther, Evaluating
Derivatives, 2nd ed., section 3.2.]], [[
local x = ad.var(3)
local y = x^2
y:backward{retain = true}
print(x.grad)              --> 6.0
y:backward()               -- adds
print(x.grad)              --> 12.0
print(pcall(y.backward, y))  --> false	backward: the graph has been freed ... {retain = true}]])

def("var:zero_grad", "v:zero_grad()", [[
Makes the field `grad` of v nil again, as it was before the first `backward`.]], [[
local x = ad.var(3)
local y = x^2
y:backward()
x:zero_grad()
print(x.grad)              --> nil]])

def("var:detach", "v:detach()", [[
The value of v as a constant: one level of differentiation is taken off, so the result is a
plain number unless an outer transform is running.]], [[
local x = ad.var(3)
local y = x * x:detach()
y:backward()
print(x:detach(), x.grad)  --> 3.0	3.0]])

def("var.value", "v.value", [[
The value of v with one level of differentiation taken off. `ad.value(v)` takes off all. Only
to be read.]], [[
print(ad.var(3).value)     --> 3.0]])

def("var.grad", "v.grad", [[
What `backward` has added up for v, which must have been made by `ad.var`: nil before the
first `backward` and after `zero_grad`, else the derivative, of the form of a number. Only to
be read.]], [[
local x = ad.var(3)
print(x.grad)              --> nil
local y = x^2
y:backward()
print(x.grad)              --> 6.0]])

def("backward", "backward(results, inputs[, seeds])", [[
`v:backward()` for several results at once, and for these inputs only: `inputs` is a list of
vars, and the `grad` of each gains the gradient of the sum of all results, each times its
seed (1 without a list of seeds). Frees the graph. An input that is no var is an error.]], [[
local a, b = ad.var(3, 5)
ad.backward({a * b, 5 * a}, {a}, {1, 10})
print(a.grad, b.grad)      --> 55.0	nil]])

def("dual", "dual(value, tangent)", [[
A value for forward mode, made by hand: everything computed from it carries a derivative
along. The tangent may be a list of numbers, for several directions at once. In one
computation all duals made by hand belong together.]], [[
local x = ad.dual(3, 1)                        -- dx/dx is 1
print(x * x, ad.sin(ad.dual(0, 2)))            --> dual(9, 6)	dual(0, 2)
print(ad.dual(3, {1, 0}) * ad.dual(2, {0, 1})) --> dual(6, 2, 3)]])

def("dual.value", "d.value", [[
The value of d with one level of differentiation taken off. `ad.value(d)` takes off all. Only
to be read.]], [[
print((ad.dual(3, 1) + 1).value)  --> 4.0]])

def("dual.tangent", "d.tangent", [[
The tangent of d: a number, or a list of numbers if d was made from a list. Only to be read.]], [[
print((ad.dual(3, 1)^2).tangent)  --> 6.0
local t = (ad.dual(3, {1, 10})^2).tangent
print(t[1], t[2])                 --> 6.0	60.0]])

def("stop", "stop(x)", [[
x as a constant for every transform that is running, its value unchanged. x may be a
structure.]], [[
print(ad.grad(function(x) return x * ad.stop(x) end)(3))  --> 3.0]])

def("no_grad", "no_grad(f, ...)", [[
Calls f with the arguments behind it; its results are constants for the innermost transform
(or tape, or graph of `ad.var`) that is running in this coroutine. Transforms further out go
on differentiating them.]], [[
print(ad.grad(function(x)
  return x * ad.no_grad(function() return x^2 end)
end)(3))                   --> 9.0]])

def("eq", "eq(a, b)", [[
Are the two values equal? Unlike ==, it also compares an AD value with a number, and finds
that NaN is not equal to itself. All levels of differentiation are taken off before.]], [[
local v = ad.var(1)
print(v == 1, ad.eq(v, 1)) --> false	true]])

def("lt", "lt(a, b)", "Is the value of a less than that of b? The function for a < b.", [[
print(ad.lt(ad.var(1), 2), ad.lt(2, 2))  --> true	false]])

def("le", "le(a, b)", "Is the value of a at most that of b? The function for a <= b.", [[
print(ad.le(ad.var(1), 2), ad.le(2, 2))  --> true	true]])

def("_VERSION", "_VERSION", [[
The name and version of the library, in the form of Lua's own _VERSION.]], [[
print(ad._VERSION:match "^autodiff %d+%.%d+" ~= nil)  --> true]])

---------------------------------------------------------------------------------------------------
section "Gradients"
---------------------------------------------------------------------------------------------------

def("grad", "grad(f[, argnums])", [[
A function of f's arguments that returns the gradient of f's first result, which must be one
number, by argument number `argnums` (default 1), then f's further results. The gradient has
the form of the argument: a number, or a table nested in the same way. A list of numbers for
`argnums` gives one gradient each. A result that is no number is an error, as is an argument
number beyond what was passed. Reverse mode: the cost is a small multiple of one call of f,
however many inputs there are (Baur and Strassen, Theoretical Computer Science 22, 1983, p.
317).]], [[
local function f(x, y) return x^2 * y end
print(ad.grad(f)(3, 5), ad.grad(f, 2)(3, 5))  --> 30.0	9.0
print(ad.grad(f, {1, 2})(3, 5))               --> 30.0	9.0
local g = ad.grad(function(p) return p.w[1] * p.w[2] + p.b end){w = {2, 3}, b = 1}
print(g.w[1], g.w[2], g.b)                    --> 3.0	2.0	1.0
print(pcall(ad.grad(function(x) return {x} end), 1))
--> false	grad: function must return a number, got a table; for several outputs use ad.jacobian]])

def("value_and_grad", "value_and_grad(f[, argnums])", [[
As `grad`, but the function returns f's value first, then the gradient or gradients, then f's
further results. No second run of f is needed for the value.]], [[
print(ad.value_and_grad(function(x) return x^2, "more" end)(3))  --> 9.0	6.0	more]])

def("jvp", "jvp(f, primals, tangents)", [[
Jacobian times vector, in forward mode: f's value at the list of arguments `primals`, and how
fast it changes when they move along the list `tangents`. Each tangent has the form of its
argument; nil stands for zeros. If f returns several results, both come as lists.]], [[
local function f(x, y) return x * y end
print(ad.jvp(f, {3, 5}, {1, 0}))        --> 15.0	5.0
local y, dy = ad.jvp(function(v) return {v[1] * v[2]} end, {{3, 5}}, {{1, 10}})
print(y[1], dy[1])                      --> 15.0	35.0]])

def("linearize", "linearize(f, ...)", [[
f's value at the given arguments, and a function that takes one tangent per argument and
returns the tangent of the value. f runs once; the function can be called any number of
times.]], [[
local y, lin = ad.linearize(function(a, b) return a * b end, 3, 5)
print(y, lin(1, 0), lin(0, 1))          --> 15.0	5.0	3.0]])

def("vjp", "vjp(f, ...)", [[
Vector times Jacobian, in reverse mode: f's value at the given arguments, and a function that
takes a weight in the form of the value and returns the gradient of the weighted value by
each argument. f runs once; the function can be called any number of times. Several results,
and their weights, come in lists.]], [[
local y, pull = ad.vjp(function(a, b) return {a * b, a + b} end, 3, 5)
print(y[1], y[2])                       --> 15.0	8.0
print(pull{1, 0})                       --> 5.0	3.0
print(pull{1, 10})                      --> 15.0	13.0]])

---------------------------------------------------------------------------------------------------
section "Jacobians and higher derivatives"
---------------------------------------------------------------------------------------------------

def("jacobian", "jacobian(f[, argnum])", [[
A function of f's arguments that returns J with J[i][j] = df[i]/dx[j], for an f from a list x
(argument number `argnum`, default 1) to a list. Where f or x is a structure or a number, J
has in each place of the form of f's result something of the form of x. It takes forward mode
if x has no more numbers than the result, else reverse mode.]], [[
local J = ad.jacobian(function(p)
  return {p[1] * ad.cos(p[2]), p[1] * ad.sin(p[2])}
end){2, 0}
print(J[1][1], J[1][2])                 --> 1.0	0.0
print(J[2][1], J[2][2])                 --> 0.0	2.0]])

def("jacfwd", "jacfwd(f[, argnum])", [[
`jacobian` in forward mode, whatever the shape. Its cost grows with the number of inputs.]], [[
local J = ad.jacfwd(function(x) return {x, x^2, x^3} end)(2)
print(J[1], J[2], J[3])                 --> 1.0	4.0	12.0]])

def("jacrev", "jacrev(f[, argnum])", [[
`jacobian` in reverse mode, whatever the shape. Its cost grows with the number of outputs.]], [[
local J = ad.jacrev(function(v) return {v[1] * v[2] * v[3]} end){2, 3, 5}
print(J[1][1], J[1][2], J[1][3])        --> 15.0	10.0	6.0]])

def("hessian", "hessian(f[, argnum])", [[
A function of f's arguments that returns the second derivatives of f, which must return one
number: H[i][j] for a list, a number for a number, and in general in each place of the form
of the argument something of its form again.]], [[
local H = ad.hessian(function(v) return v[1]^2 * v[2] end){3, 5}
print(H[1][1], H[1][2])                 --> 10.0	6.0
print(H[2][1], H[2][2])                 --> 6.0	0.0
print(ad.hessian(ad.exp)(0))            --> 1.0]])

def("hvp", "hvp(f, x, v)", [[
The Hessian of f at x times v, in the form of x, at the cost of a few calls of f: the Hessian
is not formed. It is the derivative of the gradient along v (Pearlmutter, Neural Computation
6(1), 1994, p. 147).]], [[
print(table.unpack(ad.hvp(function(x) return x[1]^2 * x[2] end, {3, 5}, {1, 0})))
--> 10.0	6.0]])

def("derivative", "derivative(f[, n])", [[
The n-th derivative (default: the first; up to 170) of f, a function of one number. From n =
2 on it is taken from a power series, see `taylor`, and costs about n² calls of f and not 2ⁿ.
If f returns a structure, so does the derivative.]], [[
print(ad.derivative(ad.sin)(0), ad.derivative(ad.sin, 3)(0))       --> 1.0	-1.0
print(ad.derivative(function(x) return x^5 end, 4)(2))             --> 240.0]])

def("taylor", "taylor(f, x, n)", [[
The Taylor coefficients of f, a function of one number, at x: the list of f(x), f′(x),
f″(x)/2!, up to the n-th derivative over n!, so n + 1 numbers. One run of f on truncated
power series: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapter 13. A negative n
is an error.]], [[
print(table.unpack(ad.taylor(ad.exp, 0, 3)))  --> 1.0	1.0	0.5	0.16666666666667]])

---------------------------------------------------------------------------------------------------
section "Tapes"
---------------------------------------------------------------------------------------------------

def("tape", "tape([options])", [[
A tape that records what is computed from its vars until it is asked for gradients. It can be
asked once, unless made with `{persistent = true}`. `#tape` is the number of recorded
operations. Memory is freed by `close`, by `<close>`, or with the tape.]], [[
local tape <close> = ad.tape()
local x, y = tape:var(2, 4)
local z = ad.exp(x) - x * y + ad.cos(y)
print(#tape)                      --> 5
print(tape:gradient(z, x, y))     --> 3.3890560989307	-1.2431975046921]])

def("tape:var", "tape:var(x, ...)", [[
Vars that this tape watches: one for each argument, which may be a structure. A closed tape
is an error.]], [[
local tape = ad.tape()
local p = tape:var{a = 2, b = {3}}
print(p.a, p.b[1])                --> var(2)	var(3)]])

def("tape:gradient", "tape:gradient(target, source, ...)", [[
The gradient of the target, a number, by each source, a var of this tape or a structure of
them, in the form of the source; 0 where they are not connected. The long form
tape:gradient{target =, sources =, seeds =} takes one structure of sources and returns one of
its form, and its target may be a list, whose sum is meant, each element times its seed
(default 1). A second question to a tape that is not persistent is an error.]], [[
local tape = ad.tape{persistent = true}
local p = tape:var{a = 2, b = 3}
local u, v = p.a * p.b, p.a + 1
print(tape:gradient(u, p.a, p.b)) --> 3.0	2.0
local g = tape:gradient{target = {u, v}, seeds = {1, 10}, sources = p}
print(g.a, g.b)                   --> 13.0	2.0]])

def("tape:stop", "tape:stop(f)", [[
Calls f and records nothing of what it computes; returns what f returns, as constants for
this tape.]], [[
local tape = ad.tape()
local x = tape:var(2)
local y = tape:stop(function() return x * x end)
print(#tape, y)                   --> 0	4.0]])

def("tape:reset", "tape:reset()", [[
Forgets everything that was recorded. Vars from before are constants from now on; the tape
can be used again.]], [[
local tape = ad.tape()
local x = tape:var(2)
local y = x * x
tape:reset()
print(#tape, y)                   --> 0	var(4)]])

def("tape:close", "tape:close()", [[
Frees the tape's memory; so does leaving the block of a local variable marked `<close>`.
Using a closed tape is an error; closing it again is not.]], [[
local tape = ad.tape()
tape:close()
print(pcall(tape.var, tape, 1))   --> false	attempt to use a closed tape]])

def("tape:bytes", "tape:bytes()", [[
How many bytes the tape's records take: 4 for a value and 12 for each of its operands that is
on the tape.]], [[
local tape = ad.tape()
local x = tape:var(2)
local before = tape:bytes()
local _ = ad.sin(x)
print(tape:bytes() - before)      --> 16]])

def("checkpoint", "checkpoint(f)", [[
A function that does what f does, but of which a tape keeps only the arguments: in the
backward pass f is run again. That trades time for memory (Griewank and Walther, Evaluating
Derivatives, 2nd ed., chapter 12). f must give the same results both times; it may close over
other values. An f that yields is recorded after all.]], [[
local function long(x)
  for _ = 1, 1000 do x = ad.sin(x) end
  return x
end
local tape = ad.tape()
local x = tape:var(1)
local y = ad.checkpoint(long)(x)
print(#tape)                                         --> 1
print(tape:gradient(y, x) == ad.grad(long)(1))       --> true]])

---------------------------------------------------------------------------------------------------
section "Rules and checks"
---------------------------------------------------------------------------------------------------

def("custom", "custom{name =, f =, jvp =, vjp =}", [[
A function with a derivative of your own. f gets plain numbers and arrays. jvp(primals, tangents, y)
returns the tangent of y, with both in lists; vjp(ybar, y, ...) returns one cotangent per
argument, nil for 0. One of the two rules is enough for all modes; without any,
differentiating is an error that names the function. Higher orders differentiate the rule,
which so must be written with operators and functions of this library.]], [[
local log1pexp = ad.custom{
  name = "log1pexp",
  f = function(x) return math.log(1 + math.exp(x)) end,
  vjp = function(ybar, _, x) return ybar / (1 + ad.exp(-x)) end,
}
print(ad.grad(log1pexp)(0), ad.jvp(log1pexp, {0}, {1}))  --> 0.5	0.69314718055995	0.5]])

def("implicit", "implicit{f =, solve =}", [[
A function of some parameters whose value is x = solve(...), called with plain numbers, for
which f(x, ...) = 0. x is a number, a list (then f returns a list as long) or an array. What
happens in `solve` is not differentiated: the derivatives are those of the implicit function
theorem, dx = -(df/dx)⁻¹ df, to any order. A singular df/dx is an error.]], [[
local root = ad.implicit{
  f = function(x, a) return x * x - a end,
  solve = function(a) return math.sqrt(a) end,
}
print(root(4), ad.grad(root)(4), ad.derivative(root, 2)(4))  --> 2.0	0.25	-0.03125]])

def("check", "check(f, args[, options])", [[
Compares forward and reverse derivatives of f at the list of arguments with central
differences extrapolated to step 0 (Ridders, Advances in Engineering Software 4(2), 1982, p.
75). Returns true, or false and a report that names argument and index. Options: `order = 2`
checks second derivatives too, `tol` is the relative tolerance (default 1e-6).]], [[
print(ad.check(function(v) return v[1] * ad.sin(v[2]) end, {{2, 3}}, {order = 2}))  --> true
local wrong = ad.custom{name = "wrong", f = function(x) return x * x end,
  vjp = function(ybar, _, x) return 3 * ybar * x end}
print((ad.check(wrong, {2})))  --> false]])

def("math", "math", [[
A table with exactly the names that Lua's math has here, differentiable where that makes
sense; the rest is Lua's own. `local math = ad.math` makes the script below it
differentiable.]], [[
local math = ad.math
print(ad.grad(function(x) return math.sin(x) * math.pi end)(0))  --> 3.1415926535898]])

def("install", "install([env])", [[
Puts `ad.math` in place of `env.math` (default: the global one) and returns a function that
undoes it. env must be a table.]], [[
local env = {math = math}
local undo = ad.install(env)
print(env.math == ad.math)     --> true
undo()
print(env.math == math)        --> true]])

---------------------------------------------------------------------------------------------------
section "Looking inside"
---------------------------------------------------------------------------------------------------

def("explain", "explain(f, ...)", [[
The evaluation trace of f at the given arguments, as text in the form of the textbooks: every
operation with its value and the line of the source that it comes from, the tangents by each
input, and the adjoints. Of a long trace the first and the last rows are shown, and how many are
between.]], [[
local text = ad.explain(function(x, y) return ad.sin(x) * y end, 0, 3)
print(type(text), text:find "sin" ~= nil)   --> string	true]])

def("graph", "graph(f, ...)", [[
The computational graph of f at the given arguments. tostring of it is text for Graphviz; `svg`
makes a picture. More than 1,000 nodes are an error.]], [[
local g = ad.graph(function(x, y) return ad.sin(x) * y end, 0, 3)
print(tostring(g):match "%w+ %w+")          --> digraph autodiff]])

def("graph:svg", "g:svg()", [[
An SVG picture of the graph, as text, laid out without any other program: values on the nodes,
partial derivatives on the edges, the line of the source as the tooltip.]], [[
local g = ad.graph(ad.sin, 0)
print(g:svg():match "^<%w+")                --> <svg]])

def("debug_nans", "debug_nans(on)", [[
While it is on, the first operation on AD values whose value, tangent or cotangent is NaN or
infinite raises an error with the operation, its operands, and the line of the source, also in
the backward pass. Returns the setting from before. When it is off it costs nothing.]], [[
local before = ad.debug_nans(true)
print(pcall(ad.grad(ad.sqrt), 0))           --> false	... debug_nans: ...
ad.debug_nans(before)
print(ad.grad(ad.sqrt)(0))                  --> inf]])

---------------------------------------------------------------------------------------------------
section "Compilation"
---------------------------------------------------------------------------------------------------

def("compile", "compile(f [, options])", [[
A callable that does what f does, for any f of numbers, arrays and structures, most usefully for
`ad.value_and_grad(f)`. The first call records the operations of f into a program; later calls run
the program, not f. Wherever f looked at a value (comparisons, ad.value, ad.floor, tostring) the
program has a guard: a call that takes another path is recorded too, and loops whose length depends
on the data become loops of the program. So do numbers that a loop counts, while they are computed
with, compared, and returned; as keys, or in calls of Lua's own functions, they take a trace for
each value. What Lua asks no value about (x == 1, type(x), t[x]) is seen to as well, by a debug hook
while f is recorded. Where f calls what cannot be seen into (math.random, a coroutine, other
libraries in C), computes with arrays, or counts, f itself runs once more after it was recorded; if
its results are others, f is called as it is from then on. f must have no other effects, and what it
closes over must not change. A key that is a number takes a trace for each value. Strings and the
lengths of tables are part of what is recorded; integers are, where f needs them. Operations on
arrays are recorded as a whole, with their shapes: an argument of another shape has a program of its
own. What a program has from outside f of arrays may be written to between calls; an f that writes
into arrays is called as it is; and c:c_source and c:save are for programs without operations on
arrays. Options: max_traces (default 4096) and max_operations bound what is recorded, beyond them f
itself is called; memory (default 2^28) bounds the bytes that the gradient of a loop keeps for the
way back: of a loop too long for it some rounds are kept, and those in between are computed once
more (Griewank and Walther, Algorithm 799: revolve), with the same result: a million rounds within
64 KB take about twice the time; fast = true allows sums and products in another order, reciprocals
for quotients, and a product and a sum in one operation where the CPU has that: errors stay within a
few roundings of the sum of the terms' magnitudes, but are not the same in every way to run; backend
= "interpreter" keeps to the portable interpreter, and "native" makes machine code at once, where
usually it waits until that pays. tostring gives a listing; what else can be done with it are
c:stats, c:map, c:jacobian, c:hessian, c:c_source and c:save.]], [[
local function newton(a)
  local x = a
  while ad.abs(x * x - a) > 1e-12 * a do x = 0.5 * (x + a / x) end
  return x
end
local c = ad.compile(ad.value_and_grad(newton))
print(("%.6f %.6f"):format(c(9.0)))         --> 3.000000 0.166667
print(("%.6f %.6f"):format(c(1e6)))         --> 1000.000000 0.000500
print(c:stats().loops)                      --> 1]])

def("compiled:stats", "c:stats()", [[
What a compiled function has come to: a table with the numbers of traces, operations, array_calls
(those on arrays among them), guards, loops, calls, retraces (calls that took a new path) and
eager_calls (that ran f itself), the backend that runs the program, seconds_compiling, what `map`
has run (`map`: kernels or machine code, and for which CPU), rounds (of the gradient of a loop:
"stored", or "recomputed" where memory is too small for all of them), and, if the function is not
run as a program, a note that says why.]], [[
local c = ad.compile(function(x) if x < 0 then return -x end return x * x end)
print(c(1.5), c(-2.0), c(2.5))              --> 2.25	2.0	6.25
print(c:stats().traces, c:stats().calls)    --> 2	3]])

---------------------------------------------------------------------------------------------------
section "Elementary functions"
---------------------------------------------------------------------------------------------------

def("exp", "exp(x)", "e to the power x. Derivative: itself (DLMF 4.7).", [[
print(ad.exp(1), ad.grad(ad.exp)(1))        --> 2.718281828459	2.718281828459]])

def("exp2", "exp2(x)", "2 to the power x. Derivative: log(2) 2^x (DLMF 4.7).", [[
print(ad.exp2(3), ad.grad(ad.exp2)(0))      --> 8.0	0.69314718055995]])

def("expm1", "expm1(x)", [[
exp(x) - 1, without loss of digits for x near 0. Derivative: exp(x).]], [[
print(ad.expm1(1e-20), ad.grad(ad.expm1)(0))  --> 1e-20	1.0]])

def("log", "log(x[, base])", [[
The natural logarithm of x, or that to a base, which may be differentiated too. Derivative:
1/x (DLMF 4.7); at 0 the value is -inf and the derivative inf.]], [[
print(ad.log(8, 2), ad.grad(ad.log)(4))     --> 3.0	0.25
print(ad.log(0), ad.grad(ad.log)(0))        --> -inf	inf]])

def("log1p", "log1p(x)", [[
log(1 + x), without loss of digits for x near 0. Derivative: 1/(1 + x).]], [[
print(ad.log1p(1e-20), ad.grad(ad.log1p)(1))  --> 1e-20	0.5]])

def("log2", "log2(x)", "The logarithm to base 2. Derivative: 1/(x log(2)).", [[
print(ad.log2(8), ad.grad(ad.log2)(1))      --> 3.0	1.442695040889]])

def("log10", "log10(x)", "The logarithm to base 10. Derivative: 1/(x log(10)).", [[
print(ad.log10(1000), ad.grad(ad.log10)(1)) --> 3.0	0.43429448190325]])

def("pow", "pow(x, y)", [[
x to the power y, as x ^ y. Derivative by x: y x^(y-1); by y: x^y log(x) (DLMF 4.7). For x <
0 the latter is NaN, which does not touch the former when the exponent is a constant; at x =
0 it is 0 for y >= 0 and -inf below.]], [[
print(ad.pow(2, -1), ad.grad(ad.pow, {1, 2})(2, 3))  --> 0.5	12.0	5.5451774444796
print(ad.grad(function(x) return x^3 end)(-2))       --> 12.0]])

def("sqrt", "sqrt(x)", [[
The square root. Derivative: 1/(2 sqrt(x)); inf at 0.]], [[
print(ad.sqrt(4), ad.grad(ad.sqrt)(4), ad.grad(ad.sqrt)(0))  --> 2.0	0.25	inf]])

def("cbrt", "cbrt(x)", [[
The cube root, also of negative numbers. Derivative: 1/(3 cbrt(x)²); inf at 0.]], [[
print(ad.cbrt(-8), ad.grad(ad.cbrt)(1))     --> -2.0	0.33333333333333]])

def("hypot", "hypot(x, y)", [[
sqrt(x² + y²) without overflow. Derivatives: x/hypot and y/hypot; both 0 at the origin.]], [[
print(ad.hypot(3, 4), ad.grad(ad.hypot, {1, 2})(3, 4))  --> 5.0	0.6	0.8]])

def("sin", "sin(x)", "The sine of x, in radians. Derivative: cos(x) (DLMF 4.20).", [[
print(ad.sin(0), ad.grad(ad.sin)(0))        --> 0.0	1.0]])

def("cos", "cos(x)", "The cosine of x, in radians. Derivative: -sin(x) (DLMF 4.20).", [[
print(ad.cos(0), ad.derivative(ad.cos, 2)(0))  --> 1.0	-1.0]])

def("tan", "tan(x)", "The tangent of x, in radians. Derivative: 1 + tan(x)² (DLMF 4.20).", [[
print(ad.tan(0), ad.grad(ad.tan)(1))        --> 0.0	3.4255188208147]])

def("asin", "asin(x)", [[
The arc sine, in radians, from -pi/2 to pi/2. Derivative: 1/sqrt(1 - x²) (DLMF 4.24); inf at
1 and -1, NaN beyond.]], [[
print(ad.asin(1), ad.grad(ad.asin)(0))      --> 1.5707963267949	1.0]])

def("acos", "acos(x)", [[
The arc cosine, in radians, from 0 to pi. Derivative: -1/sqrt(1 - x²) (DLMF 4.24); -inf at 1
and -1, NaN beyond.]], [[
print(ad.acos(1), ad.grad(ad.acos)(0))      --> 0.0	-1.0]])

def("atan", "atan(y[, x])", [[
The arc tangent of y, or of y/x in the right quadrant, in radians; as in Lua's math.
Derivative: 1/(1 + y²) (DLMF 4.24); see `atan2` for two arguments.]], [[
print(ad.atan(1), ad.grad(ad.atan)(1))      --> 0.78539816339745	0.5
print(ad.atan(1, -1))                       --> 2.3561944901923]])

def("atan2", "atan2(y, x)", [[
The angle of the point (x, y), from -pi to pi. Derivatives: x/(x² + y²) by y, -y/(x² + y²) by
x; both 0 at the origin.]], [[
print(ad.atan2(1, 0), ad.grad(ad.atan2, {1, 2})(1, 1))  --> 1.5707963267949	0.5	-0.5]])

def("deg", "deg(x)", "x, in radians, in degrees. Derivative: 180/pi.", [[
print(ad.deg(ad.math.pi), ad.grad(ad.deg)(0))  --> 180.0	57.295779513082]])

def("rad", "rad(x)", "x, in degrees, in radians. Derivative: pi/180.", [[
print(ad.rad(180), ad.grad(ad.rad)(0))      --> 3.1415926535898	0.017453292519943]])

def("sinh", "sinh(x)", "The hyperbolic sine. Derivative: cosh(x) (DLMF 4.34).", [[
print(ad.sinh(0), ad.grad(ad.sinh)(0))      --> 0.0	1.0]])

def("cosh", "cosh(x)", "The hyperbolic cosine. Derivative: sinh(x) (DLMF 4.34).", [[
print(ad.cosh(0), ad.grad(ad.cosh)(0))      --> 1.0	0.0]])

def("tanh", "tanh(x)", [[
The hyperbolic tangent. Derivative: 1 - tanh(x)² (DLMF 4.34), which goes to 0 far out.]], [[
print(ad.tanh(0), ad.grad(ad.tanh)(0), ad.grad(ad.tanh)(800))  --> 0.0	1.0	0.0]])

def("asinh", "asinh(x)", [[
The inverse of sinh. Derivative: 1/sqrt(1 + x²) (DLMF 4.38).]], [[
print(ad.asinh(0), ad.grad(ad.asinh)(0))    --> 0.0	1.0]])

def("acosh", "acosh(x)", [[
The inverse of cosh, for x >= 1. Derivative: 1/sqrt(x² - 1) (DLMF 4.38); inf at 1.]], [[
print(ad.acosh(1), ad.grad(ad.acosh)(2))    --> 0.0	0.57735026918963]])

def("atanh", "atanh(x)", [[
The inverse of tanh, for x between -1 and 1. Derivative: 1/(1 - x²) (DLMF 4.38).]], [[
print(ad.atanh(0), ad.grad(ad.atanh)(0.5))  --> 0.0	1.3333333333333]])

def("erf", "erf(x)", [[
The error function (DLMF 7.2.1). Derivative: 2/sqrt(pi) exp(-x²).]], [[
print(ad.erf(0), ad.grad(ad.erf)(0))        --> 0.0	1.1283791670955]])

def("erfc", "erfc(x)", [[
1 - erf(x) (DLMF 7.2.2), with all digits where it is small. Derivative: -2/sqrt(pi) exp(-x²).]], [[
print(ad.erfc(0), ad.erfc(10))              --> 1.0	2.0884875837625e-45]])

def("lgamma", "lgamma(x)", [[
The logarithm of the absolute value of the gamma function (DLMF 5.2); inf at 0, -1, -2, and
so on. Derivative: digamma(x).]], [[
print(ad.exp(ad.lgamma(5)), ad.grad(ad.lgamma)(1))  --> 24.0	-0.57721566490153]])

def("digamma", "digamma(x)", [[
The derivative of lgamma (DLMF 5.2.2). Its own derivatives are the polygamma functions (DLMF
5.15), to any order.]], [[
print(ad.digamma(1), ad.grad(ad.digamma)(1))  --> -0.57721566490153	1.6449340668482]])

def("sigmoid", "sigmoid(x)", [[
1/(1 + exp(-x)), the logistic function, without overflow. With y for its value, the
derivative is y (1 - y).]], [[
print(ad.sigmoid(0), ad.grad(ad.sigmoid)(0), ad.sigmoid(-800))  --> 0.5	0.25	0.0]])

def("softplus", "softplus(x)", [[
log(1 + exp(x)), a smooth relu, without overflow. Derivative: sigmoid(x).]], [[
print(ad.softplus(0), ad.softplus(800), ad.grad(ad.softplus)(0))  --> 0.69314718055995	800.0	0.5]])

---------------------------------------------------------------------------------------------------
section "Piecewise functions"
---------------------------------------------------------------------------------------------------

def("abs", "abs(x)", "The absolute value. Derivative: sign(x); 0 at 0.", [[
print(ad.abs(-3.5), ad.grad(ad.abs)(-3), ad.grad(ad.abs)(0))  --> 3.5	-1.0	0.0]])

def("sign", "sign(x)", "-1, 0 or 1, as x is below, at or above 0. Derivative: 0.", [[
print(ad.sign(-3), ad.sign(0), ad.grad(ad.sign)(2))  --> -1.0	0.0	0.0]])

def("relu", "relu(x)", "x where it is above 0, else 0. Derivative: 1 above 0, else 0.", [[
print(ad.relu(2), ad.relu(-2), ad.grad(ad.relu)(2), ad.grad(ad.relu)(0))  --> 2.0	0.0	1.0	0.0]])

def("floor", "floor(x)", [[
The largest integer that is not above x, as a plain integer (so it can index a table or bound
a loop) where x fits one. `x // 1` rounds in the same way and stays an AD value, with
derivative 0.]], [[
print(ad.floor(ad.var(2.5)), ad.var(2.5) // 1)  --> 2	var(2)]])

def("ceil", "ceil(x)", [[
The smallest integer that is not below x, as a plain integer where x fits one.]], [[
print(ad.ceil(ad.var(2.5)), ad.ceil(-2.5))  --> 3	-2]])

def("modf", "modf(x)", [[
The whole part of x, as a plain number, and the fraction, which has derivative 1. Both have
the sign of x.]], [[
print(ad.modf(ad.dual(2.5, 1)))             --> 2	dual(0.5, 1)]])

def("fmod", "fmod(x, y)", [[
The remainder of x/y rounded towards 0; it has the sign of x. Derivatives: 1 by x,
-trunc(x/y) by y. For the remainder with the sign of y there is x % y, with -floor(x/y) by y.
Two integers of which the second is 0 are an error, as in Lua's math.]], [[
print(ad.fmod(-7.5, 2), ad.grad(ad.fmod, {1, 2})(-7.5, 2))  --> -1.5	1.0	3.0]])

def("max", "max(x, ...) or max(list) or max(a[, axis[, keepdims]])", [[
The largest of its arguments, or of a list. The derivative is 1 by the largest and 0 by
others; at a tie it is shared equally. An empty list is an error. An array is reduced over axes as
in `sum`; element by element it is maximum or minimum.]], [[
print(ad.max(1, 3, 2), ad.grad(ad.max, {1, 2})(5, 5))  --> 3	0.5	0.5
print(table.unpack(ad.grad(ad.max){1, 5, 5}))          --> 0.0	0.5	0.5]])

def("min", "min(x, ...) or min(list) or min(a[, axis[, keepdims]])", [[
The smallest of its arguments, or of a list. The derivative is 1 by the smallest and 0 by
others; at a tie it is shared equally. An empty list is an error. An array is reduced over axes as
in `sum`; element by element it is maximum or minimum.]], [[
print(ad.min(1, 3, 2), ad.grad(ad.min, {1, 2})(5, 5))  --> 1	0.5	0.5]])

def("clamp", "clamp(x, lo, hi)", [[
x, but not below lo and not above hi. The derivative by x is 1 from lo to hi, both included,
and 0 outside, where the bound has it.]], [[
print(ad.clamp(5, 0, 1), ad.grad(ad.clamp)(1, 0, 1), ad.grad(ad.clamp, {1, 3})(5, 0, 1))
--> 1.0	1.0	0.0	1.0]])

def("where", "where(c, a, b)", [[
a if c is true, or a number other than 0, else b. Both are computed before, but the one that
is not taken contributes exactly 0 to every derivative, even where it is NaN or inf.]], [[
local function f(x) return ad.where(x > 0, ad.log(x), 0) end
print(f(1), ad.grad(f)(2), ad.grad(f)(-1))  --> 0.0	0.5	0.0]])

---------------------------------------------------------------------------------------------------
section "Functions of a list"
---------------------------------------------------------------------------------------------------

def("sum", "sum(list) or sum(a[, axis[, keepdims]])", [[
The sum of a list of numbers; 0 for an empty one. Of an array: over all axes, one, or a list of
them, which keepdims leaves as dimensions of length 1.]], [[
print(ad.sum{1, 2, 3})                        --> 6.0
print(table.unpack(ad.grad(ad.sum){1, 2, 3})) --> 1.0	1.0	1.0]])

def("prod", "prod(list) or prod(a[, axis[, keepdims]])", [[
The product of a list of numbers; 1 for an empty one. Each derivative is the product of the
others, exact also when there are zeros. Of an array over axes as in `sum`.]], [[
print(ad.prod{2, 3, 5})                        --> 30.0
print(table.unpack(ad.grad(ad.prod){0, 2, 3})) --> 6.0	0.0	0.0]])

def("mean", "mean(list) or mean(a[, axis[, keepdims]])", [[
The mean of a list of numbers. An empty one is an error. Of an array over axes as in `sum`;
without elements NaN.]], [[
print(ad.mean{1, 2, 6}, ad.grad(ad.mean){1, 2, 3, 4}[1])  --> 3.0	0.25]])

def("dot", "dot(list, list)", [[
The sum of the products of two lists of numbers, which must be of the same length. Of arrays it
is the sum over the last dimension of the first and the last but one of the second, or its only
one, as NumPy's dot has it; an array and a number are multiplied.]], [[
print(ad.dot({1, 2}, {3, 4}))                  --> 11.0
print(table.unpack(ad.grad(ad.dot)({1, 2}, {3, 4})))  --> 3.0	4.0]])

def("norm", "norm(list) or norm(a[, axis[, keepdims]])", [[
The Euclidean norm of a list of numbers: the square root of the sum of squares. Derivative:
x/norm; zeros where all are zero. Of an array over axes as in `sum`.]], [[
print(ad.norm{3, 4})                           --> 5.0
print(table.unpack(ad.grad(ad.norm){3, 4}))    --> 0.6	0.8]])

def("logsumexp", "logsumexp(list) or logsumexp(a[, axis[, keepdims]])", [[
The logarithm of the sum of exp of a list of numbers, without overflow; -inf for an empty one.
Its gradient is softmax. Of an array over axes as in `sum`.]], [[
print(ad.logsumexp{-1000, 1000})               --> 1000.0
print(table.unpack(ad.grad(ad.logsumexp){0, 0})) --> 0.5	0.5]])

def("softmax", "softmax(list) or softmax(a[, axis])", [[
A list of exp of each number over the sum of them all, without overflow. With y for the result,
the derivative of y[i] by element j is y[i] ((i == j and 1 or 0) - y[j]). Of an array along an
axis, the last unless it is given.]], [[
print(table.unpack(ad.softmax{1000, 1000}))    --> 0.5	0.5
print(ad.jacobian(ad.softmax){0, 0}[1][2])     --> -0.25]])

---------------------------------------------------------------------------------------------------
section "Products of arrays"
---------------------------------------------------------------------------------------------------

def("matmul", "matmul(a, b)", [[
The product of two matrices. Of arrays with more dimensions the last two are the matrices, and
those before them are broadcast; a vector is a row on the left and a column on the right, and two
vectors give a number. By BLAS if there is one (OpenBLAS, found at run time).]], [[
local a = ad.array{{1, 2}, {3, 4}}
print(ad.matmul(a, a)[{2, 1}], ad.matmul(ad.array{1, 2}, ad.array{3, 4}))  --> 15.0	11.0]])

def("outer", "outer(a, b)", [[
The matrix of the products of every element of a with every element of b.]], [[
print(ad.outer(ad.array{1, 2}, ad.array{3, 4})[{2, 1}])  --> 6.0]])

def("einsum", "einsum(spec, ...)", [[
Sums of products, by labels: in `spec` each operand has a letter for each of its dimensions, and
behind `->` stand those of the result; over all others is summed. Without the arrow the result has
the letters that occur once, sorted. A letter that an operand has twice is its diagonal, `...`
stands for any number of dimensions, which are broadcast. Any number of operands, multiplied two
at a time by matmul in the order that costs least.]], [[
local a = ad.array{{1, 2}, {3, 4}}
print(ad.einsum("ij,jk->ik", a, a)[{2, 1}], ad.einsum("ii", a))  --> 15.0	5.0]])

---------------------------------------------------------------------------------------------------
section "Linear algebra"
---------------------------------------------------------------------------------------------------

def("linalg", "linalg", [[
A table of functions of matrices, or of batches of them: the last two dimensions. They need LAPACK,
which is found at run time (on Debian the package libopenblas0), or is what the environment
variable AUTODIFF_BLAS names; without it they are an error that says so. All are differentiable to
any order in both modes. Where a matrix has NaN or inf in it so has the result.]], [[
print(ad.linalg.det(ad.array{{1, 2}, {3, 4}}))  --> -2.0]])

def("linalg.solve", "linalg.solve(a, b)", [[
The x with a x = b, for a square matrix a and a vector or a matrix b; of both there may be batches,
which are broadcast. A matrix that is singular is an error. A gradient uses the factors of a
again.]], [[
local x = ad.linalg.solve(ad.array{{2, 0}, {0, 4}}, ad.array{2, 2})
print(x[1], x[2])  --> 1.0	0.5]])

def("linalg.inv", "linalg.inv(a)", [[
The inverse of a square matrix. One that is singular is an error.]], [[
print(ad.linalg.inv(ad.array{{2, 0}, {0, 4}})[{2, 2}])  --> 0.25]])

def("linalg.det", "linalg.det(a)", [[
The determinant of a square matrix, a number. Its derivatives are cofactors, and are right for
singular matrices too, to any order.]], [[
local a = ad.array{{0, 2}, {0, 3}}
print(ad.linalg.det(a) == 0, ad.grad(ad.linalg.det)(a)[{1, 1}])  --> true	3.0]])

def("linalg.slogdet", "linalg.slogdet(a)", [[
The sign of the determinant, and the logarithm of its absolute value, which overflows later than
the determinant. Of a singular matrix these are 0 and -inf, and to differentiate that is an
error.]], [[
print(ad.linalg.slogdet(ad.array{{0, 1}, {1, 0}}))  --> -1.0	0.0]])

def("linalg.cholesky", "linalg.cholesky(a)", [[
The lower triangle l with l l^T = a, for a symmetric matrix a; of another one its symmetric part
(a + a^T)/2 is taken, so that a gradient is symmetric. One that is not positive definite is an
error. Derivatives: Murray, Differentiation of the Cholesky decomposition (2016).]], [[
print(ad.linalg.cholesky(ad.array{{4, 2}, {2, 5}})[{2, 2}])  --> 2.0]])

def("linalg.qr", "linalg.qr(a)", [[
Two matrices q and r with q r = a, where the columns of q are orthonormal and r is an upper
triangle; reduced: with the lesser of a's two lengths between them. Derivatives (Walter and
Lehmann 2010) need the first columns of a to be independent.]], [[
local q, r = ad.linalg.qr(ad.array{{3, 1}, {4, 2}})
print(ad.abs(r[{1, 1}]), r[{2, 1}])  --> 5.0	0.0]])

def("linalg.svd", "linalg.svd(a)", [[
Three arrays u, s, vt with (u * s) vt = a, where the columns of u and the rows of vt are orthonormal
and the vector s descends; thin: s is as long as the lesser of a's two lengths. Where singular
values are equal or 0 to rounding, the vectors are not determined, and what would be infinite in
their derivatives (Townsend 2016) is 0.]], [[
local u, s, vt = ad.linalg.svd(ad.array{{0, 2}, {1, 0}})
print(s[1], s[2])  --> 2.0	1.0]])

def("linalg.eigh", "linalg.eigh(a)", [[
The eigenvalues of a symmetric matrix, ascending, and a matrix with the eigenvectors as columns; of
another matrix its symmetric part (a + a^T)/2 is taken. Where eigenvalues are equal to rounding,
the vectors are not determined, and what would be infinite in their derivatives is 0: functions of
the eigenvalues alone that treat them alike have the right derivatives.]], [[
local w, v = ad.linalg.eigh(ad.array{{2, 1}, {1, 2}})
print(("%.12g %.12g"):format(w[1], w[2]))  --> 1 3]])

def("linalg.lstsq", "linalg.lstsq(a, b)", [[
The x for which the sum of squares of a x - b is least, for one matrix a and a vector or matrix b;
of several such x the one with the least norm. Derivatives (Golub and Pereyra 1973) are right as
long as the rank of a does not change, so always for full rank.]], [[
local x = ad.linalg.lstsq(ad.array{{1, 0}, {1, 1}, {1, 2}}, ad.array{1, 3, 5})
print(("%.12g %.12g"):format(x[1], x[2]))  --> 1 2]])

---------------------------------------------------------------------------------------------------
section "Minimization (the module autodiff.optim)"
---------------------------------------------------------------------------------------------------

def("optim.minimize", "optim.minimize(f, x0[, options])", [[
A minimum of f, a function from a structure to a number, near the structure x0, by the method
`options.method`: "lbfgs" (the default), "newton", "descent", "adam" or "adamw". The result has
the fields `x` and `gradient` (structures like x0), `value`, `iterations`, `evaluations`,
`reason` (in words) and `converged`; all plain, whatever transform is running. Options of all
methods: `gtol` (1e-8: the largest number in the gradient), `ftol` and `xtol` (0: the relative
change of value and x), `max_iterations` (1000), `max_evaluations`, `fg` (used instead of f: a
function that gives value and gradient, such as a compiled one; f may then be nil), `callback` (is
given a table after each iteration, and stops by returning true or a string) and `progress`
(true, or n, prints a line for each, or each n-th, iteration; a function is called instead).
Other options are errors.]], [[
local optim = require "autodiff.optim"
local function f(p) return (p.x - 1)^2 + ad.cosh(p.y) end
local r = optim.minimize(f, {x = 5, y = 2}, {method = "newton"})
print(("%.4f %.4f"):format(r.x.x, r.value), r.reason)  --> 1.0000 1.0000	gradient below 1e-08]])

def("optim.lbfgs", "optim.lbfgs(f, x0[, options])", [[
A minimum by L-BFGS with a line search for the strong Wolfe conditions (Nocedal and Wright,
Numerical Optimization, 2006, algorithms 7.5, 3.5 and 3.6), which is what to begin with for a
smooth function. Options besides those of `minimize`: `memory` (10), `step` (1: the length of
the first step), `c1` and `c2` (1e-4 and 0.9).]], [[
local optim = require "autodiff.optim"
local function rosenbrock(v) return (1 - v[1])^2 + 100 * (v[2] - v[1]^2)^2 end
local r = optim.lbfgs(rosenbrock, {-1.2, 1})
print(r.converged, ("%.6f %.6f"):format(r.x[1], r.x[2]))  --> true	1.000000 1.000000]])

def("optim.newton", "optim.newton(f, x0[, options])", [[
A minimum by Newton's method in a trust region, its steps by conjugate gradients on
Hessian-vector products (Nocedal and Wright, Numerical Optimization, 2006, algorithms 4.1 and
7.2); directions of negative curvature are followed. Options besides those of `minimize`: `hvp`
(a function of x and v instead of ad.hvp), `radius`, `max_radius`, `max_products` (per step).
The result also has `products`.]], [[
local optim = require "autodiff.optim"
local r = optim.newton(function(v) return v[1]^4 - v[1]^2 + v[2]^2 end, {0.001, 1})
print(("%.6f"):format(r.value))  --> -0.250000]])

def("optim.descent", "optim.descent(f, x0[, options]) or optim.descent([options])", [[
Gradient descent: a minimum as by `minimize`, or without a function an object for training
loops, see `optimizer:step`. Options: `rate` (0.01; a function of the number of the step is a
schedule), `momentum` (0.9), `nesterov` (false), `clip` (bound of the gradient's norm) and
`clip_value` (of each number in it). Momentum as in Sutskever et al., ICML 2013.]], [[
local optim = require "autodiff.optim"
local r = optim.descent(function(x) return (x - 3)^2 end, 0, {rate = 0.1})
print(("%.6f"):format(r.x))  --> 3.000000]])

def("optim.adam", "optim.adam(f, x0[, options]) or optim.adam([options])", [[
Adam (Kingma and Ba, ICLR 2015): a minimum as by `minimize`, or without a function an object
for training loops, see `optimizer:step`. Options: `rate` (0.001; a function of the number of
the step is a schedule), `beta1`, `beta2` (0.9, 0.999), `epsilon` (1e-8), `clip` and
`clip_value`.]], [[
local optim = require "autodiff.optim"
local opt = optim.adam{rate = function(t) return 0.9^t end}
local params = {w = 2.0}
for _ = 1, 50 do
  params = opt:step(params, ad.grad(function(p) return (p.w - 1)^2 end)(params))
end
print(("%.1f"):format(params.w))  --> 1.0]])

def("optim.adamw", "optim.adamw(f, x0[, options]) or optim.adamw([options])", [[
AdamW (Loshchilov and Hutter, ICLR 2019): Adam with a decay of the parameters that is not part
of the gradient: each step subtracts rate times `decay` (0.01) times the parameter, too.]], [[
local optim = require "autodiff.optim"
local opt = optim.adamw{rate = 0.1, decay = 0.5}
print(opt:step(1, 0))  --> 0.95]])

def("optim.least_squares", "optim.least_squares(f, x0[, options])", [[
The least half sum of squares of the numbers in the structure f(x), by Levenberg and Marquardt's
method with Moré's scaling and steps that are corrected by second derivatives (Moré 1978;
Transtrum and Sethna, arXiv:1201.5885). Options as for `minimize`, but `gtol` (1e-12) bounds the
cosine between residuals and columns of the Jacobian, `xtol` (1e-12) a step in the scale of x,
and `max_iterations` is 10000; `jacobian` (instead of ad.jacobian(f)), `damping` (1e-3),
`accelerate` (true) and `refine` (true). The result also has `residuals`, `jacobian` (a list of
rows) and `jacobians`, their number.]], [[
local optim = require "autodiff.optim"
local t, y = {0, 1, 2, 3}, {2.0, 1.2, 0.75, 0.44}
local r = optim.least_squares(function(p)
  local residuals = {}
  for i = 1, #t do residuals[i] = p.a * ad.exp(-p.k * t[i]) - y[i] end
  return residuals
end, {a = 1, k = 1})
print(r.converged, ("%.3f %.3f"):format(r.x.a, r.x.k))  --> true	1.997 0.500]])

def("optimizer:step", "optimizer:step(params, grads)", [[
The parameters after one step of `optim.descent`, `optim.adam` or `optim.adamw`: a structure like
`params`, which is not changed. What carries derivatives keeps them, so a training loop can
be differentiated, by its rate for example. The object has the fields `steps` and `rate`, those of
the last step. Parameters of another form than before are an error.]], [[
local optim = require "autodiff.optim"
local opt = optim.descent{rate = 0.1, momentum = 0.5}
local p = opt:step({w = 1}, {w = 2})
p = opt:step(p, {w = 2})
print(p.w, opt.steps)  --> 0.5	2]])

def("optimizer:reset", "optimizer:reset()", [[
Forgets all steps: the next parameters may have another form.]], [[
local opt = require("autodiff.optim").descent{rate = 1}
opt:step(0, 1)
opt:reset()
print(opt.steps, opt:step({2}, {1})[1])  --> 0	1.0]])

---------------------------------------------------------------------------------------------------
section "Files and random numbers"
---------------------------------------------------------------------------------------------------

def("compiled:map", "c:map(a, ...)", [[
The program for a batch, without a call for each row. Each argument is an array with the batch as
its first axis (a row of more dimensions is a list of numbers to f), or a number or structure that
all rows share, as in c:map(a, b, {threads = 2}); the answer is one array per number that f
returns. Rows may take different branches; one that goes where nobody has been is recorded.
Options, in a table behind the arguments: threads = n runs n threads, with the same result
whatever their number; reduce = "sum" gives the sums over the rows in place of them, in the
structure that f returns. Large batches are run by machine code where that was measured to be
faster than the vector kernels (option backend of compile: always, or never); c:stats().map says
what it came to. Where there can be no program, f itself is called for each row, and
c:stats().note says why; arrays that it returns are stacked. No rows give arrays of no rows, once
f was called with such arguments.]], [[
local c = ad.compile(ad.value_and_grad(function(x, a)
  if x < a then return x * a end
  return x ^ 2
end))
print(c:map(ad.array{1, 2, 3}, 2))                      --> [2 4 9]	[2 4 6]
print(c:map(ad.array{1, 2, 3}, 2, {reduce = "sum"}))    --> 15.0	12.0]])

def("compiled:c_source", "c:c_source(name)", [[
The program for the arguments of the last call as one C99 file that needs only libm: a function
`int name(const double *x, double *y)` of all the numbers in the arguments and in the results,
which its header comment lists in order. It returns 0, or another number where the arguments lead
where nobody has been. For the same digits compile it with -std=c99, or -ffp-contract=off.]], [[
local c = ad.compile(function(x) return x * x end)
c(3)
print(c:c_source("square"):match "int square.-;") --> int square(const double *x, double *y);]])

def("compiled:save", "c:save(path)", [[
Writes what was recorded, for arguments of every form, to a file, which `ad.load_program` makes a
compiled function of again. Constants in it may be numbers, strings and booleans; a structure with
a metatable is an error.]], [[
local c = ad.compile(function(x) return x * x end)
c(3)
local path = os.tmpname()
c:save(path)
print(ad.load_program(path)(4))                         --> 16.0
os.remove(path)]])

def("compiled:jacobian", "c:jacobian(x[, options])", [[
The sparse Jacobian of a compiled function from a list of numbers to a list of numbers, at x:
which entries can be other than 0 is read off the program, and columns that share no row are found
together (Curtis, Powell and Reid 1974). A table with the lists `rows` and `cols` of the entries,
the array `values`, the `shape` {rows, columns} and the number of `colours`; with dense = true the
whole matrix, as an array. threads = n as for `map`.]], [=[
local c = ad.compile(function(x)
  local r = {}
  for i = 1, #x - 1 do r[i] = x[i] * x[i + 1] end
  return r
end)
local J = c:jacobian{1, 2, 3, 4}
print(#J.rows, J.colours, J.values)                     --> 6	2	[2 1 3 2 4 3]
print(c:jacobian({1, 2, 3}, {dense = true}))            --> [[2 1 0]
-->  [0 3 2]]]=])

def("compiled:hessian", "c:hessian(x[, options])", [[
The sparse Hessian of a compiled function from a list of numbers to a number, at x, as
`c:jacobian` gives Jacobians; columns are found together by a star colouring (Coleman and Moré
1984). Both triangles are there.]], [=[
local c = ad.compile(function(x) return x[1] ^ 2 * x[2] + x[3] ^ 3 end)
local H = c:hessian{1, 2, 3}
print(table.concat(H.rows, " "), H.values)              --> 1 1 2 2 3	[ 4  2  2  0 18]]=])

def("load_program", "load_program(path)", [[
A compiled function from a file that its method save has written. It runs without the function
that it was made from and records nothing: arguments of another form, or that lead where nobody
has been, are an error, as is a file that is damaged or cannot be read. The file is the same for
every machine.]], [[
local c = ad.compile(ad.value_and_grad(function(x) return x * ad.sin(x) end))
c(1)
local path = os.tmpname()
c:save(path)
local d = ad.load_program(path)
os.remove(path)
print(d(2) == c(2))                                  --> true]])

def("save", "save(path, a)", [[
Writes an array or a number to a file of NumPy's format .npy, byte for byte as numpy.save writes
float64, or a table of them to an .npz: names are the keys, and what is in a list is called arr_0,
arr_1 and so on, as numpy.savez does it. Of AD values the plain values are written. The file is
written beside the path and takes its place when it is complete, so that an error leaves what was
there before. What cannot be written is an error that names the path.]], [[
local path = os.tmpname()
ad.save(path, { weights = ad.ones(2, 3), bias = 0.5 })
local model = ad.load(path)
print(model.bias, model.weights.shape[2])     --> 0.5	3
os.remove(path)]])

def("load", "load(path)", [[
What a .npy or .npz file contains: an array, a number if it has no dimensions, or a table of these
by name, where arr_0, arr_1 and so on are the positions 1, 2 and so on of a list. Reads versions 1
to 3, floats of 2, 4 and 8 bytes, integers of 1 to 8 bytes (rounded to float64 beyond 2^53) and
booleans, in both byte orders, and also elements in Fortran's order. Archives may be compressed if
zlib is installed. All other dtypes, and files that are damaged in any way, are errors that name
the path and say what is wrong.]], [[
local path = os.tmpname()
ad.save(path, ad.arange(1, 3))
print(ad.load(path))                          --> [1 2 3]
os.remove(path)]])

def("random", "random(seed)", [[
A generator of random numbers, the same for the same integer on every machine: xoshiro256** by D.
Blackman and S. Vigna (2021) with a period of 2^256 - 1, seeded by splitmix64. What `state` has
given is also a seed.]], [[
local r = ad.random(42)
print(r:uniform() == ad.random(42):uniform())   --> true
print(r:normal(2, 3).shape[2])                  --> 3]])

def("random:uniform", "r:uniform([shape[, lo, hi]])", [[
Numbers from lo (0) up to but not including hi (1). The shape is a list, or integers, after which
there is no place for limits; without one, or with an empty one, the result is a number. One word of
the generator makes one number.]], [[
local r = ad.random(1)
print(r:uniform({ 2, 2 }, -1, 1).ndim, r:uniform(3).ndim, math.type(r:uniform()))
--> 2	1	float]])

def("random:normal", "r:normal([shape])", [[
Numbers of the normal distribution with mean 0 and variance 1, by the polar method of G. Marsaglia
and T. A. Bray (1964), in arithmetic that leaves a machine no choice. The shape is a list or
integers; without one the result is a number.]], [[
local r = ad.random(1)
local x = r:normal(10000)
print(#x, math.abs(x[1]) < 9)                 --> 10000	true]])

def("random:randint", "r:randint(lo, hi[, shape])", [[
Integers from lo to hi, both included and all equally likely, as math.random gives them. Without a
shape (a list or integers) the result is an integer; arrays take limits up to 2^53.]], [[
local die = ad.random(6)
local throw = die:randint(1, 6)
print(math.type(throw), throw >= 1 and throw <= 6)  --> integer	true]])

def("random:permutation", "r:permutation(n)", [[
An array of the integers 1 to n in an order that is any of all with the same probability.]], [[
local p = ad.random(3):permutation(5):tolist()
table.sort(p)
print(p[1], p[5], #p)                         --> 1.0	5.0	5]])

def("random:state", "r:state()", [[
All that decides what the generator gives next, as a string for `random`.]], [[
local r = ad.random(3)
r:normal()
local same = ad.random(r:state())
print(r:normal() == same:normal())            --> true]])

---------------------------------------------------------------------------------------------------
section "Arrays"
---------------------------------------------------------------------------------------------------

def("array", "array(list)", [[
An array of the numbers in nested lists, which may contain arrays and AD values; all lists of a
depth must have the same length. A new array also of an array. Elements are float64; at most 8
dimensions. a.shape, a.ndim, a.size and #a describe it; a[i] and a[{i, {from, to}, {}}] are
views of parts (indices from 1, negative ones from the end, both ends included) and may be
assigned to, unless a tape has saved the array. With AD values in the list it is one itself.
exp, log, pow, sin, tanh and others like them are computed for several elements at once, less than
2 units in the last place from the exact value, on every CPU and at every place the same; those of
numbers are the C library's.]], [[
local a = ad.array{{1, 2}, {3, 4}}
print(a.ndim, a.size, #a, a[2][1], a[{-1, -1}])  --> 2	4	2	3.0	4.0]])

def("zeros", "zeros(shape)", [[
An array of zeros. The shape is a list of integers, or integers as so many arguments.]], [[
print(ad.zeros(2, 3).size, ad.zeros({2, 3}):sum())  --> 6	0.0]])

def("ones", "ones(shape)", [[
An array of ones. The shape is a list of integers, or integers as so many arguments.]], [[
print(ad.ones(2, 3):sum())  --> 6.0]])

def("full", "full(shape, v)", [[
An array with the number v everywhere. The shape is a list of integers or one integer.]], [[
print(ad.full({2, 2}, 7):sum())  --> 28.0]])

def("eye", "eye(n[, m])", [[
The n by n (or n by m) matrix with 1 on the diagonal and 0 elsewhere.]], [[
print(ad.eye(3):sum(), ad.eye(2, 3)[{2, 2}])  --> 3.0	1.0]])

def("arange", "arange(from, to[, step])", [[
The numbers that Lua's for would go through, both ends included. The step is 1 unless it is
given.]], [[
print(table.unpack(ad.arange(1, 2, 0.5):tolist()))  --> 1.0	1.5	2.0]])

def("linspace", "linspace(from, to, n)", [[
n numbers at equal distances, the first and the last being the given ones.]], [[
print(table.unpack(ad.linspace(0, 1, 5):tolist()))  --> 0.0	0.25	0.5	0.75	1.0]])

def("array.shape", "a.shape", [[
The lengths of the dimensions, in a new list.]], [[
print(table.unpack(ad.array{{1, 2, 3}, {4, 5, 6}}.shape))  --> 2	3]])

def("array.ndim", "a.ndim", [[
The number of dimensions.]], [[
print(ad.zeros(2, 3).ndim)  --> 2]])

def("array.size", "a.size", [[
The number of elements.]], [[
print(ad.zeros(2, 3).size)  --> 6]])

def("array:tolist", "a:tolist()", [[
The elements as nested lists of numbers. Of an array that is being differentiated, AD values.]], [[
print(ad.ones(2, 3):tolist()[2][3])  --> 1.0]])

def("array:copy", "a:copy()", [[
The same elements in an array of its own, which may be written to.]], [[
local a = ad.ones(2)
local b = a:copy()
b[1] = 5
print(a[1], b[1])  --> 1.0	5.0]])

def("maximum", "maximum(a, b)", [[
The larger of two numbers, or of two arrays element by element, with broadcasting. At a tie each
has derivative 1/2. (`max` of an array reduces it.)]], [[
print(table.unpack(ad.maximum(ad.array{1, 5}, 3):tolist()))  --> 3.0	5.0]])

def("minimum", "minimum(a, b)", [[
The smaller of two numbers, or of two arrays element by element, with broadcasting. At a tie
each has derivative 1/2. (`min` of an array reduces it.)]], [[
print(table.unpack(ad.minimum(ad.array{1, 5}, 3):tolist()))  --> 1.0	3.0]])

def("vmap", "vmap(f[, in_axes])", [[
A function that does for a batch what f does for one example. f runs once, on values that stand
for any example, and each operation works on the whole batch. in_axes says along which axis the
examples of an argument lie (1 unless it is given, negative from the end), or false for an argument
that all share: one for all arguments, or a list. Arguments may be structures, whose arrays are all
mapped; results have the batch as their first axis. Of f may be taken derivatives, and of what comes
out. Where f looks at a value (if, ad.value) that differs along the batch it is an error; what f
keeps is a constant afterwards.]], [[
local function loss(w, x, y) return (ad.dot(w, x) - y)^2 end
local w, xs, ys = ad.array{1, -1}, ad.array{{1, 2}, {3, 4}}, ad.array{0, 1}
print(ad.vmap(loss, {false})(w, xs, ys))           --> [1 4]
local each = ad.vmap(ad.grad(loss), {false})(w, xs, ys)  -- a gradient for each example
print(each[{2, 1}], each[{2, 2}])                  --> -12.0	-16.0]])

---------------------------------------------------------------------------------------------------
section "Reductions of arrays"
---------------------------------------------------------------------------------------------------

def("argmax", "argmax(a[, axis[, keepdims]])", [[
The position, from 1, of the largest element along an axis, or of the whole array in row-major
order. The first of several; NaN counts as the largest. A constant: positions have no
derivative. An array without elements is an error.]], [[
print(ad.argmax(ad.array{3, 9, 1}), ad.argmax(ad.array{{1, 2}, {4, 3}}, 2)[1])  --> 2	2.0]])

def("argmin", "argmin(a[, axis[, keepdims]])", [[
The position, from 1, of the smallest element along an axis, or of the whole array in row-major
order. The first of several; NaN counts as the smallest. A constant: positions have no
derivative. An array without elements is an error.]], [[
print(ad.argmin(ad.array{3, 9, 1}), ad.argmin(ad.array{{1, 2}, {4, 3}}, 2)[1])  --> 3	1.0]])

def("std", "std(a[, axis[, keepdims[, ddof]]])", [[
The standard deviation over the axes: the square root of the mean of squared differences from
the mean. The sum of squares is divided by n - ddof, where ddof is 0 unless it is given. The
derivative is 0 where all elements are equal. Its square is the method a:var(axis, keepdims,
ddof), since ad.var makes vars.]], [[
local a = ad.array{1, 2, 3, 4, 5}
print(a:var(), ad.std(a) == a:var() ^ 0.5, a:var(nil, false, 1))  --> 2.0	true	2.5]])

def("array:var", "a:var([axis[, keepdims[, ddof]]])", [[
The variance over the axes: the mean of squared differences from the mean. The sum of squares is
divided by n - ddof, where ddof is 0 unless it is given. The mean is taken off first, so a large
one costs no digits.]], [[
print(ad.array{1, 2, 3, 4, 5}:var())  --> 2.0]])

def("log_softmax", "log_softmax(a[, axis])", [[
The logarithm of softmax along an axis (the last unless it is given), without overflow.]], [[
print(table.unpack(ad.log_softmax(ad.array{0, -1000}):tolist()))  --> 0.0	-1000.0]])

def("cumsum", "cumsum(a[, axis])", [[
The sums of the elements up to each along an axis, the last unless it is given.]], [[
print(table.unpack(ad.cumsum(ad.array{1, 2, 3}):tolist()))  --> 1.0	3.0	6.0]])

def("sort", "sort(a[, axis])", [[
The elements in ascending order along an axis, the last unless it is given. NaN comes last;
equal elements keep their order, by which derivatives go.]], [[
print(table.unpack(ad.sort(ad.array{3, 1, 2}):tolist()))  --> 1.0	2.0	3.0]])

def("argsort", "argsort(a[, axis])", [[
The positions, from 1, from which `sort` takes its elements. A constant.]], [[
local a = ad.array{3, 1, 2}
print(table.unpack(ad.argsort(a):tolist()))      --> 2.0	3.0	1.0
print(a:take(ad.argsort(a)) == ad.sort(a))       --> true]])

---------------------------------------------------------------------------------------------------
section "Shapes of arrays"
---------------------------------------------------------------------------------------------------

def("reshape", "reshape(a, shape)", [[
The same elements, in row-major order, in another shape. One length may be -1: what is left for
it. A view, unless the elements of a have gaps. As a method also a:reshape(2, 3).]], [[
print(table.unpack(ad.reshape(ad.arange(1, 6), {2, -1})[2]:tolist()))  --> 4.0	5.0	6.0]])

def("transpose", "transpose(a[, axes])", [[
A view with the dimensions in another order: the reverse, or that of a list of axes.]], [[
print(table.unpack(ad.transpose(ad.zeros(2, 3, 4), {3, 1, 2}).shape))  --> 4	2	3]])

def("squeeze", "squeeze(a[, axis])", [[
A view without the dimensions of length 1, or without those that are given. If none remains it
is a number.]], [[
print(ad.squeeze(ad.ones(1, 3, 1)).ndim, ad.squeeze(ad.ones(1, 1)))  --> 1	1.0]])

def("expand_dims", "expand_dims(a, axis)", [[
A view with one more dimension, of length 1, which is number `axis` of the result. A list of
axes adds several.]], [[
print(table.unpack(ad.expand_dims(ad.ones(3), 1).shape))   --> 1	3
print(table.unpack(ad.expand_dims(ad.ones(3), -1).shape))  --> 3	1]])

def("broadcast_to", "broadcast_to(a, shape)", [[
a, or a number, repeated to a shape by the rules of broadcasting. Of an array a view, which
cannot be written to.]], [[
print(ad.broadcast_to(ad.array{1, 2}, {3, 2}):sum())  --> 9.0]])

def("concat", "concat(list[, axis])", [[
Arrays one after the other along an axis, the first unless it is given. All other dimensions
must agree.]], [[
print(table.unpack(ad.concat{ad.ones(1), ad.zeros(2)}:tolist()))  --> 1.0	0.0	0.0]])

def("stack", "stack(list[, axis])", [[
Arrays of one shape, or numbers, along a new axis, the first unless it is given.]], [[
local a = ad.stack({ad.array{1, 2}, ad.array{3, 4}}, 2)
print(table.unpack(a[1]:tolist()))  --> 1.0	3.0]])

def("split", "split(a, parts[, axis])", [[
The parts of a along an axis (the first unless it is given), as a list of views. An integer asks
for so many equal parts; a list of positions for a part that ends with each of them and one of
what remains.]], [[
local parts = ad.split(ad.arange(1, 5), {2, 3})
print(#parts, #parts[1], #parts[2], parts[3][1])  --> 3	2	1	4.0
print(#ad.split(ad.zeros(2, 6), 3, 2))            --> 3]])

def("take", "take(a, indices[, axis])", [[
The elements, or parts along an axis, at the indices, which count from 1 or from the end.
Indices are an array or a list, whose dimensions take the place of the axis, or a number, which
takes it away. Without an axis, positions in row-major order.]], [[
local a = ad.array{{1, 2, 3}, {4, 5, 6}}
print(table.unpack(ad.take(a, {1, -1}):tolist()))   --> 1.0	6.0
print(table.unpack(ad.take(a, 2, 2):tolist()))      --> 2.0	5.0]])

def("scatter_add", "scatter_add(a, indices, b[, axis])", [[
A copy of a with b added where `take` with the same indices finds its result. b is broadcast to
that; what an index names twice gets both.]], [[
local a = ad.scatter_add(ad.zeros(3), {1, 3, 3}, ad.array{5, 6, 7})
print(table.unpack(a:tolist()))  --> 5.0	0.0	13.0]])

def("flip", "flip(a[, axis])", [[
A view with the elements along an axis, or a list of axes, in reverse order; along all unless
they are given.]], [[
print(table.unpack(ad.flip(ad.array{1, 2, 3}):tolist()))  --> 3.0	2.0	1.0]])

def("pad", "pad(a, widths[, value])", [[
a with a border of zeros, or of the number `value`. Widths are one number for all sides,
{before, after} for all axes, or a list of such pairs, one for each axis.]], [[
print(table.unpack(ad.pad(ad.array{1, 2}, {1, 2}):tolist()))   --> 0.0	1.0	2.0	0.0	0.0
print(table.unpack(ad.pad(ad.zeros(2, 3), 1).shape))           --> 4	5]])

def("tile", "tile(a, reps)", [[
a repeated `reps` times along the last axis, or along each of the last ones by a list of
numbers. A list longer than a has dimensions adds axes in front.]], [[
print(table.unpack(ad.tile(ad.array{1, 2}, 2):tolist()))  --> 1.0	2.0	1.0	2.0
print(table.unpack(ad.tile(ad.ones(2), {3, 1}).shape))    --> 3	2]])

return docs
