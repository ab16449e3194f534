-- ad.explain: the evaluation trace. Its numbers are compared with those of the transforms, its form
-- with the tables in textbooks.

local ad = require "autodiff"

local DOT, BAR = "\u{307}", "\u{304}"

local function chunk(text)
  return assert(load(text, "@user.lua", "t", setmetatable({ad = ad}, {__index = _G})))()
end

-- The tables of a text: title to list of lines.
local function tables(text)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    if line:find "^%a" then
      list[#list + 1] = {title = line}
    elseif line ~= "" then
      table.insert(list[#list], line)
    end
  end
  return list
end

local function titled(text, title)
  local found = {}
  for _, t in ipairs(tables(text)) do
    if t.title == title then found[#found + 1] = t end
  end
  return found
end

-- The last number of the line that begins with a name.
local function last(t, name)
  for _, line in ipairs(t) do
    local first = line:match "^%s*(%S+)"
    if first == name then return tonumber(line:match "(%S+)$"), line end
  end
  error("no line " .. name)
end

local function columns(line)
  local n = utf8.len(line)
  for _, c in utf8.codes(line) do
    if c == 0x307 or c == 0x304 then n = n - 1 end
  end
  return n
end

describe("explain", function()
  local f = chunk [[
    return function(x1, x2)
      local a = ad.exp(x1)
      return a - x1 * x2
        + ad.cos(x2)
    end]]

  it("is the table in the textbooks", function()
    local text = ad.explain(f, 2, 4)
    local primal = titled(text, "Forward primal trace")[1]
    local expected = {
      {"v-1  = x1", 2}, {"v0   = x2", 4},
      {"v1   = exp(v-1)", math.exp(2), 2}, {"v2   = v-1 * v0", 8, 3},
      {"v3   = v1 - v2", math.exp(2) - 8, 3}, {"v4   = cos(v0)", math.cos(4), 4},
      {"v5   = v3 + v4", f(2, 4), 4}, {"y    = v5", f(2, 4)},
    }
    assert.equal(#expected, #primal)
    for i, e in ipairs(expected) do
      local line = primal[i]
      assert.equal("  " .. e[1], line:sub(1, #e[1] + 2))
      local value, place = line:sub(#e[1] + 3):match "^%s*= (%S+)%s*(.*)$"
      assert.near(e[2], tonumber(value), 1e-12)
      assert.equal(e[3] and "user.lua:" .. e[3] or "", place)
    end
  end)

  it("has the derivatives that the transforms give", function()
    local text = ad.explain(f, 2, 4)
    local g1, g2 = ad.grad(f, {1, 2})(2, 4)
    local tangent = titled(text, "Forward tangent trace")[1]
    local dy2, line = last(tangent, "v" .. DOT .. "5")
    assert.near(g2, dy2, 1e-12)
    assert.near(g1, tonumber(line:match "(%S+)%s+%S+$"), 1e-12)
    assert.truthy(tangent[1]:find("x" .. DOT .. "1 = 1%s+x" .. DOT .. "2 = 1$"))
    local adjoint = titled(text, "Reverse adjoint trace")[1]
    assert.near(g1, last(adjoint, "x" .. BAR .. "1"), 1e-12)
    assert.near(g2, last(adjoint, "x" .. BAR .. "2"), 1e-12)
    assert.equal(1, last(adjoint, "v" .. BAR .. "5"))
    assert.equal(-1, last(adjoint, "v" .. BAR .. "2"))
    assert.truthy(text:find("v" .. DOT .. "2   = 4 v" .. DOT .. "-1 + 2 v" .. DOT .. "0", 1, true))
  end)

  it("is aligned", function()
    for _, t in ipairs(tables(ad.explain(f, 2, 4))) do
      if t.title ~= "Forward primal trace" then
        for _, line in ipairs(t) do assert.equal(columns(t[1]), columns(line), line) end
      end
      for _, line in ipairs(t) do assert.equal(nil, line:find "%s$") end
    end
  end)

  it("names parts of structures", function()
    local text = ad.explain(function(p, s)
      return {p.w[1] * p.w[2] + p["a b"], out = s * 3, 7}
    end, {w = {2, 3}, ["a b"] = 5, name = "n"}, 4)
    for _, name in ipairs {"x1.w[1]", "x1.w[2]", 'x1["a b"]', "x2", "y[1]", "y[2]", "y.out"} do
      assert.truthy(text:find(name, 1, true), name)
    end
    assert.truthy(text:find("y%[2%]%s+= a constant%s+= 7"))
    assert.truthy(text:find("y" .. BAR .. "[1] = 1", 1, true))
    assert.truthy(text:find("y" .. BAR .. ".out = 1", 1, true))
  end)

  it("takes several results", function()
    local text = ad.explain(function(x) return x * 2, ad.sin(x) end, 0)
    assert.truthy(text:find "y1%s+= v1%s+= 0")
    assert.truthy(text:find "y2%s+= v2%s+= 0")
  end)

  it("shows constants, lists, rules and checkpoints", function()
    local square = ad.custom{name = "square", f = function(x) return x * x end,
      vjp = function(ybar, _, x) return 2 * ybar * x end}
    local text = ad.explain(function(x, y)
      return 3 - x * -2 + ad.sum{x, 1, y, 2} + square(x) + ad.log(x, 2)
        + ad.checkpoint(function(t) return ad.sin(t) * t end)(y) + ad.max(x, y) + (-x) % 5
    end, 4, 3)
    for _, formula in ipairs {"v-1 * (-2)", "3 - v1", "sum{v-1, v0, 2 constants}", "square(v-1)",
      "log(v-1, 2)", "checkpoint(v0)", "max(v-1, v0)", "-v-1", "% 5"} do
      assert.truthy(text:find(formula, 1, true), formula .. "\n" .. text)
    end
    assert.truthy(text:find "= square%(v%-1%)%s+= 16 ")
    assert.truthy(text:find("= 8 v" .. DOT .. "-1 ", 1, true)) -- the rule's derivative
    local sin3 = math.sin(3) + 3 * math.cos(3)
    assert.truthy(text:find(("%.6g v"):format(sin3) .. DOT .. "0", 1, true))
    assert.equal(nil, text:find("sin(", 1, true)) -- one row
  end)

  it("is bounded", function()
    local text = ad.explain(chunk [[
      return function(x)
        for i = 1, 1000000 do x = ad.sin(x) end
        return x
      end]], 2)
    for _, t in ipairs(tables(text)) do assert.is_true(#t <= 43, #t) end
    assert.truthy(text:find("v1000000", 1, true))
    assert.truthy(text:find "⋮ 99%d%d%d%d more operations")
    local many = {}
    for i = 1, 1000 do many[i] = i end
    text = ad.explain(function(x)
      local y = {}
      for i = 1, #x do y[i] = x[i] ^ 2 end
      return y
    end, many)
    for _, t in ipairs(tables(text)) do assert.is_true(#t <= 51, #t) end
    assert.is_true(#text < 60000)
    assert.truthy(text:find "⋮ 988 more inputs")
    assert.truthy(text:find "992 more results")
  end)

  it("works inside another transform, and leaves it alone", function()
    local text
    local g = ad.grad(function(x)
      text = ad.explain(function(y) return x * y * y end, x)
      return x * x
    end)(3)
    assert.equal(6.0, g)
    assert.truthy(text:find "y%s+= v2%s+= 27")
    assert.near(18, last(titled(text, "Reverse adjoint trace")[1], "x" .. BAR .. "1"), 0)
    local outer
    assert.equal(12.0, ad.derivative(ad.grad(function(x)
      local y = x ^ 3
      outer = ad.explain(function(t) return t * y end, 2)
      return y
    end))(2))
    assert.truthy(outer:find "v1  = v0 %* 8 ")
  end)

  it("shows the derivative of a derivative", function()
    local text = ad.explain(ad.grad(chunk "return function(x)\n  return ad.sin(x) * x\nend"), 2)
    local adjoint = titled(text, "Reverse adjoint trace")[1]
    assert.near(2 * math.cos(2) - 2 * math.sin(2), last(adjoint, "x" .. BAR .. "1"), 1e-12)
    assert.truthy(text:find("cos(v0)", 1, true))
    assert.truthy(text:find("user.lua:2", 1, true))
  end)

  it("lets f yield and fail", function()
    local co = coroutine.wrap(function()
      return ad.explain(function(x)
        local y = x * x
        coroutine.yield "here"
        return y + 1
      end, 3)
    end)
    assert.equal("here", co())
    assert.equal(1.0, ad.grad(ad.sin)(0))
    assert.truthy(co():find "y%s+= v2%s+= 10")
    local e = {}
    local ok, got = pcall(ad.explain, function() error(e) end, 1)
    assert.is_false(ok)
    assert.equal(e, got)
    assert.equal(6.0, ad.grad(function(x) return x * x end)(3))
  end)

  it("checks what it gets", function()
    local function message(...) return select(2, pcall(...)) end
    assert.truthy(message(ad.explain, 1):find "bad argument #1 to 'explain' %(function expected")
    assert.truthy(message(ad.explain, function() end, 1):find "explain: function must return num")
    assert.truthy(message(ad.explain, function() return "a" end, 1):find "got a string")
    assert.truthy(ad.explain(function() return 3 end):find "a constant")
  end)
end)
