"""Domain-free tools: errors, clock, database, process runner, redaction, logging."""
