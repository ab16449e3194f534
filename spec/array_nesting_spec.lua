-- Arrays under every way to differentiate inside every other: each gives one directional
-- derivative, and what comes out is compared with the same nest of dual numbers.

local ad = require "autodiff"

local N = 3

-- The number that is the sum of the elements.
local function total(a) return a[1] + a[2] + a[3] end

-- Functions of three numbers x[1..3], written so that they take arrays: `all(g)` is the array of
-- g(i), and the scalar twin gets a table in its place.
local functions = {
  products = {
    array = function(x) return total(ad.sin(x) * x + ad.exp(x * 0.5) / (x + 3)) end,
    scalar = function(x)
      local s = 0
      for i = 1, N do s = s + ad.sin(x[i]) * x[i] + ad.exp(x[i] * 0.5) / (x[i] + 3) end
      return s
    end,
  },
  broadcast = {
    array = function(x)
      local outer = ad.array { { 1 }, { -2 } } * x + ad.array { { 0.5 }, { 0.25 } } -- (2, 3)
      local t = ad.tanh(outer) * x[2]
      return total(t[1] * t[2]) + t[{ 2, 3 }] ^ 2
    end,
    scalar = function(x)
      local s = 0
      for i = 1, N do
        s = s + ad.tanh(x[i] + 0.5) * x[2] * (ad.tanh(-2 * x[i] + 0.25) * x[2])
      end
      return s + (ad.tanh(-2 * x[3] + 0.25) * x[2]) ^ 2
    end,
  },
  pieces = {
    array = function(x)
      local y = ad.where(ad.lt(x, 0.5), x * x * x, ad.log(ad.abs(x) + 1) / (x - x)) -- inf, NaN
      y = ad.where(ad.lt(x, 0.5), y, ad.sqrt(x))
      local z = ad.array { y[1] * x[2], y[3], ad.maximum(y, x)[2] }
      return total(z * x) + ad.hypot(x, y)[3] + ad.atan(x, 2 + y)[1]
    end,
    scalar = function(x)
      local y = {}
      for i = 1, N do y[i] = ad.value(x[i]) < 0.5 and x[i] * x[i] * x[i] or ad.sqrt(x[i]) end
      return y[1] * x[2] * x[1] + y[3] * x[2] + ad.max(y[2], x[2]) * x[3]
        + ad.hypot(x[3], y[3]) + ad.atan(x[1], 2 + y[1])
    end,
  },
  powers = {
    array = function(x)
      local y = (x + 2) ^ ad.array { 2, 0.5, -1 } + 2 ^ x
      return ad.sqrt(y)[1] * total(ad.sigmoid(y)) + ad.erf(x)[2] * y[3] - (y % 5)[2] + (-y)[1]
    end,
    scalar = function(x)
      local y = {}
      local e = { 2, 0.5, -1 }
      for i = 1, N do y[i] = (x[i] + 2) ^ e[i] + 2 ^ x[i] end
      return ad.sqrt(y[1]) * (ad.sigmoid(y[1]) + ad.sigmoid(y[2]) + ad.sigmoid(y[3]))
        + ad.erf(x[2]) * y[3] - y[2] % 5 - y[1]
    end,
  },
}

-- Each: the derivative of f at x along v.
local ways = {
  jvp = function(f, x, v)
    local _, d = ad.jvp(f, { x }, { v })
    return d
  end,
  grad = function(f, x, v) return total(ad.grad(f)(x) * v) end,
  vjp = function(f, x, v)
    local _, pull = ad.vjp(f, x)
    return total(pull(1.0) * v)
  end,
  linearize = function(f, x, v)
    local _, lin = ad.linearize(f, x)
    return lin(v)
  end,
  taylor = function(f, x, v)
    return ad.taylor(function(t) return f(x + t * v) end, 0.0, 1)[2]
  end,
  taylor2 = function(f, x, v) -- by the second coefficient
    return ad.taylor(function(t) return f(x + t * t * v) end, 0.0, 2)[3]
  end,
  derivative = function(f, x, v)
    return ad.derivative(function(t) return f(x + t * v) end)(0.0)
  end,
  jacrev = function(f, x, v) return total(ad.jacrev(f)(x) * v) end,
  jacfwd = function(f, x, v) return total(ad.jacfwd(f)(x) * v) end,
  jacobian = function(f, x, v)
    return ad.jacobian(function(y) return { f(y) * 2 } end)(x)[1][{ {} }][1] * v[1] / 2
      + total(ad.jacobian(f)(x) * v * ad.array { 0, 1, 1 })
  end,
  graph = function(f, x, v)
    local w = ad.var(x)
    f(w):backward()
    return total(w.grad * v)
  end,
  tape = function(f, x, v)
    local tape <close> = ad.tape()
    local w = tape:var(x)
    return total(tape:gradient(f(w), w) * v)
  end,
  dual = function(f, x, v)
    local y = f(ad.dual(x, { v, v * 2 }))
    return (y.tangent[1] + y.tangent[2]) / 3
  end,
  checkpoint = function(f, x, v) return total(ad.grad(ad.checkpoint(f))(x) * v) end,
  custom = function(f, x, v)
    local own = ad.custom {
      name = "own", f = f,
      vjp = function(g, _, y) return ad.grad(f)(y) * g end,
    }
    return total(ad.grad(own)(x) * v)
  end,
  custom_forward = function(f, x, v)
    local own = ad.custom {
      name = "own", f = f,
      jvp = function(p, t) return (select(2, ad.jvp(f, p, t))) end,
    }
    local _, d = ad.jvp(own, { x }, { v })
    return d
  end,
}

