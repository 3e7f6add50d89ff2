"""What `burnish-server` does beyond starting one process: keys, and `up` with everything on one machine."""
