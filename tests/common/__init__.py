"""What tests, benchmarks and the chaos suite share."""
