"""Build TensorRT engines of a bundle on this device, and run them."""
