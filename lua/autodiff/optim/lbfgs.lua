--- L-BFGS: J. Nocedal and S. J. Wright, Numerical Optimization, second
-- edition, 2006, algorithms 7.4 and 7.5.
local run = require "autodiff.optim.run"
local search = require "autodiff.optim.search"
local space = require "autodiff.optim.space"

local lbfgs = {}

lbfgs.allowed = run.union(run.allowed, {
  memory = "count", step = "positive", c1 = "fraction", c2 = "fraction",
})
lbfgs.defaults = run.union(run.defaults, { memory = 10, step = 1.0, c1 = 1e-4, c2 = 0.9 })

-- The inverse of the approximate Hessian times -g (algorithm 7.4), from what
-- is known of the last steps, the oldest first; the first Hessian is that of
-- equation 7.20. The differences of gradients have length 1 here, and `length`
-- is what they had: so no scale of f overflows in squares.
local function direction(layout, history, g)
  local q, alpha = space.scale(-1.0, g), {}
  for i = #history, 1, -1 do
    local p = history[i]
    alpha[i] = p.rho * layout:dot(p.s, q)
    q = space.axpy(-alpha[i], p.y, q)
  end
  q = space.scale(history[#history].gamma, q)
  for i = 1, #history do
    local p = history[i]
    q = space.axpy(alpha[i] / p.length - p.rho * layout:dot(p.y, q), p.s, q)
  end
  return q
end

function lbfgs.check(fname, opts)
  if not (0 < opts.c1 and opts.c1 < opts.c2) then
    run.bad(3, fname, "fields 'c1' and 'c2' must be 0 < c1 < c2 < 1")
  end
end

function lbfgs.minimize(r)
  local layout, opts = r.layout, r.opts
  local x, history, length = r.start, {}, opts.step
  local f, g, reason, converged = r:first()
  while not reason do
    local d, slope, first
    if #history > 0 then
      d, first = direction(layout, history, g), 1.0
      slope = layout:dot(g, d)
      if not (slope < 0 and layout:finite(d)) then history = {} end
    end
    if #history == 0 then
      local norm = layout:norm(g)
      d, slope, first = space.scale(-1 / norm, g), -norm, length
    end
    local function phi(a)
      local p = { a = a, x = space.axpy(a, d, x) }
      p.f, p.g = r:evaluate(p.x)
      p.d = layout:dot(p.g, d)
      p.usable = layout:finite(p.g)
      return p
    end
    local from = { a = 0.0, f = f, d = slope, x = x, g = g, usable = true }
    local p = search(phi, from, first, opts.c1, opts.c2, function() return (r:spent()) end)
    local s = p and space.sub(p.x, x)
    local moved = p and layout:norm(s) or 0
    if moved == 0 then
      reason, converged = r:spent()
      if not reason and #history == 0 then
        reason, converged = "no progress in line search", false
      end
      history = {} -- once more, along the gradient
    else
      local y = space.sub(p.g, g)
      local norm = layout:norm(y)
      y = norm > 0 and space.scale(1 / norm, y) or y
      local sy = layout:dot(s, y)
      -- not where the curvature is lost in rounding, or negative because the
      -- search had to stop early
      if sy > 2.0 ^ -52 * moved then
        if #history == opts.memory then table.remove(history, 1) end
        history[#history + 1] = { s = s, y = y, length = norm, rho = 1 / sy, gamma = sy / norm }
      end
      local x0, f0 = x, f
      x, f, g, length = p.x, p.f, p.g, moved
      reason, converged = r:after(x0, f0, x, f, g)
    end
  end
  return r:result(x, f, g, reason, converged)
end

return lbfgs
