--- Property tests of every operation on arrays: random operands, both modes
-- against extrapolated differences, all four nestings of them against
-- differences of a gradient, series against nested derivatives, and batches
-- against loops.
--
--   lua5.4 spec/array_property.lua [count [seed [name [first]]]]
--
-- `count` is that of samples for each operation (or for the one named).
-- Sample i of an operation does not depend on the others: a failure is had
-- again, alone, with count 1, the name and `first` = i.

local standalone = arg and arg[0] and arg[0]:find("array_property%.lua$") and ... ~= "module"
if standalone then
  local root = arg[0]:match("^(.*)spec/array_property%.lua$") or "./"
  if root == "" then root = "./" end
  package.path = root .. "lua/?.lua;" .. root .. "spec/?.lua;" .. package.path
  package.cpath = root .. "lua/?.so;" .. package.cpath
end

local ad = require("autodiff")
local core = require("autodiff.core")
local directions = require("support.directions")
local arrays = require("support.array_samples")
local operations = require("support.operations")

local M = {}

local pack, unpack = table.pack, table.unpack
local abs, max = math.abs, math.max

---------------------------------------------------------------------------
-- Random numbers: splitmix64, in math.random's form

local function generator(seed, name, index)
  local state = seed
  for i = 1, #name do state = state * 31 + name:byte(i) end
  state = (state * 0x9E3779B97F4A7C15) ~ (index * 0x2545F4914F6CDD1D)
  return function(m, n)
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    z = z ~ (z >> 31)
    local u = (z >> 11) * 2.0 ^ -53
    if not m then return u end
    if not n then m, n = 1, m end
    return m + math.floor(u * (n - m + 1))
  end
end

---------------------------------------------------------------------------
-- Values

local shapeof = core.array.shapeof

local function isarray(x) return shapeof(x) ~= nil end

-- A plain array, whatever its layout, or a number in the form of x.
local function random_like(rng, x, scale)
  local function draw() return scale * (2 * rng() - 1) end
  if not isarray(x) then return draw() end
  return arrays.array(rng, x.shape, draw)
end

local function zeros_like(x) return isarray(x) and ad.zeros(x.shape) or 0.0 end

-- The sum of the products of elements.
local function inner(a, b)
  local p = a * b
  return isarray(p) and ad.sum(p) or p
end

local function inners(a, b)
  local s = 0.0
  for i = 1, #a do s = s + inner(a[i], b[i]) end
  return s
end

