--- ad.tape: recording by hand.

local ad = require "autodiff"
local util = require "support.util"

local close, close_all, fails = util.close, util.close_all, util.fails

describe("a tape", function()
  it("gives the gradient of the manual's example", function()
    local tape <close> = ad.tape()
    local x, y = tape:var(2.0, 4.0)
    local z = ad.exp(x) - x * y + ad.cos(y)
    local gx, gy = tape:gradient(z, x, y)
    close(z.value, math.exp(2) - 8 + math.cos(4))
    close(gx, math.exp(2) - 4)
    close(gy, -2 - math.sin(4))
  end)

  it("gives plain float numbers", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    assert.equal("float", math.type((tape:gradient(x * x, x))))
  end)

  it("answers one result for each source, repeats and any order allowed", function()
    local tape <close> = ad.tape()
    local x, y = tape:var(2, 5)
    local results = table.pack(tape:gradient(x * y * y, y, x, y))
    assert.equal(3, results.n)
    close_all({results[1], results[2], results[3]}, {20, 25, 20})
  end)

  it("differentiates a source by itself", function()
    local tape <close> = ad.tape()
    local x, y = tape:var(2, 5)
    local gx, gy = tape:gradient(x, x, y)
    close(gx, 1)
    close(gy, 0)
  end)

  it("adds up over every use of a variable", function()
    local tape <close> = ad.tape()
    local x = tape:var(1.1)
    local s = 0
    for i = 1, 10 do s = s + x ^ i * x end
    local expected = 0
    for i = 1, 10 do expected = expected + (i + 1) * 1.1 ^ i end
    close(tape:gradient(s, x), expected)
  end)

  it("gives 0 for a source that is unconnected", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(2, 5)
    local unused = y * y
    close(ad.value(unused), 25)
    local gx, gy = tape:gradient(x * x, x, y)
    close(gx, 4)
    close(gy, 0)
    close(tape:gradient(7, x), 0)
    close(tape:gradient(ad.stop(x), x), 0)
    close_all(tape:gradient(x, {a = y, b = {y, x}}), {a = 0, b = {0, 1}})
  end)

  it("follows a chain of any length", function()
    local n <const> = 200000
    local tape <close> = ad.tape()
    local x = tape:var(1.0)
    local y = x
    for _ = 1, n do y = y + x end
    close(tape:gradient(y, x), n + 1)
  end)

  it("takes the values as they are computed, branches and loops included", function()
    local function f(x)
      local y = x
      while y < 100 do
        if y > 10 then y = y * 2 else y = y * x end
      end
      return y
    end
    for _, v in ipairs {1.5, 2.5, 3.5} do
      local tape <close> = ad.tape()
      local x = tape:var(v)
      close(tape:gradient(f(x), x), util.richardson(f, v, 1e-3), 1e-8)
    end
  end)

  it("refuses a target that is no number", function()
    local tape <close> = ad.tape {persistent = true}
    local x = tape:var(2)
    assert.is_false(pcall(tape.gradient, tape, "x", x))
    assert.is_false(pcall(tape.gradient, tape, nil, x))
    assert.is_false(pcall(tape.gradient, tape))
    close(tape:gradient(x * x, x), 4)
  end)

  it("complains in Lua's words", function()
    fails("bad argument #1 to 'tape'", function()
      local tape = ad.tape(3)
      return tape
    end)
    fails("bad argument #1 to 'stop' (function expected, got nil)", function()
      local tape = ad.tape()
      tape:stop(nil)
    end)
    fails("bad argument #1 to 'gradient'", function()
      local tape = ad.tape()
      local g = tape.gradient(3, 4)
      return g
    end)
    fails("itself", function()
      local tape = ad.tape()
      local cycle = {1}
      cycle[2] = cycle
      local v = tape:var(cycle)
      return v
    end)
  end)
end)

