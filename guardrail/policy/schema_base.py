"""What every part of a policy's schema is made of."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MAX_CATEGORIES = 1_000_000
MAX_EXPRESSION_LENGTH = 2_000

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="lower-case letters, digits and hyphens")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", description="letters, digits, underscores")]
Expression = Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION_LENGTH, description="a CEL expression")]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
OpenProbability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
CategoryKey: TypeAlias = str | int


class Model(BaseModel):
    """Every part of a policy: frozen, and unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CategoryCount(Model):
    """Integer categories 0, ..., count - 1."""

    count: Annotated[int, Field(ge=1, le=MAX_CATEGORIES)]
