-- Option prices and their sensitivities, the Greeks, to third order.
--
--     lua5.4 examples/greeks.lua
--     lua5.4 examples/greeks.lua 100 110 0.25 0.02 0.3   (spot strike years rate volatility)
--
-- The price is Black's and Scholes's formula (Journal of Political Economy 81(3), 1973, p. 637) in
-- four lines. Every Greek is a derivative of these four lines; beside it stands what textbooks
-- derive by hand (E. G. Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., chapter 2).

package.path = (arg[0]:match("^.*/") or "./") .. "support/?.lua;" .. package.path
local ad = require "autodiff"
local options = require "options"

local usage = [[
usage: lua5.4 examples/greeks.lua [SPOT STRIKE YEARS RATE VOLATILITY]
All but the rate must be above 0; the default is 100 105 0.5 0.03 0.25.
]]

local _, rest, fail = options(arg, usage, {})
if #rest == 0 then rest = {100, 105, 0.5, 0.03, 0.25} end
local at = {}
for i = 1, 5 do
  at[i] = tonumber(rest[i]) or fail("five numbers are needed")
  if i ~= 4 and not (at[i] > 0) then fail("all but the rate must be above 0") end
end
if #rest > 5 then fail("five numbers are needed") end

local function N(x) return ad.erfc(-x / math.sqrt(2)) / 2 end

--- The price of a call.
local function price(S, K, T, r, v)
  local d1 = (ad.log(S / K) + (r + v * v / 2) * T) / (v * ad.sqrt(T))
  local d2 = d1 - v * ad.sqrt(T)
  return S * N(d1) - K * ad.exp(-r * T) * N(d2)
end

local position = {S = 1, K = 2, T = 3, r = 4, v = 5}

--- The derivative of the price by each of the variables named, in turn: "SSv" is the third
-- derivative, twice by the spot and once by the volatility. Each letter wraps what is there in one
-- more derivative; that an inner function uses the variable of an outer one is nothing special.
local function greek(variables)
  local f = price
  for name in variables:gmatch(".") do
    local i, inner = position[name], f
    f = function(...)
      local arguments = {...}
      return ad.derivative(function(x)
        local changed = table.move(arguments, 1, 5, 1, {})
        changed[i] = x
        return inner(table.unpack(changed))
      end)(arguments[i])
    end
  end
  return f(table.unpack(at))
end

-- By hand.
local S, K, T, r, v = table.unpack(at)
local root = v * math.sqrt(T)
local d1 = (math.log(S / K) + (r + v * v / 2) * T) / root
local d2 = d1 - root
local discount = math.exp(-r * T)
local density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
local gamma = density / (S * root)
local vega = S * density * math.sqrt(T)
local drift = 2 * r * T - d2 * root      -- occurs where time is differentiated

-- Time runs against T, so its Greeks have the other sign: -1 in the fourth place.
local table_of_greeks = {
  {"delta", "S", N(d1)},
  {"vega", "v", vega},
  {"theta", "T", -S * density * v / (2 * math.sqrt(T)) - r * K * discount * N(d2), -1},
  {"rho", "r", K * T * discount * N(d2)},
  {"dual delta", "K", -discount * N(d2)},
  {},
  {"gamma", "SS", gamma},
  {"vanna", "Sv", -density * d2 / v},
  {"charm", "ST", -density * drift / (2 * T * root), -1},
  {"vomma", "vv", vega * d1 * d2 / v},
  {"veta", "vT", vega * (r * d1 / root - (1 + d1 * d2) / (2 * T)), -1},
  {"vera", "rv", -S * density * T * d1 / v},
  {"dual gamma", "KK", S * density / (K * K * root)},
  {},
  {"speed", "SSS", -gamma / S * (d1 / root + 1)},
  {"zomma", "SSv", gamma * (d1 * d2 - 1) / v},
  {"color", "SST", density / (2 * S * T * root) * (1 + drift * d1 / root), -1},
  {"ultima", "vvv", -vega / (v * v) * (d1 * d2 * (1 - d1 * d2) + d1 * d1 + d2 * d2)},
}

print(("A call: spot %g, strike %g, %g years, rate %g, volatility %g"):format(table.unpack(at)))
print()
print(("%-11s %-6s %21s %21s %11s"):format("", "by", "differentiated", "by hand", "difference"))
print(("%-11s %-6s %21.14g"):format("price", "", price(table.unpack(at))))
local worst = 0
for _, row in ipairs(table_of_greeks) do
  if #row == 0 then
    print()
  else
    local name, variables, by_hand, sign = table.unpack(row, 1, 4)
    local found = (sign or 1) * greek(variables)
    -- Relative, unless both are nearly 0.
    local difference = math.abs(found - by_hand) / math.max(math.abs(by_hand), 1e-12)
    worst = math.max(worst, difference)
    print(("%-11s %-6s %21.14g %21.14g %11.1e"):format(name, variables, found, by_hand,
      difference))
  end
end
print()
print(("Largest relative difference: %.1e"):format(worst))
