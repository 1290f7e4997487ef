"""The outside world, one room for each outside thing. Adapters know the domain, and nothing else of ours."""
