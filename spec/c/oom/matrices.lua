-- luacheck: read globals near
-- Jacobians, Hessians and their products.
local ad = require("autodiff")

local function wide(x)
  local out = {}
  for k = 1, 2 do out[k] = x[1] ^ k * x[2] + x[3] * x[4] * x[5] end
  return out
end
local function tall(x)
  local out = {}
  for k = 1, 9 do out[k] = ad.sin(k * x[1]) + x[2] end
  return out
end
for _, jacobian in ipairs{ad.jacobian, ad.jacfwd, ad.jacrev} do
  local J = jacobian(wide)({1.0, 2.0, 3.0, 4.0, 5.0})
  near(J[2][1], 4)
  near(J[1][5], 12)
  J = jacobian(tall)({0.0, 1.0})
  near(J[9][1], 9)
  near(J[9][2], 1)
  J = jacobian(function(s, x) return {x[1] * s, x[2]} end, 2)(3.0, {1.0, 2.0})
  near(J[1][1], 3)
end
local function f(x) return x[1] ^ 2 * x[2] + ad.sin(x[3]) * x[1] end
local H = ad.hessian(f)({1.0, 2.0, 0.0})
near(H[1][1], 4)
near(H[1][2], 2)
near(H[3][1], 1)
near(ad.hessian(ad.exp)(0.0), 1)
near(ad.hessian(function(_, x) return x ^ 3 end, 2)(1.0, 2.0), 12)
local hv = ad.hvp(f, {1.0, 2.0, 0.0}, {1.0, 0.0, 1.0})
near(hv[1], 5)
near(hv[2], 2)
near(ad.hvp(function(t) return t.a ^ 2 * t.b end, {a = 1.0, b = 2.0}, {a = 1.0, b = 0.0}).b, 2)
near(ad.hvp(ad.exp, 0.0, 2.0), 2)
