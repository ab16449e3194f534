--- Compiled functions against the same value and gradient written by hand in C and called from
-- Lua (handwritten.c), arguments and results going through tables in both.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local readable = measure.readable

-- Compiled when it is first needed; what a batch is measured against is for this machine.
local yards = {}
local function yardstick(name, flags)
  flags = flags or "-O2"
  if not yards[flags] then
    local directory = package.searchpath("bench.compiled", package.path):match("^(.*[/\\])")
    local path = os.tmpname()
    local include = os.getenv("LUA_INCDIR") or "/usr/include/lua5.4"
    local command = ("%s %s -shared -fPIC -I'%s' -o '%s' '%shandwritten.c' -lm"):format(
      os.getenv("CC") or "cc", flags, include, path, directory)
    assert(os.execute(command), "no C compiler")
    yards[flags] = assert(package.loadlib(path, "luaopen_handwritten"))()
    os.remove(path)
  end
  return yards[flags][name]
end

local function network(w, x)
  local size, k, a = {32, 64, 64, 1}, 0, x
  for l = 1, 3 do
    local b = {}
    for j = 1, size[l + 1] do
      local s = w[k + 1]
      k = k + 1
      for i = 1, size[l] do s = s + w[k + i] * a[i] end
      k = k + size[l]
      b[j] = l < 3 and ad.tanh(s) or s
    end
    a = b
  end
  return a[1]
end

local sines = {}
for i = 1, 32 do sines[i] = math.sin(i * 0.1) end
local function single(w) return network(w, sines) end

local function weights()
  local w = {}
  for i = 1, 6337 do w[i] = math.sin(i * 1.7) * 0.15 end
  return w
end

local function lorenz(x, y, z, s, r, b)
  local h = 0.01
  local function slope(u, v, w) return s * (v - u), u * (r - w) - v, u * v - b * w end
  for _ = 1, 1000 do
    local a1, a2, a3 = slope(x, y, z)
    local b1, b2, b3 = slope(x + h / 2 * a1, y + h / 2 * a2, z + h / 2 * a3)
    local c1, c2, c3 = slope(x + h / 2 * b1, y + h / 2 * b2, z + h / 2 * b3)
    local d1, d2, d3 = slope(x + h * c1, y + h * c2, z + h * c3)
    x = x + h / 6 * (a1 + 2 * b1 + 2 * c1 + d1)
    y = y + h / 6 * (a2 + 2 * b2 + 2 * c2 + d2)
    z = z + h / 6 * (a3 + 2 * b3 + 2 * c3 + d3)
  end
  return x
end

local function against(f, name, backend, seconds, a, b)
  local c = ad.compile(f, {backend = backend})
  c(a, b)
  local ratio, t, base = measure.ratio(c, yardstick(name), seconds, a, b)
  return ratio, ("%s / %s, %s"):format(readable(t), readable(base), c:stats().backend)
end

local function agree(f, name, ...)
  local y, want = ad.compile(f)(...), yardstick(name)(...)
  assert(math.abs(y - want) <= 1e-9 * math.abs(want), name .. " is another function")
end

local notebook = functions.notebook(ad.math)
local start = {1.0, 1.0, 1.0, 10.0, 28.0, 8 / 3}

-- Ten branches on the data, and the straight program of one path.
local function branches(x)
  local s = 0
  for i = 1, 10 do if x[i] < 0 then s = s - x[i] * s - x[i] else s = s + x[i] * x[i] end end
  return s
end
local function straight(x)
  local s = 0
  for i = 1, 10 do s = s + x[i] * x[i] end
  return s
end

-- Eight values that change one after the other, each from its neighbour: for `map`.
local function ring(x, y)
  local s = {}
  for i = 1, 8 do s[i] = x * i + y end
  for _ = 1, 50 do
    for i = 1, 8 do s[i] = s[i] * 0.9 + s[i % 8 + 1] * 0.1 end
  end
  return s[1] + s[3] * s[2]
end
local ringed = 8 * 2 + 50 * 8 * 3 + 2 -- operations

-- The program itself: value and derivatives at a hundred points in one call.
local function notebooks(a, b)
  local gradient = ad.value_and_grad(function(u, v)
    return ad.exp(u) - u * v + ad.cos(v + u)
  end, {1, 2})
  local y, d1, d2 = 0, 0, 0
  for i = 1, 100 do
    local u, v, w = gradient(a + i * 0.01, b)
    y, d1, d2 = y + u, d1 + v, d2 + w
  end
  return y, d1, d2
end

local list = {}

