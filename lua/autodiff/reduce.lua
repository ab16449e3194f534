--- Reductions of arrays, and what is done along an axis.
--
-- The operations get `at = {axes = list, keep = boolean}`, whether the axes
-- stay as dimensions of length 1; those along an axis {axis = number}.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local check = require "autodiff.arrayargs"
local shapes = require "autodiff.shapes"
local parts = require "autodiff.parts"
local broadcast = require "autodiff.broadcast"

local kernel = core.array
local define, shapeof = prim.define, prim.shapeof
local reshape, getpart, permuted = shapes.reshaped, parts.getpart, shapes.permuted
local spread = broadcast.to
local chain, exp = core.chain, core.exp

local M = {}

-- g times a partial derivative; an exact 0 of g wins.
local function times(g, p) return chain(0.0, g, p) end

-- A result with the axes that are gone as dimensions of length 1, so that it
-- broadcasts to the operand.
local function expand(at, v)
  local rest = shapeof(v)
  if at.keep or not rest then return v end
  local gone, shape, k = {}, {}, 0
  for _, d in ipairs(at.axes) do gone[d] = true end
  for d = 1, #rest + #at.axes do
    if gone[d] then
      shape[d] = 1
    else
      k = k + 1
      shape[d] = rest[k]
    end
  end
  return reshape(shape, v)
end

-- The same axes, kept.
local function keeping(at)
  return at.keep and at or { axes = at.axes, keep = true }
end

-- How many elements each result is made of.
local function length(at, shape)
  local n = 1
  for _, d in ipairs(at.axes) do n = n * shape[d] end
  return n
end

local sum = define {
  name = "sum",
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.sum(x, at.axes, at.keep) end,
  vjp = function(_, g, at, _, x) return spread(shapeof(x), expand(at, g)) end,
}

-- Defines a reduction of which partial(at, y, x), y with the axes kept, are
-- the partial derivatives.
local function reduction(name, f, partial)
  return define {
    name = name,
    f = f,
    jvp = function(_, d, at, y, x)
      return sum(at, times(d, partial(at, expand(at, y), x)))
    end,
    vjp = function(_, g, at, y, x)
      return times(expand(at, g), partial(at, expand(at, y), x))
    end,
  }
end

-- The products of all the others along the last axis, of n elements. There is
-- no division, so zeros are no exception: the products of pairs are found
-- first, then theirs without each pair, to which the other of the pair comes.
local function byhalves(x, n, ndim)
  local function cut(v, i, j)
    local key = {}
    for d = 1, ndim - 1 do key[d] = {} end
    key[ndim] = { i, j }
    return getpart(key, v)
  end
  if n == 1 then
    local shape = shapeof(x)
    return kernel.ones(shape)
  end
  local half, odd = n // 2, n % 2 == 1
  local left, right = cut(x, 1, half), cut(x, half + 1, 2 * half)
  local pairs = left * right
  if odd then pairs = parts.concat({ pairs, cut(x, n, n) }, ndim) end
  local outside = byhalves(pairs, n - half, ndim)
  local each = odd and cut(outside, 1, half) or outside
  local list = { each * right, each * left }
  if odd then list[3] = cut(outside, half + 1, half + 1) end
  return parts.concat(list, ndim)
end

local plainothers = prim.plainly("others", function(at, x) return kernel.others(x, at.axes) end)

