#!/bin/sh
# schemathesis: requests made from an OpenAPI document, and checks of their answers.
#
# It comes as wheels from PyPI with their digests (scripts/schemathesis.txt; 20 MB, some seconds), and stays in the
# user's cache folder. Nothing of it is linked into what is built.
set -eu

VERSION=4.32.5
root=$(cd "$(dirname "$0")/.." && pwd)
# Some wheels are for one version of Python.
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The folder in BALLAST_CACHE, like that of the guest images.
cache=${BALLAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ballast}/tools/schemathesis-$VERSION-python$python

if [ ! -x "$cache/bin/st" ]; then
    new=$cache.new.$$
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$(dirname "$cache")"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --target "$new" --requirement "$root/scripts/schemathesis.txt" >&2
    # Another run may have been faster.
    mv -T "$new" "$cache" 2> /dev/null || true
    trap - EXIT
    rm -rf "$new"
fi
PYTHONPATH=$cache exec "$cache/bin/st" "$@"
