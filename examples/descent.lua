-- Gradient descent on a formula that you type.
--
--     lua5.4 examples/descent.lua
--     lua5.4 examples/descent.lua 'x^4 + y^4 - 4*x*y' --start 0.2,2 --svg descent.svg
--
-- The formula is Lua, with every function of the library by its short name. Nobody derives
-- anything: the same text serves for the value and for the gradient.

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local plot = require "plot"
local options = require "options"

local usage = [[
usage: lua5.4 examples/descent.lua [FORMULA] [--start X,Y]... [--steps N] [--svg FILE]
FORMULA is Lua in x and y; the default is Himmelblau's, which has four minima of 0.
]]

local given, rest, fail = options(arg, usage, {start = "list", steps = "number", svg = "text"})
local formula = rest[1] or "(x^2 + y - 11)^2 + (x + y^2 - 7)^2"
local limit = given.steps or 200

-- A formula sees the library and nothing else.
local chunk, message = load("local x, y = ... return " .. formula, "=formula", "t",
  setmetatable({pi = math.pi, huge = math.huge}, {__index = ad}))
if not chunk then fail(message) end

local starts = {}
for i, text in ipairs(given.start or {"1,1", "-0.5,0.5", "-1,-1", "0,-1"}) do
  local x, y = text:match("^([^,]+),([^,]+)$")
  starts[i] = {tonumber(x), tonumber(y)}
  if #starts[i] < 2 then fail("a start is two numbers, as in 1,-2.5") end
end

local slope = ad.value_and_grad(chunk, {1, 2})

--- The path downhill from a point, and how steep it is at its end.
local function descend(x, y)
  local path, rate = {{x, y}}, 0.1
  local value, gx, gy = slope(x, y)
  while #path <= limit and ad.norm{gx, gy} > 1e-8 do
    -- A rate that suits every formula does not exist: one step further than before, then half of
    -- it until the value falls by half of what the slope promises (Armijo's rule).
    rate = 2 * rate
    local nx, ny, next_value
    repeat
      rate = rate / 2
      if rate < 1e-18 then return path, value, ad.norm{gx, gy} end
      nx, ny = x - rate * gx, y - rate * gy
      next_value = chunk(nx, ny)
    until next_value <= value - rate / 2 * (gx * gx + gy * gy)
    rate, x, y = 2 * rate, nx, ny
    value, gx, gy = slope(x, y)
    path[#path + 1] = {x, y}
  end
  return path, value, ad.norm{gx, gy}
end

print("f(x, y) = " .. formula)
print()
print(("%-18s %-26s %13s %10s %6s"):format("from", "to", "f", "gradient", "steps"))
local paths, lo, hi = {}, {math.huge, math.huge}, {-math.huge, -math.huge}
for i, start in ipairs(starts) do
  local ok, path, value, steep = pcall(descend, start[1], start[2])
  if not ok then fail(path) end
  paths[i] = path
  local last = path[#path]
  print(("%-18s %-26s %13.6g %10.1e %6d"):format(("(%g, %g)"):format(start[1], start[2]),
    ("(%.8f, %.8f)"):format(last[1], last[2]), value, steep, #path - 1))
  for _, p in ipairs(path) do
    for k = 1, 2 do lo[k], hi[k] = math.min(lo[k], p[k]), math.max(hi[k], p[k]) end
  end
end

if given.svg then
  for k = 1, 2 do
    local margin = 0.15 * math.max(hi[k] - lo[k], 1)
    lo[k], hi[k] = lo[k] - margin, hi[k] + margin
  end
  local picture = plot.picture(640, 640, "f(x, y) = " .. formula)
  local panel = picture:panel{left = 60, top = 40, width = 550, height = 540, equal = true,
    x = {lo[1], hi[1], "x"}, y = {lo[2], hi[2], "y"}}
  -- Levels as far apart as the values of the formula are in the picture: each has the same share
  -- of its area. What is wanted is low, so there they are closer.
  local values = {}
  for i = 0, 40 do
    for j = 0, 40 do
      local z = chunk(panel.x[1] + i / 40 * (panel.x[2] - panel.x[1]),
        panel.y[1] + j / 40 * (panel.y[2] - panel.y[1]))
      if z - z == 0 then values[#values + 1] = z end
    end
  end
  table.sort(values)
  local levels = {}
  for k = 1, 14 do levels[k] = values[1 + math.floor((#values - 1) * (k / 14.5) ^ 1.5)] end
  panel:contours(chunk, levels)
  local colors = {plot.blue, plot.red, plot.green, plot.gold}
  for i, path in ipairs(paths) do
    local color = colors[(i - 1) % #colors + 1]
    panel:curve(path, {color = color})
    panel:dots(path, {color = color, radius = 2.6})
    panel:dots({path[1]}, {color = color, radius = 5, hollow = true})
    panel:dots({path[#path]}, {color = color, radius = 5.5})
  end
  print()
  picture:save(given.svg)
end
