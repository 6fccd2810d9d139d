"""One forward pass that shows which scales can move: scale variables travel along with the values."""
