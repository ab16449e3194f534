--- Solutions of equations, differentiated by the implicit function theorem.
--
-- If x0 solves f(x, θ) = 0 at the plain values of θ, and J is the plain
-- Jacobian of f by x there, then the chord step x - J⁻¹ f(x, θ), taken with
-- f on the values that are being differentiated, leaves the primal where it
-- is and makes the derivatives of x exact to one more order: the first step
-- is the implicit function theorem, dx = -J⁻¹ f_θ dθ, and each further one
-- adds a term of its expansion. It needs no rule for any mode, and what f
-- closes over is differentiated like θ itself.
local core = require "autodiff.core"
local args = require "autodiff.args"
local jacobian = require "autodiff.jacobian".jacobian

-- LU factors of a square matrix (list of rows) with partial pivoting, in
-- place; the permutation of the rows.
local function factor(a)
  local n, perm = #a, {}
  for i = 1, n do perm[i] = i end
  for k = 1, n do
    local p = k
    for i = k + 1, n do
      if core.abs(a[i][k]) > core.abs(a[p][k]) then p = i end
    end
    a[k], a[p] = a[p], a[k]
    perm[k], perm[p] = perm[p], perm[k]
    if not (core.abs(a[k][k]) > 0) then
      error("implicit: the Jacobian of f by x is singular at the solution", 0)
    end
    for i = k + 1, n do
      local m = a[i][k] / a[k][k]
      a[i][k] = m
      for j = k + 1, n do a[i][j] = a[i][j] - m * a[k][j] end
    end
  end
  return perm
end

local function solve(lu, perm, b)
  local n, x = #lu, {}
  for i = 1, n do
    x[i] = b[perm[i]]
    for j = 1, i - 1 do x[i] = x[i] - lu[i][j] * x[j] end
  end
  for i = n, 1, -1 do
    for j = i + 1, n do x[i] = x[i] - lu[i][j] * x[j] end
    x[i] = x[i] / lu[i][i]
  end
  return x
end

-- Does any of these values carry derivatives?
local function active(...) return core.highest(...) ~= nil end

--- `implicit{f=, solve=}`
local function implicit(...)
  args.table(1, "implicit", ...)
  local def = (...)
  local f, solver = args.field(def, "f", "implicit"), args.field(def, "solve", "implicit")

  return function(...)
    local n = select("#", ...)
    local theta, plain = { ... }, {}
    for i = 1, n do plain[i] = core.stop(theta[i]) end
    local x0 = core.stop(solver(table.unpack(plain, 1, n)))
    local scalar = core.type(x0) ~= nil
    if not scalar and type(x0) ~= "table" then
      error(("implicit: solve must return a number or a list, got %s"):format(type(x0)), 0)
    end

    -- f as a function from list to list
    local function residual(x)
      local r
      if scalar then
        r = { (f(x[1], table.unpack(theta, 1, n))) }
      else
        r = f(x, table.unpack(theta, 1, n))
      end
      if type(r) ~= "table" or #r ~= #x then
        error(("implicit: f must return as many numbers as x has (%d)"):format(#x), 0)
      end
      return r
    end

    local x, start = scalar and { x0 } or x0, scalar and { x0 } or x0
    local r = residual(x)
    if not active(r) then return x0 end
    local lu = core.stop(jacobian(residual)(start))
    local perm = factor(lu)
    for step = 1, core.order() do
      if step > 1 then r = residual(x) end
      local dx, new = solve(lu, perm, r), {}
      for i = 1, #x do
        local y = x[i] - dx[i]
        -- the primal stays what solve has found
        new[i] = y - core.stop(y) + start[i]
      end
      x = new
    end
    if scalar then return x[1] end
    return x
  end
end

return implicit
