--- A differentiable `math`.
local M = {}

-- Of names that Lua's math has only when it was built with LUA_COMPAT_MATHLIB.
local function compat(ad)
  return {
    -- x = m 2^e, and e is locally constant
    frexp = function(x)
      local m, e = math.frexp(ad.value(x))
      if type(x) == "number" then return m, e end
      return x / 2.0 ^ e, e
    end,
    ldexp = function(x, e)
      if type(x) == "number" then return math.ldexp(x, e) end
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
