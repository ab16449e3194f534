--- Nonlinear least squares by Levenberg and Marquardt's method.
--
-- J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory",
-- Lecture Notes in Mathematics 630, 1978: steps by QR, scaling by the columns
-- of the Jacobian. H. B. Nielsen, "Damping parameter in Marquardt's method",
-- report IMM-REP-1999-05, Technical University of Denmark. M. K. Transtrum and
-- J. P. Sethna, "Improvements to the Levenberg-Marquardt algorithm for
-- nonlinear least-squares minimization", arXiv:1201.5885: the correction by
-- the curvature along the step.
local dense = require "autodiff.dense"
local vector = require "autodiff.optim.vector"

local least = {}

least.allowed = {
  jacobian = "callable", gtol = "nonnegative", ftol = "nonnegative", xtol = "nonnegative",
  max_iterations = "count", max_evaluations = "count", callback = "callable",
  progress = "progress", damping = "positive", accelerate = "boolean", refine = "boolean",
}
least.defaults = {
  gtol = 1e-12, ftol = 0.0, xtol = 1e-12, max_iterations = 10000, max_evaluations = math.huge,
  damping = 1e-3, accelerate = true, refine = true,
}

local EPSILON = 2.0 ^ -52

-- How much the correction may bend the step: the value that Transtrum and
-- Sethna recommend.
local BEND = 0.75

-- Gauss-Newton steps at the end; a convergence so slow that they do not
-- suffice has shown that before.
local REFINEMENTS = 50

local function squares(list)
  local sum = 0.0
  for i = 1, #list do sum = sum + list[i] * list[i] end
  return sum
end

local function moved(x, h)
  local list = {}
  for j = 1, #x do list[j] = x[j] + h[j] end
  return list
end

local function scaled(list, c)
  local new = {}
  for i = 1, #list do new[i] = c * list[i] end
  return new
end

local function finite(x) return x - x == 0 end

local function allfinite(rows)
  for _, row in ipairs(rows) do
    for _, x in ipairs(row) do
      if not finite(x) then return false end
    end
  end
  return true
end

-- The largest norm so far of each column: it makes the method blind to the
-- units of x, and keeps it from stepping far where a column has just become
-- small (Moré, section 5).
local function updatescale(scale, jacobian, n)
  for j = 1, n do
    scale[j] = math.max(scale[j] or 0.0, dense.columnnorm(jacobian, j))
  end
end

local function scalednorm(scale, h)
  local largest, sum = 0.0, 0.0
  for j = 1, #h do largest = math.max(largest, math.abs(scale[j] * h[j])) end
  if largest == 0 or not finite(largest) then return largest end
  for j = 1, #h do sum = sum + (scale[j] * h[j] / largest) ^ 2 end
  return largest * math.sqrt(sum)
end

-- The h that minimizes |J h - b|^2 + damping |D h|^2, from the triangle {R | c}
-- of J and b with the rows sqrt(damping) D below it (Moré, section 3). A
-- parameter without effect stays where it is.
local function dampedstep(triangle, scale, damping)
  local n = #triangle
  local rows, right = {}, {}
  for i = 1, n do
    rows[i], right[i] = table.move(triangle[i], 1, n, 1, {}), triangle[i][n + 1]
    rows[n + i], right[n + i] = {}, 0.0
    for j = 1, i - 1 do rows[i][j] = 0.0 end -- what the reflections left is rounding
    for j = 1, n do rows[n + i][j] = 0.0 end
    rows[n + i][i] = math.sqrt(damping) * (scale[i] > 0 and scale[i] or 1.0)
  end
  return dense.backsolve(dense.qr(rows, right))
end

-- |R h|^2
local function linearchange(triangle, h)
  local sum = 0.0
  for i = 1, #h do
    local row = 0.0
    for j = i, #h do row = row + triangle[i][j] * h[j] end
    sum = sum + row * row
  end
  return sum
end

-- J'r, and the largest cosine between r and a column of J.
local function slopes(jacobian, r, n)
  local g, cosine, length = {}, 0.0, math.sqrt(squares(r))
  for j = 1, n do
    local sum = 0.0
    for i = 1, #r do sum = sum + jacobian[i][j] * r[i] end
    g[j] = sum
    local norm = dense.columnnorm(jacobian, j)
    if norm > 0 and length > 0 then cosine = math.max(cosine, math.abs(sum) / norm / length) end
  end
  return g, cosine
end

local Fit = {}
Fit.__index = Fit

