"""What the theorems say: pure functions of arrays, one theorem a file.

"The paper" is Bengio et al., "Can a Bayesian Oracle Prevent Harm from an Agent?" (UAI 2025), with
its proposition numbers.

What each function computes, and what proves it:

| function        | what it computes                                      | source                                     |
|-----------------|-------------------------------------------------------|--------------------------------------------|
| `predictive`    | mean harm under the posterior                         | Bayes' rule                                |
| `iid`           | harm of argmax of posterior * harm                    | the paper, Propositions 3.1, 3.3           |
| `plausible_set` | longest prefix with P >= alpha * cumulated P          | the paper, equation 7, Prop. 4.2, 4.4      |
| `plausible`     | largest harm over `plausible_set`                     | the paper, Proposition 4.5                 |
| `ratio_set`     | posterior >= delta * prior                            | Waudby-Smith and Ramdas 2020; Lemma 4.1    |
| `ratio`         | largest harm over `ratio_set`                         | the same                                   |
| `weak`          | sup of posterior * harm / (delta * prior), may be > 1 | the paper, Proposition 4.3                 |
| `set_bound`     | largest harm over a set; 1 if it is empty             | the paper, Proposition 4.5                 |
| `intersect`     | running intersection of sets                          | Ville's inequality                         |
| `is_refuted`    | whether a set is empty                                | Ville's inequality                         |

`predictive` promises nothing. `iid` is asymptotic and for i.i.d. data only. The others hold for arbitrary
data, at all times at once, with probability 1 - delta: `plausible` if alpha <= delta * P(truth), the
ratio bounds without knowing P(truth). An empty running intersection refutes the class at level delta.

Every guarantee supposes that the truth is a member of the class. Everything fails closed: NaN or +inf
in a posterior or prior, or a posterior that is not one, bounds every action by 1; a harm column that
holds anything but probabilities bounds its action by 1; an empty set bounds every action by 1.

Arguments may be NumPy arrays, JAX arrays or lists of any float format; results are float64 (or bool),
computed in 64-bit mode whatever the host program's JAX configuration, which is not changed. A plain
call returns a `jax.Array`; in a program without 64-bit mode, where JAX would round it to float32 in the
next operation, a float result is a NumPy array. All functions work under `jax.vmap` and inside
`jax.jit`, with traced `alpha`, `delta` and `slack` too (a traced value out of range leaves nothing out).
Call them there inside `jax.enable_x64(True)`: a caller's jit without 64-bit mode rounds its arguments to
float32 before the bound sees them (the slack of membership grows accordingly) and may round what
is computed from the result.
"""

from guardrail.bounds.iid import iid
from guardrail.bounds.plausible import plausible, plausible_set
from guardrail.bounds.predictive import predictive
from guardrail.bounds.ratio import ratio, ratio_set
from guardrail.bounds.running import intersect, is_refuted
from guardrail.bounds.sets import set_bound
from guardrail.bounds.weak import weak

__all__ = [
    "iid",
    "intersect",
    "is_refuted",
    "plausible",
    "plausible_set",
    "predictive",
    "ratio",
    "ratio_set",
    "set_bound",
    "weak",
]
