--- What all methods share: options, evaluations, progress, and when to stop.
local core = require "autodiff.core"
local args = require "autodiff.args"
local space = require "autodiff.optim.space"

local run = {}

-- Who gets this low will find no minimum.
local UNBOUNDED = -1e200

-- Options: for each kind, what a value must be, and how that is said.
local function isnumber(v) return type(v) == "number" and v == v end

local kinds = {
  callable = { args.iscallable, "function expected" },
  boolean = { function(v) return type(v) == "boolean" end, "boolean expected" },
  positive = { function(v) return isnumber(v) and v > 0 end, "positive number expected" },
  nonnegative = { function(v) return isnumber(v) and v >= 0 end, "number of at least 0 expected" },
  number = { isnumber, "number expected" },
  fraction = {
    function(v) return isnumber(v) and v >= 0 and v < 1 end, "number from 0 to below 1 expected",
  },
  count = {
    function(v) return isnumber(v) and v >= 1 and (math.tointeger(v) or v == math.huge) end,
    "positive integer expected",
  },
  schedule = {
    function(v) return args.iscallable(v) or isnumber(v) and v >= 0 or core.type(v) ~= nil end,
    "number of at least 0 or function expected",
  },
  progress = {
    function(v)
      return type(v) == "boolean" or args.iscallable(v) or math.type(v) == "integer" and v >= 1
    end, "boolean, positive integer or function expected",
  },
  string = { function(v) return type(v) == "string" end, "string expected" },
  any = { function() return true end, "" },
}

--- Raises Lua's error about an argument, at the user's line.
function run.bad(n, fname, message)
  space.blame(("bad argument #%d to '%s' (%s)"):format(n, fname, message))
end

--- A copy of argument `n` with the defaults; `allowed[name]` is the kind of an
-- option. What is not allowed is an error: a misspelt tolerance is not ignored.
function run.options(fname, n, opts, allowed, defaults)
  local all = {}
  for k, v in pairs(defaults) do all[k] = v end
  if opts == nil then return all end
  if type(opts) ~= "table" then
    run.bad(n, fname, "table expected, got " .. (core.type(opts) or type(opts)))
  end
  for k, v in pairs(opts) do
    if type(k) ~= "string" or not allowed[k] then
      run.bad(n, fname, ("unknown option '%s'"):format(tostring(k)))
    end
    local kind = kinds[allowed[k]]
    if not kind[1](v) then
      local got = type(v) == "number" and ("%.14g"):format(v) or type(v)
      run.bad(n, fname, ("field '%s': %s, got %s"):format(k, kind[2], got))
    end
    all[k] = v
  end
  return all
end

--- The union of tables of options.
function run.union(...)
  local all = {}
  for _, t in ipairs { ... } do
    for k, v in pairs(t) do all[k] = v end
  end
  return all
end

run.allowed = {
  fg = "callable", gtol = "nonnegative", ftol = "nonnegative", xtol = "nonnegative",
  max_iterations = "count", max_evaluations = "count", callback = "callable",
  progress = "progress",
}

run.defaults = {
  gtol = 1e-8, ftol = 0.0, xtol = 0.0, max_iterations = 1000, max_evaluations = math.huge,
}

---------------------------------------------------------------------------------------------------
-- Progress
---------------------------------------------------------------------------------------------------

local function line(state)
  local norm = state.gradient_norm
  return ("%s: iteration %d, value %.10g%s, %d evaluations"):format(state.method,
    state.iteration, state.value, norm and (", gradient %.2g"):format(norm) or "",
    state.evaluations)
end

-- On a terminal each line takes the place of the one before.
local function printer(every)
  local terminal = core.terminal.isatty(2)
  return function(state)
    if state.reason then
      local head = terminal and "\r\27[K" or ""
      io.stderr:write(head, line(state), ": ", state.reason, "\n")
    elseif state.iteration % every == 0 then
      local head, tail = "", "\n"
      if terminal then head, tail = "\r\27[K", "" end
      io.stderr:write(head, line(state), tail)
      io.stderr:flush()
    end
  end
end

--- The function that reports: nil, the user's, or one that prints.
function run.reporter(progress)
  if not progress then return nil end
  if args.iscallable(progress) then return progress end
  return printer(progress == true and 1 or progress)
end

---------------------------------------------------------------------------------------------------
-- A minimization
---------------------------------------------------------------------------------------------------

local Run = {}
Run.__index = Run

