--- Arrays in compiled functions: results are those of the functions, whether they are recorded or
-- run as they are; and compiled functions under all that takes functions of arrays.

local ad = require "autodiff"

local A = ad.array
local v, w = A { 1, 2, 3 }, A { 0.5, -1, 2 }
local M, N = A { { 1, 2 }, { 3, 4 } }, A { { 2, 1 }, { 0.5, 3 } }

-- Are two results the same, arrays and structures by what is in them?
local function same(want, got, what)
  assert.are.equal(type(want), type(got), what)
  if type(want) == "table" then
    for k in pairs(want) do same(want[k], got[k], what) end
    for k in pairs(got) do assert.is_not_nil(want[k], what) end
  elseif type(want) == "userdata" then
    assert.are.same(want.shape, got.shape, what)
    if want.size == 0 then return end
    local difference = ad.max(ad.abs(want - got))
    assert.is_true(difference <= 1e-13 * (1 + ad.max(ad.abs(want))), what)
  elseif type(want) == "number" then
    assert.is_true(math.abs(want - got) <= 1e-13 * math.max(1, math.abs(want)), what)
  else
    assert.are.equal(want, got, what)
  end
end

-- f against g at lists of arguments, twice.
local function agree(what, f, g, lists)
  for _ = 1, 2 do
    for _, args in ipairs(lists) do
      local want, got = table.pack(f(table.unpack(args))), table.pack(g(table.unpack(args)))
      assert.are.equal(want.n, got.n, what)
      for i = 1, want.n do same(want[i], got[i], what) end
    end
  end
end

