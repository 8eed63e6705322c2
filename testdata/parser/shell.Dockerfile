FROM a
SHELL ["a", "-c"]
SHELL [ "b" ]
