--- Random functions of two numbers with loops within loops, as long as the numbers say.

local random, format, concat = math.random, string.format, table.concat

local M = {}

local function any(list) return list[random(#list)] end

-- A bounded value of the variables.
local function value(names)
  local x, y = any(names), any(names)
  local k = random(7)
  if k == 1 then return format("ad.sin(%s * %.2f + %s)", x, 0.5 + random(), y) end
  if k == 2 then return format("ad.tanh(%s * %s) + 0.1 * %s", x, y, any(names)) end
  if k == 3 then return format("0.6 * %s + 0.3 * %s * ad.cos(%s)", x, y, any(names)) end
  if k == 4 then return format("%s / (1.5 + %s * %s)", x, y, y) end
  if k == 5 then return format("ad.max(%s, ad.sin(%s))", x, y) end
  if k == 6 then return format("ad.logsumexp{%s * 0.1, ad.sin(%s)}", x, y) end
  return format("ad.exp(-%s * %s)", y, y)
end

local block

-- A loop by a counter, which may be as long as another one has come, or by a value.
local function loop(p, depth, names, counters, indent)
  p.n = p.n + 1
  local i, out = "i" .. p.n, {}
  local inner, k = {table.unpack(counters)}, random(4)
  inner[#inner + 1] = i
  local limit = k == 1 and #counters > 0 and any(counters) or k == 2 and "a * 2" or "b"
  local test = format("%s < %s", i, limit)
  if k == 3 then
    local w = "w" .. p.n
    out[1] = format("local %s = 1 + ad.abs(%s)", w, any(names))
    test = format("%s > 0.3", w)
    out[3] = format("  %s = %s * %.2f - 0.05", w, w, 0.4 + random() * 0.4)
    names = {w, table.unpack(names)}
  end
  table.insert(out, k == 3 and 2 or 1, format("local %s = o", i))
  table.insert(out, k == 3 and 3 or 2, format("while %s do", test))
  block(p, depth + 1, names, inner, out)
  out[#out + 1] = format("  %s = %s + 1", i, i)
  out[#out + 1] = "end"
  for j, line in ipairs(out) do out[j] = indent .. line end
  return concat(out, "\n")
end

-- Statements, onto the end of `out`.
function block(p, depth, names, counters, out)
  local outer = names
  names = {table.unpack(names)}
  for _ = 1, random(3) do
    local k = random(8)
    if k <= 3 or (depth == 0 and k < 7) then
      out[#out + 1] = format("  %s = %s", any(p.vars), value(names))
    elseif k == 4 then
      p.n = p.n + 1
      out[#out + 1] = format("  local t%d = %s", p.n, value(names))
      names[#names + 1] = "t" .. p.n
    elseif k == 5 then
      out[#out + 1] = format("  if %s < %s then %s = %s else %s = %s end", any(names), any(names),
        any(p.vars), value(names), any(p.vars), value(names))
    elseif k == 6 then
      out[#out + 1] = format("  if %s > 0.9 then break end", any(names))
    elseif depth < 3 then
      out[#out + 1] = loop(p, depth, names, counters, "  ")
    end
  end
  if depth < 2 then out[#out + 1] = loop(p, depth, outer, counters, "  ") end
end

--- The text of a function, and some points: loops are short at the first.
function M.generate(seed, index)
  math.randomseed(seed, index)
  local p = {n = 0, vars = {"x", "y", "z"}}
  local out = {"return function(a, b)", "  local o = 0 * a", "  local x, y, z = a, 0.5 * b, a - b"}
  block(p, 0, {"a", "x", "y", "z"}, {}, out)
  out[#out + 1] = "  return x + 0.7 * y - 0.3 * z"
  out[#out + 1] = "end"
  local points = {}
  for k = 1, 12 do
    points[k] = {0.2 + random() * (k < 3 and 0.5 or 1.8), random() * (k < 3 and 1.5 or 6)}
  end
  return concat(out, "\n"), points
end

local function close(want, got, size)
  return want ~= want and got ~= got or math.abs(want - got) <= 1e-9 * (1 + size)
end

local function same(a, b) return a == b or (a ~= a and b ~= b) end

--- Compares the gradient of one function with that of its program: with all the memory it wants
-- and with little, natively and not. nil, or a text about what is wrong.
function M.check(self, seed, index)
  local ad = self.ad
  local text, points = M.generate(seed, index)
  local f = assert(load(text, "=program", "t", {ad = ad}))()
  local eager = ad.value_and_grad(f, {1, 2})
  local memory = random(150, 600) * 2 ^ random(0, 3) // 1 | 0
  local ways = {
    ad.compile(eager, {backend = "interpreter"}),
    ad.compile(eager, {backend = "interpreter", memory = memory}),
    ad.compile(eager, {backend = "native", memory = memory}),
    ad.value_and_grad(ad.compile(f, {memory = memory}), {1, 2}),
  }
  for round = 1, 2 do
    for i, x in ipairs(points) do
      local want = {eager(x[1], x[2])}
      local size = math.abs(want[1]) + math.abs(want[2]) + math.abs(want[3])
      local first, state
      for k, c in ipairs(ways) do
        local before = k <= 2 and c:stats()
        local got = {c(x[1], x[2])}
        local exact = before and round == 2
        if exact then -- if both have run, knowing the same paths
          local now = c:stats()
          local known = concat({now.traces, now.guards, now.loops}, " ")
          state = state or known
          exact = now.eager_calls == before.eager_calls and known == state
          if not exact then state = "" end
        end
        first = first or got
        for j = 1, 3 do
          if not close(want[j], got[j], size) or (exact and not same(first[j], got[j])) then
            return format("program %d, point %d (%.17g, %.17g), memory %d, way %d: "
              .. "number %d is %.17g, %.17g with all memory, %.17g\n%s", index, i, x[1], x[2],
              memory, k, j, want[j], first[j], got[j], text)
          end
        end
      end
    end
  end
  local columns = {ad.array{}, ad.array{}}
  for k = 1, 2 do
    local column = {}
    for i, x in ipairs(points) do column[i] = x[k] end
    columns[k] = ad.array(column)
  end
  local rows = {ways[2]:map(columns[1], columns[2])}
  for i, x in ipairs(points) do
    local want = {ways[1](x[1], x[2])}
    local size = math.abs(want[1]) + math.abs(want[2]) + math.abs(want[3])
    for j = 1, 3 do
      if not close(want[j], ad.value(rows[j][i]), size) then
        return format("program %d, point %d, map: number %d is %.17g, %.17g\n%s", index, i, j,
          want[j], ad.value(rows[j][i]), text)
      end
    end
  end
  local stats = ways[2]:stats()
  self.loops = self.loops + stats.loops
  self.recomputed = self.recomputed + (stats.rounds == "recomputed" and 1 or 0)
  self.stored = self.stored + (ways[1]:stats().rounds == "stored" and 1 or 0)
  self.eager = self.eager + stats.eager_calls
end

return M
