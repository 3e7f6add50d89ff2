"""Where torch lives: what more than one method uses. It knows no method."""
