#!/bin/sh
# Make .venv-petastorm, which shares nothing with ours, and .venv-mds, on top of .venv-frameworks.
set -eu
make_venv() { .venv/bin/python -m venv "$1"; }
echo "Installing petastorm and MosaicML Streaming into .venv-petastorm and .venv-mds (pip's own words: pip.log in each)"
make_venv .venv-petastorm
.venv-petastorm/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements/petastorm.in \
    >.venv-petastorm/pip.log 2>&1 || { tail -n 20 .venv-petastorm/pip.log >&2; exit 1; }
make_venv .venv-mds
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
below() { echo "import site; site.addsitedir('$(packages "$1/bin/python")')"; }
{ below .venv-frameworks; below .venv; } >"$(packages .venv-mds/bin/python)/venv.pth"
.venv-mds/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-deps -r requirements/mds.in \
    >.venv-mds/pip.log 2>&1 || { tail -n 20 .venv-mds/pip.log >&2; exit 1; }
