# autodiff: `make help` lists the targets.
#
# Meant to be overridden: CC CFLAGS CPPFLAGS LDFLAGS LUA LUA_INCDIR PREFIX
# BINDIR LUADIR LIBDIR INCDIR CLIBDIR PCDIR DESTDIR BLAS. CFLAGS is free for
# optimisation and debugging: what the code needs to be correct is added behind
# it, in NEEDED.

CFLAGS  = -O2
LUA     = lua5.4
BUSTED  = busted
PREFIX  = /usr/local
BINDIR  = $(PREFIX)/bin
LUADIR  = $(PREFIX)/share/lua/5.4
LIBDIR  = $(PREFIX)/lib/lua/5.4
INCDIR  = $(PREFIX)/include
CLIBDIR = $(PREFIX)/lib
PCDIR   = $(CLIBDIR)/pkgconfig
INSTALL = install

# Objects go to BUILD, the module to MODULES/autodiff/core.so; the builds of
# `make check` give both a place of their own. The library is for programs
# that embed Lua: the module's objects, autodiff.h's functions, and the Lua files.
BUILD   = build
MODULES = lua
CORE    = $(MODULES)/autodiff/core.so
LIBRARY = $(BUILD)/libautodiff.a

MAKEFLAGS += --no-print-directory

# --- Lua's headers, and for the tests that are hosts of Lua, its library

lua_pc := $(firstword $(shell for p in lua5.4 lua-5.4 lua54; do \
            pkg-config --exists $$p 2>/dev/null && echo $$p; done))

ifndef LUA_INCDIR
LUA_INCDIR := $(firstword \
  $(if $(lua_pc),$(patsubst -I%,%,$(shell pkg-config --cflags-only-I $(lua_pc)))) \
  $(shell for d in /usr/include/lua5.4 /usr/include/lua/5.4 \
            /usr/include/lua54 /usr/include/lua-5.4 /usr/include \
            /usr/local/include/lua5.4 /usr/local/include/lua54 \
            /usr/local/include /opt/homebrew/include/lua5.4; do \
            grep -q 'define LUA_VERSION_NUM[^0-9]*504' $$d/lua.h \
              2>/dev/null && echo $$d; done) \
  /usr/include/lua5.4)
endif

ifndef LUA_LIBS
LUA_LIBS := $(if $(lua_pc),$(shell pkg-config --libs $(lua_pc)),-llua5.4)
endif

# --- Flags

WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wcast-qual -Wpointer-arith \
           -Wstrict-prototypes -Wmissing-prototypes -Wundef

WARNINGS_CXX = -Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror

# What the 387 keeps in its registers is no double.
SSE := $(if $(shell echo __i386__ | $(CC) $(CPPFLAGS) $(CFLAGS) -E - \
         2>/dev/null | grep '^1$$'),-msse2 -mfpmath=sse)

# Nothing that depends on the compiler's taste: no fused operations, and no
# -ffast-math from outside. Without errno, sqrt is one instruction with the
# same result; but clang then takes pow(x, 0.5) for it, as every compiler takes
# pow(x, 2) for x*x, so pow is always a call. The order matters: -fno-fast-math
# sets the next two to their defaults.
FLOAT  = -fno-fast-math -ffp-contract=off -fno-math-errno -fno-builtin-pow \
         $(SSE)
NEEDED = -std=c11 -fPIC -pthread -fno-plt $(FLOAT) -I$(LUA_INCDIR)

# A module does not link Lua's library: the program that loads it has it.
# Only the entry points are visible, so that nothing in a host with the same
# name gets in between.
ifeq ($(shell uname -s),Darwin)
SHARED = -bundle -undefined dynamic_lookup -Wl,-exported_symbol,'_luaopen_*'
else
SHARED = -shared -Wl,--version-script=$(BUILD)/core.map
endif

# What is looked for only when it is needed, BLAS and LAPACK, NLopt, zlib, is
# found by dlopen, which was in a library of its own once. BLAS=none builds
# without the first two.
LIBS = -lm $(if $(filter Linux,$(shell uname -s)),-ldl)
BLAS = auto

