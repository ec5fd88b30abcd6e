"""Reading the manifest of a generated package: strict JSON of bounded size, or a PackageError in one line."""

import json
import math
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from tensorgraph.errors import PackageError

MANIFEST = "manifest.json"
MAX_BYTES = 2**26
_IDENTITY = ("name", "spec_digest")


def read_manifest(directory: str | Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The manifest of the generated package in `directory`.

    Raises PackageError where there is none: no such file, more than `MAX_BYTES`, no UTF-8, JSON that is invalid or
    nested too deeply, a key given twice, a number that is not finite, or no value for `name`, `spec_digest` or one of
    `keys`.
    """
    path = Path(directory) / MANIFEST
    try:
        manifest = _parsed(_content(path))
        if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), str) for key in _IDENTITY):
            raise ValueError(f"it lacks {' or '.join(_IDENTITY)}")
        if missing := sorted(set(keys) - manifest.keys()):
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PackageError(f"{directory} is not a generated package: {MANIFEST}: {reason}") from None
    return manifest


def _content(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise ValueError("not a regular file")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return content


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    except ValueError as error:  # no UTF-8 either
        raise ValueError(f"not valid JSON: {error}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:40]!r} is given twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text[:40])
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")
