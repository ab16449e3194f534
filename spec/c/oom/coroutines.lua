-- luacheck: read globals fails memory near
-- Transforms that yield in the middle, are resumed elsewhere, or never.
local ad = require("autodiff")

local function f(x)
  local y = ad.sin(x) * x
  coroutine.yield(y.value)
  y = y * x
  coroutine.yield(y.value)
  return y
end

local function resume(co, ...)
  local r = table.pack(coroutine.resume(co, ...))
  if not r[1] then error(memory(r[2]), 0) end
  return table.unpack(r, 2, r.n)
end

for _, transform in ipairs{ad.grad(f), ad.derivative(f),
    function(x) return (select(2, ad.jvp(f, {x}, {1.0}))) end} do
  local a = coroutine.create(transform)
  local b = coroutine.create(transform)
  resume(a, 1.0)
  resume(b, 2.0)
  resume(b)
  resume(a)
  local ga, gb = resume(a), resume(b)
  near(ga, 2 * math.sin(1) + math.cos(1))
  near(gb, 4 * math.sin(2) + 4 * math.cos(2))
end

-- Abandoned in the middle.
resume(coroutine.create(ad.grad(f)), 1.0)
local closed = coroutine.create(ad.grad(f))
resume(closed, 1.0)
coroutine.close(closed)
-- Failing in the middle.
local failing = coroutine.wrap(ad.grad(function(x) coroutine.yield() error("x" .. x) end))
failing(1.0)
fails(failing)
-- A coroutine within f.
near(ad.grad(function(x)
  local step = coroutine.wrap(function(y)
    while true do y = coroutine.yield(y * x) end
  end)
  return step(x) + step(2)
end)(3.0), 8)
collectgarbage()
near(ad.grad(ad.sin)(0.0), 1)
