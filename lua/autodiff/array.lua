--- Operations on arrays: all that is public, and what the core asks for.
local core = require "autodiff.core"
local broadcast = require "autodiff.broadcast"
local shapes = require "autodiff.shapes"
local parts = require "autodiff.parts"
local reduce = require "autodiff.reduce"

local shapeof = core.array.shapeof

local M = { methods = {} }

-- The core calls these.
M.like, M.toshape, M.index = broadcast.like, broadcast.toshape, parts.index

M.broadcast_to = broadcast.broadcast_to
M.array = parts.array

-- What does not start with an array is no method.
local function add(from, names, nomethod)
  for name in names:gmatch "%S+" do
    M[name] = assert(from[name], name)
    if not nomethod then M.methods[name] = M[name] end
  end
end

add(shapes, "reshape transpose squeeze expand_dims flip")
add(parts, "split take scatter_add pad tile")
add(parts, "concat stack", true)
add(reduce, [[sum mean prod max min argmax argmin std norm logsumexp
  softmax log_softmax cumsum sort argsort]])

M.methods.var = reduce.var -- ad.var makes vars
M.methods.broadcast_to = M.broadcast_to
M.methods.tolist, M.methods.copy = parts.tolist, shapes.copy

-- The elementary functions.
for _, op in ipairs(core.ops()) do
  local f = not op.list and not op.internal and core[op.name]
  if f and not M.methods[op.name] then M.methods[op.name] = f end
end

--- A batch's x with dimensions of length 1 after the first, `ndim` in all.
function M.alignbatch(x, ndim)
  local shape = shapeof(x)
  local full = { shape[1] }
  for _ = #shape + 1, ndim do full[#full + 1] = 1 end
  return M.reshape(x, table.move(shape, 2, #shape, #full + 1, full))
end

--- An operation over a list in which there are values of a batch.
function M.overlist(name, list)
  local x = M.array(list)
  if name == "dot" then
    local n = #list // 2
    return M.sum(x[{ { 1, n } }] * x[{ { n + 1, 2 * n } }])
  end
  return M[name:match("^l(m..)$") or name](x)
end

--- c:map without a program.
function M.maprows(...) return require "autodiff.rows"(...) end

for name in ("floor ceil modf where eq lt le maximum minimum"):gmatch "%S+" do
  M.methods[name] = core[name]
end

for name, f in pairs(require "autodiff.product") do M[name], M.methods[name] = f, f end

-- As methods too, but not loaded before one is called.
for _, name in ipairs {
  "solve", "inv", "det", "slogdet", "cholesky", "qr", "svd", "eigh", "lstsq",
} do
  M.methods[name] = function(...) return require("autodiff.linalg")[name](...) end
end

--- What tostring gives of a plain array.
function M.tostring(a)
  return require "autodiff.show"(a)
end

return M
