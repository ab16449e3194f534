-- autodiff.optim: each method finds minima that are known, works on any
-- structure, and says why it stops.

local ad = require "autodiff"
local optim = require "autodiff.optim"

local inf = math.huge

-- J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained
-- optimization software", ACM TOMS 7(1), 1981; by their numbers.
local problems = {
  {
    name = "Rosenbrock (1)", start = { -1.2, 1 }, least = 0,
    r = function(x) return { 10 * (x[2] - x[1] ^ 2), 1 - x[1] } end,
  },
  {
    name = "Powell badly scaled (3)", start = { 0, 1 }, least = 0, slack = 1e-10, gtol = 1e-11,
    r = function(x)
      return { 1e4 * x[1] * x[2] - 1, ad.exp(-x[1]) + ad.exp(-x[2]) - 1.0001 }
    end,
  },
  {
    name = "Brown badly scaled (4)", start = { 1, 1 }, least = 0, slack = 1e-12,
    r = function(x) return { x[1] - 1e6, x[2] - 2e-6, x[1] * x[2] - 2 } end,
  },
  {
    name = "Beale (5)", start = { 1, 1 }, least = 0,
    r = function(x)
      local r = {}
      for i, y in ipairs { 1.5, 2.25, 2.625 } do r[i] = y - x[1] * (1 - x[2] ^ i) end
      return r
    end,
  },
  {
    name = "helical valley (7)", start = { -1, 0, 0 }, least = 0,
    r = function(x)
      local theta = ad.atan(x[2], x[1]) / (2 * math.pi)
      return { 10 * (x[3] - 10 * theta), 10 * (ad.hypot(x[1], x[2]) - 1), x[3] }
    end,
  },
  {
    name = "Powell singular (13)", start = { 3, -1, 0, 1 }, least = 0, slack = 1e-9,
    r = function(x)
      return {
        x[1] + 10 * x[2], 5 ^ 0.5 * (x[3] - x[4]), (x[2] - 2 * x[3]) ^ 2,
        10 ^ 0.5 * (x[1] - x[4]) ^ 2,
      }
    end,
  },
  {
    name = "Wood (14)", start = { -3, -1, -3, -1 }, least = 0,
    r = function(x)
      return {
        10 * (x[2] - x[1] ^ 2), 1 - x[1], 90 ^ 0.5 * (x[4] - x[3] ^ 2), 1 - x[3],
        10 ^ 0.5 * (x[2] + x[4] - 2), 10 ^ -0.5 * (x[2] - x[4]),
      }
    end,
  },
  {
    name = "Brown and Dennis (16)", start = { 25, 5, -5, -1 }, least = 85822.2016263563,
    r = function(x)
      local r = {}
      for i = 1, 20 do
        local t = i / 5
        r[i] = (x[1] + t * x[2] - math.exp(t)) ^ 2 + (x[3] + x[4] * math.sin(t) - math.cos(t)) ^ 2
      end
      return r
    end,
  },
  {
    name = "extended Rosenbrock (21)", least = 0,
    start = (function()
      local x = {}
      for i = 1, 40 do x[i] = i % 2 == 1 and -1.2 or 1 end
      return x
    end)(),
    r = function(x)
      local r = {}
      for i = 1, #x, 2 do r[i], r[i + 1] = 10 * (x[i + 1] - x[i] ^ 2), 1 - x[i] end
      return r
    end,
  },
}

local function squares(r)
  local s = 0
  for i = 1, #r do s = s + r[i] ^ 2 end
  return s
end

local function rosenbrock(v)
  return (1 - v[1]) ^ 2 + 100 * (v.y - v[1] ^ 2) ^ 2
end

local function near(expected, got, tolerance, what)
  assert.is_true(math.abs(expected - got) <= tolerance,
    ("%s: %.17g expected, got %.17g"):format(what or "value", expected, got))
end

local all = { "lbfgs", "newton", "adam", "adamw", "descent" }

