"""What a small JSON file holds: written whole, and checked as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pricer.errors import SetupError
from pricer.files import write_whole

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Fields that a file must have, of their kinds, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    damaged: ClassVar[str]  # the sentence on a file that cannot be used, for its {path} and the {reason}

    def save(self, path: Path | str) -> Path:
        text = self.model_dump_json(indent=1, exclude_none=True) + "\n"
        return write_whole(Path(path), lambda aside: aside.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls: type[R], path: Path | str) -> R:
        """Raises SetupError, one sentence that names the file, when it is damaged or holds something else."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            reason = error.strerror or str(error)
        except ValidationError as error:
            reason = complaint(error)
        raise SetupError(cls.damaged.format(path=path, reason=reason))


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong, on one line, behind where it stands."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}".replace("\n", " ")
