rockspec_format = "3.0"
package = "autodiff"
version = "scm-1"

-- `luarocks make` builds the checkout that it is called in; a release names
-- its repository and tag here.
source = {
  url = "git+file://.",
}

description = {
  summary = "Automatic differentiation",
  detailed = [[
Derivatives of Lua functions of numbers and arrays: forward and reverse mode,
nested to any depth, linear algebra, optimizers, compilation, with the core
in C.]],
  license = "MIT",
  labels = { "math", "automatic-differentiation", "numeric" },
}

dependencies = {
  "lua ~> 5.4",
}

build = {
  type = "make",
  build_variables = {
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    LUA = "$(LUA)",
  },
  install_variables = {
    PREFIX = "$(PREFIX)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    LUA_INCDIR = "$(LUA_INCDIR)",
  },
}

test_dependencies = {
  "busted",
}

test = {
  type = "busted",
}
