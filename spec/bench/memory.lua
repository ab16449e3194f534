--- What a tape costs.
local ad = require "autodiff"
local functions = require "bench.functions"
local measure = require "bench.measure"

local directory = arg[0]:match("^(.*[/\\])") or ""

local function per_operation(record)
  local tape <close> = ad.tape()
  record(tape)
  return tape:bytes() / #tape, ("%d operations"):format(#tape)
end

local operations = 10000000
local chains = {} -- two lines each want the one run

local function chain(mode)
  if not chains[mode] then
    chains[mode] = measure.child(directory .. "chain.lua", mode, tostring(operations))
  end
  local seconds, kilobytes = chains[mode]:match("(%S+) s (%S+) kB")
  return tonumber(seconds) / operations * 1e9, tonumber(kilobytes)
end

local list = {
  {
    name = "tape of Rosenbrock, n = 1000, per operation", bound = 32, unit = "B",
    measure = function()
      return per_operation(function(tape)
        functions.rosenbrock{tape:var(table.unpack(functions.start(1000)))}
      end)
    end,
  },
  {
    name = "tape of a chain y = sin(y), per operation", bound = 32, unit = "B",
    measure = function()
      return per_operation(function(tape)
        local y = tape:var(1.0)
        for _ = 1, 100000 do y = ad.sin(y) end
      end)
    end,
  },
  {
    name = "tape of a chain y = y * x, per operation", bound = 32, unit = "B",
    measure = function()
      return per_operation(function(tape)
        local x = tape:var(1.0)
        local y = x
        for _ = 1, 100000 do y = y * x end
      end)
    end,
  },
}

for _, mode in ipairs{"grad", "tape"} do
  list[#list + 1] = {
    name = ("chain of 10 million operations, %s, there and back, each"):format(mode), unit = "ns",
    measure = function() return (chain(mode)) end,
  }
  list[#list + 1] = {
    name = "... its peak memory (VmHWM)", unit = "MB",
    measure = function()
      local _, kilobytes = chain(mode)
      if not kilobytes then return nil, "no /proc/self/status here" end
      local bytes = kilobytes * 1024
      return bytes / 1e6, ("%.3g B per operation"):format(bytes / operations)
    end,
  }
end

list.note = [[
Peers' bytes per operation, as published: Adept and XAD 16 to 18, CoDiPack 16 to 18, ADOL-C 26,
Stan 53, PyTorch 1,240.]]

return list
