local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near

describe("stop", function()
  it("makes a constant", function()
    near(3, ad.grad(function(x) return ad.stop(x) * x end)(3))
    near(0, ad.grad(function(x) return ad.stop(x * x) end)(3))
    near(3, T.forward(function(x) return ad.stop(x) * x end)(3))
    near({9, 3, 0}, ad.taylor(function(x) return ad.stop(x) * x end, 3, 2))
    near({{3}}, ad.jacobian(function(x) return {ad.stop(x[1]) * x[1]} end)({3}))
  end)

  it("keeps the value", function()
    near({9, 3}, {ad.value_and_grad(function(x) return ad.stop(x) * x end)(3)})
    near(2.5, ad.stop(2.5))
    assert.equal("integer", math.type(ad.stop(7)))
  end)

  it("takes structures", function()
    local g = ad.grad(function(p)
      local q = ad.stop(p)
      assert.equal("n", q.name)
      return q.a * p.a + q.b[1] * p.b[1]
    end)({a = 2, b = {3}, name = "n"})
    near({a = 2, b = {3}}, g)
  end)

  it("leaves the structure it is given alone", function()
    near(6, ad.grad(function(x)
      local t = {x}
      ad.stop(t)
      return t[1] * t[1]
    end)(3))
  end)

  it("stops every level", function()
    near(0, ad.grad(function(x)
      return ad.grad(function(y) return ad.stop(x * y) * y end)(2)
    end)(3))
    near(6, ad.grad(function(y) return ad.stop(3 * y) * y end)(2))
  end)

  it("stops second derivatives as well", function()
    near(0, ad.grad(ad.grad(function(x) return ad.stop(x) * x end))(3))
    near(0, T.forward(ad.grad(function(x) return ad.stop(x) * x end))(3))
  end)

  it("makes straight-through estimators", function()
    local function f(x) return x + ad.stop(ad.floor(x) - x) end
    near({2, 1}, {ad.value_and_grad(f)(2.7)})
  end)

  it("ends at structures that contain themselves", function()
    local t = {1}
    t.me = t
    T.fails_with(function() ad.stop(t) end, "itself")
  end)
end)

