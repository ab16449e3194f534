--- Operations on arrays: the kernels of the core, each with its rules.
local core = require "autodiff.core"
local prim = require "autodiff.prim"

local kernel = core.array
local define, shapeof, zeroslike = prim.define, prim.shapeof, prim.zeroslike

local M = { methods = {} }

local unpack = table.unpack

local function sameshape(s, t)
  if s == nil or t == nil then return s == t end
  if #s ~= #t then return false end
  for i = 1, #s do
    if s[i] ~= t[i] then return false end
  end
  return true
end

--
-- Broadcasting and its transpose
--

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

--- v in a shape (nil: a number): summed over the dimensions that the shape was
-- broadcast along to become v's, or broadcast to it.
function M.toshape(v, want)
  local have = shapeof(v)
  if sameshape(have, want) then return v end
  local summed = have and (not want or #want < #have)
  if have and want then
    for i = 1, math.min(#have, #want) do
      summed = summed or (want[#want + 1 - i] == 1 and have[#have + 1 - i] ~= 1)
    end
  end
  if summed then return sumto(want, v) end
  return broadcast(want, v)
end

--- v in the shape of x (which may be a number).
function M.like(v, x) return M.toshape(v, shapeof(x)) end

--
-- Parts
--

local putpart

local getpart = define {
  name = "index",
  keeps = "",
  linear = true,
  f = function(key, x) return kernel.getpart(x, key) end,
  vjp = function(_, g, key, _, x) return putpart({ shapeof(x), key }, g) end,
}

putpart = define {
  name = "put",
  keeps = "",
  linear = true,
  f = function(at, g) return kernel.putpart(at[1], at[2], g) end,
  vjp = function(_, g, at) return getpart(at[2], g) end,
}

--- x[key], for AD values.
function M.index(x, key)
  if type(key) == "table" then -- the caller may go on to change it
    local own = {}
    for i = 1, #key do
      local k = key[i]
      own[i] = type(k) == "table" and { unpack(k) } or k
    end
    key = own
  end
  return getpart(key, x)
end

--- Nested lists of numbers and AD values.
local stacked = define {
  name = "array",
  keeps = "",
  linear = "jointly",
  f = function(_, ...) return kernel.plain { ... } end,
  vjp = function(i, g) return g[i] end,
}

local function nested(v)
  if type(v) ~= "table" then return v end
  local parts = {}
  for i = 1, #v do parts[i] = nested(v[i]) end
  return stacked(nil, unpack(parts))
end

function M.array(v)
  return kernel.plain(v) or nested(v)
end

for name, f in pairs {
  tolist = kernel.tolist,
  copy = kernel.copy,
} do
  M.methods[name] = f
end

return M
