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
