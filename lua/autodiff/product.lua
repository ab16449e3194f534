--- Products of arrays: matmul, dot, outer, einsum.
--
-- Matrices and batches of them are multiplied by BLAS where there is one (see
-- src/product.c); all other products are brought into that form by views.
local core = require "autodiff.core"
local prim = require "autodiff.prim"

local kernel = core.array
local define, shapeof = prim.define, prim.shapeof
local move = table.move

local M = {}

-- The module that has this one's functions too: loaded by the time they are called.
local function like(v, x) return require("autodiff.array").like(v, x) end
local function shape_changed(x, shape) return require("autodiff.array").reshape(x, shape) end
local function axes_changed(x, axes) return require("autodiff.array").transpose(x, axes) end

local function fail(...) kernel.fail(string.format(...)) end

local function badarg(n, name, why) fail("bad argument #%d to '%s' (%s)", n, name, why) end

--
-- Shapes
--

local function shapetext(shape) return "(" .. table.concat(shape or {}, ", ") .. ")" end

local function sameshape(s, t)
  if #s ~= #t then return false end
  for i = 1, #s do
    if s[i] ~= t[i] then return false end
  end
  return true
end

local function reshape(x, shape)
  if sameshape(shapeof(x), shape) then return x end
  return shape_changed(x, shape)
end

-- The axes of x in another order, unless it is the one that they have.
local function permute(x, axes)
  for i = 1, #axes do
    if axes[i] ~= i then return axes_changed(x, axes) end
  end
  return x
end

--- Matrices transposed.
local function transposed(x)
  local n = #shapeof(x)
  local axes = {}
  for i = 1, n do axes[i] = i end
  axes[n - 1], axes[n] = n, n - 1
  return axes_changed(x, axes)
end

local function volume(shape, from, to)
  local n = 1
  for i = from, to do n = n * shape[i] end
  return n
end

