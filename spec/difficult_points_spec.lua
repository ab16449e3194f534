--- The points where a formula from the textbook gives NaN, or nothing, and a convention has to
-- hold: the table "Values and derivatives at the difficult points", each row in every mode.

local ad = require "autodiff"
local util = require "support.util"

local close, exact = util.close, util.exact
local inf <const>, nan <const> = util.inf, util.nan

-- The rule for 0 times inf speaks of tangents and cotangents, not of partial derivatives: what has
-- a tangent of 0 on the way in is certain to vanish forwards, what has a cotangent of 0, backwards.
local forward = {util.first_order[1], util.first_order[3]}
local forward_twice = table.move(util.second_order_and_taylor, 4, 5, 1, {})
assert(forward[1].name == "jvp" and forward[2].name == "taylor")
assert(forward_twice[1].name == "jvp of jvp" and forward_twice[2].name == "taylor")

-- f' and f'' of one variable, in all modes; f'' is left out where it is nil.
local function at(what, f, x, value, slope, bend)
  util.check_first(what, f, x, value, slope)
  if bend then util.check_second(what, f, x, bend) end
end

describe("sqrt at 0", function()
  it("is 0 with derivative inf, and -inf for the second as the limit has it", function()
    at("sqrt", ad.sqrt, 0, 0, inf, -inf)
    at("x^0.5", function(x) return x ^ 0.5 end, 0, 0, inf)
  end)

  it("is not felt by what has no tangent", function()
    util.check_first("sqrt(0*x)", function(x) return ad.sqrt(0 * x) end, 3, 0, 0, nil, forward)
    util.check_second("sqrt(0*x)", function(x) return ad.sqrt(0 * x) end, 3, 0, nil, forward_twice)
    util.check_first("sqrt(x^2)", function(x) return ad.sqrt(x * x) end, 0, 0, 0, nil, forward)
  end)

  it("is NaN below 0", function()
    at("sqrt", ad.sqrt, -1, nan, nan)
  end)
end)

describe("abs, sign, relu at 0", function()
  for _, name in ipairs {"abs", "sign", "relu"} do
    it(name .. " is 0 with derivative 0", function()
      at(name, ad[name], 0, 0, 0, 0)
      at(name, ad[name], -0.0, 0, 0, 0)
      at(name .. "(sin x)", function(x) return ad[name](ad.sin(x)) end, 0, 0, 0, 0)
      at(name .. "(x) * x", function(x) return ad[name](x) * x end, 0, 0, 0)
      at(name .. "(x) + x", function(x) return ad[name](x) + x end, 0, 0, 1, 0)
    end)
  end

  it("math.abs is the same abs", function()
    at("math.abs", ad.math.abs, 0, 0, 0, 0)
  end)
end)

