-- A small neural network learns to read handwritten digits.
--
--     lua5.4 examples/digits.lua
--     lua5.4 examples/digits.lua --hidden 128 --epochs 40 --svg digits.svg
--     lua5.4 examples/digits.lua --images train-images-idx3-ubyte --labels train-labels-idx1-ubyte
--     lua5.4 examples/digits.lua --csv digits.csv
--
-- The network is three lines: softmax(tanh(x W1 + b1) W2 + b2). Its loss is the mean of the cross
-- entropies of a batch, and `ad.value_and_grad` does the rest, whatever the structure in which the
-- weights are kept. The digits that come with it are a part of MNIST, 14 by 14 pixels; MNIST's own
-- files (IDX) and scikit-learn's (CSV: the pixels, then the digit) are read too, of which one in
-- five is kept for the test.

local here = arg[0]:match("^.*/") or "./"
package.path = here .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local optim = require "autodiff.optim"
local plot = require "plot"
local options = require "options"
local reading = require "images"

local usage = [[
usage: lua5.4 examples/digits.lua [--images IDX --labels IDX | --csv FILE]
         [--hidden N] [--epochs N] [--batch N] [--rate R] [--seed N] [--svg FILE]
Defaults: 64 hidden units, 30 epochs, batches of 50, a rate of 0.002, seed 1.
]]

local given, rest, fail = options(arg, usage, {images = "text", labels = "text", csv = "text",
  hidden = "number", epochs = "number", batch = "number", rate = "number", seed = "number",
  svg = "text"})
if #rest > 0 then fail("unexpected '" .. rest[1] .. "'") end

local function count(name, default)
  local n = math.tointeger(given[name] or default)
  if not n or n < 1 then fail("--" .. name .. " must be a whole number above 0") end
  return n
end
local hidden, epochs, batch = count("hidden", 64), count("epochs", 30), count("batch", 50)
local random = ad.random(math.tointeger(given.seed or 1) or fail("the seed must be an integer"))
local rate = given.rate or 0.002
if not (rate > 0) then fail("--rate must be above 0") end

