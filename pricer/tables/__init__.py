"""The one door for tables from outside, and the way out."""
