--- matmul, dot, outer and einsum: values against loops in Lua, derivatives against differences.

local ad = require("autodiff")
local core = require("autodiff.core")
local directions = require("support.directions")
local util = require("support.util")

local seed = 3
local function random()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

local function A(...) return directions.random(random, {...}) end

local function fails(message, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.are.equal(message, (tostring(err):gsub("^[^:]*:%d+: ", "")))
end

local function agrees(f, ...)
  local report = directions.compare(f, {...}, random)
  assert.are.equal("", table.concat(report, "\n"))
end

-- The largest difference of two arrays.
local function distance(a, b)
  assert.are.same(a.shape, b.shape)
  local most = 0
  local function look(s, t)
    for i = 1, #s do
      if type(s[i]) == "table" then look(s[i], t[i])
      else most = math.max(most, math.abs(s[i] - t[i])) end
    end
  end
  look(a:tolist(), b:tolist())
  return most
end

local function product(a, b)
  local y = ad.zeros(a.shape[1], b.shape[2])
  for i = 1, a.shape[1] do
    for j = 1, b.shape[2] do
      local s = 0
      for k = 1, a.shape[2] do s = s + a[{i, k}] * b[{k, j}] end
      y[{i, j}] = s
    end
  end
  return y
end

describe("matmul", function()
  it("multiplies", function()
    local a, b = ad.array{{1, 2}, {3, 4}}, ad.array{{5, 6}, {7, 8}}
    assert.are.same({{19.0, 22.0}, {43.0, 50.0}}, ad.matmul(a, b):tolist())
    assert.are.same({17.0, 39.0}, a:matmul(ad.array{5, 6}):tolist())
    assert.are.same({23.0, 34.0}, ad.array{5, 6}:matmul(a):tolist())
    assert.are.equal(61.0, ad.array{5, 6}:matmul(ad.array{5, 6}))
  end)

  it("takes views as they are", function()
    local a, b = A(24, 30), A(30, 20)
    local want = product(a, b)
    local at, bt = ad.zeros(30, 24), ad.zeros(20, 30)
    for i = 1, 24 do for j = 1, 30 do at[{j, i}] = a[{i, j}] end end
    for i = 1, 30 do for j = 1, 20 do bt[{j, i}] = b[{i, j}] end end
    assert.is_true(distance(want, at:transpose{2, 1}:matmul(b)) < 1e-13)
    assert.is_true(distance(want, a:matmul(bt:transpose{2, 1})) < 1e-13)
    assert.is_true(distance(want, at:transpose{2, 1}:matmul(bt:transpose{2, 1})) < 1e-13)
    -- parts: rows further apart, columns too, backwards
    for _, part in ipairs{
      {{{2, 23}, {}}, {{}, {3, 20}}}, {{{}, {1, 29, 2}}, {{1, 29, 2}, {}}},
      {{{-1, 1, -1}, {}}, {{}, {-1, 1, -1}}}, {{{}, {-1, 1, -1}}, {{-1, 1, -1}, {1, 20, 3}}},
      {{{5, 5}, {}}, {{}, {7, 7}}}, {{{5, 5}, {}}, {{}, {}}}, {{{}, {}}, {{}, {7, 7}}},
      {{{}, {4, 4}}, {{9, 9}, {}}},
    } do
      local x, y = a[part[1]], b[part[2]]
      assert.is_true(distance(product(x, y), x:matmul(y)) < 1e-13)
    end
  end)

  it("takes repeated elements", function()
    local like = require("autodiff.array").like
    local function row(x, m) return like(x, ad.zeros(m, #x)) end
    local a, b = A(30), A(20)
    local x, y = row(a, 20), A(30, 25)
    assert.is_true(distance(product(x, y), x:matmul(y)) < 1e-13)
    local z = row(b, 30):transpose{2, 1}
    assert.is_true(distance(product(z, y), z:matmul(y)) < 1e-13)
    x, z = row(a, 30), row(b, 30)
    assert.is_true(distance(product(x, z), x:matmul(z)) < 1e-13)
    z = row(A(30), 40):transpose{2, 1}
    assert.is_true(distance(product(y:transpose{2, 1}, z), y:transpose{2, 1}:matmul(z)) < 1e-13)
  end)

  it("gives zeros where there is nothing to add", function()
    assert.are.same({{0.0, 0.0}}, ad.zeros(1, 0):matmul(ad.zeros(0, 2)):tolist())
    assert.are.equal(0.0, ad.zeros(0):matmul(ad.zeros(0)))
    assert.are.same({0, 4}, ad.zeros(0, 3):matmul(ad.zeros(3, 4)).shape)
    assert.are.same({5, 2, 0}, ad.zeros(5, 2, 3):matmul(ad.zeros(3, 0)).shape)
    assert.are.same({0, 2, 4}, ad.zeros(0, 2, 3):matmul(ad.zeros(3, 4)).shape)
  end)

  it("refuses shapes that do not fit, and names both", function()
    fails("matmul: shapes (2, 3) and (4, 5) do not align", ad.matmul, A(2, 3), A(4, 5))
    fails("matmul: shapes (3) and (4) do not align", ad.matmul, A(3), A(4))
    fails("matmul: shapes (2, 3) and (2) do not align", ad.matmul, A(2, 3), A(2))
    fails("matmul: shapes (2, 2, 3) and (3, 3, 2) do not align", ad.matmul, A(2, 2, 3),
      A(3, 3, 2))
    local ok, err = pcall(function()
      local y = ad.matmul(A(2, 3), A(4, 5))
      return y
    end)
    assert.is_false(ok)
    assert.is_truthy(err:find("product_spec.lua", 1, true)) -- at the user's line
  end)

  it("takes arrays only", function()
    fails("bad argument #1 to 'matmul' (array expected, got number)", ad.matmul, 1, A(2, 2))
    fails("bad argument #2 to 'matmul' (array expected, got nil)", ad.matmul, A(2, 2))
    fails("bad argument #2 to 'matmul' (array expected, got table)", ad.matmul, A(2, 2), {1, 2})
    fails("bad argument #1 to 'outer' (array expected, got string)", ad.outer, "x", A(2))
    fails("bad argument #2 to 'dot' (array expected, got table)", ad.dot, A(2), {1, 2})
    local tape <close> = ad.tape()
    fails("bad argument #2 to 'matmul' (array expected, got var of a number)", ad.matmul, A(2, 2),
      tape:var(1.0))
  end)

  it("has the right derivatives", function()
    local function f(a, b) return ad.matmul(a, b) end
    for _, shapes in ipairs{
      {{2, 3}, {3, 4}}, {{3}, {3}}, {{2, 3}, {3}}, {{3}, {3, 4}}, {{5, 2, 3}, {3, 4}},
      {{2, 3}, {5, 3, 4}}, {{2, 1, 2, 3}, {3, 3, 2}}, {{5, 2, 3}, {3}}, {{3}, {5, 3, 2}},
      {{4, 2, 3}, {4, 3, 2}}, {{1, 2, 3}, {4, 3, 2}}, {{2, 0}, {0, 3}}, {{0, 3}, {3, 2}},
      {{2, 5, 2, 3}, {3, 4}}, {{2, 3}, {2, 2, 3, 4}},
    } do
      agrees(f, A(table.unpack(shapes[1])), A(table.unpack(shapes[2])))
    end
    agrees(f, A(4, 3)[{{1, 4, 2}, {}}], A(2, 3):transpose{2, 1})
    agrees(function(a) return ad.matmul(a, a) end, A(3, 3))
    agrees(function(a) return ad.matmul(a, a:transpose{2, 1}) end, A(3, 2))
  end)

  it("gives gradients in the shape of what they are of", function()
    for _, shapes in ipairs{
      {{3}, {3}}, {{1, 3}, {3}}, {{2, 1, 2, 3}, {3, 3, 1}}, {{0, 3}, {3, 0}},
    } do
      local a, b = A(table.unpack(shapes[1])), A(table.unpack(shapes[2]))
      local y, pull = ad.vjp(ad.matmul, a, b)
      local ga, gb = pull(type(y) == "number" and 1.0 or y)
      assert.are.same(a.shape, ga.shape)
      assert.are.same(b.shape, gb.shape)
    end
  end)

  it("has Taylor coefficients", function()
    local a, b = A(2, 2), A(2, 2)
    local function f(t) return ad.einsum("ii", ad.matmul(a * t, ad.matmul(b * t, a * t + b))) end
    local c = ad.taylor(f, 0.7, 3)
    for k = 0, 3 do
      local d = k == 0 and f(0.7) or ad.derivative(f, k)(0.7)
      local factorial = ({[0] = 1, 1, 2, 6})[k]
      assert.is_true(math.abs(c[k + 1] - d / factorial) < 1e-12)
    end
  end)

  it("does without a BLAS", function()
    local script = [[
      local ad = require("autodiff")
      local core = require("autodiff.core")
      assert(core.array.blas() == nil)
      local function matrix(m, n, seed)
        local list, x = {}, seed
        for i = 1, m do
          list[i] = {}
          for j = 1, n do
            x = (x * 16807) % 2147483647
            list[i][j] = x / 2147483647 - 0.5
          end
        end
        return ad.array(list)
      end
      local most = 0
      for _, s in ipairs{{7, 300, 5}, {3, 5, 270}, {5, 140, 1}, {1, 9, 300}, {2, 2, 2}} do
        local a, b = matrix(s[1], s[2], 1), matrix(s[2], s[3], 2)
        local bt = matrix(s[3], s[2], 2):transpose{2, 1}
        for _, b in ipairs{b, bt, b[{{-1, 1, -1}, {}}]} do
          local y = a:matmul(b)
          for i = 1, s[1] do
            for j = 1, s[3] do
              local sum = 0
              for k = 1, s[2] do sum = sum + a[{i, k}] * b[{k, j}] end
              most = math.max(most, math.abs(sum - y[{i, j}]))
            end
          end
        end
      end
      print(most < 1e-12 and "right", select(2, pcall(function() ad.linalg.inv(ad.eye(2)) end)))
      print((select(2, pcall(function() ad.grad(ad.linalg.det)(ad.eye(2)) end))))
    ]]
    local out = util.fresh_lua(script, "AUTODIFF_BLAS=none")
    assert.is_truthy(out:find("^right\t"), out)
    local inv, det = out:match("(inv needs LAPACK[^\n]*)\n.-(det needs LAPACK[^\n]*)")
    assert.is_truthy(inv and det, out)
  end)

  it("takes a library that is named, and says so where that is none", function()
    local out = util.fresh_lua([[
      local ad = require("autodiff")
      print(require("autodiff.core").array.blas())
      print(pcall(ad.linalg.inv, ad.eye(2)))
    ]], "AUTODIFF_BLAS=/nowhere/libblas.so")
    assert.is_truthy(out:find("^nil\tnil\nfalse\tinv needs LAPACK, .*AUTODIFF_BLAS=/nowhere"), out)
    local name = core.array.blas()
    if name then
      out = util.fresh_lua([[
        local ad = require("autodiff")
        print((require("autodiff.core").array.blas()))
        print(ad.matmul(ad.eye(20), ad.eye(20))[{20, 20}])
      ]], "AUTODIFF_BLAS=" .. name)
      assert.are.equal(name .. "\n1.0", out)
    end
  end)
end)

describe("vmap of", function()
  -- For functions of a and b, either of which may be the same for the whole batch.
  local function each(f, a, b, in_axes)
    local y = ad.vmap(f, in_axes)(a, b)
    local function example(x, axis, i) return axis and x[i] or x end
    for i = 1, (in_axes[1] and a or b).shape[1] do
      local want = f(example(a, in_axes[1], i), example(b, in_axes[2], i))
      local got = y[i]
      if type(want) == "number" then want, got = ad.array{want}, ad.array{got} end
      assert.is_true(distance(want, got) < 1e-13)
    end
  end

  it("matmul is one product", function()
    for _, shapes in ipairs{
      {{2, 3}, {3, 4}}, {{3}, {3}}, {{2, 3}, {3}}, {{3}, {3, 4}}, {{5, 2, 3}, {3, 4}},
      {{2, 3}, {5, 3, 4}}, {{3}, {5, 3, 2}}, {{5, 2, 3}, {3}}, {{1, 2, 3}, {2, 1, 3, 2}},
    } do
      local sa, sb = shapes[1], shapes[2]
      local a, b = A(table.unpack(sa)), A(table.unpack(sb))
      local as, bs = A(4, table.unpack(sa)), A(4, table.unpack(sb))
      each(ad.matmul, as, bs, {1, 1})
      each(ad.matmul, as, b, {1, false})
      each(ad.matmul, a, bs, {false, 1})
      local function slope(x, y)
        return ad.grad(function(t, u)
          local z = ad.array{ad.matmul(t, u)}
          return ad.sum(z * z)
        end)(x, y)
      end
      each(slope, as, bs, {1, 1})
      each(slope, as, b, {1, false})
      each(slope, a, bs, {false, 1})
    end
  end)

  it("einsum sees no batch", function()
    each(function(a, b) return ad.einsum("ij,jk->ki", a, b) end, A(4, 2, 3), A(4, 3, 2), {1, 1})
    each(function(a, b) return ad.einsum("ii,i", a, b) end, A(4, 3, 3), A(3), {1, false})
    each(function(a, b) return ad.einsum("iji->ij", a) + 0 * b end, A(4, 3, 2, 3), A(4, 3, 2),
      {1, 1})
    each(function(a) return ad.grad(function(x) return ad.einsum("ii,ii", x, x) end)(a) end,
      A(4, 3, 3), A(1), {1, false})
  end)
end)

describe("dot and outer", function()
  it("are NumPy's", function()
    local a = ad.array{{1, 2}, {3, 4}}
    assert.are.equal(11.0, ad.dot(ad.array{1, 2}, ad.array{3, 4}))
    assert.are.same({{7.0, 10.0}, {15.0, 22.0}}, ad.dot(a, a):tolist())
    assert.are.same({{2.0, 4.0}, {6.0, 8.0}}, ad.dot(a, 2):tolist())
    assert.are.equal(11.0, ad.dot({1, 2}, {3, 4})) -- of lists, as ever
    assert.are.same({2, 3, 2, 4}, ad.dot(A(2, 3, 5), A(2, 5, 4)).shape)
    assert.are.same({{3.0, 4.0}, {6.0, 8.0}}, ad.outer(ad.array{1, 2}, ad.array{3, 4}):tolist())
    fails("dot: shapes (2, 3) and (2, 2) do not align", ad.dot, A(2, 3), A(2, 2))
  end)

  it("have the right derivatives", function()
    local function dot(a, b) return a:dot(b) end
    agrees(dot, A(3), A(3))
    agrees(dot, A(2, 3), A(3, 2))
    agrees(dot, A(2, 3, 2), A(2, 2, 3))
    agrees(dot, A(2, 3, 2), A(2))
    agrees(dot, A(2, 3), 2.0)
    agrees(ad.outer, A(2, 2), A(3))
    agrees(ad.outer, A(0), A(3))
  end)
end)

describe("einsum", function()
  it("has the right derivatives", function()
    for _, case in ipairs{
      {"ij,jk->ik", {2, 3}, {3, 2}}, {"ii", {3, 3}}, {"iji->ji", {3, 2, 3}}, {"iii", {2, 2, 2}},
      {"ij->", {2, 3}}, {"ij,ij->", {2, 3}, {2, 3}}, {"i,j,k->ikj", {2}, {3}, {2}},
      {"bij,bjk->bik", {2, 2, 3}, {2, 3, 2}}, {"...ij,...kj", {2, 1, 2, 3}, {2, 3, 3}},
      {"bi,bo,io->b", {4, 2}, {4, 3}, {2, 3}}, {"ij,j->ij", {2, 3}, {3}},
      {"ij,ij->j", {1, 3}, {4, 3}}, {"ij,jk->ik", {2, 0}, {0, 2}}, {"ij->ji", {2, 3}},
      {"ab,cd->dbca", {2, 1}, {2, 2}}, {"iji,j->i", {3, 2, 3}, {2}},
    } do
      local operands = {}
      for i = 2, #case do operands[i - 1] = A(table.unpack(case[i])) end
      agrees(function(...) return ad.einsum(case[1], ...) end, table.unpack(operands))
    end
    agrees(function(x, y) return ad.einsum(",i->i", x, y) end, 2.0, A(3))
  end)

  it("multiplies matrices in the cheapest order", function()
    -- the other one would need 8e12 multiplications
    local a, b, c = ad.ones(20000, 1), ad.ones(1, 20000), ad.ones(20000, 1)
    assert.are.equal(2e4, ad.einsum("ij,jk,kl->il", a, b, c)[{1, 1}])
  end)

  it("gives views where it can", function()
    local a = ad.array{{1, 2}, {3, 4}}
    local d, t = ad.einsum("ii->i", a), ad.einsum("ij->ji", a)
    a[{1, 1}] = 9
    assert.are.equal(9.0, d[1])
    assert.are.equal(9.0, t[{1, 1}])
  end)

  it("refuses what it cannot read", function()
    local a = A(2, 3)
    fails("bad argument #1 to 'einsum' (string expected, got nil)", ad.einsum)
    fails("bad argument #1 to 'einsum' (string expected, got array)", ad.einsum, a)
    fails("bad argument #2 to 'einsum' (array expected, got nil)", ad.einsum, "ij", nil)
    fails("bad argument #1 to 'einsum' ('ij,jk': 2 operands, called with 1)", ad.einsum, "ij,jk", a)
    fails("bad argument #1 to 'einsum' ('i1': '1' is neither a letter nor part of an ellipsis)",
      ad.einsum, "i1", a)
    fails("bad argument #1 to 'einsum' ('ij.': '.' is neither a letter nor part of an ellipsis)",
      ad.einsum, "ij.", a)
    fails("bad argument #1 to 'einsum' ('......': more than one ellipsis in an operand)",
      ad.einsum, "......", a)
    fails("bad argument #1 to 'einsum' ('ij->ik': 'k' is in no operand)", ad.einsum, "ij->ik", a)
    fails("bad argument #1 to 'einsum' ('ij->ii': 'i' is twice in the result)", ad.einsum,
      "ij->ii", a)
    fails("bad argument #1 to 'einsum' ('i...->i': the ellipsis is not in the result)", ad.einsum,
      "i...->i", a)
    fails("einsum: 'ijk' does not fit an array of shape (2, 3)", ad.einsum, "ijk", a)
    fails("einsum: 'ijk...' does not fit an array of shape (2, 3)", ad.einsum, "ijk...", a)
    fails("einsum: 'j' is 3 and 2 long in shapes (2, 3) and (2, 2)", ad.einsum, "ij,jk", a, A(2, 2))
    fails("einsum: 'i' is 2 and 3 long in shapes (2, 3) and (2, 3)", ad.einsum, "ii", a)
    fails("einsum: at most 8 dimensions, also in between", ad.einsum, "abcde,fghij->abcdefghij",
      ad.ones(1, 1, 1, 1, 1), ad.ones(1, 1, 1, 1, 1))
  end)
end)

describe("the comparison with differences", function()
  it("finds a wrong rule", function()
    local prim = require("autodiff.prim")
    local square = {name = "square", f = function(_, x) return x * x end,
      jvp = function(_, d, _, _, x) return 2 * d * x end,
      vjp = function(_, g, _, _, x) return 2 * g * x end}
    local function wrong(field, rule)
      local def = setmetatable({[field] = rule}, {__index = square})
      local op = prim.define(def)
      prim.all.square = nil
      return #directions.compare(function(x) return op(nil, x) end, {A(3)}, random) > 0
    end
    assert.is_false(wrong("name", "square"))
    assert.is_true(wrong("jvp", function(_, d, _, _, x) return 1.99 * d * x end))
    assert.is_true(wrong("vjp", function(_, g, _, _, x) return 1.99 * g * x end))
    assert.is_true(wrong("jvp", function(_, d, _, _, x) return 2 * d * ad.stop(x) end))
    assert.is_true(wrong("vjp", function(_, g, _, _, x) return 2 * g * ad.stop(x) end))
  end)
end)
