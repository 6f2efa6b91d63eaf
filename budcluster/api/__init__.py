"""HTTP without a domain: problems, authentication, paging, idempotency, health."""
