-- Programs in documentation: running them, and comparing what they print with
-- what stands behind their `-->`, line by line. "..." there stands for any
-- text. Numbers with many digits may differ in the last ones, which depend on
-- the C library.

local blocks = {}

--- The lines of a program's expected output, with the numbers of the lines.
function blocks.expected(text, first)
  local list, number = {}, first or 1
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local expected = line:match "%-%->%s?(.*)$"
    if expected then list[#list + 1] = { text = expected, line = number } end
    number = number + 1
  end
  return list
end

--- The ```lua blocks of a Markdown text: text, number of the line before the
-- first, and what each is to print.
function blocks.markdown(text)
  local list, block, number = {}, nil, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if block and line == "```" then
      block.text = table.concat(block, "\n")
      block.expected = blocks.expected(block.text, block.line + 1)
      list[#list + 1], block = block, nil
    elseif block then
      block[#block + 1] = line
    elseif line == "```lua" then
      block = { line = number }
    end
  end
  assert(block == nil, "a block has no end")
  return list
end

local function words(s)
  local list = {}
  for w in s:gmatch "%S+" do list[#list + 1] = w end
  return list
end

-- Does text match a pattern in which "..." is anything?
local function like(pattern, text)
  pattern = pattern:gsub("%.%.%.", "\0"):gsub("%p", "%%%0"):gsub("%z", ".*")
  return text:find("^" .. pattern .. "$") ~= nil
end

local function samenumber(a, b)
  -- only long decimal fractions: 2 is not 2.0, and 0.5 has no last digits
  if not (a:find "%d%.%d+" and #a > 12 and #b > 12) then return false end
  local x, y = tonumber(a), tonumber(b)
  return x ~= nil and y ~= nil and math.abs(x - y) <= 1e-12 * math.abs(x)
end

--- What a program needs and this machine has not; nil if nothing.
function blocks.lacking(text)
  if text:find("ad.linalg", 1, true)
      and not select(2, require("autodiff.core").array.blas()) then
    return "there is no LAPACK (Debian: libopenblas0)"
  elseif text:find("optim.nlopt", 1, true)
      and not require("autodiff.optim.nlopt").available() then
    return "there is no NLopt (Debian: libnlopt0)"
  end
end

--- Is this line the expected one?
function blocks.agrees(expected, got)
  local a, b = words(expected), words(got)
  if like(table.concat(a, " "), table.concat(b, " ")) then return true end
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] and not samenumber(a[i], b[i]) then return false end
  end
  return true
end

--- Runs a program with globals of its own; the lines that it prints.
function blocks.run(text)
  local lines = {}
  local env = setmetatable({}, { __index = _G })
  function env.print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    for line in (table.concat(parts, "\t") .. "\n"):gmatch "(.-)\n" do
      lines[#lines + 1] = line
    end
  end
  local chunk = assert(load(text, "@example.lua", "t", env))
  chunk()
  return lines
end

--- Runs a program and says what is wrong with its output; nil if nothing.
-- @param where  a function from the number of a line to how to call it
function blocks.difference(text, expected, where)
  local lines = blocks.run(text)
  for i, e in ipairs(expected) do
    if not blocks.agrees(e.text, lines[i] or "(nothing)") then
      return ("%s says %q, but the program prints %q"):format(
        where(e.line), e.text, lines[i] or "(nothing)")
    end
  end
  if #lines > #expected then
    return ("it prints lines that are not shown: %q"):format(lines[#expected + 1])
  end
end

return blocks
