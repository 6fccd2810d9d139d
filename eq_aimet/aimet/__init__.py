"""AIMET's functions for models with rotation blocks; no other part imports aimet_torch."""

from eq_aimet.aimet.simulation import quantized_modules as _quantized_modules  # noqa: F401 (registers the modules)
