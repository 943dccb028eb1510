"""What was answered and what people said of it: the log, feedback, quality."""
