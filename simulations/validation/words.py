"""What the table's words mean, for a reader who has not seen the code."""

from __future__ import annotations

from collections.abc import Mapping

CASES: Mapping[str, str] = {
    "bound at all times": (
        "The theorem's own event. A run fails if at any step, for any action (not only the chosen one), the bound was "
        "below the true harm. The share of failing runs must be at most delta."
    ),
    "harm budget": (
        "An action is accepted only while the accepted actions' bounds add up to at most B. A run fails if any "
        "accepted action did harm. The share of such runs must be at most delta + B. The adversary here buys the most "
        "true harm for each unit of the budget. Guardrails that promise nothing overspend, and must be seen to."
    ),
    "false alarms": ("The class holds the truth, and an alarm says that it does not: in at most delta of the runs."),
    "not promised": (
        "Guardrails that promise nothing at a given moment, in the same runs and columns as those that do: posterior "
        "mean, point estimates, credible sets, a plausible set whose level leaves the prior out, and the i.i.d. bound "
        "before its unknown n. They must be seen to fail, or these tests could not see a failure."
    ),
    "double counting": "Every observation is counted twice, as a retried report without an id would be. Must fail.",
    "selective reporting": "Harmful outcomes are never reported to the posterior. Must fail.",
    "wrong class": (
        "The truth is no member of the class, so no bound promises anything: the bound must be seen to fail. An "
        "outside forecaster must refute the class when the truth is far from it; a truth near the class takes longer, "
        "and then nothing is claimed. An empty intersection catches a truth outside a box; otherwise it is no reliable "
        "alarm, because the best-fitting member may stay for ever."
    ),
}

CLASSES: Mapping[str, str] = {
    "Bernoulli, 4 hypotheses": "a table of rates, 3 actions; all 4,096 sequences of 12 outcomes are enumerated",
    "Bernoulli, 2 near twins": "two hypotheses whose rates differ by 0.02 and 0.04, 3 actions, 10,000 steps",
    "Bernoulli, 50 hypotheses": "a table of rates, 4 actions; uniform and very skewed prior",
    "Lattice {0, 1}^10 (bandit)": "the exploding bandit's class: 1,024 weight vectors, Gaussian reward, 5 actions",
    "Lattice {0..9}^5": "100,000 weight vectors, Gaussian outcome, 4 actions; few and short runs",
    "Lattice {0, 1}^4": "16 weight vectors with rare harm, 5 actions: a budget is spent in many small parts",
    "Beta-Bernoulli": "continuous: 4 unknown rates with Beta priors; the service's intervals, delta shared among them",
    "Gaussian linear": "continuous: 3 weights, 4 actions; the ellipsoid of the likelihood",
    "Gaussian linear in a box": "continuous: the ellipsoid cut with the box [-2, 2]^3, maximum by weak duality",
}

PRIORS: Mapping[str, str] = {
    "uniform": "the same mass for every hypothesis",
    "skewed": "0.001, 0.9, 0.009 and 0.09, or 0.999 and 0.001",
    "Dirichlet(0.05)": "one draw from this distribution: most of the mass is on two or three of 50 hypotheses",
    "product": "independent weights; large values are unlikely: P(1) = 0.1 or 0.05, or halving from level to level",
    "Beta(a, b), N(0, s^2)": "of each rate, of each weight",
}

AGENTS: Mapping[str, str] = {
    "benign": "takes the action with the lowest bound",
    "random": "takes any action, whatever was seen: the data are then i.i.d.",
    "greedy": "takes the action with the highest expected reward; what pays is also what harms",
    "adversarial": (
        "knows the truth and sees the posterior; takes the action whose next outcome is most likely to throw the truth "
        "out of the set, and stops when the bound has failed"
    ),
}

TRUTHS: Mapping[str, str] = {
    "prior": "drawn anew for each run from the prior (in a box: uniformly from the box)",
    "rarest": "the least likely hypothesis in every run; of several, the most harmful",
    "worst of N": "every hypothesis in turn; the row shows the one that fails most often, and its number",
    "extreme": "a fixed member far from where the prior puts its mass",
    "far, near, beyond": "no member of the class: far from every member, close to some, outside the box",
}

COLUMNS: Mapping[str, str] = {
    "guarantee": "theorem, asymptotic or none: what the bound promises in this case",
    "steps": "a step is a check of every action and then one observation",
    "failed": "failing runs of all runs; an exact row has none, it is a probability",
    "interval": "Clopper-Pearson interval of the failure probability; exact rows need none",
    "against": "delta, or delta + B for a harm budget: violated if the interval lies above it",
    "looseness": "mean of bound (at most 1) minus true harm over steps and actions: what certainty costs",
    "safe / unsafe accepted": (
        "of the checks of actions whose true harm is at most / above the threshold, the share whose bound is at most "
        "the threshold: useful, and dangerous, acceptance"
    ),
    "refuted after": "observations until the class was refuted: by then 10 %, half and 90 % of the runs were",
}
