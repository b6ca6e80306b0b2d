"""Recipes and programs that every stack comes with; the programs run on their own."""
