-- The example program examples/fit.lua, from outside: what it finds for NIST's datasets, how it
-- takes variations of their format, and what it says about files that make no sense.

local data = "examples/data/nist/"

local names = {
  "BoxBOD", "Chwirut1", "Chwirut2", "DanWood", "Eckerle4", "Gauss1", "Gauss2", "Gauss3", "Kirby2",
  "Lanczos1", "Lanczos2", "Lanczos3", "MGH09", "MGH10", "Misra1a", "Misra1b", "Misra1c",
  "Misra1d", "Nelson", "Rat42", "Rat43", "Roszman1",
}

-- Certified values that NIST publishes and the file at hand has with a wrong digit. Roszman1.dat
-- says 1.20196866396E-0, which is too large by exactly 1: with it every one of the 25 residuals
-- is, and the residual sum of squares would be 25, not the certified 4.9E-04.
local published = {["Roszman1 b1"] = 2.0196866396E-01}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

local temporary = {}

local function write(contents)
  local path = os.tmpname()
  temporary[#temporary + 1] = path
  local file <close> = assert(io.open(path, "wb"))
  file:write(contents)
  return path
end

-- Run the program; its output, its error output, and its exit status.
local function fit(...)
  local words = {
    "LUA_PATH=" .. quote(package.path), "LUA_CPATH=" .. quote(package.cpath),
    "lua5.4", "examples/fit.lua",
  }
  for _, argument in ipairs{...} do words[#words + 1] = quote(argument) end
  local errors = write("")
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>" .. quote(errors)))
  local output = pipe:read("a")
  local _, _, status = pipe:close()
  return output, read(errors), status
end

-- The lines of --tsv output by "dataset start parameter".
local function parse(output)
  local results = {}
  for line in output:gmatch("[^\n]+") do
    local f = {}
    for field in line:gmatch("[^\t]+") do f[#f + 1] = field end
    assert.equal(7, #f, line)
    results[("%s %s %s"):format(f[1], f[2], f[3])] = {
      estimate = tonumber(f[4]), deviation = tonumber(f[5]),
      estimate_digits = tonumber(f[6]), deviation_digits = tonumber(f[7]),
    }
  end
  return results
end

-- A dataset with the first occurrence of `old` (plain text) replaced.
local function edited(name, old, new)
  local text = read(data .. name .. ".dat")
  local first, last = text:find(old, 1, true)
  assert(first, "nothing to edit: " .. old)
  return text:sub(1, first - 1) .. new .. text:sub(last + 1)
end

-- The line of the first occurrence of `what`, after the first of `after` if that is given.
local function line_of(text, what, after)
  local at = text:find(what, after and text:find(after, 1, true) or 1, true)
  local _, newlines = text:sub(1, at - 1):gsub("\n", "")
  return newlines + 1
end

after_each(function()
  for i = #temporary, 1, -1 do
    os.remove(temporary[i])
    temporary[i] = nil
  end
end)

describe("examples/fit.lua", function()
  local results, errors, status

  setup(function()
    local paths = {}
    for i, name in ipairs(names) do paths[i] = data .. name .. ".dat" end
    local output
    output, errors, status = fit("--tsv", table.unpack(paths))
    results = parse(output)
  end)

  it("fits every dataset from both starts", function()
    assert.equal(0, status, errors)
    local count = 0
    for _ in pairs(results) do count = count + 1 end
    assert.equal(2 * 89, count)
  end)

  for _, name in ipairs(names) do
    it("finds 9 digits of all that is certified for " .. name, function()
      local found = 0
      for key, r in pairs(results) do
        local dataset, parameter = key:match("^(%S+) %d (%S+)$")
        if dataset == name then
          found = found + 1
          local digits = r.estimate_digits
          local value = published[dataset .. " " .. parameter]
          if value then digits = -math.log(math.abs(r.estimate / value - 1), 10) end
          assert.is_true(digits >= 9, ("%s: %s digits"):format(key, digits))
          assert.is_true(r.deviation_digits >= 9,
            ("%s: %s digits of the standard deviation"):format(key, r.deviation_digits))
        end
      end
      assert.is_true(found >= 4)
    end)
  end

  it("prints a table for people", function()
    local output, _, code = fit(data .. "Misra1a.dat")
    assert.equal(0, code)
    for _, expected in ipairs{
      "Misra1a: 14 observations, 2 parameters", "y = b1*(1-exp[-b2*x])  +  e",
      "from start 1", "from start 2", "2.3894212918E+02", "7.2668688436E-06",
      "residual sum of squares", "1.2455138894E-01",
    } do
      assert.is_truthy(output:find(expected, 1, true), expected)
    end
  end)

  it("explains itself", function()
    local output, _, code = fit("--help")
    assert.equal(0, code)
    assert.matches("^usage: ", output)
    local nothing, complaint, failed = fit()
    assert.equal("", nothing)
    assert.matches("^usage: ", complaint)
    assert.not_equal(0, failed)
    assert.matches("^fit: unknown option '%-%-tvs'", (select(2, fit("--tvs"))))
  end)
end)

describe("examples/fit.lua reads", function()
  local function assert_fits(contents, parameters)
    local output, errors, status = fit("--tsv", write(contents))
    assert.equal("", errors)
    assert.equal(0, status)
    local count = 0
    for key, r in pairs(parse(output)) do
      count = count + 1
      assert.is_true(r.estimate_digits >= 9, key)
      assert.is_true(r.deviation_digits >= 9, key)
    end
    assert.equal(parameters, count)
  end

  it("line ends of any kind", function()
    local text = read(data .. "Misra1a.dat"):gsub("\r\n", "\n")
    assert_fits(text, 4)
    assert_fits(text:gsub("\n", "\r\n") .. "\x1A", 4)
    assert_fits("\xEF\xBB\xBF" .. text:gsub("\n+$", ""), 4)
  end)

  it("Fortran's D exponents", function()
    local text = read(data .. "Misra1a.dat"):gsub("(%d)E([-+]?%d)", "%1D%2")
    assert_fits(text, 4)
  end)

  it("tabs for spaces, and lines that have moved", function()
    assert_fits(read(data .. "Misra1a.dat"):gsub("   +", "\t"), 4)
    assert_fits(edited("Misra1a", "\nModel:", "\n\n\n\nModel:"), 4)
  end)

  it("a single column of starting values", function()
    assert_fits(read(data .. "Misra1a.dat"):gsub("(b%d =%s+%S+)%s+%S+", "%1"), 2)
  end)

  for _, case in ipairs{
    {"y = b1*(1-exp[-b2*x])  +  e", "y = b1 * (1 - EXP{-b2*x})"},
    {"y = b1*(1-exp[-b2*x])  +  e", "rate = -b2 * x\n   y = b1 *\n   (1 - exp(rate)) + e"},
    {"y = b1*(1-exp[-b2*x])  +  e", "one = 1.D0\n  y/2 = .5E+0*b1*(one - 1/exp(b2*x)^1)+e"},
    {"y = b1*(1-exp[-b2*x])  +  e", "y = - -b1*(+1-(1/exp[+b2])**x) + e"},
    {"y = b1*(1-exp[-b2*x])  +  e", "y = b1*2*sinh(b2*x/2)*exp(-b2*x/2) * cos(4*pi)"},
    {"y = b1*(1-exp[-b2*x])  +  e", "exp(log(y)) = b1 * tan(arctan(1 - exp(-b2*x))) + e"},
    {"y = b1*(1-exp[-b2*x])  +  e", "y**2 = (b1*(sqrt(exp(-b2*x))**2-1))**2", sd = false},
  } do
    it("the formula " .. case[2]:gsub("%s+", " "), function()
      if case.sd ~= false then return assert_fits(edited("Misra1a", case[1], case[2]), 4) end
      -- another response has another minimum, and the program says so
      local _, errors, status = fit("--tsv", write(edited("Misra1a", case[1], case[2])))
      assert.matches("^fit: %S+ warning: this file contradicts itself[^\n]*\n$", errors)
      assert.equal(0, status)
    end)
  end
end)

describe("examples/fit.lua refuses", function()
  -- The message must begin with the file and the line.
  local function assert_refused(contents, line, message)
    local path = write(contents)
    local output, errors, status = fit("--tsv", path)
    assert.equal("", output)
    assert.not_equal(0, status)
    local prefix = ("fit: %s:%d: "):format(path, line)
    assert.equal(prefix .. message .. "\n", errors)
  end

  it("what is no dataset", function()
    assert_refused("", 1, "not a dataset of NIST's StRD: no line 'Dataset Name:'")
    assert_refused("y x\n1 2\n", 1, "not a dataset of NIST's StRD: no line 'Dataset Name:'")
    local path = data .. "no-such-file.dat"
    local _, errors, status = fit(path)
    assert.equal(("fit: %s: cannot read the file\n"):format(path), errors)
    assert.not_equal(0, status)
  end)

  it("a file without one of the sections", function()
    for _, case in ipairs{
      {"Model:", "Modell:", "the section 'Model:'"},
      {"Starting values    ", "Values    ", "the table 'Starting values'"},
      {"Residual Sum of Squares:", "Squares:", "the certified 'Residual Sum of Squares:'"},
      {"Number of Observations:", "Observations:", "the 'Number of Observations:'"},
      {"Data:   y", "Values: y", "the table 'Data:'"},
    } do
      assert_refused(edited("Misra1a", case[1], case[2]), 74, "the file ends without " .. case[3])
    end
  end)

  it("rows that are missing, in excess, or not of numbers", function()
    local text = read(data .. "Misra1a.dat")
    local short = text:gsub("[^\n]+\n$", "")
    assert_refused(short, 73, "the file ends after 13 of 14 observations")
    assert_refused(text .. "1 2\n", 75, "more rows than the 14 observations")
    assert_refused(edited("Misra1a", "14.73E0     114.9E0", "14.73E0"), 62,
      "1 numbers in a row of 2 columns")
    assert_refused(edited("Misra1a", "Number of Observations:", "Number of Observations: 2"), 47,
      "2 observations do not determine 2 parameters")
    assert_refused(edited("Misra1a", "114.9E0", "114.9E"), 62, "'114.9E' is not a number")
    assert_refused(edited("Misra1a", "114.9E0", "nan"), 62, "'nan' is not a number")
    assert_refused(edited("Misra1a", "114.9E0", "0x10"), 62, "'0x10' is not a number")
  end)

  it("a table of parameters that does not fit", function()
    assert_refused(edited("Misra1a", "  b2 =", "  b2  "), 41,
      "2 parameters announced, but 1 in this table")
    assert_refused(edited("Misra1a", "  b2 =", "  b1 ="), 42, "parameter 'b1' a second time")
    assert_refused(edited("Misra1a", "250           2.38", "2.38"), 42,
      "2 starting values for 'b2', but 1 for 'b1'")
    assert_refused(edited("Misra1a", "500         250           2.3894212918E+02", ""), 41,
      "expected starting values, an estimate and its standard deviation for 'b1'")
  end)

  -- In Misra1a the formula is in line 34, and "y" in column 16.
  for _, case in ipairs{
    {"y = b1*(1-exp[-b2*x]  +  e",
     "expected ')' (for the '(' in line 34, column 23) after ']', where the formula ends"},
    {"y = b1*(1-exp[-b2*x))  +  e",
     "expected ']' (for the '[' in line 34, column 29) before ')' in the formula, column 35"},
    {"y = b1*(1-exp[-b2*x]))  +  e", "expected an operator before ')' in the formula, column 37"},
    {"y = b1*(1-exp[-b2*z])  +  e", "unknown name 'z' in the formula, column 34"},
    {"y = b1*(1-exp[-b2*os])  +  e", "unknown name 'os' in the formula, column 34"},
    {"y = b1*(1-load[-b2*x])  +  e", "unknown function 'load' in the formula, column 26"},
    {"y = b1*(1-exp[-b2 x])  +  e",
     "expected ']' (for the '[' in line 34, column 29) before 'x' in the formula, column 34"},
    {"y = b1*(1-exp[-b2*x]) * + ", "expected a value after '+', where the formula ends"},
    {"y = b1*()*b2*x", "expected a value before ')' in the formula, column 24"},
    {"y = b1*exp*b2*x", "unknown name 'exp' in the formula, column 23"},
    {"y = b1*(1-exp[-b2*x]); e", "unexpected ';' in the formula, column 37"},
    {"y = b1*(1-exp[-b2*\xD7])", "unexpected '\\xD7' in the formula, column 34"},
    {"y = b1*x = b2", "a second '=' in the formula, column 25"},
    {"y = b1*y + b2*x", "the response 'y' on both sides of '='"},
    {"z = b1*b2*x", "no formula for a column of the data (y, x)"},
    {"y = ", "nothing after the '=' of the formula"},
    {"y = b1*b2*x\n  y = b1*b2", "a second formula for the response", 35},
    {"b1 = 1\n  y = b1*b2*x", "'b1' already has a meaning"},
    {"y = b1*b2" .. ("("):rep(150) .. "x" .. (")"):rep(150),
     "expected an operator before '(' in the formula, column 25"},
    {"y = b1*b2*" .. ("("):rep(150) .. "x" .. (")"):rep(150),
     "the formula is nested more than 100 deep"},
    {"no equation", "no formula follows 'Model:'", 31},
    {"y = b1*x", "parameter 'b2' is not in the formula", 42},
  } do
    it("the formula " .. case[1]:sub(1, 30):gsub("%s+", " "), function()
      assert_refused(edited("Misra1a", "y = b1*(1-exp[-b2*x])  +  e", case[1]), case[3] or 34,
        case[2])
    end)
  end

  it("starting values from where there is no way", function()
    local text = edited("Misra1a", "y = b1*(1-exp[-b2*x])", "y = b1*sqrt(-b2*x)")
    assert_refused(text, line_of(text, "b1 =", "Start 1"),
      "from starting values 1: the function is not finite at the start; "
      .. "from starting values 2: the function is not finite at the start")
  end)

  it("one file and still fits the others", function()
    local path = write("nothing\n")
    local output, errors, status = fit("--tsv", path, data .. "Misra1a.dat", path)
    assert.not_equal(0, status)
    assert.equal(2, select(2, errors:gsub("no line 'Dataset Name:'", "")))
    assert.is_truthy(parse(output)["Misra1a 2 b2"])
  end)

  it("to believe a certified value that contradicts the others", function()
    local path = write(edited("Misra1a", "2.3894212918E+02", "2.3984212918E+02"))
    local _, errors, status = fit("--tsv", path)
    assert.equal(0, status)
    assert.matches("warning: this file contradicts itself", errors)
  end)
end)
