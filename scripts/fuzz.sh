#!/bin/bash
# Builds the fuzz targets of devices/fuzz and balancer/image/fuzz and runs each for a while, two at a time:
# fuzz.sh [SECONDS] [TARGET...]
#
# The flags are those of cargo-fuzz, which does not have to be installed. RUSTC_BOOTSTRAP lets the stable toolchain build
# with the address sanitizer. A run starts from the seeds that src/seeds.rs of the crate writes and from what earlier
# runs found, which stays in its folder corpus. An input that fails stays in its folder artifacts.
set -euo pipefail

seconds=${1:-10}
shift || true
root=$(cd "$(dirname "$0")/.." && pwd)
crates="devices/fuzz balancer/image/fuzz"
host=x86_64-unknown-linux-gnu
built=$root/target/fuzz

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"

# Each run is CRATE:TARGET.
runs=()
for crate in $crates; do
    targets=()
    for source in "$root/$crate"/fuzz_targets/*.rs; do
        target=$(basename "$source" .rs)
        if [ $# = 0 ] || [[ " $* " == *" $target "* ]]; then
            targets+=("$crate:$target")
        fi
    done
    [ ${#targets[@]} = 0 ] && continue
    # One target folder: the crates have dependencies in common. Each has a program `seeds`, which runs before the next
    # one takes its place.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="--cfg fuzzing $coverage -Zsanitizer=address" CARGO_TARGET_DIR=$built \
        cargo build --release --manifest-path "$root/$crate/Cargo.toml" --target "$host" --bins
    "$built/$host/release/seeds" "$built/$crate/seeds"
    runs+=("${targets[@]}")
done
[ ${#runs[@]} -gt 0 ] || { echo "fuzz: no target is named $*" >&2; exit 2; }

run() {
    local crate=${1%%:*} target=${1##*:}
    local folder=$root/$crate log=$built/$crate/$target.log
    mkdir -p "$folder/corpus/$target" "$folder/artifacts/$target"
    # Findings are written to the first folder.
    if "$built/$host/release/$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 \
        -print_final_stats=1 -artifact_prefix="$folder/artifacts/$target/" \
        "$folder/corpus/$target" "$built/$crate/seeds/$target" > "$log" 2>&1; then
        echo "fuzz $target: ok, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs in $seconds s"
    else
        tail -n 60 "$log"
        echo "fuzz $target: FAILED, see $crate/artifacts/$target and $log"
        return 1
    fi
}
export -f run
export root built host seconds
printf '%s\n' "${runs[@]}" | xargs -P 2 -I '{}' bash -c 'run {}'
