local ad = require "autodiff"
local T = require "support.transforms"

local near, fails_with = T.near, T.fails_with

local function count(f)
  local c = {n = 0}
  return function(...)
    c.n = c.n + 1
    return f(...)
  end, c
end

local function polar(r, t) return r * ad.cos(t), r * ad.sin(t) end

describe("jvp", function()
  it("returns value and tangent", function()
    near({12, 4 * 5 + 3 * 2}, {ad.jvp(function(x, y) return x * y end, {3, 4}, {5, 2})})
    local y, dy = ad.jvp(function(x) return x * x end, {3}, {1})
    assert.equal("number", type(y))
    assert.equal("number", type(dy))
    assert.equal(2, select("#", ad.jvp(function(x) return x end, {3}, {1})))
  end)

  it("is linear in the tangents", function()
    local function f(x, y) return ad.sin(x * y) + y end
    local _, a = ad.jvp(f, {0.5, 2}, {1, 0})
    local _, b = ad.jvp(f, {0.5, 2}, {0, 1})
    local _, c = ad.jvp(f, {0.5, 2}, {3, -4})
    near(3 * a - 4 * b, c)
    local _, z = ad.jvp(f, {0.5, 2}, {0, 0})
    assert.equal(0, z)
  end)

  it("gives two lists when f has several results", function()
    local y, dy = ad.jvp(polar, {2, 0.3}, {1, 0})
    near({2 * math.cos(0.3), 2 * math.sin(0.3)}, y)
    near({math.cos(0.3), math.sin(0.3)}, dy)
    y, dy = ad.jvp(polar, {2, 0.3}, {0, 1})
    near({2 * math.cos(0.3), 2 * math.sin(0.3)}, y)
    near({-2 * math.sin(0.3), 2 * math.cos(0.3)}, dy)
  end)

  it("takes and gives structures", function()
    local function f(p, s)
      return {sum = p.a + p.b[1] * s, list = {p.b[2] * p.b[2]}}
    end
    local y, dy = ad.jvp(f, {{a = 1, b = {2, 3}}, 5}, {{a = 10, b = {20, 30}}, 50})
    near({sum = 11, list = {9}}, y)
    near({sum = 10 + 20 * 5 + 2 * 50, list = {180}}, dy)
  end)

  it("carries leaves that are not numeric", function()
    local seen
    local y, dy = ad.jvp(function(p)
      seen = p.name
      return {v = p.x * 3, tag = p.name}
    end, {{x = 2, name = "n"}}, {{x = 1}})
    assert.equal("n", seen)
    assert.equal("n", y.tag)
    near(6, y.v)
    near({v = 3}, dy)
  end)

  it("has tangent 0 for what does not depend on the input", function()
    near({5, 0}, {ad.jvp(function() return 5 end, {3}, {1})})
    local y, dy = ad.jvp(function(x) return {7, x} end, {3}, {1})
    near({7, 3}, y)
    near({0, 1}, dy)
    y, dy = ad.jvp(function(x) return 7, x end, {3}, {1})
    near({7, 3}, y)
    near({0, 1}, dy)
  end)

  it("calls f once", function()
    local f, c = count(polar)
    ad.jvp(f, {1, 2}, {1, 1})
    assert.equal(1, c.n)
  end)

  it("does not change its lists", function()
    local p, t = {3, {4}}, {1, {1}}
    ad.jvp(function(x, y) return x * y[1] end, p, t)
    assert.same({3, {4}}, p)
    assert.same({1, {1}}, t)
  end)

  it("agrees with differences on random functions", function()
    local rnd = T.rng(21)
    for n = 1, 5 do
      local f = T.random_function(rnd, 3, n)
      local x, v = T.random_point(rnd, n), T.random_point(rnd, n)
      local _, dy = ad.jvp(f, {x}, {v})
      for i = 1, 3 do
        near(T.richardson(function(t)
          local z = {}
          for j = 1, n do z[j] = x[j] + t * v[j] end
          return f(z)[i]
        end, 0), dy[i], 1e-7)
      end
    end
  end)

  it("accepts tangents that belong to a transform outside", function()
    near(2 * 3, ad.grad(function(t)
      local _, dy = ad.jvp(function(x) return x * x end, {3}, {t})
      return dy
    end)(10))
  end)

  it("reports its arguments like Lua", function()
    fails_with(function() ad.jvp(nil, {1}, {1}) end,
      "bad argument #1 to 'jvp' (function expected, got nil)")
    fails_with(function() ad.jvp(polar, 1, {1}) end,
      "bad argument #2 to 'jvp' (table expected, got number)")
    fails_with(function() ad.jvp(polar, {1, 2}, nil) end,
      "bad argument #3 to 'jvp' (table expected, got nil)")
  end)

  it("rejects structures that contain themselves", function()
    local x = {1}
    x.me = x
    fails_with(function() ad.jvp(function(p) return p[1] end, {x}, {x}) end, "itself")
    fails_with(function()
      ad.jvp(function(v)
        local r = {v}
        r.me = r
        return r
      end, {1}, {1})
    end, "itself")
    near({9, 6}, {ad.jvp(function(v) return v * v end, {3}, {1})})
  end)
end)

