"""Workers: claim a job, lay out its folder, supervise one trainer, publish what it leaves."""
