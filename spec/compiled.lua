--- Property tests of compiled functions: random programs, compiled against
-- themselves, in value, gradient and second derivatives, at many points each.
--
--   lua5.4 spec/compiled.lua [count [points [seed [first]]]]

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
  -- powers, and what else is made simpler
  function(v) return ("local w%d = (%s) ^ 2 + ad.abs(%s) ^ 0.5 * 1 - (-(%s)) / 4 + (%s) ^ 3 / 2")
    :format(v.n, v.any(), v.any(), v.any(), v.any()), "w" .. v.n end,
}

--- A program of such pieces, in the form that `program.generate` has.
local function control(seed, index)
  math.randomseed(seed, index)
  local n = random(3)
  local names, lines, args, x = {}, {}, {}, {}
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
    local text, name = pieces[random(#pieces)](v)
    lines[#lines + 1] = text
    names[#names + 1] = ("ad.tanh(%s)"):format(name)
    names[#names + 1] = names[#names]
  end
  local source = ("return function(%s)\n%s\nreturn %s * 1.5 + %s\nend\n"):format(
    concat(args, ", "), concat(lines, "\n"), names[#names], names[1])
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

local function agrees(a, b)
  if a == b or (a ~= a and b ~= b) then return true end
  return abs(a - b) <= 1e-11 * max(1, abs(a), abs(b))
end

--- Checks one program at `points` points. nil, or a text about what is wrong.
function M.check(self, p, points, options)
  local ad = self.ad
  local source = p.text or program.source(p)
  local f = assert(load(source, "=program", "t", self.env))()
  local which = {}
  for k = 1, p.n do which[k] = k end
  local kinds = {
    {"f", f},
    {"derivatives", everything(ad, f, p.n)},
    {"gradient", ad.value_and_grad(f, which)}, -- of the program of f
    {"node", ad.value_and_grad(f, which), ad.value_and_grad(ad.compile(f, options), which)},
  }
  for _, kind in ipairs(kinds) do
    local name, eager = kind[1], kind[2]
    local compiled = kind[3] or ad.compile(eager, options)
    local x = {unpack(p.x)}
    for point = 1, points do
      local want, got = {pcall(eager, unpack(x))}, {pcall(compiled, unpack(x))}
      local wrong
      if want[1] ~= got[1] then
        wrong = ("%s: eager %s, compiled %s"):format(name, tostring(want[2]), tostring(got[2]))
      elseif want[1] then
        table.remove(want, 1)
        table.remove(got, 1)
        if type(want[1]) == "table" then want, got = want[1], got[1] end
        for k = 1, #want do
          if not agrees(want[k], got[k]) then
            wrong = ("%s: number %d is %.17g, compiled %.17g"):format(name, k, want[k], got[k])
            break
          end
        end
      end
      if wrong then
        return ("program %d, point %d (%s)\n%s\n%s\n"):format(p.index, point, concat(x, ", "),
          wrong, source)
      end
      if point % 3 ~= 0 then
        for k = 1, p.n do x[k] = random(-1900, 1900) / 1000 + random() * 1e-3 end
      end
    end
    local stats = not kind[3] and compiled:stats() or {traces = 0, eager_calls = 0, loops = 0}
    self.traces = self.traces + stats.traces
    self.calls = self.calls + points
    self.eager = self.eager + stats.eager_calls
    self.loops = self.loops + stats.loops
  end
end

function M.setup()
  local ad = require("autodiff")
  local self = program.setup(ad, require("autodiff.core").ops())
  self.traces, self.calls, self.eager, self.loops = 0, 0, 0, 0
  return self
end

--- Runs programs first .. first + count - 1; the texts of the failures.
function M.run(self, count, points, seed, first, show)
  local failures = {}
  for i = first, first + count - 1 do
    local p = i % 2 == 0 and program.generate(self, seed, i) or control(seed, i)
    local text = M.check(self, p, points)
    if text then
      failures[#failures + 1] = text
      if show and #failures <= 5 then show(text) end
    end
  end
  return failures
end

if standalone then
  local count = math.tointeger(arg[1] or 1000)
  local points = math.tointeger(arg[2] or 20)
  local seed = math.tointeger(arg[3] or 1)
  local first = math.tointeger(arg[4] or 1)
  local self = M.setup()
  local start = os.clock()
  local failures = M.run(self, count, points, seed, first, print)
  print(("%.1f ms per program, %d calls, %d traces, %d loops, %d eager"):format(
    1e3 * (os.clock() - start) / count, self.calls, self.traces, self.loops, self.eager))
  print(("%d passed, %d failed"):format(count - #failures, #failures))
  os.exit(#failures == 0, true)
end

return M
