"""Contract suites that every implementation of a seam passes; needs pytest."""
