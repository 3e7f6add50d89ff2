"""A small dataset that teaches a chat model to answer a shop's customers in one line of JSON."""
