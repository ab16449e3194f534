--- Linear algebra: `ad.linalg`.
--
-- Values come from LAPACK (src/linalg.c), derivatives from the rules here,
-- which are operations on arrays themselves. Sources: M. Giles, "An extended
-- collection of matrix derivative results for forward and reverse mode
-- algorithmic differentiation" (2008), for solve, inv, det, eigh and svd;
-- I. Murray, "Differentiation of the Cholesky decomposition" (2016);
-- J. Townsend, "Differentiating the singular value decomposition" (2016);
-- S. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra
-- functions with application in optimum experimental design" (2010), for qr;
-- G. Golub and V. Pereyra, "The differentiation of pseudo-inverses and
-- nonlinear least squares problems whose variables separate" (1973), for lstsq.
local core = require "autodiff.core"
local prim = require "autodiff.prim"
local array = require "autodiff.array"

local kernel = core.array
local shapetext = require "autodiff.arrayargs".shapetext
local define, shapeof = prim.define, prim.shapeof
local matmul, like, eye = array.matmul, array.like, kernel.eye
local where, le = core.where, core.le
local reshape = array.reshape

local M = {}

--
-- Shapes
--

-- Matrices transposed.
local function T(x)
  local n = #shapeof(x)
  local axes = {}
  for i = 1, n do axes[i] = i end
  axes[n - 1], axes[n] = n, n - 1
  return array.transpose(x, axes)
end

