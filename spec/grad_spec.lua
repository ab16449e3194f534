local ad = require "autodiff"
local T = require "support.transforms"

local near, fails_with = T.near, T.fails_with

local function square(x) return x * x end

describe("grad", function()
  it("differentiates with respect to the first argument by default", function()
    local g = ad.grad(function(x, y) return x * x * y end)(3, 5)
    near(30, g)
    assert.equal("number", type(g))
  end)

  it("takes integers as floats", function()
    local g = ad.grad(square)(3)
    assert.equal(6, g)
    assert.equal("float", math.type(g))
  end)

  it("returns exactly one result for one argnum", function()
    assert.equal(1, select("#", ad.grad(square)(3)))
  end)

  it("calls f once", function()
    local calls = 0
    ad.grad(function(x)
      calls = calls + 1
      return x * x
    end)(2)
    assert.equal(1, calls)
  end)

  it("does not call f before the gradient is asked for", function()
    local calls = 0
    ad.grad(function(x)
      calls = calls + 1
      return x
    end)
    assert.equal(0, calls)
  end)

  it("may be asked many times at different points", function()
    local g = ad.grad(square)
    for i = -50, 50 do near(2 * i, g(i)) end
  end)

  it("hands f vars", function()
    local kind
    ad.grad(function(x)
      kind = ad.type(x)
      return x
    end)(1)
    assert.equal("var", kind)
  end)

  it("follows the control flow of f", function()
    local function power(x, n)
      local r = 1
      while n > 0 do
        r = r * x
        n = n - 1
      end
      return r
    end
    near(5 * 2 ^ 4, ad.grad(power)(2, 5))
    near(0, ad.grad(power)(2, 0))
    local function piecewise(x)
      if x < 1 then return x * x end
      return 3 * x
    end
    near(1, ad.grad(piecewise)(0.5))
    near(3, ad.grad(piecewise)(1.5))
  end)

  it("works when f asks for its own gradient", function()
    local g
    g = ad.grad(function(x, n)
      if n == 0 then return x * x end
      return g(x, n - 1) * x
    end)
    near(6, g(3, 0))
    near(12, g(3, 1))
    near(24, g(3, 2))
    near(48, g(3, 3))
  end)

  it("agrees with differences on random functions", function()
    local rnd = T.rng(11)
    for n = 1, 6 do
      local f = T.random_function(rnd, 1, n)
      local x = T.random_point(rnd, n)
      local function first(v) return f(v)[1] end
      near(T.differences(first, x), ad.grad(first)(x), 1e-7)
    end
  end)

  it("agrees with forward mode on random functions", function()
    local rnd = T.rng(12)
    for n = 1, 6 do
      local f = T.random_function(rnd, 1, n)
      local x = T.random_point(rnd, n)
      local function first(v) return f(v)[1] end
      local g = ad.grad(first)(x)
      for j = 1, n do
        local e = {}
        for k = 1, n do e[k] = k == j and 1 or 0 end
        local _, d = ad.jvp(first, {x}, {e})
        near(d, g[j])
      end
    end
  end)
end)

