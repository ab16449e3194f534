--- Derivatives of functions of arrays, compared with extrapolated differences.
--
-- The function is looked at along two directions u and v that are chosen at random,
--     h(s, t) = <weights, f(x + s u + t v)>,
-- which is a function of two numbers. Its first derivatives at 0 in both modes and its mixed
-- second derivative in the four nestings of modes involve every element of every rule.

local ad = require("autodiff")

local M = {}

--- An array of a shape with elements from the generator `random` (math.random's form).
function M.random(random, shape, from, to)
  from, to = from or -1, to or 1
  local function nested(d)
    local list = {}
    for i = 1, shape[d] do
      list[i] = d < #shape and nested(d + 1) or from + (to - from) * random()
    end
    return list
  end
  for _, n in ipairs(shape) do
    if n == 0 then return ad.zeros(shape) end
  end
  return ad.array(nested(1))
end

--- f'(0) by central differences, extrapolated to step 0; and an estimate of the error.
function M.slope(f)
  local step, table, best, err = 0.02, {}, 0 / 0, math.huge
  for i = 1, 7 do
    table[i] = {(f(step) - f(-step)) / (2 * step)}
    local factor = 1.96
    for k = 2, i do
      table[i][k] = (table[i][k - 1] * factor - table[i - 1][k - 1]) / (factor - 1)
      factor = factor * 1.96
      local e = math.max(math.abs(table[i][k] - table[i][k - 1]),
        math.abs(table[i][k] - table[i - 1][k - 1]))
      if not (e > err) then best, err = table[i][k], e end
    end
    step = step / 1.4
  end
  return best, err
end

-- The sum of all elements, each with a weight of its own.
local function weighted(results, weights)
  local total = 0.0
  for i = 1, results.n do
    local y = results[i]
    if ad.value(y) ~= y or ad.type(y) then
      if type(ad.value(y)) == "number" then
        total = total + y * weights[i]
      else
        local all = ("abcdefgh"):sub(1, #y.shape)
        total = total + ad.einsum(all .. "," .. all .. "->", y, weights[i])
      end
    end
  end
  return total
end

--- Compares; returns a list of what does not agree. Operands that are no numbers and no arrays are
-- handed over as they are.
function M.compare(f, operands, random, tolerance)
  tolerance = tolerance or 1e-6
  local n = operands.n or #operands
  local u, v = {}, {}
  for i = 1, n do
    local kind = ad.type(operands[i])
    if kind == "array" then
      u[i] = M.random(random, operands[i].shape)
      v[i] = M.random(random, operands[i].shape)
    elseif kind then
      u[i], v[i] = 2 * random() - 1, 2 * random() - 1
    end
  end
  local weights = {}
  local y = table.pack(f(table.unpack(operands, 1, n)))
  for i = 1, y.n do
    weights[i] = ad.type(y[i]) == "array" and M.random(random, y[i].shape) or 2 * random() - 1
  end
  local function h(s, t)
    local x = {}
    for i = 1, n do
      x[i] = operands[i]
      if u[i] then x[i] = x[i] + s * u[i] + t * v[i] end
    end
    return weighted(table.pack(f(table.unpack(x, 1, n))), weights)
  end
  local report = {}
  local function same(what, got, want, err)
    local bound = tolerance * math.max(1, math.abs(want)) + 10 * err
    if not (math.abs(got - want) <= bound or (got ~= got and want ~= want)) then
      report[#report + 1] = ("%s: %.10g, differences give %.10g (+- %.1g)"):format(what, got,
        want, err)
    end
  end
  local function plain(g) return function(s) return ad.value(g(s)) end end
  local function by_s(t) return function(s) return h(s, t) end end
  local want, err = M.slope(plain(by_s(0.0)))
  local function forward(g, x) return (select(2, ad.jvp(g, {x}, {1.0}))) end
  local function reverse(g, x) return (ad.grad(g)(x)) end
  same("forward", ad.value(forward(by_s(0.0), 0.0)), want, err)
  same("reverse", ad.value(reverse(by_s(0.0), 0.0)), want, err)
  local modes = {forward = forward, reverse = reverse}
  want, err = M.slope(function(t) return ad.value(reverse(by_s(t), 0.0)) end)
  for outer, d2 in pairs(modes) do
    for inner, d1 in pairs(modes) do
      local got = d2(function(t) return d1(by_s(t), 0.0) end, 0.0)
      same(outer .. " over " .. inner, ad.value(got), want, err)
    end
  end
  return report
end

return M
