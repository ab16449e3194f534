--- An interactive session: `require("autodiff.repl").run{…}`, and the command `autodiff`.
--
-- The parts: `repl.session` runs code and keeps locals, `repl.input` reads lines,
-- `repl.complete`, `repl.pretty`, `repl.plot`, `repl.style` (colours, tracebacks) and
-- `repl.commands` (what begins with ":" or "?").
-- @module autodiff.repl

local ad = require "autodiff"
local commands = require "autodiff.repl.commands"
local complete = require "autodiff.repl.complete"
local core = require "autodiff.core"
local input = require "autodiff.repl.input"
local pretty = require "autodiff.repl.pretty"
local session = require "autodiff.repl.session"
local style = require "autodiff.repl.style"
local tokens = require "autodiff.repl.tokens"

local M = {}

local Repl = {}
Repl.__index = Repl

function Repl:print(text)
  self.out:write(text, "\n")
end

-- To the stream of errors, after what has been printed.
function Repl:complain(text)
  self.out:flush()
  self.err:write(text, "\n")
  self.err:flush()
end

--- Puts `ad` and the differentiable `math` into env; with `names`, the functions of `ad` can be
-- had by their bare names too, where nothing else has that name. The result undoes it.
function M.prepare(env, names)
  local undo = ad.install(env)
  local hadad, mt = rawget(env, "ad"), getmetatable(env)
  local ours = hadad == nil
  if ours then rawset(env, "ad", ad) end
  local added
  if names and mt == nil then
    local functions = {}
    for name, f in pairs(ad) do
      if not name:find "^_" then functions[name] = f end
    end
    added = { __index = functions }
    setmetatable(env, added)
  elseif names and type(mt) == "table" and rawget(mt, "__index") == nil then
    added = mt
    mt.__index = ad
  end
  return function()
    undo()
    if ours and rawget(env, "ad") == ad then rawset(env, "ad", nil) end
    if added == mt and added then
      mt.__index = nil
    elseif added and getmetatable(env) == added then
      setmetatable(env, nil)
    end
  end
end

-- A hook of the REPL's thread does not see its coroutines: these functions tell Ctrl-C which of
-- them is running.
local function watchcoroutines(env)
  local stock = rawget(env, "coroutine")
  if stock ~= coroutine then return function() end end
  local watched = {}
  for name, f in pairs(stock) do watched[name] = f end
  watched.resume, watched.wrap = core.interrupt.resume, core.interrupt.wrap
  rawset(env, "coroutine", watched)
  return function()
    if rawget(env, "coroutine") == watched then rawset(env, "coroutine", stock) end
  end
end

-- Calls f(...); an error is shown. The results that it has otherwise, in a table.
function Repl:protected(f, ...)
  local results = table.pack(core.interrupt.run(xpcall, f, style.handler, ...))
  if results[1] then return results end
  local err = results[2]
  if type(err) ~= "table" or err.trace == nil then -- out of memory, or an error in the handler
    err = { message = style.message(err), trace = "" }
  end
  self:complain(self.style:traceback(err, true))
  return nil
end

-- A trailing semicolon that is no part of a string or comment.
local function silent(code)
  local list = tokens.split(code)
  return #list > 0 and list[#list].text == ";" and list[#list].kind == "symbol"
end

function Repl:evaluate(code)
  local f, message = self.session:compile(code)
  if not f then
    self:complain(self.style:paint("error", message))
    return
  end
  local results = self:protected(f)
  if not results or results.n == 1 then return end
  rawset(self.env, "_", results[2])
  if silent(code) then return end
  local shown = self:protected(pretty.results, table.pack(table.unpack(results, 2, results.n)))
  if shown then self:print(shown[2]) end
end

-- One entry: a command, or lines until they make a chunk. nil at the end of input.
function Repl:entry()
  local function read(prompt)
    local ok, line = core.interrupt.run(pcall, self.reader.read, prompt)
    if not ok then
      self:complain ""
      -- Ctrl-C gives a new prompt; what is wrong with a reader is not to go on for ever
      if tostring(line):find "interrupted!" then return nil, true end
      self:complain(style.message(line))
    end
    return ok and line or nil, false
  end
  local function prompt(name, default)
    local p = rawget(self.env, name)
    return p == nil and default or tostring(p)
  end
  local code, interrupted = read(prompt("_PROMPT", "> "))
  if not code then return nil, interrupted end
  if code:find "^%s*[:?]" and not code:find "^%s*::" then return code end
  while true do
    local f, _, more = self.session:compile(code)
    if f or not more or not code:find "%S" then break end
    local line
    line, interrupted = read(prompt("_PROMPT2", ">> "))
    if interrupted then return nil, true end
    if not line then break end
    code = code .. "\n" .. line
  end
  return code
end

function Repl:loop()
  while not self.over do
    local code, interrupted = self:entry()
    if not code and not interrupted then break end
    if code and code:find "%S" then
      self.reader.remember(code)
      if code:find "^%s*%?" then
        self:protected(commands.help, self, code:match "^%s*%?(.*)$")
      elseif code:find "^%s*:" and not code:find "^%s*::" then
        self:protected(commands.run, self, code)
      else
        self:evaluate(code)
      end
      self.out:flush()
    end
  end
end

local HINT <const> = "(no line editing: for it, install lua-readline, "
  .. "as in: apt-get install lua-readline)"

--- Runs a session until its input ends. Options, none of them needed: `env` (the globals;
-- default `_G`), `banner` (a text, or false for none), `history` (a file's name, or false for
-- none), `input`, `output`, `errors` (streams; with an input of its own there is no line
-- editing). What it has put into `env` is taken out again when it ends.
function M.run(options)
  options = options or {}
  local env = options.env or _G
  local ownstreams = options.input or options.output
  local terminal = not ownstreams and core.terminal.isatty(0) and core.terminal.isatty(1)
  local out = options.output or io.stdout
  local self = setmetatable({
    env = env,
    out = out,
    err = options.errors or options.output or io.stderr,
    terminal = terminal,
    style = style.new(terminal),
    session = session.new(env),
  }, Repl)
  local history = options.history
  if history == nil and terminal then history = input.historyfile() end

  local completer = complete.new(self.session, commands.names, commands.docs)
  if terminal and os.getenv "TERM" ~= "dumb" then
    self.reader = input.editor(function(...) return completer:word(...) end, history)
  end
  if options.banner ~= false and (terminal or options.banner) then
    self:print(options.banner or (ad._VERSION .. "  (" .. _VERSION
      .. ")   :help for help, Ctrl-D to end"))
    if terminal and not self.reader then self:print(HINT) end
  end
  self.reader = self.reader or input.plain(options.input or io.stdin, out, history)

  local undo, uncoroutine = M.prepare(env, true), watchcoroutines(env)
  local caught = core.interrupt.on_interrupt(true)
  local ok, message
  repeat -- a signal between two computations is none for us to die of
    ok, message = core.interrupt.run(pcall, self.loop, self)
  until ok or not tostring(message):find "interrupted!$"
  self.session:close(function(text) self:complain(style.message(text)) end)
  if caught then core.interrupt.on_interrupt(false) end
  uncoroutine()
  undo()
  if not ok then error(message, 0) end
end

return M
