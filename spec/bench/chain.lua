-- A long chain of operations, forward and back, in an interpreter of its own:
--
--     lua5.4 spec/bench/chain.lua grad|tape OPERATIONS
--
-- prints the time it took and the most memory that the process has ever had.
local ad = require "autodiff"

local mode, operations = arg[1], tonumber(arg[2])

-- y -> a y + x: one operation with a constant and one without in each step
local a, steps = 0.75, operations // 2

local function chain(x)
  local y = x
  for _ = 1, steps do y = y * a + x end
  return y
end

local start = os.clock()
local derivative
if mode == "tape" then
  local tape <close> = ad.tape()
  local x = tape:var(1.0)
  local y = chain(x)
  assert(#tape == operations)
  derivative = tape:gradient(y, x)
else
  derivative = ad.grad(chain)(1.0)
end
local seconds = os.clock() - start

assert(math.abs(derivative - 1 / (1 - a)) < 1e-9, derivative)

local peak = "?"
local status = io.open("/proc/self/status")
if status then
  peak = status:read("a"):match("VmHWM:%s*(%d+)") or "?"
  status:close()
end
print(("%.6f s %s kB"):format(seconds, peak))
