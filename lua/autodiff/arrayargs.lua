--- Argument checks of the functions of arrays. Where the error points is for
-- the core to find out: these functions call each other, and may be methods.
local core = require "autodiff.core"

local kernel = core.array
local badarg = core.badarg

local check = {}

function check.typename(v)
  local mt = getmetatable(v)
  local name = type(mt) == "table" and rawget(mt, "__name")
  return core.type(v) == "array" and "array" or type(name) == "string" and name or type(v)
end

function check.got(what, n, ...)
  if n > select("#", ...) then return what .. " expected, got no value" end
  return ("%s expected, got %s"):format(what, check.typename((select(n, ...))))
end

--- Argument n, an array or an AD value of one.
function check.array(n, name, ...)
  local a = (select(n, ...))
  if not kernel.isarray(a) then badarg(n, name, check.got("array", n, ...)) end
  return a
end

function check.shapetext(shape)
  return "(" .. table.concat(shape, ", ") .. ")"
end

function check.size(shape)
  local size = 1
  for d = 1, #shape do size = size * shape[d] end
  return size
end

function check.same(s, t)
  if #s ~= #t then return false end
  for d = 1, #s do
    if s[d] ~= t[d] then return false end
  end
  return true
end

--- Does a shape broadcast to another?
function check.broadcasts(s, t)
  for d = 0, #s - 1 do
    if s[#s - d] ~= 1 and s[#s - d] ~= t[#t - d] then return false end
  end
  return #s <= #t
end

function check.integer(v, n, name, ...)
  if type(v) ~= "number" then badarg(n, name, check.got("integer", n, ...)) end
  return math.tointeger(v) or badarg(n, name, "number has no integer representation")
end

--- The integers of a list, in a new one.
function check.integers(list, n, name, what)
  local new = {}
  for i = 1, #list do
    local v = list[i]
    if type(v) ~= "number" then
      badarg(n, name, ("%s: integer expected, got %s"):format(what, check.typename(v)))
    end
    new[i] = math.tointeger(v)
      or badarg(n, name, what .. ": number has no integer representation")
  end
  return new
end

--- An axis of argument n, from 1; `default` when it is nil.
function check.axis(axis, ndim, default, n, name)
  if axis == nil then return default end
  if type(axis) ~= "number" then
    badarg(n, name, "axis expected, got " .. check.typename(axis))
  end
  local i = math.tointeger(axis) or badarg(n, name, "number has no integer representation")
  if i == 0 or i > ndim or i < -ndim then
    badarg(n, name, ("no axis %d in an array of %d dimensions"):format(i, ndim))
  end
  return i > 0 and i or ndim + 1 + i
end

--- The axes of argument n, one or a list of them; all when it is nil.
function check.axes(axis, ndim, n, name)
  local axes, seen = {}, {}
  if axis == nil then
    for d = 1, ndim do axes[d] = d end
  elseif type(axis) == "table" then
    for i = 1, #axis do
      axes[i] = check.axis(axis[i], ndim, nil, n, name)
        or badarg(n, name, "axis expected, got nil")
      if seen[axes[i]] then badarg(n, name, ("axis %d is there twice"):format(axes[i])) end
      seen[axes[i]] = true
    end
  else
    axes[1] = check.axis(axis, ndim, nil, n, name)
  end
  return axes
end

return check
