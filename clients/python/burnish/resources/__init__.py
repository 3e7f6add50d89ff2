"""What the server has, one module a resource; each method's path is its URL's path."""
