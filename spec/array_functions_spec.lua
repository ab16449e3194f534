--- The functions that arrays compute with vectors: as exact as is said, the same at every place of
-- an array, and like those of numbers where these are special; and their derivatives.
local ad = require "autodiff"

local inf, nan = math.huge, 0 / 0

local function bits(x) return ("<i8"):unpack(("<d"):pack(x)) end

-- Representable numbers from x to y.
local function units(x, y)
  local a, b = bits(x), bits(y)
  if a < 0 then a = math.mininteger - a end
  if b < 0 then b = math.mininteger - b end
  return math.abs(a - b)
end

-- Name, and ranges from which arguments are taken.
local functions = {
  {"exp", {-1, 1}, {-740, 709}},
  {"exp2", {-1, 1}, {-1070, 1023}},
  {"expm1", {-1, 1}, {-50, 709}, {-1e-9, 1e-9}},
  {"log", {0.5, 2}, {1e-300, 1e-290}, {0, 1e300}},
  {"log1p", {-0.9, 1}, {-1e-9, 1e-9}, {0, 1e300}},
  {"log2", {0.5, 2}, {0, 1e300}},
  {"log10", {0.5, 2}, {0, 1e300}},
  {"sin", {-4, 4}, {-1e6, 1e6}, {-1e18, 1e18}},
  {"cos", {-4, 4}, {-1e6, 1e6}, {-1e18, 1e18}},
  {"tan", {-1, 1}, {-1e6, 1e6}, {-1e18, 1e18}},
  {"sinh", {-1, 1}, {-710, 710}},
  {"cosh", {-1, 1}, {-710, 710}},
  {"tanh", {-1, 1}, {-30, 30}, {-1e-9, 1e-9}},
  {"sigmoid", {-3, 3}, {-740, 740}},
  {"softplus", {-3, 3}, {-740, 740}},
}

local special = {
  0.0, -0.0, inf, -inf, nan, 5e-324, -5e-324, 1e-310, -1e-310, 2.2250738585072014e-308, 1.0, -1.0,
  1e16, -1e16, 1e22, -1e22, 1e300, -1e300, 1.7976931348623157e308, 709.79, -745.5, 1024.0, -1075.0,
  22.0, 1048576.0, math.pi, math.pi / 2, 355.0,
}

