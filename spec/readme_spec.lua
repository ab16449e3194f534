-- Every ```lua block of README.md is a program: it is run as it stands, and
-- what it prints must be what stands behind its `-->` (see support/blocks.lua).

local blocks = require "support.blocks"

local function readfile(name)
  local file = assert(io.open(name))
  local text = file:read "a"
  file:close()
  return text
end

describe("README.md", function()
  local list = blocks.markdown(readfile "README.md")
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
      local lacking = blocks.lacking(block.text)
      if lacking then return pending(lacking) end
      local wrong = blocks.difference(block.text, block.expected, function(line)
        return "README.md:" .. line
      end)
      assert.is_nil(wrong)
      assert.is_equal(math, _G.math, "it leaves another math behind")
    end)
  end
end)
