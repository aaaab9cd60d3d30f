"""What went wrong, from logs and objects: so far the first cause in an engine's log. Pure."""
