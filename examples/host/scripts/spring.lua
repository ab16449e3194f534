-- A chain of masses on springs hangs between two nails: where it is at rest,
-- its energy is least.
local N = 9

local function energy(p)
  local e, x0, y0 = 0, 0, 0
  for i = 1, N + 1 do
    local x, y = 10, 0
    if i <= N then
      x, y = p[2 * i - 1], p[2 * i]
      e = e + 0.1 * 9.81 * y
    end
    local length = math.sqrt((x - x0) ^ 2 + (y - y0) ^ 2)
    e = e + 20 * (length - 1) ^ 2 / 2
    x0, y0 = x, y
  end
  return e
end

local start = {}
for i = 1, N do
  start[2 * i - 1], start[2 * i] = i, -0.1
end
return energy, start
