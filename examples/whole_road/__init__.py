"""The whole road of post-training, as five jobs, each starting from an earlier one."""
