#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes: build, tests, sanitizers, times, profile.
#
#   bench/device_check.sh [OUTDIR [STAGE...]]      --help names the stages
#
# PYTHON chooses the interpreter, whose torch, numpy, pytest, pytest-benchmark, pybind11, ninja and setuptools
# are used; no network.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/device" check "$@"
