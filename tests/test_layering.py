"""Imports point downward, and `import fastnn` needs NumPy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fastnn

ROOT = Path(fastnn.__file__).parent

#: For each room, the rooms that it may import from while it is itself imported.
ALLOWED = {
    "graph": set(),
    "version": set(),
    "configurable": set(),
    "ops": {"graph"},
    "autodiff": {"graph", "ops"},
    "plan": {"graph", "ops"},
    "backends": {"graph", "ops", "plan"},
    "config": {"backends", "configurable", "version"},
    "initializers": {"configurable"},
    "regularizers": {"configurable", "graph", "ops"},
    "schedules": {"configurable"},
    "layers": {"ops", "graph", "configurable", "config", "initializers", "regularizers"},
    "losses": {"configurable", "graph", "ops"},
    "metrics": {"configurable", "evaluation", "graph", "losses", "ops"},
    "optimizers": {"configurable", "graph", "ops", "schedules"},
    "evaluation": set(),
    "data": set(),
    "sources": {"configurable", "data"},
}
#: Who may know the whole: what is built on models.
HIGH = {
    "models", "training", "compiling", "epochs", "streaming", "order", "interrupt", "steps", "updating", "asking",
    "profiling", "callbacks", "callback_base", "saving", "jobs", "tables", "images", "imaging", "applications", "cli",
    "benchmarking", "drawing",
}  # fmt: skip
HEAVY = {"pandas", "sklearn", "matplotlib", "numba", "scipy", "PIL", "pydicom", "nibabel", "h5py"}
PEERS = {"torch", "keras", "tensorflow", "jax", "onnxruntime"}


def modules():
    """Each module's name without `fastnn.`, and its file."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path, *, everywhere):
    """Full names of the modules that a file imports: at its top level, or `everywhere`. Those for type checkers do not
    count."""
    found = []

    def visit(node):
        if type_checking(node):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT.parent).parent.parts
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            if base == ["fastnn"]:
                found.extend(f"fastnn.{alias.name}" for alias in node.names)
            else:
                found.append(".".join(base))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def rooms(names):
    """The rooms of our own among imported names."""
    return {name.split(".")[1] for name in names if name.startswith("fastnn.")}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_is_below_it(room):
    files = [(name, path) for name, path in modules() if name.split(".")[0] == room]
    assert files
    for name, path in files:
        assert rooms(imports(path, everywhere=False)) - {room} <= ALLOWED[room], name


@pytest.mark.parametrize("room", ALLOWED)
def test_not_even_a_function_reaches_up(room):
    for name, path in modules():
        if name.split(".")[0] == room:
            assert not rooms(imports(path, everywhere=True)) & HIGH, name


def test_rooms_are_in_an_order():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {room for room, below in ALLOWED.items() if room not in done and below <= done}
        assert ready, f"a circle among {sorted(set(ALLOWED) - done)}"
        done |= ready


def test_the_library_takes_ops_from_their_families():
    from fastnn import ops

    for name, path in modules():
        if name == "ops":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "fastnn.ops":
                for alias in node.names:
                    assert alias.name in ("OPS", "Op") or isinstance(getattr(ops, alias.name), ModuleType), name


def test_heavy_packages_are_imported_where_they_are_used():
    for name, path in modules():
        if name.startswith(("backends.numba.", "benchmarking.peers")):
            continue
        assert not {n.split(".")[0] for n in imports(path, everywhere=False)} & HEAVY, name


def test_the_numba_kernels_are_imported_by_nobody_at_once():
    for name, path in modules():
        if not name.startswith("backends.numba."):
            assert not any(n.startswith("fastnn.backends.numba.") for n in imports(path, everywhere=False)), name


def test_import_loads_numpy_alone():
    code = (
        "import sys, fastnn; from fastnn.models import Sequential; from fastnn.layers import Dense;"
        f"print(*sorted({{n.split('.')[0] for n in sys.modules}} & {HEAVY | PEERS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


def test_predicting_on_the_native_backend_loads_numpy_alone():
    code = (
        "import sys, numpy as np, fastnn; from fastnn.layers import Dense;"
        "model = fastnn.Sequential([Dense(2, input_shape=(3,))]); model.compile('adam', 'mse');"
        "model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0); model.predict(np.ones((4, 3)));"
        f"print(*sorted({{n.split('.')[0] for n in sys.modules}} & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
