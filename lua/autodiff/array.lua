--- Operations on arrays: all that is public, and what the core asks for.
local core = require "autodiff.core"
local broadcast = require "autodiff.broadcast"
local shapes = require "autodiff.shapes"
local parts = require "autodiff.parts"
local reduce = require "autodiff.reduce"

local M = { methods = {} }

-- The core calls these two.
M.like, M.index = broadcast.like, parts.index

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
for name in ("floor ceil modf where eq lt le maximum minimum"):gmatch "%S+" do
  M.methods[name] = core[name]
end

return M
