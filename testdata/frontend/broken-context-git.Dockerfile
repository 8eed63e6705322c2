FROM tree
#: --build-context tree=https://h/r.git?x
