-- luacheck: read globals fails near
-- vars with gradients of their own.
local ad = require("autodiff")

local x, y = ad.var(2.0), ad.var(4.0)
local function f() return ad.exp(x) - x * y + ad.cos(y) end
f():backward()
near(x.grad, math.exp(2) - 4)
f():backward()
near(x.grad, 2 * (math.exp(2) - 4))
x:zero_grad()
y:zero_grad()
local z = f()
z:backward{retain = true}
z:backward()
near(y.grad, 2 * (-2 - math.sin(4)))
local e = fails(z.backward, z)
assert(e:find("retain"))
x:zero_grad()
local a, b = x * y, x ^ 2
ad.backward({a, b}, {x}, {1.0, 10.0})
near(x.grad, 4 + 40)
x:zero_grad()
ad.backward({x * y, x}, {x, y})
near(x.grad, 5)
near(ad.value(f():detach()), ad.value(f()))
near(ad.value(ad.no_grad(function() return x * 3 end)), 6)

-- A training loop, its graph freed by backward, and one without backward.
local w = ad.var(0.0)
for _ = 1, 30 do
  w:zero_grad()
  local loss = (w - 3) ^ 2 * 0.5
  loss:backward()
  w = ad.var(w.value - 0.5 * w.grad)
end
near(w.value, 3)
for _ = 1, 30 do
  local s = ad.var(1.0)
  for _ = 1, 5 do s = s * 1.1 end
end
