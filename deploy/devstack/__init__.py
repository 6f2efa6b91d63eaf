"""What a developer's machine runs beside the service: an embedded PostgreSQL, outside tools, the supervisor."""
