"""The Batch tab: a file of products, priced while its visitor watches."""
