--- Functions with a rule of their own.
--
-- A rule works one level at a time: the highest level among the arguments is
-- taken off, the function itself is called with what is left (which takes
-- off the next one), and the rule supplies the derivative at this level. It
-- computes with values of the levels below, and so is differentiated itself
-- where orders are higher.
local core = require "autodiff.core"
local args = require "autodiff.args"

local function pack(...) return { n = select("#", ...), ... } end
local function unpack(t) return table.unpack(t, 1, t.n) end

local kernel = core.array
local isarray, shapeof = kernel.isarray, kernel.shapeof

-- <a, b> of two lists, where an exact 0 in b contributes 0.
local function inner(a, b)
  local s = 0.0
  for i = 1, #b do
    if isarray(b[i]) then
      local product = core.chain(0.0, b[i], a[i])
      s = s + require "autodiff.array".like(product, 0.0)
    else
      s = core.chain(s, b[i], a[i])
    end
  end
  return s
end

-- For each leaf of a list, by(e) for each unit vector e: a list of leaves that
-- are 0 but for one number, or element of an array, that is 1. What it gives,
-- numbers, becomes a list of the form of the leaves.
local function columns(leaf, by)
  local out, e = {}, {}
  for i = 1, #leaf do e[i] = 0.0 end
  for i = 1, #leaf do
    local shape = shapeof(leaf[i])
    if shape then
      local leaves = require "autodiff.leaves"
      out[i] = leaves.build(shape, function(unit)
        e[i] = unit
        return by(e)
      end)
    else
      e[i] = 1.0
      out[i] = by(e)
    end
    e[i] = 0.0
  end
  return out
end

