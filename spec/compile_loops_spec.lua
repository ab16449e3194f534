--- Loops, recursion and hidden state of many kinds: a compiled function and its gradient do
-- what the function does, for inputs that make it go round more and less often.

local ad = require "autodiff"

local cases = {}

local function case(name, f) cases[#cases + 1] = { name = name, f = f } end
case("swap", function(a) local x, y = a, a*0.5 while x > 1 do x, y = y, x*0.9 end return x*2 + y
  end)
case("fib", function(a) local x, y = 0.1*a, 0.2 while x < 100 do x, y = y, x + y end return x -
  y end)
case("history", function(a) local h = {a, a*0.9, a*0.8} while h[1] > 1 do table.insert(h, 1,
  h[1]*0.7+0.01*h[3]) h[4] = nil end return h[1]+h[2]*2+h[3]*3 end)
case("flag", function(a) local x, f = a, false while x > 1 do if f then x = x*0.5 else x = x*0.9
  end f = not f end return x end)
case("state machine", function(a) local x, s = a, "one" while x > 1 do if s == "one" then x =
  x*0.9 s = "two" elseif s == "two" then x = x - 0.01 s = "three" else x = x*0.8 s = "one" end
  end return x, s end)
case("vararg", function(a) local function g(...) local x = (...) while x > 1 do x = x*0.9 +
  0.001*select(2, ...) end return x end return g(a, a*0.1) end)
case("coroutine gen", function(a) local gen = coroutine.wrap(function() local y = a while true
  do y = y*0.9 coroutine.yield(y) end end) local x = gen() while x > 1 do x = gen() end return x
  end)
case("coroutine hidden", function(a) local co = coroutine.wrap(function(v) local prev = v while
  true do local n = coroutine.yield(prev) prev = n end end) co(a) local x, s = a, 0.0 while x >
  1 do x = x*0.8 s = s + co(x) end return s + x end)
case("sort", function(a) local t = {a, 3.0, a*0.5, 2.0, a-1} table.sort(t, function(p, q) return
  p < q end) return t[1] + 2*t[2] + 3*t[3] end)
case("sort loop", function(a) local x = a while x > 1 do local t = {x, 3.0, x*0.5} table.sort(t,
  function(p, q) return p < q end) x = t[1]*0.95 end return x end)
case("pcall in loop", function(a) local x = a while x > 1 do local ok, y = pcall(function() if x
  > 50 then error("e") end return x*0.9 end) x = ok and y or x*0.5 end return x end)
case("goto", function(a) local x = a ::top:: if x > 1 then x = x*0.7 if x > 5 then goto top end
  x = x - 0.1 goto top end return x end)
case("nested branches", function(a) local x, s = a, 0.0 while x > 1 do if x > 20 then x = x*0.5
  if s > 10 then s = s*0.5 end elseif x > 5 then x = x*0.8 s = s + x else x = x - 0.3 s = s -
  0.1*x end end return s + x end)
case("nested loops", function(a) local x, s = a, 0.0 while x > 1 do local y = x while y > 2 do y
  = y*0.6 s = s + y end x = x*0.8 if s > 100 then s = s*0.1 end end return s end)
case("count float", function(a) local x, n = a, 0.0 while x > 1 do x = x*0.9 n = n + 1.0 end
  return n*x end)
case("count", function(a) local x, n = a, 0 while x > 1 do x = x*0.9 n = n + 1 end return n*x
  end)
case("counter closure", function(a) local n = 0 local function tick() n = n + 1 return n end
  local x = a while x > 1 and tick() < 9 do x = x*0.9 end return x*n end)
case("upvalue hidden count", (function() return function(a) local t = setmetatable({}, {__index
  = function(t) return rawlen(t) end}) local x = a while x > 1 and t.n < 6 do x = x*0.9
  t[#t+1] = true end return x, #t end end)())
case("string key table", function(a) local t = {} local x = a while x > 1 do x = x*0.8 t.last,
  t.prev = x, t.last end return (t.prev or 0) + x end)
case("cells as keys", function(a) local t = {} local x = a while x > 1 do local y = x*0.8 t[y] =
  x x = y end return t[1] or x end)
case("shared tables", function(a) local p = {v=a} local q = p while p.v > 1 do q.v = q.v*0.9 end
  return p.v end)
case("two tables alias switch", function(a) local p, q = {v=a}, {v=a*0.5} while p.v > 1 do p.v =
  p.v*0.7 p, q = q, p end return p.v + 2*q.v end)
case("return early", function(a) local x = a for i = 1, 1000 do x = x*0.9 if x < 1 then return
  x*i end end return 0 end)
case("while true break", function(a) local x, y = a, 0.0 while true do local z = x*0.9 y = y + z
  if z < 1 then break end x = z end return x + y end)
case("upvalue loop fn", function(a) local x = a local function done() return x <= 1 end repeat x
  = x*0.9 until done() return x end)
case("and or", function(a) local x = a while x > 1 do x = x > 10 and x*0.5 or x*0.9 end return x
  end)
case("two guards line", function(a) local x, y = a, a while x > 1 and y > 0.5 do x = x*0.9 y =
  y*0.95 end return x+y end)
case("two guards alike", function(a) local x, y, s = a, a*0.7, 0.0 while x > 1 and y > 1 do s = s +
  x*y x = x*0.9 y = y*0.8 end return s + x + 3*y end)
case("two loops line", function(a) local x = a while x > 10 do x = x*0.9 end while x > 1 do x =
  x*0.8 end return x end)
case("same fn twice", function(a) local function f(x) while x > 1 do x = x*0.9 end return x end
  return f(a)*f(a*2) + f(f(a)*50) end)
case("mutual", function(a) local g local function f(x) if x < 1 then return x end return
  g(x*0.9) end g = function(x) if x < 0.5 then return 2*x end return f(x*0.8) end return f(a)
  end)
case("recursion sum", function(a) local function f(x) if x < 1 then return x end return f(x*0.6)
  + f(x*0.3) end return f(a) end)
case("floor loop", function(a) local s = 0 local n = ad.floor(ad.sqrt(a)) for i = 1, n do s = s
  + a/i end return s end)
case("value", function(a) local x = a while ad.value(x) > 1 do x = x*0.5 end return x end)
case("concat", function(a) local s = "" local x = a while x > 50 do x = x*0.5 s = s .. "x" end
  return #s * x end)
case("gmatch", function(a) local x = a for w in ("a b c d"):gmatch("%a") do if x > 1 then x =
  x*0.5 else x = x + #w end end return x end)
case("next loop", function(a) local x = a for _, v in ipairs{0.9,0.8,0.7} do while x > v*10 do x
  = x*v end end return x end)
case("derivative in loop", function(a) local x = a local d = ad.derivative(function(z) return
  z*z*0.2 end) while x > 1 do x = x - 0.3*d(x) end return x end)
case("grad in loop", function(a) local x = a local d = ad.grad(function(z) return z*z*0.2 end)
  while x > 1 do x = x - 0.3*d(x) end return x end)
case("loop in grad", function(a) return ad.grad(function(z) while z > 1 do z = 0.8*z +
  0.01*z*ad.sin(z) end return z end)(a) end)
case("loop in derivative", function(a) return ad.derivative(function(z) while z > 1 do z = 0.8*z
  + 0.01/z end return z end)(a) end)
case("hybrid plain", function(a) local k, x = 1.0, a while x > 1 do x = x*0.9 k = k == 1.0 and
  2.0 or 1.0 end return x*k end)
case("min step", function(a) local x, h = a, 1.0 while x > 1 do local y = x - h*0.7 if y < 0
  then h = h*0.5 else x = y end end return x end)
case("max/min", function(a) local lo, hi = a*0, a while hi - lo > 1e-6 do local m = (lo+hi)/2 if
  m*m*m < a then lo = ad.max(lo, m) else hi = ad.min(hi, m) end end return lo end)


local function close(want, got)
  if want == got or (want ~= want and got ~= got) then return true end
  if type(want) ~= "number" or type(got) ~= "number" then return false end
  return math.abs(want - got) <= 1e-11 * math.max(1, math.abs(want))
end

local function check(f)
  local c = ad.compile(f)
  math.randomseed(7)
  for i = 1, 100 do
    local a = i % 5 == 0 and math.random() * 3 or math.exp(math.random() * 6 - 0.5)
    local want, got = table.pack(f(a)), table.pack(c(a))
    assert.are.equal(want.n, got.n)
    for k = 1, want.n do
      if not close(want[k], got[k]) then assert.are.equal(want[k], got[k], "at " .. a) end
    end
  end
end

describe("a compiled function with", function()
  for _, one in ipairs(cases) do
    it(one.name, function()
      check(one.f)
      check(ad.value_and_grad(one.f))
    end)
  end
end)

it("two guards in a line that look alike are two places", function()
  local c = ad.compile(function(a)
    local x, y = a, a * 0.7
    while x > 1 and y > 1 do x, y = x * 0.9, y * 0.8 end
    return x + 3 * y
  end)
  for i = 1, 60 do c(1 + i * 0.8) end
  assert.are.equal(1, c:stats().loops)
  assert.is_true(c:stats().traces <= 6)
end)

-- Plain numbers that change from round to round. At most so many traces (nil: it does not matter),
-- the same results, and integers where there are integers.
local counting = {}

local function counts(name, traces, f)
  counting[#counting + 1] = { name = name, traces = traces, f = f }
end

-- A loop that a number goes through, as long as the data says; what it has come to, and the rest.
local function through(step, from)
  return function(a)
    local n = from or 0
    while a > 1 do
      n = step(n, a)
      a = a * 0.9
    end
    return n, a, a * n
  end
end

counts("a series", 5, function(a)
  local x, n, term, s = a / 50, 0, 1.0, 1.0
  while ad.abs(term) > 1e-9 do n = n + 1 term = term * x / n s = s + term end
  return s, n
end)
counts("results of many kinds", 5, function(a)
  local n, m = 100, 0.5
  while a > 1 do a = a * 0.9 n = n - 1 m = m + 0.25 end
  return a, n, m, -n, n // 7, n % 7, n / 2, n * n, n ^ 2, 2 ^ n, n // 1.0,
    { n = n, { m, n + 1, a } }
end)
counts("a bound", 5, function(a)
  local n = 0
  while a > 1 do a = a * 0.95 n = n + 1 if n > 40 then break end end
  return a, n
end)
counts("a bound that is an error", 5, function(a)
  local n = 0
  while a > 1 do a = a * 0.95 n = n + 1 if n > 60 then error("too many: " .. n) end end
  return a, n
end)
counts("a comparison with the data", 5, function(a)
  local s, i = 0, 0
  while i < a do s = s + ad.sin(a * i) i = i + 1 end
  return s, i
end)
counts("steps of a float", 5, function(a)
  local s, i = 0, 0.0
  while i < a do s = s + ad.sin(a * i) i = i + 0.5 end
  return s, i
end)
counts("Newton by 'for'", 5, function(a)
  local x = a
  for _ = 1, 100 do local d = (x - a / x) / 2 x = x - d if ad.abs(d) < 1e-10 then break end end
  return x
end)
counts("'for', its variable returned", 5, function(a)
  for i = 1, 100 do a = a * 0.97 if a < i then return a, i end end
  return a
end)
counts("'for' down", 5, function(a)
  for i = 100, 1, -3 do a = a * 0.97 + i * 1e-3 if a < 2 then return a, i end end
  return a, 0
end)
counts("'for' of floats", 5, function(a)
  for i = 1.0, 40, 0.5 do a = a * 0.97 if a < i then return a, i end end
  return a, 0.5
end)
counts("'for' to its end", 5, function(a)
  local s, n = 0, 0
  for i = 1, 30 do if a > i then s = s + a * i n = n + i else s = s - i end end
  return s, n
end)
counts("'for' of few rounds", nil, function(a)
  local s = 0
  for i = 1, 4 do if a > i * 10 then s = s + a * i end end
  return s
end)
counts("loops in loops", 8, function(a)
  local s, n = 0.0, 0
  while a > 1 do
    local j, b = 0, a
    while b > 1 do b = b * 0.7 j = j + 1 s = s + j * b end
    a = a * 0.8
    n = n + 1
  end
  return s, n
end)
counts("'for' in 'for'", 8, function(a)
  local s = 0.0
  for i = 1, 20 do
    for j = 1, 20 do if a * i > j * 10 then s = s + i * j else s = s - a end end
  end
  return s
end)
counts("'for' in 'for', left early", 12, function(a)
  local s = 0.0
  for i = 1, 20 do
    for j = 1, 20 do if a * i < j * 10 then break end s = s + i * j * a end
  end
  return s
end)
counts("bisection of constants", 5, function(a)
  local lo, hi, n = 0.0, 60.0, 0
  while hi - lo > 1e-9 do
    local m = (lo + hi) / 2
    n = n + 1
    if m * m > a then hi = m else lo = m end
  end
  return (lo + hi) / 2, n
end)
counts("a closure", 5, function(a)
  local n = 0
  local function tick() n = n + 1 return n end
  while a > 1 and tick() < 9 do a = a * 0.9 end
  return a * n, n
end)
counts("a tail call", 5, function(a)
  local function g(x, k) if x < 1 then return x, k end return g(x * 0.9, k + 1) end
  return g(a, 0)
end)
counts("varargs", 5, function(a)
  local function g(...)
    local n, x = select("#", ...), (...)
    while x > 1 do x = x * 0.9 n = n + 1 end
    return n, x
  end
  return g(a, 1, 2)
end)
counts("a counter of a counter", 5, function(a)
  local n, x, s, i = 0, a, 0.0, 0
  while x > 1 do n = n + 1 x = x * 0.9 end
  while i < n do i = i + 1 s = s + a / i end
  return n, s, i
end)
counts("a derivative", 5, through(function(n, a)
  return n + 1 + 0 * ad.derivative(function(z) return z * z * n end)(a)
end))
counts("a derivative that is a counter", 5, function(a)
  local n, x = 0, a
  while x > 1 do n = n + 1 x = x - 0.1 * ad.derivative(function(z) return z * n end)(3.0) end
  return n, x, ad.derivative(function(z) return z * n end)(3.0)
end)
counts("math.type and type", 5, through(function(n)
  return math.type(n) == "integer" and type(n) == "number" and n + 1 or n
end))
counts("functions of autodiff", 5, through(function(n)
  return n + ad.max(n, 3) - ad.max(n, 3) + ad.min(n, 5, 1) // 1 + ad.abs(-1) * ad.fmod(n, 1)
end))
counts("lists", 5, through(function(n, a)
  return n + ad.sum{ n, 2 } + ad.norm{ n * 0.5, a }
end, 0.0))
counts("comparisons by functions", 5, through(function(n)
  return ad.lt(n, 12) and n + 1 or n + 2
end))
counts("equality", 8, through(function(n) if n == 10 then return n + 3 end return n + 1 end))
counts("parity", 8, through(function(n) return n % 2 == 1 and n + 1 or n + 3 end))
counts("large integers in the beginning", 5, through(function(n) return n + 1 end, (1 << 51) - 5))
counts("0 without a sign", 5, function(a)
  local n, z = 0, 1
  while a > 1 do n = n - 1 z = 0 * n a = a * 0.9 end
  return z, 1 / z, 0 // n, 0 % n, -(n - n), a
end)

-- expressions that wait for a guard, in registers without a name
local function pick(n, b) return b and n or -n end

counts("arguments before a guard", 5, function(a)
  local i, s = 0, 0
  local function step() i = i + 1 return i end
  while ad.lt(1, a) do s = s + pick(step() * 3, a > 10) a = a * 0.9 end
  return s, a
end)
counts("a constructor around a guard", 8, function(a)
  local s, n = 0, 0
  while n < 25 do
    n = n + 1
    a = a * 0.93
    local t = { n * 2, a > 10 and 1 or 2, n * 3, [4] = a > 5 }
    s = s + t[1] * t[2] + t[3] + (t[4] and 1 or 0)
  end
  return s, n, a
end)
counts("an assignment of several values", 5, function(a)
  local s, n, p, q = 0, 0, 0, 0
  while n < 25 do n = n + 1 a = a * 0.93 p, q, s = n * 7, a > 10 and p or q, s + p end
  return s, n, p, q, a
end)
counts("results of several values", 5, function(a)
  local function g(n, x) return n * 2, x > 10, n * 3 end
  local s, n = 0, 0
  while n < 25 do n = n + 1 a = a * 0.93 local p, b, q = g(n, a) s = s + (b and p or q) end
  return s, n, a
end)
counts("a call in a 'for'", 5, function(a)
  local function g(x, k) if x > 10 then return k end return -k end
  local s = 0
  for i = 1, 25 do a = a * 0.93 s = s + i * g(a, i + 1) + i * 2 end
  return s, a
end)
counts("varargs around a guard", 5, function(a)
  local function h(p, b, ...) return (b and p or 0) + select("#", ...) end
  local function w(...)
    local s, n = 0, 0
    while n < 25 do n = n + 1 a = a * 0.93 s = s + h(n * 2, a > 10, ...) end
    return s, n, a
  end
  return w(1, 2, 3)
end)
counts("varargs that are others in each round", 8, function(a)
  local function g(...)
    local x, k = a, 0
    while x > (...) do x = x * 0.9 k = k + 1 end
    return k * x
  end
  local s = 0
  for n = 1, 9 do s = s + g(n % 3 + 1) end
  return s
end)
counts("a guard while variables are closed", 5, function(a)
  local mt = { __close = function(o) o.k = o.k + (o.x > 10 and 1 or 2) end }
  local function g(n, x)
    local o <close> = setmetatable({ x = x, k = 0 }, mt)
    return n * 2, x, n * 3, o
  end
  local n, s = 0, 0
  while n < 20 do n = n + 1 a = a * 0.9 local p, x, q, o = g(n, a) s = s + p * x + q + o.k end
  return n, s, a
end)
counts("objects", nil, function(a)
  local mt = {}
  local function object(x) return setmetatable({ x = x }, mt) end
  local function of(p) return getmetatable(p) == mt and p.x or p end
  function mt.__add(p, q) return object(of(p) + of(q)) end
  function mt.__lt(p, q) return of(p) < of(q) end
  local n, o, m = 0, object(1), 0
  while a > 1 do n = n + 1 o = n + (o + n) m = n < object(7) and m + 1 or m a = a * 0.9 end
  return n, o.x, m, a
end)

-- what cannot be, is as it was
counts("integers beyond 2^53", nil, through(function(n) return n + 1 end, (1 << 53) - 5))
counts("the largest integer", nil, through(function(n) return n + 1 end, math.maxinteger - 5))
counts("integers that overflow", nil, through(function(n) return n * 7 end, 1))
counts("sums that overflow", nil, function(a)
  local p, q = 1, 1
  while a > 1 do p, q = q, p + q * 3 a = a * 0.93 end
  return p, q, a
end)
counts("an overflow that ends the loop", nil, function(a)
  local p, n = 1, 0
  repeat p = p * 4 n = n + 1 a = a * 0.99 until p == 0 or a < 1
  return p, n, a
end)
counts("a division by 0", nil, through(function(n) return n - 1 + 0 // (n - 1) end, 9))
counts("bits", nil, through(function(n) return n << 1 ~ 3 & 255 | ~n & 1 end, 1))
counts("a key", nil, (function()
  local t = {}
  for i = 0, 100 do t[i] = i * 0.5 end
  return through(function(n, a) return n + (t[n] < a and 1 or 2) end)
end)())
counts("a key of something else", nil, (function()
  local t = setmetatable({}, { __index = function(_, k) return math.type(k) end })
  return through(function(n) return t[n] == "integer" and n + 1 or n end)
end)())
counts("text", nil, through(function(n)
  return n + #(n .. "") + #("%d"):format(n) + #tostring(n)
end))
counts("a string in a sum", nil, through(function(n) return n + "1" end))
counts("functions of Lua", nil, through(function(n) return math.max(n, 3) + math.floor(n / 2) end))
counts("tables of counters that go to Lua", nil, through(function(n)
  return n + #table.concat({ n, n }, ",") + select("#", table.unpack{ n, n })
end))
counts("integer or float", nil, through(function(n) return ad.max(n, 3.5) * 0 + n + 1 end))
counts("pcall", nil, through(function(n) return n + (pcall(string.rep, "x", n) and 1 or 2) end))
counts("pcall with bits", nil, through(function(n)
  return n + (pcall(function() return n & 7 end) and 1 or 2)
end))
counts("a coroutine that fails", nil, through(function(n)
  return n + (coroutine.resume(coroutine.create(function() return n | 7 end)) and 1 or 2)
end))
counts("a coroutine that counts", nil, function(a)
  local n, g = 0, coroutine.wrap(function() for i = 1, 100 do coroutine.yield(i) end end)
  while a > 1 do n = n + 1 a = a * 0.9 + g() * 1e-3 end
  return n, a
end)
counts("the bound of a 'for'", nil, function(a)
  local n, s = 0, 0.0
  while a > 1 do n = n + 1 a = a * 0.9 for j = 1, n do s = s + j * a end end
  return n, s
end)
counts("a gradient by a counter", nil, through(function(n, a)
  return n + 1 + 0 * ad.grad(function(z) return z * a end)(n)
end))
counts("an error with a table", 5, function(a)
  local n = 0
  while a > 1 do n = n + 1 a = a * 0.9 if n > 25 then error({ n = n }) end end
  return n, a
end)

-- Two lists of results, of which the first has what should be.
local function agree(want, got, at)
  for k, x in pairs(want) do
    local y = got[k]
    if type(x) == "table" then
      agree(x, y, at)
    elseif type(x) == "number" then
      if math.type(x) ~= math.type(y) or not close(x, y) then
        assert.are.equal(x, y, "at " .. at)
      end
    else
      assert.are.equal(x, y)
    end
  end
end

describe("a loop with", function()
  for _, one in ipairs(counting) do
    it(one.name, function()
      for _, f in ipairs{ one.f, ad.value_and_grad(one.f) } do
        local c = ad.compile(f)
        math.randomseed(7)
        for _ = 1, 80 do
          local a = 1 + math.random() * 49
          local want, got = table.pack(pcall(f, a)), table.pack(pcall(c, a))
          assert.are.equal(want[1], got[1], got[2])
          if want[1] then
            assert.are.equal(want.n, got.n)
            agree(want, got, a)
          end
        end
        local stats = c:stats()
        assert.is_true(stats.traces <= (one.traces or 80), stats.traces .. " traces")
        if one.traces then assert.are.equal(0, stats.eager_calls) end
      end
    end)
  end
end)

it("the loops of a function that counts are found below a hook of the user's", function()
  local lines = 0
  local function f(a)
    local n = 0
    while a > 1 do
      n = n + 1
      a = a * 0.9
      for i = 1, 9 do if a > i * 3 then n = n + i end end
    end
    return n, a
  end
  local c = ad.compile(f)
  local function hook() lines = lines + 1 end
  debug.sethook(hook, "l")
  local results = {}
  for a = 2, 40 do results[a] = { c(a + 0.5) } end
  local left = debug.gethook()
  debug.sethook()
  assert.are.equal(hook, left)
  assert.is_true(lines > 100)
  for a = 2, 40 do
    local n, x = f(a + 0.5)
    assert.are.equal(n, results[a][1])
    assert.is_true(close(x, results[a][2]))
  end
  assert.is_true(c:stats().traces <= 8)
end)

it("a stored program returns integers where the function counts", function()
  local c = ad.compile(function(a)
    local n = 0
    while a > 1 do n = n + 1 a = a * 0.9 end
    return n, { n = n * 2, a }
  end)
  for a = 1, 30 do c(a * 1.5) end
  local name = os.tmpname()
  c:save(name)
  local n, t = ad.load_program(name)(20.0)
  os.remove(name)
  assert.are.equal("integer", math.type(n))
  assert.are.equal(29, n)
  assert.are.equal("integer", math.type(t.n))
  assert.are.equal("float", math.type(t[1]))
  local rounds = c:map(ad.array{ 3, 20 })
  assert.are.same({ 11, 29 }, { rounds[1], rounds[2] })
end)

it("a finalizer may call the function that is being called, or recorded", function()
  local mode = collectgarbage("generational")
  local c = ad.compile(function(a)
    local t = {}
    for i = 1, 20 do t[i] = { a * i, { a + i } } end
    return t
  end)
  local calls, wrong, live = 0, 0, true
  local function finalized(f, x)
    setmetatable({}, { __gc = function()
      calls = calls + 1
      f(x)
      if live then finalized(f, x) end
    end })
  end
  for _ = 1, 5 do finalized(c, 1000.5) end
  for a = 1.5, 4000 do
    local t = c(a)
    for i = 1, 20 do
      if t[i][1] ~= a * i or t[i][2][1] ~= a + i then wrong = wrong + 1 end
    end
  end
  live = false
  collectgarbage()
  for k = 1, 300 do
    local d
    d = ad.compile(function(a)
      local n, s = 0, { a }
      while a > 1 do
        n = n + 1
        finalized(d, 0.5)
        if n % 4 == 0 then collectgarbage() end
        a = a * 0.7
      end
      return n, s
    end)
    for _ = 1, 3 do finalized(d, 0.5) end
    local n, s = d(k % 5 + 3.5)
    local m = math.ceil(math.log(k % 5 + 3.5) / -math.log(0.7))
    if n ~= m or s[1] ~= k % 5 + 3.5 then wrong = wrong + 1 end
  end
  collectgarbage(mode)
  assert.are.equal(0, wrong)
  assert.is_true(calls > 100)
  -- not for ever
  local eager = c:stats().eager_calls
  c(7.5)
  assert.are.equal(eager, c:stats().eager_calls)
end)