describe("argnums", function()
  local function f(x, y, z) return x * y * y + z * z * z end

  it("may be one number", function()
    near(9, (ad.grad(f, 1)(2, 3, 5)))
    near(12, (ad.grad(f, 2)(2, 3, 5)))
    near(75, (ad.grad(f, 3)(2, 3, 5)))
  end)

  it("may be a float with an integral value", function()
    near(12, (ad.grad(f, 2.0)(2, 3, 5)))
  end)

  it("may be a list, answered in its order", function()
    near({9, 12, 75}, {ad.grad(f, {1, 2, 3})(2, 3, 5)})
    near({75, 9}, {ad.grad(f, {3, 1})(2, 3, 5)})
    near({12}, {ad.grad(f, {2})(2, 3, 5)})
  end)

  it("may repeat", function()
    near({12, 12, 9, 12}, {ad.grad(f, {2, 2, 1, 2})(2, 3, 5)})
  end)

  it("may repeat a structure", function()
    local function g(t) return t.a * t.b end
    near({{a = 3, b = 2}, {a = 3, b = 2}}, {ad.grad(g, {1, 1})({a = 2, b = 3})})
  end)

  it("is not affected by a later change of the list", function()
    local list = {1, 2}
    local g = ad.grad(f, list)
    list[1], list[2], list[3] = 3, 3, 3
    near({9, 12}, {g(2, 3, 5)})
  end)

  it("leaves the other arguments alone", function()
    local t, fn = {1, 2}, function() end
    local n
    ad.grad(function(a, x, b, c, ...)
      assert.is_true(rawequal(a, t))
      assert.is_true(rawequal(b, fn))
      assert.is_nil(c)
      assert.equal("integer", math.type(a[1]))
      n = select("#", ...)
      return x
    end, 2)(t, 1, fn, nil, nil, nil)
    assert.equal(2, n)
  end)

  it("may be beyond a nil", function()
    near(4, (ad.grad(function(_, _, z) return z * z end, 3)(nil, nil, 2)))
  end)

  it("beyond the call is an error that says so", function()
    fails_with(function()
      local g = ad.grad(square, 3)
      g(1)
    end, "bad argument #2 to 'grad' (no argument 3: called with 1)")
    fails_with(function()
      local g = ad.grad(square, 2)
      g()
    end, "bad argument #2 to 'grad' (no argument 2: called with 0)")
  end)

  it("beyond the call is an error in a list too, before f runs", function()
    local calls = 0
    fails_with(function()
      local g = ad.grad(function(x)
        calls = calls + 1
        return x
      end, {1, 4})
      g(1, 2)
    end, "bad argument #2 to 'grad' (no argument 4: called with 2)")
    assert.equal(0, calls)
  end)

  it("that is no position is an error", function()
    for _, bad in ipairs{0, -1, 1.5, "x", true} do
      fails_with(function()
        local g = ad.grad(square, bad)
        g(1)
      end, "bad argument #2 to 'grad'")
    end
    for _, bad in ipairs{0, 1.5, "x"} do
      T.failure(function()
        local g = ad.grad(square, {1, bad})
        g(1)
      end)
    end
  end)
end)

