#!/bin/sh
# embed.sh lua/FILE.lua ...: writes C source to standard output, in which the
# files are arrays (see embed.h). Needs nothing but POSIX tools.
set -eu

echo '/* written by embed.sh */'
echo '#include "embed.h"'
i=0
for file in "$@"; do
  echo
  echo "static const unsigned char text$i[] = {"
  od -An -v -t u1 "$file" | awk '{ gsub(/[0-9]+/, "&,"); print }'
  echo '};'
  i=$((i + 1))
done
echo
echo 'const ad_Embedded ad_embedded[] = {'
i=0
for file in "$@"; do
  path=${file#lua/}
  name=$(echo "${path%.lua}" | tr / .)
  echo "    {\"$name\", \"=$path\", text$i, sizeof text$i},"
  i=$((i + 1))
done
echo '    {NULL, NULL, NULL, 0}};'
