--- Functions of one example, run for a batch.
--
-- f runs once. Its arguments stand for any one example; inside each is an
-- array with all of them along its first axis, on which the operations work.
-- The operations of the table do so by broadcasting (src/vmap.c), those with
-- rules of their own by the rules here, which say what the operation on the
-- whole array is. All of them are differentiable, and so the batch can be
-- inside of what is differentiated or outside.
local core = require "autodiff.core"
local args = require "autodiff.args"
local check = require "autodiff.arrayargs"
local array = require "autodiff.array"
local prim = require "autodiff.prim"

local kernel = core.array
local batched, inside, shapeof = kernel.batched, kernel.inside, kernel.shapeof
local pack, unpack = table.pack, table.unpack

local M = {}

--
-- Rules. rules[name](c, at, x1, ..., xn) gives the results of the operation
-- `c.op` with the batch as their first axis; `c.mapped[i]` says whether
-- operand i has it, `c.size` is its length.
--

local rules = {}
M.rules = rules

-- A batch's x with dimensions of length 1 after the first, `ndim` in all.
local align = array.alignbatch

-- x with the batch, in case it has none.
local function spread(c, i, x)
  if c.mapped[i] then return x end
  return array.broadcast_to(x, { c.size, unpack(shapeof(x) or {}) })
end

local function withbatch(c, shape) return { c.size, unpack(shape or {}) } end

-- A copy of `at` in which axes are those of the whole array.
local function shifted(at)
  local own = {}
  for k, v in pairs(at) do own[k] = v end
  if at.axis then own.axis = at.axis + 1 end
  if at.axes then
    own.axes = {}
    for i, d in ipairs(at.axes) do own.axes[i] = d + 1 end
  end
  if at.shape then own.shape = { false, unpack(at.shape) } end
  return own
end

-- The same key within each element of the batch.
local function within(key)
  if type(key) == "table" then return { {}, unpack(key) } end
  return { {}, key }
end

-- Along axes of one operand.
for _, name in ipairs {
  "sum", "prod", "max", "min", "norm", "logsumexp", "var", "std", "softmax", "log_softmax",
  "cumsum", "argmax", "argmin", "argsort", "take",
} do
  rules[name] = function(c, at, x) return c.op(shifted(at), x) end
end

function rules.ties(c, at, x, y)
  return c.op(shifted(at), spread(c, 1, x), spread(c, 2, y))
end

function rules.permute(c, at, x)
  local own = shifted(at)
  own.positions = inside(c.key, at.positions)
  return c.op(own, x)
end

function rules.scatter(c, at, g)
  local own = shifted(at)
  own.shape[1] = c.size
  return c.op(own, g)
end

function rules.scatter_add(c, at, a, b)
  return c.op(shifted(at), spread(c, 1, a), spread(c, 2, b))
end

