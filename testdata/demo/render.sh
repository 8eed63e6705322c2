#!/bin/sh
# render.sh NAME PAGES CACHE OUT: turns PAGES/*.md into OUT/*.html; pages that did not change come from CACHE.
set -eu
name=$1 pages=$2 cache=$3 out=$4
mkdir -p "$out"
for page in "$pages"/*.md; do
    key=$( (echo "$name"; cat "$page" "$0") | sha256sum | cut -c1-64)
    html=$out/$(basename "$page" .md).html
    if [ ! -f "$cache/$key" ]; then
        echo "rendering $page"
        {
            printf '<!doctype html>\n<title>%s</title>\n<link rel="stylesheet" href="style.css">\n' "$name"
            sed -e 's|^# \(.*\)$|<h1>\1</h1>|' \
                -e 's|^## \(.*\)$|<h2>\1</h2>|' \
                -e 's|\[\([^]]*\)\](\([^)]*\))|<a href="\2">\1</a>|g' \
                -e '/^[^<]/s|^\(.*\)$|<p>\1</p>|' "$page"
        } > "$cache/$key"
    fi
    cp "$cache/$key" "$html"
done
