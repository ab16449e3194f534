--- Helpers shared by the specs.
--
-- Everything here looks at the library from outside, through the calls of its public surface, so
-- that a spec written with these helpers stays true whatever the inside becomes.
--
-- Comparisons raise an ordinary error at the caller's line whose text holds both numbers: a
-- failing property over random inputs is worth nothing when its message does not say for which
-- input.

local ad = require "autodiff"

local util = {}

local inf <const> = math.huge
local nan <const> = 0.0 / 0.0

util.inf = inf
util.nan = nan

-- Text --------------------------------------------------------------------------------------------

--- A number with all its digits, anything else as `tostring` has it.
function util.show(x)
  if math.type(x) == "float" and x == x and x ~= inf and x ~= -inf then
    local short = string.format("%.14g", x)
    local text = tonumber(short) == x and short or string.format("%.17g", x)
    return text:find("[.eEn]") and text or text .. ".0"
  elseif type(x) == "table" then
    local parts = {}
    for i, v in ipairs(x) do parts[i] = util.show(v) end
    return "{" .. table.concat(parts, ", ") .. "}"
  end
  return tostring(x)
end

local function complain(what, text, level)
  error((what and what .. ": " or "") .. text, level + 1)
end

-- Comparisons -------------------------------------------------------------------------------------

local function plain(x, what, level)
  if type(x) ~= "number" then
    complain(what, "expected a plain number, got " .. type(x) .. " " .. util.show(x), level + 1)
  end
end

--- `actual` is a plain number within tol*(1 + |expected|) of `expected` (tol 1e-12 unless given).
-- NaN matches NaN, and infinities match themselves only.
function util.close(actual, expected, tol, what, level)
  level = (level or 1) + 1
  tol = tol or 1e-12
  plain(actual, what, level)
  if actual == expected or (actual ~= actual and expected ~= expected) then return end
  local off = math.abs(actual - expected)
  if off ~= off or off > tol * (1 + math.abs(expected)) or math.abs(expected) == inf then
    complain(what, ("expected %s, got %s (off by %.3g, tolerance %.3g)"):format(
      util.show(expected), util.show(actual), off, tol), level)
  end
end

--- Like `close` with a purely relative tolerance, for numbers that may be tiny.
function util.rel(actual, expected, tol, what, level)
  level = (level or 1) + 1
  tol = tol or 1e-12
  plain(actual, what, level)
  if actual == expected or (actual ~= actual and expected ~= expected) then return end
  local off = math.abs(actual - expected) / math.abs(expected)
  if off ~= off or off > tol or math.abs(expected) == inf then
    complain(what, ("expected %s, got %s (relative error %.3g, tolerance %.3g)"):format(
      util.show(expected), util.show(actual), off, tol), level)
  end
end

--- `actual` is a plain number equal to `expected`; NaN equals NaN.
function util.exact(actual, expected, what, level)
  level = (level or 1) + 1
  plain(actual, what, level)
  if actual ~= expected and (actual == actual or expected == expected) then
    complain(what, ("expected exactly %s, got %s"):format(
      util.show(expected), util.show(actual)), level)
  end
end

--- The same number in every respect: value, integer or float, and sign of zero.
function util.same(actual, expected, what, level)
  level = (level or 1) + 1
  util.exact(actual, expected, what, level)
  if math.type(actual) ~= math.type(expected) then
    complain(what, ("expected %s %s, got %s %s"):format(math.type(expected), util.show(expected),
      math.type(actual), util.show(actual)), level)
  end
  if expected == 0 and 1 / actual ~= 1 / expected then
    complain(what, ("expected %s, got %s (sign of zero)"):format(
      util.show(expected), util.show(actual)), level)
  end
end

--- Two structures of numbers agree: the same keys, each number `close`.
function util.close_all(actual, expected, tol, what, level)
  level = (level or 1) + 1
  what = what or "structure"
  if type(expected) ~= "table" then return util.close(actual, expected, tol, what, level) end
  if type(actual) ~= "table" then
    complain(what, "expected a table, got " .. util.show(actual), level)
  end
  for k, v in pairs(expected) do
    util.close_all(actual[k], v, tol, what .. "[" .. tostring(k) .. "]", level)
  end
  for k in pairs(actual) do
    if expected[k] == nil then complain(what, "unexpected key " .. tostring(k), level) end
  end
