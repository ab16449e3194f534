--- Automatic differentiation for Lua 5.4.
--
-- `local ad = require "autodiff"` sets no global and changes no library.
-- All that computes is in the C module `autodiff.core`; the modules required
-- here say in Lua what is better said in Lua.
-- @module autodiff

-- What the loader says of a module for another Lua names whatever it misses first.
if _VERSION ~= "Lua 5.4" then
  error("autodiff is for Lua 5.4, and this is " .. _VERSION, 0)
end

local core = require "autodiff.core"

local ad = { _VERSION = "autodiff 0.1" }

-- What the core has under its public name: first the rows of the table of
-- operations, then what is no row of it.
for _, op in ipairs(core.ops()) do
  if core[op.name] and not op.internal then ad[op.name] = core[op.name] end
end
for _, name in ipairs {
  "type", "value", "dual", "var", "tape", "backward",
  "ceil", "floor", "modf", "where", "eq", "lt", "le", "softmax",
  "grad", "value_and_grad", "jvp", "linearize", "vjp", "taylor", "stop",
  "no_grad", "checkpoint", "debug_nans", "compile", "load_program",
} do
  ad[name] = assert(core[name], name)
end

local jacobian = require "autodiff.jacobian"
ad.jacobian, ad.jacfwd, ad.jacrev = jacobian.jacobian, jacobian.jacfwd, jacobian.jacrev
ad.hessian, ad.hvp, ad.derivative = jacobian.hessian, jacobian.hvp, jacobian.derivative

ad.custom = require "autodiff.custom"
ad.implicit = require "autodiff.implicit"

-- What few scripts need is loaded when it is first called (by a tail call, so
-- that its errors point at the caller).
for _, name in ipairs { "check", "explain", "graph" } do
  ad[name] = function(...)
    ad[name] = require("autodiff." .. name)
    return ad[name](...)
  end
end

ad.maximum, ad.minimum = core.maximum, core.minimum

-- Arrays: what makes them is in the core; what computes loads when it is used.
for _, name in ipairs { "zeros", "ones", "full", "eye", "arange", "linspace" } do
  ad[name] = core.array[name]
end
core.array.loader(function() return require "autodiff.array" end)
for name in ([[array argmax argmin std log_softmax cumsum sort argsort reshape transpose
  squeeze expand_dims broadcast_to concat stack split take scatter_add flip pad
  tile matmul outer einsum]]):gmatch "%S+" do
  ad[name] = function(...)
    ad[name] = require("autodiff.array")[name]
    return ad[name](...)
  end
end
ad.vmap = function(...)
  ad.vmap = require("autodiff.vmap").vmap
  return ad.vmap(...)
end
for _, name in ipairs { "save", "load" } do
  ad[name] = function(...)
    ad[name] = require("autodiff.npy")[name]
    return ad[name](...)
  end
end
ad.random = core.random

-- A table that fills when something is looked for in it.
local function linalg(t)
  setmetatable(t, nil)
  for name, f in pairs(require "autodiff.linalg") do t[name] = f end
  return t
end
ad.linalg = setmetatable({}, {
  __index = function(t, name) return linalg(t)[name] end,
  __pairs = function(t) return pairs(linalg(t)) end,
})

local mathlib = require "autodiff.math"
ad.math, ad.install = mathlib.math(ad), mathlib.install

return ad
