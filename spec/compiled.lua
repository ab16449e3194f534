--- Property tests of compiled functions: random programs, compiled against
-- themselves, in value, gradient and second derivatives, at many points each.
--
--   lua5.4 spec/compiled.lua [count [points [seed [first [ways ...]]]]]
--
-- ways: interpreter, native, map (all points at once, with and without
-- threads, and reduced), c (the exported C, compiled with $CC), fast; the first
-- two unless said otherwise.

local standalone = arg and arg[0] and arg[0]:find("compiled%.lua$") and ... ~= "module"
if standalone then
  local root = arg[0]:match("^(.*)spec/compiled%.lua$") or "./"
  if root == "" then root = "./" end
  package.path = root .. "lua/?.lua;" .. root .. "lua/?/init.lua;" .. root .. "?.lua;"
    .. package.path
  package.cpath = root .. "lua/?.so;" .. package.cpath
end

local program = require("spec.support.program")

local M = {}

local abs, max = math.abs, math.max
local unpack, concat = table.unpack, table.concat
local random = math.random

---------------------------------------------------------------------------
-- Programs that are about control flow

local pieces = {
  -- a loop as long as the data says
  function(v) return ("local w%d = 1 + ad.abs(%s)\nwhile w%d > 0.2 do w%d = w%d * %.2f - 0.01 end")
    :format(v.n, v.any(), v.n, v.n, v.n, 0.3 + random() * 0.6), "w" .. v.n end,
  -- Newton's iteration
  function(v) return ([[local a%d = 1 + ad.abs(%s)
local w%d = a%d
while ad.abs(w%d * w%d - a%d) > 1e-9 do w%d = 0.5 * (w%d + a%d / w%d) end]])
    :gsub("%%d", tostring(v.n)):format(v.any()), "w" .. v.n end,
  -- bisection
  function(v) return ([[local lo, hi = 0.0, 2.0
local c%d = ad.sigmoid(%s)
while hi - lo > 1e-3 do
  local mid = 0.5 * (lo + hi)
  if mid * mid < c%d + 0.1 then lo = mid else hi = mid end
end
local w%d = lo * c%d]]):gsub("%%d", tostring(v.n)):format(v.any()), "w" .. v.n end,
  -- recursion on a value
  function(v) return ([[local function r(x, k)
  if x < 0.5 or k == 0 then return x * x end
  return x + r(x * 0.6, k - 1)
end
local w%d = r(ad.abs(%s), 6)]]):gsub("%%d", tostring(v.n)):format(v.any()), "w" .. v.n end,
  -- a table read by a computed index
  function(v) return ([[local t%d = {%s, 2.5, %s, 0.7}
local w%d = t%d[ad.floor(ad.sigmoid(%s) * 3.999) + 1] * 1.5]])
    :gsub("%%d", tostring(v.n)):format(v.any(), v.any(), v.any()), "w" .. v.n end,
  -- nested branches
  function(v) return ([[local w%d
if %s < %s then
  if %s <= 0.1 then w%d = %s * 2 else w%d = ad.sin(%s) end
elseif %s > 0.5 then w%d = ad.exp(-ad.abs(%s)) else w%d = 0.25 end]])
    :gsub("%%d", tostring(v.n)):format(v.any(), v.any(), v.any(), v.any(), v.any(), v.any(),
      v.any()), "w" .. v.n end,
  -- closures that carry state
  function(v) return ([[local function counter(s)
  return function(x) s = s * 0.5 + x return s end
end
local k%d = counter(%s)
local w%d = 0
for i = 1, 3 do w%d = w%d + k%d(%s) / i end]]):gsub("%%d", tostring(v.n))
    :format(v.any(), v.any()), "w" .. v.n end,
  -- a transform inside, with a branch inside that
  function(v) return ([[local w%d = ad.derivative(function(z)
  if z < %s then return z * z * %s end
  return ad.tanh(z * %s)
end)(%s)]]):gsub("%%d", tostring(v.n)):format(v.any(), v.any(), v.any(), v.any()), "w" .. v.n end,
  -- steepest descent inside
  function(v) return ([[local w%d = 0.3
local g%d = ad.grad(function(z) return (z - %s) ^ 2 + 0.1 * ad.cos(z) end)
for i = 1, 3 do w%d = w%d - 0.2 * g%d(w%d) end]]):gsub("%%d", tostring(v.n)):format(v.any()),
    "w" .. v.n end,
  -- max, min, relu, where: no branches in the program
  function(v) return ([[local w%d = ad.max(%s, %s) + ad.relu(%s) * ad.min(%s, 0.3)
w%d = w%d + ad.clamp(w%d, -0.5, 0.5) + ad.where(%s > 0, %s, 1.5)]])
    :gsub("%%d", tostring(v.n)):format(v.any(), v.any(), v.any(), v.any(), v.any(), v.any()),
    "w" .. v.n end,
  -- lists
  function(v) return ("local w%d = ad.logsumexp{%s, %s, 0.5} + ad.norm{%s, %s} + ad.max{%s, %s}")
    :format(v.n, v.any(), v.any(), v.any(), v.any(), v.any(), v.any()), "w" .. v.n end,
  -- a series, whose terms are counted
  function(v) return ([[local n%d, term%d, w%d = 0, 1.0, 1.0
local z%d = ad.tanh(%s)
while ad.abs(term%d) > 1e-4 do
  n%d = n%d + 1
  term%d = term%d * z%d / n%d
  w%d = w%d + term%d
end]]):gsub("%%d", tostring(v.n)):format(v.any()), "w" .. v.n, "n" .. v.n end,
  -- a bound on the rounds, by steps of integers or floats, up or down
  function(v)
    local step, from = v.number(), random(-3, 3)
    return ([[local n%d, w%d = %s, 1 + ad.abs(%s)
while w%d > 0.2 do
  n%d = n%d + %s
  w%d = w%d * %.2f - 0.01
  if ad.abs(n%d) > %s then break end
end]]):gsub("%%d", tostring(v.n)):format(from, v.any(), step, 0.3 + random() * 0.65,
      random(3, 30)), "w" .. v.n, "n" .. v.n
  end,
  -- 'for' up and down, left early or not, its variable used
  function(v)
    local from, step = random(5), v.number()
    return ([[local w%d, n%d = ad.abs(%s), 0
for i = %s, %s, %s do
  w%d = w%d * %.2f + %s
  if w%d < %.2f %s then n%d = i %s end
end]]):gsub("%%d", tostring(v.n)):format(v.any(), from, from + step * random(4, 25), step,
      random(), v.pick("0.05", "i * 0.02", "0.5 / i", "i % 3 * 0.1"), random(),
      v.pick("* i", "+ i // 4", ""), v.pick("break", "+ n" .. v.n, "")), "w" .. v.n, "n" .. v.n
  end,
  -- loops in loops, which have their own counters
  function(v) return ([[local w%d, n%d, m%d = ad.abs(%s), 0, 0.0
for i = 1, %s do
  local j, y = 0, w%d + i
  while y > %.2f do
    y = y * %.2f - 0.01
    j = j + 1
    if j %% 3 == 0 then m%d = m%d + 0.5 end
  end
  n%d = n%d + j * i
  w%d = ad.tanh(w%d + y * j)
end
w%d = w%d + m%d * 0.1]]):gsub("%%d", tostring(v.n)):format(v.any(), random(2, 6), 0.3 + random(),
    0.3 + random() * 0.5), "w" .. v.n, "n" .. v.n end,
  -- integers that stay integers, and those that do not
  function(v) return ([[local n%d, m%d, w%d = %s, %s, 1 + ad.abs(%s)
while w%d > 0.2 do
  n%d = %s
  m%d = m%d + %s
  w%d = w%d * %.2f - 0.01
end
w%d = w%d + ad.tanh(m%d * 0.01)]]):gsub("%%d", tostring(v.n))
    :format(random(5), random(3), v.any(), (v.pick("n + 3", "n * 2 - 1", "-n - 1",
      "n % 7 + 2", "3 * n // 2", "n ~ 5", "n + m % 4", "ad.max(n, 3) + 1")
        :gsub("%f[%w]([nm])%f[%W]", "%1" .. v.n)),
      (v.pick("1", "n", "n / 2", "n % 3", "n // 2", "(n == 4 and 2 or 1)", "2 ^ -n")
        :gsub("%f[%w]([nm])%f[%W]", "%1" .. v.n)),
      0.3 + random() * 0.6), "w" .. v.n, "n" .. v.n end,
  -- counters that others look at
  function(v) return ([[local n%d, w%d, t%d = 0, 1 + ad.abs(%s), {0.5, %s, 2.0}
while w%d > 0.2 do
  n%d = n%d + 1
  w%d = w%d * %.2f - 0.01 * %s
end]]):gsub("%%d", tostring(v.n)):format(v.any(), v.any(), 0.3 + random() * 0.6,
    (v.pick("t[n % 3 + 1]", "#tostring(n)", "(math.type(n) == 'integer' and 1 or 2)",
      "math.floor(n / 2)", "#('%d'):format(n)", "(select(n % 2 + 1, 0.5, 0.25))",
      "#(pcall(string.rep, 'x', n) and 'a' or 'bb')", "ad.floor(n / 2)", "ad.sum{n, 1}",
      "ad.derivative(function(z) return z * n end)(1.5)", "(function(...) return ... end)(n)")
      :gsub("%f[%w]([nt])%f[%W]", "%1" .. v.n))), "w" .. v.n, "n" .. v.n end,
  -- a counter in a closure, and one that is the bound of another loop
  function(v) return ([[local n%d, w%d = 0, 1 + ad.abs(%s)
local function tick%d() n%d = n%d + 1 return n%d end
while w%d > 0.2 and tick%d() < %s do w%d = w%d * %.2f end
for j = 1, n%d do w%d = w%d + ad.sin(w%d * j) / j end]]):gsub("%%d", tostring(v.n))
    :format(v.any(), random(3, 20), 0.3 + random() * 0.6), "w" .. v.n, "n" .. v.n end,
  -- bisection from one number to another
  function(v) return ([[local lo, hi, n%d = 0.0, 2.0, 0
while hi - lo > 1e-3 do
  local mid = 0.5 * (lo + hi)
  n%d = n%d + 1
  if mid * mid < ad.sigmoid(%s) + 0.1 then lo = mid else hi = mid end
end
local w%d = lo * 1.5]]):gsub("%%d", tostring(v.n)):format(v.any()), "w" .. v.n, "n" .. v.n end,
  -- powers, and what else is made simpler
  function(v) return ("local w%d = (%s) ^ 2 + ad.abs(%s) ^ 0.5 * 1 - (-(%s)) / 4 + (%s) ^ 3 / 2")
    :format(v.n, v.any(), v.any(), v.any(), v.any()), "w" .. v.n end,
}

