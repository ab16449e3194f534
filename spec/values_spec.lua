--- What an AD value is and how it behaves in Lua's own operators.

local ad = require "autodiff"
local util = require "support.util"

local close, same, exact, fails = util.close, util.same, util.exact, util.fails
local inf <const>, nan <const> = util.inf, util.nan

local binary = {
  ["+"] = function(a, b) return a + b end,
  ["-"] = function(a, b) return a - b end,
  ["*"] = function(a, b) return a * b end,
  ["/"] = function(a, b) return a / b end,
  ["^"] = function(a, b) return a ^ b end,
  ["%"] = function(a, b) return a % b end,
  ["//"] = function(a, b) return a // b end,
}

-- Each maker turns a number into a value of one kind.
local makers = {
  dual = function(v) return ad.dual(v, 1) end,
  ["dual of two tangents"] = function(v) return ad.dual(v, {1, 0}) end,
  var = function(v) return ad.var(v) end,
}

-- Ways of running a function of one number under a transform; the result is the derivative.
local transforms = {
  grad = function(f, x) return (ad.grad(f)(x)) end,
  jvp = function(f, x) return (select(2, ad.jvp(f, {x}, {1}))) end,
  taylor = function(f, x) return ad.taylor(f, x, 1)[2] end,
  tape = function(f, x)
    local tape <close> = ad.tape()
    local v = tape:var(x)
    return (tape:gradient(f(v), v))
  end,
}

local numbers = {2, 3, -3, 7, -7, 0, 1, 2.5, -2.5, 0.5, 5.5, -0.25, 0.0, -0.0, 1e300, -1e300,
  inf, -inf, nan, math.maxinteger, math.mininteger}

local function float(n) return math.type(n) == "integer" and n + 0.0 or n end

describe("kinds", function()
  it("are told by ad.type the way math.type does it", function()
    assert.equal("number", ad.type(1))
    assert.equal("number", ad.type(1.5))
    assert.equal("dual", ad.type(ad.dual(2, 1)))
    assert.equal("var", ad.type(ad.var(2)))
    local thread = coroutine.create(print)
    for _, other in ipairs {"10", "dual", true, {}, {2, 1}, print, io.stdout, thread} do
      assert.is_nil(ad.type(other))
    end
    assert.is_nil(ad.type(nil))
    fails("bad argument #1 to 'type'", function()
      local kind = ad.type()
      return kind
    end)
  end)

  it("are what the transforms hand to f", function()
    ad.grad(function(x)
      assert.equal("var", ad.type(x))
      return x
    end)(2)
    ad.jvp(function(x)
      assert.equal("dual", ad.type(x))
      return x
    end, {2}, {1})
    local tape <close> = ad.tape()
    assert.equal("var", ad.type(tape:var(2)))
  end)

  it("have names in Lua's own messages", function()
    fails("autodiff.dual", string.rep, ad.dual(2, 1))
    fails("autodiff.var", string.rep, ad.var(2))
  end)
end)

