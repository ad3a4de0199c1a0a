# `make demo`, `make docs`, `make test` and `make lint`: the first call sets up .venv, later calls start at once.
# The first two need no compiler; the others have everything, torch-scatter and torch-cluster too, which are compiled.

# compressai needs numpy < 2, which has no wheels beyond Python 3.12.
PYTHON ?= $(or $(shell command -v python3.11 || command -v python3.12),python3)

# torch and the torchvision made for it. Another pair: make test TORCH="torch==2.12.1 torchvision==0.27.1"
TORCH ?= torch==2.13.0 torchvision==0.28.0
# On Linux pip's usual index has their build for NVIDIA's GPUs, with 2.7 GB of libraries, which GPU=1 asks for. By
# default PyTorch's index of CPU builds (0.2 GB) is searched too, unless pip is configured for indexes of your own.
# TORCH_INDEX is any other that offers builds of them (CUDA, ROCm), or nothing.
GPU ?=
ifeq ($(GPU)$(origin TORCH_INDEX),undefined)
TORCH_INDEX := $(shell [ "$$(uname)" != Linux ] || $(PYTHON) -m pip config list 2>/dev/null | grep -q index-url \
	|| echo https://download.pytorch.org/whl/cpu)
endif
# Processes at work at the same time; a compiler takes 1.5 GB of memory, tests take 2 GB.
JOBS ?= $(or $(shell nproc 2>/dev/null),2)

VENV := .venv
PIP := $(VENV)/bin/python -m pip
READY := $(VENV)/ready
COMPLETE := $(VENV)/complete

demo: $(READY)
	$(VENV)/bin/python tools/demo.py

test: $(COMPLETE)
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile

lint: $(COMPLETE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The pages of docs/ and of the docstrings, into site/.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# Every step finds what an interrupted call has already installed.
$(READY): $(VENV)/torch.txt pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt $(TORCH:%='%') $(addprefix --extra-index-url=,$(TORCH_INDEX))
	$(PIP) install -c constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/docs: $(READY)
	$(PIP) install -c constraints.txt --editable ".[docs]"
	touch $@

$(COMPLETE): $(READY)
	$(PIP) install -c constraints.txt setuptools wheel
	$(VENV)/bin/python -c "$$BUILD_CFG" > $(VENV)/build.cfg
	$(COMPILE) torch-scatter
	$(COMPILE) torch-cluster
	$(PIP) install -c constraints.txt --editable ".[dev]"
	touch $@

# Compiled against the torch just installed, so not in isolation; uncached, because pip would hand the result
# to another torch too. Without debug information (-g0) g++ takes 40 % less time.
COMPILE = DIST_EXTRA_CONFIG='$(CURDIR)/$(VENV)/build.cfg' CPPFLAGS="$$CPPFLAGS -g0" \
	$(PIP) install -c constraints.txt --no-build-isolation --no-cache-dir

# One compiler only where nvcc takes part: torch's build step swaps it with g++ in a place all threads share.
define BUILD_CFG
from torch.utils.cpp_extension import CUDA_HOME
print("[build_ext]\nparallel =", 1 if CUDA_HOME else $(JOBS))
endef
export BUILD_CFG

# What is compiled fits one torch only, so another choice of torch starts a new environment. lib is removed first:
# if the removal is interrupted, torch.txt still says which torch the packages that are left belong to.
$(VENV)/torch.txt: choice
	@echo '$(TORCH) $(TORCH_INDEX)' | cmp -s - $@ || { \
	  if [ -e $@ ]; then rm -rf $(VENV)/lib $(VENV); fi; \
	  $(PYTHON) -m venv $(VENV) && echo '$(TORCH) $(TORCH_INDEX)' > $@; }

.PHONY: demo test lint docs choice
