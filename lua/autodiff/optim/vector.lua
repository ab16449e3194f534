--- Functions with several results, as those of least squares and constraints:
-- their values and Jacobians as plain lists.
local ad = require "autodiff"
local core = require "autodiff.core"
local space = require "autodiff.optim.space"

local vector = {}

local Vector = {}
Vector.__index = Vector

--- f from structures of `layout` to structures; `like` has the non-numeric
-- leaves. A Jacobian given by `jacobian(x)` has the form of ad.jacobian's, or is
-- a list or array of rows.
function vector.new(fname, what, f, layout, like, jacobian)
  return setmetatable({
    fname = fname, what = what, f = f, layout = layout, like = like, jacobian = jacobian,
  }, Vector)
end

function Vector:structure(flat)
  return self.layout:unpack(self.layout:unflat(flat), self.like)
end

-- The first result tells what form all have.
function Vector:pack(y, strip)
  if not self.out then self.out = space.layout(self.fname, self.what, y) end
  return self.out:pack(self.what, y, true, strip)
end

--- The values at a list of numbers.
function Vector:values(flat)
  local y = (self.f(self:structure(flat)))
  local list = self:pack(y, true)
  return self.out:flat(list)
end

-- What stands in the places of the result's leaves.
local function gather(node, v, list)
  if node.index then
    list[node.index] = v
  else
    for i, k in ipairs(node.keys) do gather(node[i], type(v) == "table" and v[k] or nil, list) end
  end
  return list
end

function Vector:checked(rows)
  local n, m = self.layout.size, self.out.size
  local ok = type(rows) == "table" and #rows == m
  for i = 1, ok and m or 0 do ok = ok and type(rows[i]) == "table" and #rows[i] == n end
  if not ok then
    space.blame(("%s: the Jacobian of %s must have %d rows of %d numbers"):format(
      self.fname, self.what, m, n))
  end
  return rows
end

-- Rows of a structure of structures.
function Vector:rows(j)
  if core.type(j) == "array" then return self:checked(j:tolist()) end
  local rows = gather(self.out.root, j, {})
  for i = 1, #self.out.leaves do
    local row = rows[i]
    if row == nil then return self:checked(nil) end
    rows[i] = self.layout:flat(self.layout:pack("Jacobian", row, false, true))
  end
  return self:checked(rows)
end

local function unit(n, j)
  local e = {}
  for k = 1, n do e[k] = k == j and 1.0 or 0.0 end
  return e
end

--- The Jacobian at a list of numbers, after the first `values`: a list of rows.
function Vector:jacobianat(flat)
  local layout, out = self.layout, self.out
  local x = self:structure(flat)
  if self.jacobian then return self:rows((self.jacobian(x))) end
  if not layout.arrays and not out.arrays then return self:rows(ad.jacobian(self.f)(x)) end

  local m, n, rows = out.size, layout.size, {}
  if m < n then
    local _, pull = ad.vjp(self.f, x)
    for i = 1, m do
      local g = pull(out:unpack(out:unflat(unit(m, i))))
      rows[i] = layout:flat(layout:pack("gradient", g, false, true))
    end
    return rows
  end
  local _, push = ad.linearize(self.f, x)
  for i = 1, m do rows[i] = {} end
  for j = 1, n do
    local dy = push(layout:unpack(layout:unflat(unit(n, j))))
    local column = out:flat(out:pack("tangent", dy, false, true))
    for i = 1, m do rows[i][j] = column[i] end
  end
  return rows
end

--- The second derivatives along a direction, a list like the values.
function Vector:curvature(flat, direction)
  local layout, f, like = self.layout, self.f, self.like
  local x, v = layout:unflat(flat), layout:unflat(direction)
  local function along(t)
    return (f(layout:unpack(space.axpy(t, v, x), like)))
  end
  local function slope(t)
    local _, dy = ad.jvp(along, { t }, { 1.0 })
    return dy
  end
  local _, d2 = ad.jvp(slope, { 0.0 }, { 1.0 })
  return self.out:flat(self.out:pack("tangent", d2, false, true))
end

return vector
