"""One file per published system. They never import each other."""
