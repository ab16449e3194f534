--- Sparse Jacobians and Hessians of compiled functions: which entries can be
-- other than 0 is read off the program; columns that share no row are
-- multiplied at once (see src/sparse.h).
local core = require "autodiff.core"

local M = {}

-- By compiled function: what has been made for it.
local made = setmetatable({}, { __mode = "k" })

local function of(c)
  local m = made[c]
  if not m then
    m = {}
    made[c] = m
  end
  return m
end

local function numbers(x, fname)
  if type(x) ~= "table" then
    error(("bad argument #1 to '%s' (list of numbers expected, got %s)"):format(
      fname, core.type(x) or type(x)), 4)
  end
  for i = 1, #x do
    if math.type(x[i]) == nil then
      error(("bad argument #1 to '%s' (element %d: number expected, got %s)"):format(
        fname, i, core.type(x[i]) or type(x[i])), 4)
    end
  end
  return #x
end

local function checkoptions(options, fname)
  if options == nil then return {} end
  if type(options) ~= "table" then
    error(("bad argument #2 to '%s' (table expected, got %s)"):format(fname, type(options)), 4)
  end
  for k in pairs(options) do
    if k ~= "dense" and k ~= "threads" then
      error(("bad argument #2 to '%s' (unknown option '%s')"):format(fname, tostring(k)), 4)
    end
  end
  return options
end

-- The pattern of program c, made again when it has other traces. nil: there is
-- no one pattern (no program, or results of several forms).
local function pattern(c, symmetric, key)
  local m, traces = of(c), c:stats().traces
  if m[key] and m[key].traces == traces then return m[key] end
  local rows, cols, colours, row, colour, nrow, ncol, n = c:_sparsity(symmetric)
  if not rows then return nil end
  local seeds = core.array.zeros(math.max(n, 1), ncol)
  for j = 1, ncol do seeds[{ colours[j], j }] = 1 end
  m[key] = {
    traces = traces, rows = rows, cols = cols, row = row, colour = colour,
    nrow = nrow, ncol = ncol, n = n, seeds = seeds,
  }
  return m[key]
end

-- All products of the derivative of f at x with the seeds: an array, by colour.
local function products(c, f, key, x, seeds, threads)
  local m = of(c)
  if not m[key] then
    m[key] = core.compile(function(p, v)
      local _, t = core.jvp(f, { p }, { v })
      return t
    end)
  end
  return m[key]:map(x, seeds, { threads = threads or 1 })
end

local function result(p, b, options)
  local values = core.array.zeros(math.max(#p.rows, 1))
  local list = #p.rows > 0 and b:tolist() or {}
  if #p.rows > 0 and type(list[1]) ~= "table" then -- one result: no list of them
    for k = 1, #list do list[k] = { list[k] } end
  end
  if options.dense then
    local d = core.array.zeros(p.nrow, p.ncol)
    for k = 1, #p.rows do
      d[{ p.rows[k], p.cols[k] }] = list[p.colour[k]][p.row[k]]
    end
    return d
  end
  for k = 1, #p.rows do values[k] = list[p.colour[k]][p.row[k]] end
  return { rows = p.rows, cols = p.cols, values = values, colours = p.n,
    shape = { p.nrow, p.ncol } }
end

function M.jacobian(c, x, options)
  numbers(x, "jacobian")
  options = checkoptions(options, "jacobian")
  c(x)
  local p = pattern(c, false, "jacobian")
  if not p then
    error("jacobian: the function has no program, or results of several forms", 3)
  end
  local b = p.n > 0 and products(c, c:_inner(), "jvp", x, p.seeds, options.threads)
  return result(p, b, options)
end

function M.hessian(c, x, options)
  numbers(x, "hessian")
  options = checkoptions(options, "hessian")
  local m = of(c)
  if not m.grad then
    local f = c:_inner()
    m.grad = core.compile(function(v) return (core.grad(f)(v)) end)
  end
  m.grad(x)
  local p = pattern(m.grad, true, "hessian")
  if not p then
    error("hessian: the function has no program, or results of several forms", 3)
  end
  local b = p.n > 0 and products(m.grad, m.grad:_inner(), "jvp", x, p.seeds, options.threads)
  return result(p, b, options)
end

return M
