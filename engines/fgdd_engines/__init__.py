"""Engines: run an ONNX model on whatever runtime the device has, behind one interface."""
