"""Networks, their names, weights and the importer of published ones."""
