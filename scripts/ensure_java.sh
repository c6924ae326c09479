#!/bin/sh
# Make sure that there is a Java that Spark runs on: by apt-get where that is allowed, else by saying what to install.
set -eu
check='
import sys
from lakemill.engines.spark.environment import check_java
from lakemill_udfs.errors import SetupError
try:
    check_java()
except SetupError as error:
    sys.exit(str(error))
'
if .venv/bin/python -c "$check" 2>/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Java (apt-get, 45 MB)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >.venv/java.log 2>&1 || true # a mirror that is out may be one that is not needed
    for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
        if apt-get install -y -qq --no-install-recommends "$package" >>.venv/java.log 2>&1; then
            break
        fi
    done
fi
exec .venv/bin/python -c "$check"
