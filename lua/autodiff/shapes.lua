--- Arrays in other shapes: the same elements.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local check = require "autodiff.arrayargs"

local kernel = core.array
local define, shapeof = prim.define, prim.shapeof
local badarg, text = core.badarg, check.shapetext

local M = {}

local reshape, transpose, flip, permuted

reshape = define {
  name = "reshape",
  keeps = "",
  linear = true,
  f = function(shape, x) return kernel.reshape(x, shape) end,
  vjp = function(_, g, _, _, x) return reshape(shapeof(x) or {}, g) end,
}

transpose = define {
  name = "transpose",
  keeps = "",
  linear = true,
  f = function(axes, x) return kernel.transpose(x, axes) end,
  vjp = function(_, g, axes)
    local back = {}
    for d = 1, #axes do back[axes[d]] = d end
    return transpose(back, g)
  end,
}

flip = define {
  name = "flip",
  keeps = "",
  linear = true,
  f = function(axes, x) return kernel.flip(x, axes) end,
  vjp = function(_, g, axes) return flip(axes, g) end,
}

-- permute: at = {axis = , positions = plain array, back = }, along one axis.
local permute = define {
  name = "permute",
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.permute(x, at.axis, at.positions, at.back) end,
  vjp = function(_, g, at)
    return permuted({ axis = at.axis, positions = at.positions, back = not at.back }, g)
  end,
}

-- Values of batches are permuted by positions of the same batches.
function permuted(at, x)
  local positions = at.positions
  if core.highest(positions) or core.highest(core.stop(x)) then
    at = { axis = at.axis, positions = core.where(1, positions, core.stop(x)), back = at.back }
    x = core.where(1, x, positions)
  end
  return permute(at, x)
end

-- For other files.
M.reshaped, M.transposed, M.permuted = reshape, transpose, permuted

--
-- Public
--

local copied = prim.plainly("copy", function(_, x) return kernel.copy(x) end)

--- The same values in an array of its own.
function M.copy(...)
  local a = check.array(1, "copy", ...)
  return core.highest(a) and a or copied(nil, a)
end

-- A shape from argument n: a list, or integers to the last argument.
local function shapearg(n, name, ...)
  local first = (select(n, ...))
  if first == nil then badarg(n, name, check.got("shape", n, ...)) end
  if type(first) == "table" then return check.integers(first, n, name, "shape") end
  return check.integers({ select(n, ...) }, n, name, "shape")
end

function M.reshape(...)
  local a = check.array(1, "reshape", ...)
  local shape = shapearg(2, "reshape", ...)
  local from, unknown, size = shapeof(a), nil, 1
  for d = 1, #shape do
    if shape[d] == -1 then
      if unknown then badarg(2, "reshape", "shape: more than one length is -1") end
      unknown = d
    elseif shape[d] < 0 then
      badarg(2, "reshape", ("shape: bad length %d"):format(shape[d]))
    else
      size = size * shape[d]
    end
  end
  if #shape > 8 then badarg(2, "reshape", "at most 8 dimensions") end
  local have = check.size(from)
  if unknown and size ~= 0 and have % size == 0 then
    shape[unknown] = have // size
    size = have
  end
  if size ~= have or (unknown and shape[unknown] < 0) then
    core.fail(("reshape: shapes %s and %s do not fit"):format(text(from), text(shape)))
  end
  return reshape(shape, a)
end

function M.transpose(...)
  local a = check.array(1, "transpose", ...)
  local ndim, axes = #shapeof(a), {}
  if (select(2, ...)) == nil then
    for d = 1, ndim do axes[d] = ndim + 1 - d end
  else
    local given = (select(2, ...))
    if type(given) ~= "table" then given = { select(2, ...) } end
    axes = check.axes(given, ndim, 2, "transpose")
    if #axes ~= ndim then
      badarg(2, "transpose", ("%d axes for an array of %d dimensions"):format(#axes, ndim))
    end
  end
  return transpose(axes, a)
end

function M.squeeze(...)
  local a = check.array(1, "squeeze", ...)
  local shape, axis, rest, gone = shapeof(a), (select(2, ...)), {}, {}
  if axis ~= nil then
    for _, d in ipairs(check.axes(axis, #shape, 2, "squeeze")) do
      if shape[d] ~= 1 then
        badarg(2, "squeeze", ("axis %d of shape %s has not length 1"):format(d, text(shape)))
      end
      gone[d] = true
    end
  end
  for d = 1, #shape do
    if axis ~= nil and not gone[d] or shape[d] ~= 1 then rest[#rest + 1] = shape[d] end
  end
  return reshape(rest, a)
end

function M.expand_dims(...)
  local a = check.array(1, "expand_dims", ...)
  local shape, axis = shapeof(a), (select(2, ...))
  local ndim = #shape + (type(axis) == "table" and #axis or 1)
  if ndim > 8 then badarg(2, "expand_dims", "at most 8 dimensions") end
  local new, k = {}, 0
  if axis == nil then badarg(2, "expand_dims", check.got("axis", 2, ...)) end
  for _, d in ipairs(check.axes(axis, ndim, 2, "expand_dims")) do new[d] = 1 end
  for d = 1, ndim do
    if not new[d] then
      k = k + 1
      new[d] = shape[k]
    end
  end
  return reshape(new, a)
end

function M.flip(...)
  local a = check.array(1, "flip", ...)
  return flip(check.axes((select(2, ...)), #shapeof(a), 2, "flip"), a)
end

return M
