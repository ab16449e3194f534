-- Nonlinear least squares: the library's Levenberg-Marquardt method to get to the solution, and
-- Gauss-Newton with residuals in double-double arithmetic to get all of its digits.
--
-- A problem is a table of functions of the parameters:
--     residuals(b)  observed minus model, a list of numbers
--     jacobian(b)   derivatives of the model, a list of rows
--     precise(b)    the residuals as double-doubles, for parameters that are double-doubles

local optim = require "autodiff.optim"
local dense = require "autodiff.dense"
local dd = require "dd"

local least_squares = {}

local max_iterations = 10000
local max_polish = 20

local function moved(b, h)
  local list = {}
  for j = 1, #b do list[j] = b[j] + h[j] end
  return list
end

-- A residual that is much smaller than the data (Lanczos1: 1e-13 of it) has few correct digits in
-- doubles, and the standard deviations, which are proportional to the residuals, have no more. So
-- data, parameters and model get twice the digits for the end. The Jacobian, which only directs the
-- steps, stays in doubles: this is iterative refinement.
local function evaluate_precisely(problem, b)
  local precise = problem.precise(b)
  local residuals, squares = {}, dd.from(0.0)
  for i, r in ipairs(precise) do
    residuals[i] = dd.tonumber(r)
    squares = squares + r * r
  end
  local rounded = {}
  for j, x in ipairs(b) do rounded[j] = dd.tonumber(x) end
  local triangle = dense.qr(problem.jacobian(rounded), residuals)
  return {
    b = b, rounded = rounded, squares = squares,
    triangle = triangle, step = dense.backsolve(triangle),
  }
end

local function less(a, b)
  return dd.tonumber(a - b) < 0
end

-- Gauss-Newton once more, where sums of squares can tell an improvement.
local function polish(problem, start)
  local b = {}
  for j, x in ipairs(start) do b[j] = dd.from(x) end
  local point = evaluate_precisely(problem, b)
  for _ = 1, max_polish do
    local next_point = evaluate_precisely(problem, moved(point.b, point.step))
    if not less(next_point.squares, point.squares) then break end
    point = next_point
  end
  return point
end

-- The diagonal of (J'J)^-1 = R^-1 R^-T, that is the squared norms of the rows of R^-1.
local function inverse_diagonal(triangle)
  local n = #triangle
  local diagonal = {}
  for i = 1, n do diagonal[i] = 0.0 end
  for column = 1, n do
    local unit = {}
    for i = 1, n do
      unit[i] = table.move(triangle[i], 1, n, 1, {})
      unit[i][n + 1] = i == column and 1.0 or 0.0
    end
    local x = dense.backsolve(unit)
    for i = 1, n do diagonal[i] = diagonal[i] + x[i] * x[i] end
  end
  return diagonal
end

local function settled(result, step)
  for j, x in ipairs(result.estimates) do
    local unit = math.max(math.abs(x), result.deviations[j])
    if not (math.abs(step[j]) <= 1e-8 * unit) then return false end
  end
  return true
end

--- Fit from one set of starting values.
-- @param problem  see above
-- @param start    list of numbers
-- @return a table with `estimates`, `deviations` (their standard deviations), `sum_of_squares` and
--   `iterations`; or nil and a message
function least_squares.fit(problem, start)
  local near = optim.least_squares(problem.residuals, start, {max_iterations = max_iterations})
  if not near.converged then return nil, near.reason end
  local point = polish(problem, near.x)
  local result = {
    estimates = point.rounded, deviations = {}, iterations = near.iterations,
    sum_of_squares = dd.tonumber(point.squares),
  }
  local freedom = #near.residuals - #start
  for j, d in ipairs(inverse_diagonal(point.triangle)) do
    result.deviations[j] = math.sqrt(result.sum_of_squares / freedom * d)
  end
  if not settled(result, point.step) then return nil, "no convergence to a minimum" end
  return result
end

return least_squares
