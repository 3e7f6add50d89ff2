"""The rows of every domain, a module each: below all of them, so that each may name another's columns and states."""
