"""Text from programs: the files of a generated package, deterministic to the byte."""

from tensorgraph.emit.package import emit_package
from tensorgraph.emit.runtime import refresh_package
from tensorgraph.emit.writing import PackageText, check_package, write_package

__all__ = ["PackageText", "check_package", "emit_package", "refresh_package", "write_package"]
