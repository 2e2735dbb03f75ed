"""The node itself: its programs, its disk, its files as they are found."""