describe("linearize", function()
  it("returns the value and a function of the tangents", function()
    local y, lin = ad.linearize(function(x, z) return x * z end, 3, 4)
    near(12, y)
    assert.equal("number", type(y))
    near(4, lin(1, 0))
    near(3, lin(0, 1))
    near(4 * 7 - 3 * 2, lin(7, -2))
    assert.equal("number", type(lin(1, 0)))
  end)

  it("does not run f again", function()
    local f, c = count(function(x) return ad.sin(x) * x end)
    local _, lin = ad.linearize(f, 0.4)
    assert.equal(1, c.n)
    for i = 1, 20 do near(i * (math.cos(0.4) * 0.4 + math.sin(0.4)), lin(i)) end
    assert.equal(1, c.n)
  end)

  it("agrees with jvp on random functions", function()
    local rnd = T.rng(22)
    for n = 1, 5 do
      local f = T.random_function(rnd, 3, n)
      local x = T.random_point(rnd, n)
      local y, lin = ad.linearize(f, x)
      near(f(x), y, 1e-14)
      for _ = 1, 3 do
        local v = T.random_point(rnd, n)
        local _, dy = ad.jvp(f, {x}, {v})
        near(dy, lin(v))
      end
    end
  end)

  it("gives lists when f has several results", function()
    local y, lin = ad.linearize(polar, 2, 0.3)
    near({2 * math.cos(0.3), 2 * math.sin(0.3)}, y)
    near({math.cos(0.3), math.sin(0.3)}, lin(1, 0))
    near({-2 * math.sin(0.3), 2 * math.cos(0.3)}, lin(0, 1))
  end)

  it("takes and gives structures", function()
    local y, lin = ad.linearize(function(p) return {s = p.a * p.b[1], c = 4} end,
      {a = 2, b = {3}, name = "n"})
    near({s = 6, c = 4}, y)
    near({s = 3, c = 0}, lin({a = 1, b = {0}}))
    near({s = 2, c = 0}, lin({a = 0, b = {1}}))
  end)

  it("is 0 for a result independent of the input", function()
    local y, lin = ad.linearize(function() return 5 end, 1)
    near({5, 0}, {y, lin(1)})
  end)

  it("is differentiable in the tangent and in the point", function()
    local _, lin = ad.linearize(ad.sin, 0.4)
    near(math.cos(0.4), ad.grad(function(t) return lin(t) end)(3))
    local function at(x)
      local _, l = ad.linearize(ad.sin, x)
      return l(x * x)
    end
    -- d/dx of cos(x) x^2
    near(-math.sin(0.4) * 0.16 + math.cos(0.4) * 0.8, ad.grad(at)(0.4))
    near(-math.sin(0.4) * 0.16 + math.cos(0.4) * 0.8, T.forward(at)(0.4))
  end)

  it("serves several points at once", function()
    local lins = {}
    for i = 1, 10 do
      local _, lin = ad.linearize(function(x) return x * x * x end, i)
      lins[i] = lin
    end
    for i = 10, 1, -1 do near(3 * i * i, lins[i](1)) end
  end)

  it("reports its arguments like Lua", function()
    fails_with(function() ad.linearize(nil, 1) end,
      "bad argument #1 to 'linearize' (function expected, got nil)")
  end)
end)