local function leaves(x, out)
  if type(x) == "table" then
    for i = 1, #x do leaves(x[i], out) end
  else
    out[#out + 1] = x
  end
  return out
end

local function elements(x)
  return leaves(ad.type(x) == "array" and x:tolist() or x, {})
end

local function shapetext(x)
  local shape = shapeof(x)
  return shape and "(" .. table.concat(shape, ", ") .. ")" or "number"
end

---------------------------------------------------------------------------
-- One sample

-- f with one number for a result, in which all results have part. In which
-- way is random too, so that cotangents come in every layout.
local function scalar(rng, f, y)
  local weights, ways = {}, {}
  for i = 1, y.n do
    weights[i] = random_like(rng, y[i], 1)
    ways[i] = isarray(y[i]) and rng(4) or 0
    if ways[i] == 2 then weights[i] = ad.transpose(weights[i]) end
  end
  return function(...)
    local v = pack(f(...))
    local s = 0.0
    for i = 1, v.n do
      local x = v[i]
      if ways[i] == 2 then x = ad.transpose(x) end
      if ways[i] == 3 then x = ad.flip(x) end
      if ways[i] == 4 then -- the same cotangent for all
        local t = ad.sum(x)
        s = s + t * (0.5 + 0.1 * t)
      else
        s = s + inner(weights[i], x * (1 + 0.3 * x))
      end
    end
    return s
  end
end

local function forward(f, x, d) return (select(2, ad.jvp(f, x, d))) end

local Check = {}
Check.__index = Check

function Check:fail(...) self.report[#self.report + 1] = string.format(...) end

-- Two results that are equal but for rounding.
function Check:same(what, want, got, tolerance)
  local ws, gs = shapetext(want), shapetext(got)
  if ws ~= gs then return self:fail("%s: shape %s, not %s", what, gs, ws) end
  if ad.type(got) ~= "array" and ad.type(got) ~= "number" then
    return self:fail("%s: a value of type %s", what, tostring(ad.type(got)))
  end
  local a, b, scale = elements(want), elements(got), 1
  for i = 1, #a do scale = max(scale, abs(a[i])) end
  for i = 1, #a do
    if not (abs(a[i] - b[i]) <= tolerance * scale) then
      return self:fail("%s: element %d is %.14g, not %.14g", what, i, b[i], a[i])
    end
  end
end

-- A derivative and the differences.
function Check:near(what, got, want, err)
  if type(got) ~= "number" then
    return self:fail("%s: a value of type %s", what, tostring(ad.type(got) or type(got)))
  end
  local bound = 1e-7 * max(1, abs(want)) + 10 * err
  if not (abs(got - want) <= bound) then
    self:fail("%s: %.12g, differences give %.12g (+- %.1g)", what, got, want, err)
  end
end

-- Some of the operands vary, the others are constants of f.
local function choose(case, rng, x)
  local vary = {}
  for i = 1, #x do
    if not case.fixed[i] and rng(3) > 1 then vary[#vary + 1] = i end
  end
  if #vary == 0 then
    for i = 1, #x do
      if not case.fixed[i] then vary[#vary + 1] = i end
    end
  end
  return vary
end

local function partially(f, x, vary)
  return function(v)
    local all = table.move(x, 1, #x, 1, {})
    for k, i in ipairs(vary) do all[i] = v[k] end
    return f(unpack(all, 1, #x))
  end
end

local function moved(x, h, d)
  local y = {}
  for i = 1, #x do y[i] = x[i] + h * d[i] end
  return y
end

function Check:derivatives(case, f, x)
  local rng = self.rng
  local y = pack(f(unpack(x)))
  local copies = {}
  for i = 1, #x do copies[i] = isarray(x[i]) and x[i]:copy() or x[i] end
  local again = pack(f(unpack(copies)))
  for q = 1, y.n do self:same("of copies", y[q], again[q], 1e-13) end

  local vary = choose(case, rng, x)
  if #vary == 0 then return end
  local g = partially(scalar(rng, f, y), x, vary)
  local p, u, v = {}, {}, {}
  for k, i in ipairs(vary) do
    p[k] = x[i]
    u[k], v[k] = random_like(rng, x[i], 1), random_like(rng, x[i], 1)
  end
  local function gradient(z) return (ad.grad(g)(z)) end
  local function along(z) return forward(g, { z }, { u }) end
  local function back(z) return inners(gradient(z), u) end

  if case.constant then
    self:same("forward", 0.0, along(p), 0)
    self:same("reverse", 0.0, back(p), 0)
    self:same("forward over forward", 0.0, forward(along, { p }, { v }), 0)
    self:same("reverse over reverse", 0.0, inners(ad.grad(back)(p), v), 0)
    return
  end

  -- first order
  local want, err = directions.slope(function(h) return g(moved(p, h, u)) end)
  if err > 1e-5 * max(1, abs(want)) then return "rough" end
  local d1 = along(p)
  self:near("forward", d1, want, err)
  local gp = gradient(p)
  for k = 1, #p do
    if shapetext(gp[k]) ~= shapetext(p[k]) then
      self:fail("reverse: a gradient of shape %s for %s", shapetext(gp[k]), shapetext(p[k]))
      return
    end
  end
  self:near("reverse", inners(gp, u), want, err)
  local _, lin = ad.linearize(g, p)
  self:near("linearization", lin(u), want, err)
  local several = {}
  for k = 1, #p do several[k] = ad.dual(p[k], { v[k], u[k] }) end
  several = g(several)
  self:near("two directions", ad.type(several) == "dual" and several.tangent[2] or 0.0, want, err)

  -- second order
  want, err = directions.slope(function(h) return back(moved(p, h, v)) end)
  if err > 1e-5 * max(1, abs(want)) then return "rough" end
  self:near("forward over forward", forward(along, { p }, { v }), want, err)
  self:near("forward over reverse", forward(back, { p }, { v }), want, err)
  self:near("reverse over forward", inners(ad.grad(along)(p), v), want, err)
  self:near("reverse over reverse", inners(ad.grad(back)(p), v), want, err)

  -- series along a curve
  local function phi(t) return g(moved(moved(p, t, u), t * t, v)) end
  local c = ad.taylor(phi, 0.0, 3)
  local function d(h, t) return forward(h, { t }, { 1.0 }) end
  local function first(t) return d(phi, t) end
  local function second(t) return d(first, t) end
  local nested = { phi(0.0), first(0.0), second(0.0) / 2, d(second, 0.0) / 6 }
  for k = 1, 4 do
    self:same(("coefficient %d"):format(k - 1), nested[k], c[k], 1e-10)
  end
end

---------------------------------------------------------------------------
-- Batches

-- Examples near x, put together along an axis: the array, the axis, and they.
local function batch(rng, x, size, fixed)
  local list = {}
  for b = 1, size do
    if fixed then
      list[b] = isarray(x) and rng(2) == 1 and ad.flip(x) or x
    else
      list[b] = x + random_like(rng, x, 0.03)
    end
  end
  local axis = rng(1, (isarray(x) and x.ndim or 0) + 1)
  return ad.stack(list, axis), axis, list
end

function Check:batches(case, f, x)
  local rng = self.rng
  local size = rng(3)
  local X, axes, own, mapped = {}, {}, {}, {}
  local chosen = rng(#x)
  for i = 1, #x do
    if i == chosen or rng(2) == 1 then
      X[i], axes[i], own[i] = batch(rng, x[i], size, case.fixed[i])
      mapped[i] = true
      if rng(2) == 1 then axes[i] = axes[i] - X[i].ndim - 1 end -- from the end
    else
      X[i], axes[i], own[i] = x[i], false, {}
      for b = 1, size do own[i][b] = x[i] end
    end
  end
  local function example(b)
    local e = {}
    for i = 1, #x do e[i] = own[i][b] end
    return e
  end

  -- values
  local all = pack(ad.vmap(f, axes)(unpack(X)))
  for b = 1, size do
    local y = pack(f(unpack(example(b))))
    if y.n ~= all.n then return self:fail("vmap: %d results, not %d", all.n, y.n) end
    for q = 1, y.n do self:same("vmap", y[q], all[q][b], 1e-12) end
  end

  -- derivatives
  local vary = {}
  for i = 1, #x do
    if not case.fixed[i] then vary[#vary + 1] = i end
  end
  if #vary == 0 then return end
  local g = scalar(rng, f, pack(f(unpack(example(1)))))
  local weights = random_like(rng, ad.zeros(size), 1)
  local total = ad.grad(function(...)
    return ad.sum(ad.vmap(g, axes)(...) * weights)
  end, vary)
  local outside = pack(total(unpack(X)))
  local inside = pack(ad.vmap(ad.grad(g, vary), axes)(unpack(X)))
  local each = {}
  for b = 1, size do each[b] = pack(ad.grad(g, vary)(unpack(example(b)))) end
  for k, i in ipairs(vary) do
    local want = zeros_like(X[i])
    if mapped[i] then
      local list = {}
      for b = 1, size do
        list[b] = each[b][k] * weights[b]
        self:same("vmap of grad", each[b][k], inside[k][b], 1e-11)
      end
      want = ad.stack(list, axes[i])
    else
      for b = 1, size do
        want = want + each[b][k] * weights[b]
        self:same("vmap of grad", each[b][k], inside[k][b], 1e-11)
      end
    end
    self:same("grad of vmap", want, outside[k], 1e-11)
  end

  -- tangents, inside and outside, and a derivative of them
  local D, dots = {}, {}
  for k, i in ipairs(vary) do
    D[k] = random_like(rng, X[i], 1)
    dots[k] = {}
    for b = 1, size do
      dots[k][b] = mapped[i] and ad.take(D[k], b, axes[i]) or D[k]
    end
  end
  local function pick(list)
    local some = {}
    for k, i in ipairs(vary) do some[k] = list[i] end
    return some
  end
  local function tangent(v, d, others) return forward(partially(g, others, vary), { v }, { d }) end
  local want = {}
  for b = 1, size do
    local d = {}
    for k = 1, #vary do d[k] = dots[k][b] end
    local e = example(b)
    want[b] = tangent(pick(e), d, e)
  end
  want = ad.array(want)
  self:same("jvp of vmap", want,
    forward(function(v)
      return partially(ad.vmap(g, axes), X, vary)(v)
    end, { pick(X) }, { D }), 1e-11)
  local inner_axes = {}
  for i = 1, #x do inner_axes[i] = axes[i] end
  for k, i in ipairs(vary) do inner_axes[#x + k] = axes[i] end
  local arguments = table.move(X, 1, #x, 1, {})
  table.move(D, 1, #D, #x + 1, arguments)
  local function own_tangent(...)
    local e, d = { unpack({ ... }, 1, #x) }, { select(#x + 1, ...) }
    return tangent(pick(e), d, e)
  end
  self:same("vmap of jvp", want, ad.vmap(own_tangent, inner_axes)(unpack(arguments)), 1e-11)

  -- series
  local function curve(...)
    local e, d = { unpack({ ... }, 1, #x) }, { select(#x + 1, ...) }
    local h = partially(g, e, vary)
    return unpack(ad.taylor(function(t) return h(moved(pick(e), t + t * t, d)) end, 0.0, 2))
  end
  local coefficients = pack(ad.vmap(curve, inner_axes)(unpack(arguments)))
  for b = 1, size do
    local own_arguments = example(b)
    for k = 1, #vary do own_arguments[#x + k] = dots[k][b] end
    local c = pack(curve(unpack(own_arguments)))
    for k = 1, c.n do
      self:same("coefficient in a batch", c[k], coefficients[k][b], 1e-11)
    end
  end

  local function summed(map)
    return ad.grad(function(v)
      local a = table.move(arguments, 1, #arguments, 1, {})
      for k, i in ipairs(vary) do a[i] = v[k] end
      return ad.sum(map(unpack(a)))
    end)(pick(X))
  end
  local mixed = summed(ad.vmap(own_tangent, inner_axes))
  local looped = summed(function(...)
    local list, a = {}, { ... }
    for b = 1, size do
      local e = {}
      for i = 1, #a do
        e[i] = inner_axes[i] and ad.take(a[i], b, inner_axes[i]) or a[i]
      end
      list[b] = own_tangent(unpack(e))
    end
    return ad.array(list)
  end)
  for k = 1, #vary do self:same("grad of vmap of jvp", looped[k], mixed[k], 1e-10) end
end

---------------------------------------------------------------------------

--- Checks one sample: nil if all agrees, "rough" if differences say nothing,
-- or a report.
function M.check(case, seed, index)
  local self = setmetatable({ report = {}, rng = generator(seed, case.name, index) }, Check)
  local f, x
  local rough
  local ok, message = xpcall(function()
    local p = pack(case.sample(self.rng))
    f, x = p[1], table.move(p, 2, p.n, 1, {})
    if #x == 0 then return end
    rough = self:derivatives(case, f, x)
    if not case.single then self:batches(case, f, x) end
  end, debug.traceback)
  if not ok then self:fail("error: %s", message) end
  if #self.report == 0 then return rough end
  local shapes = {}
  for i = 1, x and #x or 0 do shapes[i] = shapetext(x[i]) end
  return ("%s, sample %d, seed %d, of %s:\n  %s"):format(case.name, index, seed,
    table.concat(shapes, " "), table.concat(self.report, "\n  "))
end

--- Samples first .. first + count - 1 of each case.
function M.run(cases, count, seed, first, show)
  local r = { passed = 0, failed = 0, rough = 0, skipped = 0, reports = {} }
  local lapack = select(2, core.array.blas())
  for _, case in ipairs(cases) do
    local shown = 0
    for i = first or 1, (first or 1) + count - 1 do
      if case.lapack and not lapack then
        r.skipped = r.skipped + 1
      else
        local failure = M.check(case, seed, i)
        if failure == nil then
          r.passed = r.passed + 1
        elseif failure == "rough" then
          r.rough = r.rough + 1
        else
          r.failed = r.failed + 1
          shown = shown + 1
          if shown <= 2 then
            r.reports[#r.reports + 1] = failure
            if show then show(failure) end
          end
        end
      end
    end
  end
  return r
end

if standalone then
  local count = math.tointeger(arg[1] or 20) or error("count is not an integer")
  local seed = math.tointeger(arg[2] or os.time()) or error("seed is not an integer")
  local first = math.tointeger(arg[4] or 1) or error("first is not an integer")
  local cases, missing = operations.cases()
  if arg[3] then
    local named = {}
    for _, case in ipairs(cases) do
      if case.name == arg[3] then named[1] = case end
    end
    cases = named
  end
  print(("%d operations on arrays, %d samples each, seed %d, first %d"):format(#cases, count,
    seed, first))
  for _, name in ipairs(missing) do print("no samples of " .. name) end
  local start = os.clock()
  local r = M.run(cases, count, seed, first, print)
  print(("%.2f ms per sample, %d said nothing, %d without LAPACK"):format(
    1e3 * (os.clock() - start) / max(1, r.passed + r.failed + r.rough), r.rough, r.skipped))
  local failed = r.failed + #missing
  if r.rough > 0.02 * count * #cases + 2 then
    print("too many samples say nothing")
    failed = failed + 1
  end
  print(("%d passed, %d failed"):format(r.passed, failed))
  os.exit(failed == 0, true)
end

return M
