"""What a model wrote -> an answer that the schema allows, or none."""

from typing import Any

import jsonschema_rs
import orjson


class Judge:
    """Reads answers of one task."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile the task's output_schema."""
        self.is_valid = jsonschema_rs.validator_for(schema).is_valid

    def read(self, raw: str, finished: bool) -> dict[str, Any]:
        """Return "output" (None where the schema does not allow it, or it was cut off), "raw" and "valid"."""
        try:
            output = orjson.loads(raw) if finished else None
        except orjson.JSONDecodeError:
            output = None
        good = output is not None and self.is_valid(output)
        return {"output": output if good else None, "raw": raw, "valid": good}
