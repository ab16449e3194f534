--- Every elementary function: on numbers it is Lua's own, on AD values its derivatives are those
-- of the textbooks (Abramowitz & Stegun, chapters 4, 6 and 7, for the closed forms used here).

local ad = require "autodiff"
local util = require "support.util"

local close, rel, same, exact = util.close, util.rel, util.same, util.exact
local inf <const>, nan <const>, pi <const> = util.inf, util.nan, math.pi
local exp, log, sqrt, sin, cos = math.exp, math.log, math.sqrt, math.sin, math.cos

-- Plain references --------------------------------------------------------------------------------

local function sinh(x) return (exp(x) - exp(-x)) / 2 end
local function cosh(x) return (exp(x) + exp(-x)) / 2 end
local function sigmoid(x) return 1 / (1 + exp(-x)) end
local function cube_root(x) return x < 0 and -(-x) ^ (1 / 3) or x ^ (1 / 3) end

local zeta3 <const> = 1.2020569031595942
local gamma <const> = 0.57721566490153286 -- Euler's constant
local half_pi2 <const> = pi * pi / 2

-- lgamma, digamma, trigamma, tetragamma at a few points (recurrences from the values at 1 and
-- 1/2).
local gammas = {
  [0.5] = {log(pi) / 2, -gamma - 2 * log(2), half_pi2, -14 * zeta3},
  [1.0] = {0, -gamma, pi * pi / 6, -2 * zeta3},
  [2.0] = {0, 1 - gamma, pi * pi / 6 - 1, 2 - 2 * zeta3},
  [-0.5] = {log(2 * sqrt(pi)), 2 - gamma - 2 * log(2), half_pi2 + 4, 16 - 14 * zeta3},
  [2.5] = {0.28468287047291916, 0.703156640645243187, 0.490357756100234865, -0.236204051641727403},
  [10.0] = {12.8018274800814696, 2.25175258906672111, 0.105166335681685746, -0.0110498349708020675},
}
local function polygamma(k) return function(x) return gammas[x][k] end end

local erf_values = {
  [-1.2] = -0.910313978229635368, [0.3] = 0.328626759459127416, [0.5] = 0.520499877813046538,
  [1.0] = 0.842700792949714869, [2.0] = 0.995322265018952734, [0.0] = 0.0,
}
local function erf_slope(x) return 2 / sqrt(pi) * exp(-x * x) end

-- name -> {points, value, first derivative, second derivative}; value nil means that of `math`.
local unary = {
  abs = {{-2.0, 3.5}, nil, function(x) return x < 0 and -1 or 1 end, function() return 0 end},
  acos = {{-0.7, 0.1, 0.9}, nil, function(x) return -1 / sqrt(1 - x * x) end,
    function(x) return -x / (1 - x * x) ^ 1.5 end},
  asin = {{-0.7, 0.1, 0.9}, nil, function(x) return 1 / sqrt(1 - x * x) end,
    function(x) return x / (1 - x * x) ^ 1.5 end},
  atan = {{-2.0, 0.0, 0.5, 30.0}, nil, function(x) return 1 / (1 + x * x) end,
    function(x) return -2 * x / (1 + x * x) ^ 2 end},
  cos = {{-2.0, 0.0, 0.5, 3.0}, nil, function(x) return -sin(x) end,
    function(x) return -cos(x) end},
  sin = {{-2.0, 0.0, 0.5, 3.0}, nil, cos, function(x) return -sin(x) end},
  tan = {{-1.0, 0.0, 0.5, 1.2}, nil, function(x) return 1 / cos(x) ^ 2 end,
    function(x) return 2 * math.tan(x) / cos(x) ^ 2 end},
  deg = {{-2.0, 0.0, 1.5}, nil, function() return 180 / pi end, function() return 0 end},
  rad = {{-20.0, 0.0, 90.0}, nil, function() return pi / 180 end, function() return 0 end},
  exp = {{-2.0, 0.0, 1.5}, nil, exp, exp},
  log = {{0.25, 1.0, 7.5}, nil, function(x) return 1 / x end, function(x) return -1 / (x * x) end},
  sqrt = {{0.25, 2.0, 9.0}, nil, function(x) return 0.5 / sqrt(x) end,
    function(x) return -0.25 / x ^ 1.5 end},
  sinh = {{-1.5, 0.0, 0.5}, sinh, cosh, sinh},
  cosh = {{-1.5, 0.0, 0.5}, cosh, sinh, cosh},
  tanh = {{-1.5, 0.0, 0.5}, function(x) return sinh(x) / cosh(x) end,
    function(x) return 1 / cosh(x) ^ 2 end, function(x) return -2 * sinh(x) / cosh(x) ^ 3 end},
  asinh = {{-1.5, 0.0, 0.5}, function(x) return log(x + sqrt(x * x + 1)) end,
    function(x) return 1 / sqrt(x * x + 1) end, function(x) return -x / (x * x + 1) ^ 1.5 end},
  acosh = {{1.5, 4.0}, function(x) return log(x + sqrt(x * x - 1)) end,
    function(x) return 1 / sqrt(x * x - 1) end, function(x) return -x / (x * x - 1) ^ 1.5 end},
  atanh = {{-0.5, 0.0, 0.9}, function(x) return log((1 + x) / (1 - x)) / 2 end,
    function(x) return 1 / (1 - x * x) end, function(x) return 2 * x / (1 - x * x) ^ 2 end},
  exp2 = {{-2.0, 0.0, 1.5}, function(x) return 2 ^ x end, function(x) return log(2) * 2 ^ x end,
    function(x) return log(2) ^ 2 * 2 ^ x end},
  expm1 = {{-2.0, 0.0, 1.5}, function(x) return exp(x) - 1 end, exp, exp},
  log1p = {{-0.5, 0.0, 3.0}, function(x) return log(1 + x) end, function(x) return 1 / (1 + x) end,
    function(x) return -1 / (1 + x) ^ 2 end},
  log2 = {{0.25, 1.0, 7.5}, function(x) return log(x, 2) end,
    function(x) return 1 / (x * log(2)) end, function(x) return -1 / (x * x * log(2)) end},
  log10 = {{0.25, 1.0, 7.5}, function(x) return log(x, 10) end,
    function(x) return 1 / (x * log(10)) end, function(x) return -1 / (x * x * log(10)) end},
  cbrt = {{-27.0, -0.2, 0.5, 8.0}, cube_root, function(x) return 1 / (3 * cube_root(x) ^ 2) end,
    function(x) return -2 / (9 * cube_root(x) ^ 5) end},
  erf = {{-1.2, 0.0, 0.3, 0.5, 1.0, 2.0}, function(x) return erf_values[x] end, erf_slope,
    function(x) return -2 * x * erf_slope(x) end},
  erfc = {{-1.2, 0.0, 0.3, 0.5, 1.0, 2.0}, function(x) return 1 - erf_values[x] end,
    function(x) return -erf_slope(x) end, function(x) return 2 * x * erf_slope(x) end},
  lgamma = {{-0.5, 0.5, 1.0, 2.0, 2.5, 10.0}, polygamma(1), polygamma(2), polygamma(3)},
  digamma = {{-0.5, 0.5, 1.0, 2.0, 2.5, 10.0}, polygamma(2), polygamma(3), polygamma(4)},
  sigmoid = {{-3.0, 0.0, 1.25}, sigmoid, function(x) return sigmoid(x) * sigmoid(-x) end,
    function(x) return sigmoid(x) * sigmoid(-x) * (1 - 2 * sigmoid(x)) end},
  softplus = {{-3.0, 0.0, 1.25}, function(x) return log(1 + exp(x)) end, sigmoid,
    function(x) return sigmoid(x) * sigmoid(-x) end},
  relu = {{-3.0, 1.25}, function(x) return x > 0 and x or 0 end,
    function(x) return x > 0 and 1 or 0 end, function() return 0 end},
  sign = {{-3.0, 1.25}, function(x) return x > 0 and 1 or -1 end, function() return 0 end,
    function() return 0 end},
}

