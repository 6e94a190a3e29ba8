"""Settings of the process: backend, threads, algorithms, seed, type of numbers.

Environment: ``FASTNN_BACKEND`` (auto, native, numba, numpy), ``FASTNN_NUM_THREADS``, ``FASTNN_ISA`` (base, avx2,
avx512, neon), ``FASTNN_WINOGRAD`` (1, 0).
"""

from __future__ import annotations

import os
import platform
import sys
from types import ModuleType
from typing import Any

import numpy as np

from fastnn import backends
from fastnn.configurable import whole
from fastnn.version import __version__

_backend: ModuleType | None = None
_winograd: bool | None = None
_engine: tuple[ModuleType, bool] | None = None  # what `engine` returns, until the backend or the algorithms change
_engines: dict[tuple[ModuleType, bool], tuple[ModuleType, bool]] = {}
_floatx = "float32"
_seed: int | None = None
_models = 0


def set_backend(name: str) -> None:
    """Choose what runs models that are compiled or called from now on.

    Args:
        name: "auto" (the first that works of the following), "native" (C), "numba" or "numpy"

    Raises:
        ValueError: the name is unknown, or that backend cannot run here; the message says why

    Example:
        >>> import fastnn
        >>> fastnn.config.set_backend("numpy")
        >>> fastnn.config.backend()
        'numpy'
        >>> fastnn.config.set_backend("auto")
    """
    global _backend, _engine
    if name == "auto":
        _backend, _engine = _first_that_works(), None
        return
    if name not in backends.NAMES:
        raise ValueError(f"set_backend: name must be one of auto, {', '.join(backends.NAMES)}. Received: name={name!r}")
    module = backends.load(name)
    reason = module.why_not()
    if reason is not None:
        raise ValueError(f"set_backend: {name} cannot run here: {reason}. Received: name={name!r}")
    _backend, _engine = module, None


def backend() -> str:
    """The name of the backend in use."""
    return str(active_backend().NAME)


def active_backend() -> ModuleType:
    """The module of the backend in use."""
    if _backend is None:
        set_backend(os.environ.get("FASTNN_BACKEND") or "auto")
    assert _backend is not None
    return _backend


def set_winograd(allowed: bool) -> None:
    """Let convolutions be computed by Winograd's algorithm where it is faster, or forbid it, in models that are trained
    or asked from now on.

    It makes several times fewer multiplications. Its rounding errors are a few times those of direct summation and
    below 1e-5 of the largest output. The default is yes, unless ``FASTNN_WINOGRAD`` is 0.

    Args:
        allowed: True or False

    Example:
        >>> import fastnn
        >>> fastnn.config.set_winograd(False)
        >>> fastnn.config.winograd()
        False
        >>> fastnn.config.set_winograd(True)
    """
    global _winograd, _engine
    if not isinstance(allowed, bool | np.bool_):
        raise TypeError(f"set_winograd: allowed must be True or False. Received: allowed={allowed!r}")
    _winograd, _engine = bool(allowed), None


def winograd() -> bool:
    """Whether Winograd's algorithm may be used."""
    if _winograd is None:
        given = os.environ.get("FASTNN_WINOGRAD") or "1"
        if given not in ("0", "1"):
            raise ValueError(f"FASTNN_WINOGRAD: must be 0 or 1. Received: {given!r}")
        set_winograd(given == "1")
    assert _winograd is not None
    return _winograd


def engine() -> tuple[ModuleType, bool]:
    """The backend in use and whether Winograd's algorithm may be: always the same object for the same two."""
    global _engine
    if _engine is None:
        pair = active_backend(), winograd()
        _engine = _engines.setdefault(pair, pair)
    return _engine


def _first_that_works() -> ModuleType:
    for name in backends.NAMES:
        module = backends.load(name)
        if module.why_not() is None:
            return module
    raise AssertionError("the numpy backend always works")


def set_num_threads(n: int) -> None:
    """Use ``n`` threads (1 to 256) in the native backend. Results do not depend on it.

    The default is ``FASTNN_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the number of CPUs this process may use.
    """
    if whole("set_num_threads", "n", n) > 256:
        raise ValueError(f"set_num_threads: n must be 1 to 256. Received: n={n}")
    native = backends.load("native")
    if native.why_not() is None:
        native.set_threads(n)


def get_num_threads() -> int:
    """Threads that the backend in use works with."""
    module = active_backend()
    return int(module.threads()) if module.NAME == "native" else 1


def set_seed(n: int) -> None:
    """Make all that follows repeatable: initial weights, shuffles, validation splits, dropout.

    Models made after this call get seeds 0, 1, 2, ... derived from ``n``, so the same program gives the same bits.

    Args:
        n: int >= 0
    """
    global _seed, _models
    _seed = whole("set_seed", "n", n, low=0)
    _models = 0


def next_seed() -> int:
    """The seed of the next model: 63 bits."""
    global _models
    if _seed is None:
        return int.from_bytes(os.urandom(8), "little") >> 1
    _models += 1
    words = np.random.SeedSequence([_seed, _models]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1


def set_floatx(dtype: str) -> None:
    """The type of numbers of models made from now on: "float32", or "float64" (only on the numpy backend)."""
    global _floatx
    if dtype not in ("float32", "float64"):
        raise ValueError(f"set_floatx: dtype must be 'float32' or 'float64'. Received: dtype={dtype!r}")
    _floatx = dtype


def floatx() -> str:
    """The type of numbers of new models."""
    return _floatx


def get_config() -> dict[str, Any]:
    """What ``show_config`` prints, as data."""
    module = active_backend()
    reasons = {name: backends.load(name).why_not() for name in backends.NAMES}
    return {
        "fastnn": __version__,
        "backend": module.NAME,
        **module.describe(),
        "backends": {name: "works" if reason is None else reason for name, reason in reasons.items()},
        "threads": get_num_threads(),
        "winograd": winograd(),
        "seed": _seed,
        "floatx": _floatx,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
    }


def show_config() -> None:
    """Print which backend runs and why, instruction set, threads, versions.

    Example:
        >>> import fastnn
        >>> fastnn.show_config()  # doctest: +ELLIPSIS
        fastnn    ...
    """
    lines = []
    for key, value in get_config().items():
        text = "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        lines.append(f"{key:<10}{text}")
    sys.stdout.write("\n".join(lines) + "\n")
