--- What begins with a colon or a question mark.
local ad = require "autodiff"
local args = require "autodiff.args"
local core = require "autodiff.core"
local plot = require "autodiff.repl.plot"
local tokens = require "autodiff.repl.tokens"

local commands = {}

--- The texts of the public names, or nil in a build that has none.
function commands.docs()
  local ok, docs = pcall(require, "autodiff.docs")
  return ok and type(docs) == "table" and docs or nil
end

-- Text in lines of at most `width` bytes, each after `indent`.
local function wrap(text, indent, width)
  local out, line = {}, indent
  for word in text:gmatch "%S+" do
    if #line + #word + 1 > width and line ~= indent then
      out[#out + 1] = line
      line = indent
    end
    line = line .. (line == indent and "" or " ") .. word
  end
  out[#out + 1] = line
  return table.concat(out, "\n")
end

-- The comment above a function of a file, and the line that it begins in.
local function comment(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" or info.source:sub(1, 1) ~= "@" then return nil end
  local file = io.open(info.source:sub(2))
  if not file then return nil end
  local lines, number = {}, 0
  for line in file:lines() do
    number = number + 1
    if number == info.linedefined then break end
    local text = line:match "^%s*%-%-+%s?(.*)$"
    if text then lines[#lines + 1] = text else lines = {} end
  end
  file:close()
  return table.concat(lines, "\n"), ("%s:%d"):format(info.short_src, info.linedefined)
end

--- `?name`: from the library's own texts, else the comment above the function.
function commands.help(repl, name)
  name = name:match "^%s*(.-)%s*$"
  local docs = commands.docs()
  local short = name:gsub("^ad%.", "")
  local entry = docs and (docs[name] or docs[short])
  if not entry and docs then
    -- a method by itself: ?backward, ?x:backward
    local last = short:match "[%w_]+$"
    for key in pairs(docs) do
      if last and (key:match "[.:]([%w_]+)$" == last) then entry = docs[key] end
    end
  end
  if entry then
    repl:print(repl.style:paint("head", entry.sig or name))
    repl:print(wrap(entry.text or "", "  ", 90))
    if entry.example then
      repl:print("\n" .. ("\n" .. entry.example):gsub("%s+$", ""):gsub("\n", "\n    "):sub(2))
    end
    return
  end
  local f = repl.session:compile(name)
  local ok, value = pcall(f or error)
  if ok and type(value) == "function" then
    local text, place = comment(value)
    if text and text ~= "" then
      repl:print(text)
      repl:print(repl.style:paint("dim", place))
      return
    elseif place then
      repl:print(("%s: a function without a comment above it, %s"):format(name, place))
      return
    end
  end
  if not docs then
    repl:print("the texts for ?name (module autodiff.docs) are not in this build")
  elseif ok and value ~= nil then
    repl:print(("no help for %s (a %s)"):format(name, type(value)))
  else
    repl:print(("no help for %s"):format(name))
  end
end

-- What an expression evaluates to; an error that says which part was wrong.
local function evaluate(repl, code, what)
  local f, message = repl.session:compile(code)
  if not f then error(("%s: %s"):format(what, message), 0) end
  return f()
end

local function duration(t)
  for _, unit in ipairs { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "µs" } } do
    if t >= unit[1] then return ("%.3g %s"):format(t / unit[1], unit[2]) end
  end
  return ("%.3g ns"):format(t * 1e9)
end

local function median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  local n = #sorted
  return (sorted[(n + 1) // 2] + sorted[n // 2 + 1]) / 2
end

-- The median's time and its spread, of batches of calls: at least 10 of them, until the spread of
-- their median is below 1 % or two seconds are over.
local function measure(f)
  local clock = os.clock
  local n = 1
  local function batch()
    local start = clock()
    for _ = 1, n do f() end
    return clock() - start
  end
  f()
  local took = batch()
  while took < 0.005 do
    n = took < 5e-4 and n * 10 or math.ceil(n * 0.006 / took)
    took = batch()
  end
  local times, spent = { took / n }, took
  while true do
    took = batch()
    spent = spent + took
    times[#times + 1] = took / n
    local mid = median(times)
    local off = {}
    for i, t in ipairs(times) do off[i] = math.abs(t - mid) end
    local spread = 1.4826 * median(off) -- of a normal distribution: its standard deviation
    if #times >= 10 and spread / math.sqrt(#times) < 0.01 * mid or spent > 2 then
      return mid, spread, #times, n
    end
  end
end

local list = {}

list.time = {
  usage = ":time expr", text = "run it until the time is stable",
  run = function(repl, rest)
    if rest == "" then error("usage: :time expr", 0) end
    local f, message = repl.session:compile(rest)
    if not f then error(message, 0) end
    local mid, spread, batches, n = measure(f)
    repl:print(("%s ± %s per run (median of %d batches of %d)"):format(
      duration(mid), duration(spread), batches, n))
  end,
}

list.explain = {
  usage = ":explain f(x, ...)", text = "the evaluation trace and its derivatives",
  run = function(repl, rest)
    local f, given = tokens.call(rest)
    if not f then error("usage: :explain f(x, ...)", 0) end
    if not ad.explain then
      repl:print("ad.explain is not available in this build")
      return
    end
    local callee = evaluate(repl, f, "function")
    local text = ad.explain(callee, evaluate(repl, given == "" and "nil" or given, "arguments"))
    repl:print((tostring(text):gsub("\n$", "")))
  end,
}

-- Splits "f a b": a and b are the last two words that are expressions by themselves.
local function plotted(rest)
  local f, a, b = rest:match "^(.-)%s+(%S+)%s+(%S+)%s*$"
  if f and f ~= "" and load("return " .. a) and load("return " .. b) then return f, a, b end
end

list.plot = {
  usage = ":plot f a b [> file.svg]", text = "draw f and its derivative from a to b",
  run = function(repl, rest)
    local file
    local body, name = rest:match "^(.-)%s*>%s*(%S+%.svg)%s*$"
    if body then rest, file = body, name end
    local code, from, to = plotted(rest)
    if not code then error("usage: :plot f a b [> file.svg]; f may be an expression in x", 0) end
    local a, b = evaluate(repl, from, "a"), evaluate(repl, to, "b")
    a, b = ad.value(a), ad.value(b)
    if not (type(a) == "number" and type(b) == "number" and a < b and b - a < math.huge) then
      error(("cannot plot from %s to %s"):format(tostring(a), tostring(b)), 0)
    end
    local compiled = repl.session:compile(code)
    local ok, f = pcall(compiled or error)
    if not (ok and args.iscallable(f)) then
      local message
      compiled, message = repl.session:compile("function(x) return " .. code .. "\nend")
      if not compiled then error(message, 0) end
      f = compiled()
    end
    if file then
      local out, message = io.open(file, "w")
      if not out then error(message, 0) end
      out:write(plot.svg(f, a, b, code))
      out:close()
      repl:print("wrote " .. file)
    else
      local cols, rows = core.terminal.size()
      if not repl.terminal then cols, rows = nil, nil end
      cols = math.min(cols or 80, 110) - 1
      rows = math.max(8, math.min((rows or 24) - 6, 20))
      repl:print(plot.braille(f, a, b, cols, rows, repl.style, code))
    end
  end,
}

list.help = {
  usage = ":help", text = "this",
  run = function(repl)
    repl:print [[
Type an expression or a statement; an unfinished one goes on in the next line.
A local of one line is there in the next ones. _ is the last result, and a
trailing ; keeps results from being shown. math is differentiable, ad is there,
and its functions also go by their bare names: grad(sin)(0).
]]
    local width = 0
    for _, name in ipairs(commands.names) do width = math.max(width, #list[name].usage) end
    local function row(usage, text)
      repl:print("  " .. usage .. (" "):rep(width + 2 - #usage) .. text)
    end
    for _, name in ipairs(commands.names) do row(list[name].usage, list[name].text) end
    row("?name", "help on a function: ?grad")
    row("Tab", "completes names, fields, modules in require \"")
    row("Ctrl-C, Ctrl-D", "interrupts; ends (as :quit does)")
  end,
}

list.quit = {
  usage = ":quit", text = "end",
  run = function(repl) repl.over = true end,
}

commands.names = { "time", "explain", "plot", "help", "quit" }

--- Runs ":name rest".
function commands.run(repl, line)
  local name, rest = line:match "^%s*:%s*(%a*)%s*(.-)%s*$"
  local command = list[name]
  if not command then
    local near = {} -- :t is :time
    for _, full in ipairs(commands.names) do
      if name ~= "" and full:sub(1, #name) == name then near[#near + 1] = full end
    end
    command = #near == 1 and list[near[1]]
  end
  if not command then error(("no command :%s (:help lists them)"):format(name), 0) end
  return command.run(repl, rest)
end

return commands