local tolerances = {lgamma = 2e-11, digamma = 2e-11, erf = 5e-12, erfc = 5e-12}

describe("unary function", function()
  for name, case in pairs(unary) do
    local points, value, slope, bend = table.unpack(case, 1, 4)
    value = value or math[name]
    local tol = tolerances[name] or 1e-12

    it(name .. " gives a plain number for a plain number", function()
      for _, x in ipairs(points) do close(ad[name](x), value(x), tol, name .. " at " .. x) end
      -- An integer argument is the same number.
      local n = name == "atanh" and 0 or name == "acosh" and 2 or 1
      exact(ad[name](n), ad[name](n + 0.0), name)
    end)

    it(name .. " gives an AD value of the same kind", function()
      for _, x in ipairs(points) do
        local d, v = ad[name](ad.dual(x, 1)), ad[name](ad.var(x))
        exact(ad.value(d), ad[name](x + 0.0), name)
        exact(ad.value(v), ad[name](x + 0.0), name)
      end
    end)

    it(name .. " has its closed-form derivative", function()
      for _, x in ipairs(points) do util.check_first(name, ad[name], x, value(x), slope(x), tol) end
    end)

    it(name .. " has its closed-form second derivative", function()
      for _, x in ipairs(points) do util.check_second(name, ad[name], x, bend(x), 10 * tol) end
    end)

    it(name .. " agrees with Richardson differences between the points", function()
      local lo, hi = points[1], points[#points]
      if name == "lgamma" or name == "digamma" then lo = 0.5 end
      if name == "abs" or name == "relu" or name == "sign" then lo, hi = 1.0, 3.0 end
      if name == "cbrt" then lo = 0.5 end
      for _, t in ipairs {0.21, 0.5, 0.83} do
        local x = lo + t * (hi - lo)
        local h = 0.02 * math.min(1, math.abs(hi - lo))
        util.check_first(name, ad[name], x, ad[name](x), util.richardson(ad[name], x, h), 1e-7)
      end
    end)

    it(name .. " follows the chain rule", function()
      for _, x in ipairs(points) do
        -- u(t) = x + 3t + t^2 at t = 0: f(u)' = 3 f', f(u)'' = 9 f'' + 2 f'
        local function composed(t) return ad[name](x + 3 * t + t * t) end
        util.check_first(name .. " composed", composed, 0, value(x), 3 * slope(x), tol)
        util.check_second(name .. " composed", composed, 0, 9 * bend(x) + 2 * slope(x), 20 * tol)
      end
    end)

    it(name .. " has a third and fourth derivative on which the modes agree", function()
      local x = points[#points]
      local c = ad.taylor(ad[name], x, 4)
      local function down(f) return function(u) return (select(2, ad.jvp(f, {u}, {1}))) end end
      local function back(f) return function(u) return (ad.grad(f)(u)) end end
      local third = back(down(back(ad[name])))(x)
      close(6 * c[4], third, 1e-8, name)
      close(down(down(down(ad[name])))(x), third, 1e-8, name)
      close(back(back(back(ad[name])))(x), third, 1e-8, name)
      close(24 * c[5], down(back(down(back(ad[name]))))(x), 1e-7, name)
    end)

    it(name .. " refuses what is no number in Lua's words", function()
      local f = load("local ad, x = ... local y = ad." .. name .. "(x) return y")
      local wrong = {{{}, "table"}, {"x", "string"}, {true, "boolean"}, {print, "function"}}
      for _, bad in ipairs(wrong) do
        util.fails(("bad argument #1 to '%s' (number expected, got %s)"):format(name, bad[2]),
          f, ad, bad[1])
      end
      local none = load("local ad = ... local y = ad." .. name .. "() return y")
      util.fails(("bad argument #1 to '%s' (number expected, got no value)"):format(name), none, ad)
    end)
  end

  it("values are accurate where the textbook form cancels", function()
    rel(ad.expm1(1e-12), 1e-12 + 5e-25, 1e-15)
    rel(ad.log1p(1e-12), 1e-12 - 5e-25, 1e-15)
    rel(ad.sinh(1e-9), 1e-9, 1e-15)
    rel(ad.tanh(1e-9), 1e-9, 1e-15)
    rel(ad.asinh(-1e-9), -1e-9, 1e-15)
    rel(ad.atanh(1e-9), 1e-9, 1e-15)
    rel(ad.erfc(10), 2.08848758376254476e-45, 1e-12)
    rel(ad.erf(1e-10), 2e-10 / sqrt(pi), 1e-14)
    rel(ad.softplus(-40), exp(-40), 1e-13)
    rel(ad.sigmoid(-40), exp(-40), 1e-13)
    rel(ad.cbrt(27), 3, 4e-16)
    rel(ad.cbrt(-8), -2, 4e-16)
    exact(ad.log2(8), 3)
    exact(ad.log10(1000), 3)
    exact(ad.exp2(10), 1024)
  end)

  it("sign gives -1, 0, 1", function()
    for _, x in ipairs {-3, -0.5, 0, 2, inf} do
      exact(ad.sign(x), x < 0 and -1 or x > 0 and 1 or 0)
      exact(ad.value(ad.sign(ad.var(x))), x < 0 and -1 or x > 0 and 1 or 0)
    end
  end)
end)

describe("digamma", function()
  it("satisfies its recurrence and reflection formulas, and is the slope of lgamma", function()
    for _, x in ipairs {0.1, 0.7, 1.3, 4.5, 20.25} do
      close(ad.digamma(x + 1), ad.digamma(x) + 1 / x, 1e-11)
      close(ad.grad(ad.lgamma)(x), ad.digamma(x), 1e-11)
    end
    for _, x in ipairs {0.1, 0.3, 0.7} do
      close(ad.digamma(1 - x) - ad.digamma(x), pi / math.tan(pi * x), 1e-10)
    end
  end)
end)

-- Functions of two numbers ------------------------------------------------------------------------

-- name -> {f, value of plain floats, derivatives by x and y, list of points}
local function quot(x, y) return x / y end
local binary = {
  pow = {ad.pow, function(x, y) return x ^ y end,
    function(x, y) return y * x ^ (y - 1) end, function(x, y) return log(x) * x ^ y end,
    {{2.5, 1.5}, {0.5, -2.0}, {3.0, 2.0}}},
  atan2 = {ad.atan2, math.atan, function(y, x) return x / (x * x + y * y) end,
    function(y, x) return -y / (x * x + y * y) end,
    {{1.0, 2.0}, {-1.0, 2.0}, {1.5, -0.5}, {-1.5, -0.5}, {0.0, 2.0}, {2.0, 0.0}}},
  atan = {ad.atan, math.atan, function(y, x) return x / (x * x + y * y) end,
    function(y, x) return -y / (x * x + y * y) end,
    {{1.0, 2.0}, {-1.0, 2.0}, {1.5, -0.5}, {-1.5, -0.5}, {0.0, 2.0}, {2.0, 0.0}}},
  hypot = {ad.hypot, function(x, y) return sqrt(x * x + y * y) end,
    function(x, y) return x / sqrt(x * x + y * y) end,
    function(x, y) return y / sqrt(x * x + y * y) end, {{3.0, 4.0}, {-0.5, 1.5}, {0.0, 2.0}}},
  fmod = {ad.fmod, math.fmod, function() return 1 end,
    function(x, y)
      local q = quot(x, y)
      return -(q < 0 and math.ceil(q) or math.floor(q))
    end, {{7.5, 2.0}, {-7.5, 2.0}, {7.5, -2.0}, {-7.5, -2.0}, {1.0, 3.0}}},
  log = {ad.log, math.log, function(x, b) return 1 / (x * log(b)) end,
    function(x, b) return -log(x) / (b * log(b) ^ 2) end,
    {{7.5, 3.0}, {0.5, 2.0}, {5.0, 10.0}, {2.0, 0.5}}},
}

describe("binary function", function()
  for name, case in pairs(binary) do
    local f, value, by_x, by_y, points = table.unpack(case)

    it(name .. " takes numbers and AD values in any mix", function()
      for _, p in ipairs(points) do
        local x, y = p[1], p[2]
        local expected = value(x, y)
        close(f(x, y), expected, 1e-15, name)
        for _, make in ipairs {ad.var, function(v) return ad.dual(v, 1) end} do
          close(ad.value(f(make(x), y)), expected, 1e-14, name)
          close(ad.value(f(x, make(y))), expected, 1e-14, name)
          close(ad.value(f(make(x), make(y))), expected, 1e-14, name)
        end
        close(ad.value(f(ad.var(x), ad.dual(y, 1))), expected, 1e-14, name)
      end
    end)

    it(name .. " has its closed-form derivatives", function()
      for _, p in ipairs(points) do
        util.check_partials(name, f, p, {by_x(p[1], p[2]), by_y(p[1], p[2])})
      end
    end)

    it(name .. " has second derivatives that are those of the closed forms", function()
      for _, p in ipairs(points) do
        local xx = util.richardson_partial(by_x, p, 1, 0.05)
        local xy = util.richardson_partial(by_x, p, 2, 0.05)
        local yy = util.richardson_partial(by_y, p, 2, 0.05)
        util.check_mixed(name, f, p, {{xx, xy}, {xy, yy}}, 1e-7)
      end
    end)

    it(name .. " refuses what is no number in Lua's words", function()
      local first = load("local ad, x, y = ... local z = ad." .. name .. "(x, y) return z")
      util.fails(("bad argument #1 to '%s' (number expected, got table)"):format(name),
        first, ad, {}, 2)
      util.fails(("bad argument #2 to '%s' (number expected, got table)"):format(name),
        first, ad, 2, {})
      util.fails(("bad argument #2 to '%s' (number expected, got table)"):format(name),
        first, ad, ad.var(2), {})
      if name ~= "log" and name ~= "atan" then
        local short = load("local ad, x = ... local z = ad." .. name .. "(x) return z")
        util.fails(("bad argument #2 to '%s' (number expected, got no value)"):format(name),
          short, ad, 2)
      end
    end)
  end

  it("hypot neither overflows nor underflows", function()
    rel(ad.hypot(3e200, 4e200), 5e200, 1e-14)
    rel(ad.hypot(3e-200, 4e-200), 5e-200, 1e-14)
    util.check_partials("hypot", ad.hypot, {3e200, 4e200}, {0.6, 0.8}, 1e-14)
  end)

  it("pow is the operator", function()
    for _, p in ipairs {{2, 3}, {2.5, -1}, {-2, 3}, {0, 0}, {4, 0.5}} do
      same(ad.pow(p[1], p[2]), p[1] ^ p[2])
    end
  end)

  it("log to the bases 2 and 10 is as exact as Lua's", function()
    exact(ad.value(ad.log(ad.var(8), 2)), 3)
    exact(ad.value(ad.log(ad.dual(1000, 1), 10)), 3)
  end)
end)

-- Functions that look at order --------------------------------------------------------------------

describe("max and min", function()
  it("of numbers are Lua's", function()
    for _, args in ipairs {{1, 2}, {2.5, 1}, {3}, {1, 2.5, -7, 2}, {-0.5, -1}, {inf, 1}, {7, 7}} do
      same(ad.max(table.unpack(args)), math.max(table.unpack(args)))
      same(ad.min(table.unpack(args)), math.min(table.unpack(args)))
    end
    assert.equal("integer", math.type(ad.max(1, 2)))
    assert.equal("integer", math.type(ad.min(1, 2)))
  end)

  it("of AD values select, with derivative 1 for the selected", function()
    util.check_partials("max", ad.max, {1.0, 3.0, 2.0}, {0, 1, 0})
    util.check_partials("min", ad.min, {1.0, 3.0, 2.0}, {1, 0, 0})
    util.check_partials("max", ad.max, {1.0}, {1})
    util.check_partials("min", ad.min, {2.0, -1.0}, {0, 1})
    util.check_first("max(x^2, 3)", function(x) return ad.max(x * x, 3) end, 2, 4, 4)
    util.check_first("max(x^2, 5)", function(x) return ad.max(x * x, 5) end, 2, 5, 0)
    util.check_first("min(3, x^2)", function(x) return ad.min(3, x * x) end, 1, 1, 2)
    util.check_second("max(3, x^2)", function(x) return ad.max(3, x * x) end, 2, 2)
  end)

  it("over a list, numbers and AD values mixed", function()
    exact(ad.max {3, 1, 4, 1}, 4)
    exact(ad.min {3, 1, 4, 1}, 1)
    exact(ad.max {7}, 7)
    util.check_first("max list", function(x) return ad.max {1, x * x, 2, x} end, 2, 4, 4)
    util.check_first("min list", function(x) return ad.min {1, x * x, -x} end, 2, -2, -1)
    util.check_first("max list of one", function(x) return ad.max {x * x} end, 2, 4, 4)
    util.check_first("max list, constant", function(x) return ad.max {1, 9, x} end, 2, 9, 0)
  end)

  it("refuse nothing", function()
    util.fails("bad argument #1 to 'max'", function()
      local m = ad.max()
      return m
    end)
    util.fails("bad argument #1 to 'min'", function()
      local m = ad.min()
      return m
    end)
    assert.is_false(pcall(ad.max, {}))
    assert.is_false(pcall(ad.min, {}))
    assert.is_false(pcall(ad.max, ad.var(1), "x"))
    assert.is_false(pcall(ad.min, {1, "x"}))
  end)
end)

describe("clamp", function()
  it("clamps numbers", function()
    exact(ad.clamp(5, 1, 3), 3)
    exact(ad.clamp(-5, 1, 3), 1)
    exact(ad.clamp(2.5, 1, 3), 2.5)
    exact(ad.clamp(7, -inf, inf), 7)
  end)

  it("has derivative 1 inside and 0 outside, where the bound's is 1", function()
    util.check_partials("clamp", ad.clamp, {2.0, 1.0, 3.0}, {1, 0, 0})
    util.check_partials("clamp", ad.clamp, {0.5, 1.0, 3.0}, {0, 1, 0})
    util.check_partials("clamp", ad.clamp, {3.5, 1.0, 3.0}, {0, 0, 1})
    util.check_second("clamp", function(x) return ad.clamp(x * x, 0, 9) end, 2, 2)
    util.check_second("clamp", function(x) return ad.clamp(x * x, 0, 3) end, 2, 0)
  end)

  it("needs all three", function()
    util.fails("bad argument #2 to 'clamp' (number expected, got no value)", function()
      local c = ad.clamp(1)
      return c
    end)
    util.fails("bad argument #3 to 'clamp' (number expected, got no value)", function()
      local c = ad.clamp(ad.var(1), 0)
      return c
    end)
  end)
end)

describe("eq, lt, le", function()
  it("give booleans", function()
    local function same_number(v) return v end
    for _, make in ipairs {same_number, ad.var, function(v) return ad.dual(v, 1) end} do
      for _, p in ipairs {{1, 2}, {2, 1}, {2, 2}, {nan, 1}, {-0.0, 0.0}} do
        local a, b = p[1], p[2]
        for _, args in ipairs {{make(a), make(b)}, {make(a), b}, {a, make(b)}} do
          assert.equal(a == b, ad.eq(args[1], args[2]))
          assert.equal(a < b, ad.lt(args[1], args[2]))
          assert.equal(a <= b, ad.le(args[1], args[2]))
        end
      end
    end
  end)

  it("refuse what is no number", function()
    for _, name in ipairs {"eq", "lt", "le"} do
      assert.is_false(pcall(ad[name], {}, 1), name)
      assert.is_false(pcall(ad[name], ad.var(1)), name)
    end
  end)
end)

describe("where", function()
  it("takes a boolean, or a number of which 0 is false", function()
    same(ad.where(true, 1, 2), 1)
    same(ad.where(false, 1, 2), 2)
    same(ad.where(1, 1, 2), 1)
    same(ad.where(0, 1, 2), 2)
    same(ad.where(0.0, 1, 2), 2)
    same(ad.where(-0.5, 1, 2), 1)
    exact(ad.where(ad.lt(1, 2), 10, 20), 10)
    for _, make in ipairs {ad.var, function(v) return ad.dual(v, 1) end} do
      exact(ad.value(ad.where(make(0), 1, 2)), 2)
      exact(ad.value(ad.where(make(-3), 1, 2)), 1)
    end
  end)

  it("takes the comparisons of AD values", function()
    local function leaky(x) return ad.where(x > 0, x, 0.1 * x) end
    util.check_first("leaky", leaky, 3, 3, 1)
    util.check_first("leaky", leaky, -3, -0.3, 0.1)
    local function other(x) return ad.where(ad.le(x, 0), 0.1 * x, x) end
    util.check_first("leaky", other, 3, 3, 1)
    util.check_first("leaky", other, -3, -0.3, 0.1)
  end)

  it("selects among numbers and AD values in any mix", function()
    local function first(a, b) return ad.where(true, a, b) end
    local function second(a, b) return ad.where(false, a, b) end
    util.check_partials("where", first, {2.0, 3.0}, {1, 0})
    util.check_partials("where", second, {2.0, 3.0}, {0, 1})
    util.check_first("where", function(x) return ad.where(true, x * x, 1) end, 3, 9, 6)
    util.check_first("where", function(x) return ad.where(false, x * x, 1) end, 3, 1, 0)
    util.check_second("where", function(x) return ad.where(1, x * x, x) end, 3, 2)
  end)

  it("needs a condition", function()
    util.fails("bad argument #1 to 'where'", function()
      local w = ad.where({}, 1, 2)
      return w
    end)
    util.fails("bad argument #1 to 'where'", function()
      local w = ad.where("x", 1, 2)
      return w
    end)
    assert.is_false(pcall(ad.where, true, 1))
  end)
end)

describe("floor and ceil", function()
  it("of an AD value give a plain integer", function()
    for _, make in ipairs {ad.var, function(v) return ad.dual(v, 1) end} do
      for _, x in ipairs {2.5, -2.5, 3.0, -0.0, 1e15, 0.999} do
        same(ad.floor(make(x)), math.floor(x))
        same(ad.ceil(make(x)), math.ceil(x))
        same(ad.math.floor(make(x)), math.floor(x))
      end
      for _, x in ipairs {1e300, inf, -inf} do
        exact(ad.floor(make(x)), math.floor(x))
        exact(ad.ceil(make(x)), math.ceil(x))
      end
    end
  end)

  it("give what indexes tables and bounds loops, below every level", function()
    local steps = 0
    local function f(x)
      local list = {10, 20, 30}
      for _ = 1, ad.floor(x) do steps = steps + 1 end
      return x * list[ad.ceil(x)]
    end
    close(ad.grad(function(x) return (ad.grad(f)(x)) * x end)(2.5), 30)
    assert.equal(2, steps)
  end)

  it("leave x // 1 differentiable, with derivative 0", function()
    assert.equal("var", ad.type(ad.var(2.5) // 1))
    util.check_first("x // 1", function(x) return x // 1 end, 2.5, 2, 0)
    util.check_first("x - x // 1", function(x) return x - x // 1 end, 2.5, 0.5, 1)
  end)
end)

describe("modf", function()
  it("splits numbers as Lua does", function()
    for _, x in ipairs {3, -3, 3.75, -3.75, 0.0, -0.5, inf, -inf, 1e300} do
      local i1, f1 = ad.modf(x)
      local i2, f2 = math.modf(x)
      same(i1, i2)
      same(f1, f2)
    end
  end)

  it("of an AD value has a fraction with derivative 1 and an integral part with 0", function()
    for _, x in ipairs {3.75, -3.75} do
      local whole, part = math.modf(x)
      util.check_first("fraction", function(v) return (select(2, ad.modf(v))) end, x, part, 1)
      util.check_first("integral part", function(v) return (ad.modf(v)) + 0 * v end, x, whole, 0)
    end
  end)
end)

-- Functions of a list -----------------------------------------------------------------------------

local function softmax_at(i) return function(...) return ad.softmax({...})[i] end end

-- name -> {f of numbers, value, gradient} with value and gradient functions of a plain list
local function norm(l)
  local s = 0
  for _, v in ipairs(l) do s = s + v * v end
  return sqrt(s)
end
local function weights(l)
  local s, w = 0, {}
  for i, v in ipairs(l) do
    w[i] = exp(v)
    s = s + w[i]
  end
  for i = 1, #l do w[i] = w[i] / s end
  return w, s
end
local function each(l, f)
  local r = {}
  for i, v in ipairs(l) do r[i] = f(v, i) end
  return r
end
local function total(l)
  local s = 0
  for _, v in ipairs(l) do s = s + v end
  return s
end
local function product_but(l, skip)
  local p = 1
  for i, v in ipairs(l) do if i ~= skip then p = p * v end end
  return p
end

local lists = {
  sum = {total, function(l) return each(l, function() return 1 end) end},
  prod = {product_but, function(l) return each(l, function(_, i) return product_but(l, i) end) end},
  mean = {function(l) return total(l) / #l end,
    function(l) return each(l, function() return 1 / #l end) end},
  norm = {norm, function(l) return each(l, function(v) return v / norm(l) end) end},
  logsumexp = {function(l) return log(select(2, weights(l))) end,
    function(l) return (weights(l)) end},
  max = {function(l) return math.max(table.unpack(l)) end, function(l)
    local m = math.max(table.unpack(l))
    return each(l, function(v) return v == m and 1 or 0 end)
  end},
  min = {function(l) return math.min(table.unpack(l)) end, function(l)
    local m = math.min(table.unpack(l))
    return each(l, function(v) return v == m and 1 or 0 end)
  end},
}

describe("list function", function()
  local samples = {{2.0}, {-1.5}, {1.0, 2.0}, {3.0, -1.0, 0.5}, {0.25, 1.5, -2.0, 4.0, 0.75}}

  for name, case in pairs(lists) do
    local value, gradient = case[1], case[2]
    local function f(...) return ad[name] {...} end

    it(name .. " of numbers is a plain number", function()
      for _, l in ipairs(samples) do close(ad[name](l), value(l), 1e-14, name) end
      close(ad[name] {3, 1, 2}, value {3, 1, 2}, 1e-14, name)
    end)

    it(name .. " has its closed-form gradient", function()
      for _, l in ipairs(samples) do util.check_partials(name, f, l, gradient(l)) end
    end)

    it(name .. " has the second derivatives of its closed-form gradient", function()
      local l = samples[4]
      local h = {}
      for i = 1, #l do
        h[i] = {}
        for j = 1, #l do
          h[i][j] = util.richardson_partial(function(...) return gradient({...})[i] end, l, j, 0.05)
        end
      end
      util.check_mixed(name, f, l, h, 1e-7)
    end)

    it(name .. " mixes numbers, duals and vars", function()
      close(ad.value(ad[name] {3, ad.var(1), 2, ad.dual(0.5, 1)}), value {3, 1, 2, 0.5}, 1e-14)
      util.check_first(name, function(x) return ad[name] {3, x, 2, 2 * x} end, 0.5,
        value {3, 0.5, 2, 1}, gradient({3, 0.5, 2, 1})[2] + 2 * gradient({3, 0.5, 2, 1})[4])
      util.check_first(name .. " of the same value twice", function(x)
        local y = x * x
        return ad[name] {y, 7, -4, y + 1}
      end, 0.5, value {0.25, 7, -4, 1.25},
      gradient({0.25, 7, -4, 1.25})[1] + gradient({0.25, 7, -4, 1.25})[4])
    end)

    it(name .. " takes lists longer than a C stack is wide", function()
      local n = 5000
      local l = {}
      for i = 1, n do l[i] = 1 + (i % 17) / 1e6 end
      local g = ad.grad(function(v) return ad[name](v) end)(l)
      assert.equal(n, #g)
      local expected = gradient
      if name == "prod" then
        local p = product_but(l)
        expected = function() return each(l, function(v) return p / v end) end
      elseif name == "norm" then
        local length = norm(l)
        expected = function() return each(l, function(v) return v / length end) end
      elseif name == "max" or name == "min" then
        return close(total(g), 1, 1e-9) -- ties are a matter for another file
      end
      util.close_all(g, expected(l), 1e-10, name)
    end)

    it(name .. " wants a list of numbers", function()
      local run = load("local ad, x = ... local y = ad." .. name .. "(x) return y")
      if name ~= "max" and name ~= "min" then
        util.fails(("bad argument #1 to '%s'"):format(name), run, ad, 3)
      end
      util.fails(("bad argument #1 to '%s'"):format(name), run, ad, "x")
      util.fails(("bad argument #1 to '%s'"):format(name), run, ad, nil)
      assert.is_false(pcall(ad[name], {1, "x"}))
      assert.is_false(pcall(ad[name], {ad.var(1), {}}))
    end)
  end

  it("sum, prod, dot, norm, logsumexp and softmax of nothing are their neutral elements", function()
    exact(ad.sum {}, 0)
    exact(ad.prod {}, 1)
    exact(ad.dot({}, {}), 0)
    exact(ad.norm {}, 0)
    exact(ad.logsumexp {}, -inf)
    assert.same({}, ad.softmax {})
  end)
end)

describe("dot", function()
  it("of numbers is a plain number", function()
    exact(ad.dot({1, 2, 3}, {4, 5, 6}), 32)
    exact(ad.dot({2}, {-3}), -6)
  end)

  it("has each list as the gradient by the other", function()
    util.check_partials("dot", function(a, b, c, d) return ad.dot({a, b}, {c, d}) end,
      {1.0, 2.0, 3.0, -4.0}, {3, -4, 1, 2})
    util.check_mixed("dot", function(a, b, c, d) return ad.dot({a, b}, {c, d}) end,
      {1.0, 2.0, 3.0, -4.0}, {{0, 0, 1, 0}, {0, 0, 0, 1}, {1, 0, 0, 0}, {0, 1, 0, 0}})
  end)

  it("mixes numbers and AD values", function()
    util.check_first("dot", function(x) return ad.dot({x, 2, x}, {3, x, x}) end, 4, 36, 13)
    util.check_first("x.x", function(x)
      local l = {x, 2 * x}
      return ad.dot(l, l)
    end, 3, 45, 30)
    close(ad.value(ad.dot({ad.var(2), 1}, {3, ad.dual(4, 1)})), 10)
  end)

  it("wants two lists of one length", function()
    util.fails("bad argument #1 to 'dot'", function()
      local d = ad.dot(1, {1})
      return d
    end)
    util.fails("bad argument #2 to 'dot'", function()
      local d = ad.dot {1}
      return d
    end)
    assert.is_false(pcall(ad.dot, {1, 2}, {1}))
  end)
end)

describe("softmax", function()
  it("of numbers is a new list of plain numbers that sums to 1", function()
    local l = {1, 2.5, -1}
    local s = ad.softmax(l)
    util.close_all(s, (weights(l)), 1e-14)
    close(ad.sum(s), 1)
    assert.same({1, 2.5, -1}, l)
    util.close_all(ad.softmax {5}, {1})
  end)

  it("has s_i (delta_ij - s_j) as its Jacobian", function()
    local l = {1.0, 2.5, -1.0}
    local s = weights(l)
    for i = 1, 3 do
      util.check_partials("softmax", softmax_at(i), l,
        each(s, function(sj, j) return s[i] * ((i == j and 1 or 0) - sj) end))
    end
    util.check_partials("softmax", softmax_at(1), {2.0}, {0})
  end)

  it("has second derivatives", function()
    local l = {1.0, 2.5, -1.0}
    local h = {}
    for i = 1, 3 do
      h[i] = {}
      for j = 1, 3 do
        h[i][j] = util.richardson_partial(function(...)
          local s = weights {...}
          return s[2] * ((i == 2 and 1 or 0) - s[i])
        end, l, j, 0.05)
      end
    end
    util.check_mixed("softmax", softmax_at(2), l, h, 1e-7)
  end)

  it("mixes numbers and AD values", function()
    local s = weights {1, 0.5, 0.25}
    util.check_first("softmax", function(x) return ad.softmax({1, x, x * x})[2] end, 0.5, s[2],
      s[2] * (1 - s[2]) - s[2] * s[3])
  end)

  it("wants a list", function()
    util.fails("bad argument #1 to 'softmax'", function()
      local s = ad.softmax(1)
      return s
    end)
  end)
end)

-- Numbers: nothing but Lua's own ------------------------------------------------------------------

describe("on plain numbers", function()
  local singles = {0, 1, -1, 2, -3, 7, 0.0, -0.0, 0.5, -0.5, 1.0, 2.75, -2.75, 1e-300, 1e300,
    -1e300, inf, -inf, nan, math.maxinteger, math.mininteger, 123456789}
  local one = {"abs", "acos", "asin", "atan", "ceil", "cos", "deg", "exp", "floor", "log", "max",
    "min", "modf", "rad", "sin", "sqrt", "tan"}
  local two = {"atan", "fmod", "log", "max", "min"}

  -- The same results, or the same complaint.
  local function agree(what, mine, lua, ...)
    local a, b = table.pack(pcall(mine, ...)), table.pack(pcall(lua, ...))
    assert.equal(b[1], a[1], what)
    if not b[1] then return end
    assert.equal(b.n, a.n, what)
    for i = 2, b.n do same(a[i], b[i], what) end
  end

  for _, where in ipairs {{"ad", ad}, {"ad.math", ad.math}} do
    local label, functions = where[1], where[2]

    it(label .. " functions of one number are Lua's, integer results included", function()
      for _, name in ipairs(one) do
        for _, x in ipairs(singles) do
          agree(("%s.%s(%s)"):format(label, name, util.show(x)), functions[name], math[name], x)
        end
      end
    end)

    it(label .. " functions of two numbers are Lua's, integer results included", function()
      for _, name in ipairs(two) do
        for _, x in ipairs(singles) do
          for _, y in ipairs(singles) do
            agree(("%s.%s(%s, %s)"):format(label, name, util.show(x), util.show(y)),
              functions[name], math[name], x, y)
          end
        end
      end
    end)

    it(label .. " functions complain in Lua's words", function()
      local wrong = {{n = 0}, {n = 1}, {{}, n = 1}, {"x", n = 1}, {true, n = 1}, {print, n = 1},
        {1, {}, n = 2}, {1, "x", n = 2}, {1, true, n = 2}}
      local wrong_pairs = {{1, n = 1}, {1, {}, n = 2}, {1.5, "x", n = 2}, {1, true, n = 2},
        {{}, 1, n = 2}, {"x", 1.5, n = 2}, {nil, 1, n = 2}}
      for _, name in ipairs {"abs", "acos", "asin", "atan", "ceil", "cos", "deg", "exp", "floor",
          "fmod", "log", "modf", "rad", "sin", "sqrt", "tan"} do
        -- which of two wrong arguments C complains of first is its compiler's choice
        for _, args in ipairs(name == "fmod" and wrong_pairs or wrong) do
          local chunk = "local lib = ... local r = lib." .. name .. "(select(2, ...)) return r"
          local text = {}
          for i, lib in ipairs {functions, math} do
            local ok, err = pcall(load(chunk, "=chunk"), lib, table.unpack(args, 1, args.n))
            text[i] = ok and "no error" or err
          end
          assert.equal(text[2], text[1])
        end
      end
      for _, lib in ipairs {functions, math} do
        util.fails("bad argument #2 to 'fmod' (zero)", function()
          local r = lib.fmod(1, 0)
          return r
        end)
      end
    end)
  end

  it("abs, floor, ceil, max, min and fmod keep integers", function()
    for _, f in ipairs {function(m) return m.abs(-3) end, function(m) return m.floor(2.5) end,
        function(m) return m.ceil(2.5) end, function(m) return m.floor(-7) end,
        function(m) return m.max(1, 2) end, function(m) return m.min(1, 2) end,
        function(m) return m.fmod(7, 3) end, function(m) return m.fmod(-7, 3) end,
        function(m) return m.abs(math.mininteger) end} do
      same(f(ad), f(math))
      same(f(ad.math), f(math))
      assert.equal("integer", math.type(f(ad)))
    end
  end)

  it("everything beyond math gives plain numbers too", function()
    for name in pairs(unary) do assert.equal("number", type(ad[name](1)), name) end
    for _, v in ipairs {ad.pow(2, 3), ad.atan2(1, 2), ad.hypot(3, 4), ad.clamp(1, 2, 3),
        ad.where(true, 1, 2), ad.sum {1, 2}, ad.prod {1, 2}, ad.mean {1, 2}, ad.dot({1}, {2}),
        ad.norm {1, 2}, ad.logsumexp {1, 2}, ad.softmax({1, 2})[1]} do
      assert.equal("number", type(v))
    end
  end)
end)

describe("ad.math", function()
  it("has exactly the names of math", function()
    for name, v in pairs(math) do
      assert.equal(type(v), type(ad.math[name]), name)
    end
    for name in pairs(ad.math) do assert.is_not_nil(math[name], name) end
  end)

  it("is not math itself", function()
    assert.is_false(rawequal(math, ad.math))
    assert.is_false(rawequal(math.sin, ad.math.sin))
  end)

  it("has math's constants and its integer and random functions unchanged", function()
    for _, name in ipairs {"pi", "huge", "maxinteger", "mininteger", "random", "randomseed",
        "tointeger", "ult"} do
      assert.is_true(rawequal(math[name], ad.math[name]), name)
    end
    assert.equal("integer", ad.math.type(1))
    assert.equal("float", ad.math.type(1.5))
    assert.is_nil(ad.math.type("1"))
  end)

  it("makes an existing script differentiable", function()
    local script = [[
      local math = ...
      return function(x)
        local s = 0
        for i = 1, 3 do s = s + math.sin(i * x) * math.exp(-x / i) + math.sqrt(math.abs(x)) end
        return math.max(s, -100) + math.fmod(x, 2) + math.log(x, 3) + math.atan(x, 2) + math.rad(x)
      end
    ]]
    local plain, differentiable = load(script)(math), load(script)(ad.math)
    for _, x in ipairs {0.7, 1.9, 3.3} do
      same(differentiable(x), plain(x))
      util.check_first("script", differentiable, x, plain(x), util.richardson(plain, x), 1e-8)
    end
  end)

  it("differentiates what it has of the functions that are math's", function()
    local points = {abs = -2, acos = 0.3, asin = 0.3, atan = 2, cos = 1, deg = 1, exp = 1, log = 2,
      max = 3, min = 3, rad = 2, sin = 1, sqrt = 2, tan = 1, sinh = 1, cosh = 1, tanh = 1,
      log10 = 2}
    for name, x in pairs(points) do
      if math[name] then
        util.check_first("math." .. name, ad.math[name], x, math[name](x),
          util.richardson(math[name], x), 1e-8)
      end
    end
  end)
end)

describe("ad.install", function()
  it("puts ad.math in the place of env.math, and its result undoes that", function()
    local env = {math = math, other = 1}
    local undo = ad.install(env)
    assert.equal(ad.math, env.math)
    assert.equal("function", type(undo))
    local f = load("local x = ... return math.sin(x) * x", "=script", "t", env)
    util.check_first("installed", f, 2, 2 * sin(2), sin(2) + 2 * cos(2))
    undo()
    assert.is_true(rawequal(math, env.math))
    assert.equal(1, env.other)
    assert.is_false(pcall(f, ad.var(2)))
  end)

  it("restores what was there, which need not be math", function()
    local mine = {sin = function() return 7 end}
    local env = {math = mine}
    ad.install(env)()
    assert.equal(mine, env.math)
    env = {}
    local undo = ad.install(env)
    assert.equal(ad.math, env.math)
    undo()
    assert.is_nil(env.math)
  end)

  it("leaves other environments alone", function()
    local before = math
    local undo = ad.install({})
    assert.equal(before, math)
    assert.equal(before, package.loaded.math)
    undo()
  end)

  it("is for _G unless told", function()
    assert.equal("true true true done", util.fresh_lua [[
      local ad = require "autodiff"
      local original = math
      local undo = ad.install()
      io.write(tostring(math == ad.math and _G.math == ad.math), " ")
      io.write(tostring(package.loaded.math == original), " ")
      local x = ad.var(2)
      math.sin(x):backward()
      undo()
      io.write(tostring(math == original and x.grad == original.cos(2)), " ")
      print "done"
    ]])
  end)

  it("wants a table", function()
    util.fails("bad argument #1 to 'install'", function()
      local undo = ad.install(3)
      return undo
    end)
  end)
end)

-- Everything together -----------------------------------------------------------------------------

describe("random expressions", function()
  -- An expression is a function of (lib, x, y) made of smooth operations that stay of moderate
  -- size.
  local function expression(rng, depth)
    if depth == 0 then
      return rng.pick {
        function(_, x) return x end,
        function(_, _, y) return y end,
        function(_, x) return x end,
        (function()
          local c = rng.uniform(-2, 2)
          return function() return c end
        end)(),
      }
    end
    local a, b = expression(rng, depth - 1), expression(rng, depth - 1)
    return rng.pick {
      function(m, x, y) return a(m, x, y) + b(m, x, y) end,
      function(m, x, y) return a(m, x, y) - b(m, x, y) end,
      function(m, x, y) return m.sin(a(m, x, y)) * b(m, x, y) end,
      function(m, x, y) return a(m, x, y) / (2 + m.cos(b(m, x, y))) end,
      function(m, x, y) return m.tanh(a(m, x, y)) * m.cosh(m.sin(b(m, x, y))) end,
      function(m, x, y) return m.atan(a(m, x, y), 3 + m.sin(b(m, x, y))) end,
      function(m, x, y) return m.exp(m.sin(a(m, x, y))) ^ m.cos(b(m, x, y)) end,
      function(m, x, y) return m.sqrt(1 + a(m, x, y) ^ 2) - m.log(2 + b(m, x, y) ^ 2) end,
      function(m, x, y) return -m.hypot(2 + m.sin(a(m, x, y)), b(m, x, y)) end,
      function(m, x, y) return m.sum {a(m, x, y), m.sigmoid(b(m, x, y)), 1} end,
      function(m, x, y) return m.logsumexp {a(m, x, y), 0, m.sin(b(m, x, y))} end,
      function(m, x, y) return m.softplus(a(m, x, y)) + m.erf(b(m, x, y)) end,
    }
  end

  local rng = util.rng(20)
  for n = 1, 40 do
    local e = expression(rng, rng.int(2, 5))
    local args = {rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)}
    local function f(x, y) return e(ad, x, y) end

    it(n .. ": forward equals reverse equals Richardson", function()
      local value = f(args[1], args[2])
      assert.equal("number", type(value))
      local slope = {util.richardson_partial(f, args, 1), util.richardson_partial(f, args, 2)}
      local function g(x, y) return f(x, y) + 0 * x * y end
      util.check_partials("expression", g, args, slope, 1e-6)
      local fx = select(2, ad.jvp(function(x) return f(x, args[2]) + 0 * x end, {args[1]}, {1}))
      for _, mode in ipairs(util.partial_modes) do
        close(mode.run(function(x, y) return f(x, y) + 0 * x end, args, 1), fx, 1e-10, mode.name)
      end
    end)

    it(n .. ": the second derivatives agree", function()
      local function g(x, y) return f(x, y) + 0 * x * y end
      for i = 1, 2 do
        for j = 1, 2 do
          local first = util.mixed_modes[1].run(g, args, i, j)
          for _, mode in ipairs(util.mixed_modes) do
            close(mode.run(g, args, i, j), first, 1e-8, mode.name)
            close(mode.run(g, args, j, i), first, 1e-8, mode.name .. ", swapped")
          end
          local slope = function(x, y) return (ad.grad(g, i)(x, y)) end
          close(first, util.richardson_partial(slope, args, j), 1e-5, "Richardson")
        end
      end
    end)
  end
end)
