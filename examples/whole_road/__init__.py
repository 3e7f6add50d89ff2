"""The whole road of post-training, as five jobs that go on from one another."""
