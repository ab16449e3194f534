-- Newton's method with exact Hessians: the number of right digits doubles with every step.
--
--     lua5.4 examples/newton.lua
--     lua5.4 examples/newton.lua -1.2 1        (Rosenbrock's function from another start)
--
-- The doubling lasts until the last digit that a double has. That takes derivatives that are right
-- to the last digit, too: with difference quotients the digits would stop at about eight.

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local options = require "options"
local solve = require "autodiff.dense".solve

local usage = [[
usage: lua5.4 examples/newton.lua [X Y]
X and Y are where Rosenbrock's function is started; the default is -1.2 1.
]]

local _, rest, fail = options(arg, usage, {})
local start = {tonumber(rest[1] or -1.2), tonumber(rest[2] or 1)}
if #start < 2 or #rest > 2 then fail("a start is two numbers") end

-- Functions whose minimum is known, to count digits.
local problems = {
  {
    -- Boyd and Vandenberghe, Convex Optimization, equation 9.20. The minimum by hand: the gradient
    -- is 0 where y = 0 and 2 exp(2x) = 1.
    name = "exp(x + 3y - 0.1) + exp(x - 3y - 0.1) + exp(-x - 0.1)",
    f = function(v)
      local x, y = v[1], v[2]
      return ad.exp(x + 3 * y - 0.1) + ad.exp(x - 3 * y - 0.1) + ad.exp(-x - 0.1)
    end,
    start = {-1.5, 0.8}, minimum = {-math.log(2) / 2, 0},
  },
  {
    -- Rosenbrock, The Computer Journal 3(3), 1960, p. 175: a bent valley, in which the first steps
    -- are short, because Newton's model is right only nearby.
    name = "(1 - x)^2 + 100 (y - x^2)^2",
    f = function(v) return (1 - v[1])^2 + 100 * (v[2] - v[1]^2)^2 end,
    start = start, minimum = {1, 1},
  },
  {
    -- Neither of two variables nor a polynomial: 20 variables, each tied to its neighbours. The
    -- minimum is at 1, 2, 3, ..., because there every term is least. All third derivatives are 0
    -- there, so that the digits even triple.
    name = "sum over i = 1..20 of log(cosh(x[i] - i)) + (x[i+1] - x[i] - 1)^2",
    f = function(x)
      local sum = 0
      for i = 1, #x do
        sum = sum + ad.log(ad.cosh(x[i] - i))
        if i < #x then sum = sum + (x[i + 1] - x[i] - 1)^2 end
      end
      return sum
    end,
    start = (function()
      local x = {}
      for i = 1, 20 do x[i] = i + 0.9 * math.sin(i) end
      return x
    end)(),
    minimum = (function()
      local x = {}
      for i = 1, 20 do x[i] = i end
      return x
    end)(),
  },
}

local function distance(x, y)
  local d = {}
  for i = 1, #x do d[i] = x[i] - y[i] end
  return ad.norm(d)
end

local function minimise(problem)
  local value_and_gradient, hessian = ad.value_and_grad(problem.f), ad.hessian(problem.f)
  local x = problem.start
  local scale = math.max(1, ad.norm(problem.minimum))

  print(problem.name)
  print()
  print(("%5s %20s %11s %11s %7s %11s"):format("step", "f", "gradient", "error", "digits",
    "step length"))
  local length = nil
  for step = 0, 60 do
    local f, g = value_and_gradient(x)
    local err = distance(x, problem.minimum)
    -- No more digits than a double has, even if the error is 0.
    local digits = math.max(0, -math.log(math.max(err / scale, 2.0^-53), 10))
    print(("%5d %20.15f %11.1e %11.1e %7.1f %11s"):format(step, f, ad.norm(g), err, digits,
      length and ("%.4g"):format(length) or ""))
    if ad.norm(g) < 1e-13 then break end

    local d = solve(hessian(x), g)
    -- Uphill, or nowhere: the Hessian is not positive definite here. Then down the gradient.
    local slope = d and -ad.dot(g, d) or 0
    if not (slope < 0) then
      d, slope = g, -ad.dot(g, g)
    end
    -- Full steps near the minimum; before, half of the step as often as the value asks for. Where
    -- the value no longer changes in its last digits, it has nothing to say.
    length = 2
    local next_x, next_f
    repeat
      length, next_x = length / 2, {}
      for i = 1, #x do next_x[i] = x[i] - length * d[i] end
      next_f = problem.f(next_x)
    until next_f <= f + 1e-4 * length * slope + 1e-15 * math.abs(f) or length < 1e-10
    x = next_x
  end
  print()
end

for _, problem in ipairs(problems) do minimise(problem) end
