"""The HTTP process: routers assembled, errors rendered."""
