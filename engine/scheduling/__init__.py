"""What the Scheduler is made of: requests, their answers, and the counters."""