describe("operators", function()
  for op, f in pairs(binary) do
    for name, make in pairs(makers) do
      it(op .. " gives Lua's float result in any mix of numbers and " .. name, function()
        for _, a in ipairs(numbers) do
          for _, b in ipairs(numbers) do
            -- Promotion comes first: 7 // 2 with an AD value on one side is 7.0 // 2.0.
            local expected = f(float(a), float(b))
            local what = util.show(a) .. " " .. op .. " " .. util.show(b)
            same(ad.value(f(make(a), make(b))), expected, what)
            same(ad.value(f(make(a), b)), expected, what .. ", number right")
            same(ad.value(f(a, make(b))), expected, what .. ", number left")
          end
        end
      end)
    end

    it(op .. " keeps the kind of its AD operand", function()
      assert.equal("dual", ad.type(f(ad.dual(2, 1), 3)))
      assert.equal("dual", ad.type(f(3, ad.dual(2, 1))))
      assert.equal("var", ad.type(f(ad.var(2), 3)))
      assert.equal("var", ad.type(f(3, ad.var(2))))
    end)

    it(op .. " mixes kinds", function()
      same(ad.value(f(ad.dual(7, 1), ad.var(-2))), f(7.0, -2.0))
      same(ad.value(f(ad.var(7), ad.dual(-2, 1))), f(7.0, -2.0))
    end)

    it(op .. " refuses what is no number", function()
      for _, make in pairs(makers) do
        for _, bad in ipairs {"x", {}, true, print} do
          assert.is_false(pcall(f, make(2), bad))
          assert.is_false(pcall(f, bad, make(2)))
        end
        assert.is_false(pcall(f, make(2), nil))
        assert.is_false(pcall(f, nil, make(2)))
      end
    end)
  end

  it("floor // and % with operands of either sign", function()
    for _, case in ipairs {{7, 2, 3, 1}, {-7, 2, -4, 1}, {7, -2, -4, -1}, {-7, -2, 3, -1},
        {5.5, -2, -3, -0.5}, {-5.5, 2, -3, 0.5}} do
      local a, b, quotient, rest = table.unpack(case)
      for _, make in pairs(makers) do
        exact(ad.value(make(a) // b), quotient)
        exact(ad.value(a // make(b)), quotient)
        exact(ad.value(make(a) % b), rest)
        exact(ad.value(a % make(b)), rest)
      end
    end
  end)

  it("divide by an integer 0 as by 0.0, without an error", function()
    for _, make in pairs(makers) do
      same(ad.value(make(7) // 0), inf)
      exact(ad.value(make(7) % 0), nan)
      same(ad.value(make(-7) / 0), -inf)
    end
  end)

  it("negate", function()
    for _, make in pairs(makers) do
      for _, a in ipairs(numbers) do
        same(ad.value(-make(a)), -float(a), "-" .. util.show(a))
      end
    end
    close((-ad.dual(2, 3)).tangent, -3)
    util.check_first("negation", function(x) return -x end, 2, -2, -1)
  end)

  it("have the derivatives of calculus, in both operands", function()
    for _, args in ipairs {{2.5, 1.5}, {0.75, -1.25}, {3.0, 2.0}} do
      local a, b = args[1], args[2]
      util.check_partials("+", binary["+"], args, {1, 1})
      util.check_partials("-", binary["-"], args, {1, -1})
      util.check_partials("*", binary["*"], args, {b, a})
      util.check_partials("/", binary["/"], args, {1 / b, -a / (b * b)})
      util.check_partials("^", binary["^"], args, {b * a ^ (b - 1), math.log(a) * a ^ b})
      util.check_partials("%", binary["%"], args, {1, -(a // b)})
      util.check_partials("//", binary["//"], args, {0, 0})
    end
  end)

  it("have the second derivatives of calculus", function()
    for _, args in ipairs {{2.5, 1.5}, {3.0, -2.0}} do
      local a, b = args[1], args[2]
      local l = math.log(a)
      util.check_mixed("+", binary["+"], args, {{0, 0}, {0, 0}})
      util.check_mixed("-", binary["-"], args, {{0, 0}, {0, 0}})
      util.check_mixed("*", binary["*"], args, {{0, 1}, {1, 0}})
      util.check_mixed("/", binary["/"], args, {{0, -1 / b ^ 2}, {-1 / b ^ 2, 2 * a / b ^ 3}})
      local cross = a ^ (b - 1) * (1 + b * l)
      util.check_mixed("^", binary["^"], args,
        {{b * (b - 1) * a ^ (b - 2), cross}, {cross, l * l * a ^ b}})
      util.check_mixed("%", binary["%"], args, {{0, 0}, {0, 0}})
      util.check_mixed("//", binary["//"], args, {{0, 0}, {0, 0}})
    end
  end)

  it("take the same value twice", function()
    util.check_first("x*x", function(x) return x * x end, 3, 9, 6)
    util.check_first("x/x", function(x) return x / x end, 3, 1, 0)
    util.check_first("x-x", function(x) return x - x end, 3, 0, 0)
    util.check_first("x^x", function(x) return x ^ x end, 2, 4, 4 * (1 + math.log(2)))
    util.check_first("x%x", function(x) return x % x end, 3, 0, 0)
    util.check_first("x//x", function(x) return x // x end, 3, 1, 0)
  end)
end)

describe("order", function()
  -- Without the integers that are no floats, which are promoted before they are compared.
  local small = {}
  for _, n in ipairs(numbers) do
    if math.type(n) == "float" or math.abs(n) < 2 ^ 53 and n ~= math.mininteger then
      small[#small + 1] = n
    end
  end

  local orders = {
    ["<"] = function(a, b) return a < b end,
    ["<="] = function(a, b) return a <= b end,
    [">"] = function(a, b) return a > b end,
    [">="] = function(a, b) return a >= b end,
  }

  for op, f in pairs(orders) do
    it(op .. " compares primals, with numbers too", function()
      for _, make in pairs(makers) do
        for _, a in ipairs(small) do
          for _, b in ipairs(small) do
            local expected = f(a, b)
            assert.equal(expected, f(make(a), make(b)))
            assert.equal(expected, f(make(a), b))
            assert.equal(expected, f(a, make(b)))
          end
        end
      end
      assert.equal(f(1, 2), f(ad.dual(1, 5), ad.var(2)))
      assert.equal(f(2, 1), f(ad.var(2), ad.dual(1, 5)))
    end)

    it(op .. " refuses what is no number", function()
      for _, make in pairs(makers) do
        assert.is_false(pcall(f, make(2), "x"))
        assert.is_false(pcall(f, {}, make(2)))
        assert.is_false(pcall(f, make(2), nil))
      end
    end)
  end

  it("ignores tangents", function()
    assert.is_false(ad.dual(2, 1) < ad.dual(2, 5))
    assert.is_true(ad.dual(2, 5) <= ad.dual(2, 1))
  end)

  it("works below every level", function()
    local seen = {}
    ad.grad(function(x)
      return (ad.grad(function(y)
        seen = {x < y, y < x, y <= 2, x >= y, 3 > y}
        return x * y
      end)(2))
    end)(1)
    assert.same({true, false, true, false, true}, seen)
  end)

  it("sorts", function()
    local list = {ad.var(3), 1, ad.dual(2, 1), ad.var(0)}
    table.sort(list, function(a, b) return a < b end)
    local values = {}
    for i, v in ipairs(list) do values[i] = ad.value(v) end
    assert.same({0, 1, 2, 3}, values)
  end)
end)

describe("equality", function()
  it("== compares primals when both sides are AD values", function()
    assert.is_true(ad.dual(2, 1) == ad.dual(2, 0))
    assert.is_false(ad.dual(2, 1) == ad.dual(3, 1))
    assert.is_true(ad.var(2) == ad.var(2))
    assert.is_false(ad.var(2) == ad.var(3))
    assert.is_true(ad.var(2) == ad.dual(2, 1))
    assert.is_true(ad.dual(2, 1) == ad.var(2))
    assert.is_true(ad.var(2) ~= ad.dual(3, 1))
    assert.is_false(ad.var(nan) == ad.var(nan))
    assert.is_false(ad.dual(nan, 1) == ad.dual(nan, 1))
    assert.is_true(ad.var(0.0) == ad.var(-0.0))
  end)

  it("== is false between an AD value and a number, as Lua decides", function()
    assert.is_false(ad.var(1) == 1)
    assert.is_false(1 == ad.dual(1, 0))
  end)

  it("ad.eq compares primals in any mix", function()
    for _, make in pairs(makers) do
      assert.is_true(ad.eq(make(1), 1))
      assert.is_true(ad.eq(1, make(1)))
      assert.is_true(ad.eq(make(1), make(1)))
      assert.is_false(ad.eq(make(1), 2))
      assert.is_false(ad.eq(2, make(1)))
      assert.is_false(ad.eq(make(1), make(2)))
      assert.is_false(ad.eq(make(nan), make(nan)))
      local v = make(nan)
      assert.is_false(ad.eq(v, v))
      assert.is_true(ad.eq(make(0.0), -0.0))
    end
    assert.is_true(ad.eq(ad.var(2), ad.dual(2, 7)))
    assert.is_true(ad.eq(1, 1.0))
    assert.is_false(ad.eq(1, 2))
    assert.is_false(ad.eq(nan, nan))
  end)

  it("leaves `x ~= x` no NaN test, since Lua does not ask about an object and itself", function()
    local v = ad.var(nan)
    assert.is_true(rawequal(v, v) and v == v)
  end)
end)

describe("ad.value", function()
  it("passes numbers through as they are", function()
    for _, n in ipairs(numbers) do same(ad.value(n), n) end
  end)

  it("gives the plain primal of any kind", function()
    for _, make in pairs(makers) do
      same(ad.value(make(2.5)), 2.5)
      same(ad.value(make(2) * 3), 6.0)
    end
  end)

  it("strips every level, where .value strips one", function()
    local kinds, inner = {}, {}
    ad.grad(function(x)
      return (ad.grad(function(y)
        local _, d = ad.jvp(function(z)
          local y1, x1 = z.value, z.value.value
          kinds = {ad.type(z), ad.type(y1), ad.type(x1), ad.type(x1.value)}
          inner = {ad.value(z), ad.value(y1), ad.value(x1), x1.value}
          return z * z
        end, {y}, {1})
        return d
      end)(x))
    end)(3)
    assert.same({"dual", "var", "var", "number"}, kinds)
    assert.same({3, 3, 3, 3}, inner)
  end)

  it("has a one-level companion that goes on being differentiated outside", function()
    -- d/dy (y * y.value) is y.value = x, whose derivative is 1; all levels taken as variables it
    -- were 2.
    for _, outer in pairs(transforms) do
      for _, inner in pairs(transforms) do
        close(outer(function(x) return inner(function(y) return y * y.value end, x) end, 5), 1)
      end
    end
  end)

  it("refuses what is no number", function()
    fails("bad argument #1 to 'value'", function()
      local v = ad.value()
      return v
    end)
  end)
end)

describe("fields", function()
  it("of a dual are value and tangent", function()
    local d = ad.dual(2, 3)
    close(d.value, 2)
    close(d.tangent, 3)
    d = d * d
    close(d.value, 4)
    close(d.tangent, 12)
  end)

  it("of a var are value and grad", function()
    local v = ad.var(2)
    close(v.value, 2)
    assert.is_nil(v.grad)
    close((v * v).value, 4)
  end)
end)

describe("tostring", function()
  it("is the kind, then the numbers as %.14g", function()
    assert.equal("dual(2, 1)", tostring(ad.dual(2, 1)))
    assert.equal("var(2)", tostring(ad.var(2)))
    assert.equal("dual(2, 1)", tostring(ad.dual(2.0, 1.0)))
    assert.equal("dual(0.1, -3.5)", tostring(ad.dual(0.1, -3.5)))
    assert.equal("dual(2, 1, 0.5)", tostring(ad.dual(2, {1, 0.5})))
    for _, v in ipairs {1 / 3, -1e100, 1e-7, inf, -inf, 123456789012345678, -0.0, nan} do
      assert.equal(("var(%.14g)"):format(v), tostring(ad.var(v)))
      assert.equal(("dual(%.14g, %.14g)"):format(v, v), tostring(ad.dual(v, v)))
    end
  end)

  it("is the same for what an operation made", function()
    assert.equal("var(6)", tostring(ad.var(2) * 3))
    assert.equal("dual(6, 3)", tostring(ad.dual(2, 1) * 3))
  end)

  it("does not fail on nested values", function()
    local text
    ad.grad(function(x)
      return (ad.grad(function(y)
        text = tostring(y)
        return y * x
      end)(x))
    end)(2)
    assert.equal("var(", text:sub(1, 4))
  end)
end)

describe("..", function()
  it("concatenates like a number does", function()
    for _, make in pairs(makers) do
      for _, v in ipairs {2.0, 2.5, -0.1, 1e100, inf} do
        assert.equal(v .. "", make(v) .. "")
        assert.equal("x = " .. v, "x = " .. make(v))
        assert.equal(v .. "" .. v, make(v) .. make(v))
        assert.equal(7 .. "" .. v, 7 .. make(v))
        assert.equal(v .. "" .. 7, make(v) .. 7)
      end
      assert.equal("string", type(make(2.5) .. ""))
    end
    assert.equal(2.5 .. "" .. 3.5, ad.dual(2.5, 1) .. ad.var(3.5))
  end)

  it("refuses what a number refuses", function()
    assert.is_false(pcall(function() return ad.var(2) .. {} end))
    assert.is_false(pcall(function() return nil .. ad.dual(2, 1) end))
  end)

  it("is plain below every level", function()
    local text
    ad.grad(function(x)
      return (ad.grad(function(y)
        text = "y = " .. y
        return y * x
      end)(x))
    end)(2.5)
    assert.equal("y = 2.5", text)
  end)
end)

describe("what Lua asks no metamethod for", function()
  it("stays as it is", function()
    local v = ad.var(2)
    fails("number expected", math.sin, v)
    fails("number expected", string.format, "%g", v)
    local passes = 0
    assert.is_false(pcall(function()
      for _ = 1, v do passes = passes + 1 end
    end))
    assert.equal(0, passes)
    local t = {}
    t[ad.var(2)] = true
    assert.is_nil(t[2])
  end)
end)

-- Ways to get hold of a value whose transform is over: leak(f, v) runs a transform on a function
-- that stores f(variable with value v), and returns what was stored when nothing of the
-- transform runs.
local leaks = {
  ["a finished grad"] = function(f, v)
    local kept
    ad.grad(function(y)
      kept = f(y)
      return y * y
    end)(v)
    return kept
  end,
  ["a finished jvp"] = function(f, v)
    local kept
    ad.jvp(function(y)
      kept = f(y)
      return y * y
    end, {v}, {1})
    return kept
  end,
  ["a finished taylor"] = function(f, v)
    local kept
    ad.taylor(function(y)
      kept = f(y)
      return y * y
    end, v, 3)
    return kept
  end,
  ["a finished linearize"] = function(f, v)
    local kept
    ad.linearize(function(y)
      kept = f(y)
      return y * y
    end, v)
    return kept
  end,
  ["a closed tape"] = function(f, v)
    local tape = ad.tape()
    local kept = f(tape:var(v))
    tape:close()
    return kept
  end,
  ["a tape that was reset"] = function(f, v)
    local tape = ad.tape()
    local kept = f(tape:var(v))
    tape:reset()
    return kept
  end,
  ["a grad left by an error"] = function(f, v)
    local kept
    pcall(ad.grad(function(y)
      kept = f(y)
      error("out of here")
    end), v)
    return kept
  end,
  ["a jvp left by an error"] = function(f, v)
    local kept
    pcall(ad.jvp, function(y)
      kept = f(y)
      error("out of here")
    end, {v}, {1})
    return kept
  end,
}

local function itself(y) return y end

for name, leak in pairs(leaks) do
  describe("a value that outlives " .. name, function()
    it("is a constant with its primal", function()
      for _, f in ipairs {itself, function(y) return y * y - 6 end} do -- 3 either way
        local dead = leak(f, 3)
        same(ad.value(dead), 3.0)
        same(dead.value, 3.0)
        same(dead + 1, 4.0)
        same(1 - dead, -2.0)
        same(dead * dead, 9.0)
        same(dead / 2, 1.5)
        same(2 ^ dead, 8.0)
        same(dead % 2, 1.0)
        same(dead // 2, 1.0)
        same(-dead, -3.0)
        same(ad.sqrt(dead), math.sqrt(3))
        same(ad.atan(dead, dead), math.atan(3, 3))
        close(ad.sum {dead, 1, dead}, 7)
        exact(ad.max(dead, 1), 3)
        assert.is_true(dead < 4 and dead <= 3 and 2 < dead and dead >= 3)
        assert.is_true(ad.eq(dead, 3))
        assert.is_true(dead == ad.var(3))
        assert.equal("3.0", dead .. "")
        assert.equal("string", type(tostring(dead)))
      end
    end)

    it("is a constant for other transforms", function()
      local dead = leak(function(y) return y * y end, 3)
      for _, transform in pairs(transforms) do
        close(transform(function(x) return dead * x * x end, 2), 36)
        close(transform(function(x) return ad.hypot(x, dead) end, 12), 12 / 15)
        close(transform(function(x) return x - x + dead end, 2), 0)
        close(transform(function() return dead end, 2), 0)
        close(transform(function() return dead * dead end, 2), 0)
      end
      local v = ad.var(2)
      local z = dead * v
      z:backward()
      close(v.grad, 9)
      close((ad.dual(2, 1) * dead).tangent, 9)
    end)

    it("is a constant for the next run of the same transform", function()
      local kept
      local function again() return (leak(function(y)
        local now = kept and kept * y or y
        kept = y
        return now
      end, 3)) end
      again()
      close(ad.value(again()), 9)
    end)

    for outer, transform in pairs(transforms) do
      it("goes on being differentiated in the " .. outer .. " its primal belongs to", function()
        close(transform(function(x)
          local dead = leak(function(y) return x * y end, 3) -- 3x from here on
          return dead * x
        end, 2), 12)
        close(transform(function(x) return leak(itself, x) end, 2), 1)
        close(transform(function(x) return leak(itself, x).value ^ 2 end, 5), 10)
        local function sine(x) return ad.sin(leak(function(y) return y * x end, x)) end
        close(transform(sine, 1.5), 3 * math.cos(2.25))
        -- in a transform started later, inside the same outer one, it is 3x as well
        close(transform(function(x)
          local dead = leak(function(y) return x * y end, 3)
          return transform(function(z) return dead * z * z end, x) -- 6x^2
        end, 2), 24)
      end)
    end
  end)
end

describe("requiring the library", function()
  local script = [[
    local libraries = {_G = _G, math = math, string = string, table = table, io = io, os = os,
      coroutine = coroutine, debug = debug, utf8 = utf8, package = package}
    local before = {}
    for name, library in pairs(libraries) do
      before[name] = {}
      for k, v in pairs(library) do before[name][k] = v end
    end
    local string_meta = getmetatable("").__index
    local ad = require "autodiff"
    assert(type(ad) == "table")
    assert(require "autodiff" == ad)
    local x = ad.var(2)
    local z = ad.sin(x) * x
    z:backward()
    ad.grad(function(y) return ad.math.sin(y) end)(1)
    for name, library in pairs(libraries) do
      for k, v in pairs(library) do
        if not rawequal(before[name][k], v) then print("changed", name, k) end
      end
      for k in pairs(before[name]) do
        if library[k] == nil then print("gone", name, k) end
      end
    end
    for _, value in pairs {1, true, print, coroutine.create(print)} do
      if debug.getmetatable(value) ~= nil then print("metatable", type(value)) end
    end
    if debug.getmetatable(nil) ~= nil then print("metatable", "nil") end
    if getmetatable(_G) ~= nil then print("metatable", "_G") end
    if getmetatable("").__index ~= string_meta then print("metatable", "string") end
    print "done"
  ]]

  it("sets no global and changes no other library", function()
    assert.equal("done", util.fresh_lua(script))
  end)

  it("returns the same table each time", function()
    assert.equal(ad, require "autodiff")
  end)
end)
