-- luacheck: read globals fails near
-- Functions with rules of their own, by one rule or by two.
local ad = require("autodiff")

local function f(x, y) return x * x * y end
local byjvp = ad.custom{name = "byjvp", f = f,
  jvp = function(p, t) return 2 * p[1] * p[2] * t[1] + p[1] * p[1] * t[2] end}
local byvjp = ad.custom{name = "byvjp", f = f,
  vjp = function(w, _, x, y) return w * 2 * x * y, w * x * x end}
local both = ad.custom{name = "both", f = f,
  jvp = function(p, t) return 2 * p[1] * p[2] * t[1] + p[1] * p[1] * t[2] end,
  vjp = function(w, _, x, y) return w * 2 * x * y, w * x * x end}
for _, g in ipairs{byjvp, byvjp, both} do
  near(g(2.0, 3.0), 12)
  local a, b = ad.grad(g, {1, 2})(2.0, 3.0)
  near(a, 12)
  near(b, 4)
  near(ad.grad(g)(2.0, 3.0), 12)
  near(select(2, ad.jvp(g, {2.0, 3.0}, {1.0, 1.0})), 16)
  near(ad.grad(ad.grad(function(x) return g(x, 3.0) end))(2.0), 6)
  local v = ad.var(2.0)
  local z = g(v, v)
  z:backward()
  near(v.grad, 12)
end
local onlyfirst = ad.custom{name = "onlyfirst", f = f,
  vjp = function(w, _, x, y) return w * 2 * x * y end}
near(select(2, ad.grad(onlyfirst, {1, 2})(2.0, 3.0)), 0)
local broken = ad.custom{name = "broken", f = f, vjp = function() error("rule") end}
fails(ad.grad(broken), 1.0, 2.0)
fails(function() return ad.grad(ad.custom{name = "norule", f = f})(1.0, 2.0) end)
