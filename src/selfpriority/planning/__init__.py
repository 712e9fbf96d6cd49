"""What a run will ask, hold in memory, take and cost, told before any work."""
