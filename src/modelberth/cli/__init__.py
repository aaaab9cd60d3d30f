"""The command line: one file a verb, thin. `output` alone prints; `errors` maps errors to messages and exit codes."""
