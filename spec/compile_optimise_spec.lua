--- What the optimiser makes of programs: which operations are left, and that the numbers are the
-- same, bit by bit, at values that are special; with `fast`, that they are as near as rounding.

local ad = require "autodiff"

local huge, nan = math.huge, 0 / 0
local special = { 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.5, 3.7, 1e-310, -1e-310, 1e-160, 1e160, 1e300,
  -1e300, 2 ^ -1074, huge, -huge, nan }

local function bits(x) return x ~= x and "nan" or string.pack("d", x) end

-- The operations of f compiled, as "mul add", in their order; and the listing.
local function operations(f, n, options)
  local c, args = ad.compile(f, options), {}
  for k = 1, n or 1 do args[k] = 0.25 + k end
  c(table.unpack(args))
  c(table.unpack(args))
  local names, text = {}, tostring(c)
  for name in text:gmatch("= (%a[%w_]*)%(") do names[#names + 1] = name end
  return table.concat(names, " "), text, c
end

-- f compiled against f, at all pairs of special values, in every way to run it.
local function same(f)
  local xs, ys, want = {}, {}, {}
  for _, x in ipairs(special) do
    for _, y in ipairs(special) do
      xs[#xs + 1], ys[#ys + 1], want[#want + 1] = x, y, bits(f(x, y))
    end
  end
  for _, backend in ipairs { "interpreter", "native" } do
    local c = ad.compile(f, { backend = backend })
    for _ = 1, 2 do
      for i, w in ipairs(want) do
        if bits(c(xs[i], ys[i])) ~= w then
          error(("f(%s, %s) is %s, compiled %s"):format(xs[i], ys[i], f(xs[i], ys[i]),
            c(xs[i], ys[i])))
        end
      end
    end
    local rows = c:map(ad.array(xs), ad.array(ys))
    for i, w in ipairs(want) do
      assert.are.equal(w, bits(ad.value(rows[i])), ("f(%s, %s)"):format(xs[i], ys[i]))
    end
  end
end

-- what f is, in x and y; which operations are left of it
local exact = {
  { "x * 1", "" },
  { "x - 0.0", "" },
  { "x + -0.0", "" },
  { "x + 0.0", "add" }, -- of -0.0 that is 0.0
  { "-0.0 + x", "" },
  { "0.0 - x", "sub" },
  { "-0.0 - x", "unm" },
  { "x * x + 0.0", "mul" },
  { "ad.abs(x) * 3 + 0.0", "abs mul" },
  { "x * y + 0.0", "mul add" },
  { "-(-x)", "" },
  { "x - (-y)", "add" },
  { "-x - (-y)", "sub" },
  { "-x + y", "sub" },
  { "(-x) * (-y)", "mul" },
  { "(-x) / (-y)", "div" },
  { "(-x) / 3", "div" },
  { "3 / (-x)", "div" },
  { "(-x) * 3", "mul" },
  { "-(x * 3)", "mul" },
  { "-(x - y)", "sub unm" }, -- y - x is another zero
  { "x / 4", "mul" },
  { "x / 3", "div" },
  { "x / 2^-1030", "div" }, -- whose reciprocal is infinite
  { "x + x", "mul" },
  { "x * 2 * 3", "mul" },
  { "x * 2 * 0.3", "mul mul" }, -- 1e308 * 2 is infinite
  { "x * 0.5 * 3", "mul mul" },
  { "x ^ 0", "" },
  { "x ^ 1", "" },
  { "x ^ 2", "mul" },
  { "x ^ -1", "div" },
  { "x ^ 0.5", "root" },
  { "ad.max(x, x)", "" },
  { "ad.min(x, x)", "" },
  { "ad.max(x, -math.huge)", "" },
  { "ad.min(x, math.huge)", "" },
  { "ad.max(-math.huge, x)", "max" }, -- not of NaN
  { "ad.abs(ad.abs(x))", "abs" },
  { "ad.abs(-x)", "abs" },
  { "ad.abs(x * x)", "mul" },
  { "ad.abs(x) * ad.abs(x)", "mul" },
  { "ad.relu(ad.relu(x))", "relu" },
  { "ad.sign(ad.sign(x))", "sign" },
  { "x - x", "sub" }, -- NaN of an infinity
  { "x / x", "div" },
}

describe("an optimised program", function()
  for _, case in ipairs(exact) do
    it("of " .. case[1], function()
      local text = "local ad = ... return function(x, y) return " .. case[1] .. " end"
      local f = assert(load(text))(ad)
      assert.are.equal(case[2], (operations(f, 2)))
      same(f)
    end)
  end

  it("has products for small powers, to a few ulp", function()
    for n, want in pairs { [3] = "mul mul", [4] = "mul mul", [5] = "mul mul mul",
      [6] = "mul mul mul", [8] = "mul mul mul", [7] = "pow", [9] = "pow", [-2] = "pow" } do
      local f = function(x) return x ^ n end
      local names, _, c = operations(f)
      assert.are.equal(want, names)
      for _, x in ipairs(special) do
        local a, b = f(x), c(x)
        assert.is_true(a == b and (a ~= 0 or 1 / a == 1 / b) or a ~= a and b ~= b
          or math.abs(a - b) <= 4 * 2 ^ -52 * math.abs(a))
      end
      for i = -20, 20 do
        local a, b = f(i * 0.37), c(i * 0.37)
        assert.is_true(a == b or math.abs(a - b) <= 4 * 2 ^ -52 * math.abs(a))
      end
    end
  end)

  it("computes choices between steps", function()
    -- that the derivative of x^2 at 0 is 0 whatever the exponent's part is, needs no test
    local names = operations(ad.derivative(function(x) return x ^ 2 end))
    assert.are.equal("mul", names)
    names = operations(ad.grad(function(x, y) return ad.where(true, x, y) * 3 end), 2)
    assert.are.equal("", names)
    names = operations(function(x, y) return ad.where(x > 0 and 1 or 0, y, y) end, 2)
    assert.is_nil(names:find("where"))
  end)

  it("has comparisons once that decide each other", function()
    local function guards(f)
      local c = ad.compile(f)
      for _, x in ipairs(special) do
        for _, y in ipairs(special) do
          assert.are.equal(f(x, y), c(x, y))
          assert.are.equal(f(x, y), c(x, y))
        end
      end
      local _, n = tostring(c):gsub(" if ", "")
      return n
    end
    assert.are.equal(1, guards(function(x, y)
      if x < y then return (x < y and 1 or 0) + (x <= y and 2 or 0) + (y < x and 4 or 0)
        + (y <= x and 8 or 0) end
      return 0
    end))
    assert.are.equal(1, guards(function(x, y)
      if x <= y then return (y < x and 4 or 0) end
      return (x < y and 1 or 0)
    end))
    assert.are.equal(2, guards(function(x, y)
      if x <= y then return x < y and 1 or 0 end
      return 5
    end))
    assert.are.equal(2, guards(function(x, y) -- one may be NaN
      if x < y then return 1 end
      return x >= y and 2 or 3
    end))
    assert.are.equal(0, guards(function(x) return x < x and 1 or 2 end))
    assert.are.equal(1, guards(function(x) return x <= x and 1 or 2 end))
  end)

  it("has one value for variables that are always the same", function()
    local f = function(x)
      local n, list = x * 0, {}
      while n < 10 do
        n = n + 1
        list.n = n
        x = x * 0.5 + n
      end
      return x + list.n
    end
    local _, _, c = operations(f)
    for i = 1, 5 do assert.are.equal(f(i + 0.5), c(i + 0.5)) end
    assert.are.equal(1, c:stats().loops)
    local inside = tostring(c):match("%(loop%):(.-)return")
    local _, moves = inside:gsub("mov%(", "")
    assert.are.equal(2, moves)
  end)

  it("has out of its loops what does not change in them", function()
    local f = function(x, a, b)
      while x < 100 do
        if x < 50 then x = x + ad.exp(a) / b else x = x * ad.sin(b * b) ^ 2 + 100 end
      end
      return x
    end
    local _, _, c = operations(f, 3)
    assert.is_true(c:stats().loops > 0)
    c(60.0, 1.0, 1.0)
    local text = tostring(c)
    local inside = text:match("%(loop%):(.-)return")
    for _, name in ipairs { "exp", "div", "sin" } do
      assert.is_truthy(text:find(name .. "(", 1, true), name)
      assert.is_nil(inside:find(name .. "(", 1, true), name)
    end
    for x = 1, 120, 7 do
      assert.are.equal(f(x + 0.0, 0.3, 1.1), c(x + 0.0, 0.3, 1.1))
    end
    -- out of two loops, or of the inner one
    local g = function(x, a)
      local n, s = x * 0, x
      while n < 5 do
        local m = x * 0
        while m < 3 do
          s = s * 0.5 + ad.exp(a) + ad.sin(n)
          m = m + 1
        end
        n = n + 1
      end
      return s
    end
    local d = ad.compile(ad.value_and_grad(g, { 1, 2 }))
    for i = 1, 10 do
      local y, u, v = ad.value_and_grad(g, { 1, 2 })(i * 0.1, 0.2)
      local p, q, r = d(i * 0.1, 0.2)
      assert.is_true(math.abs(y - p) + math.abs(u - q) + math.abs(v - r) < 1e-12 * v)
    end
    c = ad.compile(g)
    for i = 1, 5 do assert.are.equal(g(i * 0.1, 0.2), c(i * 0.1, 0.2)) end
    assert.is_true(c:stats().loops > 1)
    text = tostring(c)
    inside = text:match("%(loop%):(.-)return")
    assert.is_nil(inside:find("exp(", 1, true))
    assert.is_truthy(inside:find("sin(", 1, true))
    assert.is_truthy(text:find("exp(", 1, true))
  end)
end)

---------------------------------------------------------------------------------------------------
-- fast

-- how often an operation is in a listing
local function count(names, name)
  local _, n = (" " .. names .. " "):gsub(" " .. name .. "%f[ ]", "")
  return n
end

-- The longest way through the sums and products of a listing.
local function depth(text)
  local at, most = {}, 0
  for d, a, b in text:gmatch("(v%d+) = %a+%(([%w%.%-]+),? ?([%w%.%-]*)%)") do
    at[d] = 1 + math.max(at[a] or 0, at[b] or 0)
    most = math.max(most, at[d])
  end
  return most
end

local fast = { fast = true }

-- Sums and products of the inputs, as a text: with "-" for some of the sums; loops, and values that
-- are used again and again. The same with "+" throughout bounds all that can occur on the way.
local function polynomial(seed)
  math.randomseed(seed)
  local names, lines = { "x", "y", "z" }, {}
  local function any() return names[math.random(#names)] end
  local function factor()
    local r = math.random(8)
    if r == 1 then return ("%.3f"):format(math.random() + 0.25) end
    if r == 2 then return any() .. " ^ " .. math.random(2, 3) end
    if r == 3 then return any() .. " / d" end
    return any()
  end
  local function term()
    local list = {}
    for k = 1, math.random(4) do list[k] = factor() end
    return "0.3 * " .. table.concat(list, " * ")
  end
  local function sum(n)
    local list = { term() }
    for _ = 2, n do
      list[#list + 1] = math.random(2) == 1 and "+" or "-"
      list[#list + 1] = math.random(6) == 1 and "(" .. any() .. " - " .. term() .. ")"
        or math.random(4) == 1 and any() or term()
    end
    return table.concat(list, " ")
  end
  for k = 1, math.random(2, 5) do
    local name = "v" .. k
    if math.random(3) == 1 then
      lines[k] = ("local %s, n%d = x, d * 0\nwhile n%d < 3 do %s = 0.4 * %s + %s n%d = n%d + 1 end")
        :format(name, k, k, name, name, sum(math.random(4)), k, k)
    else
      lines[k] = ("local %s = 0.5 * (%s)"):format(name, sum(math.random(3) == 1 and 30 or
        math.random(6)))
    end
    names[#names + 1] = name
  end
  return ("local d, x, y, z = ...\n%s\nreturn %s"):format(table.concat(lines, "\n"), sum(3))
end

describe("with the option fast", function()
  it("long sums and products are not chains", function()
    local list = {}
    for i = 1, 1000 do list[i] = math.sin(i) end
    local function f(v)
      local s = 0
      for i = 1, #v do s = s + v[i] * v[i] end
      return s
    end
    local function text(options)
      local c = ad.compile(f, options)
      c(list)
      assert.is_true(math.abs(c(list) - f(list)) < 1e-12)
      return tostring(c)
    end
    assert.is_true(depth(text()) >= 1000)
    assert.is_true(depth(text(fast)) < 1000 / 8 + 10)
    local _, plain = operations(function(x)
      local p = x
      for i = 1, 11 do p = p * ad.sin(x + i) end
      return p
    end)
    local _, wide = operations(function(x)
      local p = x
      for i = 1, 11 do p = p * ad.sin(x + i) end
      return p
    end, 1, fast)
    assert.is_true(depth(plain) > depth(wide))
  end)

  it("constants, equal terms, and equal factors meet", function()
    local function names(f, n) return (operations(f, n or 2, fast)) end
    assert.are.equal("add", names(function(x) return 1 + x + 2 + 3 end))
    assert.are.equal("mul", names(function(x) return 2 * (x / 3) / 7 end))
    assert.are.equal("mul add", names(function(x, y) return x + y + x + x end))
    assert.are.equal("mul mul mul mul", names(function(x)
      return x * x * x * x * x * x * x * x * x * x * x * x -- x^12
    end))
    assert.are.equal("mul mul mul", names(function(x, y) return x * y * x * y * 2 end))
    -- not where it would hide a NaN, or a product that is too large or too small
    local c = ad.compile(function(x, y) return x + y - x end, fast)
    for _ = 1, 2 do assert.is_true(c(huge, 1.0) ~= c(huge, 1.0)) end
    c = ad.compile(function(x) return x * 1e-200 * 1e-200 end, fast)
    for _ = 1, 2 do assert.are.equal(1e200 * 1e-200 * 1e-200, c(1e200)) end
  end)

  it("several quotients with one divisor are products", function()
    local f = function(x, y, z) return x / z + ad.sin(y / z), z / y end
    assert.are.equal(3, count(operations(f, 3), "div"))
    assert.are.equal(2, count(operations(f, 3, fast), "div"))
    local c = ad.compile(f, fast)
    for i = 1, 20 do
      assert.is_true(math.abs(f(i * 0.3, 1.5, 0.7) - c(i * 0.3, 1.5, 0.7)) < 1e-14 * i)
    end
  end)

  it("parts that do not change in a loop leave it", function()
    local f = function(x, a, b)
      local n = x * 0
      while n < 10 do
        x = (x + a) + b
        x = x * a * 0.1 * b
        x = x / a
        n = n + 1
      end
      return x
    end
    local function inside(options)
      local c = ad.compile(f, options)
      for i = 1, 3 do
        assert.is_true(math.abs(c(i * 0.5, 1.25, 0.75) / f(i * 0.5, 1.25, 0.75) - 1) < 1e-14)
      end
      local names = {}
      for name in tostring(c):match("%(loop%):(.-)return"):gmatch("= (%a+)%(") do
        names[#names + 1] = name
      end
      return table.concat(names, " ")
    end
    assert.are.equal(1, count(inside(), "div"))
    assert.are.equal(0, count(inside(fast), "div"))
    assert.are.equal(3, count(inside(), "add"))
    assert.are.equal(2, count(inside(fast), "add"))
    assert.is_true(count(inside(fast), "mul") < count(inside(), "mul"))
  end)

  it("sums are as near as their terms allow, and so are their derivatives", function()
    local differs = 0
    for seed = 1, 60 do
      local source = polynomial(seed)
      local which = { 2, 3, 4 }
      local f = assert(load(source))
      local bound = assert(load((source:gsub(" %- ", " + "))))
      local eager, most = ad.value_and_grad(f, which), ad.value_and_grad(bound, which)
      for _, backend in ipairs { "interpreter", "native" } do
        local c = ad.compile(eager, { fast = true, backend = backend })
        local columns, rows = { {}, {}, {}, {} }, {}
        for point = 1, 6 do
          local x = { 0.5 + math.random() }
          for k = 2, 4 do x[k] = math.random() * 2 - 1 end
          local big = { most(x[1], math.abs(x[2]), math.abs(x[3]), math.abs(x[4])) }
          local want, got = { eager(table.unpack(x)) }, { c(table.unpack(x)) }
          for k = 1, 4 do columns[k][point] = x[k] end
          rows[point] = { want = want, big = big }
          -- each operation of one or the other rounds once (those in loops three times)
          local n = 8 * c:stats().operations * 2 ^ -53
          for k = 1, 4 do
            if math.abs(want[k] - got[k]) > n * big[k] then
              error(("seed %d: %.17g, fast %.17g\n%s"):format(seed, want[k], got[k], source))
            end
            if want[k] ~= got[k] then differs = differs + 1 end
          end
        end
        for k = 1, 4 do columns[k] = ad.array(columns[k]) end
        local mapped = { c:map(table.unpack(columns)) }
        for point, row in ipairs(rows) do
          for k = 1, 4 do
            local n = 8 * c:stats().operations * 2 ^ -53
            assert.is_true(math.abs(row.want[k] - ad.value(mapped[k][point])) <= n * row.big[k])
          end
        end
      end
    end
    assert.is_true(differs > 100)
  end)
end)
