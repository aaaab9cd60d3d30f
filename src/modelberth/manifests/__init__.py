"""What is written for Kubernetes, as plain objects; and the engine's arguments, which also run locally. Pure."""
