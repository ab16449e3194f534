-- An implicit layer: a root finder inside of what is fitted.
--
--     lua5.4 examples/layer.lua
--     lua5.4 examples/layer.lua --noise 0.05 --svg layer.svg
--
-- A planet goes round its star as Kepler says, and his equation M = E - e sin(E), which tells where
-- it is at a given time, has no solution in closed form. So every predicted position calls a root
-- finder, and the orbit is fitted to observed positions through all of them. The root finder is
-- bisection, which nobody could differentiate: `ad.implicit` needs to know only which equation its
-- result satisfies.

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local plot = require "plot"
local options = require "options"
local solve = require "autodiff.dense".solve

local usage = [[
usage: lua5.4 examples/layer.lua [--noise N] [--seed N] [--svg FILE]
The noise is the standard deviation of the made-up observations; the default is 0.06.
]]

local given, rest, fail = options(arg, usage, {noise = "number", seed = "number", svg = "text"})
if #rest > 0 then fail("unexpected '" .. rest[1] .. "'") end
local noise = given.noise or 0.06
if noise < 0 then fail("the noise cannot be below 0") end

local searches = 0
local eccentric_anomaly = ad.implicit{
  f = function(E, M, e) return E - e * ad.sin(E) - M end,
  solve = function(M, e)
    searches = searches + 1
    local lo, hi = M - 1, M + 1        -- because e < 1
    for _ = 1, 60 do
      local middle = (lo + hi) / 2
      if middle - e * math.sin(middle) < M then lo = middle else hi = middle end
    end
    return (lo + hi) / 2
  end,
}

--- The position at a time, for the elements of an orbit: size, eccentricity, period, the direction
-- of the point nearest to the star, and the time at which the planet is there.
local function position(orbit, t)
  local a, e, period, direction, passage = table.unpack(orbit, 1, 5)
  local E = eccentric_anomaly(2 * math.pi * (t - passage) / period, e)
  local x = a * (ad.cos(E) - e)
  local y = a * ad.sqrt(1 - e * e) * ad.sin(E)
  local c, s = ad.cos(direction), ad.sin(direction)
  return c * x - s * y, s * x + c * y
end

local names = {"size", "eccentricity", "period", "direction", "passage"}
local truth = {1.5, 0.6, 2.0, 0.7, 0.3}
local start = {1.0, 0.2, 1.9, 0.2, 0.4}

-- Observations over a bit more than one period, with normal errors (Box and Muller's method; the
-- seed makes every run the same).
math.randomseed(math.tointeger(given.seed or 1) or fail("the seed must be an integer"))
local observations = {}
for i = 1, 24 do
  local t = 0.1 * i
  local x, y = position(truth, t)
  local radius = noise * math.sqrt(-2 * math.log(1 - math.random()))
  local angle = 2 * math.pi * math.random()
  observations[i] = {t, x + radius * math.cos(angle), y + radius * math.sin(angle)}
end

local function residuals(orbit)
  local list = {}
  for _, o in ipairs(observations) do
    local x, y = position(orbit, o[1])
    list[#list + 1] = x - o[2]
    list[#list + 1] = y - o[3]
  end
  return list
end

local jacobian = ad.jacobian(residuals)

-- Jᵀ J with its diagonal raised, and Jᵀ r.
local function normal_equations(J, r, damping)
  local A, b = {}, {}
  for i = 1, #names do
    A[i] = {}
    for j = 1, #names do
      local sum = 0
      for k = 1, #J do sum = sum + J[k][i] * J[k][j] end
      A[i][j] = i == j and sum * (1 + damping) or sum
    end
    local sum = 0
    for k = 1, #J do sum = sum + J[k][i] * r[k] end
    b[i] = sum
  end
  return A, b
end

--- Least squares by Levenberg's and Marquardt's method.
local function fit(orbit)
  local damping, r = 1e-2, residuals(orbit)
  local sum, step = ad.dot(r, r), 0
  print(("%5s %18s   %s"):format("step", "sum of squares", "size, eccentricity, period, ..."))
  repeat
    print(("%5d %18.12f   %s"):format(step, sum,
      ("%.5f  "):rep(#names):format(table.unpack(orbit))))
    local A, b = normal_equations(jacobian(orbit), r, damping)
    local d, moved = solve(A, b), {}
    for i = 1, #names do moved[i] = orbit[i] - d[i] end
    -- An ellipse stays one.
    local better = moved[2] >= 0 and moved[2] < 0.99 and moved[3] > 0.5
    local next_r = better and residuals(moved)
    local next_sum = better and ad.dot(next_r, next_r) or math.huge
    if next_sum < sum then
      orbit, r, sum, damping = moved, next_r, next_sum, damping / 10
    else
      damping = damping * 10
    end
    step = step + 1
  until step >= 100 or ad.norm(d) < 1e-7
  return orbit, sum
end

local fitted, sum = fit(start)
print()
print(("%d searches for a root by bisection, none of them differentiated."):format(searches))

-- How well the observations determine each: the inverse of JᵀJ, times the variance.
local A = normal_equations(jacobian(fitted), residuals(fitted), 0)
local variance = sum / (2 * #observations - #names)
print()
print(("%-14s %10s %10s %10s %12s"):format("", "true", "start", "fitted", "+/-"))
for i, name in ipairs(names) do
  local unit = {}
  for j = 1, #names do unit[j] = i == j and 1 or 0 end
  local deviation = math.sqrt(variance * solve(A, unit)[i])
  print(("%-14s %10.5f %10.5f %10.5f %12.5f"):format(name, truth[i], start[i], fitted[i],
    deviation))
end

local ok, report = ad.check(residuals, {fitted}, {order = 2})
print()
print("The derivatives, first and second, against differences: " .. (ok and "right" or report))

if given.svg then
  local function curve(orbit)
    local points = {}
    for i = 0, 240 do points[i + 1] = {position(orbit, orbit[3] * i / 240)} end
    return points
  end
  local picture = plot.picture(640, 600, "An orbit, fitted through Kepler's equation")
  picture:legend(130, 50, {{"true", plot.grey, "5 4"}, {"start", plot.gold}, {"fitted", plot.blue},
    {"observed", plot.red, "dot"}})
  local lo, hi = {-0.4, -0.4}, {0.4, 0.4}
  for _, orbit in ipairs{truth, start, fitted} do
    for _, p in ipairs(curve(orbit)) do
      for k = 1, 2 do lo[k], hi[k] = math.min(lo[k], p[k]), math.max(hi[k], p[k]) end
    end
  end
  local panel = picture:panel{left = 60, top = 65, width = 550, height = 480, equal = true,
    x = {lo[1] - 0.2, hi[1] + 0.2, "x"}, y = {lo[2] - 0.2, hi[2] + 0.2, "y"}}
  panel:curve(curve(start), {color = plot.gold})
  panel:curve(curve(fitted), {color = plot.blue, width = 2.5})
  panel:curve(curve(truth), {color = plot.grey, dash = "5 4", width = 1.5})
  local seen = {}
  for i, o in ipairs(observations) do
    local x, y = position(fitted, o[1])
    panel:curve({{o[2], o[3]}, {x, y}}, {color = plot.red, width = 1})
    seen[i] = {o[2], o[3]}
  end
  panel:dots(seen, {color = plot.red})
  panel:dots({{0, 0}}, {color = plot.dark, radius = 8})
  panel:text(0, 0, "star", {dx = 12, dy = 4})
  print()
  picture:save(given.svg)
end
