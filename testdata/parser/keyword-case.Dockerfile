from a aS b
rUn x
copy c d
