--- Derivatives against the function itself, and against each other.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local readable = measure.readable

local plain = functions.notebook(math)
local f = functions.notebook(ad.math)
local rosenbrock = functions.rosenbrock

local function against(call, base, seconds, ...)
  local ratio, a, b = measure.ratio(call, base, seconds, ...)
  return ratio, ("%s / %s"):format(readable(a), readable(b))
end

-- Kept, because the line on growth wants them again.
local rosenbrocks = {}

local function gradient_ratio(n)
  if not rosenbrocks[n] then
    rosenbrocks[n] = {against(ad.grad(rosenbrock), rosenbrock, 2, functions.start(n))}
  end
  return table.unpack(rosenbrocks[n])
end

local function jacobian_ratio(make, g)
  local x, v = {}, {}
  for i = 1, 10 do x[i], v[i] = 0.1 * i, 1.0 / i end
  local ratio, a, b = measure.ratio(make(g), function() return ad.jvp(g, {x}, {v}) end, 2, x)
  return ratio / 2, ("%s / 2 / %s"):format(readable(a), readable(b)) -- 10 directions are 2 eights
end

local list = {
  {
    name = "value_and_grad(f, {1,2})(2, 4), made once, over f(2, 4)", bound = 14, unit = "x",
    measure = function()
      return against(ad.value_and_grad(f, {1, 2}), plain, 1, 2, 4)
    end,
  },
  {
    name = "value_and_grad(f, {1,2})(2, 4), made anew, over f(2, 4)", bound = 14, unit = "x",
    measure = function()
      return against(function(a, b) return ad.value_and_grad(f, {1, 2})(a, b) end, plain, 1, 2, 4)
    end,
  },
  {
    name = "jvp(f, x, v) over f(2, 4), lists made once", bound = 11, unit = "x",
    measure = function()
      local x, v = {2, 4}, {1, 0}
      return against(function() return ad.jvp(f, x, v) end, plain, 1, 2, 4)
    end,
  },
  {
    name = "jvp(f, {2, 4}, {1, 0}) over f(2, 4), lists made anew", bound = 11, unit = "x",
    measure = function()
      return against(function(a, b) return ad.jvp(f, {a, b}, {1, 0}) end, plain, 1, 2, 4)
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
    local v = {}
    for i = 1, 1000 do v[i] = 1.0 / i end
    return against(function(x) return ad.hvp(rosenbrock, x, v) end, ad.grad(rosenbrock), 2,
      functions.start(1000))
  end,
}

for _, case in ipairs{
  {"2 ops each", functions.running(10000)},
  {"21 ops each", functions.dense(10000, ad.sin)},
} do
  for _, which in ipairs{"jacfwd", "jacobian"} do
    list[#list + 1] = {
      name = ("%s R^10 -> R^10000, %s, over jvp per 8"):format(which, case[1]),
      bound = 3, unit = "x",
      measure = function() return jacobian_ratio(ad[which], case[2]) end,
    }
  end
end

return list
