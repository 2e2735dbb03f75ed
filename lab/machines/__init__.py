"""The lab's nodes as containers: their image, their limits, the way in."""