local names = {}
for name in pairs(ways) do names[#names + 1] = name end
table.sort(names)

local X = { 0.3, 0.8, -0.4 }
local V = { { 1, -0.5, 0.75 }, { 0.3, 2, -1 }, { -1, 0.25, 0.5 } }

-- Dual numbers in lists.
local function reference(f, order)
  local function derivative(k, x)
    if k == 0 then return f(x) end
    local _, d = ad.jvp(function(y) return derivative(k - 1, y) end, { x }, { V[k] })
    return d
  end
  return derivative(order, X)
end

local function nested(f, list)
  local function derivative(k, x)
    if k == 0 then return f(x) end
    return ways[list[k]](function(y) return derivative(k - 1, y) end, x, ad.array(V[k]))
  end
  return derivative(#list, ad.array(X))
end

local function compare(f, list)
  local want, got = reference(f.scalar, #list), nested(f.array, list)
  assert.equal("number", math.type(got) and "number" or ad.type(got))
  local scale = math.max(1, math.abs(want))
  if not (math.abs(got - want) <= 1e-11 * scale) then
    error(("%s: %.17g, not %.17g"):format(table.concat(list, " inside "), got, want))
  end
end

describe("arrays in nests:", function()
  for name, f in pairs(functions) do
    it(name .. ", one level", function()
      for _, a in ipairs(names) do compare(f, { a }) end
    end)
    it(name .. ", two levels", function()
      for _, a in ipairs(names) do
        for _, b in ipairs(names) do compare(f, { a, b }) end
      end
    end)
    it(name .. ", three levels", function()
      local few = { "jvp", "grad", "taylor2", "graph", "tape", "checkpoint", "jacobian" }
      for _, a in ipairs(few) do
        for _, b in ipairs(few) do
          for _, c in ipairs(few) do compare(f, { a, b, c }) end
        end
      end
    end)
  end

  it("perturbations are not confused", function()
    local x = ad.array { 1, 2, 3 }
    local g = ad.grad(function(y)
      return total(y * ad.grad(function(z) return total(y * z) end)(x))
    end)(x)
    assert.same({ 2, 4, 6 }, g:tolist())
    local _, d = ad.jvp(function(y)
      local _, inner = ad.jvp(function(z) return y * z end, { x }, { ad.ones(3) })
      return inner * x
    end, { x }, { ad.ones(3) })
    assert.same({ 1, 2, 3 }, d:tolist())
  end)

  it("values that outlive their transform are constants", function()
    local kept
    ad.grad(function(y)
      kept = y * 2
      return total(y)
    end)(ad.array { 1, 2, 3 })
    local g = ad.grad(function(y) return total(y * (kept + 1)) end)(ad.ones(3))
    assert.same({ 3, 5, 7 }, g:tolist())
    assert.same({ 2, 4, 6 }, ad.value(kept):tolist())
  end)

  it("a constant of an inner transform goes on being differentiated outside", function()
    local x = ad.array { 1, 2, 3 }
    local g = ad.grad(function(y)
      local seen
      ad.grad(function(z)
        seen = z * y
        return total(z)
      end)(ad.ones(3))
      return total(seen * y)
    end)(x)
    assert.same({ 2, 4, 6 }, g:tolist())
  end)

  it("a coroutine that yields within", function()
    local x = ad.array { 1, 2, 3 }
    local function slow(y)
      coroutine.yield()
      return total(y * y)
    end
    local a = coroutine.wrap(function() return ad.grad(slow)(x) end)
    local b = coroutine.wrap(function() return select(2, ad.jvp(slow, { x }, { x })) end)
    a() b()
    assert.same({ 2, 4, 6 }, a():tolist())
    assert.equal(28, b())
  end)

  it("an error within leaves nothing behind", function()
    local x = ad.array { 1, 2, 3 }
    assert.is_false(pcall(ad.grad(function(y) return total(y * ad.ones(2)) end), x))
    assert.is_false(pcall(ad.jvp, function(y) return y * ad.ones(2) end, { x }, { x }))
    x[1] = 5 -- nothing holds it
    assert.same({ 10, 4, 6 }, ad.grad(function(y) return total(y * y) end)(x):tolist())
  end)
end)
