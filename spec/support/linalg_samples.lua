--- Random operands for the operations of products and linear algebra, in the
-- form of array_samples: `samples[name](rng)` gives at, x1, ..., xn. What is
-- text in place of a function is why there is none.
local ad = require("autodiff")
local directions = require("support.directions")

local M = {}

local function pick(rng, ...) return (select(rng(select("#", ...)), ...)) end

-- Contiguous, or with the last two dimensions exchanged in memory, or every other element.
local function A(rng, ...)
  local shape = {...}
  local n = #shape
  local way = rng(3)
  if way == 1 or n < 2 then return directions.random(rng, shape) end
  if way == 2 then
    shape[n - 1], shape[n] = shape[n], shape[n - 1]
    local axes = {}
    for i = 1, n do axes[i] = i end
    axes[n - 1], axes[n] = n, n - 1
    return directions.random(rng, shape):transpose(axes)
  end
  local len = shape[n]
  shape[n] = 2 * len
  local key = {}
  for i = 1, n - 1 do key[i] = {} end
  key[n] = len > 0 and {1, 2 * len - 1, 2} or {}
  return directions.random(rng, shape)[key]
end

-- Dimensions before the last two, as a list.
local function batch(rng) return pick(rng, {}, {}, {2}, {1}, {3, 2}, {0}) end

local function with(list, ...)
  local all = {table.unpack(list)}
  for _, n in ipairs{...} do all[#all + 1] = n end
  return table.unpack(all)
end

local function length(rng) return pick(rng, 1, 2, 3, 4, 0) end

-- Square, and not near a singular one.
local function well(rng)
  local n = length(rng)
  return 0.5 * A(rng, with(batch(rng), n, n)) + 2 * ad.eye(n), n
end

function M.matmul(rng)
  local m, k, n = length(rng), length(rng), length(rng)
  local form = rng(6)
  if form == 1 then return nil, A(rng, k), A(rng, k) end
  if form == 2 then return nil, A(rng, with(batch(rng), m, k)), A(rng, k) end
  if form == 3 then return nil, A(rng, k), A(rng, with(batch(rng), k, n)) end
  if form == 4 then return nil, A(rng, 3, 1, m, k), A(rng, 2, k, n) end
  if form == 5 then return nil, A(rng, m, k), A(rng, with(batch(rng), k, n)) end
  return nil, A(rng, with(batch(rng), m, k)), A(rng, k, n)
end

function M.diagonal(rng)
  local n, m = length(rng), length(rng)
  if rng(2) == 1 then return {1, 2}, A(rng, n, n, m) end
  return {1, 3}, A(rng, n, m, n)
end

function M.undiagonal(rng)
  local n, m = length(rng), length(rng)
  return {1, 3, {n, m, n}}, A(rng, n, m)
end

function M.triangle(rng)
  return {pick(rng, 0, -1, 1), pick(rng, 1.0, 0.5)},
    A(rng, with(batch(rng), length(rng), length(rng)))
end

function M.trisolve(rng)
  local l, n = well(rng)
  return rng(2) == 1, l, A(rng, n, length(rng))
end

function M.inv(rng) return nil, (well(rng)) end
M.slogdet = M.inv

-- Singular ones as well.
function M.det(rng)
  local n = length(rng)
  local a = A(rng, with(batch(rng), n, n))
  if rng(3) == 1 then a = ad.ones(n, 1) * A(rng, with(batch(rng), 1, n)) end
  return nil, a
end
M.cofactor = M.det

function M.cholesky(rng)
  local a, n = well(rng)
  local axes = {}
  for i = 1, a.ndim do axes[i] = i end
  axes[a.ndim - 1], axes[a.ndim] = a.ndim, a.ndim - 1
  return nil, a:matmul(a:transpose(axes)) + ad.eye(n)
end

-- Columns that are well apart from each other: 1, 2, 3, ... and small disturbances.
function M.qr(rng)
  local m, n = length(rng), length(rng)
  local a = 0.2 * A(rng, with(batch(rng), m, n))
  local k = math.min(m, n)
  if k == 0 then return nil, a end
  local values = {}
  for i = 1, n do values[i] = i + 0.0 end
  return nil, a + ad.eye(m, n) * ad.array(values)
end

function M.lstsq(rng)
  local m, n = rng(4), rng(4)
  return nil, 0.5 * A(rng, m, n) + 2 * ad.eye(m, n), A(rng, m, rng(3))
end

M.eigh = "the signs of vectors may jump from one matrix to the next: linalg_spec holds them fast"
M.svd = M.eigh
M.solve = "its factors are an operand that belongs to another one: linalg_spec has it"
M.lu = "its derivative is given to the matrix by solve"
M.rcond = "an estimate by which a formula is chosen, whose derivative is 0 by definition"
M.scale = "a number to divide by, whose derivative is 0 by definition"

return M
