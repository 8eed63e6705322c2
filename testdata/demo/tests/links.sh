#!/bin/sh
# links.sh DIR: every local link in DIR/*.html leads to a file.
set -eu
cd "$1"
for target in $(sed -n 's/.*href="\([^"]*\)".*/\1/p' ./*.html); do
    [ -f "$target" ] || { echo "dead link: $target"; exit 1; }
done
echo "all links lead somewhere"
