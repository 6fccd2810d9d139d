"""AIMET's functions for models with rotation blocks; the only part of the package that imports aimet_torch."""

from eq_aimet.aimet import quantized_modules as _quantized_modules  # noqa: F401 (its import registers the modules)
