local ad = require "autodiff"
local T = require "support.transforms"

local near, fails_with = T.near, T.fails_with

-- x^3 y, whose rules can be left out one by one
local function make(which)
  local d = {name = "mycube", f = function(x, y) return x * x * x * y end}
  if which ~= "vjp" then
    d.jvp = function(p, t)
      return 3 * p[1] * p[1] * p[2] * t[1] + p[1] ^ 3 * t[2]
    end
  end
  if which ~= "jvp" then
    d.vjp = function(ybar, _, x, y) return ybar * 3 * x * x * y, ybar * x ^ 3 end
  end
  return ad.custom(d)
end

local function plain(x, y) return x * x * x * y end

for _, which in ipairs{"jvp", "vjp", "both"} do
  describe("custom with " .. which, function()
    local f = make(which)

    it("has the value of f", function()
      near(40, f(2, 5))
      assert.equal("number", type(f(2, 5)))
      near(40, ad.value_and_grad(f)(2, 5))
    end)

    it("works in reverse", function()
      near({60, 8}, {ad.grad(f, {1, 2})(2, 5)})
      near(60, (ad.grad(f)(2, 5)))
      near(8, (ad.grad(f, 2)(2, 5)))
      local y, pull = ad.vjp(f, 2, 5)
      near({40, 120, 16}, {y, pull(2)})
    end)

    it("works forward", function()
      near({40, 60}, {ad.jvp(f, {2, 5}, {1, 0})})
      near({40, 8}, {ad.jvp(f, {2, 5}, {0, 1})})
      near({40, 2 * 60 - 8}, {ad.jvp(f, {2, 5}, {2, -1})})
      local _, lin = ad.linearize(f, 2, 5)
      near({60, 8}, {lin(1, 0), lin(0, 1)})
    end)

    it("works with one argument constant", function()
      near(60, ad.grad(function(x) return f(x, 5) end)(2))
      near(8, ad.grad(function(y) return f(2, y) end)(5))
      near(60, T.forward(function(x) return f(x, 5) end)(2))
      near(8, T.forward(function(y) return f(2, y) end)(5))
    end)

    it("works with one value in both places", function()
      near(4 * 27, ad.grad(function(x) return f(x, x) end)(3))
      near(4 * 27, T.forward(function(x) return f(x, x) end)(3))
    end)

    it("works among other operations", function()
      local function g(x) return ad.sin(f(x, 2) * x) end
      local function h(x) return ad.sin(plain(x, 2) * x) end
      for _, m in ipairs(T.modes) do near(m.d(h)(0.7), m.d(g)(0.7)) end
    end)

    it("has Jacobians of every kind", function()
      local function v(p) return {f(p[1], p[2]), f(p[2], p[1])} end
      local want = {{60, 8}, {125, 150}}
      near(want, ad.jacobian(v)({2, 5}))
      near(want, ad.jacfwd(v)({2, 5}))
      near(want, ad.jacrev(v)({2, 5}))
    end)

    it("has higher derivatives in every nesting", function()
      local function g(x) return f(x, 2) end
      for _, a in ipairs(T.modes) do
        for _, b in ipairs(T.modes) do
          local got = a.d(b.d(g))(1.5)
          local ok, m = T.is_near(12 * 1.5, got)
          assert(ok, a.name .. " of " .. b.name .. ": " .. tostring(m))
        end
      end
      for i = 0, 7 do
        local d = g
        for bit = 0, 2 do d = ((i >> bit) & 1 == 1 and T.forward or T.reverse)(d) end
        near(12, d(1.5))
      end
      near({{60, 12}, {12, 0}}, ad.hessian(function(p) return f(p[1], p[2]) end)({2, 5}))
      near({60 + 24, 12}, ad.hvp(function(p) return f(p[1], p[2]) end, {2, 5}, {1, 2}))
    end)

    it("has Taylor coefficients", function()
      near({16, 24, 12, 2, 0}, ad.taylor(function(x) return f(x, 2) end, 2, 4))
      near(12, ad.derivative(function(x) return f(x, 2) end, 3)(2))
    end)

    it("closes over values of outer transforms", function()
      -- d/dx [x * d/dy (y^3 x)] = 6 x y^2
      near(6 * 3 * 4, ad.grad(function(x)
        return x * ad.grad(function(y) return f(y, x) end)(2)
      end)(3))
      near(6 * 3 * 4, T.forward(function(x)
        return x * ad.grad(function(y) return f(y, x) end)(2)
      end)(3))
      near(6 * 3 * 4, ad.grad(function(x)
        return x * T.forward(function(y) return f(y, x) end)(2)
      end)(3))
    end)

    it("works with vars and tapes", function()
      local x, y = ad.var(2), ad.var(5)
      local z = f(x, y)
      z:backward()
      near({60, 8}, {x.grad, y.grad})
    end)
  end)
