-- luacheck: read globals fails near
-- Recomputing in the backward pass.
local ad = require("autodiff")

local function block(x, k)
  for _ = 1, 10 do x = ad.sin(x) + x * k end
  return x, k
end
local c = ad.checkpoint(block)
local function chain(f) return function(x) return (f(f(x, 0.1), 0.2)) end end
near(ad.grad(chain(c))(0.5), ad.grad(chain(block))(0.5))
near(c(0.5, 0.1), block(0.5, 0.1))
near(select(2, ad.jvp(chain(c), {0.5}, {1.0})), ad.grad(chain(block))(0.5))
near(ad.grad(ad.grad(chain(c)))(0.5), ad.derivative(chain(block), 2)(0.5))
local s = ad.checkpoint(function(t) return {t.a * t.b, t.a} end)
near(ad.grad(function(t) return s(t)[1] + s(t)[2] end)({a = 2.0, b = 3.0}).a, 4)
local outer = ad.checkpoint(function(x) return c(x, 0.1) * x end)
near(ad.grad(outer)(0.5), ad.grad(function(x) return block(x, 0.1) * x end)(0.5))
local x = ad.var(0.5)
local z = chain(c)(x)
z:backward()
near(x.grad, ad.grad(chain(block))(0.5))
fails(ad.grad(ad.checkpoint(function() error("inside") end)), 1.0)
