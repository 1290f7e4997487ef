"""The doors: HTTP, the message worker and the command line. Three ways in, the same commands behind them."""
