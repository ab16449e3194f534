-- The banana valley: the minimum is 0 at (1, 1).
local function f(x)
  return 100 * (x[2] - x[1] ^ 2) ^ 2 + (1 - x[1]) ^ 2
end

return f, { -1.2, 1 }
