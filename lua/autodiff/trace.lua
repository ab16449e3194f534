--- What `explain` and `graph` share: the record of a run with names for its
-- values, as in the textbooks (Griewank and Walther; Baydin et al., JMLR 18,
-- 2018): inputs v(1-n) .. v0, results of operations v1, v2, ….
local core = require "autodiff.core"

local trace = {}

--- A number as the library prints it, or with fewer digits; the text that
-- stands for an array as it is.
function trace.number(x, digits)
  if type(x) == "string" then return x end
  if core.type(x) == "array" then return core.brief(x) end
  if x ~= x then return "nan" end
  return ("%%.%dg"):format(digits or 14):format(x)
end

-- Keys of a structure in an order that does not change from run to run.
local function before(a, b)
  local ta, tb = math.type(a) or type(a), math.type(b) or type(b)
  if ta ~= tb then return ta < tb end
  if type(a) == "number" or type(a) == "string" then return a < b end
  return false
end

-- Calls leaf(name, number) for every leaf of a skeleton.
local function walk(skeleton, name, leaf)
  if type(skeleton) ~= "table" then
    if skeleton ~= nil then leaf(name, skeleton) end
    return
  end
  local keys = {}
  for k in pairs(skeleton) do keys[#keys + 1] = k end
  table.sort(keys, before)
  for _, k in ipairs(keys) do
    local part
    if type(k) == "string" and k:find "^[%a_][%w_]*$" then
      part = name .. "." .. k
    elseif type(k) == "string" then
      part = ("%s[%q]"):format(name, k)
    else
      part = ("%s[%s]"):format(name, tostring(k))
    end
    walk(skeleton[k], part, leaf)
  end
end

-- What stands for 1 in a shape (nil: a number).
local function seed(shape)
  return shape and core.array.ones(shape) or 1.0
end

local Run = {}
Run.__index = Run

--- Runs f(...) and gives its record: `inputs` and `outputs`, lists of
-- `{name=, node=, value=, seed=}` (node is false for a result that is a constant;
-- the seed is 1, or for an array one of ones, and then `ones` is true),
-- `operations`, their number, and the methods below.
function trace.run(fname, f, ...)
  local run = setmetatable(core.trace(fname, f, ...), Run)
  local n = select("#", ...)
  local inputs, outputs = {}, {}
  for i = 1, n do
    walk(run.inputs[i], "x" .. i, function(name, leaf)
      local node, shape = core.node(leaf)
      inputs[#inputs + 1] = { name = name, node = node, seed = seed(shape), ones = shape }
    end)
  end
  table.sort(inputs, function(a, b) return a.node < b.node end)
  local name = "y"
  for i = 1, #run.results do
    if #run.results > 1 then name = "y" .. i end
    walk(run.results[i], name, function(leaf, k)
      local value = run.values[k]
      local shape = core.array.shapeof(value)
      outputs[#outputs + 1] = { name = leaf, node = run.nodes[k], value = value,
        seed = seed(shape), ones = shape }
    end)
  end
  for _, x in ipairs(inputs) do x.value = run.row(x.node).value end
  run.inputs, run.outputs = inputs, outputs
  run.operations = run.count - #inputs - #run.hidden
  return run
end

--- The index of a node's v: 1 - n .. 0 for inputs, 1, 2, … for operations.
function Run:index(node)
  local lo, hi = 1, #self.hidden + 1
  while lo < hi do -- how many hidden ones come before it
    local mid = (lo + hi) // 2
    if self.hidden[mid] < node then lo = mid + 1 else hi = mid end
  end
  return node - #self.inputs + 1 - (lo - 1)
end

--- The name of a node, with a mark (a dot, a bar) over the v.
function Run:name(node, mark)
  return ("v%s%d"):format(mark or "", self:index(node))
end

--- The first and the last nodes of operations, at most so many of each;
-- one list if that is all of them.
function Run:ends(first, last)
  local head, tail = {}, {}
  if self.operations <= first + last then first, last = self.operations, 0 end
  local node = #self.inputs
  while #head < first do
    if self.row(node) then head[#head + 1] = node end
    node = node + 1
  end
  node = self.count - 1
  while #tail < last do
    if self.row(node) then table.insert(tail, 1, node) end
    node = node - 1
  end
  return head, tail
end

local function operands(self, row, most)
  local list = {}
  for i, o in ipairs(row.operands) do
    if i > most then
      list[i] = "…"
      break
    end
    list[i] = o.node and self:name(o.node) or trace.number(o.value, 8)
  end
  if row.constants and #list <= most then
    list[#list + 1] = ("%d constant%s"):format(row.constants, row.constants > 1 and "s" or "")
  end
  return list
end

--- What a row computes: "v-1 * v0", "exp(v-1)", "sum{v1, v2}".
function Run:formula(row)
  local list = operands(self, row, 4)
  if row.infix == "+*" then
    return ("%s + %s * %s"):format(list[1], list[2], list[3])
  elseif row.infix and #list == 2 then
    -- a negative constant in brackets: 3 - (-2)
    if list[2]:find "^%-" then list[2] = "(" .. list[2] .. ")" end
    if row.infix == "^" and list[1]:find "^%-" then list[1] = "(" .. list[1] .. ")" end
    return ("%s %s %s"):format(list[1], row.infix, list[2])
  elseif row.infix then
    return "-" .. list[1]
  end
  local name = row.op:gsub("^custom '(.*)'", "%1")
  return (row.list and "%s{%s}" or "%s(%s)"):format(name, table.concat(list, ", "))
end

--- Where a row comes from: "file.lua:12".
function Run.place(_, row)
  return row.source and ("%s:%d"):format(row.source, row.line) or ""
end

return trace
