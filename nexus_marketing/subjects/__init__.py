"""How ``HasMarketing`` lives on the models of a library; loaded when an object of it asks for its campaigns."""
