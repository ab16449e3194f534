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
  if not core.highest(list) then return core.merge(outer, inner, first, list) end
  for i = 1, #list do
    if #inner > 0 and not kernel.isarray(list[i]) then list[i] = kernel.full(inner, list[i]) end
  end
  return merge({ outer = outer, inner = inner, first = first }, table.unpack(list))
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
