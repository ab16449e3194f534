-- Returns something that is no number.
return function(x)
  return { x, "better than you think" }
end, { 1 }
