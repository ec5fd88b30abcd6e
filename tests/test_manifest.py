"""Manifests that are damaged or hostile: one line, whoever reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensorgraph import manifest
from tensorgraph.cli import main
from tensorgraph.errors import PackageError
from tensorgraph.manifest import read_manifest
from tensorgraph.model.loading import load_package

HEAD = '{"name": "p", "spec_digest": "d", "basis": '
WRONG = {
    "nested lists": (HEAD + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "nested objects": (HEAD + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}", "nested too deeply"),
    "no end": (HEAD + "[" * 100_000, "nested too deeply|not valid JSON"),
    "NaN": (HEAD + "NaN}", "NaN is not a finite number"),
    "too large": (HEAD + "1e999}", "1e999 is not a finite number"),
    "too long": (HEAD + "9" * 10_000 + "}", "not valid JSON"),
    "twice": ('{"name": "p", "name": "q", "spec_digest": "d"}', "'name' is given twice"),
    "a list": ("[]", "lacks name or spec_digest"),
    "no name": ('{"name": 3, "spec_digest": "d"}', "lacks name or spec_digest"),
    "no UTF-8": (b"\xff\xfe{}", "not valid JSON"),
    "empty": ("", "not valid JSON"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_every_reader_says_so_in_one_line(content, said, tmp_path: Path, capsys):
    (tmp_path / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "__init__.py").touch()
    for read in (read_manifest, load_package):
        with pytest.raises(PackageError, match=said) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    assert main(["verify", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(PackageError, match="not a regular file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(PackageError, match="No such file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(PackageError, match="not a regular file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").rmdir()
    (tmp_path / "manifest.json").write_text(HEAD + "1}")
    monkeypatch.setattr(manifest, "MAX_BYTES", 20)
    with pytest.raises(PackageError, match="more than 20 bytes"):
        read_manifest(tmp_path)
