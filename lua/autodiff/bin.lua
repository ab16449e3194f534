#!/usr/bin/env lua5.4
-- The command `autodiff`. `make install` puts it into $(PREFIX)/bin and says
-- here where the library is, should Lua not look there by itself.
local luadir, libdir = nil, nil

if luadir and not package.path:find(luadir .. "/?.lua", 1, true) then
  package.path = luadir .. "/?.lua;" .. package.path
end
if libdir and not package.cpath:find(libdir .. "/?.so", 1, true) then
  package.cpath = libdir .. "/?.so;" .. package.cpath
end

os.exit(require("autodiff.repl.cli").main(arg), true)
