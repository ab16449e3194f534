-- The programs in examples/host and the one in README.md, which embed Lua: built by `make hosts`
-- (or `make test`), run from here.

local build = os.getenv "AUTODIFF_BUILD" or "build"

local function run(name, arguments)
  local program = ("%s/host/%s"):format(build, name)
  local file = io.open(program)
  if not file then
    pending("not built: " .. program)
    return
  end
  file:close()
  local pipe = assert(io.popen(("%s %s 2>&1"):format(program, arguments or "")))
  local output = pipe:read "a"
  local _, _, code = pipe:close()
  return output, code
end

-- What the program says about a script.
local function minimise(script)
  local output, code = run("minimise", "examples/host/scripts/" .. script)
  if output then
    assert.equal(0, code, output)
    assert.truthy(output:find("0 bytes leaked", 1, true), output)
  end
  return output
end

describe("examples/host/minimise", function()
  for script, value in pairs { ["rosenbrock.lua"] = 0, ["spring.lua"] = -14.3239 } do
    it("minimises " .. script, function()
      local output = minimise(script)
      if not output then return end
      local found = tonumber(output:match "minimum (%S+) at")
      assert.is_true(found and math.abs(found - value) < 1e-3, output)
      assert.truthy(output:find("1 of 1 minimised", 1, true), output)
    end)
  end

  for script, message in pairs {
    ["bottomless.lua"] = "not enough memory",
    ["endless.lua"] = "limit of 20 million instructions reached",
    ["stubborn.lua"] = "limit of 20 million instructions reached",
    ["hungry.lua"] = "not enough memory",
    ["throws.lua"] = "error object is no string",
    ["fails.lua"] = "fails.lua:3: attempt to perform arithmetic on a nil value",
    ["nonsense.lua"] = "ad_gradient: function must return a number, got a table",
    ["nan.lua"] = "value or gradient at the start is not finite",
    ["reenter.lua"] = "reenter.lua:4: minimise: called from within the objective",
    ["finalizer.lua"] = "finalizer.lua:2: setmetatable: finalizers are not allowed",
    ["noise.lua"] = "noise.lua:3: more than 5 lines printed",
    ["syntax.lua"] = "syntax.lua:1: syntax error near '^'",
  } do
    it("stops " .. script, function()
      local output = minimise(script)
      if not output then return end
      assert.truthy(output:match "stopped: [^\n]*":find(message, 1, true), output)
      assert.truthy(output:find("0 of 1 minimised", 1, true), output)
    end)
  end

  it("goes on after a hostile script", function()
    local output = minimise "hungry.lua examples/host/scripts/rosenbrock.lua"
    if not output then return end
    assert.truthy(output:find("1 of 2 minimised", 1, true), output)
  end)

  it("says so when there is no such script", function()
    local output = minimise "none.lua"
    if not output then return end
    assert.truthy(output:find("cannot open", 1, true), output)
  end)
end)

describe("examples/host", function()
  it("runs a state per thread", function()
    local output, code = run("threads", "8")
    if not output then return end
    assert.equal(0, code, output)
    assert.truthy(output:find "8 threads: .*\nthe same results to the bit\n$", output)
  end)

  it("differentiates primitives of C twice", function()
    local output, code = run "primitive"
    if not output then return end
    assert.equal(0, code, output)
    assert.truthy(output:find("2   0.2238908  -0.5767248   0.0644716", 1, true), output)
    assert.truthy(output:find("laplace(u) = -0.572673615186, -u = -0.572673615186", 1, true))
  end)

  it("minimises a script's function of an array", function()
    local output, code = run "field"
    if not output then return end
    assert.equal(0, code, output)
    assert.truthy(output:find("24 by 40 points, as measured: off by 0.497\n", 1, true), output)
    assert.truthy(output:find "after %d+ products with the Hessian 241%.370\n", output)
    assert.truthy(output:find("gradient now below 1e-6, field off by 0.129\n", 1, true), output)
  end)

  it("has the program of README.md", function()
    local output, code = run "readme"
    if not output then return end
    assert.equal(0, code, output)
    local file <close> = assert(io.open "README.md")
    assert.equal(file:read "a":match "This prints `([^`]+)`" .. "\n", output)
  end)
end)
