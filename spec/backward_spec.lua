--- ad.var with backward, and ad.dual: vars and duals made by hand.

local ad = require "autodiff"
local util = require "support.util"

local close, close_all, fails = util.close, util.close_all, util.fails

describe("backward", function()
  it("puts the gradient of the manual's example into .grad", function()
    local x, y = ad.var(2.0), ad.var(4.0)
    local z = ad.exp(x) - x * y + ad.cos(y)
    z:backward()
    close(x.grad, math.exp(2) - 4)
    close(y.grad, -2 - math.sin(4))
    assert.equal("float", math.type(x.grad))
  end)

  it("finds .grad nil before", function()
    local x, y = ad.var(2), ad.var(3)
    assert.is_nil(x.grad)
    local z = x * y
    assert.is_nil(x.grad)
    assert.is_nil(z.grad)
    z:backward()
    close(x.grad, 3)
    close(y.grad, 2)
  end)

  it("puts nothing on what is not connected", function()
    local x, y = ad.var(2), ad.var(3)
    local z, other = x * x, y * y
    z:backward()
    close(x.grad, 4)
    assert.is_nil(y.grad)
    other:backward()
    close(x.grad, 4)
    close(y.grad, 6)
  end)

  it("puts nothing on what is between", function()
    local x = ad.var(2)
    local u = x * x
    local z = u * x
    z:backward()
    close(x.grad, 12)
    assert.is_nil(u.grad)
    assert.is_nil(z.grad)
  end)

  it("of a leaf itself is 1", function()
    local x = ad.var(2)
    x:backward()
    close(x.grad, 1)
  end)

  it("accumulates over calls", function()
    local x, y = ad.var(2), ad.var(5)
    for i = 1, 4 do
      local z = x * x * y
      z:backward()
      close(x.grad, 20 * i)
      close(y.grad, 4 * i)
    end
    local z = 3 * x
    z:backward()
    close(x.grad, 83)
    close(y.grad, 16)
  end)

  it("begins again after zero_grad", function()
    local x, y = ad.var(2), ad.var(5)
    local z = x * y
    z:backward()
    x:zero_grad()
    assert.is_true(x.grad == nil or x.grad == 0)
    close(y.grad, 2)
    z = x * y
    z:backward()
    close(x.grad, 5)
    close(y.grad, 4)
    x:zero_grad()
    x:zero_grad()
    z = x * x
    z:backward()
    close(x.grad, 4)
    local fresh = ad.var(1)
    fresh:zero_grad()
    assert.is_true(fresh.grad == nil or fresh.grad == 0)
  end)

  it("adds up over every use of a variable", function()
    local x = ad.var(1.5)
    local s = x
    for i = 1, 20 do s = s + x * i end
    s:backward()
    close(x.grad, 211)
  end)

  it("follows a chain of any length", function()
    local n <const> = 200000
    local x = ad.var(1.0)
    local y = x
    for _ = 1, n do y = y + x end
    y:backward()
    close(x.grad, n + 1)
  end)

  it("agrees with ad.grad", function()
    local rng = util.rng(4)
    local function f(a, b, c)
      local s = ad.sin(a * b) + ad.log(2 + c * c)
      return ad.sum {s * a, ad.tanh(b) / (1 + c * c), ad.max(a, b)} ^ 2 / ad.hypot(a, 1 + b * b)
    end
    for _ = 1, 20 do
      local args = {rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(-2, 2)}
      local a, b, c = ad.var(args[1]), ad.var(args[2]), ad.var(args[3])
      local z = f(a, b, c)
      z:backward()
      close_all({a.grad, b.grad, c.grad}, {ad.grad(f, {1, 2, 3})(table.unpack(args))})
      for i, v in ipairs {a, b, c} do
        close(v.grad, util.richardson_partial(f, args, i, 0.01), 1e-6)
      end
    end
  end)

  it("wants no constant", function()
    fails("bad argument #1 to 'backward'", function()
      ad.backward(3, {ad.var(1)})
    end)
    fails("bad argument #2 to 'backward'", function()
      ad.backward({ad.var(1)}, 3)
    end)
  end)
end)

