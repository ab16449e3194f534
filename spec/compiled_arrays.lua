--- Property tests of compiled functions of arrays: random programs with branches and loops,
-- compiled against themselves, in value and gradient, at many points each.
--
--   lua5.4 spec/compiled_arrays.lua [count [points [seed]]]

local standalone = arg and arg[0] and arg[0]:find("compiled_arrays%.lua$") and ... ~= "module"
if standalone then
  local root = arg[0]:match("^(.*)spec/compiled_arrays%.lua$") or "./"
  if root == "" then root = "./" end
  package.path = root .. "lua/?.lua;" .. package.path
  package.cpath = root .. "lua/?.so;" .. package.cpath
end

local ad = require "autodiff"

local M = { errors = 0 }

local random = math.random

-- What can stand in the place of a scalar, a vector of 3, a matrix of 3 by 3: S, V and M are any
-- such expression, s, v and m a variable.
local forms = {
  S = { "ad.sum(V)", "ad.mean(M)", "ad.max(V)", "ad.dot(V, V)", "v[1]", "m[{2, 3}]", "S * S",
    "S + S", "ad.sin(S)", "ad.norm(V + 2)", "ad.tanh(S) - 0.5", "V[-1]", "ad.min(M)",
    "ad.logsumexp(V)", "ad.max(S, S)", "s", "s", "ad.sum(m)", "0.7", "ad.sum(v * K)",
    "ad.sum({S, S, s})", "ad.linalg.det(M)",
    "D[{ 1, 2 }] * S",
    "ad.grad(function(x) return ad.sum(D * x) end)(S)", "ad.sum(D[2] * V)", "s * #v / m.size" },
  V = { "V + V", "V * S", "V - V", "ad.tanh(V)", "ad.matmul(M, V)", "ad.sum(M, 1)", "m[2]",
    "v:flip()", "ad.concat{ v[{ { 1, 2 } }], V[{ { 3, 3 } }] }", "v", "v", "v", "K", "V * K",
    "ad.where(ad.lt(V, S), V, V)", "ad.array{ S, S, s }", "v:take{ 2, 1, 3 }", "v:cumsum()",
    "v:softmax()", "S * V", "ad.sin(V) / 2", "ad.maximum(V, 0.1)", "-V", "V * V",
    "ad.take(v, v:argsort())", "m:max(2)", "ad.zeros(3) + S", "m:transpose()[1]",
    "ad.vmap(function(x) return x * S end)(v)", "ad.split(m, 3)[1]:reshape(3)",
    "ad.clamp(V, -0.5, S)", "ad.grad(function(x) return ad.sum(x * x * v) end)(V)",
    "ad.matmul(D, V)", "D[1] * S", "ad.grad(function(x) return ad.sum(x * K) end)(V)",
    "ad.grad(function(x) return ad.sum(ad.matmul(D, x) ^ 2) end)(V)", "ad.sum(D, 1) * V" },
  M = { "M + M", "M * V", "m:transpose()", "ad.matmul(M, M) / 3", "ad.outer(V, V)",
    "v:reshape(3, 1) * V", "ad.stack{ V, v, V }", "m:reshape(9):reshape(3, 3)", "m", "m",
    "m * S", "ad.sin(M)", "M - V:reshape(3, 1)", "ad.broadcast_to(V, { 3, 3 })", "I * S",
    "m[{ {}, { 3, 1, -1 } }]", "ad.exp(ad.tanh(M))", "ad.array{ V, v, v }", "m:cumsum(1) / 3",
    "ad.linalg.solve(M / 5 + I * 3, m)", "D:transpose() * S", "ad.matmul(D:reshape(3, 3), M)",
    "ad.flip(D) - M", "ad.grad(function(x) return ad.sum(ad.matmul(x, D)) end)(M)",
    "ad.grad(function(x) return ad.sum(x * D) end)(M)",
    "ad.jacobian(function(x) return D[2] * x end)(v)",
    "ad.hessian(function(x) return ad.dot(x, ad.matmul(D, x)) end)(v) / 3" },
}

local function names(state, kind)
  return kind .. random(state[kind])
end

local function expression(state, kind, depth)
  local list = forms[kind]
  local text = depth <= 0 and kind:lower() or list[random(#list)]
  -- only letters by themselves
  return (text:gsub("%f[%w_][SVMsvm]%f[^%w_]", function(c)
    if c:find "%l" then return names(state, c) end
    return "(" .. expression(state, c, depth - 1) .. ")"
  end))
end

local function indent(text) return (text:gsub("([^\n]+)", "  %1")) end

local function block(state, depth, n)
  local lines = {}
  for _ = 1, n do
    local what = random(12)
    local kind = ({ "S", "V", "M", "V" })[random(4)]
    local target = names(state, kind:lower())
    if what <= 6 or depth == 0 then
      lines[#lines + 1] = ("%s = %s"):format(target, expression(state, kind, 2))
    elseif what <= 8 then
      lines[#lines + 1] = ("if %s < %s then\n%s\nelse\n%s\nend"):format(
        expression(state, "S", 1), expression(state, "S", 0),
        indent(block(state, depth - 1, random(2))), indent(block(state, depth - 1, random(2))))
    elseif what == 9 then
      lines[#lines + 1] = ("for i = 1, %d do\n%s\nend"):format(random(3),
        indent(block(state, depth - 1, random(2))))
    elseif what >= 11 then -- the program's has a loop as well
      lines[#lines + 1] = ([[
do
  local w = %s
  while ad.norm(w) > 0.3 do
%s
    w = w * %s
  end
end]]):format(expression(state, "V", 1), indent(indent(block(state, depth - 1, random(2)))),
        random(2) == 1 and "0.6" or "ad.tanh(w) * 0.7")
    else
      lines[#lines + 1] = ([[
do
  local n = 0
  while n < 4 and %s > 0.1 do
    n = n + 1
%s
  end
end]]):format(expression(state, "S", 1), indent(indent(block(state, depth - 1, 1))))
    end
    -- nothing grows without bound
    lines[#lines + 1] = ("%s = %s"):format(target,
      kind == "S" and ("2 * ad.tanh(%s / 2)"):format(target) or ("ad.tanh(%s)"):format(target))
  end
  return table.concat(lines, "\n")
