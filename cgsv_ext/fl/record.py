"""What is kept of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _files
from .experiment import Experiment

_FORMAT = "cgsv_ext.fl.Run 1"


@dataclass(eq=False)
class Run:
    """All that happened in one run, with N agents (adversaries included) and T rounds.

    NaN stands for what a mechanism does not have. Losses and accuracies are on clean test data unless
    they say otherwise.
    """

    experiment: Experiment
    mechanism: str
    seed: int
    parameters: Tensor
    """(N, D) float32: w_{i,T}; (N, 0) in a run out of a store, which keeps no models."""
    server: Tensor
    """(D,) float32: w_T; (0,) in a run out of a store."""
    histogram: Tensor
    """(N, classes) int64: how many samples of each class an agent holds, by its own labels."""
    accuracy: Tensor
    """(T, N) float64, as all below: test accuracy of each agent's model after each round."""
    loss: Tensor
    """(T, N): its test loss (mean cross-entropy)."""
    importance: Tensor
    """(T, N): r_{i,t}."""
    sparsity: Tensor
    """(T, N): the share 1 - q_{i,t}/D of the aggregate that agent i does not download."""
    distance: Tensor
    """(T, N): ‖w_{i,t} - w_t‖, from the server's model."""
    last_layer_distance: Tensor
    """(T, N): the same of the last layer alone."""
    reward_distance: Tensor
    """(T, N): ‖v_{i,t} - u_{N,t}‖, of the download from the aggregate."""
    reward_norm: Tensor
    """(T, N): ‖v_{i,t}‖."""
    shapley: Tensor
    """(T, N): φ_{i,t}, the exact values of each round's updates, where logged."""
    cosines: Tensor
    """(T, N): ψ_{i,t}, the approximate ones, where logged."""
    server_accuracy: Tensor
    """(T,): test accuracy of the server's model."""
    server_loss: Tensor
    """(T,): its test loss."""
    server_distance: Tensor
    """(T,): ‖w_t - w_0‖, how far the server's model has come from the initial one."""
    training_loss: Tensor
    """(N,): loss of w_{i,T} on all agents' training data together, with their labels."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time in all rounds of ``training``, ``reward`` (the mechanism's step) and ``download``; of
    ``shapley`` where values are logged; and of ``plain loop``, what the training would have taken agent by
    agent, where :func:`~cgsv_ext.fl.store.run_all` estimated it."""
    log_shapley: bool = False
    """Whether Shapley values were logged."""
    origin: dict[str, str] = field(default_factory=dict)
    """What else its bits depend on: ``torch``'s version, the kind of ``device``, a checksum of ``data``."""

    @classmethod
    def empty(
        cls,
        experiment: Experiment,
        mechanism: str,
        seed: int,
        parameters: Tensor,
        server: Tensor,
        histogram: Tensor,
    ) -> Run:
        """Start a record, on the device of the parameters; nothing is known yet."""
        t, n = experiment.rounds, experiment.size

        def unknown(*shape: int) -> Tensor:
            return torch.full(shape, torch.nan, dtype=torch.float64, device=parameters.device)

        histories: dict[str, Any] = {name: unknown(t, n) for name in PER_AGENT}
        histories |= {name: unknown(t) for name in PER_ROUND}
        return cls(
            experiment,
            mechanism,
            seed,
            parameters,
            server,
            histogram,
            **histories,
            training_loss=unknown(n),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def cpu(self) -> Run:
        """Move all tensors to the CPU."""
        for name, value in self.tensors().items():
            setattr(self, name, value.cpu())
        return self

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        _files.write(path, plain | {"format": _FORMAT, "experiment": asdict(self.experiment)})

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what :meth:`save` wrote: the same bits.

        Raises
        ------
        FileNotFoundError
            Where there is no file.
        ValueError
            Where the file is damaged, is something else, or comes from another version.
        """
        plain = _files.read(path)
        if not isinstance(plain, dict) or plain.pop("format", None) != _FORMAT:
            raise _files.Unreadable(f"{path}: expected a {_FORMAT}, got something else")
        try:
            run = cls(**plain | {"experiment": Experiment(**plain["experiment"])})
            run._check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _files.Unreadable(f"{path}: a run of another version ({error})") from error
        return run

    def _check(self) -> None:
        """Refuse tensors that do not fit together."""
        t, n, d = self.experiment.rounds, self.experiment.size, self.server.numel()
        shapes = {"parameters": (n, d), "server": (d,), "training_loss": (n,)}
        shapes |= dict.fromkeys(PER_AGENT, (t, n)) | dict.fromkeys(PER_ROUND, (t,))
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"expected {name} of {shape}, got {tuple(getattr(self, name).shape)}")


PER_AGENT = (
    "accuracy",
    "loss",
    "importance",
    "sparsity",
    "distance",
    "last_layer_distance",
    "reward_distance",
    "reward_norm",
    "shapley",
    "cosines",
)
"""The fields of a run that have a value for every round and agent."""

PER_ROUND = ("server_accuracy", "server_loss", "server_distance")
"""Those that have one for every round."""