describe("the graph after backward", function()
  it("is freed: a second backward is an error that names retain", function()
    local x, y = ad.var(2), ad.var(3)
    local z = x * y + x
    z:backward()
    fails("retain", function() z:backward() end)
    close(x.grad, 4)
    close(y.grad, 2)
  end)

  it("is freed for what shares a part of it", function()
    local x = ad.var(2)
    local u = ad.exp(x)
    local a, b = u * u, u * x
    a:backward()
    fails("retain", function() b:backward() end)
    close(x.grad, 2 * math.exp(4))
  end)

  it("is freed by ad.backward too", function()
    local x = ad.var(2)
    local z = x * x
    ad.backward({z}, {x})
    fails("retain", function() ad.backward({z}, {x}) end)
    fails("retain", function() z:backward() end)
    close(x.grad, 4)
  end)

  it("is kept with retain = true", function()
    local x = ad.var(2)
    local z = x * x * x
    z:backward {retain = true}
    close(x.grad, 12)
    z:backward {retain = true}
    close(x.grad, 24)
    local u = z * z
    u:backward {retain = true}
    close(x.grad, 24 + 2 * 8 * 12)
    z:backward()
    close(x.grad, 36 + 2 * 8 * 12)
    fails("retain", function() z:backward() end)
  end)

  it("is freed with retain = false", function()
    local x = ad.var(2)
    local z = x * x
    z:backward {retain = false}
    fails("retain", function() z:backward() end)
  end)

  it("leaves values to read, and leaves to use again", function()
    local x = ad.var(2)
    local u = x * x
    local z = u * x
    z:backward()
    close(z.value, 8)
    close(u.value, 4)
    close(ad.value(z), 8)
    assert.equal("var(8)", tostring(z))
    local again = x * 5
    again:backward()
    close(x.grad, 17)
  end)

  it("is kept where another graph is freed", function()
    local x, y = ad.var(2), ad.var(3)
    local u, v = x * x, y * y * x
    u:backward()
    v:backward()
    close(x.grad, 4 + 9)
    close(y.grad, 12)
  end)
end)

describe("ad.backward", function()
  it("puts gradients on its inputs only", function()
    local x, y = ad.var(2), ad.var(3)
    local z = x * y * y
    ad.backward({z}, {y})
    assert.is_nil(x.grad)
    close(y.grad, 12)
  end)

  it("gives 0 to an input that is not connected", function()
    local x, y = ad.var(2), ad.var(3)
    local z = x * x
    ad.backward({z}, {x, y})
    close(x.grad, 4)
    close(y.grad, 0)
  end)

  it("adds up several targets, weighed by seeds", function()
    local x, y = ad.var(2), ad.var(3)
    ad.backward({x * x, x * y}, {x, y})
    close(x.grad, 7)
    close(y.grad, 2)
    x, y = ad.var(2), ad.var(3)
    ad.backward({x * x, x * y}, {x, y}, {10, -1})
    close(x.grad, 37)
    close(y.grad, -2)
    x = ad.var(2)
    local z = x * x
    ad.backward({z, z}, {x}, {1, 0.5})
    close(x.grad, 6)
  end)

  it("accumulates over calls", function()
    local x = ad.var(3)
    for i = 1, 3 do
      ad.backward({x * x}, {x})
      close(x.grad, 6 * i)
    end
    local z = x * 2
    z:backward()
    close(x.grad, 20)
    x:zero_grad()
    ad.backward({x * x}, {x}, {2})
    close(x.grad, 12)
  end)
end)

describe("detach", function()
  it("is a constant with the value", function()
    local x = ad.var(3)
    close(ad.value(x:detach()), 3)
    close(ad.value((x * x):detach()), 9)
    local z = x * x:detach()
    z:backward()
    close(x.grad, 3)
    x:zero_grad()
    z = (x * x):detach() * x + x
    z:backward()
    close(x.grad, 10)
    close(ad.value(x), 3)
  end)

  it("leaves the var itself as it was", function()
    local x = ad.var(3)
    local u = x * x
    local d = u:detach()
    local z = u * 2
    z:backward()
    close(x.grad, 12)
    close(ad.value(d), 9)
  end)

  it("works for the vars of a tape and of a transform", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    close(tape:gradient(x * x:detach(), x), 3)
    close(ad.grad(function(v) return v * v:detach() end)(3), 3)
    -- a constant for its own transform, not for the one around it
    close(ad.grad(function(v)
      return (ad.grad(function(w) return w * w * w:detach() end)(v)) -- 2 v * v
    end)(3), 12)
  end)
end)

describe("vars by hand and transforms", function()
  it("a transform inside a graph is differentiated through", function()
    local ways = {
      function(f, x) return (ad.grad(f)(x)) end,
      function(f, x) return (select(2, ad.jvp(f, {x}, {1}))) end,
      function(f, x) return ad.taylor(f, x, 1)[2] end,
      function(f, x)
        local tape <close> = ad.tape()
        local v = tape:var(x)
        return (tape:gradient(f(v), v))
      end,
    }
    for _, way in ipairs(ways) do
      local x = ad.var(2)
      local g = way(function(y) return y ^ 3 * x end, x) -- 3 x^2 * x
      close(ad.value(g), 24)
      g:backward()
      close(x.grad, 36)
    end
  end)

  it("a graph inside a transform is differentiated through", function()
    local function f(x)
      local v = ad.var(x)
      local z = v ^ 3 * x
      z:backward()
      return v.grad -- 3 x^2 * x
    end
    close(f(2), 24)
    close(ad.grad(f)(2), 36)
    close(select(2, ad.jvp(f, {2}, {1})), 36)
  end)

  it("a transform that fails leaves the graph alone", function()
    local x = ad.var(2)
    local z = x * x
    assert.is_false(pcall(ad.grad(function(y) error(y * z) end), 1))
    z = z * x
    z:backward()
    close(x.grad, 12)
  end)

  it("a transform's gradient does not touch .grad", function()
    local x = ad.var(2)
    ad.grad(function(y) return y * x end)(3)
    assert.is_nil(x.grad)
  end)
end)