describe("structures", function()
  it("give a gradient of their own shape", function()
    local x = {w = {1, 2, 3}, b = 4, deep = {{{y = 5}}}}
    local g = ad.grad(function(p)
      return p.w[1] * p.w[2] + p.w[3] ^ 2 + 7 * p.b + p.deep[1][1].y ^ 3
    end)(x)
    near({w = {2, 1, 6}, b = 7, deep = {{{y = 75}}}}, g)
  end)

  it("are not changed by the transform", function()
    local x = {1, {a = 2}}
    ad.grad(function(p) return p[1] * p[2].a end)(x)
    assert.equal("integer", math.type(x[1]))
    assert.equal("integer", math.type(x[2].a))
  end)

  it("reach f as something f may write to", function()
    local x = {1, 2}
    local g = ad.grad(function(p)
      p[1] = p[1] * p[2]
      return p[1] * p[1]
    end)(x)
    near({2 * 2 * 2, 2 * 2 * 1}, g)
    assert.same({1, 2}, x)
  end)

  it("may have any keys", function()
    local k = {}
    local x = {[k] = 3, [true] = 2, [0.5] = 4, [0] = 1, [-7] = 6}
    local g = ad.grad(function(p)
      return p[k] * p[true] + p[0.5] * p[0.5] + p[0] + 2 * p[-7]
    end)(x)
    near({[k] = 2, [true] = 3, [0.5] = 8, [0] = 1, [-7] = 2}, g)
  end)

  it("may be empty, or have empty parts", function()
    near({}, ad.grad(function() return 1 end)({}))
    near({{}, 1}, ad.grad(function(p) return p[2] end)({{}, 5}))
  end)

  it("carry leaves that are not numeric to f untouched", function()
    local fn, co = function() return 1 end, coroutine.create(function() end)
    local seen
    local g = ad.grad(function(p)
      seen = p
      return p.x * p.x
    end)({x = 3, s = "text", n = "10", yes = true, no = false, fn = fn, co = co})
    assert.equal("text", seen.s)
    assert.equal("10", seen.n)
    assert.equal(true, seen.yes)
    assert.equal(false, seen.no)
    assert.is_true(rawequal(fn, seen.fn))
    assert.is_true(rawequal(co, seen.co))
    near({x = 6}, g)
  end)

  it("leave them out at depth, but keep the tables", function()
    local g = ad.grad(function(p) return p.layer.w[1] end)(
      {layer = {kind = "dense", w = {1, 2}}, opts = {name = "n"}})
    near({layer = {w = {1, 0}}, opts = {}}, g)
  end)

  it("may contain the same table twice", function()
    local shared = {2, 3}
    local g = ad.grad(function(p) return p.a[1] * p.b[2] end)({a = shared, b = shared})
    -- whether the two places share one cotangent is left open; their sum is not
    assert.equal("number", type(g.a[1]))
    assert.equal("number", type(g.b[2]))
    assert.is_true(g.a[1] == 3 and g.b[2] == 2)
  end)

  it("that contain themselves are an error that says so", function()
    local x = {1}
    x.me = x
    fails_with(function() ad.grad(function(p) return p[1] end)(x) end, "itself")
    local a, b = {1}, {2}
    a.b, b.a = b, a
    fails_with(function() ad.grad(function(p) return p.deep[1] end)({deep = a}) end, "itself")
    -- and nothing is left behind by the error
    near(6, ad.grad(square)(3))
  end)

  it("may be deep", function()
    local x = 3
    for _ = 1, 150 do x = {x} end
    local function unwrap(p)
      while type(p) == "table" do p = p[1] end
      return p
    end
    near(6, unwrap(ad.grad(function(p)
      local v = unwrap(p)
      return v * v
    end)(x)))
  end)

  it("too deep are at worst an error", function()
    local x = 3
    for _ = 1, 250000 do x = {x} end
    local ok, e = pcall(ad.grad(function() return 1 end), x)
    assert.is_true(ok or type(e) == "string")
    near(6, ad.grad(square)(3))
  end)

  it("may be large", function()
    local x = {}
    for i = 1, 2000 do x[i] = i end
    local g = ad.grad(function(p)
      local s = 0
      for i = 1, #p do s = s + p[i] * p[i] end
      return s
    end)(x)
    assert.equal(2000, #g)
    for i = 1, 2000 do assert.equal(2.0 * i, g[i]) end
  end)
end)

describe("further results", function()
  it("follow the gradient", function()
    local g, s, b, n, last = ad.grad(function(x) return x * x, "aux", true, nil, 7 end)(3)
    near(6, g)
    assert.equal("aux", s)
    assert.equal(true, b)
    assert.is_nil(n)
    assert.equal(7, last)
    assert.equal(5, select("#", ad.grad(function(x) return x, nil, nil, nil, nil end)(3)))
  end)

  it("follow all gradients of a list", function()
    local r = {ad.grad(function(x, y) return x * y, "aux" end, {2, 1, 2})(3, 5)}
    assert.same({3, 5, 3, "aux"}, r)
  end)

  it("have this level removed", function()
    local g, twice, t = ad.grad(function(x)
      return x * x, 2 * x, {x + 1, deep = {x * x, "s"}}
    end)(3)
    near(6, g)
    near(6, twice)
    near({4, deep = {9, "s"}}, t)
  end)

  it("keep the levels outside", function()
    local function f(x)
      local _, aux, t = ad.grad(function(y) return y * y, y * x, {y * y * x} end)(x * 1)
      return aux + t[1]
    end
    -- aux = x^2, t[1] = x^3
    near(2 * 3 + 3 * 9, ad.grad(f)(3))
    near(2 * 3 + 3 * 9, T.forward(f)(3))
  end)

  it("are no part of the gradient", function()
    near(1, (ad.grad(function(x) return x, x * 1000 end)(3)))
  end)
end)

describe("callable objects", function()
  it("serve as f", function()
    local model = setmetatable({k = 5}, {__call = function(self, x) return self.k * x * x end})
    near(30, ad.grad(model)(3))
    local v, g = ad.value_and_grad(model)(3)
    near({45, 30}, {v, g})
    near(10, ad.grad(ad.grad(model))(3))
  end)

  it("include C functions and results of other transforms", function()
    near(math.cos(1), ad.grad(ad.sin)(1))
    near(-math.sin(1), ad.grad(ad.grad(ad.sin))(1))
  end)
end)

describe("what comes out", function()
  it("is plain when no other transform runs", function()
    local g = ad.grad(function(p) return p[1] * p[2] end)({2, 3})
    assert.equal("number", type(g[1]))
    assert.equal("number", type(g[2]))
    local v = ad.value_and_grad(square)(3)
    assert.equal("number", type(v))
  end)

  it("belongs to the transform outside when there is one", function()
    local kind
    ad.grad(function(x)
      local g = ad.grad(square)(x)
      kind = ad.type(g)
      return g
    end)(3)
    assert.equal("var", kind)
  end)

  it("is plain inside another transform if nothing of it is used", function()
    local kind
    ad.grad(function(x)
      kind = math.type(ad.grad(square)(3))
      return x
    end)(3)
    assert.equal("float", kind)
  end)
end)

describe("a result independent of the input", function()
  it("has gradient 0", function()
    local g = ad.grad(function() return 5 end)(3)
    assert.equal(0, g)
    assert.equal("number", type(g))
    near({0, 0}, {ad.grad(function() return 5.5 end, {1, 2})(3, 4)})
    near({a = 0, b = {0, 0}}, ad.grad(function() return 5 end)({a = 1, b = {2, 3}}))
  end)

  it("has gradient 0 where only some inputs are used", function()
    near({0, 1, 0}, ad.grad(function(p) return p[2] end)({1, 2, 3}))
    near({0, 1}, {ad.grad(function(_, y) return y end, {1, 2})(1, 2)})
  end)

  it("has gradient 0 when it is a value of the transform outside", function()
    local inner
    near(1, ad.grad(function(x)
      inner = ad.grad(function() return x * x end)(7)
      return x
    end)(3))
    near(0, ad.value(inner))
  end)

  it("passes the value of the transform outside through", function()
    near({9, 6}, {ad.value_and_grad(function(x)
      return (ad.value_and_grad(function() return x * x end)(7))
    end)(3)})
  end)

  it("is not confused by the identity", function()
    near(1, ad.grad(function(x) return x end)(3))
    near(0, ad.grad(ad.grad(function(x) return x end))(3))
  end)
end)

describe("results that are no number", function()
  it("are an error with a hint", function()
    fails_with(function() ad.grad(function(x) return {x} end)(1) end,
      "grad: function must return a number, got a table; for several outputs use ad.jacobian")
    fails_with(function() ad.value_and_grad(function(x) return {x} end)(1) end,
      "function must return a number, got a table; for several outputs use ad.jacobian")
  end)

  it("name what they are", function()
    fails_with(function() ad.grad(function() return "7" end)(1) end,
      "grad: function must return a number, got a string")
    fails_with(function() ad.grad(function() return true end)(1) end,
      "grad: function must return a number, got a boolean")
    fails_with(function() ad.grad(function() return print end)(1) end,
      "grad: function must return a number, got a function")
    fails_with(function() ad.grad(function() return nil end)(1) end,
      "grad: function must return a number, got")
    fails_with(function() ad.grad(function() end)(1) end,
      "grad: function must return a number, got")
  end)

  it("leave a clean state", function()
    pcall(ad.grad(function(x) return {x} end), 1)
    near(6, ad.grad(square)(3))
    near(2, ad.grad(ad.grad(square))(3))
  end)
end)

describe("argument errors", function()
  it("are Lua's own", function()
    fails_with(function() ad.grad(nil) end,
      "bad argument #1 to 'grad' (function expected, got nil)")
    fails_with(function() ad.grad(5) end,
      "bad argument #1 to 'grad' (function expected, got number)")
    fails_with(function() ad.grad("x") end,
      "bad argument #1 to 'grad' (function expected, got string)")
    fails_with(function() ad.grad({}) end,
      "bad argument #1 to 'grad' (function expected, got table)")
    fails_with(function() ad.grad() end,
      "bad argument #1 to 'grad' (function expected, got no value)")
    fails_with(function() ad.value_and_grad(nil) end,
      "bad argument #1 to 'value_and_grad' (function expected, got nil)")
  end)

  it("point at the caller", function()
    local e = T.failure(function() ad.grad(nil) end)
    assert.matches("grad_spec%.lua:%d+: bad argument", e)
  end)
end)

describe("value_and_grad", function()
  it("puts the value first", function()
    local r = {ad.value_and_grad(function(x, y) return x * x * y, "aux", x end, {2, 1})(3, 5)}
    assert.same({45.0, 9.0, 30.0, "aux", 3.0}, r)
  end)

  it("gives the value f gives", function()
    local rnd = T.rng(13)
    for n = 1, 5 do
      local f = T.random_function(rnd, 1, n)
      local x = T.random_point(rnd, n)
      local function first(v) return f(v)[1] end
      local v, g = ad.value_and_grad(first)(x)
      near(first(x), v, 1e-15)
      near(ad.grad(first)(x), g, 1e-15)
    end
  end)

  it("reports an argnum beyond the call", function()
    fails_with(function()
      local g = ad.value_and_grad(square, 3)
      g(1)
    end, "bad argument #2 to 'value_and_grad' (no argument 3: called with 1)")
  end)

  it("calls f once", function()
    local calls = 0
    ad.value_and_grad(function(x)
      calls = calls + 1
      return x * x
    end)(2)
    assert.equal(1, calls)
  end)
end)