function rules.sum_to(c, shape, x)
  local want = withbatch(c, shape)
  local full = table.move({ 1, 1, 1, 1, 1, 1, 1, 1 }, 1, #shapeof(x) - #want, 2, { c.size })
  table.move(want, 2, #want, #full + 1, full)
  local y = c.op(full, x)
  return #full == #want and y or array.reshape(y, want)
end

function rules.broadcast_to(c, shape, x)
  return c.op(withbatch(c, shape), align(x, #shape + 1))
end

function rules.reshape(c, shape, x) return c.op(withbatch(c, shape), x) end

function rules.transpose(c, axes, x)
  local own = { 1 }
  for i, d in ipairs(axes) do own[i + 1] = d + 1 end
  return c.op(own, x)
end

function rules.flip(c, axes, x)
  local own = {}
  for i, d in ipairs(axes) do own[i] = d + 1 end
  return c.op(own, x)
end

function rules.index(c, key, x) return c.op(within(key), x) end

function rules.put(c, at, g)
  return c.op({ shape = withbatch(c, at.shape), key = within(at.key) }, g)
end

function rules.pad(c, widths, x) return c.op({ 0, 0, unpack(widths) }, x) end

function rules.diagonal(c, at, x) return c.op({ at[1] + 1, at[2] + 1 }, x) end

function rules.undiagonal(c, at, g)
  return c.op({ at[1] + 1, at[2] + 1, withbatch(c, at[3]) }, g)
end

-- Operands with all the dimensions that the others have, so that the batch is
-- the first of each.
local function aligned(c, ...)
  local xs, most = pack(...), 0
  for i = 1, xs.n do
    most = math.max(most, #shapeof(xs[i]) - (c.mapped[i] and 1 or 0))
  end
  for i = 1, xs.n do
    if c.mapped[i] then xs[i] = align(xs[i], most + 1) end
  end
  return unpack(xs, 1, xs.n)
end

function rules.matmul(c, at, a, b)
  local sa, sb = shapeof(a), shapeof(b)
  local na, nb = #sa - (c.mapped[1] and 1 or 0), #sb - (c.mapped[2] and 1 or 0)
  if sa[#sa] ~= sb[nb == 1 and #sb or #sb - 1] then -- said of the examples, not of the batch
    kernel.fail(("matmul: shapes %s and %s do not align"):format(
      check.shapetext(table.move(sa, #sa - na + 1, #sa, 1, {})),
      check.shapetext(table.move(sb, #sb - nb + 1, #sb, 1, {}))))
  end
  if na == 1 and c.mapped[1] and not c.mapped[2] and nb == 2 then return c.op(at, a, b) end
  if nb == 1 and c.mapped[2] and not c.mapped[1] and na == 2 then
    return c.op(at, b, array.transpose(a))
  end
  -- vectors as the matrices that they stand for
  if na == 1 then
    local n = table.remove(sa)
    a = array.reshape(a, table.move({ 1, n }, 1, 2, #sa + 1, sa))
  end
  if nb == 1 then
    sb[#sb + 1] = 1
    b = array.reshape(b, sb)
  end
  local y = c.op(at, aligned(c, a, b))
  if na > 1 and nb > 1 then return y end
  local shape = shapeof(y)
  if nb == 1 then table.remove(shape) end
  if na == 1 then table.remove(shape, #shape - (nb == 1 and 0 or 1)) end
  return array.reshape(y, shape)
end

-- What works on the last two dimensions for all others anyway.
for _, name in ipairs {
  "triangle", "trisolve", "lu", "solve", "inv", "det", "slogdet", "cholesky", "qr", "eigh",
  "svd", "cofactor", "rcond", "scale",
} do
  rules[name] = function(c, at, ...) return c.op(at, aligned(c, ...)) end
end

--- For rules: the operands with lengths of 1 behind their batch, so that examples have as many
-- dimensions in one as in the other.
function M.aligned(mapped, ...)
  local xs, dims = pack(...), 0
  for i = 1, xs.n do dims = math.max(dims, #shapeof(xs[i]) - (mapped[i] and 1 or 0)) end
  for i = 1, xs.n do
    local shape = shapeof(xs[i])
    local at = mapped[i] and 2 or 1
    local given = #shape
    for _ = given - at + 2, dims do table.insert(shape, at, 1) end
    if #shape > given then xs[i] = array.reshape(xs[i], shape) end
  end
  return unpack(xs, 1, xs.n)
end

-- An operation without a rule: one example after the other.
local function oneafterother(c, at, ...)
  local xs, lists = pack(...), nil
  for b = 1, c.size do
    local own = {}
    for i = 1, xs.n do own[i] = c.mapped[i] and xs[i][b] or xs[i] end
    local y = pack(c.op(at, unpack(own, 1, xs.n)))
    lists = lists or {}
    for q = 1, y.n do
      lists[q] = lists[q] or {}
      lists[q][b] = y[q]
    end
  end
  if not lists then kernel.fail("vmap: the batch is empty") end
  for q = 1, #lists do lists[q] = array.array(lists[q]) end
  return unpack(lists)
end

--- An operation of prim.lua on values of the batch `key`.
function M.apply(op, def, key, at, ...)
  local xs, c = pack(...), { op = op, key = key, mapped = {} }
  for i = 1, xs.n do
    xs[i], c.mapped[i] = inside(key, xs[i])
    if c.mapped[i] then c.size = shapeof(xs[i])[1] end
  end
  local y = pack((rules[def.name] or oneafterother)(c, at, unpack(xs, 1, xs.n)))
  if def.shared then return unpack(y, 1, y.n) end
  for q = 1, y.n do y[q] = batched(key, y[q]) end
  return unpack(y, 1, y.n)
end

-- The first two axes change places.
local function swapped(x)
  local axes = { 2, 1 }
  for d = 3, #shapeof(x) do axes[d] = d end
  return array.transpose(x, axes)
end

--- An operation of joint.lua: x is a value of the batch, or a list in which
-- there are some.
function M.joint(name, op, at, key, x)
  local c = { mapped = {} }
  local y
  if type(x) == "table" then
    local list = {}
    for i = 1, #x do
      list[i], c.mapped[i] = inside(key, x[i])
      if c.mapped[i] then c.size = shapeof(list[i])[1] end
    end
    for i = 1, #x do list[i] = spread(c, i, list[i]) end
    y = op(at and shifted(at), list)
    return batched(key, name == "stack" and swapped(y) or y)
  end
  local own = inside(key, x)
  y = op(at and shifted(at), name == "unstack" and swapped(own) or own)
  for i = 1, #y do y[i] = batched(key, y[i]) end
  return y
end

--
-- take, where the indices differ along the batch: they are an operand then.
-- at = {axis = }; of the transpose {axis = , shape = }.
--

local gather, ungather

gather = prim.define {
  name = "gather",
  keeps = "x",
  f = function(at, x, positions) return array.take(x, positions, at.axis) end,
  jvp = function(i, d, at, _, _, positions)
    return i == 1 and gather(at, d, positions) or 0.0
  end,
  vjp = function(i, g, at, _, x, positions)
    return i == 1 and ungather({ axis = at.axis, shape = shapeof(x) }, g, positions) or 0.0
  end,
}

ungather = prim.define {
  name = "ungather",
  keeps = "x",
  f = function(at, g, positions)
    return array.scatter_add(kernel.zeros(at.shape), positions, g, at.axis)
  end,
  jvp = function(i, d, at, _, _, positions)
    return i == 1 and ungather(at, d, positions) or 0.0
  end,
  vjp = function(i, g, at, _, _, positions)
    return i == 1 and gather(at, g, positions) or 0.0
  end,
}

-- Positions in one axis that is the batch's and another of length n.
local function within_all(c, positions, n)
  local own = {}
  for d = 1, #shapeof(positions) do own[d] = d == 1 and c.size or 1 end
  return positions + array.reshape(kernel.arange(0, c.size - 1) * n, own)
end

-- {first, ..., last}, added to a list.
local function range(list, first, last)
  for d = first, last do list[#list + 1] = d end
  return list
end

-- The inverse of an order of axes.
local function inverse(order)
  local back = {}
  for i, d in ipairs(order) do back[d] = i end
  return back
end

function rules.gather(c, at, x, positions)
  local axis = at.axis
  if not c.mapped[2] then return array.take(x, positions, axis + 1) end
  local k = #shapeof(positions) - 1 -- dimensions of the indices
  if not c.mapped[1] then
    -- the axes before, the batch, those of the indices, the axes after
    local y = array.take(x, positions, axis)
    local order = range(range({ axis }, 1, axis - 1), axis + 1, #shapeof(y))
    return array.transpose(y, order)
  end
  local shape = shapeof(x)
  local n = shape[axis + 1]
  local order = range(range({ 1, axis + 1 }, 2, axis), axis + 2, #shape)
  local rest = { c.size * n }
  for i = 3, #order do rest[i - 1] = shape[order[i]] end
  local y = array.take(array.reshape(array.transpose(x, order), rest),
    within_all(c, positions, n), 1)
  -- the batch, those of the indices, the axes before, the axes after
  return array.transpose(y, range(range(range({ 1 }, k + 2, k + axis), 2, k + 1), k + axis + 1,
    #shapeof(y)))
end

function rules.ungather(c, at, g, positions)
  local axis, n = at.axis, at.shape[at.axis]
  g = spread(c, 1, g)
  local whole = withbatch(c, at.shape)
  if not c.mapped[2] then
    return array.scatter_add(kernel.zeros(whole), positions, g, axis + 1)
  end
  local k = #shapeof(positions) - 1
  local order = range(range({ 1, axis + 1 }, 2, axis), axis + 2, #whole)
  local moved = {}
  for i, d in ipairs(order) do moved[i] = whole[d] end
  -- the batch, those of the indices, the axes before, the axes after
  local h = array.transpose(g, range(range(range({ 1 }, axis + 1, axis + k), 2, axis), axis + k + 1,
    #shapeof(g)))
  local y = array.scatter_add(kernel.zeros { c.size * n, unpack(moved, 3) },
    within_all(c, positions, n), h, 1)
  return array.transpose(array.reshape(y, moved), inverse(order))
end

--- take(a, indices, axis) where the indices are a value of a batch.
function M.take(a, indices, axis)
  if axis == nil and #shapeof(a) > 1 then a = array.reshape(a, { -1 }) end
  local shape = shapeof(a)
  axis = axis or 1
  if axis < 0 then axis = #shape + 1 + axis end
  local n = shape[axis]
  if not n then kernel.fail(("take: no axis %d"):format(axis)) end
  local positions = core.where(core.lt(indices, 0), indices + (n + 1), indices)
  return gather({ axis = axis }, a, positions)
end

local function axisof(in_axes, i)
  if type(in_axes) ~= "table" then return in_axes end
  local axis = in_axes[i]
  if axis == nil then return 1 end
  return axis
end

local function checkaxis(axis)
  if math.type(axis) == "float" and not math.tointeger(axis) then
    core.badarg(2, "vmap", "number has no integer representation")
  elseif axis ~= false and not math.tointeger(axis) then
    core.badarg(2, "vmap", check.got("integer or false", 1, axis))
  elseif axis == 0 then
    core.badarg(2, "vmap", "no axis 0")
  end
end

-- The leaf x of argument i with its batch first.
local function tofront(x, axis, i)
  local shape = shapeof(x)
  if not shape then
    kernel.fail(("vmap: argument %d has a number where an array is mapped (false keeps it)")
      :format(i))
  end
  local n = #shape
  local k = axis < 0 and n + 1 + axis or axis
  if k < 1 or k > n then
    kernel.fail(("vmap: argument %d has no axis %d (its shape is (%s))")
      :format(i, axis, table.concat(shape, ", ")))
  end
  if k == 1 then return x, shape[1] end
  local order = { k }
  for d = 1, n do
    if d ~= k then order[#order + 1] = d end
  end
  return array.transpose(x, order), shape[k]
end

--- `vmap(f[, in_axes])`.
function M.vmap(...)
  args.callable(1, "vmap", ...)
  local f, in_axes = ...
  if in_axes == nil then in_axes = 1 end
  if type(in_axes) == "table" then
    local own = {}
    for i, axis in pairs(in_axes) do
      checkaxis(axis)
      own[i] = axis
    end
    in_axes = own
  else
    checkaxis(in_axes)
  end
  local function run(key, ...)
    local given, size = pack(...), nil
    for i = 1, given.n do
      local axis = axisof(in_axes, i)
      if axis then
        given[i] = kernel.map(function(leaf)
          local x, length = tofront(leaf, axis, i)
          if size and length ~= size then
            kernel.fail(("vmap: argument %d has a batch of %d, and those before have %d")
              :format(i, length, size))
          end
          size = length
          return batched(key, x)
        end, given[i])
      end
    end
    if not size then kernel.fail("vmap: no argument is mapped") end
    local y = pack(f(unpack(given, 1, given.n)))
    for r = 1, y.n do
      y[r] = kernel.map(function(leaf)
        local x, is = inside(key, leaf)
        return is and x or array.broadcast_to(x, { size, unpack(shapeof(x) or {}) })
      end, y[r])
    end
    return unpack(y, 1, y.n)
  end
  return function(...)
    return kernel.withbatch(run, ...)
  end
end

return M
