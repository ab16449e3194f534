-- Raises an error that is no string, and has a malicious __tostring.
return function()
  error(setmetatable({}, { __tostring = function() while true do end end }))
end, { 1 }
