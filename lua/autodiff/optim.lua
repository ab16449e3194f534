--- Minimization with exact derivatives.
--
-- `optim.lbfgs(f, x0[, opts])` and its kin minimize a function f from a
-- structure (numbers and arrays in tables nested to any depth) to a number;
-- `optim.least_squares` the sum of squares of a structure of residuals. All
-- give
--
--     {x=, value=, gradient=, iterations=, evaluations=, reason=, converged=}
--
-- with x and gradient in the structure of x0, and the reason in words. What
-- they compute is plain: a function that uses a minimum is differentiated with
-- `ad.implicit`.
--
-- Options of all: `gtol` (default 1e-8: the largest number in the gradient),
-- `ftol` and `xtol` (default 0: the relative change of the value, and of x),
-- `max_iterations` (1000), `max_evaluations`; `fg`, a function that gives value
-- and gradient as ad.value_and_grad(f) does, which is used instead of f;
-- `callback`, called with a table after each iteration, which ends it by a true
-- value (a string is added to the reason); `progress`: true or a number n
-- prints a line for each or each n-th iteration, a function is called instead.
--
-- `optim.adam(opts)`, without a function, is an object for a training loop:
--
--     local opt = optim.adam{rate = 1e-3}
--     params = opt:step(params, grads)
-- @module autodiff.optim
local args = require "autodiff.args"
local first = require "autodiff.optim.first"
local run = require "autodiff.optim.run"

local optim = {}

-- Loaded when they are first used: a training loop needs none of them.
local function lazy(name)
  return function() return require("autodiff.optim." .. name) end
end

local methods = { lbfgs = lazy "lbfgs", newton = lazy "newton" }
for name in pairs(first.rules) do
  local method
  methods[name] = function()
    method = method or first.method(name)
    return method
  end
end

local function minimize(fname, name, f, x0, opts)
  local method = methods[name]()
  local all = run.options(fname, 3, opts, method.allowed, method.defaults)
  if method.check then method.check(fname, all) end
  -- what there is no derivative to be taken of need not be there
  local enough = all.fg and (name ~= "newton" or all.hvp)
  if not args.iscallable(f) and not (f == nil and enough) then
    run.bad(1, fname, "function expected, got " .. type(f))
  end
  if x0 == nil then run.bad(2, fname, "number or table expected, got nil") end
  return method.minimize(run.begin(fname, f, x0, all), f)
end

--- L-BFGS with a line search for the strong Wolfe conditions. Options besides
-- the common ones: `memory` (10), `step` (1: the length of the first step),
-- `c1`, `c2` (1e-4, 0.9).
function optim.lbfgs(f, x0, opts)
  return (minimize("lbfgs", "lbfgs", f, x0, opts))
end

--- Newton's method by conjugate gradients in a trust region, for functions
-- that can be differentiated twice. `radius` (found from the gradient and the
-- curvature along it), `max_radius`, `max_products` (products with the Hessian
-- per step; 20 or twice the numbers in x), `hvp` (a function (x, v) instead of
-- ad.hvp). The result has `products`, too.
function optim.newton(f, x0, opts)
  return (minimize("newton", "newton", f, x0, opts))
end

-- Those of first order also make objects for training loops.
local function either(name)
  return function(f, x0, opts)
    if args.iscallable(f) or x0 ~= nil then return (minimize(name, name, f, x0, opts)) end
    return (first.stepper(name, f))
  end
end

--- Gradient descent. `rate` (0.01; a function of the number of the step, from
-- 1, is a schedule), `momentum` (0.9), `nesterov` (false), `clip` (greatest norm
-- of the gradient), `clip_value` (of each of its numbers).
optim.descent = either "descent"

--- Adam. `rate` (0.001), `beta1` (0.9), `beta2` (0.999), `epsilon` (1e-8),
-- `clip`, `clip_value`.
optim.adam = either "adam"

--- AdamW: Adam with a decay of the weights (`decay`, 0.01) that is not part of
-- the gradient.
optim.adamw = either "adamw"

--- `optim.minimize(f, x0, {method = "lbfgs", ...})`: any of the above by name.
function optim.minimize(f, x0, opts)
  local rest, name = opts, "lbfgs"
  if type(opts) == "table" then
    rest = {}
    for k, v in pairs(opts) do rest[k] = v end
    name, rest.method = opts.method or name, nil
    if not methods[name] then
      run.bad(3, "minimize", ("field 'method': adam, adamw, descent, lbfgs or newton expected, "
        .. "got %s"):format(tostring(name)))
    end
  end
  return (minimize("minimize", name, f, x0, rest))
end

--- Least squares by Levenberg and Marquardt's method: f gives a structure of
-- residuals, and half the sum of their squares is minimized. `gtol` (1e-12: the
-- cosine between the residuals and each column of the Jacobian), `xtol` (1e-12:
-- the relative length of a step, scaled by those columns), `ftol` (0),
-- `max_iterations` (10000), `max_evaluations`, `callback`, `progress`; `damping` (1e-3:
-- of the first step), `accelerate` (true: steps corrected by second derivatives),
-- `refine` (true: undamped steps at the end, until they are rounding),
-- `jacobian`, a function of x that is used instead of ad.jacobian(f). The result
-- also has `residuals`, `jacobian` (rows in the order of x's keys) and
-- `jacobians`, their number.
function optim.least_squares(f, x0, opts)
  local least = require "autodiff.optim.least"
  local all = run.options("least_squares", 3, opts, least.allowed, least.defaults)
  if not args.iscallable(f) then
    run.bad(1, "least_squares", "function expected, got " .. type(f))
  end
  if x0 == nil then run.bad(2, "least_squares", "number or table expected, got nil") end
  return (least.minimize(run.begin("least_squares", f, x0, all), f))
end

return optim
