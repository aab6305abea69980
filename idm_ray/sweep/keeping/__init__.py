"""Where the files of a sweep are kept, whatever machine wrote them."""
