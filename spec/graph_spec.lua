-- ad.graph: the text for Graphviz, and the picture: is it well formed, is all there, does no edge
-- run through a node, and can every label be read?

local ad = require "autodiff"

local function f(x1, x2)
  return ad.exp(x1) - x1 * x2 + ad.cos(x2)
end

-- A small network: about 200 nodes.
local function net(w, x)
  local h, k = x, 0
  for _ = 1, 3 do
    local out = {}
    for i = 1, 5 do
      local s = 0
      for j = 1, #h do
        k = k + 1
        s = s + w[k] * h[j]
      end
      out[i] = ad.tanh(s)
    end
    h = out
  end
  return ad.norm(h)
end

local weights = {}
for i = 1, 60 do weights[i] = math.sin(i) end

local function walk(x, rate)
  for _ = 1, 66 do x = x - rate * ad.sin(x) end
  return x
end

local function wide(x)
  return {ad.logsumexp(x), ad.sum(x) * x[1], x[3], ad.dot(x, x)}
end

local list = {}
for i = 1, 20 do list[i] = i / 3 end

local graphs = {
  ["the notebook's function"] = ad.graph(f, 2, 4),
  ["a network"] = ad.graph(net, weights, {1, 2}),
  ["a loop"] = ad.graph(walk, 1, 0.1),
  ["long lists"] = ad.graph(wide, list),
  ["one node"] = ad.graph(function(x) return x end, 1),
  ["no node"] = ad.graph(function() return 1 end),
  ["squares"] = ad.graph(function(x) return x * x * x * x end, 3),
  ["texts to escape"] = ad.graph(function(x)
    return ad.custom{name = '<a & "b">\\', f = function(t) return t end,
      vjp = function(ybar) return ybar end}(x["<&\n\xff>"])
  end, {["<&\n\xff>"] = 1}),
}

