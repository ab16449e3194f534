-- Records and compiles a function, in an interpreter of its own:
--
--     lua5.4 spec/bench/compiling.lua OPERATIONS
--
-- prints the most memory that the process has ever had.
local ad = require "autodiff"

local operations = tonumber(arg[1])

local c = ad.compile(function(x, y)
  for _ = 1, operations // 4 do x, y = x * 0.99 + y, y - x * 0.01 end
  return x
end, {backend = "native"})
c(1.0, 2.0)
c(1.0, 2.0)

local status = io.open("/proc/self/status")
local peak = status and status:read("a"):match("VmHWM:%s*(%d+)") or "?"
if status then status:close() end
print(peak .. " kB")
