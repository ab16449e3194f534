--- Derivatives compared with extrapolated differences.
local core = require "autodiff.core"
local args = require "autodiff.args"

-- Every numeric leaf of the arguments: its value and how a report names it.
local function inputs(list)
  local leaves = {}
  local function walk(v, name)
    if core.type(v) then
      leaves[#leaves + 1] = { value = core.value(v) + 0.0, name = name }
    elseif type(v) == "table" then
      for k, w in pairs(v) do
        local key = math.type(k) and ("[%s]"):format(k) or ("." .. tostring(k))
        walk(w, name .. key)
      end
    end
  end
  for i = 1, list.n do walk(list[i], "argument " .. i) end
  return leaves
end

-- The arguments with the leaves' values; `wrap(leaf, i)` may say otherwise.
local function rebuild(list, wrap)
  local i = 0
  local function walk(v)
    if core.type(v) then
      i = i + 1
      return wrap(i)
    elseif type(v) == "table" then
      local copy = setmetatable({}, getmetatable(v))
      for k, w in pairs(v) do copy[k] = walk(w) end
      return copy
    end
    return v
  end
  local out = { n = list.n }
  for k = 1, list.n do out[k] = walk(list[k]) end
  return out
end

-- Central differences extrapolated to step 0 (Ridders, Advances in
-- Engineering Software 4(2):75, 1982), for all outputs of g at once: the
-- derivative and an estimate of its error for each.
local function differences(g, x)
  -- wide steps suit most functions; after many rounds the step is small
  -- enough for one whose domain ends near x
  local shrink, rounds, columns = 1.6, 26, 8
  local h = 0.05 * math.max(1, math.abs(x))
  local best, err, rows = {}, {}, {}
  for i = 1, rounds do
    local hi, lo = g(x + h), g(x - h)
    local width = (x + h) - (x - h)
    rows[i] = { {} }
    for k = 1, #hi do rows[i][1][k] = (hi[k] - lo[k]) / width end
    local factor = shrink * shrink
    for j = 2, math.min(i, columns) do
      rows[i][j] = {}
      for k = 1, #hi do
        local a, b = rows[i][j - 1][k], rows[i - 1][j - 1][k]
        local d = a + (a - b) / (factor - 1)
        rows[i][j][k] = d
        local e = math.max(math.abs(d - a), math.abs(d - b))
        if e == e and (err[k] == nil or e <= err[k]) then best[k], err[k] = d, e end
      end
      factor = factor * shrink * shrink
    end
    h = h / shrink
  end
  return best, err
end

-- The list of `n` numbers of which number `i` is 1.
local function unit(n, i)
  local e = {}
  for k = 1, n do e[k] = k == i and 1.0 or 0.0 end
  return e
end

-- All numbers among f's results, as one list.
local function outputs(...)
  return (core.flatten({ ... }))
end

-- Fixed weights that make one number of several outputs.
local function weighted(list)
  local s = 0.0
  for i = 1, #list do s = s + list[i] * (1 + 0.37 * (i % 5)) end
  return s
end

--- `check(f, args[, opts])`: true, or false and a report.
--
-- `opts.order` 2 compares second derivatives too (default 1); `opts.tol` is
-- the relative tolerance (default 1e-6), to which the differences' own error
-- estimate is added.
local function check(...)
  args.callable(1, "check", ...)
  args.table(2, "check", ...)
  local f, list, opts = ...
  if opts == nil then opts = {} end
  args.table(3, "check", f, list, opts)
  local tol, order = opts.tol or 1e-6, opts.order or 1
  if type(tol) ~= "number" then
    args.bad(3, "check", "field 'tol': number expected, got " .. type(tol))
  end
  if order ~= 1 and order ~= 2 then args.bad(3, "check", "field 'order' must be 1 or 2") end

  local given = { n = list.n or #list, table.unpack(list, 1, list.n or #list) }
  local leaves = inputs(given)
  local report = {}

  local function compare(what, name, output, got, want, err)
    local scale = math.max(1, math.abs(got), math.abs(want))
    -- written so that a NaN on one side only is a disagreement
    if (got ~= got and want ~= want) or got == want
      or math.abs(got - want) <= tol * scale + 10 * err then
      return
    end
    report[#report + 1] = ("%s by %s%s: %.10g, differences give %.10g (± %.1g)")
      :format(what, name, output, got, want, err)
  end

  -- f as a function of the leaf values x
  local function at(x)
    local a = rebuild(given, function(i) return x[i] end)
    return f(table.unpack(a, 1, a.n))
  end
  local function point(i, v)
    local x = {}
    for k = 1, #leaves do x[k] = leaves[k].value end
    if i then x[i] = v end
    return x
  end
  local function flat(x) return outputs(at(x)) end
  local function scalar(x) return weighted(flat(x)) end

  local x0 = point()
  local y0 = flat(x0)
  local _, pull = core.vjp(flat, x0)
  local rows = {}
  for i = 1, #y0 do
    rows[i] = pull(unit(#y0, i))
  end
  for j, leaf in ipairs(leaves) do
    local _, column = core.jvp(flat, { x0 }, { unit(#leaves, j) })
    local want, err = differences(function(v)
      local y = flat(point(j, v))
      for k = 1, #y do y[k] = core.value(y[k]) end
      return y
    end, leaf.value)
    for i = 1, #y0 do
      local output = #y0 > 1 and (" of output " .. i) or ""
      local w, e2 = want[i] or 0 / 0, err[i] or 0
      compare("forward derivative", leaf.name, output, core.value(column[i]), w, e2)
      compare("reverse derivative", leaf.name, output, core.value(rows[i][j]), w, e2)
    end
  end

  if order == 2 then
    local gradient = core.grad(scalar)
    for j, leaf in ipairs(leaves) do
      local e = unit(#leaves, j)
      local function slope(x)
        local _, d = core.jvp(scalar, { x }, { e })
        return d
      end
      local want, err = differences(function(v)
        local g = gradient(point(j, v))
        for k = 1, #g do g[k] = core.value(g[k]) end
        return g
      end, leaf.value)
      local _, fr = core.jvp(gradient, { x0 }, { e })
      local rf = core.grad(slope)(x0)
      local rr = core.grad(function(x) return gradient(x)[j] end)(x0)
      for i, other in ipairs(leaves) do
        local _, ff = core.jvp(slope, { x0 }, { unit(#leaves, i) })
        local name = leaf.name .. " and " .. other.name
        local w, e2 = want[i] or 0 / 0, err[i] or 0
        compare("second derivative (forward over reverse)", name, "", core.value(fr[i]), w, e2)
        compare("second derivative (reverse over forward)", name, "", core.value(rf[i]), w, e2)
        compare("second derivative (reverse over reverse)", name, "", core.value(rr[i]), w, e2)
        compare("second derivative (forward over forward)", name, "", core.value(ff), w, e2)
      end
    end
  end

  if #report == 0 then return true end
  return false, "check: " .. table.concat(report, "\ncheck: ")
end

return check
