"""What training students gave, as figures, tables and curves."""
