--- Random programs for the property tests: generation, printing, shrinking.
--
-- A program is a small tree that prints as a Lua function from n numbers to
-- one. Every node is a template with its children in the array part:
--
--   expression  {t = "ad.atan2($1, $2)", e1, e2, lo = , hi = , cov = "atan2"}
--   statement   {t = "if $1 < $2 then\n@1\nelse\n@2\nend", e1, e2, blocks = {b1, b2}}
--
-- `i` is the template of the instrumented printing, where it differs: there
-- every comparison and every kink leaves a mark in a trace, so that a stencil
-- of finite differences knows when it has crossed one. `lo` and `hi` bound the
-- value, and whatever does not fit an operation's domain is mapped into it by
-- a smooth function, so that programs neither blow up nor leave the domains.
--
-- Uniform nodes keep the shrinker ignorant of what they mean: it deletes
-- statements and replaces expressions, and lets the failure decide.

local M = {}

local random, floor, huge = math.random, math.floor, math.huge
local max, min, abs = math.max, math.min, math.abs
local concat = table.concat

---------------------------------------------------------------------------
-- Operations

-- What section 2 of the manual promises, with domains in which the functions
-- are smooth (or have isolated kinks) and their first derivatives moderate.
-- name, then one {lo, hi} per argument.
local known = {
  abs = {{-2, 2}}, acos = {{-0.9, 0.9}}, asin = {{-0.9, 0.9}}, atan = {{-3, 3}},
  ceil = {{-3, 3}}, cos = {{-3, 3}}, deg = {{-1, 1}}, exp = {{-2, 2}},
  floor = {{-3, 3}}, fmod = {{-5, 5}, {0.7, 2.3}}, log = {{0.2, 4}},
  max = {{-2, 2}, {-2, 2}}, min = {{-2, 2}, {-2, 2}}, rad = {{-60, 60}},
  sin = {{-3, 3}}, sqrt = {{0.2, 4}}, tan = {{-1.1, 1.1}},
  pow = {{0.3, 2.5}, {-2, 2}}, atan2 = {{-2, 2}, {0.3, 2}}, sinh = {{-2, 2}},
  cosh = {{-2, 2}}, tanh = {{-3, 3}}, asinh = {{-3, 3}}, acosh = {{1.3, 4}},
  atanh = {{-0.85, 0.85}}, exp2 = {{-2, 2}}, expm1 = {{-2, 2}},
  log1p = {{-0.6, 3}}, log2 = {{0.3, 4}}, log10 = {{0.3, 4}}, cbrt = {{0.3, 3}},
  hypot = {{0.3, 2}, {-2, 2}}, erf = {{-2, 2}}, erfc = {{-2, 2}},
  lgamma = {{0.4, 5}}, digamma = {{0.6, 5}}, sigmoid = {{-4, 4}},
  softplus = {{-4, 4}}, relu = {{-2, 2}}, sign = {{-2, 2}},
  clamp = {{-2, 2}, {-1.5, -0.2}, {0.2, 1.5}}, modf = {{-3, 3}},
  add = {{-4, 4}, {-4, 4}}, sub = {{-4, 4}, {-4, 4}}, mul = {{-4, 4}, {-4, 4}},
  div = {{-4, 4}, {0.4, 3}}, mod = {{-5, 5}, {0.7, 2.3}},
  idiv = {{-5, 5}, {0.7, 2.3}}, unm = {{-4, 4}},
}

-- Operations reached through Lua's operators; `%` and `//` have kinks, so the
-- instrumented printing calls a function of the environment instead.
local operators = {
  add = {"($1 + $2)"}, sub = {"($1 - $2)"}, mul = {"($1 * $2)"}, div = {"($1 / $2)"},
  mod = {"($1 % $2)", "Mod($1, $2)"}, idiv = {"($1 // $2)", "Idiv($1, $2)"},
  pow = {"($1 ^ $2)"}, unm = {"(-$1)"},
}

-- Forms beyond `ad.name(arguments)`: other arities, several results, lists.
-- {coverage name, template, domains, instrumented template}
local B = {-2, 2}
local special = {
  {"pow", "ad.pow($1, $2)", known.pow},
  {"pow", "($1 ^ 2)", {B}}, {"pow", "($1 ^ 3)", {B}}, {"pow", "($1 ^ -2)", {{-3, -0.4}}},
  {"pow", "(2 ^ $1)", {B}},
  {"log/2", "ad.log($1, $2)", {{0.3, 4}, {1.5, 4}}},
  {"atan/2", "ad.atan($1, $2)", known.atan2},
  {"max/3", "ad.max($1, $2, $3)", {B, B, B}},
  {"min/3", "ad.min($1, $2, $3)", {B, B, B}},
  {"modf", "(ad.modf($1))", {{-3, 3}}},
  {"modf/2", "(select(2, ad.modf($1)))", {{-3, 3}}},
  {"where", "ad.where($1 < $2, $3, $4)", {B, B, B, B}, "ad.where(Lt($1, $2), $3, $4)"},
  {"where/number", "ad.where(ad.relu($1), $2, $3)", {B, B, B}},
  {"eq", "ad.where(ad.eq($1, $2), $3, $4)", {B, B, B, B}},
  {"lt", "ad.where(ad.lt($1, $2), $3, $4)", {B, B, B, B}},
  {"le", "ad.where(ad.le($1, $2), $3, $4)", {B, B, B, B}},
  {"list sum", "ad.sum{$1, $2, $3}", {B, B, B}},
  {"list prod", "ad.prod{$1, $2, $3}", {B, B, B}},
  {"list mean", "ad.mean{$1, $2, $3, $4}", {B, B, B, B}},
  {"list dot", "ad.dot({$1, $2}, {$3, $4})", {B, B, B, B}},
  {"list norm", "ad.norm{$1, $2}", {{0.3, 2}, B}},
  {"list logsumexp", "ad.logsumexp{$1, $2, $3}", {B, B, B}},
  {"list softmax", "ad.softmax({$1, $2, $3})[2]", {B, B, B}},
  {"list max", "ad.max{$1, $2, $3}", {B, B, B}},
  {"list min", "ad.min{$1, $2, $3}", {B, B, B}},
}

