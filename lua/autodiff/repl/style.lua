--- Colours and tracebacks.
local style = {}
style.__index = style

local codes <const> = {
  error = "1;31", place = "36", dim = "2", head = "1", first = "34", second = "31", ok = "32",
}

--- Styles for a stream that is a terminal, or not.
function style.new(terminal)
  local no = os.getenv "NO_COLOR"
  local on = terminal and (no == nil or no == "") and os.getenv "TERM" ~= "dumb"
  return setmetatable({ on = on }, style)
end

--- Text in the colour of `name`.
function style:paint(name, text)
  if not self.on then return text end
  return ("\27[%sm%s\27[0m"):format(codes[name], text)
end

--- An error value as text.
function style.message(value)
  if type(value) == "string" then return value end
  local mt = debug.getmetatable(value)
  if type(mt) == "table" and mt.__tostring then
    local ok, text = pcall(tostring, value)
    if ok and type(text) == "string" then return text end
  end
  if type(value) == "number" then return tostring(value) end
  return ("(error object is a %s value)"):format(type(value))
end

-- Is it a place in the files of the REPL?
local function own(text)
  return text:find "autodiff/repl/%w+%.lua:%d" ~= nil or text:find "autodiff/repl%.lua:%d" ~= nil
end

--- For xpcall: the message with the traceback of what runs above that xpcall, which is to
-- stand in the function that `boundary` names as "[C]: in function 'xpcall'".
function style.handler(value)
  local message = style.message(value)
  -- Ctrl-C found the REPL at work, not the user's code
  if message:find "interrupted!$" and own(message) then message = "interrupted!" end
  return { message = message, trace = debug.traceback("", 2) }
end

-- The frames up to the outermost xpcall, which is the session's own.
local function frames(trace)
  local list, last = {}, nil
  for line in trace:gmatch "[^\n]+" do
    if line:find "^\t" then
      if line:find "'__autodiff_keep'$" then -- the session's own call
        list[#list] = nil
      else
        list[#list + 1] = line:sub(2)
      end
      if line:find "in function 'xpcall'" then last = #list end
    end
  end
  for i = #list, last or #list + 1, -1 do list[i] = nil end
  for i = #list, 1, -1 do
    if own(list[i]) then table.remove(list, i) end
  end
  if list[#list] == "(...tail calls...)" then -- `return f()` is how an expression runs
    list[#list] = nil
  elseif list[#list] then
    list[#list] = list[#list]:gsub("in function <stdin:%d+>$", "in main chunk")
  end
  return list
end

--- The text of an error that `handler` has caught. One frame says nothing that the message
-- does not: it is left out if `short`.
function style:traceback(err, short)
  local out = { self:paint("error", err.message) }
  local list = frames(err.trace)
  if short then
    local lua = 0
    for _, line in ipairs(list) do
      if not line:find "^%[C%]" then lua = lua + 1 end
    end
    if lua <= 1 then return out[1] end
  end
  out[#out + 1] = self:paint("dim", "stack traceback:")
  for _, line in ipairs(list) do
    local place, rest = line:match "^(.-:)( in .*)$"
    if place then line = self:paint("place", place) .. rest end
    out[#out + 1] = "\t" .. line
  end
  if not short then out[#out + 1] = "\t[C]: in ?" end
  return table.concat(out, "\n")
end

return style
