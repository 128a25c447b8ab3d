"""The best one-to-one assignment, by SciPy's compiled solver (Crouse 2016, doi 10.1109/TAES.2016.140952).

Knows nothing of tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

import numpy as np
import numpy.typing as npt

Solver = Callable[..., tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]


def _solver() -> Solver:
    """``scipy.optimize.linear_sum_assignment``, without the rest of that package.

    The solver is a file of its own that needs NumPy alone. The rest takes more of a start than anything
    else that ``lookout watch`` loads; it is loaded only if SciPy no longer keeps the solver where it did.
    """
    package = PathFinder.find_spec("scipy")
    folders = [f"{folder}/optimize" for folder in (package and package.submodule_search_locations) or ()]
    alone = PathFinder.find_spec("_lsap", folders)
    if alone is not None and alone.loader is not None:
        module = module_from_spec(alone)
        alone.loader.exec_module(module)
        if hasattr(module, "linear_sum_assignment"):
            solver: Solver = module.linear_sum_assignment
            return solver
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment


linear_sum_assignment = _solver()
