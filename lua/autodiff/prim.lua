--- Operations on arrays with their rules.
--
-- An operation is called as `op(at, x1, ..., xn)`: `at` is what it needs
-- beside its operands (an axis, a shape: whatever, it is only passed on), and
-- the operands are numbers, arrays and AD values of them. As in
-- autodiff.custom, one level is taken off at a time: rules compute with
-- values of the levels below through operations like this one, and so are
-- differentiated themselves where orders are higher.
local core = require "autodiff.core"

local M = {}

local pack, unpack = table.pack, table.unpack
local highest, members, record = core.highest, core.members, core.call
local isplain = core.array.isplain
local parts, join, count, shapeof = core.parts, core.join, core.count, core.array.shapeof
local operands = core.array.operands
local calls = require "autodiff.calls"

--- All operations by name, for the tests that run through them.
M.all = {}

-- What a rule gets in place of an operand that it needs the shape of only.
local function stub(x) return { shape = shapeof(x) } end

-- Exactly 0, as the sweeps have it?
local function zero(v) return v == nil or (type(v) == "number" and v == 0) end

local function sum(a, b)
  if a == nil then return b end
  return a + b
end

-- Several results without their number.
local function list(y)
  if type(y) ~= "table" then return y end
  return table.move(y, 1, y.n, 1, {})
end

--- The shape of what stands for an operand; nil for a number.
function M.shapeof(x)
  if type(x) == "table" then return x.shape end
  return shapeof(x)
end

--- Zeros in the shape of an operand.
function M.zeroslike(x)
  local shape = M.shapeof(x)
  return shape and core.array.zeros(shape) or 0.0
end

local function batched(...)
  batched = require("autodiff.vmap").apply
  return batched(...)
end

--- f(at, ...), of numbers and plain arrays, for where nothing is differentiated: what is recorded
-- when a function is compiled is called likewise.
function M.plainly(name, f)
  return function(at, ...)
    local key, kind = highest(...)
    if not key and kind then return calls.call(name, f, at, ...) end
    return f(at, operands(...))
  end
end

