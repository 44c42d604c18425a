"""How ranks come to be, stay alive and are accounted for. Imports no torch, and only floor 0 of `engine`."""
