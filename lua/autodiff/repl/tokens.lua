--- The words of Lua code that a session has to know about: where its top-level
-- locals are, and where a call has its parentheses. It is used on code that
-- `load` has accepted, so it has no errors of its own.
local tokens = {}

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
return then true until while]]):gmatch "%a+" do
  keywords[word] = true
end
tokens.keywords = keywords

-- The position after a long bracket that opens at `from`, or nil.
local function longbracket(code, from)
  local level = code:match("^%[(=*)%[", from)
  if not level then return nil end
  local _, stop = code:find("]" .. level .. "]", from + #level + 2, true)
  return (stop or #code) + 1
end

local function quoted(code, from)
  local quote, i = code:sub(from, from), from + 1
  while i <= #code do
    local c = code:sub(i, i)
    if c == "\\" then
      i = i + 2
    elseif c == quote then
      return i + 1
    else
      i = i + 1
    end
  end
  return #code + 1
end

--- The list of tokens, each `{kind, text, from, to}`; the kinds are "name", "keyword",
-- "string", "number" and "symbol".
function tokens.split(code)
  local list, i = {}, 1
  local function put(kind, stop)
    list[#list + 1] = { kind = kind, text = code:sub(i, stop - 1), from = i, to = stop - 1 }
    i = stop
  end
  while true do
    i = code:find("%S", i)
    if not i then return list end
    if code:find("^%-%-", i) then
      i = longbracket(code, i + 2) or (code:find("\n", i, true) or #code) + 1
    elseif code:find("^[%a_]", i) then
      local word = code:match("^[%w_]+", i)
      put(keywords[word] and "keyword" or "name", i + #word)
    elseif code:find("^%.?%d", i) then
      local stop = i
      repeat -- an exponent's sign belongs to it
        stop = code:match("^[%w%.]+()", stop)
        local sign = code:find("^[+-]%d", stop) and code:sub(stop - 1, stop - 1)
        local hex = code:find("^0[xX]", i)
        if not (sign and sign:find(hex and "[pP]" or "[eE]")) then break end
        stop = stop + 1
      until false
      put("number", stop)
    elseif code:find("^[\"']", i) then
      put("string", quoted(code, i))
    else
      local stop = longbracket(code, i)
      if stop then
        put("string", stop)
      else
        put("symbol", code:match("^::()", i) or code:match("^%.%.%.?()", i)
          or code:match("^[=~<>]=()", i) or i + 1)
      end
    end
  end
end

local opens = { ["do"] = true, ["function"] = true, ["if"] = true, ["repeat"] = true }
local closes = { ["end"] = true, ["until"] = true }

--- The locals that a chunk declares at its top level: a list of `{name, attrib, at}`, where
-- `at` is the token of the attribute. Also the top-level `return`, if there is one.
function tokens.locals(list)
  local found, depth, i = {}, 0, 1
  while list[i] do
    local t = list[i]
    if t.kind == "keyword" then
      if t.text == "return" and depth == 0 then return found, t end
      if opens[t.text] then depth = depth + 1 end
      if closes[t.text] then depth = depth - 1 end
      if t.text == "local" and depth == 0 then
        if list[i + 1].text == "function" then
          found[#found + 1] = { name = list[i + 2].text }
        else
          repeat
            local var = { name = list[i + 1].text }
            found[#found + 1] = var
            i = i + 2
            if list[i] and list[i].text == "<" then
              var.attrib, var.at = list[i + 1].text, list[i + 1]
              i = i + 3
            end
          until not (list[i] and list[i].text == ",")
          i = i - 1 -- what follows is looked at like the rest
        end
      end
    end
    i = i + 1
  end
  return found
end

--- Splits "f(a, b)" into "f" and "a, b"; nil if code is not a call with parentheses.
function tokens.call(code)
  local list = tokens.split(code)
  local depth = 0
  if #list < 3 or list[#list].text ~= ")" then return nil end
  for i = #list, 1, -1 do
    local text = list[i].kind == "symbol" and list[i].text
    if text == ")" then depth = depth + 1 end
    if text == "(" then
      depth = depth - 1
      if depth == 0 then
        if i == 1 then return nil end
        return code:sub(1, list[i].from - 1), code:sub(list[i].to + 1, list[#list].from - 1)
      end
    end
  end
end

return tokens
