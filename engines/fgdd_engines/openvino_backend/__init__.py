"""Run a bundle in OpenVINO on the CPU."""
