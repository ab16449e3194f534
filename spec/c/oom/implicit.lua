-- luacheck: read globals fails near
-- The implicit function theorem, for numbers and for lists.
local ad = require("autodiff")

local root = ad.implicit{f = function(x, t) return x * x - t end, solve = function(t)
  local x = t
  for _ = 1, 40 do x = (x + t / x) / 2 end
  return x
end}
near(root(4.0), 2)
near(ad.grad(root)(4.0), 0.25)
near(select(2, ad.jvp(root, {4.0}, {1.0})), 0.25)
near(ad.grad(ad.grad(root))(4.0), -1 / 32)

local pair = ad.implicit{
  f = function(x, a, b) return {2 * x[1] + x[2] - a, x[1] - x[2] * x[2] - b} end,
  solve = function(a, b)
    local p, q = 0.5, 0.5
    for _ = 1, 60 do
      local r, s = 2 * p + q - a, p - q * q - b
      local det = -4 * q - 1
      p, q = p - (-2 * q * r - s) / det, q - (2 * s - r) / det
    end
    return {p, q}
  end}
local x = pair(3.0, 0.0)
near(2 * x[1] + x[2], 3)
local ga, gb = ad.grad(function(a, b) return pair(a, b)[1] end, {1, 2})(3.0, 0.0)
local det = -4 * x[2] - 1
near(ga, -2 * x[2] / det)
near(gb, -1 / det)
local J = ad.jacobian(function(t) return pair(t[1], t[2]) end)({3.0, 0.0})
near(J[1][1], ga)
fails(ad.grad(ad.implicit{f = function(y, t) return y - t end,
  solve = function() error("no solution") end}), 1.0)
