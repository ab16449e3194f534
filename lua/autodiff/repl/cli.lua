--- The command `autodiff`.
local ad = require "autodiff"
local core = require "autodiff.core"
local repl = require "autodiff.repl"
local style = require "autodiff.repl.style"

local cli = {}

local USAGE <const> = [==[
usage: autodiff [options] [script [args]]
Runs Lua with automatic differentiation: math is differentiable, ad is there.
Without a script: a session, or from a pipe the script on standard input.
  -e chunk   run the chunk; ad's functions go by their bare names, as in
             autodiff -e 'print(grad(function(x) return x^2 end)(3))'
  -i         a session after the script or chunk; without one, also when the
             input is no terminal
  -l module  require the module into a global of its name
  --         end of options
  -          standard input as the script
  --help     this
  --version  the version
Environment: AUTODIFF_HISTORY names the file of the session's history;
NO_COLOR turns off colours.
]==]

local errstyle = style.new(core.terminal.isatty(2))

local function complain(text)
  io.stdout:flush()
  io.stderr:write("autodiff: ", text, "\n")
  return 1
end

-- Runs what load has given; the exit code.
local function run(chunk, message, ...)
  if not chunk then return complain(errstyle:paint("error", message)) end
  local ok, err = xpcall(chunk, style.handler, ...)
  if ok then return 0 end
  if type(err) ~= "table" or err.trace == nil then -- out of memory, or an error in the handler
    err = { message = style.message(err), trace = "" }
  end
  return complain(errstyle:traceback(err, false))
end

-- Options in their order: what to do, and the index of the script in arg.
local function parse(arg)
  local plan, i = {}, 1
  while arg[i] do
    local a = arg[i]
    if a == "--" then
      i = i + 1
      break
    elseif a == "-" or a:sub(1, 1) ~= "-" then
      break
    elseif a == "--help" or a == "-h" then
      plan.help = true
    elseif a == "--version" or a == "-v" then
      plan.version = true
    elseif a == "-i" then
      plan.interactive = true
    elseif a:find "^%-[el]" then
      local value = a:sub(3)
      if value == "" then
        i = i + 1
        value = arg[i]
      end
      if not value then return nil, ("'%s' needs argument"):format(a) end
      plan[#plan + 1] = { kind = a:sub(2, 2), value = value }
    else
      return nil, ("unrecognized option '%s'"):format(a)
    end
    i = i + 1
  end
  plan.script = i
  return plan
end

--- Does what the command line says; the exit code.
function cli.main(arg)
  local plan, message = parse(arg)
  if not plan then
    io.stderr:write("autodiff: ", message, "\n", USAGE)
    return 1
  end
  if plan.help then
    io.write(USAGE)
    return 0
  end
  if plan.version then
    print(ad._VERSION .. "  " .. _VERSION)
    return 0
  end

  -- as for lua: arg[0] is the script, what comes before it has negative indices
  local script, shifted = arg[plan.script], {}
  if script then
    for i, a in pairs(arg) do shifted[i - plan.script] = a end
  else
    for i, a in pairs(arg) do shifted[i] = a end
  end
  _G.arg = shifted

  for _, step in ipairs(plan) do
    local undo = repl.prepare(_G, true)
    local code
    if step.kind == "e" then
      code = run(load(step.value, "=(command line)"))
    else
      local global, module = step.value:match "^([^=]+)=(.*)$"
      global, module = global or step.value, module or step.value
      code = run(function() _G[global] = require(module) end)
    end
    undo()
    if code ~= 0 then return code end
  end

  repl.prepare(_G, false)
  local pipe = not script and #plan == 0 and not plan.interactive and not core.terminal.isatty(0)
  if script or pipe then
    local chunk
    if pipe or script == "-" and arg[plan.script - 1] ~= "--" then
      local text = io.read "a"
      chunk, message = load((text:gsub("^#[^\n]*", "")), "=stdin")
    else
      chunk, message = loadfile(script)
    end
    local code = run(chunk, message, table.unpack(shifted))
    if code ~= 0 and not plan.interactive then return code end
  end
  if plan.interactive or not script and not pipe and #plan == 0 then repl.run() end
  return 0
end

return cli
