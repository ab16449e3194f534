--- Every operation on arrays against NumPy, when there is a Python that has it.
--
-- One line per operation and case: `line(names, python, lua, inputs...)` says which operations it
-- is about (names of the table of operations and of autodiff.prim), NumPy's expression as a lambda
-- of the inputs, and the same here. What has no line needs a reason below.

local ad = require("autodiff")
local core = require("autodiff.core")
local numpy = require("support.numpy")
local directions = require("support.directions")

local unpack = table.unpack

---------------------------------------------------------------------------
-- Inputs

local seed = 20
local function random()
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
end

local function A(shape, from, to) return directions.random(random, shape, from, to) end

local inf, nan = math.huge, 0 / 0

local lines, covered = {}, {}

local function line(names, python, lua, ...)
  for name in names:gmatch("%S+") do covered[name] = true end
  lines[#lines + 1] = {names = names, python = python, lua = lua, inputs = {...}}
end

-- The same with results that are equal up to the signs of rows or columns.
local function unsigned(names, python, lua, ...)
  line(names, python, lua, ...)
  lines[#lines].unsigned = true
end

-- Operations that need LAPACK.
local lapack = select(2, core.array.blas()) ~= nil
local function solving(...)
  line(...)
  lines[#lines].lapack = true
end

---------------------------------------------------------------------------
-- Element by element

local special = ad.array{0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 0.5, -2.5, 1e300, 1e-300}

local function one(name, python, from, to, lua)
  lua = lua or ad[name]
  line(name, python, lua, A({3, 4}, from, to))
  line(name, python, lua, special)
  line(name, python, lua, A({2, 0}))
end

local function two(name, python, from, to, lua)
  lua = lua or ad[name]
  line(name, python, lua, A({3, 4}, from, to), A({3, 4}, from, to))
  line(name, python, lua, A({3, 1}, from, to), A({4}, from, to))
  line(name, python, lua, A({2, 3, 1}, from, to), 1.5)
  line(name, python, lua, 0.75, A({2}, from, to))
  line(name, python, lua, special, A({1}, 0.5, 1))
  line(name, python, lua, A({0, 3}, from, to), A({3}, from, to))
end

one("unm", "lambda x: -x", -2, 2, function(x) return -x end)
two("add", "lambda x, y: x + y", -2, 2, function(x, y) return x + y end)
two("sub", "lambda x, y: x - y", -2, 2, function(x, y) return x - y end)
two("mul", "lambda x, y: x * y", -2, 2, function(x, y) return x * y end)
two("div", "lambda x, y: x / y", -2, 2, function(x, y) return x / y end)
one("exp", "np.exp", -5, 5)
one("exp2", "np.exp2", -5, 5)
one("expm1", "np.expm1", -2, 2)
one("log", "np.log", 0.1, 9)
one("log1p", "np.log1p", -0.9, 2)
one("log2", "np.log2", 0.1, 9)
one("log10", "np.log10", 0.1, 9)
line("logb", "lambda x: np.log(x) / np.log(3.0)", function(x) return ad.log(x, 3) end,
  A({5}, 0.1, 9))
one("sqrt", "np.sqrt", 0, 9)
one("cbrt", "np.cbrt", -9, 9)
one("sin", "np.sin", -9, 9)
one("cos", "np.cos", -9, 9)
one("tan", "np.tan", -1.5, 1.5)
one("asin", "np.arcsin", -1, 1)
one("acos", "np.arccos", -1, 1)
one("atan", "np.arctan", -3, 3)
two("atan2", "np.arctan2", -3, 3)
two("hypot", "np.hypot", -3, 3)
one("deg", "np.degrees", -9, 9)
one("rad", "np.radians", -400, 400)
one("sinh", "np.sinh", -3, 3)
one("cosh", "np.cosh", -3, 3)
one("tanh", "np.tanh", -3, 3)
one("asinh", "np.arcsinh", -3, 3)
one("acosh", "np.arccosh", 1, 9)
one("atanh", "np.arctanh", -1, 1)
line("erf", "vec(math.erf)", ad.erf, A({3, 4}, -3, 3))
line("erfc", "vec(math.erfc)", ad.erfc, A({3, 4}, -3, 3))
line("lgamma", "vec(math.lgamma)", ad.lgamma, A({3, 4}, 0.1, 9))
line("sigmoid", "lambda x: 1 / (1 + np.exp(-x))", ad.sigmoid, A({3, 4}, -9, 9))
line("softplus", "lambda x: np.logaddexp(0, x)", ad.softplus, A({3, 4}, -9, 9))
one("abs", "np.abs", -2, 2)
one("sign", "np.sign", -2, 2)
one("relu", "lambda x: np.maximum(x, 0)", -2, 2)
line("trunc modf", "np.trunc", function(x) return (ad.modf(x)) end, A({3, 4}, -9, 9))
one("floor", "np.floor", -9, 9)
one("ceil", "np.ceil", -9, 9)
two("max maximum", "np.maximum", -2, 2, ad.maximum)
two("min minimum", "np.minimum", -2, 2, ad.minimum)
two("lt", "lambda x, y: x < y", -1, 1)
two("le", "lambda x, y: x <= y", -1, 1)
two("eq", "lambda x, y: x == y", -1, 1)
line("mod", "np.mod", function(x, y) return x % y end, A({3, 4}, -9, 9), A({4}, -2, 2))
line("idiv", "np.floor_divide", function(x, y) return x // y end, A({3, 4}, -9, 9), A({4}, -2, 2))
line("fmod", "np.fmod", ad.fmod, A({3, 4}, -9, 9), A({4}, -2, 2))
line("pow", "np.power", function(x, y) return x ^ y end, A({3, 4}, 0, 3), A({3, 1}, -2, 2))
line("pow", "np.power", ad.pow, A({3, 4}, -3, 3), 3.0)
line("clamp", "np.clip", ad.clamp, A({3, 4}, -3, 3), -1.0, 1.0)
line("clamp", "np.clip", ad.clamp, A({3, 4}, -3, 3), A({3, 1}, -2, -1), A({4}, 0, 1))
line("where", "lambda c, x, y: np.where(c > 0, x, y)", function(c, x, y)
  return ad.where(ad.lt(0, c), x, y)
end, A({3, 1}), A({4}), A({3, 4}))

---------------------------------------------------------------------------
-- Parts and shapes

line("index", "lambda x: x[1]", function(x) return x[2] end, A({3, 4}))
line("index", "lambda x: x[-1, 1]", function(x) return x[{-1, 2}] end, A({3, 4}))
line("index", "lambda x: x[0:2, ::-1]", function(x) return x[{{1, 2}, {-1, 1, -1}}] end, A({3, 4}))
line("put", "lambda x: np.pad(x[1:2], ((1, 1), (0, 0)))", function(x)
  local y = ad.zeros(x.shape)
  y[2] = x[2]
  return y
end, A({3, 4}))
line("array", "lambda x, y: np.array([x, y])", function(x, y) return ad.array{x, y} end,
  A({3}), A({3}))
line("reshape", "lambda x: x.T.reshape(2, 6)", function(x)
  return x:transpose{2, 1}:reshape{2, 6}
end, A({3, 4}))
line("reshape", "lambda x: x.reshape(2, -1)", function(x) return x:reshape(2, -1) end, A({3, 4}))
line("transpose", "lambda x: x.transpose(2, 0, 1)", function(x) return x:transpose{3, 1, 2} end,
  A({2, 3, 4}))
line("transpose", "np.transpose", ad.transpose, A({2, 3, 4}))
line("squeeze", "np.squeeze", ad.squeeze, A({2, 1, 3, 1}))
line("squeeze", "lambda x: np.squeeze(x, 1)", function(x) return x:squeeze(2) end, A({2, 1, 3, 1}))
line("expand_dims", "lambda x: np.expand_dims(x, 1)", function(x) return x:expand_dims(2) end,
  A({2, 3}))
line("expand_dims", "lambda x: np.expand_dims(x, -1)", function(x) return x:expand_dims(-1) end,
  A({2, 3}))
line("broadcast_to", "lambda x: np.broadcast_to(x, (4, 2, 3))", function(x)
  return x:broadcast_to{4, 2, 3}
end, A({2, 1}))
line("concat", "lambda x, y: np.concatenate([x, y], 0)", function(x, y)
  return ad.concat({x, y}, 1)
end, A({2, 3}), A({4, 3}))
line("concat", "lambda x, y: np.concatenate([x, y], -1)", function(x, y)
  return ad.concat({x, y}, -1)
end, A({2, 3}), A({2, 0}))
line("stack", "lambda x, y: np.stack([x, y])", function(x, y) return ad.stack{x, y} end,
  A({2, 3}), A({2, 3}))
line("stack", "lambda x, y: np.stack([x, y], -1)", function(x, y)
  return ad.stack({x, y}, -1)
end, A({2, 3}), A({2, 3}))
line("unstack", "lambda x, y: tuple(np.array([x, y]))", function(x, y)
  local z = ad.array{x, y}
  return z[1], z[2]
end, A({2, 3}), A({2, 3}))
line("split", "lambda x: tuple(np.split(x, 3))", function(x)
  return unpack(ad.split(x, 3))
end, A({6, 2}))
line("split", "lambda x: tuple(np.split(x, [1, 1, 4], 1))", function(x)
  return unpack(ad.split(x, {1, 1, 4}, 2))
end, A({2, 5}))
line("take", "lambda x: np.take(x, [3, 0, 3])", function(x) return x:take{4, 1, 4} end, A({2, 3}))
line("take", "lambda x: np.take(x, [[2, 0], [1, 2]], 1)", function(x)
  return x:take({{3, 1}, {2, 3}}, 2)
end, A({2, 3, 2}))
line("take", "lambda x: np.take(x, 1, -1)", function(x) return x:take(2, -1) end, A({2, 3}))
line("scatter_add", "lambda x, y: (np.add.at(x, [2, 0, 2], y), x)[1]", function(x, y)
  return x:scatter_add({3, 1, 3}, y, 1)
end, A({4, 2}), A({3, 2}))
line("flip", "lambda x: np.flip(x, 1)", function(x) return x:flip(2) end, A({2, 3}))
line("flip", "np.flip", ad.flip, A({2, 3}))
line("pad", "lambda x: np.pad(x, 1)", function(x) return x:pad(1) end, A({2, 3}))
line("pad", "lambda x: np.pad(x, ((1, 0), (2, 3)), constant_values=7)", function(x)
  return x:pad({{1, 0}, {2, 3}}, 7.0)
end, A({2, 3}))
line("tile", "lambda x: np.tile(x, (2, 1, 3))", function(x) return x:tile{2, 1, 3} end, A({2, 3}))
line("tile", "lambda x: np.tile(x, 2)", function(x) return x:tile(2) end, A({2, 3}))
line("eye", "lambda: np.eye(3, 5)", function() return ad.eye(3, 5) end)
line("zeros ones full", "lambda: (np.zeros((2, 3)), np.ones(4), np.full((2, 1), 2.5))", function()
  return ad.zeros(2, 3), ad.ones(4), ad.full({2, 1}, 2.5)
end)
line("arange linspace", "lambda: (np.arange(1, 2.01, 0.25), np.linspace(-1, 2, 7))", function()
  return ad.arange(1, 2, 0.25), ad.linspace(-1, 2, 7)
end)

---------------------------------------------------------------------------
-- Reductions, and what is done along an axis

local softmax = "lambda x: (lambda e: e / e.sum(%s, keepdims=True))(np.exp(x))"

for _, reduction in ipairs{
  {"sum", "np.sum(x%s)"}, {"mean", "np.mean(x%s)"}, {"prod", "np.prod(x%s)"},
  {"max", "np.max(x%s)"}, {"min", "np.min(x%s)"}, {"std", "np.std(x%s)"}, {"var", "np.var(x%s)"},
  {"norm", "np.sqrt(np.sum(x * x%s))"}, {"logsumexp", "np.log(np.sum(np.exp(x)%s))"},
} do
  local name, python = reduction[1], reduction[2]
  for _, case in ipairs{
    {"", nil}, {", axis=0", 1}, {", axis=-1", -1}, {", axis=1, keepdims=True", 2, true},
    {", axis=None, keepdims=True", nil, true},
  } do
    line(name, "lambda x: " .. python:format(case[1]), function(x)
      return x[name](x, case[2], case[3])
    end, A({3, 4, 2}, -2, 2))
    lines[#lines].scale = 10 -- sums in another order
  end
end
line("sum_to", "lambda x: np.sum(x)", ad.sum, A({1000}, 0, 1))
line("var", "lambda x: np.var(x, axis=0, ddof=1)", function(x) return x:var(1, false, 1) end,
  A({5, 2}))
line("std", "lambda x: np.std(x, axis=0, ddof=1)", function(x) return x:std(1, false, 1) end,
  A({5, 2}))
for _, name in ipairs{"argmax", "argmin"} do
  local python = "np." .. name
  line(name, ("lambda x: %s(x) + 1"):format(python), ad[name], A({3, 4}))
  line(name, ("lambda x: %s(x, 0) + 1"):format(python), function(x) return ad[name](x, 1) end,
    A({3, 4}))
end
line("softmax", softmax:format("axis=-1"), ad.softmax, A({3, 4}, -2, 2))
line("softmax", softmax:format("axis=0"), function(x) return ad.softmax(x, 1) end, A({3, 4}))
line("log_softmax", "lambda x: x - np.log(np.exp(x).sum(axis=-1, keepdims=True))", ad.log_softmax,
  A({3, 4}, -2, 2))
line("cumsum", "lambda x: np.cumsum(x, -1)", ad.cumsum, A({3, 4}))
line("cumsum", "lambda x: np.cumsum(x, 0)", function(x) return x:cumsum(1) end, A({3, 4}))
line("sort", "np.sort", ad.sort, A({3, 4}))
line("sort", "lambda x: np.sort(x, 0)", function(x) return x:sort(1) end, A({3, 4}))
line("sort", "np.sort", ad.sort, special)
line("permute", "np.sort", function(x) return (ad.value(ad.vjp(ad.sort, x))) end, A({3, 4}))
line("argsort", "lambda x: np.argsort(x, kind='stable') + 1", ad.argsort, A({3, 4}))

-- Several axes, NaN and infinities, ties, and nothing to reduce.
local mixed = ad.array{{1.0, nan, -2.0, 3.0}, {inf, 2.0, 2.0, -1.0}, {-inf, inf, 0.0, 5.0}}
local tied = ad.array{{2.0, 2.0, 1.0}, {0.0, 2.0, 0.0}, {2.0, 0.0, 0.0}}
for _, reduction in ipairs{
  {"sum", "np.sum(x%s)"}, {"mean", "np.mean(x%s)"}, {"prod", "np.prod(x%s)"},
  {"max", "np.max(x%s)"}, {"min", "np.min(x%s)"}, {"std", "np.std(x%s)"}, {"var", "np.var(x%s)"},
  {"norm", "np.sqrt(np.sum(x * x%s))"}, {"logsumexp", "np.logaddexp.reduce(x%s)"},
} do
  local name, python = reduction[1], reduction[2]
  for _, case in ipairs{
    {", axis=-2", -2}, {", axis=-1, keepdims=True", -1, true}, {", axis=(0, 2)", {1, 3}},
    {", axis=(-1, 0), keepdims=True", {-1, 1}, true}, {", axis=(0, 1, 2)", {1, 2, 3}},
  } do
    local several = type(case[2]) == "table"
    if name ~= "logsumexp" or not several then -- a ufunc that NumPy reduces along one axis
      line(name, "lambda x: " .. python:format(case[1]), function(x)
        return x[name](x, case[2], case[3])
      end, A({3, 4, 2}, -2, 2))
      lines[#lines].scale = 10
    end
  end
  for _, x in ipairs{mixed, tied, ad.zeros(2, 0), ad.zeros(0, 3), ad.ones(1, 1)} do
    for axis = 1, 2 do
      local rows = x.shape[axis]
      if rows > 0 or name ~= "max" and name ~= "min" then
        line(name, "lambda x: " .. python:format(", axis=" .. axis - 1), function(v)
          return v[name](v, axis)
        end, x)
      end
    end
  end
end
for _, name in ipairs{"argmax", "argmin"} do
  for _, axis in ipairs{1, 2, -1, -2} do
    for _, x in ipairs{mixed, tied, ad.ones(1, 1)} do
      line(name, ("lambda x: np.%s(x, %d) + 1"):format(name, axis > 0 and axis - 1 or axis),
        function(v) return ad[name](v, axis) end, x)
      line(name, ("lambda x: np.expand_dims(np.%s(x, %d), %d) + 1"):format(name,
        axis > 0 and axis - 1 or axis, axis > 0 and axis - 1 or axis),
        function(v) return ad[name](v, axis, true) end, x)
    end
  end
end
for _, x in ipairs{mixed, tied, ad.zeros(2, 0), ad.zeros(0, 3), ad.ones(1, 1)} do
  for _, axis in ipairs{1, 2, -1} do
    local python = axis > 0 and axis - 1 or axis
    line("sort", ("lambda x: np.sort(x, %d)"):format(python), function(v)
      return ad.sort(v, axis)
    end, x)
    line("argsort", ("lambda x: np.argsort(x, %d, kind='stable') + 1"):format(python), function(v)
      return ad.argsort(v, axis)
    end, x)
    line("cumsum", ("lambda x: np.cumsum(x, %d)"):format(python), function(v)
      return ad.cumsum(v, axis)
    end, x)
  end
end

line("gather", "lambda x, i: x[np.arange(3), i.astype(int) - 1]", ad.vmap(ad.take), A({3, 4}),
  ad.array{4, 1, 2})
line("gather", "lambda x, i: x[:, i.astype(int) - 1].T", ad.vmap(function(x, i)
  return ad.take(x, i, 2)
end, {false, 1}), A({3, 4}), ad.array{4, 1, -1 + 3})

---------------------------------------------------------------------------
-- Products

for _, shapes in ipairs{
  {{2, 3}, {3, 4}}, {{3}, {3}}, {{2, 3}, {3}}, {{3}, {3, 4}}, {{5, 2, 3}, {3, 4}},
  {{2, 3}, {5, 3, 4}}, {{5, 1, 2, 3}, {6, 3, 2}}, {{5, 2, 3}, {3}}, {{3}, {5, 3, 2}},
  {{0, 3}, {3, 2}}, {{2, 0}, {0, 3}}, {{0}, {0}}, {{0, 2, 3}, {3, 1}}, {{1, 1}, {1, 1}},
  {{30, 40}, {40, 50}}, {{4, 30, 20}, {20, 10}}, {{40}, {40, 30}}, {{40, 30}, {30}}, {{300}, {300}},
} do
  line("matmul", "np.matmul", ad.matmul, A(shapes[1]), A(shapes[2]))
end
line("matmul", "lambda x, y: x.T @ y.T", function(x, y)
  return x:transpose{2, 1}:matmul(y:transpose{2, 1})
end, A({20, 30}), A({25, 20}))
line("matmul", "lambda x, y: x[::-1, ::2] @ y[::-2]", function(x, y)
  return x[{{-1, 1, -1}, {1, 19, 2}}]:matmul(y[{{-1, 2, -2}}])
end, A({15, 20}), A({20, 12}))
line("matmul", "lambda x, y: x[::-2] @ y[:, ::2]", function(x, y)
  return x[{{-1, 2, -2}}]:matmul(y[{{}, {1, 11, 2}}])
end, A({40}), A({20, 12}))

for _, shapes in ipairs{
  {{2, 3}, {3, 4}}, {{3}, {3}}, {{2, 3, 4}, {4}}, {{2, 3, 4}, {5, 4, 2}}, {{4}, {2, 4, 3}},
} do
  line("matmul dot", "np.dot", function(x, y) return x:dot(y) end, A(shapes[1]), A(shapes[2]))
end
line("mul", "np.dot", function(x, y) return x:dot(y) end, A({2, 3}), 2.5)
line("mul outer", "np.outer", ad.outer, A({2, 3}), A({4}))

for _, case in ipairs{
  {"ij,jk->ik", {2, 3}, {3, 4}}, {"ij,jk", {2, 3}, {3, 4}}, {"ba", {2, 3}}, {"ij->", {2, 3}},
  {"ij->j", {2, 3}}, {"ii", {3, 3}}, {"ii->i", {3, 3}}, {"iij->ji", {3, 3, 2}},
  {"ij,ij->", {2, 3}, {2, 3}}, {"i,j->ij", {2}, {3}}, {"i,i", {3}, {3}},
  {"ij,jk,kl->il", {2, 3}, {3, 4}, {4, 2}}, {"ijk,jil->kl", {2, 3, 4}, {3, 2, 5}},
  {"bij,bjk->bik", {2, 3, 4}, {2, 4, 2}}, {"...ij,...jk->...ik", {2, 3, 4}, {4, 2}},
  {"...ij,...jk", {2, 1, 3, 4}, {5, 4, 2}}, {"i...->...i", {2, 3, 4}}, {"...->...", {2, 3}},
  {"i...,i...->...", {2, 3}, {2, 3}}, {"ij,kl->", {2, 3}, {2, 2}}, {"ij,i,j->", {2, 3}, {2}, {3}},
  {"bi,bo,io->b", {4, 2}, {4, 3}, {2, 3}}, {"ij,ij,ij->ij", {2, 3}, {2, 3}, {2, 3}},
  {"iji,j->i", {3, 2, 3}, {2}}, {"ab,cd->dbca", {2, 3}, {4, 5}}, {"ij,jk->ik", {0, 3}, {3, 2}},
  {"ij,jk->ik", {2, 0}, {0, 2}}, {"ij,j->ij", {2, 3}, {3}}, {"Ab,bA->A", {2, 3}, {3, 2}},
} do
  local inputs = {}
  for i = 2, #case do inputs[i - 1] = A(case[i]) end
  line("matmul diagonal einsum", ("lambda *x: np.einsum('%s', *x)"):format(case[1]), function(...)
    return ad.einsum(case[1], ...)
  end, unpack(inputs))
end
line("sum_to broadcast_to", "lambda x, y: np.einsum('ij,ij->j', x, y)", function(x, y)
  return ad.einsum("ij,ij->j", x, y)
end, A({4, 3}), A({1, 3}))

---------------------------------------------------------------------------
-- Linear algebra

local L = ad.linalg
local function well(n, ...) -- not near a singular one
  local shape = {...}
  shape[#shape + 1], shape[#shape + 2] = n, n
  return A(shape) + 2 * ad.eye(n)
end
local function positive(...)
  local a = well(...)
  return ad.einsum("...ij,...kj->...ik", a, a)
end

for _, n in ipairs{1, 2, 5, 0} do
  solving("solve lu", "np.linalg.solve", L.solve, well(n), A{n, 3})
  solving("inv", "np.linalg.inv", L.inv, well(n))
  solving("det", "np.linalg.det", L.det, A{n, n})
  solving("slogdet", "lambda a: tuple(np.linalg.slogdet(a))", L.slogdet, A{n, n})
  solving("cholesky", "np.linalg.cholesky", L.cholesky, positive(n))
  solving("eigh", "lambda a: np.linalg.eigh(a)[0]", function(a) return (L.eigh(a)) end,
    positive(n))
end
solving("solve lu", "np.linalg.solve", L.solve, well(5), A{5})
solving("solve lu", "np.linalg.solve", L.solve, well(3, 2), A{2, 3, 2})
solving("solve lu", "np.linalg.solve", L.solve, well(3), A{2, 3, 2})
solving("inv", "np.linalg.inv", L.inv, well(3, 2, 2))
solving("det", "np.linalg.det", L.det, A{2, 3, 4, 4})
solving("det", "np.linalg.det", L.det, ad.array{{1.0, 2.0}, {2.0, 4.0}})
solving("slogdet", "lambda a: tuple(np.linalg.slogdet(a))", L.slogdet, A{3, 4, 4})
solving("slogdet", "lambda a: tuple(np.linalg.slogdet(a))", L.slogdet, ad.zeros(2, 2))
solving("cofactor", "lambda a: np.linalg.det(a) * np.linalg.inv(a).T", ad.grad(L.det), well(4))
solving("cholesky", "np.linalg.cholesky", L.cholesky, positive(3, 2))
unsigned("eigh", "lambda a: np.linalg.eigh(a)", L.eigh, positive(4, 2))
for _, shape in ipairs{{4, 4}, {5, 3}, {3, 5}, {2, 4, 3}, {1, 4}, {0, 3}} do
  unsigned("qr", "lambda a: np.linalg.qr(a)", L.qr, A(shape))
  unsigned("svd", "lambda a: np.linalg.svd(a, full_matrices=False)", L.svd, A(shape))
end
for _, shapes in ipairs{{{5, 3}, {5}}, {{5, 3}, {5, 2}}, {{3, 5}, {3, 2}}, {{3, 3}, {3}}} do
  solving("lstsq", "lambda a, b: np.linalg.lstsq(a, b, rcond=None)[0]", L.lstsq, A(shapes[1]),
    A(shapes[2]))
end

---------------------------------------------------------------------------
-- What has no line, and why

local reasons = {
  tolist = "no operation: array_spec", copy = "no operation: array_spec",
  digamma = "neither NumPy nor Python has it: functions_spec compares with tables",
  polygamma = "as digamma",
  cmul = "multiplication, but for zeros", bmul = "as cmul",
  cadd = "multiplication and addition, but for zeros",
  undiagonal = "the transpose of diagonal, which derivatives use",
  triangle = "a mask inside of rules", trisolve = "a step of the rules of cholesky and qr",
  softmax_times = "the gradient of logsumexp",
  scatter = "the transpose of take, which derivatives use; scatter_add is public",
  ties = "the derivative of max and min", equal = "eq, inside of rules",
  below = "lt, inside of rules", atmost = "le, inside of rules", first = "a derivative of max",
  second = "a derivative of max", inside = "a derivative of clamp",
  beyond = "a derivative of clamp",
  ungather = "the transpose of gather, which derivatives use",
  implicit_solve = "solve, of a matrix in lists: implicit_spec",
  flat = "a structure as a vector: jacobian_spec", piece = "as flat", place = "as flat",
  merge = "the form of Jacobians: jacobian_spec",
  rcond = "an estimate by which a formula is chosen", scale = "a number to divide by",
}

---------------------------------------------------------------------------

local function flat(y)
  local list = {shape = {}}
  if type(y) == "number" then
    list[1] = y
    return list
  end
  list.shape = y.shape
  local function collect(t)
    for _, v in ipairs(t) do
      if type(v) == "table" then collect(v) else list[#list + 1] = v end
    end
  end
  collect(y:tolist())
  return list
end

local function close(a, b, scale)
  if a ~= a or b ~= b then return a ~= a and b ~= b end
  return a == b or math.abs(a - b) <= 1e-14 * math.abs(b) + 1e-13 * scale
end

-- How two results differ, or nil.
local function difference(got, want, sign, scale)
  local a, b = table.concat(got.shape, ","), table.concat(want.shape, ",")
  if a ~= b then return ("shape (%s), NumPy's is (%s)"):format(a, b) end
  if #got ~= #want then return ("%d elements, NumPy has %d"):format(#got, #want) end
  scale = scale or 0
  for i = 1, #want do
    local w = math.abs(want[i])
    if sign and w < inf then scale = math.max(scale, w) end
  end
  for i = 1, #want do
    local g, w = got[i], want[i]
    if sign == "abs" then g, w = math.abs(g), math.abs(w) end
    if not close(g, w, scale) then
      return ("element %d is %.17g, NumPy's is %.17g"):format(i, g, w)
    end
  end
end

describe("NumPy agrees with", function()
  local python = numpy.python()
  if not python then
    pending("the operations on arrays: there is no python3 with NumPy (Debian: python3-numpy)")
  else
    local results
    setup(function() results = numpy.run(python, lines) end)
    for i, l in ipairs(lines) do
      it(("%s, %s, %d"):format(l.names, l.python, i), function()
        if (l.lapack or l.unsigned) and not lapack then
          return pending("there is no LAPACK (Debian: libopenblas0)")
        end
        local want = results[i]
        assert(want, "Python gave no answer")
        assert.is_nil(want.error)
        local got = table.pack(l.lua(unpack(l.inputs)))
        assert.are.equal(want.n, got.n)
        for k = 1, got.n do
          assert.is_nil(difference(flat(got[k]), want[k],
            l.unsigned and "abs" or (l.names:find("matmul") or l.lapack) and "sum", l.scale))
        end
      end)
    end
  end

  it("every operation there is, or there is a reason why not", function()
    require("support.operations") -- loads all that defines some
    local missing = {}
    local function look(name)
      if not covered[name] and not reasons[name] then missing[#missing + 1] = name end
    end
    for _, op in ipairs(core.ops()) do
      if not op.list then look(op.name) end
    end
    for name in pairs(require("autodiff.prim").all) do look(name) end
    for name in pairs(require("autodiff.array").methods) do look(name) end
    table.sort(missing)
    assert.are.equal("", table.concat(missing, " "))
    for name in pairs(reasons) do assert.is_nil(covered[name], name) end
  end)
end)
