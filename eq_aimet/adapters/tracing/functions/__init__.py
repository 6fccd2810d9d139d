"""From torch's functions and tensor methods to modules, which AIMET quantizes."""

from eq_aimet.adapters.tracing.functions.conversion import operations_to_modules

__all__ = ["operations_to_modules"]
