"""The experiments, with every setting in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Experiment:
    """One federation and how it learns."""

    name: str
    """Short, for file names."""
    title: str
    about: str
    """What is done and what should come of it, in a sentence or two."""
    agents: int
    """N."""
    partition: str
    """A name in ``PARTITIONS``."""
    traits: tuple[str, ...]
    """What sets each agent apart, for the legends: one entry per agent."""
    rounds: int
    """T."""
    steps: int
    """Local steps of SGD an agent takes in a round."""
    lr: float
    """Learning rate of the local steps."""
    gamma: float
    """Γ of equation (1): the length every update is normalised to."""
    batch_size: int = 32
    alpha: float = 0.95
    """α of equation (4)."""
    beta: float = 1.0
    """β of equation (5), the degree of altruism."""
    samples: int | None = None
    """Samples per agent on average; None for all there are."""
    noise: tuple[float, ...] | None = None
    """Share of corrupted labels of each agent; None for none."""
    widths: tuple[int, ...] = (64, 64, 10)
    """Of the multilayer perceptron: inputs, hidden units, outputs."""
    order: tuple[tuple[int, ...], ...] | None = None
    """Agents (from 0) from the most to the least valuable, equals together, where it is known beforehand."""
    rho: float = 0.0
    """The mean fairness CGSV is expected to reach."""

    @property
    def agent_names(self) -> list[str]:
        """A1 to AN."""
        return [f"A{i + 1}" for i in range(self.agents)]


FIGURE_2 = Experiment(
    name="label_noise",
    title="Label noise, 5 agents",
    about="The paper's Figure 2. Five agents hold equally many images, but 20, 40 and 60 % of the labels "
    "of the first three are wrong. The more wrong labels, the less an agent should matter, the sparser its "
    "downloads should be and the further its model should stay from the server's.",
    agents=5,
    partition="UNI",
    noise=(0.2, 0.4, 0.6, 0.0, 0.0),
    traits=("20 % noise", "40 % noise", "60 % noise", "clean", "clean"),
    rounds=60,
    steps=5,
    lr=0.1,
    gamma=0.2,
    order=((3, 4), (0,), (1,), (2,)),
    rho=90.0,
)

CLA_10 = Experiment(
    name="classes",
    title="Imbalanced classes, 10 agents",
    about="The paper's CLA partition. Ten agents hold 120 images each; the first knows one digit, the "
    "second two, the last all ten. The more digits an agent knows, the more it should matter and the better "
    "the model it should end with.",
    agents=10,
    partition="CLA",
    samples=120,
    traits=("1 class", *(f"{k} classes" for k in range(2, 11))),
    rounds=40,
    steps=60,
    lr=0.3,
    gamma=0.5,
    rho=80.0,
)

DEMO = (FIGURE_2, CLA_10)
"""What ``cgsv demo`` runs."""
