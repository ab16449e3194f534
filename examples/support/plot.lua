-- Pictures in SVG: panels with axes, and in them curves, dots, contour lines and words.
--
--     local picture = plot.picture(640, 420, "title")
--     local panel = picture:panel{left = 60, top = 40, width = 560, height = 330,
--       x = {0, 10, "time / s"}, y = {-1, 1, "height / m"}}
--     panel:curve(points, {color = plot.blue})        -- points: {{x, y}, ...}
--     picture:save("file.svg")

local plot = {
  -- Colours that also those with the common colour deficiencies can tell apart: Okabe and Ito,
  -- Color Universal Design, 2002.
  blue = "#0072b2", red = "#d55e00", green = "#009e73", gold = "#e69f00", purple = "#cc79a7",
  grey = "#888888", light = "#e4e4e4", dark = "#333333",
}

local Picture, Panel = {}, {}
Picture.__index, Panel.__index = Picture, Panel

local function escape(s)
  return (tostring(s):gsub("[&<>\"]", {
    ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;",
  }))
end

-- An element, with its attributes in the order of their names, so that the same picture is the
-- same file.
local function element(name, attributes, content)
  local keys, parts = {}, {}
  for key in pairs(attributes) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do
    local v = attributes[key]
    if math.type(v) == "float" then v = ("%.2f"):format(v):gsub("%.?0+$", "") end
    parts[i] = (' %s="%s"'):format(key, escape(v))
  end
  if not content then return ("<%s%s/>\n"):format(name, table.concat(parts)) end
  return ("<%s%s>%s</%s>\n"):format(name, table.concat(parts), content, name)
end

---------------------------------------------------------------------------------------------------
-- Pictures
---------------------------------------------------------------------------------------------------

function plot.picture(width, height, title)
  local self = setmetatable({width = width, height = height, clips = 0, out = {}}, Picture)
  self:add("rect", {width = width, height = height, fill = "white"})
  if title then
    self:add("text", {x = width / 2, y = 24, ["text-anchor"] = "middle", ["font-size"] = 16},
      escape(title))
  end
  return self
end

