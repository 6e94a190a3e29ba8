"""Builds the C engine; everything else about the package is in pyproject.toml.

Without a compiler, or where the engine does not compile, the package installs all the same and runs on another backend.

    FASTNN_REQUIRE_NATIVE=1     an engine that cannot be built is an error
    FASTNN_NO_NATIVE=1          do not build it
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from textwrap import shorten
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NAME = "fastnn.backends.native._native"
PYX = "fastnn/backends/native/_native.pyx"
SOURCES = ["isa_base.c", "isa_avx2.c", "isa_avx512.c", "isa_neon.c", "dispatch.c", "cpus.c", "team.c", "program.c"]

# No -march: the isa_*.c files set their targets themselves, so the result runs on any machine of the architecture.
FLAGS = ["-O3", "-std=c11", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]


def wanted(variable: str) -> bool:
    """Whether an environment variable is set to something other than 0."""
    return os.environ.get(variable, "0") not in ("", "0")


REQUIRED = wanted("FASTNN_REQUIRE_NATIVE")


def explain(reason: object) -> None:
    """Say that there will be no engine in C, and what runs instead."""
    rule = "=" * 100
    print(
        f"{rule}\nfastnn: the native engine was not built: {shorten(str(reason), 160)}\n"
        "fastnn is installed and works, but slower: on the `numba` backend if numba is installed\n"
        "(pip install numba), else on the `numpy` backend. `fastnn config` shows which one runs.\n"
        f"For the native engine install a C compiler (gcc or clang) and reinstall.\n{rule}",
        file=sys.stderr,
        flush=True,
    )


class BuildNative(build_ext):
    """Compiles the files side by side, and carries on without the extension if that fails."""

    def build_extensions(self) -> None:  # noqa: D102
        compile_all: Callable[..., list[str]] = self.compiler.compile

        def compile_side_by_side(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                parts = [pool.submit(compile_all, [source], **options) for source in sources]
                return [name for part in parts for name in part.result()]

        if os.name == "posix":
            self.compiler.compile = compile_side_by_side
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:  # noqa: D102
        try:
            super().build_extension(ext)
        except Exception as error:  # each compiler fails in its own way
            if REQUIRED:
                raise
            explain(error)


def extensions() -> list[Extension]:
    """The one extension, or none."""
    if wanted("FASTNN_NO_NATIVE"):
        if REQUIRED:
            raise SystemExit("fastnn: FASTNN_REQUIRE_NATIVE and FASTNN_NO_NATIVE are both set.")
        explain("FASTNN_NO_NATIVE is set")
        return []
    posix = os.name == "posix"
    extension = Extension(
        NAME,
        [PYX, *(f"csrc/{source}" for source in SOURCES)],
        include_dirs=["csrc"],
        depends=sorted(glob("csrc/*.[ch]") + glob("csrc/*.inc")),
        extra_compile_args=[*FLAGS, "-pthread"] if posix else [],
        extra_link_args=["-pthread"] if posix else [],
        libraries=["m"] if posix else [],
    )
    try:
        from Cython.Build import cythonize

        built: list[Extension] = cythonize([extension], build_dir="build/cython", language_level=3)
    except Exception as error:  # no Cython, or one that does not take the file
        if REQUIRED:
            raise
        explain(error)
        return []
    for one in built:
        one.optional = not REQUIRED  # cythonize forgets it
    return built


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})
