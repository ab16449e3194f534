-- luacheck: read globals fails near
-- The explicit tape, in all its ways.
local ad = require("autodiff")

do
  local tape <close> = ad.tape()
  local x, y = tape:var(2.0, 4.0)
  local z = ad.exp(x) - x * y + ad.cos(y)
  assert(#tape > 0)
  local gx, gy = tape:gradient(z, x, y)
  near(gx, math.exp(2) - 4)
  near(gy, -2 - math.sin(4))
  local e = fails(tape.gradient, tape, z, x)
  assert(e:find("persistent"))
end
do
  local tape <close> = ad.tape{persistent = true}
  local x = tape:var({1.0, {k = 2.0}})
  local z, w = x[1] * x[2].k, x[1] ^ 3
  for _ = 1, 3 do
    near(tape:gradient(z, x)[2].k, 1)
    near(tape:gradient{target = w, sources = x}[1], 3)
  end
  local g = tape:gradient{target = {z, w}, sources = {a = x[1], b = x[2]}, seeds = {1.0, 2.0}}
  near(g.a, 2 + 6)
  near(g.b.k, 1)
  tape:reset()
  local v = tape:var(3.0)
  near(tape:gradient(v * v, v), 6)
end
do
  local tape = ad.tape()
  local x = tape:var(3.0)
  local c = tape:stop(function() return x * x end)
  near(ad.value(c), 9)
  near(tape:gradient(x * c, x), 9)
  assert(#tostring(tape) > 0)
  tape:close()
  fails(tape.var, tape, 1.0)
  fails(function() return tape:gradient(x, x) end)
end
do
  local tape <close> = ad.tape()
  local x, unused = tape:var(1.0, 2.0)
  local function f(z)
    for k = 1, 80 do z = z + ad.sin(z) / (k + 3) end
    return z
  end
  local gx, gu = tape:gradient(f(x), x, unused)
  near(gx, ad.grad(f)(1.0))
  near(gu, 0)
end
-- A tape within a tape.
do
  local outer <close> = ad.tape()
  local x = outer:var(2.0)
  local inner = ad.tape()
  local y = inner:var(x * 3)
  local g = inner:gradient(y ^ 3, y)
  inner:close()
  near(outer:gradient(g, x), 6 * 6 * 3)
end
-- Left to the collector.
for _ = 1, 3 do
  local tape = ad.tape()
  local x = tape:var(2.0)
  near(ad.value(x * x), 4)
end
collectgarbage()
