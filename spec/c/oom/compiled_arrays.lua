-- luacheck: read globals fails near
-- Recording and running what works on arrays.
local ad = require("autodiff")

local A, linalg = ad.array, require("autodiff.linalg")
local data = A{1, 2, 3}
local function f(a, p)
  local y = ad.sin(a) * p.w + data
  if ad.sum(y) > 8 then return {y, a, y:reshape(3, 1)}, ad.ones(3) end
  local first = ad.concat{y, a}:split(2)[1]
  return {ad.matmul(p.m, first), ad.stack{y, first}, ad.sum(ad.value(y))}, ad.sort(y)
end
local c = ad.compile(f)
local m = A{{1, 2, 3}, {0, 1, 0}, {1, 0, 1}}
for i = 1, 3 do
  for _, x in ipairs{A{0.1, 0.2, 0.3}, A{1, 1, 1.5}, m[1]} do
    local want, got = f(x, {w = 1.0, m = m}), c(x, {w = 1.0, m = m})
    near(ad.sum(want[1]), ad.sum(got[1]))
    near(ad.sum(want[2]), ad.sum(got[2]))
  end
  if i == 2 then data[1] = 5 end
end
near(#tostring(c) > 10 and c:stats().array_calls > 4 and 1, 1)

local g = ad.compile(ad.value_and_grad(function(p, x)
  local r = ad.tanh(ad.matmul(x, p.w)) + p.b
  return ad.mean(r * r)
end))
for _ = 1, 3 do
  local y, d = g({w = A{0.1, 0.2, 0.3}, b = 0.5}, m)
  near(y > 0 and ad.sum(d.w) > 0 and d.b > 0 and 1, 1)
end

local read = ad.compile(function(x) return ad.sum(data) * x + data:tolist()[2] end)
for i = 1, 12 do
  near(read(2.0), 2 * ad.sum(data) + 2)
  data[1] = i
end
local looked = ad.compile(function(a) return tostring(a * 2) == "[2 4]" and 1 or 2 end)
for _ = 1, 2 do
  near(looked(A{1, 2}), 1)
  near(looked(A{1, 3}), 2)
end
local inverse = ad.compile(function(n) return linalg.slogdet(n), linalg.inv(n) end)
near(inverse(A{{2, 0}, {0, 1}}), 1)
near(inverse(A{{2, 0}, {0, 1}}), 1)
fails(inverse, A{{1, 2}, {2, 4}})
fails(ad.compile(function(a) return a + A{1, 2, 3} end), A{1, 2})
local written = ad.compile(function(a) local b = a * 2 b[1] = 7 return b end)
near(written(A{1, 2})[1], 7)
near(written(A{1, 2})[2], 4)
fails(function() c:c_source("f") end)
near(ad.grad(ad.compile(function(a) return ad.sum(a * a) end))(A{1, 2})[2], 4)

local function round(x, b)
  local seven = ad.ones(2)
  while ad.norm(x) > 0.1 do x, b = b * 0.5 + seven * 0.01, x * 0.25 end
  return x, b
end
local rounds = ad.compile(round)
for i = 1, 4 do
  local x, b = rounds(A{1, 2} * i, A{3, 1})
  local wantx, wantb = round(A{1, 2} * i, A{3, 1})
  near(ad.sum(x), ad.sum(wantx))
  near(ad.sum(b), ad.sum(wantb))
end
near(rounds:stats().loops, 1)
