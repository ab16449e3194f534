--- Newton's method in a trust region, with the steps by conjugate gradients:
-- J. Nocedal and S. J. Wright, Numerical Optimization, second edition, 2006,
-- algorithms 4.1 and 7.2 (T. Steihaug, SIAM Journal on Numerical Analysis
-- 20(3), 1983). The Hessian is there only as products with vectors; a
-- direction of negative curvature is followed to the edge of the region.
local ad = require "autodiff"
local run = require "autodiff.optim.run"
local space = require "autodiff.optim.space"

local newton = {}

newton.allowed = run.union(run.allowed, {
  hvp = "callable", radius = "positive", max_radius = "positive", max_products = "count",
})
newton.defaults = run.union(run.defaults, { max_radius = math.huge })

-- The t >= 0 at which |z + t d| is the radius.
local function edge(layout, z, d, radius)
  local a, b, c = layout:dot(d, d), layout:dot(z, d), layout:dot(z, z) - radius * radius
  local root = math.sqrt(math.max(b * b - a * c, 0))
  -- the form without cancellation
  if b > 0 then return -c / (b + root) end
  return (root - b) / a
end

-- Minimizes g'p + p'Hp/2 within the radius: the step, what the model predicts
-- to be gained by it, and whether it ends at the edge. Nil where a product is
-- not finite. All is divided by |g|, so that no scale of f makes squares
-- overflow.
local function steihaug(layout, hessian, g, norm, tolerance, radius, most)
  local z = {}
  for i = 1, #g do z[i] = 0.0 * g[i] end
  g = space.scale(1 / norm, g)
  local function product(d) return space.scale(1 / norm, hessian(d)) end
  local res = g
  local d, rr = space.scale(-1.0, g), layout:dot(g, g)
  local gained, count = 0.0, 0
  while true do
    local hd = product(d)
    if not layout:finite(hd) then return nil end
    count = count + 1
    local curvature = layout:dot(d, hd)
    local alpha = rr / curvature
    local next_z = curvature > 0 and space.axpy(alpha, d, z)
    if not next_z or not (layout:norm(next_z) < radius) then
      local t = edge(layout, z, d, radius)
      -- along d the model's slope is -rr, whatever z is
      return space.axpy(t, d, z), norm * (gained + t * rr - 0.5 * t * t * curvature), true
    end
    z, gained = next_z, gained + 0.5 * alpha * rr
    res = space.axpy(alpha, hd, res)
    local new = layout:dot(res, res)
    if not (math.sqrt(new) > tolerance) or count >= most then return z, norm * gained, false end
    d = space.axpy(new / rr, d, space.scale(-1.0, res))
    rr = new
  end
end

-- A radius that has f's own scale: twice the step along the gradient to the
-- model's minimum there (A. Sartenaer, SIAM Journal on Scientific Computing
-- 18(6), 1997, begins with it), or about x's size where there is none.
local function firstradius(layout, product, x, g)
  local norm = layout:norm(g)
  local unit = space.scale(1 / norm, g)
  local curvature = layout:dot(unit, product(unit))
  local radius = 2 * norm / curvature
  if radius > 0 and radius < math.huge then return radius end
  return math.max(1.0, layout:norm(x))
end

function newton.minimize(r, f_)
  local layout, opts = r.layout, r.opts
  local x, products = r.start, 0
  local f, g, reason, converged = r:first()

  local hvp = opts.hvp or function(at, v) return ad.hvp(f_, at, v) end
  local at, hessian_at
  local function product(v)
    products = products + 1
    if hessian_at ~= x then hessian_at, at = x, r:structure(x) end
    return layout:pack("hvp", hvp(at, layout:unpack(v)), false, true)
  end

  local most = opts.max_products or math.max(20, 2 * layout.size)
  local radius = not reason and (opts.radius or firstradius(layout, product, x, g))
  local norm0 = not reason and layout:norm(g)
  while not reason do
    radius = math.min(radius, opts.max_radius)
    local norm = layout:norm(g)
    -- superlinear convergence (7.3), in a form that knows no units
    local tolerance = math.min(0.5, math.sqrt(norm / norm0))
    local p, predicted, atedge = steihaug(layout, product, g, norm, tolerance, radius, most)
    if not p then
      reason, converged = "the Hessian is not finite", false
      break
    end
    local new = space.axpy(1.0, p, x)
    local length = layout:norm(p)
    local moved = layout:maxabs(space.sub(new, x))
    if not (moved > 0 and moved < math.huge) then
      reason = moved == 0 and "no progress: the step is lost in rounding"
        or "no progress: the step is not finite"
      converged = false
      break
    end
    local fnew, gnew = r:evaluate(new)
    local ratio = -1.0
    if not r:undefined(fnew, gnew) then
      -- where both are rounding, they count as equal (A. R. Conn, N. I. M. Gould
      -- and Ph. L. Toint, Trust-Region Methods, 2000, section 17.4.2)
      local noise = 1e-14 * math.abs(f)
      ratio = (f - fnew + noise) / (predicted + noise)
    end
    if ratio < 0.25 then
      radius = 0.25 * length
    elseif ratio > 0.75 and atedge then
      radius = 2 * radius
    end
    if ratio > 1e-4 then
      local x0, f0 = x, f
      x, f, g = new, fnew, gnew
      reason, converged = r:after(x0, f0, x, f, g)
    else
      reason, converged = r:spent()
    end
  end
  local result = r:result(x, f, g, reason, converged)
  result.products = products
  return result
end

return newton
