--- Arrays against loops in C that do the same, and against NumPy.
local ad = require "autodiff"
local measure = require "bench.measure"

local readable = measure.readable
local lines = {}

-- Built by `make bench`.
local loops = setmetatable({}, { __index = function(t, name)
  local file = (os.getenv("AUTODIFF_BUILD") or "build") .. "/loops.so"
  for key, f in pairs(assert(package.loadlib(file, "luaopen_loops"))()) do t[key] = f end
  return rawget(t, name)
end })

-- The ratio of a call to a loop in C, by turns in one run.
local function line(name, bound, make)
  lines[#lines + 1] = {
    name = name, bound = bound, unit = "x",
    measure = function()
      local call, base = make()
      local ratio, a, b = measure.ratio(call, base, 2)
      return ratio, ("%s / %s"):format(readable(a), readable(b))
    end,
  }
end

local n = 1000000

line("a + b of 1e6 elements over the loop", 1.15, function()
  local a, b = ad.linspace(0, 1, n), ad.linspace(1, 2, n)
  return function() return a + b end, loops.add(n)
end)

line("exp of 1e6 elements over the loop", 0.5, function()
  local a = ad.linspace(-1, 1, n)
  return function() return ad.exp(a) end, loops.exp(n)
end)

line("matrix 1000x1000 + row over the loop", 1.3, function()
  local a, b = ad.reshape(ad.linspace(0, 1, n), {1000, 1000}), ad.linspace(1, 2, 1000)
  return function() return a + b end, loops.addrow(1000, 1000)
end)

lines[#lines + 1] = {
  name = "a + b of 10 elements", bound = 1000, unit = "ns",
  measure = function()
    local a, b = ad.linspace(0, 1, 10), ad.linspace(1, 2, 10)
    return measure.times({function() return a + b end}, 0.5)[1] * 1e9
  end,
}

-- Seconds that NumPy takes for each of these, from one run of Python; nil where there is none.
local numpy
local function seconds(name)
  if not numpy then
    numpy = {}
    local script = [[
import time, numpy as np
n = 1000000
a, b = np.linspace(0, 1, n), np.linspace(1, 2, n)
m = np.linspace(0, 1, n).reshape(1000, 1000)
v = np.linspace(1, 2, 1000)
s = np.linspace(0, 1, 10)
for name, f, k in (("add", lambda: a + b, 20), ("exp", lambda: np.exp(a), 20),
                   ("log", lambda: np.log(b), 20), ("sin", lambda: np.sin(a), 20),
                   ("tanh", lambda: np.tanh(a), 20), ("pow", lambda: b**a, 10),
                   ("addrow", lambda: m + v, 20), ("add10", lambda: s + s, 20000),
                   ("sum", lambda: a.sum(), 50), ("sort", lambda: np.sort(-a), 5)):
    best = 1e9
    for _ in range(7):
        t = time.process_time()
        for _ in range(k): f()
        best = min(best, (time.process_time() - t) / k)
    print(name, best)
]]
    local python = require("support.numpy").python()
    if not python then return nil end
    local pipe = io.popen(python .. " -c '" .. script .. "' 2>/dev/null")
    for answer in pipe:lines() do
      local key, t = answer:match("(%S+) (%S+)")
      if key then numpy[key] = tonumber(t) end
    end
    pipe:close()
  end
  return numpy[name]
end

for _, case in ipairs{
  {"add", "a + b of 1e6 elements", function(a) return function() return a + a end end},
  {"exp", "exp of 1e6 elements", function(a) return function() return ad.exp(a) end end},
  {"log", "log of 1e6 elements", function()
    local b = ad.linspace(1, 2, n)
    return function() return ad.log(b) end
  end},
  {"sin", "sin of 1e6 elements", function(a) return function() return ad.sin(a) end end},
  {"tanh", "tanh of 1e6 elements", function(a) return function() return ad.tanh(a) end end},
  {"pow", "power of 1e6 elements", function(a)
    local b = ad.linspace(1, 2, n)
    return function() return b ^ a end
  end},
  {"sum", "sum of 1e6 elements", function(a) return function() return ad.sum(a) end end},
  {"sort", "sort of 1e6 elements", function(a)
    local b = -a
    return function() return ad.sort(b) end
  end},
  {"add10", "a + b of 10 elements", function()
    local a = ad.linspace(0, 1, 10)
    return function() return a + a end
  end},
} do
  local key, name, make = table.unpack(case)
  lines[#lines + 1] = {
    name = name .. " over NumPy", unit = "x",
    measure = function()
      local base = seconds(key)
      if not base then return nil, "there is no python3 with NumPy" end
      local t = measure.times({make(ad.linspace(0, 1, n))}, 1)[1]
      return t / base, ("%s / %s"):format(readable(t), readable(base))
    end,
  }
