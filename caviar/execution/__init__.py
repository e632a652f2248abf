"""Running `advance` somewhere: the Executor seam, slices, and the inline executor."""
