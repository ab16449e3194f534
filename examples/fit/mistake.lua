-- How the reader and the translator say that a file stopped making sense: an error value that knows
-- its line, so that `fit.lua` can tell it from an error of the program's own.

local mistake = {}

--- Raise the error.
-- @param line     number of the line that made no sense; nil if it is the whole file
-- @param message  a format, and its arguments behind it; these may be pieces of the file, which is
--   why control characters are made harmless
function mistake.raise(line, message, ...)
  message = message:format(...):gsub("%c", "?")
  error(setmetatable({line = line, message = message}, mistake), 0)
end

function mistake.is(value)
  return getmetatable(value) == mistake
end

return mistake
