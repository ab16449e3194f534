local ad = require "autodiff"
local T = require "support.transforms"

local near = T.near
local yield = coroutine.yield

-- Run an entry in a coroutine of its own; the result is a function that
-- resumes once and says whether the entry has finished and been checked.
local function start(entry)
  local co = coroutine.create(function()
    return entry.run(function() assert(yield("tick") == "tock") end)
  end)
  local first = true
  return function()
    local ok, r
    if first then
      ok, r = coroutine.resume(co)
      first = false
    else
      ok, r = coroutine.resume(co, "tock")
    end
    if not ok then error(entry.name .. ": " .. tostring(r), 0) end
    if coroutine.status(co) == "dead" then
      local same, m = T.is_near(entry.want, r, 1e-9)
      if not same then error(entry.name .. ": " .. m, 0) end
      return true
    end
    assert(r == "tick", entry.name .. ": a strange yield")
    return false
  end
end

describe("f may yield", function()
  for _, entry in ipairs(T.battery()) do
    it("inside " .. entry.name, function()
      local step, n = start(entry), 0
      while not step() do n = n + 1 end
      assert.is_true(n > 0)
    end)

    it("inside " .. entry.name .. ", with other transforms between", function()
      local step = start(entry)
      local other = T.battery()
      local i = 0
      while not step() do
        i = i % #other + 1
        T.check_entry(other[i])
      end
    end)
  end

  it("values in and out", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local k = yield("first", 1, nil)
        local a, b = yield(x * k)
        return x * x * a + b
      end)(3)
    end)
    local s, one, none = co()
    assert.equal("first", s)
    assert.equal(1, one)
    assert.is_nil(none)
    local v = co(5)
    near(15, ad.value(v))
    near(42, co(7, 100))
  end)

  it("AD values that the driver computes with", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x) return yield(x) * x end)(3)
    end)
    local x = co()
    -- what the driver makes of x is either still x's or a constant of value 9
    local y = x * x
    near(9, ad.value(y))
    local g = co(y)
    assert.is_true(g == 27 or g == 9, tostring(g))
  end)

  it("a great many times", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local s = 0
        for i = 1, 2000 do
          s = s + x * i
          yield()
        end
        return s
      end)(3)
    end)
    local r
    repeat r = co() until r
    near(2000 * 2001 / 2, r)
  end)

  it("from inside a coroutine that f runs", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local inner = coroutine.wrap(function()
          local g = ad.grad(function(y)
            yield("inner")
            return y * y * x
          end)(2)
          return g * x
        end)
        assert(inner() == "inner")
        yield("outer")
        return inner()
      end)(3)
    end)
    assert.equal("outer", co())
    -- d/dx of 4 x^2
    near(24, co())
  end)

  it("where f is called forward by checkpoint, custom and implicit", function()
    local function run(f)
      local co, n = coroutine.create(f), 0
      local ok, r
      repeat
        ok, r = coroutine.resume(co)
        assert.is_true(ok, tostring(r))
        n = n + 1
      until coroutine.status(co) == "dead"
      assert.is_true(n > 1)
      return r
    end
    local function square(x)
      yield()
      return x * x
    end
    near(9, run(function() return ad.checkpoint(square)(3) end))
    near(9, run(function() return (ad.vjp(ad.checkpoint(square), 3)) end))
    near(6, run(function() return T.forward(ad.checkpoint(square))(3) end))
    near(6, run(function()
      return ad.grad(ad.custom{name = "c", f = square,
        vjp = function(b, _, x) return 2 * b * x end})(3)
    end))
    near(6, run(function()
      return T.forward(ad.custom{name = "c", f = function(x) return x * x end,
        jvp = function(p, t)
          yield()
          return 2 * p[1] * t[1]
        end})(3)
    end))
    near(6, run(function()
      return ad.grad(ad.implicit{f = function(x, a) return x - a * a end, solve = square})(3)
    end))
  end)

  it("through pcall inside f", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local ok, e = pcall(function()
          yield()
          error("inner")
        end)
        assert(not ok and e:find("inner"))
        local _, y = pcall(function()
          yield()
          return x * x
        end)
        return y
      end)(3)
    end)
    co()
    co()
    near(6, co())
  end)

  it("through a transform called by pcall", function()
    local co = coroutine.wrap(function()
      return pcall(ad.grad(function(x)
        yield()
        return x * x
      end), 3)
    end)
    co()
    local ok, g = co()
    assert.is_true(ok)
    near(6, g)
  end)

  it("from iterators and metamethods that Lua allows to yield", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local s = 0
        local function iterate(_, i)
          yield()
          if i < 3 then return i + 1 end
        end
        for i in iterate, nil, 0 do s = s + x ^ i end
        local t = setmetatable({}, {__index = function(_, k)
          yield()
          return x * k
        end})
        return s + t[10]
      end)(2)
    end)
    local r
    repeat r = co() until r
    near(1 + 4 + 12 + 10, r)
  end)
end)

-- What follows yields in f itself only. Whether rules, solvers and recomputed
-- parts may yield as well is tested above, one by one.
local entries = T.battery(true)

