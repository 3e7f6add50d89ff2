"""Large files that arrive in parts."""
