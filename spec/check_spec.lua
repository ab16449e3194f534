local ad = require "autodiff"
local T = require "support.transforms"

-- A custom function of three arguments whose rules are right but for the
-- factors given; the last argument is a list of three.
local function made(wrong)
  wrong = wrong or {}
  local function w(name) return wrong[name] or 1 end
  return ad.custom{
    name = "suspect",
    f = function(x, y, v) return x * y + v[1] * v[2] * v[3] end,
    jvp = function(p, t)
      local v, u = p[3], t[3]
      return w"jx" * p[2] * t[1] + w"jy" * p[1] * t[2] + v[2] * v[3] * u[1]
        + v[1] * v[3] * u[2] + w"jv3" * v[1] * v[2] * u[3]
    end,
    vjp = function(b, _, x, y, v)
      return w"vx" * b * y, w"vy" * b * x,
        {b * v[2] * v[3], w"vv2" * b * v[1] * v[3], b * v[1] * v[2]}
    end,
  }
end

local args = {1.5, -0.7, {0.3, 1.1, 2.3}}

-- whether the report has the number as a word of its own
local function names(report, n)
  return report:find("%f[%w]" .. n .. "%f[%W]") ~= nil
end

describe("check", function()
  it("is true for functions that are right", function()
    assert.is_true((ad.check(ad.sin, {0.4})))
    assert.is_true((ad.check(function(x, y) return x * y + ad.exp(x) end, {0.4, 2})))
    assert.is_true((ad.check(function(p) return p.a * p.b[1] ^ 2 end, {{a = 2, b = {3}, n = "n"}})))
  end)

  it("is true for functions with several outputs", function()
    assert.is_true((ad.check(function(x) return {x[1] * x[2], ad.sin(x[1])} end, {{0.4, 2}})))
  end)

  it("is true for right custom rules", function()
    assert.is_true((ad.check(made(), args)))
  end)

  it("is true for random functions", function()
    local rnd = T.rng(71)
    for n = 1, 4 do
      local f = T.random_function(rnd, 1, n)
      assert.is_true((ad.check(function(x) return f(x)[1] end, {T.random_point(rnd, n)})))
    end
  end)

  it("is true for functions of large and small values", function()
    assert.is_true((ad.check(function(x) return 1e8 * x * x end, {1e3})))
    assert.is_true((ad.check(function(x) return 1e-8 * ad.sin(x) end, {0.3})))
    assert.is_true((ad.check(ad.log, {1e-3})))
  end)

  it("does not change its arguments", function()
    local a = {2, {3, 4}}
    ad.check(function(x, v) return x * v[1] * v[2] end, a)
    assert.same({2, {3, 4}}, a)
  end)

  it("is false for wrong rules, each alone", function()
    for _, name in ipairs{"jx", "jy", "jv3", "vx", "vy", "vv2"} do
      local ok, report = ad.check(made{[name] = 1.01}, args)
      assert.is_false(ok, name)
      assert.equal("string", type(report))
    end
  end)

  it("reports the argument", function()
    local _, report = ad.check(made{jy = 2}, args)
    assert.is_true(names(report, 2), report)
    assert.is_truthy(report:lower():find("arg", 1, true), report)
    _, report = ad.check(made{vy = 2}, args)
    assert.is_true(names(report, 2), report)
    assert.is_truthy(report:lower():find("arg", 1, true), report)
  end)

  it("reports argument and index", function()
    local _, report = ad.check(made{vv2 = 2}, args)
    assert.is_true(names(report, 3), report)
    assert.is_true(names(report, 2), report)
    local f = ad.custom{
      name = "f", f = function(v) return v[1] + v[57] end,
      vjp = function(b, _, v)
        local r = {}
        for i = 1, #v do r[i] = 0 end
        r[1], r[57] = b, 3 * b
        return r
      end,
    }
    local x = {}
    for i = 1, 60 do x[i] = i / 10 end
    local ok
    ok, report = ad.check(f, {x})
    assert.is_false(ok)
    assert.is_true(names(report, 57), report)
    assert.is_true(names(report, 1), report)
  end)

  it("tells forward from reverse", function()
    local _, forward = ad.check(made{jx = 2}, args)
    local _, reverse = ad.check(made{vx = 2}, args)
    assert.not_equal(forward, reverse)
    assert.is_truthy(forward:lower():find("forward", 1, true) or forward:find("jvp", 1, true))
    assert.is_truthy(reverse:lower():find("reverse", 1, true) or reverse:find("vjp", 1, true))
  end)

  it("finds a derivative that is missing", function()
    local ok = ad.check(function(x) return ad.stop(x) * x end, {3})
    assert.is_false(ok)
    ok = ad.check(function(x) return ad.value(x) ^ 2 end, {3})
    assert.is_false(ok)
  end)

  it("finds a derivative that is NaN", function()
    local f = ad.custom{name = "f", f = function(x) return x * x end,
      vjp = function() return 0 / 0 end}
    assert.is_false((ad.check(f, {3})))
  end)

  it("looks at the second order on request", function()
    -- right at first order; the derivative of the rule is lost
    local f = ad.custom{name = "f", f = function(x) return x * x end,
      vjp = function(b, _, x) return 2 * b * ad.stop(x) end}
    assert.is_true((ad.check(f, {3})))
    local ok, report = ad.check(f, {3}, {order = 2})
    assert.is_false(ok)
    assert.equal("string", type(report))
    assert.is_true((ad.check(made(), args, {order = 2})))
    assert.is_true((ad.check(ad.sin, {0.4}, {order = 2})))
    assert.is_true((ad.check(function(v) return v[1] * v[2] end, {{2, 3}}, {order = 2})))
  end)

  it("lets errors through", function()
    local e = {}
    assert.is_true(rawequal(e, T.failure(ad.check, function() error(e) end, {1})))
    T.near(6, ad.grad(function(x) return x * x end)(3))
  end)

  it("reports its arguments like Lua", function()
    T.fails_with(function() ad.check(nil, {1}) end, "bad argument #1 to 'check' (function expected")
    T.fails_with(function() ad.check(ad.sin, 1) end,
      "bad argument #2 to 'check' (table expected, got number)")
  end)
end)
