"""Does a model fit, and where? Pure: sizes, rooms, and the placing of copies in them."""
