#!/bin/sh
# Puts the client libraries that the tests run against the server into target/tools: Python's into `python` (a
# virtual environment), JavaScript's into `javascript`; and schemathesis, which makes up requests. What was installed
# from the same lists is kept.
set -eu
cd "$(dirname "$0")/.."
lists=tests/clients
tools=target/tools
mkdir -p "$tools"

# Runs the arguments, and again where they fail: a mirror may be out of reach for some minutes.
persistently() {
    for pause in 5 15 30 60 120; do
        "$@" && return
        echo "$1 failed, again in $pause s" >&2
        sleep "$pause"
    done
    "$@"
}

# Runs the rest of the arguments unless $1 says that it was done for the lists in $2…$n, up to `--`.
once() {
    stamp=$1; shift
    sum=
    while [ "$1" != -- ]; do sum="$sum $(cksum <"$1")"; shift; done
    shift
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
    "$@"
    echo "$sum" >"$stamp"
}

python() {
    rm -rf "$tools/python"
    python3 -m venv "$tools/python"
    persistently "$tools/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$lists/requirements.txt"
    echo "installed $tools/python"
}

javascript() {
    rm -rf "$tools/javascript"
    mkdir "$tools/javascript"
    cp "$lists/package.json" "$lists/package-lock.json" "$tools/javascript/"
    (cd "$tools/javascript" && persistently npm ci --omit=optional --no-audit --no-fund --silent)
    echo "installed $tools/javascript"
}

persistently scripts/fuzz-openapi.py --install
once "$tools/python.installed" "$lists/requirements.txt" -- python
once "$tools/javascript.installed" "$lists/package.json" "$lists/package-lock.json" -- javascript
