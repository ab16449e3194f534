-- Gaussian-process regression, its parameters fitted by the gradient of the marginal likelihood.
--
--     lua5.4 examples/gp.lua
--     lua5.4 examples/gp.lua --file examples/data/nist/Gauss3.dat --svg gp.svg
--
-- NIST's problem Gauss1 has 250 observations of two peaks on a slope. NIST certifies the standard
-- deviation of what is left when the right formula, with its eight parameters, has been fitted. A
-- Gaussian process knows no formula: it has a length, a height and a noise, and finds all three by
-- climbing the likelihood of the data, whose gradient goes through a Cholesky factor.
--
-- C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006), algorithm
-- 2.1 and equation 5.8.

local here = arg[0]:match("^.*/") or "./"
package.path = here .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local optim = require "autodiff.optim"
local plot = require "plot"
local options = require "options"

local usage = [[
usage: lua5.4 examples/gp.lua [--file FILE] [--svg FILE]
The file is one of NIST's for nonlinear regression with one predictor; the default is Gauss1.
]]

local given, rest, fail = options(arg, usage, {file = "text", svg = "text"})
if #rest > 0 then fail("unexpected '" .. rest[1] .. "'") end

-- Lines of numbers after the line that says "Data: y x".
local path = given.file or here .. "data/nist/Gauss1.dat"
local file, why = io.open(path)
if not file then fail(why) end
local xs, ys, certified, reading = {}, {}, nil, false
for line in file:lines() do
  certified = certified or tonumber(line:match("^Residual Standard Deviation:%s*(%S+)"))
  if reading then
    local y, x = line:match("^%s*(%S+)%s+(%S+)%s*$")
    if tonumber(y) and tonumber(x) then
      xs[#xs + 1], ys[#ys + 1] = tonumber(x), tonumber(y)
    end
  elseif line:find("^Data:%s+y%s+x%s*$") then
    reading = true
  end
end
file:close()
if #xs < 3 then fail(path .. ": no data with one predictor") end

local n = #xs
local x, y = ad.array(xs), ad.array(ys)
local mean, spread = ad.mean(y), ad.std(y)
local range = ad.max(x) - ad.min(x)
local target = (y - mean) / spread

--- height^2 exp(-d^2 / (2 length^2)) between all pairs.
local function covariance(a, b, p)
  local d = (a:reshape{#a, 1} - b) / p.length
  return p.height ^ 2 * ad.exp(-0.5 * d * d)
end

-- What is fitted is the logarithm of each, so that all stay above 0.
local function parameters(log)
  return {length = ad.exp(log.length), height = ad.exp(log.height), noise = ad.exp(log.noise)}
end

-- -log p(y), with the factor and with what predictions need of it. The small number on the
-- diagonal keeps the matrix definite where observations are at the same place.
local eye = ad.eye(n)
local function loss(log)
  local p = parameters(log)
  local L = ad.linalg.cholesky(covariance(x, x, p) + (p.noise ^ 2 + 1e-10) * eye)
  local z = ad.linalg.solve(L, target)
  return 0.5 * ad.sum(z * z) + ad.sum(ad.log(ad.einsum("ii->i", L)))
    + 0.5 * n * math.log(2 * math.pi), L, z
end

local start = {length = math.log(range / 10), height = 0.0, noise = math.log(0.3)}
print(("%5s %16s %12s %12s %12s"):format("step", "-log likelihood", "length", "height", "noise"))
local result = optim.lbfgs(loss, start, {
  callback = function(s)
    local p = parameters(s.x)
    print(("%5d %16.8f %12.5g %12.5g %12.5g"):format(s.iteration, s.value, p.length,
      p.height * spread, p.noise * spread))
  end,
})
local p = parameters(result.x)
print()
print("It stopped: " .. result.reason .. ".")
print(("The noise that was found: %.4f"):format(p.noise * spread))
if certified then
  print(("NIST's certified residual standard deviation: %.4f"):format(certified))
end
local ok, report = ad.check(function(log) return (loss(log)) end, {result.x})
print("The gradient against differences: " .. (ok and "right" or report))

if given.svg then
  local _, L, z = loss(result.x)
  local at = ad.linspace(ad.min(x), ad.max(x), 300)
  local K = covariance(x, at, p)
  local v = ad.linalg.solve(L, K)
  local expected = ad.transpose(v):matmul(z) * spread + mean
  local variance = p.height ^ 2 + p.noise ^ 2 - ad.sum(v * v, 1)
  local deviation = ad.sqrt(ad.maximum(variance, 0)) * spread
  local lo, hi = ad.min(y), ad.max(y)
  local margin = 0.08 * (hi - lo)
  local picture = plot.picture(720, 460, "A Gaussian process: " .. path:match("[^/]+$"))
  picture:legend(140, 50, {{"observed", plot.grey, "dot"}, {"expected", plot.blue},
    {"19 of 20 observations are between", plot.gold}})
  local panel = picture:panel{left = 70, top = 65, width = 620, height = 330,
    x = {ad.min(x), ad.max(x), "x"}, y = {lo - margin, hi + margin, "y"}}
  local band = {}
  for side = -1, 1, 2 do
    band[side] = {}
    for i = 1, #at do band[side][i] = {at[i], expected[i] + 1.96 * side * deviation[i]} end
    panel:curve(band[side], {color = plot.gold, width = 1.5})
  end
  local points, curve = {}, {}
  for i = 1, n do points[i] = {xs[i], ys[i]} end
  for i = 1, #at do curve[i] = {at[i], expected[i]} end
  panel:dots(points, {color = plot.grey, radius = 2.5})
  panel:curve(curve, {color = plot.blue, width = 2.5})
  print()
  picture:save(given.svg)
end