local function add(name, bound, unit, run)
  list[#list + 1] = {name = name, bound = bound, unit = unit, measure = run}
end

local backends = {"native", "interpreter"}

-- What is measured over C, with the bounds for each back end.
for _, line in ipairs{
  {"value and derivatives of the notebook's f", "notebook", {2, 2},
    ad.value_and_grad(notebook, {1, 2}), 2.0, 4.0},
  {"the program itself: 100 such in one call", "notebooks", {1.3}, notebooks, 2.0, 4.0},
  {"gradient of Rosenbrock, n = 1000", "rosenbrock", {3, 12},
    ad.value_and_grad(functions.rosenbrock), functions.start(1000)},
  {"gradient of a 32-64-64-1 network", "network", {1.3, 5}, ad.value_and_grad(single), weights()},
} do
  local name, yard, bounds, f, a, b = table.unpack(line, 1, 6)
  for i, backend in ipairs(backends) do
    add(("%s over C, %s"):format(name, backend), bounds[i], "x", function()
      agree(f, yard, a, b)
      return against(f, yard, backend, 1, a, b)
    end)
  end
end

for i, backend in ipairs(backends) do
  local name = "gradient of 1000 steps of Lorenz's system over C, " .. backend
  add(name, ({1.2, 5})[i], "x", function()
    local f = ad.value_and_grad(lorenz, {1, 2, 3, 4, 5, 6})
    agree(f, "lorenz", table.unpack(start))
    local c, base = ad.compile(f, {backend = backend}), yardstick("lorenz")
    c(table.unpack(start))
    local ratio, s, t = measure.ratio(function() return c(table.unpack(start)) end,
      function() return base(table.unpack(start)) end, 1)
    return ratio, ("%s / %s, %s"):format(readable(s), readable(t), c:stats().backend)
  end)
end

add("recording and compiling Rosenbrock's gradient over an eager call", 40, "x", function()
  local f, x = ad.value_and_grad(functions.rosenbrock), functions.start(1000)
  local ratio, a, b = measure.ratio(function(v)
    local c = ad.compile(f)
    c(v)
    return c(v)
  end, f, 2, x)
  return ratio, ("%s / %s"):format(readable(a), readable(b))
end)

add("ten branches over the straight program", 1.3, "x", function()
  local x = {}
  for i = 1, 10 do x[i] = 0.1 * i end
  local c, s = ad.compile(ad.value_and_grad(branches)), ad.compile(ad.value_and_grad(straight))
  math.randomseed(1)
  for _ = 1, 2000 do
    local r = {}
    for i = 1, 10 do r[i] = math.random() - 0.5 end
    c(r)
  end
  for _ = 1, 2000 do s(x) end -- until it is machine code, too
  local ratio, a, b = measure.ratio(c, s, 1, x)
  return ratio, ("%s / %s, %d traces"):format(readable(a), readable(b), c:stats().traces)
end)

add("traces of a loop of 10 to 10000 trips", 5, "traces", function()
  local c = ad.compile(ad.value_and_grad(function(x, rate)
    while x > 1 do x = x * rate end
    return x
  end, {1, 2}))
  for i = 1, 40 do c(2.0, 0.5 ^ (1 / 10 ^ (1 + i / 13.3))) end
  return c:stats().traces, ""
end)

-- Many points

for i, backend in ipairs(backends) do
  add(("map, 4096 points, per operation and point, %s"):format(backend), ({0.05, 0.11})[i], "ns",
    function()
      local c, points = ad.compile(ring, {backend = backend}), ad.random(1)
      local x, y = points:uniform({4096}), points:uniform({4096})
      c(0.1, 0.2)
      local t = measure.times({function() return c:map(x, y) end}, 0.5)[1]
      return t / 4096 / ringed * 1e9, readable(t)
    end)
end

for _, backend in ipairs(backends) do
  add(("gradient of 1024 examples, summed, over C -O3, %s"):format(backend), 2, "x", function()
    local c = ad.compile(ad.value_and_grad(network), {backend = backend})
    local x, w = ad.random(1):uniform({1024, 32}), weights()
    local flags = "-O3 -march=native"
    local sum, block = yardstick("networks", flags), yardstick("block", flags)
    local same, options = block(x:reshape{1024 * 32}:tolist()), {reduce = "sum"}
    local y, want = c:map(w, x, options), sum(w, same)
    assert(math.abs(y - want) <= 1e-9 * math.abs(want), "another function")
    local ratio, a, b = measure.ratio(function() return c:map(w, x, options) end,
      function() return sum(w, same) end, 2)
    return ratio, ("%s / %s"):format(readable(a), readable(b))
  end)
end

add("exp of 100000 numbers by map, each", nil, "ns", function()
  local c, x = ad.compile(ad.exp), ad.random(1):uniform({100000})
  c(0.5)
  local t = measure.times({function() return c:map(x) end}, 0.5)[1]
  return t / 100000 * 1e9, readable(t)
end)

-- What it takes to compile

for _, n in ipairs{10, 100, 1000, 10000, 100000} do
  add(("recording and compiling %d operations"):format(n), nil, "ns/operation", function()
    local function f(x, y)
      for _ = 1, n // 4 do x, y = x * 0.99 + y, y - x * 0.01 end
      return x
    end
    local t = measure.times({function()
      local c = ad.compile(f)
      c(1.0, 2.0)
      c(1.0, 2.0)
    end}, 0.5)
    return t[1] / n * 1e9, readable(t[1])
  end)
end

local function peak(n)
  local directory = package.searchpath("bench.compiled", package.path):match("^(.*[/\\])")
  local text = measure.child(directory .. "compiling.lua", tostring(n))
  return tonumber(text:match("(%d+) kB"))
end

for _, n in ipairs{100000, 1000000} do
  add(("peak memory of recording and compiling %d operations"):format(n), nil, "B/operation",
    function()
      local base, most = peak(0), peak(n)
      if not base then return nil, "no /proc/self/status here" end
      return (most - base) * 1024 / n, ("%.3g MB"):format((most - base) / 1000)
    end)
end

return list
