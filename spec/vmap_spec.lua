-- vmap: a function of one example, mapped over a batch, equals a loop; and so do its derivatives.

local ad = require("autodiff")
local shapeof = require("autodiff.core").array.shapeof

local random = ad.random(7)
local X = random:uniform({3, 4, 4}, -1, 1)
local W = random:uniform({4, 2}, -1, 1)
local v = random:uniform({4}, -1, 1)

local function close(got, want, what)
  assert.are.same(shapeof(want), shapeof(got), what)
  if shapeof(want) then
    got, want = ad.reshape(got, {-1}), ad.reshape(want, {-1})
    for i = 1, #want do assert.is_true(math.abs(got[i] - want[i]) < 1e-10, what) end
  else
    assert.is_true(math.abs(got - want) < 1e-10, what)
  end
end

-- One number of the result of f, whatever that is.
local function scalar(f)
  return function(...)
    local y = f(...)
    return shapeof(y) and ad.sum(ad.sin(y)) or ad.sin(y)
  end
end

describe("vmap", function()
  local L = ad.linalg
  local lapack = pcall(L.inv, ad.eye(2))
  local functions = {
    sum = function(x) return ad.sum(x) end,
    sum1 = function(x) return ad.sum(x, 1) end,
    mean = function(x) return ad.mean(x, 2, true) end,
    prod = function(x) return ad.prod(x, 1) end,
    max = function(x) return ad.max(x, 2) end,
    norm = function(x) return ad.norm(x) end,
    std = function(x) return ad.std(x, 1) end,
    lse = function(x) return ad.logsumexp(x, -1) end,
    softmax = function(x) return ad.softmax(x) end,
    cumsum = function(x) return ad.cumsum(x, 1) end,
    sort = function(x) return ad.sort(x, 1) end,
    reshape = function(x) return ad.reshape(x, {2, 8}) end,
    tr = function(x) return ad.transpose(x) * x end,
    flip = function(x) return ad.flip(x, 1) * x end,
    idx = function(x) return x[2] * x[{{}, -1}] end,
    idx2 = function(x) return x[{2, 3}] * x[{1, 1}] end,
    take = function(x) return ad.take(x, {3, 1}, 2) end,
    concat = function(x) return ad.concat({x, x * 2, X[1]}, 1) end,
    stack = function(x) return ad.stack({x[1], x[2], v}, 2) end,
    split = function(x) return ad.split(x, 2, 2)[2] end,
    arr = function(x) return ad.array{x[{1, 1}], 2, x[{2, 2}]} end,
    pad = function(x) return ad.pad(x, {{1, 0}, {0, 2}}) end,
    tile = function(x) return ad.tile(x, {2, 1}) end,
    mm = function(x) return x:matmul(x) end,
    mmW = function(x) return x:matmul(W) end,
    mmv = function(x) return x:matmul(v) end,
    vm = function(x) return v:matmul(x) end,
    rowW = function(x) return x[1]:matmul(W) end,
    Xrow = function(x) return X[1]:matmul(x[2]) end,
    vv = function(x) return x[1]:matmul(x[2]) end,
    vvc = function(x) return ad.dot(x[1], v) end,
    outer = function(x) return ad.outer(x[1], v) end,
    ein = function(x) return ad.einsum("ij, jk, ik->k", x, W, x:matmul(W)) end,
    tre = function(x) return ad.einsum("ii->", x) end,
    bc = function(x) return x + v end,
    bc2 = function(x) return x[1] + X[2] end,
    sc = function(x) return x[{1, 1}] * v end,
    where = function(x) return ad.where(ad.lt(x, 0), x * x, ad.exp(x)) end,
    listsum = function(x) return ad.sum{x[{1, 1}], x[{2, 1}], 3} end,
    lmax = function(x) return ad.max{x[{1, 1}], x[{2, 1}], 0.1} end,
    dotl = function(x) return ad.dot({x[{1, 1}], 2}, {x[{2, 1}], x[{3, 3}]}) end,
    relu = function(x) return ad.relu(x) + ad.maximum(x, 0.1) + ad.clamp(x, -0.5, 0.5) end,
    pow = function(x) return (x * x + 1)^2.5 + 2^x end,
    hyp = function(x) return ad.hypot(x[1], x[2]) end,
    solve = function(x) return L.solve(x + 4 * ad.eye(4), v) end,
    inv = function(x) return L.inv(x + 4 * ad.eye(4)) end,
    det = function(x) return L.det(x) end,
    chol = function(x) return L.cholesky(x:matmul(ad.transpose(x)) + ad.eye(4)) end,
    lst = function(x) return L.lstsq(x, v) end,
    svd = function(x) local _, s = L.svd(x) return s end,
    eigh = function(x) local w=L.eigh(x + ad.transpose(x)) return w end,
    slog = function(x) return (select(2, L.slogdet(x))) end,
    qr = function(x) return (select(2, L.qr(x))) end,
    argmax = function(x) return ad.argmax(x, 1) + ad.sum(x) end,
    scat = function(x) return ad.scatter_add(x, {1, 1}, ad.ones(2, 4), 1) end,
    scat2 = function(x) return ad.scatter_add(ad.zeros(5), {2, 2, 3, 5}, x[1]) end,
    gather = function(x) return ad.take(v, ad.argmax(x, 1)) end,
    gather2 = function(x) return ad.take(x, ad.argmax(x, 1), 2) end,
    gather3 = function(x) return ad.take(x, ad.argmax(x[1]), 1) end,
    tolist = function(x) local l=x:tolist() return l[1][2] * l[2][1] end,
    idiv = function(x) return (x * 5)//1 + x%0.7 end,
    fl = function(x) return ad.floor(x * 3) * x end,
    kronprod = function(x) return ad.prod(x) end,
    bt = function(x) return ad.broadcast_to(x[1], {3, 4}) end,
    exd = function(x) return ad.expand_dims(x, 2) * v end,
    sq = function(x) return ad.squeeze(x[{{1, 1}, {}}]) end,
  }
  local needslapack = {solve = true, inv = true, det = true, chol = true, lst = true, svd = true,
    eigh = true, slog = true, qr = true}

  local names = {}
  for name in pairs(functions) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local f = functions[name]
    it("is a loop: " .. name, function()
      if needslapack[name] and not lapack then
        return pending("there is no LAPACK (Debian: libopenblas0)")
      end
      local values, gradients = {}, {}
      for i = 1, #X do
        values[i] = f(X[i])
        gradients[i] = ad.grad(scalar(f))(X[i])
      end
      close(ad.vmap(f)(X), ad.array(values), "values")
      close(ad.vmap(ad.grad(scalar(f)))(X), ad.array(gradients), "per-example gradients")
      local mapped = ad.grad(function(x) return ad.sum(ad.vmap(scalar(f))(x)) end)(X)
      close(mapped, ad.array(gradients), "gradient of the mapped function")
    end)
  end

  it("maps other axes, and leaves what is not mapped", function()
    local f = ad.vmap(function(x, s, y) return ad.sum(x) * s + y end, {2, false, -1})
    local x, y = random:normal{4, 3}, random:normal{2, 3}
    local got = f(x, 2.0, y)
    assert.are.same({3, 2}, got.shape)
    for b = 1, 3 do close(got[b], ad.sum(x[{{}, b}]) * 2 + y[{{}, b}]) end
  end)

  it("takes one axis for all arguments", function()
    local x, y = random:normal{4, 3}, random:normal{2, 3}
    close(ad.vmap(function(a, b) return ad.sum(a) + ad.sum(b) end, 2)(x, y),
      ad.sum(x, 1) + ad.sum(y, 1))
  end)

  it("maps structures, and gives them back", function()
    local net = {w = random:normal{5, 3}, {random:normal{5}}, note = "kept"}
    local got, second = ad.vmap(function(p)
      assert.are.equal("kept", p.note)
      return {sum = ad.sum(p.w) * p[1][1], twice = {p.w * 2}}, 7
    end)(net)
    close(got.sum, ad.sum(net.w, 2) * net[1][1])
    close(got.twice[1], net.w * 2)
    close(second, ad.full({5}, 7))
  end)

  it("nests", function()
    local x, y = random:normal{3, 4}, random:normal{2, 4}
    local got = ad.vmap(function(a)
      return ad.vmap(function(b) return ad.dot(a, b) * ad.where(ad.lt(a[1], b[1]), 1, -1) end)(y)
    end)(x)
    for i = 1, 3 do
      for k = 1, 2 do
        close(got[{i, k}], ad.dot(x[i], y[k]) * (x[{i, 1}] < y[{k, 1}] and 1 or -1))
      end
    end
  end)

  it("composes with forward mode, Hessians and Taylor series", function()
    local f = function(x) return ad.sum(ad.exp(x) * x[1]) end
    local x, t = random:normal{3, 4}, random:normal{3, 4}
    local _, dy = ad.jvp(ad.vmap(f), {x}, {t})
    local inner = ad.vmap(function(a, b) return select(2, ad.jvp(f, {a}, {b})) end)(x, t)
    local hessians = ad.vmap(ad.hessian(f))(x)
    for i = 1, 3 do
      local _, want = ad.jvp(f, {x[i]}, {t[i]})
      close(dy[i], want)
      close(inner[i], want)
      close(hessians[i], ad.hessian(f)(x[i]))
    end
    local c = ad.taylor(function(s) return ad.sum(ad.vmap(f)(x * s)) end, 0.5, 2)
    local want = ad.derivative(function(s)
      local sum = 0
      for i = 1, 3 do sum = sum + f(x[i] * s) end
      return sum
    end, 2)(0.5)
    assert.is_true(math.abs(2 * c[3] - want) < 1e-9)
  end)

  it("keeps numbers that are mapped numbers to f", function()
    local types = {}
    ad.vmap(function(x, row)
      types[1], types[2] = ad.type(x), ad.type(row)
      return x
    end)(ad.arange(1, 3), ad.zeros(3, 2))
    assert.are.same({"number", "array"}, types)
  end)

  it("stops and detaches for each example", function()
    local g = ad.vmap(ad.grad(function(x) return ad.sum(ad.stop(x) * x) end))(X)
    close(g, X)
  end)

  it("gives one run of f", function()
    local runs = 0
    ad.vmap(function(x)
      runs = runs + 1
      return x
    end)(ad.zeros(100))
    assert.are.equal(1, runs)
  end)

  it("says what is wrong", function()
    local function fails(text, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(text, 1, true), message)
    end
    local id = function(x) return x end
    fails("differs along the batch", ad.vmap(function(x) if x > 1 then return x end end),
      ad.arange(1, 3))
    fails("differs along the batch", ad.vmap(function(x) return ad.value(x) end), ad.arange(1, 3))
    fails("argument 1 has a number where an array is mapped", ad.vmap(id), 3)
    fails("matmul: shapes (2) and (3) do not align", ad.vmap(ad.matmul),
      ad.ones(2, 2), ad.ones(2, 3))
    fails("matmul: shapes (2) and (3, 2) do not align", ad.vmap(ad.matmul, { 1, false }),
      ad.ones(2, 2), ad.ones(3, 2))
    fails("bad argument #2 to 'vmap' (number has no integer representation)", ad.vmap, id, 0.5)
    fails("bad argument #2 to 'vmap' (no axis 0)", ad.vmap, id, { 1, 0 })
    fails("bad argument #2 to 'vmap' (integer or false expected, got string)", ad.vmap, id, { "x" })
    fails("argument 1 has no axis 3 (its shape is (2, 2))", ad.vmap(id, 3), ad.eye(2))
    fails("argument 2 has a batch of 3, and those before have 2",
      ad.vmap(function(a, b) return a + b end), ad.ones(2), ad.ones(3))
    fails("no argument is mapped", ad.vmap(id, false), ad.ones(2))
    fails("bad argument #1 to 'vmap' (function expected, got nil)", ad.vmap, nil)
    fails("bad argument #2 to 'vmap'", ad.vmap, id, "x")
    fails("boom", ad.vmap(function() error("boom") end), ad.ones(2))
    -- the level is closed, whatever happened in it
    assert.are.equal(2.0, ad.grad(function(x) return x * x end)(1.0))
  end)

  it("leaves a value that outlives it as the array that it was", function()
    local kept
    ad.vmap(function(x)
      kept = x * 2
      return x
    end)(ad.arange(1, 3))
    close(ad.sum(kept + 0), 12.0)
  end)

  it("yields from inside of f", function()
    local co = coroutine.wrap(function()
      return ad.vmap(function(x)
        coroutine.yield(1)
        return x * 2
      end)(ad.arange(1, 3))
    end)
    assert.are.equal(1, co())
    close(co(), ad.array{2, 4, 6})
  end)

  it("an index that differs along the batch is an error", function()
    local a, i = ad.array { 1, 2, 3 }, ad.array { 3, 1 }
    for _, f in ipairs {
      function(x, k) return x[k] end,
      function(x, k) return x[{ k }] end,
      function(x, k) return x[{ { 1, k } }] end,
      function(x, k) return (x * k)[k] end,
      ad.grad(function(x, k) return x[k] * 2 end),
    } do
      local ok, e = pcall(ad.vmap(f, { false, 1 }), a, i)
      assert.is_false(ok)
      assert.is_truthy(e:find("positions that differ along the batch are for take", 1,
        true), e)
    end
    assert.same({ 3, 1 }, ad.vmap(ad.take, { false, 1 })(a, i):tolist())
  end)
end)
