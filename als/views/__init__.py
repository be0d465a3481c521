"""A photo as the app and the notebooks show it: what is chosen, what is explained, the panels."""
