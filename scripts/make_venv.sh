#!/bin/sh
# Make .venv with the first Python that is new enough.
set -eu
for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "Making .venv with $("$python" --version)"
        exec "$python" -m venv .venv
    fi
done
cat >&2 <<'MESSAGE'
Lakemill needs Python 3.11 or newer, with venv:
  Debian, Ubuntu   apt-get install python3 python3-venv
  Fedora           dnf install python3
  macOS            brew install python@3.11
  Windows          winget install Python.Python.3.11
MESSAGE
exit 1
