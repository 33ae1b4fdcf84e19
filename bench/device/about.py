"""What was built, and the machine it runs on."""

from __future__ import annotations

import shutil
import subprocess

import machine
import results
import torch

import cgsv_ext
from cgsv_ext import collect_env


def describe(device: str) -> dict[str, object]:
    """The GPU first; nothing that names one machine."""
    host = machine.describe()
    if device != "cuda":
        return host
    gpu = torch.cuda.get_device_properties()
    built = cgsv_ext.build_info()
    return {
        "gpu": gpu.name,
        "capability": f"{gpu.major}.{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
        "gpu_memory_gib": round(gpu.total_memory / 2**30, 1),
        "l2_mib": round(gpu.L2_cache_size / 2**20, 1),
        "driver": _nvidia_smi("driver_version"),
        "clocks_max_sm_memory": _nvidia_smi("clocks.max.sm,clocks.max.memory"),
        "power_limit": _nvidia_smi("power.limit"),
        "torch_cuda": torch.version.cuda,
        "built_with_cuda": built["cuda_version"],
        "built_for": " ".join(built["cuda_archs"]),
        **host,
    }


def _nvidia_smi(query: str) -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else None


def main(argv: list[str]) -> int:
    options = results.parser(__doc__).parse_args(argv)
    collect_env.main()
    results.update(options.results, machine=describe(options.device))
    if options.device != "cuda":
        results.say("for the CPU")
        return 0
    if not cgsv_ext.build_info()["cuda"]:
        results.say("this build has no CUDA kernels")
        return 1
    r = cgsv_ext.reward_step(torch.randn(3, 1000, device="cuda"), torch.zeros(3, device="cuda")).importance
    results.say(f"for {' '.join(cgsv_ext.build_info()['cuda_archs'])}; a first step gave {r.tolist()}")
    return 0
