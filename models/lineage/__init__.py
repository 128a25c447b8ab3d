"""The detectors of the years in which detection went from minutes to real time: one system or idea a file."""
