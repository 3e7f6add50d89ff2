"""What worker and chat engine both need to get models ready: bases, what earlier jobs left, and children that do it."""
