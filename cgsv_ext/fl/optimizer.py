"""The agents' local optimizers: ``torch.optim``'s, with their state in the rows of matrices like the models.

The paper does not say whether an agent's optimizer remembers anything from one round to the next; here it
does, as in the authors' release: the local training is undone after every round, Adam's moments and its
count of steps are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .model import Model


class Optimizer(ABC):
    """The optimizers of N agents, who need not all take the same number of steps.

    Parameters
    ----------
    model : Model
        The architecture.
    parameters : Tensor
        (N, D), written in place.
    """

    def __init__(self, model: Model, parameters: Tensor) -> None:
        self.model = model
        self.parameters = parameters
        self.state: dict[str, Tensor] = {}
        """What is remembered, one row per agent."""

    @abstractmethod
    def step(self, agents: Sequence[int] | None, gradients: Sequence[Tensor], lr: float) -> None:
        """One step of some agents; the others do not move.

        Parameters
        ----------
        agents : sequence of int or None
            The K who step; None for all.
        gradients : sequence of Tensor
            Of each parameter, with K as first dimension.
        lr : float
            The learning rate.
        """

    @abstractmethod
    def one(self, agent: int, module: nn.Module, lr: float, steps: int) -> torch.optim.Optimizer:
        """Agent i's own, over its module's parameters, to take that many steps."""

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all that is remembered."""
        return {name: value.clone() for name, value in self.state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Remember what :meth:`state_dict` gave."""
        for name, value in state.items():
            self.state[name].copy_(value)


class SGD(Optimizer):
    """``torch.optim.SGD``: w -= lr · gradient."""

    def __init__(self, model: Model, parameters: Tensor) -> None:
        super().__init__(model, parameters)
        self._layers = model.layers(parameters)

    @torch.no_grad()
    def step(self, agents: Sequence[int] | None, gradients: Sequence[Tensor], lr: float) -> None:
        """One step of some agents: w -= lr · gradient."""
        rows = None if agents is None else torch.tensor(agents, device=self.parameters.device)
        for layer, gradient in zip(self._layers, gradients, strict=True):
            if rows is None:
                layer.sub_(gradient, alpha=lr)
            else:
                layer.index_add_(0, rows, gradient, alpha=-lr)

    def one(self, agent: int, module: nn.Module, lr: float, steps: int) -> torch.optim.Optimizer:
        """Agent i's own."""
        return torch.optim.SGD(module.parameters(), lr)


class Adam(Optimizer):
    """``torch.optim.Adam`` with β = (0.9, 0.999) and ε = 1e-8; all rows in one fused call."""

    def __init__(self, model: Model, parameters: Tensor) -> None:
        super().__init__(model, parameters)
        self.state = {
            "step": torch.zeros(len(parameters), device=parameters.device),
            "exp_avg": torch.zeros_like(parameters),
            "exp_avg_sq": torch.zeros_like(parameters),
        }
        self._rows = [row.detach() for row in parameters]
        self._adam = torch.optim.Adam(self._rows, fused=True)
        for i, row in enumerate(self._rows):
            self._adam.state[row] = {name: value[i] for name, value in self.state.items()}

    def step(self, agents: Sequence[int] | None, gradients: Sequence[Tensor], lr: float) -> None:
        """One step of some agents: torch.optim leaves rows without a gradient, and their state, alone."""
        flat = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
        self._adam.param_groups[0]["lr"] = lr
        for i, gradient in zip(range(len(flat)) if agents is None else agents, flat, strict=True):
            self._rows[i].grad = gradient
        self._adam.step()
        self._adam.zero_grad()

    def one(self, agent: int, module: nn.Module, lr: float, steps: int) -> torch.optim.Optimizer:
        """Agent i's own, whose moments are views of the rows here."""
        adam = torch.optim.Adam(module.parameters(), lr)
        taken = self.state["step"][agent]
        first, second = (self.model.layers(self.state[name][agent]) for name in ("exp_avg", "exp_avg_sq"))
        for parameter, *moments in zip(module.parameters(), first, second, strict=True):
            own = {"exp_avg": moments[0], "exp_avg_sq": moments[1]}
            # Unfused, torch.optim counts steps on the CPU.
            adam.state[parameter] = {"step": taken.cpu().clone(), **own}
        taken += steps
        return adam


OPTIMIZERS: dict[str, type[Optimizer]] = {"SGD": SGD, "Adam": Adam}
"""By the name in ``Experiment.optimizer``."""
