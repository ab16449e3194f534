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
    local c = ad.compile(function(x) return ad.sum(A { x, 1 }) end)
    for i = 1, 20 do assert.are.equal(i + 1, c(i + 0.0)) end
    assert.are.equal("f uses an array", c:stats().note)
    assert.are.equal(20, c:stats().eager_calls)
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
