#!/bin/sh
# helpers.sh special.c kernel.c kernel.h: writes C source to standard output, in
# which the functions and constants of these files are texts (see export.h), so
# that an exported program can carry what it needs. Needs nothing but awk.
set -eu

echo '/* written by helpers.sh */'
echo '#include "export.h"'
awk '
BEGIN { count = 0 }
function put(line) {
  gsub(/\\/, "&&", line)
  gsub(/"/, "\\\"", line)
  print "    \"" line "\\n\","
}
function begin(n) {
  print "\nstatic const char *const text" count "[] = {"
  name[count] = n
}
function end() {
  print "    NULL};"
  count++
}
/^(static )?(inline )?double [a-z0-9_]+\(.*\) \{/ {
  n = $0
  sub(/^(static )?(inline )?double /, "", n)
  sub(/\(.*/, "", n)
  begin(n)
  sub(/^(static )?(inline )?double/, "static double")
  inside = 1
}
inside {
  put($0)
  if ($0 ~ /^}/ || $0 ~ /^static double.*}$/) {
    end()
    inside = 0
  }
  next
}
/^#define [A-Za-z0-9_]+(\([a-z]+\))? .*[^\\]$/ {
  n = $2
  sub(/\(.*/, "", n)
  if (FILENAME ~ /kernel/ && n !~ /^AD_/) next
  begin(n)
  put($0)
  end()
}
END {
  print "\nconst ad_Helper ad_helpers[] = {"
  for (i = 0; i < count; i++)
    print "    {\"" name[i] "\", text" i "},"
  print "    {NULL, NULL}};"
}
' "$@"
