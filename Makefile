# make test        everything: format, lints, licences, rules of the house, fuzz targets, unit tests, guests on bare metal, on
#                  QEMU, and Linux guests natively or in the lab; the last lines count what ran and what was skipped
# make check       the quick part of it: format, rules of the house, licences, lints
# make fuzz        each fuzz target for a while: FUZZ_SECONDS=60
# make demo        three Linux guests share memory under limits; a limit changes; two share a root image; a summary (on
#                  QEMU without KVM; in the lab: lab demo --engine kvm)
# make bench       what the frame table costs next to the kernel's memory cgroup, and images next to copies and KSM; what
#                  a decision costs
# make versus      the policy compared with the rules of Proxmox VE and oVirt MoM, in the simulator: docs/policy.md
# make models      measures the accounting systems against each other: table and figure in docs
# make lab-boots   counts boots in the lab: OUTER=6.12 GUEST=6.1 COUNT=50
#
# Each sets up what it needs: Debian packages, guest kernels and images (in the user's cache folder), the build.

CARGO ?= cargo
TARGET := target/x86_64-unknown-linux-gnu/release
OUTER ?= 6.12
GUEST ?= 6.1
COUNT ?= 50
FUZZ_SECONDS ?= 60

.PHONY: all build setup images test check fuzz demo bench models versus lab-boots clean

all: build

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --release --workspace

images: build
	@$(TARGET)/guest-images build > /dev/null

test:
	@scripts/test.sh

check: setup
	$(CARGO) fmt --all --check
	$(CARGO) test --release --quiet -p tidy
	scripts/deny.sh
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

fuzz: setup
	scripts/fuzz.sh $(FUZZ_SECONDS)

demo: images
	@$(TARGET)/lab demo

lab-boots: images
	@$(TARGET)/lab boots --outer $(OUTER) --guest $(GUEST) --count $(COUNT)

# A first touch is served by the balancer of this build.
bench: build
	$(CARGO) bench -p vmm --bench frames --bench images
	$(CARGO) bench -p simulator --bench policy

models: setup
	$(CARGO) run --release -p balancer --example models -- --svg docs/models.svg --into docs/models.md > /dev/null

versus: setup
	$(CARGO) build --release -p balancer
	$(TARGET)/balancer simulate --compare --into docs/policy.md

clean:
	$(CARGO) clean
