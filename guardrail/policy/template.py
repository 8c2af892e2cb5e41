"""Working, commented policies to start from, one for each family."""

from __future__ import annotations

import re
from importlib import resources

FAMILIES = (
    "bernoulli-logistic",
    "beta-bernoulli",
    "finite-mdp",
    "finite-table",
    "gaussian-linear",
    "hidden-markov",
    "linear-gaussian-lattice",
    "numpyro",
    "pyro",
)
PROGRAMS = ("numpyro", "pyro")
FILES = ("policy.yaml", "suite.yaml", "README.md")
MODEL = "model.py"
"""The further file of a family in PROGRAMS."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def template(name: str, family: str) -> dict[str, str]:
    """The files of a new policy: file name to text.

    Args:
        name: the new policy's name: lower-case letters, digits and hyphens.
        family: one of `FAMILIES`.

    :raises ValueError: if the name is not a policy name, or the family is unknown.
    """
    if not _NAME.fullmatch(name) or name in ("true", "false", "null"):
        raise ValueError(
            f"{name!r} is not a policy name: use lower-case letters, digits and hyphens, starting with a letter, "
            "and no word that YAML reads otherwise"
        )
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
    folder = resources.files("guardrail.policy") / "templates" / family
    sources = {file: file for file in FILES}
    if family in PROGRAMS:
        sources[MODEL] = f"{MODEL}.txt"  # not a module of this package
    return {
        file: (folder / source).read_text(encoding="utf-8").replace("{{name}}", name)
        for file, source in sources.items()
    }
