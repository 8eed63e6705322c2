FROM busybox
LABEL "com.x y"="v" z='w'
