"""The machine of a run: devices, compiler options, memory, other processes."""
