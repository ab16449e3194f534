local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near

local function with(mode, body)
  local old, pause, multiplier = mode()
  local ok, e = pcall(body)
  collectgarbage("incremental", pause or 200, multiplier or 100)
  if old == "generational" then collectgarbage("generational") end
  collectgarbage("restart")
  if not ok then error(e, 0) end
end

local function incremental(pause, multiplier, step)
  return function()
    local old = collectgarbage("incremental")
    collectgarbage("incremental", pause, multiplier, step)
    return old
  end
end

local function hooked(hook, mask, n, body)
  local old, oldmask, oldcount = debug.gethook()
  debug.sethook(hook, mask, n)
  local ok, e = pcall(body)
  debug.sethook(old, oldmask, oldcount)
  if not ok then error(e, 0) end
end

-- Run an entry with a full collection at up to `places` of its hook events
-- (instructions, or lines, calls and returns), evenly spread. The events are
-- counted in a first run, because a collection at each of them would take a
-- time that depends on how much of the library is written in Lua.
local phase = 0
local function collecting(entry, places, mask, n)
  local events = 0
  hooked(function() events = events + 1 end, mask, n, function() T.check_entry(entry) end)
  local stride = math.max(1, events // places)
  phase = phase + 1
  local i, collected = phase % stride, 0
  hooked(function()
    i = i + 1
    if i % stride == 0 then
      collected = collected + 1
      collectgarbage()
    end
  end, mask, n, function() T.check_entry(entry) end)
  assert.is_true(collected > 0)
end

describe("garbage collection", function()
  it("at every tick changes nothing", function()
    for _, entry in ipairs(T.battery()) do
      T.check_entry(entry, collectgarbage)
      T.check_entry(entry, function() collectgarbage("step") end)
    end
  end)

  it("between instructions changes nothing", function()
    for _, entry in ipairs(T.battery()) do
      for _ = 1, 3 do collecting(entry, 15, "", 1) end
    end
  end)

  it("at lines, calls and returns changes nothing", function()
    for _, entry in ipairs(T.battery()) do
      collecting(entry, 15, "crl")
    end
  end)

  it("by a step at every instruction changes nothing", function()
    for _, entry in ipairs(T.battery()) do
      hooked(function() collectgarbage("step", 0) end, "", 1, function() T.check_entry(entry) end)
    end
  end)

  it("without pause changes nothing", function()
    with(incremental(0, 1000, 2), function()
      for _ = 1, 20 do T.check_battery() end
    end)
    with(incremental(1, 5, 1), function()
      for _ = 1, 20 do T.check_battery() end
    end)
  end)

  it("in generations changes nothing", function()
    with(function()
      return collectgarbage("generational", 1, 1)
    end, function()
      for _ = 1, 20 do T.check_battery() end
      for _, entry in ipairs(T.battery()) do
        T.check_entry(entry, function() collectgarbage("step") end)
        collecting(entry, 5, "", 1)
      end
    end)
  end)

  it("between changes of mode changes nothing", function()
    with(function() return collectgarbage("incremental") end, function()
      local n = 0
      local function flip()
        n = n + 1
        collectgarbage(n % 2 == 0 and "incremental" or "generational")
      end
      for _, entry in ipairs(T.battery()) do T.check_entry(entry, flip) end
      collectgarbage("incremental")
    end)
  end)

  it("in coroutines that wait changes nothing", function()
    local waiting = {}
    for _, entry in ipairs(T.battery(true)) do
      local co = coroutine.create(function() return entry.run(coroutine.yield) end)
      assert(coroutine.resume(co))
      waiting[#waiting + 1] = {co = co, entry = entry}
    end
    while #waiting > 0 do
      collectgarbage()
      for i = #waiting, 1, -1 do
        local w = waiting[i]
        local ok, r = coroutine.resume(w.co)
        assert.is_true(ok, tostring(r))
        if coroutine.status(w.co) == "dead" then
          near(w.entry.want, r, 1e-9)
          table.remove(waiting, i)
        end
      end
    end
  end)

  it("after errors changes nothing", function()
    for _, entry in ipairs(T.battery()) do
      for _, k in ipairs{1, 3} do
        local n = 0
        pcall(entry.run, function()
          n = n + 1
          if n == k then error("boom") end
        end)
        collectgarbage()
        T.check_entry(entry, collectgarbage)
      end
    end
  end)

  it("does not take what a pullback or a linear map needs", function()
    local _, pull = ad.vjp(function(x, y) return {x * y, ad.sin(x)} end, 0.4, 2)
    local _, lin = ad.linearize(function(x, y) return {x * y, ad.sin(x)} end, 0.4, 2)
    for _ = 1, 5 do
      collectgarbage()
      local junk = {}
      for i = 1, 1000 do junk[i] = {i} end
      assert.equal(1000, #junk)
      near({{2, math.cos(0.4)}, {0.4, 0}}, {lin(1, 0), lin(0, 1)})
      near({2 + 3 * math.cos(0.4), 0.4}, {pull({1, 3})})
    end
  end)

  it("does not take values held by vars, tables, and weak tables' keys in use", function()
    local keep = {}
    near(2 * 3 * 100, ad.grad(function(x)
      for i = 1, 100 do keep[i] = x * x end
      collectgarbage()
      local s = 0
      for i = 1, 100 do s = s + keep[i] end
      return s
    end)(3))
    collectgarbage()
    for i = 1, 100 do near(9, ad.value(keep[i])) end
  end)

  it("takes values that nobody holds", function()
    local weak = setmetatable({}, {__mode = "k"})
    ad.grad(function(x)
      for _ = 1, 50 do weak[x * x] = true end
      return x
    end)(3)
    T.forward(function(x)
      for _ = 1, 50 do weak[x * x] = true end
      return x
    end)(3)
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("takes closures, pullbacks and tapes that nobody holds", function()
    local weak = setmetatable({}, {__mode = "v"})
    do
      local t = {}
      weak.t = t
      weak.grad = ad.grad(function(x) return x * #t end)
      local _, pull = ad.vjp(function(x) return x * #t end, 1)
      weak.pull = pull
      local _, lin = ad.linearize(function(x) return x * #t end, 1)
      weak.lin = lin
      weak.check = ad.checkpoint(function(x) return x * #t end)
      weak.custom = ad.custom{name = "f", f = function(x) return x * #t end, vjp = function() end}
      weak.custom(3)
      ad.grad(weak.check)(3)
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil((next(weak)))
  end)

  it("keeps memory bounded over many transforms", function()
    local function work(n)
      for i = 1, n do
        ad.grad(function(x)
          local y = x
          for _ = 1, 50 do y = ad.sin(y) * x + i end
          return y
        end)(0.5)
        T.forward(T.reverse(ad.sin))(0.3)
        ad.taylor(ad.exp, 0.1, 10)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    work(50)
    local a = work(100)
    local b = work(500)
    assert.is_true(b < a + 100, a .. " then " .. b)
  end)

  it("keeps up with a long computation in one transform", function()
    -- the tape has to grow; garbage beside it has not
    local peak = 0
    ad.grad(function(x)
      local s = 0
      for i = 1, 20000 do
        s = s + ad.sin(x * i)
        if i % 1000 == 0 then peak = math.max(peak, collectgarbage("count")) end
      end
      return s
    end)(0.5)
    assert.is_true(peak < 64 * 1024, peak .. " KB")
  end)
end)
