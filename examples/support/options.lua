-- The command lines of the examples: options with a value, and the rest.

--- Parse a command line.
-- @param usage   what `--help` prints; its first line starts with the program's name
-- @param names   a set: the options that there are, each with a value, as in `--svg FILE`. One
--                that is given several times gives a list: names[option] = "list"
-- @return the options' values by name, and the list of other arguments
return function(arguments, usage, names)
  local program = usage:match("examples/(%w+)")
  local function fail(message)
    io.stderr:write(program, ": ", message, "\n", usage)
    os.exit(1)
  end

  local options, rest = {}, {}
  local i = 1
  while arguments[i] do
    local name = arguments[i]:match("^%-%-(%a[%w-]*)$")
    if name == "help" then
      io.write(usage)
      os.exit(0)
    elseif name then
      local value = arguments[i + 1]
      if not names[name] then fail("unknown option '--" .. name .. "'") end
      if not value then fail("option '--" .. name .. "' needs a value") end
      if names[name] == "list" then
        options[name] = options[name] or {}
        table.insert(options[name], value)
      elseif names[name] == "number" then
        options[name] = tonumber(value) or fail("option '--" .. name .. "' needs a number")
      else
        options[name] = value
      end
      i = i + 1
    else
      rest[#rest + 1] = arguments[i]
    end
    i = i + 1
  end
  return options, rest, fail
end
