"""The process beside the GPU: claims a job, supervises one trainer, publishes its result."""
