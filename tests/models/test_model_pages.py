"""The pages of the models hold: every size, shape and cost in their tables is the code's."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from nigradat.cli import main
from nigradat.models.cost import LayerRow, layer_table
from nigradat.models.registry import get_method, list_models
from nigradat.models.symmetric import ModelSpec, PairRegressor
from nigradat.models.vgg import NARROW_WIDTHS, PAPER_WIDTHS, SMALL_WIDTHS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference" / "models"
WIDTHS = (NARROW_WIDTHS, SMALL_WIDTHS, PAPER_WIDTHS)


@cache
def measured(name: str, widths: tuple[int, ...]) -> tuple[list[LayerRow], int]:
    """Layers of one side, and the parameters of all nets; no weight has a value."""
    with torch.device("meta"):
        model = PairRegressor(get_method(name).applied_to(ModelSpec(widths=widths))).eval()
    net = model.net(model.sides[0])
    assert net is not None
    return layer_table(net), sum(p.numel() for p in model.parameters())


def totals(name: str, widths: tuple[int, ...]) -> tuple[str, str, str]:
    layers, in_all = measured(name, widths)
    macs = sum(row.macs for row in layers) / 1e6
    return f"{sum(row.parameters for row in layers):,}", f"{in_all:,}", f"{macs:,.1f}"


def cells(page: Path) -> list[list[str]]:
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


@pytest.mark.parametrize("name", list_models())
def test_sizes_and_costs(name: str) -> None:
    rows = [row for row in cells(FOLDER / f"{name}.md") if row[0][0].isdigit()]
    assert rows == [[", ".join(map(str, widths)), *totals(name, widths)] for widths in WIDTHS]


@pytest.mark.parametrize("name", list_models())
def test_parts(name: str) -> None:
    """Each part of the table is what the layers under its name are together, and no layer is left out."""
    rows = [row for row in cells(FOLDER / f"{name}.md") if row[0].startswith("`")]
    left = [
        row for row in measured(name, SMALL_WIDTHS)[0] if row.kind != "Input" and not row.kind.startswith("Dropout")
    ]
    for part, what, output, parameters, macs in rows:
        prefix = part.strip("`")
        mine = [row for row in left if row.name == prefix or row.name.startswith(f"{prefix}.")]
        left = left[len(mine) :]
        assert what
        assert output == " x ".join(map(str, mine[-1].output))
        assert parameters == f"{sum(row.parameters for row in mine):,}"
        assert macs == f"{sum(row.macs for row in mine) / 1e6:,.1f}"
    assert left == []


@pytest.mark.parametrize("name", list_models())
def test_the_command_prints_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    layers, _ = measured(name, SMALL_WIDTHS)
    assert [row["name"] for row in shown["layers"]] == [row.name for row in layers]
    assert shown["parameters"] == sum(row.parameters for row in layers)
    assert shown["macs_per_patch"] == sum(row.macs for row in layers)


@pytest.mark.parametrize("name", list_models())
def test_titles_and_commands(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {get_method(name).title}\n")
    assert re.findall(r'create_model\("([\w-]+)"\)', text) == [name]
    assert f"`nigradat show {name}`" in text


def test_the_index_has_every_model_and_no_other() -> None:
    networks = {"shared": "one for both sides", "separate": "one for each side", "left": "one, for the left side"}
    rows = cells(FOLDER / "README.md")[1:]
    assert [row[0] for row in rows] == [f"[`{name}`]({name}.md)" for name in list_models()]
    for name, (_, title, nets, parameters, macs) in zip(list_models(), rows, strict=True):
        method = get_method(name)
        assert (title, nets) == (method.title, networks[method.sharing])
        assert [parameters, macs] == list(totals(name, SMALL_WIDTHS)[1:])
    assert {page.stem for page in FOLDER.glob("*.md")} == {*list_models(), "README"}


def test_measuring_draws_nothing() -> None:
    before = torch.get_rng_state()
    measured.__wrapped__("sym-vgg", (1, 1, 1, 1))
    assert torch.equal(torch.get_rng_state(), before)
