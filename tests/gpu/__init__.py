"""What can only be checked on a GPU, as one program: `python -m tests.gpu`, or `make gpu`."""