--- Defines an operation. Fields of `def`:
--
-- * `name`, for errors and tests;
-- * `f(at, x1, ..., xn)`, on plain numbers and arrays; may have several results;
-- * `jvp(i, d, at, y, x1, ..., xn)`: the tangent of the result when operand i
--   has tangent d, in the shape of y;
-- * `jvps(at, y, x, d)`, in its place: for all operands at once, in lists (a
--   tangent that is 0.0 stands for zeros of any shape);
-- * `linear = true`, in its place: f is linear in each operand;
--   `linear = "jointly"`: in all of them together;
-- * `vjp(i, g, at, y, x1, ..., xn)`: the cotangent of operand i, in its shape,
--   when that of the result is g;
-- * `keeps`: what of "x" and "y" the rules look at, "xy" when it is absent. A
--   tape holds only that: of other operands the rules may see no more than
--   `{shape = ...}`, and no y.
-- * `part = true`: the result is x1[at], so that a sweep can add its cotangent
--   to that of x1 in place.
-- * `batch(op, at, size, mapped, x1, ..., xn)`, for vmap: the results of op for a
--   whole batch, which has `size` examples and is the first axis of the results,
--   and of those operands i for which `mapped[i]` is set; without it op is called
--   for one example after the other;
-- * `shared = true`: the result is not one of the batch, but one for all of it.
--
-- Of an operation with several results y is the list of them (with `n`), and
-- so are the tangent and g, in which 0.0 stands for zeros.
function M.define(def)
  local name, f, vjp = def.name, def.f, def.vjp
  local linear = def.linear
  local keeps = def.keeps or "xy"
  local keepx, keepy = keeps:find("x", 1, true), keeps:find("y", 1, true)
  local op

  -- The tangent of y; x and d are lists.
  local function push(at, y, x, d)
    if def.jvps then return def.jvps(at, y, x, d) end
    if linear == "jointly" then
      local all = { n = x.n }
      for i = 1, x.n do
        all[i] = zero(d[i]) and M.zeroslike(x[i]) or d[i]
      end
      return op(at, unpack(all, 1, x.n))
    end
    local t
    for i = 1, x.n do
      if not zero(d[i]) then
        if linear then
          local moved = table.move(x, 1, x.n, 1, {})
          moved[i] = d[i]
          t = sum(t, op(at, unpack(moved, 1, x.n)))
        else
          t = sum(t, def.jvp(i, d[i], at, y, unpack(x, 1, x.n)))
        end
      end
    end
    return t or 0.0
  end

  -- Taylor coefficients: of y from those of x by  k y_k = (jvp along x')_{k-1}.
  local function series(key, at, y, x, n, ...)
    local multiple = type(y) == "table"
    local values = list(y) -- `join` takes every number for a leaf
    local coef = {} -- coef[k][i]
    for k = 1, n do coef[k] = pack(parts(key, k, ...)) end
    local ys = {} -- lists of the leaves of y
    local function leaves(v)
      if not multiple then return { v } end
      return table.move(v, 1, y.n, 1, {})
    end
    if linear and (linear == "jointly" or x.n == 1) then
      for k = 1, n do ys[k] = leaves(push(at, y, x, coef[k])) end
    else
      -- The operands, or their derivatives by t, to order m. What does not depend on t is no
      -- series, and its derivative is 0.0; other zeros are in the shape of the operand.
      local function upto(m, derivative)
        local all = { n = x.n }
        for i = 1, x.n do
          local rest, constant = {}, true
          for k = 0, m do
            local from = derivative and k + 1 or k
            local c = from == 0 and x[i] or coef[from][i]
            if from > 0 and zero(c) then
              c = M.zeroslike(x[i])
            else
              constant = constant and from == 0
              if derivative then c = c * from end
            end
            rest[k] = { c }
          end
          if constant then
            all[i] = derivative and 0.0 or x[i]
          else
            all[i] = m == 0 and rest[0][1] or join(key, "series", rest[0][1], rest)
          end
        end
        return all
      end
      for k = 1, n do
        local known = k == 1 and y or join(key, "series", values, ys)
        local dy = leaves(push(at, known, upto(k - 1), upto(k - 1, true)))
        ys[k] = {}
        for q = 1, multiple and y.n or 1 do
          ys[k][q] = parts(key, k - 1, dy[q]) / k
        end
      end
    end
    return join(key, "series", values, ys, name, ...)
  end

  function op(at, ...)
    local first, second = ...
    if second == nil and isplain(first) then return f(at, first) end
    local key, kind = highest(...)
    if not key then
      if kind then return calls.call(name, f, at, ...) end
      return f(at, operands(...))
    end
    if kind == "batch" then return batched(op, def, key, at, ...) end
    local x = pack(parts(key, 0, ...))
    local y = pack(op(at, unpack(x, 1, x.n)))
    local multiple = y.n > 1
    if not multiple then y = y[1] end
    local result
    if kind == "var" then
      local mark = members(key, pack(...))
      local kept, saved = { n = x.n }, {}
      for i = 1, x.n do
        kept[i] = keepx and x[i] or stub(x[i])
        if keepx then saved[#saved + 1] = x[i] end
      end
      local ykept = keepy and y or nil
      if keepy then
        if multiple then
          table.move(y, 1, y.n, #saved + 1, saved)
        else
          saved[#saved + 1] = y
        end
      end
      local handler = { name = name, operation = true, saved = saved }
      if def.part then handler.key, handler.shape = at, kept[1].shape end
      function handler.pull(g)
        local back = {}
        local own = multiple and g or g[1]
        for i = 1, kept.n do
          if mark[i] then
            back[#back + 1] = vjp(i, own, at, ykept, unpack(kept, 1, kept.n))
          end
        end
        return back
      end
      function handler.push(dots)
        local d, used = { n = kept.n }, 0 -- not x: this closure is on the tape
        for i = 1, kept.n do
          used = mark[i] and used + 1 or used
          d[i] = mark[i] and dots[used] or 0.0
        end
        local dy = push(at, ykept, kept, d)
        return multiple and dy or { dy }
      end
      result = record(key, handler, multiple and y.n or 1, list(y), ...)
    else
      local n = count(key, ...)
      if kind == "series" then
        result = series(key, at, y, x, n, ...)
      else
        local tangents = {}
        for d = 1, n do
          local dy = push(at, y, x, pack(parts(key, d, ...)))
          if multiple and zero(dy) then
            dy = {}
            for q = 1, y.n do dy[q] = 0.0 end
          end
          tangents[d] = multiple and dy or { dy }
        end
        result = join(key, "dual", list(y), tangents, name, ...)
      end
    end
    if multiple then return unpack(result, 1, y.n) end
    return result
  end

  M.all[name] = { def = def, op = op }
  return op
end

return M
