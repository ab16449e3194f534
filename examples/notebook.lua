-- One small function, differentiated in every way there is.
--
--     lua5.4 examples/notebook.lua        (or: make demo)
--
-- The function is f(x1, x2) = exp(x1) - x1 x2 + cos(x2) at (2, 4), the running example of a
-- notebook that introduces automatic differentiation: first with rules written by hand, then with
-- the libraries of its day. Here the same tour is taken in Lua, with the times that the notebook
-- published beside the ones measured now.

local ad = require "autodiff"

-- `ad.math` has the names of `math`: this line makes the rest of the file differentiable.
local math = ad.math

local function f(x1, x2)
  return math.exp(x1) - x1 * x2 + math.cos(x2)
end

local x1, x2 = 2.0, 4.0

---------------------------------------------------------------------------------------------------
-- By hand, as in the textbooks
---------------------------------------------------------------------------------------------------

-- Both take f apart into elementary steps v1 .. v7. `watch`, if given, gets to see the values that
-- end up in the textbook's table.

--- Forward mode: beside each value, its derivative in the direction (dx1, dx2).
local function forward_by_hand(a, b, da, db, watch)
  local v1, d1 = a, da
  local v2, d2 = b, db
  local v3 = math.exp(v1)
  local d3 = v3 * d1
  local v4, d4 = v1 * v2, d1 * v2 + v1 * d2
  local v5, d5 = math.cos(v2), -math.sin(v2) * d2
  local v6, d6 = v3 - v4, d3 - d4
  local v7, d7 = v6 + v5, d6 + d5
  if watch then watch(d1, d2, d3, d4, d5, d6, d7) end
  return v7, d7
end

--- Reverse mode: first all values, then from the last to the first the derivative of f with
-- respect to each: its adjoint.
local function reverse_by_hand(a, b, watch)
  local v1 = a
  local v2 = b
  local v3 = math.exp(v1)
  local v4 = v1 * v2
  local v5 = math.cos(v2)
  local v6 = v3 - v4
  local v7 = v6 + v5

  local a7 = 1.0
  local a6 = a7
  local a5 = a7
  local a4 = -a6
  local a3 = a6
  local a2 = a4 * v1 - a5 * math.sin(v2)
  local a1 = a4 * v2 + a3 * v3
  if watch then watch({v1, v2, v3, v4, v5, v6, v7}, {a1, a2, a3, a4, a5, a6, a7}) end
  return v7, a1, a2
end

local function print_textbook_table()
  local step = {"x1", "x2", "exp v1", "v1 v2", "cos v2", "v3 - v4", "v6 + v5"}
  local value, adjoint, along1, along2
  reverse_by_hand(x1, x2, function(v, a) value, adjoint = v, a end)
  forward_by_hand(x1, x2, 1.0, 0.0, function(...) along1 = {...} end)
  forward_by_hand(x1, x2, 0.0, 1.0, function(...) along2 = {...} end)

  print(("%-14s %10s %10s %10s %10s"):format("", "primal", "tangent", "tangent", "adjoint"))
  print(("%-14s %10s %10s %10s %10s"):format("", "v", "dv/dx1", "dv/dx2", "df/dv"))
  for k = 1, #step do
    print(("v%d = %-9s %10.4f %10.4f %10.4f %10.4f"):format(
      k, step[k], value[k], along1[k], along2[k], adjoint[k]))
  end
end

---------------------------------------------------------------------------------------------------
-- With the library
---------------------------------------------------------------------------------------------------

-- Transforms take a function and give another one, so they can be made once and kept.
local gradient = ad.grad(f, {1, 2})
local value_and_gradient = ad.value_and_grad(f, {1, 2})
local jacobian = ad.jacobian(function(x) return {f(x[1], x[2])} end)