describe("several coroutines", function()
  it("resumed in turns", function()
    local steps = {}
    for _, entry in ipairs(entries) do
      steps[#steps + 1] = start(entry)
      steps[#steps + 1] = start(entry)
    end
    while #steps > 0 do
      for i = #steps, 1, -1 do
        if steps[i]() then table.remove(steps, i) end
      end
    end
    T.check_battery()
  end)

  it("resumed in random order", function()
    for seed = 1, 15 do
      local rnd = T.rng(seed)
      local steps = {}
      for _, entry in ipairs(entries) do
        if rnd(0, 1) < 0.7 then steps[#steps + 1] = start(entry) end
      end
      while #steps > 0 do
        local i = T.int(rnd, 1, #steps)
        if steps[i]() then table.remove(steps, i) end
        if rnd(0, 1) < 0.05 then
          T.check_entry(entries[T.int(rnd, 1, #entries)])
        end
      end
      T.check_battery()
    end
  end)

  it("started inside the f of one another, ended in any order", function()
    for seed = 1, 10 do
      local rnd = T.rng(100 + seed)
      local open = {}
      -- each f starts the next coroutine before its own second half
      local function spawn(depth, x0)
        local task = {want = 3 * x0 * x0}
        task.co = coroutine.create(function()
          local D = depth % 2 == 0 and T.reverse or T.forward
          return D(function(x)
            local y = x * x
            if depth > 0 then
              spawn(depth - 1, x0 + 0.5)
              spawn(depth - 1, x0 - 0.25)
            end
            yield()
            return y * x
          end)(x0)
        end)
        open[#open + 1] = task
        assert(coroutine.resume(task.co))
      end
      spawn(3, 1.5)
      assert.equal(15, #open)
      while #open > 0 do
        local task = table.remove(open, T.int(rnd, 1, #open))
        local ok, r = coroutine.resume(task.co)
        assert.is_true(ok, tostring(r))
        near(task.want, r)
      end
    end
  end)

  it("moved on by the f of another transform", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        local y = x * x
        yield()
        y = y * x
        yield()
        return y * x
      end)(2)
    end)
    co()
    near(10, ad.grad(function(x)
      co()
      return x * x
    end)(5))
    near(2 * 32, T.forward(function(x) return x * x end)(ad.stop(32)))
    near(7, ad.grad(function(x) return x * 7 end)(1))
    near(32, co())
  end)

  it("of which one finishes inside the f of another transform", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        yield()
        return x ^ 4
      end)(2)
    end)
    co()
    local inner
    near(10 * 32, ad.grad(function(x)
      inner = co()
      return x * x * inner
    end)(5))
    near(32, ad.value(inner))
  end)

  it("with values of different transforms mixed", function()
    -- while both run, each takes the other's values as constants
    local box = {}
    local function task(name, other, x0)
      return coroutine.wrap(function()
        return ad.grad(function(x)
          box[name] = x * x
          yield()
          local o = box[other]
          local r = o * x
          yield()
          return r + x * x
        end)(x0)
      end)
    end
    for _, order in ipairs{{1, 2, 1, 2, 1, 2}, {1, 2, 2, 1, 2, 1}, {1, 2, 1, 1, 2, 2},
                           {2, 1, 2, 2, 1, 1}, {2, 1, 1, 2, 2, 1}} do
      local co, r = {task("a", "b", 3), task("b", "a", 5)}, {}
      for _, i in ipairs(order) do r[i] = co[i]() end
      near({25 + 6, 9 + 10}, {ad.value(r[1]), ad.value(r[2])})
    end
  end)
end)

describe("abandoned coroutines", function()
  it("are collected with their transforms", function()
    local held = setmetatable({}, {__mode = "k"})
    for _, entry in ipairs(entries) do
      local co = coroutine.create(function() return entry.run(yield) end)
      held[co] = entry.name
      coroutine.resume(co)
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held), tostring((select(2, next(held)))))
    T.check_battery()
  end)

  it("do not use up memory", function()
    local function abandon(n)
      for _ = 1, n do
        local co = coroutine.wrap(function()
          return ad.grad(function(x)
            local y = x
            for _ = 1, 20 do y = ad.sin(y) * x end
            yield()
            return y
          end)(3)
        end)
        co()
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    abandon(200)
    local a = abandon(200)
    local b = abandon(1000)
    assert.is_true(b < a + 200, a .. " then " .. b)
  end)

  it("leave constants behind", function()
    local leak
    do
      local co = coroutine.wrap(function()
        ad.grad(function(x)
          leak = x * x
          yield()
          return x
        end)(3)
      end)
      co()
    end
    collectgarbage()
    collectgarbage()
    near(9, ad.value(leak))
    near(9, ad.value(ad.grad(function(y) return leak * y end)(5)))
  end)

  it("do not disturb the transforms that go on", function()
    near(2 * 3 + 5, ad.grad(function(x)
      local y = x * x
      for _ = 1, 20 do
        local co = coroutine.wrap(function()
          ad.grad(function(t)
            yield()
            return t * x
          end)(x)
        end)
        co()
      end
      collectgarbage()
      return y + 5 * x
    end)(3))
  end)
end)

describe("coroutine.close", function()
  it("ends a transform at any place", function()
    for _, entry in ipairs(entries) do
      for stop = 1, 3 do
        local co = coroutine.create(function() return entry.run(yield) end)
        for _ = 1, stop do
          if coroutine.status(co) == "suspended" then assert(coroutine.resume(co)) end
        end
        local ok, e = coroutine.close(co)
        assert.is_true(ok, tostring(e))
        T.check_entry(entry)
      end
    end
    T.check_battery()
  end)

  it("makes its values constants", function()
    local leak
    local co = coroutine.create(function()
      ad.grad(function(x)
        leak = x * x
        yield()
        return x
      end)(3)
    end)
    coroutine.resume(co)
    coroutine.close(co)
    near(9, ad.value(leak))
    near(9, ad.grad(function(y) return leak * y end)(5))
    near(0, ad.grad(function() return leak end)(5))
    near({9, 0}, {ad.value_and_grad(function() return leak end)(5)})
    near(9, T.forward(function(y) return leak * y end)(5))
  end)

  it("runs the __close of f, which may use AD", function()
    local g
    local co = coroutine.create(function()
      ad.grad(function(x)
        local c <close> = setmetatable({}, {__close = function()
          g = ad.value(ad.grad(function(y) return y * y end)(4))
        end})
        yield(c)
        return x
      end)(3)
    end)
    coroutine.resume(co)
    assert.is_true(coroutine.close(co))
    near(8, g)
    T.check_battery()
  end)

  it("reports an error of __close as Lua does", function()
    local e = {}
    local co = coroutine.create(function()
      ad.grad(function(x)
        local c <close> = setmetatable({}, {__close = function() error(e) end})
        yield(c)
        return x
      end)(3)
    end)
    coroutine.resume(co)
    local ok, got = coroutine.close(co)
    assert.is_false(ok)
    assert.is_true(rawequal(e, got))
    T.check_battery()
  end)

  it("inside another transform leaves that one right", function()
    near(6 + 9, ad.grad(function(x)
      local leak
      local co = coroutine.create(function()
        ad.grad(function(t)
          leak = t * x
          yield()
          return t
        end)(9)
      end)
      coroutine.resume(co)
      local y = x * x
      coroutine.close(co)
      -- leak is 9 x out here
      return y + leak
    end)(3))
  end)
end)

describe("coroutine.wrap", function()
  it("serves as f", function()
    local f = coroutine.wrap(function(x)
      while true do x = yield(x * x) end
    end)
    near(6, ad.grad(f)(3))
    near(8, ad.grad(f)(4))
    near(10, T.forward(f)(5))
  end)

  it("around a gradient is a gradient", function()
    local g = coroutine.wrap(function(x)
      while true do x = yield((ad.grad(function(t) return t * t * t end)(x))) end
    end)
    near(27, g(3))
    near(48, g(4))
    near(24, ad.grad(function(x) return g(x) end)(4))
  end)

  it("passes errors", function()
    local e = {}
    local co = coroutine.wrap(function()
      ad.grad(function(x)
        yield()
        error(e)
        return x
      end)(3)
    end)
    co()
    assert.is_true(rawequal(e, T.failure(co)))
    T.check_battery()
  end)
end)

describe("an error after a resume", function()
  for _, entry in ipairs(entries) do
    it("leaves a clean state: " .. entry.name, function()
      for k = 1, 4 do
        local e, n = {}, 0
        local co = coroutine.create(function()
          return entry.run(function()
            n = n + 1
            yield()
            if n == k then error(e) end
          end)
        end)
        local ok, got
        repeat ok, got = coroutine.resume(co) until coroutine.status(co) == "dead"
        if ok then
          near(entry.want, got, 1e-9)
        else
          assert.is_true(rawequal(e, got), tostring(got))
        end
        T.check_entry(entry)
      end
    end)
  end

  it("thrown by the one who resumes leaves the coroutine alone", function()
    local co = coroutine.wrap(function()
      return ad.grad(function(x)
        yield()
        return x * x
      end)(3)
    end)
    pcall(ad.grad(function()
      co()
      error("outside")
    end), 1)
    near(6, co())
  end)

  it("is caught by a pcall that was there before the yield", function()
    local co = coroutine.wrap(function()
      local leak
      local ok, e = pcall(ad.grad(function(x)
        leak = x * x
        yield()
        error("late")
      end), 3)
      assert(not ok and e:find("late"))
      return ad.grad(function(y) return leak * y + y * y end)(5)
    end)
    co()
    near(19, co())
  end)
end)

describe("yields where Lua does not allow them", function()
  it("are Lua's own error", function()
    local co = coroutine.create(function()
      return ad.grad(function(x)
        -- table.sort cannot be yielded across
        table.sort({3, 2, 1}, function(a, b)
          yield()
          return a < b
        end)
        return x
      end)(3)
    end)
    local ok, e = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("attempt to yield across a C%-call boundary", e)
    T.check_battery()
  end)
end)
