--- Property tests: random programs, every mode against every other and
-- against finite differences of the plain evaluation.
--
--   lua5.4 spec/property.lua [count [seed [first]]]
--
-- Program number i of a seed does not depend on the others: a failure is had
-- again, alone, with count 1 and `first` = i.

local standalone = arg and arg[0] and arg[0]:find("property%.lua$") and ... ~= "module"
if standalone then
  local root = arg[0]:match("^(.*)spec/property%.lua$") or "./"
  if root == "" then root = "./" end
  package.path = root .. "lua/?.lua;" .. root .. "lua/?/init.lua;" .. root .. "?.lua;"
    .. package.path
  package.cpath = root .. "lua/?.so;" .. package.cpath
end

local program = require("spec.support.program")

local M = {}

local abs, max, huge = math.abs, math.max, math.huge
local unpack, concat = table.unpack, table.concat

-- Relative tolerances by group of quantities.
local tolerances = {y = 1e-12, d = 1e-8, g = 1e-8, dd = 1e-6, hv = 1e-6, ddd = 1e-4}
-- Beyond this a program is too ill-conditioned to say anything.
local limits = {y = 1e9, d = 1e9, dd = 1e11, ddd = 1e13}

---------------------------------------------------------------------------
-- The quantities of one program

-- What is compared: parallel lists, reused for every program.
local Battery = {}
Battery.__index = Battery

local function battery(ad)
  return setmetatable({ad = ad, size = 0, labels = {}, groups = {}, values = {},
    current = "start"}, Battery)
end

function Battery:add(label, group, value)
  local n = self.size + 1
  self.size, self.labels[n], self.groups[n], self.values[n] = n, label, group, value
end

local function dot(n, g, v)
  local s = 0.0
  for k = 1, n do s = s + g[k] * v[k] end
  return s
end

local lists = {{1}, {1, 2}, {1, 2, 3}}

local function pack(...)
  return {...}
end

function Battery:gradient(label, n, g, v)
  for k = 1, n do
    if g[k] == nil then error(label .. ": no gradient for argument " .. k, 0) end
    self:add(label, "g" .. k, g[k])
  end
  self:add(label, "d", dot(n, g, v))
end

function Battery:first_order(f, n, x, v, phi)
  local ad = self.ad
  self.current = "plain"
  self:add("plain", "y", f(unpack(x)))
  self.current = "jvp"
  local y, dy = ad.jvp(f, x, v)
  self:add("jvp", "y", y)
  self:add("jvp", "d", dy)
  self.current = "grad"
  self:gradient("grad", n, pack(ad.grad(f, lists[n])(unpack(x))), v)
  self.current = "tape"
  do
    local tape <close> = ad.tape()
    local vars = pack(tape:var(unpack(x)))
    self:gradient("tape", n, pack(tape:gradient(f(unpack(vars)), unpack(vars))), v)
  end
  self.current = "backward"
  do
    local vars, g = {}, {}
    for k = 1, n do vars[k] = ad.var(x[k]) end
    local z = f(unpack(vars))
    if ad.type(z) == "var" then z:backward() end
    for k = 1, n do g[k] = vars[k].grad or 0.0 end
    self:gradient("backward", n, g, v)
  end
  self.current = "vjp"
  local _, pull = ad.vjp(f, unpack(x))
  self:gradient("vjp", n, pack(pull(1.0)), v)
  self.current = "linearize"
  local y1, lin = ad.linearize(f, unpack(x))
  self:add("linearize", "y", y1)
  self:add("linearize", "d", lin(unpack(v)))
  self.current = "derivative"
  self:add("derivative", "d", ad.derivative(phi)(0.0))
end

