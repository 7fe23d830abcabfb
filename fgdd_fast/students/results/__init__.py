"""What training students gave, as figures, tables and curves."""

__all__ = ["curves", "report", "result", "summary", "teacher_accuracy"]
