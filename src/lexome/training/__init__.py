"""Windows of genomes, pretraining from recipes, and vocabularies learnt from FASTA."""
