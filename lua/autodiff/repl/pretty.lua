--- Values as a person wants to see them: with bounds on depth and length.
local ad = require "autodiff"
local tokens = require "autodiff.repl.tokens"

local pretty = {}

local DEPTH <const> = 4     -- tables within tables
local ITEMS <const> = 30    -- of one table
local TOTAL <const> = 400   -- of everything
local STRING <const> = 400  -- bytes of a string within a table
local ARRAY <const> = 60    -- elements of an array within a table
local WIDTH <const> = 78

--- A number: floats as %.14g, and with a mark that they are floats.
function pretty.number(x)
  if math.type(x) == "integer" then return ("%d"):format(x) end
  local s = ("%.14g"):format(x)
  if s:find "^%-?%d+$" then s = s .. ".0" end
  return s
end

local escapes = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ['"'] = '\\"' }

local function quote(s)
  local cut = #s > STRING
  if cut then s = s:sub(1, utf8.offset(s, 0, STRING + 1) - 1) end
  -- what is no UTF-8 would confuse a terminal
  local printable = utf8.len(s) and "[%c\\\"]" or "[%c\\\"\128-\255]"
  s = '"' .. s:gsub(printable, function(c)
    return escapes[c] or ("\\%03d"):format(c:byte())
  end) .. '"'
  return cut and s .. "..." or s
end

local function isarray(v)
  return type(v) == "userdata" and ad.type(v) ~= nil and ad.type(ad.value(v)) == "array"
end

local function istable(v)
  local mt = debug.getmetatable(v)
  return type(v) == "table"
    and not (type(mt) == "table" and (rawget(mt, "__tostring") or rawget(mt, "__name")))
end

local function leaf(v)
  if type(v) == "string" then return quote(v) end
  if type(v) == "number" then return pretty.number(v) end
  local ok, s = pcall(tostring, v)
  return ok and s or "<" .. type(v) .. ", __tostring fails>"
end

-- An array in a table: what there is room for; of those that are being
-- differentiated, what they are.
local function array(v, state, indent)
  local kind, plain = ad.type(v), ad.value(v)
  local few = math.min(ARRAY, state.left)
  if kind ~= "array" or few < 1 then
    return ("%s of shape (%s)"):format(kind, table.concat(plain.shape, ", "))
  end
  state.left = state.left - math.min(plain.size, few)
  local text = require "autodiff.show"(plain, { threshold = few, width = WIDTH - indent })
  return (text:gsub("\n", "\n" .. (" "):rep(indent)))
end

-- Numbers first, then strings, then the rest as it comes.
local function keys(t, from)
  local list, rank = {}, { number = 1, string = 2 }
  for k in next, t do
    if not (math.type(k) == "integer" and k >= 1 and k < from) then list[#list + 1] = k end
    if #list > 10000 then break end -- sorting more is not worth the wait
  end
  table.sort(list, function(a, b)
    local ra, rb = rank[type(a)] or 3, rank[type(b)] or 3
    if ra ~= rb then return ra < rb end
    return ra < 3 and a < b
  end)
  return list
end

local function keytext(k)
  if type(k) == "string" and k:find "^[%a_][%w_]*$" and not tokens.keywords[k] then return k end
  return "[" .. leaf(k) .. "]"
end

local render

-- Lines of a table's items: on one line if they fit, else each (or, for numbers, as many as fit)
-- on its own.
local function rendertable(t, state, depth, indent)
  if state.path[t] then return "<cycle>" end
  if next(t) == nil then return "{}" end
  if depth >= DEPTH then return "{...}" end
  state.path[t] = true
  local items, plain, shown, n = {}, true, 0, 0
  local function add(prefix, v)
    if shown >= ITEMS or state.left <= 0 then return false end
    shown, state.left = shown + 1, state.left - 1
    if istable(v) or isarray(v) or type(v) == "string" or prefix ~= "" then plain = false end
    items[#items + 1] = prefix .. render(v, state, depth + 1, indent + 2, #prefix)
    return true
  end
  while rawget(t, n + 1) ~= nil and add("", rawget(t, n + 1)) do n = n + 1 end
  local more
  if rawget(t, n + 1) ~= nil then
    more = ("... %d in all"):format(rawlen(t))
  else
    local list = keys(t, n + 1)
    for i, k in ipairs(list) do
      if not add(keytext(k) .. " = ", rawget(t, k)) then
        more = ("... %d more"):format(#list - i + 1)
        break
      end
    end
  end
  if more then items[#items + 1] = more end
  state.path[t] = nil

  local line = "{" .. table.concat(items, ", ") .. "}"
  if #line + indent <= WIDTH and not line:find "\n" then return line end
  local pad = (" "):rep(indent + 2)
  local out, row = {}, nil
  for _, item in ipairs(items) do
    if plain and row and #row + #item + indent + 5 <= WIDTH then
      row = row .. ", " .. item
    else
      out[#out + 1] = row
      row = item
    end
  end
  out[#out + 1] = row
  return "{\n" .. pad .. table.concat(out, ",\n" .. pad) .. "\n" .. (" "):rep(indent) .. "}"
end

function render(v, state, depth, indent, column)
  if istable(v) then return rendertable(v, state, depth, indent) end
  if depth > 0 and isarray(v) then return array(v, state, indent + column) end
  return leaf(v)
end

--- The text of a value.
function pretty.value(v)
  return render(v, { path = {}, left = TOTAL }, 0, 0)
end

--- The text of several results, of which `n` counts the nils too.
function pretty.results(values)
  local parts, long = {}, false
  for i = 1, values.n do
    local v = values[i]
    -- a string by itself is there to be read: ad.explain, tostring(graph)
    parts[i] = values.n == 1 and type(v) == "string" and v:find "\n" and v or pretty.value(v)
    long = long or parts[i]:find "\n" ~= nil
  end
  return table.concat(parts, long and "\n" or "\t")
end

--- Is it a value of this library's?
function pretty.isad(v)
  return type(v) == "userdata" and ad.type(v) ~= nil
end

return pretty
