--- What Lua does with a number without asking anybody (==, type, table keys): a compiled function
-- does it as the function does, whatever it was recorded with.

local ad = require "autodiff"

local nan, huge = 0 / 0, math.huge
local special = { 1, 1.0, 0.0, -0.0, 2, 3, 0.5, -1, 1000, 1e300, nan, huge, -huge, 2.5, 128, 127,
  -127, -128, 0 }

local function equal(a, b)
  if a ~= a then return b ~= b end
  -- (a program has no integers, whose 0 has no sign)
  if a == 0 and b == 0 then return math.type(a) == "integer" or 1 / a == 1 / b end
  if type(a) == "table" and type(b) == "table" then
    for k, v in pairs(a) do if not equal(v, b[k]) then return false end end
    for k in pairs(b) do if a[k] == nil then return false end end
    return true
  end
  return a == b
end

-- f compiled, in several orders of the arguments; what stats() has to say.
local function same(f, lists)
  local stats
  for seed = 1, 6 do
    math.randomseed(seed)
    local c = ad.compile(f)
    for _ = 1, 2 * #lists do
      local args = lists[math.random(#lists)]
      local want, got = table.pack(f(table.unpack(args))), table.pack(c(table.unpack(args)))
      assert.are.equal(want.n, got.n)
      for i = 1, want.n do
        if not equal(want[i], got[i]) then
          error(("f(%s): %s, compiled %s"):format(args[1], want[i], got[i]))
        end
      end
    end
    stats = c:stats()
  end
  return stats
end

local function each(list)
  local lists = {}
  for i, x in ipairs(list) do lists[i] = { x } end
  return lists
end

local function pairsof(list)
  local lists = {}
  for _, x in ipairs(list) do for _, y in ipairs(list) do lists[#lists + 1] = { x, y } end end
  return lists
end

local cases = {
  ["=="] = function(x) return x == 1 end,
  ["== with the number first"] = function(x) return 1 == x, 2.0 == x end,
  ["== with constants of all kinds"] = function(x)
    return x == 0.5, x == 1000, x == 1e300, x == -127, x == 128, x == 2.0, x == nil, x == "1",
      x == true
  end,
  ["~="] = function(x) if x ~= 1 then return x * 2 end return x + 10 end,
  ["== 0 and its sign"] = function(x) if x == 0 then return 1 / x end return x end,
  ["an elseif chain"] = function(x)
    if x == 0 then return "none" elseif x == 1 then return "one" elseif x == 2 then return "two"
    elseif x == 0.5 then return "half" end
    return "many"
  end,
  ["== with a local"] = function(x) local y = 2 return x == y, y == x end,
  ["== of a result"] = function(x) if x * 2 == 4 then return x end return -x end,
  ["== with a result of a call"] = function(x)
    local function two() return 2 end
    return x == two(), two() == x, (x + 1 == two()) and x or -x
  end,
  ["x ~= x"] = function(x) if x ~= x then return "nan" end return x end,
  ["x * 1 ~= x * 1"] = function(x) if x * 2 ~= x * 2 then return "nan" end return x end,
  ["and, or, not"] = function(x)
    return (x == 1 or x == 2) and x or x ~= 3 and 2 * x or "three"
  end,
  ["type"] = function(x) return type(x), type(x * 2) == "number" and x or nil end,
  ["type as a tail call"] = function(x) return type(x) end,
  ["a method by type"] = function(x)
    return ({ number = function(v) return v * 2 end })[type(x)](x)
  end,
  ["type in a protected call"] = function(x) return pcall(type, x) end,
  ["math.type"] = function(x) return math.type(x) end,
  ["math.type of a result"] = function(x) return math.type(x + 1) end,
  ["math.tointeger and tonumber"] = function(x) return math.tointeger(x), tonumber(x) end,
  ["getmetatable"] = function(x) return getmetatable(x) == nil end,
  ["ad.type"] = function(x) return ad.type(x) end,
  ["rawequal"] = function(x) return rawequal(x, 1), rawequal(2.5, x) end,
  ["t[x]"] = function(x) return ({ 10, 20, [0.5] = 30 })[x] end,
  ["t[x] = y"] = function(x)
    local t = {}
    if x == x then t[x] = 5 t[x * 2] = x end
    return t[1], t[2], t[0.5], next(t) ~= nil
  end,
  ["{[x] = y}"] = function(x) return x == x and ({ [x] = 1 })[1] or 0 end,
  ["rawget and rawset"] = function(x)
    local t = { 10, 20 }
    if x == x then rawset(t, x, x) end
    return rawget(t, x), t[1]
  end,
  ["a key of __index"] = function(x)
    return setmetatable({}, { __index = function(_, k) return k == 1 and "one" or k end })[x]
  end,
  ["an upvalue"] = (function()
    local one, names = 1, { "one", "two" }
    return function(x) return x == one, names[x] end
  end)(),
  ["a function that is called"] = (function()
    local function is(x, y) return x == y end
    local function find(list, x)
      for i, v in ipairs(list) do if v == x then return i end end
    end
    return function(x) return is(x, 1), find({ 3, 2, 1 }, x) end
  end)(),
  ["a closure"] = function(x)
    local function f(y) return function() return x == y end end
    return f(1)(), f(2)()
  end,
  ["pcall"] = function(x) return select(2, pcall(function() return x == 2 and 2 * x or x end)) end,
  ["a coroutine of its own"] = function(x)
    local co = coroutine.wrap(function(y) while true do y = coroutine.yield(y == 2, y) end end)
    return co(x), co(x + 1), (select(2, co(x)))
  end,
  ["sort"] = function(x)
    local t = { x == x and x or 0, 2.5, 1 }
    table.sort(t, function(a, b) return a ~= b and a < b end)
    return t[1], t[2], t[3]
  end,
  ["a loop"] = function(x)
    local n = 0
    for i = 1, 5 do if i == x then n = n + 10 elseif x == i / 2 then n = n + 1 end end
    return n
  end,
  ["a loop by value"] = function(x)
    if x ~= x or x > 3000 or x < 0 then return 0 end
    local n = 0
    while x > 1 do x = x * 0.5 if x == 1 then n = n + 100 end n = n + 1 end
    return n
  end,
  ["until x == n"] = function(x)
    local n = 0
    repeat n = n + 1 x = x - 1 until x == 0 or n == 7
    return n, x
  end,
  ["a derivative inside"] = function(x)
    local d = ad.derivative(function(z) return x == 2 and z ^ 3 or z == 3 and 0 or z * x end)
    return d(3.0)
  end,
  ["its own function as the result"] = function(x) return (function() return x end)() end,
}

describe("compiled as it is when called with plain numbers:", function()
  for name, f in pairs(cases) do
    it(name, function() same(f, each(special)) end)
  end

  it("two arguments", function()
    same(function(x, y) return x == y, x ~= y, x + 1 == y, x == y + 0.5 end, pairsof(special))
    same(function(x, y) if x == y then return x * 3 end return x - y end, pairsof(special))
  end)

  it("numbers in structures", function()
    local lists = {}
    for _, x in ipairs(special) do lists[#lists + 1] = { { mode = x, w = { x, 1.5 } } } end
    same(function(p)
      if p.mode == 1 then return p.w[1] elseif p.w[2] == 1.5 and p.w[1] ~= 2 then return "other" end
      return { p.mode == 2, type(p.mode) }
    end, lists)
    same(function(p) return math.type(p.mode), p.w[1] end, lists)
  end)

  it("a switch on integers, and its derivatives by the rest", function()
    local function f(n, x)
      if n == 1 then return x end
      if n == 2 then return x * x elseif n == 3 then return ad.sin(x) end
      return 0 * x
    end
    local lists = {}
    for n = 0, 4 do for _, x in ipairs { 0.5, 1.5, -2.5 } do lists[#lists + 1] = { n, x } end end
    local stats = same(f, lists)
    assert.are.equal(0, stats.eager_calls)
    assert.is_true(stats.traces <= 4)
    same(function(n, x) return (ad.grad(f, 2)(n, x)) end, lists)
    same(ad.value_and_grad(f, 2), lists)
    same(function(n, x) return ad.derivative(function(z) return f(n, z) end)(x) end, lists)
  end)

  it("a countdown in a gradient, which could miss its end", function()
    local function f(x, k)
      while k ~= 0 do x, k = x * x, k - 1 end
      return x
    end
    local c = ad.compile(ad.grad(f, 1))
    for k = 0, 3 do assert.equal(2 ^ k * 1.5 ^ (2 ^ k - 1), c(1.5, k)) end
    assert.is_nil(c:stats().note)
  end)

  it("what a gradient sees is no number, compiled or not", function()
    local f = function(x) if x == 1 then return 5 * x end return x * x end
    same(ad.value_and_grad(f), each { 1.0, 2.0, 0.5 })
    same(ad.grad(function(x) return type(x) == "number" and x or x * 3 end), each { 1.0, 2.0 })
    assert.are.equal(ad.grad(f)(1.0), ad.grad(ad.compile(f))(1.0))
    -- a result of operations, of which it is not known at once
    same(ad.value_and_grad(function(x, n)
      if 2 * n == 4 then return x * x elseif 2 * x == 4 then return 7 * x end
      return -x
    end), pairsof { 1.0, 2.0, 3.0 })
    -- of a compiled function that is called inside
    local c = ad.compile(function(x, p)
      if p.n == 2 then return x * x * x elseif x == 2 then return 5 * x end
      return x + p.n
    end)
    for _, n in ipairs { 2, 1, 2.0, 3 } do
      assert.are.equal(n == 2 and 12 or 1, ad.grad(function(x) return c(x, { n = n }) end)(2.0))
      local g = ad.grad(function(y) return c(2.0, { n = y }) end)(n)
      assert.are.equal(ad.grad(function(y) return 5 * 2.0 + 0 * y end)(n), g)
      g = ad.grad(function(y) return c(y, { n = y, m = 1 }) end)(n)
      assert.are.equal(2, g)
    end
  end)

  it("random programs of comparisons", function()
    math.randomseed(11)
    local values = { "1", "2.0", "0.5", "0", "1000", "-1" }
    local function any(list) return list[math.random(#list)] end
    for _ = 1, 60 do
      local names, lines = { "x", "y" }, {}
      for k = 1, 5 do
        local a, b = any(names), math.random(3) == 1 and any(names) or any(values)
        if math.random(2) == 1 then a = a .. any { " * 2", " + 1", " - 0.5", " * 0" } end
        lines[k] = ("local v%d = %s %s %s and %s or %s + %s"):format(k, a, any { "==", "~=" }, b,
          any(names), any(names), any(values))
        names[#names + 1] = "v" .. k
      end
      local f = assert(load(("return function(x, y)\n%s\nreturn v5, v4, v3 == v2\nend"):format(
        table.concat(lines, "\n"))))()
      same(f, pairsof { 1.0, 2.0, 0.5, 0.0, -0.0, 1000.0, nan, -1.0, 3.25 })
    end
  end)
end)

describe("the recording of a comparison", function()
  it("is one trace for all that is not equal, and no call of f", function()
    local runs = 0
    local c = ad.compile(function(x) runs = runs + 1 return x == 1 and 2 * x or x end)
    for i = 2, 50 do assert.are.equal(i + 0.5, c(i + 0.5)) end
    assert.are.equal(1, runs)
    assert.are.equal(2.0, c(1.0))
    assert.are.equal(2, runs)
    assert.are.equal(2.0, c(1.0))
    assert.are.equal(2, runs)
    local s = c:stats()
    assert.are.equal(2, s.traces)
    assert.are.equal(1, s.guards)
    assert.are.equal(0, s.eager_calls)
    assert.is_truthy(tostring(c):find("if x1 == 1 then", 1, true))
    assert.is_truthy(tostring(c):find("compile_equal_spec.lua:%d+"))
  end)

  it("leaves a hook as it was, which goes on", function()
    local f = function(x)
      for _ = 1, 100 do x = x + 0 end
      if x == 1 then return 7 end
      return x
    end
    for _, case in ipairs { { "", 10 }, { "l", 0 }, { "cr", 0 }, { "l", 7 } } do
      local events = 0
      local function hook() events = events + 1 end
      local c = ad.compile(f)
      debug.sethook(hook, table.unpack(case))
      local a, b = c(2.0), c(1.0)
      local h, mask, count = debug.gethook()
      debug.sethook()
      assert.are.equal(2.0, a)
      assert.are.equal(7, b)
      assert.are.equal(hook, h)
      assert.are.equal(case[1], mask)
      assert.are.equal(case[2], count)
      assert.is_true(events > (case[1] == "cr" and 100 or 20))
    end
    local c = ad.compile(function(x) if x == 2 then error("two") end return x end)
    assert.is_false(pcall(c, 2.0))
    assert.is_nil(debug.gethook())
    assert.are.equal(1.0, c(1.0))
    assert.is_nil(debug.gethook())
    local function mine() end
    c = ad.compile(function(x) debug.sethook(mine, "l") return x end)
    c(1.0)
    local h = debug.gethook()
    debug.sethook()
    assert.are.equal(mine, h)
  end)

  it("in a coroutine, and what is left of f's own", function()
    local kept
    local c = ad.compile(function(x)
      kept = coroutine.create(function(y) while true do y = coroutine.yield(y == 1) end end)
      return select(2, coroutine.resume(kept, x)) and 5 or x
    end)
    local co = coroutine.wrap(function() return c(1.0), c(2.0), c(1.0) end)
    local a, b, d = co()
    assert.are.equal(5, a)
    assert.are.equal(2.0, b)
    assert.are.equal(5, d)
    assert.is_true(select(2, coroutine.resume(kept, 1)))
    assert.is_false(select(2, coroutine.resume(kept, 2)))
  end)
end)

describe("the run of f that follows a recording", function()
  it("comes where f calls what nobody watches, and only there", function()
    local function runs(f, ...)
      local n = 0
      local c = ad.compile(function(...) n = n + 1 return f(...) end)
      c(...)
      local first = n
      assert.are.equal(ad.compile(f)(...), c(...))
      return first, c:stats().note
    end
    assert.are.equal(1, (runs(function(x) return x * x end, 3)))
    assert.are.equal(1, (runs(function(x, s) return #s:rep(2) * x end, 3, "ab")))
    assert.are.equal(1, (runs(function(x)
      local t = table.pack(select(1, ad.grad(ad.sin)(x), x))
      table.sort(t, function(a, b) return a < b end)
      table.insert(t, x == 3 and "three" or "other")
      return math.max(table.unpack(t, 1, 2)) * #t
    end, 3.0)))
    assert.are.equal(1, (runs(function(x) return tostring(x) .. x end, 0.5)))
    assert.are.equal(2, (runs(function(x) return tostring(x) .. x end, 3)))
    assert.are.equal(2, (runs(function(x) return coroutine.wrap(ad.sin)(x) end, 3)))
    -- what would be an error may be caught
    assert.are.equal(2, (runs(function(x) return select("#", pcall(string.rep, "a", x)) end, 3)))
    local repeated = ad.compile(function(x) return select(2, pcall(string.rep, "a", x)) end)
    assert.are.equal("aaa", (repeated(3)))
    assert.are.equal(2, (runs(function(x) return os.time() - os.time() + x end, 3.0)))
    -- f gets copies of tables: of another length where there are holes, of their own each, and
    -- with keys in another order
    local nested = { a = 2, b = { 3.5, 4 } }
    assert.are.equal(1, (runs(function(t) return t.a * t.b[1] + #t.b end, nested)))
    assert.are.equal(1, (runs(function(t)
      local s = 0
      for _, v in ipairs(t) do s = s + v end
      return s
    end, { 1, 2, 3, 4, 5 })))
    local both = { 1.5 }
    assert.are.equal(2, (runs(function(t) return t[1] == t[2] and 1 or 2 end, { both, both })))
    assert.are.equal(2, (runs(function(t) return #t end, { 1, nil, 3 })))
    assert.are.equal(2, (runs(function(t) return t == both and 1 or 2 end, both)))
    assert.are.equal(2, (runs(function(t) return ({ [both] = 1 })[t] or 2 end, both)))
    for n = 1, 20 do
      local t = {}
      for k = 1, n do t["k" .. k] = k end
      for k = 1, n, 3 do t["k" .. k] = nil end
      runs(function(u)
        local s = ""
        for k in pairs(u) do s = s .. k end
        return s
      end, t)
    end
    -- f may itself be such a function
    assert.are.equal("number", ad.compile(type)(1.5))
    assert.are.equal("float", ad.compile(math.type)(1.5))
    assert.are.equal("number", ad.compile(setmetatable({}, {
      __call = function(_, x) return coroutine.wrap(type)(x) end }))(1.5))
    -- nor is a random number recorded, in a gradient either
    local function noisy(x) return x * math.random() end
    local generator = ad.random(1)
    local function normal(x) return x * generator:normal() end
    for _, c in ipairs { ad.compile(noisy), ad.compile(ad.grad(noisy)), ad.compile(normal),
        ad.compile(ad.grad(normal)) } do
      assert.are_not.equal(c(1.5), c(1.5))
      assert.is_truthy(c:stats().note)
      assert.are.equal(0, c:stats().traces)
    end
  end)

  it("is what counts where they differ", function()
    -- a C function that nobody watches asks for the type
    local c = ad.compile(function(x) return coroutine.wrap(type)(x) end)
    assert.are.equal("number", c(1.0))
    assert.are.equal("number", c(2.0))
    assert.is_truthy(c:stats().note:find("ad.eq", 1, true))
    -- a function is a value of its own each time
    c = ad.compile(function(x) return function() return x end end)
    assert.are.equal(1.0, c(1.0)())
    assert.are.equal(2.0, c(2.0)())
    c = ad.compile(function(x) return { a = { coroutine.wrap(type)(x) } }, x end)
    assert.are.equal("number", c(1.0).a[1])
    assert.are.equal("number", c(2.0).a[1])
    -- integers are not floats
    c = ad.compile(function(x) return ("%s"):format(x * x) end)
    assert.are.equal("9", c(3))
    assert.are.equal("9.0", c(3.0))
  end)

  it("may fail, or yield", function()
    local c = ad.compile(function(x)
      if coroutine.wrap(type)(x) == "number" and x < 2 then error("a number") end
      return x
    end)
    for _ = 1, 12 do
      local ok, err = pcall(c, 1.0)
      assert.is_false(ok)
      assert.is_truthy(err:find("compile_equal_spec.lua:%d+: a number$"))
    end
    assert.are.equal(3.0, c(3.0))
    c = ad.compile(function(x)
      if coroutine.wrap(type)(x) == "number" then return coroutine.yield(x) + x end
      return x
    end)
    for _ = 1, 3 do
      local co = coroutine.wrap(function() return c(2.0) end)
      assert.are.equal(2.0, co())
      assert.are.equal(7.0, co(5.0))
    end
    -- one that never comes back
    c = ad.compile(function(x)
      if coroutine.wrap(type)(x) == "number" and x < 2 then coroutine.yield(x) end
      return x * 2
    end)
    local co = coroutine.wrap(function() return c(1.0) end)
    assert.are.equal(1.0, co())
    assert.are.equal(6.0, c(3.0))
  end)

  it("does not make a recursion deep", function()
    local sum
    sum = ad.compile(function(x) if x == 0 then return 0 end return x + sum(x - 1) end)
    for n = 0, 60, 20 do assert.are.equal(n * (n + 1) / 2, sum(n)) end
  end)
end)
