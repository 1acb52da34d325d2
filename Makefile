# make test         unit tests of the VMM and of what it shares with the balancer
# make test-guests  end-to-end tests with guests

CARGO ?= cargo

.PHONY: all build test test-guests setup check clean

all: build

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --release --workspace

# What is known to pass everywhere. The other suites are run by their own targets below.
test:
	$(CARGO) test --release -p protocol -p vmm

# Guests without an operating system on any /dev/kvm, and Linux guests natively or in the lab.
test-guests: build
	$(CARGO) test --release -p e2e

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
