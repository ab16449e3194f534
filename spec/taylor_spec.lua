local ad = require "autodiff"
local T = require "support.transforms"

local near, fails_with = T.near, T.fails_with

describe("derivative", function()
  it("is the first by default", function()
    near(math.cos(0.4), ad.derivative(ad.sin)(0.4))
    assert.equal("number", type(ad.derivative(ad.sin)(0.4)))
  end)

  it("is of any order", function()
    for n = 0, 12 do
      near(math.sin(0.4 + n * math.pi / 2), ad.derivative(ad.sin, n)(0.4))
      near(math.exp(0.4), ad.derivative(ad.exp, n)(0.4))
    end
    for n = 0, 8 do
      near(T.factorial(n) / (1 - 0.25) ^ (n + 1),
        ad.derivative(function(x) return 1 / (1 - x) end, n)(0.25))
    end
  end)

  it("of order 0 is f", function()
    near(9, ad.derivative(function(x) return x * x end, 0)(3))
  end)

  it("of a polynomial ends", function()
    local function f(x) return x ^ 3 - 2 * x + 5 end
    near({26, 25, 18, 6, 0, 0}, {
      ad.derivative(f, 0)(3), ad.derivative(f, 1)(3), ad.derivative(f, 2)(3),
      ad.derivative(f, 3)(3), ad.derivative(f, 4)(3), ad.derivative(f, 5)(3),
    })
  end)

  it("is 0 for a constant", function()
    local d = ad.derivative(function() return 5 end)(3)
    assert.equal(0, d)
    assert.equal("number", type(d))
    near(0, ad.derivative(function() return 5 end, 4)(3))
  end)

  it("composes with itself", function()
    near(ad.derivative(ad.tan, 3)(0.3), ad.derivative(ad.derivative(ad.derivative(ad.tan)))(0.3))
    near(ad.derivative(ad.tan, 5)(0.3), ad.derivative(ad.derivative(ad.tan, 3), 2)(0.3))
  end)

  it("agrees with differences of the order below", function()
    local function f(x) return ad.exp(ad.sin(x)) / (1 + x * x) end
    for n = 1, 6 do
      near(T.richardson(ad.derivative(f, n - 1), 0.4), ad.derivative(f, n)(0.4), 1e-6)
    end
  end)

  it("accepts callable tables", function()
    local f = setmetatable({k = 3}, {__call = function(self, x) return self.k * x * x end})
    near(6, ad.derivative(f, 2)(1))
  end)

  it("reports bad arguments", function()
    fails_with(function() ad.derivative(nil) end,
      "bad argument #1 to 'derivative' (function expected, got nil)")
    for _, n in ipairs{-1, 1.5, "x"} do
      fails_with(function()
        local d = ad.derivative(ad.sin, n)
        d(1)
      end, "bad argument #2 to 'derivative'")
    end
  end)
end)

-- Coefficients that the books give, at the point named.
local function from(n, c)
  local r = {}
  for k = 0, n do r[k + 1] = c(k) end
  return r
end

local function odd(k, v) return k % 2 == 1 and v or 0 end
local function alternate(k) return k // 2 % 2 == 0 and 1 or -1 end

local function binomial(a)
  return function(k)
    local r = 1
    for i = 1, k do r = r * (a - i + 1) / i end
    return r
  end
end

local fact = T.factorial
local ln2, ln10 = math.log(2), math.log(10)

-- tan, from t' = 1 + t^2
local function tangent(sign)
  local t = {[0] = 0}
  return function(k)
    for i = #t + 1, k do
      local s = i == 1 and 1 or 0
      for j = 0, i - 1 do s = s + sign * t[j] * t[i - 1 - j] end
      t[i] = s / i
    end
    return t[k]
  end
end

-- 1/2 (1 + tanh(x/2))
local function logistic()
  local t = tangent(-1)
  return function(k) return (k == 0 and 0.5 or 0) + 0.5 * t(k) / 2 ^ k end
end

local arcsine = function(k)
  if k % 2 == 0 then return 0 end
  local m = (k - 1) // 2
  return fact(2 * m) / (4 ^ m * fact(m) ^ 2 * k)
end

