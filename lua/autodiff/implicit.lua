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
local dense = require "autodiff.dense"
local jacobian = require "autodiff.jacobian".jacobian

-- LU factors in place; the permutation of the rows.
local function factored(lu)
  local perm = dense.lu(lu)
  if not perm then error("implicit: the Jacobian of f by x is singular at the solution", 0) end
  return perm
end

-- The solution of such a system for arrays of one dimension, as an operation with rules: loaded
-- when it is needed.
local function vectorsolve()
  local op
  op = require "autodiff.prim".define {
    name = "implicit_solve",
    keeps = "",
    linear = true,
    f = function(at, b)
      local how = at.transposed and dense.lusolvetransposed or dense.lusolve
      return core.array.plain(how(at.lu, at.perm, core.array.tolist(b)))
    end,
    vjp = function(_, g, at)
      return op({ lu = at.lu, perm = at.perm, transposed = not at.transposed }, g)
    end,
  }
  vectorsolve = function() return op end
  return op
end

-- Does any of these values carry derivatives?
local function active(...) return core.highest(...) ~= nil end

-- The same as below where x is an array or a structure with arrays: the
-- equations and unknowns are put into vectors.
local function arrays(f, theta, n, x0)
  local leaves = require "autodiff.leaves"
  local start, size = leaves.vector(x0)
  local function residual(v)
    local x = leaves.structure(x0, v)
    local given = f(x, table.unpack(theta, 1, n))
    local r, m = leaves.vector(given, leaves.sorted(given))
    if m ~= size then
      error(("implicit: f must return as many numbers as x has (%d)"):format(size), 0)
    end
    return r
  end
  local r = residual(start)
  if size == 0 or not active(r) then return x0 end
  local lu = core.array.tolist(core.stop(jacobian(residual)(start)))
  local at = { lu = lu, perm = factored(lu) }
  local x = start
  for step = 1, core.order() do
    if step > 1 then r = residual(x) end
    local y = x - vectorsolve()(at, r)
    x = y - core.stop(y) + start -- the primal stays what solve has found
  end
  return leaves.structure(x0, x)
end

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
    if core.array.isarray(x0) or (type(x0) == "table" and core.arraysin(x0)) then
      return arrays(f, theta, n, x0)
    end
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
    local perm = factored(lu)
    for step = 1, core.order() do
      if step > 1 then r = residual(x) end
      local dx, new = dense.lusolve(lu, perm, r), {}
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
