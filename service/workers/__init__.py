"""The workers that are alive: what each has, told by itself again and again."""
