"""How sure a caption is: the model that is fitted, and how far what it says can be believed."""
