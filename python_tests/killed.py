"""Runs that are killed: what test_fl_resume.py and test_fl_store.py start in processes of their own."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._inductor  # as the first step of an optimizer does; here once, not in every child

from cgsv_ext.fl import Experiment, run, store
from cgsv_ext.fl.data import load
from cgsv_ext.fl.store import Spec, Store, run_all

torch.set_num_threads(1)  # no thread pool, so that this process may fork
load("digits", None, 1)


def fork(do):
    """Do something in a process of its own: its id, and the end of a pipe it can write to."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            do(lambda: os.write(theirs, b"."))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    os.close(theirs)
    return child, ours


def ended(child, ours):
    """Wait for its end: whether it came by itself."""
    while os.read(ours, 1 << 16):
        pass
    os.close(ours)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return not os.WIFSIGNALED(status)


def kill_sometime(child, ours, marks, delay):
    """Kill after so many marks have come through the pipe, and a little later."""
    for _ in range(marks):
        if not os.read(ours, 1):
            return
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)  # it is there even if it has ended, until it is waited for


def kill_a_run(experiment, mechanism, folder, kills, seed):
    """Run to folder/whole; run again, killed so many times at random rounds and moments, to folder/resumed.

    Returns how often it was in fact killed.
    """
    folder, chance = Path(folder), random.Random(seed)
    checkpoint = folder / "checkpoint"

    def whole(mark):
        run(experiment, mechanism, 1).save(folder / "whole")

    def resumed(mark):
        result = run(experiment, mechanism, 1, lambda *_: mark(), checkpoint=checkpoint, every=1)
        result.save(folder / "resumed")

    assert ended(*fork(whole))
    done = 0
    while done < kills:
        child, ours = fork(resumed)
        kill_sometime(child, ours, chance.randint(1, 3), chance.choice([0, chance.random() * 0.02]))
        if ended(child, ours):
            return done
        done += 1
    assert ended(*fork(resumed))
    return done


def kill_a_store(specs, folder, seed):
    """Run all specs into a store, killed after one to three rounds again and again; how often it was."""
    chance, kills, original = random.Random(seed), 0, store.run

    def all_of_them(mark):
        def marked(experiment, mechanism, seed, on_round=None, **options):
            def on_round_too(*state):
                if on_round is not None:  # not the run that only warms up
                    mark()
                    on_round(*state)

            return original(experiment, mechanism, seed, on_round_too, **options)

        store.run = marked
        run_all(specs, Store(Path(folder)), every=1)

    while True:
        child, ours = fork(all_of_them)
        kill_sometime(child, ours, chance.randint(1, 3), chance.random() * 0.02)
        if ended(child, ours):
            return kills
        kills += 1


if __name__ == "__main__":
    call = json.loads(sys.argv[1])
    experiments = [
        Experiment(**{k: tuple(v) if isinstance(v, list) else v for k, v in e.items()})
        for e in call["experiments"]
    ]
    if call["what"] == "run":
        kills = kill_a_run(experiments[0], call["mechanism"], call["folder"], call["kills"], call["seed"])
    else:
        specs = [Spec(e, mechanism, 1) for e in experiments for mechanism in call["mechanisms"]]
        kills = kill_a_store(specs, call["folder"], call["seed"])
    print(kills)
