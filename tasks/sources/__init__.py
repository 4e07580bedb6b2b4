"""Where pairs come from: pages, link metadata, lists of URLs; what is read in each."""
