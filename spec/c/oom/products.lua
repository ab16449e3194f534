-- luacheck: read globals fails near
-- Products of arrays, and their derivatives.
local ad = require("autodiff")

local a = ad.array{{1.0, 2.0}, {3.0, 4.0}}
local v = ad.array{1.0, 2.0}
near(ad.matmul(a, a)[{2, 1}], 15)
near(a:matmul(v)[1], 5)
near(v:matmul(v), 5)
near(ad.dot(a, 2)[{1, 1}], 2)
near(ad.outer(v, v)[{2, 2}], 4)
near(ad.einsum("ij,jk,k->i", a, a, v)[1], 27)
near(ad.einsum("ii", a), 5)
near(ad.einsum("...i,i", ad.array{a, a}, v)[{2, 2}], 11)
fails(ad.matmul, a, ad.zeros(3))
fails(ad.einsum, "ij", v)

local wide = ad.ones(20, 30)
near(ad.matmul(wide, wide[{{-1, 1, -1}, {-1, 1, -1}}]:transpose{2, 1})[{3, 4}], 30)

local function f(x, y) return ad.einsum("ij,ij->", ad.matmul(x, y), ad.matmul(y, x)) end
local gx, gy = ad.grad(f, {1, 2})(a, a)
near(gx[{1, 1}], gy[{1, 1}])
near(ad.einsum("ij,ij->", select(2, ad.jvp(ad.matmul, {a, a}, {a, a})), a) / 2,
  ad.einsum("ij,ij->", ad.matmul(a, a), a))
near(ad.grad(function(x) return ad.einsum("ii", x) end)(a)[{1, 2}], 0)
near(ad.derivative(function(t) return f(t * a, a) end, 2)(1.0), 2 * f(a, a))
