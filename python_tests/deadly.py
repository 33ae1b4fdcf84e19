"""A task for test_fl_store.py's processes, which import this file."""

import os
import signal

import torch


def task(name, say):
    """Say that it began; where the name says so, fail or kill the process."""
    say(("began", name, torch.get_num_threads()))
    if name == "fail":
        raise ValueError("told to")
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
