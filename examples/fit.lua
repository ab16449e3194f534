-- Nonlinear regression with exact derivatives, checked against NIST.
--
--     lua5.4 examples/fit.lua [--tsv] FILE...
--
-- Reads the files of NIST's Statistical Reference Datasets for nonlinear regression (some are in
-- examples/data/nist), translates the model from the formula that the file gives to its human
-- readers, fits it from each of the file's starting points, and counts how many digits agree with
-- the values that NIST certifies.
--
-- Nobody has written a derivative for any of these models: the formula becomes a Lua function at
-- run time, and `autodiff` differentiates that: once for the Jacobian, and twice along the step for
-- the curvature that tells how far the step can be trusted.

local directory = arg[0]:match("^(.*[/\\])") or ""
package.path = directory .. "fit/?.lua;" .. package.path

local ad = require "autodiff"
local dense = require "autodiff.dense"
local dd = require "dd"
local formula = require "formula"
local least_squares = require "least_squares"
local mistake = require "mistake"
local strd = require "strd"

local usage = [[
usage: lua5.4 fit.lua [--tsv] FILE...

  Fits NIST StRD datasets for nonlinear regression and compares with the certified values.

  --tsv  one line per parameter, separated by tabs: dataset, start, parameter, estimate,
         standard deviation, correct digits of the estimate, and of the standard deviation
]]

-- The certified values are given to 11 digits, so nothing can agree to more.
local certified_digits = 11

--- Log relative error: about the number of correct significant digits (B. D. McCullough,
-- "Assessing the reliability of statistical software", The American Statistician 52, 1998).
local function correct_digits(value, certified)
  local err = math.abs(value - certified)
  if certified ~= 0 then err = err / math.abs(certified) end
  if err == 0 then return certified_digits end
  if err ~= err then return 0 end
  return math.max(0, math.min(certified_digits, -math.log(err, 10)))
end

---------------------------------------------------------------------------------------------------
-- From a dataset to a problem
---------------------------------------------------------------------------------------------------

-- What a formula can call when it is evaluated on numbers and, for derivatives, on AD values.
local function differentiable()
  local arithmetic = {number = function(text) return tonumber(text) + 0.0 end}
  for _, name in ipairs(formula.function_names) do arithmetic[name] = ad[name] end
  return arithmetic
end

local function map(list, f)
  local result = {}
  for i, x in ipairs(list) do result[i] = f(x) end
  return result
end

-- The dataset with one kind of number: the observed values, and the function from parameters to the
-- values that the model predicts.
local function instantiate(dataset, source, arithmetic)
  local response, model = formula.load(source, arithmetic)
  local rows = map(dataset.rows, function(row) return map(row, arithmetic.number) end)
  local function predict(b)
    return map(rows, function(row) return model(b, row) end)
  end
  return map(rows, response), predict
end

local function subtract(a, b)
  local list = {}
  for i = 1, #a do list[i] = a[i] - b[i] end
  return list
end

local function make_problem(dataset)
  local source = formula.translate(dataset)
  local observed, predict = instantiate(dataset, source, differentiable())
  local observed_dd, predict_dd = instantiate(dataset, source, dd)
  return {
    residuals = function(b) return subtract(observed, predict(b)) end,
    precise = function(b) return subtract(observed_dd, predict_dd(b)) end,
    jacobian = ad.jacobian(predict),
  }
end

local function read_dataset(path)
  local file <close> = io.open(path, "rb")
  local contents = file and file:read("a") -- nil for a directory, too
  if not contents then mistake.raise(nil, "cannot read the file") end
  return strd.parse(contents)
end

---------------------------------------------------------------------------------------------------
-- Output
---------------------------------------------------------------------------------------------------

local tsv = {heading = function() end}

function tsv.fit(dataset, start, result)
  for j, parameter in ipairs(dataset.parameters) do
    local estimate, deviation = result.estimates[j], result.deviations[j]
    print(("%s\t%d\t%s\t%.15g\t%.15g\t%.2f\t%.2f"):format(
      dataset.name, start, parameter.name, estimate, deviation,
      correct_digits(estimate, parameter.estimate),
      correct_digits(deviation, parameter.deviation)))
  end
