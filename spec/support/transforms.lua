-- Helpers for the specs of the transforms: comparison of structures,
-- Richardson differences, a random source of its own, and a battery of
-- transforms with known answers that other specs disturb (by yielding,
-- collecting garbage or raising errors in the middle) and check again.

local ad = require "autodiff"

local M = {}

local unpack = table.unpack

-- comparison ------------------------------------------------------------

local function mismatch(want, got, tol, path)
  if type(want) == "table" then
    if type(got) ~= "table" then
      return ("%s: expected a table, got %s"):format(path, tostring(got))
    end
    for k, w in pairs(want) do
      local m = mismatch(w, got[k], tol, path .. "[" .. tostring(k) .. "]")
      if m then return m end
    end
    for k, v in pairs(got) do
      if want[k] == nil then
        return ("%s: unexpected [%s] = %s"):format(path, tostring(k), tostring(v))
      end
    end
    return nil
  end
  if type(want) ~= "number" then
    if rawequal(want, got) then return nil end
    return ("%s: expected %s, got %s"):format(path, tostring(want), tostring(got))
  end
  -- AD values must not come out of a transform that nothing surrounds
  if type(got) ~= "number" then
    return ("%s: expected the plain number %.17g, got %s %s"):format(
      path, want, type(got), tostring(got))
  end
  if want == got or (want ~= want and got ~= got) then return nil end
  if math.abs(want - got) <= tol * math.max(1, math.abs(want)) then return nil end
  return ("%s: expected %.17g, got %.17g"):format(path, want, got)
end

--- Compare structures of plain numbers; `tol` is relative above 1.
function M.near(want, got, tol)
  local m = mismatch(want, got, tol or 1e-10, "result")
  if m then error(m, 2) end
end

--- The same as a question.
function M.is_near(want, got, tol)
  local m = mismatch(want, got, tol or 1e-10, "result")
  return m == nil, m
end

--- The error value of a call that has to fail. `fn` should call the
--- function under test in a statement of its own: a tail call or a direct
--- pcall would hide the name by which Lua reports bad arguments.
function M.failure(fn, ...)
  local ok, e = pcall(fn, ...)
  if ok then error("an error was expected", 2) end
  return e
end

--- The same, and the error must be a string that contains all of the texts.
--- Bad arguments have to be reported at the line of the call, as luaL_argerror
--- does, not at one inside the library.
function M.fails_with(fn, ...)
  local ok, e = pcall(fn)
  if ok then error("an error was expected", 2) end
  if type(e) ~= "string" then
    error("expected an error message, got " .. tostring(e), 2)
  end
  for _, text in ipairs{...} do
    if not e:find(text, 1, true) then
      error(("expected an error with %q, got %q"):format(text, e), 2)
    end
    if text:find("^bad argument") and not e:find("^[^:]*_spec%.lua:%d+: bad argument") then
      error(("expected the position of the call, got %q"):format(e), 2)
    end
  end
end

-- numbers ---------------------------------------------------------------

--- A small generator, so that specs neither depend on nor disturb
--- math.random. Returns a function of (lo, hi).
function M.rng(seed)
  local s = seed * 2654435769 + 1
  return function(lo, hi)
    s = s * 6364136223846793005 + 1442695040888963407
    return lo + (hi - lo) * ((s >> 11) * 2.0 ^ -53)
  end
end

--- A whole number from lo to hi out of such a generator.
function M.int(rnd, lo, hi)
  return math.min(hi, math.floor(rnd(lo, hi + 1)))
end

--- Derivative by central differences, extrapolated (Ridders).
function M.richardson(f, x, h)
  h = h or 0.1
  local t, best, err = {}, nil, math.huge
  for i = 1, 9 do
    t[i] = {(f(x + h) - f(x - h)) / (2 * h)}
    local p = 4
    for j = 2, i do
      t[i][j] = t[i][j - 1] + (t[i][j - 1] - t[i - 1][j - 1]) / (p - 1)
      p = p * 4
      local e = math.max(math.abs(t[i][j] - t[i][j - 1]),
                         math.abs(t[i][j] - t[i - 1][j - 1]))
      if e < err then best, err = t[i][j], e end
    end
    h = h / 2
  end
  return best
end

--- Gradient of a function of a list, by differences.
function M.differences(f, x, h)
  local g = {}
  for j = 1, #x do
    g[j] = M.richardson(function(t)
      local y = {unpack(x)}
      y[j] = t
      return f(y)
    end, x[j], h)
  end
  return g
end

--- Jacobian of a function from a list to a list of m, by differences.
function M.jacobian_differences(f, x, m)
  local J = {}
  for i = 1, m do
    J[i] = M.differences(function(y) return f(y)[i] end, x)
  end
  return J
end

function M.factorial(n)
  local r = 1.0
  for i = 2, n do r = r * i end
  return r
end