describe("vjp", function()
  it("returns the value and the pullback", function()
    local y, pull = ad.vjp(function(x, z) return x * z end, 3, 4)
    near(12, y)
    assert.equal("number", type(y))
    near({4, 3}, {pull(1)})
    near({-8, -6}, {pull(-2)})
    assert.equal("number", type((pull(1))))
  end)

  it("may be pulled many times without running f again", function()
    local f, c = count(function(x) return ad.sin(x) * x end)
    local _, pull = ad.vjp(f, 0.4)
    for i = 1, 50 do
      near(i * (math.cos(0.4) * 0.4 + math.sin(0.4)), (pull(i)))
    end
    assert.equal(1, c.n)
  end)

  it("forgets one pull before the next", function()
    local _, pull = ad.vjp(function(x, z) return {x * z, x, z} end, 3, 4)
    local a = {pull({1, 0, 0})}
    local b = {pull({0, 1, 0})}
    local c = {pull({1, 0, 0})}
    near({4, 3}, a)
    near({1, 0}, b)
    near(a, c)
  end)

  it("speaks of several results as lists", function()
    local y, pull = ad.vjp(polar, 2, 0.3)
    near({2 * math.cos(0.3), 2 * math.sin(0.3)}, y)
    near({math.cos(0.3), -2 * math.sin(0.3)}, {pull({1, 0})})
    near({math.sin(0.3), 2 * math.cos(0.3)}, {pull({0, 1})})
    near({5 * math.cos(0.3) - math.sin(0.3), -10 * math.sin(0.3) - 2 * math.cos(0.3)},
      {pull({5, -1})})
  end)

  it("takes and gives structures", function()
    local y, pull = ad.vjp(function(p, s)
      return {sum = p.a + p.b[1] * s, list = {p.b[2] * p.b[2]}}
    end, {a = 1, b = {2, 3}}, 5)
    near({sum = 11, list = {9}}, y)
    near({{a = 1, b = {5, 0}}, 2}, {pull({sum = 1, list = {0}})})
    near({{a = 0, b = {0, 6}}, 0}, {pull({sum = 0, list = {1}})})
  end)

  it("leaves out what is not numeric", function()
    local y, pull = ad.vjp(function(p) return {v = p.x * 3, tag = p.name} end,
      {x = 2, name = "n"})
    assert.equal("n", y.tag)
    near(6, y.v)
    near({x = 3}, (pull({v = 1})))
  end)

  it("gives one cotangent for every argument", function()
    local _, pull = ad.vjp(function(x, _, z) return x * z end, 3, 100, 4)
    near({4, 0, 3}, {pull(1)})
    local _, p2 = ad.vjp(function(_, x) return x * 2 end, "label", 3)
    assert.equal(2, select("#", p2(1)))
    near(2, (select(2, p2(1))))
  end)

  it("is 0 for a result independent of the input", function()
    local y, pull = ad.vjp(function() return 5 end, 1, {2, 3})
    near({5, 0, {0, 0}}, {y, pull(1)})
  end)

  it("is the transpose of jvp on random functions", function()
    local rnd = T.rng(23)
    for n = 1, 5 do
      for m = 1, 3 do
        local f = T.random_function(rnd, m, n)
        local x, v, u = T.random_point(rnd, n), T.random_point(rnd, n), T.random_point(rnd, m)
        local _, dy = ad.jvp(f, {x}, {v})
        local _, pull = ad.vjp(f, x)
        local g = pull(u)
        local l, r = 0, 0
        for i = 1, m do l = l + u[i] * dy[i] end
        for j = 1, n do r = r + g[j] * v[j] end
        near(l, r)
      end
    end
  end)

  it("is differentiable in the cotangent and in the point", function()
    local _, pull = ad.vjp(ad.sin, 0.4)
    near(math.cos(0.4), ad.grad(function(t) return (pull(t)) end)(3))
    near(math.cos(0.4), T.forward(function(t) return (pull(t)) end)(3))
    local function at(x)
      local _, p = ad.vjp(ad.sin, x)
      return (p(x * x))
    end
    near(-math.sin(0.4) * 0.16 + math.cos(0.4) * 0.8, ad.grad(at)(0.4))
    near(-math.sin(0.4) * 0.16 + math.cos(0.4) * 0.8, T.forward(at)(0.4))
  end)

  it("may be pulled after other transforms have come and gone", function()
    local pulls = {}
    for i = 1, 10 do
      local _, pull = ad.vjp(function(x) return x * x * x end, i)
      pulls[i] = pull
      ad.grad(ad.grad(ad.sin))(i)
    end
    collectgarbage()
    for i = 10, 1, -1 do near(3 * i * i, (pulls[i](1))) end
  end)

  it("may be pulled inside the f of another transform", function()
    local _, pull = ad.vjp(function(x) return x * x * x end, 2)
    near(12, ad.grad(function(t) return t * (pull(1)) end)(5))
  end)

  it("reports its arguments like Lua", function()
    fails_with(function() ad.vjp(nil, 1) end,
      "bad argument #1 to 'vjp' (function expected, got nil)")
  end)

  it("rejects structures that contain themselves", function()
    local x = {1}
    x.me = x
    fails_with(function() ad.vjp(function(p) return p[1] end, x) end, "itself")
  end)
end)

describe("jvp, linearize and vjp", function()
  it("nest in each other", function()
    -- f'' of x^4 at 1.5, f''' likewise
    local function f(x) return x ^ 4 end
    local ways = {T.modes[3], T.modes[4], T.modes[5]}
    for _, a in ipairs(ways) do
      for _, b in ipairs(ways) do
        near(12 * 1.5 ^ 2, a.d(b.d(f))(1.5))
        for _, c in ipairs(ways) do near(24 * 1.5, a.d(b.d(c.d(f)))(1.5)) end
      end
    end
  end)

  it("give hessian times vector in either order", function()
    local function f(p) return p[1] ^ 2 * p[2] + ad.exp(p[1] * p[2]) end
    local x, v = {0.5, 0.8}, {2, -1}
    local e = math.exp(0.4)
    local H = {{2 * 0.8 + 0.64 * e, 1 + e + 0.4 * e}, {1 + e + 0.4 * e, 0.25 * e}}
    local want = {H[1][1] * 2 - H[1][2], H[2][1] * 2 - H[2][2]}
    local _, a = ad.jvp(ad.grad(f), {x}, {v})
    near(want, a)
    local _, pull = ad.vjp(ad.grad(f), x)
    near(want, (pull(v)))
    local _, lin = ad.linearize(ad.grad(f), x)
    near(want, lin(v))
    near(want, ad.grad(function(p)
      local _, d = ad.jvp(f, {p}, {v})
      return d
    end)(x))
  end)
end)
