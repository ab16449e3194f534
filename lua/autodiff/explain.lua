--- The evaluation trace of a function, as the textbooks print it.
local args = require "autodiff.args"
local trace = require "autodiff.trace"

local number = trace.number

local DOT, BAR = "\u{307}", "\u{304}"

-- A table has at most about 40 rows; of columns, 4 are side by side.
local MOSTROWS, MOSTINPUTS, COLUMNS, MOSTCOLUMNS, TERMS = 40, 12, 4, 8, 4

-- Places that a text takes on the screen.
local function width(s)
  local n = utf8.len(s)
  if not n then return #s end
  for _, c in utf8.codes(s) do
    if c >= 0x300 and c < 0x370 then n = n - 1 end -- a dot or a bar
  end
  return n
end

-- Lines from rows of cells; a row that is a string stands as it is. Columns
-- are as wide as they need to be; those in `right` are flush right.
local function columns(lines, rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    if type(row) == "table" then
      for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
    end
  end
  for _, row in ipairs(rows) do
    if type(row) == "table" then
      local out = {}
      for i, cell in ipairs(row) do
        local space = (" "):rep(widths[i] - width(cell))
        out[i] = right[i] and space .. cell or cell .. space
      end
      row = table.concat(out, "  ")
    end
    lines[#lines + 1] = ("  " .. row):gsub("%s+$", "")
  end
end

-- "7.389 v1 + v2 - 0.5 v3" from a list of {partial, name}. Where arrays are
-- partial derivatives have texts.
local function sum(terms, total)
  local out = {}
  for i, t in ipairs(terms) do
    local p, name = t[1], t[2]
    if type(p) == "string" then
      p, name = 1, ("(%s) %s"):format(p, name)
    end
    local minus = p < 0
    local size = p ~= p and "nan " or number(math.abs(p), 6) .. " "
    if size == "1 " then size = "" end
    if i == 1 then
      out[i] = (minus and "-" or "") .. size .. name
    else
      out[i] = (minus and "- " or "+ ") .. size .. name
    end
  end
  if total > #terms then out[#out + 1] = ("+ … (%d terms)"):format(total) end
  return #out == 0 and "0" or table.concat(out, " ")
end

local function marked(name, mark)
  return name:sub(1, 1) .. mark .. name:sub(2)
end

-- The nodes that are shown, in order, and between them the texts for those
-- that are not.
local function selection(run)
  local list, inputs = {}, run.inputs
  local few = #inputs + run.operations <= MOSTROWS
  local half = MOSTINPUTS // 2
  local function omit(n, what)
    list[#list + 1] = ("⋮ %d more %s%s"):format(n, what, n > 1 and "s" or "")
  end
  for i, x in ipairs(inputs) do
    if few or #inputs <= MOSTINPUTS or i <= half or i > #inputs - half then
      list[#list + 1] = x.node
    elseif i == half + 1 then
      omit(#inputs - 2 * half, "input")
    end
  end
  half = few and run.operations or (MOSTROWS - math.min(#inputs, MOSTINPUTS)) // 2
  local head, tail = run:ends(half, few and 0 or half)
  table.move(head, 1, #head, #list + 1, list)
  local between = run.operations - #head - #tail
  if between > 0 then omit(between, "operation") end
  table.move(tail, 1, #tail, #list + 1, list)
  return list
end

local function primal(run, shown, lines)
  local rows, names = {}, {}
  for _, x in ipairs(run.inputs) do names[x.node] = x.name end
  for _, node in ipairs(shown) do
    if type(node) == "string" then
      rows[#rows + 1] = node
    else
      local row = run.row(node)
      local formula = names[node] or run:formula(row)
      rows[#rows + 1] = { run:name(node), "= " .. formula, "= " .. number(row.value),
        row.operands and run:place(row) or "" }
    end
  end
  for i, y in ipairs(run.outputs) do
    if i > MOSTCOLUMNS then
      rows[#rows + 1] = ("⋮ %d more results"):format(#run.outputs - MOSTCOLUMNS)
      break
    end
    rows[#rows + 1] = { y.name, "= " .. (y.node and run:name(y.node) or "a constant"),
      "= " .. number(y.value), "" }
  end
  lines[#lines + 1] = "Forward primal trace"
  columns(lines, rows, {})
end

-- A table whose last columns are numbers: one for each of the `items` (inputs
-- or results). Four of them side by side, then the next four.
local function blocks(lines, title, shown, items, what, head, left, values)
  local nodes = {}
  for _, node in ipairs(shown) do
    if type(node) ~= "string" then nodes[#nodes + 1] = node end
  end
  local most = math.min(#items, MOSTCOLUMNS)
  for first = 1, most, COLUMNS do
    local last = math.min(first + COLUMNS - 1, most)
    local rows, right, data = {}, {}, {}
    local top = { "", "" }
    for i = first, last do
      data[i] = values(items[i], nodes)
      top[#top + 1] = head(items[i])
      right[#top] = true
    end
    rows[1] = top
    local at = 0
    for _, node in ipairs(shown) do
      if type(node) == "string" then
        rows[#rows + 1] = node
      else
        at = at + 1
        local row = left(node)
        for i = first, last do row[#row + 1] = number(data[i][at]) end
        rows[#rows + 1] = row
      end
    end
    lines[#lines + 1] = ""
    lines[#lines + 1] = title
    columns(lines, rows, right)
  end
  if #items > most then
    lines[#lines + 1] = ("  (and the same for %d more %s)"):format(#items - most, what)
  end
end

local function tangents(run, shown, lines)
  local names = {}
  for _, x in ipairs(run.inputs) do names[x.node] = x.name end
  local function left(node)
    if names[node] then return { run:name(node, DOT), "= " .. marked(names[node], DOT) } end
    local terms, total = {}, 0
    for _, o in ipairs(run.row(node).operands) do
      if o.node and o.partial ~= 0 then
        total = total + 1
        if total <= TERMS then terms[total] = { o.partial, run:name(o.node, DOT) } end
      end
    end
    return { run:name(node, DOT), "= " .. sum(terms, total) }
  end
  blocks(lines, "Forward tangent trace", shown, run.inputs, "inputs",
    function(x) return marked(x.name, DOT) .. (x.ones and " = ones" or " = 1") end, left,
    function(x, nodes) return run.tangents(x.node, nodes, x.seed) end)
end

local function adjoints(run, shown, lines)
  local outputs, seeds, names = {}, {}, {}
  for _, x in ipairs(run.inputs) do names[x.node] = x.name end
  for _, y in ipairs(run.outputs) do
    if y.node then
      outputs[#outputs + 1] = y
      local list = seeds[y.node] or {}
      seeds[y.node] = list
      list[#list + 1] = { 1, marked(y.name, BAR) }
    end
  end
  if #outputs == 0 then return end
  local backwards, nodes, at = {}, {}, {}
  for i = #shown, 1, -1 do
    backwards[#backwards + 1] = shown[i]
    if type(shown[i]) ~= "string" then
      nodes[#nodes + 1] = shown[i]
      at[shown[i]] = #nodes
    end
  end
  local users = run.users(nodes, TERMS)
  local function left(node)
    local used, terms = users[at[node]], {}
    for _, seed in ipairs(seeds[node] or {}) do
      if #terms < TERMS then terms[#terms + 1] = seed end
    end
    local total = #(seeds[node] or {}) + used.n
    for i = #used - 1, 1, -2 do
      if used[i + 1] == 0 then
        total = total - 1
      elseif #terms < TERMS then
        terms[#terms + 1] = { used[i + 1], run:name(used[i], BAR) }
      end
    end
    local name = run:name(node, BAR)
    if names[node] then name = marked(names[node], BAR) .. " = " .. name end
    return { name, "= " .. sum(terms, total) }
  end
  blocks(lines, "Reverse adjoint trace", backwards, outputs, "results",
    function(y) return marked(y.name, BAR) .. (y.ones and " = ones" or " = 1") end, left,
    function(y, list) return run.adjoints(y.node, list, y.seed) end)
end

--- `explain(f, ...)`: text that shows how `f(...)` is computed and
-- differentiated: each operation with its value and the line of its source,
-- the tangents for each input, and the adjoints. Long ones are cut in the
-- middle.
local function explain(...)
  args.callable(1, "explain", ...)
  local run = trace.run("explain", ...)
  local shown, lines = selection(run), {}
  primal(run, shown, lines)
  tangents(run, shown, lines)
  adjoints(run, shown, lines)
  return table.concat(lines, "\n")
end

return explain
