import functools
import io
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_training import EPOCHS, TinyData, assert_equal, classifier, train

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.training import best_weights, measure_accuracy, train_classifier
from eq_aimet.experiments.training.checkpoints import read_checkpoint


@pytest.mark.parametrize("stop_after", [1, 2, EPOCHS])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path, stop_after):
    whole, history = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_after=stop_after)
    torch.rand(7)  # another state of torch's own randomness
    resumed, resumed_history = train(tmp_path / "parts")
    assert_equal(whole.model.state_dict(), resumed.model.state_dict())
    assert_equal(best_weights(tmp_path / "whole"), best_weights(tmp_path / "parts"))
    assert resumed_history == history
    assert [record.epoch for record in history] == [1, 2, 3, 4]


@pytest.mark.parametrize("batch", [0, 2])
def test_an_interruption_amid_an_epoch_loses_that_epoch_only(tmp_path, batch):
    whole, history = train(tmp_path / "whole")
    stopped = classifier()
    step = stopped.training_step

    def interrupted_step(data, batch_idx):
        if (stopped.current_epoch, batch_idx) == (2, batch):
            raise KeyboardInterrupt
        return step(data, batch_idx)

    stopped.training_step = interrupted_step
    with pytest.raises(KeyboardInterrupt):
        train_classifier(stopped, TinyData(), tmp_path / "parts", epochs=EPOCHS, progress=False)
    seen = []
    resumed = classifier()
    resumed_history = train_classifier(
        resumed, TinyData(), tmp_path / "parts", epochs=EPOCHS, progress=False, on_epoch=seen.append
    )
    assert [record.epoch for record in seen] == [3, 4]
    assert resumed_history == history
    assert_equal(whole.model.state_dict(), resumed.model.state_dict())


def test_an_epoch_is_reported_once_it_is_saved(tmp_path):
    saved = []

    def on_epoch(record):
        saved.append(
            (record.epoch, len(read_checkpoint(tmp_path / "last.ckpt")["callbacks"]["History"]["records"]))
        )

    data = TinyData(noisy=True)
    history = train_classifier(classifier(), data, tmp_path, epochs=EPOCHS, on_epoch=on_epoch, progress=False)
    assert history[-1].valid_loss > min(
        record.valid_loss for record in history
    )  # no new best.ckpt at the end
    assert saved == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_another_seed_trains_otherwise(tmp_path):
    whole, _ = train(tmp_path / "whole")
    other = classifier()
    other.seed = 2
    train_classifier(other, TinyData(), tmp_path / "other", epochs=EPOCHS, progress=False)
    assert not torch.equal(whole.model[5].weight, other.model[5].weight)


def test_a_finished_training_is_not_repeated(tmp_path):
    whole, history = train(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again, again_history = train(tmp_path, stop_after=EPOCHS)
    assert again_history == history
    assert_equal(whole.model.state_dict(), again.model.state_dict())
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert sorted(before) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path):
    # Wrong training labels: the validation loss rises, so that the first epoch is the best.
    trained, history = train(tmp_path, data=TinyData(noisy=True))
    best = min(history, key=lambda record: record.valid_loss)
    assert best.epoch < EPOCHS
    model = classifier().model
    model.load_state_dict(best_weights(tmp_path))
    images, labels = TinyData().valid.tensors
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.eval()(images), labels)
        last = torch.nn.functional.cross_entropy(trained.model.eval()(images), labels)
    assert math.isclose(loss, best.valid_loss, rel_tol=1e-5)
    assert not math.isclose(last, best.valid_loss, rel_tol=1e-3)


def test_the_best_epoch_is_remembered_where_the_folder_was_moved(tmp_path):
    _, history = train(tmp_path / "whole", data=TinyData(noisy=True))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_after=3, data=TinyData(noisy=True))
    shutil.move(tmp_path / "parts", tmp_path / "moved")
    train(tmp_path / "moved", data=TinyData(noisy=True))
    assert min(history, key=lambda record: record.valid_loss).epoch < 3
    assert_equal(best_weights(tmp_path / "whole"), best_weights(tmp_path / "moved"))
    assert not (tmp_path / "parts").exists()


