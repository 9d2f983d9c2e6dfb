"""The commands, one a module; what they use is imported when they run: `--help` answers at once."""
