-- Inverse kinematics: which angles bring the hand of a planar arm to a point?
--
--     lua5.4 examples/arm.lua
--     lua5.4 examples/arm.lua 3 2 1 --svg arm.svg
--
-- The arm's forward kinematics is a loop of a few lines; its Jacobian is `ad.jacobian` of that. The
-- hand is led along a figure of eight, each pose found from the one before.

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local plot = require "plot"
local options = require "options"
local solve = require "autodiff.dense".solve

local usage = [[
usage: lua5.4 examples/arm.lua [LENGTH...] [--points N] [--svg FILE]
The lengths are those of the arm's links from the shoulder on; the default is 1.4 1.1 0.8 0.5.
]]

local given, rest, fail = options(arg, usage, {points = "number", svg = "text"})
local lengths, reach = {}, 0
for i, text in ipairs(#rest > 0 and rest or {"1.4", "1.1", "0.8", "0.5"}) do
  lengths[i] = tonumber(text) or fail("'" .. text .. "' is no length")
  if not (lengths[i] > 0) then fail("a length must be above 0") end
  reach = reach + lengths[i]
end
local points = math.max(2, (given.points or 120) // 1)

--- Where the joints are for a list of angles, each relative to the link before.
local function joints(angles)
  local list, x, y, direction = {{0, 0}}, 0, 0, 0
  for i, length in ipairs(lengths) do
    direction = direction + angles[i]
    x = x + length * ad.cos(direction)
    y = y + length * ad.sin(direction)
    list[i + 1] = {x, y}
  end
  return list
end

local function hand(angles)
  local list = joints(angles)
  return list[#list]
end

-- Two rows, one column for each joint: forward mode would need a run per joint, so the library
-- takes reverse mode when there are more than two.
local jacobian = ad.jacobian(hand)

--- Angles that bring the hand to a target, from the given ones on: damped least squares (Wampler,
-- IEEE Transactions on Systems, Man, and Cybernetics 16(1), 1986, p. 93). The damping keeps the
-- joints calm where the arm is nearly straight and the Jacobian nearly singular.
local function reach_for(target, angles)
  local damping, steps = 1e-3, 0
  local at = hand(angles)
  local ex, ey = target[1] - at[1], target[2] - at[2]
  while ad.hypot(ex, ey) > 1e-10 and steps < 60 do
    local J = jacobian(angles)
    local a, b = J[1], J[2]
    local s = solve({
      {ad.dot(a, a) + damping, ad.dot(a, b)},
      {ad.dot(a, b), ad.dot(b, b) + damping},
    }, {ex, ey})
    local next_angles = {}
    for i = 1, #angles do next_angles[i] = angles[i] + a[i] * s[1] + b[i] * s[2] end
    at = hand(next_angles)
    local nx, ny = target[1] - at[1], target[2] - at[2]
    -- Less damping after a good step, more after a bad one, which is not taken.
    if ad.hypot(nx, ny) < ad.hypot(ex, ey) then
      angles, ex, ey, damping = next_angles, nx, ny, damping / 10
    else
      damping = damping * 10
    end
    steps = steps + 1
  end
  return angles, ad.hypot(ex, ey), steps
end

-- A figure of eight lying in front of the shoulder, so large that the arm has to stretch.
local function target(t)
  local phase = 2 * math.pi * t
  return {reach * (0.56 + 0.26 * math.sin(2 * phase)), reach * (0.1 + 0.5 * math.sin(phase))}
end

local angles = {}
for i = 1, #lengths do angles[i] = i == 1 and -0.6 or 0.7 end
local poses, path, worst, total, largest = {}, {}, 0, 0, 0
for k = 0, points do
  local goal = target(k / points)
  local distance, steps
  local before = angles
  angles, distance, steps = reach_for(goal, angles)
  worst, total = math.max(worst, distance), total + steps
  if k > 0 then
    for i = 1, #angles do largest = math.max(largest, math.abs(angles[i] - before[i])) end
  end
  poses[#poses + 1], path[#path + 1] = joints(angles), hand(angles)
  if k % math.max(1, points // 8) == 0 then
    local parts = {}
    for i = 1, #angles do parts[i] = ("%8.2f"):format(math.deg(angles[i])) end
    if k == 0 then print("   target x         y   steps    error   angles in degrees") end
    print(("%11.4f %9.4f %7d %8.0e %s"):format(goal[1], goal[2], steps, distance,
      table.concat(parts)))
  end
end
print()
print(("%d targets, %.1f steps each, largest error %.1g, largest move of a joint %.1f degrees"):
  format(points + 1, total / (points + 1), worst, math.deg(largest)))

if given.svg then
  local picture = plot.picture(640, 600, ("An arm of %d links draws a figure of eight"):format(
    #lengths))
  local lo, hi = {0, 0}, {0, 0}
  for _, pose in ipairs(poses) do
    for _, p in ipairs(pose) do
      for k = 1, 2 do lo[k], hi[k] = math.min(lo[k], p[k]), math.max(hi[k], p[k]) end
    end
  end
  local margin = 0.06 * reach
  local panel = picture:panel{left = 60, top = 40, width = 550, height = 500, equal = true,
    x = {lo[1] - margin, hi[1] + margin, "x"}, y = {lo[2] - margin, hi[2] + margin, "y"}}
  local shown = math.max(1, points // 40)
  for k = 1, #poses, shown do
    panel:curve(poses[k], {color = plot.grey, width = 1.2, opacity = 0.35})
  end
  panel:curve(path, {color = plot.red, width = 2.5})
  -- Four poses stand out, with their joints.
  local colors = {plot.blue, plot.green, plot.gold, plot.purple}
  for i, color in ipairs(colors) do
    local pose = poses[1 + (2 * i - 1) * points // 8]
    panel:curve(pose, {color = color, width = 5, opacity = 0.9})
    panel:dots(pose, {color = color, radius = 4.5, hollow = true})
  end
  panel:dots({{0, 0}}, {color = plot.dark, radius = 8})
  print()
  picture:save(given.svg)
end
