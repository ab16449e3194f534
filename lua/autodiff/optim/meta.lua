---@meta autodiff.optim
---@diagnostic disable: unused-local, missing-return

-- Types of autodiff.optim, as autodiff/meta.lua has those of autodiff.

---What all methods give.
---@class autodiff.OptimResult
---@field x autodiff.Structure
---@field value number
---@field gradient autodiff.Structure
---@field iterations integer
---@field evaluations integer
---@field reason string
---@field converged boolean

---What a callback is given.
---@class autodiff.OptimState
---@field method string
---@field iteration integer
---@field evaluations integer
---@field value number
---@field gradient_norm number
---@field x autodiff.Structure?
---@field reason string? # the last report of `progress` has it

---@class autodiff.OptimOptions
---@field fg? autodiff.Callable
---@field gtol? number
---@field ftol? number
---@field xtol? number
---@field max_iterations? integer
---@field max_evaluations? integer
---@field callback? fun(state: autodiff.OptimState): boolean|string|nil
---@field progress? boolean|integer|fun(state: autodiff.OptimState)

---@class autodiff.OptimMinimizeOptions: autodiff.OptimOptions
---@field method? "lbfgs"|"newton"|"descent"|"adam"|"adamw"
---@field [string] any # those of the method

---@class autodiff.OptimLbfgsOptions: autodiff.OptimOptions
---@field memory? integer
---@field step? number
---@field c1? number
---@field c2? number

---@class autodiff.OptimNewtonOptions: autodiff.OptimOptions
---@field hvp? autodiff.Callable
---@field radius? number
---@field max_radius? number
---@field max_products? integer

---@class autodiff.OptimRateOptions: autodiff.OptimOptions
---@field rate? autodiff.Number|fun(step: integer): autodiff.Number
---@field clip? number
---@field clip_value? number
---@field momentum? number # descent
---@field nesterov? boolean # descent
---@field beta1? number # adam, adamw
---@field beta2? number # adam, adamw
---@field epsilon? number # adam, adamw
---@field decay? number # adamw

---@class autodiff.OptimSquaresOptions: autodiff.OptimOptions
---@field jacobian? autodiff.Callable
---@field damping? number
---@field accelerate? boolean
---@field refine? boolean

---The state of a method of first order in a training loop.
---@class autodiff.Optimizer
local Optimizer = {}

---The parameters after one step of `optim.descent`, `optim.adam` or `optim.adamw`: a structure like
---`params`, which is not changed.
---@param params autodiff.Structure
---@param grads autodiff.Structure
---@return autodiff.Structure
function Optimizer:step(params, grads) end

---Forgets all steps: the next parameters may have another form.
---@return nil
function Optimizer:reset() end

local optim = {}

---A minimum of f, a function from a structure to a number, near the structure x0, by the method
---`options.method`: "lbfgs" (the default), "newton", "descent", "adam" or "adamw".
---@param f autodiff.Callable?
---@param x0 autodiff.Structure
---@param options? autodiff.OptimMinimizeOptions
---@return autodiff.OptimResult
function optim.minimize(f, x0, options) end

---A minimum by L-BFGS with a line search for the strong Wolfe conditions (Nocedal and Wright,
---Numerical Optimization, 2006, algorithms 7.5, 3.5 and 3.6), which is what to begin with for a
---smooth function.
---@param f autodiff.Callable?
---@param x0 autodiff.Structure
---@param options? autodiff.OptimLbfgsOptions
---@return autodiff.OptimResult
function optim.lbfgs(f, x0, options) end

---A minimum by Newton's method in a trust region, its steps by conjugate gradients on
---Hessian-vector products (Nocedal and Wright, Numerical Optimization, 2006, algorithms 4.1 and
---7.2); directions of negative curvature are followed.
---@param f autodiff.Callable?
---@param x0 autodiff.Structure
---@param options? autodiff.OptimNewtonOptions
---@return autodiff.OptimResult
function optim.newton(f, x0, options) end

---Gradient descent: a minimum as by `minimize`, or without a function an object for training
---loops, see `optimizer:step`.
---@param f autodiff.Callable
---@param x0 autodiff.Structure
---@param options? autodiff.OptimRateOptions
---@return autodiff.OptimResult
---@overload fun(options?: autodiff.OptimRateOptions): autodiff.Optimizer
function optim.descent(f, x0, options) end

---Adam (Kingma and Ba, ICLR 2015): a minimum as by `minimize`, or without a function an object
---for training loops, see `optimizer:step`.
---@param f autodiff.Callable
---@param x0 autodiff.Structure
---@param options? autodiff.OptimRateOptions
---@return autodiff.OptimResult
---@overload fun(options?: autodiff.OptimRateOptions): autodiff.Optimizer
function optim.adam(f, x0, options) end

---AdamW (Loshchilov and Hutter, ICLR 2019): Adam with a decay of the parameters that is not part
---of the gradient: each step subtracts rate times `decay` (0.01) times the parameter, too.
---@param f autodiff.Callable
---@param x0 autodiff.Structure
---@param options? autodiff.OptimRateOptions
---@return autodiff.OptimResult
---@overload fun(options?: autodiff.OptimRateOptions): autodiff.Optimizer
function optim.adamw(f, x0, options) end

---The least half sum of squares of the numbers in the structure f(x), by Levenberg and Marquardt's
---method with Moré's scaling and steps that are corrected by second derivatives (Moré 1978;
---Transtrum and Sethna, arXiv:1201.5885).
---@param f autodiff.Callable
---@param x0 autodiff.Structure
---@param options? autodiff.OptimSquaresOptions
---@return autodiff.OptimResult
function optim.least_squares(f, x0, options) end

return optim
