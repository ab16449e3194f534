--- Every public function, called with every kind of wrong argument: an error
-- in Lua's own form or a result, never a crash, never a NaN where an error is
-- meant. The functions are listed from the module itself; one without an entry
-- below fails a test.

local ad = require("autodiff")

local nan, inf = 0 / 0, math.huge
local unpack = table.unpack

local function lightuserdata()
  local upvalue = 1
  local id = debug.upvalueid(function() return upvalue end, 1)
  return id
end

-- What a careless or malicious caller may pass: {description, value}.
local palette = {
  {"nil", nil}, {"true", true}, {"false", false}, {"a string", "text"}, {"an empty string", ""},
  {"a numeric string", "10"}, {"an empty table", {}}, {"a list", {1.0, 2.0}},
  {"a list of strings", {"a", "b"}}, {"a table with fields", {x = 1.0}},
  {"a function", function() end}, {"a C function", math.type}, {"a file", io.stdout},
  {"a thread", coroutine.create(function() end)}, {"a light userdata", lightuserdata()},
  {"NaN", nan}, {"inf", inf}, {"-inf", -inf}, {"zero", 0}, {"minus one", -1}, {"a fraction", 0.75},
  {"a huge number", 1e308}, {"a huge integer", math.maxinteger},
  {"the least integer", math.mininteger}, {"2^53", 2.0 ^ 53},
  {"a dual", ad.dual(1.5, 1.0)}, {"a var", ad.var(1.5)},
  {"a table with a metatable", setmetatable({}, {__index = function() error("index") end})},
}

-- For functions of values; transforms of arrays have specs of their own.
local with_arrays = {
  {"an array", ad.array{{1.5, 2.5}, {3.5, 4.5}}}, {"an empty array", ad.zeros(0)},
  {"a var of an array", ad.var(ad.array{1.5, 2.5, 3.5})},
}
for _, p in ipairs(palette) do table.insert(with_arrays, p) end

local by_name = {}
for _, p in ipairs(with_arrays) do by_name[p[1]] = p end

local function choose(...)
  local list = {}
  for k, name in ipairs{...} do
    list[k] = by_name[name] or error("no " .. name)
  end
  return list
end

-- What is certainly wrong for each kind of parameter. A trailing `?` in an
-- entry's kinds makes nil a default.
local wrong = {
  number = choose("nil", "true", "false", "a string", "a function", "a file", "a thread",
    "a light userdata", "an empty string"),
  condition = choose("nil", "a string", "a function", "a file", "a thread", "a light userdata"),
  callable = choose("nil", "true", "a string", "zero", "a fraction", "an empty table", "a list",
    "a file", "a thread", "a light userdata", "a dual", "a var"),
  list = choose("nil", "true", "a string", "a function", "a file", "a thread",
    "a light userdata", "a list of strings"),
  -- A table of arguments, whatever they are.
  args = choose("nil", "true", "a string", "zero", "a function", "a file", "a thread",
    "a light userdata"),
  count = choose("true", "a string", "an empty table", "a function", "a file", "a thread",
    "a light userdata", "NaN", "inf", "-inf", "minus one", "a fraction", "a huge number",
    "a huge integer", "the least integer", "2^53"),
  position = choose("true", "a string", "a function", "a file", "a thread", "a light userdata",
    "NaN", "inf", "zero", "minus one", "a fraction", "a huge number", "the least integer",
    "a list of strings"),
  options = choose("true", "a string", "zero", "a function", "a file", "a thread",
    "a light userdata"),
  array = choose("nil", "true", "a string", "zero", "a function", "a list", "a file", "a thread",
    "a light userdata", "a dual", "a var"),
  axis = choose("true", "a string", "a function", "a file", "a thread", "a light userdata",
    "NaN", "inf", "zero", "a fraction", "a huge number", "the least integer",
    "a list of strings", "an array"),
  axes = choose("true", "a string", "a function", "a file", "a thread", "a light userdata",
    "NaN", "inf", "zero", "a fraction", "a huge number", "a list of strings", "an array"),
  integers = choose("nil", "true", "a string", "a function", "a file", "a thread",
    "a light userdata", "NaN", "inf", "a fraction", "a huge number", "a list of strings"),
  indices = choose("nil", "true", "a string", "a function", "a file", "a thread",
    "a light userdata", "a list of strings"),
  any = {},
}

---------------------------------------------------------------------------
-- What every function takes: its valid arguments and the kinds of them.

local entries = {}

local function entry(name, valid, ...)
  entries[name] = {valid = valid, kinds = {...}}
end

local function valid_for(name)
  local valid = entries[name] and entries[name].valid or {}
  return type(valid) == "function" and valid() or valid
end

for _, name in ipairs{"abs", "ceil", "cos", "deg", "exp", "floor", "rad", "sin", "sqrt", "tan",
    "modf", "sinh", "cosh", "tanh", "asinh", "exp2", "expm1", "log1p", "log2", "log10", "cbrt",
    "erf", "erfc", "lgamma", "digamma", "sigmoid", "softplus", "relu", "sign", "acos", "asin",
    "atanh"} do
  entry(name, {0.5}, "number")