describe("max and min at a tie", function()
  it("give half to each of two", function()
    util.check_partials("max", ad.max, {2.0, 2.0}, {0.5, 0.5})
    util.check_partials("min", ad.min, {2.0, 2.0}, {0.5, 0.5})
    util.check_partials("max", ad.max, {0.0, -0.0}, {0.5, 0.5})
    at("max(x, 2)", function(x) return ad.max(x, 2) end, 2, 2, 0.5, 0)
    at("min(2, x)", function(x) return ad.min(2, x) end, 2, 2, 0.5, 0)
    at("max(x, x)", function(x) return ad.max(x, x) end, 2, 2, 1, 0)
    at("max(x^2, x^2)", function(x) return ad.max(x * x, x * x) end, 3, 9, 6, 2)
  end)

  it("give the mean of the second derivatives as of the first", function()
    at("max(x^2, 2x - 1)", function(x) return ad.max(x * x, 2 * x - 1) end, 1, 1, 2, 1)
    at("min(x^2, 2x - 1)", function(x) return ad.min(x * x, 2 * x - 1) end, 1, 1, 2, 1)
    at("min(x^3, 4x)", function(x) return ad.min(x * x * x, 4 * x) end, 2, 8, 8, 6)
  end)

  it("give 1/k to each of k in a list", function()
    for _, name in ipairs {"max", "min"} do
      local function f(...) return ad[name] {...} end
      util.check_partials(name, f, {2.0, 2.0}, {1 / 2, 1 / 2})
      util.check_partials(name, f, {2.0, 2.0, 2.0}, {1 / 3, 1 / 3, 1 / 3})
      util.check_partials(name, f, {1.0, 1.0, 1.0, 1.0, 1.0}, {1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5})
    end
    util.check_partials("max", function(...) return ad.max {...} end, {3.0, 1.0, 3.0, 2.0, 3.0},
      {1 / 3, 0, 1 / 3, 0, 1 / 3})
    util.check_partials("min", function(...) return ad.min {...} end, {3.0, 1.0, 3.0, 1.0},
      {0, 1 / 2, 0, 1 / 2})
    -- numbers in the list take part in the tie
    at("max list", function(x) return ad.max {x, 2, 1, 2} end, 2, 2, 1 / 3, 0)
    at("max list", function(x) return ad.max {x * x, 2 * x - 1, 1} end, 1, 1, 4 / 3, 2 / 3)
  end)

  it("share out the whole among the arguments", function()
    for _, name in ipairs {"max", "min"} do
      local function f(x) return ad[name](x, x, x) end
      at(name, f, 2, 2, 1, 0)
    end
  end)
end)

describe("x^n at x = 0", function()
  -- exponent -> first and second derivative
  local cases = {
    {0, 0, 0}, {1, 1, 0}, {2, 0, 2}, {3, 0, 0}, {4, 0, 0}, {7, 0, 0}, {2.5, 0, 0}, {1.5, 0, inf},
    {0.5, inf},
  }

  for _, case in ipairs(cases) do
    local n, slope, bend = case[1], case[2], case[3]
    local value = n == 0 and 1 or 0

    it("has the slope of the power " .. n, function()
      at("x^" .. n, function(x) return x ^ n end, 0, value, slope, bend)
      at("x^" .. n, function(x) return x ^ (n + 0.0) end, 0.0, value, slope, bend)
      at("pow", function(x) return ad.pow(x, n) end, 0, value, slope, bend)
      at("x^" .. n .. " at -0", function(x) return x ^ n end, -0.0, value, slope)
      -- the exponent an AD value that does not vary
      at("x^stop", function(x) return x ^ ad.stop(x * 0 + n) end, 0, value, slope, bend)
      -- (for n <= 1 the mixed second derivative is infinite, and the factor 0 no help)
      at("x^(0x + n)", function(x) return x ^ (0 * x + n) end, 0, value, slope, n > 1 and bend)
    end)

    it("has the slope of the power " .. n .. " when the exponent varies too", function()
      local what = "x^y"
      for _, f in ipairs {function(x, y) return x ^ y end, ad.pow} do
        util.check_partials(what, f, {0.0, n}, {slope, 0})
      end
    end)
  end

  it("has all Taylor coefficients of a power", function()
    for n = 0, 5 do
      local c = ad.taylor(function(x) return x ^ n end, 0, 6)
      for k = 0, 6 do close(c[k + 1], k == n and 1 or 0, 1e-12, ("x^%d, c%d"):format(n, k)) end
    end
  end)

  it("is differentiated through, where the base is more than x", function()
    at("(sin x)^2", function(x) return ad.sin(x) ^ 2 end, 0, 0, 0, 2)
    at("(x^2)^1", function(x) return (x * x) ^ 1 end, 0, 0, 0, 2)
    at("(2x)^3", function(x) return (2 * x) ^ 3 end, 0, 0, 0, 0)
  end)
end)