-- The same along any axes, made of operations where x is being differentiated.
local function others(at, x)
  if not core.highest(x) then return plainothers({ axes = at.axes }, x) end
  local shape, gone, size = shapeof(x), {}, length(at, shapeof(x))
  if check.size(shape) == 0 then return x end
  for _, d in ipairs(at.axes) do gone[d] = true end
  local axes, rows = {}, {}
  for d = 1, #shape do
    if not gone[d] then axes[#axes + 1], rows[#rows + 1] = d, shape[d] end
  end
  for d = 1, #shape do
    if gone[d] then axes[#axes + 1] = d end
  end
  local back, moved = {}, {}
  for k, d in ipairs(axes) do back[d], moved[k] = k, shape[d] end
  rows[#rows + 1] = size
  local y = byhalves(reshape(rows, shapes.transposed(axes, x)), size, #rows)
  return shapes.transposed(back, reshape(moved, y))
end

-- 1/k for each of the k elements that are the result; locally constant.
local ties = define {
  name = "ties",
  keeps = "",
  f = function(at, x, y) return kernel.ties(x, y, at.axes) end,
  jvp = function() return 0.0 end,
  vjp = function() return 0.0 end,
}

-- y where something is to be divided by it that is 0 with it: then so is the
-- quotient.
local function divisor(y, scale)
  return core.where(core.eq(y, 0), math.huge, scale and y * scale or y)
end

local prod = reduction("prod",
  function(at, x) return kernel.prod(x, at.axes, at.keep) end,
  function(at, _, x) return others(at, x) end)

local function tied(at, y, x) return ties(at, x, y) end

local max = reduction("max",
  function(at, x) return kernel.max(x, at.axes, at.keep) end, tied)
local min = reduction("min",
  function(at, x) return kernel.min(x, at.axes, at.keep) end, tied)

local norm = reduction("norm",
  function(at, x) return kernel.norm(x, at.axes, at.keep) end,
  function(_, y, x) return x / divisor(y) end)

-- The differences from the mean.
local function centred(at, x)
  return x - sum(keeping(at), x) / length(at, shapeof(x))
end

local function freedom(at, x)
  local n = length(at, shapeof(x))
  return n > at.ddof and n - at.ddof or 0.0
end

local variance = reduction("var",
  function(at, x) return kernel.var(x, at.axes, at.keep, at.ddof) end,
  function(at, _, x) return centred(at, x) * (2 / freedom(at, x)) end)

local std = reduction("std",
  function(at, x) return core.sqrt(kernel.var(x, at.axes, at.keep, at.ddof)) end,
  function(at, y, x) return centred(at, x) / divisor(y, freedom(at, x)) end)

local softmax = define {
  name = "softmax",
  keeps = "y",
  f = function(at, x) return kernel.softmax(x, at.axes) end,
  jvp = function(_, d, at, y) return y * (d - sum(keeping(at), y * d)) end,
  vjp = function(_, g, at, y) return y * (g - sum(keeping(at), y * g)) end,
}

local log_softmax = define {
  name = "log_softmax",
  keeps = "y",
  f = function(at, x) return kernel.log_softmax(x, at.axes) end,
  jvp = function(_, d, at, y) return d - sum(keeping(at), exp(y) * d) end,
  vjp = function(_, g, at, y) return g - exp(y) * sum(keeping(at), g) end,
}

-- g times softmax, without an array in between; g is a result of `at`.
local pulled
pulled = define {
  name = "softmax_times",
  f = function(at, x, g) return kernel.softmax(x, at.axes, g) end,
  jvp = function(i, d, at, y, x)
    if i == 2 then return pulled(at, x, d) end
    return y * (d - sum(keeping(at), softmax(at, x) * d))
  end,
  vjp = function(i, g, at, y, x)
    if i == 2 then return sum(at, times(g, softmax(at, x))) end
    return y * (g - sum(keeping(at), softmax(at, x) * g))
  end,
}

local logsumexp = define {
  name = "logsumexp",
  keeps = "x",
  f = function(at, x) return kernel.logsumexp(x, at.axes, at.keep) end,
  jvp = function(_, d, at, _, x) return sum(at, times(d, softmax(at, x))) end,
  vjp = function(_, g, at, _, x) return pulled(at, x, g) end,
}

-- at = {axis = , reverse = from the end}.
local cumsum
cumsum = define {
  name = "cumsum",
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.cumsum(x, at.axis, at.reverse) end,
  vjp = function(_, g, at) return cumsum({ axis = at.axis, reverse = not at.reverse }, g) end,
}

--
-- Public
--

-- at for the arguments (a, axis, keepdims), and a.
local function arguments(name, ...)
  local a = check.array(1, name, ...)
  local _, axis, keepdims = ...
  return { axes = check.axes(axis, #shapeof(a), 2, name), keep = not not keepdims }, a
end

local all = {} -- the kernels want no more axes than there are
for d = 1, 8 do all[d] = d end

for name, op in pairs {
  sum = sum, prod = prod, max = max, min = min, norm = norm, logsumexp = logsumexp,
} do
  local f = kernel[name]
  M[name] = function(...)
    local x, axis, keepdims = ...
    if axis == nil and kernel.isplain(x) then -- nothing to look at
      return f(x, all, keepdims)
    end
    local at, a = arguments(name, ...)
    return op(at, a)
  end
end

function M.mean(...)
  local at, a = arguments("mean", ...)
  return sum(at, a) / length(at, shapeof(a))
end

-- With the number that is taken off the number of elements in the divisor.
for name, op in pairs { var = variance, std = std } do
  M[name] = function(...)
    local at, a = arguments(name, ...)
    local ddof = (select(4, ...))
    if ddof ~= nil and type(ddof) ~= "number" then
      core.badarg(4, name, check.got("number", 4, ...))
    end
    at.ddof = ddof or 0
    return op(at, a)
  end
end

-- Positions do not change with the elements: these see constants only, and so
-- need no rules. (They are operations for the sake of vmap.)
local positions = {}
for name, f in pairs {
  argmax = function(at, x) return kernel.argmax(x, at.axes, at.keep) end,
  argmin = function(at, x) return kernel.argmin(x, at.axes, at.keep) end,
  argsort = function(at, x) return kernel.sort(x, at.axes[1], true) end,
} do
  positions[name] = define { name = name, keeps = "", constant = true, f = f }
end

for _, name in ipairs { "argmax", "argmin" } do
  M[name] = function(...)
    local at, a = arguments(name, ...)
    return positions[name](at, core.stop(a))
  end
end

-- The last axis, or that in the second argument.
local function along(name, ...)
  local a = check.array(1, name, ...)
  local ndim = #shapeof(a)
  return check.axis((select(2, ...)), ndim, ndim, 2, name), a
end

for name, op in pairs { softmax = softmax, log_softmax = log_softmax } do
  M[name] = function(...)
    local axis, a = along(name, ...)
    return op({ axes = { axis }, keep = true }, a)
  end
end

function M.cumsum(...)
  local axis, a = along("cumsum", ...)
  return cumsum({ axis = axis, reverse = false }, a)
end

function M.argsort(...)
  local axis, a = along("argsort", ...)
  return positions.argsort({ axes = { axis } }, core.stop(a))
end

local sorted = prim.plainly("sort", function(axis, x) return kernel.sort(x, axis, false) end)

function M.sort(...)
  local axis, a = along("sort", ...)
  if not core.highest(a) then return sorted(axis, a) end
  local order = positions.argsort({ axes = { axis } }, core.stop(a))
  return permuted({ axis = axis, positions = order, back = false }, a)
end

return M