-- Is the text well-formed XML, as far as a picture goes?
local function wellformed(svg)
  assert.truthy(utf8.len(svg))
  local open = {}
  for slash, name, rest in svg:gmatch "<(/?)([%a]+)([^<>]*)>" do
    if slash == "/" then
      assert.equal(table.remove(open), name)
    elseif rest:sub(-1) ~= "/" then
      open[#open + 1] = name
    end
  end
  assert.equal(0, #open)
  local text = svg:gsub("<[^<>]*>", "")
  assert.equal(nil, text:find "[<>]")
  for entity in text:gmatch "&(.-);" do
    assert.truthy(({amp = 1, lt = 1, gt = 1, quot = 1})[entity], entity)
  end
end

local function attribute(tag, name)
  return tag:match(" " .. name .. '="([^"]*)"')
end

local function numbers(s)
  local out = {}
  for n in s:gmatch "%-?[%d.]+" do out[#out + 1] = tonumber(n) end
  return out
end

local function boxes(svg)
  local out = {}
  for tag in svg:gmatch '<rect class="box"[^>]*>' do
    local x, y = tonumber(attribute(tag, "x")), tonumber(attribute(tag, "y"))
    out[#out + 1] = {x, y, x + tonumber(attribute(tag, "width")),
      y + tonumber(attribute(tag, "height"))}
  end
  return out
end

-- Points along the curves of an edge.
local function points(path)
  local out, x, y = {}, nil, nil
  for command, rest in path:gmatch "([MLC])([^MLC]*)" do
    local n = numbers(rest)
    if command == "M" then
      x, y = n[1], n[2]
    else
      local x1, y1, x2, y2, x3, y3 = table.unpack(n)
      if command == "L" then x1, y1, x2, y2, x3, y3 = x, y, n[1], n[2], n[1], n[2] end
      for i = 0, 40 do
        local t = i / 40
        local s = 1 - t
        out[#out + 1] = {
          s^3 * x + 3 * s^2 * t * x1 + 3 * s * t^2 * x2 + t^3 * x3,
          s^3 * y + 3 * s^2 * t * y1 + 3 * s * t^2 * y2 + t^3 * y3,
        }
      end
      x, y = x3, y3
    end
  end
  return out
end

describe("graph", function()
  for name, g in pairs(graphs) do
    describe("of " .. name, function()
      local dot, svg = tostring(g), g:svg()

      it("is DOT", function()
        assert.truthy(dot:find "^digraph %w+ {\n.*\n}$")
        local declared, edges = {}, 0
        for line in dot:gmatch "[^\n]+" do
          local from, to = line:match "^  n(%d+) %-> n(%d+) %[label=\".*\"%];$"
          local node = line:match "^  n(%d+) %[label=\".*\", fillcolor=.*%];$"
          if from then
            edges = edges + 1
            assert.truthy(declared[from] and declared[to])
          elseif node then
            declared[node] = true
          else
            assert.truthy(line:find "^digraph" or line:find "^}$" or
              line:find "^  %a+ %[.*%];$", line)
          end
        end
        assert.equal(#g.edges, edges)
        -- Graphviz itself has no objections; layouts of large graphs take it long
        if #g.nodes < 50 and os.execute "command -v dot >/dev/null 2>&1" then
          local file <const> = os.tmpname()
          local out = assert(io.open(file, "w"))
          out:write(dot)
          out:close()
          assert.truthy(os.execute(("dot -Tplain '%s' >/dev/null"):format(file)))
          os.remove(file)
        end
      end)

      it("is well-formed SVG", function()
        assert.truthy(svg:find '^<svg xmlns="http://www.w3.org/2000/svg" width=')
        wellformed(svg)
        if os.execute "command -v xmllint >/dev/null 2>&1" then
          local pipe = assert(io.popen("xmllint --noout - 2>&1 >/dev/null", "w"))
          pipe:write(svg)
          assert.truthy(pipe:close())
        end
      end)

      it("has all in the picture", function()
        assert.equal(#g.nodes, #boxes(svg))
        local heads, labels = 0, 0
        for _ in svg:gmatch '<path class="head"' do heads = heads + 1 end
        for _ in svg:gmatch '<text class="partial"' do labels = labels + 1 end
        assert.equal(#g.edges, heads)
        assert.equal(#g.edges, labels)
        local frame = numbers(svg:match 'viewBox="([^"]*)"')
        for _, b in ipairs(boxes(svg)) do
          assert.is_true(b[1] > frame[1] and b[2] > frame[2])
          assert.is_true(b[3] < frame[1] + frame[3] and b[4] < frame[2] + frame[4])
        end
      end)

      it("has nodes apart from each other", function()
        local all, apart = boxes(svg), true
        for i, a in ipairs(all) do
          for k = 1, i - 1 do
            local b = all[k]
            apart = apart and (a[1] >= b[3] + 10 or b[1] >= a[3] + 10 or a[2] >= b[4] + 10 or
              b[2] >= a[4] + 10)
          end
        end
        assert.is_true(apart)
      end)

      it("has no edge that crosses a node", function()
        local all = boxes(svg)
        local crossed
        for path in svg:gmatch '<path class="edge" d="([^"]*)"' do
          for _, p in ipairs(points(path)) do
            local x, y = p[1], p[2]
            for _, b in ipairs(all) do
              if y > b[2] + 0.1 and y < b[4] - 0.1 and x > b[1] and x < b[3] then crossed = path end
            end
          end
        end
        assert.equal(nil, crossed)
      end)

      it("has labels that do not overlap", function()
        local placed, met = {}, nil
        for attributes, text in svg:gmatch '<text class="partial"([^>]*)>(.-)</text>' do
          local x, y = tonumber(attribute(attributes, "x")), tonumber(attribute(attributes, "y"))
          local long, high = #text * 6, 9
          if attributes:find "rotate" then long, high = high, long end
          local r = {x - long / 2, y - high / 2, x + long / 2, y + high / 2}
          for _, q in ipairs(placed) do
            if r[1] < q[3] and q[1] < r[3] and r[2] < q[4] and q[2] < r[4] then met = text end
          end
          placed[#placed + 1] = r
        end
        assert.equal(nil, met)
      end)
    end)
  end

  it("shows values, partial derivatives and lines", function()
    local g = graphs["the notebook's function"]
    local svg = g:svg()
    assert.equal(7, #g.nodes)
    assert.equal(8, #g.edges)
    for _, text in ipairs {"v-1 = x1", "v1 = exp(v-1)", "7.3890561", "y = v5 = v3 + v4",
      "-1.2645875", "0.756802", "7.38906", "graph_spec.lua:7"} do
      assert.truthy(svg:find(text, 1, true), text)
      assert.truthy(tostring(g):find(text, 1, true), text)
    end
  end)

  it("is the same every time", function()
    local g = ad.graph(net, weights, {1, 2})
    assert.equal(graphs["a network"]:svg(), g:svg())
    assert.equal(g:svg(), g:svg())
    assert.equal(tostring(graphs["a network"]), tostring(g))
  end)

  it("has about 200 nodes where it should", function()
    assert.equal(200, #graphs["a loop"].nodes)
    assert.is_true(#graphs["a network"].nodes >= 180)
  end)

  it("refuses what would be no picture", function()
    local ok, message = pcall(ad.graph, function(x)
      for _ = 1, 2000 do x = ad.sin(x) end
      return x
    end, 1)
    assert.is_false(ok)
    assert.truthy(message:find("graph: 2001 nodes are too many for a picture (limit 1000)", 1,
      true))
  end)

  it("checks what it gets", function()
    local function message(...) return select(2, pcall(...)) end
    assert.truthy(message(ad.graph):find "bad argument #1 to 'graph' %(function expected, got no")
    assert.truthy(message(ad.graph, function() end):find "graph: function must return numbers")
  end)

  it("works inside another transform", function()
    local g
    assert.equal(6.0, ad.grad(function(x)
      g = ad.graph(function(y) return x * y end, x)
      return x * x
    end)(3))
    assert.truthy(tostring(g):find("3 * v0", 1, true))
  end)
end)
