--- A differentiable `math`.
local args = require "autodiff.args"

local M = {}

-- Of names that Lua's math has only when it was built with LUA_COMPAT_MATHLIB.
-- x = m 2^e, and e is locally constant.
local function compat(ad)
  local frexp, ldexp = rawget(math, "frexp"), rawget(math, "ldexp")
  local function isvalue(x) return type(x) ~= "number" and ad.type(x) ~= nil end
  return {
    frexp = frexp and function(...)
      args.number(isvalue, 1, "frexp", ...)
      local x = (...)
      if not isvalue(x) then return frexp(x) end
      local _, e = frexp(ad.value(x))
      return x / 2.0 ^ e, e
    end,
    ldexp = ldexp and function(...)
      args.number(isvalue, 1, "ldexp", ...)
      args.number(isvalue, 2, "ldexp", ...)
      local x, e = ...
      e = ad.value(tonumber(e) or e)
      if not math.tointeger(e) then
        args.bad(2, "ldexp", "number has no integer representation")
      end
      if not isvalue(x) then return ldexp(x, math.tointeger(e)) end
      return x * 2.0 ^ e
    end,
  }
end

--- The table `ad.math`: exactly the names of Lua's `math`.
function M.math(ad)
  local t, extra = {}, compat(ad)
  for name, v in pairs(math) do
    t[name] = extra[name] or ad[name] or v
  end
  t.type = math.type -- the kinds of plain numbers
  t.random = math.random -- numbers, not a generator
  return t
end

--- `install([env])` puts `ad.math` in place of `env.math`; the function that
-- it returns puts back what was there.
function M.install(env)
  if env == nil then env = _G end
  if type(env) ~= "table" then
    error(("bad argument #1 to 'install' (table expected, got %s)"):format(type(env)), 2)
  end
  local ours = require("autodiff").math
  local before = rawget(env, "math")
  rawset(env, "math", ours)
  return function()
    -- not if somebody else has put another one there since
    if rawget(env, "math") == ours then rawset(env, "math", before) end
  end
end

return M
