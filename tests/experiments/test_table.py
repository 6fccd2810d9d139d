import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from eq_aimet.deploy.findings import ElementCheck, Fidelity, Latency
from eq_aimet.deploy.verification_report import VerificationReport
from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments import DeviceFigures, Table, TableRow, file_table, network_table

TURNS = ("90°", "180°", "270°")
DEVICES = [
    DeviceFigures("onnxruntime 1.20", 10_240_000, 2_620_000, 12.5, 10.0, TURNS, 16, 0.31, False),
    DeviceFigures("onnxruntime 1.20", 2_800_000, 280_000, 1.25, 1.0, TURNS, 16, 0.0, True),
]
ROWS = [
    TableRow("conventional", 690_242, 0.875, 0.8125, 0.31, 0.37, 0.5, 0.25, DEVICES[0]),
    TableRow("equivariant", 84_908, 0.9, 0.925, 1.6e-15, 0.0, 0.013, 0.02, DEVICES[1]),
]


def test_the_drop_is_what_int8_costs():
    assert [row.drop for row in ROWS] == pytest.approx([0.0625, -0.025])
    assert json.loads(json.dumps(ROWS[0].to_dict()))["drop"] == 0.0625


def test_markdown_has_one_line_a_model_and_equal_columns():
    lines = network_table(ROWS).to_markdown().splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {10}
    assert lines[2] == "| conventional | 690,242 | 87.5 % | 81.2 % | 6.2 | 3e-01 | 4e-01 | 5e-01 | 2e-01 |"
    assert lines[3] == "| equivariant | 84,908 | 90.0 % | 92.5 % | -2.5 | 2e-15 | 0 | 1e-02 | 2e-02 |"


def test_the_terminal_table_fits_80_columns_and_loses_nothing():
    output = io.StringIO()
    Console(file=output, width=80).print(network_table(ROWS, caption="MobileNetV2").to_terminal())
    text = output.getvalue()
    assert "…" not in text
    for cell in ("conventional", "690,242", "87.5 %", "6.2", "4e-01", "-2.5", "2e-15", "90°", "45°"):
        assert cell in text


def test_json_has_the_device_with_its_ratios():
    device = json.loads(json.dumps(ROWS[1].to_dict()))["device"]
    assert device["int8_bytes"] == 280_000
    assert device["size_ratio"] == pytest.approx(0.1)
    assert device["latency_ratio"] == pytest.approx(0.8)
    assert device["turns"] == list(TURNS)
    assert device["bit_identical"] is True


def test_the_device_table_says_size_speed_and_whether_a_turn_changes_the_logits():
    lines = file_table(ROWS).to_markdown().splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert lines[2] == "| conventional | 10.24 MB | 2.62 MB | 12.50 ms | 10.00 ms | no | 3e-01 |"
    assert lines[3] == "| equivariant | 2.80 MB | 280 KB | 1.25 ms | 1.00 ms | yes | 0 |"


def test_the_terminal_table_of_the_device_fits_80_columns_and_loses_nothing():
    output = io.StringIO()
    Console(file=output, width=80).print(file_table(ROWS, caption="The ONNX files").to_terminal())
    text = output.getvalue()
    assert "…" not in text
    for cell in ("10.24 MB", "280 KB", "12.50 ms", "yes", "no", "3e-01", "identical", "largest"):
        assert cell in text
    assert max(len(line) for line in text.splitlines()) <= 80


def report_of(*checks, unverified=()):
    fidelity = Fidelity(1.0, 30.0, 30.0, 40.0, 2, 0.0)
    latency = Latency(2.0, 1.5, 20)
    return VerificationReport(
        *("model.onnx", "onnxruntime 1.20", 16, checks, fidelity, latency, 400, 1200, (), True),
        unverified=unverified,
    )


@pytest.fixture
def float_file(tmp_path):
    (tmp_path / "model.float.onnx").write_bytes(bytes(1234))
    return tmp_path / "model.float.onnx"


def test_the_figures_are_the_worst_of_all_turns_and_threads(float_file):
    report = report_of(
        ElementCheck("90°", 1, 0, 0.0),
        ElementCheck("180°", 1, 0, 0.0),
        ElementCheck("90°", 2, 3, 0.25),
        ElementCheck("180°", 2, 1, 0.125),
    )
    figures = DeviceFigures.from_report(report, float_file)
    assert figures == DeviceFigures(
        "onnxruntime 1.20", 1234, 400, 2.0, 1.5, ("90°", "180°"), 16, worst_change=0.25, bit_identical=False
    )


@pytest.mark.parametrize(
    ("changed", "unverified", "answer", "cell"),
    [
        (0, (), True, "yes"),
        (1, (), False, "no"),
        (0, ("The output of the file is the same for all images.",), None, "not judged"),
        (1, ("75% of the values lie outside of [0, 1].",), False, "no"),  # it was seen to change
    ],
)
def test_the_answer_follows_the_verification(float_file, changed, unverified, answer, cell):
    report = report_of(ElementCheck("90°", 1, changed, 0.5 * changed), unverified=unverified)
    figures = DeviceFigures.from_report(report, float_file)
    assert figures.bit_identical is answer
    assert (figures.bit_identical is True) is report.is_bit_exact
    row = replace(ROWS[1], device=figures)
    table = file_table([row], notes=["one note"])
    assert table.rows[0][5] == cell
    reasons = [f"not judged: equivariant: {unverified[0]}"] if answer is None else []
    assert list(table.notes) == ["one note", *reasons]
    assert TableRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_a_file_without_an_exact_turn_is_not_judged(float_file):
    figures = DeviceFigures.from_report(report_of(), float_file)
    assert figures.bit_identical is None
    assert "tried no turn" in file_table([replace(ROWS[1], device=figures)]).notes[0]


def test_rows_survive_json():
    assert [TableRow.from_dict(json.loads(json.dumps(row.to_dict()))) for row in ROWS] == ROWS


def test_rows_without_reasons_are_read():
    values = json.loads(json.dumps(ROWS[1].to_dict()))
    del values["device"]["unverified"]  # as rows were written before there were reasons
    assert TableRow.from_dict(values) == ROWS[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameters", "many"),
        ("drop", None),
        ("fp32_accuracy", None),
        ("device", None),
        ("model", 3),
        ("device", {}),
    ],
)
def test_rows_that_somebody_changed_are_one_clear_error(name, value):
    values = {**ROWS[0].to_dict(), name: value}
    if name == "drop":  # it follows from the others, and is not read
        assert TableRow.from_dict(values) == ROWS[0]
        return
    with pytest.raises(DataError, match=r"a row of `table\.json`: received no usable .*measure again"):
        TableRow.from_dict(values)


def test_a_row_of_another_length_is_refused():
    with pytest.raises(InvalidArgumentError, match="`rows`: received a row of 1 cells; expected 2"):
        Table(("a", "b"), (("1",),))


def test_markdown_cells_stay_cells():
    assert Table(("a", "b"), (("1|2", "3\n4"),)).to_markdown().splitlines()[2] == r"| 1\|2 | 3 4 |"