describe("autodiff.optim finds the minimum of", function()
  for _, p in ipairs(problems) do
    local function f(x) return squares(p.r(x)) end
    for _, name in ipairs { "lbfgs", "newton" } do
      it(p.name .. " by " .. name, function()
        local gtol = p.gtol or 1e-7 * (1 + p.least)
        local r = optim[name](f, p.start, { gtol = gtol, max_iterations = 3000 })
        near(p.least, r.value, p.slack or 1e-12 * (1 + p.least))
        assert.is_true(r.converged or r.reason:find "^no progress" ~= nil, r.reason)
      end)
    end
    it(p.name .. " by least_squares", function()
      local r = optim.least_squares(p.r, p.start)
      assert.is_true(r.converged, r.reason)
      near(p.least, 2 * r.value, p.slack or 1e-12 * (1 + p.least))
      near(r.value, 0.5 * squares(r.residuals), 1e-12 * r.value)
    end)
  end

  it("Rosenbrock's function by first-order methods", function()
    for _, case in ipairs {
      { "adam", { rate = 0.05 } }, { "adamw", { rate = 0.05, decay = 0 } },
      { "descent", { rate = 1e-3 } }, { "descent", { rate = 1e-3, nesterov = true } },
    } do
      case[2].max_iterations = 6000
      local r = optim[case[1]](rosenbrock, { -1.2, y = 1 }, case[2])
      assert.is_true(r.converged, case[1] .. ": " .. r.reason)
      near(1, r.x[1], 1e-6)
      near(1, r.x.y, 1e-6)
    end
  end)

  it("functions that are defined in a part of the space only", function()
    for _, name in ipairs { "lbfgs", "newton" } do
      local r = optim[name](function(x) return x - ad.log(x) end, 1e-3)
      assert.is_true(r.converged, name .. ": " .. r.reason)
      near(1, r.x, 1e-7, name)
      -- the barrier's far side is complex, that is NaN
      r = optim[name](function(v) return 1e-3 * v[1] - ad.log(1 - v[1] ^ 2) end, { 0.999 })
      assert.is_true(r.converged, name .. ": " .. r.reason)
      near(-5e-4, r.x[1], 1e-7, name)
      r = optim[name](function(v) return v[1] - ad.sqrt(v[1] - 2) end, { 90 })
      near(2.25, r.x[1], 1e-7, name)
    end
  end)

  it("functions of any scale, and with large constants", function()
    for _, c in ipairs { 1e-200, 1e-12, 1e-4, 1e4, 1e12, 1e200 } do
      local r = optim.newton(function(v) return c * rosenbrock(v) end, { -1.2, y = 1 },
        { gtol = 1e-8 * c })
      assert.is_true(r.converged, r.reason)
      near(1, r.x.y, 1e-6)
      r = optim.lbfgs(function(v) return c * rosenbrock(v) end, { -1.2, y = 1 },
        { gtol = 1e-8 * c })
      assert.is_true(r.converged, r.reason)
      near(1, r.x.y, 1e-6)
    end
    -- the last steps change nothing that a value of 1e8 could show
    for _, name in ipairs { "lbfgs", "newton" } do
      local r = optim[name](function(v) return 1e8 + rosenbrock(v) end, { -1.2, y = 1 },
        { gtol = 1e-9 })
      assert.is_true(r.converged, name .. ": " .. r.reason)
      near(1, r.x.y, 1e-7, name)
    end
  end)

  it("a function with negative curvature at the start, by newton", function()
    local function f(v) return v[1] ^ 4 - v[1] ^ 2 + v[2] ^ 2 end
    local r = optim.newton(f, { 1e-6, 1 })
    assert.is_true(r.converged)
    near(-0.25, r.value, 1e-14)
    assert.is_true(r.products > 0)
    -- the same steps for f in other units
    local s = optim.newton(function(v) return 1e9 * f(v) end, { 1e-6, 1 }, { gtol = 10 })
    assert.is_equal(r.iterations, s.iterations)
  end)

  it("a number", function()
    for _, name in ipairs { "lbfgs", "newton", "descent" } do
      local r = optim[name](function(x) return (x - 3) ^ 2 end, 0)
      near(3, r.x, 1e-7)
      near(0, r.gradient, 1e-7)
    end
    near(2 ^ 0.5, optim.least_squares(function(x) return x * x - 2 end, 1).x, 1e-15)
  end)
end)

