# make demo        three Linux guests share memory under limits; a limit changes; two share a root image; a summary (on QEMU without KVM;
#                  in the lab: lab demo --engine kvm)
# make test        everything: unit and property tests, guests on bare metal, on QEMU, and Linux guests natively or in the lab
# make bench       what the frame table costs beside the kernel's memory cgroup, and images beside copies and KSM; what a decision costs
# make versus      the policy beside Proxmox VE's and oVirt MoM's rules, in the simulator: docs/policy.md
# make models      measures the accounting systems against each other: table and figure in docs
# make check       format and lints
# make lab-boots   counts boots in the lab: OUTER=6.12 GUEST=6.1 COUNT=50
#
# Each sets up what it needs: Debian packages, guest kernels and images (in the user's cache folder), the build.

CARGO ?= cargo
TARGET := target/x86_64-unknown-linux-gnu/release
OUTER ?= 6.12
GUEST ?= 6.1
COUNT ?= 50

.PHONY: all build setup images test demo bench models versus check lab-boots clean

all: build

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --release --workspace

images: build
	@$(TARGET)/guest-images build > /dev/null

# The programs first: guests are started from them.
test: images
	$(CARGO) test --release --workspace

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

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
