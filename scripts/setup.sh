#!/bin/sh
# Installs what building and testing need, and nothing that is there already. Quiet when nothing is to be done.
#
# QEMU 10 or newer: version 7.2 of Debian 12 miscompiles now and then what a 6.12 kernel does, and guests die
# of it at boot. Where the machine's own sources have an older one, Debian's backports are asked, through package
# lists of their own: the machine's sources stay as they are.
set -eu

QEMU_MAJOR_MIN=10
RELEASE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
root=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        die "root is needed and there is no sudo: run this script as root once."
    fi
}

# Runs apt-get quietly; its output is shown when it fails.
apt_get() {
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -y -qq "$@" > "$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get failed (see above): repair it, then run this script again."
    fi
    rm -f "$log"
}

qemu_major() {
    qemu-system-x86_64 --version 2> /dev/null | sed -n 's/.* version \([0-9]*\)\..*/\1/p'
}

new_enough() {
    [ "${1:-0}" -ge "$QEMU_MAJOR_MIN" ]
}

# The mirror that this machine uses for Debian's main archive.
mirror() {
    apt-get indextargets --format '$(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "main" && $2 ~ /^(bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$/ { print $3; exit }'
}

install_qemu_from_backports() {
    uri=$(mirror)
    [ -n "$uri" ] || die "no Debian archive in this machine's apt sources: add it, or install QEMU $QEMU_MAJOR_MIN yourself."
    private=$(mktemp -d)
    chmod 755 "$private"
    mkdir -p "$private/lists/partial" "$private/parts"
    for suite in "$RELEASE" "$RELEASE-updates" "$RELEASE-backports"; do
        echo "deb [signed-by=$KEYRING] $uri $suite main"
    done > "$private/sources.list"
    set -- -o "Dir::Etc::sourcelist=$private/sources.list" -o "Dir::Etc::sourceparts=$private/parts" \
        -o "Dir::State::lists=$private/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
    apt_get "$@" update
    apt_get "$@" install --no-install-recommends -t "$RELEASE-backports" qemu-system-x86
    as_root rm -rf "$private"
}

command -v apt-get > /dev/null ||
    die "this machine has no apt-get: Ballast takes guest kernels and tools from Debian's packages; use Debian 12 or newer."
[ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m): Ballast runs on x86_64."

missing=
command -v gcc > /dev/null && [ -e /usr/include/stdio.h ] || missing="$missing gcc libc6-dev"
# libFuzzer is C++.
command -v g++ > /dev/null || missing="$missing g++"
command -v mke2fs > /dev/null || [ -x /usr/sbin/mke2fs ] || missing="$missing e2fsprogs"
command -v fsck.erofs > /dev/null || [ -x /usr/bin/fsck.erofs ] || missing="$missing erofs-utils"
# Unpacks layers, which balancer image build is compared with.
command -v umoci > /dev/null || missing="$missing umoci"
command -v mmdebstrap > /dev/null || missing="$missing mmdebstrap"
[ "$(id -u)" = 0 ] || command -v newuidmap > /dev/null || missing="$missing uidmap"
[ -e "$KEYRING" ] || missing="$missing debian-archive-keyring"
if ! new_enough "$(qemu_major)"; then
    # The archive may know QEMU only after an update; lists that are there are taken as they are.
    apt-cache show qemu-system-x86 > /dev/null 2>&1 || apt_get update
    candidate=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\)\..*/\2/p')
    new_enough "$candidate" && missing="$missing qemu-system-x86"
fi
if [ -n "$missing" ]; then
    say "installing$missing"
    # shellcheck disable=SC2086 # a list of words
    apt-cache show $missing > /dev/null 2>&1 || apt_get update
    # shellcheck disable=SC2086
    apt_get install --no-install-recommends $missing
fi
if ! new_enough "$(qemu_major)"; then
    say "installing qemu-system-x86 from $RELEASE-backports"
    install_qemu_from_backports
    new_enough "$(qemu_major)" || die "QEMU $QEMU_MAJOR_MIN was installed but qemu-system-x86_64 is older: check your PATH."
fi

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
command -v cargo > /dev/null ||
    die "cargo is missing: install Rust $wanted or newer with rustup (https://rustup.rs), then run this script again."
found=$(cd / && cargo --version | cut -d ' ' -f 2)
[ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
    die "cargo is $found, $wanted or newer is needed: run 'rustup update stable', then run this script again."
