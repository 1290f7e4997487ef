"""Keeps numpy's linear algebra on one thread.

The encoder multiplies small matrices (a sentence has a dozen tokens). OpenBLAS spreads even those over all cores and
then waits for the slowest in a busy loop: on two cores that others use too, 68 texts/s were measured, against 590 on
one thread. One thread also adds in one order, whatever the number of cores: the same vector on a laptop and a server
with the same kind of processor.
"""

import ctypes
from pathlib import Path
from typing import Final

import numpy as np

#: Names under which OpenBLAS exports the setter: in numpy's wheels, in 32-bit and unprefixed builds.
_SETTERS: Final = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def use_one_thread() -> bool:
    """Set the OpenBLAS that numpy brought to one thread, for the whole process; return whether one was found.

    Nothing else in EvoSense uses linear algebra. Where numpy was built against another library nothing happens: its
    own environment variable (such as MKL_NUM_THREADS) does the same.
    """
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs")
    for library in sorted(path for folder in folders for path in folder.glob("*openblas*")):
        try:
            handle = ctypes.CDLL(str(library))  # numpy has loaded it already: this is the same copy
        except OSError:
            continue
        for name in _SETTERS:
            setter = getattr(handle, name, None)
            if setter is not None:
                setter.argtypes, setter.restype = (ctypes.c_int,), None
                setter(1)
                return True
    return False