describe("no_grad", function()
  it("computes constants for the transform that runs", function()
    local function f(x)
      local k = ad.no_grad(function() return x * x end)
      return k * x
    end
    near(9, ad.grad(f)(3))
    near(9, T.forward(f)(3))
    near({27, 9, 0}, ad.taylor(f, 3, 2))
    near(9, ad.derivative(f)(3))
    local _, pull = ad.vjp(f, 3)
    near(9, (pull(1)))
    local _, lin = ad.linearize(f, 3)
    near(9, lin(1))
    near({{9}}, ad.jacobian(function(x) return {f(x[1])} end)({3}))
  end)

  it("passes arguments and results", function()
    local a, b, c
    near({1, 2, "x", 3}, (function(...) return {...} end)(ad.no_grad(function(...)
      a, b, c = ...
      return 1, 2, "x", select("#", ...)
    end, 5, nil, "s")))
    assert.equal(5, a)
    assert.is_nil(b)
    assert.equal("s", c)
    assert.equal(0, select("#", ad.no_grad(function() end)))
  end)

  it("makes constants of values handed in as arguments", function()
    near(9, ad.grad(function(x) return ad.no_grad(function(y) return y * y end, x) * x end)(3))
  end)

  it("ends with its function", function()
    near(9 + 6, ad.grad(function(x)
      local k = ad.no_grad(function() return x * x end)
      return k * x + x * x
    end)(3))
  end)

  it("ends with an error", function()
    near(6, ad.grad(function(x)
      local ok = pcall(ad.no_grad, function() error("stop") end)
      assert.is_false(ok)
      return x * x
    end)(3))
  end)

  it("does nothing where no transform runs", function()
    assert.equal(5, ad.no_grad(function() return 5 end))
    local x, y = ad.no_grad(function() return 5, "a" end)
    assert.equal(5, x)
    assert.equal("a", y)
  end)

  it("holds for the innermost transform only", function()
    local function inner(x)
      return ad.grad(function(y) return ad.no_grad(function() return x * y end) * y end)(2)
    end
    -- inside: x y as a constant, so the inner derivative is 2 x
    near({6, 2}, {ad.value_and_grad(inner)(3)})
    near(2, T.forward(inner)(3))
    local function forward_inner(x)
      return T.forward(function(y) return ad.no_grad(function() return x * y end) * y end)(2)
    end
    near({6, 2}, {ad.value_and_grad(forward_inner)(3)})
    near(2, T.forward(forward_inner)(3))
  end)

  it("holds for a second one inside the first", function()
    local function f(x)
      return ad.no_grad(function()
        local a = x * x
        return a * ad.no_grad(function() return x * 2 end)
      end) * x
    end
    near(9 * 6, ad.grad(f)(3))
  end)

  it("goes on after a second one inside the first", function()
    local function f(x)
      return ad.no_grad(function()
        ad.no_grad(function() return x end)
        return x * x
      end) * x
    end
    near(9, ad.grad(f)(3))
  end)

  it("does not reach into transforms that start inside", function()
    near(6 * 3, ad.grad(function(x)
      local g = ad.no_grad(function()
        return ad.grad(function(y) return y * y end)(ad.value(x))
      end)
      assert.equal(6, ad.value(g))
      return g * x * 3
    end)(3))
    -- with a value of the transform outside, which is a constant there
    near(6, ad.grad(function(x)
      return ad.no_grad(function() return ad.grad(function(y) return y * x end)(1) end) * 2 * x
    end)(3))
  end)

  it("holds for vars without a transform", function()
    local x = ad.var(3)
    local k = ad.no_grad(function() return x * x end)
    local z = k * x
    z:backward()
    near(9, x.grad)
  end)

  it("may yield", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local k = ad.no_grad(function()
          local a = x * x
          coroutine.yield("pause")
          return a * x
        end)
        return k * x
      end)(3)
    end)
    assert.equal("pause", co())
    -- the pause does not stop anyone else's derivatives
    near(6, ad.grad(function(x) return x * x end)(3))
    near(6, T.forward(function(x) return x * x end)(3))
    near(27, co())
  end)

  it("holds for the transform of its own coroutine", function()
    local function task(x0)
      return coroutine.wrap(function()
        return ad.grad(function(x)
          local a = x * x
          coroutine.yield()
          local k = ad.no_grad(function() return x * x end)
          coroutine.yield()
          return a * x + k * x
        end)(x0)
      end)
    end
    -- whichever started first, each no_grad concerns its own transform
    for _, order in ipairs{{1, 2, 1, 2, 1, 2}, {1, 2, 2, 1, 1, 2}, {2, 1, 1, 2, 2, 1},
                           {1, 2, 1, 1, 2, 2}, {1, 2, 2, 2, 1, 1}} do
      local co, r = {task(2), task(3)}, {}
      for _, i in ipairs(order) do r[i] = co[i]() end
      near({3 * 4 + 4, 3 * 9 + 9}, r)
    end
  end)

  it("does not concern a transform outside it that runs elsewhere", function()
    -- the inner coroutine's no_grad is about the inner transform alone, though
    -- the value comes from outside
    near({2 * 6, 2}, {ad.value_and_grad(function(x)
      local co = coroutine.wrap(function()
        return ad.grad(function(y)
          local k = ad.no_grad(function() return x * y end)
          coroutine.yield()
          return k * y
        end)(2)
      end)
      co()
      return co() + x * 0 + 6
    end)(3)})
  end)

  it("reports its argument like Lua", function()
    T.fails_with(function() ad.no_grad(nil) end,
      "bad argument #1 to 'no_grad' (function expected, got nil)")
  end)
end)

