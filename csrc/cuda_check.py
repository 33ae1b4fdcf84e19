"""Compile all CUDA code as it ships, for every generation of GPUs, and print what each kernel takes.

Needs nvcc and torch's headers, and no GPU. Warnings are errors, and so is a kernel that keeps anything in
local memory: registers that spill, or an array that the compiler could not keep in registers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolkit import find_toolkit

CSRC = Path(__file__).resolve().parent
BUILD = json.loads((CSRC / "build.json").read_text())
ARCHS = ["75", "80", "90", "100"]

# Kernels that may use local memory, by a regular expression for their name, and why that is right.
ALLOWED: dict[str, str] = {}


@dataclass
class Usage:
    """What ptxas says of one kernel on one architecture, in registers and bytes."""

    registers: int
    shared: int
    stack: int
    stores: int
    loads: int

    def __str__(self) -> str:
        return f"{self.registers}{'*' if self.local else ''} {self.shared:6}"

    @property
    def local(self) -> str:
        """What it keeps in local memory, in words."""
        if not (self.stack or self.stores or self.loads):
            return ""
        return f"{self.stack} bytes of stack, {self.stores} stored and {self.loads} loaded by spills"


REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)\w*'"
    r".*?(?P<stack>\d+) bytes stack frame"
    r", (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


def run(command: list[str], text: str = "") -> str:
    """Return what the command says, or stop with it."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def plain(symbols: list[str]) -> list[str]:
    """Return names as the source has them, without namespaces and parameters."""
    names = run(["c++filt"], "\n".join(symbols)).splitlines()
    names = [re.sub(r"\(anonymous namespace\)::|\b(?:\w+::)+|^void ", "", name) for name in names]
    return [re.sub(r"\((?!int\)|bool\)|long\)).*$", "", name) for name in names]


def compile_kernels(nvcc: Path, source: str, folder: Path) -> dict[str, dict[str, Usage]]:
    """Return {kernel: {architecture: usage}} of one .cu file."""
    from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

    command = [str(nvcc), "-std=c++17", *BUILD["flags"]["nvcc"], *COMMON_NVCC_FLAGS]
    command += ["--compiler-options=-Werror,-fPIC", "-Werror", "all-warnings", "-Xptxas", "-v"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS]
    report = run([*command, "-c", str(CSRC / source), "-o", str(folder / f"{Path(source).stem}.o")])
    found = [match.groupdict(default="0") for match in REPORT.finditer(report)]
    usages: dict[str, dict[str, Usage]] = {}
    for name, entry in zip(plain([entry["name"] for entry in found]), found, strict=True):
        counts = {key: int(entry[key]) for key in Usage.__dataclass_fields__}
        usages.setdefault(name, {})[entry["arch"]] = Usage(**counts)
    return usages


def compile_binding(home: Path) -> None:
    """Compile the CUDA half of csrc/torch against torch's own headers."""
    from torch.utils.cpp_extension import include_paths

    system = [flag for path in [*include_paths("cpu"), f"{home}/include"] for flag in ("-isystem", path)]
    defines = [f"-D{name}={value}" for name, value in BUILD["defines"].items()]
    for source in BUILD["torch"]["cuda"]:
        flags = [*BUILD["flags"]["cxx"], "-Werror", *defines, "-DUSE_CUDA", *system]
        run([os.environ.get("CXX", "g++"), "-std=c++20", *flags, "-fsyntax-only", str(CSRC / source)])


def main() -> None:
    """Compile, print the table, and stop with what is not as it should be."""
    toolkit = find_toolkit()
    if toolkit is None:
        print("No CUDA toolkit with nvcc and cuda_runtime_api.h was found: no CUDA code was compiled.")
        return
    home, version = toolkit
    sources = BUILD["core"]["cuda"]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        compiled = pool.map(lambda source: compile_kernels(home / "bin/nvcc", source, Path(folder)), sources)
        results = dict(zip(sources, compiled, strict=True))
    compile_binding(home)

    print(f"CUDA {version} of {home}: registers, and bytes of static shared memory")
    width = max(len(name) for usages in results.values() for name in usages) + 4
    local, refused = [], False
    for source, usages in results.items():
        print("\n" + f"{Path(source).name:{width}}" + "".join(f"{'sm_' + arch:>14}" for arch in ARCHS))
        for name, each in sorted(usages.items()):
            print(f"  {name:{width - 2}}" + "".join(f"{each[arch]!s:>14}" for arch in ARCHS))
            reason = next((why for pattern, why in ALLOWED.items() if re.fullmatch(pattern, name)), None)
            for arch in [arch for arch in ARCHS if each[arch].local]:
                local.append(f"{name}, sm_{arch}: {each[arch].local}")
                local[-1] += f"; allowed: {reason}" if reason else ""
                refused |= reason is None
    if local:
        print("\n* local memory:", *local, sep="\n")
    if refused:
        sys.exit("cuda-check: kernels use local memory.")


if __name__ == "__main__":
    main()
