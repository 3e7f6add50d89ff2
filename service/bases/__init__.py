"""Base models as all processes see them: the catalog file, what operators added, and what checks found."""