function Battery:second_order(f, n, x, v, phi)
  local ad = self.ad
  local argnums = lists[n]
  local function forward(...)
    local _, dy = ad.jvp(f, {...}, v)
    return dy
  end
  local gradient = ad.grad(f, argnums)
  local function reverse(...)
    return dot(n, pack(gradient(...)), v)
  end
  local function vector(label, h)
    for k = 1, n do self:add(label, "hv" .. k, h[k]) end
    self:add(label, "dd", dot(n, h, v))
  end
  self.current = "taylor"
  local c = ad.taylor(phi, 0.0, 2)
  self:add("taylor", "y", c[1])
  self:add("taylor", "d", c[2])
  self:add("taylor", "dd", 2 * c[3])
  self.current = "jvp(jvp)"
  self:add("jvp(jvp)", "dd", (select(2, ad.jvp(forward, x, v))))
  self.current = "jvp(grad)"
  self:add("jvp(grad)", "dd", (select(2, ad.jvp(reverse, x, v))))
  self.current = "grad(jvp)"
  vector("grad(jvp)", pack(ad.grad(forward, argnums)(unpack(x))))
  self.current = "grad(grad)"
  vector("grad(grad)", pack(ad.grad(reverse, argnums)(unpack(x))))
  self.current = "hvp"
  vector("hvp", ad.hvp(function(l) return f(unpack(l)) end, x, v))
end

function Battery:third_order(f, x, v, phi)
  local ad = self.ad
  self.current = "taylor 3"
  self:add("taylor 3", "ddd", 6 * ad.taylor(phi, 0.0, 3)[4])
  self.current = "derivative 3"
  self:add("derivative 3", "ddd", ad.derivative(phi, 3)(0.0))
  local function once(g)
    return function(...) return (select(2, ad.jvp(g, {...}, v))) end
  end
  self.current = "jvp(jvp(jvp))"
  self:add("jvp(jvp(jvp))", "ddd", once(once(once(f)))(unpack(x)))
  local d = ad.grad(phi)
  self.current = "grad(jvp(grad))"
  self:add("grad(jvp(grad))", "ddd",
    (ad.grad(function(t) return (select(2, ad.jvp(d, {t}, {1.0}))) end)(0.0)))
  self.current = "grad(grad(grad))"
  self:add("grad(grad(grad))", "ddd", (ad.grad(ad.grad(d))(0.0)))
end

-- f along the line through x in the direction v.
local function line(f, n, x, v)
  if n == 1 then
    local a, p = x[1], v[1]
    return function(t) return (f(a + p * t)) end
  elseif n == 2 then
    local a, b, p, q = x[1], x[2], v[1], v[2]
    return function(t) return (f(a + p * t, b + q * t)) end
  end
  local a, b, c, p, q, r = x[1], x[2], x[3], v[1], v[2], v[3]
  return function(t) return (f(a + p * t, b + q * t, c + r * t)) end
end

local function run(b, f, n, x, v, order)
  b.size = 0
  local phi = line(f, n, x, v)
  b:first_order(f, n, x, v, phi)
  if order >= 2 then b:second_order(f, n, x, v, phi) end
  if order >= 3 then b:third_order(f, x, v, phi) end
end

---------------------------------------------------------------------------
-- Finite differences

--- Derivative of phi at 0 by central differences, Richardson-extrapolated
-- (Ridders), with its own estimate of the error; nil when no stencil avoids
-- the kinks. `trace` tells: phi leaves its marks there.
function M.differences(phi, trace, h)
  local function marks()
    local s = concat(trace, ";")
    for k = #trace, 1, -1 do trace[k] = nil end
    return s
  end
  marks()
  local y0 = phi(0.0)
  local home = marks()
  local before, best, err, scale = {}, nil, huge, abs(y0)
  local smallest = h / 2000
  while h > smallest do
    local up = phi(h)
    local flipped = marks() ~= home
    local down = phi(-h)
    flipped = marks() ~= home or flipped
    if flipped then
      before, best, err = {}, nil, huge
    else
      scale = max(scale, abs(up), abs(down))
      local row, factor = {(up - down) / (2 * h)}, 1
      for k = 2, #before + 1 do
        factor = factor * 4
        row[k] = row[k - 1] + (row[k - 1] - before[k - 1]) / (factor - 1)
        local e = max(abs(row[k] - row[k - 1]), abs(row[k] - before[k - 1]))
          + 1e-15 * scale / h
        if e < err then best, err = row[k], e end
      end
      if #before > 3 and abs(row[#row] - before[#before]) > 2 * err then break end
      before = row
    end
    h = h / 2
  end
  return best, err