--- A program of such pieces, in the form that `program.generate` has.
local function control(seed, index)
  math.randomseed(seed, index)
  local n = random(3)
  local names, lines, args, counters, x = {}, {}, {}, {}, {}
  for k = 1, n do
    names[k] = "x" .. k
    args[k] = names[k]
    x[k] = random(-1900, 1900) / 1000 + random() * 1e-3
  end
  for k = 1, random(4) do
    local v = {n = k}
    function v.any()
      local name = names[random(#names)]
      local r = random(6)
      if r == 1 then return ("%s * %.2f"):format(name, random() * 2 - 1) end
      if r == 2 then return ("%s + %s"):format(name, names[random(#names)]) end
      if r == 3 then return ("ad.sin(%s)"):format(name) end
      return name
    end
    function v.pick(...) return (select(random(select("#", ...)), ...)) end
    -- a step of a counter: an integer or a float
    function v.number() return v.pick(1, 1, 1, 2, 3, -1, -2, 0.5, 1.0, -0.25) end
    local text, name, counter = pieces[random(#pieces)](v)
    lines[#lines + 1] = text
    counters[#counters + 1] = counter
    names[#names + 1] = ("ad.tanh(%s)"):format(name)
    names[#names + 1] = names[#names]
  end
  local source = ("return function(%s)\n%s\nreturn %s * 1.5 + %s\nend\n"):format(
    concat(args, ", "), concat(lines, "\n"), names[#names],
    concat({names[1], unpack(counters)}, ", "))
  return {n = n, x = x, index = index, text = source}
end

---------------------------------------------------------------------------
-- The comparison

-- f's value and all derivatives up to the second, as one list.
local function everything(ad, f, n)
  local which = {}
  for k = 1, n do which[k] = k end
  local gradient = ad.value_and_grad(f, which)
  local second = ad.value_and_grad(function(...)
    local g = {gradient(...)}
    local s = 0
    for k = 1, n do s = s + g[k + 1] * (0.5 + 0.3 * k) end
    return s
  end, which)
  return function(...)
    local list = {gradient(...)}
    for k, y in ipairs{second(...)} do list[n + 1 + k] = y end
    return list
  end
end

-- What rounding may make of a number where much has cancelled: derivatives of
-- programs are summed in another order, small powers are products, and batches
-- have functions of their own.
local function agrees(a, b, bound)
  return a ~= a and b ~= b or abs(a - b) <= bound * max(1, abs(a), abs(b))
end

-- The doubles from a to b, in steps; 0 for two NaNs.
local function ulps(a, b)
  if a == b or (a ~= a and b ~= b) then return 0 end
  if a ~= a or b ~= b then return math.huge end
  local m, n = string.unpack("<i8i8", string.pack("<dd", a, b))
  if m < 0 then m = math.mininteger - m end
  if n < 0 then n = math.mininteger - n end
  return abs(m + 0.0 - n) < 2 ^ 52 and abs(m - n) + 0.0 or math.huge
end

-- Is a list of numbers the other, to 4 ulp, or to within `bound` at least? The
-- index of a number that is not.
local function differs(self, want, got, bound)
  for k = 1, max(#want, #got) do
    local a, b = want[k] or 0/0, got[k] or 0/0
    self.numbers = self.numbers + 1
    if ulps(a, b) > 4 then
      if not bound or not agrees(a, b, bound) then return k end
      self.loose = self.loose + 1
    end
  end
end

local function describe(p, point, x, wrong)
  return ("program %d, point %d (%s)\n%s\n%s\n"):format(p.index, point, concat(x, ", "), wrong,
    p.source)
end

-- The points of a program: the first again and again, as calls often are.
local function points_of(p, count)
  local points, x = {}, {unpack(p.x)}
  for point = 1, count do
    points[point] = {unpack(x)}
    if point % 3 ~= 0 then
      for k = 1, p.n do x[k] = random(-1900, 1900) / 1000 + random() * 1e-3 end
    end
  end
  return points
end

local function function_of(self, p)
  p.source = p.text or program.source(p)
  return assert(load(p.source, "=program", "t", self.env))()
end

--- Checks one program at `points` points. nil, or a text about what is wrong.
function M.check(self, p, points, options)
  local ad = self.ad
  local f = function_of(self, p)
  local which = {}
  for k = 1, p.n do which[k] = k end
  local kinds = {
    {"f", f},
    {"derivatives", everything(ad, f, p.n)},
    {"gradient", ad.value_and_grad(f, which), bound = 1e-11}, -- that of the program of f
    {"node", ad.value_and_grad(f, which), ad.value_and_grad(ad.compile(f, options), which),
      bound = 1e-11},
  }
  local list = points_of(p, points)
  for _, kind in ipairs(kinds) do
    local name, eager = kind[1], kind[2]
    local compiled = kind[3] or ad.compile(eager, options)
    for point, x in ipairs(list) do
      local want, got = {pcall(eager, unpack(x))}, {pcall(compiled, unpack(x))}
      local wrong
      if want[1] ~= got[1] then
        wrong = ("%s: eager %s, compiled %s"):format(name, tostring(want[2]), tostring(got[2]))
      elseif want[1] then
        table.remove(want, 1)
        table.remove(got, 1)
        if type(want[1]) == "table" then want, got = want[1], got[1] end
        local k = differs(self, want, got, kind.bound or 1e-12)
        for i = 1, not k and name == "f" and #want or 0 do
          if math.type(want[i]) ~= math.type(got[i]) then
            wrong = ("f: number %d is a %s, compiled %s"):format(i, math.type(want[i]),
              math.type(got[i]))
          end
        end
        if k then
          wrong = ("%s: number %d is %.17g, compiled %.17g"):format(name, k, want[k], got[k])
        end
      end
      if wrong then return describe(p, point, x, wrong) end
    end
    local stats = not kind[3] and compiled:stats() or {traces = 0, eager_calls = 0, loops = 0}
    self.traces = self.traces + stats.traces
    self.calls = self.calls + points
    self.eager = self.eager + stats.eager_calls
    self.loops = self.loops + stats.loops
  end
end

---------------------------------------------------------------------------
-- Other ways to run a program

-- All points at once, in each form that map has. Points at which f fails have
-- been left out.
local function map(self, p, eager, list, wants)
  local ad = self.ad
  local columns = {}
  for k = 1, p.n do
    local column = {}
    for i, x in ipairs(list) do column[i] = x[k] end
    columns[k] = ad.array(column)
  end
  for _, known in ipairs{false, true} do -- rows are recorded on the way, or before
    local c = ad.compile(eager)
    if known then for _, x in ipairs(list) do c(unpack(x)) end end
    local rows = c:map(unpack(columns))
    for i, x in ipairs(list) do
      local got = {}
      for k = 1, #wants[i] do got[k] = ad.value(rows[i][k]) end
      local k = differs(self, wants[i], got, 1e-11)
      if k then
        return describe(p, i, x, ("map: number %d is %.17g, in the batch %.17g")
          :format(k, wants[i][k], got[k]))
      end
    end
    columns[#columns + 1] = {threads = 3}
    local threaded = c:map(unpack(columns))
    columns[#columns] = {reduce = "sum"}
    local sum = c:map(unpack(columns))
    columns[#columns] = {reduce = "sum", threads = 2}
    local threadedsum = c:map(unpack(columns))
    columns[#columns] = nil
    for k = 1, #wants[1] do
      local total, size = 0, 0
      for i = 1, #list do
        local y = ad.value(rows[i][k])
        total, size = total + y, size + abs(y)
        if ulps(y, ad.value(threaded[i][k])) ~= 0 then
          return describe(p, i, list[i], ("map: number %d is %.17g, with threads %.17g")
            :format(k, y, ad.value(threaded[i][k])))
        end
      end
      if ulps(sum[k], threadedsum[k]) ~= 0
          or (total == total) ~= (sum[k] == sum[k])
          or abs(total - sum[k]) > 2 ^ -52 * #list * size then
        return describe(p, 0, {}, ("map: sum %d is %.17g, of the batch %.17g, with threads %.17g")
          :format(k, total, sum[k], threadedsum[k]))
      end
    end
  end
end

-- With {fast = true}: what rounding in another order may make of these programs, of which each
-- value is about 1; spec/compile_optimise_spec.lua has bounds that are proved.
local function fast(self, p, eager, list)
  local which, f = {}, function_of(self, p)
  for k = 1, p.n do which[k] = k end
  local gradient = self.ad.value_and_grad(f, which) -- of which loops have stacks
  for _, kind in ipairs{{"derivatives", eager}, {"gradient", gradient}} do
    for _, backend in ipairs{"interpreter", "native"} do
      local c = self.ad.compile(kind[2], {backend = backend, fast = true})
      for i = 1, 2 * #list do
        local x = list[(i - 1) % #list + 1]
        local want, got = {kind[2](unpack(x))}, {c(unpack(x))}
        if type(want[1]) == "table" then want, got = want[1], got[1] end
        local k = differs(self, want, got, 1e-10)
        if k then
          return describe(p, i, x, ("fast %s, %s: number %d is %.17g, fast %.17g")
            :format(kind[1], backend, k, want[k], got[k]))
        end
      end
    end
  end
end

--- One program at `points` points in some ways, a set; "c" is for later, see
-- `M.exported`. They all run what the interpreter runs.
function M.ways(self, p, points, ways)
  local ad = self.ad
  local eager = everything(ad, function_of(self, p), p.n)
  local interpreted = ad.compile(eager, {backend = "interpreter"})
  local list, wants = {}, {}
  for _, x in ipairs(points_of(p, points)) do
    if pcall(interpreted, unpack(x)) then list[#list + 1] = x end
  end
  if #list == 0 then return end
  for i, x in ipairs(list) do
    local want = eager(unpack(x))
    wants[i] = interpreted(unpack(x))
    local k = differs(self, want, wants[i], 1e-12)
    if k then
      return describe(p, i, x, ("number %d is %.17g, interpreted %.17g")
        :format(k, want[k], wants[i][k]))
    end
  end
  local stats = interpreted:stats()
  if stats.backend ~= "interpreter" and stats.traces > 0 then
    return describe(p, 0, {}, "ran as " .. stats.backend)
  end
  if ways.fast then
    local text = fast(self, p, eager, list)
    if text then return text end
  end
  if ways.native then
    local c = ad.compile(eager, {backend = "native"})
    for round = 1, 2 do -- all paths are known in the second
      for i, x in ipairs(list) do
        local got = c(unpack(x))
        local k = differs(self, wants[i], got, round == 1 and 1e-12 or nil)
        if k then
          return describe(p, i, x, ("native, round %d: number %d is %.17g, native %.17g")
            :format(round, k, wants[i][k], got[k]))
        end
      end
    end
    if c:stats().traces > 0 and not c:stats().backend:find("^native") then
      return describe(p, 0, {}, "ran as " .. c:stats().backend)
    end
  end
  if ways.map then
    local wrong = map(self, p, eager, list, wants)
    if wrong then return wrong end
  end
  if ways.c and stats.traces > 0 then
    self.exported[#self.exported + 1] = {p = p, list = list, wants = wants, n = #wants[1],
      text = interpreted:c_source("f" .. #self.exported + 1), eagerly = stats.eager_calls > 0}
  end
end

local main = [==[
#include <stdio.h>
typedef int Function(const double *, double *);
static Function *const function[] = {%s};
int main(void) {
  int head[3];
  static double x[16], y[64];
  while (fread(head, sizeof *head, 3, stdin) == 3) {
    int status;
    if (fread(x, sizeof *x, (size_t)head[1], stdin) != (size_t)head[1]) return 1;
    status = function[head[0]](x, y);
    fwrite(&status, sizeof status, 1, stdout);
    fwrite(y, sizeof *y, (size_t)head[2], stdout);
  }
  return 0;
}
]==]

-- Writes, compiles and runs what has been exported. A list of texts about
-- what is wrong.
function M.exported(self)
  local failures = {}
  local exported = self.exported
  self.exported = {}
  if #exported == 0 then return failures end
  local name = os.tmpname()
  local source = assert(io.open(name .. ".c", "w"))
  local functions = {}
  for i, e in ipairs(exported) do
    -- in a file of their own the helpers' names would be nobody else's
    local helper = {}
    for word in e.text:gmatch("\nstatic %a+ ([%w_]+)%(") do helper[word] = word .. "_of" .. i end
    source:write((e.text:gsub("[%a_][%w_]*", helper)))
    functions[i] = "f" .. i
  end
  source:write(main:format(concat(functions, ", ")))
  source:close()
  local input = assert(io.open(name .. ".in", "wb"))
  for i, e in ipairs(exported) do
    for _, x in ipairs(e.list) do
      input:write(string.pack("<i4i4i4", i - 1, #x, e.n))
      for _, v in ipairs(x) do input:write(string.pack("<d", v)) end
    end
  end
  input:close()
  local command = ("%s -std=c99 -O1 -Wall -Wextra -Werror -o %s.out %s.c -lm && %s.out <%s.in")
    :format(os.getenv("CC") or "cc", name, name, name, name)
  local pipe = assert(io.popen(command, "r"))
  local output = pipe:read("a")
  if not pipe:close() then failures[1] = "not compiled: " .. name .. ".c" end
  local at = 1
  for _, e in ipairs(failures[1] and {} or exported) do
    for i, x in ipairs(e.list) do
      local status, got = string.unpack("<i4", output, at), {}
      for k = 1, e.n do got[k] = string.unpack("<d", output, at - 4 + 8 * k) end
      at = at + 4 + 8 * e.n
      local k = status == 0 and differs(self, e.wants[i], got)
      if status ~= 0 and not e.eagerly then
        failures[#failures + 1] = describe(e.p, i, x, "exported: status " .. status)
        break
      elseif k then
        failures[#failures + 1] = describe(e.p, i, x, ("number %d is %.17g, exported %.17g")
          :format(k, e.wants[i][k], got[k]))
        break
      end
    end
  end
  if #failures == 0 then
    for _, suffix in ipairs{".c", ".in", ".out"} do os.remove(name .. suffix) end
  end
  os.remove(name)
  return failures
end

function M.setup()
  local ad = require("autodiff")
  local self = program.setup(ad, require("autodiff.core").ops())
  self.traces, self.calls, self.eager, self.loops = 0, 0, 0, 0
  for _, name in ipairs{"math", "string", "tostring"} do
    rawset(self.env, name, _G[name])
  end
  self.numbers, self.loose = 0, 0
  return self
end

-- So many exported functions are compiled together.
local TOGETHER = 100

--- Runs programs first .. first + count - 1; the texts of the failures. `ways`:
-- in these too, as a set.
function M.run(self, count, points, seed, first, show, ways)
  local failures = {}
  local function failed(text)
    failures[#failures + 1] = text
    if show and #failures <= 5 then show(text) end
  end
  self.exported = {}
  for i = first, first + count - 1 do
    local p = i % 2 == 0 and program.generate(self, seed, i) or control(seed, i)
    local text = M.check(self, p, points)
      or ways and M.ways(self, p, points, ways)
    if text then failed(text) end
    if #self.exported >= TOGETHER or i == first + count - 1 then
      for _, wrong in ipairs(M.exported(self)) do failed(wrong) end
    end
  end
  return failures
end

if standalone then
  local count = math.tointeger(arg[1] or 1000)
  local points = math.tointeger(arg[2] or 20)
  local seed = math.tointeger(arg[3] or 1)
  local first = math.tointeger(arg[4] or 1)
  local ways = {interpreter = not arg[5], native = not arg[5]}
  for i = 5, #arg do ways[arg[i]] = true end
  local self = M.setup()
  local start = os.clock()
  local failures = M.run(self, count, points, seed, first, print, ways)
  print(("%.1f ms per program, %d calls, %d traces, %d loops, %d eager"):format(
    1e3 * (os.clock() - start) / count, self.calls, self.traces, self.loops, self.eager))
  print(("%d numbers, %d not within 4 ulp, as much has cancelled"):format(self.numbers, self.loose))
  print(("%d passed, %d failed"):format(count - #failures, #failures))
  os.exit(#failures == 0, true)
end

return M
