"""What a price distribution is: numbers only, no model."""
