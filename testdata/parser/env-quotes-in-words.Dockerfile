FROM busybox
ENV a="b"c'd'"e f"g h='i "j" k' l="m 'n' \"o\""
ENV p=\"q r=\\ s='t\' u=''
