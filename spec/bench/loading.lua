--- What it costs to have the library.
local measure = require "bench.measure"

local directory = arg[0]:match("^(.*[/\\])") or ""

return {
  {
    name = 'require "autodiff" in a fresh interpreter', bound = 2, unit = "ms",
    measure = function()
      local samples = {}
      for i = 1, 21 do samples[i] = tonumber(measure.child(directory .. "require.lua")) * 1e3 end
      local median = measure.median(samples)
      return median, ("%.2f to %.2f"):format(samples[1], samples[#samples])
    end,
  },
  {
    name = "size of the stripped module", bound = 1000, unit = "KB",
    measure = function()
      local module = assert(package.searchpath("autodiff.core", package.cpath))
      local stripped <const> = os.tmpname()
      local ok = os.execute(("strip -o '%s' '%s' 2>/dev/null"):format(stripped, module))
      local file = ok and io.open(stripped, "rb")
      local size = file and file:seek("end")
      if file then file:close() end
      os.remove(stripped)
      if not size then return nil, "no strip here" end
      return size / 1000, module
    end,
  },
}
