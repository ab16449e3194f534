--- Minimization under constraints by NLopt, when it is installed: bounds, and
-- equations and inequalities whose Jacobians are exact.
--
--     local nlopt = require "autodiff.optim.nlopt"
--     local r = nlopt.minimize(f, x0, {algorithm = "LD_SLSQP", lower = {0, 0}})
--
-- S. G. Johnson, The NLopt nonlinear-optimization package,
-- https://github.com/stevengj/nlopt. The library is looked for when it is first
-- needed; nothing of it has to be there when autodiff is built.
-- @module autodiff.optim.nlopt
local args = require "autodiff.args"
local core = require "autodiff.core"
local run = require "autodiff.optim.run"
local space = require "autodiff.optim.space"
local vector = require "autodiff.optim.vector"

local nlopt = {}

--- The names under which the library is looked for, in this order; one's own
-- build goes first.
nlopt.names = {
  "libnlopt.so.0", "libnlopt.so.1", "libnlopt.so", "libnlopt.0.dylib", "libnlopt.dylib",
}

local library

local function open()
  if library then return library end
  local messages = {}
  for _, name in ipairs(nlopt.names) do
    local message
    library, message = core.nlopt.load(name)
    if library then return library end
    messages[#messages + 1] = message
  end
  return nil, "NLopt is not installed (Debian has it in the package libnlopt0): "
    .. table.concat(messages, "; ")
end

local function need()
  local lib, message = open()
  if not lib then space.blame("nlopt: " .. message) end
  return lib
end

--- `available()`: true, or false and why not.
function nlopt.available()
  local lib, message = open()
  if lib then return true end
  return false, message
end

--- `version()`: NLopt's, "2.7.1".
function nlopt.version()
  return core.nlopt.version(need())
end

--- `algorithms()`: the names of NLopt's algorithms, each with its description.
function nlopt.algorithms()
  return core.nlopt.algorithms(need())
end

-- nlopt_result, and in words.
local reasons = {
  [-1] = "failure", [-4] = "rounding errors limit the progress",
  [1] = "success", [2] = "value reached %.14g", [3] = "value changes by less than its tolerance",
  [4] = "x changes by less than its tolerance", [5] = "maximum of %.0f evaluations",
  [6] = "maximum of %.14g seconds",
}

local settings = {
  stopval = "number", ftol_rel = "nonnegative", ftol_abs = "nonnegative",
  xtol_rel = "nonnegative", xtol_abs = "any", maxeval = "count", maxtime = "positive",
  population = "count", vector_storage = "count", initial_step = "any",
}
local inner = run.union(settings, { algorithm = "string" })
local allowed = run.union(settings, {
  algorithm = "string", lower = "any", upper = "any", inequality = "any", equality = "any",
  tol = "nonnegative", inner = "any", seed = "count", fg = "callable", callback = "callable",
  progress = "progress",
})

-- What there is to stop for has to be something.
local defaults = { tol = 1e-8, xtol_rel = 1e-8, maxeval = 100000 }

-- A number for all, or a structure like x, as a list of numbers.
local function perleaf(layout, what, v)
  if v == nil then return nil end
  local n = layout.size
  if type(v) == "number" then
    local list = {}
    for i = 1, n do list[i] = v + 0.0 end
    return list
  end
  return layout:flat(layout:pack(what, v, false, true))
end

local function checkalgorithm(lib, fname, name)
  if not core.nlopt.algorithms(lib)[name] then
    run.bad(3, fname, ("NLopt %s has no algorithm '%s'"):format(core.nlopt.version(lib), name))
  end
end

local function bounds(layout, fname, opts, name)
  local list = perleaf(layout, name, opts[name])
  for i = 1, list and #list or 0 do
    if list[i] ~= list[i] then run.bad(3, fname, ("field '%s': a bound is nan"):format(name)) end
  end
  return list
end

local function set(layout, fname, opts)
  local s = {}
  for name in pairs(settings) do s[name] = opts[name] end
  s.xtol_abs = perleaf(layout, "xtol_abs", s.xtol_abs)
  s.initial_step = perleaf(layout, "initial_step", s.initial_step)
  for _, h in ipairs(s.initial_step or {}) do
    if h == 0 or h ~= h then
      run.bad(3, fname, "field 'initial_step': numbers other than 0 expected")
    end
  end
  return s
end

-- A constraint is a function, or a table with one and `tol`, and `jacobian`.
local function constraints(r, list, opts, equality)
  local name = equality and "equality" or "inequality"
  local given = opts[name]
  if given == nil then return end
  if args.iscallable(given) then given = { given } end
  if type(given) ~= "table" then
    run.bad(3, r.fname, ("field '%s': function or list of functions expected, got %s"):format(
      name, type(given)))
  end
  for i, c in ipairs(given) do
    local what = ("%s constraint %d"):format(name, i)
    local tol, f, jacobian = opts.tol, c, nil
    if type(c) == "table" and not args.iscallable(c) then
      f, tol, jacobian = c[1], c.tol or tol, c.jacobian
    end
    if not args.iscallable(f) or jacobian ~= nil and not args.iscallable(jacobian) then
      run.bad(3, r.fname, ("field '%s': function expected, got %s"):format(name, type(f)))
    end
    if not (type(tol) == "number" and tol >= 0) then
      run.bad(3, r.fname, ("field '%s': tol must be a number of at least 0"):format(name))
    end
    local v = vector.new(r.fname, what, f, r.layout, r.like, jacobian)
    local m = #v:values(r.layout:flat(r.start))
    local tols = {}
    for k = 1, m do tols[k] = tol + 0.0 end
    list[#list + 1] = {
      equality = equality, m = m, tol = tols,
      -- NLopt has algorithms that take constraints only one by one
      scalar = m == 1,
      f = function(x, want)
        return v:values(x), want and v:jacobianat(x) or nil
      end,
    }
  end
end

--- `minimize(f, x0, opts)`: a minimum of f, with the result of the methods of
-- `autodiff.optim` and `code`, NLopt's nlopt_result.
--
-- `algorithm` ("LD_SLSQP") is a name from NLopt's documentation. `lower` and
-- `upper` are a number for all or structures like x0; `inequality` and
-- `equality` are functions g, h of x, or lists of them or of tables
-- `{g, tol=, jacobian=}`: g(x) <= 0, h(x) = 0, for each number in the structure
-- that it gives, to within `tol` (1e-8). `stopval ftol_rel ftol_abs xtol_rel`
-- (1e-8) `xtol_abs maxeval` (100000) `maxtime population vector_storage
-- initial_step` are NLopt's; `inner`, a table of `algorithm` and these, is the
-- local optimizer of those that need one; `seed` is that of the stochastic
-- ones. `fg`, `callback` and `progress` are as in `autodiff.optim`, for each
-- evaluation of f. The result has no gradient where the algorithm asks for none.
function nlopt.minimize(f, x0, opts)
  local fname = "minimize"
  local all = run.options(fname, 3, opts, allowed, defaults)
  if not args.iscallable(f) and not (f == nil and all.fg) then
    run.bad(1, fname, "function expected, got " .. type(f))
  end
  if x0 == nil then run.bad(2, fname, "number or table expected, got nil") end
  local lib = need()
  all.algorithm = all.algorithm or "LD_SLSQP"
  checkalgorithm(lib, fname, all.algorithm)

  local r = run.begin(fname, f, x0, all)
  r.fname = "nlopt"
  local layout = r.layout
  local problem = {
    algorithm = all.algorithm, x = layout:flat(r.start), constraints = {},
    lower = bounds(layout, fname, all, "lower"), upper = bounds(layout, fname, all, "upper"),
    settings = set(layout, fname, all), seed = all.seed,
  }
  if all.inner ~= nil then
    local o = run.options(fname, 3, all.inner, inner, {})
    if not o.algorithm then run.bad(3, fname, "field 'inner': no algorithm") end
    checkalgorithm(lib, fname, o.algorithm)
    problem.inner = set(layout, fname, o)
    problem.inner.algorithm = o.algorithm
  end
  constraints(r, problem.constraints, all, false)
  constraints(r, problem.constraints, all, true)

  local stopped, gradients
  function problem.f(flat, want)
    local x = layout:unflat(flat)
    local y, g
    gradients = gradients or want
    if want or f == nil then
      y, g = r:evaluate(x)
    else
      r.evaluations = r.evaluations + 1
      y = (f(r:structure(x)))
      if core.type(y) == nil then
        space.blame(("%s: f must return a number, got %s"):format(fname, type(y)))
      end
      y = core.value(y) + 0.0
    end
    local reason = r:notify(x, y, g)
    if reason then
      stopped = { x = x, y = y, reason = reason }
      return nil -- which makes NLopt stop
    end
    return { y }, want and { layout:flat(g) } or nil
  end

  local code, x, value, message = core.nlopt.optimize(lib, problem)
  local reason
  if stopped then
    x, value, reason = stopped.x, stopped.y, stopped.reason
  else
    x = layout:unflat(x)
    reason = reasons[code] or ("result %d of NLopt"):format(code)
    reason = reason:format(code == 2 and all.stopval or code == 5 and all.maxeval or all.maxtime)
    if code < 0 and message then reason = reason .. ": " .. message end
  end
  -- an algorithm without derivatives may have an f that has none
  local g
  if gradients then value, g = r:evaluate(x) end
  local result = r:result(x, value, g, reason, code > 0 and code < 5)
  result.code = code
  return result
end

return nlopt
