--- Derivatives compared with extrapolated differences.
local core = require "autodiff.core"
local args = require "autodiff.args"

local isarray, shapeof, array = core.array.isarray, core.array.shapeof, core.array

-- "{2, 3}" for element number e (from 1) of an array of the given shape.
local function index(shape, e)
  local list = {}
  e = e - 1
  for d = #shape, 1, -1 do
    list[d] = e % shape[d] + 1
    e = e // shape[d]
  end
  return "{" .. table.concat(list, ", ") .. "}"
end

-- The elements of a plain array in one list.
local function elements(a)
  local list = {}
  local function walk(v)
    if type(v) == "table" then
      for i = 1, #v do walk(v[i]) end
    else
      list[#list + 1] = v
    end
  end
  walk(array.tolist(a))
  return list
end

-- The array of the given shape with the elements of a list from `first` on.
local function fromlist(shape, list, first)
  local function part(d)
    local t = {}
    for i = 1, shape[d] do
      if d == #shape then
        t[i], first = list[first], first + 1
      else
        t[i] = part(d + 1)
      end
    end
    return t
  end
  for d = 1, #shape do
    if shape[d] == 0 then return array.zeros(shape) end
  end
  return array.plain(part(1))
end

-- Every number in the arguments: its value and how a report names it.
local function inputs(list)
  local leaves, inside = {}, {}
  local function walk(v, name)
    if core.type(v) and isarray(v) then
      local shape = shapeof(v)
      for e, x in ipairs(elements(core.value(v))) do
        leaves[#leaves + 1] = { value = x, name = name .. ", index " .. index(shape, e) }
      end
    elseif core.type(v) then
      leaves[#leaves + 1] = { value = core.value(v) + 0.0, name = name }
    elseif type(v) == "table" then
      if inside[v] then error("check: a structure contains itself", 0) end
      inside[v] = true
      for k, w in pairs(v) do
        local key = math.type(k) and ("[%s]"):format(k) or ("." .. tostring(k))
        walk(w, name .. key)
      end
      inside[v] = nil
    end
  end
  for i = 1, list.n do walk(list[i], "argument " .. i) end
  return leaves
end

-- The arguments with the numbers of the list x in the order of `inputs`.
local function rebuild(list, x)
  local i = 0
  local function walk(v)
    if core.type(v) and isarray(v) then
      local shape, first = shapeof(v), i + 1
      i = i + v.size
      return fromlist(shape, x, first)
    elseif core.type(v) then
      i = i + 1
      return x[i]
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

-- The numbers in a structure of the form of the arguments, in that order;
-- nil: zeros.
local function numbers(list, like)
  local out = {}
  local function walk(v, w)
    if core.type(v) and isarray(v) then
      local own = w ~= nil and isarray(w) and elements(core.value(w))
      for e = 1, v.size do
        out[#out + 1] = own and own[e] or w ~= nil and core.value(w) or 0.0
      end
    elseif core.type(v) then
      out[#out + 1] = w ~= nil and core.value(w) or 0.0
    elseif type(v) == "table" then
      for k, part in pairs(v) do walk(part, w ~= nil and w[k] or nil) end
    end
  end
  for k = 1, like.n do walk(like[k], list[k]) end
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

-- All numbers and arrays among f's results, as one list.
local function outputs(...)
  core.flatten({ ... }, nil, "check") -- refuses what contains itself
  return require "autodiff.leaves".sorted({ ... })
end

-- The numbers in such a list, and where each comes from.
local function flatten(list)
  local out, from = {}, {}
  for i, y in ipairs(list) do
    if isarray(y) then
      for e, x in ipairs(elements(core.value(y))) do
        out[#out + 1], from[#from + 1] = x, { i, e }
      end
    else
      out[#out + 1], from[#from + 1] = core.value(y), { i }
    end
  end
  return out, from
end

-- Fixed weights that make one number of several outputs.
local function weighted(list)
  local s, n = 0.0, 0
  for i = 1, #list do
    local y = list[i]
    if isarray(y) then
      local w, size = {}, y.size
      for e = 1, size do w[e] = 1 + 0.37 * ((n + e) % 5) end
      n = n + size
      y = require "autodiff.array".like(y * fromlist(shapeof(y), w, 1), 0.0)
      s = s + y
    else
      n = n + 1
      s = s + y * (1 + 0.37 * (n % 5))
    end
  end
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

  -- f as a function of the list of its arguments
  local function results(a) return outputs(f(table.unpack(a, 1, given.n))) end
  local function scalar(a) return weighted(results(a)) end
  local function point(i, v)
    local x = {}
    for k = 1, #leaves do x[k] = leaves[k].value end
    if i then x[i] = v end
    local a = rebuild(given, x)
    a.n = nil
    return a
  end
  local function direction(i)
    local a = rebuild(given, unit(#leaves, i))
    a.n = nil
    return a
  end

  local x0 = point()
  local ys, pull = core.vjp(results, x0)
  local y0, from = flatten(ys)
  local rows = {}
  for i, where in ipairs(from) do
    local seeds = {}
    for k, y in ipairs(ys) do
      local own = k == where[1]
      if isarray(y) then
        local shape = shapeof(y)
        seeds[k] = own and fromlist(shape, unit(y.size, where[2]), 1) or array.zeros(shape)
      else
        seeds[k] = own and 1.0 or 0.0
      end
    end
    rows[i] = numbers(pull(seeds), given)
  end
  local function named(i)
    if #y0 == 1 then return "" end
    local where = from[i]
    local name = #ys > 1 and (" of output " .. where[1]) or " of the result"
    if not where[2] then return name end
    return name .. ", index " .. index(shapeof(ys[where[1]]), where[2])
  end
  for j, leaf in ipairs(leaves) do
    local _, dy = core.jvp(results, { x0 }, { direction(j) })
    local column = flatten(dy)
    local want, err = differences(function(v)
      return (flatten(results(point(j, v))))
    end, leaf.value)
    for i = 1, #y0 do
      local w, e2 = want[i] or 0 / 0, err[i] or 0
      compare("forward derivative", leaf.name, named(i), column[i], w, e2)
      compare("reverse derivative", leaf.name, named(i), rows[i][j], w, e2)
    end
  end

  if order == 2 then
    local gradient = core.grad(scalar)
    for j, leaf in ipairs(leaves) do
      local e = direction(j)
      local function slope(x)
        local _, d = core.jvp(scalar, { x }, { e })
        return d
      end
      local want, err = differences(function(v)
        return numbers(gradient(point(j, v)), given)
      end, leaf.value)
      local _, fr = core.jvp(gradient, { x0 }, { e })
      local rf = core.grad(slope)(x0)
      -- gradient . e, which the list of outputs makes one number of
      local rr = core.grad(function(x)
        local g, s = core.flatten(e, gradient(x)), 0.0
        for k, d in ipairs((core.flatten(e))) do
          if isarray(d) then
            s = s + require "autodiff.array".like(d * g[k], 0.0)
          else
            s = s + d * g[k]
          end
        end
        return s
      end)(x0)
      fr, rf, rr = numbers(fr, given), numbers(rf, given), numbers(rr, given)
      for i, other in ipairs(leaves) do
        local _, ff = core.jvp(slope, { x0 }, { direction(i) })
        local name = leaf.name .. " and " .. other.name
        local w, e2 = want[i] or 0 / 0, err[i] or 0
        compare("second derivative (forward over reverse)", name, "", fr[i], w, e2)
        compare("second derivative (reverse over forward)", name, "", rf[i], w, e2)
        compare("second derivative (reverse over reverse)", name, "", rr[i], w, e2)
        compare("second derivative (forward over forward)", name, "", core.value(ff), w, e2)
      end
    end
  end

  if #report == 0 then return true end
  return false, "check: " .. table.concat(report, "\ncheck: ")
end

return check