-- The leaves of values that correspond to `like`, in one list (in the order
-- of the leaves of `like`: tables have no order of their own). A value that
-- is nil stands for zeros.
local function leaves(like, values)
  local list = {}
  for i = 1, like.n do
    local own, n = core.flatten(like[i])
    if values[i] == nil then
      for q = 1, n do own[q] = 0.0 end
    else
      own = core.flatten(like[i], values[i])
    end
    table.move(own, 1, n, #list + 1, list)
  end
  return list
end

--- `custom{name=, f=, jvp=, vjp=}`; with `notbyvalue = true` (for the rules
-- of the C interface) the jvp rule promises not to look at y.
local custom
function custom(...)
  args.table(1, "custom", ...)
  local def = (...)
  local name = def.name
  if name == nil then name = "?" end
  if type(name) ~= "string" then
    args.bad(1, "custom", "field 'name': string expected, got " .. type(name))
  end
  local title = ("custom '%s'"):format(name)
  local f = args.field(def, "f", "custom")
  local jvp = def.jvp and args.field(def, "jvp", "custom")
  local vjp = def.vjp and args.field(def, "vjp", "custom")

  local function missing(rule, other)
    error(("custom '%s': no %s rule, and no %s rule to derive it from")
      :format(name, rule, other), 0)
  end

  local function byvjp(ybar, y, primals, like)
    return leaves(like or primals, pack(vjp(ybar, y, unpack(primals))))
  end

  -- The leaves of the tangent of y.
  local function push(primals, tangents, y)
    if jvp then
      local dy = jvp(primals, tangents, y)
      if dy == nil then
        error(("custom '%s': the jvp rule gave no tangent"):format(name), 0)
      end
      return (core.flatten(y, dy))
    elseif vjp then
      -- One row of the Jacobian for each number of the result.
      local t = leaves(primals, tangents)
      return columns((core.flatten(y)), function(e)
        return inner(byvjp(core.unflatten(y, e), y, primals), t)
      end)
    end
    missing("jvp", "vjp")
  end

  -- The leaves of the cotangents of all arguments.
  local function pull(ybar, primals, y, like)
    if vjp then
      return byvjp(core.unflatten(y, ybar), y, primals, like)
    elseif jvp then
      -- One column of the Jacobian for each number of the arguments.
      local all, count = {}, {}
      for i = 1, primals.n do
        local own, n = core.flatten(like[i])
        count[i] = n
        table.move(own, 1, n, #all + 1, all)
      end
      return columns(all, function(e)
        local tangents, before = { n = primals.n }, 0
        for i = 1, primals.n do
          tangents[i] = core.unflatten(like[i], table.move(e, before + 1, before + count[i], 1, {}))
          before = before + count[i]
        end
        return inner(push(primals, tangents, y), ybar)
      end)
    end
    missing("vjp", "jvp")
  end

  local call

  -- For values of the batch `key`: the function and its rules, mapped, are a custom function of the
  -- arrays with all examples, and so the rules hold for what is outside of the batch.
  local function overbatch(key, ...)
    local array = require "autodiff.array"
    local vmap = require "autodiff.vmap".vmap
    local x, axes, size = pack(...), {}, nil
    for i = 1, x.n do
      axes[i] = false
      kernel.map(function(leaf)
        local own, is = kernel.inside(key, leaf)
        if is then axes[i], size = 1, shapeof(own)[1] end
        return leaf
      end, x[i])
    end
    -- all of an argument is mapped, or nothing of it
    local function spread(leaf)
      local own, is = kernel.inside(key, leaf)
      if is then return own end
      return array.broadcast_to(own, { size, table.unpack(shapeof(own) or {}) })
    end
    for i = 1, x.n do
      if axes[i] then x[i] = kernel.map(spread, x[i]) end
    end
    -- d in the structure of x, where 0 may stand for zeros
    local function inform(like, d)
      local forms, n = core.flatten(like)
      local own = core.flatten(like, d)
      for q = 1, n do
        local shape = shapeof(forms[q])
        if shape and not shapeof(own[q]) then own[q] = array.broadcast_to(own[q], shape) end
      end
      return n > 0 and core.unflatten(like, own) or d
    end
    local rules = { name = name, f = vmap(f, axes), notbyvalue = def.notbyvalue }
    if jvp then
      local all = table.move(axes, 1, x.n, 2, { 1 })
      local own = vmap(function(y, ...)
        local given = pack(...)
        local p = table.move(given, 1, x.n, 1, { n = x.n })
        return jvp(p, table.move(given, x.n + 1, 2 * x.n, 1, { n = x.n }), y)
      end, table.move(axes, 1, x.n, x.n + 2, all))
      function rules.jvp(p, t, y)
        local given = table.move(p, 1, x.n, 1, {})
        for i = 1, x.n do given[x.n + i] = inform(p[i], t[i]) end
        return own(y, table.unpack(given, 1, 2 * x.n))
      end
    end
    if vjp then
      local own = vmap(vjp, table.move(axes, 1, x.n, 3, { 1, 1 }))
      function rules.vjp(ybar, y, ...)
        local back = pack(own(inform(y, ybar), y, ...))
        for i = 1, x.n do -- what is shared has its share from each example
          if back[i] ~= nil and not axes[i] then
            back[i] = kernel.map(function(leaf) return array.sum(leaf, 1) end, back[i])
          end
        end
        return table.unpack(back, 1, x.n)
      end
    end
    return kernel.map(function(leaf) return kernel.batched(key, leaf) end,
      custom(rules)(unpack(x)))
  end

  -- The rule gives the tangent of y along x' as a series: y', from which y
  -- follows. Its coefficients 0 .. k - 1 need no more than these of x, x' and
  -- y, so each round gains one more of y; a rule that does not look at y needs
  -- only one round. A rule may call the function itself: orders go down.
  local function series(key, primals, y, n, ...)
    local leaf = {}
    for k = 1, n do leaf[k] = leaves(primals, pack(core.parts(key, k, ...))) end
    -- The arguments, or their derivatives by t, to order m < n.
    local function arguments(m, derivative)
      local list, before = { n = primals.n }, 0
      for i = 1, primals.n do
        local _, size = core.flatten(primals[i])
        local value, parts = primals[i], {}
        if derivative then
          value = core.unflatten(value, table.move(leaf[1], before + 1, before + size, 1, {}))
        end
        for k = 1, m do
          parts[k] = {}
          for q = 1, size do
            parts[k][q] = derivative and leaf[k + 1][before + q] * (k + 1) or leaf[k][before + q]
          end
        end
        before = before + size
        list[i] = m == 0 and value or core.join(key, "series", value, parts)
      end
      return list
    end
    local _, size = core.flatten(y)
    local coefs = {}
    for k = def.notbyvalue and n or 1, n do
      local known = #coefs == 0 and y or core.join(key, "series", y, coefs)
      local dy = push(arguments(k - 1), arguments(k - 1, true), known)
      for j = #coefs + 1, k do
        coefs[j] = {}
        for q = 1, size do coefs[j][q] = core.parts(key, j - 1, dy[q]) / j end
      end
    end
    return core.join(key, "series", y, coefs, title)
  end

  function call(...)
    local key, kind = core.highest(...)
    if not key then return f(core.parts(0, 0, ...)) end -- constants, if any, as numbers
    if kind == "batch" then return overbatch(key, ...) end
    local primals = pack(core.parts(key, 0, ...))
    local y = call(unpack(primals))
    if kind == "var" then
      if not (jvp or vjp) then missing("vjp", "jvp") end
      local x = pack(...)
      local _, nout = core.flatten(y)
      -- Inputs of the call are the leaves of this level; others are constants.
      local mark = core.members(key, x)
      local handler = { name = title, saved = core.arraysin(primals, y) }
      function handler.pull(ybar)
        local all, own = pull(ybar, primals, y, x), {}
        for q = 1, #mark do
          if mark[q] then own[#own + 1] = all[q] end
        end
        return own
      end
      function handler.push(dots)
        local all, used, before = {}, 0, 0
        for q = 1, #mark do
          used = mark[q] and used + 1 or used
          all[q] = mark[q] and dots[used] or 0.0
        end
        local tangents = { n = x.n }
        for i = 1, x.n do
          local _, n = core.flatten(x[i])
          tangents[i] = core.unflatten(x[i], table.move(all, before + 1, before + n, 1, {}))
          before = before + n
        end
        return push(primals, tangents, y)
      end
      return core.call(key, handler, nout, y, ...)
    end
    local n = core.count(key, ...)
    if kind == "series" then
      if not (jvp or vjp) then missing("jvp", "vjp") end
      return series(key, primals, y, n, ...)
    end
    local parts = {}
    for d = 1, n do parts[d] = push(primals, pack(core.tangents(key, d, ...)), y) end
    return core.join(key, "dual", y, parts, title)
  end

  return call
end

return custom
