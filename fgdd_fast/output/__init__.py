"""What distilling writes, and reading it back: mosaics, manifest, folder, contact sheet."""
