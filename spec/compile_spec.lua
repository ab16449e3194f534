--- ad.compile: the program does what the function does, on every path, and so do its derivatives.

local ad = require "autodiff"
local compiled = assert(loadfile("spec/compiled.lua"))("module")

-- Is there machine code here?
local native
do
  local c = ad.compile(function(x) return x * x + 1 end, { backend = "native" })
  for _ = 1, 3 do c(2.0) end
  native = c:stats().backend:find("^native") ~= nil
end

-- The function and how often it has run.
local function counted(f)
  local count = { n = 0 }
  return function(...)
    count.n = count.n + 1
    return f(...)
  end, count
end

-- Calls c and f with each of the argument lists; all results must be the same.
local function same(f, lists, options)
  local c = ad.compile(f, options)
  for round = 1, 2 do
    for _, args in ipairs(lists) do
      local want, got = table.pack(f(table.unpack(args))), table.pack(c(table.unpack(args)))
      assert.are.equal(want.n, got.n)
      for i = 1, want.n do assert.are.same(want[i], got[i], "round " .. round) end
    end
  end
  return c, c:stats()
end

local function each(list)
  local lists = {}
  for i, x in ipairs(list) do lists[i] = { x } end
  return lists
end

describe("a compiled function", function()
  it("tells a list from a table with other keys", function()
    local c = ad.compile(function(t) return t[1] and t[1] * 2 or t["1"] or -1 end)
    local long, more = {}, {x = 1}
    for i = 1, 100 do long[i], more[i] = i + 0.5, i + 0.5 end
    for _ = 1, 3 do
      assert.equal(5.0, c({2.5}))
      assert.equal(2.5, c({["1"] = 2.5}))
      assert.equal(-1, c({[2] = 2.5}))
      assert.equal(5.0, c({2.5, x = 3.5}))
      assert.equal(5.0, c({2.5, 3.5, 4.5}))
      assert.equal(3.0, c(long))
      assert.equal(3.0, c(more))
      long[60] = nil
      assert.equal(3.0, c(long))
      long[60] = 1.5
    end
  end)

  it("runs f once to record it, and the program from then on", function()
    local f, count = counted(function(x, y) return ad.exp(x) - x * y + ad.cos(y) end)
    local c = ad.compile(f)
    assert.are.equal(math.exp(2) - 8 + math.cos(4), c(2, 4))
    assert.are.equal(math.exp(1) - 3 + math.cos(3), c(1, 3))
    assert.are.equal(math.exp(0.5) - 0.5 * 1.5 + math.cos(1.5), c(0.5, 1.5))
    assert.are.equal(1, count.n)
    assert.are.equal(1, c:stats().traces)
    assert.are.equal(3, c:stats().calls)
    local g, n = counted(function(x) return x * ad.max(x, 2) end)
    local d = ad.compile(ad.value_and_grad(g))
    for k = 1, 9 do d(k) end
    assert.are.equal(1, n.n)
  end)

  it("is callable wherever a function is", function()
    local c = ad.compile(function(x) return x * x end)
    assert.are.equal(6, ad.grad(c)(3))
    assert.are.equal(6, ad.grad(c)(3.0))
    assert.are.equal(9.0, ad.compile(c)(3.0))
    assert.are.equal(2, ad.derivative(c, 2)(3.0))
    assert.are.equal(6, (select(2, ad.jvp(c, { 3.0 }, { 1.0 }))))
    assert.are.equal(6, ad.compile(ad.grad(c))(3.0))
  end)

  it("takes another path when the data do", function()
    local f, count = counted(function(x) if x < 1 then return x * 2 end return x + 10 end)
    local c = ad.compile(f)
    for _, x in ipairs { 0.5, 2.0, 0.25, 3.0, 1.0 } do
      assert.are.equal(x < 1 and x * 2 or x + 10, c(x))
    end
    assert.are.equal(2, count.n) -- one for each path
    assert.are.equal(2, c:stats().traces)
    assert.are.equal(1, c:stats().guards)
    assert.are.equal(1, c:stats().retraces)
  end)

  it("needs as many traces as there are paths, and shares what they share", function()
    local function f(x)
      local s = 0
      for i = 1, 10 do if x[i] < 0 then s = s - x[i] ^ 3 else s = s + ad.sqrt(x[i]) end end
      return s
    end
    local c, paths, n = ad.compile(ad.value_and_grad(f)), {}, 0
    math.randomseed(3)
    for _ = 1, 300 do
      local x, path = {}, ""
      for i = 1, 10 do
        x[i] = (math.random() - 0.5) * (i <= 4 and 1 or i * 1e-9 + (i > 8 and 1 or -1) * 10)
        path = path .. (x[i] < 0 and "-" or "+")
      end
      if not paths[path] then paths[path], n = true, n + 1 end
      local y, g = c(x)
      local want, gradient = ad.value_and_grad(f)(x)
      assert.is_true(math.abs(want - y) <= 1e-14 * math.abs(want))
      for i = 1, 10 do
        assert.is_true(math.abs(gradient[i] - g[i]) <= 1e-14 * math.abs(gradient[i]))
      end
    end
    assert.is_true(c:stats().traces <= n)
  end)

  it("looks again at whatever f looked at", function()
    same(function(x) return ad.value(x) * x end, each { 1.5, 2.5, 1.5 })
    same(function(x) return ({ 3, 4, 5 })[ad.floor(x)] * x end, each { 1.5, 2.5, 3.25, 1.25 })
    same(function(x) return x .. "!" end, each { 1.5, 2.5 })
    same(function(x) return tostring(x) end, each { 1.5, 2.5 })
    same(function(x) return ad.eq(x, 1) and x + 1 or x - 1 end, each { 1.0, 2.0 })
    same(function(x, y) return x == y and 1 or x * y end, { { 1.0, 1.0 }, { 1.0, 2.0 } })
    same(function(x) return ad.ceil(x), (ad.modf(x)), select(2, ad.modf(x)) end,
      each { 1.5, -1.5, 2.25, -1.25, 3.0 })
    same(function(x) return ad.where(x, 1, x + 1) end, each { 0.0, 1.0, -0.0 })
    same(function(x) local s = 0 for i = 1, ad.value(x) do s = s + i * x end return s end,
      each { 2, 3, 2 })
    local _, stats = same(function(x) return ad.floor(x) * x end, each { 1.1, 1.2, 1.3, 1.4 })
    assert.are.equal(1, stats.traces) -- for the floor, not for the value
  end)

  it("does not branch on max, min, relu, clamp, abs, nor on their derivatives", function()
    local f = function(x, y)
      return ad.max(x, y) * ad.min(x, 2 * y) + ad.relu(x - y) + ad.clamp(x, -1, 1) * ad.abs(y)
    end
    local points = { { 1.0, 2.0 }, { 2.0, 1.0 }, { 1.5, 1.5 }, { -3.0, 0.5 }, { 0.0, 0.0 } }
    local second = ad.grad(function(...) return (ad.grad(f)(...)) end)
    for _, g in ipairs { f, ad.grad(f, { 1, 2 }), second } do
      local _, stats = same(g, points)
      assert.are.equal(1, stats.traces)
    end
  end)

  it("takes and gives structures", function()
    local c, stats = same(function(p, k)
      return { sum = p.a + p.b[1] * p.b[2], name = p.name, flag = true, { p.b[1] } }, k, nil, "end"
    end, {
      { { a = 1.0, b = { 2.0, 3.0 }, name = "one" }, 1.0 },
      { { a = 1.5, b = { 2.5, 3.5 }, name = "one" }, 2.0 },
      { { a = 1.5, b = { 2.5, 3.5 }, name = "two" }, 2.0 },
      { { a = 1.5, b = { 2.5, 3.5, 9.0 }, name = "two" }, 2.0 },
    })
    assert.are.equal(3, stats.traces) -- other strings and lengths are other functions
    local one, two = c({ a = 1.0, b = { 2.0, 3.0 }, name = "one" }, 1.0),
      c({ a = 1.0, b = { 2.0, 3.0 }, name = "one" }, 1.0)
    assert.are_not.equal(one, two)
    assert.are_not.equal(one[1], two[1])
    same(function() return end, { {} })
    same(function(...) return select("#", ...), ... end,
      { {}, { 1.0 }, { 1.0, 2.0, 3.0 }, { nil, 2.0 } })
  end)

  it("gives f's tables their methods", function()
    local V = {}
    V.__index = V
    function V:norm() return ad.sqrt(self.x ^ 2 + self.y ^ 2) end
    local c = ad.compile(function(v) return v:norm() end)
    assert.are.equal(5, c(setmetatable({ x = 3.0, y = 4.0 }, V)))
    assert.are.equal(13, c(setmetatable({ x = 5.0, y = 12.0 }, V)))
    assert.are.equal(1, c:stats().traces)
  end)

  it("treats an integer as a number, or as itself where f needs one", function()
    local c = ad.compile(function(x) return x * x + 1 end)
    assert.are.equal(5, c(2))
    assert.are.equal(10, c(3))
    assert.are.equal(1, c:stats().traces)
    local power = ad.compile(function(x, n) local y = 1 for _ = 1, n do y = y * x end return y end)
    for n = 0, 5 do assert.are.equal(2.5 ^ n, power(2.5, n)) end
    assert.are.equal(1.5 ^ 3, power(1.5, 3))
    assert.are.equal("integer", math.type(ad.compile(function(n) return ad.value(n) end)(3)))
    same(function(n) return ad.value(n), tostring(n) end, each { 3, 3.0, 4, 4.0 })
  end)

  it("tells integers from floats in structures, too", function()
    local lists = {}
    for i, n in ipairs { 3, 3.0, 4, 4.5, 4, 3.0 } do
      lists[i] = { { n = n, list = { 1, n } }, n }
    end
    same(function(t, n)
      return tostring(t.n), math.type(ad.value(t.list[2])), ad.value(t.list[1]),
        tostring(n)
    end, lists)
    same(function(t) return ad.value(t[1]) .. "," .. t[2] end,
      { { { 1, 2.0 } }, { { 1.0, 2 } }, { { 1.0, 2.0 } }, { { 1, 2 } } })
  end)

  it("keeps integers that no float is", function()
    local big = (1 << 53) + 1
    for _, f in ipairs {
      function(n) return ad.value(n), n end,
      function(n) return ad.value(n) & 0xff end,
      function(n) return tostring(n) end,
      function(n) return ("%d"):format(ad.value(n)) end,
    } do
      same(f, each { big, math.maxinteger, math.mininteger, 5, big + 2, -big })
      same(f, each { 5, big, math.maxinteger, 6, math.mininteger })
    end
    same(function(t) return ad.value(t.seed) % 1000 end,
      { { { seed = 7 } }, { { seed = big } }, { { seed = math.maxinteger } }, { { seed = 8 } } })
  end)

  it("looks at positions in arrays", function()
    local a = ad.array { 2, 3, 5 }
    same(function(i) return a[i] end, each { 1, 2, 3, 1 })
    same(function(i) return ad.sum(a[{ { i, 3 } }]) end, each { 1, 2, 3, 1 })
  end)

  it("says what it does", function()
    local c = ad.compile(function(x) if x < 1 then return ad.sin(x) end return x end)
    assert.is_truthy(tostring(c):find("nothing recorded"))
    c(0.5)
    local text = tostring(c)
    assert.is_truthy(text:find("sin(x1)", 1, true))
    assert.is_truthy(text:find("if x1 < 1 then"))
    assert.is_truthy(text:find("else record"))
    assert.is_truthy(text:find("compile_spec.lua:%d+"))
    local s = c:stats()
    for _, name in ipairs { "traces", "operations", "guards", "calls", "retraces" } do
      assert.are.equal("integer", math.type(s[name]))
    end
    assert.are.equal("string", type(s.backend))
    assert.are.equal("float", math.type(s.seconds_compiling))
  end)
end)