describe("0^y", function()
  it("has derivative 0 by y for y >= 0", function()
    for _, y in ipairs {0.0, 0.5, 1.0, 2.0, 3.5} do
      local value = y == 0 and 1 or 0
      at("0^y", function(v) return 0 ^ v end, y, value, 0, y > 0 and 0 or nil)
      at("0.0^y", function(v) return 0.0 ^ v end, y, value, 0)
      at("pow(0, y)", function(v) return ad.pow(0, v) end, y, value, 0)
      if y ~= 0.5 then at("(0 y)^y", function(v) return (0 * v) ^ v end, y, value, 0) end
      util.check_partials("x^y", function(x, v) return x ^ v end, {0.0, y}, {nil, 0})
    end
  end)

  it("has derivative -inf by y for y < 0", function()
    for _, y in ipairs {-0.5, -1.0, -2.0} do
      at("0^y", function(v) return 0 ^ v end, y, inf, -inf)
      util.check_partials("x^y", function(x, v) return x ^ v end, {0.0, y}, {nil, -inf})
    end
  end)

  it("has the mixed second derivative where there is one", function()
    for _, y in ipairs {2.0, 3.0} do
      util.check_mixed("x^y", function(x, v) return x ^ v end, {0.0, y},
        {{y == 2 and 2 or 0, 0}, {0, 0}})
    end
  end)
end)

