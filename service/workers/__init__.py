"""The workers that are alive: what each has, as it reports again and again."""
