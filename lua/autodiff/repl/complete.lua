--- Completion of names, fields and modules.
--
-- Nothing of the user's runs for it: fields are looked up raw and along `__index` tables, and
-- only values of this library are really asked.
local ad = require "autodiff"
local tokens = require "autodiff.repl.tokens"

local complete = {}
complete.__index = complete

local LINKS <const> = 32 -- of a chain of metatables
local LISTED <const> = 5000

local function isad(v) return type(v) == "userdata" and ad.type(v) ~= nil end

-- Calls visit(table) for what a value's fields are looked up in.
local function chain(v, visit)
  for _ = 1, LINKS do
    if type(v) == "table" and visit(v) then return end
    local mt = debug.getmetatable(v)
    if type(mt) ~= "table" then return end
    local index = rawget(mt, "__index")
    if isad(v) then
      visit(mt)
      return
    elseif type(index) == "function" and type(v) == "userdata" then
      visit(mt) -- such as files of other libraries: methods beside their metamethods
      return
    elseif type(index) ~= "table" then
      return
    end
    v = index
  end
end

-- v[key] without running anything.
local function field(v, key)
  if isad(v) then
    local ok, found = pcall(function() return v[key] end)
    if ok then return found end
    return nil
  end
  local found
  chain(v, function(t)
    found = rawget(t, key)
    return found ~= nil
  end)
  return found
end

local properties <const> = { "value", "grad", "tangent" }

-- The names of v's fields that begin with prefix.
local function fields(v, prefix, methods)
  local found, seen = {}, {}
  local function add(name, value)
    if type(name) ~= "string" or seen[name] or name:sub(1, #prefix) ~= prefix then return end
    if not name:find "^[%a_][%w_]*$" or tokens.keywords[name] then return end
    if name:find "^__" and not prefix:find "^__" then return end
    if methods and type(value) ~= "function" then
      local mt = debug.getmetatable(value)
      if not (type(mt) == "table" and mt.__call) then return end
    end
    seen[name] = true
    found[#found + 1] = name
  end
  if isad(v) and not methods then
    for _, name in ipairs(properties) do
      if ad.type(v) == "var" and name ~= "tangent" or ad.type(v) == "dual" and name ~= "grad" then
        add(name)
      end
    end
  end
  local left = LISTED
  chain(v, function(t)
    for name, value in next, t do
      add(name, value)
      left = left - 1
      if left == 0 then return true end
    end
  end)
  return found
end

-- The entries of a directory, names that end in "/" being directories. There is nothing in Lua
-- that lists them.
local function list(dir)
  local entries = {}
  local pipe = io.popen("ls -1p -- '" .. dir:gsub("'", [['\'']]) .. "' 2>/dev/null")
  if pipe then
    for name in pipe:lines() do entries[#entries + 1] = name end
    pipe:close()
  end
  return entries
end

local function exists(name)
  local file = io.open(name)
  return file ~= nil and file:close()
end

-- Modules that `require` would find, and packages on the way to them (with a dot behind).
local function modules(prefix)
  local found, seen, listed = {}, {}, {}
  local function add(name)
    if not seen[name] and name:sub(1, #prefix) == prefix then
      seen[name] = true
      found[#found + 1] = name
    end
  end
  for name in pairs(package.loaded) do if type(name) == "string" then add(name) end end
  for name in pairs(package.preload) do if type(name) == "string" then add(name) end end
  local parent = prefix:match "^(.*%.)" or ""
  for template in (package.path .. ";" .. package.cpath):gmatch "[^;]+" do
    local base, tail = template:match "^([^?]*)%?(.*)$"
    if base and (base == "" or base:find "/$") then
      local dir = base .. parent:gsub("%.", "/")
      if dir == "" then dir = "./" end
      listed[dir] = listed[dir] or list(dir)
      for _, entry in ipairs(listed[dir]) do
        local sub = entry:match "^([%w_-]+)/$"
        if sub and tail:find "^/" then
          if exists(dir .. sub .. tail) then add(parent .. sub) end
        elseif sub then
          add(parent .. sub .. ".")
        elseif #entry > #tail and entry:sub(-#tail) == tail then
          local name = entry:sub(1, -#tail - 1)
          if name:find "^[%w_-]+$" then add(parent .. name) end
        end
      end
    end
  end
  return found
end

--- A completer for a session; `commands` are the names of its commands.
function complete.new(session, commands, docs)
  return setmetatable({ session = session, commands = commands, docs = docs }, complete)
end

function complete:roots(prefix)
  local found, seen = {}, {}
  local function add(name)
    if not seen[name] and name:sub(1, #prefix) == prefix then
      seen[name] = true
      found[#found + 1] = name
    end
  end
  for name in pairs(self.session.locals) do add(name) end
  for _, name in ipairs(fields(self.session.env, prefix)) do add(name) end
  if prefix ~= "" then
    for name in pairs(tokens.keywords) do add(name) end
  end
  return found
end

-- The value of "a.b[1]:c" as far as it can be had by looking; and whether it can.
function complete:resolve(path)
  local name, rest = path:match "^([%a_][%w_]*)(.*)$"
  if not name then return nil, false end
  local v, known = self.session:get(name)
  if not known then v = field(self.session.env, name) end
  while rest ~= "" do
    local key, after = rest:match "^%.([%a_][%w_]*)(.*)$"
    if not key then
      key, after = rest:match "^%[(%d+)%](.*)$"
      key = math.tointeger(tonumber(key))
    end
    if not key then
      local _
      _, key, after = rest:match "^%[([\"'])([^\"'\\]*)%1%](.*)$"
    end
    if not key then return nil, false end
    v, rest = field(v, key), after
  end
  return v, v ~= nil
end

--- The completions of the text that ends a line: a list of what may stand in the place of its
-- last `n` bytes, and n.
function complete:text(text)
  local command = text:match "^%s*:(%a*)$"
  if command then
    local found = {}
    for _, name in ipairs(self.commands) do
      if name:sub(1, #command) == command then found[#found + 1] = name end
    end
    return found, #command
  end
  local help = text:match "^%s*%?%s*([%w_.:]*)$"
  if help and not help:find "[.:]" then
    local found = {}
    for name in pairs(self.docs() or ad) do
      if name:sub(1, #help) == help then found[#found + 1] = name end
    end
    return found, #help
  end
  local module = text:match "require%s*%(?%s*[\"']([%w_.-]*)$"
  if module then return modules(module), #module end
  if text:find "%-%-" then return {}, 0 end
  local path, separator, prefix = text:match "([%w_.%[%]\"']-)%s*([.:])%s*([%a_]?[%w_]*)$"
  if path and not text:find "%.%.%s*[%a_]?[%w_]*$" then
    path = path:match "[%a_][%w_.%[%]\"']*$" or ""
    local v, known = self:resolve(path)
    if not known then return {}, #prefix end
    return fields(v, prefix, separator == ":"), #prefix
  end
  prefix = text:match "[%a_][%w_]*$" or ""
  -- after a number it is none: 1e
  if text:sub(1, -#prefix - 1):find "%d$" then return {}, 0 end
  return self:roots(prefix), #prefix
end

--- For readline: what may stand in the place of line:sub(from, to). Its idea of a word is not
-- ours: the part before the name that is completed is repeated.
function complete:word(line, from, to)
  local found, n = self:text(line:sub(1, to))
  local kept = line:sub(from, to - n)
  table.sort(found)
  for i, name in ipairs(found) do found[i] = kept .. name end
  return found
end

return complete