-- Name; a function of x1 and x2 that returns f and its two derivatives; and what the notebook
-- published for the nearest relative. Where a transform gives derivatives only, f is called too.
local approaches = {
  {"reverse, by hand", reverse_by_hand, "Python 10.5 µs"},

  {"forward, by hand (twice)", function(a, b)
    local y, d1 = forward_by_hand(a, b, 1.0, 0.0)
    local _, d2 = forward_by_hand(a, b, 0.0, 1.0)
    return y, d1, d2
  end, "Python 9.75 µs"},

  -- Reverse mode: one run of f whatever the number of inputs.
  {"ad.grad, f", function(a, b)
    return f(a, b), gradient(a, b)
  end, "JAX 7 ms, jit 2.72 ms"},

  {"ad.value_and_grad", value_and_gradient},

  {"ad.tape", function(a, b)
    local tape <close> = ad.tape()
    local u, v = tape:var(a, b)
    local y = f(u, v)
    return y.value, tape:gradient(y, u, v)
  end, "TensorFlow 2.8 ms"},

  {"ad.var, backward", function(a, b)
    local u, v = ad.var(a), ad.var(b)
    local y = f(u, v)
    y:backward()
    return y.value, u.grad, v.grad
  end, "PyTorch 330 µs"},

  {"ad.vjp", function(a, b)
    local y, pull = ad.vjp(f, a, b)
    return y, pull(1.0)
  end},

  -- Forward mode: one direction at a time, or several.
  {"ad.jvp (twice)", function(a, b)
    local y, d1 = ad.jvp(f, {a, b}, {1.0, 0.0})
    local _, d2 = ad.jvp(f, {a, b}, {0.0, 1.0})
    return y, d1, d2
  end, "JAX 5.73 ms"},

  {"ad.dual, two directions", function(a, b)
    local y = f(ad.dual(a, {1.0, 0.0}), ad.dual(b, {0.0, 1.0}))
    return y.value, y.tangent[1], y.tangent[2]
  end},

  {"ad.linearize", function(a, b)
    local y, tangent = ad.linearize(f, a, b)
    return y, tangent(1.0, 0.0), tangent(0.0, 1.0)
  end},

  -- Of one variable, the other one held.
  {"ad.derivative (twice), f", function(a, b)
    local d1 = ad.derivative(function(t) return f(t, b) end)(a)
    local d2 = ad.derivative(function(t) return f(a, t) end)(b)
    return f(a, b), d1, d2
  end},

  {"ad.taylor (twice)", function(a, b)
    local c = ad.taylor(function(t) return f(t, b) end, a, 1)
    local d = ad.taylor(function(t) return f(a, t) end, b, 1)
    return c[1], c[2], d[2]
  end},

  {"ad.jacobian, f", function(a, b)
    local row = jacobian({a, b})[1]
    return f(a, b), row[1], row[2]
  end},
}

---------------------------------------------------------------------------------------------------
-- Timing
---------------------------------------------------------------------------------------------------

local function seconds(call, times)
  local start = os.clock()
  for _ = 1, times do call(x1, x2) end
  return os.clock() - start
end

--- Microseconds per call of each function: the median of several batches. The functions take
-- turns, so that a disturbance hits all of them and not one.
local function microseconds(calls)
  local batch, rounds = 0.008, 11
  local times, samples = {}, {}
  for i, call in ipairs(calls) do
    local n = 50
    local t
    repeat
      n = n * 2
      t = seconds(call, n)
    until t > batch / 4
    times[i] = n * batch // t + 1
    samples[i] = {}
  end
  for round = 1, rounds do
    for i, call in ipairs(calls) do
      samples[i][round] = seconds(call, times[i]) / times[i] * 1e6
    end
  end
  for i, list in ipairs(samples) do
    table.sort(list)
    samples[i] = list[(rounds + 1) // 2]
  end
  return samples
end

---------------------------------------------------------------------------------------------------
-- The tour
---------------------------------------------------------------------------------------------------

print("f(x1, x2) = exp(x1) - x1 x2 + cos(x2)  at  (2, 4)")
print()
print("Step by step, by hand:")
print()
print_textbook_table()
print()
print("f and both derivatives by every approach, and the time for the three:")
print()

local calls = {f}
for i, approach in ipairs(approaches) do calls[i + 1] = approach[2] end
local times = microseconds(calls)

-- What calculus says.
local exact = {math.exp(x1) - x1 * x2 + math.cos(x2), math.exp(x1) - x2, -x1 - math.sin(x2)}
local worst = 0.0

print(("%-25s %13s %13s %13s %9s  %s"):format(
  "", "f", "df/dx1", "df/dx2", "time here", "published (*)"))
for i, approach in ipairs(approaches) do
  local name, call, published = table.unpack(approach, 1, 3)
  local result = {call(x1, x2)}
  for k = 1, 3 do
    worst = math.max(worst, math.abs(result[k] - exact[k]) / math.abs(exact[k]))
  end
  local line = ("%-25s %13.10f %13.10f %13.10f %6.2f µs  %s"):format(
    name, result[1], result[2], result[3], times[i + 1], published or "")
  print((line:gsub("%s+$", "")))
end
print()
print("(*) The notebook's published figures for its own systems on its own machine: not measured")
print("    here, and only good for an order of magnitude.")
print()
print(("f alone, on plain numbers, takes %.2f µs."):format(times[1]))
print(("Largest relative error of all rows: %.1g"):format(worst))

-- Derivatives of derivatives need nothing new.
local H = ad.hessian(function(x) return f(x[1], x[2]) end)({x1, x2})
print()
print("And once more, the second derivatives, by ad.hessian:")
print()
for i = 1, 2 do print(("  %13.10f %13.10f"):format(H[i][1], H[i][2])) end
