--- Operations on lists of values as a whole: one record on a tape for any
-- number of operands or results, none of which goes through Lua's stack.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local calls = require "autodiff.calls"

local kernel = core.array
local highest, members, record = core.highest, core.members, core.call
local parts, join, count, shapeof = core.parts, core.join, core.count, kernel.shapeof
local operands = kernel.operands

local M = {}

-- What is known of x, an array, a number or a list of those: the number of
-- elements and their shapes (false for numbers), or the one shape.
local function form(x)
  if type(x) ~= "table" then return { shape = shapeof(x) } end
  local w = { n = #x }
  for i = 1, w.n do w[i] = shapeof(x[i]) or false end
  return w
end

local function orzeros(v, shape)
  if v ~= nil and not (type(v) == "number" and v == 0) then return v end
  return shape and kernel.zeros(shape) or 0.0
end

-- v in a form: with zeros for what is 0 or missing.
local function filled(v, w)
  if not w.n then return orzeros(v, w.shape) end
  local list = {}
  for i = 1, w.n do list[i] = orzeros(v[i], w[i]) end
  return list
end

-- Without levels that are gone.
local function plain(x)
  if type(x) ~= "table" then return (operands(x)) end
  local list = {}
  for i = 1, #x do list[i] = operands(x[i]) end
  return list
end

--- Defines `op(at, x)`, where x is an array, a number or a list of those, and
-- so is the result; f is linear in all of x together. Fields of `def`:
--
-- * `name`, for errors and tests;
-- * `f(at, x)`, on plain values;
-- * `transpose(at, form, g)`: the cotangents of x, in its form, from that of
--   the result, which is in its own. `form` is `{shape = ...}`, with nil for a
--   number, or that of a list: `{n = ..., shape, shape, ...}`, with false.
function M.define(def)
  local name, f, transpose = def.name, def.f, def.transpose
  local op

  function op(at, x)
    local key, kind = highest(x)
    if not key then
      if kind then return calls.listed(name, f, at, x) end
      return f(at, plain(x))
    end
    if kind == "batch" then return require("autodiff.vmap").joint(name, op, at, key, x) end
    local primal = parts(key, 0, x)
    local y = op(at, primal)
    local xform, yform = form(primal), form(y)
    if kind ~= "var" then
      local tangents = {}
      for d = 1, count(key, x) do
        local dy = op(at, filled(parts(key, d, x), xform))
        tangents[d] = yform.n and dy or { dy }
      end
      return join(key, kind, y, tangents)
    end
    local mark = members(key, x)
    local handler = { name = name, saved = {} }
    function handler.pull(g)
      local all = transpose(at, xform, filled(yform.n and g or g[1], yform))
      if not xform.n then return { all } end
      local list = {}
      for i = 1, xform.n do
        if mark[i] then list[#list + 1] = all[i] end
      end
      return list
    end
    function handler.push(dots)
      local d, used = dots[1], 0
      if xform.n then
        d = {}
        for i = 1, xform.n do
          used = mark[i] and used + 1 or used
          d[i] = mark[i] and dots[used] or 0.0
        end
      end
      local dy = op(at, filled(d, xform))
      return yform.n and dy or { dy }
    end
    return record(key, handler, yform.n or 1, y, x)
  end

  prim.all[name] = { def = def, op = op }
  return op
end

return M
