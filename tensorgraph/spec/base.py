"""What every document and every section of one is made of: strict models, and words for what a key may hold."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from tensorgraph.spec.names import Names


@dataclass(frozen=True)
class Allowed:
    """What a key may hold, in the words that an error message ends with; names may be added to while a process runs."""

    words: str | Names

    @property
    def text(self) -> str:
        """The words."""
        return str(self.words)


class SpecModel(BaseModel):
    """Frozen, and strict: no unknown keys, no conversions, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def refused(wrong: str, *at: str | int, sibling: str = "") -> PydanticCustomError:
    """What a validator raises: `wrong` follows the name of the key `at` these keys below the value that it validates.

    `sibling` is the key beside it whose line counts where the key itself is not given.
    """
    hints = {"at": at, "sibling": sibling, "wrong": wrong}  # `wrong` last: what is in braces in it stays as it is
    return PydanticCustomError("spec_value", "{wrong}", hints)
