-- Nonlinear least squares: Levenberg-Marquardt to get near the solution, Gauss-Newton to get to it,
-- and the same with residuals in double-double arithmetic to get all of its digits.
--
-- A problem is a table of functions of the parameters:
--     residuals(b)     observed minus model, a list of numbers
--     jacobian(b)      derivatives of the model, a list of rows
--     curvature(b, v)  second derivatives of the model along v, a list
--     precise(b)       the residuals as double-doubles, for parameters that are double-doubles

local dd = require "dd"

local least_squares = {}

local max_iterations = 10000
local max_polish = 20
local max_bend = 0.75 -- the value that Transtrum and Sethna recommend
local epsilon = 2.0^-52

local function finite(x)
  return x - x == 0
end

local function sum_of_squares(list)
  local sum = 0.0
  for i = 1, #list do sum = sum + list[i] * list[i] end
  return sum
end

---------------------------------------------------------------------------------------------------
-- Linear least squares
---------------------------------------------------------------------------------------------------

-- Of column j from row `from` on; the squares of single elements may overflow.
local function column_norm(a, j, from)
  local largest = 0.0
  for i = from, #a do largest = math.max(largest, math.abs(a[i][j])) end
  if largest == 0 or not finite(largest) then return largest end
  local sum = 0.0
  for i = from, #a do sum = sum + (a[i][j] / largest)^2 end
  return largest * math.sqrt(sum)
end

-- The Householder reflection that clears column j below its diagonal, applied to the columns from j
-- to `width`.
local function reflect(a, j, width)
  local norm = column_norm(a, j, j)
  if norm == 0 then return end
  if a[j][j] > 0 then norm = -norm end -- the sign without cancellation in a[j][j] - norm
  local v = {}
  for i = j, #a do v[i] = a[i][j] / norm end
  v[j] = v[j] - 1
  for column = j, width do
    local dot = 0.0
    for i = j, #a do dot = dot + v[i] * a[i][column] end
    local factor = dot / v[j]
    for i = j, #a do a[i][column] = a[i][column] + factor * v[i] end
  end
end

-- The triangle R and c = the first rows of Q'r of the QR factorization, as rows {R | c}. It works
-- with the condition of the Jacobian, where normal equations would square it.
local function factorize(jacobian, residuals)
  local a, n = {}, #jacobian[1]
  for i, row in ipairs(jacobian) do
    a[i] = table.move(row, 1, n, 1, {})
    a[i][n + 1] = residuals[i]
  end
  for j = 1, n do reflect(a, j, n + 1) end
  return table.move(a, 1, n, 1, {})
end

-- Solve R h = c.
local function back_substitute(triangle)
  local n = #triangle
  local h = {}
  for i = n, 1, -1 do
    local sum = triangle[i][n + 1]
    for j = i + 1, n do sum = sum - triangle[i][j] * h[j] end
    h[i] = sum / triangle[i][i]
  end
  return h
end

-- The h that minimizes |r - J h|^2 + damping |D h|^2: the triangle with the rows sqrt(damping) D
-- below it is factorized once more (Moré 1978, section 3).
local function damped_step(triangle, scale, damping)
  local n = #triangle
  local rows, right = {}, {}
  for i = 1, n do
    rows[i], right[i] = table.move(triangle[i], 1, n, 1, {}), triangle[i][n + 1]
    rows[n + i], right[n + i] = {}, 0.0
    for j = 1, i - 1 do rows[i][j] = 0.0 end -- what the reflections left there is rounding
    for j = 1, n do rows[n + i][j] = i == j and math.sqrt(damping) * scale[i] or 0.0 end
  end
  return back_substitute(factorize(rows, right))
end

-- |R h|^2
local function linear_change(triangle, h)
  local sum = 0.0
  for i = 1, #h do
    local row = 0.0
    for j = i, #h do row = row + triangle[i][j] * h[j] end
    sum = sum + row * row
  end
  return sum
end

---------------------------------------------------------------------------------------------------
-- Levenberg-Marquardt
---------------------------------------------------------------------------------------------------

-- Scaling by the columns of the Jacobian makes the method blind to the units of the parameters, and
-- the largest norm so far keeps it from stepping far where a column has just become small (J. J.
-- Moré, "The Levenberg-Marquardt algorithm: implementation and theory", Lecture Notes in
-- Mathematics 630, 1978).
local function update_scale(scale, jacobian)
  for j = 1, #jacobian[1] do
    scale[j] = math.max(scale[j] or 0.0, column_norm(jacobian, j, 1))
    if scale[j] == 0 then scale[j] = 1.0 end
  end
end

local function scaled_norm(scale, list)
  local sum = 0.0
  for j = 1, #list do sum = sum + (scale[j] * list[j])^2 end
  return math.sqrt(sum)
end

local function moved(b, h)
  local list = {}
  for j = 1, #b do list[j] = b[j] + h[j] end
  return list
