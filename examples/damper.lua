-- A landing gear tuned through its own simulation.
--
--     lua5.4 examples/damper.lua
--     lua5.4 examples/damper.lua 3 --svg damper.svg      (touches down with 3 m/s)
--
-- A mass comes down on a leg with a spring and a damper, which pushes while it is on the ground and
-- hangs free when it is not. How stiff, and how damped, so that the load is gentle and nothing
-- bounces? The simulation is an ordinary loop of 1,000 steps with an `if` in it; what is optimised
-- is what it returns, and the gradient goes back through every step that was taken.

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local plot = require "plot"
local options = require "options"

local usage = [[
usage: lua5.4 examples/damper.lua [SPEED] [--svg FILE]
SPEED is that of the touch-down in m/s, from 0.1 to 4; the default is 2.5.
]]

local given, rest, fail = options(arg, usage, {svg = "text"})
local speed = tonumber(rest[1] or 2.5)
if not speed or speed < 0.1 or speed > 4 then fail("the speed must be from 0.1 to 4") end

local gravity, mass, length = 9.81, 1000, 0.8   -- m/s², kg, and m of a leg without load
local steps, dt = 1000, 0.0025                  -- 2.5 s

--- Height and load over time, for a stiffness in N/m and a damping in N s/m.
local function simulate(stiffness, damping, see)
  local z, v = length, -speed
  for i = 1, steps do
    local force = 0
    if z < length then
      force = stiffness * (length - z) - damping * v
      -- A leg pushes and does not pull: it lifts off.
      if force < 0 then force = 0 end
    end
    local a = force / mass - gravity
    v = v + a * dt          -- the new speed moves the mass: stable where Euler's own order is not
    z = z + v * dt
    see(i * dt, z, v, a)
  end
end

-- What hurts: load, the more the higher its peak (a high power is a smooth maximum), movement that
-- goes on, and a leg that is pressed below half of its length. Logarithms of the parameters keep
-- them positive, and make one step mean the same for both.
local function cost(p)
  local sum = 0
  simulate(ad.exp(p[1]), ad.exp(p[2]), function(_, z, v, a)
    local low = ad.relu(length / 2 - z) / 0.05
    sum = sum + (a / gravity + 1)^6 / 50 + v * v + low * low
  end)
  return sum / steps
end

local value_and_gradient = ad.value_and_grad(cost)

--- Quasi-Newton steps with an estimate H of the inverse Hessian (BFGS; Nocedal and Wright,
-- Numerical Optimization, 2nd ed., section 6.1) and Armijo's rule for their length.
local function minimise(p)
  local H = {{0.1, 0}, {0, 0.1}}
  local value, g = value_and_gradient(p)
  local count = 0
  while ad.norm(g) > 1e-5 * (1 + value) and count < 60 do
    local d = {-ad.dot(H[1], g), -ad.dot(H[2], g)}
    local t = 2
    local q, next_value, next_g
    repeat
      t = t / 2
      q = {p[1] + t * d[1], p[2] + t * d[2]}
      next_value, next_g = value_and_gradient(q)
    until next_value <= value + 1e-4 * t * ad.dot(g, d) or t < 1e-6
    if t < 1e-6 then break end
    local s = {q[1] - p[1], q[2] - p[2]}
    local y = {next_g[1] - g[1], next_g[2] - g[2]}
    local sy = ad.dot(s, y)
    if sy > 0 then
      local Hy = {ad.dot(H[1], y), ad.dot(H[2], y)}
      local factor = (1 + ad.dot(y, Hy) / sy) / sy
      for i = 1, 2 do
        for j = 1, 2 do
          H[i][j] = H[i][j] + factor * s[i] * s[j] - (Hy[i] * s[j] + s[i] * Hy[j]) / sy
        end
      end
    end
    p, value, g, count = q, next_value, next_g, count + 1
    print(("%6d %14.6f %12.1e %16.0f %16.0f"):format(count, value, ad.norm(g),
      math.exp(p[1]), math.exp(p[2])))
  end
  return p
end

local start = {90000, 600}
local before = {math.log(start[1]), math.log(start[2])}
print(("%6s %14s %12s %16s %16s"):format("step", "cost", "gradient", "stiffness N/m",
  "damping N s/m"))
local value, g = value_and_gradient(before)
print(("%6d %14.6f %12.1e %16.0f %16.0f"):format(0, value, ad.norm(g), start[1], start[2]))
local after = minimise(before)

--- What a run looks like: its curves, and in words what is felt.
local function run(p)
  local heights, loads, lifts, peak, lowest = {}, {}, 0, 0, length
  local grounded = false
  simulate(math.exp(p[1]), math.exp(p[2]), function(t, z, _, a)
    local load = a / gravity + 1
    heights[#heights + 1], loads[#loads + 1] = {t, z}, {t, load}
    if grounded and load == 0 then lifts = lifts + 1 end
    grounded = load > 0
    peak, lowest = math.max(peak, load), math.min(lowest, z)
  end)
  return {heights = heights, loads = loads, lifts = lifts, peak = peak, lowest = lowest}
end

print()
local runs = {run(before), run(after)}
for i, name in ipairs{"before", "after"} do
  print(("%-7s peak load %.2f g, leg down to %.2f m, leaves the ground %d times"):format(
    name, runs[i].peak, runs[i].lowest, runs[i].lifts))
end

if given.svg then
  local picture = plot.picture(680, 600, ("Touch-down with %g m/s"):format(speed))
  local top, peak = length, 0
  for _, r in ipairs(runs) do
    peak = math.max(peak, r.peak)
    for _, p in ipairs(r.heights) do top = math.max(top, p[2]) end
  end
  picture:legend(150, 52, {{"before", plot.red}, {"after", plot.blue},
    {"leg at full length: above, no contact", plot.grey, "5 4"}})
  local height = picture:panel{left = 70, top = 65, width = 580, height = 220,
    x = {0, steps * dt}, y = {0, top * 1.1, "height / m"}}
  height:curve({{0, length}, {steps * dt, length}}, {color = plot.grey, width = 1, dash = "5 4"})
  local load = picture:panel{left = 70, top = 320, width = 580, height = 220,
    x = {0, steps * dt, "time / s"}, y = {0, peak * 1.1, "load / g"}}
  for i, color in ipairs{plot.red, plot.blue} do
    height:curve(runs[i].heights, {color = color})
    load:curve(runs[i].loads, {color = color})
  end
  print()
  picture:save(given.svg)
end
