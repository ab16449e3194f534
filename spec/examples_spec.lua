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

-- Those that need linear algebra.
local lapack = select(2, require("autodiff.core").array.blas())
local solving = lapack and it or function(name)
  pending(name .. ": there is no LAPACK (Debian: libopenblas0)")
end

describe("examples/logistic.lua", function()
  -- R: summary(glm(Species == "virginica" ~ ., binomial, iris[51:150, ]))
  solving("has the estimates and standard errors of R's glm", function()
    local output, code = run "logistic"
    assert.is_equal(0, code, output)
    for _, want in ipairs {
      { "%(intercept%)", -42.638, 25.708, 0.0972 }, { "sepal length", -2.465, 2.394, 0.3032 },
      { "sepal width", -6.681, 4.480, 0.1359 }, { "petal length", 9.429, 4.737, 0.0465 },
      { "petal width", 18.286, 9.743, 0.0605 },
    } do
      local estimate, deviation, p =
        output:match("\n" .. want[1] .. " +(%S+) +(%S+) +%S+ +(%S+)\n")
      assert.is_true(math.abs(estimate - want[2]) < 6e-4, want[1])
      assert.is_true(math.abs(deviation - want[3]) < 6e-4, want[1])
      assert.is_equal(want[4], tonumber(p))
    end
    assert.is_truthy(output:find "98 of 100 are")
    assert.is_truthy(output:find "against differences: right\n")
  end)

  solving("draws the flowers and what divides them", function()
    local text, elements = with_picture "logistic"
    assert.is_true(elements > 100)
    assert.is_truthy(text:find "versicolor" and text:find "petal length / cm")
    local output, code = run("logistic", "more")
    assert.is_equal(1, code)
    assert.is_truthy(output:find "^logistic: unexpected 'more'\nusage: ")
  end)
end)

describe("examples/gp.lua", function()
  solving("finds the noise that NIST certifies, without a formula", function()
    local output, code = run "gp"
    assert.is_equal(0, code, output)
    local noise = tonumber(output:match "noise that was found: (%S+)\n")
    local certified = tonumber(output:match "certified residual standard deviation: (%S+)\n")
    assert.is_equal(2.3318, certified)
    assert.is_true(math.abs(noise / certified - 1) < 0.05, tostring(noise))
    assert.is_truthy(output:find "gradient below")
    assert.is_truthy(output:find "against differences: right\n")
  end)

  solving("draws what it expects, of other files too", function()
    local text = with_picture("gp", "--file", "examples/data/nist/Misra1a.dat")
    assert.is_truthy(text:find("Misra1a.dat", 1, true))
  end)

  it("says what is wrong with a file", function()
    local output, code = run("gp", "--file", "examples/data/nist/Nelson.dat") -- two predictors
    assert.is_equal(1, code)
    assert.is_truthy(output:find("^gp: examples/data/nist/Nelson%.dat: no data with one predictor"))
    output, code = run("gp", "--file", "nowhere.dat")
    assert.is_equal(1, code)
    assert.is_truthy(output:find "^gp: nowhere%.dat: No such file")
  end)
end)

