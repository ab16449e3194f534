--- Small dense matrices as lists of rows: what a few other modules and
-- examples need of linear algebra. Matrices are of plain numbers; a right
-- side may hold AD values where it says so.
local abs = require "autodiff.core".abs -- values of a program that is recorded have no other

local dense = {}

--- LU factors of a square matrix with partial pivoting, in place; the result
-- is the permutation of the rows, or nil if the matrix is singular.
function dense.lu(a)
  local n, perm = #a, {}
  for i = 1, n do perm[i] = i end
  for k = 1, n do
    local p = k
    for i = k + 1, n do
      if abs(a[i][k]) > abs(a[p][k]) then p = i end
    end
    a[k], a[p] = a[p], a[k]
    perm[k], perm[p] = perm[p], perm[k]
    if not (abs(a[k][k]) > 0) then return nil end
    for i = k + 1, n do
      local m = a[i][k] / a[k][k]
      a[i][k] = m
      for j = k + 1, n do a[i][j] = a[i][j] - m * a[k][j] end
    end
  end
  return perm
end

--- The x of A x = b from what `lu` made of A; b may hold AD values.
function dense.lusolve(lu, perm, b)
  local n, x = #lu, {}
  for i = 1, n do
    x[i] = b[perm[i]]
    for j = 1, i - 1 do x[i] = x[i] - lu[i][j] * x[j] end
  end
  for i = n, 1, -1 do
    for j = i + 1, n do x[i] = x[i] - lu[i][j] * x[j] end
    x[i] = x[i] / lu[i][i]
  end
  return x
end

--- The x of Aᵀ x = b, likewise.
function dense.lusolvetransposed(lu, perm, b)
  local n, x, out = #lu, {}, {}
  for i = 1, n do
    x[i] = b[i]
    for j = 1, i - 1 do x[i] = x[i] - lu[j][i] * x[j] end
    x[i] = x[i] / lu[i][i]
  end
  for i = n, 1, -1 do
    for j = i + 1, n do x[i] = x[i] - lu[j][i] * x[j] end
    out[perm[i]] = x[i]
  end
  return out
end

--- The x of A x = b, or nil if A is singular. Neither argument is changed.
function dense.solve(a, b)
  local lu = {}
  for i, row in ipairs(a) do lu[i] = table.move(row, 1, #row, 1, {}) end
  local perm = dense.lu(lu)
  return perm and dense.lusolve(lu, perm, b)
end

--- The norm of column j from row `from` (default 1) on. The squares of single
-- elements may overflow.
function dense.columnnorm(a, j, from)
  local largest = 0.0
  from = from or 1
  for i = from, #a do
    local x = math.abs(a[i][j])
    if not (x <= largest) then largest = x end
    if largest ~= largest then return largest end
  end
  if largest == 0 or largest - largest ~= 0 then return largest end
  local sum = 0.0
  for i = from, #a do sum = sum + (a[i][j] / largest) ^ 2 end
  return largest * math.sqrt(sum)
end

-- The Householder reflection that clears column j below its diagonal, applied
-- to the columns from j to `width`.
local function reflect(a, j, width)
  local norm = dense.columnnorm(a, j, j)
  if norm == 0 then return end
  if a[j][j] > 0 then norm = -norm end -- the sign without cancellation in a[j][j] - norm
  local v = {}
  for i = j, #a do v[i] = a[i][j] / norm end
  v[j] = v[j] - 1
  for column = j, width do
    local dot = 0.0
    for i = j, #a do dot = dot + v[i] * a[i][column] end
    local factor = dot / v[j]
    for i = j, #a do a[i][column] = a[i][column] + factor * v[i] end
  end
end

--- The QR factorization of a matrix with n columns, for least squares: the
-- rows {R | c}, R the triangle and c the first n numbers of Q'b. It works with
-- the condition of the matrix, where normal equations would square it. What
-- is below R's diagonal in the rows is rounding.
function dense.qr(a, b)
  local rows, n = {}, #a[1]
  for i, row in ipairs(a) do
    rows[i] = table.move(row, 1, n, 1, {})
    rows[i][n + 1] = b[i]
  end
  for i = #rows + 1, n do
    rows[i] = {}
    for j = 1, n + 1 do rows[i][j] = 0.0 end
  end
  for j = 1, n do reflect(rows, j, n + 1) end
  return table.move(rows, 1, n, 1, {})
end

--- The x of R x = c, for rows {R | c}.
function dense.backsolve(triangle)
  local n, x = #triangle, {}
  for i = n, 1, -1 do
    local sum = triangle[i][n + 1]
    for j = i + 1, n do sum = sum - triangle[i][j] * x[j] end
    x[i] = sum / triangle[i][i]
  end
  return x
end

return dense
