"""Agents learn handwritten digits in Flower and are rewarded by what they contribute."""