describe("a compiled function", function()
  local vectors, numbers = { { v }, { w }, { v * 2 } }, { { 1.0 }, { 2.0 }, { -0.5 } }
  local cases = {
    ["of an array"] = { function(a) return ad.sum(a * a) end, vectors },
    ["with an array as its result"] = { function(a) return a * 2, a end, vectors },
    ["of arrays of many shapes"] = { function(a) return a * 2 end,
      { { v }, { M }, { 1.5 }, { w } } },
    ["that makes an array of its arguments"] =
      { function(x) return ad.sum(ad.exp(A { x, x * x, 1 })), A { x, 1 } end, numbers },
    ["with a constant array"] = { function(x) return ad.sum(v * x), v[2] * x, #v end, numbers },
    ["that makes a constant array"] =
      { function(x) return ad.zeros(2) + x, ad.ones(3) end, numbers },
    ["of structures with arrays"] = {
      function(p) return { w = p.w * p.s, s = ad.sum(p.w), name = p.name } end,
      { { { w = v, s = 2.0, name = "a" } }, { { w = w, s = 3.0, name = "b" } } },
    },
    ["that takes another path for another array"] =
      { function(a) if ad.sum(a) > 2 then return a * 2 end return ad.sum(a) end, vectors },
    ["that uses an array on one path only"] = {
      function(x) if x > 1 then return ad.sum(A { x, x }) end return x * x end, numbers },
    ["that compares arrays"] =
      { function(a, x) if a == v then return x end return -x end, { { v, 1.0 }, { w, 1.0 } } },
    ["that prints an array"] = { function(x) return tostring(v * x) end, numbers },
    ["with products and factorisations"] = {
      function(m, n)
        return ad.matmul(m, n), ad.linalg.solve(m, n), ad.linalg.det(m), ad.linalg.inv(n)
      end,
      { { M, N }, { N, M } },
    },
    ["with where, max, norm and stack"] = {
      function(x)
        return ad.where(ad.lt(1.5, v), x, 2), ad.max(v * x), ad.norm(v * x), ad.stack { x, x + 1 }
      end, numbers },
    ["with vmap inside"] =
      { function(a) return ad.vmap(function(x) return x * x end)(a) end, vectors },
    ["that is a gradient"] = { ad.grad(function(a) return ad.sum(ad.sin(a) * a) end), vectors },
    ["that is a gradient by a number"] =
      { ad.value_and_grad(function(x) return ad.sum(v * x * x) end), numbers },
    ["that is a gradient by both"] =
      { ad.grad(function(a, x) return ad.sum(a * x) end, { 1, 2 }), { { v, 2.0 }, { w, 3.0 } } },
    ["that is a gradient of a structure"] = {
      ad.value_and_grad(function(p) return ad.sum(p.w * p.s) end),
      { { { w = v, s = 2.0 } }, { { w = w, s = 3.0 } } },
    },
    ["that is a gradient through a factorisation"] =
      { ad.grad(function(m) return ad.sum(ad.linalg.solve(m, N)) * ad.linalg.det(m) end),
        { { N }, { N * 2 } } },
    ["that is a Hessian"] = { ad.hessian(function(a) return ad.sum(a ^ 3) * a[1] end), vectors },
    ["that is a Jacobian"] = { ad.jacobian(function(a) return a * ad.sum(a) end), vectors },
    ["that is a vmap"] = { ad.vmap(ad.grad(function(x) return ad.sin(x) * x end)), vectors },
  }
  for what, case in pairs(cases) do
    it(what, function() agree(what, case[1], ad.compile(case[1]), case[2]) end)
  end

  it("that has an error keeps it", function()
    local f = function(x) return A { x, x } + v end
    local _, want = pcall(f, 1.0)
    local c = ad.compile(f)
    for _ = 1, 2 do
      local ok, got = pcall(c, 1.0)
      assert.is_false(ok)
      assert.are.equal(1, (got:find(want, 1, true)))
    end
  end)

  it("says why it was not recorded", function()
    local c = ad.compile(function(x)
      local a = ad.zeros(2)
      a[1] = x
      return ad.sum(a)
    end)
    for i = 1, 20 do assert.are.equal(i + 0.0, c(i + 0.0)) end
    assert.are.equal("f writes into an array", c:stats().note)
    assert.are.equal(20, c:stats().eager_calls)
  end)
end)

describe("a program of arrays", function()
  local function counts(c, wanted)
    local s = c:stats()
    for k, n in pairs(wanted) do assert.are.equal(n, s[k], k) end
  end

  it("is recorded once, with branches on what comes of its arrays", function()
    local f = function(a, x)
      local y = a * x
      if ad.sum(y) > 2 then return y, ad.sum(y) end
      return ad.exp(y), x
    end
    local c = ad.compile(f)
    agree("branches", f, c, { { v, 1.0 }, { w, 0.1 }, { v * 3, 2.0 }, { w, -1.0 } })
    counts(c, { traces = 2, eager_calls = 0, calls = 8, retraces = 1 })
  end)

  it("has a root for each shape of its arguments", function()
    local f = function(a) return ad.sum(a) * a end
    local c = ad.compile(f)
    agree("shapes", f, c, { { v }, { M }, { ad.zeros(0) }, { ad.ones(2, 3, 4) }, { w } })
    counts(c, { traces = 4, eager_calls = 0 })
  end)

  it("takes views, in any order of their elements", function()
    local f = function(a) return a * 2 + a:transpose(), ad.sum(a, 1), a[1] end
    agree("views", f, ad.compile(f), { { M }, { N:transpose() },
      { A { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }[{ { 3, 1, -2 }, { 1, 3, 2 } }] } })
  end)

  it("leaves out what nobody needs, and does nothing twice", function()
    local c = ad.compile(function(a)
      local unused = ad.matmul(a, a) + 1 -- luacheck: ignore
      return ad.sin(a) * ad.sin(a), ad.sum(ad.sin(a))
    end)
    c(v)
    c(v)
    counts(c, { array_calls = 3 })
  end)

  it("lists its calls, with shapes", function()
    local c = ad.compile(function(a, m) return ad.sum(ad.matmul(m, ad.tanh(a))) end)
    c(A { 1, 2 }, M)
    local text = tostring(c)
    assert.is_truthy(text:find("A%d+ = tanh %(2%)%(X1%)"), text)
    assert.is_truthy(text:find("A%d+ = matmul %(2%)%(X2, A%d+%)"), text)
    assert.is_truthy(text:find("v%d+ = sum %(%)%(A%d+%)"), text)
  end)

  it("gives arrays that nobody writes into later", function()
    local c = ad.compile(function(a)
      local b = a * 2
      return b, b + 1, b:reshape(3, 1), b[{ { 1, 2 } }], ad.ones(3), { b }
    end)
    local all = {}
    for i = 1, 6 do
      all[i] = { c(v * i) }
      all[i][5][1] = 7 -- no constant of the program's
    end
    for i = 1, 6 do
      local b = v * (2 * i)
      same(b, all[i][1])
      same(b + 1, all[i][2])
      same(b:reshape(3, 1), all[i][3])
      same(b[{ { 1, 2 } }], all[i][4])
      same(A { 7, 1, 1 }, all[i][5])
      same(b, all[i][6][1])
      all[i][1][1] = 100 -- as without compile: of these some are one
      assert.are.equal(100, all[i][3][{ 1, 1 }])
      assert.are.equal(100, all[i][6][1][1])
      assert.are_not.equal(100, all[i][2][1])
    end
  end)

  it("gives back an argument as it is", function()
    local c = ad.compile(function(a, b) return b, { a }, a * 1 end)
    for _ = 1, 3 do
      local b, list, copy = c(v, w)
      assert.is_true(rawequal(b, w))
      assert.is_true(rawequal(list[1], v))
      assert.is_false(rawequal(copy, v))
    end
  end)

  it("sees what is written into an array from outside", function()
    local data = A { 1, 2, 3 }
    local f = function(x) return ad.sum(data * x) end
    local c = ad.compile(f)
    for i = 1, 20 do
      data[1] = i
      assert.are.equal(f(2.0), c(2.0))
    end
    counts(c, { eager_calls = 0, traces = 1, retraces = 0 })
  end)

  it("takes no notice of views of an array from outside, which are recorded", function()
    local rows, wanted = A { { 1, 2 }, { 3, 4 }, { 5, 7 } }, A { 1, 2, 3 }
    local f = ad.value_and_grad(function(x, eps)
      local r = ad.matmul(rows, x) - wanted
      if ad.sum(r * r) > eps then r = r * 2 end
      return ad.mean(r * r) + ad.sum(rows:transpose()[1] * x[1]) * x[2]
    end)
    local c = ad.compile(f)
    for i = 1, 10 do
      rows[{ 2, 1 }] = i
      agree("views", f, c, { { A { 0.5, i }, 1.0 }, { A { i, 2 }, 1e9 } })
    end
    counts(c, { traces = 2, eager_calls = 0 })
    local part = ad.compile(function(x) return rows[2], x end)
    assert.are.same({ 10, 4 }, (part(1.0)):tolist())
    for i = 1, 3 do
      rows[{ 2, 1 }] = i
      assert.are.same({ i + 0.0, 4.0 }, (part(1.0)):tolist())
    end
    counts(part, { eager_calls = 0 })
  end)

  it("is trained in a loop", function()
    local rng = ad.random(1)
    local rows = rng:normal(20, 3)
    local wanted = ad.matmul(rows, A { 1, -2, 3 })
    local fit = function(x, eps)
      local g = ad.value_and_grad(function(p)
        local r = ad.matmul(rows, p) - wanted
        return ad.mean(r * r)
      end)
      local loss, d = g(x)
      while loss > eps do
        x = x - 0.1 * d
        loss, d = g(x)
      end
      return x, loss
    end
    local c = ad.compile(fit)
    agree("fit", fit, c, { { v, 1e-2 }, { w, 1e-5 }, { v * 2, 1e-3 }, { w, 1e-1 } })
    counts(c, { traces = 1, loops = 1, eager_calls = 0 })
  end)

  it("is recorded again when something was written into what it has read", function()
    local data = A { 1, 2, 3 }
    local part = data[{ { 1, 2 } }]
    local readings = {
      sum = function(x) return ad.sum(data) * x end,
      element = function(x) return data[2] * x end,
      view = function(x) return part[1] * x + data:reshape(3, 1) end,
      list = function(x) return data:tolist()[1] * x end,
      text = function(x) return tostring(data), x * data end,
      copy = function(x) return ad.array { data, data } * x end,
      gradient = ad.grad(function(x) return ad.sum(data * x) end),
      tangent = function(x) return ad.jvp(function(y) return data * y end, { x }, { 1.0 }) end,
      branch = function(x) if ad.sum(data) > 6 then return x end return data * x end,
      ["a function of it"] = function(x) return ad.tanh(data) * x end,
      positions = function(x) return ad.take(data * x, ad.argsort(data)) end,
    }
    for what, f in pairs(readings) do
      local c = ad.compile(f)
      for i = 1, 4 do
        for _ = 1, 3 do agree(what, f, c, { { 2.0 }, { 3.0 } }) end
        data[i % 3 + 1] = i * 1.5
      end
      agree(what, f, c, { { 2.0 } })
      assert.are.equal(0, c:stats().eager_calls, what)
      for i = 1, 20 do -- then it is not worth the while
        data[1] = i
        agree(what, f, c, { { 2.0 } })
      end
      assert.are.equal("f reads an array that is written to between calls", c:stats().note)
    end
  end)

  it("keeps apart what f writes itself", function()
    local made = function(x)
      local b = ad.zeros(2)
      b[1] = 1
      local y = b * x
      b[2] = 7
      return y, b * x
    end
    local c = ad.compile(made)
    agree("made", made, c, { { 1.0 }, { 2.0 } })
    counts(c, { eager_calls = 0 })
    local buffer = ad.zeros(2)
    local outside = function(x)
      buffer[1] = 1
      local y = buffer * x
      buffer[1] = 2
      return y, buffer * x
    end
    c = ad.compile(outside)
    agree("outside", outside, c, { { 1.0 }, { 2.0 } })
    assert.are.equal("f writes into an array that it also reads", c:stats().note)
    local argument = function(a)
      local b = a * 1
      b[1] = ad.sum(b)
      return b
    end
    c = ad.compile(argument)
    agree("argument", argument, c, { { v }, { w } })
    assert.are.equal("f writes into an array", c:stats().note)
  end)

  it("compares with what f has looked at", function()
    local lookings = {
      value = function(a) return ad.value(a * 2) * 2 end,
      ["the argument's value"] = function(a) return ad.value(a) * 2 + a end,
      text = function(a) return tostring(a * 2) end,
      ["=="] = function(a) if a == v then return a end return a * 2 end,
      ["== of two"] = function(a) return a * 2 == a + a, a == a * 1 end,
    }
    for what, f in pairs(lookings) do
      local c = ad.compile(f)
      local kept = v:copy()
      agree(what, f, c, { { v }, { w }, { kept } })
      kept[1] = 5 -- which it was recorded with
      agree(what, f, c, { { v }, { w }, { kept } })
      assert.are.equal(0, c:stats().eager_calls, what)
      assert.is_true(c:stats().traces >= 2, what)
      for i = 1, 50 do agree(what, f, c, { { v * i } }) end
    end
    local c = ad.compile(lookings.value)
    for i = 1, 100 do c(v * i) end
    assert.are.equal("f looks at the elements of an array, which differ", c:stats().note)
  end)

  it("takes positions from its arrays", function()
    local f = function(a, i)
      return a:take(i), ad.take(a, ad.argsort(a)), ad.sort(a), ad.scatter_add(a, i, a:take(i))
    end
    local c = ad.compile(f)
    agree("take", f, c, { { v, A { 1, 3 } }, { w, A { 2, 2 } }, { v * w, A { 3, 1 } } })
    counts(c, { traces = 1, eager_calls = 0 })
    local g = ad.grad(function(a, i) return ad.sum(ad.sort(a) * v) + ad.sum(a:take(i) ^ 2) end)
    agree("its gradient", g, ad.compile(g), { { v, A { 1, 3 } }, { w, A { 2, 2 } } })
    assert.has_error(function() c(v, A { 1, 4 }) end)
    agree("after an error", f, c, { { w, A { 1, 3 } } })
  end)

  it("raises f's own errors, and goes on", function()
    local f = function(m) return ad.linalg.inv(m), ad.sum(m) end
    local c = ad.compile(f)
    local singular = A { { 1, 2 }, { 2, 4 } }
    agree("before", f, c, { { M }, { N } })
    local ok, want = pcall(f, singular)
    for _ = 1, 3 do
      local cok, got = pcall(c, singular)
      assert.are.equal(ok, cok)
      if not ok then assert.are.equal(want, got) end
      agree("after", f, c, { { M }, { N } })
    end
    local thrown = {}
    local g = ad.compile(function(a)
      if ad.sum(a) > 100 then error(thrown) end
      return a * 2
    end)
    same(v * 2, g(v))
    same(v * 2, g(v))
    assert.are.equal(thrown, select(2, pcall(g, v * 100)))
    same(w * 2, g(w))
  end)

  it("has a loop where arrays go round", function()
    local one, K = A { 1, 1, 1 }, A { 0.1, 0.2, 0.3 }
    local loops = {
      ["one array"] = function(a)
        while ad.norm(a) > 0.1 do a = a * 0.5 end
        return a
      end,
      ["two that change places"] = function(a)
        local b = a * 2
        while ad.norm(a) > 0.1 do a, b = b * 0.5, a * 0.7 end
        return a, b
      end,
      ["a number, with arrays within"] = function(a)
        local x = 1.0
        while ad.abs(x * x - ad.sum(a * a)) > 1e-9 do x = 0.5 * (x + ad.sum(a * a) / x) end
        return x, a * x
      end,
      ["constants"] = function(a)
        local made = ad.ones(3)
        while ad.sum(a) < 50 do a = ad.abs(a) * 1.1 + made * K + one end
        return a, made
      end,
      ["views"] = function(a)
        local b = a
        while ad.norm(a) > 0.1 do b, a = a, (a * 0.5):reshape(3, 1):reshape(3) end
        return a, b
      end,
      ["branches"] = function(a)
        while ad.norm(a) > 0.1 do
          if a[1] > 0.3 then a = a * 0.5 else a = a * 0.6 - 0.001 end
        end
        return a, ad.sum(a)
      end,
      ["a loop inside"] = function(a)
        while ad.norm(a) > 0.1 do
          local b = a
          while ad.norm(b) > 0.5 do b = b * 0.7 end
          a = a * 0.5 + b * 0.1
        end
        return a
      end,
      ["fields of a table"] = function(a)
        local t = { x = a, y = a * 2 }
        while ad.norm(t.x) > 0.1 do t.x, t.y = t.y * 0.3, t.x end
        return t
      end,
    }
    for what, f in pairs(loops) do
      local c, lists = ad.compile(f), {}
      for i = 1, 12 do lists[i] = { (i % 2 == 0 and v or w) * (i * i * 0.7) } end
      agree(what, f, c, lists)
      local s = c:stats()
      assert.is_true(s.loops > 0, what)
      assert.is_true(s.traces <= 3, what)
      assert.are.equal(0, s.eager_calls, what)
      local text = tostring(c)
      assert.is_truthy(text:find "%(loop%)", text)
      if what == "one array" then assert.is_truthy(text:find "A%d+ = mov%(A%d+%)", text) end
      local function square(...)
        local y = f(...)
        y = type(y) == "table" and y.x or y
        y = y * y
        return what:find "number" and y or ad.sum(y)
      end
      agree("gradient of " .. what, ad.grad(square), ad.compile(ad.grad(square)), lists)
    end
  end)

  it("goes through other loops as often as it has to", function()
    local f = function(a)
      local n, buffer = 0, ad.zeros(2)
      while ad.norm(a) > 0.1 do
        a = a * 0.5
        n = n + 1
        buffer[1] = buffer[1] + 1
      end
      return a, n, buffer, a * buffer[1]
    end
    local c = ad.compile(f)
    agree("while", f, c, { { v }, { v * 4 }, { w }, { v * 1000 }, { v * 3 } })
    counts(c, { eager_calls = 0, loops = 0 })
  end)

  it("is none where a tape of its caller's runs", function()
    local f = function(a, x) return ad.sum(a * a) * x end
    local c = ad.compile(f)
    for _ = 1, 3 do
      same(ad.grad(f, { 1, 2 })(v, 2.0), ad.grad(c, { 1, 2 })(v, 2.0))
      same(ad.grad(f)(v, 2.0), ad.grad(c)(v, 2.0))
      same(ad.grad(function(x) return f(v, x) end)(2.0), ad.grad(function(x)
        return c(v, x)
      end)(2.0))
      same(f(v, 2.0), c(v, 2.0))
    end
  end)

  it("can be called again by a finalizer while it runs", function()
    local meta, calls = {}, 0
    local f = function(a, x)
      local list = {}
      for i = 1, 10 do list[i] = ad.matmul(a, a) * (x + i) end
      return list
    end
    local c = ad.compile(f)
    c(M, 1.0)
    c(M, 1.0)
    function meta.__gc()
      calls = calls + 1
      same(f(N, 5.0), c(N, 5.0))
      if calls < 2000 then setmetatable({}, meta) end
    end
    setmetatable({}, meta)
    local pause = collectgarbage("setpause", 0)
    local mul = collectgarbage("setstepmul", 1000)
    for i = 1, 20000 do -- a round of the collector takes as long as the heap is large
      same(f(M, i + 0.0), c(M, i + 0.0))
      if i >= 200 and calls > 10 then break end
    end
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", mul)
    assert.is_true(calls > 10)
    calls = 2000
    counts(c, { traces = 1 })
  end)

  it("keeps the ones of a derivative as one number", function()
    local c = ad.compile(ad.grad(function(a) return ad.sum(ad.sin(a * a)) end))
    c(ad.ones(9999))
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, 100 do c(ad.ones(10000 + i)) end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 2000)
    counts(c, { traces = 101 })
    -- where such a constant is a result, it can be written to
    local ones = ad.compile(function(a) return ad.ones(100), a * 2, ad.zeros(10, 10)[2] end)
    for i = 1, 4 do
      local x, _, row = ones(ad.ones(3))
      same({ ad.ones(100), ad.zeros(10) }, { x, row })
      x[i], row[i] = 7, 8
      same({ 7.0, 8.0 }, { x[i], row[i] })
    end
    -- and looked at, it is compared as a whole
    local look = ad.compile(function(a)
      local b = a - a
      if ad.value(b) == ad.zeros(100) then return ad.sum(a) end
      return -ad.sum(a)
    end)
    local inf = ad.ones(100)
    inf[7] = math.huge
    for _ = 1, 3 do
      assert.are.equal(100, look(ad.ones(100)))
      assert.are.equal(-math.huge, look(inf))
    end
  end)

  it("keeps no arrays but its constants", function()
    local weak = setmetatable({}, { __mode = "k" })
    local c = ad.compile(function(a, p)
      local b = ad.matmul(a, p.m)
      weak[b] = true
      return b * 2, ad.ones(2) * ad.sum(b)
    end)
    for _ = 1, 5 do
      local a, m = M:copy(), N:copy()
      weak[a], weak[m] = true, true
      for k, y in ipairs { c(a, { m = m }) } do weak[y] = k end
      a, m = nil, nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
    end
  end)

  it("has memory for its last few shapes", function()
    local c = ad.compile(function(a) return ad.sum(ad.sin(a * 2) * a) end)
    local arrays, sums = {}, {}
    for i = 1, 40 do
      arrays[i] = ad.ones(4000 + i)
      sums[i] = c(arrays[i])
    end
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 3 do
      for i = 1, 40 do assert.are.equal(sums[i], c(arrays[i])) end
    end
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 40 * 32)
    counts(c, { traces = 40, eager_calls = 0 })
  end)

  it("says what cannot be done with it", function()
    local c = ad.compile(function(x) return ad.sum(v * x) end)
    c(1.0)
    c(1.0)
    for what, f in pairs {
      c_source = function() c:c_source("f") end,
      save = function() c:save("/does/not/exist") end,
    } do
      local ok, e = pcall(f)
      assert.is_false(ok)
      assert.is_truthy(e:find(what .. ": f works on arrays", 1, true), e)
    end
  end)

  it("is mapped row by row", function()
    local c = ad.compile(function(x) return ad.sum(v * x), v * x end)
    local f = function(x) return ad.sum(v * x), v * x end
    local sums, rows = c:map(A { 1, 2, 5 })
    for i, x in ipairs { 1, 2, 5 } do
      local sum, row = f(x)
      assert.are.equal(sum, sums[i])
      assert.are.same(row:tolist(), rows[i]:tolist())
    end
  end)

  it("is the same for every operation on arrays, with its derivatives", function()
    local operations = require "support.operations"
    local programs = require "compiled_arrays"
    math.randomseed(3)
    local function rng(...) return math.random(...) end
    local function total(...)
      local s = 0.0
      for _, y in ipairs { ... } do
        local q = y * (1 + 0.3 * y)
        s = s + (ad.type(q) == "number" and q or #(q.shape or {}) > 0 and ad.sum(q) or q)
      end
      return s
    end
    for _, case in ipairs((operations.cases())) do
      local p = table.pack(case.sample(rng))
      local f, x, by = p[1], table.move(p, 2, p.n, 1, {}), {}
      for i = 1, #x do
        if not (case.fixed and case.fixed[i]) then by[#by + 1] = i end
      end
      local ways = { value = f }
      if #by > 0 then
        ways.grad = ad.value_and_grad(function(...) return total(f(...)) end, by)
        ways.jvp = function(...)
          local args, d = { ... }, {}
          for i = 1, #args do d[i] = args[i] * 0.5 end
          return ad.jvp(f, args, d)
        end
      end
      for way, h in pairs(ways) do
        local c = ad.compile(h)
        for round = 1, 3 do
          if round == 3 and by[1] then x[by[1]] = x[by[1]] * 1.01 end
          local want = table.pack(h(table.unpack(x)))
          local got = table.pack(c(table.unpack(x)))
          assert.is_true(programs.same(want, got), case.name .. ", " .. way)
        end
        -- one, where counters were tried in a loop of a list, and given up
        assert.is_true(c:stats().eager_calls <= 1, case.name .. ", " .. way)
      end
    end
  end)

  it("is the same in random programs", function()
    local programs = require "compiled_arrays"
    for seed = 1, 150 do
      local wrong = programs.check(seed, 4)
      if wrong then error(wrong) end
    end
  end)
end)

describe("under transforms, a compiled function", function()
  local number = function(x) if ad.value(x) > 1 then return x * x * x end return ad.sin(x) * x end
  local vector = function(a) return ad.sum(a * a * a) + a[1] end
  -- each makes a function of a number, or of an array, of such a function
  local around = {
    jvp = function(f) return function(x) return ad.jvp(f, { x }, { x * 2 }) end end,
    vjp = function(f) return function(x)
      local y, pull = ad.vjp(f, x)
      return y, pull(2.0)
    end end,
    linearize = function(f) return function(x)
      local y, push = ad.linearize(f, x)
      return y, push(x * 2)
    end end,
    grad = function(f) return ad.grad(f) end,
    ["grad with an auxiliary"] = function(f)
      return ad.value_and_grad(function(x) return f(x), f(x) end)
    end,
    hvp = function(f) return function(x) return ad.hvp(f, x, x * 2) end end,
    checkpoint = function(f) return ad.grad(ad.checkpoint(f)) end,
    no_grad = function(f)
      return ad.grad(function(x) return ad.sum(x) * ad.no_grad(function() return f(x) end) end)
    end,
    stop = function(f) return ad.grad(function(x) return ad.sum(x) * ad.stop(f(x)) end) end,
    custom = function(f)
      return ad.grad(ad.custom { f = f, name = "ours", vjp = function(g, _, x) return g * x end })
    end,
  }
  local forNumbers = {
    derivative = function(f) return ad.derivative(f, 3) end,
    taylor = function(f) return function(x) return ad.taylor(f, x, 4) end end,
    implicit = function(f)
      return ad.grad(ad.implicit { f = function(z, t) return f(z) - t end,
        solve = function(t) return t ^ (1 / 3) end })
    end,
  }
  local function ways(f, g, make, what, lists)
    agree(what .. " of compiled", make(f), make(g), lists)
    agree("compiled " .. what, make(f), ad.compile(make(f)), lists)
    agree("compiled " .. what .. " of compiled", make(f), ad.compile(make(g)), lists)
  end
  for what, make in pairs(around) do
    it("of numbers: " .. what, function()
      local make1 = what ~= "no_grad" and what ~= "stop" and make
        or function(f) return ad.grad(function(x) return x * ad.stop(f(x)) end) end
      ways(number, ad.compile(number), make1, what, { { 2.0 }, { 0.5 }, { 1.5 } })
    end)
    it("of arrays: " .. what, function()
      ways(vector, ad.compile(vector), make, what, { { v }, { w } })
    end)
  end
  for what, make in pairs(forNumbers) do
    it("of numbers: " .. what, function()
      ways(number, ad.compile(number), make, what, { { 2.0 }, { 1.5 } })
    end)
  end
  it("of numbers: vmap", function()
    local f = function(x, y) return ad.where(ad.lt(1, x), x * y, ad.exp(y)) end
    ways(f, ad.compile(f), ad.vmap, "vmap", { { v, w }, { w, v } })
    ways(f, ad.compile(f), function(g) return ad.vmap(ad.grad(g)) end, "vmap of grad",
      { { v, w }, { w, v } })
  end)
end)