end

local text = {}

function text.heading(dataset)
  print(("%s: %d observations, %d parameters"):format(
    dataset.name, #dataset.rows, #dataset.parameters))
  local indent = #dataset.model[1].text:match("^%s*")
  for _, source in ipairs(dataset.model) do
    local blank = source.text:match("^%s*"):sub(indent + 1)
    print("    " .. blank .. source.text:match("^%s*(.-)%s*$"))
  end
end

function text.fit(dataset, start, result)
  print(("  from start %d, after %d steps %29s  digits    standard deviation  digits"):format(
    start, result.iterations, "estimate"))
  for j, parameter in ipairs(dataset.parameters) do
    local estimate, deviation = result.estimates[j], result.deviations[j]
    print(("    %-24s %26.10E  %6.1f  %20.10E  %6.1f"):format(
      parameter.name, estimate, correct_digits(estimate, parameter.estimate),
      deviation, correct_digits(deviation, parameter.deviation)))
  end
  print(("    %-24s %26.10E  %6.1f"):format("residual sum of squares", result.sum_of_squares,
    correct_digits(result.sum_of_squares, dataset.sum_of_squares)))
end

-- The certified values have a residual sum of squares too, and where it is not the certified one
-- even with what rounding to 11 digits can do, a digit in the file is wrong: this says so instead
-- of letting the fit look wrong.
local function warn_if_contradictory(path, dataset, task)
  local certified = map(dataset.parameters, function(p) return p.estimate end)
  local jacobian, sum, slack = task.jacobian(certified), 0.0, math.sqrt(dataset.sum_of_squares)
  for j, x in ipairs(certified) do
    slack = slack + 1e-9 * math.abs(x) * dense.columnnorm(jacobian, j)
  end
  for _, r in ipairs(task.residuals(certified)) do sum = sum + r * r end
  if not (math.sqrt(sum) <= 1.001 * slack) then
    io.stderr:write(("fit: %s: warning: this file contradicts itself: with its certified values "
      .. "the residual sum of squares is %.10E, not %.10E\n"):format(
      path, sum, dataset.sum_of_squares))
  end
end

---------------------------------------------------------------------------------------------------
-- Command line
---------------------------------------------------------------------------------------------------

local function fit_dataset(path, report)
  local dataset = read_dataset(path)
  local task = make_problem(dataset)
  local failures = {}
  report.heading(dataset)
  for start = 1, #dataset.parameters[1].starts do
    local b = map(dataset.parameters, function(p) return tonumber(p.starts[start]) + 0.0 end)
    local result, message = least_squares.fit(task, b)
    if result then
      report.fit(dataset, start, result)
    else
      failures[#failures + 1] = ("from starting values %d: %s"):format(start, message)
    end
  end
  if #failures > 0 then
    mistake.raise(dataset.parameters[1].line, "%s", table.concat(failures, "; "))
  end
  warn_if_contradictory(path, dataset, task)
end

-- An error of the file's becomes a message; one of the program's own keeps its traceback.
local function explain(path)
  return function(err)
    if mistake.is(err) then
      return ("%s:%s %s"):format(path, err.line and err.line .. ":" or "", err.message)
    end
    return debug.traceback(err, 2)
  end
end

local function fit_file(path, report)
  local ok, message = xpcall(fit_dataset, explain(path), path, report)
  if not ok then io.stderr:write("fit: ", message, "\n") end
  return ok
end

local function main(arguments)
  local report, paths = text, {}
  for _, argument in ipairs(arguments) do
    if argument == "--tsv" then
      report = tsv
    elseif argument == "--help" then
      io.write(usage)
      return true
    elseif argument:find("^%-%-") then
      io.stderr:write("fit: unknown option '", argument, "'\n", usage)
      return false
    else
      paths[#paths + 1] = argument
    end
  end
  if #paths == 0 then
    io.stderr:write(usage)
    return false
  end
  local ok = true
  for _, path in ipairs(paths) do ok = fit_file(path, report) and ok end
  return ok
end

os.exit(main(arg), true)
