-- luacheck: read globals fails near
-- Linear algebra: values, derivatives and errors; without LAPACK only that.
local ad = require("autodiff")
local L = ad.linalg

local a = ad.array{{4.0, 1.0}, {1.0, 3.0}}
local b = ad.array{1.0, 2.0}
if not select(2, require("autodiff.core").array.blas()) then
  return fails(L.inv, a)
end

local function all(x) return ad.einsum(("abc"):sub(1, #x.shape) .. "->", x) end
near(L.solve(a, b)[2], 7 / 11)
near(L.inv(a)[{1, 1}], 3 / 11)
near(L.det(a), 11)
near(select(2, L.slogdet(a)), math.log(11))
near(L.cholesky(a)[{1, 1}], 2)
near(all(L.lstsq(a, b)), all(L.solve(a, b)))
fails(L.inv, ad.zeros(2, 2))
fails(L.cholesky, ad.zeros(2, 2))
fails(L.det, b)
for _, f in ipairs{
  function(x) return all(L.solve(x, b)) end,
  function(x) return all(L.inv(x)) end,
  function(x) return L.det(x) end,
  function(x) return (select(2, L.slogdet(x))) end,
  function(x) return all(L.cholesky(x)) end,
  function(x)
    local q, r = L.qr(x)
    return all(q) + all(r * r)
  end,
  function(x)
    local u, s, vt = L.svd(x)
    return all(u * u) + all(s) + all(vt * vt)
  end,
  function(x)
    local w, v = L.eigh(x)
    return all(w) + all(v * v)
  end,
  function(x) return all(L.lstsq(x, b)) end,
} do
  local g = ad.grad(f)(a)
  near(all(g * a), (select(2, ad.jvp(f, {a}, {a}))))
end
near(ad.grad(L.det)(ad.array{{0.0, 2.0}, {0.0, 3.0}})[{1, 1}], 3)
