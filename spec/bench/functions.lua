--- The functions that are differentiated.
local M = {}

--- The notebook's f, with one `math` or the other.
function M.notebook(math)
  return function(x1, x2)
    return math.exp(x1) - x1 * x2 + math.cos(x2)
  end
end

--- The Rosenbrock sum: 8 operations per term.
function M.rosenbrock(v)
  local s = 0
  for i = 1, #v - 1 do
    s = s + 100 * (v[i + 1] - v[i] ^ 2) ^ 2 + (1 - v[i]) ^ 2
  end
  return s
end

--- A place to evaluate it at.
function M.start(n)
  local v = {}
  for i = 1, n do v[i] = i % 2 == 0 and 1.0 or -1.2 end
  return v
end

--- From a list of numbers to a list of m, every one of which depends on all: each adds one input
-- to what came before.
function M.running(m)
  return function(x)
    local n, s, y = #x, 0, {}
    for _, xi in ipairs(x) do s = s + xi end
    for i = 1, m do
      s = s * 0.5 + x[i % n + 1]
      y[i] = s
    end
    return y
  end
end

--- The same shape from a matrix: 2n operations for each output, and a sine.
function M.dense(m, sin)
  return function(x)
    local n, y = #x, {}
    for i = 1, m do
      local s = 0
      for j = 1, n do s = s + x[j] * (i % (j + 1) + 1) end
      y[i] = sin(s)
    end
    return y
  end
end

return M
