"""A run's network for other programs: safetensors, StableHLO, ONNX."""
