"""A distilled data set held against what it says of itself: checked, made anew, and rid of photographs."""

__all__ = ["forgetting", "licences", "remaking", "verifying"]
