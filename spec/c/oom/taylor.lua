-- luacheck: read globals near
-- Taylor propagation through every kind of operation.
local ad = require("autodiff")

local c = ad.taylor(ad.exp, 0.0, 8)
local factorial = 1
for k = 0, 8 do
  factorial = k == 0 and 1 or factorial * k
  near(c[k + 1], 1 / factorial)
end
local function f(x)
  local y = ad.sin(x) * ad.cos(x) / (2 + x) + ad.log(1 + x) * ad.sqrt(2 + x) - x ^ 3
  y = y + ad.tan(x / 4) + ad.tanh(x) + ad.sigmoid(x) + ad.erf(x) + x ^ 2.5 + 2 ^ x
  y = y + ad.atan(x, 3) + ad.hypot(x, 2) + ad.lgamma(2 + x) + ad.softplus(x) + ad.cbrt(1 + x)
  y = y + ad.asin(x / 3) + ad.acosh(2 + x) + ad.max(x, 0.1) + ad.abs(x) + ad.sum{x, x * x}
  return y + ad.logsumexp{x, 1} + ad.prod{x, x, 2} + ad.norm{x, 1} + x % 3 + ad.fmod(x, 3)
end
local t = ad.taylor(f, 0.5, 4)
near(t[1], f(0.5))
near(t[2], ad.grad(f)(0.5))
near(t[3] * 2, ad.derivative(f, 2)(0.5))
near(t[4] * 6, ad.derivative(f, 3)(0.5))
near(ad.grad(function(x) return ad.taylor(ad.sin, x, 3)[4] end)(0.5), math.sin(0.5) / 6)
near(#ad.taylor(function() return 3 end, 1.0, 5), 6)