describe("x^y for negative x", function()
  it("has y*x^(y-1), exact for integral y", function()
    for _, x in ipairs {-2.0, -3.0, -0.5} do
      for y = -3, 5 do
        local value, slope, bend = x ^ y, y * x ^ (y - 1), y * (y - 1) * x ^ (y - 2)
        if y == 0 then slope, bend = 0, 0 end
        for _, n in ipairs {y, y + 0.0} do
          local function f(v) return v ^ n end
          for _, mode in ipairs(util.first_order) do
            local got_value, got_slope = mode.run(f, x)
            local what = ("%g^%d, %s"):format(x, y, mode.name)
            -- Lua's power of an integral exponent is exact here, so the derivative has to be
            exact(got_value, value, what)
            if x ~= -3 or y >= 0 then exact(got_slope, slope, what) end
            close(got_slope, slope, 1e-15, what)
          end
          util.check_second("x^n", f, x, bend)
          util.check_first("pow", function(v) return ad.pow(v, n) end, x, value, slope)
        end
      end
    end
  end)

  it("is not poisoned by a constant exponent of any kind", function()
    for _, f in ipairs {
      function(x) return x ^ 3 end,
      function(x) return x ^ 3.0 end,
      function(x) return x ^ ad.stop(x * 0 + 3) end,
      function(x) return ad.pow(x, 3) end,
      function(x) return x ^ ad.where(true, 3, x) end,
    } do
      at("x^3", f, -2, -8, 12, -12)
    end
    for _, f in ipairs {
      function(x) return x ^ (3 + 0 * x) end,
      function(x) return ad.pow(x, x // 1 * 0 + 3) end,
    } do
      util.check_first("x^3", f, -2, -8, 12, nil, forward)
      util.check_second("x^3", f, -2, -12, nil, forward_twice)
    end
    -- the exponent a variable nobody differentiates by
    local _, d = ad.jvp(function(x, y) return x ^ y end, {-2, 3}, {1, 0})
    exact(d, 12)
    local y, slope = ad.value_and_grad(function(x, n) return x ^ n end)(-2, 3)
    exact(y, -8)
    exact(slope, 12)
    local tape <close> = ad.tape()
    local x, n = tape:var(-2, 3)
    exact(tape:gradient(x ^ n, x), 12)
  end)

  it("has NaN by y", function()
    util.check_partials("x^y", function(x, y) return x ^ y end, {-2.0, 3.0}, {12, nan})
    util.check_partials("x^y", ad.pow, {-2.0, 2.0}, {-4, nan})
    at("(-2)^y", function(y) return (-2) ^ y end, 3, -8, nan)
  end)

  it("is NaN for a broken exponent", function()
    at("x^0.5", function(x) return x ^ 0.5 end, -2, nan, nan)
  end)
end)

describe("log at 0", function()
  it("is -inf with derivative inf", function()
    at("log", ad.log, 0, -inf, inf, -inf)
    at("log2", ad.log2, 0, -inf, inf)
    at("log10", ad.log10, 0, -inf, inf)
    at("log1p", ad.log1p, -1, -inf, inf)
    at("log(x, 3)", function(x) return ad.log(x, 3) end, 0, -inf, inf)
    util.check_first("log(0x)", function(x) return ad.log(0 * x) end, 2, -inf, 0, nil, forward)
    util.check_second("log(0x)", function(x) return ad.log(0 * x) end, 2, 0, nil, forward_twice)
  end)
end)

describe("atan2, hypot and norm at the origin", function()
  it("have derivatives 0", function()
    util.check_partials("atan2", ad.atan2, {0.0, 0.0}, {0, 0})
    util.check_partials("atan", ad.atan, {0.0, 0.0}, {0, 0})
    util.check_partials("hypot", ad.hypot, {0.0, 0.0}, {0, 0})
    util.check_partials("norm", function(...) return ad.norm {...} end, {0.0, 0.0, 0.0}, {0, 0, 0})
    util.check_partials("norm", function(...) return ad.norm {...} end, {0.0}, {0})
    at("hypot(x, 0)", function(x) return ad.hypot(x, 0) end, 0, 0, 0)
    at("hypot(0, x)", function(x) return ad.hypot(0, x) end, 0, 0, 0)
    at("hypot(x, x)", function(x) return ad.hypot(x, x) end, 0, 0, 0)
    at("atan2(x, 0)", function(x) return ad.atan2(x, 0) end, 0, 0, 0)
    at("norm", function(x) return ad.norm {0, x, 2 * x} end, 0, 0, 0)
  end)

  it("are no trouble to what is added", function()
    at("norm + x", function(x) return ad.norm {x, x * x} + 3 * x end, 0, 0, 3)
    at("hypot + x^2", function(x) return ad.hypot(0 * x, 0 * x) + x * x end, 1, 1, 2, 2)
  end)
end)

describe("0 times inf in the chain rule", function()
  it("is 0 for a tangent that is 0", function()
    local cases = {
      {ad.sqrt, 0.0}, {ad.log, 0.0}, {ad.log1p, -1.0}, {ad.acos, 1.0}, {ad.asin, -1.0},
      {ad.acosh, 1.0}, {ad.atanh, 1.0}, {ad.cbrt, 0.0}, {function(x) return 1 / x end, 0.0},
      {function(x) return x ^ 0.5 end, 0.0}, {function(x) return x ^ -1 end, 0.0},
    }
    for i, case in ipairs(cases) do
      local f, x = case[1], case[2]
      local what = "case " .. i
      local _, d = ad.jvp(function(a, b) return f(a) + b end, {x, 2}, {0, 1})
      close(d, 1, nil, what .. ", jvp")
      close((ad.dual(3, 1) + f(ad.dual(x, 0))).tangent, 1, nil, what .. ", dual")
      close((ad.dual(3, {1, 0}) + f(ad.dual(x, {0, 0}))).tangent[1], 1, nil, what .. ", duals")
      -- a value made of the variable whose tangent is 0
      util.check_first(what, function(v) return f(v * 0 + x) + v end, 2, nil, 1, nil, forward)
      util.check_second(what, function(v) return f(v * 0 + x) + v * v end, 2, 2, nil, forward_twice)
    end
  end)

  it("is 0 for a cotangent that is 0", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(0.0, 2.0)
    local steep = ad.sqrt(x)
    local z = ad.where(false, steep, y) + 0 * steep
    close(tape:gradient(z, x), 0)
    close(tape:gradient {target = {steep, y * y}, seeds = {0, 1}, sources = x}, 0)
    local _, pull = ad.vjp(function(u) return ad.sqrt(u) end, 0.0)
    close(pull(0), 0)
    close(pull(2), inf)
    close(ad.grad(function(u) return 0 * ad.log(u) + u end)(0.0), 1)
  end)

  it("is 0 whatever the partial, NaN included", function()
    local function f(a, b) return ad.log(a) * 0 + ad.sqrt(a) * 0 + b end
    local _, d = ad.jvp(f, {-1, 2}, {0, 1})
    close(d, 1)
    local _, pull = ad.vjp(function(a) return ad.acos(a) end, 2.0)
    close(pull(0), 0)
  end)

  it("does not take a tangent for 0 that only happens to have the value 0", function()
    -- u(0) and u'(0) vanish here, u''(0) does not
    at("exp(x^2)", function(x) return ad.exp(x * x) end, 0, 1, 0, 2)
    at("sin(x^2)", function(x) return ad.sin(x * x) end, 0, 0, 0, 2)
    at("sin(x)^2", function(x)
      local s = ad.sin(x)
      return s * s
    end, 0, 0, 0, 2)
    at("cos(x)", ad.cos, 0, 1, 0, -1)
    at("1/(1 + x^2)", function(x) return 1 / (1 + x * x) end, 0, 1, 0, -2)
    at("x^2 x^2", function(x) return (x * x) * (x * x) end, 0, 0, 0, 0)
    at("tanh(x) tanh(x)", function(x) return ad.tanh(x) * ad.tanh(x) end, 0, 0, 0, 2)
    at("hypot(1, x)", function(x) return ad.hypot(1, x) end, 0, 1, 0, 1)
    at("norm{1, x}", function(x) return ad.norm {1, x} end, 0, 1, 0, 1)
    at("dot", function(x) return ad.dot({x, 1}, {x, x}) end, 0, 0, 1, 2)
    at("x where", function(x) return ad.where(true, x * x, 0) end, 0, 0, 0, 2)
    local function slope_of(f) return function(u) return (ad.grad(f)(u)) end end
    local function third(f, x) return slope_of(slope_of(slope_of(f)))(x) end
    close(third(function(x) return x ^ 3 end, 0), 6)
    close(third(function(x) return x * x * x end, 0), 6)
    close(third(function(x) return ad.sin(x * x) * x end, 0), 6)
  end)
end)

describe("where with NaN or inf in the branch not taken", function()
  local bad = {
    ["log of a negative"] = function(x) return ad.log(x) end,
    ["sqrt of a negative"] = function(x) return ad.sqrt(x) end,
    ["a root to the power of itself"] = function(x) return x ^ x end,
    ["0/0"] = function(x) return (x - x) / (x - x) end,
    ["1/0"] = function(x) return 1 / (x - x) end,
    ["overflow"] = function(x) return ad.exp(x * -1e4) end,
    ["acos outside"] = function(x) return ad.acos(3 * x) end,
    ["inf - inf"] = function(x) return ad.exp(x * -1e4) - ad.exp(x * -1e4) end,
    ["a chain of it"] = function(x) return ad.sin(ad.exp(ad.log(x) * x) / (x - x)) end,
  }

  for name, f in pairs(bad) do
    it("takes nothing from it: " .. name, function()
      at("where", function(x) return ad.where(x > 0, f(x), x * x) end, -1.5, 2.25, -3, 2)
      at("where", function(x) return ad.where(x <= 0, x * x, f(x)) end, -1.5, 2.25, -3, 2)
      at("where", function(x) return ad.where(0, f(x), 7) end, -1.5, 7, 0, 0)
      at("where", function(x) return ad.where(ad.lt(0, x), f(x), x) end, -1.5, -1.5, 1, 0)
      at("where twice", function(x)
        return ad.where(x > 0, f(x), x) * ad.where(x > 0, 1, x)
      end, -1.5, 2.25, -3, 2)
    end)
  end

  it("is how sin(x)/x is written", function()
    local function sinc(x) return ad.where(ad.eq(x, 0), 1 - x * x / 6, ad.sin(x) / x) end
    at("sinc", sinc, 0, 1, 0, -1 / 3)
    at("sinc", sinc, 2, math.sin(2) / 2, (2 * math.cos(2) - math.sin(2)) / 4)
  end)

  it("gives plain numbers the same way", function()
    exact(ad.where(true, 1, nan), 1)
    exact(ad.where(false, inf, 2), 2)
    exact(ad.where(true, nan, 2), nan)
  end)

  it("stays clean in every partial derivative", function()
    local function f(x, y) return ad.where(x > 0, ad.log(x) * y, x * y) end
    util.check_partials("f", f, {-2.0, 3.0}, {3, -2})
    util.check_mixed("f", f, {-2.0, 3.0}, {{0, 1}, {1, 0}})
    local function g(x, y) return ad.where(x > 0, ad.sqrt(y - y), x) + ad.sin(y) end
    util.check_partials("g", g, {-2.0, 3.0}, {1, math.cos(3)})
  end)
end)

describe("x // y", function()
  it("has derivative 0 by both", function()
    for _, p in ipairs {{7.5, 2.0}, {-7.5, 2.0}, {7.5, -2.0}, {6.0, 2.0}, {0.0, 2.0}} do
      util.check_partials("//", function(x, y) return x // y end, p, {0, 0})
      util.check_mixed("//", function(x, y) return x // y end, p, {{0, 0}, {0, 0}})
    end
    at("x // 1", function(x) return x // 1 end, 3, 3, 0, 0)
    at("7 // x", function(x) return 7 // x end, 2, 3, 0, 0)
  end)
end)

describe("fmod and %", function()
  local points = {{7.5, 2.0}, {-7.5, 2.0}, {7.5, -2.0}, {-7.5, -2.0}, {6.0, 2.0}, {-6.0, 2.0},
    {0.5, 3.0}, {-0.5, 3.0}, {0.0, 2.0}}

  it("have 1 by x and minus the quotient by y, truncated for fmod, floored for %", function()
    for _, p in ipairs(points) do
      local q = p[1] / p[2]
      local truncated = q < 0 and math.ceil(q) or math.floor(q)
      util.check_partials("fmod", ad.fmod, p, {1, -truncated})
      util.check_partials("%", function(x, y) return x % y end, p, {1, -math.floor(q)})
      util.check_mixed("fmod", ad.fmod, p, {{0, 0}, {0, 0}})
      util.check_mixed("%", function(x, y) return x % y end, p, {{0, 0}, {0, 0}})
    end
  end)

  it("wrap an angle", function()
    at("wrap", function(x) return ad.sin(x % (2 * math.pi)) end, 20, math.sin(20), math.cos(20),
      -math.sin(20))
    at("fmod", function(x) return ad.fmod(-x, 3) end, 4, -1, -1, 0)
    at("x % inf", function(x) return x % inf end, 4, 4, 1, 0)
  end)
end)

describe("clamp at a bound", function()
  it("has derivative 1", function()
    at("clamp", function(x) return ad.clamp(x, 1, 3) end, 1, 1, 1, 0)
    at("clamp", function(x) return ad.clamp(x, 1, 3) end, 3, 3, 1, 0)
    at("clamp", function(x) return ad.clamp(x, 3, 3) end, 3, 3, 1, 0)
    at("clamp(x^2)", function(x) return ad.clamp(x * x, 1, 4) end, 2, 4, 4, 2)
    at("clamp", function(x) return ad.clamp(x, 1, 3) end, 0.999, 1, 0, 0)
    util.check_partials("clamp", ad.clamp, {1.0, 1.0, 3.0}, {1})
    util.check_partials("clamp", ad.clamp, {3.0, 1.0, 3.0}, {1})
  end)
end)

describe("prod with zeros", function()
  local function f(...) return ad.prod {...} end

  it("is exact to the first order", function()
    util.check_partials("prod", f, {0.0, 2.0, 3.0}, {6, 0, 0})
    util.check_partials("prod", f, {2.0, 0.0, 3.0}, {0, 6, 0})
    util.check_partials("prod", f, {2.0, 3.0, 0.0}, {0, 0, 6})
    util.check_partials("prod", f, {0.0, 0.0, 3.0}, {0, 0, 0})
    util.check_partials("prod", f, {0.0}, {1})
    at("prod{x, x, 5}", function(x) return ad.prod {x, x, 5} end, 0, 0, 0, 10)
    at("prod{x, 3, 1 + x}", function(x) return ad.prod {x, 3, 1 + x} end, 0, 0, 3, 6)
    at("prod{0, x, 3}", function(x) return ad.prod {0, x, 3} end, 2, 0, 0, 0)
  end)

  it("is exact to the second order", function()
    util.check_mixed("prod", f, {0.0, 2.0, 3.0}, {{0, 3, 2}, {3, 0, 0}, {2, 0, 0}})
    util.check_mixed("prod", f, {0.0, 0.0, 3.0}, {{0, 3, 0}, {3, 0, 0}, {0, 0, 0}})
    util.check_mixed("prod", f, {0.0, 0.0, 0.0}, {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}})
    util.check_mixed("prod", f, {0.0}, {{0}})
  end)

  it("is exact in Taylor mode to any order", function()
    local c = ad.taylor(function(x) return ad.prod {x, x, x, 1 + x} end, 0, 5)
    util.close_all(c, {0, 0, 0, 1, 1, 0})
  end)

  it("neither overflows nor underflows on the way to a factor's derivative", function()
    local args = {1e-200, 1e200, 1e-200, 1e200}
    util.check_partials("prod", f, args, {1e200, 1e-200, 1e200, 1e-200})
  end)
end)

describe("far out", function()
  it("softplus tends to its limits", function()
    for _, x in ipairs {40.0, 800.0, 1e10, 1e308, inf} do
      at("softplus", ad.softplus, x, x, 1, 0)
      if x > 700 then at("softplus", ad.softplus, -x, 0, 0, 0) end
    end
    util.rel(ad.softplus(-700), math.exp(-700), 1e-12)
    util.rel(ad.grad(ad.softplus)(-700), math.exp(-700), 1e-12)
  end)

  it("sigmoid tends to its limits", function()
    for _, x in ipairs {800.0, 1e10, 1e308, inf} do at("sigmoid", ad.sigmoid, x, 1, 0, 0) end
    for _, x in ipairs {-800.0, -1e10, -1e308, -inf} do at("sigmoid", ad.sigmoid, x, 0, 0, 0) end
    util.rel(ad.sigmoid(-700), math.exp(-700), 1e-12)
    util.rel(ad.grad(ad.sigmoid)(-700), math.exp(-700), 1e-12)
    close(select(2, ad.jvp(ad.sigmoid, {30}, {1})), math.exp(-30))
  end)

  it("tanh tends to its limits", function()
    for _, x in ipairs {800.0, 1e10, 1e308, inf} do
      at("tanh", ad.tanh, x, 1, 0, 0)
      at("tanh", ad.tanh, -x, -1, 0, 0)
    end
  end)

  it("logsumexp tends to the maximum", function()
    local function f(...) return ad.logsumexp {...} end
    for _, x in ipairs {1000.0, -1000.0, 1e300, -1e300} do
      close(f(x, x), x + math.log(2))
      util.check_partials("logsumexp", f, {x, x}, {0.5, 0.5})
      at("logsumexp", function(v) return f(v, 0) end, x, math.max(x, 0), x > 0 and 1 or 0, 0)
    end
    util.check_partials("logsumexp", f, {1000.0, 0.0, -1000.0}, {1, 0, 0})
    util.check_mixed("logsumexp", f, {1000.0, 1000.0}, {{0.25, -0.25}, {-0.25, 0.25}})
    util.check_mixed("logsumexp", f, {1000.0, 0.0}, {{0, 0}, {0, 0}})
    close(f(-inf, 0), 0)
    close(f(-inf, -inf), -inf)
    close(f(inf, 0), inf)
    util.check_partials("logsumexp", f, {-inf, 0.0}, {0, 1})
  end)

  it("softmax neither overflows nor loses its derivative", function()
    util.close_all(ad.softmax {1000, 1000}, {0.5, 0.5})
    util.close_all(ad.softmax {-1e300, 1e300}, {0, 1})
    util.check_partials("softmax", function(...) return ad.softmax({...})[1] end, {1000.0, 1000.0},
      {0.25, -0.25})
    at("softmax", function(x) return ad.softmax({x, 0})[1] end, 1000, 1, 0, 0)
  end)
end)
