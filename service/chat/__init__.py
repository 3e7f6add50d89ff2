"""Chat completions with every model of the catalog, through the embedded engine or an inference server."""
