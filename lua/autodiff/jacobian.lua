--- Jacobians, Hessians and derivatives of higher order.
local core = require "autodiff.core"
local args = require "autodiff.args"

local M = {}

-- As many arguments as grad tells apart.
local MAXARGS = 250

-- n! is no float above this.
local MAXORDER = 170

-- Directions that one forward pass carries at once.
local CHUNK = 8

local function checkcall(fname, argnum, n)
  if argnum > n then
    error(("bad argument #2 to '%s' (no argument %d: called with %d)"):format(fname, argnum, n), 3)
  end
end

-- Number of elements.
local function size(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

-- Calls visit(leaf, element) for all elements of `n` leaves, of which those in
-- `shapes` are arrays.
local function each(n, shapes, visit)
  for i = 1, n do
    local shape = shapes and shapes[i]
    for e = 1, shape and size(shape) or 1 do visit(i, e) end
  end
end

-- The Jacobian from `vectors`, one list of leaves for each element of the
-- result (`byrow`) or of the argument: blocks of numbers and arrays. `nouter`
-- and `ninner` are the numbers of leaves.
local function assemble(y, yshapes, x, xshapes, vectors, byrow, base, nouter, ninner)
  local merge = require "autodiff.leaves".merge
  local none = {}
  local outer, inner = yshapes or none, xshapes or none
  if not byrow then outer, inner = inner, outer end
  local data, at = {}, 0
  for i = 1, nouter do
    local count = outer[i] and size(outer[i]) or 1
    data[i] = {}
    for j = 1, ninner do
      local list = {}
      for e = 1, count do list[e] = vectors[at + e][j] end
      data[i][j] = merge(outer[i], inner[j], byrow, list)
    end
    at = at + count
  end
  return core.assemble(y, x, data, byrow, base)
end

-- Number of leaves in a structure that has their numbers in their places.
local function count(skeleton)
  if type(skeleton) ~= "table" then return skeleton and 1 or 0 end
  local n = 0
  for _, v in pairs(skeleton) do n = n + count(v) end
  return n
end

--- Forward mode: chunks of directions, one run of f for each.
local function byforward(fname, f, argnum, ...)
  local columns, first = {}, 1
  while true do
    local y, chunk, x, total, yshapes, xshapes =
      core.forward(fname, f, argnum, first, CHUNK, ...)
    table.move(chunk, 1, math.min(CHUNK, total - first + 1), first, columns)
    first = first + CHUNK
    if first > total then
      if not (yshapes or xshapes) then return core.assemble(y, x, columns, false, 1) end
      return assemble(y, yshapes, x, xshapes, columns, false, 1, count(x), count(y))
    end
  end
end

--- One recorded run of f, and then sweeps over its tape: one for each output,
-- or one for each chunk of inputs, whichever are fewer.
local function byrecord(rows, fname, f, argnum, ...)
  local y, m, x, n, row, columns, column, yshapes, xshapes =
    core.linear(fname, f, argnum, ...)
  local data = {}
  if yshapes or xshapes then
    local nrow, ncolumn = 0, 0
    each(m, yshapes, function() nrow = nrow + 1 end)
    each(n, xshapes, function() ncolumn = ncolumn + 1 end)
    rows = rows or nrow < ncolumn
    if rows then
      each(m, yshapes, function(i, e) data[#data + 1] = row(i, e) end)
    else
      each(n, xshapes, function(j, e) data[#data + 1] = column(j, e) end)
    end
    return assemble(y, yshapes, x, xshapes, data, rows, 0, rows and m or n, rows and n or m)
  end
  if rows or m < n then
    for i = 1, m do data[i] = row(i) end
    return core.assemble(y, x, data, true, 0)
  end
  for first = 1, n, CHUNK do
    local k = math.min(CHUNK, n - first + 1)
    table.move(columns(first, k), 1, k, first, data)
  end
  return core.assemble(y, x, data, false, 0)
end

local function byshape(...) return byrecord(false, ...) end
local function byrows(...) return byrecord(true, ...) end

local function maker(fname, how)
  return function(...)
    args.callable(1, fname, ...)
    local f, argnum = (...), args.integer(1, MAXARGS, 1, 2, fname, ...)
    return function(...)
      checkcall(fname, argnum, select("#", ...))
      return how(fname, f, argnum, ...)
    end
  end
end

--- `jacobian(f[, argnum])`: a function of f's arguments that gives J with
-- `J[i][j]` = d f_i / d x_j, the structure of x within the structure of f's
-- first result.
M.jacobian = maker("jacobian", byshape)
M.jacrev = maker("jacrev", byrows)
M.jacfwd = maker("jacfwd", byforward)

--- `hessian(f[, argnum])`: forward over reverse.
function M.hessian(...)
  args.callable(1, "hessian", ...)
  local f, argnum = (...), args.integer(1, MAXARGS, 1, 2, "hessian", ...)
  local gradient = core.grad(f, argnum)
  return function(...)
    checkcall("hessian", argnum, select("#", ...))
    return byforward("hessian", gradient, argnum, ...)
  end
end

--- `hvp(f, x, v)`: the Hessian of f at x times v, in the structure of x.
function M.hvp(...)
  args.callable(1, "hvp", ...)
  args.any(2, "hvp", ...)
  args.any(3, "hvp", ...)
  local f, x, v = ...
  local _, product = core.jvp_for("hvp", core.grad(f), { x }, { v })
  return product
end

--- `derivative(f[, n])`: the n-th derivative of a function of one number.
function M.derivative(...)
  args.callable(1, "derivative", ...)
  local f, n = (...), args.integer(0, MAXORDER, 1, 2, "derivative", ...)
  if n == 0 then
    return function(...) return (f(...)) end
  end
  local factorial = 1.0
  for k = 2, n do factorial = factorial * k end
  return function(x, ...)
    if core.type(x) == nil or core.array.isarray(x) then
      error(("bad argument #1 to 'derivative' (number expected, got %s)")
        :format(core.type(x) and "array" or type(x)), 2)
    end
    local g = f
    if select("#", ...) > 0 then
      local rest = table.pack(...)
      g = function(t) return f(t, table.unpack(rest, 1, rest.n)) end
    end
    if n == 1 then
      local _, dy = core.jvp_for("derivative", g, { x }, { 1.0 })
      return dy
    end
    return core.taylor(g, x, n)[n + 1] * factorial
  end
end

return M
