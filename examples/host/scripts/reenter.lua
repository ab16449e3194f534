-- Calls back into the host, which is in the middle of minimising it.
return function(x)
  print("and now for something recursive")
  return minimise(x)
end, { 1 }