-- Functions that a program may use, printed before it when it does.
local helpers = {
  D = "local function D(x, lo, hi) return (lo + hi) / 2 + (hi - lo) * x / (1 + x * x) end",
  S = "local function S(x, lo, hi) return lo + (hi - lo) * ad.sigmoid(x) end",
  pull = "local function pull(f, x, w) local _, p = ad.vjp(f, x); return (p(w)) end",
  push = "local function push(f, x, w) local _, l = ad.linearize(f, x); return (l(w)) end",
  taped = [[
local function taped(f, x)
  local tape <close> = ad.tape()
  local v = tape:var(x)
  return (tape:gradient(f(v), v))
end]],
  co = [[
local function co(f, x)
  local step = coroutine.wrap(function() coroutine.yield() return f(x) end)
  step()
  return (step())
end]],
  try = [[
local function try(f, x)
  assert(not pcall(ad.grad(function(z) error(f(z)) end), x))
  return (f(x))
end]],
  cube = [[
local cube = ad.custom{name = "cube", f = function(x) return x * x * x end,
  jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end}]],
  times = [[
local times = ad.custom{name = "times", f = function(x, y) return x * y end,
  vjp = function(w, _, x, y) return w * y, w * x end}]],
  root = [[
local root = ad.implicit{f = function(x, t) return x * x - t end,
  solve = function(t) return t ^ 0.5 end}]],
}

