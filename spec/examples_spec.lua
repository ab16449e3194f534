-- The examples, from outside: each runs with its defaults, says what is true, writes a picture that
-- is well-formed, and answers a wrong command line with its usage.

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Output and exit code of an example.
local function run(name, ...)
  local words = {}
  for i, word in ipairs({ ... }) do words[i] = quote(word) end
  local pipe = assert(io.popen(("LUA_PATH_5_4=%s LUA_CPATH_5_4=%s lua5.4 examples/%s.lua %s 2>&1"):
    format(quote(package.path), quote(package.cpath), name, table.concat(words, " "))))
  local output = pipe:read "a"
  local _, _, code = pipe:close()
  return output, code
end

-- Everything in the picture is closed, and every number is one.
local function check_picture(path)
  local file = assert(io.open(path), "there is no picture")
  local text = file:read "a"
  file:close()
  assert.is_truthy(text:find "^<svg [^<>]*xmlns=\"http://www.w3.org/2000/svg\"")
  assert.is_nil(text:lower():find "[^%a]nan[^%a]")
  assert.is_nil(text:lower():find "[\" ,LM-]inf[^%a]")
  local open, elements = {}, 0
  for close, name, attributes in text:gmatch "<(/?)(%a+)([^<>]*)>" do
    elements = elements + 1
    if close == "/" then
      assert.is_equal(name, table.remove(open))
    elseif not attributes:find "/$" then
      open[#open + 1] = name
    end
  end
  assert.same({}, open)
  assert.is_nil(text:gsub("&%a+;", ""):find "&", "a & by itself")
  return text, elements
end

local function with_picture(name, ...)
  local path = os.tmpname()
  local arguments = table.pack(...)
  table.insert(arguments, "--svg")
  table.insert(arguments, path)
  local output, code = run(name, table.unpack(arguments))
  assert.is_equal(0, code, output)
  assert.is_truthy(output:find("The picture is " .. path, 1, true))
  local text, elements = check_picture(path)
  os.remove(path)
  return text, elements
end

describe("examples/descent.lua", function()
  it("finds all four minima of its default", function()
    local output, code = run "descent"
    assert.is_equal(0, code, output)
    -- Himmelblau's function: one minimum at (3, 2), the others to the digits of its literature
    for _, at in ipairs {
      "(3.00000000, 2.00000000)", "(-2.80511809, 3.13131252)",
      "(-3.77931025, -3.28318599)", "(3.58442834, -1.84812653)",
    } do
      assert.is_truthy(output:find(at, 1, true), at)
    end
    assert.is_nil(output:find "picture")
  end)

  it("takes a formula, starts and a number of steps", function()
    local output, code = run("descent", "cosh(x - 1) + abs(y)^2", "--start", "3,2")
    assert.is_equal(0, code, output)
    assert.is_truthy(output:find "%(1%.0000%d+, %-?0%.0000%d+%)%s+1 ")
    output = run("descent", "x^2 + 100*y^2", "--start", "3,2", "--steps", "1")
    assert.is_truthy(output:find " 1\n$")
  end)

  it("draws contours and paths", function()
    local text, elements = with_picture "descent"
    assert.is_true(elements > 100)
    assert.is_truthy(text:find("f(x, y) = (x^2", 1, true))
    with_picture("descent", "where(x < 0 , 1, 2) * (x^2 + y^2)", "--start", "-1,2")
    with_picture("descent", "x - log(x) + y^2", "--start", "3,1") -- NaN left of 0
  end)

  it("says what is wrong with a formula", function()
    local output, code = run("descent", "x +* y")
    assert.is_equal(1, code)
    assert.is_truthy(output:find "^descent: formula:1: .-\nusage: ")
    output, code = run("descent", "x + nothing")
    assert.is_equal(1, code)
    assert.is_truthy(output:find "nothing")
    assert.is_nil(output:find "traceback")
    local _, wrong = run("descent", "--start", "1")
    assert.is_equal(1, wrong)
  end)
end)

describe("examples/arm.lua", function()
  it("reaches every target", function()
    local output, code = run "arm"
    assert.is_equal(0, code, output)
    local targets, worst = output:match "(%d+) targets, .- largest error (%S+),"
    assert.is_equal("121", targets)
    assert.is_true(tonumber(worst) <= 1e-10)
  end)

  it("takes other arms, and draws them", function()
    local text = with_picture("arm", "3", "2", "1", "--points", "40")
    assert.is_truthy(text:find("An arm of 3 links", 1, true))
    with_picture("arm", "1", "1")
    local output, code = run("arm", "1", "-1")
    assert.is_equal(1, code)
    assert.is_truthy(output:find "usage: ")
  end)
end)

describe("examples/damper.lua", function()
  it("stops the bouncing, with less load", function()
    local output, code = run "damper"
    assert.is_equal(0, code, output)
    local load0, lifts0 = output:match "before%s+peak load (%S+) g.-ground (%d+) times"
    local load1, lifts1 = output:match "after%s+peak load (%S+) g.-ground (%d+) times"
    assert.is_true(tonumber(lifts0) >= 1)
    assert.is_equal("0", lifts1)
    assert.is_true(tonumber(load1) < tonumber(load0))
    -- the gradient at the end is nearly 0
    local gradient
    for g in output:gmatch "\n +%d+ +%S+ +(%S+) " do gradient = tonumber(g) end
    assert.is_true(gradient < 1e-4)
  end)

  it("draws both runs, at other speeds too", function()
    local text = with_picture "damper"
    assert.is_truthy(text:find "height / m" and text:find "load / g")
    with_picture("damper", "4")
    local _, code = run("damper", "0")
    assert.is_equal(1, code)
  end)
end)

describe("examples/newton.lua", function()
  local output, code = run "newton"

  it("gets all digits of three problems", function()
    assert.is_equal(0, code, output)
    local tables = 0
    for rows in output:gmatch "step length(\n.-)\n\n" do
      tables = tables + 1
      local digits
      for d in rows:gmatch "\n +%d+ +%S+ +%S+ +%S+ +(%S+)" do digits = tonumber(d) end
      assert.is_true(digits > 14.5)
    end
    assert.is_equal(3, tables)
  end)

  it("doubles the digits with every step", function()
    local rows, digits = output:match "step length(\n.-)\n\n", {}
    for d in rows:gmatch "\n +%d+ +%S+ +%S+ +%S+ +(%S+)" do digits[#digits + 1] = tonumber(d) end
    -- between the first good model and the last digit of a double
    for i = 2, #digits do
      if digits[i - 1] > 1 and digits[i] < 15 then
        assert.is_true(digits[i] > 1.8 * digits[i - 1])
      end
    end
    assert.is_true(#digits <= 9)
  end)

  it("starts elsewhere", function()
    local other, status = run("newton", "3", "-2")
    assert.is_equal(0, status, other)
    local _, wrong = run("newton", "a", "b")
    assert.is_equal(1, wrong)
  end)
end)

describe("examples/layer.lua", function()
  it("finds the orbit, within a few standard deviations", function()
    local output, code = run "layer"
    assert.is_equal(0, code, output)
    for _, name in ipairs { "size", "eccentricity", "period", "direction", "passage" } do
      local truth, fitted, deviation = output:match(name .. " +(%S+) +%S+ +(%S+) +(%S+)\n")
      assert.is_true(math.abs(truth - fitted) < 4 * deviation, name)
      assert.is_true(tonumber(deviation) < 0.05, name)
    end
    assert.is_truthy(output:find "against differences: right\n")
  end)

  it("finds it exactly without noise, and draws it", function()
    local output = run("layer", "--noise", "0")
    assert.is_truthy(output:find "eccentricity +0%.60000 +0%.20000 +0%.60000 +0%.00000\n")
    with_picture("layer", "--noise", "0.02", "--seed", "7")
    local _, code = run("layer", "--noise", "much")
    assert.is_equal(1, code)
  end)
end)

describe("examples/greeks.lua", function()
  it("agrees with the closed forms to the last digits", function()
    local output, code = run "greeks"
    assert.is_equal(0, code, output)
    local rows = 0
    for line in output:gmatch "[^\n]+" do
      local difference = line:match "^%l[%l ]+ %a+ +%S+ +%S+ +(%d%S+)$"
      if difference then
        rows = rows + 1
        assert.is_true(tonumber(difference) < 1e-12, line)
      end
    end
    assert.is_equal(16, rows)
    assert.is_true(tonumber(output:match "relative difference: (%S+)") < 1e-12)
  end)

  it("has put-call parity's delta and prices other options", function()
    -- deep in the money: the price of a forward, delta 1
    local output, code = run("greeks", "200", "50", "1", "0", "0.1")
    assert.is_equal(0, code, output)
    assert.is_truthy(output:find "price%s+150\n" and output:find "delta +S +1 ")
    for _, wrong in ipairs { { "1" }, { "1", "2", "3", "4", "-5" }, { "a", "b", "c", "d", "e" } } do
      local _, status = run("greeks", table.unpack(wrong))
      assert.is_equal(1, status)
    end
  end)
end)

describe("every example", function()
  it("has a usage and rejects unknown options", function()
    for _, name in ipairs { "descent", "arm", "damper", "newton", "layer", "greeks" } do
      local output, code = run(name, "--help")
      assert.is_equal(0, code, output)
      assert.is_truthy(output:find("^usage: lua5.4 examples/" .. name .. "%.lua"), name)
      output, code = run(name, "--unknown", "x")
      assert.is_equal(1, code)
      assert.is_truthy(output:find("^" .. name .. ": unknown option '%-%-unknown'\nusage: "), name)
    end
  end)
end)
