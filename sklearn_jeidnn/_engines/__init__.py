"""How the stages of a cascade run in prediction."""
