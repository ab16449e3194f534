-- luacheck: read globals fails near
-- Arrays in the places of numbers, in all transforms.
local ad = require("autodiff")

local x, v = ad.array{1.0, 2.0}, ad.ones(2)
local function f(y) return ad.sum(ad.where(ad.lt(y, 1.5), ad.sin(y) * y, y[1] / y)) end
local d = math.sin(1) + math.cos(1) + 0.5
near(ad.grad(f)(x)[1], d)
near(ad.value_and_grad(f)(x), math.sin(1) + 0.5)
near(select(2, ad.jvp(f, {x}, {v})), d - 0.25)
local _, pull = ad.vjp(function(p) return p.a * p.b end, {a = x, b = 3.0})
near(pull(v).b, 3)
pull = nil -- luacheck: ignore
_, pull = ad.linearize(f, x)
near(pull(v), d - 0.25)
pull = nil -- luacheck: ignore
near(ad.hvp(f, x, v)[2], ad.hessian(f)(x)[{2, 1}] + ad.hessian(f)(x)[{2, 2}])
for _, name in ipairs{"jacobian", "jacfwd", "jacrev"} do
  near(ad[name](function(p) return {p.a * p.b, p.b} end){a = x, b = 3.0}[1].a[{2, 2}], 3)
end
near(ad.taylor(function(t) return ad.exp(x * t) end, 0.0, 2)[3][2], 2)
near(ad.grad(function(y) return ad.sum(ad.grad(f)(y)) end)(x)[1],
  ad.hessian(f)(x)[{1, 1}] + ad.hessian(f)(x)[{2, 1}])

local w = ad.var(x)
f(w):backward()
f(w):backward{retain = true}
near(w.grad[1], 2 * d)
ad.backward({w * 2}, {w}, {v})
near(w.grad[1], 2 * d + 2)
w:zero_grad()
do
  local tape <close> = ad.tape{persistent = true}
  local a = tape:var(x)
  near(tape:gradient(f(a), a)[1], d)
  near(tape:gradient{target = {a * 2}, seeds = {v}, sources = {a}}[1][1], 2)
end
near(f(ad.dual(x, {v, x})).tangent[1], d - 0.25)

local cut = ad.checkpoint(function(y) return ad.sin(y) * x end)
near(ad.grad(function(y) return ad.sum(cut(y)) end)(x)[1], math.cos(1))
local function square(y) return y * y end
for _, rule in ipairs{"jvp", "vjp"} do
  local own = ad.custom{name = rule, f = square,
    jvp = rule == "jvp" and function(p, t) return 2 * p[1] * t[1] end or nil,
    vjp = rule == "vjp" and function(g, _, y) return 2 * y * g end or nil}
  near(ad.grad(function(y) return ad.sum(own(y)) end)(x)[2], 4)
  near(select(2, ad.jvp(own, {x}, {v}))[2], 4)
end
local root = ad.implicit{f = function(y, a) return y * y - a end, solve = ad.sqrt}
near(ad.jacobian(root)(x)[{1, 1}], 0.5)
assert(ad.check(f, {x}, {order = 2}))

local rows = ad.array{{1.0, 2.0}, {3.0, 4.0}}
near(ad.vmap(ad.grad(f))(rows)[{1, 1}], d)
fails(ad.vmap(f, 3), rows)

assert(#ad.explain(f, x) > 0)
assert(#ad.graph(f, x):svg() > 0)
ad.debug_nans(true)
fails(ad.grad(function(y) return ad.sum(ad.log(y - 1)) end), x)
fails(ad.grad(function(y) return ad.sum(ad.sqrt(y - 1)) end), x)
ad.debug_nans(false)

fails(ad.grad(function(y) return y end), x)
fails(ad.jvp, f, {x}, {ad.ones(3)})
local own = ad.array{1.0, 2.0}
ad.grad(function(y)
  local s = ad.sin(y)
  fails(function() own[1] = 3 end)
  return ad.sum(s)
end)(own)
own[1] = 1.0
