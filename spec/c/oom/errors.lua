-- luacheck: read globals fails near
-- Errors on the way: of arguments, of f, of f's results, in every transform.
local ad = require("autodiff")

local function bad() error({code = 7}) end
local function text(x) return x < 0 and x or error("text " .. x) end
for _, t in ipairs{ad.grad, ad.value_and_grad, ad.jacobian, ad.jacfwd, ad.jacrev, ad.hessian,
    ad.derivative, ad.checkpoint} do
  assert(type(fails(t)) == "string")
  assert(type(fails(t, "f")) == "string")
  fails(t(bad), 1.0)
  fails(t(bad), {1.0, 2.0})
  fails(t(text), 1.0)
end
assert(fails(ad.grad(bad), 1.0).code == 7)
fails(ad.jvp, bad, {1.0}, {1.0})
fails(ad.jvp, ad.sin, 1.0, 1.0)
fails(ad.linearize, bad, 1.0)
fails(ad.vjp, text, 1.0)
fails(ad.hvp, text, 1.0, 1.0)
fails(ad.taylor, text, 1.0, 3)
fails(ad.taylor, ad.sin, 1.0, -1)
fails(ad.no_grad, bad)
fails(ad.grad(function() return "no number" end), 1.0)
fails(ad.grad(function() return {} end), 1.0)
fails(ad.grad(ad.sin, 3), 1.0)
fails(ad.grad(ad.grad(text)), 1.0)
fails(ad.sin, "x")
fails(ad.sin)
fails(function() return ad.dual(1.0, 1.0) + {} end)
fails(function() return ad.var(1.0) .. {} end)
fails(ad.dual, "x", 1)
fails(ad.var, "x")
fails(ad.sum, 1)
fails(ad.tape, 1)
fails(ad.backward, 1)
fails(ad.custom, {})
fails(ad.implicit, {})
fails(ad.install, 5)
local tape = ad.tape()
fails(tape.gradient, tape)
fails(tape.stop, tape)
tape:close()
fails(tape.gradient, tape, 1)
-- Everything still works.
near(ad.grad(ad.sin)(0.0), 1)
