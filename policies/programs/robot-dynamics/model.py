"""A small neural network that predicts by how much a robot arm misses its path, with an uncertain last layer.

The hidden layer was fitted on another arm of the same make (hidden_layer.json) and is taken as known. What is unknown
of this arm are the weights of the last layer and the noise.
"""

import json
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

HIDDEN = 6


class Deviation(torch.nn.Module):
    """Speed (m/s), load (kg) and reach (m) to HIDDEN features, scaled to about 1."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(3, HIDDEN)
        fitted = json.loads(Path(__file__).with_name("hidden_layer.json").read_text())
        self.load_state_dict({f"hidden.{name}": torch.tensor(values) for name, values in fitted.items()})

    def forward(self, state):
        return torch.nn.functional.softplus(self.hidden(state))


network = Deviation()


def arm(inputs):
    weights = pyro.sample("weights", dist.LogNormal(-4.5, 0.7).expand([HIDDEN]).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(-4.0, 0.3))
    state = torch.stack([inputs["speed"], inputs["load"] / 5.0, inputs["reach"]])
    deviation = (network(state) * weights).sum()
    pyro.sample("deviation", dist.Normal(deviation, noise))
