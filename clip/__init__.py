"""The frozen CLIP and what RAM grafts onto it."""
