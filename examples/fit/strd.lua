-- Reader for the nonlinear regression files of NIST's Statistical Reference Datasets
-- (https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml).
--
-- The sections are found by their headings. The line numbers under "File Format" are not used: they
-- are off in every copy to which somebody added a line. What is counted in two places is compared,
-- so that a truncated file is an error and not a different fit.

local mistake = require "mistake"

local strd = {}
local raise = mistake.raise

local function split_lines(text)
  text = text:gsub("^\xEF\xBB\xBF", ""):gsub("\r\n?", "\n"):gsub("\x1A%s*$", "")
  if text:sub(-1) ~= "\n" then text = text .. "\n" end
  local lines = {}
  for line in text:gmatch("(.-)\n") do lines[#lines + 1] = line end
  return lines
end

-- Number of the first line from `from` on that matches (in lower case), and what it captured.
local function find(lines, pattern, from)
  for i = from, #lines do
    local capture = lines[i]:lower():match(pattern)
    if capture then return i, capture end
  end
end

local function expect(lines, pattern, from, what)
  local line, capture = find(lines, pattern, from)
  if not line then raise(#lines, "the file ends without %s", what) end
  return line, capture
end

-- A number stays text as long as nobody has decided with how many digits to read it. Fortran's D
-- exponents become E ones.
local function decimal(word, line)
  local mantissa, exponent = word:match("^([+-]?[%d.]+)(.*)$")
  local good = mantissa and mantissa:find("^[+-]?%d*%.?%d*$") and mantissa:find("%d")
    and (exponent == "" or exponent:find("^[EeDd][+-]?%d+$"))
  if not good then raise(line, "'%s' is not a number", word) end
  return mantissa .. exponent:gsub("^%a", "e")
end

local function decimals(text, line)
  local list = {}
  for word in text:gmatch("%S+") do list[#list + 1] = decimal(word, line) end
  return list
end

-- The lines of the model that hold formulas: from the first with an equals sign on.
local function read_model(lines, first, last)
  local model = {}
  for i = first, last do
    local text = i == first and lines[i]:gsub("^.-:", "") or lines[i]
    if text:find("=", 1, true) or #model > 0 and text:find("%S") then
      model[#model + 1] = {line = i, text = text}
    end
  end
  if #model == 0 then raise(first, "no formula follows 'Model:'") end
  return model
end

-- `b1 =   start   start   certified estimate   certified standard deviation`
local function read_parameter(name, text, line)
  local values = decimals(text, line)
  local count = #values
  if count < 3 then
    raise(line, "expected starting values, an estimate and its standard deviation for '%s'", name)
  end
  return {
    name = name, line = line,
    estimate = tonumber(values[count - 1]), deviation = tonumber(values[count]),
    starts = table.move(values, 1, count - 2, 1, {}),
  }
end

local function read_parameters(lines, first, last, announced)
  local list, seen = {}, {}
  for i = first, last do
    local name, text = lines[i]:match("^%s*(%a[%w_]*)%s*=(.*)$")
    if name then
      local parameter = read_parameter(name, text, i)
      if seen[name] then raise(i, "parameter '%s' a second time", name) end
      if #list > 0 and #parameter.starts ~= #list[1].starts then
        raise(i, "%d starting values for '%s', but %d for '%s'",
          #parameter.starts, name, #list[1].starts, list[1].name)
      end
      seen[name] = true
      list[#list + 1] = parameter
    end
  end
  if #list == 0 then raise(first, "no parameters below the heading 'Starting values'") end
  if announced and announced ~= #list then
    raise(list[#list].line, "%d parameters announced, but %d in this table", announced, #list)
  end
  return list
end

local function read_columns(text, line)
  local columns = {}
  for name in text:gmatch("%S+") do
    if not name:find("^%a[%w_]*$") then raise(line, "'%s' cannot name a column", name) end
    if columns[name] then raise(line, "column '%s' a second time", name) end
    columns[#columns + 1] = name
    columns[name] = #columns
  end
  if #columns < 2 then raise(line, "expected the names of the columns after 'Data:'") end
  return columns
end

local function read_rows(lines, first, width, observations)
  local rows = {}
  for i = first, #lines do
    if lines[i]:find("%S") then
      local row = decimals(lines[i], i)
      if #row ~= width then raise(i, "%d numbers in a row of %d columns", #row, width) end
      rows[#rows + 1] = row
      if #rows > observations then
        raise(i, "more rows than the %d observations", observations)
      end
    end
  end
  if #rows < observations then
    raise(#lines, "the file ends after %d of %d observations", #rows, observations)
  end
  return rows
end

--- Read one file.
-- @param text  its contents
-- @return a table: `name`; `model`, a list of `{line=, text=}`; `parameters`, a list of
--   `{name=, line=, starts=, estimate=, deviation=}`; `columns`, a list of names that also gives
--   the index of each name; `rows`; `sum_of_squares`, the certified one. `starts` and `rows` hold
--   decimal text, the certified values are numbers.
-- @raise mistake with the line at which the file stops making sense
function strd.parse(text)
  local lines = split_lines(text)
  local at = find(lines, "^%s*dataset name:", 1)
  if not at then raise(1, "not a dataset of NIST's StRD: no line 'Dataset Name:'") end
  local name = lines[at]:match(":%s*(%S+)") or raise(at, "the dataset has no name")

  local model_at = expect(lines, "^%s*model:", at, "the section 'Model:'")
  local table_at = expect(lines, "^%s*starting%s+values", model_at, "the table 'Starting values'")
  local squares_at, squares = expect(lines, "^%s*residual%s+sum%s+of%s+squares:%s*(%S*)", table_at,
    "the certified 'Residual Sum of Squares:'")
  local count_at, count = expect(lines, "^%s*number%s+of%s+observations:%s*(%S*)", table_at,
    "the 'Number of Observations:'")
  local data_at = expect(lines, "^%s*data:", squares_at, "the table 'Data:'")

  local announced_at, announced = find(lines, "^%s*(%d+)%s+parameter", model_at)
  if announced_at and announced_at > table_at then announced = nil end
  local columns = read_columns(lines[data_at]:gsub("^.-:", ""), data_at)
  local parameters = read_parameters(lines, table_at + 1, squares_at - 1, tonumber(announced))
  local observations = math.tointeger(tonumber(decimal(count, count_at)))
  if not observations or observations <= #parameters then
    raise(count_at, "%s observations do not determine %d parameters", count, #parameters)
  end
  return {
    name = name,
    model = read_model(lines, model_at, table_at - 1),
    parameters = parameters,
    sum_of_squares = tonumber(decimal(squares, squares_at)),
    columns = columns,
    rows = read_rows(lines, data_at + 1, #columns, observations),
  }
end

return strd