end

--- The text of a function of a number, a vector and a matrix.
function M.program(seed)
  math.randomseed(seed)
  local state = { s = 2, v = 2, m = 2 }
  return ([[
local ad, K, I, D = ...
return function(s1, v1, m1)
  local s2, v2, m2 = s1 * 0.5, v1 + 0.25, m1 * 0.5
%s
  return s1 + s2, v1, { m = m1, list = { v2, s2 }, m2 }
end]]):format(indent(block(state, 2, 3 + random(5))))
end

local function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "userdata" then
    if #a.shape ~= #b.shape then return false end
    for i = 1, #a.shape do
      if a.shape[i] ~= b.shape[i] then return false end
    end
    return same(a:reshape(-1):tolist(), b:reshape(-1):tolist())
  elseif type(a) == "table" then
    for k in pairs(a) do
      if not same(a[k], b[k]) then return false end
    end
    for k in pairs(b) do
      if a[k] == nil then return false end
    end
    return true
  elseif type(a) == "number" then
    return a == b or a ~= a and b ~= b or math.abs(a - b) <= 1e-10 * math.max(1, math.abs(a))
  end
  return a == b
end
M.same = same

local function copy(x)
  if type(x) == "userdata" then return x:copy() end
  if type(x) ~= "table" then return x end
  local new = {}
  for k, v in pairs(x) do new[k] = copy(v) end
  return new
end

local function draw(n)
  local list = {}
  for i = 1, n do list[i] = 2 * random() - 1 end
  return ad.array(list)
end

--- Compares at `points` arguments, each several times; nil, or what is wrong. Then the two
-- `stats()`.
function M.check(seed, points)
  local text = M.program(seed)
  local K, I, D = draw(3), ad.eye(3), draw(9):reshape(3, 3)
  local f = assert(load(text, "=program", "t"))(ad, K, I, D)
  local g = ad.grad(function(...)
    local a, b, c = f(...)
    return a + ad.sum(b) + ad.sum(c.m) * 0.5 + ad.sum(c.list[1]) - c.list[2] + ad.mean(c[1])
  end, { 1, 2, 3 })
  local lists, kept = {}, {}
  for i = 1, points do lists[i] = { 2 * random() - 1, draw(3), draw(9):reshape(3, 3) } end
  local compiled = {}
  for which, h in ipairs { f, g } do
    local c = ad.compile(h)
    compiled[which] = c
    for round = 1, 3 do
      if round == 3 then -- f has them as upvalues
        K[random(3)] = random()
        D[{ 2, random(3) }] = random()
      end
      for i, args in ipairs(lists) do
        if i % 3 == round then args[3] = args[3]:transpose() end
        local want = table.pack(pcall(h, table.unpack(args)))
        if not want[1] then M.errors = M.errors + 1 end
        local got = table.pack(pcall(c, table.unpack(args)))
        local ok = want[1] == got[1] and (not want[1] or same(want, got))
        if not ok then
          return ("seed %d, %s, round %d, point %d: %s, compiled %s\n%s\n%s"):format(seed,
            which == 1 and "value" or "gradient", round, i, tostring(want[2]), tostring(got[2]),
            text, tostring(c))
        end
        if got[1] then kept[#kept + 1] = { got, copy(got) } end
      end
    end
  end
  for _, pair in ipairs(kept) do -- nobody has written into them since
    if not same(pair[1], pair[2]) then
      return ("seed %d: a result has changed\n%s"):format(seed, text)
    end
  end
  return nil, compiled[1]:stats(), compiled[2]:stats()
end

if standalone then
  local count, points, seed = tonumber(arg[1] or 200), tonumber(arg[2] or 5), tonumber(arg[3] or 1)
  local calls, eager, failed, loops = 0, 0, 0, 0
  for i = seed, seed + count - 1 do
    local wrong, s1, s2 = M.check(i, points)
    if wrong then
      failed = failed + 1
      print(wrong)
    else
      for _, s in ipairs { s1, s2 } do
        calls, eager, loops = calls + s.calls, eager + s.eager_calls, loops + s.loops
      end
    end
  end
  print(("%d programs, %d loops; %d calls, %d of them by f itself, %d errors"):format(count, loops,
    calls, eager, M.errors))
  print(("%d passed, %d failed"):format(count - failed, failed))
  os.exit(failed == 0, true)
end

return M
