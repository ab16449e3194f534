--- Structures as vectors.
--
-- Inside of the methods a point or a gradient is a list of leaves, numbers and
-- arrays, in an order that depends on nothing but the structure's keys. A
-- layout makes such lists of structures and structures of such lists, and has
-- the vector operations.
local ad = require "autodiff"
local core = require "autodiff.core"

local space = {}

local Layout = {}
Layout.__index = Layout

-- The innermost file that is not one of this library's: that is where an
-- error belongs.
local function blame(message)
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then error(message, 0) end
    local own = info.source:find "autodiff/optim%.lua$"
      or info.source:find "autodiff/optim/[%w_]+%.lua$"
    if not own and info.what ~= "C" then return error(message, level) end
    level = level + 1
  end
end
space.blame = blame

-- The same tables are structures as for the transforms: what has a finalizer
-- is a resource.
local function isstructure(v)
  if type(v) ~= "table" then return false end
  local mt = getmetatable(v)
  return not (type(mt) == "table" and mt.__gc)
end

local function isarray(v)
  return type(v) ~= "number" and core.type(core.value(v)) == "array"
end

local function plain(v)
  if type(v) == "number" then return v + 0.0 end
  return core.value(v)
end

local rank = { number = 1, string = 2 }

local function before(a, b)
  local ra, rb = rank[type(a)] or 3, rank[type(b)] or 3
  if ra ~= rb then return ra < rb end
  return ra < 3 and a < b
end

