"""Files to checked arrays: recordings, stimulus movies, any movie of a user, the data set."""
