"""What every section of a recipe has in common, and the ranges that several share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""More fits neither a tensor's length nor what most servers take."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""More is infinite once a few are multiplied."""


def _divides(value: float) -> float:
    if 0 < value < 1e-3:
        raise ValueError("Input should be 0 or at least 0.001")
    return value


Divisor = Annotated[float, AfterValidator(_divides)]
"""What is divided by: by less, all would be infinite."""


class Section(BaseModel):
    """Base of every recipe section: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def off(value: object) -> object:
    """What stands for `off`: YAML reads the bare word as False."""
    return "off" if value is False else value
