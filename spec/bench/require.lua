-- How long the library takes to load, from the inside of a fresh interpreter.
local start = os.clock()
require "autodiff"
print(os.clock() - start)
