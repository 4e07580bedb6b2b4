"""The training system that every network shares: loop, engines, checkpoints, schedules."""
