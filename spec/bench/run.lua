-- The benchmarks: `make bench`, or
--
--     lua5.4 spec/bench/run.lua [PATTERN]
--
-- with autodiff on the path. With a pattern (Lua's), only the lines that match it. Each line says
-- what was measured, what came out, and if there is a bound, whether it was kept ("ok") or not
-- ("over"): that never makes the run fail, as a busy machine can do it.

local directory = arg[0]:match("^(.*[/\\])") or ""
package.path = directory .. "../?.lua;" .. package.path

local pattern = arg[1] or ""

local sections = {
  {"Ratios", "bench.ratios"},
  {"Products of arrays", "bench.products"},
  {"Arrays", "bench.arrays"},
  {"Compiled", "bench.compiled"},
  {"Memory", "bench.memory"},
  {"Loading", "bench.loading"},
  {"For orientation", "bench.single"},
}

local failed = false

local function run(line)
  local ok, value, detail = pcall(line.measure)
  local shown, bound, verdict = "-", "", ""
  if not ok then
    failed = true
    value, detail = nil, "failed: " .. tostring(value)
  end
  if value then
    shown = ("%.3g %s"):format(value, line.unit)
    if value >= 1000 then shown = ("%.0f %s"):format(value, line.unit) end
  end
  if line.bound then
    bound = ("%g"):format(line.bound)
    if value then verdict = value <= line.bound and "ok" or "over" end
  end
  local row = ("%-66s %10s %6s %-5s %s"):format(line.name, shown, bound, verdict, detail or "")
  print((row:gsub("%s+$", "")))
  io.stdout:flush()
end

local start = os.time()
print(_VERSION .. ", " .. require("autodiff")._VERSION)
for _, section in ipairs(sections) do
  local title, lines = section[1], require(section[2])
  local matching = {}
  for _, line in ipairs(lines) do
    if line.name:find(pattern) then matching[#matching + 1] = line end
  end
  if #matching > 0 then
    print()
    print(("%-66s %10s %6s"):format(title, "measured", "bound"))
    for _, line in ipairs(matching) do run(line) end
    if lines.note then print(lines.note) end
  end
end
print()
print(("%d s"):format(os.time() - start))
os.exit(not failed)