end

---------------------------------------------------------------------------
-- The verdict

local function finite(x)
  return x == x and abs(x) < huge
end

-- The pair of values in the battery that disagree the most, or nil.
local function disagreement(b)
  local first = {}
  local worst, at, ref = 0, nil, nil
  for k = 1, b.size do
    local group, value = b.groups[k], b.values[k]
    local r = first[group]
    if type(value) ~= "number" then return k, k end
    if not r then
      first[group] = k
      if value ~= value then return k, k end
    else
      local a = b.values[r]
      local tol = tolerances[group] or tolerances[group:sub(1, -2)]
      local e = abs(a - value) / (tol * (1 + abs(a)))
      if e ~= e then
        if a ~= value then return k, r end
      elseif e > 1 and e > worst then
        worst, at, ref = e, k, r
      end
    end
  end
  return at, ref
end

-- How much the disagreeing quantities move when the point moves by a few units
-- in the last place: a disagreement of that size is the program's condition.
local function noise(b, f, p, order, k, r)
  local a, c = b.values[k], b.values[r]
  local most = 0
  local other = battery(b.ad)
  for step = 1, 4 do
    local x = {}
    for j = 1, p.n do x[j] = p.x[j] * (1 + (step - 2.5) * j * 2.0 ^ -51) end
    local ok = pcall(run, other, f, p.n, x, p.v, order)
    if not ok or other.size ~= b.size then return 0 end
    local da, dc = abs(other.values[k] - a), abs(other.values[r] - c)
    if da ~= da or dc ~= dc then return 0 end
    most = max(most, da, dc)
  end
  return most
end

-- How large the parts are that a derivative is the sum of: the derivatives by
-- every single use of a variable. They may cancel, as in x - x, and not in the
-- same way in every mode; what is left then has their rounding errors.
local function parts(self, p, order)
  local ad = self.ad
  local f, uses = program.compile_uses(self, p)
  local d = {}
  for j = 1, uses do d[j] = 0.0 end
  local gradient = ad.grad(f, p.n + 1)
  local function at(...)
    local x = {...}
    x[p.n + 1] = d
    return (gradient(unpack(x)))
  end
  local most = 0
  for _ = 1, order do
    local sum = 0
    for _, g in ipairs(at(unpack(p.x))) do sum = sum + abs(g) end
    most = max(most, sum)
    local inner = at
    at = function(...) return (select(2, ad.jvp(inner, {...}, p.v))) end
  end
  return most
end

-- An error message without what shrinking may change.
local function essence(message)
  return (tostring(message):gsub("^[^\n]-:%d+: ", ""):gsub("[%d.]+", "#"):gsub("'.-'", "'_'")
    :gsub("\n.*", ""))
end

-- Compares the first quantity of a group with the differences of `phi`.
local function compare(self, b, group, phi, tol)
  local d, err = M.differences(phi, self.trace, 0.02)
  if not d then return "skip", "kink" end
  local exact, label
  for j = 1, b.size do
    if b.groups[j] == group then
      exact, label = b.values[j], b.labels[j]
      break
    end
  end
  if abs(d - exact) > tol * (1 + abs(exact)) + 100 * err then
    -- A second stencil: an estimate of the error is only an estimate.
    local d2, err2 = M.differences(phi, self.trace, 0.0017)
    if not d2 then return "skip", "kink" end
    if abs(d2 - exact) > tol * (1 + abs(exact)) + 100 * err2 then
      return {label = group .. ": differences", text = ("quantity %s:\n  %-18s %.17g\n"
        .. "  %-18s %.17g (error about %.1g)\n  %-18s %.17g (error about %.1g)"):format(
        group, label, exact, "differences", d, err, "smaller steps", d2, err2)}
    end
  end
  if err > 1e-3 * (1 + abs(exact)) then return "skip", "rough" end
