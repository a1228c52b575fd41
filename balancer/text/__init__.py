"""The text front end: what people send becomes what is to be said."""