-- J. J. Moré and D. J. Thuente, "Line search algorithms with guaranteed
-- sufficient decrease", ACM TOMS 20(3), 1994, section 5: equations 5.1 to 5.4,
-- each from four first steps.
describe("the line search of autodiff.optim", function()
  local search = require "autodiff.optim.search"
  local function never() return false end

  local function yanai(b1, b2)
    local function gamma(b) return (1 + b * b) ^ 0.5 - b end
    return function(a)
      return gamma(b1) * ad.sqrt((1 - a) ^ 2 + b2 ^ 2) + gamma(b2) * ad.sqrt(a ^ 2 + b1 ^ 2)
    end
  end

  for name, case in pairs {
    ["5.1"] = { function(a) return -a / (a ^ 2 + 2) end, 0.001, 0.1 },
    ["5.2"] = { function(a) return (a + 0.004) ^ 5 - 2 * (a + 0.004) ^ 4 end, 0.1, 0.1 },
    ["5.3"] = { function(a)
      local b, l = 0.01, 39
      local y
      if a <= 1 - b then
        y = 1 - a
      elseif a >= 1 + b then
        y = a - 1
      else
        y = (a - 1) ^ 2 / (2 * b) + b / 2
      end
      return y + 2 * (1 - b) / (l * math.pi) * ad.sin(l * math.pi / 2 * a)
    end, 0.1, 0.1 },
    ["5.4, 1"] = { yanai(0.001, 0.001), 0.001, 0.001 },
    ["5.4, 2"] = { yanai(0.01, 0.001), 0.001, 0.001 },
    ["5.4, 3"] = { yanai(0.001, 0.01), 0.001, 0.001 },
  } do
    it("meets the strong Wolfe conditions for function " .. name, function()
      local fg = ad.value_and_grad(case[1])
      local f0, d0 = fg(0)
      for _, first in ipairs { 1e-3, 1e-1, 1e1, 1e3 } do
        local count = 0
        local p = search(function(a)
          count = count + 1
          local f, d = fg(a)
          return { a = a, f = f, d = d, usable = true }
        end, { a = 0.0, f = f0, d = d0, usable = true }, first, case[2], case[3], never)
        assert.is_true(p.f <= f0 + case[2] * p.a * d0)
        assert.is_true(math.abs(p.d) <= -case[3] * d0)
        assert.is_true(count <= 20, count .. " evaluations")
      end
    end)
  end

  it("ends before f does", function()
    -- steps to where the logarithm is NaN, inf, or has an infinite slope
    for _, edge in ipairs { 0 / 0, inf } do
      local seen = 0
      local p = search(function(a)
        seen = seen + 1
        if a >= 1 then return { a = a, f = edge, d = edge, usable = false } end
        return { a = a, f = -a, d = -1.0, usable = true }
      end, { a = 0.0, f = 0.0, d = -1.0, usable = true }, 1e6, 1e-4, 0.9, never)
      assert.is_true(p.a > 0.9 and p.a < 1)
      assert.is_true(seen <= 60)
    end
    assert.is_nil(search(function(a) return { a = a, f = 0 / 0, d = 0.0, usable = true } end,
      { a = 0.0, f = 0.0, d = -1.0, usable = true }, 1, 1e-4, 0.9, never))
  end)
end)

