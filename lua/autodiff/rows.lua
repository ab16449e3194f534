--- c:map for functions that are no programs of numbers alone: called row by row.
local core = require "autodiff.core"
local parts = require "autodiff.parts"

local isarray, shapeof = core.array.isarray, core.array.shapeof

local column

-- Numbers, AD values, and arrays.
local function isleaf(v) return type(v) == "number" or core.type(v) ~= nil end

local function samekind(a, b)
  if not isleaf(b) then return false end
  local s, t = shapeof(a), shapeof(b)
  if not (s and t) then return s == t end
  for d = 1, math.max(#s, #t) do
    if s[d] ~= t[d] then return false end
  end
  return true
end

local function leaves(first, sum)
  local values, total = {}, 0.0
  local function add(v)
    if not samekind(first, v) then return false end
    if sum then
      total = total + v
    else
      values[#values + 1] = v
    end
    return true
  end
  local function finish()
    if sum then return total end
    return shapeof(first) and parts.stack(values) or parts.array(values)
  end
  return add, finish
end

-- A list of numbers and nothing else.
local function isnumbers(t)
  local n = 0
  for k, v in next, t do
    if math.type(k) ~= "integer" or not isleaf(v) or shapeof(v) then return false end
    n = n + 1
  end
  return n > 0 and n == #t
end

local function lists(first, sum)
  local n, values = #first, {}
  if sum then
    for k = 1, n do values[k] = 0.0 end
  end
  local function add(v)
    if type(v) ~= "table" or not isnumbers(v) or #v ~= n then return false end
    if sum then
      for k = 1, n do values[k] = values[k] + v[k] end
    else -- f may use its list again
      values[#values + 1] = table.move(v, 1, n, 1, {})
    end
    return true
  end
  return add, function() return sum and values or parts.array(values) end
end

local function tables(first, sum)
  local adds, finishes, n = {}, {}, 0
  for k, v in next, first do
    adds[k], finishes[k] = column(v, sum)
    n = n + 1
  end
  local function add(v)
    if type(v) ~= "table" then return false end
    local count = 0
    for k, x in next, v do
      if not (adds[k] and adds[k](x)) then return false end
      count = count + 1
    end
    return count == n
  end
  local function finish()
    local t = {}
    for k, f in next, finishes do t[k] = f() end
    local meta = getmetatable(first)
    return type(meta) == "table" and setmetatable(t, meta) or t
  end
  return add, finish
end

-- What collects values like this one: a function that takes one, and answers whether it is like
-- it, and one that gives what has come of them.
function column(first, sum)
  if isleaf(first) then return leaves(first, sum) end
  if type(first) ~= "table" then
    return function(v) return rawequal(v, first) end, function() return first end
  end
  return (isnumbers(first) and lists or tables)(first, sum)
end

-- c(...) for rows 1 to n of the arguments; first is what it has returned for row 1, if that has
-- been called. Rows that are no numbers are lists; but if that was an error (failed, and first is
-- that), f may want arrays.
return function(c, n, sum, first, failed, ...)
  local given = table.pack(...)
  local function call(i)
    local args = {}
    for k = 1, given.n do
      local a = given[k]
      if isarray(a) then
        a = a[i]
        if isarray(a) and not failed then a = parts.tolist(a) end
      end
      args[k] = a
    end
    return table.pack(c(table.unpack(args, 1, given.n)))
  end
  if failed then
    local ok, row = pcall(call, 1)
    if not ok then error(row == "not enough memory" and row or first, 0) end
    first = row
  end
  first = first or call(1)
  local adds, results = {}, {}
  for k = 1, first.n do adds[k], results[k] = column(first[k], sum) end
  for i = 1, n do
    local row = i == 1 and first or call(i)
    local same = row.n == first.n
    for k = 1, same and row.n or 0 do same = same and adds[k](row[k]) end
    if not same then
      core.fail(("map: the results of row %d have another form"):format(i))
    end
  end
  for k = 1, first.n do results[k] = results[k]() end
  return table.unpack(results, 1, first.n)
end