local series = {
  {"exp", ad.exp, 0, function(k) return 1 / fact(k) end},
  {"exp at 1", ad.exp, 1, function(k) return math.exp(1) / fact(k) end},
  {"exp2", ad.exp2, 0, function(k) return ln2 ^ k / fact(k) end},
  {"expm1", ad.expm1, 0, function(k) return k == 0 and 0 or 1 / fact(k) end},
  {"log at 1", ad.log, 1, function(k) return k == 0 and 0 or (-1) ^ (k + 1) / k end},
  {"log at 2", ad.log, 2, function(k) return k == 0 and ln2 or (-1) ^ (k + 1) / (k * 2 ^ k) end},
  {"log1p", ad.log1p, 0, function(k) return k == 0 and 0 or (-1) ^ (k + 1) / k end},
  {"log2", ad.log2, 1, function(k) return k == 0 and 0 or (-1) ^ (k + 1) / k / ln2 end},
  {"log10", ad.log10, 1, function(k) return k == 0 and 0 or (-1) ^ (k + 1) / k / ln10 end},
  {"log to a base", function(x) return ad.log(x, 3) end, 1,
    function(k) return k == 0 and 0 or (-1) ^ (k + 1) / k / math.log(3) end},
  {"sin", ad.sin, 0, function(k) return odd(k, alternate(k - 1) / fact(k)) end},
  {"cos", ad.cos, 0, function(k) return k % 2 == 0 and alternate(k) / fact(k) or 0 end},
  {"tan", ad.tan, 0, tangent(1)},
  {"asin", ad.asin, 0, arcsine},
  {"acos", ad.acos, 0, function(k) return (k == 0 and math.pi / 2 or 0) - arcsine(k) end},
  {"atan", ad.atan, 0, function(k) return odd(k, alternate(k - 1) / k) end},
  {"sinh", ad.sinh, 0, function(k) return odd(k, 1 / fact(k)) end},
  {"cosh", ad.cosh, 0, function(k) return k % 2 == 0 and 1 / fact(k) or 0 end},
  {"tanh", ad.tanh, 0, tangent(-1)},
  {"asinh", ad.asinh, 0, function(k) return arcsine(k) * odd(k, alternate(k - 1)) end},
  {"atanh", ad.atanh, 0, function(k) return odd(k, 1 / k) end},
  {"sigmoid", ad.sigmoid, 0, logistic()},
  {"softplus", ad.softplus, 0, function(k)
    return k == 0 and ln2 or logistic()(k - 1) / k
  end},
  {"erf", ad.erf, 0, function(k)
    local m = (k - 1) // 2
    return odd(k, 2 / math.sqrt(math.pi) * (-1) ^ m / (fact(m) * k))
  end},
  {"erfc", ad.erfc, 0, function(k)
    local m = (k - 1) // 2
    return (k == 0 and 1 or 0) - odd(k, 2 / math.sqrt(math.pi) * (-1) ^ m / (fact(m) * k))
  end},
  {"sqrt", ad.sqrt, 1, binomial(0.5)},
  {"sqrt at 4", ad.sqrt, 4, function(k) return 2 * binomial(0.5)(k) / 4 ^ k end},
  {"cbrt", ad.cbrt, 1, binomial(1 / 3)},
  {"power", function(x) return x ^ 2.5 end, 1, binomial(2.5)},
  {"negative power", function(x) return x ^ -2 end, 1, binomial(-2)},
  {"whole power at 0", function(x) return x ^ 3 end, 0, function(k) return k == 3 and 1 or 0 end},
  {"whole power below 0", function(x) return x ^ 2 end, -3,
    function(k) return ({9, -6, 1})[k + 1] or 0 end},
  {"exponential", function(x) return 2 ^ x end, 0, function(k) return ln2 ^ k / fact(k) end},
  {"quotient", function(x) return 1 / (1 - x) end, 0, function() return 1 end},
  {"product", function(x) return (1 + x) * (1 - x) * (2 + x) end, 0,
    function(k) return ({2, 1, -2, -1})[k + 1] or 0 end},
  {"deg", ad.deg, 0, function(k) return k == 1 and 180 / math.pi or 0 end},
  {"rad", ad.rad, 0, function(k) return k == 1 and math.pi / 180 or 0 end},
  {"abs below 0", ad.abs, -2, function(k) return ({2, -1})[k + 1] or 0 end},
  {"relu above 0", ad.relu, 2, function(k) return ({2, 1})[k + 1] or 0 end},
  {"relu below 0", ad.relu, -2, function() return 0 end},
  {"sign", ad.sign, -2, function(k) return k == 0 and -1 or 0 end},
  {"fmod", function(x) return ad.fmod(x, 3) end, 7, function(k) return ({1, 1})[k + 1] or 0 end},
  {"%", function(x) return x % 3 end, -7, function(k) return ({2, 1})[k + 1] or 0 end},
  {"//", function(x) return x // 3 end, 7, function(k) return k == 0 and 2 or 0 end},
  {"clamp inside", function(x) return ad.clamp(x, 0, 1) end, 0.5,
    function(k) return ({0.5, 1})[k + 1] or 0 end},
  {"clamp outside", function(x) return ad.clamp(x, 0, 1) end, 2,
    function(k) return k == 0 and 1 or 0 end},
  {"max", function(x) return ad.max(x * x, x) end, 2,
    function(k) return ({4, 4, 1})[k + 1] or 0 end},
  {"min", function(x) return ad.min(x * x, x) end, 2, function(k) return ({2, 1})[k + 1] or 0 end},
  {"where", function(x) return ad.where(ad.lt(x, 3), x * x, 1 / 0 * x) end, 2,
    function(k) return ({4, 4, 1})[k + 1] or 0 end},
}

-- Functions without simple coefficients: the series must sum to the function.
-- The last number is how far from the point to go.
local sums = {
  {"acosh", ad.acosh, 2.5, 0.3},
  {"asinh", ad.asinh, 1.2, 0.3},
  {"asin", ad.asin, 0.3, 0.15},
  {"acos", ad.acos, -0.4, 0.15},
  {"atan", ad.atan, 1.1, 0.3},
  {"atanh", ad.atanh, -0.3, 0.15},
  {"tan", ad.tan, 0.5, 0.2},
  {"tanh", ad.tanh, -0.7, 0.3},
  {"sigmoid", ad.sigmoid, 1.5, 0.5},
  {"softplus", ad.softplus, -1.5, 0.5},
  {"erf", ad.erf, 0.8, 0.4},
  {"erfc", ad.erfc, -0.6, 0.4},
  {"cbrt", ad.cbrt, -2, 0.4},
  {"log10", ad.log10, 3, 0.5},
  {"log2", ad.log2, 3, 0.5},
  {"log1p", ad.log1p, 1, 0.4},
  {"expm1", ad.expm1, -2, 0.5},
  {"exp2", ad.exp2, 1.5, 0.5},
  {"lgamma", ad.lgamma, 2.5, 0.4},
  {"digamma", ad.digamma, 2.5, 0.4},
  {"base", function(x) return ad.log(5, x) end, 3, 0.4},
  {"pow", function(x) return ad.pow(x, x) end, 2, 0.3},
  {"x^(x+1)", function(x) return x ^ (x + 1) end, 2, 0.3},
  {"atan2", function(x) return ad.atan2(x, x * x + 1) end, 0.5, 0.15},
  {"atan of two", function(x) return ad.atan(x, 2) end, 0.5, 0.3},
  {"hypot", function(x) return ad.hypot(x, 2 - x) end, 0.5, 0.15},
  {"modf", function(x)
    local _, r = ad.math.modf(x)
    return r * r
  end, 2.5, 0.3},
  {"list sum", function(x) return ad.sum{x, x * x, 3} end, 0.5, 0.3},
  {"list prod", function(x) return ad.prod{x, x + 1, ad.sin(x)} end, 0.5, 0.3},
  {"list mean", function(x) return ad.mean{x, x ^ 3} end, 0.5, 0.3},
  {"dot", function(x) return ad.dot({x, 2}, {x * x, x}) end, 0.5, 0.3},
  {"norm", function(x) return ad.norm{x, 2, x * x} end, 0.5, 0.15},
  {"logsumexp", function(x) return ad.logsumexp{x, 2 * x, 1} end, 0.5, 0.2},
  {"softmax", function(x) return ad.softmax{x, 2 * x, 1}[2] end, 0.5, 0.2},
  {"list max", function(x) return ad.max{x, x * x, 0.1} end, 0.5, 0.1},
  {"composition", function(x)
    return ad.exp(-x * x / 2) * ad.sin(3 * x + 1) / ad.sqrt(4 + x) - ad.log(2 + ad.cos(x))
  end, 0.3, 0.2},
  {"x over x", function(x) return (1 + x ^ 2) / (2 - x) / x end, 1, 0.2},
}

describe("taylor", function()
  it("is a list of n+1 coefficients", function()
    near({9, 6, 1, 0}, ad.taylor(function(x) return x * x end, 3, 3))
    local c = ad.taylor(ad.sin, 0.4, 5)
    assert.equal(6, #c)
    for k = 1, 6 do assert.equal("number", type(c[k])) end
  end)

  it("of order 0 is the value", function()
    near({9}, ad.taylor(function(x) return x * x end, 3, 0))
    near({5}, ad.taylor(function() return 5 end, 3, 0))
  end)

  it("of a constant has zeros", function()
    near({5, 0, 0, 0}, ad.taylor(function() return 5 end, 3, 3))
  end)

  it("of the identity", function()
    near({3, 1, 0, 0}, ad.taylor(function(x) return x end, 3, 3))
  end)

  it("calls f once", function()
    for _, n in ipairs{0, 1, 5, 20} do
      local calls = 0
      ad.taylor(function(x)
        calls = calls + 1
        return ad.sin(x) * x
      end, 0.4, n)
      assert.equal(1, calls)
    end
  end)

  for _, s in ipairs(series) do
    it("knows the series of " .. s[1], function()
      near(from(14, s[4]), ad.taylor(s[2], s[3], 14))
    end)
  end

  for _, s in ipairs(sums) do
    it("has a series that sums to " .. s[1], function()
      local f, x, r = s[2], s[3], s[4]
      local c = ad.taylor(f, x, 30)
      for i = -4, 4 do
        local h, v = r * i / 4, 0
        for k = #c, 1, -1 do v = v * h + c[k] end
        near(f(x + h), v, 1e-9)
      end
      for k = 0, 4 do near(ad.derivative(f, k)(x) / fact(k), c[k + 1]) end
    end)
  end

  it("has c_k = f^(k)/k! against nested transforms", function()
    local function f(x) return ad.exp(ad.sin(x)) * ad.log(2 + x) end
    local c = ad.taylor(f, 0.4, 4)
    local g = f
    for k = 0, 4 do
      near(g(0.4) / fact(k), c[k + 1])
      g = k % 2 == 0 and ad.grad(g) or T.forward(g)
    end
  end)

  it("follows the control flow of f", function()
    local function f(x)
      local r = 1
      for i = 1, 4 do
        if x > 0 then r = r * x else r = r + i end
      end
      while r > 100 do r = r / 2 end
      return r
    end
    near({16, 32, 24, 8, 1}, ad.taylor(f, 2, 4))
    near({11, 0, 0}, ad.taylor(f, -2, 2))
    -- 3^8 is halved seven times
    near({3 ^ 8 / 128, 8 * 3 ^ 7 / 128, 28 * 3 ^ 6 / 128}, ad.taylor(function(x)
      return f(x * x)
    end, 3, 2))
  end)

  it("solves by Newton's method inside f", function()
    -- sqrt(x) by iteration: the coefficients converge with the value
    local function root(x)
      local y = 1
      for _ = 1, 12 do y = (y + x / y) / 2 end
      return y
    end
    near(ad.taylor(ad.sqrt, 1.5, 8), ad.taylor(root, 1.5, 8))
  end)

  it("works to order 40", function()
    local c = ad.taylor(function(x) return ad.exp(ad.log(1 / (1 - x))) end, 0, 40)
    for k = 1, 41 do near(1, c[k], 1e-8) end
    c = ad.taylor(ad.sin, 0, 40)
    near(1, c[40] * fact(39) * -1)
    near(1, ad.taylor(ad.exp, 0, 40)[41] * fact(40))
    near(fact(40), ad.derivative(function(x) return x ^ 40 end, 40)(1), 1e-9)
  end)

  it("costs like n^2, not like 2^n", function()
    local function f(x) return ad.exp(ad.sin(x)) * ad.sqrt(1 + x * x) / (2 + ad.cos(x)) end
    local function bytes(n)
      ad.taylor(f, 0.4, n)
      collectgarbage()
      collectgarbage("stop")
      local before = collectgarbage("count")
      ad.taylor(f, 0.4, n)
      local after = collectgarbage("count")
      collectgarbage("restart")
      return (after - before) * 1024
    end
    local b10, b20, b40 = bytes(10), bytes(20), bytes(40)
    assert.is_true(b20 < 6 * b10 + 4096, b10 .. " then " .. b20)
    assert.is_true(b40 < 6 * b20 + 4096, b20 .. " then " .. b40)
    assert.is_true(b40 < 4e6, "bytes: " .. b40)
  end)

  it("works inside grad", function()
    -- d c_k / dx = (k+1) c_{k+1}
    local function f(x) return ad.exp(ad.sin(x)) / (1 + x * x) end
    local c = ad.taylor(f, 0.4, 6)
    for k = 0, 5 do
      local function ck(x) return ad.taylor(f, x, 5)[k + 1] end
      near((k + 1) * c[k + 2], ad.grad(ck)(0.4))
      near((k + 1) * c[k + 2], T.forward(ck)(0.4))
      near((k + 1) * c[k + 2], ad.derivative(ck)(0.4))
    end
    local function c1(x) return ad.taylor(f, x, 1)[2] end
    near(6 * c[4], ad.grad(ad.grad(c1))(0.4))
  end)

  it("works around grad and jvp", function()
    local function f(x) return ad.exp(ad.sin(x)) / (1 + x * x) end
    local c = ad.taylor(f, 0.4, 6)
    local want = {}
    for k = 0, 5 do want[k + 1] = (k + 1) * c[k + 2] end
    near(want, ad.taylor(ad.grad(f), 0.4, 5))
    near(want, ad.taylor(T.forward(f), 0.4, 5))
    near(want, ad.taylor(ad.derivative(f), 0.4, 5))
    near({2 * c[3], 6 * c[4], 12 * c[5]}, ad.taylor(ad.derivative(f, 2), 0.4, 2))
  end)

  it("works inside itself", function()
    -- mixed coefficients of exp(x y) about (0.5, 0.7)
    local e = math.exp(0.35)
    near({e, 0.7 * e, 0.49 / 2 * e}, ad.taylor(function(x)
      return ad.taylor(function(y) return ad.exp(x * y) end, 0.7, 2)[1]
    end, 0.5, 2))
    -- d/dy at 0.7 gives x exp(0.7 x)
    near({0.5 * e, (1 + 0.35) * e, (1.4 + 0.245) / 2 * e}, ad.taylor(function(x)
      return ad.taylor(function(y) return ad.exp(x * y) end, 0.7, 2)[2]
    end, 0.5, 2))
  end)

  it("differentiates what f closes over", function()
    -- c2 of exp(a x) at 0 is a^2/2
    near(3, ad.grad(function(a)
      return ad.taylor(function(x) return ad.exp(a * x) end, 0, 2)[3]
    end)(3))
    near({0, 0, 1 / 2 * 1}, ad.taylor(function(a)
      return ad.taylor(function(x) return ad.exp(a * x) end, 0, 2)[3]
    end, 0, 2))
  end)

  it("accepts callable tables and rejects the rest", function()
    local f = setmetatable({}, {__call = function(_, x) return x * x end})
    near({9, 6, 1}, ad.taylor(f, 3, 2))
    fails_with(function() ad.taylor(nil, 1, 2) end,
      "bad argument #1 to 'taylor' (function expected, got nil)")
    for _, n in ipairs{-1, 1.5, "x"} do
      fails_with(function() ad.taylor(ad.sin, 1, n) end, "bad argument #3 to 'taylor'")
    end
  end)
end)
