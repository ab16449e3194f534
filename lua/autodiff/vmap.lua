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

--- take(a, indices, axis) where the indices differ along the batch.
function M.take(a, indices, axis)
  local key = core.highest(indices)
  local positions = inside(key, indices)
  local shape = shapeof(a)
  if axis == nil and #shape > 1 then
    a = array.reshape(a, { -1 })
    shape = shapeof(a)
  end
  axis = axis or 1
  if axis < 0 then axis = #shape + 1 + axis end
  local n = shape[axis]
  if not n then kernel.fail(("take: no axis %d"):format(axis)) end
  positions = core.where(core.lt(positions, 0), positions + (n + 1), positions)
  local own = shapeof(positions) -- the batch first
  local size = own[1]
  local chosen, mapped = inside(key, a)
  if not mapped then
    -- the axes before, the batch, those of the indices, the axes after
    local y = array.take(chosen, positions, axis)
    local axes = { axis }
    for d = 1, #shapeof(y) do
      if d ~= axis then axes[#axes + 1] = d end
    end
    return batched(key, array.transpose(y, axes))
  end
  -- One axis out of the batch's and this: its positions in it.
  local order, rest = { 1, axis + 1 }, {}
  for d = 2, #shape + 1 do
    if d ~= axis + 1 then
      order[#order + 1] = d
      rest[#rest + 1] = shape[d - 1]
    end
  end
  local ones = {}
  for d = 1, #own do ones[d] = d == 1 and size or 1 end
  local offset = array.reshape(kernel.arange(0, size - 1) * n, ones)
  local y = array.take(array.reshape(array.transpose(chosen, order), { size * n, unpack(rest) }),
    positions + offset, 1)
  -- the batch, the axes before, those of the indices, the axes after
  local axes, k = { 1 }, #own - 1
  for d = 1, axis - 1 do axes[#axes + 1] = 1 + k + d end
  for d = 1, k do axes[#axes + 1] = 1 + d end
  for d = axis, #rest do axes[#axes + 1] = 1 + k + d end
  return batched(key, array.transpose(y, axes))
end

local function axisof(in_axes, i)
  if type(in_axes) ~= "table" then return in_axes end
  local axis = in_axes[i]
  if axis == nil then return 1 end
  return axis
end

local function checkaxis(fname, axis)
  if axis ~= false and not math.tointeger(axis) then
    args.bad(2, fname, ("an axis is an integer or false, got %s"):format(type(axis)))
  end
end

-- The leaf x of argument i with its batch first.
local function tofront(x, axis, i)
  local shape = shapeof(x)
  if not shape then
    kernel.fail(("vmap: argument %d has a number where an array is mapped (in_axes = false keeps it)")
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
      checkaxis("vmap", axis)
      own[i] = axis
    end
    in_axes = own
  else
    checkaxis("vmap", in_axes)
  end
  local function run(key, ...)
    local given, size = pack(...), nil
    for i = 1, given.n do
      local axis = axisof(in_axes, i)
      if axis then
        local leaves, n = core.flatten(given[i])
        for q = 1, n do
          local x, length = tofront(leaves[q], axis, i)
          if size and length ~= size then
            kernel.fail(("vmap: argument %d has a batch of %d, and those before have %d")
      :format(i, length, size))
          end
          size = length
          leaves[q] = batched(key, x)
        end
        given[i] = core.unflatten(given[i], leaves)
      end
    end
    if not size then kernel.fail("vmap: no argument is mapped") end
    local y = pack(f(unpack(given, 1, given.n)))
    for r = 1, y.n do
      local leaves, n = core.flatten(y[r])
      for q = 1, n do
        local x, is = inside(key, leaves[q])
        leaves[q] = is and x
          or array.broadcast_to(x, { size, unpack(shapeof(x) or {}) })
      end
      if n > 0 then y[r] = core.unflatten(y[r], leaves) end
    end
    return unpack(y, 1, y.n)
  end
  return function(...)
    return kernel.withbatch(run, ...)
  end
end

return M
