--- Times for orientation: they depend on the machine, and nothing bounds them.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local readable = measure.readable

-- One operation, a thousand times within one transform; the loop and the plain call for
-- comparison.
local loops = {
  {"x * y", function(x, y) local z; for _ = 1, 1000 do z = x * y end return z end},
  {"x + 1", function(x) local z; for _ = 1, 1000 do z = x + 1 end return z end},
  {"x ^ 2", function(x) local z; for _ = 1, 1000 do z = x ^ 2 end return z end},
  {"exp(x)", function(x)
    local exp = math.type(x) and math.exp or ad.exp
    local z
    for _ = 1, 1000 do z = exp(x) end
    return z
  end},
  {"x < y", function(x, y) local z; for _ = 1, 1000 do z = x < y and x or y end return z end},
}

local list = {}

for _, loop in ipairs(loops) do
  local name, body = table.unpack(loop)
  local gradient = ad.grad(body, {1, 2})
  for _, kind in ipairs{"dual", "var"} do
    list[#list + 1] = {
      name = ("%s on a %s"):format(name, kind), unit = "ns",
      measure = function()
        local call = kind == "var" and function() return gradient(2.0, 3.0) end
          or function() return ad.jvp(body, {2.0, 3.0}, {1.0, 0.0}) end
        local t = measure.times({call, function() return body(2.0, 3.0) end}, 0.4)
        return t[1] * 1e6, ("plain number: %.3g ns"):format(t[2] * 1e6)
      end,
    }
  end
end

--- A line with the time of one call, and how many calls of another that is.
local function timed(name, call, base, what)
  list[#list + 1] = {
    name = name, unit = "us",
    measure = function()
      local ratio, t, b = measure.ratio(call, base, 0.6)
      return t * 1e6, ("%.3g x %s, %s"):format(ratio, what, readable(b))
    end,
  }
end

local plain = functions.notebook(math)
local f = functions.notebook(ad.math)
local function callplain() return plain(2, 4) end

timed("f recorded on ad.tape, and gradient", function()
  local tape <close> = ad.tape()
  local x, y = tape:var(2, 4)
  return tape:gradient(f(x, y), x, y)
end, callplain, "f")

timed("f on ad.var, and backward", function()
  local x, y = ad.var(2), ad.var(4)
  f(x, y):backward()
  return x.grad, y.grad
end, callplain, "f")

timed("f on ad.dual, two directions", function()
  return f(ad.dual(2, {1, 0}), ad.dual(4, {0, 1})).tangent
end, callplain, "f")

local weights = {}
for i = 1, 100 do weights[i] = ad.var(1 / i) end
timed("backward loop, Rosenbrock, n = 100", function()
  functions.rosenbrock(weights):backward()
  for i = 1, #weights do weights[i]:zero_grad() end
end, function()
  return functions.rosenbrock(functions.start(100))
end, "Rosenbrock")

local x20, gradient, hessian = functions.start(20), ad.grad(functions.rosenbrock),
  ad.hessian(functions.rosenbrock)
timed("hessian, Rosenbrock, n = 20", function() return hessian(x20) end,
  function() return gradient(x20) end, "grad")

local function smooth(x) return ad.exp(ad.sin(x)) / (1 + x * x) end
timed("taylor, order 20", function() return ad.taylor(smooth, 0.5, 20) end,
  function() return ad.taylor(smooth, 0.5, 10) end, "order 10")

local lists = functions.start(1000)
local dot = ad.grad(function(v) return ad.dot(v, v) end)
timed("grad of ad.dot of 1000", function() return dot(lists) end, function()
  local s = 0
  for i = 1, #lists do s = s + lists[i] * lists[i] end
  return s
end, "a loop of 1000")

return list
