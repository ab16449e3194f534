-- Double-double numbers: an unevaluated sum hi + lo of two doubles, |lo| <= ulp(hi)/2, which
-- carries about 31 decimal digits. `fit.lua` evaluates its final residuals with them.
--
-- Sums and products: T. J. Dekker, "A floating-point technique for extending the available
-- precision", Numer. Math. 18 (1971). Elementary functions: argument reduction and Taylor series,
-- or one Newton step from the double's own answer, as in Hida, Li and Bailey, "Library for
-- double-double and quad-double arithmetic" (2000). Infinities come out as infinities or NaN, which
-- is all that the caller needs to know.

local dd = {}
local meta = {}

local function new(hi, lo)
  return setmetatable({hi, lo}, meta)
end

-- Exact when |a| >= |b|.
local function quick_sum(a, b)
  local s = a + b
  return s, b - (s - a)
end

local function two_sum(a, b)
  local s = a + b
  local t = s - a
  return s, (a - (s - t)) + (b - t)
end

-- Lua has no fused multiply-add, so the factors are cut into halves of 26 bits (Veltkamp, Dekker).
local function two_product(a, b)
  local p = a * b
  local t = 134217729.0 * a -- 2^27 + 1
  local a1 = t - (t - a)
  local a2 = a - a1
  t = 134217729.0 * b
  local b1 = t - (t - b)
  local b2 = b - b1
  return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2
end

local function parts(x)
  if type(x) == "number" then return x + 0.0, 0.0 end
  return x[1], x[2]
end

-- The low parts are added with their own error, which the cheaper "sloppy" sum leaves out:
-- residuals are differences of nearly equal numbers, where it has no correct digit to promise.
local function add(ah, al, bh, bl)
  local s, e = two_sum(ah, bh)
  local t, f = two_sum(al, bl)
  s, e = quick_sum(s, e + t)
  return new(quick_sum(s, e + f))
end

function meta.__add(a, b)
  local ah, al = parts(a)
  return add(ah, al, parts(b))
end

function meta.__sub(a, b)
  local ah, al = parts(a)
  local bh, bl = parts(b)
  return add(ah, al, -bh, -bl)
end

function meta.__unm(a)
  return new(-a[1], -a[2])
end

function meta.__mul(a, b)
  local ah, al = parts(a)
  local bh, bl = parts(b)
  local p, e = two_product(ah, bh)
  return new(quick_sum(p, e + (ah * bl + al * bh)))
end

function meta.__div(a, b)
  b = new(parts(b)) -- or else q1 * b might be a product of plain numbers, and inexact
  local bh = b[1]
  local q1 = parts(a) / bh
  local r = a - q1 * b
  local q2 = r[1] / bh
  r = r - q2 * b
  return new(quick_sum(q1, q2)) + r[1] / bh
end

local zero, one = new(0.0, 0.0), new(1.0, 0.0)
local ln2 = new(0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56)
local half_pi = new(0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54)

-- By repeated squaring; the error grows with n only as that of a product of n factors.
local function integer_power(a, n)
  local result = one
  while n > 0 do
    if n % 2 == 1 then result = result * a end
    n = n // 2
    if n > 0 then a = a * a end
  end
  return result
end

local inverse_factorial = {[0] = one}
for n = 1, 34 do inverse_factorial[n] = inverse_factorial[n - 1] / n end

-- start/first! + start x/(first+step)! + start x^2/(first+2 step)! + ...
local function series(start, x, first, step)
  local sum, power = start, start -- first is 0 or 1
  for n = first + step, #inverse_factorial, step do
    power = power * x
    local term = power * inverse_factorial[n]
    sum = sum + term
    if math.abs(term[1]) < 1e-33 * math.abs(sum[1]) then break end
  end
  return sum
end

-- exp(x) = 2^k (1 + expm1(r))  with  r = x - k ln 2  made smaller by 2^9 and doubled back up by
-- expm1(2r) = expm1(r) (2 + expm1(r)).
function dd.exp(x)
  local hi = x[1]
  if not (math.abs(hi) < 700) then return new(math.exp(hi), 0.0) end
  local k = (hi / ln2[1] + 0.5) // 1
  local r = (x - k * ln2) * 2.0^-9
  if r[1] == 0 then return one * 2.0^k end
  local p = series(r, r, 1, 1)
  for _ = 1, 9 do p = p * (p + 2.0) end
  return (p + 1.0) * 2.0^k
