--- All operations on arrays with random operands, for the tests that run
-- through them. The list is the library's: what is defined with
-- autodiff.prim or joint.lua, and every row of the table of operations.
--
-- `M.cases()` is a list, by name, of
--
-- * `name`;
-- * `sample(rng)`: f and its operands, numbers and arrays. f is the operation
--   with all that it needs beside them; it has one result or several;
-- * `fixed`, which of the operands are no subject to derivatives, by position;
-- * `constant`: the derivatives are 0 by definition, whatever differences say;
-- * `single`: its result is the same for all of a batch;
-- * `lapack`: it takes LAPACK.
--
-- Operations without samples are in the list that is the second result.
local ad = require "autodiff"
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local arrays = require "support.array_samples"
local matrices = require "support.linalg_samples"

for _, name in ipairs { "array", "product", "linalg", "vmap", "leaves" } do
  require("autodiff." .. name)
end

local M = {}

local pack, unpack = table.pack, table.unpack

-- What is defined when it is needed first.
ad.jvp(ad.implicit { f = function(x, t) return x - t end, solve = function(t) return t end },
  { ad.ones(1) }, { ad.ones(1) })

-- Samples of what has none in the other lists.
local own = {}

-- An array of which some elements may be the same one in memory.
local function anyarray(rng, shape, draw)
  if #shape == 0 then return draw and draw() or rng() end
  if rng(4) > 1 then return arrays.array(rng, shape, draw) end
  local from = {}
  for d = 1, #shape do from[d] = rng(2) == 1 and math.min(shape[d], 1) or shape[d] end
  return ad.broadcast_to(arrays.contiguous(rng, from, draw), shape)
end

local function matrix(rng, m, n, noise)
  return arrays.array(rng, { m, n }, function() return noise * (2 * rng() - 1) end)
end

-- Orthogonal.
local function rotation(rng, n)
  if n == 0 then return ad.zeros(0, 0) end
  return (ad.linalg.qr(matrix(rng, n, n, 0.5) + ad.eye(n)))
end

-- Positive and well apart.
local function apart(rng, n)
  local list = {}
  for i = 1, n do list[i] = 0.7 * i + 0.1 * rng() end
  return n == 0 and ad.zeros(0) or ad.array(list)
end

-- The signs of vectors may jump from one matrix to the next. What does not are
-- sums over the vectors' products with themselves, each with its own weight.
local function squares(v)
  local n = v.shape[v.ndim]
  return ad.einsum("...ik,k,...jk->...ij", v, n > 0 and ad.arange(1, n) or ad.zeros(0), v)
end

function own.eigh(rng)
  local n = rng(0, 3)
  local q = rotation(rng, n)
  local a = (q * apart(rng, n)):matmul(q:transpose())
  return function(x)
    local w, v = prim.all.eigh.op(nil, x)
    return w, squares(v)
  end, a
end

function own.svd(rng)
  local m, n = rng(0, 3), rng(0, 3)
  local k = math.min(m, n)
  local a = rotation(rng, m)[{ {}, { 1, k } }] * apart(rng, k)
  a = a:matmul(rotation(rng, n)[{ {}, { 1, k } }]:transpose())
  return function(x)
    local u, s, vt = prim.all.svd.op(nil, x)
    return squares(u), s, (u * ad.arange(1, k)):matmul(vt)
  end, k == 0 and ad.zeros(m, n) or a
end

-- With its factors, through which no derivative goes.
function own.solve(rng)
  local _, a = matrices.inv(rng)
  local transposed, n = rng(2) == 1, a.shape[a.ndim]
  local b = arrays.array(rng, { n, rng(0, 3) })
  return function(x, y)
    return prim.all.solve.op(transposed, x, y, prim.all.lu.op("solve", x))
  end, a, b
end

for _, name in ipairs { "lu", "rcond", "scale" } do
  own[name] = function(rng)
    local _, a = matrices.inv(rng)
    local at = name == "lu" and "solve" or nil
    return function(x) return prim.all[name].op(at, x) end, a
  end
end

-- As it is called where operands or positions may be of a batch, or both.
function own.permute(rng)
  local at, x = arrays.samples.permute(rng)
  return function(v) return require("autodiff.shapes").permuted(at, v) end, x
end

-- Positions, which have no derivatives: nobody calls these with more than values.
for _, name in ipairs { "argmax", "argmin", "argsort" } do
  own[name] = function(rng)
    local at, x = arrays.samples.max(rng)
    if name == "argsort" then at = { axes = { rng(x.ndim) } } end
    return function(v) return prim.all[name].op(at, ad.stop(v)) end, x
  end
end

-- Its matrix is a constant, in lists.
function own.implicit_solve(rng)
  local dense = require "autodiff.dense"
  local n = rng(1, 3)
  local lu = (matrix(rng, n, n, 0.5) + ad.eye(n)):tolist()
  local at = { lu = lu, perm = dense.lu(lu), transposed = rng(2) == 1 }
  return function(b) return prim.all.implicit_solve.op(at, b) end, arrays.array(rng, { n })