end

--- Calling f(...) raises an error whose text holds `text` (plain, not a pattern); returns the
-- error.
function util.fails(text, f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then
    for i = 2, results.n do results[i] = util.show(results[i]) end
    complain(nil, ("expected an error with %q, got results (%s)"):format(
      text, table.concat(results, ", ", 2, results.n)), 2)
  end
  local err = results[2]
  if not tostring(err):find(text, 1, true) then
    complain(nil, ("expected an error with %q, got %q"):format(text, tostring(err)), 2)
  end
  return err
end

-- Numerical derivatives ---------------------------------------------------------------------------

--- Derivative of a plain f at x by central differences, extrapolated to step 0 (Ridders' method,
-- as in Press et al., Numerical Recipes, section 5.7). Good to 1e-9 or so for smooth f of
-- moderate size. Returns the estimate and an estimate of its error.
function util.richardson(f, x, h)
  local shrink <const> = 1.4
  h = h or 0.05 * math.max(1, math.abs(x))
  local best, err = nil, inf
  local previous = {}
  for i = 1, 12 do
    local row = {(f(x + h) - f(x - h)) / (2 * h)}
    local factor = shrink * shrink
    for j = 2, i do
      row[j] = (row[j - 1] * factor - previous[j - 1]) / (factor - 1)
      factor = factor * shrink * shrink
      local e = math.max(math.abs(row[j] - row[j - 1]), math.abs(row[j] - previous[j - 1]))
      if e <= err then best, err = row[j], e end
    end
    if i > 1 and math.abs(row[i] - previous[i - 1]) >= 2 * err then break end
    previous = row
    h = h / shrink
  end
  return best, err
end

local function replaced(args, i, v)
  local copy = table.move(args, 1, #args, 1, {})
  copy[i] = v
  return copy
end

--- Richardson's estimate of the derivative of f(args...) with respect to argument i.
function util.richardson_partial(f, args, i, h)
  return util.richardson(function(v) return f(table.unpack(replaced(args, i, v))) end, args[i], h)
end

-- The modes ---------------------------------------------------------------------------------------

--- Every way of getting f(x) and f'(x) of a function of one number: a list of {name =, run =},
-- where run(f, x) returns value and derivative.
util.first_order = {
  {name = "jvp", run = function(f, x) return ad.jvp(f, {x}, {1.0}) end},
  {name = "grad", run = function(f, x)
    return ad.value_and_grad(f)(x)
  end},
  {name = "taylor", run = function(f, x)
    local c = ad.taylor(f, x, 1)
    return c[1], c[2]
  end},
  {name = "derivative", run = function(f, x) return f(x), ad.derivative(f)(x) end},
  {name = "linearize", run = function(f, x)
    local y, lin = ad.linearize(f, x)
    return y, lin(1.0)
  end},
  {name = "vjp", run = function(f, x)
    local y, pull = ad.vjp(f, x)
    return y, (pull(1.0))
  end},
  {name = "tape", run = function(f, x)
    local tape <close> = ad.tape()
    local v = tape:var(x)
    local y = f(v)
    return ad.value(y), (tape:gradient(y, v))
  end},
  {name = "backward", run = function(f, x)
    local v = ad.var(x)
    local y = f(v)
    if ad.type(y) ~= "var" then return y, 0.0 end -- nothing to go back from
    ad.backward({y}, {v})
    return ad.value(y), v.grad
  end},
}

--- The three modes in which every rule of calculus has to be right, by name.
util.core_modes = {util.first_order[1], util.first_order[2], util.first_order[3]}

local function tangent_of(f, x)
  local _, dy = ad.jvp(f, {x}, {1.0})
  return dy
end

--- Every way of getting f''(x): a list of {name =, run =}; run(f, x) returns the second
-- derivative.
util.second_order = {
  {name = "grad of grad", run = function(f, x)
    return (ad.grad(function(u) return (ad.grad(f)(u)) end)(x))
  end},
  {name = "jvp of grad", run = function(f, x)
    return tangent_of(function(u) return (ad.grad(f)(u)) end, x)
  end},
  {name = "grad of jvp", run = function(f, x)
    return (ad.grad(function(u) return tangent_of(f, u) end)(x))
  end},
  {name = "jvp of jvp", run = function(f, x)
    return tangent_of(function(u) return tangent_of(f, u) end, x)
  end},
}

--- The same with the Taylor mode among them.
util.second_order_and_taylor = table.move(util.second_order, 1, 4, 1, {})
util.second_order_and_taylor[5] = {name = "taylor", run = function(f, x)
  return 2 * ad.taylor(f, x, 2)[3]
end}

local function unit(n, i)
  local e = {}
  for k = 1, n do e[k] = k == i and 1.0 or 0.0 end
  return e
end

--- Every way of getting the partial derivative of f(args...) with respect to argument i alone.
-- In some of them the other arguments are AD values with zero tangent, in others plain numbers.
util.partial_modes = {
  {name = "jvp", run = function(f, args, i)
    local _, dy = ad.jvp(f, args, unit(#args, i))
    return dy
  end},
  {name = "jvp, others plain", run = function(f, args, i)
    return tangent_of(function(v) return f(table.unpack(replaced(args, i, v))) end, args[i])
  end},
  {name = "grad", run = function(f, args, i)
    return (ad.grad(f, i)(table.unpack(args)))
  end},
  {name = "grad of all", run = function(f, args, i)
    local all = {}
    for k = 1, #args do all[k] = k end
    return (select(i, ad.grad(f, all)(table.unpack(args))))
  end},
  {name = "tape of all", run = function(f, args, i)
    local tape <close> = ad.tape()
    local vars = tape:var(table.move(args, 1, #args, 1, {}))
    return (tape:gradient(f(table.unpack(vars)), vars))[i]
  end},
  {name = "taylor", run = function(f, args, i)
    return ad.taylor(function(v) return f(table.unpack(replaced(args, i, v))) end, args[i], 1)[2]
  end},
}

--- Every way of getting the second partial derivative with respect to arguments i and j.
util.mixed_modes = {
  {name = "grad of grad", run = function(f, args, i, j)
    return (ad.grad(function(...) return (ad.grad(f, i)(...)) end, j)(table.unpack(args)))
  end},
  {name = "jvp of grad", run = function(f, args, i, j)
    local _, d = ad.jvp(function(...) return (ad.grad(f, i)(...)) end, args, unit(#args, j))
    return d
  end},
  {name = "grad of jvp", run = function(f, args, i, j)
    return (ad.grad(function(...)
      local _, d = ad.jvp(f, {...}, unit(#args, i))
      return d
    end, j)(table.unpack(args)))
  end},
  {name = "jvp of jvp", run = function(f, args, i, j)
    local _, d = ad.jvp(function(...)
      local _, inner = ad.jvp(f, {...}, unit(#args, i))
      return inner
    end, args, unit(#args, j))
    return d
  end},
}

--- f'(x) is `expected` in each of `modes` (all of first_order unless given); so is the value if
-- given.
function util.check_first(what, f, x, value, expected, tol, modes)
  for _, mode in ipairs(modes or util.first_order) do
    local where = ("%s at %s, %s"):format(what, util.show(x), mode.name)
    local y, dy = mode.run(f, x)
    if value then util.close(y, value, tol, where .. ", value", 2) end
    util.close(dy, expected, tol, where, 2)
  end
end

--- f''(x) is `expected` in every composition of modes (Taylor included).
function util.check_second(what, f, x, expected, tol, modes)
  for _, mode in ipairs(modes or util.second_order_and_taylor) do
    util.close(mode.run(f, x), expected, tol,
      ("second derivative of %s at %s, %s"):format(what, util.show(x), mode.name), 2)
  end
end

--- The partial derivatives of f at args are `expected`, a list with one number per argument.
function util.check_partials(what, f, args, expected, tol, modes)
  for _, mode in ipairs(modes or util.partial_modes) do
    for i = 1, #args do
      if expected[i] then
        util.close(mode.run(f, args, i), expected[i], tol,
          ("%s%s by argument %d, %s"):format(what, util.show(args), i, mode.name), 2)
      end
    end
  end
end

--- The second partial derivatives of f at args are `expected[i][j]`; what is nil there is not
-- asked.
function util.check_mixed(what, f, args, expected, tol)
  for _, mode in ipairs(util.mixed_modes) do
    for i = 1, #args do
      for j = 1, #args do
        if expected[i] and expected[i][j] then
          util.close(mode.run(f, args, i, j), expected[i][j], tol,
            ("%s%s by arguments %d and %d, %s"):format(what, util.show(args), i, j, mode.name), 2)
        end
      end
    end
  end
end

-- Random inputs -----------------------------------------------------------------------------------

--- A generator of its own, so that a spec neither depends on `math.random`'s seed nor disturbs
-- it. Same numbers on every machine: L'Ecuyer's 31 bit multiplicative generator.
function util.rng(seed)
  local state = seed % 2147483646 + 1
  local rng = {}
  --- a float in [lo, hi) (default [0, 1))
  function rng.uniform(lo, hi)
    state = state * 48271 % 2147483647
    lo, hi = lo or 0.0, hi or 1.0
    return lo + (hi - lo) * ((state - 1) / 2147483646)
  end
  --- an integer in [lo, hi]
  function rng.int(lo, hi)
    return lo + math.floor(rng.uniform() * (hi - lo + 1))
  end
  function rng.pick(list) return list[rng.int(1, #list)] end
  return rng
end

-- Memory ------------------------------------------------------------------------------------------

--- Kilobytes of memory this process has resident, or nil where there is no /proc. (In pages of 4
-- KB; where they are larger the figures are smaller, and so is what `bounded` asks.)
function util.resident()
  local file = io.open("/proc/self/statm")
  if not file then return nil end
  local _, pages = file:read("n", "n")
  file:close()
  return pages and pages * 4
end

--- Runs step(i) for i = 1..n and checks that memory stays bounded: what Lua's collector counts,
-- at its highest without any collection asked for and after a full one, and what the system says
-- is resident. `slack` is in kilobytes (8192 unless given): the loop must be long enough that a
-- leak is far above it.
function util.bounded(n, step, slack)
  slack = slack or 8192
  for i = 1, n // 10 do step(i) end
  collectgarbage()
  collectgarbage()
  local base, resident = collectgarbage("count"), util.resident()
  local peak = base
  for i = n // 10 + 1, n do
    step(i)
    if i % 16 == 0 then
      local now = collectgarbage("count")
      if now > peak then peak = now end
    end
  end
  local resident_now = util.resident()
  collectgarbage()
  collectgarbage()
  local left = collectgarbage("count") - base
  if left > slack / 8 then
    error(("%d passes left %.0f KB behind"):format(n, left), 2)
  end
  -- The collector lets the heap double before it finishes a cycle.
  if peak > 3 * base + slack then
    error(("memory rose from %.0f KB to %.0f KB in %d passes"):format(base, peak, n), 2)
  end
  if resident and resident_now - resident > 3 * base + slack then
    error(("resident memory rose from %d KB to %d KB in %d passes"):format(
      resident, resident_now, n), 2)
  end
end

-- A Lua of its own --------------------------------------------------------------------------------

local function interpreter()
  local name = os.getenv("LUA")
  if name and name ~= "" then return name end
  local i = -1
  while arg and arg[i] do
    name = arg[i]
    i = i - 1
  end
  -- Without `arg` (a host that embeds Lua) the usual name has to do.
  return name or "lua5.4"
end

--- Runs a script in a fresh Lua that finds the library where this one does; returns what it
-- wrote (errors included) without the last newline. For what cannot be seen from a state that
-- already has the library.
function util.fresh_lua(script, environment)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(("package.path, package.cpath = %q, %q\n"):format(package.path, package.cpath), script)
  file:close()
  local command = ("%s '%s' '%s' 2>&1"):format(environment or "", interpreter(), path)
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  pipe:close()
  os.remove(path)
  return (output:gsub("\n$", ""))
end

return util