end

-- Newton on exp(y) = x; the double logarithm has half of the digits already.
function dd.log(x)
  local y = math.log(x[1])
  if not (math.abs(y) < 700) then return new(y, 0.0) end
  return x * dd.exp(new(-y, 0.0)) - 1.0 + y
end

function dd.log10(x)
  return dd.log(x) / dd.log(new(10.0, 0.0))
end

function dd.sqrt(x)
  local y = math.sqrt(x[1])
  if not (y > 0 and y < math.huge) then return new(y, 0.0) end
  return (x - new(two_product(y, y))) / (2.0 * y) + y
end

-- sin x and cos x together: the quadrant decides which of them is which.
local function sine_cosine(x)
  if not (math.abs(x[1]) < 2.0^52) then return new(0/0, 0/0), new(0/0, 0/0) end
  local k = (x[1] / half_pi[1] + 0.5) // 1
  local r = x - k * half_pi
  local minus_square = -(r * r)
  local s = r[1] == 0 and r or series(r, minus_square, 1, 2)
  local c = series(one, minus_square, 0, 2)
  local quadrant = k % 4
  if quadrant == 0 then return s, c end
  if quadrant == 1 then return c, -s end
  if quadrant == 2 then return -s, -c end
  return -c, s
end

function dd.sin(x)
  return (sine_cosine(x))
end

function dd.cos(x)
  return (select(2, sine_cosine(x)))
end

function dd.tan(x)
  local s, c = sine_cosine(x)
  return s / c
end

-- atan x = y + atan((x - tan y) / (1 + x tan y)), where y is so near that the last arc tangent is
-- its argument.
function dd.atan(x)
  local y = math.atan(x[1])
  if math.abs(x[1]) > 1e150 then return new(y, 0.0) end
  local s, c = sine_cosine(new(y, 0.0))
  return (x * c - s) / (c + x * s) + y
end

function dd.asin(x)
  if math.abs(x[1]) == 1 and x[2] == 0 then return half_pi * x[1] end
  return dd.atan(x / dd.sqrt(1.0 - x * x))
end

function dd.acos(x)
  return half_pi - dd.asin(x)
end

-- Below 0.3 the difference of exponentials would cancel.
function dd.sinh(x)
  if math.abs(x[1]) < 0.3 then
    return x[1] == 0 and x or series(x, x * x, 1, 2)
  end
  return (dd.exp(x) - dd.exp(-x)) / 2.0
end

function dd.cosh(x)
  return (dd.exp(x) + dd.exp(-x)) / 2.0
end

function dd.tanh(x)
  if math.abs(x[1]) > 350 then return one * (x[1] > 0 and 1.0 or -1.0) end
  return dd.sinh(x) / dd.cosh(x)
end

function dd.abs(x)
  return x[1] < 0 and -x or x
end

function meta.__pow(a, b)
  local ah, al = parts(a)
  local bh, bl = parts(b)
  a = new(ah, al)
  if bl == 0 and bh % 1 == 0 and math.abs(bh) <= 1024 then
    local power = integer_power(a, math.abs(bh))
    return bh < 0 and 1.0 / power or power
  end
  if not (ah > 0) then return new(ah ^ bh, 0.0) end
  return dd.exp(dd.log(a) * b)
end

--- The number that a decimal text means, to 31 digits: 0.1 is not the double next to it.
-- @param text  as Lua writes a decimal number
function dd.number(text)
  local sign, whole, fraction, exponent = text:match("^([+-]?)(%d*)%.?(%d*)[eE]?([+-]?%d*)$")
  local value = zero
  for digit in (whole .. fraction):gmatch("%d") do
    value = value * 10.0 + tonumber(digit)
  end
  local scale = (tonumber(exponent) or 0) - #fraction
  local power = integer_power(new(10.0, 0.0), math.abs(scale))
  value = scale < 0 and value / power or value * power
  return sign == "-" and -value or value
end

--- A double as a double-double.
function dd.from(x)
  return new(x + 0.0, 0.0)
end

--- The nearest double.
function dd.tonumber(x)
  return x[1] + x[2]
end

function meta.__tostring(x)
  return string.format("%.17g%+.17g", x[1], x[2])
end

return dd
