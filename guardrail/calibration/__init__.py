"""Promises against outcomes: pure functions of numbers, valid at all times at once, whatever the order of looking.

| function           | what it says                                            | source                             |
|--------------------|---------------------------------------------------------|------------------------------------|
| `evidence.update`  | evidence that harm is more frequent than bounds allow   | Howard et al. 2020                 |
| `evidence.is_alarm`| whether it has reached 1 / alpha                        | Ville's inequality                 |
| `residuals.update` | running means of harm and of predicted harm             | arithmetic                         |
| `residuals.radius` | confidence sequence for the difference of the two means | Howard et al. 2021, Theorem 4      |

Each state goes in and comes out: `init() -> state`, `update(state, ...) -> (state, one value for each outcome)`. The
state after N outcomes is the same, bit for bit, however they were cut into batches, so the functions serve a log that
is read once and a service that learns of one outcome at a time.

What both suppose: bounds and predictions were fixed before their outcomes, and outcomes are reported whatever they
were. Outcomes that are withheld because of their value make these numbers mean nothing.
"""

from guardrail.calibration import evidence, residuals

__all__ = ["evidence", "residuals"]