end

describe("a custom rule", function()
  it("is what is used", function()
    local f = ad.custom{
      name = "odd one", f = function(x) return x * x end,
      jvp = function(_, t) return 100 * t[1] end,
      vjp = function(ybar) return 1000 * ybar end,
    }
    near(1000, ad.grad(f)(3))
    near(100, T.forward(f)(3))
  end)

  it("hears of primals, tangents, and the result", function()
    local seen
    local f = ad.custom{
      name = "f", f = function(x, y) return x * y end,
      jvp = function(p, t, y)
        seen = {#p, ad.value(p[1]), ad.value(p[2]), ad.value(t[1]), ad.value(t[2]), ad.value(y)}
        return t[1] * p[2] + t[2] * p[1]
      end,
    }
    ad.jvp(f, {2, 5}, {7, 11})
    near({2, 2, 5, 7, 11, 10}, seen)
    -- an argument that is constant has tangent 0, not nil
    ad.jvp(function(x) return f(x, 5) end, {2}, {7})
    near({2, 2, 5, 7, 0, 10}, seen)
  end)

  it("hears of the cotangent, the result, and the arguments", function()
    local seen
    local f = ad.custom{
      name = "f", f = function(x, y) return x * y end,
      vjp = function(ybar, y, ...)
        local a, b = ...
        seen = {ad.value(ybar), ad.value(y), select("#", ...), ad.value(a), ad.value(b)}
        return ybar * b, ybar * a
      end,
    }
    local _, pull = ad.vjp(f, 2, 5)
    near({35, 14}, {pull(7)})
    near({7, 10, 2, 2, 5}, seen)
  end)

  it("may use its result at any order", function()
    local f = ad.custom{
      name = "myexp", f = function(x) return math.exp(ad.value(x)) end,
      vjp = function(ybar, y) return ybar * y end,
    }
    local g = ad.custom{
      name = "myexp", f = function(x) return math.exp(ad.value(x)) end,
      jvp = function(_, t, y) return t[1] * y end,
    }
    local e = math.exp(0.4)
    for _, h in ipairs{f, g} do
      for i = 0, 15 do
        local d = h
        for bit = 0, 3 do d = ((i >> bit) & 1 == 1 and T.forward or T.reverse)(d) end
        near(e, d(0.4))
      end
      near({e, e, e / 2, e / 6, e / 24}, ad.taylor(h, 0.4, 4))
    end
  end)

  it("may answer nil for 0", function()
    local f = ad.custom{
      name = "first", f = function(x, y, z) return x * y * z end,
      vjp = function(ybar, _, x) return nil, ybar * x end,
    }
    near({0, 2, 0}, {ad.grad(f, {1, 2, 3})(2, 3, 4)})
    local none = ad.custom{
      name = "none", f = function(x) return x * x end, vjp = function() end,
    }
    near(0, ad.grad(none)(3))
    near(1, ad.grad(function(x) return none(x) + x end)(3))
  end)

  it("may answer a plain number", function()
    local f = ad.custom{name = "f", f = function(x) return 3 * x end,
      vjp = function(ybar) return 3 * ybar end, jvp = function() return 3 end}
    near(3, ad.grad(f)(1))
    near(3, T.forward(f)(1))
    near(0, ad.grad(ad.grad(f))(1))
  end)

  it("may be no linear function of the cotangent", function()
    -- gradient clipping: the identity whose cotangent is kept within bounds
    local clip = ad.custom{
      name = "clip", f = function(x) return x end,
      vjp = function(ybar) return ad.clamp(ybar, -1, 1) end,
    }
    near(1, ad.grad(function(x) return 10 * clip(x) end)(3))
    near(-1, ad.grad(function(x) return -10 * clip(x) end)(3))
    near(0.5, ad.grad(function(x) return 0.5 * clip(x) end)(3))
    -- it sees the whole cotangent of its result, not one use at a time
    near(1, ad.grad(function(x)
      local y = clip(x)
      return 0.8 * y + 0.9 * y
    end)(3))
    local _, pull = ad.vjp(clip, 3)
    near({0.25, 1, -1}, {(pull(0.25)), (pull(7)), (pull(-7))})
  end)

  it("may print or count without disturbing the result", function()
    local calls = 0
    local f = ad.custom{name = "f", f = function(x) return x * x end, vjp = function(b, _, x)
      calls = calls + 1
      return b * 2 * x
    end}
    near(6, ad.grad(f)(3))
    assert.equal(1, calls)
    -- not at all where nothing depends on it
    near(1, ad.grad(function(x)
      f(x)
      return x
    end)(3))
    assert.equal(1, calls)
  end)

  it("is not asked for plain numbers", function()
    local f = ad.custom{name = "f", f = function(x) return x * x end,
      vjp = function() error("asked") end, jvp = function() error("asked") end}
    near(9, f(3))
    near(1, ad.grad(function(x) return x + f(3) end)(3))
  end)

  it("may hold for a function that could not be differentiated", function()
    -- f looks things up in a table by string, say; the rule knows the slope
    local f = ad.custom{
      name = "lookup",
      f = function(x) return tonumber(("%.3f"):format(ad.value(x))) * 2 end,
      vjp = function(ybar) return 2 * ybar end,
    }
    near({2.5, 2}, {ad.value_and_grad(f)(1.25)})
  end)

  it("lets its errors through as they are", function()
    local e = {}
    local f = ad.custom{name = "f", f = function(x) return x end, vjp = function() error(e) end,
      jvp = function() error(e) end}
    assert.is_true(rawequal(e, T.failure(ad.grad(f), 1)))
    assert.is_true(rawequal(e, T.failure(T.forward(f), 1)))
    local g = ad.custom{name = "g", f = function() error(e) end, vjp = function() end}
    assert.is_true(rawequal(e, T.failure(ad.grad(g), 1)))
    near(6, ad.grad(function(x) return x * x end)(3))
  end)

  it("nests: one custom function inside another", function()
    local sq = ad.custom{name = "sq", f = function(x) return x * x end,
      vjp = function(b, _, x) return 2 * b * x end}
    local fourth = ad.custom{name = "fourth", f = function(x) return sq(sq(x)) end,
      vjp = function(b, _, x) return 4 * b * x * sq(x) end}
    near(4 * 27, ad.grad(fourth)(3))
    near(12 * 9, ad.grad(ad.grad(fourth))(3))
    near(24 * 3, T.forward(ad.grad(ad.grad(fourth)))(3))
  end)

  it("may itself use transforms", function()
    local f = ad.custom{name = "f", f = function(x) return x ^ 3 end,
      vjp = function(b, _, x) return b * ad.grad(function(t) return t ^ 3 end)(x) end}
    near(27, ad.grad(f)(3))
    near(18, ad.grad(ad.grad(f))(3))
  end)
end)

describe("custom with structures", function()
  local function dotf(a, b) return a[1] * b[1] + a[2] * b[2] end

  it("takes lists", function()
    local f = ad.custom{
      name = "dot2", f = dotf,
      vjp = function(ybar, _, a, b)
        return {ybar * b[1], ybar * b[2]}, {ybar * a[1], ybar * a[2]}
      end,
    }
    local g = ad.custom{
      name = "dot2", f = dotf,
      jvp = function(p, t) return dotf(t[1], p[2]) + dotf(p[1], t[2]) end,
    }
    for _, h in ipairs{f, g} do
      near(11, h({1, 2}, {3, 4}))
      near({{3, 4}, {1, 2}}, {ad.grad(h, {1, 2})({1, 2}, {3, 4})})
      near({11, 3 * 5 + 7}, {ad.jvp(h, {{1, 2}, {3, 4}}, {{5, 0}, {7, 0}})})
      near({{2, 0}, {0, 2}}, ad.hessian(function(x) return h(x, x) end)({1, 2}))
    end
  end)

  it("takes tables with names, and leaves that are not numeric", function()
    local f = ad.custom{
      name = "area", f = function(p) return p.w * p.h end,
      vjp = function(ybar, _, p)
        assert(p.unit == "m")
        return {w = ybar * p.h, h = ybar * p.w}
      end,
    }
    near({w = 3, h = 2}, ad.grad(f)({w = 2, h = 3, unit = "m"}))
    near(3, ad.grad(function(w) return f({w = w, h = 3, unit = "m"}) end)(2))
  end)

  it("gives lists", function()
    local function swap(x) return {x[2] * 2, x[1] * x[1]} end
    local f = ad.custom{name = "swap", f = swap,
      vjp = function(ybar, _, x) return {ybar[2] * 2 * x[1], ybar[1] * 2} end}
    local g = ad.custom{name = "swap", f = swap,
      jvp = function(p, t) return {t[1][2] * 2, 2 * p[1][1] * t[1][1]} end}
    for _, h in ipairs{f, g} do
      near({8, 9}, h({3, 4}))
      for _, jac in ipairs{ad.jacobian, ad.jacfwd, ad.jacrev} do
        near({{0, 2}, {6, 0}}, jac(h)({3, 4}))
      end
      -- only one of the results is used
      near({6, 0}, ad.grad(function(x) return h(x)[2] end)({3, 4}))
      near({0, 2}, ad.grad(function(x) return h(x)[1] end)({3, 4}))
    end
  end)
end)

describe("custom without rules", function()
  it("is an error that names the function and a rule", function()
    local function use()
      local f = ad.custom{name = "ruleless", f = function(x) return x * x end}
      ad.grad(f)(3)
    end
    local e = T.failure(use)
    assert.equal("string", type(e))
    assert.is_truthy(e:find("ruleless", 1, true))
    assert.is_truthy(e:find("vjp", 1, true) or e:find("jvp", 1, true))
    e = T.failure(function()
      local f = ad.custom{name = "ruleless", f = function(x) return x * x end}
      ad.jvp(f, {3}, {1})
    end)
    assert.is_truthy(e:find("ruleless", 1, true))
    assert.is_truthy(e:find("jvp", 1, true))
  end)

  it("does not leave a transform behind", function()
    near(6, ad.grad(function(x) return x * x end)(3))
  end)
end)

describe("the definition of a custom function", function()
  it("is checked", function()
    fails_with(function() ad.custom(nil) end,
      "bad argument #1 to 'custom' (table expected, got nil)")
    T.failure(function() ad.custom{name = "nof", vjp = function() end} end)
    T.failure(function() ad.custom{name = "badf", f = 5, vjp = function() end} end)
    T.failure(function() ad.custom{name = "badrule", f = function(x) return x end, vjp = 5} end)
  end)

  it("is copied", function()
    local d = {name = "f", f = function(x) return x * x end,
      vjp = function(b, _, x) return 2 * b * x end}
    local f = ad.custom(d)
    d.f, d.vjp, d.name = nil, nil, nil
    near({9, 6}, {ad.value_and_grad(f)(3)})
  end)

  it("is mapped over a batch, with structures, strings and what is shared", function()
    local seen
    local f = ad.custom {
      name = "scaled",
      f = function(p, s)
        seen = p.name
        return { p.a * p.a * s, p.b }
      end,
      vjp = function(w, _, p, s) -- three times what it is, to tell it from f's own
        return { a = 6 * p.a * s * w[1], b = 3 * w[2] }, 3 * ad.sum(p.a * p.a * w[1])
      end,
    }
    local function g(a, b, s)
      local y = f({ a = a, b = b, name = "x" }, s)
      return ad.sum(y[1]) * y[2]
    end
    local a, b = ad.array { { 1, 2 }, { 3, 4 }, { 5, 6 } }, ad.array { 1, 2, 3 }
    local axes = { 1, 1, false }
    assert.same({ 10, 100, 366 }, ad.vmap(g, axes)(a, b, 2.0):tolist())
    assert.equal("x", seen)
    local da, db, ds = ad.vmap(ad.grad(g, { 1, 2, 3 }), axes)(a, b, 2.0)
    assert.same({ { 12, 24 }, { 72, 96 }, { 180, 216 } }, da:tolist())
    assert.same({ 30, 150, 366 }, db:tolist())
    assert.same({ 15, 150, 549 }, ds:tolist())
    da, db, ds = ad.grad(function(...) return ad.sum(ad.vmap(g, axes)(...)) end,
      { 1, 2, 3 })(a, b, 2.0)
    assert.same({ { 12, 24 }, { 72, 96 }, { 180, 216 } }, da:tolist())
    assert.same({ 30, 150, 366 }, db:tolist())
    assert.equal(714, ds)
  end)
end)
