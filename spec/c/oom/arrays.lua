-- luacheck: read globals near
-- Arrays: making them, their parts, reductions, shapes, lists of them, and
-- derivatives through all of these.
local ad = require("autodiff")

local a = ad.array{{1, 2, 3}, {4, 5, 6}}
near(a[{2, -1}], 6)
near(ad.zeros(2, 2):sum() + ad.ones({2}):sum() + ad.full({2}, 3):sum() + ad.eye(2, 3):sum(), 10)
near(ad.arange(1, 4):mean() + ad.linspace(0, 1, 3)[2], 3)
near(#a + a.size + a.ndim + a.shape[2], 13)
local b = a:copy()
b[1] = {7, 8, 9}
b[{{}, {2, 3}}] = b[{{}, {1, 2}}]
near(b:tolist()[1][3], 8)
near((a + a[1] * 2 - ad.maximum(a, 3) / ad.minimum(a, 2)):sum(1)[1], -3 / 1 - 4 / 2 + 9)
near(ad.where(a:lt(3), a, 0):sum() + a:eq(3):sum() + a:le(2):sum(), 6)

-- Reductions
near(a:prod() + a:max() - a:min() + a:norm() ^ 2, 720 + 5 + 91)
near(a:var() + a:std(nil, true)[1][1] ^ 2, 35 / 6)
near(ad.argmax(a) + ad.argmin(a, 2):sum(), 8)
near(ad.logsumexp(a:log_softmax()) + ad.softmax(a):sum(), math.log(2) + 2)
near(ad.cumsum(a)[{2, 3}] + ad.sort(a:flip())[{1, 1}] + ad.argsort(a:flip(1), 1)[{1, 1}], 21)
near((a * 1e200):norm() / 1e200, 91 ^ 0.5)

-- Shapes
local c = ad.concat({a:transpose(), ad.stack({a[1], a[2]}, 2)}, 2)
near(c:reshape(-1)[5] + c:expand_dims(1):squeeze().size, 14)
near(ad.split(c, 3)[2]:sum() + ad.split(c, {1}, 2)[2].size, 14 + 9)
near(ad.take(a, {1, -1}):sum() + ad.scatter_add(a, {1}, 2, 1):sum(), 7 + 27)
near(ad.pad(a, 1, 2):sum() + ad.tile(a, 2):sum() + ad.broadcast_to(a, {2, 2, 3}):sum(),
  21 + 28 + 42 + 42)

-- Gradients
local function f(x)
  local t = x:tolist()
  local m = ad.array{{t[1][1], 2.0}, {t[2][2], t[1][2]}}
  local s = 0
  for i = 1, 2 do s = s + x[i]:logsumexp() * x[{i, 3}] end
  s = s + m:prod() + (x:sort(1) * x:softmax()):max() + ad.norm(x:take({1, 2}, 2), 1):sum()
  s = s + ad.concat{x, x}:reshape(3, 4):transpose():cumsum():std() + x:var()
  return s + ad.scatter_add(x, {1}, x[{{2, 2}}], 1):log_softmax():min()
end

local d = ad.array{{1, 0.5, 0}, {-1, 0, 2}}
local y, g = ad.value_and_grad(f)(a)
near(y, f(a))
near(select(2, ad.jvp(f, {a}, {d})), (g * d):sum())
near((ad.hvp(f, a, d) * a):sum(),
  select(2, ad.jvp(function(x) return (ad.grad(f)(x) * d):sum() end, {a}, {a})))
local x = ad.var(a)
local z = (x * x):sum()
assert(not pcall(function() a[1] = 0 end))
z:backward()
near((x.grad - a * 2):norm(), 0)
a[1] = 0