end

local function all_finite(rows)
  for _, row in ipairs(rows) do
    for _, x in ipairs(row) do
      if not finite(x) then return false end
    end
  end
  return true
end

-- One point of the iteration: nil where the model or its derivatives overflow or have no value,
-- which to the caller is a step that went too far.
local function evaluate(problem, b, bound)
  local residuals = problem.residuals(b)
  local squares = sum_of_squares(residuals)
  if not finite(squares) or bound and squares >= bound then return nil end
  local jacobian = problem.jacobian(b)
  if not all_finite(jacobian) then return nil end
  return {b = b, residuals = residuals, squares = squares, jacobian = jacobian}
end

-- The step v of the linearized problem, and its correction w by the model's curvature along v: half
-- the second derivative is what the linearization missed (M. K. Transtrum and J. P. Sethna,
-- "Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares minimization",
-- arXiv:1201.5885). The sum follows a bent valley, as MGH10's, in long steps; and a correction that
-- is not small against the step says that the step leaves the region where the model is understood,
-- as BoxBOD's first would, onto a plateau from where nothing leads back.
local function accelerated_step(problem, point, triangle, scale, damping)
  local v = damped_step(triangle, scale, damping)
  local missed = problem.curvature(point.b, v)
  for i = 1, #missed do missed[i] = -0.5 * missed[i] end
  local w = damped_step(factorize(point.jacobian, missed), scale, damping)
  local trusted = 2 * scaled_norm(scale, w) <= max_bend * scaled_norm(scale, v)
  return v, trusted and moved(v, w)
end

-- Minimize from `start` on. The damping follows the ratio of the actual to the predicted reduction
-- by the smooth rule of H. B. Nielsen, "Damping parameter in Marquardt's method", report
-- IMM-REP-1999-05, Technical University of Denmark.
local function levenberg_marquardt(problem, start)
  local point = evaluate(problem, start)
  if not point then return nil, "the model has no finite value at the starting values" end
  local scale, damping, growth = {}, 1e-3, 2.0
  local iterations = 0
  while true do
    update_scale(scale, point.jacobian)
    local triangle = factorize(point.jacobian, point.residuals)
    local next_point
    repeat
      iterations = iterations + 1
      if iterations > max_iterations then return nil, "no convergence" end
      local h, step = accelerated_step(problem, point, triangle, scale, damping)
      local length = scaled_norm(scale, h)
      -- Also the way out where rounding alone keeps any step from being an improvement.
      if not (length > epsilon * scaled_norm(scale, point.b)) then return point, iterations end
      local predicted = linear_change(triangle, h) + 2 * damping * length^2
      if not (predicted > epsilon^2 * point.squares) then return point, iterations end
      next_point = step and evaluate(problem, moved(point.b, step), point.squares)
      if next_point then
        local gain = (point.squares - next_point.squares) / predicted
        damping = damping * math.max(1 / 3, 1 - (2 * gain - 1)^3)
        growth = 2.0
      else
        damping = damping * growth
        growth = growth * 2
      end
    until next_point
    point = next_point
  end
end

---------------------------------------------------------------------------------------------------
-- The last digits
---------------------------------------------------------------------------------------------------

-- Near the solution sums of squares of doubles agree in all their digits, and the damped iteration
-- stops with half the digits of the parameters right. The steps themselves tell more: undamped ones
-- shrink, by a constant factor if the residuals are large (0.65 for ENSO), until they are rounding.
local function gauss_newton(problem, b)
  local scale, last = {}, nil
  while true do
    local jacobian = problem.jacobian(b)
    update_scale(scale, jacobian)
    local step = back_substitute(factorize(jacobian, problem.residuals(b)))
    local size = scaled_norm(scale, step)
    if not (size < (last or 1e-3 * scaled_norm(scale, b))) then return b end
    b, last = moved(b, step), size
  end
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
  local triangle = factorize(problem.jacobian(rounded), residuals)
  return {
    b = b, rounded = rounded, squares = squares,
    triangle = triangle, step = back_substitute(triangle),
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
    local x = back_substitute(unit)
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
  local near, iterations = levenberg_marquardt(problem, start)
  if not near then return nil, iterations end
  local point = polish(problem, gauss_newton(problem, near.b))
  local result = {
    estimates = point.rounded, deviations = {}, iterations = iterations,
    sum_of_squares = dd.tonumber(point.squares),
  }
  local freedom = #near.residuals - #start
  for j, d in ipairs(inverse_diagonal(point.triangle)) do
    result.deviations[j] = math.sqrt(result.sum_of_squares / freedom * d)
  end
  if not settled(result, point.step) then return nil, "no convergence to a minimum" end
  return result
end

--- Norm of column j of a list of rows.
function least_squares.column_norm(rows, j)
  return column_norm(rows, j, 1)
end

return least_squares
