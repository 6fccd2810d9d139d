"""The rows of the table of torch's functions on the page of modules."""

import re

from test_functions import FUNCTIONS, exported

from eq_aimet.adapters.tracing.functions.conversion import CONVERTERS


def function_rows():
    """Return a row for each stem of module names: the functions, and the modules of the examples."""
    stems = {}
    for target, (stem, _) in CONVERTERS.items():
        name = f"Tensor.{target}" if isinstance(target, str) else getattr(target, "__name__", str(target))
        stems.setdefault(stem, {})[name] = None
    made = {}
    for function, _ in FUNCTIONS.values():
        model = exported(function)
        for name, module in model.named_modules():
            stem = re.sub(r"_[0-9]+$", "", name)
            if stem in stems:
                made.setdefault(stem, {})[type(module).__name__] = None
    for stem, names in stems.items():
        modules = ", ".join(f"`{module}`" for module in made.get(stem, ()))
        yield f"| {', '.join(f'`{name}`' for name in names)} | {stem} | {modules} |"
