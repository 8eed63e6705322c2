from busybox aS b
rUn x
copy c d