special[#special + 1] = {"custom jvp", "cube($1)", {{-1.5, 1.5}}, need = "cube"}
special[#special + 1] = {"custom vjp", "times($1, $2)", {B, B}, need = "times"}
special[#special + 1] = {"implicit", "root($1)", {{0.3, 4}}, need = "root"}

-- A function of one argument `F`, used through a transform.
local inner1 = {
  {"call", "F($1)"}, {"call", "F($1)"}, {"call", "F($1)"},
  {"inner grad", "(ad.grad(F)($1))"},
  {"inner jvp", "(select(2, ad.jvp(F, {$1}, {$2})))"},
  {"inner value_and_grad", "(select(2, ad.value_and_grad(F)($1)))"},
  {"inner derivative", "ad.derivative(F)($1)"},
  {"inner derivative 2", "ad.derivative(F, 2)($1)"},
  {"inner vjp", "pull(F, $1, $2)", need = "pull"},
  {"inner linearize", "push(F, $1, $2)", need = "push"},
  {"inner hessian", "ad.hessian(F)($1)"},
  {"inner hvp", "ad.hvp(F, $1, $2)"},
  {"inner taylor", "ad.taylor(F, $1, 2)[3]"},
  {"inner grad grad", "(ad.grad(ad.grad(F))($1))"},
  {"inner tape", "taped(F, $1)", need = "taped"},
  {"checkpoint", "ad.checkpoint(F)($1)", pure = true},
  {"inner grad checkpoint", "(ad.grad(ad.checkpoint(F))($1))", pure = true},
  {"coroutine", "co(F, $1)", need = "co"},
  {"caught error", "try(F, $1)", need = "try"},
}

-- A function of two arguments `F`.
local inner2 = {
  {"call", "F($1, $2)"}, {"call", "F($1, $2)"},
  {"inner grad 2", "(ad.grad(F, 2)($1, $2))"},
  {"inner grad list", "(select(2, ad.grad(F, {1, 2})($1, $2)))"},
  {"inner jvp 2", "(select(2, ad.jvp(F, {$1, $2}, {0.5, -1.5})))"},
  {"inner structure", "ad.grad(function(s) return F(s.a, s[1]) end)({$1, a = $2}).a"},
  {"inner jacobian", "ad.jacobian(function(s) return {F(s[1], s[2]), s[1] * s[2]} end)"
    .. "({$1, $2})[1][2]"},
  {"inner jacfwd", "ad.jacfwd(function(s) return {F(s[1], s[2])} end)({$1, $2})[1][1]"},
  {"inner jacrev", "ad.jacrev(function(s) return {F(s[1], s[2])} end)({$1, $2})[1][2]"},
  {"inner hessian 2", "ad.hessian(function(s) return F(s[1], s[2]) end)({$1, $2})[1][2]"},
  {"checkpoint", "ad.checkpoint(F)($1, $2)", pure = true},
}

-- What an impure function may go through: only transforms that run it once.
local inner_impure = {inner1[1], inner1[2], inner1[4], inner1[5], inner1[6]}

-- Features counted beside the operations.
local features = {"if", "for", "while", "index", "function", "upvalue", "recursion"}
local counted = {}
for _, list in ipairs{inner1, inner2} do
  for _, form in ipairs(list) do
    if not counted[form[1]] then features[#features + 1] = form[1] end
    counted[form[1]] = true
  end
end

-- The marks that kinks leave: a function of plain arguments to a string.
local function side(a, b)
  return a < b and "<" or a > b and ">" or "="
end

local function largest(sign)
  return function(list)
    local best, ties = 1, 0
    for k = 2, #list do
      if sign * list[k] > sign * list[best] then best, ties = k, 0
      elseif list[k] == list[best] then ties = ties + 1 end
    end
    return best .. "t" .. ties
  end
end

local function whole(x)
  return string.format("%.0f%s", floor(x), floor(x) == x and "=" or "")
end

local marks = {
  abs = function(a) return side(a[1], 0) end,
  relu = function(a) return side(a[1], 0) end,
  sign = function(a) return side(a[1], 0) end,
  floor = function(a) return whole(a[1]) end,
  ceil = function(a) return whole(a[1]) end,
  modf = function(a) return whole(a[1]) end,
  fmod = function(a) return whole(a[1] / a[2]) end,
  mod = function(a) return whole(a[1] / a[2]) end,
  idiv = function(a) return whole(a[1] / a[2]) end,
  max = largest(1), min = largest(-1),
  clamp = function(a) return side(a[1], a[2]) .. side(a[1], a[3]) end,
  where = function(a)
    return tostring(a[1] and a[1] ~= 0)
  end,
  eq = function(a) return side(a[1], a[2]) end,
  lt = function(a) return side(a[1], a[2]) end,
  le = function(a) return side(a[1], a[2]) end,
}

-- For rows of the table that are not smooth and that this file does not know.
local function some_mark(a)
  local out = {}
  for k, x in ipairs(a) do out[k] = whole(x) .. side(x, a[1]) end
  return concat(out)
end

local function bound(x, lo, hi, wide)
  if not x or x ~= x then return wide end
  return max(lo, min(hi, x))
end

-- The domains of a row of the core's table, cut down to a moderate size.
local function domains(row)
  local list, fallback = {}, known[row.name]
  -- The table keeps away from the kinks; with marks there is no need to.
  if fallback and marks[row.name] then return fallback end
  for k = 1, row.arity do
    local lo = type(row.lo) == "table" and row.lo[k] or row.lo
    local hi = type(row.hi) == "table" and row.hi[k] or row.hi
    if lo or hi or not fallback then
      lo, hi = bound(lo, -4, 50, 0.3), bound(hi, -50, 6, 0.8)
      if lo >= hi then lo, hi = 0.3, 0.8 end
      list[k] = {lo, hi}
    else
      list[k] = fallback[k]
    end
  end
  return list
end

local function call_template(name, arity)
  local args = {}
  for k = 1, arity do args[k] = "$" .. k end
  return "ad." .. name .. "(" .. concat(args, ", ") .. ")"
end

--- The forms that programs are made of.
-- `ad` is the library, `rows` the core's table of operations (nil: only what
-- this file knows), `extra` more rows of the same kind for tests of the tests;
-- an extra row's `fn` is its function.
function M.setup(ad, rows, extra)
  local lib = {}
  local forms, done, missing, covered, listed = {}, {}, {}, {}, {}
  for _, s in ipairs(special) do
    listed[s[1]] = true
    done[s[1]:match("^%a+$") or ""] = s[1]:match("^%a+$") and true or nil
    forms[#forms + 1] = {cov = s[1], t = s[2], dom = s[3], i = s[4], need = s[5] or s.need}
  end
  done.pow = nil                   -- its operator is still to come
  local all = {}
  for _, row in ipairs(rows or {}) do all[#all + 1] = row end
  for _, row in ipairs(extra or {}) do all[#all + 1] = row end
  local seen = {}
  for _, row in ipairs(all) do seen[row.name] = true end
  local names = {}
  for name in pairs(known) do
    if not seen[name] then names[#names + 1] = name end
  end
  table.sort(names)                -- `pairs` has no order, the seed should fix one
  for _, name in ipairs(names) do all[#all + 1] = {name = name, arity = #known[name]} end
  for _, row in ipairs(all) do
    local name, op = row.name, operators[row.name]
    if row.list then
      -- Known lists have forms above; a new one gets this.
      if not row.internal and not listed["list " .. name] then
        forms[#forms + 1] = {cov = "list " .. name, t = "ad." .. name .. "{$1, $2, $3}",
          dom = {{0.3, 2}, {0.3, 2}, {0.3, 2}}}
      end
    elseif not row.internal then
      if row.fn then lib[name] = row.fn end
      if op then
        forms[#forms + 1] = {cov = name, t = op[1], i = op[2], dom = domains(row)}
      elseif not done[name] then
        if not row.fn and type(ad[name]) ~= "function" then
          missing[#missing + 1] = name
        else
          forms[#forms + 1] = {cov = name, t = call_template(name, row.arity),
            dom = domains(row), kink = row.smooth == false}
        end
      end
    end
  end
  setmetatable(lib, {__index = ad})
  local self = {ad = ad, lib = lib, forms = forms, missing = missing}
  self.trace = {}
  self.env = M.environment(lib)
  self.ienv = M.instrumented(self)
  for _, form in ipairs(forms) do
    form.lo, form.hi = M.range(self, form)
    covered[form.cov] = true
  end
  self.names = {}
  for name in pairs(covered) do self.names[#self.names + 1] = name end
  table.sort(self.names)
  self.features = features
  return self
end

function M.environment(lib)
  local env = {ad = lib, select = select, coroutine = coroutine, error = error,
    assert = assert, pcall = pcall, Lt = false, Mod = false, Idiv = false}
  -- A deleted `local` turns assignments into global ones, which would stay for
  -- the programs after: no shrinking goes that way.
  return setmetatable(env, {__newindex = function(_, name) error("global " .. name) end})
end

--- The environment of the instrumented printing: the same functions, with the
-- kinks leaving marks in `self.trace`.
function M.instrumented(self)
  local ad, trace = self.lib, self.trace
  local value = ad.value
  local function plain(...)
    local a = {...}
    if type(a[1]) == "table" and ad.type(a[1]) == nil then a = a[1] end
    local list = {}
    for k = 1, #a do
      local x = a[k]
      if type(x) ~= "boolean" then x = value(x) end
      list[k] = x
    end
    return list
  end
  local wrapped = setmetatable({}, {__index = ad})
  local function wrap(name, mark)
    local f = ad[name]
    if type(f) ~= "function" then return end
    wrapped[name] = function(...)
      trace[#trace + 1] = mark(plain(...))
      return f(...)
    end
  end
  for name, mark in pairs(marks) do wrap(name, mark) end
  for _, form in ipairs(self.forms) do
    if form.kink and not marks[form.cov] then wrap(form.cov, some_mark) end
  end
  local env = M.environment(wrapped)
  function env.Lt(a, b)
    trace[#trace + 1] = side(value(a), value(b))
    return a < b
  end
  function env.Mod(a, b)
    trace[#trace + 1] = marks.mod(plain(a, b))
    return a % b
  end
  function env.Idiv(a, b)
    trace[#trace + 1] = marks.idiv(plain(a, b))
    return a // b
  end
  return env
end

-- The range of a form over its domain, from samples, with a margin.
function M.range(self, form)
  local args = {}
  for k = 1, #form.dom do args[k] = "x" .. k end
  local source = (form.need and helpers[form.need] .. "\n" or "") .. "return function("
    .. concat(args, ", ") .. ") return " .. form.t:gsub("%$(%d)", "x%1") .. " end"
  local f = assert(load(source, "=form", "t", self.env))()
  local lo, hi, state = huge, -huge, 12345
  for sample = 1, 60 do
    local x = {}
    for k, d in ipairs(form.dom) do
      state = (state * 1103515245 + 12345) % 2147483648
      local u = sample <= 2 and sample - 1 or state / 2147483648
      x[k] = d[1] + (d[2] - d[1]) * u
    end
    local ok, y = pcall(f, table.unpack(x))
    if not ok then error(form.cov .. ": " .. tostring(y) .. "\n" .. source) end
    if y ~= y or abs(y) == huge then
      error(("%s is %s at (%s)"):format(form.cov, y, concat(x, ", ")))
    end
    lo, hi = min(lo, y), max(hi, y)
  end
  local margin = 0.2 * (hi - lo) + 1e-3
  return lo - margin, hi + margin
end

---------------------------------------------------------------------------
-- Generation

local function leaf(t, lo, hi)
  return {t = t, lo = lo, hi = hi}
end

local function number()
  local c = random(-25, 25) / 10
  if c == 0 then c = 0.5 end
  return leaf(c < 0 and ("(%.1f)"):format(c) or ("%.1f"):format(c), c, c)
end

-- e, or a smooth image of e that lies in [lo, hi].
local function fit(e, lo, hi)
  if e.lo and e.lo >= lo and e.hi <= hi then return e end
  local name = random(4) == 1 and "S" or "D"
  return {t = ("%s($1, %.6g, %.6g)"):format(name, lo, hi), need = name, e,
    lo = lo, hi = hi, cov = name == "S" and "sigmoid" or nil}
end

local function scope(ctx)
  local inside = {vars = {}, funcs = {}, tables = {}, root = ctx.root, depth = ctx.depth + 1}
  for _, kind in ipairs{"vars", "funcs", "tables"} do
    for k, v in ipairs(ctx[kind]) do inside[kind][k] = v end
  end
  return inside
end

local function fresh(ctx, prefix)
  local n = ctx.root.fresh + 1
  ctx.root.fresh = n
  return prefix .. n
end

local function variable(ctx)
  local n = #ctx.vars
  local v = ctx.vars[random(4) == 1 and n or random(n)]
  return leaf(v.name, v.lo, v.hi)
end

local expression

local function use_form(ctx, form, budget)
  local e = {t = form.t, i = form.i, need = form.need, cov = form.cov,
    lo = form.lo, hi = form.hi}
  local n = #form.dom
  for k = 1, n do
    local d = form.dom[k]
    e[k] = fit(expression(ctx, (budget - 1) // n), d[1], d[2])
  end
  if e.t:find("^ad%.[a-z]+%(%$1%)$") and random(20) == 1 then
    local name = e.t:match("^ad%.(%a+)")
    if math[name] then e.t = "ad.math." .. name .. "($1)" end
  end
  return e
end

local function use_function(ctx, budget)
  local f = ctx.funcs[random(#ctx.funcs)]
  local list = f.impure and inner_impure or #f.params == 2 and inner2 or inner1
  if f.recursive then list = {inner1[1], inner1[4], inner1[5], inner1[16]} end
  local how = list[random(#list)]
  if how.pure and not f.pure then how = list[1] end
  local name = f.name
  if f.recursive then name = ("function(z) return %s(z, %d) end"):format(f.name, f.recursive) end
  local t = how[2]:gsub("%f[%w]F%f[%W]", name)
  if f.recursive and how[1] == "call" then
    t = ("%s($1, %d)"):format(f.name, f.recursive)
  end
  local e = {t = t, cov = how[1], need = how.need}
  local n = t:find("$2", 1, true) and 2 or 1
  for k = 1, n do
    local p = f.params[k] or f.params[1]
    e[k] = fit(expression(ctx, (budget - 1) // n), p[1], p[2])
  end
  if how[1] == "call" or how[1] == "checkpoint" or how[1] == "coroutine"
      or how[1] == "caught error" then
    e.lo, e.hi = f.lo, f.hi
  end
  return e
end

local arithmetic = {"($1 + $2)", "($1 - $2)", "($1 * $2)", "($1 / $2)"}

local function moderate(e)
  if not e.lo or max(abs(e.lo), abs(e.hi)) > 30 then return fit(e, -3, 3) end
  return e
end

local function use_arithmetic(ctx, budget)
  local which = random(4)
  local a = moderate(expression(ctx, (budget - 1) // 2))
  local b = moderate(expression(ctx, (budget - 1) // 2))
  local e = {t = arithmetic[which], a, b, cov = ({"add", "sub", "mul", "div"})[which]}
  if which == 1 then
    e.lo, e.hi = a.lo + b.lo, a.hi + b.hi
  elseif which == 2 then
    e.lo, e.hi = a.lo - b.hi, a.hi - b.lo
  elseif which == 3 then
    local p, q, r, s = a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi
    e.lo, e.hi = min(p, q, r, s), max(p, q, r, s)
  else
    b = fit(b, 0.4, 3)
    e[2] = b
    local m = max(abs(a.lo), abs(a.hi)) / b.lo
    e.lo, e.hi = -m, m
  end
  return e
end

local function use_table(ctx, budget)
  local t = ctx.tables[random(#ctx.tables)]
  local at = fit(expression(ctx, budget - 1), 1.01, t.n + 0.99)
  return {t = t.name .. "[ad.floor($1)]", at, cov = "index", lo = t.lo, hi = t.hi}
end

function expression(ctx, budget)
  if budget <= 0 then
    if random(6) == 1 then return number() end
    return variable(ctx)
  end
  local r = random(100)
  if r <= 12 and #ctx.funcs > 0 then return use_function(ctx, budget) end
  if r <= 18 and #ctx.tables > 0 then return use_table(ctx, budget) end
  if r <= 45 then return use_arithmetic(ctx, budget) end
  local forms = ctx.root.forms
  return use_form(ctx, forms[random(#forms)], budget)
end

-- A local variable; later assignments keep to its interval.
local function declare(ctx, out, e, prefix)
  local name = fresh(ctx, prefix or "v")
  e = moderate(e)
  local lo, hi = e.lo - 0.2, e.hi + 0.2
  out[#out + 1] = {t = "local " .. name .. " = $1", e}
  local v = {name = name, lo = lo, hi = hi, mutable = true, depth = ctx.depth}
  ctx.vars[#ctx.vars + 1] = v
  return v
end

local function assign(out, v, e)
  out[#out + 1] = {t = v.name .. " = $1", fit(e, v.lo, v.hi)}
end

local function mutable(ctx, out)
  local list = {}
  for _, v in ipairs(ctx.vars) do
    if v.mutable then list[#list + 1] = v end
  end
  if #list == 0 then return declare(ctx, out, variable(ctx)) end
  return list[random(#list)]
end

-- Nothing that the functions defined so far can see changes any more. What is
-- to be run again in a backward pass must find what it found the first time.
local function freeze(ctx)
  for _, v in ipairs(ctx.vars) do v.mutable = false end
  local funcs = {}
  for _, f in ipairs(ctx.funcs) do
    if not f.impure then
      f.pure = true
      funcs[#funcs + 1] = f
    end
  end
  ctx.funcs = funcs
end

local function comparison(ctx)
  local a, b = variable(ctx), random(2) == 1 and number() or variable(ctx)
  return a, b
end

local statements = {}

function statements.plain(ctx, out)
  declare(ctx, out, expression(ctx, random(3)))
end

function statements.assign(ctx, out)
  local v = mutable(ctx, out)
  assign(out, v, expression(ctx, random(3)))
end

statements["if"] = function(ctx, out)
  local v = mutable(ctx, out)
  local a, b = comparison(ctx)
  local yes, no = {}, {}
  assign(yes, v, expression(scope(ctx), random(3)))
  if random(2) == 1 then assign(no, v, expression(scope(ctx), random(2))) end
  out[#out + 1] = {t = "if $1 < $2 then\n@1\nelse\n@2\nend",
    i = "if Lt($1, $2) then\n@1\nelse\n@2\nend", a, b, blocks = {yes, no}, cov = "if"}
end

statements["for"] = function(ctx, out)
  local v = mutable(ctx, out)
  local i, n = fresh(ctx, "i"), random(2, 4)
  local inside, body = scope(ctx), {}
  inside.vars[#inside.vars + 1] = {name = i, lo = 1, hi = n}
  if random(3) == 1 then declare(inside, body, expression(inside, 1)) end
  assign(body, v, expression(inside, random(3)))
  out[#out + 1] = {t = ("for %s = 1, %d do\n@1\nend"):format(i, n), blocks = {body}, cov = "for"}
end

statements["while"] = function(ctx, out)
  local v = mutable(ctx, out)
  local w = declare(ctx, out, fit(expression(ctx, random(2)), 0.8, 4), "w")
  w.mutable = false
  local inside, body = scope(ctx), {}
  assign(body, v, expression(inside, random(2)))
  body[#body + 1] = {t = w.name .. " = " .. w.name .. " * 0.6"}
  out[#out + 1] = {t = "while " .. w.name .. " > 1 do\n@1\nend",
    i = "while Lt(1, " .. w.name .. ") do\n@1\nend", blocks = {body}, cov = "while"}
end

function statements.table(ctx, out)
  local name, n, list, lo, hi = fresh(ctx, "t"), random(2, 3), {}, huge, -huge
  local slots = {}
  for k = 1, n do
    local e = moderate(expression(ctx, random(0, 1)))
    list[k], slots[k] = e, "$" .. k
    lo, hi = min(lo, e.lo), max(hi, e.hi)
  end
  list.t = "local " .. name .. " = {" .. concat(slots, ", ") .. "}"
  out[#out + 1] = list
  ctx.tables[#ctx.tables + 1] = {name = name, n = n, lo = lo, hi = hi}
  declare(ctx, out, use_table(ctx, random(2)))
end

statements["function"] = function(ctx, out)
  local name, arity = fresh(ctx, "f"), random(3) == 1 and 2 or 1
  local inside, body, params = scope(ctx), {}, {}
  -- An inner function that calls other functions multiplies the cost of
  -- nested transforms; one level of that is enough.
  local callable = {}
  for _, g in ipairs(inside.depth > 1 and {} or inside.funcs) do
    -- An effect may not hide where a transform decides how often to run f.
    if not g.impure then callable[#callable + 1] = g end
  end
  inside.funcs = callable
  local list = {}
  for k = 1, arity do
    local p = fresh(ctx, "p")
    list[k], params[k] = p, {-2, 2}
    inside.vars[#inside.vars + 1] = {name = p, lo = -2, hi = 2}
    inside.vars[#inside.vars + 1] = {name = p, lo = -2, hi = 2}
  end
  local f = {name = name, params = params}
  if random(4) == 1 then declare(inside, body, expression(inside, random(2))) end
  if arity == 1 and random(8) == 1 then
    local v = mutable(ctx, out)
    assign(body, v, expression(inside, random(2)))
    f.impure = true
  end
  local e = moderate(expression(inside, random(3)))
  f.lo, f.hi = e.lo, e.hi
  body[#body + 1] = {t = "return $1", e}
  out[#out + 1] = {t = ("local function %s(%s)\n@1\nend"):format(name, concat(list, ", ")),
    blocks = {body}, cov = f.impure and "upvalue" or "function"}
  ctx.funcs[#ctx.funcs + 1] = f
  if not f.impure and random(3) == 1 then freeze(ctx) end
  if random(4) > 1 then
    local only = {vars = ctx.vars, funcs = {f}, tables = ctx.tables, root = ctx.root,
      depth = ctx.depth}
    declare(ctx, out, use_function(only, random(2)))
  end
end

function statements.recursion(ctx, out)
  local name, p, r = fresh(ctx, "r"), fresh(ctx, "p"), fresh(ctx, "q")
  local inside = scope(ctx)
  inside.funcs = {}
  inside.vars[#inside.vars + 1] = {name = p, lo = -2, hi = 2}
  inside.vars[#inside.vars + 1] = {name = p, lo = -2, hi = 2}
  local base = fit(expression(inside, random(0, 2)), -3, 3)
  local step = fit(expression(inside, random(1, 2)), -2, 2)
  inside.vars[#inside.vars + 1] = {name = r, lo = -3, hi = 3}
  local combine = fit({t = "($1 + " .. r .. ")", expression(inside, random(2))}, -3, 3)
  local stop, istop = "", ""
  if random(2) == 1 then
    stop, istop = (" or %s < -0.8"):format(p), (" or Lt(%s, -0.8)"):format(p)
  end
  local t = "local function %s(%s, k)\n  if k <= 0%s then return $1 end\n"
    .. "  local %s = %s($2, k - 1)\n  return $3\nend"
  out[#out + 1] = {t = t:format(name, p, stop, r, name), i = t:format(name, p, istop, r, name),
    base, step, combine, cov = "recursion"}
  local f = {name = name, params = {{-2, 2}}, recursive = random(1, 3), lo = -3, hi = 3}
  ctx.funcs[#ctx.funcs + 1] = f
  if random(3) == 1 then freeze(ctx) end
  local only = {vars = ctx.vars, funcs = {f}, tables = ctx.tables, root = ctx.root,
    depth = ctx.depth}
  declare(ctx, out, use_function(only, random(2)))
end

local menu = {"plain", "plain", "plain", "assign", "if", "if", "for", "while", "table",
  "function", "function", "recursion"}

--- Program number `index` of the sequence that `seed` starts. Each depends on
-- nothing but the two, so that any can be had again alone.
function M.generate(self, seed, index)
  math.randomseed(seed, index)
  local n = random(3)
  local p = {n = n, index = index, body = {}, x = {}, v = {}}
  local root = {fresh = 0, forms = self.forms}
  local ctx = {vars = {}, funcs = {}, tables = {}, root = root, depth = 0}
  for k = 1, n do
    p.x[k] = random(-1900, 1900) / 1000 + random() * 1e-3
    p.v[k] = (random(2) == 1 and 1 or -1) * random(3, 15) / 10
    ctx.vars[k] = {name = "x" .. k, lo = -1.91, hi = 1.91}
  end
  local r = random(100)
  local count = r <= 50 and random(0, 1) or r <= 96 and random(1, 3) or random(6, 12)
  local at = random(0, count)
  local forced
  for k = 0, count do
    if k == at then
      local form = self.forms[(index - 1) % #self.forms + 1]
      forced = declare(ctx, p.body, use_form(ctx, form, random(1, 3)))
    else
      statements[menu[random(#menu)]](ctx, p.body)
    end
  end
  local last = ctx.vars[#ctx.vars]
  local rest = moderate(expression(ctx, random(0, 2)))
  if last ~= forced then
    rest = {t = "($1 + $2)", rest, leaf(last.name)}
  end
  p.body[#p.body + 1] = {t = random(3) == 1 and "return $1 * $2" or "return $1 + $2",
    leaf(forced.name), rest}
  return p
end

---------------------------------------------------------------------------
-- Printing

-- `need` collects the helpers, and counts the uses of variables when each is
-- to have an input of its own added.
local function print_expression(e, instrumented, need)
  if e.need then need[e.need] = true end
  local t = instrumented and e.i or e.t
  if #e == 0 then
    if not need.uses or not t:find("^%a%d+$") then return t end
    need.uses = need.uses + 1
    return ("(%s + d[%d])"):format(t, need.uses)
  end
  return (t:gsub("%$(%d)", function(k)
    return print_expression(e[tonumber(k)], instrumented, need)
  end))
end

local function print_block(block, instrumented, need, out, indent)
  for _, s in ipairs(block) do
    local t = instrumented and s.i or s.t
    for line in t:gmatch("[^\n]+") do
      local inner = line:match("^@(%d)$")
      if inner then
        print_block(s.blocks[tonumber(inner)], instrumented, need, out, indent .. "  ")
      elseif line ~= "else" or #s.blocks[2] > 0 then
        local text = line:gsub("%$(%d)", function(k)
          return print_expression(s[tonumber(k)], instrumented, need)
        end)
        out[#out + 1] = indent .. text
      end
    end
  end
end

--- The Lua source of a program: a chunk that returns the function. With `uses`
-- it has one more argument, a list d of which an element is added to every use
-- of a variable; the second result is their number.
function M.source(p, instrumented, uses)
  local out, need, args = {}, {uses = uses and 0}, {}
  for k = 1, p.n do args[k] = "x" .. k end
  if uses then args[p.n + 1] = "d" end
  print_block(p.body, instrumented, need, out, "  ")
  local head = {}
  for name, text in pairs(helpers) do
    if need[name] then head[#head + 1] = text end
  end
  table.sort(head)
  head[#head + 1] = "return function(" .. concat(args, ", ") .. ")"
  return concat(head, "\n") .. "\n" .. concat(out, "\n") .. "\nend\n", need.uses
end

--- The function of a program.
function M.compile(self, p)
  return assert(load((M.source(p)), "=program", "t", self.env))()
end

--- The same, instrumented; its marks go to `self.trace`.
function M.compile_instrumented(self, p)
  return assert(load((M.source(p, true)), "=program", "t", self.ienv))()
end

--- The function with an input for every use of a variable, and their number.
function M.compile_uses(self, p)
  local source, uses = M.source(p, false, true)
  return assert(load(source, "=program", "t", self.env))(), uses
end

local function count_expression(e, counts)
  if e.cov then counts[e.cov] = (counts[e.cov] or 0) + 1 end
  local n = #e > 0 and 1 or 0
  for _, child in ipairs(e) do n = n + count_expression(child, counts) end
  return n
end

local function count_block(block, counts)
  local n = 0
  for _, s in ipairs(block) do
    n = n + count_expression(s, counts)
    for _, inner in ipairs(s.blocks or {}) do n = n + count_block(inner, counts) end
  end
  return n
end

--- Adds the names used by a program to `counts`; returns its size.
function M.count(p, counts)
  return count_block(p.body, counts)
end

---------------------------------------------------------------------------
-- Shrinking

-- Places where something can be replaced: {kind, container, key}.
local function expression_sites(e, sites)
  for k = 1, #e do
    sites[#sites + 1] = {"expression", e, k}
    expression_sites(e[k], sites)
  end
end

local function block_sites(block, sites)
  for k = #block, 1, -1 do
    sites[#sites + 1] = {"statement", block, k}
    for _, inner in ipairs(block[k].blocks or {}) do block_sites(inner, sites) end
    expression_sites(block[k], sites)
  end
end

-- Replaces block[k] by the statements of `with`.
local function splice(block, k, with)
  local copy = table.move(block, 1, #block, 1, {})
  for j = #block, k, -1 do block[j] = nil end
  for _, s in ipairs(with) do block[#block + 1] = s end
  for j = k + 1, #copy do block[#block + 1] = copy[j] end
  return copy
end

local function restore(block, copy)
  for j = #block, 1, -1 do block[j] = nil end
  table.move(copy, 1, #copy, 1, block)
end

local function try_statement(block, k, fails)
  local s = block[k]
  if s.t:find("^return") then
    if #s < 2 then return false end
    for j = 1, 2 do
      local copy = splice(block, k, {{t = "return $1", s[j]}})
      if fails() then return true end
      restore(block, copy)
    end
    return false
  end
  local choices = {{}}
  for _, inner in ipairs(s.blocks or {}) do choices[#choices + 1] = inner end
  for _, with in ipairs(choices) do
    local copy = splice(block, k, with)
    if fails() then return true end
    restore(block, copy)
  end
  return false
end

-- Whether an expression uses nothing but the arguments of the program.
local function closed(e)
  local text = print_expression(e, false, {})
  return #text < 60 and not text:find("%f[%w][vwtfrpqi]%d+")
end

-- The operations in a block that are closed.
local function closed_operations(block, list)
  local function visit(e)
    if #e > 0 and e.cov and #list < 12 and closed(e) then list[#list + 1] = e end
    for _, child in ipairs(e) do visit(child) end
  end
  for _, s in ipairs(block) do
    for _, e in ipairs(s) do visit(e) end
    for _, inner in ipairs(s.blocks or {}) do closed_operations(inner, list) end
  end
  return list
end

local function try_expression(p, parent, k, fails)
  local e = parent[k]
  local choices = {}
  if #e > 0 or not (e.t:find("^x%d$") or tonumber(e.t)) then
    for j = 1, p.n do choices[#choices + 1] = leaf("x" .. j) end
    choices[#choices + 1] = leaf("1.0")
    choices[#choices + 1] = leaf("0.5")
  end
  for _, child in ipairs(e) do choices[#choices + 1] = child end
  -- In place of a variable or a call, what may have been behind it.
  if e.t:find("%f[%w][vwtfrpqi]%d+") then closed_operations(p.body, choices) end
  for _, with in ipairs(choices) do
    parent[k] = with
    if fails() then return true end
  end
  parent[k] = e
  return false
end

local function try_point(p, fails)
  local changed = false
  for _, list in ipairs{p.x, p.v} do
    for k = 1, p.n do
      local old = list[k]
      for _, digits in ipairs{"%.0f", "%.1f", "%.2f"} do
        local new = tonumber(digits:format(old)) + 0.0
        if new ~= old and (new ~= 0 or list == p.x) then
          list[k] = new
          if fails() then changed = true break end
          list[k] = old
        elseif new == old then
          break
        end
      end
    end
  end
  return changed
end

--- Makes `p` smaller, in place, while `fails(p)` stays true.
function M.shrink(p, fails, limit)
  local tries = 0
  limit = limit or 4000
  local function still()
    tries = tries + 1
    return tries <= limit and fails(p)
  end
  local again = true
  while again and tries < limit do
    again = false
    local sites = {}
    block_sites(p.body, sites)
    for _, site in ipairs(sites) do
      local kind, container, key = site[1], site[2], site[3]
      local hit
      if kind == "statement" then
        hit = container[key] and try_statement(container, key, still)
      else
        hit = container[key] and try_expression(p, container, key, still)
      end
      -- The sites below a replaced node are no longer in the program.
      if hit then again = true break end
    end
  end
  try_point(p, still)
  return p, tries
end

return M