describe("memory #memory", function()
  -- A model y = a*x + b with a and b made anew in each pass, as nothing of a pass is to be kept.
  local function loss(a, b, rows)
    local s = 0
    for i = 1, rows do
      local x = i / rows
      s = s + (a * x + b - (3 * x - 1)) ^ 2
    end
    return s / rows
  end

  it("is bounded in a training loop", function()
    local a, b = 0.0, 0.0
    util.bounded(20000, function()
      local va, vb = ad.var(a), ad.var(b)
      local l = loss(va, vb, 8)
      l:backward()
      a, b = a - 0.3 * va.grad, b - 0.3 * vb.grad
    end)
    close(a, 3, 1e-6)
    close(b, -1, 1e-6)
  end)

  it("is bounded in a training loop whose vars are never all out of reach", function()
    local a, b = ad.var(0.0), ad.var(0.0)
    util.bounded(20000, function()
      local l = loss(a, b, 8)
      l:backward()
      a, b = ad.var(a.value - 0.3 * a.grad), ad.var(b.value - 0.3 * b.grad)
    end)
    close(a.value, 3, 1e-6)
    close(b.value, -1, 1e-6)
  end)

  it("is bounded in a loop that never calls backward", function()
    local best = math.huge
    local a = ad.var(0.5)
    util.bounded(20000, function(i)
      a = ad.var((i % 7) / 7)
      best = math.min(best, ad.value(loss(a, ad.var(-1.0), 8)))
    end)
    assert.is_true(best > 0)
  end)

  it("is bounded in a loop that calls backward now and then, on a part", function()
    local a, b = ad.var(0.5), ad.var(0.5)
    util.bounded(20000, function(i)
      local l, unused = loss(a, b, 5), loss(b, a, 3)
      if i % 3 == 0 then
        l:backward()
        a = ad.var(ad.value(unused) % 1 + 0 * a.grad)
      else
        a = ad.var(ad.value(l) % 1)
      end
      b = ad.var(0.5)
    end)
  end)

  it("is bounded with retain", function()
    util.bounded(10000, function()
      local a, b = ad.var(0.5), ad.var(0.25)
      local l = loss(a, b, 8)
      l:backward {retain = true}
      l:backward {retain = true}
    end)
  end)

  it("is bounded with ad.backward", function()
    util.bounded(10000, function()
      local a, b = ad.var(0.5), ad.var(0.25)
      ad.backward({loss(a, b, 4), loss(b, a, 4)}, {a, b}, {1, 2})
    end)
  end)

  it("is bounded where passes end in an error", function()
    util.bounded(10000, function()
      local a, b = ad.var(0.5), ad.var(0.25)
      pcall(function() error(loss(a, b, 8)) end)
    end)
  end)

  it("is bounded in a coroutine", function()
    local step = coroutine.wrap(function()
      local a = ad.var(0.5)
      while true do
        local l = loss(a, ad.var(1.0), 8)
        l:backward()
        a = ad.var(a.value - 0.01 * a.grad)
        coroutine.yield()
      end
    end)
    util.bounded(10000, step)
  end)

  it("is bounded under the generational collector", function()
    collectgarbage("generational")
    local ok, err = pcall(util.bounded, 10000, function()
      local a, b = ad.var(0.5), ad.var(0.25)
      local l = loss(a, b, 8)
      l:backward()
    end)
    collectgarbage("incremental")
    assert(ok, err)
  end)

  it("is bounded for the transforms", function()
    local function f(a, b) return loss(a, b, 8) end
    local both = ad.grad(f, {1, 2})
    util.bounded(10000, function()
      both(0.5, 0.25)
      ad.jvp(f, {0.5, 0.25}, {1, 0})
    end)
  end)
end)

