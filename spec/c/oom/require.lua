-- luacheck: read globals near
-- Loading the library, and a first use of every value kind.
local ad = require("autodiff")
near(ad.grad(function(x) return x * x end)(3.0), 6)
local _, d = ad.jvp(function(x) return x * x end, {3.0}, {1.0})
near(d, 6)
local x = ad.var(2.0)
local y = ad.exp(x)
y:backward()
near(x.grad, math.exp(2))
local tape <close> = ad.tape()
local v = tape:var(2.0)
near(tape:gradient(v * v, v), 4)
