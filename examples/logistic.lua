-- Logistic regression on Fisher's irises, with standard errors from the Hessian.
--
--     lua5.4 examples/logistic.lua
--     lua5.4 examples/logistic.lua --svg irises.svg
--
-- Is an iris a versicolor or a virginica, by the size of its leaves? The likelihood is written on
-- whole arrays. Its gradient and Hessian are those of automatic differentiation, and Newton's
-- method needs no more than them. At the maximum the inverse of the Hessian is the covariance of
-- the estimates.

local here = arg[0]:match("^.*/") or "./"
package.path = here .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local plot = require "plot"
local options = require "options"

local usage = [[
usage: lua5.4 examples/logistic.lua [--svg FILE]
]]

local given, rest, fail = options(arg, usage, {svg = "text"})
if #rest > 0 then fail("unexpected '" .. rest[1] .. "'") end

-- Rows 1, sepal length, ..., petal width; and 1 for virginica, 0 for versicolor.
local names = {"(intercept)", "sepal length", "sepal width", "petal length", "petal width"}
local rows, class = {}, {}
for line in io.lines(here .. "data/iris.csv") do
  local a, b, c, d, species = line:match("^([%d.]+),([%d.]+),([%d.]+),([%d.]+),(%a+)$")
  if species and species ~= "setosa" then
    rows[#rows + 1] = {1, tonumber(a), tonumber(b), tonumber(c), tonumber(d)}
    class[#class + 1] = species == "virginica" and 1 or 0
  end
end
local X, y = ad.array(rows), ad.array(class)

--- -log of the likelihood: each flower adds log(1 + exp(z)) - y z.
local function loss(w)
  local z = X:matmul(w)
  return ad.sum(ad.softplus(z) - y * z)
end

local value_and_grad, hessian = ad.value_and_grad(loss), ad.hessian(loss)

local w = ad.zeros(#names)
print(("%5s %16s %12s"):format("step", "-log likelihood", "|gradient|"))
local step = 0
while true do
  local value, g = value_and_grad(w)
  print(("%5d %16.10f %12.3g"):format(step, value, ad.norm(g)))
  if ad.norm(g) < 1e-10 or step == 50 then break end
  w = w - ad.linalg.solve(hessian(w), g)
  step = step + 1
end

local covariance = ad.linalg.inv(hessian(w))
print()
print(("%-14s %10s %10s %8s %8s"):format("", "estimate", "std.error", "z", "p"))
for i, name in ipairs(names) do
  local deviation = math.sqrt(covariance[{i, i}])
  local z = w[i] / deviation
  print(("%-14s %10.4f %10.4f %8.3f %8.4f"):format(name, w[i], deviation, z,
    ad.erfc(math.abs(z) / math.sqrt(2))))
end

local right = ad.sum(ad.eq(ad.lt(0, X:matmul(w)), y))
print()
print(("%d of %d are classified as what they are."):format(right, #class))
local ok, report = ad.check(loss, {w}, {order = 2})
print("The derivatives, first and second, against differences: " .. (ok and "right" or report))

if given.svg then
  -- Petals; the other two measurements are held at their means.
  local mean = ad.mean(X, 1)
  local function boundary(p, length)
    local logit = math.log(p / (1 - p))
    return (logit - w[1] - w[2] * mean[2] - w[3] * mean[3] - w[4] * length) / w[5]
  end
  local picture = plot.picture(640, 480, "Irises: the probability of virginica, by the petals")
  picture:legend(120, 50, {{"versicolor", plot.blue, "dot"}, {"virginica", plot.red, "dot"},
    {"1/2", plot.dark}, {"0.05 and 0.95", plot.grey, "5 4"}})
  local panel = picture:panel{left = 70, top = 65, width = 540, height = 350,
    x = {2.8, 7.1, "petal length / cm"}, y = {0.8, 2.7, "petal width / cm"}}
  for _, line in ipairs{{0.05, plot.grey, "5 4"}, {0.5, plot.dark}, {0.95, plot.grey, "5 4"}} do
    panel:curve({{2.5, boundary(line[1], 2.5)}, {7.5, boundary(line[1], 7.5)}},
      {color = line[2], dash = line[3], width = 1.5})
  end
  for c, color in pairs{[0] = plot.blue, [1] = plot.red} do
    local points = {}
    for i = 1, #class do
      if class[i] == c then points[#points + 1] = {rows[i][4], rows[i][5]} end
    end
    panel:dots(points, {color = color, opacity = 0.8})
  end
  print()
  picture:save(given.svg)
end
