"""The networks that look at images: foreground models, teachers, and how they are asked."""