describe("functions of the elements of arrays", function()
  for _, case in ipairs(functions) do
    local name = case[1]
    local f = ad[name]

    it(name .. " is exact to two units, as that of numbers is to one", function()
      local random, worst = ad.random(7), 0
      for i = 2, #case do
        local lo, hi = table.unpack(case[i])
        local x = random:uniform{2000} * (hi - lo) + lo
        local y = f(x)
        for k = 1, 2000 do worst = math.max(worst, units(y[k], f(x[k]))) end
      end
      assert.is_true(worst <= 3, worst)
    end)

    it(name .. " is the same wherever an element stands", function()
      local x = ad.random(8):uniform{130} * (case[2][2] - case[2][1]) + case[2][1]
      for k, v in ipairs(special) do x[k * 4] = v end
      local y = f(x)
      local function check(a, from, step)
        for k = 1, #a do
          local want, got = y[from + (k - 1) * step], a[k]
          assert.is_true(bits(want) == bits(got) or want ~= want and got ~= got, k)
        end
      end
      for n = 1, 20 do
        for from = 1, 9 do check(f(x[{{from, from + n - 1}}]), from, 1) end
      end
      local turned = ad.transpose(ad.reshape(x, {65, 2}))
      local rows = f(turned)
      for i = 1, 2 do check(rows[i], i, 2) end
      check(f(ad.reshape(x, {130, 1}) * ad.ones(1, 3))[{{}, 2}], 1, 1)
    end)

    it(name .. " has the special values of that of numbers", function()
      local y = f(ad.array(special))
      for k, x in ipairs(special) do
        local want, got = f(x), y[k]
        if want ~= want then
          assert.is_true(got ~= got, x)
        elseif want == 0 or want - want ~= 0 then
          assert.equal(bits(want), bits(got), x)
        else
          assert.is_true(units(want, got) <= 3, x)
        end
      end
    end)
  end

  it("powers", function()
    local random, worst = ad.random(9), 0
    for _, range in ipairs{{0, 3, -5, 5}, {0, 1e3, -100, 100}, {0, 1e-3, -90, 90}} do
      local x = random:uniform{2000} * (range[2] - range[1]) + range[1]
      local p = random:uniform{2000} * (range[4] - range[3]) + range[3]
      local y = x ^ p
      for k = 1, 2000 do worst = math.max(worst, units(y[k], x[k] ^ p[k])) end
    end
    assert.is_true(worst <= 3, worst)
    -- 1 and 2 have a way of their own, alone and among others
    local x = random:uniform{33} * 4 - 2
    for _, p in ipairs{1, 2} do
      local exponents = ad.full({33}, p)
      exponents[5] = 3
      local y, z, w = x ^ p, x ^ exponents, ad.array{x[7]} ^ p
      for k = 1, 33 do
        local want = p == 1 and x[k] or x[k] * x[k]
        assert.equal(want, y[k])
        if k ~= 5 then assert.equal(want, z[k]) end
      end
      assert.equal(y[7], w[1])
    end
    local values = {0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, inf, -inf, nan, 5e-324,
      1e300, -1e300, 1e16}
    local base = ad.reshape(ad.array(values), {#values, 1})
    local y = base ^ ad.array(values)
    for i, a in ipairs(values) do
      for j, b in ipairs(values) do
        local want, got = ad.pow(a, b), y[{i, j}]
        if want ~= want then
          assert.is_true(got ~= got)
        else
          assert.is_true(bits(want) == bits(got) or want - want == 0 and units(want, got) <= 3,
            ("%g^%g"):format(a, b))
        end
      end
    end
  end)

  -- forwards and backwards, of elements that are enough for all that there is of blocks and tails
  for _, name in ipairs{"sin", "cos", "sinh", "cosh", "softplus", "erf", "erfc", "exp", "tanh"} do
    it("derivative of " .. name, function()
      local f, n = ad[name], 803
      local x = ad.random(10):uniform{n} * 4 - 2
      x[3] = 0.0
      local g = ad.grad(function(a) return ad.sum(f(a) * 3) end)(x)
      local _, d = ad.jvp(f, {x}, {ad.full({n}, 3)})
      for k = 1, n do
        local want = 3 * ad.grad(f)(x[k])
        assert.is_true(math.abs(g[k] - want) <= 1e-15 * math.max(1, math.abs(want)), k)
        assert.is_true(math.abs(d[k] - want) <= 1e-15 * math.max(1, math.abs(want)), k)
      end
    end)
  end

  it("derivatives of powers", function()
    local x, p = {}, {}
    for _, a in ipairs{0.0, -0.0, 1.0, -1.0, -2.0, 0.3, 2.5, inf} do
      for _, b in ipairs{0.0, 1.0, 2.0, -1.0, 0.5, -0.5, 3.0, 1.7} do
        for _ = 1, 5 do x[#x + 1], p[#p + 1] = a, b end
      end
    end
    local function pow(a, b) return ad.pow(a, b) end
    local dx, dp = ad.grad(function(a, b) return ad.sum(pow(a, b)) end, {1, 2})(ad.array(x),
      ad.array(p))
    local function near(want, got)
      return want == got or want ~= want and got ~= got or
        math.abs(want - got) <= 1e-15 * math.abs(want) * 2
    end
    for k = 1, #x do
      local wantx, wantp = ad.grad(pow, {1, 2})(x[k], p[k])
      local name = ("%g^%g: %g, %g"):format(x[k], p[k], dx[k], dp[k])
      assert.is_true(near(wantx, dx[k]) and near(wantp, dp[k]), name)
    end
  end)
end)
