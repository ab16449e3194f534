local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near

local function named(m, fmt, ...)
  local ok, why = T.is_near(...)
  if not ok then error(fmt:format(m) .. ": " .. why, 2) end
end

describe("perturbations are not confused", function()
  -- each for every pair of an outer and an inner mode
  local function every(title, want, make)
    it(title, function()
      for _, a in ipairs(T.modes) do
        for _, b in ipairs(T.modes) do
          named(a.name .. " over " .. b.name, "%s", want, make(a.d, b.d))
        end
      end
    end)
  end

  every("in d/dx x * (d/dy x + y)", 1, function(D, d)
    return D(function(x) return x * d(function(y) return x + y end)(1) end)(1)
  end)

  every("in d/dx x * (d/dy x * y)", 2 * 3, function(D, d)
    return D(function(x) return x * d(function(y) return x * y end)(2) end)(3)
  end)

  every("in d/dx (d/dy y * y at y = x)", 2, function(D, d)
    return D(function(x) return d(function(y) return y * y end)(x) end)(3)
  end)

  every("in d/dx (d/dy x^2 y^3 at y = x)", 12 * 27, function(D, d)
    return D(function(x) return d(function(y) return x ^ 2 * y ^ 3 end)(x) end)(3)
  end)

  every("where the inner result is the outer variable", 0, function(D, d)
    return D(function(x) return d(function() return x end)(1) end)(3)
  end)

  every("where the inner argument is the outer variable, unused", 0, function(D, d)
    return D(function(x) return d(function() return 5 end)(x) end)(3)
  end)

  every("where inner and outer meet in one function", math.cos(6) - 6 * math.sin(6), function(D, d)
    -- d/dx d/dy sin(x y)
    return D(function(x) return d(function(y) return ad.sin(x * y) end)(2) end)(3)
  end)

  every("where the outer value is in a table", 2 * 3 * 2, function(D, d)
    return D(function(x)
      local t = {x = x}
      return x * d(function(y) return t.x * y * y / 2 end)(2)
    end)(3)
  end)

  every("where the outer value goes through comparison and max", 4 * 3, function(D, d)
    return D(function(x)
      return x * d(function(y)
        if x < y then return 0 end
        return ad.max(x, y) * y * 2
      end)(2)
    end)(3)
  end)

  it("in Siskind and Pearlmutter's curried offset", function()
    -- D of s gives a function; applying D of f to it must not mix the two
    local function shift(x) return function(g) return function(y) return g(x + y) end end end
    local function d_shift(g)
      return function(y)
        return ad.derivative(function(x) return shift(x)(g)(y) end)(0)
      end
    end
    -- d_shift is the derivative operator itself
    near(-math.sin(0.4), d_shift(d_shift(ad.sin))(0.4) * 1)
    near(-math.cos(0.4), d_shift(d_shift(d_shift(ad.sin)))(0.4))
  end)

  it("among siblings", function()
    near(2 * 3 + 9 * 9, ad.grad(function(x)
      local a = ad.grad(function(y) return y * y * x / 2 end)(x)
      local b = ad.grad(function(y) return y * y * y * x end)(x)
      return a + b
    end)(3))
    near(2 * 3 + 9 * 9, ad.grad(function(x)
      local a = T.forward(function(y) return y * y * x / 2 end)(x)
      local b = T.forward(function(y) return y * y * y * x end)(x)
      return a + b
    end)(3))
  end)
end)

