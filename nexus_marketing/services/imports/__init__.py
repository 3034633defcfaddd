"""Files of leads, from the upload to the undoing (BEHAVIOUR.md 5.5)."""