end

-- Structures as vectors: of each leaf the shape, and where it is in how many.
local function placed(rng)
  local list, at, n = {}, {}, 0
  for i = 1, rng(3) do
    local x = rng(3) == 1 and rng() or arrays.array(rng, arrays.shape(rng, 1, 2))
    local plain = ad.type(x) == "array"
    list[i], at[i] = x, { first = n, shape = plain and x.shape or nil }
    n = n + (plain and x.size or 1)
  end
  for i = 1, #at do at[i].n = n end
  return list, at, n
end

function own.flat(rng)
  local list, at = placed(rng)
  return function(...) return prim.all.flat.op(at, ...) end, unpack(list)
end

function own.piece(rng)
  local _, at, n = placed(rng)
  return function(v) return prim.all.piece.op(at[1], v) end, arrays.array(rng, { n })
end

function own.place(rng)
  local list, at = placed(rng)
  return function(v) return prim.all.place.op(at[1], v) end, list[1]
end

-- One operand for each element of an array of the outer shape.
function own.merge(rng)
  local outer, inner = { rng(2), rng(2) }, rng(3) > 1 and arrays.shape(rng, 1, 2) or {}
  local at, list = { outer = outer, inner = inner, first = rng(2) == 1 }, {}
  for i = 1, outer[1] * outer[2] do
    list[i] = #inner == 0 and rng() or arrays.array(rng, inner)
  end
  return function(...) return prim.all.merge.op(at, ...) end, unpack(list)
end

-- Indices that may be of a batch are an operand.
local function indices(rng, n)
  if rng(4) == 1 then return rng(n) end
  return arrays.contiguous(rng, arrays.shape(rng, 1, 2, true), function() return rng(n) + 0.0 end)
end

function own.gather(rng)
  local x = arrays.array(rng, arrays.shape(rng, 1, 3, true))
  local at = { axis = rng(x.ndim) }
  return function(v, i) return prim.all.gather.op(at, v, i) end, x, indices(rng, x.shape[at.axis])
end

