# Everything below runs on a machine with Rust, Python 3 with pip, and a C++ compiler.
# NVRTC, the CUDA run-time compiler, comes as a wheel into .nvrtc/ and needs no GPU.

NVRTC_VERSION := 13.0.88
NVRTC := .nvrtc/installed-$(NVRTC_VERSION)
# Any disassembler of CUDA 13 reads the cubins; the wheels begin at 13.2.
NVDISASM_VERSION := 13.3.73
NVDISASM := .nvrtc/tools/installed-$(NVDISASM_VERSION)
PYTHON ?= python3
BIN := target/release/rtrt-codegen

.PHONY: demo test check bless nvrtc sass-tools gpu runtime clean

demo: nvrtc
	cargo build --release
	sh benches/demo.sh $(BIN)

# host and nvrtc tiers; the gpu tier prints as ignored unless RTRT_TEST_GPU=1
test: nvrtc
	RTRT_REQUIRE_NVRTC=1 cargo test

check: nvrtc
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo check --no-default-features --features runtime
	cargo test
	cargo doc --no-deps

# Rewrites expectations; read the diff before committing.
bless: nvrtc
	RTRT_BLESS=1 INSTA_UPDATE=always cargo test

# rtrt-run, the static library and the C example: needs neither NVRTC nor a GPU
runtime:
	sh benches/runtime.sh tests/engines/v1.engine

gpu: nvrtc
	RTRT_TEST_GPU=1 cargo test

nvrtc: $(NVRTC)

$(NVRTC):
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .nvrtc nvidia-cuda-nvrtc==$(NVRTC_VERSION)
	touch $@

# For tests/sass.rs, which skips what it would look at without it.
sass-tools: $(NVDISASM)

$(NVDISASM): $(NVRTC)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .nvrtc/tools nvidia-cuda-nvdisasm==$(NVDISASM_VERSION)
	touch $@

clean:
	cargo clean
	rm -rf .nvrtc
