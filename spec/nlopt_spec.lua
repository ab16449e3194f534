-- autodiff.optim.nlopt: NLopt's algorithms with derivatives from autodiff.
-- Where NLopt is not installed only its absence is tested.

local ad = require "autodiff"
local nlopt = require "autodiff.optim.nlopt"
local core = require "autodiff.core"

local inf = math.huge
local there, why = nlopt.available()
local given = there and it or pending

local function near(expected, got, tolerance, what)
  assert.is_true(math.abs(expected - got) <= tolerance,
    ("%s: %.17g expected, got %.17g"):format(what or "value", expected, got))
end

-- The example of NLopt's tutorial: least sqrt(y) above two cubics; at x = 1/3.
-- Not from its start: there SLSQP comes to the solution or not as the last bit
-- of t^3 or t*t*t falls, called from C as from here.
local function root(v) return ad.sqrt(v[2]) end
local function cubic(a, b)
  return function(v) return (a * v[1] + b) ^ 3 - v[2] end
end

-- Hock and Schittkowski, Test Examples for Nonlinear Programming Codes, 1981,
-- problem 71: x1 x4 (x1 + x2 + x3) + x3, product at least 25, squares 40.
local function hs71(x) return x[1] * x[4] * (x[1] + x[2] + x[3]) + x[3] end
local function product(x) return 25 - x[1] * x[2] * x[3] * x[4] end
local function sphere(x) return x[1] ^ 2 + x[2] ^ 2 + x[3] ^ 2 + x[4] ^ 2 - 40 end

