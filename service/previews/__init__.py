"""What a job would come to, told before it is created: counted by a worker, with the trainer's own code."""