--- A smooth function from a list of n to a list of m, chosen at random;
--- it works on plain numbers and on AD values.
function M.random_function(rnd, m, n)
  local rows = {}
  for i = 1, m do
    rows[i] = {}
    for t = 1, 3 do
      rows[i][t] = {
        kind = M.int(rnd, 1, 6), a = rnd(-1, 1), b = rnd(0.2, 1.2),
        j = M.int(rnd, 1, n), k = M.int(rnd, 1, n),
      }
    end
  end
  local kinds = {
    function(c, x, y) return c.a * ad.sin(c.b * x + y) end,
    function(c, x, y) return c.a * ad.exp(-c.b * x * x) * y end,
    function(c, x, y) return c.a * x / (2 + y * y) end,
    function(c, x, y) return c.b * ad.tanh(x * y) end,
    function(c, x, y) return ad.log(3 + c.a * ad.cos(x - y)) end,
    function(c, x, y) return c.a * (x ^ 3 - x * y ^ 2) end,
  }
  return function(x)
    local r = {}
    for i, terms in ipairs(rows) do
      local s = 0
      for _, c in ipairs(terms) do s = s + kinds[c.kind](c, x[c.j], x[c.k]) end
      r[i] = s
    end
    return r
  end
end

function M.random_point(rnd, n)
  local x = {}
  for j = 1, n do x[j] = rnd(-1, 1) end
  return x
end

-- ways to differentiate -------------------------------------------------

--- Every way to get f' of a function of one number; each composes with
--- every other, which is what the specs of nesting check.
M.modes = {
  {name = "grad", d = function(f) return ad.grad(f) end},
  {name = "value_and_grad", d = function(f)
    local vg = ad.value_and_grad(f)
    return function(x)
      local _, g = vg(x)
      return g
    end
  end},
  {name = "jvp", d = function(f)
    return function(x)
      local _, dy = ad.jvp(f, {x}, {1})
      return dy
    end
  end},
  {name = "linearize", d = function(f)
    return function(x)
      local _, lin = ad.linearize(f, x)
      return lin(1)
    end
  end},
  {name = "vjp", d = function(f)
    return function(x)
      local _, pull = ad.vjp(f, x)
      return (pull(1))
    end
  end},
  {name = "derivative", d = function(f) return ad.derivative(f) end},
  {name = "taylor", d = function(f)
    return function(x) return ad.taylor(f, x, 1)[2] end
  end},
  {name = "jacfwd", d = function(f)
    return function(x)
      return ad.jacfwd(function(t) return {f(t[1])} end)({x})[1][1]
    end
  end},
  {name = "jacrev", d = function(f)
    return function(x)
      return ad.jacrev(function(t) return {f(t[1])} end)({x})[1][1]
    end
  end},
}

--- The two that stand for forward and reverse where all would be too many.
M.forward = M.modes[3].d
M.reverse = M.modes[1].d

-- the battery -----------------------------------------------------------

-- Each entry: `run(tick)` performs a transform whose f calls `tick` at
-- several places and returns a list of results; `want` is the list of right
-- answers. `inner` marks those that tick where the library calls back more
-- than once or later than the surrounding f (recomputation, rules, solvers).

local sin, cos, exp = math.sin, math.cos, math.exp

local function product(tick)
  return function(x, y)
    tick()
    local a = x * y
    tick()
    local b = ad.sin(a)
    tick()
    return b + x
  end
end

local function pair(tick)
  return function(x)
    tick()
    local a = x[1] * x[2]
    tick()
    return {a, ad.exp(x[1]), x[2] * x[2]}
  end
end

local function cubic(tick)
  return function(x)
    tick()
    local y = x[1] * x[1] * x[2]
    tick()
    return y + x[2] ^ 3
  end
end

local function sincube(tick)
  return function(x)
    tick()
    local s = ad.sin(x)
    tick()
    return s * s * s
  end
end

local X, Y = 0.7, 1.3
local C, S = cos(X * Y), sin(X * Y)
local s1, c1 = sin(X), cos(X)

-- derivatives of sin(x)^3 at X
local D0 = s1 ^ 3
local D1 = 3 * s1 ^ 2 * c1
local D2 = 6 * s1 * c1 ^ 2 - 3 * s1 ^ 3
local D3 = 6 * c1 ^ 3 - 21 * s1 ^ 2 * c1

