"""What methods on the policy's own answers share, with one base in memory: its roles are adapters."""
