-- ad.random: the same numbers everywhere, evenly distributed.

local ad = require "autodiff"

local function refused(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok, "no error: " .. message)
  assert.is_truthy(tostring(e):find(message, 1, true), e)
end

-- All 64 bits of the generator's next number.
local function raw(r) return r:randint(math.mininteger, math.maxinteger) ~ math.mininteger end

local function hex(list)
  local out = {}
  for i, x in ipairs(list) do out[i] = ("%016x"):format(x) end
  return table.concat(out, " ")
end

local function moments(list)
  local m, n = { 0, 0, 0, 0 }, #list
  for _, x in ipairs(list) do
    for k = 1, 4 do m[k] = m[k] + x ^ k / n end
  end
  return m
end

describe("ad.random", function()
  it("is xoshiro256** seeded by splitmix64", function()
    -- the vectors of the rand_xoshiro crate, from the authors' reference code
    local r = ad.random(hex { 1, 2, 3, 4 })
    for _, x in ipairs { 11520, 0, 1509978240, 1215971899390074240, 1216172134540287360,
      607988272756665600 } do
      assert.are.equal(x, raw(r))
    end
    -- splitmix64's of the seed 1234567, from the same
    assert.are.equal("599ed017fb08fc85 2c73f08458540fa5 883ebce5a3f27c77 3fbef740e9177b3f",
      ad.random(1234567):state())
  end)

  it("gives the numbers that it has always given", function()
    local r = ad.random(42)
    local got = {}
    for _ = 1, 3 do got[#got + 1] = ("%a"):format(r:uniform()) end
    for _ = 1, 4 do got[#got + 1] = ("%a"):format(r:normal()) end
    for _ = 1, 4 do got[#got + 1] = r:randint(-3, 10) end
    local p = r:permutation(9):tolist()
    for _, x in ipairs(p) do got[#got + 1] = ("%d"):format(x) end
    assert.are.equal("0x1.5780b2e0c2ecp-4 0x1.84136619b444ep-2 0x1.5c2ea66473c93p-1"
      .. " 0x1.df16ccfa4d2a1p-1 0x1.856dd7819a9ebp-1 0x1.2d86b0cc26b44p-1 0x1.c256c1740300dp-2"
      .. " 6 7 1 9 4 3 2 7 1 8 5 9 6", table.concat(got, " "))
  end)

  it("takes any integer for a seed, and a state", function()
    for _, seed in ipairs { 0, -1, math.maxinteger, math.mininteger, 7.0 } do
      local r, s = ad.random(seed), ad.random(seed)
      assert.is_true(r:normal(100) == s:normal(100))
    end
    assert.is_false(ad.random(1):uniform(10) == ad.random(2):uniform(10))
    for n = 0, 3 do -- with and without a number in reserve
      local r = ad.random(5)
      if n > 0 then r:normal(n) end
      local s = ad.random(r:state())
      assert.is_true(r:normal(7) == s:normal(7))
      assert.is_true(r:uniform(7) == s:uniform(7))
      assert.are.equal(r:state(), s:state())
    end
  end)

  it("gives the same numbers one by one and in arrays", function()
    local r, s = ad.random(1), ad.random(1)
    local a, b, c = r:normal(5), r:uniform(2, 3), r:randint(1, 6, 4)
    for i = 1, 5 do assert.are.equal(a[i], s:normal()) end
    for i = 1, 2 do
      for j = 1, 3 do assert.are.equal(b[{ i, j }], s:uniform()) end
    end
    for i = 1, 4 do assert.are.equal(c[i], s:randint(1, 6) + 0.0) end
  end)

  it("takes shapes as lists and as integers", function()
    local r = ad.random(1)
    assert.same({ 2, 3 }, r:uniform({ 2, 3 }).shape)
    assert.same({ 2, 3 }, r:uniform(2, 3).shape)
    assert.same({ 4 }, r:normal(4).shape)
    assert.same({ 4, 1 }, r:normal({ 4, 1 }).shape)
    assert.same({ 2, 2 }, r:randint(1, 3, 2, 2).shape)
    assert.same({ 2, 2 }, r:randint(1, 3, { 2, 2 }).shape)
    assert.same({ 0, 2 }, r:uniform(0, 2).shape)
    assert.are.equal("float", math.type(r:uniform {}))
    assert.are.equal("float", math.type(r:normal(nil)))
    assert.are.equal("integer", math.type(r:randint(1, 6)))
  end)

  it("is uniform", function()
    local a = ad.random(3):uniform(100000):tolist()
    local counts = {}
    for i = 1, 20 do counts[i] = 0 end
    for _, x in ipairs(a) do
      assert.is_true(x >= 0 and x < 1)
      counts[x * 20 // 1 + 1] = counts[x * 20 // 1 + 1] + 1
    end
    local chi = 0
    for _, n in ipairs(counts) do chi = chi + (n - 5000) ^ 2 / 5000 end
    assert.is_true(chi > 5 and chi < 45, "chi squared of 19 degrees: " .. chi)
    for _, x in ipairs(ad.random(3):uniform({ 1000 }, -2, 3):tolist()) do
      assert.is_true(x >= -2 and x < 3)
    end
    -- between neighbours there is only the lower one
    local r = ad.random(1)
    for _ = 1, 100 do assert.are.equal(1.0, r:uniform(nil, 1, 1 + 2 ^ -52)) end
    assert.are.equal(4.0, r:uniform({}, 4, 4))
  end)

  it("is normal", function()
    local a = ad.random(4):normal(200000):tolist()
    local m = moments(a)
    assert.is_true(math.abs(m[1]) < 0.01 and math.abs(m[2] - 1) < 0.02, m[1] .. " " .. m[2])
    assert.is_true(math.abs(m[3]) < 0.03 and math.abs(m[4] - 3) < 0.1, m[3] .. " " .. m[4])
    -- the distribution function, by ad.erfc
    table.sort(a)
    local worst = 0
    for i, x in ipairs(a) do
      worst = math.max(worst, math.abs(0.5 * ad.erfc(-x / math.sqrt(2)) - (i - 0.5) / #a))
    end
    assert.is_true(worst < 1.63 / math.sqrt(#a), "Kolmogorov and Smirnov: " .. worst)
  end)

  it("has a logarithm of its own that is right", function()
    -- a pair u f, v f has (u f)^2 + (v f)^2 = -2 log q, and u/v = their quotient; q is had
    -- from the uniform numbers that the same state gives
    local worst = 0
    for seed = 1, 300 do
      local r = ad.random(seed)
      local s = ad.random(r:state())
      local q, u, v
      repeat
        u, v = 2 * s:uniform() - 1, 2 * s:uniform() - 1
        q = u * u + v * v
      until q < 1 and q > 0
      local x, y = r:normal(), r:normal()
      local f = math.sqrt(-2 * math.log(q) / q)
      worst = math.max(worst, math.abs(x - u * f) / math.abs(x), math.abs(y - v * f) / math.abs(y))
    end
    assert.is_true(worst < 1e-15, worst)
  end)

  it("gives integers with both ends, evenly", function()
    local r = ad.random(9)
    local counts = {}
    for _ = 1, 60000 do
      local x = r:randint(-2, 3)
      counts[x] = (counts[x] or 0) + 1
    end
    local chi, n = 0, 0
    for x, c in pairs(counts) do
      assert.is_true(x >= -2 and x <= 3)
      chi, n = chi + (c - 10000) ^ 2 / 10000, n + 1
    end
    assert.is_true(n == 6 and chi < 20, "chi squared of 5 degrees: " .. chi)
    assert.are.equal(5, r:randint(5, 5))
    assert.are.equal(math.maxinteger, r:randint(math.maxinteger, math.maxinteger))
    -- of 2^63 + 1 numbers, where a remainder would prefer half of them
    local low = 0
    for _ = 1, 2000 do
      if r:randint(math.mininteger, 0) < math.mininteger // 2 then low = low + 1 end
    end
    assert.is_true(low > 880 and low < 1120, low)
    local a = r:randint(-2 ^ 53 // 1, 2 ^ 53 // 1, 100)
    for i = 1, 100 do assert.are.equal(a[i], a[i] // 1) end
  end)

  it("permutes", function()
    local r, first = ad.random(2), {}
    for _ = 1, 6000 do
      local p = r:permutation(3):tolist()
      local key = ("%d%d%d"):format(p[1], p[2], p[3])
      first[key] = (first[key] or 0) + 1
    end
    local n = 0
    for key, count in pairs(first) do
      n = n + 1
      assert.is_true(count > 880 and count < 1120, key)
    end
    assert.are.equal(6, n)
    local p = r:permutation(1000):tolist()
    table.sort(p)
    for i = 1, 1000 do assert.are.equal(i + 0.0, p[i]) end
    assert.same({ 0 }, r:permutation(0).shape)
    assert.same({ 1.0 }, r:permutation(1):tolist())
  end)

  it("refuses what makes no sense", function()
    local r = ad.random(1)
    refused("random' (number expected, got no value)", ad.random)
    refused("number has no integer representation", ad.random, 0.5)
    for _, state in ipairs { "", "5", r:state() .. " ", r:state():sub(2), r:state():upper() .. "g",
      hex { 0, 0, 0, 0 }, hex { 1, 2, 3 }, hex { 1, 2, 3, 4, 0x7ff0000000000000 },
      hex { 1, 2, 3, 4, 5, 6 }, (r:state():gsub(" ", "_")), ("\0"):rep(67) } do
      refused("invalid state", ad.random, state)
    end
    refused("interval is empty", r.randint, r, 2, 1)
    refused("interval is empty", r.uniform, r, nil, 2, 1)
    refused("interval is empty", r.uniform, r, nil, 0 / 0, 1)
    refused("interval too large", r.uniform, r, nil, -1e308, 1e308)
    refused("interval too large", r.uniform, r, nil, -math.huge, -math.huge)
    refused("arrays have integers to 2^53 only", r.randint, r, 0, 1 << 54, 3)
    refused("arrays have integers to 2^53 only", r.randint, r, -1 << 54, 0, { 3 })
    refused("bad length", r.permutation, r, -1)
    refused("shape: bad length -1", r.normal, r, -1)
    refused("at most 8 dimensions", r.normal, r, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    refused("array is too large", r.uniform, r, math.maxinteger)
    refused("autodiff.random expected, got no value", r.uniform)
    refused("autodiff.random expected, got table", r.state, {})
    assert.is_nil(ad.type(r))
    assert.is_false(getmetatable(r))
  end)
end)
