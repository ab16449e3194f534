-- luacheck: read globals memory near
-- Every function of numbers, on plain numbers, duals and vars.
local ad = require("autodiff")

local unary = {abs = -1.5, acos = 0.3, asin = 0.3, atan = 0.7, ceil = 1.2, cos = 1, deg = 1,
  exp = 1, floor = 1.2, log = 2, rad = 30, sin = 1, sqrt = 2, tan = 0.5, sinh = 0.5,
  cosh = 0.5, tanh = 0.5, asinh = 0.5, acosh = 1.5, atanh = 0.5, exp2 = 1.5, expm1 = 0.5,
  log1p = 0.5, log2 = 3, log10 = 3, cbrt = 2, erf = 0.5, erfc = 0.5, lgamma = 2.5,
  digamma = 2.5, sigmoid = 0.5, softplus = 0.5, relu = 0.5, sign = -0.5, modf = 1.5}
local binary = {fmod = {5.5, 2}, max = {1, 2}, min = {1, 2}, pow = {2, 3}, atan2 = {1, 2},
  hypot = {3, 4}, atan = {1, 2}, log = {8, 2}}

for name, at in pairs(unary) do
  local f = ad[name]
  local function g(x) return (f(x)) end
  local y = g(at)
  local yd, d = ad.jvp(g, {at}, {1.0})
  near(yd, y)
  near(ad.grad(g)(at), d)
  if ad.math[name] then near(ad.math[name](at), y) end
end
for name, at in pairs(binary) do
  local f = ad[name]
  local a, b = ad.grad(f, {1, 2})(at[1], at[2])
  local yd, d = ad.jvp(f, at, {1.0, 1.0})
  near(yd, f(at[1], at[2]))
  near(a + b, d)
  near(ad.grad(function(x) return f(x, at[2]) end)(at[1]), a)
  near(ad.grad(function(x) return f(at[1], x) end)(at[2]), b)
end
for name, f in pairs(ad.math) do
  if type(f) == "function" and not name:find("^random") and not binary[name] then
    memory(select(2, pcall(f, 0.5)))
  end
end

local function piecewise(x, lo, hi)
  return ad.clamp(x, lo, hi) + ad.where(ad.lt(x, hi), x * 2, hi) + ad.where(x, lo, hi)
    + ad.where(ad.le(x, lo), 1, x) + ad.where(ad.eq(x, lo), 1, x) + ad.max(x, lo, hi)
    + ad.min(x, lo, hi)
end
local y, g = ad.value_and_grad(piecewise)(0.5, 0.25, 2.0)
near(y, piecewise(0.5, 0.25, 2.0))
near(g, 5)
near(ad.grad(ad.abs)(0.0), 0)
near(ad.grad(function(x) return x ^ 0 end)(0.0), 0)
