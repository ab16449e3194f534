-- luacheck: read globals fails near
-- Minimization: each method for a few steps; NLopt where it is installed.
local optim = require("autodiff.optim")
local nlopt = require("autodiff.optim.nlopt")

local function f(v) return (1 - v[1]) ^ 2 + 10 * (v.y - v[1] ^ 2) ^ 2 end
local start = {-1.2, y = 1, name = "text"}
for _, name in ipairs{"lbfgs", "newton", "adam", "descent"} do
  local r = optim.minimize(f, start, {method = name, max_iterations = 4})
  near(r.value, f(r.x))
end
near(optim.least_squares(function(v) return {v.a - 2, {v.b * v.a - 6}} end, {a = 1, b = 1}).x.b, 3)
local p = optim.adamw{rate = 0.5, decay = 0, clip = 1}:step({1, 2}, {3, 4})
near(p[1], 0.5)
fails(optim.lbfgs, function() error("no value") end, 1)
fails(optim.lbfgs, f, start, {tolerance = 1})

if nlopt.available() then
  local opts = {
    lower = 0, upper = {4, y = 4}, maxeval = 6,
    inequality = function(v) return {v[1] + v.y - 3, v[1] - v.y} end,
  }
  assert(nlopt.minimize(f, {1, y = 1.5}, opts).x.y <= 4)
  fails(nlopt.minimize, function() error("no value") end, 1)
  fails(nlopt.minimize, f, {1, y = 1}, {lower = 5})
end