--- Lists one after the other.
local function joined(...)
  local all = {}
  for i = 1, select("#", ...) do
    local list = select(i, ...)
    move(list, 1, #list, #all + 1, all)
  end
  return all
end

--
-- Matrices
--

local product

-- The cotangents of matrices, or of batches of them, in their own shapes: g b^T and a^T g, where
-- what was repeated along a batch is summed over it.
local function leftcotangent(g, sa, b)
  local sg = shapeof(g)
  if #sa == 2 and #sg > 2 and #shapeof(b) == #sg then -- sum and product at once
    local n = #sg
    local axes = { n - 1 }
    for i = 1, n - 2 do axes[i + 1] = i end
    axes[n] = n
    local m, k, count = sa[1], sa[2], volume(sg, 1, n - 2) * sg[n]
    local rows = reshape(permute(g, axes), { m, count })
    return product(nil, rows, transposed(reshape(permute(b, joined({ n - 1 },
      move(axes, 2, n - 1, 1, {}), { n })), { k, count })))
  end
  return product(nil, g, transposed(b))
end

local function rightcotangent(g, sb, a)
  local sg, sa = shapeof(g), shapeof(a)
  if #sb == 2 and #sg > 2 and #sa == #sg then
    local n = #sg
    local count = volume(sg, 1, n - 1)
    return product(nil, transposed(reshape(a, { count, sa[n] })), reshape(g, { count, sg[n] }))
  end
  return product(nil, transposed(a), g)
end

local function reduced(v, shape)
  if sameshape(shapeof(v), shape) then return v end
  return like(v, { shape = shape })
end

-- Shape of an example.
local function example(x, mapped)
  local shape = shapeof(x)
  return mapped and move(shape, 2, #shape, 1, {}) or shape
end

local function batchproduct(op, at, size, mapped, a, b)
  local sa, sb = example(a, mapped[1]), example(b, mapped[2])
  if not mapped[2] and #sb <= 2 then return op(at, a, b) end -- more rows
  local function matrices(x, has, before, after)
    return reshape(x, has and joined({ size }, before, after) or joined(before, after))
  end
  if #sa == 1 then a = matrices(a, mapped[1], { 1 }, sa) end
  if #sb == 1 then b = matrices(b, mapped[2], sb, { 1 }) end
  local y = op(at, require("autodiff.vmap").aligned(mapped, a, b))
  local shape = shapeof(y)
  if #sb == 1 then shape[#shape] = nil end
  if #sa == 1 then table.remove(shape, #sb == 1 and #shape or #shape - 1) end
  return reshape(y, shape)
end

product = define {
  name = "matmul",
  keeps = "x",
  linear = true,
  batch = batchproduct,
  f = function(_, a, b) return kernel.matmul(a, b) end,
  vjp = function(i, g, _, _, a, b)
    local sa, sb = shapeof(a), shapeof(b)
    if #sa == 1 and #sb == 1 then return g * (i == 1 and b or a) end
    -- with vectors as the matrices that they stand for
    local sg = shapeof(g)
    local n = #sg
    if #sa == 1 then
      g = reshape(g, joined(move(sg, 1, n - 1, 1, {}), { 1, sg[n] }))
      sa = { 1, sa[1] }
    elseif #sb == 1 then
      g = reshape(g, joined(sg, { 1 }))
      sb = { sb[1], 1 }
    end
    if i == 1 then
      return reshape(reduced(leftcotangent(g, sa, reshape(b, sb)), sa), shapeof(a))
    end
    return reshape(reduced(rightcotangent(g, sb, reshape(a, sa)), sb), shapeof(b))
  end,
}

--
-- Arguments
--

local function checkarray(x, arg, name)
  if shapeof(x) then return end
  local what = core.type(x) or type(x)
  if what == "var" or what == "dual" then what = what .. " of a number" end
  badarg(arg, name, "array expected, got " .. what)
end

-- Numbers too.
local function checkvalue(x, arg, name)
  if not core.type(x) then checkarray(x, arg, name) end
end

--- The product of matrices; of the last two dimensions of each, with those
-- before them broadcast. A vector is a row on the left, a column on the right.
function M.matmul(a, b)
  if kernel.isplain(a) and kernel.isplain(b) then return kernel.matmul(a, b) end
  checkarray(a, 1, "matmul")
  checkarray(b, 2, "matmul")
  return product(nil, a, b)
end

--- Over the last dimension of a and the last but one of b (NumPy's dot).
function M.dot(a, b)
  checkvalue(a, 1, "dot")
  checkvalue(b, 2, "dot")
  local sa, sb = shapeof(a), shapeof(b)
  if not sa or not sb then return a * b end
  local na, nb = #sa, #sb
  local at = nb == 1 and 1 or nb - 1
  if sa[na] ~= sb[at] then
    fail("dot: shapes %s and %s do not align", shapetext(sa), shapetext(sb))
  end
  if nb <= 2 then return product(nil, a, b) end
  local axes = { at }
  for i = 1, nb do
    if i ~= at then axes[#axes + 1] = i end
  end
  local rest = move(axes, 2, nb, 1, {})
  for i = 1, nb - 1 do rest[i] = sb[rest[i]] end
  local k = sa[na]
  local y = product(nil, a, reshape(permute(b, axes), { k, volume(rest, 1, nb - 1) }))
  return reshape(y, joined(move(sa, 1, na - 1, 1, {}), rest))
end

--- Every element of a with every element of b.
function M.outer(a, b)
  checkarray(a, 1, "outer")
  checkarray(b, 2, "outer")
  local sa, sb = shapeof(a), shapeof(b)
  return reshape(a, { volume(sa, 1, #sa), 1 }) * reshape(b, { 1, volume(sb, 1, #sb) })
end

--
-- einsum
--

local undiagonal

-- The elements where two axes have the same index: a view without the second.
local diagonal = define {
  name = "diagonal",
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.diagonal(x, at[1], at[2]) end,
  batch = function(op, at, _, _, x) return op({ at[1] + 1, at[2] + 1 }, x) end,
  vjp = function(_, g, at, _, x) return undiagonal({ at[1], at[2], shapeof(x) }, g) end,
}

undiagonal = define {
  name = "undiagonal",
  keeps = "",
  linear = true,
  f = function(at, g) return kernel.undiagonal(at[3], at[1], at[2], g) end,
  batch = function(op, at, size, _, g)
    return op({ at[1] + 1, at[2] + 1, joined({ size }, at[3]) }, g)
  end,
  vjp = function(_, g, at) return diagonal(at, g) end,
}

local function badspec(spec, why)
  badarg(1, "einsum", ("'%s': %s"):format(spec, why))
end

-- "ij...,jk" as a list of labels for each operand; dimensions of an ellipsis have numbers for
-- labels, 0 the last one, so that they align as in broadcasting.
local function labels(spec, text, ndim)
  local list, at, dots = {}, 1, 0
  for _ in text:gmatch "%.%.%." do dots = dots + 1 end
  if dots > 1 then badspec(spec, "more than one ellipsis in an operand") end
  while at <= #text do
    local c = text:sub(at, at)
    if text:find("^%.%.%.", at) then
      local rest = (ndim or 0) - (#text - 3)
      for i = rest - 1, 0, -1 do list[#list + 1] = i end
      at = at + 3
    elseif c:find "%a" then
      list[#list + 1] = c
      at = at + 1
    else
      badspec(spec, ("'%s' is neither a letter nor part of an ellipsis"):format(c))
    end
  end
  return list, dots == 1
end

local function position(list, label)
  for i = 1, #list do
    if list[i] == label then return i end
  end
end

local function without(list, at)
  local rest = {}
  for i = 1, #list do
    if i ~= at then rest[#rest + 1] = list[i] end
  end
  return rest
end

local Term = {} -- a factor: x, and the labels of its axes

local function lengths(t)
  local shape, of = shapeof(t.x) or {}, {}
  for i = 1, #t.labels do of[t.labels[i]] = shape[i] end
  return of
end

-- In the order of the labels given, all of which it has.
function Term.ordered(t, list)
  if #list < 2 then return t.x end
  local axes = {}
  for i = 1, #list do axes[i] = position(t.labels, list[i]) end
  return permute(t.x, axes)
end

-- Summed over the labels that nobody needs.
function Term.summed(t, needed)
  local keep, drop = {}, {}
  for i = 1, #t.labels do
    local list = needed[t.labels[i]] and keep or drop
    list[#list + 1] = t.labels[i]
  end
  if #drop == 0 then return t end
  local of = lengths(t)
  local ones, shape = {}, {}
  for i = 1, #keep do ones[i], shape[i] = of[keep[i]], of[keep[i]] end
  for _ = 1, #drop do ones[#ones + 1] = 1 end
  local x = like(Term.ordered(t, joined(keep, drop)), #keep > 0 and { shape = ones } or 0.0)
  if #keep > 0 then x = reshape(x, shape) end
  return { x = x, labels = keep }
end

-- The product of two, summed over what is in both and not needed any more.
local function contract(s, t, needed)
  local ofs, oft = lengths(s), lengths(t)
  local batch, sum, left, right = {}, {}, {}, {}
  for _, label in ipairs(s.labels) do
    local list = not oft[label] and left or needed[label] and batch or sum
    list[#list + 1] = label
  end
  for _, label in ipairs(t.labels) do
    if not ofs[label] then right[#right + 1] = label end
  end
  local all = joined(batch, left, right)
  local shape = {}
  for i, label in ipairs(all) do shape[i] = ofs[label] or oft[label] end
  if #all > 8 then fail("einsum: at most 8 dimensions, also in between") end
  if #s.labels == 0 or #t.labels == 0 then
    return { x = s.x * t.x, labels = all }
  end
  if #sum == 0 then -- nothing but broadcasting
    local a, b = Term.ordered(s, joined(batch, left)), Term.ordered(t, joined(batch, right))
    if #left > 0 and #right > 0 then
      local wide = move(shape, 1, #batch + #left, 1, {})
      for _ = 1, #right do wide[#wide + 1] = 1 end
      a = reshape(a, wide)
    end
    if #left > 0 then
      local wide = move(shape, 1, #batch, 1, {})
      for _ = 1, #left do wide[#wide + 1] = 1 end
      b = reshape(b, move(shape, #batch + #left + 1, #shape, #wide + 1, wide))
    elseif #right > 0 then
      local wide = move(shape, 1, #batch, 1, {})
      for _ = 1, #right do wide[#wide + 1] = 1 end
      a = reshape(a, wide)
    end
    return { x = a * b, labels = all }
  end
  local function size(list)
    local n = 1
    for _, label in ipairs(list) do n = n * (ofs[label] or oft[label]) end
    return n
  end
  local k = size(sum)
  local function matrix(term, before, first, second, rows, columns)
    local x = Term.ordered(term, joined(before, first, second))
    local form = { rows, columns }
    if #before > 0 then form = { size(before), rows, columns } end
    return reshape(x, form)
  end
  local y
  if #all == 0 then
    y = product(nil, reshape(Term.ordered(s, sum), { k }), reshape(Term.ordered(t, sum), { k }))
  else
    y = reshape(product(nil, matrix(s, batch, left, sum, size(left), k),
      matrix(t, batch, sum, right, k, size(right))), shape)
  end
  return { x = y, labels = all }
end

-- The labels that some operand but these two has, or the result.
local function needs(terms, i, j, out)
  local needed = {}
  for _, label in ipairs(out) do needed[label] = true end
  for k, t in ipairs(terms) do
    if k ~= i and k ~= j then
      for _, label in ipairs(t.labels) do needed[label] = true end
    end
  end
  return needed
end

-- The pair whose product takes the least work, and then has the fewest elements.
local function cheapest(terms, out)
  local best, least, fewest
  for i = 1, #terms - 1 do
    for j = i + 1, #terms do
      local needed, seen, work, size = needs(terms, i, j, out), {}, 1, 1
      for _, t in ipairs { terms[i], terms[j] } do
        for label, n in pairs(lengths(t)) do
          if not seen[label] then
            seen[label] = true
            work = work * n
            if needed[label] then size = size * n end
          end
        end
      end
      if not best or work < least or (work == least and size < fewest) then
        best, least, fewest = { i, j }, work, size
      end
    end
  end
  return best[1], best[2]
end

-- What an operand is before the others are looked at: repeated labels are diagonals, and what is
-- repeated by broadcasting has no axis.
local function factor(x, list, of)
  local shape = shapeof(x) or {}
  for i = #list, 1, -1 do
    if shape[i] == 1 and of[list[i]] ~= 1 then
      list = without(list, i)
      shape = without(shape, i)
      x = #shape > 0 and reshape(x, shape) or x[{ 1 }]
    end
  end
  for i = #list, 1, -1 do
    local first = position(list, list[i])
    if first < i then
      x = diagonal({ first, i }, x)
      list = without(list, i)
    end
  end
  return { x = x, labels = list }
end

--- Sums of products by labels: einsum("ij,jk->ik", a, b) is matmul.
function M.einsum(spec, ...)
  if type(spec) ~= "string" then
    badarg(1, "einsum", "string expected, got " .. (core.type(spec) or type(spec)))
  end
  local operands = { n = select("#", ...), ... }
  local text = spec:gsub("%s", "")
  local inputs, output = text:match "^(.-)%->(.*)$"
  inputs = inputs or text
  local lists, of, count, most = {}, {}, {}, 0
  local first = {} -- the shape in which a label's length was found
  for part in (inputs .. ","):gmatch "(.-)," do lists[#lists + 1] = part end
  if #lists ~= operands.n then
    badspec(spec, ("%d operands, called with %d"):format(#lists, operands.n))
  end
  for i = 1, #lists do
    local x = operands[i]
    checkvalue(x, i + 1, "einsum")
    local shape = shapeof(x) or {}
    local list, dots = labels(spec, lists[i], #shape)
    if #list ~= #shape or (dots and #lists[i] - 3 > #shape) then
      fail("einsum: '%s' does not fit an array of shape %s", lists[i], shapetext(shape))
    end
    if dots then most = math.max(most, #shape - (#lists[i] - 3)) end
    for d, label in ipairs(list) do
      local n = of[label]
      if n and n ~= 1 and shape[d] ~= 1 and n ~= shape[d] then
        fail("einsum: '%s' is %d and %d long in shapes %s and %s", label, n, shape[d],
          shapetext(first[label]), shapetext(shape))
      end
      if n == nil or n == 1 then first[label] = shape end
      of[label] = (n == nil or n == 1) and shape[d] or n
      count[label] = (count[label] or 0) + 1
    end
    lists[i] = list
  end
  local out
  if output then
    out = labels(spec, output, most + #output - 3)
    local seen = {}
    for _, label in ipairs(out) do
      if not of[label] then badspec(spec, ("'%s' is in no operand"):format(label)) end
      if seen[label] then badspec(spec, ("'%s' is twice in the result"):format(label)) end
      seen[label] = true
    end
    if most > 0 and not output:find("...", 1, true) then
      badspec(spec, "the ellipsis is not in the result")
    end
  else -- the ellipsis, then what occurs once
    out = {}
    for i = most - 1, 0, -1 do out[#out + 1] = i end
    local once = {}
    for label, n in pairs(count) do
      if n == 1 and type(label) == "string" then once[#once + 1] = label end
    end
    table.sort(once)
    out = joined(out, once)
  end
  local terms = {}
  for i = 1, #lists do terms[i] = factor(operands[i], lists[i], of) end
  for i = 1, #terms do terms[i] = Term.summed(terms[i], needs(terms, i, i, out)) end
  while #terms > 1 do
    local i, j = cheapest(terms, out)
    local needed = needs(terms, i, j, out)
    local t = Term.summed(contract(terms[i], terms[j], needed), needed)
    table.remove(terms, j)
    terms[i] = t
  end
  return Term.ordered(terms[1], out)
end

return M
