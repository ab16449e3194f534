--- What NumPy gives, for comparison: expressions in Python on the same inputs.
--
-- All of a spec's expressions go to one process. Numbers travel as text with all their digits.

local ad = require("autodiff")

local M = {}

local candidates = {os.getenv("PYTHON") or "python3", "/usr/bin/python3"}

local function command(python, rest) return ("'%s' %s 2>/dev/null"):format(python, rest) end

--- The interpreter that has NumPy, or nil.
function M.python()
  for _, python in ipairs(candidates) do
    if os.execute(command(python, "-c 'import numpy'")) then return python end
  end
end

local function number(x)
  if x ~= x then return "nan" end
  if x == math.huge then return "inf" end
  if x == -math.huge then return "-inf" end
  return ("%.17g"):format(x)
end

-- A value as Python writes it.
local function literal(x)
  local kind = ad.type(x)
  if kind == "number" then return number(x) end
  if kind == "array" then
    local flat = {}
    local function collect(list)
      for _, v in ipairs(list) do
        if type(v) == "table" then collect(v) else flat[#flat + 1] = number(v) end
      end
    end
    collect(x:tolist())
    return ("np.array([%s], dtype=float).reshape((%s,))"):format(table.concat(flat, ","),
      table.concat(x.shape, ","))
  end
  error("no way to say a " .. type(x) .. " in Python")
end

local program = [[
import math, sys
import numpy as np
np.seterr(all="ignore")
nan, inf = np.nan, np.inf
vec = np.vectorize

def show(r):
    a = np.asarray(r, dtype=float)
    return ",".join(map(str, a.shape)) + ":" + ",".join("%.17g" % v for v in a.ravel())

def case(i, f, *x):
    try:
        r = f(*x)
        r = r if isinstance(r, tuple) else (r,)
        print("%d=%s" % (i, ";".join(map(show, r))))
    except Exception as e:
        print("%d!%s" % (i, str(e).replace("\n", " ")))

]]

local function parse(text)
  local results = {n = 0}
  for shape, values in (text .. ";"):gmatch("([%d,]*):(.-);") do
    local r = {shape = {}}
    for n in shape:gmatch("%d+") do r.shape[#r.shape + 1] = math.tointeger(n) end
    for v in values:gmatch("[^,]+") do
      if v:find("nan") then r[#r + 1] = 0 / 0
      elseif v:find("inf") then r[#r + 1] = v:find("-", 1, true) and -math.huge or math.huge
      else r[#r + 1] = tonumber(v) end
    end
    results.n = results.n + 1
    results[results.n] = r
  end
  return results
end

--- Results of a list of cases {python = "lambda a, b: ...", inputs = {...}}: lists of
-- {shape = {...}, values...}, or {error = message}.
function M.run(python, cases)
  local file = os.tmpname()
  local _ <close> = setmetatable({}, {__close = function() os.remove(file) end})
  do
    local f <close> = assert(io.open(file, "w"))
    f:write(program)
    for i, c in ipairs(cases) do
      local words = {tostring(i), c.python}
      for k, x in ipairs(c.inputs) do words[k + 2] = literal(x) end
      f:write("case(", table.concat(words, ", "), ")\n")
    end
  end
  local results = {}
  local pipe <close> = assert(io.popen(command(python, file)))
  for line in pipe:lines() do
    local i, mark, rest = line:match("^(%d+)([=!])(.*)$")
    results[tonumber(i)] = mark == "=" and parse(rest) or {error = rest}
  end
  return results
end

return M
