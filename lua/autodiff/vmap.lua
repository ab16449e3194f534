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

--- rules[name](op, at, size, mapped, x1, ..., xn): the results of the
-- operation with the batch as their first axis; `mapped[i]` says whether
-- operand i has it.
M.rules = {}

-- An operation without a rule: one example after the other.
local function oneafterother(op, at, size, mapped, xs)
  local lists
  for b = 1, size do
    local own = {}
    for i = 1, xs.n do own[i] = mapped[i] and xs[i][b] or xs[i] end
    local y = pack(op(at, unpack(own, 1, xs.n)))
    lists = lists or {}
    for q = 1, y.n do
      lists[q] = lists[q] or {}
      lists[q][b] = y[q]
    end
  end
  for q = 1, #lists do lists[q] = array.array(lists[q]) end
  return unpack(lists)
end

--- An operation of prim.lua on values of the batch `key`.
function M.apply(op, def, key, at, ...)
  local xs, mapped, size = pack(...), {}, nil
  for i = 1, xs.n do
    xs[i], mapped[i] = inside(key, xs[i])
    if mapped[i] then size = shapeof(xs[i])[1] end
  end
  local rule = M.rules[def.name]
  local y
  if rule then
    y = pack(rule(op, at, size, mapped, unpack(xs, 1, xs.n)))
  else
    y = pack(oneafterother(op, at, size, mapped, xs))
  end
  for q = 1, y.n do y[q] = batched(key, y[q]) end
  return unpack(y, 1, y.n)
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
