FROM busybox
ARG A="b c" D='e f' G=h\ i "J"=k
