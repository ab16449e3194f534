std = "lua54"
max_line_length = 100
-- Scripts that are wrong on purpose.
exclude_files = { "build", "examples/host/scripts" }

-- `not (x > y)` is meant where it is written: it is true of NaN.
ignore = { "581" }

-- spec/bench and spec/support hold programs and libraries, not specs.
files["spec/**/*_spec.lua"].std = "lua54+busted"
files["*.rockspec"].std = "+rockspec"

-- Declarations without bodies.
files["lua/autodiff/meta.lua"].ignore = { "211", "212", "241" }
files["lua/autodiff/optim/meta.lua"].ignore = { "211", "212", "241" }