end
entry("acosh", {1.5}, "number")
for _, name in ipairs{"fmod", "pow", "atan2", "hypot", "eq", "lt", "le"} do
  entry(name, {1.5, 2.5}, "number", "number")
end
entry("atan", {0.5}, "number", "number?")
entry("log", {0.5}, "number", "number?")
entry("clamp", {0.5, 0.0, 1.0}, "number", "number", "number")
entry("where", {true, 1.0, 2.0}, "condition", "number", "number")
entry("max", {{1.0, 2.0}}, "list")
entry("min", {{1.0, 2.0}}, "list")
for _, name in ipairs{"sum", "prod", "mean", "norm", "logsumexp", "softmax"} do
  entry(name, {{1.0, 2.0}}, "list")
end
entry("dot", {{1.0, 2.0}, {3.0, 4.0}}, "list", "list")

local function square(x) return x * x end
local function total(t) return type(t) == "table" and t[1] * t[2] or t * t end
local function pair(t) return {t[1] * t[2], t[1]} end

entry("grad", {square}, "callable", "position?")
entry("value_and_grad", {square}, "callable", "position?")
entry("jvp", {square, {1.0}, {1.0}}, "callable", "args", "args")
entry("linearize", {square, 1.0}, "callable", "any")
entry("vjp", {square, 1.0}, "callable", "any")
entry("jacobian", {pair}, "callable", "position?")
entry("jacfwd", {pair}, "callable", "position?")
entry("jacrev", {pair}, "callable", "position?")
entry("hessian", {total}, "callable", "position?")
entry("hvp", {total, {1.0, 2.0}, {1.0, 0.0}}, "callable", "any", "any")
entry("derivative", {square}, "callable", "count?")
entry("taylor", {square, 1.0, 2}, "callable", "number", "count")
entry("stop", {1.0}, "any")
entry("no_grad", {square, 1.0}, "callable", "any")
entry("checkpoint", {square}, "callable")
entry("compile", {square}, "callable", "options?")
local function square_rule(p, t) return 2 * p[1] * t[1] end
entry("custom", {{name = "square", f = square, jvp = square_rule}}, "args")
entry("implicit", {{f = function(x, t) return x - t end, solve = function(t) return t end}}, "args")
entry("check", {square, {1.0}}, "callable", "args", "options?")
entry("tape", {}, "options?")
entry("var", {1.0}, "number")
entry("dual", {1.0, 1.0}, "number", "number?")
entry("backward", function()       -- which frees the graph
  local x = ad.var(2.0)
  return {{x * x}, {x}}
end, "args", "args?", "args?")
entry("value", {1.0}, "any")
entry("type", {1.0}, "any")
entry("install", {{}}, "options?")
entry("random", {1}, "number")
entry("vmap", {ad.sin, 1}, "callable", "axes?")

local matrix = by_name["an array"][2]
for _, name in ipairs{"argmax", "argmin", "std", "log_softmax", "cumsum", "sort", "argsort",
    "transpose", "flip"} do
  entry(name, {matrix}, "array", "axis?")
end
entry("squeeze", {ad.ones(1, 2)}, "array", "axis?")
entry("expand_dims", {matrix, 1}, "array", "axis")
entry("reshape", {matrix, {4}}, "array", "integers")
entry("broadcast_to", {matrix, {3, 2, 2}}, "any", "integers")
entry("concat", {{matrix, matrix}, 1}, "list", "axis?")
entry("stack", {{matrix, matrix}, 1}, "list", "axis?")
entry("split", {matrix, 2, 1}, "array", "integers", "axis?")
entry("take", {matrix, {1, 2}, 1}, "array", "indices", "axis?")
entry("scatter_add", {matrix, {1}, matrix[{{1, 1}}], 1}, "array", "indices", "any", "axis?")
entry("pad", {matrix, 1}, "array", "integers", "number?")
entry("tile", {matrix, 2}, "array", "integers")
entry("maximum", {1.5, 2.5}, "number", "number")
entry("minimum", {1.5, 2.5}, "number", "number")

-- Sections 5 to 9 have specs of their own; until one lists a name here with
-- its parameters, it gets the arbitrary calls below and nothing stricter.
local elsewhere = {explain = true, graph = true, debug_nans = true, compile = true,
  array = true, zeros = true, ones = true, full = true, eye = true, arange = true,
  linspace = true, save = true, load = true, load_program = true, matmul = true, outer = true,
  einsum = true}

