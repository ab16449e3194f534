--- Operations on arrays while a function is compiled: what is done becomes a
-- call in the program (src/calls.c).
local core = require "autodiff.core"

local kernel = core.array
local M = {}

local MAXDEPTH = 20 -- of tables

-- Appends to `text` what tells v from all that is not the same; gives v, or a
-- copy of its own, and whether that could be done. (Lua's numbers in "%q" are
-- exact, and tell integers from floats.) What is recorded is no part of it:
-- it goes to the end of `lifted`, with the table and the key that it is at.
local function describe(v, text, depth, lifted, table_, key)
  local kind = type(v)
  if kind == "number" or kind == "string" or kind == "boolean" or kind == "nil" then
    text[#text + 1] = ("%q"):format(v)
    return v, true
  elseif kind == "userdata" and kernel.isplain(v) then
    local array = kernel.konstant(v)
    text[#text + 1] = ("array %p"):format(array) -- which stays where it is
    return array, array ~= nil
  elseif kind == "userdata" and core.type(v) and table_ then
    local level, what = core.highest(v)
    text[#text + 1] = "recorded"
    lifted[#lifted + 1] = { value = v, table = table_, key = key }
    return false, level == nil and what ~= nil
  elseif kind ~= "table" or getmetatable(v) ~= nil or depth > MAXDEPTH then
    return nil, false
  end
  local copy, names, length = {}, {}, #v
  text[#text + 1] = "{"
  for i = 1, length do
    local own, ok = describe(v[i], text, depth + 1, lifted, copy, i)
    if not ok then return nil, false end
    copy[i] = own
  end
  for k in pairs(v) do
    if type(k) == "string" then
      names[#names + 1] = k
    elseif math.type(k) ~= "integer" or k < 1 or k > length then
      return nil, false
    end
  end
  table.sort(names)
  for _, k in ipairs(names) do
    text[#text + 1] = ("%q="):format(k)
    local own, ok = describe(v[k], text, depth + 1, lifted, copy, k)
    if not ok then return nil, false end
    copy[k] = own
  end
  text[#text + 1] = "}"
  return copy, true
end

-- f with the values that were lifted out of `at` as its first operands.
local function lifting(f, lifted)
  local n = #lifted
  for i = 1, n do lifted[i].value = nil end
  local function rest(at, count, ...)
    if count == 0 then return f(at, ...) end
    return rest(at, count - 1, select(2, ...))
  end
  return function(at, ...)
    local values = { ... }
    for i = 1, n do lifted[i].table[lifted[i].key] = values[i] end
    return rest(at, n, ...)
  end
end

local function call(listed, name, f, at, ...)
  local text, lifted = { ("%p"):format(f) }, {}
  local own, ok = describe(at, text, 0, lifted)
  if not ok or (listed and #lifted > 0) then
    return kernel.record(f, at, nil, name, listed, ...)
  end
  local key = table.concat(text, " ")
  if #lifted == 0 then return kernel.record(f, own, key, name, listed, ...) end
  local operands = { n = select("#", ...), ... }
  local all = {}
  for i = 1, #lifted do all[i] = lifted[i].value end
  table.move(operands, 1, operands.n, #all + 1, all)
  local n = #lifted + operands.n
  return kernel.record(lifting(f, lifted), own, key, name, false, table.unpack(all, 1, n))
end

--- f(at, ...), where some operands are recorded.
function M.call(name, f, at, ...) return call(false, name, f, at, ...) end

--- f(at, x), where x is a list, or a single operand.
function M.listed(name, f, at, x) return call(true, name, f, at, x) end

return M