--- Begins one: f from structures to numbers, the start, checked options.
function run.begin(fname, f, x0, opts)
  local self = setmetatable({
    fname = fname, opts = opts, x0 = x0, evaluations = 0, iteration = 0,
    fg = opts.fg or core.value_and_grad(f),
    report = run.reporter(opts.progress),
  }, Run)
  self.layout = space.layout(fname, "the start", x0)
  self.start = self.layout:pack("the start", x0, false, true)
  -- non-numeric leaves as they are now, whatever f does to its argument later
  self.like = self.layout:unpack(self.start, x0)
  return self
end

function Run:structure(list)
  return self.layout:unpack(list, self.like)
end

--- Value and gradient at a list of leaves. Both plain: a method that runs
-- within a transform finds a constant.
function Run:evaluate(x)
  self.evaluations = self.evaluations + 1
  local y, g = self.fg(self:structure(x))
  if core.type(y) == nil then
    space.blame(("%s: fg must return a number first, got %s"):format(self.fname, type(y)))
  end
  return core.value(y) + 0.0, self.layout:pack("gradient", g, false, true)
end

--- Why the value or gradient of a point is of no use, or nil.
function Run:undefined(f, g)
  if f ~= f or math.abs(f) == math.huge then
    return ("the function is %s"):format(f ~= f and "nan" or f > 0 and "inf" or "-inf")
  end
  local ok, i = self.layout:finite(g)
  if not ok then
    return ("the gradient is not finite at %s"):format(self.layout:name(i, "x"))
  end
end

--- The first evaluation; f, g, and a reason to stop, if there is one.
function Run:first()
  local f, g = self:evaluate(self.start)
  local wrong = self:undefined(f, g)
  if wrong then return f, g, wrong .. " at the start", false end
  return f, g, self:flat(g)
end

local function below(gtol, norm)
  if norm == 0 then return "gradient is 0" end
  return ("gradient below %.14g"):format(gtol)
end

--- Is the gradient small enough? The reason and true, or nil.
function Run:flat(g)
  local norm = self.layout:maxabs(g)
  if norm <= self.opts.gtol then return below(self.opts.gtol, norm), true end
end

function Run:state(x, f, norm)
  return {
    method = self.fname, iteration = self.iteration, evaluations = self.evaluations,
    value = f, gradient_norm = norm, x = x and self:structure(x),
  }
end

--- An iteration has come to (x, f, g): reports, and asks the callback for a
-- reason to stop.
function Run:notify(x, f, g)
  local opts = self.opts
  self.iteration = self.iteration + 1
  local norm = g and self.layout:maxabs(g)
  if self.report then self.report(self:state(args.iscallable(opts.progress) and x, f, norm)) end
  if opts.callback then
    local stop = opts.callback(self:state(x, f, norm))
    if stop then
      return "stopped by callback" .. (type(stop) == "string" and ": " .. stop or ""), false
    end
  end
end

--- Has x stopped moving?
function Run:still(x0, x)
  local xtol = self.opts.xtol
  if xtol == 0 then return nil end
  local moved = self.layout:maxabs(space.sub(x, x0))
  if moved <= xtol * self.layout:maxabs(x) then
    return ("x changes by less than %.14g of itself"):format(xtol), true
  end
end

--- Are all iterations or evaluations used up?
function Run:limits()
  if self.iteration >= self.opts.max_iterations then
    return ("maximum of %.0f iterations"):format(self.opts.max_iterations), false
  end
  return self:spent()
end

--- After an iteration from (x0, f0) to (x, f, g): a reason to stop and whether
-- it is convergence, or nil.
function Run:after(x0, f0, x, f, g)
  local opts = self.opts
  local reason, converged = self:notify(x, f, g)
  if reason then return reason, converged end
  reason, converged = self:flat(g)
  if reason then return reason, converged end
  if f < UNBOUNDED then
    return ("value below %g: the function seems to be unbounded"):format(UNBOUNDED), false
  end
  if opts.ftol > 0 and math.abs(f0 - f) <= opts.ftol * math.max(math.abs(f0), math.abs(f)) then
    return ("value changes by less than %.14g of itself"):format(opts.ftol), true
  end
  reason, converged = self:still(x0, x)
  if reason then return reason, converged end
  return self:limits()
end

--- Are all evaluations used up? A reason to stop, or nil.
function Run:spent()
  if self.evaluations >= self.opts.max_evaluations then
    return ("maximum of %.0f evaluations"):format(self.opts.max_evaluations), false
  end
end

--- What the user gets.
function Run:result(x, f, g, reason, converged)
  if self.report then
    local state = self:state(args.iscallable(self.opts.progress) and x, f,
      g and self.layout:maxabs(g))
    state.reason = reason
    self.report(state)
  end
  return {
    x = self:structure(x), value = f, gradient = g and self.layout:unpack(g),
    iterations = self.iteration, evaluations = self.evaluations,
    reason = reason, converged = converged or false,
  }
end

return run