describe("the derivatives of a compiled function", function()
  local functions = {
    function(x, y) return ad.exp(x) - x * y + ad.cos(y) end,
    function(x, y) if x < y then return x ^ 3 * y end return ad.sin(x * y) end,
    function(x, y) return ad.atan2(x, y) + ad.hypot(x, y) + (x * x + 1) ^ y end,
    function(x, y) return ad.logsumexp { x, y, 1 } + ad.norm { x, y } + ad.max { x, y } end,
    function(x, y) return ad.prod { x, y, x } + ad.mean { x, y } + ad.dot({ x, y }, { y, 2 }) end,
    function(x, y) return ad.stop(x) * y + x end,
    function(x, y) return ad.no_grad(function() return x * y end) * y end,
    function(x, y) return ad.checkpoint(function(a) return ad.sin(a) * y end)(x) end,
    function(x, y) return (ad.derivative(function(t) return ad.sin(t * x) end)(y)) end,
    function(x, y) return x // 1 + y % 1 + ad.fmod(x, 2) end,
    ad.custom { name = "twice", f = function(x, y) return x * y end,
      vjp = function(w) return 7 * w, 9 * w end },
    function(x) return ad.implicit { f = function(z, t) return z * z - t end,
      solve = function(t) return t ^ 0.5 end }(x * x + 1) end,
  }
  local points = { { 1.25, 0.5 }, { 0.5, 1.25 }, { -0.7, 1.1 }, { 0.3, 0.3 } }
  local function close(want, got)
    assert.is_true(want == got or want ~= want and got ~= got
      or math.abs(want - got) <= 1e-13 * math.max(1, math.abs(want)), want .. " is not " .. got)
  end

  it("are those of the function", function()
    for k, f in ipairs(functions) do
      local gradient = ad.value_and_grad(f, { 1, 2 })
      local second = ad.grad(function(x, y) return (select(2, gradient(x, y))) end, { 1, 2 })
      for _, g in ipairs { gradient, second } do
        local c = ad.compile(g)
        for _ = 1, 2 do
          for _, p in ipairs(points) do
            local want, got = { g(p[1], p[2]) }, { c(p[1], p[2]) }
            assert.are.equal(#want, #got, "function " .. k)
            for i = 1, #want do close(want[i], got[i]) end
          end
        end
      end
    end
  end)

  it("come in all the forms of grad", function()
    local f = function(p, s, q)
      return p.a * q + p.b[1] ^ 2 * p.b[2] + (s == "x" and p.a or q), q, { p.a }
    end
    local args = { { a = 1.5, b = { 2.5, 3.5 }, name = "p" }, "x", 0.5 }
    local forms = { ad.grad(f), ad.grad(f, 3), ad.grad(f, { 3, 1, 3 }), ad.value_and_grad(f) }
    for _, g in ipairs(forms) do
      same(g, { args, { { a = 1.0, b = { 2.0, 3.0 }, name = "p" }, "y", 1.5 } })
    end
    same(ad.grad(function() return 3 end), { { 1.0 }, { { 1.0, 2.0 } } })
    same(ad.value_and_grad(function(_, y) return y end), { { 1.0, 2.0 } })
    local mixed = { 1.0, "two", 3.0, { "four" }, x = false, y = 5.0 }
    same(ad.grad(function(t) return t[1] * t[3] * t.y end), { { mixed } })
  end)

  it("keep the errors of grad", function()
    for _, g in ipairs { ad.grad(function() return "no" end), ad.value_and_grad(function() end) } do
      local ok, err = pcall(g, 1.0)
      local cok, cerr = pcall(ad.compile(g), 1.0)
      assert.is_false(ok or cok)
      assert.are.equal(err:gsub("^.-:%d+: ", ""), (cerr:gsub("\n.*", ""):gsub("^.-:%d+: ", "")))
    end
  end)

  it("keep the zero rule", function()
    local f = function(x) return ad.where(x > 0, x, ad.sqrt(x)) + 0 * ad.sqrt(x) end
    same(ad.grad(f), each { 1.0, 2.0 })
    local g = ad.grad(function(x) return ad.sqrt(x * 0) * 0 + x end)
    local c = ad.compile(g)
    assert.are.equal(tostring(g(2.0)), tostring(c(2.0)))
    assert.are.equal(tostring(g(2.0)), tostring(c(2.0)))
    local h = ad.grad(function(x, y) return ad.max(ad.log(x), y) end)
    assert.are.equal(0, ad.compile(h)(0.0, 1.0))
    local d = ad.compile(h)
    assert.are.equal(0.5, d(2.0, 0.0))
    assert.are.equal(0, d(0.0, 1.0)) -- 0 times inf
  end)

  it("see the path that the values take", function()
    local f = function(x) if x < 0 then return x * x end return 3 * x end
    same(ad.grad(f), each { -1.0, 2.0, -3.0 })
    same(ad.hessian(function(p)
        if p[1] < p[2] then return p[1] ^ 3 * p[2] end
        return p[1] * p[2]
      end),
      { { { 1.0, 2.0 } }, { { 2.0, 1.0 } } })
    same(function(x) return ad.taylor(f, x, 3) end, each { -1.0, 2.0 })
  end)
end)

describe("a tape", function()
  it("has one node for a call of a compiled function, whose f does not run again", function()
    local f, count = counted(function(x, p)
      if x < 1 then return x * p.a end
      return ad.sin(x) * p.a ^ 2 + p.b[1]
    end)
    local c = ad.compile(f)
    for _, x in ipairs { 0.25, 0.75, 0.5, 1.5, 2.5, 0.125 } do
      local tape <close> = ad.tape()
      local v, p = tape:var(x, { a = 1.5, b = { 2.5 } })
      local before = #tape
      local y = c(v, p)
      assert.are.equal(1, #tape - before)
      local gx, gp = tape:gradient(y, v, p)
      assert.are.equal(x < 1 and 1.5 or math.cos(x) * 2.25, gx)
      assert.are.equal(x < 1 and x or math.sin(x) * 2 * 1.5, gp.a)
      assert.are.equal(x < 1 and 0 or 1, gp.b[1])
    end
    assert.are.equal(2, count.n) -- one for each path
    local g = ad.compile(function(x) return x * 2, x * x end)
    local product = function(x) local a, b = g(x) return a * b end
    assert.are.equal(54, ad.grad(product)(3.0))
    assert.are.equal(36, ad.grad(ad.grad(product))(3.0))
    local sine = ad.compile(ad.sin)
    assert.are.equal(-math.sin(0.5), ad.derivative(sine, 2)(0.5))
    assert.are.equal(-math.sin(0.5), ad.grad(ad.grad(sine))(0.5))
  end)
end)

describe("loops", function()
  local list = {}
  for i = 1, 40 do list[i] = 1.37 ^ i end

  local function newton(a)
    local x = a
    while ad.abs(x * x - a) > 1e-9 * a do x = 0.5 * (x + a / x) end
    return x
  end

  local function decay(x, rate)
    local n = 0
    while x > 1 do x = x * rate end
    return x + n
  end

  local function bisection(a)
    local lo, hi = a * 0, a
    while hi - lo > 1e-9 do
      local mid = 0.5 * (lo + hi)
      if mid * mid < a * 0.5 then lo = mid else hi = mid end
    end
    return lo
  end

  it("of any length are few traces", function()
    local _, stats = same(newton, each(list))
    assert.is_true(stats.traces <= 5)
    assert.are.equal(0, stats.eager_calls)
    _, stats = same(bisection, each(list))
    assert.is_true(stats.traces <= 5)
    local lists = {}
    for i = 1, 30 do lists[i] = { 2.0 + i * i, 1 - 10 ^ (-i / 8) } end -- up to 40,000 trips
    _, stats = same(decay, lists)
    assert.is_true(stats.traces <= 5)
  end)

  it("are differentiated as loops", function()
    local _, stats = same(ad.grad(newton), each(list))
    assert.is_true(stats.traces <= 5)
    local c = ad.compile(ad.value_and_grad(decay, { 1, 2 }))
    for i = 1, 12 do
      local x, rate = 2.0 + i * i, 1 - 10 ^ (-i / 6)
      local want, got = { ad.value_and_grad(decay, { 1, 2 })(x, rate) }, { c(x, rate) }
      for k = 1, 3 do
        assert.is_true(math.abs(want[k] - got[k]) <= 1e-12 * math.max(1, math.abs(want[k])))
      end
    end
    assert.is_true(c:stats().traces <= 5)
    same(ad.grad(bisection), each(list))
  end)

  it("within loops, in closures and tables", function()
    same(function(a)
      local x, s = a, 0.0
      while x > 1 do
        x = x * 0.8
        local z = x
        while z > 0.5 do z = z * 0.7 s = s + z end
      end
      return s
    end, each(list))
    same(function(a)
      local s = a
      local function step() s = s * 0.9 return s end
      while step() > 1 do end
      return s
    end, each(list))
    local _, stats = same(function(a)
      local t = { x = a, last = { 1.0 } }
      while t.x > 1 do t = { x = t.x * 0.9, last = { t.x } } end
      return t.x + t.last[1]
    end, each(list))
    assert.is_true(stats.traces <= 5)
  end)

  it("that f counts are not mistaken for endless ones", function()
    same(function(a)
      local x, n = a, 0
      while x > 1 and n < 7 do x, n = x * 0.9, n + 1 end
      return x, n
    end, each(list))
    same(function(a)
      local x, t = a, {}
      while x > 1 do x = x * 0.8 t[#t + 1] = x end
      return #t, ad.sum(t)
    end, each(list))
    same(function(a) for i = 1, 5 do if a * i > 9 then return i end a = a + 1 end return a end,
      each(list))
    local depth = function(x)
      local function r(y, k) if y < 1 then return k end return r(y * 0.5, k + 1) end
      return r(x, 0)
    end
    same(depth, each(list))
  end)

  it("two in a line, or called from one line, stay apart", function()
    same(function(a) local x = a while x > 3 and x * x > 20 do x = x * 0.9 end return x end,
      each(list))
    local function g(x) while x > 1 do x = x * 0.9 end return x end
    same(function(a) return g(a) + 2 * g(a * 1.3) end, each(list))
    same(function(a) local s = a while s > 2 do s = 0.4 * (g(s) + g(s) + s) - 0.5 end return s end,
      each(list))
  end)

  it("keep to the memory for their values, or run as they are", function()
    for _, memory in ipairs { 1e6, 1000, 0 } do
      local c = ad.compile(ad.grad(decay), { memory = memory // 1 | 0 })
      assert.is_nil(c:stats().rounds)
      for _, n in ipairs { 3, 2000, 5, 3000 } do
        local x = 0.99 ^ -n
        assert.are.equal(ad.grad(decay)(x, 0.99), c(x, 0.99))
      end
      assert.are.equal(memory == 0, c:stats().eager_calls > 0)
      assert.are.equal(memory == 1e6 and "stored" or "recomputed", c:stats().rounds)
    end
  end)
end)

describe("what cannot be compiled", function()
  it("is an error that says what, where, and what to do", function()
    local ok, err = pcall(ad.compile(function(x)
      local s = string.rep("a", x)
      return s
    end), 2.0)
    assert.is_false(ok)
    assert.is_truthy(err:find("compile_spec.lua:%d+: bad argument #2 to 'rep'"))
    assert.is_truthy(err:find("ad.value(x)", 1, true))
  end)

  it("lets f's own errors through as they are", function()
    local object = {}
    local c = ad.compile(function(x) if x < 0 then error(object) end return x end)
    local ok, err = pcall(c, -1.0)
    assert.is_false(ok)
    assert.are.equal(object, err)
    assert.are.equal(1.0, c(1.0))
    ok, err = pcall(c, -1.0)
    assert.is_false(ok)
    assert.are.equal(object, err)
    assert.are.equal(2.0, c(2.0))
    assert.are.equal(1, c:stats().traces)
    local _, text = xpcall(ad.compile(function(x) return x + nil end), debug.traceback, 1.0)
    assert.is_truthy(text:find("compile_spec.lua:%d+: attempt to perform arithmetic on a nil"))
  end)

  it("runs eagerly: too many paths", function()
    local c = ad.compile(function(x) return ad.value(x) * 2 end, { max_traces = 3 })
    for i = 1, 10 do assert.are.equal(i * 2.0, c(i + 0.0)) end
    local s = c:stats()
    assert.are.equal(3, s.traces)
    assert.are.equal(7, s.eager_calls)
    assert.is_truthy(s.note:find("max_traces"))
    c = ad.compile(function(x) for _ = 1, 100 do x = x * 1.01 end return x end,
      { max_operations = 50 })
    local y = 1.5
    for _ = 1, 100 do y = y * 1.01 end
    for _ = 1, 12 do assert.are.equal(y, c(1.5)) end
    assert.is_truthy(c:stats().note:find("max_operations"))
  end)

  it("is not slow where lists come in many lengths", function()
    local c, list, start = ad.compile(function(t) return ad.sum(t) end), {}, os.clock()
    for i = 1, 1500 do
      list[i] = 1.0
      assert.are.equal(i, c(list))
    end
    assert.are.equal(1500, c:stats().traces)
    assert.is_true(os.clock() - start < 5) -- a second; 15 if each is compared with each
  end)

  it("runs eagerly: functions and objects that f makes", function()
    local c = ad.compile(function(x) return function(y) return x * y end end)
    assert.are.same({ 4, 6 }, { c(2.0)(2), c(3.0)(2) })
    local pull = ad.compile(function(x)
      return select(2, ad.vjp(function(z) return z * z end, x))
    end)
    assert.are.same({ 4, 6 }, { (pull(2.0)(1.0)), (pull(3.0)(1.0)) })
    local zeros = ad.compile(function(x) return ad.zeros(2), x end)
    for i = 1, 3 do
      local z = zeros(i + 0.0)
      assert.are.equal(0, z[1])
      z[1] = i
    end
    assert.is_truthy(c:stats().note:find("function or an object"))
    local _, stats = same(function(x) return ad.sin, x end, each { 1.0, 2.0, 3.0 })
    assert.are.equal(1, stats.traces)
  end)

  it("runs eagerly: values of a transform around it, yields", function()
    local g = ad.grad(function(x)
      return ad.compile(function(y) return x * y * y end)(3.0)
    end)
    assert.are.equal(9, g(2.0))
    local c = ad.compile(function(x) return coroutine.yield(x) + x end)
    local co = coroutine.wrap(function() return c(2.0) end)
    assert.are.equal(2.0, co())
    assert.are.equal(5.0, co(3.0))
    co = coroutine.wrap(function() return c(2.0) end)
    assert.are.equal(2.0, co())
    assert.are.equal(6.0, co(4.0))
    assert.are.equal("f yields", c:stats().note)
  end)

  it("is one function inside another", function()
    local inner = ad.compile(function(x) if x < 1 then return x * 2 end return x * 3 end)
    same(function(x) return inner(x) + inner(x * x) end, each { 0.5, 1.5, 0.9 })
    local fact
    fact = ad.compile(function(x) if x < 1 then return 1.0 end return x * fact(x - 1) end)
    for _ = 1, 2 do for n = 1, 6 do
      local want = 1.0
      for k = 2, n do want = want * k end
      assert.are.equal(want, fact(n + 0.0))
    end end
  end)

  it("leaves nothing behind when it calls itself without end", function()
    local c
    for _, f in ipairs {
      function(x) return c(x) end,
      function(x) return x + ad.value(c:map(ad.array { 1, 2 })[1]) end,
      function(x) return (ad.grad(c)(x)) end,
      function(x) return (("a"):gsub("a", function() return "" .. c(x) end)) end,
    } do
      c = ad.compile(f)
      assert.is_false((pcall(c, 1.0)))
      local other = ad.compile(function(x) return x * 2 end)
      assert.are.equal(4, other(2.0))
      assert.are.equal(1, other:stats().traces)
    end
  end)

  it("forgets values that leak", function()
    local leaked
    local c = ad.compile(function(x) leaked = x return x * 2 end)
    assert.are.equal(4.0, c(2.0))
    assert.are.equal(6.0, leaked * 3)
    assert.are.equal(12.0, ad.grad(function(y) return y * leaked * y end)(3.0))
    assert.are.equal(5.0, ad.compile(function(y) return y + leaked end)(3.0))
  end)

  it("is an argument error", function()
    assert.has_error(function() ad.compile(3) end,
      "bad argument #1 to 'compile' (function expected, got number)")
    assert.has_error(function() ad.compile(print, { fats = true }) end,
      "bad argument #2 to 'compile' (unknown option 'fats')")
    assert.has_error(function() ad.compile(print, { max_traces = "many" }) end,
      "bad argument #2 to 'compile' (max_traces: integer of at least 0 expected)")
  end)
end)

describe("the option fast", function()
  it("may round otherwise, a little", function()
    local f = function(x) return x / 3 + x / 7 * 2 * 5 + 1 + x + 2 end
    local exact, fast = ad.compile(f), ad.compile(f, { fast = true })
    for i = 1, 20 do
      exact(i * 0.37)
      fast(i * 0.37)
      assert.are.equal(f(i * 0.37), exact(i * 0.37))
      assert.is_true(math.abs(f(i * 0.37) - fast(i * 0.37)) < 1e-14 * i)
    end
    assert.is_true(fast:stats().operations < exact:stats().operations)
  end)
end)

describe("random programs, compiled", function()
  it("agree with themselves, in every way to run them", function()
    local self = compiled.setup()
    local ways = { native = native, map = true }
    assert.are.equal("", table.concat(compiled.run(self, 400, 8, 20240229, 1, nil, ways), "\n"))
    assert.is_true(self.loose < 0.02 * self.numbers)
  end)

  it("agree with themselves with the option fast, as far as rounding goes", function()
    local self = compiled.setup()
    assert.are.equal("",
      table.concat(compiled.run(self, 100, 8, 20240307, 1, nil, { fast = true }), "\n"))
  end)

  it("agree with the C they are exported as", function()
    if not os.execute("${CC:-cc} --version >/dev/null 2>&1") then pending("no C compiler") end
    local self = compiled.setup()
    assert.are.equal("",
      table.concat(compiled.run(self, 40, 8, 20240301, 1, nil, { c = true }), "\n"))
  end)

  it("are found out when they are wrong", function()
    local self = compiled.setup()
    local calls = 0
    rawset(self.env, "changing", function(x)
      calls = calls + 1
      return x * (calls > 20 and 3 or 2)
    end)
    local p = { n = 1, x = { 0.5 }, index = 0,
      text = "return function(x1) return changing(x1) end" }
    assert.is_truthy(compiled.check(self, p, 30):find("number 1 is %S+, compiled"))
  end)
end)

describe("machine code", function()
  local f = function(x, y) for i = 1, 100 do x = ad.sin(x) * y + i end return x end

  it("comes when it pays, at once, or never", function()
    local usual, now, never = ad.compile(f), ad.compile(f, { backend = "native" }),
      ad.compile(f, { backend = "interpreter" })
    for i = 1, 900 do
      local want = f(i * 0.01, 0.5)
      assert.are.equal(want, usual(i * 0.01, 0.5))
      assert.are.equal(want, now(i * 0.01, 0.5))
      assert.are.equal(want, never(i * 0.01, 0.5))
      if i == 3 then
        assert.are.equal("interpreter", usual:stats().backend)
        local backend = now:stats().backend
        assert.is_truthy(backend:find("^native") or backend:find("no machine code", 1, true))
      end
    end
    assert.are.equal(now:stats().backend, usual:stats().backend)
    assert.are.equal("interpreter", never:stats().backend)
  end)

  it("agrees with the interpreter", function()
    local self = compiled.setup()
    local compile = self.ad.compile
    finally(function() self.ad.compile = compile end)
    self.ad.compile = function(g) return compile(g, { backend = "native" }) end
    assert.are.equal("", table.concat(compiled.run(self, 200, 8, 20240301, 1), "\n"))
  end)
end)