describe("autodiff.optim.nlopt", function()
  it("says what to install when NLopt is not there", function()
    package.loaded["autodiff.optim.nlopt"] = nil
    local other = require "autodiff.optim.nlopt"
    package.loaded["autodiff.optim.nlopt"] = nlopt
    other.names = { "libnlopt-that-is-not-there.so" }
    local ok, message = other.available()
    assert.is_false(ok)
    assert.matches("^NLopt is not installed %(Debian has it in the package libnlopt0%): ", message)
    assert.is_truthy(message:find("libnlopt-that-is-not-there.so", 1, true))
    for _, f in ipairs { other.version, other.algorithms,
      function() return (other.minimize(root, { 1, 1 })) end } do
      local failed, err = pcall(function() return (f()) end)
      assert.is_false(failed)
      assert.matches("nlopt_spec.lua:%d+: nlopt: NLopt is not installed", err)
    end
    -- a library, but another one
    other.names = { "libm.so.6" }
    ok, message = other.available()
    assert.is_false(ok)
    assert.is_truthy(message:find("libm.so.6", 1, true))
  end)

  if not there then print("nlopt_spec: " .. why) end

  given("knows its version and algorithms", function()
    assert.matches("^%d+%.%d+%.%d+$", nlopt.version())
    local algorithms = nlopt.algorithms()
    assert.matches("COBYLA", algorithms.LN_COBYLA)
    assert.is_string(algorithms.LD_SLSQP)
  end)

  given("solves its tutorial's problem by several algorithms", function()
    for _, algorithm in ipairs { "LD_MMA", "LD_SLSQP", "LD_CCSAQ", "LN_COBYLA" } do
      local r = nlopt.minimize(root, { 1.2, 5 }, {
        algorithm = algorithm, lower = { -inf, 0.01 }, inequality = { cubic(2, 0), cubic(-1, 1) },
      })
      assert.is_true(r.converged, r.reason)
      assert.is_equal(4, r.code)
      assert.is_equal("x changes by less than its tolerance", r.reason)
      near(1 / 3, r.x[1], 1e-6, algorithm)
      near((8 / 27) ^ 0.5, r.value, 1e-7, algorithm)
      assert.is_equal(algorithm == "LN_COBYLA", r.gradient == nil)
      assert.is_true(r.evaluations >= r.iterations)
    end
  end)

  given("takes constraints with several results, in any structure", function()
    local calls = 0
    local both = function(v)
      calls = calls + 1
      return { first = (2 * v.x) ^ 3 - v.y, rest = { (1 - v.x) ^ 3 - v.y } }
    end
    for _, list in ipairs { { both }, { { both, tol = 1e-10 } },
      { { both, jacobian = ad.jacobian(both) } } } do
      local r = nlopt.minimize(function(v)
        assert.is_equal("kept", v.name)
        return ad.sqrt(v.y)
      end, { x = 1.2, y = 5, name = "kept" }, {
        lower = { x = -inf, y = 0.01 }, inequality = list,
      })
      assert.is_true(r.converged, r.reason)
      near(1 / 3, r.x.x, 1e-7)
      assert.is_equal("kept", r.x.name)
      near(0.5 / r.value, r.gradient.y, 1e-12)
      assert.is_equal(0, r.gradient.x)
    end
    assert.is_true(calls > 0)
  end)

  given("solves problem 71 of Hock and Schittkowski", function()
    local best = { 1, 4.74299963, 3.82114998, 1.37940829 }
    local inner = { algorithm = "LD_LBFGS", xtol_rel = 1e-6 }
    for algorithm, tolerance in pairs { LD_SLSQP = 1e-6, LD_AUGLAG = 1e-3 } do
      local r = nlopt.minimize(hs71, { 1, 5, 5, 1 }, {
        algorithm = algorithm, lower = 1, upper = 5, inequality = product, equality = sphere,
        inner = algorithm == "LD_AUGLAG" and inner or nil,
      })
      for i = 1, 4 do near(best[i], r.x[i], tolerance, algorithm .. " x" .. i) end
      near(17.0140173, r.value, 10 * tolerance, algorithm)
      near(0, sphere(r.x), 1e-6)
      assert.is_true(product(r.x) <= 1e-6)
    end
  end)

  given("takes arrays for x, bounds and constraints", function()
    if not (ad.array and ad.reshape) then return end
    local target = ad.array { { 3, -1 }, { 2, 5 } }
    local r = nlopt.minimize(function(p) return ad.sum((p.w - target) ^ 2) + p.b ^ 2 end,
      { w = ad.array { { 1, 1 }, { 1, 1 } }, b = 4 }, {
        lower = { w = ad.array { { 0, 0 }, { 0, 0 } }, b = -9 }, upper = 4,
        inequality = function(p) return p.w[1] - 2.5 end,
        equality = function(p) return p.b - p.w[{ 1, 1 }] end,
      })
    assert.is_true(r.converged, r.reason)
    local w = r.x.w:tolist()
    near(1.5, w[1][1], 1e-6)
    near(0, w[1][2], 1e-6)
    near(2, w[2][1], 1e-6)
    near(4, w[2][2], 1e-6)
    near(1.5, r.x.b, 1e-6)
    assert.same({ 2, 2 }, r.gradient.w.shape)
  end)

  given("solves for vectors with as many equations", function()
    local r = nlopt.minimize(function(v) return v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2 end, { 1, 1, 1 }, {
      equality = function(v) return { v[1] + v[2] - 1, v[2] + v[3] - 3 } end,
    })
    -- by Lagrange's multipliers: x = A'(AA')^-1 b
    near(-1 / 3, r.x[1], 1e-7)
    near(4 / 3, r.x[2], 1e-7)
    near(5 / 3, r.x[3], 1e-7)
  end)

  given("needs no derivatives where the algorithm asks for none", function()
    local plain = function(x)
      assert.is_equal("number", type(x))
      return math.floor(math.abs(x - 3) * 1e6)
    end
    local r = nlopt.minimize(plain, 0, { algorithm = "GN_DIRECT_L", lower = -10, upper = 17,
      maxeval = 500 })
    near(3, r.x, 0.01)
    assert.is_equal("maximum of 500 evaluations", r.reason)
    assert.is_false(r.converged)
    assert.is_nil(r.gradient)
    local one = nlopt.minimize(plain, 0, { algorithm = "GN_CRS2_LM", lower = -10, upper = 17,
      maxeval = 200, seed = 7, population = 20 })
    local two = nlopt.minimize(plain, 0, { algorithm = "GN_CRS2_LM", lower = -10, upper = 17,
      maxeval = 200, seed = 7, population = 20 })
    assert.same(one, two)
  end)

  given("hands its settings over", function()
    local function f(v) return (v[1] - 1) ^ 4 + (v[2] - 2) ^ 2 end
    local function minimize(opts)
      opts.algorithm = opts.algorithm or "LD_LBFGS"
      return nlopt.minimize(f, { 5, 5 }, opts)
    end
    assert.is_equal("value reached 0.5", minimize({ stopval = 0.5 }).reason)
    assert.is_equal(3, minimize({ ftol_rel = 0.5, xtol_rel = 0 }).code)
    assert.is_equal(3, minimize({ ftol_abs = 10, xtol_rel = 0 }).code)
    assert.is_equal(4, minimize({ xtol_abs = 1, xtol_rel = 0 }).code)
    assert.is_equal(4, minimize({ xtol_abs = { 1, 1 }, xtol_rel = 0 }).code)
    assert.is_equal("maximum of 3 evaluations", minimize({ maxeval = 3 }).reason)
    assert.is_true(minimize({ vector_storage = 3 }).converged)
    local seen = {}
    local r = nlopt.minimize(function(v)
      seen[#seen + 1] = v[1]
      return f(v)
    end, { 5, 5 }, { algorithm = "LN_NELDERMEAD", initial_step = { 0.25, 1 }, maxeval = 5 })
    assert.is_equal(5, r.evaluations)
    near(5.25, seen[2], 0)
    r = nlopt.minimize(function(v)
      local from = os.clock()
      while os.clock() < from + 0.02 do seen[1] = nil end
      return f(v)
    end, { 5, 5 }, { algorithm = "LN_NELDERMEAD", maxtime = 0.1, xtol_rel = 0 })
    assert.is_equal("maximum of 0.1 seconds", r.reason)
  end)

  given("calls back and reports", function()
    local reports = 0
    local r = nlopt.minimize(hs71, { 1, 5, 5, 1 }, {
      lower = 1, upper = 5, inequality = product, equality = sphere,
      callback = function(s)
        assert.is_equal("nlopt", s.method)
        assert.is_equal(hs71(s.x), s.value)
        return s.iteration == 3 and "three will do"
      end,
      progress = function() reports = reports + 1 end,
    })
    assert.is_equal("stopped by callback: three will do", r.reason)
    assert.is_equal(-5, r.code)
    assert.is_equal(3, r.iterations)
    assert.is_equal(4, reports)
    assert.is_equal(hs71(r.x), r.value)
  end)

  given("lets errors through as they are", function()
    local err = { "a table" }
    local count
    local function third(v)
      count = count + 1
      if count == 5 then error(err) end
      return v[1] ^ 2 + (v[2] - 1) ^ 4
    end
    for _, opts in ipairs {
      { algorithm = "LD_SLSQP" }, { algorithm = "LN_COBYLA" }, { algorithm = "LD_MMA" },
      { algorithm = "GN_ISRES", lower = -9, upper = 9 }, { algorithm = "LN_BOBYQA" },
      { algorithm = "GN_CRS2_LM", lower = -9, upper = 9 },
      { algorithm = "LD_TNEWTON_PRECOND_RESTART" }, { algorithm = "LD_VAR2" },
      { algorithm = "LN_SBPLX" },
      { algorithm = "GN_ESCH", lower = -9, upper = 9 },
      { algorithm = "G_MLSL_LDS", lower = -9, upper = 9, inner = { algorithm = "LD_LBFGS" } },
      { algorithm = "LD_AUGLAG_EQ", inner = { algorithm = "LD_MMA", xtol_rel = 1e-4 } },
    } do
      if nlopt.algorithms()[opts.algorithm] then
        count = 0
        local ok, got = pcall(nlopt.minimize, third, { 3, 4 }, opts)
        assert.is_false(ok, opts.algorithm)
        assert.is_equal(err, got, opts.algorithm)
        assert.is_equal(5, count, opts.algorithm)
      end
    end
    for _, name in ipairs { "inequality", "equality" } do
      count = 0
      local ok, got = pcall(nlopt.minimize, hs71, { 1, 5, 5, 1 }, { [name] = function(v)
        count = count + 1
        if count == 4 then error(err) end
        return { v[1] - 7, v[2] - 3 }
      end })
      assert.is_false(ok)
      assert.is_equal(err, got)
    end
    -- a yield cannot cross NLopt
    local co = coroutine.wrap(function()
      return select(2, pcall(nlopt.minimize, function(x)
        coroutine.yield()
        return x ^ 2
      end, 1))
    end)
    assert.matches("attempt to yield across a C%-call boundary", co())
  end)

  given("runs in a coroutine, and within itself", function()
    local outer = coroutine.wrap(function()
      return nlopt.minimize(function(x)
        local r = nlopt.minimize(function(y) return (y - 2) ^ 2 end, 0.0)
        return (x - r.x) ^ 2
      end, 5)
    end)()
    near(2, outer.x, 1e-6)
  end)

  given("frees what it made", function()
    local function used()
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local function some()
      for _ = 1, 20 do
        pcall(nlopt.minimize, function() error "x" end, { 1, 2 })
        nlopt.minimize(hs71, { 1, 5, 5, 1 }, { lower = 1, upper = 5, maxeval = 3,
          inequality = product, equality = sphere })
      end
    end
    some()
    local before = used()
    some()
    assert.is_true(used() - before < 20)
  end)

  given("complains as Lua does, at the caller's line", function()
    local function bad(message, ...)
      local args = table.pack(...)
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, got = pcall(function() return (nlopt.minimize(table.unpack(args, 1, args.n))) end)
      assert.is_false(ok)
      assert.is_equal(1, got:find("spec/nlopt_spec.lua:" .. line .. ": ", 1, true), got)
      assert.is_truthy(got:find(message, 1, true), got)
    end
    bad("bad argument #1 to 'minimize' (function expected, got nil)")
    bad("bad argument #2 to 'minimize' (number or table expected, got nil)", root)
    bad("bad argument #3 to 'minimize' (NLopt " .. nlopt.version() .. " has no algorithm 'SLSQP')",
      root, 1, { algorithm = "SLSQP" })
    bad("(unknown option 'tolerance')", root, 1, { tolerance = 1 })
    bad("minimize: lower[2]: number expected, got nil", root, { 1, 1 }, { lower = { 1 } })
    bad("(field 'upper': a bound is nan)", root, { 1, 1 }, { upper = 0 / 0 })
    bad("(field 'inequality': function or list of functions expected, got number)", root, { 1, 1 },
      { inequality = 1 })
    bad("(field 'equality': function expected, got string)", root, { 1, 1 },
      { equality = { "x" } })
    bad("(field 'equality': tol must be a number of at least 0)", root, { 1, 1 },
      { equality = { { root, tol = -1 } } })
    bad("inequality constraint 1 has no number in it", root, { 1, 1 },
      { inequality = function() return {} end })
    bad("(field 'initial_step': numbers other than 0 expected)", root, { 1, 1 },
      { initial_step = 0 })
    bad("(field 'inner': no algorithm)", root, { 1, 1 }, { inner = {} })
    bad("minimize: f must return a number, got string", function() return "x" end, 1,
      { algorithm = "LN_COBYLA" })
    -- what NLopt itself refuses
    bad("nlopt: ", root, { 1, 1 }, { algorithm = "LD_LBFGS", inequality = cubic(1, 0) })
    bad("nlopt: ", root, { 1, 1 }, { lower = 2 })
    bad("nlopt: ", hs71, { 1, 5, 5, 1 }, { algorithm = "LD_MMA", equality = sphere })
  end)

  given("does not crash on what the core's function is not meant for", function()
    local lib
    for _, name in ipairs(nlopt.names) do lib = lib or core.nlopt.load(name) end
    for _, problem in ipairs {
      { constraints = { {} }, x = { 1 }, algorithm = "LD_SLSQP", settings = {} },
      { constraints = { 1 }, x = { 1 }, algorithm = "LD_SLSQP", settings = {} },
      {}, { algorithm = "LD_SLSQP" }, { constraints = {}, x = {} },
      { constraints = {}, x = { 1 }, algorithm = "nonsense", settings = {} },
      { constraints = {}, x = { 1 }, algorithm = "LD_SLSQP", settings = {}, f = 1 },
      { constraints = {}, x = { 1 }, algorithm = "LD_SLSQP", settings = {},
        f = function() return 1 end },
      { constraints = {}, x = { 1 }, algorithm = "LD_SLSQP", settings = {},
        f = function() return { 1 } end },
    } do
      assert.is_false(pcall(core.nlopt.optimize, lib, problem))
    end
    for _, name in ipairs { "version", "algorithms", "optimize", "load" } do
      assert.is_false(pcall(core.nlopt[name], {}))
    end
  end)
end)