function own.ungather(rng)
  local shape = arrays.shape(rng, 1, 3, true)
  local at = { axis = rng(#shape), shape = shape }
  local i = indices(rng, shape[at.axis])
  local taken = ad.take(ad.zeros(shape), i, at.axis)
  local g = type(taken) == "number" and rng() or arrays.array(rng, taken.shape)
  return function(v, j) return prim.all.ungather.op(at, v, j) end, g, i
end

local fixed = { gather = { false, true }, ungather = { false, true } }

local constant = {
  lu = true, rcond = true, scale = true, argmax = true, argmin = true, argsort = true,
}

-- What is one number for all of a batch.
local single = { rcond = true }

local lapack = { lu = true, trisolve = true }
for name in pairs(ad.linalg) do lapack[name] = true end
for _, name in ipairs { "cofactor", "rcond" } do lapack[name] = true end

-- What gives `at` and operands, which may be in a list.
local function with(name, sample)
  return function(rng)
    local p = pack(sample(rng))
    local at, op = p[1], prim.all[name].op
    local list = type(p[2]) == "table" and p[2]
    local operands = list or table.move(p, 2, p.n, 1, {})
    return function(...)
      local y = list and op(at, { ... }) or pack(op(at, ...))
      if not list and y.n == 1 then y = y[1] end
      if type(y) == "table" then return unpack(y) end
      return y
    end, unpack(operands)
  end
end

-- A row of the table, element by element.
local function row(op)
  local f = core.rows[op.name]
  return function(rng)
    local full, operands, least = arrays.shape(rng), {}, rng(op.arity)
    if rng(8) == 1 then least = nil end -- nothing but numbers
    for i = 1, op.arity do
      local lo, hi = op.lo[i], op.hi[i]
      local function draw() return lo + (hi - lo) * rng() end
      if i ~= least and rng(6) == 1 then
        operands[i] = draw()
      else
        local shape = {}
        for d = rng(3) == 1 and rng(#full) or 1, #full do
          shape[#shape + 1] = rng(4) == 1 and 1 or full[d]
        end
        operands[i] = anyarray(rng, shape, draw)
      end
    end
    return f, unpack(operands)
  end
end

-- A row of which the operands are a list of numbers.
local function listrow(op)
  return function(rng)
    local operands = {}
    for i = 1, 2 * rng(3) do operands[i] = 0.3 + i * 0.2 + 0.05 * rng() end
    return function(...)
      local n = select("#", ...) // 2
      if op.name == "dot" then return ad.dot({ unpack({ ... }, 1, n) }, { select(n + 1, ...) }) end
      return ad[op.name] { ... }
    end, unpack(operands)
  end
end

-- Public functions that are more than one operation, or choose one.
local public = {}

function public.sort(rng)
  local _, x = arrays.samples.max(rng)
  local axis = rng(x.ndim)
  return function(v) return ad.sort(v, axis) end, x
end

function public.mean(rng)
  local at, x = arrays.samples.norm(rng)
  return function(v) return ad.mean(v, at.axes, at.keep) end, x
end

function public.tile(rng)
  local x, reps = arrays.array(rng, arrays.shape(rng)), {}
  for d = 1, rng(x.ndim + 1) do reps[d] = rng(0, 2) end
  return function(v) return ad.tile(v, reps) end, x
end

function public.outer(rng)
  return ad.outer, arrays.array(rng, arrays.shape(rng, 1, 2)),
    arrays.array(rng, arrays.shape(rng, 1, 2))
end

function public.dot(rng)
  local k, s, t = rng(0, 3), arrays.shape(rng, 1, 2), arrays.shape(rng, 1, 2)
  s[#s] = k
  t[math.max(1, #t - 1)] = k
  return ad.dot, arrays.array(rng, s), arrays.array(rng, t)
end

local sums = {
  "ij,jk->ik", "bij,bjk->bik", "ij->j", "ii->i", "ij,ij->", "i,j->ij", "ij,j,i->", "iji,j->i",
  "...i,i->...", "ij,jk,kl->li", "bi,bo,io->b", "ij->", "jik->ijk",
}

function public.einsum(rng)
  local spec, length, operands = sums[rng(#sums)], {}, {}
  for labels in spec:match("^[^-]+"):gmatch("[^,]+") do
    local shape = {}
    for label in labels:gsub("%.%.%.", "AB"):gmatch("%a") do
      length[label] = length[label] or rng(8) == 1 and 0 or rng(3)
      shape[#shape + 1] = length[label]
    end
    operands[#operands + 1] = anyarray(rng, shape)
  end
  return function(...) return ad.einsum(spec, ...) end, unpack(operands)
end

-- Positions that depend on the operand.
public["take of argsort"] = function(rng)
  local _, x = arrays.samples.max(rng)
  local n = x.shape[1]
  return function(v)
    local column = ad.reshape(v, { n, -1 })[{ {}, 1 }]
    return ad.take(v, ad.argsort(column), 1)
  end, x
end

public["where and comparisons"] = function(rng)
  local x = arrays.samples.max(rng) and select(2, arrays.samples.max(rng))
  return function(v, t)
    return ad.where(ad.lt(v, t), v * v, ad.log(v)) + ad.where(ad.le(t, v), t / v, 0)
  end, x, rng() * 0.04 + 0.15 + 0.3 * rng(4)
end

-- Rules of the user's: one of them, the other, both; and an argument that is shared.
local rules = {
  jvp = function(p, t) return 2 * p[1] * p[2] * t[1] + p[1] * p[1] * t[2] end,
  vjp = function(w, _, x, y) return 2 * x * y * w, ad.sum(x * x * w) end,
}

for name, has in pairs { ["custom, jvp"] = { "jvp" }, ["custom, vjp"] = { "vjp" },
  ["custom"] = { "jvp", "vjp" } } do
  local def = { name = name, f = function(x, y) return x * x * y end }
  for _, rule in ipairs(has) do def[rule] = rules[rule] end
  public[name] = function(rng)
    local x = arrays.array(rng, arrays.shape(rng, 1, 2))
    return ad.custom(def), x, rng() + 0.5
  end
end

public["list softmax"] = function(rng)
  local operands = {}
  for i = 1, rng(4) do operands[i] = rng() end
  return function(...) return unpack(ad.softmax { ... }) end, unpack(operands)
end

function M.cases()
  local cases, missing = {}, {}
  for name in pairs(prim.all) do
    local sample = own[name]
    local found = arrays.samples[name] or matrices[name]
    if not sample and type(found) == "function" then sample = with(name, found) end
    if sample then
      cases[#cases + 1] = { name = name, sample = sample, constant = constant[name],
        lapack = lapack[name], single = single[name],
        fixed = fixed[name] or {} }
    else
      missing[#missing + 1] = name
    end
  end
  for _, op in ipairs(core.ops()) do
    local held = {}
    -- an operand without a range is no subject either: conditions, orders
    for i = 1, op.arity do held[i] = op.lo[i] == op.hi[i] end
    cases[#cases + 1] = {
      name = (op.list and "list " or "row ") .. op.name,
      sample = op.list and listrow(op) or row(op), fixed = held,
    }
  end
  for name, sample in pairs(public) do
    cases[#cases + 1] = { name = "ad." .. name, sample = sample, fixed = {} }
  end
  table.sort(cases, function(a, b) return a.name < b.name end)
  table.sort(missing)
  return cases, missing
end

return M
