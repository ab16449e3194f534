local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near

-- every way to call an f of one number
local ways = {}
for _, m in ipairs(T.modes) do
  ways[#ways + 1] = {name = m.name, run = function(f) return m.d(f)(3) end}
end
-- `inner` tells how f differs from the f of a plain transform: "stopped", its
-- values are constants for what surrounds; "moved", it runs at other points
local function way(name, run, inner)
  ways[#ways + 1] = {name = name, run = run, inner = inner}
end
way("hessian", function(f) return ad.hessian(f)(3) end)
way("hvp", function(f) return ad.hvp(f, 3, 1) end)
way("jacobian", function(f) return ad.jacobian(f)(3) end)
way("derivative 3", function(f) return ad.derivative(f, 3)(3) end)
way("taylor 5", function(f) return ad.taylor(f, 3, 5) end)
way("no_grad", function(f) return ad.no_grad(f, 3) end, "stopped")
way("checkpoint", function(f) return ad.checkpoint(f)(3) end, "stopped")
way("grad of checkpoint", function(f) return ad.grad(ad.checkpoint(f))(3) end, "stopped")
way("grad of no_grad", function(f)
  return ad.grad(function(x) return ad.no_grad(f, x) end)(3)
end)
way("grad of grad", function(f) return ad.grad(ad.grad(f))(3) end)
way("jvp of grad of jvp", function(f) return T.forward(ad.grad(T.forward(f)))(3) end)
way("grad of taylor", function(f)
  return ad.grad(function(x) return ad.taylor(f, x, 3)[3] end)(3)
end)
way("custom", function(f)
  return ad.grad(ad.custom{name = "c", f = f, vjp = function(b) return b end})(3)
end)
way("solve", function(f)
  return ad.grad(ad.implicit{f = function(x, a) return x - a end, solve = f})(3)
end)
way("residual", function(f)
  return ad.grad(ad.implicit{f = function(x) return f(x) end, solve = function(a) return a end})(3)
end)
way("check", function(f) return ad.check(f, {3}) end, "moved")

local function each(title, body, without)
  for _, w in ipairs(ways) do
    if not (w.inner and without and without:find(w.inner)) then
      it(title .. " in " .. w.name, function() body(w.run, w.name) end)
    end
  end
end

describe("an error in f", function()
  each("reaches the caller as the same value", function(run)
    local values = {{}, "text", 42, 4.5, true, false, function() end,
      setmetatable({}, {__tostring = function() return "object" end}),
      coroutine.create(function() end), io.stdout}
    for _, e in ipairs(values) do
      local ok, got = pcall(run, function(x)
        local y = x * x
        error(y and e, 0)
      end)
      assert.is_false(ok)
      assert.is_true(rawequal(e, got))
    end
  end)

  each("may be nil", function(run)
    local ok, got = pcall(run, function() error(nil) end)
    assert.is_false(ok)
    -- Lua 5.4 passes nil through pcall as it is
    assert.is_nil(got)
  end)

  each("keeps its position", function(run)
    local want
    local ok, got = pcall(run, function()
      local here = debug.getinfo(1, "Sl")
      want = ("%s:%d: boom"):format(here.short_src, here.currentline + 2)
      error("boom")
    end)
    assert.is_false(ok)
    assert.equal(want, got)
  end)

  each("shows f's own traceback to a handler", function(run)
    local function thrower_in_f() error("boom") end
    local trace
    local ok = xpcall(function()
      run(function(x)
        thrower_in_f()
        return x
      end)
    end, function(e)
      trace = debug.traceback(e)
      return e
    end)
    assert.is_false(ok)
    assert.is_truthy(trace:find("thrower_in_f", 1, true), trace)
  end)

  each("leaves a clean state", function(run)
    for depth = 0, 2 do
      local leak
      local function fail(x, n)
        leak = x * 2
        if n == 0 then error("boom") end
        return fail(x, n - 1)
      end
      assert.is_false((pcall(run, function(x) return fail(x, depth) end)))
      -- values of the transform that failed are constants
      near(6, ad.value(leak))
      near(6, ad.grad(function(y) return leak * y end)(5))
      near(6, T.forward(function(y) return leak * y end)(5))
      near(0, ad.grad(function() return leak end)(5))
      near({30, 6, 0}, ad.taylor(function(y) return leak * y end, 5, 2))
    end
  end, "moved")

  each("may be caught by the f of a transform outside", function(run)
    local function f(x)
      local leak
      local ok = pcall(run, function(y)
        leak = y * x
        error("boom")
      end)
      assert(not ok)
      -- y was the plain 3
      return leak * x + x ^ 3
    end
    -- 3 x^2 + x^3
    near(6 * 2 + 3 * 4, ad.grad(f)(2))
    near(6 * 2 + 3 * 4, T.forward(f)(2))
    near({12 + 8, 12 + 12}, {ad.value_and_grad(f)(2)})
  end, "moved stopped")
end)

describe("errors at any place of any transform", function()
  for _, entry in ipairs(T.battery()) do
    it("leave a clean state: " .. entry.name, function()
      -- fail at the first tick, then at the second, and so on to the end
      local k, done = 0, false
      while not done do
        k = k + 1
        local n, e = 0, {}
        local ok, got = pcall(entry.run, function()
          n = n + 1
          if n == k then error(e) end
        end)
        if ok then
          done = true
          T.near(entry.want, got, 1e-9)
        else
          assert.is_true(rawequal(e, got), tostring(got))
          T.check_entry(entry)
        end
        assert.is_true(k < 1000)
      end
      assert.is_true(k > 1)
      T.check_battery()
    end)
  end

  it("hundreds of times do not add up", function()
    local f = ad.grad(function(x)
      local y = ad.grad(function(t) return t * x end)(x)
      error(y)
    end)
    for _ = 1, 1000 do pcall(f, 3) end
    T.check_battery()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 1000 do pcall(f, 3) end
    collectgarbage()
    assert.is_true(collectgarbage("count") < before + 100)
  end)
end)

describe("the traceback of f", function()
  it("shows every function between", function()
    local function level_three() error("boom") end
    local function level_two(x) level_three() return x end
    local function level_one(x) level_two(x) return x end
    local ok, trace = xpcall(function()
      local g = ad.grad(function(x)
        local h = ad.grad(level_one)(x)
        return h
      end)(3)
      return g
    end, debug.traceback)
    assert.is_false(ok)
    for _, name in ipairs{"level_three", "level_two"} do
      assert.is_truthy(trace:find(name, 1, true), trace)
    end
    assert.is_truthy(trace:find("errors_spec.lua", 1, true))
  end)

  it("is in a coroutine that died", function()
    local function thrower_in_coroutine() error("boom") end
    local co = coroutine.create(function()
      ad.grad(function(x)
        coroutine.yield()
        thrower_in_coroutine()
        return x
      end)(3)
    end)
    coroutine.resume(co)
    local ok, e = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("boom", e)
    assert.is_truthy(debug.traceback(co):find("thrower_in_coroutine", 1, true))
  end)

  it("is there while the handler runs inside the transform", function()
    -- a handler that uses AD itself does no harm
    local inside
    local ok = xpcall(function()
      ad.grad(function(x)
        error(x)
      end)(3)
    end, function(e)
      inside = ad.value(ad.grad(function(y) return y * y end)(7))
      return e
    end)
    assert.is_false(ok)
    near(14, inside)
    T.check_battery()
  end)
end)

describe("errors of to-be-closed variables", function()
  each("come through", function(run)
    local e = {}
    local ok, got = pcall(run, function(x)
      local c <close> = setmetatable({}, {__close = function() error(e) end})
      return x * (c and 1)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(e, got))
    near(6, ad.grad(function(x) return x * x end)(3))
  end)

  it("replace the first error, as in Lua", function()
    local first, second = {}, {}
    local seen
    local function f()
      local c <close> = setmetatable({}, {__close = function(_, err)
        seen = err
        error(second)
      end})
      error(c and first)
    end
    local _, expected = pcall(f, 3) -- until Lua 5.4.2 it is the first one
    seen = nil
    local ok, got = pcall(ad.grad(f), 3)
    assert.is_false(ok)
    assert.is_true(rawequal(first, seen))
    assert.is_true(rawequal(expected, got))
    T.check_battery()
  end)

  it("may use AD while closing", function()
    local g
    local function f(x)
      local c <close> = setmetatable({}, {__close = function()
        g = ad.grad(function(y) return y * y * x end)(2)
      end})
      return x * x * (c and 1)
    end
    near(6, ad.grad(f)(3))
    near(12, ad.value(g))
    assert.is_false((pcall(ad.grad(function(x) error(f(x)) end), 3)))
    near(12, ad.value(g))
    T.check_battery()
  end)
end)

describe("errors of finalizers", function()
  it("do not disturb", function()
    -- they become warnings; turned off here so that the output stays clean
    warn("@off")
    for _, entry in ipairs(T.battery()) do
      local n = 0
      T.check_entry(entry, function()
        for _ = 1, 5 do
          setmetatable({}, {__gc = function()
            n = n + 1
            error("in a finalizer")
          end})
        end
        collectgarbage()
      end)
      assert.is_true(n > 0)
    end
  end)

  it("that use AD themselves do not disturb", function()
    for _, entry in ipairs(T.battery()) do
      local good, n = 0, 0
      T.check_entry(entry, function()
        setmetatable({}, {__gc = function()
          n = n + 1
          local g = ad.grad(function(x)
            return T.forward(function(y) return x * y * y end)(x)
          end)(3)
          if g == 12 then good = good + 1 end
        end})
        collectgarbage()
      end)
      assert.is_true(n > 0)
      assert.equal(n, good)
    end
  end)

  it("of a failed transform's values may run late", function()
    for _ = 1, 50 do
      pcall(ad.grad(function(x)
        local t = {}
        for i = 1, 100 do t[i] = x * i end
        error(t)
      end), 3)
    end
    collectgarbage()
    T.check_battery()
  end)
end)

describe("misuse of AD values", function()
  local kinds = {
    {"var", function(f) return ad.grad(f) end},
    {"dual", function(f) return T.forward(f) end},
    {"taylor", function(f) return function(x) return ad.taylor(f, x, 2) end end},
  }

  for _, k in ipairs(kinds) do
    local function fails(title, body, ...)
      local texts = {...}
      it(title .. ": " .. k[1], function()
        local e = T.failure(k[2](body), 3)
        assert.equal("string", type(e))
        for _, text in ipairs(texts) do
          assert.is_truthy(e:find(text, 1, true), e)
        end
        -- Lua's errors say where, unless the string library is between
        assert.is_truthy(title == "text minus" or e:find("errors_spec%.lua:%d+:"), e)
        near(6, ad.grad(function(x) return x * x end)(3))
      end)
    end

    fails("plus a table", function(v) return v + {} end,
      "attempt to perform arithmetic on a table value")
    fails("a table plus", function(v) return {} + v end,
      "attempt to perform arithmetic on a table value")
    fails("times nil", function(v) return v * nil end,
      "attempt to perform arithmetic on a nil value")
    fails("power of a boolean", function(v) return v ^ true end,
      "attempt to perform arithmetic on a boolean value")
    fails("over a function", function(v) return v / print end,
      "attempt to perform arithmetic on a function value")
    fails("plus text", function(v) return v + "abc" end, "attempt to perform arithmetic")
    fails("text minus", function(v) return "abc" - v end, "attempt to perform arithmetic")
    fails("// and %", function(v) return (v // {}) % v end, "attempt to perform arithmetic")
    fails("concatenated with a table", function(v) return v .. {} end,
      "attempt to concatenate a table value")
    fails("table concatenated with", function(v) return {} .. v end,
      "attempt to concatenate a table value")
    fails("concatenated with nil", function(v) return v .. nil end,
      "attempt to concatenate a nil value")
    fails("less than text", function(v) return v < "x" end, "attempt to compare")
    fails("text less than", function(v) return "x" <= v end, "attempt to compare")
    fails("less than a table", function(v) return v < {} end, "attempt to compare")
    fails("less than nil", function(v) return v < nil end, "attempt to compare")
    fails("called", function(v) return (v()) end, "attempt to call")
    fails("its length", function(v) return #v end, "attempt to get length of")
    fails("bitwise", function(v) return v & 1 end, "attempt to perform bitwise operation")
    fails("written to", function(v)
      v.nosuch = 1
      return v
    end)

    it("a field that is not there: " .. k[1], function()
      -- nil, as for a table, or an error that names it: never something else
      local ok, e = pcall(k[2](function(v)
        assert(v.nosuch == nil, "not nil")
        assert(v[1] == nil, "not nil")
        assert(v[{}] == nil, "not nil")
        return v
      end), 3)
      assert.is_true(ok or type(e) == "string" and e:find("nosuch", 1, true) ~= nil, e)
    end)

    it("functions given something else: " .. k[1], function()
      for _, bad in ipairs{{}, "abc", true, print} do
        -- written out, since Lua knows no name for a call of ad[name]
        local calls = {
          atan2 = function(v) local r = ad.atan2(v, bad) return r end,
          pow = function(v) local r = ad.pow(v, bad) return r end,
          hypot = function(v) local r = ad.hypot(v, bad) return r end,
          fmod = function(v) local r = ad.fmod(v, bad) return r end,
        }
        for name, call in pairs(calls) do
          assert.matches("bad argument #2 to '" .. name .. "'", T.failure(k[2](call), 3))
        end
        local e = T.failure(k[2](function(v)
          local r = ad.sin(bad)
          return v * r
        end), 3)
        assert.matches("bad argument #1 to 'sin'", e)
      end
    end)

    it("strings that are numbers count as in Lua: " .. k[1], function()
      local seen
      k[2](function(v)
        seen = {ad.value(v + "10"), ad.value("10" * v), v .. "x", "x" .. v}
        return v
      end)(3)
      near(13, seen[1])
      near(30, seen[2])
      assert.equal("string", type(seen[3]))
      assert.equal("string", type(seen[4]))
    end)
  end

  it("with a metatable on the other side asks the other side, as Lua does", function()
    local mt = {}
    mt.__add = function() return "other" end
    mt.__concat = mt.__add
    mt.__lt = function() return true end
    local other = setmetatable({}, mt)
    local seen
    ad.grad(function(v)
      seen = {other + v, other .. v, other < v}
      return v
    end)(3)
    assert.same({"other", "other", true}, seen)
  end)
end)

describe("stack overflow inside f", function()
  it("is an ordinary error", function()
    local function forever(x) return 1 + forever(x) end
    local e = T.failure(ad.grad(forever), 3)
    assert.matches("stack overflow", tostring(e))
    T.check_battery()
    e = T.failure(T.forward(forever), 3)
    assert.matches("stack overflow", tostring(e))
    T.check_battery()
  end)
end)

describe("another Lua", function()
  it("is told which one is needed", function()
    local path = assert(package.searchpath("autodiff", package.path))
    local env = { _VERSION = "Lua 5.3", error = error }
    assert.has_error(assert(loadfile(path, "t", env)),
      "autodiff is for Lua 5.4, and this is Lua 5.3")
  end)
end)
