--- Curves of a function and its derivative: in Unicode braille, or as SVG.
local ad = require "autodiff"

local plot = {}

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

--- Samples f and its derivative at n + 1 points: lists x, y, dy. A point where f fails has NaN;
-- when it fails everywhere, that is an error.
function plot.sample(f, a, b, n)
  local nan <const> = 0 / 0
  local xs, ys, ds, bad, message = {}, {}, {}, 0, nil
  for i = 0, n do
    local x = a + (b - a) * (i / n)
    local ok, y, dy = pcall(ad.jvp, f, { x }, { 1.0 })
    if ok and not (type(y) == "number" and type(dy) == "number") then
      ok, y = false, "the function must return a number, got a " .. type(y)
    end
    if not ok then
      -- not ours to go on after
      if type(y) == "string" and y:find "interrupted!" then error(y, 0) end
      bad, message = bad + 1, message or y
      y, dy = nan, nan
    end
    xs[#xs + 1], ys[#ys + 1], ds[#ds + 1] = x, y, dy
  end
  if bad == n + 1 then error(message, 0) end
  return xs, ys, ds
end

-- The range of the values, without what poles make of it.
local function range(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, v in ipairs(list) do if finite(v) then all[#all + 1] = v end end
  end
  if #all == 0 then return -1.0, 1.0 end
  table.sort(all)
  local lo, hi = all[1], all[#all]
  local cut = #all // 20
  local p, q = all[1 + cut], all[#all - cut]
  if q > p and hi - lo > 8 * (q - p) then
    lo, hi = math.max(lo, p - (q - p)), math.min(hi, q + (q - p))
  end
  if hi - lo <= 1e-12 * math.max(math.abs(lo), math.abs(hi)) or lo == hi then
    local half = lo == 0 and 1 or math.abs(lo) / 2
    return lo - half, hi + half
  end
  return lo, hi
end

--- Round numbers between lo and hi, about n of them, with their texts.
function plot.ticks(lo, hi, n)
  local raw = (hi - lo) / n
  local power = 10.0 ^ math.floor(math.log(raw, 10))
  local step = 10 * power
  for _, m in ipairs { 1, 2, 5 } do
    if raw <= m * power * 1.0001 then
      step = m * power
      break
    end
  end
  local list = {}
  local first = math.ceil(lo / step - 1e-9)
  for k = first, math.floor(hi / step + 1e-9) do
    local v = k * step
    list[#list + 1] = { at = v, text = (("%.10g"):format(v):gsub("^%-0$", "0")) }
  end
  return list
end

-- Calls put(x, y) for the dots between two points of a raster.
local function line(x0, y0, x1, y1, put)
  local n = math.max(math.abs(x1 - x0), math.abs(y1 - y0))
  for i = 0, n do
    local t = n == 0 and 0 or i / n
    put(math.floor(x0 + (x1 - x0) * t + 0.5), math.floor(y0 + (y1 - y0) * t + 0.5))
  end
end

local dots <const> = { { 0x01, 0x02, 0x04, 0x40 }, { 0x08, 0x10, 0x20, 0x80 } }

local labels <const> = { "f", "f'" }

--- The picture as text: `width` and `height` in characters, `style` for its colours. The
-- derivative is dotted, so that it can be told from f without colours.
function plot.braille(f, a, b, width, height, style, title)
  local cols = math.max(20, width - 11)
  local w, h = cols * 2, height * 4
  local _, ys, ds = plot.sample(f, a, b, w * 2)
  local lo, hi = range(ys, ds)
  local pad = (hi - lo) * 0.02 -- so that a tick at an end is seen
  lo, hi = lo - pad, hi + pad
  local bits, colour = {}, {}
  for i = 1, cols * height do bits[i], colour[i] = 0, false end

  local function row(v) return (hi - v) / (hi - lo) * (h - 1) end
  local function curve(list, which)
    local count, px, py = 0, nil, nil
    local lastx, lasty
    local function put(x, y)
      if x == lastx and y == lasty then return end
      lastx, lasty, count = x, y, count + 1
      if which == 2 and count % 3 ~= 0 then return end
      if x < 0 or x >= w or y < 0 or y >= h then return end
      local cell = (y // 4) * cols + x // 2 + 1
      bits[cell] = bits[cell] | dots[x % 2 + 1][y % 4 + 1]
      colour[cell] = colour[cell] or which
    end
    for i, v in ipairs(list) do
      local x, y = (i - 1) / (#list - 1) * (w - 1), finite(v) and row(v) or nil
      if y and math.abs(y - h / 2) > 2 * h then y = y < 0 and -2 * h or 3 * h end
      -- from one end of the picture to the other at once: a pole
      local jump = y and py and math.abs(y - py) > h and (y < 0 or y >= h or py < 0 or py >= h)
      if y and py and not jump then line(px, py, x, y, put) end
      px, py = x, y
    end
  end
  curve(ys, 1)
  curve(ds, 2)

  local yticks, xticks = {}, plot.ticks(a, b, math.max(2, cols // 14))
  for _, tick in ipairs(plot.ticks(lo, hi, math.max(2, height // 3))) do
    yticks[math.floor(row(tick.at) + 0.5) // 4] = tick.text
  end
  local zero = lo < 0 and hi > 0 and math.floor(row(0) + 0.5) // 4

  local out = {}
  out[1] = (" "):rep(11) .. style:paint("first", "━━ " .. (title or labels[1])) .. "   "
    .. style:paint("second", "┄┄ its derivative")
  for r = 0, height - 1 do
    local parts = { ("%9s "):format(yticks[r] or ""):sub(-10), yticks[r] and "┤" or "│" }
    for c = 1, cols do
      local cell = r * cols + c
      if bits[cell] ~= 0 then
        parts[#parts + 1] = style:paint(colour[cell] == 1 and "first" or "second",
          utf8.char(0x2800 + bits[cell]))
      else
        parts[#parts + 1] = r == zero and style:paint("dim", "╌") or " "
      end
    end
    out[#out + 1] = (table.concat(parts):gsub("%s+$", ""))
  end
  local axis, text, used = {}, {}, 0
  for c = 1, cols do axis[c] = "─" end
  for _, tick in ipairs(xticks) do
    local c = math.min(cols, math.max(1, math.floor((tick.at - a) / (b - a) * (cols - 1) + 1.5)))
    local start = math.max(0, c - 1 - #tick.text // 2)
    start = math.min(start, cols - #tick.text + 1)
    if start >= used then
      axis[c] = "┬"
      text[#text + 1] = (" "):rep(start - used) .. tick.text
      used = start + #tick.text
      if used < cols then
        text[#text + 1] = " "
        used = used + 1
      end
    end
  end
  out[#out + 1] = (" "):rep(10) .. "└" .. table.concat(axis)
  out[#out + 1] = (" "):rep(11) .. (table.concat(text):gsub("%s+$", ""))
  return table.concat(out, "\n")
end

local function escape(s)
  return (s:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

--- The picture as SVG.
function plot.svg(f, a, b, title)
  local W <const>, H <const> = 760, 460
  local left <const>, right <const>, top <const>, bottom <const> = 76, 24, 48, 44
  local xs, ys, ds = plot.sample(f, a, b, 800)
  local lo, hi = range(ys, ds)
  local pad = (hi - lo) * 0.04
  lo, hi = lo - pad, hi + pad
  local function px(x) return left + (x - a) / (b - a) * (W - left - right) end
  local function py(y) return top + (hi - y) / (hi - lo) * (H - top - bottom) end
  local out = {}
  local function put(s, ...) out[#out + 1] = s:format(...) end
  put('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
    .. 'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#333">', W, H, W, H)
  put('<title>%s and its derivative</title>', escape(title))
  put('<rect width="%d" height="%d" fill="#fff"/>', W, H)
  put('<clipPath id="area"><rect x="%d" y="%d" width="%d" height="%d"/></clipPath>',
    left, top, W - left - right, H - top - bottom)
  for _, tick in ipairs(plot.ticks(a, b, 7)) do
    local x = px(tick.at)
    put('<path d="M%.1f %dV%d" stroke="%s"/>', x, top, H - bottom,
      tick.at == 0 and "#999" or "#e4e4e4")
    put('<text x="%.1f" y="%d" text-anchor="middle">%s</text>', x, H - bottom + 20, tick.text)
  end
  for _, tick in ipairs(plot.ticks(lo, hi, 6)) do
    local y = py(tick.at)
    put('<path d="M%d %.1fH%d" stroke="%s"/>', left, y, W - right,
      tick.at == 0 and "#999" or "#e4e4e4")
    put('<text x="%d" y="%.1f" text-anchor="end">%s</text>', left - 8, y + 4.5, tick.text)
  end
  put('<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#666"/>',
    left, top, W - left - right, H - top - bottom)
  local function curve(list, colour, dash)
    local d, pen, last = {}, false, nil
    for i, v in ipairs(list) do
      local ok = finite(v)
      local y = ok and math.max(-4 * H, math.min(5 * H, py(v)))
      if ok and pen and math.abs(y - last) > H then pen = false end
      if ok then
        d[#d + 1] = ("%s%.2f %.2f"):format(pen and "L" or "M", px(xs[i]), y)
      end
      pen, last = ok, y
    end
    put('<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"%s '
      .. 'clip-path="url(#area)"/>', table.concat(d), colour, dash)
  end
  curve(ds, "#d1495b", ' stroke-dasharray="6 4"')
  curve(ys, "#1b6ca8", "")
  put('<path d="M%d 24h34" stroke="#1b6ca8" stroke-width="2"/>', left)
  put('<text x="%d" y="28.5">%s</text>', left + 42, escape(title))
  put('<path d="M%d 24h34" stroke="#d1495b" stroke-width="2" stroke-dasharray="6 4"/>', W - 190)
  put('<text x="%d" y="28.5">its derivative</text>', W - 148)
  put "</svg>"
  return table.concat(out, "\n") .. "\n"
end

return plot
