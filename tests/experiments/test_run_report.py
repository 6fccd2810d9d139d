"""A run's pictures and page, measured on real networks."""

import base64
import json

import pytest
import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet import equalize_equivariant, export_model, tie_encodings
from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments import DeviceFigures, RunFindings, TableRow, write_run_report
from eq_aimet.experiments.pictures import (
    Stability,
    measure_predictions,
    measure_stability,
    measure_weight_ranges,
)
from eq_aimet.experiments.training import EpochRecord
from eq_aimet.models import EquivariantMobileNetV2

NAMES = ["examples", "ranges-equi-variant", "stability", "table", "training", "weights-equi-variant"]


@pytest.fixture(scope="module")
def findings():
    torch.manual_seed(0)
    images, labels = torch.rand(6, 3, 33, 33), torch.tensor([0, 1, 0, 1, 0, 1])
    model = EquivariantMobileNetV2(width=0.25, group=4, input_size=33).eval()
    for module in model.modules():  # batch norms that differ from channel to channel, as trained ones do
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.running_var.uniform_(0.2, 5.0)
    plain = export_model(model, dummy_input=images[:1])
    folded = export_model(model, dummy_input=images[:1])
    fold_all_batch_norms(folded, None, images[:1])
    equalize_equivariant(plain, dummy_input=images[:1])
    sim = QuantizationSimModel(plain, dummy_input=images[:1])
    sim.compute_encodings(lambda quantized: quantized(images))
    tie_encodings(sim)
    device = DeviceFigures("onnxruntime 1.20", 2_800_000, 280_000, 1.25, 1.0, ("90°",), 16, 0.0, True)
    return RunFindings(
        rows=(TableRow("equi variant", 84_908, 0.9, 0.925, 1e-15, 0.0, 0.01, 0.02, device),),
        histories={"equi variant": [EpochRecord(1, 0.5, 0.5, 0.5, 0.5)]},
        ranges={"equi variant": (measure_weight_ranges(folded), measure_weight_ranges(sim.model))},
        stabilities={
            "equi variant": {
                "FP32": measure_stability(folded, images[:2], step=45),
                "INT8": measure_stability(sim.model, images[:2], step=45),
            }
        },
        predictions={"equi variant INT8": measure_predictions(sim.model, images, labels)},
        images=images,
        class_names=("normal", "tumour"),
        test_images=6,
    )


def test_a_tied_network_keeps_its_answers_under_quarter_turns_and_its_ranges_come_closer(findings):
    for precision, tolerance in (("FP32", 1e-12), ("INT8", 0.0)):
        found = findings.stabilities["equi variant"][precision]
        change = dict(zip(found.angles, found.logit_change, strict=True))
        assert all(change[angle] <= tolerance for angle in (0.0, 90.0, 180.0, 270.0))
    assert findings.stabilities["equi variant"]["FP32"].logit_change[1] > 1e-6  # at 45°
    before, after = findings.ranges["equi variant"]
    depthwise = [
        (old.ratio, new.ratio) for old, new in zip(before, after, strict=True) if old.kind == "depthwise"
    ]
    assert len(depthwise) == 17
    assert sum(new for _, new in depthwise) < sum(old for old, _ in depthwise)
    assert all(layer.blocks for layer in after if layer.kind == "depthwise")


def test_the_folder_holds_each_picture_and_the_page_holds_them_all(findings, tmp_path):
    page = write_run_report(
        tmp_path, findings, title="A <run>", settings={"seed": 0}, notes=["45°: interpolated"]
    )
    assert page == tmp_path / "report.html"
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [path.stem for path in pictures] == NAMES
    text = page.read_text("utf-8")
    for path in pictures:
        assert base64.b64encode(path.read_bytes()).decode() in text
    for part in ("A &lt;run&gt;", "84,908", "90.0 %", "45°: interpolated", "seed", "aimet-torch"):
        assert part in text
    assert text.count("<section ") == 7


def test_the_table_says_what_a_turn_changes(tmp_path):
    found = Stability((0.0, 45.0, 90.0, 135.0, 180.0), (1.0, 0.9, 0.8, 0.95, 0.7), (0.0,) * 5, images=1234)
    page = write_run_report(tmp_path, RunFindings(stabilities={"a": {"FP32": found}}), title="x")
    text = page.read_text("utf-8")
    assert "<td>70.0 %</td><td>90.0 %</td><td>70.0 % (180°)</td>" in text
    assert "1,234" in text


def test_findings_are_plain_values_for_json(findings):
    plain = json.loads(json.dumps(findings.to_dict()))
    assert plain["stabilities"]["equi variant"]["INT8"]["images"] == 2
    assert len(plain["ranges"]["equi variant"]) == 53
    assert plain["predictions"]["equi variant INT8"]["labels"] == [0, 1, 0, 1, 0, 1]
    assert plain["rows"][0]["parameters"] == 84_908


def test_a_page_that_can_not_be_written_leaves_the_older_one_whole(findings, tmp_path):
    steady = RunFindings(stabilities=findings.stabilities)
    page = write_run_report(tmp_path, steady, title="First")
    before = page.read_bytes()
    (tmp_path / "pictures" / "training.png").mkdir()  # where a file shall be
    with pytest.raises(DataError):
        write_run_report(tmp_path, RunFindings(histories=findings.histories), title="Second")
    assert page.read_bytes() == before
    with pytest.raises(DataError, match=r"`.*pictures`: received a folder that can't be made"):
        write_run_report(tmp_path / "missing", steady, title="Third")


def test_unfit_findings_are_refused(findings, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`findings`: received nothing that was measured"):
        write_run_report(tmp_path, RunFindings(), title="x")
    with pytest.raises(InvalidArgumentError, match="predictions without their images"):
        write_run_report(tmp_path, RunFindings(predictions=findings.predictions), title="x")
    with pytest.raises(InvalidArgumentError, match="`title`"):
        write_run_report(tmp_path, RunFindings(stabilities=findings.stabilities), title="")
    assert not list(tmp_path.iterdir())
