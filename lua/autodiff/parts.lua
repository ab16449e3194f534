--- Parts of arrays, and arrays put together.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local joint = require "autodiff.joint"
local broadcast = require "autodiff.broadcast"
local shapes = require "autodiff.shapes"
local check = require "autodiff.arrayargs"

local kernel = core.array
local define, shapeof = prim.define, prim.shapeof
local reshape, transpose = shapes.reshaped, shapes.transposed
local badarg, text = core.badarg, check.shapetext

local M = {}

local getpart, putpart, take, scatter, padded, split, concat, stack, unstack

getpart = define {
  name = "index",
  keeps = "",
  linear = true,
  part = true,
  f = function(key, x) return kernel.getpart(x, key) end,
  vjp = function(_, g, key, _, x) return putpart({ shape = shapeof(x), key = key }, g) end,
}

putpart = define {
  name = "put",
  keeps = "",
  linear = true,
  f = function(at, g) return kernel.putpart(at.shape, at.key, g) end,
  vjp = function(_, g, at) return getpart(at.key, g) end,
}

-- take: at = {axis = , positions = plain array, drop = the axis goes away}.
take = define {
  name = "take",
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.take(x, at.axis, at.positions, at.drop) end,
  vjp = function(_, g, at, _, x)
    return scatter({ axis = at.axis, positions = at.positions, drop = at.drop,
      shape = shapeof(x) }, g)
  end,
}

scatter = define {
  name = "scatter",
  keeps = "",
  linear = true,
  f = function(at, g) return kernel.scatter(at.shape, at.axis, at.positions, at.drop, g) end,
  vjp = function(_, g, at) return take(at, g) end,
}

local scatter_add = define {
  name = "scatter_add",
  keeps = "",
  linear = "jointly",
  f = function(at, a, b) return kernel.scatter(a, at.axis, at.positions, at.drop, b) end,
  vjp = function(i, g, at) return i == 1 and g or take(at, g) end,
}

-- pad: at = the widths, {before, after, before, after, ...}.
padded = define {
  name = "pad",
  keeps = "",
  linear = true,
  f = function(widths, x) return kernel.pad(x, widths) end,
  vjp = function(_, g, widths, _, x)
    local key, shape = {}, shapeof(x)
    for d = 1, #shape do
      key[d] = { widths[2 * d - 1] + 1, widths[2 * d - 1] + shape[d] }
    end
    return getpart(key, g)
  end,
}

--
-- Several arrays
--

-- at = {axis = , ends = the last positions of the parts}.
concat = joint.define {
  name = "concat",
  f = function(at, list) return kernel.concat(list, at.axis) end,
  transpose = function(at, _, g) return split(at, g) end,
}

split = joint.define {
  name = "split",
  f = function(at, x) return kernel.split(x, at.axis, at.ends) end,
  transpose = function(at, _, g) return concat(at, g) end,
}

-- Along a new first axis; numbers become an array of one dimension.
stack = joint.define {
  name = "stack",
  f = function(_, list) return kernel.plain(list) end,
  transpose = function(_, _, g) return unstack(nil, g) end,
}

unstack = joint.define {
  name = "unstack",
  f = function(_, x) return kernel.unstack(x) end,
  transpose = function(_, form, g)
    return form.shape[1] == 0 and kernel.zeros(form.shape) or stack(nil, g)
  end,
}

--
-- For other files
--

M.getpart = getpart

