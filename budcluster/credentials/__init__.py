"""Sealing and opening secrets, key files, rotation."""