describe("tape:var", function()
  it("gives a var for each number, in a structure too", function()
    local tape <close> = ad.tape()
    local x, p, y = tape:var(1, {w = 2, b = {3, 4.5}}, 5)
    for i, v in ipairs {x, p.w, p.b[1], p.b[2], y} do
      assert.equal("var", ad.type(v))
      close(ad.value(v), ({1, 2, 3, 4.5, 5})[i])
    end
  end)

  it("returns as many values as it was given", function()
    local tape <close> = ad.tape()
    assert.equal(1, select("#", tape:var(1)))
    assert.equal(4, select("#", tape:var(1, 2, 3, 4)))
  end)

  it("leaves the structure it was given alone", function()
    local tape <close> = ad.tape()
    local p = {w = 2, b = {3}}
    local v = tape:var(p)
    assert.same({w = 2, b = {3}}, p)
    assert.is_false(rawequal(v, p))
  end)

  it("lets what is not numeric through, and the gradient leaves it out", function()
    local tape <close> = ad.tape()
    local p = tape:var {w = 2, name = "layer", on = true, act = ad.tanh}
    assert.equal("layer", p.name)
    assert.equal(true, p.on)
    assert.equal(ad.tanh, p.act)
    local g = tape:gradient(p.w * p.w, p)
    close_all(g, {w = 4})
  end)

  it("may be called again while recording", function()
    local tape <close> = ad.tape()
    local x = tape:var(2)
    local u = x * x
    local y = tape:var(3)
    local gx, gy = tape:gradient(u * y, x, y)
    close(gx, 12)
    close(gy, 4)
  end)
end)