local battery = {
  {name = "grad", want = {Y * C + 1, X * C}, run = function(tick)
    return {ad.grad(product(tick), {1, 2})(X, Y)}
  end},
  {name = "value_and_grad", want = {S + X, X * C}, run = function(tick)
    return {ad.value_and_grad(product(tick), 2)(X, Y)}
  end},
  {name = "jvp", want = {S + X, 2 * (Y * C + 1) - 3 * X * C}, run = function(tick)
    return {ad.jvp(product(tick), {X, Y}, {2, -3})}
  end},
  {name = "linearize", want = {S + X, Y * C + 1, X * C}, run = function(tick)
    local y, lin = ad.linearize(product(tick), X, Y)
    return {y, lin(1, 0), lin(0, 1)}
  end},
  {name = "vjp", want = {S + X, Y * C + 1, X * C, 2 * (Y * C + 1)}, run = function(tick)
    local y, pull = ad.vjp(product(tick), X, Y)
    local a, b = pull(1)
    return {y, a, b, (pull(2))}
  end},
  {name = "jacobian", want = {{{Y, X}, {exp(X), 0}, {0, 2 * Y}}}, run = function(tick)
    return {ad.jacobian(pair(tick))({X, Y})}
  end},
  {name = "jacfwd", want = {{{Y, X}, {exp(X), 0}, {0, 2 * Y}}}, run = function(tick)
    return {ad.jacfwd(pair(tick))({X, Y})}
  end},
  {name = "jacrev", want = {{{Y, X}, {exp(X), 0}, {0, 2 * Y}}}, run = function(tick)
    return {ad.jacrev(pair(tick))({X, Y})}
  end},
  {name = "hessian", want = {{{2 * Y, 2 * X}, {2 * X, 6 * Y}}}, run = function(tick)
    return {ad.hessian(cubic(tick))({X, Y})}
  end},
  {name = "hvp", want = {{2 * Y - 2 * X, 2 * X - 6 * Y}}, run = function(tick)
    return {ad.hvp(cubic(tick), {X, Y}, {1, -1})}
  end},
  {name = "derivative", want = {D1, D3}, run = function(tick)
    return {ad.derivative(sincube(tick))(X), ad.derivative(sincube(tick), 3)(X)}
  end},
  {name = "taylor", want = {{D0, D1, D2 / 2, D3 / 6}}, run = function(tick)
    return {ad.taylor(sincube(tick), X, 3)}
  end},
  {name = "grad of grad", want = {D2}, run = function(tick)
    return {ad.grad(ad.grad(sincube(tick)))(X)}
  end},
  {name = "jvp of grad", want = {D1, D2}, run = function(tick)
    return {ad.jvp(ad.grad(sincube(tick)), {X}, {1})}
  end},
  {name = "grad of jvp", want = {D2}, run = function(tick)
    return {ad.grad(M.forward(sincube(tick)))(X)}
  end},
  {name = "jvp of jvp", want = {D1, D2}, run = function(tick)
    return {ad.jvp(M.forward(sincube(tick)), {X}, {1})}
  end},
  {name = "grad of derivative of jvp", want = {D3}, run = function(tick)
    return {ad.grad(ad.derivative(M.forward(sincube(tick))))(X)}
  end},
  {name = "grad of taylor", want = {D3 / 2}, run = function(tick)
    return {ad.grad(function(x) return ad.taylor(sincube(tick), x, 2)[3] end)(X)}
  end},
  {name = "taylor of grad", want = {{D1, D2, D3 / 2}}, run = function(tick)
    return {ad.taylor(ad.grad(sincube(tick)), X, 2)}
  end},
  {name = "closure", want = {Y * Y * 2 * X}, run = function(tick)
    -- d/dx of x * (d/dy of x y^2 / 2) * y
    return {ad.grad(function(x)
      tick()
      local g = ad.grad(function(y)
        tick()
        local r = x * y * y / 2
        tick()
        return r
      end)(Y)
      tick()
      return x * g * Y
    end)(X)}
  end},
  {name = "no_grad", want = {X * Y}, run = function(tick)
    return {ad.grad(function(x)
      local k = ad.no_grad(function(a)
        tick()
        local r = a * Y
        tick()
        return r
      end, x)
      tick()
      return k * x
    end)(X)}
  end},
  {name = "checkpoint", want = {D1 * Y}, inner = true, run = function(tick)
    local part = ad.checkpoint(sincube(tick))
    return {ad.grad(function(x)
      tick()
      local r = part(x) * Y
      tick()
      return r
    end)(X)}
  end},
  {name = "custom", want = {3 * X * X * Y, 3 * X * X * Y}, inner = true, run = function(tick)
    local cube = ad.custom{
      name = "cube",
      f = function(x)
        tick()
        return x * x * x
      end,
      vjp = function(ybar, _, x) -- called from a sweep, which cannot yield
        return 3 * ybar * x * x
      end,
      jvp = function(p, t)
        tick()
        return 3 * p[1] * p[1] * t[1]
      end,
    }
    local function f(x)
      tick()
      return cube(x) * Y
    end
    return {ad.grad(f)(X), M.forward(f)(X)}
  end},
  {name = "implicit", want = {0.5 / X ^ 0.5, 0.5 / X ^ 0.5}, inner = true, run = function(tick)
    local root = ad.implicit{
      f = function(x, a)
        tick()
        return x * x - a
      end,
      solve = function(a)
        tick()
        return a ^ 0.5
      end,
    }
    return {ad.grad(root)(X), M.forward(root)(X)}
  end},
}

--- The entries; with `outer_only`, without those marked inner.
function M.battery(outer_only)
  local r = {}
  for _, e in ipairs(battery) do
    if not (outer_only and e.inner) then r[#r + 1] = e end
  end
  return r
end

local function nothing() end

--- Run one entry and check its answer.
function M.check_entry(entry, tick)
  local ok, m = M.is_near(entry.want, entry.run(tick or nothing), 1e-9)
  if not ok then error(entry.name .. ": " .. m, 2) end
end

--- Run all of them undisturbed: a sign that the state is clean.
function M.check_battery(tick)
  for _, e in ipairs(battery) do M.check_entry(e, tick) end
end

return M
