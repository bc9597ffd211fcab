"""Evaluated runs side by side on the same items: metrics, resampling, views."""
