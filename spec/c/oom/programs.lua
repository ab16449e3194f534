-- Programs for many points, as C, in files; sparse derivatives.
local ad = require "autodiff"
local f = ad.compile(ad.value_and_grad(function(w, x)
  local y = w.b
  while x > 1 do x, y = x / 2, y + w.a[1] end
  if x < 0 then return 0 * y end
  return y * ad.sin(x) * w.a[2]
end))
local w = { a = { 1, 2 }, b = 3 }
local x = ad.linspace(-1, 9, 200)
local v = f:map(w, x)
assert(#v == 200)
f:map(w, x, { reduce = "sum", threads = 2 })

-- the same with machine code, which stays for the second call
local native = ad.compile(function(u) return u * u + ad.exp(u) end, { backend = "native" })
for _ = 1, 2 do native:map(x) end

-- f itself for each row, and no rows
local rows = ad.compile(function(p) return ad.sum(ad.array(p)), { p[1], y = p[2] }, p end)
local points = ad.reshape(ad.linspace(1, 6, 6), { 3, 2 })
local s, t, stacked = rows:map(points)
assert(s[3] == 11 and t.y[3] == 6 and stacked[{ 3, 1 }] == 5)
s = rows:map(points, { reduce = "sum" })
assert(s == 21)
assert(#native:map(ad.zeros(0)) == 0)
assert(#ad.compile(function(p) return ad.sum(p * p) end):map(ad.ones(2, 3)) == 2)

assert(#f:c_source("f") > 100)
f({ a = { 1, 2, 3 }, b = 3 }, 0.5) -- arguments of another form
local path = os.tmpname()
local gone <close> = setmetatable({}, { __close = function() os.remove(path) end })
assert(gone)
f:save(path)
local g = ad.load_program(path)
assert(g(w, 0.5) == f(w, 0.5) and g({ a = { 1, 2, 3 }, b = 3 }, 0.5) == f(w, 0.5))
local h = ad.compile(function(p) return p[1] * p[2] ^ 2 + ad.exp(p[3]) end)
assert(#h:hessian({ 1, 2, 3 }).rows == 5)
assert(#h:jacobian({ 1, 2, 3 }).rows == 3)