end

lines[#lines + 1] = {
  name = "gradient of logsumexp of 1e6 elements over its value", bound = 3.5, unit = "x",
  measure = function()
    local a = ad.linspace(-1, 1, n)
    local gradient = ad.grad(function(x) return ad.logsumexp(x) end)
    local ratio, g, v = measure.ratio(function() return gradient(a) end,
      function() return ad.logsumexp(a) end, 2)
    return ratio, ("%s / %s"):format(readable(g), readable(v))
  end,
}

-- The network of the loops: tanh between two layers, and the cross-entropy.
local function network(batch, inputs, hidden, classes)
  local random = ad.random(1)
  local w = {
    W1 = random:normal{inputs, hidden} * 0.05, b1 = ad.zeros(hidden),
    W2 = random:normal{hidden, classes} * 0.05, b2 = ad.zeros(classes),
  }
  local x = random:normal{batch, inputs}
  local target = ad.zeros(batch, classes)
  for i = 1, batch do target[{i, (i - 1) % classes + 1}] = 1 end
  local function loss(p)
    local h = ad.tanh(x:matmul(p.W1) + p.b1)
    return -ad.sum(ad.log_softmax(h:matmul(p.W2) + p.b2) * target) / batch
  end
  return loss, w
end

line("network 784-128-10, batch 128: value and gradient over C with BLAS", 1.3, function()
  local loss, w = network(128, 784, 128, 10)
  local value_and_grad = ad.value_and_grad(loss)
  return function() return value_and_grad(w) end, loops.net(128, 784, 128, 10)
end)

lines[#lines + 1] = {
  name = "the same: peak of memory over what has to be there", bound = 1.5, unit = "x",
  measure = function()
    collectgarbage()
    collectgarbage()
    local before, peak = collectgarbage("count"), 0
    local loss, w = network(128, 784, 128, 10)
    local value_and_grad = ad.value_and_grad(loss)
    value_and_grad(w)
    collectgarbage()
    collectgarbage()
    -- what forward must save is the batch and the weights themselves, and the outputs of both
    -- layers; the result is as large as the weights
    local weights = 784 * 128 + 128 + 128 * 10 + 10
    local saved = 8 * (128 * 784 + 128 * 10 + weights + 128 * 128 + 128 * 10) / 1024
    local result = 8 * weights / 1024
    local function look() peak = math.max(peak, collectgarbage("count") - before) end
    debug.sethook(look, "", 1)
    local _, g = value_and_grad(w)
    debug.sethook()
    look()
    assert(g.W1)
    return peak / (saved + result), ("%.0f KB / (%.0f KB saved + %.0f KB of gradients)")
      :format(peak, saved, result)
  end,
}

-- One hidden layer, 32 rows of 10: value and gradient, also written out by hand on plain arrays.
local function onelayer()
  local batch, d, h = 32, 10, 16
  local rng = ad.random(1)
  local x, y = rng:normal(batch, d), rng:normal(batch)
  local p = { w = rng:normal(d, h), b = rng:normal(h), v = rng:normal(h), c = 0.1 }
  local eager = ad.value_and_grad(function(q, rows, wanted)
    local r = ad.matmul(ad.tanh(ad.matmul(rows, q.w) + q.b), q.v) + q.c - wanted
    return ad.mean(r * r)
  end)
  local function byhand(q, rows, wanted)
    local a = ad.tanh(ad.matmul(rows, q.w) + q.b)
    local r = ad.matmul(a, q.v) + q.c - wanted
    local g = r * (2 / batch)
    local z = ad.reshape(g, {batch, 1}) * q.v * (1 - a * a)
    return ad.mean(r * r), {
      w = ad.matmul(ad.transpose(rows), z), b = ad.sum(z, 1), v = ad.matmul(g, a), c = ad.sum(g),
    }
  end
  local c = ad.compile(eager)
  for _ = 1, 2 do c(p, x, y) end
  local function calls(f) return function() return f(p, x, y) end end
  return calls(c), calls(eager), calls(byhand)
end

line("one-layer net on arrays 32x10: compiled over eager", 0.25, function()
  local compiled, eager = onelayer()
  return compiled, eager
end)

line("the same: compiled over the arrays by hand", 1, function()
  local compiled, _, byhand = onelayer()
  return compiled, byhand
end)

return lines
