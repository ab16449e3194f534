--- Broadcasting, and its transpose: sums over what was broadcast along.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local check = require "autodiff.arrayargs"

local kernel = core.array
local define, shapeof = prim.define, prim.shapeof

local M = {}

local sumto, broadcast

sumto = define {
  name = "sum_to",
  keeps = "",
  linear = true,
  f = function(shape, x) return kernel.sumto(x, shape or {}) end,
  vjp = function(_, g, _, _, x) return broadcast(shapeof(x), g) end,
}

broadcast = define {
  name = "broadcast_to",
  keeps = "",
  linear = true,
  f = function(shape, x) return kernel.broadcast(x, shape) end,
  vjp = function(_, g, _, _, x) return sumto(shapeof(x), g) end,
}

M.to = broadcast

--- v in a shape (nil: a number): summed over the dimensions that the shape was
-- broadcast along to become v's, or broadcast to it.
function M.toshape(v, want)
  local have = shapeof(v)
  if have == nil and want == nil then return v end
  if have and want and check.same(have, want) then return v end
  if not have then return broadcast(want, v) end
  local sums = not want or #want < #have
  for d = 1, not sums and #have == #want and #want or 0 do
    sums = sums or want[d] == 1 and have[d] ~= 1
  end
  if sums then return sumto(want, v) end
  return broadcast(want, v)
end

--- v in the shape of x (which may be a number).
function M.like(v, x) return M.toshape(v, shapeof(x)) end

--- `broadcast_to(x, shape)`, of an array or a number.
function M.broadcast_to(...)
  local x, shape = ...
  if core.type(x) == nil then
    core.badarg(1, "broadcast_to", check.got("array or number", 1, ...))
  end
  if type(shape) ~= "table" then shape = { select(2, ...) } end
  shape = check.integers(shape, 2, "broadcast_to", "shape")
  if #shape == 0 then core.badarg(2, "broadcast_to", "an array has at least one dimension") end
  if #shape > 8 then core.badarg(2, "broadcast_to", "at most 8 dimensions") end
  for d = 1, #shape do
    if shape[d] < 0 then
      core.badarg(2, "broadcast_to", ("shape: bad length %d"):format(shape[d]))
    end
  end
  return broadcast(shape, x)
end

return M
