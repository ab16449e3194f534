--- Code typed at a prompt: compiled, run, and its top-level locals kept.
--
-- A local of an earlier input is the same variable in later ones, also for the functions that
-- use it. Before the end of each input (or before its top-level `return`) goes a call that hands
-- over a closure of its new locals; a later input that names them is compiled inside a function
-- where they are declared, and its upvalues are then joined with those of that closure.
-- `x <close>` is kept open and closed, last first, when the session ends.
local tokens = require "autodiff.repl.tokens"

local session = {}
session.__index = session

local KEEP <const> = "__autodiff_keep" -- how the call is named in compiled code

--- A session with the globals of `env`.
function session.new(env)
  return setmetatable({ env = env, locals = {}, toclose = {} }, session)
end

-- The closure's variable `name`, as a function and the number of its upvalue.
local function upvalue(f, name)
  for i = 1, 255 do
    local found = debug.getupvalue(f, i)
    if found == nil then return nil end
    if found == name then return f, i end
  end
end

local function closable(value)
  local mt = debug.getmetatable(value)
  return value == nil or value == false or type(mt) == "table" and mt.__close ~= nil
end

local function keeper(self, vars)
  return function(f)
    local values = table.pack(f())
    for i, var in ipairs(vars) do
      local value = values[i]
      if var.attrib == "close" and not closable(value) then
        error(("variable '%s' got a non-closable value"):format(var.name), 2)
      end
      local holder, index = upvalue(f, var.name)
      if not holder then -- the compiler has replaced a constant by its value
        holder, index = function() return value end, 1
      end
      self.locals[var.name] = {
        holder = holder, index = index, const = var.attrib ~= nil,
      }
      if var.attrib == "close" and value then table.insert(self.toclose, value) end
    end
  end
end

-- The locals that code declares, by name once, and the code with the call that keeps them.
local function instrument(code, list)
  local found, ret = tokens.locals(list)
  if #found == 0 then return code, found end
  local seen, vars, names = {}, {}, {}
  for i = #found, 1, -1 do -- of two with the same name the last one stays
    if not seen[found[i].name] then
      seen[found[i].name] = true
      table.insert(vars, 1, found[i])
      table.insert(names, 1, found[i].name)
    end
  end
  local call = (";%s(function() return %s end);"):format(KEEP, table.concat(names, ","))
  local out, last = {}, 1
  for _, var in ipairs(found) do
    if var.attrib == "close" then -- "const" is just as long, so columns stay
      out[#out + 1] = code:sub(last, var.at.from - 1) .. "const"
      last = var.at.to + 1
    end
  end
  if ret then
    out[#out + 1] = code:sub(last, ret.from - 1) .. call .. code:sub(ret.from)
  else
    out[#out + 1] = code:sub(last) .. "\n" .. call
  end
  return table.concat(out), vars
end

local function incomplete(message)
  return message:find "near '?<eof>'?$" ~= nil
end

--- Compiles a chunk or an expression. Results: a function; or nil, a message, and whether more
-- lines could make it right.
function session:compile(code, name)
  name = name or "=stdin"
  local expression = load("return " .. code, name, "t", self.env)
  if not expression then
    local ok, message = load(code, name, "t", self.env)
    if not ok then
      local _, asexpression = load("return " .. code, name, "t", self.env)
      return nil, message, incomplete(message) or incomplete(asexpression)
    end
  else
    code = "return " .. code
  end
  local list = tokens.split(code)
  local body, vars = instrument(code, list)
  local header, done = { "local " .. KEEP .. "=...;" }, {}
  local function declare(var)
    local known = self.locals[var]
    if known and not done[var] then
      done[var] = true
      -- not a constant known to the compiler, but one that it guards
      header[#header + 1] = ("local %s%s = ...;"):format(var, known.const and "<const>" or "")
    end
  end
  for _, t in ipairs(list) do
    if t.kind == "name" then declare(t.text) end
  end
  declare "_ENV" -- which every global uses
  local outer, message = load(
    table.concat(header) .. "return function(...) " .. body .. "\nend", name, "t", self.env)
  if not outer then return nil, message, false end
  local f = outer(keeper(self, vars))
  for i = 1, 255 do
    local var = debug.getupvalue(f, i)
    if var == nil then break end
    local known = self.locals[var]
    if known then debug.upvaluejoin(f, i, known.holder, known.index) end
  end
  return f
end

--- The value of a kept local, and whether there is one.
function session:get(name)
  local known = self.locals[name]
  if not known then return nil, false end
  local _, value = debug.getupvalue(known.holder, known.index)
  return value, true
end

--- Closes what was declared as `<close>`. Errors are handed to `report`.
function session:close(report)
  for i = #self.toclose, 1, -1 do
    local value = self.toclose[i]
    self.toclose[i] = nil
    local mt = debug.getmetatable(value)
    local ok, message = pcall(mt.__close, value, nil)
    if not ok then report(message) end
  end
end

return session
