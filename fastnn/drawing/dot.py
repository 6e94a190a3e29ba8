"""A drawing as text for Graphviz, and as files that its program ``dot`` makes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from fastnn.drawing.graph import Box
from fastnn.drawing.layout import Edge
from fastnn.drawing.svg import COLOURS


def text(boxes: Sequence[Box], edges: Sequence[Edge], rankdir: str, title: str) -> str:
    """The boxes and edges in Graphviz's language.

    >>> print(text([Box("a", "other", ("a",), "a")], [(0, 0)], "TB", "m"), end="")
    digraph "m" {
      graph [rankdir=TB];
      node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];
      0 [label="a", fillcolor="#ffffff", color="#868e96"];
      0 -> 0;
    }
    """
    lines = [f"digraph {_quoted(title)} {{", f"  graph [rankdir={rankdir}];"]
    lines.append('  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];')
    for number, box in enumerate(boxes):
        fill, border = COLOURS[box.kind]
        lines.append(f'  {number} [label={_quoted(*box.lines)}, fillcolor="{fill}", color="{border}"];')
    lines += [f"  {start} -> {end};" for start, end in edges]
    return "\n".join([*lines, "}", ""])


def _quoted(*lines: str) -> str:
    return '"' + r"\n".join(line.replace("\\", r"\\").replace('"', r"\"") for line in lines) + '"'


def program(what: str, ending: str) -> str:
    """Where Graphviz's ``dot`` is. Raises RuntimeError if it is not installed."""
    found = shutil.which("dot")
    if found is None:
        raise RuntimeError(
            f"{what}: {ending} files are made by Graphviz, whose program dot was not found: install Graphviz (apt, "
            "brew, conda: install graphviz). .svg and .dot files need nothing"
        )
    return found


def run(what: str, program: str, ending: str, graph: bytes) -> bytes:
    """The file that ``dot`` makes. Raises RuntimeError if it fails."""
    done = subprocess.run([program, f"-T{ending[1:]}"], input=graph, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"{what}: dot failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
