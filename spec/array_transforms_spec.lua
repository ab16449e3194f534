-- Every public function with arrays in the places of numbers.

local ad = require "autodiff"
local array = require "autodiff.array"
local prim = require "autodiff.prim"

-- The operations that come with the module of blocks and vectors.
local own = {}
for name in pairs(prim.all) do own[name] = false end
require "autodiff.leaves"
for name in pairs(prim.all) do own[name] = own[name] == nil end

local inf = math.huge

-- The sum of all elements, a number.
local function total(a) return array.like(a, 0.0) end

local function same(want, got)
  assert.equal("array", ad.type(got))
  assert.same(want, got:tolist())
end

local function fails(text, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error")
  assert.truthy(message:find(text, 1, true), message)
end

local function A() return ad.array { { 1, 2, 3 }, { 4, 5, 6 } } end

describe("grad of functions of arrays", function()
  it("has the shape of its argument", function()
    same({ { 2, 4, 6 }, { 8, 10, 12 } }, ad.grad(function(x) return total(x * x) end)(A()))
    same({ 5, 7, 9 }, ad.grad(function(b) return total(A() * b) end)(ad.ones(3)))
    same({ { 6 }, { 15 } }, ad.grad(function(b) return total(A() * b) end)(ad.ones(2, 1)))
    assert.equal(21.0, ad.grad(function(s) return total(A() * s) end)(2))
  end)

  it("takes argnums, repeated and in any order", function()
    local function f(x, s, y) return total(x * s * y), "more" end
    local x, y = ad.array { 1, 2 }, ad.array { 5, 7 }
    local g3, g1, g2, g1b, more = ad.grad(f, { 3, 1, 2, 1 })(x, 3, y)
    same({ 3, 6 }, g3)
    same({ 15, 21 }, g1)
    assert.equal(19.0, g2)
    same({ 15, 21 }, g1b)
    assert.equal("more", more)
    g1[1] = 0 -- it is the caller's, and alone
    same({ 15, 21 }, g1b)
    local v, g = ad.value_and_grad(f, 3)(x, 3, y)
    assert.equal(57.0, v)
    same({ 3, 6 }, g)
  end)

  it("takes structures", function()
    local p = { w = A(), b = 2, list = { ad.ones(3), "text" }, f = print }
    local g = ad.grad(function(q)
      return total(q.w * q.b * q.list[1])
    end)(p)
    same({ { 2, 2, 2 }, { 2, 2, 2 } }, g.w)
    assert.equal(21.0, g.b)
    same({ 10, 14, 18 }, g.list[1])
    assert.is_nil(g.list[2])
    assert.is_nil(g.f)
  end)

  it("is zeros where nothing is connected", function()
    same({ { 0, 0, 0 }, { 0, 0, 0 } }, ad.grad(function() return 1 end)(A()))
    local gx, gy = ad.grad(function(x) return total(x) end, { 1, 2 })(ad.ones(2), ad.zeros(0, 3))
    same({ 1, 1 }, gx)
    assert.same({ 0, 3 }, gy.shape)
    same({ 0, 0 }, ad.grad(function(x) return total(ad.lt(x, 1)) end)(ad.ones(2)))
  end)

  it("gives arrays that may be written to", function()
    local seed = ad.ones(2)
    local _, pull = ad.vjp(function(x) return x end, ad.ones(2))
    local g = pull(seed)
    g[1] = 5
    same({ 1, 1 }, seed)
    local h = ad.grad(function(x) return total(x) end)(ad.zeros(2, 2))
    h[{ 1, 1 }] = 7 -- no view with repeated elements
    same({ { 7, 1 }, { 1, 1 } }, h)
    local a, b = ad.grad(function(x, y) return total(x + y) end, { 1, 2 })(ad.ones(2), ad.ones(2))
    a[1] = 9
    same({ 1, 1 }, b)
  end)

  it("keeps what is constant apart from what is not", function()
    local seen
    local v, g = ad.value_and_grad(function(x)
      seen = x * 2
      return total(x * ad.stop(x)) + total(ad.no_grad(function() return x * x end))
    end)(ad.array { 1, 2 })
    assert.equal(10.0, v)
    same({ 1, 2 }, g)
    same({ 2, 4 }, ad.value(seen))
    local s = ad.stop { a = ad.var(ad.ones(2)), b = 1 }
    assert.equal("array", ad.type(s.a))
    assert.equal(1, s.b)
  end)

  it("refuses functions with other results", function()
    fails("grad: function must return a number, got an array of shape (2, 3); for several outputs "
      .. "use ad.jacobian", ad.grad(function(x) return x end), A())
    fails("value_and_grad: function must return a number, got an array of shape (3)",
      ad.value_and_grad(function(x) return x[1] end), A())
    fails("grad: function must return a number, got an array of shape (2)",
      ad.grad(function() return ad.ones(2) end), A())
    fails("mul: shapes (2, 3) and (2) do not broadcast",
      ad.grad(function(x) return total(x * ad.ones(2)) end), A())
  end)
end)

describe("tangents and cotangents of arrays", function()
  it("go through jvp", function()
    local y, dy = ad.jvp(function(x, s) return x * s end, { A(), 2 }, { ad.ones(2, 3), 1 })
    same({ { 2, 4, 6 }, { 8, 10, 12 } }, y)
    same({ { 3, 4, 5 }, { 6, 7, 8 } }, dy)
    y, dy = ad.jvp(function(p) return { p.a[1], n = p.b } end,
      { { a = A(), b = 1 } }, { { a = ad.ones(2, 3), b = 3 } })
    same({ 1, 2, 3 }, y[1])
    same({ 1, 1, 1 }, dy[1])
    assert.equal(3.0, dy.n)
    y, dy = ad.jvp(function() return ad.ones(2) end, { A() }, { A() })
    same({ 1, 1 }, y)
    same({ 0, 0 }, dy)
    local ys, dys = ad.jvp(function(x) return x, x[{ 1, 1 }] end, { A() }, { A() })
    same({ { 1, 2, 3 }, { 4, 5, 6 } }, dys[1])
    assert.equal(1, ys[2])
  end)

  it("go through linearize and vjp, as often as asked", function()
    local y, lin = ad.linearize(function(x, s) return x * s, s * 2 end, ad.array { 1, 2 }, 3)
    same({ 3, 6 }, y[1])
    local d = lin(ad.array { 1, 0 }, 0)
    same({ 3, 0 }, d[1])
    assert.equal(0, d[2])
    d = lin(ad.zeros(2), 1)
    same({ 1, 2 }, d[1])
    assert.equal(2.0, d[2])
    local _, pull = ad.vjp(function(x, s) return x * s, s * 2 end, ad.array { 1, 2 }, 3)
    local gx, gs = pull { ad.array { 1, 10 }, 0 }
    same({ 3, 30 }, gx)
    assert.equal(21.0, gs)
    gx, gs = pull { ad.zeros(2), 1 }
    same({ 0, 0 }, gx)
    assert.equal(2.0, gs)
  end)

  it("stay what they are, whatever a sweep overwrites", function()
    local x, seed = ad.array { 1, 2 }, ad.array { 1, 10 }
    local function f(v)
      local y = ad.exp(v) + 1
      return (y + v) * y - ad.sqrt(-(-y))
    end
    local _, pull = ad.vjp(f, x)
    local first = pull(seed):tolist()
    assert.same(first, pull(seed):tolist())
    same({ 1, 10 }, seed)
    same({ 1, 2 }, x)
    local tape <close> = ad.tape { persistent = true }
    local w = tape:var(x)
    local a = w + 1
    local b = a + 1
    local c = total(b * b)
    local gw, ga, gb = tape:gradient(c, w, a, b)
    gw[1] = 0
    same({ 6, 8 }, ga)
    same({ 6, 8 }, gb)
    same({ 6, 8 }, tape:gradient(c, w))
  end)

  it("must fit, and the error names both shapes", function()
    local function f(x) return x * 2 end
    fails("jvp: tangent of argument 1: array of shape (2, 3) expected, got (3)",
      ad.jvp, f, { A() }, { ad.ones(3) })
    fails("jvp: tangent of argument 1: array of shape (2, 3) expected, got number",
      ad.jvp, f, { A() }, { 1 })
    fails("jvp: tangent of argument 1: array of shape (2, 3) expected, got nil",
      ad.jvp, f, { A() }, {})
    fails("jvp: tangent of argument 2: number expected, got an array of shape (2)",
      ad.jvp, f, { A(), 1 }, { A(), ad.ones(2) })
    local _, lin = ad.linearize(f, A())
    fails("linearize: array of shape (2, 3) expected, got (3, 2)", lin, ad.ones(3, 2))
    fails("linearize: array of shape (2, 3) expected, got number", lin, 1)
    fails("array expected", lin, "x")
    local _, pull = ad.vjp(f, A())
    fails("pull: array of shape (2, 3) expected, got (2)", pull, ad.ones(2))
    fails("pull: array of shape (2, 3) expected, got number", pull, 1)
    fails("array expected", pull, {})
    fails("array expected", pull, nil)
    _, pull = ad.vjp(function(x) return { x[1], 2 * x[{ 1, 1 }] } end, A())
    fails("pull: number expected, got an array of shape (2)", pull, { ad.ones(3), ad.ones(2) })
    fails("hvp: tangent of argument 1: array of shape (2) expected, got (3)",
      ad.hvp, total, ad.ones(2), ad.ones(3))
  end)

  it("of hand-made duals", function()
    local x = ad.dual(ad.array { 1, 2 }, ad.array { 1, 0 })
    assert.equal("dual", ad.type(x))
    local y = ad.exp(x) * x
    same({ 2 * ad.exp(ad.ones(1))[1], 0 }, y.tangent)
    same({ 1, 2 }, x.value)
    x = ad.dual(ad.array { 1, 2 }, { ad.array { 1, 0 }, ad.array { 0, 1 } })
    y = x * x
    same({ 2, 0 }, y.tangent[1])
    same({ 0, 4 }, y.tangent[2])
    assert.same({ 2 }, x.shape)
    fails("dual: tangent: array of shape (2) expected, got (3)", ad.dual, ad.ones(2), ad.ones(3))
    fails("dual: tangent: array of shape (2) expected, got number", ad.dual, ad.ones(2), 1)
    fails("dual: tangent: number expected, got an array of shape (2)", ad.dual, 1, ad.ones(2))
    fails("dual: tangent: array of shape (2) expected, got (1)",
      ad.dual, ad.ones(2), { ad.ones(2), ad.ones(1) })
  end)
end)

describe("Jacobians with arrays", function()
  for _, name in ipairs { "jacobian", "jacfwd", "jacrev" } do
    local J = ad[name]
    it("of array by array: one array (" .. name .. ")", function()
      local j = J(function(x) return x[1] * x[2] end)(A())
      assert.same({ 3, 2, 3 }, j.shape)
      same({
        { { 4, 0, 0 }, { 1, 0, 0 } },
        { { 0, 5, 0 }, { 0, 2, 0 } },
        { { 0, 0, 6 }, { 0, 0, 3 } },
      }, j)
    end)

    it("of numbers, lists and structures (" .. name .. ")", function()
      same({ 1, 2 }, J(function(s) return s * ad.array { 1, 2 } end)(3))
      same({ 6, 8 }, J(function(x) return total(x * x) end)(ad.array { 3, 4 }))
      local j = J(function(x) return { x[1] * x[2], x[2] } end)(ad.array { 3, 4 })
      same({ 4, 3 }, j[1])
      same({ 0, 1 }, j[2])
      j = J(function(x) return ad.array { x[1] * x[2], x[2] } end)({ 3, 4 })
      same({ 4, 0 }, j[1])
      same({ 3, 1 }, j[2])
      local p = { a = ad.array { 1, 2 }, b = 3, c = "c" }
      j = J(function(q) return { u = q.a * q.b, v = q.b } end)(p)
      same({ { 3, 0 }, { 0, 3 } }, j.u.a)
      same({ 1, 2 }, j.u.b)
      same({ 0, 0 }, j.v.a)
      assert.equal(1, j.v.b)
      assert.is_nil(j.u.c)
    end)

    it("of constants, of nothing, of more than one pass takes (" .. name .. ")", function()
      local j = J(function() return ad.ones(2) end)(A())
      assert.same({ 2, 2, 3 }, j.shape)
      assert.equal(0, total(ad.abs(j)))
      assert.same({ 0, 0 }, J(function(x) return x * 2 end)(ad.zeros(0)).shape)
      j = J(function(x) return x * x end)(ad.arange(1, 20))
      for i = 1, 20 do
        for k = 1, 20 do assert.equal(i == k and 2.0 * i or 0, j[{ i, k }]) end
      end
    end)

    it("are differentiated themselves (" .. name .. ")", function()
      local g = ad.grad(function(x) return total(J(function(y) return y ^ 3 end)(x)) end)
      same({ 6, 12 }, g(ad.array { 1, 2 }))
      local t = ad.jacfwd(J(function(y) return y ^ 3 end))(ad.array { 1, 2 })
      same({ { { 6, 0 }, { 0, 0 } }, { { 0, 0 }, { 0, 12 } } }, t)
    end)
  end

  it("have at most 8 dimensions", function()
    fails("the derivative has 10 dimensions (limit 8)",
      ad.jacobian(function(x) return x * 2 end), ad.ones(1, 1, 1, 1, 1))
  end)

  it("take few passes", function()
    local runs = 0
    local function f(x)
      runs = runs + 1
      return x * 2
    end
    ad.jacobian(f)(ad.ones(40))
    assert.equal(1, runs)
    runs = 0
    ad.jacfwd(f)(ad.ones(40))
    assert.equal(5, runs)
  end)

  it("hessian and hvp", function()
    local function f(x) return total(x * x * x) + x[1] * x[2] end
    same({ { 6, 1 }, { 1, 12 } }, ad.hessian(f)(ad.array { 1, 2 }))
    same({ 7, 13 }, ad.hvp(f, ad.array { 1, 2 }, ad.ones(2)))
    local p = { a = ad.array { 1, 2 }, b = 3 }
    local h = ad.hessian(function(q) return total(q.a * q.a) * q.b end)(p)
    same({ { 6, 0 }, { 0, 6 } }, h.a.a)
    same({ 2, 4 }, h.a.b)
    same({ 2, 4 }, h.b.a)
    assert.equal(0, h.b.b)
    assert.same({ 2, 3, 2, 3 }, ad.hessian(function(x) return total(x ^ 2) end)(A()).shape)
  end)

  it("derivative and taylor with arrays within and as results", function()
    local k = ad.array { 1, 2 }
    same({ 1, 2 }, ad.derivative(function(t) return ad.exp(k * t) end)(0))
    same({ 1, 8 }, ad.derivative(function(t) return ad.exp(k * t) end, 3)(0))
    assert.equal(9, ad.derivative(function(t) return total(ad.exp(k * t)) end, 3)(0))
    local c = ad.taylor(function(t) return ad.exp(k * t) + ad.ones(2) end, 0, 2)
    same({ 2, 2 }, c[1])
    same({ 1, 2 }, c[2])
    same({ 0.5, 2 }, c[3])
    c = ad.taylor(function(t) return k + 0 * t end, 0, 1)
    same({ 0, 0 }, c[2])
    c = ad.taylor(function() return k end, 0, 1)
    same({ 1, 2 }, c[1])
    same({ 0, 0 }, c[2])
    fails("number expected, got array", ad.derivative(function(t) return t end), k)
    fails("number expected, got", ad.taylor, function(t) return t end, k, 2)
  end)
end)

describe("operations on blocks and vectors", function()
  local x, y = ad.array { { 1, 2, 3 }, { 4, 5, 6 } }, ad.array { { 0.5, -1, 2 }, { 3, 1, 0 } }
  local samples = {
    merge = {
      { { outer = { 2 }, inner = { 2, 3 }, first = true }, x, y },
      { { outer = { 1, 2 }, inner = { 2, 3 }, first = false }, x, y },
      { { outer = { 2 }, inner = {}, first = true }, 3, 4 },
      { { outer = { 2 }, inner = { 0 }, first = false }, ad.zeros(0), ad.zeros(0) },
    },
    flat = { { { { first = 0, n = 13, shape = { 2, 3 } }, { first = 6, n = 13 },
      { first = 7, n = 13, shape = { 2, 3 } } }, x, 7, ad.transpose(ad.transpose(y)) } },
    piece = {
      { { first = 1, n = 3, shape = { 2 } }, x[1] },
      { { first = 2, n = 3 }, ad.flip(y[2], 1) },
    },
    place = {
      { { first = 1, n = 8, shape = { 2, 3 } }, x },
      { { first = 2, n = 3 }, 4 },
    },
  }

  it("have samples, all of them", function()
    for name, is in pairs(own) do assert.equal(is, samples[name] ~= nil, name) end
  end)

  for name, list in pairs(samples) do
    it("have right derivatives: " .. name, function()
      for _, sample in ipairs(list) do
        local function f(...) return prim.all[name].op(sample[1], ...) ^ 2 end
        assert.is_true(ad.check(f, { table.unpack(sample, 2) }, { order = 2 }))
      end
    end)
  end
end)

describe("ad.var of arrays", function()
  it("has value and grad, which accumulates", function()
    local x = ad.var(ad.array { 1, 2 })
    assert.equal("var", ad.type(x))
    same({ 1, 2 }, x.value)
    assert.is_nil(x.grad)
    total(x * x):backward()
    same({ 2, 4 }, x.grad)
    total(x * 3):backward()
    same({ 5, 7 }, x.grad)
    x:zero_grad()
    assert.is_nil(x.grad)
    same({ 1, 2 }, x:detach())
    assert.equal("array", ad.type(x:detach()))
    local p = ad.var { w = A(), b = 1 }
    total(p.w * p.b):backward()
    assert.equal(21.0, p.b.grad)
    same({ { 1, 1, 1 }, { 1, 1, 1 } }, p.w.grad)
  end)

  it("is freed by backward, or retained", function()
    local x = ad.var(ad.array { 1, 2 })
    local y = total(ad.sin(x))
    y:backward { retain = true }
    y:backward()
    fails("retain = true", y.backward, y)
    same({ 2 * math.cos(1), 2 * math.cos(2) }, x.grad)
  end)

  it("of several targets with seeds, and for intermediate values", function()
    local x = ad.var(ad.array { 1, 2 })
    local y, z = x * 3, total(x)
    ad.backward({ y, z }, { x, y }, { ad.array { 1, 10 }, 2 })
    same({ 5, 32 }, x.grad)
    same({ 1, 10 }, y.grad)
    local u = ad.var(ad.ones(2))
    ad.backward({ total(x) }, { u })
    same({ 0, 0 }, u.grad)
    fails("backward: an array of shape (2) needs a seed", function() (x * 2):backward() end)
    fails("backward: seeds: index 1: array of shape (2) expected, got (3)",
      ad.backward, { x * 2 }, nil, { ad.ones(3) })
    fails("backward: seeds: index 1: array of shape (2) expected, got number",
      ad.backward, { x * 2 }, nil, { 1 })
    fails("backward: seeds: index 1: number expected, got an array of shape (2)",
      ad.backward, { total(x) }, nil, { ad.ones(2) })
  end)

  it("trains", function()
    local w = ad.var(ad.zeros(3))
    local x = ad.array { { 1, 2, 3 }, { 1, 0, 1 }, { 2, 1, 0 }, { 0, 1, 1 } }
    local truth = ad.array { 1, -2, 0.5 }
    local function predict(v)
      local rows = {}
      for i = 1, 4 do rows[i] = total(x[i] * v) end
      return ad.array(rows)
    end
    local y = predict(truth)
    local loss
    for _ = 1, 2000 do
      local r = predict(w) - y
      loss = total(r * r)
      loss:backward()
      local step = w.value - 0.02 * w.grad
      w:zero_grad()
      w = ad.var(step)
    end
    assert.is_true(ad.value(loss) < 1e-10)
  end)
end)

describe("memory of graphs with arrays #memory", function()
  local function growth(step)
    local function used()
      collectgarbage() collectgarbage()
      return collectgarbage "count"
    end
    local peak, before = 0, used()
    for _ = 1, 150 do
      step()
      peak = math.max(peak, collectgarbage "count" - before)
    end
    return peak / 1024, (used() - before) / 1024 -- MB
  end

  for _, mode in ipairs { "incremental", "generational" } do
    it("is bounded in loops that keep no var (" .. mode .. ")", function()
      collectgarbage(mode)
      local x = ad.var(ad.ones(131072))
      local peak, after = growth(function() return ad.exp(ad.sin(x) * x) end) -- 3 MB each
      collectgarbage "incremental"
      assert.is_true(peak < 80, peak)
      assert.is_true(after < 8, after)
    end)
  end

  it("is bounded with backward", function()
    local x = ad.var(ad.ones(131072))
    local peak = growth(function()
      total(ad.exp(ad.sin(x) * x)):backward()
      x:zero_grad()
    end)
    assert.is_true(peak < 80, peak)
  end)

  it("is bounded while the collector stands still", function()
    local x = ad.var(ad.ones(131072))
    collectgarbage "stop"
    local peak = growth(function() return ad.exp(ad.sin(x) * x) end)
    collectgarbage "restart"
    assert.is_true(peak < 150, peak)
  end)

  it("is what the partial derivatives look at", function()
    local function held(f)
      local x = ad.ones(131072) -- 1 MB
      collectgarbage() collectgarbage()
      local before = collectgarbage "count"
      local y, pull = ad.vjp(f, x) -- luacheck: ignore
      collectgarbage() collectgarbage()
      return math.floor((collectgarbage "count" - before) / 1024 + 0.5)
    end
    assert.equal(0, held(function(x) return total(x + 1) end))
    assert.equal(0, held(function(x) return total(((x + 1) - x) + x) end))
    assert.equal(0, held(function(x) return total(-(3 * x) * 2 + x / 4) end))
    assert.equal(1, held(function(x) return total(ad.exp(x)) end)) -- the result
    assert.equal(0, held(function(x) return total(ad.sin(x)) end)) -- x, which is there
    assert.equal(1, held(function(x) return total(ad.sin(x + 1)) end))
    assert.equal(2, held(function(x) return total((x + 1) * (x - 1)) end))
    assert.equal(1, held(function(x) return total(x * ad.zeros(131072)) end))
    assert.equal(0, held(function(x) return total(x * ad.zeros(1, 1)) end))
    assert.equal(1, held(function(x) return total(ad.where(ad.lt(x, 2), x + 1, x - 1)) end))
    local chain = function(x)
      for _ = 1, 10 do x = ad.sin(x) end
      return total(x)
    end
    assert.equal(9, held(chain))
    assert.equal(0, held(ad.checkpoint(chain)))
  end)
end)

describe("ad.tape with arrays", function()
  it("answers for targets, sources and what is between", function()
    local tape <close> = ad.tape { persistent = true }
    local x, s = tape:var(ad.array { 1, 2 }, 3)
    local y = x * s
    local z = total(y * y)
    local gx, gs, gy = tape:gradient(z, x, s, y)
    same({ 18, 36 }, gx)
    assert.equal(30.0, gs)
    same({ 6, 12 }, gy)
    same({ 3, 3 }, tape:gradient(y, x)) -- of the sum
    local g = tape:gradient { target = { y, z }, seeds = { ad.array { 1, 10 }, 0 },
      sources = { a = x, b = s } }
    same({ 3, 30 }, g.a)
    assert.equal(21.0, g.b)
    g = tape:gradient { target = { y, s }, sources = x }
    same({ 3, 3 }, g)
    assert.equal(3, #tape)
    fails("gradient: seeds: index 1: array of shape (2) expected, got (3)", tape.gradient, tape,
      { target = y, seeds = { ad.ones(3) }, sources = x })
    fails("gradient: seeds: index 1: array of shape (2) expected, got number", tape.gradient, tape,
      { target = { y }, seeds = { 2 }, sources = x })
    fails("gradient: seeds: index 1: number expected, got an array of shape (2)", tape.gradient,
      tape, { target = { z }, seeds = { ad.ones(2) }, sources = x })
  end)

  it("gives zeros for what is not connected, stops and resets", function()
    local tape = ad.tape()
    local x, u = tape:var(ad.ones(2), A())
    local y
    tape:stop(function() y = x * x end)
    same({ 1, 1 }, ad.value(y))
    local gx, gu = tape:gradient(total(x + y), x, u)
    same({ 1, 1 }, gx)
    assert.same({ 2, 3 }, gu.shape)
    assert.equal(0.0, total(gu))
    fails("persistent = true", tape.gradient, tape, total(x), x)
    tape:reset()
    x = tape:var(ad.ones(2))
    same({ 2, 2 }, tape:gradient(total(x * x), x))
    tape:close()
  end)
end)

describe("checkpoint with arrays", function()
  it("takes and gives them", function()
    local f = ad.checkpoint(function(p, s) return { p.x * s, n = total(p.x) }, p.x[1] end)
    local g, gs = ad.grad(function(x, s)
      local r, first = f({ x = x }, s)
      return total(r[1] * r[1]) + r.n + first
    end, { 1, 2 })(ad.array { 1, 2 }, 3)
    same({ 20, 37 }, g)
    assert.equal(30.0, gs)
    same({ { 18, 0 }, { 0, 18 } }, ad.hessian(function(x)
      return total(f({ x = x }, 3)[1] ^ 2)
    end)(ad.array { 1, 2 }))
    local _, d = ad.jvp(f, { { x = ad.array { 1, 2 } }, 3 }, { { x = ad.ones(2) }, 1 })
    same({ 4, 5 }, d[1][1])
  end)
end)

describe("custom with arrays", function()
  for _, rules in ipairs { "jvp", "vjp", "both" } do
    it("derives what is missing (" .. rules .. ")", function()
      local f = ad.custom {
        name = "square",
        f = function(a, s) return a * a * s end,
        jvp = rules ~= "vjp" and function(p, t)
          return 2 * p[1] * t[1] * p[2] + p[1] * p[1] * t[2]
        end or nil,
        vjp = rules ~= "jvp" and function(g, _, a, s)
          return 2 * a * s * g, total(g * a * a)
        end or nil,
      }
      local x = ad.array { 1, 2, 3 }
      same({ 2, 8, 18 }, f(x, 2))
      local gx, gs = ad.grad(function(a, s) return total(f(a, s) * a) end, { 1, 2 })(x, 2)
      same({ 6, 24, 54 }, gx)
      assert.equal(36.0, gs)
      local _, d = ad.jvp(f, { x, 2 }, { ad.ones(3), 1 })
      same({ 5, 12, 21 }, d)
      _, d = ad.jvp(function(a) return f(a, 2) end, { x }, { ad.ones(3) })
      same({ 4, 8, 12 }, d)
      same({ { 12, 0, 0 }, { 0, 24, 0 }, { 0, 0, 36 } },
        ad.hessian(function(a) return total(f(a, 2) * a) end)(x))
      same({ 3, 12, 27 }, ad.taylor(function(t) return f(t * x, t) end, 1, 3)[3])
      same({ 1, 4, 9 }, ad.taylor(function(t) return f(t * x, t) end, 1, 3)[4])
      assert.is_true(ad.check(f, { x, 2 }, { order = 2 }))
    end)
  end

  it("gets zeros for results that nobody uses, and may leave cotangents out", function()
    local shape
    local f = ad.custom {
      f = function(a, b) return { a * 2, b * 3 } end,
      vjp = function(g)
        shape = g[2].shape
        return g[1] * 2
      end,
    }
    local ga, gb = ad.grad(function(a, b) return total(f(a, b)[1]) end, { 1, 2 })(ad.ones(2), A())
    same({ 2, 2 }, ga)
    assert.same({ 2, 3 }, shape)
    assert.equal(0.0, total(gb))
  end)

  it("names the shapes of what a rule gives", function()
    local function wrong(v)
      return ad.grad(function(x)
        local f = ad.custom { f = function(a) return a * 2 end, vjp = function() return v end }
        return total(f(x))
      end)
    end
    fails("a rule gave an array of shape (2) in place of an array of shape (2, 3)",
      wrong(ad.ones(2)), A())
    fails("a rule gave a number in place of an array of shape (2, 3)", wrong(1), A())
    fails("a rule gave an array of shape (2) in place of a number", wrong(ad.ones(2)), 1)
    same({ 0, 0 }, wrong(0)(ad.ones(2)))
    fails("a rule gave an array of shape (3) in place of an array of shape (2)", ad.jvp,
      ad.custom { f = function(a) return a end, jvp = function() return ad.ones(3) end },
      { ad.ones(2) }, { ad.ones(2) })
  end)
end)

describe("implicit with arrays", function()
  local function newton(a)
    local x = ad.ones(#a)
    for _ = 1, 80 do x = x - 0.3 * (x * x + 0.1 * total(x) - a) / x end
    return x
  end

  it("for x an array", function()
    local root = ad.implicit {
      f = function(x, a) return x * x + 0.1 * total(x) - a end,
      solve = newton,
    }
    local a = ad.array { 1, 2, 3 }
    assert.equal("array", ad.type(root(a)))
    assert.is_true(ad.check(root, { a }, { order = 2 }))
    assert.same({ 3, 3 }, ad.jacobian(root)(a).shape)
    local t = ad.taylor(function(s) return root(a * s) end, 1, 3)
    assert.equal(4, #t)
    local y = ad.stop(ad.value(root(ad.var(a))))
    assert.same(root(a):tolist(), y:tolist()) -- what solve has found stays
  end)

  it("for x a structure", function()
    local f = ad.implicit {
      f = function(x, a) return { first = x.u * x.u * x.s - a, second = x.s - a[1] } end,
      solve = function(a) return { u = ad.sqrt(a / a[1]), s = a[1] } end,
    }
    assert.is_true(ad.check(f, { ad.array { 1, 2, 3 } }, { order = 2 }))
  end)

  it("checks what f gives", function()
    local f = ad.implicit { f = function(x) return x[1] end, solve = function(a) return a end }
    fails("implicit: f must return as many numbers as x has (2)",
      ad.grad(function(a) return total(f(a)) end), ad.ones(2))
    local singular = ad.implicit { f = function(x, a) return x * 0 - a * 0 end,
      solve = function(a) return a end }
    fails("singular", ad.grad(function(a) return total(singular(a)) end), ad.ones(2))
  end)
end)

describe("check with arrays", function()
  it("finds right derivatives right", function()
    assert.is_true(ad.check(function(a, p) return ad.sin(a) * p.b, p.b * p.c end,
      { A(), { b = ad.array { 1, 2, 3 }, c = 2, d = "text" } }, { order = 2 }))
    assert.is_true(ad.check(function(a) return a * 2 end, { ad.zeros(0, 2) }))
  end)

  it("names argument and index of a wrong one", function()
    local bad = ad.custom {
      f = function(a) return a * a end,
      vjp = function(g, _, a) return g * a * ad.array { { 2, 2, 2 }, { 2, 2, 2.5 } } end,
      jvp = function(p, t) return 2 * p[1] * t[1] end,
    }
    local ok, report = ad.check(function(a) return total(bad(a)) end, { A() })
    assert.is_false(ok)
    assert.equal("check: reverse derivative by argument 1, index {2, 3}: 15, differences give 12 ",
      report:match "^.-%f[(]")
    ok, report = ad.check(function(s, p) return s, bad(p.x) end, { 1, { x = A() } })
    assert.is_false(ok)
    assert.truthy(report:find("by argument 2.x, index {2, 3} of output 2, index {2, 3}: 15",
      1, true))
  end)
end)

describe("looking at arrays", function()
  local function f(w, b, s)
    local h = ad.tanh(w * b + s)
    return total(h * ad.array { { 1, 2, 3 }, { 4, 5, 6 } }) * s, h[1]
  end

  it("explain shows shapes and norms", function()
    local text = ad.explain(f, A() / 10, ad.array { 1, 2, 3 }, 2)
    assert.truthy(text:find("v-2  = x1 +%s*= array %(2, 3%), norm 0%.953939"))
    assert.truthy(text:find("v-1  = x2 +%s*= %[1, 2, 3%]"))
    assert.truthy(text:find("v0   = x3 +%s*= 2\n"))
    assert.truthy(text:find("v4   = v3 * array (2, 3) ", 1, true))
    assert.truthy(text:find("= sum_to(v4)", 1, true))
    assert.truthy(text:find("array_transforms_spec.lua", 1, true))
    assert.truthy(text:find("x\u{307}1 = ones", 1, true))
    assert.truthy(text:find("x\u{307}3 = 1", 1, true))
    assert.truthy(text:find("(J (2, 3)) v\u{307}4", 1, true))
    assert.truthy(text:find("y\u{304}2 = ones", 1, true))
    -- the adjoint of x2 for y2 = h[1] along ones: what grad gives
    local function second(b) return total(select(2, f(A() / 10, b, 2))) end
    local g = ad.grad(second)(ad.array { 1, 2, 3 })
    local want = ("[%.6g, %.6g, %.6g]"):format(g[1], g[2], g[3])
    assert.truthy(text:find("x\u{304}2 = v\u{304}%-1[^\n]*" .. want:gsub("%p", "%%%0")))
  end)

  it("graph is DOT and a picture", function()
    local g = ad.graph(f, A() / 10, ad.array { 1, 2, 3 }, 2)
    local dot = tostring(g)
    assert.truthy(dot:find('label="v-2 = x1\\narray (2, 3), norm 0.953939"', 1, true))
    assert.truthy(dot:find('label="1 … 3"', 1, true))
    assert.truthy(dot:find('label="J (2, 3)"', 1, true))
    local svg = g:svg()
    assert.truthy(svg:find("array (2, 3), norm 6.91231", 1, true))
    assert.truthy(svg:find("</svg>", 1, true))
  end)

  it("debug_nans names operation, shapes, index and line", function()
    ad.debug_nans(true)
    local function message(g, ...)
      local ok, text = pcall(g, ...)
      assert.is_false(ok)
      assert.truthy(text:find("^spec/array_transforms_spec.lua:%d+: debug_nans: "), text)
      return (text:gsub("^.-debug_nans: ", ""))
    end
    local x = ad.array { 1, 0, 2 }
    local function log(v) return total(ad.log(v)) end
    local function root(v) return total(ad.sqrt(v)) end
    local function sum(v) return (total(v)) end
    local got = {
      message(ad.grad(log), x),
      message(ad.jvp, log, { x }, { x }),
      message(ad.taylor, function(t) return log(x * t) end, 1, 2),
      message(ad.grad(root), x),
      message(ad.jvp, root, { x }, { x + 1 }),
      message(ad.grad(sum), ad.full({ 2 }, 1e308)),
      message(ad.jvp, sum, { ad.full({ 2 }, 1e308) }, { x[{ { 1, 2 } }] }),
      message(ad.jvp, sum, { ad.ones(2) }, { ad.full({ 2 }, 1e308) }),
      message(ad.grad(function(a, b) return total(a * b) end), ad.ones(2),
        A()[{ {}, { 1, 2 } }] / 0),
    }
    ad.debug_nans(false)
    assert.same({
      "log(array (3)) gives -inf at index {2}",
      "log(array (3)) gives -inf at index {2}",
      "log(array (3)) gives -inf at index {2}",
      "backward through sqrt(array (3)): the derivative becomes inf at index {2}",
      "the derivative of sqrt(array (3)) becomes inf at index {2}",
      "sum_to(array (2)) gives inf",
      "sum_to(array (2)) gives inf",
      "the derivative of sum_to(array (2)) becomes inf",
      "array (2) * array (2, 2) gives inf at index {1, 1}",
    }, got)
  end)

  it("type, value, comparisons and text", function()
    local x = ad.var(ad.array { 1, 2 })
    assert.equal("array", ad.type(ad.value(x)))
    assert.equal("array", ad.type(ad.value(ad.dual(x, ad.ones(2)))))
    same({ 0, 1 }, ad.eq(x, ad.array { 2, 2 }))
    same({ 1, 0 }, ad.lt(x, 2))
    same({ 1, 1 }, ad.le(x, 2))
    same({ 1, 5 }, ad.value(ad.where(ad.lt(x, 2), x, 5)))
    assert.is_true(x == ad.var(ad.array { 1, 2 }))
    assert.is_true(x == ad.array { 1, 2 })
    fails("attempt to compare", function() return x < x end)
    assert.truthy(tostring(x):find "^var%(")
    assert.truthy(tostring(ad.dual(x, x.value)):find "^dual%(var%(")
  end)
end)

describe("writing into arrays that a tape has saved", function()
  local refused = "cannot write into an array that a tape has saved"
  local function write(a) a[1] = 0 end

  it("is refused while grad runs", function()
    local x = ad.array { 1, 2 }
    ad.grad(function(y)
      local s = ad.sin(y)
      fails(refused, write, x)
      fails(refused, write, ad.value(y))
      return total(s)
    end)(x)
    write(x)
  end)

  it("is refused for views and their owners", function()
    local a = A()
    local _, pull = ad.vjp(function(w) return w * a[1] end, ad.ones(3))
    fails(refused, function() a[{ 2, 1 }] = 0 end)
    fails(refused, write, a[2])
    pull(ad.ones(3))
    fails(refused, write, a)
    pull = nil -- luacheck: ignore
    a[{ 2, 1 }] = 0
    assert.equal(0, a[{ 2, 1 }])
  end)

  it("is allowed for what no partial derivative looks at", function()
    local a, b, c = ad.ones(2), ad.ones(2), ad.ones(2)
    local _, pull = ad.vjp(function(x) return ad.exp(x + a) * c - b, x * 3 end, ad.zeros(2))
    write(a)
    write(b)
    fails(refused, write, c)
    pull { ad.ones(2), ad.ones(2) }
    local w, v = ad.ones(2), ad.ones(2)
    _, pull = ad.vjp(function(x) return x * w end, v)
    write(v) -- only w is needed
    fails(refused, write, w)
    pull(ad.ones(2))
  end)

  it("is refused by tapes and graphs until they are gone", function()
    local x = ad.array { 1, 2 }
    local tape = ad.tape()
    local v = tape:var(x)
    local y = total(ad.sin(v))
    fails(refused, write, x)
    tape:gradient(y, v)
    write(x)
    tape:reset()
    y = total(ad.cos(tape:var(x))) -- luacheck: ignore
    fails(refused, write, x)
    tape:close()
    write(x)
    v = ad.var(x)
    y = total(ad.sin(v))
    fails(refused, write, x)
    y:backward { retain = true }
    fails(refused, write, x)
    y:backward()
    write(x)
    y = total(ad.sin(v)) -- luacheck: ignore
    fails(refused, write, x)
    y = nil -- luacheck: ignore
    write(x)
  end)

  it("is refused by operations with rules in Lua, checkpoints and custom functions", function()
    local x, w = ad.array { 1, 2 }, ad.array { 3, 4 }
    local _, pull = ad.vjp(ad.checkpoint(function(a) return ad.sin(a * w) end), x)
    fails(refused, write, x)
    fails(refused, write, w) -- which it only closes over
    pull(ad.ones(2))
    fails(refused, write, w)
    pull = nil -- luacheck: ignore
    write(x)
    write(w)
    local function twice(a) return a * 2 end
    local double = ad.custom { f = twice, vjp = twice }
    _, pull = ad.vjp(double, x)
    fails(refused, write, x)
    pull(ad.ones(2))
  end)
end)

describe("exact zeros in arrays", function()
  it("win element by element", function()
    local x = ad.array { 0, 1, 4 }
    local m = ad.array { 0, 1, 1 }
    same({ 0, 0.5, 0.25 }, ad.grad(function(v) return total(ad.sqrt(v) * m) end)(x))
    local _, d = ad.jvp(ad.sqrt, { x }, { m })
    same({ 0, 0.5, 0.25 }, d)
    local y, lin = ad.linearize(ad.sqrt, x) -- luacheck: ignore
    same({ 0, 0.5, 0.25 }, lin(m))
  end)

  it("where: what is not chosen takes no part, whatever it is", function()
    local c, x = ad.array { 1, 0 }, ad.array { 2, 3 }
    same({ 5, 27 }, ad.grad(function(v)
      return total(ad.where(c, v * v, v ^ 3)) + total(ad.where(c, v, 0) * c)
    end)(x))
    same({ 5, 27 }, ad.grad(function(v)
      return total(ad.where(c, v * v, ad.where(c, v / 0, v) ^ 3))
        + total(ad.where(c, v, ad.where(c, v / 0 - v / 0, 0)))
    end)(x))
    same({ { 2, 0 }, { 0, 18 } }, ad.hessian(function(v)
      return total(ad.where(c, ad.where(1 - c, v / 0, v * v), ad.where(c, v / 0 - v / 0, v ^ 3)))
    end)(x))
    -- an infinite cotangent or tangent for what is not chosen
    local _, pull = ad.vjp(function(a, b) return ad.where(c, a, b) end, x, x)
    local ga, gb = pull(ad.array { inf, 1 })
    same({ inf, 0 }, ga)
    same({ 0, 1 }, gb)
    local _, d = ad.jvp(function(a, b) return ad.where(c, a, b) end, { x, x },
      { ad.array { 1, inf }, ad.array { 0 / 0, 2 } })
    same({ 1, 2 }, d)
  end)
end)
