local ad = require "autodiff"
local T = require "support.transforms"

local near, fails_with = T.near, T.fails_with

local kinds = {"jacobian", "jacfwd", "jacrev"}

for _, name in ipairs(kinds) do
  describe(name, function()
    local jac = ad[name]

    it("of a tall function", function()
      near({{2, 1}, {3, 0}, {0, 10}}, jac(function(x)
        return {x[1] * x[2], 3 * x[1], x[2] * x[2] * 2.5}
      end)({1, 2}))
    end)

    it("of a wide function", function()
      near({{2, 1, 0, 0}, {0, 0, 4, 3}}, jac(function(x)
        return {x[1] * x[2], x[3] * x[4]}
      end)({1, 2, 3, 4}))
    end)

    it("of a square function", function()
      local r, t = 2, 0.3
      near({{math.cos(t), -r * math.sin(t)}, {math.sin(t), r * math.cos(t)}},
        jac(function(p) return {p[1] * ad.cos(p[2]), p[1] * ad.sin(p[2])} end)({r, t}))
    end)

    it("of one to one", function()
      near({{6}}, jac(function(x) return {x[1] * x[1]} end)({3}))
    end)

    it("of a number to a number is a number", function()
      local J = jac(function(x) return x * x end)(3)
      assert.equal(6, J)
      assert.equal("number", type(J))
    end)

    it("of a number to a list is a list", function()
      near({6, 1, 0}, jac(function(x) return {x * x, x, 4} end)(3))
    end)

    it("of a list to a number is the gradient", function()
      near({4, 3, 0}, jac(function(x) return x[1] * x[2] end)({3, 4, 5}))
    end)

    it("of structures has the structure of the result, then of the argument", function()
      local J = jac(function(p)
        return {s = p.a * p.b[1], t = {p.b[2] * 3}}
      end)({a = 2, b = {5, 7}})
      near({s = {a = 5, b = {2, 0}}, t = {{a = 0, b = {0, 3}}}}, J)
    end)

    it("of an f with its own table of results", function()
      local out = {}
      near({{1, 1}, {2, 0}}, jac(function(x)
        out[1], out[2] = x[1] + x[2], 2 * x[1]
        return out
      end)({1, 2}))
    end)

    it("with respect to another argument", function()
      local function f(s, x) return {s * x[1], x[2] * x[2]} end
      near({{5, 0}, {0, 8}}, jac(f, 2)(5, {3, 4}))
      near({3, 0}, jac(f, 1)(5, {3, 4}))
      near({3, 0}, jac(f)(5, {3, 4}))
    end)

    it("has zeros for what does not depend on the input", function()
      near({{0, 0}, {0, 1}}, jac(function(x) return {7, x[2]} end)({1, 2}))
      near({{0, 0}}, jac(function() return {7} end)({1, 2}))
    end)

    it("of the identity is the unit matrix", function()
      near({{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, jac(function(x) return x end)({4, 5, 6}))
    end)

    it("leaves the argument alone", function()
      local x = {1, 2}
      jac(function(p) return {p[1] * p[2]} end)(x)
      assert.same({1, 2}, x)
      assert.equal("integer", math.type(x[1]))
    end)

    it("agrees with differences on random functions of all shapes", function()
      local rnd = T.rng(31)
      for n = 1, 4 do
        for m = 1, 4 do
          local f = T.random_function(rnd, m, n)
          local x = T.random_point(rnd, n)
          near(T.jacobian_differences(f, x, m), jac(f)(x), 1e-7)
        end
      end
    end)

    it("is differentiable", function()
      -- d/dx of the trace of the Jacobian, in both modes
      local function trace(x)
        local J = jac(function(p) return {p[1] ^ 3 * p[2], p[1] * p[2] ^ 3} end)({x, 2 * x})
        return J[1][1] + J[2][2]
      end
      -- 3 x^2 2x + x 3 (2x)^2 = 6 x^3 + 12 x^3
      near(54 * 0.25, ad.grad(trace)(0.5))
      near(54 * 0.25, T.forward(trace)(0.5))
    end)

    it("contains numbers only when no transform runs outside", function()
      local J = jac(function(p) return {p[1] * p[2], p[2]} end)({2, 3})
      for i = 1, 2 do
        for j = 1, 2 do assert.equal("number", type(J[i][j])) end
      end
    end)

    it("reports bad arguments", function()
      fails_with(function() jac(nil) end, "bad argument #1", "(function expected, got nil)")
      fails_with(function()
        local g = jac(function(x) return x end, 3)
        g(1)
      end, "bad argument #2", "no argument 3: called with 1")
    end)
  end)
end

describe("the three Jacobians", function()
  it("agree on random functions", function()
    local rnd = T.rng(32)
    for _, shape in ipairs{{1, 1}, {1, 8}, {8, 1}, {3, 9}, {9, 3}, {12, 12}} do
      local f = T.random_function(rnd, shape[1], shape[2])
      local x = T.random_point(rnd, shape[2])
      local J = ad.jacobian(f)(x)
      assert.equal(shape[1], #J)
      assert.equal(shape[2], #J[1])
      near(J, ad.jacfwd(f)(x))
      near(J, ad.jacrev(f)(x))
    end
  end)

  it("give the kind of value their mode has", function()
    local kind
    local function f(x)
      kind = ad.type(x[1])
      return {x[1]}
    end
    ad.jacrev(f)({1})
    assert.equal("var", kind)
    ad.jacfwd(f)({1})
    assert.equal("dual", kind)
  end)

  it("choose the mode by shape", function()
    -- whichever way the matrix is long, f runs far fewer times than that
    for _, shape in ipairs{{2, 200}, {200, 2}} do
      local m, n = shape[1], shape[2]
      local calls = 0
      local function f(x)
        calls = calls + 1
        local r = {}
        for i = 1, m do r[i] = i * x[(i - 1) % n + 1] end
        return r
      end
      local x = {}
      for j = 1, n do x[j] = j end
      local J = ad.jacobian(f)(x)
      assert.equal(m, #J)
      assert.equal(n, #J[1])
      assert.equal(1, J[1][1])
      assert.equal(m, J[m][(m - 1) % n + 1])
      assert.is_true(calls <= 8, calls .. " calls")
    end
  end)
end)

describe("hessian", function()
  it("of a function of a list", function()
    near({{2 * 4, 2 * 3}, {2 * 3, 6 * 4}}, ad.hessian(function(x)
      return x[1] ^ 2 * x[2] + x[2] ^ 3
    end)({3, 4}))
  end)

  it("is a number when x is a number", function()
    local h = ad.hessian(function(x) return x ^ 3 end)(2)
    near(12, h)
    assert.equal("number", type(h))
  end)

  it("of one variable in a list", function()
    near({{12}}, ad.hessian(function(x) return x[1] ^ 3 end)({2}))
  end)

  it("with respect to another argument", function()
    local function f(s, x) return s ^ 2 * x[1] * x[2] end
    near({{0, 9}, {9, 0}}, ad.hessian(f, 2)(3, {5, 7}))
    near(70, ad.hessian(f, 1)(3, {5, 7}))
  end)

  it("of a structure has its structure twice", function()
    near({a = {a = 0, b = {1, 0}}, b = {{a = 1, b = {0, 0}}, {a = 0, b = {0, 2}}}},
      ad.hessian(function(p) return p.a * p.b[1] + p.b[2] ^ 2 end)({a = 2, b = {3, 4}}))
  end)

  it("is zero for linear and constant functions", function()
    near({{0, 0}, {0, 0}}, ad.hessian(function(x) return 3 * x[1] - x[2] end)({1, 2}))
    near({{0, 0}, {0, 0}}, ad.hessian(function() return 3 end)({1, 2}))
    near(0, ad.hessian(function(x) return x end)(1))
  end)

  it("is symmetric, and the Jacobian of the gradient, on random functions", function()
    local rnd = T.rng(33)
    for n = 1, 6 do
      local f = T.random_function(rnd, 1, n)
      local function first(v) return f(v)[1] end
      local x = T.random_point(rnd, n)
      local H = ad.hessian(first)(x)
      local g = ad.grad(first)
      for i = 1, n do
        for j = 1, n do near(H[i][j], H[j][i]) end
      end
      near(ad.jacfwd(g)(x), H)
      near(ad.jacrev(g)(x), H)
      near(T.jacobian_differences(g, x, n), H, 1e-6)
    end
  end)

  it("is differentiable", function()
    local function f(t)
      return ad.hessian(function(x) return x[1] ^ 4 * x[2] end)({t, t})[1][1]
    end
    -- 12 t^2 t
    near(36 * 0.25, ad.grad(f)(0.5))
    near(36 * 0.25, T.forward(f)(0.5))
  end)

  it("reports bad arguments", function()
    fails_with(function() ad.hessian(nil) end,
      "bad argument #1 to 'hessian' (function expected, got nil)")
  end)
end)

describe("hvp", function()
  local function f(x) return x[1] ^ 2 * x[2] + ad.sin(x[2] * x[3]) end

  it("is the Hessian times v", function()
    local x = {0.5, 0.7, -0.2}
    local H = ad.hessian(f)(x)
    for j = 1, 3 do
      local e = {0, 0, 0}
      e[j] = 1
      near({H[1][j], H[2][j], H[3][j]}, ad.hvp(f, x, e))
    end
    near({2 * H[1][1] - H[1][3], 2 * H[2][1] - H[2][3], 2 * H[3][1] - H[3][3]},
      ad.hvp(f, x, {2, 0, -1}))
  end)

  it("of a number is a number", function()
    local h = ad.hvp(function(x) return x ^ 3 end, 2, 5)
    near(60, h)
    assert.equal("number", type(h))
  end)

  it("has the structure of x", function()
    near({a = 3, b = {2, 8}}, ad.hvp(function(p)
      return p.a * p.b[1] + p.b[2] ^ 2
    end, {a = 2, b = {3, 4}}, {a = 2, b = {3, 4}}))
  end)

  it("is zero for a linear function", function()
    near({0, 0}, ad.hvp(function(x) return x[1] + x[2] end, {1, 2}, {3, 4}))
    near({0, 0}, ad.hvp(function() return 1 end, {1, 2}, {3, 4}))
  end)

  it("does not form the Hessian", function()
    local n, calls = 300, 0
    local x, v = {}, {}
    for i = 1, n do x[i], v[i] = i / n, 1 end
    local h = ad.hvp(function(p)
      calls = calls + 1
      local s = 0
      for i = 1, n - 1 do s = s + p[i] * p[i + 1] end
      return s
    end, x, v)
    assert.equal(1, h[1])
    assert.equal(2, h[2])
    assert.equal(1, h[n])
    assert.is_true(calls <= 4, calls .. " calls")
  end)

  it("agrees with the Hessian on random functions", function()
    local rnd = T.rng(34)
    for n = 1, 6 do
      local g = T.random_function(rnd, 1, n)
      local function first(p) return g(p)[1] end
      local x, v = T.random_point(rnd, n), T.random_point(rnd, n)
      local H, want = ad.hessian(first)(x), {}
      for i = 1, n do
        want[i] = 0
        for j = 1, n do want[i] = want[i] + H[i][j] * v[j] end
      end
      near(want, ad.hvp(first, x, v))
    end
  end)

  it("is differentiable in x and in v", function()
    local function cube(x) return x ^ 3 end
    near(6 * 5, ad.grad(function(x) return ad.hvp(cube, x, 5) end)(2))
    near(12, ad.grad(function(v) return ad.hvp(cube, 2, v) end)(5))
  end)
end)