end

--- Checks one program. `order` is the highest order of derivative, `numeric`
-- asks for differences. Returns nil when all agrees, "skip" and why when the
-- program says nothing, or else a failure: {label =, text =}.
function M.check(self, p, order, numeric)
  local ok, f = pcall(program.compile, self, p)
  if not ok then return {label = "compile: " .. essence(f), text = tostring(f)} end
  local fine, y = xpcall(f, debug.traceback, unpack(p.x))
  if not fine then return {label = "plain: " .. essence(y), text = y} end
  if type(y) ~= "number" then
    return {label = "plain: a " .. type(y), text = "the plain value is " .. tostring(y)}
  end
  if not finite(y) or abs(y) > limits.y then return "skip", "value" end
  local b = self.battery or battery(self.ad)
  self.battery = b
  local good, message = xpcall(run, debug.traceback, b, f, p.n, p.x, p.v, order)
  if not good then
    return {label = b.current .. ": " .. essence(message),
      text = "error in " .. b.current .. ": " .. tostring(message)}
  end
  for k = 1, b.size do
    local limit = limits[b.groups[k]]
    if limit and type(b.values[k]) == "number" and abs(b.values[k]) > limit
        and abs(b.values[k]) < huge then
      return "skip", "large"
    end
  end
  local k, r = disagreement(b)
  if k then
    local a, c = b.values[k], b.values[r]
    local numbers = type(a) == "number" and type(c) == "number"
    if numbers and finite(a) and finite(c) then
      if abs(a - c) < 1000 * noise(b, f, p, order, k, r) then return "skip", "condition" end
      local fair, size = pcall(parts, self, p, order)
      if fair and abs(a - c) < 1e-12 * size then return "skip", "condition" end
    end
    local lines = {}
    local group = b.groups[k]
    for j = 1, b.size do
      if b.groups[j] == group then
        lines[#lines + 1] = ("  %-18s %s"):format(b.labels[j],
          type(b.values[j]) == "number" and ("%.17g"):format(b.values[j])
          or tostring(b.values[j]))
      end
    end
    return {label = ("%s: %s ~ %s"):format(group, b.labels[k], b.labels[r]),
      text = "quantity " .. group .. ":\n" .. concat(lines, "\n")}
  end
  if numeric then
    local g = program.compile_instrumented(self, p)
    local ad, x, v = self.ad, p.x, p.v
    local phi = line(g, p.n, x, v)
    local failure, why = compare(self, b, "d", phi, 1e-6)
    if failure then return failure, why end
    -- The modes share their formulas: a derivative of a derivative needs the
    -- differences as much as the first.
    if order >= 2 then
      failure, why = compare(self, b, "dd", function(t)
        local at = {}
        for j = 1, p.n do at[j] = x[j] + t * v[j] end
        return (select(2, ad.jvp(g, at, v)))
      end, 1e-5)
      if failure then return failure, why end
    end
    if order >= 3 then
      return compare(self, b, "ddd", function(t) return 2 * ad.taylor(phi, t, 2)[3] end, 1e-5)
    end
  end
end

--- What is checked of program i: everything cheap for all, the expensive
-- parts for some. Scrambled, because the operation that i forces goes round
-- too, and each operation should meet each kind of check.
function M.plan(i)
  local h = (i * 0x9E3779B1 >> 16) & 15
  return h <= 2 and 3 or h <= 12 and 2 or 1, h == 0 or h % 4 == 3
end

--- Shrinks a failing program and describes it.
function M.report(self, p, failure, order, numeric)
  program.shrink(p, function(q)
    local again = M.check(self, q, order, numeric)
    return type(again) == "table" and again.label == failure.label
  end)
  local last = M.check(self, p, order, numeric)
  local x, v = {}, {}
  for k = 1, p.n do
    x[k], v[k] = ("%.17g"):format(p.x[k]), ("%.17g"):format(p.v[k])
  end
  return ("program %d: %s\n%s  at (%s), direction (%s)\n%s"):format(p.index, failure.label,
    program.source(p), concat(x, ", "), concat(v, ", "),
    type(last) == "table" and last.text or failure.text)
