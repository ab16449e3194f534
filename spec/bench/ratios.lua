--- Derivatives against the function itself, and against each other.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local readable = measure.readable

local plain = functions.notebook(math)
local f = functions.notebook(ad.math)
local rosenbrock = functions.rosenbrock

local function callplain() return plain(2, 4) end

local function against(call, base, seconds)
  local ratio, a, b = measure.ratio(call, base, seconds)
  return ratio, ("%s / %s"):format(readable(a), readable(b))
end

-- Kept, because the line on growth wants them again.
local rosenbrocks = {}

local function gradient_ratio(n)
  if not rosenbrocks[n] then
    local v, gradient = functions.start(n), ad.grad(rosenbrock)
    rosenbrocks[n] = {against(function() return gradient(v) end,
                              function() return rosenbrock(v) end, n < 1e4 and 2 or 4)}
  end
  return table.unpack(rosenbrocks[n])
end

local function jacobian_ratio(make, g)
  local x, v = {}, {}
  for i = 1, 10 do x[i], v[i] = 0.1 * i, 1.0 / i end
  local jacobian = make(g)
  local ratio, a, b = measure.ratio(function() return jacobian(x) end,
                                    function() return ad.jvp(g, {x}, {v}) end, 4)
  return ratio / 2, ("%s / 2 / %s"):format(readable(a), readable(b)) -- 10 directions are 2 eights
end

local list = {
  {
    name = "value_and_grad(f, {1,2})(2, 4), made once, over f(2, 4)", bound = 14, unit = "x",
    measure = function()
      local transformed = ad.value_and_grad(f, {1, 2})
      return against(function() return transformed(2, 4) end, callplain)
    end,
  },
  {
    name = "value_and_grad(f, {1,2})(2, 4), made anew, over f(2, 4)", bound = 14, unit = "x",
    measure = function()
      return against(function() return ad.value_and_grad(f, {1, 2})(2, 4) end, callplain)
    end,
  },
  {
    name = "jvp(f, {2, 4}, {1, 0}) over f(2, 4)", bound = 11, unit = "x",
    measure = function()
      return against(function() return ad.jvp(f, {2, 4}, {1, 0}) end, callplain)
    end,
  },
}

for _, n in ipairs{100, 1000, 10000, 100000} do
  list[#list + 1] = {
    name = ("grad of Rosenbrock, n = %d, over Rosenbrock"):format(n), bound = 26, unit = "x",
    measure = function() return gradient_ratio(n) end,
  }
end

list[#list + 1] = {
  -- The bound is 1; what is above it is what two runs on the same machine may differ by.
  name = "... its growth: n = 100000 over n = 100", bound = 1.1, unit = "x",
  measure = function()
    return gradient_ratio(100000) / gradient_ratio(100), ""
  end,
}

list[#list + 1] = {
  name = "hvp over grad, Rosenbrock, n = 1000", bound = 5, unit = "x",
  measure = function()
    local x, v, gradient = functions.start(1000), {}, ad.grad(rosenbrock)
    for i = 1, #x do v[i] = 1.0 / i end
    return against(function() return ad.hvp(rosenbrock, x, v) end,
                   function() return gradient(x) end, 2)
  end,
}

for _, case in ipairs{
  {"2 operations each", functions.running(10000)},
  {"21 operations each", functions.dense(10000, ad.sin)},
} do
  for _, which in ipairs{"jacfwd", "jacobian"} do
    list[#list + 1] = {
      name = ("%s R^10 -> R^10000 (%s) over jvp per 8 directions"):format(which, case[1]),
      bound = 3, unit = "x",
      measure = function() return jacobian_ratio(ad[which], case[2]) end,
    }
  end
end

return list
