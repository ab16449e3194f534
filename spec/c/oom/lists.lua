-- luacheck: read globals near
-- Functions of lists, long enough for several blocks.
local ad = require("autodiff")

local function list(n)
  local t = {}
  for k = 1, n do t[k] = 0.5 + k / n end
  return t
end

for _, name in ipairs{"sum", "prod", "mean", "norm", "logsumexp", "max", "min"} do
  local f = ad[name]
  for _, n in ipairs{1, 3, 20} do
    local x = list(n)
    local y, g = ad.value_and_grad(f)(x)
    near(y, f(x))
    local _, d = ad.jvp(f, {x}, {list(n)})
    local s = 0
    for k = 1, n do s = s + g[k] * x[k] end
    near(s, d)
  end
end
local g, h = ad.grad(ad.dot, {1, 2})(list(5), list(5))
near(g[2], h[2])
near(ad.grad(function(x) return ad.dot(x, {1, 2, 3}) end)({4, 5, 6})[3], 3)
local J = ad.jacobian(ad.softmax)({1.0, 2.0, 3.0})
near(J[1][1] + J[2][1] + J[3][1], 0)
near(ad.grad(function(x) return ad.softmax(x)[2] end)({1.0, 2.0, 3.0})[2], J[2][2])
local dual = ad.softmax({ad.dual(1.0, 1.0), 2.0, 3.0})
near(dual[1].tangent, J[1][1])
near(ad.grad(ad.prod)({0.0, 2.0, 3.0})[1], 6)
near(ad.grad(function(x) return ad.norm{x, x * 2} + ad.logsumexp{x, 1} + ad.mean{x, 2}
  + ad.max{x, 1} + ad.min{x, 9} + ad.sum{x, x} + ad.prod{x, x} end)(2.0),
  5 ^ 0.5 + 1 / (1 + math.exp(-1)) + 0.5 + 1 + 1 + 2 + 4)
near(ad.hessian(ad.logsumexp)({1.0, 1.0})[1][2], -0.25)
