"""What a job would come to, counted before it is created."""
