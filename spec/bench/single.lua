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
        local call = kind == "var" and gradient
          or function(x, y) return ad.jvp(body, {x, y}, {1.0, 0.0}) end
        local t = measure.times({call, body}, 0.4, 2.0, 3.0)
        return t[1] * 1e6, ("plain number: %.3g ns"):format(t[2] * 1e6)
      end,
    }
  end
end

--- A line with the time of one call, and how many calls of another that is.
local function timed(name, call, base, what, ...)
  local a, b = ...
  list[#list + 1] = {
    name = name, unit = "us",
    measure = function()
      local ratio, t, tb = measure.ratio(call, base, 0.6, a, b)
      return t * 1e6, ("%.3g x %s, %s"):format(ratio, what, readable(tb))
    end,
  }
end

local plain = functions.notebook(math)
local f = functions.notebook(ad.math)

timed("f recorded on ad.tape, and gradient", function(a, b)
  local tape <close> = ad.tape()
  local x, y = tape:var(a, b)
  return tape:gradient(f(x, y), x, y)
end, plain, "f", 2, 4)

timed("f on ad.var, and backward", function(a, b)
  local x, y = ad.var(a), ad.var(b)
  f(x, y):backward()
  return x.grad, y.grad
end, plain, "f", 2, 4)

timed("f on ad.dual, two directions", function(a, b)
  return f(ad.dual(a, {1, 0}), ad.dual(b, {0, 1})).tangent
end, plain, "f", 2, 4)

local weights = {}
for i = 1, 100 do weights[i] = ad.var(1 / i) end
timed("backward loop, Rosenbrock, n = 100", function()
  functions.rosenbrock(weights):backward()
  for i = 1, #weights do weights[i]:zero_grad() end
end, functions.rosenbrock, "Rosenbrock", functions.start(100))

timed("hessian, Rosenbrock, n = 20", ad.hessian(functions.rosenbrock),
  ad.grad(functions.rosenbrock), "grad", functions.start(20))

local function smooth(x) return ad.exp(ad.sin(x)) / (1 + x * x) end
timed("taylor, order 20", function(x) return ad.taylor(smooth, x, 20) end,
  function(x) return ad.taylor(smooth, x, 10) end, "order 10", 0.5)

timed("grad of ad.dot of 1000", ad.grad(function(v) return ad.dot(v, v) end), function(v)
  local s = 0
  for i = 1, #v do s = s + v[i] * v[i] end
  return s
end, "a loop in plain Lua", functions.start(1000))

return list