-- A point at x: nil where f or its Jacobian has no finite value there, or its
-- sum of squares is not below the bound.
function Fit:point(x, bound)
  self.r.evaluations = self.r.evaluations + 1
  local p = { x = x, residuals = self.f:values(x) }
  p.squares = squares(p.residuals)
  if not finite(p.squares) or bound and not (p.squares < bound) then return nil, p end
  p.jacobian = self.f:jacobianat(x)
  self.jacobians = self.jacobians + 1
  if not allfinite(p.jacobian) then return nil, p end
  p.gradient, p.cosine = slopes(p.jacobian, p.residuals, #x)
  return p
end

-- The step of the linearized problem, and with its correction by the second
-- derivative along it, of which the linearization has missed half. The sum
-- follows a bent valley in long steps; and a correction that is not small
-- against the step says that the step leaves the region where the linear model
-- means anything: false then.
function Fit:step(p, triangle, damping)
  local scale = self.scale
  local v = dampedstep(triangle, scale, damping)
  if not self.r.opts.accelerate then return v, v end
  local missed = scaled(self.f:curvature(p.x, v), -0.5)
  if not finite(squares(missed)) then return v, false end
  local w = dampedstep(dense.qr(p.jacobian, missed), scale, damping)
  local trusted = 2 * scalednorm(scale, w) <= BEND * scalednorm(scale, v)
  return v, trusted and moved(v, w)
end

-- One iteration: the next point; or nil, and why there is none: a tolerance
-- (true), or a limit (false).
function Fit:advance(p)
  local r, scale = self.r, self.scale
  local triangle = dense.qr(p.jacobian, scaled(p.residuals, -1.0))
  while true do
    local h, step = self:step(p, triangle, self.damping)
    local length = scalednorm(scale, h)
    if not (length > math.max(r.opts.xtol, EPSILON) * scalednorm(scale, p.x)) then
      return nil, ("steps below %.14g of x"):format(math.max(r.opts.xtol, EPSILON)), true
    end
    local predicted = linearchange(triangle, h) + 2 * self.damping * length ^ 2
    if not (predicted > EPSILON ^ 2 * p.squares) then
      return nil, "no more to gain but rounding", true
    end
    local new = step and self:point(moved(p.x, step), p.squares)
    if new then
      local gain = (p.squares - new.squares) / predicted
      new.gained = math.max(gain * predicted, predicted) / p.squares
      self.damping = self.damping * math.max(1 / 3, 1 - (2 * gain - 1) ^ 3)
      self.growth = 2.0
      return new
    end
    self.damping = self.damping * self.growth
    self.growth = self.growth * 2
    local reason, converged = r:spent()
    if reason then return nil, reason, converged end
    if not finite(self.damping) then return nil, "no step gains anything", true end
  end
end

-- The undamped step, and its size against x; inf where there is none.
function Fit:newtonstep(p)
  local h = dense.backsolve(dense.qr(p.jacobian, scaled(p.residuals, -1.0)))
  for j = 1, #h do
    if not finite(h[j]) then return h, math.huge end
  end
  local size, unit = scalednorm(self.scale, h), scalednorm(self.scale, p.x)
  return h, unit > 0 and size / unit or size
end

-- Near the solution sums of squares agree in all their digits, and the damped
-- iteration ends with half of the digits of x right. The steps themselves tell
-- more: undamped ones shrink, by a constant factor if the residuals are large,
-- until they are rounding. The point from which they shrink no more, and the
-- size of the step there.
function Fit:refine(p)
  local h, size = self:newtonstep(p)
  for _ = 1, REFINEMENTS do
    if not (size < 1e-3) or size == 0 or self.r:spent() then break end
    local new = self:point(moved(p.x, h), p.squares * (1 + 1e-9) + 1e-300)
    if not new then break end
    local newh, newsize = self:newtonstep(new)
    if not (newsize < size) then break end
    p, h, size = new, newh, newsize
  end
  return p, size
end

--- Minimizes; `r` is what `run.begin` made, f the residuals.
function least.minimize(r, f)
  local layout, opts = r.layout, r.opts
  local self = setmetatable({
    r = r, scale = {}, damping = opts.damping, growth = 2.0, jacobians = 0,
    f = vector.new(r.fname, "the result", f, layout, r.like, opts.jacobian),
  }, Fit)
  local n = layout.size
  local function value(p) return 0.5 * p.squares end
  local function leaves(list) return layout:unflat(list) end

  local p, failed = self:point(layout:flat(r.start))
  local reason, converged
  if not p then
    p = failed
    p.gradient = {}
    for j = 1, n do p.gradient[j] = 0 / 0 end
    reason = finite(p.squares) and "the Jacobian is not finite at the start"
      or "the function is not finite at the start"
  end
  local stalled = false
  while not reason do
    updatescale(self.scale, p.jacobian, n)
    if p.squares == 0 then
      reason, converged = "all residuals are 0", true
    elseif p.cosine <= opts.gtol then
      reason, converged = ("residuals orthogonal to the Jacobian within %.14g"):format(opts.gtol),
        true
    else
      local new
      new, reason, stalled = self:advance(p)
      if new then
        p, stalled = new, false
        reason, converged = r:notify(leaves(p.x), value(p), leaves(p.gradient))
        if not reason and new.gained <= opts.ftol then
          reason, converged = ("the sum of squares changes by less than %.14g of itself"):format(
            opts.ftol), true
        end
        if not reason then reason, converged = r:limits() end
        -- a last point may be better than the limit lets one say
        if reason and not converged and p.squares == 0 then
          reason, converged = "all residuals are 0", true
        end
      end
    end
  end

  if (converged or stalled) and p.squares > 0 then
    local size = math.huge
    if opts.refine then p, size = self:refine(p) end
    if stalled then
      -- damping makes steps as small as one likes: they have to be small, or
      -- the residuals orthogonal or rounding, without it
      converged = size <= 1e-6 or p.cosine <= 1e-6
        or math.sqrt(p.squares) <= 1e-12 * scalednorm(self.scale, p.x)
      if not converged then reason = "no step makes the residuals smaller" end
    end
  end
  local result = r:result(leaves(p.x), value(p), leaves(p.gradient), reason, converged)
  result.jacobians = self.jacobians
  result.residuals = self.f.out:unpack(self.f.out:unflat(p.residuals))
  result.jacobian = p.jacobian
  return result
end

return least
