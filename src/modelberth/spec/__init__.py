"""What the user declares: the stack of `berth.yaml`, its addresses, and reading it with positions."""
