-- Is well behaved for three evaluations, then loops for ever.
local calls = 0

return function(x)
  calls = calls + 1
  while calls > 3 do end
  return x[1] ^ 4 + x[1] ^ 2
end, { 3 }
