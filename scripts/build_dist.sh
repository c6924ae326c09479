#!/bin/sh
# Build the wheel into a folder, and beside it the same file as lakemill.zip: what spark-submit --py-files takes.
# Use: build_dist.sh PYTHON FOLDER
set -eu
rm -f "$2"/lakemill-*.whl
"$1" -m hatchling build -t wheel -d "$2" >/dev/null 2>&1 || { "$1" -m hatchling build -t wheel -d "$2"; exit 1; }
cp "$2"/lakemill-*.whl "$2/lakemill.zip"
