"""One small valid policy of each family, and how the tests change and check them."""

import pytest

from guardrail.errors import PolicyError
from guardrail.policy import parse_policy

HEAD = "schema: guardrail/v1\nname: p\ndescription: d\n"
DOCUMENTS = {
    "logistic": HEAD
    + """context:
  temp: {type: number, optional: true}
  phi: {type: list, length: 3}
action:
  tool: string
  count: integer
  dry: bool
features:
  temp: context.temp
hypotheses:
  family: bernoulli-logistic
  intercept: {lower: -5, upper: 5, points: 11, sd: 2}
  coefficients:
    temp: {lower: 0, upper: 3, points: 11, sd: 1}
outcome: {name: bad, type: bool}
harm: outcome.bad
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.2, escalate_above: 0.1}
rules:
  - when: '!has(context.temp)'
    decide: reject
    reason: no temperature
""",
    "table": HEAD
    + """action: {kind: string}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: a, rates: {x: 0.1, y: 0.2}}
    - {name: b, rates: {x: 0.3, y: 0.4}}
outcome: {name: bad, type: bool}
harm: outcome.bad
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "normal-table": HEAD
    + """hypotheses:
  family: finite-table
  table:
    - {name: a, normal: {mean: 0, sd: 1}}
    - {name: b, normal: {mean: 1, sd: 1}}
outcome: {name: t, type: number}
harm: outcome.t > 3.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "beta": HEAD
    + """action: {kind: string}
hypotheses:
  family: beta-bernoulli
  category: action.kind
  categories: [x, y]
  prior: {a: 1, b: 1}
outcome: {name: bad, type: bool}
harm: outcome.bad
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "lattice": HEAD
    + """context: {phi: {type: list, length: 3}}
features: {phi: context.phi}
hypotheses: {family: linear-gaussian-lattice, levels: 2, noise_sd: 1}
outcome: {name: t, type: number}
harm: outcome.t > 3.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "linear": HEAD
    + """context: {phi: {type: list, length: 3}}
features: {phi: context.phi}
hypotheses: {family: gaussian-linear, noise_sd: 1, prior: {sd: 5}, box: {lower: -1, upper: 1}}
outcome: {name: t, type: number}
harm: outcome.t > 3.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "hidden": HEAD
    + """action: {kind: string}
hypotheses:
  family: hidden-markov
  category: action.kind
  table:
    - name: a
      initial: [0.5, 0.5]
      transitions: {x: [[0.9, 0.1], [0, 1]], y: [[1, 0], [0, 1]]}
      rates: [0.1, 0.6]
    - {name: b, initial: [1], transitions: [[1]], rates: {x: [0.2], y: [0.3]}}
outcome: {name: bad, type: bool}
harm: outcome.bad
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "mdp": HEAD
    + """context: {at: integer}
action: {move: integer}
features: {state: context.at, action: action.move}
hypotheses:
  family: finite-mdp
  horizon: 3
  default_policy: [0, 1, 0]
  terminal: [0]
  mixture:
    kernels:
      near: [[0, 1], [0, {1: 0.5, 2: 0.5}], [2, 2]]
      far: [[0, 2], [1, 2], [2, 2]]
    weights: {far: {lower: 0, upper: 0.5, points: 6}}
    rest: near
outcome: {name: at, type: integer, count: 3}
harm: outcome.at == 2
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
    "mdp-table": HEAD
    + """context: {at: integer}
action: {move: integer}
features: {state: context.at, action: action.move}
hypotheses:
  family: finite-mdp
  horizon: 1
  table:
    - {name: a, kernel: [[0, 1], [1, 1]]}
    - {name: b, kernel: [[0, 0], [0, 1]]}
outcome: {name: at, type: integer, count: 2}
harm: outcome.at == 1
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
""",
}


def _edited(name, *edits):
    text = DOCUMENTS[name]
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="session")
def documents():
    """Name to the text of a valid policy."""
    return DOCUMENTS


@pytest.fixture(scope="session")
def edited():
    """edited(name, (old, new), ...) -> the text with each old part replaced."""
    return _edited


@pytest.fixture(scope="session")
def policy():
    """policy(name, (old, new), ...) -> the compiled policy."""
    return lambda name, *edits: parse_policy(_edited(name, *edits), "p.yaml")


@pytest.fixture(scope="session")
def problems():
    """problems(name, (old, new), ...) -> everything wrong, as text."""

    def find(name, *edits):
        text = _edited(name, *edits) if name in DOCUMENTS else name
        with pytest.raises(PolicyError) as caught:
            parse_policy(text, "p.yaml")
        assert caught.value.problems
        return [str(problem) for problem in caught.value.problems]

    return find
