--- Gradients of loops, and of loops within loops, with as much memory as they like and with little.

local ad = require "autodiff"
local nested = require "spec.support.nested"

local function bits(x) return ("%a"):format(x) end

-- Loops within loops, by numbers that go round; the last is by n as well.
local cases = {
  ["Newton's iteration in time steps"] = function(x, n)
    local t, y = 0 * x, x
    while t < n do
      local z = y
      while ad.abs(z * z * z + z - y) > 1e-10 do
        z = z - (z * z * z + z - y) / (3 * z * z + 1)
      end
      y = y + 0.1 * (z - 0.3 * y) + 0.01
      t = t + 1
    end
    return y * y
  end,
  ["steps that are tried until they are good"] = function(k, n)
    local t, y, h = 0 * k, 1 + 0 * k, 0.2 + 0 * k
    while t < n do
      local err, z
      repeat
        local k1 = -k * y * y
        local ym = y + 0.5 * h * k1
        z = y - h * k * ym * ym
        err = ad.abs(z - (y + h * k1))
        if err > 1e-3 then h = h * 0.5 end
      until err <= 1e-3
      t, y, h = t + h, z, h * 1.5
    end
    return y
  end,
  ["rows and columns"] = function(a, n)
    local s, i = 0 * a, 0 * a
    while i < n do
      local j, r = 0 * a, a
      while j < i do
        r = r * 0.5 + 0.2 * ad.sin(s) * a + 0.01 * j
        j = j + 1
      end
      s = s + r * 0.1
      i = i + 1
    end
    return s
  end,
  ["a way out of two loops at once"] = function(a, n)
    local s, i = a, 0 * a
    while i < n do
      local j = 0 * a
      while j < i do
        s = s + 0.1 * ad.cos(s * j)
        if s > 3 then return s * s end
        j = j + 1
      end
      s = s + 0.01 * a
      i = i + 1
    end
    return s
  end,
}

local points = {}
for k = 1, 25 do points[k] = { 0.4 + (k * 0.37) % 1, (k * 5) % 9 } end

local function decay(x, n)
  local y, i = 0.5 * x, 0 * x
  while i < n do
    x, y = x + 0.001 * (y - x * x * 0.1), y + 0.001 * (ad.sin(x) - y)
    i = i + 1
  end
  return x + y
end

describe("the gradient of loops within loops", function()
  for name, f in pairs(cases) do
    it("(" .. name .. ") is a program with loops", function()
      local eager = ad.value_and_grad(f, { 1, 2 })
      local inner = ad.compile(f)
      local c = ad.compile(eager)
      for _, one in ipairs { c, ad.value_and_grad(inner, { 1, 2 }) } do
        for _, x in ipairs(points) do
          local want, got = { eager(x[1], x[2]) }, { one(x[1], x[2]) }
          for j = 1, 3 do assert.is_near(want[j], got[j], 1e-11 * (1 + math.abs(want[j]))) end
        end
      end
      local stats = c:stats()
      assert.is_true(stats.loops > 0)
      assert.is_true(stats.traces < 16)
      assert.are.equal("stored", stats.rounds)
      assert.are.equal("stored", inner:stats().rounds)
    end)
  end

  it("has second derivatives", function()
    for _, f in pairs(cases) do
      local function g(p) return f(p[1], p[2]) end
      local eager = ad.hessian(g)
      local c, d = ad.compile(eager), ad.hessian(ad.compile(g))
      for _, x in ipairs(points) do
        for _, got in ipairs { c(x), d(x) } do
          local want = eager(x)
          for i = 1, 2 do
            for j = 1, 2 do
              assert.is_near(want[i][j], got[i][j], 1e-9 * (1 + math.abs(want[i][j])))
            end
          end
        end
      end
    end
  end)
end)

describe("with little memory, the gradient of a loop", function()
  it("is the same in every bit, as long as the loop may be", function()
    for _, backend in ipairs { "interpreter", "native" } do
      local n = backend == "native" and 1e6 or 1e5
      local stored = ad.compile(ad.value_and_grad(decay), { backend = backend })
      stored(0.5, 3) -- what is recorded need not be long
      local y, d = stored(0.0, n)
      assert.are.equal("stored", stored:stats().rounds)
      for _, memory in ipairs { 1 << 16, 1 << 10 } do
        local c = ad.compile(ad.value_and_grad(decay), { backend = backend, memory = memory })
        c(0.5, 3)
        for _ = 1, 2 do
          local z, e = c(0.0, n)
          assert.are.equal(bits(y), bits(z))
          assert.are.equal(bits(d), bits(e))
        end
        local stats = c:stats()
        assert.are.equal("recomputed", stats.rounds)
        assert.are.equal(0, stats.eager_calls)
        assert.is_nil(stats.note)
      end
    end
  end)

  it("computes no round too often", function()
    local function time(memory)
      local c = ad.compile(ad.value_and_grad(decay), { backend = "interpreter", memory = memory })
      c(0.5, 3)
      c(0.5, 1e5)
      local best = math.huge
      for _ = 1, 3 do
        local start = os.clock()
        c(0.5, 1e5)
        best = math.min(best, os.clock() - start)
      end
      return best
    end
    -- about 2 times, see distance in adjoint.c; a square of the rounds would be 10,000 times
    assert.is_true(time(1 << 14) < 8 * time(1 << 28))
  end)

  it("runs f itself where not even one round has room", function()
    local c = ad.compile(ad.value_and_grad(decay), { memory = 30 })
    for _, n in ipairs { 3, 1, 20 } do
      assert.are.equal(ad.grad(decay)(0.5, n), (select(2, c(0.5, n))))
    end
    local stats = c:stats()
    assert.are.equal("memory is too small for the gradient of a loop", stats.note)
    assert.are.equal(2, stats.eager_calls) -- one round is no loop
  end)

  it("is known to map, and to ad.grad of the compiled function", function()
    local x, n, want = {}, {}, {}
    for k = 1, 150 do
      x[k], n[k] = k / 100, (k * 7) % 150
      want[k] = ad.grad(decay)(x[k], n[k])
    end
    local c = ad.compile(ad.grad(decay), { memory = 1000 })
    for threads = 1, 2 do
      local got = c:map(ad.array(x), ad.array(n), { threads = threads })
      for k = 1, 150 do assert.is_near(want[k], ad.value(got[k]), 1e-12) end
      assert.are.equal("recomputed", c:stats().rounds)
    end
    assert.is_true(c:stats().calls < 20)
    c = ad.compile(decay, { memory = 1000 })
    for k = 1, 150 do assert.is_near(want[k], ad.grad(c)(x[k], n[k]), 1e-12) end
    assert.are.equal("recomputed", c:stats().rounds)
  end)

  it("can be stored", function()
    local c = ad.compile(ad.grad(decay), { memory = 1000 })
    c(0.5, 1.0)
    local want = c(0.7, 300.0)
    local path = os.tmpname()
    c:save(path)
    assert.are.equal(want, ad.load_program(path)(0.7, 300.0))
    os.remove(path)
  end)
end)

describe("random loops within loops", function()
  it("have the gradients that they have without a program", function()
    local self = { ad = ad, loops = 0, recomputed = 0, stored = 0, eager = 0 }
    for index = 1, 60 do
      local wrong = nested.check(self, 1, index)
      if wrong then error(wrong) end
    end
    assert.is_true(self.loops > 300)
    assert.is_true(self.stored > 50)
    assert.is_true(self.recomputed > 30)
  end)
end)
