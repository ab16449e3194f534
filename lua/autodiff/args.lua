--- Argument checks with the texts of Lua's own auxiliary library, for the
-- functions of autodiff that are written in Lua. Each takes the number of
-- the argument, the name of the function, and all of its arguments, and is
-- called by that function itself: errors get the position of its caller.
local core = require "autodiff.core"

local args = {}

local function typename(v)
  local mt = getmetatable(v)
  local name = type(mt) == "table" and rawget(mt, "__name")
  return type(name) == "string" and name or type(v)
end

local function bad(n, fname, message)
  error(("bad argument #%d to '%s' (%s)"):format(n, fname, message), 4)
end

local function got(what, n, ...)
  if n > select("#", ...) then return what .. " expected, got no value" end
  return ("%s expected, got %s"):format(what, typename((select(n, ...))))
end

--- Can the value be called?
args.iscallable = core.iscallable

--- Raises an error about an argument.
function args.bad(n, fname, message)
  bad(n, fname, message)
end

function args.callable(n, fname, ...)
  if not args.iscallable((select(n, ...))) then bad(n, fname, got("function", n, ...)) end
end

function args.table(n, fname, ...)
  if type((select(n, ...))) ~= "table" then bad(n, fname, got("table", n, ...)) end
end

--- A number, a string like one, or what `isvalue` says is one of ours.
function args.number(isvalue, n, fname, ...)
  local v = (select(n, ...))
  if not (isvalue(v) or tonumber(v)) then bad(n, fname, got("number", n, ...)) end
end

--- A structure: anything but nil will do, its leaves are looked at later.
function args.any(n, fname, ...)
  if (select(n, ...)) == nil then bad(n, fname, got("number or table", n, ...)) end
end

--- An integer from `least` to `most`; `default` when it is absent or nil.
function args.integer(least, most, default, n, fname, ...)
  local v = (select(n, ...))
  if v == nil and default ~= nil then return default end
  if type(v) ~= "number" then bad(n, fname, got("number", n, ...)) end
  local i = math.tointeger(v)
  if not i then bad(n, fname, "number has no integer representation") end
  if i < least or i > most then
    bad(n, fname, ("must be from %d to %d"):format(least, most))
  end
  return i
end

--- A field of the table at argument 1 that must be callable.
function args.field(def, name, fname)
  local v = def[name]
  if not args.iscallable(v) then
    bad(1, fname, ("field '%s': function expected, got %s"):format(name, typename(v)))
  end
  return v
end

return args