def test_checkpoints_that_would_execute_code_are_refused(tmp_path):
    class Exploit:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    tmp_path.joinpath("run").mkdir()
    torch.save({"state_dict": Exploit()}, tmp_path / "run" / "last.ckpt")
    with pytest.raises(DataError, match="can't be read"):
        train(tmp_path / "run")
    assert not (tmp_path / "executed").exists()


def test_an_unknown_precision(tmp_path):
    with pytest.raises(
        InvalidArgumentError, match="`precision`: received '8'; expected one of '32', 'bf16', '16'"
    ):
        train_classifier(classifier(), TinyData(), tmp_path, epochs=1, precision="8")


def test_nothing_is_said_on_the_terminal(tmp_path, capfd, caplog):
    train(tmp_path, epochs=1)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_accuracy_needs_a_batch():
    with pytest.raises(InvalidArgumentError, match="`batches`: received none; expected at least one batch"):
        measure_accuracy(torch.nn.Identity(), [])


def test_lines_printed_above_the_progress_bar_all_stay(tmp_path, monkeypatch):
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, _environ={})
    monkeypatch.setattr("eq_aimet.experiments.training.progress.get_console", lambda: console)
    train_classifier(
        classifier(),
        TinyData(),
        tmp_path,
        epochs=EPOCHS,
        on_epoch=lambda record: console.print(f"line {record.epoch}"),
    )
    shown = screen(output.getvalue())
    assert shown == ["line 1", "line 2", "line 3", "line 4"]
    assert f"epoch {EPOCHS}/{EPOCHS}" in output.getvalue()
    assert output.getvalue().endswith("\x1b[2K")  # the bar's own line is erased


def screen(text):
    """Returns what a terminal shows in the end: lines that are not empty."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[\??\d*[A-Za-z]|\x1b\[[\d;]*m|\r|\n|[^\x1b\r\n]+", text):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1] or 1)
        elif token.endswith("K") and token.startswith("\x1b"):
            lines[row] = ""
        elif not token.startswith("\x1b") and token != "\r":
            lines[row] += token
    return [line.strip() for line in lines if line.strip()]


def compile_with(monkeypatch, backend):
    """Makes `torch.compile` use a backend that does not take a minute."""
    compile_module = functools.partialmethod(torch.nn.Module.compile, backend=backend)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)


def test_a_compiled_training_has_the_same_checkpoints(tmp_path, monkeypatch):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    plain, history = train(tmp_path / "plain", epochs=2)
    assert not graphs
    compile_with(monkeypatch, backend)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "compiled", epochs=2, stop_after=1, compile=True)
    assert graphs
    compiled, compiled_history = train(tmp_path / "compiled", epochs=2, compile=True)
    assert_equal(plain.model.state_dict(), compiled.model.state_dict())
    assert_equal(best_weights(tmp_path / "plain"), best_weights(tmp_path / "compiled"))
    assert compiled_history == history
    before = len(graphs)
    compiled.model(torch.zeros(7, 3, 5, 5))  # afterwards the model is as it was, not compiled
    assert len(graphs) == before


def test_a_failing_compiler_is_said(tmp_path, monkeypatch):
    def backend(graph, example_inputs):
        raise RuntimeError("there is no C++ compiler")

    compile_with(monkeypatch, backend)
    with pytest.raises(
        InvalidArgumentError,
        match=r"`compile`: received a model that torch.compile fails on \(there is no C\+\+ compiler\); ",
    ):
        train(tmp_path, epochs=1, compile=True)


def test_without_a_terminal_each_epoch_is_a_line(tmp_path, monkeypatch):
    output = io.StringIO()
    console = Console(file=output)
    monkeypatch.setattr("eq_aimet.experiments.training.progress.get_console", lambda: console)
    train(tmp_path, epochs=2, progress=True)
    assert output.getvalue().split() == ["epoch", "1/2", "epoch", "2/2"]
