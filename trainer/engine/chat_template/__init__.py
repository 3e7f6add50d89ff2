"""The base's chat template: rendering, the spans of answers, the end of a turn."""
