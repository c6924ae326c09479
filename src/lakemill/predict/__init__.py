"""What a predict job means: modes, changes, progress, judging, locks, measures, streams."""
