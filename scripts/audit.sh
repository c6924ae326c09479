#!/bin/sh
# A bill of materials (CycloneDX) of the pinned packages, and what is known to be wrong with them. The tools have an
# environment of their own: they are no part of what is pinned. Ends with 1 if something is wrong, and with 2 if nobody could tell.
set -eu
tools=.venv/audit
if [ ! -x $tools/bin/pip-audit ]; then
    .venv/bin/python -m venv $tools
    $tools/bin/python -m pip install --disable-pip-version-check -q pip-audit==2.10.1 cyclonedx-bom==7.5.0
fi
mkdir -p dist
# Without hashes and conditions: one line a package.
sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' requirements/dev.txt >$tools/pinned.txt
$tools/bin/cyclonedx-py requirements $tools/pinned.txt --pyproject pyproject.toml --output-reproducible \
    --output-format JSON --output-file dist/lakemill.cdx.json
echo "dist/lakemill.cdx.json: $(wc -l <$tools/pinned.txt) packages"
if $tools/bin/pip-audit --requirement $tools/pinned.txt --disable-pip --no-deps --strict --progress-spinner off \
    >$tools/audit.log 2>&1; then
    echo "No known vulnerabilities"
elif grep -q '^Name .*Fix Versions' $tools/audit.log; then
    cat $tools/audit.log
    exit 1
else
    tail -n 3 $tools/audit.log
    echo "NOT AUDITED: this package index does not tell of vulnerabilities (pip-audit asks its JSON API)"
    exit 2
fi
