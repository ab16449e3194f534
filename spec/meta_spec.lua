-- autodiff/meta.lua and autodiff/optim/meta.lua, the types for editors, declare
-- exactly the public names, and their annotations fit their declarations.

local names = require "support.names"
local docs = require "autodiff.docs"

local classes = {
  ad = "", Var = "var", Dual = "dual", Tape = "tape", Graph = "graph", optim = "optim",
  Optimizer = "optimizer", Random = "random", Array = "array", linalg = "linalg",
  Compiled = "compiled",
}

-- What the files declare: for each public name its annotations, which stand
-- in the lines above it, and its parameters.
local function read(...)
  local declared, types, mentioned, comment, class = {}, {}, {}, {}, nil
  local function declare(name, entry)
    assert(declared[name] == nil, name .. " is declared twice")
    declared[name] = entry
  end
  local function take(line)
    local tag, rest = line:match "^%-%-%-@(%a+) ?(.*)$"
    local words = not tag and line:match "^%-%-%-(.*)$"
    if tag == "class" or tag == "alias" then
      class = rest:match "^[%w_.]+"
      types[class] = true
    elseif tag == "field" and class then
      local prefix = class == "autodiff" and "" or classes[class:match "%.(%a+)$"]
      if prefix then
        local name = rest:match "^[%w_]+"
        declare(prefix == "" and name or prefix .. "." .. name, { field = true })
      end
    end
    if tag then
      comment[#comment + 1] = { tag = tag, rest = rest }
      for name in rest:gmatch "autodiff%.[%a]+" do
        if tag ~= "meta" then mentioned[name] = true end
      end
    elseif words then
      comment.text = comment.text and comment.text .. " " .. words or words
    elseif not line:find "^%-%-" then
      local owner, separator, name, params = line:match "^function (%a+)([.:])([%w_]+)%((.-)%)"
      if name then
        local prefix = assert(classes[owner], owner)
        assert(separator == (owner:find "^%l" and "." or ":"))
        declare(prefix == "" and name or prefix .. separator .. name,
          { params = params, comment = comment })
      end
      comment, class = {}, nil
    end
  end
  for _, path in ipairs { ... } do
    for line in io.lines(path) do take(line) end
  end
  return declared, types, mentioned
end

describe("autodiff/meta.lua", function()
  local path, second = "lua/autodiff/meta.lua", "lua/autodiff/optim/meta.lua"
  local declared, types, mentioned = read(path, second)

  it("is Lua, and is marked as declarations", function()
    assert.is_truthy(loadfile(path))
    assert.is_equal("---@meta autodiff", io.lines(path)())
    assert.is_truthy(loadfile(second))
    assert.is_equal("---@meta autodiff.optim", io.lines(second)())
  end)

  it("declares exactly the public names", function()
    local public = names.all()
    assert.is_equal("", names.lacking(public, declared), "not declared")
    assert.is_equal("", names.lacking(declared, public), "declared, but not there")
  end)

  it("has as many names as the module and its documentation", function()
    local count = names.count(names.all())
    assert.is_equal(count, names.count(declared))
    assert.is_equal(count, names.count(docs))
  end)

  it("annotates every parameter, in order, and the results", function()
    for name, entry in pairs(declared) do
      if not entry.field then
        local params, results, all = {}, 0, {}
        for _, c in ipairs(entry.comment) do
          if c.tag == "param" then
            local param, kind = c.rest:match "^([%w_.]+)%??%s+(%S.*)$"
            assert.is_truthy(kind, name)
            params[#params + 1] = param
          elseif c.tag == "return" then
            results = results + 1
          end
        end
        for param in entry.params:gmatch "[%w_.]+" do all[#all + 1] = param end
        assert.same(all, params, name)
        assert.is_true(results > 0 or name:find "backward$" ~= nil, name .. ": no @return")
      end
    end
  end)

  it("describes with the first sentences of the docstring", function()
    for name, entry in pairs(declared) do
      if not entry.field then
        local text = assert(entry.comment.text, name .. ": no description")
        assert.is_equal(docs[name].text:sub(1, #text), text, name)
        assert.is_truthy(text:find "[.?]$", name .. ": breaks off")
      end
    end
  end)

  it("has the parameters that the docstrings have", function()
    for name, entry in pairs(declared) do
      local inside = docs[name].sig:match "%b()"
      if not entry.field and inside and not docs[name].sig:find " or " then
        local required = inside:gsub("%b[]", ""):find "%w" ~= nil
        local optional = inside:find "%[" ~= nil
        assert.is_equal(required or optional, entry.params:find "[%w.]" ~= nil, name)
        local marked = false
        for _, c in ipairs(entry.comment) do
          if c.tag == "param" and c.rest:find "^[%w_]+%?" then marked = true end
        end
        assert.is_equal(optional, marked, name)
      end
    end
  end)

  it("mentions no type that it does not define", function()
    assert.is_equal("", names.lacking(mentioned, types))
  end)
end)
