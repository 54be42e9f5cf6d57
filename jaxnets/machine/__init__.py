"""What a run finds: devices, compiler options, memory, other processes."""