-- Where a node stands, for messages: "[1].w".
local function path(node)
  local parts = {}
  while node.parent do
    local k = node.key
    parts[#parts + 1] = type(k) == "string" and "." .. k or ("[%s]"):format(tostring(k))
    node = node.parent
  end
  for i = 1, #parts // 2 do parts[i], parts[#parts + 1 - i] = parts[#parts + 1 - i], parts[i] end
  return table.concat(parts)
end

local function sameshape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- The layout of a structure. `fname` and `what` are for its messages.
function space.layout(fname, what, x)
  local self = setmetatable({ fname = fname, leaves = {}, size = 0 }, Layout)
  local inside = {}
  local function walk(v, parent, key)
    local node = { parent = parent, key = key }
    if core.type(v) then
      local n = #self.leaves + 1
      self.leaves[n], node.index = node, n
      if isarray(v) then
        v = core.value(v)
        node.array, node.shape = true, table.move(v.shape, 1, #v.shape, 1, {})
        node.size, self.arrays = v.size, true
      else
        node.size = 1
      end
      self.size = self.size + node.size
      return node
    elseif not isstructure(v) then
      return nil
    end
    if inside[v] then blame(fname .. ": a structure contains itself") end
    inside[v] = true
    local keys = {}
    for k, w in next, v do
      if core.type(w) or isstructure(w) then keys[#keys + 1] = k end
    end
    table.sort(keys, before)
    node.keys, node.meta = keys, getmetatable(v)
    for i, k in ipairs(keys) do node[i] = walk(rawget(v, k), node, k) end
    inside[v] = nil
    return node
  end
  self.root = walk(x)
  if #self.leaves == 0 then blame(("%s: %s has no number in it"):format(fname, what)) end
  return self
end

function Layout:name(i, what)
  return what .. path(self.leaves[i])
end

-- The leaves of a structure of this layout. With `exact` it must have no other
-- leaves; with `strip` they become plain.
function Layout:pack(what, x, exact, strip)
  local list, fname = {}, self.fname
  local function wrong(node, expected, v)
    local got = core.type(v) or (v == nil and "nil") or type(v)
    blame(("%s: %s%s: %s expected, got %s"):format(fname, what, path(node), expected, got))
  end
  local function walk(node, v)
    if node.index then
      if node.array then
        if not core.type(v) or not isarray(v) then wrong(node, "array", v) end
        local shape = core.value(v).shape
        if not sameshape(shape, node.shape) then
          blame(("%s: %s%s: shape (%s) expected, got (%s)"):format(fname, what, path(node),
            table.concat(node.shape, ", "), table.concat(shape, ", ")))
        end
      elseif not core.type(v) or isarray(v) then
        wrong(node, "number", v)
      end
      list[node.index] = strip and plain(v) or v
      return
    end
    if type(v) ~= "table" then wrong(node, "table", v) end
    local keys = node.keys
    if exact then
      local n = 0
      for _, w in next, v do
        if core.type(w) or isstructure(w) then n = n + 1 end
      end
      if n > #keys then
        blame(("%s: %s%s has other fields than it had"):format(fname, what, path(node)))
      end
    end
    for i = 1, #keys do walk(node[i], rawget(v, keys[i])) end
  end
  walk(self.root, x)
  return list
end

--- The structure with the leaves of a list. What is no number is taken from
-- `like`, where that is given.
function Layout:unpack(list, like)
  local function walk(node, v)
    if node.index then return list[node.index] end
    local t, keys = {}, node.keys
    if v then
      for k, w in next, v do
        if not (core.type(w) or isstructure(w)) then t[k] = w end
      end
      local mt = getmetatable(v)
      if type(mt) == "table" then setmetatable(t, mt) end
    end
    for i = 1, #keys do rawset(t, keys[i], walk(node[i], v and rawget(v, keys[i]))) end
    return t
  end
  return walk(self.root, like)
end

local function numbers(list, v)
  if type(v) == "table" then
    for i = 1, #v do numbers(list, v[i]) end
  else
    list[#list + 1] = v
  end
end

--- All numbers of a list of leaves, those of arrays row by row.
function Layout:flat(list)
  if not self.arrays then return list end
  local out = {}
  for i, node in ipairs(self.leaves) do
    local v = list[i]
    if node.array then v = v:tolist() end
    numbers(out, v)
  end
  return out
end

--- The list of leaves with these numbers.
function Layout:unflat(flat)
  if not self.arrays then return flat end
  local list, at = {}, 0
  for i, node in ipairs(self.leaves) do
    if node.array then
      local part = table.move(flat, at + 1, at + node.size, 1, {})
      list[i] = ad.reshape(ad.array(part), node.shape)
    else
      list[i] = flat[at + 1]
    end
    at = at + node.size
  end
  return list
end

function Layout:dot(a, b)
  local s = 0.0
  if not self.arrays then
    for i = 1, #a do s = s + a[i] * b[i] end
    return s
  end
  for i, node in ipairs(self.leaves) do
    local p = a[i] * b[i]
    s = s + (node.array and ad.sum(p) or p)
  end
  return s
end

function Layout:norm(a)
  local m = self:maxabs(a)
  if m == 0 or m - m ~= 0 then return m end
  local s = self:dot(a, a)
  if s > 1e-280 and s < 1e280 then return math.sqrt(s) end
  local scaled = space.scale(1 / m, a)
  if not self:finite(scaled) then scaled, m = a, 1.0 end -- m is subnormal
  return m * math.sqrt(self:dot(scaled, scaled))
end

--- The largest absolute value.
function Layout:maxabs(a)
  local m = 0.0
  for i, node in ipairs(self.leaves) do
    local v = a[i]
    if not node.array then
      v = math.abs(v)
    elseif node.size > 0 then
      v = ad.max(ad.abs(v))
    else
      v = 0.0
    end
    if not (v <= m) then m = v end
    if m ~= m then return m end
  end
  return m
end

--- Whether all are finite; if not, the index of the first leaf that is not.
function Layout:finite(a)
  for i, node in ipairs(self.leaves) do
    local d = a[i] - a[i]
    if node.array then d = ad.sum(d) end
    if d ~= 0 then return false, i end
  end
  return true
end

--- y + c x
function space.axpy(c, x, y)
  local z = {}
  for i = 1, #y do z[i] = y[i] + c * x[i] end
  return z
end

function space.scale(c, x)
  local z = {}
  for i = 1, #x do z[i] = c * x[i] end
  return z
end

function space.sub(x, y)
  local z = {}
  for i = 1, #x do z[i] = x[i] - y[i] end
  return z
end

return space
