--- Random operands for each operation on arrays, by its name in
-- `require("autodiff.prim").all`: for the property tests.
--
-- `samples[name](rng)` gives what the operation is called with: at, x1, ...,
-- xn. `rng` is like math.random. Shapes are random, with dimensions of length
-- 0 and 1 among them; arrays are contiguous, transposed, reversed, parts of
-- others or broadcast. Where an operation is not smooth or not defined at a
-- point, the samples stay away from it.
local ad = require "autodiff"

local M = {}

local function pick(rng, list) return list[rng(#list)] end

--- A random shape of `least` (1) to `most` (3) dimensions. Some are empty,
-- unless `filled` is set.
function M.shape(rng, least, most, filled)
  local shape = {}
  for d = 1, rng(least or 1, most or 3) do
    shape[d] = pick(rng, { 1, 2, 2, 3, 3, 4 })
  end
  if not filled and rng(12) == 1 then shape[rng(#shape)] = 0 end
  return shape
end

local function size(shape)
  local n = 1
  for _, len in ipairs(shape) do n = n * len end
  return n
end

local function nested(shape, d, draw)
  local list = {}
  for i = 1, shape[d] do list[i] = d == #shape and draw() or nested(shape, d + 1, draw) end
  return list
end

--- An array of a shape with elements from `draw`, contiguous.
function M.contiguous(rng, shape, draw)
  draw = draw or function() return 4 * rng() - 2 end
  if size(shape) == 0 then return ad.zeros(shape) end
  return ad.array(nested(shape, 1, draw))
end

--- The same, as likely as not a view that is not contiguous.
function M.array(rng, shape, draw)
  local way = rng(8)
  local n = #shape
  if way == 1 then -- transposed
    local turned, axes = {}, {}
    for d = 1, n do turned[d], axes[d] = shape[n + 1 - d], n + 1 - d end
    return ad.transpose(M.contiguous(rng, turned, draw), axes)
  elseif way == 2 then -- reversed
    return ad.flip(M.contiguous(rng, shape, draw), rng(n))
  elseif way == 3 then -- every other one
    local wide, key = {}, {}
    for d = 1, n do
      wide[d] = 2 * shape[d]
      key[d] = { 1, -1, 2 }
      if shape[d] == 0 then key[d] = {} end
    end
    return M.contiguous(rng, wide, draw)[key]
  end
  return M.contiguous(rng, shape, draw)
end

-- An axis of an array.
local function axisof(rng, x) return rng(x.ndim) end

-- What reductions go by, any number of axes.
local function axes(rng, x, more)
  local list = {}
  for d = 1, x.ndim do
    if rng(2) == 1 then list[#list + 1] = d end
  end
  if rng(3) == 1 or #list == 0 then
    for d = 1, x.ndim do list[d] = d end
  end
  local at = { axes = list, keep = rng(2) == 1 }
  for key, v in pairs(more or {}) do at[key] = v end
  return at
end

-- A sample of a reduction; `filled` for those that need an element.
local function reduction(filled, more)
  return function(rng)
    local x = M.array(rng, M.shape(rng, 1, 3, filled))
    return axes(rng, x, more), x
  end
end

-- Elements that are well apart, in random order; enough for every other one.
local function distinct(rng, shape)
  local values = {}
  for i = 1, 2 ^ #shape * size(shape) do values[i] = i * 0.3 + 0.1 * rng() end
  for i = #values, 2, -1 do
    local j = rng(i)
    values[i], values[j] = values[j], values[i]
  end
  return M.array(rng, shape, function() return table.remove(values) end)
end

local function extremum(rng)
  local x = distinct(rng, M.shape(rng, 1, 3, true))
  return axes(rng, x), x
end

-- Positions, 1 to len, as an array (of any number of them).
local function positions(rng, len)
  return M.contiguous(rng, len == 0 and { 0 } or M.shape(rng, 1, 2),
    function() return rng(len) + 0.0 end)
end

local function choice(rng, x)
  local axis = axisof(rng, x)
  local at = { axis = axis, drop = rng(4) == 1 and x.shape[axis] > 0 }
  at.positions = at.drop and ad.full({ 1 }, rng(x.shape[axis])) or positions(rng, x.shape[axis])
  return at
end

-- The shape of what is taken by `choice`.
local function chosen(shape, at)
  local out = {}
  for d = 1, #shape do
    if d ~= at.axis then
      out[#out + 1] = shape[d]
    elseif not at.drop then
      for _, n in ipairs(at.positions.shape) do out[#out + 1] = n end
    end
  end
  return out
end

local function anything(rng, shape)
  if #shape == 0 then return rng() end
  return M.array(rng, shape)
end

-- Shapes of which the first broadcasts to the second.
local function broadcasting(rng)
  local to = M.shape(rng)
  local from = {}
  local skip = rng(0, #to - 1)
  for d = skip + 1, #to do from[#from + 1] = rng(3) == 1 and 1 or to[d] end
  return from, to
end

-- A key for x[key], and what it leaves of the shape.
local function key(rng, shape)
  local k, out = {}, {}
  for d = 1, rng(#shape) do
    local way = rng(4)
    if way == 1 and shape[d] > 0 then
      k[d] = rng(shape[d])
    elseif way == 2 and shape[d] > 0 then
      local i, j = rng(shape[d]), rng(shape[d])
      if i > j then
        k[d], out[#out + 1] = { i, j, -1 }, i - j + 1
      else
        k[d], out[#out + 1] = { i, j }, j - i + 1
      end
    else
      k[d], out[#out + 1] = {}, shape[d]
    end
  end
  for d = #k + 1, #shape do out[#out + 1] = shape[d] end
  return k, out
end

local function parts(rng)
  local first, list, ends = M.shape(rng), {}, {}
  local axis, last = rng(#first), 0
  for i = 1, rng(3) do
    local shape = table.move(first, 1, #first, 1, {})
    shape[axis] = rng(0, 3)
    list[i] = M.array(rng, shape)
    last = last + shape[axis]
    ends[i] = last
  end
  return { axis = axis, ends = ends }, list, first, axis, last
end

local function permutation(rng, n)
  local p = {}
  for i = 1, n do p[i] = i end
  for i = n, 2, -1 do
    local j = rng(i)
    p[i], p[j] = p[j], p[i]
  end
  return p
end

M.samples = {
  sum = reduction(false),
  prod = reduction(false),
  max = extremum,
  min = extremum,
  norm = reduction(true),
  logsumexp = reduction(true),
  var = reduction(true, { ddof = 0 }),
  std = function(rng)
    local x = distinct(rng, { rng(2, 4), rng(1, 3) })
    return { axes = { 1 }, keep = rng(2) == 1, ddof = rng(0, 1) }, x
  end,
  softmax = function(rng)
    local x = M.array(rng, M.shape(rng))
    return { axes = { axisof(rng, x) }, keep = true }, x
  end,
  softmax_times = function(rng)
    local x = M.array(rng, M.shape(rng, 1, 3, true))
    local at = axes(rng, x)
    return at, x, x:sum(at.axes, at.keep)
  end,
  log_softmax = function(rng)
    local x = M.array(rng, M.shape(rng))
    return { axes = { axisof(rng, x) }, keep = true }, x
  end,
  cumsum = function(rng)
    local x = M.array(rng, M.shape(rng))
    return { axis = axisof(rng, x), reverse = rng(2) == 1 }, x
  end,
  ties = function(rng) -- constant around each point
    local x = distinct(rng, M.shape(rng, 1, 3, true))
    local at = axes(rng, x)
    return at, x, x:max(at.axes, at.keep)
  end,

  reshape = function(rng)
    local shape = M.shape(rng)
    local way, to = rng(3), { size(shape) }
    if way == 1 then to = { 1, size(shape) } end
    if way == 2 then to = table.move(shape, 1, #shape, 2, { 1 }) end
    if size(shape) == 1 and rng(2) == 1 then to = {} end
    return to, M.array(rng, shape)
  end,
  transpose = function(rng)
    local x = M.array(rng, M.shape(rng))
    return permutation(rng, x.ndim), x
  end,
  flip = function(rng)
    local x = M.array(rng, M.shape(rng))
    return axes(rng, x).axes, x
  end,
  permute = function(rng)
    local n = rng(1, 4)
    local x = M.array(rng, { n, rng(1, 3) })
    local columns = {}
    for j = 1, x.shape[2] do columns[j] = permutation(rng, n) end
    return { axis = 1, positions = ad.array(columns):transpose(), back = rng(2) == 1 }, x
  end,
  index = function(rng)
    local shape = M.shape(rng)
    return (key(rng, shape)), M.array(rng, shape)
  end,
  put = function(rng)
    local shape = M.shape(rng)
    local k, part = key(rng, shape)
    return { shape = shape, key = k }, anything(rng, part)
  end,
  take = function(rng)
    local x = M.array(rng, M.shape(rng))
    return choice(rng, x), x
  end,
  scatter = function(rng)
    local x = M.array(rng, M.shape(rng))
    local at = choice(rng, x)
    at.shape = x.shape
    return at, anything(rng, chosen(x.shape, at))
  end,
  scatter_add = function(rng)
    local x = M.array(rng, M.shape(rng))
    local at = choice(rng, x)
    return at, x, anything(rng, chosen(x.shape, at))
  end,
  pad = function(rng)
    local x, widths = M.array(rng, M.shape(rng)), {}
    for k = 1, 2 * x.ndim do widths[k] = rng(0, 2) end
    return widths, x
  end,
  concat = function(rng)
    local at, list = parts(rng)
    return at, list
  end,
  split = function(rng)
    local at, _, first, axis, last = parts(rng)
    first[axis] = last
    return at, M.array(rng, first)
  end,
  stack = function(rng)
    local shape, list = rng(3) > 1 and M.shape(rng) or {}, {}
    for i = 1, rng(1, 4) do list[i] = anything(rng, shape) end
    return nil, list
  end,
  unstack = function(rng)
    local shape = M.shape(rng)
    return nil, M.array(rng, shape)
  end,
  broadcast_to = function(rng)
    local from, to = broadcasting(rng)
    return to, M.array(rng, from)
  end,
  matmul = function(rng) -- matrices, vectors, and batches that broadcast
    local n, k, m = rng(3), rng(12) == 1 and 0 or rng(3), rng(3)
    local a, b = { n, k }, { k, m }
    if rng(4) == 1 then a = { k } end
    if rng(4) == 1 then b = { k } end
    if #a == 2 and rng(3) == 1 then a = { rng(2) == 1 and 2 or 1, n, k } end
    if #b == 2 and rng(3) == 1 then b = { 2, k, m } end
    return nil, M.array(rng, a), M.array(rng, b)
  end,
  diagonal = function(rng)
    local n = rng(0, 3)
    return { 1, 3 }, M.array(rng, { n, rng(2), n })
  end,
  undiagonal = function(rng)
    local n, m = rng(0, 3), rng(2)
    return { 1, 3, { n, m, n } }, M.array(rng, { n, m })
  end,
  sum_to = function(rng)
    local to, from = broadcasting(rng)
    if rng(4) == 1 then to = {} end
    return to, M.array(rng, from)
  end,
}

return M
