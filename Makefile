# SPDX-License-Identifier: Apache-2.0
# The front door.  meson does the work; `make help` says what there is.

BUILD      ?= build
WERROR     ?= true
PREFIX     ?= /usr/local
DESTDIR    ?=
FUZZ_SECONDS ?= 30
N          ?= 200
FAULTS     ?= both
MINUTES    ?= 5
SEED       ?=
export FUZZ_SECONDS

# gcc warns of things that only its sanitizers made possible, so warnings are no errors here.
SANITIZED := --buildtype=debugoptimized -Db_lundef=false -Dwerror=false

# What every sanitizer report ends in is a failed test.  Not detect_stack_use_after_return: gcc 12
# places 64-byte vectors on a stack of its making that is aligned to 32 (gcc bug 110027).
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS  ?= halt_on_error=1:abort_on_error=1
export TSAN_OPTIONS  ?= halt_on_error=1:second_deadlock_stack=1:history_size=4

.DEFAULT_GOAL := build
.PHONY: build run test test-cxl test-rdma rdma-test cluster-test chaos test-engines asan tsan fuzz seeds torture stress soak crash sim bench format lint clang wheel install clean help

build: ## build into build/; the programs are in build/bin
	@scripts/deps build test
	@scripts/build $(BUILD) -Dwerror=$(WERROR)

run: ## build, start a private node, show a language model on it
	@BUILD=$(BUILD) WERROR=$(WERROR) scripts/run

test: ## everything that a change must pass; ends with "N passed, N failed, N skipped"
	@scripts/deps build test
	@scripts/build $(BUILD) -Dwerror=$(WERROR)
	@scripts/layers
	@scripts/s3-server $(BUILD) || true
	@scripts/run-tests $(BUILD)

test-cxl: ## the CXL tier on the real kernel's drivers, in machines that QEMU emulates; minutes
	@scripts/deps build test
	@scripts/deps cxl || true # it skips, and says why, without
	@scripts/build $(BUILD) -Dwerror=$(WERROR)
	@test/cxl/run.sh $(BUILD) || [ $$? -eq 77 ]

test-rdma: ## the ucx transport over RDMA verbs, which the real kernel has in software, in machines that QEMU emulates; minutes
	@scripts/deps build test
	@scripts/deps rdma || true # it skips, and says why, without
	@scripts/build $(BUILD) -Dwerror=$(WERROR)
	@test/rdma/run.sh $(BUILD) || [ $$? -eq 77 ]

rdma-test: test-rdma

cluster-test: ## many hosts as network namespaces, a real etcd, a network with faults; as root; minutes
	@scripts/deps build test
	@scripts/deps cluster || true # it skips, and says why, without
	@scripts/build $(BUILD) -Dwerror=$(WERROR)
	@scripts/run-tests $(BUILD) --suite cluster-long

chaos: build ## a cluster under faults of every kind by SEED for MINUTES (5), every byte verified; as root
	@scripts/deps cluster || true
	@python3 -B test/cluster/chaos.py $(BUILD) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) || [ $$? -eq 77 ]

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer (build-asan/)
	@scripts/deps build test
	@scripts/build build-asan $(SANITIZED) -Db_sanitize=address,undefined \
	    -Dc_args=-Wno-format-overflow
	@scripts/run-tests build-asan

tsan: ## the tests under ThreadSanitizer (build-tsan/)
	@scripts/deps build test
	@scripts/build build-tsan $(SANITIZED) -Db_sanitize=thread
	@scripts/run-tests build-tsan

fuzz: ## each fuzz target for FUZZ_SECONDS (30); FUZZ_KEEP=1 keeps new inputs in test/fuzz/corpus
	@scripts/deps build test clang
	@CC=clang-14 scripts/build build-fuzz $(SANITIZED) -Dfuzz=true -Db_sanitize=address,undefined
	@scripts/fuzz build-fuzz

test-engines: build ## Weft inside real engines, each in a venv (build/engines/); downloads, compiles llama.cpp; ONLY=ENGINE
	@test/engines/run.py --build $(BUILD) $(if $(ONLY),--only $(ONLY))

seeds: build ## the tests that choose at random, ROUNDS times (10), each time another seed
	@for round in $$(seq $(or $(ROUNDS),10)); do echo "round $$round" && scripts/run-tests $(BUILD) --random \
	    --suite unit --suite below --suite conformance || exit 1; done

torture: build ## the Nth allocation or system call fails, for every N
	@scripts/run-tests $(BUILD) --suite torture

stress: build ## many processes, every byte verified, minutes
	@scripts/run-tests $(BUILD) --suite stress

soak: build ## hours
	@scripts/run-tests $(BUILD) --suite soak

crash: build ## a node killed N times (200) under load, every block verified; FAULTS=none, both, only
	@$(BUILD)/test/test_cycles $(N) $(FAULTS)

sim: build ## a cluster in virtual time: SEED=n NODES=n (50) SECONDS=n (8) of faults; SEEDS=n of them; BLOCKS=n of a node; REQUEST_MS=n between requests; GAP_MS=n between faults; PARTS=1; CORRUPT=0
	@SEED=$(or $(SEED),1) NODES=$(NODES) SECONDS=$(SECONDS) SEEDS=$(SEEDS) CORRUPT=$(CORRUPT) BLOCKS=$(BLOCKS) REQUEST_MS=$(REQUEST_MS) GAP_MS=$(GAP_MS) PARTS=$(PARTS) $(BUILD)/test/test_sim_cluster

bench: ## the budgets of docs/PERFORMANCE.md, measured on a release build (build-release/)
	@scripts/deps build bench
	@scripts/build build-release --buildtype=release -Dtest_hooks=false -Dtests=false -Dprefix=$(PREFIX)
	@scripts/bench build-release

format: ## bring every C file into shape
	@scripts/deps lint
	@scripts/format

lint: ## format, clang-tidy, shellcheck, layers, banned functions, lengths, man pages
	@scripts/deps build test lint
	@scripts/build $(BUILD) -Dwerror=$(WERROR)
	@scripts/lint $(BUILD)

clang: ## build with clang 14, every warning an error (build-clang/)
	@scripts/deps build test clang
	@CC=clang-14 scripts/build build-clang -Dwerror=true

wheel: ## the Python package as a wheel, in dist/
	@scripts/deps build test
	@scripts/wheel dist

install: ## release build without test hooks, to PREFIX (/usr/local) under DESTDIR
	@scripts/deps build
	@scripts/build build-release --buildtype=release -Dtest_hooks=false -Dtests=false -Dprefix=$(PREFIX)
	@meson install -C build-release --no-rebuild $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

clean: ## remove every build directory
	@rm -rf $(BUILD) build-asan build-tsan build-fuzz build-clang build-release

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
