-- Translator from the formulas of NIST's dataset files, which are nearly Fortran, to Lua:
--
--     pi = 3.141592653589793238462643383279E0
--     y =  b1 - b2*x - arctan[b3/(x-b4)]/pi  +  e
--
-- Unary minus, the four operations and the power (`**`, or `^`) bind in Lua as they do there, so
-- the expressions need no tree: the parser checks them and passes them on token by token.
--
--     statements = statement { statement }         each begins on a line that has a "="
--     statement  = expression "=" expression       the response's may end in "+ e", the error
--     expression = term { ("+" | "-") term }
--     term       = signed { ("*" | "/") signed }
--     signed     = ("+" | "-") signed | power
--     power      = primary [ ("**" | "^") signed ]
--     primary    = number | name | function group | group
--     group      = "(" expression ")" | "[" expression "]" | "{" expression "}"

local mistake = require "mistake"

local formula = {}
local raise = mistake.raise

-- The file's name of a function, in lower case, to the one in the environment of the Lua code.
local functions = {
  exp = "exp", log = "log", ln = "log", alog = "log", log10 = "log10", sqrt = "sqrt", abs = "abs",
  sin = "sin", cos = "cos", tan = "tan", arcsin = "asin", arccos = "acos", arctan = "atan",
  asin = "asin", acos = "acos", atan = "atan", sinh = "sinh", cosh = "cosh", tanh = "tanh",
}

