-- luacheck: read globals fails near
-- Looking inside: explain, graph, debug_nans.
local ad = require("autodiff")

local function f(x1, x2)
  return ad.exp(x1) - x1 * x2 + ad.cos(x2)
end

local double = ad.custom{name = "double", f = function(x) return 2 * x end,
  vjp = function(ybar) return 2 * ybar end}

local text = ad.explain(f, 2, 4)
assert(text:find("exp(v-1)", 1, true))
text = ad.explain(function(p)
  return {ad.sum{p.a, p.b[1], 1}, double(p.a), ad.checkpoint(ad.sin)(p.b[1])}
end, {a = 1, b = {2}})
assert(text:find("checkpoint", 1, true))

local g = ad.graph(f, 2, 4)
assert(tostring(g):find("digraph", 1, true))
assert(g:svg():find("</svg>", 1, true))

-- an error of ours must not be left on by an error of memory
do
  local off <close> = setmetatable({}, {__close = function() ad.debug_nans(false) end})
  ad.debug_nans(true)
  near(ad.grad(f)(2, 4), math.exp(2) - 4)
  near(ad.grad(ad.grad(function(x) return x ^ 3 + ad.prod{x, x} end))(2), 14)
  near(ad.jacobian(function(x) return {x[1] * x[2], x[1]} end)({2, 3})[1][1], 3)
  assert(fails(ad.grad(function(x) return ad.sqrt(x) * 2 end), 0):find("backward through sqrt(0)",
    1, true))
  assert(fails(ad.jvp, ad.log, {0}, {1}):find("log(0) gives -inf", 1, true))
  local x = ad.var(2)
  local y = double(x) * x
  y:backward()
  near(x.grad, 8)
  assert(off)
end
