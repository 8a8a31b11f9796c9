"""What every section of ``model.yaml`` is built from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
Size = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
