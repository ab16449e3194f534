-- Allocates without end, in a tape as well as in tables.
return function(x)
  local kept, s = {}, 0
  for i = 1, math.huge do
    s = s + math.sin(x[1] * i)
    kept[#kept + 1] = { s, ("x"):rep(1000) .. i }
  end
  return s
end, { 1 }
