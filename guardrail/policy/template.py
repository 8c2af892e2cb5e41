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
)
FILES = ("policy.yaml", "suite.yaml", "README.md")
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
    return {file: (folder / file).read_text(encoding="utf-8").replace("{{name}}", name) for file in FILES}
