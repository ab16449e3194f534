--- The property tests of operations on arrays in small, and tests of the
-- tests: a rule that is wrong in one mode must be found.

local ad = require("autodiff")
local core = require("autodiff.core")
local property = assert(loadfile("spec/array_property.lua"))("module")
local operations = require("support.operations")
local arrays = require("support.array_samples")

local cases, missing = operations.cases()

describe("operations on arrays", function()
  it("have samples, all of them", function()
    assert.are.equal("", table.concat(missing, " "))
    local names = {}
    for _, case in ipairs(cases) do names[case.name] = case end
    for name in pairs(require("autodiff.prim").all) do assert.is_table(names[name], name) end
    for _, op in ipairs(core.ops()) do
      local name = (op.list and "list " or "row ") .. op.name
      assert.is_table(names[name], name)
    end
  end)

  for _, case in ipairs(cases) do
    it("have right derivatives, and batches: " .. case.name, function()
      if case.lapack and not select(2, core.array.blas()) then
        return pending("there is no LAPACK (Debian: libopenblas0)")
      end
      local r = property.run({ case }, 8, 4)
      assert.are.equal("", table.concat(r.reports, "\n"))
      assert.is_true(r.passed >= 6)
    end)
  end
end)

describe("the property tests of arrays", function()
  -- What is said of an operation with these rules.
  local function reported(def)
    def.f = def.f or function(x) return x * x * x end
    local f = ad.custom(def)
    local case = { name = def.name, fixed = {}, sample = function(rng)
      return f, arrays.array(rng, arrays.shape(rng, 1, 3, true))
    end }
    return table.concat(property.run({ case }, 4, 1).reports, "\n")
  end

  it("have nothing to say of rules that are right", function()
    assert.are.equal("", reported { name = "right",
      jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end,
      vjp = function(w, _, x) return 3 * x * x * w end })
  end)

  it("find a tangent that is wrong", function()
    local text = reported { name = "wrong",
      jvp = function(p, t) return 3.00001 * p[1] * p[1] * t[1] end,
      vjp = function(w, _, x) return 3 * x * x * w end }
    assert.is_truthy(text:find("\n  forward:", 1, true), text)
    assert.is_falsy(text:find("\n  reverse:", 1, true), text)
  end)

  it("find a cotangent that is wrong", function()
    local text = reported { name = "wrong",
      jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end,
      vjp = function(w, _, x) return 3.00001 * x * x * w end }
    assert.is_truthy(text:find("\n  reverse:", 1, true), text)
    assert.is_falsy(text:find("\n  forward:", 1, true), text)
  end)

  it("find a second derivative that is wrong", function()
    local text = reported { name = "wrong",
      jvp = function(p, t) return 3 * p[1] * ad.stop(p[1]) * t[1] end,
      vjp = function(w, _, x) return 3 * x * ad.stop(x) * w end }
    assert.is_falsy(text:find("\n  forward:", 1, true), text)
    assert.is_falsy(text:find("\n  reverse:", 1, true), text)
    assert.is_truthy(text:find("forward over forward", 1, true), text)
    assert.is_truthy(text:find("reverse over reverse", 1, true), text)
  end)

  it("find what batches get wrong", function()
    local case = { name = "wrong", fixed = {}, sample = function(rng)
      local shape = arrays.shape(rng, 1, 2, true)
      return function(x) return x * (core.array.isbatch(x) and 2 or 1) end, arrays.array(rng, shape)
    end }
    local text = table.concat(property.run({ case }, 4, 1).reports, "\n")
    assert.is_truthy(text:find("vmap: element", 1, true), text)
    assert.is_falsy(text:find("\n  forward:", 1, true), text)
  end)

  it("are the same for the same seed", function()
    local some = { cases[1], cases[40] }
    assert.are.same(property.run(some, 2, 9), property.run(some, 2, 9))
  end)

  it("report errors with the sample", function()
    local case = { name = "failing", fixed = {}, sample = function()
      return function() error("no value") end, ad.ones(2, 3)
    end }
    local text = table.concat(property.run({ case }, 1, 5).reports, "\n")
    assert.is_truthy(text:find("failing, sample 1, seed 5, of (2, 3)", 1, true), text)
    assert.is_truthy(text:find("no value", 1, true), text)
  end)
end)
