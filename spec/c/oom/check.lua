-- The library's own comparison with differences.
local ad = require("autodiff")

assert(ad.check(function(x, y) return ad.sin(x) * y end, {0.5, 2.0}))
assert(ad.check(function(t) return t[1] * t.a ^ 2 end, {{0.5, a = 2.0}}))
local wrong = ad.custom{name = "wrong", f = function(x) return x * x end,
  jvp = function(p, t) return 3 * p[1] * t[1] end}
local ok, report = ad.check(wrong, {2.0})
assert(ok == false and type(report) == "string")
