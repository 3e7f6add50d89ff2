"""What methods on preferences share: pairs, whole continuations, and the frozen reference."""
