--- Arrays as text: as NumPy prints them, in columns and with a bound.
--
-- Numbers have at most 9 significant digits, or all that they need when all of
-- them are whole. They are written with a point in the same column, unless a
-- number among them would keep less than three digits: then all are written
-- with an exponent.
local core = require "autodiff.core"

local floor, abs, huge = math.floor, math.abs, math.huge
local shapeof, getpart = core.array.shapeof, core.array.getpart

local DIGITS <const> = 9
local THRESHOLD <const> = 1000 -- elements: of more, only the ends are shown
local EDGE <const> = 3         -- at each end, unless that makes too many lines
local LINES <const> = 50
local WIDTH <const> = 78

-- The positions shown along a dimension; false stands for "...".
local function positions(n, edge)
  local list = {}
  for i = 1, n > 2 * edge and edge or n do list[i] = i end
  if n > 2 * edge then
    list[edge + 1] = false
    for i = n - edge + 1, n do list[#list + 1] = i end
  end
  return list
end

-- The elements that are shown, in order.
local function collect(a, shape, rows, d, key, out)
  if d > #shape then
    out[#out + 1] = getpart(a, key)
    return
  end
  for _, i in ipairs(rows[d]) do
    if i then
      key[d] = i
      collect(a, shape, rows, d + 1, key, out)
    end
  end
end

local function special(x)
  if x ~= x then return "nan" end
  if x == huge then return "inf" end
  if x == -huge then return "-inf" end
end

-- "%.3f": as many decimals as serve; nil if some number would suffer.
local function fixed(numbers, most)
  local whole = most < 1e15
  for _, x in ipairs(numbers) do whole = whole and x == floor(x) end
  if whole then return "%.0f" end
  if most >= 10 ^ DIGITS then return nil end
  local before = #("%.0f"):format(floor(most))
  local format = ("%%.%df"):format(DIGITS - before)
  for _, x in ipairs(numbers) do
    if abs(tonumber(format:format(x)) - x) > 1e-3 * abs(x) then return nil end
  end
  return format
end

-- The texts of all numbers; those with a point have it in the same place.
local function texts(all)
  local numbers, most = {}, 0
  for _, x in ipairs(all) do
    if not special(x) then
      numbers[#numbers + 1] = x
      most = math.max(most, abs(x))
    end
  end
  local format = fixed(numbers, most)
  local list, left, right = {}, 0, 0
  for i, x in ipairs(all) do
    local text, tail = special(x), ""
    if not text then
      if format then
        text, tail = format:format(x):match "^([^.]*)(%.?%d*)$"
        tail = tail:gsub("%.?0*$", "")
      else
        local mantissa, exponent = ("%." .. DIGITS - 1 .. "e"):format(x):match "^(.-)(e.*)$"
        text, tail = mantissa:gsub("%.?0*$", ""), exponent
      end
    end
    list[i] = { text, tail }
    left, right = math.max(left, #text), math.max(right, #tail)
  end
  for i, t in ipairs(list) do
    local before, after = left - #t[1], right - #t[2]
    -- with exponents what counts is where the numbers end
    if not format then before, after = before + after, 0 end
    list[i] = (" "):rep(before) .. t[1] .. t[2] .. (" "):rep(after)
  end
  return list
end

-- Rows of the last dimension wrap; the others get a line each, and an empty
-- one between matrices.
local function render(shape, rows, list, width)
  local taken = 0
  local function part(d, indent)
    local items = {}
    for _, i in ipairs(rows[d]) do
      if not i then
        items[#items + 1] = "..."
      elseif d == #shape then
        taken = taken + 1
        items[#items + 1] = list[taken]
      else
        items[#items + 1] = part(d + 1, indent + 1)
      end
    end
    local pad = "\n" .. (" "):rep(indent + 1)
    if d < #shape then
      return "[" .. table.concat(items, (d < #shape - 1 and "\n" or "") .. pad) .. "]"
    end
    local lines, line = {}, nil
    for _, item in ipairs(items) do
      -- with room for the brackets that may follow
      if line and indent + 1 + #line + 1 + #item + d > width then
        lines[#lines + 1] = line
        line = item
      else
        line = line and line .. " " .. item or item
      end
    end
    lines[#lines + 1] = line
    return "[" .. table.concat(lines, pad) .. "]"
  end
  return part(1, 0)
end

--- The text of a plain array. `options`: `threshold`, the number of elements
-- that are all shown; `width`, that of a line.
return function(a, options)
  local shape = shapeof(a)
  local threshold = options and options.threshold or THRESHOLD
  local size = 1
  for _, n in ipairs(shape) do size = size * n end
  local label = "shape (" .. table.concat(shape, ", ") .. ")"
  if size == 0 then return "[] " .. label end
  local edge = math.maxinteger >> 1
  if size > threshold then
    edge = EDGE + 1
    repeat -- of many dimensions even the ends are many
      edge = edge - 1
      local lines = 1
      for d = 1, #shape - 1 do lines = lines * math.min(shape[d], 2 * edge) end
    until lines <= LINES or edge == 1
  end
  local rows, all = {}, {}
  for d, n in ipairs(shape) do rows[d] = positions(n, edge) end
  collect(a, shape, rows, 1, {}, all)
  local text = render(shape, rows, texts(all), options and options.width or WIDTH)
  if size <= threshold then return text end
  return text .. (text:find "\n" and "\n" or " ") .. label
end
