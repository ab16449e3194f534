-- luacheck: read globals fails near
-- Arguments, results and gradients that are tables of tables.
local ad = require("autodiff")

local model = {name = "m", layers = {{w = {1.0, 2.0}, b = 0.5}, {w = {3.0, 4.0}, b = 1.5}},
  act = ad.tanh, on = true}
local function loss(m, x)
  for _, l in ipairs(m.layers) do x = m.act(l.w[1] * x + l.w[2] * x * x + l.b) end
  return x, {seen = x}
end
local g, extra = ad.grad(loss)(model, 0.1)
assert(g.name == nil and g.act == nil and #g.layers == 2)
assert(ad.type(extra.seen) == "number")
local gm, gx = ad.grad(loss, {1, 2})(model, 0.1)
near(gm.layers[1].b, g.layers[1].b)
local _, d = ad.jvp(loss, {model, 0.1}, {g, 1.0})
assert(type(d) == "table")
local _, pull = ad.vjp(function(m, x) return {(loss(m, x)), q = {m.layers[1].b}} end, model, 0.1)
local pm, px = pull({1.0, q = {2.0}})
near(px, gx)
near(pm.layers[1].b, g.layers[1].b + 2)
local y, lin = ad.linearize(function(t) return {t.a.b * 2} end, {a = {b = 2.0}})
near(y[1], 4)
near(lin({a = {b = 3.0}})[1], 6)

local tape <close> = ad.tape()
local m, x = tape:var(model, 0.1)
local tm, tx = tape:gradient((loss(m, x)), m, x)
near(tx, gx)
near(tm.layers[2].w[2], g.layers[2].w[2])

local deep = 1.0
for _ = 1, 30 do deep = {deep} end
local function descend(t)
  while ad.type(t) == nil do t = t[1] end
  return t * t
end
local dg = ad.grad(descend)(deep)
near(descend(dg), 4)
local loop = {1.0}
loop[2] = loop
fails(ad.grad(function(t) return t[1] end), loop)
