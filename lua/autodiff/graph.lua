--- The computational graph of a function: as text for Graphviz, and as a
-- picture that is laid out here.
--
-- The layout is Sugiyama's: every node has a layer below those of its
-- operands; edges that pass a layer get a place in it (one for all the edges
-- of a node, which part where they leave); the order within layers comes from
-- sweeps of barycentres; the coordinates are least-squares fits that keep the
-- order. Nodes are in rows, curves only between rows, and edges pass a row
-- straight down in their own place: so none crosses a node.
local args = require "autodiff.args"
local trace = require "autodiff.trace"

local number = trace.number

-- The most nodes that a picture is made of.
local LIMIT = 1000

-- Measures of the picture, in its units (pixels at 100 %).
local CHAR, SMALLCHAR = 7.4, 6.2 -- widths of characters, on the safe side
local HEIGHT = 42 -- of a node
local PAD = 12 -- inside a node, left and right
local APART = 26 -- between nodes
local LANE = 14 -- place of an edge that passes a row
local GAP = 64 -- between rows, at least
local MARGIN = 20
local UPRIGHT = 6 -- nodes with more operands have their labels turned
local TURNED = 14 -- place of a turned label

-- Layouts with more items than this get fewer rounds of improvement.
local MANY = 4000

local Graph = {}
Graph.__index = Graph
Graph.__name = "autodiff.graph"

-- Valid UTF-8 without control characters.
local function clean(s)
  if not utf8.len(s) then s = s:gsub("[\x80-\xff]", "?") end
  return (s:gsub("%c", " "))
end

local function length(s) return utf8.len(s) or #s end

-- Long formulas would make wide boxes.
local function short(s)
  if length(s) <= 40 then return s end
  return s:sub(1, utf8.offset(s, 39) - 1) .. "…"
end

--
-- Graphviz
--

local function quoted(s)
  return '"' .. s:gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"'
end

local FILL = { input = "#e3eefa", result = "#e6f4e1", operation = "#ffffff" }