--- The names by which translated code calls functions.
formula.function_names = {}
for _, name in pairs(functions) do
  formula.function_names[#formula.function_names + 1] = name
end

local closing = {["("] = ")", ["["] = "]", ["{"] = "}"}
local max_depth = 100 -- Lua's own parser gives up at 200

-- ENSO uses pi and does not define it.
local pi = "3.14159265358979323846264338327950288"

---------------------------------------------------------------------------------------------------
-- Tokens
---------------------------------------------------------------------------------------------------

-- At a position: what kind of token starts there, and where it ends.
local function token_end(text, position)
  local _, last = text:find("^%d+%.?%d*", position)
  if not last then _, last = text:find("^%.%d+", position) end
  if last then
    local _, exponent = text:find("^[EeDd][+-]?%d+", last + 1)
    return "number", exponent or last
  end
  _, last = text:find("^%a[%w_]*", position)
  if last then return "name", last end
  _, last = text:find("^%*%*", position)
  if not last then _, last = text:find("^[-+*/^=()%[%]{}]", position) end
  return "symbol", last
end

local function scan(line, text, tokens)
  local position = text:find("%S")
  while position do
    local kind, last = token_end(text, position)
    if not last then
      local character = text:match("^[%g]", position) or ("\\x%02X"):format(text:byte(position))
      raise(line, "unexpected '%s' in the formula, column %d", character, position)
    end
    tokens[#tokens + 1] = {
      kind = kind, text = text:sub(position, last), line = line, column = position,
    }
    position = text:find("%S", last + 1)
  end
end

-- Each line with a "=" begins a statement; the lines after it continue it.
local function split_statements(model)
  local statements = {}
  for _, source in ipairs(model) do
    if source.text:find("=", 1, true) then statements[#statements + 1] = {} end
    scan(source.line, source.text, statements[#statements])
  end
  return statements
end

---------------------------------------------------------------------------------------------------
-- Parser. Its state: `tokens`, `at`, `depth`; `resolve(token)`, which gives a variable's Lua text;
-- `constants`, which collects the numbers; `out`, the Lua text in pieces.
---------------------------------------------------------------------------------------------------

local parse_expression, parse_signed

local function emit(state, text)
  state.out[#state.out + 1] = text
end

local function peek(state)
  local token = state.tokens[state.at]
  return token and token.text
end

-- The next token, if it is one of those given.
local function accept(state, ...)
  local text = peek(state)
  for i = 1, select("#", ...) do
    if text == (select(i, ...)) then
      state.at = state.at + 1
      return text
    end
  end
end

local function raise_unexpected(state, wanted)
  local token = state.tokens[state.at]
  if token then
    raise(token.line, "expected %s before '%s' in the formula, column %d",
      wanted, token.text, token.column)
  end
  token = state.tokens[#state.tokens]
  raise(token.line, "expected %s after '%s', where the formula ends", wanted, token.text)
end

local function descend(state, parse)
  state.depth = state.depth + 1
  if state.depth > max_depth then
    raise(state.tokens[1].line, "the formula is nested more than %d deep", max_depth)
  end
  parse(state)
  state.depth = state.depth - 1
end

local function parse_group(state)
  local opening = state.tokens[state.at]
  local close = closing[opening.text]
  state.at = state.at + 1
  emit(state, "(")
  descend(state, parse_expression)
  if not accept(state, close) then
    raise_unexpected(state, ("'%s' (for the '%s' in line %d, column %d)"):format(
      close, opening.text, opening.line, opening.column))
  end
  emit(state, ")")
end

-- A number is looked up in a table made once: in double-double arithmetic it is an object, and 0.1
-- is not what Lua's own 0.1 means.
local function emit_constant(state, text)
  local constants = state.constants
  text = text:gsub("[DdE]", "e")
  if not constants[text] then
    constants[#constants + 1] = text
    constants[text] = ("k[%d]"):format(#constants)
  end
  emit(state, constants[text])
end

local function parse_name(state, token)
  state.at = state.at + 1
  local variable, name = state.resolve(token), token.text:lower()
  local called = closing[peek(state)] ~= nil
  if variable then
    emit(state, variable)
  elseif called and functions[name] then
    emit(state, functions[name])
    parse_group(state)
  elseif name == "pi" then
    emit_constant(state, pi)
  else
    raise(token.line, "unknown %s '%s' in the formula, column %d",
      called and "function" or "name", token.text, token.column)
  end
end

local function parse_primary(state)
  local token = state.tokens[state.at]
  if not token then
    raise_unexpected(state, "a value")
  elseif token.kind == "name" then
    parse_name(state, token)
  elseif token.kind == "number" then
    state.at = state.at + 1
    emit_constant(state, token.text)
  elseif closing[token.text] then
    parse_group(state)
  else
    raise_unexpected(state, "a value")
  end
end

local function parse_power(state)
  parse_primary(state)
  if accept(state, "**", "^") then
    emit(state, "^")
    descend(state, parse_signed)
  end
end

function parse_signed(state)
  local sign = accept(state, "+", "-")
  if not sign then return parse_power(state) end
  if sign == "-" then emit(state, "-") end -- Lua has no unary plus
  descend(state, parse_signed)
end

local function parse_term(state)
  repeat
    parse_signed(state)
    local operator = accept(state, "*", "/")
    if operator then emit(state, operator) end
  until not operator
end

function parse_expression(state)
  repeat
    parse_term(state)
    local operator = accept(state, "+", "-")
    if operator then emit(state, operator) end
  until not operator
end

-- The whole of a list of tokens as the text of one Lua expression. Spaces keep two signs in a row
-- from being a comment.
local function translate(tokens, constants, resolve)
  local state = {
    tokens = tokens, at = 1, depth = 0, resolve = resolve, constants = constants, out = {},
  }
  parse_expression(state)
  if state.at <= #tokens then raise_unexpected(state, "an operator") end
  return table.concat(state.out, " ")
end

---------------------------------------------------------------------------------------------------
-- Statements
---------------------------------------------------------------------------------------------------

-- The tokens left and right of the equals sign.
local function sides(statement)
  local left, right = {}, {}
  local side = left
  for _, token in ipairs(statement) do
    if token.text ~= "=" then
      side[#side + 1] = token
    elseif side == left then
      side, right.sign = right, token
    else
      raise(token.line, "a second '=' in the formula, column %d", token.column)
    end
  end
  for where, list in pairs{before = left, after = right} do
    if #list == 0 then raise(right.sign.line, "nothing %s the '=' of the formula", where) end
  end
  return left, right
end

local function mentions_column(tokens, columns)
  for _, token in ipairs(tokens) do
    if columns[token.text] then return true end
  end
  return false
end

-- The model's error term is no part of what is computed.
local function drop_error_term(tokens, known)
  local count = #tokens
  if count > 2 and tokens[count].text:lower() == "e" and tokens[count - 1].text == "+"
      and not known(tokens[count]) then
    tokens[count], tokens[count - 1] = nil, nil
  end
end

-- Sort the statements into the response's, which has a column of the data on its left, and the
-- definitions of other names.
local function classify(statements, columns)
  local response, definitions = nil, {}
  for _, statement in ipairs(statements) do
    local left, right = sides(statement)
    local line = left[1].line
    if mentions_column(left, columns) then
      if response then raise(line, "a second formula for the response") end
      response = {left = left, right = right}
    elseif #left == 1 and left[1].kind == "name" then
      definitions[#definitions + 1] = {name = left[1].text, line = line, right = right}
    else
      raise(line, "no column of the data on the left of '='")
    end
  end
  if not response then
    raise(statements[1][1].line, "no formula for a column of the data (%s)",
      table.concat(columns, ", "))
  end
  return response, definitions
end

-- Columns on the left of the model's "=" are the response's; they must not come back on the right.
local function response_columns(tokens, columns)
  local set = {}
  for _, token in ipairs(tokens) do
    if columns[token.text] then set[token.text] = true end
  end
  return set
end

local template = [[
local k = {%s}
local function response(x)
  return %s
end
local function model(b, x)
%s  return %s
end
return response, model
]]

--- Translate the formulas of a dataset.
-- @param dataset  what `strd.parse` returned
-- @return Lua source, to be run by `formula.load`
-- @raise mistake
function formula.translate(dataset)
  local columns, parameters, defined = dataset.columns, {}, {}
  for i, parameter in ipairs(dataset.parameters) do parameters[parameter.name] = i end
  local response, definitions = classify(split_statements(dataset.model), columns)
  local responses = response_columns(response.left, columns)
  local constants, used, lines = {}, {}, {}

  local function left_name(token)
    return columns[token.text] and ("x[%d]"):format(columns[token.text])
  end

  local function right_name(token)
    local name = token.text
    if responses[name] then
      raise(token.line, "the response '%s' on both sides of '='", name)
    elseif columns[name] then
      return ("x[%d]"):format(columns[name])
    elseif parameters[name] then
      used[name] = true
      return ("b[%d]"):format(parameters[name])
    end
    return defined[name]
  end

  for i, definition in ipairs(definitions) do
    local name = definition.name
    if parameters[name] or defined[name] then
      raise(definition.line, "'%s' already has a meaning", name)
    end
    local text = translate(definition.right, constants, right_name)
    lines[i] = ("  %sd[%d] = %s\n"):format(i == 1 and "local d = {}\n  " or "", i, text)
    defined[name] = ("d[%d]"):format(i)
  end

  drop_error_term(response.right, right_name)
  local left = translate(response.left, constants, left_name)
  local right = translate(response.right, constants, right_name)
  for _, parameter in ipairs(dataset.parameters) do
    if not used[parameter.name] then
      raise(parameter.line, "parameter '%s' is not in the formula", parameter.name)
    end
  end
  for i, text in ipairs(constants) do constants[i] = ("number %q"):format(text) end
  return template:format(table.concat(constants, ", "), left, table.concat(lines), right)
end

--- Run translated source on one kind of number.
-- @param source      what `formula.translate` returned
-- @param arithmetic  the functions that the formula may call, and `number`, which reads a decimal;
--   it is all that the code can reach
-- @return response(row), the observed side of the formula, and model(parameters, row), the other
function formula.load(source, arithmetic)
  return assert(load(source, "=formula", "t", arithmetic))()
end

return formula
