--- Structures with arrays in them, as vectors of their elements.
local core = require "autodiff.core"
local prim = require "autodiff.prim"

local kernel = core.array
local M = {}

-- The key of element number e (from 1) of an array of the given shape, behind
-- `before` dimensions that are kept.
local function keyof(shape, e, before)
  local key = {}
  e = e - 1
  for d = #shape, 1, -1 do
    key[before + d] = e % shape[d] + 1
    e = e // shape[d]
  end
  for d = 1, before do key[d] = {} end
  return key
end

local merge = prim.define {
  name = "merge",
  keeps = "",
  linear = "jointly",
  f = function(at, ...) return core.merge(at.outer, at.inner, at.first, { ... }) end,
  vjp = function(i, g, at)
    local key = keyof(at.outer, i, at.first and 0 or #at.inner)
    return require "autodiff.array".index(g, key)
  end,
}

--- One array from a list of numbers, or arrays of shape `inner`, one for each
-- element of an array of shape `outer`, whose dimensions come first or last
-- (nil: no dimensions). 0 in the place of an array stands for zeros.
function M.merge(outer, inner, first, list)
  if not outer then
    local v = list[1]
    if inner and not kernel.isarray(v) then return kernel.full(inner, v) end
    return v
  end
  inner = inner or {}
  local key, kind = core.highest(list)
  if not key and not kind then return core.merge(outer, inner, first, list) end
  for i = 1, #list do
    if #inner > 0 and not kernel.isarray(list[i]) then list[i] = kernel.full(inner, list[i]) end
  end
  return merge({ outer = outer, inner = inner, first = first }, table.unpack(list))
end

local piece, place

piece = prim.define {
  name = "piece",
  keeps = "",
  linear = true,
  f = function(at, v) return core.piece(v, at.first, at.shape) end,
  vjp = function(_, g, at) return place(at, g) end,
}

place = prim.define {
  name = "place",
  keeps = "",
  linear = true,
  f = function(at, v) return core.place(at.n, at.first, v) end,
  vjp = function(_, g, at) return piece(at, g) end,
}

local flat = prim.define {
  name = "flat",
  keeps = "",
  linear = "jointly",
  f = function(_, ...) return core.flat { ... } end,
  vjp = function(i, g, at) return piece(at[i], g) end,
}

-- For each leaf of a list where it is in the vector of their elements.
local function places(list)
  local at, n = {}, 0
  for i = 1, #list do
    local shape, size = kernel.shapeof(list[i]), 1
    for d = 1, shape and #shape or 0 do size = size * shape[d] end
    at[i] = { first = n, shape = shape }
    n = n + size
  end
  for i = 1, #list do at[i].n = n end
  return at, n
end

-- Keys in an order that does not change from table to table.
local function before(a, b)
  local ta, tb = math.type(a) or type(a), math.type(b) or type(b)
  if ta ~= tb then return ta < tb end
  if type(a) == "number" or type(a) == "string" then return a < b end
  return false
end

--- The numbers and arrays of a structure in one list, in the same order for
-- all of the same form.
function M.sorted(x)
  local list = {}
  local function walk(v)
    if core.type(v) then
      list[#list + 1] = v
    elseif type(v) == "table" then
      local keys = {}
      for k in pairs(v) do keys[#keys + 1] = k end
      table.sort(keys, before)
      for _, k in ipairs(keys) do walk(v[k]) end
    end
  end
  walk(x)
  return list
end

--- The elements of a structure, or of the list of its leaves, in one array of
-- one dimension; how many they are.
function M.vector(x, list)
  list = list or core.flatten(x)
  local at, n = places(list)
  local key, kind = core.highest(list)
  if not key and not kind then return core.flat(list), n end
  return flat(at, table.unpack(list)), n
end

--- The structure of x with the elements of such a vector.
function M.structure(x, v)
  local list = core.flatten(x)
  local at = places(list)
  for i = 1, #list do list[i] = piece(at[i], v) end
  return core.unflatten(x, list)
end

--- An array of the given shape from numbers: by(e) for each array e of that
-- shape that is 0 but for one element, which is 1.
function M.build(shape, by)
  local list, n = {}, 1
  for d = 1, #shape do n = n * shape[d] end
  for e = 1, n do
    list[e] = by(core.array.putpart(shape, keyof(shape, e, 0), 1.0))
  end
  return M.merge(shape, nil, true, list)
end

return M
