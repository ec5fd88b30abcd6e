"""What runs every potential: operators with derivatives of every order, C libraries, and the base class of models.

A package of this repository, and a part of every generated package: `tensorgraph build` copies these files, byte for
byte, into the folder `_runtime/` beside what it prints for a spec. Nothing here knows a spec: sizes are arguments, and
printed programs are found by the name of the package that they stand in. It needs torch and the standard library alone;
modules of Triton kernels (`…_triton.py`, `launching.py`) are imported when a GPU asks for them. Imports are relative,
so that a package with its copy of the runtime can stand anywhere.

Do not edit a copy in a package: `tensorgraph refresh PACKAGE` replaces it by the one of the installed tensorgraph.
"""

INTERFACE = 3
"""Counts the changes after which files that were printed for an earlier runtime do not work with this one."""
