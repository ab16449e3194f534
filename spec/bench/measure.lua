--- Timing for the benchmarks.
--
-- What counts are ratios between two things measured in the same run. They take turns in short
-- batches, so that whatever else the machine is doing hits both, and each is given by its median.
-- The collector runs as it does in any program: what a call allocates it also pays for.
local M = {}

local clock = os.clock

-- The arguments are handed over here and not by a closure around what is measured: for the
-- smallest functions that would be a third of the time.
local function batch(call, times, a, b)
  local start = clock()
  for _ = 1, times do call(a, b) end
  return clock() - start
end

--- The middle of a list, which is sorted.
function M.median(list)
  table.sort(list)
  local n = #list
  return (list[(n + 1) // 2] + list[n // 2 + 1]) / 2
end

--- Seconds per call of each function of a list, with the arguments a and b. `seconds` is how
-- long it may take altogether (it takes longer when 5 rounds of one call each do).
function M.times(calls, seconds, a, b)
  local rounds = 25
  local length = seconds / #calls / rounds -- of a batch
  local n, samples = {}, {}
  for i, call in ipairs(calls) do
    call(a, b) -- the first call finds everything cold
    local k, t = 1, batch(call, 1, a, b)
    while t < length / 4 do
      k = k * 2
      t = batch(call, k, a, b)
    end
    n[i] = math.max(1, math.floor(k * length / t + 0.5))
    if t > k * length then -- one call is longer than a batch should be
      rounds = math.min(rounds, math.max(5, seconds / #calls * k // t))
    end
    samples[i] = {}
  end
  collectgarbage()
  for round = 1, rounds do
    for i, call in ipairs(calls) do samples[i][round] = batch(call, n[i], a, b) / n[i] end
  end
  for i, list in ipairs(samples) do samples[i] = M.median(list) end
  return samples
end

--- How many times as long as `base` `call` takes; and both times.
function M.ratio(call, base, seconds, a, b)
  local t = M.times({call, base}, seconds, a, b)
  return t[1] / t[2], t[1], t[2]
end

--- Seconds for people.
function M.readable(t)
  if t < 1e-6 then return ("%.3g ns"):format(t * 1e9) end
  if t < 1e-3 then return ("%.3g us"):format(t * 1e6) end
  if t < 1 then return ("%.3g ms"):format(t * 1e3) end
  return ("%.3g s"):format(t)
end

--- Runs a script in an interpreter of its own; what it prints.
function M.child(script, ...)
  local interpreter = arg[-1] or "lua5.4"
  local words = {interpreter, script, ...}
  for i, word in ipairs(words) do words[i] = "'" .. word:gsub("'", "'\\''") .. "'" end
  local pipe <close> = assert(io.popen(table.concat(words, " ")))
  local output = pipe:read("a")
  if output == "" then error(script .. " has failed") end
  return output
end

return M
