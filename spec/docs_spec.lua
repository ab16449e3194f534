-- autodiff.docs has every public name, and each of its examples is right.

local blocks = require "support.blocks"
local names = require "support.names"
local docs = require "autodiff.docs"

describe("autodiff.docs", function()
  it("has exactly the public names", function()
    local public = names.all()
    assert.is_equal("", names.lacking(public, docs), "without documentation")
    assert.is_equal("", names.lacking(docs, public), "documented, but not there")
    assert.is_equal(names.count(public), names.count(docs))
  end)

  it("has what the REPL and the pages need of each", function()
    for name, doc in pairs(docs) do
      for _, field in ipairs { "sig", "text", "example", "section" } do
        assert.is_true(type(doc[field]) == "string" and #doc[field] > 0, name .. ": " .. field)
      end
      local own = name:match "[%w_]+$"
      assert.is_truthy(doc.sig:find(own, 1, true), name .. ": its signature calls it otherwise")
      assert.is_nil(doc.text:find "\n", name .. ": more than one paragraph")
    end
  end)

  local sorted = {}
  for name in pairs(docs) do sorted[#sorted + 1] = name end
  table.sort(sorted, function(a, b) return docs[a].order < docs[b].order end)
  for _, name in ipairs(sorted) do
    it("has a right example of " .. name, function()
      local example = docs[name].example
      local lacking = blocks.lacking(example)
      if lacking then return pending(lacking) end
      local expected = blocks.expected(example)
      assert.is_true(#expected > 0, "it shows nothing")
      local wrong = blocks.difference(example, expected, function(line)
        return ("line %d of the example of %s"):format(line, name)
      end)
      assert.is_nil(wrong)
      assert.is_truthy(example:find(name:match "[%w_]+$", 1, true), "it does not use the name")
    end)
  end

  it("has an entry and an example on the pages for each", function()
    -- what LDoc reads; LDoc itself need not be here
    local directory = os.tmpname()
    os.remove(directory)
    assert(os.execute("mkdir '" .. directory .. "'"))
    local run = assert(loadfile(".ci/pages.lua", "t", setmetatable(
      { arg = { directory, "README.md" } }, { __index = _G })))
    run()
    local paths = { directory .. "/autodiff.lua", directory .. "/config.ld" }
    local entries, usages = {}, 0
    for line in io.lines(paths[1]) do
      assert.is_truthy(line == "" or line:find "^%-%-", line)
      local name = line:match "^%-%- @function (%S+)$" or line:match "^%-%- @field (%S+)$"
      if name then
        assert.is_nil(entries[name])
        entries[name] = true
      elseif line == "-- @usage" then
        usages = usages + 1
      end
    end
    assert.is_equal("", names.lacking(docs, entries))
    assert.is_equal(names.count(docs), names.count(entries))
    assert.is_equal(names.count(docs), usages)
    for _, path in ipairs(paths) do os.remove(path) end
    os.remove(directory)
  end)
end)
