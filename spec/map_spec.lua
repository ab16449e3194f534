-- Programs for many points, as C, in files, and their sparse derivatives.
local ad = require "autodiff"

local function near(a, b, units)
  return a == b or a ~= a and b ~= b or
    math.abs(a - b) <= (units or 8) * 2 ^ -52 * math.max(math.abs(a), math.abs(b), 1)
end

local function branching(x, y)
  if x < y then return ad.sin(x) * y, 0 end
  while x > 1 do x = x / 2 end
  return ad.exp(x - y), x * 2
end

describe("map", function()
  it("is the function, row by row", function()
    local n = 1000
    local f = ad.compile(branching)
    local x, y = ad.linspace(-5, 5, n), ad.linspace(3, -3, n)
    local a, b = f:map(x, y)
    assert.equal(n, #a)
    for i = 1, n do
      local p, q = branching(x[i], y[i])
      assert.is_true(near(p, a[i]) and near(q, b[i]), i)
    end
    assert.is_true(f:stats().traces < 10)
  end)

  it("is the same for any number of threads", function()
    local f = ad.compile(branching)
    local x, y = ad.linspace(-5, 5, 5000), ad.linspace(3, -3, 5000)
    local a, b = f:map(x, y)
    local p, q = f:map(x, y, { threads = 3 })
    for i = 1, 5000 do assert.is_true(a[i] == p[i] and b[i] == q[i]) end
    local s, t = f:map(x, y, { reduce = "sum" })
    local u, v = f:map(x, y, { reduce = "sum", threads = 4 })
    assert.is_true(s == u and t == v)
  end)

  it("gives the same bits on both back ends", function()
    local function wide(w, x) -- so many results that machine code takes fewer points at a time
      local y, s = {}, 0
      for i = 1, #w do
        y[i] = w[i] * x + (i % 50 == 0 and ad.exp(x) or i)
        s = s + y[i]
      end
      return s, y
    end
    local w = {}
    for i = 1, 1500 do w[i] = 1 / i end
    local x, y = ad.linspace(-5, 5, 700), ad.linspace(3, -3, 700)
    for f, first in pairs{[branching] = y, [wide] = w} do
      local results = {}
      for _, backend in ipairs{"interpreter", "native"} do
        local c = ad.compile(f, {backend = backend})
        local s, t = c:map(first, x)
        local u, v = c:map(first, x, {reduce = "sum"})
        results[#results + 1] = {s, t, u, v}
      end
      local p, q = table.unpack(results)
      for i = 1, 700 do
        assert.equal(p[1][i], q[1][i])
        for _, j in ipairs(f == wide and {1, 49, 50, 1500} or {}) do
          assert.equal(p[2][{i, j}], q[2][{i, j}])
        end
      end
      if f == branching then assert.same({p[2]:tolist(), p[4]}, {q[2]:tolist(), q[4]}) end
      assert.equal(p[3], q[3])
      if f == wide then assert.same(p[4], q[4]) end
    end
  end)

  it("makes machine code where it pays", function()
    local function f(x) return x * x + 3 * x end
    local here = ad.compile(f, {backend = "native"})
    here(0.5)
    if not here:stats().backend:find("native", 1, true) then return end -- no machine code here
    local function compiling(c, n)
      local before = c:stats().seconds_compiling
      c:map(ad.linspace(0, 1, n))
      return c:stats().seconds_compiling > before
    end
    for backend, wanted in pairs{
      interpreter = {false, false, false},
      auto = {false, true, false},
      native = {true, false, false},
    } do
      local c = ad.compile(f, {backend = backend})
      c(0.5)
      local got = {}
      for i, n in ipairs{10, 3000000, 10} do got[i] = compiling(c, n) end
      assert.same(wanted, got, backend)
    end
  end)

  it("keeps up with other paths and other shared arguments", function()
    local c = ad.compile(branching, {backend = "native"})
    local x, y = ad.linspace(-5, 5, 100), ad.linspace(3, -3, 100)
    local function right(a, p, q)
      for i = 1, 100 do
        local u = type(p) == "number" and p or p[i]
        local v = type(q) == "number" and q or q[i]
        assert.is_true(near(a[i], (branching(u, v))), i)
      end
    end
    right(c:map(x, 7), x, 7) -- one path only
    right(c:map(x, y), x, y)
    right(c:map(-1, y), -1, y)
    right(c:map(x, 7), x, 7)
  end)

  it("takes numbers and structures for all rows, and rows of lists", function()
    local function loss(w, x, t)
      local h = w.b
      for i = 1, #x do h = h + w.a[i] * x[i] end
      return (ad.tanh(h) - t) ^ 2
    end
    local g = ad.compile(ad.value_and_grad(loss))
    local w = { a = { 0.1, 0.2, 0.3 }, b = 0.5 }
    local x, t = ad.zeros(200, 3), ad.linspace(-1, 1, 200)
    for i = 1, 200 do
      for j = 1, 3 do x[{ i, j }] = math.sin(i * j) end
    end
    local v, d = g:map(w, x, t)
    local sv, sd = g:map(w, x, t, { reduce = "sum", threads = 2 })
    local wanted, wantedb = 0, 0
    for i = 1, 200 do
      local row = { x[{ i, 1 }], x[{ i, 2 }], x[{ i, 3 }] }
      local p, q = ad.value_and_grad(loss)(w, row, t[i])
      assert.is_true(near(p, v[i]) and near(q.b, d.b[i]))
      for j = 1, 3 do assert.is_true(near(q.a[j], d.a[{ i, j }])) end
      wanted, wantedb = wanted + p, wantedb + q.b
    end
    assert.is_true(near(wanted, sv, 100) and near(wantedb, sd.b, 100))
    assert.equal(3, #sd.a)
  end)

  it("does not try for ever where each row takes a way of its own", function()
    local f = ad.compile(function(x) return ad.value(x) * x end)
    local x = ad.linspace(1, 2, 2000)
    local y = f:map(x)
    for i = 1, 2000 do assert.equal(x[i] * x[i], y[i]) end
  end)

  it("gives a row the same numbers whichever row was recorded", function()
    local function f(x)
      if x < 0.5 then return ad.exp(x) * ad.sin(x) end
      return ad.log(x) * ad.tanh(x)
    end
    math.randomseed(5)
    local x, turned = {}, {}
    for i = 1, 200 do x[i] = math.random() end
    for i = 1, 200 do turned[i] = x[201 - i] end
    local a, b = ad.compile(f):map(ad.array(x)), ad.compile(f):map(ad.array(turned))
    for i = 1, 200 do assert.equal(a[i], b[201 - i]) end
  end)

  it("goes on where no more traces are kept", function()
    local f = ad.compile(function(x)
      return ad.value(x) // 1 + x
    end, { max_traces = 3 })
    local x = ad.linspace(0, 10, 50)
    local y = f:map(x)
    for i = 1, 50 do assert.equal(x[i] // 1 + x[i], y[i]) end
    local s = f:map(x, { reduce = "sum" })
    local wanted = 0
    for i = 1, 50 do wanted = wanted + x[i] // 1 + x[i] end
    assert.is_true(near(wanted, s, 50))
  end)

  it("keeps the rule of zeros where the fast program does not", function()
    local g = ad.compile(ad.grad(function(x) return 0 * ad.sqrt(x) + x end))
    local y = g:map(ad.linspace(0, 1, 3))
    assert.equal(1, y[1])
  end)

  it("of one function is that of an array, wherever the numbers are", function()
    local m = ad.random(3):uniform({67, 2}) * 3
    local x, y = m[{{}, 1}]:copy(), m[{{}, 2}]:copy()
    local wide, tall = m[{{}, 1}], m[{{3, 67}, 2}]:copy()
    local function same(want, got)
      assert.equal(#want, #got)
      for i = 1, #want do assert.equal(want[i], got[i]) end
    end
    for _, name in ipairs{"exp", "log", "sin", "tanh"} do
      local c = ad.compile(ad[name])
      same(ad[name](x), c:map(x))
      same(ad[name](wide), c:map(wide))
      same(ad[name](tall), c:map(tall, {threads = 2}))
      same(ad[name](x[{{2, 4}}]), c:map(x[{{2, 4}}]))
      assert.is_true(near(ad.sum(ad[name](x)), c:map(x, {reduce = "sum"}), 100))
    end
    local power = ad.compile(function(a, b) return a ^ b end)
    same(x ^ y, power:map(x, y))
    same(wide ^ y, power:map(wide, y))
    same(x ^ 2.5, power:map(x, 2.5))
    same(2.5 ^ y, power:map(2.5, y))
    same(ad.full({67}, 1.5 ^ 2.5 * 0 + (ad.full({1}, 1.5) ^ 2.5)[1]), ad.compile(function(_, a, b)
      return a ^ b
    end):map(x, 1.5, 2.5))
    local long = ad.random(4):uniform({100003})
    same(ad.exp(long), ad.compile(ad.exp):map(long, {threads = 2}))
  end)

  it("gives no rows for no rows, where it is known of what", function()
    local c = ad.compile(function(x, w)
      if w < 0 then return w end
      return x[1] * w, {x[1], x[2] + w}, {s = "text", y = x[2]}
    end)
    local none = ad.zeros(0, 2)
    assert.has_error(function() c:map(none, 1.5) end, "bad argument #1 to 'map' (array has no " ..
      "rows, and what f returns for one is not known yet: call it first)")
    c({1, 2}, 1.5)
    local a, b, t = c:map(none, 1.5)
    assert.same({{0}, {0, 2}, {0}, "text"}, {a.shape, b.shape, t.y.shape, t.s})
    a, b, t = c:map(none, 1.5, {threads = 2, reduce = "sum"})
    assert.same({0, {0, 0}, {s = "text", y = 0}}, {a, b, t})
    a = c:map(ad.ones(3, 2), 1.5)
    assert.same({3}, a.shape)
  end)

  it("is calls, row by row, where there is no program of numbers alone", function()
    local calls = 0
    local function f(x, w)
      calls = calls + 1
      local kind = coroutine.wrap(type)(x[1]) -- no program gives what f does
      local a = ad.array{x[1], x[2], w.k}
      return ad.sum(a * a), {x[1], w.k}, a, {y = x[2], s = "text", {x[1], {2.5}}}, kind
    end
    local c = ad.compile(f)
    local x, w = ad.reshape(ad.linspace(1, 6, 6), {3, 2}), {k = 2}
    local other = ad.compile(f)
    for i = 1, 3 do other(x[i]:tolist(), w) end
    local usual = calls -- attempts to record f among them
    local function check(options)
      calls = 0
      local sum, list, arrays, t, s = c:map(x, w, options)
      assert.is_true(calls <= usual) -- no row twice
      assert.same({9, 29, 65}, sum:tolist())
      assert.same({{1, 2}, {3, 2}, {5, 2}}, list:tolist())
      assert.same({{1, 2, 2}, {3, 4, 2}, {5, 6, 2}}, arrays:tolist())
      assert.same({2, 4, 6}, t.y:tolist())
      assert.same({1, 3, 5}, t[1][1]:tolist())
      assert.same({{2.5}, {2.5}, {2.5}}, t[1][2]:tolist())
      assert.same({"text", "number"}, {t.s, s})
    end
    check()
    check({threads = 4})
    assert.equal("string", type(c:stats().note))
    assert.equal("calls, row by row", c:stats().map)
    local sum, list, arrays, t, s = c:map(x, w, {reduce = "sum", threads = 2})
    assert.same({103, {9, 6}}, {sum, list})
    assert.same({9, 12, 6}, arrays:tolist())
    assert.same({{9, {7.5}}, y = 12, s = "text"}, t)
    assert.equal("number", s)
    for _, threads in ipairs{1, 3} do
      local e = ad.compile(function(a) return coroutine.wrap(function() return a + 1 end)() end)
      assert.same({2, 3}, e:map(ad.array{1, 2}, {threads = threads}):tolist())
    end
    assert.equal(0, select("#", ad.compile(function() end):map(x)))
    local text = ad.compile(function() return "text" end)
    assert.equal("text", text:map(x))
    -- what is not the same for all rows has no place
    for _, g in ipairs{
      function(a) if a[1] > 2 then return ad.sum(ad.array(a)), 1 end return ad.sum(ad.array(a)) end,
      function(a) return ad.sum(ad.array(a)) > 5 end,
      function(a) return a[1] > 2 and {ad.sum(ad.array(a))} or {1, 2} end,
      function(a) return ad.zeros(a[1] > 2 and 2 or 3) end,
      function(a) return {y = ad.sum(ad.array(a)), [a[1] > 2 and "p" or "q"] = 1} end,
    } do
      local ok, message = pcall(function() return ad.compile(g):map(x) end)
      assert.is_false(ok)
      assert.is_truthy(message:find("map: the results of row 2 have another form"), message)
    end
    local e = ad.compile(function(a) return ad.sum(ad.array(a)) + error("mine", 0) end)
    local ok, message = pcall(e.map, e, x)
    assert.is_false(ok)
    assert.equal("mine", message)
    -- known to need f, before the first row: and then no rows, of which nothing is known
    ok, message = pcall(function() c:map(ad.zeros(0, 2), w) end)
    assert.is_false(ok)
    assert.is_truthy(message:find("array has no rows", 1, true), message)
  end)

  it("runs programs that work on arrays row by row, too", function()
    local x = ad.reshape(ad.linspace(1, 6, 6), {3, 2})
    local w = {v = ad.array{1, 2}}
    local c = ad.compile(ad.value_and_grad(function(p, row)
      return ad.sum(p.v * ad.array{row[1], row[2]} * 2)
    end))
    local y, d = c:map(w, x)
    assert.same({10, 22, 34}, y:tolist())
    assert.same({{2, 4}, {6, 8}, {10, 12}}, d.v:tolist())
    assert.equal("calls, row by row", c:stats().map)
    y, d = c:map(w, x, {reduce = "sum", threads = 2})
    assert.equal(66, y)
    assert.same({18, 24}, d.v:tolist())
    assert.has_error(function() c:map(w, ad.zeros(0, 2)) end, "bad argument #1 to 'map' (array " ..
      "has no rows, and what f returns for one is not known yet: call it first)")
    -- some rows only, found on the way
    for _, options in ipairs{{threads = 1}, {reduce = "sum"}} do
      local e = ad.compile(function(a)
        if a < 2.5 then return a * a end
        return ad.sum(ad.array{a, a}) * ad.sqrt(a - 3)
      end)
      local r = e:map(ad.array{1, 2, 3, 7, 1}, options)
      if options.reduce then r = ad.array{r} end
      assert.same(options.reduce and {34} or {1, 4, 0, 28, 1}, r:tolist())
    end
  end)

  it("gives rows as lists, or as arrays where f takes no lists", function()
    local w, x = ad.array { 1, 2 }, ad.array { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    local c = ad.compile(ad.value_and_grad(function(p) return ad.sum(p * p * w) end))
    local value, gradient = c:map(x)
    assert.same({ 9, 41, 97 }, value:tolist())
    assert.same({ { 2, 8 }, { 6, 16 }, { 10, 24 } }, gradient:tolist())
    assert.same({ 147, { 18, 48 } }, (function(v, g) return { v, g:tolist() } end)(
      c:map(x, { reduce = "sum" })))
    local tried = 0
    local ok, message = pcall(function()
      ad.compile(function(p)
        tried = tried + 1
        error(p[1] > 0 and type(p), 0)
      end):map(x)
    end)
    assert.same({ false, "table" }, { ok, message })
    assert.is_true(tried <= 4)
  end)

  it("measures which is faster, and says what it has run", function()
    local function f(x) return x * x + 3 * x end
    local c, x = ad.compile(f), ad.linspace(0, 1, 200000)
    c(0.5)
    assert.is_nil(c:stats().map)
    c:map(x[{{1, 10}}])
    local kernels = c:stats().map
    assert.is_truthy(kernels:find("^kernels %(.+%)$"))
    local first = c:map(x)
    for _ = 1, 30 do c:map(x) end
    local last, seconds = c:map(x), c:stats().seconds_compiling
    for i = 1, 200000, 999 do assert.equal(first[i], last[i]) end
    assert.is_true(c:stats().map == kernels or c:stats().map == "native (x86-64, AVX)")
    c:map(x)
    assert.equal(seconds, c:stats().seconds_compiling) -- the choice is made once
    for backend, name in pairs{interpreter = kernels, native = "native (x86-64, AVX)"} do
      local d = ad.compile(f, {backend = backend})
      d:map(x)
      if backend == "interpreter" or not d:stats().backend:find("no machine code", 1, true) then
        assert.equal(name, d:stats().map)
      end
    end
  end)

  it("has clear errors", function()
    local f = ad.compile(branching)
    local x = ad.linspace(0, 1, 3)
    local function fails(text, ...)
      local ok, message = pcall(f.map, f, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    fails("array expected")
    fails("array expected", 1, 2)
    fails("array of 3 rows expected, got 4", x, ad.linspace(0, 1, 4))
    fails("threads: integer from 1 to 1024 expected", x, x, { threads = 0 })
    fails("reduce: 'sum' expected", x, x, { reduce = "max" })
    fails("unknown option 'foo'", x, x, { threads = 1, foo = 2 })
    local h = ad.compile(function(a) if a < 0.5 then return a, a end return a end)
    local ok, message = pcall(h.map, h, x)
    assert.is_false(ok)
    assert.is_truthy(message:find("another form", 1, true), message)
    local e = ad.compile(function(a) if a > 0.7 then error("mine", 0) end return a end)
    ok, message = pcall(e.map, e, x)
    assert.is_false(ok)
    assert.is_truthy(message:find("mine", 1, true), message)
  end)
end)

describe("c_source", function()
  it("says how to call it, and compiles", function()
    local f = ad.compile(ad.value_and_grad(function(w)
      if w.k < 0 then return w.a[1] % 3 end
      return w.a[1] ^ w.a[2] + ad.digamma(w.k)
    end))
    f { a = { 2, 3 }, k = 1.5 }
    f { a = { 2, 3 }, k = -1.5 }
    local s = f:c_source("loss")
    for _, text in ipairs { "int loss(const double *x, double *y)", "argument 1.a[1 .. 2]",
      "argument 1.k", "result 1", "result 2.k" } do
      assert.is_truthy(s:find(text, 1, true), text)
    end
    local dir = os.tmpname()
    os.remove(dir)
    if not os.execute("cc --version >/dev/null 2>&1") then return end
    assert(os.execute("mkdir " .. dir))
    local file = assert(io.open(dir .. "/loss.c", "w"))
    file:write(s)
    file:close()
    local command = "cd %s && cc -std=c99 -Wall -Wextra -Werror -pedantic -c loss.c"
    assert.is_true(os.execute(command:format(dir)))
    os.execute("rm -r " .. dir)
  end)

  it("has clear errors", function()
    local f = ad.compile(function(x) return x end)
    assert.has_error(function() f:c_source("f") end)
    f(1)
    for _, name in ipairs { "", "1", "a b", "while", "exp" } do
      assert.has_error(function() f:c_source(name) end,
        "bad argument #1 to 'c_source' (name for a C function expected)")
    end
  end)
end)

describe("a stored program", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("is the same function", function()
    local f = ad.compile(ad.value_and_grad(function(w, x)
      local y = w.b
      while x > 1 do x, y = x / 2, y + w.a[1] end
      return y * ad.sin(x) * w.a[2]
    end))
    local w = { a = { 1, 2 }, b = 3 }
    for _, x in ipairs { 0.5, 3, 100 } do f(w, x) end
    f:save(path)
    local g = assert(ad.load_program(path))
    for _, x in ipairs { 0.5, 3, 100, 1000 } do
      local y, d = f(w, x)
      local z, e = g(w, x)
      assert.is_true(y == z and d.b == e.b and d.a[1] == e.a[1] and d.a[2] == e.a[2])
    end
    assert.equal(f:map(w, ad.linspace(0, 100, 10))[3], g:map(w, ad.linspace(0, 100, 10))[3])
    assert.equal(f:c_source("f"), g:c_source("f"))
  end)

  local function contents()
    local file <close> = assert(io.open(path, "rb"))
    return file:read("a")
  end

  it("has what was recorded for arguments of each form", function()
    local function sum(x, scale)
      if type(x) ~= "table" then return x * scale end
      local s = 0
      for _, y in ipairs(x) do s = s + y * y end
      return s * scale, { n = #x, first = x[1] }
    end
    local forms = { { 3, 2 }, { { 1, 2 }, 2 }, { { 1, 2, 3 }, 2 }, { { 4, 5, 6 }, 0.5 } }
    for _, f in ipairs { ad.compile(sum), ad.compile(ad.value_and_grad(sum)) } do
      local expected = {}
      for i, a in ipairs(forms) do expected[i] = { f(a[1], a[2]) } end
      f:save(path)
      local g = assert(ad.load_program(path))
      for i, a in ipairs(forms) do assert.same(expected[i], { g(a[1], a[2]) }) end
      assert.has_error(function() g({ 1, 2, 3, 4 }, 2) end)
      assert.has_error(function() g({ 1, 2 }) end)
      local a, b = f:stats(), g:stats()
      assert.equal(a.traces, b.traces)
      assert.is_true(b.traces >= 3)
      -- and stored again it is the same, in the same order
      g = ad.load_program(path)
      local text = contents()
      g:save(path)
      assert.is_true(text == contents())
    end
  end)

  it("knows which arguments have to be integers", function()
    local function kind(x, y)
      if math.type(x) == "integer" then return x + y end
      return x * y
    end
    local f = ad.compile(kind)
    assert.equal(7, f(3, 4))
    assert.equal(12, f(3.0, 4))
    assert.equal(2, f:stats().traces)
    f:save(path)
    local g = ad.load_program(path)
    assert.equal(9, g(4, 5))
    assert.equal(20, g(4.0, 5))
    assert.has_error(function() g(4.0, 5.0) end)
    assert.has_error(function() g(4, 5.0) end)
    -- in a structure integers are constants, where f needs them
    f = ad.compile(function(t) return ("x"):rep(t.n) .. "y", t.x * 2 end)
    assert.same({ "xxxy", 5 }, { f { n = 3, x = 2.5 } })
    assert.is_nil(f:stats().note)
    f:save(path)
    g = ad.load_program(path)
    assert.same({ "xxxy", 3 }, { g { n = 3, x = 1.5 } })
    assert.has_error(function() g { n = 4, x = 1.5 } end)
    assert.has_error(function() g { n = 3.0, x = 1.5 } end)
  end)

  it("says what it is", function()
    local f = ad.compile(function(x)
      while x > 1 do x = x / 2 end
      if x < 0 then return -x end
      return x
    end)
    for _, x in ipairs { 0.5, 3, 1000, -1 } do f(x) end
    f:save(path)
    local g = ad.load_program(path)
    local a, b = f:stats(), g:stats()
    assert.equal("a stored program: other paths are errors", b.note)
    assert.equal(a.loops, b.loops)
    assert.is_true(a.loops > 0)
    assert.equal(a.guards, b.guards)
    assert.equal(a.traces, b.traces)
    g(3)
    pcall(g, "x")
    assert.equal("a stored program: other paths are errors", g:stats().note)
    assert.equal(2, g:stats().calls)
  end)

  it("is none of a function that does something else when it is recorded", function()
    local f = ad.compile(function(x)
      if coroutine.wrap(type)(x) == "number" then return x end
      return 2 * x
    end)
    assert.equal(3, f(3))
    assert.is_truthy(f:stats().note:find("it runs as it is", 1, true))
    assert.equal(0, f:stats().traces)
    assert.has_error(function() f:save(path) end)
  end)

  it("of another version is refused", function()
    local f = ad.compile(function(x) return x end)
    f(1)
    f:save(path)
    local text = contents()
    for _, version in ipairs { 0, 1, 3 } do
      local file = io.open(path, "wb")
      file:write(text:sub(1, 8), ("<I4"):pack(version), text:sub(13))
      file:close()
      local ok, message = pcall(ad.load_program, path)
      assert.is_false(ok)
      assert.is_truthy(message:find("it was stored by another version", 1, true))
    end
  end)

  it("has clear errors", function()
    local f = ad.compile(function(x) if x < 0 then return -x end return x end)
    f(1)
    f:save(path)
    local g = ad.load_program(path)
    assert.equal(2, g(2))
    assert.has_error(function() g(-1) end)
    assert.has_error(function() g("x") end)
    for _, where in ipairs { "/does/not/exist", "spec" } do -- that is a directory
      local ok, message = pcall(ad.load_program, where)
      assert.is_false(ok)
      assert.is_truthy(message:find("load_program: " .. where .. ": %a"), message)
      ok, message = pcall(f.save, f, where)
      assert.is_false(ok)
      assert.is_truthy(message:find("save: " .. where .. ": %a"), message)
    end
  end)

  it("that is damaged is not loaded", function()
    local f = ad.compile(function(w) return w.a * w.b[1], "text", { w.b[2], c = 2 } end)
    f { a = 1, b = { 2, 3 } }
    f { a = 1, b = { 2, 3, 4 } }
    f:save(path)
    local file = io.open(path, "rb")
    local s = file:read("a")
    file:close()
    local function load(text)
      file = io.open(path, "wb")
      file:write(text)
      file:close()
      return pcall(ad.load_program, path)
    end
    for i = 0, #s - 1 do
      local ok, message = load(s:sub(1, i))
      assert.is_false(ok)
      assert.is_truthy(message:find("load_program", 1, true))
    end
    -- by someone who knows the checksum (FNV-1a)
    math.randomseed(1)
    local loaded = 0
    for _ = 1, 2000 do
      local k = math.random(33, #s)
      local body = s:sub(33, k - 1) .. string.char(math.random(0, 255)) .. s:sub(k + 1)
      local h = 0xcbf29ce484222325
      for i = 1, #body do h = (h ~ body:byte(i)) * 0x100000001b3 end
      local ok, g = load(s:sub(1, 24) .. ("<i8"):pack(h) .. body)
      if ok then
        loaded = loaded + 1
        pcall(g, { a = 1, b = { 2, 3 } })
        pcall(g.map, g, ad.linspace(0, 1, 3))
        tostring(g)
      else
        assert.is_truthy(g:find("load_program", 1, true), g)
      end
    end
    assert.is_true(loaded > 0)
  end)
end)

describe("sparse derivatives", function()
  local function rosenbrock(x)
    local s = 0
    for i = 1, #x - 1 do s = s + 100 * (x[i + 1] - x[i] ^ 2) ^ 2 + (1 - x[i]) ^ 2 end
    return s
  end

  local function ring(x)
    local y = {}
    for i = 1, #x do y[i] = ad.sin(x[i]) * x[i % #x + 1] end
    return y
  end

  local x = {}
  for i = 1, 12 do x[i] = i / 7 end

  it("are those of the dense ones", function()
    local f, g = ad.compile(ring), ad.compile(rosenbrock)
    local j, wanted = f:jacobian(x, { dense = true }), ad.jacobian(ring)(x)
    local h, wantedh = g:hessian(x, { dense = true }), ad.hessian(rosenbrock)(x)
    for i = 1, 12 do
      for k = 1, 12 do
        assert.is_true(near(wanted[i][k], j[{ i, k }]))
        assert.is_true(near(wantedh[i][k], h[{ i, k }], 100))
      end
    end
  end)

  it("need few products", function()
    local j = ad.compile(ring):jacobian(x)
    assert.is_true(#j.rows == 24 and #j.cols == 24 and #j.values == 24 and j.colours <= 3)
    local h = ad.compile(rosenbrock):hessian(x)
    assert.is_true(#h.rows == 34 and h.colours <= 3)
  end)

  it("have clear errors", function()
    local f = ad.compile(ring)
    assert.has_error(function() f:jacobian(3) end,
      "bad argument #1 to 'jacobian' (list of numbers expected, got number)")
    assert.has_error(function() f:jacobian({ 1, "a" }) end,
      "bad argument #1 to 'jacobian' (element 2: number expected, got string)")
    assert.has_error(function() f:jacobian({ 1, 2 }, { x = 1 }) end,
      "bad argument #2 to 'jacobian' (unknown option 'x')")
  end)
end)
