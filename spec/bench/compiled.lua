--- Compiled functions against the same value and gradient written by hand in C and called from
-- Lua (handwritten.c), arguments and results going through tables in both.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local readable = measure.readable

-- Compiled when it is first needed.
local yard
local function yardstick(name)
  if not yard then
    local directory = package.searchpath("bench.compiled", package.path):match("^(.*[/\\])")
    local path = os.tmpname()
    local include = os.getenv("LUA_INCDIR") or "/usr/include/lua5.4"
    local command = ("%s -O2 -shared -fPIC -I'%s' -o '%s' '%shandwritten.c' -lm"):format(
      os.getenv("CC") or "cc", include, path, directory)
    assert(os.execute(command), "no C compiler")
    yard = assert(package.loadlib(path, "luaopen_handwritten"))()
    os.remove(path)
  end
  return yard[name]
end

local function network(w)
  local size, k, a = {32, 64, 64, 1}, 0, {}
  for i = 1, 32 do a[i] = math.sin(i * 0.1) end
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

local function against(f, name, seconds, a, b)
  local c = ad.compile(f)
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

local list = {
  {
    name = "value and derivatives of the notebook's f over C", bound = 2, unit = "x",
    measure = function()
      agree(ad.value_and_grad(notebook, {1, 2}), "notebook", 2.0, 4.0)
      return against(ad.value_and_grad(notebook, {1, 2}), "notebook", 1, 2.0, 4.0)
    end,
  },
  {
    name = "gradient of Rosenbrock, n = 1000, over C", bound = 12, unit = "x",
    measure = function()
      agree(ad.value_and_grad(functions.rosenbrock), "rosenbrock", functions.start(1000))
      return against(ad.value_and_grad(functions.rosenbrock), "rosenbrock", 1,
        functions.start(1000))
    end,
  },
  {
    name = "recording and compiling it over an eager call", bound = 40, unit = "x",
    measure = function()
      local f, x = ad.value_and_grad(functions.rosenbrock), functions.start(1000)
      local ratio, a, b = measure.ratio(function(v)
        local c = ad.compile(f)
        c(v)
        return c(v)
      end, f, 2, x)
      return ratio, ("%s / %s"):format(readable(a), readable(b))
    end,
  },
  {
    name = "gradient of a 32-64-64-1 network over C", bound = 5, unit = "x",
    measure = function()
      agree(ad.value_and_grad(network), "network", weights())
      return against(ad.value_and_grad(network), "network", 1, weights())
    end,
  },
  {
    name = "gradient of 1000 steps of Lorenz's system over C", bound = 5, unit = "x",
    measure = function()
      local f = ad.value_and_grad(lorenz, {1, 2, 3, 4, 5, 6})
      agree(f, "lorenz", table.unpack(start))
      local c, base = ad.compile(f), yardstick("lorenz")
      c(table.unpack(start))
      local ratio, a, b = measure.ratio(function() return c(table.unpack(start)) end,
        function() return base(table.unpack(start)) end, 1)
      return ratio, ("%s / %s, %s"):format(readable(a), readable(b), c:stats().backend)
    end,
  },
  {
    name = "ten branches over the straight program", bound = 1.3, unit = "x",
    measure = function()
      local x = {}
      for i = 1, 10 do x[i] = 0.1 * i end
      local c, s = ad.compile(ad.value_and_grad(branches)), ad.compile(ad.value_and_grad(straight))
      math.randomseed(1)
      for _ = 1, 2000 do
        local r = {}
        for i = 1, 10 do r[i] = math.random() - 0.5 end
        c(r)
      end
      local ratio, a, b = measure.ratio(c, s, 1, x)
      return ratio, ("%s / %s, %d traces"):format(readable(a), readable(b), c:stats().traces)
    end,
  },
  {
    name = "traces of a loop of 10 to 10000 trips", bound = 5, unit = "traces",
    measure = function()
      local c = ad.compile(ad.value_and_grad(function(x, rate)
        while x > 1 do x = x * rate end
        return x
      end, {1, 2}))
      for i = 1, 40 do c(2.0, 0.5 ^ (1 / 10 ^ (1 + i / 13.3))) end
      return c:stats().traces, ""
    end,
  },
}

for _, n in ipairs{10, 100, 1000, 10000, 100000} do
  list[#list + 1] = {
    name = ("recording and compiling %d operations"):format(n), unit = "ns/operation",
    measure = function()
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
    end,
  }
end

return list