describe("ad.dual", function()
  it("has a value and a tangent", function()
    local d = ad.dual(2, 3)
    assert.equal("dual", ad.type(d))
    close(d.value, 2)
    close(d.tangent, 3)
  end)

  it("is differentiated along", function()
    local d = ad.dual(2, 3)
    close((d * d).tangent, 12)
    close((d + 1).tangent, 3)
    close((1 - d).tangent, -3)
    close((1 / d).tangent, -0.75)
    close((d ^ 3).tangent, 36)
    close((2 ^ d).tangent, 12 * math.log(2))
    close(ad.sin(d).tangent, 3 * math.cos(2))
    close(ad.hypot(d, 1).tangent, 6 / math.sqrt(5))
    close(ad.sum({d, d, 1}).tangent, 6)
  end)

  it("meets other duals in the same direction", function()
    local a, b = ad.dual(2, 1), ad.dual(3, 10)
    close((a * b).tangent, 23)
    close((a + b).tangent, 11)
    close((a / b).tangent, 1 / 3 - 20 / 9)
    close(ad.atan2(a, b).tangent, (3 - 20) / 13)
    close((a * ad.dual(5, 0)).tangent, 5)
  end)

  it("carries several tangents at once", function()
    local a, b = ad.dual(2, {1, 0}), ad.dual(3, {0, 1})
    close_all(a.tangent, {1, 0})
    close_all(b.tangent, {0, 1})
    close((a * b).value, 6)
    close_all((a * b).tangent, {3, 2})
    close_all((a / b).tangent, {1 / 3, -2 / 9})
    close_all((a ^ b).tangent, {12, 8 * math.log(2)})
    close_all((a * 5).tangent, {5, 0})
    close_all((5 - b).tangent, {0, -1})
    close_all(ad.exp(a * b).tangent, {3 * math.exp(6), 2 * math.exp(6)})
    close_all(ad.dot({a, b}, {b, a}).tangent, {6, 4})
  end)

  it("carries more tangents than a few", function()
    local n <const> = 40
    local list = {}
    for i = 1, n do
      local t = {}
      for k = 1, n do t[k] = k == i and 1 or 0 end
      list[i] = ad.dual(1 + i / n, t)
    end
    local y = ad.sum(list) * list[1] + ad.prod {list[2], list[3]}
    local tangent = y.tangent
    assert.equal(n, #tangent)
    local _, g = ad.value_and_grad(function(v)
      return ad.sum(v) * v[1] + ad.prod {v[2], v[3]}
    end)((function()
      local v = {}
      for i = 1, n do v[i] = 1 + i / n end
      return v
    end)())
    close_all(tangent, g)
  end)

  it("agrees with jvp in random directions", function()
    local rng = util.rng(7)
    local function f(x, y) return ad.sin(x * y) / (1 + x * x) + ad.tanh(y - x) ^ 2 end
    for _ = 1, 20 do
      local x, y = rng.uniform(-2, 2), rng.uniform(-2, 2)
      local dx, dy = rng.uniform(-1, 1), rng.uniform(-1, 1)
      local ex, ey = rng.uniform(-1, 1), rng.uniform(-1, 1)
      local _, d = ad.jvp(f, {x, y}, {dx, dy})
      local _, e = ad.jvp(f, {x, y}, {ex, ey})
      close(f(ad.dual(x, dx), ad.dual(y, dy)).tangent, d)
      close_all(f(ad.dual(x, {dx, ex}), ad.dual(y, {dy, ey})).tangent, {d, e})
    end
  end)

  it("is a constant for a transform, whose result it is part of", function()
    local d = ad.dual(2, 1)
    local g = ad.grad(function(x) return x * x * d end)(3) -- 2 x d
    close(g.value, 12)
    close(g.tangent, 6)
    local _, t = ad.jvp(function(x) return x * x * d end, {3}, {1})
    close(t.value, 12)
    close(t.tangent, 6)
  end)

  it("keeps its tangent where it is itself what a transform differentiates by", function()
    local g = ad.grad(function(x) return x ^ 3 end)(ad.dual(2, 1)) -- 3 x^2, and 6 x along
    close(g.value, 12)
    close(g.tangent, 12)
  end)

  it("wants numbers", function()
    fails("bad argument #1 to 'dual'", function()
      local d = ad.dual("x", 1)
      return d
    end)
    fails("bad argument #2 to 'dual'", function()
      local d = ad.dual(1, "x")
      return d
    end)
    assert.is_false(pcall(ad.dual, 1, {1, "x"}))
  end)
end)

describe("ad.var", function()
  it("makes a var of any number", function()
    for _, v in ipairs {2, -0.5, math.huge, 1e-300} do
      local x = ad.var(v)
      assert.equal("var", ad.type(x))
      close(x.value, v)
    end
    local x = ad.var(0 / 0)
    close(x.value, 0 / 0)
  end)

  it("wants a number", function()
    fails("bad argument #1 to 'var'", function()
      local x = ad.var()
      return x
    end)
    fails("bad argument #1 to 'var'", function()
      local x = ad.var("x")
      return x
    end)
  end)
end)
