"""What a project may use: quotas of bytes, jobs and training time, and rates of requests and tokens."""
