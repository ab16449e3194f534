-- Arrays as text: in columns, bounded, and with all that matters.

local ad = require "autodiff"
local pretty = require "autodiff.repl.pretty"

local function shown(a, ...)
  assert.are.equal(table.concat({ ... }, "\n"), tostring(a))
end

local nan, inf = 0 / 0, math.huge

describe("tostring of an array", function()
  it("aligns columns", function()
    shown(ad.array { 1, 2, 3 }, "[1 2 3]")
    shown(ad.array { { 1, -20 }, { 300, 4 } },
      "[[  1 -20]",
      " [300   4]]")
    shown(ad.array { 1.5, -2, 0.125 }, "[ 1.5   -2      0.125]")
    shown(ad.array { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } },
      "[[[1 2]",
      "  [3 4]]",
      "",
      " [[5 6]",
      "  [7 8]]]")
    shown(ad.arange(1, 9)[{ { 9, 1, -4 } }], "[9 5 1]")
  end)

  it("has no more digits than a person reads", function()
    shown(ad.array { 1 / 3, 100 / 3 }, "[ 0.3333333 33.3333333]")
    shown(ad.array { 0.1 + 0.2 }, "[0.3]")
    shown(ad.array { 1e15 - 1, 5 }, "[999999999999999               5]")
    shown(ad.array { 12345678.9 }, "[12345678.9]")
  end)

  it("keeps small numbers next to large ones", function()
    shown(ad.array { 1, 1e-300 }, "[ 1e+00 1e-300]")
    shown(ad.array { 1234567.25, 0.00123 }, "[1.23456725e+06       1.23e-03]")
    shown(ad.array { 1e-5, 2e-5 }, "[0.00001 0.00002]")
    shown(ad.array { 1e20, 1 }, "[1e+20 1e+00]")
    shown(ad.array { 0, 1e-12 }, "[0e+00 1e-12]")
    shown(ad.array { 1e9 + 0.5 }, "[1e+09]")
  end)

  it("shows NaN, infinities and negative zero", function()
    shown(ad.array { nan, -nan, inf, -inf, -0.0, 3 }, "[ nan  nan  inf -inf   -0    3]")
    shown(ad.array { nan, 1.25 }, "[nan      1.25]")
    shown(ad.array { { 1.25, nan }, { -1e10, 3 } },
      "[[1.25e+00      nan]",
      " [  -1e+10    3e+00]]")
    shown(ad.array { nan, inf }, "[nan inf]")
  end)

  it("shows the shape of what is empty", function()
    shown(ad.zeros(0), "[] shape (0)")
    shown(ad.zeros(3, 0, 2), "[] shape (3, 0, 2)")
  end)

  it("wraps long rows", function()
    local text = tostring(ad.linspace(0, 1, 30))
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 78, line) end
    assert.is_truthy(text:find "^%[0 +0%.0344")
    assert.is_truthy(text:find "\n 0%.24")
    assert.is_truthy(text:find "1 +%]$")
    text = tostring(ad.ones(2, 100))
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 78, line) end
    assert.are.equal(200, select(2, text:gsub("1", "")))
  end)

  it("shows the ends of what is large, and its shape", function()
    shown(ad.arange(1, 1001), "[   1    2    3 ...  999 1000 1001] shape (1001)")
    assert.is_nil(tostring(ad.arange(1, 1000)):find("...", 1, true))
    local row = "[0 0 0 ... 0 0 0]"
    shown(ad.zeros(100, 100), "[" .. row, " " .. row, " " .. row, " ...", " " .. row, " " .. row,
      " " .. row .. "]", "shape (100, 100)")
    shown(ad.zeros(2, 1000), "[" .. row, " " .. row .. "]", "shape (2, 1000)")
  end)

  it("is bounded whatever the shape", function()
    for _, shape in ipairs {
      { 1000000 }, { 1000000, 1 }, { 1, 1000000 }, { 4, 4, 4, 4, 4, 4, 4, 4 },
      { 10, 10, 10, 10, 10, 1 }, { 3, 3, 3, 3, 3, 3, 3, 3 } } do
      local text = tostring(ad.random(1):normal(shape))
      assert.is_true(#text < 10000, #text .. " bytes of " .. table.concat(shape, ", "))
      assert.is_truthy(text:find("shape (" .. table.concat(shape, ", ") .. ")", 1, true))
    end
    assert.is_true(#tostring(ad.random(1):normal(1000)) < 20000)
    assert.is_truthy(tostring(ad.full({ 2, 600 }, -1e-300)):find("-1e-300 -1e-300 ... ", 1, true))
  end)

  it("shows repeated elements of views", function()
    local a = ad.array { { 1, 2 }, { 3, 4 } }
    shown(a[{ {}, 2 }], "[2 4]")
    shown(a[{ { 2, 1, -1 } }], "[[3 4]", " [1 2]]")
  end)
end)

describe("tostring of AD values of arrays", function()
  it("has them below each other", function()
    shown(ad.var(ad.array { 1, 2 }), "var([1 2])")
    shown(ad.var(ad.eye(2)),
      "var([[1 0]",
      "     [0 1]])")
    local text
    ad.jvp(function(x)
      text = tostring(x)
      return x
    end, { ad.eye(2) }, { ad.array { { 5, 6 }, { 7, 8 } } })
    assert.are.equal(table.concat({
      "dual([[1 0]",
      "      [0 1]],",
      "     [[5 6]",
      "      [7 8]])" }, "\n"), text)
    ad.jvp(function(x)
      text = tostring(x)
      return x
    end, { ad.array { 1 } }, { ad.array { 2 } })
    assert.are.equal("dual([1], [2])", text)
    ad.grad(function(x)
      ad.jvp(function(y)
        text = tostring(y)
        return y
      end, { x }, { x })
      return 0
    end)(ad.eye(2))
    assert.are.equal(table.concat({
      "dual(var([[1 0]",
      "          [0 1]]),",
      "     var([[1 0]",
      "          [0 1]]))" }, "\n"), text)
  end)
end)

describe("the REPL", function()
  it("shows arrays in tables below each other", function()
    assert.are.equal(table.concat({
      "{",
      "  1,",
      "  {",
      "    a = [[1 0]",
      "         [0 1]],",
      "    v = var of shape (2)",
      "  }",
      "}" }, "\n"), pretty.value { 1, { a = ad.eye(2), v = ad.var(ad.ones(2)) } })
    assert.are.equal("{[1 2], [3 4]}", pretty.value { ad.array { 1, 2 }, ad.array { 3, 4 } })
    assert.are.equal("[1 2]", pretty.value(ad.array { 1, 2 }))
    assert.are.equal(tostring(ad.eye(20)), pretty.value(ad.eye(20)))
  end)

  it("shows a bounded part of many arrays", function()
    local many = {}
    for i = 1, 30 do many[i] = ad.random(i):normal(50, 50) end
    local text = pretty.value(many)
    assert.is_true(#text < 8000, #text)
    assert.is_truthy(text:find("... 30 in all", 1, true))
    assert.is_truthy(text:find("shape (50, 50),", 1, true))
    many[7] = ad.zeros(32) -- after which there is room for one thing
    assert.is_truthy(pretty.value(many):find("  array of shape (50, 50),\n", 1, true))
  end)
end)
