"""Ground floor: units, errors, YAML, text and clock. Imports nothing else of this project."""