function Graph:__tostring()
  local out = {
    "digraph autodiff {",
    "  graph [bgcolor=white];",
    '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica"];',
    '  edge [fontname="Helvetica", fontsize=11, fontcolor="#a02020"];',
  }
  for _, v in ipairs(self.nodes) do
    out[#out + 1] = ("  n%d [label=%s, fillcolor=%s%s];"):format(v.id,
      quoted(v.text .. "\n" .. v.value), quoted(FILL[v.kind]),
      v.place ~= "" and ", tooltip=" .. quoted(v.place) or "")
  end
  for _, e in ipairs(self.edges) do
    out[#out + 1] = ("  n%d -> n%d [label=%s];"):format(e.from.id, e.to.id, quoted(e.label))
  end
  out[#out + 1] = "}"
  return table.concat(out, "\n")
end

--
-- Layout
--

-- Layers: below all operands; inputs just above where they are first used.
local function layering(nodes)
  for _, v in ipairs(nodes) do
    v.layer = 1
    for _, e in ipairs(v.into) do v.layer = math.max(v.layer, e.from.layer + 1) end
  end
  for _, v in ipairs(nodes) do
    if v.kind == "input" and #v.out > 0 then
      v.layer = math.huge
      for _, e in ipairs(v.out) do v.layer = math.min(v.layer, e.to.layer - 1) end
    end
  end
end

-- Items of each layer: nodes, and lanes for edges that pass it. `up` and
-- `down` are neighbours in the layers above and below.
local function items(nodes)
  local layers = {}
  for _, v in ipairs(nodes) do
    v.up, v.down = {}, {}
    layers[v.layer] = layers[v.layer] or {}
    table.insert(layers[v.layer], v)
  end
  for _, v in ipairs(nodes) do
    local lanes, last = {}, v.layer
    local function at(layer) -- what stands for v there
      while last < layer do
        local above = lanes[last] or v
        last = last + 1
        local lane = { lane = true, layer = last, width = LANE, up = { above }, down = {} }
        table.insert(above.down, lane)
        lanes[last] = lane
        table.insert(layers[last], lane)
      end
      return lanes[layer] or v
    end
    for _, e in ipairs(v.out) do
      local above = at(e.to.layer - 1)
      e.above = above
      table.insert(above.down, e.to)
      table.insert(e.to.up, above)
    end
  end
  return layers
end

-- Number of edge crossings between a layer and the next.
local function crossings(layer)
  local list = {}
  for _, v in ipairs(layer) do
    local to = {}
    for _, w in ipairs(v.down) do to[#to + 1] = w.at end
    table.sort(to)
    table.move(to, 1, #to, #list + 1, list)
  end
  -- inversions, by merging
  local function count(lo, hi)
    if lo >= hi then return 0 end
    local mid, merged = (lo + hi) // 2, {}
    local n = count(lo, mid) + count(mid + 1, hi)
    local i, j = lo, mid + 1
    while i <= mid or j <= hi do
      if j > hi or (i <= mid and list[i] <= list[j]) then
        merged[#merged + 1], i = list[i], i + 1
      else
        merged[#merged + 1], j = list[j], j + 1
        n = n + mid - i + 1
      end
    end
    table.move(merged, 1, #merged, lo, list)
    return n
  end
  return count(1, #list)
end

local function count_off(layer)
  for i, v in ipairs(layer) do v.at = i end
end

-- Sorts a layer by the mean place of its neighbours on one side.
local function bybarycentre(layer, side)
  for i, v in ipairs(layer) do
    local sum, n = 0, #v[side]
    for _, w in ipairs(v[side]) do sum = sum + w.at end
    v.key, v.old = n > 0 and sum / n or v.at, i
  end
  table.sort(layer, function(a, b)
    if a.key ~= b.key then return a.key < b.key end
    return a.old < b.old
  end)
  count_off(layer)
end

local function ordering(layers, rounds)
  local best, least
  for _, layer in ipairs(layers) do count_off(layer) end
  local function keep()
    local n = 0
    for i = 1, #layers - 1 do n = n + crossings(layers[i]) end
    if not least or n < least then
      best, least = {}, n
      for i, layer in ipairs(layers) do best[i] = table.move(layer, 1, #layer, 1, {}) end
    end
  end
  keep()
  for _ = 1, rounds do
    if least == 0 then break end
    for i = 2, #layers do bybarycentre(layers[i], "up") end
    keep()
    for i = #layers - 1, 1, -1 do bybarycentre(layers[i], "down") end
    keep()
  end
  for i, layer in ipairs(best) do
    layers[i] = layer
    count_off(layer)
  end
end

-- Where the middle of a layer's items come to be: as near as can be (in the
-- sense of least squares) to where they want to be, in order and not closer
-- than they may (isotonic regression, by pooling adjacent violators).
local function place(layer)
  local blocks, offset = {}, 0
  for i, v in ipairs(layer) do
    if i > 1 then
      local before = layer[i - 1]
      local apart = before.lane and v.lane and LANE / 2 or APART
      offset = offset + (before.width + v.width) / 2 + apart
    end
    v.offset = offset
    local b = { first = i, last = i, weight = v.weight, sum = v.weight * (v.want - offset) }
    while #blocks > 0 do
      local a = blocks[#blocks]
      if a.sum / a.weight < b.sum / b.weight then break end
      blocks[#blocks] = nil
      b = { first = a.first, last = b.last, weight = a.weight + b.weight, sum = a.sum + b.sum }
    end
    blocks[#blocks + 1] = b
  end
  for _, b in ipairs(blocks) do
    for i = b.first, b.last do layer[i].x = b.sum / b.weight + layer[i].offset end
  end
end

local function coordinates(layers, rounds)
  for _, layer in ipairs(layers) do
    for _, v in ipairs(layer) do v.want, v.weight = 0, 1 end
    place(layer)
  end
  local function adjust(layer, sides)
    for _, v in ipairs(layer) do
      local sum, weight = 0, 0
      for _, side in ipairs(sides) do
        for _, w in ipairs(v[side]) do
          local k = (v.lane and w.lane) and 8 or 1 -- long edges straight
          sum, weight = sum + k * w.x, weight + k
        end
      end
      v.want = weight > 0 and sum / weight or v.x
      v.weight = math.max(weight, 0.2)
    end
    place(layer)
  end
  for round = 1, rounds do
    local both = round > rounds // 3 and { "up", "down" }
    for i = 2, #layers do adjust(layers[i], both or { "up" }) end
    for i = #layers - 1, 1, -1 do adjust(layers[i], both or { "down" }) end
  end
end

-- Every edge ends in a port of its own at the top of its node, and its label
-- stands there, so that no two meet.
local function ports(v)
  local list = v.into
  table.sort(list, function(a, b)
    if a.above.x ~= b.above.x then return a.above.x < b.above.x end
    return a.number < b.number
  end)
  local total = 0
  for _, e in ipairs(list) do total = total + e.width end
  local x = v.x - total / 2
  for _, e in ipairs(list) do
    e.x = x + e.width / 2
    x = x + e.width
  end
end

-- Heights of the rows and the gaps between them: more where curves go far or
-- labels are turned. Curves from a lane start where its row ends.
local function rows(layers)
  local y = {}
  local top = 0
  for i, layer in ipairs(layers) do
    y[i] = top
    local below = layers[i + 1]
    if not below then break end
    local far, label = 0, 16
    for _, v in ipairs(layer) do
      for _, w in ipairs(v.down) do far = math.max(far, math.abs(v.x - w.x)) end
    end
    for _, w in ipairs(below) do
      for _, e in ipairs(w.into or {}) do label = math.max(label, e.tall) end
    end
    top = top + HEIGHT + math.max(GAP, label + 34 + math.min(90, far / 7))
    layer.label = label
  end
  return y
end

--
-- SVG
--

local ENTITY = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local function escaped(s) return (s:gsub('[&<>"]', ENTITY)) end

local function xy(x) return (("%.1f"):format(x):gsub("%.0$", "")) end

-- A curve from (x1, y1) to (x2, y2) that leaves and arrives upright.
local function curve(x1, y1, x2, y2)
  if math.abs(x1 - x2) < 0.05 then return ("L%s %s"):format(xy(x2), xy(y2)) end
  local bend = (y2 - y1) * 0.5
  return ("C%s %s %s %s %s %s"):format(xy(x1), xy(y1 + bend), xy(x2), xy(y2 - bend),
    xy(x2), xy(y2))
end

local STYLE = [[
  text { font-family: "DejaVu Sans", Verdana, Helvetica, Arial, sans-serif; text-anchor: middle }
  .box { stroke: #404040; stroke-width: 1.2 }
  .formula { font-size: 12px; fill: #000000 }
  .value { font-size: 12px; fill: #1f4e8c }
  .edge { fill: none; stroke: #808080; stroke-width: 1.2 }
  .head { fill: #808080 }
  .partial { font-size: 10.5px; fill: #a02020; stroke: #ffffff; stroke-width: 3px;
    paint-order: stroke; stroke-linejoin: round }
]]

local function drawnode(v, y)
  local out = {}
  local left = xy(v.x - v.width / 2)
  out[#out + 1] = '<g class="node">'
  if v.place ~= "" then out[#out + 1] = "<title>" .. escaped(v.place) .. "</title>" end
  out[#out + 1] = ('<rect class="box" x="%s" y="%s" width="%s" height="%s" rx="7" fill="%s"/>')
    :format(left, xy(y), xy(v.width), xy(HEIGHT), FILL[v.kind])
  out[#out + 1] = ('<text class="formula" x="%s" y="%s">%s</text>')
    :format(xy(v.x), xy(y + 18), escaped(v.text))
  out[#out + 1] = ('<text class="value" x="%s" y="%s">%s</text>')
    :format(xy(v.x), xy(y + 34), escaped(v.value))
  out[#out + 1] = "</g>"
  return table.concat(out)
end

local function drawedges(v, y, layers, out, labels)
  -- the lanes first: what its edges have in common is drawn once
  local row, lane = v.layer, v
  while true do
    local here, bottom = lane, y[row] + HEIGHT
    local top = y[row + 1]
    lane = nil
    for _, w in ipairs(here.down) do
      if w.lane then lane = w end
    end
    if lane then
      out[#out + 1] = ('<path class="edge" d="M%s %s%s%s"/>'):format(xy(here.x), xy(bottom),
        curve(here.x, bottom, lane.x, top), curve(lane.x, top, lane.x, top + HEIGHT))
    end
    for _, e in ipairs(v.out) do
      if e.above == here then
        local label = layers[row].label
        local bend = top - label - 6
        out[#out + 1] = ('<path class="edge" d="M%s %s%s%s"/>'):format(xy(here.x), xy(bottom),
          curve(here.x, bottom, e.x, bend), curve(e.x, bend, e.x, top - 5))
        out[#out + 1] = ('<path class="head" d="M%s %sl-3.5 -7h7z"/>'):format(xy(e.x), xy(top))
        if e.turned then
          local cx, cy = xy(e.x + 3.5), xy(top - 9 - (e.tall - 12) / 2)
          labels[#labels + 1] = ('<text class="partial" x="%s" y="%s" ' ..
            'transform="rotate(-90 %s %s)">%s</text>'):format(cx, cy, cx, cy, escaped(e.label))
        else
          labels[#labels + 1] = ('<text class="partial" x="%s" y="%s">%s</text>')
            :format(xy(e.x), xy(top - 11), escaped(e.label))
        end
      end
    end
    if not lane then return end
    row = row + 1
  end
end

--- The picture as SVG text. It needs no font, style or program from outside.
function Graph:svg()
  local nodes = self.nodes
  for _, v in ipairs(nodes) do
    local total, turned = 0, #v.into > UPRIGHT
    for _, e in ipairs(v.into) do
      local size = length(e.label) * SMALLCHAR
      e.turned = turned
      e.width = turned and TURNED or size + 10
      e.tall = turned and size + 12 or 16
      total = total + e.width
    end
    v.width = math.max(length(v.text) * CHAR, length(v.value) * CHAR, 40, total) + 2 * PAD
  end
  layering(nodes)
  local layers, size = items(nodes), 0
  for _, layer in ipairs(layers) do size = size + #layer end
  ordering(layers, size > MANY and 3 or 12)
  coordinates(layers, size > MANY and 6 or 24)
  for _, v in ipairs(nodes) do ports(v) end
  local y = rows(layers)
  local left, right = math.huge, -math.huge
  for _, layer in ipairs(layers) do
    for _, v in ipairs(layer) do
      left = math.min(left, v.x - v.width / 2)
      right = math.max(right, v.x + v.width / 2)
    end
  end
  if #nodes == 0 then left, right = 0, 0 end
  local edges, labels, boxes = {}, {}, {}
  for _, v in ipairs(nodes) do
    drawedges(v, y, layers, edges, labels)
    boxes[#boxes + 1] = drawnode(v, y[v.layer])
  end
  local x0, y0 = left - MARGIN, -MARGIN
  local w, h = right - left + 2 * MARGIN, (y[#layers] or 0) + HEIGHT + 2 * MARGIN
  local box = ("%s %s %s %s"):format(xy(x0), xy(y0), xy(w), xy(h))
  return table.concat({
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="%s">')
      :format(xy(w), xy(h), box),
    "<style>\n" .. STYLE .. "</style>",
    ('<rect x="%s" y="%s" width="%s" height="%s" fill="#ffffff"/>')
      :format(xy(x0), xy(y0), xy(w), xy(h)),
    table.concat(edges, "\n"),
    table.concat(boxes, "\n"),
    table.concat(labels, "\n"),
    "</svg>\n",
  }, "\n")
end

--
-- The graph
--

--- `graph(f, ...)`: the computational graph of `f(...)`. `tostring` of it is
-- Graphviz DOT, `:svg()` a picture.
local function graph(...)
  args.callable(1, "graph", ...)
  local run = trace.run("graph", ...)
  local size = #run.inputs + run.operations
  if size > LIMIT then
    error(("graph: %d nodes are too many for a picture (limit %d); ad.explain shows the " ..
      "first and the last of any number"):format(size, LIMIT), 2)
  end
  local nodes, edges, bynode = {}, {}, {}
  local results, names = {}, {}
  for _, y in ipairs(run.outputs) do
    if y.node then results[y.node] = (results[y.node] or "") .. y.name .. " = " end
  end
  for _, x in ipairs(run.inputs) do names[x.node] = x.name end
  for node = 0, run.count - 1 do
    local row = run.row(node)
    if row then
      local text = run:name(node) .. " = " .. (names[node] or run:formula(row))
      local v = {
        id = #nodes,
        text = short(clean((results[node] or "") .. text)),
        value = number(row.value, 8),
        kind = results[node] and "result" or names[node] and "input" or "operation",
        place = clean(run:place(row)),
        into = {}, out = {},
      }
      nodes[#nodes + 1] = v
      bynode[node] = v
      for _, o in ipairs(row.operands or {}) do
        if o.node then
          local e = { from = bynode[o.node], to = v, label = number(o.partial, 6),
            number = #edges + 1 }
          edges[#edges + 1] = e
          table.insert(e.from.out, e)
          table.insert(v.into, e)
        end
      end
    end
  end
  return setmetatable({ nodes = nodes, edges = edges }, Graph)
end

return graph
