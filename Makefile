# Needs Python >= 3.10 with venv and headers, a C++ compiler and make; the rest is set up in $(VENV).

PYTHON ?= python3
VENV ?= .venv
# The torch to install; empty: the one $(PYTHON) has, if it is 2.10 or later, else 2.13.0.
TORCH ?=
CUDA_TORCH := 2.11.0
# What to install there: the source, or a wheel.
PACKAGE := .

BIN := $(abspath $(VENV))/bin
# Not compiled: most modules of what is installed are never imported. Those that are, are compiled then, and
# that must be kept: else each of the many processes that tests start would compile them all again.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Isolated mode keeps the source folder off sys.path, where it would hide the installed package.
RUN := $(BIN)/python -I -m
export PATH := $(BIN):$(PATH)
# Tests that run side by side share the cores: a thread that waits must not spin.
test simt processes: export OMP_WAIT_POLICY := passive
MAKEFLAGS += --no-print-directory

READY := $(VENV)/.ready
INSTALLED := $(VENV)/.installed
SOURCES := $(shell find csrc cgsv_ext -type f -not -path '*__pycache__*' -not -path 'csrc/test/*' -not -name '*.so') setup.py pyproject.toml
CXX_SOURCES = $(shell find csrc -name '*.h' -o -name '*.inc' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
CMAKE_IF_MISSING := $(if $(shell command -v cmake),,$(BIN)/cmake)

.PHONY: help demo test processes lint bench ctest sanitize simt barriers cuda-check cuda-build other-torch clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
	@echo 'Variables: PYTHON=$(PYTHON) (its torch is used if it is 2.10 or later), VENV=$(VENV), TORCH=version'

demo: $(INSTALLED)  ## train agents on real data, reward them, write a report
	$(BIN)/cgsv demo

test: $(INSTALLED)  ## run the Python tests against the installed package
	$(RUN) pytest --numprocesses auto --dist loadfile

processes: $(INSTALLED)  ## run the tests that start a SuperLink and SuperNodes of Flower
	$(RUN) pytest -m processes python_tests/test_flower_processes.py

lint: $(INSTALLED)  ## ruff, mypy --strict, clang-format
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@echo clang-format csrc
	@$(BIN)/python -c 'import clang_format; clang_format.clang_format()' --dry-run -Werror $(CXX_SOURCES)

bench: $(INSTALLED)  ## measure against plain PyTorch, write bench/results
	$(BIN)/python bench/run.py

ctest: $(CMAKE_IF_MISSING)  ## run the C++ tests of the core, that of the CPU and, compiled for the CPU, that of CUDA
	cmake -S . -B build/ctest
	cmake --build build/ctest --parallel 2
	cd build/ctest && ctest --parallel 2 --output-on-failure --no-tests=error

sanitize: $(CMAKE_IF_MISSING)  ## those of the CPU under AddressSanitizer and UndefinedBehaviorSanitizer
	cmake -S . -B build/sanitize -DCGSV_SANITIZE=address,undefined
	cmake --build build/sanitize --parallel 2
	cd build/sanitize && ctest --parallel 2 --output-on-failure --no-tests=error

SIMT_SEED ?= 1
FLAVOUR := $(if $(SANITIZE),sanitize,plain)
# Python itself is not instrumented, so the sanitizer's library has to be there first, and that of exceptions,
# which it looks for at once. What Python and torch keep until the end is no leak.
PRELOAD = $(foreach library,libasan.so libstdc++.so,$$($(CXX) -print-file-name=$(library)))
UNDER = $(if $(SANITIZE),LD_PRELOAD="$(PRELOAD)" \
  ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/build/ctest/asan UBSAN_OPTIONS=log_path=$(CURDIR)/build/ctest/ubsan)
simt: $(INSTALLED) $(CMAKE_IF_MISSING)  ## run the Python tests of the ops on the CUDA kernels, compiled for the CPU
	cmake -S . -B build/ctest -DCGSV_PYTHON=$(BIN)/python
	cmake --build build/ctest --parallel 2 --target simt_module_$(FLAVOUR)
	$(UNDER) SIMT_ORDER=random SIMT_SEED=$(SIMT_SEED) CGSV_SIMT_LIBRARY=$(CURDIR)/build/ctest/_C_$(FLAVOUR).so \
	  $(RUN) pytest --numprocesses auto

barriers: $(CMAKE_IF_MISSING)  ## take each barrier out of the CUDA kernels in turn, expect a test to fail
	$(PYTHON) csrc/test/simt/barriers.py

cuda-check: $(READY)  ## compile all CUDA code with nvcc, print registers and spills; needs no GPU
	@$(BIN)/python csrc/cuda_check.py

cuda-build:  ## build with CUDA for torch $(CUDA_TORCH) in an environment of its own, test what needs no GPU
	CGSV_CUDA=1 $(MAKE) test VENV=build/cuda TORCH=$(CUDA_TORCH)

other-torch: $(READY)  ## run the tests with the library built for this torch under torch $(CUDA_TORCH)
	@rm -rf build/wheel build/other/.installed build/lib* build/bdist*
	$(BIN)/python -m pip --disable-pip-version-check wheel -q --no-build-isolation --no-deps -w build/wheel .
	$(MAKE) test VENV=build/other TORCH=$(CUDA_TORCH) PACKAGE="$$(echo build/wheel/*.whl)"

clean:  ## remove what was built, the environment too
	rm -rf build cgsv_ext.egg-info $(VENV)

# The environment. A torch that $(PYTHON) already has is used where it lies, through a .pth file: unlike
# --system-site-packages, that also works when $(PYTHON) is itself a virtual environment's.

define FIND_TORCH
import sys, torch
if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
    sys.exit(1)
print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")
print(f"using torch {torch.__version__} of {sys.executable}", file=sys.stderr)
endef
export FIND_TORCH

$(READY):
	$(PYTHON) -m venv $(VENV)
	@if [ -z '$(TORCH)' ] && $(PYTHON) -c 'import torch' 2>/dev/null \
	  && $(PYTHON) -c "$$FIND_TORCH" >$(VENV)/torch.pth; then \
	  mv $(VENV)/torch.pth $(VENV)/lib/python3.*/site-packages/; \
	else \
	  echo 'installing torch'; $(INSTALL) torch==$(or $(TORCH),2.13.0); \
	fi
	$(INSTALL) --upgrade setuptools wheel ninja pybind11
	@touch $@

# Files left in build/lib* by an earlier build would be packed into this one.
$(INSTALLED): $(READY) $(SOURCES)
	@rm -rf build/lib* build/bdist*
	$(INSTALL) --no-build-isolation '$(PACKAGE)[test,lint]'
	@touch $@

$(BIN)/cmake: $(READY)
	$(INSTALL) --ignore-installed cmake
