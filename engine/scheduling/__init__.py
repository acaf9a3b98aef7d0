"""What the Scheduler is made of: requests, the threads that work on them, the running batch, and the counters."""
