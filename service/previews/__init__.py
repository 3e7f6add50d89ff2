"""What a job would come to, known before it is created: counted by a worker, with the trainer's own code."""
