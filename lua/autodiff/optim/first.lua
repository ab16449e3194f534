--- Methods of first order with a given rate: gradient descent with momentum,
-- Adam and AdamW, as rules for one step, as objects for training loops, and as
-- methods that minimize.
local ad = require "autodiff"
local args = require "autodiff.args"
local core = require "autodiff.core"
local run = require "autodiff.optim.run"
local space = require "autodiff.optim.space"

local first = {}

-- Square root of what may also be an array or carry derivatives.
local function sqrt(x)
  if type(x) == "number" then return x ^ 0.5 end
  return ad.sqrt(x)
end

---------------------------------------------------------------------------------------------------
-- Rules: new leaves from leaves, gradients, the state, the rate and options
---------------------------------------------------------------------------------------------------

-- With momentum as in I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the
-- importance of initialization and momentum in deep learning", ICML 2013: the
-- velocity v = momentum v - rate g is added to x; by Nesterov's rule in the
-- form where x is the point at which gradients are taken.
local function descend(x, g, state, rate, o)
  local v, new = state.v or {}, {}
  for i = 1, #x do
    v[i] = o.momentum * (v[i] or 0.0) - rate * g[i]
    local step = v[i]
    if o.nesterov then step = o.momentum * step - rate * g[i] end
    new[i] = x[i] + step
  end
  state.v = v
  return new
end

-- D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR
-- 2015, algorithm 1. With a decay it is AdamW (I. Loshchilov and F. Hutter,
-- "Decoupled weight decay regularization", ICLR 2019, algorithm 2, where the
-- schedule multiplies both terms as the rate does here). The corrections of the
-- bias are where no array is needed for them.
local function adam(x, g, state, rate, o)
  local m, v, new = state.m or {}, state.v or {}, {}
  local c = (1 - o.beta2 ^ state.steps) ^ 0.5
  local epsilon, factor = o.epsilon * c, rate * (c / (1 - o.beta1 ^ state.steps))
  for i = 1, #x do
    local gi = g[i]
    m[i] = o.beta1 * (m[i] or 0.0) + (1 - o.beta1) * gi
    v[i] = o.beta2 * (v[i] or 0.0) + (1 - o.beta2) * (gi * gi)
    local old = o.decay > 0 and x[i] * (1 - rate * o.decay) or x[i]
    new[i] = old - factor * (m[i] / (sqrt(v[i]) + epsilon))
  end
  state.m, state.v = m, v
  return new
end

local shared = { rate = "schedule", clip = "positive", clip_value = "positive" }

local adam_allowed = run.union(shared, {
  beta1 = "fraction", beta2 = "fraction", epsilon = "nonnegative",
})
local adam_defaults = { rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0.0 }

--- For each method its rule, its options and their defaults.
first.rules = {
  descent = {
    rule = descend,
    allowed = run.union(shared, { momentum = "fraction", nesterov = "boolean" }),
    defaults = { rate = 1e-2, momentum = 0.9, nesterov = false },
  },
  adam = { rule = adam, allowed = adam_allowed, defaults = adam_defaults },
  adamw = {
    rule = adam,
    allowed = run.union(adam_allowed, { decay = "nonnegative" }),
    defaults = run.union(adam_defaults, { decay = 1e-2 }),
  },
}

-- The norm of all gradients is at most `clip` (R. Pascanu, T. Mikolov and Y.
-- Bengio, "On the difficulty of training recurrent neural networks", ICML
-- 2013), each number at most `clip_value`.
local function clipped(layout, g, o)
  if o.clip_value then
    local c, new = o.clip_value, {}
    for i = 1, #g do new[i] = ad.clamp(g[i], -c, c) end
    g = new
  end
  if o.clip then
    local norm = sqrt(layout:dot(g, g))
    if norm > o.clip then g = space.scale(o.clip / norm, g) end
  end
  return g
end

local function ratenow(fname, o, steps)
  local rate = o.rate
  if core.type(rate) ~= nil or not args.iscallable(rate) then return rate end
  rate = rate(steps)
  if core.type(rate) == nil then
    space.blame(("%s: the rate must return a number, got %s"):format(fname, type(rate)))
  end
  return rate
end

local function advance(method, fname, layout, state, x, g, o)
  local rate = ratenow(fname, o, state.steps + 1)
  g = clipped(layout, g, o)
  state.steps, state.rate = state.steps + 1, rate
  return first.rules[method].rule(x, g, state, rate, o)
end

---------------------------------------------------------------------------------------------------
-- Objects for training loops
---------------------------------------------------------------------------------------------------

local Stepper = {}
Stepper.__index = Stepper
Stepper.__name = "autodiff.optimizer"

--- An object whose `step` makes new parameters of parameters and gradients.
function first.stepper(method, opts)
  local rule = first.rules[method]
  return setmetatable({
    method = method, steps = 0, options = run.options(method, 1, opts, rule.allowed, rule.defaults),
  }, Stepper)
end

--- `opt:step(params, grads)`: the parameters after one step. Neither argument
-- is changed. What carries derivatives keeps them, the state included, so that
-- a loop can be differentiated.
function Stepper:step(params, grads)
  local layout = self.layout
  if not layout then
    layout = space.layout("step", "params", params)
    self.layout = layout
  end
  local x = layout:pack("params", params, true)
  local g = layout:pack("grads", grads)
  local new = advance(self.method, "step", layout, self, x, g, self.options)
  return layout:unpack(new, params)
end

--- `opt:reset()`: as it was before the first step.
function Stepper:reset()
  self.layout, self.steps, self.rate, self.m, self.v = nil, 0, nil, nil, nil
end

---------------------------------------------------------------------------------------------------
-- Methods that minimize
---------------------------------------------------------------------------------------------------

--- The method for `run`.
function first.method(name)
  local rule = first.rules[name]
  local method = {
    allowed = run.union(run.allowed, rule.allowed),
    defaults = run.union(run.defaults, rule.defaults),
  }

  function method.minimize(r)
    local layout, opts, state = r.layout, r.opts, { steps = 0 }
    local x = r.start
    local f, g, reason, converged = r:first()
    while not reason do
      local new = advance(name, r.fname, layout, state, x, g, opts)
      local fnew, gnew = r:evaluate(new)
      local wrong = r:undefined(fnew, gnew)
      if wrong then
        -- the last point at which there was a value is of more use
        reason, converged = ("%s in iteration %d"):format(wrong, r.iteration + 1), false
      else
        local x0, f0 = x, f
        x, f, g = new, fnew, gnew
        reason, converged = r:after(x0, f0, x, f, g)
      end
    end
    return r:result(x, f, g, reason, converged)
  end

  return method
end

return first