describe("nesting", function()
  local function f(x) return ad.exp(ad.sin(x)) * x ^ 3 / (1 + x * x) end

  it("gives second derivatives in all pairs of modes", function()
    local want = T.richardson(ad.derivative(f), 0.7)
    local first = T.reverse(T.reverse(f))(0.7)
    near(want, first, 1e-7)
    for _, a in ipairs(T.modes) do
      for _, b in ipairs(T.modes) do
        named(a.name .. " of " .. b.name, "%s", first, a.d(b.d(f))(0.7))
      end
    end
  end)

  it("gives third derivatives in all triples of modes", function()
    local want = ad.derivative(f, 3)(0.7)
    near(T.richardson(ad.derivative(f, 2), 0.7), want, 1e-6)
    for _, a in ipairs(T.modes) do
      for _, b in ipairs(T.modes) do
        for _, c in ipairs(T.modes) do
          named(a.name .. " of " .. b.name .. " of " .. c.name, "%s", want,
            a.d(b.d(c.d(f)))(0.7), 1e-9)
        end
      end
    end
  end)

  it("gives sixth derivatives", function()
    local d = ad.sin
    for i = 1, 6 do d = i % 2 == 0 and T.forward(d) or T.reverse(d) end
    near(-math.sin(0.4), d(0.4))
    d = ad.exp
    for _ = 1, 5 do d = ad.grad(d) end
    near(math.exp(0.4), d(0.4))
  end)

  it("gives mixed partial derivatives in every order of asking", function()
    local function g(x, y) return x ^ 3 * y ^ 2 + ad.sin(x * y) end
    local x, y = 0.6, 1.1
    local want = 6 * x ^ 2 * y + math.cos(x * y) - x * y * math.sin(x * y)
    for _, a in ipairs(T.modes) do
      for _, b in ipairs(T.modes) do
        near(want, a.d(function(u)
          return b.d(function(v) return g(u, v) end)(y)
        end)(x))
        near(want, a.d(function(v)
          return b.d(function(u) return g(u, v) end)(x)
        end)(y))
      end
    end
  end)

  it("closes over values from two levels outside", function()
    for i = 0, 7 do
      local D = {}
      for bit = 0, 2 do D[bit + 1] = (i >> bit) & 1 == 1 and T.forward or T.reverse end
      -- d/dx d/dy d/dz of x y^2 z^3 at (2, 3, 5) = 2y 3z^2
      near(6 * 75, D[1](function(x)
        return D[2](function(y)
          return D[3](function(z) return x * y ^ 2 * z ^ 3 end)(5)
        end)(3)
      end)(2))
    end
  end)

  it("gives Jacobians and Hessians inside gradients", function()
    near(18, ad.grad(function(x)
      local J = ad.jacobian(function(p) return {p[1] * p[2] * x, p[2]} end)({x, 2})
      return J[1][2] * J[2][2] + J[1][2] * 2
    end)(3))
    near(24 * 3, ad.grad(function(x)
      return ad.hessian(function(p) return p[1] ^ 4 + p[1] * p[2] end)({x, 1})[1][1]
    end)(3))
    near(24 * 3, ad.grad(function(x)
      return ad.hvp(function(p) return p[1] ^ 4 end, {x}, {1})[1]
    end)(3))
  end)

  it("is a gradient step through a gradient step", function()
    -- x' = x - r f'(x) with f = x^4 / 4; f(x') differentiated by r, and by x
    local function step(x, r)
      return x - r * ad.grad(function(t) return t ^ 4 / 4 end)(x)
    end
    local x, r = 0.8, 0.1
    local x1 = x - r * x ^ 3
    local x2 = x1 - r * x1 ^ 3
    near(x2, step(step(x, r), r))
    local dx1r = -x ^ 3
    near(dx1r - x1 ^ 3 - r * 3 * x1 ^ 2 * dx1r, ad.grad(function(s)
      return step(step(x, s), s)
    end)(r))
    near((1 - 3 * r * x ^ 2) * (1 - 3 * r * x1 ^ 2), ad.grad(function(t)
      return step(step(t, r), r)
    end)(x))
  end)

  it("works on vars and tapes around transforms", function()
    local x = ad.var(2)
    local g = ad.grad(function(t) return t ^ 3 end)(x)
    near(12, ad.value(g))
    g:backward()
    near(12, x.grad)
    local tape <close> = ad.tape()
    local v = tape:var(2)
    local h = T.forward(function(t) return t ^ 3 * v end)(v)
    -- 3 v^2 v
    near(36, tape:gradient(h, v))
  end)

  it("works on duals by hand around transforms", function()
    local d = ad.grad(function(t) return t ^ 3 end)(ad.dual(2, 1))
    near(12, ad.value(d))
    near(12, d.tangent)
  end)

  it("leaves nothing running", function()
    local kind
    for _ = 1, 100 do kind = type(ad.grad(ad.grad(f))(0.7)) end
    assert.equal("number", kind)
    assert.equal("number", type(ad.grad(f)(0.7)))
  end)
end)

-- Where a factor is 0 at the point but not around it, the derivative of a rule
-- must not be that of the 0.
describe("higher derivatives where something vanishes", function()
  local cases = {
    {"x^y", function(p) return p[1] ^ p[2] end,
      {{2, 0}, {2, 1}, {2, 2}, {2, 3}, {2, -1}, {0.5, 0}, {1, 0}, {1, 1}}},
    {"pow", function(p) return ad.pow(p[1] * p[2], p[2] - 1) end, {{2, 1}, {0.5, 2}, {0.5, 3}}},
    {"x y", function(p) return p[1] * p[2] * p[2] end, {{0, 3}, {0, 0}, {2, 0}}},
    {"x / y", function(p) return p[1] / p[2] end, {{0, 3}, {0, -1}}},
    {"hypot", function(p) return ad.hypot(p[1], p[2]) end, {{3, 0}, {0, 3}, {-2, 0}}},
    {"atan2", function(p) return ad.atan2(p[1], p[2]) end, {{0, 2}, {2, 0}, {1, -0.5}}},
    {"norm", function(p) return ad.norm{p[1], p[2], 0} end, {{3, 0}, {0, 3}}},
    {"prod", function(p) return ad.prod{p[1], p[2], p[1] + 1} end, {{0, 3}, {0, 0}, {-1, 0}}},
    {"dot", function(p) return ad.dot({p[1], p[2]}, {p[2], p[1] * p[2]}) end, {{0, 0}, {0, 2}}},
    {"sin x sin y", function(p) return ad.sin(p[1]) * ad.sin(p[2]) end, {{0, 0}, {0, 1}}},
    {"whole powers", function(p) return p[1] ^ 2 + p[2] ^ 3 * p[1] end, {{0, 0}, {0, 1}, {-1, 0}}},
    {"tanh, atan, erf", function(p)
      return ad.tanh(p[1]) * ad.atan(p[2]) + ad.erf(p[1] * p[2])
    end, {{0, 0}, {0, 1}}},
    {"expm1, log1p", function(p) return ad.expm1(p[1]) * ad.log1p(p[2]) end, {{0, 0}, {1, 0}}},
    {"softplus, sigmoid", function(p)
      return ad.softplus(p[1]) * ad.sigmoid(p[2])
    end, {{0, 0}, {1, 0}}},
    {"log to a base", function(p) return ad.log(p[1], p[2]) end, {{1, 3}, {3, 3}}},
    {"softmax", function(p) return ad.softmax{p[1], p[2], 0}[1] end, {{0, 0}, {1, 0}}},
    {"logsumexp", function(p) return ad.logsumexp{p[1], p[2], 0} end, {{0, 0}, {1, 0}}},
  }

  for _, c in ipairs(cases) do
    it("in " .. c[1], function()
      local f = c[2]
      for _, at in ipairs(c[3]) do
        local want = T.jacobian_differences(ad.grad(f), at, 2)
        named(("%g, %g"):format(at[1], at[2]), "hessian at %s", want, ad.hessian(f)(at), 1e-6)
        near(want, ad.jacfwd(ad.grad(f))(at), 1e-6)
        near(want, ad.jacrev(ad.jacfwd(f))(at), 1e-6)
        near(want, ad.jacfwd(ad.jacfwd(f))(at), 1e-6)
        -- the third and the Taylor coefficients along a line
        local function line(t) return f{at[1] + t, at[2] + 0.7 * t} end
        local d = {}
        for k = 1, 4 do
          d[k] = ad.derivative(line, k)(0)
          near(T.richardson(ad.derivative(line, k - 1), 0), d[k], 1e-5)
        end
        for i = 0, 7 do
          local g = line
          for bit = 0, 2 do g = ((i >> bit) & 1 == 1 and T.forward or T.reverse)(g) end
          near(d[3], g(0), 1e-8)
        end
      end
    end)
  end
end)

describe("recursion", function()
  it("over a tree differentiates the tree", function()
    local function eval(t)
      if t.leaf then return t.leaf * t.leaf end
      return ad.sin(eval(t[1])) + eval(t[2]) * eval(t[1])
    end
    local g = ad.grad(eval)({{leaf = 0.5}, {{leaf = 0.3}, {leaf = 0.2}}})
    local function at(a, b, c)
      return ad.value(eval{{leaf = a}, {{leaf = b}, {leaf = c}}})
    end
    near(T.richardson(function(a) return at(a, 0.3, 0.2) end, 0.5), g[1].leaf, 1e-7)
    near(T.richardson(function(b) return at(0.5, b, 0.2) end, 0.3), g[2][1].leaf, 1e-7)
    near(T.richardson(function(c) return at(0.5, 0.3, c) end, 0.2), g[2][2].leaf, 1e-7)
  end)

  it("of a transform in its own f is right at any depth", function()
    -- the n-th derivative, by a function that differentiates itself
    local function nth(n, x)
      if n == 0 then return ad.sin(x) end
      return ad.grad(function(t) return nth(n - 1, t) end)(x)
    end
    for n = 0, 5 do near(math.sin(0.4 + n * math.pi / 2), nth(n, 0.4)) end
  end)

  it("deeper than it can go is an ordinary error", function()
    local function deep(x) return ad.grad(deep)(x) end
    local e = T.failure(ad.grad(deep), 1)
    assert.equal("string", type(e))
    near(6, ad.grad(function(x) return x * x end)(3))
    near(2, ad.grad(ad.grad(function(x) return x * x end))(3))
  end)

  it("of many levels that ends is right", function()
    local function deep(x, n)
      if n == 0 then return x * x end
      return T.forward(function(y) return y * deep(1, 0) end)(x) * deep(x, n - 1)
    end
    near(6, ad.grad(function(x) return deep(x, 30) end)(3))
    -- transforms inside transforms, seven deep, each with its own variable
    local function level(n, sum)
      if n == 0 then return sum * sum / 2 end
      return ad.grad(function(y) return level(n - 1, sum + y) end)(1)
    end
    near({1, 0}, {level(2, 0), level(7, 0)})
  end)
end)

describe("values that leaked", function()
  it("through an upvalue are constants", function()
    local leak
    near(6, ad.grad(function(x)
      leak = x * x
      return leak
    end)(3))
    near(9, ad.value(leak))
    near(18, ad.value(leak * 2))
    near(9, ad.grad(function(x) return leak * x end)(5))
    near(9, T.forward(function(x) return leak * x end)(5))
    near({45, 9, 0}, ad.taylor(function(x) return leak * x end, 5, 2))
    near(0, ad.grad(function() return leak end)(5))
    near(0, T.forward(function() return leak end)(5))
    near({9, 0}, {ad.value_and_grad(function() return leak end)(5)})
  end)

  it("from every mode are constants in every mode", function()
    for _, a in ipairs(T.modes) do
      local leak
      a.d(function(x)
        leak = x * x
        return leak
      end)(3)
      for _, b in ipairs(T.modes) do
        named(a.name .. " into " .. b.name, "%s", 9,
          b.d(function(x) return leak * x + ad.sin(leak) * 2 end)(5))
        named(a.name .. " into " .. b.name, "%s", 2 * 5,
          b.d(function(x) return x * x + leak * leak end)(5))
      end
    end
  end)

  it("through tables are constants", function()
    local log = {}
    local function f(x)
      log[#log + 1] = x
      local s = 0
      for _, v in ipairs(log) do s = s + v * x end
      return s
    end
    -- each earlier x is a constant: s = x^2 + sum of earlier x
    near(2 * 1, ad.grad(f)(1))
    near(2 * 2 + 1, ad.grad(f)(2))
    near(2 * 3 + 1 + 2, ad.grad(f)(3))
    near(2 * 4 + 1 + 2 + 3, T.forward(f)(4))
    near(2 * 5 + 1 + 2 + 3 + 4, ad.grad(f)(5))
  end)

  it("from an inner transform keep what they are in the outer", function()
    -- the inner y is x there, so y * x is x^2 outside
    for _, a in ipairs(T.modes) do
      for _, b in ipairs(T.modes) do
        named(a.name .. " around " .. b.name, "%s", 2 * 3 + 3 * 9, a.d(function(x)
          local leak
          b.d(function(y)
            leak = y * x
            return y
          end)(x)
          return leak + leak * x
        end)(3))
      end
    end
  end)

  it("are constants although other transforms run meanwhile", function()
    local leak
    ad.grad(function(x)
      ad.grad(function(y)
        leak = x * y
        return y
      end)(2)
      return x
    end)(3)
    near(6, ad.value(leak))
    near(6, ad.grad(function(x) return ad.grad(function(y) return leak * x * y end)(2) end)(5))
    near(6 * 2, ad.grad(function(x) return leak * x * 2 end)(5))
  end)

  it("may still be compared, converted and printed", function()
    local leak
    ad.grad(function(x)
      leak = x * x
      return leak
    end)(3)
    assert.is_true(leak < 10)
    assert.is_false(leak <= 8)
    assert.is_true(ad.eq(leak, 9))
    assert.equal("string", type(tostring(leak)))
    near(3, ad.value(ad.sqrt(leak)))
    near(-9, ad.value(-leak))
    near(9, ad.value(leak.value))
  end)

  it("are held by structures given to transforms", function()
    local leak
    ad.grad(function(x)
      leak = x * x
      return leak
    end)(3)
    -- as the point itself, as part of it, and as another argument
    near(18, ad.grad(function(x) return x * x end)(leak))
    near({9, 2}, ad.grad(function(p) return p[1] * p[2] end)({2, leak}))
    near(9, ad.grad(function(x, k) return x * k end)(2, leak))
    near(9, T.forward(function(x) return x * leak end)(2))
  end)

  it("do not keep the transform that made them alive", function()
    local leak
    local held = setmetatable({}, {__mode = "v"})
    do
      local big = {}
      held[1] = big
      ad.grad(function(x)
        leak = x + (big and 1)
        return leak
      end)(3)
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(held[1])
    near(4, ad.value(leak))
  end)

  it("of many transforms do not add up", function()
    local leak = 0
    for i = 1, 200 do
      near(2 * i, ad.grad(function(x)
        local r = x * x + leak * 0
        leak = leak + x
        return r
      end)(i))
    end
    near(200 * 201 / 2, ad.value(leak))
  end)
end)

describe("levels of coroutines", function()
  it("are not confused by the order of starting and ending", function()
    -- B starts inside A's span and ends after it
    local shared
    local A = coroutine.wrap(function()
      return ad.grad(function(x)
        shared = x
        coroutine.yield()
        local y = x * x
        coroutine.yield()
        return y * x
      end)(3)
    end)
    local B = coroutine.wrap(function()
      return ad.grad(function(y)
        coroutine.yield()
        -- A's x is a constant for B while A is suspended, and after it ended
        local r = shared * y
        coroutine.yield()
        return r * y + shared * y
      end)(5)
    end)
    A()
    B()
    A()
    B()
    near(27, A())
    near(2 * 15 + 3, B())
  end)

  it("see the values of a suspended transform as constants", function()
    local x
    local co = coroutine.wrap(function()
      return ad.grad(function(v)
        x = v * v
        coroutine.yield()
        return x * v
      end)(3)
    end)
    co()
    near(9, ad.value(ad.grad(function(y) return x * y end)(5)))
    near(9, ad.value(T.forward(function(y) return x * y end)(5)))
    near(27, co())
  end)

  it("carry the outer transform into coroutines that f runs", function()
    local function f(x)
      local co = coroutine.wrap(function(a)
        local b = coroutine.yield(a * x)
        local c = coroutine.yield(ad.grad(function(y) return y * y * b end)(x))
        return c * x
      end)
      local p = co(x)          -- x^2
      local q = co(p)          -- 2 x p = 2 x^3
      return co(q)             -- 2 x^4
    end
    near(8 * 27, ad.grad(f)(3))
    near(8 * 27, T.forward(f)(3))
    near(24 * 9, ad.grad(ad.grad(f))(3))
  end)

  it("serve a generator shared by two transforms", function()
    local gen = coroutine.wrap(function(v)
      while true do v = coroutine.yield(v * v) end
    end)
    near(2 * 3, ad.grad(function(x) return gen(x) end)(3))
    near(2 * 4, T.forward(function(x) return gen(x) end)(4))
    near(4 * 5 ^ 3, ad.grad(function(x) return gen(gen(x)) end)(5))
  end)
end)

describe("an intermediate value as a source", function()
  it("has its cotangent where partial derivatives are values of another transform", function()
    local f = function(x)
      return ad.grad(function(y)
        local tape <close> = ad.tape()
        local u = tape:var(y)
        local m = u * u * x
        local z = ad.exp(m) * m
        return (tape:gradient(z, m))
      end)(x)
    end
    -- dz/dm = e^m (m + 1) at m = y^2 x; by y: 2 x y e^m (m + 2)
    local x = 0.7
    near(2 * x * x * math.exp(x ^ 3) * (x ^ 3 + 2), f(x))
  end)
end)
