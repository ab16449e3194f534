-- ad.debug_nans: the first operation that gives NaN or inf, in values, tangents and cotangents,
-- with the line of the user's code. The functions under test are chunks of their own, so that the
-- lines in the messages are known.

local ad = require "autodiff"

local function chunk(text)
  return assert(load(text, "@user.lua", "t", {ad = ad, math = math}))()
end

-- The message of what must be an error.
local function failure(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok, "no error")
  assert.equal("string", type(message))
  return message
end

local function starts(text, message)
  assert.equal(text, message:sub(1, #text))
end

describe("debug_nans", function()
  before_each(function() ad.debug_nans(true) end)
  after_each(function() ad.debug_nans(false) end)

  it("returns the previous setting", function()
    assert.is_true(ad.debug_nans(true))
    assert.is_true(ad.debug_nans(false))
    assert.is_false(ad.debug_nans(false))
    assert.is_false(ad.debug_nans(true))
  end)

  it("checks its argument", function()
    assert.truthy(failure(ad.debug_nans, 1):find("bad argument #1 to '?debug_nans'?") or
      failure(ad.debug_nans, 1):find("boolean expected"))
    assert.truthy(failure(ad.debug_nans):find("boolean expected"))
  end)

  it("names the line of a value (forward)", function()
    local f = chunk [[
      return function(x)
        local a = x + 1
        local b = ad.log(a - 1)
        return b * 2
      end]]
    local message = "user.lua:3: debug_nans: log(0) gives -inf"
    starts(message, failure(ad.grad(f), 0))
    starts(message, failure(ad.jvp, f, {0}, {1}))
    starts(message, failure(ad.taylor, f, 0, 3))
    starts(message, failure(ad.linearize, f, 0))
    starts(message, failure(ad.hessian(f), 0))
    local tape <close> = ad.tape()
    starts(message, failure(f, tape:var(0)))
    starts(message, failure(f, ad.var(0)))
    starts(message, failure(f, ad.dual(0, 1)))
    assert.equal(0.0, (ad.jvp(f, {1}, {1})))
  end)

  it("names both operands of an operator", function()
    local f = chunk [[
      return {
        function(x) return (x + 1e308) * 1e10 end,
        function(x) return x / (x - x) end,
        function(x) return (x - x) / (x - x) end,
        function(x)
          local inf = math.huge
          return (inf - x)
        end,
        function(x) return (-x) ^ 0.5 end,
        function(x) return ad.sum{x, 1, -math.huge, 3} end,
      }]]
    starts("user.lua:2: debug_nans: 1e+308 * 10000000000 gives inf", failure(ad.grad(f[1]), 2))
    starts("user.lua:3: debug_nans: 2 / 0 gives inf", failure(ad.grad(f[2]), 2))
    starts("user.lua:4: debug_nans: 0 / 0 gives nan", failure(ad.grad(f[3]), 2))
    starts("user.lua:7: debug_nans: inf - 2 gives inf", failure(ad.grad(f[4]), 2))
    starts("user.lua:9: debug_nans: -2 ^ 0.5 gives nan", failure(ad.grad(f[5]), 2))
    starts("user.lua:10: debug_nans: sum{2, 1, -inf, ...} gives -inf", failure(ad.grad(f[6]), 2))
  end)

  it("finds inf - inf that no operation of its own has made", function()
    local f = chunk "return function(x, y)\n  return x - y\nend"
    starts("user.lua:2: debug_nans: inf - inf gives nan",
      failure(ad.grad(f), math.huge, math.huge))
  end)

  it("names the line of a tangent", function()
    local f = chunk "return function(x)\n  local y = x * x\n  return ad.sqrt(y) + 1\nend"
    local g = chunk "return function(x)\n  return 3 + ad.sqrt(x)\nend"
    starts("user.lua:2: debug_nans: the derivative of sqrt(0) becomes inf",
      failure(ad.jvp, g, {0}, {1}))
    starts("user.lua:2: debug_nans: the derivative of sqrt(0) becomes inf",
      failure(ad.taylor, g, 0, 2))
    -- the tangent of x * x is exactly 0 there
    assert.equal(0.0, select(2, ad.jvp(f, {0}, {1})))
  end)

  it("names the line of a cotangent (backward only)", function()
    local f = chunk [[
      return function(x)
        local a = 2 * x
        local root =
          ad.sqrt(a)
        return root * 3
      end]]
    local message = "user.lua:4: debug_nans: backward through sqrt(0): the derivative becomes inf"
    starts(message, failure(ad.grad(f), 0))
    starts(message, failure(ad.jacrev(f), 0))
    local y, pull = ad.vjp(f, 0)
    assert.equal(0.0, y)
    starts(message, failure(pull, 1))
    assert.equal(0.0, pull(0))
    do
      local tape <close> = ad.tape{persistent = true}
      local x = tape:var(0)
      y = f(x)
      starts(message, failure(tape.gradient, tape, y, x))
    end
    local x = ad.var(0)
    y = f(x)
    starts(message, failure(y.backward, y))
    y = ad.checkpoint(f)(ad.var(0))
    starts(message, failure(y.backward, y))
    local _, lin = ad.linearize(f, 0)
    starts("user.lua:4: debug_nans: the derivative of sqrt(0) becomes inf", failure(lin, 1))
  end)

  it("names the line inside nested transforms", function()
    local f = chunk [[
      return function(x)
        return x *
          ad.sqrt(x)
      end]]
    local inner = chunk [[
      return function(x)
        local inner = ad.grad(function(t)
          return t * x + ad.sqrt(t)
        end)
        return inner(x)
      end]]
    -- the inner sweep, with values that the outer transform differentiates
    local message = "user.lua:3: debug_nans: backward through sqrt(0): the derivative becomes inf"
    starts(message, failure(inner, 0))
    starts(message, failure(ad.grad(inner), 0))
    starts("user.lua:3: debug_nans: ", failure(ad.jvp, inner, {0}, {1}))
    -- what is infinite is only the second derivative
    assert.equal(0.0, select(2, ad.jvp(f, {4}, {0})))
    starts("user.lua:3: debug_nans: ", failure(ad.grad(ad.grad(f)), 0))
    starts("user.lua:3: debug_nans: ", failure(ad.hessian(f), 0))
    starts("user.lua:3: debug_nans: ", failure(ad.grad(ad.grad(ad.grad(f))), 0))
    assert.near(0.375, ad.grad(ad.grad(f))(4), 1e-12)
    -- an operation that only the derivative of the user's has
    local g = chunk "return function(t)\n  return t ^ 1.5\nend"
    starts("user.lua:2: debug_nans: backward through 0 ^ 0.5 in the derivative of ^",
      failure(ad.grad(ad.grad(g)), 0))
    -- and only the innermost of three
    local h = chunk [[
      return function(x)
        return ad.derivative(function(y)
          return ad.grad(function(z)
            return ad.log(z - y) * x
          end)(y + x)
        end)(x)
      end]]
    starts("user.lua:4: debug_nans: log(0) gives -inf", failure(ad.grad(h), 0))
  end)

  it("leaves alone what contributes exactly 0", function()
    local f = chunk "return function(x) return ad.where(x > 0, ad.sqrt(x), x) end"
    assert.equal(1.0, ad.grad(f)(0))
    assert.equal(3.0, ad.grad(function(x)
      local _ = ad.sqrt(x)
      return 3 * x
    end)(0))
  end)

  it("gives the same derivatives as without", function()
    local function all()
      local out = {}
      local function f(v)
        local s = ad.norm{v[1], v[2], 3} + ad.softmax(v)[2] * ad.prod(v)
        return ad.checkpoint(function(a, b) return ad.tanh(a * b) ^ 2 end)(s, v[1]) + ad.max(v)
      end
      local H = ad.hessian(f)({0.3, 0.7})
      out[#out + 1], out[#out + 2] = H[1][1], H[1][2]
      local g = ad.grad(f)({0.3, 0.7})
      out[#out + 1], out[#out + 2] = g[1], g[2]
      out[#out + 1] = ad.derivative(function(x) return f({x, 2 * x}) end, 4)(0.3)
      local x = ad.var(0.4)
      f({x, x * x}):backward()
      out[#out + 1] = x.grad
      local J = ad.jacobian(function(v) return {f(v), v[1] * v[2], ad.sum(v)} end)({0.3, 0.7})
      for i = 1, 3 do out[#out + 1] = J[i][1] + 10 * J[i][2] end
      return out
    end
    local on = all()
    ad.debug_nans(false)
    local off = all()
    assert.equal(#off, #on)
    for i = 1, #off do assert.near(off[i], on[i], 1e-12 * math.max(1, math.abs(off[i]))) end
  end)

  it("names rules of the user's own", function()
    local bad = ad.custom{name = "bad", f = function(x) return x * 2 end,
      jvp = function() return 0 / 0 end, vjp = function() return 1 / 0 end}
    local worse = ad.custom{name = "worse", f = function() return 0 / 0 end,
      vjp = function() return 1 end}
    local f = assert(load("local bad = ...\nreturn function(x)\n  local y = bad(x)\n" ..
      "  return y + 1\nend", "@user.lua"))
    local message = failure(ad.grad(f(bad)), 1)
    starts("user.lua:3: debug_nans: backward through custom 'bad': the derivative becomes inf",
      message)
    starts("user.lua:3: debug_nans: custom 'bad' gives nan", failure(ad.jvp, f(bad), {1}, {1}))
    starts("user.lua:3: debug_nans: custom 'worse' gives nan", failure(ad.grad(f(worse)), 1))
  end)

  it("may be turned on and off in the middle", function()
    ad.debug_nans(false)
    local tape <close> = ad.tape{persistent = true}
    local x = tape:var(0)
    local y = ad.sqrt(x)
    ad.debug_nans(true)
    local z = y * 2 + x
    assert.truthy(failure(tape.gradient, tape, z, x):find(
      "backward through an operation recorded before debug_nans(true): the derivative becomes inf",
      1, true))
    ad.debug_nans(false)
    for _ = 1, 10 do z = z + x end
    assert.equal(math.huge, tape:gradient(z, x))
    ad.debug_nans(true)
    assert.equal(1.0, tape:gradient(z - y * 2, x) - 10)
  end)

  it("keeps its lines when a graph forgets", function()
    local f = chunk "return function(x)\n  return ad.sqrt(x)\nend"
    local w = ad.var(0.0)
    local y = f(w)
    for i = 1, 5000 do
      local t = ad.var(i) * 2
      assert.is_true(t + 1 > t)
    end
    starts("user.lua:2: debug_nans: backward through sqrt(0)", failure(y.backward, y))
  end)

  it("knows its own coroutine's line", function()
    local f = chunk [[
      return function(x)
        local y = x - 1
        coroutine.yield()
        return ad.log(y)
      end]]
    debug.setupvalue(f, 1, {ad = ad, coroutine = coroutine})
    local co = coroutine.create(ad.grad(f))
    assert.is_true(coroutine.resume(co, 1))
    ad.grad(ad.sin)(1)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    starts("user.lua:4: debug_nans: log(0) gives -inf", message)
  end)
end)
