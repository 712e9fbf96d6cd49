"""The notebook: its cells run in order on the tiny model, and no output of anybody's is in git."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOUR = json.loads((ROOT / "notebooks" / "tour.ipynb").read_text("utf-8"))
CODE = [cell for cell in TOUR["cells"] if cell["cell_type"] == "code"]


def test_no_output_is_kept():
    assert [cell["id"] for cell in CODE if cell["outputs"] or cell["execution_count"] is not None] == []
    assert set(TOUR["metadata"]) == {"kernelspec", "language_info"}  # an editor leaves more behind


def test_the_cells_run_in_order(tiny_model, tmp_path, monkeypatch):
    """Every cell as a notebook runs it, but for the model's name."""
    monkeypatch.chdir(tmp_path)
    named, *rest = ["".join(cell["source"]) for cell in CODE]
    assert named == 'MODEL = "smollm2-135m"'
    given = {"MODEL": str(tiny_model), "__name__": "__main__"}
    for source in rest:
        exec(compile(source, "tour.ipynb", "exec"), given)
    assert len(given["candidates"]) == 20
    assert len(given["pairs"]) == given["trained"].n_pairs > 0
    assert list(given["table"]["objective"]) == ["asks", "brief"]
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()


def test_pages_lead_to_it():
    assert "notebooks/tour.ipynb" in (ROOT / "README.md").read_text("utf-8")
    assert "../notebooks/tour.ipynb" in (ROOT / "docs" / "library.md").read_text("utf-8")