end

--- Runs programs first .. first + count - 1. Returns a table of what happened.
function M.run(self, count, seed, first, show)
  local r = {passed = 0, failed = 0, skipped = {}, counts = {}, operations = 0, reports = {},
    kinds = {}}
  first = first or 1
  for i = first, first + count - 1 do
    local p = program.generate(self, seed, i)
    r.operations = r.operations + program.count(p, r.counts)
    local order, numeric = M.plan(i)
    local failure, why = M.check(self, p, order, numeric)
    if failure == nil then
      r.passed = r.passed + 1
    elseif failure == "skip" then
      r.skipped[why] = (r.skipped[why] or 0) + 1
    else
      r.failed = r.failed + 1
      r.kinds[failure.label] = (r.kinds[failure.label] or 0) + 1
      -- Ten shrunk programs tell more than a thousand.
      if r.failed <= 10 then
        local text = M.report(self, p, failure, order, numeric)
        r.reports[#r.reports + 1] = text
        if show then show(text) end
      end
    end
  end
  r.uncovered = {}
  if count >= #self.forms then
    for _, name in ipairs(self.names) do
      if not r.counts[name] then r.uncovered[#r.uncovered + 1] = name end
    end
  end
  if count >= 2000 then
    for _, name in ipairs(self.features) do
      if not r.counts[name] then r.uncovered[#r.uncovered + 1] = name end
    end
  end
  return r
end

--- The setup for the library as it is; `extra` as in `program.setup`.
function M.setup(extra)
  local ad = require("autodiff")
  local found, core = pcall(require, "autodiff.core")
  local rows = found and type(core) == "table" and core.ops and core.ops() or nil
  return program.setup(ad, rows, extra)
end

if standalone then
  local count = math.tointeger(arg[1] or 100000) or error("count is not an integer")
  local seed = math.tointeger(arg[2] or os.time()) or error("seed is not an integer")
  local first = math.tointeger(arg[3] or 1) or error("first is not an integer")
  print(("%d programs, seed %d, first %d"):format(count, seed, first))
  local self = M.setup()
  local start = os.clock()
  local r = M.run(self, count, seed, first, print)
  local list = {}
  for name, n in pairs(r.counts) do list[#list + 1] = ("%s %d"):format(name, n) end
  table.sort(list)
  local text, width = {}, 0
  for _, item in ipairs(list) do
    width = width + #item + 2
    if width > 98 then text[#text + 1], width = "\n", #item + 2 end
    text[#text + 1] = item .. ", "
  end
  print("coverage: " .. concat(text))
  list = {}
  for kind, n in pairs(r.kinds) do list[#list + 1] = ("failures: %d of %s"):format(n, kind) end
  table.sort(list)
  for _, item in ipairs(list) do print(item) end
  for _, name in ipairs(self.missing) do print("no public function for operation " .. name) end
  for _, name in ipairs(r.uncovered) do print("not covered: " .. name) end
  list = {}
  local skipped = 0
  for why, n in pairs(r.skipped) do
    list[#list + 1] = ("%s %d"):format(why, n)
    skipped = skipped + n
  end
  table.sort(list)
  print(("%.1f operations per program, %.2f ms per program, skipped %d (%s)"):format(
    r.operations / count, 1e3 * (os.clock() - start) / count, skipped, concat(list, ", ")))
  local failed = r.failed + #r.uncovered + #self.missing
  -- Programs that say nothing must stay few, or the rest is no test.
  if skipped > 0.1 * count + 5 then
    print("too many programs skipped")
    failed = failed + 1
  end
  print(("%d passed, %d failed"):format(r.passed, failed))
  os.exit(failed == 0, true)
end

return M
