--- Automatic differentiation for Lua 5.4.
--
-- `local ad = require "autodiff"` sets no global and changes no library.
-- All that computes is in the C module `autodiff.core`; the modules required
-- here say in Lua what is better said in Lua.
-- @module autodiff

local core = require "autodiff.core"

local ad = { _VERSION = "autodiff 0.1" }

-- What the core has under its public name.
for _, name in ipairs {
  -- values
  "type", "value", "dual", "var", "tape", "backward",
  -- elementary functions
  "abs", "acos", "asin", "atan", "ceil", "cos", "deg", "exp", "floor", "fmod",
  "log", "max", "min", "modf", "rad", "sin", "sqrt", "tan", "pow", "atan2",
  "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp2", "expm1", "log1p",
  "log2", "log10", "cbrt", "hypot", "erf", "erfc", "lgamma", "digamma",
  "sigmoid", "softplus", "relu", "sign", "clamp", "where", "eq", "lt", "le",
  "sum", "prod", "mean", "dot", "norm", "logsumexp", "softmax",
  -- transforms
  "grad", "value_and_grad", "jvp", "linearize", "vjp", "taylor", "stop",
  "no_grad", "checkpoint",
} do
  ad[name] = assert(core[name], name)
end

local jacobian = require "autodiff.jacobian"
ad.jacobian, ad.jacfwd, ad.jacrev = jacobian.jacobian, jacobian.jacfwd, jacobian.jacrev
ad.hessian, ad.hvp, ad.derivative = jacobian.hessian, jacobian.hvp, jacobian.derivative

ad.custom = require "autodiff.custom"
ad.implicit = require "autodiff.implicit"
ad.check = require "autodiff.check"

local mathlib = require "autodiff.math"
ad.math, ad.install = mathlib.math(ad), mathlib.install

return ad
