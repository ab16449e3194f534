-- Every public name, asked of the module itself.

local ad = require "autodiff"
local optim = require "autodiff.optim"

local names = {}

-- Fields are answered by code, so no table has them: these are compared with
-- what the values answer below.
local fields = {
  ["var.value"] = function() return ad.var(1).value end,
  ["var.grad"] = function()
    local x = ad.var(1)
    local y = x * x
    y:backward()
    return x.grad
  end,
  ["dual.value"] = function() return ad.dual(1, 2).value end,
  ["array.shape"] = function() return ad.zeros(1).shape end,
  ["array.ndim"] = function() return ad.zeros(1).ndim end,
  ["array.size"] = function() return ad.zeros(1).size end,
  ["dual.tangent"] = function() return ad.dual(1, 2).tangent end,
}

-- The methods of a value: functions with a name that is not a metamethod's, nor internal.
local function methods(set, prefix, value)
  local meta = debug.getmetatable(value)
  local index = type(meta.__index) == "table" and meta.__index or meta
  for name, v in pairs(index) do
    if type(v) == "function" and not name:find "^_" then set[prefix .. ":" .. name] = true end
  end
end

--- The set of all public names: "grad", "tape:var", "var.grad" and so on.
function names.all()
  local set = {}
  for name in pairs(ad) do set[name] = true end
  for name in pairs(ad.linalg) do set["linalg." .. name] = true end
  methods(set, "tape", ad.tape())
  methods(set, "var", ad.var(1))
  methods(set, "dual", ad.dual(1, 1))
  methods(set, "random", ad.random(1))
  methods(set, "graph", ad.graph(ad.sin, 1))
  for name in pairs(optim) do set["optim." .. name] = true end
  methods(set, "optimizer", optim.adam())
  -- Those of arrays are the functions, but for a few that are methods only.
  for name in pairs(require("autodiff.array").methods) do
    local function_too = ad.linalg[name] or name ~= "var" and ad[name]
    if not function_too then set["array:" .. name] = true end
  end
  methods(set, "compiled", ad.compile(ad.sin))
  for name, get in pairs(fields) do
    assert(get() ~= nil, name)
    set[name] = true
  end
  return set
end

function names.count(set)
  local n = 0
  for _ in pairs(set) do n = n + 1 end
  return n
end

--- Elements of `a` that are not in `b`, as text.
function names.lacking(a, b)
  local list = {}
  for name in pairs(a) do
    if b[name] == nil then list[#list + 1] = name end
  end
  table.sort(list)
  return table.concat(list, " ")
end

return names
