-- Images of digits from files: MNIST's IDX and scikit-learn's CSV. All give {images = an array with
-- a row of numbers from 0 to 1 for each image, digits = an array of what they are}.

local ad = require "autodiff"

local images = {}

local function contents(path)
  local file, why = io.open(path, "rb")
  if not file then error(why, 0) end
  local s = file:read "a"
  file:close()
  return s
end

local function check(condition, path, message)
  if not condition then error(path .. ": " .. message, 0) end
end

-- What was read, if the digits are digits and there is something for the test.
local function complete(path, pixels, digits)
  check(#digits >= 5, path, "fewer than 5 images")
  for i, digit in ipairs(digits) do
    check(digit % 1 == 0 and digit >= 0 and digit <= 9, path,
      ("image %d is said to be %s"):format(i, digit))
  end
  return {images = pixels, digits = ad.array(digits)}
end

-- Bytes from `first` on, in lists of at most a few hundred, as string.byte wants it.
local function bytes(s, first, n)
  local list = {}
  for i = 0, n - 1, 256 do
    local last = math.min(i + 255, n - 1)
    table.move({s:byte(first + i, first + last)}, 1, last - i + 1, i + 1, list)
  end
  return list
end

--- The IDX format of MNIST: big-endian sizes, then bytes.
function images.idx(image_path, label_path)
  local s = contents(image_path)
  check(#s >= 16 and (">I4"):unpack(s) == 0x803, image_path, "not an IDX file of images")
  local _, n, rows, columns = (">I4I4I4I4"):unpack(s)
  check(#s == 16 + n * rows * columns, image_path, "its size is not what it says")
  local pixels = ad.array(bytes(s, 17, n * rows * columns)) / 255
  s = contents(label_path)
  check(#s >= 8 and (">I4"):unpack(s) == 0x801, label_path, "not an IDX file of labels")
  local _, labels = (">I4I4"):unpack(s)
  check(#s == 8 + labels, label_path, "its size is not what it says")
  check(labels == n, label_path, ("%d labels for %d images"):format(labels, n))
  return complete(label_path, pixels:reshape{n, rows * columns}, bytes(s, 9, n))
end

--- Lines of pixels and, last, the digit.
function images.csv(path)
  local rows, digits, largest = {}, {}, 1
  for line in contents(path):gmatch "[^\r\n]+" do
    local row = {}
    for field in line:gmatch "[^,]+" do row[#row + 1] = tonumber(field) end
    if #row > 1 then
      check(not rows[1] or #row - 1 == #rows[1], path, "the lines have different lengths")
      digits[#digits + 1] = table.remove(row)
      for _, v in ipairs(row) do largest = math.max(largest, v) end
      rows[#rows + 1] = row
    end
  end
  check(#rows > 0, path, "no images")
  return complete(path, ad.array(rows) / largest, digits)
end

--- In the order of a permutation: one in `every` for the test, the others to learn from.
function images.split(set, order, every)
  local n = #order
  local k = n // every
  local function part(first, last)
    local rows = order[{{first, last}}]
    return {images = ad.take(set.images, rows, 1), digits = ad.take(set.digits, rows)}
  end
  return part(k + 1, n), part(1, k)
end

return images
