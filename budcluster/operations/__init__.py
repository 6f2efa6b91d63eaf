"""What long work is doing: operations, steps, log lines, events out, cancel."""