describe("autodiff.optim", function()
  it("gives x and the gradient in the structure of the start", function()
    local start = { -1.2, y = 1, label = "text", deep = { { z = 4 } } }
    local function f(v)
      assert.is_equal("text", v.label)
      return rosenbrock(v) + (v.deep[1].z - 2) ^ 2
    end
    for _, name in ipairs(all) do
      local r = optim[name](f, start, { max_iterations = 3, rate = name == "adam" and 0.1 or nil })
      assert.is_equal("text", r.x.label)
      assert.is_equal("number", type(r.x.deep[1].z))
      assert.is_nil(r.gradient.label)
      assert.same(ad.grad(f)(r.x), r.gradient)
      assert.is_equal(f(r.x), r.value)
      assert.is_equal(3, r.iterations)
      assert.is_equal("maximum of 3 iterations", r.reason)
      assert.is_false(r.converged)
      assert.same({ -1.2, y = 1, label = "text", deep = { { z = 4 } } }, start)
    end
  end)

  it("keeps metatables, so that f can call methods", function()
    local Point = {}
    Point.__index = Point
    function Point:square() return self.x ^ 2 end
    local r = optim.lbfgs(function(p) return (p:square() - 4) ^ 2 end,
      setmetatable({ x = 1 }, Point))
    near(4, r.x:square(), 1e-7)
  end)

  it("has all methods behind minimize", function()
    for _, name in ipairs { "lbfgs", "newton", "descent" } do
      local opts = { method = name, max_iterations = 20 }
      local r = optim.minimize(rosenbrock, { 0.9, y = 0.8 }, opts)
      opts.method = nil
      assert.same(optim[name](rosenbrock, { 0.9, y = 0.8 }, opts), r)
    end
    assert.same(optim.lbfgs(rosenbrock, { 0, y = 0 }),
      optim.minimize(rosenbrock, { 0, y = 0 }))
  end)

  it("takes a function for value and gradient instead", function()
    local calls = 0
    local fg = ad.value_and_grad(rosenbrock)
    local function counted(v)
      calls = calls + 1
      return fg(v)
    end
    local r = optim.lbfgs(nil, { -1.2, y = 1 }, { fg = counted })
    assert.is_true(r.converged)
    assert.is_equal(calls, r.evaluations)
    assert.same(optim.lbfgs(rosenbrock, { -1.2, y = 1 }), r)
    r = optim.newton(nil, { -1.2, y = 1 },
      { fg = counted, hvp = function(x, v) return ad.hvp(rosenbrock, x, v) end })
    assert.same(optim.newton(rosenbrock, { -1.2, y = 1 }), r)
    assert.has_error(function()
      optim.lbfgs(nil, { 1, y = 1 }, { fg = function() return "a", {} end })
    end, "lbfgs: fg must return a number first, got string")
    assert.error_matches(function()
      optim.lbfgs(nil, { 1, y = 1 }, { fg = function() return 1, { 2 } end })
    end, "^lbfgs: gradient%.y: number expected, got nil")
  end)

  it("takes compiled functions", function()
    if not ad.compile then return end
    local fg = ad.compile(ad.value_and_grad(rosenbrock))
    local r = optim.lbfgs(nil, { -1.2, y = 1 }, { fg = fg })
    assert.is_true(r.converged)
    near(1, r.x.y, 1e-7)
    assert.is_true(fg:stats().calls >= r.evaluations)
    r = optim.lbfgs(ad.compile(rosenbrock), { -1.2, y = 1 })
    near(1, r.x.y, 1e-7)
    assert.is_equal(6.0, ad.hessian(ad.compile(function(x) return x ^ 3 end))(1))
  end)

  it("says why it stops", function()
    local function start() return { -1.2, y = 1 } end
    local function reason(...) return optim.lbfgs(...).reason end
    assert.is_equal("gradient below 1e-08", reason(rosenbrock, start()))
    assert.is_equal("gradient below 0.5", reason(rosenbrock, start(), { gtol = 0.5 }))
    assert.is_equal("gradient is 0", reason(rosenbrock, { 1, y = 1 }))
    assert.is_equal("value changes by less than 0.5 of itself",
      reason(rosenbrock, start(), { ftol = 0.5 }))
    assert.is_equal("x changes by less than 0.1 of itself",
      reason(rosenbrock, start(), { xtol = 0.1 }))
    assert.is_equal("maximum of 2 iterations", reason(rosenbrock, start(), { max_iterations = 2 }))
    for _, name in ipairs(all) do
      local r = optim[name](rosenbrock, start(), { max_evaluations = 5 })
      assert.is_equal("maximum of 5 evaluations", r.reason)
      assert.is_equal(5, r.evaluations)
    end
    assert.is_equal("the function is nan at the start",
      reason(function(x) return ad.sqrt(x) end, -1))
    assert.is_equal("the function is inf at the start",
      reason(function(x) return 1 / x end, 0.0))
    assert.is_equal("the gradient is not finite at x.b[2] at the start",
      reason(function(x) return x.a + ad.sqrt(x.b[2]) end, { a = 1, b = { 1, 0 } }))
    assert.is_equal("no progress in line search",
      reason(function(x) return ad.value(x) + 0 * x + ad.stop(x) end, 1) == "gradient is 0"
        and reason(nil, 1, { fg = function(x) return x, -1.0 end }))
    assert.matches("^value below %-1e%+200", reason(function(x) return -x ^ 2 end, 1))
    assert.matches("^value below %-1e%+200",
      optim.newton(function(x) return -x ^ 2 end, 1).reason)
  end)

  it("keeps the last point where the function had a value", function()
    local r = optim.descent(function(x) return -ad.sqrt(1 - x) * ad.log(x) * 1e3 end, 0.5,
      { rate = 0.3, momentum = 0 })
    assert.matches("^the function is nan in iteration 1$", r.reason)
    assert.is_false(r.converged)
    assert.is_equal(0.5, r.x)
    r = optim.descent(function(v) return v[1] ^ 4 end, { 10 }, { rate = 1 })
    assert.matches("^the function is inf in iteration %d+$", r.reason)
    assert.is_true(r.value < inf)
  end)

  it("calls back after each iteration, and stops when told", function()
    for _, name in ipairs(all) do
      local seen = {}
      local r = optim[name](rosenbrock, { -1.2, y = 1 }, { callback = function(s)
        seen[#seen + 1] = s
        return s.iteration == 4
      end })
      assert.is_equal("stopped by callback", r.reason)
      assert.is_false(r.converged)
      assert.is_equal(4, #seen)
      assert.same(r.x, seen[4].x)
      assert.is_equal(r.value, seen[4].value)
      assert.is_equal(name, seen[4].method)
      assert.is_equal(math.max(math.abs(r.gradient[1]), math.abs(r.gradient.y)),
        seen[4].gradient_norm)
    end
    local r = optim.lbfgs(rosenbrock, { -1.2, y = 1 }, { callback = function() return "late" end })
    assert.is_equal("stopped by callback: late", r.reason)
  end)

  it("reports its progress", function()
    local states = {}
    local r = optim.lbfgs(rosenbrock, { -1.2, y = 1 },
      { progress = function(s) states[#states + 1] = s end })
    assert.is_equal(r.iterations + 1, #states)
    assert.is_equal(r.reason, states[#states].reason)
    assert.is_nil(states[1].reason)

    local program = [[
      local optim = require "autodiff.optim"
      optim.lbfgs(function(x) return (x - 1) ^ 2 end, 9, {progress = true, max_iterations = 2})
      optim.adam(function(x) return (x - 1) ^ 2 end, 9, {progress = 5, max_iterations = 11})]]
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(program)
    file:close()
    local pipe = assert(io.popen(("LUA_PATH='%s' LUA_CPATH='%s' lua5.4 %s 2>&1"):format(
      package.path, package.cpath, path)))
    local lines = {}
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    os.remove(path)
    assert.matches("^lbfgs: iteration 1, value %S+, gradient %S+, %d+ evaluations$", lines[1])
    assert.matches("evaluations: gradient is 0$", lines[3] or lines[2])
    assert.matches("^adam: iteration 5,", lines[#lines - 2])
    assert.matches("^adam: iteration 10,", lines[#lines - 1])
    assert.matches("^adam: iteration 11,.*: maximum of 11 iterations$", lines[#lines])
  end)

  it("passes errors of f on", function()
    local err = {}
    for _, name in ipairs { "lbfgs", "newton", "adam", "least_squares" } do
      local ok, got = pcall(optim[name], function() error(err) end, { 1 })
      assert.is_false(ok)
      assert.is_equal(err, got)
    end
  end)

  it("gives plain results within a transform", function()
    local g = ad.grad(function(c)
      local r = optim.lbfgs(function(x) return (x - c) ^ 2 end, 0)
      assert.is_equal("float", math.type(r.x))
      assert.is_equal("float", math.type(r.value))
      return c * r.x
    end)(3)
    near(3, g, 1e-7)
    -- and is differentiated by the implicit function theorem
    local argmin = ad.implicit {
      f = ad.grad(function(x, c) return (x - c ^ 2) ^ 2 end),
      solve = function(c) return optim.lbfgs(function(x) return (x - c ^ 2) ^ 2 end, 0).x end,
    }
    near(6, ad.grad(argmin)(3), 1e-9)
  end)

  it("sums in an order that depends on the keys only", function()
    local function make(order)
      local t = {}
      for _, k in ipairs(order) do t[k] = 1 / #k end
      return t
    end
    local function f(t)
      return (t.a - 0.1) ^ 4 + (t.bb - t.a) ^ 2 + ad.cosh(t.ccc - 3) + (t.dddd * t.bb - 7) ^ 2
    end
    local one = optim.lbfgs(f, make { "a", "bb", "ccc", "dddd" })
    local two = optim.lbfgs(f, make { "dddd", "ccc", "bb", "a" })
    assert.same(one, two)
  end)

  it("complains as Lua does, at the caller's line", function()
    local function bad(message, f, ...)
      local given = table.pack(...)
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, got = pcall(function() return (f(table.unpack(given, 1, given.n))) end)
      assert.is_false(ok)
      assert.is_equal(1, got:find("spec/optim_spec.lua:" .. line .. ": ", 1, true), got)
      assert.is_truthy(got:find(message, 1, true), got)
    end
    bad("bad argument #1 to 'lbfgs' (function expected, got nil)", optim.lbfgs)
    bad("bad argument #1 to 'newton' (function expected, got nil)", optim.newton, nil, 1,
      { fg = print })
    bad("bad argument #2 to 'lbfgs' (number or table expected, got nil)", optim.lbfgs, print)
    bad("lbfgs: the start has no number in it", optim.lbfgs, print, "x")
    bad("bad argument #3 to 'lbfgs' (table expected, got number)", optim.lbfgs, print, 1, 2)
    bad("bad argument #3 to 'lbfgs' (unknown option 'tolerance')", optim.lbfgs, print, 1,
      { tolerance = 1 })
    bad("(field 'gtol': number of at least 0 expected, got -1)", optim.lbfgs, print, 1,
      { gtol = -1 })
    bad("(field 'gtol': number of at least 0 expected, got string)", optim.lbfgs, print, 1,
      { gtol = "1" })
    bad("(field 'max_iterations': positive integer expected, got 0.5)", optim.adam, print, 1,
      { max_iterations = 0.5 })
    bad("(fields 'c1' and 'c2' must be 0 < c1 < c2 < 1)", optim.lbfgs, print, 1, { c1 = 0.95 })
    bad("(field 'momentum': number from 0 to below 1 expected, got 1)", optim.descent,
      { momentum = 1 })
    bad("bad argument #1 to 'adam' (unknown option 'decay')", optim.adam, { decay = 1 })
    bad("bad argument #1 to 'adam' (table expected, got number)", optim.adam, 3)
    bad("bad argument #3 to 'minimize' (field 'method': adam, adamw, descent, lbfgs or newton "
      .. "expected, got bfgs)", optim.minimize, print, 1, { method = "bfgs" })
    bad("bad argument #1 to 'least_squares' (function expected, got number)",
      optim.least_squares, 1)
    bad("function must return a number, got a string", optim.lbfgs,
      function() return "x" end, 1)
  end)
end)

describe("autodiff.optim.least_squares", function()
  local function line(v)
    local r = {}
    for i, y in ipairs { 1.1, 2.9, 5.2, 7.1 } do r[i] = v.a + v.b * i - y end
    return r
  end

  it("solves linear problems in one step, and gives what is needed for errors", function()
    local r = optim.least_squares(line, { a = 0, b = 0 })
    assert.is_true(r.converged)
    near(-1.0, r.x.a, 1e-12)
    near(2.03, r.x.b, 1e-12)
    assert.same({ 1, 1 }, r.jacobian[1])
    assert.same({ 1, 4 }, r.jacobian[4])
    assert.is_equal(4, #r.residuals)
    near(0, r.gradient.a, 1e-12)
  end)

  it("takes residuals in any structure, and more parameters than residuals", function()
    local r = optim.least_squares(function(v)
      return { first = v[1] + v[2] - 3, rest = { v[2] * v[3] - 2 } }
    end, { 1, 1, 1 })
    assert.is_true(r.converged, r.reason)
    near(0, r.residuals.first, 1e-12)
    near(0, r.residuals.rest[1], 1e-12)
  end)

  it("leaves a parameter without effect where it is", function()
    local r = optim.least_squares(function(v) return { v[1] ^ 2 - 2, v[1] - 1 } end, { 1, 7 })
    assert.is_true(r.converged, r.reason)
    assert.is_equal(7.0, r.x[2])
  end)

  it("does not depend on the units of x", function()
    local function f(a, b)
      return function(v)
        local r = {}
        for i = 1, 8 do
          local y = 2 * math.exp(-0.3 * i) + i % 2
          r[i] = a * v[1] * ad.exp(b * v[2] * i) - y
        end
        return r
      end
    end
    local one = optim.least_squares(f(1, 1), { 1, 0 })
    local two = optim.least_squares(f(2.0 ^ 40, 2.0 ^ -40), { 2.0 ^ -40, 0 })
    assert.is_true(one.converged and two.converged)
    near(1, one.x[1] / (two.x[1] * 2.0 ^ 40), 1e-12)
    assert.is_equal(one.iterations, two.iterations)
  end)

  it("takes a Jacobian, and says what is wrong with it", function()
    local calls = 0
    local jacobian = ad.jacobian(line)
    local r = optim.least_squares(line, { a = 0, b = 0 }, { jacobian = function(v)
      calls = calls + 1
      return jacobian(v)
    end })
    assert.is_equal(calls, r.jacobians)
    near(2.03, r.x.b, 1e-12)
    for _, wrong in ipairs { 1, "x", { { 1 } }, { { a = 1, b = 1 } } } do
      assert.error_matches(function()
        optim.least_squares(line, { a = 0, b = 0 }, { jacobian = function() return wrong end })
      end, "^least_squares: ")
    end
  end)

  it("says why it stops", function()
    local function reason(...) return optim.least_squares(...).reason end
    assert.is_equal("all residuals are 0", reason(function(x) return x - 1 end, 1))
    assert.is_equal("the function is not finite at the start",
      reason(function(x) return ad.log(x) end, -1))
    assert.is_equal("the Jacobian is not finite at the start",
      reason(function(x) return ad.sqrt(x) + 1 end, 0))
    assert.is_equal("maximum of 2 iterations",
      reason(problems[1].r, { -1.2, 1 }, { max_iterations = 2 }))
    assert.is_equal("maximum of 3 evaluations",
      reason(problems[1].r, { -1.2, 1 }, { max_evaluations = 3 }))
    assert.is_equal("stopped by callback",
      reason(problems[1].r, { -1.2, 1 }, { callback = function() return true end }))
    assert.is_equal("the sum of squares changes by less than 0.1 of itself",
      reason(function(x) return { x - 1, x + 1 } end, 0.2, { ftol = 0.1 }))
    assert.matches("^residuals orthogonal",
      reason(function(x) return { x - 1, x + 1 } end, 0))
  end)
end)

-- NIST's reference data for nonlinear regression, with what examples/fit.lua
-- reads them with.
describe("autodiff.optim.least_squares finds what NIST certifies for", function()
  local before = package.path
  package.path = "examples/fit/?.lua;" .. before
  local formula, strd = require "formula", require "strd"
  package.path = before
  local arithmetic = { number = function(text) return tonumber(text) + 0.0 end }
  for _, name in ipairs(formula.function_names) do arithmetic[name] = ad[name] end
  -- has a wrong digit in the file, see fit_spec.lua
  local published = { ["Roszman1 1"] = 2.0196866396E-01 }

  for path in io.popen "ls examples/data/nist/*.dat":lines() do
    it(path:match "(%w+)%.dat$" .. ", from both starts", function()
      local file = assert(io.open(path, "rb"))
      local data = strd.parse(file:read "a")
      file:close()
      local response, model = formula.load(formula.translate(data), arithmetic)
      local rows = {}
      for i, row in ipairs(data.rows) do
        rows[i] = {}
        for j, x in ipairs(row) do rows[i][j] = arithmetic.number(x) end
      end
      local function residuals(b)
        local list = {}
        for i, row in ipairs(rows) do list[i] = model(b, row) - response(row) end
        return list
      end
      assert.is_equal(2, #data.parameters[1].starts)
      for start = 1, 2 do
        local b = {}
        for j, p in ipairs(data.parameters) do b[j] = tonumber(p.starts[start]) end
        local r = optim.least_squares(residuals, b)
        assert.is_true(r.converged, r.reason)
        for j, p in ipairs(data.parameters) do
          local certified = published[data.name .. " " .. j] or p.estimate
          near(certified, r.x[j], 1e-9 * math.abs(certified), ("%s b%d"):format(data.name, j))
        end
      end
    end)
  end
end)

describe("an optimizer of autodiff.optim", function()
  it("steps as the papers say", function()
    local opt = optim.descent { rate = 0.1, momentum = 0.5 }
    local p = opt:step({ 1, w = 2 }, { 10, w = -10 })
    assert.same({ 0, w = 3 }, p)
    p = opt:step(p, { 0, w = 0 })
    assert.same({ -0.5, w = 3.5 }, p)
    opt = optim.descent { rate = 0.1, momentum = 0.5, nesterov = true }
    assert.same({ 1 - 0.5 - 1 }, opt:step({ 1 }, { 10 }))
    -- Adam's first step is the rate, whatever the gradient
    opt = optim.adam { rate = 0.1, epsilon = 0 }
    near(0.9, opt:step({ 1 }, { 1e-3 })[1], 1e-15)
    near(-0.1, optim.adam { rate = 0.1, epsilon = 0 }:step(0, 55), 1e-15)
    -- two steps by hand
    local m, v = 0.1 * 3, 0.001 * 9
    opt = optim.adam { rate = 1 }
    opt:step(5, 3)
    m, v = 0.9 * m + 0.1 * -1, 0.999 * v + 0.001
    near(5 - (m / (1 - 0.9 ^ 2)) / ((v / (1 - 0.999 ^ 2)) ^ 0.5 + 1e-8), opt:step(5, -1), 1e-14)
    -- the decay is beside the gradient
    near(1 - 0.1 * (1 + 0.5), optim.adamw { rate = 0.1, decay = 0.5, epsilon = 0 }:step(1, 7),
      1e-15)
  end)

  it("follows a schedule", function()
    local opt = optim.descent { momentum = 0, rate = function(t) return 1 / t end }
    local x = opt:step(0, 1)
    assert.is_equal(-1.0, x)
    x = opt:step(x, 1)
    assert.is_equal(-1.5, x)
    assert.is_equal(0.5, opt.rate)
    assert.is_equal(2, opt.steps)
    opt:reset()
    assert.is_equal(-1.0, opt:step(0, 1))
    assert.error_matches(function()
      optim.adam { rate = function() return "x" end }:step(1, 1)
    end, "^step: the rate must return a number, got string")
  end)

  it("clips gradients", function()
    local function step(opts, g)
      opts.rate, opts.momentum = 1, 0
      return optim.descent(opts):step({ 0, 0 }, g)
    end
    assert.same({ -3, -4 }, step({ clip = 5 }, { 3, 4 }))
    local p = step({ clip = 1 }, { 30, 40 })
    near(-0.6, p[1], 1e-15)
    near(-0.8, p[2], 1e-15)
    assert.same({ -2, 2 }, step({ clip_value = 2 }, { 30, -2.5 }))
  end)

  it("trains with mini batches", function()
    local opt, params = optim.adam { rate = 0.05 }, { w = 0, b = 0 }
    local fg = ad.value_and_grad(function(p, first)
      local s = 0
      for i = first, first + 4 do
        local x = i / 10
        s = s + (p.w * x + p.b - (2 * x - 1)) ^ 2
      end
      return s
    end)
    for epoch = 1, 400 do
      for first = 1, 16, 5 do
        local _, g = fg(params, first)
        params = opt:step(params, g)
      end
      assert.is_equal(4 * epoch, opt.steps)
    end
    near(2, params.w, 1e-3)
    near(-1, params.b, 1e-3)
  end)

  it("leaves its arguments alone, and what is no number", function()
    local params, grads = { 1, name = "w", sub = { 2 } }, { 1, sub = { 1 } }
    local p = optim.adam():step(params, grads)
    assert.same({ 1, name = "w", sub = { 2 } }, params)
    assert.same({ 1, sub = { 1 } }, grads)
    assert.is_equal("w", p.name)
  end)

  it("complains about parameters that change their form", function()
    local opt = optim.adam()
    opt:step({ 1, 2 }, { 1, 1 })
    for _, case in ipairs {
      { { 1 }, { 1, 1 }, "params%[2%]: number expected, got nil" },
      { { 1, 2, 3 }, { 1, 1 }, "params has other fields than it had" },
      { { 1, 2 }, { 1 }, "grads%[2%]: number expected, got nil" },
      { { 1, 2 }, 1, "grads: table expected, got number" },
      { { 1, 2 }, { 1, { 2 } }, "grads%[2%]: number expected, got table" },
    } do
      assert.error_matches(function() opt:step(case[1], case[2]) end,
        "^step: " .. case[3])
    end
  end)

  it("can be differentiated", function()
    -- the value after three steps, by the rate
    for _, name in ipairs { "descent", "adam" } do
      local function after(rate)
        local opt, x = optim[name] { rate = rate, clip = 1 }, 2
        for _ = 1, 3 do x = opt:step(x, 2 * x) end
        return x * x
      end
      assert.is_true(ad.check(after, { 0.1 }))
    end
  end)
end)

if ad.array and ad.reshape then
  describe("autodiff.optim with arrays", function()
    local function f(p)
      return ad.sum((p.w * p.w - 4) ^ 2) + (p.b - 1) ^ 2
    end
    local function start() return { w = ad.array { { 1, 3 }, { 2.5, 1.5 } }, b = 0, tag = "t" } end

    it("minimizes", function()
      for _, case in ipairs {
        { "lbfgs" }, { "newton" }, { "adam", { rate = 0.05, max_iterations = 5000 } },
        { "descent", { rate = 0.01, max_iterations = 5000 } },
      } do
        local r = optim[case[1]](f, start(), case[2])
        assert.is_true(r.converged, case[1] .. ": " .. r.reason)
        assert.is_equal("array", ad.type(r.x.w))
        assert.same({ 2, 2 }, r.x.w.shape)
        assert.is_equal("t", r.x.tag)
        for _, row in ipairs(r.x.w:tolist()) do
          for _, x in ipairs(row) do near(2, x, 1e-6) end
        end
      end
    end)

    it("fits", function()
      local t = ad.linspace(0, 1, 20)
      local y = 3 * ad.exp(-2 * t)
      local r = optim.least_squares(function(p) return p.a * ad.exp(p.k * t) - y end,
        { a = 1, k = 0 })
      assert.is_true(r.converged, r.reason)
      near(3, r.x.a, 1e-10)
      near(-2, r.x.k, 1e-10)
      r = optim.least_squares(function(v) return (v - 1) ^ 2 + v - 1 end, ad.array { 2, 3, 1.5 })
      assert.is_true(r.converged, r.reason)
      for _, x in ipairs(r.x:tolist()) do near(1, x, 1e-10) end
    end)

    it("steps and clips", function()
      local opt = optim.descent { rate = 1, momentum = 0, clip = 1 }
      local p = opt:step({ ad.array { 0, 0 } }, { ad.array { 30, 40 } })
      near(-0.6, p[1]:tolist()[1], 1e-15)
      assert.error_matches(function() opt:step({ ad.array { 0 } }, { ad.array { 1 } }) end,
        "params%[1%]: shape %(2%) expected, got %(1%)")
    end)
  end)
end
