-- Every ```lua block of README.md is a program: it is run as it stands, and
-- what it prints must be what stands behind its `-->`, line by line. "..."
-- there stands for any text. Numbers with many digits may differ in the last
-- ones, which depend on the C library.

local function readfile(name)
  local file = assert(io.open(name))
  local text = file:read "a"
  file:close()
  return text
end

-- The blocks: text, number of the first line, and what each is to print.
local function blocks(text)
  local list, block, number = {}, nil, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if block and line == "```" then
      block.text = table.concat(block, "\n")
      list[#list + 1], block = block, nil
    elseif block then
      block[#block + 1] = line
      local expected = line:match "%-%->%s?(.*)$"
      if expected then
        block.expected[#block.expected + 1] = { text = expected, line = number }
      end
    elseif line == "```lua" then
      block = { line = number, expected = {} }
    end
  end
  assert(block == nil, "README.md: a block has no end")
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

local function agrees(expected, got)
  local a, b = words(expected), words(got)
  if like(table.concat(a, " "), table.concat(b, " ")) then return true end
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] and not samenumber(a[i], b[i]) then return false end
  end
  return true
end

-- Runs a program with globals of its own; the lines that it prints.
local function run(text)
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

describe("README.md", function()
  local list = blocks(readfile "README.md")
  local math = math

  it("has blocks that all show what they print", function()
    assert.is_true(#list > 0)
    for _, block in ipairs(list) do
      assert.is_true(#block.expected > 0, "the block at line " .. block.line .. " shows nothing")
    end
  end)

  it("has every public name", function()
    local known = {}
    for name in readfile "README.md":gmatch "[%a_][%w_]*" do known[name] = true end
    for name in pairs(require "autodiff") do
      assert.is_true(known[name] or name:find "^_" ~= nil, "README.md does not mention " .. name)
    end
  end)

  for _, block in ipairs(list) do
    it(("is right at line %d"):format(block.line), function()
      local lines = run(block.text)
      for i, expected in ipairs(block.expected) do
        assert.is_true(agrees(expected.text, lines[i] or "(nothing)"),
          ("README.md:%d says %q, but the program prints %q")
            :format(expected.line, expected.text, lines[i] or "(nothing)"))
      end
      assert.is_equal(#block.expected, #lines, "it prints lines that are not shown")
      assert.is_equal(math, _G.math, "it leaves another math behind")
    end)
  end
end)
