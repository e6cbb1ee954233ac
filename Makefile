# SPDX-License-Identifier: MIT
# A thin front to meson, so that the two commands of the README do all the set-up themselves.
BUILD ?= build
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

.PHONY: all setup demo test lint bench bench-qemu docs install clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet | { grep -v -E '^(ninja: no work to do|Found ninja|Cleaning)' || true; }

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) >/dev/null || { cat $(BUILD)/meson-logs/meson-log.txt; exit 1; }

setup:
	@scripts/setup

demo: all
	@$(BUILD)/quiesce demo $(DEMO_ARGS)

# Every suite in every build that proves something else: plain, address and undefined-behaviour
# sanitizers, thread sanitizer, fuzzers. Ends with one line over all of them.
test: all
	@BUILD=$(BUILD) scripts/test

lint: all
	@scripts/lint $(BUILD)

bench: all
	@$(BUILD)/bench/quiesce-bench $(BENCH_ARGS)

# Figures that need two QEMUs.
bench-qemu: all
	@python3 bench/qemu.py $(BUILD) $(BENCH_ARGS)

docs: all
	@ninja -C $(BUILD) --quiet docs
	@echo "documents: $(BUILD)/docs/html/index.html"

install: all
	@meson install -C $(BUILD)
	@if [[ -z "$${DESTDIR:-}" && $$(id -u) == 0 ]]; then ldconfig; fi

clean:
	@rm -rf $(BUILD) build-*
