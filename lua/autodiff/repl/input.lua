--- Where lines come from: readline if Debian's lua-readline (or the rock `readline`) is there,
-- else plain reads. And the history, one file for all sessions, which is never worth an error.
local core = require "autodiff.core"

local input = {}

local KEEP <const> = 2000 -- entries of the history

--- The history's file: AUTODIFF_HISTORY (empty: none), or autodiff/history in the user's
-- directory for state.
function input.historyfile()
  local own = os.getenv "AUTODIFF_HISTORY"
  if own then return own ~= "" and own or nil end
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if state and state:find "^/" then return state .. "/autodiff/history" end
  return home and home ~= "" and home .. "/.local/state/autodiff/history" or nil
end

-- An entry of several lines is one line of the file.
local function encode(s) return (s:gsub("[\\\n]", { ["\\"] = "\\\\", ["\n"] = "\\n" })) end
local function decode(s) return (s:gsub("\\(.)", { ["\\"] = "\\", n = "\n" })) end

local function readhistory(name)
  local list = {}
  local file = name and io.open(name)
  if not file then return list end
  -- a directory opens, and fails when it is read
  pcall(function()
    for line in file:lines() do list[#list + 1] = decode(line) end
  end)
  file:close()
  if #list > KEEP then
    list = table.move(list, #list - KEEP + 1, #list, 1, {})
    file = io.open(name, "w")
    if file then
      for _, entry in ipairs(list) do file:write(encode(entry), "\n") end
      file:close()
    end
  end
  return list
end

-- Opened at the first entry; its directory is made if it has none.
local function openhistory(name)
  if not name then return nil end
  local file = io.open(name, "a")
  local dir = name:match "^(.+)/[^/]*$"
  if not file and dir then
    os.execute("mkdir -p -- '" .. dir:gsub("'", [['\'']]) .. "' 2>/dev/null")
    file = io.open(name, "a")
  end
  if file then file:setvbuf "line" end
  return file
end

local function writer(name)
  local file, tried
  return function(entry)
    if not tried then
      tried, file = true, openhistory(name)
    end
    if file then file:write(encode(entry), "\n") end
  end
end

-- require "readline" may be something else altogether
local function readline()
  local ok, rl = pcall(require, "readline")
  if not ok or type(rl) ~= "table" then return nil end
  for _, name in ipairs { "readline", "add_history", "set_options", "set_complete_function" } do
    if type(rl[name]) ~= "function" then return nil end
  end
  return rl
end

--- Lines with editing. `complete(line, from, to)` gives the completions of a part of the line.
-- nil when there is no readline.
function input.editor(complete, historyname)
  local rl = readline()
  if not rl then return nil end
  -- its own history is not ours; "" makes it forget what it has read
  rl.set_options { histfile = "", auto_add = false, completion = true }
  if rl.set_readline_name then rl.set_readline_name "autodiff" end
  rl.set_complete_function(function(line, from, to)
    -- readline sets it anew for each word
    if rl.set_completion_append_character then rl.set_completion_append_character "" end
    -- an error must not cross readline
    -- its `to` is where the cursor is: behind the word
    local ok, list = pcall(complete, line, from, to - 1)
    return ok and list or {}
  end)
  local last
  for _, entry in ipairs(readhistory(historyname)) do
    rl.add_history(entry)
    last = entry
  end
  local write = writer(historyname)
  return {
    read = function(prompt) return core.interrupt.prompt(rl.readline, prompt) end,
    remember = function(entry)
      if entry == last or not entry:find "%S" then return end
      last = entry
      rl.add_history(entry)
      write(entry)
    end,
  }
end

--- Lines without editing.
function input.plain(stream, out, historyname)
  local write = writer(historyname)
  return {
    read = function(prompt)
      out:write(prompt)
      out:flush()
      local line = stream:read "l"
      if not line then out:write "\n" end
      return line
    end,
    remember = function(entry)
      if entry:find "%S" then write(entry) end
    end,
  }
end

return input
