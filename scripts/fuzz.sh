#!/bin/bash
# Builds the fuzz targets of devices/fuzz and runs each for a while, two at a time: fuzz.sh [SECONDS] [TARGET...]
#
# The flags are those of cargo-fuzz, which does not have to be installed. RUSTC_BOOTSTRAP lets the stable toolchain build
# with the address sanitizer. A run starts from the seeds that devices/fuzz/src/seeds.rs writes and from what earlier
# runs found, which stays in devices/fuzz/corpus. An input that fails stays in devices/fuzz/artifacts.
set -euo pipefail

seconds=${1:-10}
shift || true
root=$(cd "$(dirname "$0")/.." && pwd)
fuzz=$root/devices/fuzz
host=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$root/target/fuzz

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="--cfg fuzzing $coverage -Zsanitizer=address" \
    cargo build --release --manifest-path "$fuzz/Cargo.toml" --target "$host" --bins

seeds=$CARGO_TARGET_DIR/seeds
"$CARGO_TARGET_DIR/$host/release/seeds" "$seeds"

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for source in "$fuzz"/fuzz_targets/*.rs; do
        targets+=("$(basename "$source" .rs)")
    done
fi

run() {
    local target=$1 log=$CARGO_TARGET_DIR/$1.log
    mkdir -p "$fuzz/corpus/$target" "$fuzz/artifacts/$target"
    # Findings are written to the first folder.
    if "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$fuzz/artifacts/$target/" \
        "$fuzz/corpus/$target" "$seeds/$target" > "$log" 2>&1; then
        echo "fuzz $target: ok, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs in $seconds s"
    else
        tail -n 60 "$log"
        echo "fuzz $target: FAILED, see devices/fuzz/artifacts/$target and $log"
        return 1
    fi
}
export -f run
export fuzz host seconds seeds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I '{}' bash -c 'run {}'
