#!/bin/sh
# Install the pinned packages into .venv; says how far it is instead of what pip says.
set -eu
log=.venv/pip.log
total=$(grep -c '==' requirements/dev.txt)
echo "Installing $total pinned packages (pip's own words: $log)"
{
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements/dev.txt 2>&1 || echo FAILED
} | tee "$log" | {
    packages=0
    while read -r line; do
        case $line in
        Collecting*) packages=$((packages + 1)); [ $((packages % 20)) -ne 0 ] || echo "  found $packages" ;;
        Installing*) echo "  unpacking $packages" ;;
        FAILED) tail -n 20 "$log" >&2; exit 1 ;;
        esac
    done
}
