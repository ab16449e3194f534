-- Has an ordinary error in it.
return function(x)
  return x[1] * x.scale
end, { 1 }
