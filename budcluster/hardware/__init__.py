"""NFD, GPU operator, HAMi: install, read, turn labels into a hardware profile."""
