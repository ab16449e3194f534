--- Argument checks with the texts of Lua's own auxiliary library, for the
-- functions of autodiff that are written in Lua.
local args = {}

local function typename(v)
  local mt = getmetatable(v)
  local name = type(mt) == "table" and rawget(mt, "__name")
  return type(name) == "string" and name or type(v)
end

--- Raises "bad argument" for a function of ours that `level` 2 above called.
function args.error(n, fname, message)
  error(("bad argument #%d to '%s' (%s)"):format(n, fname, message), 4)
end

local function expected(n, fname, what, v, given)
  args.error(n, fname, ("%s expected, got %s"):format(what, given and typename(v) or "no value"))
end

function args.callable(f, n, fname)
  if type(f) == "function" then return f end
  local mt = getmetatable(f)
  if type(mt) == "table" and mt.__call ~= nil then return f end
  expected(n, fname, "function", f, f ~= nil)
end

function args.table(t, n, fname)
  if type(t) ~= "table" then expected(n, fname, "table", t, t ~= nil) end
  return t
end

--- An integer of at least `least`; `default` when it is nil.
function args.integer(v, n, fname, least, default)
  if v == nil and default ~= nil then return default end
  if type(v) ~= "number" then expected(n, fname, "number", v, v ~= nil) end
  local i = math.tointeger(v)
  if not i then args.error(n, fname, "number has no integer representation") end
  if i < least then args.error(n, fname, ("must be at least %d"):format(least)) end
  return i
end

return args
