--- ad.linalg: what it gives, what it refuses, and its derivatives in both modes and to second
-- order against extrapolated differences. Values against NumPy's are in numpy_spec.

local ad = require("autodiff")
local core = require("autodiff.core")
local directions = require("support.directions")

local L = ad.linalg

if not select(2, core.array.blas()) then
  describe("linear algebra", function()
    pending("there is no LAPACK (Debian: libopenblas0)")
    it("says what to install", function()
      for name in pairs(L) do
        local ok, err = pcall(L[name], ad.eye(2), ad.eye(2))
        assert.is_false(ok)
        assert.is_truthy(err:find("needs LAPACK", 1, true), err)
      end
    end)
  end)
  return
end

local seed = 5
local function random()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

local function A(...) return directions.random(random, {...}) end

-- Square matrices that are not near a singular one.
local function well(...)
  local shape = {...}
  return A(...) + 2 * ad.eye(shape[#shape])
end

local function T(a)
  local axes = {}
  for i = 1, a.ndim do axes[i] = i end
  axes[a.ndim - 1], axes[a.ndim] = a.ndim, a.ndim - 1
  return a:transpose(axes)
end

-- Vectors as rows, to multiply columns with.
local function rows(s)
  local shape = s.shape
  table.insert(shape, #shape, 1)
  return s:reshape(shape)
end

local function positive(...)
  local a = A(...)
  return a:matmul(T(a)) + ad.eye(a.shape[a.ndim])
end

local function most(a)
  if type(a) == "number" then return math.abs(a) end
  local m = 0
  local function look(t)
    for _, v in ipairs(t) do
      if type(v) == "table" then look(v)
      elseif v ~= v then m = v
      elseif not (math.abs(v) <= m) and m == m then m = math.abs(v) end
    end
  end
  look(a:tolist())
  return m
end

local function near(want, got, tolerance)
  local d = most(want - got)
  assert(d <= (tolerance or 1e-12), ("differs by %g"):format(d))
end

local function fails(message, f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  assert.are.equal(message, (tostring(err):gsub("^[^:]*:%d+: ", "")))
end

local function agrees(f, ...)
  local report = directions.compare(f, {...}, random)
  assert.are.equal("", table.concat(report, "\n"))
end

-- The function f, which has vectors in the columns of result `at` (and the rows of the last one,
-- if `both`), with the signs that they have for a: LAPACK's may jump.
local function steady(f, a, at, both)
  local before = select(at, f(a))
  local function signs(v) -- of each column: the same as before?
    local product = ad.value(v) * before
    local letters = ("abcd"):sub(1, product.ndim)
    local sum = ad.einsum(letters .. "->" .. letters:sub(1, -3) .. letters:sub(-1), product)
    return rows(type(sum) == "number" and ad.array{sum} or ad.sign(sum))
  end
  return function(x)
    local y = table.pack(f(x))
    local s = signs(y[at])
    y[at] = y[at] * s
    if both then y[y.n] = y[y.n] * T(s) end
    return table.unpack(y, 1, y.n)
  end
end

local function is_nan(x) return x ~= x end

describe("what is factorised", function()
  it("is the product of its factors", function()
    for _, shape in ipairs{{4, 4}, {5, 3}, {3, 5}, {1, 1}, {2, 3, 4}, {2, 2, 3, 3}} do
      local a = A(table.unpack(shape))
      local k = math.min(shape[#shape], shape[#shape - 1])
      local one = ad.eye(k)
      local q, r = L.qr(a)
      near(a, q:matmul(r))
      near(one + 0 * T(q):matmul(q), T(q):matmul(q))
      near(r, T(core.array.triangle(T(r), 0)), 0)
      local u, s, vt = L.svd(a)
      near(a, (u * rows(s)):matmul(vt))
      near(0 * T(u):matmul(u) + one, T(u):matmul(u))
      near(0 * T(u):matmul(u) + one, vt:matmul(T(vt)))
    end
    for _, a in ipairs{positive(4, 4), positive(2, 3, 3), positive(1, 1)} do
      local l = L.cholesky(a)
      near(a, l:matmul(T(l)))
      local w, v = L.eigh(a)
      near(a, (v * rows(w)):matmul(T(v)))
    end
  end)

  it("may be a view", function()
    local a = A(6, 6)[{{1, 6, 2}, {-1, 1, -2}}]
    near(L.inv(a), L.inv(a:copy()), 0)
    near(L.det(T(a)), L.det(a))
    near(ad.eye(3), a:matmul(L.solve(a, ad.eye(3))))
  end)

  it("may be empty", function()
    assert.are.equal(1.0, L.det(ad.zeros(0, 0)))
    assert.are.same({1.0, 0.0}, {L.slogdet(ad.zeros(0, 0))})
    assert.are.same({0, 0}, L.inv(ad.zeros(0, 0)).shape)
    assert.are.same({0, 2}, L.solve(ad.zeros(0, 0), ad.zeros(0, 2)).shape)
    assert.are.same({3, 0}, L.solve(ad.eye(3), ad.zeros(3, 0)).shape)
    assert.are.same({2, 0}, L.lstsq(ad.zeros(3, 2), ad.zeros(3, 0)).shape)
    assert.are.same({{0.0}, {0.0}}, L.lstsq(ad.zeros(0, 2), ad.zeros(0, 1)):tolist())
    local q, r = L.qr(ad.zeros(3, 0))
    assert.are.same({3, 0}, q.shape)
    assert.are.same({0, 0}, r.shape)
    local u, s, vt = L.svd(ad.zeros(0, 3))
    assert.are.same({0, 0}, u.shape)
    assert.are.same({0}, s.shape)
    assert.are.same({0, 3}, vt.shape)
    local w, v = L.eigh(ad.zeros(2, 0, 0))
    assert.are.same({2, 0}, w.shape)
    assert.are.same({2, 0, 0}, v.shape)
    assert.are.same({0, 2, 2}, L.cholesky(ad.zeros(0, 2, 2)).shape)
    assert.are.same({0}, L.det(ad.zeros(0, 2, 2)).shape)
    for _, name in ipairs{"inv", "cholesky", "det", "qr", "svd", "eigh"} do
      agrees(L[name], ad.zeros(0, 0))
      agrees(L[name], ad.zeros(0, 2, 2))
    end
  end)
end)

describe("what cannot be done", function()
  it("is an error", function()
    local singular = ad.array{{1.0, 2.0}, {2.0, 4.0}}
    fails("solve: matrix is singular", L.solve, singular, ad.array{1, 2})
    fails("inv: matrix is singular", L.inv, singular)
    fails("inv: matrix is singular", L.inv, ad.array{ad.eye(2), singular})
    fails("slogdet: matrix is singular", ad.grad(function(a)
      return (select(2, L.slogdet(a)))
    end), singular)
    fails("cholesky: matrix is not positive definite", L.cholesky, ad.array{{1, 2}, {2, 1}})
    fails("cholesky: matrix is not positive definite", L.cholesky, ad.zeros(2, 2))
  end)

  it("is an error for shapes", function()
    fails("solve: a square matrix expected, got an array of shape (2, 3)", L.solve, A(2, 3), A(2))
    fails("det: a square matrix expected, got an array of shape (2, 3)", L.det, A(2, 3))
    fails("det: a matrix expected, got an array of shape (3)", L.det, A(3))
    fails("svd: a matrix expected, got an array of shape (3)", L.svd, A(3))
    fails("solve: shapes (3, 3) and (2) do not align", L.solve, well(3, 3), A(2))
    fails("solve: shapes (2, 3, 3) and (4, 3, 1) do not broadcast", L.solve, well(2, 3, 3),
      A(4, 3, 1))
    fails("lstsq: shapes (3, 2) and (2) do not align", L.lstsq, A(3, 2), A(2))
    fails("lstsq: shapes (2, 3, 2) and (3, 1) do not align", L.lstsq, A(2, 3, 2), A(3))
  end)

  it("is an error for what is no array", function()
    for name, f in pairs(L) do
      fails(("bad argument #1 to '%s' (array expected, got number)"):format(name), f, 1)
      fails(("bad argument #1 to '%s' (array expected, got nil)"):format(name), f)
      fails(("bad argument #1 to '%s' (array expected, got table)"):format(name), f, {{1}})
    end
    fails("bad argument #2 to 'solve' (array expected, got number)", L.solve, ad.eye(2), 1)
    fails("bad argument #2 to 'lstsq' (array expected, got nil)", L.lstsq, ad.eye(2))
  end)

  it("is not begun with NaN or inf", function()
    for _, x in ipairs{0 / 0, math.huge} do
      local a = A(40, 40)
      a[{3, 4}] = x
      a[{4, 3}] = x
      local w, v = L.eigh(a)
      assert.is_true(is_nan(w[1]) and is_nan(v[{2, 2}]))
      local u, s, vt = L.svd(a)
      assert.is_true(is_nan(u[{1, 1}]) and is_nan(s[3]) and is_nan(vt[{5, 5}]))
      assert.is_true(is_nan(L.lstsq(a, A(40))[1]))
      assert.is_true(is_nan(L.cholesky(a)[{40, 40}]))
      assert.is_true(is_nan(most(ad.grad(L.det)(a))))
      for _, name in ipairs{"det", "inv", "qr", "slogdet"} do L[name](a) end -- they end
    end
    -- one bad matrix leaves the others alone
    local a = ad.array{ad.eye(2), ad.eye(2)}
    a[{2, 1, 1}] = 0 / 0
    local w = L.eigh(a)
    assert.are.equal(1.0, w[{1, 1}])
    assert.is_true(is_nan(w[{2, 1}]))
  end)
end)

describe("determinants", function()
  it("do not overflow before the end", function()
    local a = ad.eye(60) * 1e20
    for i = 1, 30 do a[{i, i}] = 1e-20 end
    near(1.0, L.det(a))
    local sign, log = L.slogdet(ad.eye(200) * -1e10)
    assert.are.equal(1.0, sign)
    near(200 * math.log(1e10), log, 1e-9)
    assert.are.equal(math.huge, L.det(ad.eye(40) * 1e10))
    assert.are.equal(0.0, L.det(ad.eye(40) * 1e-10))
  end)

  it("have derivatives by singular matrices", function()
    local rank2 = ad.array{{1.0, 2.0, 3.0}, {2.0, 4.0, 6.0}, {1.0, 0.5, -1.0}}
    local rank1 = ad.outer(ad.array{1.0, 2.0, -1.0}, ad.array{3.0, 1.0, 2.0})
    agrees(L.det, rank2)
    agrees(L.det, rank1)
    agrees(L.det, ad.zeros(2, 2))
    agrees(L.det, ad.zeros(3, 3))
    agrees(L.det, ad.array{rank1, A(3, 3), rank2})
    agrees(L.det, ad.array{{0.0}})
    -- products of the others
    near(ad.array{{0, 0, 0}, {0, 0, 0}, {0, 0, 6}}, ad.grad(L.det)(ad.array{{2, 0, 0}, {0, 3, 0},
      {0, 0, 0}}), 1e-14)
    -- a determinant is a polynomial: of its third derivatives by a zero matrix there are six
    local function along(t) return L.det(t * ad.array{{1, 2, 0}, {0, 1, 1}, {1, 0, 1}}) end
    near(6 * along(1), ad.derivative(along, 3)(0.0))
  end)

  it("have accurate derivatives by matrices that are nearly singular", function()
    for _, e in ipairs{1e-2, 1e-4, 1e-6, 1e-9, 1e-14} do
      local a = ad.array{{1.0, 2.0, 3.0}, {2.0, 4.0, 6.0 + e}, {1.0, 0.5, -1.0}}
      local g = ad.grad(L.det)(a)
      local want = ad.array{ -- by cofactors
        {-4 - 0.5 * (6 + e), 2 + 6 + e, 1 - 4},
        {-(-2 - 1.5), -1 - 3, -(0.5 - 2)},
        {2 * (6 + e) - 12, -(6 + e - 6), 0}}
      near(want, g, 1e-13)
      local H = ad.hvp(L.det, a, ad.array{{1, 0, 0}, {0, 0, 0}, {0, 0, 0}})
      near(ad.array{{0, 0, 0}, {0, -1, -0.5}, {0, -6 - e, 4}}, H, 1e-8)
    end
  end)
end)

describe("the derivatives of", function()
  it("solve", function()
    agrees(L.solve, well(3, 3), A(3))
    agrees(L.solve, well(3, 3), A(3, 2))
    agrees(L.solve, well(2, 3, 3), A(3))
    agrees(L.solve, well(2, 3, 3), A(3, 2))
    agrees(L.solve, well(3, 3), A(2, 3, 2))
    agrees(L.solve, well(2, 1, 2, 2), A(3, 2, 1))
    agrees(function(a) return L.solve(a, T(a)) end, well(3, 3))
  end)

  it("inv, det and slogdet", function()
    for _, name in ipairs{"inv", "det"} do
      agrees(L[name], well(3, 3))
      agrees(L[name], well(1, 1))
      agrees(L[name], well(2, 2, 3, 3))
    end
    local function logdet(a) return (select(2, L.slogdet(a))) end
    agrees(logdet, well(3, 3))
    agrees(logdet, -well(2, 3, 3))
    agrees(L.slogdet, well(2, 2))
    near(T(L.inv(well(3, 3))) * 0, ad.grad(function(a) return (L.slogdet(a)) end)(well(3, 3)))
  end)

  it("cholesky", function()
    agrees(L.cholesky, positive(3, 3))
    agrees(L.cholesky, positive(1, 1))
    agrees(L.cholesky, positive(2, 3, 3))
    agrees(L.cholesky, positive(3, 3) + 0.1 * A(3, 3)) -- of the symmetric part
    local a = A(3, 3)
    local g = ad.grad(function(x)
      return ad.einsum("ij,ij->", L.cholesky(x), a)
    end)(positive(3, 3))
    near(g, T(g), 1e-14)
  end)

  it("qr", function()
    for _, shape in ipairs{{3, 3}, {4, 2}, {2, 4}, {2, 3, 2}, {2, 2, 3}, {1, 1}, {3, 1}} do
      local a = A(table.unpack(shape))
      agrees(L.qr, a)
      agrees(function(x) return (L.qr(x)) end, a)
      agrees(function(x) return (select(2, L.qr(x))) end, a)
    end
  end)

  it("svd", function()
    for _, shape in ipairs{{3, 3}, {4, 2}, {2, 4}, {2, 3, 2}, {2, 2, 3}, {1, 1}, {3, 1}} do
      local a = A(table.unpack(shape))
      local svd = steady(L.svd, a, 1, true)
      agrees(svd, a)
      for i = 1, 3 do
        agrees(function(x) return (select(i, svd(x))) end, a)
      end
    end
  end)

  it("eigh", function()
    for _, a in ipairs{positive(3, 3), positive(1, 1), positive(2, 2, 2), A(3, 3)} do
      local eigh = steady(L.eigh, a, 2)
      agrees(eigh, a)
      agrees(function(x) return (eigh(x)) end, a)
      agrees(function(x) return (select(2, eigh(x))) end, a)
    end
  end)

  it("lstsq", function()
    agrees(L.lstsq, A(4, 2), A(4))
    agrees(L.lstsq, A(4, 2), A(4, 3))
    agrees(L.lstsq, A(2, 4), A(2))
    agrees(L.lstsq, A(2, 4), A(2, 3))
    agrees(L.lstsq, well(3, 3), A(3, 2))
  end)

  it("all of them, as Taylor coefficients", function()
    local a, b = positive(3, 3), 0.1 * A(3, 3)
    for name, f in pairs(L) do
      local function scalar(t)
        local results = table.pack(f(a + t * b, a + t * t * b))
        local y = results[results.n]
        if type(ad.value(y)) == "number" then return y end
        return ad.einsum(("abc"):sub(1, #y.shape) .. "->", y * y * y)
      end
      local c = ad.taylor(scalar, 0.3, 3)
      local function d1(t) return (select(2, ad.jvp(scalar, {t}, {1.0}))) end
      local function d2(t) return (ad.grad(d1)(t)) end
      local function d3(t) return (select(2, ad.jvp(d2, {t}, {1.0}))) end
      for k, d in ipairs{d1(0.3), d2(0.3) / 2, d3(0.3) / 6} do
        assert(math.abs(c[k + 1] - d) <= 1e-9 * math.max(1, math.abs(d)),
          ("%s, coefficient %d: %.10g, derivatives give %.10g"):format(name, k, c[k + 1], d))
      end
    end
  end)
end)

describe("operations, with random operands:", function()
  local all = require("autodiff.prim").all
  local samples = require("support.linalg_samples")
  local function rng(...)
    if not ... then return random() end
    return 1 + math.floor(random() * ...)
  end
  for name, sample in pairs(samples) do
    if type(sample) == "function" then
      it(name, function()
        for _ = 1, 15 do
          local x = table.pack(sample(rng))
          local function f(...) return all[name].op(x[1], ...) end
          local report = directions.compare(f, {table.unpack(x, 2, x.n)}, random)
          assert.are.equal("", table.concat(report, "\n"))
        end
      end)
    end
  end

  it("there is one for each", function()
    local missing = {}
    local function looked(file)
      for name in io.open("lua/autodiff/" .. file):read("a"):gmatch('name = "([%w_]+)"') do
        if not samples[name] then missing[#missing + 1] = name end
      end
    end
    looked("product.lua")
    looked("linalg.lua")
    assert.are.equal("", table.concat(missing, " "))
  end)
end)

describe("vmap", function()
  -- All matrices at once, which the kernels count.
  it("hands over all matrices at once", function()
    local kernel = core.array
    local inv, count = kernel.inv, 0
    kernel.inv = function(...)
      count = count + 1
      return inv(...)
    end
    local ok, y = pcall(ad.vmap(L.inv), well(5, 3, 3))
    kernel.inv = inv
    assert(ok, y)
    assert.are.equal(1, count)
  end)

  it("gives what each of them gives", function()
    local a, b, one = positive(4, 3, 3), A(4, 3), positive(3, 3)
    local function same(f, ...)
      local y = ad.vmap(f, {...})(a, b)
      local axes = {...}
      for i = 1, 4 do
        local want = f(axes[1] and a[i] or a, axes[2] and b[i] or b)
        local got = y[i]
        near(want, got)
      end
    end
    local function each(f)
      same(f, 1, 1)
      same(function(x, y)
        return ad.grad(function(t) return ad.sum(ad.array{f(t, y)}) end)(x)
      end, 1, 1)
      same(function(x, y)
        return ad.hvp(function(t) return ad.sum(ad.array{f(t, y)}) end, x, one)
      end, 1, 1)
    end
    for name, f in pairs(L) do
      each(function(x, y)
        local r = table.pack(f(x, y))
        return r[r.n]
      end, name)
    end
    same(function(_, y) return L.solve(one, y) end, 1, 1)
    same(function(x) return L.solve(x, one) end, 1, 1)
    each(function(x, y) return L.solve(one, ad.matmul(x, y)) end)
    -- near singular matrices the derivatives of det take another way
    local singular = ad.array{ad.eye(3), ad.outer(A(3), A(3))}
    local g = ad.vmap(function(x) return ad.hvp(L.det, x, one) end)(singular)
    for i = 1, 2 do near(ad.hvp(L.det, singular[i], one), g[i]) end
  end)
end)

describe("where vectors are not determined", function()
  it("derivatives are finite, and those of the values right", function()
    local function values(a)
      local w = L.eigh(a)
      return ad.einsum("i,i->", w, w)
    end
    for _, a in ipairs{ad.eye(3), ad.zeros(3, 3), ad.ones(3, 3)} do
      near(2 * a, ad.grad(values)(a)) -- the sum of squares of the elements
      local v = A(3, 3)
      local g = ad.grad(function(x)
        local _, vectors = L.eigh(x)
        return ad.einsum("ij,ij->", vectors, v)
      end)(a)
      assert.is_true(most(g) < 1e6)
      local function singular(x)
        local _, s = L.svd(x)
        return ad.einsum("i,i->", s, s)
      end
      near(2 * a, ad.grad(singular)(a))
      g = ad.grad(function(x)
        local u, _, vt = L.svd(x)
        return ad.einsum("ij,ij->", u + vt, v)
      end)(a)
      assert.is_true(most(g) < 1e6)
    end
    -- eigenvalues that are equal but for rounding
    local q = L.qr(A(4, 4))
    local a = (q * ad.array{1.0, 1.0, 1.0, 2.0}):matmul(T(q))
    local v = A(4, 4)
    local g = ad.grad(function(x)
      local _, vectors = L.eigh(x)
      return ad.einsum("ij,ij->", vectors, v)
    end)(a)
    assert.is_true(most(g) < 1e3)
  end)
end)

describe("a gradient", function()
  it("does not factorise again", function()
    -- the kernels are seen through the table that rules take them from
    local kernel = core.array
    local lu, count = kernel.lu, 0
    kernel.lu = function(...)
      count = count + 1
      return lu(...)
    end
    local ok, err = pcall(ad.grad(function(a, b)
      return ad.einsum("i,i->", L.solve(a, b), L.solve(a, b))
    end, {1, 2}), well(3, 3), A(3))
    kernel.lu = lu
    assert(ok, err)
    assert.are.equal(2, count)
  end)

  it("goes through a Gaussian likelihood", function()
    local x = ad.array{0.1, 0.5, 0.9, 1.7}
    local y = ad.array{0.3, -0.2, 0.8, 0.1}
    local squares = ad.array{x, x, x, x}
    squares = (squares - T(squares)) ^ 2
    local function likelihood(scale, noise)
      local k = ad.exp(squares / (-2 * scale ^ 2)) + noise ^ 2 * ad.eye(4)
      local l = L.cholesky(k)
      local _, logdet = L.slogdet(k)
      local z = L.solve(l, y)
      return 0.5 * ad.dot(z, z) + 0.5 * logdet
    end
    agrees(likelihood, 0.7, 0.3)
  end)
end)

describe("linalg's functions", function()
  it("are methods too", function()
    local a = positive(2, 2)
    for name, f in pairs(L) do
      near(f(a, a), a[name](a, a), 0)
      local tape <close> = ad.tape()
      assert.is_truthy(ad.type(tape:var(a)[name](tape:var(a), a)))
    end
  end)

  it("are listed before one of them is used", function()
    local util = require("support.util")
    assert.are.equal("cholesky det eigh inv lstsq qr slogdet solve svd", util.fresh_lua([[
      local ad = require("autodiff")
      assert(package.loaded["autodiff.linalg"] == nil and package.loaded["autodiff.array"] == nil)
      local names = {}
      for name in pairs(ad.linalg) do names[#names + 1] = name end
      table.sort(names)
      print(table.concat(names, " "))
    ]]))
    assert.is_nil(ad.linalg.nothing)
  end)
end)
