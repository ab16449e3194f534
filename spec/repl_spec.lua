-- The command `autodiff` and its sessions: through pipes, and where tmux is there also in a
-- pseudo-terminal, with keys pressed and the screen looked at.

local function interpreter()
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return i < 0 and arg[i] or "lua5.4"
end

local function quote(s) return "'" .. s:gsub("'", [['\'']]) .. "'" end

local LUA <const> = interpreter()
-- A child must find what this process finds, wherever it runs.
local ENV <const> = ("LUA_PATH_5_4=%s LUA_CPATH_5_4=%s NO_COLOR= TERM=${TERM:-dumb}"):format(
  quote("lua/?.lua;" .. package.path), quote(package.cpath .. ";lua/?.so"))
local COMMAND <const> = ENV .. " " .. LUA .. " lua/autodiff/bin.lua"

local temp = os.tmpname()
local files = {}

local function tempname(suffix)
  local name = temp .. suffix
  files[#files + 1] = name
  return name
end

local function read(name)
  local file = io.open(name)
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end

local function write(name, text)
  local file = assert(io.open(name, "w"))
  file:write(text)
  file:close()
  return name
end

-- Standard output, standard error and exit code of a run.
local function run(options, stdin)
  local input, out, err = tempname ".in", tempname ".out", tempname ".err"
  write(input, stdin or "")
  local _, _, code = os.execute(
    ("%s %s <%s >%s 2>%s"):format(COMMAND, options, input, out, err))
  return read(out), read(err), code
end

-- What a session shows for some lines: its output without prompts.
local function session(text)
  local out, err = run("-i", text)
  return (out:gsub("^>+ ", ""):gsub("\n>+ ", "\n"):gsub("^[> ]+", ""):gsub("\n[> ]+", "\n")
    :gsub("%s+$", "")), err
end

local function lines(...) return table.concat({ ... }, "\n") .. "\n" end

teardown(function()
  os.remove(temp)
  for _, name in ipairs(files) do os.remove(name) end
end)

describe("a session", function()
  local function shows(expected, ...)
    local out = session(lines(...))
    assert.is_equal(expected, out)
  end

  it("shows the values of expressions, and nothing for statements", function()
    shows("2", "1 + 1")
    shows("1\tnil\t\"a\"", "1, nil, 'a'")
    shows("", "x = 1", "local y")
    shows("0.1\t1e+100\t2.0\t3", "0.1, 1e100, 2.0, 3")
  end)

  it("has the transforms, ad and the differentiable math", function()
    shows("1.0", "grad(math.sin)(0)")
    shows("12.0", "ad.grad(function(x) return x^3 end)(2)")
    shows('"number"', "type(1) == 'number' and 'number'")
  end)

  it("keeps a local for the next line", function()
    shows("4", "local x = 2", "x * 2")
    shows("3\n5", "local a, b = 1, 2", "a + b", "local a = 3", "a + b")
    shows("120", "local function f(n) return n == 0 and 1 or n * f(n - 1) end", "f(5)")
    shows("6", "local v = 5 return v + 1")
    shows("5\n5", "local v = 5 return v", "v")
    shows("nil", "do local inner = 1 end", "inner")
    shows("nil", "if true then local inner = 1 end return inner")
    shows('"local y = 1"\nnil', "'local y = 1'", "y")
    shows("2", "--[[ local z = 1 ]] local w = 2", "w")
  end)

  it("keeps it as the same variable", function()
    shows("7\n8", "local a = 1; function get() return a end", "a = 7", "get()",
      "function set(v) a = v end set(8)", "a")
  end)

  it("guards constants, also of earlier lines", function()
    local out, err = session(lines("local c <const> = 4", "c = 5", "c"))
    assert.is_equal("4", out)
    assert.is_truthy(err:find("attempt to assign to const variable 'c'", 1, true))
  end)

  it("keeps what is to be closed until it ends", function()
    shows("1\n\nclosed", "local t <close> = setmetatable({1}, {__close = function() print "
      .. "'closed' end})", "t[1]")
    shows("1\n12.0", "local tape <close> = ad.tape()", "local x = tape:var(2)",
      "local y = x^3", "#tape", "tape:gradient(y, x)")
  end)

  it("goes on reading an unfinished chunk", function()
    shows("9.0", "function f(x)", "  return x^2", "end", "f(3)")
    shows("3", "1 +", "2")
    shows("a\nb", "[[a", "b]]")
    local out = run("-i", lines("function f(x)", "end"))
    assert.is_equal("> >> > \n", out)
  end)

  it("keeps the last result in _", function()
    shows("5\n10", "5", "_ * 2")
    shows("5\n6", "5", "x = 1", "_ + 1")
  end)

  it("keeps quiet after a semicolon", function()
    shows("7", "7;", "_")
    shows('";"', "';'")
    shows("1", "1 --;")
  end)

  it("bounds what it shows", function()
    shows("{1, 2, x = {y = {}}, [true] = 1}", "{1, 2, x = {y = {}}, [true] = 1}")
    shows("{a = <cycle>}", "t = {} t.a = t return t")
    shows("{{{{{...}}}}}", "{{{{{{}, 1}}}}}")
    local out = session "local t = {} for i = 1, 1000 do t[i] = i end return t\n"
    assert.is_truthy(out:find("... 1000 in all", 1, true))
    assert.is_true(#out < 400)
    out = session "local t = {} for i = 1, 1000 do t['k' .. i] = {i} end return t\n"
    assert.is_truthy(out:find "%.%.%. 970 more")
    shows("{3.1415926535898}", "{math.pi}")
    shows('{"a\\nb\\0011"}', "{'a\\nb\\0011'}")
    shows("{d = dual(1, 2), v = var(2)}", "{v = ad.var(2), d = ad.dual(1, 2)}")
  end)

  it("is not ended by errors", function()
    local out, err = session(lines("error 'one'", "error{}", "error()", "x = = 1",
      "local function g() error 'deep' end local function f() g() end f()",
      "setmetatable({}, {__tostring = error})", "'still'"))
    assert.is_truthy(out:find '"still"$')
    assert.is_truthy(err:find("stdin:1: one", 1, true))
    assert.is_truthy(err:find("(error object is a table value)", 1, true))
    assert.is_truthy(err:find("stdin:1: unexpected symbol near '='", 1, true))
    assert.is_truthy(err:find "stack traceback:\n.-in upvalue 'g'\n.-in main chunk\n")
    assert.is_nil(err:find("autodiff/repl", 1, true))
  end)

  it("has help", function()
    local out = session(lines(":help"))
    for _, name in ipairs { ":time", ":explain", ":plot", "?name", "Ctrl-C" } do
      assert.is_truthy(out:find(name, 1, true), name)
    end
    out = session(lines("?grad"))
    if pcall(require, "autodiff.docs") then
      assert.is_truthy(out:find("grad(f", 1, true))
    else
      assert.is_truthy(out:find("not in this build", 1, true))
    end
    local _, err = session ":nothing\n"
    assert.is_truthy(err:find "no command :nothing")
  end)

  it("shows the library's texts", function()
    local out, err = run([[-i -e 'package.loaded["autodiff.docs"] = { grad = {
      sig = "grad(f[, argnums])", text = "The gradient.", example = "grad(sin)(0) --> 1.0" } }']],
      lines("?grad", "?ad.grad", "? nothing", "?print"))
    assert.is_equal("", err)
    local shown = "grad%(f%[, argnums%]%)\n  The gradient%.\n\n    grad%(sin%)%(0%) %-%-> 1%.0\n> "
    assert.is_truthy(out:find("^> " .. shown .. shown))
    assert.is_truthy(out:find("no help for nothing", 1, true))
    assert.is_truthy(out:find("no help for print (a function)", 1, true))
  end)

  it("shows the comment above a function of a file", function()
    local name = write(tempname ".lua", "-- Adds one.\nfunction inc(x) return x + 1 end\n")
    local out = session(lines(("dofile %q"):format(name), "?inc"))
    assert.is_truthy(out:find("Adds one.", 1, true))
  end)

  it("times", function()
    local out = session(lines("local x = 2", ":time math.sin(x)"))
    assert.is_truthy(out:find "^%d[%d.e+]* [mnµs]+ ± %d[%d.e+-]* [mnµs]+ per run")
    local _, err = session ":time error 'no'\n"
    assert.is_truthy(err:find "no")
  end)

  it("explains", function()
    local out, err = session(lines("function f(x) return x * math.sin(x) end", ":explain f(2)"))
    if require "autodiff".explain then
      assert.is_truthy(out:find "sin")
    else
      assert.is_equal("ad.explain is not available in this build", out)
    end
    assert.is_equal("", err)
    out, err = run([[-i -e 'function ad.explain(f, ...) return "trace of " .. f(...) end']],
      lines("local x = 2", ":explain (function(a, b) return a * b end)(x, (3))", ":explain 3"))
    assert.is_truthy(out:find "trace of 6\n")
    assert.is_truthy(err:find "usage: :explain")
  end)

  it("plots", function()
    local out, err = session ":plot math.sin 0 2*math.pi\n"
    assert.is_equal("", err)
    assert.is_truthy(out:find "[\u{2801}-\u{28ff}]")
    assert.is_truthy(out:find("its derivative", 1, true))
    for _, tick in ipairs { "1 ┤", "0 ┤", "-1 ┤", "\n0 +[12] " } do
      assert.is_truthy(out:find(tick), tick)
    end
    for line in out:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80) end
    -- an expression in x, a pole, a function that fails somewhere
    out, err = session(lines(":plot tan(x)/x -3 3", "function f(x) assert(x > 0) return x end",
      ":plot f -1 1", ":plot 7 0 1"))
    assert.is_equal("", err)
    assert.is_truthy(out:find "tan")
    out, err = session(lines(":plot error 0 1", ":plot sin 2 1", ":plot sin", "'on'"))
    assert.is_truthy(out:find '"on"')
    assert.is_truthy(err:find "cannot plot from 2 to 1")
    assert.is_truthy(err:find "usage: :plot")
  end)

  it("plots into a file", function()
    local name = tempname ".svg"
    local out = session((":plot x^3-x -2 2 > %s\n"):format(name))
    assert.is_equal("wrote " .. name, out)
    local svg = read(name)
    assert.is_truthy(svg:find "^<svg.*</svg>\n$")
    assert.is_truthy(svg:find("x^3-x", 1, true))
    assert.is_nil(svg:find "nan")
    local _, err = session ":plot sin 0 1 > /nonexistent/dir/a.svg\n"
    assert.is_truthy(err:find "nonexistent")
  end)

  it("leaves its globals as they were", function()
    local env = { print = print, math = math }
    local out = assert(io.open(tempname ".out", "w"))
    local input = assert(io.open(write(tempname ".in", "local q = sin(1)\nz = 1\n")))
    require "autodiff.repl".run { env = env, input = input, output = out, banner = false }
    out:close()
    input:close()
    assert.is_equal(math, env.math)
    assert.is_nil(env.ad)
    assert.is_nil(getmetatable(env))
    assert.is_equal(1, env.z)
  end)
end)

describe("Ctrl-C", function()
  -- Sends SIGINT when the session has printed "ready".
  local function interrupted(code)
    local script = ([[
      { echo %s; sleep 0.3; echo 'print "alive"'; } | %s -i >%s 2>%s &
      pid=$!
      n=0
      until grep -q ready %s || test $n -gt 200; do sleep 0.05; n=$((n + 1)); done
      kill -INT $pid
      n=0
      until grep -q alive %s || test $n -gt 200; do sleep 0.05; n=$((n + 1)); done
      kill -KILL $pid 2>/dev/null
      wait $pid 2>/dev/null]]):gsub("\n%s+", "\n")
    local out, err = tempname ".out", tempname ".err"
    write(out, "")
    -- the assignments of COMMAND go before the program, so env takes them
    script = script:format(quote("print 'ready' io.stdout:flush() " .. code),
      "env " .. COMMAND, out, err, out, out)
    os.execute("TERM=dumb; export TERM; (" .. script .. ") 2>/dev/null")
    return read(out), read(err)
  end

  for name, code in pairs {
    ["an endless loop"] = "while true do end",
    ["a loop that catches errors"] = "while true do pcall(function() while true do end end) end",
    ["a loop in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
    ["a loop in a coroutine in a derivative"] =
      "grad(function(x) coroutine.wrap(function() while true do x = x * 1 end end)() end)(1)",
  } do
    it("ends " .. name .. ", not the session", function()
      local out, err = interrupted(code)
      assert.is_truthy(out:find "alive")
      assert.is_truthy(err:find "interrupted!")
    end)
  end

  it("has coroutines that behave as the stock ones do", function()
    local core = require "autodiff.core"
    for _, co in ipairs { coroutine, { resume = core.interrupt.resume,
                                       wrap = core.interrupt.wrap } } do
      local t = coroutine.create(function(...)
        local a = coroutine.yield(...)
        error("with " .. a, 0)
      end)
      assert.is_same({ true, 1, 2 }, { co.resume(t, 1, 2) })
      assert.is_same({ false, "with x" }, { co.resume(t, "x") })
      assert.is_same({ false, "cannot resume dead coroutine" }, { co.resume(t) })
      assert.is_false((pcall(co.resume, 1)))
      local closed
      local w = co.wrap(function()
        local _ <close> = setmetatable({}, { __close = function() closed = true end })
        coroutine.yield(3)
        error { 7 }
      end)
      assert.is_equal(3, w())
      local ok, e = pcall(w)
      assert.is_false(ok)
      assert.is_same({ 7 }, e)
      assert.is_true(closed)
      assert.is_truthy(select(2, pcall(w)):find "cannot resume dead coroutine")
    end
  end)
end)

describe("completion", function()
  local complete = require "autodiff.repl.complete"
  local ad = require "autodiff"

  local function completer(env)
    local s = require("autodiff.repl.session").new(env)
    return complete.new(s, { "time", "plot" }, function() return nil end), s
  end

  local function of(env, text)
    local found = completer(env):word(text, #text:match "^(.-)[%w_.:%[%]]*$" + 1, #text)
    return table.concat(found, " ")
  end

  it("knows globals, keywords and locals", function()
    assert.is_equal("alpha", of({ alpha = 1, beta = 2 }, "x = al"))
    assert.is_equal("while", of({}, "whi"))
    local c, s = completer {}
    s:compile("local gamma = 1")()
    assert.is_same({ "gamma" }, c:word("gam", 1, 3))
  end)

  it("follows metatables", function()
    local base = { inherited = 1 }
    local class = setmetatable({ method = print, own = 2 }, { __index = base })
    local object = setmetatable({}, { __index = class })
    assert.is_equal("object.inherited", of({ object = object }, "object.inh"))
    assert.is_equal("object:method", of({ object = object }, "object:"))
    assert.is_equal("s:gmatch s:gsub", of({ s = "text" }, "s:g"))
    assert.is_equal("a.b.c", of({ a = { b = { c = 1 } } }, "f(a.b."))
    assert.is_equal("a[1].key", of({ a = { { key = 1 } } }, "a[1].k"))
    local loop = {}
    setmetatable(loop, { __index = loop })
    assert.is_equal("", of({ loop = loop }, "loop.x"))
  end)

  it("runs nothing of the user's", function()
    local t = setmetatable({}, { __index = function() error "called" end })
    assert.is_equal("", of({ t = t }, "t.x.y"))
  end)

  it("knows the library's values", function()
    local env = { v = ad.var(1), d = ad.dual(1, 2) }
    assert.is_equal("v.grad", of(env, "v.gr"))
    assert.is_equal("v.value", of(env, "v.val"))
    assert.is_equal("v:backward", of(env, "v:b"))
    assert.is_equal("d.tangent", of(env, "d.tan"))
  end)

  it("knows modules", function()
    assert.is_truthy((" " .. of({}, 'require "autodiff.') .. " "):find " autodiff%.jacobian ")
    assert.is_truthy((" " .. of({}, "local x = require('autodiff.repl.") .. " ")
      :find " autodiff%.repl%.session ")
  end)

  it("knows commands and help", function()
    assert.is_equal(":time", of({}, ":t"))
    assert.is_truthy(of({}, "?value_"):find "value_and_grad")
  end)
end)

describe("the command autodiff", function()
  it("runs a script, with its arguments", function()
    local name = write(tempname ".lua", [[
      print(arg[0], arg[1], arg[2], arg[-1] ~= nil, #arg, ...)
      print(ad.grad(math.sin)(0), grad)
    ]])
    local out, err, code = run(name .. " one two")
    assert.is_equal("", err)
    assert.is_equal(name .. "\tone\ttwo\ttrue\t2\tone\ttwo\n1.0\tnil\n", out)
    assert.is_equal(0, code)
  end)

  it("runs a chunk, in which the transforms have their bare names", function()
    local out, _, code = run [[-e 'print(grad(function(x) return x^2 end)(3))']]
    assert.is_equal("6.0\n", out)
    assert.is_equal(0, code)
    assert.is_equal("1\n2\n", (run [[-e 'x = 1 print(x)' -e 'print(x + 1)']]))
    assert.is_equal("number\n", (run [[-e 'print(type(1))']]))
  end)

  it("reads a script from a pipe", function()
    local out, err, code = run("", "local x = 1\nprint(x, ad ~= nil)\n")
    assert.is_equal("1\ttrue\n", out)
    assert.is_equal("", err)
    assert.is_equal(0, code)
    assert.is_equal("2\n", (run("- a b", "print(select('#', ...))")))
  end)

  it("has lua's exit codes", function()
    local out, err, code = run("-e 'error \"x\"'")
    assert.is_equal("", out)
    assert.is_equal(1, code)
    assert.is_truthy(err:find "^autodiff: %(command line%):1: x\nstack traceback:\n")
    assert.is_equal(3, (select(3, run "-e 'os.exit(3)'")))
    assert.is_equal(1, (select(3, run("", "x = ="))))
    assert.is_equal(1, (select(3, run "/nonexistent.lua")))
    out, err, code = run "--nonsense"
    assert.is_equal("", out)
    assert.is_equal(1, code)
    assert.is_truthy(err:find "unrecognized option '%-%-nonsense'")
    assert.is_truthy(err:find "usage:")
  end)

  it("has --help and --version", function()
    local out, err, code = run "--help"
    assert.is_truthy(out:find "^usage: autodiff")
    assert.is_equal("", err)
    assert.is_equal(0, code)
    out, err, code = run "--version"
    assert.is_equal("", err)
    assert.is_truthy(out:find "^autodiff %d")
    assert.is_equal(0, code)
  end)
end)

describe("in a terminal", function()
  local function works(command)
    return (os.execute(command .. " >/dev/null 2>&1"))
  end
  local tmux = works "tmux -V"
  local editing = works(ENV .. " " .. LUA .. " -e 'require \"readline\"'")
  local socket = "autodiff-" .. temp:match "[^/]*$"
  local history = temp .. ".d/state/history"

  local function tm(command)
    local pipe = io.popen(("tmux -L %s -f /dev/null %s 2>&1"):format(socket, command))
    local text = pipe:read "a"
    pipe:close()
    return text
  end

  local function screen() return tm "capture-pane -p" end

  -- Waits until the screen shows a pattern.
  local function expect(pattern)
    local text
    for _ = 1, 200 do
      text = screen()
      if text:find(pattern) then return text end
      os.execute "sleep 0.05"
    end
    error(("no %q on the screen:\n%s"):format(pattern, text), 2)
  end

  local function typed(text) tm("send-keys -l " .. quote(text)) end
  local function key(name) tm("send-keys " .. name) end
  local function enter(text)
    typed(text)
    key "Enter"
  end

  local function start()
    tm "kill-server"
    tm("new-session -d -x 90 -y 50 " .. quote(
      "env AUTODIFF_HISTORY=" .. quote(history) .. " " .. COMMAND:gsub("TERM=%S+", "")
      .. "; echo exit code $?; sleep 60"))
    expect "> *\n"
  end

  local function kill() tm "kill-server" end
  teardown(function()
    if tmux then kill() end
    os.execute("rm -rf " .. quote(temp .. ".d"))
  end)

  -- without tmux there is nothing that these could run in
  local maybe = tmux and it or function(name) pending(name .. " (needs tmux)") end
  local edited = tmux and editing and it
    or function(name) pending(name .. " (needs tmux and lua-readline)") end

  maybe("is interrupted, and lives", function()
    start()
    expect(editing and ":help for help" or "lua%-readline")
    enter "function f(x)"
    enter "return x^2"
    enter "end"
    enter "local x = 2"
    enter "f(x) + 0.5"
    expect "\n4.5\n"
    enter "print 'ready' while true do end"
    expect "\nready\n"
    key "C-c"
    expect "interrupted!"
    enter "'al' .. 'ive'"
    expect '\n"alive"\n'
    enter ":plot sin 0 7"
    expect "its derivative"
    key "C-l"
    enter ":time sin(1)"
    expect "per run"
    enter "?grad"
    expect "grad"
    key "C-d"
    expect "exit code 0"
    kill()
  end)

  edited("completes, and leaves a line at Ctrl-C", function()
    start()
    enter "obj = setmetatable({}, {__index = {hidden_field = 42}})"
    typed "obj.hid"
    key "Tab"
    expect "obj%.hidden_field"
    key "Enter"
    expect "\n42\n"
    enter "v = ad.var(3)"
    typed "v:backw"
    key "Tab"
    expect "v:backward"
    key "C-c"
    expect "v:backward.-\n> *\n"
    enter "6 * 7 + 0.5"
    expect "\n42.5\n"
    enter "while true do"
    expect "\n>>"
    key "C-c"
    enter "'out' .. 'side'"
    expect '\n"outside"\n'
    kill()
  end)

  edited("has a history that survives", function()
    start()
    enter "'he' .. 'llo'"
    expect '\n"hello"\n'
    enter "for i = 1, 2 do"
    enter "print(i * 11) end"
    expect "\n22\n"
    key "C-d"
    expect "exit code 0"
    kill()
    start()
    key "Up"
    expect "print%(i %* 11%) end"
    key "Up"
    key "Enter"
    expect '\n"hello"\n'
    kill()
    assert.is_truthy(read(history):find("for i = 1, 2 do\\nprint(i * 11) end\n", 1, true))
  end)

  edited("does without a history that cannot be written", function()
    local before = history
    history = "/dev/null/no/history"
    start()
    enter "1 + 1.25"
    expect "\n2.25\n"
    kill()
    history = before
  end)
end)
