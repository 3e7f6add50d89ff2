"""The programs that the service and people start, each by `python -m trainer.programs.NAME`."""