local public = {}
for name, f in pairs(ad) do
  -- A file called "text" would be left behind by some.
  if type(name) == "string" and type(f) == "function" and name ~= "save" then
    public[#public + 1] = name
  end
end
table.sort(public)

---------------------------------------------------------------------------
-- Judging a call

-- Calls f under its name, since Lua takes the names in its messages from the
-- calling instruction.
local function named(path)
  local source = ("local ad = ... return function(...) local r = table.pack(%s(...)) "
    .. "return table.unpack(r, 1, r.n) end"):format(path)
  return assert(load(source, "=call", "t"))
end

local function caller(name)
  return named("ad." .. name)(ad)
end

local function listing(values, n)
  local out = {}
  for k = 1, n do
    out[k] = tostring(values[k])
    for _, p in ipairs(with_arrays) do
      if rawequal(p[2], values[k]) then out[k] = p[1] end
    end
  end
  return table.concat(out, ", ")
end

-- The texts that the manual gives to errors, beside Lua's own.
local documented = {
  "bad argument #%d+ to '", "bad self", "must return a number", "contains itself", "persistent",
  "closed", "retain", "no argument %d+", "not enough memory", "stack overflow", "jvp", "vjp",
  "shapes", "structure", "^index$", ": index$", "array is too large", "got an array",
  "cannot write into an array", "an array holds plain numbers",
}

-- Whether `e` is an error that a user can do something about: Lua's own, or
-- the library's, which begin with the name of a function. The library's own
-- files may not be where an operation on a wrong type came to light.
local function proper(e)
  if type(e) ~= "string" then return false end
  if e:find("autodiff[%w/_]*%.lua:%d+: ") then return false end
  if e:find("assertion failed", 1, true) or e:find("does not end", 1, true) then return false end
  if e:find("attempt to", 1, true) then return true end
  local name = e:gsub("^[^%s:]+:%d+: ", ""):match("^([%a_]+) ?'?[%w_]*'?: .")
  if name and (ad[name] or name == "gradient" or name == "pull" or name == "lin") then
    return true
  end
  for _, pattern in ipairs(documented) do
    if e:find(pattern) then return true end
  end
  return false
end

local function has_nan(x, depth)
  if type(x) == "table" and depth < 4 and not getmetatable(x) then
    for _, v in pairs(x) do
      if has_nan(v, depth + 1) then return true end
    end
    return false
  end
  local ok, v = pcall(ad.value, x)
  return ok and type(v) == "number" and v ~= v
end

-- The numbers of the palette, which may well lie outside a function's domain,
-- and what counts as a number.
local numeric = {["10"] = true}
for _, p in ipairs(with_arrays) do
  local v = p[2]
  if ad.type(v) and v == v then numeric[v] = true end
end

-- Whether a NaN may come of this by arithmetic.
local function outside(v, depth)
  if v == nil then return false end
  if v ~= v or numeric[v] then return true end
  if type(v) == "table" and not getmetatable(v) and depth < 4 then
    for _, inner in pairs(v) do
      if outside(inner, depth + 1) then return true end
    end
  end
  return false
end

local function extreme(values, n)
  for k = 1, n do
    if outside(values[k], 1) then return true end
  end
  return false
end

local function undo(results)
  if type(results[2]) == "function" then pcall(results[2]) end
end

-- A call that does not end is a failure like any other.
local function timed(f, ...)
  local co = coroutine.running()
  debug.sethook(co, function() error("does not end", 2) end, "", 200000000)
  local r = table.pack(pcall(f, ...))
  debug.sethook(co)
  return r
end

-- A call with arbitrary arguments, after which the library must be whole.
local function survives(f, values, n, what, loose)
  local r = timed(f, unpack(values, 1, n))
  if what == "install" and r[1] then undo(r) end
  local text = ("%s(%s)"):format(what, listing(values, n))
  if not r[1] then
    assert.is_true(proper(r[2]), text .. " gave the error: " .. tostring(r[2]))
  elseif not loose and not extreme(values, n) then
    for k = 2, r.n do
      assert.is_false(has_nan(r[k], 0), text .. " gave NaN")
    end
  end
  return unpack(r, 1, r.n)
end

-- A call that must be an error of the given pattern.
local function refused(pattern, f, values, n, what)
  local r = timed(f, unpack(values, 1, n))
  local ok, e = r[1], r[2]
  local text = ("%s(%s)"):format(what, listing(values, n))
  assert.is_false(ok, text .. " gave no error")
  assert.is_string(e, text)
  assert.is_truthy(e:find(pattern), text .. " gave the error: " .. e)
  -- The position is the caller's, not one in the library.
  assert.is_nil(e:find("autodiff[%w/_]*%.lua:%d+: bad argument"), text .. " gave: " .. e)
end

local function with(valid, k, value)
  local values = {}
  local n = math.max(#valid, k)
  for j = 1, n do values[j] = valid[j] end
  values[k] = value
  return values, n
end

local function kind_of(text)
  local kind, optional = text:match("^(%a+)(%??)$")
  return kind, optional == "?"
end

---------------------------------------------------------------------------

describe("arguments", function()
  local math_before = math

  after_each(function()
    ad.debug_nans(false)
    assert.are.equal(math_before, _G.math)
    -- Whatever came before, no transform is left running.
    assert.are.equal("number", math.type(ad.grad(square)(3.0)) and "number")
    assert.are.equal(6.0, (ad.grad(square)(3.0)))
  end)

  it("are described here for every public function", function()
    local unknown = {}
    for _, name in ipairs(public) do
      if not entries[name] and not elsewhere[name] then unknown[#unknown + 1] = name end
    end
    assert.are.equal("", table.concat(unknown, " "))
  end)

  it("are described here for functions that exist", function()
    for name in pairs(entries) do
      assert.are.equal("function", type(ad[name]), name)
    end
  end)

  describe("that are valid are accepted by", function()
    for name in pairs(entries) do
      it(name, function()
        local r = table.pack(pcall(caller(name), unpack(valid_for(name))))
        if name == "install" then undo(r) end
        assert.is_true(r[1], tostring(r[2]))
      end)
    end
  end)

  describe("of the wrong type are refused by", function()
    for name, e in pairs(entries) do
      it(name, function()
        local f = caller(name)
        for k, text in ipairs(e.kinds) do
          local kind, optional = kind_of(text)
          for _, p in ipairs(wrong[kind]) do
            local exempt = p[1] == "nil" and optional
            -- What a returned function is called with decides about positions.
            local later = kind == "position" or (kind == "count" and name == "derivative")
            if not exempt and not later then
              local values, n = with(valid_for(name), k, p[2])
              refused(("bad argument #%d to '%s'"):format(k, name), f, values, n, name)
            end
          end
        end
      end)
    end
  end)

  describe("that are missing are refused by", function()
    for name, e in pairs(entries) do
      local required = 0
      for k, text in ipairs(e.kinds) do
        local kind, optional = kind_of(text)
        if not optional and kind ~= "any" then required = k end
      end
      if required > 0 then
        it(name, function()
          local f = caller(name)
          for n = 0, required - 1 do
            refused(("bad argument #%%d+ to '%s'"):format(name), f, valid_for(name), n, name)
          end
        end)
      end
    end
  end)

  it("beyond the last are ignored by functions of numbers", function()
    for name, e in pairs(entries) do
      local numbers = true
      for _, text in ipairs(e.kinds) do
        numbers = numbers and text == "number"
      end
      if numbers and name ~= "var" and name ~= "dual" and name ~= "random" then
        local n = #valid_for(name)
        local values = {unpack(valid_for(name))}
        values[n + 1], values[n + 2] = "more", {}
        local ok, y = pcall(caller(name), unpack(values, 1, n + 2))
        assert.is_true(ok, name .. ": " .. tostring(y))
        assert.are.equal(ad[name](unpack(valid_for(name))), y, name)
      end
    end
  end)

  describe("of every kind, alone, leave no mess in", function()
    for _, name in ipairs(public) do
      it(name, function()
        local f = caller(name)
        survives(f, {}, 0, name)
        for k = 1, 4 do
          for _, p in ipairs(name == "check" and palette or with_arrays) do
            local values, n = with(valid_for(name), k, p[2])
            survives(f, values, n, name)
          end
        end
      end)
    end
  end)

  describe("of every kind, combined, leave no mess in", function()
    for at, name in ipairs(public) do
      it(name, function()
        local f = caller(name)
        math.randomseed(17, at)
        local from = name == "check" and palette or with_arrays
        for _ = 1, 300 do
          local values, n = {}, math.random(0, 5)
          for k = 1, n do values[k] = from[math.random(#from)][2] end
          survives(f, values, n, name, true)
        end
      end)
    end
  end)

  it("of every kind leave no mess in ad.math", function()
    for name, f in pairs(ad.math) do
      if type(f) == "function" and name ~= "randomseed" then
        local g = named("ad." .. name)(ad.math)
        for _, p in ipairs(palette) do
          survives(g, {p[2]}, 1, "math." .. name)
          survives(g, {0.5, p[2]}, 2, "math." .. name)
        end
      end
    end
  end)

  it("give the same names in ad.math as in math", function()
    for name, v in pairs(math) do
      assert.are.equal(type(v), type(ad.math[name]), name)
    end
    for name in pairs(ad.math) do
      assert.is_not_nil(math[name], name)
    end
  end)
end)

describe("list functions", function()
  local lists = {"sum", "prod", "mean", "norm", "logsumexp", "softmax", "max", "min"}

  it("refuse lists with something else than numbers", function()
    for _, name in ipairs(lists) do
      for _, bad in ipairs{"text", true, {}, print, io.stdout} do
        refused(("bad argument #1 to '%s'"):format(name), caller(name), {{1.0, bad, 2.0}}, 1, name)
      end
    end
    refused("bad argument #2 to 'dot'", caller("dot"), {{1.0, 2.0}, {1.0, "x"}}, 2, "dot")
  end)

  it("take empty lists where there is an answer", function()
    assert.are.equal(0, ad.sum{})
    assert.are.equal(1, ad.prod{})
    assert.are.equal(0, ad.dot({}, {}))
    assert.are.equal(0, ad.norm{})
    assert.are.same({}, ad.softmax{})
    for _, name in ipairs{"mean", "max", "min", "logsumexp"} do
      survives(caller(name), {{}}, 1, name)
    end
  end)

  it("refuse lists of different lengths", function()
    refused("bad argument #%d to 'dot'", caller("dot"), {{1.0, 2.0}, {1.0}}, 2, "dot")
  end)

  it("refuse calls of max and min without numbers", function()
    for _, name in ipairs{"max", "min"} do
      refused("bad argument #1 to '" .. name .. "'", caller(name), {}, 0, name)
      refused("bad argument #2 to '" .. name .. "'", caller(name), {1.0, "text"}, 2, name)
      refused("bad argument #3 to '" .. name .. "'", caller(name), {1.0, 2.0, {}}, 3, name)
      assert.are.equal(1.5, ad[name](1.5))
    end
  end)
end)

describe("transforms", function()
  local transforms = {"grad", "value_and_grad", "jacobian", "jacfwd", "jacrev", "hessian",
    "derivative", "checkpoint", "compile"}
  local argument = {grad = 1.0, value_and_grad = 1.0, jacobian = {1.0, 2.0},
    jacfwd = {1.0, 2.0}, jacrev = {1.0, 2.0}, hessian = {1.0, 2.0}, derivative = 1.0,
    checkpoint = 1.0, compile = 1.0}

  it("name what they expected", function()
    for _, name in ipairs(transforms) do
      refused(("bad argument #1 to '%s' %%(function expected, got nil%%)"):format(name),
        caller(name), {nil}, 1, name)
      refused(("bad argument #1 to '%s' %%(function expected, got table%%)"):format(name),
        caller(name), {{}}, 1, name)
    end
  end)

  it("refuse wrong positions, at once or when called", function()
    for _, name in ipairs{"grad", "value_and_grad", "jacobian", "jacfwd", "jacrev", "hessian"} do
      local x = argument[name]
      local f = valid_for(name)[1]
      local function both(argnum)
        local transform = named("ad." .. name)(ad)
        local r = table.pack(transform(f, argnum)(x))
        return unpack(r, 1, r.n)
      end
      for _, p in ipairs(wrong.position) do
        refused("bad argument #2 to", both, {p[2]}, 1, name)
      end
      refused("bad argument #2 to '[%a_]+' %(no argument 3: called with 1%)", both, {3}, 1, name)
    end
    local function list(argnums) return ad.grad(square, argnums)(1.0) end
    refused("bad argument #2 to", list, {{0}}, 1, "grad")
    refused("bad argument #2 to", list, {{1.5}}, 1, "grad")
    refused("bad argument #2 to", list, {{1, 2}}, 1, "grad")
    refused("bad argument #2 to", list, {{{}}}, 1, "grad")
  end)

  it("refuse wrong orders, at once or when called", function()
    local function order(n) return (ad.derivative(square, n)(1.0)) end
    for _, p in ipairs(wrong.count) do
      refused("bad argument #2 to", order, {p[2]}, 1, "derivative")
    end
    assert.are.equal(2.0, order(2))
    assert.are.equal(2.0, order(1.0))
  end)

  it("survive everything that their functions are called with", function()
    for _, name in ipairs(transforms) do
      local f = ad[name](valid_for(name)[1])
      survives(f, {}, 0, name .. "(f)")
      for _, p in ipairs(palette) do
        survives(f, {p[2]}, 1, name .. "(f)")
        survives(f, {argument[name], p[2]}, 2, name .. "(f)")
        survives(f, {{p[2]}}, 1, name .. "(f)")
        survives(f, {{1.0, p[2]}}, 1, name .. "(f)")
        survives(f, {{1.0, {p[2]}, k = p[2]}}, 1, name .. "(f)")
      end
    end
  end)

  it("survive everything that f returns", function()
    for _, p in ipairs(palette) do
      local function f() return p[2] end
      local says = extreme({p[2]}, 1)
      for _, name in ipairs(transforms) do
        survives(ad[name](f), {1.0}, 1, name .. "(f)", says)
        survives(ad[name](f), {{1.0, 2.0}}, 1, name .. "(f)", says)
      end
      survives(ad.jvp, {f, {1.0}, {1.0}}, 3, "jvp", says)
      survives(ad.vjp, {f, 1.0}, 2, "vjp", says)
      survives(ad.linearize, {f, 1.0}, 2, "linearize", says)
      survives(ad.taylor, {f, 1.0, 2}, 3, "taylor", says)
      survives(ad.hvp, {f, 1.0, 1.0}, 3, "hvp", says)
      survives(ad.no_grad, {f, 1.0}, 2, "no_grad", says)
      survives(ad.check, {f, {1.0}}, 2, "check", says)
    end
  end)

  it("refuse an f that returns no number, by name", function()
    for _, name in ipairs{"grad", "value_and_grad"} do
      local function of(value)
        return function() return (ad[name](function() return value end)(1.0)) end
      end
      refused(name .. ": function must return a number, got a table; "
        .. "for several outputs use ad.jacobian", of({}), {}, 0, name)
      refused("must return a number", of("text"), {}, 0, name)
      refused("must return a number", of(nil), {}, 0, name)
      refused("must return a number", of(true), {}, 0, name)
    end
  end)

  it("pass on whatever f raises", function()
    for _, p in ipairs(palette) do
      local function f() error(p[2], 0) end
      for _, name in ipairs(transforms) do
        local ok, e = pcall(ad[name](f), argument[name])
        assert.is_false(ok)
        assert.is_true(rawequal(e, p[2]) or (e ~= e and p[2] ~= p[2]), name .. ": " .. p[1])
      end
      local ok, e = pcall(ad.jvp, f, {1.0}, {1.0})
      assert.is_false(ok)
      assert.is_true(rawequal(e, p[2]) or (e ~= e and p[2] ~= p[2]), "jvp: " .. p[1])
    end
  end)

  it("refuse tangents that do not fit", function()
    local function f(x, y) return x * (y or 1) end
    local function jvp(...) return ad.jvp(f, ...) end
    local mismatches = {{{1.0}, {}}, {{1.0, 2.0}, {1.0}}, {{1.0}, {"x"}}, {{1.0}, {{1.0}}},
      {{{1.0}}, {1.0}}, {{1.0}, {print}}}
    for _, pt in ipairs(mismatches) do
      local ok, e = pcall(jvp, pt[1], pt[2])
      assert.is_false(ok)
      assert.is_true(proper(e), tostring(e))
    end
    local _, lin = ad.linearize(f, 1.0, 2.0)
    survives(lin, {}, 0, "lin")
    survives(lin, {1.0}, 1, "lin")
    local _, pull = ad.vjp(f, 1.0, 2.0)
    survives(pull, {}, 0, "pull")
    local _, listpull = ad.vjp(function(t) return {t[1], t[2]} end, {1.0, 2.0})
    for _, p in ipairs(palette) do
      survives(lin, {p[2], 1.0}, 2, "lin")
      survives(pull, {p[2]}, 1, "pull")
      survives(pull, {1.0, p[2]}, 2, "pull")
      survives(listpull, {p[2]}, 1, "pull")
      survives(listpull, {{1.0, p[2]}}, 1, "pull")
    end
    local hvp = function(x, v) return ad.hvp(total, x, v) end
    for _, p in ipairs(palette) do
      survives(hvp, {{1.0, 2.0}, p[2]}, 2, "hvp")
      survives(hvp, {p[2], {1.0, 2.0}}, 2, "hvp")
      survives(hvp, {{1.0, 2.0}, {1.0, p[2]}}, 2, "hvp")
    end
  end)

  it("refuse structures that contain themselves", function()
    local loop = {1.0}
    loop[2] = {loop}
    local function first(t) return t[1] end
    for _, f in ipairs{ad.grad(first), ad.value_and_grad(first), ad.jacobian(first),
        ad.jacrev(first), ad.jacfwd(first), ad.hessian(first), ad.checkpoint(ad.grad(first)),
        function(t) return ad.jvp(first, {t}, {t}) end,
        function(t) return ad.vjp(first, t) end,
        function(t) return ad.linearize(first, t) end,
        function(t) return ad.hvp(first, t, t) end,
        function(t) return ad.stop(t) end,
        function(t) return ad.check(first, {t}) end,
        function(t) return ad.compile(first)(t) end,
        function(t) local tape <close> = ad.tape() return tape:var(t) end} do
      local ok, e = pcall(f, loop)
      assert.is_false(ok)
      assert.is_string(e)
      assert.is_truthy(e:find("contains itself", 1, true), e)
    end
  end)

  it("survive structures of any depth", function()
    local deep = 1.0
    for _ = 1, 20000 do deep = {deep} end
    local function bottom(t)
      while ad.type(t) == nil do t = t[1] end
      return t
    end
    survives(ad.grad(bottom), {deep}, 1, "grad(f)")
    survives(ad.jvp, {bottom, {deep}, {deep}}, 3, "jvp")
    survives(ad.stop, {deep}, 1, "stop")
    survives(ad.vjp, {bottom, deep}, 2, "vjp")
  end)

  it("survive recursion without end", function()
    local function forever(x) return 1 + forever(x * 1.0) end
    for _, name in ipairs{"grad", "derivative", "jacobian", "checkpoint"} do
      local ok = pcall(ad[name](forever), 1.0)
      assert.is_false(ok)
    end
    local function nested(x) return (ad.grad(nested)(x)) end
    local ok, e = pcall(ad.grad(nested), 1.0)
    assert.is_false(ok)
    assert.is_string(e)
    local function forward(x) return (select(2, ad.jvp(forward, {x}, {1.0}))) end
    ok, e = pcall(forward, 1.0)
    assert.is_false(ok)
    assert.is_string(e)
  end)
end)

describe("rules", function()
  it("of custom functions are checked", function()
    local function make(spec) return ad.custom(spec) end
    for _, p in ipairs(wrong.callable) do
      if p[1] ~= "nil" then
        refused("bad argument #1 to", make, {{name = "g", f = p[2], jvp = square}}, 1, "custom")
        refused("bad argument #1 to", make, {{name = "g", f = square, jvp = p[2]}}, 1, "custom")
        refused("bad argument #1 to", make, {{name = "g", f = square, vjp = p[2]}}, 1, "custom")
      end
    end
    refused("bad argument #1 to", make, {{}}, 1, "custom")
  end)

  it("of custom functions that are missing are named", function()
    local ok, e = pcall(function()
      return (ad.grad(ad.custom{name = "lonely", f = square})(1.0))
    end)
    assert.is_false(ok)
    assert.is_truthy(e:find("lonely", 1, true), e)
    assert.is_truthy(e:find("[jv][vj]p"), e)
  end)

  it("of custom functions may return anything", function()
    for _, p in ipairs(palette) do
      local forward = ad.custom{name = "g", f = square, jvp = function() return p[2] end}
      local reverse = ad.custom{name = "g", f = square, vjp = function() return p[2] end}
      local value = ad.custom{name = "g", f = function() return p[2] end,
        jvp = function() return 1.0 end, vjp = function() return 1.0 end}
      for _, g in ipairs{forward, reverse, value} do
        survives(g, {p[2]}, 1, "custom")
        -- A rule that says NaN or inf is obeyed.
        local says = extreme({p[2]}, 1)
        survives(ad.grad(g), {1.0}, 1, "grad(custom)", says)
        survives(function(x) return ad.jvp(g, {x}, {1.0}) end, {1.0}, 1, "jvp(custom)", says)
      end
    end
  end)

  it("of implicit functions are checked", function()
    local function make(spec) return ad.implicit(spec) end
    for _, p in ipairs(wrong.callable) do
      refused("bad argument #1 to", make, {{f = p[2], solve = square}}, 1, "implicit")
      refused("bad argument #1 to", make, {{f = square, solve = p[2]}}, 1, "implicit")
    end
    for _, p in ipairs(palette) do
      local g = ad.implicit{f = function(x, t) return x - t end, solve = function() return p[2] end}
      survives(g, {1.0}, 1, "implicit", extreme({p[2]}, 1))
      survives(ad.grad(g), {1.0}, 1, "grad(implicit)", extreme({p[2]}, 1))
      local h = ad.implicit{f = function() return p[2] end, solve = function(t) return t end}
      survives(h, {1.0}, 1, "implicit")
      survives(ad.grad(h), {1.0}, 1, "grad(implicit)", true)
    end
  end)
end)

describe("tapes", function()
  local methods = {"var", "gradient", "stop", "reset", "close"}

  -- Methods that are not in the manual get the arbitrary calls too.
  local index = debug.getmetatable(ad.tape()).__index
  for name, v in pairs(type(index) == "table" and index or {}) do
    local known = type(v) ~= "function" or name:find("^__")
    for _, method in ipairs(methods) do known = known or name == method end
    if not known then methods[#methods + 1] = name end
  end

  it("are not to be replaced by something else", function()
    for _, name in ipairs(methods) do
      local method = ad.tape()[name]
      for _, p in ipairs(palette) do
        local ok, e = pcall(method, p[2], 1.0)
        assert.is_false(ok, name)
        assert.is_true(proper(e), name .. ": " .. tostring(e))
      end
    end
  end)

  it("survive every argument", function()
    for _, p in ipairs(palette) do
      for _, name in ipairs(methods) do
        local tape <close> = ad.tape{persistent = true}
        local x = tape:var(2.0)
        local z = x * x
        survives(tape[name], {tape, p[2]}, 2, name)
        survives(tape[name], {tape, p[2], p[2]}, 3, name)
        if name == "gradient" then
          survives(tape.gradient, {tape, z, p[2]}, 3, name)
          survives(tape.gradient, {tape, p[2], x}, 3, name)
          survives(tape.gradient, {tape, {target = z, sources = p[2]}}, 2, name)
          survives(tape.gradient, {tape, {target = p[2], sources = x}}, 2, name)
          survives(tape.gradient, {tape, {target = z, sources = x, seeds = p[2]}}, 2, name)
          survives(tape.gradient, {tape, {target = {z, z}, sources = x, seeds = {1.0, p[2]}}}, 2,
            name)
        end
      end
      survives(ad.tape, {{persistent = p[2]}}, 1, "tape")
    end
  end)

  it("refuse vars of another tape, or treat them as constants", function()
    local a <close> = ad.tape()
    local b <close> = ad.tape()
    local x, y = a:var(2.0), b:var(3.0)
    local ok, e = pcall(a.gradient, a, x * x, y)
    assert.is_true(ok and e == 0 or proper(e), tostring(e))
  end)

  it("say that they are closed", function()
    local tape = ad.tape()
    local x = tape:var(2.0)
    tape:close()
    tape:close()
    for _, f in ipairs{function() return (tape:var(1.0)) end,
        function() return (tape:gradient(x, x)) end,
        function() return (tape:stop(square)) end} do
      refused("closed", f, {}, 0, "closed tape")
    end
    assert.are.equal("string", type(tostring(tape)))
    assert.are.equal(4.0, ad.value(x * x))
  end)

  it("say what to ask for when asked twice", function()
    local tape <close> = ad.tape()
    local x = tape:var(2.0)
    local z = x * x
    assert.are.equal(4.0, (tape:gradient(z, x)))
    refused("persistent = true", function() return (tape:gradient(z, x)) end, {}, 0, "gradient")
  end)
end)

describe("vars and duals", function()
  local var_methods = {"backward", "zero_grad", "detach"}

  it("check the object of a method", function()
    local x = ad.var(1.0)
    for _, name in ipairs(var_methods) do
      local method = x[name]
      assert.are.equal("function", type(method), name)
      for _, p in ipairs(palette) do
        if p[1] ~= "a var" and p[1] ~= "a dual" then
          local ok, e = pcall(method, p[2])
          assert.is_false(ok, name .. " of " .. p[1])
          assert.is_true(proper(e), name .. ": " .. tostring(e))
        end
      end
    end
  end)

  it("survive every argument of a method", function()
    for _, p in ipairs(palette) do
      for _, name in ipairs(var_methods) do
        local x = ad.var(2.0)
        local z = x * x
        survives(z[name], {z, p[2]}, 2, name)
      end
      local x = ad.var(2.0)
      survives(ad.backward, {{x * x}, {x}, p[2]}, 3, "backward")
      survives(ad.backward, {{x * x}, {x}, {p[2]}}, 3, "backward")
      survives(ad.backward, {{x * x}, {p[2]}}, 2, "backward")
      survives(ad.backward, {{p[2]}, {x}}, 2, "backward")
      survives(function(v) x.grad = v end, {p[2]}, 1, "grad =")
      survives(function(v) x.value = v end, {p[2]}, 1, "value =")
      survives(function(v) return x[v] end, {p[2]}, 1, "index")
      survives(ad.dual, {1.0, {p[2]}}, 2, "dual")
      survives(ad.dual, {1.0, {1.0, p[2]}}, 2, "dual")
    end
  end)

  it("say what to ask for when the graph is gone", function()
    local x = ad.var(2.0)
    local z = x * x
    z:backward()
    refused("retain", function() return (z:backward()) end, {}, 0, "backward")
  end)

  it("refuse operands that are no numbers, in Lua's words", function()
    local operators = {}
    for _, op in ipairs{"+", "-", "*", "/", "^", "%", "//"} do
      operators[#operators + 1] = {op, assert(load(
        ("return function(a, b) local r = a %s b return r end"):format(op)))()}
    end
    for _, v in ipairs{ad.dual(2.0, 1.0), ad.var(2.0)} do
      for _, p in ipairs(wrong.number) do
        for _, op in ipairs(operators) do
          for _, pair_of in ipairs{{v, p[2]}, {p[2], v}} do
            local ok, e = pcall(op[2], pair_of[1], pair_of[2])
            assert.is_false(ok, op[1] .. " with " .. p[1])
            assert.is_string(e)
            assert.is_truthy(e:find("attempt to perform arithmetic on", 1, true)
              or e:find("bad argument #%d+ to"), op[1] .. " with " .. p[1] .. ": " .. e)
          end
        end
        local ok, e = pcall(function() return v < p[2] end)
        assert.is_false(ok)
        assert.is_truthy(e:find("attempt to compare", 1, true) or e:find("bad argument"), e)
        ok, e = pcall(function() return p[2] <= v end)
        assert.is_false(ok)
        assert.is_truthy(e:find("attempt to compare", 1, true) or e:find("bad argument"), e)
        if type(p[2]) ~= "string" then
          ok, e = pcall(function() return v .. p[2] end)
          assert.is_false(ok)
          assert.is_truthy(e:find("attempt to concatenate", 1, true)
            or e:find("bad argument"), e)
        end
        assert.is_false(v == p[2])
      end
      for _, f in ipairs{function() return #v end, function() return v() end,
          function() return v & 1 end, function() return ~v end} do
        local ok, e = pcall(f)
        assert.is_false(ok)
        assert.is_true(proper(e), tostring(e))
      end
    end
  end)

  it("keep their metatables from harm", function()
    -- A metamethod called by hand gets what the caller likes.
    for _, v in ipairs{ad.dual(2.0, 1.0), ad.var(2.0), ad.tape()} do
      local mt = getmetatable(v)
      if type(mt) ~= "table" then mt = {} end
      for event, f in pairs(mt) do
        if type(f) == "function" and event ~= "__gc" then
          survives(f, {}, 0, event)
          for _, p in ipairs(palette) do
            survives(f, {p[2]}, 1, event)
            survives(f, {p[2], p[2]}, 2, event)
            survives(f, {v, p[2]}, 2, event)
            survives(f, {p[2], v}, 2, event)
          end
        end
      end
      if mt.__gc then
        for _, p in ipairs(palette) do pcall(mt.__gc, p[2]) end
        pcall(mt.__gc, v)
        pcall(mt.__gc, v)
        survives(tostring, {v}, 1, "tostring")
      end
    end
  end)

  it("type and value follow math.type", function()
    refused("bad argument #1 to 'type'", caller("type"), {}, 0, "type")
    assert.are.equal("number", ad.type(1))
    for _, p in ipairs(palette) do
      local t = ad.type(p[2])
      if type(p[2]) == "number" then
        assert.are.equal("number", t)
      elseif p[1] ~= "a dual" and p[1] ~= "a var" then
        assert.is_nil(t, p[1])
      end
    end
  end)
end)
