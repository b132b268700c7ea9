# SPDX-License-Identifier: Apache-2.0
# Every target starts from wherever the checkout stands: it installs, fetches and builds what is
# missing, and nothing where nothing is. What the stages print is in build/logs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PYTHONDONTWRITEBYTECODE := 1

stage := @tools/stage
jobs := $(shell nproc 2>/dev/null || echo 2)
# A tool that runs the tests of one or more build folders.
ctest := ctest --output-on-failure --progress -j $(jobs)

.PHONY: help
help:
	@echo 'make run       an answer from the default model, from a bare checkout'
	@echo 'make build     build/banyan, and the library for cmake --install build/release'
	@echo 'make test      all tests'
	@echo 'make asan      the tests with address and undefined-behaviour sanitizers'
	@echo 'make tsan      the tests with the thread sanitizer'
	@echo 'make coverage  which lines the tests reach'
	@echo 'make lint      clang-tidy'
	@echo 'make format    clang-format on all sources'
	@echo 'make peers     llama.cpp and OpenVINO GenAI, to compare with'
	@echo 'make bench     docs/benchmarks.md and families-speed.md on this machine (an hour)'
	@echo 'make clean     removes what was built; fetched sources and peers stay'

# What must be on the machine; looked for once, and again when tools/setup changes.
build/setup/%: tools/setup
	@tools/setup $*
	@mkdir -p $(@D) && touch $@

.PHONY: deps model clang-format
deps: build/setup/build
	@tools/fetch.py deps
model: build/setup/build
	@tools/fetch.py model
clang-format: build/setup/build
	@tools/fetch.py clang-format

# A build folder is configured once; CMake sees to it from then on.
build/%/build.ninja: CMakePresets.json | deps
	$(stage) $*-configure 'configuring ($*)' cmake --preset $*

.PHONY: run build test
build: deps build/release/build.ninja
	$(stage) build 'compiling' cmake --build --preset release --target banyan banyan_shared
	@ln -sfn release/banyan build/banyan

run: build model
	@build/banyan run --temp 0 -n 64 -p 'What is the capital of France?'

test: build model clang-format build/setup/test build/fuzz/build.ninja
	$(stage) build-tests 'compiling the tests' cmake --build --preset release
	$(stage) build-fuzz 'compiling the fuzzers' cmake --build --preset fuzz --target fuzzers
	@echo 'subdirs(release fuzz)' > build/CTestTestfile.cmake
	@$(ctest) --test-dir build

build/fuzz/build.ninja: | build/setup/test

.PHONY: asan tsan coverage
asan: model build/asan/build.ninja
	$(stage) build-asan 'compiling with sanitizers' cmake --build --preset asan
	@$(ctest) --test-dir build/asan

# The thread sanitizer needs addresses where it expects them.
tsan: model build/tsan/build.ninja
	$(stage) build-tsan 'compiling with the thread sanitizer' \
	  setarch -R cmake --build --preset tsan
	@setarch -R $(ctest) --test-dir build/tsan

coverage: model build/setup/coverage build/coverage/build.ninja
	$(stage) build-coverage 'compiling for coverage' cmake --build --preset coverage
	$(stage) test-coverage 'running the tests' $(ctest) --test-dir build/coverage
	@gcovr --root . --filter src/ --exclude '.*_test\.cc' build/coverage

.PHONY: lint format
lint: build/setup/lint build/release/build.ninja build/fuzz/build.ninja
	@tools/lint
format: clang-format
	@tools/format

.PHONY: peers
peers: build/setup/build build/setup/peers
	@tools/peers

# llama.cpp once for what the machine has and once as for AVX2; the first is left in bin.
.PHONY: bench
bench: build model build/setup/bench build/setup/peers
	@BANYAN_ISA=avx2 tools/peers
	@tools/peers
	@bench/side_by_side.py
	@bench/families.py
	@bench/trees.py

.PHONY: clean
clean:
	rm -rf build/{banyan,release,asan,tsan,coverage,fuzz,logs,setup,CTestTestfile.cmake,Testing}
