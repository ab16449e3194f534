local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near

-- The solvers insist on plain numbers, as the contract promises them.
local function plain(...)
  for i = 1, select("#", ...) do
    local v = select(i, ...)
    if type(v) == "table" then
      plain(table.unpack(v))
    else
      assert(type(v) == "number", "solve was given a " .. type(v))
    end
  end
end

local root = ad.implicit{
  f = function(x, a) return x * x - a end,
  solve = function(a)
    plain(a)
    return math.sqrt(a)
  end,
}

local kepler = ad.implicit{
  f = function(E, e, M) return E - e * ad.sin(E) - M end,
  solve = function(e, M)
    plain(e, M)
    local E = M
    for _ = 1, 60 do E = E - (E - e * math.sin(E) - M) / (1 - e * math.cos(E)) end
    return E
  end,
}

-- Newton's method, differentiable step by step: what kepler must agree with
local function kepler_unrolled(e, M)
  local E = M
  for _ = 1, 60 do E = E - (E - e * ad.sin(E) - M) / (1 - e * ad.cos(E)) end
  return E
end

-- x in R^2: x1 + a x2 = b, x1 x2 = 1 near (2, 1/2)
local system = ad.implicit{
  f = function(x, a, b) return {x[1] + a * x[2] - b, x[1] * x[2] - 1} end,
  solve = function(a, b)
    plain(a, b)
    local x1 = (b + math.sqrt(b * b - 4 * a)) / 2
    return {x1, 1 / x1}
  end,
}

local function system_closed(a, b)
  local x1 = (b + ad.sqrt(b * b - 4 * a)) / 2
  return {x1, 1 / x1}
end

