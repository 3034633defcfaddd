"""How much is allowed in which time; knows neither the web nor the database."""
