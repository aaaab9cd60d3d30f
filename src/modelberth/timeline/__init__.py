"""Start-up stages from log lines. Pure: lines and times in, stages out."""
