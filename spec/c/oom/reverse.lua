-- luacheck: read globals near
-- grad, value_and_grad, vjp; further results, argnums, no_grad, stop.
local ad = require("autodiff")

local function f(x, y, z) return x * y + ad.sin(z) * x, "note", x end
local g, note, more = ad.grad(f)(2.0, 3.0, 4.0)
near(g, 3 + math.sin(4))
assert(note == "note" and ad.type(more) == "number")
local a, b, c = ad.grad(f, {3, 1, 3})(2.0, 3.0, 4.0)
near(a, 2 * math.cos(4))
near(b, g)
near(c, a)
local v, gy = ad.value_and_grad(f, 2)(2.0, 3.0, 4.0)
near(v, 6 + 2 * math.sin(4))
near(gy, 2)
near(ad.grad(function() return 3 end)(1.0), 0)

local y, pull = ad.vjp(function(x, t) return x * t[1] + t.k, x * x end, 2.0, {5.0, k = 1.0})
near(y[1], 11)
near(y[2], 4)
for _ = 1, 3 do
  local dx, dt = pull({1.0, 10.0})
  near(dx, 5 + 40)
  near(dt[1], 2)
  near(dt.k, 1)
end
local _, pull1 = ad.vjp(ad.exp, 1.0)
near(pull1(2.0), 2 * math.exp(1))

near(ad.grad(function(x) return x * ad.stop(x) end)(3.0), 3)
near(ad.grad(function(x) return x * ad.no_grad(function(t) return t * t end, x) end)(3.0), 9)
near(ad.grad(function(x)
  local s = 0
  for k = 1, 60 do s = s + ad.sin(x * k) / k end
  return s
end)(0.0), 60)
local callable = setmetatable({}, {__call = function(_, x) return x ^ 3 end})
near(ad.grad(callable)(2.0), 12)
near(ad.grad(function(...) return select("#", ...) * (...) end)(1.0, 2, 3, 4, 5, 6, 7, 8), 8)