describe("tape:gradient", function()
  it("takes structures as sources and answers in the same form", function()
    local tape <close> = ad.tape()
    local p = tape:var {w = {1, 2}, b = 3}
    local x = tape:var(5)
    local z = p.w[1] * x + p.w[2] * x * x + p.b * p.b
    local gp, gx = tape:gradient(z, p, x)
    close_all(gp, {w = {5, 25}, b = 6})
    close(gx, 1 + 2 * 2 * 5)
  end)

  it("has a long form", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(2, 3)
    local z = x * x * y
    local results = table.pack(tape:gradient {target = z, sources = x})
    assert.equal(1, results.n)
    close(results[1], 12)
    close_all(tape:gradient {target = z, sources = {x, y}}, {12, 4})
    close_all(tape:gradient {target = z, sources = {a = {x}, b = y}}, {a = {12}, b = 4})
  end)

  it("adds up a list of targets", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(2, 3)
    local u, v = x * x, x * y
    close_all(tape:gradient {target = {u, v}, sources = {x, y}}, {4 + 3, 2})
    close_all(tape:gradient {target = {u}, sources = {x, y}}, {4, 0})
    close_all(tape:gradient {target = {u, u}, sources = {x, y}}, {8, 0})
    close_all(tape:gradient {target = {u, 7}, sources = {x, y}}, {4, 0})
  end)

  it("weighs them with seeds", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(2, 3)
    local u, v = x * x, x * y
    local g = tape:gradient {target = {u, v}, seeds = {10, -1}, sources = {x, y}}
    close_all(g, {40 - 3, -2})
    close(tape:gradient {target = {u, v}, seeds = {0, 0.5}, sources = x}, 1.5)
    close(tape:gradient {target = {u, u, x}, seeds = {1, 2, 3}, sources = x}, 4 + 8 + 3)
  end)

  it("takes seeds that are themselves differentiated outside", function()
    local function f(s)
      local tape <close> = ad.tape()
      local x = tape:var(3)
      return tape:gradient {target = {x * x, x}, seeds = {s * s, 1}, sources = x} -- 6 s^2 + 1
    end
    util.check_first("seeded", f, 2, 25, 24)
  end)

  it("is asked once, unless the tape is persistent", function()
    local tape <close> = ad.tape()
    local x = tape:var(2)
    local z = x * x
    close(tape:gradient(z, x), 4)
    fails("persistent = true", tape.gradient, tape, z, x)
    fails("persistent = true", tape.gradient, tape, {target = z, sources = x})
    local plain <close> = ad.tape {persistent = false}
    x = plain:var(2)
    z = x * x
    close(plain:gradient(z, x), 4)
    fails("persistent = true", plain.gradient, plain, z, x)
  end)

  it("may be asked again of a persistent tape, and after further recording", function()
    local tape <close> = ad.tape {persistent = true}
    local x, y = tape:var(2, 3)
    local z = x * y
    for _ = 1, 3 do
      local gx, gy = tape:gradient(z, x, y)
      close(gx, 3)
      close(gy, 2)
    end
    close(tape:gradient(x * x, x), 4)
    local u = z * z
    close(tape:gradient(u, x), 36)
    close(tape:gradient(z, y), 2)
  end)

  it("records nothing of its own", function()
    local tape <close> = ad.tape {persistent = true}
    local x = tape:var(2)
    local z = ad.sin(x) * x
    local n = #tape
    local g = tape:gradient(z, x)
    assert.equal("number", type(g))
    assert.equal(n, #tape)
  end)
end)

describe("#tape", function()
  it("is the number of recorded operations, without the variables", function()
    local tape <close> = ad.tape()
    assert.equal(0, #tape)
    local x, y = tape:var(2, 3)
    assert.equal(0, #tape)
    local z = x * y
    assert.equal(1, #tape)
    z = ad.sin(z) + x
    assert.equal(3, #tape)
    z = -z
    assert.equal(4, #tape)
    assert.equal("var", ad.type(z))
    for _ = 1, 100 do z = z * x end
    assert.equal(104, #tape)
  end)

  it("does not count what the tape has no part in", function()
    local tape <close> = ad.tape()
    local x = tape:var(2)
    local other = ad.tape()
    local y = other:var(3)
    local c = y * y + ad.sin(1) * 2
    assert.equal(0, #tape)
    assert.equal(2, #other)
    close(ad.value(c), 9 + 2 * math.sin(1))
    local _ = x < 3 and ad.eq(x, 2) and ad.floor(x) and tostring(x) and x .. ""
    assert.equal(0, #tape)
  end)
end)

describe("tape:stop", function()
  it("records nothing of its span", function()
    local tape <close> = ad.tape {persistent = true}
    local x = tape:var(3)
    local c
    local before = #tape
    tape:stop(function()
      c = x * x
      for _ = 1, 10 do c = c + 0 * x end
    end)
    assert.equal(before, #tape)
    close(ad.value(c), 9)
    local z = x * c -- c is a constant
    close(tape:gradient(z, x), 9)
    close(tape:gradient(x * x, x), 6)
  end)

  it("ends with an error inside, which reaches the caller as it is", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    local object = {}
    local ok, err = pcall(tape.stop, tape, function()
      local _ = x * x
      error(object)
    end)
    assert.is_false(ok)
    assert.equal(object, err)
    assert.equal(0, #tape)
    local z = x * x
    assert.equal(1, #tape)
    close(tape:gradient(z, x), 6)
  end)

  it("nests", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    tape:stop(function()
      tape:stop(function() return x * x end)
      local _ = x * x
    end)
    assert.equal(0, #tape)
    local z = x * x
    assert.equal(1, #tape)
    close(tape:gradient(z, x), 6)
  end)

  it("stops its own tape only", function()
    close(ad.grad(function(x)
      local tape <close> = ad.tape()
      local y = tape:var(x)
      local c
      tape:stop(function() c = y * y end) -- x^2 outside, a constant inside
      return tape:gradient(y * y * c, y) -- 2x * x^2
    end)(3), 54)
    local other <close> = ad.tape()
    local a = other:var(3)
    local tape <close> = ad.tape()
    tape:var(1)
    local z
    tape:stop(function() z = a * a end)
    close(other:gradient(z, a), 6)
  end)
end)

describe("tape:reset", function()
  it("forgets", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    local z = x * x
    close(tape:gradient(z, x), 6)
    tape:reset()
    assert.equal(0, #tape)
    x = tape:var(5)
    assert.equal(0, #tape)
    close(tape:gradient(x * x, x), 10)
  end)

  it("makes constants of the vars of before", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    local u = x * x
    tape:reset()
    local y = tape:var(2)
    close(ad.value(u), 9)
    close(tape:gradient(u * y * x * y, y), 4 * 27)
    tape:reset()
    util.same(u + 1, 10.0)
  end)

  it("serves a loop of any length in bounded memory", function()
    local tape <close> = ad.tape()
    local w = 0.0
    util.bounded(20000, function()
      tape:reset()
      local x = tape:var(w)
      local loss = 0
      for i = 1, 10 do loss = loss + (x * i - 3) ^ 2 / i end
      w = w - 1e-4 * tape:gradient(loss, x)
    end)
    close(w, 30 / 55, 1e-3)
  end)
end)

describe("closing a tape", function()
  local function uses(tape, x)
    return {
      function() return tape:var(1) end,
      function() return tape:gradient(x, x) end,
      function() return tape:gradient {target = x, sources = x} end,
      function() return tape:stop(function() end) end,
      function() return tape:reset() end,
    }
  end

  it("makes every use of it an error that says so", function()
    local tape = ad.tape()
    local x = tape:var(2)
    tape:close()
    for _, use in ipairs(uses(tape, x)) do fails("closed", use) end
    local persistent = ad.tape {persistent = true}
    x = persistent:var(2)
    persistent:gradient(x * x, x)
    persistent:close()
    for _, use in ipairs(uses(persistent, x)) do fails("closed", use) end
  end)

  it("happens at the end of <close>'s block", function()
    local kept, x
    do
      local tape <close> = ad.tape()
      x = tape:var(2)
      kept = tape
    end
    for _, use in ipairs(uses(kept, x)) do fails("closed", use) end
  end)

  it("happens when an error leaves the block", function()
    local kept, x
    local object = {}
    local ok, err = pcall(function()
      local tape <close> = ad.tape()
      x = tape:var(2)
      kept = tape
      error(object)
    end)
    assert.is_false(ok)
    assert.equal(object, err)
    for _, use in ipairs(uses(kept, x)) do fails("closed", use) end
  end)

  it("by hand does not disturb <close>", function()
    assert.is_true(pcall(function()
      local tape <close> = ad.tape()
      tape:var(2)
      tape:close()
    end))
    assert.is_false(pcall(function()
      local tape <close> = ad.tape()
      tape:close()
      tape:var(1)
    end))
  end)

  it("makes constants of its vars", function()
    local tape = ad.tape()
    local x = tape:var(2)
    local y = x * x
    tape:close()
    util.same(y + 1, 5.0)
    util.same(y.value, 4.0)
    util.check_first("with a dead var", function(v) return v * y * x end, 3, 24, 8)
  end)

  it("in the middle leaves the tapes around it as they were", function()
    local outer <close> = ad.tape()
    local x = outer:var(3)
    local inner = ad.tape()
    local y = inner:var(x)
    local z = y * y
    close(ad.value(inner:gradient(z, y)), 6)
    inner:close()
    close(outer:gradient(z * x, x), 27) -- z is x^2 to the outer tape
  end)

  it("in another order than opening is fine", function()
    local first, second = ad.tape(), ad.tape {persistent = true}
    local x = first:var(3)
    local y = second:var(x)
    local z = y * y * x -- x^3 to the first tape, whose derivative by y is 2 x^2
    local g = second:gradient(z, y)
    first:close()
    close(ad.value(g), 18)
    util.same(x * 2, 6.0)
    local w = second:var(2)
    assert.equal("var", ad.type(w * w))
    second:close()
  end)

  it("gives back what it held", function()
    util.bounded(5000, function()
      local tape <close> = ad.tape()
      local x = tape:var(1.0)
      for _ = 1, 40 do x = x * 1.01 end
    end)
  end)

  it("is not needed: the collector does it", function()
    util.bounded(5000, function()
      local tape = ad.tape {persistent = true}
      local x = tape:var(1.0)
      local y = x
      for _ = 1, 40 do y = y * 1.01 end
      tape:gradient(y, x)
    end)
  end)
end)

describe("a tape's level", function()
  it("is taken at its first var", function()
    local inner, outer = ad.tape(), ad.tape()
    local x = outer:var(3)
    local y = inner:var(x) -- the tape made first is the inner one
    local g = inner:gradient(y ^ 3, y)
    close(ad.value(g), 27)
    close(outer:gradient(g, x), 18)
    inner:close()
    outer:close()
  end)

  it("is inside a transform when that is where the first var is made", function()
    local tape = ad.tape {persistent = true}
    close(ad.grad(function(x)
      local y = tape:var(x)
      return tape:gradient(y ^ 3, y)
    end)(3), 18)
    tape:close()
  end)

  it("is outside a transform when the first var is made before", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    local g = ad.grad(function(y) return y ^ 3 * x end)(x)
    close(ad.value(g), 81) -- 3 x^2 * x
    close(tape:gradient(g, x), 81) -- 9 x^2
  end)

  it("is taken anew after a reset", function()
    local tape = ad.tape()
    tape:var(1)
    local outer = ad.tape()
    local x = outer:var(3)
    tape:reset()
    local y = tape:var(x)
    local g = tape:gradient(y ^ 3, y)
    close(outer:gradient(g, x), 18)
    tape:close()
    outer:close()
  end)
end)

describe("nested tapes", function()
  it("give second derivatives", function()
    local outer <close> = ad.tape {persistent = true}
    local x, y = outer:var(2, 3)
    local inner <close> = ad.tape {persistent = true}
    local u, v = inner:var(x, y)
    local z = u ^ 3 * v + ad.sin(u * v)
    local gu, gv = inner:gradient(z, u, v)
    local c, s = math.cos(6), math.sin(6)
    close(ad.value(gu), 36 + 3 * c)
    close(ad.value(gv), 8 + 2 * c)
    local xx, xy = outer:gradient(gu, x, y)
    local yx, yy = outer:gradient(gv, x, y)
    close(xx, 36 - 9 * s)
    close(xy, 12 + c - 6 * s)
    close(yx, 12 + c - 6 * s)
    close(yy, -4 * s)
  end)

  it("give third derivatives", function()
    local a <close> = ad.tape()
    local x = a:var(2)
    local b <close> = ad.tape()
    local y = b:var(x)
    local c <close> = ad.tape()
    local z = c:var(y)
    local first = c:gradient(z ^ 5, z)
    local second = b:gradient(first, y)
    close(ad.value(first), 80)
    close(ad.value(second), 160)
    close(a:gradient(second, x), 240)
  end)

  it("do not confuse their perturbations", function()
    -- d/dx (x * d/dy (x + y)) = 1
    local outer <close> = ad.tape()
    local x = outer:var(1)
    local inner <close> = ad.tape()
    local y = inner:var(1)
    local g = inner:gradient(x + y, y)
    close(ad.value(g), 1)
    close(outer:gradient(x * g, x), 1)
  end)

  it("side by side are independent", function()
    local a <close> = ad.tape()
    local b <close> = ad.tape()
    local x, y = a:var(2), b:var(3)
    local u, v = x * x, y * y
    u = u * x
    v = v + y
    close(a:gradient(u, x), 12)
    close(b:gradient(v, y), 7)
  end)
end)

describe("tapes and transforms", function()
  local function by_tape(f, x)
    local tape <close> = ad.tape()
    local v = tape:var(x)
    return (tape:gradient(f(v), v))
  end
  local ways = {
    tape = by_tape,
    grad = function(f, x) return (ad.grad(f)(x)) end,
    jvp = function(f, x) return (select(2, ad.jvp(f, {x}, {1}))) end,
    taylor = function(f, x) return ad.taylor(f, x, 1)[2] end,
    derivative = function(f, x) return ad.derivative(f)(x) end,
    vjp = function(f, x)
      local _, pull = ad.vjp(f, x)
      return (pull(1))
    end,
  }

  local function f(x) return ad.sin(x * x) * ad.exp(x) + x ^ 4 end
  local slope = function(x) return (ad.grad(f)(x)) end

  for name, way in pairs(ways) do
    it("tape inside " .. name, function()
      for _, x in ipairs {-0.7, 0.4, 1.3} do
        close(way(function(u) return by_tape(f, u) end, x), util.richardson(slope, x), 1e-7)
        local function closure(u) return by_tape(function(v) return v ^ 3 * u end, u) end
        close(way(closure, x), 9 * x * x)
      end
    end)

    it(name .. " inside tape", function()
      for _, x in ipairs {-0.7, 0.4, 1.3} do
        close(by_tape(function(u) return way(f, u) end, x), util.richardson(slope, x), 1e-7)
        local function closure(u) return way(function(v) return v ^ 3 * u end, u) end
        close(by_tape(closure, x), 9 * x * x)
      end
    end)

    it(name .. " inside tape inside " .. name, function()
      local x = 0.9
      close(way(function(u)
        return by_tape(function(v) return way(function(w) return w ^ 5 end, v) end, u)
      end, x), 60 * x ^ 2)
    end)
  end

  it("a tape open around a transform that fails goes on", function()
    local tape <close> = ad.tape()
    local x = tape:var(3)
    local u = x * x
    assert.is_false(pcall(ad.grad(function(y) error(y * x) end), x))
    assert.is_false(pcall(ad.jvp, function(y) error(y * x) end, {x}, {1}))
    close(tape:gradient(u * x, x), 27)
  end)

  it("a transform is done with, a tape opened in it is not", function()
    local tape
    local y
    ad.grad(function(x)
      tape = ad.tape()
      y = tape:var(x)
      return x * x
    end)(3)
    close(ad.value(tape:gradient(y * y, y)), 6)
    tape:close()
  end)
end)
