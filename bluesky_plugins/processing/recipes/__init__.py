"""What is to be processed, and where: recipes, when they fire, and how their words are filled."""
