"""A study of sleeping trials timed against plain Ray Tune, and a driver as its study grows."""
