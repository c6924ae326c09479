#!/bin/sh
# The browser in which tests look at the report: by apt-get where that is allowed. Without one, those tests are skipped.
set -eu
if command -v chromium || command -v chromium-browser || command -v google-chrome; then
    exit 0
fi >/dev/null
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium (apt-get, 90 MB)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >.venv/browser.log 2>&1 || true # a mirror that is out may be one that is not needed
    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >>.venv/browser.log 2>&1 && exit 0
    echo "Chromium could not be installed (.venv/browser.log): the tests of the report in a browser are skipped"
else
    echo "No Chromium here: the tests of the report in a browser are skipped. On Debian: apt-get install chromium"
fi
