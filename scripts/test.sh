#!/bin/bash
# `make test`: every check, the quick ones first. The last lines count what ran, what was skipped and why.
#
# A check that fails ends the run, except for the tests themselves: all of them run.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO=${CARGO:-cargo}
FUZZ_SECONDS=${FUZZ_SECONDS:-10}
# Made by a build: the summary of a clean tree is built before it is needed.
target=target/x86_64-unknown-linux-gnu/release
folder=$PWD/target/test
export CARGO_TERM_COLOR=never
export BALLAST_SKIPS=$folder/skips
durations=

rm -rf "$folder"
mkdir -p "$folder"

# step NAME COMMAND...: runs a check; one that fails is named in the last lines.
step() {
    local name=$1 started=$SECONDS status=0
    shift
    echo "== $name"
    "$@" || status=$?
    durations+="$(printf '  %-12s %5d s' "$name" $((SECONDS - started)))"$'\n'
    if [ $status != 0 ]; then
        printf 'Time:\n%sFAILED: %s\n0 passed, 1 failed, 0 skipped\n' "$durations" "$name"
        exit 1
    fi
}

tests() {
    # All test programs run, also after one that failed.
    $CARGO test --release --workspace --no-fail-fast 2>&1 | tee "$folder/log" || echo "${PIPESTATUS[0]}" > "$folder/status"
    [ -e "$folder/status" ] || echo 0 > "$folder/status"
}

step setup scripts/setup.sh
step rustfmt $CARGO fmt --all --check
step tidy $CARGO test --release --quiet -p tidy
step deny scripts/deny.sh
step clippy $CARGO clippy --release --workspace --all-targets -- -D warnings
step build $CARGO build --release --workspace
step fuzz scripts/fuzz.sh "$FUZZ_SECONDS"
step images bash -c "$target/guest-images build > /dev/null"
step tests tests
printf 'Time:\n%s' "$durations"
exec "$target/test-summary" "$folder/log" "$BALLAST_SKIPS" tests/skip/allowed.txt "$(cat "$folder/status")"
