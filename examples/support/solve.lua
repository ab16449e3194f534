-- Linear equations A x = b by Gaussian elimination with partial pivoting. `a` is a list of rows;
-- neither argument is changed. Nil if A is singular.
return function(a, b)
  local n, m = #b, {}
  for i = 1, n do
    m[i] = table.move(a[i], 1, n, 1, {})
    m[i][n + 1] = b[i]
  end
  for k = 1, n do
    local pivot = k
    for i = k + 1, n do
      if math.abs(m[i][k]) > math.abs(m[pivot][k]) then pivot = i end
    end
    m[k], m[pivot] = m[pivot], m[k]
    if not (math.abs(m[k][k]) > 0) then return nil end
    for i = k + 1, n do
      local factor = m[i][k] / m[k][k]
      for j = k, n + 1 do m[i][j] = m[i][j] - factor * m[k][j] end
    end
  end
  local x = {}
  for i = n, 1, -1 do
    local sum = m[i][n + 1]
    for j = i + 1, n do sum = sum - m[i][j] * x[j] end
    x[i] = sum / m[i][i]
  end
  return x
end
