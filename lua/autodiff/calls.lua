--- Operations on arrays while a function is compiled: what is done becomes a
-- call in the program (src/calls.c).
local core = require "autodiff.core"

local kernel = core.array
local M = {}

local MAXDEPTH = 20 -- of tables

-- Appends to `text` what tells v from all that is not the same; gives v, or a
-- copy of its own, and whether that could be done. (Lua's numbers in "%q" are
-- exact, and tell integers from floats.)
local function describe(v, text, depth)
  local kind = type(v)
  if kind == "number" or kind == "string" or kind == "boolean" or kind == "nil" then
    text[#text + 1] = ("%q"):format(v)
    return v, true
  elseif kind == "userdata" and kernel.isplain(v) then
    local array, number = kernel.konstant(v)
    text[#text + 1] = ("array %d"):format(number or 0)
    return array, number ~= nil
  elseif kind ~= "table" or getmetatable(v) ~= nil or depth > MAXDEPTH then
    return nil, false
  end
  local copy, names, length, ok = {}, {}, #v, true
  text[#text + 1] = "{"
  for i = 1, length do
    copy[i], ok = describe(v[i], text, depth + 1)
    if not ok then return nil, false end
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
    copy[k], ok = describe(v[k], text, depth + 1)
    if not ok then return nil, false end
  end
  text[#text + 1] = "}"
  return copy, true
end

local function call(listed, name, f, at, ...)
  local text = { ("%p"):format(f) }
  local own, ok = describe(at, text, 0)
  if not ok then own = at end
  return kernel.record(f, own, ok and table.concat(text, " ") or nil, name, listed, ...)
end

--- f(at, ...), where some operands are recorded.
function M.call(name, f, at, ...) return call(false, name, f, at, ...) end

--- f(at, x), where x is a list, or a single operand.
function M.listed(name, f, at, x) return call(true, name, f, at, x) end

return M
