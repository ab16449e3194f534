-- luacheck: read globals near
-- Shapes changed, arrays and their cotangents, in both modes.
local ad = require("autodiff")

local function f(a)
  local b = ad.transpose(ad.reshape(a, {3, 2}))
  local c = ad.squeeze(ad.expand_dims(ad.flip(b, 1), 2))
  return ad.sum(ad.log_softmax(c) * c) + ad.std(c)
end

local x = ad.array{0.1, -0.4, 0.7, 1.2, -0.3, 0.5}
local y, dx = ad.value_and_grad(f)(x)
local _, dy = ad.jvp(f, {x}, {ad.linspace(1.0, -1.0, 6)})
near(y, f(x))
near(ad.dot(dx, ad.linspace(1.0, -1.0, 6)), dy)
