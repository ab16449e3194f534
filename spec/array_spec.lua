--- Arrays as values: the type, making them, indices and views, assignment,
-- broadcasting, and the errors of all that.

local ad = require "autodiff"

local inf = math.huge

-- The elements as text: fails differ readably.
local function text(x)
  if type(x) == "table" then
    local parts = {}
    for i = 1, #x do parts[i] = text(x[i]) end
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return ad.type(x) == "array" and text(x:tolist()) or ("%.10g"):format(x)
end

local function same(expected, a)
  assert.is_equal(expected, text(a))
end

local function fails(message, f, ...)
  local r = table.pack(pcall(f, ...))
  assert.is_false(r[1], "no error")
  assert.is_equal(message, (r[2]:gsub("^[^:]*:%d+: ", "")))
end

describe("arrays", function()
  local a, v

  before_each(function()
    a = ad.array { { 1, 2, 3 }, { 4, 5, 6 } }
    v = ad.arange(1, 5)
  end)

  it("have a shape, dimensions, a size and a length", function()
    assert.same({ 2, 3 }, a.shape)
    assert.is_equal(2, a.ndim)
    assert.is_equal(6, a.size)
    assert.is_equal(2, #a)
    assert.is_equal("array", ad.type(a))
    assert.is_equal(a, ad.value(a))
    assert.is_nil(a.nothing)
  end)

  it("are made of nested lists, numbers and arrays in them", function()
    same("{{1,2,3},{4,5,6}}", a)
    same("{{1,2,3},{4,5,6},{1,2,3}}", ad.array { a[1], { 4, 5, 6 }, a[1] })
    same("{{{1,2,3},{4,5,6}}}", ad.array { a })
    assert.same({ 0 }, ad.array({}).shape)
    assert.same({ 2, 0 }, ad.array({ {}, {} }).shape)
    same("{1,inf,-inf}", ad.array { 1, inf, -inf })
  end)

  it("are copies of what they are made of", function()
    local b = ad.array(a)
    b[1] = 0
    same("{{1,2,3},{4,5,6}}", a)
  end)

  it("are made by functions", function()
    same("{{0,0,0},{0,0,0}}", ad.zeros(2, 3))
    same("{{1},{1}}", ad.ones({ 2, 1 }))
    same("{7,7,7}", ad.full(3, 7))
    same("{{7}}", ad.full({ 1, 1 }, 7))
    same("{{1,0,0},{0,1,0},{0,0,1}}", ad.eye(3))
    same("{{1,0,0},{0,1,0}}", ad.eye(2, 3))
    same("{1,1.5,2}", ad.arange(1, 2, 0.5))
    same("{3,2,1}", ad.arange(3, 1, -1))
    same("{}", ad.arange(1, 0))
    assert.is_equal(11, #ad.arange(0, 1, 0.1))
    same("{0,0.25,0.5,0.75,1}", ad.linspace(0, 1, 5))
    same("{3}", ad.linspace(3, 4, 1))
  end)

  it("refuse lists that are no arrays", function()
    fails("array: the lists have different lengths", ad.array, { { 1, 2 }, { 3 } })
    fails("array: the lists have different lengths", ad.array, { { 1, 2 }, 3 })
    fails("array: number expected, got string", ad.array, { 1, "x" })
    fails("bad argument #1 to 'array' (table expected, got number)", ad.array, 1)
    local deep = 1
    for _ = 1, 9 do deep = { deep } end
    fails("array: at most 8 dimensions", ad.array, deep)
  end)

  it("refuse shapes that are none", function()
    fails("bad argument #2 to 'zeros' (shape: bad length -1)",
      function() return #ad.zeros(2, -1) end)
    fails("bad argument #1 to 'zeros' (an array has at least one dimension)",
      function() return #ad.zeros {} end)
    fails("array is too large", ad.zeros, math.maxinteger, 2)
  end)

  describe("indices", function()
    it("count from 1, or from the end", function()
      assert.is_equal(1.0, v[1])
      assert.is_equal(5.0, v[-1])
      assert.is_equal(6.0, a[2][3])
      assert.is_equal(6.0, a[{ -1, -1 }])
      same("{4,5,6}", a[2])
    end)

    it("are ranges with both ends, all, and steps", function()
      same("{2,3,4}", v[{ { 2, 4 } }])
      same("{{2,3},{5,6}}", a[{ {}, { 2, 3 } }])
      same("{2,5}", a[{ {}, 2 }])
      same("{1,3,5}", v[{ { 1, -1, 2 } }])
      same("{5,3,1}", v[{ { -1, 1, -2 } }])
      same("{}", v[{ { 3, 2 } }])
      same("{{1,2,3},{4,5,6}}", a[{}])
    end)

    it("give views, not copies", function()
      local row, column = a[1], a[{ {}, 3 }]
      row[2] = 20
      column[2] = 60
      a[{ 2, 1 }] = 40
      same("{{1,20,3},{40,5,60}}", a)
      same("{3,60}", column)
      local part = a[{ {}, { 2, 3 } }][2]
      part[1] = 50
      same("{{1,20,3},{40,50,60}}", a)
    end)

    it("keep the elements that they see", function()
      local row = ad.array({ { 1, 2 }, { 3, 4 } })[2]
      collectgarbage()
      collectgarbage()
      same("{3,4}", row)
    end)

    it("outside are errors", function()
      fails("index 6 is out of range (length 5)", function() return v[6] + 0 end)
      fails("index 0 is out of range (length 5)", function() return v[0] + 0 end)
      fails("index -6 is out of range (length 5)", function() return v[-6] + 0 end)
      fails("index 7 is out of range (length 5)", function() return v[{ { 1, 7 } }] + 0 end)
      fails("2 indices for an array of shape (5)", function() return v[{ 1, 1 }] + 0 end)
      fails("index: a range is {}, {first, last} or {first, last, step}",
        function() return v[{ { 1 } }] + 0 end)
      fails("index: step is zero", function() return v[{ { 1, 2, 0 } }] + 0 end)
      fails("index: number has no integer representation", function() return v[1.5] + 0 end)
      fails("index: integer expected, got boolean", function() return v[true] + 0 end)
    end)
  end)

  it("are gone through by ipairs, as lists are", function()
    local m = ad.array { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    local function total(x)
      local s, n = 0, 0
      for i, row in ipairs(x) do
        for _, y in ipairs(row) do s = s + i * y end
        n = n + 1
      end
      return s, n
    end
    local s, n = total(m)
    assert.are.equal(50, s)
    assert.are.equal(3, n)
    assert.are.equal(0, (select(2, total(ad.zeros(0, 2)))))
    assert.are.same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, ad.grad(total)(m):tolist())
    assert.are.equal(14, (select(2, ad.jvp(function(x) return (total(x)) end, { m },
      { ad.array { { 0, 0 }, { 3, 4 }, { 0, 0 } } }))))
    assert.are.same({ 3, 7, 11 }, ad.vmap(function(row)
      local sum = 0
      for _, y in ipairs(row) do sum = sum + y end
      return sum
    end)(m):tolist())
    -- whoever else asks for what is not there is told
    for _, x in ipairs { m, ad.var(m) } do
      assert.has_error(function() return x[4] end)
      assert.has_error(function() for i = 1, 4 do total { x[i] } end end)
    end
  end)

  describe("assignment", function()
    it("takes numbers, arrays that broadcast, and lists", function()
      a[1] = 0
      same("{{0,0,0},{4,5,6}}", a)
      a[{ {}, { 2, 3 } }] = ad.array { 7, 8 }
      same("{{0,7,8},{4,7,8}}", a)
      a[2] = { 1, 2, 3 }
      same("{{0,7,8},{1,2,3}}", a)
      a[{ {}, 1 }] = ad.array { 5, 6 }
      same("{{5,7,8},{6,2,3}}", a)
    end)

    it("reads before it writes where both are the same elements", function()
      v[{ { 2, 5 } }] = v[{ { 1, 4 } }]
      same("{1,1,2,3,4}", v)
      v[{ {} }] = v:flip()
      same("{4,3,2,1,1}", v)
    end)

    it("refuses what does not fit", function()
      fails("cannot assign an array of shape (2) to a part of shape (3)",
        function() a[1] = ad.ones(2) end)
      fails("cannot assign an array of shape (2, 3) to a part of shape (3)",
        function() a[1] = ad.ones(2, 3) end)
      fails("cannot assign a string to elements of an array", function() a[1] = "x" end)
      fails("an array has no field 'x' to set", function() a.x = 1 end)
      fails("an array holds plain numbers, not a var: build one of them with array or stack, "
        .. "or store ad.value", function() a[1] = ad.var(1) end)
    end)

    it("refuses elements that are repeated", function()
      local message = "cannot write into an array that repeats its elements (broadcast_to): "
        .. "write into a copy (a:copy())"
      local wide = a[1]:broadcast_to(2, 3)
      fails(message, function() wide[1] = 0 end)
      wide = wide:copy()
      wide[1] = 0
      same("{{0,0,0},{1,2,3}}", wide)
      same("{{1,2,3},{4,5,6}}", a)
    end)

    it("refuses an array that a tape has saved", function()
      local message = "cannot write into an array that a tape has saved for its backward pass: "
        .. "write into a copy (a:copy())"
      local x = ad.var(v)
      local y = (x * v):sum()
      fails(message, function() v[1] = 0 end)
      fails(message, function() v[{ { 2, 3 } }][1] = 0 end) -- through a view too
      y:backward()
      same("{1,2,3,4,5}", x.grad)
      v[1] = 0 -- the graph is freed
      same("{0,2,3,4,5}", v)
    end)

    it("refuses it for operations with rules of their own", function()
      local x = ad.var(v)
      local y = x:prod()
      assert.is_false(pcall(function() v[1] = 0 end))
      y:backward()
      same("{120,60,40,30,24}", x.grad)
      v[1] = 0
    end)

    it("is free where only shapes are kept", function()
      local w = ad.ones(5)
      local x = ad.var(w)
      local y = x:sum()
      w[1] = 7
      y:backward()
      same("{1,1,1,1,1}", x.grad)
    end)

    it("is refused for an array that is being differentiated", function()
      fails("cannot write into an array that is being differentiated: make a new one "
        .. "(where, concat, stack, scatter_add)", function()
        ad.grad(function(x)
          x[1] = 2
          return x:sum()
        end)(v)
      end)
    end)

    it("does not reach what a gradient has given away", function()
      local g = ad.grad(function(x) return x:sum(1):sum() end)(a)
      g[1] = 0
      same("{{0,0,0},{1,1,1}}", g)
      local _, pull = ad.vjp(function(x) return x:transpose() end, a)
      local ybar = ad.ones(3, 2)
      local xbar = pull(ybar)
      xbar[1] = 5
      same("{{1,1},{1,1},{1,1}}", ybar)
    end)
  end)

  describe("operators", function()
    it("broadcast", function()
      same("{{2,4,6},{5,7,9}}", a + a[1])
      same("{{2,3,4},{6,7,8}}", a + ad.array { { 1 }, { 2 } })
      same("{{0,1,2},{3,4,5}}", a - 1)
      same("{{1,0.5},{2,1}}", ad.array { { 1 }, { 2 } } / ad.array { 1, 2 })
      same("{}", ad.zeros(0) * 2)
      assert.same({ 2, 0, 3 }, (ad.zeros(2, 0, 1) + ad.zeros(3)).shape)
    end)

    it("follow Lua's numbers", function()
      same("{-2,1,-1}", ad.array { -7, 7, 1 } // ad.array { 4, 4, -4 })
      same("{1,3}", ad.array { -7, 7 } % 4)
      same("{8,0.125}", 2 ^ ad.array { 3, -3 })
      same("{-1,-2}", -ad.array { 1, 2 })
    end)

    it("name both shapes that do not fit", function()
      fails("add: shapes (2, 3) and (2) do not broadcast", function() return a + ad.ones(2) end)
      fails("max: shapes (2, 3) and (4) do not broadcast",
        function() return ad.maximum(a, ad.ones(4)) end)
    end)

    it("compare by element through functions, as a whole by ==", function()
      same("{{1,1,0},{0,0,0}}", a:lt(3))
      same("{{1,1,1},{0,0,0}}", ad.le(a, 3))
      same("{{0,0,1},{0,0,0}}", a:eq(3))
      assert.is_true(a == ad.array { { 1, 2, 3 }, { 4, 5, 6 } })
      assert.is_false(a == a[1])
      fails("attempt to compare arrays: lt, le and eq compare element by element",
        function() return a < a end)
    end)
  end)

  it("have the elementary functions as methods", function()
    assert.is_equal(ad.exp(a), a:exp())
    assert.is_equal(ad.clamp(a, 2, 4), a:clamp(2, 4))
    same("{{2,2,3},{4,4,4}}", a:clamp(2, 4))
    same("{-2,1}", ad.array { -1.5, 1.5 }:floor())
    same("{-1,2}", ad.array { -1.5, 1.5 }:ceil())
    same("{1,-5}", ad.array { 1, 0 }:where(1, -5))
    same("{{3,3,3},{4,5,6}}", a:maximum(3))
    for _, op in ipairs(require("autodiff.core").ops()) do
      if not op.list and not op.internal and ad[op.name] then
        assert.is_function(a[op.name], op.name)
      end
    end
  end)

  it("have properties and methods also when they are being differentiated", function()
    ad.grad(function(x)
      assert.same({ 2, 3 }, x.shape)
      assert.is_equal(6, x.size)
      assert.is_equal(2, #x)
      assert.is_equal("var", ad.type(x))
      local list = x:tolist()
      assert.is_equal("var", ad.type(list[2][3]))
      assert.is_equal(6.0, list[2][3].value)
      return x:sum()
    end)(a)
  end)

  describe("of values that are being differentiated", function()
    it("are made of lists with them", function()
      local function f(t)
        local m = ad.array { { t.x, 1 }, { t.x * t.y, t.y } }
        return (m * m):sum()
      end
      local g = ad.grad(f) { x = 2.0, y = 3.0 }
      assert.is_equal(2 * 2.0 + 2 * 6.0 * 3.0, g.x)
      assert.is_equal(2 * 6.0 * 2.0 + 2 * 3.0, g.y)
      same("{{2,3},{3,3}}", ad.grad(function(x)
        return ad.array { x[1] * 2, x[2] * 3, { x[1][2], x[2][1] * 0 } }:sum()
      end)(ad.ones(2, 2)))
    end)

    it("are made of lists of any length, in one operation", function()
      local n = 20000
      local list = {}
      for i = 1, n do list[i] = i / n end
      local tape <close> = ad.tape()
      local x = tape:var(list)
      local before = #tape
      local y = ad.array(x)
      local z = (y * y):sum()
      assert.is_true(#tape - before < 10 + n) -- the n results of none
      assert.is_equal("var", ad.type(y))
      local g = tape:gradient(z, x)
      assert.is_equal(2.0, g[n])
      assert.is_equal(2 / n, g[1])
    end)

    it("become lists, in one operation", function()
      local function f(x)
        local t = x:tolist()
        return t[1] * t[2] + t[2] ^ 3
      end
      same("{3,29}", ad.grad(f)(ad.array { 2, 3 }))
      same("{1,18}", ad.hvp(f, ad.array { 2, 3 }, ad.array { 0, 1 }))
    end)

    it("give their parts", function()
      same("{{0,10,0},{0,0,12}}", ad.grad(function(x)
        return x[1][2] * x[{ 2, 2 }] * 2 + x[-1][{ { 3, 3 } }]:sum() ^ 2 - x[{ 2, 2 }] * 4
      end)(a) * ad.array { { 1, 1, 1 }, { 1, 0, 1 } })
    end)

    it("add up the parts' derivatives in place, to any order", function()
      local n = 300
      local function f(x)
        local s = 0
        for i = 1, n do s = s + x[i] * x[n + 1 - i] * i end
        return s + x[{ { 1, 3 } }]:sum() * x:sum()
      end
      local x, d = ad.linspace(0, 1, n), ad.linspace(1, 2, n)
      local g, h = ad.grad(f)(x), 1e-3
      local difference = (f(x + h * d) - f(x - h * d)) / (2 * h)
      assert.is_true(math.abs((g * d):sum() - difference) < 1e-6 * math.abs(difference))
      local hvp = ad.hvp(f, x, d)
      local wanted = (ad.grad(f)(x + h * d) - ad.grad(f)(x - h * d)) / (2 * h)
      assert.is_true((hvp - wanted):norm() < 1e-8 * wanted:norm())
    end)
  end)

  it("values of arrays take the indices that arrays take", function()
    v = ad.array { 1, 2, 3 }
    assert.equal(2, v[ad.var(2)])
    assert.equal(2, ad.value(ad.var(v)[ad.var(2)]))
    assert.same({ 0, 2, 0 }, ad.grad(function(x, i) return x[i] * x[{ i }] / 2 end)(v, ad.var(2))
      :tolist())
    for _, x in ipairs { v, ad.var(v), ad.dual(v, v) } do
      local ok, e = pcall(function() return x[true] end)
      assert.is_false(ok)
      assert.is_truthy(e:find("index: integer expected, got boolean", 1, true), e)
    end
  end)
end)
