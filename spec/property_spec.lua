--- The property tests in small, and tests of the tests: a derivative that is
-- wrong must be found, and shrunk to what is wrong.

local property = assert(loadfile("spec/property.lua"))("module")
local program = require("spec.support.program")
local ad = require("autodiff")

local function lines(text)
  return select(2, text:gsub("\n", "\n"))
end

-- Runs programs until one fails; returns what became of it.
local function first_failure(self, count, seed)
  for i = 1, count do
    local p = program.generate(self, seed, i)
    local order, numeric = property.plan(i)
    local failure = property.check(self, p, order, numeric)
    if type(failure) == "table" then
      return p, failure, property.report(self, p, failure, order, numeric)
    end
  end
end

local function with(spec)
  return property.setup{{name = "wrong", arity = 1, lo = -2, hi = 2, smooth = true,
    fn = ad.custom(spec)}}
end

local function cube(x) return x * x * x end

describe("random programs", function()
  it("agree in all modes", function()
    local self = property.setup()
    local r = property.run(self, 2000, 20240229)
    assert.are.equal("", table.concat(r.reports, "\n"))
    assert.are.same({}, r.uncovered)
    assert.are.same({}, self.missing)
    assert.is_true(r.passed > 1800)
  end)

  it("are the same for the same seed and index", function()
    local self = property.setup()
    for i = 1, 50 do
      local a = program.generate(self, 5, i)
      program.generate(self, 6, i + 1)
      local b = program.generate(self, 5, i)
      assert.are.equal(program.source(a), program.source(b))
      assert.are.same(a.x, b.x)
    end
  end)

  it("find a derivative that is wrong in every mode", function()
    local self = with{name = "wrong", f = cube,
      jvp = function(p, t) return 3.001 * p[1] * p[1] * t[1] end}
    local p, failure, report = first_failure(self, 2000, 3)
    assert.is_table(failure)
    assert.are.equal("d: differences", failure.label)
    assert.is_truthy(report:find("ad.wrong(", 1, true))
    assert.is_true(lines(program.source(p)) <= 6, report)
    assert.is_true(program.count(p, {}) <= 5, report)
  end)

  it("find a derivative that is wrong in one mode", function()
    local self = with{name = "wrong", f = cube,
      jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end,
      vjp = function(w, _, x) return 3.00001 * x * x * w end}
    local p, failure, report = first_failure(self, 2000, 4)
    assert.is_table(failure)
    assert.is_truthy(report:find("ad.wrong(", 1, true))
    assert.is_true(lines(program.source(p)) <= 6, report)
  end)

  it("find an error raised in one mode", function()
    local self = with{name = "wrong", f = cube,
      jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end,
      vjp = function() error("no way back") end}
    local p, failure, report = first_failure(self, 2000, 5)
    assert.is_table(failure)
    assert.is_truthy(failure.label:find("no way back", 1, true))
    assert.is_truthy(report:find("ad.wrong(", 1, true))
    assert.is_true(lines(program.source(p)) <= 6, report)
  end)

  it("do not complain about a rule that is right", function()
    local self = with{name = "wrong", f = cube,
      jvp = function(p, t) return 3 * p[1] * p[1] * t[1] end,
      vjp = function(w, _, x) return 3 * x * x * w end}
    local r = property.run(self, 500, 6)
    assert.are.equal("", table.concat(r.reports, "\n"))
  end)
end)

describe("the differences of the property tests", function()
  it("are accurate, and say how much", function()
    for _, case in ipairs{{math.sin, math.cos}, {math.exp, math.exp},
        {function(x) return 1 / (1 + x * x) end,
          function(x) return -2 * x / (1 + x * x) ^ 2 end}} do
      for _, at in ipairs{-1.3, 0.0, 0.7, 2.0} do
        local d, err = property.differences(function(t) return case[1](at + t) end, {}, 0.02)
        assert.is_true(err < 1e-9)
        assert.is_true(math.abs(d - case[2](at)) < 1e-9)
      end
    end
  end)

  it("keep clear of kinks", function()
    local trace = {}
    local function kinked(t)
      trace[1] = t < 0.001 and "left" or "right"
      return t < 0.001 and t or 5 * t
    end
    local d = property.differences(kinked, trace, 0.02)
    assert.is_true(math.abs(d - 1) < 1e-9)
    local function at_kink(t)
      trace[1] = t <= 0 and "left" or "right"
      return t <= 0 and t or 5 * t
    end
    assert.is_nil((property.differences(at_kink, trace, 0.02)))
  end)
end)
