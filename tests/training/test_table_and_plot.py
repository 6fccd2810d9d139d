import io
import json

import pytest
from matplotlib.image import imread
from rich.console import Console

from eq_aimet.training import EpochRecord, TableRow, markdown_table, plot_training, terminal_table

ROWS = [
    TableRow("conventional", 690_242, 0.875, 0.8125, 0.31, 0.37, 0.5, 0.25),
    TableRow("equivariant", 84_908, 0.9, 0.925, 1.6e-15, 0.0, 0.013, 0.02),
]


def test_the_drop_is_what_int8_costs():
    assert [row.drop for row in ROWS] == pytest.approx([0.0625, -0.025])
    assert json.loads(json.dumps(ROWS[0].to_dict()))["drop"] == 0.0625


def test_markdown_has_one_line_a_model_and_equal_columns():
    lines = markdown_table(ROWS).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {10}
    assert lines[2] == "| conventional | 690,242 | 87.5 % | 81.2 % | 6.2 | 3e-01 | 4e-01 | 5e-01 | 2e-01 |"
    assert lines[3] == "| equivariant | 84,908 | 90.0 % | 92.5 % | -2.5 | 2e-15 | 0 | 1e-02 | 2e-02 |"


def test_the_terminal_table_fits_80_columns_and_loses_nothing():
    output = io.StringIO()
    Console(file=output, width=80).print(terminal_table(ROWS, title="MobileNetV2"))
    text = output.getvalue()
    assert "…" not in text
    for cell in ("conventional", "690,242", "87.5 %", "6.2", "4e-01", "-2.5", "2e-15", "90°", "45°"):
        assert cell in text


def records(losses):
    return [EpochRecord(epoch, loss, 0.5, loss, 0.5) for epoch, loss in enumerate(losses, start=1)]


def test_the_plot_is_an_image_that_shows_the_records():
    falling, rising = (
        imread(io.BytesIO(plot_training({"a": records(losses)}))) for losses in ([0.9, 0.1], [0.1, 0.9])
    )
    assert falling.shape == rising.shape
    assert (falling != rising).any()
    again = imread(io.BytesIO(plot_training({"a": records([0.9, 0.1])})))
    assert (falling == again).all()