describe("checkpoint", function()
  local function body(x)
    local y = x
    for _ = 1, 20 do y = ad.sin(y) + x * y end
    return y
  end

  local function record(f, ...)
    local tape <close> = ad.tape()
    local args = {tape:var(...)}
    local y = f(table.unpack(args))
    local n = #tape
    return n, ad.value(y), {tape:gradient(y, table.unpack(args))}
  end

  it("is f", function()
    local f = ad.checkpoint(function(a, b) return a * b, "aux", a end)
    local r = {f(2, 3)}
    near({6, "aux", 2}, r)
    near(body(0.3), ad.checkpoint(body)(0.3))
    local t = ad.checkpoint(function(p) return {s = p[1] * p[2], n = p.n} end)({2, 3, n = "n"})
    near({s = 6, n = "n"}, t)
  end)

  it("has the derivatives of f in every mode", function()
    local c = ad.checkpoint(body)
    for _, m in ipairs(T.modes) do
      near(m.d(body)(0.3), m.d(c)(0.3), 1e-12)
    end
    near(ad.taylor(body, 0.3, 5), ad.taylor(c, 0.3, 5))
  end)

  it("records less", function()
    local n, y, g = record(body, 0.3)
    local nc, yc, gc = record(ad.checkpoint(body), 0.3)
    near(y, yc)
    near(g, gc)
    assert.is_true(n >= 40)
    assert.is_true(nc < n / 4, nc .. " of " .. n)
  end)

  it("runs f again in the backward pass", function()
    local calls = 0
    local c = ad.checkpoint(function(x)
      calls = calls + 1
      return x * x
    end)
    local y, pull = ad.vjp(c, 3)
    assert.equal(1, calls)
    near(9, y)
    near(6, (pull(1)))
    assert.equal(2, calls)
    c(3)
    assert.equal(3, calls)
  end)

  it("may be pulled several times", function()
    local _, pull = ad.vjp(ad.checkpoint(function(x, y) return {x * y, x + y, x * x} end), 3, 4)
    for _ = 1, 3 do
      near({4, 3}, {pull({1, 0, 0})})
      near({1, 1}, {pull({0, 1, 0})})
      near({6, 0}, {pull({0, 0, 1})})
      near({11, 4}, {pull({1, 1, 1})})
    end
  end)

  it("differentiates what it closes over", function()
    local function f(x, w, use)
      local part = use(function(y) return ad.sin(w * y) * w end)
      return part(x * x) + part(w)
    end
    local plain = function(g) return g end
    local a = {ad.grad(function(x, w) return f(x, w, plain) end, {1, 2})(0.4, 0.8)}
    local b = {ad.grad(function(x, w) return f(x, w, ad.checkpoint) end, {1, 2})(0.4, 0.8)}
    near(a, b)
    -- closed over values only, no arguments at all
    near(6, ad.grad(function(x) return ad.checkpoint(function() return x * x end)() end)(3))
  end)

  it("differentiates what it closes over in tables and values of outer transforms", function()
    near({w = {4, 3}}, ad.grad(function(p)
      return ad.checkpoint(function() return p.w[1] * p.w[2] end)()
    end)({w = {3, 4}}))
    -- d/dx [x * d/dy (x y^2)] = d/dx [2 x^2 y]
    near(4 * 3 * 2, ad.grad(function(x)
      return x * ad.grad(ad.checkpoint(function(y) return x * y * y end))(2)
    end)(3))
  end)

  it("takes and gives structures", function()
    local c = ad.checkpoint(function(p, k)
      return {s = p.a * p.b[1] * k, t = {p.b[2] ^ 2}}
    end)
    local function f(p)
      local r = c(p, 3)
      return r.s * r.t[1]
    end
    -- 3 a b1 b2^2
    near({a = 3 * 5 * 49, b = {3 * 2 * 49, 6 * 2 * 5 * 7}}, ad.grad(f)({a = 2, b = {5, 7}}))
  end)

  it("takes several arguments, of which some are constant", function()
    local c = ad.checkpoint(function(x, k, s, y) return s == "s" and x * k * y or nil end)
    near({12, 6}, {ad.grad(function(x, y) return c(x, 3, "s", y) end, {1, 2})(2, 4)})
  end)

  it("may be used many times in one pass", function()
    local c = ad.checkpoint(function(x) return ad.sin(x) + x end)
    local function f(g)
      return function(x)
        local y = x
        for _ = 1, 10 do y = g(y) end
        return y
      end
    end
    near(ad.grad(f(function(x) return ad.sin(x) + x end))(0.3), ad.grad(f(c))(0.3))
  end)

  it("works inside itself", function()
    local inner = ad.checkpoint(function(x) return ad.sin(x) * x end)
    local outer = ad.checkpoint(function(x) return inner(inner(x)) + x end)
    local function plain(x)
      local a = ad.sin(x) * x
      return ad.sin(a) * a + x
    end
    near(ad.grad(plain)(0.7), ad.grad(outer)(0.7))
    near(ad.grad(ad.grad(plain))(0.7), ad.grad(ad.grad(outer))(0.7))
    local n = record(ad.checkpoint(function(x) return ad.checkpoint(body)(x) * x end), 0.3)
    assert.is_true(n < 10, n .. " operations")
  end)

  it("works around other transforms", function()
    local sq = ad.custom{name = "sq", f = function(x) return x * x end,
      vjp = function(b, _, x) return 2 * b * x end}
    local root = ad.implicit{f = function(x, a) return x * x - a end,
      solve = function(a) return math.sqrt(a) end}
    local cases = {
      {6, function(x) return sq(x) end},
      {1 / (2 * math.sqrt(3)), function(x) return root(x) end},
      {2, function(x) return ad.grad(function(t) return t * t end)(x) end},
      {2, function(x) return T.forward(function(t) return t * t end)(x) end},
      {18, function(x) return ad.taylor(function(t) return t ^ 3 end, x, 2)[3] * x end},
      {9, function(x) return ad.no_grad(function() return x * x end) * x end},
      {3, function(x) return ad.stop(x) * x end},
      {6, function(x) return ad.checkpoint(function(t) return t * t end)(x) end},
      {6, function(x) return ad.checkpoint(function() return x * x end)() end},
    }
    for i, c in ipairs(cases) do
      local f = ad.checkpoint(c[2])
      local ok, m = T.is_near(c[1], ad.grad(f)(3))
      assert(ok, "case " .. i .. ": " .. tostring(m))
      ok, m = T.is_near(c[1], T.forward(f)(3))
      assert(ok, "case " .. i .. " forward: " .. tostring(m))
    end
  end)

  it("has right second and third derivatives", function()
    local c = ad.checkpoint(body)
    local d2 = ad.derivative(body, 2)(0.3)
    near(d2, ad.grad(ad.grad(c))(0.3))
    near(d2, T.forward(ad.grad(c))(0.3))
    near(d2, ad.grad(T.forward(c))(0.3))
    near(d2, T.forward(T.forward(c))(0.3))
    near(d2, ad.hessian(c)(0.3))
    local d3 = ad.derivative(body, 3)(0.3)
    near(d3, ad.grad(ad.grad(ad.grad(c)))(0.3), 1e-9)
  end)

  it("has right second derivatives of what it closes over", function()
    local function f(use)
      return function(w)
        return ad.grad(function(x)
          return use(function(y) return ad.sin(w * y) * y end)(x * x)
        end)(0.6)
      end
    end
    local plain = f(function(g) return g end)
    near(ad.grad(plain)(0.8), ad.grad(f(ad.checkpoint))(0.8))
    near(T.forward(plain)(0.8), T.forward(f(ad.checkpoint))(0.8))
  end)

  it("leaks values from inside as constants", function()
    local leak
    local c = ad.checkpoint(function(x)
      leak = x * x
      return x * 2
    end)
    near({6 + 27, 2 + 9}, {ad.value_and_grad(function(x)
      local y = c(x)
      return y + leak * x
    end)(3)})
    near(9, ad.value(leak))
    near(9 * 7, ad.value(leak * 7))
  end)

  it("gives a result that does not depend on the input", function()
    local c = ad.checkpoint(function() return 5 end)
    near({10, 0}, {ad.value_and_grad(function(x) return c(x) * 2 end)(3)})
    near({15, 5}, {ad.value_and_grad(function(x) return c(x) * x end)(3)})
  end)

  it("lets errors through", function()
    local e = {}
    local c = ad.checkpoint(function() error(e) end)
    assert.is_true(rawequal(e, T.failure(ad.grad(c), 3)))
    near(6, ad.grad(ad.checkpoint(function(x) return x * x end))(3))
  end)

  it("lets errors of the second run through", function()
    local calls, e = 0, {}
    local c = ad.checkpoint(function(x)
      calls = calls + 1
      if calls == 2 then error(e) end
      return x * x
    end)
    assert.is_true(rawequal(e, T.failure(ad.grad(c), 3)))
    near(6, ad.grad(c)(3))
    near(2, ad.grad(ad.grad(c))(3))
  end)

  it("serves callable tables", function()
    local model = setmetatable({w = 3}, {__call = function(self, x) return self.w * x * x end})
    near(12, ad.grad(ad.checkpoint(model))(2))
  end)

  it("reports its argument like Lua", function()
    T.fails_with(function() ad.checkpoint(nil) end,
      "bad argument #1 to 'checkpoint' (function expected, got nil)")
  end)
end)
