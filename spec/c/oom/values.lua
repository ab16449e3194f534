-- luacheck: read globals near
-- Duals and vars as values: operators, comparisons, text, fields.
local ad = require("autodiff")

local function operators(a, b)
  local list = {a + b, a - b, a * b, a / b, a ^ b, a % b, a // b, -a,
    a + 1, 1 - a, 2 * a, 2 / a, a ^ 2, 2 ^ a, a % 2, 5 % a, a // 1, 7 // a}
  local s = 0.0
  for _, v in ipairs(list) do s = s + v end
  assert(a < b or b <= a)
  assert((a == b) == (ad.value(a) == ad.value(b)))
  assert(ad.eq(a, a) and ad.lt(a, a + 1) and ad.le(a, a))
  assert(a < 100 and -100 <= a)
  return s
end

local d, e = ad.dual(2.0, 1.0), ad.dual(3.5, 0.0)
local plain = operators(2.0, 3.5)
near(ad.value(operators(d, e)), plain)
assert(tostring(d) == "dual(2, 1)")
assert(#(d .. " and " .. e) > 0)
assert(d.value == 2 and d.tangent == 1)
assert(ad.type(d) == "dual" and ad.type(2) == "number" and ad.type("x") == nil)

local several = ad.dual(2.0, {1.0, 0.0, -1.0})
local product = several * several + ad.sin(several)
near(product.tangent[1], 4 + math.cos(2))
near(product.tangent[3], -4 - math.cos(2))
assert(#tostring(product) > 0)

local x, y = ad.var(2.0), ad.var(3.5)
near(ad.value(operators(x, y)), plain)
assert(tostring(x) == "var(2)")
assert(#("x = " .. x) > 0)
assert(x.value == 2 and x.grad == nil and ad.type(x) == "var")
assert(ad.value(x:detach()) == 2)

assert(ad.stop(x) ~= nil and ad.value(ad.stop(x)) == 2)
assert(ad.stop({x, {y}})[2][1] ~= nil)
near(ad.no_grad(function(v) return v * 2 end, x), 4)

local env = {math = math}
local undo = ad.install(env)
near(ad.grad(function(v) return env.math.sin(v) end)(0.5), math.cos(0.5))
undo()
assert(env.math == math)

-- An escaped value is a constant.
local kept
ad.grad(function(v) kept = v * v return kept end)(3.0)
near(ad.value(kept + 1), 10)
near(ad.grad(function(v) return v * kept end)(1.0), 9)
