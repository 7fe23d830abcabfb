"""Commands that judge: students, speed, this machine."""
