-- luacheck: read globals near
-- Enough operations for every array to grow several times.
local ad = require("autodiff")

local function series(x, n)
  local s, t = 0.0, x
  for k = 1, n do
    s = s + t
    t = t * x * x * (-1.0 / ((2 * k) * (2 * k + 1)))
  end
  return s
end
near(ad.grad(series)(0.7, 400), math.cos(0.7))
local big = {}
for k = 1, 300 do big[k] = k / 300 end
local g = ad.grad(function(x)
  local s = 0
  for k = 1, #x do s = s + x[k] * x[k] end
  return s
end)(big)
near(g[300], 2)
near(ad.grad(ad.sum)(big)[7], 1)
local tape <close> = ad.tape{persistent = true}
local x = tape:var(0.7)
near(tape:gradient(series(x, 300), x), math.cos(0.7))
tape:reset()
local y = tape:var(0.7)
near(tape:gradient(series(y, 300), y), math.cos(0.7))
