-- The example program examples/notebook.lua, from outside: every row of its table gives the
-- derivatives that calculus gives, and says what was measured here and what was published.

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local exact = {
  f = math.exp(2) - 8 + math.cos(4),
  x1 = math.exp(2) - 4,
  x2 = -2 - math.sin(4),
}

-- What a number printed with so many decimals may be off.
local function near(expected, shown, decimals, what)
  local x = assert(tonumber(shown), what)
  assert(math.abs(x - expected) <= 0.51 * 10 ^ -decimals,
    ("%s: expected %.12g, got %s"):format(what, expected, shown))
end

describe("examples/notebook.lua", function()
  local output, lines, status
  local rows = {} -- by name
  local names = {}

  setup(function()
    local pipe = assert(io.popen(("LUA_PATH_5_4=%s LUA_CPATH_5_4=%s lua5.4 examples/notebook.lua"):
      format(quote(package.path), quote(package.cpath))))
    output = pipe:read("a")
    local _, _, code = pipe:close()
    status = code
    lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
      local name, f, d1, d2, time, published =
        line:match("^(%S.-)%s+(%-?%d+%.%d+)%s+(%-?%d+%.%d+)%s+(%-?%d+%.%d+)%s+([%d.]+) µs%s*(.*)$")
      if name then
        rows[name] = {f = f, x1 = d1, x2 = d2, time = tonumber(time), published = published}
        names[#names + 1] = name
      end
    end
  end)

  it("runs", function()
    assert.equal(0, status)
  end)

  it("takes every approach", function()
    for _, pattern in ipairs{
      "^reverse, by hand", "^forward, by hand", "^ad%.grad", "^ad%.value_and_grad", "^ad%.tape",
      "^ad%.var, backward", "^ad%.vjp", "^ad%.jvp", "^ad%.dual", "^ad%.linearize",
      "^ad%.derivative", "^ad%.taylor", "^ad%.jacobian",
    } do
      local found = 0
      for _, name in ipairs(names) do
        if name:find(pattern) then found = found + 1 end
      end
      assert.equal(1, found, pattern)
    end
    assert.equal(13, #names)
  end)

  it("finds the right values and derivatives in every row", function()
    for _, name in ipairs(names) do
      local row = rows[name]
      near(exact.f, row.f, 10, name .. ": f")
      near(exact.x1, row.x1, 10, name .. ": df/dx1")
      near(exact.x2, row.x2, 10, name .. ": df/dx2")
    end
    local worst = tonumber(output:match("Largest relative error of all rows: (%S+)"))
    assert(worst < 1e-14, worst)
  end)

  it("measures every row", function()
    for _, name in ipairs(names) do
      assert(rows[name].time > 0, name)
    end
    assert(tonumber(output:match("f alone, on plain numbers, takes (%S+) µs")) > 0)
  end)

  it("gives the published times, in their own column and for what they are", function()
    local published = {}
    for _, name in ipairs(names) do
      if rows[name].published ~= "" then published[#published + 1] = rows[name].published end
    end
    assert.same({
      "Python 10.5 µs", "Python 9.75 µs", "JAX 7 ms, jit 2.72 ms", "TensorFlow 2.8 ms",
      "PyTorch 330 µs", "JAX 5.73 ms",
    }, published)

    local header
    for _, line in ipairs(lines) do
      if line:find("published", 1, true) then
        header = line
        break
      end
    end
    assert.matches("df/dx1%s+df/dx2%s+time here%s+published %(%*%)$", header)
    assert.matches("\n%(%*%) The notebook's published figures", output)
    assert.matches("on its own machine: not measured%s+here", output)
    -- and nowhere but in that column; a row has one byte more before it than the header, for µs
    local column, system = header:find("published", 1, true) + 1, 0
    for _, line in ipairs(lines) do
      for _, name in ipairs{"Python", "JAX", "TensorFlow", "PyTorch"} do
        local at = line:find(name, 1, true)
        if at then
          assert.equal(column, at, line)
          system = system + 1
        end
      end
    end
    assert.equal(#published, system)
  end)

  it("has the textbook's table", function()
    local step = {}
    for _, line in ipairs(lines) do
      local v, what, primal, t1, t2, adjoint =
        line:match("^(v%d) = (%S.-)%s+(%S+)%s+(%S+)%s+(%S+)%s+(%S+)$")
      if v then
        step[v] = {what = what, primal = primal, t1 = t1, t2 = t2, adjoint = adjoint}
      end
    end
    local e, c, s = math.exp(2), math.cos(4), math.sin(4)
    for v, expected in pairs{
      v1 = {2, 1, 0, e - 4},
      v2 = {4, 0, 1, -2 - s},
      v3 = {e, e, 0, 1},
      v4 = {8, 4, 2, -1},
      v5 = {c, 0, -s, 1},
      v6 = {e - 8, e - 4, -2, 1},
      v7 = {e - 8 + c, e - 4, -2 - s, 1},
    } do
      near(expected[1], step[v].primal, 4, v .. ": primal")
      near(expected[2], step[v].t1, 4, v .. ": tangent for x1")
      near(expected[3], step[v].t2, 4, v .. ": tangent for x2")
      near(expected[4], step[v].adjoint, 4, v .. ": adjoint")
    end
  end)

  it("adds the second derivatives", function()
    local a, b, c, d = output:match(
      "ad%.hessian:%s+(%-?[%d.]+)%s+(%-?[%d.]+)%s+(%-?[%d.]+)%s+(%-?[%d.]+)%s*$")
    near(math.exp(2), a, 10, "H11")
    near(-1, b, 10, "H12")
    near(-1, c, 10, "H21")
    near(-math.cos(4), d, 10, "H22")
  end)
end)
