-- luacheck: read globals fails near
-- Recording, guards, loops, gradients of programs, and running them.
local ad = require("autodiff")

local function f(x, p)
  local s = x * p.a + ad.norm{x, p.a, p.b[1]}
  if s < 1 then return {s, name = "low"} end
  return {s * ad.exp(-s), name = "high"}, p.b[1]
end
local c = ad.compile(f)
for _, x in ipairs{0.1, 2.0, 0.2, 3.0} do
  near(c(x, {a = 0.5, b = {0.3}})[1], f(x, {a = 0.5, b = {0.3}})[1])
end
near(#tostring(c) > 10 and c:stats().traces, 2)

local function newton(a)
  local x = a
  while ad.abs(x * x - a) > 1e-9 do x = 0.5 * (x + a / x) end
  return x
end
local g = ad.compile(ad.value_and_grad(newton), {backend = "native"})
for _, a in ipairs{2.0, 50.0, 3.0} do
  local y, d = g(a)
  near(y, a ^ 0.5)
  near(d, 0.5 / a ^ 0.5)
end
local h = ad.compile(ad.hessian(function(p) return ad.max(p[1], p[2]) * p[1] ^ 3 end))
near(h{2.0, 1.0}[1][1], 48)
near(h{2.0, 1.0}[1][1], 48)
local many = ad.compile(function(x) return ad.value(x) * 2 end, {max_traces = 2})
for i = 1, 4 do near(many(i + 0.5), 2 * i + 1) end
local names = {10, 20, [0.25] = 30}
local asked = ad.compile(function(x, n)
  if n == 1 then return x elseif n == 0.125 or x == n then return x * x end
  return type(x) == "number" and names[n] or x * 3
end)
for _ = 1, 2 do
  for n, y in pairs{[1] = 5, [0.125] = 25, [5] = 25, [2] = 20, [0.25] = 30, [7] = 15} do
    near(asked(5.0, n), y)
  end
end
near(ad.compile(ad.grad(function(x, n) return n == 2 and x * x or x end))(3.0, 2), 6)
near(ad.compile(function(x) return coroutine.wrap(type)(x) == "number" and {x} end)(2.0)[1], 2)
fails(ad.compile(function(x) return string.rep("a", x) end), 2.5)
fails(ad.compile(function() error("inside") end), 1.0)
near(ad.grad(ad.compile(newton))(4.0), 0.25)

-- integers where f asks, alone and in structures; arrays; what f makes
local n = ad.compile(function(k, t) return tostring(k) .. ad.value(t.n) .. tostring(t[1]) end)
for _, k in ipairs{2, 2.0, (1 << 53) + 1} do
  near(n(k, {1.5, n = k}) == tostring(k) .. tostring(k) .. "1.5" and 1, 1)
end
local power = ad.compile(function(x, k) local y = 1 for _ = 1, k do y = y * x end return y end)
near(power(1.5, 3), 1.5 ^ 3)
near(power(1.5, 2), 1.5 ^ 2)
local a = ad.compile(function(x) return ad.sum(x * x) end)
near(a(ad.array{1, 2}), 5)
near(ad.compile(function(x) return function() return x end end)(2.0)(), 2)
local fact
fact = ad.compile(function(x) if x < 1 then return 1.0 end return x * fact(x - 1) end)
near(fact(4.0), 24)

-- sums in another order, with what does not change out of the loop
local regrouped = ad.compile(ad.value_and_grad(function(x, y)
  local sum, i = x * 0, x * 0
  for k = 1, 20 do sum = sum + ad.sin(x * k) / y end
  while i < 3 do sum, i = (sum + y) + y * y * 2, i + 1 end
  return sum + x + x
end), {fast = true, backend = "native"})
for _ = 1, 2 do near(regrouped(0.5, 2.0), 32.664591663315) end

-- loops within loops, too long for the memory
local rows = ad.compile(ad.value_and_grad(function(x, m)
  local s, i = x, x * 0
  while i < m do
    local j = x * 0
    while j < i do s, j = s * x, j + 1 end
    i = i + 1
  end
  return s
end), {memory = 200})
near(rows(1.5, 1.0), 1.5)
for _, k in ipairs{3, 5, 7} do
  local e = k * (k - 1) / 2
  near(select(2, rows(1.01, k)), (1 + e) * 1.01 ^ e)
end
near(rows:stats().rounds == "recomputed" and 1, 1)
local some = ad.compile(ad.grad(newton), {memory = 40})
near(some(1.5), 0.5 / 1.5 ^ 0.5)
near(ad.value(some:map(ad.array{2.0, 1e6})[2]), 0.0005)

-- counters, integers among the results, and those that lead nowhere
local count = ad.compile(function(x)
  local m, s = 0, 0.0
  while x > 1 do
    x = x * 0.8
    m = m + 1
    for i = 1, 9 do if x > i then s = s + i * x end end
    if m > 40 then error("too many: " .. m) end
  end
  return m, s, {m * 2}
end)
local look = ad.compile(ad.value_and_grad(function(x)
  local m, t = 0, {}
  while x > 1 do
    x = x * 0.8
    m = m + 1
    t[m] = m & 1
  end
  return x, #t
end))
for _ = 1, 2 do
  for x, rounds in pairs{[9.0] = 10, [30.0] = 16, [70.0] = 20} do
    local k, _, t = count(x)
    near(math.type(k) == "integer" and k, rounds)
    near(t[1], 2 * rounds)
    near(select(3, look(x)), rounds)
  end
end
fails(count, 1e9)