describe("implicit", function()
  it("has the value of solve", function()
    near(3, root(9))
    assert.equal("number", type(root(9)))
    near(kepler_unrolled(0.3, 1.2), kepler(0.3, 1.2))
    near(system_closed(1, 2.5), system(1, 2.5))
  end)

  it("calls solve once with plain values", function()
    local calls = 0
    local r = ad.implicit{
      f = function(x, a) return x * x - a end,
      solve = function(a)
        calls = calls + 1
        assert.equal("number", type(a))
        return math.sqrt(a)
      end,
    }
    near({3, 1 / 6}, {ad.value_and_grad(r)(9)})
    assert.equal(1, calls)
  end)

  it("has first derivatives in every mode", function()
    for _, m in ipairs(T.modes) do
      near(1 / 6, m.d(root)(9))
    end
  end)

  it("has second derivatives in every pair of modes", function()
    local want = -0.25 * 9 ^ -1.5
    for _, a in ipairs(T.modes) do
      for _, b in ipairs(T.modes) do
        local ok, m = T.is_near(want, a.d(b.d(root))(9))
        assert(ok, a.name .. " of " .. b.name .. ": " .. tostring(m))
      end
    end
  end)

  it("has third derivatives forward and in reverse", function()
    local want = 0.375 * 9 ^ -2.5
    for i = 0, 7 do
      local d = root
      for bit = 0, 2 do d = ((i >> bit) & 1 == 1 and T.forward or T.reverse)(d) end
      near(want, d(9), 1e-12)
    end
  end)

  it("has Taylor coefficients", function()
    near(ad.taylor(ad.sqrt, 4, 6), ad.taylor(root, 4, 6))
    near(ad.taylor(function(M) return kepler_unrolled(0.3, M) end, 1.2, 5),
      ad.taylor(function(M) return kepler(0.3, M) end, 1.2, 5))
    near(ad.derivative(ad.sqrt, 3)(4), ad.derivative(root, 3)(4))
  end)

  it("takes several parameters", function()
    local want = {ad.grad(kepler_unrolled, {1, 2})(0.3, 1.2)}
    near(want, {ad.grad(kepler, {1, 2})(0.3, 1.2)})
    for _, v in ipairs{{1, 0}, {0, 1}, {2, -3}} do
      near({ad.jvp(kepler_unrolled, {0.3, 1.2}, v)}, {ad.jvp(kepler, {0.3, 1.2}, v)})
    end
    local function of(k) return function(p) return k(p[1], p[2]) end end
    near(ad.hessian(of(kepler_unrolled))({0.3, 1.2}), ad.hessian(of(kepler))({0.3, 1.2}))
    near(ad.hvp(of(kepler_unrolled), {0.3, 1.2}, {1, 2}), ad.hvp(of(kepler), {0.3, 1.2}, {1, 2}))
  end)

  it("takes constant parameters among the others", function()
    near(ad.grad(kepler_unrolled, 2)(0.3, 1.2),
      ad.grad(function(M) return kepler(0.3, M) end)(1.2))
    near(T.richardson(function(e) return kepler(e, 1.2) end, 0.3),
      ad.grad(function(e) return kepler(e, 1.2) end)(0.3), 1e-7)
  end)

  it("takes structures of parameters", function()
    local r = ad.implicit{
      f = function(x, p) return p.c[1] * x * x - p.c[2] end,
      solve = function(p)
        plain(p.c)
        assert.equal("n", p.name)
        return math.sqrt(p.c[2] / p.c[1])
      end,
    }
    local function closed(p) return ad.sqrt(p.c[2] / p.c[1]) end
    local p = {c = {2, 9}, name = "n"}
    near(ad.grad(closed)(p), ad.grad(r)(p))
  end)

  it("solves for lists", function()
    local function of(s) return function(p) return s(p[1], p[2]) end end
    local want = ad.jacobian(of(system_closed))({1, 2.5})
    for _, jac in ipairs{ad.jacobian, ad.jacfwd, ad.jacrev} do
      near(want, jac(of(system))({1, 2.5}))
    end
    local function scalar(s)
      return function(p)
        local x = s(p[1], p[2])
        return ad.sin(x[1]) * x[2] + x[1] * x[1]
      end
    end
    near(ad.grad(scalar(system_closed))({1, 2.5}), ad.grad(scalar(system))({1, 2.5}))
    near(ad.hessian(scalar(system_closed))({1, 2.5}), ad.hessian(scalar(system))({1, 2.5}))
  end)

  it("solves for lists at third order", function()
    local function f(s)
      return function(b)
        local x = s(1, b)
        return x[1] * x[2] * x[2]
      end
    end
    local want = ad.derivative(f(system_closed), 3)(2.5)
    for i = 0, 7 do
      local d = f(system)
      for bit = 0, 2 do d = ((i >> bit) & 1 == 1 and T.forward or T.reverse)(d) end
      near(want, d(2.5), 1e-9)
    end
    near(ad.taylor(f(system_closed), 2.5, 4), ad.taylor(f(system), 2.5, 4), 1e-9)
  end)

  it("solves linear systems that need pivoting", function()
    -- A = {{0, p}, {q, 1}}: the first pivot is 0
    local s = ad.implicit{
      f = function(x, p, q) return {p * x[2] - 1, q * x[1] + x[2] - 2} end,
      solve = function(p, q) return {(2 - 1 / p) / q, 1 / p} end,
    }
    near({{1 / 80, -(2 - 0.25) / 25}, {-1 / 16, 0}},
      ad.jacobian(function(t) return s(t[1], t[2]) end)({4, 5}))
    near({{1 / 80, -(2 - 0.25) / 25}, {-1 / 16, 0}},
      ad.jacfwd(function(t) return s(t[1], t[2]) end)({4, 5}))
  end)

  it("solves for a list of one", function()
    local r = ad.implicit{
      f = function(x, a) return {x[1] * x[1] - a} end,
      solve = function(a) return {math.sqrt(a)} end,
    }
    near({1 / 6}, ad.jacobian(r)(9))
    near(-0.25 * 9 ^ -1.5, ad.grad(ad.grad(function(a) return r(a)[1] end))(9))
  end)

  it("works among other operations", function()
    local function g(r) return function(x) return ad.sin(r(x * x + 1)) * x end end
    for _, m in ipairs(T.modes) do near(m.d(g(ad.sqrt))(0.7), m.d(g(root))(0.7)) end
    -- a root of a root
    near(ad.grad(function(x) return x ^ 0.25 end)(3),
      ad.grad(function(x) return root(root(x)) end)(3))
  end)

  it("passes values of outer transforms as parameters", function()
    -- d/dx [x * d/dy sqrt(x y)]
    local function f(r)
      return function(x)
        return x * ad.grad(function(y) return r(x * y) end)(2)
      end
    end
    near(ad.grad(f(ad.sqrt))(3), ad.grad(f(root))(3))
    near(ad.grad(f(ad.sqrt))(3), T.forward(f(root))(3))
    near(ad.grad(function(x)
      return x * T.forward(function(y) return ad.sqrt(x * y) end)(2)
    end)(3), ad.grad(function(x)
      return x * T.forward(function(y) return root(x * y) end)(2)
    end)(3))
  end)

  -- x^2 = a w, where w is known to the residual by closure alone
  local function closing(w)
    return ad.implicit{
      f = function(x, a) return x * x - a * w end,
      solve = function(a) return math.sqrt(a * ad.value(w)) end,
    }
  end

  it("differentiates what the residual closes over", function()
    near(0.5 * math.sqrt(9 / 4), ad.grad(function(w) return closing(w)(9) end)(4))
    near(0.5 * math.sqrt(9 / 4), T.forward(function(w) return closing(w)(9) end)(4))
  end)

  it("differentiates what the residual closes over, with a parameter in the same transform",
    function()
      -- d/dw sqrt(w^2) = 1
      near(1, ad.grad(function(w) return closing(w)(w) end)(4))
      near(1, T.forward(function(w) return closing(w)(w) end)(4))
    end)

  it("differentiates what the residual closes over, with a parameter in a transform inside",
    function()
      -- d/dw d/da sqrt(a w) = 1 / (4 sqrt(a w))
      local want = 1 / (4 * 6)
      near(want, ad.grad(function(w) return ad.grad(closing(w))(9) end)(4))
      near(want, T.forward(function(w) return ad.grad(closing(w))(9) end)(4))
      near(want, ad.grad(function(w) return T.forward(closing(w))(9) end)(4))
      near(want, T.forward(function(w) return T.forward(closing(w))(9) end)(4))
    end)

  it("may be solved by transforms", function()
    local r = ad.implicit{
      f = function(x, a) return x * x * x - a end,
      solve = function(a)
        local x = a
        local function f(t) return t * t * t - a end
        for _ = 1, 100 do
          local v, g = ad.value_and_grad(f)(x)
          x = x - v / g
        end
        return x
      end,
    }
    near({2, 1 / 12}, {ad.value_and_grad(r)(8)})
    near(-2 / 9 * 8 ^ (-5 / 3), ad.grad(ad.grad(r))(8))
  end)

  it("gives the optimum of an optimisation", function()
    -- x* = argmin (x - a)^2 + a x^2 = a / (1 + a), by its gradient being 0
    local argmin = ad.implicit{
      f = function(x, a) return ad.grad(function(t) return (t - a) ^ 2 + a * t ^ 2 end)(x) end,
      solve = function(a) return a / (1 + a) end,
    }
    near({0.75, 1 / 16}, {ad.value_and_grad(argmin)(3)})
    near(-2 / 64, ad.grad(ad.grad(argmin))(3))
    near(-2 / 64, T.forward(ad.grad(argmin))(3))
    near(-2 / 64, ad.grad(T.forward(argmin))(3))
  end)

  it("lets errors through and leaves a clean state", function()
    local e = {}
    local bad = ad.implicit{f = function(x) return x end, solve = function() error(e) end}
    assert.is_true(rawequal(e, T.failure(ad.grad(bad), 1)))
    local worse = ad.implicit{f = function() error(e) end, solve = function() return 1 end}
    assert.is_true(rawequal(e, T.failure(ad.grad(worse), 1)))
    near(1 / 6, ad.grad(root)(9))
  end)

  it("checks its definition", function()
    T.fails_with(function() ad.implicit(nil) end,
      "bad argument #1 to 'implicit' (table expected, got nil)")
    T.failure(function() ad.implicit{f = function() end} end)
    T.failure(function() ad.implicit{solve = function() end} end)
  end)
end)
