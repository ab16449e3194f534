-- luacheck: read globals near
-- Transforms of transforms: parts of values are then values themselves.
local ad = require("autodiff")

local function f(x) return ad.sin(x) * x ^ 2 + ad.exp(x) / (1 + x * x) end
local second = ad.derivative(f, 2)(0.5)
local function forward(g) return function(x) return (select(2, ad.jvp(g, {x}, {1.0}))) end end
near(ad.grad(ad.grad(f))(0.5), second)
near(ad.grad(forward(f))(0.5), second)
near(forward(ad.grad(f))(0.5), second)
near(forward(forward(f))(0.5), second)
near(ad.grad(ad.grad(ad.grad(f)))(0.5), ad.derivative(f, 3)(0.5))

-- No confusion of perturbations.
near(ad.grad(function(x)
  return x * ad.grad(function(y) return x + y end)(1.0)
end)(1.0), 1)
near(select(2, ad.jvp(function(x)
  return x * select(2, ad.jvp(function(y) return x * y end, {2.0}, {1.0}))
end, {3.0}, {1.0})), 6)

local g = ad.grad(function(x)
  local _, pull = ad.vjp(function(y, z) return y * z * x end, x, 2.0)
  local a, b = pull(x)
  local _, lin = ad.linearize(function(y) return y * y * x end, x)
  return a + b + lin(1.0) + ad.taylor(function(y) return y ^ 3 * x end, x, 2)[3]
end)(1.5)
near(g, 14 * 1.5 + 3 * 1.5 ^ 2)

near(ad.grad(function(x)
  local tape <close> = ad.tape()
  local v = tape:var(x)
  return tape:gradient(v * v * x, v)
end)(2.0), 8)
near(ad.grad(function(x)
  local H = ad.hessian(function(t) return t[1] ^ 2 * t[2] * x end)({x, 1.0})
  local J = ad.jacobian(function(t) return {t[1] * x, t[2] * t[1]} end)({x, 2.0})
  return H[1][2] + J[1][1] + J[2][2]
end)(3.0), 12 + 1 + 1)
near(ad.grad(function(x) return ad.lgamma(x) + ad.max{x, 1} + ad.prod{x, x}
  + ad.grad(function(y) return ad.atan(y, x) end)(x) end)(2.0),
  ad.digamma(2.0) + 1 + 4 - 1 / 8)
local _, dv = ad.jvp(function(x)
  return ad.grad(function(t) return ad.logsumexp(t) + ad.norm(t) end)({x, 1.0})[1]
end, {1.0}, {1.0})
near(dv, 0.25 + 1 / 8 ^ 0.5)
