"""The options of a recipe, and its errors in their words."""

import pcam_mnv2
import pytest
import typer
from options import as_options
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def app():
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(pcam_mnv2.main)
    return application


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--width 0", "`--width`: received 0.0; expected a number above 0 and at most 16."),
        ("--epochs 0", "`--epochs`: received 0; expected an integer of at least 1."),
        ("--batch-size 0", "`--batch-size`: received 0;"),
        ("--group 0", "`--group`: received 0;"),
        ("--width 1e9", "`--width`: received 1000000000.0; expected a number above 0 and at most 16."),
        (
            "--learning-rate nan",
            "`--learning-rate`: received nan; expected a number above 0. Try `--learning-rate 0.005`",
        ),
        ("--precision 16", "`--precision`: received '16' for a CPU; expected '16' on a CUDA device only."),
        (
            "--device abacus",
            "`--device`: received 'abacus'; expected one of 'cpu', 'cuda'. Try `--device cpu`.",
        ),
        ("--workers -1", "`--workers`: received -1; expected an integer of at least 0."),
        ("--train-images 0", "`--train-images`: received 0;"),
        ("--devices 0", "`--devices`: received 0;"),
        ("--architecture vgg", "`--architecture`: received 'vgg'; expected one of 'mobilenet', 'densenet'."),
        ("--download", "`--download`: received no `--data`; expected the folder to put PCam's files into."),
        ("--width 0.2 --group 8", "at least 0.5, at which the narrowest layer is one block of 8 channels"),
        (
            "--data /no/such/folder",
            "`/no/such/folder`: received no such folder; expected the folder of PCam's files.",
        ),
    ],
)
def test_bad_options_are_one_clear_line_before_anything_is_written(app, tmp_path, options, text):
    result = CliRunner().invoke(app, [*options.split(), "--results", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_typers_error(app):
    result = CliRunner().invoke(app, ["--wdith", "1"])
    assert result.exit_code == 2
    assert "--wdith" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "`batch_size`: received 8. Try `batch_size=4`.",
            "`--batch-size`: received 8. Try `--batch-size 4`.",
        ),
        ('Take `precision="bf16"`, or `resume=True`.', "Take `--precision bf16`, or `--resume`."),
        ("Choose another `path`.", "Choose another `--results`."),
        (
            "`/data/seed`: received `x` of float32; see `equalize`.",
            "`/data/seed`: received `x` of float32; see `equalize`.",
        ),
    ],
)
def test_arguments_become_options(text, expected):
    assert as_options(text) == expected
