"""A trainer that kills itself at a chosen moment, for the tests of exact resumes."""
