"""Print the table of the runtimes in docs/deploy.md: `PYTHONPATH=. python tests/runtime_figures.py`."""

import logging
import sys
import tempfile
from pathlib import Path

from deployed_networks import Dense, Residual, d4_network, simulate, varied_images

from eq_aimet import export_onnx, make_portable, tie_encodings, verify_onnx

NETWORKS = {
    "C4, channel-wise": lambda: Residual(4, "channel"),
    "C4, field-wise": lambda: Residual(4, "field"),
    "C8, channel-wise": lambda: Residual(8, "channel"),
    "C8, field-wise": lambda: Residual(8, "field"),
    "C4, dense": lambda: Dense(4),
    "C8, dense": lambda: Dense(8),
    "D4": d4_network,
}
RUNTIMES = ("onnxruntime", "qnn-htp", "openvino")


def row(name, network, images):
    """How many outputs changed, and the SQNR against the simulation, in each runtime."""
    sim = simulate(network, per_channel=True)
    tie_encodings(sim)
    make_portable(sim, images[:1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(sim, images[:1], path)
        report = verify_onnx(path, sim, images, runtimes=RUNTIMES, threads=(1,), runs=1, reference_images=0)
    cells = []
    for finding in report.runtimes:
        changed = [check.changed for check in report.elements if check.runtime == finding.runtime]
        on_host = f", on the host: {' '.join(finding.fell_back)}" if finding.fell_back else ""
        total = len(changed) * report.images
        cells.append(f"{sum(changed)} of {total}, {finding.sqnr_to_sim:.1f} dB{on_host}")
    return f"| {name} | {' | '.join(cells)} |", [finding.runtime for finding in report.runtimes]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    rows = [row(name, make(), varied_images(12)) for name, make in NETWORKS.items()]
    sys.stdout.write(f"| network | {' | '.join(rows[0][1])} |\n|{'---|' * (len(RUNTIMES) + 1)}\n")
    sys.stdout.write("\n".join(line for line, _ in rows) + "\n")
