-- Returns something that is not a number.
return function(x)
  return math.log(-1 - x[1] ^ 2)
end, { 1 }
