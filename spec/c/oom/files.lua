-- luacheck: read globals near
-- Arrays in files and as text, and random numbers.
local ad = require("autodiff")

local path = os.tmpname()
local gone <close> = setmetatable({}, {__close = function() os.remove(path) end})
local a = ad.array({{1.0, 2.0}, {3.0, 4.0}})
ad.save(path, a)
near(ad.load(path)[{2, 1}], 3)
ad.save(path, {a[{{}, 2}], name = 2.0})
local t = ad.load(path)
near(t[1][2], 4)
near(t.name, 2)
assert(not pcall(ad.load, path .. "/none"))
assert(tostring(a) == "[[1 2]\n [3 4]]")
assert(#tostring(ad.var(ad.zeros(50, 50))) > 50)
-- what zlib has to read: a block that is stored
local text = "\x93NUMPY\1\0" .. ("<s2"):pack(
  "{'descr': '>u2', 'fortran_order': False, 'shape': (2,)}") .. "\0\1\1\0"
local block = "\1" .. ("<I2I2"):pack(#text, ~#text & 0xffff) .. text
local crc = require("autodiff.core").npy.crc(0, text)
local sizes = ("<I2I2I4I4I4I2I2"):pack(0, 33, crc, #block, #text, 5, 0)
local directory = "PK\1\2" .. ("<I2I2I2I2"):pack(20, 20, 0, 8) .. sizes .. ("\0"):rep(14) .. "x.npy"
local file = assert(io.open(path, "wb"))
file:write("PK\3\4", ("<I2I2I2"):pack(20, 0, 8), sizes, "x.npy", block, directory, "PK\5\6",
  ("<I2I2I2I2I4I4I2"):pack(0, 0, 1, 1, #directory, 35 + #block, 0))
file:close()
near(ad.load(path).x[2], 256)
local r = ad.random(1)
local p = r:permutation(5)
near(p[1] + p[2] + p[3] + p[4] + p[5], 15)
assert(#r:uniform(2, 3) == 2 and #r:normal(4) == 4 and r:randint(1, 1) == 1)
near(ad.random(r:state()):normal(), r:normal())
return gone
