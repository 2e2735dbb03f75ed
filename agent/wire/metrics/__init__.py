"""What a scrape is told: the gauges of a node, and the text in which they are told."""
