--- Products of matrices against the BLAS that they are made by.
local ad = require "autodiff"
local core = require "autodiff.core"
local measure = require "bench.measure"

local readable = measure.readable

-- Built by `make bench`.
local function yardstick()
  local file = (os.getenv("AUTODIFF_BUILD") or "build") .. "/yardstick.so"
  return assert(package.loadlib(file, "luaopen_yardstick"))()
end

local function against(call, base, seconds, ...)
  local ratio, a, b = measure.ratio(call, base, seconds, ...)
  return ratio, ("%s / %s"):format(readable(a), readable(b))
end

local function matrix(n, seed)
  local list, x = {}, seed
  for i = 1, n do
    list[i] = {}
    for j = 1, n do
      x = (x * 16807) % 2147483647
      list[i][j] = x / 2147483647
    end
  end
  return ad.array(list)
end

local list = {}

for _, case in ipairs{{512, 1.05}, {64}} do
  local n, bound = table.unpack(case)
  list[#list + 1] = {
    name = ("matmul %d x %d over cblas_dgemm"):format(n, n), bound = bound, unit = "x",
    measure = function()
      local library = core.array.blas() or error("there is no BLAS")
      return against(ad.matmul, yardstick().gemm(library, n), 4, matrix(n, 1), matrix(n, 2))
    end,
  }
end

list[#list + 1] = {
  name = "... transposed operands: both views", bound = 1.1, unit = "x",
  measure = function()
    local library = core.array.blas() or error("there is no BLAS")
    local n = 512
    local a, b = matrix(n, 1), matrix(n, 2)
    return against(ad.matmul, yardstick().gemm(library, n), 4, a:transpose{2, 1}, b:transpose{2, 1})
  end,
}

list[#list + 1] = {
  name = "matmul 512 x 512: the cotangents of both over the product", bound = 2.2, unit = "x",
  measure = function()
    local a, b, g = matrix(512, 1), matrix(512, 2), matrix(512, 3)
    local _, pull = ad.vjp(ad.matmul, a, b)
    return against(function() return pull(g) end, function() return ad.matmul(a, b) end, 4)
  end,
}

list[#list + 1] = {
  name = "matmul 512 x 512: value and gradient by one of them over the product",
  bound = 2.2, unit = "x",
  measure = function()
    local a, b, g = matrix(512, 1), matrix(512, 2), matrix(512, 3)
    local f = ad.value_and_grad(function(x) return ad.einsum("ij,ij->", ad.matmul(x, b), g) end)
    return against(f, function() return ad.matmul(a, b) end, 4, a)
  end,
}

return list
