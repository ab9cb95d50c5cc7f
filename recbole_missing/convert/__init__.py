"""Read and write the file layouts of other projects."""
