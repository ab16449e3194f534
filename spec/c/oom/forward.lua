-- luacheck: read globals near
-- jvp, linearize, derivative, several directions.
local ad = require("autodiff")

local y, dy = ad.jvp(function(x, t) return x * t.a end, {2.0, {a = 3.0}}, {1.0, {a = 10.0}})
near(y, 6)
near(dy, 23)
local ys, dys = ad.jvp(function(x) return x, x * x, {x ^ 3} end, {2.0}, {1.0})
near(ys[2], 4)
near(dys[3][1], 12)

local z, lin = ad.linearize(function(x, w) return ad.exp(x) * w end, 0.0, 2.0)
near(z, 2)
for k = 1, 3 do near(lin(1.0, k), 2 + k) end
local _, linlist = ad.linearize(function(t) return {t[1] * t[2], ad.sin(t[1])} end, {0.0, 2.0})
near(linlist({1.0, 0.0})[1], 2)

near(ad.derivative(ad.sin)(0.5), math.cos(0.5))
near(ad.derivative(function(x) return x ^ 5 end, 4)(1.0), 120)
near(ad.derivative(function() return 7 end)(1.0), 0)

local d = ad.dual(1.0, {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0})
local p = ad.tanh(d * 2) / ad.hypot(d, 2) + ad.max{d, 0}
assert(#p.tangent == 9)
near(p.tangent[9], 9 * p.tangent[1])

near(select(2, ad.jvp(function(x)
  local s = x
  for _ = 1, 40 do s = s + ad.cos(s) * 0.1 end
  return s - s + x
end, {1.0}, {1.0})), 1)