COMPILE = $(CC) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) $(LOOPS) $(NEEDED) -MMD -MP

# Loops over arrays, for the compiler to vectorise; a choice between two values
# is not worth a branch, since nobody asks for floating-point exceptions.
$(BUILD)/arrayop.o $(BUILD)/fold.o $(BUILD)/reduce.o: \
  LOOPS = $(if $(filter -O2,$(CFLAGS)),-O3 $(COMPACT)) -fno-trapping-math

# What gcc does beside at -O3 makes these files twice as large, and not faster.
COMPACT = $(if $(findstring clang,$(shell $(CC) --version 2>/dev/null)),,\
  -fno-ipa-cp -fno-inline-functions -fno-unswitch-loops)

# What runs once in a while may be small rather than fast.
$(addprefix $(BUILD)/,adjoint.o api.o blas.o compilelib.o counters.o \
  export.o graph.o look.o loops.o nlopt.o npy.o regroup.o sparse.o \
  sparselib.o store.o storelib.o watch.o): \
  LOOPS = $(if $(filter -O2,$(CFLAGS)),-Os)

# bin.lua is the command, whose place is elsewhere.
LUA_FILES = $(filter-out autodiff/bin.lua,$(patsubst lua/%,%,$(wildcard \
  lua/*.lua lua/autodiff/*.lua lua/autodiff/*/*.lua)))