function Picture:add(...)
  self.out[#self.out + 1] = element(...)
end

--- Save to a file; says so.
function Picture:save(path)
  local file = assert(io.open(path, "w"))
  file:write(([[
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d"
     font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="#333333">
]]):format(self.width, self.height, self.width, self.height), table.concat(self.out), "</svg>\n")
  file:close()
  print("The picture is " .. path)
end

--- Names of colours in a row, the left end at (x, y): a list of {name, color[, dash]}, where the
-- dash may also be "dot".
function Picture:legend(x, y, entries)
  for _, entry in ipairs(entries) do
    local name, color, dash = table.unpack(entry, 1, 3)
    if dash == "dot" then
      self:add("circle", {cx = x + 16, cy = y - 4, r = 4, fill = color})
    else
      self:add("line", {x1 = x, x2 = x + 22, y1 = y - 4, y2 = y - 4, stroke = color,
        ["stroke-width"] = 3, ["stroke-dasharray"] = dash or "none"})
    end
    self:add("text", {x = x + 28, y = y}, escape(name))
    x = x + 52 + 7 * utf8.len(name)
  end
end

---------------------------------------------------------------------------------------------------
-- Panels
---------------------------------------------------------------------------------------------------

-- About `count` round numbers from lo to hi, and how to write them.
local function ticks(lo, hi, count)
  local raw = (hi - lo) / count
  local unit = 10.0 ^ math.floor(math.log(raw, 10))
  local step = unit
  for _, factor in ipairs{2, 5, 10} do
    if step < 0.8 * raw then step = unit * factor end
  end
  local decimals = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
  local list = {}
  for i = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9) do
    list[#list + 1] = {i * step, ("%." .. decimals .. "f"):format(i * step)}
  end
  return list
end

--- A panel with axes: {left =, top =, width =, height =, x = {lo, hi[, label]}, y = {...}}. With
-- `equal = true` the wider of both ranges is used for both directions.
function Picture:panel(options)
  local self_ = setmetatable({picture = self}, Panel)
  for key, value in pairs(options) do self_[key] = value end
  if options.equal then
    local w, h = options.x[2] - options.x[1], options.y[2] - options.y[1]
    local scale = math.max(w / options.width, h / options.height)
    local function widen(range, size)
      local middle = (range[1] + range[2]) / 2
      return {middle - scale * size / 2, middle + scale * size / 2, range[3]}
    end
    self_.x, self_.y = widen(options.x, options.width), widen(options.y, options.height)
  end
  self_:axes()
  -- What leaves the panel is cut off.
  self.clips = self.clips + 1
  self_.clip = "url(#clip" .. self.clips .. ")"
  self:add("clipPath", {id = "clip" .. self.clips}, element("rect", {
    x = self_.left, y = self_.top, width = self_.width, height = self_.height}))
  return self_
end

-- From the panel's numbers to places in the picture.
function Panel:place(x, y)
  return self.left + (x - self.x[1]) / (self.x[2] - self.x[1]) * self.width,
    self.top + (self.y[2] - y) / (self.y[2] - self.y[1]) * self.height
end

function Panel:axes()
  local picture, bottom, right = self.picture, self.top + self.height, self.left + self.width
  for _, tick in ipairs(ticks(self.x[1], self.x[2], self.width / 80)) do
    local at = self:place(tick[1], 0)
    picture:add("line", {x1 = at, x2 = at, y1 = self.top, y2 = bottom, stroke = plot.light})
    picture:add("text", {x = at, y = bottom + 17, ["text-anchor"] = "middle"}, tick[2])
  end
  for _, tick in ipairs(ticks(self.y[1], self.y[2], self.height / 50)) do
    local _, at = self:place(0, tick[1])
    picture:add("line", {x1 = self.left, x2 = right, y1 = at, y2 = at, stroke = plot.light})
    picture:add("text", {x = self.left - 7, y = at + 4, ["text-anchor"] = "end"}, tick[2])
  end
  picture:add("rect", {x = self.left, y = self.top, width = self.width, height = self.height,
    fill = "none", stroke = plot.grey})
  if self.x[3] then
    picture:add("text", {x = self.left + self.width / 2, y = bottom + 36,
      ["text-anchor"] = "middle"}, escape(self.x[3]))
  end
  if self.y[3] then
    local x, y = self.left - 45, self.top + self.height / 2
    picture:add("text", {x = x, y = y, ["text-anchor"] = "middle",
      transform = ("rotate(-90 %g %g)"):format(x, y)}, escape(self.y[3]))
  end
end

-- The `d` of a path through points. One that is not finite interrupts it; one far outside is
-- brought nearer, because renderers do not like it.
function Panel:path(points, closed)
  local parts, pen = {}, "M"
  local function near(z, lo, size)
    return math.max(lo - 4 * size, math.min(lo + 5 * size, z))
  end
  for _, p in ipairs(points) do
    local x, y = self:place(p[1], p[2])
    if x == x and y == y then
      parts[#parts + 1] = ("%s%.1f %.1f"):format(pen,
        near(x, self.left, self.width), near(y, self.top, self.height))
      pen = "L"
    else
      pen = "M"
    end
  end
  return table.concat(parts) .. (closed and "Z" or "")
end

--- A line through points {{x, y}, ...}. Options: color, width, dash, opacity, closed.
function Panel:curve(points, options)
  self.picture:add("path", {
    d = self:path(points, options.closed), fill = "none", stroke = options.color or plot.blue,
    ["stroke-width"] = options.width or 2, ["stroke-dasharray"] = options.dash or "none",
    ["stroke-opacity"] = options.opacity or 1, ["stroke-linejoin"] = "round",
    ["stroke-linecap"] = "round", ["clip-path"] = self.clip,
  })
end

--- A dot at each point. Options: color, radius, opacity, hollow.
function Panel:dots(points, options)
  for _, p in ipairs(points) do
    local x, y = self:place(p[1], p[2])
    self.picture:add("circle", {
      cx = x, cy = y, r = options.radius or 3.5, opacity = options.opacity or 1,
      fill = options.hollow and "white" or options.color or plot.blue,
      stroke = options.hollow and options.color or "white",
      ["stroke-width"] = options.hollow and 1.8 or 0.8, ["clip-path"] = self.clip,
    })
  end
end

--- A word at a point; (dx, dy) moves it, in units of the picture.
function Panel:text(x, y, words, options)
  local px, py = self:place(x, y)
  self.picture:add("text", {
    x = px + (options.dx or 0), y = py + (options.dy or 0), fill = options.color or plot.dark,
    ["text-anchor"] = options.anchor or "start",
  }, escape(words))
end

---------------------------------------------------------------------------------------------------
-- Contour lines
---------------------------------------------------------------------------------------------------

-- Pieces of the line z = level inside one cell, each between two of its edges: marching squares.
-- A corner that is not finite leaves the cell empty.
local function crossings(corners, level)
  local found = {}
  for i = 1, 4 do
    local a, b = corners[i], corners[i % 4 + 1]
    if not (a[3] - a[3] == 0) then return {} end
    if (a[3] < level) ~= (b[3] < level) then
      local t = (level - a[3]) / (b[3] - a[3])
      found[#found + 1] = {a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])}
    end
  end
  return found
end

-- Joins pieces that share an end into long lines.
local function join(pieces)
  local function key(p) return ("%.9g %.9g"):format(p[1], p[2]) end
  local at, lines = {}, {}
  for _, piece in ipairs(pieces) do
    for _, p in ipairs(piece) do
      local k = key(p)
      at[k] = at[k] or {}
      table.insert(at[k], piece)
    end
  end
  local function extend(line)
    while true do
      local tail, following = line[#line], nil
      for _, piece in ipairs(at[key(tail)]) do
        if not piece.used then following = piece end
      end
      if not following then return end
      following.used = true
      local same = key(following[1]) == key(tail)
      line[#line + 1] = same and following[2] or following[1]
    end
  end
  for _, piece in ipairs(pieces) do
    if not piece.used then
      piece.used = true
      local line = {piece[1], piece[2]}
      extend(line)
      local reversed = {}
      for i = #line, 1, -1 do reversed[#reversed + 1] = line[i] end
      extend(reversed)
      lines[#lines + 1] = reversed
    end
  end
  return lines
end

--- Contour lines of f(x, y), a function on plain numbers, at a list of levels, from light to dark.
function Panel:contours(f, levels)
  local nx, ny = 96, math.floor(96 * self.height / self.width)
  local grid = {}
  for i = 0, nx do
    grid[i] = {}
    for j = 0, ny do
      local x = self.x[1] + i / nx * (self.x[2] - self.x[1])
      local y = self.y[1] + j / ny * (self.y[2] - self.y[1])
      grid[i][j] = {x, y, f(x, y)}
    end
  end
  for k, level in ipairs(levels) do
    local pieces = {}
    for i = 0, nx - 1 do
      for j = 0, ny - 1 do
        local found = crossings(
          {grid[i][j], grid[i + 1][j], grid[i + 1][j + 1], grid[i][j + 1]}, level)
        for c = 1, #found - 1, 2 do pieces[#pieces + 1] = {found[c], found[c + 1]} end
      end
    end
    local shade = 1 - (k - 1) / math.max(1, #levels - 1)
    for _, line in ipairs(join(pieces)) do
      self:curve(line, {color = plot.purple, width = 1, opacity = 0.35 + 0.5 * shade})
    end
  end
end

return plot