--- x[key], for AD values.
function M.index(x, key)
  if type(key) == "table" then -- the caller may go on to change it
    local own = {}
    for i = 1, #key do
      local k = key[i]
      own[i] = type(k) == "table" and table.move(k, 1, #k, 1, {}) or k
    end
    key = own
  end
  return getpart(key, x)
end

-- The elements of nested lists and their shape; nil if some are arrays.
local function elements(v)
  local leaves, shape, n = {}, {}, 0
  local function walk(list, d)
    if type(list) ~= "table" then
      n = n + 1
      leaves[n] = list
      return not kernel.isarray(list)
    end
    shape[d] = #list
    for i = 1, #list do
      if not walk(list[i], d + 1) then return false end
    end
    return true
  end
  if walk(v, 1) then return leaves, shape end
end

--- Nested lists of numbers, arrays and AD values. `plain` goes first: it finds
-- what is wrong with them.
function M.array(...)
  local v = (...)
  if type(v) ~= "table" and not kernel.isarray(v) then
    badarg(1, "array", check.got("table", 1, ...))
  end
  if core.type(v) and not kernel.isplain(v) then return v end
  local a = kernel.plain(v)
  if a then return a end
  local leaves, shape = elements(v)
  if leaves then
    local y = stack(nil, leaves)
    return #shape == 1 and y or reshape(shape, y)
  end
  local rows = {}
  for i = 1, #v do rows[i] = type(v[i]) == "table" and M.array(v[i]) or v[i] end
  return stack(nil, rows)
end

--- Nested lists of a's elements.
function M.tolist(...)
  local a = check.array(1, "tolist", ...)
  local key, kind = core.highest(a)
  if not key and not kind then return kernel.tolist(core.stop(a)) end
  local shape, at = shapeof(a), 0
  local size = check.size(shape)
  local flat = #shape == 1 and a or reshape({ size }, a)
  local leaves = unstack(nil, flat)
  local function nest(d)
    local list = {}
    for i = 1, shape[d] do
      if d == #shape then
        at = at + 1
        list[i] = leaves[at]
      else
        list[i] = nest(d + 1)
      end
    end
    return list
  end
  return nest(1)
end

--
-- Public
--

-- A list of at least one array; numbers as well for stack.
local function arrays(name, numbers, ...)
  local list = (...)
  if type(list) ~= "table" then badarg(1, name, check.got("table", 1, ...)) end
  if #list == 0 then badarg(1, name, "list is empty") end
  for i = 1, #list do
    if not (kernel.isarray(list[i]) or numbers and core.type(list[i])) then
      badarg(1, name, ("array expected at index %d, got %s"):format(i, check.typename(list[i])))
    end
  end
  return table.move(list, 1, #list, 1, {})
end

function M.concat(...)
  local list = arrays("concat", false, ...)
  local first = shapeof(list[1])
  local axis = check.axis((select(2, ...)), #first, 1, 2, "concat")
  local ends, last = {}, 0
  for i = 1, #list do
    local shape = shapeof(list[i])
    local fits = #shape == #first
    for d = 1, #shape do fits = fits and (d == axis or shape[d] == first[d]) end
    if not fits then
      core.fail(("concat: shapes %s and %s do not align"):format(text(first), text(shape)))
    end
    last = last + shape[axis]
    ends[i] = last
  end
  return concat({ axis = axis, ends = ends }, list)
end

function M.stack(...)
  local list = arrays("stack", true, ...)
  local first = shapeof(list[1]) or {}
  if #first == 8 then badarg(1, "stack", "at most 8 dimensions") end
  local axis = check.axis((select(2, ...)), #first + 1, 1, 2, "stack")
  for i = 2, #list do
    local shape = shapeof(list[i]) or {}
    if not check.same(first, shape) then
      core.fail(("stack: shapes %s and %s do not align"):format(text(first), text(shape)))
    end
  end
  local y = stack(nil, list)
  if axis == 1 then return y end
  local axes = {}
  for d = 1, #first + 1 do axes[d] = d < axis and d + 1 or d == axis and 1 or d end
  return transpose(axes, y)
end

--- Into n equal parts, or behind each of a list of positions.
function M.split(...)
  local a = check.array(1, "split", ...)
  local how, shape = (select(2, ...)), shapeof(a)
  local axis = check.axis((select(3, ...)), #shape, 1, 3, "split")
  local len, ends = shape[axis], {}
  if type(how) == "table" then
    how = check.integers(how, 2, "split", "positions")
    for i = 1, #how do
      local p = how[i] < 0 and how[i] + len or how[i]
      if p < 0 or p > len or p < (ends[i - 1] or 0) then
        badarg(2, "split", ("positions: %d is out of order or range (length %d)")
          :format(how[i], len))
      end
      ends[i] = p
    end
    ends[#ends + 1] = len
  else
    local n = check.integer(how, 2, "split", ...)
    if n < 1 then badarg(2, "split", "must be positive") end
    if len % n ~= 0 then
      core.fail(("split: axis %d of shape %s does not go into %d equal parts")
        :format(axis, text(shape), n))
    end
    for i = 1, n do ends[i] = i * (len // n) end
  end
  return split({ axis = axis, ends = ends }, a)
end

local places = prim.plainly("positions", function(at, indices)
  return kernel.positions(indices, at.length, at.name)
end)

-- What take and scatter_add do: at, and the array (flat if there is no axis).
local function choice(name, a, indices, axis, n)
  local shape = shapeof(a)
  local flat = axis == nil and #shape > 1
  if flat then
    shape = { check.size(shape) }
    a = reshape(shape, a)
  end
  axis = check.axis(axis, #shape, 1, n, name)
  local drop = false
  if core.type(indices) ~= nil and not kernel.isarray(indices) then
    indices, drop = kernel.full({ 1 }, core.value(indices)), true
  elseif type(indices) == "table" then
    for i = 1, #indices do
      if type(indices[i]) ~= "table" and core.type(indices[i]) == nil then
        badarg(2, name, ("integer expected at index %d, got %s")
          :format(i, check.typename(indices[i])))
      end
    end
    indices = kernel.plain(indices) or badarg(2, name, "indices must not be differentiated")
  elseif kernel.isarray(indices) then
    indices = core.stop(indices)
  else
    badarg(2, name, ("indices expected, got %s"):format(check.typename(indices)))
  end
  local positions = places({ length = shape[axis], name = name }, indices)
  if not drop and #positions.shape + #shape > 9 then badarg(2, name, "at most 8 dimensions") end
  return { axis = axis, positions = positions, drop = drop }, a, flat
end

function M.take(...)
  local a = check.array(1, "take", ...)
  local _, indices, axis = ...
  if core.type(indices) and kernel.isbatch(indices) then
    return require("autodiff.vmap").take(a, core.stop(indices), axis)
  end
  local at, x = choice("take", a, indices, axis, 3)
  return take(at, x)
end

function M.scatter_add(...)
  local a = check.array(1, "scatter_add", ...)
  local _, indices, b, axis = ...
  if core.type(b) == nil then badarg(3, "scatter_add", check.got("array", 3, ...)) end
  local at, x, flat = choice("scatter_add", a, indices, axis, 4)
  local shape, want = shapeof(x), {}
  for d = 1, #shape do
    if d ~= at.axis then
      want[#want + 1] = shape[d]
    elseif not at.drop then
      for _, n in ipairs(at.positions.shape) do want[#want + 1] = n end
    end
  end
  if not check.same(shapeof(b) or {}, want) then
    if #want == 0 or not check.broadcasts(shapeof(b) or {}, want) then
      core.fail(("scatter_add: shapes %s and %s do not align")
        :format(text(want), text(shapeof(b) or {})))
    end
    b = broadcast.to(want, b)
  end
  local y = scatter_add(at, x, b)
  return flat and reshape(shapeof(a), y) or y
end

--- Widths as NumPy has them: one for all sides, {before, after} for all axes,
-- or a list of such for each.
function M.pad(...)
  local a = check.array(1, "pad", ...)
  local _, given, value = ...
  local ndim, widths = #shapeof(a), {}
  local each = type(given) == "table" and type(given[1]) == "table"
  if each and #given ~= ndim then
    badarg(2, "pad", ("%d pairs of widths for an array of %d dimensions"):format(#given, ndim))
  end
  for d = 1, ndim do
    local w = each and given[d] or given
    if type(w) == "table" then
      w = check.integers(w, 2, "pad", "widths")
      if #w ~= 2 then badarg(2, "pad", "a pair of widths is {before, after}") end
    else
      w = check.integer(w, 2, "pad", ...)
      w = { w, w }
    end
    if w[1] < 0 or w[2] < 0 then badarg(2, "pad", "widths must not be negative") end
    widths[2 * d - 1], widths[2 * d] = w[1], w[2]
  end
  local y = padded(widths, a)
  if value == nil or value == 0 and type(value) == "number" then return y end
  if core.type(value) == nil or kernel.isarray(value) then
    badarg(3, "pad", check.got("number", 3, ...))
  end
  return core.where(kernel.pad(kernel.ones(shapeof(a)), widths), y, value)
end

function M.tile(...)
  local a = check.array(1, "tile", ...)
  local reps = (select(2, ...))
  if type(reps) == "table" then
    reps = check.integers(reps, 2, "tile", "reps")
  else
    reps = { check.integer(reps, 2, "tile", ...) }
  end
  local shape, whole = shapeof(a), a
  if #reps > 8 then badarg(2, "tile", "at most 8 dimensions") end
  while #reps < #shape do table.insert(reps, 1, 1) end
  if #shape < #reps then
    while #shape < #reps do table.insert(shape, 1, 1) end
    a = reshape(shape, a)
  end
  for d = 1, #reps do
    if reps[d] < 0 then badarg(2, "tile", "reps must not be negative") end
    if reps[d] ~= 1 then
      local n = shape[d]
      local positions = kernel.reshape(kernel.copy(kernel.broadcast(
        kernel.arange(1, n), { reps[d], n })), { reps[d] * n })
      a = take({ axis = d, positions = positions, drop = false }, a)
    end
  end
  if rawequal(a, whole) and kernel.isplain(a) then return kernel.copy(a) end
  return a
end

return M
