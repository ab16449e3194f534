--- Operations on arrays: values, derivatives at random points in all modes and
-- nestings, the difficult points, accuracy, errors.

local ad = require "autodiff"
local prim = require "autodiff.prim"
local samples = require "support.array_samples"
require "autodiff.array"

local inf, nan = math.huge, 0 / 0

local function text(x)
  if type(x) == "table" then
    local parts = {}
    for i = 1, #x do parts[i] = text(x[i]) end
    return "{" .. table.concat(parts, ",") .. "}"
  elseif ad.type(x) == "array" then
    return text(x:tolist())
  end
  return x ~= x and "nan" or ("%.6g"):format(x)
end

local function same(expected, ...)
  local got = {}
  for i = 1, select("#", ...) do got[i] = text((select(i, ...))) end
  assert.is_equal(expected, table.concat(got, " "))
end

local function fails(message, f)
  local ok, e = pcall(f)
  assert.is_false(ok, "no error")
  assert.is_truthy(e:find("^spec/array_ops_spec.lua:%d+: "), e) -- the user's line
  assert.is_equal(message, (e:gsub("^[^:]*:%d+: ", "")))
end

local a = ad.array { { 1, 2, 3 }, { 4, 5, 6 } }

--
-- Derivatives
--

local function leaves(v, out)
  out = out or {}
  if type(v) == "table" then
    for i = 1, #v do leaves(v[i], out) end
  else
    out[#out + 1] = v
  end
  return out
end

-- Random values in the structure of x, which are contiguous.
local function like(x)
  if type(x) == "table" then
    local t = {}
    for i = 1, #x do t[i] = like(x[i]) end
    return t
  end
  local v = ad.value(x)
  if type(v) == "number" then return math.random() - 0.5 end
  return samples.contiguous(math.random, v.shape)
end

local function moved(x, h, d)
  if type(x) ~= "table" then return x + h * d end
  local t = {}
  for i = 1, #x do t[i] = moved(x[i], h, d[i]) end
  return t
end

local function inner(x, y)
  if type(x) == "table" then
    local s = 0
    for i = 1, #x do s = s + inner(x[i], y[i]) end
    return s
  end
  local p = x * y
  return ad.type(ad.value(p)) == "array" and ad.sum(p) or p
end

-- Central differences, extrapolated once.
local function difference(f)
  local h = 1e-3
  local d1, d2 = (f(h) - f(-h)) / (2 * h), (f(h / 2) - f(-h / 2)) / h
  return (4 * d2 - d1) / 3
end

local function check(name, seed)
  math.randomseed(seed)
  local p = table.pack(samples.samples[name](math.random))
  local at, x = p[1], table.move(p, 2, p.n, 1, {})
  local op = prim.all[name].op
  local w = like(leaves(table.pack(op(at, table.unpack(x)))))
  local function f(xs)
    local y = leaves { op(at, table.unpack(xs)) }
    local s = 0.0
    for i = 1, #y do s = s + inner(w[i], y[i]) end
    return ad.sin(s)
  end
  local d, e = like(x), like(x)
  local function near(expected, got, what)
    local close = math.abs(expected - got) <= 1e-6 * (1 + math.abs(expected))
    assert.is_true(close, ("%s of %s, seed %d: %.10g expected, got %.10g")
      :format(what, name, seed, expected, got))
  end
  local first = difference(function(h) return f(moved(x, h, d)) end)
  near(first, inner(ad.grad(f)(x), d), "gradient")
  near(first, select(2, ad.jvp(f, { x }, { d })), "tangent")
  near(first, select(2, ad.linearize(f, x))(d), "linearization")
  near(first, ad.taylor(function(h) return f(moved(x, h, d)) end, 0.0, 2)[2], "series")
  local second = difference(function(h) return inner(ad.grad(f)(moved(x, h, e)), d) end)
  local function reverse(xs) return inner(ad.grad(f)(xs), d) end
  local function forward(xs) return select(2, ad.jvp(f, { xs }, { d })) end
  near(second, inner(ad.grad(reverse)(x), e), "reverse over reverse")
  near(second, inner(ad.grad(forward)(x), e), "reverse over forward")
  near(second, select(2, ad.jvp(reverse, { x }, { e })), "forward over reverse")
  near(second, select(2, ad.jvp(forward, { x }, { e })), "forward over forward")
end

describe("operations on arrays", function()
  it("have samples, and no others do", function() -- all of them: array_property_spec
    for name in pairs(samples.samples) do
      assert.is_table(prim.all[name], "no operation " .. name)
    end
  end)

  describe("have right derivatives:", function()
    for name in pairs(samples.samples) do
      it(name, function()
        for seed = 1, 25 do check(name, seed) end
      end)
    end
  end)

  describe("reduce", function()
    it("all axes to a number, one or several to an array", function()
      same("21", a:sum())
      same("{5,7,9} {6,15}", a:sum(1), a:sum(2))
      same("{6,15}", ad.sum(a, -1))
      same("21", a:sum { 1, 2 })
      same("{{21}} {{6},{15}}", a:sum(nil, true), a:sum(2, true))
      same("3.5 {2.5,3.5,4.5}", a:mean(), a:mean(1))
      same("720 {4,10,18}", a:prod(), a:prod(1))
      same("6 {4,5,6} 1 {1,4}", a:max(), a:max(1), a:min(), a:min(2))
      same("9.53939 {3.74166,8.77496}", a:norm(), a:norm(2))
      same("6.45619 {3.40761,6.40761}", a:logsumexp(), a:logsumexp(2))
      same("2.91667 {2.25,2.25,2.25}", a:var(), a:var(1))
      same("1.87083 {1,1}", a:std(nil, false, 1), ad.std(a, 2, false, 1))
    end)

    it("to positions from 1, the first of several", function()
      local b = ad.array { { 3, 1, 3 }, { 0, 7, 7 } }
      same("5 {1,2,2} {1,2}", b:argmax(), b:argmax(1), ad.argmax(b, 2))
      same("4 {{2},{1}}", b:argmin(), b:argmin(2, true))
      assert.is_equal("integer", math.type(b:argmax()))
      same("2", ad.array { 1, nan, inf }:argmax())
    end)

    it("views of any layout alike", function()
      local wide = ad.linspace(-1, 1, 2 * 3 * 4 * 5):reshape(2, 3, 4, 5)
      for _, v in ipairs {
        wide, wide:transpose(), wide:transpose(3, 1, 4, 2), wide:flip { 2, 4 },
        wide[{ {}, { 1, 3, 2 }, {}, { -1, 1, -2 } }], wide[{ {}, 1 }],
        ad.broadcast_to(wide[{ {}, { 1, 1 } }], { 2, 3, 4, 5 }),
      } do
        local c = v:copy()
        for mask = 1, 2 ^ v.ndim - 1 do
          local axes = {}
          for d = 1, v.ndim do
            if mask >> (d - 1) & 1 == 1 then axes[#axes + 1] = d end
          end
          for name in ("sum prod max min norm logsumexp var argmax argmin"):gmatch "%S+" do
            local x, y = v[name](v, axes), c[name](c, axes)
            assert.is_true((ad.abs(x - y) + ad.zeros(1)):max() < 1e-13, name)
          end
        end
      end
    end)

    it("empty arrays: to 0, 1, nan, or to an error", function()
      local none, rows = ad.zeros(0), ad.zeros(3, 0)
      same("0 1 nan -inf 0 nan", none:sum(), none:prod(), none:mean(), none:logsumexp(),
        none:norm(), none:var())
      same("{0,0,0} {} {}", rows:sum(2), rows:sum(1), rows:max(1))
      fails("max: an array of shape (0) has no elements to choose from",
        function() return none:max() + 0 end)
      fails("argmin: an array of shape (3, 0) has no elements to choose from",
        function() return ad.argmin(rows, 2) + 0 end)
      same("{} {}", none:softmax(), none:sort())
      same("{}", ad.grad(function(x) return x:prod() + x:sum() end)(none))
    end)

    it("NaN to NaN, infinities to themselves", function()
      local b = ad.array { { nan, 1 }, { inf, 2 } }
      same("nan {nan,inf} nan nan nan", b:sum(), b:max(2), b:max(), b:norm(), b:logsumexp())
      same("{inf,2} inf inf", b[2], b[2]:norm(), b[2]:logsumexp())
      local long = ad.ones(1000)
      long[777] = nan
      same("nan nan", long:max(), long:min())
      same("nan nan", long:reshape(10, 100):max(1)[77], long:reshape(100, 10):max(2)[78])
    end)

    it("with errors that hardly grow with the length", function()
      local n = 300000
      local x = ad.full(n, 0.1)
      assert.is_true(math.abs(x:sum() - n * 0.1) < 1e-14 * n)
      local columns = ad.full({ n, 3 }, 0.1)
      for _, s in ipairs(columns:sum(1):tolist()) do
        assert.is_true(math.abs(s - n * 0.1) < 1e-14 * n)
      end
      local g = ad.grad(function(r) return (columns * r):sum() end)(ad.ones(3))
      for _, s in ipairs(g:tolist()) do
        assert.is_true(math.abs(s - n * 0.1) < 1e-14 * n)
      end
      -- a large mean does not swallow the differences
      same("1.25 1.25", (ad.array { 1, 2, 3, 4 } + 1e9):var(), ad.array { 1, 2, 3, 4 }:var())
    end)

    it("norms out of the range of squares", function()
      local one = ad.array { 3, 4 }
      same("5e+200 5e-200 5e-310", (one * 1e200):norm(), (one * 1e-200):norm(),
        (one * 1e-310):norm())
      same("{0,5e+200}", ad.array { { 0, 0 }, { 3e200, 4e200 } }:norm(2))
    end)
  end)

  describe("at difficult points:", function()
    it("max and min share equally", function()
      same("{0.5,0,0.5} {0,1,0}", ad.grad(ad.max)(ad.array { 3, 1, 3 }),
        ad.grad(ad.min)(ad.array { 3, 1, 3 }))
      same("{{0.5,0},{0.5,1}}", ad.grad(function(x) return x:max(1):sum() end)
        (ad.array { { 2, 1 }, { 2, 3 } }))
    end)

    it("prod with zeros is exact, to second order", function()
      same("{12,0,0}", ad.grad(ad.prod)(ad.array { 0, 3, 4 }))
      same("{0,0,0,0}", ad.grad(ad.prod)(ad.array { 0, 0, 4, 5 }))
      same("{20,20,0,0}", ad.hvp(ad.prod, ad.array { 0, 0, 4, 5 }, ad.array { 1, 1, 0, 0 }))
      same("{0,8,6,30}", ad.hvp(function(x) return x:prod() end, ad.array { 0, 3, 4, 2 / 4 * 1 },
        ad.array { 1, 0, 0, 0 }) * ad.array { 1, 4, 4, 2.5 })
    end)

    it("norm of zeros has derivative 0, and std of equal elements", function()
      same("{0,0}", ad.grad(ad.norm)(ad.zeros(2)))
      same("{{0,0},{0.6,0.8}}", ad.grad(function(x) return x:norm(2):sum() end)
        (ad.array { { 0, 0 }, { 3, 4 } }))
      same("{0,0,0}", ad.grad(function(x) return x:std() end)(ad.ones(3)))
      same("{0,0}", select(2, ad.jvp(function(x) return x:norm(2) end,
        { ad.zeros(2, 2) }, { ad.ones(2, 2) })))
    end)

    it("logsumexp and softmax stay in range", function()
      local far = ad.array { 1000, 0, -inf }
      same("1000 {1,0,0}", far:logsumexp(), ad.grad(ad.logsumexp)(far))
      same("{1,0,0} {0,-1000,-inf}", far:softmax(), far:log_softmax())
      same("{0.5,0.5,0}", ad.array { inf, inf, 1 }:softmax())
      same("-inf {0.5,0.5}", ad.full(2, -inf):logsumexp(), ad.full(2, -inf):softmax())
      same("{0.25,-0.25}", ad.grad(function(x) return x:softmax()[1] end)(ad.full(2, 710)))
    end)

    it("what an exact 0 meets does not count", function()
      local g = ad.grad(function(x) return x:prod(2)[1] end)(ad.array { { 1, 2 }, { inf, nan } })
      same("{{2,1},{0,0}}", g)
    end)

    it("sort puts NaN last, and keeps the order of equals", function()
      local b = ad.array { 2, nan, 1, 2, -inf }
      same("{-inf,1,2,2,nan} {5,3,1,4,2}", b:sort(), b:argsort())
      same("{{1,1},{2,3}} {{2,1},{1,2}}", ad.sort(ad.array { { 2, 1 }, { 1, 3 } }, 1),
        ad.argsort(ad.array { { 2, 1 }, { 1, 3 } }, 1))
      same("{20,30,10}", ad.grad(function(x) return (x:sort() * ad.array { 10, 20, 30 }):sum() end)
        (ad.array { 5, 7, 1 }))
      local n = 1000
      local p = (ad.arange(1, n) * 387) % 1009
      local s = p:sort():tolist()
      for i = 2, n do assert.is_true(s[i - 1] <= s[i]) end
      assert.is_equal(p:take(p:argsort()), p:sort())
    end)
  end)

  it("go along an axis", function()
    same("{{1,3,6},{4,9,15}} {{1,2,3},{5,7,9}}", a:cumsum(), ad.cumsum(a, 1))
    same("{{0.0900306,0.244728,0.665241},{0.0900306,0.244728,0.665241}}", a:softmax())
    same("{{-3.04859,-3.04859,-3.04859},{-0.0485874,-0.0485874,-0.0485874}}", a:log_softmax(1))
  end)

  describe("change shapes:", function()
    it("reshape, as a view where that can be", function()
      local b = a:copy()
      same("{{1,2},{3,4},{5,6}} {1,2,3,4,5,6}", b:reshape(3, 2), ad.reshape(b, { -1 }))
      b:reshape(-1)[6] = 60
      same("60", b[{ 2, 3 }])
      same("{1,4,2,5,3,6}", a:transpose():reshape(6))
      assert.same({ 0, 3 }, ad.zeros(3, 0):reshape(-1, 3).shape)
      fails("reshape: shapes (2, 3) and (4, -1) do not fit",
        function() return #a:reshape(4, -1) end)
      fails("reshape: shapes (2, 3) and (5) do not fit", function() return #a:reshape(5) end)
      fails("bad argument #1 to 'reshape' (shape: more than one length is -1)",
        function() return #a:reshape(-1, -1) end)
    end)

    it("transpose", function()
      same("{{1,4},{2,5},{3,6}}", a:transpose())
      assert.same({ 3, 2, 4 }, ad.ones(2, 3, 4):transpose(2, 1, 3).shape)
      assert.same({ 4, 2, 3 }, ad.transpose(ad.ones(2, 3, 4), { -1, 1, 2 }).shape)
      fails("bad argument #2 to 'transpose' (1 axes for an array of 2 dimensions)",
        function() return #ad.transpose(a, { 1 }) end)
      fails("bad argument #2 to 'transpose' (axis 1 is there twice)",
        function() return #ad.transpose(a, { 1, 1 }) end)
    end)

    it("squeeze and expand_dims", function()
      local b = ad.ones(1, 3, 1)
      assert.same({ 3 }, b:squeeze().shape)
      assert.same({ 3, 1 }, b:squeeze(1).shape)
      assert.is_equal(1.0, ad.squeeze(ad.ones(1, 1)))
      assert.same({ 1, 2, 3 }, a:expand_dims(1).shape)
      assert.same({ 2, 3, 1 }, a:expand_dims(-1).shape)
      assert.same({ 1, 2, 1, 3 }, a:expand_dims({ 1, 3 }).shape)
      fails("bad argument #2 to 'squeeze' (axis 2 of shape (2, 3) has not length 1)",
        function() return #ad.squeeze(a, 2) end)
    end)

    it("broadcast_to", function()
      same("{{1,2},{1,2}} {3,3}", ad.array({ 1, 2 }):broadcast_to(2, 2), ad.broadcast_to(3, { 2 }))
      fails("broadcast_to: shape (2, 3) does not broadcast to (2, 2)",
        function() return #a:broadcast_to(2, 2) end)
    end)

    it("concat and stack", function()
      same("{{1,2,3},{4,5,6},{7,7,7}}", ad.concat { a, ad.full({ 1, 3 }, 7) })
      same("{{1,2,3,1},{4,5,6,4}}", ad.concat({ a, a[{ {}, { 1, 1 } }] }, 2))
      same("{{{1,2,3},{4,5,6}}} {{1,4},{2,5},{3,6}}", ad.stack { a }, ad.stack({ a[1], a[2] }, -1))
      same("{1,2}", ad.stack { 1, 2 })
      fails("concat: shapes (2, 3) and (4, 5) do not align",
        function() return #ad.concat { a, ad.ones(4, 5) } end)
      fails("stack: shapes (2, 3) and (3) do not align",
        function() return #ad.stack { a, a[1] } end)
      fails("bad argument #1 to 'concat' (list is empty)", function() return #ad.concat {} end)
      fails("bad argument #1 to 'concat' (array expected at index 2, got number)",
        function() return #ad.concat { a, 1 } end)
    end)

    it("split", function()
      same("{{{1},{4}},{{2},{5}},{{3},{6}}}", ad.split(a, 3, 2))
      same("{{{1},{4}},{{2,3},{5,6}}} {{{1,2,3},{4,5,6}},{}}", a:split({ 1 }, 2), a:split { 2 })
      same("{{1},{},{2,3}}", ad.split(a[1], { 1, -2 }))
      fails("split: axis 2 of shape (2, 3) does not go into 2 equal parts",
        function() return #ad.split(a, 2, 2) end)
      fails("bad argument #2 to 'split' (positions: 1 is out of order or range (length 2))",
        function() return #ad.split(a, { 2, 1 }) end)
    end)

    it("take and scatter_add", function()
      same("{6,1} {{1,3},{4,6}} {4,5,6} 5", a:take { 6, -6 }, ad.take(a, { 1, -1 }, 2),
        a:take(2, 1), a:take(5))
      same("{{{1,2,3},{1,2,3}}}", a:take(ad.array { { 1, 1 } }, 1))
      same("{{1,2,3},{6,7,8}}", ad.scatter_add(a, { 2, 2 }, 1, 1))
      same("{{1,2,3},{4,5,13}}", a:scatter_add({ -1 }, ad.array { 7 }))
      same("{{11,2,3},{24,5,6}}", a:scatter_add(1, ad.array { 10, 20 }, 2))
      same("{{1,2,3},{4,5,6}}", a)
      fails("take: index 3 is out of range (length 2)", function() return #a:take({ 3 }, 1) end)
      fails("take: index has no integer representation", function() return #a:take({ 1.5 }, 1) end)
      fails("scatter_add: shapes (1, 3) and (5) do not align",
        function() return #ad.scatter_add(a, { 1 }, ad.ones(5), 1) end)
    end)

    it("flip", function()
      same("{{6,5,4},{3,2,1}} {{4,5,6},{1,2,3}}", a:flip(), ad.flip(a, 1))
    end)

    it("pad and tile", function()
      local b = ad.array { 1, 2 }
      same("{0,1,2,0} {9,1,2} {{0,1},{0,2},{0,0}}", b:pad(1), ad.pad(b, { 1, 0 }, 9),
        b:reshape(2, 1):pad { { 0, 1 }, { 1, 0 } })
      same("{inf,1,2,inf}", b:pad(1, inf))
      same("3", ad.grad(function(v) return b:pad({ 2, 1 }, v):sum() end)(5.0))
      same("{1,2,1,2} {{1,2},{1,2}} {{1,2,3,1,2,3},{4,5,6,4,5,6}} {}", b:tile(2), b:tile { 2, 1 },
        ad.tile(a, 2), b:tile(0))
      local c = b:tile(1)
      c[1] = 5
      same("{1,2}", b)
      fails("bad argument #2 to 'pad' (1 pairs of widths for an array of 2 dimensions)",
        function() return #ad.pad(a, { { 1, 1 } }) end)
      fails("bad argument #2 to 'pad' (widths must not be negative)",
        function() return #ad.pad(a, -1) end)
      fails("bad argument #2 to 'tile' (reps must not be negative)",
        function() return #ad.tile(a, -1) end)
    end)
  end)

  it("name the argument, also when they are methods", function()
    fails("bad argument #2 to 'sum' (no axis 3 in an array of 2 dimensions)",
      function() return ad.sum(a, 3) + 0 end)
    fails("bad argument #1 to 'sum' (no axis 3 in an array of 2 dimensions)",
      function() return a:sum(3) + 0 end)
    fails("bad argument #2 to 'argmax' (axis expected, got string)",
      function() return ad.argmax(a, "x") + 0 end)
    fails("bad argument #1 to 'argmax' (array expected, got table)",
      function() return ad.argmax { 1, 2 } + 0 end)
    fails("bad argument #4 to 'std' (number expected, got string)",
      function() return ad.std(a, 1, false, "x") + 0 end)
    fails("bad argument #1 to 'softmax' (no axis 0 in an array of 2 dimensions)",
      function() return a:softmax(0) + 0 end)
  end)

  it("hold no more for the backward pass than they look at", function()
    local n = 100000
    local x = ad.var(ad.ones(n))
    collectgarbage()
    collectgarbage()
    local before = collectgarbage "count"
    local y = x
    for _ = 1, 20 do y = y:reshape(2, -1):transpose():flip(1):transpose():reshape(-1) end
    local z = y:sum()
    y = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 3 * n * 8 / 1024)
    z:backward()
    same("1 100000", x.grad:min(), x.grad:sum())
  end)
end)