OBJECTS = $(patsubst src/%.c,$(BUILD)/%.o,$(filter-out src/api.c,$(wildcard src/*.c))) \
  $(BUILD)/helpers.o
CTESTS  = $(patsubst spec/c/%.c,$(BUILD)/test/%,$(wildcard spec/c/*_test.c))
HOSTS   = $(patsubst examples/%.c,$(BUILD)/%,$(wildcard examples/host/*.c)) \
  $(BUILD)/host/readme

# What a checkout needs to find itself, before what the user has set.
LUA_ENV = \
  LUA_PATH_5_4="lua/?.lua;lua/?/init.lua;spec/?.lua;$${LUA_PATH_5_4-$${LUA_PATH-;}}" \
  LUA_CPATH_5_4="$(MODULES)/?.so;$${LUA_CPATH_5_4-$${LUA_CPATH-;}}" \
  AUTODIFF_BUILD='$(BUILD)'

# After it everything is looked for anew, by another make.
SETUP = @CC='$(CC)' LUA='$(LUA)' LUA_INCDIR='$(LUA_INCDIR)' \
  LUA_LIBS='$(LUA_LIBS)' BUSTED='$(BUSTED)' .ci/setup

# --- Building

all: $(CORE) $(LIBRARY)  ## build the module and the library (the default)
	@:

$(CORE): $(OBJECTS) $(BUILD)/core.map
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(NEEDED) $(LDFLAGS) $(SHARED) -o $@ $(OBJECTS) $(LIBS)

# A module cannot be linked with -z defs, because Lua's functions are the
# program's. This is the same with Lua's library: nothing else may be missing.
defs: $(OBJECTS) $(BUILD)/core.map
	$(CC) $(CFLAGS) $(NEEDED) $(LDFLAGS) $(SHARED) -Wl,-z,defs \
	  -o $(BUILD)/defs.so $(OBJECTS) $(LUA_LIBS) $(LIBS)

$(BUILD)/core.map: Makefile
	@mkdir -p $(@D)
	@echo '{ global: luaopen_*; local: *; };' >$@

$(BUILD)/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

# A file that says how it was built, so that a change of mind rebuilds it.
$(BUILD)/blas.o: $(BUILD)/with-blas-$(BLAS)
$(BUILD)/blas.o: NEEDED += $(if $(filter none,$(BLAS)),-DAD_NOBLAS)
$(BUILD)/with-blas-$(BLAS):
	@mkdir -p $(@D)
	@rm -f $(BUILD)/with-blas-*
	@touch $@

$(LIBRARY): $(OBJECTS) $(BUILD)/api.o $(BUILD)/embedded.o
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/embedded.c: src/embed.sh $(LUA_FILES:%=lua/%)
	@mkdir -p $(@D)
	sh src/embed.sh $(LUA_FILES:%=lua/%) >$@

$(BUILD)/embedded.o: $(BUILD)/embedded.c Makefile
	$(COMPILE) -Isrc -c -o $@ $<

# The texts of functions that exported programs carry.
$(BUILD)/helpers.c: src/helpers.sh src/special.c src/kernel.c src/kernel.h
	@mkdir -p $(@D)
	sh src/helpers.sh src/special.c src/kernel.c src/kernel.h >$@

$(BUILD)/helpers.o: $(BUILD)/helpers.c Makefile
	$(COMPILE) -Isrc -c -o $@ $<

# The C tests link an archive, so that each gets the files that it uses.
# Those of parts that do not know Lua have to do without its library.
TEST_LIBS = $(LUA_LIBS)
WITHOUT_LUA = $(foreach t,special tape program native batch export store sparse, \
  $(BUILD)/test/$(t)_test)
$(WITHOUT_LUA): TEST_LIBS =

$(BUILD)/test/%: spec/c/%.c $(LIBRARY) Makefile
	@mkdir -p $(@D)
	$(COMPILE) -pthread -Isrc $(LDFLAGS) -o $@ $< $(LIBRARY) \
	  $(TEST_LIBS) $(LIBS) -lpthread

$(BUILD)/host/readme.c: README.md
	@mkdir -p $(@D)
	@awk '/^```c$$/ { on = 1; next } /^```$$/ { on = 0 } on' $< >$@

$(BUILD)/host/readme: $(BUILD)/host/readme.c $(LIBRARY) Makefile
	$(COMPILE) -Isrc $(LDFLAGS) -o $@ $< $(LIBRARY) $(LUA_LIBS) $(LIBS)

$(BUILD)/host/%: examples/host/%.c $(LIBRARY) Makefile
	@mkdir -p $(@D)
	$(COMPILE) -pthread -Isrc $(LDFLAGS) -o $@ $< $(LIBRARY) \
	  $(LUA_LIBS) $(LIBS) -lpthread

-include $(wildcard $(BUILD)/*.d $(BUILD)/test/*.d $(BUILD)/host/*.d)

# --- Using

demo:  ## build, and run the tour in examples/notebook.lua
	$(SETUP) demo
	@$(MAKE) all
	@$(LUA_ENV) $(LUA) examples/notebook.lua
	@echo; echo 'Next: make fit'

fit: all  ## fit NIST's reference data for nonlinear regression
	@$(LUA_ENV) $(LUA) examples/fit.lua examples/data/nist/*.dat

hosts: $(HOSTS)  ## build and run the programs in examples/host
	$(BUILD)/host/minimise examples/host/scripts/*.lua
	$(BUILD)/host/threads
	$(BUILD)/host/primitive
	$(BUILD)/host/field

examples: all  ## run the smaller examples; their pictures go to build/
	@$(LUA_ENV) $(LUA) examples/newton.lua
	@$(LUA_ENV) $(LUA) examples/greeks.lua
	@for e in descent arm damper layer 'digits --epochs 10' logistic gp; do \
	  set -- $$e; name=$$1; shift; \
	  $(LUA_ENV) $(LUA) examples/$$name.lua "$$@" --svg $(BUILD)/$$name.svg || exit 1; done

doc:  ## write the reference to build/doc, with LDoc
	$(SETUP) doc
	@mkdir -p $(BUILD)/docsrc
	@$(LUA_ENV) $(LUA) .ci/pages.lua $(BUILD)/docsrc '$(CURDIR)/README.md'
	@ldoc -q -c $(BUILD)/docsrc/config.ld -d '$(abspath $(BUILD)/doc)' .
	@echo 'The reference is $(BUILD)/doc/index.html'

repl: all  ## an interactive session
	@$(LUA_ENV) $(LUA) lua/autodiff/bin.lua

bench: all $(BUILD)/yardstick.so $(BUILD)/loops.so  ## run the benchmarks
	@CC='$(CC)' LUA_INCDIR='$(LUA_INCDIR)' $(LUA_ENV) $(LUA) spec/bench/run.lua

# What arrays are compared with: plain C, as fast as the compiler makes it.
# What arrays are compared with may use all that the machine has.
$(BUILD)/loops.so: spec/bench/loops.c Makefile
	@mkdir -p $(@D)
	$(CC) -O3 -march=native -fPIC -shared -I$(LUA_INCDIR) -o $@ $< -lm $(LIBS)

$(BUILD)/yardstick.so: spec/bench/yardstick.c Makefile
	@mkdir -p $(@D)
	$(CC) -O3 -march=native -fPIC -I$(LUA_INCDIR) \
	  $(if $(filter Darwin,$(shell uname -s)),-bundle -undefined dynamic_lookup,-shared) \
	  -o $@ $< -lm $(LIBS)

test:  ## build, and run all tests
	$(SETUP) test
	@$(MAKE) all test-run

# What measures memory has a process of its own: the heap that other specs
# leave behind sets the collector's pace. All stages run, whatever becomes of
# the ones before. The specs count as
# many tests as busted says (whose exit status alone is not to be trusted: it
# is the number of failures, modulo 256), the others count as one each. Their
# own sums are put in brackets: only the last line is the result.
test-run: $(CORE) $(CTESTS) $(HOSTS)
	@passed=0 failed=0; \
	run() { \
	  echo "== $$*"; \
	  { $(LUA_ENV) "$$@" 2>&1; echo $$? >$(BUILD)/test.status; } | \
	    tee $(BUILD)/test.log | \
	    sed -u 's/^[0-9]* passed, [0-9]* failed$$/(&)/'; \
	  set -- $$(awk -v status="$$(cat $(BUILD)/test.status)" ' \
	    /^[0-9]+ success(es)? \/ / { p += $$1; f += $$4 + $$7 } \
	    END { if (status != 0 && f == 0) f = 1; \
	          else if (p + f == 0) p = 1; \
	          print p + 0, f + 0 }' $(BUILD)/test.log); \
	  passed=$$((passed + $$1)) failed=$$((failed + $$2)); \
	}; \
	run $(BUSTED) --lua=$(LUA) --exclude-tags=memory; \
	run $(BUSTED) --lua=$(LUA) --tags=memory; \
	for t in $(CTESTS); do run $$t; done; \
	run $(LUA) spec/property.lua $(PROGRAMS) $(SEED); \
	run $(LUA) spec/array_property.lua $(SAMPLES) $(SEED); \
	run $(LUA) spec/compiled.lua $(COMPILED) 5 $(SEED); \
	run $(LUA) spec/compiled_arrays.lua $$(($(COMPILED) / 10)) 4 $(SEED); \
	echo; echo "$$passed passed, $$failed failed"; \
	test $$failed -eq 0

# The same programs, and samples of each operation on arrays, each time, so that
# a test that failed fails again; another SEED makes others.
PROGRAMS = 100000
SAMPLES  = 20
COMPILED = 20000
SEED     = 1

# --- Checking

check:  ## everything else: linters, both compilers, sanitizers, valgrind
	$(SETUP) check
	@$(MAKE) check-lua check-format check-package check-gcc check-clang \
	  check-asan check-valgrind check-tsan

check-lua:
	luacheck -q lua spec examples .ci/pages.lua $(wildcard *.rockspec)

# Installed, as a rock, and from the tarball.
check-package: all
	MAKE='$(MAKE)' CC='$(CC)' LUA='$(LUA)' LUA_INCDIR='$(LUA_INCDIR)' .ci/package

# Tables that are expanded several times are aligned by hand.
FORMATTED = $(filter-out src/ops.h src/nary.h,$(wildcard src/*.[ch] spec/c/*.[ch] \
  examples/host/*.c))

check-format:
	clang-format --dry-run -Werror $(FORMATTED)

format:  ## put the C sources in the shape that check wants
	clang-format -i $(FORMATTED)

APART = MODULES='$$(BUILD)'

check-gcc:
	$(MAKE) $(APART) BUILD=build/gcc CC=gcc CFLAGS='-O2 -Werror' all ctests defs
	$(MAKE) $(APART) BUILD=build/gcc CC=gcc CFLAGS='-O2 -Werror' BLAS=none defs noblas-run
	echo '#include "src/autodiff.h"' | \
	  g++ -x c++ $(WARNINGS_CXX) -I. -I$(LUA_INCDIR) -fsyntax-only -

# Without a BLAS there are products, and linalg says why it is not there.
noblas-run: $(CORE)
	$(LUA_ENV) $(LUA) -e 'ad = require "autodiff"; a = ad.eye(20)' \
	  -e 'assert(ad.matmul(a, a) == a); ok, e = pcall(ad.linalg.inv, a)' \
	  -e 'assert(not ok and e:find("BLAS=none", 1, true))'

check-clang:
	$(MAKE) $(APART) BUILD=build/clang CC=clang CFLAGS='-O2 -Werror' all ctests defs

ctests: $(CTESTS) $(HOSTS)

# gcc's sanitizers stumble over the address randomisation of newer kernels
# (which not every container allows to be turned off). Leaks are valgrind's
# to find: an interpreter that exits keeps much.
FIXED = $(shell setarch -R true 2>/dev/null && echo setarch -R)
ASAN  = -fsanitize=address,undefined -fsanitize=float-cast-overflow \
        -fno-sanitize-recover=all -fno-omit-frame-pointer

check-asan:
	$(MAKE) $(APART) BUILD=build/asan CC=gcc CFLAGS='-O1 -g $(ASAN)' all asan-run

# LUA_INIT, because a program that looks in lua/ first would find the other one;
# a small quarantine, because the specs watch how much memory is in use.
asan-run: $(CORE) $(HOSTS) $(WITHOUT_LUA)
	export LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) \
	  $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=8 UBSAN_OPTIONS=print_stacktrace=1 \
	  LUA_INIT_5_4="package.preload['autodiff.core'] = \
	    assert(package.loadlib('$(CORE)', 'luaopen_autodiff_core'))"; \
	$(LUA_ENV) $(FIXED) $(BUSTED) --lua=$(LUA) --exclude-tags=memory && \
	$(LUA_ENV) $(FIXED) $(BUSTED) --lua=$(LUA) --tags=memory && \
	$(LUA_ENV) $(FIXED) $(LUA) spec/property.lua 2000 && \
	$(LUA_ENV) $(FIXED) $(LUA) spec/array_property.lua 3
	set -e; for t in $(WITHOUT_LUA); do \
	  case $$t in *batch_test) args=100 ;; *) args= ;; esac; \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  $(FIXED) $$t $$args; done

check-valgrind:
	$(MAKE) $(APART) BUILD=build/valgrind CFLAGS='-O1 -g' valgrind-run

# Some get a wide stride: every point would take valgrind an hour. What
# poison_test forbids, valgrind needs itself.
VALGRIND = valgrind -q --error-exitcode=1 --leak-check=full

valgrind-run: $(CTESTS) $(HOSTS)
	$(VALGRIND) $(BUILD)/host/minimise examples/host/scripts/*.lua
	$(VALGRIND) $(BUILD)/host/primitive
	$(VALGRIND) $(BUILD)/host/field
	$(VALGRIND) $(BUILD)/host/threads 2
	set -e; for t in $(CTESTS); do \
	  case $$t in *poison_test) continue ;; \
	  *oom_test) args=-25 ;; \
	  *api_test | *native_test) args=100 ;; \
	  *) args= ;; esac; $(LUA_ENV) \
	  $(VALGRIND) $$t $$args; done

check-tsan:
	$(MAKE) $(APART) BUILD=build/tsan CC=gcc CFLAGS='-O1 -g -fsanitize=thread' \
	  tsan-run

# Without BLAS, whose own threads were not built to be watched.
tsan-run: $(BUILD)/test/threads_test $(BUILD)/host/threads
	$(LUA_ENV) AUTODIFF_BLAS=none TSAN_OPTIONS=halt_on_error=1 $(FIXED) $<
	TSAN_OPTIONS=halt_on_error=1 $(FIXED) $(BUILD)/host/threads 8

# --- Installing

# Lua's own flags are left to Lua's .pc file, where there is one.
PC = 'prefix=$(PREFIX)' 'includedir=$(INCDIR)' 'libdir=$(CLIBDIR)' '' \
  'Name: autodiff' 'Description: Automatic differentiation for Lua' \
  'Version: $(VERSION)' $(if $(lua_pc),'Requires: $(lua_pc)') \
  'Cflags: -I$${includedir}$(if $(lua_pc),, -I$(LUA_INCDIR))' \
  'Libs: -L$${libdir} -lautodiff$(if $(lua_pc),, $(LUA_LIBS)) $(LIBS)'

# The first line of the command; a path as it is, a name through env.
SHEBANG = $(if $(findstring /,$(LUA)),$(LUA),/usr/bin/env $(LUA))

install: all  ## install under $(DESTDIR)$(PREFIX)
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/autodiff' '$(DESTDIR)$(LUADIR)/autodiff' \
	  '$(DESTDIR)$(LUADIR)/autodiff/repl' '$(DESTDIR)$(LUADIR)/autodiff/optim' \
	  '$(DESTDIR)$(BINDIR)'
	$(INSTALL) -m 755 $(CORE) '$(DESTDIR)$(LIBDIR)/autodiff/core.so'
	set -e; for f in $(LUA_FILES); do \
	  $(INSTALL) -m 644 lua/$$f '$(DESTDIR)$(LUADIR)'/$$f; done
	$(INSTALL) -d '$(DESTDIR)$(INCDIR)' '$(DESTDIR)$(PCDIR)'
	$(INSTALL) -m 644 src/autodiff.h '$(DESTDIR)$(INCDIR)/autodiff.h'
	$(INSTALL) -m 644 $(LIBRARY) '$(DESTDIR)$(CLIBDIR)/libautodiff.a'
	@echo "installing '$(DESTDIR)$(PCDIR)/autodiff.pc'"
	@printf '%s\n' $(PC) >'$(DESTDIR)$(PCDIR)/autodiff.pc'

	@mkdir -p $(BUILD)
	sed -e '1s|.*|#!$(SHEBANG)|' \
	  -e 's|^local luadir, libdir = .*|local luadir, libdir = "$(LUADIR)", "$(LIBDIR)"|' \
	  lua/autodiff/bin.lua >$(BUILD)/autodiff
	$(INSTALL) -m 755 $(BUILD)/autodiff '$(DESTDIR)$(BINDIR)/autodiff'

uninstall:  ## remove what install has put there
	rm -f '$(DESTDIR)$(LIBDIR)/autodiff/core.so' '$(DESTDIR)$(BINDIR)/autodiff'
	for f in $(LUA_FILES); do rm -f '$(DESTDIR)$(LUADIR)'/$$f; done
	rm -f '$(DESTDIR)$(INCDIR)/autodiff.h' '$(DESTDIR)$(CLIBDIR)/libautodiff.a' \
	  '$(DESTDIR)$(PCDIR)/autodiff.pc'
	for d in '$(LUADIR)/autodiff/repl' '$(LUADIR)/autodiff/optim' '$(LUADIR)/autodiff' '$(LIBDIR)/autodiff'; do \
	  rmdir "$(DESTDIR)$$d" 2>/dev/null || true; done

VERSION = $(shell sed -n 's/.*_VERSION = "autodiff \(.*\)".*/\1/p' lua/autodiff.lua)

dist:  ## make build/autodiff-VERSION.tar.gz of what is committed
	@mkdir -p build
	git archive --format=tar.gz --prefix=autodiff-$(VERSION)/ \
	  -o build/autodiff-$(VERSION).tar.gz HEAD

clean:  ## remove what was built
	rm -rf build lua/autodiff/core.so

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' \
	  Makefile

.PHONY: all demo fit examples hosts repl doc bench test test-run check check-lua \
  check-format check-package check-gcc check-clang check-asan check-valgrind \
  check-tsan noblas-run asan-run valgrind-run tsan-run ctests defs format install \
  uninstall dist clean help
.DELETE_ON_ERROR:
