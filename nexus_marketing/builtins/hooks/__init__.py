"""How providers of mail and text messages say what became of a message: signatures, and their words in ours."""
