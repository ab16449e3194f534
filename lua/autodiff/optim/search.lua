--- A line search for the strong Wolfe conditions.
--
-- J. Nocedal and S. J. Wright, Numerical Optimization, second edition, 2006:
-- algorithms 3.5 (bracketing) and 3.6 (zoom), the cubic of equation 3.59.
-- Where f is not finite the step is beyond what can be searched, and the
-- bracket ends before it. Near a minimum, where differences of values are
-- rounding, values are not compared but slopes, as in the approximate Wolfe
-- condition of W. W. Hager and H. Zhang, SIAM Journal on Optimization 16(1),
-- 2005, section 4: that is what lets the gradient become much smaller than
-- the square root of the rounding errors.

-- Values that differ by less than this, relatively, are taken as equal. It
-- leaves room for the rounding errors of sums of many terms.
local NOISE = 1e-13

-- Evaluations in one search; by then intervals are below any precision.
local MOST = 60

local function finite(p)
  return p.f - p.f == 0 and p.d - p.d == 0 and p.usable
end

-- The minimum of the cubic with the values and slopes of two points, or nil.
local function cubic(p, q)
  local d1 = p.d + q.d - 3 * (p.f - q.f) / (p.a - q.a)
  local s = d1 * d1 - p.d * q.d
  if not (s >= 0) then return nil end
  local d2 = math.sqrt(s)
  if q.a < p.a then d2 = -d2 end
  local a = q.a - (q.a - p.a) * (q.d + d2 - d1) / (q.d - p.d + 2 * d2)
  return a - a == 0 and a or nil
end

--- phi(a) gives a point {a=, f=, d=, usable=, ...}: the value and slope at the
-- step a, and whether the gradient there is finite; `from` is the point at 0.
-- With c1 and c2 of the Wolfe conditions, and the first step. The point found,
-- or at least one with a lower value, or nil. When `spent()` says so, the search
-- ends with what it has.
local function search(phi, from, step, c1, c2, spent)
  local f0, d0 = from.f, from.d
  local count, best = 0, nil

  -- p's value less q's, 0 if that is rounding
  local function difference(p, q)
    local d = p.f - q.f
    if math.abs(d) <= NOISE * math.max(math.abs(p.f), math.abs(q.f)) then return 0.0 end
    return d
  end

  local function try(a)
    count = count + 1
    local p = phi(a)
    p.finite = finite(p)
    p.low = p.finite and (p.f <= f0 + c1 * a * d0
      or difference(p, from) == 0 and p.d <= (2 * c1 - 1) * d0)
    p.done = p.low and math.abs(p.d) <= -c2 * d0
    if p.low and p.f < (best or from).f then best = p end
    return p
  end
  -- Where a model of f between two points is least: the cubic, or where the
  -- values say nothing, the secant of the slopes; or nil.
  local function minimum(p, q)
    if difference(p, q) ~= 0 or p.d * q.d >= 0 then return cubic(p, q) end
    return p.a - p.d * (q.a - p.a) / (q.d - p.d)
  end
  local function over() return count >= MOST or spent() end

  local function zoom(lo, hi)
    local before, last = math.huge, math.huge
    while not over() do
      local width = hi.a - lo.a
      -- also where the ends have the same sum with x
      if not (math.abs(width) > 1e-15 * math.max(lo.a, hi.a)) then break end
      local a
      if not hi.finite then
        a = lo.a + 0.2 * width
      else
        a = math.abs(width) < 0.66 * before and minimum(lo, hi) or lo.a + 0.5 * width
        local t = (a - lo.a) / width
        a = lo.a + math.min(math.max(t, 0.05), 0.95) * width
      end
      before, last = last, math.abs(width)
      local p = try(a)
      if not p.low or difference(p, lo) > 0 then
        hi = p
      else
        if p.done then return p end
        if p.d * width >= 0 then hi = lo end
        lo = p
      end
    end
    return best
  end

  local last, limit = from, nil
  from.finite = true
  while not over() do
    local p = try(step)
    if not p.finite then
      -- back towards what is known; and no further than half the way from now on
      limit = step
      step = last.a + 0.2 * (step - last.a)
      if not (step > last.a and limit - last.a > 1e-15 * limit) then break end
    elseif not p.low or last ~= from and difference(p, last) > 0 then
      return zoom(last, p)
    elseif p.done then
      return p
    elseif p.d >= 0 then
      return zoom(p, last)
    else
      -- downhill still: where the cubic has its minimum, within bounds, if it
      -- has one ahead
      local a, width = minimum(last, p), p.a - last.a
      if not a or a <= p.a then a = math.huge end
      a = math.min(math.max(a, p.a + 2 * width), p.a + 5 * width)
      if limit then a = math.min(a, p.a + 0.5 * (limit - p.a)) end
      if not (a > p.a and a < math.huge) then break end
      last, step = p, a
    end
  end
  return best
end

return search