describe("examples/digits.lua", function()
  local path = os.tmpname()
  teardown(function() os.remove(path) end)

  local function write(text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
  end

  local function refuses(message, ...)
    local output, code = run("digits", ...)
    assert.is_equal(1, code, output)
    assert.is_truthy(output:find("^digits: .-" .. message), output)
    assert.is_nil(output:find "traceback")
  end

  it("learns to read most of what it has not seen", function()
    local output, code = run("digits", "--epochs", "8")
    assert.is_equal(0, code, output)
    assert.is_truthy(output:find "^2000 images to learn from, 500 for the test; 13258 weights\n")
    local learnt, test = output:match "\n  8  loss %S+   right: +(%S+) %% .- (%S+) %% of the test\n"
    assert.is_true(tonumber(learnt) > 92, learnt)
    assert.is_true(tonumber(test) > 88, test)
    assert.is_nil(output:find "\r") -- the bar is for terminals
    -- the confusion matrix has the test's 500 images, and as many on its diagonal as were right
    local all, right = 0, 0
    for i, row in output:gmatch "\n +(%d) ([ .%d]+)" do
      local j = 0
      for cell in row:gmatch "%S+" do
        local n = tonumber(cell) or 0
        all, right, j = all + n, right + (j == tonumber(i) and n or 0), j + 1
      end
    end
    assert.is_equal(500, all)
    assert.is_equal(test, ("%.1f"):format(right / 5))
  end)

  it("is the same for a seed, and takes other networks", function()
    local options = { "--epochs", "1", "--hidden", "8", "--batch", "333", "--rate", "0.01" }
    local function untimed(...)
      return (run("digits", ...)):gsub("[%d.]+ s\n", "")
    end
    local output = untimed(table.unpack(options))
    assert.is_truthy(output:find "; 1666 weights\n")
    assert.is_equal(output, untimed(table.unpack(options)))
    table.move({ "--seed", "2" }, 1, 2, #options + 1, options)
    assert.are_not.equal(output, untimed(table.unpack(options)))
  end)

  it("draws the learning curve and the confusion matrix", function()
    local text, elements = with_picture("digits", "--epochs", "2")
    assert.is_true(elements > 130)
    assert.is_truthy(text:find("columns: what was read", 1, true))
    with_picture("digits", "--epochs", "1", "--hidden", "2")
  end)

  it("reads lines of pixels and a digit", function()
    -- a bright column for each of three digits
    local lines = {}
    for k = 0, 59 do
      local digit = k % 3
      lines[#lines + 1] = ("%d,%d,%d,%d\n"):format(digit == 0 and 16 or k % 2,
        digit == 1 and 16 or k % 2, digit == 2 and 16 or k % 2, digit)
    end
    write("a,b,c,digit\n" .. table.concat(lines))
    local output, code = run("digits", "--csv", path, "--epochs", "60", "--batch", "12")
    assert.is_equal(0, code, output)
    assert.is_truthy(output:find "^48 images to learn from, 12 for the test; ")
    assert.is_truthy(output:find "\n 60 .-100%.0 %% .-100%.0 %% of the test\n")
  end)

  it("says what is wrong with a file of lines", function()
    write "1,2,3\n1,2\n"
    refuses("the lines have different lengths", "--csv", path)
    write "\n"
    refuses("no images", "--csv", path)
    write(("1,2,3\n"):rep(4))
    refuses("fewer than 5 images", "--csv", path)
    write(("1,2,3\n"):rep(5) .. "1,2,10\n")
    refuses("image 6 is said to be 10", "--csv", path)
    refuses("nowhere: No such file", "--csv", "nowhere")
  end)

  it("says what is wrong with MNIST's files", function()
    local images = "examples/data/digits/test-images.idx3"
    local labels = "examples/data/digits/test-labels.idx1"
    refuses("%-%-images needs %-%-labels", "--images", images)
    refuses("%-%-labels needs %-%-images", "--labels", labels)
    refuses("not an IDX file of images", "--images", labels, "--labels", labels)
    refuses("not an IDX file of labels", "--images", images, "--labels", images)
    refuses("2000 labels for 500 images", "--images", images,
      "--labels", "examples/data/digits/train-labels.idx1")
    refuses("nowhere: No such file", "--images", images, "--labels", "nowhere")
    write "\0\0\8\3\0\0\0\5\0\0\0\2\0\0\0\2only"
    refuses("its size is not what it says", "--images", path, "--labels", labels)
    write "\0\0\8"
    refuses("not an IDX file of images", "--images", path, "--labels", labels)
  end)

  it("wants whole numbers where there are no others", function()
    refuses("%-%-epochs must be a whole number above 0", "--epochs", "0")
    refuses("%-%-batch must be a whole number above 0", "--batch", "1.5")
    refuses("the seed must be an integer", "--seed", "0.5")
    refuses("%-%-rate must be above 0", "--rate", "-1")
  end)
end)

describe("every example", function()
  it("has a usage and rejects unknown options", function()
    for _, name in ipairs {
      "descent", "arm", "damper", "newton", "layer", "greeks", "digits", "gp", "logistic",
    } do
      local output, code = run(name, "--help")
      assert.is_equal(0, code, output)
      assert.is_truthy(output:find("^usage: lua5.4 examples/" .. name .. "%.lua"), name)
      output, code = run(name, "--unknown", "x")
      assert.is_equal(1, code)
      assert.is_truthy(output:find("^" .. name .. ": unknown option '%-%-unknown'\nusage: "), name)
    end
  end)
end)