-- Images in rows of numbers from 0 to 1, and their digits.
local train, test
if given.images or given.labels or given.csv then
  local ok, all = pcall(function()
    if given.csv then return reading.csv(given.csv) end
    return reading.idx(given.images or fail "--labels needs --images",
      given.labels or fail "--images needs --labels")
  end)
  if not ok then fail((tostring(all):gsub("^[^:]+:%d+: ", ""))) end
  train, test = reading.split(all, random:permutation(#all.digits), 5)
else
  local data = here .. "data/digits/"
  train = reading.idx(data .. "train-images.idx3", data .. "train-labels.idx1")
  test = reading.idx(data .. "test-images.idx3", data .. "test-labels.idx1")
end
local n, pixels = train.images.shape[1], train.images.shape[2]

--- A row for each digit, with 1 in its place.
local function onehot(digits)
  return ad.take(ad.eye(10), digits + 1, 1)
end

local function forward(w, x)
  local h = ad.tanh(x:matmul(w.W1) + w.b1)
  return h:matmul(w.W2) + w.b2
end

local function loss(w, x, target)
  return -ad.sum(ad.log_softmax(forward(w, x)) * target) / #x
end

-- Weights that keep the spread of what goes through them: Glorot and Bengio, AISTATS 2010.
local w = {
  W1 = random:normal{pixels, hidden} * math.sqrt(2 / (pixels + hidden)), b1 = ad.zeros(hidden),
  W2 = random:normal{hidden, 10} * math.sqrt(2 / (hidden + 10)), b2 = ad.zeros(10),
}

local function accuracy(set)
  return ad.mean(ad.eq(ad.argmax(forward(w, set.images), 2) - 1, set.digits))
end

print(("%d images to learn from, %d for the test; %d weights"):format(n, #test.digits,
  pixels * hidden + hidden + hidden * 10 + 10))
local value_and_grad = ad.value_and_grad(loss)
local adam = optim.adam{rate = rate}
local terminal = require("autodiff.core").terminal.isatty(1)

local function bar(epoch, done)
  if not terminal then return end
  local width = 30
  local full = math.floor(done * width + 0.5)
  io.write(("\r%3d [%s%s]"):format(epoch, ("#"):rep(full), ("."):rep(width - full)))
  io.flush()
end

local history = {}
local started = os.clock()
for epoch = 1, epochs do
  local order, total, batches = random:permutation(n), 0, 0
  for first = 1, n, batch do
    local rows = order[{{first, math.min(first + batch - 1, n)}}]
    local value, g = value_and_grad(w, ad.take(train.images, rows, 1),
      onehot(ad.take(train.digits, rows)))
    w = adam:step(w, g)
    total, batches = total + value, batches + 1
    bar(epoch, (first + batch - 1) / n)
  end
  history[epoch] = {loss = total / batches, train = accuracy(train), test = accuracy(test)}
  if terminal then io.write("\r") end
  print(("%3d  loss %.4f   right: %5.1f %% of what it learnt from, %5.1f %% of the test")
    :format(epoch, history[epoch].loss, 100 * history[epoch].train, 100 * history[epoch].test))
end
print(("%.1f s"):format(os.clock() - started))

-- Rows: what is written; columns: what was read.
local confusion = {}
for i = 0, 9 do
  confusion[i] = {}
  for j = 0, 9 do confusion[i][j] = 0 end
end
local read = ad.argmax(forward(w, test.images), 2) - 1
for k = 1, #test.digits do
  local i, j = test.digits[k] // 1 | 0, read[k] // 1 | 0
  confusion[i][j] = confusion[i][j] + 1
end
print()
print("written \\ read " .. ("%5d"):rep(10):format(0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
for i = 0, 9 do
  local cells = {}
  for j = 0, 9 do
    cells[#cells + 1] = ("%5s"):format(confusion[i][j] == 0 and "." or confusion[i][j])
  end
  print(("%14d "):format(i) .. table.concat(cells))
end

if given.svg then
  local picture = plot.picture(760, 400, "Reading handwritten digits")
  picture:legend(60, 50, {{"learnt from", plot.blue}, {"test", plot.red}})
  local curves, lowest = {train = {}, test = {}}, 1
  for epoch, h in ipairs(history) do
    for name, curve in pairs(curves) do
      curve[epoch] = {epoch, 100 * h[name]}
      lowest = math.min(lowest, h[name])
    end
  end
  local panel = picture:panel{left = 70, top = 65, width = 380, height = 270,
    x = {1, math.max(2, epochs), "epoch"},
    y = {100 * lowest - 2, 101, "right / %"}}
  panel:curve(curves.train, {color = plot.blue})
  panel:curve(curves.test, {color = plot.red})
  -- The confusion matrix, darker where there are more; the diagonal is not to drown the rest.
  local size = 24
  for i = 0, 9 do
    local left, top = 495, 65
    picture:add("text", {x = left - 8, y = top + size * i + 16, ["text-anchor"] = "end"},
      tostring(i))
    picture:add("text", {x = left + size * i + size / 2, y = top + 10 * size + 17,
      ["text-anchor"] = "middle"}, tostring(i))
    for j = 0, 9 do
      local k = confusion[i][j]
      local shade = i == j and 0.25 or math.min(1, k / 5)
      picture:add("rect", {x = left + size * j, y = top + size * i, width = size, height = size,
        fill = i == j and plot.blue or plot.red, ["fill-opacity"] = shade, stroke = plot.light})
      if k > 0 then
        picture:add("text", {x = left + size * j + size / 2, y = top + size * i + 16,
          ["text-anchor"] = "middle", ["font-size"] = 10}, tostring(k))
      end
    end
  end
  picture:add("text", {x = 615, y = 365, ["text-anchor"] = "middle"},
    "rows: what is written; columns: what was read")
  print()
  picture:save(given.svg)
end
