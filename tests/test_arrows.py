"""The imports go the way the architecture says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_models_import_neither_export_nor_stream(path: Path) -> None:
    assert not top(imports_of(path)) & {"export", "stream"}


@pytest.mark.parametrize("path", sorted((ROOT / "export").rglob("*.py")), ids=lambda path: path.name)
def test_export_never_imports_stream(path: Path) -> None:
    assert "stream" not in top(imports_of(path))


def test_artifact_imports_neither_torch_nor_onnxruntime() -> None:
    assert not top(imports_of(ROOT / "export" / "artifact.py")) & {"torch", "onnxruntime"}


# The composition roots may join the packages; nothing else in stream does.
ROOTS = {"cli.py", "app.py", "evaluate.py", "label.py", "trial.py"}


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for path in (ROOT / "stream").rglob("*.py")
        if path.name not in ROOTS and "bench" not in path.parts
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_stream_reaches_other_packages_through_the_artifact_alone(path: Path) -> None:
    others = {name for name in imports_of(path) if name.split(".")[0] in {"models", "export", "torch"}}
    assert others <= {"export.artifact"}


def test_the_live_app_loads_neither_torch_nor_what_slows_its_start() -> None:
    script = (
        "import sys, stream.pipeline, stream.app; "
        "print(sorted(n for n in sys.modules if n.startswith(('torch', 'scipy.optimize', 'scipy.linalg'))))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