local function withshape(shape, drop, ...)
  local s = table.move(shape, 1, #shape - drop, 1, {})
  for i = 1, select("#", ...) do s[#s + 1] = (select(i, ...)) end
  return s
end

-- One number for each matrix, in a form that is broadcast over it.
local function permatrix(x)
  local shape = shapeof(x)
  if not shape then return x end
  return reshape(x, withshape(shape, 0, 1, 1))
end

-- Vectors as columns, and as rows.
local function columns(x) return reshape(x, withshape(shapeof(x), 0, 1)) end
local function rows(x)
  local shape = shapeof(x)
  return reshape(x, withshape(shape, 1, 1, shape[#shape]))
end

-- The sum over each matrix.
local function total(x)
  local shape = shapeof(x)
  if #shape == 2 then return like(x, 0.0) end
  return reshape(like(x, { shape = withshape(shape, 2, 1, 1) }), withshape(shape, 2))
end

-- The diagonals of (square) matrices, and such matrices.
local function diagonal(x)
  local shape = shapeof(x)
  local n = shape[#shape]
  local sums = like(x * eye(n), { shape = withshape(shape, 1, 1) })
  return reshape(sums, withshape(shape, 1))
end

local function diagonally(x)
  local shape = shapeof(x)
  return columns(x) * eye(shape[#shape])
end

local function symmetric(x) return (x + T(x)) / 2 end

-- Rules for vmap: what is done for each of the matrices is done for those of a batch too.
local function leading(op, at, _, _, x) return op(at, x) end
local function aligned(op, at, _, mapped, ...)
  return op(at, require("autodiff.vmap").aligned(mapped, ...))
end

local function iszero(x) return type(x) == "number" and x == 0 end

--
-- Triangles
--

-- What is on and below a diagonal (0 the main one), which may be scaled.
local triangle
triangle = define {
  name = "triangle",
  batch = leading,
  keeps = "",
  linear = true,
  f = function(at, x) return kernel.triangle(x, at[1], at[2]) end,
  vjp = function(_, g, at) return triangle(at, g) end,
}

local whole, strict, halved = { 0, 1.0 }, { -1, 1.0 }, { 0, 0.5 }
local function lower(x) return triangle(whole, x) end

-- Solves with lower triangles: l x = b, or l^T x = b.
local trisolve
trisolve = define {
  name = "trisolve",
  batch = aligned,
  f = function(transposed, l, b) return kernel.trisolve(l, b, transposed) end,
  jvp = function(i, d, transposed, y, l)
    if i == 2 then return like(trisolve(transposed, l, d), y) end
    d = lower(d)
    return -trisolve(transposed, l, matmul(transposed and T(d) or d, y))
  end,
  vjp = function(i, g, transposed, y, l, b)
    local gb = trisolve(not transposed, l, g)
    if i == 2 then return like(gb, b) end
    local gl = transposed and matmul(y, T(gb)) or matmul(gb, T(y))
    return like(-lower(gl), l)
  end,
}

--
-- Systems of equations
--

-- The factors are an operand of what solves with them, so that a derivative does not factorise
-- again; they have none themselves, as all of it is given to the matrix.
local factors = define {
  name = "lu",
  batch = leading,
  keeps = "",
  f = function(who, a) return kernel.lu(a, who) end,
  jvp = function() return 0.0 end,
  vjp = function() return 0.0 end,
}

local solve
solve = define {
  name = "solve",
  batch = aligned,
  f = function(transposed, _, b, lu) return kernel.lusolve(lu, b, transposed) end,
  jvp = function(i, d, transposed, y, a, _, lu)
    if i == 3 then return 0.0 end
    if i == 2 then return like(solve(transposed, a, d, lu), y) end
    return -solve(transposed, a, matmul(transposed and T(d) or d, y), lu)
  end,
  vjp = function(i, g, transposed, y, a, b, lu)
    if i == 3 then return 0.0 end
    local gb = solve(not transposed, a, g, lu)
    if i == 2 then return like(gb, b) end
    return like(-(transposed and matmul(y, T(gb)) or matmul(gb, T(y))), a)
  end,
}

local inv = define {
  name = "inv",
  batch = leading,
  keeps = "y",
  f = function(_, a) return kernel.inv(a) end,
  jvp = function(_, d, _, y) return -matmul(matmul(y, d), y) end,
  vjp = function(_, g, _, y)
    local t = T(y)
    return -matmul(matmul(t, g), t)
  end,
}

--
-- Determinants
--

-- The condition decides how a derivative is computed, not what it is.
local rcond = define {
  name = "rcond",
  batch = leading,
  shared = true,
  keeps = "",
  f = function(_, a) return kernel.rcond(a) end,
  jvp = function() return 0.0 end,
  vjp = function() return 0.0 end,
}

-- Of each matrix the greatest absolute value, or 1 if that is 0: what others are measured by, and
-- divided by where it makes no difference to the result.
local scale = define {
  name = "scale",
  batch = leading,
  keeps = "",
  f = function(_, a) return kernel.scale(a) end,
  jvp = function() return 0.0 end,
  vjp = function() return 0.0 end,
}

-- The derivative of the cofactors along d, from the recurrence of Faddeev and LeVerrier for the
-- adjugate: products and traces only, so that it holds for singular matrices, to any order. The
-- matrix is scaled; what the recurrence cancels grows with its size.
local function faddeev(a, d)
  local shape = shapeof(a)
  local n = shape[#shape]
  local one = eye(n)
  local size = scale(nil, a)
  a, d = a / size, d / size
  local m, dm, sign = one, 0.0, 1
  for k = 1, n - 1 do
    local am = matmul(a, m)
    local dam = matmul(d, m)
    if k > 1 then dam = dam + matmul(a, dm) end
    m = am - permatrix(total(am * one)) / k * one
    dm = dam - permatrix(total(dam * one)) / k * one
    sign = -sign
  end
  if n == 1 then return d * 0.0 end
  return T(dm) * (sign * size ^ (n - 1))
end

-- Whether that formula is to be taken: for all matrices of a batch at once.
local function nearsingular(a)
  a = core.stop(a)
  local key, kind = core.highest(a)
  while kind == "batch" do
    a = kernel.inside(key, a)
    key, kind = core.highest(a)
  end
  return rcond(nil, a) < 1e-5
end

local cofactor
cofactor = define {
  name = "cofactor",
  batch = leading,
  f = function(_, a) return kernel.cofactor(a) end,
  jvp = function(_, d, _, y, a)
    if nearsingular(a) then return faddeev(a, d) end
    local det = permatrix(total(a * y)) / shapeof(a)[#shapeof(a)]
    return (permatrix(total(y * d)) * y - matmul(matmul(y, T(d)), y)) / det
  end,
  -- second derivatives are symmetric
  vjp = function(_, g, at, y, a) return prim.all.cofactor.def.jvp(1, g, at, y, a) end,
}

local det = define {
  name = "det",
  batch = leading,
  keeps = "x",
  f = function(_, a) return kernel.det(a) end,
  jvp = function(_, d, _, _, a) return total(cofactor(nil, a) * d) end,
  vjp = function(_, g, _, _, a) return permatrix(g) * cofactor(nil, a) end,
}

local slogdet = define {
  name = "slogdet",
  batch = leading,
  keeps = "x",
  f = function(_, a) return kernel.slogdet(a) end,
  jvp = function(_, d, _, _, a)
    local t = T(solve(false, a, d, factors("slogdet", a)))
    return { 0.0, total(t * eye(shapeof(t)[#shapeof(t)])) }
  end,
  vjp = function(_, g, _, _, a)
    if iszero(g[2]) then return 0.0 end
    local one = eye(shapeof(a)[#shapeof(a)])
    return permatrix(g[2]) * solve(true, a, one, factors("slogdet", a))
  end,
}

--
-- Factorisations
--

local cholesky = define {
  name = "cholesky",
  batch = leading,
  keeps = "y",
  f = function(_, a) return kernel.cholesky(a) end,
  jvp = function(_, d, _, l)
    local inner = trisolve(false, l, T(trisolve(false, l, symmetric(d))))
    return matmul(l, triangle(halved, inner))
  end,
  vjp = function(_, g, _, l)
    local p = triangle(halved, matmul(T(l), g))
    local s = trisolve(true, l, T(trisolve(true, l, T(p))))
    return symmetric(s)
  end,
}

-- The parts of the rules for m >= n: r is square. x r = b, and x r^T = b.
local function right(r, b) return T(trisolve(false, T(r), T(b))) end
local function righttransposed(r, b) return T(trisolve(true, T(r), T(b))) end

local function qrtall_jvp(d, q, r)
  local c = right(r, d)
  local qc = matmul(T(q), c)
  local below = triangle(strict, qc)
  local turn = below - T(below)
  return matmul(q, turn - qc) + c, matmul(qc - turn, r)
end

local function qrtall_vjp(gq, gr, q, r)
  local m = 0.0
  if not iszero(gr) then m = matmul(r, T(gr)) end
  if not iszero(gq) then m = m - matmul(T(gq), q) end
  local below = triangle(strict, m)
  local sym = triangle(whole, m) + T(below)
  local b = matmul(q, sym)
  if not iszero(gq) then b = b + gq end
  return righttransposed(r, b)
end

-- Columns of the identity, by which the first m columns are told from the rest.
local function halves(m, n)
  local all = eye(n)
  return all[{ {}, { 1, m } }], all[{ {}, { m + 1, n } }]
end

local qr = define {
  name = "qr",
  batch = leading,
  f = function(_, a) return kernel.qr(a) end,
  jvp = function(_, d, _, y, a)
    local q, r = y[1], y[2]
    local shape = shapeof(a)
    local m, n = shape[#shape - 1], shape[#shape]
    if m >= n then return { qrtall_jvp(d, q, r) } end
    local first, rest = halves(m, n)
    local dq, du = qrtall_jvp(matmul(d, first), q, matmul(r, first))
    local dv = matmul(T(dq), matmul(a, rest)) + matmul(T(q), matmul(d, rest))
    return { dq, matmul(du, T(first)) + matmul(dv, T(rest)) }
  end,
  vjp = function(_, g, _, y, a)
    local q, r, gq, gr = y[1], y[2], g[1], g[2]
    local shape = shapeof(a)
    local m, n = shape[#shape - 1], shape[#shape]
    if m >= n then return qrtall_vjp(gq, gr, q, r) end
    local first, rest = halves(m, n)
    local gu, gy = 0.0, nil
    if not iszero(gr) then
      local gv = matmul(gr, rest)
      gu, gy = matmul(gr, first), matmul(q, gv)
      local more = matmul(matmul(a, rest), T(gv))
      gq = iszero(gq) and more or gq + more
    end
    local ga = matmul(qrtall_vjp(gq, gu, q, matmul(r, first)), T(first))
    if gy then ga = ga + matmul(gy, T(rest)) end
    return ga
  end,
}

-- 1 / x, but 0 where x is 0 for all that rounding lets one tell: what would be infinite there
-- belongs to vectors that are not determined.
local function inverted(x, tolerance)
  local none = le(core.abs(x), tolerance)
  return where(none, 0.0, 1 / where(none, 1.0, x))
end

local function rounding(w)
  local shape = shapeof(w)
  return scale(nil, rows(w)) * (16 * shape[#shape] * 2.0 ^ -52)
end

-- 1 / (w[j] - w[i]) at [i, j].
local function gaps(w) return inverted(rows(w) - columns(w), rounding(w)) end

local eigh = define {
  name = "eigh",
  batch = leading,
  keeps = "y",
  f = function(_, a) return kernel.eigh(a) end,
  jvp = function(_, d, _, y)
    local w, v = y[1], y[2]
    local p = matmul(matmul(T(v), symmetric(d)), v)
    return { diagonal(p), matmul(v, gaps(w) * p) }
  end,
  vjp = function(_, g, _, y)
    local w, v = y[1], y[2]
    local inner = 0.0
    if not iszero(g[1]) then inner = diagonally(g[1]) end
    if not iszero(g[2]) then inner = inner + gaps(w) * matmul(T(v), g[2]) end
    if iszero(inner) then return 0.0 end
    return symmetric(matmul(matmul(v, inner), T(v)))
  end,
}

-- 1 / (s[j]^2 - s[i]^2) at [i, j].
local function squaregaps(s)
  return gaps(s) * inverted(rows(s) + columns(s), rounding(s))
end

-- x without what is in the span of the (orthonormal) columns of u, if there is more than that.
local function beyond(u, x)
  local shape = shapeof(u)
  if shape[#shape - 1] == shape[#shape] then return nil end
  return x - matmul(u, matmul(T(u), x))
end

local svd = define {
  name = "svd",
  batch = leading,
  keeps = "y",
  f = function(_, a) return kernel.svd(a) end,
  jvp = function(_, d, _, y)
    local u, s, vt = y[1], y[2], y[3]
    local v, f, inverse = T(vt), squaregaps(s), inverted(rows(s), rounding(s))
    local dv, du = matmul(d, v), matmul(T(d), u)
    local p = matmul(T(u), dv)
    local ut = matmul(u, f * (p * rows(s) + columns(s) * T(p)))
    local wt = matmul(v, f * (columns(s) * p + T(p) * rows(s)))
    local more = beyond(u, dv)
    if more then ut = ut + more * inverse end
    more = beyond(v, du)
    if more then wt = wt + more * inverse end
    return { ut, diagonal(p), T(wt) }
  end,
  vjp = function(_, g, _, y)
    local u, s, vt = y[1], y[2], y[3]
    local v, inner, outer = T(vt), 0.0, 0.0
    if not iszero(g[2]) then inner = diagonally(g[2]) end
    if not iszero(g[1]) then
      local p = matmul(T(u), g[1])
      inner = inner + squaregaps(s) * (p - T(p)) * rows(s)
      local more = beyond(u, g[1])
      if more then outer = matmul(more * inverted(rows(s), rounding(s)), vt) end
    end
    if not iszero(g[3]) then
      local gv = T(g[3])
      local p = matmul(vt, gv)
      inner = inner + columns(s) * squaregaps(s) * (p - T(p))
      local more = beyond(v, gv)
      if more then outer = outer + matmul(u, T(more * inverted(rows(s), rounding(s)))) end
    end
    if iszero(inner) then return 0.0 end
    return matmul(matmul(u, inner), vt) + outer
  end,
}

--
-- Least squares. With p for the pseudo-inverse and r for the residual,
--   dx = p (db - da x) + p p^T da^T r + (1 - p a) da^T p^T x,
-- as long as the rank does not change.
--

local lstsq
lstsq = define {
  name = "lstsq",
  f = function(_, a, b) return kernel.lstsq(a, b) end,
  jvp = function(i, d, _, x, a, b)
    if i == 2 then return lstsq(nil, a, d) end
    local dt = T(d)
    local along = lstsq(nil, T(a), matmul(dt, b - matmul(a, x)))
    local off = matmul(dt, lstsq(nil, T(a), x))
    return lstsq(nil, a, along - matmul(d, x)) + off - lstsq(nil, a, matmul(a, off))
  end,
  vjp = function(i, g, _, x, a, b)
    local gb = lstsq(nil, T(a), g)
    if i == 2 then return gb end
    local off = g - lstsq(nil, a, matmul(a, g))
    return matmul(b - matmul(a, x), T(lstsq(nil, a, gb))) - matmul(gb, T(x))
      + matmul(lstsq(nil, T(a), x), T(off))
  end,
}

--
-- What users call
--

local function checkarray(x, arg, name)
  if shapeof(x) then return end
  local what = core.type(x) or type(x)
  if what == "var" or what == "dual" then what = what .. " of a number" end
  kernel.fail(("bad argument #%d to '%s' (array expected, got %s)"):format(arg, name, what))
end

for name, op in pairs {
  inv = inv, det = det, slogdet = slogdet, cholesky = cholesky, qr = qr, svd = svd, eigh = eigh,
} do
  M[name] = function(a)
    checkarray(a, 1, name)
    return op(nil, a)
  end
end

-- f(a, b) for a matrix b; a vector is a matrix of one column.
local function forvector(f, a, b, name)
  local shape, of = shapeof(b), shapeof(a)
  if #shape > 1 then return f(a, b) end
  if #of > 1 and of[#of - 1] ~= shape[1] then -- named as it was given
    kernel.fail(("%s: shapes %s and %s do not align"):format(name, shapetext(of), shapetext(shape)))
  end
  local x = f(a, reshape(b, { shape[1], 1 }))
  return reshape(x, withshape(shapeof(x), 1))
end

local function solution(a, b) return solve(false, a, b, factors("solve", a)) end

--- x with a x = b.
function M.solve(a, b)
  checkarray(a, 1, "solve")
  checkarray(b, 2, "solve")
  return forvector(solution, a, b, "solve")
end

--- x with the least sum of squares of a x - b; of these the one of least norm.
function M.lstsq(a, b)
  checkarray(a, 1, "lstsq")
  checkarray(b, 2, "lstsq")
  return forvector(function(...) return lstsq(nil, ...) end, a, b, "lstsq")
end

return M
