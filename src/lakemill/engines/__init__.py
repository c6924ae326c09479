"""Where a job runs: each engine reads, scores and commits."""
