"""What the rows of the speed table are made of; the scripts beside this folder hold the rows."""
