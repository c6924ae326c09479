#!/bin/sh
# Make .venv-frameworks: .venv's packages, and the frameworks on top of them.
set -eu
echo "Installing PyTorch and TensorFlow into .venv-frameworks (7 GB; pip's own words: .venv-frameworks/pip.log)"
.venv/bin/python -m venv --without-pip .venv-frameworks
# By addsitedir, which also reads the .pth files there: Lakemill's sources are known by one.
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
below() { echo "import site; site.addsitedir('$(packages "$1/bin/python")')"; }
below .venv >"$(packages .venv-frameworks/bin/python)/venv.pth"
.venv-frameworks/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements/frameworks.in \
    >.venv-frameworks/pip.log 2>&1 || { tail -n 20 .venv-frameworks/pip.log >&2; exit 1; }
