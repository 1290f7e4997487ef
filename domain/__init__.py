"""What EvoSense knows: aggregates, the commands they take and the events they decide. No I/O, no clock, no chance."""
