"""The audit trail: who did what, on what, when, with which outcome."""
