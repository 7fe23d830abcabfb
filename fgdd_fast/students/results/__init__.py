"""What training students gave, as figures, tables and curves."""

__all__ = ["report", "result", "teacher_accuracy"]
